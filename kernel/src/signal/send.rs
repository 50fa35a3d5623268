//! Sending: from kill(2), timers, terminals, faults to a pending signal and an awake thread.

use alloc::sync::Arc;
use core::ptr;
use core::sync::atomic::Ordering;

use super::info::{CLD_CONTINUED, SigInfo};
use super::queue::{Account, Reservation};
use super::set::{DefaultAction, SIGCONT, SIGKILL, SIGSTOP, SigSet, default_action};
use super::state::{Job, KILLED, PENDING, STOP, Shared};
use super::{fork, job, signalfd};
use crate::errno::{Errno, Result};
use crate::process::{Caps, Credentials, ExitStatus, Pid, Process, Reach, Resource, Task, Whom, run, signal_many};

/// Sends to one thread (tgkill(2), and what concerns a thread only).
pub fn send_to_task(task: &Arc<Task>, info: SigInfo) -> Result<()> {
    post(task.process(), Some(task), info)
}

/// Sends to a process: any thread that does not block the signal takes it.
pub fn send_to_process(process: &Arc<Process>, info: SigInfo) -> Result<()> {
    post(process, None, info)
}

/// Sends to a process; answers whether somebody will take it from a queue.
pub fn queue_to_process(process: &Arc<Process>, info: SigInfo) -> bool {
    let Some(main) = process.any_thread() else { return false };
    let held_back = main.sig.lock().holds_back(info.signo());
    !is_ignored(process, held_back, &info) && send_to_process(process, info).is_ok()
}

/// Sends to a thread; answers whether it will take it from its queue.
#[inline]
pub fn queue_to_task(task: &Arc<Task>, info: SigInfo) -> bool {
    let held_back = task.sig.lock().holds_back(info.signo());
    !is_ignored(task.process(), held_back, &info) && send_to_task(task, info).is_ok()
}

/// Sends to every process of a group, without a permission check (terminal, kernel). ESRCH if there is none.
pub fn send_to_group(pgid: Pid, info: SigInfo) -> Result<()> {
    signal_many(Whom::Group(pgid), &Reach::All, info)
}

/// Sends to a process what many get, under the lock of `process::table`. The effects are for after it.
pub fn post_with_others(process: &Arc<Process>, info: SigInfo) -> (Result<()>, Effects<'_>) {
    queue(process, None, info, true)
}

/// What is to be done after a signal has become pending, without locks.
#[must_use]
pub struct Effects<'a> {
    process: &'a Arc<Process>,
    receiver: Option<Arc<Task>>,
    continued: bool,
}

impl Effects<'_> {
    pub fn apply(self) {
        if let Some(task) = self.receiver {
            kick(&task);
        }
        if self.continued {
            self.process.sig.stop_wait.wake_all();
            job::notify_parent(self.process, CLD_CONTINUED, SIGCONT, None);
        }
        signalfd::notify(self.process);
    }
}

/// Whether a thread with `creds` in `sender` may signal `target` (kill(2)).
pub fn may_signal(sender: &Process, creds: &Credentials, target: &Process, signo: u8) -> Result<()> {
    if sender.pid == target.pid || creds.capable(Caps::KILL) {
        return Ok(());
    }
    let same_session = || sender.session.read().sid == target.session.read().sid;
    let matches =
        |theirs: &Credentials| [creds.uid, creds.euid].iter().any(|uid| *uid == theirs.uid || *uid == theirs.suid);
    let allowed = target.creds().is_some_and(|theirs| matches(&theirs));
    if allowed || (signo == SIGCONT && same_session()) { Ok(()) } else { Err(Errno::EPERM) }
}

/// The signal would have no effect if it were sent now: nothing becomes pending.
fn is_ignored(process: &Process, held_back: bool, info: &SigInfo) -> bool {
    let signo = info.signo();
    let kernel_only = signo == SIGKILL || signo == SIGSTOP;
    if process.is_protected()
        && process.handlers.read().is_default(signo)
        && !(info.from_kernel() && kernel_only)
        && (!held_back || kernel_only)
    {
        return true;
    }
    !held_back && process.handlers.read().ignores(signo)
}

/// The same of a process whose signals this thread takes. A tracer wants to know of signals without effect, too.
fn is_discarded(process: &Process, main: &Task, info: &SigInfo) -> bool {
    let held_back = main.sig.lock().holds_back(info.signo());
    let told = main.is_traced() && info.signo() != SIGKILL;
    !told && is_ignored(process, held_back, info)
}

/// Nothing would become pending for the process if it got this signal now.
pub fn discards(process: &Process, info: &SigInfo) -> bool {
    let threads = process.threads.lock();
    main_of(&threads).is_none_or(|main| is_discarded(process, main, info))
}

/// The first thread of a process, or another one. None: a zombie.
fn main_of(threads: &[Arc<Task>]) -> Option<&Arc<Task>> {
    threads.iter().find(|task| task.is_leader()).or(threads.first())
}

fn post(process: &Arc<Process>, task: Option<&Arc<Task>>, info: SigInfo) -> Result<()> {
    if !info.is_valid() {
        return Err(Errno::EINVAL);
    }
    let signo = info.signo();
    let controls_jobs = signo == SIGCONT || signo == SIGKILL || SigSet::STOPS.contains(signo);
    match task {
        Some(task) if !controls_jobs => post_to_task(task, info),
        _ => post_to_process(process, task, info),
    }
}

/// The short way for signals to one thread without side effects on others.
fn post_to_task(task: &Arc<Task>, info: SigInfo) -> Result<()> {
    let signo = info.signo();
    let mut local = task.sig.lock();
    if !task.is_traced() && is_ignored(task.process(), local.holds_back(signo), &info) {
        return Ok(());
    }
    local.pending.push(info, || account(task))?;
    let deliverable = !local.blocked.contains(signo);
    if deliverable {
        task.sig.raise(PENDING);
    }
    drop(local);
    if deliverable {
        kick(task);
    }
    signalfd::notify(task.process());
    Ok(())
}

fn post_to_process(process: &Arc<Process>, only: Option<&Arc<Task>>, info: SigInfo) -> Result<()> {
    let (result, effects) = queue(process, only, info, false);
    effects.apply();
    result
}

/// `for_many`: as many others get it.
fn queue<'a>(
    process: &'a Arc<Process>,
    only: Option<&Arc<Task>>,
    info: SigInfo,
    for_many: bool,
) -> (Result<()>, Effects<'a>) {
    let signo = info.signo();
    let mut effects = Effects { process, receiver: None, continued: false };
    let threads = process.threads.lock();
    let Some(main) = only.or_else(|| main_of(&threads)).cloned() else {
        return (Ok(()), effects);
    };
    let mut shared = process.sig.lock();
    effects.continued = side_effects(process, &threads, &mut shared, signo);
    let mut killed = false;
    let discarded = is_discarded(process, &main, &info);
    let result = if discarded {
        Ok(())
    } else if signo == SIGKILL {
        killed = true;
        Ok(())
    } else if let Some(task) = only {
        push_to(task, info).map(|deliverable| effects.receiver = deliverable.then(|| task.clone()))
    } else {
        let pushed = shared.pending.push(info, || account(&main));
        process.sig.publish(&shared);
        effects.receiver = pushed.is_ok().then(|| choose(&threads, &main, signo)).flatten();
        pushed
    };
    if for_many {
        let threads = threads.iter().map(|task| &**task);
        fork::note(&shared, threads, signo, !discarded && result.is_ok());
    }
    drop(shared);
    if killed {
        mark_killed(process, &threads, Some(ExitStatus::Killed { signal: SIGKILL, core: false }), None);
    }
    (result, effects)
}

fn push_to(task: &Arc<Task>, info: SigInfo) -> Result<bool> {
    let mut local = task.sig.lock();
    local.pending.push(info, || account(task))?;
    let deliverable = !local.blocked.contains(info.signo());
    if deliverable {
        task.sig.raise(PENDING);
    }
    Ok(deliverable)
}

/// The thread that is to take a signal of the process: the main one if it does not block it, else any.
fn choose(threads: &[Arc<Task>], main: &Arc<Task>, signo: u8) -> Option<Arc<Task>> {
    let candidates = core::iter::once(main).chain(threads.iter());
    for task in candidates {
        let local = task.sig.lock();
        if !local.blocked.contains(signo) && !task.exited.load(Ordering::Relaxed) && !task.is_trapped() {
            task.sig.raise(PENDING);
            drop(local);
            return Some(task.clone());
        }
    }
    None
}

/// What happens when certain signals are sent, whatever becomes of them (signal(7)): stop signals and SIGCONT cancel
/// each other, and SIGCONT continues. True if parked threads must be woken and the parent told.
fn side_effects(process: &Process, threads: &[Arc<Task>], shared: &mut Shared, signo: u8) -> bool {
    let cancelled = match signo {
        SIGCONT => SigSet::STOPS,
        SIGKILL => SigSet::EMPTY,
        _ if SigSet::STOPS.contains(signo) => SigSet::CONT,
        _ => return false,
    };
    shared.pending.flush(cancelled);
    process.sig.publish(shared);
    for task in threads {
        task.sig.lock().pending.flush(cancelled);
    }
    if signo != SIGCONT {
        return false;
    }
    process.sig.continues.fetch_add(1, Ordering::Relaxed);
    for task in threads.iter().filter(|task| task.is_traced()) {
        task.sig.lock().excused = false;
        job::notify_seized(task);
        kick(task);
    }
    let job = core::mem::replace(&mut shared.job, Job::Running);
    if job == Job::Running {
        return false;
    }
    shared.stop_report = None;
    shared.continue_report = matches!(job, Job::Stopped(_));
    for task in threads {
        task.sig.clear(STOP);
    }
    true
}

/// Who pays for queued signals to `task`.
#[inline]
fn account(task: &Task) -> Account {
    Account { uid: task.shared_creds().uid, limit: task.rlimit(Resource::Sigpending).soft }
}

/// Timer `id`, whose signals go to a process or a thread of it, is no more: a pending one stays, and keeps the room.
pub fn outlive_timer(process: &Process, task: Option<&Task>, id: i32, room: Reservation) {
    let _unused = match task {
        Some(task) => task.sig.lock().pending.outlive_timer(id, room),
        None => process.sig.lock().pending.outlive_timer(id, room),
    };
}

/// Ends all threads of a process but `except` with this status, unless it is ending already.
pub fn kill_group(process: &Process, status: ExitStatus, except: Option<&Arc<Task>>) {
    let threads = process.threads.lock();
    mark_killed(process, &threads, Some(status), except);
}

/// Ends all threads but `except`; the process lives on (exec). False if `except` is being ended itself: of two threads
/// that replace the program at once, one wins.
#[must_use]
pub fn kill_others(process: &Process, except: &Arc<Task>) -> bool {
    let threads = process.threads.lock();
    if except.sig.is_killed() {
        return false;
    }
    mark_killed(process, &threads, None, Some(except));
    true
}

fn mark_killed(process: &Process, threads: &[Arc<Task>], status: Option<ExitStatus>, except: Option<&Arc<Task>>) {
    if let Some(status) = status {
        process.group_exit.lock().get_or_insert(status);
        let mut shared = process.sig.lock();
        process.sig.continues.fetch_add(1, Ordering::Relaxed);
        shared.job = Job::Running;
        shared.stop_report = None;
    }
    for task in threads {
        if except.is_some_and(|except| Arc::ptr_eq(task, except)) {
            continue;
        }
        task.sig.clear(STOP);
        task.sig.raise(KILLED);
        kick(task);
    }
    process.sig.stop_wait.wake_all();
}

/// Adds a new thread to its process. It shares the fate of the group, and of the thread that made it, which may be ending
/// because another one replaces the program. The first one of a process begins with these `signals`.
pub fn adopt(process: &Process, task: &Arc<Task>, maker: &Task, signals: SigSet) {
    if !signals.is_empty() {
        fork::begin_with(process, task, signals);
    }
    let mut threads = process.threads.lock();
    task.join(&mut threads);
    let together = ptr::eq(&**maker.process(), process);
    if process.group_exit.lock().is_some() || together && maker.sig.is_killed() {
        task.sig.raise(KILLED);
    } else if process.sig.lock().job != Job::Running {
        task.sig.raise(STOP);
    }
}

/// A thread leaves: others take the signals that it would have taken, and a stop no longer waits for it.
pub fn thread_exits(task: &Task) {
    let process = task.process();
    retarget(process, SigSet::ALL, task);
    job::check_stopped(process);
}

/// Lets other threads take pending signals of the process that `except` will not take any more.
#[inline]
pub(super) fn retarget(process: &Process, set: SigSet, except: &Task) {
    if (process.sig.pending() & set).is_empty() {
        return;
    }
    let threads = process.threads.lock();
    for task in threads.iter().filter(|task| task.tid() != except.tid()) {
        let local = task.sig.lock();
        if !(process.sig.pending() & set).without(local.blocked).is_empty() {
            task.sig.raise(PENDING);
            drop(local);
            kick(task);
        }
    }
}

/// Makes a thread notice its flags: ends its sleep, or its stay in user mode.
pub(super) fn kick(task: &Task) {
    if run::is_current(task) {
        return; // it looks at its flags before it returns to user mode
    }
    task.entity.wake();
}

/// Fatal for a process without a handler: for callers that must not wait for delivery.
pub fn is_fatal(process: &Process, signo: u8) -> bool {
    process.handlers.read().is_default(signo)
        && !process.is_protected()
        && matches!(default_action(signo), DefaultAction::Terminate | DefaultAction::Core)
}

/// Gives a signal back that was taken but could not be handed over.
pub(super) fn put_back(task: &Task, info: SigInfo) {
    let mut local = task.sig.lock();
    // Only a queue that ran full meanwhile loses it.
    let _ = local.pending.push(info, || account(task));
    task.update_pending(&local);
}
