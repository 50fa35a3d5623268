//! I/O priorities: ioprio_set(2), ioprio_get(2). Kept and passed on; the disk's queue is first come, first served, as
//! Linux's is with the scheduler `none`.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU16, Ordering::Relaxed};

use super::sched;
use crate::errno::{Errno, Result};
use crate::exec::SchedPolicy;
use crate::process::{Caps, Task, Thread};

const CLASS_SHIFT: u32 = 13;
/// What counts of the level; the rest is kept, too.
const LEVEL_MASK: u16 = 7;

const CLASS_NONE: u16 = 0;
const CLASS_RT: u16 = 1;
const CLASS_BE: u16 = 2;
const CLASS_IDLE: u16 = 3;

/// Whether the thread may have this priority.
pub fn check(t: &Thread, priority: u16) -> Result<()> {
    let (class, level) = (priority >> CLASS_SHIFT, priority & LEVEL_MASK);
    let may_rt = || t.creds().capable(Caps::SYS_ADMIN) || t.creds().capable(Caps::SYS_NICE);
    match class {
        CLASS_RT if !may_rt() => Err(Errno::EPERM),
        CLASS_RT | CLASS_BE | CLASS_IDLE => Ok(()),
        CLASS_NONE if level == 0 => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

const WHO_PROCESS: i32 = 1;
const WHO_USER: i32 = 3;

/// Visits the threads that are named. For Linux the user 0 is root, not the caller, as it is in setpriority(2).
fn for_targets(t: &Thread, which: i32, who: i32, visit: sched::Visit<'_>) -> Result<()> {
    match (which, who) {
        (WHO_USER, 0) => sched::for_user(0, visit),
        _ => sched::for_targets(t, which.wrapping_sub(1), who, visit),
    }
}

pub fn ioprio_set(t: &mut Thread, which: i32, who: i32, priority: i32) -> Result<()> {
    // What is above the class is not looked at.
    let priority = priority as u16;
    check(t, priority)?;
    for_targets(t, which, who, &mut |task| {
        let (creds, owner) = (t.creds(), task.shared_creds().uid);
        if owner != creds.euid && owner != creds.uid && !creds.capable(Caps::SYS_NICE) {
            return Err(Errno::EPERM);
        }
        let mut slot = task.io_priority.lock();
        match &*slot {
            Some(shared) => shared.store(priority, Relaxed),
            None => *slot = Some(Arc::new(AtomicU16::new(priority))),
        }
        Ok(())
    })
}

/// What was set for a process; of a group or a user the best that counts, which is the lowest number.
pub fn ioprio_get(t: &mut Thread, which: i32, who: i32) -> Result<u32> {
    let mut best = u16::MAX;
    for_targets(t, which, who, &mut |task| {
        best = best.min(if which == WHO_PROCESS { set(task) } else { effective(task) });
        Ok(())
    })?;
    Ok(u32::from(best))
}

fn set(task: &Task) -> u16 {
    task.io_priority.lock().as_ref().map_or(0, |priority| priority.load(Relaxed))
}

/// If none was set, the nice value and the policy decide.
fn effective(task: &Task) -> u16 {
    let set = set(task);
    if set >> CLASS_SHIFT != CLASS_NONE {
        return set;
    }
    let class = match task.entity.policy() {
        SchedPolicy::Fifo(_) | SchedPolicy::Rr(_) => CLASS_RT,
        SchedPolicy::Idle => CLASS_IDLE,
        _ => CLASS_BE,
    };
    (class << CLASS_SHIFT) | ((task.entity.nice() + 20) as u16 / 5)
}
