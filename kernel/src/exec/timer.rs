//! Timers: one tree of armed nodes per CPU, ordered by deadline. A node lives in the pinned future that waits (or in a
//! box, for [`TimerHandle`]): arming and cancelling allocate nothing.
//!
//! A node is armed on the CPU that runs its task then and fires there; it may be cancelled from anywhere. The
//! tree's lock is a leaf: wakers are called after it was released.

use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::future::Future;
use core::marker::PhantomPinned;
use core::pin::Pin;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use core::task::{Context, Poll, Waker};
use intrusive_collections::{KeyAdapter, RBTree, RBTreeAtomicLink, UnsafeRef, intrusive_adapter};

use super::cpu::{self, Cpu};
use super::instant::Instant;
use crate::sync::SpinLock;

const IDLE: u8 = 0;
const ARMED: u8 = 1;
const FIRED: u8 = 2;

/// One timer.
struct TimerNode {
    link: RBTreeAtomicLink,
    /// Changes only while the node is not armed.
    deadline: AtomicU64,
    /// The CPU in whose tree it is. Changes only while the node is not armed.
    cpu: AtomicU8,
    /// IDLE → ARMED by the owner; ARMED → FIRED by the CPU it is armed on, as its last access to the node.
    state: AtomicU8,
    /// Under the lock of the tree while armed, else the owner's.
    waker: UnsafeCell<Option<Waker>>,
    _pinned: PhantomPinned,
}

// SAFETY: `waker` is protected as its comment says; the rest is atomic.
unsafe impl Send for TimerNode {}
// SAFETY: as above.
unsafe impl Sync for TimerNode {}

intrusive_adapter!(ByDeadline = UnsafeRef<TimerNode>: TimerNode { link => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for ByDeadline {
    type Key = u64;

    fn get_key(&self, node: &'a TimerNode) -> u64 {
        node.deadline.load(Ordering::Relaxed)
    }
}

/// A CPU's armed timers.
pub(super) struct Timers {
    tree: SpinLock<RBTree<ByDeadline>>,
    /// Deadline of the first one, `u64::MAX` if there is none. Written under the lock.
    first: AtomicU64,
}

impl Timers {
    pub(super) const fn new() -> Self {
        Timers { tree: SpinLock::new(RBTree::new(ByDeadline::NEW)), first: AtomicU64::new(u64::MAX) }
    }

    pub(super) fn first(&self) -> u64 {
        self.first.load(Ordering::Relaxed)
    }

    /// Wakes the owners of all timers that are due.
    pub(super) fn fire(&self, now: u64) {
        while self.first() <= now {
            let mut tree = self.tree.lock();
            let mut waker = None;
            let mut first = tree.front_mut();
            if first.get().is_some_and(|node| node.deadline.load(Ordering::Relaxed) <= now)
                && let Some(node) = first.remove()
            {
                // SAFETY: the tree's lock is held; the owner keeps the node until it sees FIRED or takes the lock.
                waker = unsafe { (*node.waker.get()).take() };
                node.state.store(FIRED, Ordering::Release);
            }
            self.note_first(&tree);
            drop(tree);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn note_first(&self, tree: &RBTree<ByDeadline>) {
        let first = tree.front().get().map_or(u64::MAX, |node| node.deadline.load(Ordering::Relaxed));
        self.first.store(first, Ordering::Relaxed);
    }
}

impl TimerNode {
    const fn new() -> Self {
        TimerNode {
            link: RBTreeAtomicLink::new(),
            deadline: AtomicU64::new(0),
            cpu: AtomicU8::new(0),
            state: AtomicU8::new(IDLE),
            waker: UnsafeCell::new(None),
            _pinned: PhantomPinned,
        }
    }

    fn fired(&self) -> bool {
        self.state.load(Ordering::Acquire) == FIRED
    }

    /// Arms the node on this CPU, or gives an armed one another waker.
    ///
    /// # Safety
    /// `deadline` is the one it is armed for, if it is. Only the owner calls it.
    unsafe fn arm(self: Pin<&Self>, deadline: u64, waker: &Waker) {
        if self.state.load(Ordering::Acquire) == ARMED {
            return self.change_waker(waker);
        }
        let cpu = cpu::this();
        self.deadline.store(deadline, Ordering::Relaxed);
        self.cpu.store(cpu.id() as u8, Ordering::Relaxed);
        // SAFETY: not armed: the waker is ours.
        unsafe { *self.waker.get() = Some(waker.clone()) };
        self.state.store(ARMED, Ordering::Relaxed);
        let mut tree = cpu.timers.tree.lock();
        // SAFETY: pinned, and `cancel`led before it goes away (`Drop` of Sleep and TimerHandle).
        tree.insert(unsafe { UnsafeRef::from_raw(self.get_ref()) });
        cpu.timers.note_first(&tree);
        drop(tree);
        cpu.timer_wanted(deadline);
    }

    fn change_waker(&self, waker: &Waker) {
        let tree = cpu::on(self.cpu.load(Ordering::Relaxed).into()).timers.tree.lock();
        if !self.link.is_linked() {
            drop(tree);
            // It has fired meanwhile: a caller that polls again sees that.
            return waker.wake_by_ref();
        }
        // SAFETY: the tree's lock is held.
        let slot = unsafe { &mut *self.waker.get() };
        let replaced = match slot {
            Some(old) if old.will_wake(waker) => None,
            _ => slot.replace(waker.clone()),
        };
        drop(tree);
        drop(replaced);
    }

    /// Disarms the node. True if it had fired.
    #[inline]
    fn cancel(&self) -> bool {
        if self.state.load(Ordering::Acquire) == ARMED {
            let cpu: &Cpu = cpu::on(self.cpu.load(Ordering::Relaxed).into());
            let mut tree = cpu.timers.tree.lock();
            if self.link.is_linked() {
                // SAFETY: a linked node of this CPU is in this tree, whose lock is held. The waker goes with it.
                unsafe {
                    tree.cursor_mut_from_ptr(self).remove();
                    let waker = (*self.waker.get()).take();
                    cpu.timers.note_first(&tree);
                    drop(tree);
                    drop(waker);
                }
                self.state.store(IDLE, Ordering::Relaxed);
                return false;
            }
        }
        let fired = self.fired();
        self.state.store(IDLE, Ordering::Relaxed);
        fired
    }
}

/// Sleeps until `deadline`; at once over if that is past.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, node: TimerNode::new() }
}

/// See [`sleep_until`].
#[must_use = "futures do nothing unless awaited"]
pub struct Sleep {
    deadline: Instant,
    node: TimerNode,
}

impl Sleep {
    pub fn deadline(&self) -> Instant {
        self.deadline
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.into_ref();
        // SAFETY: structural pinning.
        let node = unsafe { this.map_unchecked(|this| &this.node) };
        if node.fired() || this.deadline <= Instant::now() {
            node.cancel();
            return Poll::Ready(());
        }
        if this.deadline != Instant::NEVER {
            // SAFETY: the deadline never changes, and the future is the node's only owner.
            unsafe { node.arm(this.deadline.as_nanos(), cx.waker()) };
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.node.cancel();
    }
}

/// A timer on the heap that calls a waker: for interval timers, which no future waits for.
pub struct TimerHandle {
    node: Pin<Box<TimerNode>>,
}

impl TimerHandle {
    pub fn new() -> Self {
        TimerHandle { node: Box::pin(TimerNode::new()) }
    }

    /// `waker` is called once, at or after `deadline`, on this CPU. An earlier arming is cancelled.
    pub fn arm(&mut self, deadline: Instant, waker: Waker) {
        self.node.cancel();
        // SAFETY: not armed, and `&mut self` makes the caller the only owner.
        unsafe { self.node.as_ref().arm(deadline.as_nanos(), &waker) };
    }

    /// The waker will not be called any more, unless the call is under way already.
    #[inline]
    pub fn cancel(&mut self) {
        self.node.cancel();
    }
}

impl Default for TimerHandle {
    fn default() -> Self {
        TimerHandle::new()
    }
}

impl Drop for TimerHandle {
    fn drop(&mut self) {
        self.node.cancel();
    }
}
