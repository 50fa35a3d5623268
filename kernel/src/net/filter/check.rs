//! Which programs are taken: what bpf_check_classic of Linux takes.

use alloc::vec::Vec;

use super::{Instruction, MOST};
use crate::errno::{Errno, Result};

/// Classes.
pub const LD: u16 = 0;
pub const LDX: u16 = 1;
pub const ST: u16 = 2;
pub const STX: u16 = 3;
pub const ALU: u16 = 4;
pub const JMP: u16 = 5;
pub const RET: u16 = 6;
pub const MISC: u16 = 7;
/// Sizes of what is loaded.
pub const W: u16 = 0;
pub const H: u16 = 8;
pub const B: u16 = 0x10;
/// Where it is.
pub const IMM: u16 = 0;
pub const ABS: u16 = 0x20;
pub const IND: u16 = 0x40;
pub const MEM: u16 = 0x60;
pub const LEN: u16 = 0x80;
pub const MSH: u16 = 0xa0;
/// The other operand is the index register, not the constant.
pub const X: u16 = 8;
/// What RET answers besides the constant.
pub const A: u16 = 0x10;
pub const ADD: u16 = 0;
pub const SUB: u16 = 0x10;
pub const MUL: u16 = 0x20;
pub const DIV: u16 = 0x30;
pub const OR: u16 = 0x40;
pub const AND: u16 = 0x50;
pub const LSH: u16 = 0x60;
pub const RSH: u16 = 0x70;
pub const NEG: u16 = 0x80;
pub const MOD: u16 = 0x90;
pub const XOR: u16 = 0xa0;
pub const JA: u16 = 0;
pub const JEQ: u16 = 0x10;
pub const JGT: u16 = 0x20;
pub const JGE: u16 = 0x30;
pub const JSET: u16 = 0x40;
/// A becomes X; without this bit X becomes A.
pub const TXA: u16 = 0x80;

/// The words that a program can store to.
pub const WORDS: usize = 16;
/// From here on a place stands for something else than bytes of the packet (SKF_AD_OFF).
pub const ELSEWHERE: u32 = -0x1000i32 as u32;
/// SKF_AD_* of Linux, as distances from there.
pub const PROTOCOL: u32 = 0;
pub const PACKET_TYPE: u32 = 4;
pub const INTERFACE: u32 = 8;
pub const ATTRIBUTE: u32 = 12;
pub const NESTED: u32 = 16;
pub const MARK: u32 = 20;
pub const QUEUE: u32 = 24;
pub const HARDWARE: u32 = 28;
pub const HASH: u32 = 32;
pub const CPU: u32 = 36;
pub const XOR_X: u32 = 40;
pub const VLAN: u32 = 44;
pub const HAS_VLAN: u32 = 48;
pub const RANDOM: u32 = 56;
pub const VLAN_KIND: u32 = 60;
/// All of them; not SKF_AD_PAY_OFFSET (52), which would have to take the packet apart.
const KNOWN: [u32; 15] = [
    PROTOCOL,
    PACKET_TYPE,
    INTERFACE,
    ATTRIBUTE,
    NESTED,
    MARK,
    QUEUE,
    HARDWARE,
    HASH,
    CPU,
    XOR_X,
    VLAN,
    HAS_VLAN,
    RANDOM,
    VLAN_KIND,
];

fn class(code: u16) -> u16 {
    code & 7
}

fn is_known(code: u16) -> bool {
    let (size, mode, operation) = (code & 0x18, code & 0xe0, code & 0xf0);
    if code > 0xff {
        return false;
    }
    match class(code) {
        LD => matches!((mode, size), (ABS | IND, W | H | B) | (IMM | MEM | LEN, W)),
        LDX => matches!((mode, size), (IMM | MEM | LEN, W) | (MSH, B)),
        ST | STX => code == class(code),
        ALU => operation <= XOR && (operation != NEG || code == ALU | NEG),
        JMP => matches!(operation, JEQ | JGT | JGE | JSET) || code == JMP | JA,
        RET => code == RET || code == RET | A,
        _ => code == MISC || code == MISC | TXA,
    }
}

/// Whether all of it is known, stays in its bounds and ends.
pub fn check(code: &[Instruction]) -> Result<()> {
    let last = code.last().filter(|_| code.len() <= MOST).ok_or(Errno::EINVAL)?;
    let fine = code.iter().enumerate().all(|(at, one)| is_fine(one, code.len() - at - 1));
    if !fine || class(last.code) != RET {
        return Err(Errno::EINVAL);
    }
    check_words(code)
}

/// An instruction with so many behind it.
fn is_fine(one: &Instruction, behind: usize) -> bool {
    let Instruction { code, jt, jf, k } = *one;
    if !is_known(code) {
        return false;
    }
    let (operation, mode) = (code & 0xf0, code & 0xe0);
    match class(code) {
        ALU if code & X == 0 => match operation {
            DIV | MOD => k != 0,
            LSH | RSH => k < 32,
            _ => true,
        },
        LD | LDX if mode == MEM => (k as usize) < WORDS,
        ST | STX => (k as usize) < WORDS,
        LD if mode == ABS => k < ELSEWHERE || KNOWN.contains(&(k - ELSEWHERE)),
        JMP if operation == JA => (k as usize) < behind,
        JMP => usize::from(jt.max(jf)) < behind,
        _ => true,
    }
}

/// No word is read that has not been written on every way there (check_load_and_stores of Linux).
fn check_words(code: &[Instruction]) -> Result<()> {
    // For each instruction what all jumps to it have written.
    let mut there = Vec::new();
    there.try_reserve_exact(code.len()).map_err(|_| Errno::ENOMEM)?;
    there.resize(code.len(), u16::MAX);
    let mut written = 0;
    for (at, one) in code.iter().enumerate() {
        written &= there.get(at).copied().unwrap_or(0);
        let word = 1u16.checked_shl(one.k).unwrap_or(0);
        let mut jump = |distance: usize| {
            if let Some(there) = there.get_mut(at + 1 + distance) {
                *there &= written;
            }
        };
        match (class(one.code), one.code & 0xf0) {
            (ST | STX, _) => written |= word,
            (LD | LDX, MEM) if written & word == 0 => return Err(Errno::EINVAL),
            (JMP, JA) => {
                jump(one.k as usize);
                written = u16::MAX;
            }
            (JMP, _) => {
                jump(one.jt.into());
                jump(one.jf.into());
                written = u16::MAX;
            }
            _ => {}
        }
    }
    Ok(())
}
