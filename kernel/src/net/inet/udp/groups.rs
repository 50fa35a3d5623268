//! Datagrams for many: multicast, and broadcasts.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::lite::ports_of;
use super::{Datagram, State, UdpSocket, packet};
use crate::errno::Result;
use crate::exec::{budget, is_budget_used, spawn};
use crate::fs::TryError;
use crate::mm::{IoBuf, frames};
use crate::net::inet::groups::{self, Way};
use crate::net::inet::{Endpoint, events};
use crate::net::interface::{self, LOOPBACK_INDEX};
use crate::net::link;
use crate::net::packet::copy_in;
use crate::net::socket::Outgoing;
use crate::sync::SpinGuard;

/// So many receivers get a datagram at once, of those with filters so many if time is short; the others in turns.
const AT_ONCE: usize = 16;
const FILTERED_AT_ONCE: usize = 4;
/// Of so many sockets it is found out at once whether they want it.
const LOOKED_AT_ONCE: usize = 64;
/// Datagrams that are on their way to the others.
const SPREADING_MOST: usize = 64;

const UDP_HEADER: usize = 8;

impl UdpSocket {
    /// Which way a datagram for a group takes, as the message, the socket or the options say.
    pub(super) fn way_to_group(&self, state: &State, group: IpAddr, message: &Outgoing) -> Result<Way> {
        let bound = Some(state.local.ip).filter(|ip| interface::is_local(*ip));
        self.groups.lock().way(group, self.device_for(message), message.sending.source.or(bound))
    }

    pub(super) fn hops_to_group(&self, group: IpAddr) -> u8 {
        self.groups.lock().hops(group.is_ipv4())
    }

    #[cold]
    pub(super) fn send_to_group(
        &self,
        buf: &mut IoBuf<'_>,
        state: SpinGuard<'_, State>,
        to: Endpoint,
        message: &Outgoing,
    ) -> Result<usize, TryError> {
        let way = self.way_to_group(&state, to.ip, message)?;
        let (port, shut) = (state.local.port, state.send_shut);
        drop(state);
        let len = buf.remaining();
        self.check_fits(to, self.ip.excess_within(way.mtu(), to.ip, UDP_HEADER + len))?;
        self.check_sendable(shut)?;
        if way.port.is_some() && self.is_full() {
            return Err(TryError::WouldBlock);
        }
        let header = self.header_for(to, message);
        self.send_along(&way, port, to, header, copy_in(buf)?)?;
        Ok(len)
    }

    /// Sends to a group, and to those here who have joined it where it goes out.
    pub(super) fn send_along(
        &self,
        way: &Way,
        own_port: u16,
        to: Endpoint,
        header: (u8, u8),
        data: Box<[u8]>,
    ) -> Result<()> {
        let from = Endpoint { ip: way.source, port: own_port };
        let covered = self.covers(data.len());
        let Some(port) = &way.port else {
            if link::is_watched() {
                packet::show(from, to, header, covered, &data);
            }
            events::datagram(to.ip.is_ipv4(), covered.is_some(), events::Datagram::Sent);
            deliver_to_all(from, to, header, covered, LOOPBACK_INDEX, &data);
            return Ok(());
        };
        // Nobody is asked whether it may go to so many.
        self.check_out(port, from, to, true, data.len())?;
        if self.groups.lock().loops(to.ip.is_ipv4()) {
            deliver_to_all(from, to, header, covered, port.index(), &data);
        }
        self.send_out(port, from, to, header.0, data)?;
        Ok(())
    }
}

/// A datagram for many that has come through the interface `index`, or that stays in the machine: for all who are bound to its port.
/// Nobody answers it. False if there are none.
#[cold]
pub fn deliver_to_all(
    from: Endpoint,
    to: Endpoint,
    header: (u8, u8),
    covered: Option<u16>,
    index: i32,
    data: &[u8],
) -> bool {
    let group = Some(to.ip).filter(IpAddr::is_multicast);
    if group.is_some_and(|group| !groups::is_joined(index, group)) {
        return false;
    }
    let wants = move |receiver: &UdpSocket| group.is_none_or(|group| receiver.groups.lock().wants(index, group));
    let mut receivers = ports_of(covered.is_some()).find_all(to, from, |claim| claim.hears(index)).into_iter();
    let new = move |data| Datagram::new(from, to, index, header, covered, data);
    let (mut given, mut filtered) = (0, 0);
    for (_, receiver) in (0..LOOKED_AT_ONCE).zip(receivers.by_ref()) {
        if !wants(&receiver) {
            continue;
        }
        give(&receiver, &from, data, new);
        given += 1;
        filtered += usize::from(receiver.common.filter.is_there());
        if given >= AT_ONCE || filtered >= FILTERED_AT_ONCE && is_budget_used() {
            break;
        }
    }
    // Some of them may want it.
    let rest = receivers.len() > 0;
    if rest
        && let Some(spreading) = Spreading::begin()
        && let Some(data) = copy(data)
    {
        spawn("udp", async move {
            let _spreading = spreading;
            for receiver in receivers {
                if wants(&receiver) {
                    give(&receiver, &from, &data, new);
                }
                budget().await;
            }
        });
    }
    given > 0 || rest
}

/// A datagram that is on its way to many.
struct Spreading;

static SPREADING: AtomicUsize = AtomicUsize::new(0);

impl Spreading {
    /// None: there are too many already, and it is lost for those who have not got it yet.
    fn begin() -> Option<Spreading> {
        let spreading = Spreading;
        (SPREADING.fetch_add(1, Ordering::Relaxed) < SPREADING_MOST).then_some(spreading)
    }
}

impl Drop for Spreading {
    fn drop(&mut self) {
        SPREADING.fetch_sub(1, Ordering::Relaxed);
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
