//! The bare machine: QEMU virt and boards like it.

use super::{FpRegs, Machine, Trap, UserRegs};

/// The running CPU, 0 … `cpu_count() - 1`.
pub fn cpu_id() -> usize {
    0
}

/// CPUs that are online.
pub fn cpu_count() -> usize {
    1
}

/// Nanoseconds since boot, monotonic.
pub fn now_ns() -> u64 {
    0
}

/// Arms this CPU's one-shot timer (absolute, in `now_ns` units), or disarms it.
pub fn set_timer(_deadline_ns: Option<u64>) {}

/// Seconds since 1970 from the battery-backed clock, if there is one.
pub fn rtc_seconds() -> Option<u64> {
    None
}

/// Runs user code until the next trap. The address space and FP state must have been made current before.
pub fn enter_user(_regs: &mut UserRegs) -> Trap {
    unimplemented!("the host has no user mode")
}

pub fn machine() -> &'static Machine {
    unimplemented!()
}

pub fn power_off() -> ! {
    loop {}
}

pub fn reboot() -> ! {
    loop {}
}

/// Stops this CPU for ever (after a panic).
pub fn halt() -> ! {
    loop {}
}

/// Starts all other CPUs; each calls `entry(cpu)` on its own kernel stack.
pub fn start_secondary_cpus(_entry: fn(usize) -> !) {}

pub mod irq {
    /// What arch calls when an interrupt of its own kind is serviced.
    pub struct Hooks {
        /// This CPU's timer expired.
        pub timer: fn(),
        /// Another CPU called [`send_ipi`].
        pub ipi: fn(),
    }
    pub fn set_hooks(_hooks: Hooks) {}
    /// Services every interrupt pending on this CPU, then returns.
    pub fn service_pending() {}
    /// Sleeps (WFI) until an interrupt is pending on this CPU; returns at once if one is. Does not service it.
    pub fn wait() {}
    /// Makes `cpu` leave user mode or WFI and call its `ipi` hook. Repeated sends may coalesce.
    pub fn send_ipi(_cpu: usize) {}
    /// Routes device interrupt `intid` to `cpu` and calls `handler(arg)` for each occurrence. Level-triggered
    /// sources must be quieted by the handler.
    pub fn register(_intid: u32, _cpu: usize, _handler: fn(usize), _arg: usize) {}
}

pub mod console {
    /// Writes to the boot console, polling; usable from the first instruction of Rust on, and in a panic.
    pub fn write(bytes: &[u8]) {
        let _ = bytes;
    }
}

pub mod fp {
    use super::FpRegs;
    /// Stores the CPU's FP/SIMD registers.
    pub fn save(_to: &mut FpRegs) {}
    pub fn restore(_from: &FpRegs) {}
}

pub mod paging {
    /// Where physical memory is visible to the kernel (cacheable, read-write, never executable).
    pub fn phys_to_virt(_pa: u64) -> *mut u8 {
        unimplemented!()
    }
    /// Inverse of [`phys_to_virt`] for any kernel pointer (linear map or kernel image).
    pub fn virt_to_phys(_va: *const u8) -> u64 {
        unimplemented!()
    }
    /// Maps device registers; the mapping is never removed.
    pub fn map_mmio(_pa: u64, _size: u64) -> *mut u8 {
        unimplemented!()
    }
    /// Loads TTBR0_EL1 with this root and ASID on this CPU. Root 0 = the empty table.
    pub fn set_user_root(_root: u64, _asid: u16) {}
    /// Makes table writes visible to the walkers (DSB ISHST, ISB). Needed after making an entry valid.
    pub fn publish() {}
    /// Invalidates one page's translations, last level, on all CPUs.
    pub fn flush_page(_asid: u16, _va: u64) {}
    /// Invalidates everything of one ASID, on all CPUs.
    pub fn flush_asid(_asid: u16) {}
    /// Invalidates all user translations on all CPUs (ASID roll-over).
    pub fn flush_all() {}
    /// Makes instructions written through the linear map at `va` visible to instruction fetch.
    pub fn sync_icache(_va: *const u8, _len: usize) {}
}

/// Access to the current user address space (TTBR0) with fix-ups: a fault makes the access stop, never trap.
/// Addresses outside the user half are refused like unmapped ones.
pub mod user {
    use crate::arch::UserFault;
    /// Copies from user memory. Err gives the first address that could not be read and how many bytes were copied before it.
    ///
    /// # Safety
    /// `dst` must be valid for writes of `len` bytes and not user memory.
    pub unsafe fn copy_from(_dst: *mut u8, _src: u64, _len: usize) -> Result<(), (usize, UserFault)> {
        unimplemented!()
    }
    /// # Safety
    /// `src` must be valid for reads of `len` bytes and not user memory.
    pub unsafe fn copy_to(_dst: u64, _src: *const u8, _len: usize) -> Result<(), (usize, UserFault)> {
        unimplemented!()
    }
    pub fn zero(_dst: u64, _len: usize) -> Result<(), (usize, UserFault)> {
        unimplemented!()
    }
    /// Aligned, single-copy atomic (acquire).
    pub fn load_u32(_addr: u64) -> Result<u32, UserFault> {
        unimplemented!()
    }
    pub fn load_u64(_addr: u64) -> Result<u64, UserFault> {
        unimplemented!()
    }
    pub fn store_u32(_addr: u64, _value: u32) -> Result<(), UserFault> {
        unimplemented!()
    }
    pub fn store_u64(_addr: u64, _value: u64) -> Result<(), UserFault> {
        unimplemented!()
    }
    /// Atomic compare-and-exchange (acquire-release); answers the value that was there.
    pub fn cmpxchg_u32(_addr: u64, _old: u32, _new: u32) -> Result<u32, UserFault> {
        unimplemented!()
    }
    /// Bytes before the first NUL, up to `max`, into `dst`; Ok(n) with n == max means no NUL found.
    pub fn copy_string(_dst: &mut [u8], _src: u64) -> Result<usize, (usize, UserFault)> {
        unimplemented!()
    }
}

/// Random bits from the CPU, if it has an instruction for it (FEAT_RNG).
pub fn hw_random() -> Option<u64> {
    None
}

/// Relaxes a spin loop.
pub fn spin_hint() {
    core::hint::spin_loop()
}
