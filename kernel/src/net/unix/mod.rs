//! Unix sockets: unix(7).
//!
//! A sender puts what it sends straight into the receiver's [`inbox`], under the receiver's lock, and wakes the
//! receiver's queue. Bytes of a stream are in a ring of pages, so a message costs no allocation; datagrams are boxes.
//! Sockets know each other by weak references. A socket ends when its last descriptor does ([`FileOps::released`]), even
//! if a call that goes on elsewhere (connect(2) to it, a datagram for it) still holds it: that is when such calls are told.
//!
//! Who waits for room in whose inbox: a stream's writer on its own queue, woken by the reader through its peer; a
//! datagram's sender on its own queue, too, after it left its name with the receiver (`State::blocked`); connect(2) on
//! the listener's `room`.
//!
//! Sockets that have descriptors are in [`registry`], for /proc/net/unix and sock_diag(7).

mod connect;
mod inbox;
mod message;
mod name;
mod registry;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use linux_raw_sys::ioctl::{FIONREAD, TIOCOUTQ};
use linux_raw_sys::net as raw;

use self::inbox::{Inbox, Packet, Stream};
use self::name::Name;
use super::socket::{Address, Common, Outgoing, Receive, Received, Socket, Target, Type, Ucred, tell_ioctl};
use super::{interface, rights};
use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::fs::writing::Sigpipe;
use crate::fs::{Events, FileOps, Op, OpenFile, TryError, sigio};
use crate::mm::IoBuf;
use crate::process::Thread;
use crate::sync::{Once, SpinLock};
use crate::syscalls::SysResult;

pub use name::AF_UNIX;
pub use registry::{LISTEN, Row, SHARDS, find, part};

/// The type of socket that socket(2) asks for by a SOCK_* `kind`.
pub fn kind(kind: u32, protocol: i32) -> Result<Type> {
    // PF_UNIX is a protocol of its own, too.
    if protocol != 0 && protocol != i32::from(AF_UNIX) {
        return Err(Errno::EPROTONOSUPPORT);
    }
    match kind {
        raw::SOCK_STREAM => Ok(Type::Stream),
        // "For portability", as net/unix has it: raw sockets are datagram sockets.
        raw::SOCK_DGRAM | raw::SOCK_RAW => Ok(Type::Datagram),
        raw::SOCK_SEQPACKET => Ok(Type::SeqPacket),
        // SOCK_MAX.
        11.. => Err(Errno::EINVAL),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

/// net.unix.max_dgram_qlen.
const MAX_DATAGRAMS: usize = 10;

pub struct UnixSocket {
    this: Weak<UnixSocket>,
    common: Common,
    state: SpinLock<State>,
    queue: WaitQueue,
    /// Where connect(2) waits for room in the backlog of this socket.
    room: WaitQueue,
    /// Bytes of messages that were sent and not received yet.
    outstanding: AtomicUsize,
    /// A sender found its buffer full: news for [`sigio`] when there is room again.
    lacked_room: AtomicBool,
    /// Whom signals of the file are for: it is told of urgent bytes.
    owner_of_file: Once<Weak<sigio::Owner>>,
    /// Its last descriptor is closed. Set before the state is emptied, so what is put there after a look at this under
    /// the state's lock is thrown away.
    closed: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Idle,
    Listening,
    Connected,
}

struct State {
    phase: Phase,
    /// Connected to; for datagrams the default destination. It may be gone.
    peer: Option<Weak<UnixSocket>>,
    /// Its name, for when it is gone.
    peer_name: Option<Arc<Name>>,
    peer_creds: Ucred,
    peer_groups: Option<Arc<[u32]>>,
    name: Option<Arc<Name>>,
    /// A bind is under way.
    binding: bool,
    receive_shut: bool,
    send_shut: bool,
    inbox: Inbox,
    /// listen(2): connections that may wait, and those that do.
    backlog: usize,
    waiting: VecDeque<Arc<UnixSocket>>,
    /// Until accept(2): who listened when this came into being.
    listener: Option<Weak<UnixSocket>>,
    blocked: Blocked,
}

/// Senders that found an inbox full, by address.
#[derive(Default)]
struct Blocked {
    senders: BTreeMap<usize, Weak<UnixSocket>>,
    /// With so many of them those that are gone are looked for.
    sweep: usize,
}

impl Blocked {
    /// It costs the same however many there are, on the average.
    fn add(&mut self, sender: &UnixSocket) {
        if self.senders.len() >= self.sweep {
            self.senders.retain(|_, there| there.strong_count() > 0);
            self.sweep = (self.senders.len() * 2).max(MAX_DATAGRAMS);
        }
        self.senders.entry(core::ptr::from_ref(sender).addr()).or_insert_with(|| sender.this.clone());
    }
}

const READABLE: Events = Events::IN.union(Events::RDNORM);
const WRITABLE: Events = Events::OUT.union(Events::WRNORM).union(Events::WRBAND);
/// Wakes who waits for something to receive, and sends signals about it.
const ARRIVED: u32 = READABLE.bits() | sigio::IN;

impl UnixSocket {
    pub fn new(kind: Type) -> Arc<UnixSocket> {
        let inbox = match kind {
            Type::Stream => Inbox::Stream(Stream::new()),
            _ => Inbox::Packets(VecDeque::new()),
        };
        Arc::new_cyclic(|this| UnixSocket {
            this: this.clone(),
            common: Common::new(AF_UNIX, kind, 0),
            state: SpinLock::new(State {
                phase: Phase::Idle,
                peer: None,
                peer_name: None,
                peer_creds: Ucred::NOBODY,
                peer_groups: None,
                name: None,
                binding: false,
                receive_shut: false,
                send_shut: false,
                inbox,
                backlog: 0,
                waiting: VecDeque::new(),
                listener: None,
                blocked: Blocked::default(),
            }),
            queue: WaitQueue::new(),
            room: WaitQueue::new(),
            outstanding: AtomicUsize::new(0),
            lacked_room: AtomicBool::new(false),
            owner_of_file: Once::new(),
            closed: AtomicBool::new(false),
        })
    }

    pub fn kind(&self) -> Type {
        self.common.kind
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Who keeps this socket alive, for the collector of [`rights`]: itself, or the socket that has yet to accept it.
    pub(super) fn owner(&self) -> usize {
        let state = self.state.lock();
        match &state.listener {
            Some(listener) => listener.as_ptr().addr(),
            None => core::ptr::from_ref(self).addr(),
        }
    }

    /// Calls `f` for the files of each message that waits here to be received.
    pub(super) fn for_each_right(&self, f: &mut dyn FnMut(&rights::Rights)) {
        self.state.lock().inbox.for_each_right(f);
    }

    /// Throws away what waits to be received.
    pub(super) fn empty(&self) {
        let state = self.state.lock();
        if state.inbox.is_empty() && state.waiting.is_empty() {
            return;
        }
        drop(state);
        let fresh = match self.kind() {
            Type::Stream => Inbox::Stream(Stream::new()),
            _ => Inbox::Packets(VecDeque::new()),
        };
        let mut in_flight = rights::lock();
        let mut state = self.state.lock();
        let old = core::mem::replace(&mut state.inbox, fresh);
        let (waiting, blocked) = (core::mem::take(&mut state.waiting), core::mem::take(&mut state.blocked));
        drop(state);
        old.for_each_right(&mut |rights| rights.land(&mut in_flight));
        drop(in_flight);
        release_packets(old);
        unblock(blocked);
        drop(waiting);
    }

    fn send_buffer(&self) -> usize {
        self.common.send_buffer.load(Ordering::Relaxed) as usize
    }

    /// A message of this socket has been received, or thrown away. Like a poller, a sender that found the buffer full is
    /// told when a quarter of it is used at most.
    fn uncharge(&self, charge: usize) {
        let before = self.outstanding.fetch_sub(charge, Ordering::AcqRel);
        if before * 4 > self.send_buffer() && (before - charge) * 4 <= self.send_buffer() {
            self.wake_sender();
        }
    }

    /// There is room in the send buffer again.
    fn wake_sender(&self) {
        let lacked = self.lacked_room.load(Ordering::Relaxed) && self.lacked_room.swap(false, Ordering::Relaxed);
        self.queue.wake(usize::MAX, WRITABLE.bits() | if lacked { sigio::OUT } else { 0 });
    }

    /// Could a message be sent to the peer without waiting? If not, this socket is woken when that changes.
    fn can_send(&self) -> bool {
        let state = self.state.lock();
        if state.phase == Phase::Listening {
            return false;
        }
        let peer = state.peer.as_ref().and_then(Weak::upgrade);
        drop(state);
        if self.kind() == Type::Stream {
            return match &peer {
                Some(peer) => matches!(&peer.state.lock().inbox, Inbox::Stream(stream) if stream.has_room()),
                None => true,
            };
        }
        let own = self.outstanding.load(Ordering::Acquire) * 4 <= self.send_buffer();
        own && peer.is_none_or(|peer| peer.admits(self))
    }

    /// Has the inbox room for a datagram of `sender`? If not, `sender` is woken when it has.
    fn admits(&self, sender: &UnixSocket) -> bool {
        let mut state = self.state.lock();
        state.admits(self.kind(), sender)
    }
}

impl State {
    fn admits(&mut self, kind: Type, sender: &UnixSocket) -> bool {
        let Inbox::Packets(packets) = &self.inbox else { return true };
        // Two that are connected to each other are bounded by their send buffers only.
        let mutual = self.peer.as_ref().is_some_and(|peer| core::ptr::eq(peer.as_ptr(), sender));
        if kind != Type::Datagram || mutual || packets.len() <= MAX_DATAGRAMS {
            return true;
        }
        self.blocked.add(sender);
        false
    }
}

/// Gives back what messages took up in their senders' buffers. To be called without locks.
fn release_packets(inbox: Inbox) {
    if let Inbox::Packets(packets) = inbox {
        packets.into_iter().for_each(release);
    }
}

fn release(packet: Packet) {
    if let Some(sender) = packet.sender.upgrade() {
        sender.uncharge(packet.charge);
    }
}

/// Tells senders that there is room now. To be called without locks.
fn unblock(blocked: Blocked) {
    for sender in blocked.senders.values().filter_map(Weak::upgrade) {
        sender.queue.wake(usize::MAX, WRITABLE.bits());
    }
}

impl UnixSocket {
    /// The last descriptor is closed: lets go of everything, and tells everybody who waits for this socket.
    fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let connects = self.kind().connects();
        let mut state = self.state.lock();
        state.phase = Phase::Idle;
        (state.receive_shut, state.send_shut) = (true, true);
        let peer = state.peer.take().and_then(|peer| peer.upgrade());
        let (name, blocked) = (state.name.take(), core::mem::take(&mut state.blocked));
        // Unread bytes, or a connection that nobody accepted: the peer is told that they are lost.
        let lost = state.inbox.has_unread() || state.listener.is_some();
        drop(state);
        if let Some(name) = name {
            name::release(&name, self);
        }
        registry::remove(self);
        if connects && let Some(peer) = peer {
            // First the error: who finds the end looks for it.
            if lost {
                peer.common.set_error(Errno::ECONNRESET);
            }
            let mut state = peer.state.lock();
            state.receive_shut = true;
            state.send_shut = true;
            drop(state);
            peer.queue.wake(usize::MAX, sigio::QUIET | sigio::HUP);
        }
        unblock(blocked);
        self.empty();
        self.room.wake_all();
    }
}

impl Drop for UnixSocket {
    /// The same for a socket that never got a descriptor; and what came while it was being closed goes.
    fn drop(&mut self) {
        self.close();
        self.empty();
    }
}

impl FileOps for UnixSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_socket(&self) -> Option<&dyn Socket> {
        Some(self)
    }

    fn try_read(&self, file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        if buf.is_empty() {
            return Ok(0);
        }
        if let Some(result) = self.receive_plain(buf) {
            return result;
        }
        // Descriptors that come along are closed: nobody asked for them.
        Ok(self.try_receive(buf, Receive { nonblock: file.is_nonblock(), ..Receive::default() })?.len)
    }

    fn try_write(&self, _file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        self.try_send(buf, &mut Outgoing::plain())
    }

    fn answers_at_once(&self) -> bool {
        !self.has_limits()
    }

    fn has_limits(&self) -> bool {
        self.common.has_limits()
    }

    fn sigpipe(&self) -> Sigpipe {
        if self.kind() == Type::Stream { Sigpipe::IfNothingWritten } else { Sigpipe::Never }
    }

    fn released(&self) {
        self.close();
        // No message has held one that never had a descriptor.
        rights::collect();
    }

    fn ready(&self) -> Events {
        let state = self.state.lock();
        let mut events = Events::empty();
        if self.common.has_error() {
            events |= Events::ERR;
        }
        if state.receive_shut && state.send_shut || self.kind().connects() && state.phase == Phase::Idle {
            events |= Events::HUP;
        }
        if state.receive_shut {
            events |= Events::RDHUP | READABLE;
        }
        if !state.inbox.is_empty() || !state.waiting.is_empty() {
            events |= READABLE;
        }
        if state.inbox.is_urgent() {
            events |= Events::PRI;
        }
        drop(state);
        if self.can_send() {
            events |= WRITABLE;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn news(&self) -> u32 {
        sigio::IN | sigio::OUT | sigio::ERR | sigio::HUP | sigio::URG
    }

    fn owned(&self, owner: &Arc<sigio::Owner>) {
        self.owner_of_file.call_once(|| Arc::downgrade(owner));
    }

    fn told(&self) {
        self.lacked_room.store(false, Ordering::Relaxed);
    }

    fn ioctl<'a>(&'a self, _file: &'a OpenFile, thread: &'a Thread, cmd: u32, arg: u64) -> Op<'a, Result<u64>> {
        const SIOCATMARK: u32 = 0x8905;
        let value = match cmd {
            SIOCATMARK => match self.state.lock().inbox.at_mark() {
                Some(answer) => usize::from(answer),
                None => return Op::ready(Err(Errno::EOPNOTSUPP)),
            },
            FIONREAD if self.is_listening() => return Op::ready(Err(Errno::EINVAL)),
            FIONREAD => self.state.lock().inbox.available(),
            TIOCOUTQ => self.unreceived(),
            _ => return interface::ioctl(thread, cmd, arg),
        };
        tell_ioctl(thread, arg, value)
    }
}

impl UnixSocket {
    /// Bytes sent and not received yet.
    fn unreceived(&self) -> usize {
        let peer = self.state.lock().peer.as_ref().and_then(Weak::upgrade);
        match (self.kind(), peer) {
            (Type::Stream, Some(peer)) => peer.state.lock().inbox.available(),
            _ => self.outstanding.load(Ordering::Relaxed),
        }
    }
}

impl Socket for UnixSocket {
    fn common(&self) -> &Common {
        &self.common
    }

    fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    fn opened(&self) {
        registry::add(self);
    }

    fn bind<'a>(&'a self, t: &'a Thread, address: &'a [u8]) -> Op<'a, Result<()>> {
        Op::boxed(self.bind_to(t, address))
    }

    fn listen(&self, t: &Thread, backlog: u32) -> Result<()> {
        self.start_listening(t, backlog)
    }

    fn try_accept(&self) -> Result<(Arc<dyn FileOps>, Address), TryError> {
        self.take_connection()
    }

    fn connect<'a>(&'a self, t: &'a Thread, address: &'a [u8], nonblock: bool) -> Op<'a, SysResult<()>> {
        Op::boxed(self.connect_to(t, address, nonblock))
    }

    fn local_address(&self) -> Address {
        name::to_address(self.state.lock().name.as_deref())
    }

    fn peer_address(&self) -> Result<Address> {
        let state = self.state.lock();
        let weak = state.peer.as_ref().ok_or(Errno::ENOTCONN)?;
        let (peer, kept) = (weak.upgrade(), state.peer_name.clone());
        drop(state);
        let name = peer.and_then(|peer| peer.state.lock().name.clone()).or(kept);
        Ok(name::to_address(name.as_deref()))
    }

    fn resolve<'a>(&'a self, t: &'a Thread, address: &'a [u8]) -> Op<'a, Result<Target>> {
        if self.kind() == Type::Stream {
            let connected = self.state.lock().phase == Phase::Connected;
            return Op::ready(Err(if connected { Errno::EISCONN } else { Errno::EOPNOTSUPP }));
        }
        if self.kind() == Type::SeqPacket {
            // The address is not looked at.
            return Op::ready(Ok(Target::Connected));
        }
        Op::boxed(async move { Ok(Target::Unix(name::find(t, name::parse(address)?, self.kind()).await?)) })
    }

    fn try_send(&self, buf: &mut IoBuf<'_>, message: &mut Outgoing) -> Result<usize, TryError> {
        match self.kind() {
            Type::Stream => self.send_bytes(buf, message),
            _ => self.send_packet(buf, message),
        }
    }

    fn try_receive(&self, buf: &mut IoBuf<'_>, how: Receive) -> Result<Received, TryError> {
        match self.kind() {
            Type::Stream => self.receive_bytes(buf, how),
            _ => self.receive_packet(buf, how),
        }
    }

    fn take_urgent(&self, peek: bool) -> Result<u8> {
        self.receive_urgent(peek)
    }

    fn shutdown(&self, receive: bool, send: bool) -> Result<()> {
        let mut state = self.state.lock();
        state.receive_shut |= receive;
        state.send_shut |= send;
        let peer = state.peer.as_ref().filter(|_| self.kind().connects()).and_then(Weak::upgrade);
        drop(state);
        self.queue.wake(usize::MAX, sigio::QUIET);
        self.room.wake_all();
        if let Some(peer) = peer {
            let mut state = peer.state.lock();
            state.receive_shut |= send;
            state.send_shut |= receive;
            drop(state);
            let news = match (receive, send) {
                (true, true) => sigio::HUP,
                (false, true) => sigio::IN,
                _ => 0,
            };
            peer.queue.wake(usize::MAX, sigio::QUIET | news);
        }
        Ok(())
    }

    fn is_listening(&self) -> bool {
        self.state.lock().phase == Phase::Listening
    }

    fn peer_creds(&self) -> Ucred {
        self.state.lock().peer_creds
    }

    fn peer_groups(&self) -> Option<Arc<[u32]>> {
        self.state.lock().peer_groups.clone()
    }
}

pub use connect::pair;
