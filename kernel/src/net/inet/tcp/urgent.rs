//! Urgent data: MSG_OOB, SO_OOBINLINE, SIOCATMARK and SIGURG of tcp(7).
//!
//! The last urgent byte is where the mark is. Reads stop there; the next one goes past the byte, which only MSG_OOB receives, unless
//! it is wanted in line. One that was not received when a newer one comes is like others, as on Linux.

use alloc::sync::Weak;

use super::{ARRIVED, Phase, State, TcpSocket};
use crate::errno::{Errno, Result};
use crate::fs::{Events, TryError, sigio};
use crate::mm::IoBuf;
use crate::net::socket::{Receive, Switches};
use crate::sync::SpinGuard;

#[derive(Clone, Copy)]
pub(super) struct Urgent {
    /// Where in all that has been received.
    at: u64,
    /// Until it is taken.
    byte: Option<u8>,
}

impl State {
    /// How far ahead the mark is.
    fn ahead(&self) -> Option<usize> {
        let position = self.received - self.inbox.len() as u64;
        self.urgent?.at.checked_sub(position).map(|ahead| ahead as usize)
    }

    pub(super) fn is_at_mark(&self) -> bool {
        self.ahead() == Some(0)
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.urgent.is_some_and(|urgent| urgent.byte.is_some())
    }

    /// FIONREAD: as far as the mark.
    pub(super) fn readable(&self, in_line: bool) -> usize {
        self.ahead().filter(|_| !in_line).map_or(self.come(), |ahead| ahead.min(self.come()))
    }

    fn pass(&mut self, bytes: usize) {
        self.inbox.consume(bytes);
        self.forget_passed();
    }

    fn forget_passed(&mut self) {
        if self.ahead().is_none() {
            self.urgent = None;
        }
    }

    /// The last byte that has come is urgent. Of those that were here before it are `before`.
    pub(super) fn mark(&mut self, before: usize, in_line: bool) {
        if self.is_at_mark() && before > 0 && !in_line {
            // The older one, which nobody has wanted.
            self.pass(1);
        }
        let mut byte = [0];
        let last = self.inbox.len().saturating_sub(1);
        // Memory of the kernel.
        let _ = self.inbox.copy(last, &mut IoBuf::kernel_mut(&mut byte), 1);
        self.let_go();
        self.urgent = Some(Urgent { at: self.received - 1, byte: Some(byte[0]) });
    }
}

impl TcpSocket {
    pub(super) fn is_in_line(&self) -> bool {
        self.common.is_on(Switches::OOBINLINE)
    }

    /// An urgent byte has come: tells the owner of the file (fcntl(2), F_SETOWN), and who waits.
    pub(super) fn urge(&self) {
        let owner = self.owner_of_file.get().and_then(Weak::upgrade);
        let told = owner.is_some_and(|owner| owner.urge());
        let news = if told { sigio::URG } else { 0 };
        self.queue.wake(usize::MAX, ARRIVED | (Events::PRI | Events::RDBAND).bits() | news);
    }

    /// As tcp_recv_urg of Linux.
    pub(super) fn receive_urgent(&self, peek: bool) -> Result<u8> {
        let in_line = self.is_in_line();
        let mut state = self.state.lock();
        if state.phase == Phase::Listening {
            return Err(Errno::ENOTCONN);
        }
        let over = state.phase == Phase::Closed && !state.end_received;
        let urgent = state.urgent.as_mut().filter(|_| !in_line).ok_or(Errno::EINVAL)?;
        let byte = urgent.byte.ok_or(Errno::EINVAL)?;
        if over {
            return Err(Errno::ENOTCONN);
        }
        if !peek {
            urgent.byte = None;
        }
        Ok(byte)
    }

    /// Receives where there is a mark, or something is held back.
    #[cold]
    pub(super) fn receive_marked(
        &self,
        mut state: SpinGuard<'_, State>,
        buf: &mut IoBuf<'_>,
        how: Receive,
    ) -> Result<usize, TryError> {
        let before = state.inbox.len();
        let (mut skip, mut most) = (0, state.come());
        match state.ahead() {
            // What came before it is the answer.
            Some(0) if how.goes_on => return Ok(0),
            Some(0) if !self.is_in_line() => skip = 1.min(most),
            Some(ahead @ 1..) => most = most.min(ahead),
            Some(0) | None => {}
        }
        let want = (most - skip).min(buf.remaining());
        if !how.peek {
            state.pass(skip);
        }
        if most == skip {
            let answer = self.nothing_to_receive(&state, how);
            self.made_room(state, before);
            return answer;
        }
        if how.peek && !how.discard {
            return Ok(state.inbox.copy(skip, buf, want)?);
        }
        let len = if how.discard {
            buf.advance(want);
            want
        } else {
            let cut = buf.limit(want);
            let result = state.inbox.read(buf);
            buf.extend(cut);
            result?
        };
        if how.discard && !how.peek {
            state.inbox.consume(want);
        }
        state.forget_passed();
        self.made_room(state, before);
        Ok(len)
    }
}
