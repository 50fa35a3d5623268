//! Looking for requests, and ending them before their time.
//!
//! A request is cancelled like a thread is interrupted: its waits end ([`Interrupts`](crate::exec::Interrupts)), what they hold is dropped, and the
//! entry answers. What must not be left half done (transfers of a disk) does not look, and is waited for. It is one entry that
//! is cancelled, the one that is under way: `Request::entry` counts them, so that the next one of a chain cannot be meant.

use alloc::sync::Arc;
use alloc::task::Wake;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use super::{Request, WOKEN};
use crate::errno::{Errno, Result};
use crate::io_uring::abi::Sqe;
use crate::io_uring::ring::Ring;
use crate::process::Task;

/// In `Request::entry`: the entry that is under way is cancelled; all of them are, as the ring is closed or the thread goes
/// away; none is under way, as it is held back, or one is over and the next has not begun. Above these: which entry it is.
const ENTRY: u32 = 1;
const WHOLE: u32 = 2;
pub const NONE: u32 = 4;
const COUNT: u32 = 8;

impl Request {
    pub fn is_cancelled(&self) -> bool {
        self.entry.load(Acquire) & (ENTRY | WHOLE) != 0
    }

    /// The entry that was under way is over: nobody finds it any more.
    pub fn leave(&self) {
        self.entry.fetch_or(NONE, SeqCst);
        let file = self.file.lock().take();
        drop(file);
    }

    /// Another entry of the chain begins. What cancelled the one before is over; false if that was meant for all.
    pub fn renew(&self, sqe: &Sqe) -> bool {
        // See `mark`: who reads these knows that nothing was under way meanwhile.
        self.user_data.store(sqe.user_data, Release);
        self.opcode.store(sqe.opcode, Release);
        self.entry.fetch_add(COUNT, SeqCst);
        let goes_on = self.entry.fetch_and(!(ENTRY | NONE), SeqCst) & WHOLE == 0;
        if !self.ring.requests.gone.is_empty() {
            self.ring.requests.gone.wake_all();
        }
        goes_on
    }

    /// Cancels the entry that is under way, if it is `meant` and nobody has done so; answers which it is.
    fn mark(&self, meant: impl FnOnce(&Request) -> bool) -> Option<u32> {
        let found = self.entry.load(Acquire);
        if found & (ENTRY | WHOLE | NONE) != 0 || !meant(self) {
            return None;
        }
        // It may be over by now, and `meant` may have seen what came after it.
        self.entry.compare_exchange(found, found | ENTRY, SeqCst, Relaxed).ok().map(|found| found / COUNT)
    }

    /// Cancels the entry that is under way: only for that itself.
    pub fn end(self: &Arc<Self>) {
        self.entry.fetch_or(ENTRY, SeqCst);
        self.wake_by_ref();
    }
}

/// An entry that was cancelled.
pub struct Cancelled {
    request: Arc<Request>,
    entry: u32,
    /// What it waits for ends; else it may be long in ending.
    pub looks: bool,
}

impl Cancelled {
    /// It has completed. [`Requests::gone`](super::Requests::gone) is woken then.
    pub fn is_over(&self) -> bool {
        let request = &self.request;
        if request.entry.load(SeqCst) / COUNT != self.entry {
            return true;
        }
        let all = request.ring.requests.all.lock();
        let same = |slot: &Option<Arc<Request>>| slot.as_ref().is_some_and(|other| Arc::ptr_eq(other, request));
        !all.slots.get(request.slot.load(Relaxed)).is_some_and(same)
    }
}

impl Ring {
    /// A request that satisfies `wanted`.
    pub fn find_one(&self, wanted: impl FnMut(&Request) -> bool) -> Option<Arc<Request>> {
        self.find_from(&mut 0, wanted)
    }

    /// Cancels the next entry that is under way and `meant`; places are as in [`Ring::find_from`].
    pub fn cancel_from(&self, from: &mut usize, meant: impl Fn(&Request) -> bool) -> Option<Cancelled> {
        let mut entry = 0;
        let mark = |request: &Request| request.mark(&meant).map(|marked| entry = marked).is_some();
        let request = self.find_from(from, mark)?;
        let looks = request.interruptible.load(Relaxed);
        request.wake_by_ref();
        Some(Cancelled { request, entry, looks })
    }

    /// Cancels one entry. ENOENT if there is none, EALREADY if it may be long in ending.
    pub fn cancel_one(&self, meant: impl Fn(&Request) -> bool) -> Result<()> {
        let cancelled = self.cancel_from(&mut 0, meant).ok_or(Errno::ENOENT)?;
        if cancelled.looks { Ok(()) } else { Err(Errno::EALREADY) }
    }

    /// How many requests there are.
    pub fn request_count(&self) -> usize {
        let all = self.requests.all.lock();
        all.slots.len() - all.free.len()
    }

    /// The next one: the search begins at the place `from`, and leaves it at what it found.
    pub fn find_from(&self, from: &mut usize, mut wanted: impl FnMut(&Request) -> bool) -> Option<Arc<Request>> {
        let all = self.requests.all.lock();
        let rest = all.slots.get(*from..)?;
        let found = rest.iter().position(|slot| slot.as_ref().is_some_and(|request| wanted(request)));
        *from += found.unwrap_or(rest.len());
        all.slots.get(*from).cloned().flatten()
    }

    pub fn is_idle(&self) -> bool {
        self.request_count() == 0
    }

    /// Cancels the requests that satisfy `wanted`, also those that are held back.
    fn cancel_all(&self, wanted: impl Fn(&Request) -> bool) {
        // Before those that are held back begin: they end at once then.
        let mut at = 0;
        while let Some(request) = self.find_from(&mut at, &wanted) {
            request.entry.fetch_or(WHOLE, SeqCst);
            request.wake_by_ref();
            at += 1;
        }
        let mut held = self.requests.held.lock();
        held.retain(|(request, _)| {
            let take = wanted(request);
            if take {
                self.requests.active.fetch_add(1, SeqCst);
                request.state.store(WOKEN, Relaxed);
                self.put_ready(request.clone());
            }
            !take
        });
        self.requests.holds.store(held.len(), SeqCst);
        drop(held);
        if self.has_ready() {
            self.announce_ready();
        }
    }

    /// The last descriptor and mapping are gone: everything ends.
    pub fn close(&self) {
        self.closing.store(true, SeqCst);
        self.registered.clear();
        self.cancel_all(|_| true);
        self.requests.driver.wake_all();
    }

    /// The thread ends, or executes another program: what it has asked for ends before that.
    pub async fn abandon(&self, task: &Arc<Task>) {
        let mine = |request: &Request| Arc::ptr_eq(&request.task, task);
        self.requests.abandoned.fetch_add(1, SeqCst);
        self.cancel_all(mine);
        self.run_ready();
        self.requests.driver.wake_one();
        // No more of them come: those before `at` are gone for good.
        let mut at = 0;
        self.requests.gone.wait_for(|| self.find_from(&mut at, mine).is_none().then_some(())).await;
        self.requests.abandoned.fetch_sub(1, SeqCst);
    }
}
