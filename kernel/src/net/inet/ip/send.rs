//! Packets on their way out.

use alloc::boxed::Box;
use core::net::IpAddr;
use core::sync::atomic::Ordering;

use super::packet::{self, Arrived, ECHO, ECHO6, HEADER4, HEADER6, Head, LONGEST};
use super::{IpSocket, Kind, OVERHEAD, State, WRITABLE, arrive};
use crate::drivers::random;
use crate::errno::{Errno, Result};
use crate::fs::{TryError, sigio};
use crate::mm::IoBuf;
use crate::net::card::{self, Charge, Port, Sender};
use crate::net::inet::{Endpoint, Sending};
use crate::net::interface;
use crate::net::packet::copy_in;
use crate::net::socket::{Outgoing, Target};

/// What the stack sends to other machines: as many fragments as its buffer holds; those of IPv6 are not made.
const MAX_OUT: usize = 32 << 10;
/// The head of a message of ICMP.
const MESSAGE_HEAD: usize = 8;

impl IpSocket {
    pub(super) fn send_packet(&self, buf: &mut IoBuf<'_>, message: &Outgoing) -> Result<usize, TryError> {
        let len = buf.remaining();
        let mut state = self.state.lock();
        self.take_ident(&mut state)?;
        if len > LONGEST {
            return Err(Errno::EMSGSIZE.into());
        }
        if self.kind == Kind::Echo && len < MESSAGE_HEAD {
            return Err(Errno::EINVAL.into());
        }
        // Packets are not put together from pieces.
        if message.more {
            return Err(Errno::EOPNOTSUPP.into());
        }
        // Before anything is taken from `buf`: what waits for room begins again with all of it.
        if self.is_full() {
            return Err(TryError::WouldBlock);
        }
        drop(state);
        let data = copy_in(buf)?;
        self.send_bytes(data, message)?;
        Ok(len)
    }

    fn send_bytes(&self, data: Box<[u8]>, message: &Outgoing) -> Result<()> {
        if self.kind == Kind::Echo && data.first_chunk() != Some(&question(self.is_v4())) {
            return Err(Errno::EINVAL);
        }
        let state = self.state.lock();
        let to = destination(&state, message)?;
        let (local, shut) = (state.local, state.send_shut);
        drop(state);
        let device = if message.sending.index != 0 { message.sending.index } else { self.common.device() };
        if to.ip.is_multicast() {
            return self.send_to_group(data, (to, local, shut), device, message);
        }
        let source = interface::source_through(to.ip, device)?;
        message.sending.check(to.ip)?;
        let local = Endpoint { ip: message.sending.source.unwrap_or(local.ip), ..local };
        // Nothing comes from where packets for many go.
        let from = if interface::is_local(local.ip) { local.ip } else { source };
        if !interface::leads(from, to.ip) {
            return Err(Errno::EINVAL);
        }
        self.common.check_broadcast(to.ip)?;
        self.check_sendable(shut)?;
        self.check_size(to, self.ip.excess(to.ip, data.len())?)?;
        let packet = self.make(from, to.ip, local.port, message.sending, data)?;
        match interface::port_through(to.ip, device)? {
            Some(port) => self.send_out(&port, from, to.ip, packet),
            None => {
                arrive::deliver_here(&packet, interface::came_through(device));
                Ok(())
            }
        }
    }

    /// A pending error goes first.
    fn check_sendable(&self, shut: bool) -> Result<()> {
        match self.common.take_error() {
            Some(errno) => Err(errno),
            None if shut => Err(Errno::EPIPE),
            None => Ok(()),
        }
    }

    /// To a group, and to those here who have joined it where it goes out.
    fn send_to_group(
        &self,
        data: Box<[u8]>,
        (to, local, shut): (Endpoint, Endpoint, bool),
        device: i32,
        message: &Outgoing,
    ) -> Result<()> {
        let bound = Some(local.ip).filter(|ip| interface::is_local(*ip));
        let way = self.groups.lock().way(to.ip, device, message.sending.source.or(bound))?;
        self.check_sendable(shut)?;
        self.check_size(to, self.ip.excess_within(way.mtu(), to.ip, data.len()))?;
        let packet = self.make(way.source, to.ip, local.port, message.sending, data)?;
        let Some(port) = &way.port else {
            arrive::deliver_here(&packet, way.index());
            return Ok(());
        };
        // Without hops it stays in the machine.
        let leaves = Arrived::parse(&packet, 0).is_some_and(|packet| packet.hops > 0) && !interface::stays_here(to.ip);
        if leaves {
            self.check_out(to.ip, &packet)?;
        }
        if self.groups.lock().loops(to.ip.is_ipv4()) {
            arrive::take_in(&packet, way.index());
        }
        if leaves { self.send_out(port, way.source, to.ip, packet) } else { Ok(()) }
    }

    /// EMSGSIZE if it exceeds what can be sent, of which the error queue tells more: it would be too long a packet, or it must not be cut
    /// into fragments.
    fn check_size(&self, to: Endpoint, excess: Option<u32>) -> Result<()> {
        let written = self.kind == Kind::Raw && self.raw_options.lock().with_header;
        let Some(size) = excess.filter(|_| !written) else { return Ok(()) };
        if self.ip.told().errors(self.is_v4()) {
            let port = self.state.lock().remote.filter(|_| self.is_v4()).map_or(0, |remote| remote.port);
            self.failures.add_local(&self.common, Endpoint { port, ..to }, size);
            self.queue.wake(usize::MAX, sigio::QUIET | sigio::ERR);
        }
        Err(Errno::EMSGSIZE)
    }

    /// The whole packet.
    fn make(&self, from: IpAddr, to: IpAddr, ident: u16, sending: Sending, data: Box<[u8]>) -> Result<Box<[u8]>> {
        let packet = self.with_head(from, to, ident, sending, data)?;
        // A header that was written says where to, too, and the way is looked for by that.
        let same = Arrived::parse(&packet, 0).is_some_and(|packet| packet.to == to);
        if same { Ok(packet) } else { Err(Errno::EOPNOTSUPP) }
    }

    fn with_head(
        &self,
        from: IpAddr,
        to: IpAddr,
        ident: u16,
        sending: Sending,
        mut data: Box<[u8]>,
    ) -> Result<Box<[u8]>> {
        let options = *self.raw_options.lock();
        if self.kind == Kind::Raw && options.with_header {
            return match self.is_v4() {
                true => with_header(from, to, data),
                false if data.len() < HEADER6 => Err(Errno::EINVAL),
                false => Ok(data),
            };
        }
        let (hops, class) = self.ip.header(to.is_ipv4());
        let hops = if to.is_multicast() { self.groups.lock().hops(to.is_ipv4()) } else { hops };
        let (hops, class) = (sending.hops.unwrap_or(hops), sending.class.unwrap_or(class));
        let protocol = self.common.protocol;
        let sum_at = match self.kind {
            Kind::Echo => {
                packet::put(&mut data, 4, ident);
                Some(2)
            }
            Kind::Raw if to.is_ipv6() => options.checksum.map(usize::from),
            Kind::Raw => None,
        };
        if let Some(at) = sum_at {
            // rawv6_push_pending_frames of Linux.
            if at + 2 > data.len() {
                return Err(Errno::EINVAL);
            }
            packet::put(&mut data, at, 0);
            let sum = match to.is_ipv4() {
                true => packet::checksum(&[&data]),
                false => packet::pseudo_checksum(from, to, protocol, &data),
            };
            packet::put(&mut data, at, if sum == 0 && to.is_ipv6() { 0xffff } else { sum });
        }
        let head = Head { from, to, protocol, hops, class, ident: random::u64() as u16 };
        head.before(&data)
    }

    /// Can the stack send it?
    fn check_out(&self, to: IpAddr, data: &[u8]) -> Result<()> {
        let written = self.raw_options.lock().with_header;
        let most = if to.is_ipv4() && !written { MAX_OUT } else { card::MTU };
        if data.len() > most {
            return Err(Errno::EMSGSIZE);
        }
        // The stack would send it without its options.
        if written && to.is_ipv4() && data.first().is_none_or(|first| first & 15 != 5) {
            return Err(Errno::EOPNOTSUPP);
        }
        Ok(())
    }

    /// Sends to another machine.
    fn send_out(&self, port: &Port, from: IpAddr, to: IpAddr, data: Box<[u8]>) -> Result<()> {
        self.check_out(to, &data)?;
        let bytes = data.len() + OVERHEAD;
        self.on_its_way.fetch_add(bytes, Ordering::AcqRel);
        let charge = Charge::new(self.this.clone(), bytes);
        let end = |ip| Endpoint { ip, port: 0 };
        port.send(card::Outgoing { from: end(from), to: end(to), data, hops: 0, is_packet: true, charge })
    }

    #[cfg(test)]
    pub fn on_its_way(&self) -> usize {
        self.on_its_way.load(Ordering::Relaxed)
    }

    pub(super) fn is_full(&self) -> bool {
        self.on_its_way.load(Ordering::Acquire) > self.send_limit()
    }

    fn send_limit(&self) -> usize {
        self.common.send_buffer.load(Ordering::Relaxed) as usize
    }
}

impl Sender for IpSocket {
    fn sent(&self, bytes: usize) {
        // Exactly one of those that leave finds the sum go through the limit, in whatever order others add to it.
        let before = self.on_its_way.fetch_sub(bytes, Ordering::AcqRel);
        let limit = self.send_limit();
        if before > limit && before - bytes <= limit {
            self.queue.wake(usize::MAX, WRITABLE.bits() | sigio::OUT);
        }
    }
}

/// Type and code of a request for an echo, which is all that may be asked.
pub(super) fn question(v4: bool) -> [u8; 2] {
    [if v4 { ECHO } else { ECHO6 }, 0]
}

fn destination(state: &State, message: &Outgoing) -> Result<Endpoint> {
    match (&message.target, state.remote) {
        (Target::Inet(remote) | Target::Scoped(remote, _), _) => Ok(*remote),
        (_, Some(remote)) => Ok(remote),
        _ => Err(Errno::EDESTADDRREQ),
    }
}

/// IP_HDRINCL: the program has written the header; length and checksum are the kernel's, and so are a source and an identification
/// that are 0 (raw(7)).
fn with_header(from: IpAddr, to: IpAddr, mut data: Box<[u8]>) -> Result<Box<[u8]>> {
    let (IpAddr::V4(from), IpAddr::V4(_)) = (from, to) else { return Err(Errno::EINVAL) };
    let header = data.first_chunk::<HEADER4>().ok_or(Errno::EINVAL)?;
    let own = usize::from(header[0] & 15) * 4;
    let (no_ident, no_source) = (header[4..6] == [0; 2], header[12..16] == [0; 4]);
    if own > data.len() || own < HEADER4 {
        return Err(Errno::EINVAL);
    }
    let len = data.len() as u16;
    packet::put(&mut data, 2, len);
    if no_ident {
        packet::put(&mut data, 4, random::u64() as u16 | 1);
    }
    if no_source {
        data.iter_mut().skip(12).zip(from.octets()).for_each(|(to, from)| *to = from);
    }
    packet::put(&mut data, 10, 0);
    let sum = packet::checksum(&[data.get(..own).unwrap_or(&[])]);
    packet::put(&mut data, 10, sum);
    Ok(data)
}

const _: () = assert!(card::MTU > HEADER6 && MAX_OUT > HEADER4);
