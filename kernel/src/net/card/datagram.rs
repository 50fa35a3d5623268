//! Datagrams to other machines.
//!
//! They go through one raw socket of the stack, the fast lane, which is empty again at once. A datagram for a neighbour whose
//! address is not known yet stays in its lane, which becomes that neighbour's: those for others take a new one.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Weak;
use alloc::vec;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::raw::{PacketBuffer, PacketMetadata, Socket};
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, UdpPacket, UdpRepr};

use super::wire::Wire;
use crate::exec::Instant;
use crate::net::inet::Endpoint;
use crate::net::link::LinkSocket;

/// How long a neighbour is asked for, and how many datagrams wait for it meanwhile.
const NEIGHBOUR_TIME: Duration = Duration::from_secs(3);
const WAITING: usize = 64;
const INTERVAL: Duration = Duration::from_millis(100);
/// How many wait for the card (txqueuelen of Linux); more are lost.
pub const QUEUE: usize = 1000;
const MOST_LANES: usize = 32;
/// Datagrams in a turn.
const SENT: usize = 64;
const UDP_HEADER: usize = 8;
const MOST_FRAGMENTS: usize = 64;
/// The largest packet that the stack cuts into fragments.
pub const LARGEST: usize = 32 << 10;
const ROOM: usize = LARGEST + 64;

/// What a datagram on its way takes up of the send buffer of its socket, which has it back when this goes.
pub struct Charge {
    socket: Weak<dyn Sender>,
    bytes: usize,
}

/// A socket that sends to other machines.
pub trait Sender: Send + Sync {
    /// So much of its send buffer is free again.
    fn sent(&self, bytes: usize);
}

impl Charge {
    pub fn new(socket: Weak<dyn Sender>, bytes: usize) -> Self {
        Charge { socket, bytes }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(socket) = self.socket.upgrade() {
            socket.sent(self.bytes);
        }
    }
}

pub struct Outgoing {
    pub from: Endpoint,
    pub to: Endpoint,
    pub data: Box<[u8]>,
    pub hops: u8,
    /// `data` is a whole packet.
    pub is_packet: bool,
    pub charge: Charge,
}

/// A frame that a program has written.
pub struct OutgoingFrame {
    pub data: Box<[u8]>,
    pub sender: Weak<LinkSocket>,
    pub charge: Charge,
}

struct Lane {
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    waiting: VecDeque<Outgoing>,
    since: Instant,
}

pub struct Lanes {
    queue: VecDeque<Outgoing>,
    fast: Lane,
    slow: BTreeMap<IpAddr, Lane>,
    /// The fast lane holds what found no room in the card, for this neighbour.
    held: Option<IpAddr>,
    /// A neighbour has answered.
    retry: bool,
    due: Option<Instant>,
}

impl Lane {
    fn new(room: Vec<u8>) -> Self {
        let none = || PacketBuffer::new(vec![], vec![]);
        let room = PacketBuffer::new(vec![PacketMetadata::EMPTY; 2], room);
        let mut sockets = SocketSet::new(vec![]);
        let handle = sockets.add(Socket::new(None, None, none(), room));
        Lane { sockets, handle, waiting: VecDeque::new(), since: Instant::BOOT }
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Puts a packet in and sends it, with all its fragments. False: it is still there.
    fn send(&mut self, wire: &mut Wire, datagram: &Outgoing) -> bool {
        put(self.socket(), datagram);
        self.flush(wire)
    }

    fn flush(&mut self, wire: &mut Wire) -> bool {
        // Each call sends a packet or a fragment; the stack wants to be called again at once as long as there are any.
        for _ in 0..MOST_FRAGMENTS {
            // A segment that a program has written may have any.
            wire.phy.whole = true;
            wire.flush(&mut self.sockets);
            wire.phy.whole = false;
            match wire.due(&self.sockets) {
                None => return true,
                Some(due) if due > Instant::BOOT || wire.phy.starved => return false,
                Some(_) => {}
            }
        }
        false
    }
}

/// Does the stack know where packets for this neighbour go?
fn is_known(wire: &Wire, hop: IpAddr) -> bool {
    let group = hop.is_multicast() || wire.settings.is_broadcast(hop);
    group || wire.port.with_neighbours(|known| known.knows(hop))
}

/// Writes headers and bytes into the socket's buffer. What is too large for it is lost; its socket has been told.
fn put(socket: &mut Socket<'static>, datagram: &Outgoing) {
    let Outgoing { from, to, data, hops, is_packet, .. } = datagram;
    if *is_packet {
        return put_packet(socket, data);
    }
    let udp = UdpRepr { src_port: from.port, dst_port: to.port };
    let len = UDP_HEADER + data.len();
    let checksums = ChecksumCapabilities::default();
    let body = |room: &mut [u8]| {
        let mut packet = UdpPacket::new_unchecked(room);
        let fill = |room: &mut [u8]| room.copy_from_slice(data);
        udp.emit(&mut packet, &from.ip.into(), &to.ip.into(), data.len(), fill, &checksums);
    };
    match (from.ip, to.ip) {
        (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
            let ip = Ipv4Repr { src_addr, dst_addr, next_header: IpProtocol::Udp, payload_len: len, hop_limit: *hops };
            if let Ok(room) = socket.send(ip.buffer_len() + len) {
                ip.emit(&mut Ipv4Packet::new_unchecked(&mut *room), &checksums);
                body(&mut room[ip.buffer_len()..]);
            }
        }
        (IpAddr::V6(src_addr), IpAddr::V6(dst_addr)) => {
            let ip = Ipv6Repr { src_addr, dst_addr, next_header: IpProtocol::Udp, payload_len: len, hop_limit: *hops };
            if let Ok(room) = socket.send(ip.buffer_len() + len) {
                ip.emit(&mut Ipv6Packet::new_unchecked(&mut *room));
                body(&mut room[ip.buffer_len()..]);
            }
        }
        _ => {}
    }
}

fn put_packet(socket: &mut Socket<'static>, packet: &[u8]) {
    if let Ok(room) = socket.send(packet.len()) {
        room.copy_from_slice(packet);
    }
}

impl Lanes {
    pub fn new() -> Self {
        Lanes {
            queue: VecDeque::new(),
            fast: Lane::new(vec![0; ROOM]),
            slow: BTreeMap::new(),
            held: None,
            retry: false,
            due: None,
        }
    }

    pub fn add(&mut self, mut datagrams: VecDeque<Outgoing>) {
        datagrams.truncate(QUEUE.saturating_sub(self.queue.len()));
        if self.queue.is_empty() {
            self.queue = datagrams;
        } else if self.queue.try_reserve(datagrams.len()).is_ok() {
            self.queue.append(&mut datagrams);
        }
    }

    pub fn retry(&mut self) {
        self.retry = true;
    }

    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// True: there is more to send, and room for it in the card.
    pub fn turn(&mut self, wire: &mut Wire) -> bool {
        // Without room nothing is due: the card rings.
        let due = self.due.take();
        if let Some(hop) = self.held.take()
            && !self.fast.flush(wire)
        {
            self.keep(wire, hop);
        }
        if !wire.phy.starved && (self.retry || due.is_some_and(|due| due <= wire.now)) {
            self.try_slow(wire);
        }
        for _ in 0..SENT {
            if wire.phy.starved {
                return false;
            }
            if self.held.is_some() {
                break;
            }
            let Some(datagram) = self.queue.pop_front() else { break };
            self.send(wire, datagram);
        }
        self.due = self.slow_due(wire);
        let more = !self.queue.is_empty();
        if self.held.is_some() && !wire.phy.starved {
            // There was no memory for another lane.
            self.due = Some(wire.now.saturating_add(INTERVAL));
            return false;
        }
        more && !wire.phy.starved
    }

    fn slow_due(&mut self, wire: &mut Wire) -> Option<Instant> {
        // No more often than the stack asks for a neighbour.
        let soonest = wire.now.saturating_add(INTERVAL);
        self.slow.values().filter_map(|lane| wire.due(&lane.sockets)).min().map(|due| due.max(soonest))
    }

    fn send(&mut self, wire: &mut Wire, datagram: Outgoing) {
        let Some(hop) = wire.settings.next_hop(datagram.to.ip) else { return };
        wire.routed |= hop != datagram.to.ip;
        if let Some(lane) = self.slow.get_mut(&hop) {
            if lane.waiting.len() >= WAITING {
                lane.waiting.pop_front();
            }
            if lane.waiting.try_reserve(1).is_ok() {
                lane.waiting.push_back(datagram);
            }
        } else if self.slow.len() >= MOST_LANES && !is_known(wire, hop) {
            // It would have to wait, and there is no room for that.
        } else if !self.fast.send(wire, &datagram) {
            self.keep(wire, hop);
        }
    }

    /// The fast lane could not send what is in it.
    fn keep(&mut self, wire: &Wire, hop: IpAddr) {
        if wire.phy.starved {
            self.held = Some(hop);
            return;
        }
        let mut room = Vec::new();
        if room.try_reserve_exact(ROOM).is_err() {
            self.held = Some(hop);
            return;
        }
        room.resize(ROOM, 0);
        let mut lane = core::mem::replace(&mut self.fast, Lane::new(room));
        lane.since = wire.now;
        if self.slow.len() < MOST_LANES {
            self.slow.insert(hop, lane);
        }
    }

    /// Lanes whose neighbour has answered send what they have; those whose neighbour does not lose it.
    fn try_slow(&mut self, wire: &mut Wire) {
        self.retry = false;
        let now = wire.now;
        let mut free = VecDeque::new();
        self.slow.retain(|_, lane| {
            if lane.flush(wire) {
                // What there is no memory for is lost.
                if free.try_reserve(lane.waiting.len()).is_ok() {
                    free.append(&mut lane.waiting);
                }
                return false;
            }
            now.saturating_since(lane.since) < NEIGHBOUR_TIME
        });
        if free.try_reserve(self.queue.len()).is_ok() {
            free.append(&mut self.queue);
            self.queue = free;
        }
    }
}
