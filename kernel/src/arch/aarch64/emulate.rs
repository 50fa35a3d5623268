//! System registers that user code reads although EL0 may not: Linux answers for the identification registers
//! (HWCAP_CPUID, Documentation/arch/arm64/cpu-feature-registers.rst). And the hardware capabilities themselves.

use super::user;
use crate::arch::UserRegs;
use aarch64_cpu::registers::*;
use core::arch::asm;

macro_rules! read {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: an identification register, readable at EL1; without side effects.
        unsafe { core::arch::asm!(concat!("mrs {}, ", $register), out(reg) value, options(pure, nomem, nostack, preserves_flags)) };
        value
    }};
}

/// An instruction that is undefined at EL0. True if it was an MRS that was carried out.
#[cold]
#[inline(never)]
pub fn undefined(regs: &mut UserRegs) -> bool {
    let Ok(instruction) = user::load_u32(regs.pc) else { return false };
    // MRS with op0 = 3.
    if instruction >> 20 != 0xd53 {
        return false;
    }
    let field = |shift: u32, bits: u32| (instruction >> shift) as u64 & ((1 << bits) - 1);
    answer(regs, [3, field(16, 3), field(12, 4), field(8, 4), field(5, 3)], field(0, 5))
}

/// A trapped access to a system register, as the syndrome describes it.
#[cold]
#[inline(never)]
pub fn system_register(regs: &mut UserRegs, esr: u64) -> bool {
    let field = |shift: u32, bits: u32| esr >> shift & ((1 << bits) - 1);
    let is_read = esr & 1 != 0;
    is_read && answer(regs, [field(20, 2), field(14, 3), field(10, 4), field(1, 4), field(17, 3)], field(5, 5))
}

fn answer(regs: &mut UserRegs, register: [u64; 5], target: u64) -> bool {
    let Some(value) = visible(register) else { return false };
    // x31 is the zero register.
    if let Some(slot) = regs.x.get_mut(target as usize) {
        *slot = value;
    }
    regs.pc += 4;
    true
}

/// The value of op0, op1, CRn, CRm, op2 that user code may see.
fn visible(register: [u64; 5]) -> Option<u64> {
    match register {
        [3, 0, 0, 0, 0] => Some(MIDR_EL1.get()),
        // MPIDR as on a uniprocessor, REVIDR.
        [3, 0, 0, 0, 5] => Some(1 << 31),
        [3, 0, 0, 0, 6] => Some(read!("revidr_el1")),
        [3, 0, 0, 4, 0] => Some(pfr0()),
        [3, 0, 0, 6, 0] => Some(isar0()),
        [3, 0, 0, 6, 1] => Some(isar1()),
        // Every other identification register reads as zero.
        [3, 0, 0, 2..=7, _] => Some(0),
        [3, 3, 0, 0, 1] => Some(read!("ctr_el0")),
        _ => None,
    }
}

/// FP, AdvSIMD, DIT.
fn pfr0() -> u64 {
    ID_AA64PFR0_EL1.get() & (0xff << 16 | 0xf << 48)
}

/// All but the TLB maintenance and transactional fields.
fn isar0() -> u64 {
    ID_AA64ISAR0_EL1.get() & !(0xf << 56 | 0xf << 24 | 0xf)
}

/// DPB, JSCVT, FCMA, LRCPC, FRINTTS, SB, BF16, DGH, I8MM; not pointer authentication, which is off.
fn isar1() -> u64 {
    ID_AA64ISAR1_EL1.get() & (0xf | 0xfff << 12 | 0xff << 32 | 0xfff << 44)
}

/// AT_HWCAP and AT_HWCAP2 (asm/hwcap.h): what the CPU has and this kernel lets programs use.
pub fn hwcaps() -> (u64, u64) {
    let mut caps = [0u64; 2];
    let mut set = |register: u64, shift: u32, least: u64, word: usize, bit: u32| {
        if register >> shift & 15 >= least {
            caps[word] |= 1 << bit;
        }
    };
    let (pfr0, isar0, isar1) = (ID_AA64PFR0_EL1.get(), isar0(), isar1());
    // The FP fields are signed: 15 means absent.
    for (shift, base, half) in [(16, 0, 9), (20, 1, 10)] {
        if pfr0 >> shift & 15 != 15 {
            set(1, 0, 1, 0, base);
            set(pfr0, shift, 1, 0, half);
        }
    }
    let isar0_caps: [(u32, u64, u32); 15] = [
        (4, 1, 3),
        (4, 2, 4),
        (8, 1, 5),
        (12, 1, 6),
        (12, 2, 21),
        (16, 1, 7),
        (20, 2, 8),
        (28, 1, 12),
        (32, 1, 17),
        (36, 1, 18),
        (40, 1, 19),
        (44, 1, 20),
        (48, 1, 23),
        (52, 1, 27),
        (60, 1, 48),
    ];
    for (shift, least, bit) in isar0_caps {
        // HWCAP2_RNG is bit 16 of the second word.
        if bit == 48 { set(isar0, shift, least, 1, 16) } else { set(isar0, shift, least, 0, bit) }
    }
    set(isar0, 52, 2, 1, 7);
    let isar1_caps = [(0, 1, 0, 16), (0, 2, 1, 0), (12, 1, 0, 13), (16, 1, 0, 14), (20, 1, 0, 15), (20, 2, 0, 26)];
    for (shift, least, word, bit) in isar1_caps {
        set(isar1, shift, least, word, bit);
    }
    for (shift, word, bit) in [(32, 1, 8), (36, 0, 29), (44, 1, 14), (48, 1, 15), (52, 1, 13)] {
        set(isar1, shift, 1, word, bit);
    }
    set(pfr0, 48, 1, 0, 24);
    // CPUID: reads of identification registers are emulated. EVTSTRM is not set: there is no event stream.
    caps[0] |= 1 << 11;
    (caps[0], caps[1])
}

/// MIDR_EL1, for /proc/cpuinfo.
pub fn midr() -> u64 {
    MIDR_EL1.get()
}

/// Bytes that DC ZVA clears; 0 if it is prohibited.
pub fn zva_size() -> usize {
    let dczid: u64;
    // SAFETY: a register read.
    unsafe { asm!("mrs {}, dczid_el0", out(reg) dczid, options(nomem, nostack, preserves_flags)) };
    if dczid & 16 != 0 { 0 } else { 4 << (dczid & 15) }
}
