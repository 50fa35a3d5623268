//! A counting semaphore, first come first served: the root of the sleeping locks.
//!
//! Permits are handed to the longest-waiting task by whoever releases them, so a steady stream of newcomers cannot
//! overtake it. A waiter that is dropped after permits were handed to it gives them back.

use crate::sync::atomic::{AtomicU8, Ordering};
use arrayvec::ArrayVec;
use core::future::Future;
use core::pin::Pin;
use core::ptr;
use core::task::{Context, Poll, Waker};

use super::list::{List, Node};
use crate::sync::SpinLock;

const IDLE: u8 = 0;
const LINKED: u8 = 1;
const GRANTED: u8 = 2;

/// See the module's comment.
pub struct Semaphore {
    inner: SpinLock<Inner>,
}

struct Inner {
    permits: usize,
    waiters: List<Claim>,
}

struct Claim {
    permits: usize,
    /// IDLE → LINKED by the waiter; LINKED → GRANTED by a release, as its last access to the node.
    state: AtomicU8,
}

impl Semaphore {
    pub const fn new(permits: usize) -> Self {
        Semaphore { inner: SpinLock::new(Inner { permits, waiters: List::new() }) }
    }

    /// Takes permits if that overtakes nobody.
    #[inline]
    pub fn try_acquire(&self, permits: usize) -> bool {
        self.inner.lock().try_take(permits)
    }

    /// Takes permits; they are given back with [`Semaphore::release`].
    pub fn acquire(&self, permits: usize) -> Acquire<'_> {
        let claim = Claim { permits, state: AtomicU8::new(IDLE) };
        Acquire { semaphore: self, node: Node::new(claim) }
    }

    #[inline]
    pub fn release(&self, permits: usize) {
        let mut inner = self.inner.lock();
        if inner.waiters.is_empty() {
            inner.permits += permits;
            return;
        }
        drop(inner);
        self.release_to_waiters(permits);
    }

    fn release_to_waiters(&self, permits: usize) {
        let mut given = permits;
        loop {
            let mut wakers = ArrayVec::<Waker, 4>::new();
            self.inner.lock().give(core::mem::take(&mut given), &mut wakers);
            let more = wakers.is_full();
            wakers.into_iter().for_each(Waker::wake);
            if !more {
                return;
            }
        }
    }

    /// Permits that nobody holds. Outdated as soon as it is known.
    pub fn available(&self) -> usize {
        self.inner.lock().permits
    }
}

impl Inner {
    fn try_take(&mut self, permits: usize) -> bool {
        let free = self.waiters.is_empty() && self.permits >= permits;
        if free {
            self.permits -= permits;
        }
        free
    }

    /// Adds permits and grants the oldest claims while they suffice and `wakers` has room.
    fn give<const N: usize>(&mut self, permits: usize, wakers: &mut ArrayVec<Waker, N>) {
        self.permits += permits;
        while let Some(front) = self.waiters.front().filter(|node| node.data.permits <= self.permits) {
            if wakers.is_full() {
                return;
            }
            let node = ptr::from_ref(front);
            // SAFETY: a linked node is alive until it is removed or sees GRANTED; the lock is held.
            unsafe {
                self.permits -= (*node).data.permits;
                self.waiters.remove(&*node);
                wakers.extend((*node).take_waker());
                (*node).data.state.store(GRANTED, Ordering::Release);
            }
        }
    }
}

/// See [`Semaphore::acquire`].
#[must_use = "futures do nothing unless awaited"]
pub struct Acquire<'a> {
    semaphore: &'a Semaphore,
    node: Node<Claim>,
}

impl Future for Acquire<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.into_ref();
        let claim = &this.node.data;
        if claim.state.load(Ordering::Acquire) != GRANTED {
            let _replaced;
            let mut inner = this.semaphore.inner.lock();
            // SAFETY: the lock is held; `Drop` unlinks the node before its memory goes away.
            unsafe {
                if this.node.is_linked() {
                    _replaced = this.node.set_waker(cx.waker());
                    return Poll::Pending;
                }
                if claim.state.load(Ordering::Relaxed) != GRANTED && !inner.try_take(claim.permits) {
                    _replaced = this.node.set_waker(cx.waker());
                    claim.state.store(LINKED, Ordering::Relaxed);
                    inner.waiters.push_back(this.map_unchecked(|this| &this.node));
                    return Poll::Pending;
                }
            }
        }
        // From here on the permits are the caller's.
        claim.state.store(IDLE, Ordering::Relaxed);
        Poll::Ready(())
    }
}

impl Drop for Acquire<'_> {
    fn drop(&mut self) {
        let claim = &self.node.data;
        if claim.state.load(Ordering::Acquire) == IDLE {
            return;
        }
        let mut inner = self.semaphore.inner.lock();
        // SAFETY: the lock is held; the node can be in this list only.
        unsafe {
            if self.node.is_linked() {
                // Smaller claims behind this one may be served now.
                inner.waiters.remove(&self.node);
                drop(inner);
                return self.semaphore.release(0);
            }
        }
        drop(inner);
        self.semaphore.release(claim.permits);
    }
}
