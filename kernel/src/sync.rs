//! Spinlocks. The kernel runs with interrupts masked (see `docs/design.md`), so a plain spinlock is also
//! safe against the interrupt service routines. Guards are `!Send`: the compiler refuses to hold one over an `.await`.
//!
//! Before a lock is taken, after it is given back, and while one waits for it, the simulator may run another CPU.

/// For what is also compiled for a model checker (`sim/models`), which has atomics of its own.
pub use core::sync::atomic;

use lock_api::GuardNoSend;

use crate::arch;

/// How one waits for another CPU.
pub struct Relax;

impl spin::relax::RelaxStrategy for Relax {
    #[inline(always)]
    fn relax() {
        arch::spin_hint();
    }
}

/// A fence between two accesses of a protocol without a lock: what others do in between is seen by the second.
#[inline]
pub fn full_fence() {
    atomic::fence(atomic::Ordering::SeqCst);
    arch::switch_point();
}

/// A spinlock whose guards are `!Send`.
pub struct RawSpin(spin::mutex::SpinMutex<(), Relax>);

// SAFETY: forwards to spin's own lock_api implementation, which excludes.
unsafe impl lock_api::RawMutex for RawSpin {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = RawSpin(spin::mutex::SpinMutex::new(()));
    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock(&self) {
        arch::switch_point();
        lock_api::RawMutex::lock(&self.0)
    }

    #[inline]
    fn try_lock(&self) -> bool {
        lock_api::RawMutex::try_lock(&self.0)
    }

    #[inline]
    unsafe fn unlock(&self) {
        // SAFETY: the caller holds the lock (contract of `RawMutex::unlock`).
        unsafe { lock_api::RawMutex::unlock(&self.0) };
        arch::switch_point();
    }
}

/// A reader-writer spinlock whose guards are `!Send`.
pub struct RawRwSpin(spin::rwlock::RwLock<(), Relax>);

// SAFETY: forwards to spin's own lock_api implementation.
unsafe impl lock_api::RawRwLock for RawRwSpin {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = RawRwSpin(spin::rwlock::RwLock::new(()));
    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock_shared(&self) {
        arch::switch_point();
        lock_api::RawRwLock::lock_shared(&self.0)
    }

    #[inline]
    fn try_lock_shared(&self) -> bool {
        lock_api::RawRwLock::try_lock_shared(&self.0)
    }

    #[inline]
    unsafe fn unlock_shared(&self) {
        // SAFETY: the caller holds the lock shared.
        unsafe { lock_api::RawRwLock::unlock_shared(&self.0) };
        arch::switch_point();
    }

    #[inline]
    fn lock_exclusive(&self) {
        arch::switch_point();
        lock_api::RawRwLock::lock_exclusive(&self.0)
    }

    #[inline]
    fn try_lock_exclusive(&self) -> bool {
        lock_api::RawRwLock::try_lock_exclusive(&self.0)
    }

    #[inline]
    unsafe fn unlock_exclusive(&self) {
        // SAFETY: the caller holds the lock exclusively.
        unsafe { lock_api::RawRwLock::unlock_exclusive(&self.0) };
        arch::switch_point();
    }
}

pub type SpinLock<T> = lock_api::Mutex<RawSpin, T>;
pub type SpinGuard<'a, T> = lock_api::MutexGuard<'a, RawSpin, T>;
pub type RwSpinLock<T> = lock_api::RwLock<RawRwSpin, T>;
pub type Lazy<T, F = fn() -> T> = spin::lazylock::LazyLock<T, F, Relax>;
pub type Once<T> = spin::once::Once<T, Relax>;
