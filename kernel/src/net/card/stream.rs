//! A TCP connection with another machine: smoltcp's socket on one side, the stand-in for the other machine's on the other.
//!
//! The stream is to the stand-in what a program is to its socket: it reads what the local program has sent, writes what has
//! come, shuts it down for a FIN and aborts it for a RST. So what the local program sees is what it sees on the loopback.

use alloc::sync::{Arc, Weak};
use alloc::task::Wake;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Waker;
use core::time::Duration;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer, State};
use smoltcp::time::Duration as StackDuration;
use smoltcp::wire::{IpEndpoint, IpListenEndpoint};

use super::engine::Wire;
use super::frame::Pair;
use super::port::Ring;
use crate::errno::{Errno, Result};
use crate::exec::{ANY, Instant, WaitEntry};
use crate::fs::TryError;
use crate::mm::{IoBuf, frames};
use crate::net::inet::Endpoint;
use crate::net::inet::tcp::TcpSocket;

/// Bytes in the stack in each direction, on top of what sockets queue; less with many connections or little memory.
const RECEIVE: usize = 128 << 10;
const SEND: usize = 64 << 10;
const LITTLE: usize = 16 << 10;
const MANY: usize = 256;
/// How long a SYN is repeated (net.ipv4.tcp_syn_retries), and bytes that are not acknowledged (tcp_retries2).
const SYN_TIME: Duration = Duration::from_secs(127);
const SEND_TIME: Duration = Duration::from_secs(924);
/// The same for a connection that no program has any more, and how long that waits for the other side's FIN (tcp_fin_timeout).
const ORPHAN_TIME: Duration = Duration::from_secs(100);
const FIN_TIME: Duration = Duration::from_secs(60);
/// How long a neighbour is asked for.
const NEIGHBOUR_TIME: Duration = Duration::from_secs(3);

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
    begun: Instant,
    heard: Instant,
    established: bool,
    /// The local end is passed on, the other machine's is.
    end_sent: bool,
    end_received: bool,
    /// The other machine has reset it.
    was_reset: bool,
    /// Why it is given up.
    failure: Option<Errno>,
    /// Since when it has been waiting for the other side's FIN with no program.
    orphaned: Option<Instant>,
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
        stand_in: Arc<TcpSocket>,
        origin: Origin,
        id: u64,
        others: usize,
    ) -> Result<Stream> {
        let little = others >= MANY || !frames::has_spare();
        let (receive, send) = if little { (LITTLE, LITTLE) } else { (RECEIVE, SEND) };
        let mut socket = Socket::new(buffer(receive)?, buffer(send)?);
        socket.set_congestion_control(CongestionControl::Reno);
        let (local, remote) = (ip_endpoint(pair.0), ip_endpoint(pair.1));
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
            begun: now,
            heard: now,
            established: false,
            end_sent: false,
            end_received: false,
            was_reset: false,
            failure: None,
            orphaned: None,
        };
        // What happened before somebody listened to the bell.
        stream.ring.wake_by_ref();
        Ok(stream)
    }

    pub fn pair(&self) -> Pair {
        self.pair
    }

    pub fn sockets(&mut self) -> &mut SocketSet<'static> {
        &mut self.sockets
    }

    fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    fn state(&self) -> State {
        self.sockets.get::<Socket>(self.handle).state()
    }

    /// In TIME-WAIT: a new connection may take its place.
    pub fn is_past(&self) -> bool {
        self.state() == State::TimeWait
    }

    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// The last segment, which `resets`, has been processed: did it end the connection?
    pub fn note_reset(&mut self, resets: bool) {
        // A listening socket goes back to listening.
        self.was_reset |= resets && matches!(self.state(), State::Closed | State::Listen);
    }

    /// From now on the bell rings again.
    pub fn quiet(&self) {
        self.ring.rung.store(false, Ordering::Release);
    }

    /// Nothing is left to do for it, and nothing to send.
    pub fn is_over(&self) -> bool {
        let socket = self.sockets.get::<Socket>(self.handle);
        match socket.state() {
            State::Closed => true,
            // It listens only for the SYN that it was made for, which was no good, or was reset.
            State::Listen => true,
            _ => false,
        }
    }

    /// An error for a connection that is being made. False: it is not for this one.
    pub fn give_up(&mut self, errno: Errno) -> bool {
        let begins = self.state() == State::SynSent;
        if begins {
            self.failure = Some(errno);
        }
        begins
    }

    /// Moves what there is to move between socket and stack.
    pub fn pump(&mut self, wire: &mut Wire, half_open: &mut usize) {
        self.watch_the_clock(wire);
        if self.failure.is_some() || self.stand_in.was_reset() {
            return self.socket().abort();
        }
        if !self.established && matches!(self.state(), State::Established | State::CloseWait) {
            self.establish(half_open);
        }
        self.set_options(wire.now);
        self.take_outgoing();
        self.bring_incoming();
        let sending = self.socket().send_queue();
        self.stand_in.note_in_stack(sending);
    }

    fn establish(&mut self, half_open: &mut usize) {
        self.established = true;
        let joined = match &self.origin {
            Origin::Begun => self.stand_in.join_peer(),
            Origin::Answered(listener) => {
                *half_open -= 1;
                listener.upgrade().is_some_and(|listener| listener.arrive(&self.stand_in))
            }
        };
        if !joined {
            self.socket().abort();
        }
    }

    fn watch_the_clock(&mut self, wire: &Wire) {
        let now = wire.now;
        let since = |begun: Instant| now.saturating_since(begun);
        match self.state() {
            State::SynSent => {
                let unknown = || {
                    let hop = wire.port.with_settings(|settings| settings.next_hop(self.pair.1.ip));
                    hop.is_none_or(|hop| !wire.port.with_neighbours(|known| known.knows(hop)))
                };
                if since(self.begun) >= SYN_TIME {
                    self.failure = Some(Errno::ETIMEDOUT);
                } else if since(self.begun) >= NEIGHBOUR_TIME && unknown() {
                    self.failure = Some(Errno::EHOSTUNREACH);
                }
            }
            State::SynReceived if since(self.begun) >= FIN_TIME => self.failure = Some(Errno::ETIMEDOUT),
            State::FinWait2 if self.stand_in.is_orphan() => {
                let begun = *self.orphaned.get_or_insert(now);
                if since(begun) >= FIN_TIME {
                    self.failure = Some(Errno::ETIMEDOUT);
                }
            }
            _ => {}
        }
    }

    fn set_options(&mut self, now: Instant) {
        let orphan = self.stand_in.is_orphan();
        let options = self.stand_in.peer_options();
        let idle = now.saturating_since(self.heard);
        let socket = self.socket();
        if let Some(options) = options {
            socket.set_nagle_enabled(!options.nodelay);
            let keep_alive =
                options.keep_alive.map(|times| if idle < times.idle { times.idle } else { times.interval });
            if socket.keep_alive() != keep_alive.and_then(stack_time) {
                socket.set_keep_alive(keep_alive.and_then(stack_time));
            }
            let sending = options.user_timeout.unwrap_or(SEND_TIME);
            let waits =
                if socket.send_queue() > 0 { Some(sending) } else { options.keep_alive.map(|times| times.total()) };
            socket.set_timeout(waits.and_then(stack_time));
        } else if orphan {
            socket.set_keep_alive(None);
            socket.set_timeout(if socket.send_queue() > 0 { stack_time(ORPHAN_TIME) } else { None });
        }
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
                Ok(Ok(_)) => {}
                Ok(Err(TryError::WouldBlock)) | Err(_) => return,
                Ok(Err(_)) => return self.socket().abort(),
            }
        }
    }

    /// What has come goes to the program.
    fn bring_incoming(&mut self) {
        while self.socket().can_recv() {
            let stand_in = self.stand_in.clone();
            let brought = self.socket().recv(|bytes| match stand_in.bring(&mut IoBuf::kernel(bytes)) {
                Ok(len) => (len, Ok(len)),
                Err(error) => (0, Err(error)),
            });
            match brought {
                Ok(Ok(1..)) => {}
                // The bell rings when the program has read.
                Ok(Ok(0) | Err(TryError::WouldBlock)) | Err(_) => return,
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

    /// The connection is over: tells the program why unless it knows.
    pub fn conclude(&mut self, half_open: &mut usize) {
        if let Some(errno) = self.failure {
            self.stand_in.fail_peer(errno);
        } else if !(self.stand_in.was_reset() || self.end_sent && self.end_received) {
            if self.was_reset {
                self.bring_incoming();
                self.stand_in.reset_peer();
            } else {
                self.stand_in.fail_peer(Errno::ETIMEDOUT);
            }
        }
        self.leave(half_open);
    }

    /// It goes away.
    pub fn leave(&mut self, half_open: &mut usize) {
        if !self.established && matches!(self.origin, Origin::Answered(_)) {
            *half_open -= 1;
        }
        self.established = true;
        self.stand_in.unwatch(&self.entry);
    }

    pub fn due(&mut self, wire: &mut Wire) -> Option<Instant> {
        let stack = wire.due(&self.sockets);
        let own = match self.state() {
            State::SynSent => {
                let first = self.begun.saturating_add(NEIGHBOUR_TIME);
                Some(if wire.now < first { first } else { self.begun.saturating_add(SYN_TIME) })
            }
            State::SynReceived => Some(self.begun.saturating_add(FIN_TIME)),
            State::FinWait2 if self.stand_in.is_orphan() => {
                Some(self.orphaned.unwrap_or(wire.now).saturating_add(FIN_TIME))
            }
            _ => None,
        };
        [stack, own].into_iter().flatten().min()
    }
}
