use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use super::check::{self, *};
use super::run::{View, run};
use super::*;

fn one(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

const DONE: Instruction = Instruction { code: RET | A, jt: 0, jf: 0, k: 0 };

fn view(bytes: &[u8]) -> View<'_> {
    View { bytes, network: 2, start: 1, protocol: 0x800, kind: 3, index: 2, hardware: 1 }
}

fn answer(code: &[Instruction], bytes: &[u8]) -> u32 {
    assert_eq!(check::check(code), Ok(()), "{code:?}");
    run(code, &view(bytes))
}

#[test]
fn what_is_loaded_is_big_endian_and_in_the_packet() {
    let bytes = [9, 1, 2, 3, 4, 5];
    for (code, k, wanted) in [
        (LD | W | ABS, 0, 0x0102_0304),
        (LD | W | ABS, 2, 0),
        (LD | H | ABS, 3, 0x0405),
        (LD | H | ABS, 4, 0),
        (LD | B | ABS, 4, 5),
        (LD | B | ABS, 5, 0),
        (LD | W | LEN, 0, 5),
        (LD | IMM, 77, 77),
        (LD | B | ABS, -0x10_0000i32 as u32, 2),
        (LD | B | ABS, -0x20_0000i32 as u32, 9),
        (LD | B | ABS, -0x10_0000i32 as u32 + 4, 0),
        (LD | W | ABS, ELSEWHERE + PROTOCOL, 0x800),
        (LD | B | ABS, ELSEWHERE + PACKET_TYPE, 3),
        (LD | W | ABS, ELSEWHERE + INTERFACE, 2),
        (LD | W | ABS, ELSEWHERE + HARDWARE, 1),
        (LD | B | IND, u32::MAX, 0),
        (LD | B | IND, 1, 2),
    ] {
        assert_eq!(answer(&[one(code, k), DONE], &bytes), wanted, "{code:#x} {k:#x}");
    }
    let code = [one(LDX | B | MSH, 3), one(MISC | TXA, 0), DONE];
    assert_eq!(answer(&code, &[0, 0, 0, 0, 0x45]), 20);
    assert_eq!(answer(&code, &[0, 0, 0, 0]), 0);
}

#[test]
fn numbers_have_32_bits() {
    let of = |operation, a, k| answer(&[one(LD | IMM, a), one(ALU | operation, k), DONE], &[]);
    assert_eq!(of(ADD, u32::MAX, 2), 1);
    assert_eq!(of(SUB, 1, 2), u32::MAX);
    assert_eq!(of(MUL, 1 << 31, 3), 1 << 31);
    assert_eq!(of(DIV, 7, 2), 3);
    assert_eq!(of(MOD, 7, 4), 3);
    assert_eq!(of(XOR, 6, 3), 5);
    assert_eq!(of(LSH, 1, 31), 1 << 31);
    assert_eq!(of(RSH, 1 << 31, 31), 1);
    assert_eq!(of(NEG, 1, 0), u32::MAX);
    let by_x = |operation| {
        let code = [one(LD | IMM, 8), one(LDX | IMM, 0), one(ALU | operation | X, 0), one(RET, 9)];
        answer(&code, &[])
    };
    assert_eq!((by_x(DIV), by_x(MOD), by_x(LSH)), (0, 0, 9));
}

#[test]
fn jumps_lead_where_the_comparison_says() {
    let code = |operation| [one(LD | B | ABS, 0), jump(JMP | operation, 5, 0, 1), one(RET, 1), one(RET, 2)];
    for (operation, wanted) in [(JEQ, [2, 1, 2]), (JGT, [2, 2, 1]), (JGE, [2, 1, 1]), (JSET, [1, 1, 2])] {
        assert_eq!([4, 5, 10].map(|byte| answer(&code(operation), &[0, byte])), wanted, "{operation:#x}");
    }
}

fn refused(code: Vec<Instruction>) -> bool {
    Filter::new(Box::from(code)).is_err()
}

#[test]
fn what_could_go_wrong_is_refused() {
    assert!(refused(vec![]));
    assert!(refused(vec![one(RET, 1); MOST + 1]));
    assert!(!refused(vec![one(RET, 1); MOST]));
    assert!(refused(vec![one(LD | IMM, 1)]));
    let with = |first| refused(vec![first, DONE]);
    for code in [0x08, 0x10, 0x61 | B, 0xa0, 0xa1, 0xe0, 0x0d, 0x8c, 0x0e, 0x17, 0xb4, 0x55, 0x100, 0xffff] {
        assert!(with(one(code, 0)), "{code:#x}");
    }
    for bad in [(ALU | DIV, 0), (ALU | MOD, 0), (ALU | LSH, 32), (ALU | RSH, 32), (ST, 16), (STX, 16), (LD | MEM, 16)] {
        assert!(with(one(bad.0, bad.1)), "{bad:?}");
    }
    assert!(with(one(JMP | JA, 1)) && !with(one(JMP | JA, 0)) && with(one(JMP | JA, u32::MAX)));
    assert!(with(jump(JMP | JEQ, 0, 1, 0)) && with(jump(JMP | JEQ, 0, 0, 1)));
    assert!(with(one(LD | W | ABS, ELSEWHERE + 52)) && with(one(LD | W | ABS, ELSEWHERE + 1)));
    assert!(!with(one(LD | W | ABS, ELSEWHERE + RANDOM)));
}

#[test]
fn words_are_written_before_they_are_read() {
    assert!(refused(vec![one(LD | MEM, 3), DONE]));
    assert_eq!(answer(&[one(LD | IMM, 5), one(ST, 3), one(LD | IMM, 0), one(LD | MEM, 3), DONE], &[]), 5);
    // On one of two ways only.
    let half = [jump(JMP | JEQ, 0, 0, 1), one(ST, 3), one(LD | MEM, 3), DONE];
    assert!(refused(half.to_vec()));
    let both = [jump(JMP | JEQ, 0, 0, 2), one(ST, 3), one(JMP | JA, 1), one(ST, 3), one(LD | MEM, 3), DONE];
    assert!(!refused(both.to_vec()));
}

#[test]
fn attributes_are_found_by_their_types() {
    // From byte 1 on: one of type 1, and one of type 2 with one of type 3 in it.
    let mut bytes = vec![0];
    for half in [6u16, 1, 0xffff, 0, 12, 2, 8, 3, 7, 7] {
        bytes.extend(half.to_ne_bytes());
    }
    let find = |kind, from, how| {
        let code = [one(LDX | IMM, kind), one(LD | IMM, from), one(LD | W | ABS, ELSEWHERE + how), DONE];
        answer(&code, &bytes)
    };
    assert_eq!((find(2, 0, ATTRIBUTE), find(3, 0, ATTRIBUTE), find(3, 8, NESTED)), (8, 0, 12));
    assert_eq!((find(2, u32::MAX, ATTRIBUTE), find(2, u32::MAX, NESTED), find(2, 8, NESTED)), (0, 0, 0));
}

/// What a run costs does not grow with the length of the packet for each of its instructions.
#[test]
fn only_so_many_attributes_are_looked_at() {
    const BEFORE: usize = 3000;
    let mut bytes = vec![0];
    for kind in core::iter::repeat_n(1u16, BEFORE).chain([2]) {
        bytes.extend([4u16.to_ne_bytes(), kind.to_ne_bytes()].concat());
    }
    let find = [one(LD | IMM, 0), one(LD | W | ABS, ELSEWHERE + ATTRIBUTE)];
    let times = |count| {
        let mut code = vec![one(LDX | IMM, 2)];
        (0..count).for_each(|_| code.extend(find));
        code.push(DONE);
        answer(&code, &bytes)
    };
    assert_eq!((times(1), times(2), times(2000)), (4 * BEFORE as u32, 0, 0));
}
