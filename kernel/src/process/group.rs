//! Process groups and sessions: setpgid(2), getpgid(2), setsid(2), getsid(2).

use core::sync::atomic::Ordering;

use super::session::Session;
use super::table::{self, Pid};
use super::task::Thread;
use crate::errno::{Errno, Result};

pub fn setpgid(t: &Thread, pid: i32, pgid: i32) -> Result<()> {
    if pgid < 0 || (pgid == 0 && pid < 0) {
        return Err(Errno::EINVAL);
    }
    let own = t.process();
    let pid = if pid == 0 { own.pid } else { Pid::try_from(pid).map_err(|_| Errno::ESRCH)? };
    let pgid = if pgid == 0 { pid } else { pgid as Pid };
    let mut table = table::lock();
    let Some(target) = table.process(pid).cloned() else {
        return Err(if table.task(pid).is_some() { Errno::EINVAL } else { Errno::ESRCH });
    };
    let session = own.session.read().sid;
    let is_child = target.pid != own.pid && target.ppid.load(Ordering::Relaxed) == own.pid;
    if is_child {
        if target.session.read().sid != session {
            return Err(Errno::EPERM);
        }
        if target.did_exec.load(Ordering::Relaxed) {
            return Err(Errno::EACCES);
        }
    } else if target.pid != own.pid {
        return Err(Errno::ESRCH);
    }
    if target.session.read().sid == target.pid {
        return Err(Errno::EPERM);
    }
    if pgid != pid && !table.group(pgid).any(|member| member.session.read().sid == session) {
        return Err(Errno::EPERM);
    }
    let overtaken = table.set_group(&target, pgid);
    drop(table);
    overtaken.apply();
    Ok(())
}

pub fn getpgid(t: &Thread, pid: i32) -> Result<u32> {
    Ok(target(t, pid)?.pgid.load(Ordering::Relaxed))
}

pub fn getsid(t: &Thread, pid: i32) -> Result<u32> {
    let process = target(t, pid)?;
    let sid = process.session.read().sid;
    Ok(sid)
}

fn target(t: &Thread, pid: i32) -> Result<alloc::sync::Arc<super::Process>> {
    if pid == 0 {
        return Ok(t.process().clone());
    }
    let pid = Pid::try_from(pid).map_err(|_| Errno::ESRCH)?;
    match table::find(pid) {
        Some(process) => Ok(process),
        None => table::find_task(pid).map(|task| task.process().clone()).ok_or(Errno::ESRCH),
    }
}

pub fn setsid(t: &Thread) -> Result<u32> {
    let process = t.process();
    let mut table = table::lock();
    if process.session.read().sid == process.pid || table.group_exists(process.pid) {
        return Err(Errno::EPERM);
    }
    // What is on its way to its group may be for its session only.
    let overtaken = table.set_group(process, process.pid);
    table.set_session(process, Session::new(process.pid));
    drop(table);
    overtaken.apply();
    Ok(process.pid)
}
