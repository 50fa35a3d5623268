//! What is told of datagrams besides their bytes, and what a program says of one that it sends.

use libc::*;

use super::icmp;
use super::icmp6::{HERE6, address6};
use crate::inet::{ANY, HERE, address, bind, connect, datagrams, option, port, receive, send_to, set_option, socket};
use crate::message::{control, received, send};
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! {
    values, nothing, one_by_one, all_of_them, header, asked_late, any_address, little_room, peeked, times, both_times, of_ip6,
    of_ip6_late, mapped, sent_with_hops, sent_with_class, sent_from, sent_from_errors, bad_lengths, several, unknown, of_sockets, sent6,
    sent6_errors, sent_mapped, of_ping, of_raw, of_streams,
}

const OPTIONS: [i32; 4] = [IP_PKTINFO, IP_RECVTTL, IP_RECVTOS, IP_RECVORIGDSTADDR];
const OPTIONS6: [i32; 4] = [IPV6_RECVPKTINFO, IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS, IPV6_RECVORIGDSTADDR];
const MAPPED: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];
const ANY6: [u8; 16] = [0; 16];

/// Without the name, whose port differs from run to run.
fn show(fd: i32) {
    show_in(fd, 512, MSG_DONTWAIT);
}

fn show_in(fd: i32, room: usize, flags: i32) {
    for line in received(fd, 20, room, flags) {
        match line.split_once(" name ") {
            Some((before, after)) => {
                let control = after.rsplit(' ').next().unwrap_or_default();
                say!("{before} control {control}");
            }
            None => say!("{line}"),
        }
    }
}

fn datagrams6() -> (i32, u16) {
    let fd = socket6(SOCK_DGRAM, 0);
    sys!(SYS_bind, fd, &address6(ANY6, 0), 28).need();
    (fd, port6(fd))
}

fn socket6(kind: i32, protocol: i32) -> i32 {
    sys!(SYS_socket, AF_INET6, kind, protocol).fd()
}

fn port6(fd: i32) -> u16 {
    let (mut name, mut length) = (address6(ANY6, 0), 28i32);
    sys!(SYS_getsockname, fd, &mut name, &mut length).need();
    u16::from_be(name.sin6_port)
}

fn send6(fd: i32, text: &str, ip: [u8; 16], port: u16) -> Ret {
    sys!(SYS_sendto, fd, text, text.len(), 0, &address6(ip, port), 28)
}

fn values() {
    let fd = socket(SOCK_DGRAM);
    for name in OPTIONS {
        let get = || option(fd, IPPROTO_IP, name);
        let (first, set) = (get(), set_option(fd, IPPROTO_IP, name, 5));
        say!("{name}: {first} {set} {} {} {}", get(), set_option(fd, IPPROTO_IP, name, 0), get());
        let set = |size: i32| sys!(SYS_setsockopt, fd, IPPROTO_IP, name, &1i32, size);
        say!("a byte: {} {} nothing: {} {}", set(1), get(), set(0), get());
    }
    let six = socket6(SOCK_DGRAM, 0);
    for name in OPTIONS6 {
        let get = || option(six, IPPROTO_IPV6, name);
        let (first, set) = (get(), set_option(six, IPPROTO_IPV6, name, 5));
        say!("{name}: {first} {set} {} {} {}", get(), set_option(six, IPPROTO_IPV6, name, 0), get());
        let set = |size: i32| sys!(SYS_setsockopt, six, IPPROTO_IPV6, name, &1i32, size);
        say!("a byte: {} three: {} nothing: {}", set(1), set(3), set(0));
        say!("of IPv4: {} {}", set_option(fd, IPPROTO_IPV6, name, 1), option(fd, IPPROTO_IPV6, name));
    }
    say!("of the other: {} {}", set_option(six, IPPROTO_IP, IP_PKTINFO, 1), option(six, IPPROTO_IP, IP_PKTINFO));
}

fn nothing() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    send_to(a, "x", there);
    show(b);
}

fn one_by_one() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    for name in [IP_PKTINFO, IP_RECVTTL, IP_RECVTOS] {
        set_option(b, IPPROTO_IP, name, 1).need();
        send_to(a, "x", there);
        show(b);
        set_option(b, IPPROTO_IP, name, 0).need();
    }
    send_to(a, "x", there);
    show(b);
}

fn all_of_them() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    OPTIONS.iter().for_each(|name| _ = set_option(b, IPPROTO_IP, *name, 1).need());
    set_option(b, SOL_SOCKET, SO_TIMESTAMP, 1).need();
    send_to(a, "text", there);
    show(b);
}

fn header() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    OPTIONS[1..3].iter().for_each(|name| _ = set_option(b, IPPROTO_IP, *name, 1).need());
    for (hops, class) in [(1, 0), (9, 0x1c), (255, 255)] {
        set_option(a, IPPROTO_IP, IP_TTL, hops).need();
        set_option(a, IPPROTO_IP, IP_TOS, class).need();
        send_to(a, "x", there);
        show(b);
    }
}

fn asked_late() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    set_option(a, IPPROTO_IP, IP_TTL, 7).need();
    send_to(a, "x", there);
    OPTIONS.iter().for_each(|name| _ = set_option(b, IPPROTO_IP, *name, 1).need());
    set_option(b, SOL_SOCKET, SO_TIMESTAMP, 1).need();
    show(b);
    send_to(a, "x", there);
    set_option(b, IPPROTO_IP, IP_PKTINFO, 0).need();
    show(b);
}

fn any_address() {
    let (a, _) = datagrams();
    let b = socket(SOCK_DGRAM);
    bind(b, ANY, 0).need();
    set_option(b, IPPROTO_IP, IP_PKTINFO, 1).need();
    for ip in [HERE, HERE + 4] {
        say!("{}", sys!(SYS_sendto, a, "x", 1, 0, &address(ip, port(b)), 16));
        show(b);
    }
}

fn little_room() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    OPTIONS[..3].iter().for_each(|name| _ = set_option(b, IPPROTO_IP, *name, 1).need());
    for room in [0, 10, 16, 27, 28, 32, 50, 52, 56, 72, 73, 80] {
        send_to(a, "x", there);
        say!("{room}");
        show_in(b, room, MSG_DONTWAIT);
    }
}

fn peeked() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    set_option(b, IPPROTO_IP, IP_RECVTTL, 1).need();
    send_to(a, "x", there);
    show_in(b, 512, MSG_PEEK);
    show(b);
}

fn times() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    for name in [SO_TIMESTAMP, SO_TIMESTAMPNS] {
        let get = || option(b, SOL_SOCKET, name);
        say!("{name}: {} {} {}", get(), set_option(b, SOL_SOCKET, name, 5), get());
        send_to(a, "x", there);
        show(b);
        say!("off: {} {}", set_option(b, SOL_SOCKET, name, 0), get());
        send_to(a, "x", there);
        show(b);
    }
}

fn both_times() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    let both = || format!("{} {}", option(b, SOL_SOCKET, SO_TIMESTAMP), option(b, SOL_SOCKET, SO_TIMESTAMPNS));
    for (name, value) in [(SO_TIMESTAMP, 1), (SO_TIMESTAMPNS, 1), (SO_TIMESTAMP, 1), (SO_TIMESTAMPNS, 0)] {
        say!("{name} {value}: {} {}", set_option(b, SOL_SOCKET, name, value), both());
        send_to(a, "x", there);
        show(b);
    }
}

fn of_ip6() {
    let ((a, _), (b, there)) = (datagrams6(), datagrams6());
    for name in OPTIONS6 {
        set_option(b, IPPROTO_IPV6, name, 1).need();
        send6(a, "x", HERE6, there);
        show(b);
    }
    set_option(a, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 3).need();
    set_option(a, IPPROTO_IPV6, IPV6_TCLASS, 0x31).need();
    set_option(b, SOL_SOCKET, SO_TIMESTAMPNS, 1).need();
    send6(a, "x", HERE6, there);
    show(b);
}

fn of_ip6_late() {
    let ((a, _), (b, there)) = (datagrams6(), datagrams6());
    send6(a, "x", HERE6, there);
    send6(a, "x", MAPPED, there);
    OPTIONS6.iter().for_each(|name| _ = set_option(b, IPPROTO_IPV6, *name, 1).need());
    show(b);
    show(b);
}

/// A datagram of IPv4 for a socket of AF_INET6.
fn mapped() {
    let ((a, _), (b, there)) = (datagrams(), datagrams6());
    OPTIONS6.iter().for_each(|name| _ = set_option(b, IPPROTO_IPV6, *name, 1).need());
    send_to(a, "x", there);
    show(b);
    OPTIONS.iter().for_each(|name| _ = set_option(b, IPPROTO_IP, *name, 1).need());
    send_to(a, "x", there);
    show(b);
}

/// What comes when `a` sends with this control message.
fn sent_with(a: i32, b: i32, there: u16, message: &[u8]) {
    say!("{}", send(a, "x", Some(&address(HERE, there)), message));
    show(b);
}

fn pair() -> (i32, i32, u16) {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    OPTIONS[..3].iter().for_each(|name| _ = set_option(b, IPPROTO_IP, *name, 1).need());
    (a, b, there)
}

fn sent_with_hops() {
    let (a, b, there) = pair();
    for value in [1i32, 64, 255, 0, 256, -1] {
        sent_with(a, b, there, &control(IPPROTO_IP, IP_TTL, &value.to_ne_bytes()));
    }
    send_to(a, "x", there);
    show(b);
}

fn sent_with_class() {
    let (a, b, there) = pair();
    for value in [0i32, 0x1c, 255, 256, -1] {
        sent_with(a, b, there, &control(IPPROTO_IP, IP_TOS, &value.to_ne_bytes()));
    }
    sent_with(a, b, there, &control(IPPROTO_IP, IP_TOS, &[0x20]));
    sent_with(a, b, there, &control(IPPROTO_IP, IP_TOS, &[0x20, 0]));
}

fn info(index: i32, spec: u32, to: u32) -> Vec<u8> {
    let data = [index.to_ne_bytes(), spec.to_be_bytes(), to.to_be_bytes()].concat();
    control(IPPROTO_IP, IP_PKTINFO, &data)
}

/// From whom it comes.
fn came_from(fd: i32) -> String {
    let (mut buffer, mut name, mut size) = ([0u8; 9], address(1, 1), 16i32);
    let ret = sys!(SYS_recvfrom, fd, &mut buffer, 9, MSG_DONTWAIT, &mut name, &mut size);
    if !ret.ok() {
        return ret.to_string();
    }
    std::net::Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)).to_string()
}

fn sent_from() {
    let (b, there) = datagrams();
    let a = socket(SOCK_DGRAM);
    for (index, spec, to) in [(0, HERE + 2, 0), (1, HERE + 2, 0), (1, 0, 0), (0, 0, HERE + 9), (1, HERE, HERE)] {
        say!("{}", send(a, "x", Some(&address(HERE, there)), &info(index, spec, to)));
        say!("{}", came_from(b));
    }
    let bound = datagrams().0;
    say!("of one that is bound: {}", send(bound, "x", Some(&address(HERE, there)), &info(0, HERE + 3, 0)));
    say!("{}", came_from(b));
    connect(bound, HERE, there).need();
    say!("connected: {}", send::<sockaddr_in>(bound, "x", None, &info(0, HERE + 3, 0)));
    say!("{}", came_from(b));
}

fn sent_from_errors() {
    let (b, there) = datagrams();
    let a = socket(SOCK_DGRAM);
    for (index, spec) in [(0, 0x0808_0808), (0, u32::MAX), (0, 0xe000_0001), (999, 0), (999, HERE), (-1, 0)] {
        say!("{index} {spec:x}: {}", send(a, "x", Some(&address(HERE, there)), &info(index, spec, 0)));
        say!("{}", came_from(b));
    }
}

fn bad_lengths() {
    let (a, b, there) = pair();
    for (kind, length) in [(IP_TTL, 1), (IP_TTL, 3), (IP_TTL, 8), (IP_TOS, 0), (IP_PKTINFO, 8), (IP_PKTINFO, 16)] {
        sent_with(a, b, there, &control(IPPROTO_IP, kind, &vec![1; length]));
    }
    let mut long = control(IPPROTO_IP, IP_TTL, &[5, 0, 0, 0]);
    long[0] = 200;
    sent_with(a, b, there, &long);
    long[0] = 15;
    sent_with(a, b, there, &long);
    say!("less than a header: {}", send(a, "x", Some(&address(HERE, there)), &long[..12]));
    show(b);
}

fn several() {
    let (a, b, there) = pair();
    let mut both = control(IPPROTO_IP, IP_TTL, &5i32.to_ne_bytes());
    both.extend(control(IPPROTO_IP, IP_TOS, &[8]));
    both.extend(control(IPPROTO_IP, IP_TTL, &6i32.to_ne_bytes()));
    sent_with(a, b, there, &both);
    both.extend(control(IPPROTO_IP, IP_TTL, &0i32.to_ne_bytes()));
    sent_with(a, b, there, &both);
}

fn unknown() {
    let (a, b, there) = pair();
    for (level, kind) in [
        (IPPROTO_IP, 99),
        (IPPROTO_IP, IP_RECVTTL),
        (IPPROTO_IPV6, IPV6_HOPLIMIT),
        (IPPROTO_IPV6, IPV6_PKTINFO),
        (IPPROTO_UDP, 99),
        (SOL_SOCKET, 99),
        (SOL_SOCKET, SCM_RIGHTS),
        (IPPROTO_TCP, 1),
        (1000, 1),
    ] {
        say!("{level} {kind}");
        sent_with(a, b, there, &control(level, kind, &5i32.to_ne_bytes()));
    }
}

/// A bad control message is found before a destination that is missing.
fn of_sockets() {
    let fd = socket(SOCK_DGRAM);
    let bad = control(IPPROTO_IP, IP_TTL, &0i32.to_ne_bytes());
    say!("no destination: {}", send::<sockaddr_in>(fd, "x", None, &bad));
    say!("a bad one: {}", send(fd, "x", Some(&address(HERE, 0)), &bad));
    say!("nobody there: {}", send(fd, "x", Some(&address(HERE, 9)), &bad));
    let good = control(IPPROTO_IP, IP_TTL, &9i32.to_ne_bytes());
    say!("no destination: {}", send::<sockaddr_in>(fd, "x", None, &good));
}

fn sent6() {
    let ((a, _), (b, there)) = (datagrams6(), datagrams6());
    OPTIONS6[..3].iter().for_each(|name| _ = set_option(b, IPPROTO_IPV6, *name, 1).need());
    let with = |kind: i32, data: &[u8]| {
        say!("{}", send(a, "x", Some(&address6(HERE6, there)), &control(IPPROTO_IPV6, kind, data)));
        show(b);
    };
    for value in [0i32, 5, 255, -1, 256, -2] {
        with(IPV6_HOPLIMIT, &value.to_ne_bytes());
        with(IPV6_TCLASS, &value.to_ne_bytes());
    }
    for index in [0u32, 1] {
        for ip in [HERE6, ANY6] {
            with(IPV6_PKTINFO, &[&ip[..], &index.to_ne_bytes()].concat());
        }
    }
}

fn sent6_errors() {
    let ((a, _), (b, there)) = (datagrams6(), datagrams6());
    let with = |level: i32, kind: i32, data: &[u8]| {
        say!("{level} {kind}: {}", send(a, "x", Some(&address6(HERE6, there)), &control(level, kind, data)));
        receive(b, 9, MSG_DONTWAIT);
    };
    let mut other = HERE6;
    other[15] = 2;
    let mut link = ANY6;
    (link[0], link[1], link[15]) = (0xfe, 0x80, 1);
    for ip in [HERE6, other, MAPPED, link] {
        for index in [0u32, 1, 999] {
            with(IPPROTO_IPV6, IPV6_PKTINFO, &[&ip[..], &index.to_ne_bytes()].concat());
        }
    }
    with(IPPROTO_IPV6, IPV6_PKTINFO, &[0; 19]);
    with(IPPROTO_IPV6, IPV6_PKTINFO, &[0; 24]);
    with(IPPROTO_IPV6, IPV6_HOPLIMIT, &[0; 3]);
    with(IPPROTO_IPV6, IPV6_HOPLIMIT, &[0; 8]);
    with(IPPROTO_IPV6, IPV6_TCLASS, &[0; 1]);
    with(IPPROTO_IPV6, 99, &[0; 4]);
    with(IPPROTO_IP, IP_TTL, &[0; 4]);
    with(SOL_SOCKET, 99, &[0; 4]);
}

fn sent_mapped() {
    let ((a, _), (b, there)) = (datagrams6(), datagrams());
    OPTIONS[..3].iter().for_each(|name| _ = set_option(b, IPPROTO_IP, *name, 1).need());
    let with = |level: i32, kind: i32, data: &[u8]| {
        say!("{level} {kind}: {}", send(a, "x", Some(&address6(MAPPED, there)), &control(level, kind, data)));
        show(b);
    };
    with(IPPROTO_IP, IP_TTL, &9i32.to_ne_bytes());
    with(IPPROTO_IPV6, IPV6_HOPLIMIT, &9i32.to_ne_bytes());
    with(IPPROTO_IPV6, IPV6_PKTINFO, &[&MAPPED[..], &[0; 4]].concat());
    with(IPPROTO_IPV6, IPV6_PKTINFO, &[&HERE6[..], &[0; 4]].concat());
    with(IPPROTO_IPV6, IPV6_PKTINFO, &[0; 19]);
}

fn of_ping() {
    let fd = icmp::socket();
    OPTIONS[1..3].iter().for_each(|name| _ = set_option(fd, IPPROTO_IP, *name, 1).need());
    let ask = |message: &[u8]| send(fd, "\u{8}\0\0\0\0\0\0\0", Some(&address(HERE, 0)), message);
    for value in [5i32, 0] {
        say!("{}", ask(&control(IPPROTO_IP, IP_TTL, &value.to_ne_bytes())));
        say!("{}", ask(&control(IPPROTO_IP, IP_TOS, &(value * 4).to_ne_bytes())));
    }
    say!("unknown: {} {}", ask(&control(IPPROTO_IP, 99, &[0; 4])), ask(&control(SOL_SOCKET, 99, &[0; 4])));
    for line in received(fd, 20, 512, MSG_DONTWAIT).iter().skip(1) {
        say!("{line}");
    }
    for line in received(fd, 20, 512, MSG_DONTWAIT).iter().skip(1) {
        say!("{line}");
    }
}

fn of_raw() {
    let fd = sys!(SYS_socket, AF_INET, SOCK_RAW, 200).fd();
    OPTIONS[..3].iter().for_each(|name| _ = set_option(fd, IPPROTO_IP, *name, 1).need());
    for message in [
        control(IPPROTO_IP, IP_TTL, &5i32.to_ne_bytes()),
        control(IPPROTO_IP, IP_TOS, &[12]),
        info(0, HERE + 3, 0),
        info(999, 0, 0),
        control(IPPROTO_IP, 99, &[0; 4]),
    ] {
        say!("{}", send(fd, "x", Some(&address(HERE, 0)), &message));
        let lines = received(fd, 0, 512, MSG_DONTWAIT);
        lines.iter().for_each(|line| say!("{line}"));
    }
    let fd = socket6(SOCK_RAW, 200);
    OPTIONS6[..3].iter().for_each(|name| _ = set_option(fd, IPPROTO_IPV6, *name, 1).need());
    for (kind, value) in [(IPV6_HOPLIMIT, 5i32), (IPV6_TCLASS, 12), (IPV6_HOPLIMIT, 256), (99, 0)] {
        let message = control(IPPROTO_IPV6, kind, &value.to_ne_bytes());
        say!("{}", send(fd, "x", Some(&address6(HERE6, 0)), &message));
        received(fd, 0, 512, MSG_DONTWAIT).iter().for_each(|line| say!("{line}"));
    }
}

/// Of streams nothing is told; what they are sent with is looked at only as far as it is for all sockets.
fn of_streams() {
    let [a, b] = crate::inet::connection();
    for name in [IP_PKTINFO, IP_RECVTTL, IP_RECVTOS, IP_RECVERR] {
        say!("{name}: {} {}", set_option(b, IPPROTO_IP, name, 1), option(b, IPPROTO_IP, name));
    }
    say!("{}", send::<sockaddr_in>(a, "x", None, &control(IPPROTO_IP, IP_TTL, &[0; 4])));
    say!("{}", send::<sockaddr_in>(a, "y", None, &control(SOL_SOCKET, 99, &[0; 4])));
    show(b);
}
