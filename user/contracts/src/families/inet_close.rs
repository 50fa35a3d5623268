//! TCP sockets: how a connection ends, and what poll says of it.

use libc::*;

use crate::file::{close, read, write};
use crate::inet::{
    HERE, accept, bind, connect, connection, events, events_in, listen, listener, or_signal, own_name, peer_name,
    pending_error, receive, send, shutdown, socket, tcp_state, waiting_bytes,
};
use crate::process;
use crate::sys::{sys, zeroed};
use crate::{say, signal, tests};

tests! {
    fresh, closed, half_closed, half_closed_other_way, both_shut, shut_twice, shut_errors, not_receiving, not_receiving_and_closed,
    unread_bytes, unread_after_end, lingering_none, lingering, write_after_close, write_after_both, read_after_reset,
    reset_with_bytes, reset_before_accept, child_exits, killed, poll_sees, epoll_sees, edges, waiting_reader_is_told, waiting_writer_is_told,
    shut_wakes_reader, shut_wakes_accept, states, signals,
}

fn reset(fd: i32) {
    let linger = linger { l_onoff: 1, l_linger: 0 };
    sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_LINGER, &linger, 8);
    close(fd);
}

fn fresh() {
    let fd = socket(SOCK_STREAM | SOCK_NONBLOCK);
    say!("{} {} {}", events(fd), tcp_state(fd), waiting_bytes(fd));
    say!("receive: {} send: {}", receive(fd, 1, 0), or_signal(|| send(fd, "x", 0)));
    say!("quietly: {}", or_signal(|| send(fd, "x", MSG_NOSIGNAL)));
    bind(fd, HERE, 0);
    say!("bound: {} {}", events(fd), receive(fd, 1, 0));
}

fn closed() {
    let [here, there] = connection();
    say!("open: {}", events(here));
    write(there, "last");
    close(there);
    say!("closed: {} {}", events(here), tcp_state(here));
    say!("receive: {} {} {}", read(here, 10), read(here, 10), receive(here, 10, MSG_PEEK));
    say!("names: {} {}", own_name(here), peer_name(here));
}

fn half_closed() {
    let [here, there] = connection();
    write(here, "question");
    say!("shutdown: {}", shutdown(here, SHUT_WR));
    say!("here: {} there: {} {}", events(here), events(there), tcp_state(there));
    say!("send: {}", or_signal(|| send(here, "x", 0)));
    say!("there: {} {}", read(there, 20), read(there, 20));
    say!("answer: {} {}", write(there, "answer"), read(here, 20));
    close(there);
    say!("the end: {} {} {}", read(here, 20), events(here), tcp_state(here));
}

fn half_closed_other_way() {
    let [here, there] = connection();
    write(here, "lost?");
    say!("shutdown: {}", shutdown(there, SHUT_RD));
    say!("there: {} {}", events(there), tcp_state(there));
    say!("here: {} {}", events(here), tcp_state(here));
    say!("receive: {} {}", read(there, 10), read(there, 10));
    say!("more: {} {} {}", write(here, "more"), read(there, 10), read(there, 10));
}

fn both_shut() {
    let [here, there] = connection();
    shutdown(here, SHUT_WR);
    shutdown(there, SHUT_WR);
    say!("here: {} {} {}", events(here), tcp_state(here), peer_name(here));
    say!("there: {} {} {}", events(there), tcp_state(there), peer_name(there));
    say!("receive: {} {}", receive(here, 1, 0), receive(there, 1, 0));
    say!("send: {} {}", or_signal(|| send(here, "x", 0)), or_signal(|| send(there, "x", 0)));
    say!("errors: {} {}", pending_error(here), pending_error(there));
    say!("shutdown: {} {}", shutdown(here, SHUT_WR), shutdown(there, SHUT_RD));
}

fn shut_twice() {
    let [here, there] = connection();
    say!("twice: {} {}", shutdown(here, SHUT_WR), shutdown(here, SHUT_WR));
    say!("then the other way: {} {}", shutdown(here, SHUT_RD), events(here));
    say!("there: {}", events(there));
}

fn shut_errors() {
    let fd = socket(SOCK_STREAM | SOCK_NONBLOCK);
    say!("fresh: {} {}", shutdown(fd, SHUT_RDWR), events(fd));
    say!("receive: {} send: {}", receive(fd, 1, 0), or_signal(|| send(fd, "x", 0)));
    say!("how: {} {}", shutdown(fd, 3), shutdown(fd, -1));
    let (_fd, number) = listener(1);
    say!("connect: {}", connect(fd, HERE, number));
    say!("of a listener, write: {}", shutdown(_fd, SHUT_WR));
    say!("still: {}", connect(socket(SOCK_STREAM), HERE, number));
    say!("of a listener, read: {} {}", shutdown(_fd, SHUT_RD), tcp_state(_fd));
    say!("events: {} accept: {}", events(_fd), accept(_fd));
    say!("then: {} {}", connect(socket(SOCK_STREAM), HERE, number), listen(_fd, 1));
}

fn not_receiving() {
    let [here, there] = connection();
    shutdown(there, SHUT_RDWR);
    say!("before: {} {}", events(here), events(there));
    say!("send: {}", or_signal(|| send(here, "x", 0)));
    say!("after: {} {}", events(here), events(there));
    say!("again: {}", or_signal(|| send(here, "x", 0)));
    say!("errors: {} {}", pending_error(here), pending_error(there));
}

fn not_receiving_and_closed() {
    let [here, there] = connection();
    shutdown(there, SHUT_RD);
    write(here, "nobody reads this");
    close(there);
    say!("{} {} {}", events(here), read(here, 5), read(here, 5));
}

fn unread_bytes() {
    let [here, there] = connection();
    write(here, "unread");
    write(there, "answer");
    close(there);
    say!("events: {} state {}", events(here), tcp_state(here));
    say!("receive: {} {} {}", receive(here, 9, 0), receive(here, 9, 0), receive(here, 9, 0));
    say!("send: {}", or_signal(|| send(here, "x", 0)));
    let [here, there] = connection();
    write(here, "unread");
    close(there);
    say!("send: {} {}", or_signal(|| send(here, "x", 0)), or_signal(|| send(here, "x", 0)));
    say!("receive: {}", receive(here, 9, 0));
}

fn unread_after_end() {
    let [here, there] = connection();
    write(here, "unread");
    shutdown(there, SHUT_WR);
    say!("before: {}", read(here, 9));
    close(there);
    say!("events: {} error {}", events(here), pending_error(here));
    say!("receive: {}", receive(here, 9, 0));
}

fn lingering_none() {
    let [here, there] = connection();
    write(there, "sent");
    reset(there);
    say!("events: {}", events(here));
    say!("receive: {} {} {}", receive(here, 9, 0), receive(here, 9, 0), receive(here, 9, 0));
    say!("events: {}", events(here));
}

fn lingering() {
    let [here, there] = connection();
    let linger = linger { l_onoff: 1, l_linger: 2 };
    sys!(SYS_setsockopt, there, SOL_SOCKET, SO_LINGER, &linger, 8);
    write(there, "sent");
    say!("close: {}", close(there));
    say!("receive: {} {}", receive(here, 9, 0), receive(here, 9, 0));
}

fn write_after_close() {
    let [here, there] = connection();
    close(there);
    say!("first: {}", or_signal(|| send(here, "x", 0)));
    say!("events: {}", events(here));
    say!("second: {}", or_signal(|| send(here, "x", 0)));
    say!("third: {}", or_signal(|| send(here, "x", MSG_NOSIGNAL)));
    say!("receive: {} error {}", receive(here, 1, 0), pending_error(here));
}

fn write_after_both() {
    let [here, there] = connection();
    close(there);
    shutdown(here, SHUT_WR);
    say!("{} {}", or_signal(|| send(here, "x", 0)), pending_error(here));
    say!("write: {}", or_signal(|| write(here, "x")));
}

fn read_after_reset() {
    let [here, there] = connection();
    reset(there);
    say!("error: {} events {}", pending_error(here), events(here));
    say!("receive: {} send {}", receive(here, 1, 0), or_signal(|| send(here, "x", 0)));
    say!("name: {} {}", own_name(here), peer_name(here));
}

fn reset_with_bytes() {
    let [here, there] = connection();
    write(there, "some");
    write(here, "more");
    reset(there);
    say!("count: {} events {}", waiting_bytes(here), events(here));
    say!("in pieces: {} {} {}", receive(here, 2, 0), receive(here, 2, 0), receive(here, 2, 0));
}

fn reset_before_accept() {
    let (fd, number) = listener(3);
    let client = socket(SOCK_STREAM);
    connect(client, HERE, number);
    write(client, "x");
    reset(client);
    say!("events: {}", events(fd));
    let there = accept(fd).fd();
    say!("accepted: {} {}", events(there), tcp_state(there));
    say!("receive: {} {}", receive(there, 5, 0), receive(there, 5, 0));
    let client = socket(SOCK_STREAM);
    connect(client, HERE, number);
    write(client, "y");
    close(client);
    let there = accept(fd).fd();
    say!("closed: {} {} {}", events(there), receive(there, 5, 0), receive(there, 5, 0));
}

fn child_exits() {
    let [here, there] = connection();
    let child = process::child(|| {
        close(here);
        write(there, "from the child");
        0
    });
    close(there);
    process::wait(child);
    say!("{} {}", read(here, 20), read(here, 20));
}

fn killed() {
    let [here, there] = connection();
    let child = process::child(|| {
        close(here);
        read(there, 20);
        process::sleep_ms(10_000);
        0
    });
    close(there);
    write(here, "x");
    process::sleep_ms(30);
    process::kill(child, SIGKILL);
    process::wait(child);
    say!("{} {}", events_in(here, POLLIN, 1000), read(here, 20));
}

fn poll_sees() {
    let [here, there] = connection();
    say!("nothing: {}", events_in(here, POLLIN, 0));
    write(there, "x");
    say!("bytes: {} {}", events_in(here, POLLIN, 1000), events_in(here, POLLRDNORM, 0));
    shutdown(there, SHUT_WR);
    say!("the end: {} {}", events_in(here, POLLIN, 1000), events_in(here, POLLRDHUP, 0));
    let (fd, number) = listener(1);
    say!("listener: {}", events(fd));
    connect(socket(SOCK_STREAM), HERE, number);
    say!("someone: {}", events(fd));
}

fn wait_on(epoll: i32) -> String {
    let mut got: epoll_event = zeroed();
    let ret = sys!(SYS_epoll_pwait, epoll, &mut got, 1, 30, 0, 8);
    format!("{ret} {:x}", { got.events })
}

fn watch(fd: i32, events: i32) -> i32 {
    let epoll = sys!(SYS_epoll_create1, 0).fd();
    let mut event = epoll_event { events: events as u32, u64: 7 };
    sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, fd, &mut event).need();
    epoll
}

fn epoll_sees() {
    let [here, there] = connection();
    let epoll = watch(here, EPOLLIN | EPOLLRDHUP);
    say!("nothing: {}", wait_on(epoll));
    write(there, "x");
    say!("bytes: {} {}", wait_on(epoll), wait_on(epoll));
    read(here, 5);
    say!("none: {}", wait_on(epoll));
    shutdown(there, SHUT_WR);
    say!("the end: {}", wait_on(epoll));
    close(there);
    shutdown(here, SHUT_WR);
    say!("both: {}", wait_on(epoll));
    let [here, there] = connection();
    let epoll = watch(here, EPOLLIN);
    reset(there);
    say!("reset: {}", wait_on(epoll));
}

fn edges() {
    let [here, there] = connection();
    let epoll = watch(here, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
    say!("first: {} {}", wait_on(epoll), wait_on(epoll));
    write(there, "x");
    say!("bytes: {} {}", wait_on(epoll), wait_on(epoll));
    write(there, "y");
    say!("more: {} {}", wait_on(epoll), wait_on(epoll));
    read(here, 5);
    say!("read: {}", wait_on(epoll));
    shutdown(there, SHUT_WR);
    say!("the end: {} {}", wait_on(epoll), wait_on(epoll));
}

fn waiting_reader_is_told() {
    for how in ["close", "reset", "shutdown"] {
        let [here, there] = connection();
        let child = process::child(|| {
            close(here);
            process::sleep_ms(20);
            match how {
                "close" => close(there),
                "reset" => {
                    reset(there);
                    crate::sys::Ret(0)
                }
                _ => shutdown(there, SHUT_WR),
            };
            process::sleep_ms(20);
            0
        });
        close(there);
        say!("{how}: {}", read(here, 5));
        process::wait(child);
    }
}

fn waiting_writer_is_told() {
    let [here, there] = connection();
    let text = "t".repeat(1 << 16);
    while send(here, &text, MSG_DONTWAIT).ok() {}
    let child = process::child(|| {
        close(here);
        process::sleep_ms(30);
        0
    });
    close(there);
    say!("{}", or_signal(|| send(here, &text, 0)));
    process::wait(child);
}

fn shut_wakes_reader() {
    let [here, _there] = connection();
    let child = process::child(|| {
        process::sleep_ms(20);
        shutdown(here, SHUT_RD);
        0
    });
    say!("{}", read(here, 5));
    process::wait(child);
}

fn shut_wakes_accept() {
    let (fd, _) = listener(1);
    let child = process::child(|| {
        process::sleep_ms(20);
        shutdown(fd, SHUT_RDWR);
        0
    });
    say!("{}", accept(fd));
    process::wait(child);
}

fn states() {
    let [here, there] = connection();
    say!("open: {} {}", tcp_state(here), tcp_state(there));
    shutdown(here, SHUT_WR);
    // The other side takes its time to acknowledge it.
    process::sleep_ms(300);
    say!("one end: {} {}", tcp_state(here), tcp_state(there));
    close(there);
    say!("both: {}", tcp_state(here));
    let [here, there] = connection();
    close(there);
    say!("closed: {}", tcp_state(here));
    shutdown(here, SHUT_WR);
    say!("both: {}", tcp_state(here));
}

fn signals() {
    let [here, there] = connection();
    extern "C" fn nothing(_: i32, _: *const siginfo_t, _: *mut c_void) {}
    signal::handle(SIGUSR1, nothing, 0);
    let parent = sys!(SYS_getpid).0 as i32;
    let child = process::child(|| {
        for _ in 0..2 {
            process::sleep_ms(20);
            process::kill(parent, SIGUSR1);
        }
        process::sleep_ms(20);
        write(there, "x");
        0
    });
    say!("read: {}", read(here, 5));
    signal::handle(SIGUSR1, nothing, SA_RESTART);
    say!("restarted: {}", read(here, 5));
    process::wait(child);
}
