//! Sockets for frames, as they come and go at an interface: packet(7).
//!
//! * [`Name`] is `struct sockaddr_ll`; [`frame`]: headers. SOCK_RAW has the header of Ethernet, SOCK_DGRAM has frames without it.
//! * [`watch`]: who sees what goes by. The task of a card shows what comes and goes there; what goes through the loopback is shown by
//!   who sends it, as a frame that is made only if somebody watches. Connections of TCP of this machine to itself have
//!   no packets (`docs/decisions/050`) and cannot be seen.
//! * [`send`]: frames to the task of a card, or on the loopback back into the machine.
//! * [`options`]: statistics, auxiliary data and memberships; there are no rings.
//!
//! While nobody watches a frame costs one load.
//!
//! Locks: the state of a socket → the tables of [`watch`]; those of cards are leaves.

mod frame;
mod name;
mod options;
mod send;
mod socket;
#[cfg(test)]
mod tests;
mod watch;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use linux_raw_sys::net as raw;

use self::options::Membership;
use super::interface::{self, Device};
use super::socket::{Common, Type};
use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::fs::{Events, FileOps};
use crate::process::{Caps, Thread};
use crate::sync::SpinLock;

pub use frame::Kind;
pub use name::Name;
pub use watch::{came, gone_down, is_watched, leaves, passes_loopback};

pub const AF_PACKET: u16 = raw::AF_PACKET as u16;
/// What a frame takes up in the receive buffer besides its bytes, about as on Linux.
const OVERHEAD: usize = 768;

const READABLE: Events = Events::IN.union(Events::RDNORM);
const WRITABLE: Events = Events::OUT.union(Events::WRNORM).union(Events::WRBAND);

pub struct LinkSocket {
    this: Weak<LinkSocket>,
    common: Common,
    state: SpinLock<State>,
    queue: WaitQueue,
    memberships: SpinLock<Vec<Membership>>,
    /// PACKET_AUXDATA, PACKET_IGNORE_OUTGOING.
    tells_more: AtomicBool,
    ignores_outgoing: AtomicBool,
    /// What the card has not sent yet takes up this much.
    on_its_way: AtomicUsize,
    /// Its last descriptor is closed.
    closed: AtomicBool,
}

struct State {
    /// ETH_P_*; 0: it hears nothing.
    protocol: u16,
    /// The interface; 0: all of them.
    index: i32,
    inbox: VecDeque<Frame>,
    /// What these take up.
    charge: usize,
    /// Since somebody asked: frames that were for the socket, and those of them that found no room.
    seen: u32,
    lost: u32,
}

/// A frame that waits to be read.
struct Frame {
    data: Box<[u8]>,
    /// How long it was before the filter cut it, bytes.
    full: usize,
    /// Where what follows the header of Ethernet begins.
    network: usize,
    from: Name,
    /// Nanoseconds since 1970.
    at: u64,
}

/// What /proc/net/packet tells of a socket.
pub struct Row {
    pub kind: Type,
    pub protocol: u16,
    pub index: i32,
    pub running: bool,
    pub receiving: usize,
    pub uid: u32,
    pub inode: u64,
}

/// A socket of AF_PACKET of the SOCK_* `kind`; of the protocol only the lower half counts, which is big-endian.
pub fn make(t: &Thread, kind: u32, protocol: i32) -> Result<Arc<dyn FileOps>> {
    if !t.creds().capable(Caps::NET_RAW) {
        return Err(Errno::EPERM);
    }
    let kind = match kind {
        raw::SOCK_RAW => Type::Raw,
        raw::SOCK_DGRAM => Type::Datagram,
        // SOCK_MAX.
        11.. => return Err(Errno::EINVAL),
        _ => return Err(Errno::ESOCKTNOSUPPORT),
    };
    Ok(LinkSocket::new(kind, u16::from_be(protocol as u16)))
}

fn device_of(index: i32) -> Option<Device> {
    interface::devices().into_iter().find(|device| device.index == index)
}

/// All of them.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for socket in watch::all() {
        let state = socket.state.lock();
        let (protocol, index, receiving) = (state.protocol, state.index, state.charge);
        drop(state);
        let running = protocol != 0 && (index == 0 || device_of(index).is_some_and(|device| device.up));
        let Common { kind, uid, inode, .. } = &socket.common;
        let (uid, inode) = (uid.load(Ordering::Relaxed), inode.load(Ordering::Relaxed));
        if rows.try_reserve(1).is_ok() {
            rows.push(Row { kind: *kind, protocol, index, running, receiving, uid, inode });
        }
    }
    rows
}

impl LinkSocket {
    pub fn new(kind: Type, protocol: u16) -> Arc<LinkSocket> {
        let socket = Arc::new_cyclic(|this| LinkSocket {
            this: this.clone(),
            common: Common::new(AF_PACKET, kind, 0),
            state: SpinLock::new(State { protocol, index: 0, inbox: VecDeque::new(), charge: 0, seen: 0, lost: 0 }),
            queue: WaitQueue::new(),
            memberships: SpinLock::new(Vec::new()),
            tells_more: AtomicBool::new(false),
            ignores_outgoing: AtomicBool::new(false),
            on_its_way: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        });
        watch::add(&socket, protocol);
        socket
    }

    fn has_header(&self) -> bool {
        self.common.kind == Type::Raw
    }

    fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut state = self.state.lock();
        let (inbox, protocol) = (core::mem::take(&mut state.inbox), core::mem::take(&mut state.protocol));
        state.charge = 0;
        watch::remove(self, protocol);
        drop(state);
        drop(inbox);
        self.leave_all();
    }
}

impl Drop for LinkSocket {
    /// For a socket that never got a descriptor.
    fn drop(&mut self) {
        self.close();
    }
}
