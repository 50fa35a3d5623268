//! One turn of a card's task.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use smoltcp::iface::SocketSet;

use super::configure::{self, Configure, Method};
use super::connections::Connections;
use super::datagram::{Lanes, OutgoingFrame, QUEUE};
use super::frame::{self, Kind, Pair};
use super::memberships::Memberships;
use super::port::Mail;
use super::recovery::{MOST_SINGLE, Said};
use super::wire::Wire;
use super::{Frame, Port};
use crate::exec::{Instant, is_budget_used};
use crate::net::inet::ip;
use crate::net::link;

/// Frames that are received, and that programs send, before others get their turn.
const FRAMES: usize = 64;

/// Frames that programs have written, datagrams, and connections.
const SENDERS: usize = 3;

/// When the next turn is due.
pub struct Next {
    /// At once: this one stopped to let others run.
    pub more: bool,
    pub at: Option<Instant>,
}

pub struct Engine {
    wire: Wire,
    configure: Configure,
    lanes: Lanes,
    /// What programs have written, as it is.
    frames: VecDeque<OutgoingFrame>,
    connections: Connections,
    memberships: Memberships,
    /// Which of those who send begins.
    first: usize,
    /// A neighbour has answered.
    retry: bool,
    /// For what belongs to no socket: the stack answers that there is none.
    nobody: SocketSet<'static>,
}

impl Engine {
    /// As the command line says.
    pub fn new(port: Arc<Port>, now: Instant) -> Engine {
        Engine::with(port, now, Method::of_cmdline())
    }

    pub fn with(port: Arc<Port>, now: Instant, method: Method) -> Engine {
        let mut engine = Engine {
            wire: Wire::new(port, now),
            configure: Configure::new(method),
            lanes: Lanes::new(),
            frames: VecDeque::new(),
            connections: Connections::default(),
            memberships: Memberships::default(),
            first: 0,
            retry: false,
            nobody: SocketSet::new(alloc::vec![]),
        };
        engine.configure.begin(&mut engine.wire);
        engine
    }

    pub fn turn(&mut self, now: Instant) -> Next {
        self.wire.now = now;
        self.wire.phy.starved = false;
        self.wire.singles = MOST_SINGLE;
        self.take_mail();
        let mut more = self.receive();
        self.connections.ring_timers(now);
        self.configure.turn(&mut self.wire);
        if core::mem::take(&mut self.retry) {
            self.lanes.retry();
            self.connections.retry();
        }
        more |= self.memberships.turn(&mut self.wire);
        more |= self.send();
        self.wire.refresh_gateway();
        // The card rings when it has room.
        let [lanes, memberships] = match self.wire.phy.starved {
            true => [None, None],
            false => [self.lanes.due(), self.memberships.due()],
        };
        let timers = [self.connections.due(), self.configure.due(), memberships, lanes];
        Next { more, at: timers.into_iter().flatten().min() }
    }

    #[cfg(test)]
    pub fn connections(&self) -> &Connections {
        &self.connections
    }

    #[cfg(test)]
    pub fn has_mail(&self) -> bool {
        self.wire.port.has_mail()
    }

    fn take_mail(&mut self) {
        let Mail { set_up, adopt, groups, connect, rung, datagrams, frames } = self.wire.port.take_mail();
        if groups {
            self.memberships.changed();
        }
        if let Some(wanted) = set_up {
            if wanted.downs != self.wire.downs {
                self.configure.set_up(&mut self.wire, false);
            }
            self.wire.downs = wanted.downs;
            self.configure.set_up(&mut self.wire, wanted.up);
        }
        if adopt {
            configure::adopt(&mut self.wire);
        }
        connect.into_iter().for_each(|stand_in| self.connections.connect(&mut self.wire, stand_in));
        rung.into_iter().for_each(|id| self.connections.enqueue(id));
        self.lanes.add(datagrams);
        self.add_frames(frames);
    }

    fn add_frames(&mut self, mut frames: VecDeque<OutgoingFrame>) {
        frames.truncate(QUEUE.saturating_sub(self.frames.len()));
        if self.frames.is_empty() {
            self.frames = frames;
        } else if self.frames.try_reserve(frames.len()).is_ok() {
            self.frames.append(&mut frames);
        }
    }

    /// Lets everybody send, as long as there is room in the card. Who has filled it goes last the next time, so that none of them, who
    /// may always have more, keeps the others out. True: there is more, and room for it.
    fn send(&mut self) -> bool {
        let mut more = false;
        let first = self.first;
        for turn in first..first + SENDERS {
            let sender = turn % SENDERS;
            more |= match sender {
                0 => self.send_frames(),
                1 => self.lanes.turn(&mut self.wire),
                _ => self.connections.turn(&mut self.wire),
            };
            if self.wire.phy.starved {
                // The card rings when it has room.
                self.first = (sender + 1) % SENDERS;
                return false;
            }
        }
        more
    }

    /// True: there are more, and there is room for them in the card.
    fn send_frames(&mut self) -> bool {
        if !self.wire.port.is_up() {
            self.frames.clear();
        }
        for _ in 0..FRAMES {
            let Some(frame) = self.frames.pop_front() else { return false };
            if !self.wire.phy.send(&frame) {
                self.frames.push_front(frame);
                return false;
            }
        }
        !self.frames.is_empty()
    }

    /// True if there may be more frames.
    fn receive(&mut self) -> bool {
        for _ in 0..FRAMES {
            if is_budget_used() {
                break;
            }
            let Some(mut frame) = self.wire.port.card().receive() else { return false };
            let counters = &self.wire.port.counters;
            counters.received.fetch_add(1, Ordering::Relaxed);
            counters.received_bytes.fetch_add(frame.bytes().len() as u64, Ordering::Relaxed);
            let watched = link::is_watched();
            if self.wire.port.is_up() && frame.settle(watched || !ip::is_empty()) {
                if watched {
                    link::came(&self.wire.port, frame.bytes());
                }
                self.sort(frame);
            } else {
                self.wire.port.card().recycle(frame.0);
            }
        }
        true
    }

    fn sort(&mut self, frame: Frame) {
        let mac = self.wire.port.card().mac();
        let settings = &self.wire.settings;
        let mut taken = !frame::is_sound(frame.bytes(), mac, settings);
        // In one piece: what comes in several is put together first.
        let is_known = taken || frame::packet(frame.bytes()).is_some_and(|packet| self.wire.hand_out(packet));
        match frame::classify(frame.bytes(), frame.is_good()) {
            _ if taken => {}
            Kind::Broken => taken = true,
            Kind::Tcp { pair, .. } if !settings.is_own(pair.0.ip) => taken = true,
            Kind::Tcp { pair, begins, resets, said } => {
                return self.segment(frame, pair, (begins, resets), said);
            }
            // The stack would ask such a server for more time, and dies of its address.
            Kind::Udp { pair: (local, remote), .. }
                if self.configure.wants(local.port) && remote.ip.is_unspecified() =>
            {
                taken = true;
            }
            Kind::Udp { pair: (local, remote), header, data } => {
                // Otherwise the stack answers that the port is unreachable, but for many (RFC 4443, 2.4), or it is the configuration's.
                taken = self.wire.hand_datagram(local, remote, header, data)
                    || local.ip.is_multicast() && !self.configure.wants(local.port);
                if !taken && !self.configure.wants(local.port) {
                    return self.wire.feed(frame, &mut self.nobody);
                }
            }
            Kind::Unreachable { to, quoted } if settings.is_own(to) => {
                self.wire.tell_failure(frame.bytes());
                self.connections.unreachable(&quoted);
                return self.wire.feed(frame, &mut self.nobody);
            }
            Kind::Unreachable { .. } | Kind::Icmp => {
                self.wire.tell_failure(frame.bytes());
                return self.wire.feed(frame, &mut self.nobody);
            }
            Kind::Neighbour { ip, mac, told } if settings.is_own(told) && settings.is_near(ip) => {
                self.retry |= self.wire.port.with_neighbours(|known| known.heard(ip, mac, self.wire.now));
            }
            Kind::Icmp6 { packet, mac } => {
                self.wire.tell_failure(frame.bytes());
                self.retry |= self.configure.hear(&mut self.wire, packet, mac);
            }
            // Else the stack would answer that nobody knows the protocol.
            Kind::Other => {
                let now = self.wire.now;
                taken =
                    is_known | frame::packet(frame.bytes()).is_some_and(|packet| self.memberships.hear(packet, now));
            }
            Kind::Neighbour { .. } => {}
        }
        if taken {
            self.wire.port.card().recycle(frame.0);
        } else {
            self.wire.feed(frame, self.configure.sockets());
            let wire = &self.wire;
            self.configure.take_datagrams(|(local, remote), header, data| {
                wire.hand_datagram(local, remote, header, data);
            });
            self.configure.take_messages(|packet| _ = wire.hand_out(packet));
            // Broken ones that came whole are among them: they have been sorted.
            while let Some(whole) = self.configure.take_segment(&self.wire) {
                match frame::classify(whole.bytes(), false) {
                    Kind::Tcp { pair, begins, resets, said } if self.wire.settings.is_own(pair.0.ip) => {
                        self.segment(whole, pair, (begins, resets), said);
                    }
                    _ => self.wire.port.card().recycle(whole.0),
                }
            }
        }
    }

    fn segment(&mut self, frame: Frame, pair: Pair, flags: (bool, bool), said: Said) {
        if let Some(frame) = self.connections.segment(&mut self.wire, frame, pair, flags, said) {
            self.wire.feed(frame, &mut self.nobody);
        }
    }
}
