//! Internet sockets: what several calls send as one, and calls that send a part.

use libc::*;

use crate::file::{close, read, write};
use crate::inet::{
    HERE, connect, connection, datagrams, or_signal, pending_error, port, receive, send, send_to, shutdown, socket,
    waiting_bytes,
};
use crate::memory::{self, PAGE};
use crate::process;
use crate::sys::{sys, zeroed};
use crate::{say, tests};

tests! {
    sent_cut_short, written_cut_short, together, to_the_first, too_much, not_there_yet, not_there,
    nothing_of_it, ends_with_it, refused_elsewhere,
    to_many, control_messages,
}

/// The other side goes while a call waits for room.
fn cut_short(call: impl Fn(i32, &str) -> crate::sys::Ret) {
    let [here, there] = connection();
    let text = "t".repeat(16 << 20);
    let child = process::child(|| {
        close(here);
        process::sleep_ms(100);
        // Much of it is not read.
        0
    });
    close(there);
    let sent = call(here, &text);
    say!("some: {}", sent.0 > 0 && sent.0 < 16 << 20);
    process::wait(child);
    say!("then: {}", or_signal(|| send(here, "x", 0)));
    say!("after that: {} {}", or_signal(|| send(here, "x", 0)), pending_error(here));
}

fn sent_cut_short() {
    cut_short(|fd, text| send(fd, text, 0));
}

fn written_cut_short() {
    cut_short(write);
}

/// MSG_MORE makes one datagram of several.
fn together() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    connect(a, HERE, there);
    say!("{} {} {}", send(a, "one", MSG_MORE), send(a, "", MSG_MORE), send(a, "two", MSG_MORE));
    say!("none yet: {}", receive(b, 20, MSG_DONTWAIT));
    say!("{} {}", send(a, "three", 0), waiting_bytes(b));
    say!("{} {}", receive(b, 20, MSG_DONTWAIT), receive(b, 20, MSG_DONTWAIT));
    say!("with write: {} {} {}", send(a, "x", MSG_MORE), write(a, "y"), read(b, 20));
    say!("with nothing: {} {} {}", send(a, "x", MSG_MORE), send(a, "", 0), read(b, 20));
}

/// The first call says where it goes.
fn to_the_first() {
    let (a, _) = datagrams();
    let ((b, first), (c, second)) = (datagrams(), datagrams());
    let to = |text: &str, port: u16, flags: i32| {
        let to = crate::inet::address(HERE, port);
        sys!(SYS_sendto, a, text, text.len(), flags, &to, 16)
    };
    say!("{} {}", to("x", first, MSG_MORE), to("y", second, 0));
    say!("{} {}", receive(b, 5, MSG_DONTWAIT), receive(c, 5, MSG_DONTWAIT));
    say!("{} {}", to("x", second, MSG_MORE), send(a, "y", 0));
    say!("{} {}", receive(b, 5, MSG_DONTWAIT), receive(c, 5, MSG_DONTWAIT));
    let fd = socket(SOCK_DGRAM);
    say!("nowhere: {} {}", send(fd, "x", MSG_MORE), port(fd) != 0);
}

/// Together it is more than a datagram has room for: all of it is lost.
fn too_much() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    connect(a, HERE, there);
    let half = "t".repeat(40_000);
    say!("{} {}", send(a, &half, MSG_MORE), send(a, &half, MSG_MORE));
    say!("none: {}", receive(b, 5, MSG_DONTWAIT));
    say!("{} {}", send(a, "x", 0), receive(b, 20, MSG_DONTWAIT));
    let rest = "t".repeat(65_507 - 40_000);
    say!("just so: {} {} {}", send(a, &half, MSG_MORE), send(a, &rest, 0), waiting_bytes(b));
}

/// A piece from memory that nothing has touched before.
fn not_there_yet() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    connect(a, HERE, there);
    let pages = memory::pages(3) as usize;
    say!("{}", send(a, "x", MSG_MORE));
    say!("{} {}", sys!(SYS_sendto, a, pages, 2, MSG_MORE, 0, 0), sys!(SYS_write, a, pages + PAGE, 1));
    say!("{}", receive(b, 5, MSG_DONTWAIT));
    say!("first: {} {}", sys!(SYS_sendto, a, pages + 2 * PAGE, 2, MSG_MORE, 0, 0), send(a, "y", 0));
    say!("{}", receive(b, 5, MSG_DONTWAIT));
}

/// A piece that cannot be read: all of it is lost.
fn not_there() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    connect(a, HERE, there);
    let at_end = |how: &dyn Fn() -> crate::sys::Ret| {
        say!("{} {}", send(a, "x", MSG_MORE), how());
        say!("{} {}", send(a, "y", 0), receive(b, 5, MSG_DONTWAIT));
    };
    at_end(&|| sys!(SYS_sendto, a, 16, 2, MSG_MORE, 0, 0));
    at_end(&|| sys!(SYS_sendto, a, 16, 2, 0, 0, 0));
    at_end(&|| sys!(SYS_write, a, 16, 2));
    say!("first: {} {}", sys!(SYS_sendto, a, 16, 2, MSG_MORE, 0, 0), send(a, "y", 0));
    say!("{}", receive(b, 5, MSG_DONTWAIT));
}

/// What was not finished is not sent at the end.
fn nothing_of_it() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    connect(a, HERE, there);
    say!("{}", send(a, "x", MSG_MORE));
    close(a);
    say!("{}", receive(b, 5, MSG_DONTWAIT));
}

fn ends_with_it() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    connect(a, HERE, there);
    say!("{} {}", send(a, "x", MSG_MORE), shutdown(a, SHUT_WR));
    say!("{} {}", or_signal(|| send(a, "y", 0)), receive(b, 5, MSG_DONTWAIT));
}

/// A connected socket hears of nobody else.
fn refused_elsewhere() {
    let ((a, _), (_, there)) = (datagrams(), datagrams());
    let (gone, nobody) = datagrams();
    close(gone);
    connect(a, HERE, there);
    say!("{} {}", send_to(a, "x", nobody), pending_error(a));
    connect(a, HERE, nobody);
    say!("{} {}", send_to(a, "x", nobody), pending_error(a));
}

fn to_many() {
    let fd = socket(SOCK_STREAM);
    for ip in [0x7fff_ffff, 0xffff_ffff, 0xe000_0001] {
        say!("{ip:x}: {}", connect(fd, ip, 80));
    }
}

/// Those that are not known.
fn control_messages() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    connect(a, HERE, there);
    let [here, other] = connection();
    for (level, kind) in [(SOL_IP, 99), (SOL_UDP, 99), (SOL_SOCKET, 99), (1234, 99)] {
        let mut control = [0u64; 3];
        control[0] = 20;
        control[1] = level as u64 | (kind as u64) << 32;
        let mut piece = [c"x".as_ptr() as usize, 1];
        let mut header: msghdr = zeroed();
        (header.msg_iov, header.msg_iovlen) = ((&raw mut piece).cast(), 1);
        (header.msg_control, header.msg_controllen) = ((&raw mut control).cast(), 24);
        let send = |fd| sys!(SYS_sendmsg, fd, &header, 0);
        say!("{level}: {} {}", send(a), send(here));
    }
    say!("{} {}", receive(b, 5, MSG_DONTWAIT), receive(other, 5, MSG_DONTWAIT));
}
