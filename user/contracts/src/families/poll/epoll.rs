//! epoll(7). How epolls may watch epolls is in `epoll_nesting`.

use std::collections::BTreeSet;

use libc::*;

use super::{EDGE, IN, NOW, OUT, control, epoll, found, names, poll_for};
use crate::file::{close, create, open, pipe, read, write};
use crate::memory::{self, PAGE};
use crate::sys::{KERNEL, NOWHERE, sys, zeroed};
use crate::{process, say};

const ONCE: u32 = EPOLLONESHOT as u32;

const EXCLUSIVE: u32 = EPOLLEXCLUSIVE as u32;

pub(super) fn epoll_levels() {
    let ep = epoll();
    let [reader, writer] = pipe();
    say!("add: {} {}", control(ep, EPOLL_CTL_ADD, reader, IN), control(ep, EPOLL_CTL_ADD, writer, OUT));
    say!("at first: {}", found(ep));
    write(writer, "xy");
    say!("written: {}", found(ep));
    say!("again: {}", found(ep));
    read(reader, 1);
    say!("one read: {}", found(ep));
    read(reader, 1);
    say!("all read: {}", found(ep));
    close(writer);
    say!("writer closed: {}", found(ep));
    close(reader);
    say!("both closed: {}", found(ep));
}

pub(super) fn epoll_edges() {
    let ep = epoll();
    let [reader, writer] = pipe();
    control(ep, EPOLL_CTL_ADD, reader, IN | EDGE);
    say!("empty: {}", found(ep));
    write(writer, "ab");
    say!("written: {}", found(ep));
    say!("again: {}", found(ep));
    read(reader, 1);
    say!("one read: {}", found(ep));
    write(writer, "c");
    say!("one more written: {}", found(ep));
    say!("again: {}", found(ep));
    say!("modified: {} {}", control(ep, EPOLL_CTL_MOD, reader, IN | EDGE), found(ep));
    control(ep, EPOLL_CTL_ADD, writer, OUT | EDGE);
    say!("a writer: {}", found(ep));
    read(reader, 10);
    say!("after a read of a pipe that was not full: {}", found(ep));
    close(writer);
    say!("closed: {}", found(ep));
    say!("again: {}", found(ep));
}

/// As many as there are come at once, into memory that nobody has touched, and each of them once.
pub(super) fn epoll_many() {
    let ep = epoll();
    for number in 0..700 {
        let fd = sys!(SYS_eventfd2, 1, 0).fd();
        let event = epoll_event { events: IN, u64: number };
        sys!(SYS_epoll_ctl, ep, EPOLL_CTL_ADD, fd, &event);
    }
    let wait = |at: usize, max: usize| sys!(SYS_epoll_pwait, ep, at, max, 0, 0, 8);
    let area = memory::pages(5) as usize;
    let numbers = |count: usize| {
        let events = (0..count).map(|index| unsafe { *((area + 8) as *const epoll_event).add(index) });
        events.filter(|event| event.events == IN).map(|event| event.u64).collect::<BTreeSet<u64>>().len()
    };
    say!("all: {}, different: {}", wait(area + 8, 1000), numbers(700));
    sys!(SYS_madvise, area, 5 * PAGE, MADV_DONTNEED);
    say!("as many as are wanted: {}, different: {}", wait(area + 8, 600), numbers(600));
    let last = area + 4 * PAGE;
    sys!(SYS_munmap, last, PAGE);
    say!("as many as there is room for: {}", wait(last - 40, 700));
    say!("none: {}, {}", wait(last, 10), wait(last - 15, 10));
    say!("again: {}", wait(area, 700));
}

pub(super) fn epoll_once() {
    let ep = epoll();
    let [reader, writer] = pipe();
    control(ep, EPOLL_CTL_ADD, reader, IN | ONCE);
    write(writer, "x");
    say!("once: {}", found(ep));
    say!("again: {}", found(ep));
    write(writer, "y");
    say!("more: {}", found(ep));
    say!("armed again: {} {}", control(ep, EPOLL_CTL_MOD, reader, IN | ONCE), found(ep));
    say!("add again: {}", control(ep, EPOLL_CTL_ADD, reader, IN));
    close(writer);
    say!("a hang-up does not count: {}", found(ep));
    say!("armed for nothing: {} {}", control(ep, EPOLL_CTL_MOD, reader, 0), found(ep));
}

pub(super) fn epoll_changes() {
    let ep = epoll();
    let [reader, writer] = pipe();
    write(writer, "x");
    say!("modify what is not there: {}", control(ep, EPOLL_CTL_MOD, reader, IN));
    say!("delete what is not there: {}", control(ep, EPOLL_CTL_DEL, reader, IN));
    say!("add: {}", control(ep, EPOLL_CTL_ADD, reader, 0));
    say!("nothing wanted: {}", found(ep));
    say!("modify: {} {}", control(ep, EPOLL_CTL_MOD, reader, IN), found(ep));
    let event = epoll_event { events: IN, u64: 4711 };
    say!("other data: {} {}", sys!(SYS_epoll_ctl, ep, EPOLL_CTL_MOD, reader, &event), found(ep));
    say!("add again: {}", control(ep, EPOLL_CTL_ADD, reader, IN));
    say!("delete: {} {}", sys!(SYS_epoll_ctl, ep, EPOLL_CTL_DEL, reader, 0), found(ep));
    say!("delete again: {}", control(ep, EPOLL_CTL_DEL, reader, IN));
    control(ep, EPOLL_CTL_ADD, reader, IN);
    let twin = sys!(SYS_dup, reader).fd();
    close(reader);
    say!("closed, but a dup lives: {}", found(ep).split(' ').next().unwrap_or_default());
    say!("the number is free: {}", control(ep, EPOLL_CTL_DEL, reader, 0));
    close(twin);
    say!("the dup is closed: {}", found(ep));
}

pub(super) fn epoll_order_of_errors() {
    let (ep, file) = (epoll(), create(c"f", ""));
    let [reader, _] = pipe();
    for operation in [EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL, 9] {
        say!(
            "{operation}: no epoll and a file {}, no epoll {}, a file {}, itself {}, itself for one {}",
            control(reader, operation, file, IN),
            control(reader, operation, ep, IN),
            control(ep, operation, file, IN | EXCLUSIVE),
            control(ep, operation, ep, IN),
            control(ep, operation, ep, IN | EXCLUSIVE),
        );
    }
}

pub(super) fn epoll_refused() {
    let ep = epoll();
    let [reader, _] = pipe();
    let mut event: epoll_event = zeroed();
    say!("create: {} {}", sys!(SYS_epoll_create1, 1), sys!(SYS_epoll_create1, EPOLL_CLOEXEC).ok_or_error());
    say!("unknown operation: {}", control(ep, 9, reader, IN));
    say!("not an epoll: {}", control(reader, EPOLL_CTL_ADD, reader, IN));
    say!("closed epoll: {}", control(60, EPOLL_CTL_ADD, reader, IN));
    say!("closed descriptor: {}", control(ep, EPOLL_CTL_ADD, 60, IN));
    say!("itself: {}", control(ep, EPOLL_CTL_ADD, ep, IN));
    say!("a file: {}", control(ep, EPOLL_CTL_ADD, create(c"f", ""), IN));
    say!("a directory: {}", control(ep, EPOLL_CTL_ADD, open(c".", O_RDONLY).fd(), IN));
    say!("/dev/null: {}", control(ep, EPOLL_CTL_ADD, 0, IN));
    say!("an O_PATH: {}", control(ep, EPOLL_CTL_ADD, open(c"f", O_PATH).fd(), IN));
    say!("bad pointer: {}", sys!(SYS_epoll_ctl, ep, EPOLL_CTL_ADD, reader, NOWHERE));
    let wait = |fd: i32, count: i32, pointer: *mut c_void| sys!(SYS_epoll_pwait, fd, pointer, count, 0, 0, 8);
    say!("none asked: {}", wait(ep, 0, (&raw mut event).cast()));
    say!("negative: {}", wait(ep, -1, (&raw mut event).cast()));
    say!("a huge count: {}", wait(ep, i32::MAX, (&raw mut event).cast()));
    say!("wait on a pipe: {}", wait(reader, 1, (&raw mut event).cast()));
    say!("wait on a closed one: {}", wait(60, 1, (&raw mut event).cast()));
    say!("bad pointer, nothing ready: {}", wait(ep, 1, NOWHERE));
    say!("the kernel's: {}", wait(ep, 1, KERNEL));
    let [reader, writer] = pipe();
    control(ep, EPOLL_CTL_ADD, reader, IN);
    write(writer, "x");
    say!("bad pointer, something ready: {}", wait(ep, 1, NOWHERE));
    say!("it is not lost: {}", found(ep).split(' ').next().unwrap_or_default());
    let mask = 0u64;
    say!("size of the mask: {}", sys!(SYS_epoll_pwait, ep, &mut event, 1, 0, &mask, 4));
    let time = timespec { tv_sec: 0, tv_nsec: -1 };
    say!("epoll_pwait2: {}", sys!(SYS_epoll_pwait2, ep, &mut event, 1, &NOW, 0, 8));
    say!("bad time: {}", sys!(SYS_epoll_pwait2, ep, &mut event, 1, &time, 0, 8));
}

pub(super) fn epoll_waits() {
    let ep = epoll();
    let [reader, writer] = pipe();
    control(ep, EPOLL_CTL_ADD, reader, IN);
    let child = process::child(|| {
        let mut event: epoll_event = zeroed();
        let ret = sys!(SYS_epoll_pwait, ep, &mut event, 1, -1, 0, 8);
        let events = event.events;
        say!("woken: {ret} {}", names(events));
        0
    });
    process::until_asleep(child);
    write(writer, "x");
    process::wait(child);
    let [late_reader, late_writer] = pipe();
    read(reader, 1);
    let child = process::child(|| {
        let mut event: epoll_event = zeroed();
        say!("woken by what was added: {}", sys!(SYS_epoll_pwait, ep, &mut event, 1, -1, 0, 8));
        0
    });
    process::until_asleep(child);
    write(late_writer, "x");
    control(ep, EPOLL_CTL_ADD, late_reader, IN);
    process::wait(child);
    read(late_reader, 1);
    let before = std::time::Instant::now();
    let mut event: epoll_event = zeroed();
    say!("20 ms: {}", sys!(SYS_epoll_pwait, ep, &mut event, 1, 20, 0, 8));
    say!("no earlier: {}", before.elapsed().as_millis() >= 20);
    let time = timespec { tv_sec: 0, tv_nsec: 5_000_000 };
    say!("epoll_pwait2, 5 ms: {}", sys!(SYS_epoll_pwait2, ep, &mut event, 1, &time, 0, 8));
}

pub(super) fn epoll_nested() {
    let (outer, inner) = (epoll(), epoll());
    let [reader, writer] = pipe();
    say!("add: {}", control(inner, EPOLL_CTL_ADD, reader, IN));
    say!("an epoll into another: {}", control(outer, EPOLL_CTL_ADD, inner, IN));
    say!("nothing: {}", found(outer).split(' ').next().unwrap_or_default());
    say!("poll: {}", poll_for(inner, POLLIN));
    write(writer, "x");
    say!("written: {} {}", found(outer).contains("IN"), poll_for(inner, POLLIN));
    let mut entry = pollfd { fd: outer, events: POLLIN, revents: 0 };
    say!("poll of the outer: {}", sys!(SYS_ppoll, &mut entry, 1, &NOW, 0, 8));
    read(reader, 1);
    say!("read: {} {}", found(outer).split(' ').next().unwrap_or_default(), poll_for(inner, POLLIN));
    let child = process::child(|| {
        let mut event: epoll_event = zeroed();
        say!("woken through both: {}", sys!(SYS_epoll_pwait, outer, &mut event, 1, -1, 0, 8));
        0
    });
    process::until_asleep(child);
    write(writer, "y");
    process::wait(child);
    close(inner);
    say!("the inner is closed: {}", found(outer));
}

pub(super) fn epoll_loops() {
    let (a, b, c) = (epoll(), epoll(), epoll());
    say!("a in b: {}", control(b, EPOLL_CTL_ADD, a, IN));
    say!("b in c: {}", control(c, EPOLL_CTL_ADD, b, IN));
    say!("c in a: {}", control(a, EPOLL_CTL_ADD, c, IN));
    say!("b in a: {}", control(a, EPOLL_CTL_ADD, b, IN));
    say!("a in c: {}", control(c, EPOLL_CTL_ADD, a, IN));
    let mut last = c;
    for depth in 3..9 {
        let next = epoll();
        let ret = control(next, EPOLL_CTL_ADD, last, IN);
        say!("chain of {depth}: {ret}");
        last = next;
    }
}

pub(super) fn epoll_exclusive() {
    let ep = epoll();
    let [reader, writer] = pipe();
    say!("add: {}", control(ep, EPOLL_CTL_ADD, reader, IN | EXCLUSIVE));
    say!("modify: {}", control(ep, EPOLL_CTL_MOD, reader, IN));
    say!("delete: {}", control(ep, EPOLL_CTL_DEL, reader, 0));
    say!("modify to it: {} {}", control(ep, EPOLL_CTL_ADD, reader, IN), {
        control(ep, EPOLL_CTL_MOD, reader, IN | EXCLUSIVE)
    });
    say!("with ONESHOT: {}", control(ep, EPOLL_CTL_ADD, writer, OUT | EXCLUSIVE | ONCE));
    say!("with RDHUP: {}", control(ep, EPOLL_CTL_ADD, writer, OUT | EXCLUSIVE | EPOLLRDHUP as u32));
    say!("with PRI: {}", control(ep, EPOLL_CTL_ADD, writer, EPOLLPRI as u32 | EXCLUSIVE));
    say!("with ET: {}", control(ep, EPOLL_CTL_ADD, writer, OUT | EXCLUSIVE | EDGE));
    say!("of an epoll: {}", control(ep, EPOLL_CTL_ADD, epoll(), IN | EXCLUSIVE));
    write(writer, "x");
    say!("found: {}", found(ep));
}

pub(super) fn epoll_duplicates() {
    let ep = epoll();
    let [reader, writer] = pipe();
    let twin = sys!(SYS_dup, reader).fd();
    say!(
        "one file by two numbers: {} {}",
        control(ep, EPOLL_CTL_ADD, reader, IN),
        control(ep, EPOLL_CTL_ADD, twin, IN)
    );
    write(writer, "x");
    say!("both: {}", found(ep));
    close(reader);
    say!("one closed: {}", found(ep));
    let [again, _] = pipe();
    say!("the number is taken again: {}", again == reader);
    say!("added: {}", control(ep, EPOLL_CTL_ADD, again, IN));
    say!("and found: {}", found(ep));
    let other = sys!(SYS_dup, ep).fd();
    say!("through a dup of the epoll: {}", found(other));
    process::in_child(|| {
        say!("in a child: {}", found(ep));
        0
    });
}

pub(super) fn epoll_order() {
    let ep = epoll();
    let pipes: Vec<[i32; 2]> = (0..4).map(|_| pipe()).collect();
    for ends in &pipes {
        control(ep, EPOLL_CTL_ADD, ends[0], IN);
    }
    for index in [2, 0, 3, 1] {
        write(pipes[index][1], "x");
    }
    let one = || {
        let mut event: epoll_event = zeroed();
        sys!(SYS_epoll_pwait, ep, &mut event, 1, 0, 0, 8);
        let data = event.u64;
        pipes.iter().position(|ends| ends[0] as u64 == data).unwrap_or(9)
    };
    say!("one at a time, in the order they became ready: {} {} {} {}", one(), one(), one(), one());
    say!("and round again: {} {} {} {}", one(), one(), one(), one());
}
