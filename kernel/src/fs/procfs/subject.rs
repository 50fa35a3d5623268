//! Whom a directory /proc/PID or /proc/PID/task/TID is about, and who may look.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::text::RunState;
use crate::errno::{Errno, Result};
use crate::process::{self, Credentials, Handles, Pid, Process, State, Task, Thread};

/// A process, or one thread of it.
#[derive(Clone)]
pub struct Subject {
    pub process: Arc<Process>,
    /// Set below task/.
    pub thread: Option<Arc<Task>>,
}

fn refused(errno: Errno) -> Errno {
    if errno == Errno::EPERM { Errno::EACCES } else { errno }
}

impl Subject {
    /// /proc/PID: a process, or (as on Linux, unlisted) a thread by its id.
    pub fn find(pid: Pid) -> Option<Subject> {
        if let Some(process) = process::find(pid) {
            return Some(Subject { process, thread: None });
        }
        let task = process::find_task(pid)?;
        Some(Subject { process: task.process().clone(), thread: Some(task) })
    }

    pub fn id(&self) -> Pid {
        self.thread.as_ref().map_or(self.process.pid, |task| task.tid())
    }

    /// ESRCH once it has been waited for, or the thread has ended.
    pub fn check_exists(&self) -> Result<()> {
        let gone = match &self.thread {
            Some(task) => task.exited.load(Ordering::Acquire),
            None => *self.process.state.lock() == State::Dead,
        };
        if gone { Err(Errno::ESRCH) } else { Ok(()) }
    }

    /// The thread, or a living thread of the process; ESRCH for a zombie.
    pub fn task(&self) -> Result<Arc<Task>> {
        self.check_exists()?;
        self.thread.clone().or_else(|| self.process.any_thread()).ok_or(Errno::ESRCH)
    }

    pub fn handles(&self) -> Result<Handles> {
        Ok(self.task()?.handles())
    }

    /// Credentials, if a thread is left that has some.
    pub fn creds(&self) -> Option<Arc<Credentials>> {
        self.task().ok().map(|task| task.shared_creds())
    }

    /// Owner of the files: the effective ids, or root if the process hides its memory (PR_SET_DUMPABLE).
    pub fn owner(&self, is_main_dir: bool) -> (u32, u32) {
        let open = is_main_dir || self.process.dumpable.load(Ordering::Relaxed) == 1;
        match self.creds() {
            Some(creds) if open => (creds.euid, creds.egid),
            _ => (0, 0),
        }
    }

    /// EACCES unless `reader` may look into the process (ptrace(2), "Ptrace access mode checking").
    pub fn check_access(&self, reader: &Thread) -> Result<()> {
        process::may_trace(reader, &self.process, true).map_err(refused)
    }

    /// The same for whoever runs now: what was opened for one program may be read when there is another.
    pub fn check_current(&self) -> Result<()> {
        process::with_current(|task| match task {
            Some(task) => process::may_trace_as(task.process(), &task.shared_creds(), &self.process, true),
            None => Ok(()),
        })
        .map_err(refused)
    }

    pub fn run_state(&self) -> RunState {
        match *self.process.state.lock() {
            State::Zombie(_) => return RunState::Zombie,
            State::Dead => return RunState::Dead,
            State::Running => {}
        }
        let Some(task) = self.thread.clone().or_else(|| self.process.leader()) else {
            // The leader has ended, others go on: Linux shows it as a zombie.
            return RunState::Zombie;
        };
        if task.is_trapped() {
            return RunState::Traced;
        }
        // A tracer may let a thread of a stopped process run.
        if self.process.sig.is_stopped() && !task.is_traced() {
            return RunState::Stopped;
        }
        if task.entity.is_runnable() {
            RunState::Running
        } else if task.interruptible.load(Ordering::Relaxed) {
            RunState::Sleeping
        } else {
            RunState::Waiting
        }
    }

    /// The name: of the thread, or of the process's first one, which outlives it.
    pub fn comm(&self) -> [u8; 16] {
        let task = self.thread.clone().or_else(|| self.process.leader());
        task.map_or_else(|| *self.process.last_comm.lock(), |task| task.comm())
    }
}
