//! Who sees what goes by.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use linux_raw_sys::if_ether as ether;

use super::frame::{self, BROADCAST, Kind, NONE, Seen};
use super::name::Name;
use super::{Frame, LinkSocket, OVERHEAD, READABLE};
use crate::errno::Errno;
use crate::fs::sigio;
use crate::mm::frames;
use crate::net::card::{ETHERNET_HEADER, Port};
use crate::net::filter::View;
use crate::net::interface::{ARPHRD_ETHER, ARPHRD_LOOPBACK, LOOPBACK_INDEX};
use crate::net::listeners::Listeners;
use crate::time;

pub const ALL: u16 = ether::ETH_P_ALL as u16;
const IP: u16 = ether::ETH_P_IP as u16;
const IP6: u16 = ether::ETH_P_IPV6 as u16;

/// By ETH_P_*: those that hear something.
static WATCHING: Listeners<u16, LinkSocket> = Listeners::new();
/// Those that hear nothing: they have no protocol.
const NOTHING: u16 = 0;
/// How many of them hear something.
static COUNT: AtomicUsize = AtomicUsize::new(0);
static EVERY: Listeners<(), LinkSocket> = Listeners::new();

/// Whether anybody wants to see frames.
#[inline(always)]
pub fn is_watched() -> bool {
    COUNT.load(Ordering::Relaxed) != 0
}

pub fn all() -> impl Iterator<Item = Arc<LinkSocket>> {
    EVERY.each(())
}

pub fn add(socket: &LinkSocket, protocol: u16) {
    EVERY.add((), &socket.this);
    begin(socket, protocol);
}

pub fn remove(socket: &LinkSocket, protocol: u16) {
    EVERY.remove((), socket);
    end(socket, protocol);
}

pub fn begin(socket: &LinkSocket, protocol: u16) {
    if protocol != NOTHING {
        WATCHING.add(protocol, &socket.this);
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

pub fn end(socket: &LinkSocket, protocol: u16) {
    if protocol != NOTHING {
        WATCHING.remove(protocol, socket);
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

fn show(seen: &Seen<'_>) {
    if seen.bytes.len() < ETHERNET_HEADER {
        return;
    }
    WATCHING.each(ALL).for_each(|socket| socket.see(seen));
    // What leaves only those see who want all, as on Linux.
    if seen.kind != Kind::Outgoing && seen.protocol != ALL {
        WATCHING.each(seen.protocol).for_each(|socket| socket.see(seen));
    }
}

/// A frame has come to a card.
pub fn came(port: &Port, bytes: &[u8]) {
    let (Some(to), Some(protocol)) = (frame::target(bytes), frame::protocol(bytes)) else { return };
    let kind = Kind::of(to, port.card().mac(), BROADCAST);
    if kind == Kind::Other && !port.is_promiscuous() {
        return;
    }
    show(&Seen { bytes, index: port.index(), hardware: ARPHRD_ETHER, kind, protocol, sender: None });
}

/// A frame leaves through a card.
pub fn leaves(port: &Port, bytes: &[u8], sender: Option<*const LinkSocket>) {
    let Some(protocol) = frame::protocol(bytes) else { return };
    show(&Seen { bytes, index: port.index(), hardware: ARPHRD_ETHER, kind: Kind::Outgoing, protocol, sender });
}

/// A packet of IP from this machine to itself. What there is no memory for is not seen.
#[cold]
pub fn passes_loopback(packet: &[u8]) {
    let protocol = match packet.first().map(|first| first >> 4) {
        Some(4) => IP,
        Some(6) => IP6,
        _ => return,
    };
    let Some(bytes) = joined(&frame::header(NONE, NONE, protocol), packet) else { return };
    let _ = through_loopback(&bytes, protocol, None);
}

/// A frame goes out there and comes in again. Answers what has come.
pub fn through_loopback(bytes: &[u8], protocol: u16, sender: Option<*const LinkSocket>) -> Option<Kind> {
    let (to, comes_as) = (frame::target(bytes)?, frame::protocol(bytes)?);
    let (index, hardware) = (LOOPBACK_INDEX, ARPHRD_LOOPBACK);
    show(&Seen { bytes, index, hardware, kind: Kind::Outgoing, protocol, sender });
    let kind = Kind::of(to, NONE, NONE);
    show(&Seen { bytes, index, hardware, kind, protocol: comes_as, sender: None });
    Some(kind)
}

/// An interface is down: who is bound to it is told.
pub fn gone_down(index: i32) {
    for socket in all() {
        if socket.state.lock().index == index {
            socket.fail(Errno::ENETDOWN);
        }
    }
}

/// Both as one; None: there is no memory.
pub fn joined(head: &[u8], rest: &[u8]) -> Option<Box<[u8]>> {
    let mut all = Vec::new();
    if !frames::has_spare() || all.try_reserve_exact(head.len() + rest.len()).is_err() {
        return None;
    }
    all.extend_from_slice(head);
    all.extend_from_slice(rest);
    Some(all.into_boxed_slice())
}

impl LinkSocket {
    pub(super) fn fail(&self, errno: Errno) {
        self.common.set_error(errno);
        self.queue.wake(usize::MAX, sigio::QUIET | sigio::ERR);
    }

    /// A frame goes by that is of the socket's protocol.
    fn see(&self, seen: &Seen<'_>) {
        let index = self.state.lock().index;
        let leaves = seen.kind == Kind::Outgoing;
        let own = seen.sender.is_some_and(|sender| core::ptr::eq(sender, self));
        if index != 0 && index != seen.index || leaves && (own || self.ignores_outgoing.load(Ordering::Relaxed)) {
            return;
        }
        let start = if self.has_header() { 0 } else { ETHERNET_HEADER };
        let view = View {
            bytes: seen.bytes,
            network: ETHERNET_HEADER,
            start,
            protocol: seen.protocol,
            kind: seen.kind as u8,
            index: seen.index,
            hardware: seen.hardware,
        };
        let (Some(most), Some(bytes)) = (self.common.filter.wanted(&view), seen.bytes.get(start..)) else { return };
        // Nothing at all is wanted only by a filter, as on Linux.
        if bytes.is_empty() && !self.common.filter.is_there() {
            return;
        }
        let cut = bytes.get(..most).unwrap_or(bytes);
        // Before it is copied.
        let kept = if self.is_crowded() { None } else { joined(cut, &[]) };
        let Some(data) = kept else { return self.lose() };
        let mut from = Name::new(seen.protocol, seen.index);
        from.kind = seen.kind as u8;
        let from = from.with_address(seen.hardware, frame::source(seen.bytes).unwrap_or_default());
        let at = time::now_realtime().to_nanos();
        self.deliver(Frame { data, full: bytes.len(), network: ETHERNET_HEADER - start, from, at });
    }

    fn is_crowded(&self) -> bool {
        let limit = self.common.receive_buffer.load(Ordering::Relaxed) as usize;
        self.state.lock().charge > limit || self.closed.load(Ordering::Acquire)
    }

    fn lose(&self) {
        let mut state = self.state.lock();
        state.seen = state.seen.wrapping_add(1);
        state.lost = state.lost.wrapping_add(1);
    }

    fn deliver(&self, frame: Frame) {
        let mut state = self.state.lock();
        if self.closed.load(Ordering::Acquire) || state.inbox.try_reserve(1).is_err() {
            drop(state);
            return self.lose();
        }
        state.seen = state.seen.wrapping_add(1);
        state.charge += frame.data.len() + OVERHEAD;
        state.inbox.push_back(frame);
        drop(state);
        self.queue.wake(usize::MAX, READABLE.bits() | sigio::IN);
    }
}
