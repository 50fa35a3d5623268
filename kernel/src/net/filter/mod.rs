//! Filters that programs attach to sockets: classic BPF (socket(7), SO_ATTACH_FILTER; McCanne and Jacobson, 1993).
//!
//! A program of up to 4,096 instructions looks at each packet that is to be received and says how many bytes of it are wanted; 0: it is
//! not for this socket. Jumps lead forwards only, so it ends after as many steps as it has instructions. [`mod@check`]: which
//! programs are taken; [`mod@run`]: what they do.
//!
//! Sockets of packets ([`super::link`]), UDP, ICMP and raw sockets have them. A filter of UDP sees a datagram from its UDP
//! header on, one of a raw socket of IPv4 the whole packet, one of the others what is behind the IP header.

mod check;
mod run;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::socket::Socket;
use crate::errno::{Errno, Result};
use crate::mm::UserPtr;
use crate::process::Thread;
use crate::sync::SpinLock;

pub use run::View;

/// BPF_MAXINSNS.
const MOST: usize = 4096;

/// `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Instruction {
    pub code: u16,
    /// How many instructions are passed over if the comparison holds, and if it does not.
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// `struct sock_fprog`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Program {
    len: u16,
    _pad: [u16; 3],
    at: u64,
}

/// A program that has been looked at: it ends, and reaches nothing but the packet and its 16 words.
pub struct Filter(Box<[Instruction]>);

impl Filter {
    /// EINVAL: Linux would not take it.
    pub fn new(code: Box<[Instruction]>) -> Result<Filter> {
        check::check(&code)?;
        Ok(Filter(code))
    }
}

/// The filter of a socket, if it has one.
#[derive(Default)]
pub struct Attached {
    filter: SpinLock<Option<Arc<Filter>>>,
    /// There is one: those who have none ask no further.
    is_there: AtomicBool,
    /// SO_LOCK_FILTER; changes under the filter's lock.
    locked: AtomicBool,
}

impl Attached {
    pub fn is_locked(&self) -> bool {
        self.locked.load(Ordering::Relaxed)
    }

    /// SO_LOCK_FILTER. EPERM: what is locked stays so.
    pub fn lock(&self, on: bool) -> Result<()> {
        let _own = self.filter.lock();
        if !on && self.is_locked() {
            return Err(Errno::EPERM);
        }
        self.locked.store(on, Ordering::Relaxed);
        Ok(())
    }

    /// SO_DETACH_FILTER.
    pub fn detach(&self) -> Result<()> {
        self.set(None)?.map(drop).ok_or(Errno::ENOENT)
    }

    /// Answers the one before.
    fn set(&self, filter: Option<Arc<Filter>>) -> Result<Option<Arc<Filter>>> {
        let mut own = self.filter.lock();
        if self.is_locked() {
            return Err(Errno::EPERM);
        }
        self.is_there.store(filter.is_some(), Ordering::Relaxed);
        Ok(core::mem::replace(&mut own, filter))
    }

    fn get(&self) -> Option<Arc<Filter>> {
        self.filter.lock().clone()
    }

    pub fn is_there(&self) -> bool {
        self.is_there.load(Ordering::Relaxed)
    }

    /// How many bytes of what `view` shows the socket wants at most; None: nothing at all.
    pub fn wanted(&self, view: &View<'_>) -> Option<usize> {
        if !self.is_there() {
            return Some(usize::MAX);
        }
        let Some(filter) = self.get() else { return Some(usize::MAX) };
        match run::run(&filter.0, view) {
            0 => None,
            most => Some(most as usize),
        }
    }
}

/// SO_ATTACH_FILTER with a `struct sock_fprog` of `len` bytes.
pub async fn attach(t: &Thread, socket: &dyn Socket, value: UserPtr<u8>, len: usize) -> Result<()> {
    let attached = &socket.common().filter;
    if !socket.takes_filters() {
        return Err(Errno::ENOPROTOOPT);
    }
    if len != size_of::<Program>() {
        return Err(Errno::EINVAL);
    }
    let Program { len, at, .. } = UserPtr::<Program>::new(value.addr()).read(t.mm()).await?;
    if attached.is_locked() {
        return Err(Errno::EPERM);
    }
    let len = usize::from(len);
    if at == 0 || len == 0 || len > MOST {
        return Err(Errno::EINVAL);
    }
    let mut code = Vec::new();
    code.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    code.resize(len, Instruction { code: 0, jt: 0, jf: 0, k: 0 });
    UserPtr::<u8>::new(at).read_bytes(t.mm(), code.as_mut_bytes()).await?;
    let filter = Arc::new(Filter::new(code.into_boxed_slice())?);
    attached.set(Some(filter)).map(drop)
}

/// SO_GET_FILTER: writes the instructions if there is `room` for all of them, and answers how many there are.
pub async fn get(t: &Thread, socket: &dyn Socket, value: UserPtr<u8>, room: usize) -> Result<usize> {
    if !socket.takes_filters() {
        return Err(Errno::ENOPROTOOPT);
    }
    let Some(filter) = socket.common().filter.get() else { return Ok(0) };
    let count = filter.0.len();
    if room == 0 {
        return Ok(count);
    }
    if room < count {
        return Err(Errno::EINVAL);
    }
    value.write_bytes(t.mm(), filter.0.as_bytes()).await?;
    Ok(count)
}
