//! Loads and stores of user code. Each may fault, and the kernel may interrupt the thread before it.

use std::future::poll_fn;
use std::task::Poll;

use pollux_kernel::arch::{self, UserFault, user};

use super::{Request, U, now};

impl U {
    /// Performs an access; traps and tries again if the memory is not there.
    async fn access<T>(self, mut attempt: impl FnMut() -> Result<T, UserFault>) -> T {
        let mut interrupted = false;
        poll_fn(|_| {
            if !interrupted && arch::irq::is_pending() {
                interrupted = true;
                now(|now| now.request = Some(Request::Interrupt));
                return Poll::Pending;
            }
            match attempt() {
                Ok(value) => Poll::Ready(value),
                Err(fault) => {
                    now(|now| now.request = Some(Request::Fault(fault)));
                    Poll::Pending
                }
            }
        })
        .await
    }

    pub async fn load(self, addr: u64) -> u32 {
        self.access(|| user::load_u32(addr)).await
    }

    pub async fn store(self, addr: u64, value: u32) {
        self.access(|| user::store_u32(addr, value)).await
    }

    pub async fn load64(self, addr: u64) -> u64 {
        self.access(|| user::load_u64(addr)).await
    }

    pub async fn store64(self, addr: u64, value: u64) {
        self.access(|| user::store_u64(addr, value)).await
    }

    /// Compare-and-exchange; answers what was there.
    pub async fn compare_exchange(self, addr: u64, old: u32, new: u32) -> u32 {
        self.access(|| user::cmpxchg_u32(addr, old, new)).await
    }

    /// Atomic change; answers what was there.
    pub async fn update(self, addr: u64, change: impl Fn(u32) -> u32) -> u32 {
        let mut old = self.load(addr).await;
        loop {
            match self.compare_exchange(addr, old, change(old)).await {
                found if found == old => return old,
                found => old = found,
            }
        }
    }

    pub async fn swap(self, addr: u64, new: u32) -> u32 {
        self.update(addr, |_| new).await
    }

    pub async fn add(self, addr: u64, n: u32) -> u32 {
        self.update(addr, |old| old.wrapping_add(n)).await
    }

    pub async fn read_bytes(self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        // SAFETY: the buffer is ours.
        self.access(|| unsafe { user::copy_from(bytes.as_mut_ptr(), addr, len) }.map_err(|(_, fault)| fault)).await;
        bytes
    }

    pub async fn write_bytes(self, addr: u64, bytes: &[u8]) {
        // SAFETY: as above.
        self.access(|| unsafe { user::copy_to(addr, bytes.as_ptr(), bytes.len()) }.map_err(|(_, fault)| fault)).await;
    }

    /// Lets `ns` pass in user code, or less if an interrupt comes.
    pub async fn work(self, ns: u64) {
        self.access(|| Ok(())).await;
        arch::sim::advance(ns);
        self.access(|| Ok(())).await;
    }
}
