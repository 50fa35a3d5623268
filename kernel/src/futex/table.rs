//! The hash table of waiters.

use arrayvec::ArrayVec;
use core::pin::Pin;
use core::ptr;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use core::task::Waker;

use crate::errno::{Errno, Result};
use crate::exec::list::{List, Node};
use crate::mm::FutexKey;
use crate::sync::{SpinGuard, SpinLock};

const BUCKETS: usize = 512;

/// On a cache line of its own.
#[repr(align(64))]
struct Bucket {
    list: SpinLock<List<Waiter>>,
    /// Those who wait for words of this bucket and are none of FUTEX_WAKE's: see `pi`.
    others: AtomicU32,
    /// Counts wakes of many: one does not reach who came during it. Under the lock of the list.
    round: AtomicU64,
}

impl Bucket {
    const fn new() -> Self {
        Bucket { list: SpinLock::new(List::new()), others: AtomicU32::new(0), round: AtomicU64::new(0) }
    }
}

static TABLE: [Bucket; BUCKETS] = [const { Bucket::new() }; BUCKETS];

pub(super) type Guard = SpinGuard<'static, List<Waiter>>;

/// What identifies a word, in two words of its own: the space or object, and the address or offset, whose lowest bit (words
/// are aligned) tells the two kinds apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key(u64, u64);

impl Key {
    pub const MIN: Key = Key(0, 0);
    pub const MAX: Key = Key(u64::MAX, u64::MAX);
}

impl From<FutexKey> for Key {
    #[inline]
    fn from(key: FutexKey) -> Key {
        match key {
            FutexKey::Private { space, addr } => Key(space, addr),
            FutexKey::Anonymous { space, addr } => Key(space, addr | 2),
            FutexKey::Shared { object, offset } => Key(object, offset | 1),
        }
    }
}

impl Key {
    #[inline]
    pub fn bucket(self) -> usize {
        // Fibonacci hashing; words lie at multiples of 4.
        let mixed = (self.0 ^ (self.1 >> 2)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> (64 - BUCKETS.trailing_zeros())) as usize
    }
}

/// In no bucket: not yet, or not any more.
pub(super) const IDLE: u8 = 0;
pub(super) const QUEUED: u8 = 1;
/// Taken off its bucket by a wake.
const WOKEN: u8 = 2;

/// A waiter; see [`Queued`] for its life.
pub(super) struct Waiter {
    /// The key; changed by a requeue under the locks of both buckets.
    key: (AtomicU64, AtomicU64),
    /// What wakes must have in common with it; nothing does if it is to be requeued to a lock (FUTEX_WAIT_REQUEUE_PI).
    pub bitset: u32,
    /// Its real-time priority when it was enqueued: the list is in the order of priorities.
    pub priority: AtomicU8,
    /// The bucket it is in. Changed as the key.
    bucket: AtomicU16,
    /// The bucket's round when it came there. Changed as the key.
    pub round: AtomicU64,
    /// IDLE → QUEUED by the waiter; QUEUED → WOKEN by a wake, as its last access to the node.
    pub state: AtomicU8,
}

/// A place in a bucket, within a pinned future. Dropping it takes it out; a wake that was spent on it and that nobody
/// has learnt of goes to another waiter.
pub(super) struct Queued {
    node: Node<Waiter>,
    reported: bool,
}

impl Queued {
    pub const fn new(bitset: u32) -> Self {
        Queued { node: Node::new(Waiter::new(Key::MIN, bitset)), reported: false }
    }

    fn node(self: Pin<&Self>) -> Pin<&Node<Waiter>> {
        // SAFETY: structural pinning of a field that is never moved out.
        unsafe { self.map_unchecked(|this| &this.node) }
    }

    pub fn is_queued(&self) -> bool {
        self.node.data.state.load(Ordering::Acquire) != IDLE
    }

    /// Whether a wake has come; true only once it has, and then the wake counts as reported.
    #[inline]
    pub fn take_wake(self: Pin<&mut Self>) -> bool {
        let woken = self.node.data.state.load(Ordering::Acquire) == WOKEN;
        if woken {
            // SAFETY: `reported` is not structurally pinned.
            unsafe { self.get_unchecked_mut().reported = true };
        }
        woken
    }

    /// Ends the wait. True if a wake had come, which then counts as reported: who wakes has counted this waiter.
    pub fn give_up(self: Pin<&mut Self>) -> bool {
        let woken = self.leave();
        // SAFETY: `reported` is not structurally pinned.
        unsafe { self.get_unchecked_mut().reported |= woken };
        woken
    }

    /// Joins a locked bucket, which must be `key`'s, behind those who have at least the same priority.
    #[inline]
    pub fn enqueue(self: Pin<&Self>, list: &mut Guard, key: Key, priority: u8, waker: &Waker) {
        let waiter = &self.node.data;
        waiter.set_key(key);
        waiter.priority.store(priority, Ordering::Relaxed);
        waiter.state.store(QUEUED, Ordering::Relaxed);
        // SAFETY: the node is in no list, `Drop` takes it out before its memory goes away (Pin's guarantee), and from
        // now on its links are touched only under the lock of the bucket that it is in.
        unsafe {
            self.node.set_waker(waker);
            insert(list, self.node());
        }
    }

    /// What tells the waiter from others while it waits.
    pub fn address(&self) -> usize {
        ptr::from_ref(&self.node) as usize
    }

    /// Gives the queued waiter another waker.
    pub fn set_waker(&self, waker: &Waker) {
        // Goes after the lock: dropping a waker can run code.
        let _replaced;
        let _list = self.node.data.lock_bucket();
        // SAFETY: the lock of the node's bucket is held.
        _replaced = unsafe { self.node.set_waker(waker) };
    }

    /// Leaves the bucket. True if a wake had taken it off before.
    fn leave(&self) -> bool {
        let waiter = &self.node.data;
        if waiter.state.load(Ordering::Acquire) == QUEUED {
            let mut list = waiter.lock_bucket();
            // SAFETY: the lock of the node's bucket is held.
            unsafe {
                if self.node.is_linked() {
                    list.remove(&self.node);
                    waiter.state.store(IDLE, Ordering::Relaxed);
                }
            }
        }
        waiter.state.load(Ordering::Acquire) == WOKEN
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if self.leave() && !self.reported && self.node.data.bitset != TO_LOCK {
            // If there is nobody else, there is nobody to tell.
            let _ = wake_one(self.node.data.key(), self.node.data.bitset);
        }
    }
}

impl Waiter {
    pub const fn new(key: Key, bitset: u32) -> Self {
        Waiter {
            key: (AtomicU64::new(key.0), AtomicU64::new(key.1)),
            bitset,
            priority: AtomicU8::new(0),
            bucket: AtomicU16::new(0),
            round: AtomicU64::new(0),
            state: AtomicU8::new(IDLE),
        }
    }

    pub fn key(&self) -> Key {
        Key(self.key.0.load(Ordering::Relaxed), self.key.1.load(Ordering::Relaxed))
    }

    pub fn waits_for_lock(&self) -> bool {
        self.bitset == TO_LOCK
    }

    fn set_key(&self, key: Key) {
        self.key.0.store(key.0, Ordering::Relaxed);
        self.key.1.store(key.1, Ordering::Relaxed);
        let bucket = key.bucket();
        self.round.store(TABLE[bucket % BUCKETS].round.load(Ordering::Relaxed), Ordering::Relaxed);
        self.bucket.store(bucket as u16, Ordering::Release);
    }

    /// Locks the bucket that the waiter is in, or was in when a wake took it off.
    fn lock_bucket(&self) -> Guard {
        loop {
            let index = self.bucket.load(Ordering::Acquire);
            let list = lock(index as usize);
            if self.bucket.load(Ordering::Relaxed) == index {
                return list;
            }
        }
    }
}

#[inline]
pub(super) fn lock(bucket: usize) -> Guard {
    TABLE[bucket % BUCKETS].list.lock()
}

/// How many wait for words of the key's bucket and are not in its list.
#[inline]
pub(super) fn others(key: Key) -> &'static AtomicU32 {
    &TABLE[key.bucket() % BUCKETS].others
}

/// Wakes of many in the key's bucket.
pub(super) fn rounds(key: Key) -> &'static AtomicU64 {
    &TABLE[key.bucket() % BUCKETS].round
}

/// The bitset of a waiter that is to be requeued to a lock.
pub(super) const TO_LOCK: u32 = 0;

/// Does a waiter of the locked bucket wait for `key`? Answers the first.
pub(super) fn first(list: &List<Waiter>, key: Key) -> Option<&Node<Waiter>> {
    let mut cursor = list.front();
    while let Some(node) = cursor
        && node.data.key() != key
    {
        // SAFETY: the node is in this list.
        cursor = unsafe { list.after(node) };
    }
    cursor
}

/// Puts a node behind those of its priority, and of better ones.
///
/// # Safety
/// As for [`List::push_back`].
#[inline]
unsafe fn insert(list: &mut List<Waiter>, node: Pin<&Node<Waiter>>) {
    let priority = node.data.priority.load(Ordering::Relaxed);
    if priority == 0 || list.back().is_none_or(|last| last.data.priority.load(Ordering::Relaxed) >= priority) {
        // SAFETY: by contract.
        return unsafe { list.push_back(node) };
    }
    let mut cursor = list.front().map(ptr::from_ref);
    while let Some(place) = cursor {
        // SAFETY: `place` is in this list; the rest by contract.
        unsafe {
            if (*place).data.priority.load(Ordering::Relaxed) < priority {
                return list.insert_before(&*place, node);
            }
            cursor = list.after(&*place).map(ptr::from_ref);
        }
    }
}

/// The buckets of two keys, locked; they may be the same.
pub(super) struct Pair {
    first: Guard,
    second: Option<Guard>,
    swapped: bool,
}

impl Pair {
    pub fn lock(a: Key, b: Key) -> Pair {
        let (a, b) = (a.bucket(), b.bucket());
        let swapped = a > b;
        let first = lock(a.min(b));
        let second = (a != b).then(|| lock(a.max(b)));
        Pair { first, second, swapped }
    }

    /// The list of the first key.
    pub fn source(&mut self) -> &mut List<Waiter> {
        match &mut self.second {
            Some(second) if self.swapped => second,
            _ => &mut self.first,
        }
    }

    /// The list of the second key.
    pub fn target(&mut self) -> &mut List<Waiter> {
        match &mut self.second {
            Some(second) if !self.swapped => second,
            _ => &mut self.first,
        }
    }
}

/// Wakers to be called once the locks are released.
pub(super) type Wakers = ArrayVec<Waker, 16>;

/// Wakes up to `count` waiters of `key` whose bitset meets `bitset`, the most urgent and oldest first. Answers how many; EINVAL
/// if there are only others who wait for the word (see `pi`). None, and nothing is done, if there may be too many for one turn.
#[inline]
pub(super) fn wake_now(key: Key, count: usize, bitset: u32) -> Option<Result<usize>> {
    if count == 1 {
        return Some(wake_one(key, bitset).map(usize::from));
    }
    wake_few(key, count, bitset)
}

#[inline]
pub(super) fn wake_one(key: Key, bitset: u32) -> Result<bool> {
    let bucket = &TABLE[key.bucket() % BUCKETS];
    let mut list = bucket.list.lock();
    let mut cursor = list.front().map(ptr::from_ref);
    while let Some(node) = cursor {
        // SAFETY: nodes in the list are alive, and their links belong to the lock that is held.
        unsafe {
            let node = &*node;
            if node.data.key() == key && node.data.bitset & bitset != 0 {
                let waker = unlink(&mut list, node);
                drop(list);
                if let Some(waker) = waker {
                    waker.wake();
                }
                return Ok(true);
            }
            cursor = list.after(node).map(ptr::from_ref);
        }
    }
    drop(list);
    if bucket.others.load(Ordering::Relaxed) != 0 {
        super::pi::check_no_waiters(key)?;
    }
    Ok(false)
}

#[inline(never)]
fn wake_few(key: Key, count: usize, bitset: u32) -> Option<Result<usize>> {
    let mut wakers = Wakers::new();
    let mut list = lock(key.bucket());
    if list.len() > wakers.capacity() {
        return None;
    }
    let mut taken = 0;
    let mut cursor = list.front().map(ptr::from_ref);
    while let Some(node) = cursor
        && taken < count
    {
        // SAFETY: as in `mark::take`.
        unsafe {
            let node = &*node;
            cursor = list.after(node).map(ptr::from_ref);
            if node.data.key() == key && node.data.bitset & bitset != 0 {
                taken += 1;
                wakers.extend(unlink(&mut list, node));
            }
        }
    }
    drop(list);
    wakers.into_iter().for_each(Waker::wake);
    Some(woken(key, taken))
}

/// What a wake of `count` answers.
pub(super) fn woken(key: Key, count: usize) -> Result<usize> {
    if count == 0 && others(key).load(Ordering::Relaxed) != 0 {
        super::pi::check_no_waiters(key)?;
    }
    Ok(count)
}

/// Takes a waiter off its list for a wake, or because it now waits for a lock.
///
/// # Safety
/// The node is in this list, whose lock is held. The caller does not touch it afterwards: it may be gone.
#[inline]
pub(super) unsafe fn unlink(list: &mut List<Waiter>, node: &Node<Waiter>) -> Option<Waker> {
    // SAFETY: by contract.
    let waker = unsafe {
        list.remove(node);
        node.take_waker()
    };
    node.data.state.store(WOKEN, Ordering::Release);
    waker
}

/// Moves up to `count` waiters of `from` to `to`. Answers how many; EINVAL if one is to be requeued to a lock.
pub(super) fn transfer(pair: &mut Pair, from: Key, to: Key, count: usize) -> Result<usize> {
    let mut moved = 0;
    let mut cursor = pair.source().front().map(ptr::from_ref);
    while let Some(node) = cursor
        && moved < count
    {
        // SAFETY: as in `mark::take`; the locks of both buckets are held, and the node is pinned in its future, so it may be
        // linked into the other list.
        unsafe {
            let node = &*node;
            cursor = pair.source().after(node).map(ptr::from_ref);
            if node.data.key() != from {
                continue;
            }
            if node.data.bitset == TO_LOCK {
                return Err(Errno::EINVAL);
            }
            moved += 1;
            // Onto itself: counted, as Linux does, and left where it is.
            if from != to {
                pair.source().remove(node);
                node.data.set_key(to);
                insert(pair.target(), Pin::new_unchecked(node));
            }
        }
    }
    Ok(moved)
}
