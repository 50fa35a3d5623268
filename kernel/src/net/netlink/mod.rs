//! Netlink sockets: netlink(7). Programs ask the kernel about the network with them, and change it.
//!
//! ```text
//!   sendmsg ─▶ each message of the datagram ─▶ route, diag ─▶ one answer, or an acknowledgement ─▶ inbox ─▶ recvmsg
//!                                                 └─▶ a Dump ─▶ its first part ─────────────────────▶ ▲
//!                                                       recvmsg that makes room ─▶ its next part ─────┘
//! ```
//!
//! * [`NetlinkSocket`]: what a program holds. [`table`]: the ports of sockets, and who listens to which group.
//! * [`work`]: requests and lists that a socket has not finished.
//! * [`message`]: how messages are written and read; what programs send is looked at there and nowhere else.
//! * [`route`]: NETLINK_ROUTE, rtnetlink(7). [`diag`]: NETLINK_SOCK_DIAG, sock_diag(7).
//!
//! The kernel answers at once, in the sender's own call. A list of things is made part by part as its reader takes them, so
//! nobody can make the kernel hold a long one: what remains between two parts is a [`work::Dump`], that is the request and a place.
//! Tables may be long and most of what is in them not wanted: work that takes long is done in steps, between which others run
//! ([`work`]).
//!
//! Locks: the state of a socket, and the table, are leaves. No list is made under either.

mod diag;
mod message;
mod route;
mod socket;
mod table;
#[cfg(test)]
mod tests;
mod work;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use linux_raw_sys::net as socket_raw;
use linux_raw_sys::netlink as raw;

use self::message::{LONGEST, Writer};
use self::work::{Dump, Requests};
use super::socket::{Common, Type};
use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::fs::{Events, FileOps, sigio};
use crate::process::{self, Caps, Thread};
use crate::sync::SpinLock;

pub use route::{tell_address_of, tell_link, tell_settings};
pub use table::{Row, rows};

pub const AF_NETLINK: u16 = socket_raw::AF_NETLINK as u16;
const ROUTE: u8 = raw::NETLINK_ROUTE as u8;
const DIAG: u8 = raw::NETLINK_SOCK_DIAG as u8;
/// MAX_LINKS of Linux.
const PROTOCOLS: i32 = 32;
/// How many groups a protocol has: RTNLGRP_MAX of Linux 6.1, and the least.
const ROUTE_GROUPS: u32 = 36;
const OTHER_GROUPS: u32 = 32;
/// What a datagram takes up in the receive buffer besides its bytes, about as on Linux.
const OVERHEAD: usize = 768;
/// Bytes of a part of a list: the least, and the most for a reader with so much room (as Linux has it).
const PART: usize = 3776;
const MOST_PART: usize = 32_448;

const READABLE: Events = Events::IN.union(Events::RDNORM);

/// A socket of AF_NETLINK of the SOCK_* `kind`.
pub fn make(t: &Thread, kind: u32, protocol: i32) -> Result<Arc<dyn FileOps>> {
    let kind = match kind {
        socket_raw::SOCK_RAW => Type::Raw,
        socket_raw::SOCK_DGRAM => Type::Datagram,
        // SOCK_MAX.
        11.. => return Err(Errno::EINVAL),
        _ => return Err(Errno::ESOCKTNOSUPPORT),
    };
    let known = u8::try_from(protocol).ok().filter(|known| matches!(*known, ROUTE | DIAG) && protocol < PROTOCOLS);
    let admin = t.creds().capable(Caps::NET_ADMIN);
    Ok(NetlinkSocket::new(kind, known.ok_or(Errno::EPROTONOSUPPORT)?, admin))
}

pub struct NetlinkSocket {
    this: Weak<NetlinkSocket>,
    common: Common,
    /// Who made it may change the network.
    admin: bool,
    /// Its own port; 0: none yet.
    port: AtomicU32,
    /// The groups whose messages it wants: bit 0 is group 1.
    groups: AtomicU64,
    /// Options of SOL_NETLINK that are on, by their bits.
    options: AtomicU32,
    state: SpinLock<State>,
    queue: WaitQueue,
    /// Its last descriptor is closed.
    closed: AtomicBool,
}

#[derive(Default)]
struct State {
    /// connect(2): port, groups.
    peer: (u32, u32),
    inbox: VecDeque<Datagram>,
    /// What these take up, bytes.
    charge: usize,
    /// Something was lost; nothing comes until all is read.
    congested: bool,
    /// How often.
    drops: u32,
    /// The most room that a reader had.
    reader: usize,
    dump: Option<Box<Dump>>,
    /// Somebody makes the next part of it; somebody else wanted it meanwhile.
    dumping: bool,
    again: bool,
    /// What is left of a datagram for the kernel; somebody is at it.
    requests: VecDeque<Requests>,
    serving: bool,
}

struct Datagram {
    /// Those who listen to a group have it in common.
    data: Arc<Box<[u8]>>,
    /// The port it comes from (0: the kernel), and its group.
    from: u32,
    group: u32,
}

impl Datagram {
    fn of_kernel(data: Box<[u8]>) -> Self {
        Datagram { data: Arc::new(data), from: 0, group: 0 }
    }
}

/// Tells those who listen to a group; `write` makes the message, if there is anybody.
fn notify(group: u32, write: &mut dyn FnMut(&mut Writer)) {
    let mut message = None;
    for listener in table::listeners(ROUTE, group) {
        if message.is_none() {
            let Ok(mut out) = Writer::new(LONGEST, 0, 0) else { return };
            write(&mut out);
            out.end();
            let Ok(data) = out.into_bytes() else { return };
            message = Some(Arc::new(data));
        }
        message.iter().cloned().for_each(|data| _ = listener.deliver(Datagram { data, from: 0, group }));
    }
}

impl NetlinkSocket {
    fn new(kind: Type, protocol: u8, admin: bool) -> Arc<NetlinkSocket> {
        Arc::new_cyclic(|this| NetlinkSocket {
            this: this.clone(),
            common: Common::new(AF_NETLINK, kind, protocol),
            admin,
            port: AtomicU32::new(0),
            groups: AtomicU64::new(0),
            options: AtomicU32::new(0),
            state: SpinLock::new(State::default()),
            queue: WaitQueue::new(),
            closed: AtomicBool::new(false),
        })
    }

    fn protocol(&self) -> u8 {
        self.common.protocol
    }

    fn port(&self) -> u32 {
        self.port.load(Ordering::Acquire)
    }

    fn group_count(&self) -> u32 {
        if self.protocol() == ROUTE { ROUTE_GROUPS } else { OTHER_GROUPS }
    }

    fn is_on(&self, option: u32) -> bool {
        self.options.load(Ordering::Relaxed) & 1 << option != 0
    }

    fn receive_buffer(&self) -> usize {
        self.common.receive_buffer.load(Ordering::Relaxed) as usize
    }

    /// May who runs change the network through this socket?
    fn is_admin(&self) -> bool {
        let capable =
            |task: Option<&process::Task>| task.is_some_and(|task| task.shared_creds().capable(Caps::NET_ADMIN));
        self.admin && process::with_current(capable)
    }

    /// Puts a datagram into the inbox. False: there was no room, which the next call of the reader tells.
    fn deliver(&self, datagram: Datagram) -> bool {
        let mut state = self.state.lock();
        if self.closed.load(Ordering::Acquire) {
            return false;
        }
        if state.congested || state.charge > self.receive_buffer() || state.inbox.try_reserve(1).is_err() {
            state.drops = state.drops.saturating_add(1);
            // It ends when all is read.
            let congested = !state.inbox.is_empty();
            let news = !core::mem::replace(&mut state.congested, congested) && !self.is_on(raw::NETLINK_NO_ENOBUFS);
            drop(state);
            if news {
                self.common.set_error(Errno::ENOBUFS);
                self.queue.wake(usize::MAX, sigio::QUIET | sigio::ERR);
            }
            return false;
        }
        state.push(datagram);
        drop(state);
        self.wake_reader();
        true
    }

    fn wake_reader(&self) {
        self.queue.wake(usize::MAX, READABLE.bits() | sigio::IN);
    }

    fn wake_writer(&self) {
        self.queue.wake(usize::MAX, Events::OUT.bits());
    }

    fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        table::remove(self);
        let state = core::mem::take(&mut *self.state.lock());
        drop(state);
    }
}

impl State {
    fn push(&mut self, datagram: Datagram) {
        self.charge += datagram.data.len() + OVERHEAD;
        self.inbox.push_back(datagram);
    }
}

impl Drop for NetlinkSocket {
    /// For a socket that never got a descriptor.
    fn drop(&mut self) {
        self.close();
    }
}
