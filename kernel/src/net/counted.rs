//! How many there are of something.

use core::sync::atomic::{AtomicUsize, Ordering};

/// Sockets that programs have, and those of TCP among them.
pub static SOCKETS: AtomicUsize = AtomicUsize::new(0);
pub static TCP_SOCKETS: AtomicUsize = AtomicUsize::new(0);
/// Connections with other machines that no program has any more.
pub static ORPHANS: AtomicUsize = AtomicUsize::new(0);

/// One more as long as it lives.
pub struct Counted(&'static AtomicUsize);

impl Counted {
    pub fn new(count: &'static AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
