//! POSIX message queues: mq_overview(7).
//!
//! A [`Queue`] has messages by priority, a line of receivers (while it is empty) and a line of senders with their messages
//! (while it is full). Who sends to a queue that somebody waits at hands the message over; who receives from a full one
//! puts the message of the first sender in. The more urgent of those who wait (sched(7)) come first.
//!
//! * `transfer`: sending and receiving. `notify`: a signal for the first message.
//! * `fs`: the file system whose files the queues are, mq_open and mq_unlink.

mod fs;
mod notify;
mod transfer;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

pub use self::fs::{MqFile, init, open, queue_of, unlink};
pub use self::notify::{How, notify};
pub use self::transfer::{receive, send, send_now};
use super::line::{Line, Ticket};
use super::memory;
use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::fs::Events;
use crate::process::{Caps, Resource, Task};
use crate::sync::SpinLock;
use crate::time::Timespec;

/// Priorities are below this (MQ_PRIO_MAX).
pub const PRIORITIES: u32 = 32768;
/// What nobody may exceed.
pub const HARD_MAX_MESSAGES: u64 = 65536;
pub const HARD_MAX_SIZE: u64 = 16 << 20;

/// /proc/sys/fs/mqueue: queues; messages of a queue and their size, at most and if nothing is said.
pub static MAX_QUEUES: AtomicUsize = AtomicUsize::new(256);
pub static MAX_MESSAGES: AtomicUsize = AtomicUsize::new(10);
pub static MAX_SIZE: AtomicUsize = AtomicUsize::new(8192);
pub static DEFAULT_MESSAGES: AtomicUsize = AtomicUsize::new(10);
pub static DEFAULT_SIZE: AtomicUsize = AtomicUsize::new(8192);

/// How many there are, and how many bytes they are counted as, by user.
static QUEUES: AtomicUsize = AtomicUsize::new(0);
static CHARGES: SpinLock<BTreeMap<u32, u64>> = SpinLock::new(BTreeMap::new());

/// Messages that fit, and bytes of each.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub messages: u64,
    pub bytes: u64,
}

pub(super) struct Message {
    priority: u32,
    data: Vec<u8>,
}

/// How urgent a thread is: the less, the more.
type Rank = i32;

pub struct Queue {
    pub size: Size,
    /// Whose RLIMIT_MSGQUEUE it counts against, and with how much.
    charge: (u32, u64),
    state: SpinLock<State>,
    poll: WaitQueue,
    receivers: WaitQueue,
    senders: WaitQueue,
}

struct State {
    /// The highest priority first, and of one priority the oldest.
    messages: VecDeque<Message>,
    bytes: u64,
    receivers: Line<Rank, Message>,
    senders: Line<(Rank, Message), ()>,
    last_ticket: Ticket,
    registered: Option<notify::Registration>,
    /// When it was used last.
    used: Timespec,
}

impl Queue {
    /// A queue of this size, or of the default one. Beyond what is allowed: EINVAL; too many: ENOSPC; more than the user may
    /// have: EMFILE.
    fn new(t: &Task, size: Option<Size>) -> Result<Queue> {
        let privileged = t.shared_creds().capable(Caps::SYS_RESOURCE);
        let size = check_size(size, privileged)?;
        memory::check()?;
        let allowed = |count: usize| (privileged || count < MAX_QUEUES.load(Ordering::Relaxed)).then_some(count + 1);
        QUEUES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, allowed).map_err(|_| Errno::ENOSPC)?;
        let charge = charge(t, size).inspect_err(|_| _ = QUEUES.fetch_sub(1, Ordering::Relaxed))?;
        let state = State {
            messages: VecDeque::new(),
            bytes: 0,
            receivers: Line::new(),
            senders: Line::new(),
            last_ticket: 0,
            registered: None,
            used: crate::fs::now(),
        };
        let queue = || WaitQueue::new();
        Ok(Queue { size, charge, state: SpinLock::new(state), poll: queue(), receivers: queue(), senders: queue() })
    }

    /// Messages in it.
    pub fn count(&self) -> usize {
        self.state.lock().messages.len()
    }

    fn used(&self) -> Timespec {
        self.state.lock().used
    }

    fn ready(&self) -> Events {
        let count = self.count() as u64;
        let mut events = Events::empty();
        if count > 0 {
            events |= Events::IN | Events::RDNORM;
        }
        if count < self.size.messages {
            events |= Events::OUT | Events::WRNORM;
        }
        events
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        QUEUES.fetch_sub(1, Ordering::Relaxed);
        let (user, bytes) = self.charge;
        let mut charges = CHARGES.lock();
        if let Some(sum) = charges.get_mut(&user) {
            *sum -= bytes;
            if *sum == 0 {
                charges.remove(&user);
            }
        }
    }
}

fn check_size(size: Option<Size>, privileged: bool) -> Result<Size> {
    let limit = |limit: &AtomicUsize| limit.load(Ordering::Relaxed) as u64;
    let (max_messages, max_bytes) = (limit(&MAX_MESSAGES), limit(&MAX_SIZE));
    let default =
        || Size { messages: max_messages.min(limit(&DEFAULT_MESSAGES)), bytes: max_bytes.min(limit(&DEFAULT_SIZE)) };
    let size = size.unwrap_or_else(default);
    let most = if privileged { (HARD_MAX_MESSAGES, HARD_MAX_SIZE) } else { (max_messages, max_bytes) };
    let allowed = (1..=most.0).contains(&size.messages) && (1..=most.1).contains(&size.bytes);
    if allowed { Ok(size) } else { Err(Errno::EINVAL) }
}

/// Counts a queue as its user's, as Linux does: all messages that fit, with what it needs to keep them.
fn charge(t: &Task, size: Size) -> Result<(u32, u64)> {
    const PER_MESSAGE: u64 = 48;
    const PER_PRIORITY: u64 = 48;
    let keep = size.messages * PER_MESSAGE + size.messages.min(PRIORITIES.into()) * PER_PRIORITY;
    let bytes = size.messages * size.bytes + keep;
    let user = t.shared_creds().uid;
    let mut charges = CHARGES.lock();
    let sum = charges.entry(user).or_default();
    if sum.saturating_add(bytes) > t.rlimit(Resource::Msgqueue).soft {
        let unused = *sum == 0;
        if unused {
            charges.remove(&user);
        }
        return Err(Errno::EMFILE);
    }
    *sum += bytes;
    Ok((user, bytes))
}

/// The number of the next inode.
static NEXT_INO: AtomicU64 = AtomicU64::new(2);
