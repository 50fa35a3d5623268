//! Raw sockets: raw(7).

use libc::*;

use super::icmp6::address6;
use crate::file::{close, read};
use crate::inet::{
    ANY, HERE, address, bind, connect, datagrams, disconnect, events, option, own_name, peer_name, port, set_option,
    shutdown,
};
use crate::process;
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! {
    who, names, bytes, bad_ones, destinations, echo, filter, filter_errors, bound, connected, undone, several, with_header,
    bad_headers, header_options, datagram, of_ip6, of_ip6_icmp, of_ip6_filter, of_ip6_checksum, of_ip6_errors, options, ioctls, ready, full,
}

fn make(protocol: i32) -> i32 {
    sys!(SYS_socket, AF_INET, SOCK_RAW, protocol).fd()
}

fn send_to(fd: i32, bytes: &[u8], ip: u32) -> Ret {
    sys!(SYS_sendto, fd, bytes, bytes.len(), 0, &address(ip, 0), 16)
}

/// A packet of IPv4: its header without what differs from run to run, and what is behind.
fn shown(bytes: &[u8]) -> String {
    if bytes.len() < 20 {
        return format!("{bytes:?}");
    }
    let own = usize::from(bytes[0] & 15) * 4;
    let len = u16::from_be_bytes([bytes[2], bytes[3]]);
    let ends = [12, 16].map(|at| std::net::Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[at..at + 4]).unwrap_or_default()));
    let rest = &bytes[own.min(bytes.len())..];
    let rest = if rest.len() > 40 { format!("{} bytes", rest.len()) } else { format!("{rest:?}") };
    format!("{:#x} tos {} len {len} ttl {} {} {} > {} {rest}", bytes[0], bytes[1], bytes[8], bytes[9], ends[0], ends[1])
}

fn heard(fd: i32) -> String {
    let (mut buffer, mut name, mut size) = (vec![0u8; 70_000], address(1, 1), 16i32);
    let ret = sys!(SYS_recvfrom, fd, &mut buffer[..], 70_000, MSG_DONTWAIT, &mut name, &mut size);
    if !ret.ok() {
        return ret.to_string();
    }
    let from = std::net::Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
    format!("{ret}: {} from {from} {}", shown(&buffer[..ret.0 as usize]), u16::from_be(name.sin_port))
}

fn who() {
    let of = |family, protocol| sys!(SYS_socket, family, SOCK_RAW, protocol).ok_or_error();
    for protocol in [0, 1, 17, 6, 58, 200, 255, 263, -1] {
        say!("{protocol}: {} {}", of(AF_INET, protocol), of(AF_INET6, protocol));
    }
    process::as_plain_user(|| say!("a user: {} {} {}", of(AF_INET, 1), of(AF_INET6, 58), of(AF_INET, 0)));
}

fn names() {
    let fd = make(200);
    say!("fresh: {} {} {} {}", own_name(fd), peer_name(fd), port(fd), events(fd));
    say!("bind: {} {} {}", bind(fd, HERE, 5), own_name(fd), port(fd));
    say!("again: {} {}", bind(fd, HERE + 1, 0), own_name(fd));
    say!("any: {} {}", bind(fd, ANY, 0), own_name(fd));
    say!("not ours: {} {}", bind(fd, 0x0808_0808, 0), own_name(fd));
    say!("short: {}", sys!(SYS_bind, fd, &address(HERE, 0), 15));
    for name in [SO_TYPE, SO_PROTOCOL, SO_DOMAIN, SO_ACCEPTCONN] {
        say!("{name}: {}", option(fd, SOL_SOCKET, name));
    }
    say!("listen: {} accept: {}", sys!(SYS_listen, fd, 1), sys!(SYS_accept4, fd, 0, 0, 0));
}

fn bytes() {
    let (a, b, other) = (make(200), make(200), make(201));
    say!("send: {}", send_to(a, b"hello", HERE));
    say!("{}", heard(a));
    say!("{}", heard(b));
    say!("{}", heard(other));
    say!("nothing: {} {}", send_to(a, b"", HERE + 7), heard(b));
    set_option(a, IPPROTO_IP, IP_TTL, 5);
    set_option(a, IPPROTO_IP, IP_TOS, 0x20);
    say!("with options: {}", send_to(a, b"x", HERE));
    heard(a);
    heard(a);
    say!("{}", heard(b));
}

fn bad_ones() {
    let fd = make(200);
    let long = vec![0u8; 65_536];
    say!("too long: {} {}", send_to(fd, &long, HERE), send_to(fd, &long[..65_516], HERE));
    say!("longest: {}", send_to(fd, &long[..65_515], HERE));
    say!("it comes: {}", heard(fd));
    say!("urgent: {}", sys!(SYS_sendto, fd, "x", 1, MSG_OOB, &address(HERE, 0), 16));
    say!("receive: {}", sys!(SYS_recvfrom, fd, 0, 0, MSG_OOB | MSG_DONTWAIT, 0, 0));
}

fn destinations() {
    let fd = make(200);
    let to = |to: &sockaddr_in, size: i32| sys!(SYS_sendto, fd, "x", 1, 0, to, size);
    say!("none: {}", sys!(SYS_write, fd, "x", 1));
    let mut there = address(HERE, 0);
    say!("short: {} very short: {}", to(&there, 15), to(&there, 1));
    there.sin_family = AF_INET6 as u16;
    say!("family: {}", to(&there, 16));
    there.sin_family = 0;
    say!("no family: {} {}", to(&there, 16), heard(fd));
    say!("a port: {}", to(&address(HERE, 99), 16));
    say!("any: {}", to(&address(ANY, 0), 16));
    say!("all: {}", to(&address(u32::from_be_bytes([127, 255, 255, 255]), 0), 16));
}

fn sum(bytes: &[u8]) -> u16 {
    let pairs = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let sum: u32 = pairs.sum();
    !(((sum & 0xffff) + (sum >> 16)) as u16)
}

fn question(number: u8) -> Vec<u8> {
    let mut bytes = vec![8, 0, 0, 0, 0x12, 0x34, 0, number, 1, 2, 3];
    let right = sum(&bytes).to_be_bytes();
    bytes[2..4].copy_from_slice(&right);
    bytes
}

fn echo() {
    let fd = make(IPPROTO_ICMP);
    say!("ask: {}", send_to(fd, &question(1), HERE));
    say!("{}", heard(fd));
    say!("{}", heard(fd));
    say!("{}", heard(fd));
    let mut wrong = question(2);
    wrong[2] ^= 1;
    say!("a wrong sum: {} {} {}", send_to(fd, &wrong, HERE), heard(fd), heard(fd));
    say!("short: {} {} {}", send_to(fd, &[8, 0], HERE), heard(fd), heard(fd));
}

fn filter() {
    let fd = make(IPPROTO_ICMP);
    let mut mask = 1u32 << 8;
    say!("set: {} {}", sys!(SYS_setsockopt, fd, 255, 1, &mask, 4), option(fd, 255, 1));
    send_to(fd, &question(3), HERE);
    say!("{}", heard(fd));
    say!("{}", heard(fd));
    mask = !0;
    sys!(SYS_setsockopt, fd, 255, 1, &mask, 4);
    send_to(fd, &question(3), HERE);
    say!("none: {}", heard(fd));
    let mut odd = question(1);
    odd[0] = 200;
    say!("beyond: {} {}", send_to(fd, &odd, HERE), heard(fd));
    let byte = [0u8];
    say!("a byte: {} {}", sys!(SYS_setsockopt, fd, 255, 1, &byte, 1), option(fd, 255, 1));
}

fn filter_errors() {
    let (icmp, other) = (make(IPPROTO_ICMP), make(200));
    say!("of another: {} {}", option(other, 255, 1), set_option(other, 255, 1, 1));
    say!("unknown: {} {}", option(icmp, 255, 9), set_option(icmp, 255, 9, 1));
    let (mut value, mut length) = ([0u8; 8], 8i32);
    say!("long: {} {length}", sys!(SYS_getsockopt, icmp, 255, 1, &mut value, &mut length));
    length = 2;
    say!("short: {} {length}", sys!(SYS_getsockopt, icmp, 255, 1, &mut value, &mut length));
}

fn bound() {
    let (a, b) = (make(200), make(200));
    bind(b, HERE + 1, 0);
    say!("to another: {} {}", send_to(a, b"x", HERE), heard(b));
    say!("to it: {} {}", send_to(a, b"y", HERE + 1), heard(b));
    say!("from it: {}", send_to(b, b"z", HERE));
    heard(a);
    heard(a);
    say!("{}", heard(a));
}

fn connected() {
    let (a, b) = (make(200), make(200));
    say!("connect: {} {} {}", connect(a, HERE + 1, 0), own_name(a), peer_name(a));
    say!("with a port: {} {} {}", connect(a, HERE + 1, 7), own_name(a), peer_name(a));
    say!("write: {} {}", sys!(SYS_write, a, "x", 1), heard(b));
    say!("from elsewhere: {} {}", send_to(b, b"y", HERE), heard(a));
    bind(b, HERE + 1, 0);
    say!("from there: {} {}", send_to(b, b"z", HERE), heard(a));
    say!("bind: {}", bind(a, HERE, 0));
    say!("shut: {} {}", shutdown(a, SHUT_RDWR), events(a));
}

fn undone() {
    let fd = make(200);
    connect(fd, HERE + 1, 7);
    say!("{} {} {} {}", disconnect(fd), own_name(fd), peer_name(fd), port(fd));
    say!("{} {}", send_to(fd, b"x", HERE), heard(fd));
}

fn several() {
    let all: Vec<i32> = (0..20).map(|_| make(202)).collect();
    send_to(all[0], b"x", HERE);
    let count = all.iter().filter(|fd| heard(**fd).starts_with("21")).count();
    say!("heard by {count}");
    all.iter().for_each(|fd| _ = close(*fd));
    let fd = make(202);
    say!("{} {}", send_to(fd, b"x", HERE), heard(fd));
}

/// A header of IPv4 in front of two bytes.
fn packet(from: u32, to: u32, ident: u16) -> Vec<u8> {
    let mut bytes = vec![0x45, 3, 9, 9];
    bytes.extend(ident.to_be_bytes());
    bytes.extend([0, 0, 77, 200, 1, 1]);
    bytes.extend(from.to_be_bytes());
    bytes.extend(to.to_be_bytes());
    bytes.extend([8, 9]);
    bytes
}

fn with_header() {
    let (fd, hears) = (make(255), make(200));
    say!("on: {}", option(fd, IPPROTO_IP, IP_HDRINCL));
    say!("send: {} {}", send_to(fd, &packet(HERE + 3, HERE, 5), HERE), heard(hears));
    say!("no source: {} {}", send_to(fd, &packet(0, HERE, 5), HERE), heard(hears));
    say!("it receives: {}", heard(fd));
    let other = make(200);
    say!("off: {} {}", option(other, IPPROTO_IP, IP_HDRINCL), set_option(other, IPPROTO_IP, IP_HDRINCL, 1));
    say!("now: {} {}", option(other, IPPROTO_IP, IP_HDRINCL), send_to(other, &packet(HERE, HERE, 0), HERE));
    say!("{}", heard(hears));
    let mut buffer = [0u8; 64];
    send_to(fd, &packet(HERE, HERE, 0x1234), HERE);
    sys!(SYS_read, hears, &mut buffer, 64);
    say!("identification: {:x?} sum {}", &buffer[4..6], sum(&buffer[..20]));
    send_to(fd, &packet(HERE, HERE, 0), HERE);
    sys!(SYS_read, hears, &mut buffer, 64);
    say!("sum {}", sum(&buffer[..20]));
}

fn bad_headers() {
    let (fd, hears) = (make(255), make(200));
    let good = packet(HERE, HERE, 1);
    say!("short: {} {}", send_to(fd, &good[..19], HERE), send_to(fd, &[], HERE));
    let mut bytes = good.clone();
    bytes[0] = 0x4f;
    say!("longer than all: {}", send_to(fd, &bytes, HERE));
    bytes[0] = 0x44;
    say!("a short one: {} {}", send_to(fd, &bytes, HERE), heard(hears));
    bytes = good.clone();
    bytes.resize(65_535, 0);
    say!("long: {} {}", send_to(fd, &bytes, HERE), heard(hears).split(' ').next().unwrap_or(""));
    say!("of another kind: {}", set_option(datagrams().0, IPPROTO_IP, IP_HDRINCL, 1));
    say!("read: {}", read(fd, 0));
}

fn header_options() {
    let (fd, hears) = (make(255), make(200));
    let mut bytes = packet(HERE, HERE, 1);
    bytes[0] = 0x46;
    // No operation, four times.
    bytes.splice(20..20, [1, 1, 1, 1]);
    say!("send: {} {}", send_to(fd, &bytes, HERE), heard(hears));
}

fn datagram() {
    let (receiver, number) = datagrams();
    let fd = make(IPPROTO_UDP);
    let mut bytes = 4321u16.to_be_bytes().to_vec();
    bytes.extend(number.to_be_bytes());
    // Without a checksum.
    bytes.extend([0, 11, 0, 0, b'u', b'd', b'p']);
    say!("send: {} {}", send_to(fd, &bytes, HERE), read(receiver, 20));
    bytes[6] = 1;
    say!("a wrong sum: {} {}", send_to(fd, &bytes, HERE), crate::inet::receive(receiver, 9, MSG_DONTWAIT));
}

const HERE6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const MAPPED: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];

fn make6(protocol: i32) -> i32 {
    sys!(SYS_socket, AF_INET6, SOCK_RAW, protocol).fd()
}

fn send6(fd: i32, bytes: &[u8], ip: [u8; 16]) -> Ret {
    sys!(SYS_sendto, fd, bytes, bytes.len(), 0, &address6(ip, 0), 28)
}

fn heard6(fd: i32) -> String {
    let (mut buffer, mut name, mut size) = ([0u8; 100], address6([0; 16], 1), 28i32);
    let ret = sys!(SYS_recvfrom, fd, &mut buffer, 100, MSG_DONTWAIT, &mut name, &mut size);
    if !ret.ok() {
        return ret.to_string();
    }
    let ip = std::net::Ipv6Addr::from(name.sin6_addr.s6_addr);
    format!("{ret}: {:?} from {ip} {} {size}", &buffer[..ret.0 as usize], name.sin6_port)
}

fn of_ip6() {
    let (a, b, v4) = (make6(200), make6(200), make(200));
    say!("send: {} {} {}", send6(a, b"six", HERE6), heard6(b), heard(v4));
    let (mut name, mut size) = (address6([1; 16], 0), 28i32);
    sys!(SYS_getsockname, a, &mut name, &mut size);
    say!("name: {} {size}", u16::from_be(name.sin6_port));
    say!(
        "bind: {} connect: {}",
        sys!(SYS_bind, a, &address6(HERE6, 0), 28),
        sys!(SYS_connect, a, &address6(HERE6, 0), 28)
    );
    say!("write: {}", sys!(SYS_write, a, "x", 1));
    heard6(b);
}

fn of_ip6_icmp() {
    let fd = make6(IPPROTO_ICMPV6);
    say!("ask: {}", send6(fd, &[128, 0, 0, 0, 0x12, 0x34, 0, 1], HERE6));
    say!("{}", heard6(fd));
    say!("{}", heard6(fd));
    say!("{}", heard6(fd));
    say!("short: {}", send6(fd, &[128, 0], HERE6));
}

fn of_ip6_filter() {
    let fd = make6(IPPROTO_ICMPV6);
    let mut mask = [0u32; 8];
    mask[4] = 1;
    say!("set: {}", sys!(SYS_setsockopt, fd, IPPROTO_ICMPV6, 1, &mask, 32));
    let mut length = 32i32;
    let mut got = [9u32; 8];
    say!("get: {} {length} {got:x?}", sys!(SYS_getsockopt, fd, IPPROTO_ICMPV6, 1, &mut got, &mut length));
    send6(fd, &[128, 0, 0, 0, 0x12, 0x34, 0, 1], HERE6);
    say!("{}", heard6(fd));
    say!("{}", heard6(fd));
    let other = make6(200);
    say!(
        "of another: {} {}",
        sys!(SYS_setsockopt, other, IPPROTO_ICMPV6, 1, &mask, 32),
        option(other, IPPROTO_ICMPV6, 1)
    );
    say!("unknown: {} {}", option(fd, IPPROTO_ICMPV6, 9), set_option(fd, IPPROTO_ICMPV6, 9, 1));
}

fn of_ip6_checksum() {
    let fd = make6(200);
    say!("at first: {} {}", option(fd, IPPROTO_IPV6, IPV6_CHECKSUM), option(fd, 255, IPV6_CHECKSUM));
    say!("odd: {}", set_option(fd, 255, IPV6_CHECKSUM, 3));
    say!("set: {} {}", set_option(fd, 255, IPV6_CHECKSUM, 2), option(fd, 255, IPV6_CHECKSUM));
    say!("send: {} {}", send6(fd, &[1, 2, 9, 9, 5, 6], HERE6), heard6(fd));
    say!("short: {}", send6(fd, &[1, 2, 3], HERE6));
    let other = make6(200);
    send6(other, &[1, 2, 9, 9, 5, 6], HERE6);
    say!("a wrong one: {} {}", heard6(fd), heard6(other).starts_with('6'));
    say!("off: {} {}", set_option(fd, 255, IPV6_CHECKSUM, -1), option(fd, 255, IPV6_CHECKSUM));
    let icmp = make6(IPPROTO_ICMPV6);
    say!("of ICMP: {} {}", option(icmp, 255, IPV6_CHECKSUM), set_option(icmp, 255, IPV6_CHECKSUM, 4));
}

fn of_ip6_errors() {
    let fd = make6(200);
    say!("mapped: {}", send6(fd, b"x", MAPPED));
    say!("bind: {}", sys!(SYS_bind, fd, &address6(MAPPED, 0), 28));
    say!(
        "short: {} {}",
        sys!(SYS_bind, fd, &address6(HERE6, 0), 23),
        sys!(SYS_sendto, fd, "x", 1, 0, &address6(HERE6, 0), 23)
    );
    say!("none: {}", sys!(SYS_write, fd, "x", 1));
    say!("family: {}", sys!(SYS_sendto, fd, "x", 1, 0, &address(HERE, 0), 28));
    say!("a port: {}", sys!(SYS_sendto, fd, "x", 1, 0, &address6(HERE6, 5), 28));
    say!("its protocol: {}", sys!(SYS_sendto, fd, "x", 1, 0, &address6(HERE6, 200), 28));
}

fn options() {
    let fd = make(200);
    for (level, name) in
        [(IPPROTO_IP, IP_TTL), (IPPROTO_IP, IP_TOS), (IPPROTO_IP, 999), (IPPROTO_TCP, 1), (IPPROTO_IPV6, IPV6_CHECKSUM)]
    {
        say!("{level} {name}: {} set {}", option(fd, level, name), set_option(fd, level, name, 2));
    }
}

fn ioctls() {
    let fd = make(200);
    let mut value = -1i32;
    say!("inside: {} {value}", sys!(SYS_ioctl, fd, FIONREAD, &mut value));
    send_to(fd, b"12345", HERE);
    say!("inside: {} {value}", sys!(SYS_ioctl, fd, FIONREAD, &mut value));
    say!("outside: {} {value}", sys!(SYS_ioctl, fd, TIOCOUTQ, &mut value));
}

fn ready() {
    let fd = make(200);
    say!("{}", events(fd));
    send_to(fd, b"x", HERE);
    say!("{}", events(fd));
    heard(fd);
    say!("{}", events(fd));
}

fn full() {
    let fd = make(203);
    set_option(fd, SOL_SOCKET, SO_RCVBUF, 4000);
    for _ in 0..200 {
        send_to(fd, b"x", HERE);
    }
    let mut count = 0;
    while heard(fd).starts_with("21") {
        count += 1;
    }
    say!("some are lost: {}", (2..100).contains(&count));
}
