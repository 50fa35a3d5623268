//! epoll(7).
//!
//! An [`Epoll`] keeps a [`Watch`] per watched descriptor. The watch's entry stays in the file's wait queue; a wake puts the
//! watch on the epoll's ready list and wakes who waits for it. `epoll_wait` takes watches off the list, asks the files
//! what is true now, and puts level-triggered ones back.
//!
//! Locks: `control`, [`NESTING`], `watches`, a watch's `state`, `ready`. Wakers run without any wait-queue lock, so epolls
//! can watch epolls.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::task::Wake;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, Ordering};

use super::file::{Events, FileOps};
use super::open_file::{Kind, OpenFile};
use smallvec::SmallVec;

use crate::errno::{Errno, Result};
use crate::exec::{WaitEntry, WaitQueue};
use crate::sync::SpinLock;

pub const EPOLLEXCLUSIVE: u32 = 1 << 28;
pub const EPOLLWAKEUP: u32 = 1 << 29;
pub const EPOLLONESHOT: u32 = 1 << 30;
pub const EPOLLET: u32 = 1 << 31;

/// An event that only `epoll_wait` waits for: who polls or watches an epoll has a mask of 16 bits.
const LOOK_AGAIN: u32 = 1 << 16;

/// Epolls that may watch each other in a chain (EP_MAX_NESTS of Linux).
const MAX_NESTING: usize = 5;

/// Held while an epoll comes to watch an epoll: two that did so at once would not see the circle that they make.
static NESTING: SpinLock<()> = SpinLock::new(());

/// The identity of a watch: the description and the descriptor it was added by.
type Key = (usize, i32);

fn key_of(fd: i32, file: &Arc<OpenFile>) -> Key {
    (Arc::as_ptr(file).addr(), fd)
}

pub struct Epoll {
    /// One call at a time that puts an entry into a file's queue, or takes it out.
    control: SpinLock<()>,
    watches: SpinLock<BTreeMap<Key, Arc<Watch>>>,
    ready: SpinLock<VecDeque<Arc<Watch>>>,
    queue: WaitQueue,
    this: Weak<Epoll>,
}

#[derive(Clone, Copy)]
struct Interest {
    /// Events wanted, with EPOLLET and EPOLLONESHOT.
    events: u32,
    data: u64,
    /// False after a one-shot event until EPOLL_CTL_MOD.
    armed: bool,
}

struct State {
    interest: Interest,
    /// In the file's queue. None: deleted, or being modified, and looked at afterwards.
    entry: Option<Arc<WaitEntry>>,
}

impl State {
    /// What the program wants to know now.
    fn asked(&self) -> Events {
        match self.interest {
            Interest { events, armed: true, .. } if self.entry.is_some() => Events::from_bits_truncate(wanted(events)),
            _ => Events::empty(),
        }
    }
}

pub struct Watch {
    epoll: Weak<Epoll>,
    file: Weak<OpenFile>,
    key: Key,
    state: SpinLock<State>,
    /// On the ready list.
    listed: AtomicBool,
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

fn queue_of(file: &OpenFile) -> Option<&WaitQueue> {
    match file.kind() {
        Kind::Ops(ops) => ops.wait_queue(),
        _ => None,
    }
}

/// What a watch with this interest is to be woken for.
fn wanted(events: u32) -> u32 {
    events & 0xffff | (Events::ERR | Events::HUP).bits()
}

impl Watch {
    /// Puts an entry for the events of the current interest into the file's queue.
    fn attach(self: &Arc<Self>, queue: &WaitQueue) {
        let events = self.state.lock().interest.events;
        let entry = WaitEntry::new(self.clone().into(), wanted(events));
        queue.add(&entry);
        self.state.lock().entry = Some(entry);
    }

    fn detach(&self, queue: Option<&WaitQueue>) {
        let entry = self.state.lock().entry.take();
        if let (Some(entry), Some(queue)) = (entry, queue) {
            queue.remove(&entry);
        }
    }

    /// The last descriptor of the file is gone.
    pub(super) fn file_closed(&self, file: &OpenFile) {
        self.detach(queue_of(file));
        if let Some(epoll) = self.epoll.upgrade() {
            epoll.forget(self.key);
        }
    }

    /// What the program wants to know and is true now.
    fn current(&self) -> Events {
        let asked = self.state.lock().asked();
        if asked.is_empty() {
            return asked;
        }
        let Some(file) = self.file.upgrade() else { return Events::empty() };
        file.ready() & asked
    }

    /// A one-shot watch has said what it was to say.
    fn disarm(&self) {
        self.state.lock().interest.armed = false;
    }
}

/// Events as (events, data). A few need no allocation.
pub type Collected = SmallVec<[(u32, u64); 8]>;

impl Epoll {
    pub fn new() -> Arc<Epoll> {
        Arc::new_cyclic(|this| Epoll {
            control: SpinLock::new(()),
            watches: SpinLock::new(BTreeMap::new()),
            ready: SpinLock::new(VecDeque::new()),
            queue: WaitQueue::new(),
            this: this.clone(),
        })
    }

    /// Notes that the watch may have something to say.
    fn list(&self, watch: &Arc<Watch>) {
        if watch.state.lock().asked().is_empty() {
            return;
        }
        let mut ready = self.ready.lock();
        if !watch.listed.swap(true, Ordering::AcqRel) {
            // There is room: `add` reserved a place for every watch.
            ready.push_back(watch.clone());
        }
        drop(ready);
        self.queue.wake(1, (Events::IN | Events::RDNORM).bits());
    }

    fn forget(&self, key: Key) -> Option<Arc<Watch>> {
        let watch = self.watches.lock().remove(&key)?;
        let mut ready = self.ready.lock();
        if watch.listed.swap(false, Ordering::AcqRel) {
            ready.retain(|other| !Arc::ptr_eq(other, &watch));
        }
        drop(ready);
        Some(watch)
    }

    /// EPOLL_CTL_ADD.
    pub fn add(&self, fd: i32, file: &Arc<OpenFile>, events: u32, data: u64) -> Result<()> {
        let queue = queue_of(file).ok_or(Errno::EPERM)?;
        let _control = self.control.lock();
        let _nesting = file.ops_as::<Epoll>().map(|_| NESTING.lock());
        if let Some(other) = file.ops_as::<Epoll>() {
            let too_deep = other.depth().is_none_or(|depth| depth >= MAX_NESTING - 1);
            if core::ptr::eq(other, self) {
                return Err(Errno::EINVAL);
            }
            if too_deep || other.reaches(self, MAX_NESTING) {
                return Err(Errno::ELOOP);
            }
        }
        let key = key_of(fd, file);
        let watch = Arc::new(Watch {
            epoll: self.this.clone(),
            file: Arc::downgrade(file),
            key,
            state: SpinLock::new(State { interest: Interest { events, data, armed: true }, entry: None }),
            listed: AtomicBool::new(false),
        });
        let mut watches = self.watches.lock();
        if watches.contains_key(&key) {
            return Err(Errno::EEXIST);
        }
        let mut ready = self.ready.lock();
        let missing = (watches.len() + 1).saturating_sub(ready.len());
        ready.try_reserve(missing).map_err(|_| Errno::ENOMEM)?;
        drop(ready);
        watches.insert(key, watch.clone());
        drop(watches);
        file.add_watch(Arc::downgrade(&watch));
        watch.attach(queue);
        if !watch.current().is_empty() {
            self.list(&watch);
        }
        Ok(())
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
        // The entry in the queue wakes for what it was made for.
        if wanted(state.interest.events) == wanted(events) {
            state.interest = interest;
            drop(state);
            // Who is woken for a watch on the list takes it off, and sees the new interest.
            if watch.listed.load(Ordering::Acquire) {
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
        if let (Some(entry), Some(queue)) = (entry, queue_of(file)) {
            queue.remove(&entry);
            watch.attach(queue);
        }
    }

    /// EPOLL_CTL_DEL.
    pub fn delete(&self, fd: i32, file: &Arc<OpenFile>) -> Result<()> {
        let queue = queue_of(file).ok_or(Errno::EPERM)?;
        let _control = self.control.lock();
        let watch = self.find(fd, file)?;
        self.forget(watch.key);
        watch.detach(Some(queue));
        Ok(())
    }

    /// Up to `max` events that are there now, as (events, data).
    pub fn collect(&self, max: usize) -> Collected {
        let mut out = Collected::new();
        self.collect_into(max, |events, data| {
            out.push((events, data));
            true
        });
        out
    }

    /// Hands out up to `max` events that are there now, and answers how many. An event that `deliver` does not take stays.
    pub fn collect_into(&self, max: usize, mut deliver: impl FnMut(u32, u64) -> bool) -> usize {
        let mut count = 0;
        let mut stays = false;
        // Each watch that is listed now gets its turn once.
        let mut turns = self.ready.lock().len();
        while turns > 0 && count < max {
            turns -= 1;
            let mut ready = self.ready.lock();
            let Some(watch) = ready.pop_front() else { break };
            // Cleared before the file is asked: an event that comes later lists the watch again.
            watch.listed.store(false, Ordering::Release);
            drop(ready);
            let events = watch.current();
            if events.is_empty() {
                continue;
            }
            let Interest { events: flags, data, .. } = watch.state.lock().interest;
            let delivered = deliver(events.bits(), data);
            if delivered && flags & EPOLLONESHOT != 0 {
                watch.disarm();
            } else if !delivered || flags & EPOLLET == 0 {
                let mut ready = self.ready.lock();
                if !watch.listed.swap(true, Ordering::AcqRel) {
                    ready.push_back(watch);
                }
                stays = true;
            }
            if !delivered {
                break;
            }
            count += 1;
        }
        // Others may have looked while the watch was off the list: under its lock, after they had entered the queue.
        if stays && !self.queue.is_empty() {
            self.queue.wake(1, LOOK_AGAIN);
        }
        count
    }

    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    /// Is anything ready? Watches that turn out not to be are taken off the list.
    fn any_ready(&self) -> bool {
        loop {
            let Some(watch) = self.ready.lock().front().cloned() else { return false };
            if !watch.current().is_empty() {
                return true;
            }
            let mut ready = self.ready.lock();
            if ready.front().is_some_and(|front| Arc::ptr_eq(front, &watch)) {
                ready.pop_front();
                watch.listed.store(false, Ordering::Release);
                drop(ready);
                // It may have become ready between the test and the removal.
                if !watch.current().is_empty() {
                    self.list(&watch);
                }
            }
        }
    }

    fn children(&self) -> Vec<Arc<OpenFile>> {
        // Not filtered under the lock: a reference that is let go of may be the last, and the file then forgets its watch.
        let mut files: Vec<Arc<OpenFile>> =
            self.watches.lock().values().filter_map(|watch| watch.file.upgrade()).collect();
        files.retain(|file| file.ops_as::<Epoll>().is_some());
        files
    }

    /// Is `other` watched by this epoll, directly or through others?
    fn reaches(&self, other: &Epoll, limit: usize) -> bool {
        if core::ptr::eq(self, other) || limit == 0 {
            return true;
        }
        self.children().iter().filter_map(|file| file.ops_as::<Epoll>()).any(|child| child.reaches(other, limit - 1))
    }

    /// Levels of epolls below this one; None if there are too many.
    fn depth(&self) -> Option<usize> {
        self.depth_within(MAX_NESTING)
    }

    fn depth_within(&self, limit: usize) -> Option<usize> {
        let mut deepest = 0;
        for file in self.children() {
            let child = file.ops_as::<Epoll>()?;
            deepest = deepest.max(1 + child.depth_within(limit.checked_sub(1)?)?);
        }
        Some(deepest)
    }
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
        for watch in core::mem::take(self.watches.get_mut()).into_values() {
            if let Some(file) = watch.file.upgrade() {
                watch.detach(queue_of(&file));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::test_util::{block_on, run_until_idle};
    use crate::fs::TryError;
    use crate::fs::eventfd::EventFd;
    use crate::mm::IoBuf;

    const IN: u32 = 1;
    const OUT: u32 = 4;

    fn event_file() -> (Arc<EventFd>, Arc<OpenFile>) {
        let event = EventFd::new(0, false);
        (event.clone(), OpenFile::new_anon("[eventfd]", event, 2))
    }

    fn drain(event: &EventFd, file: &OpenFile) -> Result<usize, TryError> {
        event.try_read(file, &mut IoBuf::kernel_mut(&mut [0; 8]), 0)
    }

    #[test]
    fn level_triggered_events_stay_until_they_are_gone() {
        let epoll = Epoll::new();
        let (event, file) = event_file();
        epoll.add(3, &file, IN, 77).unwrap();
        assert_eq!(epoll.add(3, &file, IN, 77), Err(Errno::EEXIST));
        assert_eq!(epoll.collect(10).to_vec(), []);
        event.signal(1);
        assert_eq!(epoll.collect(10).to_vec(), [(IN, 77)]);
        assert_eq!(epoll.collect(10).to_vec(), [(IN, 77)]);
        assert!(epoll.ready().contains(Events::IN));
        drain(&event, &file).unwrap();
        assert_eq!(epoll.collect(10).to_vec(), []);
        assert!(epoll.ready().is_empty());
        event.signal(1);
        assert_eq!(epoll.collect(10).to_vec(), [(IN, 77)]);
    }

    #[test]
    fn edge_triggered_events_come_once_per_wake() {
        let epoll = Epoll::new();
        let (event, file) = event_file();
        event.signal(1);
        epoll.add(3, &file, IN | EPOLLET, 1).unwrap();
        assert_eq!(epoll.collect(10).to_vec(), [(IN, 1)]);
        assert_eq!(epoll.collect(10).to_vec(), []);
        event.signal(1);
        assert_eq!(epoll.collect(10).to_vec(), [(IN, 1)]);
        assert_eq!(epoll.collect(10).to_vec(), []);
    }

    #[test]
    fn one_shot_waits_for_its_modification() {
        let epoll = Epoll::new();
        let (event, file) = event_file();
        epoll.add(3, &file, IN | EPOLLONESHOT, 1).unwrap();
        event.signal(1);
        assert_eq!(epoll.collect(10).to_vec(), [(IN, 1)]);
        event.signal(1);
        assert_eq!(epoll.collect(10).to_vec(), []);
        epoll.modify(3, &file, IN | OUT | EPOLLONESHOT, 2).unwrap();
        assert_eq!(epoll.collect(10).to_vec(), [(IN | OUT, 2)]);
    }

    #[test]
    fn deleted_and_closed_files_say_nothing_more() {
        let epoll = Epoll::new();
        let (event, file) = event_file();
        epoll.add(3, &file, IN, 1).unwrap();
        event.signal(1);
        epoll.delete(3, &file).unwrap();
        assert_eq!(epoll.delete(3, &file), Err(Errno::ENOENT));
        assert_eq!(epoll.collect(10).to_vec(), []);
        epoll.add(3, &file, IN, 1).unwrap();
        drop(file);
        assert_eq!(epoll.collect(10).to_vec(), []);
        event.signal(1);
        assert_eq!(epoll.collect(10).to_vec(), []);
        assert!(epoll.watches.lock().is_empty());
    }

    #[test]
    fn everybody_gets_a_turn() {
        let epoll = Epoll::new();
        let files: Vec<_> = (0..5).map(|_| event_file()).collect();
        for (n, (event, file)) in files.iter().enumerate() {
            epoll.add(n as i32, file, IN, n as u64).unwrap();
            event.signal(1);
        }
        let first: Vec<u64> = epoll.collect(3).iter().map(|(_, data)| *data).collect();
        let second: Vec<u64> = epoll.collect(3).iter().map(|(_, data)| *data).collect();
        assert_eq!((first, second), (alloc::vec![0, 1, 2], alloc::vec![3, 4, 0]));
    }

    #[test]
    fn epolls_watch_epolls_but_not_in_circles() {
        let (inner, outer) = (Epoll::new(), Epoll::new());
        let inner_file = OpenFile::new_anon("[eventpoll]", inner.clone(), 2);
        let outer_file = OpenFile::new_anon("[eventpoll]", outer.clone(), 2);
        outer.add(4, &inner_file, IN, 9).unwrap();
        assert_eq!(inner.add(5, &outer_file, IN, 9), Err(Errno::ELOOP));
        assert_eq!(outer.add(5, &outer_file, IN, 9), Err(Errno::EINVAL));
        let (event, file) = event_file();
        inner.add(3, &file, IN, 1).unwrap();
        event.signal(1);
        assert_eq!(outer.collect(10).to_vec(), [(IN, 9)]);
    }

    #[test]
    fn a_waiter_is_woken() {
        let epoll = Epoll::new();
        let (event, file) = event_file();
        epoll.add(3, &file, IN, 5).unwrap();
        let waiting = epoll.clone();
        let signal = event.clone();
        crate::exec::spawn("later", async move {
            crate::exec::yield_now().await;
            signal.signal(1);
        });
        let found = block_on(async move {
            waiting.queue().wait_for(|| Some(waiting.collect(1)).filter(|found| !found.is_empty())).await
        });
        assert_eq!(found.to_vec(), [(IN, 5)]);
        run_until_idle();
        drop(file);
    }
}
