//! Bytes that are held back: TCP_CORK and TCP_NODELAY of tcp(7), MSG_MORE of send(2).
//!
//! What fills whole segments goes at once. The rest is at the end of the peer's inbox already, where its reader does not see it
//! until the sender lets it go, or [`PATIENCE`] is over.

use alloc::sync::{Arc, Weak};
use core::sync::atomic::Ordering;
use core::time::Duration;

use linux_raw_sys::net as raw;

use super::{ARRIVED, Phase, State, TcpSocket};
use crate::exec::{Instant, sleep_until, spawn};
use crate::sync::SpinGuard;

/// tcp(7): "200 milliseconds".
const PATIENCE: Duration = Duration::from_millis(200);

/// At the end of an inbox.
#[derive(Default)]
pub(super) struct Held {
    pub bytes: usize,
    until: Option<Instant>,
    /// A task waits for that.
    is_timed: bool,
}

/// How bytes are sent.
#[derive(Clone, Copy, Default)]
pub(super) struct Manner {
    /// More will follow (MSG_MORE, TCP_CORK).
    pub more: bool,
    /// The last byte is urgent.
    pub urgent: bool,
    /// What a segment can hold.
    pub segment: usize,
}

impl State {
    /// Bytes that can be read.
    pub(super) fn come(&self) -> usize {
        self.inbox.len().saturating_sub(self.held.bytes)
    }

    /// True: something was held back.
    pub(super) fn let_go(&mut self) -> bool {
        core::mem::take(&mut self.held.bytes) != 0
    }
}

impl TcpSocket {
    /// `len` bytes more have come, whose sender holds back some, or others before. False: the reader has no more than before.
    #[cold]
    pub(super) fn hold(&self, state: &mut State, len: usize, manner: Manner) -> bool {
        let before = state.held.bytes;
        let all = before + len;
        state.held.bytes = if manner.more { all % manner.segment.max(1) } else { 0 };
        if state.held.bytes != 0 && (before == 0 || state.held.bytes < all) {
            state.held.until = Some(Instant::now().saturating_add(PATIENCE));
        }
        if state.held.bytes != 0 && !state.held.is_timed {
            state.held.is_timed = true;
            spawn("tcp", wait(self.this.clone()));
        }
        state.held.bytes < all
    }

    /// Of a reader: has the time come for what is held back? If not, when it is.
    fn time_held(&self) -> Option<Instant> {
        let mut state = self.state.lock();
        let until = state.held.until.filter(|_| state.held.bytes != 0);
        if let Some(until) = until.filter(|until| *until > Instant::now()) {
            return Some(until);
        }
        state.held.is_timed = false;
        self.let_come(state);
        None
    }

    pub(super) fn let_come(&self, mut state: SpinGuard<'_, State>) {
        // What is held back when a reset comes is lost.
        if state.phase != Phase::Open || !state.let_go() {
            return;
        }
        let deferred = state.deferred_by.is_some();
        drop(state);
        if deferred {
            self.admit();
        }
        self.queue.wake(usize::MAX, ARRIVED);
    }

    /// Of a sender: nothing is held back any more.
    pub(super) fn push(&self) {
        let peer = self.state.lock().peer();
        if let Some(peer) = peer {
            peer.let_come(peer.state.lock());
        }
    }

    /// Whoever sets TCP_NODELAY pushes what is held back even if more is to be (tcp(7)).
    pub(super) fn hold_as_told(&self, option: u32) {
        let options = *self.tcp.lock();
        self.corked.store(options.corked(), Ordering::Relaxed);
        let pushes = match option {
            raw::TCP_CORK => !options.corked(),
            raw::TCP_NODELAY => options.nodelay(),
            _ => false,
        };
        if pushes {
            self.push();
        }
    }
}

async fn wait(reader: Weak<TcpSocket>) {
    let until = |reader: Arc<TcpSocket>| reader.time_held();
    while let Some(until) = reader.upgrade().and_then(until) {
        sleep_until(until).await;
    }
}
