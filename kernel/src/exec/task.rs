//! Tasks: starting them, and how they give way.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::future::{Future, poll_fn};
use core::sync::atomic::Ordering::Relaxed;
use core::task::Poll;

use super::cpu;
use super::entity::Entity;
use super::params::SchedParams;
use super::runnable::Runnable;
use super::wake;

/// Starts a kernel task with default parameters.
pub fn spawn(name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
    spawn_entity(Entity::named(name, SchedParams::default()), future);
}

/// Starts a task. The entity must be new: an entity is one task's at a time, and a second one is not started.
pub fn spawn_entity(entity: Arc<Entity>, future: impl Future<Output = ()> + Send + 'static) {
    if let Some(runnable) = Runnable::begin(entity, Box::pin(future)) {
        wake::start(runnable);
    }
}

/// Lets others run, and interrupts be serviced; goes on afterwards.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if core::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cpu::this().yields();
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// sched_yield(2): makes [`need_resched`] true if anybody else wants the CPU, so that the thread loop yields, to the back of
/// the queue.
pub fn give_way() {
    let cpu = cpu::this();
    if cpu.others_runnable() {
        cpu.give_way();
    }
}

/// For loops whose length a user controls: yields when the poll has taken long enough or somebody more urgent waits.
/// Costs one reading of the clock.
#[inline]
pub async fn budget() {
    if cpu::this().budget_used() {
        yield_now().await;
    }
}

/// The same for loops that cannot await: they are to end their turn.
#[inline]
pub fn is_budget_used() -> bool {
    cpu::this().budget_used()
}

/// Is this the task that is being polled on this CPU?
#[inline]
pub fn is_current(entity: &Entity) -> bool {
    core::ptr::eq(cpu::this().current.load(Relaxed), entity)
}

/// The running task should give way: its slice is over, or somebody more urgent waits. The thread loop asks before it
/// enters user mode and awaits [`yield_now`] if so.
#[inline]
pub fn need_resched() -> bool {
    cpu::this().resched.load(Relaxed)
}
