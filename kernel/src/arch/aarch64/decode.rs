//! Exceptions of user code as signals, the way Linux on arm64 reports them
//! (signal(7), sigaction(2); syndromes: Arm ARM D24.2.40, ESR_EL1).

use super::emulate;
use crate::arch::{Access, PSTATE_SS, Trap, UserRegs};
use linux_raw_sys::general::{SIGBUS, SIGFPE, SIGILL, SIGKILL, SIGTRAP};

// si_code values: asm-generic/siginfo.h.
const SI_KERNEL: i32 = 0x80;
const ILL_ILLOPC: i32 = 1;
const ILL_ILLOPN: i32 = 2;
const BUS_ADRALN: i32 = 1;
const BUS_OBJERR: i32 = 3;
const TRAP_BRKPT: i32 = 1;
const TRAP_TRACE: i32 = 2;
const TRAP_HWBKPT: i32 = 4;
const FPE_FLTDIV: i32 = 3;
const FPE_FLTOVF: i32 = 4;
const FPE_FLTUND: i32 = 5;
const FPE_FLTRES: i32 = 6;
const FPE_FLTINV: i32 = 7;
const FPE_FLTUNK: i32 = 14;

/// What a synchronous exception other than SVC means; none if it was dealt with and user code goes on.
pub fn user_exception(regs: &mut UserRegs, esr: u64, far: u64) -> Option<Trap> {
    let signal = |signal: u32, code: i32, addr: u64| Some(Trap::Exception { signal: signal as u8, code, addr, esr });
    let pc = regs.pc;
    match esr >> 26 & 63 {
        // Unknown reason: undefined, or a register that EL0 may not read but Linux lets it see.
        0x00 if emulate::undefined(regs) => None,
        // WFI, or WFE; both may return at once.
        0x01 => {
            regs.pc += 4;
            None
        }
        0x07 => Some(Trap::FpAccess),
        0x18 if emulate::system_register(regs, esr) => None,
        0x1c => signal(SIGILL, ILL_ILLOPN, pc),
        0x20 => abort(esr, untagged(far), Access::Execute),
        0x22 => signal(SIGBUS, BUS_ADRALN, far),
        0x24 => {
            // WnR is also set for cache maintenance, which writes nothing.
            let write = esr & 1 << 6 != 0 && esr & 1 << 8 == 0;
            abort(esr, untagged(far), if write { Access::Write } else { Access::Read })
        }
        0x26 => signal(SIGBUS, BUS_ADRALN, regs.sp),
        0x2c => signal(SIGFPE, fp_code(esr), pc),
        0x30 => signal(SIGTRAP, TRAP_HWBKPT, pc),
        0x32 => {
            // For the next step.
            regs.pstate |= PSTATE_SS;
            signal(SIGTRAP, TRAP_TRACE, pc)
        }
        0x34 => signal(SIGTRAP, TRAP_HWBKPT, untagged(far)),
        0x3c => signal(SIGTRAP, TRAP_BRKPT, pc),
        _ => signal(SIGILL, ILL_ILLOPC, pc),
    }
}

/// An instruction that was emulated while user mode is single-stepped: that was the step.
pub fn emulated_step(regs: &mut UserRegs, esr: u64) -> Trap {
    regs.pstate |= PSTATE_SS;
    Trap::Exception { signal: SIGTRAP as u8, code: TRAP_TRACE, addr: regs.pc, esr }
}

fn abort(esr: u64, addr: u64, access: Access) -> Option<Trap> {
    let signal = |signal: u32, code: i32| Some(Trap::Exception { signal: signal as u8, code, addr, esr });
    match esr & 0x3f {
        // Translation, access flag, permission; four levels each.
        0x04..=0x0f => Some(Trap::PageFault { addr, access, esr }),
        // External abort, parity or ECC, unsupported exclusive or atomic.
        0x10 | 0x18 | 0x35 => signal(SIGBUS, BUS_OBJERR),
        0x21 => signal(SIGBUS, BUS_ADRALN),
        _ => signal(SIGKILL, SI_KERNEL),
    }
}

/// A fault address without the tag that user code may keep in the top byte (TCR_EL1.TBI0).
fn untagged(far: u64) -> u64 {
    if far & 1 << 55 == 0 { far & 0x00ff_ffff_ffff_ffff } else { far }
}

fn fp_code(esr: u64) -> i32 {
    const TRAPPED_FAULT_VALID: u64 = 1 << 23;
    match esr {
        _ if esr & TRAPPED_FAULT_VALID == 0 => FPE_FLTUNK,
        _ if esr & 1 != 0 => FPE_FLTINV,
        _ if esr & 2 != 0 => FPE_FLTDIV,
        _ if esr & 4 != 0 => FPE_FLTOVF,
        _ if esr & 8 != 0 => FPE_FLTUND,
        _ if esr & 16 != 0 => FPE_FLTRES,
        _ => FPE_FLTUNK,
    }
}
