//! TCP_DEFER_ACCEPT: connections that a listener is told of when something has come, or when it has waited long enough.

use alloc::sync::Arc;
use core::time::Duration;

use super::{ARRIVED, State, TcpSocket};
use crate::errno::{Errno, Result};
use crate::exec::{Instant, sleep_until, spawn};

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
            state.waiting.push_back(connection);
            return true;
        };
        connection.state.lock().deferred_by = Some(self.this.clone());
        let weak = Arc::downgrade(&connection);
        state.deferred.insert(weak.as_ptr().addr(), connection);
        spawn("tcp", async move {
            sleep_until(Instant::now().saturating_add(time)).await;
            if let Some(connection) = weak.upgrade() {
                connection.admit();
            }
        });
        false
    }

    /// Something has come for this connection: its listener is told of it.
    #[cold]
    pub(super) fn admit(&self) {
        let Some((listener, connection)) = self.take_from_listener() else { return };
        let mut state = listener.state.lock();
        state.waiting.push_back(connection);
        drop(state);
        listener.queue.wake(1, ARRIVED);
    }

    /// The connection is reset before its listener was told of it.
    #[cold]
    pub(super) fn give_up_deferred(&self) {
        drop(self.take_from_listener());
    }

    fn take_from_listener(&self) -> Option<(Arc<TcpSocket>, Arc<TcpSocket>)> {
        let listener = self.state.lock().deferred_by.take()?.upgrade()?;
        let connection = listener.state.lock().deferred.remove(&core::ptr::from_ref(self).addr())?;
        Some((listener, connection))
    }
}
