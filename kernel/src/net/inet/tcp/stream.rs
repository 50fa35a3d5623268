//! Bytes, ends and resets.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::held::Manner;
use super::{ARRIVED, PORTS, Phase, State, TcpSocket, WRITABLE};
use crate::errno::{Errno, Result};
use crate::fs::pipe::{PIPE_BUF, Ring};
use crate::fs::{TryError, sigio};
use crate::mm::{IoBuf, PAGE_SIZE};
use crate::net::socket::Receive;
use crate::sync::SpinGuard;

impl TcpSocket {
    /// The last byte is perhaps `urgent`; or `more` will follow soon.
    pub(super) fn send_bytes(&self, buf: &mut IoBuf<'_>, more: bool, urgent: bool) -> Result<usize, TryError> {
        let state = self.state.lock();
        if state.phase == Phase::Connecting {
            return Err(TryError::WouldBlock);
        }
        if state.phase != Phase::Open || state.send_shut || self.common.has_error() {
            drop(state);
            // What this call has sent already is its answer, and the error is for the next one (tcp_sendmsg_locked of Linux).
            let error = if buf.done() > 0 { None } else { self.common.take_error() };
            return Err(error.unwrap_or(Errno::EPIPE).into());
        }
        let (peer, segment) = (state.peer(), state.segment as usize);
        drop(state);
        if buf.is_empty() {
            return Ok(0);
        }
        let manner = Manner { more: more || self.corked.load(Ordering::Relaxed), urgent, segment };
        match peer {
            Some(peer) if !peer.is_closed() => {
                let sent = self.put(&peer, buf, manner);
                if self.user_timeout.load(Ordering::Relaxed) != 0 {
                    self.watch_reader();
                }
                sent
            }
            peer => Ok(self.send_after_close(peer.as_deref(), buf)),
        }
    }

    /// Puts bytes into the peer's inbox.
    fn put(&self, peer: &Arc<TcpSocket>, buf: &mut IoBuf<'_>, manner: Manner) -> Result<usize, TryError> {
        self.put_within(peer, buf, self.limit(peer), manner)
    }

    /// The last bytes of a connection, of which so few are left that the limit does not matter.
    pub(super) fn put_rest(&self, peer: &Arc<TcpSocket>, buf: &mut IoBuf<'_>) -> Result<usize, TryError> {
        let len = peer.state.lock().inbox.len();
        // The first and the last page of them may be other ones.
        let limit = (len + buf.remaining()).next_multiple_of(PAGE_SIZE) + PAGE_SIZE;
        self.put_within(peer, buf, limit, Manner::default())
    }

    fn put_within(
        &self,
        peer: &Arc<TcpSocket>,
        buf: &mut IoBuf<'_>,
        limit: usize,
        manner: Manner,
    ) -> Result<usize, TryError> {
        let mut state = peer.state.lock();
        if state.phase != Phase::Open || !state.is_with(self) || peer.is_closed() {
            // It has been closed or reset just now, and has another connection perhaps.
            drop(state);
            return Ok(self.send_after_close(Some(peer), buf));
        }
        if state.end_sent && state.receive_shut {
            // Nobody will ever read this (RFC 1122, 4.2.2.13).
            drop(state);
            peer.reset_from(self);
            return Ok(self.send_after_close(Some(peer), buf));
        }
        let room = limit.saturating_sub(state.inbox.len());
        // As in pipes, what is small goes as a whole.
        if room < buf.remaining().min(PIPE_BUF) {
            self.lacked_room.store(true, Ordering::Relaxed);
            peer.let_come(state);
            return Err(TryError::WouldBlock);
        }
        let want = buf.remaining().min(room);
        grow(&mut state.inbox, want, limit)?;
        let cut = buf.limit(want);
        let result = state.inbox.write(buf, want <= PIPE_BUF);
        buf.extend(cut);
        let came = *result.as_ref().unwrap_or(&0);
        state.received += came as u64;
        let mut news = true;
        if (manner.more || state.held.bytes != 0) && came > 0 {
            // Whoever finds no room for all pushes what there is.
            let more = manner.more && buf.is_empty();
            news = peer.hold(&mut state, came, Manner { more, ..manner });
        }
        let urgent = manner.urgent && came > 0 && buf.is_empty();
        if urgent {
            let before = state.inbox.len() - came;
            state.mark(before, peer.is_in_line());
        }
        let deferred = state.deferred_by.is_some() && news;
        drop(state);
        let len = result?;
        self.sent.fetch_add(len as u64, Ordering::Relaxed);
        if deferred {
            peer.admit();
        }
        if urgent {
            peer.urge();
        } else if news && !peer.queue.is_empty() {
            peer.queue.wake(usize::MAX, ARRIVED);
        }
        Ok(len)
    }

    /// The other side, which `peer` was, answers bytes with a reset; the call that sent them is told by the next one.
    fn send_after_close(&self, peer: Option<&TcpSocket>, buf: &mut IoBuf<'_>) -> usize {
        let len = buf.remaining();
        buf.advance(len);
        let state = self.state.lock();
        let there = match peer {
            Some(peer) => state.is_with(peer),
            None => state.peer().is_none(),
        };
        if !there {
            // This side has another connection, too.
            return len;
        }
        let (local, remote) = (state.local, state.remote);
        self.reset_locked(state);
        if let Some(remote) = remote {
            PORTS.forget(remote, local);
        }
        len
    }

    pub(super) fn receive_bytes(&self, buf: &mut IoBuf<'_>, how: Receive) -> Result<usize, TryError> {
        let mut state = self.state.lock();
        if state.phase == Phase::Listening {
            return Err(Errno::ENOTCONN.into());
        }
        if how.peek && !how.nonblock && state.come() < how.least {
            let (len, over, peer) = (state.inbox.len(), state.receive_shut || state.phase != Phase::Open, state.peer());
            drop(state);
            if !over && !self.common.has_error() && self.can_come(len, peer.as_deref()) {
                return Err(TryError::WouldBlock);
            }
            drop(peer);
            state = self.state.lock();
        }
        if state.held.bytes != 0 || state.urgent.is_some() {
            return self.receive_marked(state, buf, how);
        }
        if state.inbox.is_empty() {
            return self.nothing_to_receive(&state, how);
        }
        if how.discard || how.peek {
            let len = state.inbox.len().min(buf.remaining());
            match (how.discard, how.peek) {
                (true, _) => buf.advance(len),
                (false, _) => return Ok(state.inbox.copy(0, buf, len)?),
            }
            if how.peek {
                return Ok(len);
            }
            let before = state.inbox.len();
            state.inbox.consume(len);
            self.made_room(state, before);
            return Ok(len);
        }
        let before = state.inbox.len();
        let len = state.inbox.read(buf)?;
        self.made_room(state, before);
        Ok(len)
    }

    /// Wakes the peer's writers if they have been waiting for this.
    pub(super) fn made_room(&self, state: SpinGuard<'_, State>, before: usize) {
        if self.tells_nobody(&state) {
            drop(state);
            return self.reset();
        }
        // Less than what any limit lets through needs nobody to look at the peer. (Who changes a limit wakes writers, too.)
        if TcpSocket::has_room(before, super::LEAST_ON_ITS_WAY) && !state.end_received {
            return;
        }
        let (after, peer) = (state.inbox.len(), state.peer());
        drop(state);
        let peer = peer.filter(|peer| !self.tell_lingering(peer));
        if let Some(peer) = peer
            && !peer.is_writable(self, before)
            && peer.is_writable(self, after)
        {
            peer.wake_sender();
        }
    }

    pub(super) fn wake_sender(&self) {
        let lacked = self.lacked_room.load(Ordering::Relaxed) && self.lacked_room.swap(false, Ordering::Relaxed);
        self.queue.wake(usize::MAX, WRITABLE.bits() | if lacked { sigio::OUT } else { 0 });
    }

    /// Why: the order is that of Linux's tcp_recvmsg.
    pub(super) fn nothing_to_receive(&self, state: &State, how: Receive) -> Result<usize, TryError> {
        if state.end_received {
            return Ok(0);
        }
        let answer = match state.phase {
            _ if state.receive_shut => Ok(0),
            Phase::Closed => Err(Errno::ENOTCONN.into()),
            _ => Err(TryError::WouldBlock),
        };
        self.common.stop(how.goes_on, answer)
    }

    /// The `peer` sends its end.
    pub(super) fn receive_end(&self, peer: &TcpSocket) {
        let mut state = self.state.lock();
        if state.phase != Phase::Open || !state.is_with(peer) {
            return;
        }
        state.end_received = true;
        state.receive_shut = true;
        state.let_go();
        if state.end_sent {
            state.end();
        }
        let news = if state.send_shut { sigio::HUP } else { sigio::IN };
        let deferred = state.deferred_by.is_some();
        drop(state);
        if deferred {
            self.admit();
        }
        self.queue.wake(usize::MAX, sigio::QUIET | news);
    }

    /// Sends its own end, once.
    fn send_end(&self) {
        let mut state = self.state.lock();
        state.send_shut = true;
        if state.phase == Phase::Open && state.end_sent && self.is_closed() {
            drop(state);
            // Who stands in for another machine waits for its end, and now not for long.
            return self.tell_stand_in();
        }
        if state.phase != Phase::Open || state.end_sent {
            return;
        }
        if state.is_alone {
            drop(state);
            return self.reset();
        }
        state.end_sent = true;
        if state.end_received {
            state.end();
        } else {
            state.ended_first = true;
        }
        let (peer, renews) = (state.peer(), state.remote.filter(|_| state.renews));
        let local = state.local;
        drop(state);
        if let Some(remote) = renews {
            PORTS.renew(remote, local);
        }
        if let Some(peer) = peer {
            peer.receive_end(self);
        }
    }

    /// A reset comes: the next call is told.
    pub(super) fn reset(&self) {
        self.reset_locked(self.state.lock());
    }

    /// One comes from `peer`.
    pub(super) fn reset_from(&self, peer: &TcpSocket) {
        let state = self.state.lock();
        if state.is_with(peer) {
            self.reset_locked(state);
        }
    }

    pub(super) fn reset_locked(&self, state: SpinGuard<'_, State>) {
        let errno = match state.phase {
            Phase::Connecting => Errno::ECONNREFUSED,
            Phase::Open if state.end_received => Errno::EPIPE,
            _ => Errno::ECONNRESET,
        };
        self.fail_locked(state, errno);
    }

    /// The connection has come to this end: the next call is told.
    pub(super) fn fail(&self, errno: Errno) {
        self.fail_locked(self.state.lock(), errno);
    }

    pub(super) fn fail_locked(&self, mut state: SpinGuard<'_, State>, errno: Errno) {
        if matches!(state.phase, Phase::Closed | Phase::Listening) {
            return;
        }
        state.end();
        state.ended_first = false;
        self.common.set_error(errno);
        let deferred = state.deferred_by.is_some();
        drop(state);
        if deferred {
            self.give_up_deferred();
        }
        self.queue.wake(usize::MAX, sigio::QUIET | sigio::ERR);
    }

    /// Ends the connection at once, and tells the peer. False: there is none any more.
    pub(super) fn abort(&self) -> bool {
        let mut state = self.state.lock();
        if state.phase != Phase::Open {
            return false;
        }
        let (local, remote, peer) = (state.local, state.remote, state.peer());
        state.end();
        state.ended_first = false;
        drop(state);
        match (peer, remote) {
            (Some(peer), _) if !peer.is_closed() => peer.reset_from(self),
            (_, Some(remote)) => PORTS.forget(remote, local),
            _ => {}
        }
        true
    }

    pub(super) fn shut(&self, receive: bool, send: bool) -> Result<()> {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Listening => {
                drop(state);
                if receive {
                    self.stop_listening();
                }
            }
            Phase::Connecting => {
                drop(state);
                if !self.give_up_connecting(Some(Errno::ECONNRESET)) {
                    // The connection was made just now.
                    return self.shut(receive, send);
                }
            }
            phase => {
                state.receive_shut |= receive;
                drop(state);
                if send {
                    self.send_end();
                }
                self.queue.wake(usize::MAX, sigio::QUIET);
                if phase == Phase::Closed {
                    return Err(Errno::ENOTCONN);
                }
                return Ok(());
            }
        }
        self.queue.wake(usize::MAX, sigio::QUIET);
        Ok(())
    }

    /// A listener can make the connection, or the peer end it, at any time: what is done is for the phase in which it is done.
    fn end_connection(&self) {
        loop {
            let state = self.state.lock();
            let (phase, unread) = (state.phase, !state.inbox.is_empty());
            drop(state);
            match phase {
                Phase::Listening => self.stop_listening(),
                Phase::Connecting if !self.give_up_connecting(None) => continue,
                Phase::Open if unread || *self.common.linger.lock() == (true, 0) => {
                    self.abort();
                }
                Phase::Open => self.send_end(),
                Phase::Connecting | Phase::Closed => {}
            }
            return;
        }
    }

    /// The last descriptor is closed. Bytes that nobody has read are lost, and the peer is told so (RFC 1122, 4.2.2.13).
    pub(super) fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let peer = self.state.lock().peer();
        if let Some(peer) = &peer {
            self.leave_options(peer);
        }
        self.end_connection();
        let mut state = self.state.lock();
        let inbox = core::mem::replace(&mut state.inbox, Ring::new(0));
        state.let_go();
        let (has_port, port) = (state.has_port, state.local.port);
        let (first, waits) = (state.ended_first, state.phase == Phase::Open);
        state.has_port = false;
        drop(state);
        drop(inbox);
        if let Some(peer) = &peer {
            self.tell_lingering(peer);
        }
        if has_port {
            PORTS.release(self, port, if first { self.time_after_end(waits, peer) } else { None });
        }
    }
}

/// Makes room for `want` more bytes, which the limit allows.
fn grow(inbox: &mut Ring, want: usize, limit: usize) -> Result<()> {
    if inbox.room() >= want {
        return Ok(());
    }
    let size = (inbox.len() + want).next_power_of_two().clamp(super::FIRST_RING, limit.max(super::FIRST_RING));
    match inbox.set_capacity(size) {
        Err(errno) if inbox.room() == 0 => Err(errno),
        _ => Ok(()),
    }
}
