//! What the kernel tells of sockets: sock_diag(7).

use std::fs::metadata;
use std::os::unix::fs::MetadataExt;

use libc::*;

use crate::file::{close, write};
use crate::inet::{self, HERE, accept, connect, datagrams, listener, port};
use crate::netlink::*;
use crate::sys::sys;
use crate::{process, say, tests};

tests! {
    requests, listening, connected, time_wait, bound_only, datagrams_of, of_ip6, one_socket, cookies, programs, bad_programs,
    unix_pair, unix_names, unix_one, unix_states, proc_unix, of_a_user, many,
}

const BY_FAMILY: u16 = 20;
const EVERY: u32 = u32::MAX;

fn inode(fd: i32) -> u32 {
    metadata(format!("/proc/self/fd/{fd}")).map_or(0, |metadata| metadata.ino() as u32)
}

/// inet_diag_req_v2, with ports.
fn inet_request(family: i32, protocol: i32, states: u32, from: u16, to: u16) -> Vec<u8> {
    let mut body = vec![family as u8, protocol as u8, 0, 0];
    body.extend(states.to_ne_bytes());
    body.extend(from.to_be_bytes());
    body.extend(to.to_be_bytes());
    body.resize(48, 0);
    body.extend([0xff; 8]);
    body
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |bytes| u32::from_ne_bytes(bytes.try_into().unwrap_or_default()))
}

/// A socket without what differs from run to run: family, state, addresses, queues, owner, whether it is this descriptor.
fn shown(message: &Message, fd: i32) -> String {
    let body = &message.body;
    if message.kind != BY_FAMILY {
        return message.verdict();
    }
    let attribute = |kind| message.attribute(72, kind).map(|data| data[0]);
    format!(
        "{:x}: {} {} {:02x?} {:02x?} r {} s {} uid {} {} shut {:?} only {:?}",
        message.flags,
        body[0],
        body[1],
        &body[8..12],
        &body[24..28],
        word(body, 56),
        word(body, 60),
        word(body, 64),
        word(body, 68) == inode(fd),
        attribute(8),
        attribute(11)
    )
}

fn list(request: &[u8], fd: i32) {
    let diag = make(NETLINK_SOCK_DIAG);
    let mut rows: Vec<String> =
        ask(diag, &message(BY_FAMILY, DUMP, request)).iter().map(|answer| shown(answer, fd)).collect();
    rows.sort();
    rows.iter().for_each(|row| say!("{row}"));
}

fn requests() {
    let diag = make(NETLINK_SOCK_DIAG);
    let ask = |kind: u16, flags: u16, body: &[u8]| verdict(diag, &message(kind, flags, body));
    say!("empty: {}", ask(BY_FAMILY, DUMP, &[]));
    say!("short: {}", ask(BY_FAMILY, DUMP, &[AF_INET as u8, IPPROTO_TCP as u8, 0, 0]));
    say!("another type: {} {}", ask(22, DUMP, &[0; 60]), ask(17, DUMP, &[0; 60]));
    say!("a family: {}", ask(BY_FAMILY, DUMP, &[AF_UNSPEC as u8; 60]));
    say!("too large: {}", ask(BY_FAMILY, DUMP, &[200; 60]));
    say!("a protocol: {}", ask(BY_FAMILY, DUMP, &inet_request(AF_INET, 200, EVERY, 0, 0)));
    say!("one of it: {}", ask(BY_FAMILY, REQUEST, &inet_request(AF_INET, 200, EVERY, 0, 0)));
    say!("unix, short: {}", ask(BY_FAMILY, DUMP, &[AF_UNIX as u8, 0, 0, 0]));
    say!("unix, none: {}", ask(BY_FAMILY, REQUEST, &unix_request(EVERY, 0, 0)));
}

fn listening() {
    let (fd, number) = listener(3);
    list(&inet_request(AF_INET, IPPROTO_TCP, EVERY, number, 0), fd);
    connect(inet::socket(SOCK_STREAM), HERE, number);
    list(&inet_request(AF_INET, IPPROTO_TCP, 1 << 10, number, 0), fd);
    list(&inet_request(AF_INET, IPPROTO_TCP, 1 << 7, number, 0), fd);
    list(&inet_request(AF_INET6, IPPROTO_TCP, EVERY, number, 0), fd);
}

fn connected() {
    let (fd, number) = listener(3);
    let client = inet::socket(SOCK_STREAM);
    connect(client, HERE, number);
    let there = accept(fd).fd();
    close(fd);
    write(client, "12345");
    list(&inet_request(AF_INET, IPPROTO_TCP, 1 << 1, number, 0), there);
    list(&inet_request(AF_INET, IPPROTO_TCP, 1 << 1, 0, number), client);
}

fn time_wait() {
    let (fd, number) = listener(3);
    let client = inet::socket(SOCK_STREAM);
    connect(client, HERE, number);
    let there = accept(fd).fd();
    close(fd);
    close(there);
    close(client);
    process::sleep_ms(100);
    list(&inet_request(AF_INET, IPPROTO_TCP, EVERY, number, 0), -1);
    list(&inet_request(AF_INET, IPPROTO_TCP, EVERY & !(1 << 6), number, 0), -1);
}

fn bound_only() {
    let fd = inet::socket(SOCK_STREAM);
    inet::bind(fd, HERE, 0);
    list(&inet_request(AF_INET, IPPROTO_TCP, EVERY, port(fd), 0), fd);
}

fn datagrams_of() {
    let (fd, number) = datagrams();
    list(&inet_request(AF_INET, IPPROTO_UDP, EVERY, number, 0), fd);
    let (_other, other) = datagrams();
    connect(fd, HERE, other);
    list(&inet_request(AF_INET, IPPROTO_UDP, 1 << 1, number, 0), fd);
    list(&inet_request(AF_INET, IPPROTO_UDP, 1 << 7, number, 0), fd);
}

fn of_ip6() {
    for only in [0, 1] {
        let fd = sys!(SYS_socket, AF_INET6, SOCK_STREAM, 0).fd();
        sys!(SYS_setsockopt, fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, 4);
        inet::listen(fd, 1);
        list(&inet_request(AF_INET6, IPPROTO_TCP, EVERY, port(fd), 0), fd);
        list(&inet_request(AF_INET, IPPROTO_TCP, EVERY, port(fd), 0), fd);
    }
}

/// The listener's own address in a request.
fn exact(number: u16, cookie: [u32; 2]) -> Vec<u8> {
    let mut body = inet_request(AF_INET, IPPROTO_TCP, EVERY, number, 0);
    body[12..16].copy_from_slice(&[127, 0, 0, 1]);
    body.truncate(48);
    cookie.iter().for_each(|word| body.extend(word.to_ne_bytes()));
    body
}

fn one_socket() {
    let (fd, number) = listener(3);
    let diag = make(NETLINK_SOCK_DIAG);
    for answer in ask(diag, &message(BY_FAMILY, REQUEST, &exact(number, [EVERY; 2]))) {
        say!("{}", shown(&answer, fd));
    }
    close(fd);
    say!("closed: {}", verdict(diag, &message(BY_FAMILY, REQUEST, &exact(number, [EVERY; 2]))));
}

fn cookies() {
    let (_fd, number) = listener(3);
    let diag = make(NETLINK_SOCK_DIAG);
    let answers = ask(diag, &message(BY_FAMILY, REQUEST, &exact(number, [EVERY; 2])));
    let cookie = answers.first().map_or([0; 2], |answer| [word(&answer.body, 44), word(&answer.body, 48)]);
    say!("there is one: {}", cookie != [0; 2]);
    let again = ask(diag, &message(BY_FAMILY, REQUEST, &exact(number, cookie)));
    say!("the same: {:?}", again.iter().map(|answer| answer.kind).collect::<Vec<_>>());
    say!("another: {}", verdict(diag, &message(BY_FAMILY, REQUEST, &exact(number, [77, 77]))));
}

/// A request with a program: INET_DIAG_REQ_BYTECODE.
fn with_program(program: &[u8]) -> Vec<u8> {
    let mut body = inet_request(AF_INET, IPPROTO_TCP, 1 << 10, 0, 0);
    body.extend(attribute(1, program));
    body
}

fn programs() {
    let (fd, number) = listener(3);
    let [low, high] = number.to_ne_bytes();
    let found = |program: &[u8]| {
        let answers = ask(make(NETLINK_SOCK_DIAG), &message(BY_FAMILY, DUMP, &with_program(program)));
        answers.iter().any(|answer| answer.kind == BY_FAMILY && word(&answer.body, 68) == inode(fd))
    };
    for (name, code) in [("is", 11), ("at least", 2), ("at most", 3), ("to at least", 4), ("to is", 12)] {
        say!("{name}: {} {}", found(&[code, 8, 12, 0, 0, 0, low, high]), found(&[code, 8, 12, 0, 0, 0, 1, 0]));
    }
    let from = |prefix: u8, last: u8, port: i32| {
        let [a, b, c, d] = port.to_ne_bytes();
        found(&[7, 16, 20, 0, AF_INET as u8, prefix, 0, 0, a, b, c, d, 127, 0, 0, last])
    };
    say!("address: {} {} {}", from(32, 1, -1), from(32, 2, -1), from(24, 9, -1));
    say!("and port: {} {}", from(32, 1, number.into()), from(32, 1, 1));
    say!("either: {}", found(&[11, 12, 8, 0, 0, 0, 1, 0, 11, 8, 12, 0, 0, 0, low, high]));
    say!("jump: {} {}", found(&[1, 4, 4, 0]), found(&[1, 4, 8, 0]));
}

fn bad_programs() {
    let diag = make(NETLINK_SOCK_DIAG);
    let bad: [&[u8]; 9] = [
        &[0, 0, 0, 0],
        &[0, 8, 0, 0],
        &[0, 12, 0, 0],
        &[1, 4, 0, 0],
        &[11, 4, 4, 0],
        &[11, 8, 12, 0],
        &[7, 16, 16, 0, 2, 33, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[7, 12, 16, 0, 2, 0, 0, 0, 0, 0, 0, 0],
        &[200, 4, 4, 0],
    ];
    for program in bad {
        let answers = ask(diag, &message(BY_FAMILY, DUMP, &with_program(program)));
        say!("{program:?}: {}", answers.last().map_or("nothing".into(), Message::verdict));
    }
}

/// unix_diag_req.
fn unix_request(states: u32, inode: u32, show: u32) -> Vec<u8> {
    let mut body = vec![AF_UNIX as u8, 0, 0, 0];
    [states, inode, show, EVERY, EVERY].iter().for_each(|word| body.extend(word.to_ne_bytes()));
    body
}

/// What is told of one Unix socket; inodes as whether they are these.
fn show_unix(fd: i32, peer: i32) {
    let diag = make(NETLINK_SOCK_DIAG);
    let show = 1 | 4 | 8 | 0x10 | 0x40;
    for answer in ask(diag, &message(BY_FAMILY, REQUEST, &unix_request(EVERY, inode(fd), show))) {
        if answer.kind != BY_FAMILY {
            say!("{}", answer.verdict());
            continue;
        }
        let of = |kind| answer.attribute(16, kind);
        say!(
            "{:?} {} name {:?} peer {:?} clients {:?} queues {:?} shut {:?} uid {:?}",
            answer.head(4),
            word(&answer.body, 4) == inode(fd),
            of(0).map(|name| String::from_utf8_lossy(&name).replace('\0', "@")),
            of(2).map(|data| word(&data, 0) == inode(peer)),
            of(3).map(|data| data.len() / 4),
            of(4).map(|data| [word(&data, 0), word(&data, 4)]),
            of(6),
            of(7)
        );
    }
}

fn unix_pair() {
    for kind in [SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET] {
        let mut pair = [0i32; 2];
        sys!(SYS_socketpair, AF_UNIX, kind, 0, &mut pair).need();
        show_unix(pair[0], pair[1]);
        inet::shutdown(pair[0], SHUT_WR);
        show_unix(pair[1], pair[0]);
        close(pair[0]);
        show_unix(pair[1], -1);
    }
}

fn unix_socket(kind: i32, name: &str) -> (i32, Vec<u8>) {
    let fd = sys!(SYS_socket, AF_UNIX, kind, 0).fd();
    let mut address = (AF_UNIX as u16).to_ne_bytes().to_vec();
    address.extend(name.as_bytes());
    sys!(SYS_bind, fd, address.as_slice(), address.len()).need();
    (fd, address)
}

fn unix_names() {
    let (fd, address) = unix_socket(SOCK_STREAM, "\0a name of this test");
    show_unix(fd, -1);
    sys!(SYS_listen, fd, 5).need();
    show_unix(fd, -1);
    let client = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
    sys!(SYS_connect, client, address.as_slice(), address.len()).need();
    show_unix(fd, -1);
    let there = accept(fd).fd();
    write(client, "abc");
    show_unix(there, client);
    show_unix(fd, -1);
    let (fd, _) = unix_socket(SOCK_DGRAM, "place\0");
    show_unix(fd, -1);
}

fn unix_one() {
    let diag = make(NETLINK_SOCK_DIAG);
    say!("not there: {}", verdict(diag, &message(BY_FAMILY, REQUEST, &unix_request(EVERY, 0x7fff_ff00, 0))));
    let fd = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
    let mut request = unix_request(EVERY, inode(fd), 0);
    request.truncate(16);
    request.extend([7; 8]);
    say!("another: {}", verdict(diag, &message(BY_FAMILY, REQUEST, &request)));
}

fn unix_states() {
    let fd = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
    for states in [EVERY, 1 << 7, 1 << 1, 1 << 10, 0] {
        let answers = ask(make(NETLINK_SOCK_DIAG), &message(BY_FAMILY, DUMP, &unix_request(states, 0, 0)));
        let found = answers.iter().any(|answer| word(&answer.body, 4) == inode(fd));
        say!("{states:x}: {found} {}", answers.last().map_or("nothing".into(), Message::verdict));
    }
}

fn proc_unix() {
    let text = || std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    say!("{:?}", text().lines().next().unwrap_or_default());
    let row = |fd: i32| {
        let text = text();
        let number = inode(fd).to_string();
        let is_it = |line: &&str| number != "0" && line.split_whitespace().nth(6) == Some(&number);
        let row = text.lines().find(is_it).unwrap_or_default();
        let words: Vec<&str> = row.split_whitespace().collect();
        let words: Vec<&str> =
            words.iter().enumerate().filter(|(at, _)| !matches!(at, 0 | 6)).map(|(_, word)| *word).collect();
        say!("{words:?}");
    };
    let (fd, address) = unix_socket(SOCK_STREAM, "\0of\0proc");
    row(fd);
    sys!(SYS_listen, fd, 5).need();
    row(fd);
    let client = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
    sys!(SYS_connect, client, address.as_slice(), address.len()).need();
    row(client);
    let (fd, _) = unix_socket(SOCK_DGRAM, "place\0");
    row(fd);
    close(fd);
    row(fd);
}

fn of_a_user() {
    process::as_plain_user(|| {
        let (fd, number) = listener(3);
        list(&inet_request(AF_INET, IPPROTO_TCP, EVERY, number, 0), fd);
        let fd = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
        show_unix(fd, -1);
    });
}

/// More than a datagram holds.
fn many() {
    let fds: Vec<i32> = (0..200).map(|_| listener(1).0).collect();
    let diag = make(NETLINK_SOCK_DIAG);
    submit(diag, &message(BY_FAMILY, DUMP, &inet_request(AF_INET, IPPROTO_TCP, 1 << 10, 0, 0)));
    let (mut parts, mut inodes) = (0, Vec::new());
    while let Ok(bytes) = receive(diag) {
        parts += 1;
        inodes.extend(
            split(&bytes).iter().filter(|answer| answer.kind == BY_FAMILY).map(|answer| word(&answer.body, 68)),
        );
    }
    let found = fds.iter().filter(|fd| inodes.contains(&inode(**fd))).count();
    say!("several parts: {} all: {found}", parts > 2);
}
