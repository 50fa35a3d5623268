//! The bare machine: QEMU virt and boards like it.
//!
//! * `boot`, `tables`, `layout`: from the boot loader to Rust in the upper half; the kernel's own address space.
//! * `devtree` (no heap) and `machine` (heap): what the device tree says. Starting has two steps: everything before
//!   `crate::boot::start` (console, [`early_memory`], clock), then [`init_devices`] once the heap works.
//! * `trap`, `decode`, `emulate`, `user`, `fp`: user mode, its exceptions, its memory, its registers.
//! * `mem`, `crc`: bytes moved and summed by instructions that are made for it.
//! * `irq`, `gic`, `timer`: interrupts. `smp`, `psci`: other CPUs, power. `panic`, `symbols`: the end.
//!
//! Locks: those of `tables`, `console` and `gic` are leaves; nothing is called while they are held.

mod boot;
pub mod console;
mod cpu;
mod crc;
mod debug;
mod decode;
mod devtree;
mod emulate;
pub mod fp;
mod gic;
pub mod irq;
mod layout;
mod machine;
mod mem;
pub mod paging;
mod panic;
mod psci;
mod smp;
mod symbols;
mod tables;
mod timer;
mod trap;
pub mod user;
pub mod vdso;

pub use cpu::{cpu_id, hw_random, spin_hint, switch_point};
pub use crc::crc32c;
pub use debug::single_step;
pub use devtree::early_memory;
pub use emulate::{hwcaps, midr};
pub use machine::{init_devices, machine, rtc_seconds};
pub use panic::panic;
pub use psci::{power_off, reboot};
pub use smp::{cpu_count, start_secondary_cpus};
pub use timer::{ClockParams, clock_params, now_ns, ns_at, set_timer, ticks, ticks_to_ns};
pub use trap::enter_user;

/// Stops this CPU for ever (after a panic).
pub fn halt() -> ! {
    loop {
        aarch64_cpu::asm::wfi();
    }
}
