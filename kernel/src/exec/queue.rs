//! A CPU's run queue: waiting tasks, the next one to run first. The first few are in an array ([`Front`]), the others in a
//! tree.
//!
//! One 64-bit key orders all classes:
//!
//! ```text
//! 0 | 99 − priority (7 bits) | sequence (56 bits)     SCHED_FIFO, SCHED_RR
//! 1 | virtual deadline (63 bits)                      the others
//! ```
//!
//! The virtual deadline is the task's weighted run time plus a weighted slice. Weighted run times advance at the same
//! speed for all tasks that want the CPU, so each gets a share in proportion to its weight; the slice lets heavy tasks in
//! sooner. A task that slept is placed at most [`CREDIT`] behind the queue's virtual time: it gets in early, but cannot live
//! on what it did not use long ago.

use core::ptr::{self, NonNull};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use intrusive_collections::{Bound, KeyAdapter, RBTree, RBTreeAtomicLink, UnsafeRef, intrusive_adapter};

use super::cpu::{self, Cpu};
use super::entity::Entity;
use super::front::{Entry, Front};
use super::params::CpuMask;
use super::runnable::Runnable;

/// How long a task runs before others get their turn (ns).
pub(super) const SLICE: u64 = 3_000_000;
/// The turn of SCHED_RR tasks.
pub(super) const RR_SLICE: u64 = 100_000_000;
/// How far behind the virtual time a sleeper is placed.
const CREDIT: u64 = SLICE;
/// How many tasks are looked at to find one that may move.
const SEARCH: usize = 32;
/// A fair task is not pre-empted by one that is only this much (virtual ns) more entitled.
const MARGIN: u64 = 1_000_000;

const FAIR: u64 = 1 << 63;
const RT_SHIFT: u32 = 56;
const RT_MIDDLE: u64 = 1 << (RT_SHIFT - 1);

/// Why a task enters the queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Why {
    /// It was asleep, or is new, or comes from another CPU.
    Woken,
    /// It gives way.
    Yielded,
    /// It was made to give way, or has work left that it was woken for while it ran.
    Preempted,
}

intrusive_adapter!(ByKey = UnsafeRef<Entity>: Entity { link => RBTreeAtomicLink });

impl<'a> KeyAdapter<'a> for ByKey {
    type Key = u64;

    fn get_key(&self, entity: &'a Entity) -> u64 {
        entity.key.load(Relaxed)
    }
}

/// No task in the tree comes before one in front. While the tree has tasks, the front may have fewer than it could.
pub(super) struct RunQueue {
    front: Front,
    tree: RBTree<ByKey>,
    /// Sequence numbers for the tail and the head of a real-time priority.
    tail: u64,
    head: u64,
}

/// Is it the key of a real-time task?
pub(super) fn is_rt(key: u64) -> bool {
    key < FAIR
}

/// The key of a task that runs now.
pub(super) fn running_key(entity: &Entity) -> u64 {
    match entity.active_policy().rt_priority() {
        0 => fair_key(entity),
        priority => rt_rank(priority) | RT_MIDDLE,
    }
}

fn fair_key(entity: &Entity) -> u64 {
    FAIR | (entity.vruntime.load(Relaxed) + entity.scale(SLICE)) & !FAIR
}

fn rt_rank(priority: u8) -> u64 {
    u64::from(99 - priority.min(99)) << RT_SHIFT
}

impl RunQueue {
    pub(super) const fn new() -> Self {
        RunQueue { front: Front::new(), tree: RBTree::new(ByKey::NEW), tail: RT_MIDDLE, head: RT_MIDDLE }
    }

    /// Queues a task on `cpu`, whose queue this is. Answers its key.
    #[inline]
    pub(super) fn insert(&mut self, cpu: &Cpu, runnable: Runnable, why: Why) -> u64 {
        // SAFETY: a task that is to be polled keeps its entity; the runnable is made again when the entity leaves the queue.
        let entity = unsafe { runnable.into_raw().as_ref() };
        if why == Why::Woken {
            place(entity, cpu);
        }
        entity.cpu.store(cpu.id() as u8, Relaxed);
        entity.queued.store(true, Release);
        self.link(cpu, entity, why)
    }

    fn link(&mut self, cpu: &Cpu, entity: &Entity, why: Why) -> u64 {
        let key = self.key(entity, why);
        entity.key.store(key, Relaxed);
        let behind = || self.tree.front().get().is_some_and(|first| first.key.load(Relaxed) <= key);
        let entry = Entry { key, entity: NonNull::from_ref(entity) };
        let rest = if !self.tree.is_empty() && behind() { Some(entry) } else { self.front.insert(entry) };
        if let Some(rest) = rest {
            // SAFETY: alive while it is queued, see `insert`.
            self.tree.insert(unsafe { UnsafeRef::from_raw(rest.entity.as_ptr()) });
        }
        cpu.note_queued(key, 1);
        key
    }

    fn key(&mut self, entity: &Entity, why: Why) -> u64 {
        let priority = entity.active_policy().rt_priority();
        if priority != 0 {
            // sched(7): a pre-empted FIFO task stays at the head of its priority; others go to the tail.
            let sequence = if why == Why::Preempted { &mut self.head } else { &mut self.tail };
            *sequence = if why == Why::Preempted { *sequence - 1 } else { *sequence + 1 };
            return rt_rank(priority) | *sequence;
        }
        let key = fair_key(entity);
        if why != Why::Yielded {
            return key;
        }
        // To the back, unless somebody there has a deadline far away; behind the first in any case.
        let first = self.first().unwrap_or(0).max(key);
        let last = match self.tree.back().get() {
            Some(last) => last.key.load(Relaxed),
            None => self.front.entries().last().map_or(0, |last| last.key),
        };
        first.max(last.min(key.saturating_add(entity.scale(SLICE))))
    }

    pub(super) fn first(&self) -> Option<u64> {
        match self.front.entries().first() {
            Some(first) => Some(first.key),
            None => self.tree.front().get().map(|entity| entity.key.load(Relaxed)),
        }
    }

    pub(super) fn pop(&mut self, cpu: &Cpu) -> Option<Runnable> {
        if let Some(first) = self.front.pop_first() {
            // SAFETY: its runnable, which `unlinked` answers, keeps it.
            return Some(unlinked(cpu, unsafe { first.entity.as_ref() }));
        }
        let entity = self.tree.front_mut().remove()?;
        Some(unlinked(cpu, &entity))
    }

    /// The first that is no real-time task.
    pub(super) fn pop_fair(&mut self, cpu: &Cpu) -> Option<Runnable> {
        if let Some(index) = self.front.entries().iter().position(|entry| !is_rt(entry.key)) {
            let entity = self.front.remove(index)?.entity;
            // SAFETY: as in `pop`.
            return Some(unlinked(cpu, unsafe { entity.as_ref() }));
        }
        let entity = self.tree.lower_bound_mut(Bound::Included(&FAIR)).remove()?;
        Some(unlinked(cpu, &entity))
    }

    /// The task that would run last among those that may run on `to`.
    pub(super) fn take_for(&mut self, cpu: &Cpu, to: usize) -> Option<Runnable> {
        let movable = |entity: &Entity| entity.affinity().has(to) && entity.fp_live_on().is_none();
        let mut cursor = self.tree.back_mut();
        for _ in 0..SEARCH {
            let Some(entity) = cursor.get() else { break };
            if movable(entity) {
                let entity = cursor.remove()?;
                return Some(unlinked(cpu, &entity));
            }
            cursor.move_prev();
        }
        // SAFETY: what is queued is alive, see `insert`.
        let found = self.front.entries().iter().rposition(|entry| movable(unsafe { entry.entity.as_ref() }))?;
        let entity = self.front.remove(found)?.entity;
        // SAFETY: as above.
        Some(unlinked(cpu, unsafe { entity.as_ref() }))
    }

    /// Its parameters have changed: finds its new place if it is in this queue.
    pub(super) fn reorder(&mut self, cpu: &Cpu, entity: &Entity) -> Option<u64> {
        if !entity.queued.load(Acquire) || usize::from(entity.cpu.load(Relaxed)) != cpu.id() {
            return None;
        }
        if let Some(index) = self.front.entries().iter().position(|entry| ptr::eq(entry.entity.as_ptr(), entity)) {
            self.front.remove(index);
        } else {
            // SAFETY: queued on this CPU, and not in front: it is in this tree.
            unsafe { self.tree.cursor_mut_from_ptr(ptr::from_ref(entity)).remove() };
        }
        cpu.note_queued(entity.key.load(Relaxed), -1);
        // One that was a real-time task has not been charged for what it ran.
        place(entity, cpu);
        Some(self.link(cpu, entity, Why::Woken))
    }
}

/// Makes the runnable of a task again that was just taken out of the queue.
fn unlinked(cpu: &Cpu, entity: &Entity) -> Runnable {
    cpu.note_queued(entity.key.load(Relaxed), -1);
    entity.queued.store(false, Relaxed);
    // SAFETY: `insert` put it there, and it is taken out once.
    unsafe { Runnable::from_raw(NonNull::from_ref(entity)) }
}

/// Moves a task's virtual time to where it belongs on `cpu`.
pub(super) fn place(entity: &Entity, cpu: &Cpu) {
    entity.vruntime.store(placed(entity, cpu), Relaxed);
}

fn placed(entity: &Entity, cpu: &Cpu) -> u64 {
    let here = cpu.vtime.load(Relaxed);
    let vruntime = match entity.home() {
        Some(old) if old == cpu.id() => entity.vruntime.load(Relaxed),
        Some(old) => {
            let ahead = entity.vruntime.load(Relaxed).wrapping_sub(cpu::on(old).vtime.load(Relaxed));
            here.saturating_add_signed(ahead as i64)
        }
        None => here,
    };
    vruntime.max(here.saturating_sub(CREDIT))
}

/// The key that a sleeping task will get on `cpu`.
pub(super) fn expected_key(entity: &Entity, cpu: &Cpu) -> u64 {
    match entity.active_policy().rt_priority() {
        0 => FAIR | (placed(entity, cpu) + entity.scale(SLICE)) & !FAIR,
        priority => rt_rank(priority) | (RT_MIDDLE + 1),
    }
}

/// Is a woken task with `key` to run before the one that runs with `current`?
pub(super) fn preempts(key: u64, current: u64) -> bool {
    let margin = if is_rt(key) || is_rt(current) { 0 } else { MARGIN };
    key.saturating_add(margin) < current
}

/// Is a waiting task with `key` to run before the one that runs, whose key has become `current`? One that has got the priority of
/// others goes on before them.
pub(super) fn outranks(key: u64, current: u64) -> bool {
    if is_rt(current) { key >> RT_SHIFT < current >> RT_SHIFT } else { preempts(key, current) }
}

/// Online CPUs on which the task may run; all of them if its set has become empty.
pub(super) fn allowed(entity: &Entity) -> CpuMask {
    let online = cpu::online();
    let allowed = entity.affinity().and(online);
    if allowed.is_empty() { online } else { allowed }
}
