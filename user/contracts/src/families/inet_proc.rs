//! /proc/net.

use std::fs::{metadata, read_link, read_to_string};
use std::os::unix::fs::MetadataExt;

use libc::*;

use super::icmp;
use crate::file::{close, write};
use crate::inet::{HERE, accept, connect, datagrams, listener, port, socket};
use crate::process;
use crate::sys::sys;
use crate::{say, tests};

tests! {
    place, devices, headers, listening, connected, waiting_bytes, time_wait, bound_only, datagram_rows, of_ip6, of_a_user, icmp_rows,
    raw_rows, counts,
}

fn text(name: &str) -> String {
    read_to_string(format!("/proc/net/{name}")).unwrap_or_else(|error| error.to_string())
}

/// The rows with this port on their own side, by peer, and without what differs from run to run.
fn rows(name: &str, fd: i32, number: u16) -> Vec<String> {
    let own = format!(":{number:04X}");
    let inode = metadata(format!("/proc/self/fd/{fd}")).map_or(0, |metadata| metadata.ino()).to_string();
    let text = text(name);
    let mut rows: Vec<String> = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| words.len() > 9 && words[1].ends_with(&own))
        .map(|words| {
            let peer = words[2].split(':').next().unwrap_or_default();
            let (local, ours) = (words[1].trim_end_matches(&own), words[9] == inode);
            format!("{local} {peer} {} {} {} {} {ours}", words[3], words[4], words[6], words[7])
        })
        .collect();
    rows.sort();
    rows
}

fn place() {
    say!("{}", read_link("/proc/net").map_or("no link".into(), |link| link.display().to_string()));
    say!("{}", metadata("/proc/self/net").is_ok_and(|metadata| metadata.is_dir()));
    say!("{}", read_to_string("/proc/self/net/tcp").is_ok());
}

fn devices() {
    let text = text("dev");
    for line in text.lines().take(2) {
        say!("{line}");
    }
    let lo = text.lines().find(|line| line.trim_start().starts_with("lo:")).unwrap_or_default();
    say!("{:?} {}", &lo[..7], lo.split_whitespace().count());
}

fn headers() {
    for name in ["tcp", "tcp6", "udp", "udp6", "icmp", "icmp6", "raw", "raw6", "route"] {
        say!("{name}: {:?}", text(name).lines().next().unwrap_or_default());
    }
    say!("{}", text("if_inet6").trim_end());
}

fn listening() {
    let (fd, number) = listener(3);
    say!("{:?}", rows("tcp", fd, number));
    connect(socket(SOCK_STREAM), HERE, number);
    let first = rows("tcp", fd, number).into_iter().find(|row| row.contains(" 0A "));
    say!("someone waits: {first:?}");
    say!("width: {:?}", text("tcp").lines().map(str::len).max());
    close(fd);
    say!("closed: {}", rows("tcp", fd, number).iter().filter(|row| row.contains(" 0A ")).count());
}

fn connected() {
    let (fd, number) = listener(3);
    let client = socket(SOCK_STREAM);
    connect(client, HERE, number);
    let there = accept(fd).fd();
    close(fd);
    say!("server: {:?}", rows("tcp", there, number));
    say!("client: {:?}", rows("tcp", client, port(client)));
}

fn waiting_bytes() {
    let (fd, number) = listener(3);
    let client = socket(SOCK_STREAM);
    connect(client, HERE, number);
    let there = accept(fd).fd();
    close(fd);
    write(client, "12345");
    process::sleep_ms(100);
    say!("{:?}", rows("tcp", there, number));
}

fn time_wait() {
    let (fd, number) = listener(3);
    let client = socket(SOCK_STREAM);
    connect(client, HERE, number);
    let there = accept(fd).fd();
    close(fd);
    close(there);
    close(client);
    process::sleep_ms(100);
    say!("{:?}", rows("tcp", -1, number).iter().map(|row| row[..20].to_string()).collect::<Vec<_>>());
}

fn bound_only() {
    let fd = socket(SOCK_STREAM);
    crate::inet::bind(fd, HERE, 0);
    say!("{:?}", rows("tcp", fd, port(fd)));
}

fn datagram_rows() {
    let (fd, number) = datagrams();
    say!("{:?}", rows("udp", fd, number));
    let (_other, other) = datagrams();
    connect(fd, HERE, other);
    say!("connected: {:?}", rows("udp", fd, number));
    say!("width: {:?}", text("udp").lines().map(str::len).max());
}

fn of_ip6() {
    let fd = crate::sys::sys!(SYS_socket, AF_INET6, SOCK_STREAM, 0).fd();
    crate::inet::listen(fd, 1);
    let number = port(fd);
    say!("{:?} {:?}", rows("tcp6", fd, number), rows("tcp", fd, number));
    let fd = crate::sys::sys!(SYS_socket, AF_INET6, SOCK_DGRAM, 0).fd();
    let mut any: sockaddr_in6 = crate::sys::zeroed();
    any.sin6_family = AF_INET6 as u16;
    crate::sys::sys!(SYS_bind, fd, &any, 28).need();
    say!("{:?}", rows("udp6", fd, port(fd)));
}

fn of_a_user() {
    process::as_plain_user(|| {
        let (fd, number) = listener(3);
        say!("{:?}", rows("tcp", fd, number));
    });
}

fn icmp_rows() {
    let fd = icmp::socket();
    say!("no identifier: {}", text("icmp").lines().count());
    crate::inet::bind(fd, HERE, 0x1234).need();
    say!("{:?}", rows("icmp", fd, 0x1234));
    connect(fd, HERE, 7).need();
    say!("connected: {:?}", rows("icmp", fd, 0x1234));
    icmp::ask(fd, HERE, &icmp::question(0, 1, "abc")).need();
    process::sleep_ms(100);
    let line = text("icmp").lines().nth(1).unwrap_or_default().to_string();
    say!("{} {:?}", line.len(), line.get(5..35));
    say!("nothing to read: {}", rows("icmp", fd, 0x1234)[0].contains(":00000000 "));
    close(fd);
    say!("closed: {}", text("icmp").lines().count());
}

fn raw_rows() {
    let fd = sys!(SYS_socket, AF_INET, SOCK_RAW, 200).fd();
    let fd6 = sys!(SYS_socket, AF_INET6, SOCK_RAW, 200).fd();
    say!("{:?} {:?}", rows("raw", fd, 200), rows("raw6", fd6, 200));
    connect(fd, HERE, 9);
    say!("connected: {:?}", rows("raw", fd, 200));
    let line = text("raw").lines().nth(1).unwrap_or_default().to_string();
    say!("{:?}", line.get(4..38));
    close(fd);
    close(fd6);
    say!("closed: {:?} {:?}", rows("raw", -1, 200), rows("raw6", -1, 200));
}

/// The numbers of a line.
fn numbers(name: &str, line: &str) -> Vec<(String, i64)> {
    let text = text(name);
    let mut words = text.lines().find_map(|text| text.strip_prefix(line)).unwrap_or_default().split_whitespace();
    let mut all = Vec::new();
    while let (Some(name), Some(number)) = (words.next(), words.next()) {
        all.push((name.to_string(), number.parse().unwrap_or(-1)));
    }
    all
}

/// How those of sockstat change meanwhile, but for the memory.
fn changed(body: impl FnOnce()) {
    const LINES: [(&str, &str); 7] = [
        ("sockstat", "sockets:"),
        ("sockstat", "TCP:"),
        ("sockstat", "UDP:"),
        ("sockstat", "RAW:"),
        ("sockstat6", "TCP6:"),
        ("sockstat6", "UDP6:"),
        ("sockstat6", "RAW6:"),
    ];
    let now = || LINES.map(|(name, line)| numbers(name, line));
    let before = now();
    body();
    for ((before, after), (_, line)) in before.into_iter().zip(now()).zip(LINES) {
        let before = before.into_iter().zip(after).filter(|((name, _), _)| name != "mem");
        let changes: String =
            before.map(|((name, before), (_, after))| format!(" {name} {}", after - before)).collect();
        say!("{line}{changes}");
    }
}

fn counts() {
    changed(|| {
        socket(SOCK_STREAM);
        sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).need();
    });
    changed(|| {
        let (fd, number) = listener(3);
        let client = socket(SOCK_STREAM);
        connect(client, HERE, number);
        accept(fd).fd();
        datagrams();
        sys!(SYS_socket, AF_INET, SOCK_RAW, 200).need();
    });
    changed(|| {
        crate::inet::listen(sys!(SYS_socket, AF_INET6, SOCK_STREAM, 0).fd(), 1);
        sys!(SYS_socket, AF_INET6, SOCK_RAW, 200).need();
    });
    changed(|| {
        let (fd, number) = listener(3);
        let client = socket(SOCK_STREAM);
        connect(client, HERE, number);
        let there = accept(fd).fd();
        for fd in [fd, there, client] {
            close(fd);
        }
        process::sleep_ms(100);
    });
}
