//! /proc/net/snmp and snmp6: what is counted.

use libc::*;

use crate::file::close;
use crate::inet::{
    HERE, accept, bind, connect, datagrams, events_in, listener, port, receive, send, send_to, set_option, socket,
};
use crate::sys::{sys, zeroed};
use crate::{say, tests};

tests! { form, sent_and_read, nobody_there, no_room, to_many, of_ip6, lite, connections }

const NAMES: [&str; 5] = ["InDatagrams", "NoPorts", "InErrors", "OutDatagrams", "RcvbufErrors"];

fn text(name: &str) -> String {
    std::fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default()
}

/// A number of a protocol.
fn count(protocol: &str, name: &str) -> i64 {
    let text = text("snmp");
    let start = format!("{protocol}: ");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(&start));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let mut both = names.split(' ').zip(values.split(' '));
    both.find(|(there, _)| *there == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(-1)
}

/// The same of IPv6.
fn count6(name: &str) -> i64 {
    let text = text("snmp6");
    let mut lines = text.lines().filter_map(|line| line.split_once('\t'));
    lines.find(|(there, _)| there.trim_end() == name).and_then(|(_, value)| value.parse().ok()).unwrap_or(-1)
}

/// What is added meanwhile.
fn changed(body: impl FnOnce()) {
    let now = || {
        let four = ["Udp", "UdpLite"].map(|protocol| NAMES.map(|name| count(protocol, name)));
        let six = ["Udp6", "UdpLite6"].map(|protocol| NAMES.map(|name| count6(&format!("{protocol}{name}"))));
        [four, six].concat()
    };
    let before = now();
    body();
    for (protocol, (before, after)) in ["Udp", "UdpLite", "Udp6", "UdpLite6"].iter().zip(before.iter().zip(now())) {
        let changes: Vec<i64> = before.iter().zip(after).map(|(before, after)| after - before).collect();
        if changes.iter().any(|change| *change != 0) {
            say!("{protocol}: {changes:?}");
        }
    }
}

fn form() {
    let found = |line: &str| NAMES.iter().all(|name| line.split(' ').any(|word| word == *name));
    say!("{} {}", text("snmp").lines().filter(|line| found(line)).count(), count("Udp", "InDatagrams") >= 0);
    say!("{:?}", text("snmp6").lines().find(|line| line.starts_with("Udp6NoPorts")).map(|line| line.find('\t')));
}

fn sent_and_read() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    changed(|| _ = send_to(a, "one", there));
    changed(|| _ = receive(b, 5, MSG_PEEK));
    changed(|| _ = receive(b, 5, 0));
    changed(|| _ = receive(b, 5, MSG_DONTWAIT));
    connect(a, HERE, there);
    changed(|| {
        send(a, "one ", MSG_MORE);
        send(a, "two", 0);
    });
    changed(|| _ = receive(b, 2, 0));
}

fn nobody_there() {
    let (fd, number) = datagrams();
    close(fd);
    let fd = socket(SOCK_DGRAM);
    changed(|| _ = send_to(fd, "x", number));
    connect(fd, HERE, number);
    changed(|| _ = send(fd, "x", 0));
    changed(|| say!("{}", send(fd, "x", 0)));
}

fn no_room() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    set_option(b, SOL_SOCKET, SO_RCVBUF, 0).need();
    for _ in 0..10 {
        send_to(a, &"x".repeat(1000), there);
    }
    changed(|| _ = send_to(a, "x", there));
}

fn to_many() {
    let everybody = u32::from_be_bytes([127, 255, 255, 255]);
    let (a, b) = (socket(SOCK_DGRAM), socket(SOCK_DGRAM));
    bind(b, crate::inet::ANY, 0).need();
    set_option(a, SOL_SOCKET, SO_BROADCAST, 1).need();
    connect(a, everybody, port(b)).need();
    changed(|| _ = send(a, "x", 0));
    changed(|| _ = receive(b, 5, 0));
}

fn of_ip6() {
    let make = |protocol: i32| sys!(SYS_socket, AF_INET6, SOCK_DGRAM, protocol).fd();
    for protocol in [IPPROTO_UDP, IPPROTO_UDPLITE] {
        let (a, b) = (make(protocol), make(protocol));
        let mut there: sockaddr_in6 = zeroed();
        there.sin6_family = AF_INET6 as u16;
        sys!(SYS_bind, b, &there, 28).need();
        there.sin6_port = port(b).to_be();
        there.sin6_addr.s6_addr[15] = 1;
        changed(|| _ = sys!(SYS_sendto, a, "x", 1, 0, &there, 28));
        changed(|| _ = receive(b, 5, 0));
        let mapped = sys!(SYS_socket, AF_INET, SOCK_DGRAM, protocol).fd();
        changed(|| _ = send_to(mapped, "x", port(b)));
        changed(|| _ = receive(b, 5, 0));
        close(b);
        changed(|| _ = sys!(SYS_sendto, a, "x", 1, 0, &there, 28));
    }
}

fn lite() {
    let make = || sys!(SYS_socket, AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE).fd();
    let (a, b) = (make(), make());
    bind(b, HERE, 0).need();
    changed(|| _ = send_to(a, "x", port(b)));
    changed(|| _ = receive(b, 5, 0));
    set_option(a, IPPROTO_UDPLITE, 10, 8).need();
    set_option(b, IPPROTO_UDPLITE, 11, 9).need();
    changed(|| {
        send_to(a, "x", port(b));
        events_in(b, POLLIN, 50);
    });
}

fn connections() {
    let changed = |body: &mut dyn FnMut()| {
        let now = || ["ActiveOpens", "PassiveOpens", "CurrEstab"].map(|name| count("Tcp", name));
        let before = now();
        body();
        let changes: Vec<i64> = before.iter().zip(now()).map(|(before, after)| after - before).collect();
        say!("{changes:?}");
    };
    let (fd, number) = listener(5);
    let client = socket(SOCK_STREAM);
    changed(&mut || _ = connect(client, HERE, number));
    let mut there = 0;
    changed(&mut || there = accept(fd).fd());
    changed(&mut || _ = close(there));
    changed(&mut || _ = close(client));
    close(fd);
    changed(&mut || say!("{}", connect(socket(SOCK_STREAM), HERE, number)));
}
