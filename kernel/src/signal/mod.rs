//! Signals (signal(7)): from the sender to the handler's frame.
//!
//! * [`TaskSignals`] and [`ProcessSignals`] hold what is pending, masks and job-control state; [`SigHandlers`] says what
//!   is done with each signal. [`SigInfo`] is one signal with its information, [`SigSet`] a set of numbers.
//! * `send`: a sender queues the signal, marks a thread that does not block it, and kicks it: the thread's wait ends
//!   (`exec::interruptible`) or its stay in user mode does (an inter-processor interrupt).
//! * `fork`: what is sent to many processes reaches those that are being made meanwhile.
//! * `deliver`: before a thread returns to user mode it looks at one word of flags; if that is not zero, [`mod@deliver`] ends it,
//!   parks it (`job`), or builds the frame of a handler (`frame`), and decides about the restart of a system call.
//!
//! Lock order: `process::table` → `Process::threads` → the lock of `ProcessSignals` → the lock of a thread's
//! `TaskSignals`. A thread's own mask and pending set need the last one only. None is held over an await.

mod action;
mod deliver;
mod fork;
mod frame;
mod info;
mod job;
mod mask;
mod queue;
mod restart;
mod send;
mod set;
mod signalfd;
mod state;
mod trap;

pub use action::{ActionFlags, SIG_DFL, SIG_IGN, SigAction, SigHandlers, set_action};
pub use deliver::{deliver, fatal_pending, force, force_fault, is_signalled, set_exit, set_restart, work_pending};
pub use fork::Fork;
pub use frame::{Restored, UserStack, pop as pop_frame, try_pop as try_pop_frame};
pub use info::*;
pub use job::tell_of_child;
pub use mask::{set_mask, suspend, wait_for, with_mask};
pub use queue::Reservation;
pub use restart::{Restart, RestartBlock, Resume};
pub use send::{
    Effects, adopt, discards, is_fatal, kill_group, kill_others, may_signal, outlive_timer, post_with_others,
    queue_to_process, queue_to_task, send_to_group, send_to_process, send_to_task, thread_exits,
};
pub use set::*;
pub use signalfd::signalfd;
pub use state::{AltStack, ProcessSignals, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK, TaskSignals};
pub use trap::{
    after_stop, ask_for_trap, is_stepped, leave_traps, no_traps, peek, set_tracee_mask, stop_at_birth,
    take_part_in_stop, tracee_mask, trap_if_parked, trap_pending, trap_taken, wake,
};
