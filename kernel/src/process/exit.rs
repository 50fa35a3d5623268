//! The end of threads and processes (exit(2), exit_group(2)).

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use arrayvec::ArrayVec;

use super::fp;
use super::process::{Process, State};
use super::ptrace;
use super::table::{self, Pid, TURN, Table};
use super::task::{Task, Thread};
use crate::exec::{self, WaitQueue};
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
    signal::set_exit(t, status);
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

/// Takes the thread out of its group; the last one turns the process into a zombie. There may be very many children: they are
/// given away some at a time before that, so that who has no thread is a zombie.
pub async fn leave_group(task: &Arc<Task>, status: ExitStatus) {
    let process = task.process().clone();
    task.exited.store(true, Ordering::Release);
    // Whoever is to be attached from now on sees that this thread ends.
    ptrace::detach_all(task);
    let Left { tracer, end } = loop {
        match try_leave(task, &process, status) {
            Some(left) => break left,
            None => exec::budget().await,
        }
    };
    process.exit_wait.wake_all();
    if let Some(tracer) = tracer {
        let status = process.group_exit.lock().unwrap_or(status);
        let info = SigInfo::child_exited(signal::SIGCHLD, task.tid(), task.shared_creds().uid, status, task.usage());
        let _ = signal::send_to_process(&tracer, info);
        tracer.child_wait.wake_all();
    }
    match end {
        Some(effects) => {
            // Not under the table's lock, which a timer that sends SIGCONT takes.
            time::process_exit(&process);
            effects.apply(&process);
        }
        None => signal::thread_exits(task),
    }
}

/// A thread has left its group.
struct Left {
    /// Who traced it, and is told by wait(2) of this thread.
    tracer: Option<Arc<Process>>,
    /// It was the last one.
    end: Option<Effects>,
}

/// None: it is the last one, and some children of the process have been given away.
fn try_leave(task: &Arc<Task>, process: &Arc<Process>, status: ExitStatus) -> Option<Left> {
    let _exe;
    let mut table = table::lock();
    let last = process.threads.lock().len() == 1;
    if last {
        let adoption = adopt_some(&mut table, process);
        if !adoption.children.is_empty() {
            drop(table);
            adoption.apply(process);
            return None;
        }
        // A zombie keeps no file system busy.
        _exe = process.exe.lock().take();
    }
    if task.is_leader() {
        *process.last_comm.lock() = task.comm();
    }
    table.remove_task(task.tid());
    let mut threads = process.threads.lock();
    task.part(&mut threads);
    process.dead_threads.lock().add(&task.usage());
    process.dead_io.lock().add(&task.io_usage());
    *process.last_creds.lock() = Some(task.shared_creds());
    drop(threads);
    let tracer = ptrace::keep_dead(&mut table, task, status);
    let end = last.then(|| end_process(&mut table, process, status));
    Some(Left { tracer, end })
}

/// What the end of a process causes, found under the table's lock and done after it.
pub(super) struct Effects {
    notice: Option<Notice>,
    /// A group that this end cuts off from its session.
    cut_off: Option<Pid>,
    session_leader: bool,
}

/// Somebody is to be told of the end of a process: a signal, and a wake-up in wait4.
struct Notice {
    to: Arc<Process>,
    info: Option<SigInfo>,
}

impl Effects {
    pub(super) fn apply(self, process: &Arc<Process>) {
        if process.pid == 1 {
            boot::init_exited(process);
        }
        if self.session_leader {
            fs::tty::session_leader_exit(process);
        }
        if let Some(pgid) = self.cut_off {
            hang_up(pgid, process);
        }
        if let Some(notice) = &self.notice {
            notice.signal();
        }
        process.announcements.fetch_sub(1, Ordering::Release);
        // The parent may be another one by now, who found nothing to report.
        let parent = table::lock().parent(process.pid).cloned();
        if let Some(parent) = parent {
            parent.child_wait.wake_all();
        }
        if let Some(notice) = &self.notice {
            notice.to.child_wait.wake_all();
        }
    }
}

impl Notice {
    fn signal(&self) {
        if let Some(info) = self.info {
            let _ = signal::send_to_process(&self.to, info);
        }
    }
}

/// Stopped groups that nobody can continue any more get SIGHUP and SIGCONT (POSIX, _exit). Only groups that this end
/// cuts off count: its own, if its parent is in another group of the session, and those of its children there.
fn hang_up(pgid: Pid, ends: &Process) {
    // Who changes a member after it was looked at looks at all of them himself.
    if !table::is_left_stopped(pgid, ends.pid) {
        return;
    }
    for signo in [signal::SIGHUP, signal::SIGCONT] {
        let _ = signal::send_to_group(pgid, SigInfo::kernel(signo));
    }
}

/// The last thread has left, and there are no children.
fn end_process(table: &mut Table, process: &Arc<Process>, status: ExitStatus) -> Effects {
    let status = process.group_exit.lock().unwrap_or(status);
    let linked = table.parent(process.pid).is_some_and(|parent| links(parent, process));
    let cut_off = linked.then(|| process.pgid.load(Ordering::Relaxed));
    process.announcements.fetch_add(1, Ordering::Relaxed);
    *process.state.lock() = State::Zombie(status);
    let notice = notify_parent(table, process, status);
    Effects { notice, cut_off, session_leader: process.session.read().sid == process.pid }
}

/// Some children have got another parent: what is to be done about that after the table's lock.
struct Adoption {
    children: ArrayVec<Arc<Process>, TURN>,
    /// Of those that are zombies.
    notices: ArrayVec<(Arc<Process>, Option<Notice>), TURN>,
    /// Groups that are cut off from their session.
    cut_off: ArrayVec<Pid, TURN>,
}

impl Adoption {
    fn apply(self, parent: &Process) {
        for child in &self.children {
            for task in child.tasks() {
                let death_signal = task.parent_death_signal.load(Ordering::Relaxed);
                if death_signal != 0 {
                    let info = SigInfo::user(death_signal as u8, parent.pid, parent.uid());
                    let _ = signal::send_to_process(child, info);
                }
            }
        }
        self.cut_off.iter().for_each(|pgid| hang_up(*pgid, parent));
        for (zombie, notice) in self.notices {
            if let Some(notice) = &notice {
                notice.signal();
            }
            zombie.announcements.fetch_sub(1, Ordering::Release);
            if let Some(notice) = notice {
                notice.to.child_wait.wake_all();
            }
        }
    }
}

/// Children go to the nearest living ancestor that is a subreaper, else to init (prctl(2), PR_SET_CHILD_SUBREAPER).
fn reaper_of(table: &Table, process: &Process) -> Pid {
    let mut ancestor = process.ppid.load(Ordering::Relaxed);
    while let Some(candidate) = table.process(ancestor).filter(|candidate| candidate.pid != 1) {
        if candidate.child_subreaper.load(Ordering::Relaxed) && !candidate.is_zombie() {
            return candidate.pid;
        }
        ancestor = candidate.ppid.load(Ordering::Relaxed);
    }
    1
}

fn adopt_some(table: &mut Table, process: &Arc<Process>) -> Adoption {
    let (mut notices, mut cut_off) = (ArrayVec::new(), ArrayVec::<Pid, TURN>::new());
    if process.pid == 1 {
        // There is nobody to give them to, and nothing goes on.
        return Adoption { children: ArrayVec::new(), notices, cut_off };
    }
    let reaper = reaper_of(table, process);
    let children = table.reparent_some(process.pid, reaper);
    for child in &children {
        // An adopted child tells its new parent by SIGCHLD, whatever clone had asked for.
        child.exit_signal.store(signal::SIGCHLD as u32, Ordering::Relaxed);
        child.creator.store(0, Ordering::Relaxed);
        if links(process, child) {
            cut_off.push(child.pgid.load(Ordering::Relaxed));
        }
        let state = *child.state.lock();
        // What another process traces is its own news for now.
        if let State::Zombie(status) = state
            && child.tracer().is_none()
        {
            child.announcements.fetch_add(1, Ordering::Relaxed);
            notices.push((child.clone(), notify_parent(table, child, status)));
        }
    }
    cut_off.sort_unstable();
    let mut before = 0;
    cut_off.retain(|pgid| core::mem::replace(&mut before, *pgid) != *pgid);
    Adoption { children, notices, cut_off }
}

/// Could the parent continue the child's group if it stops?
fn links(parent: &Process, child: &Process) -> bool {
    parent.pgid.load(Ordering::Relaxed) != child.pgid.load(Ordering::Relaxed)
        && parent.session.read().sid == child.session.read().sid
}

/// A zombie is no longer traced by a thread of process `from`: now it is its parent's. Under the table's lock; what
/// follows is to be applied after it.
pub(super) fn pass_on(table: &mut Table, process: &Arc<Process>, from: &Arc<Process>) -> Option<Effects> {
    let State::Zombie(status) = *process.state.lock() else { return None };
    let own = table.parent(process.pid).is_some_and(|parent| Arc::ptr_eq(parent, from));
    if own && !from.handlers.read().ignores_children() {
        return None; // it has been told
    }
    process.announcements.fetch_add(1, Ordering::Relaxed);
    let mut notice = notify_parent(table, process, status);
    if own && let Some(notice) = &mut notice {
        notice.info = None;
    }
    Some(Effects { notice, cut_off: None, session_leader: false })
}

/// SIGCHLD (or clone's exit signal) and a wake-up for the parent; a parent that ignores children never sees a zombie. A
/// tracer in another process comes first: see [`pass_on`].
fn notify_parent(table: &mut Table, process: &Arc<Process>, status: ExitStatus) -> Option<Notice> {
    let Some(parent) = table.parent(process.pid).cloned() else {
        table.remove_process(process.pid);
        return None;
    };
    let info = |signo| SigInfo::child_exited(signo, process.pid, process.uid(), status, process.usage());
    let tracer = process.tracer();
    if let Some(tracer) = &tracer
        && !Arc::ptr_eq(tracer.process(), &parent)
    {
        return Some(Notice { to: tracer.process().clone(), info: Some(info(signal::SIGCHLD)) });
    }
    let exit_signal = process.exit_signal.load(Ordering::Relaxed) as u8;
    let ignores = tracer.is_none() && exit_signal == signal::SIGCHLD && parent.handlers.read().ignores_children();
    let info = (exit_signal != 0).then(|| info(exit_signal));
    if ignores {
        *process.state.lock() = State::Dead;
        parent.reaped_children.lock().max_rss = 0;
        table.remove_process(process.pid);
    }
    Some(Notice { to: parent, info })
}
