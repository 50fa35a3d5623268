//! One interval timer that sends a signal: what setitimer(2) and timer_create(2) make.
//!
//! An expiry queues the signal and disarms the timer; it is armed again when the signal is taken from the queue, and the
//! periods that passed meanwhile are its overrun. So no interval, however short, costs more than its signals.
//! If the signal is ignored, the timer goes on by itself, but no faster than [`IGNORED_PERIOD`]: a program may have thousands
//! of them. Interval timers on CPU time go on by themselves, too. A timer that tells nobody is never armed: what it shows is
//! computed when somebody asks.

use alloc::sync::{Arc, Weak};
use alloc::task::Wake;
use core::task::Waker;
use core::time::Duration;

use super::clock::{self, ClockId};
use super::sleep::Deadline;
use crate::exec::{Instant, TimerHandle, WaitEntry};
use crate::process::{Process, Task};
use crate::signal::{self, Reservation, SigInfo};
use crate::sync::SpinLock;

const SELF_PERIOD: Duration = Duration::from_millis(1);
const IGNORED_PERIOD: Duration = Duration::from_millis(10);

/// Which clock a timer runs on. CPU clocks are named by their owner, who owns the timer in turn: no `Arc` here.
#[derive(Clone)]
pub(super) enum TimerClock {
    Wall(ClockId),
    /// Of the owning process: its CPU time, or only user time.
    Process {
        user_only: bool,
    },
    /// Of a thread.
    Thread(Weak<Task>),
}

/// What an expiry does.
pub(super) enum Notify {
    None,
    Process(SigInfo),
    Thread(SigInfo, Weak<Task>),
}

/// `struct itimerspec`, in nanoseconds on the timer's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Setting {
    /// Until the next expiry; 0: disarmed.
    pub value: u64,
    /// Between expiries; 0: only one.
    pub interval: u64,
}

pub(super) struct Timer {
    process: Weak<Process>,
    clock: TimerClock,
    notify: Notify,
    /// Goes on at an expiry, not when the signal is taken.
    self_rearming: bool,
    waker: Waker,
    state: SpinLock<State>,
}

struct State {
    handle: TimerHandle,
    /// When it expires next, on its clock; None: disarmed.
    next: Option<u64>,
    interval: u64,
    /// Was set to a point on its clock, not to a length of time.
    absolute: bool,
    /// Expired, and the signal has not been taken yet.
    waiting: bool,
    /// Periods that passed beyond the one that queued the signal.
    overrun: u32,
    /// The overrun of the signal that was taken last.
    reported: u32,
    /// In the queue of those who want to know that the wall clock was set.
    on_set: Option<Arc<WaitEntry>>,
    /// Deleted by another thread than the one that is about to set it.
    deleted: bool,
}

/// The waker of a timer does not keep it alive.
struct Alarm(Weak<Timer>);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(timer) = self.0.upgrade() {
            timer.expire();
        }
    }
}

impl Timer {
    pub fn new(process: &Arc<Process>, clock: TimerClock, notify: Notify, self_rearming: bool) -> Arc<Timer> {
        Arc::new_cyclic(|this| Timer {
            process: Arc::downgrade(process),
            clock,
            notify,
            self_rearming,
            waker: Waker::from(Arc::new(Alarm(this.clone()))),
            state: SpinLock::new(State {
                handle: TimerHandle::new(),
                next: None,
                interval: 0,
                absolute: false,
                waiting: false,
                overrun: 0,
                reported: 0,
                on_set: None,
                deleted: false,
            }),
        })
    }

    /// The clock that `State::next` is on; None if its owner is gone.
    fn clock(&self, state: &State) -> Option<ClockId> {
        use super::clock::CpuClock::{All, User};
        Some(match &self.clock {
            TimerClock::Wall(clock) if state.absolute => clock.clone(),
            // Setting the wall clock does not move relative times.
            TimerClock::Wall(_) => ClockId::Monotonic,
            TimerClock::Process { user_only } => {
                ClockId::Process(self.process.upgrade()?, if *user_only { User } else { All })
            }
            TimerClock::Thread(task) => ClockId::Thread(task.upgrade()?, All),
        })
    }

    pub fn get(&self) -> Setting {
        self.setting(&self.state.lock())
    }

    fn setting(&self, state: &State) -> Setting {
        let (Some(next), Some(clock)) = (state.next, self.clock(state)) else {
            return Setting { value: 0, interval: state.interval };
        };
        let now = clock.now();
        if next <= now && state.interval == 0 && matches!(self.notify, Notify::None) {
            return Setting::default();
        }
        let next = if next <= now && state.interval > 0 { after(next, now, state.interval) } else { next };
        // An expiry that is due but has not been seen yet is a moment away, not "disarmed".
        Setting { value: next.saturating_sub(now).max(1), interval: state.interval }
    }

    /// Arms or disarms; `absolute` makes `value` a point on the clock. Answers the old setting.
    pub fn set(&self, new: Setting, absolute: bool) -> Setting {
        let mut state = self.state.lock();
        if state.deleted {
            return Setting::default();
        }
        let old = self.setting(&state);
        state.handle.cancel();
        self.watch_clock(&mut state, false);
        state.waiting = false;
        state.overrun = 0;
        state.interval = new.interval;
        state.absolute = absolute;
        state.next = match (new.value, self.clock(&state)) {
            (0, _) | (_, None) => None,
            (value, Some(clock)) => {
                if absolute && clock.is_realtime() && !matches!(self.notify, Notify::None) {
                    self.watch_clock(&mut state, true);
                }
                Some(if absolute { value } else { clock.now().saturating_add(value) })
            }
        };
        self.arm(&mut state, Duration::ZERO);
        old
    }

    /// Absolute times on the wall clock are looked at anew when it is set.
    fn watch_clock(&self, state: &mut State, watch: bool) {
        if let Some(entry) = state.on_set.take() {
            clock::set_queue().remove(&entry);
        }
        if watch {
            let entry = WaitEntry::new(self.waker.clone(), crate::exec::ANY);
            clock::set_queue().add(&entry);
            state.on_set = Some(entry);
        }
    }

    fn arm(&self, state: &mut State, at_least: Duration) {
        if matches!(self.notify, Notify::None) {
            return;
        }
        let (Some(next), Some(clock)) = (state.next, self.clock(state)) else { return };
        let instant = Deadline { clock, at: next }.instant();
        let instant = instant.max(Instant::now().saturating_add(at_least));
        state.handle.arm(instant, self.waker.clone());
    }

    /// The alarm went off, or the wall clock was set.
    fn expire(&self) {
        let mut state = self.state.lock();
        let (Some(next), Some(clock)) = (state.next, self.clock(&state)) else { return };
        if state.waiting {
            return;
        }
        let now = clock.now();
        if now < next {
            return self.arm(&mut state, Duration::ZERO);
        }
        let passed = if state.interval > 0 { periods(next, now, state.interval) } else { 1 };
        state.next = (state.interval > 0).then(|| after(next, now, state.interval));
        state.overrun = u32::try_from(passed - 1).unwrap_or(u32::MAX);
        let queued = self.send(state.overrun);
        state.waiting = queued && !self.self_rearming;
        if !state.waiting {
            self.arm(&mut state, if queued { SELF_PERIOD } else { IGNORED_PERIOD });
        }
    }

    /// Sends the signal. False if nobody will take it.
    fn send(&self, overrun: u32) -> bool {
        let with_overrun = |info: &SigInfo| if info.is_timer() { info.with_overrun(overrun) } else { *info };
        match &self.notify {
            Notify::None => false,
            Notify::Process(info) => {
                self.process.upgrade().is_some_and(|process| signal::queue_to_process(&process, with_overrun(info)))
            }
            Notify::Thread(info, task) => {
                task.upgrade().is_some_and(|task| signal::queue_to_task(&task, with_overrun(info)))
            }
        }
    }

    /// The timer's signal was taken from its queue: it goes on. Answers the overrun to be told with the signal.
    pub fn delivered(&self) -> u32 {
        let mut state = self.state.lock();
        if !state.waiting {
            return state.overrun;
        }
        state.waiting = false;
        if let (Some(next), Some(clock)) = (state.next, self.clock(&state)) {
            let now = clock.now();
            if next <= now && state.interval > 0 {
                let passed = periods(next, now, state.interval);
                state.next = Some(after(next, now, state.interval));
                state.overrun = state.overrun.saturating_add(u32::try_from(passed).unwrap_or(u32::MAX));
            }
        }
        state.reported = state.overrun.min(i32::MAX as u32);
        self.arm(&mut state, Duration::ZERO);
        state.reported
    }

    /// timer_getoverrun(2).
    #[allow(clippy::misnamed_getters, reason = "timer_getoverrun(2) tells of the last signal that was taken")]
    pub fn overrun(&self) -> u32 {
        self.state.lock().reported
    }

    pub fn disarm(&self) {
        self.set(Setting::default(), false);
    }

    /// The end of POSIX timer `id`. What its signal counts as goes over to a pending one.
    pub fn delete(&self, id: i32, room: Reservation) {
        let mut state = self.state.lock();
        state.handle.cancel();
        self.watch_clock(&mut state, false);
        state.next = None;
        state.deleted = true;
        drop(state);
        let Some(process) = self.process.upgrade() else { return };
        match &self.notify {
            Notify::Thread(_, task) => {
                if let Some(task) = task.upgrade() {
                    signal::outlive_timer(&process, Some(&task), id, room);
                }
            }
            _ => signal::outlive_timer(&process, None, id, room),
        }
    }
}

/// How many expiries there were from `next` up to `now`, at least one.
fn periods(next: u64, now: u64, interval: u64) -> u64 {
    now.saturating_sub(next) / interval + 1
}

/// The first expiry after `now` of a timer that was due at `next`.
fn after(next: u64, now: u64, interval: u64) -> u64 {
    next.saturating_add(periods(next, now, interval).saturating_mul(interval))
}

#[cfg(test)]
mod tests {
    use super::{after, periods};

    #[test]
    fn the_longest_interval_does_not_overflow() {
        assert_eq!(after(1, 1_000, u64::MAX), u64::MAX);
        assert_eq!(after(100, 109, 10), 110);
    }

    #[test]
    fn expiries_are_counted_from_the_first() {
        assert_eq!(periods(100, 100, 10), 1);
        assert_eq!(periods(100, 109, 10), 1);
        assert_eq!(periods(100, 110, 10), 2);
        assert_eq!(periods(100, 1000, 1), 901);
    }
}
