//! Urgent data (MSG_OOB), which TCP and Unix stream sockets have alike: calls for it, and tests of what both answer the same.
//! `a` and `b` are connected.

use libc::*;

use crate::file::write;
use crate::inet::{receive, set_option, waiting_bytes};
use crate::say;
use crate::sys::{NOWHERE, Ret, sys, zeroed};

pub const SIOCATMARK: i32 = 0x8905;

pub fn urge(fd: i32, text: &str) -> Ret {
    sys!(SYS_sendto, fd, text, text.len(), MSG_OOB, 0, 0)
}

pub fn urgent(fd: i32) -> String {
    receive(fd, 10, MSG_OOB)
}

/// What can be read without waiting. Where a byte that was taken stands first a Unix socket of Linux 6.1 answers EAGAIN once, and
/// goes on then.
pub fn now(fd: i32) -> String {
    match receive(fd, 100, MSG_DONTWAIT) {
        text if text == "EAGAIN" => receive(fd, 100, MSG_DONTWAIT),
        text => text,
    }
}

pub fn at_mark(fd: i32) -> String {
    let mut answer = -1i32;
    let ret = sys!(SYS_ioctl, fd, SIOCATMARK, &mut answer);
    if ret.ok() { answer.to_string() } else { ret.to_string() }
}

pub fn set_inline(fd: i32, on: bool) -> Ret {
    set_option(fd, SOL_SOCKET, SO_OOBINLINE, on.into())
}

pub fn text_with_urgent_end([a, b]: [i32; 2]) {
    say!("sent: {}", urge(a, "hello!"));
    say!("urgent: {}", urgent(b));
    say!("in line: {}", now(b));
    say!("then: {}", now(b));
}

pub fn marks([a, b]: [i32; 2]) {
    write(a, "before");
    urge(a, "!");
    write(a, "after");
    say!("up to the mark: {}", now(b));
    say!("behind it: {}", now(b));
    say!("the urgent byte: {}", urgent(b));
}

pub fn skipped([a, b]: [i32; 2]) {
    urge(a, "!");
    say!("nothing but the urgent byte: {}", now(b));
    say!("it is gone: {} {}", urgent(b), waiting_bytes(b));
    urge(a, "?");
    write(a, "text");
    say!("before text: {}", now(b));
    say!("it is gone: {}", urgent(b));
}

pub fn taken_twice([a, b]: [i32; 2]) {
    for text in ["1", "2", "3"] {
        urge(a, text);
        say!("taken: {} inside {}", urgent(b), waiting_bytes(b));
    }
    write(a, "text");
    say!("in line: {}", now(b));
    write(a, "a");
    urge(a, "4");
    urgent(b);
    write(a, "b");
    urge(a, "5");
    urgent(b);
    write(a, "c");
    say!("between: {}", now(b));
    say!("then: {}", now(b));
    say!("then: {}", now(b));
}

pub fn epoll_waits([a, b]: [i32; 2]) {
    let epoll = sys!(SYS_epoll_create1, 0).fd();
    let event = epoll_event { events: EPOLLPRI as u32 | EPOLLET as u32, u64: 7 };
    sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, b, &event);
    let found = || {
        let mut event: epoll_event = zeroed();
        let ret = sys!(SYS_epoll_pwait, epoll, &mut event, 1, 0, 0, 8);
        let events = event.events;
        format!("{ret} {events:#x}")
    };
    write(a, "bytes");
    say!("bytes: {}", found());
    urge(a, "!");
    say!("urgent: {}", found());
    say!("no edge: {}", found());
    urge(a, "?");
    say!("another: {}", found());
}

pub fn bad_memory([a, b]: [i32; 2]) {
    say!("send: {}", sys!(SYS_sendto, a, NOWHERE, 1, MSG_OOB, 0, 0));
    urge(a, "!");
    say!("receive: {}", sys!(SYS_recvfrom, b, NOWHERE, 1, MSG_OOB, 0, 0));
    say!("after that: {}", urgent(b));
}

pub fn switched_in_line([a, b]: [i32; 2]) {
    urge(a, "1");
    set_inline(b, true);
    say!("on, when it is there: {} {}", urgent(b), now(b));
    urge(a, "2");
    set_inline(b, false);
    say!("off: {} {}", urgent(b), now(b));
}
