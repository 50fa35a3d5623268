//! UDP-Lite: udplite(7).

use libc::*;

use crate::inet::{
    HERE, address, bind, connect, datagrams, events_in, option, pending_error, port, receive, send, send_to,
    set_option, shutdown,
};
use crate::process;
use crate::sys::{sys, zeroed};
use crate::{say, tests};

tests! { who, values, values_of_udp, exchanged, apart, covered, nobody_there, corked, of_ip6, raw_ones, in_proc, urgent, frames }

const SEND: i32 = 10;
const RECEIVE: i32 = 11;

fn make(family: i32) -> i32 {
    sys!(SYS_socket, family, SOCK_DGRAM, IPPROTO_UDPLITE).fd()
}

fn bound() -> (i32, u16) {
    let fd = make(AF_INET);
    bind(fd, HERE, 0).need();
    (fd, port(fd))
}

/// What comes soon, if anything.
fn heard(fd: i32) -> String {
    events_in(fd, POLLIN, 50);
    receive(fd, 100, MSG_DONTWAIT)
}

fn cover(fd: i32, name: i32, bytes: i32) {
    set_option(fd, IPPROTO_UDPLITE, name, bytes).need();
}

fn who() {
    let fd = make(AF_INET);
    let about = |fd| [SO_TYPE, SO_DOMAIN, SO_PROTOCOL].map(|name| option(fd, SOL_SOCKET, name));
    say!("{:?} {:?}", about(fd), about(make(AF_INET6)));
    say!("stream: {}", sys!(SYS_socket, AF_INET, SOCK_STREAM, IPPROTO_UDPLITE));
    say!("a low port: {}", bind(fd, HERE, 700));
    process::as_plain_user(|| say!("a user: {}", bind(make(AF_INET), HERE, 700)));
}

fn values() {
    let fd = make(AF_INET);
    for name in [SEND, RECEIVE] {
        let get = || option(fd, IPPROTO_UDPLITE, name);
        say!("{name} first: {}", get());
        for value in [0, 1, 7, 8, 9, 65535, 65536, -1] {
            say!("{value}: {} {}", set_option(fd, IPPROTO_UDPLITE, name, value), get());
        }
        say!("of UDP: {} {}", set_option(fd, IPPROTO_UDP, name, 20), option(fd, IPPROTO_UDP, name));
        say!("short: {}", sys!(SYS_setsockopt, fd, IPPROTO_UDPLITE, name, &1i32, 3));
    }
    say!("another: {} {}", set_option(fd, IPPROTO_UDPLITE, 12345, 1), option(fd, IPPROTO_UDPLITE, 12345));
}

fn values_of_udp() {
    let (fd, _) = datagrams();
    for level in [IPPROTO_UDP, IPPROTO_UDPLITE] {
        say!("{} {}", set_option(fd, level, SEND, 8), option(fd, level, SEND));
        say!("{} {}", set_option(fd, level, RECEIVE, 8), option(fd, level, RECEIVE));
    }
}

fn exchanged() {
    let ((a, here), (b, there)) = (bound(), bound());
    say!("{} {} {}", send_to(a, "one", there), send_to(a, "", there), heard(b));
    say!("{}", heard(b));
    connect(b, HERE, here).need();
    say!("{} {}", send(b, "back", 0), heard(a));
    say!("{}", shutdown(b, SHUT_RDWR));
    say!("{}", send(b, "x", 0));
}

/// UDP has other ports.
fn apart() {
    let ((lite, number), (plain, other)) = (bound(), datagrams());
    let third = make(AF_INET);
    say!("{} {}", bind(crate::inet::socket(SOCK_DGRAM), HERE, number), bind(third, HERE, other));
    say!("{}", bind(make(AF_INET), HERE, number));
    say!("{} {}", send_to(plain, "x", number), heard(lite));
    say!("{} {} {}", send_to(lite, "y", other), heard(third), heard(plain));
}

fn covered() {
    let ((a, _), (b, there)) = (bound(), bound());
    connect(a, HERE, there).need();
    let text = "0123456789";
    for least in [-2, 0, 8, 12, 20] {
        if least != -2 {
            cover(b, RECEIVE, least);
        }
        for part in [0, 8, 12, 17, 18, 100] {
            cover(a, SEND, part);
            say!("{least} {part}: {} {}", send(a, text, 0), heard(b));
        }
    }
}

fn nobody_there() {
    let (fd, number) = bound();
    crate::file::close(fd);
    let fd = make(AF_INET);
    say!("not connected: {} {}", send_to(fd, "x", number), pending_error(fd));
    connect(fd, HERE, number).need();
    say!("{} {} {}", send(fd, "x", 0), send(fd, "x", 0), send(fd, "x", 0));
    cover(fd, SEND, 8);
    say!("{} {}", send(fd, "x", 0), pending_error(fd));
}

fn corked() {
    let ((a, _), (b, there)) = (bound(), bound());
    connect(a, HERE, there).need();
    cover(a, SEND, 10);
    cover(b, RECEIVE, 11);
    say!("{} {} {}", send(a, "one ", MSG_MORE), send(a, "two", 0), heard(b));
    cover(a, SEND, 11);
    say!("{} {} {}", send(a, "one ", MSG_MORE), send(a, "two", 0), heard(b));
}

fn of_ip6() {
    let (a, b) = (make(AF_INET6), make(AF_INET6));
    let mut there: sockaddr_in6 = zeroed();
    there.sin6_family = AF_INET6 as u16;
    there.sin6_addr.s6_addr[15] = 1;
    sys!(SYS_bind, b, &there, 28).need();
    there.sin6_port = port(b).to_be();
    cover(a, SEND, 9);
    let send = |text: &str| sys!(SYS_sendto, a, text, text.len(), 0, &there, 28);
    say!("{} {}", send("abc"), heard(b));
    cover(b, RECEIVE, 10);
    say!("{} {}", send("abc"), heard(b));
    crate::file::close(b);
    sys!(SYS_connect, a, &there, 28).need();
    say!("{} {}", send("x"), send("x"));
}

fn sum(pieces: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = pieces.concat();
    let pairs = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let sum: u32 = pairs.sum();
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

/// The checksum of what is covered, and of addresses, protocol and length.
fn sum_of(datagram: &[u8], covered: usize) -> u16 {
    let here = HERE.to_be_bytes();
    sum(&[&here, &here, &[0, 136], &(datagram.len() as u16).to_be_bytes(), &datagram[..covered.min(datagram.len())]])
}

/// A datagram as a raw socket writes it.
fn written(to: u16, covered: u16, right: bool) -> Vec<u8> {
    let mut bytes = [1000u16.to_be_bytes(), to.to_be_bytes(), covered.to_be_bytes(), [0, 0]].concat();
    bytes.extend(b"written");
    let sum = sum_of(&bytes, if covered == 0 { bytes.len() } else { covered.into() });
    bytes[6..8].copy_from_slice(&(sum ^ u16::from(!right)).to_be_bytes());
    bytes
}

fn raw_ones() {
    let raw = sys!(SYS_socket, AF_INET, SOCK_RAW, IPPROTO_UDPLITE).fd();
    let (fd, number) = bound();
    for covered in [0, 7, 8, 11, 15, 16] {
        for right in [true, false] {
            let bytes = written(number, covered, right);
            sys!(SYS_sendto, raw, &bytes[..], bytes.len(), 0, &address(HERE, 0), 16).need();
            say!("{covered} {right}: {}", heard(fd));
        }
    }
    let bytes = [0u8, 1, 2];
    say!("short: {} {}", sys!(SYS_sendto, raw, &bytes, 3, 0, &address(HERE, 0), 16), heard(fd));
    let mut bytes = written(number, 0, true);
    bytes[6..8].fill(0);
    say!("no sum: {} {}", sys!(SYS_sendto, raw, &bytes[..], bytes.len(), 0, &address(HERE, 0), 16), heard(fd));
}

fn in_proc() {
    let (fd, number) = bound();
    let text = |name: &str| std::fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
    let own = format!(" 0100007F:{number:04X} 00000000:0000 07 ");
    say!("{} {}", text("udplite").lines().filter(|line| line.contains(&own)).count(), text("udp").contains(&own));
    for name in ["udplite", "udplite6"] {
        say!("{:?}", text(name).lines().next());
    }
    let line = |name, start| text(name).lines().find(|line| line.starts_with(start)).map(str::to_string);
    say!("{:?} {:?}", line("sockstat", "UDPLITE:"), line("sockstat6", "UDPLITE6:"));
    crate::file::close(fd);
    say!("{:?}", line("sockstat", "UDPLITE:"));
}

fn urgent() {
    let ((a, _), (b, there)) = (bound(), bound());
    connect(a, HERE, there).need();
    say!("{} {}", send(a, "x", MSG_OOB), send(a, "y", 0));
    say!("{}", receive(b, 5, MSG_OOB | MSG_DONTWAIT));
}

/// What goes by at the loopback.
fn frames() {
    let watch = sys!(SYS_socket, AF_PACKET, SOCK_DGRAM, i32::from((ETH_P_IP as u16).to_be())).fd();
    let ((a, _), (_b, there)) = (bound(), bound());
    for part in [-2, 0, 8, 10, 14, 50] {
        if part != -2 {
            cover(a, SEND, part);
        }
        send_to(a, "abcdef", there).need();
        events_in(watch, POLLIN, 100);
        let mut buffer = [0u8; 100];
        let ret = sys!(SYS_recvfrom, watch, &mut buffer, 100, MSG_DONTWAIT, 0, 0);
        let covered = u16::from_be_bytes([buffer[24], buffer[25]]);
        say!("{part}: {ret} {} covered {covered}", buffer[9]);
    }
}
