//! The end of threads and processes (exit(2), exit_group(2)).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use super::fp;
use super::process::{Process, State};
use super::ptrace;
use super::table::{self, Pid, Table};
use super::task::{Task, Thread};
use crate::exec::WaitQueue;
use crate::fs::FdTable;
use crate::signal::{self, SigInfo};
use crate::{boot, fs, futex, io_uring, ipc, time};

/// How a process ended, in the terms of wait(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitStatus {
    /// exit(2) with this code (low 8 bits count).
    Exited(u8),
    /// Killed by this signal; `core` if its action dumps core.
    Killed { signal: u8, core: bool },
}

impl ExitStatus {
    /// The status word of wait(2).
    pub const fn wait_status(self) -> u32 {
        match self {
            ExitStatus::Exited(code) => (code as u32) << 8,
            ExitStatus::Killed { signal, core } => signal as u32 | if core { 0x80 } else { 0 },
        }
    }
}

/// Lets a CLONE_VFORK parent wait until the child has given up the shared address space.
#[derive(Default)]
pub struct VforkDone {
    done: AtomicBool,
    wait: WaitQueue,
}

impl VforkDone {
    pub fn complete(&self) {
        self.done.store(true, Ordering::Release);
        self.wait.wake_all();
    }

    pub async fn wait(&self) {
        self.wait.wait_for(|| self.done.load(Ordering::Acquire).then_some(())).await
    }
}

/// exit_group(2): ends every thread of the caller's process.
pub fn exit_group(t: &mut Thread, status: ExitStatus) {
    signal::kill_group(t.process(), status, Some(t.task()));
    t.exit = Some(status);
}

/// What a thread gives up at its end, before its future drops it and calls [`leave_group`].
pub async fn leave(t: &mut Thread) {
    t.task().leaving.store(true, Ordering::Relaxed);
    leave_memory(t, true).await;
    let vfork = t.vfork.lock().take();
    if let Some(mm) = t.leave_mm() {
        t.process().remember_peak(&mm);
        mm.teardown().await;
    }
    if let Some(done) = vfork {
        done.complete();
    }
    t.sem_undo.leave(t.process().pid).await;
    ipc::shm::thread_exits(t.tid());
    fp::release(t);
    t.unpublish_handles();
    FdTable::leave(t.leave_files()).await;
}

/// What a thread still does to its memory before it leaves it, at exit (`ends`) and exec: rings, robust futexes,
/// locks that lend priority, clear_child_tid.
pub async fn leave_memory(t: &Thread, ends: bool) {
    if t.rings.lock().is_some() {
        Box::pin(io_uring::leave(t)).await;
    }
    futex::exit_robust_list(t).await;
    futex::pi::release_all(t.task(), ends);
    let tid_address = t.clear_child_tid.swap(0, Ordering::Relaxed);
    if tid_address != 0 && t.mm_is_shared() {
        // A bad address is the program's own affair.
        let _ = crate::mm::UserPtr::<u32>::new(tid_address).write(t.mm(), 0).await;
        futex::wake_clear_tid(t, tid_address).await;
    }
}

/// Takes the thread out of its group; the last one turns the process into a zombie.
pub fn leave_group(task: &Arc<Task>, status: ExitStatus) {
    let process = task.process().clone();
    task.exited.store(true, Ordering::Release);
    // Whoever is to be attached from now on sees that this thread ends.
    ptrace::detach_all(task);
    let mut table = table::lock();
    if task.is_leader() {
        *process.last_comm.lock() = task.comm();
    }
    table.remove_task(task.tid());
    let last = {
        let mut threads = process.threads.lock();
        task.part(&mut threads);
        process.dead_threads.lock().add(&task.usage());
        process.dead_io.lock().add(&task.io_usage());
        *process.last_creds.lock() = Some(task.shared_creds());
        threads.is_empty()
    };
    let tracer = ptrace::keep_dead(&mut table, task, status);
    let effects = if last { Some(end_process(&mut table, &process, status)) } else { None };
    // A zombie keeps no file system busy.
    let exe = if last { process.exe.lock().take() } else { None };
    drop(table);
    drop(exe);
    process.exit_wait.wake_all();
    if let Some(tracer) = tracer {
        let status = process.group_exit.lock().unwrap_or(status);
        let info = SigInfo::child_exited(signal::SIGCHLD, task.tid(), task.shared_creds().uid, status, task.usage());
        let _ = signal::send_to_process(&tracer, info);
        tracer.child_wait.wake_all();
    }
    if last {
        // Not under the table's lock, which a timer that sends SIGCONT takes.
        time::process_exit(&process);
    }
    match effects {
        Some(effects) => effects.apply(&process),
        None => signal::thread_exits(task),
    }
}

/// What the end of a process causes, gathered under the table's lock and done after it.
pub(super) struct Effects {
    /// (receiver, signal) pairs: SIGCHLD to the parents of zombies, SIGHUP and SIGCONT to orphaned groups.
    signals: Vec<(Arc<Process>, SigInfo)>,
    /// Parents to wake in wait4.
    wake: Vec<Arc<Process>>,
    session_leader: bool,
}

impl Effects {
    pub(super) fn apply(self, process: &Arc<Process>) {
        if process.pid == 1 {
            boot::init_exited(process);
        }
        if self.session_leader {
            fs::tty::session_leader_exit(process);
        }
        for (receiver, info) in self.signals {
            let _ = signal::send_to_process(&receiver, info);
        }
        process.announced.store(true, Ordering::Release);
        // The parent may be another one by now, who found nothing to report.
        let parent = table::lock().parent(process.pid).cloned();
        if let Some(parent) = parent {
            parent.child_wait.wake_all();
        }
        for parent in self.wake {
            parent.child_wait.wake_all();
        }
    }
}

fn end_process(table: &mut Table, process: &Arc<Process>, status: ExitStatus) -> Effects {
    let status = process.group_exit.lock().unwrap_or(status);
    let session_leader = process.session.read().sid == process.pid;
    let mut effects = Effects { signals: Vec::new(), wake: Vec::new(), session_leader };
    let children = adopt_children(table, process, &mut effects);
    orphan_groups(table, process, &children, &mut effects);
    *process.state.lock() = State::Zombie(status);
    notify_parent(table, process, status, &mut effects);
    effects
}

/// Children go to the nearest living ancestor that is a subreaper, else to init (prctl(2), PR_SET_CHILD_SUBREAPER).
fn adopt_children(table: &mut Table, process: &Arc<Process>, effects: &mut Effects) -> Vec<Arc<Process>> {
    let mut reaper = 1;
    let mut ancestor = process.ppid.load(Ordering::Relaxed);
    while let Some(candidate) = table.process(ancestor) {
        if candidate.pid == 1 {
            break;
        }
        if candidate.child_subreaper.load(Ordering::Relaxed) && !candidate.is_zombie() {
            reaper = candidate.pid;
            break;
        }
        ancestor = candidate.ppid.load(Ordering::Relaxed);
    }
    let children = table.reparent_children(process.pid, reaper);
    for child in &children {
        // An adopted child tells its new parent by SIGCHLD, whatever clone had asked for.
        child.exit_signal.store(signal::SIGCHLD as u32, Ordering::Relaxed);
        child.creator.store(0, Ordering::Relaxed);
        for task in child.tasks() {
            let death_signal = task.parent_death_signal.load(Ordering::Relaxed);
            if death_signal != 0 {
                let info = SigInfo::user(death_signal as u8, process.pid, process.uid());
                effects.signals.push((child.clone(), info));
            }
        }
        let state = *child.state.lock();
        // What another process traces is its own news for now.
        if let State::Zombie(status) = state
            && child.tracer().is_none()
        {
            notify_parent(table, child, status, effects);
        }
    }
    children
}

/// Stopped groups that nobody can continue any more get SIGHUP and SIGCONT (POSIX, _exit). Only groups that this end
/// cuts off count: its own, if its parent is in another group of the session, and those of its children there.
fn orphan_groups(table: &Table, process: &Arc<Process>, children: &[Arc<Process>], effects: &mut Effects) {
    let own = process.pgid.load(Ordering::Relaxed);
    let links = |parent: &Process, child: &Process| {
        parent.pgid.load(Ordering::Relaxed) != child.pgid.load(Ordering::Relaxed)
            && parent.session.read().sid == child.session.read().sid
    };
    let mut groups: Vec<Pid> =
        children.iter().filter(|child| links(process, child)).map(|child| child.pgid.load(Ordering::Relaxed)).collect();
    if table.parent(process.pid).is_some_and(|parent| links(parent, process)) {
        groups.push(own);
    }
    groups.sort_unstable();
    groups.dedup();
    for pgid in groups {
        let stopped = table.group(pgid).any(|member| member.pid != process.pid && member.sig.is_stopped());
        if stopped && table.is_orphaned_group(pgid, Some(process.pid)) {
            for member in table.group(pgid).filter(|member| member.pid != process.pid) {
                effects.signals.push((member.clone(), SigInfo::kernel(signal::SIGHUP)));
                effects.signals.push((member.clone(), SigInfo::kernel(signal::SIGCONT)));
            }
        }
    }
}

/// A zombie is no longer traced by a thread of process `from`: now it is its parent's. Under the table's lock; what
/// follows is to be applied after it.
pub(super) fn pass_on(table: &mut Table, process: &Arc<Process>, from: &Arc<Process>) -> Option<Effects> {
    let State::Zombie(status) = *process.state.lock() else { return None };
    let own = table.parent(process.pid).is_some_and(|parent| Arc::ptr_eq(parent, from));
    if own && !from.handlers.read().ignores_children() {
        return None; // it has been told
    }
    process.announced.store(false, Ordering::Release);
    let mut effects = Effects { signals: Vec::new(), wake: Vec::new(), session_leader: false };
    notify_parent(table, process, status, &mut effects);
    if own {
        effects.signals.clear();
    }
    Some(effects)
}

/// SIGCHLD (or clone's exit signal) and a wake-up for the parent; a parent that ignores children never sees a zombie. A
/// tracer in another process comes first: see [`pass_on`].
fn notify_parent(table: &mut Table, process: &Arc<Process>, status: ExitStatus, effects: &mut Effects) {
    let Some(parent) = table.parent(process.pid).cloned() else {
        table.remove_process(process.pid);
        return;
    };
    let tracer = process.tracer();
    if let Some(tracer) = &tracer
        && !Arc::ptr_eq(tracer.process(), &parent)
    {
        let info = SigInfo::child_exited(signal::SIGCHLD, process.pid, process.uid(), status, process.usage());
        effects.signals.push((tracer.process().clone(), info));
        effects.wake.push(tracer.process().clone());
        return;
    }
    let exit_signal = process.exit_signal.load(Ordering::Relaxed) as u8;
    let ignores = tracer.is_none() && exit_signal == signal::SIGCHLD && parent.handlers.read().ignores_children();
    if exit_signal != 0 {
        let info = SigInfo::child_exited(exit_signal, process.pid, process.uid(), status, process.usage());
        effects.signals.push((parent.clone(), info));
    }
    if ignores {
        *process.state.lock() = State::Dead;
        parent.reaped_children.lock().max_rss = 0;
        table.remove_process(process.pid);
    }
    effects.wake.push(parent);
}
