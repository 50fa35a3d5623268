//! epoll(7).
//!
//! An [`Epoll`] keeps a [`Watch`] per watched descriptor. The watch's entry stays in the file's wait queue; a wake puts the
//! watch on the epoll's ready list and wakes who waits for it. `epoll_wait` takes watches off the list, asks the files
//! what is true now, and puts level-triggered ones back.
//!
//! * [`watch`]: what is kept of a watched descriptor. [`nesting`]: epolls that watch epolls. [`limits`]: how many files a
//!   user may have watched.
//!
//! Locks: [`NESTING`], `control` (the outer epoll's, then the inner one's), `watches`, a watch's `state`, `ready`. Wakers run
//! without any wait-queue lock, so epolls can watch epolls.

pub mod limits;
mod nesting;
#[cfg(test)]
mod tests;
mod watch;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::Ordering::Relaxed;

use smallvec::SmallVec;

use self::limits::Account;
use self::nesting::Search;
pub use self::watch::Watch;
use self::watch::{Interest, Key, key_of, queue_of, wanted};
use super::file::{Events, FileOps};
use super::open_file::OpenFile;
use crate::errno::{Errno, Result};
use crate::exec::{self, WaitQueue};
use crate::sync::SpinLock;

pub const EPOLLEXCLUSIVE: u32 = 1 << 28;
pub const EPOLLWAKEUP: u32 = 1 << 29;
pub const EPOLLONESHOT: u32 = 1 << 30;
pub const EPOLLET: u32 = 1 << 31;

/// An event that only `epoll_wait` waits for: who polls or watches an epoll has a mask of 16 bits.
const LOOK_AGAIN: u32 = 1 << 16;

/// Held while an epoll comes to watch an epoll, or one that is watched comes to watch anything: two that did so at once would
/// not see the circle that they make, or the chain.
static NESTING: SpinLock<()> = SpinLock::new(());

pub struct Epoll {
    /// One call at a time that puts an entry into a file's queue, or takes it out.
    control: SpinLock<()>,
    watches: SpinLock<BTreeMap<Key, Arc<Watch>>>,
    ready: SpinLock<Ready>,
    queue: WaitQueue,
    /// Watches of this epoll by others.
    outer: SpinLock<Vec<Weak<Watch>>>,
    account: Account,
    this: Weak<Epoll>,
}

/// The watches that may have something to say.
#[derive(Default)]
struct Ready {
    list: VecDeque<Arc<Watch>>,
    /// How many of them are deleted already.
    deleted: usize,
    /// Calls that have taken a watch off the list and look at it.
    looking: usize,
    /// Somebody found nothing listed meanwhile.
    missed: bool,
}

/// So many events are handed out between two looks at the clock.
const SOME: usize = 16;
/// Deleted watches may stay on the list until they are so many, and more than half of it.
const FEW_DELETED: usize = 16;

impl Ready {
    /// Is the watch to be put on the list? If so, the caller does.
    #[inline]
    fn lists(&self, watch: &Watch) -> bool {
        let new = !watch.listed.load(Relaxed) && !watch.deleted.load(Relaxed);
        if new {
            watch.listed.store(true, Relaxed);
        }
        new
    }

    /// Takes the first one off that is not deleted, of the first `turns`. `listed` is cleared before its file is asked: an event that
    /// comes later lists it again.
    #[inline]
    fn pop(&mut self, turns: &mut usize) -> Option<Arc<Watch>> {
        while *turns > 0 {
            *turns -= 1;
            let watch = self.list.pop_front()?;
            if !watch.deleted.load(Relaxed) {
                watch.listed.store(false, Relaxed);
                return Some(watch);
            }
            self.deleted -= 1;
        }
        None
    }

    /// The watch is deleted. It leaves the list when its turn comes, or with many others.
    fn delete(&mut self, watch: &Watch) {
        watch.deleted.store(true, Relaxed);
        if !watch.listed.load(Relaxed) {
            return;
        }
        self.deleted += 1;
        // Not under the eyes of somebody who counts turns.
        if self.looking == 0 && self.deleted > FEW_DELETED && self.deleted > self.list.len() / 2 {
            self.list.retain(|watch| !watch.deleted.load(Relaxed));
            self.deleted = 0;
        }
    }
}

/// Events as (events, data). A few need no allocation.
pub type Collected = SmallVec<[(u32, u64); 8]>;

impl Epoll {
    /// An epoll of the user `uid`.
    pub fn new(uid: u32) -> Arc<Epoll> {
        Arc::new_cyclic(|this| Epoll {
            control: SpinLock::new(()),
            watches: SpinLock::new(BTreeMap::new()),
            ready: SpinLock::new(Ready::default()),
            queue: WaitQueue::new(),
            outer: SpinLock::new(Vec::new()),
            account: Account::of(uid),
            this: this.clone(),
        })
    }

    /// Notes that the watch may have something to say.
    fn list(&self, watch: &Arc<Watch>) {
        if watch.state.lock().asked().is_empty() {
            return;
        }
        let mut ready = self.ready.lock();
        if ready.lists(watch) {
            // There is room: `insert` reserved a place for every watch.
            ready.list.push_back(watch.clone());
        }
        drop(ready);
        self.queue.wake(1, (Events::IN | Events::RDNORM).bits());
    }

    fn forget(&self, key: Key) -> Option<Arc<Watch>> {
        let mut watches = self.watches.lock();
        let watch = watches.remove(&key)?;
        // With the other lock: see `insert`.
        self.ready.lock().delete(&watch);
        drop(watches);
        self.account.remove(1);
        Some(watch)
    }

    /// Files that are always ready cannot be watched.
    pub fn can_watch(file: &OpenFile) -> bool {
        queue_of(file).is_some()
    }

    /// EPOLL_CTL_ADD.
    pub fn add(&self, fd: i32, file: &Arc<OpenFile>, events: u32, data: u64) -> Result<()> {
        let queue = queue_of(file).ok_or(Errno::EPERM)?;
        let inner = file.ops_as::<Epoll>();
        if inner.is_some_and(|inner| core::ptr::eq(inner, self)) {
            return Err(Errno::EINVAL);
        }
        // Goes last: see there.
        let mut search = Search::default();
        let mut nesting = None;
        let _control = loop {
            let control = self.control.lock();
            if nesting.is_some() || inner.is_none() && self.outer.lock().is_empty() {
                break control;
            }
            drop(control);
            nesting = Some(NESTING.lock());
        };
        let _inner_control = inner.map(|inner| inner.control.lock());
        if let Some(inner) = inner {
            search.check_depth(self, inner)?;
        }
        let watch = self.insert(fd, file, Interest { events, data, armed: true })?;
        file.add_watch(&watch);
        if let Some(inner) = inner {
            remember(&mut inner.outer.lock(), &watch);
        }
        if nesting.is_some()
            && let Err(errno) = search.check_ways(file)
        {
            self.forget(watch.key);
            return Err(errno);
        }
        watch.attach(queue);
        if !watch.current().is_empty() {
            self.list(&watch);
        }
        Ok(())
    }

    fn insert(&self, fd: i32, file: &Arc<OpenFile>, interest: Interest) -> Result<Arc<Watch>> {
        let key = key_of(fd, file);
        let watch = Watch::new(self.this.clone(), file, key, interest);
        let mut watches = self.watches.lock();
        if watches.contains_key(&key) {
            return Err(Errno::EEXIST);
        }
        let mut ready = self.ready.lock();
        let missing = (watches.len() + 1 + ready.deleted).saturating_sub(ready.list.len());
        ready.list.try_reserve(missing).map_err(|_| Errno::ENOMEM)?;
        drop(ready);
        self.account.add()?;
        watches.insert(key, watch.clone());
        Ok(watch)
    }

    fn find(&self, fd: i32, file: &Arc<OpenFile>) -> Result<Arc<Watch>> {
        self.watches.lock().get(&key_of(fd, file)).cloned().ok_or(Errno::ENOENT)
    }

    /// EPOLL_CTL_MOD.
    pub fn modify(&self, fd: i32, file: &Arc<OpenFile>, events: u32, data: u64) -> Result<()> {
        let interest = Interest { events, data, armed: true };
        let watches = self.watches.lock();
        let Some(watch) = watches.get(&key_of(fd, file)) else {
            return Err(if queue_of(file).is_some() { Errno::ENOENT } else { Errno::EPERM });
        };
        let mut state = watch.state.lock();
        if (state.interest.events | events) & EPOLLEXCLUSIVE != 0 {
            return Err(Errno::EINVAL);
        }
        state.changes = state.changes.wrapping_add(1);
        // The entry in the queue wakes for what it was made for.
        if wanted(state.interest.events) == wanted(events) {
            state.interest = interest;
            drop(state);
            // Who is woken for a watch on the list takes it off, and sees the new interest.
            if watch.listed.load(Relaxed) {
                return Ok(());
            }
            drop(watches);
        } else {
            drop(state);
            let watch = watch.clone();
            drop(watches);
            self.replace_entry(&watch, file, interest);
        }
        if file.ready().bits() & wanted(events) != 0
            && let Ok(watch) = self.find(fd, file)
        {
            self.list(&watch);
        }
        Ok(())
    }

    fn replace_entry(&self, watch: &Arc<Watch>, file: &OpenFile, interest: Interest) {
        let _control = self.control.lock();
        let mut state = watch.state.lock();
        let entry = state.entry.take();
        state.interest = interest;
        drop(state);
        // No entry: it has been deleted meanwhile.
        if let (Some(entry), Some(ops), Some(queue)) = (entry, file.ops(), queue_of(file)) {
            ops.unwatch(&entry);
            watch.attach(queue);
        }
    }

    /// EPOLL_CTL_DEL.
    pub fn delete(&self, fd: i32, file: &Arc<OpenFile>) -> Result<()> {
        queue_of(file).ok_or(Errno::EPERM)?;
        let _control = self.control.lock();
        let watch = self.find(fd, file)?;
        self.forget(watch.key);
        watch.detach(file);
        Ok(())
    }

    /// Up to `max` events that are there now, as (events, data).
    pub fn collect(&self, max: usize) -> Collected {
        let mut out = Collected::new();
        self.collect_into(max, |events, data| {
            let room = out.try_reserve(1).is_ok();
            if room {
                out.push((events, data));
            }
            room
        });
        out
    }

    /// Hands out up to `max` events that are there now, and answers how many. An event that `deliver` does not take stays.
    pub fn collect_into(&self, max: usize, mut deliver: impl FnMut(u32, u64) -> bool) -> usize {
        let mut count = 0;
        let mut stays = false;
        let mut ready = self.ready.lock();
        // Each watch that is listed now gets its turn once.
        let mut turns = ready.list.len();
        ready.looking += 1;
        while count < max {
            let Some(watch) = ready.pop(&mut turns) else { break };
            drop(ready);
            let said = watch.take_event();
            let delivered = said.as_ref().is_some_and(|said| deliver(said.events.bits(), said.data));
            ready = self.ready.lock();
            let Some(said) = said else { continue };
            if !delivered {
                watch.give_back(&said);
            }
            if said.stays || !delivered {
                stays = true;
                if ready.lists(&watch) {
                    ready.list.push_back(watch);
                }
            }
            if !delivered {
                break;
            }
            count += 1;
            // The others stay on the list.
            if count.is_multiple_of(SOME) && exec::is_budget_used() {
                stays |= turns > 0;
                break;
            }
        }
        ready.looking -= 1;
        let missed = stays && core::mem::take(&mut ready.missed);
        drop(ready);
        // Others may have looked while the watch was off the list: under its lock, after they had entered the queue. Who polls or watches
        // the epoll is told only if it did.
        if stays && !self.queue.is_empty() {
            self.queue.wake(1, if missed { LOOK_AGAIN | (Events::IN | Events::RDNORM).bits() } else { LOOK_AGAIN });
        }
        count
    }

    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    /// Is anything ready? Watches that turn out not to be are taken off the list.
    fn any_ready(&self) -> bool {
        loop {
            let mut ready = self.ready.lock();
            let Some(watch) = ready.list.front().cloned() else {
                ready.missed = ready.looking > 0;
                return false;
            };
            drop(ready);
            if !watch.current().is_empty() {
                return true;
            }
            let mut ready = self.ready.lock();
            if ready.list.front().is_some_and(|front| Arc::ptr_eq(front, &watch)) {
                if watch.deleted.load(Relaxed) {
                    ready.deleted -= 1;
                }
                ready.list.pop_front();
                watch.listed.store(false, Relaxed);
                drop(ready);
                // It may have become ready between the test and the removal.
                if !watch.current().is_empty() {
                    self.list(&watch);
                }
            }
        }
    }

    /// The files that it watches.
    fn watched(&self) -> Vec<Arc<OpenFile>> {
        self.watches.lock().values().filter_map(|watch| watch.file()).collect()
    }

    /// The epolls that watch it, each as often as it does.
    fn watchers(&self) -> Vec<Arc<Epoll>> {
        epolls_of(&self.outer.lock())
    }
}

/// The epolls that these watches belong to.
pub(super) fn epolls_of(watches: &[Weak<Watch>]) -> Vec<Arc<Epoll>> {
    watches.iter().filter_map(|watch| watch.upgrade()?.epoll()).collect()
}

/// Adds a watch to a list of those that may be gone already.
pub(super) fn remember(watches: &mut Vec<Weak<Watch>>, watch: &Arc<Watch>) {
    // Looked through when it would grow, so that many cost little each.
    if watches.len() == watches.capacity() {
        watches.retain(|watch| watch.strong_count() > 0);
    }
    watches.push(Arc::downgrade(watch));
}

impl FileOps for Epoll {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn can_read(&self) -> bool {
        false
    }

    fn ignores_seek(&self) -> bool {
        true
    }

    fn splices_to(&self) -> bool {
        false
    }

    fn ready(&self) -> Events {
        if self.any_ready() { Events::IN | Events::RDNORM } else { Events::empty() }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }
}

impl Drop for Epoll {
    fn drop(&mut self) {
        let watches = core::mem::take(self.watches.get_mut());
        self.account.remove(watches.len());
        for watch in watches.into_values() {
            watch.detach_from_file();
        }
    }
}
