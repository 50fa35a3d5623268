//! The tracee's part: it stops, tells its tracer, and waits.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::{Options, Resume, Stop, Trace, events};
use crate::arch::PSTATE_SS;
use crate::exec::Instant;
use crate::process::exit::ExitStatus;
use crate::process::fp;
use crate::process::{Process, Task, Thread};
use crate::signal::{self, CLD_STOPPED, CLD_TRAPPED, SIGSTOP, SIGTRAP, SigInfo};

/// What a tracee stops for.
pub struct Event {
    /// What wait(2) tells: the signal, flags, and the event.
    code: u32,
    info: Option<SigInfo>,
    message: u64,
    /// CLD_TRAPPED, or CLD_STOPPED for a stop of the whole process: what SIGCHLD says.
    cause: i32,
    /// The thread ends: being killed does not keep it from stopping.
    ends: bool,
}

impl Event {
    /// A trap with this code, and a siginfo that says so.
    pub fn trap(t: &Task, code: u32, message: u64) -> Event {
        Event { message, ..Event::with_signal(t, SIGTRAP, code, CLD_TRAPPED) }
    }

    fn with_signal(t: &Task, signo: u8, code: u32, cause: i32) -> Event {
        let mut info = SigInfo::user(signo, t.tid(), t.shared_creds().uid);
        info.code = code as i32;
        Event { code, info: Some(info), message: 0, cause, ends: false }
    }
}

/// Stops until the tracer says how it goes on. None: it did not stop, nobody traces it or it is being killed. Else the signal with
/// which it was resumed, or 0, and the siginfo as the tracer has left it.
pub async fn stop(t: &mut Thread, event: Event) -> Option<(u32, Option<SigInfo>)> {
    let trace = t.trace()?;
    let killed_before = signal::fatal_pending(t.task());
    if killed_before && !event.ends {
        return None;
    }
    let cause = event.cause;
    let status = event.code & 0x7f;
    if !publish(t, &trace, event) {
        return None;
    }
    tell(t.task(), &trace, cause, status);
    // Registered before each look. Who resumes, ends the bond, kills or sends for a listening one changes what is looked
    // at first and wakes then. Who has called exit_group ends, and hurries, without being killed.
    let hurries = || t.process().hurries.load(Ordering::Relaxed) != 0;
    let killed = || hurries() || signal::fatal_pending(t.task()) && !killed_before;
    let done = || (trace.is_resumed(t) || killed()).then_some(());
    trace.resumed.wait_for(done).await;
    Some(take_back(t, &trace))
}

/// Leaves the registers and the report. False: the bond has just ended.
fn publish(t: &mut Thread, trace: &Trace, event: Event) -> bool {
    let stop = Box::new(Stop {
        info: event.info,
        message: event.message,
        regs: t.regs,
        fp: fp::get(t),
        call: t.call,
        orig_x0: t.orig_x0,
        fp_changed: false,
        stepped: signal::is_stepped(t.task()),
        listens: false,
        with: None,
    });
    let mut bond = trace.bond.lock();
    if bond.over {
        return false;
    }
    bond.report = Some(event.code);
    let old = bond.stop.replace(stop);
    // Under the lock: what is asked for from now on is another trap.
    signal::trap_taken(t.task(), event.cause == CLD_STOPPED);
    drop(bond);
    drop(old);
    true
}

/// SIGCHLD for the tracer, and it looks again if it waits.
fn tell(task: &Arc<Task>, trace: &Trace, cause: i32, status: u32) {
    let receiver = trace.tracer.process();
    signal::tell_of_child(receiver, (task.tid(), task.shared_creds().uid, task.usage()), cause, status as i32);
    receiver.child_wait.wake_all();
}

impl Trace {
    fn is_resumed(&self, t: &Task) -> bool {
        let bond = self.bond.lock();
        let listens = |stop: &Stop| stop.listens && signal::trap_pending(t);
        bond.over || bond.stop.as_ref().is_none_or(|stop| stop.with.is_some() || listens(stop))
    }

    pub fn resume(&self) -> Resume {
        self.bond.lock().resume
    }
}

/// Takes the registers back. Who was not resumed but let go gets what he stopped with if nobody has waited for that.
fn take_back(t: &mut Thread, trace: &Trace) -> (u32, Option<SigInfo>) {
    let mut bond = trace.bond.lock();
    let (stop, report, resume) = (bond.stop.take(), bond.report.take(), bond.resume);
    drop(bond);
    let Some(stop) = stop else { return (0, None) };
    t.regs = stop.regs;
    t.call = stop.call;
    if stop.fp_changed {
        fp::set(t, &stop.fp);
    }
    let steps = resume.steps() && stop.with.is_some();
    if !steps {
        t.regs.pstate &= !PSTATE_SS;
    } else if !stop.stepped {
        t.regs.pstate |= PSTATE_SS;
    }
    signal::after_stop(t.task(), steps);
    (stop.with.unwrap_or(report.unwrap_or(0)), stop.info)
}

/// Before a signal is acted on: the tracer may take it away, or make another of it. None: there is none any more, for now.
pub async fn signal_stop(t: &mut Thread, info: SigInfo) -> Option<SigInfo> {
    let tracer = t.trace().map(|trace| trace.tracer.clone());
    let event = Event { code: info.signo().into(), info: Some(info), message: 0, cause: CLD_TRAPPED, ends: false };
    let Some((code, changed)) = stop(t, event).await else {
        // Untraced meanwhile; or killed, and then it does not matter.
        return Some(info);
    };
    let signo = u8::try_from(code).ok().filter(|code| *code != 0)?;
    let info = match changed {
        Some(info) if info.signo() == signo => info,
        _ => {
            let (pid, uid) = tracer.map_or((0, 0), |tracer| (tracer.tid(), tracer.shared_creds().uid));
            SigInfo::user(signo, pid, uid)
        }
    };
    if t.sig.blocked().contains(signo) {
        let _ = signal::send_to_task(t.task(), info);
        return None;
    }
    Some(info)
}

/// A stop of the whole process, or one that PTRACE_INTERRUPT, PTRACE_ATTACH or the end of PTRACE_LISTEN asked for.
pub async fn job_stop(t: &mut Thread) {
    let Some(trace) = t.trace() else { return signal::no_traps(t.task()) };
    let tracer = trace.tracer.process();
    let asked = signal::trap_pending(t);
    let group = signal::take_part_in_stop(t.task(), trace.seized, tracer);
    if group.is_none() && !asked {
        return; // the process has been continued
    }
    let event = if trace.seized {
        let signo = group.unwrap_or(SIGTRAP);
        Event::with_signal(t, signo, u32::from(signo) | events::STOP << 8, CLD_STOPPED)
    } else {
        let signo = group.unwrap_or(SIGSTOP);
        Event { code: signo.into(), info: None, message: 0, cause: CLD_STOPPED, ends: false }
    };
    stop(t, event).await;
}

/// Stops if the tracer wants to know of this event. Answers whether it did want.
pub async fn event(t: &mut Thread, option: Options, number: u32, message: u64) -> bool {
    let wanted = t.trace().is_some_and(|trace| trace.has(option));
    if wanted {
        let event = Event::trap(t, u32::from(SIGTRAP) | number << 8, message);
        stop(t, event).await;
    }
    wanted
}

/// A new program has been loaded; the thread's id was `old_tid`.
pub async fn exec_event(t: &mut Thread, old_tid: u32) {
    let wanted = event(t, Options::EXEC, events::EXEC, old_tid.into()).await;
    if !wanted && t.trace().is_some_and(|trace| !trace.seized) {
        // How it was told before there were options.
        let info = SigInfo::user(SIGTRAP, t.process().pid, t.creds().uid);
        let _ = signal::send_to_task(t.task(), info);
    }
}

/// The thread is about to end.
pub async fn exit_event(t: &mut Thread, status: ExitStatus) {
    let hurries = t.process().hurries.load(Ordering::Relaxed) != 0;
    if !hurries && t.trace().is_some_and(|trace| trace.has(Options::EXIT)) {
        let status = t.process().group_exit.lock().unwrap_or(status);
        let event = Event::trap(t, u32::from(SIGTRAP) | events::EXIT << 8, status.wait_status().into());
        stop(t, Event { ends: true, ..event }).await;
    }
}

/// A process that is being killed is to give up its memory: no tracer keeps it from that. Answers since when.
pub fn hurry(process: &Process, now: Instant) -> Instant {
    let first = process.hurries.compare_exchange(0, now.as_nanos(), Ordering::Relaxed, Ordering::Relaxed);
    if let Err(since) = first {
        return Instant::from_nanos(since);
    }
    for trace in process.tasks().filter_map(|task| task.trace()) {
        trace.resumed.wake_all();
    }
    now
}

/// The frame of a handler has been made while the thread is stepped: the step has come to the handler's first instruction.
pub async fn step_into_handler(t: &mut Thread) {
    let event = Event::trap(t, SIGTRAP.into(), 0);
    stop(t, event).await;
}

impl Task {
    /// It was resumed for a single instruction, and is in user mode for it.
    pub fn begin_step(&self) {
        self.watch.fetch_or(super::watch::STEPS, Ordering::Relaxed);
        crate::arch::single_step(true);
    }

    pub(super) fn end_step(&self) {
        if self.watch.fetch_and(!super::watch::STEPS, Ordering::Relaxed) & super::watch::STEPS != 0 {
            crate::arch::single_step(false);
        }
    }
}
