//! The stack frame of a signal handler on arm64, as Linux lays it out (arch/arm64 sigcontext.h, ucontext.h):
//!
//! ```text
//!   higher addresses
//!     frame record   x29, x30 of the interrupted code: debuggers unwind through it
//!     …              room, so that a frame is never smaller than struct rt_sigframe
//!     records        fpsimd_context, esr_context, end marker
//!     ucontext       flags, link, stack, mask, then sigcontext: fault address, x0–x30, sp, pc, pstate
//!     siginfo        ← sp when the handler runs
//! ```

use core::mem::offset_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::action::{ActionFlags, SigAction};
use super::info::{SIGINFO_SIZE, SigInfo};
use super::set::SigSet;
use super::state::{AltStack, SS_AUTODISARM};
use crate::arch::UserFault;
use crate::errno::{Errno, Result};
use crate::mm::UserPtr;
use crate::process::{Thread, fp};
use crate::time::vdso;

/// `stack_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct UserStack {
    pub sp: u64,
    pub flags: u32,
    pad: u32,
    pub size: u64,
}

impl UserStack {
    pub fn new(sp: u64, flags: u32, size: u64) -> Self {
        UserStack { sp, flags, pad: 0, size }
    }
}

/// siginfo, ucontext and the fixed part of sigcontext.
#[repr(C)]
#[derive(Clone, Copy, IntoBytes, Immutable, KnownLayout)]
struct Head {
    info: [u8; SIGINFO_SIZE],
    flags: u64,
    link: u64,
    stack: UserStack,
    mask: u64,
    /// glibc's sigset_t has 1,024 bits; then alignment of sigcontext to 16.
    unused: [u64; 16],
    fault_address: u64,
    x: [u64; 31],
    sp: u64,
    pc: u64,
    pstate: u64,
    /// The records are aligned to 16.
    pad: u64,
}

/// The parts of [`Head`] that a frame restores.
#[repr(C)]
#[derive(FromBytes)]
struct StackAndMask {
    stack: UserStack,
    mask: u64,
}

#[repr(C)]
#[derive(FromBytes)]
struct Context {
    sp: u64,
    pc: u64,
    pstate: u64,
}

/// `struct fpsimd_context`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct FpRecord {
    magic: u32,
    size: u32,
    fpsr: u32,
    fpcr: u32,
    v: [[u64; 2]; 32],
}

/// `struct esr_context`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct EsrRecord {
    magic: u32,
    size: u32,
    esr: u64,
}

/// What every record starts with; all zero ends the list.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct RecordHead {
    magic: u32,
    size: u32,
}

const FPSIMD_MAGIC: u32 = 0x4650_8001;
const ESR_MAGIC: u32 = 0x4553_5201;
/// `__reserved` of struct sigcontext.
const RECORDS_SIZE: usize = 4096;
/// sizeof(struct rt_sigframe).
const FRAME_SIZE: u64 = (size_of::<Head>() + RECORDS_SIZE) as u64;

const _: () = {
    assert!(size_of::<Head>() == 592);
    assert!(size_of::<FpRecord>() == 528);
    assert!(FRAME_SIZE == 4688);
};

/// N, Z, C, V.
const FLAGS_MASK: u64 = 0xf << 28;
/// Bits of PSTATE that a program may set through its frame: flags, DIT, SSBS, BTYPE (Arm ARM C5.2.19).
const USER_PSTATE: u64 = FLAGS_MASK | 1 << 24 | 1 << 12 | 3 << 10;
/// M\[4:0\] and D, A, I, F: zero for AArch64 EL0 with nothing masked.
const MODE_AND_MASKS: u64 = 0x1f | 0xf << 6;

/// Builds the frame and points the registers at the handler. An error leaves the registers as they were.
pub async fn push(t: &mut Thread, info: &SigInfo, action: &SigAction, alt_stack: AltStack, mask: SigSet) -> Result<()> {
    let restorer = if action.flags().contains(ActionFlags::RESTORER) {
        action.restorer
    } else {
        vdso::sigreturn_trampoline(t.mm()).ok_or(Errno::EFAULT)?
    };
    let usable = alt_stack.flags_at(t.regs.sp) & !SS_AUTODISARM == 0;
    let on_alt = action.flags().contains(ActionFlags::ONSTACK) && usable;
    let top = if on_alt { alt_stack.sp.wrapping_add(alt_stack.size) } else { t.regs.sp };
    let record = top.wrapping_sub(16) & !15;
    let sp = record.wrapping_sub(FRAME_SIZE);

    // The image is made anew for each attempt: kept over an await it would make every thread's future larger.
    while let Err(fault) = write_frame(t, info, alt_stack, mask, sp, record) {
        t.mm().fault_in(fault).await?;
    }

    let regs = &mut t.regs;
    regs.x[0] = info.signo() as u64;
    if action.flags().contains(ActionFlags::SIGINFO) {
        regs.x[1] = sp;
        regs.x[2] = sp + SIGINFO_SIZE as u64;
    }
    regs.x[29] = record;
    regs.x[30] = restorer;
    regs.sp = sp;
    regs.pc = action.handler;
    // A handler starts as if called by BLR, without single-stepping and tag-check override (Arm ARM D8.4.5, BTI).
    regs.pstate = (regs.pstate & !(3 << 10)) & !(1 << 25);
    Ok(())
}

#[inline(never)]
fn write_frame(
    t: &Thread,
    info: &SigInfo,
    alt_stack: AltStack,
    mask: SigSet,
    sp: u64,
    record: u64,
) -> Result<(), UserFault> {
    let regs = &t.regs;
    let head = Head {
        info: info.to_user(),
        flags: 0,
        link: 0,
        stack: UserStack::new(alt_stack.sp, alt_stack.flags_at(regs.sp), alt_stack.size),
        mask: mask.0,
        unused: [0; 16],
        fault_address: t.fault_address,
        x: regs.x,
        sp: regs.sp,
        pc: regs.pc,
        pstate: regs.pstate,
        pad: 0,
    };
    UserPtr::<Head>::new(sp).try_write(&head)?;
    let records = sp + size_of::<Head>() as u64;
    // From where they are: 512 bytes need not be copied twice.
    fp::with(t, |fp| {
        let head = [FPSIMD_MAGIC, size_of::<FpRecord>() as u32, fp.fpsr, fp.fpcr];
        UserPtr::<[u32; 4]>::new(records + offset_of!(FpRecord, magic) as u64).try_write(&head)?;
        UserPtr::<[u128; 32]>::new(records + offset_of!(FpRecord, v) as u64).try_write(&fp.v)
    })?;
    // The record of a fault is there only for threads that had one; else the end marker stands in its place.
    let esr = match t.fault_esr {
        0 => EsrRecord { magic: 0, size: 0, esr: 0 },
        esr => EsrRecord { magic: ESR_MAGIC, size: size_of::<EsrRecord>() as u32, esr },
    };
    UserPtr::<Tail>::new(records + size_of::<FpRecord>() as u64).try_write(&Tail { esr, end: [0; 2] })?;
    UserPtr::<[u64; 2]>::new(record).try_write(&[regs.x[29], regs.x[30]])
}

/// What comes behind the FP record.
#[repr(C)]
#[derive(IntoBytes, Immutable, KnownLayout)]
struct Tail {
    esr: EsrRecord,
    end: [u64; 2],
}

/// What a frame restores.
pub struct Restored {
    pub mask: SigSet,
    pub stack: UserStack,
}

/// Takes the registers back from the frame at the stack pointer. On an error the frame is bad, and the thread's
/// registers are as they were.
pub async fn pop(t: &mut Thread) -> Result<Restored> {
    if t.regs.sp & 15 != 0 {
        return Err(Errno::EFAULT);
    }
    loop {
        match read_frame(t) {
            Ok(restored) => return Ok(restored),
            Err(Bad::Absent(fault)) => t.mm().fault_in(fault).await?,
            Err(Bad::Frame) => return Err(Errno::EINVAL),
        }
    }
}

/// The same if all of the frame is there. None: it is not, or is bad.
pub fn try_pop(t: &mut Thread) -> Option<Restored> {
    let number = t.regs.x[8];
    if t.regs.sp & 15 != 0 {
        return None;
    }
    // What goes away while it is read may have left some of it in the registers; the call is made again.
    read_frame(t).inspect_err(|_| t.regs.x[8] = number).ok()
}

/// Why a frame could not be taken.
enum Bad {
    Absent(UserFault),
    Frame,
}

impl From<UserFault> for Bad {
    fn from(fault: UserFault) -> Self {
        Bad::Absent(fault)
    }
}

#[inline(never)]
fn read_frame(t: &mut Thread) -> Result<Restored, Bad> {
    // The stack pointer may be anything: what wraps around is no user address, or a bad frame.
    let at = |offset: usize| t.regs.sp.wrapping_add(offset as u64);
    let mask = UserPtr::<StackAndMask>::new(at(offset_of!(Head, stack))).try_read()?;
    let context = UserPtr::<Context>::new(at(offset_of!(Head, sp))).try_read()?;
    let record = find_fp_record(at(size_of::<Head>()))?;
    // A mode other than EL0 could only come from a forged frame.
    if context.pstate & MODE_AND_MASKS != 0 {
        return Err(Bad::Frame);
    }
    read_fp_record(t, record)?;
    // What is around them is there, so they are too, and can be read to where they stay.
    UserPtr::<u8>::new(at(offset_of!(Head, x))).try_read_bytes(t.regs.x.as_mut_bytes())?;
    let regs = &mut t.regs;
    regs.sp = context.sp;
    regs.pc = context.pc;
    regs.pstate = context.pstate & USER_PSTATE;
    Ok(Restored { mask: SigSet(mask.mask).blockable(), stack: mask.stack })
}

/// What is there at both ends is there in between, so that the registers are read to where they
/// stay.
fn read_fp_record(t: &Thread, record: u64) -> Result<(), UserFault> {
    let [_, _, fpsr, fpcr] = UserPtr::<[u32; 4]>::new(record).try_read()?;
    let v = record.wrapping_add(offset_of!(FpRecord, v) as u64);
    UserPtr::<u64>::new(v.wrapping_add((size_of::<[u128; 32]>() - 8) as u64)).try_read()?;
    fp::replace(t, |regs| {
        (regs.fpsr, regs.fpcr) = (fpsr, fpcr);
        UserPtr::<u8>::new(v).try_read_bytes(regs.v.as_mut_bytes())
    })
}

/// Walks the records up to the end marker. The FP record must be there exactly once; unknown ones are refused, as
/// Linux does.
fn find_fp_record(base: u64) -> Result<u64, Bad> {
    let mut found = None;
    let mut offset = 0;
    while offset + size_of::<RecordHead>() <= RECORDS_SIZE {
        let at = base.wrapping_add(offset as u64);
        let head = UserPtr::<RecordHead>::new(at).try_read()?;
        let size = head.size as usize;
        match head.magic {
            0 => return found.filter(|_| size == 0).ok_or(Bad::Frame),
            _ if size < size_of::<RecordHead>() || size > RECORDS_SIZE - offset || !size.is_multiple_of(16) => {
                return Err(Bad::Frame);
            }
            FPSIMD_MAGIC if size == size_of::<FpRecord>() && found.is_none() => found = Some(at),
            ESR_MAGIC => {}
            _ => return Err(Bad::Frame),
        }
        offset += size;
    }
    Err(Bad::Frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_those_of_the_c_structures() {
        assert_eq!(offset_of!(Head, flags), 128);
        assert_eq!(offset_of!(Head, stack), 144);
        assert_eq!(offset_of!(Head, mask), 168);
        assert_eq!(offset_of!(Head, fault_address), 304);
        assert_eq!(offset_of!(Head, sp), 304 + 256);
        assert_eq!(offset_of!(Head, pstate), 304 + 272);
        assert_eq!(offset_of!(FpRecord, v), 16);
        assert_eq!(offset_of!(Head, mask) - offset_of!(Head, stack), offset_of!(StackAndMask, mask));
        assert_eq!(offset_of!(Head, pstate) - offset_of!(Head, sp), offset_of!(Context, pstate));
    }
}
