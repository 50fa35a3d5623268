//! Datagrams to other machines.
//!
//! They go through one raw socket of the stack, the fast lane, which is empty again at once. A datagram for a neighbour whose
//! address is not known yet stays in its lane, which becomes that neighbour's: those for others take a new one.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Weak;
use alloc::vec;
use core::net::IpAddr;
use core::time::Duration;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::raw::{PacketBuffer, PacketMetadata, Socket};
use smoltcp::wire::{IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, UdpPacket, UdpRepr};

use super::engine::Wire;
use crate::exec::Instant;
use crate::net::inet::Endpoint;
use crate::net::inet::udp::UdpSocket;

/// How long a neighbour is asked for, and how many datagrams wait for it meanwhile.
const NEIGHBOUR_TIME: Duration = Duration::from_secs(3);
const WAITING: usize = 64;
const MOST_LANES: usize = 32;
/// Datagrams in a turn.
const SENT: usize = 64;
const UDP_HEADER: usize = 8;
const MOST_FRAGMENTS: usize = 64;
/// The largest packet that the stack cuts into fragments.
pub const LARGEST: usize = 32 << 10;

/// What a datagram on its way takes up of the send buffer of its socket, which has it back when this goes.
pub struct Charge {
    socket: Weak<UdpSocket>,
    bytes: usize,
}

impl Charge {
    pub fn new(socket: Weak<UdpSocket>, bytes: usize) -> Self {
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
    /// The fast lane holds what found no room in the card.
    held: bool,
    /// A neighbour has answered.
    retry: bool,
    due: Option<Instant>,
}

impl Lane {
    fn new() -> Self {
        let none = || PacketBuffer::new(vec![], vec![]);
        let room = PacketBuffer::new(vec![PacketMetadata::EMPTY; 2], vec![0; LARGEST + 64]);
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
            wire.flush(&mut self.sockets);
            match wire.due(&self.sockets) {
                None => return true,
                Some(due) if due > Instant::BOOT || wire.phy.starved => return false,
                Some(_) => {}
            }
        }
        false
    }
}

/// Writes headers and bytes into the socket's buffer. What is too large for it is lost; its socket has been told.
fn put(socket: &mut Socket<'static>, datagram: &Outgoing) {
    let Outgoing { from, to, data, hops, .. } = datagram;
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

impl Lanes {
    pub fn new() -> Self {
        Lanes { queue: VecDeque::new(), fast: Lane::new(), slow: BTreeMap::new(), held: false, retry: false, due: None }
    }

    pub fn add(&mut self, mut datagrams: VecDeque<Outgoing>) {
        self.queue.append(&mut datagrams);
    }

    pub fn retry(&mut self) {
        self.retry = true;
    }

    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    pub fn turn(&mut self, wire: &mut Wire) {
        if self.held {
            self.held = !self.fast.flush(wire);
            if self.held && wire.phy.starved {
                return;
            }
        }
        if self.retry || self.due.is_some_and(|due| due <= wire.now) {
            self.try_slow(wire);
        }
        for _ in 0..SENT {
            if wire.phy.starved {
                return;
            }
            let Some(datagram) = self.queue.pop_front() else { break };
            self.send(wire, datagram);
        }
        self.due = if self.queue.is_empty() { self.slow_due(wire) } else { Some(wire.now) };
    }

    fn slow_due(&mut self, wire: &mut Wire) -> Option<Instant> {
        // No more often than the stack asks for a neighbour.
        let soonest = wire.now.saturating_add(Duration::from_millis(100));
        self.slow.values().filter_map(|lane| wire.due(&lane.sockets)).min().map(|due| due.max(soonest))
    }

    fn send(&mut self, wire: &mut Wire, datagram: Outgoing) {
        let Some(hop) = wire.port.with_settings(|settings| settings.next_hop(datagram.to.ip)) else { return };
        if let Some(lane) = self.slow.get_mut(&hop) {
            if lane.waiting.len() >= WAITING {
                lane.waiting.pop_front();
            }
            lane.waiting.push_back(datagram);
        } else if self.fast.send(wire, &datagram) {
        } else if wire.phy.starved {
            self.held = true;
        } else if self.slow.len() < MOST_LANES {
            let mut lane = core::mem::replace(&mut self.fast, Lane::new());
            lane.since = wire.now;
            self.slow.insert(hop, lane);
        } else {
            self.fast = Lane::new();
        }
    }

    /// Lanes whose neighbour has answered send what they have; those whose neighbour does not lose it.
    fn try_slow(&mut self, wire: &mut Wire) {
        self.retry = false;
        let now = wire.now;
        let mut free = VecDeque::new();
        self.slow.retain(|_, lane| {
            if lane.flush(wire) {
                free.append(&mut lane.waiting);
                return false;
            }
            now.saturating_since(lane.since) < NEIGHBOUR_TIME
        });
        free.append(&mut self.queue);
        self.queue = free;
    }
}
