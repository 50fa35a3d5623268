//! Wait queues: how a task sleeps until something has changed.
//!
//! The waiter registers a node that lives in its own future, tests its condition, and answers `Pending`; whoever makes
//! the condition true wakes the queue *afterwards*. The order on both sides makes a lost wake-up impossible:
//!
//! ```text
//! waiter                                   waker
//!   link node, waiters += 1 (lock)           make the condition true
//!   fence(SeqCst)                            fence(SeqCst)
//!   test the condition: false → Pending      waiters == 0? → nothing to do
//! ```
//!
//! At least one of the two sees the other's write. A wake takes the node off the queue, so the waiter registers again on
//! every poll.
//!
//! Nodes are *shared* (every wake reaches them; they stand at the head) or *exclusive* (a wake reaches as many as it
//! says; first come, first served, at the tail). An exclusive waiter that goes away with a wake spent on it passes the
//! wake on.
//!
//! Lock order: a queue's lock is a leaf. Wakers run after it was released, so they may wake other queues (epoll).

use crate::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use alloc::sync::Arc;
use arrayvec::ArrayVec;
use core::future::Future;
use core::pin::{Pin, pin};
use core::ptr;
use core::task::{Context, Poll, Waker};

use super::list::{List, Node};
use crate::sync::{SpinLock, full_fence};

/// A queue of waiting tasks.
pub struct WaitQueue {
    /// Length of the list, for wakers that have nobody to wake.
    waiters: AtomicUsize,
    list: SpinLock<Waiters>,
}

/// Matches every waiter, and waits for every event.
pub const ANY: u32 = u32::MAX;

const IDLE: u8 = 0;
const LINKED: u8 = 1;
const WOKEN: u8 = 2;

struct Waiters {
    list: List<Wait>,
    /// Counts wake calls: one call does not reach a node twice, nor one that came during the call.
    round: u64,
}

/// What a queue knows of a waiter.
struct Wait {
    key: u64,
    mask: u32,
    exclusive: bool,
    /// Not null: belongs to this [`WaitEntry`], stays in the list when woken, and the list owns a reference.
    entry: AtomicPtr<WaitEntry>,
    /// IDLE → LINKED by the waiter; LINKED → WOKEN by a wake, as its last access to the node; → IDLE by the waiter.
    state: AtomicU8,
    /// The last round that is none of its business. Under the queue's lock.
    round: AtomicU64,
}

impl Wait {
    const fn new(key: u64, mask: u32, exclusive: bool) -> Self {
        let entry = AtomicPtr::new(ptr::null_mut());
        Wait { key, mask, exclusive, entry, state: AtomicU8::new(IDLE), round: AtomicU64::new(0) }
    }

    /// Where a wake goes on: a persistent node that no wake reaches.
    const fn mark() -> Self {
        let entry = AtomicPtr::new(ptr::dangling_mut());
        Wait { key: 0, mask: 0, exclusive: false, entry, state: AtomicU8::new(IDLE), round: AtomicU64::new(u64::MAX) }
    }

    fn persistent(&self) -> bool {
        !self.entry.load(Ordering::Relaxed).is_null()
    }
}

/// Wakers are taken out under the lock and called after it, this many at a time.
const BATCH: usize = 8;

impl WaitQueue {
    pub const fn new() -> Self {
        let list = Waiters { list: List::new(), round: 0 };
        WaitQueue { waiters: AtomicUsize::new(0), list: SpinLock::new(list) }
    }

    /// Wakes all shared waiters and the oldest exclusive one. Answers how many were woken.
    #[inline]
    pub fn wake_one(&self) -> usize {
        self.wake(1, ANY)
    }

    /// Wakes everybody.
    #[inline]
    pub fn wake_all(&self) -> usize {
        self.wake(usize::MAX, ANY)
    }

    /// Wakes the waiters whose mask meets `mask` (poll events): all shared ones and up to `exclusive` exclusive ones.
    #[inline]
    pub fn wake(&self, exclusive: usize, mask: u32) -> usize {
        self.wake_where(exclusive, |_, wants| wants & mask != 0)
    }

    /// Like [`WaitQueue::wake`] for the waiters whose key and mask satisfy the predicate.
    #[inline]
    pub fn wake_where(&self, exclusive: usize, matches: impl FnMut(u64, u32) -> bool) -> usize {
        if self.is_empty() {
            return 0;
        }
        self.wake_waiters(exclusive, matches)
    }

    /// Nobody waits: a condition made true before this call needs no wake.
    #[inline]
    pub fn is_empty(&self) -> bool {
        // The waker's column of the module's comment.
        full_fence();
        self.waiters.load(Ordering::Relaxed) == 0
    }

    #[inline(never)]
    fn wake_waiters(&self, exclusive: usize, mut matches: impl FnMut(u64, u32) -> bool) -> usize {
        let mut waiters = self.list.lock();
        if let Some(waker) = waiters.take_only(exclusive, &mut matches) {
            self.waiters.store(0, Ordering::Relaxed);
            drop(waiters);
            waker.wake();
            return 1;
        }
        drop(waiters);
        self.wake_many(exclusive, matches)
    }

    #[inline(never)]
    fn wake_many(&self, mut exclusive: usize, mut matches: impl FnMut(u64, u32) -> bool) -> usize {
        let mut woken = 0;
        let mut round = None;
        let mark = pin!(Node::new(Wait::mark()));
        loop {
            let mut wakers = ArrayVec::<Waker, BATCH>::new();
            let mut waiters = self.list.lock();
            let round = *round.get_or_insert_with(|| {
                waiters.round += 1;
                waiters.round
            });
            let more = waiters.collect(round, mark.as_ref(), &mut exclusive, &mut matches, &mut wakers);
            self.waiters.store(waiters.list.len(), Ordering::Relaxed);
            drop(waiters);
            woken += wakers.len();
            // Not `into_iter`, which would copy the whole array.
            wakers.drain(..).for_each(Waker::wake);
            if !more {
                return woken;
            }
        }
    }

    /// Sleeps until `cond` answers Some. All waiters of this kind are woken by every wake.
    pub fn wait_for<T, F: FnMut() -> Option<T>>(&self, cond: F) -> WaitFor<'_, F> {
        WaitFor { node: WaitNode::new(self), cond, tried: false }
    }

    /// The same for waiters that listen to some events only (poll masks).
    pub fn wait_for_mask<T, F: FnMut() -> Option<T>>(&self, mask: u32, cond: F) -> WaitFor<'_, F> {
        WaitFor { node: WaitNode::shared(self, 0, mask), cond, tried: false }
    }

    /// Sleeps until `cond` answers Some. A wake reaches the longest-waiting ones first, as many as it says. `cond` takes what it
    /// waits for; if there may be more of it than wakes, the taker wakes the next.
    pub fn wait_for_exclusive<T, F: FnMut() -> Option<T>>(&self, cond: F) -> WaitFor<'_, F> {
        WaitFor { node: WaitNode::exclusive(self, 0, ANY), cond, tried: false }
    }

    /// The same for a waiter that [`WaitQueue::wake_where`] finds by its key. Waiters stand in the order in which they came.
    pub fn wait_for_key<T, F: FnMut() -> Option<T>>(&self, key: u64, cond: F) -> WaitFor<'_, F> {
        WaitFor { node: WaitNode::exclusive(self, key, ANY), cond, tried: false }
    }

    /// Sleeps until the next wake that is issued after the first poll.
    pub fn wait(&self) -> WaitOnce<'_> {
        WaitOnce { node: WaitNode::new(self) }
    }

    /// Adds a heap-allocated waiter, which stays until it is removed; the queue holds a reference meanwhile.
    /// An entry is in one queue at most: false if it is in one already.
    #[inline]
    pub fn add(&self, entry: &Arc<WaitEntry>) -> bool {
        let this = ptr::from_ref(self).cast_mut();
        if entry.queue.compare_exchange(ptr::null_mut(), this, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return false;
        }
        let mut waiters = self.list.lock();
        let node = Arc::into_raw(entry.clone());
        // SAFETY: the exchange made this queue the only one that may link the node, and the reference just leaked into
        // the list keeps it alive, at its address, until it is unlinked.
        unsafe {
            (*node).node.data.entry.store(node.cast_mut(), Ordering::Relaxed);
            waiters.link(Pin::new_unchecked(&(*node).node));
        }
        self.waiters.store(waiters.list.len(), Ordering::Relaxed);
        drop(waiters);
        full_fence();
        true
    }

    /// Takes an entry out. False if it is not in this queue. A waker that was already on its way may still be called.
    #[inline]
    pub fn remove(&self, entry: &Arc<WaitEntry>) -> bool {
        let mut waiters = self.list.lock();
        if !ptr::eq(entry.queue.load(Ordering::Acquire), self) {
            return false;
        }
        // SAFETY: only this queue links the entry's node (`queue` says so), and we hold the lock.
        unsafe {
            if !entry.node.is_linked() {
                return false; // `add` is about to
            }
            waiters.list.remove(&entry.node);
        }
        self.waiters.store(waiters.list.len(), Ordering::Relaxed);
        entry.queue.store(ptr::null_mut(), Ordering::Release);
        drop(waiters);
        // SAFETY: gives back the reference that `add` leaked; the caller holds another one.
        unsafe { Arc::decrement_strong_count(Arc::as_ptr(entry)) };
        true
    }
}

impl Default for WaitQueue {
    fn default() -> Self {
        WaitQueue::new()
    }
}

impl Drop for WaitQueue {
    /// Lets go of the entries. (Nodes in futures borrow the queue: they are gone, or leaked for ever.)
    fn drop(&mut self) {
        let waiters = self.list.get_mut();
        while let Some(front) = waiters.list.front() {
            let node = ptr::from_ref(front);
            // SAFETY: a linked node is alive; the reference that `add` leaked is given back after unlinking.
            unsafe {
                waiters.list.remove(&*node);
                let entry = (*node).data.entry.load(Ordering::Relaxed);
                if !entry.is_null() {
                    (*entry).queue.store(ptr::null_mut(), Ordering::Release);
                    drop(Arc::from_raw(entry));
                }
            }
        }
    }
}

impl Waiters {
    /// # Safety
    /// The node is unlinked, alive until it is unlinked again, and touched only under this queue's lock.
    unsafe fn link(&mut self, node: Pin<&Node<Wait>>) {
        node.data.round.store(self.round, Ordering::Relaxed);
        node.data.state.store(LINKED, Ordering::Relaxed);
        // SAFETY: passed on to the caller.
        unsafe { if node.data.exclusive { self.list.push_back(node) } else { self.list.push_front(node) } }
    }

    /// The waker of the only waiter, if that is one in a future and the wake is for it. There is no round to it: a node that
    /// comes back during the call has missed it.
    #[inline]
    fn take_only(&mut self, exclusive: usize, matches: &mut impl FnMut(u64, u32) -> bool) -> Option<Waker> {
        let node = ptr::from_ref(self.list.front().filter(|_| self.list.len() == 1)?);
        // SAFETY: linked nodes are alive, and their links belong to the lock we hold; the node is not touched any more
        // after WOKEN was stored.
        unsafe {
            let wait = &(*node).data;
            if wait.persistent() || wait.exclusive && exclusive == 0 || !matches(wait.key, wait.mask) {
                return None;
            }
            self.list.remove(&*node);
            let waker = (*node).take_waker();
            wait.state.store(WOKEN, Ordering::Release);
            waker
        }
    }

    /// Takes wakers of matching nodes until `wakers` is full, the exclusive ones used up, or the list at its end. In the first
    /// case true, and `mark` stands where to go on: else each batch would begin with all that the last one had passed by.
    fn collect<const N: usize>(
        &mut self,
        round: u64,
        mark: Pin<&Node<Wait>>,
        exclusive: &mut usize,
        matches: &mut impl FnMut(u64, u32) -> bool,
        wakers: &mut ArrayVec<Waker, N>,
    ) -> bool {
        // SAFETY: the caller's mark is in this list or in none, and we hold the lock.
        let mut cursor = unsafe {
            if mark.is_linked() {
                let next = self.list.after(&mark).map(ptr::from_ref);
                self.list.remove(&mark);
                next
            } else {
                self.list.front().map(ptr::from_ref)
            }
        };
        while let Some(node) = cursor {
            // SAFETY: linked nodes are alive, and their links belong to the lock we hold.
            let node = unsafe { &*node };
            let wait = &node.data;
            if wait.exclusive && *exclusive == 0 {
                return false;
            }
            if wakers.is_full() {
                // SAFETY: the mark is in no list, and its owner calls again before it goes away.
                unsafe { self.list.insert_before(node, mark) };
                return true;
            }
            // SAFETY: `node` is in this list.
            cursor = unsafe { self.list.after(node) }.map(ptr::from_ref);
            if wait.round.load(Ordering::Relaxed) >= round || !matches(wait.key, wait.mask) {
                continue;
            }
            // SAFETY: as above; a node that is not persistent is not touched any more after WOKEN was stored.
            unsafe {
                if wait.persistent() {
                    wait.round.store(round, Ordering::Relaxed);
                    wakers.extend(node.clone_waker());
                } else {
                    *exclusive -= usize::from(wait.exclusive);
                    self.list.remove(node);
                    wakers.extend(node.take_waker());
                    wait.state.store(WOKEN, Ordering::Release);
                }
            }
        }
        false
    }
}

/// A waiter that lives in a pinned future.
pub struct WaitNode<'q> {
    queue: &'q WaitQueue,
    node: Node<Wait>,
}

impl<'q> WaitNode<'q> {
    /// A shared waiter for everything.
    pub const fn new(queue: &'q WaitQueue) -> Self {
        WaitNode::shared(queue, 0, ANY)
    }

    pub const fn shared(queue: &'q WaitQueue, key: u64, mask: u32) -> Self {
        WaitNode { queue, node: Node::new(Wait::new(key, mask, false)) }
    }

    pub const fn exclusive(queue: &'q WaitQueue, key: u64, mask: u32) -> Self {
        WaitNode { queue, node: Node::new(Wait::new(key, mask, true)) }
    }

    pub fn queue(&self) -> &'q WaitQueue {
        self.queue
    }

    fn node(self: Pin<&Self>) -> Pin<&Node<Wait>> {
        // SAFETY: structural pinning of a field that is never moved out.
        unsafe { self.map_unchecked(|this| &this.node) }
    }

    /// Puts the node into the queue, or leaves it where it is, with this waker. Test the condition after this.
    pub fn register(self: Pin<&mut Self>, waker: &Waker) {
        let this = self.into_ref();
        let _replaced;
        let mut waiters = this.queue.list.lock();
        // SAFETY: the lock is held; `Drop` unlinks the node before its memory goes away (Pin's guarantee).
        unsafe {
            _replaced = this.node.set_waker(waker);
            if !this.node.is_linked() {
                waiters.link(this.node());
                this.queue.waiters.store(waiters.list.len(), Ordering::Relaxed);
            }
        }
        drop(waiters);
        // The waiter's column of the module's comment.
        full_fence();
    }

    /// Takes the node out. True if a wake had been spent on it since it was registered.
    pub fn unregister(self: Pin<&mut Self>) -> bool {
        self.detach()
    }

    #[inline]
    fn detach(&self) -> bool {
        let state = &self.node.data.state;
        match state.load(Ordering::Acquire) {
            IDLE => return false,
            // It may become WOKEN under our eyes; nothing else changes without us.
            LINKED => self.unlink(),
            _ => {}
        }
        let woken = state.load(Ordering::Acquire) == WOKEN;
        state.store(IDLE, Ordering::Relaxed);
        woken
    }

    #[inline(never)]
    fn unlink(&self) {
        let mut waiters = self.queue.list.lock();
        // SAFETY: the lock is held, and the node can be in this queue only.
        unsafe {
            if self.node.is_linked() {
                waiters.list.remove(&self.node);
                self.queue.waiters.store(waiters.list.len(), Ordering::Relaxed);
            }
        }
    }

    /// A wake was spent on it since it was registered.
    pub fn was_woken(&self) -> bool {
        self.node.data.state.load(Ordering::Acquire) == WOKEN
    }

    /// The waiter is served. A wake that came too late for `woken`, what it knew before it looked, goes to the next.
    #[inline]
    fn finish(&self, woken: bool) {
        if self.detach() && !woken {
            self.pass_on();
        }
    }

    #[inline(never)]
    fn pass_on(&self) {
        if self.node.data.exclusive {
            let (key, mask) = (self.node.data.key, self.node.data.mask);
            self.queue.wake_where(1, |k, m| k == key && m & mask != 0);
        }
    }
}

impl Drop for WaitNode<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.detach() {
            self.pass_on();
        }
    }
}

/// See [`WaitQueue::wait_for`].
#[must_use = "futures do nothing unless awaited"]
pub struct WaitFor<'q, F> {
    node: WaitNode<'q>,
    cond: F,
    /// The caller has just asked `cond` in vain.
    tried: bool,
}

impl<F> WaitFor<'_, F> {
    /// Registers before it asks for the first time: the caller has found that there is nothing yet.
    pub fn after_trying(mut self) -> Self {
        self.tried = true;
        self
    }
}

impl<T, F: FnMut() -> Option<T>> Future for WaitFor<'_, F> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // SAFETY: the node stays pinned; `cond` is not structurally pinned.
        let (mut node, cond, tried) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.node), &mut this.cond, &mut this.tried)
        };
        let mut woken = node.was_woken();
        let mut value = if core::mem::take(tried) { None } else { cond() };
        if value.is_none() {
            node.as_mut().register(cx.waker());
            woken = false;
            value = cond();
        }
        match value {
            Some(value) => {
                node.finish(woken);
                Poll::Ready(value)
            }
            None => Poll::Pending,
        }
    }
}

/// See [`WaitQueue::wait`].
#[must_use = "futures do nothing unless awaited"]
pub struct WaitOnce<'q> {
    node: WaitNode<'q>,
}

impl Future for WaitOnce<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: structural pinning.
        let mut node = unsafe { self.map_unchecked_mut(|this| &mut this.node) };
        if node.was_woken() {
            node.detach();
            return Poll::Ready(());
        }
        node.as_mut().register(cx.waker());
        Poll::Pending
    }
}

/// A waiter on the heap that is woken again and again: what epoll keeps per watched file.
///
/// The waker is called for every matching wake of the queue that the entry is in.
pub struct WaitEntry {
    node: Node<Wait>,
    /// The queue it was added to. Null → queue by the winner of `add`; back to null under that queue's lock.
    queue: AtomicPtr<WaitQueue>,
}

impl WaitEntry {
    pub fn new(waker: Waker, mask: u32) -> Arc<Self> {
        let node = Node::new(Wait::new(0, mask, false));
        // SAFETY: the node is in no list yet.
        unsafe { node.set_waker(&waker) };
        Arc::new(WaitEntry { node, queue: AtomicPtr::new(ptr::null_mut()) })
    }

    /// Takes it out of the one of `queues` that it is in, if there is one.
    pub fn leave(self: &Arc<Self>, queues: &'static [WaitQueue]) -> bool {
        let offset = self.queue.load(Ordering::Acquire).addr().checked_sub(queues.as_ptr().addr());
        let queue = offset.and_then(|offset| queues.get(offset / size_of::<WaitQueue>()));
        queue.is_some_and(|queue| queue.remove(self))
    }
}
