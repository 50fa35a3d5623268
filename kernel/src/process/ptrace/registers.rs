//! The sets of registers of PTRACE_GETREGSET and PTRACE_SETREGSET (Linux's arch/arm64/kernel/ptrace.c names them).

use alloc::vec::Vec;

use zerocopy::IntoBytes;

use super::Stop;
use crate::arch::PSTATE_SS;
use crate::errno::{Errno, Result};

/// One of the sets that there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Set {
    /// struct user_pt_regs.
    General,
    /// struct user_fpsimd_state.
    Fp,
    Tls,
    /// The number of the system call that it is in.
    Call,
    /// Hardware breakpoints and watchpoints: none.
    Debug,
}

/// x0–x30, sp, pc, pstate.
const GENERAL: usize = 34;
/// With two reserved words.
const FP: usize = 528;
/// struct user_hwdebug_state: kind and number of slots, then sixteen slots.
const DEBUG: usize = 8 + 16 * 16;
/// Its first word: debug architecture of Armv8, and no slots.
const NO_SLOTS: u32 = 6 << 8;

/// Bits of PSTATE that do not exist, and the one that is the kernel's.
const RESERVED: u64 = !0xffff_ffff | 3 << 26 | 3 << 22 | 0xff << 13 | 1 << 5 | PSTATE_SS;
/// M\[4:0\] and D, A, I, F: zero for AArch64 EL0 with nothing masked.
const MODE_AND_MASKS: u64 = 0x1f | 0xf << 6;

impl Set {
    /// By NT_* of linux/elf.h.
    pub fn of(kind: u64) -> Result<Set> {
        match kind {
            1 => Ok(Set::General),
            2 => Ok(Set::Fp),
            0x401 => Ok(Set::Tls),
            0x402 | 0x403 => Ok(Set::Debug),
            0x404 => Ok(Set::Call),
            _ => Err(Errno::EINVAL),
        }
    }

    /// What a transfer is a multiple of, bytes.
    pub fn unit(self) -> u64 {
        match self {
            Set::General | Set::Tls => 8,
            Set::Fp | Set::Call | Set::Debug => 4,
        }
    }

    pub fn read(self, stop: &Stop) -> Vec<u8> {
        match self {
            Set::General => general(stop).as_bytes().to_vec(),
            Set::Fp => fp(stop),
            Set::Tls => stop.regs.tpidr.as_bytes().to_vec(),
            Set::Call => stop.call.as_bytes().to_vec(),
            Set::Debug => {
                let mut bytes = alloc::vec![0; DEBUG];
                bytes[..4].copy_from_slice(&NO_SLOTS.to_le_bytes());
                bytes
            }
        }
    }

    /// Changes the first bytes of the set. EINVAL for a PSTATE that user mode cannot have, ENOSPC for breakpoints.
    pub fn write(self, stop: &mut Stop, bytes: &[u8]) -> Result<()> {
        let mut all = self.read(stop);
        let len = bytes.len().min(all.len());
        all[..len].copy_from_slice(&bytes[..len]);
        match self {
            Set::General => {
                let mut words = [0u64; GENERAL];
                words.as_mut_bytes().copy_from_slice(&all);
                let [x @ .., sp, pc, pstate] = words;
                if pstate & !RESERVED & MODE_AND_MASKS != 0 {
                    return Err(Errno::EINVAL);
                }
                let regs = &mut stop.regs;
                (regs.x, regs.sp, regs.pc, regs.pstate) = (x, sp, pc, pstate & !RESERVED);
                if stop.stepped {
                    regs.pstate |= PSTATE_SS;
                }
            }
            Set::Fp => {
                let (v, rest) = all.split_at(512);
                stop.fp.v.as_mut_bytes().copy_from_slice(v);
                let mut words = [0u32; 4];
                words.as_mut_bytes().copy_from_slice(rest);
                (stop.fp.fpsr, stop.fp.fpcr) = (words[0], words[1]);
                stop.fp_changed = true;
            }
            Set::Tls => stop.regs.tpidr.as_mut_bytes().copy_from_slice(&all),
            Set::Call => stop.call.as_mut_bytes().copy_from_slice(&all),
            Set::Debug if len > 8 => return Err(Errno::ENOSPC),
            Set::Debug => {}
        }
        Ok(())
    }
}

fn general(stop: &Stop) -> [u64; GENERAL] {
    let regs = &stop.regs;
    let mut words = [0; GENERAL];
    words[..31].copy_from_slice(&regs.x);
    words[31..].copy_from_slice(&[regs.sp, regs.pc, regs.pstate]);
    words
}

fn fp(stop: &Stop) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(FP);
    bytes.extend_from_slice(stop.fp.v.as_bytes());
    bytes.extend_from_slice([stop.fp.fpsr, stop.fp.fpcr, 0, 0].as_bytes());
    bytes
}
