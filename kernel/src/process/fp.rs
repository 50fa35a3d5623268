//! Lazy FP/SIMD state.
//!
//! A thread's FP registers stay in the CPU that it ran on until another user thread needs them there. The kernel
//! itself never touches them. Where the newest copy is, is said by `Entity::fp_live_on`:
//!
//! ```text
//!   fp_live_on() == None        the copy in Task::fp is current
//!   fp_live_on() == Some(cpu)   the registers of `cpu` are current, and Cpu::owner there is the task
//! ```
//!
//! A task whose state is live in a CPU's registers is not moved to another CPU by the scheduler, so only that CPU
//! ever changes the pair.
//!
//! Many threads wake, do little, and sleep again without an FP instruction. So a thread enters user mode with the registers
//! of somebody else, and FP instructions trap; the first one brings its own. A thread that traps again and again gets them
//! at once for its next few turns.

use alloc::sync::Arc;
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, Ordering};

use super::task::{Task, Thread};
use crate::arch::{self, FpRegs, MAX_CPUS, PerCpu};

/// The saved registers of one task, and how often it needs them.
pub struct FpSlot {
    regs: UnsafeCell<FpRegs>,
    /// Turns for which it gets its registers without having asked.
    eager: AtomicU8,
    /// It has trapped since it was last eager.
    trapped: AtomicBool,
}

/// How long a thread that trapped twice is eager.
const EAGER: u8 = 16;

// SAFETY: the slot is accessed by the CPU where the state is live, or, when it is live nowhere, by the task's own
// poll; the scheduler polls a task on one CPU at a time and `fp_live_on` is published with release/acquire order.
unsafe impl Sync for FpSlot {}

impl FpSlot {
    pub const fn new(regs: FpRegs) -> Self {
        FpSlot { regs: UnsafeCell::new(regs), eager: AtomicU8::new(0), trapped: AtomicBool::new(false) }
    }
}

/// A CPU's FP registers. Pointers are from `Arc::as_ptr`; the task cannot be freed while it is here, because a thread calls
/// `release` before it ends.
struct Cpu {
    /// Whose state is in the registers.
    owner: AtomicPtr<Task>,
    /// For whom FP instructions do not trap: the owner, or nobody.
    open: AtomicPtr<Task>,
}

impl Cpu {
    const fn new() -> Self {
        Cpu { owner: AtomicPtr::new(ptr::null_mut()), open: AtomicPtr::new(ptr::null_mut()) }
    }

    #[inline]
    fn is_owner(&self, t: &Thread) -> bool {
        ptr::eq(self.owner.load(Ordering::Relaxed), Arc::as_ptr(t.task()))
    }

    /// The registers are nobody's.
    fn disown(&self) {
        self.owner.store(ptr::null_mut(), Ordering::Relaxed);
        if !self.open.swap(ptr::null_mut(), Ordering::Relaxed).is_null() {
            arch::fp::set_access(false);
        }
    }

    /// The owner may use the registers.
    fn open(&self) {
        self.open.store(self.owner.load(Ordering::Relaxed), Ordering::Relaxed);
        arch::fp::set_access(true);
    }
}

static CPUS: PerCpu<Cpu> = PerCpu::new([const { Cpu::new() }; MAX_CPUS]);

/// Makes sure that `t` does not use the registers of another thread; called right before user mode is entered.
#[inline]
pub fn make_current(t: &Thread) {
    let cpu = CPUS.get();
    let open = cpu.open.load(Ordering::Relaxed);
    if ptr::eq(open, Arc::as_ptr(t.task())) {
        return;
    }
    let lazy = t.fp_slot().eager.load(Ordering::Relaxed) == 0 && arch::fp::CAN_TRAP;
    if !(open.is_null() && lazy && !cpu.is_owner(t)) {
        switch(t, cpu, lazy);
    }
}

#[cold]
fn switch(t: &Thread, cpu: &Cpu, lazy: bool) {
    if cpu.is_owner(t) {
        cpu.open();
    } else if lazy {
        cpu.open.store(ptr::null_mut(), Ordering::Relaxed);
        arch::fp::set_access(false);
    } else {
        let eager = &t.fp_slot().eager;
        eager.store(eager.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
        load(t);
    }
}

/// The thread's FP instruction trapped ([`arch::Trap::FpAccess`]).
pub fn on_trap(t: &Thread) {
    let slot = t.fp_slot();
    let again = slot.trapped.load(Ordering::Relaxed);
    slot.trapped.store(!again, Ordering::Relaxed);
    if again {
        slot.eager.store(EAGER, Ordering::Relaxed);
    }
    load(t);
}

#[inline]
fn load(t: &Thread) {
    let cpu = CPUS.get();
    if !cpu.is_owner(t) {
        evict_owner();
        // SAFETY: `t` is being polled here and its state is live nowhere (it would be the owner on this CPU, or the
        // scheduler would not have let it run here), so nobody else accesses the slot.
        arch::fp::restore(unsafe { &*t.fp_slot().regs.get() });
        cpu.owner.store(ptr::from_ref::<Task>(t.task()).cast_mut(), Ordering::Relaxed);
        t.entity.set_fp_live(arch::cpu_id());
    }
    cpu.open();
}

/// Saves the state of the CPU's owner, if there is one, to its slot. The executor calls it to let a task move.
pub fn evict_owner() {
    let cpu = CPUS.get();
    let old = cpu.owner.load(Ordering::Relaxed);
    cpu.disown();
    if old.is_null() {
        return;
    }
    // SAFETY: an owner is alive (see `Cpu`), and while its state is live on this CPU only this CPU
    // accesses its slot.
    let task = unsafe { &*old };
    // SAFETY: as above.
    arch::fp::save(unsafe { &mut *task.fp_slot().regs.get() });
    task.entity.clear_fp_live();
}

fn is_live_here(t: &Thread) -> bool {
    CPUS.get().is_owner(t)
}

/// Shows the thread's current FP registers to `look`, which must not ask for them itself.
pub fn with<R>(t: &Thread, look: impl FnOnce(&FpRegs) -> R) -> R {
    // SAFETY: `t` is being polled on this CPU: its state is live here or nowhere, and `look` gets the only reference.
    let slot = unsafe { &mut *t.fp_slot().regs.get() };
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
    replace(t, |slot| *slot = *regs);
}

/// Lets `fill` write all of the thread's FP registers; it must not ask for them itself.
pub fn replace<R>(t: &Thread, fill: impl FnOnce(&mut FpRegs) -> R) -> R {
    forget(t);
    // SAFETY: `t` is being polled here and its state is live nowhere now, and `fill` gets the only reference.
    fill(unsafe { &mut *t.fp_slot().regs.get() })
}

/// Drops the claim on the CPU's registers without saving them.
fn forget(t: &Thread) {
    if is_live_here(t) {
        CPUS.get().disown();
        t.entity.clear_fp_live();
    }
}

/// At the end of a thread: nothing points to it any more.
pub fn release(t: &Thread) {
    forget(t);
}
