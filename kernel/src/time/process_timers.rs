//! The timers of a process: the three of setitimer(2), and those that timer_create(2) made.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use super::clock::{ClockId, CpuClock};
use super::timer::{Notify, Setting, Timer, TimerClock};
use crate::errno::{Errno, Result};
use crate::process::limits::{INFINITY, Limit};
use crate::process::{Process, Resource, Task, Thread};
use crate::signal::{Reservation, SIGALRM, SIGKILL, SIGPROF, SIGVTALRM, SIGXCPU, SigInfo};
use crate::sync::SpinLock;

/// `which` of setitimer(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Itimer {
    Real = 0,
    Virtual = 1,
    Prof = 2,
}

impl Itimer {
    pub fn from_raw(raw: i32) -> Result<Itimer> {
        match raw {
            0 => Ok(Itimer::Real),
            1 => Ok(Itimer::Virtual),
            2 => Ok(Itimer::Prof),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// How a POSIX timer tells of its expiry (sigevent(7)).
pub enum SigEvent {
    None,
    Process { signo: u8, value: Option<u64> },
    Thread { signo: u8, value: u64, task: Arc<Task> },
}

/// Interval and POSIX timers of a process. None are inherited by fork.
#[derive(Default)]
pub struct ProcessTimers(SpinLock<Table>);

#[derive(Default)]
struct Table {
    itimers: [Option<Arc<Timer>>; 3],
    /// RLIMIT_CPU: the soft limit's timer and the hard limit's.
    cpu_limit: [Option<Arc<Timer>>; 2],
    posix: BTreeMap<i32, (Arc<Timer>, Reservation)>,
    next_id: i32,
}

impl ProcessTimers {
    pub fn itimer(&self, which: Itimer) -> Setting {
        let timer = self.0.lock().itimers[which as usize].clone();
        timer.map(|timer| timer.get()).unwrap_or_default()
    }

    /// setitimer(2): answers the old setting.
    pub fn set_itimer(&self, process: &Arc<Process>, which: Itimer, new: Setting) -> Setting {
        let timer = self.0.lock().itimers[which as usize].get_or_insert_with(|| new_itimer(process, which)).clone();
        timer.set(new, false)
    }

    /// RLIMIT_CPU in seconds of CPU time. Where both limits are the same, only the hard one counts.
    pub(super) fn limit_cpu(&self, process: &Arc<Process>, limit: Limit) {
        const SECOND: u64 = 1_000_000_000;
        let arm = |seconds: u64, interval: u64, signo: u8| {
            if seconds == INFINITY {
                return None;
            }
            let clock = TimerClock::Process { user_only: false };
            let timer = Timer::new(process, clock, Notify::Process(SigInfo::kernel(signo)), true);
            timer.set(Setting { value: seconds.max(1).saturating_mul(SECOND), interval }, true);
            Some(timer)
        };
        let soft = if limit.soft < limit.hard { limit.soft } else { INFINITY };
        let new = [arm(soft, SECOND, SIGXCPU), arm(limit.hard, 0, SIGKILL)];
        let old = core::mem::replace(&mut self.0.lock().cpu_limit, new);
        old.iter().flatten().for_each(|timer| timer.disarm());
    }

    /// timer_create(2). EAGAIN beyond RLIMIT_SIGPENDING.
    pub fn create(&self, t: &Thread, clock: ClockId, event: SigEvent) -> Result<i32> {
        let process = t.process();
        let clock = timer_clock(t, clock)?;
        let room = Reservation::new(t.creds().uid, t.rlimit(Resource::Sigpending).soft)?;
        let mut table = self.0.lock();
        let mut id = table.next_id;
        while table.posix.contains_key(&id) {
            id = id.checked_add(1).unwrap_or(0);
        }
        table.next_id = id.checked_add(1).unwrap_or(0);
        let notify = match event {
            SigEvent::None => Notify::None,
            SigEvent::Process { signo, value } => {
                Notify::Process(SigInfo::timer(signo, id, 0, value.unwrap_or(id as u64)))
            }
            SigEvent::Thread { signo, value, task } => {
                Notify::Thread(SigInfo::timer(signo, id, 0, value), Arc::downgrade(&task))
            }
        };
        table.posix.insert(id, (Timer::new(process, clock, notify, false), room));
        Ok(id)
    }

    fn posix(&self, id: i32) -> Result<Arc<Timer>> {
        self.0.lock().posix.get(&id).map(|(timer, _)| timer.clone()).ok_or(Errno::EINVAL)
    }

    pub fn settime(&self, id: i32, new: Setting, absolute: bool) -> Result<Setting> {
        Ok(self.posix(id)?.set(new, absolute))
    }

    pub fn gettime(&self, id: i32) -> Result<Setting> {
        Ok(self.posix(id)?.get())
    }

    pub fn getoverrun(&self, id: i32) -> Result<u32> {
        Ok(self.posix(id)?.overrun())
    }

    pub fn delete(&self, id: i32) -> Result<()> {
        let (timer, room) = self.0.lock().posix.remove(&id).ok_or(Errno::EINVAL)?;
        timer.delete(id, room);
        Ok(())
    }

    pub(super) fn delete_posix(&self) {
        let timers = core::mem::take(&mut self.0.lock().posix);
        timers.into_iter().for_each(|(id, (timer, room))| timer.delete(id, room));
    }

    pub(super) fn delete_all(&self) {
        self.delete_posix();
        let limits = core::mem::take(&mut self.0.lock().cpu_limit);
        limits.iter().flatten().for_each(|timer| timer.disarm());
        let itimers = core::mem::take(&mut self.0.lock().itimers);
        itimers.iter().flatten().for_each(|timer| timer.disarm());
    }

    /// A signal was taken that may be a timer's: its timer goes on, and the overrun is put into the signal.
    pub fn delivered(&self, info: SigInfo) -> SigInfo {
        if info.signo() == SIGALRM {
            // Whoever sent it: its own one was not queued beside another.
            let timer = self.0.lock().itimers[Itimer::Real as usize].clone();
            timer.map(|timer| timer.delivered());
        }
        if !info.is_timer() {
            return info;
        }
        let timer = self.0.lock().posix.get(&(info.timer_id())).map(|(timer, _)| timer.clone());
        timer.map_or(info, |timer| info.with_overrun(timer.delivered()))
    }
}

fn new_itimer(process: &Arc<Process>, which: Itimer) -> Arc<Timer> {
    let (clock, signo) = match which {
        Itimer::Real => (TimerClock::Wall(ClockId::Monotonic), SIGALRM),
        Itimer::Virtual => (TimerClock::Process { user_only: true }, SIGVTALRM),
        Itimer::Prof => (TimerClock::Process { user_only: false }, SIGPROF),
    };
    Timer::new(process, clock, Notify::Process(SigInfo::kernel(signo)), which != Itimer::Real)
}

fn timer_clock(t: &Thread, clock: ClockId) -> Result<TimerClock> {
    Ok(match clock {
        ClockId::Process(process, kind) if process.pid == t.process().pid => {
            TimerClock::Process { user_only: kind == CpuClock::User }
        }
        ClockId::Thread(task, CpuClock::All) => TimerClock::Thread(Arc::downgrade(&task)),
        // Timers on the CPU time of others: the clock would keep them alive.
        ClockId::Process(..) | ClockId::Thread(..) => return Err(Errno::EINVAL),
        ClockId::RealtimeCoarse | ClockId::MonotonicCoarse | ClockId::MonotonicRaw => return Err(Errno::EOPNOTSUPP),
        clock => TimerClock::Wall(clock),
    })
}
