//! Pollux: a Linux-compatible kernel for 64-bit Arm in which every system call is a future
//! and every user thread is one async task. `docs/design.md` is the map.
#![no_std]
#![allow(
    rustdoc::private_intra_doc_links,
    reason = "the documentation is for readers of the source and shows private items"
)]
#[cfg(not(target_os = "none"))]
extern crate std;
#[macro_use]
extern crate alloc;

pub mod arch;
pub mod boot;
pub mod drivers;
pub mod errno;
pub mod exec;
pub mod fs;
pub mod futex;
pub mod io_uring;
pub mod ipc;
pub mod klog;
pub mod mm;
pub mod net;
pub mod process;
pub mod signal;
pub mod sync;
pub mod syscalls;
pub mod sysrq;
pub mod time;
pub mod uts;
