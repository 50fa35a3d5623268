//! What other CPUs have woken for a CPU, until it looks.
//!
//! Crossbeam's queue, and a switch point for the simulator after each of its operations.

use crossbeam_queue::ArrayQueue;

use super::runnable::Runnable;
use crate::arch::switch_point;
use crate::sync::Once;

/// Wakes that fit in; more go through the run queue's lock.
const SIZE: usize = 256;

pub(super) struct Inbox(Once<ArrayQueue<Runnable>>);

impl Inbox {
    pub(super) const fn new() -> Self {
        Inbox(Once::new())
    }

    pub(super) fn open(&self) {
        self.0.call_once(|| ArrayQueue::new(SIZE));
    }

    /// Answers the task if there is no room for it.
    pub(super) fn push(&self, runnable: Runnable) -> Option<Runnable> {
        let Some(inbox) = self.0.get() else { return Some(runnable) };
        let rest = inbox.push(runnable).err();
        switch_point();
        rest
    }

    pub(super) fn pop(&self) -> Option<Runnable> {
        let runnable = self.0.get()?.pop();
        switch_point();
        runnable
    }

    pub(super) fn len(&self) -> usize {
        self.0.get().map_or(0, ArrayQueue::len)
    }
}
