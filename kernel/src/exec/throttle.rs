//! What keeps real-time tasks from having a CPU for ever: in each period others that wait get a part of it (sched(7),
//! "Limiting the CPU usage of real-time and deadline processes").
//!
//! A real-time task's turn ends when the CPU's share for all of them is used up. As long as it is and others wait, these
//! run; when nobody else waits real-time tasks go on, as with the deadline server of newer Linux.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// /proc/sys/kernel/sched_rt_period_us and sched_rt_runtime_us, in ns here; the greatest value: no limit.
static PERIOD: AtomicU64 = AtomicU64::new(1_000_000_000);
static RUNTIME: AtomicU64 = AtomicU64::new(950_000_000);

/// Both in µs; no runtime: no limit.
pub fn rt_bandwidth() -> (u64, Option<u64>) {
    let runtime = RUNTIME.load(Relaxed);
    (PERIOD.load(Relaxed) / 1000, (runtime != u64::MAX).then_some(runtime / 1000))
}

/// False if there is no such period, or more runtime than period.
pub fn set_rt_bandwidth(period: u64, runtime: Option<u64>) -> bool {
    if period == 0 || period > u64::from(u32::MAX) || runtime.is_some_and(|runtime| runtime > period) {
        return false;
    }
    PERIOD.store(period * 1000, Relaxed);
    RUNTIME.store(runtime.map_or(u64::MAX, |runtime| runtime * 1000), Relaxed);
    true
}

/// A CPU's account of its period. Written by that CPU.
pub(super) struct Throttle {
    used: AtomicU64,
    period_end: AtomicU64,
}

impl Throttle {
    pub const fn new() -> Self {
        Throttle { used: AtomicU64::new(0), period_end: AtomicU64::new(0) }
    }

    /// A real-time task ran so long.
    pub fn charge(&self, ns: u64) {
        self.used.store(self.used.load(Relaxed).saturating_add(ns), Relaxed);
    }

    /// When the share of this period is used up if a real-time task runs from `now` on.
    pub fn end(&self, now: u64) -> u64 {
        if now >= self.period_end.load(Relaxed) {
            self.period_end.store(now.saturating_add(PERIOD.load(Relaxed)), Relaxed);
            self.used.store(0, Relaxed);
        }
        now.saturating_add(RUNTIME.load(Relaxed).saturating_sub(self.used.load(Relaxed)))
    }
}
