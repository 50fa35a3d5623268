//! mq_timedsend(2) and mq_timedreceive(2).

use core::future::Future;

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{Message, Queue, Rank, State};
use crate::errno::Errno;
use crate::exec::interruptible;
use crate::fs::Events;
use crate::ipc::line::{Served, Ticket};
use crate::process::Thread;
use crate::signal::Restart;
use crate::syscalls::SysResult;
use crate::time::Deadline;

const READABLE: Events = Events::IN.union(Events::RDNORM);
const WRITABLE: Events = Events::OUT.union(Events::WRNORM);

/// As Linux orders its run queues: real-time ones first, then by nice.
fn rank(t: &Thread) -> Rank {
    let params = t.entity.params();
    match params.policy.rt_priority() {
        0 => 120 + Rank::from(params.nice),
        priority => 99 - Rank::from(priority),
    }
}

impl State {
    /// Puts a message behind those of its priority.
    fn put(&mut self, message: Message) {
        self.bytes += message.data.len() as u64;
        let index = self.messages.partition_point(|other| other.priority >= message.priority);
        self.messages.insert(index, message);
    }

    fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        self.last_ticket
    }
}

/// Sends if that needs no waiting.
pub fn send_now(t: &Thread, queue: &Queue, priority: u32, data: Vec<u8>) -> bool {
    queue.try_send(t, Message { priority, data }, None).is_ok()
}

/// Sends when there is room: until the deadline (ETIMEDOUT), or not at all later (EAGAIN).
pub async fn send(
    t: &Thread,
    queue: &Queue,
    priority: u32,
    data: Vec<u8>,
    nonblock: bool,
    deadline: Option<Deadline>,
) -> SysResult<()> {
    let rank = (!nonblock).then(|| rank(t));
    let ticket = match queue.try_send(t, Message { priority, data }, rank) {
        Ok(()) => return Ok(()),
        Err(Unsent::Waits(ticket)) => ticket,
        Err(Unsent::Full) => return Err(Errno::EAGAIN.into()),
    };
    let turn = Turn { queue, ticket, sends: true };
    let sent = queue.senders.wait_for_key(ticket, || queue.state.lock().senders.fetch(ticket)).after_trying();
    match wait(t, sent, deadline).await {
        Ok(()) => {
            turn.end();
            Ok(())
        }
        // Sent in the meantime is sent.
        Err(error) => queue.state.lock().senders.leave(ticket).ok_or(error),
    }
}

/// Takes the oldest of the messages of the highest priority, when there is one: priority and data.
pub async fn receive(
    t: &Thread,
    queue: &Queue,
    nonblock: bool,
    deadline: Option<Deadline>,
) -> SysResult<(u32, Vec<u8>)> {
    let ticket = match queue.try_receive((!nonblock).then(|| rank(t))) {
        Ok(message) => return Ok((message.priority, message.data)),
        Err(Some(ticket)) => ticket,
        Err(None) => return Err(Errno::EAGAIN.into()),
    };
    let turn = Turn { queue, ticket, sends: false };
    let received = queue.receivers.wait_for_key(ticket, || queue.state.lock().receivers.fetch(ticket)).after_trying();
    let message = match wait(t, received, deadline).await {
        Ok(message) => {
            turn.end();
            message
        }
        Err(error) => queue.state.lock().receivers.leave(ticket).ok_or(error)?,
    };
    Ok((message.priority, message.data))
}

/// Awaits `served` until a signal or the deadline.
async fn wait<T: Send>(t: &Thread, served: impl Future<Output = T> + Send, deadline: Option<Deadline>) -> SysResult<T> {
    match deadline {
        None => interruptible(t, served).await.map_err(|_| Restart::Sys.into()),
        Some(deadline) => match Box::pin(interruptible(t, deadline.until(served))).await {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(Errno::ETIMEDOUT.into()),
            Err(_) => Err(Restart::Sys.into()),
        },
    }
}

enum Unsent {
    /// It stands in the line with its message.
    Waits(Ticket),
    Full,
}

impl Queue {
    /// Sends, or takes a place in the line of senders, if `rank` says which.
    fn try_send(&self, t: &Thread, message: Message, rank: Option<Rank>) -> Result<(), Unsent> {
        let mut served = Served::default();
        let mut state = self.state.lock();
        if state.messages.len() as u64 >= self.size.messages {
            let Some(rank) = rank else { return Err(Unsent::Full) };
            let ticket = state.ticket();
            state.senders.join_before(ticket, (rank, message), |(other, _)| *other > rank);
            return Err(Unsent::Waits(ticket));
        }
        state.used = crate::fs::now();
        let unwanted = state.receivers.serve_first(message, &mut served);
        let Some(message) = unwanted else {
            drop(state);
            served.wake(&self.receivers);
            return Ok(());
        };
        state.put(message);
        // Registered for the first message of an empty queue at which nobody waits.
        let registered = if state.messages.len() == 1 { state.registered.take() } else { None };
        drop(state);
        if let Some(registered) = registered {
            registered.tell(t);
        }
        self.poll.wake(usize::MAX, READABLE.bits());
        Ok(())
    }

    /// The message, or a place in the line of receivers, if `rank` says which.
    fn try_receive(&self, rank: Option<Rank>) -> Result<Message, Option<Ticket>> {
        let mut served = Served::default();
        let mut state = self.state.lock();
        let Some(message) = state.messages.pop_front() else {
            let Some(rank) = rank else { return Err(None) };
            let ticket = state.ticket();
            state.receivers.join_before(ticket, rank, |other| *other > rank);
            return Err(Some(ticket));
        };
        state.bytes -= message.data.len() as u64;
        state.used = crate::fs::now();
        // The queue was full if there is a sender in the line, and is so again.
        let next = state.senders.serve(0, (), &mut served);
        let has_room = next.is_none();
        if let Some((_, next)) = next {
            state.put(next);
        }
        drop(state);
        served.wake(&self.senders);
        if has_room {
            self.poll.wake(usize::MAX, WRITABLE.bits());
        }
        Ok(message)
    }
}

/// A place in a line, which is left in the end.
struct Turn<'a> {
    queue: &'a Queue,
    ticket: Ticket,
    sends: bool,
}

impl Turn<'_> {
    /// It was served: nothing to look for once more.
    fn end(self) {
        core::mem::forget(self);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        if self.sends {
            let _sent = state.senders.leave(self.ticket);
        } else {
            let _message = state.receivers.leave(self.ticket);
        }
    }
}
