//! One turn of a card's task.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use core::time::Duration;

use smoltcp::iface::{Config, Interface, PollResult, SocketSet};
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpProtocol};

use super::configure::{Configure, Method};
use super::datagram::Lanes;
use super::frame::{self, Kind, Pair};
use super::phy::Phy;
use super::port::{Call, Mail};
use super::stream::{Origin, Stream};
use super::{Frame, Port};
use crate::drivers::random;
use crate::errno::Errno;
use crate::exec::Instant;
use crate::net::inet::tcp::{self, TcpSocket};
use crate::net::inet::udp;

/// Frames that are received, and connections that are served, before others get their turn.
const FRAMES: usize = 64;
const SERVED: usize = 64;
/// Segments of one connection before others get their turn.
const SEGMENTS: usize = 32;
/// Segments before what has become free in the stack's buffer is filled up.
const BURST: usize = 8;
const SOONEST: Duration = Duration::from_millis(1);
/// Connections with other machines, and those of them that others have begun and not finished.
const MOST: usize = 4096;
const MOST_HALF_OPEN: usize = 128;

/// When the next turn is due.
pub struct Next {
    /// At once: this one stopped to let others run.
    pub more: bool,
    pub at: Option<Instant>,
}

/// The stack with its device, which every connection is lent.
pub struct Wire {
    pub port: Arc<Port>,
    pub iface: Box<Interface>,
    pub phy: Phy,
    pub now: Instant,
}

pub struct Engine {
    wire: Wire,
    configure: Configure,
    lanes: Lanes,
    streams: BTreeMap<u64, Stream>,
    by_pair: BTreeMap<PairKey, u64>,
    half_open: usize,
    next_id: u64,
    /// Streams with work, and those that found no room in the card.
    ready: VecDeque<u64>,
    starved: VecDeque<u64>,
    timers: BTreeSet<(Instant, u64)>,
    /// For what belongs to no socket: the stack answers that there is none.
    nobody: SocketSet<'static>,
}

type PairKey = (core::net::IpAddr, u16, core::net::IpAddr, u16);

fn key((local, remote): Pair) -> PairKey {
    (local.ip, local.port, remote.ip, remote.port)
}

impl Wire {
    pub fn stack_now(&self) -> StackInstant {
        StackInstant::from_micros((self.now.as_nanos() / 1000) as i64)
    }

    /// Hands a frame to the stack, for these sockets.
    fn feed(&mut self, frame: Frame, sockets: &mut SocketSet<'static>) {
        let now = self.stack_now();
        self.phy.pending = Some(frame);
        self.iface.poll_ingress_single(now, &mut self.phy, sockets);
    }

    /// Lets the sockets send. True if something went out.
    pub fn flush(&mut self, sockets: &mut SocketSet<'static>) -> bool {
        let now = self.stack_now();
        self.iface.poll_egress(now, &mut self.phy, sockets) == PollResult::SocketStateChanged
    }

    /// When the sockets want to be looked at again.
    pub fn due(&mut self, sockets: &SocketSet<'static>) -> Option<Instant> {
        let now = self.stack_now();
        let at = self.iface.poll_at(now, sockets)?;
        Some(Instant::from_nanos(at.total_micros().max(0) as u64 * 1000))
    }
}

impl Engine {
    /// As the command line says.
    pub fn new(port: Arc<Port>, now: Instant) -> Engine {
        Engine::with(port, now, Method::of_cmdline())
    }

    pub fn with(port: Arc<Port>, now: Instant, method: Method) -> Engine {
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(port.card().mac())));
        config.random_seed = random::u64();
        let mut phy = Phy::new(port.clone());
        // Large: it has a buffer for fragments.
        let iface = Box::new(Interface::new(config, &mut phy, StackInstant::from_micros(0)));
        let mut engine = Engine {
            wire: Wire { port, iface, phy, now },
            configure: Configure::new(method),
            lanes: Lanes::new(),
            streams: BTreeMap::new(),
            by_pair: BTreeMap::new(),
            half_open: 0,
            next_id: 1,
            ready: VecDeque::new(),
            starved: VecDeque::new(),
            timers: BTreeSet::new(),
            nobody: SocketSet::new(alloc::vec![]),
        };
        engine.configure.begin(&mut engine.wire);
        engine
    }

    pub fn turn(&mut self, now: Instant) -> Next {
        self.wire.now = now;
        self.wire.phy.starved = false;
        self.ready.append(&mut self.starved);
        self.take_mail();
        let mut more = self.receive();
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.remove(&(at, id));
            self.ready.push_back(id);
        }
        self.configure.turn(&mut self.wire);
        if !self.wire.phy.starved {
            self.lanes.turn(&mut self.wire);
        }
        for _ in 0..SERVED {
            if self.wire.phy.starved {
                break;
            }
            let Some(id) = self.ready.pop_front() else { break };
            self.serve(id);
        }
        if self.wire.phy.starved {
            // The card rings when it has room.
            self.starved.append(&mut self.ready);
        } else {
            more |= !self.ready.is_empty();
        }
        let timers = [self.timers.first().map(|(at, _)| *at), self.configure.due(), self.lanes.due()];
        Next { more, at: timers.into_iter().flatten().min() }
    }

    /// Nothing is left of any connection, but for TIME-WAIT.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.half_open == 0 && self.streams.values().all(Stream::is_past)
    }

    #[cfg(test)]
    pub fn has_mail(&self) -> bool {
        self.wire.port.has_mail()
    }

    fn take_mail(&mut self) {
        let Mail { calls, rung, datagrams } = self.wire.port.take_mail();
        for call in calls {
            match call {
                Call::Connect(stand_in) => self.connect(stand_in),
                Call::SetUp(up) => self.configure.set_up(&mut self.wire, up),
            }
        }
        self.ready.extend(rung);
        self.lanes.add(datagrams);
    }

    /// True if there may be more frames.
    fn receive(&mut self) -> bool {
        for _ in 0..FRAMES {
            let Some(frame) = self.wire.port.card().receive() else { return false };
            let counters = &self.wire.port.counters;
            counters.received.fetch_add(1, Ordering::Relaxed);
            counters.received_bytes.fetch_add(frame.bytes().len() as u64, Ordering::Relaxed);
            if self.wire.port.is_up() {
                self.sort(frame);
            } else {
                self.wire.port.card().recycle(frame.0);
            }
        }
        true
    }

    fn sort(&mut self, frame: Frame) {
        let mut taken = false;
        match frame::classify(frame.bytes()) {
            Kind::Tcp { pair, begins, resets } => return self.segment(frame, pair, begins, resets),
            Kind::Udp { pair: (local, remote), data } => {
                let settings =
                    |settings: &super::Settings| settings.is_own(local.ip) || settings.is_broadcast(local.ip);
                // Otherwise the stack answers that the port is unreachable, or it is the configuration's.
                taken = self.wire.port.with_settings(settings) && udp::arrive(local, remote, data);
                if !taken && !self.configure.wants(local.port) {
                    return self.wire.feed(frame, &mut self.nobody);
                }
            }
            Kind::Unreachable { protocol, pair, errno } => self.unreachable(protocol, pair, errno),
            Kind::Neighbour { ip, mac } => {
                self.wire.port.with_neighbours(|known| known.heard(ip, mac, self.wire.now));
                self.retry();
            }
            Kind::Icmp6 { packet, mac } => {
                if self.configure.hear(&mut self.wire, packet, mac) {
                    self.retry();
                }
            }
            Kind::Other => {}
        }
        if taken {
            self.wire.port.card().recycle(frame.0);
        } else {
            self.wire.feed(frame, self.configure.sockets());
            while let Some(whole) = self.configure.take_received() {
                self.sort(whole);
            }
        }
    }

    /// A neighbour has answered: whoever has been waiting for it goes on. That is seldom, so nobody keeps account of who.
    fn retry(&mut self) {
        self.lanes.retry();
        self.ready.extend(self.streams.keys());
    }

    fn segment(&mut self, frame: Frame, pair: Pair, begins: bool, resets: bool) {
        let mut found = self.by_pair.get(&key(pair)).copied();
        if begins {
            if let Some(id) = found
                && self.streams.get(&id).is_some_and(Stream::is_past)
            {
                self.remove(id);
                found = None;
            }
            if found.is_none() {
                match self.answer(pair) {
                    Ok(id) => found = id,
                    Err(_) => return self.wire.port.card().recycle(frame.0),
                }
            }
        }
        let Some(stream) = found.and_then(|id| self.streams.get_mut(&id)) else {
            return self.wire.feed(frame, &mut self.nobody);
        };
        stream.heard(self.wire.now);
        self.wire.feed(frame, stream.sockets());
        stream.note_reset(resets);
        self.ready.extend(found);
    }

    /// A connection for a SYN, if somebody listens. An error: it is not answered, as if it were lost.
    fn answer(&mut self, pair: Pair) -> Result<Option<u64>, Errno> {
        let (local, remote) = pair;
        if !self.wire.port.with_settings(|settings| settings.is_own(local.ip)) {
            return Ok(None);
        }
        let Some(listener) = tcp::find_listener(local, remote) else { return Ok(None) };
        if !listener.has_backlog() || self.half_open >= MOST_HALF_OPEN {
            return Err(Errno::EAGAIN);
        }
        let stand_in = TcpSocket::stand_in(local, remote, None);
        let stream = self.make(pair, stand_in, Origin::Answered(Arc::downgrade(&listener)))?;
        self.half_open += 1;
        Ok(Some(stream))
    }

    fn make(&mut self, pair: Pair, stand_in: Arc<TcpSocket>, origin: Origin) -> Result<u64, Errno> {
        if self.streams.len() >= MOST {
            return Err(Errno::ENOBUFS);
        }
        let id = self.next_id;
        let stream = Stream::new(&mut self.wire, pair, stand_in, origin, id, self.streams.len())?;
        self.next_id += 1;
        self.by_pair.insert(key(pair), id);
        self.streams.insert(id, stream);
        Ok(id)
    }

    fn connect(&mut self, stand_in: Arc<TcpSocket>) {
        let Some(pair) = stand_in.ends() else { return };
        if let Some(id) = self.by_pair.get(&key(pair)).copied() {
            if !self.streams.get(&id).is_some_and(Stream::is_past) {
                return stand_in.fail_peer(Errno::EADDRNOTAVAIL);
            }
            self.remove(id);
        }
        match self.make(pair, stand_in.clone(), Origin::Begun) {
            Ok(id) => self.ready.push_back(id),
            Err(errno) => stand_in.fail_peer(errno),
        }
    }

    fn serve(&mut self, id: u64) {
        let Engine { wire, streams, timers, half_open, .. } = self;
        let Some(stream) = streams.get_mut(&id) else { return };
        if let Some(at) = stream.timer.take() {
            timers.remove(&(at, id));
        }
        stream.quiet();
        let mut left = SEGMENTS;
        loop {
            stream.pump(wire, half_open);
            let sent = (0..BURST.min(left)).take_while(|_| wire.flush(stream.sockets())).count();
            left -= sent;
            if sent < BURST || left == 0 {
                break;
            }
        }
        if wire.phy.starved {
            self.starved.push_back(id);
        } else if stream.is_over() {
            stream.conclude(half_open);
            self.remove(id);
        } else if left == 0 {
            self.ready.push_back(id);
        } else if let Some(at) = stream.due(wire) {
            // What the stack wants now and has not done is not done by asking again at once.
            let at = at.max(wire.now.saturating_add(SOONEST));
            stream.timer = Some(at);
            timers.insert((at, id));
        }
    }

    fn remove(&mut self, id: u64) {
        let Some(mut stream) = self.streams.remove(&id) else { return };
        if let Some(at) = stream.timer.take() {
            self.timers.remove(&(at, id));
        }
        self.by_pair.remove(&key(stream.pair()));
        stream.leave(&mut self.half_open);
    }

    fn unreachable(&mut self, protocol: IpProtocol, pair: Pair, errno: Errno) {
        match protocol {
            IpProtocol::Udp => udp::unreachable(pair.0, pair.1, errno),
            IpProtocol::Tcp => {
                let id = self.by_pair.get(&key(pair)).copied();
                if let Some(stream) = id.and_then(|id| self.streams.get_mut(&id))
                    && stream.give_up(errno)
                {
                    self.ready.extend(id);
                }
            }
            _ => {}
        }
    }
}
