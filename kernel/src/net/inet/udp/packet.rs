//! Datagrams as the packets that they would be: for filters, and for those who watch the loopback.

use alloc::boxed::Box;
use alloc::vec::Vec;

use linux_raw_sys::if_ether as ether;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{UdpPacket, UdpRepr};

use super::groups::copy;
use super::{Datagram, UdpSocket, lite};
use crate::mm::frames;
use crate::net::filter::View;
use crate::net::inet::ip::packet::Head;
use crate::net::inet::{Endpoint, IPPROTO_UDP, IPPROTO_UDPLITE};
use crate::net::interface;
use crate::net::link::{self, Kind};

const UDP_HEADER: usize = 8;

/// None: there is no memory for it, or it is too long.
fn packet(from: Endpoint, to: Endpoint, header: (u8, u8), covered: Option<u16>, data: &[u8]) -> Option<Box<[u8]>> {
    let mut body = Vec::new();
    let too_long = UDP_HEADER + data.len() > usize::from(u16::MAX);
    if too_long || !frames::has_spare() || body.try_reserve_exact(UDP_HEADER + data.len()).is_err() {
        return None;
    }
    body.resize(UDP_HEADER + data.len(), 0);
    let udp = UdpRepr { src_port: from.port, dst_port: to.port };
    let fill = |room: &mut [u8]| room.copy_from_slice(data);
    let (source, target) = (from.ip.into(), to.ip.into());
    let sums = ChecksumCapabilities::default();
    udp.emit(&mut UdpPacket::new_unchecked(&mut body), &source, &target, data.len(), fill, &sums);
    if let Some(covered) = covered {
        lite::convert(from.ip, to.ip, &mut body, covered);
    }
    let (hops, class) = header;
    let protocol = if covered.is_some() { IPPROTO_UDPLITE } else { IPPROTO_UDP };
    Head { from: from.ip, to: to.ip, protocol, hops, class, ident: 0 }.before(&body).ok()
}

/// Shows a datagram that stays in the machine.
#[cold]
pub(super) fn show(from: Endpoint, to: Endpoint, header: (u8, u8), covered: Option<u16>, data: &[u8]) {
    if let Some(packet) = packet(from, to, header, covered, data) {
        link::passes_loopback(&packet);
    }
}

impl UdpSocket {
    /// Does the filter want the datagram? It may cut it.
    #[cold]
    pub(super) fn filters_in(&self, datagram: &mut Datagram) -> bool {
        let about = &datagram.about;
        let (header, covered) = ((about.hops, about.class), datagram.covered);
        let Some(packet) = packet(datagram.from, about.to, header, covered, &datagram.data) else { return false };
        let view = View {
            bytes: &packet,
            network: 0,
            start: packet.len() - UDP_HEADER - datagram.data.len(),
            protocol: if about.to.ip.is_ipv4() { ether::ETH_P_IP } else { ether::ETH_P_IPV6 } as u16,
            kind: Kind::Host as u8,
            index: about.index,
            hardware: interface::hardware_of(about.index),
        };
        let Some(most) = self.common.filter.wanted(&view) else { return false };
        let most = most.saturating_sub(UDP_HEADER);
        let Some(kept) = datagram.data.get(..most) else { return true };
        let Some(kept) = copy(kept) else { return false };
        datagram.data = kept;
        true
    }
}
