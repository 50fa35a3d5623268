//! Names and connections: bind(2), listen(2), connect(2), accept(2), socketpair(2).

use alloc::sync::{Arc, Weak};

use super::name::{self, Given, Name};
use super::{ARRIVED, Phase, State, UnixSocket, WRITABLE};
use crate::errno::{Errno, Result};
use crate::exec::{Interrupted, interruptible, timeout};
use crate::fs::open_file::settled;
use crate::fs::{FileOps, TryError, sigio};
use crate::net::limits;
use crate::net::socket::{Address, Socket, Switches, Type, Ucred};
use crate::process::Thread;
use crate::sync::lock_both;
use crate::syscalls::{SysError, SysResult};

/// Two sockets that are connected to each other.
pub fn pair(t: &Thread, kind: Type) -> (Arc<UnixSocket>, Arc<UnixSocket>) {
    let (a, b) = (UnixSocket::new(kind), UnixSocket::new(kind));
    for (socket, peer) in [(&a, &b), (&b, &a)] {
        let mut state = socket.state.lock();
        state.phase = Phase::Connected;
        state.peer = Some(Arc::downgrade(peer));
        state.note_peer(t);
    }
    (a, b)
}

impl State {
    /// Remembers `t` as the one at the other end.
    fn note_peer(&mut self, t: &Thread) {
        self.peer_creds = Ucred::effective(t);
        self.peer_groups = Some(t.creds().groups.clone());
    }

    /// Can a connection be left with the listener now?
    fn check_connect(&self, listener: &State) -> Result<(), TryError> {
        if listener.phase != Phase::Listening || listener.receive_shut {
            return Err(Errno::ECONNREFUSED.into());
        }
        match self.phase {
            Phase::Idle if listener.waiting.len() > listener.backlog => Err(TryError::WouldBlock),
            Phase::Idle => Ok(()),
            Phase::Connected => Err(Errno::EISCONN.into()),
            Phase::Listening => Err(Errno::EINVAL.into()),
        }
    }
}

/// A bind under way; the name stays free for others if it is given up.
struct Binding<'a>(&'a UnixSocket);

impl Drop for Binding<'_> {
    fn drop(&mut self) {
        self.0.state.lock().binding = false;
    }
}

impl UnixSocket {
    fn strong(&self) -> Result<Arc<UnixSocket>> {
        self.this.upgrade().ok_or(Errno::EBADF)
    }

    fn begin_binding(&self) -> Result<Binding<'_>> {
        let mut state = self.state.lock();
        if state.name.is_some() || state.binding {
            return Err(Errno::EINVAL);
        }
        state.binding = true;
        drop(state);
        Ok(Binding(self))
    }

    pub(super) async fn bind_to(&self, t: &Thread, address: &[u8]) -> Result<()> {
        let given = name::parse(address)?;
        if let Given::Unnamed = given {
            return self.bind_somewhere();
        }
        let _binding = self.begin_binding()?;
        let this = self.strong()?;
        let name = match given {
            Given::Path(path) => name::create(t, path).await?,
            Given::Abstract(bytes) => name::claim(&this, self.kind(), bytes)?,
            Given::Unnamed => return Err(Errno::EINVAL),
        };
        if let Name::Path { place, .. } = &name {
            place.inode().state().set_socket(&this);
        }
        self.state.lock().name = Some(Arc::new(name));
        Ok(())
    }

    /// Autobind: some abstract name, if the socket has none yet.
    pub(super) fn bind_somewhere(&self) -> Result<()> {
        if self.state.lock().name.is_some() {
            return Ok(());
        }
        let _binding = self.begin_binding()?;
        let name = name::claim_any(&self.strong()?, self.kind())?;
        self.state.lock().name = Some(Arc::new(name));
        Ok(())
    }

    pub(super) fn start_listening(&self, t: &Thread, backlog: u32) -> Result<()> {
        if !self.kind().connects() {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.state.lock();
        if state.name.is_none() || state.phase == Phase::Connected {
            return Err(Errno::EINVAL);
        }
        state.backlog = backlog.min(limits::BACKLOG_MAX.get()) as usize;
        state.phase = Phase::Listening;
        state.note_peer(t);
        drop(state);
        self.room.wake_all();
        Ok(())
    }

    pub(super) fn take_connection(&self) -> Result<(Arc<dyn FileOps>, Address), TryError> {
        if !self.kind().connects() {
            return Err(Errno::EOPNOTSUPP.into());
        }
        let mut state = self.state.lock();
        if state.phase != Phase::Listening {
            return Err(Errno::EINVAL.into());
        }
        let Some(connection) = state.waiting.pop_front() else {
            return Err(if state.receive_shut { Errno::EINVAL.into() } else { TryError::WouldBlock });
        };
        drop(state);
        connection.state.lock().listener = None;
        // There is room for one.
        self.room.wake_one();
        let address = connection.peer_address().unwrap_or_else(|_| name::to_address(None));
        Ok((connection, address))
    }

    pub(super) async fn connect_to(&self, t: &Thread, address: &[u8], nonblock: bool) -> SysResult<()> {
        if !self.kind().connects() {
            return Ok(self.set_destination(t, address).await?);
        }
        let given = name::parse(address)?;
        if self.common.is_on(Switches::PASSCRED) {
            self.bind_somewhere()?;
        }
        let listener = name::find(t, given, self.kind()).await?;
        if core::ptr::eq(&*listener, self) {
            let errno = if self.is_listening() { Errno::EINVAL } else { Errno::ECONNREFUSED };
            return Err(errno.into());
        }
        let attempt = || {
            let result = settled(self.try_connect(t, &listener));
            if matches!(result, Some(Err(_))) {
                // Whatever woke this one was meant for another.
                listener.room.wake_one();
            }
            result
        };
        let result = if nonblock {
            self.try_connect(t, &listener)
        } else {
            let deadline = self.common.send_deadline();
            match interruptible(t, timeout(deadline, listener.room.wait_for_exclusive(attempt))).await {
                Ok(Ok(result)) => result,
                Ok(Err(_)) => Err(TryError::WouldBlock),
                Err(Interrupted) if deadline.is_some() => return Err(Errno::EINTR.into()),
                Err(interrupted) => return Err(interrupted.into()),
            }
        };
        result.map_err(|error| match error {
            TryError::Failed(errno) => SysError::from(errno),
            _ => Errno::EAGAIN.into(),
        })
    }

    /// Leaves a connection with the listener, unless it has too many already.
    fn try_connect(&self, t: &Thread, listener: &UnixSocket) -> Result<(), TryError> {
        let (own, other) = lock_both(&self.state, &listener.state);
        own.check_connect(&other)?;
        drop((own, other));
        let connection = UnixSocket::new(self.kind());
        let (mut own, mut other) = lock_both(&self.state, &listener.state);
        own.check_connect(&other)?;
        other.waiting.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let mut state = connection.state.lock();
        state.phase = Phase::Connected;
        state.peer = Some(self.this.clone());
        state.peer_name = own.name.clone();
        state.name = other.name.clone();
        state.listener = Some(listener.this.clone());
        state.note_peer(t);
        drop(state);
        own.phase = Phase::Connected;
        own.peer = Some(Arc::downgrade(&connection));
        own.peer_name = other.name.clone();
        own.peer_creds = other.peer_creds;
        own.peer_groups = other.peer_groups.clone();
        // SO_PASSCRED of a listener is inherited.
        connection.common.switch(Switches::PASSCRED, listener.common.is_on(Switches::PASSCRED));
        other.waiting.push_back(connection);
        drop((own, other));
        // One of those in accept(2), and everybody else.
        listener.queue.wake(1, ARRIVED);
        self.queue.wake(usize::MAX, WRITABLE.bits());
        Ok(())
    }

    /// connect(2) of a datagram socket: where to send to from now on, and whom to receive from. AF_UNSPEC undoes it.
    async fn set_destination(&self, t: &Thread, address: &[u8]) -> Result<()> {
        let target = if crate::net::address::family(address)? == 0 {
            None
        } else {
            let given = name::parse(address)?;
            if self.common.is_on(Switches::PASSCRED) {
                self.bind_somewhere()?;
            }
            let target = name::find(t, given, self.kind()).await?;
            if !target.accepts_from(self) {
                return Err(Errno::EPERM);
            }
            Some(target)
        };
        let (name, creds, groups) = match &target {
            Some(target) => {
                let other = target.state.lock();
                (other.name.clone(), other.peer_creds, other.peer_groups.clone())
            }
            None => (None, Ucred::NOBODY, None),
        };
        let mut state = self.state.lock();
        state.phase = if target.is_some() { Phase::Connected } else { Phase::Idle };
        let old_name = core::mem::replace(&mut state.peer_name, name);
        (state.peer_creds, state.peer_groups) = (creds, groups);
        let new = target.as_ref().map(Arc::downgrade);
        let old = core::mem::replace(&mut state.peer, new).and_then(|old| old.upgrade());
        drop(state);
        drop(old_name);
        let changed = match (&old, &target) {
            (Some(old), Some(new)) => !Arc::ptr_eq(old, new),
            (old, _) => old.is_some(),
        };
        if changed && let Some(old) = old {
            self.leave(&old);
        }
        self.queue.wake(usize::MAX, WRITABLE.bits());
        Ok(())
    }

    /// Messages of the one that was connected to before are dropped, and it is told.
    fn leave(&self, old: &UnixSocket) {
        let lost = !self.state.lock().inbox.is_empty();
        self.empty();
        let mutual = old.state.lock().peer.as_ref().is_some_and(|peer| core::ptr::eq(peer.as_ptr(), self));
        if lost && mutual {
            old.common.set_error(Errno::ECONNRESET);
            old.queue.wake(usize::MAX, sigio::QUIET | sigio::ERR);
        }
    }

    /// May `sender` send here? Not if this is connected to another.
    pub(super) fn accepts_from(&self, sender: &UnixSocket) -> bool {
        let state = self.state.lock();
        state.peer.as_ref().is_none_or(|peer| core::ptr::eq(Weak::as_ptr(peer), sender))
    }
}
