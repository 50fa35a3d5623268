//! How long a connection waits: for its beginning, for acknowledgements, for its end, and for a silent other machine.

use core::time::Duration;

use smoltcp::socket::tcp::{Socket, State};

use super::super::wire::Wire;
use super::{Stream, stack_time};
use crate::errno::Errno;
use crate::exec::Instant;
use crate::net::counted::{Counted, ORPHANS};
use crate::net::inet::tcp::{KeepAlive, PeerOptions};

/// How long a SYN is repeated (net.ipv4.tcp_syn_retries), and bytes that are not acknowledged (tcp_retries2).
const SYN_TIME: Duration = Duration::from_secs(127);
pub(super) const SEND_TIME: Duration = Duration::from_secs(924);
/// The same for a connection that no program has any more, whatever else the other side says, and how long that waits for its
/// FIN (tcp_fin_timeout).
const ORPHAN_TIME: Duration = Duration::from_secs(100);
const FIN_TIME: Duration = Duration::from_secs(60);
/// How long a neighbour is asked for.
const NEIGHBOUR_TIME: Duration = Duration::from_secs(3);

impl Stream {
    pub(super) fn watch_the_clock(&mut self, wire: &Wire, options: Option<&PeerOptions>) {
        // Neither in TIME-WAIT nor before it is made is it one to Linux.
        let orphan = options.is_none() && !self.is_past() && !self.is_half_open();
        let end = matches!(self.state(), State::FinWait1 | State::Closing | State::LastAck);
        let queued = if orphan { self.stand_in.queued() } else { 0 };
        let left = queued + self.socket().send_queue() + usize::from(end);
        if (orphan, left) != (self.orphan.is_some(), self.left) {
            (self.left, self.since) = (left, wire.now);
            self.orphan = orphan.then(|| self.orphan.take().unwrap_or_else(|| Counted::new(&ORPHANS)));
        }
        self.patience = options.and_then(|options| options.user_timeout);
        let waits = self.socket().send_queue();
        let acknowledged = self.given.wrapping_sub(waits as u64);
        if waits == 0 || acknowledged != self.acknowledged {
            (self.acknowledged, self.stalled) = (acknowledged, wire.now);
        }
        if let Some((at, errno)) = self.deadline(wire)
            && at <= wire.now
        {
            self.failure = Some(errno);
        }
    }

    /// When it is given up unless something happens, and what the program is told then. For bytes that a program waits to be
    /// acknowledged the stack has its own clock, which an answer to a probe of a closed window sets back: for ever, unless the program
    /// has said how long it waits (RFC 1122, 4.2.2.17; tcp_probe_timer of Linux).
    pub(super) fn deadline(&self, wire: &Wire) -> Option<(Instant, Errno)> {
        let (since, time) = match self.state() {
            State::SynSent => {
                let hop = wire.settings.next_hop(self.pair.1.ip);
                let asked = hop.and_then(|hop| wire.port.with_neighbours(|known| known.asked_since(hop)));
                let vain = asked.map(|asked| asked.max(self.begun).saturating_add(NEIGHBOUR_TIME));
                let end = self.begun.saturating_add(SYN_TIME);
                return Some(match vain {
                    Some(vain) if vain < end => (vain, Errno::EHOSTUNREACH),
                    _ => (end, Errno::ETIMEDOUT),
                });
            }
            State::SynReceived => (self.begun, FIN_TIME),
            State::Closed | State::Listen | State::TimeWait => return None,
            State::FinWait2 if self.orphan.is_some() => (self.since, self.stand_in.end_time()),
            _ if self.orphan.is_some() => (self.since, ORPHAN_TIME),
            State::FinWait1 | State::Closing | State::LastAck if self.left == 1 => {
                (self.since, self.patience.unwrap_or(SEND_TIME))
            }
            _ if self.sockets.get::<Socket>(self.handle).send_queue() > 0 => (self.stalled, self.patience?),
            _ => return None,
        };
        Some((since.saturating_add(time), Errno::ETIMEDOUT))
    }

    /// SO_KEEPALIVE (tcp_keepalive_timer of Linux): asks after a silence, and gives up when so many have not been answered. The
    /// stack sends the first probe at once when it is told of them, and goes on until it is told to stop.
    pub(super) fn probe(&mut self, now: Instant, times: Option<KeepAlive>) {
        let waits = matches!(self.state(), State::Established | State::CloseWait | State::FinWait2);
        let Some(times) = times.filter(|_| waits && self.socket().send_queue() == 0) else { return self.rest() };
        let next = match self.next_probe {
            Some(next) if self.probes > 0 => next,
            _ => self.heard.saturating_add(times.idle),
        };
        self.next_probe = Some(next);
        if now < next {
            return;
        }
        if self.probes >= times.count {
            self.failure = Some(Errno::ETIMEDOUT);
        } else {
            self.probes += 1;
            self.next_probe = Some(now.saturating_add(times.interval));
            self.socket().set_keep_alive(stack_time(times.interval));
        }
    }

    /// Nobody asks.
    pub(super) fn rest(&mut self) {
        if self.next_probe.take().is_some() {
            self.probes = 0;
            self.socket().set_keep_alive(None);
        }
    }
}
