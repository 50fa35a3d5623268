//! Datagrams for many: multicast on the loopback, and broadcasts.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use super::lite::ports_of;
use super::{Datagram, State, UdpSocket, packet};
use crate::errno::{Errno, Result};
use crate::exec::{budget, is_budget_used, spawn};
use crate::fs::TryError;
use crate::mm::{IoBuf, frames};
use crate::net::inet::{Endpoint, events, groups};
use crate::net::interface::{self, LOOPBACK_INDEX};
use crate::net::link;
use crate::net::packet::copy_in;
use crate::net::socket::Outgoing;

/// So many receivers get a datagram at once, of those with filters so many if time is short; the others in turns.
const AT_ONCE: usize = 16;
const FILTERED_AT_ONCE: usize = 4;

impl UdpSocket {
    /// Where a datagram for a group comes from if its way leads over the loopback, as the message, the socket or the options say:
    /// only from an address of this machine.
    #[cold]
    pub(super) fn source_on_loopback(&self, state: &State, to: IpAddr, message: &Outgoing) -> Result<Option<IpAddr>> {
        if !to.is_ipv4() || !interface::is_loopback_up() {
            return Ok(None);
        }
        let (index, own) = self.groups.lock().way();
        let given = self.device_for(message);
        let index = if given != 0 { given } else { index };
        let bound = Some(state.local.ip).filter(|ip| interface::is_local(*ip));
        let source = message.sending.source.or(bound).or(own).filter(IpAddr::is_ipv4);
        let here = match index {
            0 => source.is_some_and(interface::is_of_loopback),
            index => index == LOOPBACK_INDEX,
        };
        match source {
            _ if !here => Ok(None),
            None => Ok(Some(IpAddr::V4(Ipv4Addr::LOCALHOST))),
            Some(source) if source.is_multicast() => Err(Errno::EINVAL),
            Some(source) if !interface::is_local(source) => Err(Errno::ENETUNREACH),
            Some(source) => Ok(Some(source)),
        }
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
        let covered = self.covers(len);
        if link::is_watched() {
            packet::show(from, to, header, covered, &data);
        }
        events::datagram(to.ip.is_ipv4(), covered.is_some(), events::Datagram::Sent);
        deliver_to_all(from, to, header, covered, LOOPBACK_INDEX, &data);
        Ok(len)
    }
}

/// A datagram that stays in the machine, for all who are bound to its port. Nobody answers it.
#[cold]
pub(super) fn deliver_to_all(
    from: Endpoint,
    to: Endpoint,
    header: (u8, u8),
    covered: Option<u16>,
    index: i32,
    data: &[u8],
) {
    let group = match to.ip {
        IpAddr::V4(ip) if ip.is_multicast() => Some(ip),
        _ => None,
    };
    if group.is_some_and(|group| !groups::is_joined(group)) {
        return;
    }
    let wants = move |receiver: &Arc<UdpSocket>| group.is_none_or(|group| receiver.groups.lock().wants(group));
    let receivers = ports_of(covered.is_some()).find_all(to, from, |claim| claim.hears(index));
    let mut receivers = receivers.into_iter().filter(wants);
    let new = move |data| Datagram::new(from, to, index, header, covered, data);
    let mut filtered = 0;
    for (_, receiver) in (0..AT_ONCE).zip(receivers.by_ref()) {
        give(&receiver, &from, data, new);
        filtered += usize::from(receiver.common.filter.is_there());
        if filtered >= FILTERED_AT_ONCE && is_budget_used() {
            break;
        }
    }
    if let Some(first) = receivers.next() {
        let Some(data) = copy(data) else { return };
        spawn("udp", async move {
            for receiver in core::iter::once(first).chain(receivers) {
                give(&receiver, &from, &data, new);
                budget().await;
            }
        });
    }
}

fn give(receiver: &UdpSocket, from: &Endpoint, data: &[u8], new: impl FnOnce(Box<[u8]>) -> Datagram) {
    // Before it is copied.
    if receiver.is_crowded() {
        return receiver.lose(from, true);
    }
    if let Some(data) = copy(data) {
        receiver.deliver(new(data));
    }
}

/// None: there is no memory for it.
pub(super) fn copy(data: &[u8]) -> Option<Box<[u8]>> {
    let mut copy = Vec::new();
    if !frames::has_spare() || copy.try_reserve_exact(data.len()).is_err() {
        return None;
    }
    copy.extend_from_slice(data);
    Some(copy.into_boxed_slice())
}
