//! FP/SIMD registers. The kernel is compiled without them; it moves them here and, put back at once, in bulk copies.

use crate::arch::FpRegs;
use aarch64_cpu::registers::{CPACR_EL1, Writeable};
use core::arch::global_asm;

global_asm!(
    ".arch_extension fp",
    ".arch_extension simd",
    ".section .text.fp, \"ax\"",
    ".global fp_save",
    "fp_save:",
    "stp q0, q1, [x0, #0]",
    "stp q2, q3, [x0, #32]",
    "stp q4, q5, [x0, #64]",
    "stp q6, q7, [x0, #96]",
    "stp q8, q9, [x0, #128]",
    "stp q10, q11, [x0, #160]",
    "stp q12, q13, [x0, #192]",
    "stp q14, q15, [x0, #224]",
    "stp q16, q17, [x0, #256]",
    "stp q18, q19, [x0, #288]",
    "stp q20, q21, [x0, #320]",
    "stp q22, q23, [x0, #352]",
    "stp q24, q25, [x0, #384]",
    "stp q26, q27, [x0, #416]",
    "stp q28, q29, [x0, #448]",
    "stp q30, q31, [x0, #480]",
    "mrs x1, fpsr",
    "mrs x2, fpcr",
    "add x0, x0, #512",
    "stp w1, w2, [x0]",
    "ret",
    ".global fp_restore",
    "fp_restore:",
    "ldp q0, q1, [x0, #0]",
    "ldp q2, q3, [x0, #32]",
    "ldp q4, q5, [x0, #64]",
    "ldp q6, q7, [x0, #96]",
    "ldp q8, q9, [x0, #128]",
    "ldp q10, q11, [x0, #160]",
    "ldp q12, q13, [x0, #192]",
    "ldp q14, q15, [x0, #224]",
    "ldp q16, q17, [x0, #256]",
    "ldp q18, q19, [x0, #288]",
    "ldp q20, q21, [x0, #320]",
    "ldp q22, q23, [x0, #352]",
    "ldp q24, q25, [x0, #384]",
    "ldp q26, q27, [x0, #416]",
    "ldp q28, q29, [x0, #448]",
    "ldp q30, q31, [x0, #480]",
    "add x0, x0, #512",
    "ldp w1, w2, [x0]",
    "msr fpsr, x1",
    "msr fpcr, x2",
    "ret",
);

const _: () = assert!(core::mem::offset_of!(FpRegs, fpsr) == 512 && core::mem::offset_of!(FpRegs, fpcr) == 516);

unsafe extern "C" {
    fn fp_save(to: *mut FpRegs);
    fn fp_restore(from: *const FpRegs);
}

/// User code can be kept from using FP and SIMD instructions, and says when it does.
pub const CAN_TRAP: bool = true;

/// Allows user code on this CPU FP and SIMD instructions, or lets them trap, from the next entry of user mode on (which
/// synchronises the context). The kernel's own always work.
#[inline]
pub fn set_access(allowed: bool) {
    CPACR_EL1.write(if allowed { CPACR_EL1::FPEN::TrapNothing } else { CPACR_EL1::FPEN::TrapEl0 });
}

/// Stores the CPU's FP/SIMD registers.
#[inline]
pub fn save(to: &mut FpRegs) {
    // SAFETY: the layout is checked above.
    unsafe { fp_save(to) }
}

/// Loads the CPU's FP/SIMD registers.
#[inline]
pub fn restore(from: &FpRegs) {
    // SAFETY: see `save`. Reserved bits of FPCR and FPSR read as zero whatever is written.
    unsafe { fp_restore(from) }
}
