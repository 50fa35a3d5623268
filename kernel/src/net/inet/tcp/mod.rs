//! TCP sockets: tcp(7).
//!
//! ```text
//!            listen              accept
//!   Closed ─────────▶ Listening ────────▶ a new socket, Open
//!     │ ▲
//!     │ │ connect: refused, or reset
//!     ▼ │         room in the backlog
//!   Connecting ─────────────────────────▶ Open ──▶ Closed: both have sent their end, or one a reset
//! ```
//!
//! Of RFC 9293's states, Open with what was sent and received of the ends is ESTABLISHED, FIN-WAIT-2 or CLOSE-WAIT; the others
//! take no time here. A socket that was closed first keeps its port in TIME-WAIT ([`super::ports`]).
//!
//! With TCP_DEFER_ACCEPT a new connection is not accepted before something has come ([`deferred`]).
//!
//! What a sender holds back ([`held`]) and where urgent data is ([`urgent`]) is known at the reader's side. close(2) may wait
//! ([`lingering`]), and who sends may wait for a reader not for ever ([`stalled`]).
//!
//! With another machine it is the same: there the peer is a socket that stands in for the one over there ([`remote`]).
//!
//! Each socket holds what its peer has sent and nobody has read (`State::inbox`), and knows the peer by a weak reference. Who
//! waits for bytes, or for room in the peer's inbox, for a connection or for the end of connect(2), does on the socket's own
//! queue. It ends with its last descriptor, as a Unix socket does.

mod connect;
mod deferred;
mod held;
mod info;
mod lingering;
mod ops;
mod options;
mod remote;
mod stalled;
mod stream;
#[cfg(test)]
mod tests;
mod urgent;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use self::held::Held;
use self::options::TcpOptions;
use self::urgent::Urgent;
use super::options::IpOptions;
use super::ports::{Holding, Ports};
use super::{AF_INET, AF_INET6, Endpoint, IPPROTO_TCP, Part, Row, told_of};
use linux_raw_sys::net as raw;

use crate::errno::Result;
use crate::exec::WaitQueue;
use crate::fs::pipe::{PIPE_BUF, Ring};
use crate::fs::{Events, sigio};
use crate::mm::PAGE_SIZE;
use crate::net::counted::{self, Counted};
use crate::net::socket::{Common, Socket, Type};
use crate::sync::{Once, SpinLock};

use remote::InStack;
pub use remote::{KeepAlive, PeerOptions, find_listener};

/// net.ipv4.tcp_wmem and tcp_rmem: what a socket begins with, bytes.
const SEND_BUFFER: u32 = 16_384;
const RECEIVE_BUFFER: u32 = 131_072;
/// What each of both grows to while it has that value.
const GROWN_BUFFER: usize = 1 << 20;
/// The most that SO_RCVLOWAT can be: half of what net.ipv4.tcp_rmem allows.
const MAX_LOW: u32 = 3 << 20;
/// The most that is on its way in one direction, whatever SO_SNDBUFFORCE says.
const MAX_ON_ITS_WAY: usize = 16 << 20;
/// The least that may be: then a third of it, of which pollers are told, has room for a small write, which goes as a whole.
const LEAST_ON_ITS_WAY: usize = 4 * PAGE_SIZE;
/// What the ring for it begins with.
const FIRST_RING: usize = 16 * PAGE_SIZE;

const READABLE: Events = Events::IN.union(Events::RDNORM);
const WRITABLE: Events = Events::OUT.union(Events::WRNORM);
const ARRIVED: u32 = READABLE.bits() | sigio::IN;

static PORTS: Ports<TcpSocket> = Ports::new();

pub struct TcpSocket {
    this: Weak<TcpSocket>,
    common: Common,
    state: SpinLock<State>,
    queue: WaitQueue,
    ip: SpinLock<IpOptions>,
    tcp: SpinLock<TcpOptions>,
    /// Whom signals of the file are for: it is told of urgent bytes.
    owner_of_file: Once<Weak<sigio::Owner>>,
    /// TCP_CORK, TCP_WINDOW_CLAMP (0: none) and TCP_NOTSENT_LOWAT (0: none).
    corked: AtomicBool,
    clamp: AtomicU32,
    unsent_low: AtomicU32,
    /// TCP_USER_TIMEOUT, ms (0: none), and whether somebody looks after that.
    user_timeout: AtomicU32,
    watches: AtomicBool,
    /// Bytes that the program has sent.
    sent: AtomicU64,
    /// A sender found no room: news for [`sigio`] when there is some again.
    lacked_room: AtomicBool,
    /// Its last descriptor is closed.
    closed: AtomicBool,
    /// Of a stand-in.
    in_stack: Option<InStack>,
    /// Of others.
    _counted: Option<Counted>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Closed,
    Listening,
    Connecting,
    Open,
}

/// What connect(2) has told its caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Told {
    Nothing,
    InProgress,
    Connected,
}

struct State {
    phase: Phase,
    told: Told,
    local: Endpoint,
    /// The program chose the address, the port.
    address_given: bool,
    port_given: bool,
    /// The port is in the table.
    has_port: bool,
    remote: Option<Endpoint>,
    peer: Option<Weak<TcpSocket>>,
    inbox: Ring,
    held: Held,
    urgent: Option<Urgent>,
    /// All bytes that have come.
    received: u64,
    /// What a segment can hold.
    segment: u32,
    /// Nothing will be received, sent: by shutdown(2), or because the connection says so.
    receive_shut: bool,
    send_shut: bool,
    end_sent: bool,
    end_received: bool,
    /// What is left of its peer waits for its end with a time of its own (TCP_LINGER2).
    renews: bool,
    /// Its end was the first one.
    ended_first: bool,
    /// Its peer does not wait any more for room here, which it does not know.
    is_alone: bool,
    /// Of a listener: how many connections wait for accept(2) at most (and one more), those that do, and sockets whose connections
    /// found no room.
    backlog: usize,
    waiting: VecDeque<Arc<TcpSocket>>,
    /// Those that wait for their first bytes, by their addresses; of one of these its listener.
    deferred: BTreeMap<usize, deferred::Deferred>,
    deferred_by: Option<Weak<TcpSocket>>,
    /// These in the order in which they came.
    pending: BTreeMap<u64, Weak<TcpSocket>>,
    next_pending: u64,
    /// In whose `pending` it is, and where.
    listener: Option<(Weak<TcpSocket>, u64)>,
}

/// TCP_LISTEN and TCP_TIME_WAIT of Linux.
pub const LISTEN: u8 = 10;
pub const TIME_WAIT: u8 = 6;

/// The sockets of a family that listen or are connected, and what is left of connections.
pub fn rows(family: u16) -> Vec<Row> {
    let mut rows = Vec::new();
    for row in PORTS.list().into_iter().filter_map(row).filter(|row| row.family == family) {
        if rows.try_reserve(1).is_ok() {
            rows.push(row);
        }
    }
    rows
}

/// Some of those of all families: see [`Ports::part`].
pub fn part(shard: usize, place: usize, most: usize) -> Part {
    told_of(PORTS.part(shard, place, most), row)
}

fn row((socket, claim): Holding<TcpSocket>) -> Option<Row> {
    match socket {
        Some(socket) => socket.row(),
        None => claim.remote.map(|remote| Row {
            family: if claim.local.ip.is_ipv4() { AF_INET } else { AF_INET6 },
            local: claim.local,
            remote,
            state: TIME_WAIT,
            sending: 0,
            receiving: 0,
            backlog: 0,
            shut: 0,
            only_v6: false,
            uid: 0,
            inode: 0,
        }),
    }
}

impl TcpSocket {
    fn row(&self) -> Option<Row> {
        let sending = self.not_acknowledged();
        let only_v6 = self.ip.lock().only_v6;
        let state = self.state.lock();
        let receiving = if state.phase == Phase::Listening { state.waiting.len() } else { state.come() };
        (state.phase != Phase::Closed).then(|| Row {
            family: self.common.family,
            backlog: state.backlog,
            shut: u8::from(state.receive_shut) | u8::from(state.send_shut) << 1,
            only_v6,
            local: state.local,
            remote: state.remote.unwrap_or(Endpoint::any(self.common.family)),
            state: state.number(),
            sending,
            receiving,
            uid: self.common.uid.load(Ordering::Relaxed),
            inode: self.common.inode.load(Ordering::Relaxed),
        })
    }

    pub fn new(family: u16) -> Arc<TcpSocket> {
        let common = Common::new(family, Type::Stream, IPPROTO_TCP);
        common.send_buffer.store(SEND_BUFFER, Ordering::Relaxed);
        common.receive_buffer.store(RECEIVE_BUFFER, Ordering::Relaxed);
        TcpSocket::with(common, IpOptions::new(), TcpOptions::new(), None)
    }

    fn with(common: Common, ip: IpOptions, tcp: TcpOptions, in_stack: Option<InStack>) -> Arc<TcpSocket> {
        let state = State::new(common.family);
        Arc::new_cyclic(|this| TcpSocket {
            this: this.clone(),
            common,
            state: SpinLock::new(state),
            queue: WaitQueue::new(),
            ip: SpinLock::new(ip),
            tcp: SpinLock::new(tcp),
            owner_of_file: Once::new(),
            corked: AtomicBool::new(tcp.corked()),
            clamp: AtomicU32::new(tcp.clamp()),
            unsent_low: AtomicU32::new(tcp.unsent_low()),
            user_timeout: AtomicU32::new(tcp.user_timeout_ms()),
            watches: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            lacked_room: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            _counted: in_stack.is_none().then(|| Counted::new(&counted::TCP_SOCKETS)),
            in_stack,
        })
    }

    pub(in crate::net) fn set_ip_option(&self, level: u32, option: u32, value: &[u8]) -> Result<()> {
        let bound = self.state.lock().has_port;
        self.ip.lock().set(&self.common, level, option, value, bound)
    }

    pub(in crate::net) fn set_tcp_option(&self, option: u32, value: &[u8]) -> Result<()> {
        let fresh = self.state.lock().phase == Phase::Closed;
        self.tcp.lock().set(option, value, fresh)?;
        self.hold_as_told(option);
        self.bound_as_told(option);
        self.tell_stand_in();
        Ok(())
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// How many bytes may be on their way to `peer`.
    fn limit(&self, peer: &TcpSocket) -> usize {
        let send = grown(self.common.send_buffer.load(Ordering::Relaxed), SEND_BUFFER);
        // Whoever sends finds room for a small write while it has less than that unsent.
        let send = match self.unsent_low.load(Ordering::Relaxed) {
            0 => send,
            low => send.min((low as usize).saturating_add(PIPE_BUF)),
        };
        bounded(send + peer.window())
    }

    /// What its receive buffer has room for.
    fn window(&self) -> usize {
        let size = grown(self.common.receive_buffer.load(Ordering::Relaxed), RECEIVE_BUFFER);
        match self.clamp.load(Ordering::Relaxed) {
            0 => size,
            clamp => size.min(clamp as usize),
        }
    }

    /// TCP_WINDOW_CLAMP, TCP_NOTSENT_LOWAT and TCP_USER_TIMEOUT.
    fn bound_as_told(&self, option: u32) {
        let options = *self.tcp.lock();
        self.clamp.store(options.clamp(), Ordering::Relaxed);
        self.unsent_low.store(options.unsent_low(), Ordering::Relaxed);
        self.user_timeout.store(options.user_timeout_ms(), Ordering::Relaxed);
        match option {
            raw::TCP_USER_TIMEOUT => self.watch_reader(),
            raw::TCP_WINDOW_CLAMP => self.receive_buffer_changed(),
            raw::TCP_NOTSENT_LOWAT => {
                self.queue.wake(usize::MAX, WRITABLE.bits());
            }
            _ => {}
        }
    }

    /// A poller is told of room when a third of it is free.
    fn has_room(len: usize, limit: usize) -> bool {
        len * 3 <= limit * 2
    }

    /// With `len` bytes in its inbox, can more come?
    fn can_come(&self, len: usize, peer: Option<&TcpSocket>) -> bool {
        peer.is_some_and(|peer| len + PIPE_BUF <= peer.limit(self))
    }

    fn can_send(&self, peer: Option<Arc<TcpSocket>>) -> bool {
        peer.is_none_or(|peer| self.is_writable(&peer, peer.state.lock().inbox.len()))
    }

    /// With `len` bytes in the inbox of `peer`, is a poller told that more can be sent? Of so few always.
    fn is_writable(&self, peer: &TcpSocket, len: usize) -> bool {
        if TcpSocket::has_room(len, LEAST_ON_ITS_WAY) {
            return true;
        }
        let low = self.unsent_low.load(Ordering::Relaxed) as usize;
        if low == 0 {
            return TcpSocket::has_room(len, self.limit(peer));
        }
        let send = grown(self.common.send_buffer.load(Ordering::Relaxed), SEND_BUFFER);
        let window = peer.window();
        len.saturating_sub(window) * 2 < low && TcpSocket::has_room(len, bounded(send + window))
    }
}

fn bounded(bytes: usize) -> usize {
    bytes.next_multiple_of(PAGE_SIZE).clamp(LEAST_ON_ITS_WAY, MAX_ON_ITS_WAY)
}

/// A buffer of this size, which grows if it is the `first` one.
fn grown(size: u32, first: u32) -> usize {
    if size == first { GROWN_BUFFER } else { size as usize }
}

impl State {
    fn new(family: u16) -> Self {
        State {
            phase: Phase::Closed,
            told: Told::Nothing,
            local: Endpoint::any(family),
            address_given: false,
            port_given: false,
            has_port: false,
            remote: None,
            peer: None,
            inbox: Ring::new(0),
            held: Held::default(),
            urgent: None,
            received: 0,
            segment: info::SEGMENT,
            receive_shut: false,
            send_shut: false,
            end_sent: false,
            end_received: false,
            ended_first: false,
            is_alone: false,
            renews: false,
            backlog: 0,
            waiting: VecDeque::new(),
            deferred: BTreeMap::new(),
            deferred_by: None,
            pending: BTreeMap::new(),
            next_pending: 0,
            listener: None,
        }
    }

    fn peer(&self) -> Option<Arc<TcpSocket>> {
        self.peer.as_ref().and_then(Weak::upgrade)
    }

    /// The connection is over; what has been received stays.
    fn end(&mut self) {
        self.phase = Phase::Closed;
        (self.receive_shut, self.send_shut) = (true, true);
    }

    /// TCP_INFO's tcpi_state: the numbers of Linux.
    fn number(&self) -> u8 {
        match (self.phase, self.end_sent, self.end_received) {
            (Phase::Open, false, false) => 1,
            (Phase::Connecting, ..) => 2,
            (Phase::Open, true, _) => 5,
            (Phase::Closed, ..) => 7,
            (Phase::Open, false, true) => 8,
            (Phase::Listening, ..) => LISTEN,
        }
    }
}

impl Drop for TcpSocket {
    /// For a socket that never got a descriptor.
    fn drop(&mut self) {
        self.close();
    }
}
