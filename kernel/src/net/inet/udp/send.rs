//! Which way datagrams go, and those that several calls make.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;

use super::{Datagram, MAX, MAX6, PORTS, State, UdpSocket};
use crate::errno::{Errno, Result};
use crate::fs::TryError;
use crate::mm::IoBuf;
use crate::net::inet::Endpoint;
use crate::net::interface;
use crate::net::packet::copy_in;
use crate::net::socket::{Outgoing, Target};

/// A datagram that is not finished.
pub(super) struct Cork {
    from: Endpoint,
    to: Endpoint,
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
        let ip = self.source_of(&state, remote)?;
        let from = Endpoint { ip, port: state.local.port };
        let shut = state.send_shut;
        drop(state);
        if len > largest(ip) {
            return Err(Errno::EMSGSIZE.into());
        }
        self.check_sendable(shut)?;
        if let Some(port) = interface::port_for(remote.ip)? {
            self.check_out(&port, from, remote, len)?;
            if self.is_full() {
                return Err(TryError::WouldBlock);
            }
            return Ok(self.send_out(&port, from, remote, copy_in(buf)?)?);
        }
        self.deliver_here(from, remote, copy_in(buf)?);
        Ok(len)
    }

    /// A pending error goes first.
    #[inline(always)]
    fn check_sendable(&self, shut: bool) -> Result<()> {
        match self.common.take_error() {
            Some(errno) => Err(errno),
            None if shut => Err(Errno::EPIPE),
            None => Ok(()),
        }
    }

    #[inline(always)]
    fn source_of(&self, state: &State, remote: Endpoint) -> Result<IpAddr> {
        let source = self.source_for(remote)?;
        let ip = if state.local.is_any() { source } else { state.local.ip };
        if ip.is_ipv4() == remote.ip.is_ipv4() { Ok(ip) } else { Err(Errno::ENETUNREACH) }
    }

    /// What calls with MSG_MORE send goes as one datagram with what the first call without it sends, to where the first of all said.
    /// An error loses all of it (udp_sendmsg of Linux).
    /// Whether there is room is asked only before anything is taken from `buf`: what waits for it begins again with all of it.
    #[cold]
    #[inline(never)]
    fn send_piece(&self, buf: &mut IoBuf<'_>, message: &Outgoing) -> Result<usize, TryError> {
        if self.is_full() {
            return Err(TryError::WouldBlock);
        }
        let piece = copy_in(buf);
        let mut state = self.state.lock();
        let mut cork = match state.cork.take() {
            Some(cork) => cork,
            None => {
                let to = destination(&state, message)?;
                let from = Endpoint { ip: self.source_of(&state, to)?, port: state.local.port };
                self.check_sendable(state.send_shut)?;
                Box::new(Cork { from, to, data: Vec::new() })
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
            return Ok(piece.len());
        }
        drop(state);
        let Cork { from, to, data } = *cork;
        if let Some(port) = interface::port_for(to.ip)? {
            self.check_out(&port, from, to, data.len())?;
            self.send_out(&port, from, to, data.into_boxed_slice())?;
        } else {
            self.deliver_here(from, to, data.into_boxed_slice());
        }
        Ok(piece.len())
    }

    #[inline(always)]
    fn deliver_here(&self, from: Endpoint, to: Endpoint, data: Box<[u8]>) {
        match PORTS.find(to, from, |_| true) {
            Some(receiver) => receiver.deliver(Datagram { from, data }),
            None => self.note_refusal(to),
        }
    }

    /// Nobody is there: a socket that is connected to there is told.
    #[cold]
    fn note_refusal(&self, to: Endpoint) {
        if self.state.lock().remote == Some(to) {
            self.refused();
        }
    }
}

#[inline(always)]
fn destination(state: &State, message: &Outgoing) -> Result<Endpoint> {
    let remote = match (&message.target, state.remote) {
        (Target::Inet(remote), _) => *remote,
        (_, Some(remote)) => remote,
        _ => return Err(Errno::EDESTADDRREQ),
    };
    if remote.port == 0 { Err(Errno::EINVAL) } else { Ok(remote) }
}
