//! Waking many: in turns, between which others have the bucket and the CPU.

use core::pin::Pin;
use core::ptr;
use core::sync::atomic::Ordering;
use core::task::Waker;

use super::table::{IDLE, Key, QUEUED, TO_LOCK, Waiter, Wakers, lock, rounds, unlink};
use crate::exec::list::{List, Node};

/// How far a wake of many has come in a bucket, from one hold of its lock to the next: a node of its own stands there.
pub(super) struct Mark {
    node: Node<Waiter>,
    /// A key of the bucket.
    key: Key,
    /// Whoever came in this round, or later, is not for this wake.
    round: Option<u64>,
}

impl Mark {
    pub fn new(key: Key) -> Self {
        Mark { node: Node::new(Waiter::new(Key::MAX, TO_LOCK)), key, round: None }
    }

    /// There is more to wake.
    pub fn is_set(&self) -> bool {
        self.node.data.state.load(Ordering::Relaxed) == QUEUED
    }

    /// Begins, or goes on: answers the node that comes next, and the round.
    fn advance(self: Pin<&mut Self>, list: &mut List<Waiter>) -> (Option<*const Node<Waiter>>, u64) {
        // SAFETY: the node is not moved.
        let this = unsafe { self.get_unchecked_mut() };
        let count = || rounds(this.key);
        let round = *this.round.get_or_insert_with(|| count().fetch_add(1, Ordering::Relaxed) + 1);
        if !this.is_set() {
            return (list.front().map(ptr::from_ref), round);
        }
        this.node.data.state.store(IDLE, Ordering::Relaxed);
        // SAFETY: it is set: the node is in this list, whose lock the caller holds.
        unsafe {
            let next = list.after(&this.node).map(ptr::from_ref);
            list.remove(&this.node);
            (next, round)
        }
    }

    /// Stands before `place`.
    ///
    /// # Safety
    /// `place` is in this list, whose lock is held.
    unsafe fn set(self: Pin<&Self>, list: &mut List<Waiter>, place: &Node<Waiter>) {
        let mark = &self.node.data;
        // The list stays in the order of priorities.
        mark.priority.store(place.data.priority.load(Ordering::Relaxed), Ordering::Relaxed);
        mark.state.store(QUEUED, Ordering::Relaxed);
        // SAFETY: not set: the node is in no list; it is taken out before it goes away.
        unsafe { list.insert_before(place, self.map_unchecked(|this| &this.node)) };
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if self.is_set() {
            // SAFETY: it is in this list.
            unsafe { lock(self.key.bucket()).remove(&self.node) };
        }
    }
}

/// Wakes waiters in one hold of the bucket's lock. Answers how many; there may be more if the mark is set.
pub(super) fn wake_some(mark: Pin<&mut Mark>, key: Key, count: usize, bitset: u32) -> usize {
    let mut wakers = Wakers::new();
    let taken = take(&mut lock(key.bucket()), mark, key, count, bitset, &mut wakers);
    wakers.into_iter().for_each(Waker::wake);
    taken
}

/// Takes waiters off a locked list, until `count` or until `wakers` is full; then the mark is set.
pub(super) fn take(
    list: &mut List<Waiter>,
    mut mark: Pin<&mut Mark>,
    key: Key,
    count: usize,
    bitset: u32,
    wakers: &mut Wakers,
) -> usize {
    let mut taken = 0;
    let (mut cursor, round) = mark.as_mut().advance(list);
    while let Some(node) = cursor
        && taken < count
    {
        // SAFETY: nodes in the list are alive, and their links belong to the lock that the caller holds.
        unsafe {
            let node = &*node;
            if wakers.is_full() {
                mark.as_ref().set(list, node);
                break;
            }
            cursor = list.after(node).map(ptr::from_ref);
            let late = node.data.round.load(Ordering::Relaxed) >= round;
            if late || node.data.key() != key || node.data.bitset & bitset == 0 {
                continue;
            }
            taken += 1;
            wakers.extend(unlink(list, node));
        }
    }
    taken
}
