//! Processes and threads.
//!
//! * [`Thread`] is a user thread from the inside, owned by the one future that is its life ([`run`]).
//! * [`Task`] is its public record: ids, pending signals, what it shares.
//! * [`Process`] is a thread group. Relations between processes (parent, group, session) live in [`table`].
//!
//! What `clone` shares is an `Arc` handle of `Thread` (address space, descriptors, file-system context, credentials)
//! or of `Process` (signal handlers); what it copies is a `fork` method of that handle.
//!
//! Lock order: the table's lock, then `Process::threads`, then the signal locks. None is held over an `.await`.

pub mod clone;
pub mod creds;
pub mod exec;
pub mod exit;
pub mod fp;
pub mod group;
mod io;
pub mod limits;
pub mod membarrier;
pub mod oom;
pub mod pidfd;
#[allow(clippy::module_inception, reason = "the type that the folder is about")]
mod process;
pub mod ptrace;
pub mod run;
mod session;
pub mod table;
mod task;
#[cfg(test)]
pub(crate) mod test_util;
pub mod trace;
pub mod wait;
pub mod waits;
mod walks;

pub use creds::{Caps, Credentials};
pub use exit::{ExitStatus, VforkDone};
pub use limits::{Limit, Limits, Resource};
pub use process::{NewProcess, Process, State, Usage, may_trace, may_trace_as};
pub use run::{Doing, is_current, look_at, with_current};
pub use session::Session;
pub use table::{Pid, find, find_task, group_exists, process_count, processes, tasks};
pub use task::{Handles, MmUse, Task, Thread};
pub use walks::{Reach, Whom, signal_many};
