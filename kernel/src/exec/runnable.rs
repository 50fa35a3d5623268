//! What polls a task, and when: its future, and the state that says who may touch it.
//!
//! ```text
//!             wake: |= WOKEN                    run: = POLLED
//!   0 (waits) ───────────────▶ WOKEN (in a queue) ───────────▶ POLLED ───▶ OVER
//!       ▲                        ▲                               │ │ │
//!       └────────────────────────┼───────────────── &= !POLLED ──┘ │ │ |= WOKEN (woken while it is polled)
//!                                └─────────── &= !POLLED ──────────┴─┘
//! ```
//!
//! Who changes 0 to WOKEN has made the one [`Runnable`] of the task and hands it on; it stays the only one until `run` ends.
//! Wakes of a task that is in a queue already, or polled, only leave the bit: the CPU that polls finds it and queues the task
//! again. These changes are read-modify-writes of one word with acquire and release, so a poll sees everything that was done
//! before the wake that it answers.
//!
//! A task that has not ended keeps its entity: through the waker that it is polled with.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::task::Wake;
use core::cell::UnsafeCell;
use core::future::Future;
use core::pin::Pin;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU8;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use core::task::{Context, Waker};

use super::cpu::Cpu;
use super::entity::Entity;
use super::wake;
use crate::arch::switch_point;

/// To be polled: a wake has happened that no poll has answered.
const WOKEN: u8 = 1;
/// A CPU polls it.
const POLLED: u8 = 2;
/// It has ended, or not begun: wakes come to nothing.
const OVER: u8 = 4;

type TaskFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Body {
    future: TaskFuture,
    /// Wakes the task, and keeps its entity.
    waker: Waker,
}

/// The part of an entity that is polled.
pub(super) struct State {
    bits: AtomicU8,
    /// None unless the task has begun and not ended. Only the holder of the task's [`Runnable`] touches it.
    body: UnsafeCell<Option<Body>>,
}

// SAFETY: `body` is touched by the holder of the only `Runnable`, which acquired `bits` after the last one released it; what is in it may be
// sent between threads.
unsafe impl Sync for State {}
// SAFETY: as above.
unsafe impl Send for State {}

impl State {
    pub(super) const fn new() -> Self {
        State { bits: AtomicU8::new(OVER), body: UnsafeCell::new(None) }
    }
}

/// The right to poll a task once. Not to be dropped: who has it queues it or runs it.
#[must_use]
pub(super) struct Runnable(NonNull<Entity>);

// SAFETY: an entity may be shared between threads, and the future in it may be sent.
unsafe impl Send for Runnable {}

impl Runnable {
    /// Makes `future` the task of a new entity. None if the entity has one.
    pub(super) fn begin(entity: Arc<Entity>, future: TaskFuture) -> Option<Runnable> {
        let bits = &entity.state.bits;
        if bits.load(Acquire) & OVER == 0 {
            return None;
        }
        let runnable = Runnable(NonNull::from(&*entity));
        // A clone, because the wakers in lists are clones and are compared with this one: by the address of a table that clones share.
        let first = Waker::from(entity.clone());
        let body = Body { future, waker: first.clone() };
        // SAFETY: the entity is new to the scheduler, and this makes its first runnable.
        unsafe { *entity.state.body.get() = Some(body) };
        bits.store(WOKEN, Release);
        Some(runnable)
    }

    pub(super) fn entity(&self) -> &Entity {
        // SAFETY: a task that is to be polled has not ended, so it keeps its entity.
        unsafe { self.0.as_ref() }
    }

    pub(super) fn into_raw(self) -> NonNull<Entity> {
        self.0
    }

    /// # Safety
    /// `raw` is from `into_raw`, and used once.
    pub(super) unsafe fn from_raw(raw: NonNull<Entity>) -> Self {
        Runnable(raw)
    }

    /// Polls the task on `cpu`, the calling CPU. It is queued again if it was woken meanwhile.
    #[inline]
    pub(super) fn run(self, cpu: &Cpu) {
        let entity = self.entity();
        let state = &entity.state;
        state.bits.swap(POLLED, AcqRel);
        // SAFETY: this is the task's only runnable.
        let Some(body) = (unsafe { &mut *state.body.get() }) else { return };
        let result = body.future.as_mut().poll(&mut Context::from_waker(&body.waker));
        cpu.end(entity);
        switch_point();
        if result.is_ready() {
            return self.over();
        }
        // From here on another CPU may poll the task, and free it, unless it is to be polled again.
        if state.bits.fetch_and(!POLLED, AcqRel) & WOKEN != 0 {
            cpu.requeue(self);
        }
    }

    fn over(self) {
        let state = &self.entity().state;
        // SAFETY: this is the task's only runnable, and POLLED: no other is made.
        let body = unsafe { (*state.body.get()).take() };
        state.bits.store(OVER, Release);
        // Its future first: what it wakes may look at the entity.
        if let Some(Body { future, waker }) = body {
            drop(future);
            drop(waker);
        }
    }
}

impl Entity {
    /// Makes the task runnable, or polled again.
    #[inline]
    pub(super) fn poll_again(&self) {
        let old = self.state.bits.fetch_or(WOKEN, AcqRel);
        if old == 0 {
            switch_point();
            wake::schedule(Runnable(NonNull::from(self)));
        }
    }
}

impl Wake for Entity {
    #[inline]
    fn wake(self: Arc<Self>) {
        self.poll_again();
    }

    #[inline]
    fn wake_by_ref(self: &Arc<Self>) {
        self.poll_again();
    }
}
