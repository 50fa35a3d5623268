//! Memory of other processes: process_vm_readv(2), process_vm_writev(2), process_madvise(2), process_mrelease(2).

use alloc::sync::Arc;

use crate::errno::{Errno, Result};
use crate::mm::{AddressSpace, Cut, IoBuf, IoVec, IoVecs, Toucher, import_iovec, read_iovec};
use crate::process::run::killable;
use crate::process::table::{self, Pid};
use crate::process::{Caps, Thread, may_trace, pidfd};

/// Where the vectors of a call are: address and count.
type Vectors = (u64, u64);

/// The memory of a process that the caller may look into.
fn space_of(t: &Thread, pid: i32) -> Result<Arc<AddressSpace>> {
    let task = table::find_task(pid as Pid).filter(|_| pid > 0).ok_or(Errno::ESRCH)?;
    let space = task.handles().mm.ok_or(Errno::ESRCH)?;
    if !Arc::ptr_eq(&space, t.mm()) {
        may_trace(t, task.process(), false)?;
    }
    Ok(space)
}

pub async fn process_vm_readv(
    t: &Thread,
    pid: i32,
    local: u64,
    local_count: u64,
    remote: u64,
    remote_count: u64,
    flags: u64,
) -> Result<usize> {
    copy(t, pid, (local, local_count), (remote, remote_count), flags, false).await
}

pub async fn process_vm_writev(
    t: &Thread,
    pid: i32,
    local: u64,
    local_count: u64,
    remote: u64,
    remote_count: u64,
    flags: u64,
) -> Result<usize> {
    copy(t, pid, (local, local_count), (remote, remote_count), flags, true).await
}

async fn copy(t: &Thread, pid: i32, local: Vectors, remote: Vectors, flags: u64, write: bool) -> Result<usize> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let mut buf = IoBuf::user_iovec(t.mm(), import_iovec(t.mm(), local.0, local.1).await?);
    if buf.is_empty() {
        return Ok(0);
    }
    let remote = read_iovec(t.mm(), remote.0, remote.1).await?;
    if remote.iter().all(|piece| piece.len == 0) {
        return Ok(0);
    }
    let space = space_of(t, pid)?;
    killable(t, copy_pieces(&space, &mut buf, remote, write)).await?
}

async fn copy_pieces(space: &AddressSpace, buf: &mut IoBuf<'_>, remote: IoVecs, write: bool) -> Result<usize> {
    let mut total = 0;
    for IoVec { base, len } in remote {
        let len = len.min(buf.remaining() as u64) as usize;
        let cut = buf.limit(len);
        let (moved, end) = if write {
            space.copy_to_remote(base, buf, Toucher::Call).await
        } else {
            space.copy_from_remote(base, buf, Toucher::Call).await
        };
        buf.extend(cut);
        total += moved;
        match end {
            None => {}
            Some(_) if total > 0 => break,
            Some(Cut::There) => return Err(Errno::EFAULT),
            Some(Cut::Here(errno)) => return Err(errno),
        }
    }
    Ok(total)
}

pub async fn process_madvise(t: &Thread, fd: i32, vectors: u64, count: u64, advice: u32, flags: u32) -> Result<usize> {
    /// MADV_WILLNEED, MADV_COLD and MADV_PAGEOUT: what changes nothing for the other but its speed.
    const ADVICE: [u32; 3] = [3, 20, 21];
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let pieces = import_iovec(t.mm(), vectors, count).await?;
    let process = pidfd::process_of(t, fd)?;
    if !ADVICE.contains(&advice) {
        return Err(Errno::EINVAL);
    }
    let space = process.leader().and_then(|task| task.handles().mm).ok_or(Errno::ESRCH)?;
    if !Arc::ptr_eq(&space, t.mm()) {
        may_trace(t, &process, true).map_err(|_| Errno::EACCES)?;
    }
    if !t.creds().capable(Caps::SYS_NICE) {
        return Err(Errno::EPERM);
    }
    let mut done = 0;
    for IoVec { base, len } in pieces {
        match killable(t, space.madvise(base, len, advice)).await? {
            Ok(()) => done += len as usize,
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// Frees what a process that has been killed holds, without waiting for it.
pub async fn process_mrelease(t: &Thread, fd: i32, flags: u32) -> Result<()> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let process = pidfd::process_of(t, fd)?;
    let space_of = |process: &crate::process::Process| {
        let threads = process.threads.lock();
        threads.iter().find_map(|task| task.handles().mm)
    };
    let space = space_of(&process).ok_or(Errno::ESRCH)?;
    let in_use = |other: Arc<crate::process::Process>| {
        !other.is_dying() && space_of(&other).is_some_and(|theirs| Arc::ptr_eq(&theirs, &space))
    };
    if !process.is_dying() || table::processes().any(in_use) {
        return Err(Errno::EINVAL);
    }
    space.release_private().await
}
