//! Which way datagrams go, and those that several calls make.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::Ordering;

use super::groups::deliver_to_all;
use super::{Datagram, MAX, MAX6, State, UdpSocket, packet};
use crate::errno::{Errno, Result};
use crate::fs::{TryError, sigio};
use crate::mm::IoBuf;
use crate::net::card::Port;
use crate::net::inet::failures::datagram_refused;
use crate::net::inet::groups::Way;
use crate::net::inet::options::{SOL_IP, SOL_IPV6};
use crate::net::inet::{AF_INET6, Endpoint, IPPROTO_UDP, events};
use crate::net::interface;
use crate::net::link;
use crate::net::packet::{boxed, copy_in};
use crate::net::socket::{Outgoing, Switches, Target};

const SOL_UDP: u32 = IPPROTO_UDP as u32;
const UDP_HEADER: usize = 8;
/// A datagram that is no longer needs no other look at its size: what is left of 1,280 bytes, which any network takes.
const LEAST_MTU: usize = 1232;

/// A datagram that is not finished.
pub(super) struct Cork {
    from: Endpoint,
    to: Endpoint,
    /// Hops and class.
    header: (u8, u8),
    device: i32,
    connected: bool,
    data: Vec<u8>,
}

fn largest(ip: IpAddr) -> usize {
    if ip.is_ipv4() { MAX } else { MAX6 }
}

impl UdpSocket {
    pub(super) fn send_datagram(&self, buf: &mut IoBuf<'_>, message: &Outgoing) -> Result<usize, TryError> {
        let len = buf.remaining();
        let mut state = self.state.lock();
        self.take_port(&mut state)?;
        if len > usize::from(u16::MAX) {
            return Err(Errno::EMSGSIZE.into());
        }
        if message.more || state.cork.is_some() {
            drop(state);
            return self.send_piece(buf, message);
        }
        let remote = destination(&state, message)?;
        if remote.ip.is_multicast() {
            return self.send_to_group(buf, state, remote, message);
        }
        let ip = self.source_of(&state, remote, message)?;
        let from = Endpoint { ip, port: state.local.port };
        let shut = state.send_shut;
        drop(state);
        if len > LEAST_MTU {
            self.check_fits(remote, self.ip.excess(remote.ip, UDP_HEADER + len)?)?;
        }
        self.check_sendable(shut)?;
        let header = self.header_for(remote, message);
        let (device, connected) = (self.device_for(message), is_connected(message));
        if let Some(port) = interface::port_through(remote.ip, device)? {
            self.check_out(&port, from, remote, connected, len)?;
            if self.is_full() {
                return Err(TryError::WouldBlock);
            }
            let data = copy_in(buf)?;
            self.keep_broadcast(&port, from, remote, header, &data);
            return Ok(self.send_out(&port, from, remote, header.0, data)?);
        }
        self.deliver_here(from, remote, header, interface::came_through(device), connected, copy_in(buf)?)?;
        Ok(len)
    }

    /// The interface that the message or the socket asks for; 0: none.
    #[inline(always)]
    pub(super) fn device_for(&self, message: &Outgoing) -> i32 {
        if message.sending.index != 0 { message.sending.index } else { self.common.device() }
    }

    /// Hops and class of the header.
    #[inline(always)]
    pub(super) fn header_for(&self, to: Endpoint, message: &Outgoing) -> (u8, u8) {
        let (hops, class) = self.ip.header(to.ip.is_ipv4());
        let hops = if to.ip.is_multicast() { self.hops_to_group(to.ip) } else { hops };
        (message.sending.hops.unwrap_or(hops), message.sending.class.unwrap_or(class))
    }

    /// EMSGSIZE if it exceeds what can be sent (see [`Shared::excess`](crate::net::inet::shared::Shared::excess)), of which the error queue
    /// tells more: it would be too long a packet, or it must not be cut into fragments.
    #[cold]
    pub(super) fn check_fits(&self, to: Endpoint, excess: Option<u32>) -> Result<()> {
        let Some(size) = excess else { return Ok(()) };
        let v4 = to.ip.is_ipv4();
        if self.ip.told().errors(v4) {
            // Of IPv4 the port is that of the connection (ip_local_error and ipv6_local_error of Linux).
            let port = if v4 { self.state.lock().remote.map_or(0, |remote| remote.port) } else { to.port };
            self.failures.add_local(&self.common, Endpoint { port, ..to }, size);
            self.queue.wake(usize::MAX, sigio::QUIET | sigio::ERR);
        }
        Err(Errno::EMSGSIZE)
    }

    /// What goes to IPv4 has control messages of IPv4, whatever the socket.
    pub(super) fn take_control(&self, message: &mut Outgoing, level: u32, kind: u32, data: &[u8]) -> Result<()> {
        if level == SOL_UDP {
            return Err(Errno::EINVAL);
        }
        if level != SOL_IP && level != SOL_IPV6 {
            return Ok(());
        }
        let to = destination(&self.state.lock(), message)?;
        match to.ip.is_ipv4() {
            true => message.sending.add4(level, kind, data, self.common.family == AF_INET6),
            false => message.sending.add6(level, kind, data),
        }
    }

    /// A pending error goes first.
    #[inline(always)]
    pub(super) fn check_sendable(&self, shut: bool) -> Result<()> {
        match self.common.take_error() {
            Some(errno) => Err(errno),
            None if shut => Err(Errno::EPIPE),
            None => Ok(()),
        }
    }

    #[inline(always)]
    fn source_of(&self, state: &State, remote: Endpoint, message: &Outgoing) -> Result<IpAddr> {
        let source = self.source_for(remote, self.device_for(message))?;
        message.sending.check(remote.ip)?;
        let own = if state.local.is_any() { source } else { state.local.ip };
        let ip = message.sending.source.unwrap_or(own);
        if ip.is_ipv4() == remote.ip.is_ipv4() { Ok(ip) } else { Err(Errno::ENETUNREACH) }
    }

    /// What calls with MSG_MORE send goes as one datagram with what the first call without it sends, to where the first of all said.
    /// An error loses all of it (udp_sendmsg of Linux); not what must be made present first: see [`Socket::lose_unfinished`](crate::net::socket::Socket::lose_unfinished).
    /// Whether there is room is asked only before anything is taken from `buf`: what waits for it begins again with all of it.
    #[cold]
    #[inline(never)]
    fn send_piece(&self, buf: &mut IoBuf<'_>, message: &Outgoing) -> Result<usize, TryError> {
        if self.is_full() {
            return Err(TryError::WouldBlock);
        }
        let piece = copy_in(buf);
        let mut state = self.state.lock();
        if state.cork.is_some()
            && let Err(TryError::Fault(fault)) = piece
        {
            return Err(fault.into());
        }
        let mut cork = match self.take_cork(&mut state) {
            Some(cork) => cork,
            None => {
                let to = destination(&state, message)?;
                let (ip, device) = match to.ip.is_multicast() {
                    true => self.way_to_group(&state, to.ip, message).map(|way| (way.source, way.index()))?,
                    false => (self.source_of(&state, to, message)?, self.device_for(message)),
                };
                let from = Endpoint { ip, port: state.local.port };
                self.check_sendable(state.send_shut)?;
                let header = self.header_for(to, message);
                Box::new(Cork { from, to, header, device, connected: is_connected(message), data: Vec::new() })
            }
        };
        let piece = piece?;
        if cork.data.len() + piece.len() > largest(cork.to.ip) {
            return Err(Errno::EMSGSIZE.into());
        }
        cork.data.try_reserve(piece.len()).map_err(|_| Errno::ENOBUFS)?;
        cork.data.extend_from_slice(&piece);
        if message.more {
            state.cork = Some(cork);
            self.is_corked.store(true, Ordering::Relaxed);
            return Ok(piece.len());
        }
        drop(state);
        let Cork { from, to, header, device, connected, data } = *cork;
        let data = boxed(data)?;
        if to.ip.is_multicast() {
            self.send_along(&Way::to_group(to.ip, device, Some(from.ip))?, from.port, to, header, data)?;
            return Ok(piece.len());
        }
        if let Some(port) = interface::port_through(to.ip, device)? {
            self.check_out(&port, from, to, connected, data.len())?;
            self.keep_broadcast(&port, from, to, header, &data);
            self.send_out(&port, from, to, header.0, data)?;
        } else {
            self.deliver_here(from, to, header, interface::came_through(device), connected, data)?;
        }
        Ok(piece.len())
    }

    /// What calls with MSG_MORE have left is not sent.
    pub(super) fn lose_cork(&self) {
        let cork = self.take_cork(&mut self.state.lock());
        drop(cork);
    }

    fn take_cork(&self, state: &mut State) -> Option<Box<Cork>> {
        self.is_corked.store(false, Ordering::Relaxed);
        state.cork.take()
    }

    /// What goes to everybody on a network is for those here, too.
    #[inline(always)]
    fn keep_broadcast(&self, port: &Port, from: Endpoint, to: Endpoint, header: (u8, u8), data: &[u8]) {
        // The last bits of the address of a network's broadcasts are set, two at least.
        if matches!(to.ip, IpAddr::V4(ip) if ip.octets()[3] & 3 == 3) && port.is_broadcast(to.ip) {
            deliver_to_all(from, to, header, self.covers(data.len()), port.index(), data);
        }
    }

    #[inline(always)]
    fn deliver_here(
        &self,
        from: Endpoint,
        to: Endpoint,
        header: (u8, u8),
        index: i32,
        connected: bool,
        data: Box<[u8]>,
    ) -> Result<()> {
        let covered = self.covers(data.len());
        // Of those of networks the last byte is always that.
        let for_all = matches!(to.ip, IpAddr::V4(ip) if ip.octets()[3] == 255) && interface::is_group(to.ip);
        if for_all && !connected && !self.common.is_on(Switches::BROADCAST) {
            return Err(Errno::EACCES);
        }
        if link::is_watched() {
            packet::show(from, to, header, covered, &data);
        }
        if for_all {
            events::datagram(true, covered.is_some(), events::Datagram::Sent);
            deliver_to_all(from, to, header, covered, index, &data);
            return Ok(());
        }
        events::datagram(to.ip.is_ipv4(), covered.is_some(), events::Datagram::Sent);
        match self.ports().find(to, from, |claim| claim.hears(index)) {
            Some(receiver) => receiver.deliver(Datagram::new(from, to, index, header, covered, data)),
            None => {
                events::datagram(to.ip.is_ipv4(), covered.is_some(), events::Datagram::NoPort);
                datagram_refused(from, to, header, covered, &data);
            }
        }
        Ok(())
    }
}

/// Does it go where connect(2) has said? That has been allowed then.
#[inline(always)]
fn is_connected(message: &Outgoing) -> bool {
    !matches!(message.target, Target::Inet(_))
}

#[inline(always)]
fn destination(state: &State, message: &Outgoing) -> Result<Endpoint> {
    let remote = match (&message.target, state.remote) {
        (Target::Inet(remote) | Target::Scoped(remote, _), _) => *remote,
        (_, Some(remote)) => remote,
        _ => return Err(Errno::EDESTADDRREQ),
    };
    if remote.port == 0 { Err(Errno::EINVAL) } else { Ok(remote) }
}
