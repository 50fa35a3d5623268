//! What ICMP says of datagrams that have not arrived: IP_RECVERR and IPV6_RECVERR, and errors of the machine itself.

use libc::*;

use super::icmp;
use super::icmp6::{HERE6, address6};
use crate::inet::{
    self, HERE, address, bind, connect, datagrams, events, option, pending_error, port, receive, set_option, socket,
};
use crate::message::{self, received};
use crate::process;
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! {
    values, values_of_all, unconnected, connected, without, order, one_after_another, flags, cut, little_room, turned_off, bounded, told_too,
    times, of_ip6, of_ip6_connected, mapped, mapped_asks_otherwise, too_long, too_long6, raw_udp, raw_connected, raw_of_ip6, empty_queues,
    polled, to_a_group,
}

/// Where nobody is.
const NOBODY: u16 = 9;

/// Linux may take a moment for what goes through the loopback.
fn settle(fd: i32) {
    let mut entry = pollfd { fd, events: 0, revents: 0 };
    let time = timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    sys!(SYS_ppoll, &mut entry, 1, &time, 0, 8);
}

fn queue(fd: i32) {
    settle(fd);
    received(fd, 100, 512, MSG_ERRQUEUE).iter().for_each(|line| say!("{line}"));
}

fn asking() -> i32 {
    let fd = socket(SOCK_DGRAM);
    set_option(fd, IPPROTO_IP, IP_RECVERR, 1).need();
    fd
}

fn socket6(kind: i32, protocol: i32) -> i32 {
    sys!(SYS_socket, AF_INET6, kind, protocol).fd()
}

fn asking6() -> i32 {
    let fd = socket6(SOCK_DGRAM, 0);
    set_option(fd, IPPROTO_IPV6, IPV6_RECVERR, 1).need();
    fd
}

fn send6(fd: i32, text: &str, ip: [u8; 16], port: u16) -> Ret {
    let sent = sys!(SYS_sendto, fd, text, text.len(), 0, &address6(ip, port), 28);
    settle(fd);
    sent
}

fn send(fd: i32, text: &str, flags: i32) -> Ret {
    let sent = inet::send(fd, text, flags);
    settle(fd);
    sent
}

fn send_to(fd: i32, text: &str, port: u16) -> Ret {
    let sent = inet::send_to(fd, text, port);
    settle(fd);
    sent
}

fn values() {
    let fd = socket(SOCK_DGRAM);
    let get = || option(fd, IPPROTO_IP, IP_RECVERR);
    say!("first: {}", get());
    for value in [1, 0, 7, -1] {
        say!("{value}: {} {}", set_option(fd, IPPROTO_IP, IP_RECVERR, value), get());
    }
    let set = |size: i32| sys!(SYS_setsockopt, fd, IPPROTO_IP, IP_RECVERR, &1i32, size);
    say!("nothing: {} {} a byte: {} {} three: {}", set(0), get(), set(1), get(), set(3));
    say!("of IPv6: {} {}", option(fd, IPPROTO_IPV6, IPV6_RECVERR), set_option(fd, IPPROTO_IPV6, IPV6_RECVERR, 1));
    let six = socket6(SOCK_DGRAM, 0);
    let get = || option(six, IPPROTO_IPV6, IPV6_RECVERR);
    for value in [1, 0, 7] {
        say!("{value}: {} {}", set_option(six, IPPROTO_IPV6, IPV6_RECVERR, value), get());
    }
    let set = |size: i32| sys!(SYS_setsockopt, six, IPPROTO_IPV6, IPV6_RECVERR, &1i32, size);
    say!("nothing: {} a byte: {} three: {} {}", set(0), set(1), set(3), get());
    say!("of IPv4: {} {}", set_option(six, IPPROTO_IP, IP_RECVERR, 1), option(six, IPPROTO_IP, IP_RECVERR));
}

fn values_of_all() {
    let ping = icmp::socket();
    let ping6 = icmp::allowed(|| socket6(SOCK_DGRAM, IPPROTO_ICMPV6));
    let raw = sys!(SYS_socket, AF_INET, SOCK_RAW, 200).fd();
    let raw6 = socket6(SOCK_RAW, 200);
    for (name, fd) in [("ping", ping), ("ping6", ping6), ("raw", raw), ("raw6", raw6)] {
        for (level, number) in [(IPPROTO_IP, IP_RECVERR), (IPPROTO_IPV6, IPV6_RECVERR)] {
            let set = set_option(fd, level, number, 1);
            say!("{name} {level}: {set} {}", option(fd, level, number));
        }
    }
}

fn unconnected() {
    let fd = asking();
    say!("empty: {}", events(fd));
    queue(fd);
    say!("sent: {}", send_to(fd, "lost", NOBODY));
    say!("ready: {}", events(fd));
    queue(fd);
    say!("ready: {} {}", events(fd), pending_error(fd));
    queue(fd);
    say!("again: {} {}", send_to(fd, "", NOBODY), pending_error(fd));
    say!("ready: {}", events(fd));
    queue(fd);
    say!("ready: {} {}", events(fd), send_to(fd, "x", NOBODY));
    say!("told by a call: {} {}", send_to(fd, "y", NOBODY), receive(fd, 10, MSG_DONTWAIT));
    queue(fd);
    queue(fd);
}

fn connected() {
    let fd = asking();
    connect(fd, HERE, NOBODY).need();
    say!("sent: {} {}", send(fd, "lost", 0), events(fd));
    queue(fd);
    say!("nothing more: {} {}", receive(fd, 10, MSG_DONTWAIT), events(fd));
    send(fd, "one", 0);
    say!("by a call: {}", receive(fd, 10, MSG_DONTWAIT));
    say!("it is still there: {}", events(fd));
    queue(fd);
    say!("to another: {}", send_to(fd, "two", NOBODY + 1));
    queue(fd);
}

fn without() {
    let fd = socket(SOCK_DGRAM);
    say!("unconnected: {} {} {}", send_to(fd, "x", NOBODY), events(fd), pending_error(fd));
    queue(fd);
    connect(fd, HERE, NOBODY).need();
    say!("connected: {} {}", send(fd, "x", 0), events(fd));
    queue(fd);
    say!("{}", pending_error(fd));
    say!("to another: {} {}", send_to(fd, "x", NOBODY + 1), pending_error(fd));
}

fn order() {
    let ((fd, here), (other, _)) = (datagrams(), datagrams());
    set_option(fd, IPPROTO_IP, IP_RECVERR, 1).need();
    send_to(other, "data", here);
    send_to(fd, "lost", NOBODY);
    say!("ready: {}", events(fd));
    say!("error first: {} {}", receive(fd, 10, MSG_DONTWAIT), receive(fd, 10, MSG_DONTWAIT));
    send_to(other, "more", here);
    queue(fd);
    say!("then: {} {}", pending_error(fd), receive(fd, 10, MSG_DONTWAIT));
}

fn one_after_another() {
    let fd = asking();
    for text in ["one", "two", "three"] {
        say!("{text}: {} {}", send_to(fd, text, NOBODY), pending_error(fd));
    }
    say!("ready: {}", events(fd));
    queue(fd);
    say!("told of the next: {} ready: {}", pending_error(fd), events(fd));
    queue(fd);
    say!("told of the next: {}", pending_error(fd));
    queue(fd);
    say!("no next: {} ready: {}", pending_error(fd), events(fd));
    queue(fd);
}

fn flags() {
    let fd = asking();
    let lose = || {
        send_to(fd, "0123456789", NOBODY);
        pending_error(fd);
    };
    for more in [MSG_PEEK, MSG_TRUNC, MSG_WAITALL, MSG_DONTWAIT, MSG_CMSG_CLOEXEC] {
        lose();
        received(fd, 4, 512, MSG_ERRQUEUE | more).iter().for_each(|line| say!("{more:#x}: {line}"));
        queue(fd);
    }
    lose();
    let mut buffer = [0u8; 4];
    say!("recvfrom: {} {buffer:?}", sys!(SYS_recvfrom, fd, &mut buffer, 4, MSG_ERRQUEUE, 0, 0));
    lose();
    let mut name = [0u8; 64];
    let mut length = 64;
    let ret = sys!(SYS_recvfrom, fd, &mut buffer, 4, MSG_ERRQUEUE, &mut name, &mut length);
    say!("with a name: {ret} {}", message::address_of(&name[..length as usize]));
}

fn cut() {
    let fd = asking();
    for length in [519, 520, 521, 1000, 60_000] {
        send_to(fd, &"l".repeat(length), NOBODY);
        received(fd, 2000, 0, MSG_ERRQUEUE).iter().for_each(|line| say!("{length}: {line}"));
    }
    let six = asking6();
    for length in [1183, 1184, 1185, 60_000] {
        send6(six, &"l".repeat(length), HERE6, NOBODY);
        received(six, 2000, 0, MSG_ERRQUEUE).iter().for_each(|line| say!("{length}: {line}"));
    }
}

fn little_room() {
    let fd = asking();
    for room in [0, 15, 16, 20, 40, 47, 48] {
        send_to(fd, "lost", NOBODY);
        received(fd, 2, room, MSG_ERRQUEUE).iter().for_each(|line| say!("{room}: {line}"));
    }
}

fn turned_off() {
    let fd = asking();
    send_to(fd, "lost", NOBODY);
    say!("off: {} {}", set_option(fd, IPPROTO_IP, IP_RECVERR, 0), events(fd));
    queue(fd);
    say!("{} {}", pending_error(fd), events(fd));
    set_option(fd, IPPROTO_IP, IP_RECVERR, 1);
    queue(fd);
}

/// More than the receive buffer holds.
fn bounded() {
    let fd = asking();
    set_option(fd, SOL_SOCKET, SO_RCVBUF, 1);
    for _ in 0..20 {
        send_to(fd, "lost", NOBODY);
        pending_error(fd);
    }
    let count = (0..30).filter(|_| received(fd, 10, 100, MSG_ERRQUEUE)[0].starts_with('4')).count();
    say!("some, but not all: {}", (1..20).contains(&count));
    say!("one more is told: {}", send_to(fd, "lost", NOBODY));
    queue(fd);
}

fn told_too() {
    let fd = asking();
    for name in [IP_PKTINFO, IP_RECVTTL, IP_RECVTOS] {
        set_option(fd, IPPROTO_IP, name, 1).need();
    }
    set_option(fd, IPPROTO_IP, IP_TTL, 7).need();
    set_option(fd, IPPROTO_IP, IP_TOS, 0x24).need();
    sys!(SYS_sendto, fd, "x", 1, 0, &address(HERE + 6, NOBODY), 16);
    queue(fd);
    let six = asking6();
    for name in [IPV6_RECVPKTINFO, IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS] {
        set_option(six, IPPROTO_IPV6, name, 1).need();
    }
    set_option(six, IPPROTO_IPV6, IPV6_TCLASS, 0x24).need();
    set_option(six, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 7).need();
    send6(six, "x", HERE6, NOBODY);
    queue(six);
}

fn times() {
    let fd = asking();
    for name in [SO_TIMESTAMP, SO_TIMESTAMPNS] {
        set_option(fd, SOL_SOCKET, name, 1).need();
        send_to(fd, "x", NOBODY);
        queue(fd);
    }
    say!("of the machine: {}", send_to(fd, &"l".repeat(65_508), NOBODY));
    queue(fd);
}

fn of_ip6() {
    let fd = asking6();
    queue(fd);
    say!("sent: {} {}", send6(fd, "lost", HERE6, NOBODY), events(fd));
    queue(fd);
    say!("{} {}", pending_error(fd), events(fd));
    send6(fd, "lost", HERE6, NOBODY);
    say!("by a call: {}", send6(fd, "lost", HERE6, NOBODY));
    queue(fd);
}

fn of_ip6_connected() {
    let fd = asking6();
    sys!(SYS_connect, fd, &address6(HERE6, NOBODY), 28).need();
    say!("sent: {} {}", send(fd, "lost", 0), events(fd));
    queue(fd);
    say!("{}", receive(fd, 10, MSG_DONTWAIT));
    let silent = socket6(SOCK_DGRAM, 0);
    say!("nobody asks: {} {}", send6(silent, "x", HERE6, NOBODY), pending_error(silent));
    sys!(SYS_connect, silent, &address6(HERE6, NOBODY), 28).need();
    say!("connected: {} {}", send(silent, "x", 0), pending_error(silent));
    queue(silent);
}

const MAPPED: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];

fn mapped() {
    let fd = asking6();
    set_option(fd, IPPROTO_IP, IP_RECVERR, 1).need();
    set_option(fd, IPPROTO_IP, IP_RECVTTL, 1).need();
    set_option(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1).need();
    set_option(fd, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1).need();
    say!("sent: {} {}", send6(fd, "lost", MAPPED, NOBODY), events(fd));
    queue(fd);
    say!("too long: {}", send6(fd, &"l".repeat(65_508), MAPPED, NOBODY));
    queue(fd);
}

/// IPV6_RECVERR is about IPv6, IP_RECVERR about IPv4.
fn mapped_asks_otherwise() {
    let fd = asking6();
    say!("sent: {} {}", send6(fd, "lost", MAPPED, NOBODY), events(fd));
    queue(fd);
    let fd = socket6(SOCK_DGRAM, 0);
    set_option(fd, IPPROTO_IP, IP_RECVERR, 1).need();
    say!("sent: {} {}", send6(fd, "lost", HERE6, NOBODY), events(fd));
    queue(fd);
    say!("sent: {} {}", send6(fd, "lost", MAPPED, NOBODY), events(fd));
    queue(fd);
}

fn too_long() {
    let fd = asking();
    let long = "l".repeat(65_536);
    for length in [65_507, 65_508, 65_535, 65_536] {
        say!("{length}: {} {} {}", send_to(fd, &long[..length], NOBODY), pending_error(fd), events(fd));
        queue(fd);
    }
    for how in 0..=5 {
        set_option(fd, IPPROTO_IP, IP_MTU_DISCOVER, how).need();
        say!("{how}: {} {}", send_to(fd, &long[..65_520], NOBODY), pending_error(fd));
        queue(fd);
    }
    connect(fd, HERE, NOBODY).need();
    say!("connected: {}", send(fd, &long[..65_530], 0));
    queue(fd);
    say!("it was not told: {}", send_to(socket(SOCK_DGRAM), &long[..65_520], NOBODY));
}

fn too_long6() {
    let fd = asking6();
    let long = "l".repeat(65_536);
    for how in 0..=5 {
        set_option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, how).need();
        for length in [65_488, 65_489, 65_527, 65_528] {
            say!("{how} {length}: {} {}", send6(fd, &long[..length], HERE6, NOBODY), pending_error(fd));
            received(fd, 0, 512, MSG_ERRQUEUE).iter().for_each(|line| say!("{line}"));
        }
    }
}

/// A header of UDP without a checksum.
fn datagram(from: u16, to: u16, text: &str) -> Vec<u8> {
    let mut bytes = from.to_be_bytes().to_vec();
    bytes.extend(to.to_be_bytes());
    bytes.extend((8 + text.len() as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(text.bytes());
    bytes
}

fn raw_udp() {
    let fd = sys!(SYS_socket, AF_INET, SOCK_RAW, IPPROTO_UDP).fd();
    let bytes = datagram(7, NOBODY, "raw");
    let write = || {
        let sent = sys!(SYS_sendto, fd, &bytes[..], bytes.len(), 0, &address(HERE, 0), 16);
        settle(fd);
        sent
    };
    say!("nobody asks: {} {}", write(), pending_error(fd));
    set_option(fd, IPPROTO_IP, IP_RECVERR, 1).need();
    receive(fd, 100, MSG_DONTWAIT);
    say!("sent: {}", write());
    say!("ready: {}", events(fd));
    queue(fd);
    say!("{} {}", pending_error(fd), events(fd));
}

fn raw_connected() {
    let fd = sys!(SYS_socket, AF_INET, SOCK_RAW, IPPROTO_UDP).fd();
    connect(fd, HERE, 0).need();
    let bytes = datagram(7, NOBODY, "raw");
    say!("sent: {}", sys!(SYS_sendto, fd, &bytes[..], bytes.len(), 0, 0, 0));
    settle(fd);
    say!("ready: {}", events(fd));
    say!("{}", pending_error(fd));
    queue(fd);
    set_option(fd, IPPROTO_IP, IP_RECVERR, 1).need();
    say!("too long: {}", send(fd, &"l".repeat(65_516), 0));
    queue(fd);
}

fn raw_of_ip6() {
    let fd = socket6(SOCK_RAW, IPPROTO_UDP);
    set_option(fd, IPPROTO_IPV6, IPV6_RECVERR, 1).need();
    set_option(fd, IPPROTO_IPV6, IPV6_CHECKSUM, 6).need();
    let bytes = datagram(7, NOBODY, "raw");
    say!("sent: {}", sys!(SYS_sendto, fd, &bytes[..], bytes.len(), 0, &address6(HERE6, 0), 28));
    settle(fd);
    say!("ready: {}", events(fd));
    let lines = received(fd, 8, 512, MSG_ERRQUEUE);
    lines.iter().skip(1).for_each(|line| say!("{line}"));
    say!("{}", pending_error(fd));
}

fn empty_queues() {
    for (name, fd) in [
        ("tcp", socket(SOCK_STREAM)),
        ("udp", socket(SOCK_DGRAM)),
        ("ping", icmp::socket()),
        ("raw", sys!(SYS_socket, AF_INET, SOCK_RAW, 200).fd()),
        ("raw6", socket6(SOCK_RAW, 200)),
    ] {
        say!("{name}: {:?} {}", received(fd, 10, 100, MSG_ERRQUEUE), receive(fd, 10, MSG_ERRQUEUE | MSG_DONTWAIT));
    }
}

/// Who waits in poll(2) for nothing but errors.
fn polled() {
    let fd = asking();
    bind(fd, HERE, 0).need();
    let child = process::child(|| {
        process::sleep_ms(30);
        send_to(fd, "lost", NOBODY);
        0
    });
    let mut entry = pollfd { fd, events: 0, revents: 0 };
    let time = timespec { tv_sec: 5, tv_nsec: 0 };
    say!("poll: {} {:x}", sys!(SYS_ppoll, &mut entry, 1, &time, 0, 8), entry.revents);
    process::wait(child);
    queue(fd);
    say!("its port: {}", port(fd) != 0);
}

/// Nobody answers what is for many.
fn to_a_group() {
    let fd = asking();
    set_option(fd, SOL_SOCKET, SO_BROADCAST, 1).need();
    let all = u32::from_be_bytes([127, 255, 255, 255]);
    say!("sent: {}", sys!(SYS_sendto, fd, "x", 1, 0, &address(all, NOBODY), 16));
    queue(fd);
}
