//! signal

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
/// Signals of one thread.
pub struct TaskSignals;
/// Signals of a process.
pub struct ProcessSignals;
/// Signal actions.
pub struct SigHandlers;
