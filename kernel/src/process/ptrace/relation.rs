//! Who traces whom: PTRACE_TRACEME, PTRACE_ATTACH, PTRACE_SEIZE, clone, exec, and the end of either.
//!
//! All of it under the lock of the table, which the caller often has.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::{Options, Resume, Trace, watch};
use crate::errno::{Errno, Result};
use crate::exec;
use crate::process::exit::{self, ExitStatus};
use crate::process::process::may_trace_as;
use crate::process::run::killable;
use crate::process::table::{self, Pid, Table};
use crate::process::{Caps, Credentials, Process, Task, Thread};
use crate::signal::{self, Restart, SIGKILL, SIGSTOP, SigInfo};
use crate::syscalls::SysResult;

/// The options of PTRACE_SEIZE and PTRACE_SETOPTIONS. EINVAL for unknown ones, and for PTRACE_O_SUSPEND_SECCOMP: there is
/// nothing to suspend.
pub fn seize_options(bits: u64) -> Result<Options> {
    u32::try_from(bits).ok().and_then(Options::from_bits).ok_or(Errno::EINVAL)
}

fn link(task: &Arc<Task>, trace: Arc<Trace>) {
    let tracer = trace.tracer.clone();
    if task.is_leader() {
        *task.process().leader_trace.lock() = Some(trace.clone());
    }
    let number = trace.number;
    *task.bonds.trace.lock() = Some(trace);
    task.watch.fetch_or(watch::TRACED, Ordering::Relaxed);
    tracer.process().tracees.fetch_add(1, Ordering::Relaxed);
    tracer.bonds.tracees.lock().insert(number, task.clone());
}

/// PTRACE_TRACEME. EPERM if the caller is traced, or has capabilities that its parent does not have.
pub fn trace_me(t: &Thread) -> Result<()> {
    let table = table::lock();
    if t.is_traced() {
        return Err(Errno::EPERM);
    }
    let Some(parent) = table.parent(t.process().pid) else { return Ok(()) };
    let maker = t.process().creator.load(Ordering::Relaxed);
    let maker = table.task(maker).filter(|task| Arc::ptr_eq(task.process(), parent)).cloned();
    let Some(tracer) = maker.or_else(|| parent.any_thread()) else { return Ok(()) };
    let theirs = tracer.shared_creds();
    if !theirs.capable(Caps::SYS_PTRACE) && !theirs.cap_permitted.contains(t.creds().cap_permitted) {
        return Err(Errno::EPERM);
    }
    // Who is ending traces nobody any more, and the caller goes on untraced.
    if !tracer.exited.load(Ordering::Relaxed) {
        // The caller has chosen the tracer: what counts for programs that have more rights is the caller's capability.
        let capable = t.creds().capable(Caps::SYS_PTRACE);
        link(t.task(), Trace::new(tracer, false, capable, Options::empty()));
    }
    Ok(())
}

/// A thread that may be attached to. ESRCH if there is none, EPERM for one that has ended.
fn find(table: &Table, pid: Pid) -> Result<Arc<Task>> {
    match table.task(pid) {
        Some(task) => Ok(task.clone()),
        None if table.process(pid).is_some() || table.dead_tracee(pid).is_some() => Err(Errno::EPERM),
        None => Err(Errno::ESRCH),
    }
}

/// There is a thread with this id, alive or not waited for.
pub fn exists(pid: i32) -> bool {
    Pid::try_from(pid).is_ok_and(|pid| !matches!(find(&table::lock(), pid), Err(Errno::ESRCH)))
}

/// PTRACE_ATTACH, or with options PTRACE_SEIZE. EPERM unless the caller may trace the thread, which is not one of its own process
/// and is not traced. Waits while the thread's process loads a program that gives it rights: what counts is who it is then.
pub async fn attach(t: &Thread, pid: i32, seize: Option<Options>) -> SysResult<()> {
    let pid = Pid::try_from(pid).map_err(|_| Errno::ESRCH)?;
    let task = find(&table::lock(), pid)?;
    if Arc::ptr_eq(task.process(), t.process()) {
        return Err(Errno::EPERM.into());
    }
    let attempt = || attach_now(t, pid, &task, seize).transpose();
    let attached = exec::interruptible(t, task.process().exit_wait.wait_for(attempt)).await;
    let stopped = attached.map_err(|_| Restart::NoIntr)??;
    if seize.is_none() {
        let _ = signal::send_to_task(&task, SigInfo::kernel(SIGSTOP));
    }
    if stopped {
        // It goes from one stop to the other: nobody sees it run in between.
        let ends = || task.exited.load(Ordering::Relaxed) || signal::fatal_pending(&task);
        let arrived = || (task.is_trapped() || !signal::trap_pending(&task) || ends()).then_some(());
        killable(t, t.process().child_wait.wait_for(arrived)).await?;
    }
    Ok(())
}

/// Answers whether the thread was stopped with its process; None while its process gains rights.
fn attach_now(t: &Thread, pid: Pid, task: &Arc<Task>, seize: Option<Options>) -> Result<Option<bool>> {
    let table = table::lock();
    if task.process().gains_rights.load(Ordering::Acquire) != 0 {
        return Ok(None);
    }
    let gone = find(&table, pid).is_ok_and(|now| !Arc::ptr_eq(&now, task));
    if gone || task.exited.load(Ordering::Relaxed) || task.is_traced() {
        return Err(Errno::EPERM);
    }
    may_trace_as(t.process(), t.creds(), task.process(), false)?;
    check_ids(t.creds(), task)?;
    let capable = t.creds().capable(Caps::SYS_PTRACE);
    link(task, Trace::new(t.task().clone(), seize.is_some(), capable, seize.unwrap_or_default()));
    Ok(Some(signal::trap_if_parked(task)))
}

/// The thread's own credentials, which may be others than those of its process's first one.
fn check_ids(own: &Credentials, task: &Arc<Task>) -> Result<()> {
    let theirs = task.shared_creds();
    let same = [theirs.uid, theirs.euid, theirs.suid].iter().all(|id| *id == own.uid)
        && [theirs.gid, theirs.egid, theirs.sgid].iter().all(|id| *id == own.gid);
    let weaker = own.cap_permitted.contains(theirs.cap_permitted);
    if own.capable(Caps::SYS_PTRACE) || same && weaker { Ok(()) } else { Err(Errno::EPERM) }
}

/// A new thread or process, under the table's lock: the tracer of its maker traces it too, if the tracer wants that (by
/// `option`) or the maker does (CLONE_PTRACE). It stops before its first instruction.
pub fn inherit(maker: &Task, task: &Arc<Task>, asked: bool, option: Options) {
    let Some(trace) = maker.trace() else { return };
    let options = trace.bond.lock().options;
    let wanted = asked || !option.is_empty() && options.contains(option);
    if !wanted || trace.tracer.exited.load(Ordering::Relaxed) {
        return;
    }
    link(task, Trace::new(trace.tracer.clone(), trace.seized, trace.capable, options));
    signal::stop_at_birth(task, trace.seized);
}

/// Ends the bond of a tracee, under the table's lock: it goes on, or stops with its process.
pub fn unlink(task: &Arc<Task>) {
    let Some(trace) = forget(task) else { return };
    signal::leave_traps(task);
    trace.resumed.wake_all();
}

/// The same for one that has ended.
pub fn forget(task: &Arc<Task>) -> Option<Arc<Trace>> {
    let trace = task.bonds.trace.lock().take()?;
    task.watch.fetch_and(!watch::TRACED, Ordering::Relaxed);
    let process = task.process();
    let tracer = &trace.tracer;
    let as_leader = process.leader_trace.lock().take_if(|of_leader| Arc::ptr_eq(of_leader, &trace));
    drop(as_leader);
    let entry = tracer.bonds.tracees.lock().remove(&trace.number);
    if entry.is_some() {
        tracer.process().tracees.fetch_sub(1, Ordering::Relaxed);
    }
    drop(entry);
    let mut bond = trace.bond.lock();
    bond.over = true;
    bond.resume = Resume::Go;
    drop(bond);
    Some(trace)
}

/// A tracee ends, under the table's lock. Of the first thread of a process wait(2) tells when the process ends; any other
/// keeps its id until its tracer has waited for it. Answers whom to tell.
pub fn keep_dead(table: &mut Table, task: &Arc<Task>, status: ExitStatus) -> Option<Arc<Process>> {
    let trace = task.trace()?;
    if task.is_leader() {
        return None;
    }
    trace.bond.lock().dead = Some(status);
    table.add_dead_tracee(task.clone());
    Some(trace.tracer.process().clone())
}

/// Another thread becomes the first of its process by execve; the old one has ended, and nobody is told. Under the table's
/// lock, before it takes the id.
pub fn forget_old_leader(process: &Arc<Process>, new: &Arc<Task>) {
    let trace = process.leader_trace.lock().clone();
    if let Some(trace) = trace {
        trace.tracee().and_then(|old| forget(&old));
        trace.tracer.process().child_wait.wake_all();
    }
    let new_trace = new.trace();
    let _old = core::mem::replace(&mut *process.leader_trace.lock(), new_trace);
}

/// A tracer ends: its tracees are free, or killed (PTRACE_O_EXITKILL); those that have ended are passed on to their parents.
pub fn detach_all(tracer: &Arc<Task>) {
    loop {
        let mut table = table::lock();
        let last = tracer.bonds.tracees.lock().last_key_value().map(|(_, task)| task.clone());
        let Some(task) = last else { return };
        // Who is in the list has the bond.
        let Some(trace) = task.trace() else { return };
        let (kill, dead) = {
            let bond = trace.bond.lock();
            (bond.options.contains(Options::EXITKILL), bond.dead.is_some())
        };
        unlink(&task);
        if dead {
            table.remove_dead_tracee(task.tid());
        }
        let process = task.process().clone();
        let passed = if task.is_leader() { exit::pass_on(&mut table, &process, tracer.process()) } else { None };
        drop(table);
        if let Some(effects) = passed {
            effects.apply(&process);
        }
        if kill {
            let _ = signal::send_to_process(&process, SigInfo::kernel(SIGKILL));
        }
    }
}
