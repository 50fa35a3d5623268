//! Single-stepping user mode (Arm ARM D2.12, "Software Step exceptions").
//!
//! With MDSCR_EL1.SS set and PSTATE.SS set on the way to user mode one instruction is executed, and then an exception taken. PSTATE.SS
//! is cleared by the instruction and comes back with the other flags, so what ends user mode before it (a page fault, an
//! interrupt) does not count as the step. MDSCR_EL1.SS belongs to the CPU: it is set right before user mode is entered and
//! cleared before anybody else enters it.

use core::arch::asm;

const SS: u64 = 1;

fn control() -> u64 {
    let value: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, mdscr_el1", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

/// From the next entry of user mode on, which synchronises the context.
pub fn single_step(on: bool) {
    let value = if on { control() | SS } else { control() & !SS };
    // SAFETY: concerns user mode only: debug exceptions from EL1 stay off (MDSCR_EL1.KDE).
    unsafe { asm!("msr mdscr_el1, {}", in(reg) value, options(nomem, nostack, preserves_flags)) };
}

/// Ends single-stepping on this CPU; was it on?
pub(super) fn end_single_step() -> bool {
    let on = control() & SS != 0;
    if on {
        single_step(false);
    }
    on
}
