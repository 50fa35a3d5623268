//! Lazy FP/SIMD state.
//!
//! A thread's FP registers stay in the CPU that it ran on until another user thread enters user mode there. The kernel
//! itself never touches them. Where the newest copy is, is said by `Entity::fp_live_on`:
//!
//! ```text
//!   fp_live_on() == None        the copy in Task::fp is current
//!   fp_live_on() == Some(cpu)   the registers of `cpu` are current, and OWNER[cpu] is the task
//! ```
//!
//! A task whose state is live in a CPU's registers is not moved to another CPU by the scheduler, so only that CPU
//! ever changes the pair.

use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use super::task::{Task, Thread};
use crate::arch::{self, FpRegs, MAX_CPUS, PerCpu};

/// The saved registers of one task.
pub struct FpSlot(UnsafeCell<FpRegs>);

// SAFETY: the slot is accessed by the CPU where the state is live, or, when it is live nowhere, by the task's own
// poll; the scheduler polls a task on one CPU at a time and `fp_live_on` is published with release/acquire order.
unsafe impl Sync for FpSlot {}

impl FpSlot {
    pub const fn new(regs: FpRegs) -> Self {
        FpSlot(UnsafeCell::new(regs))
    }
}

/// Whose state is in each CPU's registers. A pointer from `Arc::as_ptr`; the task cannot be freed while it is here,
/// because a thread calls `release` before it ends.
static OWNER: PerCpu<AtomicPtr<Task>> = PerCpu::new([const { AtomicPtr::new(ptr::null_mut()) }; MAX_CPUS]);

/// Makes the CPU's registers those of `t`; called right before user mode is entered.
#[inline]
pub fn make_current(t: &Thread) {
    let me = ptr::from_ref::<Task>(t.task()).cast_mut();
    if OWNER.get().load(Ordering::Relaxed) != me {
        switch(t, me);
    }
}

#[cold]
fn switch(t: &Thread, me: *mut Task) {
    evict_owner();
    // SAFETY: `t` is being polled here and its state is live nowhere (it would be in OWNER of this CPU, or the
    // scheduler would not have let it run here), so nobody else accesses the slot.
    arch::fp::restore(unsafe { &*t.fp_slot().0.get() });
    OWNER.get().store(me, Ordering::Relaxed);
    t.entity.set_fp_live(arch::cpu_id());
}

/// Saves the state of the CPU's owner, if there is one, to its slot. The executor calls it to let a task move.
pub fn evict_owner() {
    let old = OWNER.get().swap(ptr::null_mut(), Ordering::Relaxed);
    if old.is_null() {
        return;
    }
    // SAFETY: a task in OWNER is alive (see `OWNER`), and while its state is live on this CPU only this CPU
    // accesses its slot.
    let task = unsafe { &*old };
    // SAFETY: as above.
    arch::fp::save(unsafe { &mut *task.fp_slot().0.get() });
    task.entity.clear_fp_live();
}

fn is_live_here(t: &Thread) -> bool {
    ptr::eq(OWNER.get().load(Ordering::Relaxed), ptr::from_ref::<Task>(t.task()))
}

/// Shows the thread's current FP registers to `look`, which must not ask for them itself.
pub fn with<R>(t: &Thread, look: impl FnOnce(&FpRegs) -> R) -> R {
    // SAFETY: `t` is being polled on this CPU: its state is live here or nowhere, and `look` gets the only reference.
    let slot = unsafe { &mut *t.fp_slot().0.get() };
    if is_live_here(t) {
        arch::fp::save(slot);
    }
    look(slot)
}

/// The thread's current FP registers.
pub fn get(t: &Thread) -> FpRegs {
    with(t, |regs| *regs)
}

/// Replaces the thread's FP registers.
pub fn set(t: &Thread, regs: &FpRegs) {
    forget(t);
    // SAFETY: `t` is being polled here and its state is live nowhere now.
    unsafe { *t.fp_slot().0.get() = *regs };
}

/// Drops the claim on the CPU's registers without saving them.
fn forget(t: &Thread) {
    if is_live_here(t) {
        OWNER.get().store(ptr::null_mut(), Ordering::Relaxed);
        t.entity.clear_fp_live();
    }
}

/// At the end of a thread: nothing points to it any more.
pub fn release(t: &Thread) {
    forget(t);
}
