//! msgsnd(2) and msgrcv(2).

use alloc::sync::Arc;

use super::{Message, Queue, REGISTRY, State};
use crate::errno::{Errno, Result};
use crate::exec::{WaitQueue, interruptible};
use crate::ipc::buffer;
use crate::ipc::ids::{self, READ, WRITE};
use crate::ipc::line::{Served, Ticket};
use crate::process::{Pid, Thread};
use crate::signal::Restart;
use crate::syscalls::SysResult;

/// Which message is wanted (msgrcv(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Any,
    Equal(i64),
    /// MSG_EXCEPT.
    NotEqual(i64),
    /// The first one of the lowest type up to this.
    UpTo(i64),
    /// MSG_COPY: the one at this index, which stays.
    Copy(i64),
}

impl Wanted {
    fn fits(self, kind: i64) -> bool {
        match self {
            Wanted::Any | Wanted::Copy(_) => true,
            Wanted::Equal(wanted) => kind == wanted,
            Wanted::NotEqual(unwanted) => kind != unwanted,
            Wanted::UpTo(most) => kind <= most,
        }
    }
}

/// What a receiver wants, and how much of it there is room for.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    pub wanted: Wanted,
    pub room: usize,
    /// MSG_NOERROR: a longer message is cut.
    pub cut: bool,
    /// IPC_NOWAIT.
    pub now: bool,
}

/// A receiver in the line.
pub(super) struct Waiting {
    request: Received,
    pid: Pid,
}

/// What comes of waiting for a message.
pub(super) enum Outcome {
    Message(Message),
    Failed(Errno),
    /// Permissions have changed: look again.
    Again,
}

impl State {
    /// Hands the message to the first receiver that wants it; gives it back if there is none. Those who want it and have no
    /// room for it fail.
    fn hand_over(&mut self, message: Message, served: &mut Served) -> Option<Message> {
        let mut index = 0;
        while let Some(waiting) = self.waiting.get(index) {
            let (request, pid) = (waiting.request, waiting.pid);
            if !request.wanted.fits(message.kind) {
                index += 1;
                continue;
            }
            if !request.cut && request.room < message.data.len() {
                self.waiting.serve(index, Outcome::Failed(Errno::E2BIG), served);
                continue;
            }
            self.receiver = pid;
            self.rtime = ids::now();
            self.waiting.serve(index, Outcome::Message(message), served);
            return None;
        }
        Some(message)
    }

    fn find(&self, wanted: Wanted) -> Option<usize> {
        match wanted {
            Wanted::Copy(index) => usize::try_from(index).ok().filter(|index| *index < self.messages.len()),
            Wanted::UpTo(most) => {
                let small = self.messages.iter().enumerate().filter(|(_, message)| message.kind <= most);
                small.min_by_key(|(_, message)| message.kind).map(|(index, _)| index)
            }
            _ => self.messages.iter().position(|message| wanted.fits(message.kind)),
        }
    }

    /// All receivers look again, or fail.
    pub(super) fn expel(&mut self, served: &mut Served) {
        while self.waiting.serve(0, Outcome::Again, served).is_some() {}
    }
}

/// Sends, if there is room or somebody who takes it. None: there is not, and nothing was done.
pub fn send_now(t: &Thread, id: i32, message: &mut Option<Message>) -> Result<Option<()>> {
    let queue = REGISTRY.get(id)?;
    queue.try_send(t, message)
}

/// Sends when there is room. EAGAIN if it is not to wait for that. After a signal without a handler it goes on (signal(7)).
pub async fn send(t: &Thread, id: i32, message: Message, now: bool) -> SysResult<()> {
    let queue = REGISTRY.get(id)?;
    let size = message.data.len() as u64;
    let mut message = Some(message);
    if queue.try_send(t, &mut message)?.is_some() {
        return Ok(());
    }
    if now {
        return Err(Errno::EAGAIN.into());
    }
    let attempt = || queue.try_send(t, &mut message).transpose();
    match interruptible(t, queue.senders.wait_for_key(size, attempt)).await {
        Ok(sent) => Ok(sent?),
        Err(_) => Err(Restart::NoHand.into()),
    }
}

/// Takes the message that is wanted, when there is one. ENOMSG if it is not to wait for that.
pub async fn receive(t: &Thread, id: i32, request: Received) -> SysResult<Message> {
    let queue = REGISTRY.get(id)?;
    loop {
        let turn = match queue.try_receive(t, request)? {
            Ok(message) => return Ok(message),
            Err(ticket) => Turn { queue: &queue, ticket },
        };
        let served = queue.receivers.wait_for_key(turn.ticket, || turn.look()).after_trying();
        let outcome = match interruptible(t, served).await {
            Ok(outcome) => {
                turn.end();
                outcome
            }
            // What was handed over in the meantime has left the queue.
            Err(_) => turn.leave().ok_or(Restart::NoHand)?,
        };
        match outcome {
            Outcome::Message(message) => return Ok(message),
            Outcome::Failed(errno) => return Err(errno.into()),
            Outcome::Again => {}
        }
    }
}

impl Queue {
    /// Takes `message` if it can be sent now.
    fn try_send(&self, t: &Thread, message: &mut Option<Message>) -> Result<Option<()>> {
        let mut served = Served::default();
        let mut state = self.state.lock();
        state.perm.check(t.creds(), WRITE)?;
        state.check_valid()?;
        let size = message.as_ref().map_or(0, |message| message.data.len());
        if !state.fits(size) {
            return Ok(None);
        }
        let Some(sent) = message.take() else { return Ok(Some(())) };
        state.sender = t.process().pid;
        state.stime = ids::now();
        if let Some(unwanted) = state.hand_over(sent, &mut served) {
            state.put(unwanted);
        }
        drop(state);
        served.wake(&self.receivers);
        Ok(Some(()))
    }

    /// The message, or a place in the line.
    fn try_receive(&self, t: &Thread, request: Received) -> Result<Result<Message, Ticket>> {
        let mut state = self.state.lock();
        state.perm.check(t.creds(), READ)?;
        state.check_valid()?;
        let Some(index) = state.find(request.wanted) else {
            if request.now {
                return Err(Errno::ENOMSG);
            }
            state.last_ticket += 1;
            let ticket = state.last_ticket;
            state.waiting.join(ticket, Waiting { request, pid: t.process().pid });
            return Ok(Err(ticket));
        };
        let size = state.messages.get(index).map_or(0, |message| message.data.len());
        if size > request.room && !request.cut {
            return Err(Errno::E2BIG);
        }
        if let Wanted::Copy(_) = request.wanted {
            // A copy is not cut, MSG_NOERROR or not.
            if size > request.room {
                return Err(Errno::EINVAL);
            }
            let original = state.messages.get(index).ok_or(Errno::ENOMSG)?;
            let mut data = buffer(size)?;
            data.copy_from_slice(&original.data);
            return Ok(Ok(Message { kind: original.kind, data }));
        }
        let message = state.take(index).ok_or(Errno::ENOMSG)?;
        state.receiver = t.process().pid;
        state.rtime = ids::now();
        let room = state.max_bytes.saturating_sub(state.bytes) as u64;
        drop(state);
        self.wake_senders(room);
        Ok(Ok(message))
    }

    /// Senders whose message fits look again, in their order.
    pub(super) fn wake_senders(&self, room: u64) {
        self.senders.wake_where(usize::MAX, |size, _| size <= room);
    }

    pub(super) fn receiver_queue(&self) -> &WaitQueue {
        &self.receivers
    }
}

/// A place in the line of receivers, which is left in the end.
struct Turn<'a> {
    queue: &'a Arc<Queue>,
    ticket: Ticket,
}

impl Turn<'_> {
    fn look(&self) -> Option<Outcome> {
        let mut state = self.queue.state.lock();
        let outcome = state.waiting.fetch(self.ticket);
        if outcome.is_none() && state.removed { Some(Outcome::Failed(Errno::EIDRM)) } else { outcome }
    }

    fn leave(&self) -> Option<Outcome> {
        let mut state = self.queue.state.lock();
        let removed = state.removed;
        let outcome = state.waiting.leave(self.ticket);
        outcome.or_else(|| removed.then_some(Outcome::Failed(Errno::EIDRM)))
    }

    /// It was served, or there is no line any more: nothing to look for once more.
    fn end(self) {
        core::mem::forget(self);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let _outcome = self.leave();
    }
}
