//! Who writes through a mount, or to a file system, and how it is seen to that nobody does.

use core::ops::Deref;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::Mount;
use crate::errno::{Errno, Result};
use crate::fs::op::Op;

/// A number of writers; while it is held at none, nobody is let in.
#[derive(Default)]
pub struct Writers(AtomicUsize);

const HELD: usize = 1 << (usize::BITS - 1);

/// Ends the hold when dropped.
pub struct Held<'a>(&'a Writers);

impl Writers {
    /// One more, until [`Writers::leave`]; false if they are held.
    pub fn enter(&self) -> bool {
        let more = |writers| (writers & HELD == 0).then_some(writers + 1);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    pub fn leave(&self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }

    pub fn are_held(&self) -> bool {
        self.0.load(Ordering::Acquire) & HELD != 0
    }

    /// EBUSY if there are any, or if somebody holds them.
    pub fn hold(&self) -> Result<Held<'_>> {
        let held = self.0.compare_exchange(0, HELD, Ordering::AcqRel, Ordering::Acquire);
        held.map(|_| Held(self)).map_err(|_| Errno::EBUSY)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_and(!HELD, Ordering::AcqRel);
    }
}

/// A change of a file system through a mount, which is its writer until this is dropped.
#[must_use]
pub struct Writing<M: Deref<Target = Mount>>(M);

impl<M: Deref<Target = Mount>> Writing<M> {
    /// EROFS if the mount or its file system may not be written.
    pub fn begin<'a>(mount: M) -> Op<'a, Result<Writing<M>>>
    where
        M: Send + 'a,
    {
        match mount.start_writing() {
            Some(started) => Op::ready(started.map(|()| Writing(mount))),
            None => Op::boxed(Writing::wait(mount)),
        }
    }

    async fn wait(mount: M) -> Result<Writing<M>> {
        loop {
            drop(super::CHANGES.lock().await);
            if let Some(started) = mount.start_writing() {
                return started.map(|()| Writing(mount));
            }
        }
    }

    /// For those who look at something else before they fail.
    pub fn outcome(begun: &Result<Writing<M>>) -> Result<()> {
        begun.as_ref().map(drop).map_err(|errno| *errno)
    }
}

impl Writing<&Mount> {
    /// An open file is the writer from now on, until [`Mount::stop_writing`].
    pub fn keep(self) {
        core::mem::forget(self);
    }
}

impl<M: Deref<Target = Mount>> Drop for Writing<M> {
    fn drop(&mut self) {
        self.0.stop_writing();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_held_does_not_get_in() {
        let writers = Writers::default();
        assert!(writers.enter());
        assert_eq!(writers.hold().err(), Some(Errno::EBUSY));
        writers.leave();
        let held = writers.hold().unwrap();
        assert!(!writers.enter() && writers.are_held());
        assert_eq!(writers.hold().err(), Some(Errno::EBUSY));
        drop(held);
        assert!(writers.enter() && !writers.are_held());
    }
}
