//! What host tests of anything that needs memory share.

use alloc::sync::Arc;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;
use std::sync::Once;

use super::{AddressSpace, MapFlags, MmapRequest, Prot};
use crate::arch;

pub use crate::exec::test_util::block_on;

/// Gives the simulated memory to the frame allocator; every test that needs frames calls it first.
pub fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let (usable, reserved) = arch::early_memory();
        super::init(usable, reserved);
    });
}

/// Runs a future with memory.
pub fn run<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    init();
    block_on(future)
}

/// Polls a future a single time.
pub async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// A request for private anonymous memory.
pub fn anonymous(addr: u64, len: u64, prot: Prot, flags: MapFlags) -> MmapRequest {
    let flags = flags | MapFlags::ANONYMOUS | MapFlags::PRIVATE;
    MmapRequest { addr, len, prot, flags, source: None, offset: 0 }
}

/// A space with `len` readable and writable bytes at the answered address.
pub async fn space_with(len: u64) -> (Arc<AddressSpace>, u64) {
    let space = AddressSpace::new().unwrap();
    let addr = space.mmap(anonymous(0, len, Prot::READ | Prot::WRITE, MapFlags::empty())).await.unwrap();
    (space, addr)
}

/// Random numbers that repeat.
pub struct Rng(pub u64);

impl Rng {
    #[allow(clippy::should_implement_trait, reason = "never ends, so it is no iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }
}
