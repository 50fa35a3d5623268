//! ICMP sockets: icmp(7), and who may have one.

use std::fs;

use libc::*;

use crate::file::{close, read, write};
use crate::inet::{
    ANY, HERE, address, bind, connect, disconnect, events, events_in, option, own_name, peer_name, pending_error, port,
    send, set_option, shutdown,
};
use crate::process;
use crate::sys::{Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    nobody, range, groups, kinds, echo, own_identifier, bad_questions, destinations, bound, bind_errors, shared,
    connected, undone, told, times, ready, timeouts, waits, cut, peeked, full, shut, options, ioctls, broadcast,
}

const RANGE: &str = "/proc/sys/net/ipv4/ping_group_range";

fn set_range(text: &str) -> String {
    match fs::write(RANGE, text) {
        Ok(()) => "0".into(),
        Err(error) => Ret(-i64::from(error.raw_os_error().unwrap_or(0))).to_string(),
    }
}

fn range_now() -> String {
    fs::read_to_string(RANGE).unwrap_or_default()
}

fn make() -> Ret {
    sys!(SYS_socket, AF_INET, SOCK_DGRAM, IPPROTO_ICMP)
}

/// For everybody while it lasts.
pub fn allowed<T>(body: impl FnOnce() -> T) -> T {
    set_range("0 2147483647");
    let result = body();
    set_range("1 0");
    result
}

pub fn socket() -> i32 {
    allowed(make).fd()
}

/// An echo request.
pub fn question(ident: u16, number: u16, text: &str) -> Vec<u8> {
    let mut bytes = vec![8, 0, 0, 0];
    bytes.extend(ident.to_be_bytes());
    bytes.extend(number.to_be_bytes());
    bytes.extend(text.bytes());
    bytes
}

pub fn ask(fd: i32, ip: u32, bytes: &[u8]) -> Ret {
    sys!(SYS_sendto, fd, bytes, bytes.len(), 0, &address(ip, 0), 16)
}

fn sum_is_right(bytes: &[u8]) -> bool {
    let pairs = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
    let sum: u32 = pairs.sum();
    (sum & 0xffff) + (sum >> 16) == 0xffff
}

/// What comes: type, code, whether the checksum is right and the identifier the socket's, number, text, and from whom.
pub fn heard(fd: i32) -> String {
    heard_with(fd, 1000, MSG_DONTWAIT)
}

fn heard_with(fd: i32, room: usize, flags: i32) -> String {
    let (mut buffer, mut name, mut size) = (vec![0u8; room], address(1, 1), 16i32);
    let ret = sys!(SYS_recvfrom, fd, &mut buffer[..], room, flags, &mut name, &mut size);
    if !ret.ok() {
        return ret.to_string();
    }
    let bytes = &buffer[..room.min(ret.0 as usize)];
    if bytes.len() < 8 {
        return format!("{ret} {bytes:?}");
    }
    let ident = u16::from_be_bytes([bytes[4], bytes[5]]) == port(fd);
    let number = u16::from_be_bytes([bytes[6], bytes[7]]);
    let text = String::from_utf8_lossy(&bytes[8..]);
    let text = if text.len() > 40 { "long".into() } else { text };
    let from = std::net::Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
    let (kind, code, right) = (bytes[0], bytes[1], sum_is_right(bytes));
    format!(
        "{ret}: {kind} {code} sum {right} own {ident} {number} {text} from {} {from} {} {size}",
        name.sin_family,
        u16::from_be(name.sin_port)
    )
}

fn nobody() {
    say!("at first: {}", range_now());
    say!("root: {} {}", make().ok_or_error(), sys!(SYS_socket, AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6).ok_or_error());
    process::as_plain_user(|| say!("a user: {}", make().ok_or_error()));
}

fn range() {
    for text in [
        "5 10",
        "10 5",
        "0 0",
        "7",
        "3 4 5",
        "-1 5",
        "0 2147483648",
        "0 4294967295",
        "x",
        "",
        "  1\t2\n",
        "2147483647 2147483647",
    ] {
        say!("{text:?}: {} {:?}", set_range(text), range_now());
    }
    say!("back: {}", set_range("1 0"));
    process::as_plain_user(|| say!("a user: {} {:?}", set_range("0 100"), range_now()));
}

fn groups() {
    let of = |text: &str| {
        set_range(text);
        say!("{text}: root {}", make().ok_or_error());
        process::as_plain_user(|| say!("a user: {}", make().ok_or_error()));
    };
    of("0 0");
    of("1000 1000");
    of("1 999");
    of("0 2147483647");
    let groups = [500u32, 77];
    sys!(SYS_setgroups, 2, &groups).need();
    of("77 77");
    of("78 499");
    set_range("1 0");
}

fn kinds() {
    allowed(|| {
        let of = |family, kind, protocol| sys!(SYS_socket, family, kind, protocol).ok_or_error();
        say!("the other one's: {} {}", of(AF_INET, SOCK_DGRAM, IPPROTO_ICMPV6), of(AF_INET6, SOCK_DGRAM, IPPROTO_ICMP));
        say!("a stream: {}", of(AF_INET, SOCK_STREAM, IPPROTO_ICMP));
        let fd = make().fd();
        for name in [SO_TYPE, SO_PROTOCOL, SO_DOMAIN, SO_ACCEPTCONN, SO_SNDBUF, SO_RCVBUF] {
            say!("{name}: {}", option(fd, SOL_SOCKET, name));
        }
        say!("listen: {} accept: {}", sys!(SYS_listen, fd, 1), sys!(SYS_accept4, fd, 0, 0, 0));
        say!("fresh: {} {} {}", own_name(fd), peer_name(fd), events(fd));
    });
}

fn question_and_answer(fd: i32, ip: u32, text: &str) {
    say!("ask: {}", ask(fd, ip, &question(0, 7, text)));
    say!("answer: {}", heard(fd));
}

fn echo() {
    let fd = socket();
    question_and_answer(fd, HERE, "hello");
    question_and_answer(fd, HERE + 5, "odd");
    question_and_answer(fd, ANY, "");
    say!("no more: {}", heard(fd));
    say!("name: {} {}", own_name(fd), peer_name(fd));
    let long = "x".repeat(60_000);
    say!("long: {} {}", ask(fd, HERE, &question(0, 1, &long)), heard_with(fd, 70_000, MSG_DONTWAIT));
    allowed(|| process::as_plain_user(|| question_and_answer(make().fd(), HERE, "from a user")));
}

fn own_identifier() {
    let (a, b) = (socket(), socket());
    ask(a, HERE, &question(0x1234, 1, "a"));
    ask(b, HERE, &question(0x1234, 2, "b"));
    say!("{}", heard(a));
    say!("{}", heard(b));
    say!("no other: {} {}", heard(a), heard(b));
    say!("different: {}", port(a) != port(b));
}

fn bad_questions() {
    let fd = socket();
    say!("nothing: {}", ask(fd, HERE, &[]));
    say!("short: {}", ask(fd, HERE, &question(0, 0, "")[..7]));
    say!("just enough: {}", ask(fd, HERE, &question(0, 0, "")));
    for (kind, code) in [(0, 0), (8, 1), (13, 0), (17, 0), (3, 3), (128, 0)] {
        let mut bytes = question(0, 0, "text");
        (bytes[0], bytes[1]) = (kind, code);
        say!("{kind} {code}: {}", ask(fd, HERE, &bytes));
    }
    say!("too long: {}", ask(fd, HERE, &question(0, 0, &"x".repeat(65_508))));
    say!("far too long: {}", ask(fd, HERE, &question(0, 0, &"x".repeat(65_528))));
    say!("longest: {}", ask(fd, HERE, &question(0, 0, &"x".repeat(65_499))));
    say!("one more: {}", ask(fd, HERE, &question(0, 0, &"x".repeat(65_500))));
    let bytes = question(0, 0, "x");
    say!("urgent: {}", sys!(SYS_sendto, fd, &bytes[..], bytes.len(), MSG_OOB, &address(HERE, 0), 16));
    say!("bad memory: {}", sys!(SYS_sendto, fd, crate::sys::NOWHERE, 20, 0, &address(HERE, 0), 16));
}

fn destinations() {
    let fd = socket();
    let bytes = question(0, 0, "x");
    let to = |to: &sockaddr_in, size: i32| sys!(SYS_sendto, fd, &bytes[..], bytes.len(), 0, to, size);
    say!("none: {} {}", send(fd, "x", 0), sys!(SYS_write, fd, &bytes[..], bytes.len()));
    say!("name: {}", own_name(fd).contains("a port"));
    let mut there = address(HERE, 0);
    say!("short: {} very short: {}", to(&there, 15), to(&there, 1));
    there.sin_family = AF_INET6 as u16;
    say!("family: {}", to(&there, 16));
    there.sin_family = 0;
    say!("no family: {}", to(&there, 16));
    there = address(HERE, 99);
    say!("a port: {} {}", to(&there, 16), heard(fd));
    there = address(0xe000_0001, 0);
    say!("a group: {}", to(&there, 16).0 == -i64::from(ENETUNREACH) || to(&there, 16).ok());
}

fn bound() {
    let fd = socket();
    say!("bind: {} {}", bind(fd, HERE, 4321), own_name(fd));
    say!("identifier: {}", port(fd));
    say!("again: {} {}", bind(fd, HERE, 4321), bind(fd, HERE, 0));
    question_and_answer(fd, HERE, "x");
    say!("to another: {} {}", ask(fd, HERE + 1, &question(0, 1, "y")), heard(fd));
    let any = socket();
    say!("any: {} {} {}", bind(any, ANY, 0), own_name(any), port(any) != 0);
    question_and_answer(any, HERE, "z");
    let other = socket();
    say!("another address: {} {}", bind(other, HERE + 9, 0), own_name(other));
    question_and_answer(other, HERE, "w");
}

fn bind_errors() {
    let fd = socket();
    let mut good = address(HERE, 0);
    say!("short: {}", sys!(SYS_bind, fd, &good, 15));
    good.sin_family = AF_INET6 as u16;
    say!("family: {}", sys!(SYS_bind, fd, &good, 16));
    good.sin_family = 0;
    say!("no family: {}", sys!(SYS_bind, fd, &good, 16));
    say!("not ours: {}", bind(fd, 0x0808_0808, 0));
    say!("a group: {}", bind(fd, 0xe000_0001, 0));
    say!("all: {}", bind(fd, u32::MAX, 0));
    let any: sockaddr_in = zeroed();
    say!("nothing at all: {}", sys!(SYS_bind, fd, &any, 16));
    allowed(|| process::as_plain_user(|| say!("a low one: {}", bind(make().fd(), HERE, 7))));
}

fn shared() {
    let (a, b, c) = (socket(), socket(), socket());
    say!("first: {} second: {}", bind(a, HERE, 777), bind(b, HERE, 777));
    say!("another address: {}", bind(b, HERE + 1, 777));
    set_option(b, SOL_SOCKET, SO_REUSEADDR, 1);
    say!("one reuses: {}", bind(b, HERE, 777));
    close(a);
    say!("free: {}", bind(b, HERE, 777));
    set_option(c, SOL_SOCKET, SO_REUSEADDR, 1);
    say!("both reuse: {}", bind(c, HERE, 777));
}

fn connected() {
    let fd = socket();
    say!("connect: {} {} {}", connect(fd, HERE, 0), own_name(fd), peer_name(fd));
    let bytes = question(0, 3, "text");
    say!("write: {} {}", sys!(SYS_write, fd, &bytes[..], bytes.len()), heard(fd));
    say!("elsewhere: {} {}", ask(fd, HERE + 1, &bytes), heard(fd));
    say!("with a port: {} {}", connect(fd, HERE, 5), peer_name(fd));
    let other = socket();
    let mut there = address(HERE, 0);
    say!("short: {}", sys!(SYS_connect, other, &there, 15));
    there.sin_family = AF_INET6 as u16;
    say!("family: {} {}", sys!(SYS_connect, other, &there, 16), own_name(other));
    say!("all: {}", connect(other, u32::MAX, 0).ok());
    say!("state: {}", pending_error(fd));
}

fn undone() {
    let fd = socket();
    connect(fd, HERE, 5);
    say!("{} {} {}", disconnect(fd), own_name(fd), peer_name(fd));
    question_and_answer(fd, HERE, "x");
    let fd = socket();
    bind(fd, HERE, 0);
    connect(fd, HERE, 5);
    say!("{} {} {}", disconnect(fd), own_name(fd), peer_name(fd));
    let fd = socket();
    bind(fd, HERE, 888);
    connect(fd, HERE, 5);
    say!("{} {} {}", disconnect(fd), own_name(fd), peer_name(fd));
}

/// The control messages of what comes, and their bytes.
pub fn told_of(fd: i32, room: usize) -> Vec<String> {
    let (mut buffer, mut control) = ([0u8; 100], [0u64; 40]);
    let mut piece = iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: 100 };
    // struct msghdr: name, iov, control, flags.
    let mut header = [0, 0, (&raw mut piece) as usize, 1, control.as_mut_ptr() as usize, room, 0];
    let ret = sys!(SYS_recvmsg, fd, &mut header, MSG_DONTWAIT);
    let mut all = vec![format!("{ret} flags {:x} control {}", header[6] as u32, header[5])];
    let bytes: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let mut rest = &bytes[..header[5]];
    while rest.len() >= 16 {
        let word = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().unwrap_or_default());
        let (len, level, kind) = (word(0) as usize, word(8), word(12));
        let data = &rest[16..len.clamp(16, rest.len())];
        let shown = if level == SOL_SOCKET as u32 { format!("{} bytes", data.len()) } else { format!("{data:?}") };
        all.push(format!("{level} {kind}: {shown}"));
        rest = rest.get(len.next_multiple_of(8).max(16)..).unwrap_or(&[]);
    }
    all
}

fn told() {
    let fd = socket();
    for name in [IP_RECVTTL, IP_RECVTOS, IP_PKTINFO] {
        say!(
            "{name}: {} {} {}",
            option(fd, IPPROTO_IP, name),
            set_option(fd, IPPROTO_IP, name, 1),
            option(fd, IPPROTO_IP, name)
        );
        ask(fd, HERE + 3, &question(0, 0, "x"));
        told_of(fd, 320).iter().for_each(|line| say!("{line}"));
    }
    set_option(fd, IPPROTO_IP, IP_TOS, 0x1c);
    set_option(fd, IPPROTO_IP, IP_TTL, 9);
    ask(fd, HERE, &question(0, 0, "x"));
    told_of(fd, 320).iter().for_each(|line| say!("{line}"));
    ask(fd, HERE, &question(0, 0, "x"));
    told_of(fd, 50).iter().for_each(|line| say!("{line}"));
    set_option(fd, IPPROTO_IP, IP_PKTINFO, 0);
    set_option(fd, IPPROTO_IP, IP_RECVTOS, 0);
    ask(fd, HERE, &question(0, 0, "x"));
    told_of(fd, 320).iter().for_each(|line| say!("{line}"));
    let byte = [0u8];
    say!(
        "a byte: {} {}",
        sys!(SYS_setsockopt, fd, IPPROTO_IP, IP_RECVTTL, &byte, 1),
        option(fd, IPPROTO_IP, IP_RECVTTL)
    );
    say!("nothing: {}", sys!(SYS_setsockopt, fd, IPPROTO_IP, IP_RECVTTL, &byte, 0));
}

fn times() {
    let fd = socket();
    say!(
        "{} {} {}",
        option(fd, SOL_SOCKET, SO_TIMESTAMP),
        set_option(fd, SOL_SOCKET, SO_TIMESTAMP, 1),
        option(fd, SOL_SOCKET, SO_TIMESTAMP)
    );
    let mut before: timespec = zeroed();
    sys!(SYS_clock_gettime, CLOCK_REALTIME, &mut before);
    ask(fd, HERE, &question(0, 0, "x"));
    told_of(fd, 320).iter().for_each(|line| say!("{line}"));
    set_option(fd, SOL_SOCKET, SO_TIMESTAMP, 0);
    ask(fd, HERE, &question(0, 0, "x"));
    told_of(fd, 320).iter().for_each(|line| say!("{line}"));
}

fn ready() {
    let fd = socket();
    say!("fresh: {}", events(fd));
    ask(fd, HERE, &question(0, 0, "x"));
    say!("asked: {}", events(fd));
    heard(fd);
    say!("heard: {}", events(fd));
    say!("never: {}", events_in(fd, POLLIN, 20));
}

fn timeouts() {
    let fd = socket();
    let time = timeval { tv_sec: 0, tv_usec: 20_000 };
    say!("set: {}", sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_RCVTIMEO, &time, 16));
    say!("read: {} {}", read(fd, 10), heard_with(fd, 100, 0));
    ask(fd, HERE, &question(0, 5, "in time"));
    say!("then: {}", heard_with(fd, 100, 0));
}

fn waits() {
    let fd = socket();
    bind(fd, HERE, 999);
    let child = process::child(|| {
        process::sleep_ms(50);
        ask(fd, HERE, &question(0, 6, "woken"));
        0
    });
    say!("{}", heard_with(fd, 100, 0));
    process::wait(child);
}

fn cut() {
    let fd = socket();
    ask(fd, HERE, &question(0, 0, "0123456789"));
    say!("{}", heard_with(fd, 12, MSG_DONTWAIT));
    ask(fd, HERE, &question(0, 0, "0123456789"));
    say!("full length: {}", heard_with(fd, 12, MSG_DONTWAIT | MSG_TRUNC).split(':').next().unwrap_or(""));
    ask(fd, HERE, &question(0, 0, "0123456789"));
    say!("nothing: {}", sys!(SYS_recvfrom, fd, 0, 0, MSG_DONTWAIT, 0, 0));
    say!("then: {}", heard(fd));
}

fn peeked() {
    let fd = socket();
    ask(fd, HERE, &question(0, 4, "peek"));
    say!("{}", heard_with(fd, 100, MSG_PEEK | MSG_DONTWAIT));
    say!("{}", heard(fd));
    say!("{}", heard_with(fd, 100, MSG_PEEK | MSG_DONTWAIT));
    say!("urgent: {}", heard_with(fd, 100, MSG_OOB | MSG_DONTWAIT));
    say!("errors: {}", heard_with(fd, 100, MSG_ERRQUEUE));
}

fn full() {
    let fd = socket();
    set_option(fd, SOL_SOCKET, SO_RCVBUF, 4000);
    for number in 0..200 {
        ask(fd, HERE, &question(0, number, "x"));
    }
    let mut count = 0;
    while !heard(fd).starts_with('E') {
        count += 1;
    }
    say!("some are lost: {}", (2..100).contains(&count));
    say!("the first stays: {} {}", ask(fd, HERE, &question(0, 9, "x")), heard(fd));
}

fn shut() {
    let fd = socket();
    say!("not connected: {}", shutdown(fd, SHUT_RD));
    let fd = socket();
    connect(fd, HERE, 0);
    say!("{} {}", shutdown(fd, SHUT_WR), events(fd));
    let bytes = question(0, 0, "x");
    say!("write: {}", sys!(SYS_sendto, fd, &bytes[..], bytes.len(), MSG_NOSIGNAL, 0, 0).ok());
    say!("{} {} {}", shutdown(fd, SHUT_RD), events(fd), read(fd, 0));
    say!("receive: {} {}", heard(fd).starts_with('E'), write(fd, "").ok());
}

fn options() {
    let fd = socket();
    for (level, name) in [
        (IPPROTO_IP, IP_TTL),
        (IPPROTO_IP, IP_TOS),
        (IPPROTO_IP, IP_MTU_DISCOVER),
        (IPPROTO_IP, IP_HDRINCL),
        (IPPROTO_IP, 999),
        (IPPROTO_IPV6, IPV6_UNICAST_HOPS),
        (255, 1),
        (IPPROTO_TCP, TCP_NODELAY),
        (IPPROTO_UDP, 1),
    ] {
        say!("{level} {name}: {} set {}", option(fd, level, name), set_option(fd, level, name, 2));
    }
    set_option(fd, IPPROTO_IP, IP_TTL, 64);
    let bytes = question(0, 0, "x");
    say!("a hop limit that is bad: {}", set_option(fd, IPPROTO_IP, IP_TTL, 256));
    say!("is still there: {} {}", ask(fd, HERE, &bytes), heard(fd));
}

fn ioctls() {
    let fd = socket();
    ask(fd, HERE, &question(0, 0, "x"));
    let mut value = -1i32;
    say!("inside: {} {value}", sys!(SYS_ioctl, fd, FIONREAD, &mut value));
    say!("outside: {}", sys!(SYS_ioctl, fd, TIOCOUTQ, &mut value));
    let mut request = [0u8; 40];
    request[..2].copy_from_slice(b"lo");
    say!("an interface: {}", sys!(SYS_ioctl, fd, SIOCGIFINDEX, &mut request));
}

fn broadcast() {
    let fd = socket();
    let all = u32::from_be_bytes([127, 255, 255, 255]);
    say!("refused: {} {}", ask(fd, all, &question(0, 0, "x")), connect(fd, all, 0));
    set_option(fd, SOL_SOCKET, SO_BROADCAST, 1);
    say!("allowed: {} {}", ask(fd, all, &question(0, 0, "x")), heard(fd));
}
