//! io_uring: timeouts, polls, links, draining, and cancelling.

use libc::*;

use crate::file::{close, create, pipe, read, write};
use crate::process;
use crate::ring::*;
use crate::sys::sys;
use crate::{say, tests};

tests! {
    timeouts, timeout_counts, timeout_removed, timeout_changed, clocks, poll_once, poll_again_and_again, poll_changed,
    poll_removed, poll_of_files, links, hard_links, links_of_failures, short_reads_break, wrong_link, link_timeouts,
    drained, cancel_by_data, cancel_by_descriptor, cancel_any, cancel_errors, cancel_of_link, cancelled_at_exec,
    synchronous_cancel, cancel_of_what_has_not_begun,
}

/// ETIME_SUCCESS, ABS, UPDATE, BOOTTIME, REALTIME, LINK_UPDATE of timeouts.
const SUCCESS: u32 = 32;
const ABS: u32 = 1;
const UPDATE: u32 = 2;
const BOOTTIME: u32 = 4;
const REALTIME: u32 = 8;
const LINK_UPDATE: u32 = 16;
/// Flags of cancelling.
const ALL: u32 = 1;
const FD: u32 = 2;
const ANY: u32 = 4;
const FD_FIXED: u32 = 8;

fn timeouts() {
    let ring = Ring::new(8, 0);
    say!("relative: {}", ring.run(&[timeout(&span(5), 0, 0, 1)]));
    say!("zero: {}", ring.run(&[timeout(&span(0), 0, 0, 2)]));
    let (long, short) = (span(30), span(5));
    ring.submit(&[timeout(&long, 0, 0, 3), timeout(&short, 0, 0, 4)], 0);
    say!("the shorter first: {} {}", ring.wait(1), ring.shown());
    say!("then the longer: {} {}", ring.wait(1), ring.shown());
    say!("negative: {}", ring.run(&[timeout(&[-1, 0], 0, 0, 5)]));
    say!("unknown flag: {}", ring.run(&[timeout(&short, 0, 1 << 10, 6)]));
    say!("update in a timeout: {}", ring.run(&[timeout(&short, 0, UPDATE, 7)]));
    // A timeout ends a wait for more.
    ring.submit(&[timeout(&short, 0, 0, 8)], 3);
    say!("ends the wait: {}", ring.shown());
    let silent = timeout(&short, 0, SUCCESS, 9).with(CQE_SKIP);
    say!("silent success: {}", ring.expect(&[silent, timeout(&span(10_000), 0, 0, 10)], 1));
}

fn timeout_counts() {
    let ring = Ring::new(8, 0);
    let long = span(10_000);
    ring.submit(&[timeout(&long, 2, 0, 1)], 0);
    say!("first: {} {}", ring.submit(&[entry(op::NOP, 2)], 0), ring.shown());
    ring.submit(&[entry(op::NOP, 3)], 2);
    say!("second: {}", ring.sorted());
    ring.submit(&[timeout(&long, 1, 0, 4), entry(op::NOP, 5)], 2);
    say!("at once: {}", ring.sorted());
    ring.submit(&[timeout(&span(5), 5, 0, 6)], 1);
    say!("time is up: {}", ring.shown());
}

fn remove(target: u64, user_data: u64) -> Sqe {
    Sqe { addr: target, ..entry(op::TIMEOUT_REMOVE, user_data) }
}

fn timeout_removed() {
    let ring = Ring::new(8, 0);
    let long = span(10_000);
    ring.submit(&[timeout(&long, 0, 0, 1)], 0);
    ring.submit(&[remove(1, 2)], 2);
    say!("removed: {}", ring.sorted());
    say!("none: {}", ring.run(&[remove(1, 3)]));
    ring.submit(&[timeout(&long, 0, 0, 4)], 0);
    ring.submit(&[cancel(4, 0, 5)], 2);
    say!("cancelled: {}", ring.sorted());
    say!("flags: {}", ring.run(&[Sqe { op_flags: ABS, ..remove(1, 6) }]));
    say!("length: {}", ring.run(&[Sqe { len: 1, ..remove(1, 7) }]));
    ring.submit(&[timeout(&long, 3, 0, 8), remove(8, 9)], 2);
    say!("one that counts: {}", ring.sorted());
}

fn update(target: u64, new: &[i64; 2], flags: u32, user_data: u64) -> Sqe {
    Sqe { off: new.as_ptr() as u64, op_flags: flags | UPDATE, ..remove(target, user_data) }
}

fn timeout_changed() {
    let ring = Ring::new(8, 0);
    let (long, short) = (span(10_000), span(5));
    ring.submit(&[timeout(&long, 0, 0, 1)], 0);
    say!("changed: {}", ring.run(&[update(1, &short, 0, 2)]));
    say!("over: {} {}", ring.wait(1), ring.shown());
    say!("none: {}", ring.run(&[update(1, &short, 0, 3)]));
    say!("negative: {}", ring.run(&[update(1, &[0, -1], 0, 4)]));
    say!("unknown: {}", ring.run(&[update(1, &short, 1 << 9, 5)]));
}

fn clocks() {
    let ring = Ring::new(8, 0);
    for (name, clock, flag) in
        [("monotonic", CLOCK_MONOTONIC, 0), ("boot", CLOCK_BOOTTIME, BOOTTIME), ("real", CLOCK_REALTIME, REALTIME)]
    {
        let mut now = [0i64; 2];
        sys!(SYS_clock_gettime, clock, &mut now);
        now[1] += 5_000_000;
        if now[1] >= 1_000_000_000 {
            now = [now[0] + 1, now[1] - 1_000_000_000];
        }
        say!("{name}: {}", ring.run(&[timeout(&now, 0, ABS | flag, 1)]));
        say!("past: {}", ring.run(&[timeout(&[1, 0], 0, ABS | flag, 2)]));
    }
    say!("two clocks: {}", ring.run(&[timeout(&span(1), 0, BOOTTIME | REALTIME, 3)]));
}

fn poll_once() {
    let ring = Ring::new(8, 0);
    let [reader, writer] = pipe();
    say!("ready: {}", ring.run(&[poll_add(writer, POLLOUT, 0, 1)]));
    ring.submit(&[poll_add(reader, POLLIN, 0, 2)], 0);
    say!("not yet: {}", ring.shown());
    write(writer, "x");
    say!("then: {} {}", ring.wait(1), ring.shown());
    say!("still: {}", ring.run(&[poll_add(reader, POLLIN | POLLOUT, 0, 3)]));
    close(writer);
    say!("hung up: {}", ring.run(&[poll_add(reader, 0, 0, 4)]));
    say!("closed: {}", ring.run(&[poll_add(99, POLLIN, 0, 5)]));
    say!("unknown flag: {}", ring.run(&[poll_add(reader, POLLIN, 64, 6)]));
}

fn poll_again_and_again() {
    let ring = Ring::new(8, 0);
    let [reader, writer] = pipe();
    ring.submit(&[poll_add(reader, POLLIN, 1, 1)], 0);
    for round in 0..3 {
        write(writer, "x");
        say!("{round}: {} {}", ring.wait(1), ring.shown());
    }
    say!("no more without news: {}", ring.shown());
    read(reader, 10);
    write(writer, "y");
    say!("after reading: {} {}", ring.wait(1), ring.shown());
    ring.submit(&[cancel(1, 0, 2)], 2);
    say!("cancelled: {}", ring.sorted());
    say!("ready at the beginning: {}", ring.expect(&[poll_add(reader, POLLIN, 1, 3)], 1));
    say!("silent: {}", ring.run(&[poll_add(reader, POLLIN, 1, 4).with(CQE_SKIP)]));
}

fn poll_changed() {
    let ring = Ring::new(8, 0);
    let [reader, writer] = pipe();
    let change = |target: u64, events: i16, flags: u32, new: u64, user_data: u64| Sqe {
        addr: target,
        off: new,
        len: flags,
        op_flags: events as u16 as u32,
        ..entry(op::POLL_REMOVE, user_data)
    };
    ring.submit(&[poll_add(reader, POLLPRI, 0, 1)], 0);
    say!("other data: {}", ring.run(&[change(1, 0, 4, 10, 2)]));
    ring.submit(&[change(10, POLLIN, 2, 0, 3)], 1);
    say!("other events: {}", ring.shown());
    write(writer, "x");
    say!("seen: {} {}", ring.wait(1), ring.shown());
    say!("none: {}", ring.run(&[change(10, POLLIN, 2, 0, 4)]));
    say!("data without the flag: {}", ring.run(&[change(10, 0, 0, 5, 5)]));
    say!("only multi: {}", ring.run(&[change(10, 0, 1, 0, 6)]));
    say!("events without the flag: {}", ring.run(&[change(10, POLLIN, 0, 0, 7)]));
}

fn poll_removed() {
    let ring = Ring::new(8, 0);
    let [reader, _writer] = pipe();
    let remove = |target: u64, user_data: u64| Sqe { addr: target, ..entry(op::POLL_REMOVE, user_data) };
    ring.submit(&[poll_add(reader, POLLIN, 0, 1)], 0);
    ring.submit(&[remove(1, 2)], 2);
    say!("removed: {}", ring.sorted());
    say!("none: {}", ring.run(&[remove(1, 3)]));
    ring.submit(&[read_into(reader, &mut [0; 4], 4)], 0);
    say!("a read is no poll: {}", ring.run(&[remove(4, 5)]));
}

fn poll_of_files() {
    let ring = Ring::new(8, 0);
    let fd = create(c"f", "x");
    say!("a file: {}", ring.run(&[poll_add(fd, POLLIN, 0, 1)]));
    say!("for nothing it has: {}", ring.run(&[poll_add(fd, POLLPRI, 0, 2)]));
    let event = sys!(SYS_eventfd2, 0, 0).fd();
    ring.submit(&[poll_add(event, POLLIN, 0, 3)], 0);
    sys!(SYS_write, event, &1u64, 8);
    say!("eventfd: {} {}", ring.wait(1), ring.shown());
    let other = Ring::new(2, 0);
    ring.submit(&[poll_add(other.fd, POLLIN, 0, 4)], 0);
    other.submit(&[entry(op::NOP, 1)], 1);
    say!("a ring: {} {}", ring.wait(1), ring.shown());
}

fn links() {
    let ring = Ring::new(8, 0);
    let fd = create(c"f", "");
    let mut buffer = [0; 5];
    let chain = [
        write_from(fd, "hello", 1).with(IO_LINK),
        Sqe { fd, ..entry(op::FSYNC, 2) }.with(IO_LINK),
        Sqe { off: 0, ..read_into(fd, &mut buffer, 3) },
    ];
    say!("{} {:?}", ring.run(&chain), String::from_utf8_lossy(&buffer));
    let [reader, writer] = pipe();
    ring.submit(&[read_into(reader, &mut buffer, 4).with(IO_LINK), entry(op::NOP, 5)], 0);
    say!("the first waits: {}", ring.shown());
    write(writer, "12345");
    say!("then both: {} {}", ring.wait(2), ring.shown());
    say!("silent ones: {}", ring.expect(&[entry(op::NOP, 6).with(IO_LINK | CQE_SKIP), entry(op::NOP, 7)], 1));
    say!("without an end: {}", ring.run(&[entry(op::NOP, 8).with(IO_LINK)]));
    say!("the next is free: {}", ring.run(&[entry(op::NOP, 9)]));
}

fn hard_links() {
    let ring = Ring::new(8, 0);
    let mut buffer = [0; 4];
    let bad = |flags: u8, user_data: u64| read_into(99, &mut [0; 4], user_data).with(flags);
    say!("soft: {}", ring.run(&[bad(IO_LINK, 1), entry(op::NOP, 2).with(IO_LINK), entry(op::NOP, 3)]));
    say!("hard: {}", ring.run(&[bad(IO_HARDLINK, 4), entry(op::NOP, 5).with(IO_LINK), entry(op::NOP, 6)]));
    say!("mixed: {}", ring.run(&[entry(op::NOP, 7).with(IO_HARDLINK), bad(IO_LINK, 8), entry(op::NOP, 9)]));
    let event = sys!(SYS_eventfd2, 0, 0).fd();
    say!("too short: {}", ring.run(&[read_into(event, &mut buffer, 10).with(IO_HARDLINK), entry(op::NOP, 11)]));
}

fn links_of_failures() {
    let ring = Ring::new(8, 0);
    let bad = |flags: u8, user_data: u64| read_into(99, &mut [0; 4], user_data).with(flags);
    say!("silent head: {}", ring.expect(&[bad(IO_LINK | CQE_SKIP, 1), entry(op::NOP, 2)], 1));
    say!("silent rest: {}", ring.expect(&[bad(IO_LINK, 3), entry(op::NOP, 4).with(CQE_SKIP)], 2));
    say!("timeout: {}", ring.run(&[timeout(&span(2), 0, 0, 5).with(IO_LINK), entry(op::NOP, 6)]));
    say!("wanted timeout: {}", ring.run(&[timeout(&span(2), 0, SUCCESS, 7).with(IO_LINK), entry(op::NOP, 8)]));
}

fn short_reads_break() {
    let ring = Ring::new(8, 0);
    let fd = create(c"f", "123");
    let mut buffer = [0; 8];
    say!("short: {}", ring.run(&[read_into(fd, &mut buffer, 1).with(IO_LINK), entry(op::NOP, 2)]));
    say!("end: {}", ring.run(&[read_into(fd, &mut buffer, 3).with(IO_HARDLINK), entry(op::NOP, 4)]));
}

fn wrong_link() {
    let ring = Ring::new(8, 0);
    let ret = ring.submit(&[entry(op::NOP, 1).with(IO_LINK), entry(200, 2).with(IO_LINK), entry(op::NOP, 3)], 0);
    say!("in the middle: {ret} {}", ring.shown());
    let ret = ring.submit(&[entry(200, 4).with(IO_LINK), entry(op::NOP, 5)], 0);
    say!("at the beginning: {ret} {}", ring.shown());
    let ret = ring.submit(&[entry(op::NOP, 6).with(IO_LINK), entry(200, 7), entry(op::NOP, 8)], 0);
    say!("at the end: {ret} {}", ring.shown());
    say!("what is left: {} {}", ring.enter(1, 0, 0), ring.shown());
}

fn link_timeout(time: &[i64; 2], flags: u32, user_data: u64) -> Sqe {
    Sqe { opcode: op::LINK_TIMEOUT, ..timeout(time, 0, flags, user_data) }
}

fn link_timeouts() {
    let ring = Ring::new(8, 0);
    let [reader, writer] = pipe();
    let mut buffer = [0; 4];
    let (long, short) = (span(10_000), span(5));
    ring.submit(&[read_into(reader, &mut buffer, 1).with(IO_LINK), link_timeout(&short, 0, 2)], 2);
    say!("too late: {}", ring.sorted());
    ring.submit(&[read_into(reader, &mut buffer, 3).with(IO_LINK), link_timeout(&long, 0, 4)], 0);
    write(writer, "abcd");
    say!("in time: {} {}", ring.wait(2), ring.sorted());
    ring.submit(&[entry(op::NOP, 5).with(IO_LINK), link_timeout(&long, 0, 6)], 2);
    say!("at once: {}", ring.sorted());
    let chain =
        [read_into(reader, &mut buffer, 7).with(IO_LINK), link_timeout(&short, 0, 8).with(IO_LINK), entry(op::NOP, 9)];
    ring.submit(&chain, 3);
    say!("and what follows: {}", ring.sorted());
    ring.submit(&[read_into(reader, &mut buffer, 10).with(IO_LINK), link_timeout(&long, 0, 11)], 0);
    say!("without a word: {}", ring.run(&[Sqe { op_flags: LINK_UPDATE, ..update(11, &short, 0, 12) }]));
    ring.submit(&[Sqe { op_flags: LINK_UPDATE | UPDATE, ..update(11, &short, 0, 13) }], 3);
    say!("changed: {}", ring.sorted());
    say!(
        "two: {}",
        ring.submit(
            &[entry(op::NOP, 13).with(IO_LINK), link_timeout(&long, 0, 14).with(IO_LINK), link_timeout(&long, 0, 15)],
            0
        )
    );
    say!("{}", ring.sorted());
}

fn drained() {
    let ring = Ring::new(8, 0);
    let [reader, writer] = pipe();
    let mut buffer = [0; 4];
    ring.submit(&[read_into(reader, &mut buffer, 1), entry(op::NOP, 2).with(IO_DRAIN), entry(op::NOP, 3)], 0);
    say!("all wait: {}", ring.shown());
    write(writer, "abcd");
    say!("then all: {} {}", ring.wait(3), ring.sorted());
    ring.submit(&[entry(op::NOP, 4), entry(op::NOP, 5).with(IO_DRAIN), entry(op::NOP, 6)], 3);
    say!("nothing to wait for: {}", ring.sorted());
}

fn cancel_by_data() {
    let ring = Ring::new(8, 0);
    let [reader, _writer] = pipe();
    let mut buffer = [0; 4];
    ring.submit(&[read_into(reader, &mut buffer, 1)], 0);
    ring.submit(&[cancel(1, 0, 2)], 2);
    say!("a read: {}", ring.sorted());
    ring.submit(&[poll_add(reader, POLLIN, 0, 3)], 0);
    ring.submit(&[cancel(3, 0, 4)], 2);
    say!("a poll: {}", ring.sorted());
    say!("none: {}", ring.run(&[cancel(3, 0, 5)]));
    ring.submit(
        &[read_into(reader, &mut buffer, 7), read_into(reader, &mut buffer, 7), read_into(reader, &mut buffer, 7)],
        0,
    );
    ring.submit(&[cancel(7, 0, 8)], 2);
    say!("one of three: {}", ring.sorted());
    ring.submit(&[cancel(7, ALL, 9)], 3);
    say!("all others: {}", ring.sorted());
    say!("all of none: {}", ring.run(&[cancel(7, ALL, 10)]));
}

fn cancel_by_descriptor() {
    let ring = Ring::new(8, 0);
    let [reader, _writer] = pipe();
    let [other, writer] = pipe();
    let mut buffer = [0; 4];
    let by = |fd: i32, flags: u32, user_data: u64| Sqe { fd, ..cancel(0, flags | FD, user_data) };
    ring.submit(
        &[read_into(reader, &mut buffer, 1), read_into(other, &mut buffer, 2), poll_add(reader, POLLIN, 0, 3)],
        0,
    );
    ring.submit(&[by(reader, ALL, 4)], 3);
    say!("both of one file: {}", ring.sorted());
    say!("none: {}", ring.run(&[by(reader, 0, 5)]));
    say!("closed: {}", ring.run(&[by(99, 0, 6)]));
    write(writer, "abcd");
    say!("the other goes on: {} {}", ring.wait(1), ring.shown());
    ring.register(2, [reader].as_ptr() as usize, 1);
    ring.submit(&[read_into(0, &mut buffer, 7).with(FIXED_FILE)], 0);
    ring.submit(&[by(0, FD_FIXED, 8)], 2);
    say!("a registered one: {}", ring.sorted());
}

fn cancel_any() {
    let ring = Ring::new(8, 0);
    let [reader, _writer] = pipe();
    let mut buffer = [0; 4];
    ring.submit(
        &[read_into(reader, &mut buffer, 1), poll_add(reader, POLLIN, 0, 2), timeout(&span(10_000), 0, 0, 3)],
        0,
    );
    ring.submit(&[cancel(0, ANY | ALL, 4)], 4);
    say!("{}", ring.sorted());
    say!("none: {}", ring.run(&[cancel(0, ANY | ALL, 5)]));
}

fn cancel_errors() {
    let ring = Ring::new(8, 0);
    say!("unknown flag: {}", ring.run(&[cancel(1, 1 << 10, 1)]));
    say!("any and one: {}", ring.run(&[cancel(1, ANY | FD, 2)]));
    say!("an offset: {}", ring.run(&[Sqe { off: 1, ..cancel(1, 0, 3) }]));
    say!("itself: {}", ring.run(&[cancel(4, 0, 4)]));
}

fn cancel_of_link() {
    let ring = Ring::new(8, 0);
    let [reader, _writer] = pipe();
    let mut buffer = [0; 4];
    ring.submit(&[read_into(reader, &mut buffer, 1).with(IO_LINK), entry(op::NOP, 2)], 0);
    ring.submit(&[cancel(1, 0, 3)], 3);
    say!("the head: {}", ring.sorted());
    ring.submit(&[read_into(reader, &mut buffer, 4).with(IO_HARDLINK), entry(op::NOP, 5)], 0);
    ring.submit(&[cancel(4, 0, 6)], 3);
    say!("hard: {}", ring.sorted());
    ring.submit(&[read_into(reader, &mut buffer, 7).with(IO_LINK), entry(op::NOP, 8)], 0);
    say!("one that has not begun: {}", ring.run(&[cancel(8, 0, 9)]));
}

fn cancelled_at_exec() {
    let [reader, writer] = pipe();
    let pid = process::child(|| {
        let ring = Ring::new(4, 0);
        ring.submit(&[read_into(reader, &mut [0; 4], 1), timeout(&span(10_000), 0, 0, 2)], 0);
        close(reader);
        let words = [c"/proc/self/exe".as_ptr(), c"--list".as_ptr(), c"no such test".as_ptr(), std::ptr::null()];
        sys!(SYS_execve, c"/proc/self/exe", words.as_ptr(), 0);
        1
    });
    say!("{}", process::wait(pid));
    close(reader);
    crate::signal::ignore(SIGPIPE);
    say!("nobody reads any more: {}", write(writer, "x"));
}

/// IORING_REGISTER_SYNC_CANCEL.
fn cancel_now(ring: &Ring, addr: u64, fd: i32, flags: u32) -> crate::sys::Ret {
    // addr, fd and flags, timeout, padding
    let request = [addr, fd as u32 as u64 | u64::from(flags) << 32, u64::MAX, u64::MAX, 0, 0, 0, 0];
    ring.register(24, request.as_ptr() as usize, 1)
}

fn synchronous_cancel() {
    let ring = Ring::new(8, 0);
    let [reader, _writer] = pipe();
    let mut buffer = [0; 4];
    ring.submit(&[read_into(reader, &mut buffer, 1)], 0);
    say!("cancel: {}", cancel_now(&ring, 1, -1, 0));
    say!("{} {}", ring.wait(1), ring.shown());
    say!("none: {}", cancel_now(&ring, 1, -1, 0));
    ring.submit(&[read_into(reader, &mut buffer, 2), poll_add(reader, POLLIN, 0, 3)], 0);
    say!("by descriptor: {}", cancel_now(&ring, 0, reader, FD | ALL));
    say!("{} {}", ring.wait(2), ring.sorted());
    say!("unknown flag: {}", cancel_now(&ring, 0, 0, 1 << 10));
}

fn cancel_of_what_has_not_begun() {
    let ring = Ring::new(8, 0);
    let [reader, writer] = pipe();
    let mut buffer = [0; 4];
    ring.submit(&[read_into(reader, &mut buffer, 7).with(ASYNC), cancel(0, 0, 8)], 1);
    say!("for a worker, by another name: {}", ring.shown());
    write(writer, "abcd");
    say!("it goes on: {} {}", ring.wait(1), ring.shown());
    ring.submit(&[read_into(reader, &mut buffer, 1), entry(op::NOP, 2).with(IO_DRAIN), entry(op::NOP, 3)], 0);
    say!("held back, by another name: {}", cancel_now(&ring, 0, -1, 0));
    say!("by its name: {}", cancel_now(&ring, 2, -1, 0));
    say!("what it waits for: {}", cancel_now(&ring, 1, -1, 0));
    say!("then they begin: {} {}", ring.wait(3), ring.sorted());
    ring.submit(&[timeout(&span(10_000), 0, 0, 4), timeout(&span(0), 0, SUCCESS, 5).with(IO_DRAIN)], 0);
    say!("a timeout: {}", cancel_now(&ring, 5, -1, 0));
    say!("{} {}", cancel_now(&ring, 4, -1, 0), ring.wait(2));
    say!("{}", ring.sorted());
}
