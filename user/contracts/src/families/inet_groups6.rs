//! Multicast of IPv6 on the loopback, which has no route for it: ipv6(7). And of raw sockets and streams of both families.

use std::net::Ipv6Addr;

use libc::*;

use crate::inet::{events_in, option, receive, set_option, socket as socket4};
use crate::sys::{Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    values, switches, interfaces, join_errors, joined_twice, left, left_errors, many, no_way, by_scope, by_any_address,
    of_streams, of_raw_sockets, of_the_other_family, raw_ones_hear_groups, everybody,
}

const GROUP: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0, 0x77, 1);
const WIDE: Ipv6Addr = Ipv6Addr::new(0xff1e, 0, 0, 0, 0, 0, 0x77, 1);
const LOOPBACK: i32 = 1;
const JOIN_GROUP: i32 = 42;
const LEAVE_GROUP: i32 = 45;
const MULTICAST_ALL: i32 = 29;

fn next(group: Ipv6Addr, by: u16) -> Ipv6Addr {
    let mut segments = group.segments();
    segments[7] += by;
    segments.into()
}

fn address(ip: Ipv6Addr, port: u16, scope: u32) -> sockaddr_in6 {
    let mut address: sockaddr_in6 = zeroed();
    address.sin6_family = AF_INET6 as u16;
    address.sin6_addr.s6_addr = ip.octets();
    address.sin6_port = port.to_be();
    address.sin6_scope_id = scope;
    address
}

fn socket() -> i32 {
    sys!(SYS_socket, AF_INET6, SOCK_DGRAM, 0).fd()
}

fn bind(fd: i32, ip: Ipv6Addr, port: u16) -> Ret {
    let scope = if ip.is_multicast() { LOOPBACK as u32 } else { 0 };
    sys!(SYS_bind, fd, &address(ip, port, scope), size_of::<sockaddr_in6>())
}

fn port(fd: i32) -> u16 {
    let (mut name, mut length) = (address(Ipv6Addr::UNSPECIFIED, 0, 0), size_of::<sockaddr_in6>() as i32);
    sys!(SYS_getsockname, fd, &mut name, &mut length).need();
    u16::from_be(name.sin6_port)
}

/// `struct ipv6_mreq`.
fn change(fd: i32, name: i32, group: Ipv6Addr, index: i32) -> Ret {
    let request = ipv6_mreq { ipv6mr_multiaddr: in6_addr { s6_addr: group.octets() }, ipv6mr_interface: index as u32 };
    sys!(SYS_setsockopt, fd, IPPROTO_IPV6, name, &request, size_of::<ipv6_mreq>())
}

fn join(fd: i32, group: Ipv6Addr, index: i32) -> Ret {
    change(fd, IPV6_ADD_MEMBERSHIP, group, index)
}

fn leave(fd: i32, group: Ipv6Addr, index: i32) -> Ret {
    change(fd, IPV6_DROP_MEMBERSHIP, group, index)
}

fn get(fd: i32, name: i32) -> String {
    option(fd, IPPROTO_IPV6, name)
}

fn set(fd: i32, name: i32, value: i32) -> Ret {
    set_option(fd, IPPROTO_IPV6, name, value)
}

fn sender() -> i32 {
    let fd = socket();
    set(fd, IPV6_MULTICAST_IF, LOOPBACK).need();
    fd
}

fn listening(number: u16) -> i32 {
    let fd = socket();
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1).need();
    bind(fd, Ipv6Addr::UNSPECIFIED, number).need();
    fd
}

fn send(fd: i32, text: &str, group: Ipv6Addr, port: u16) -> Ret {
    sys!(SYS_sendto, fd, text, text.len(), 0, &address(group, port, 0), size_of::<sockaddr_in6>())
}

fn heard(fd: i32) -> String {
    events_in(fd, POLLIN, 20);
    receive(fd, 50, MSG_DONTWAIT)
}

fn values() {
    let fd = socket();
    say!("first: {} set: {}", get(fd, IPV6_MULTICAST_HOPS), get(fd, IPV6_UNICAST_HOPS));
    for value in [0, 1, 2, 255, 256, -1, -2] {
        say!("{value}: {} {}", set(fd, IPV6_MULTICAST_HOPS, value), get(fd, IPV6_MULTICAST_HOPS));
    }
    for size in [0, 1, 3] {
        say!("{size} bytes: {}", sys!(SYS_setsockopt, fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &9i32, size));
    }
}

fn switches() {
    let fd = socket();
    for name in [IPV6_MULTICAST_LOOP, MULTICAST_ALL] {
        say!("{name} first: {}", get(fd, name));
        for value in [0, 1, 2, -1] {
            say!("{value}: {} {}", set(fd, name, value), get(fd, name));
        }
        say!("a byte: {}", sys!(SYS_setsockopt, fd, IPPROTO_IPV6, name, &1i32, 1));
    }
}

fn interfaces() {
    let fd = socket();
    say!("first: {}", get(fd, IPV6_MULTICAST_IF));
    for index in [LOOPBACK, 99, -1, 0] {
        say!("{index}: {} {}", set(fd, IPV6_MULTICAST_IF, index), get(fd, IPV6_MULTICAST_IF));
    }
    say!("short: {}", sys!(SYS_setsockopt, fd, IPPROTO_IPV6, IPV6_MULTICAST_IF, &1i32, 3));
    let name = b"lo\0";
    say!("bound: {}", sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_BINDTODEVICE, name, 3));
    say!("{} {}", set(fd, IPV6_MULTICAST_IF, 99), set(fd, IPV6_MULTICAST_IF, LOOPBACK));
    let four = socket4(SOCK_DGRAM);
    say!("bound: {}", sys!(SYS_setsockopt, four, SOL_SOCKET, SO_BINDTODEVICE, name, 3));
    let request = [0u32, 0, 99];
    say!("{}", sys!(SYS_setsockopt, four, IPPROTO_IP, IP_MULTICAST_IF, &request, 12));
}

fn join_errors() {
    let fd = socket();
    say!("no group: {} {}", join(fd, Ipv6Addr::LOCALHOST, LOOPBACK), join(fd, Ipv6Addr::UNSPECIFIED, LOOPBACK));
    say!("no interface: {} {}", join(fd, GROUP, 99), join(fd, GROUP, -1));
    say!("any: {}", join(fd, WIDE, 0));
    let short = |size: usize| {
        let bytes = [0xffu8; 20];
        sys!(SYS_setsockopt, fd, IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, &bytes, size)
    };
    say!("short: {} {} {}", short(0), short(16), short(19));
    say!("get: {}", get(fd, IPV6_ADD_MEMBERSHIP));
    say!("mapped: {}", join(fd, std::net::Ipv4Addr::new(239, 1, 2, 3).to_ipv6_mapped(), LOOPBACK));
}

fn joined_twice() {
    let fd = socket();
    say!("{} {} {}", join(fd, GROUP, LOOPBACK), join(fd, GROUP, LOOPBACK), join(fd, GROUP, 0));
    say!("another: {} {}", join(fd, next(GROUP, 1), LOOPBACK), join(socket(), GROUP, LOOPBACK));
}

fn left() {
    let fd = listening(0);
    let out = sender();
    join(fd, GROUP, LOOPBACK).need();
    say!("{} {}", send(out, "one", GROUP, port(fd)), heard(fd));
    say!("leave: {} {}", leave(fd, GROUP, LOOPBACK), leave(fd, GROUP, LOOPBACK));
    say!("{} {}", send(out, "two", GROUP, port(fd)), heard(fd));
    say!("again: {} {}", join(fd, GROUP, LOOPBACK), leave(fd, GROUP, 0));
}

fn left_errors() {
    let fd = socket();
    say!("not joined: {} {}", leave(fd, GROUP, LOOPBACK), leave(fd, GROUP, 0));
    join(fd, GROUP, LOOPBACK).need();
    say!("another: {} no group: {}", leave(fd, next(GROUP, 1), LOOPBACK), leave(fd, Ipv6Addr::LOCALHOST, LOOPBACK));
    say!("another interface: {}", leave(fd, GROUP, 99));
    say!("own: {}", leave(fd, GROUP, LOOPBACK));
}

fn many() {
    let fd = socket();
    let joined = (0..60).filter(|number| join(fd, next(GROUP, *number), LOOPBACK).ok()).count();
    say!("{joined}");
}

fn no_way() {
    let fd = socket();
    say!("send: {}", send(fd, "x", WIDE, 9));
    say!("connect: {}", sys!(SYS_connect, fd, &address(WIDE, 9, 0), size_of::<sockaddr_in6>()));
}

/// The interface in the address.
fn by_scope() {
    let fd = listening(0);
    join(fd, GROUP, LOOPBACK).need();
    join(fd, WIDE, LOOPBACK).need();
    let out = socket();
    let to = |group: Ipv6Addr, scope: u32| {
        let ret = sys!(SYS_sendto, out, b"x", 1, 0, &address(group, port(fd), scope), size_of::<sockaddr_in6>());
        format!("{ret} {}", heard(fd))
    };
    say!("{} / {}", to(GROUP, LOOPBACK as u32), to(GROUP, 99));
    say!("only where it is needed: {}", to(WIDE, LOOPBACK as u32));
}

/// `struct group_req`.
fn any_request(fd: i32, name: i32, index: u32, family: i32, group: Ipv6Addr, size: usize) -> Ret {
    let mut bytes = [0u8; 136];
    bytes[..4].copy_from_slice(&index.to_ne_bytes());
    bytes[8..10].copy_from_slice(&(family as u16).to_ne_bytes());
    bytes[16..32].copy_from_slice(&group.octets());
    sys!(SYS_setsockopt, fd, IPPROTO_IPV6, name, &bytes, size)
}

fn by_any_address() {
    let fd = listening(0);
    let out = sender();
    let any = |name, index, group| any_request(fd, name, index, AF_INET6, group, 136);
    say!("{}", any_request(fd, JOIN_GROUP, 1, AF_INET, GROUP, 136));
    say!("{}", any_request(fd, JOIN_GROUP, 1, AF_INET6, GROUP, 135));
    say!("{} {}", any(JOIN_GROUP, 99, GROUP), any(JOIN_GROUP, 1, Ipv6Addr::LOCALHOST));
    say!("{} {}", any(JOIN_GROUP, 1, GROUP), any(JOIN_GROUP, 1, GROUP));
    say!("{} {}", send(out, "x", GROUP, port(fd)), heard(fd));
    say!("{} {}", any(LEAVE_GROUP, 99, GROUP), any(LEAVE_GROUP, 1, next(GROUP, 1)));
    say!("{} {}", any(LEAVE_GROUP, 1, GROUP), any(LEAVE_GROUP, 1, GROUP));
}

fn of_streams() {
    let fd = sys!(SYS_socket, AF_INET6, SOCK_STREAM, 0).fd();
    say!("{} {}", set(fd, IPV6_MULTICAST_HOPS, 3), set(fd, IPV6_MULTICAST_IF, LOOPBACK));
    say!("{} {}", join(fd, GROUP, LOOPBACK), leave(fd, GROUP, LOOPBACK));
    let four = socket4(SOCK_STREAM);
    say!("{}", set_option(four, IPPROTO_IP, IP_MULTICAST_TTL, 3));
    say!("{}", set_option(four, IPPROTO_IP, IP_MULTICAST_IF, 0x7f00_0001u32.to_be() as i32));
    let request = [0xef01_0203u32.to_be(), 0x7f00_0001u32.to_be(), 0];
    for name in [IP_ADD_MEMBERSHIP, IP_DROP_MEMBERSHIP] {
        say!("{}", sys!(SYS_setsockopt, four, IPPROTO_IP, name, &request, 12));
    }
}

fn of_raw_sockets() {
    let fd = sys!(SYS_socket, AF_INET6, SOCK_RAW, 200).fd();
    say!("{} {}", set(fd, IPV6_MULTICAST_HOPS, 3), get(fd, IPV6_MULTICAST_HOPS));
    say!("{} {} {}", join(fd, GROUP, LOOPBACK), join(fd, GROUP, LOOPBACK), leave(fd, GROUP, LOOPBACK));
    let four = sys!(SYS_socket, AF_INET, SOCK_RAW, 200).fd();
    say!("{} {}", set_option(four, IPPROTO_IP, IP_MULTICAST_TTL, 3), option(four, IPPROTO_IP, IP_MULTICAST_TTL));
    say!("{}", set_option(four, IPPROTO_IP, IP_MULTICAST_LOOP, 0));
}

fn of_the_other_family() {
    let four = socket4(SOCK_DGRAM);
    for name in [IPV6_MULTICAST_HOPS, IPV6_MULTICAST_LOOP, IPV6_MULTICAST_IF] {
        say!("{} {}", set(four, name, 1), get(four, name));
    }
    say!("{}", join(four, GROUP, LOOPBACK));
    let six = socket();
    say!("{} {}", set_option(six, IPPROTO_IP, IP_MULTICAST_TTL, 7), option(six, IPPROTO_IP, IP_MULTICAST_TTL));
    say!("{}", get(six, IPV6_MULTICAST_HOPS));
    let request = [0xef01_0203u32.to_be(), 0x7f00_0001u32.to_be(), 0];
    say!("{}", sys!(SYS_setsockopt, six, IPPROTO_IP, IP_ADD_MEMBERSHIP, &request, 12));
}

/// A raw socket hears packets for groups that are joined, unless it wants only its own.
fn raw_ones_hear_groups() {
    let raw = |wants_all: i32| {
        let fd = sys!(SYS_socket, AF_INET, SOCK_RAW, 200).fd();
        set_option(fd, IPPROTO_IP, IP_MULTICAST_ALL, wants_all).need();
        fd
    };
    let (all, own, out) = (raw(1), raw(0), raw(1));
    let group = 0xef01_0204u32;
    let request = [0, 0x7f00_0001u32.to_be(), 0];
    sys!(SYS_setsockopt, out, IPPROTO_IP, IP_MULTICAST_IF, &request, 12).need();
    let send = || sys!(SYS_sendto, out, b"raw", 3, 0, &crate::inet::address(group, 0), 16);
    let short = |fd: i32| {
        events_in(fd, POLLIN, 20);
        let mut bytes = [0u8; 60];
        let ret = sys!(SYS_recvfrom, fd, &mut bytes, 60, MSG_DONTWAIT, 0, 0);
        format!("{ret} hops {}", bytes[8])
    };
    say!("nobody: {} {}", send(), short(all));
    let joined = [group.to_be(), 0x7f00_0001u32.to_be(), 0];
    sys!(SYS_setsockopt, all, IPPROTO_IP, IP_ADD_MEMBERSHIP, &joined, 12).need();
    say!("joined: {} {} {} {}", send(), short(all), short(own), short(out));
    sys!(SYS_setsockopt, own, IPPROTO_IP, IP_ADD_MEMBERSHIP, &joined, 12).need();
    set_option(out, IPPROTO_IP, IP_MULTICAST_TTL, 9).need();
    say!("both: {} {} {}", send(), short(all), short(own));
}

/// Groups in which every machine is.
fn everybody() {
    let four = socket4(SOCK_DGRAM);
    crate::inet::bind(four, crate::inet::ANY, 0).need();
    let out = socket4(SOCK_DGRAM);
    let request = [0, 0x7f00_0001u32.to_be(), 0];
    sys!(SYS_setsockopt, out, IPPROTO_IP, IP_MULTICAST_IF, &request, 12).need();
    let to = crate::inet::address(0xe000_0001, crate::inet::port(four));
    say!("{} {}", sys!(SYS_sendto, out, b"all", 3, 0, &to, 16), heard(four));
    let six = listening(0);
    let nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    say!("{} {}", send(sender(), "all", nodes, port(six)), heard(six));
}
