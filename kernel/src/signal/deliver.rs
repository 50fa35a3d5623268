//! Delivery: what happens to a pending signal before its thread returns to user mode.

use alloc::boxed::Box;
use core::sync::atomic::Ordering;

use super::action::{ActionFlags, SIG_DFL, SIG_IGN, SigAction};
use super::info::{SI_KERNEL, SigInfo};
use super::send::{kill_group, retarget};
use super::set::{DefaultAction, SIGILL, SIGKILL, SIGSEGV, SIGSTOP, SIGTRAP, SigSet, default_action};
use super::state::{KILLED, NOTIFY, OWN, PENDING, STEP, STOP, TRAP};
use super::{Restart, frame, job, trap};
use crate::errno::Errno;
use crate::exec::Interrupts;
use crate::process::{ExitStatus, Task, Thread, ptrace, table};

/// The thread has something to do before it returns to user mode.
#[inline]
pub fn work_pending(t: &Thread) -> bool {
    t.sig.flags() != 0
}

/// The thread ends before it returns to user mode.
pub fn set_exit(t: &mut Thread, status: ExitStatus) {
    t.exit = Some(status);
    t.sig.raise(OWN);
}

/// The thread's system call was interrupted: how it goes on is decided at delivery.
#[cold]
pub fn set_restart(t: &mut Thread, kind: Restart) {
    t.restart = Some(kind);
    t.sig.raise(OWN);
}

/// The thread is being killed: also waits that no other signal may end must end.
pub fn fatal_pending(task: &Task) -> bool {
    task.sig.is_killed()
}

/// A signal can be delivered, or the thread is to stop or end.
#[inline]
pub fn is_signalled(task: &Task) -> bool {
    task.sig.flags() & !(STEP | OWN) != 0
}

impl Interrupts for Thread {
    #[inline]
    fn pending(&self) -> bool {
        match self.stand_in() {
            None => self.task().pending(),
            Some(other) => other.pending(),
        }
    }
}

impl Interrupts for Task {
    #[inline]
    fn pending(&self) -> bool {
        self.interruptible.store(true, Ordering::Relaxed);
        is_signalled(self)
    }
}

/// What delivery of one signal comes to.
enum Step {
    /// Run this handler.
    Handle(SigInfo, SigAction),
    /// The tracer decides about this signal, taken when so many continues had been counted.
    Report(SigInfo, u32),
    /// Nothing to do; look again.
    Again,
    /// No more signals.
    Done,
}

/// Acts on everything that is pending: ends the thread (`t.exit`), parks it, or sets its registers so that handlers run.
/// Decides how an interrupted system call goes on.
pub async fn deliver(t: &mut Thread) {
    t.sig.clear(OWN);
    let mut restart = t.restart.take().map(|kind| Rewound::new(t, kind));
    while t.exit.is_none() {
        let flags = t.sig.flags();
        if flags & KILLED != 0 {
            let status = *t.process().group_exit.lock();
            t.exit = Some(status.unwrap_or(ExitStatus::Exited(0)));
        } else if flags & (TRAP | NOTIFY | STOP) != 0 && t.is_traced() {
            Box::pin(ptrace::job_stop(t)).await;
        } else if flags & (TRAP | NOTIFY) != 0 {
            trap::no_traps(t);
        } else if flags & STOP != 0 {
            job::park(t).await;
        } else if flags & PENDING == 0 {
            break;
        } else {
            let step = match step(t) {
                Step::Report(info, continues) => match Box::pin(ptrace::signal_stop(t, info)).await {
                    Some(info) if !t.sig.is_killed() => act(t, info, continues),
                    _ => Step::Again,
                },
                step => step,
            };
            match step {
                Step::Again | Step::Report(..) => {}
                Step::Done => break,
                Step::Handle(info, action) => {
                    if let Some(rewound) = restart.take() {
                        rewound.before_handler(t, &action);
                    }
                    handle(t, &info, &action).await;
                    if trap::is_stepped(t) && t.is_traced() {
                        Box::pin(ptrace::step_into_handler(t)).await;
                    }
                }
            }
        }
    }
    if let Some(rewound) = restart {
        rewound.without_handler(t);
    }
    restore_mask(t);
    if t.sig.flags() & STEP != 0 && t.exit.is_none() {
        t.begin_step();
    }
}

/// Takes one signal and does what needs no waiting.
fn step(t: &mut Thread) -> Step {
    let unblocked = !t.sig.blocked();
    let (signal, continues) = dequeue(t, unblocked);
    let Some(info) = signal else { return Step::Done };
    if t.is_traced() && info.signo() != SIGKILL {
        return Step::Report(info, continues);
    }
    act(t, info, continues)
}

fn act(t: &mut Thread, info: SigInfo, continues: u32) -> Step {
    let signo = info.signo();
    let action = t.process().handlers.read().clone().take_for_delivery(signo);
    match action.handler {
        SIG_IGN => Step::Again,
        SIG_DFL => {
            let forced = info.from_kernel() && info.code != SI_KERNEL;
            if !t.process().is_protected() || forced || signo == SIGKILL || signo == SIGSTOP {
                default(t, signo, continues);
            }
            Step::Again
        }
        _ => Step::Handle(info, action),
    }
}

/// Takes the next pending signal of `wanted`. With it comes the count of continues, for stop signals.
pub(super) fn dequeue(task: &Task, wanted: SigSet) -> (Option<SigInfo>, u32) {
    let process = task.process();
    let mut local = task.sig.lock();
    // Read before a shared queue is looked at: a SIGCONT in between empties that queue of stop signals.
    let continues = process.sig.continues.load(Ordering::Relaxed);
    let own = local.pending.pop(wanted);
    drop(local);
    let info = own.or_else(|| process.sig.pop(wanted));
    let local = task.sig.lock();
    task.update_pending(&local);
    drop(local);
    // Interval timers go on when their signal is taken.
    (info.map(|info| process.timers.delivered(info)), continues)
}

fn default(t: &mut Thread, signo: u8, continues: u32) {
    match default_action(signo) {
        DefaultAction::Ignore | DefaultAction::Continue => {}
        DefaultAction::Stop => {
            // A group that nobody could continue is not stopped by the terminal (POSIX 2.4.3).
            let pgid = t.process().pgid.load(Ordering::Relaxed);
            if signo == SIGSTOP || !table::lock().is_orphaned_group(pgid) {
                job::begin_stop(t, signo, continues);
            }
        }
        DefaultAction::Terminate | DefaultAction::Core => {
            // Cores are never written, so the status never says there was one.
            let status = ExitStatus::Killed { signal: signo, core: false };
            kill_group(t.process(), status, Some(t.task()));
            let decided = *t.process().group_exit.lock();
            t.exit = Some(decided.unwrap_or(status));
        }
    }
}

/// Builds the handler's frame and blocks what is to be blocked while it runs.
async fn handle(t: &mut Thread, info: &SigInfo, action: &SigAction) {
    let signo = info.signo();
    let (alt_stack, mask) = {
        let local = t.sig.lock();
        (local.alt_stack, local.saved.unwrap_or(local.blocked))
    };
    if frame::push(t, info, action, alt_stack, mask).await.is_err() {
        // No stack to run a handler on. If that handler was SIGSEGV's own, there is nothing left to try.
        if signo == SIGSEGV {
            t.process().handlers.read().set(SIGSEGV, SigAction::DEFAULT);
        }
        force(t, SigInfo::kernel(SIGSEGV));
        return;
    }
    let mut local = t.sig.lock();
    local.saved = None;
    if local.alt_stack.flags & super::state::SS_AUTODISARM != 0 {
        local.alt_stack = Default::default();
    }
    let mut blocked = local.blocked | SigSet(action.mask);
    if !action.flags().contains(ActionFlags::NODEFER) {
        blocked.insert(signo);
    }
    let newly = blocked.without(local.blocked);
    local.blocked = blocked.blockable();
    t.task().update_pending(&local);
    drop(local);
    retarget(t.process(), newly, t.task());
}

/// A system call that was interrupted, and whose registers say by now that it is made again: so a tracer sees them when it
/// is asked about a signal, and may decide otherwise.
struct Rewound {
    kind: Restart,
    /// Where the call is.
    again: u64,
}

impl Rewound {
    fn new(t: &mut Thread, kind: Restart) -> Rewound {
        t.regs.x[0] = t.orig_x0;
        t.regs.pc = t.regs.pc.wrapping_sub(4);
        Rewound { kind, again: t.regs.pc }
    }

    /// A handler with this action is about to run: for some calls that is the end.
    fn before_handler(self, t: &mut Thread, action: &SigAction) {
        let ends = match self.kind {
            Restart::NoIntr => false,
            Restart::Sys => !action.flags().contains(ActionFlags::RESTART),
            Restart::NoHand | Restart::Block => true,
        };
        if ends && t.regs.pc == self.again {
            t.regs.x[0] = Errno::EINTR.to_ret();
            t.regs.pc = t.regs.pc.wrapping_add(4);
        }
    }

    fn without_handler(self, t: &mut Thread) {
        const RESTART_SYSCALL: u64 = 128;
        if self.kind == Restart::Block && t.regs.pc == self.again {
            t.regs.x[8] = RESTART_SYSCALL;
        }
    }
}

/// Takes back the mask of sigsuspend, ppoll and the like when no handler's frame did.
fn restore_mask(t: &mut Thread) {
    let mut local = t.sig.lock();
    if let Some(saved) = local.saved.take() {
        local.blocked = saved;
        t.task().update_pending(&local);
    }
}

/// Turns an exception of the thread into a signal that cannot be held back: if it is blocked or ignored it kills.
pub fn force_fault(t: &mut Thread, signo: u8, code: i32, addr: u64, esr: u64) {
    // As on Linux, instructions that are none have no address in the frame, and traps leave the last one there.
    match signo {
        SIGILL => t.fault_address = 0,
        SIGTRAP => {}
        _ => t.fault_address = addr,
    }
    t.fault_esr = esr;
    force(t, SigInfo::fault(signo, code, addr));
}

/// Sends a signal to the thread itself that must be acted on now.
pub fn force(t: &mut Thread, info: SigInfo) {
    let signo = info.signo();
    let handlers = t.process().handlers.read().clone();
    let mut local = t.sig.lock();
    if local.blocked.contains(signo) || handlers.is_set_to_ignore(signo) {
        handlers.set(signo, SigAction::DEFAULT);
        local.blocked.remove(signo);
    }
    if handlers.is_default(signo) {
        t.process().sig.mortal.store(true, Ordering::Relaxed);
    }
    // A pending instance sent by somebody must not hide where the fault was.
    local.pending.flush(SigSet::of(&[signo]));
    if local.pending.push(info, || super::queue::Account { uid: 0, limit: 0 }).is_ok() {
        t.sig.raise(PENDING);
    }
}
