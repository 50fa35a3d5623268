//! TCP_DEFER_ACCEPT: connections that a listener is told of when something has come, or when it has waited long enough.

use alloc::sync::Arc;
use core::time::Duration;

use super::{ARRIVED, State, TcpSocket};
use crate::errno::{Errno, Result};
use crate::exec::{Instant, Notify, spawn, timeout};
use crate::net::inet::events;

/// A connection that its listener is not told of so far.
pub(super) struct Deferred {
    pub connection: Arc<TcpSocket>,
    /// To be dropped without locks.
    over: Over,
}

/// Ends the wait for the time.
struct Over(Arc<Notify>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.notify();
    }
}

impl State {
    /// Room for one more connection of a listener, which may come to those that accept(2) answers later.
    pub(super) fn reserve(&mut self) -> Result<()> {
        let room = self.deferred.len() + 1;
        self.waiting.try_reserve(room).map_err(|_| Errno::ENOMEM)
    }

    /// Connections that accept(2) has not answered.
    pub(super) fn crowd(&self) -> usize {
        self.waiting.len() + self.deferred.len()
    }
}

impl TcpSocket {
    /// Of a listener.
    pub(super) fn deferral(&self) -> Option<Duration> {
        self.tcp.lock().deferral()
    }

    /// A connection for this listener, whose `state` is locked and has room. True: accept(2) may answer it.
    pub(super) fn add_connection(
        &self,
        state: &mut State,
        connection: Arc<TcpSocket>,
        deferral: Option<Duration>,
    ) -> bool {
        let Some(time) = deferral else {
            events::connection(events::Connection::Answered);
            state.waiting.push_back(connection);
            return true;
        };
        connection.state.lock().deferred_by = Some(self.this.clone());
        let weak = Arc::downgrade(&connection);
        let over = Arc::new(Notify::new());
        state.deferred.insert(weak.as_ptr().addr(), Deferred { connection, over: Over(over.clone()) });
        spawn("tcp", async move {
            let elapsed = timeout(Some(Instant::now().saturating_add(time)), over.wait()).await.is_err();
            if let Some(connection) = weak.upgrade().filter(|_| elapsed) {
                connection.admit();
            }
        });
        false
    }

    /// Something has come for this connection: its listener is told of it.
    #[cold]
    pub(super) fn admit(&self) {
        let Some(listener) = self.forget_listener() else { return };
        let mut state = listener.state.lock();
        // If it is still there, the listener still listens, and has room for it.
        let Some(Deferred { connection, over }) = state.deferred.remove(&self.key()) else { return };
        events::connection(events::Connection::Answered);
        state.waiting.push_back(connection);
        drop(state);
        drop(over);
        listener.queue.wake(1, ARRIVED);
    }

    /// The connection is reset before its listener was told of it.
    #[cold]
    pub(super) fn give_up_deferred(&self) {
        let Some(listener) = self.forget_listener() else { return };
        let mut state = listener.state.lock();
        let given_up = state.deferred.remove(&self.key());
        let crowd = !state.pending.is_empty();
        drop(state);
        drop(given_up);
        if crowd {
            listener.admit_pending();
        }
    }

    fn forget_listener(&self) -> Option<Arc<TcpSocket>> {
        self.state.lock().deferred_by.take()?.upgrade()
    }

    fn key(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }
}
