//! From the first Rust instruction to the first user instruction, and the way down again.

pub mod cmdline;
mod init;
mod root;
mod shutdown;

pub use init::{first_thread, set_threads_max, threads_max};
pub use root::make_clean;
pub use shutdown::{How, init_exited, shutdown};

use crate::{arch, drivers, exec, fs, klog, mm, process, time};

/// What `arch` calls on the boot CPU, on its own stack, with the MMU on, interrupts masked and the console usable.
pub fn start() -> ! {
    klog::init();
    let (usable, reserved) = arch::early_memory();
    mm::init(usable, reserved);
    mm::huge::init();
    klog::heap_ready();
    arch::init_devices();
    let machine = arch::machine();
    let line = cmdline::init(&machine.cmdline);
    klog::set_console_level(line.log_level);
    log::info!("Pollux {} on {} with {} CPUs", env!("CARGO_PKG_VERSION"), machine.model, machine.cpu_count);
    log::info!("Kernel command line: {}", line.raw);
    time::init();
    drivers::random::init();
    fs::init();
    exec::init();
    exec::set_fp_saver(process::fp::evict_owner);
    mm::set_shortage_relief(process::oom::end_somebody);
    exec::spawn("init", init::bring_up());
    arch::start_secondary_cpus(secondary);
    exec::run_cpu(arch::cpu_id())
}

fn secondary(cpu: usize) -> ! {
    exec::run_cpu(cpu)
}
