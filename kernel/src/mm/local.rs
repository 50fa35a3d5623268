//! Per-CPU state that only its own CPU touches.

use crate::arch::{MAX_CPUS, PerCpu};

#[cfg(target_os = "none")]
mod cell {
    use core::cell::UnsafeCell;

    pub struct Cell<T>(UnsafeCell<T>);

    // SAFETY: `with` is the only access. It runs on the owning CPU with interrupts masked (docs/design.md 11) and does
    // not suspend, so no two closures overlap unless one calls `with` on the same cell again, which callers must not.
    unsafe impl<T: Send> Sync for Cell<T> {}

    impl<T> Cell<T> {
        pub const fn new(value: T) -> Self {
            Cell(UnsafeCell::new(value))
        }

        #[inline]
        pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
            // SAFETY: see the `Sync` implementation.
            f(unsafe { &mut *self.0.get() })
        }

        pub fn as_ptr(&self) -> *const T {
            self.0.get()
        }
    }
}

/// On the host several test threads may play the same CPU: a lock keeps them apart.
#[cfg(not(target_os = "none"))]
mod cell {
    use crate::sync::SpinLock;

    pub struct Cell<T>(SpinLock<T>);

    impl<T> Cell<T> {
        pub const fn new(value: T) -> Self {
            Cell(SpinLock::new(value))
        }

        pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
            f(&mut self.0.lock())
        }

        pub fn as_ptr(&self) -> *const T {
            self.0.data_ptr()
        }
    }
}

pub(crate) use cell::Cell as LocalCell;

/// One `T` per CPU, reached only from that CPU and never across an await. The closure of `with` must not come back to
/// the same `Local`.
pub(crate) struct Local<T: 'static>(PerCpu<LocalCell<T>>);

impl<T> Local<T> {
    pub const fn new(cells: [LocalCell<T>; MAX_CPUS]) -> Self {
        Local(PerCpu::new(cells))
    }

    #[inline]
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        self.0.get().with(f)
    }

    /// Where each CPU's value is; only for reading atomics in it.
    pub fn pointers(&self) -> impl Iterator<Item = *const T> {
        self.0.iter().map(LocalCell::as_ptr)
    }
}
