//! Programs that say what a socket receives: socket(7), SO_ATTACH_FILTER.

use libc::*;

use super::link_sockets::{LO, LOCAL, heard, make, name, put};
use crate::inet::{datagrams, option, receive, send_to, set_option};
use crate::process;
use crate::sys::{Ret, sys, zeroed};
use crate::{say, tests};

tests! { frames, cut, pieces, elsewhere, of_datagrams, of_raw, taken, refused, undone, locked, told, user }

const RET: u16 = 6;
const LD_B: u16 = 0x30;
const LD_H: u16 = 0x28;
const LD_W: u16 = 0x20;
const JEQ: u16 = 0x15;
const RET_A: u16 = 0x16;

pub fn one(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

pub fn attach(fd: i32, code: &[sock_filter]) -> Ret {
    let program = sock_fprog { len: code.len() as u16, filter: code.as_ptr().cast_mut() };
    sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, 16)
}

/// What a frame of five bytes comes to.
fn outcome(fd: i32, code: &[sock_filter]) -> String {
    let ret = attach(fd, code);
    if !ret.ok() {
        return ret.to_string();
    }
    put(fd, b"hello", &name(LOCAL, LO)).need();
    heard(fd).split(']').next().unwrap_or_default().to_string()
}

fn frames() {
    let fd = make(SOCK_DGRAM, LOCAL);
    let first = |byte: u8| [one(LD_B, 0), jump(JEQ, byte.into(), 0, 1), one(RET, 100), one(RET, 0)];
    say!("an h: {}", outcome(fd, &first(b'h')));
    say!("an x: {}", outcome(fd, &first(b'x')));
    say!("beyond: {}", outcome(fd, &[one(LD_W, 2), one(RET, 100)]));
    say!("all: {}", outcome(fd, &[one(RET, u32::MAX)]));
    let raw = make(SOCK_RAW, LOCAL);
    let by_kind = [one(LD_H, 12), jump(JEQ, LOCAL.into(), 0, 1), one(RET, 14), one(RET, 0)];
    attach(raw, &by_kind).need();
    put(fd, b"x", &name(LOCAL, LO)).need();
    say!("with a header: {}", heard(raw));
}

fn cut() {
    let fd = make(SOCK_DGRAM, LOCAL);
    for most in [0, 1, 4, 5, 6] {
        say!("{most}: {}", outcome(fd, &[one(RET, most)]));
    }
    say!("its length: {}", outcome(fd, &[one(0x80, 0), one(0x14, 2), one(RET_A, 0)]));
}

fn pieces() {
    let fd = make(SOCK_DGRAM, LOCAL);
    // Arithmetic, words and jumps: each answers how many bytes are kept.
    let constant = |k| one(0, k);
    let code: [(&str, Vec<sock_filter>); 9] = [
        ("add", vec![constant(1), one(0x04, 2), one(RET_A, 0)]),
        ("by X", vec![constant(6), one(1, 2), one(0x3c, 0), one(RET_A, 0)]),
        ("by 0", vec![constant(6), one(1, 0), one(0x3c, 0), one(RET, 5)]),
        ("modulo", vec![constant(7), one(0x94, 4), one(RET_A, 0)]),
        ("xor", vec![constant(7), one(0xa4, 4), one(RET_A, 0)]),
        ("negative", vec![constant(-2i32 as u32), one(0x84, 0), one(RET_A, 0)]),
        ("a word", vec![constant(4), one(2, 15), constant(0), one(0x60, 15), one(RET_A, 0)]),
        ("X and back", vec![constant(3), one(7, 0), constant(0), one(0x87, 0), one(RET_A, 0)]),
        ("over", vec![one(5, 1), one(RET, 1), one(RET, 2)]),
    ];
    for (what, code) in code {
        say!("{what}: {}", outcome(fd, &code));
    }
    say!("shifted far: {}", outcome(fd, &[constant(1), one(1, 33), one(0x6c, 0), one(RET_A, 0)]));
    say!(
        "behind X: {}",
        outcome(fd, &[one(1, 1), one(0x50, 1), jump(JEQ, 'l' as u32, 0, 1), one(RET, 3), one(RET, 0)])
    );
    say!("half a byte: {}", outcome(fd, &[one(0xb1, 0), one(0x87, 0), one(0x74, 4), one(RET_A, 0)]));
}

fn elsewhere() {
    let fd = make(SOCK_DGRAM, LOCAL);
    let at = |place: i32| (-0x1000 + place) as u32;
    let is = |place, value: u32| outcome(fd, &[one(LD_W, at(place)), jump(JEQ, value, 0, 1), one(RET, 2), one(RET, 1)]);
    say!("protocol: {}", is(0, LOCAL.into()));
    say!("kind: {}", is(4, 0));
    say!("interface: {}", is(8, LO as u32));
    say!("mark: {} queue: {}", is(20, 0), is(24, 0));
    say!("hardware: {}", is(28, 772));
    say!("vlan: {} {}", is(44, 0), is(48, 0));
    say!("xor: {}", outcome(fd, &[one(0, 6), one(1, 5), one(LD_W, at(40)), one(RET_A, 0)]));
    for place in [1, 64, 60] {
        say!("{place}: {}", is(place, 0));
    }
    let byte = |place: u32| outcome(fd, &[one(LD_B, place), jump(JEQ, 0x88, 0, 1), one(RET, 2), one(RET, 1)]);
    say!("of the header: {}", byte((-0x20_0000 + 12) as u32));
    say!("of the packet: {}", byte(-0x10_0000i32 as u32));
}

fn of_datagrams() {
    let ((from, _), (to, port)) = (datagrams(), datagrams());
    // The header of UDP comes first, then the bytes.
    attach(to, &[one(LD_B, 8), jump(JEQ, b'a'.into(), 0, 1), one(RET, 10), one(RET, 0)]).need();
    for text in ["abcd", "bcd", "a", ""] {
        send_to(from, text, port).need();
        say!("{text:?}: {}", receive(to, 20, MSG_DONTWAIT));
    }
    attach(to, &[one(LD_H, 4), one(RET_A, 0)]).need();
    send_to(from, "length", port).need();
    say!("length: {}", receive(to, 20, MSG_DONTWAIT));
    attach(to, &[one(RET, 1)]).need();
    send_to(from, "less than a header", port).need();
    say!("one: {}", receive(to, 20, MSG_DONTWAIT));
    attach(to, &[one(LD_B, (-0x10_0000 + 9) as u32), jump(JEQ, 17, 0, 1), one(RET, 100), one(RET, 0)]).need();
    send_to(from, "by its IP header", port).need();
    say!("header: {}", receive(to, 20, MSG_DONTWAIT));
}

fn of_raw() {
    let fd = sys!(SYS_socket, AF_INET, SOCK_RAW, 200).fd();
    let send = |text: &str| {
        sys!(SYS_sendto, fd, text, text.len(), 0, &crate::inet::address(crate::inet::HERE, 0), 16).need();
        let mut buffer = [0u8; 100];
        let ret = sys!(SYS_recvfrom, fd, &mut buffer, 100, MSG_DONTWAIT, 0, 0);
        if ret.ok() { format!("{ret} {:?}", &buffer[20.min(ret.0 as usize)..ret.0 as usize]) } else { ret.to_string() }
    };
    attach(fd, &[one(LD_B, 20), jump(JEQ, b'a'.into(), 0, 1), one(RET, 22), one(RET, 0)]).need();
    say!("{}; {}; {}", send("abc"), send("bc"), send(""));
}

fn taken() {
    let fd = crate::inet::socket(SOCK_DGRAM);
    say!("one: {}", attach(fd, &[one(RET, 0)]));
    say!("many: {} {}", attach(fd, &vec![one(RET, 0); 1000]), attach(fd, &vec![one(RET, 0); 4097]));
    say!("none: {}", attach(fd, &[]));
    let program = sock_fprog { len: 1, filter: 8 as *mut sock_filter };
    say!("bad memory: {}", sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, 16));
    let program = sock_fprog { len: 1, filter: std::ptr::null_mut() };
    say!("null: {}", sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, 16));
    for len in [0, 4, 15, 17] {
        say!("{len}: {}", sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, len));
    }
    say!("bad: {}", sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, 8, 16));
}

fn refused() {
    let fd = crate::inet::socket(SOCK_DGRAM);
    let first = |one_: sock_filter| attach(fd, &[one_, one(RET, 1)]);
    let codes: Vec<_> = (0..0x110).filter(|code| first(jump(*code, 1, 0, 0)).ok()).collect();
    say!("with 1: {codes:x?}");
    say!("does not end: {} {}", attach(fd, &[one(0, 1)]), attach(fd, &[one(RET, 1), one(5, 0)]));
    say!("by 0: {} {}", first(one(0x34, 0)), first(one(0x94, 0)));
    say!("shifts: {} {} {}", first(one(0x64, 31)), first(one(0x64, 32)), first(one(0x74, 32)));
    say!("words: {} {} {}", first(one(2, 15)), first(one(2, 16)), first(one(3, u32::MAX)));
    say!("not written: {} {}", first(one(0x60, 3)), first(one(0x61, 3)));
    let way = |code: &[sock_filter]| attach(fd, &[code, &[one(RET, 1)]].concat());
    say!("on one way: {}", way(&[jump(JEQ, 0, 0, 1), one(2, 3), one(0x60, 3)]));
    say!("on both: {}", way(&[jump(JEQ, 0, 0, 2), one(2, 3), one(5, 1), one(2, 3), one(0x60, 3)]));
    say!("jumps: {} {} {}", first(one(5, 0)), first(one(5, 1)), first(one(5, u32::MAX)));
    say!("far: {} {} {}", first(jump(JEQ, 0, 0, 0)), first(jump(JEQ, 0, 1, 0)), first(jump(JEQ, 0, 0, 255)));
    let places: Vec<_> =
        (0..68).filter(|at| first(one(LD_W, (-0x1000 + at) as u32)).ok()).filter(|at| *at != 52).collect();
    say!("elsewhere: {places:?}");
    say!("behind X: {}", first(one(0x40, -0x1000i32 as u32 + 1)));
}

fn undone() {
    let ((from, _), (to, port)) = (datagrams(), datagrams());
    let detach = || sys!(SYS_setsockopt, to, SOL_SOCKET, SO_DETACH_FILTER, &0i32, 4);
    say!("none: {}", detach());
    attach(to, &[one(RET, 0)]).need();
    send_to(from, "a", port).need();
    say!("refused: {}", receive(to, 9, MSG_DONTWAIT));
    say!("undone: {} {}", detach(), detach());
    send_to(from, "b", port).need();
    say!("received: {}", receive(to, 9, MSG_DONTWAIT));
    say!("short: {}", sys!(SYS_setsockopt, to, SOL_SOCKET, SO_DETACH_FILTER, &0i32, 3));
}

fn locked() {
    let fd = crate::inet::socket(SOCK_DGRAM);
    let locked = || option(fd, SOL_SOCKET, SO_LOCK_FILTER);
    say!("at first: {}", locked());
    say!("unlock: {}", set_option(fd, SOL_SOCKET, SO_LOCK_FILTER, 0));
    attach(fd, &[one(RET, 1)]).need();
    say!("lock: {} {}", set_option(fd, SOL_SOCKET, SO_LOCK_FILTER, 7), locked());
    say!("again: {}", set_option(fd, SOL_SOCKET, SO_LOCK_FILTER, 1));
    say!("unlock: {} {}", set_option(fd, SOL_SOCKET, SO_LOCK_FILTER, 0), locked());
    say!("attach: {} {}", attach(fd, &[one(RET, 1)]), attach(fd, &[one(0, 1)]));
    say!("detach: {}", sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_DETACH_FILTER, &0i32, 4));
}

fn told() {
    let fd = crate::inet::socket(SOCK_DGRAM);
    let mut code: [sock_filter; 4] = [zeroed(), zeroed(), zeroed(), zeroed()];
    let mut get = |room: i32| {
        let mut size = room;
        let ret = sys!(SYS_getsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, &mut code, &mut size);
        let shown: Vec<_> = code.iter().map(|one| (one.code, one.jt, one.jf, one.k)).collect();
        format!("{ret} {size} {shown:?}")
    };
    say!("none: {}", get(4));
    attach(fd, &[jump(JEQ, 5, 0, 1), one(RET, 7), one(RET, 0)]).need();
    say!("how many: {}", get(0));
    say!("too many: {}", get(2));
    say!("{}", get(4));
}

/// Anybody may have one.
fn user() {
    process::as_plain_user(|| {
        let ((from, _), (to, port)) = (datagrams(), datagrams());
        say!("attach: {}", attach(to, &[one(RET, 9)]));
        send_to(from, "abc", port).need();
        say!("{}", receive(to, 9, MSG_DONTWAIT));
    });
}
