//! Spinlocks. The kernel runs with interrupts masked (see `docs/design.md`), so a plain spinlock is also
//! safe against the interrupt service routines. Guards are `!Send`: the compiler refuses to hold one over an `.await`.
//!
//! Before a lock is taken, after it is given back, and while one waits for it, the simulator may run another CPU.
//!
//! Who has to wait is counted by [`stat`]; who need not, pays nothing for that.

pub mod stat;

/// For what is also compiled for a model checker (`sim/models`), which has atomics of its own.
pub use core::sync::atomic;

use core::any::type_name;
use core::fmt;
use core::panic::Location;

use lock_api::{GuardNoSend, RawMutex, RawRwLock};

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

/// What a [`SpinLock`] is made of.
pub struct RawSpin(spin::mutex::SpinMutex<(), Relax>);

// SAFETY: forwards to spin's own lock_api implementation, which excludes.
unsafe impl RawMutex for RawSpin {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = RawSpin(spin::mutex::SpinMutex::new(()));
    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock(&self) {
        RawMutex::lock(&self.0)
    }

    #[inline]
    fn try_lock(&self) -> bool {
        RawMutex::try_lock(&self.0)
    }

    #[inline]
    unsafe fn unlock(&self) {
        // SAFETY: the caller holds the lock (contract of `RawMutex::unlock`).
        unsafe { RawMutex::unlock(&self.0) };
        arch::switch_point();
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.0.is_locked()
    }
}

/// What a [`RwSpinLock`] is made of.
pub struct RawRwSpin(spin::rwlock::RwLock<(), Relax>);

// SAFETY: forwards to spin's own lock_api implementation.
unsafe impl RawRwLock for RawRwSpin {
    #[allow(clippy::declare_interior_mutable_const)]
    const INIT: Self = RawRwSpin(spin::rwlock::RwLock::new(()));
    type GuardMarker = GuardNoSend;

    #[inline]
    fn lock_shared(&self) {
        RawRwLock::lock_shared(&self.0)
    }

    #[inline]
    fn try_lock_shared(&self) -> bool {
        RawRwLock::try_lock_shared(&self.0)
    }

    #[inline]
    unsafe fn unlock_shared(&self) {
        // SAFETY: the caller holds the lock shared.
        unsafe { RawRwLock::unlock_shared(&self.0) };
        arch::switch_point();
    }

    #[inline]
    fn lock_exclusive(&self) {
        RawRwLock::lock_exclusive(&self.0)
    }

    #[inline]
    fn try_lock_exclusive(&self) -> bool {
        RawRwLock::try_lock_exclusive(&self.0)
    }

    #[inline]
    unsafe fn unlock_exclusive(&self) {
        // SAFETY: the caller holds the lock exclusively.
        unsafe { RawRwLock::unlock_exclusive(&self.0) };
        arch::switch_point();
    }

    #[inline]
    fn is_locked(&self) -> bool {
        self.0.writer_count() + self.0.reader_count() > 0
    }

    #[inline]
    fn is_locked_exclusive(&self) -> bool {
        self.0.writer_count() > 0
    }
}

/// A spinlock whose guards are `!Send`.
#[derive(Default)]
pub struct SpinLock<T: ?Sized>(lock_api::Mutex<RawSpin, T>);

impl<T> SpinLock<T> {
    pub const fn new(value: T) -> Self {
        SpinLock(lock_api::Mutex::new(value))
    }

    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

impl<T: ?Sized> SpinLock<T> {
    #[inline(always)]
    #[track_caller]
    pub fn lock(&self) -> SpinGuard<'_, T> {
        arch::switch_point();
        match self.0.try_lock() {
            Some(guard) => guard,
            None => self.wait(Location::caller()),
        }
    }

    #[inline]
    pub fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        self.0.try_lock()
    }

    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }

    /// Frees the lock, whoever holds it.
    ///
    /// # Safety
    ///
    /// Whoever holds it does not go on (its CPU has stopped).
    pub unsafe fn force_unlock(&self) {
        // SAFETY: what the caller promises.
        unsafe { self.0.force_unlock() }
    }

    pub fn data_ptr(&self) -> *mut T {
        self.0.data_ptr()
    }

    #[cold]
    #[inline(never)]
    fn wait(&self, place: stat::Place) -> SpinGuard<'_, T> {
        // SAFETY: nobody is said to hold it.
        let raw = unsafe { self.0.raw() };
        stat::counted(place, type_name::<T>(), &|| raw.try_lock(), &|| raw.is_locked());
        // SAFETY: it has just been taken, for this guard.
        unsafe { self.0.make_guard_unchecked() }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for SpinLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A reader-writer spinlock whose guards are `!Send`.
#[derive(Default)]
pub struct RwSpinLock<T: ?Sized>(lock_api::RwLock<RawRwSpin, T>);

impl<T> RwSpinLock<T> {
    pub const fn new(value: T) -> Self {
        RwSpinLock(lock_api::RwLock::new(value))
    }
}

impl<T: ?Sized> RwSpinLock<T> {
    #[inline(always)]
    #[track_caller]
    pub fn read(&self) -> lock_api::RwLockReadGuard<'_, RawRwSpin, T> {
        arch::switch_point();
        match self.0.try_read() {
            Some(guard) => guard,
            None => self.wait_to_read(Location::caller()),
        }
    }

    #[inline(always)]
    #[track_caller]
    pub fn write(&self) -> lock_api::RwLockWriteGuard<'_, RawRwSpin, T> {
        arch::switch_point();
        match self.0.try_write() {
            Some(guard) => guard,
            None => self.wait_to_write(Location::caller()),
        }
    }

    #[inline]
    pub fn try_read(&self) -> Option<lock_api::RwLockReadGuard<'_, RawRwSpin, T>> {
        self.0.try_read()
    }

    #[inline]
    pub fn try_write(&self) -> Option<lock_api::RwLockWriteGuard<'_, RawRwSpin, T>> {
        self.0.try_write()
    }

    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }

    #[cold]
    #[inline(never)]
    fn wait_to_read(&self, place: stat::Place) -> lock_api::RwLockReadGuard<'_, RawRwSpin, T> {
        // SAFETY: nobody is said to hold it.
        let raw = unsafe { self.0.raw() };
        stat::counted(place, type_name::<T>(), &|| raw.try_lock_shared(), &|| raw.is_locked_exclusive());
        // SAFETY: it has just been taken, for this guard.
        unsafe { self.0.make_read_guard_unchecked() }
    }

    #[cold]
    #[inline(never)]
    fn wait_to_write(&self, place: stat::Place) -> lock_api::RwLockWriteGuard<'_, RawRwSpin, T> {
        // SAFETY: nobody is said to hold it.
        let raw = unsafe { self.0.raw() };
        stat::counted(place, type_name::<T>(), &|| raw.try_lock_exclusive(), &|| raw.is_locked());
        // SAFETY: it has just been taken, for this guard.
        unsafe { self.0.make_write_guard_unchecked() }
    }
}

pub type SpinGuard<'a, T> = lock_api::MutexGuard<'a, RawSpin, T>;
pub type Lazy<T, F = fn() -> T> = spin::lazylock::LazyLock<T, F, Relax>;
pub type Once<T> = spin::once::Once<T, Relax>;

/// Two different locks of a kind, the one at the lower address first; the guards in the order of the arguments.
pub fn lock_both<'a, T>(a: &'a SpinLock<T>, b: &'a SpinLock<T>) -> (SpinGuard<'a, T>, SpinGuard<'a, T>) {
    if core::ptr::from_ref(a).addr() < core::ptr::from_ref(b).addr() {
        let a = a.lock();
        (a, b.lock())
    } else {
        let b = b.lock();
        (a.lock(), b)
    }
}
