//! A TCP connection with another machine: smoltcp's socket on one side, the stand-in for the other machine's on the other.
//!
//! The stream is to the stand-in what a program is to its socket: it reads what the local program has sent, writes what has
//! come, shuts it down for a FIN and aborts it for a RST. So what the local program sees is what it sees on the loopback.

mod clock;
mod losses;

use alloc::sync::{Arc, Weak};
use alloc::task::Wake;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Waker;
use core::time::Duration;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::Duration as StackDuration;
use smoltcp::wire::{IpEndpoint, IpListenEndpoint, TcpSeqNumber};

use self::clock::SEND_TIME;
use super::Frame;
use super::frame::Pair;
use super::numbers::{Ends, Numbers};
use super::past::LastWord;
use super::phy::Sent;
use super::port::Ring;
use super::recovery::{Recovery, Said};
use super::wire::Wire;
use crate::errno::{Errno, Result};
use crate::exec::{ANY, Instant, WaitEntry};
use crate::fs::TryError;
use crate::mm::IoBuf;
use crate::net::counted::Counted;
use crate::net::inet::Endpoint;
use crate::net::inet::tcp::{PeerOptions, TcpSocket};

/// Bytes in the stack in each direction, on top of what sockets queue; less with many connections or little memory.
const RECEIVE: usize = 128 << 10;
const SEND: usize = 64 << 10;
const LITTLE: usize = 16 << 10;
/// After how long it is tried again when there was no memory for what has come.
const BREATH: Duration = Duration::from_millis(100);
/// How often a neighbour that sends is noted.
const NOTED: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub enum Origin {
    /// connect(2).
    Begun,
    /// A SYN, for this listener.
    Answered(Weak<TcpSocket>),
}

pub struct Stream {
    pair: Pair,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    stand_in: Arc<TcpSocket>,
    origin: Origin,
    ring: Arc<Ring>,
    entry: Arc<WaitEntry>,
    pub timer: Option<Instant>,
    pub numbers: Numbers,
    /// It is in a queue of the engine's.
    queued: bool,
    /// Its packets go through a gateway.
    routed: bool,
    begun: Instant,
    heard: Instant,
    /// When the neighbour was noted to be there.
    noted: Instant,
    established: bool,
    /// The local end is passed on, the other machine's is.
    end_sent: bool,
    end_received: bool,
    /// The other machine has reset it.
    was_reset: bool,
    /// Why it is given up.
    failure: Option<Errno>,
    /// It goes without another segment.
    silently: bool,
    /// No program has it any more, and how much is not acknowledged, with the FIN, and with all that an orphan is still to send,
    /// which never grows; since when that is so.
    orphan: Option<Counted>,
    left: usize,
    since: Instant,
    /// How long the program waits for an acknowledgement if it has said so (TCP_USER_TIMEOUT).
    patience: Option<Duration>,
    /// How many bytes have been acknowledged when something was sent that is not yet, and since when none has been.
    acknowledged: u64,
    stalled: Instant,
    /// How often the silent other machine has been asked whether it is there, and when that is looked at next.
    probes: u32,
    next_probe: Option<Instant>,
    /// There was no memory for what has come.
    retry: Option<Instant>,
    /// What was sent last in TIME-WAIT.
    last_word: Option<LastWord>,
    recovery: Recovery,
    /// The number of the first byte, and how many bytes the stack was given.
    first: Option<TcpSeqNumber>,
    given: u64,
    /// The number of what the other machine is to send next, as it was told last.
    expected: Option<TcpSeqNumber>,
}

fn ip_endpoint(at: Endpoint) -> IpEndpoint {
    IpEndpoint::new(at.ip.into(), at.port)
}

fn stack_time(time: Duration) -> Option<StackDuration> {
    Some(StackDuration::from_millis(time.as_millis() as u64))
}

fn buffer(size: usize) -> Result<SocketBuffer<'static>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).map_err(|_| Errno::ENOBUFS)?;
    bytes.resize(size, 0);
    Ok(SocketBuffer::new(bytes))
}

impl Stream {
    pub fn new(
        wire: &mut Wire,
        pair: Pair,
        numbers: Numbers,
        stand_in: Arc<TcpSocket>,
        origin: Origin,
        id: u64,
        little: bool,
    ) -> Result<Stream> {
        let (receive, send) = if little { (LITTLE, LITTLE) } else { (RECEIVE, SEND) };
        let mut socket = Socket::new(buffer(receive)?, buffer(send)?);
        socket.set_congestion_control(CongestionControl::Reno);
        let (local, remote) = (ip_endpoint(pair.0), ip_endpoint(pair.1));
        if remote.port == 0 {
            // The stack does not ask there, where nobody is.
            return Err(Errno::ECONNREFUSED);
        }
        let made = match origin {
            Origin::Begun => socket.connect(wire.iface.context(), remote, local).is_ok(),
            Origin::Answered(_) => socket.listen(IpListenEndpoint::from(local)).is_ok(),
        };
        if !made {
            return Err(Errno::ENETUNREACH);
        }
        let mut sockets = SocketSet::new(Vec::new());
        let handle = sockets.add(socket);
        let ring = Arc::new(Ring { port: wire.port.clone(), id, rung: AtomicBool::new(false) });
        let entry = WaitEntry::new(Waker::from(ring.clone()), ANY);
        stand_in.watch(&entry);
        let now = wire.now;
        let stream = Stream {
            pair,
            sockets,
            handle,
            stand_in,
            origin,
            ring,
            entry,
            timer: None,
            numbers,
            queued: false,
            routed: wire.settings.next_hop(pair.1.ip).is_some_and(|hop| hop != pair.1.ip),
            begun: now,
            heard: now,
            noted: now,
            established: false,
            end_sent: false,
            end_received: false,
            was_reset: false,
            failure: None,
            silently: false,
            orphan: None,
            left: 0,
            since: now,
            patience: None,
            acknowledged: 0,
            stalled: now,
            probes: 0,
            next_probe: None,
            retry: None,
            last_word: None,
            recovery: Recovery::default(),
            first: None,
            given: 0,
            expected: None,
        };
        // What happened before somebody listened to the bell.
        stream.ring.wake_by_ref();
        Ok(stream)
    }

    pub fn pair(&self) -> Pair {
        self.pair
    }

    /// Hands a frame to the stack.
    pub fn feed(&mut self, wire: &mut Wire, frame: Frame) {
        wire.phy.numbers = Some(self.numbers);
        // That of another connection.
        wire.phy.sent.ack = None;
        wire.feed(frame, &mut self.sockets);
        self.numbers = wire.phy.numbers.take().unwrap_or(self.numbers);
        self.expected = wire.phy.sent.ack.take().or(self.expected);
    }

    /// Lets the stack send. True if something went out.
    pub fn flush(&mut self, wire: &mut Wire) -> bool {
        wire.phy.numbers = Some(self.numbers);
        let sends = wire.flush(&mut self.sockets);
        self.numbers = wire.phy.numbers.take().unwrap_or(self.numbers);
        sends
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn state(&self) -> State {
        self.sockets.get::<Socket>(self.handle).state()
    }

    /// It is over: how far its numbers have come is remembered if the clock is not there.
    pub fn note_end(&self, ends: &mut Ends, now: Instant) {
        ends.note(self.pair, &self.numbers, self.given, now);
    }

    /// In TIME-WAIT: a new connection may take its place.
    pub fn is_past(&self) -> bool {
        self.state() == State::TimeWait
    }

    /// What it acknowledges now is the other end.
    fn may_say_last(&self) -> bool {
        matches!(self.state(), State::Closing | State::TimeWait)
    }

    /// It is in TIME-WAIT, and the program has all that has come: nothing is left of it but what it has said last.
    pub fn last_word(&mut self) -> Option<LastWord> {
        let ends = self.is_past() && self.end_sent && self.end_received && !self.socket().can_recv();
        self.last_word.take_if(|_| ends)
    }

    /// The program has reset it, which the other machine has not been told yet: the same.
    pub fn is_given_up(&self) -> bool {
        self.stand_in.was_reset()
    }

    /// A segment has come: its sender is there.
    pub fn heard(&mut self, wire: &Wire, said: &Said) {
        if let Said::Begins(scale) = *said
            && !self.established
        {
            self.recovery.set_scale(scale);
        }
        self.heard = wire.now;
        self.rest();
        if !self.routed && wire.now.saturating_since(self.noted) >= NOTED {
            self.noted = wire.now;
            wire.port.with_neighbours(|known| known.refresh(self.pair.1.ip, wire.now));
        }
    }

    /// The last segment, which `resets`, has been processed: did it end the connection?
    pub fn note_reset(&mut self, resets: bool) {
        // A listening socket goes back to listening.
        self.was_reset |= resets && matches!(self.state(), State::Closed | State::Listen);
    }

    /// True: it is to be put into a queue, in which it is not yet.
    pub fn enqueue(&mut self) -> bool {
        !core::mem::replace(&mut self.queued, true)
    }

    /// It is in no queue any more, and the bell rings again.
    pub fn begin_turn(&mut self) {
        self.queued = false;
        self.ring.rung.store(false, Ordering::Release);
    }

    pub fn is_routed(&self) -> bool {
        self.routed
    }

    /// The other machine has begun it, and not answered yet.
    pub fn is_half_open(&self) -> bool {
        !self.established && matches!(self.origin, Origin::Answered(_))
    }

    /// Nothing is left to do for it, and nothing to send.
    pub fn is_over(&self) -> bool {
        let socket = self.sockets.get::<Socket>(self.handle);
        match socket.state() {
            State::Closed => true,
            // It listens only for the SYN that it was made for, which was no good, or was reset.
            State::Listen => true,
            _ => self.silently,
        }
    }

    /// An error for a segment with this number of a connection that is being made. False: it is not for this one, or its sender has
    /// not seen the SYN (RFC 5927, 4.1; tcp_v4_err of Linux).
    pub fn give_up(&mut self, number: u32, errno: Errno) -> bool {
        let begins = self.state() == State::SynSent && self.numbers.is_first(number);
        if begins {
            self.failure = Some(errno);
        }
        begins
    }

    /// Lets the stack send a segment. False: there is none.
    pub fn send(&mut self, wire: &mut Wire) -> bool {
        wire.phy.sent = Sent { end: None, ack: None, frame: self.may_say_last().then(LastWord::new) };
        let sends = self.flush(wire);
        self.last_word = wire.phy.sent.frame.take().filter(|frame| !frame.is_empty()).or(self.last_word.take());
        self.expected = wire.phy.sent.ack.take().or(self.expected);
        if let Some(end) = wire.phy.sent.end {
            // That of the SYN.
            self.first.get_or_insert(end);
            self.recovery.sent(end, wire.now);
        }
        sends
    }

    /// Moves what there is to move between socket and stack.
    pub fn pump(&mut self, wire: &mut Wire) {
        // First: a program that has given up may have begun another connection with its socket.
        if self.stand_in.was_reset() {
            return self.socket().abort();
        }
        self.settle();
        let options = self.stand_in.peer_options();
        self.watch_the_clock(wire, options.as_ref());
        self.probe(wire.now, options.as_ref().and_then(|options| options.keep_alive));
        if self.failure.is_some() {
            self.silently = self.state() == State::FinWait2;
            if !self.silently {
                self.socket().abort();
            }
            return;
        }
        self.set_options(options);
        self.take_outgoing();
        self.bring_incoming(wire.now);
        let sending = self.socket().send_queue();
        self.stand_in.note_in_stack(sending);
        let ends = matches!(self.state(), State::FinWait1 | State::Closing | State::LastAck);
        if self.end_sent && sending == 0 && !ends {
            self.stand_in.note_finished();
        }
    }

    /// The program gets its connection as soon as there is one: in the same turn bytes and a reset may come. True: it is made now.
    pub fn settle(&mut self) -> bool {
        let is_made = matches!(self.state(), State::Established | State::CloseWait);
        let settles = !self.established && is_made && self.failure.is_none() && !self.stand_in.was_reset();
        if settles {
            self.establish();
        }
        settles
    }

    fn establish(&mut self) {
        self.established = true;
        self.recovery.set_trip(self.heard.saturating_since(self.begun));
        let joined = match &self.origin {
            Origin::Begun => self.stand_in.join_peer(),
            Origin::Answered(listener) => listener.upgrade().is_some_and(|listener| listener.arrive(&self.stand_in)),
        };
        if !joined {
            self.socket().abort();
        }
    }

    fn set_options(&mut self, options: Option<PeerOptions>) {
        let patience = self.patience.unwrap_or(SEND_TIME);
        let socket = self.socket();
        let mut waits = None;
        if let Some(options) = options {
            socket.set_nagle_enabled(!options.nodelay);
            // The stack refuses 0, with which no packet would leave the machine.
            socket.set_hop_limit(Some(options.hops.max(1)));
            waits = (socket.send_queue() > 0).then_some(patience);
        }
        socket.set_timeout(waits.and_then(stack_time));
    }

    /// What the program has sent goes into the stack.
    fn take_outgoing(&mut self) {
        while !self.end_sent && self.socket().can_send() {
            let stand_in = self.stand_in.clone();
            // On their way into the stack bytes are counted at least once; the right number comes after.
            stand_in.note_in_stack(self.socket().send_capacity());
            let taken = self.socket().send(|room| match stand_in.take_sent(&mut IoBuf::kernel_mut(room)) {
                Ok(len) => (len, Ok(len)),
                Err(error) => (0, Err(error)),
            });
            match taken {
                Ok(Ok(0)) => {
                    self.end_sent = true;
                    self.socket().close();
                }
                Ok(Ok(len)) => self.given = self.given.wrapping_add(len as u64),
                Ok(Err(TryError::WouldBlock)) | Err(_) => return,
                Ok(Err(_)) => return self.socket().abort(),
            }
        }
    }

    /// What has come goes to the program.
    fn bring_incoming(&mut self, now: Instant) {
        self.retry = None;
        // The rest goes whatever else waits to be read: the stack forgets it soon, and has acknowledged it.
        let coming = matches!(self.state(), State::Established | State::FinWait1 | State::FinWait2);
        while self.socket().can_recv() {
            let stand_in = self.stand_in.clone();
            let brought = self.socket().recv(|bytes| match stand_in.bring(&mut IoBuf::kernel(bytes), !coming) {
                Ok(len) => (len, Ok(len)),
                Err(error) => (0, Err(error)),
            });
            match brought {
                Ok(Ok(1..)) => {}
                // The bell rings when the program has read.
                Ok(Ok(0) | Err(TryError::WouldBlock)) | Err(_) => return,
                Ok(Err(TryError::Failed(Errno::ENOMEM))) => {
                    // The other side finds the window closed meanwhile.
                    self.retry = Some(now.saturating_add(BREATH));
                    return;
                }
                Ok(Err(_)) => return self.socket().abort(),
            }
            if self.stand_in.was_reset() {
                // Nobody will read what comes now.
                return self.socket().abort();
            }
        }
        let ended = matches!(self.state(), State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        if ended && !self.end_received {
            self.end_received = true;
            self.stand_in.bring_end();
        }
    }

    /// The connection is over: tells the program why unless it knows, and goes away.
    pub fn conclude(&mut self) {
        if !self.stand_in.was_reset() {
            self.bring_incoming(Instant::BOOT);
            if let Some(errno) = self.failure {
                self.stand_in.fail_peer(errno);
            } else if self.was_reset {
                self.stand_in.reset_peer();
            } else if !(self.end_sent && self.end_received) {
                self.stand_in.fail_peer(Errno::ETIMEDOUT);
            }
        }
        self.stand_in.note_finished();
        self.stand_in.unwatch(&self.entry);
    }

    pub fn due(&mut self, wire: &mut Wire) -> Option<Instant> {
        let own = self.deadline(wire).map(|(at, _)| at);
        [wire.due(&self.sockets), own, self.next_probe, self.retry, self.recovery.due()].into_iter().flatten().min()
    }
}
