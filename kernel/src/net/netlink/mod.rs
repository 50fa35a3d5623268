//! Netlink sockets: netlink(7). Programs ask the kernel about the network with them, and change it.
//!
//! ```text
//!   sendmsg ─▶ each message of the datagram ─▶ route, diag ─▶ one answer, or an acknowledgement ─▶ inbox ─▶ recvmsg
//!                                                 └─▶ a Dump ─▶ its first part ─────────────────────▶ ▲
//!                                                       recvmsg that makes room ─▶ its next part ─────┘
//! ```
//!
//! * [`NetlinkSocket`]: what a program holds. [`table`]: the ports of sockets, and who listens to which group.
//! * [`message`]: how messages are written and read; what programs send is looked at there and nowhere else.
//! * [`route`]: NETLINK_ROUTE, rtnetlink(7). [`diag`]: NETLINK_SOCK_DIAG, sock_diag(7).
//!
//! The kernel answers at once, in the sender's own call. A list of things is made part by part as its reader takes them, so
//! nobody can make the kernel hold a long one: what remains between two parts is a [`Dump`], that is the request and a place.
//!
//! Locks: the state of a socket, and the table, are leaves. No list is made under either.

mod diag;
mod message;
mod route;
mod socket;
mod table;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use linux_raw_sys::net as socket_raw;
use linux_raw_sys::netlink as raw;

use self::message::{Header, LONGEST, Request, Writer};
use super::socket::{Common, Type};
use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::fs::{Events, FileOps, sigio};
use crate::mm::frames;
use crate::process::{self, Caps, Thread};
use crate::sync::SpinLock;

pub use route::{tell_link, tell_settings};
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
}

struct Datagram {
    data: Box<[u8]>,
    /// The port it comes from (0: the kernel), and its group.
    from: u32,
    group: u32,
}

/// What becomes of a request.
enum Answer {
    /// It is done.
    Done,
    /// One message.
    One(Writer),
    /// Many.
    Many(What),
}

/// A list on its way to a program.
struct Dump {
    what: What,
    seq: u32,
    port: u32,
    /// Where the next part begins: for each list its own.
    at: (usize, usize),
}

/// Of what there is a list.
enum What {
    Route(route::List),
    Sockets(diag::List),
}

impl Dump {
    /// As many messages as fit. None: that was all.
    fn part(&mut self, size: usize) -> Result<Option<Box<[u8]>>> {
        if frames::is_short() {
            return Err(Errno::ENOBUFS);
        }
        let mut out = Writer::new(size, self.seq, self.port)?;
        match &self.what {
            What::Route(list) => list.fill(&mut self.at, &mut out),
            What::Sockets(list) => list.fill(&mut self.at, &mut out),
        }
        Ok((!out.is_empty()).then(|| out.into_bytes()))
    }

    fn end(&self) -> Result<Box<[u8]>> {
        let mut out = Writer::new(LONGEST, self.seq, self.port)?;
        let (flags, errno) = match &self.what {
            What::Route(list) => list.verdict(),
            What::Sockets(list) => (raw::NLM_F_MULTI, list.errno()),
        };
        out.begin(raw::NLMSG_DONE, flags, &errno.map_or(0, |errno| -errno.get()).to_ne_bytes());
        out.end();
        Ok(out.into_bytes())
    }
}

/// Tells those who listen to a group; `write` makes the message, if there is anybody.
fn notify(group: u32, write: &mut dyn FnMut(&mut Writer)) {
    let listeners = table::listeners(ROUTE, group);
    if listeners.is_empty() {
        return;
    }
    let Ok(mut out) = Writer::new(LONGEST, 0, 0) else { return };
    write(&mut out);
    out.end();
    let data = out.into_bytes();
    for listener in listeners {
        listener.deliver(Datagram { data: data.clone(), from: 0, group });
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
            let news = !core::mem::replace(&mut state.congested, true) && !self.is_on(raw::NETLINK_NO_ENOBUFS);
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

    /// What the kernel does with a datagram: requests one after the other.
    fn serve(&self, bytes: &[u8]) {
        let (strict, admin) = (self.is_on(raw::NETLINK_GET_STRICT_CHK), self.is_admin());
        // Each may go through all there is and find nothing.
        let mut lists = 0;
        for (header, body) in message::split(bytes) {
            self.serve_one(&Request { header, body, strict, admin }, &mut lists);
        }
    }

    /// `lists`: how many were begun for the datagram.
    fn serve_one(&self, request: &Request<'_>, lists: &mut usize) {
        let is_request = request.has(raw::NLM_F_REQUEST) && u32::from(request.header.kind) >= raw::NLMSG_MIN_TYPE;
        let answer = match self.protocol() {
            _ if !is_request => Ok(Answer::Done),
            // Nobody would see the answer to a question.
            protocol
                if !(protocol == ROUTE && route::is_change(request.header.kind)) && self.state.lock().congested =>
            {
                return;
            }
            ROUTE => route::handle(request, self.port()),
            _ => diag::handle(request, self.port()),
        };
        let errno = match answer {
            Ok(Answer::Done) => None,
            Ok(Answer::One(writer)) => {
                self.deliver(Datagram { data: writer.into_bytes(), from: 0, group: 0 });
                None
            }
            Ok(Answer::Many(what)) => match self.start(what, &request.header, lists) {
                // The end of the list tells that it is done.
                Ok(()) => return,
                Err(errno) => Some(errno),
            },
            Err(errno) => Some(errno),
        };
        if errno.is_some() || request.has(raw::NLM_F_ACK) {
            match message::acknowledge(request, self.port(), errno, self.is_on(raw::NETLINK_CAP_ACK)) {
                Ok(data) => {
                    self.deliver(Datagram { data, from: 0, group: 0 });
                }
                Err(errno) => self.common.set_error(errno),
            }
        }
    }

    /// EBUSY: another list is on its way. Only the first is begun at once.
    fn start(&self, what: What, header: &Header, lists: &mut usize) -> Result<()> {
        let mut state = self.state.lock();
        if state.dump.is_some() || state.dumping {
            return Err(Errno::EBUSY);
        }
        state.dump = Some(Box::new(Dump { what, seq: header.seq, port: self.port(), at: (0, 0) }));
        *lists += 1;
        // Whoever reads what there is makes the next part.
        let later = !state.inbox.is_empty() && (*lists > 1 || state.charge >= self.receive_buffer());
        drop(state);
        if !later {
            self.advance();
        }
        Ok(())
    }

    /// Makes the next part of the list that is on its way. Readers that come meanwhile leave it to who is at it.
    fn advance(&self) {
        loop {
            let mut state = self.state.lock();
            state.again = state.dumping;
            let size = state.reader.clamp(PART, MOST_PART);
            let Some(mut dump) = state.dump.take() else { return };
            state.dumping = true;
            drop(state);
            let part = dump.part(size);
            let (data, over) = match part {
                Ok(Some(data)) => (Ok(data), false),
                Ok(None) => (dump.end(), true),
                Err(errno) => (Err(errno), true),
            };
            let mut state = self.state.lock();
            state.dumping = false;
            let again = core::mem::take(&mut state.again) && !over;
            let mut dump = Some(dump).filter(|_| !over && !self.closed.load(Ordering::Acquire));
            core::mem::swap(&mut state.dump, &mut dump);
            match data {
                Ok(data) if state.inbox.try_reserve(1).is_ok() => state.push(Datagram { data, from: 0, group: 0 }),
                Ok(_) => self.common.set_error(Errno::ENOBUFS),
                Err(errno) => self.common.set_error(errno),
            }
            drop(state);
            drop(dump);
            self.wake_reader();
            if !again {
                return;
            }
        }
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
