//! Internet sockets: transfers that are cut short, what is left of connections, small buffers, shared ports.

use libc::*;

use crate::file::{close, read, write};
use crate::inet::{
    HERE, accept, bind, connect, connection, events, listener, option, port, receive, send, set_option, shutdown,
    socket,
};
use crate::process;
use crate::sys::sys;
use crate::{say, tests};

tests! {
    read_cut_short, next_connection, narrow, widened, peek_waits, peek_gives_up, low_mark_is_cut, shared_flow,
    reused_port, connected_to_the_same,
}

fn reset(fd: i32) {
    let linger = linger { l_onoff: 1, l_linger: 0 };
    sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_LINGER, &linger, 8);
    close(fd);
}

fn read_cut_short() {
    let [here, there] = connection();
    let child = process::child(|| {
        close(here);
        write(there, "0123456789");
        process::sleep_ms(50);
        reset(there);
        0
    });
    close(there);
    say!("all: {}", receive(here, 100, MSG_WAITALL));
    process::wait(child);
    say!("then: {} {}", receive(here, 100, 0), receive(here, 100, 0));
}

/// A connection that fails before connect(2) has told of it, with bytes in it.
fn next_connection() {
    let (fd, number) = listener(5);
    let client = socket(SOCK_STREAM | SOCK_NONBLOCK);
    say!("begun: {}", connect(client, HERE, number));
    let there = accept(fd).fd();
    write(there, "old");
    reset(there);
    say!("reset: {}", connect(client, HERE, number));
    say!("again: {}", connect(client, HERE, number));
    let there = accept(fd).fd();
    say!("connected: {}", connect(client, HERE, number));
    say!("nothing: {}", receive(client, 10, 0));
    write(there, "new");
    say!("received: {}", receive(client, 10, 0));
}

/// The least buffers: everything comes through.
fn narrow() {
    let [here, there] = connection();
    set_option(here, SOL_SOCKET, SO_SNDBUF, 1);
    set_option(there, SOL_SOCKET, SO_RCVBUF, 1);
    let child = process::child(|| {
        close(there);
        let sizes = [5000usize, 4096, 1, 8000, 4096, 3000, 12_000, 4096];
        i32::from(!sizes.iter().all(|size| write(here, &"s".repeat(*size)).0 == *size as i64))
    });
    close(here);
    process::sleep_ms(20);
    let (mut total, mut buffer) = (0, vec![0u8; 8192]);
    loop {
        let n = sys!(SYS_read, there, &mut buffer[..], 8192).0;
        if n <= 0 {
            break;
        }
        total += n;
    }
    say!("{total} {}", process::wait(child));
}

/// A larger receive buffer is room for who waits, though nobody reads.
fn widened() {
    let [here, there] = connection();
    set_option(here, SOL_SOCKET, SO_SNDBUF, 1);
    set_option(there, SOL_SOCKET, SO_RCVBUF, 2304);
    while send(here, &"f".repeat(1000), MSG_DONTWAIT).ok() {}
    let child = process::child(|| {
        close(there);
        i32::from(write(here, &"s".repeat(4096)).0 != 4096)
    });
    close(here);
    process::sleep_ms(20);
    set_option(there, SOL_SOCKET, SO_RCVBUF, 200_000);
    let mut buffer = vec![0u8; 8192];
    while sys!(SYS_read, there, &mut buffer[..], 8192).0 > 0 {}
    say!("{}", process::wait(child));
}

fn peek_waits() {
    let [here, there] = connection();
    let child = process::child(|| {
        for text in ["ab", "cd", "ef"] {
            write(here, text);
            process::sleep_ms(20);
        }
        0
    });
    say!("all: {}", receive(there, 6, MSG_PEEK | MSG_WAITALL));
    process::wait(child);
    say!("at once: {}", receive(there, 9, MSG_PEEK | MSG_WAITALL | MSG_DONTWAIT));
    set_option(there, SOL_SOCKET, SO_RCVLOWAT, 8);
    let child = process::child(|| {
        process::sleep_ms(20);
        write(here, "gh");
        0
    });
    say!("the mark: {}", receive(there, 20, MSG_PEEK));
    process::wait(child);
}

fn peek_gives_up() {
    let [here, there] = connection();
    write(here, "abc");
    let time = timeval { tv_sec: 0, tv_usec: 20_000 };
    sys!(SYS_setsockopt, there, SOL_SOCKET, SO_RCVTIMEO, &time, 16);
    say!("in time: {}", receive(there, 6, MSG_PEEK | MSG_WAITALL));
    let time = timeval { tv_sec: 0, tv_usec: 0 };
    sys!(SYS_setsockopt, there, SOL_SOCKET, SO_RCVTIMEO, &time, 16);
    shutdown(here, SHUT_WR);
    say!("the end: {}", receive(there, 6, MSG_PEEK | MSG_WAITALL));
}

fn low_mark_is_cut() {
    let [here, there] = connection();
    set_option(there, SOL_SOCKET, SO_RCVBUF, 10_000);
    set_option(there, SOL_SOCKET, SO_RCVLOWAT, 100 << 20);
    say!("cut: {}", option(there, SOL_SOCKET, SO_RCVLOWAT));
    write(here, "ab");
    say!("less: {}", events(there));
    set_option(there, SOL_SOCKET, SO_RCVLOWAT, 2);
    say!("lowered: {}", events(there));
    set_option(there, SOL_SOCKET, SO_RCVLOWAT, 0);
    say!("none: {}", option(there, SOL_SOCKET, SO_RCVLOWAT));
}

fn gets(fd: i32) -> bool {
    sys!(SYS_read, fd, &mut [0u8; 5], 5).ok()
}

/// Datagrams of one sender stay with one of the sockets that share a port.
fn shared_flow() {
    let [first, second] = [SO_REUSEPORT; 2].map(|how| {
        let fd = socket(SOCK_DGRAM | SOCK_NONBLOCK);
        set_option(fd, SOL_SOCKET, how, 1);
        fd
    });
    bind(first, HERE, 0);
    let number = port(first);
    say!("bound: {}", bind(second, HERE, number));
    let mut torn = 0;
    for _ in 0..20 {
        let sender = socket(SOCK_DGRAM);
        connect(sender, HERE, number);
        for _ in 0..6 {
            send(sender, "x", 0);
        }
        let got = [first, second].map(|fd| (0..6).filter(|_| gets(fd)).count());
        torn += i32::from(got != [6, 0] && got != [0, 6]);
        close(sender);
    }
    say!("torn: {torn}");
}

/// With SO_REUSEADDR the last one has the port.
fn reused_port() {
    let [first, second] = [SO_REUSEADDR; 2].map(|how| {
        let fd = socket(SOCK_DGRAM | SOCK_NONBLOCK);
        set_option(fd, SOL_SOCKET, how, 1);
        fd
    });
    bind(first, HERE, 0);
    let number = port(first);
    say!("bound: {}", bind(second, HERE, number));
    let sender = socket(SOCK_DGRAM);
    connect(sender, HERE, number);
    for _ in 0..6 {
        send(sender, "x", 0);
    }
    say!("first: {} second: {}", read(first, 5), (0..6).filter(|_| gets(second)).count());
    close(second);
    send(sender, "y", 0);
    say!("first: {}", read(first, 5));
}

fn connected_to_the_same() {
    let peer = socket(SOCK_DGRAM);
    bind(peer, HERE, 0);
    let [first, second] = [SO_REUSEADDR; 2].map(|how| {
        let fd = socket(SOCK_DGRAM | SOCK_NONBLOCK);
        set_option(fd, SOL_SOCKET, how, 1);
        fd
    });
    bind(first, HERE, 0);
    bind(second, HERE, port(first));
    let number = port(peer);
    say!("{} {}", connect(first, HERE, number), connect(second, HERE, number));
}
