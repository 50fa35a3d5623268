//! One turn of a card's task.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use core::net::IpAddr;
use core::sync::atomic::Ordering;
use core::time::Duration;

use smoltcp::iface::{Config, Interface, PollResult, SocketSet};
use smoltcp::time::{Duration as StackDuration, Instant as StackInstant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpProtocol};

use super::configure::{self, Configure, Method};
use super::datagram::{Lanes, OutgoingFrame, QUEUE};
use super::frame::{self, Kind, Pair, Quoted};
use super::phy::Phy;
use super::port::{Mail, Settings};
use super::recovery::Said;
use super::stream::{Origin, Stream};
use super::{Frame, Port};
use crate::drivers::random;
use crate::errno::Errno;
use crate::exec::Instant;
use crate::mm::frames;
use crate::net::inet::tcp::{self, TcpSocket};
use crate::net::inet::{failures, ip, udp};
use crate::net::link;

/// Frames that are received, and connections that are served, before others get their turn.
const FRAMES: usize = 64;
const SERVED: usize = 64;
/// Segments of one connection before others get their turn.
const SEGMENTS: usize = 32;
/// Segments before what has become free in the stack's buffer is filled up.
const BURST: usize = 8;
/// How often the gateway is asked for its address: while it is known (ENTRY_LIFETIME of the stack's cache is 60 s), and else.
const GATEWAY_TIME: Duration = Duration::from_secs(20);
const NEIGHBOUR_INTERVAL: Duration = Duration::from_secs(1);
/// The stack puts few packets together at a time, so one of which a fragment is lost must not stay for long.
const REASSEMBLY_TIME: StackDuration = StackDuration::from_secs(5);
const SOONEST: Duration = Duration::from_millis(1);
/// Connections with other machines, those of them that others have begun and not finished, and those in TIME-WAIT, which are
/// whole connections to the stack: beyond that the oldest goes.
const MOST: usize = 4096;
const MOST_HALF_OPEN: usize = 128;
const MOST_PAST: usize = 256;
/// From so many on a new one has less memory.
const MANY: usize = 256;
const MANY_HALF_OPEN: usize = 16;

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
    /// What the port has, as the stack knows it.
    pub settings: Settings,
    /// How often the port had been taken down when it was last brought up.
    pub downs: u32,
    /// Something goes through the gateway.
    pub routed: bool,
    /// When the gateway was asked for its address.
    asked_gateway: Option<Instant>,
}

pub struct Engine {
    wire: Wire,
    configure: Configure,
    lanes: Lanes,
    /// What programs have written, as it is.
    frames: VecDeque<OutgoingFrame>,
    streams: BTreeMap<u64, Stream>,
    by_pair: BTreeMap<PairKey, u64>,
    half_open: BTreeSet<u64>,
    past: BTreeSet<u64>,
    next_id: u64,
    /// Streams with work, and those that found no room in the card: each once.
    ready: VecDeque<u64>,
    starved: VecDeque<u64>,
    timers: BTreeSet<(Instant, u64)>,
    /// A neighbour has answered.
    retry: bool,
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
    pub fn feed(&mut self, frame: Frame, sockets: &mut SocketSet<'static>) {
        let now = self.stack_now();
        self.phy.pending = Some(frame);
        self.iface.poll_ingress_single(now, &mut self.phy, sockets);
    }

    /// Lets the sockets send. True if something went out.
    pub fn flush(&mut self, sockets: &mut SocketSet<'static>) -> bool {
        let now = self.stack_now();
        self.phy.reserve() && self.iface.poll_egress(now, &mut self.phy, sockets) == PollResult::SocketStateChanged
    }

    /// A packet that is for a machine of another network does not tell the stack that the gateway is still there, and the stack asks
    /// for one neighbour a second, whoever that is: so the gateway is asked for before the stack forgets it.
    fn refresh_gateway(&mut self) {
        let Some(gateway) = self.settings.main_gateway().filter(|_| core::mem::take(&mut self.routed)) else { return };
        let known = self.port.with_neighbours(|known| known.knows(gateway.into()));
        let time = if known { GATEWAY_TIME } else { NEIGHBOUR_INTERVAL };
        if self.asked_gateway.is_some_and(|at| self.now.saturating_since(at) < time) {
            return;
        }
        if let Some(IpAddr::V4(own)) = self.settings.source_for(gateway.into()) {
            self.asked_gateway = Some(self.now);
            self.phy.ask_for(own, gateway, self.stack_now());
        }
    }

    /// A packet of IP in one piece, for sockets that want packets. True: one has it.
    fn hand_out(&self, packet: &[u8]) -> bool {
        if ip::is_empty() {
            return false;
        }
        let Some(packet) = ip::Arrived::parse(packet, self.port.index()) else { return false };
        (self.settings.is_addressed(packet.to) || packet.to.is_multicast()) && ip::arrive(&packet)
    }

    /// A message of ICMP, perhaps about what this machine has sent.
    fn tell_failure(&self, frame: &[u8]) {
        let packet = frame::packet(frame).and_then(|packet| ip::Arrived::parse(packet, self.port.index()));
        if let Some(packet) = packet.filter(|packet| self.settings.is_own(packet.to)) {
            failures::arrive(&packet);
        }
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
        let mut iface = Box::new(Interface::new(config, &mut phy, StackInstant::from_micros(0)));
        iface.set_reassembly_timeout(REASSEMBLY_TIME);
        let mut engine = Engine {
            wire: Wire {
                port,
                iface,
                phy,
                now,
                settings: Settings::default(),
                downs: 0,
                routed: false,
                asked_gateway: None,
            },
            configure: Configure::new(method),
            lanes: Lanes::new(),
            frames: VecDeque::new(),
            streams: BTreeMap::new(),
            by_pair: BTreeMap::new(),
            half_open: BTreeSet::new(),
            past: BTreeSet::new(),
            next_id: 1,
            ready: VecDeque::new(),
            starved: VecDeque::new(),
            timers: BTreeSet::new(),
            retry: false,
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
            self.enqueue(id);
        }
        self.configure.turn(&mut self.wire);
        if core::mem::take(&mut self.retry) {
            self.lanes.retry();
            // Neighbours answer seldom, so nobody keeps account of who waits for which.
            let waiting = self.streams.iter_mut().filter_map(|(id, stream)| stream.enqueue().then_some(*id));
            self.ready.extend(waiting);
        }
        if !self.wire.phy.starved {
            more |= self.send_frames();
        }
        if !self.wire.phy.starved {
            more |= self.lanes.turn(&mut self.wire);
        }
        self.serve_ready();
        self.wire.refresh_gateway();
        let starved = self.wire.phy.starved;
        if starved {
            // The card rings when it has room.
            self.starved.append(&mut self.ready);
        } else {
            more |= !self.ready.is_empty();
        }
        let lanes = if starved { None } else { self.lanes.due() };
        let timers = [self.timers.first().map(|(at, _)| *at), self.configure.due(), lanes];
        Next { more, at: timers.into_iter().flatten().min() }
    }

    fn enqueue(&mut self, id: u64) {
        if self.streams.get_mut(&id).is_some_and(Stream::enqueue) {
            self.ready.push_back(id);
        }
    }

    fn serve_ready(&mut self) {
        let mut left = SERVED;
        while left > 0 && !self.wire.phy.starved {
            let Some(id) = self.ready.pop_front() else { return };
            left -= usize::from(self.serve(id));
        }
    }

    /// Nothing is left of any connection, but for TIME-WAIT.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.half_open.is_empty() && self.streams.values().all(Stream::is_past)
    }

    /// Connections, and how many of them are in the queue.
    #[cfg(test)]
    pub fn counts(&self) -> (usize, usize) {
        (self.streams.len(), self.ready.len() + self.starved.len())
    }

    #[cfg(test)]
    pub fn has_mail(&self) -> bool {
        self.wire.port.has_mail()
    }

    fn take_mail(&mut self) {
        let Mail { set_up, adopt, connect, rung, datagrams, frames } = self.wire.port.take_mail();
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
        connect.into_iter().for_each(|stand_in| self.connect(stand_in));
        rung.into_iter().for_each(|id| self.enqueue(id));
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
            let Some(frame) = self.wire.port.card().receive() else { return false };
            let counters = &self.wire.port.counters;
            counters.received.fetch_add(1, Ordering::Relaxed);
            counters.received_bytes.fetch_add(frame.bytes().len() as u64, Ordering::Relaxed);
            if self.wire.port.is_up() {
                if link::is_watched() {
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
        match frame::classify(frame.bytes()) {
            _ if taken => {}
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
                // Otherwise the stack answers that the port is unreachable, or it is the configuration's.
                let index = self.wire.port.index();
                taken = settings.is_addressed(local.ip) && udp::arrive(local, remote, index, header, data);
                if !taken && !self.configure.wants(local.port) {
                    return self.wire.feed(frame, &mut self.nobody);
                }
            }
            Kind::Unreachable { to, quoted } if settings.is_own(to) => {
                self.wire.tell_failure(frame.bytes());
                self.unreachable(&quoted);
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
            Kind::Other => taken = is_known,
            Kind::Neighbour { .. } => {}
        }
        if taken {
            self.wire.port.card().recycle(frame.0);
        } else {
            self.wire.feed(frame, self.configure.sockets());
            let (settings, index) = (&self.wire.settings, self.wire.port.index());
            self.configure.take_datagrams(|(local, remote), header, data| {
                if settings.is_addressed(local.ip) {
                    udp::arrive(local, remote, index, header, data);
                }
            });
            let wire = &self.wire;
            self.configure.take_messages(|packet| _ = wire.hand_out(packet));
            // Broken ones that came whole are among them: they have been sorted.
            while let Some(whole) = self.configure.take_segment(&self.wire) {
                match frame::classify(whole.bytes()) {
                    Kind::Tcp { pair, begins, resets, said } if self.wire.settings.is_own(pair.0.ip) => {
                        self.segment(whole, pair, (begins, resets), said);
                    }
                    _ => self.wire.port.card().recycle(whole.0),
                }
            }
        }
    }

    fn segment(&mut self, frame: Frame, pair: Pair, (begins, resets): (bool, bool), said: Said) {
        let mut found = self.by_pair.get(&key(pair)).copied();
        if begins {
            found = found.filter(|id| !self.make_way(*id));
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
        stream.heard(&self.wire, &said);
        if stream.hides(&said) {
            return self.wire.port.card().recycle(frame.0);
        }
        self.wire.feed(frame, stream.sockets());
        if stream.settle() {
            found.iter().for_each(|id| _ = self.half_open.remove(id));
        }
        stream.note_reset(resets);
        stream.recover(&mut self.wire, said);
        if stream.enqueue() {
            self.ready.extend(found);
        }
    }

    /// A connection for a SYN, if somebody listens. An error: it is not answered, as if it were lost.
    fn answer(&mut self, pair: Pair) -> Result<Option<u64>, Errno> {
        let (local, remote) = pair;
        let Some(listener) = tcp::find_listener(local, remote, self.wire.port.index()) else { return Ok(None) };
        if !listener.has_backlog() {
            return Err(Errno::EAGAIN);
        }
        if self.half_open.len() >= MOST_HALF_OPEN
            && let Some(oldest) = self.half_open.first().copied()
        {
            self.end(oldest);
        }
        let stand_in = TcpSocket::stand_in(local, remote, None);
        let stream = self.make(pair, stand_in, Origin::Answered(Arc::downgrade(&listener)))?;
        self.half_open.insert(stream);
        Ok(Some(stream))
    }

    fn make(&mut self, pair: Pair, stand_in: Arc<TcpSocket>, origin: Origin) -> Result<u64, Errno> {
        if self.streams.len() >= MOST {
            let oldest = self.past.first().copied().ok_or(Errno::ENOBUFS)?;
            self.end(oldest);
        }
        let id = self.next_id;
        let little = self.streams.len() >= MANY || self.half_open.len() >= MANY_HALF_OPEN || !frames::has_spare();
        let stream = Stream::new(&mut self.wire, pair, stand_in, origin, id, little)?;
        self.next_id += 1;
        self.by_pair.insert(key(pair), id);
        self.streams.insert(id, stream);
        Ok(id)
    }

    fn connect(&mut self, stand_in: Arc<TcpSocket>) {
        let Some(pair) = stand_in.ends() else { return };
        if let Some(id) = self.by_pair.get(&key(pair)).copied()
            && !self.make_way(id)
        {
            return stand_in.fail_peer(Errno::EADDRNOTAVAIL);
        }
        match self.make(pair, stand_in.clone(), Origin::Begun) {
            Ok(id) => self.enqueue(id),
            Err(errno) => stand_in.fail_peer(errno),
        }
    }

    /// Ends a connection that may give its place to another one between the same ends. False: it keeps it.
    fn make_way(&mut self, id: u64) -> bool {
        let Engine { wire, streams, .. } = self;
        let Some(stream) = streams.get_mut(&id) else { return true };
        if stream.is_given_up() {
            // The other machine is to hear of it before it hears of the next one.
            stream.pump(wire);
            wire.flush(stream.sockets());
        } else if !stream.is_past() {
            return false;
        }
        self.end(id);
        true
    }

    /// False: it is not there any more.
    fn serve(&mut self, id: u64) -> bool {
        let Engine { wire, streams, timers, half_open, past, .. } = self;
        let Some(stream) = streams.get_mut(&id) else { return false };
        if let Some(at) = stream.timer.take() {
            timers.remove(&(at, id));
        }
        stream.begin_turn();
        wire.routed |= stream.is_routed();
        let mut left = SEGMENTS;
        stream.recover_from_silence(wire);
        loop {
            stream.pump(wire);
            let sent = (0..BURST.min(left)).take_while(|_| stream.send(wire)).count();
            left -= sent;
            if sent < BURST || left == 0 {
                break;
            }
        }
        if !stream.is_half_open() {
            half_open.remove(&id);
        }
        if wire.phy.starved {
            stream.enqueue();
            self.starved.push_back(id);
        } else if stream.is_over() {
            self.end(id);
        } else if left == 0 {
            stream.enqueue();
            self.ready.push_back(id);
        } else {
            if let Some(at) = stream.due(wire) {
                // What the stack wants now and has not done is not done by asking again at once.
                let at = at.max(wire.now.saturating_add(SOONEST));
                stream.timer = Some(at);
                timers.insert((at, id));
            }
            if stream.is_past() && past.insert(id) && past.len() > MOST_PAST {
                let oldest = past.first().copied();
                oldest.into_iter().for_each(|id| self.end(id));
            }
        }
        true
    }

    /// The connection is over, or has to be.
    fn end(&mut self, id: u64) {
        let Some(mut stream) = self.streams.remove(&id) else { return };
        if let Some(at) = stream.timer.take() {
            self.timers.remove(&(at, id));
        }
        self.half_open.remove(&id);
        self.past.remove(&id);
        self.by_pair.remove(&key(stream.pair()));
        stream.conclude();
    }

    fn unreachable(&mut self, quoted: &Quoted) {
        let Quoted { protocol, pair, errno } = *quoted;
        if protocol == IpProtocol::Tcp
            && let Some(id) = self.by_pair.get(&key(pair)).copied()
            && self.streams.get_mut(&id).is_some_and(|stream| stream.give_up(errno))
        {
            self.enqueue(id);
        }
    }
}
