//! The seam between the kernel and the machine. Two implementations export the same names:
//! `aarch64` (bare machine) and `host` (an ordinary process, for unit tests and simulation).
//!
//! Conventions every implementation keeps:
//! * Rust code of the kernel always runs with interrupts masked. Pending ones are serviced by
//!   [`irq::service_pending`], which the executor calls between polls and when idle, and by [`enter_user`]
//!   when an interrupt ends user execution. There are no nested interrupts at EL1.
//! * At most [`MAX_CPUS`] CPUs, numbered from 0 without gaps.

mod machine;
pub mod page_ops;
mod percpu;
pub mod pte;
mod types;
mod words;
pub use machine::*;
pub use percpu::PerCpu;
pub use types::*;
pub use words::le_u64;

#[cfg(target_os = "none")]
mod aarch64;
#[cfg(target_os = "none")]
pub use aarch64::*;

#[cfg(not(target_os = "none"))]
mod host;
#[cfg(not(target_os = "none"))]
pub use host::*;

pub const MAX_CPUS: usize = 8;
