//! The timer of a CPU and its other interrupts: deadlines, ends of slices, calls from other CPUs.
//!
//! There is no periodic tick. The timer is set to the first deadline of a [`Timers`](super::timer::Timers) node and, while
//! somebody waits for the CPU, to the end of the running task's slice. It is only ever moved to an earlier time; when it
//! fires too early it is set anew. So a switch that changes nothing about deadlines costs no timer access.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::cpu::{CALLED, Cpu, exec};
use super::hw;

/// A task woken by the running one goes to an idle CPU if it had to wait about this long (ns) for the hand-over.
const HAND_OVER: u64 = 50_000;
/// How often (ns) a real-time task that has had its share looks whether others wait.
const LOOK: u64 = 10_000_000;
/// The running task keeps the CPU for at least this long (ns) after somebody else became runnable.
const MIN_RUN: u64 = 750_000;

impl Cpu {
    /// The timer has to fire at `deadline` or before.
    #[inline]
    pub(super) fn timer_wanted(&self, deadline: u64) {
        if deadline < self.armed.load(Relaxed) {
            self.armed.store(deadline, Relaxed);
            hw::set_timer(Some(deadline));
        }
    }

    pub(super) fn arm_exactly(&self, deadline: u64) {
        if deadline != self.armed.load(Relaxed) {
            self.armed.store(deadline, SeqCst);
            hw::set_timer((deadline != u64::MAX).then_some(deadline));
        }
    }

    /// The timer will end the running task's slice: a woken task that can wait so long needs no IPI.
    pub(super) fn is_ticking(&self) -> bool {
        self.armed.load(SeqCst) <= self.turn_end.load(Relaxed)
    }

    /// Somebody waits for the CPU that a task runs on.
    #[inline]
    pub(super) fn contended(&self) {
        if self.armed.load(Relaxed) > self.turn_end.load(Relaxed) {
            self.begin_contention();
        }
    }

    fn begin_contention(&self) {
        let now = hw::now_ns();
        self.update_current(now);
        for end in [&self.slice_end, &self.turn_end] {
            end.store(end.load(Relaxed).max(now + MIN_RUN), Relaxed);
        }
        let turn_end = self.turn_end.load(Relaxed);
        if turn_end != u64::MAX {
            self.timer_wanted(turn_end);
        }
    }

    /// The one-slot place was filled, and an idle CPU could run the task.
    pub(super) fn expect_hand_over(&self) {
        self.timer_wanted(hw::now_ns() + HAND_OVER);
    }

    /// The timer has fired.
    pub(super) fn on_timer(&self) {
        let now = hw::now_ns();
        self.counters.timer_irq();
        self.armed.store(u64::MAX, Relaxed);
        self.timers.fire(now);
        if self.current().is_some() {
            self.update_current(now);
            self.end_slice(now);
            if !self.next.load(Relaxed).is_null() && self.next_seen.swap(true, Relaxed) {
                self.give_next_away();
            }
        }
        self.rearm(now);
    }

    fn end_slice(&self, now: u64) {
        if self.has_waiting() && now >= self.turn_end.load(Relaxed) {
            let slice_end = self.slice_end.load(Relaxed);
            if now < slice_end && !self.others_wait() {
                // Only for others would a real-time task give way before its slice is over.
                self.turn_end.store(slice_end.min(now + LOOK), Relaxed);
                return;
            }
            self.balance();
            if self.has_waiting() {
                self.resched.store(true, Relaxed);
            }
        }
    }

    /// Sets the timer for what is known now.
    ///
    /// ```text
    /// another CPU (wake::send)                  this CPU
    ///   push to the inbox                         armed = later (SeqCst)
    ///   flags |= CALLED (SeqCst)                  flags has CALLED → look at the inbox
    ///   armed <= slice end → no IPI
    /// ```
    fn rearm(&self, now: u64) {
        let mut deadline = self.timers.first();
        if self.current().is_some() && self.has_waiting() {
            let turn_end = self.turn_end.load(Relaxed);
            if turn_end > now {
                deadline = deadline.min(turn_end);
            }
            if !self.next.load(Relaxed).is_null() && exec().idle.load(Relaxed) != 0 {
                deadline = deadline.min(now + HAND_OVER);
            }
        }
        self.armed.store(deadline, SeqCst);
        hw::set_timer((deadline != u64::MAX).then_some(deadline));
        if self.current().is_some() && self.flags.load(SeqCst) & CALLED != 0 {
            self.drain();
        }
    }

    /// Another CPU called.
    pub(super) fn on_ipi(&self) {
        self.counters.ipi();
        if self.current().is_some() && self.flags.load(Relaxed) & CALLED != 0 {
            self.drain();
        }
    }
}
