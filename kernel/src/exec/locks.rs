//! Sleeping locks: fair, and cancelled by dropping the future. Guards may be held over an await and go to other CPUs.

use crate::sync::atomic::{AtomicBool, Ordering};
use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};

use super::semaphore::Semaphore;
use super::wait::WaitQueue;

/// A mutual-exclusion lock, first come first served.
pub struct Mutex<T: ?Sized> {
    semaphore: Semaphore,
    value: UnsafeCell<T>,
}

// SAFETY: the semaphore's single permit gives one task at a time access to the value.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}
// SAFETY: as above; no `&T` is shared between tasks, so `T: Send` suffices.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}

impl<T> Mutex<T> {
    pub const fn new(value: T) -> Self {
        Mutex { semaphore: Semaphore::new(1), value: UnsafeCell::new(value) }
    }

    pub fn into_inner(self) -> T {
        self.value.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    pub async fn lock(&self) -> MutexGuard<'_, T> {
        if !self.semaphore.try_acquire(1) {
            self.semaphore.acquire(1).await;
        }
        MutexGuard { mutex: self }
    }

    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.semaphore.try_acquire(1).then(|| MutexGuard { mutex: self })
    }

    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Mutex::new(T::default())
    }
}

impl Mutex<()> {
    /// Gives back what [`MutexGuard::keep`] has kept.
    pub fn unlock(&self) {
        self.semaphore.release(1);
    }
}

impl MutexGuard<'_, ()> {
    /// Leaves the mutex locked for somebody who will [`Mutex::unlock`] it.
    pub fn keep(self) {
        core::mem::forget(self);
    }
}

/// Holds a [`Mutex`].
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
}

// SAFETY: a guard gives `&T`.
unsafe impl<T: ?Sized + Send + Sync> Sync for MutexGuard<'_, T> {}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard holds the only permit.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard holds the only permit.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.mutex.semaphore.release(1);
    }
}

/// Many readers or one writer, first come first served.
pub struct RwLock<T: ?Sized> {
    semaphore: Semaphore,
    value: UnsafeCell<T>,
}

/// A writer takes all permits. Small enough that sums of permits do not overflow.
const WRITER: usize = 1 << 30;

// SAFETY: the semaphore excludes writers from everybody.
unsafe impl<T: ?Sized + Send> Send for RwLock<T> {}
// SAFETY: as above; readers share `&T` between tasks, hence `T: Sync`.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T> {}

impl<T> RwLock<T> {
    pub const fn new(value: T) -> Self {
        RwLock { semaphore: Semaphore::new(WRITER), value: UnsafeCell::new(value) }
    }
}

impl<T: ?Sized> RwLock<T> {
    pub async fn read(&self) -> ReadGuard<'_, T> {
        if !self.semaphore.try_acquire(1) {
            self.semaphore.acquire(1).await;
        }
        ReadGuard { lock: self }
    }

    pub async fn write(&self) -> WriteGuard<'_, T> {
        if !self.semaphore.try_acquire(WRITER) {
            self.semaphore.acquire(WRITER).await;
        }
        WriteGuard { lock: self }
    }

    pub fn try_read(&self) -> Option<ReadGuard<'_, T>> {
        self.semaphore.try_acquire(1).then(|| ReadGuard { lock: self })
    }

    pub fn try_write(&self) -> Option<WriteGuard<'_, T>> {
        self.semaphore.try_acquire(WRITER).then(|| WriteGuard { lock: self })
    }

    pub fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        RwLock::new(T::default())
    }
}

/// Holds an [`RwLock`] for reading.
pub struct ReadGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
}

impl<T: ?Sized> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard holds a permit, so there is no writer.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for ReadGuard<'_, T> {
    fn drop(&mut self) {
        self.lock.semaphore.release(1);
    }
}

/// Holds an [`RwLock`] for writing.
pub struct WriteGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
}

impl<T: ?Sized> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard holds all permits.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the guard holds all permits.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for WriteGuard<'_, T> {
    fn drop(&mut self) {
        self.lock.semaphore.release(WRITER);
    }
}

/// A flag that tasks wait for. Once set it stays set until somebody resets it.
pub struct Event {
    set: AtomicBool,
    queue: WaitQueue,
}

impl Event {
    pub const fn new() -> Self {
        Event { set: AtomicBool::new(false), queue: WaitQueue::new() }
    }

    pub fn set(&self) {
        self.set.store(true, Ordering::Release);
        self.queue.wake_all();
    }

    pub fn reset(&self) {
        self.set.store(false, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    pub async fn wait(&self) {
        self.queue.wait_for(|| self.is_set().then_some(())).await
    }
}

impl Default for Event {
    fn default() -> Self {
        Event::new()
    }
}

/// One token: `notify` leaves it (or keeps the one that is there), `wait` takes it.
pub struct Notify {
    token: AtomicBool,
    queue: WaitQueue,
}

impl Notify {
    pub const fn new() -> Self {
        Notify { token: AtomicBool::new(false), queue: WaitQueue::new() }
    }

    pub fn notify(&self) {
        self.token.store(true, Ordering::Release);
        self.queue.wake_one();
    }

    pub async fn wait(&self) {
        self.queue.wait_for_exclusive(|| self.token.swap(false, Ordering::Acquire).then_some(())).await
    }
}

impl Default for Notify {
    fn default() -> Self {
        Notify::new()
    }
}
