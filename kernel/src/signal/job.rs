//! Job control: stopping all threads of a process, and telling the parent.

use alloc::sync::Arc;

use super::action::ActionFlags;
use super::info::{CLD_STOPPED, SigInfo};
use super::send::{kick, send_to_process};
use super::set::SIGCHLD;
use super::state::{Job, KILLED, NOTIFY, STOP, Shared, TRAP};
use crate::process::{Pid, Process, Task, Thread, Usage, table};

/// Begins to stop the process because a thread took stop signal `signo`. `continues` is what the counter said when the
/// signal was taken: a SIGCONT or SIGKILL since then undoes the stop.
pub(super) fn begin_stop(t: &Thread, signo: u8, continues: u32) {
    let process = t.process();
    let threads = process.threads.lock();
    let mut shared = process.sig.lock();
    if process.sig.continues.load(core::sync::atomic::Ordering::Relaxed) != continues {
        return;
    }
    if shared.job == Job::Running {
        shared.job = Job::Stopping(signo);
        shared.continue_report = false;
    }
    for task in threads.iter() {
        task.sig.raise(STOP);
        if task.is_traced() {
            notify_seized(task);
        }
        kick(task);
    }
}

/// A seized thread stops anew for its tracer, to tell that its process stops or goes on.
pub(super) fn notify_seized(task: &Task) {
    if task.trace().is_some_and(|trace| trace.seized) {
        task.sig.raise(NOTIFY);
    }
}

/// A thread that found STOP set: parks until SIGCONT or SIGKILL.
pub(super) async fn park(t: &Thread) {
    let process = t.process();
    {
        let _threads = process.threads.lock();
        let shared = process.sig.lock();
        if shared.job == Job::Running {
            t.sig.clear(STOP);
            return;
        }
        t.sig.lock().parked = true;
    }
    check_stopped(process);
    let ends = |flags: u32| flags & STOP == 0 || flags & (KILLED | TRAP) != 0;
    process.sig.stop_wait.wait_for(|| ends(t.sig.flags()).then_some(())).await;
    t.sig.lock().parked = false;
}

/// Completes a stop when the last thread has parked.
pub(super) fn check_stopped(process: &Arc<Process>) {
    let threads = process.threads.lock();
    let mut shared = process.sig.lock();
    let complete = complete_stop(&threads, &mut shared);
    drop(shared);
    drop(threads);
    if let Some(signo) = complete {
        notify_parent(process, CLD_STOPPED, signo, None);
    }
}

pub(super) fn complete_stop(threads: &[Arc<Task>], shared: &mut Shared) -> Option<u8> {
    let Job::Stopping(signo) = shared.job else { return None };
    let stopped = |task: &Task| {
        let local = task.sig.lock();
        local.parked || local.excused
    };
    let running = |task: &&Arc<Task>| !task.exited.load(core::sync::atomic::Ordering::Relaxed) && !stopped(task);
    if threads.is_empty() || threads.iter().any(|task| running(&task)) {
        return None;
    }
    shared.job = Job::Stopped(signo);
    shared.stop_report = Some(signo);
    Some(signo)
}

/// SIGCHLD for a child that stopped or went on; and the parent looks again if it waits. Not if it is the tracer `told`, whom
/// the child tells itself.
pub(super) fn notify_parent(process: &Arc<Process>, code: i32, signo: u8, told: Option<&Arc<Process>>) {
    let parent = table::lock().parent(process.pid).cloned();
    let Some(parent) = parent.filter(|parent| told.is_none_or(|told| !Arc::ptr_eq(parent, told))) else { return };
    tell_of_child(&parent, (process.pid, process.uid(), process.usage()), code, signo.into());
    parent.child_wait.wake_all();
}

/// SIGCHLD about a process or tracee that stopped or went on (its id, real user and usage), unless SA_NOCLDSTOP.
pub fn tell_of_child(parent: &Arc<Process>, child: (Pid, u32, Usage), code: i32, status: i32) {
    let handlers = parent.handlers.read().clone();
    if !handlers.is_set_to_ignore(SIGCHLD) && !handlers.get(SIGCHLD).flags().contains(ActionFlags::NOCLDSTOP) {
        let (pid, uid, usage) = child;
        let info = SigInfo::child(SIGCHLD, code, pid, uid, status, ticks(usage.utime), ticks(usage.stime));
        // Nothing to be done if the queue is full.
        let _ = send_to_process(parent, info);
    }
}

/// Nanoseconds in clock ticks of sysconf(_SC_CLK_TCK), 100 per second.
pub(super) const fn ticks(nanos: u64) -> u64 {
    nanos / 10_000_000
}
