//! What becomes of a packet that has come: from another machine, or from a socket here.

use alloc::boxed::Box;
use alloc::vec::Vec;

use linux_raw_sys::if_ether as ether;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{UdpPacket, UdpRepr};

use super::packet::{self, Arrived, ECHO, ECHO_REPLY, ECHO_REPLY6, ECHO6, Head};
use super::{IpSocket, Kind, Packet, table};
use crate::mm::frames;
use crate::net::filter::View;
use crate::net::inet::told::{About, Noted};
use crate::net::inet::{
    Endpoint, HOPS, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_UDPLITE, failures, groups, udp,
};
use crate::net::interface::{self, LOOPBACK_INDEX};
use crate::net::link;
use crate::time;

/// Gives sockets what is for them. True if a raw socket has it, too.
pub fn arrive(packet: &Arrived<'_>) -> bool {
    if table::is_empty() {
        return false;
    }
    let mut taken = false;
    for socket in table::raw(packet.protocol, packet.to.is_ipv4()) {
        if socket.wants(packet) {
            taken = true;
            socket.take(packet, if packet.to.is_ipv4() { packet.whole } else { packet.payload });
        }
    }
    if let Some(ECHO_REPLY | ECHO_REPLY6) = packet.message().filter(|_| packet.payload.get(1) == Some(&0))
        && is_reply(packet)
        && let Some(ident) = packet.payload.get(4..6).and_then(|ident| ident.first_chunk())
        && let Some(socket) = table::asking(u16::from_be_bytes(*ident), packet.to, packet.index)
    {
        socket.take(packet, packet.payload);
    }
    taken
}

fn is_reply(packet: &Arrived<'_>) -> bool {
    packet.payload.first() == Some(if packet.to.is_ipv4() { &ECHO_REPLY } else { &ECHO_REPLY6 })
}

/// A packet from this machine to itself, through an interface.
pub(super) fn deliver_here(whole: &[u8], index: i32) {
    if link::is_watched() {
        link::passes_loopback(whole);
    }
    take_in(whole, index);
}

/// What a program has sent through the loopback as a frame of this ETH_P_*. Only packets of IPv6 to this machine go further: of IPv4 none
/// is believed to come from an own address or to go to the loopback's, as on Linux (ip_route_input_slow).
pub fn came_by_loopback(whole: &[u8], protocol: u16) {
    if u32::from(protocol) != ether::ETH_P_IPV6 {
        return;
    }
    let Some(packet) = Arrived::parse(whole, LOOPBACK_INDEX).filter(|packet| packet.to.is_ipv6()) else { return };
    if interface::is_local(packet.to) {
        take_in(packet.whole, LOOPBACK_INDEX);
    }
}

/// Sockets get it, and what asks for an echo has one. Who sent what nobody knows is told. Nobody else's packets are answered.
pub(super) fn take_in(whole: &[u8], index: i32) {
    let Some(packet) = Arrived::parse(whole, index) else { return };
    if packet.to.is_multicast() && !groups::is_joined(index, packet.to) {
        return;
    }
    let taken = arrive(&packet);
    match (packet.protocol, packet.message()) {
        (IPPROTO_ICMP, Some(ECHO)) if packet.to.is_ipv4() => echo(&packet, ECHO_REPLY),
        (IPPROTO_ICMPV6, Some(ECHO6)) if packet.to.is_ipv6() => echo(&packet, ECHO_REPLY6),
        (IPPROTO_UDP, _) => deliver_datagram(&packet),
        (IPPROTO_UDPLITE, _) => refuse_unless(udp::lite_arrives(&packet), &packet),
        (IPPROTO_ICMP | IPPROTO_ICMPV6, Some(_)) => failures::arrive(&packet),
        (IPPROTO_TCP | IPPROTO_ICMP | IPPROTO_ICMPV6, _) => {}
        _ if taken || interface::is_group(packet.to) || !interface::is_local(packet.from) => {}
        _ => failures::packet_refused(&packet, false),
    }
}

fn echo(packet: &Arrived<'_>, answer: u8) {
    // As on Linux what is for many is not answered.
    if interface::is_group(packet.to) || !interface::is_local(packet.from) || packet.payload.get(1) != Some(&0) {
        return;
    }
    let Some(mut payload) = copy(packet.payload) else { return };
    if let Some(kind) = payload.first_mut() {
        *kind = answer;
    }
    packet::put(&mut payload, 2, 0);
    let head = Head {
        from: packet.to,
        to: packet.from,
        protocol: packet.protocol,
        hops: HOPS as u8,
        class: packet.class,
        ident: 0,
    };
    let sum = match packet.to.is_ipv4() {
        true => packet::checksum(&[&payload]),
        false => packet::pseudo_checksum(head.from, head.to, head.protocol, &payload),
    };
    packet::put(&mut payload, 2, sum);
    let Ok(whole) = head.before(&payload) else { return };
    if link::is_watched() {
        link::passes_loopback(&whole);
    }
    // Whatever the question was sent through.
    if let Some(reply) = Arrived::parse(&whole, LOOPBACK_INDEX) {
        arrive(&reply);
    }
}

/// A datagram that a raw socket has written.
fn deliver_datagram(packet: &Arrived<'_>) {
    let Ok(datagram) = UdpPacket::new_checked(packet.payload) else { return };
    let (from, to) = (packet.from.into(), packet.to.into());
    if UdpRepr::parse(&datagram, &from, &to, &ChecksumCapabilities::default()).is_ok() {
        let local = Endpoint { ip: packet.to, port: datagram.dst_port() };
        let remote = Endpoint { ip: packet.from, port: datagram.src_port() };
        let header = (packet.hops, packet.class);
        if interface::is_group(packet.to) {
            udp::deliver_to_all(remote, local, header, None, packet.index, datagram.payload());
            return;
        }
        refuse_unless(udp::arrive(local, remote, packet.index, header, datagram.payload()), packet);
    }
}

/// Who has sent a datagram that nobody has `taken` is told.
fn refuse_unless(taken: bool, packet: &Arrived<'_>) {
    if !taken && !interface::is_group(packet.to) && interface::is_local(packet.from) {
        failures::packet_refused(packet, true);
    }
}

/// What finds no memory is lost.
fn copy(bytes: &[u8]) -> Option<Box<[u8]>> {
    let mut copy = Vec::new();
    if !frames::has_spare() || copy.try_reserve_exact(bytes.len()).is_err() {
        return None;
    }
    copy.extend_from_slice(bytes);
    Some(copy.into_boxed_slice())
}

impl IpSocket {
    /// Does a raw socket want a packet of its protocol?
    fn wants(&self, packet: &Arrived<'_>) -> bool {
        let state = self.state.lock();
        let local = state.local.is_any() || state.local.ip == packet.to;
        let remote = state.remote.is_none_or(|remote| remote.ip == packet.from);
        let group = packet.to.is_multicast();
        let wanted = !group || self.groups.lock().wants(packet.index, packet.to);
        local && remote && wanted && self.common.hears(packet.index) && !self.raw_options.lock().filters(packet)
    }

    fn take(&self, packet: &Arrived<'_>, bytes: &[u8]) {
        // What the socket computes itself it looks at, too.
        let covered = self.kind == Kind::Raw && !self.is_v4() && self.raw_options.lock().checksum.is_some();
        if covered && packet.checksum_with_ends() != 0 {
            return;
        }
        let view = View {
            bytes: packet.whole,
            network: 0,
            start: packet.whole.len() - bytes.len(),
            protocol: if packet.to.is_ipv4() { ether::ETH_P_IP } else { ether::ETH_P_IPV6 } as u16,
            kind: link::Kind::Host as u8,
            index: packet.index,
            hardware: interface::hardware_of(packet.index),
        };
        let Some(most) = self.common.filter.wanted(&view) else { return };
        // Before it is copied.
        if self.is_crowded() {
            return;
        }
        let Some(data) = copy(bytes.get(..most.max(1)).unwrap_or(bytes)) else { return };
        let Arrived { from, to, hops, class, index, .. } = *packet;
        let noted = match self.kind {
            // Who asks for echoes is not told which of the machine's addresses it was.
            Kind::Echo => Noted::Interface,
            Kind::Raw if self.ip.told().wants_interface() => Noted::All,
            Kind::Raw => Noted::Nothing,
        };
        let at = time::now_realtime().to_nanos();
        let about = About { to: Endpoint { ip: to, port: 0 }, index, hops, class, noted, at };
        self.deliver(Packet { from, about, data });
    }
}
