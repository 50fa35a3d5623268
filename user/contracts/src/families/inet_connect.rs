//! TCP sockets: how a connection begins.

use libc::*;

use crate::file::{close, write};
use crate::inet::{
    HERE, accept, address, bind, connect, connection, disconnect, events, events_in, listen, listener, or_signal,
    own_name, peer_name, pending_error, port, receive, send, set_option, shutdown, socket, tcp_state,
};
use crate::process;
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, signal, tests};

tests! {
    refused, errors, unreachable, names, from_a_port, at_once, not_at_once, refused_later, asked_for_the_error, from_epoll,
    two_calls, backlog_is_full, backlog_gets_room, listener_goes, interrupted, in_time, undone, undone_listener,
    again_after_the_end, many, shut_while_connecting, half_a_port_pair,
}

/// A port that nobody listens on.
fn free_port() -> u16 {
    let fd = socket(SOCK_STREAM);
    bind(fd, HERE, 0);
    let number = port(fd);
    close(fd);
    number
}

fn nonblocking() -> i32 {
    socket(SOCK_STREAM | SOCK_NONBLOCK)
}

/// A socket whose connection finds no room with a listener whose backlog is small.
fn waiting_for(number: u16) -> i32 {
    loop {
        let client = nonblocking();
        connect(client, HERE, number);
        process::sleep_ms(10);
        if tcp_state(client) == "2" {
            return client;
        }
    }
}

fn refused() {
    let fd = socket(SOCK_STREAM);
    say!("nobody there: {}", connect(fd, HERE, free_port()));
    say!("then: {} {} {}", events(fd), pending_error(fd), peer_name(fd));
    say!("state: {}", tcp_state(fd));
    let (_listener, number) = listener(1);
    say!("another try: {}", connect(fd, HERE, number));
    say!("port 0: {}", connect(socket(SOCK_STREAM), HERE, 0));
    let bound = socket(SOCK_STREAM);
    bind(bound, HERE, 0);
    say!("bound only: {}", connect(socket(SOCK_STREAM), HERE, port(bound)));
}

fn errors() {
    let (_listener, number) = listener(1);
    let fd = socket(SOCK_STREAM);
    let mut to = address(HERE, number);
    say!("short: {}", sys!(SYS_connect, fd, &to, 15));
    say!("very short: {}", sys!(SYS_connect, fd, &to, 1));
    say!("nowhere: {}", sys!(SYS_connect, fd, NOWHERE, 16));
    to.sin_family = AF_INET6 as u16;
    say!("family: {}", sys!(SYS_connect, fd, &to, 16));
    say!("no socket: {}", sys!(SYS_connect, 77, &to, 16));
    say!("good: {}", connect(fd, HERE, number));
    say!("again: {}", connect(fd, HERE, number));
}

fn unreachable() {
    say!("multicast: {}", connect(socket(SOCK_STREAM), 0xe000_0001, 80));
    say!("broadcast: {}", connect(socket(SOCK_STREAM), u32::MAX, 80));
}

fn names() {
    let (_listener, number) = listener(1);
    let fd = socket(SOCK_STREAM);
    say!("before: {}, {}", own_name(fd), peer_name(fd));
    connect(fd, HERE, number);
    say!("after: {}, {}", own_name(fd), peer_name(fd));
    let fd = socket(SOCK_STREAM);
    connect(fd, HERE, free_port());
    say!("refused: {}", peer_name(fd));
}

fn from_a_port() {
    let (fd, number) = listener(1);
    let client = socket(SOCK_STREAM);
    bind(client, HERE + 2, 0);
    let own = port(client);
    say!("connect: {} {}", connect(client, HERE, number), own_name(client));
    say!("the same port: {} {}", port(client) == own, peer_name(accept(fd).fd()));
}

fn at_once() {
    let (fd, number) = listener(1);
    let client = nonblocking();
    say!("connect: {}", connect(client, HERE, number));
    say!("events: {} {}", events_in(client, POLLOUT, 1000), events(client));
    say!("error: {} state {}", pending_error(client), tcp_state(client));
    say!("second: {}", connect(client, HERE, number));
    say!("third: {}", connect(client, HERE, number));
    say!("accepted: {}", peer_name(accept(fd).fd()));
}

fn not_at_once() {
    let (_fd, number) = listener(0);
    connect(socket(SOCK_STREAM), HERE, number);
    let client = nonblocking();
    let waiting = waiting_for(number);
    say!("waits: {} {}", events(waiting), tcp_state(waiting));
    say!("again: {}", connect(waiting, HERE, number));
    say!("send: {} receive: {}", or_signal(|| send(waiting, "x", 0)), receive(waiting, 1, 0));
    say!("names: {} {}", own_name(waiting), peer_name(waiting));
    say!("error: {}", pending_error(waiting));
    close(client);
}

fn refused_later() {
    let client = nonblocking();
    say!("connect: {}", connect(client, HERE, free_port()));
    say!("events: {} {}", events_in(client, POLLOUT, 1000), events(client));
    say!("second: {}", connect(client, HERE, free_port()));
    say!("events: {}", events(client));
    let (_listener, number) = listener(1);
    say!("third: {}", connect(client, HERE, number));
    say!("fourth: {}", connect(client, HERE, number));
}

fn asked_for_the_error() {
    let client = nonblocking();
    connect(client, HERE, free_port());
    say!("error: {} then {}", pending_error(client), pending_error(client));
    say!("events: {}", events(client));
    say!("receive: {} send: {}", receive(client, 1, 0), or_signal(|| send(client, "x", 0)));
    say!("connect: {}", connect(client, HERE, free_port()));
    let client = nonblocking();
    connect(client, HERE, free_port());
    say!("receive: {} then {}", receive(client, 1, 0), receive(client, 1, 0));
    let client = nonblocking();
    connect(client, HERE, free_port());
    say!("send: {}", or_signal(|| send(client, "x", 0)));
    say!("then: {}", or_signal(|| send(client, "x", 0)));
}

fn from_epoll() {
    let (_fd, number) = listener(1);
    let epoll = sys!(SYS_epoll_create1, 0).fd();
    let client = nonblocking();
    let mut event = epoll_event { events: (EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP) as u32, u64: 7 };
    sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, client, &mut event);
    let wait = || {
        let mut got: epoll_event = zeroed();
        let ret = sys!(SYS_epoll_pwait, epoll, &mut got, 1, 50, 0, 8);
        format!("{ret} {:x}", { got.events })
    };
    say!("fresh: {}", wait());
    say!("again: {}", wait());
    connect(client, HERE, number);
    say!("connected: {}", wait());
    say!("again: {}", wait());
}

fn two_calls() {
    let (_fd, number) = listener(0);
    waiting_for(number);
    let client = socket(SOCK_STREAM);
    let time = timeval { tv_sec: 0, tv_usec: 20_000 };
    sys!(SYS_setsockopt, client, SOL_SOCKET, SO_SNDTIMEO, &time, 16);
    say!("not in time: {}", connect(client, HERE, number));
    say!("nor now: {}", connect(client, HERE, number));
}

fn in_time() {
    let (_fd, number) = listener(1);
    let client = socket(SOCK_STREAM);
    let time = timeval { tv_sec: 5, tv_usec: 0 };
    sys!(SYS_setsockopt, client, SOL_SOCKET, SO_SNDTIMEO, &time, 16);
    say!("in time: {}", connect(client, HERE, number));
}

fn backlog_is_full() {
    for backlog in [0, 1, 3] {
        let (fd, number) = listener(backlog);
        let mut made = 0;
        let _clients: Vec<i32> = (0..8)
            .map(|_| {
                let client = nonblocking();
                connect(client, HERE, number);
                process::sleep_ms(5);
                made += i32::from(tcp_state(client) == "1");
                client
            })
            .collect();
        sys!(SYS_fcntl, fd, F_SETFL, O_NONBLOCK);
        let mut accepted = 0;
        while accepted < made && accept(fd).ok() {
            accepted += 1;
        }
        say!("{backlog}: {made} made, {accepted} accepted");
    }
}

fn backlog_gets_room() {
    let (fd, number) = listener(0);
    connect(socket(SOCK_STREAM), HERE, number);
    let child = process::child(|| {
        let client = socket(SOCK_STREAM);
        let second = socket(SOCK_STREAM);
        i32::from(connect(client, HERE, number) != Ret(0) || connect(second, HERE, number) != Ret(0))
    });
    process::sleep_ms(30);
    say!("accepted: {}", (0..3).all(|_| accept(fd).ok()));
    say!("they: {}", process::wait(child));
}

fn listener_goes() {
    let (fd, number) = listener(2);
    let client = socket(SOCK_STREAM);
    connect(client, HERE, number);
    write(client, "x");
    say!("before: {}", events(client));
    close(fd);
    say!("after: {}", events(client));
    say!("receive: {} {}", receive(client, 1, 0), receive(client, 1, 0));
}

fn interrupted() {
    let (_fd, number) = listener(0);
    waiting_for(number);
    extern "C" fn nothing(_: i32, _: *const siginfo_t, _: *mut c_void) {}
    signal::handle(SIGUSR1, nothing, 0);
    let parent = sys!(SYS_getpid).0 as i32;
    let child = process::child(|| {
        process::sleep_ms(30);
        process::kill(parent, SIGUSR1);
        0
    });
    let client = socket(SOCK_STREAM);
    say!("connect: {}", connect(client, HERE, number));
    process::wait(child);
    sys!(SYS_fcntl, client, F_SETFL, O_NONBLOCK);
    say!("it goes on: {} {}", connect(client, HERE, number), tcp_state(client));
}

fn undone() {
    let [here, there] = connection();
    say!("connected: {}", disconnect(here));
    say!("here: {} {} {} state {}", events(here), own_name(here), peer_name(here), tcp_state(here));
    say!("the other: {} {}", events(there), receive(there, 1, 0));
    let (_fd, number) = listener(1);
    say!("error: {} connect: {}", pending_error(here), connect(here, HERE, number));
    let fresh = socket(SOCK_STREAM);
    say!("fresh: {}", disconnect(fresh));
    let bound = socket(SOCK_STREAM);
    bind(bound, HERE, 0);
    say!("bound: {} {}", disconnect(bound), own_name(bound));
}

fn undone_listener() {
    let (fd, number) = listener(1);
    say!("listener: {} {}", disconnect(fd), tcp_state(fd));
    say!("nobody listens: {}", connect(socket(SOCK_STREAM), HERE, number));
    say!("again: {} {}", listen(fd, 1), port(fd) == number);
}

fn again_after_the_end() {
    let [here, there] = connection();
    close(there);
    let (_fd, number) = listener(1);
    say!("the other has ended: {}", connect(here, HERE, number));
    shutdown(here, SHUT_WR);
    say!("both have: {} state {}", connect(here, HERE, number), tcp_state(here));
    let [here, there] = connection();
    write(here, "unread");
    close(there);
    say!("reset: {} state {}", connect(here, HERE, number), tcp_state(here));
}

fn many() {
    let (fd, number) = listener(200);
    let clients: Vec<i32> = (0..150).map(|_| socket(SOCK_STREAM)).collect();
    say!("made: {}", clients.iter().filter(|client| connect(**client, HERE, number).ok()).count());
    let servers: Vec<i32> = (0..150).map(|_| accept(fd).fd()).collect();
    for client in &clients {
        write(*client, "x");
    }
    say!("heard: {}", servers.iter().filter(|server| receive(**server, 5, 0) == "\"x\"").count());
    for (client, server) in clients.iter().zip(&servers) {
        close(*client);
        say_if_wrong(*server);
    }
}

fn say_if_wrong(server: i32) {
    let end = receive(server, 5, 0);
    if end != "\"\"" {
        say!("no end: {end}");
    }
}

fn shut_while_connecting() {
    let (_fd, number) = listener(0);
    let waiting = waiting_for(number);
    say!("shutdown: {} state {}", shutdown(waiting, SHUT_RDWR), tcp_state(waiting));
    say!("events: {} error {}", events(waiting), pending_error(waiting));
}

fn half_a_port_pair() {
    let (_fd, number) = listener(3);
    let first = socket(SOCK_STREAM);
    set_option(first, SOL_SOCKET, SO_REUSEADDR, 1);
    bind(first, HERE, 0);
    let own = port(first);
    say!("first: {}", connect(first, HERE, number));
    let second = socket(SOCK_STREAM);
    set_option(second, SOL_SOCKET, SO_REUSEADDR, 1);
    say!("the same port: {}", bind(second, HERE, own));
    say!("the same peer: {}", connect(second, HERE, number));
    let (_other, other) = listener(3);
    say!("another peer: {}", connect(second, HERE, other));
}
