//! What a tracer does with its tracee: requests that need no memory of either.

use alloc::sync::Arc;

use super::{Options, Resume, Stop, Trace, relation};
use crate::errno::{Errno, Result};
use crate::process::table::{self, Pid};
use crate::process::{Task, Thread};
use crate::signal::{self, SIGINFO_SIZE, SIGKILL, SIGMAX, SigInfo, SigSet};

/// A tracee of the caller.
pub struct Tracee {
    pub task: Arc<Task>,
    pub trace: Arc<Trace>,
}

impl Tracee {
    /// ESRCH if the caller does not trace this thread.
    pub fn find(t: &Thread, pid: i32) -> Result<Tracee> {
        let task = Pid::try_from(pid).ok().and_then(table::find_task).ok_or(Errno::ESRCH)?;
        let trace = task.trace().filter(|trace| Arc::ptr_eq(&trace.tracer, t.task())).ok_or(Errno::ESRCH)?;
        Ok(Tracee { task, trace })
    }

    /// The same for one that must be stopped.
    pub fn find_stopped(t: &Thread, pid: i32) -> Result<Tracee> {
        let tracee = Tracee::find(t, pid)?;
        tracee.with(|_| ())?;
        Ok(tracee)
    }

    /// Looks at the stop, or changes it. ESRCH if it is over.
    pub fn with<R>(&self, look: impl FnOnce(&mut Stop) -> R) -> Result<R> {
        let killed = signal::fatal_pending(&self.task);
        let mut bond = self.trace.bond.lock();
        // Who is being killed is stopped only for its end.
        let stop = bond.stop.as_deref_mut().filter(|stop| stop.with.is_none() && !stop.listens);
        let stop = stop.filter(|stop| !killed || stop.is_end());
        stop.map(look).ok_or(Errno::ESRCH)
    }

    /// EIO for a signal that there is not.
    pub fn resume(&self, how: Resume, signo: u64) -> Result<()> {
        let signo = valid(signo)?;
        {
            let mut bond = self.trace.bond.lock();
            let stop = bond.stop.as_mut().filter(|stop| stop.with.is_none() && !stop.listens).ok_or(Errno::ESRCH)?;
            stop.with = Some(signo);
            bond.resume = how;
            bond.report = None;
        }
        self.trace.resumed.wake_all();
        Ok(())
    }

    pub fn detach(&self, signo: u64) -> Result<()> {
        let signo = valid(signo)?;
        let _table = table::lock();
        {
            let mut bond = self.trace.bond.lock();
            let stop = bond.stop.as_mut().filter(|stop| stop.with.is_none()).ok_or(Errno::ESRCH)?;
            stop.with = Some(signo);
            bond.report = None;
        }
        relation::unlink(&self.task);
        Ok(())
    }

    pub fn kill(&self) {
        let _ = signal::send_to_process(self.task.process(), SigInfo::kernel(SIGKILL));
    }

    /// EIO unless it was seized.
    pub fn interrupt(&self) -> Result<()> {
        if !self.trace.seized {
            return Err(Errno::EIO);
        }
        let bond = self.trace.bond.lock();
        signal::ask_for_trap(&self.task);
        let listens = bond.stop.as_ref().is_some_and(|stop| stop.listens);
        let stopped = bond.stop.is_some();
        drop(bond);
        if listens {
            self.trace.resumed.wake_all();
        } else if !stopped {
            signal::wake(&self.task);
        }
        Ok(())
    }

    /// EIO unless it was seized and its stop is one of PTRACE_EVENT_STOP.
    pub fn listen(&self) -> Result<()> {
        if !self.trace.seized {
            return Err(Errno::EIO);
        }
        let of_job = |stop: &SigInfo| (stop.code >> 8) as u32 == super::events::STOP;
        let listens = self.with(|stop| {
            stop.listens = stop.info.as_ref().is_some_and(of_job);
            stop.listens
        })?;
        if !listens {
            return Err(Errno::EIO);
        }
        // Something may have happened since.
        self.trace.resumed.wake_all();
        Ok(())
    }

    pub fn set_options(&self, options: Options) {
        self.trace.bond.lock().options = options;
    }

    pub fn message(&self) -> Result<u64> {
        self.with(|stop| stop.message)
    }

    /// EINVAL in a stop of its whole process.
    pub fn info(&self) -> Result<[u8; SIGINFO_SIZE]> {
        self.with(|stop| stop.info.map(|info| info.to_user()))?.ok_or(Errno::EINVAL)
    }

    pub fn set_info(&self, info: SigInfo) -> Result<()> {
        self.with(|stop| stop.info.as_mut().map(|old| *old = info))?.ok_or(Errno::EINVAL)
    }

    pub fn mask(&self) -> SigSet {
        signal::tracee_mask(&self.task)
    }

    pub fn set_mask(&self, mask: SigSet) {
        signal::set_tracee_mask(&self.task, mask);
    }

    /// `struct ptrace_syscall_info`, and how much of it counts.
    pub fn call_info(&self) -> Result<([u64; 10], usize)> {
        /// AUDIT_ARCH_AARCH64.
        const ARCH: u64 = 0xc000_00b7;
        const HEAD: usize = 24;
        const ENTRY: usize = 80;
        const EXIT: usize = 33;
        self.with(|stop| {
            let x = &stop.regs.x;
            let mut words = [0; 10];
            words[1..3].copy_from_slice(&[stop.regs.pc, stop.regs.sp]);
            let (kind, size) = match (stop.info.map(|info| info.code), stop.message) {
                (Some(0x85), 1) => {
                    words[3] = i64::from(stop.call) as u64;
                    words[4] = stop.orig_x0;
                    words[5..10].copy_from_slice(&x[1..6]);
                    (1, ENTRY)
                }
                (Some(0x85), 2) => {
                    words[3] = x[0];
                    words[4] = u64::from(x[0] as i64 >= -4095 && (x[0] as i64) < 0);
                    (2, EXIT)
                }
                _ => (0, HEAD),
            };
            words[0] = kind | ARCH << 32;
            (words, size)
        })
    }

    /// May the caller see the tracee's memory?
    pub fn may_access_memory(&self) -> bool {
        let dumpable = self.task.process().dumpable.load(core::sync::atomic::Ordering::Relaxed) == 1;
        dumpable || self.trace.capable
    }
}

impl Stop {
    /// PTRACE_EVENT_EXIT.
    fn is_end(&self) -> bool {
        self.info.is_some_and(|info| (info.code >> 8) as u32 == super::events::EXIT)
    }
}

fn valid(signo: u64) -> Result<u32> {
    if signo <= SIGMAX.into() { Ok(signo as u32) } else { Err(Errno::EIO) }
}
