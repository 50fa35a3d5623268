//! net.core and net.ipv4: limits and defaults of all sockets, which root may change.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::errno::{Errno, Result};

/// Least sizes of buffers as getsockopt(2) answers them, bytes (SOCK_MIN_SNDBUF, SOCK_MIN_RCVBUF of Linux).
pub const MIN_SEND: u32 = 4608;
pub const MIN_RECEIVE: u32 = 2304;

/// A number of a range.
pub struct Limit {
    value: AtomicU32,
    least: u32,
    most: u32,
}

const INT_MAX: u32 = i32::MAX as u32;

/// Bytes: what SO_RCVBUF and SO_SNDBUF go up to, and what a socket begins with.
pub static RECEIVE_MAX: Limit = Limit::new(212_992, MIN_RECEIVE, INT_MAX);
pub static SEND_MAX: Limit = Limit::new(212_992, MIN_SEND, INT_MAX);
pub static RECEIVE_DEFAULT: Limit = Limit::new(212_992, MIN_RECEIVE, INT_MAX);
pub static SEND_DEFAULT: Limit = Limit::new(212_992, MIN_SEND, INT_MAX);
/// Connections that wait for accept(2).
pub static BACKLOG_MAX: Limit = Limit::new(4096, 0, INT_MAX);
/// How long a connection without a socket waits for its other side's end, seconds.
pub static FIN_TIME: Limit = Limit::new(60, 0, INT_MAX / 250);

impl Limit {
    const fn new(value: u32, least: u32, most: u32) -> Self {
        Limit { value: AtomicU32::new(value), least, most }
    }

    pub fn get(&self) -> u32 {
        self.value.load(Ordering::Relaxed)
    }

    /// EINVAL: it is out of range.
    pub fn set(&self, value: i64) -> Result<()> {
        let fits = (i64::from(self.least)..=i64::from(self.most)).contains(&value);
        if !fits {
            return Err(Errno::EINVAL);
        }
        self.value.store(value as u32, Ordering::Relaxed);
        Ok(())
    }
}
