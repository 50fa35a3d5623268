//! An intrusive doubly linked list whose nodes carry a waker.
//!
//! Nodes live in pinned futures (or in an `Arc`); the list lives inside a spinlock that its user chooses: a
//! [`WaitQueue`](super::WaitQueue), a futex bucket, a semaphore. Everything in a node but `data` belongs to whoever
//! holds that lock.

use core::cell::UnsafeCell;
use core::marker::PhantomPinned;
use core::pin::Pin;
use core::ptr::NonNull;
use core::task::Waker;

/// One waiter. `data` is the user's: key, mask, state; shared, so what changes in it must be atomic (or belong to the lock).
pub struct Node<T> {
    links: UnsafeCell<Links<T>>,
    pub data: T,
    /// Others point here while the node is linked.
    _pinned: PhantomPinned,
}

struct Links<T> {
    prev: Option<NonNull<Node<T>>>,
    next: Option<NonNull<Node<T>>>,
    waker: Option<Waker>,
    /// 1 or 0. A word: a new node has no padding in the middle then, and is stored instead of copied.
    linked: usize,
}

// SAFETY: `links` is only touched by the holder of the list's lock (contract of List's unsafe methods).
unsafe impl<T: Send> Send for Node<T> {}
// SAFETY: as above; `data` is shared between the waiter and the lock's holder.
unsafe impl<T: Send + Sync> Sync for Node<T> {}

impl<T> Node<T> {
    pub const fn new(data: T) -> Self {
        let links = Links { prev: None, next: None, waker: None, linked: 0 };
        Node { links: UnsafeCell::new(links), data, _pinned: PhantomPinned }
    }

    /// # Safety
    /// The caller holds the lock of the list that the node is in (or may be in).
    pub unsafe fn is_linked(&self) -> bool {
        // SAFETY: the lock gives exclusive access to `links`.
        unsafe { (*self.links.get()).linked != 0 }
    }

    /// Remembers whom to wake; cheap if it is the same task as before. Answers the waker that it replaced, to be dropped
    /// when the lock is released (dropping a waker can run code).
    ///
    /// # Safety
    /// As for [`Node::is_linked`], or the node is in no list.
    pub unsafe fn set_waker(&self, waker: &Waker) -> Option<Waker> {
        // SAFETY: exclusive access by contract.
        let slot = unsafe { &mut (*self.links.get()).waker };
        match slot {
            Some(old) if old.will_wake(waker) => None,
            _ => slot.replace(waker.clone()),
        }
    }

    /// # Safety
    /// As for [`Node::is_linked`], or the node is in no list.
    pub unsafe fn take_waker(&self) -> Option<Waker> {
        // SAFETY: exclusive access by contract.
        unsafe { (*self.links.get()).waker.take() }
    }

    /// # Safety
    /// As for [`Node::is_linked`], or the node is in no list.
    pub unsafe fn clone_waker(&self) -> Option<Waker> {
        // SAFETY: exclusive access by contract.
        unsafe { (*self.links.get()).waker.clone() }
    }
}

/// FIFO of nodes. Does not own them: a node must be removed before it goes away.
pub struct List<T> {
    head: Option<NonNull<Node<T>>>,
    tail: Option<NonNull<Node<T>>>,
    len: usize,
}

// SAFETY: the list is a set of pointers to nodes that are themselves `Send + Sync`.
unsafe impl<T: Send + Sync> Send for List<T> {}

impl<T> List<T> {
    pub const fn new() -> Self {
        List { head: None, tail: None, len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    /// The oldest node. The reference must not outlive the lock's guard, which the borrow of the list sees to.
    pub fn front(&self) -> Option<&Node<T>> {
        // SAFETY: linked nodes are alive (contract of `push_back`).
        self.head.map(|node| unsafe { node.as_ref() })
    }

    /// The youngest node; as for `front`.
    pub fn back(&self) -> Option<&Node<T>> {
        // SAFETY: linked nodes are alive (contract of `push_back`).
        self.tail.map(|node| unsafe { node.as_ref() })
    }

    /// The node after `node`.
    ///
    /// # Safety
    /// `node` is in this list.
    pub unsafe fn after(&self, node: &Node<T>) -> Option<&Node<T>> {
        // SAFETY: `node` is in this list, whose lock the caller holds; its neighbours are alive.
        unsafe { (*node.links.get()).next.map(|next| next.as_ref()) }
    }

    /// # Safety
    /// The node is in no list, stays at its address until it was removed, and from now on its links are touched only
    /// under the lock that protects this list.
    pub unsafe fn push_back(&mut self, node: Pin<&Node<T>>) {
        let this = NonNull::from(node.get_ref());
        // SAFETY: the node is not shared with any other list's lock; the tail is alive.
        unsafe {
            let links = &mut *this.as_ref().links.get();
            debug_assert!(links.linked == 0);
            links.linked = 1;
            links.prev = self.tail;
            links.next = None;
            match self.tail {
                Some(tail) => (*tail.as_ref().links.get()).next = Some(this),
                None => self.head = Some(this),
            }
        }
        self.tail = Some(this);
        self.len += 1;
    }

    /// # Safety
    /// As for [`List::push_back`].
    pub unsafe fn push_front(&mut self, node: Pin<&Node<T>>) {
        let this = NonNull::from(node.get_ref());
        // SAFETY: the node is not shared with any other list's lock; the head is alive.
        unsafe {
            let links = &mut *this.as_ref().links.get();
            debug_assert!(links.linked == 0);
            links.linked = 1;
            links.prev = None;
            links.next = self.head;
            match self.head {
                Some(head) => (*head.as_ref().links.get()).prev = Some(this),
                None => self.tail = Some(this),
            }
        }
        self.head = Some(this);
        self.len += 1;
    }

    /// Puts `node` before `place`.
    ///
    /// # Safety
    /// As for [`List::push_back`]; `place` is in this list.
    pub unsafe fn insert_before(&mut self, place: &Node<T>, node: Pin<&Node<T>>) {
        let this = NonNull::from(node.get_ref());
        // SAFETY: the node is not shared with any other list's lock; `place` and its neighbour are alive.
        unsafe {
            let after = &mut *place.links.get();
            let Some(before) = after.prev else { return self.push_front(node) };
            let links = &mut *this.as_ref().links.get();
            debug_assert!(links.linked == 0);
            links.linked = 1;
            links.prev = Some(before);
            links.next = Some(NonNull::from(place));
            after.prev = Some(this);
            (*before.as_ref().links.get()).next = Some(this);
        }
        self.len += 1;
    }

    /// # Safety
    /// The node is in this list.
    pub unsafe fn remove(&mut self, node: &Node<T>) {
        // SAFETY: the node and its neighbours are in this list, hence alive, and the caller holds its lock.
        unsafe {
            let links = &mut *node.links.get();
            debug_assert!(links.linked != 0);
            links.linked = 0;
            let (prev, next) = (links.prev.take(), links.next.take());
            match prev {
                Some(prev) => (*prev.as_ref().links.get()).next = next,
                None => self.head = next,
            }
            match next {
                Some(next) => (*next.as_ref().links.get()).prev = prev,
                None => self.tail = prev,
            }
        }
        self.len -= 1;
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        List::new()
    }
}
