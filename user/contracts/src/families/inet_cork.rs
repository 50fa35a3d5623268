//! TCP: what is held back (TCP_CORK, MSG_MORE, TCP_NODELAY), and bounds on what is on its way (TCP_WINDOW_CLAMP,
//! TCP_NOTSENT_LOWAT, SO_RCVLOWAT).

use libc::*;

use crate::file::{close, read, write};
use crate::inet::{
    HERE, accept, connect, connection, events, events_in, listener, option, receive, send, set_option, shutdown,
    socket, waiting_bytes,
};
use crate::sys::{Ret, sys};
use crate::{process, say, tests};

tests! {
    values, corked, corked_for_a_while, more, more_for_a_while, more_and_no_delay, plain_pushes, no_delay_pushes, cork_and_no_delay,
    corked_again, whole_segments, one_segment, shutdown_pushes, close_pushes, unread_reset, reset_loses, urgent_pushes, much, nothing,
    poll_sees, waiting_reader, inherited, sums, out_queues, clamp_values, low_values, low_bounds, low_and_poll,
    receive_low,
}

const TIOCOUTQ: i32 = 0x5411;
const SIOCOUTQNSD: i32 = 0x894b;

fn cork(fd: i32, on: bool) -> Ret {
    set_option(fd, IPPROTO_TCP, TCP_CORK, on.into())
}

fn no_delay(fd: i32, on: bool) -> Ret {
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, on.into())
}

fn now(fd: i32) -> String {
    receive(fd, 100, MSG_DONTWAIT)
}

fn values() {
    let fd = socket(SOCK_STREAM);
    let get = || option(fd, IPPROTO_TCP, TCP_CORK);
    say!("first: {}", get());
    for value in [1, 7, -1, 0] {
        say!("{value}: {} {}", set_option(fd, IPPROTO_TCP, TCP_CORK, value), get());
    }
}

fn corked() {
    let [a, b] = connection();
    cork(a, true);
    say!("{} {}", write(a, "one "), write(a, "two"));
    say!("held: {} {} {}", events(b), waiting_bytes(b), now(b));
    say!("let go: {} {}", cork(a, false), now(b));
    write(a, "then");
    say!("{}", now(b));
}

fn corked_for_a_while() {
    let [a, b] = connection();
    cork(a, true);
    write(a, "text");
    say!("soon: {}", events_in(b, POLLIN, 100));
    say!("later: {} {}", events_in(b, POLLIN, 1000), now(b));
    write(a, "more");
    say!("soon: {}", events_in(b, POLLIN, 100));
    say!("later: {} {}", events_in(b, POLLIN, 1000), now(b));
}

fn more() {
    let [a, b] = connection();
    send(a, "one ", MSG_MORE);
    send(a, "two ", MSG_MORE);
    say!("held: {}", now(b));
    send(a, "three", 0);
    say!("{}", now(b));
}

fn more_for_a_while() {
    let [a, b] = connection();
    send(a, "text", MSG_MORE);
    say!("soon: {}", events_in(b, POLLIN, 100));
    say!("later: {} {}", events_in(b, POLLIN, 1000), now(b));
}

fn more_and_no_delay() {
    let [a, b] = connection();
    no_delay(a, true);
    send(a, "one ", MSG_MORE);
    say!("held: {}", now(b));
    no_delay(a, true);
    say!("set again: {}", now(b));
    send(a, "two", MSG_MORE);
    no_delay(a, false);
    say!("turned off: {}", now(b));
}

fn plain_pushes() {
    let [a, b] = connection();
    send(a, "one ", MSG_MORE);
    write(a, "two");
    say!("{}", now(b));
    cork(a, true);
    send(a, "three", 0);
    say!("not with a cork: {}", now(b));
}

fn no_delay_pushes() {
    let [a, b] = connection();
    cork(a, true);
    write(a, "one");
    say!("held: {}", now(b));
    no_delay(a, true);
    say!("pushed: {}", now(b));
    write(a, "two");
    say!("held again: {}", now(b));
    no_delay(a, false);
    say!("and held: {}", now(b));
    cork(a, false);
    say!("let go: {}", now(b));
}

fn cork_and_no_delay() {
    let [a, b] = connection();
    no_delay(a, true);
    cork(a, true);
    write(a, "one");
    say!("held: {}", now(b));
    cork(a, false);
    say!("let go: {}", now(b));
}

fn corked_again() {
    let [a, b] = connection();
    send(a, "one", MSG_MORE);
    cork(a, true);
    say!("still held: {}", now(b));
    cork(a, true);
    write(a, " two");
    say!("still held: {}", now(b));
    cork(a, false);
    say!("{}", now(b));
}

/// A connection with segments of so many bytes at most.
fn with_segments(size: i32) -> [i32; 2] {
    let (there, number) = listener(1);
    let here = socket(SOCK_STREAM);
    set_option(here, IPPROTO_TCP, TCP_MAXSEG, size).need();
    connect(here, HERE, number).need();
    [here, accept(there).fd()]
}

fn whole_segments() {
    let [a, b] = with_segments(1000);
    cork(a, true);
    write(a, &"t".repeat(2500));
    say!("{}", waiting_bytes(b));
    write(a, &"t".repeat(400));
    say!("{}", waiting_bytes(b));
    write(a, &"t".repeat(100));
    say!("{}", waiting_bytes(b));
    cork(a, false);
    say!("{}", waiting_bytes(b));
}

fn one_segment() {
    let [a, b] = with_segments(1000);
    let size: usize = option(a, IPPROTO_TCP, TCP_MAXSEG).parse().unwrap_or(0);
    cork(a, true);
    write(a, &"t".repeat(size - 1));
    say!("{}", waiting_bytes(b));
    write(a, "t");
    say!("{} of {size}", waiting_bytes(b));
    write(a, "t");
    say!("{} of {size}", waiting_bytes(b));
}

fn shutdown_pushes() {
    let [a, b] = connection();
    cork(a, true);
    write(a, "text");
    shutdown(a, SHUT_WR);
    say!("{} {} {}", events(b), now(b), now(b));
}

fn close_pushes() {
    let [a, b] = connection();
    cork(a, true);
    write(a, "text");
    close(a);
    say!("{} {} {}", events(b), now(b), now(b));
}

fn unread_reset() {
    let [a, b] = connection();
    write(b, "nobody reads this");
    send(a, "text", MSG_MORE);
    close(a);
    say!("{} {} {}", events(b), now(b), now(b));
}

fn reset_loses() {
    let [a, b] = connection();
    write(a, "one");
    send(a, "two", MSG_MORE);
    sys!(SYS_setsockopt, a, SOL_SOCKET, SO_LINGER, &linger { l_onoff: 1, l_linger: 0 }, 8);
    close(a);
    say!("{} {} {}", now(b), now(b), now(b));
}

fn urgent_pushes() {
    let [a, b] = connection();
    cork(a, true);
    write(a, "text");
    send(a, "!", MSG_OOB);
    say!("{} {}", now(b), receive(b, 1, MSG_OOB));
}

fn much() {
    let [a, b] = connection();
    cork(a, true);
    let text = "t".repeat(1 << 16);
    while send(a, &text, MSG_DONTWAIT).ok() {}
    process::sleep_ms(400);
    let mut buffer = vec![0u8; 1 << 16];
    let mut sum = 0;
    while events_in(b, POLLIN, 400) != "-" {
        sum += sys!(SYS_read, b, &mut buffer[..], buffer.len()).0;
    }
    say!("all: {}", sum > 1 << 16 && option(a, IPPROTO_TCP, TCP_CORK) == "1");
    cork(a, false);
    say!("no more: {}", now(b));
}

fn nothing() {
    let [a, b] = connection();
    send(a, "text", MSG_MORE);
    say!("{}", send(a, "", 0));
    say!("still held: {}", now(b));
}

fn poll_sees() {
    let [a, b] = connection();
    let epoll = sys!(SYS_epoll_create1, 0).fd();
    let event = epoll_event { events: EPOLLIN as u32 | EPOLLET as u32, u64: 7 };
    sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, b, &event).need();
    let found = |ms: i32| {
        let mut event = epoll_event { events: 0, u64: 0 };
        let ret = sys!(SYS_epoll_pwait, epoll, &mut event, 1, ms, 0, 8);
        let events = event.events;
        format!("{ret} {events:#x}")
    };
    send(a, "text", MSG_MORE);
    say!("{}", found(50));
    say!("{}", found(1000));
    send(a, "text", MSG_MORE);
    send(a, "text", 0);
    say!("{} {}", found(50), found(0));
}

fn waiting_reader() {
    let [a, b] = connection();
    let child = process::child(|| {
        say!("{}", read(b, 100));
        0
    });
    process::until_asleep(child);
    send(a, "one ", MSG_MORE);
    process::sleep_ms(20);
    say!("asleep: {}", process::state(child));
    send(a, "two", 0);
    process::wait(child);
}

fn inherited() {
    let (there, number) = listener(1);
    cork(there, true);
    let here = socket(SOCK_STREAM);
    connect(here, HERE, number).need();
    let there = accept(there).fd();
    write(there, "text");
    say!("{} {}", option(there, IPPROTO_TCP, TCP_CORK), now(here));
}

fn sums() {
    let [a, b] = connection();
    write(a, "ab");
    send(a, "cd", MSG_MORE);
    say!("{} {} {}", receive(b, 1, 0), receive(b, 10, 0), waiting_bytes(b));
    write(a, "ef");
    say!("{}", receive(b, 4, MSG_WAITALL));
}

fn queue_of(fd: i32, which: i32) -> i32 {
    let mut count = -1i32;
    sys!(SYS_ioctl, fd, which, &mut count);
    count
}

fn out_queues() {
    let [a, _b] = connection();
    write(a, "text");
    say!("{} {}", queue_of(a, TIOCOUTQ), queue_of(a, SIOCOUTQNSD));
    send(a, "more", MSG_MORE);
    say!("held: {} {}", queue_of(a, TIOCOUTQ), queue_of(a, SIOCOUTQNSD));
    let mut count = 0i32;
    say!("of a listener: {}", sys!(SYS_ioctl, listener(1).0, SIOCOUTQNSD, &mut count));
    while send(a, &"t".repeat(1 << 16), MSG_DONTWAIT).ok() {}
    say!("full: {} {}", queue_of(a, TIOCOUTQ) > 0, queue_of(a, SIOCOUTQNSD) > 0);
}

fn clamp_values() {
    let fd = socket(SOCK_STREAM);
    let get = || option(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP);
    say!("first: {}", get());
    for value in [1, 1151, 1152, 5000, 1 << 20, 0] {
        say!("{value}: {} {}", set_option(fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, value), get());
    }
    let [a, _b] = connection();
    say!("connected: {}", set_option(a, IPPROTO_TCP, TCP_WINDOW_CLAMP, 0));
    say!("{} {}", set_option(a, IPPROTO_TCP, TCP_WINDOW_CLAMP, 3000), option(a, IPPROTO_TCP, TCP_WINDOW_CLAMP));
}

/// How much a nonblocking writer of pieces gets rid of.
fn room(fd: i32) -> usize {
    let text = "t".repeat(2048);
    let mut sum = 0;
    loop {
        let ret = send(fd, &text, MSG_DONTWAIT);
        if ret.ok() {
            sum += ret.0 as usize;
        } else if events_in(fd, POLLOUT, 50) == "-" {
            return sum;
        }
    }
}

fn low_values() {
    let fd = socket(SOCK_STREAM);
    let get = || option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT);
    say!("first: {}", get());
    for value in [1, 4096, i32::MAX, 0, -1] {
        say!("{value}: {} {}", set_option(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, value), get());
    }
}

fn low_bounds() {
    let [a, b] = connection();
    set_option(b, SOL_SOCKET, SO_RCVBUF, 8192).need();
    set_option(a, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 8192).need();
    let little = room(a);
    let [a, b] = connection();
    set_option(b, SOL_SOCKET, SO_RCVBUF, 8192).need();
    let much = room(a);
    say!("less: {}", little * 2 < much);
}

fn low_and_poll() {
    let [a, b] = connection();
    set_option(a, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 1 << 14).need();
    room(a);
    say!("full: {}", events_in(a, POLLOUT, 0));
    set_option(a, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 0).need();
    say!("no bound: {}", events_in(a, POLLOUT, 100));
    set_option(a, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 1).need();
    let child = process::child(|| {
        say!("a waiting writer: {}", send(a, "t", 0));
        0
    });
    process::until_asleep(child);
    let mut buffer = vec![0u8; 1 << 16];
    while events_in(b, POLLIN, 300) != "-" {
        sys!(SYS_read, b, &mut buffer[..], buffer.len());
    }
    process::wait(child);
    say!("empty: {}", events_in(a, POLLOUT, 0));
}

fn receive_low() {
    let [a, b] = connection();
    set_option(b, SOL_SOCKET, SO_RCVLOWAT, 5).need();
    write(a, "abc");
    say!("{} {}", events(b), now(b));
    write(a, "abc");
    send(a, "def", MSG_MORE);
    say!("held: {}", events(b));
    write(a, "g");
    say!("{} {}", events(b), now(b));
}
