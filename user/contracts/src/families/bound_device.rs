//! Sockets that use one interface only: socket(7), SO_BINDTODEVICE.

use libc::*;

use crate::inet::{
    HERE, accept, bind, connect, datagrams, listen, option, own_name, port, receive, send_to, set_option, socket,
};
use crate::process;
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! { names, numbers, kinds, user, datagrams_there, datagrams_elsewhere, shared_ports, chosen, streams, raw, changed }

const BY_INDEX: i32 = 62;
/// Where nobody is.
const NOWHERE: i32 = 4711;

fn to_device(fd: i32, name: &str) -> Ret {
    sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_BINDTODEVICE, name, name.len())
}

fn to_index(fd: i32, index: i32) -> Ret {
    set_option(fd, SOL_SOCKET, BY_INDEX, index)
}

fn told_in(fd: i32, room: i32) -> String {
    let (mut name, mut size) = ([b'?'; 20], room);
    let ret = sys!(SYS_getsockopt, fd, SOL_SOCKET, SO_BINDTODEVICE, &mut name, &mut size);
    format!("{ret} {size} {:?}", String::from_utf8_lossy(&name[..4]))
}

fn told(fd: i32) -> String {
    format!("{} {}", told_in(fd, 16), option(fd, SOL_SOCKET, BY_INDEX))
}

fn names() {
    let fd = socket(SOCK_DGRAM);
    say!("at first: {}", told(fd));
    say!("lo: {} {}", to_device(fd, "lo"), told(fd));
    say!("with its end: {} {}", to_device(fd, "lo\0"), told(fd));
    say!("with more: {} {}", to_device(fd, "lo\0abcdefghijklmnopqrstuvwxyz"), told(fd));
    say!("unknown: {} {}", to_device(fd, "nothing"), told(fd));
    say!("long: {} {}", to_device(fd, "abcdefghijklmnopqrstuvwxyz"), told(fd));
    say!("little room: {} {} {}", told_in(fd, 15), told_in(fd, 0), told_in(fd, 20));
    say!("none: {} {}", to_device(fd, ""), told(fd));
    to_device(fd, "lo").need();
    say!("none: {} {}", to_device(fd, "\0"), told(fd));
    say!("none, little room: {}", told_in(fd, 0));
    say!("bad: {}", sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_BINDTODEVICE, 8, 3));
    say!("negative: {}", sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", -1));
}

fn numbers() {
    let fd = socket(SOCK_DGRAM);
    for index in [1, 0, -1, NOWHERE] {
        say!("{index}: {} {}", to_index(fd, index), told(fd));
    }
    say!("short: {}", sys!(SYS_setsockopt, fd, SOL_SOCKET, BY_INDEX, &1i32, 3));
}

fn kinds() {
    let of = |family, kind, protocol| {
        let fd = sys!(SYS_socket, family, kind, protocol).fd();
        format!("{} {}", to_device(fd, "lo"), told(fd))
    };
    say!("tcp: {}", of(AF_INET, SOCK_STREAM, 0));
    say!("tcp6: {}", of(AF_INET6, SOCK_STREAM, 0));
    say!("udp6: {}", of(AF_INET6, SOCK_DGRAM, 0));
    say!("raw: {}", of(AF_INET, SOCK_RAW, 200));
    say!("packet: {}", of(AF_PACKET, SOCK_RAW, 0));
    say!("unix: {}", of(AF_UNIX, SOCK_STREAM, 0));
    say!("netlink: {}", of(AF_NETLINK, SOCK_RAW, 0));
}

/// Anybody binds, who is bound stays so.
fn user() {
    let fd = socket(SOCK_DGRAM);
    process::as_plain_user(|| {
        say!("bind: {} {}", to_device(fd, "lo"), told(fd));
        say!("again: {} {} {}", to_device(fd, "lo"), to_device(fd, ""), to_device(fd, "nothing"));
        say!("by number: {} {}", to_index(fd, 0), to_index(fd, -1));
    });
}

fn datagrams_there() {
    let ((from, own), (to, port)) = (datagrams(), datagrams());
    to_device(to, "lo").need();
    say!("to one: {} {}", send_to(from, "a", port), receive(to, 9, MSG_DONTWAIT));
    to_device(from, "lo").need();
    say!("both: {} {}", send_to(from, "b", port), receive(to, 9, MSG_DONTWAIT));
    say!("back: {} {}", send_to(to, "c", own), receive(from, 9, MSG_DONTWAIT));
    say!("connect: {} {}", connect(from, HERE, port), own_name(from));
}

fn datagrams_elsewhere() {
    let ((from, _), (to, port)) = (datagrams(), datagrams());
    to_index(to, NOWHERE).need();
    say!("not heard: {} {}", send_to(from, "a", port), receive(to, 9, MSG_DONTWAIT));
    to_index(from, NOWHERE).need();
    say!("not sent: {}", send_to(from, "b", port));
    say!("connect: {}", connect(from, HERE, port));
    let fresh = socket(SOCK_DGRAM);
    to_index(fresh, NOWHERE).need();
    say!("fresh: {} {}", connect(fresh, HERE, port), bind(fresh, HERE, 0));
}

/// Who uses different interfaces may have one port.
fn shared_ports() {
    let make = |index| {
        let fd = socket(SOCK_DGRAM);
        to_index(fd, index).need();
        fd
    };
    let (here, other, any) = (make(1), make(NOWHERE), socket(SOCK_DGRAM));
    bind(here, HERE, 0).need();
    let port = port(here);
    say!("another: {}", bind(other, HERE, port));
    say!("the same: {}", bind(make(1), HERE, port));
    say!("any: {}", bind(any, HERE, port));
    let (from, _) = datagrams();
    send_to(from, "a", port).need();
    say!("heard: {} {}", receive(here, 9, MSG_DONTWAIT), receive(other, 9, MSG_DONTWAIT));
    let stream = |index| {
        let fd = socket(SOCK_STREAM);
        to_index(fd, index).need();
        format!("{} {}", bind(fd, HERE, port), listen(fd, 1))
    };
    say!("streams: {}; {}; {}", stream(1), stream(NOWHERE), stream(0));
}

/// Of several who share a port the one that says most hears it.
fn chosen() {
    let make = || {
        let fd = socket(SOCK_DGRAM);
        set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1).need();
        fd
    };
    let (device, plain) = (make(), make());
    to_device(device, "lo").need();
    bind(device, HERE, 0).need();
    bind(plain, HERE, port(device)).need();
    let (from, _) = datagrams();
    send_to(from, "a", port(device)).need();
    say!("bound: {} other: {}", receive(device, 9, MSG_DONTWAIT), receive(plain, 9, MSG_DONTWAIT));
}

fn streams() {
    let (listener, client) = (socket(SOCK_STREAM), socket(SOCK_STREAM));
    to_device(listener, "lo").need();
    bind(listener, HERE, 0).need();
    listen(listener, 3).need();
    say!("connect: {}", connect(client, HERE, port(listener)));
    let accepted = accept(listener).fd();
    say!("accepted: {}; {}", told(accepted), told(client));
    let bound = socket(SOCK_STREAM);
    to_device(bound, "lo").need();
    say!("from there: {} {}", connect(bound, HERE, port(listener)), own_name(bound));
    let elsewhere = socket(SOCK_STREAM);
    to_index(elsewhere, NOWHERE).need();
    say!("from elsewhere: {}", connect(elsewhere, HERE, port(listener)));
    let deaf = socket(SOCK_STREAM);
    to_index(deaf, NOWHERE).need();
    bind(deaf, HERE, 0).need();
    listen(deaf, 3).need();
    say!("not heard: {}", connect(socket(SOCK_STREAM), HERE, port(deaf)));
}

fn raw() {
    let make = |index| {
        let fd = sys!(SYS_socket, AF_INET, SOCK_RAW, 201).fd();
        to_index(fd, index).need();
        fd
    };
    let (any, here, elsewhere) = (make(0), make(1), make(NOWHERE));
    let send = |fd| sys!(SYS_sendto, fd, "x", 1, 0, &crate::inet::address(HERE, 0), 16);
    let heard = |fd| {
        let mut buffer = [0u8; 99];
        sys!(SYS_recvfrom, fd, &mut buffer, 99, MSG_DONTWAIT, 0, 0)
    };
    for (what, fd) in [("any", any), ("here", here), ("elsewhere", elsewhere)] {
        say!("{what}: {} heard {} {} {}", send(fd), heard(any), heard(here), heard(elsewhere));
    }
}

/// It counts when something comes, whenever it was set.
fn changed() {
    let ((from, _), (to, port)) = (datagrams(), datagrams());
    for index in [NOWHERE, 1, NOWHERE, 0] {
        to_index(to, index).need();
        send_to(from, "a", port).need();
        say!("{index}: {}", receive(to, 9, MSG_DONTWAIT));
    }
}
