//! What a thread waits for: /proc/PID/await, wchan, stack, syscall.

use super::subject::Subject;
use super::text::{Text, put, put_seconds};
use crate::errno::Result;
use crate::exec::Instant;
use crate::process::{Doing, look_at, waits};

/// Lines `waits for`, `in`, `since` (seconds ago) and `held by`; or `runs`.
pub fn waits_for(subject: &Subject, out: &mut Text) -> Result<()> {
    let Some(wait) = waits::of(&subject.task()?) else {
        put!(out, "runs\n");
        return Ok(());
    };
    put!(out, "waits for {}\n", wait.what);
    if let Some(call) = wait.call {
        put!(out, "in {call}\n");
    }
    put!(out, "since ");
    put_seconds(out, Instant::now().saturating_since(wait.since).as_nanos() as u64);
    put!(out, "\n");
    if !wait.holders.is_empty() {
        put!(out, "held by");
        wait.holders.iter().for_each(|holder| put!(out, " {holder}"));
        put!(out, "\n");
    }
    Ok(())
}

/// The name of the system call that the thread waits in; 0 if it runs, or for those who may not look.
pub fn wchan(subject: &Subject, may_look: bool, out: &mut Text) -> Result<()> {
    let wait = if may_look { subject.task().ok().and_then(|task| waits::of(&task)) } else { None };
    put!(out, "{}", wait.map_or("0", |wait| wait.call.unwrap_or("page_fault")));
    Ok(())
}

/// The futures that a thread waits in, in the form of Linux's stacks; the innermost first.
pub fn stack(subject: &Subject, out: &mut Text) -> Result<()> {
    if let Some(wait) = waits::of(&subject.task()?) {
        put!(out, "[<0>] {}\n[<0>] life\n", wait.call.unwrap_or("page_fault"));
    }
    Ok(())
}

/// As in proc(5): number, arguments, stack pointer and program counter; -1 without a call.
pub fn syscall(subject: &Subject, out: &mut Text) -> Result<()> {
    match look_at(&*subject.task()?) {
        Doing::Runs => put!(out, "running\n"),
        Doing::Waits(regs) => put!(out, "-1 {:#x} {:#x}\n", regs.sp, regs.pc),
        Doing::Call(regs) => {
            put!(out, "{}", regs.x[8] as i32);
            regs.x[..6].iter().for_each(|argument| put!(out, " {argument:#x}"));
            put!(out, " {:#x} {:#x}\n", regs.sp, regs.pc);
        }
    }
    Ok(())
}
