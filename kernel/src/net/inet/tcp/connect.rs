//! Ports and connections: bind(2), listen(2), connect(2), accept(2).

use alloc::sync::{Arc, Weak};
use core::net::IpAddr;
use core::sync::atomic::Ordering;
use core::time::Duration;

use super::info::{SEGMENT, agreed_segments};
use super::{ARRIVED, PORTS, Phase, State, TcpSocket, Told, WRITABLE};
use crate::errno::{Errno, Result};
use crate::exec::{Instant, Interrupted, budget, interruptible, spawn, timeout};
use crate::fs::{FileOps, TryError, sigio};
use crate::net::address;
use crate::net::inet::endpoint::{self, AF_UNSPEC};
use crate::net::inet::{Endpoint, check_bindable, claim, events};
use crate::net::socket::{Address, Common};
use crate::net::{interface, limits};
use crate::process::Thread;
use crate::sync::{SpinGuard, lock_both};
use crate::syscalls::SysResult;

/// How long connect(2) goes on: what the retries of net.ipv4.tcp_syn_retries take.
const CONNECT_TIME: Duration = Duration::from_secs(127);

/// How many sockets a call ends or connects itself; a task goes on with the others.
const AT_ONCE: usize = 64;

/// What is left of a listener.
enum Left {
    Waiting(Arc<TcpSocket>),
    Pending(Weak<TcpSocket>, Attempt),
}

/// An attempt to connect; the socket may make another one at any time.
pub(super) enum Attempt {
    /// The first: from here to there.
    First(Endpoint, Endpoint),
    /// It has been waiting with this listener, at this place.
    At(Weak<TcpSocket>, u64),
}

impl State {
    pub(super) fn is_trying(&self, attempt: &Attempt) -> bool {
        self.phase == Phase::Connecting
            && match (attempt, &self.listener) {
                (Attempt::First(local, remote), None) => self.local == *local && self.remote == Some(*remote),
                (Attempt::At(listener, place), Some((own, at))) => own.ptr_eq(listener) && at == place,
                _ => false,
            }
    }
}

impl Left {
    /// Connections that nobody has accepted are reset, those that found no room refused.
    fn end(self) {
        match self {
            Left::Waiting(connection) => {
                connection.abort();
            }
            Left::Pending(socket, attempt) => {
                if let Some(socket) = socket.upgrade() {
                    socket.refuse(&attempt);
                }
            }
        }
    }
}

impl TcpSocket {
    pub(super) fn bind_to(&self, t: &Thread, address: &[u8]) -> Result<()> {
        let local = endpoint::parse_own(self.common.family, address)?;
        if local.ip.is_ipv4() && self.only_v6() {
            return Err(Errno::EINVAL);
        }
        check_bindable(t, local)?;
        self.bind_as(t.creds().euid, local)
    }

    pub(in crate::net) fn bind_as(&self, user: u32, local: Endpoint) -> Result<()> {
        let mut state = self.state.lock();
        if state.phase != Phase::Closed || state.has_port {
            return Err(Errno::EINVAL);
        }
        let claim = claim(&self.common, local, self.only_v6(), user);
        let port = PORTS.claim_given(&self.this, claim)?;
        state.local = Endpoint { ip: local.ip, port };
        state.address_given = !local.is_any();
        (state.port_given, state.has_port) = (local.port != 0, true);
        Ok(())
    }

    fn only_v6(&self) -> bool {
        self.ip.lock().only_v6
    }

    pub(in crate::net) fn start_listening(&self, user: u32, backlog: u32) -> Result<()> {
        let mut state = self.state.lock();
        if state.told != Told::Nothing || !matches!(state.phase, Phase::Closed | Phase::Listening) {
            return Err(Errno::EINVAL);
        }
        state.backlog = backlog.min(limits::BACKLOG_MAX.get()) as usize;
        if state.phase == Phase::Listening {
            drop(state);
            self.admit_pending();
            return Ok(());
        }
        if !state.has_port {
            let claim = claim(&self.common, state.local, self.only_v6(), user);
            state.local.port = PORTS.claim_any(&self.this, claim)?;
            state.has_port = true;
        }
        let local = state.local;
        PORTS.change(self, local.port, false, |claim| {
            // Perhaps it has tried to connect before.
            (claim.local, claim.remote, claim.listening) = (local, None, true);
        })?;
        (state.receive_shut, state.send_shut) = (false, false);
        state.phase = Phase::Listening;
        Ok(())
    }

    pub(super) fn stop_listening(&self) {
        let mut state = self.state.lock();
        if state.phase != Phase::Listening {
            return;
        }
        state.phase = Phase::Closed;
        let (waiting, pending) = (core::mem::take(&mut state.waiting), core::mem::take(&mut state.pending));
        let deferred = core::mem::take(&mut state.deferred);
        let local = state.local;
        if !self.forget_port(&mut state) {
            // Under the lock: listen(2) of another thread would find the old claim otherwise.
            let _ = PORTS.change(self, local.port, false, |claim| claim.listening = false);
        }
        drop(state);
        self.queue.wake(usize::MAX, sigio::QUIET);
        let connections = waiting.into_iter().chain(deferred.into_values().map(|deferred| deferred.connection));
        let this = self.this.clone();
        let pending = pending.into_iter().map(move |(place, socket)| {
            let attempt = Attempt::At(this.clone(), place);
            Left::Pending(socket, attempt)
        });
        let mut left = connections.map(Left::Waiting).chain(pending);
        left.by_ref().take(AT_ONCE).for_each(Left::end);
        if let Some(first) = left.next() {
            spawn("tcp", async move {
                for socket in core::iter::once(first).chain(left) {
                    socket.end();
                    budget().await;
                }
            });
        }
    }

    /// Gives back a port that the program has not asked for; getsockname(2) goes on to tell it, as on Linux.
    fn forget_port(&self, state: &mut State) -> bool {
        let local = state.local;
        if !state.address_given {
            state.local.ip = Endpoint::any(self.common.family).ip;
        }
        if state.port_given || !state.has_port {
            return false;
        }
        state.has_port = false;
        PORTS.release(self, local.port, None);
        true
    }

    pub(in crate::net) fn take_connection(&self) -> Result<(Arc<dyn FileOps>, Address), TryError> {
        let mut state = self.state.lock();
        if state.phase != Phase::Listening {
            return Err(Errno::EINVAL.into());
        }
        let connection = state.waiting.pop_front().ok_or(TryError::WouldBlock)?;
        let crowd = !state.pending.is_empty();
        drop(state);
        if crowd {
            self.admit_pending();
        }
        let remote = connection.state.lock().remote;
        let address = remote.unwrap_or(Endpoint::any(self.common.family)).to_address(self.common.family);
        Ok((connection, address))
    }

    /// There is room for those who wait for some.
    pub(super) fn admit_pending(&self) {
        for _ in 0..AT_ONCE {
            if !self.admit_one() {
                return;
            }
        }
        let this = self.this.clone();
        spawn("tcp", async move {
            while this.upgrade().is_some_and(|this| this.admit_one()) {
                budget().await;
            }
        });
    }

    /// False: there is no room any more, or nobody waits for it.
    fn admit_one(&self) -> bool {
        let mut state = self.state.lock();
        if state.phase != Phase::Listening || state.crowd() > state.backlog {
            return false;
        }
        let Some((place, next)) = state.pending.pop_first() else { return false };
        drop(state);
        if let (Some(next), Some(this)) = (next.upgrade(), self.this.upgrade()) {
            next.meet(&this, &Attempt::At(self.this.clone(), place));
        }
        true
    }

    /// As inet_stream_connect of Linux: what is told depends on what was told before.
    pub(super) async fn connect_to(&self, t: &Thread, address: &[u8], nonblock: bool) -> SysResult<()> {
        if address::family(address)? == AF_UNSPEC {
            self.disconnect();
            return Ok(());
        }
        let told = self.state.lock().told;
        let unfinished = match told {
            Told::Connected => return Err(Errno::EISCONN.into()),
            Told::InProgress => Errno::EALREADY,
            Told::Nothing => {
                match self.begin(t, address) {
                    Err(Errno::ENETUNREACH) => self.begin_later(t, address).await?,
                    begun => begun?,
                }
                if nonblock {
                    return Err(Errno::EINPROGRESS.into());
                }
                Errno::EINPROGRESS
            }
        };
        if self.is_connecting() {
            if nonblock {
                return Err(unfinished.into());
            }
            self.await_connection(t, unfinished).await?;
        }
        Ok(self.settle_connection()?)
    }

    /// How the connection has come out. If it has not, or has ended since, the socket is ready for another one.
    pub(in super::super) fn settle_connection(&self) -> Result<()> {
        let mut state = self.state.lock();
        if state.phase == Phase::Closed {
            let error = self.common.take_error().unwrap_or(Errno::ECONNABORTED);
            self.unconnect(state, false);
            return Err(error);
        }
        state.told = Told::Connected;
        Ok(())
    }

    pub(in crate::net) fn is_connecting(&self) -> bool {
        self.state.lock().phase == Phase::Connecting
    }

    async fn await_connection(&self, t: &Thread, unfinished: Errno) -> SysResult<()> {
        let deadline = self.common.send_deadline();
        let last = Instant::now().saturating_add(CONNECT_TIME);
        let end = deadline.map_or(last, |deadline| deadline.min(last));
        let settled = self.queue.wait_for(|| (!self.is_connecting()).then_some(()));
        match interruptible(t, timeout(Some(end), settled)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) if deadline.is_some_and(|deadline| deadline <= last) => Err(unfinished.into()),
            Ok(Err(_)) if self.give_up_connecting(None) => Err(Errno::ETIMEDOUT.into()),
            // It has come to an end just now.
            Ok(Err(_)) => Ok(()),
            Err(Interrupted) if deadline.is_some() => Err(Errno::EINTR.into()),
            Err(interrupted) => Err(interrupted.into()),
        }
    }

    /// Looks for a listener and makes the connection, or leaves it for when the listener has room.
    fn begin(&self, t: &Thread, address: &[u8]) -> Result<()> {
        if self.state.lock().phase != Phase::Closed {
            return Err(Errno::EISCONN);
        }
        let remote = endpoint::parse_peer(self.common.family, address, false)?;
        if interface::is_group(remote.ip) || remote.ip.is_ipv4() && self.only_v6() {
            return Err(Errno::ENETUNREACH);
        }
        self.begin_as(t.creds().euid, interface::source_through(remote.ip, self.common.device())?, remote)
    }

    /// There is no way to the other machine, perhaps because the machine has no address yet.
    async fn begin_later(&self, t: &Thread, address: &[u8]) -> SysResult<()> {
        let remote = endpoint::parse_peer(self.common.family, address, false)?;
        interface::await_route(t, remote.ip).await?;
        Ok(self.begin(t, address)?)
    }

    pub(in crate::net) fn begin_as(&self, user: u32, source: IpAddr, remote: Endpoint) -> Result<()> {
        let mut state = self.state.lock();
        if state.phase != Phase::Closed || state.told != Told::Nothing {
            return Err(Errno::EALREADY);
        }
        let device = self.common.device();
        let port = interface::port_through(remote.ip, device)?;
        self.take_port(user, &mut state, source, remote)?;
        state.remote = Some(remote);
        state.phase = Phase::Connecting;
        state.listener = None;
        state.told = Told::InProgress;
        (state.receive_shut, state.send_shut) = (false, false);
        (state.end_sent, state.end_received, state.ended_first) = (false, false, false);
        let local = state.local;
        events::connection(events::Connection::Begun);
        if let Some(port) = port {
            let stand_in = TcpSocket::stand_in(local, remote, Some(self.this.clone()));
            state.peer = Some(Arc::downgrade(&stand_in));
            drop(state);
            if port.connect(stand_in).is_err() {
                self.fail(Errno::ENOBUFS);
            }
            return Ok(());
        }
        drop(state);
        let attempt = Attempt::First(local, remote);
        match PORTS.find(remote, local, |claim| claim.listening && claim.hears(interface::came_through(device))) {
            Some(listener) if !core::ptr::eq(&*listener, self) => self.meet(&listener, &attempt),
            _ => self.refuse(&attempt),
        }
        Ok(())
    }

    /// Source and port of a connection that begins.
    fn take_port(&self, user: u32, state: &mut State, source: IpAddr, remote: Endpoint) -> Result<()> {
        let ip = if state.local.is_any() { source } else { state.local.ip };
        if ip.is_ipv4() != remote.ip.is_ipv4() || !interface::leads(ip, remote.ip) {
            return Err(Errno::EINVAL);
        }
        if !state.has_port {
            let mut claim = claim(&self.common, Endpoint { ip, port: 0 }, self.only_v6(), user);
            claim.remote = Some(remote);
            state.local.port = PORTS.claim_for_connection(&self.this, claim, remote)?;
            state.has_port = true;
        } else {
            PORTS.change(self, state.local.port, true, |claim| {
                claim.local.ip = ip;
                claim.remote = Some(remote);
            })?;
        }
        state.local.ip = ip;
        Ok(())
    }

    /// Nobody hears this attempt, if the socket has not given it up.
    fn refuse(&self, attempt: &Attempt) {
        let state = self.state.lock();
        if state.is_trying(attempt) {
            self.reset_locked(state);
        }
    }

    /// A socket that is connecting meets a listener.
    pub(super) fn meet(&self, listener: &Arc<TcpSocket>, attempt: &Attempt) {
        let (local, remote) = {
            let state = self.state.lock();
            let Some(remote) = state.remote.filter(|_| state.is_trying(attempt)) else { return };
            (state.local, remote)
        };
        let connection = listener.child(remote, local);
        if PORTS.share(&Arc::downgrade(&connection), Arc::as_ptr(listener), remote, local).is_err() {
            return self.refuse(attempt);
        }
        let segments = agreed_segments(remote.ip, [&self.tcp, &listener.tcp].map(|options| options.lock().segment));
        let deferral = listener.deferral();
        let (mut own, mut other) = lock_both(&self.state, &listener.state);
        if !own.is_trying(attempt) {
            return;
        }
        if other.phase != Phase::Listening {
            drop((own, other));
            return self.refuse(attempt);
        }
        if other.crowd() > other.backlog {
            let place = other.next_pending;
            other.next_pending += 1;
            own.listener = Some((Arc::downgrade(listener), place));
            other.pending.insert(place, self.this.clone());
            return;
        }
        if other.reserve().is_err() {
            drop((own, other));
            return self.refuse(attempt);
        }
        {
            let mut state = connection.state.lock();
            state.phase = Phase::Open;
            state.told = Told::Connected;
            state.segment = segments[1];
            state.peer = Some(self.this.clone());
        }
        own.listener = None;
        own.phase = Phase::Open;
        own.segment = segments[0];
        own.peer = Some(Arc::downgrade(&connection));
        let answered = listener.add_connection(&mut other, connection, deferral);
        drop((own, other));
        if answered {
            // One of those in accept(2), and everybody else.
            listener.queue.wake(1, ARRIVED);
        }
        self.queue.wake(usize::MAX, WRITABLE.bits() | sigio::OUT);
    }

    /// What accept(2) will answer: it has the listener's options.
    pub(super) fn child(&self, local: Endpoint, remote: Endpoint) -> Arc<TcpSocket> {
        let common = self.common.inherit();
        let child = TcpSocket::with(common, *self.ip.lock(), self.tcp.lock().inherit(), None);
        {
            let mut state = child.state.lock();
            state.local = local;
            state.remote = Some(remote);
            (state.address_given, state.port_given, state.has_port) = (true, true, true);
        }
        child
    }

    /// connect(2), shutdown(2) or close(2) of a socket whose connection has not been made. False: it is not connecting any more.
    pub(super) fn give_up_connecting(&self, error: Option<Errno>) -> bool {
        let mut state = self.state.lock();
        if state.phase != Phase::Connecting {
            return false;
        }
        state.phase = Phase::Closed;
        state.told = Told::Nothing;
        let listener = state.listener.take().and_then(|(listener, place)| Some((listener.upgrade()?, place)));
        let stand_in = state.peer.take().and_then(|peer| peer.upgrade());
        self.forget_port(&mut state);
        if let Some(errno) = error {
            self.common.set_error(errno);
        }
        drop(state);
        self.queue.wake(usize::MAX, sigio::QUIET);
        if let Some(stand_in) = stand_in {
            stand_in.reset();
        }
        if let Some((listener, place)) = listener {
            listener.state.lock().pending.remove(&place);
        }
        true
    }

    /// connect(2) to AF_UNSPEC.
    fn disconnect(&self) {
        let phase = loop {
            let phase = self.state.lock().phase;
            match phase {
                Phase::Listening => self.stop_listening(),
                Phase::Connecting if !self.give_up_connecting(Some(Errno::ECONNRESET)) => continue,
                Phase::Open if self.abort() => self.common.set_error(Errno::ECONNRESET),
                Phase::Connecting | Phase::Open | Phase::Closed => {}
            }
            break phase;
        };
        let state = self.state.lock();
        if state.phase == Phase::Closed {
            self.unconnect(state, phase == Phase::Closed);
        }
    }

    /// Nothing of the last connection is left for the next one.
    fn unconnect(&self, mut state: SpinGuard<'_, State>, keep_port: bool) {
        let before = (state.local, state.remote);
        state.told = Told::Nothing;
        (state.remote, state.peer) = (None, None);
        (state.receive_shut, state.send_shut) = (false, false);
        (state.end_sent, state.end_received, state.ended_first) = (false, false, false);
        (state.received, state.segment, state.urgent) = (0, SEGMENT, None);
        state.let_go();
        (state.renews, state.is_alone) = (false, false);
        self.sent.store(0, Ordering::Relaxed);
        let inbox = core::mem::replace(&mut state.inbox, crate::fs::pipe::Ring::new(0));
        if (keep_port || !self.forget_port(&mut state)) && state.has_port {
            let local = state.local;
            let _ = PORTS.change(self, before.0.port, false, |claim| (claim.local, claim.remote) = (local, None));
        }
        drop(state);
        drop(inbox);
        self.queue.wake(usize::MAX, sigio::QUIET);
    }
}

impl Common {
    /// The options that a socket has from the listener that made it.
    fn inherit(&self) -> Common {
        let new = Common::new(self.family, self.kind, self.protocol);
        new.copy_switches(self);
        let pairs = [
            (&new.send_buffer, &self.send_buffer),
            (&new.receive_buffer, &self.receive_buffer),
            (&new.receive_low, &self.receive_low),
            (&new.priority, &self.priority),
            (&new.mark, &self.mark),
        ];
        for (to, from) in pairs {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        for (to, from) in [(&new.receive_timeout, &self.receive_timeout), (&new.send_timeout, &self.send_timeout)] {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        new.set_device(self.device());
        *new.linger.lock() = *self.linger.lock();
        new
    }
}
