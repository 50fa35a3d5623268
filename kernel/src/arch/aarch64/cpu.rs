//! The running CPU: its number, its features, and the registers each CPU sets for itself.

use super::{trap, user};
use aarch64_cpu::registers::*;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

/// The running CPU, 0 … `cpu_count() - 1`.
#[inline(always)]
pub fn cpu_id() -> usize {
    let id: usize;
    // SAFETY: a register read. `pure`: kernel code stays on its CPU while a function runs (nothing pre-empts it).
    unsafe { asm!("mrs {}, tpidr_el1", out(reg) id, options(pure, nomem, nostack, preserves_flags)) };
    // SAFETY: `init` stores nothing else there.
    unsafe { core::hint::assert_unchecked(id < crate::arch::MAX_CPUS) };
    id
}

/// Bits of FEATURES.
const PAN: u64 = 1;
const RNG: u64 = 2;
const CRC32: u64 = 4;

/// What CPU 0 can do; the others are taken to be like it.
static FEATURES: AtomicU64 = AtomicU64::new(0);

pub fn has_pan() -> bool {
    FEATURES.load(Ordering::Relaxed) & PAN != 0
}

pub fn has_crc32() -> bool {
    FEATURES.load(Ordering::Relaxed) & CRC32 != 0
}

/// Sets up this CPU: exception vectors, FP and counter access, privileged access never.
pub fn init(cpu: usize) {
    TPIDR_EL1.set(cpu as u64);
    TPIDRRO_EL0.set(0);
    if cpu == 0 {
        detect();
    }
    trap::install_vectors();
    // FP and SIMD work here, where they are used only to save, restore and copy, and in user mode when it has its registers.
    super::fp::set_access(false);
    // EL0 reads the virtual counter and its frequency; no access to timers, no event stream.
    CNTKCTL_EL1.set(1 << 1);
    // SAFETY: debug and performance monitors off, no access from EL0.
    unsafe {
        asm!(
            "msr mdscr_el1, xzr",
            "msr oslar_el1, xzr",
            "msr contextidr_el1, xzr",
            options(nomem, nostack, preserves_flags)
        )
    };
    if ID_AA64DFR0_EL1.get() >> 8 & 15 != 0 && ID_AA64DFR0_EL1.get() >> 8 & 15 != 15 {
        // SAFETY: as above; the register is there by PMUVer.
        unsafe { asm!("msr pmuserenr_el0, xzr", options(nomem, nostack, preserves_flags)) };
    }
    if has_pan() {
        // SAFETY: PSTATE.PAN := 1. The kernel reaches user memory only through `user`.
        unsafe { asm!(".inst 0xd500419f", "isb", options(nostack, preserves_flags)) };
    }
    // SAFETY: orders the writes above before what follows.
    unsafe { asm!("isb", options(nostack, preserves_flags)) };
}

fn detect() {
    let mut features = 0;
    if ID_AA64MMFR1_EL1.get() >> 20 & 15 != 0 {
        features |= PAN;
    }
    if ID_AA64ISAR0_EL1.get() >> 60 & 15 != 0 {
        features |= RNG;
    }
    if ID_AA64ISAR0_EL1.get() >> 16 & 15 != 0 {
        features |= CRC32;
    }
    FEATURES.store(features, Ordering::Relaxed);
}

/// Turns instructions that this machine lacks into NOPs. To be called while the text is still writable.
pub fn patch_text() {
    if !has_pan() {
        user::patch_out_pan();
    }
}

/// Random bits from the CPU, if it has an instruction for it (FEAT_RNG).
pub fn hw_random() -> Option<u64> {
    if FEATURES.load(Ordering::Relaxed) & RNG == 0 {
        return None;
    }
    for _ in 0..10 {
        let (value, ok): (u64, u64);
        // SAFETY: RNDR, which the CPU has; Z tells failure.
        unsafe { asm!("mrs {}, S3_3_C2_C4_0", "cset {}, ne", out(reg) value, out(reg) ok, options(nomem, nostack)) };
        if ok != 0 {
            return Some(value);
        }
    }
    None
}

/// Relaxes a spin loop, and ends it when another CPU has panicked: that one may hold what is waited for, and the
/// interrupt that stops CPUs is masked here.
#[inline(always)]
pub fn spin_hint() {
    core::hint::spin_loop();
    super::panic::obey();
}

/// Where the simulator may let another CPU run. Nothing here: CPUs run all the time.
#[inline(always)]
pub fn switch_point() {}
