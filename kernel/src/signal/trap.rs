//! What tracing (`process::ptrace`) asks of signals: traps, the part of a tracee in a stop of its process, its mask and queues.
//!
//! TRAP and NOTIFY are requests to stop for the tracer. Any stop answers TRAP; NOTIFY, which is for seized threads, only one
//! that is about stops. STEP is no request: the thread runs one instruction at a time.

use alloc::sync::Arc;

use super::info::{CLD_STOPPED, SIGINFO_SIZE, SigInfo};
use super::job;
use super::send::kick;
use super::set::{SIGSTOP, SigSet};
use super::state::{Job, NOTIFY, PENDING, STEP, STOP, TRAP};
use crate::process::{Process, Task};

/// The thread is to stop for its tracer.
pub fn trap_pending(task: &Task) -> bool {
    task.sig.flags() & (TRAP | NOTIFY) != 0
}

/// PTRACE_INTERRUPT.
pub fn ask_for_trap(task: &Task) {
    task.sig.raise(TRAP);
}

pub fn wake(task: &Task) {
    kick(task);
}

/// A thread has just been attached to. If it is stopped with its process it goes over to a stop of its tracer: true.
pub fn trap_if_parked(task: &Task) -> bool {
    let shared = task.process().sig.lock();
    let parked = task.sig.lock().parked;
    if parked {
        task.sig.raise(TRAP);
    }
    drop(shared);
    if parked {
        kick(task);
    }
    parked
}

/// A new tracee stops before its first instruction.
pub fn stop_at_birth(task: &Task, seized: bool) {
    if seized {
        task.sig.raise(TRAP);
        return;
    }
    let mut local = task.sig.lock();
    // Nobody has queued anything for it yet.
    let _ = local.pending.push(SigInfo::user(SIGSTOP, 0, 0), || super::queue::Account { uid: 0, limit: 0 });
    task.sig.raise(PENDING);
}

/// Nobody traces the thread any more.
pub fn leave_traps(task: &Task) {
    task.sig.clear(TRAP | NOTIFY | STEP);
    let shared = task.process().sig.lock();
    task.sig.lock().excused = false;
    if shared.job != Job::Running {
        task.sig.raise(STOP);
    }
    drop(shared);
    kick(task);
}

/// The thread has stopped for its tracer.
pub fn trap_taken(task: &Task, for_stop: bool) {
    task.sig.clear(if for_stop { TRAP | NOTIFY } else { TRAP });
}

pub fn no_traps(task: &Task) {
    task.sig.clear(TRAP | NOTIFY);
}

/// The thread goes on. Signals of the process may have come that nobody took.
pub fn after_stop(task: &Task, steps: bool) {
    if steps {
        task.sig.raise(STEP);
    } else {
        task.sig.clear(STEP);
    }
    let local = task.sig.lock();
    task.update_pending(&local);
}

pub fn is_stepped(task: &Task) -> bool {
    task.sig.flags() & STEP != 0
}

/// A tracee that is about to stop: it counts as stopped with its process, if that stops. Answers the signal of that stop.
/// `tracer` tells the parent itself if it is the parent.
pub fn take_part_in_stop(task: &Task, seized: bool, tracer: &Arc<Process>) -> Option<u8> {
    let process = task.process();
    let threads = process.threads.lock();
    let mut shared = process.sig.lock();
    let signo = match shared.job {
        Job::Running => None,
        Job::Stopping(signo) | Job::Stopped(signo) => Some(signo),
    };
    let asked = task.sig.flags() & STOP != 0;
    task.sig.clear(STOP);
    let mut complete = None;
    if asked && signo.is_some() {
        task.sig.lock().excused = true;
        complete = job::complete_stop(&threads, &mut shared);
    }
    drop(shared);
    drop(threads);
    if let Some(signo) = complete {
        job::notify_parent(process, CLD_STOPPED, signo, Some(tracer));
    }
    // One that was attached to stops in vain once its process goes on.
    signo.filter(|_| asked || seized)
}

/// The mask of a stopped tracee: the one that it returns to.
pub fn tracee_mask(task: &Task) -> SigSet {
    let local = task.sig.lock();
    local.saved.unwrap_or(local.blocked)
}

pub fn set_tracee_mask(task: &Task, mask: SigSet) {
    let mut local = task.sig.lock();
    local.saved = None;
    local.blocked = mask.blockable();
    task.update_pending(&local);
}

/// The pending signal at this place of a queue, in user space's form: the thread's own, or (`shared`) its process's.
pub fn peek(task: &Task, shared: bool, index: usize) -> Option<[u8; SIGINFO_SIZE]> {
    let info = match shared {
        true => task.process().sig.lock().pending.nth(index),
        false => task.sig.lock().pending.nth(index),
    };
    info.map(|info| info.to_user())
}
