//! I/O priorities: ioprio_set(2), ioprio_get(2). Kept and passed on; the disk's queue is first come, first served, as
//! Linux's is with the scheduler `none`.

use core::sync::atomic::{AtomicU16, Ordering::Relaxed};

use alloc::sync::Arc;

use super::sched;
use crate::errno::{Errno, Result};
use crate::process::{Caps, Task, Thread};

/// Levels of a class, 0 first.
const LEVELS: u16 = 8;
const CLASS_SHIFT: u32 = 13;

const CLASS_NONE: u16 = 0;
const CLASS_RT: u16 = 1;
const CLASS_BE: u16 = 2;
const CLASS_IDLE: u16 = 3;

/// Whether the thread may have this priority.
pub fn check(t: &Thread, priority: u16) -> Result<()> {
    let (class, level) = (priority >> CLASS_SHIFT, priority & ((1 << CLASS_SHIFT) - 1));
    let may_rt = || t.creds().capable(Caps::SYS_ADMIN) || t.creds().capable(Caps::SYS_NICE);
    match class {
        CLASS_RT if !may_rt() => Err(Errno::EPERM),
        CLASS_RT | CLASS_BE if level < LEVELS => Ok(()),
        CLASS_NONE if level == 0 => Ok(()),
        CLASS_IDLE => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

pub fn ioprio_set(t: &mut Thread, which: i32, who: i32, priority: i32) -> Result<()> {
    // What is above the class is not looked at.
    let priority = priority as u16;
    check(t, priority)?;
    for task in sched::priority_targets(t, which.wrapping_sub(1), who)? {
        let (creds, owner) = (t.creds(), task.shared_creds().uid);
        if owner != creds.euid && owner != creds.uid && !creds.capable(Caps::SYS_NICE) {
            return Err(Errno::EPERM);
        }
        let mut slot = task.io_priority.lock();
        match &*slot {
            Some(shared) => shared.store(priority, Relaxed),
            None => *slot = Some(Arc::new(AtomicU16::new(priority))),
        }
    }
    Ok(())
}

/// Of several, the best: the lowest number.
pub fn ioprio_get(t: &mut Thread, which: i32, who: i32) -> Result<u32> {
    let tasks = sched::priority_targets(t, which.wrapping_sub(1), who)?;
    Ok(tasks.iter().map(|task| u32::from(of(task))).reduce(best).unwrap_or(0))
}

fn of(task: &Task) -> u16 {
    task.io_priority.lock().as_ref().map_or(0, |priority| priority.load(Relaxed))
}

fn best(a: u32, b: u32) -> u32 {
    a.min(b)
}
