//! timerfd_create(2): timers to wait for.
//!
//! Expirations are counted when somebody looks: the timer node only wakes the queue. A periodic timer is armed again when
//! it is read, since until then it is readable anyway.

use alloc::sync::Arc;
use alloc::task::Wake;
use core::any::Any;
use core::time::Duration;

use super::eventfd::copy_whole;
use super::file::{Events, FileOps, TryError};
use super::open_file::OpenFile;
use crate::errno::{Errno, Result};
use crate::exec::{Instant, TimerHandle, WaitQueue};
use crate::mm::IoBuf;
use crate::sync::SpinLock;

#[derive(Default)]
struct Waiters {
    queue: WaitQueue,
}

impl Wake for Waiters {
    fn wake(self: Arc<Self>) {
        self.queue.wake(usize::MAX, (Events::IN | Events::RDNORM).bits());
    }
}

struct State {
    timer: TimerHandle,
    /// The next expiration that was not read.
    next: Option<Instant>,
    interval: Duration,
}

pub struct TimerFd {
    clock: i32,
    state: SpinLock<State>,
    waiters: Arc<Waiters>,
}

impl TimerFd {
    pub fn new(clock: i32) -> Arc<TimerFd> {
        let state = State { timer: TimerHandle::new(), next: None, interval: Duration::ZERO };
        Arc::new(TimerFd { clock, state: SpinLock::new(state), waiters: Arc::default() })
    }

    pub fn clock(&self) -> i32 {
        self.clock
    }

    /// Arms the timer, or disarms it (None). Answers what was left and the old interval.
    pub fn set(&self, next: Option<Instant>, interval: Duration) -> (Duration, Duration) {
        let mut state = self.state.lock();
        let old = state.remaining(Instant::now());
        state.timer.cancel();
        state.next = next;
        state.interval = interval;
        if let Some(next) = next {
            state.timer.arm(next, self.waiters.clone().into());
        }
        old
    }

    /// Time to the next expiration, and the interval.
    pub fn get(&self) -> (Duration, Duration) {
        self.state.lock().remaining(Instant::now())
    }
}

impl State {
    fn remaining(&self, now: Instant) -> (Duration, Duration) {
        let Some(next) = self.next else { return (Duration::ZERO, self.interval) };
        let (_, after) = self.expirations(now);
        match after.unwrap_or(next) {
            // Expired once and for all.
            at if at <= now => (Duration::ZERO, self.interval),
            at => (at.saturating_since(now), self.interval),
        }
    }

    /// Expirations up to `now` and the first one after; None for a one-shot timer that has expired.
    fn expirations(&self, now: Instant) -> (u64, Option<Instant>) {
        match self.next {
            None => (0, None),
            Some(next) if next > now => (0, Some(next)),
            Some(_) if self.interval.is_zero() => (1, None),
            Some(next) => {
                let interval = self.interval.as_nanos().min(u64::MAX as u128) as u64;
                let extra = now.saturating_since(next).as_nanos() as u64 / interval;
                let passed = interval.saturating_mul(extra.saturating_add(1));
                (extra.saturating_add(1), Some(next.saturating_add(Duration::from_nanos(passed))))
            }
        }
    }
}

impl FileOps for TimerFd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ignores_seek(&self) -> bool {
        true
    }

    fn splices_to(&self) -> bool {
        false
    }

    fn try_read(&self, _file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        if buf.remaining() < 8 {
            return Err(Errno::EINVAL.into());
        }
        let mut state = self.state.lock();
        let (count, next) = state.expirations(Instant::now());
        if count == 0 {
            return Err(TryError::WouldBlock);
        }
        copy_whole(buf, &count.to_ne_bytes())?;
        state.next = next;
        if let Some(next) = next {
            state.timer.cancel();
            state.timer.arm(next, self.waiters.clone().into());
        }
        Ok(8)
    }

    fn ready(&self) -> Events {
        match self.state.lock().next {
            Some(next) if next <= Instant::now() => Events::IN,
            _ => Events::empty(),
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.waiters.queue)
    }
}
