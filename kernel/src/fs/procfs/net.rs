//! /proc/PID/net: interfaces and sockets (proc(5)). There is one network for all processes.

use core::net::{IpAddr, Ipv4Addr};

use super::net_counts as counts;
use super::net_interfaces as interfaces;
use super::node::Static;
use super::text::{Text, put};
use crate::net::inet::ip::{self, Kind};
use crate::net::inet::{AF_INET, AF_INET6, Endpoint, IPPROTO_UDP, IPPROTO_UDPLITE, Row, tcp, udp};
use crate::net::{link, netlink, unix};

pub static DIR: Static = Static::dir("net", ENTRIES);

static ENTRIES: &[Static] = &[
    Static::text("arp", interfaces::neighbours),
    Static::text("dev", interfaces::devices),
    Static::text("icmp", |out| sockets(out, &ip::rows(Kind::Echo, AF_INET), ICMP)),
    Static::text("icmp6", |out| sockets6(out, &ip::rows(Kind::Echo, AF_INET6), UDP)),
    Static::text("if_inet6", interfaces::addresses6),
    Static::text("igmp", interfaces::groups),
    Static::text("igmp6", interfaces::groups6),
    Static::text("netlink", netlink_sockets),
    Static::text("packet", packet_sockets),
    Static::text("pnp", interfaces::told),
    Static::text("raw", |out| sockets(out, &ip::rows(Kind::Raw, AF_INET), RAW)),
    Static::text("raw6", |out| sockets6(out, &ip::rows(Kind::Raw, AF_INET6), UDP)),
    Static::text("route", interfaces::routes),
    Static::long("snmp", counts::events),
    Static::text("snmp6", counts::events6),
    Static::long("sockstat", counts::sockets),
    Static::long("sockstat6", counts::sockets6),
    Static::text("tcp", |out| sockets(out, &tcp::rows(AF_INET), TCP)),
    Static::text("tcp6", |out| sockets6(out, &tcp::rows(AF_INET6), TCP)),
    Static::text("udp", |out| sockets(out, &udp::rows(IPPROTO_UDP, AF_INET), UDP)),
    Static::text("udp6", |out| sockets6(out, &udp::rows(IPPROTO_UDP, AF_INET6), UDP)),
    Static::text("udplite", |out| sockets(out, &udp::rows(IPPROTO_UDPLITE, AF_INET), UDP)),
    Static::text("udplite6", |out| sockets6(out, &udp::rows(IPPROTO_UDPLITE, AF_INET6), UDP)),
    Static::text("unix", unix_sockets),
];

/// How the rows of a protocol differ: the width of their numbers, what is before the header, the ends of the header and of each row, and the width of a
/// line of IPv4.
#[derive(Clone, Copy)]
struct Form {
    number: usize,
    indent: usize,
    header: &'static str,
    tail: fn(&Row) -> &'static str,
    width: usize,
}

const TCP: Form = Form { number: 4, indent: 2, header: "", tail: tcp_tail, width: 149 };
const UDP: Form = Form { number: 5, indent: 3, header: " ref pointer drops", tail: |_| "0", width: 127 };
const ICMP: Form = Form { indent: 2, ..UDP };
const RAW: Form = Form { number: 4, width: 0, ..ICMP };

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
    let header = alloc::format!("{:indent$}{header}{}", "", form.header, indent = form.indent);
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

/// With the kernel's own, whose port is 0. What is sent is never on its way, and no lock is held by anybody.
fn netlink_sockets(out: &mut Text) {
    put!(out, "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n");
    for row in netlink::rows() {
        let netlink::Row { protocol, port, groups, receiving, dumping, drops, inode } = row;
        put!(out, "{:016x} {protocol:<3} {port:<10} {groups:08x} {receiving:<8} {:<8} ", 0, 0);
        put!(out, "{:<5} {:<8} {drops:<8} {inode:<8}\n", u8::from(dumping), 2);
    }
}

fn packet_sockets(out: &mut Text) {
    put!(out, "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n");
    for row in link::rows() {
        let link::Row { kind, protocol, index, running, receiving, uid, inode } = row;
        put!(out, "{:016x} {:<6} {:<4} {protocol:04x}   {index:<5} {} ", 0, 3, kind.raw(), u8::from(running));
        put!(out, "{receiving:<6} {uid:<6} {inode:<6}\n");
    }
}

/// A zero byte of a name is shown as '@'.
fn unix_sockets(out: &mut Text) {
    /// How many are looked at in a turn.
    const SOME: usize = 256;
    put!(out, "Num       RefCount Protocol Flags    Type St Inode Path\n");
    for shard in 0..unix::SHARDS {
        let mut last = 0;
        loop {
            let sockets = unix::part(shard, last, SOME);
            for socket in &sockets {
                let row = socket.row();
                last = row.inode;
                // SS_CONNECTED, SS_UNCONNECTED.
                let (state, peers) = if row.state == 1 { (3, 3) } else { (1, 2) };
                // __SO_ACCEPTCON.
                let flags = if row.state == unix::LISTEN { 0x10000 } else { 0 };
                put!(out, "{:016x}: {peers:08X} {:08X} {flags:08X} {:04X} {state:02X} ", 0, 0, row.kind.raw());
                put!(out, "{:5}", row.inode);
                let name = if row.name.first() == Some(&0) {
                    &row.name[..]
                } else {
                    row.name.split_last().map_or(&[][..], |(_, path)| path)
                };
                if !name.is_empty() {
                    out.push(b' ');
                    name.iter().for_each(|byte| out.push(if *byte == 0 { b'@' } else { *byte }));
                }
                out.push(b'\n');
            }
            if sockets.is_empty() {
                break;
            }
        }
    }
}
