//! Options of TCP that connections are made with, and what TCP_INFO tells.

use libc::*;

use super::icmp6::{HERE6, address6};
use crate::file::{close, read, write};
use crate::inet::{
    HERE, accept, bind, connect, connection, events, events_in, listen, listener, option, port, receive, send,
    set_option, socket, tcp_state,
};
use crate::sys::sys;
use crate::{say, tests};

tests! {
    segment_values, segments, segments_of_both, segments_of_ip6, segment_of_listener, quick_acknowledgements, deferring_values, deferred,
    deferred_end, deferred_nonblocking, deferred_for_a_while, info_fresh, info_of_connection, info_counts, inherited,
}

fn segment(fd: i32) -> String {
    option(fd, IPPROTO_TCP, TCP_MAXSEG)
}

fn segment_values() {
    let fd = socket(SOCK_STREAM);
    say!("first: {}", segment(fd));
    for value in [0, 1, 87, 88, 536, 1000, 32_767, 32_768, -1, 0] {
        say!("{value}: {} {}", set_option(fd, IPPROTO_TCP, TCP_MAXSEG, value), segment(fd));
    }
    say!("short: {}", sys!(SYS_setsockopt, fd, IPPROTO_TCP, TCP_MAXSEG, &1000i32, 3));
}

fn segments() {
    let [a, b] = connection();
    say!("{} {}", segment(a), segment(b));
    say!("set: {} {}", set_option(a, IPPROTO_TCP, TCP_MAXSEG, 1000), segment(a));
}

/// A connection of which each side wants segments of a size; 0: of none.
fn with_segments(client: i32, server: i32) {
    let (there, number) = listener(1);
    set_option(there, IPPROTO_TCP, TCP_MAXSEG, server).need();
    let here = socket(SOCK_STREAM);
    set_option(here, IPPROTO_TCP, TCP_MAXSEG, client).need();
    connect(here, HERE, number).need();
    let accepted = accept(there).fd();
    say!("{client} {server}: {} {} {}", segment(here), segment(accepted), segment(there));
}

fn segments_of_both() {
    with_segments(1000, 0);
    with_segments(0, 1000);
    with_segments(2000, 1000);
    with_segments(1000, 2000);
    with_segments(88, 88);
}

fn segments_of_ip6() {
    let there = sys!(SYS_socket, AF_INET6, SOCK_STREAM, 0).fd();
    sys!(SYS_bind, there, &address6(HERE6, 0), 28).need();
    listen(there, 1).need();
    let here = sys!(SYS_socket, AF_INET6, SOCK_STREAM, 0).fd();
    say!("first: {}", segment(here));
    let (mut name, mut length) = (address6(HERE6, 0), 28i32);
    sys!(SYS_getsockname, there, &mut name, &mut length).need();
    sys!(SYS_connect, here, &name, 28).need();
    say!("{} {}", segment(here), segment(accept(there).fd()));
}

fn segment_of_listener() {
    let (fd, _) = listener(1);
    say!("{} {} {}", segment(fd), set_option(fd, IPPROTO_TCP, TCP_MAXSEG, 900), segment(fd));
}

fn quick_acknowledgements() {
    let fd = socket(SOCK_STREAM);
    let get = || option(fd, IPPROTO_TCP, TCP_QUICKACK);
    say!("first: {}", get());
    for value in [0, 1, 2, 3, 0, -1] {
        say!("{value}: {} {}", set_option(fd, IPPROTO_TCP, TCP_QUICKACK, value), get());
    }
}

fn deferring_values() {
    let fd = socket(SOCK_STREAM);
    let get = || option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT);
    say!("first: {}", get());
    for value in [1, 2, 3, 5, 7, 8, 60, 127, 1000, 0, -1, i32::MAX] {
        say!("{value}: {} {}", set_option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, value), get());
    }
}

fn deferring(seconds: i32) -> (i32, u16) {
    let fd = socket(SOCK_STREAM);
    bind(fd, HERE, 0).need();
    set_option(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, seconds).need();
    listen(fd, 5).need();
    (fd, port(fd))
}

fn deferred() {
    let (fd, number) = deferring(30);
    let here = socket(SOCK_STREAM);
    say!("connect: {} {} {}", connect(here, HERE, number), events(here), tcp_state(here));
    say!("not yet: {}", events_in(fd, POLLIN, 50));
    say!("write: {}", write(here, "data"));
    say!("now: {}", events_in(fd, POLLIN, 1000));
    let there = accept(fd).fd();
    say!("{} {}", read(there, 10), write(there, "answer"));
    say!("{}", read(here, 10));
}

fn deferred_end() {
    let (fd, number) = deferring(30);
    let here = socket(SOCK_STREAM);
    connect(here, HERE, number).need();
    say!("not yet: {}", events_in(fd, POLLIN, 50));
    close(here);
    say!("the end: {}", events_in(fd, POLLIN, 1000));
    let there = accept(fd).fd();
    say!("{}", read(there, 10));
}

fn deferred_nonblocking() {
    let (fd, number) = deferring(30);
    sys!(SYS_fcntl, fd, F_SETFL, O_NONBLOCK).need();
    let (one, other) = (socket(SOCK_STREAM), socket(SOCK_STREAM));
    say!("{} {}", connect(one, HERE, number), connect(other, HERE, number));
    events_in(fd, POLLIN, 50);
    say!("none: {}", accept(fd));
    send(other, "second", 0);
    events_in(fd, POLLIN, 1000);
    let there = accept(fd).fd();
    say!("one: {} {}", receive(there, 10, MSG_DONTWAIT), accept(fd));
    send(one, "first", 0);
    events_in(fd, POLLIN, 1000);
    say!("the other: {}", receive(accept(fd).fd(), 10, MSG_DONTWAIT));
}

/// Nobody sends anything for so long: the connection is there at last.
fn deferred_for_a_while() {
    let (fd, number) = deferring(1);
    let here = socket(SOCK_STREAM);
    connect(here, HERE, number).need();
    say!("not yet: {}", events_in(fd, POLLIN, 100));
    say!("then: {}", events_in(fd, POLLIN, 5000));
    let there = accept(fd).fd();
    say!("{} {}", write(there, "hello"), read(here, 10));
}

/// A field of `struct tcp_info`, of 4 bytes.
fn field(fd: i32, at: usize) -> u32 {
    u32::from_ne_bytes(*info(fd)[at..].first_chunk().unwrap_or(&[0; 4]))
}

fn long_field(fd: i32, at: usize) -> u64 {
    u64::from_ne_bytes(*info(fd)[at..].first_chunk().unwrap_or(&[0; 8]))
}

fn info(fd: i32) -> [u8; 240] {
    let (mut info, mut length) = ([0u8; 240], 240i32);
    sys!(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, &mut info, &mut length).need();
    info
}

fn info_fresh() {
    let fd = socket(SOCK_STREAM);
    say!("begin: {:?}", &info(fd)[..5]);
    say!("snd_mss {} rcv_mss {} unacked {} lost {}", field(fd, 16), field(fd, 20), field(fd, 24), field(fd, 32));
    say!("rtt {} cwnd {} ssthresh {:x}", field(fd, 68), field(fd, 80), field(fd, 76));
    let (fd, number) = listener(7);
    say!("listening: {} waiting {} room {}", info(fd)[0], field(fd, 24), field(fd, 28));
    let _here = {
        let here = socket(SOCK_STREAM);
        connect(here, HERE, number).need();
        here
    };
    events_in(fd, POLLIN, 1000);
    say!("one waits: {} {}", field(fd, 24), field(fd, 28));
}

fn info_of_connection() {
    for fd in connection() {
        let bytes = info(fd);
        say!("state {} ca {} retransmits {} probes {} backoff {}", bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]);
        say!("snd_mss {} unacked {} sacked {} lost {}", field(fd, 16), field(fd, 24), field(fd, 28), field(fd, 32));
        say!("retrans {} fackets {} pmtu {} advmss {}", field(fd, 36), field(fd, 40), field(fd, 60), field(fd, 84));
        say!("ssthresh {:x} cwnd {} total retrans {}", field(fd, 76), field(fd, 80), field(fd, 100));
    }
}

fn info_counts() {
    let [a, b] = connection();
    let counts = |fd| {
        // bytes_received, bytes_sent, notsent_bytes.
        format!("received {} sent {} not sent {}", long_field(fd, 128), long_field(fd, 200), field(fd, 144))
    };
    say!("{} / {}", counts(a), counts(b));
    write(a, "0123456789");
    events_in(b, POLLIN, 1000);
    say!("{} / {}", counts(a), counts(b));
    say!("{}", read(b, 4));
    write(b, "back");
    events_in(a, POLLIN, 1000);
    say!("{} / {}", counts(a), counts(b));
}

fn inherited() {
    let (fd, number) = deferring(3);
    set_option(fd, IPPROTO_TCP, TCP_MAXSEG, 1200).need();
    let here = socket(SOCK_STREAM);
    connect(here, HERE, number).need();
    send(here, "x", 0);
    let there = accept(fd).fd();
    say!("{} {}", option(there, IPPROTO_TCP, TCP_DEFER_ACCEPT), segment(there));
}
