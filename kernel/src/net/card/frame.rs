//! To whom a frame goes. What cannot be told from its headers, and what is broken, goes to the stack as it is.

use core::net::IpAddr;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, Icmpv4Message, Icmpv4Packet, IpProtocol,
    Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpPacket, UdpPacket, UdpRepr,
};

use crate::errno::Errno;
use crate::net::inet::Endpoint;

/// Both ends of a connection, the own one first.
pub type Pair = (Endpoint, Endpoint);

pub enum Kind<'a> {
    Tcp {
        pair: Pair,
        /// It begins a connection; it ends one.
        begins: bool,
        resets: bool,
    },
    /// A whole datagram with a good checksum.
    Udp {
        pair: Pair,
        data: &'a [u8],
    },
    /// Somebody says that what was sent from `pair.0` to `pair.1` has not arrived.
    Unreachable {
        protocol: IpProtocol,
        pair: Pair,
        errno: Errno,
    },
    /// Somebody answers who he is.
    Neighbour {
        ip: IpAddr,
        mac: [u8; 6],
    },
    /// ICMPv6, without its IPv6 header.
    Icmp6 {
        packet: Ipv6Packet<&'a [u8]>,
        mac: [u8; 6],
    },
    Other,
}

fn end(ip: impl Into<IpAddr>, port: u16) -> Endpoint {
    Endpoint { ip: ip.into(), port }
}

pub fn classify(bytes: &[u8]) -> Kind<'_> {
    let Ok(frame) = EthernetFrame::new_checked(bytes) else { return Kind::Other };
    let (ethertype, mac) = (frame.ethertype(), frame.src_addr().0);
    let Some(packet) = bytes.get(super::ETHERNET_HEADER..) else { return Kind::Other };
    let kind = match ethertype {
        EthernetProtocol::Ipv4 => ipv4(packet),
        EthernetProtocol::Ipv6 => ipv6(packet, mac),
        EthernetProtocol::Arp => arp(packet),
        _ => None,
    };
    kind.unwrap_or(Kind::Other)
}

fn arp(packet: &[u8]) -> Option<Kind<'_>> {
    let ArpRepr::EthernetIpv4 { operation, source_hardware_addr, source_protocol_addr, .. } =
        ArpRepr::parse(&ArpPacket::new_checked(packet).ok()?).ok()?
    else {
        return None;
    };
    let told = operation == ArpOperation::Reply && !source_protocol_addr.is_unspecified();
    told.then_some(Kind::Neighbour { ip: source_protocol_addr.into(), mac: source_hardware_addr.0 })
}

fn ipv4(packet: &[u8]) -> Option<Kind<'_>> {
    let ip = Ipv4Packet::new_checked(packet).ok()?;
    if ip.more_frags() || ip.frag_offset() != 0 {
        return None;
    }
    let (from, to) = (IpAddr::V4(ip.src_addr()), IpAddr::V4(ip.dst_addr()));
    let payload = packet.get(ip.header_len().into()..ip.total_len().into())?;
    match ip.next_header() {
        IpProtocol::Tcp => tcp(from, to, payload),
        IpProtocol::Udp => {
            Ipv4Repr::parse(&ip, &ChecksumCapabilities::default()).ok()?;
            udp(from, to, payload)
        }
        IpProtocol::Icmp => unreachable4(payload),
        _ => None,
    }
}

/// Extension headers are the stack's.
fn ipv6(packet: &[u8], mac: [u8; 6]) -> Option<Kind<'_>> {
    let ip = Ipv6Packet::new_checked(packet).ok()?;
    let repr = Ipv6Repr::parse(&ip).ok()?;
    let (from, to) = (IpAddr::V6(repr.src_addr), IpAddr::V6(repr.dst_addr));
    let payload = packet.get(ip.header_len()..ip.total_len())?;
    match repr.next_header {
        IpProtocol::Tcp => tcp(from, to, payload),
        IpProtocol::Udp => udp(from, to, payload),
        IpProtocol::Icmpv6 => Some(Kind::Icmp6 { packet: ip, mac }),
        _ => None,
    }
}

fn tcp<'a>(from: IpAddr, to: IpAddr, payload: &[u8]) -> Option<Kind<'a>> {
    let segment = TcpPacket::new_checked(payload).ok()?;
    let pair = (end(to, segment.dst_port()), end(from, segment.src_port()));
    Some(Kind::Tcp { pair, begins: segment.syn() && !segment.ack() && !segment.rst(), resets: segment.rst() })
}

fn udp(from: IpAddr, to: IpAddr, payload: &[u8]) -> Option<Kind<'_>> {
    let datagram = UdpPacket::new_checked(payload).ok()?;
    UdpRepr::parse(&datagram, &from.into(), &to.into(), &ChecksumCapabilities::default()).ok()?;
    let pair = (end(to, datagram.dst_port()), end(from, datagram.src_port()));
    Some(Kind::Udp { pair, data: datagram.payload() })
}

/// A datagram out of its IP packet, which the stack has put together from fragments.
pub fn reassembled(packet: &[u8]) -> Option<(Pair, &[u8])> {
    let ip = Ipv4Packet::new_checked(packet).ok()?;
    let payload = packet.get(ip.header_len().into()..ip.total_len().into())?;
    match udp(ip.src_addr().into(), ip.dst_addr().into(), payload)? {
        Kind::Udp { pair, data } => Some((pair, data)),
        _ => None,
    }
}

/// The codes of "destination unreachable" (RFC 1122, 3.2.2.1), as Linux translates them.
fn errno_of(code: u8) -> Option<Errno> {
    Some(match code {
        0 | 6 | 9 | 11 => Errno::ENETUNREACH,
        1 | 7 | 8 | 10 | 12 | 13 => Errno::EHOSTUNREACH,
        2 => Errno::ENOPROTOOPT,
        3 => Errno::ECONNREFUSED,
        _ => return None,
    })
}

/// What an ICMP message quotes: the IP header and the first eight bytes of what was sent.
fn unreachable4(payload: &[u8]) -> Option<Kind<'_>> {
    let message = Icmpv4Packet::new_checked(payload).ok()?;
    if message.msg_type() != Icmpv4Message::DstUnreachable || !message.verify_checksum() {
        return None;
    }
    let errno = errno_of(message.msg_code())?;
    let quoted = payload.get(8..)?;
    let ip = Ipv4Packet::new_unchecked(quoted.get(..20).map(|_| quoted)?);
    let ports = quoted.get(ip.header_len().into()..)?.first_chunk::<4>()?;
    let [a, b, c, d] = *ports;
    let pair = (end(ip.src_addr(), u16::from_be_bytes([a, b])), end(ip.dst_addr(), u16::from_be_bytes([c, d])));
    Some(Kind::Unreachable { protocol: ip.next_header(), pair, errno })
}
