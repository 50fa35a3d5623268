//! What is left of a connection when its last descriptor is closed: SO_LINGER of socket(7), TCP_LINGER2 of tcp(7).
//!
//! Within the machine bytes have been acknowledged when they fit into the peer's receive buffer. Those beyond, and the end behind
//! them, are what close(2) waits for.

use alloc::sync::Arc;
use core::time::Duration;

use super::TcpSocket;
use crate::exec::{Instant, interruptible, timeout};
use crate::fs::{Op, sigio};
use crate::net::inet::ports::TIME_WAIT;
use crate::process::Thread;

impl TcpSocket {
    /// SO_LINGER with a time.
    pub(super) fn linger_time(&self) -> Option<Duration> {
        let (on, seconds) = *self.common.linger.lock();
        (on && seconds != 0).then(|| Duration::from_secs((seconds as u32).into()))
    }

    /// It is closed: has the other side not acknowledged all that was sent, and the end?
    pub(in crate::net) fn is_unfinished(&self) -> bool {
        let state = self.state.lock();
        let peer = state.peer().filter(|_| state.end_sent);
        drop(state);
        peer.is_some_and(|peer| match &peer.in_stack {
            Some(in_stack) => !in_stack.is_finished(),
            None => peer.state.lock().inbox.len() > peer.window(),
        })
    }

    /// Nothing is to be waited for if somebody else still has the socket.
    pub(super) fn linger_now<'a>(&'a self, thread: &'a Thread) -> Op<'a, ()> {
        let Some(time) = self.linger_time().filter(|_| self.is_closed() && self.is_unfinished()) else {
            return Op::ready(());
        };
        Op::boxed(async move {
            let finished = self.queue.wait_for(|| (!self.is_unfinished()).then_some(()));
            // Whatever ends it, the rest goes on its way without the program (sk_stream_wait_close of Linux).
            let _ = interruptible(thread, timeout(Some(Instant::now().saturating_add(time)), finished)).await;
        })
    }

    /// Something has been read, or nobody will: tells the `peer`, which perhaps lingers. False: it is not closed.
    pub(super) fn tell_lingering(&self, peer: &TcpSocket) -> bool {
        let closed = peer.is_closed();
        if closed {
            peer.queue.wake(usize::MAX, sigio::QUIET);
        }
        closed
    }

    /// The socket is about to end: who stands in for another machine goes on without it.
    pub(super) fn leave_options(&self, peer: &TcpSocket) {
        if peer.in_stack.is_some() {
            let options = *self.tcp.lock();
            *peer.tcp.lock() = options;
        }
    }

    /// The socket has been closed, first of the two: how long its port is kept, which perhaps still `waits` for the end of its peer.
    pub(super) fn time_after_end(&self, waits: bool, peer: Option<Arc<TcpSocket>>) -> Option<Duration> {
        let options = *self.tcp.lock();
        if !waits || options.end_time() == Some(TIME_WAIT) {
            return Some(TIME_WAIT);
        }
        if let Some(peer) = peer {
            peer.state.lock().renews = true;
        }
        options.end_time()
    }
}
