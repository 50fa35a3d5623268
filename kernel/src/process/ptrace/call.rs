//! System calls of threads that somebody watches.

use core::sync::atomic::Ordering;

use super::stop::{self, Event};
use super::{Options, Resume, watch};
use crate::errno::Errno;
use crate::process::Thread;
use crate::signal::{self, Restart, SIGTRAP, SigInfo};
use crate::syscalls;

/// Number of no system call: the call is not made.
const NO_CALL: i32 = -1;
const RT_SIGRETURN: i32 = 139;
/// PTRACE_EVENTMSG_SYSCALL_ENTRY and PTRACE_EVENTMSG_SYSCALL_EXIT.
const ENTRY: u64 = 1;
const EXIT: u64 = 2;
/// The register that says in a stop which of the two it is: the tracee's own value is out of reach meanwhile.
const DIRECTION: usize = 7;

/// Makes the system call that the registers ask for, with the stops that a tracer wants.
pub async fn call(t: &mut Thread) {
    t.end_step();
    if !t.is_traced() {
        return make(t).await;
    }
    t.orig_x0 = t.regs.x[0];
    t.call = t.regs.x[8] as i32;
    if t.call == NO_CALL {
        t.regs.x[0] = Errno::ENOSYS.to_ret();
    }
    let resume = t.trace().map_or(Resume::Go, |trace| trace.resume());
    let mut skip = false;
    if matches!(resume, Resume::Syscall | Resume::Emulate | Resume::EmulateAndStep) {
        report(t, ENTRY).await;
        skip = resume != Resume::Syscall || signal::fatal_pending(t);
    }
    if !skip && t.call != NO_CALL {
        make_numbered(t).await;
    }
    if t.exit.is_none() {
        // After rt_sigreturn x0 is the program's own, whatever it looks like, and nothing says what it has come from.
        let restarts = skip || t.call != RT_SIGRETURN;
        if !restarts {
            t.call = NO_CALL;
        }
        leave(t, restarts).await;
    }
    t.call = NO_CALL;
}

/// By the number that the tracer has chosen, which x8 need not say.
async fn make_numbered(t: &mut Thread) {
    const EXECVE: i32 = 221;
    const EXECVEAT: i32 = 281;
    let shown = t.regs.x[8];
    let orig_x0 = t.orig_x0;
    t.regs.x[8] = t.call as u32 as u64;
    make(t).await;
    // For a restart it counts what the program has asked for.
    t.orig_x0 = orig_x0;
    let replaced = match t.call {
        RT_SIGRETURN => true,
        EXECVE | EXECVEAT => Errno::from_ret(t.regs.x[0]).is_none(),
        _ => false,
    };
    if !replaced {
        t.regs.x[8] = shown;
    }
}

async fn make(t: &mut Thread) {
    if t.watch.load(Ordering::Relaxed) & watch::RECORDED != 0 {
        syscalls::trace::call(t).await;
    } else if !syscalls::dispatch_now(t) {
        syscalls::dispatch(t).await;
    }
}

/// The way back, as the tracer has resumed the thread last. With `restarts` x0 may say that the call is made again.
async fn leave(t: &mut Thread, restarts: bool) {
    match t.trace().map(|trace| trace.resume()) {
        Some(Resume::Syscall) => {
            if restarts {
                show_restart(t);
            }
            report(t, EXIT).await;
            if restarts {
                hide_restart(t);
            }
        }
        Some(resume) if resume.steps() => {
            // The call was the instruction. As on Linux for arm64 nobody says that it was a step.
            if restarts {
                show_restart(t);
                hide_restart(t);
            }
            signal::force(t, SigInfo::user(SIGTRAP, 0, 0));
        }
        _ => {}
    }
}

async fn report(t: &mut Thread, message: u64) {
    let good = t.trace().is_some_and(|trace| trace.has(Options::SYSGOOD));
    let own = core::mem::replace(&mut t.regs.x[DIRECTION], message - ENTRY);
    let code = u32::from(SIGTRAP) | if good { 0x80 } else { 0 };
    let event = Event::trap(t, code, message);
    let resumed = stop::stop(t, event).await;
    t.regs.x[DIRECTION] = own;
    if let Some((signo @ 1..=64, _)) = resumed {
        let _ = signal::send_to_task(t.task(), SigInfo::kernel(signo as u8));
    }
}

/// What a tracer finds in x0 after a call that was interrupted: numbers that no program sees.
const RESTARTS: [(Restart, i64); 4] =
    [(Restart::Sys, -512), (Restart::NoIntr, -513), (Restart::NoHand, -514), (Restart::Block, -516)];

fn show_restart(t: &mut Thread) {
    let shown = RESTARTS.iter().find(|(kind, _)| t.restart == Some(*kind));
    if let Some((_, value)) = shown {
        t.regs.x[0] = *value as u64;
    }
}

fn hide_restart(t: &mut Thread) {
    let value = t.regs.x[0] as i64;
    t.restart = None;
    if let Some((kind, _)) = RESTARTS.iter().find(|(_, shown)| *shown == value) {
        signal::set_restart(t, *kind);
        t.regs.x[0] = Errno::EINTR.to_ret();
    }
}
