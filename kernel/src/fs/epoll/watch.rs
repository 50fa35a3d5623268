//! What an epoll keeps of a descriptor that it watches.

use alloc::sync::{Arc, Weak};
use alloc::task::Wake;
use core::sync::atomic::AtomicBool;

use super::{EPOLLET, EPOLLONESHOT, Epoll};
use crate::exec::{WaitEntry, WaitQueue};
use crate::fs::file::Events;
use crate::fs::open_file::{Kind, OpenFile};
use crate::sync::SpinLock;

/// The identity of a watch: the description and the descriptor it was added by.
pub(super) type Key = (usize, i32);

pub(super) fn key_of(fd: i32, file: &Arc<OpenFile>) -> Key {
    (Arc::as_ptr(file).addr(), fd)
}

#[derive(Clone, Copy)]
pub(super) struct Interest {
    /// Events wanted, with EPOLLET and EPOLLONESHOT.
    pub events: u32,
    pub data: u64,
    /// False after a one-shot event until EPOLL_CTL_MOD.
    pub armed: bool,
}

pub(super) struct State {
    pub interest: Interest,
    /// In the file's queue. None: deleted, or being modified, and looked at afterwards.
    pub entry: Option<Arc<WaitEntry>>,
    /// EPOLL_CTL_MODs.
    pub changes: u32,
}

impl State {
    /// What the program wants to know now.
    pub fn asked(&self) -> Events {
        match self.interest {
            Interest { events, armed: true, .. } if self.entry.is_some() => Events::from_bits_truncate(wanted(events)),
            _ => Events::empty(),
        }
    }
}

pub struct Watch {
    epoll: Weak<Epoll>,
    file: Weak<OpenFile>,
    pub(super) key: Key,
    pub(super) state: SpinLock<State>,
    /// On the ready list. Changed under that one's lock. EPOLL_CTL_MOD reads it without: who takes the watch off looks at `state`
    /// afterwards, and so do we before.
    pub(super) listed: AtomicBool,
    /// Changed under the ready list's lock.
    pub(super) deleted: AtomicBool,
}

impl Wake for Watch {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(epoll) = self.epoll.upgrade() {
            epoll.list(self);
        }
    }
}

pub(super) fn queue_of(file: &OpenFile) -> Option<&WaitQueue> {
    match file.kind() {
        Kind::Ops(ops) => ops.wait_queue(),
        _ => None,
    }
}

/// What a watch with this interest is to be woken for.
pub(super) fn wanted(events: u32) -> u32 {
    events & 0xffff | (Events::ERR | Events::HUP).bits()
}

impl Watch {
    pub(super) fn new(epoll: Weak<Epoll>, file: &Arc<OpenFile>, key: Key, interest: Interest) -> Arc<Watch> {
        Arc::new(Watch {
            epoll,
            file: Arc::downgrade(file),
            key,
            state: SpinLock::new(State { interest, entry: None, changes: 0 }),
            listed: AtomicBool::new(false),
            deleted: AtomicBool::new(false),
        })
    }

    pub(super) fn epoll(&self) -> Option<Arc<Epoll>> {
        self.epoll.upgrade()
    }

    pub(super) fn file(&self) -> Option<Arc<OpenFile>> {
        self.file.upgrade()
    }

    /// Puts an entry for the events of the current interest into the file's queue.
    pub(super) fn attach(self: &Arc<Self>, queue: &WaitQueue) {
        let events = self.state.lock().interest.events;
        let entry = WaitEntry::new(self.clone().into(), wanted(events));
        queue.add(&entry);
        self.state.lock().entry = Some(entry);
    }

    /// Takes the entry out of the queue.
    pub(super) fn detach(&self, file: &OpenFile) {
        let entry = self.state.lock().entry.take();
        if let (Some(entry), Some(ops)) = (entry, file.ops()) {
            ops.unwatch(&entry);
        }
    }

    pub(super) fn detach_from_file(&self) {
        if let Some(file) = self.file.upgrade() {
            self.detach(&file);
        }
    }

    /// The last descriptor of the file is gone.
    pub(in crate::fs) fn file_closed(&self, file: &OpenFile) {
        self.detach(file);
        if let Some(epoll) = self.epoll.upgrade() {
            epoll.forget(self);
        }
    }

    /// What the program wants to know and is true now.
    pub(super) fn current(&self) -> Events {
        let asked = self.state.lock().asked();
        if asked.is_empty() {
            return asked;
        }
        let Some(file) = self.file.upgrade() else { return Events::empty() };
        file.ready() & asked
    }

    /// What is to be told now, which a one-shot watch does not tell again.
    #[inline(always)]
    pub(super) fn take_event(&self) -> Option<Said> {
        let state = self.state.lock();
        let (asked, changes, Interest { events: flags, data, .. }) = (state.asked(), state.changes, state.interest);
        drop(state);
        if asked.is_empty() {
            return None;
        }
        let events = self.file.upgrade()?.ready() & asked;
        let once = flags & EPOLLONESHOT != 0;
        if events.is_empty() || once && !self.disarm(changes) {
            return None;
        }
        Some(Said { events, data, stays: !once && flags & EPOLLET == 0, once, changes })
    }

    /// A one-shot watch is about to say what it has to. False if it was modified, or has told somebody else, since the file was asked.
    #[cold]
    fn disarm(&self, changes: u32) -> bool {
        let mut state = self.state.lock();
        state.changes == changes && core::mem::replace(&mut state.interest.armed, false)
    }

    /// The event could not be delivered, and is to be told later.
    pub(super) fn give_back(&self, said: &Said) {
        let mut state = self.state.lock();
        if said.once && state.changes == said.changes {
            state.interest.armed = true;
        }
    }
}

/// An event that is being delivered.
pub(super) struct Said {
    pub events: Events,
    pub data: u64,
    /// It is told as long as it is true.
    pub stays: bool,
    once: bool,
    changes: u32,
}
