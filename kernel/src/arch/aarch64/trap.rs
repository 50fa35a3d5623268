//! Entering user mode, and what comes back: [`enter_user`] returns at the next trap.

use super::layout::{STACK_SIZE, STACK_SLOT, STACKS};
use super::{debug, decode, irq, panic, user};
use crate::arch::{Trap, UserRegs};
use aarch64_cpu::registers::{FAR_EL1, Readable, VBAR_EL1, Writeable};
use core::arch::global_asm;

/// Registers of the kernel at an exception of its own.
#[repr(C)]
pub struct KernelFrame {
    pub x: [u64; 31],
    pub sp: u64,
    pub pc: u64,
    pub pstate: u64,
    pub esr: u64,
    pub far: u64,
}

global_asm!(
    include_str!("vectors.s"),
    EL1_FRAME = const size_of::<KernelFrame>(),
    STACK_BIT = const STACK_SIZE.trailing_zeros(),
    from_kernel = sym from_kernel,
);

/// What `vectors.s` answers, in x0 and x1.
#[repr(C)]
struct Exit {
    kind: u64,
    esr: u64,
}

const KIND_SYNC: u64 = 0;
const KIND_IRQ: u64 = 1;
const KIND_FIQ: u64 = 2;
const KIND_OVERFLOW: u64 = 8;
const EC_SVC: u64 = 0x15;
const EC_DATA_ABORT_SAME: u64 = 0x25;

unsafe extern "C" {
    static exception_vectors: u8;
    fn enter_user_raw(regs: *mut UserRegs) -> Exit;
}

pub fn install_vectors() {
    VBAR_EL1.set(&raw const exception_vectors as u64);
}

/// Runs user code until the next trap. The address space and FP state must have been made current before.
#[inline]
pub fn enter_user(regs: &mut UserRegs) -> Trap {
    // SAFETY: whatever the registers hold, user mode cannot touch the kernel; the frame is undone on return.
    let exit = unsafe { enter_user_raw(regs) };
    if exit.kind == KIND_SYNC && exit.esr >> 26 == EC_SVC {
        return Trap::Syscall;
    }
    not_a_syscall(regs, exit)
}

#[cold]
#[inline(never)]
fn not_a_syscall(regs: &mut UserRegs, mut exit: Exit) -> Trap {
    let stepped = debug::end_single_step();
    loop {
        match exit.kind {
            KIND_IRQ | KIND_FIQ => {
                irq::service_pending();
                return Trap::Interrupt;
            }
            KIND_SYNC if exit.esr >> 26 & 63 == EC_SVC => return Trap::Syscall,
            KIND_SYNC => {
                if let Some(trap) = decode::user_exception(regs, exit.esr, FAR_EL1.get()) {
                    return trap;
                }
                if stepped {
                    return decode::emulated_step(regs, exit.esr);
                }
            }
            _ => panic!("SError in user mode at {:#x}, ESR {:#x}", regs.pc, exit.esr),
        }
        // SAFETY: as in `enter_user`.
        exit = unsafe { enter_user_raw(regs) };
    }
}

/// An exception of the kernel itself: either a user-memory access with a fix-up, or the end.
extern "C" fn from_kernel(frame: &mut KernelFrame, kind: u64) {
    if kind == KIND_SYNC && frame.esr >> 26 & 63 == EC_DATA_ABORT_SAME && user::covers(frame.pc) {
        // Any fault but an external abort: translation, access flag, permission, alignment.
        if !matches!(frame.esr & 0x3f, 0x10 | 0x14..=0x17) {
            frame.x[16] = frame.far;
            frame.pc = frame.x[17];
            return;
        }
    }
    panic::kernel_exception(frame, describe(frame, kind))
}

fn describe(frame: &KernelFrame, kind: u64) -> &'static str {
    let in_guard = |address: u64| (STACKS..STACKS + 512 * STACK_SLOT).contains(&address) && address & STACK_SIZE == 0;
    match kind {
        KIND_OVERFLOW if in_guard(frame.far) || in_guard(frame.sp) => "kernel stack overflow",
        KIND_SYNC | KIND_OVERFLOW => match frame.esr >> 26 & 63 {
            0x00 => "undefined instruction in the kernel",
            0x21 => "kernel jumped to a bad address",
            0x25 if frame.far >> 48 == 0 => "kernel touched user memory outside the access routines",
            0x25 => "kernel touched a bad address",
            0x3c => "breakpoint in the kernel",
            _ => "unexpected exception in the kernel",
        },
        KIND_IRQ | KIND_FIQ => "interrupt although masked",
        _ => "SError in the kernel",
    }
}
