//! Datagrams to and from other machines: the task of a card sends them, and calls when one has come.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::lite::ports_of;
use super::{Datagram, OVERHEAD, UdpSocket, WRITABLE};
use crate::errno::{Errno, Result};
use crate::fs::sigio;
use crate::mm::frames;
use crate::net::card::{self, Charge, Port, Sender};
use crate::net::inet::failures::{Failure, Reaction};
use crate::net::inet::{Endpoint, IPPROTO_UDPLITE, events};
use crate::net::interface;
use crate::net::socket::Switches;

/// What the stack sends to other machines: as many fragments as its buffer holds; those of IPv6 are not made.
const MAX_OUT: usize = (32 << 10) - 28;
const MAX_OUT6: usize = card::MTU - 48;
const UDP_HEADER: usize = 8;

/// A datagram has come as a packet, through the interface `index` with a header of these hops and this class. False if nobody is
/// there to receive it.
pub fn arrive(local: Endpoint, remote: Endpoint, index: i32, header: (u8, u8), data: &[u8]) -> bool {
    hand_over(local, remote, index, header, None, data)
}

/// The same of UDP-Lite, if so much is `covered`.
pub(super) fn hand_over(
    local: Endpoint,
    remote: Endpoint,
    index: i32,
    header: (u8, u8),
    covered: Option<u16>,
    data: &[u8],
) -> bool {
    let Some(receiver) = ports_of(covered.is_some()).find(local, remote, |claim| claim.hears(index)) else {
        if !interface::is_group(local.ip) {
            events::datagram(local.ip.is_ipv4(), covered.is_some(), events::Datagram::NoPort);
        }
        return false;
    };
    let mut copy = Vec::new();
    // What finds no memory is lost, as what finds no room.
    if frames::has_spare() && copy.try_reserve_exact(data.len()).is_ok() {
        copy.extend_from_slice(data);
        receiver.deliver(Datagram::new(remote, local, index, header, covered, copy.into_boxed_slice()));
    } else {
        receiver.lose(&remote, false);
    }
    true
}

/// A datagram has not arrived: who sent it is told.
pub fn failed(failure: &Failure<'_>) {
    let (from, to) = failure.ports();
    let (from, to) = (Endpoint { ip: failure.from, port: from }, Endpoint { ip: failure.to, port: to });
    let ports = ports_of(failure.protocol == IPPROTO_UDPLITE);
    if let Some(sender) = ports.find(from, to, |claim| claim.hears(failure.by.index)) {
        sender.note_failure(failure, to);
    }
}

impl UdpSocket {
    fn note_failure(&self, failure: &Failure<'_>, to: Endpoint) {
        let options = *self.ip.lock();
        let connected = self.state.lock().remote.is_some();
        let reaction = failure.reaction(&options, self.ip.told().errors(to.ip.is_ipv4()), connected);
        if reaction == Reaction::Story {
            let payload = failure.body.get(UDP_HEADER..).unwrap_or(&[]);
            self.failures.add(&self.common, failure, to, payload);
        }
        if reaction != Reaction::Nothing {
            self.fail(failure.errno);
        }
    }

    /// Can a datagram of this length go to another machine?
    pub(super) fn check_out(
        &self,
        port: &Port,
        from: Endpoint,
        to: Endpoint,
        connected: bool,
        len: usize,
    ) -> Result<()> {
        if !interface::leads(from.ip, to.ip) {
            return Err(Errno::EINVAL);
        }
        if self.is_lite() {
            return Err(Errno::EOPNOTSUPP);
        }
        if len > if to.ip.is_ipv4() { MAX_OUT } else { MAX_OUT6 } {
            return Err(Errno::EMSGSIZE);
        }
        if !connected && port.is_broadcast(to.ip) && !self.common.is_on(Switches::BROADCAST) {
            return Err(Errno::EACCES);
        }
        Ok(())
    }

    /// Sends to another machine.
    pub(super) fn send_out(
        &self,
        port: &Port,
        mut from: Endpoint,
        to: Endpoint,
        hops: u8,
        data: Box<[u8]>,
    ) -> Result<usize> {
        let len = data.len();
        if !interface::is_local(from.ip) {
            // It is bound to where datagrams for many go, which nothing comes from.
            from.ip = interface::source_through(to.ip, port.index())?;
        }
        let bytes = len + OVERHEAD;
        self.on_its_way.fetch_add(bytes, Ordering::AcqRel);
        let charge = Charge::new(self.this.clone(), bytes);
        if hops == 0 || interface::stays_here(to.ip) {
            // Only those here who have joined its group have it.
            return Ok(len);
        }
        port.send(card::Outgoing { from, to, data, hops, is_packet: false, charge })?;
        events::datagram(to.ip.is_ipv4(), self.is_lite(), events::Datagram::Sent);
        Ok(len)
    }

    #[cfg(test)]
    pub fn hops_to(&self, ip: core::net::IpAddr) -> u8 {
        if ip.is_multicast() { self.hops_to_group(ip) } else { self.ip.header(ip.is_ipv4()).0 }
    }

    pub(super) fn is_full(&self) -> bool {
        self.on_its_way.load(Ordering::Acquire) > self.send_limit()
    }

    fn send_limit(&self) -> usize {
        self.common.send_buffer.load(Ordering::Relaxed) as usize
    }

    #[cfg(test)]
    pub fn on_its_way(&self) -> usize {
        self.on_its_way.load(Ordering::Relaxed)
    }
}

impl Sender for UdpSocket {
    /// A datagram has left.
    fn sent(&self, bytes: usize) {
        // Exactly one of those that leave finds the sum go through the limit, in whatever order others add to it.
        let before = self.on_its_way.fetch_sub(bytes, Ordering::AcqRel);
        let limit = self.send_limit();
        if before > limit && before - bytes <= limit {
            self.queue.wake(usize::MAX, WRITABLE.bits() | sigio::OUT);
        }
    }
}
