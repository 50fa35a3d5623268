//! The seam on an ordinary host process, for unit tests and simulation.
//!
//! * `memory`: simulated RAM, shared by the process; `user`: user memory, reached by walking the tables that
//!   [`paging::set_user_root`] names, with the real descriptor format and permissions.
//! * Everything else is per host thread, because tests run in parallel: which CPU it plays, its clock, timers,
//!   interrupts, user address space. [`sim`] has the knobs, and lets a [`sim::Driver`] play several CPUs on one thread.

use super::{FpRegs, Machine, MmioDevice};
use std::sync::OnceLock;

mod memory;
pub mod sim;
pub mod user;
pub mod vdso;

pub use sim::{cpu_count, cpu_id, enter_user, now_ns, ns_at, set_timer, spin_hint, switch_point, ticks, ticks_to_ns};

/// RAM that may be handed out, and what is reserved in it.
pub fn early_memory() -> (&'static [core::ops::Range<u64>], &'static [core::ops::Range<u64>]) {
    (const { &[memory::USABLE] }, const { &[memory::RESERVED] })
}

/// Nothing to set up.
pub fn init_devices() {}

/// There is no user code to be stepped.
pub fn single_step(_on: bool) {}

/// There is no instruction for it that every host has.
pub fn crc32c(_state: u32, _bytes: &[u8]) -> Option<u32> {
    None
}

/// Seconds since 1970 from the battery-backed clock, if there is one.
pub fn rtc_seconds() -> Option<u64> {
    Some(1_700_000_000)
}

/// What it takes to turn counter values into nanoseconds: `((cntvct - base) * mult) >> shift`.
#[derive(Clone, Copy, Debug)]
pub struct ClockParams {
    pub base: u64,
    pub mult: u64,
    pub shift: u32,
    pub frequency: u64,
}

pub fn clock_params() -> ClockParams {
    ClockParams { base: 0, mult: 1, shift: 0, frequency: 1_000_000_000 }
}

/// AT_HWCAP and AT_HWCAP2: FP and ASIMD.
pub fn hwcaps() -> (u64, u64) {
    (3, 0)
}

/// A Cortex-A72.
pub fn midr() -> u64 {
    0x410f_d083
}

pub fn machine() -> &'static Machine {
    static MACHINE: OnceLock<Machine> = OnceLock::new();
    MACHINE.get_or_init(|| Machine {
        model: "host".into(),
        memory: vec![memory::RAM],
        uart: Some(MmioDevice { base: 0x0900_0000, size: 0x1000, irq: None }),
        cpu_count: super::MAX_CPUS,
        ..Machine::default()
    })
}

pub fn power_off() -> ! {
    std::process::exit(0)
}

pub fn reboot() -> ! {
    std::process::exit(0)
}

/// Stops this CPU for ever (after a panic).
pub fn halt() -> ! {
    std::process::abort()
}

/// Does nothing: a test that wants more CPUs plays them with [`sim::set_cpu`].
pub fn start_secondary_cpus(_entry: fn(usize) -> !) {}

/// Interrupts of the CPU that this thread plays. They are pending until serviced, as on the machine.
pub mod irq {
    pub use super::sim::{send_ipi, service_pending, wait};

    /// What arch calls when an interrupt of its own kind is serviced.
    pub struct Hooks {
        /// This CPU's timer expired.
        pub timer: fn(),
        /// Another CPU called [`send_ipi`].
        pub ipi: fn(),
    }

    /// For this thread only.
    pub fn set_hooks(hooks: Hooks) {
        super::sim::with(|state| state.hooks = hooks);
    }

    pub fn is_pending() -> bool {
        super::sim::is_pending()
    }

    /// Calls `handler(arg)` for each occurrence, which [`super::sim::raise`] makes, on the CPU that services it.
    pub fn register(intid: u32, _cpu: usize, handler: fn(usize), arg: usize) {
        super::sim::with(|state| state.handlers.push((intid, handler, arg)));
    }
}

pub mod console {
    /// Writes to the standard error output, which the test harness captures, or where the driver wants it.
    pub fn write(bytes: &[u8]) {
        match super::sim::driver() {
            Some(driver) => (driver.console)(bytes),
            None => std::eprint!("{}", alloc::string::String::from_utf8_lossy(bytes)),
        }
    }

    /// Nothing is ever received.
    pub fn enable_rx(_intid: u32, _handler: fn(u8), _break_key: fn(u8) -> bool) {}
}

pub mod fp {
    use super::FpRegs;
    use super::sim::with;

    /// There is no user code that could use them.
    pub const CAN_TRAP: bool = false;

    pub fn set_access(_allowed: bool) {}

    /// Stores the FP/SIMD registers of the CPU that this thread plays.
    pub fn save(to: &mut FpRegs) {
        *to = with(|state| state.fp[state.cpu]);
    }

    pub fn restore(from: &FpRegs) {
        with(|state| state.fp[state.cpu] = *from);
    }
}

pub mod paging {
    pub use super::memory::{map_mmio, phys_to_virt, virt_to_phys};

    /// For the CPU that this thread plays. Root 0 = the empty table.
    pub fn set_user_root(root: u64, _asid: u16) {
        super::sim::with(|state| state.roots[state.cpu] = root);
    }
    /// User accesses walk the tables each time: there is nothing to publish or flush.
    pub fn publish() {}
    pub fn flush_page(_asid: u16, _va: u64) {}
    pub fn flush_range(_asid: u16, _va: u64, _pages: usize) {}
    pub fn flush_walk(_asid: u16, _va: u64) {}
    pub fn flush_asid(_asid: u16) {}
    pub fn flush_local() {
        super::sim::with(|state| state.flushes[state.cpu] += 1);
    }
    pub fn sync_icache(_va: *const u8, _len: usize) {}
}

/// Random bits from the CPU, if it has an instruction for it.
pub fn hw_random() -> Option<u64> {
    None
}
