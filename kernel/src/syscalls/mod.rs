//! The Linux system-call ABI for arm64: the table, argument decoding, and one file of handlers per family.
//!
//! Handlers decode and call into the subsystem that holds the policy. The kinds, named in the table:
//! * `fn`: answers at once; takes `&mut Thread`.
//! * `async`: may wait; takes `&Thread`.
//! * `killable`: the same, and ends, wherever it waits, when the thread is killed: it waits for disks and servers, which may not
//!   answer. Not for what changes names or content: nobody would tell the caches how it ended.
//! * `asyncmut`: may wait and changes the thread's own handles (exec, credentials); takes `&mut Thread`.
//!
//! One that may wait may also name a function that is asked first, `at once`: it answers what it can without waiting, or
//! `None`, and then it must have done nothing. What is called often is worth one: it needs no state in a future.
//!
//! A new system call is one line in `table.rs`, one handler, one contract test.

mod args;
#[cfg(test)]
mod doc;
pub(crate) mod epoll;
pub(crate) mod fs_change;
mod fs_handle;
mod fs_mount;
pub(crate) mod fs_mount_fd;
pub(crate) mod fs_open;
pub(crate) mod fs_rw;
pub(crate) mod fs_stat;
pub(crate) mod fs_xattr;
mod futex;
mod ids;
mod inotify;
mod io_uring;
pub(crate) mod ioprio;
mod ipc;
mod misc;
pub(crate) mod mm;
pub(crate) mod mm_remote;
mod mqueue;
mod msg;
mod pipe;
pub(crate) mod poll;
mod prctl;
mod process;
mod ptrace;
mod result;
mod sched;
mod sem;
mod shm;
mod signal;
pub(crate) mod socket;
mod table;
mod time;
pub mod trace;

pub use args::FromReg;
pub use result::{IntoSysResult, RetValue, SysError, SysResult};
pub use table::{TABLE, dispatch, dispatch_now, name};
