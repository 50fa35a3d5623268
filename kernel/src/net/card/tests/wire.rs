//! Two machines on a wire that loses, repeats and swaps frames as a seed says: a card's task, and a stack with sockets of its own.
//! Time is the test's.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use core::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant as StackInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};

use super::super::configure::Method;
use super::super::engine::Engine;
use super::super::{BUFFER, Buffer, Card, Cidr, Frame, Offloads, Settings, Sum};
use super::offloads;
use crate::exec::{Instant, Notify};
use crate::net::inet::Endpoint;
use crate::net::interface;
use crate::sync::SpinLock;

type Frames = VecDeque<Vec<u8>>;

/// The machine's card: the test moves the frames.
struct TestCard {
    mac: [u8; 6],
    arrived: SpinLock<Frames>,
    left: SpinLock<Frames>,
    /// How many it takes before they are carried.
    room: AtomicUsize,
    offloads: Offloads,
    /// Segments that it has cut, and frames that it has joined.
    cut: AtomicUsize,
    joined: AtomicUsize,
    bell: Notify,
}

impl Card for TestCard {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }
    fn link(&self) -> bool {
        true
    }
    fn bell(&self) -> &Notify {
        &self.bell
    }
    fn receive(&self) -> Option<Frame> {
        if self.offloads.sums {
            let frame = offloads::come(&mut self.arrived.lock())?;
            self.joined.fetch_add(usize::from(frame.bytes().len() > 1514), Ordering::Relaxed);
            return Some(frame);
        }
        let bytes = self.arrived.lock().pop_front()?;
        let mut buffer = Buffer::new();
        buffer.bytes_mut()[..bytes.len()].copy_from_slice(&bytes);
        Some(Frame::new(buffer, 0, bytes.len()))
    }
    fn recycle(&self, _buffer: Buffer) {}
    fn listen(&self) -> bool {
        !self.arrived.lock().is_empty()
    }
    /// Few, so that the card is full now and then.
    fn take_buffer(&self) -> Option<Buffer> {
        let size = self.offloads.cuts.map_or(BUFFER, |most| most.get());
        (self.left.lock().len() < self.room.load(Ordering::Relaxed)).then(|| Buffer::with_room(size))
    }
    fn return_buffer(&self, _buffer: Buffer) {}
    fn transmit(&self, mut buffer: Buffer, len: usize) {
        let (sum, cut) = (buffer.sum, buffer.cut);
        assert!(self.offloads.sums || sum == Sum::Whole && cut.is_none());
        let bytes = buffer.bytes_mut()[..len].to_vec();
        self.cut.fetch_add(usize::from(cut.is_some()), Ordering::Relaxed);
        let frames = offloads::leave(bytes, sum, cut);
        assert!(frames.iter().all(|frame| frame.len() <= 1514));
        self.left.lock().extend(frames);
    }
    fn offloads(&self) -> Offloads {
        self.offloads
    }
}

/// The other machine's.
#[derive(Default)]
struct Plain {
    arrived: Frames,
    left: Frames,
}

struct Received(Vec<u8>);
struct Sent<'a>(&'a mut Frames);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut bytes = vec![0; len];
        let result = f(&mut bytes);
        self.0.push_back(bytes);
        result
    }
}

impl Device for Plain {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;
    fn receive(&mut self, _now: StackInstant) -> Option<(Received, Sent<'_>)> {
        let frame = self.arrived.pop_front()?;
        Some((Received(frame), Sent(&mut self.left)))
    }
    fn transmit(&mut self, _now: StackInstant) -> Option<Sent<'_>> {
        Some(Sent(&mut self.left))
    }
    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// In percent.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    pub lost: u64,
    pub repeated: u64,
    pub swapped: u64,
    /// The other machine answers who it is, and nothing else.
    pub silent: bool,
}

/// What the machine's address is made of.
pub struct Own(u8);

impl Own {
    pub fn network_of(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.0, last)
    }

    pub fn cidr(&self) -> Cidr {
        Cidr { ip: self.network_of(1).into(), prefix: 24 }
    }
}

pub struct Net {
    pub now: Instant,
    /// Time stops there.
    end: Option<Instant>,
    seed: u64,
    pub faults: Faults,
    card: Arc<TestCard>,
    /// All that the machine has sent, if it is to be kept.
    pub kept: Option<Vec<Vec<u8>>>,
    pub engine: Engine,
    /// The other machine; without it the wire ends nowhere.
    device: Plain,
    pub there: Interface,
    pub sockets: SocketSet<'static>,
    pub own: IpAddr,
    pub other: IpAddr,
}

impl Net {
    pub fn new(seed: u64, faults: Faults) -> Net {
        Net::with_offloads(seed, faults, Offloads::default())
    }

    pub fn with_offloads(seed: u64, faults: Faults, offloads: Offloads) -> Net {
        let method = |own: Own| Method::Static(Settings { addresses: vec![own.cidr()], ..Settings::default() });
        Net::made(seed, faults, offloads, method)
    }

    pub fn with(seed: u64, faults: Faults, method: impl FnOnce(Own) -> Method) -> Net {
        Net::made(seed, faults, Offloads::default(), method)
    }

    fn made(seed: u64, faults: Faults, offloads: Offloads, method: impl FnOnce(Own) -> Method) -> Net {
        // Each has a network of its own: the tables of ports and cards are everybody's.
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let ip = |last| Ipv4Addr::new(10, 77, number, last);
        let card = Arc::new(TestCard {
            mac: [2, 0, 0, 0, number, 1],
            arrived: SpinLock::default(),
            left: SpinLock::default(),
            room: AtomicUsize::new(16),
            offloads,
            cut: AtomicUsize::new(0),
            joined: AtomicUsize::new(0),
            bell: Notify::new(),
        });
        let port = interface::add(card.clone());
        let now = Instant::from_nanos(1_000_000_000);
        let engine = Engine::with(port, now, method(Own(number)));
        let mut device = Plain::default();
        let mac = EthernetAddress([2, 0, 0, 0, number, 2]);
        let mut there =
            Interface::new(Config::new(HardwareAddress::Ethernet(mac)), &mut device, StackInstant::from_millis(1000));
        there.update_ip_addrs(|all| all.push(IpCidr::new(IpAddress::from(IpAddr::V4(ip(2))), 24)).unwrap());
        let sockets = SocketSet::new(vec![]);
        let (own, other) = (ip(1).into(), ip(2).into());
        Net { now, end: None, seed, faults, card, kept: None, engine, device, there, sockets, own, other }
    }

    /// A machine of the network of this number.
    pub fn machine(&self, last: u8) -> Ipv4Addr {
        let IpAddr::V4(own) = self.own else { panic!() };
        let [a, b, c, _] = own.octets();
        Ipv4Addr::new(a, b, c, last)
    }

    pub fn mac(&self) -> [u8; 6] {
        self.card.mac
    }

    /// How many frames the card takes before they are carried.
    pub fn set_room(&self, room: usize) {
        self.card.room.store(room, Ordering::Relaxed);
    }

    /// How many segments the card has cut, and how many frames it has joined.
    pub fn offloaded(&self) -> (usize, usize) {
        (self.card.cut.load(Ordering::Relaxed), self.card.joined.load(Ordering::Relaxed))
    }

    /// Changes the frames that have come and were not looked at.
    pub fn change_arrived(&self, change: impl FnMut(&mut Vec<u8>)) {
        self.card.arrived.lock().iter_mut().for_each(change);
    }

    /// This frame comes from the wire.
    pub fn arrive(&self, frame: Vec<u8>) {
        self.card.arrived.lock().push_back(frame);
    }

    /// Until so much time has gone by.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.saturating_add(time);
        self.end = Some(end);
        self.until("time goes by", |net| net.now >= end);
        self.end = None;
    }

    pub fn at(&self, port: u16) -> Endpoint {
        Endpoint { ip: self.other, port }
    }

    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.seed >> 33
    }

    /// Frames over the wire, some of them.
    fn carry(&mut self, mut frames: Frames) -> Frames {
        let mut out = Frames::new();
        while let Some(frame) = frames.pop_front() {
            let (lost, repeated, swapped) = (self.random() % 100, self.random() % 100, self.random() % 100);
            if lost < self.faults.lost || self.faults.silent && frame[12..14] == [8, 0] {
                continue;
            }
            if repeated < self.faults.repeated {
                out.push_back(frame.clone());
            }
            if swapped < self.faults.swapped {
                out.push_front(frame);
            } else {
                out.push_back(frame);
            }
        }
        out
    }

    /// One turn of everybody; then time goes on if nothing happens until then.
    pub fn step(&mut self) {
        let next = self.engine.turn(self.now);
        let left = core::mem::take(&mut *self.card.left.lock());
        if let Some(kept) = &mut self.kept {
            kept.extend(left.iter().cloned());
        }
        let to_there = self.carry(left);
        let mut busy = next.more || !to_there.is_empty();
        self.device.arrived.extend(to_there);
        busy |= self.step_there() || self.engine.has_mail();
        let at = self
            .there
            .poll_at(self.stack_now(), &self.sockets)
            .map(|at| Instant::from_nanos(at.total_micros() as u64 * 1000));
        if !busy {
            let soonest = self.now.saturating_add(Duration::from_millis(1));
            let latest = self.now.saturating_add(Duration::from_secs(1));
            let latest = self.end.map_or(latest, |end| end.clamp(soonest, latest));
            self.now = [next.at, at].into_iter().flatten().min().unwrap_or(latest).clamp(soonest, latest);
        }
    }

    fn stack_now(&self) -> StackInstant {
        StackInstant::from_micros((self.now.as_nanos() / 1000) as i64)
    }

    /// One turn of the other machine. True if it has sent something.
    pub fn step_there(&mut self) -> bool {
        self.there.poll(self.stack_now(), &mut self.device, &mut self.sockets);
        let left = core::mem::take(&mut self.device.left);
        let to_here = self.carry(left);
        let mut arrived = self.card.arrived.lock();
        let before = arrived.len();
        arrived.extend(to_here);
        arrived.len() > before
    }

    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Net) -> bool) {
        for _ in 0..200_000 {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("never: {what}");
    }

    pub fn add_tcp(&mut self) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 20_000]);
        self.sockets.add(tcp::Socket::new(buffer(), buffer()))
    }

    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Sends back what comes, and then its end.
    pub fn echo(&mut self, handle: SocketHandle) {
        let socket = self.tcp(handle);
        while socket.can_recv() && socket.can_send() {
            let room = socket.send_capacity() - socket.send_queue();
            let mut bytes = vec![0; room.min(socket.recv_queue())];
            if bytes.is_empty() {
                return;
            }
            socket.recv_slice(&mut bytes).unwrap();
            socket.send_slice(&bytes).unwrap();
        }
        if socket.state() == tcp::State::CloseWait && !socket.can_recv() {
            socket.close();
        }
    }
}
