//! Datagrams for many: multicast on the loopback, and broadcasts.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use super::{Datagram, PORTS, State, UdpSocket};
use crate::fs::TryError;
use crate::mm::{IoBuf, frames};
use crate::net::inet::{Endpoint, groups};
use crate::net::interface::{self, LOOPBACK_INDEX};
use crate::net::packet::copy_in;
use crate::net::socket::Outgoing;

impl UdpSocket {
    /// Where a datagram for a group comes from if its way leads over the loopback, as the message, the socket or the options say.
    #[cold]
    pub(super) fn source_on_loopback(&self, state: &State, to: IpAddr, message: &Outgoing) -> Option<IpAddr> {
        if !to.is_ipv4() || !interface::is_loopback_up() {
            return None;
        }
        let (index, own) = self.groups.lock().way();
        let index = if message.sending.index != 0 { message.sending.index } else { index };
        let bound = Some(state.local.ip).filter(|ip| interface::is_local(*ip));
        let source = message.sending.source.or(bound).or(own).filter(IpAddr::is_ipv4);
        let here = match index {
            0 => source.is_some_and(interface::is_of_loopback),
            index => index == LOOPBACK_INDEX,
        };
        here.then(|| source.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)))
    }

    /// IP_MULTICAST_TTL; of IPv6 datagrams for groups do not leave the network (IPV6_MULTICAST_HOPS is not there).
    #[cold]
    pub(super) fn hops_to_group(&self, group: IpAddr) -> u8 {
        if group.is_ipv4() { self.groups.lock().hops() } else { 1 }
    }

    pub(super) fn send_to_group(
        &self,
        buf: &mut IoBuf<'_>,
        from: Endpoint,
        to: Endpoint,
        header: (u8, u8),
    ) -> Result<usize, TryError> {
        let data = copy_in(buf)?;
        let len = data.len();
        deliver_to_all(from, to, header, &data);
        Ok(len)
    }
}

/// A datagram that stays in the machine, for all who are bound to its port. Nobody answers it.
#[cold]
pub(super) fn deliver_to_all(from: Endpoint, to: Endpoint, header: (u8, u8), data: &[u8]) {
    let group = match to.ip {
        IpAddr::V4(ip) if ip.is_multicast() => Some(ip),
        _ => None,
    };
    if group.is_some_and(|group| !groups::is_joined(group)) {
        return;
    }
    for receiver in PORTS.find_all(to, from) {
        if group.is_some_and(|group| !receiver.groups.lock().wants(group)) {
            continue;
        }
        let Some(data) = copy(data) else { return };
        receiver.deliver(Datagram::new(from, to, LOOPBACK_INDEX, header, data));
    }
}

fn copy(data: &[u8]) -> Option<Box<[u8]>> {
    let mut copy = Vec::new();
    if !frames::has_spare() || copy.try_reserve_exact(data.len()).is_err() {
        return None;
    }
    copy.extend_from_slice(data);
    Some(copy.into_boxed_slice())
}
