//! To whom a frame goes. What cannot be told from its headers, and what is broken, goes to the stack as it is.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::Range;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, Icmpv4Message, Icmpv4Packet, IpProtocol,
    Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, TcpOption, TcpPacket, UdpPacket, UdpRepr,
};

use super::recovery::{Acknowledgement, Said};
use super::{ETHERNET_HEADER, Settings};
use crate::errno::Errno;
use crate::net::inet::{Endpoint, failures};
use crate::net::interface;

/// The protocol of those who ask who is in which group.
pub const IGMP: u8 = 2;

/// Both ends of a connection, the own one first.
pub type Pair = (Endpoint, Endpoint);

pub enum Kind<'a> {
    Tcp {
        pair: Pair,
        /// It begins a connection; it ends one.
        begins: bool,
        resets: bool,
        said: Said,
    },
    /// A whole datagram with a good checksum.
    Udp {
        pair: Pair,
        /// Hops and class.
        header: (u8, u8),
        data: &'a [u8],
    },
    /// Somebody tells `to` that something has not arrived.
    Unreachable {
        to: IpAddr,
        quoted: Quoted,
    },
    /// Somebody tells `told` who he is.
    Neighbour {
        ip: IpAddr,
        mac: [u8; 6],
        told: IpAddr,
    },
    /// ICMPv6, without its IPv6 header.
    Icmp6 {
        packet: Ipv6Packet<&'a [u8]>,
        mac: [u8; 6],
    },
    /// Another message of ICMP, in one piece.
    Icmp,
    /// A segment with a wrong checksum.
    Broken,
    Other,
}

/// Of a packet that has not arrived, from `pair.0` to `pair.1`.
pub struct Quoted {
    pub protocol: IpProtocol,
    pub pair: Pair,
    /// Of a segment.
    pub number: u32,
    pub errno: Errno,
}

/// Can the frame be for this machine, and from where it says? What cannot, Linux drops as PACKET_OTHERHOST (ip_rcv) or as a
/// martian (ip_route_input_slow, fib_validate_source, ip6_rcv_core).
pub fn is_sound(bytes: &[u8], mac: [u8; 6], settings: &Settings) -> bool {
    let Some(to_mac) = bytes.first_chunk::<6>() else { return false };
    let is_group = to_mac[0] & 1 != 0;
    if !is_group && *to_mac != mac {
        return false;
    }
    let Some((_, packet)) = bytes.split_at_checked(ETHERNET_HEADER) else { return false };
    match bytes.get(12..14) {
        Some([8, 0]) => is_sound4(packet, settings).unwrap_or(false),
        Some([0x86, 0xdd]) => is_sound6(packet, settings).unwrap_or(false),
        _ => true,
    }
}

/// The packet of IP in a frame, whose version is what the frame says.
pub fn packet(frame: &[u8]) -> Option<&[u8]> {
    let version = match frame.get(12..14)? {
        [0x08, 0x00] => 4,
        [0x86, 0xdd] => 6,
        _ => return None,
    };
    frame.get(ETHERNET_HEADER..).filter(|packet| packet.first().is_some_and(|first| first >> 4 == version))
}

/// A fragment must not reach beyond the longest packet there can be.
fn is_too_long(packet: &[u8]) -> Option<bool> {
    let header = packet.first_chunk::<8>()?;
    let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let offset = 8 * usize::from(u16::from_be_bytes([header[6], header[7]]) & 0x1fff);
    Some(offset + len.saturating_sub(4 * usize::from(header[0] & 15)) > usize::from(u16::MAX) - 20)
}

fn is_sound4(packet: &[u8], settings: &Settings) -> Option<bool> {
    if is_too_long(packet)? {
        return Some(false);
    }
    let (from, to) = packet.get(12..20)?.split_first_chunk::<4>()?;
    let (from, to) = (Ipv4Addr::from(*from), Ipv4Addr::from(*to.first_chunk::<4>()?));
    let names_none = |ip: Ipv4Addr| ip.octets()[0] == 0 || ip.is_loopback();
    // Whoever has no address yet asks for one.
    let asks = from.is_unspecified() && to.is_broadcast() && matches!(ipv4(packet, true), Some(Kind::Udp { .. }));
    // Who asks of groups need not have one (RFC 4541, 2.1.1).
    let asks = asks || from.is_unspecified() && to.is_multicast() && packet.get(9) == Some(&IGMP);
    let from_host = !(names_none(from)
        || from.is_multicast()
        || settings.is_broadcast(from.into())
        || settings.is_own(from.into()));
    Some((asks || from_host) && !names_none(to))
}

fn is_sound6(packet: &[u8], settings: &Settings) -> Option<bool> {
    let (from, to) = packet.get(8..40)?.split_first_chunk::<16>()?;
    let (from, to) = (Ipv6Addr::from(*from), Ipv6Addr::from(*to.first_chunk::<16>()?));
    let names_none = |ip: Ipv6Addr| ip.is_loopback() || ip.to_ipv4_mapped().is_some();
    // Whoever looks whether somebody has an address has none.
    let from_host = !from.is_unspecified() || to.is_multicast();
    Some(
        from_host
            && !(names_none(from) || from.is_multicast() || settings.is_own(from.into()))
            && !(names_none(to) || to.is_unspecified() || interface::stays_here(to.into())),
    )
}

/// Of which machine the stack asks the address, with ARP or neighbour discovery.
pub fn asks_for(frame: &[u8]) -> Option<IpAddr> {
    let packet = frame.get(ETHERNET_HEADER..)?;
    match frame.get(12..14)? {
        [8, 6] if packet.get(6..8)? == [0, 1] => Some(Ipv4Addr::from(*packet.get(24..)?.first_chunk::<4>()?).into()),
        // ICMPv6, its header after that of IPv6: neighbour solicitation.
        [0x86, 0xdd] if *packet.get(6)? == 58 && *packet.get(40)? == 135 => {
            Some(Ipv6Addr::from(*packet.get(48..)?.first_chunk::<16>()?).into())
        }
        _ => None,
    }
}

fn end(ip: impl Into<IpAddr>, port: u16) -> Endpoint {
    Endpoint { ip: ip.into(), port }
}

/// `good`: its checksum is known to be.
pub fn classify(bytes: &[u8], good: bool) -> Kind<'_> {
    let Ok(frame) = EthernetFrame::new_checked(bytes) else { return Kind::Other };
    let (ethertype, mac) = (frame.ethertype(), frame.src_addr().0);
    let Some(packet) = bytes.get(ETHERNET_HEADER..) else { return Kind::Other };
    let kind = match ethertype {
        EthernetProtocol::Ipv4 => ipv4(packet, good),
        EthernetProtocol::Ipv6 => ipv6(packet, mac, good),
        EthernetProtocol::Arp => arp(packet),
        _ => None,
    };
    kind.unwrap_or(Kind::Other)
}

fn arp(packet: &[u8]) -> Option<Kind<'_>> {
    let ArpRepr::EthernetIpv4 { operation, source_hardware_addr, source_protocol_addr, target_protocol_addr, .. } =
        ArpRepr::parse(&ArpPacket::new_checked(packet).ok()?).ok()?
    else {
        return None;
    };
    // Who asks says who he is, too.
    let says = matches!(operation, ArpOperation::Reply | ArpOperation::Request) && source_hardware_addr.is_unicast();
    says.then_some(Kind::Neighbour {
        ip: source_protocol_addr.into(),
        mac: source_hardware_addr.0,
        told: target_protocol_addr.into(),
    })
}

fn ipv4(packet: &[u8], good: bool) -> Option<Kind<'_>> {
    let ip = Ipv4Packet::new_checked(packet).ok()?;
    if ip.more_frags() || ip.frag_offset() != 0 {
        return None;
    }
    let (from, to) = (IpAddr::V4(ip.src_addr()), IpAddr::V4(ip.dst_addr()));
    let payload = packet.get(ip.header_len().into()..ip.total_len().into())?;
    match ip.next_header() {
        IpProtocol::Tcp => tcp(from, to, payload, good),
        IpProtocol::Udp => {
            Ipv4Repr::parse(&ip, &ChecksumCapabilities::default()).ok()?;
            udp(from, to, header4(&ip), payload, good)
        }
        IpProtocol::Icmp => unreachable4(to, payload).or(Some(Kind::Icmp)),
        _ => None,
    }
}

/// Extension headers are the stack's.
fn ipv6(packet: &[u8], mac: [u8; 6], good: bool) -> Option<Kind<'_>> {
    let ip = Ipv6Packet::new_checked(packet).ok()?;
    let repr = Ipv6Repr::parse(&ip).ok()?;
    let (from, to) = (IpAddr::V6(repr.src_addr), IpAddr::V6(repr.dst_addr));
    let payload = packet.get(ip.header_len()..ip.total_len())?;
    match repr.next_header {
        IpProtocol::Tcp => tcp(from, to, payload, good),
        IpProtocol::Udp => udp(from, to, (ip.hop_limit(), ip.traffic_class()), payload, good),
        IpProtocol::Icmpv6 => Some(Kind::Icmp6 { packet: ip, mac }),
        _ => None,
    }
}

fn tcp<'a>(from: IpAddr, to: IpAddr, payload: &[u8], good: bool) -> Option<Kind<'a>> {
    let segment = TcpPacket::new_checked(payload).ok()?;
    // The stack does not look.
    if !good && !segment.verify_checksum(&from.into(), &to.into()) {
        return Some(Kind::Broken);
    }
    let pair = (end(to, segment.dst_port()), end(from, segment.src_port()));
    let begins = segment.syn() && !segment.ack() && !segment.rst();
    let only = segment.ack() && segment.payload().is_empty();
    let only = only && !(segment.syn() || segment.fin() || segment.rst());
    let said = if segment.syn() {
        Said::Begins(window_scale(segment.options()))
    } else if only {
        let (seq, ack) = (segment.seq_number(), segment.ack_number());
        Said::Acknowledges(Acknowledgement { seq, ack, window: segment.window_len() })
    } else {
        Said::Other
    };
    Some(Kind::Tcp { pair, begins, resets: segment.rst(), said })
}

/// Among the options of a SYN; 14 at most (RFC 7323, 2.3).
fn window_scale(mut options: &[u8]) -> u8 {
    while let Ok((rest, option)) = TcpOption::parse(options) {
        match option {
            TcpOption::WindowScale(scale) => return scale.min(14),
            TcpOption::EndOfList => break,
            _ => options = rest,
        }
    }
    0
}

/// The segment of TCP that is in this frame, in one piece and without headers between.
pub fn segment(frame: &[u8]) -> Option<TcpPacket<&[u8]>> {
    TcpPacket::new_checked(frame.get(place_of_segment(frame)?)?).ok()
}

/// The same, to be changed.
pub fn segment_mut(frame: &mut [u8]) -> Option<TcpPacket<&mut [u8]>> {
    let place = place_of_segment(frame)?;
    TcpPacket::new_checked(frame.get_mut(place)?).ok()
}

pub fn place_of_segment(frame: &[u8]) -> Option<Range<usize>> {
    let packet = packet(frame)?;
    let (protocol, start, end) = match packet.first()? >> 4 {
        4 => {
            let ip = Ipv4Packet::new_checked(packet).ok()?;
            let whole = !ip.more_frags() && ip.frag_offset() == 0;
            (whole.then(|| ip.next_header())?, ip.header_len().into(), ip.total_len().into())
        }
        _ => {
            let ip = Ipv6Packet::new_checked(packet).ok()?;
            (ip.next_header(), ip.header_len(), ip.total_len())
        }
    };
    (protocol == IpProtocol::Tcp).then_some(ETHERNET_HEADER + start..ETHERNET_HEADER + end)
}

fn header4(ip: &Ipv4Packet<&[u8]>) -> (u8, u8) {
    (ip.hop_limit(), ip.dscp() << 2 | ip.ecn())
}

fn udp(from: IpAddr, to: IpAddr, header: (u8, u8), payload: &[u8], good: bool) -> Option<Kind<'_>> {
    let datagram = UdpPacket::new_checked(payload).ok()?;
    let checksums = if good { ChecksumCapabilities::ignored() } else { ChecksumCapabilities::default() };
    UdpRepr::parse(&datagram, &from.into(), &to.into(), &checksums).ok()?;
    let pair = (end(to, datagram.dst_port()), end(from, datagram.src_port()));
    Some(Kind::Udp { pair, header, data: datagram.payload() })
}

/// A datagram out of its IP packet, which the stack has put together from fragments.
pub fn reassembled(packet: &[u8]) -> Option<(Pair, (u8, u8), &[u8])> {
    let ip = Ipv4Packet::new_checked(packet).ok()?;
    let payload = packet.get(ip.header_len().into()..ip.total_len().into())?;
    match udp(ip.src_addr().into(), ip.dst_addr().into(), header4(&ip), payload, false)? {
        Kind::Udp { pair, header, data } => Some((pair, header, data)),
        _ => None,
    }
}

/// A code that is about the size of packets, which the stack's segments do not exceed.
const TOO_LARGE: u8 = 4;

/// What an ICMP message quotes: the IP header and the first eight bytes of what was sent.
fn unreachable4<'a>(to: IpAddr, payload: &[u8]) -> Option<Kind<'a>> {
    let message = Icmpv4Packet::new_checked(payload).ok()?;
    if message.msg_type() != Icmpv4Message::DstUnreachable || !message.verify_checksum() {
        return None;
    }
    let code = message.msg_code();
    let (errno, _) = failures::errno_of(code).filter(|_| code != TOO_LARGE)?;
    let quoted = payload.get(8..)?;
    let ip = Ipv4Packet::new_unchecked(quoted.get(..20).map(|_| quoted)?);
    let [a, b, c, d, number @ ..] = *quoted.get(ip.header_len().into()..)?.first_chunk::<8>()?;
    let pair = (end(ip.src_addr(), u16::from_be_bytes([a, b])), end(ip.dst_addr(), u16::from_be_bytes([c, d])));
    let number = u32::from_be_bytes(number);
    Some(Kind::Unreachable { to, quoted: Quoted { protocol: ip.next_header(), pair, number, errno } })
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::super::Cidr;
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn settings() -> Settings {
        let own = |ip: &str, prefix| Cidr { ip: ip.parse().unwrap(), prefix };
        Settings { addresses: vec![own("10.0.2.15", 24), own("fe80::15", 64)], ..Settings::default() }
    }

    fn frame(mac: [u8; 6], from: &str, to: &str) -> Vec<u8> {
        let mut frame = mac.to_vec();
        frame.extend([2, 0, 0, 0, 0, 2]);
        match (from.parse::<IpAddr>().unwrap(), to.parse::<IpAddr>().unwrap()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                frame.extend([8, 0, 0x45, 0, 0, 20, 0, 0, 0, 0, 64, 6, 0, 0]);
                frame.extend([from.octets(), to.octets()].concat());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 6, 64]);
                frame.extend([from.octets(), to.octets()].concat());
            }
            _ => panic!("two families"),
        }
        frame
    }

    #[test]
    fn a_fragment_reaches_no_further_than_a_packet_may() {
        let mut bytes = frame(MAC, "10.0.2.2", "10.0.2.15");
        assert!(is_sound(&bytes, MAC, &settings()));
        // 20 bytes of header and 8 of data, from byte 65,504 and from 65,512 on.
        bytes[16..18].copy_from_slice(&28u16.to_be_bytes());
        bytes[20..22].copy_from_slice(&(65_504u16 / 8).to_be_bytes());
        assert!(is_sound(&bytes, MAC, &settings()));
        bytes[20..22].copy_from_slice(&(65_512u16 / 8).to_be_bytes());
        assert!(!is_sound(&bytes, MAC, &settings()));
    }

    #[test]
    fn a_packet_is_what_its_frame_says() {
        let four = frame(MAC, "10.0.2.2", "10.0.2.15");
        let six = frame(MAC, "fe80::2", "fe80::15");
        assert_eq!(packet(&four), Some(&four[14..]));
        assert_eq!(packet(&six), Some(&six[14..]));
        for kind in [[0x88, 0xb5], [0x86, 0xdd]] {
            let mut other = four.clone();
            other[12..14].copy_from_slice(&kind);
            assert_eq!(packet(&other), None);
        }
        assert_eq!(packet(&four[..14]), None);
    }

    #[test]
    fn what_cannot_have_come_from_the_wire_is_not_for_this_machine() {
        let is_sound = |mac, from: &str, to: &str| super::is_sound(&frame(mac, from, to), MAC, &settings());
        for (from, to) in [
            ("10.0.2.2", "10.0.2.15"),
            ("8.8.8.8", "10.0.2.15"),
            ("10.0.2.2", "10.0.2.255"),
            ("10.0.2.2", "255.255.255.255"),
            ("10.0.2.2", "224.0.0.1"),
            ("fe80::2", "fe80::15"),
            ("::", "ff02::1"),
        ] {
            assert!(is_sound(MAC, from, to), "{from} to {to}");
        }
        for (from, to) in [
            ("127.0.0.1", "10.0.2.15"),
            ("10.0.2.2", "127.0.0.1"),
            ("127.0.0.1", "127.0.0.1"),
            ("0.0.0.0", "10.0.2.15"),
            ("0.1.2.3", "10.0.2.15"),
            ("10.0.2.2", "0.0.0.0"),
            ("224.0.0.1", "10.0.2.15"),
            ("255.255.255.255", "10.0.2.15"),
            ("10.0.2.255", "10.0.2.15"),
            ("10.0.2.15", "10.0.2.15"),
            ("::1", "fe80::15"),
            ("fe80::2", "::1"),
            ("::", "fe80::15"),
            ("ff02::1", "fe80::15"),
            ("fe80::15", "fe80::15"),
            ("::ffff:127.0.0.1", "fe80::15"),
            ("fe80::2", "::ffff:127.0.0.1"),
            // It is no request of DHCP.
            ("0.0.0.0", "255.255.255.255"),
        ] {
            assert!(!is_sound(MAC, from, to), "{from} to {to}");
        }
        assert!(is_sound([0xff; 6], "10.0.2.2", "10.0.2.255"));
        assert!(!is_sound([2, 0, 0, 0, 0, 9], "10.0.2.2", "10.0.2.15"));
        for len in 0..34 {
            assert!(!super::is_sound(&frame(MAC, "10.0.2.2", "10.0.2.15")[..len], MAC, &settings()), "{len}");
        }
    }
}
