//! TCP sockets: how long close(2) waits (SO_LINGER), and a connection without a socket (TCP_LINGER2).

use std::time::Instant;

use libc::*;

use crate::file::{close, read, write};
use crate::inet::{
    HERE, accept, address, bind, connect, connection, events, full, listener, option, or_signal, port, receive, send,
    set_option, shutdown, socket,
};
use crate::sys::{Ret, sys};
use crate::{process, say, signal, tests};

tests! {
    values, time_stays, nothing_to_wait_for, waits_in_vain, waits_for_reader, waits_nonblocking, waits_after_shutdown, last_descriptor,
    replaced_descriptor, interrupted, killed, ignored_signal, exit_does_not_wait, exit_resets, peer_closes, bytes_go_on, end_times,
    no_time_for_end, time_for_end, renewed_end,
}

fn set_linger(fd: i32, on: i32, seconds: i32) -> Ret {
    sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_LINGER, &linger { l_onoff: on, l_linger: seconds }, 8)
}

fn linger_of(fd: i32) -> String {
    let (mut value, mut length) = (linger { l_onoff: -1, l_linger: -1 }, 8i32);
    let ret = sys!(SYS_getsockopt, fd, SOL_SOCKET, SO_LINGER, &mut value, &mut length);
    format!("{ret} {} {}", value.l_onoff, value.l_linger)
}

fn values() {
    let fd = socket(SOCK_STREAM);
    say!("first: {}", linger_of(fd));
    for (on, seconds) in [(1, 0), (1, 5), (7, 100_000), (1, 1)] {
        say!("{on} {seconds}: {} {}", set_linger(fd, on, seconds), linger_of(fd));
    }
    say!("short: {}", sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_LINGER, &1i32, 4));
    let (there, number) = listener(1);
    set_linger(there, 1, 9).need();
    connect(socket(SOCK_STREAM), HERE, number).need();
    say!("inherited: {}", linger_of(accept(there).fd()));
}

fn time_stays() {
    let fd = socket(SOCK_STREAM);
    set_linger(fd, 1, 5).need();
    say!("off: {} {}", set_linger(fd, 0, 9), linger_of(fd));
}

/// Roughly how long `body` takes.
fn time(body: impl FnOnce()) -> &'static str {
    let start = Instant::now();
    body();
    match start.elapsed().as_millis() {
        0..700 => "soon",
        700..4000 => "after a while",
        _ => "late",
    }
}

fn read_all(fd: i32) -> usize {
    let mut buffer = vec![0u8; 1 << 16];
    let mut sum = 0;
    loop {
        let ret = sys!(SYS_read, fd, &mut buffer[..], buffer.len());
        match ret.0 {
            1.. => sum += ret.0 as usize,
            _ => return sum,
        }
    }
}

fn nothing_to_wait_for() {
    let [here, there] = connection();
    set_linger(here, 1, 10).need();
    write(here, "text");
    say!("{}", time(|| say!("close: {}", close(here))));
    say!("{} {}", read(there, 10), read(there, 10));
}

fn waits_in_vain() {
    let ([here, _there], _) = full();
    set_linger(here, 1, 1).need();
    say!("{}", time(|| say!("close: {}", close(here))));
}

fn waits_for_reader() {
    let ([here, there], sent) = full();
    set_linger(here, 1, 15).need();
    let child = process::child(|| {
        close(here);
        process::sleep_ms(1000);
        i32::from(read_all(there) != sent)
    });
    close(there);
    // The child closes it first.
    process::sleep_ms(100);
    say!("{}", time(|| say!("close: {}", close(here))));
    say!("{}", process::wait(child));
}

fn waits_nonblocking() {
    let ([here, _there], _) = full();
    sys!(SYS_fcntl, here, F_SETFL, O_NONBLOCK).need();
    set_linger(here, 1, 1).need();
    say!("{}", time(|| say!("close: {}", close(here))));
}

fn waits_after_shutdown() {
    let ([here, _there], _) = full();
    set_linger(here, 1, 1).need();
    say!("{}", time(|| say!("shutdown: {}", shutdown(here, SHUT_WR))));
    say!("{}", time(|| say!("close: {}", close(here))));
}

fn last_descriptor() {
    let ([here, _there], _) = full();
    set_linger(here, 1, 1).need();
    let other = sys!(SYS_dup, here).fd();
    say!("{}", time(|| say!("the first: {}", close(here))));
    say!("{}", time(|| say!("the last: {}", close(other))));
}

fn replaced_descriptor() {
    let ([here, there], _) = full();
    set_linger(here, 1, 1).need();
    say!("{}", time(|| say!("dup3: {}", sys!(SYS_dup3, there, here, 0).0 == i64::from(here))));
}

extern "C" fn noted(_: i32, _: *const siginfo_t, _: *mut c_void) {}

fn alarm_in(ms: i64) {
    let value = itimerval {
        it_interval: timeval { tv_sec: 0, tv_usec: 0 },
        it_value: timeval { tv_sec: 0, tv_usec: ms * 1000 },
    };
    sys!(SYS_setitimer, ITIMER_REAL, &value, 0).need();
}

fn interrupted() {
    for flags in [0, SA_RESTART] {
        let ([here, _there], _) = full();
        set_linger(here, 1, 10).need();
        signal::handle(SIGALRM, noted, flags);
        alarm_in(200);
        say!("{}", time(|| say!("close: {}", close(here))));
        say!("again: {}", close(here));
    }
}

fn killed() {
    let ([here, there], _) = full();
    set_linger(here, 1, 15).need();
    let child = process::child(|| {
        close(there);
        process::sleep_ms(100);
        close(here);
        0
    });
    close(here);
    process::sleep_ms(300);
    process::kill(child, SIGKILL);
    say!("{}", time(|| say!("{}", process::wait(child))));
}

fn ignored_signal() {
    let ([here, _there], _) = full();
    set_linger(here, 1, 1).need();
    signal::ignore(SIGALRM);
    alarm_in(100);
    say!("{}", time(|| say!("close: {}", close(here))));
}

fn exit_does_not_wait() {
    let ([here, there], sent) = full();
    set_linger(here, 1, 15).need();
    let child = process::child(|| 0);
    close(here);
    say!("{}", time(|| say!("{}", process::wait(child))));
    let child = process::child(|| {
        let ([here, _there], _) = full();
        set_linger(here, 1, 15);
        0
    });
    say!("{}", time(|| say!("{}", process::wait(child))));
    say!("all: {}", read_all(there) == sent);
}

fn exit_resets() {
    let [here, there] = connection();
    set_linger(here, 1, 0).need();
    let child = process::child(|| 0);
    close(here);
    process::wait(child);
    say!("{} {}", events(there), receive(there, 5, MSG_DONTWAIT));
}

fn peer_closes() {
    let ([here, there], _) = full();
    set_linger(here, 1, 15).need();
    let child = process::child(|| {
        close(here);
        process::sleep_ms(1000);
        close(there);
        0
    });
    close(there);
    process::sleep_ms(100);
    say!("{}", time(|| say!("close: {}", close(here))));
    process::wait(child);
}

fn bytes_go_on() {
    let ([here, there], sent) = full();
    set_linger(here, 1, 1).need();
    close(here);
    say!("all: {}", read_all(there) == sent);
}

fn end_times() {
    let fd = socket(SOCK_STREAM);
    let get = || option(fd, IPPROTO_TCP, TCP_LINGER2);
    say!("first: {}", get());
    for value in [1, 5, 60, 120, 121, i32::MAX, 0, -1, i32::MIN, 7] {
        say!("{value}: {} {}", set_option(fd, IPPROTO_TCP, TCP_LINGER2, value), get());
    }
    let (there, number) = listener(1);
    set_option(there, IPPROTO_TCP, TCP_LINGER2, 9).need();
    connect(socket(SOCK_STREAM), HERE, number).need();
    say!("inherited: {}", option(accept(there).fd(), IPPROTO_TCP, TCP_LINGER2));
}

fn no_time_for_end() {
    let [here, there] = connection();
    let number = port(here);
    write(here, "text");
    set_option(here, IPPROTO_TCP, TCP_LINGER2, -1).need();
    close(here);
    say!("{}", events(there));
    say!("receive: {} {}", receive(there, 10, 0), receive(there, 10, 0));
    say!("send: {}", or_signal(|| send(there, "x", 0)));
    say!("the port: {}", bind(socket(SOCK_STREAM), HERE, number));
    let [here, there] = connection();
    set_option(here, IPPROTO_TCP, TCP_LINGER2, -1).need();
    shutdown(there, SHUT_WR);
    close(here);
    say!("after the other end: {} {}", events(there), receive(there, 10, 0));
}

/// A connection from a port that was closed first, with so many seconds for the other end.
fn closed_first(seconds: i32) -> (i32, u16) {
    let [here, there] = connection();
    let number = port(here);
    set_option(here, IPPROTO_TCP, TCP_LINGER2, seconds).need();
    close(here);
    (there, number)
}

fn is_free(number: u16) -> String {
    let fd = socket(SOCK_STREAM);
    let ret = sys!(SYS_bind, fd, &address(HERE, number), 16);
    close(fd);
    ret.to_string()
}

fn time_for_end() {
    let (there, number) = closed_first(1);
    say!("at once: {}", is_free(number));
    process::sleep_ms(2500);
    say!("then: {} {}", is_free(number), events(there));
    say!("send: {} {}", or_signal(|| send(there, "x", 0)), events(there));
}

fn renewed_end() {
    let (there, number) = closed_first(1);
    close(there);
    process::sleep_ms(2500);
    say!("{}", is_free(number));
}
