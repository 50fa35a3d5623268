//! Messages of ICMP and ICMPv6 about packets that have not arrived: RFC 792, RFC 1122 and RFC 4443.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::Failure;
use crate::errno::Errno;
use crate::mm::frames;
use crate::net::inet::ip::packet::{self, Arrived, HEADER4, HEADER6, Head};
use crate::net::inet::{Endpoint, HOPS, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_UDP, IPPROTO_UDPLITE, ip};
use crate::net::interface::LOOPBACK_INDEX;
use crate::net::link;

/// Types of ICMP.
const UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const BAD_HEADER: u8 = 12;
/// Codes of the first.
const PROTOCOL: u8 = 2;
const PORT: u8 = 3;
const TOO_LARGE: u8 = 4;
/// Types of ICMPv6.
const UNREACHABLE6: u8 = 1;
const TOO_LARGE6: u8 = 2;
const TIME_EXCEEDED6: u8 = 3;
const BAD_HEADER6: u8 = 4;
/// A code of the first.
const PORT6: u8 = 4;
/// Of the last: nobody knows the header that follows.
const UNKNOWN_HEADER6: u8 = 1;

/// What stands before the quoted packet.
const MESSAGE: usize = 8;
/// Bytes of a packet that are quoted, so that the message is not longer than 576 (IPv6: 1,280).
const QUOTED: usize = 576 - HEADER4 - MESSAGE;
const QUOTED6: usize = 1280 - HEADER6 - MESSAGE;
/// The least of what follows the header.
const BODY: usize = 8;
const UDP_HEADER: usize = 8;
/// The precedence of messages between networks, which those about failures have (icmp_send of Linux).
const INTERNETWORK: u8 = 0xc0;
const CLASS_BITS: u8 = 0x1e;

/// The codes of "destination unreachable" (RFC 1122, 3.2.2.1), as Linux translates them (icmp_err_convert), and whether it takes
/// them for lasting. None: there is no such code.
pub fn errno_of(code: u8) -> Option<(Errno, bool)> {
    Some(match code {
        0 | 11 => (Errno::ENETUNREACH, false),
        2 => (Errno::ENOPROTOOPT, true),
        3 => (Errno::ECONNREFUSED, true),
        5 => (Errno::EOPNOTSUPP, false),
        6 | 9 => (Errno::ENETUNREACH, true),
        7 => (Errno::EHOSTDOWN, true),
        8 => (Errno::ENONET, true),
        10 | 13..=15 => (Errno::EHOSTUNREACH, true),
        1 | 12 => (Errno::EHOSTUNREACH, false),
        TOO_LARGE => (Errno::EMSGSIZE, false),
        _ => return None,
    })
}

/// tab_unreach of Linux.
fn errno_of6(code: u8) -> (Errno, bool) {
    match code {
        0 => (Errno::ENETUNREACH, false),
        1 | 5 | 6 => (Errno::EACCES, true),
        4 => (Errno::ECONNREFUSED, true),
        2 | 3 => (Errno::EHOSTUNREACH, false),
        _ => (Errno::EPROTO, true),
    }
}

impl<'a> Failure<'a> {
    /// None: it says nothing of the kind.
    pub fn parse(by: &Arrived<'a>) -> Option<Failure<'a>> {
        by.message()?;
        if by.to.is_ipv4() { Self::parse4(by) } else { Self::parse6(by) }
    }

    fn parse4(by: &Arrived<'a>) -> Option<Failure<'a>> {
        let (message, quoted) = by.payload.split_first_chunk::<MESSAGE>()?;
        let (kind, code) = (message[0], message[1]);
        let size = u32::from(u16::from_be_bytes([message[6], message[7]]));
        let is_size = (kind, code) == (UNREACHABLE, TOO_LARGE);
        let (info, (errno, lasts)) = match kind {
            UNREACHABLE => (if is_size { size } else { 0 }, errno_of(code)?),
            TIME_EXCEEDED => (0, (Errno::EHOSTUNREACH, false)),
            BAD_HEADER => (message[4].into(), (Errno::EPROTO, true)),
            _ => return None,
        };
        let header = quoted.first_chunk::<HEADER4>()?;
        let own = usize::from(header[0] & 15) * 4;
        if header[0] >> 4 != 4 || own < HEADER4 {
            return None;
        }
        let ip = |at: usize| header.get(at..)?.first_chunk::<4>().map(|octets| IpAddr::from(*octets));
        let (from, to, protocol) = (ip(12)?, ip(16)?, header[9]);
        let body = quoted.get(own..).filter(|body| body.len() >= BODY)?;
        Some(Failure { by: *by, kind, code, info, errno, lasts, is_size, from, to, protocol, quoted, body })
    }

    /// Extension headers are not looked through.
    fn parse6(by: &Arrived<'a>) -> Option<Failure<'a>> {
        let (message, quoted) = by.payload.split_first_chunk::<MESSAGE>()?;
        let (kind, code) = (message[0], message[1]);
        let info = u32::from_be_bytes([message[4], message[5], message[6], message[7]]);
        let (errno, lasts) = match kind {
            UNREACHABLE6 => errno_of6(code),
            TOO_LARGE6 => (Errno::EMSGSIZE, false),
            TIME_EXCEEDED6 => (Errno::EHOSTUNREACH, false),
            BAD_HEADER6 => (Errno::EPROTO, true),
            _ => return None,
        };
        let header = quoted.first_chunk::<HEADER6>()?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let ip = |at: usize| header.get(at..)?.first_chunk::<16>().map(|octets| IpAddr::from(*octets));
        let (from, to, protocol) = (ip(8)?, ip(24)?, header[6]);
        let body = quoted.get(HEADER6..).filter(|body| body.len() >= BODY)?;
        let is_size = kind == TOO_LARGE6;
        Some(Failure { by: *by, kind, code, info, errno, lasts, is_size, from, to, protocol, quoted, body })
    }
}

/// A datagram from this machine to itself that nobody is there for: its sender is told as if ICMP had said so. Of UDP-Lite it
/// says how much is covered.
pub fn datagram_refused(from: Endpoint, to: Endpoint, header: (u8, u8), covered: Option<u16>, data: &[u8]) {
    let quoted = data.get(..data.len().min(QUOTED6)).unwrap_or(data);
    let mut body = Vec::new();
    if !frames::has_spare() || body.try_reserve_exact(UDP_HEADER + quoted.len()).is_err() {
        return;
    }
    let len = UDP_HEADER + data.len();
    for field in [from.port, to.port, covered.unwrap_or(len as u16), 0] {
        body.extend(field.to_be_bytes());
    }
    body.extend_from_slice(quoted);
    let (hops, class) = header;
    let protocol = if covered.is_some() { IPPROTO_UDPLITE } else { IPPROTO_UDP };
    let head = Head { from: from.ip, to: to.ip, protocol, hops, class, ident: 0 };
    let Ok(mut packet) = head.before(&body) else { return };
    // As long as it was.
    if to.ip.is_ipv4() {
        packet::put(&mut packet, 2, (HEADER4 + len) as u16);
        packet::put(&mut packet, 10, 0);
        let sum = packet::checksum(&[packet.get(..HEADER4).unwrap_or(&[])]);
        packet::put(&mut packet, 10, sum);
    } else {
        packet::put(&mut packet, 4, len as u16);
    }
    refuse(from.ip, to.ip, class, &packet, true);
}

/// The same of a whole packet, of which the port is not known, or the protocol.
pub fn packet_refused(packet: &Arrived<'_>, port: bool) {
    refuse(packet.from, packet.to, packet.class, packet.whole, port);
}

fn refuse(from: IpAddr, to: IpAddr, class: u8, quoted: &[u8], port: bool) {
    // A packet of IPv6 of which the next header is not known: where that says so.
    let (v4, next_header) = (to.is_ipv4(), 6u8);
    let (kind, code, info) = match (v4, port) {
        (true, true) => (UNREACHABLE, PORT, 0),
        (true, false) => (UNREACHABLE, PROTOCOL, 0),
        (false, true) => (UNREACHABLE6, PORT6, 0),
        (false, false) => (BAD_HEADER6, UNKNOWN_HEADER6, next_header),
    };
    let most = if v4 { QUOTED } else { QUOTED6 };
    let quoted = quoted.get(..quoted.len().min(most)).unwrap_or(quoted);
    let mut message = Vec::new();
    if message.try_reserve_exact(MESSAGE + quoted.len()).is_err() {
        return;
    }
    message.extend([kind, code, 0, 0, 0, 0, 0, info]);
    message.extend_from_slice(quoted);
    let Some(whole) = whole(to, from, class, message) else { return };
    if link::is_watched() {
        link::passes_loopback(&whole);
    }
    let Some(packet) = Arrived::parse(&whole, LOOPBACK_INDEX) else { return };
    ip::arrive(&packet);
    super::arrive(&packet);
}

/// The packet with a message.
fn whole(from: IpAddr, to: IpAddr, class: u8, mut message: Vec<u8>) -> Option<Box<[u8]>> {
    let v4 = to.is_ipv4();
    let protocol = if v4 { IPPROTO_ICMP } else { IPPROTO_ICMPV6 };
    let sum = match v4 {
        true => packet::checksum(&[&message]),
        false => packet::pseudo_checksum(from, to, protocol, &message),
    };
    packet::put(&mut message, 2, sum);
    let class = if v4 { class & CLASS_BITS | INTERNETWORK } else { 0 };
    Head { from, to, protocol, hops: HOPS as u8, class, ident: 0 }.before(&message).ok()
}
