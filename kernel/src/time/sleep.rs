//! Sleeping until a point in time: clock_nanosleep(2) and every wait with an absolute deadline.

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;

use super::clock::{self, ClockId};
use super::types::{Timespec, UserTimespec};
use crate::exec::{self, Instant};
use crate::mm::UserPtr;
use crate::process::Thread;
use crate::signal::{Restart, RestartBlock};
use crate::syscalls::SysResult;

/// A point on a clock, in its nanoseconds.
#[derive(Clone)]
pub struct Deadline {
    pub clock: ClockId,
    pub at: u64,
}

/// How often a sleep on a CPU clock looks, at most.
const CPU_GRANULE: u64 = 4_000_000;

impl Deadline {
    /// `duration` from now on; setting the wall clock does not move it.
    pub fn after(duration: Duration) -> Self {
        let at = Instant::now().saturating_add(duration).as_nanos();
        Deadline { clock: ClockId::Monotonic, at }
    }

    /// When to look at the clock: at the deadline, or when a CPU clock could show it at the earliest.
    pub fn instant(&self) -> Instant {
        self.clock.instant_of(self.at).unwrap_or_else(|| {
            let left = self.at.saturating_sub(self.clock.now());
            let threads = match &self.clock {
                ClockId::Process(process, _) => process.threads.lock().len().clamp(1, crate::arch::cpu_count()) as u64,
                _ => 1,
            };
            Instant::now().saturating_add(Duration::from_nanos((left / threads).max(CPU_GRANULE)))
        })
    }

    pub fn is_past(&self) -> bool {
        self.clock.now() >= self.at
    }

    /// Sleeps until the clock shows the time, also if it is set meanwhile.
    pub async fn sleep(&self) {
        if self.clock.is_realtime() {
            loop {
                let seen = clock::settings();
                if exec::timeout(Some(self.instant()), clock::clock_was_set(seen)).await.is_err() {
                    return;
                }
            }
        }
        loop {
            exec::sleep_until(self.instant()).await;
            if !self.clock.is_cpu() || self.is_past() {
                return;
            }
        }
    }
}

impl Deadline {
    /// Runs `attempt` until the deadline; None if that came first. What is ready wins.
    pub async fn until<T>(&self, attempt: impl Future<Output = T>) -> Option<T> {
        let mut attempt = pin!(attempt);
        let mut sleep = pin!(self.sleep());
        poll_fn(|cx| match attempt.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
        })
        .await
    }
}

/// An interrupted relative sleep.
pub struct SleepRest {
    deadline: Deadline,
    /// Where to write what is left if it is interrupted again; may be null.
    remaining: UserPtr<UserTimespec>,
}

/// clock_nanosleep(2). `absolute` is a point on the clock, else a length of time.
pub async fn nanosleep(
    t: &Thread,
    clock: ClockId,
    absolute: bool,
    time: Timespec,
    remaining: UserPtr<UserTimespec>,
) -> SysResult<()> {
    if absolute {
        let deadline = Deadline { clock, at: time.to_nanos() };
        return match exec::interruptible(t, deadline.sleep()).await {
            Ok(()) => Ok(()),
            Err(_) => Err(Restart::NoHand.into()),
        };
    }
    let deadline = match clock.is_cpu() {
        true => Deadline { at: clock.now().saturating_add(time.to_nanos()), clock },
        false => Deadline::after(time.to_duration()),
    };
    resume_sleep(t, SleepRest { deadline, remaining }).await
}

/// Sleeps a relative sleep to its end, or leaves what is needed to go on.
pub async fn resume_sleep(t: &Thread, rest: SleepRest) -> SysResult<()> {
    if exec::interruptible(t, rest.deadline.sleep()).await.is_ok() {
        return Ok(());
    }
    if let Some(remaining) = rest.remaining.non_null() {
        let left = rest.deadline.at.saturating_sub(rest.deadline.clock.now());
        remaining.write(t.mm(), UserTimespec::from_nanos(left)).await?;
    }
    *t.restart_block.lock() = Some(RestartBlock::Sleep(rest));
    Err(Restart::Block.into())
}
