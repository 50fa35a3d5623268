//! Clocks, sleeping, timers, and the vDSO (time(7), vdso(7)).
//!
//! There is one source of time: `arch::now_ns`, which is CLOCK_MONOTONIC and (nothing suspends) CLOCK_BOOTTIME. The wall clock
//! is that plus an offset, set from the battery-backed clock at boot and by clock_settime. CPU clocks are what the
//! scheduler has accounted. [`ClockId`] names them all; [`Deadline`] is a point on one of them.
//!
//! * `clock`: reading and setting. `sleep`: nanosleep and absolute sleeps. `types`: the structures of the ABI.
//! * `timer`: one interval timer that sends a signal; `process_timers`: those of a process (setitimer, timer_create).
//! * [`vdso`]: the code and data that let programs read clocks without a system call.
//!
//! Locks: the table of a process's timers → a timer's state → signal locks.

mod clock;
mod process_timers;
mod sleep;
mod timer;
mod types;
pub mod vdso;

pub use clock::{ClockId, clock_was_set, init, now_realtime, realtime_offset, set_realtime, settings};
pub use process_timers::{Itimer, ProcessTimers, SigEvent};
pub use sleep::{Deadline, SleepRest, nanosleep, resume_sleep};
pub use timer::Setting;
pub use types::{Timespec, UserItimerspec, UserItimerval, UserTimespec, UserTimeval};

use alloc::sync::Arc;

use crate::process::{Limit, Process};

/// A process runs a new program: POSIX timers are deleted, interval timers go on (execve(2)).
pub fn process_exec(process: &Arc<Process>) {
    process.timers.delete_posix();
}

/// RLIMIT_CPU was set or inherited: SIGXCPU at the soft limit and each second after, SIGKILL at the hard one.
pub fn limit_cpu(process: &Arc<Process>, limit: Limit) {
    process.timers.limit_cpu(process, limit);
}

/// A process has ended: nothing fires any more.
pub fn process_exit(process: &Arc<Process>) {
    process.timers.delete_all();
}
