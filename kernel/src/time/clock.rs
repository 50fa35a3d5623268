//! Reading and setting the clocks of clock_gettime(2).

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use super::types::{NANOS, Timespec};
use super::vdso;
use crate::arch;
use crate::errno::{Errno, Result};
use crate::exec::{Instant, WaitQueue};
use crate::process::{Process, Task, Thread, table};

/// Wall-clock time minus monotonic time, ns.
static OFFSET: AtomicU64 = AtomicU64::new(0);
/// Counts how often the wall clock was set.
static SETTINGS: AtomicU64 = AtomicU64::new(0);
static SET_QUEUE: WaitQueue = WaitQueue::new();

/// CLOCK_*: what a time is measured on.
#[derive(Clone)]
pub enum ClockId {
    Realtime,
    Monotonic,
    MonotonicRaw,
    RealtimeCoarse,
    MonotonicCoarse,
    Boottime,
    /// Wake the machine from suspension, which it never enters.
    RealtimeAlarm,
    BoottimeAlarm,
    /// International atomic time; without an ephemeris program its offset to UTC is 0, as on Linux.
    Tai,
    Process(Arc<Process>, CpuClock),
    Thread(Arc<Task>, CpuClock),
}

/// What of CPU time counts (bits 0–1 of a dynamic clock id).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CpuClock {
    /// User and system time.
    All,
    /// User time.
    User,
}

/// The resolution of the coarse clocks, that of a 250 Hz tick.
const COARSE: u64 = 4_000_000;

impl ClockId {
    /// From the ABI; `t` is who asks. EINVAL for what is no clock.
    pub fn from_raw(t: &Thread, raw: i32) -> Result<ClockId> {
        Ok(match raw {
            0 => ClockId::Realtime,
            1 => ClockId::Monotonic,
            2 => ClockId::Process(t.process().clone(), CpuClock::All),
            3 => ClockId::Thread(t.task().clone(), CpuClock::All),
            4 => ClockId::MonotonicRaw,
            5 => ClockId::RealtimeCoarse,
            6 => ClockId::MonotonicCoarse,
            7 => ClockId::Boottime,
            8 => ClockId::RealtimeAlarm,
            9 => ClockId::BoottimeAlarm,
            11 => ClockId::Tai,
            10 | 12.. => return Err(Errno::EINVAL),
            _ => ClockId::cpu(t, raw)?,
        })
    }

    /// A CPU clock of another process or thread: `~pid << 3 | per_thread << 2 | kind` (clock_getcpuclockid(3)).
    fn cpu(t: &Thread, raw: i32) -> Result<ClockId> {
        let kind = match raw & 3 {
            0 | 2 => CpuClock::All,
            1 => CpuClock::User,
            // A clock behind a descriptor; there are no such devices.
            _ => return Err(Errno::EINVAL),
        };
        let id = !(raw >> 3);
        let id = u32::try_from(id).map_err(|_| Errno::EINVAL)?;
        if raw & 4 != 0 {
            let task = if id == 0 { Some(t.task().clone()) } else { table::find_task(id) };
            let mine = task.filter(|task| task.process().pid == t.process().pid);
            return Ok(ClockId::Thread(mine.ok_or(Errno::EINVAL)?, kind));
        }
        let process = if id == 0 { Some(t.process().clone()) } else { table::find(id) };
        Ok(ClockId::Process(process.ok_or(Errno::EINVAL)?, kind))
    }

    /// Nanoseconds on this clock.
    pub fn now(&self) -> u64 {
        match self {
            ClockId::Realtime | ClockId::RealtimeCoarse | ClockId::RealtimeAlarm | ClockId::Tai => {
                arch::now_ns() + realtime_offset()
            }
            ClockId::Process(process, kind) => {
                let usage = process.usage();
                match kind {
                    CpuClock::All => usage.utime + usage.stime,
                    CpuClock::User => usage.utime,
                }
            }
            ClockId::Thread(task, kind) => {
                let usage = task.usage();
                match kind {
                    CpuClock::All => usage.utime + usage.stime,
                    CpuClock::User => usage.utime,
                }
            }
            _ => arch::now_ns(),
        }
    }

    /// Nanoseconds.
    pub fn resolution(&self) -> u64 {
        match self {
            ClockId::RealtimeCoarse | ClockId::MonotonicCoarse => COARSE,
            _ => 1,
        }
    }

    /// Moves when the wall clock is set.
    pub fn is_realtime(&self) -> bool {
        matches!(self, ClockId::Realtime | ClockId::RealtimeAlarm | ClockId::Tai)
    }

    pub fn is_cpu(&self) -> bool {
        matches!(self, ClockId::Process(..) | ClockId::Thread(..))
    }

    pub fn is_alarm(&self) -> bool {
        matches!(self, ClockId::RealtimeAlarm | ClockId::BoottimeAlarm)
    }

    /// When this clock will show `at`, as far as one can tell now. None for CPU clocks, which nobody can tell.
    pub fn instant_of(&self, at: u64) -> Option<Instant> {
        match self {
            clock if clock.is_cpu() => None,
            clock if clock.is_realtime() => Some(Instant::from_nanos(at.saturating_sub(realtime_offset()))),
            _ => Some(Instant::from_nanos(at)),
        }
    }
}

/// Reads the battery-backed clock, once at boot.
pub fn init() {
    vdso::init();
    match arch::rtc_seconds() {
        Some(seconds) => store_offset((seconds * NANOS).saturating_sub(arch::now_ns())),
        None => {
            log::warn!("no real-time clock: the wall clock starts at 1970");
            store_offset(0);
        }
    }
}

fn store_offset(offset: u64) {
    OFFSET.store(offset, Ordering::Release);
    vdso::publish(offset);
}

pub fn realtime_offset() -> u64 {
    OFFSET.load(Ordering::Acquire)
}

/// The wall clock: for times of files.
pub fn now_realtime() -> Timespec {
    Timespec::from_nanos(arch::now_ns() + realtime_offset())
}

/// Sets the wall clock. EINVAL for times at which the machine would have been booted before 1970.
pub fn set_realtime(time: Timespec) -> Result<()> {
    let offset = time.to_nanos().checked_sub(arch::now_ns()).ok_or(Errno::EINVAL)?;
    if offset > i64::MAX as u64 {
        return Err(Errno::EINVAL);
    }
    store_offset(offset);
    SETTINGS.fetch_add(1, Ordering::SeqCst);
    SET_QUEUE.wake_all();
    Ok(())
}

/// What is woken when the wall clock was set: absolute sleeps and timers look again.
pub(super) fn set_queue() -> &'static WaitQueue {
    &SET_QUEUE
}

/// Waits until the wall clock is set; `seen` is a count that [`settings`] answered before.
pub async fn clock_was_set(seen: u64) {
    SET_QUEUE.wait_for(|| (settings() != seen).then_some(())).await
}

/// How often the wall clock was set.
pub fn settings() -> u64 {
    SETTINGS.load(Ordering::SeqCst)
}
