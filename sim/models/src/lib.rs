//! The executor's lists, wait queues, semaphores and sleeping locks, compiled from the kernel's own files with the atomics and
//! spinlocks of [shuttle](https://docs.rs/shuttle), which tries many interleavings of threads: also of single accesses to
//! atomics, between which the simulator does not switch. `tests/` has the models.

extern crate alloc;

pub mod sync {
    pub mod atomic {
        pub use shuttle::sync::atomic::*;
    }

    pub fn full_fence() {
        atomic::fence(atomic::Ordering::SeqCst);
    }

    /// A spinlock that gives way to whoever holds it.
    pub struct RawSpin(atomic::AtomicBool);

    // SAFETY: only one can change the flag from false to true.
    unsafe impl lock_api::RawMutex for RawSpin {
        #[allow(clippy::declare_interior_mutable_const)]
        const INIT: Self = RawSpin(atomic::AtomicBool::new(false));
        type GuardMarker = lock_api::GuardNoSend;

        fn lock(&self) {
            while !self.try_lock() {
                shuttle::thread::yield_now();
            }
        }

        fn try_lock(&self) -> bool {
            !self.0.swap(true, atomic::Ordering::Acquire)
        }

        unsafe fn unlock(&self) {
            self.0.store(false, atomic::Ordering::Release);
        }
    }

    pub type SpinLock<T> = lock_api::Mutex<RawSpin, T>;
}

pub mod exec;
