//! epoll(7).
//!
//! An [`Epoll`] keeps a [`Watch`] per watched descriptor. The watch's entry stays in the file's wait queue; a wake puts the
//! watch on the epoll's ready list and wakes who waits for it. `epoll_wait` takes watches off the list, asks the files
//! what is true now, and puts level-triggered ones back.
//!
//! * [`watch`]: what is kept of a watched descriptor. [`nesting`]: epolls that watch epolls. [`limits`]: how many files a
//!   user may have watched.
//!
//! Locks: [`NESTING`], `control`, `watches`, a watch's `state`, `ready`. Wakers run without any wait-queue lock, so epolls can
//! watch epolls.

pub mod limits;
mod nesting;
#[cfg(test)]
mod tests;
mod watch;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::ops::Bound;
use core::sync::atomic::Ordering::Relaxed;

use self::limits::Account;
pub use self::watch::Watch;
use self::watch::{Interest, Key, key_of, queue_of, wanted};
use super::file::{Events, FileOps};
use super::open_file::OpenFile;
use crate::errno::{Errno, Result};
use crate::exec::{self, Mutex, WaitQueue};
use crate::sync::{SpinGuard, SpinLock};

pub const EPOLLEXCLUSIVE: u32 = 1 << 28;
pub const EPOLLWAKEUP: u32 = 1 << 29;
pub const EPOLLONESHOT: u32 = 1 << 30;
pub const EPOLLET: u32 = 1 << 31;

/// An event that only `epoll_wait` waits for: who polls or watches an epoll has a mask of 16 bits.
const LOOK_AGAIN: u32 = 1 << 16;

/// Held while an epoll comes to watch an epoll, or one that is watched comes to watch anything: two that did so at once would
/// not see the circle that they make, or the chain.
static NESTING: Mutex<()> = Mutex::new(());

/// Watches that are looked at between two looks at the clock, where nobody can give way.
const LOOKS: usize = 64;

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

/// So many watches are looked at between two looks at the clock.
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

/// What came of handing out events.
pub struct Collected {
    pub count: usize,
    /// So many of the watches that were listed have not been looked at: it took too long, or an event was not taken.
    pub left: usize,
}

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

    /// Deletes this watch, unless somebody has done so.
    fn forget(&self, watch: &Watch) {
        let mut watches = self.watches.lock();
        if !watches.get(&watch.key).is_some_and(|known| core::ptr::eq(Arc::as_ptr(known), watch)) {
            return;
        }
        let Some(watch) = watches.remove(&watch.key) else { return };
        // With the other lock: see `insert`.
        self.ready.lock().delete(&watch);
        drop(watches);
        self.account.remove(1);
    }

    /// Files that are always ready cannot be watched.
    pub fn can_watch(file: &OpenFile) -> bool {
        queue_of(file).is_some()
    }

    /// EPOLL_CTL_ADD of a file that is no epoll to an epoll that nobody watches. None: it is another case.
    pub fn add_now(&self, fd: i32, file: &Arc<OpenFile>, events: u32, data: u64) -> Option<Result<()>> {
        if file.ops_as::<Epoll>().is_some() {
            return None;
        }
        let Some(queue) = queue_of(file) else { return Some(Err(Errno::EPERM)) };
        let _control = self.control.lock();
        // Who makes another epoll watch this one says so under the same lock before it looks through what this one watches.
        if !self.outer.lock().is_empty() {
            return None;
        }
        let watch = self.insert(fd, file, Interest { events, data, armed: true });
        Some(watch.map(|watch| self.start(&watch, queue)))
    }

    /// EPOLL_CTL_ADD.
    pub async fn add(&self, fd: i32, file: &Arc<OpenFile>, events: u32, data: u64) -> Result<()> {
        if let Some(done) = self.add_now(fd, file, events, data) {
            return done;
        }
        let queue = queue_of(file).ok_or(Errno::EPERM)?;
        let inner = file.ops_as::<Epoll>();
        if inner.is_some_and(|inner| core::ptr::eq(inner, self)) {
            return Err(Errno::EINVAL);
        }
        let _nesting = NESTING.lock().await;
        if let (Some(this), Some(inner)) = (self.this.upgrade(), inner.and_then(|inner| inner.this.upgrade())) {
            nesting::check_depth(&this, &inner).await?;
        }
        let watch = self.insert(fd, file, Interest { events, data, armed: true })?;
        let watch = scopeguard::guard(watch, |watch| self.forget(&watch));
        if let Some(inner) = inner {
            let _control = inner.control.lock();
            remember(&mut inner.outer.lock(), &watch)?;
        }
        nesting::check_ways(file).await?;
        let _control = self.control.lock();
        let watch = scopeguard::ScopeGuard::into_inner(watch);
        if !watch.deleted.load(Relaxed) {
            self.start(&watch, queue);
        }
        Ok(())
    }

    /// The watch is to be told of what happens from now on, and of what is there. The caller has `control`.
    fn start(&self, watch: &Arc<Watch>, queue: &WaitQueue) {
        watch.attach(queue);
        if !watch.current().is_empty() {
            self.list(watch);
        }
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
        drop(watches);
        file.add_watch(&watch).inspect_err(|_| self.forget(&watch))?;
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
        self.forget(&watch);
        watch.detach(file);
        Ok(())
    }

    /// Hands out up to `max` events that are there now, of the first `turns` watches on the list, or of all. An event that
    /// `deliver` does not take stays, as the first one. Who goes on with what is left gets no event twice.
    pub fn collect_into(&self, max: usize, turns: Option<usize>, deliver: impl FnMut(u32, u64) -> bool) -> Collected {
        let ready = self.ready.lock();
        let turns = turns.unwrap_or(ready.list.len());
        self.hand_out(ready, max, turns, true, deliver)
    }

    /// The same without a pause, if there are few, and `room` for all of them.
    #[inline]
    pub fn collect_at_once(&self, max: usize, room: usize, deliver: impl FnMut(u32, u64) -> bool) -> Option<Collected> {
        let ready = self.ready.lock();
        let turns = ready.list.len();
        let few = turns <= LOOKS && turns.min(max) <= room;
        few.then(|| self.hand_out(ready, max, turns, false, deliver))
    }

    #[inline]
    fn hand_out<'a>(
        &'a self,
        mut ready: SpinGuard<'a, Ready>,
        max: usize,
        mut turns: usize,
        pauses: bool,
        mut deliver: impl FnMut(u32, u64) -> bool,
    ) -> Collected {
        let (mut count, mut looked) = (0, 1_usize);
        let mut stays = false;
        ready.looking += 1;
        while count < max {
            // The others stay on the list.
            if pauses && looked.is_multiple_of(SOME) && exec::is_budget_used() {
                // This caller may have spent the wake-up of one who would go on, and may not come back.
                stays |= turns > 0;
                break;
            }
            looked += 1;
            let Some(watch) = ready.pop(&mut turns) else { break };
            drop(ready);
            let said = watch.take_event();
            let delivered = said.as_ref().is_some_and(|said| deliver(said.events.bits(), said.data));
            ready = self.ready.lock();
            let Some(said) = said else { continue };
            if !delivered {
                watch.give_back(&said);
                stays = true;
                if ready.lists(&watch) {
                    ready.list.push_front(watch);
                    turns += 1;
                }
                break;
            }
            if said.stays {
                stays = true;
                if ready.lists(&watch) {
                    ready.list.push_back(watch);
                }
            }
            count += 1;
        }
        ready.looking -= 1;
        let missed = stays && core::mem::take(&mut ready.missed);
        drop(ready);
        // Others may have looked while the watch was off the list: under its lock, after they had entered the queue. Who polls or watches
        // the epoll is told only if it did.
        if stays && !self.queue.is_empty() {
            self.queue.wake(1, if missed { LOOK_AGAIN | (Events::IN | Events::RDNORM).bits() } else { LOOK_AGAIN });
        }
        Collected { count, left: turns }
    }

    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    /// Is anything ready? Watches that turn out not to be are taken off the list. After very many of those it may be said
    /// that something is: whoever comes for it goes on with the list, and gives way.
    fn any_ready(&self) -> bool {
        for looks in 1_usize.. {
            if looks.is_multiple_of(LOOKS) && exec::is_budget_used() {
                break;
            }
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
        true
    }

    /// The files that it watches.
    fn files(&self) -> Files<'_> {
        Files { epoll: self, last: None, count: 0 }
    }

    /// The epolls that watch it, each as often as it does.
    fn watchers(&self) -> Result<Vec<Arc<Epoll>>> {
        epolls_of(&self.outer.lock())
    }
}

/// Goes through the files of an epoll, which may change meanwhile, and gives way.
struct Files<'a> {
    epoll: &'a Epoll,
    last: Option<Key>,
    count: usize,
}

impl Files<'_> {
    async fn next(&mut self) -> Option<Arc<OpenFile>> {
        loop {
            self.count += 1;
            if self.count.is_multiple_of(SOME) {
                exec::budget().await;
            }
            let from = self.last.map_or(Bound::Unbounded, Bound::Excluded);
            let watches = self.epoll.watches.lock();
            let (key, watch) = watches.range((from, Bound::Unbounded)).next()?;
            self.last = Some(*key);
            let file = watch.file();
            drop(watches);
            if file.is_some() {
                return file;
            }
        }
    }
}

/// The epolls that these watches belong to.
pub(super) fn epolls_of(watches: &[Weak<Watch>]) -> Result<Vec<Arc<Epoll>>> {
    let mut epolls = Vec::new();
    epolls.try_reserve_exact(watches.len()).map_err(|_| Errno::ENOMEM)?;
    epolls.extend(watches.iter().filter_map(|watch| watch.upgrade()?.epoll()));
    Ok(epolls)
}

/// Adds a watch to a list of those that may be gone already.
pub(super) fn remember(watches: &mut Vec<Weak<Watch>>, watch: &Arc<Watch>) -> Result<()> {
    // Looked through when it would grow, so that many cost little each.
    if watches.len() == watches.capacity() {
        watches.retain(|watch| watch.strong_count() > 0);
    }
    watches.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
    watches.push(Arc::downgrade(watch));
    Ok(())
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
