//! How an interrupted system call goes on.

use alloc::boxed::Box;

use crate::fs::op::BoxFuture;
use crate::process::Thread;
use crate::syscalls::SysResult;

/// How an interrupted system call goes on (signal(7)); decided at signal delivery, never seen by user space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Restart {
    /// Restart if no handler runs or the handler has SA_RESTART; else EINTR.
    Sys,
    /// Restart always unless a handler runs (poll, sigsuspend …): EINTR with any handler.
    NoHand,
    /// Restart always, SA_RESTART or not.
    NoIntr,
    /// Restart through restart_syscall(2) with the remaining time (nanosleep, futex wait, poll with timeout) if no
    /// handler runs; else EINTR. The state is kept in `Thread::restart_block`.
    Block,
}

/// The rest of a system call that was interrupted half-way.
pub type Resume = Box<dyn for<'a> FnOnce(&'a Thread) -> BoxFuture<'a, SysResult> + Send>;

/// What restart_syscall(2) goes on with.
pub enum RestartBlock {
    Sleep(crate::time::SleepRest),
    Futex(crate::futex::WaitRest),
    /// Any other call.
    Call(Resume),
}
