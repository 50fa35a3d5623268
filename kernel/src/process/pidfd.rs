//! File descriptors that stand for a process: pidfd_open(2), CLONE_PIDFD.

use alloc::sync::Arc;
use core::any::Any;

use super::process::{Process, may_trace};
use super::table::{self, Pid};
use super::task::Thread;
use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::fs::{Events, FileOps, OpenFile, procfs};

/// PIDFD_NONBLOCK = O_NONBLOCK.
pub const NONBLOCK: u32 = 0o4000;

/// The process behind a pidfd; readable once it has ended.
pub struct PidFile {
    pub process: Arc<Process>,
}

impl FileOps for PidFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn can_read(&self) -> bool {
        false
    }

    fn ready(&self) -> Events {
        if self.process.threads.lock().is_empty() { Events::IN | Events::RDNORM } else { Events::empty() }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.process.exit_wait)
    }
}

/// A new descriptor, close-on-exec, for `process`.
pub fn install(t: &Thread, process: Arc<Process>, flags: u32) -> Result<i32> {
    let file = OpenFile::new_anon("[pidfd]", Arc::new(PidFile { process }), flags | 0o2 /* O_RDWR */);
    t.files().install(file, true)
}

pub fn open(t: &Thread, pid: i32, flags: u32) -> Result<i32> {
    if flags & !NONBLOCK != 0 || pid <= 0 {
        return Err(Errno::EINVAL);
    }
    match table::find(pid as Pid) {
        Some(process) => install(t, process, flags),
        // A thread that is no leader: EINVAL; nobody: ESRCH.
        None if table::find_task(pid as Pid).is_some() => Err(Errno::EINVAL),
        None => Err(Errno::ESRCH),
    }
}

/// pidfd_getfd(2): another process's descriptor `fd`, as a new one of the caller.
pub fn take_descriptor(t: &Thread, pidfd: i32, fd: i32) -> Result<i32> {
    let process = process_of(t, pidfd)?;
    let task = process.leader().ok_or(Errno::ESRCH)?;
    may_trace(t, &process, false)?;
    let files = task.handles().files.ok_or(Errno::ESRCH)?;
    t.files().install(files.get(fd)?, true)
}

/// The process that a signal to descriptor `fd` is for: it may also be a directory /proc/PID (pidfd_send_signal(2)).
pub fn receiver_of(t: &Thread, fd: i32) -> Result<Arc<Process>> {
    let file = t.files().get(fd)?;
    match procfs::process_of(&**file.inode()).filter(|_| file.is_dir()) {
        Some(process) => Ok(process),
        None => process_of(t, fd),
    }
}

/// The process that descriptor `fd` stands for; EBADF if it is not a pidfd.
pub fn process_of(t: &Thread, fd: i32) -> Result<Arc<Process>> {
    let file = t.files().get(fd)?;
    let ops = file.ops().ok_or(Errno::EBADF)?;
    let pid_file = ops.as_any().downcast_ref::<PidFile>().ok_or(Errno::EBADF)?;
    Ok(pid_file.process.clone())
}
