//! Waiting for children (wait(2)).

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use bitflags::bitflags;

use super::ExitStatus;
use super::process::{Process, State, Usage};
use super::table::{self, Pid};
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
            // Another CPU is in the middle of `exit::Effects::apply`, which waits for nothing.
            None => arch::spin_hint(),
        }
    }
}

/// None: a child is just ending. To report it before the parent has the signal, or to pass over it when that signal
/// brought the parent here, would both be wrong.
fn look(t: &Task, parent: &Arc<Process>, who: &Who, options: WaitOptions) -> Option<Result<Option<Report>, Errno>> {
    let mut table = table::lock();
    let mut candidate = false;
    let mut found = None;
    for child in table.children(parent.pid) {
        if !matches(child, who, options)
            || (options.contains(WaitOptions::NOTHREAD) && !is_maker(t, child))
            // A zombie has nothing else to tell any more.
            || (child.is_zombie() && !options.contains(WaitOptions::EXITED))
        {
            continue;
        }
        candidate = true;
        if child.is_zombie() && !child.announced.load(Ordering::Acquire) {
            return None;
        }
        if let Some(change) = change_of(child, options) {
            let usage = report_usage(child);
            found = Some((child.clone(), Report { pid: child.pid, uid: child.uid(), change, usage }));
            break;
        }
    }
    let Some((child, report)) = found else {
        return Some(if candidate { Ok(None) } else { Err(Errno::ECHILD) });
    };
    if matches!(report.change, Change::Ended(_)) && !options.contains(WaitOptions::NOWAIT) {
        *child.state.lock() = State::Dead;
        parent.reaped_children.lock().add(&report.usage);
        parent.adopt_io(&child);
        table.remove_process(child.pid);
    }
    Some(Ok(Some(report)))
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
