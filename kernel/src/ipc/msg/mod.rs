//! System V message queues: msgget(2), msgsnd(2), msgrcv(2), msgctl(2).
//!
//! A [`Queue`] has messages in the order in which they came, and a line of receivers that found none of the type they want.
//! A message that one of them wants is handed to it and never enters the queue. Senders that find no room sleep in a wait
//! queue, in their order, with the size of their message as key: who takes a message out wakes those it made room for.
//!
//! * `transfer`: sending and receiving. `ctl`: what msgctl asks and sets.

mod ctl;
mod transfer;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

pub use self::ctl::{Info, Status, all, info, remove, set_owner, status};
pub use self::transfer::{Received, Wanted, receive, send, send_now};
use super::ids::{self, Object, Perm, Registry};
use super::line::{Line, Ticket};
use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::process::{Credentials, Pid};
use crate::sync::SpinLock;

/// /proc/sys/kernel/msgmax, msgmnb, msgmni: bytes of a message, bytes of a new queue, queues.
pub static MAX_SIZE: AtomicUsize = AtomicUsize::new(8192);
pub static MAX_BYTES: AtomicUsize = AtomicUsize::new(16384);
pub static MAX_QUEUES: AtomicUsize = AtomicUsize::new(32000);

static REGISTRY: Registry<Queue> = Registry::new();
/// Messages in all queues, and their bytes.
static MESSAGES: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

/// A message. Its type is above 0.
#[derive(Debug)]
pub struct Message {
    pub kind: i64,
    pub data: Vec<u8>,
}

/// A message queue.
pub struct Queue {
    state: SpinLock<State>,
    /// Receivers, by their tickets; senders, by the bytes that they want to send.
    receivers: WaitQueue,
    senders: WaitQueue,
}

struct State {
    perm: Perm,
    removed: bool,
    messages: VecDeque<Message>,
    /// Bytes in it, and how many may be. The latter is also how many messages may be in it.
    bytes: usize,
    max_bytes: usize,
    waiting: Line<transfer::Waiting, transfer::Outcome>,
    last_ticket: Ticket,
    /// Seconds since the epoch.
    stime: i64,
    rtime: i64,
    ctime: i64,
    sender: Pid,
    receiver: Pid,
}

impl Object for Queue {
    fn with_perm<R>(&self, f: impl FnOnce(&mut Perm) -> R) -> R {
        f(&mut self.state.lock().perm)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.state.get_mut().clear();
    }
}

impl State {
    fn check_valid(&self) -> Result<()> {
        if self.removed { Err(Errno::EIDRM) } else { Ok(()) }
    }

    /// There is room for a message of this size.
    fn fits(&self, size: usize) -> bool {
        size.saturating_add(self.bytes) <= self.max_bytes && self.messages.len() < self.max_bytes
    }

    fn put(&mut self, message: Message) {
        let size = message.data.len();
        self.bytes += size;
        MESSAGES.fetch_add(1, Ordering::Relaxed);
        BYTES.fetch_add(size, Ordering::Relaxed);
        self.messages.push_back(message);
    }

    fn take(&mut self, index: usize) -> Option<Message> {
        let message = self.messages.remove(index)?;
        self.bytes -= message.data.len();
        MESSAGES.fetch_sub(1, Ordering::Relaxed);
        BYTES.fetch_sub(message.data.len(), Ordering::Relaxed);
        Some(message)
    }

    /// Takes all messages out, to be dropped without the lock.
    fn clear(&mut self) -> VecDeque<Message> {
        MESSAGES.fetch_sub(self.messages.len(), Ordering::Relaxed);
        BYTES.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = 0;
        core::mem::take(&mut self.messages)
    }
}

/// msgget(2).
pub fn get(creds: &Credentials, key: i32, flags: u32) -> Result<i32> {
    let limit = MAX_QUEUES.load(Ordering::Relaxed);
    REGISTRY.get_or_make(key, flags, limit, creds, |_| Ok(()), || Ok(Queue::new(Perm::new(key, flags, creds))))
}

impl Queue {
    fn new(perm: Perm) -> Queue {
        let state = State {
            perm,
            removed: false,
            messages: VecDeque::new(),
            bytes: 0,
            max_bytes: MAX_BYTES.load(Ordering::Relaxed),
            waiting: Line::new(),
            last_ticket: 0,
            stime: 0,
            rtime: 0,
            ctime: ids::now(),
            sender: 0,
            receiver: 0,
        };
        Queue { state: SpinLock::new(state), receivers: WaitQueue::new(), senders: WaitQueue::new() }
    }
}
