//! Connections with other machines: the socket that stands in for the one over there, as the task of a card handles it.
//!
//! A stand-in has no descriptor and no port. What the program sends comes into its inbox; what has come over the wire it sends.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;

use super::info::agreed_segments;
use super::options::TcpOptions;
use super::{PORTS, Phase, State, TcpSocket, Told, WRITABLE};
use crate::errno::{Errno, Result};
use crate::exec::WaitEntry;
use crate::fs::{TryError, sigio};
use crate::mm::IoBuf;
use crate::net::inet::Endpoint;
use crate::net::inet::options::IpOptions;
use crate::net::socket::{Common, Receive, Switches, Type};

/// Options of the program's socket that the stack must know.
pub struct PeerOptions {
    pub nodelay: bool,
    pub keep_alive: Option<KeepAlive>,
    /// IP_TTL or IPV6_UNICAST_HOPS.
    pub hops: u8,
    /// TCP_USER_TIMEOUT.
    pub user_timeout: Option<Duration>,
}

/// What of a stand-in the stack has.
#[derive(Default)]
pub(super) struct InStack {
    /// Bytes that it has taken, and the other machine has not acknowledged.
    bytes: AtomicUsize,
    finished: AtomicBool,
}

impl InStack {
    pub fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }
}

/// SO_KEEPALIVE with TCP_KEEPIDLE, TCP_KEEPINTVL and TCP_KEEPCNT.
#[derive(Clone, Copy)]
pub struct KeepAlive {
    pub idle: Duration,
    pub interval: Duration,
    pub count: u32,
}

/// Who listens for a connection from `remote` to `local` that comes through an interface.
pub fn find_listener(local: Endpoint, remote: Endpoint, index: i32) -> Option<Arc<TcpSocket>> {
    PORTS.find(local, remote, |claim| claim.listening && claim.hears(index))
}

impl State {
    /// What comes from a socket that this one was connected to before is not for its connection.
    pub(super) fn is_with(&self, peer: &TcpSocket) -> bool {
        self.peer.as_ref().is_some_and(|own| core::ptr::eq(own.as_ptr(), peer))
    }
}

impl TcpSocket {
    /// A socket for the machine at `remote`, whose peer here is `peer`, or will be made by a listener.
    pub fn stand_in(local: Endpoint, remote: Endpoint, peer: Option<Weak<TcpSocket>>) -> Arc<TcpSocket> {
        let mut common = Common::new(super::AF_INET, Type::Stream, super::IPPROTO_TCP);
        common.counted = None;
        // What is on its way is bounded by the program's own SO_SNDBUF and SO_RCVBUF: the stack has its buffers besides.
        common.send_buffer.store(0, Ordering::Relaxed);
        common.receive_buffer.store(0, Ordering::Relaxed);
        // The stack has no urgent bytes: they go among the others.
        common.switch(Switches::OOBINLINE, true);
        let stand_in = TcpSocket::with(common, IpOptions::new(), TcpOptions::new(), Some(InStack::default()));
        {
            let mut state = stand_in.state.lock();
            (state.local, state.remote, state.peer) = (remote, Some(local), peer);
            (state.phase, state.told) = (Phase::Open, Told::Connected);
        }
        stand_in
    }

    /// Both ends, the program's first.
    pub fn ends(&self) -> Option<(Endpoint, Endpoint)> {
        let state = self.state.lock();
        Some((state.remote?, state.local))
    }

    pub fn watch(&self, entry: &Arc<WaitEntry>) {
        self.queue.add(entry);
    }

    pub fn unwatch(&self, entry: &Arc<WaitEntry>) {
        self.queue.remove(entry);
    }

    /// The program has ended the connection without a FIN, or what came for it had nobody to read it.
    pub fn was_reset(&self) -> bool {
        self.common.has_error()
    }

    /// What the program has sent. 0: it sends no more.
    pub fn take_sent(&self, buf: &mut IoBuf<'_>) -> Result<usize, TryError> {
        self.receive_bytes(buf, Receive::default())
    }

    /// How much of it is still to be taken.
    pub fn queued(&self) -> usize {
        self.state.lock().inbox.len()
    }

    /// So many bytes of it are not acknowledged.
    pub fn note_in_stack(&self, bytes: usize) {
        if let Some(in_stack) = &self.in_stack {
            in_stack.bytes.store(bytes, Ordering::Relaxed);
        }
    }

    /// The other machine has acknowledged all, and the end; or there is no connection any more.
    pub fn note_finished(&self) {
        let Some(in_stack) = &self.in_stack else { return };
        if in_stack.finished.swap(true, Ordering::AcqRel) {
            return;
        }
        // For who lingers.
        let peer = self.state.lock().peer();
        if let Some(peer) = peer.filter(|peer| peer.is_closed()) {
            peer.queue.wake(usize::MAX, sigio::QUIET);
        }
    }

    /// How long the connection waits for the other machine's end when no program has it any more.
    pub fn end_time(&self) -> Duration {
        self.tcp.lock().end_time().unwrap_or(Duration::ZERO)
    }

    /// Bytes that the program has sent and that the other side has not acknowledged.
    pub(super) fn not_acknowledged(&self) -> usize {
        let (unsent, in_stack) = self.on_its_way();
        unsent + in_stack
    }

    /// The same: what the stack does not have yet, and what it has.
    pub(super) fn on_its_way(&self) -> (usize, usize) {
        let peer = self.state.lock().peer();
        peer.map_or((0, 0), |peer| match &peer.in_stack {
            Some(in_stack) => (peer.state.lock().inbox.len(), in_stack.bytes.load(Ordering::Relaxed)),
            // What fits into the receive buffer has been received.
            None => {
                let state = peer.state.lock();
                (state.inbox.len().saturating_sub(peer.window()).max(state.held.bytes), 0)
            }
        })
    }

    /// What has come for the program; the `rest` of it also if there is no room.
    pub fn bring(&self, buf: &mut IoBuf<'_>, rest: bool) -> Result<usize, TryError> {
        let peer = if rest { self.state.lock().peer() } else { None };
        match peer.filter(|peer| !peer.is_closed()) {
            Some(peer) => self.put_rest(&peer, buf),
            None => self.send_bytes(buf, false, false),
        }
    }

    /// No more will come.
    pub fn bring_end(&self) {
        let _ = self.shut(false, true);
    }

    pub fn reset_peer(&self) {
        self.abort();
    }

    /// Ends the program's side with this error.
    pub fn fail_peer(&self, errno: Errno) {
        let mut state = self.state.lock();
        let peer = state.peer();
        state.end();
        drop(state);
        if let Some(peer) = peer {
            peer.fail_of(self, errno);
        }
    }

    /// The connection with `stand_in` has come to this end, unless the program has another one meanwhile.
    fn fail_of(&self, stand_in: &TcpSocket, errno: Errno) {
        let state = self.state.lock();
        if state.is_with(stand_in) {
            self.fail_locked(state, errno);
        }
    }

    /// The connection that connect(2) has begun is made. False if it is not wanted any more.
    pub fn join_peer(&self) -> bool {
        let Some(peer) = self.state.lock().peer() else { return false };
        let wanted = peer.tcp.lock().segment;
        let mut state = peer.state.lock();
        if state.phase != Phase::Connecting || !state.is_with(self) {
            return false;
        }
        state.phase = Phase::Open;
        state.segment = state.remote.map_or(state.segment, |remote| agreed_segments(remote.ip, [wanted, 0])[0]);
        drop(state);
        peer.queue.wake(usize::MAX, WRITABLE.bits() | sigio::OUT);
        true
    }

    /// Is there room for one more connection that nobody has accepted?
    pub fn has_backlog(&self) -> bool {
        let state = self.state.lock();
        state.phase == Phase::Listening && state.crowd() <= state.backlog
    }

    /// A connection for this listener, from the machine that `stand_in` stands for. False: it does not listen any more.
    pub fn arrive(self: &Arc<Self>, stand_in: &Arc<TcpSocket>) -> bool {
        let Some((local, remote)) = stand_in.ends() else { return false };
        let connection = self.child(local, remote);
        if PORTS.share(&Arc::downgrade(&connection), Arc::as_ptr(self), local, remote).is_err() {
            return false;
        }
        {
            let mut state = connection.state.lock();
            (state.phase, state.told) = (Phase::Open, Told::Connected);
            state.segment = agreed_segments(remote.ip, [connection.tcp.lock().segment, 0])[0];
            state.peer = Some(Arc::downgrade(stand_in));
        }
        stand_in.state.lock().peer = Some(Arc::downgrade(&connection));
        let deferral = self.deferral();
        let mut state = self.state.lock();
        if state.phase != Phase::Listening || state.reserve().is_err() {
            drop(state);
            return false;
        }
        let answered = self.add_connection(&mut state, connection, deferral);
        drop(state);
        if answered {
            self.queue.wake(1, super::ARRIVED);
        }
        true
    }

    /// What the program at the other end has set; None if there is none any more.
    pub fn peer_options(&self) -> Option<PeerOptions> {
        let state = self.state.lock();
        let (peer, v4) = (state.peer(), state.local.ip.is_ipv4());
        drop(state);
        let peer = peer.filter(|peer| !peer.is_closed())?;
        let options = *peer.tcp.lock();
        let hops = peer.ip.lock().hops(v4);
        let keep_alive = peer.common.is_on(Switches::KEEPALIVE).then(|| options.keep_alive());
        Some(PeerOptions { nodelay: options.nodelay(), keep_alive, hops, user_timeout: options.user_timeout() })
    }

    /// Options have changed: the task of the card looks at them.
    pub(super) fn tell_stand_in(&self) {
        let peer = self.state.lock().peer();
        if let Some(peer) = peer {
            peer.queue.wake(usize::MAX, WRITABLE.bits());
        }
    }
}
