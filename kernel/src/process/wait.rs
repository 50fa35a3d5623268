//! Waiting for children (wait(2)).

use alloc::sync::Arc;
use core::ops::RangeInclusive;
use core::sync::atomic::Ordering;

use bitflags::bitflags;

use super::exit::{self, Effects, ExitStatus};
use super::process::{Process, State, Usage};
use super::ptrace::{self, report::News};
use super::table::{self, Pid, TURN, Table};
use super::task::{Task, Thread};
use crate::arch;
use crate::errno::Errno;
use crate::exec;
use crate::signal::SIGCHLD;
use crate::syscalls::SysResult;

bitflags! {
    /// Options of wait4 and waitid (linux/wait.h).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct WaitOptions: u32 {
        const NOHANG = 1;
        const STOPPED = 2;
        const EXITED = 4;
        const CONTINUED = 8;
        const NOWAIT = 0x0100_0000;
        const NOTHREAD = 0x2000_0000;
        const ALL = 0x4000_0000;
        const CLONE = 0x8000_0000;
    }
}

/// Which children are waited for.
#[derive(Clone)]
pub enum Who {
    Any,
    Pid(Pid),
    Group(Pid),
    Pidfd(Arc<Process>),
}

/// What happened to a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    Ended(ExitStatus),
    Stopped(u8),
    /// A tracee stopped: signal, flags and event.
    Trapped(u32),
    Continued,
}

/// A child's change of state, as wait reports it.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub pid: Pid,
    pub uid: u32,
    pub change: Change,
    pub usage: Usage,
}

/// Waits for a change of state; None for WNOHANG with nothing to report.
pub async fn wait(t: &Thread, who: Who, options: WaitOptions) -> SysResult<Option<Report>> {
    let process = t.process();
    let attempt = || match poll(t, process, &who, options) {
        Ok(None) if !options.contains(WaitOptions::NOHANG) => None,
        answer => Some(answer),
    };
    Ok(exec::interruptible(t, process.child_wait.wait_for(attempt)).await??)
}

/// One look at the children. Err(ECHILD) if none could ever match.
fn poll(t: &Task, parent: &Arc<Process>, who: &Who, options: WaitOptions) -> Result<Option<Report>, Errno> {
    loop {
        match look(t, parent, who, options) {
            Some(answer) => return answer,
            // Another CPU is about to tell the parent (`exit::Effects`, `exit::Adoption`), and waits for nothing.
            None => arch::spin_hint(),
        }
    }
}

/// What a look at children, or at tracees, has found.
enum Found {
    /// None that are waited for.
    Nobody,
    /// Some, without news.
    Somebody,
    /// One is just ending. To report it before the parent has the signal, or to pass over it when that signal brought the
    /// parent here, would both be wrong.
    Ending,
    News(Report),
    /// A process has ended, and is its parent's now, who is to be told.
    Passed(Report, Arc<Process>, Option<Effects>),
}

/// None: one is just ending.
fn look(t: &Task, parent: &Arc<Process>, who: &Who, options: WaitOptions) -> Option<Result<Option<Report>, Errno>> {
    let found = match look_at_children(t, parent, who, options) {
        none @ (Found::Nobody | Found::Somebody) => match look_at_tracees(t, parent, who, options) {
            Found::Nobody => none,
            found => found,
        },
        found => found,
    };
    match found {
        Found::Nobody => Some(Err(Errno::ECHILD)),
        Found::Somebody => Some(Ok(None)),
        Found::Ending => None,
        Found::News(report) => Some(Ok(Some(report))),
        Found::Passed(report, process, effects) => {
            if let Some(effects) = effects {
                effects.apply(&process);
            }
            Some(Ok(Some(report)))
        }
    }
}

impl Who {
    /// What the ids of children that are meant are between.
    fn ids(&self) -> RangeInclusive<Pid> {
        match self {
            Who::Any | Who::Group(_) => 0..=table::PID_LIMIT,
            Who::Pid(pid) => *pid..=*pid,
            Who::Pidfd(process) => process.pid..=process.pid,
        }
    }
}

/// There may be very many: some at a time.
fn look_at_children(t: &Task, parent: &Arc<Process>, who: &Who, options: WaitOptions) -> Found {
    let mut found = Found::Nobody;
    let mut ids = who.ids();
    while !ids.is_empty() {
        // What is left of a child is given up after the lock.
        let (child, _leader);
        let mut table = table::lock();
        let mut last = None;
        let mut news = None;
        for child in table.children_in(parent.pid, ids.clone()).take(TURN) {
            last = Some(child.pid);
            match look_at_child(t, parent, child, who, options) {
                Found::Nobody => {}
                Found::Somebody => found = Found::Somebody,
                Found::News(report) => {
                    news = Some((child.clone(), report));
                    break;
                }
                ending => return ending,
            }
        }
        if let Some((of, report)) = news {
            child = of;
            if matches!(report.change, Change::Ended(_)) && !options.contains(WaitOptions::NOWAIT) {
                _leader = reap(&mut table, parent, &child, &report);
            }
            return Found::News(report);
        }
        let Some(last) = last else { break };
        ids = last + 1..=*ids.end();
    }
    found
}

fn look_at_child(t: &Task, parent: &Arc<Process>, child: &Arc<Process>, who: &Who, options: WaitOptions) -> Found {
    if !matches(child, who, options)
        || (options.contains(WaitOptions::NOTHREAD) && !is_maker(t, child))
        // A zombie has nothing else to tell any more.
        || (child.is_zombie() && !options.contains(WaitOptions::EXITED))
    {
        return Found::Nobody;
    }
    let tracer = child.tracer();
    if child.is_zombie() && tracer.as_ref().is_some_and(|tracer| !Arc::ptr_eq(tracer.process(), parent)) {
        return Found::Somebody; // its tracer's, for now
    }
    if child.is_zombie() && child.announcements.load(Ordering::Acquire) != 0 {
        return Found::Ending;
    }
    let traced_here = tracer.is_some_and(|tracer| Arc::ptr_eq(tracer.process(), parent));
    let options = if traced_here { options - WaitOptions::STOPPED } else { options };
    match change_of(child, options) {
        Some(change) => Found::News(report(child, child.pid, change)),
        None => Found::Somebody,
    }
}

/// A child has been waited for. Answers its first thread if that was traced.
fn reap(table: &mut Table, parent: &Arc<Process>, child: &Arc<Process>, report: &Report) -> Option<Arc<Task>> {
    let leader = child.traced_leader();
    if let Some(leader) = &leader {
        ptrace::forget(leader);
    }
    *child.state.lock() = State::Dead;
    parent.reaped_children.lock().add(&report.usage);
    parent.adopt_io(child);
    table.remove_process(child.pid);
    leader
}

/// Those that threads of a process trace, some at a time. They are told of whatever the options say of stops and "clone"
/// children.
fn look_at_tracees(t: &Task, own: &Arc<Process>, who: &Who, options: WaitOptions) -> Found {
    let mut found = Found::Nobody;
    if own.tracees.load(Ordering::Relaxed) == 0 {
        return found;
    }
    let alone = options.contains(WaitOptions::NOTHREAD);
    for tracer in own.tasks().filter(|tracer| !alone || tracer.tid() == t.tid()) {
        let mut next = 0;
        loop {
            // Given up after the lock: it may be the last that there is of a thread.
            let turn = tracer.tracees(next);
            let Some((last, _)) = turn.last() else { break };
            next = last + 1;
            let mut table = table::lock();
            for (_, task) in &turn {
                match look_at_tracee(&mut table, &tracer, task, who, options) {
                    Found::Nobody => {}
                    Found::Somebody => found = Found::Somebody,
                    other => return other,
                }
            }
        }
    }
    found
}

fn look_at_tracee(table: &mut Table, tracer: &Arc<Task>, task: &Arc<Task>, who: &Who, options: WaitOptions) -> Found {
    let (own, process) = (tracer.process(), task.process());
    let consume = !options.contains(WaitOptions::NOWAIT);
    let trace = task.trace().filter(|trace| Arc::ptr_eq(&trace.tracer, tracer) && is_meant(task, who));
    let Some(trace) = trace else { return Found::Nobody };
    let ended = trace.is_dead() || task.is_leader() && process.is_zombie();
    if ended && !options.contains(WaitOptions::EXITED) {
        return Found::Nobody;
    }
    if ended && !trace.is_dead() {
        if process.announcements.load(Ordering::Acquire) != 0 {
            return Found::Ending;
        }
        let Some(change) = change_of(process, options) else { return Found::Somebody };
        let report = report(process, process.pid, change);
        return if consume { bury(table, own, process, task, report) } else { Found::News(report) };
    }
    match trace.news(process, consume) {
        Some(News::Dead(status)) => {
            if consume {
                ptrace::forget(task);
                table.remove_dead_tracee(task.tid());
            }
            Found::News(report(process, task.tid(), Change::Ended(status)))
        }
        Some(News::Stopped(code)) => Found::News(report(process, task.tid(), Change::Trapped(code))),
        None if options.contains(WaitOptions::CONTINUED) && process.sig.continued_report(consume) => {
            Found::News(report(process, task.tid(), Change::Continued))
        }
        None => Found::Somebody,
    }
}

/// The tracer has waited for the end of a process.
fn bury(table: &mut Table, own: &Arc<Process>, process: &Arc<Process>, leader: &Arc<Task>, report: Report) -> Found {
    if table.parent(process.pid).is_some_and(|parent| Arc::ptr_eq(parent, own)) {
        reap(table, own, process, &report);
        return Found::News(report);
    }
    ptrace::forget(leader);
    let effects = exit::pass_on(table, process, own);
    Found::Passed(report, process.clone(), effects)
}

fn is_meant(task: &Task, who: &Who) -> bool {
    match who {
        Who::Any => true,
        Who::Pid(pid) => task.tid() == *pid,
        Who::Group(pgid) => task.process().pgid.load(Ordering::Relaxed) == *pgid,
        Who::Pidfd(process) => task.is_leader() && Arc::ptr_eq(task.process(), process),
    }
}

fn report(process: &Arc<Process>, pid: Pid, change: Change) -> Report {
    Report { pid, uid: process.uid(), change, usage: report_usage(process) }
}

fn matches(child: &Arc<Process>, who: &Who, options: WaitOptions) -> bool {
    let identity = match who {
        Who::Any => true,
        Who::Pid(pid) => child.pid == *pid,
        Who::Group(pgid) => child.pgid.load(Ordering::Relaxed) == *pgid,
        Who::Pidfd(process) => Arc::ptr_eq(child, process),
    };
    // A "clone" child is one that does not announce its end by SIGCHLD.
    let is_clone = child.exit_signal.load(Ordering::Relaxed) != SIGCHLD as u32;
    identity && (options.contains(WaitOptions::ALL) || is_clone == options.contains(WaitOptions::CLONE))
}

/// Children belong to the thread that made them, and when that has ended to the first of the process.
fn is_maker(t: &Task, child: &Process) -> bool {
    let process = t.process();
    let creator = child.creator.load(Ordering::Relaxed);
    let lives = process.threads.lock().iter().any(|task| task.tid() == creator);
    creator == t.tid() || (!lives && process.any_thread().is_some_and(|first| first.tid() == t.tid()))
}

fn change_of(child: &Arc<Process>, options: WaitOptions) -> Option<Change> {
    let consume = !options.contains(WaitOptions::NOWAIT);
    if let State::Zombie(status) = *child.state.lock() {
        return options.contains(WaitOptions::EXITED).then_some(Change::Ended(status));
    }
    if options.contains(WaitOptions::STOPPED)
        && let Some(signal) = child.sig.stopped_report(consume)
    {
        return Some(Change::Stopped(signal));
    }
    (options.contains(WaitOptions::CONTINUED) && child.sig.continued_report(consume)).then_some(Change::Continued)
}

/// The child's own usage and that of its descendants that were waited for.
fn report_usage(child: &Arc<Process>) -> Usage {
    let mut usage = child.usage();
    usage.add(&child.reaped_children.lock());
    usage
}
