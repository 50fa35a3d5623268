//! POSIX message queues: mq_open(2), mq_timedsend(2), mq_timedreceive(2), mq_notify(2), mq_getsetattr(2), and their file system.

use std::ffi::CStr;
use std::ptr::null;

use libc::*;

use crate::file;
use crate::process::{self, as_plain_user, child, sleep_ms, until_asleep, wait};
use crate::signal;
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, tests};

tests! {
open, open_refused, names, unlink, attributes, sizes_refused, nonblocking, send_and_receive, priorities, send_refused,
receive_refused, full, hand_over, hand_over_when_full, order_of_waiters, timeouts, interrupted, restarted,         }

pub(super) const NAME: &CStr = c"contract.mq";

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Attr {
    pub flags: i64,
    pub messages: i64,
    pub bytes: i64,
    pub current: i64,
    pub reserved: [i64; 4],
}

impl std::fmt::Display for Attr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "flags {:o}, {} messages of {}, {} now", self.flags, self.messages, self.bytes, self.current)
    }
}

pub(super) fn mq_open(name: &CStr, flags: i32, mode: u32, attr: Option<&Attr>) -> Ret {
    sys!(SYS_mq_open, name, flags, mode, attr.map_or(null(), std::ptr::from_ref))
}

/// A new queue of so many messages of so many bytes.
pub(super) fn new(messages: i64, bytes: i64) -> i32 {
    mq_unlink(NAME);
    let attr = Attr { messages, bytes, ..Attr::default() };
    mq_open(NAME, O_CREAT | O_EXCL | O_RDWR, 0o600, Some(&attr)).fd()
}

pub(super) fn mq_unlink(name: &CStr) -> Ret {
    sys!(SYS_mq_unlink, name)
}

pub(super) fn send(fd: i32, text: &str, priority: u32) -> Ret {
    sys!(SYS_mq_timedsend, fd, text, text.len(), priority, 0)
}

/// Priority and text, or the error.
pub(super) fn receive(fd: i32) -> String {
    receive_until(fd, null())
}

fn receive_until(fd: i32, time: *const timespec) -> String {
    let (mut buffer, mut priority) = ([0u8; 8192], 99u32);
    let ret = sys!(SYS_mq_timedreceive, fd, &mut buffer, 8192, &mut priority, time);
    if ret.ok() { format!("{priority} {}", file::shown(ret, &buffer)) } else { ret.to_string() }
}

/// So many milliseconds from now on by CLOCK_REALTIME.
fn after(milliseconds: i64) -> timespec {
    let mut now: timespec = zeroed();
    sys!(SYS_clock_gettime, CLOCK_REALTIME, &mut now);
    let nanos = now.tv_nsec + milliseconds % 1000 * 1_000_000;
    timespec { tv_sec: now.tv_sec + milliseconds / 1000 + nanos / 1_000_000_000, tv_nsec: nanos % 1_000_000_000 }
}

pub(super) fn attr(fd: i32) -> Attr {
    let mut attr = Attr::default();
    sys!(SYS_mq_getsetattr, fd, 0, &mut attr).need();
    attr
}

fn set_flags(fd: i32, flags: i64) -> Ret {
    sys!(SYS_mq_getsetattr, fd, &Attr { flags, ..Attr::default() }, 0)
}

pub(super) fn close(fd: i32) {
    file::close(fd);
}

/// A child that does this and shows what came of it.
pub(super) fn waiting(body: impl FnOnce() -> String) -> i32 {
    let pid = child(|| {
        say!("  in a child: {}", body());
        0
    });
    until_asleep(pid);
    pid
}

fn open() {
    say!("not there: {}", mq_open(NAME, O_RDWR, 0, None));
    let fd = mq_open(NAME, O_CREAT | O_RDWR, 0o640, None).fd();
    say!("{}", attr(fd));
    let again = mq_open(NAME, O_CREAT | O_RDONLY | O_NONBLOCK, 0o777, None).fd();
    say!("again: {}", attr(again));
    say!("exclusive: {}", mq_open(NAME, O_CREAT | O_EXCL | O_RDWR, 0o600, None));
    say!("exclusive without create: {}", mq_open(NAME, O_EXCL | O_RDWR, 0o600, None).ok_or_error());
    say!("a size that differs: {}", mq_open(NAME, O_CREAT | O_RDWR, 0o600, Some(&Attr::default())).ok_or_error());
    say!("one queue: {} {}", send(fd, "x", 1), receive(again));
    mq_unlink(NAME);
}

fn open_refused() {
    let fd = new(2, 8);
    say!("access mode 3: {}", mq_open(NAME, 3, 0, None));
    say!("attributes from nowhere: {}", sys!(SYS_mq_open, NAME, O_RDWR, 0, NOWHERE));
    say!("name from nowhere: {}", sys!(SYS_mq_open, NOWHERE, O_RDWR, 0, 0));
    close(fd);
    mq_unlink(NAME);
    sys!(SYS_setrlimit, RLIMIT_NOFILE, &rlimit { rlim_cur: 3, rlim_max: 3 });
    say!("no descriptor: {}", mq_open(NAME, O_CREAT | O_RDWR, 0o600, None));
    say!("it was not made: {}", mq_unlink(NAME));
}

fn names() {
    let long = file::path("x".repeat(255));
    let too_long = file::path("x".repeat(256));
    let path = file::path("x".repeat(5000));
    for name in [c"", c".", c"..", c"/", c"/a", c"a/b", &too_long, &path] {
        let shown = format!("{:.10}", name.to_string_lossy());
        say!("{shown:?}: {} {}", mq_open(name, O_CREAT | O_RDWR, 0o600, None), mq_unlink(name));
    }
    say!("255: {} {}", mq_open(&long, O_CREAT | O_RDWR, 0o600, None).ok_or_error(), mq_unlink(&long));
}

fn unlink() {
    say!("none: {}", mq_unlink(NAME));
    new(1, 8);
    say!("one: {}, again: {}", mq_unlink(NAME), mq_unlink(NAME));
    say!("nowhere: {}", sys!(SYS_mq_unlink, NOWHERE));
}

fn attributes() {
    let fd = new(3, 10);
    say!("{}", attr(fd));
    send(fd, "x", 0);
    let mut old = Attr { reserved: [7; 4], ..Attr::default() };
    let wanted = Attr { flags: i64::from(O_NONBLOCK), messages: 9, bytes: 9, current: 9, reserved: [1; 4] };
    say!("set: {}", sys!(SYS_mq_getsetattr, fd, &wanted, &mut old));
    say!("before: {old}, {:?}", old.reserved);
    say!("after: {}", attr(fd));
    say!("F_GETFL: {:o}", sys!(SYS_fcntl, fd, F_GETFL, 0).0);
    say!("other flags: {} {}", set_flags(fd, 1), set_flags(fd, i64::from(O_NONBLOCK | O_RDWR)));
    say!("none: {}, {}", set_flags(fd, 0), attr(fd));
    say!("nowhere: {} {}", sys!(SYS_mq_getsetattr, fd, NOWHERE, 0), sys!(SYS_mq_getsetattr, fd, 0, NOWHERE));
    say!("nothing: {}", sys!(SYS_mq_getsetattr, fd, 0, 0));
    say!("no queue: {} {}", sys!(SYS_mq_getsetattr, 0, 0, 0), sys!(SYS_mq_getsetattr, 99, 0, 0));
    mq_unlink(NAME);
}

fn sizes_refused() {
    let open = |messages: i64, bytes: i64| {
        let attr = Attr { messages, bytes, ..Attr::default() };
        let ret = mq_open(NAME, O_CREAT | O_RDWR, 0o600, Some(&attr));
        mq_unlink(NAME);
        ret.ok_or_error()
    };
    for (messages, bytes) in [(0, 1), (1, 0), (-1, 1), (1, -1), (11, 8), (10, 8193), (65536, 1), (65537, 1)] {
        say!("{messages} of {bytes}: {}", open(messages, bytes));
    }
    say!("1 of 16 MiB: {}, and 1: {}", open(1, 16 << 20), open(1, (16 << 20) + 1));
    as_plain_user(|| {
        for (messages, bytes) in [(10, 8192), (11, 8), (10, 8193)] {
            say!("another user, {messages} of {bytes}: {}", open(messages, bytes));
        }
    });
}

fn nonblocking() {
    let fd = new(1, 8);
    say!("{}", set_flags(fd, i64::from(O_NONBLOCK)));
    say!("empty: {}", receive(fd));
    say!("full: {} {}", send(fd, "a", 0), send(fd, "b", 0));
    sys!(SYS_fcntl, fd, F_SETFL, 0);
    say!("by fcntl: {}", attr(fd));
    mq_unlink(NAME);
}

fn send_and_receive() {
    let fd = new(4, 16);
    say!("{} {} {}", send(fd, "one", 0), send(fd, "", 0), send(fd, "sixteen bytes ok", 0));
    say!("{}", attr(fd).current);
    say!("{} {} {}", receive(fd), receive(fd), receive(fd));
    mq_unlink(NAME);
}

fn priorities() {
    let fd = new(8, 8);
    for (text, priority) in [("a", 2), ("b", 0), ("c", 32767), ("d", 2), ("e", 5), ("f", 0)] {
        send(fd, text, priority).need();
    }
    (0..6).for_each(|_| say!("{}", receive(fd)));
    mq_unlink(NAME);
}

fn send_refused() {
    let fd = new(2, 4);
    say!("too long: {}", send(fd, "12345", 0));
    say!("priority 32768: {}", send(fd, "1", 32768));
    say!("priority and length: {}", send(fd, "12345", 32768));
    say!("nowhere: {}", sys!(SYS_mq_timedsend, fd, NOWHERE, 1, 0, 0));
    say!("nothing, nowhere: {}", sys!(SYS_mq_timedsend, fd, NOWHERE, 0, 0, 0));
    say!("time from nowhere: {}", sys!(SYS_mq_timedsend, fd, "1", 1, 0, NOWHERE));
    let bad = timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
    say!("bad time, with room: {}", sys!(SYS_mq_timedsend, fd, "1", 1, 0, &bad));
    let reader = mq_open(NAME, O_RDONLY, 0, None).fd();
    say!("for reading: {}, too long: {}", send(reader, "1", 0), send(reader, "12345", 0));
    say!("no queue: {} {}", send(99, "1", 0), send(2, "1", 0));
    say!("{}", attr(fd).current);
    mq_unlink(NAME);
}

fn receive_refused() {
    let fd = new(2, 4);
    let mut buffer = [0u8; 8];
    say!("no room: {}", sys!(SYS_mq_timedreceive, fd, &mut buffer, 3, 0, 0));
    send(fd, "ab", 0);
    say!("room for the message: {}", sys!(SYS_mq_timedreceive, fd, &mut buffer, 3, 0, 0));
    say!("without priority: {}", sys!(SYS_mq_timedreceive, fd, &mut buffer, 4, 0, 0));
    let writer = mq_open(NAME, O_WRONLY, 0, None).fd();
    say!("for writing: {}", receive(writer));
    say!("no queue: {} {}", receive(99), receive(2));
    send(fd, "ab", 0);
    say!("to nowhere: {}", sys!(SYS_mq_timedreceive, fd, NOWHERE, 8, 0, 0));
    say!("it is lost: {}", attr(fd).current);
    mq_unlink(NAME);
}

fn full() {
    let fd = new(1, 8);
    send(fd, "first", 1);
    let pid = waiting(|| send(fd, "second", 0).to_string());
    say!("{}", attr(fd));
    let first = receive(fd);
    say!("{}", wait(pid));
    say!("{first}, then {}", receive(fd));
    mq_unlink(NAME);
}

fn hand_over() {
    let fd = new(1, 8);
    let pid = waiting(|| receive(fd));
    let sent = [send(fd, "one", 3), send(fd, "two", 4)];
    say!("{}, {} {}, {}", wait(pid), sent[0], sent[1], attr(fd));
    mq_unlink(NAME);
}

fn hand_over_when_full() {
    let fd = new(2, 8);
    send(fd, "a", 1);
    send(fd, "b", 1);
    let pid = waiting(|| send(fd, "urgent", 9).to_string());
    let first = receive(fd);
    say!("{}", wait(pid));
    say!("{first}, full again: {}, {} {}", attr(fd).current, receive(fd), receive(fd));
    mq_unlink(NAME);
}

fn order_of_waiters() {
    let fd = new(4, 8);
    let start = |name: &'static str, nice: i32| {
        let pid = child(|| {
            sys!(SYS_setpriority, PRIO_PROCESS, 0, nice);
            let got = receive(fd);
            i32::from(got != format!("0 {name:?}"))
        });
        until_asleep(pid);
        pid
    };
    let pids = [start("3", 5), start("1", 0), start("2", 0), start("4", 10)];
    for text in ["1", "2", "3", "4"] {
        send(fd, text, 0);
        sleep_ms(10);
    }
    say!("each got its own: {:?}", pids.map(|pid| wait(pid).to_string()));
    mq_unlink(NAME);
}

fn timeouts() {
    let fd = new(1, 8);
    let time = after(40);
    say!("receive: {}", receive_until(fd, &time));
    let now = after(0);
    say!("in time: {}", (now.tv_sec, now.tv_nsec) >= (time.tv_sec, time.tv_nsec));
    let past = timespec { tv_sec: 1, tv_nsec: 0 };
    say!("past: {}", receive_until(fd, &past));
    send(fd, "a", 0);
    say!("send: {}", sys!(SYS_mq_timedsend, fd, "b", 1, 0, &after(40)));
    say!("past: {}", sys!(SYS_mq_timedsend, fd, "b", 1, 0, &past));
    say!("past, but it is there: {}", receive_until(fd, &past));
    let pid = waiting(|| receive_until(fd, &after(10_000)));
    send(fd, "c", 0);
    say!("{}", wait(pid));
    let negative = timespec { tv_sec: -1, tv_nsec: 0 };
    say!("negative: {}", receive_until(fd, &negative));
    say!("{}", attr(fd));
    mq_unlink(NAME);
}

fn interrupted() {
    let fd = new(1, 8);
    for limit in [false, true] {
        let pid = child(|| {
            signal::handle(SIGUSR1, signal::count, 0);
            let time = after(10_000);
            say!("{}", receive_until(fd, if limit { &time } else { null() }));
            send(fd, "a", 0);
            say!("{}, handled {}", send(fd, "b", 0), signal::caught());
            0
        });
        until_asleep(pid);
        process::kill(pid, SIGUSR1);
        sleep_ms(20);
        until_asleep(pid);
        process::kill(pid, SIGUSR1);
        say!("{}, {}", wait(pid), receive(fd));
    }
    mq_unlink(NAME);
}

fn restarted() {
    let fd = new(1, 8);
    for limit in [false, true] {
        let pid = child(|| {
            signal::handle(SIGUSR1, signal::count, SA_RESTART);
            let time = after(10_000);
            say!("{}, handled {}", receive_until(fd, if limit { &time } else { null() }), signal::caught());
            0
        });
        until_asleep(pid);
        process::kill(pid, SIGUSR1);
        sleep_ms(20);
        send(fd, "a", 0);
        say!("{}", wait(pid));
    }
    mq_unlink(NAME);
}
