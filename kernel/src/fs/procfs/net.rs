//! /proc/PID/net: interfaces and sockets (proc(5)). There is one network for all processes.

use core::net::{IpAddr, Ipv4Addr};

use super::net_interfaces as interfaces;
use super::node::Static;
use super::text::{Text, put};
use crate::net::inet::{AF_INET, AF_INET6, Endpoint, Row, tcp, udp};

pub static DIR: Static = Static::dir("net", ENTRIES);

static ENTRIES: &[Static] = &[
    Static::text("arp", interfaces::neighbours),
    Static::text("dev", interfaces::devices),
    Static::text("if_inet6", interfaces::addresses6),
    Static::text("pnp", interfaces::told),
    Static::text("route", interfaces::routes),
    Static::text("tcp", |out| sockets(out, &tcp::rows(AF_INET), TCP)),
    Static::text("tcp6", |out| sockets6(out, &tcp::rows(AF_INET6), TCP)),
    Static::text("udp", |out| sockets(out, &udp::rows(AF_INET), UDP)),
    Static::text("udp6", |out| sockets6(out, &udp::rows(AF_INET6), UDP)),
];

/// How the rows of a protocol differ: the width of their numbers, the ends of the header and of each row, and the width of a
/// line of IPv4.
#[derive(Clone, Copy)]
struct Form {
    number: usize,
    header: &'static str,
    tail: fn(&Row) -> &'static str,
    width: usize,
}

const TCP: Form = Form { number: 4, header: "", tail: tcp_tail, width: 149 };
const UDP: Form = Form { number: 5, header: " ref pointer drops", tail: |_| "0", width: 127 };

/// Retransmission timeout, time to acknowledge, whether that is quick, the window for congestion, its threshold. A socket in
/// TIME_WAIT has none.
fn tcp_tail(row: &Row) -> &'static str {
    match row.state {
        tcp::TIME_WAIT => "",
        tcp::LISTEN => "100 0 0 10 0",
        _ => "20 4 0 10 -1",
    }
}

/// A line that is filled up with blanks.
pub fn put_padded(out: &mut Text, line: &str, width: usize) {
    put!(out, "{line:<width$}\n");
}

/// The words of an address are numbers of the machine.
fn put_endpoint(out: &mut impl core::fmt::Write, at: Endpoint) {
    let ip = if let IpAddr::V4(ip) = at.ip { ip } else { Ipv4Addr::UNSPECIFIED };
    let _ = write!(out, "{:08X}:{:04X}", u32::from_ne_bytes(ip.octets()), at.port);
}

fn put_endpoint6(out: &mut Text, at: Endpoint) {
    let ip = match at.ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    for word in ip.octets().as_chunks::<4>().0 {
        put!(out, "{:08X}", u32::from_ne_bytes(*word));
    }
    put!(out, ":{:04X}", at.port);
}

/// What follows the addresses. Nothing is on its way, so no timer runs.
fn put_rest(out: &mut impl core::fmt::Write, row: &Row, form: Form) {
    let Row { state, sending, receiving, uid, inode, .. } = row;
    let references = if *state == tcp::TIME_WAIT { 3 } else { 2 - u32::from(*state == tcp::LISTEN) };
    let _ = write!(out, " {state:02X} {sending:08X}:{receiving:08X} 00:00000000 00000000 {uid:5} {:8} {inode}", 0);
    let _ = write!(out, " {references} 0000000000000000 {}", (form.tail)(row));
}

fn sockets(out: &mut Text, rows: &[Row], form: Form) {
    let header = "sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode";
    // As wide as the numbers.
    let header = alloc::format!("{:indent$}{header}{}", "", form.header, indent = form.number - 2);
    put_padded(out, &header, form.width);
    for (number, row) in rows.iter().enumerate() {
        let mut line = alloc::format!("{number:width$}: ", width = form.number);
        put_endpoint(&mut line, row.local);
        line.push(' ');
        put_endpoint(&mut line, row.remote);
        put_rest(&mut line, row, form);
        put_padded(out, &line, form.width);
    }
}

fn sockets6(out: &mut Text, rows: &[Row], form: Form) {
    put!(out, "  sl  local_address                         remote_address                        ");
    put!(out, "st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode{}\n", form.header);
    for (number, row) in rows.iter().enumerate() {
        put!(out, "{number:width$}: ", width = form.number);
        put_endpoint6(out, row.local);
        put!(out, " ");
        put_endpoint6(out, row.remote);
        put_rest(out, row, form);
        put!(out, "\n");
    }
}
