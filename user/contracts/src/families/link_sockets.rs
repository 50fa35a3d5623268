//! Sockets for frames on the loopback: packet(7).

use libc::*;

use crate::file::{close, read};
use crate::inet::{
    ANY, HERE, accept, bind as bind_ip, datagrams, events, listen, option, pending_error, send_to, set_option,
    shutdown, waiting_bytes,
};
use crate::process;
use crate::sys::{Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    who, not_connected, names, bound, without_header, with_header, bad_frames, destinations, outgoing, of_a_protocol,
    datagrams_seen, echoes_seen, injected, injected6, groups, statistics, more_told, memberships, options, ready, waiting, no_room, down, user,
}

/// For local experiments.
pub const LOCAL: u16 = 0x88b5;
pub const LO: i32 = 1;
const IP: u16 = ETH_P_IP as u16;
const ALL: u16 = ETH_P_ALL as u16;

pub fn make(kind: i32, protocol: u16) -> i32 {
    sys!(SYS_socket, AF_PACKET, kind, protocol.to_be()).fd()
}

pub fn name(protocol: u16, index: i32) -> sockaddr_ll {
    let mut name: sockaddr_ll = zeroed();
    name.sll_family = AF_PACKET as u16;
    name.sll_protocol = protocol.to_be();
    name.sll_ifindex = index;
    name.sll_halen = 6;
    name
}

pub fn bind(fd: i32, protocol: u16, index: i32) -> Ret {
    sys!(SYS_bind, fd, &name(protocol, index), 20)
}

pub fn put(fd: i32, bytes: &[u8], to: &sockaddr_ll) -> Ret {
    sys!(SYS_sendto, fd, bytes, bytes.len(), 0, to, 20)
}

fn shown_name(name: &sockaddr_ll, size: i32) -> String {
    let kinds = ["host", "broadcast", "multicast", "other", "outgoing"];
    let kind = kinds.get(usize::from(name.sll_pkttype)).unwrap_or(&"?");
    let (protocol, len) = (u16::from_be(name.sll_protocol), usize::from(name.sll_halen));
    let address = &name.sll_addr[..len.min(8)];
    format!("{size}: {protocol:#x} of {} ({}) {kind} {address:?}", name.sll_ifindex, name.sll_hatype)
}

fn own_name(fd: i32) -> String {
    let (mut name, mut size): (sockaddr_ll, i32) = (zeroed(), 20);
    let ret = sys!(SYS_getsockname, fd, &mut name, &mut size);
    if ret.ok() { shown_name(&name, size) } else { ret.to_string() }
}

/// The next frame, and where it is from.
fn next(fd: i32) -> Result<(Vec<u8>, String), Ret> {
    let (mut buffer, mut name, mut size): (_, sockaddr_ll, i32) = (vec![0u8; 70_000], zeroed(), 20);
    let ret = sys!(SYS_recvfrom, fd, &mut buffer[..], 70_000, MSG_DONTWAIT, &mut name, &mut size);
    if !ret.ok() {
        return Err(ret);
    }
    buffer.truncate(ret.0 as usize);
    Ok((buffer, shown_name(&name, size)))
}

pub fn heard(fd: i32) -> String {
    match next(fd) {
        Ok((bytes, from)) if bytes.len() > 60 => format!("{} bytes {from}", bytes.len()),
        Ok((bytes, from)) => format!("{bytes:?} {from}"),
        Err(ret) => ret.to_string(),
    }
}

/// Packets of IPv4 that are to or from a port, or of ICMP, without what differs from run to run: `link` bytes are before them.
fn packets(fd: i32, link: usize, port: Option<u16>) -> Vec<String> {
    let mut all = Vec::new();
    while let Ok((bytes, from)) = next(fd) {
        let Some(packet) = bytes.get(link..).filter(|packet| packet.len() >= 28 && packet[0] == 0x45) else { continue };
        let (protocol, rest) = (packet[9], &packet[20..]);
        let ports = [0, 2].map(|at| u16::from_be_bytes([rest[at], rest[at + 1]]));
        let wanted = match port {
            Some(port) => i32::from(protocol) == IPPROTO_UDP && ports.contains(&port),
            None => i32::from(protocol) == IPPROTO_ICMP,
        };
        if wanted {
            let head = if port.is_some() { String::new() } else { format!(" type {}", rest[0]) };
            let text = String::from_utf8_lossy(&rest[8..]).into_owned();
            all.push(format!("{} bytes, protocol {protocol}{head} {text:?} {from}", bytes.len()));
        }
    }
    all
}

fn show(what: &str, all: &[String]) {
    all.iter().for_each(|one| say!("{what}: {one}"));
    say!("{what}: {}", all.len());
}

fn who() {
    let of = |kind, protocol: i32| sys!(SYS_socket, AF_PACKET, kind, protocol).ok_or_error();
    for kind in [SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_RDM, 7, 11, 12] {
        say!("{kind}: {} {} {}", of(kind, 0), of(kind, 0x300), of(kind, -1));
    }
    process::as_plain_user(|| say!("a user: {} {}", of(SOCK_DGRAM, 0), of(SOCK_STREAM, 0)));
    let mut pair = [0i32; 2];
    say!("a pair: {}", sys!(SYS_socketpair, AF_PACKET, SOCK_DGRAM, 0, &mut pair));
    let fd = make(SOCK_DGRAM, LOCAL);
    for name in [SO_TYPE, SO_PROTOCOL, SO_DOMAIN, SO_ACCEPTCONN, SO_ERROR] {
        say!("{name}: {}", option(fd, SOL_SOCKET, name));
    }
}

fn not_connected() {
    let fd = make(SOCK_RAW, LOCAL);
    say!("connect: {}", sys!(SYS_connect, fd, &name(LOCAL, LO), 20));
    say!("listen: {} accept: {}", listen(fd, 1), accept(fd));
    say!("shutdown: {} {}", shutdown(fd, SHUT_RD), shutdown(fd, SHUT_RDWR));
    let (mut name, mut size): (sockaddr_ll, i32) = (zeroed(), 20);
    say!("peer: {}", sys!(SYS_getpeername, fd, &mut name, &mut size));
}

fn names() {
    let fd = make(SOCK_RAW, LOCAL);
    say!("fresh: {}", own_name(fd));
    say!("to lo: {} {}", bind(fd, LOCAL + 1, LO), own_name(fd));
    say!("to all: {} {}", bind(fd, LOCAL, 0), own_name(fd));
    say!("nowhere: {} {}", bind(fd, LOCAL, 4711), own_name(fd));
    say!("negative: {}", bind(fd, LOCAL, -1));
    say!("short: {}", sys!(SYS_bind, fd, &name(LOCAL, LO), 19));
    let mut other = name(LOCAL, LO);
    other.sll_family = AF_INET as u16;
    say!("of another family: {}", sys!(SYS_bind, fd, &other, 20));
    say!("longer: {}", sys!(SYS_bind, fd, &[name(LOCAL, LO), zeroed()], 40));
}

/// bind(2) says what is heard from then on.
fn bound() {
    let (fd, sender) = (make(SOCK_DGRAM, 0), make(SOCK_DGRAM, 0));
    let send = |protocol| put(sender, b"x", &name(protocol, LO)).need();
    send(LOCAL);
    say!("of nothing: {} {}", heard(fd), own_name(fd));
    bind(fd, LOCAL, 0).need();
    send(LOCAL);
    send(LOCAL + 1);
    say!("of a protocol: {}; {}", heard(fd), heard(fd));
    bind(fd, LOCAL + 1, LO).need();
    send(LOCAL);
    send(LOCAL + 1);
    say!("of another: {}; {}", heard(fd), heard(fd));
    bind(fd, 0, LO).need();
    send(LOCAL + 1);
    say!("of none: {} {}", heard(fd), own_name(fd));
}

fn without_header() {
    let fd = make(SOCK_DGRAM, LOCAL);
    say!("unbound: {}", sys!(SYS_write, fd, "hello", 5));
    bind(fd, LOCAL, LO).need();
    say!("write: {}", sys!(SYS_write, fd, "hello", 5));
    say!("bytes: {}", waiting_bytes(fd));
    let mut few = [0u8; 3];
    let ret = sys!(SYS_recvfrom, fd, &mut few, 3, MSG_PEEK | MSG_TRUNC, 0, 0);
    say!("some: {ret} {few:?}");
    say!("{}", heard(fd));
    say!("nothing: {} {}", put(fd, b"", &name(LOCAL, LO)), heard(fd));
    let mut to = name(LOCAL, LO);
    for (what, address) in [("broadcast", [0xff; 6]), ("a group", [1, 0, 0, 0, 0, 1]), ("others", [2, 0, 0, 0, 0, 1])] {
        to.sll_addr[..6].copy_from_slice(&address);
        say!("{what}: {} {}", put(fd, b"a", &to), heard(fd));
    }
    write_and_read(fd);
}

fn write_and_read(fd: i32) {
    say!("write: {} read: {}", sys!(SYS_write, fd, "again", 5), read(fd, 10));
}

fn frame(to: [u8; 6], from: [u8; 6], kind: u16, text: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), text].concat()
}

fn with_header() {
    let (fd, all) = (make(SOCK_RAW, LOCAL), make(SOCK_RAW, ALL));
    bind(all, ALL, LO).need();
    let bytes = frame([0; 6], [2, 3, 4, 5, 6, 7], LOCAL, b"hello");
    say!("send: {} {}", put(fd, &bytes, &name(LOCAL, LO)), heard(fd));
    say!("seen by all: {}; {}", heard(all), heard(all));
    // The header counts, not what the call says.
    say!("send: {} {}", put(fd, &bytes, &name(LOCAL + 1, LO)), heard(fd));
    say!("seen by all: {}; {}", heard(all), heard(all));
    say!("nothing said: {} {}", put(fd, &bytes, &name(0, LO)), heard(fd));
    say!("seen by all: {}; {}", heard(all), heard(all));
    let short = frame([0; 6], [0; 6], LOCAL, b"");
    say!("header only: {} {}", put(fd, &short, &name(LOCAL, LO)), heard(fd));
    say!("a length: {}", put(fd, &frame([0; 6], [0; 6], 5, b"hello"), &name(LOCAL, LO)));
    while let Ok((bytes, from)) = next(all) {
        say!("seen by all: {} bytes {from}", bytes.len());
    }
}

fn bad_frames() {
    let (raw, cooked) = (make(SOCK_RAW, LOCAL), make(SOCK_DGRAM, LOCAL));
    let to = name(LOCAL, LO);
    let bytes = vec![0u8; 70_000];
    for len in [0, 1, 13] {
        say!("{len}: {}", put(raw, &bytes[..len], &to));
    }
    for len in [65_536, 65_537, 65_540, 65_541] {
        say!("{len}: {}", put(cooked, &bytes[..len], &to));
    }
    for len in [65_550, 65_551, 65_554, 65_555] {
        say!("with header {len}: {}", put(raw, &bytes[..len], &to));
    }
    say!("bad memory: {}", sys!(SYS_sendto, cooked, 8, 5, 0, &to, 20));
}

fn destinations() {
    let fd = make(SOCK_DGRAM, LOCAL);
    let to = |len: i32, name: &sockaddr_ll| sys!(SYS_sendto, fd, "x", 1, 0, name, len);
    say!("short: {} {}", to(19, &name(LOCAL, LO)), to(12, &name(LOCAL, LO)));
    say!("no interface: {} {}", to(20, &name(LOCAL, 0)), to(20, &name(LOCAL, 4711)));
    let mut other = name(LOCAL, LO);
    other.sll_halen = 9;
    say!("a long address: {}", to(20, &other));
    other.sll_halen = 0;
    say!("without an address: {} {}", to(20, &other), heard(fd));
    other.sll_family = 77;
    say!("of another family: {} {}", to(20, &other), heard(fd));
    say!("urgent: {}", sys!(SYS_sendto, fd, "x", 1, MSG_OOB, &name(LOCAL, LO), 20));
}

fn outgoing() {
    let (sender, all, one) = (make(SOCK_DGRAM, ALL), make(SOCK_DGRAM, ALL), make(SOCK_DGRAM, LOCAL));
    for fd in [sender, all] {
        bind(fd, ALL, LO).need();
    }
    put(sender, b"x", &name(LOCAL, LO)).need();
    say!("who sends: {}; {}", heard(sender), heard(sender));
    say!("who wants all: {}; {}; {}", heard(all), heard(all), heard(all));
    say!("who wants some: {}; {}", heard(one), heard(one));
    say!("ignored: {}", set_option(all, SOL_PACKET, 23, 1));
    put(sender, b"y", &name(LOCAL, LO)).need();
    say!("who wants all: {}; {}", heard(all), heard(all));
    say!("wrong: {} {}", set_option(all, SOL_PACKET, 23, 2), option(all, SOL_PACKET, 23));
}

fn of_a_protocol() {
    let (a, b, other) = (make(SOCK_DGRAM, LOCAL), make(SOCK_RAW, LOCAL), make(SOCK_DGRAM, LOCAL + 1));
    put(a, b"x", &name(LOCAL, LO)).need();
    say!("{}", heard(a));
    say!("{}", heard(b));
    say!("{}", heard(other));
    close(b);
    put(a, b"y", &name(LOCAL, LO)).need();
    say!("{}", heard(a));
}

fn datagrams_seen() {
    let (all, ip) = (make(SOCK_RAW, ALL), make(SOCK_DGRAM, IP));
    bind(all, ALL, LO).need();
    let ((from, _), (to, port)) = (datagrams(), datagrams());
    send_to(from, "hello", port).need();
    show("all", &packets(all, 14, Some(port)));
    show("ip", &packets(ip, 0, Some(port)));
    close(to);
    send_to(from, "lost", port).need();
    show("nobody there", &packets(ip, 0, Some(port)));
    show("what is told", &packets(all, 14, None).iter().map(|one| one[..24].to_string()).collect::<Vec<_>>());
}

fn echoes_seen() {
    let all = make(SOCK_DGRAM, ALL);
    bind(all, ALL, LO).need();
    let fd = sys!(SYS_socket, AF_INET, SOCK_RAW, IPPROTO_ICMP).fd();
    let question = [8u8, 0, 0xb7, 0x9c, 0, 1, 0, 1, b'a', b'b'];
    let sum = question.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
    let mut question = question;
    let rest = !((sum - 0xb79c) % 0xffff) as u16;
    question[2..4].copy_from_slice(&rest.to_be_bytes());
    let ret = sys!(SYS_sendto, fd, &question[..], 10, 0, &crate::inet::address(HERE, 0), 16);
    say!("ask: {ret}");
    show("seen", &packets(all, 0, None));
}

/// An IPv4 header and one of UDP, without a checksum.
fn datagram(from: [u8; 4], to: [u8; 4], port: u16, text: &[u8]) -> Vec<u8> {
    let len = 28 + text.len() as u16;
    let mut packet = vec![0x45, 0];
    packet.extend(len.to_be_bytes());
    packet.extend([0, 1, 0, 0, 64, 17, 0, 0]);
    packet.extend([from, to].concat());
    let sum = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(7u16.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend((len - 20).to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(text);
    packet
}

/// What is written to the loopback is not believed there.
fn injected() {
    let here = [127, 0, 0, 1];
    let fd = make(SOCK_DGRAM, 0);
    let (receiver, port) = datagrams();
    let send = |what: &str, packet: &[u8], to: &sockaddr_ll| {
        let ret = put(fd, packet, to);
        say!("{what}: {ret} {}", crate::inet::receive(receiver, 20, MSG_DONTWAIT));
    };
    let good = datagram(here, here, port, b"hello");
    send("a datagram", &good, &name(IP, LO));
    send("said to be something else", &good, &name(LOCAL, LO));
    let mut other = name(IP, LO);
    other.sll_addr[..6].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    send("for others", &good, &other);
    send("cut short", &good[..30], &name(IP, LO));
    let mut broken = good.clone();
    broken[8] ^= 1;
    send("broken", &broken, &name(IP, LO));
    send("to nobody here", &datagram(here, [203, 0, 113, 1], port, b"x"), &name(IP, LO));
}

fn injected6() {
    let fd = make(SOCK_DGRAM, 0);
    let receiver = sys!(SYS_socket, AF_INET6, SOCK_RAW, 200).fd();
    let here = std::net::Ipv6Addr::LOCALHOST.octets();
    let other = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets();
    for (what, from, to) in [("here", here, here), ("from others", other, here), ("to others", here, other)] {
        let packet = [&[0x60u8, 0, 0, 0, 0, 3, 200, 64], &from[..], &to, b"abc"].concat();
        let ret = put(fd, &packet, &name(ETH_P_IPV6 as u16, LO));
        say!("{what}: {ret} {}", crate::inet::receive(receiver, 20, MSG_DONTWAIT));
    }
}

fn groups() {
    let ip = make(SOCK_RAW, ALL);
    bind(ip, ALL, LO).need();
    let fd = crate::inet::socket(SOCK_DGRAM);
    bind_ip(fd, HERE, 0).need();
    set_option(fd, SOL_SOCKET, SO_BROADCAST, 1).need();
    let (receiver, port) = (crate::inet::socket(SOCK_DGRAM), crate::inet::port(fd));
    bind_ip(receiver, ANY, 0).need();
    let to = crate::inet::address(u32::from_be_bytes([127, 255, 255, 255]), crate::inet::port(receiver));
    say!("to all: {}", sys!(SYS_sendto, fd, "x", 1, 0, &to, 16));
    show("seen", &packets(ip, 14, Some(port)));
}

fn counts(fd: i32) -> String {
    let (mut counts, mut size) = ([9u32; 3], 12i32);
    let ret = sys!(SYS_getsockopt, fd, SOL_PACKET, PACKET_STATISTICS, &mut counts, &mut size);
    format!("{ret} {size} {} seen, {} lost", counts[0], if counts[1] == 0 { "none" } else { "some" })
}

fn statistics() {
    let fd = make(SOCK_DGRAM, LOCAL);
    say!("at first: {}", counts(fd));
    for _ in 0..3 {
        put(fd, b"x", &name(LOCAL, LO)).need();
    }
    say!("three: {}", counts(fd));
    say!("again: {}", counts(fd));
    heard(fd);
    say!("read: {}", counts(fd));
    say!("to be set: {}", set_option(fd, SOL_PACKET, PACKET_STATISTICS, 1));
}

fn no_room() {
    let (fd, sender) = (make(SOCK_DGRAM, LOCAL), make(SOCK_DGRAM, 0));
    set_option(fd, SOL_SOCKET, SO_RCVBUF, 4096).need();
    for _ in 0..100 {
        put(sender, &[7; 1000], &name(LOCAL, LO)).need();
    }
    say!("{}", counts(fd));
    let mut count = 0;
    while next(fd).is_ok() {
        count += 1;
    }
    say!("some came: {}", (1..50).contains(&count));
    put(sender, b"x", &name(LOCAL, LO)).need();
    say!("then: {} {}", heard(fd), counts(fd));
}

/// What is told of a frame besides: `struct tpacket_auxdata` without what the state of its checksum is.
fn more(fd: i32, length: usize) -> String {
    let (mut bytes, mut control) = (vec![0u8; length], [0u64; 16]);
    let mut iov = iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: length };
    let mut message: msghdr = zeroed();
    message.msg_iov = &mut iov;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = 128;
    let ret = sys!(SYS_recvmsg, fd, &mut message, MSG_DONTWAIT);
    if !ret.ok() || message.msg_controllen == 0 {
        return format!("{ret} {}", message.msg_controllen);
    }
    let control: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let half = |at: usize| u16::from_ne_bytes([control[at], control[at + 1]]);
    let word = |at: usize| u32::from_ne_bytes([control[at], control[at + 1], control[at + 2], control[at + 3]]);
    let (user, flags) = (word(16) & 1, message.msg_flags);
    let (level, kind, size) = (word(8), word(12), message.msg_controllen);
    let rest = [28, 30, 32, 34].map(half);
    format!("{ret} {flags:#x} {level} {kind} {size}: status {user} of {} kept {} {rest:?}", word(20), word(24))
}

fn more_told() {
    for kind in [SOCK_DGRAM, SOCK_RAW] {
        let (fd, sender) = (make(kind, LOCAL), make(SOCK_DGRAM, 0));
        let send = || put(sender, b"hello", &name(LOCAL, LO)).need();
        say!("off: {}", option(fd, SOL_PACKET, PACKET_AUXDATA));
        send();
        say!("{}", more(fd, 100));
        say!("on: {} {}", set_option(fd, SOL_PACKET, PACKET_AUXDATA, 5), option(fd, SOL_PACKET, PACKET_AUXDATA));
        send();
        say!("{}", more(fd, 100));
        send();
        say!("cut: {}", more(fd, 3));
    }
}

fn memberships() {
    let fd = make(SOCK_RAW, LOCAL);
    let of = |index, kind: i32, len: u16| packet_mreq {
        mr_ifindex: index,
        mr_type: kind as u16,
        mr_alen: len,
        mr_address: [1, 2, 3, 4, 5, 6, 0, 0],
    };
    let join = |wish: &packet_mreq| sys!(SYS_setsockopt, fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, wish, 16);
    let leave = |wish: &packet_mreq| sys!(SYS_setsockopt, fd, SOL_PACKET, PACKET_DROP_MEMBERSHIP, wish, 16);
    for (what, kind, len) in [
        ("everything", PACKET_MR_PROMISC, 0),
        ("all groups", PACKET_MR_ALLMULTI, 0),
        ("a group", PACKET_MR_MULTICAST, 6),
        ("a group, short", PACKET_MR_MULTICAST, 5),
        ("a group, long", PACKET_MR_MULTICAST, 7),
        ("an address", 3, 6),
        ("unknown", 4711, 0),
    ] {
        let wish = of(LO, kind, len);
        say!("{what}: {} {} {} {} {}", join(&wish), join(&wish), leave(&wish), leave(&wish), leave(&wish));
    }
    let group = of(LO, PACKET_MR_MULTICAST, 6);
    let more = packet_mreq { mr_address: [1, 2, 3, 4, 5, 6, 7, 8], ..group };
    let other = packet_mreq { mr_address: [1, 2, 3, 4, 5, 7, 0, 0], ..group };
    say!("behind the address: {} {} {} {}", join(&group), join(&other), leave(&more), leave(&other));
    let other = packet_mreq { mr_address: [9; 8], ..of(LO, PACKET_MR_PROMISC, 0) };
    say!("without one: {} {}", join(&of(LO, PACKET_MR_PROMISC, 0)), leave(&other));
    say!("nowhere: {} {}", join(&of(4711, PACKET_MR_PROMISC, 0)), leave(&of(4711, PACKET_MR_PROMISC, 0)));
    let short = |len| sys!(SYS_setsockopt, fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &of(LO, PACKET_MR_PROMISC, 6), len);
    say!("short: {} {} {}", short(4), short(15), short(16));
}

fn options() {
    let fd = make(SOCK_RAW, LOCAL);
    say!("unknown: {} {}", option(fd, SOL_PACKET, 99), set_option(fd, SOL_PACKET, 99, 1));
    say!("of IP: {} {}", option(fd, IPPROTO_IP, IP_TTL), set_option(fd, IPPROTO_IP, IP_TTL, 1));
    say!("buffers: {} {}", option(fd, SOL_SOCKET, SO_RCVBUF), option(fd, SOL_SOCKET, SO_SNDBUF));
    say!("short: {}", sys!(SYS_setsockopt, fd, SOL_PACKET, PACKET_AUXDATA, "abc", 3));
}

fn ready() {
    let fd = make(SOCK_DGRAM, LOCAL);
    say!("at first: {} {}", events(fd), waiting_bytes(fd));
    put(fd, b"hello", &name(LOCAL, LO)).need();
    put(fd, b"x", &name(LOCAL, LO)).need();
    say!("two: {} {}", events(fd), waiting_bytes(fd));
    say!("{}", heard(fd));
    say!("one: {} {}", events(fd), waiting_bytes(fd));
    say!("{}; {}", heard(fd), heard(fd));
    say!("none: {} {}", events(fd), waiting_bytes(fd));
    let mut out = -1i32;
    say!("on its way: {} {out}", sys!(SYS_ioctl, fd, TIOCOUTQ, &mut out));
}

/// Threads that sleep in recv and poll when a frame comes, or finds it there, or whose time ends.
fn waiting() {
    let fd = make(SOCK_DGRAM, LOCAL);
    let receive = move || {
        let mut buffer = [0u8; 64];
        let ret = sys!(SYS_recvfrom, fd, &mut buffer[..], 64, 0, 0, 0);
        crate::file::shown(ret, &buffer)
    };
    let (_, receiver) = process::sleeping_thread(receive);
    put(fd, b"woken", &name(LOCAL, LO)).need();
    say!("received: {}", receiver.join().unwrap_or_default());
    let polls = move || {
        let mut polled = pollfd { fd, events: POLLIN, revents: 0 };
        let ret = sys!(SYS_ppoll, &mut polled, 1, 0, 0, 8);
        format!("{ret} {:#x}", polled.revents)
    };
    let (_, poller) = process::sleeping_thread(polls);
    put(fd, b"polled", &name(LOCAL, LO)).need();
    say!("polled: {}; {}", poller.join().unwrap_or_default(), receive());
    // The frame is there first.
    put(fd, b"before", &name(LOCAL, LO)).need();
    say!("before: {} {}", polls(), receive());
    let time = timeval { tv_sec: 0, tv_usec: 50_000 };
    sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_RCVTIMEO, &time, size_of::<timeval>()).need();
    say!("in vain: {}", receive());
    put(fd, b"after", &name(LOCAL, LO)).need();
    say!("after that: {}", receive());
    close(fd);
}

fn set_up(up: bool) {
    let fd = crate::inet::socket(SOCK_DGRAM);
    let mut request: ifreq = zeroed();
    request.ifr_name[..2].copy_from_slice(&[b'l' as _, b'o' as _]);
    sys!(SYS_ioctl, fd, SIOCGIFFLAGS, &mut request).need();
    // SAFETY: the kernel has written it.
    let flags = unsafe { request.ifr_ifru.ifru_flags } & !(IFF_UP as i16);
    request.ifr_ifru.ifru_flags = flags | if up { IFF_UP as i16 } else { 0 };
    sys!(SYS_ioctl, fd, SIOCSIFFLAGS, &request).need();
    close(fd);
}

/// An interface that is down is not used; who listens to it is told.
fn down() {
    let (fd, other) = (make(SOCK_DGRAM, LOCAL), make(SOCK_DGRAM, LOCAL));
    bind(fd, LOCAL, LO).need();
    set_up(false);
    say!("bound: {} {}", events(fd), pending_error(fd));
    say!("unbound: {} {}", events(other), pending_error(other));
    say!("send: {} {}", sys!(SYS_write, fd, "x", 1), put(other, b"x", &name(LOCAL, LO)));
    say!("bind: {} {} {}", bind(other, LOCAL, LO), heard(other), heard(other));
    set_up(true);
    say!("send: {}", sys!(SYS_write, fd, "x", 1));
    say!("then: {} {}", heard(fd), heard(other));
}

/// Who has one keeps it.
fn user() {
    let fd = make(SOCK_DGRAM, LOCAL);
    process::as_plain_user(|| {
        say!("bind: {}", bind(fd, LOCAL, LO));
        say!("send: {} {}", put(fd, b"x", &name(LOCAL, LO)), heard(fd));
    });
}
