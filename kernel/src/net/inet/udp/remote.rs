//! Datagrams to and from other machines: the task of a card sends them, and calls when one has come.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::{Datagram, OVERHEAD, PORTS, UdpSocket, WRITABLE};
use crate::errno::Errno;
use crate::fs::{TryError, sigio};
use crate::mm::{IoBuf, frames};
use crate::net::card::{self, Charge, Port};
use crate::net::inet::Endpoint;
use crate::net::packet::copy_in;
use crate::net::socket::Switches;

/// What the stack sends to other machines: as many fragments as its buffer holds; those of IPv6 are not made.
const MAX_OUT: usize = (32 << 10) - 28;
const MAX_OUT6: usize = card::MTU - 48;

/// A datagram has come from another machine. False if nobody is there to receive it.
pub fn arrive(local: Endpoint, remote: Endpoint, data: &[u8]) -> bool {
    let Some(receiver) = PORTS.find(local, remote, |_| true) else { return false };
    let mut copy = Vec::new();
    // What finds no memory is lost, as what finds no room.
    if frames::has_spare() && copy.try_reserve_exact(data.len()).is_ok() {
        copy.extend_from_slice(data);
        receiver.deliver(Datagram { from: remote, data: copy.into_boxed_slice() });
    }
    true
}

/// Somebody on the way says that a datagram has not arrived. Only a connected socket is told, of what will not change.
pub fn unreachable(local: Endpoint, remote: Endpoint, errno: Errno) {
    let fatal = matches!(errno, Errno::ECONNREFUSED | Errno::ENOPROTOOPT);
    if let Some(sender) = PORTS.find(local, remote, |claim| claim.remote == Some(remote)).filter(|_| fatal) {
        sender.fail(errno);
    }
}

impl UdpSocket {
    /// Sends to another machine, as long as the send buffer has room for what is on its way to the card.
    pub(super) fn send_out(
        &self,
        port: &Port,
        from: Endpoint,
        to: Endpoint,
        buf: &mut IoBuf<'_>,
    ) -> Result<usize, TryError> {
        let len = buf.remaining();
        if len > if to.ip.is_ipv4() { MAX_OUT } else { MAX_OUT6 } {
            return Err(Errno::EMSGSIZE.into());
        }
        if port.is_broadcast(to.ip) && !self.common.is_on(Switches::BROADCAST) {
            return Err(Errno::EACCES.into());
        }
        if self.is_full() {
            return Err(TryError::WouldBlock);
        }
        let data = copy_in(buf)?;
        let bytes = len + OVERHEAD;
        self.on_its_way.fetch_add(bytes, Ordering::AcqRel);
        let charge = Charge::new(self.this.clone(), bytes);
        let hops = self.ip.lock().hops(to.ip.is_ipv4());
        port.send(card::Outgoing { from, to, data, hops, charge })?;
        Ok(len)
    }

    pub(super) fn is_full(&self) -> bool {
        self.on_its_way.load(Ordering::Acquire) > self.common.send_buffer.load(Ordering::Relaxed) as usize
    }

    #[cfg(test)]
    pub fn on_its_way(&self) -> usize {
        self.on_its_way.load(Ordering::Relaxed)
    }

    /// A datagram has left.
    pub fn sent(&self, bytes: usize) {
        let was_full = self.is_full();
        self.on_its_way.fetch_sub(bytes, Ordering::AcqRel);
        if was_full && !self.is_full() {
            self.queue.wake(usize::MAX, WRITABLE.bits() | sigio::OUT);
        }
    }
}
