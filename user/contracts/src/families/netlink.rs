//! Netlink sockets: netlink(7).

use libc::*;

use crate::netlink::*;
use crate::sys::{sys, zeroed};
use crate::{process, say, tests};

tests! {
    kinds, names, ports, options, memberships, ready, acknowledgements, several_in_one, malformed, bad_attributes, long_answers,
    cut_off, senders, no_room, busy, between_programs, connected, of_a_user, refused_calls, without_binding, listed,
}

fn kinds() {
    for (kind, protocol) in [
        (SOCK_RAW, 0),
        (SOCK_DGRAM, 0),
        (SOCK_STREAM, 0),
        (SOCK_RAW, 31),
        (SOCK_RAW, 32),
        (SOCK_RAW, -1),
        (SOCK_RAW, 4),
    ] {
        let fd = sys!(SYS_socket, AF_NETLINK, kind, protocol);
        let option = |option: i32| {
            let (mut value, mut length) = (-1i32, 4);
            sys!(SYS_getsockopt, fd.0, SOL_SOCKET, option, &mut value, &mut length);
            value
        };
        say!(
            "{kind} {protocol}: {} {} {} {}",
            fd.ok_or_error(),
            option(SO_TYPE),
            option(SO_DOMAIN),
            option(SO_PROTOCOL)
        );
    }
    let mut pair = [0i32; 2];
    say!("a pair: {}", sys!(SYS_socketpair, AF_NETLINK, SOCK_RAW, 0, &mut pair));
}

fn shown(port: u32) -> &'static str {
    match port {
        0 => "none",
        port if port == process::pid() as u32 => "the process",
        port if (port as i32) < 0 => "a large one",
        _ => "another",
    }
}

fn names() {
    let fd = route();
    let (ret, port, groups) = name_by(SYS_getsockname, fd);
    say!("fresh: {ret} {} {groups}", shown(port));
    let (ret, port, groups) = name_by(SYS_getpeername, fd);
    say!("peer: {ret} {} {groups}", shown(port));
    let bind = |port: u32, groups: u32| sys!(SYS_bind, fd, &address(port, groups), 12);
    say!("short: {}", sys!(SYS_bind, fd, &address(0, 0), 11));
    say!("family: {}", sys!(SYS_bind, fd, &[AF_INET as u32, 0, 0], 12));
    say!("bind: {}", bind(0, 0));
    say!("port: {}", shown(own_port(fd)));
    say!("again: {} with it: {}", bind(0, 0), bind(own_port(fd), 0));
    say!("groups: {} {}", bind(own_port(fd), 3), name_by(SYS_getsockname, fd).2);
    say!("no groups: {} {}", bind(own_port(fd), 0), name_by(SYS_getsockname, fd).2);
}

fn ports() {
    let (one, other) = (route(), route());
    say!("{} {}", sys!(SYS_bind, one, &address(0, 0), 12), shown(own_port(one)));
    say!("{} {}", sys!(SYS_bind, other, &address(0, 0), 12), shown(own_port(other)));
    let third = route();
    say!("taken: {}", sys!(SYS_bind, third, &address(own_port(one), 0), 12));
    say!("given: {} {}", sys!(SYS_bind, third, &address(0x0765_4321, 0), 12), own_port(third) == 0x0765_4321);
    let diag = make(NETLINK_SOCK_DIAG);
    say!("of another protocol: {}", sys!(SYS_bind, diag, &address(own_port(one), 0), 12));
    sys!(SYS_close, one);
    say!("free again: {}", sys!(SYS_bind, route(), &address(process::pid() as u32, 0), 12));
}

fn option(fd: i32, option: i32) -> String {
    let (mut value, mut length) = ([-1i32; 2], 8);
    let ret = sys!(SYS_getsockopt, fd, SOL_NETLINK, option, &mut value, &mut length);
    if ret.ok() { format!("{} ({length})", value[0]) } else { ret.to_string() }
}

fn options() {
    let fd = route();
    for number in [NETLINK_BROADCAST_ERROR, NETLINK_NO_ENOBUFS, NETLINK_CAP_ACK, 11, 12, 77] {
        let before = option(fd, number);
        let ret = set(fd, number, 5);
        say!("{number}: {before}, {ret}, {}, {} {}", option(fd, number), set(fd, number, 0), option(fd, number));
    }
    say!("no value: {} {}", sys!(SYS_setsockopt, fd, SOL_NETLINK, NETLINK_CAP_ACK, 0, 0), option(fd, NETLINK_CAP_ACK));
    let value = 1;
    say!("level: {}", sys!(SYS_setsockopt, fd, IPPROTO_TCP, 1, &value, 4));
}

fn memberships() {
    let fd = route();
    for group in [0, 1, 5, 33, 36, 1000, -1] {
        let ret = set(fd, NETLINK_ADD_MEMBERSHIP, group);
        say!("{group}: {ret} {:x}", name_by(SYS_getsockname, fd).2);
    }
    say!("port: {}", shown(own_port(fd)));
    let (mut value, mut length) = ([0u32; 2], 8);
    let ret = sys!(SYS_getsockopt, fd, SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS, &mut value, &mut length);
    say!("list: {ret} {value:x?}");
    say!("leave: {} {:x}", set(fd, NETLINK_DROP_MEMBERSHIP, 1), name_by(SYS_getsockname, fd).2);
    say!("not there: {}", set(fd, NETLINK_DROP_MEMBERSHIP, 2));
}

fn events(fd: i32) -> i16 {
    let mut entry = pollfd { fd, events: POLLIN | POLLOUT, revents: 0 };
    let now = timespec { tv_sec: 0, tv_nsec: 0 };
    sys!(SYS_ppoll, &mut entry, 1, &now, 0, 8);
    entry.revents
}

fn ready() {
    let fd = route();
    say!("fresh: {:x}", events(fd));
    submit(fd, &message(RTM_GETLINK, REQUEST, &link_head(LO, 0, 0)));
    say!("asked: {:x}", events(fd));
    say!("read: {} {:x}", receive(fd).is_ok(), events(fd));
}

fn acknowledgements() {
    let fd = route();
    say!("no operation: {}", verdict(fd, &message(NLMSG_NOOP as u16, ACK, &[])));
    say!("not asked for: {}", verdict(fd, &message(NLMSG_NOOP as u16, REQUEST, &[])));
    say!("no request: {}", verdict(fd, &message(RTM_GETLINK, 0, &link_head(LO, 0, 0))));
    say!("no request, acknowledged: {}", verdict(fd, &message(RTM_GETLINK, NLM_F_ACK as u16, &link_head(LO, 0, 0))));
    say!("unknown: {}", verdict(fd, &message(1000, REQUEST, &[0; 20])));
    say!("empty: {}", verdict(fd, &message(RTM_GETLINK, REQUEST, &[])));
    say!("empty, acknowledged: {}", verdict(fd, &message(RTM_GETLINK, ACK, &[])));
    say!("too short: {}", verdict(fd, &message(RTM_GETLINK, REQUEST, &[0; 4])));
    say!("found, acknowledged: {}", verdict(fd, &message(RTM_GETLINK, ACK, &link_head(LO, 0, 0))));
    set(fd, NETLINK_CAP_ACK, 1);
    say!("without the request: {}", verdict(fd, &message(1000, REQUEST, &[0; 20])));
    let answers = ask(fd, &message(1000, REQUEST, &[0; 20]));
    let ours = answers.iter().all(|answer| answer.seq == 7 && answer.port == own_port(fd));
    say!("for this one: {ours}");
}

fn several_in_one() {
    let fd = route();
    let mut bytes = message(1000, REQUEST, &[0; 4]);
    bytes.extend(message(RTM_GETLINK, REQUEST, &link_head(LO, 0, 0)));
    bytes.extend(message(NLMSG_NOOP as u16, ACK, &[]));
    say!("{}", submit(fd, &bytes).0 == bytes.len() as i64);
    while let Ok(bytes) = receive(fd) {
        say!("a datagram: {:?}", split(&bytes).iter().map(|answer| answer.verdict()).collect::<Vec<_>>());
    }
}

fn with_length(len: u32) -> Vec<u8> {
    let mut bytes = message(1000, REQUEST, &[0; 4]);
    bytes[..4].copy_from_slice(&len.to_ne_bytes());
    bytes
}

fn malformed() {
    let fd = route();
    for len in [0, 1, 15, 16, 17, 19, 20, 21, 1000, u32::MAX, u32::MAX - 15] {
        say!("length {len}: {}", verdict(fd, &with_length(len)));
    }
    for size in [1, 15, 16, 17] {
        say!("{size} bytes: {} {}", submit(fd, &message(1000, REQUEST, &[0; 4])[..size]), all(fd).len());
    }
    say!("nothing: {}", submit(fd, &[]));
    say!("nowhere: {}", sys!(SYS_sendto, fd, crate::sys::NOWHERE, 20, 0, 0, 0));
    say!("too long: {}", submit(fd, &vec![0; 1 << 20]));
    let mut second = message(RTM_GETLINK, REQUEST, &link_head(LO, 0, 0));
    second.extend(with_length(8));
    second.extend(message(1000, REQUEST, &[0; 4]));
    say!("after a good one: {}", verdict(fd, &second));
}

fn bad_attributes() {
    let fd = route();
    for len in [0u16, 1, 3, 4, 5, 7, 8, 200, 0xffff] {
        let mut body = link_head(LO, 0, 0);
        let mut bad = attribute(29, &[1, 2, 3, 4]);
        bad[..2].copy_from_slice(&len.to_ne_bytes());
        body.extend(bad);
        let answers = ask(fd, &message(RTM_GETLINK, REQUEST, &body));
        say!("length {len}: {:?}", answers.iter().map(|answer| answer.kind).collect::<Vec<_>>());
    }
    let mut body = link_head(0, 0, 0);
    body.extend(attribute(IFLA_IFNAME, &[b'x'; 300]));
    say!("a long name: {}", verdict(fd, &message(RTM_GETLINK, REQUEST, &body)));
    let mut body = link_head(0, 0, 0);
    body.extend(attribute(IFLA_IFNAME, b""));
    say!("no name: {}", verdict(fd, &message(RTM_GETLINK, REQUEST, &body)));
}

fn long_answers() {
    let fd = route();
    submit(fd, &message(RTM_GETLINK, REQUEST, &link_head(LO, 0, 0)));
    let peek = sys!(SYS_recvfrom, fd, 0, 0, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT, 0, 0);
    let mut small = [0u8; 20];
    let cut = sys!(SYS_recvfrom, fd, &mut small, 20, MSG_PEEK, 0, 0);
    let whole = receive(fd).map_or(0, |bytes| bytes.len());
    say!("{} {cut} {}", peek.0 == whole as i64, whole > 100);
    say!("gone: {}", receive(fd).err().map_or("no".into(), |ret| ret.to_string()));
}

fn cut_off() {
    let fd = route();
    submit(fd, &message(RTM_GETLINK, REQUEST, &link_head(LO, 0, 0)));
    let mut small = [0u8; 20];
    let mut from = [0u32; 3];
    let piece = [small.as_mut_ptr() as usize, small.len()];
    let mut header: msghdr = zeroed();
    header.msg_name = from.as_mut_ptr().cast();
    header.msg_namelen = 12;
    header.msg_iov = piece.as_ptr() as *mut _;
    header.msg_iovlen = 1;
    say!("{} flags {:x}", sys!(SYS_recvmsg, fd, &mut header, 0), header.msg_flags);
    say!("from: {} {from:?}", header.msg_namelen);
    say!("the rest: {}", receive(fd).err().map_or("there".into(), |ret| ret.to_string()));
}

fn senders() {
    let fd = route();
    let bytes = message(NLMSG_NOOP as u16, ACK, &[]);
    say!("short name: {}", sys!(SYS_sendto, fd, bytes.as_slice(), bytes.len(), 0, &address(0, 0), 11));
    say!("family: {}", sys!(SYS_sendto, fd, bytes.as_slice(), bytes.len(), 0, &[0u32; 3], 12));
    say!("to the kernel: {} {}", send_to(fd, 0, 0, &bytes), all(fd).len());
    say!("to nobody: {}", send_to(fd, 0x0777_7777, 0, &bytes));
    say!("urgent: {}", sys!(SYS_sendto, fd, bytes.as_slice(), bytes.len(), MSG_OOB, 0, 0));
    say!("by write: {} {}", sys!(SYS_write, fd, bytes.as_slice(), bytes.len()), all(fd).len());
    let mut back = [0u8; 100];
    submit(fd, &bytes);
    say!("by read: {}", sys!(SYS_read, fd, &mut back, 100));
}

fn no_room() {
    let fd = route();
    let size = 1;
    sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_RCVBUF, &size, 4);
    for _ in 0..200 {
        submit(fd, &message(RTM_GETLINK, REQUEST, &link_head(LO, 0, 0)));
    }
    say!("events: {:x}", events(fd) & POLLERR);
    say!("first: {}", receive(fd).err().map_or("a datagram".into(), |ret| ret.to_string()));
    let rest = all(fd).len();
    say!("then some: {}", rest > 0 && rest < 200);
    submit(fd, &message(RTM_GETLINK, REQUEST, &link_head(LO, 0, 0)));
    say!("and again: {}", all(fd).len());
}

fn busy() {
    let fd = route();
    let list = message(RTM_GETLINK, DUMP, &link_head(0, 0, 0));
    submit(fd, &list);
    submit(fd, &list);
    let answers = all(fd);
    for answer in answers.iter().filter(|answer| i32::from(answer.kind) == NLMSG_ERROR) {
        say!("{}", answer.verdict());
    }
    say!("ends: {}", answers.iter().filter(|answer| i32::from(answer.kind) == NLMSG_DONE).count());
    submit(fd, &list);
    say!("closed in the middle: {}", sys!(SYS_close, fd));
}

fn between_programs() {
    let (one, other) = (route(), route());
    sys!(SYS_bind, other, &address(0, 0), 12).need();
    say!("{}", send_to(one, own_port(other), 0, b"hello"));
    let mut bytes = [0u8; 10];
    let (mut from, mut length) = ([0u32; 3], 12);
    let ret = sys!(SYS_recvfrom, other, &mut bytes, 10, MSG_DONTWAIT, &mut from, &mut length);
    say!("{ret} {:?} {}", String::from_utf8_lossy(&bytes[..5]), from[1] == own_port(one));
}

fn connected() {
    let (one, other) = (route(), route());
    sys!(SYS_bind, other, &address(0, 0), 12).need();
    let connect = |port: u32, len: i32| sys!(SYS_connect, one, &address(port, 0), len);
    say!("short: {} {}", connect(0, 1), connect(0, 11));
    say!("{} {}", connect(own_port(other), 12), name_by(SYS_getpeername, one).1 == own_port(other));
    say!("bound by it: {}", own_port(one) != 0);
    say!("{} {}", submit(one, b"hello"), receive(other).map_or(0, |bytes| bytes.len()));
    say!("no more: {} {}", sys!(SYS_connect, one, &[0u32; 3], 12), name_by(SYS_getpeername, one).1);
    say!("the kernel: {}", verdict(one, &message(NLMSG_NOOP as u16, ACK, &[])));
}

fn of_a_user() {
    process::as_plain_user(|| {
        let fd = route();
        say!("asks: {}", verdict(fd, &message(RTM_GETLINK, REQUEST, &link_head(LO, 0, 0))));
        say!("changes: {}", outcome(fd, RTM_NEWLINK, 0, &link_head(LO, 0, 1)));
        say!("changes nothing that is: {}", outcome(fd, 24, 0, &[0; 20]));
        say!("to others: {}", send_to(fd, 12345, 0, b"hello"));
        say!("to groups: {}", send_to(fd, 0, 1, b"hello"));
        say!("connect: {}", sys!(SYS_connect, fd, &address(12345, 0), 12));
        say!("listen: {}", set(fd, NETLINK_ADD_MEMBERSHIP, 1));
        say!("bind: {}", sys!(SYS_bind, fd, &address(0x0123_4567, 1), 12));
    });
}

fn refused_calls() {
    let fd = route();
    say!("listen: {}", sys!(SYS_listen, fd, 1));
    say!("accept: {}", sys!(SYS_accept4, fd, 0, 0, 0));
    say!("shutdown: {}", sys!(SYS_shutdown, fd, 1));
    let bytes = [0u8; 10];
    say!("urgent: {}", sys!(SYS_recvfrom, fd, &bytes, 10, MSG_OOB, 0, 0));
    say!("seek: {}", sys!(SYS_lseek, fd, 0, 0));
}

/// As musl's getifaddrs does it.
fn without_binding() {
    let fd = sys!(SYS_socket, AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE).fd();
    let sent = submit(fd, &message(RTM_GETLINK, DUMP, &[AF_UNSPEC as u8]));
    say!("{sent}");
    let mut buffer = [0u8; 8192];
    let got = sys!(SYS_recvfrom, fd, &mut buffer, 8192, MSG_DONTWAIT, 0, 0);
    say!("{} {}", got.0 > 16, shown(own_port(fd)));
}

fn listed() {
    let text = || std::fs::read_to_string("/proc/net/netlink").unwrap_or_default();
    say!("{:?}", text().lines().next().unwrap_or_default());
    let fd = route();
    sys!(SYS_bind, fd, &address(0x0612_3456, 0x11), 12).need();
    let row = || {
        let text = text();
        let row = text.lines().find(|line| line.split_whitespace().nth(2) == Some("101856342"));
        row.map(|row| {
            row.split_whitespace()
                .enumerate()
                .filter(|(at, _)| matches!(at, 1 | 3 | 6 | 8))
                .map(|(_, word)| word.to_string())
                .collect::<Vec<_>>()
        })
    };
    say!("{:?}", row());
    submit(fd, &message(RTM_GETLINK, DUMP, &link_head(0, 0, 0)));
    say!("{:?}", row());
    sys!(SYS_close, fd);
    say!("{:?}", row());
}
