//! Where a woken task goes: placement, hand-over, calls to other CPUs, stealing and balance.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::cpu::{self, CALLED, Cpu, IDLE, exec};
use super::entity::Entity;
use super::hw;
use super::params::CpuMask;
use super::queue::{Why, allowed, expected_key, place, preempts};
use super::runnable::Runnable;

/// Every `ROTATION`th slice end evens out a difference of one task, so that three tasks share two CPUs.
const ROTATION: u32 = 32;

/// A task that was asleep is to be polled.
pub(super) fn schedule(runnable: Runnable) {
    let cpu = cpu::this();
    match choose(runnable.entity(), cpu) {
        Place::Next => cpu.hand_over(runnable),
        Place::Here => cpu.wake_here(runnable),
        Place::Cpu(target) => send(target, runnable),
    }
}

/// Where a woken task goes.
enum Place {
    /// The one-slot place of this CPU: it runs when the waker waits.
    Next,
    /// This CPU's queue.
    Here,
    Cpu(usize),
}

/// A new task starts on an idle CPU or on this one.
#[inline]
pub(super) fn start(runnable: Runnable) {
    let cpu = cpu::this();
    let mask = allowed(runnable.entity());
    let target = match claim_idle(mask) {
        Some(idle) => idle,
        None if mask.has(cpu.id()) => cpu.id(),
        None => mask.first().unwrap_or(cpu.id()),
    };
    if target == cpu.id() { cpu.wake_here(runnable) } else { send(target, runnable) }
}

/// The place for a task that was asleep.
///
/// A wake by the running task on a CPU where nobody waits is a hand-over even if other CPUs idle: two tasks that talk to each
/// other are best off on one CPU. A waker that then goes on instead of waiting loses that trust for a while, see
/// `give_next_away`, and its wakes go to idle CPUs.
fn choose(entity: &Entity, cpu: &Cpu) -> Place {
    let (here, mask) = (cpu.id(), allowed(entity));
    let next = mask.has(here) && cpu.hands_over(entity);
    let stay = if next { Place::Next } else { Place::Here };
    if let Some(live) = entity.fp_live_on() {
        return if live == here { stay } else { Place::Cpu(live) };
    }
    let home = entity.home().filter(|home| mask.has(*home));
    let current = cpu.current();
    if home == Some(here) && current.is_none() {
        return Place::Here;
    }
    if next && cpu.queued() == 0 && current.is_some_and(Entity::hands_over_soon) {
        return Place::Next;
    }
    if let Some(idle) = home.and_then(|home| claim_idle(CpuMask::of(home))).or_else(|| claim_idle(mask)) {
        return Place::Cpu(idle);
    }
    match home {
        Some(home) if home != here && !(next && cpu.queued() <= cpu::on(home).queued()) => Place::Cpu(home),
        _ if mask.has(here) => stay,
        _ => Place::Cpu(mask.first().unwrap_or(here)),
    }
}

/// Takes an idle CPU of the set, so that no other waker sends its task there too.
fn claim_idle(mask: CpuMask) -> Option<usize> {
    loop {
        let found = CpuMask(exec().idle.load(SeqCst)).and(mask).first()?;
        let bit = 1 << found;
        if exec().idle.fetch_and(!bit, SeqCst) & bit != 0 {
            return Some(found);
        }
    }
}

/// Gives a task to another CPU. See `Cpu::idle` for why it cannot be overlooked there.
pub(super) fn send(target: usize, runnable: Runnable) {
    let cpu = cpu::on(target);
    let changes = CHANGES.load(SeqCst);
    let key = expected_key(runnable.entity(), cpu);
    let mask = movable_to(runnable.entity(), cpu);
    if let Some(runnable) = cpu.inbox.push(runnable) {
        cpu.queue.lock().insert(cpu, runnable, Why::Woken);
    }
    let old = cpu.flags.fetch_or(CALLED, SeqCst);
    let urgent = if old & IDLE != 0 {
        old & CALLED == 0
    } else {
        preempts(key, cpu.current_key.load(SeqCst)) || !cpu.is_ticking() || CHANGES.load(SeqCst) != changes
    };
    if urgent {
        hw::irq::send_ipi(target);
    }
    if old & IDLE == 0 {
        // A CPU that has become idle since it was looked for can take it out of the inbox.
        call_idle(mask);
    }
}

/// The CPUs besides `cpu` that may take the task from it.
fn movable_to(entity: &Entity, cpu: &Cpu) -> CpuMask {
    match entity.fp_live_on() {
        Some(_) => CpuMask::EMPTY,
        None => CpuMask(allowed(entity).0 & !(1 << cpu.id())),
    }
}

/// Sends a task to a CPU that it may run on.
pub(super) fn send_away(runnable: Runnable) {
    let mask = allowed(runnable.entity());
    let target = claim_idle(mask).or(mask.first()).unwrap_or(hw::cpu_id());
    send(target, runnable);
}

/// Ends a task's stay in user mode if that is on another CPU. See `Cpu::begin` for the order.
pub(super) fn interrupt(entity: &Entity) {
    let Some(home) = entity.home().filter(|home| *home != hw::cpu_id()) else { return };
    if core::ptr::eq(cpu::on(home).current.load(SeqCst), entity) {
        hw::irq::send_ipi(home);
    }
}

/// Tells an idle CPU of the set that there is something to steal.
///
/// ```text
/// this CPU                                  a CPU that goes idle
///   queue or inbox grows (SeqCst)             idle |= itself (SeqCst)
///   idle == 0 → nobody to call                all queues and inboxes empty → nothing to steal
/// ```
#[inline]
fn call_idle(mask: CpuMask) {
    if let Some(idle) = claim_idle(mask) {
        let old = cpu::on(idle).flags.fetch_or(CALLED, SeqCst);
        if old & IDLE != 0 && old & CALLED == 0 {
            hw::irq::send_ipi(idle);
        }
    }
}

/// The task's class, priority or weight has changed.
///
/// A task in a one-slot place waits for the running one to wait; if it has become a real-time task it is not to:
///
/// ```text
/// who hands it over (hand_over)             who changes it
///   next = the task (SeqCst)                  active = better (SeqCst)
///   active is real-time → give way            it is some CPU's next → that one gives way
/// ```
///
/// A task on its way to a CPU may have been found not urgent enough to interrupt that CPU:
///
/// ```text
/// who wakes it (send)                       who changes it
///   seen = CHANGES                            active = better (SeqCst)
///   key, by what `active` is                  CHANGES += 1 (SeqCst)
///   push; flags |= CALLED (SeqCst)            a CPU's flags have CALLED → IPI
///   CHANGES != seen → IPI
/// ```
pub(super) fn params_changed(entity: &Entity) {
    let Some(home) = entity.home() else { return };
    let cpu = cpu::on(home);
    let key = cpu.queue.lock().reorder(cpu, entity);
    if let Some(key) = key {
        if preempts(key, cpu.current_key.load(Relaxed)) {
            cpu.force_resched();
        }
        return;
    }
    if core::ptr::eq(cpu.current.load(SeqCst), entity) {
        if home == hw::cpu_id() { cpu.rank_changed(entity) } else { cpu.force_resched() }
    }
    if entity.is_rt_now()
        && let Some(cpu) = cpu::all().find(|cpu| core::ptr::eq(cpu.next.load(SeqCst), entity))
    {
        cpu.force_resched();
    }
    CHANGES.fetch_add(1, SeqCst);
    for cpu in cpu::all().filter(|cpu| cpu.id() != hw::cpu_id()) {
        if cpu.flags.load(SeqCst) & (CALLED | IDLE) == CALLED {
            hw::irq::send_ipi(cpu.id());
        }
    }
}

/// How often a task that was in no run queue has changed.
static CHANGES: AtomicU32 = AtomicU32::new(0);

/// A task that runs where it may not is made to give way; one that waits is sent on when its turn comes.
pub(super) fn affinity_changed(entity: &Entity) {
    let Some(home) = entity.home() else { return };
    let cpu = cpu::on(home);
    let running = core::ptr::eq(cpu.current.load(Relaxed), entity);
    if running && !allowed(entity).has(home) {
        cpu.force_resched();
    }
}

impl Cpu {
    /// Can the task go to the one-slot place? Only if the running task itself wakes it, and no real-time task is involved.
    fn hands_over(&self, entity: &Entity) -> bool {
        let Some(current) = self.current() else { return false };
        self.next.load(Relaxed).is_null()
            && !self.counters.in_user()
            && !current.active_policy().is_rt()
            && !entity.active_policy().is_rt()
    }

    fn hand_over(&self, runnable: Runnable) {
        self.contended();
        // SAFETY: only this CPU takes the runnable out of the place again.
        let entity = unsafe { runnable.into_raw().as_ref() };
        place(entity, self);
        entity.cpu.store(self.id() as u8, Relaxed);
        let mask = allowed(entity);
        self.next_seen.store(false, Relaxed);
        // The order of this and the next look at the policy: see `params_changed`.
        self.next.store(core::ptr::from_ref(entity).cast_mut(), SeqCst);
        if entity.is_rt_now() {
            self.resched.store(true, Relaxed);
        }
        if !CpuMask(exec().idle.load(Relaxed)).and(mask).is_empty() {
            self.expect_hand_over();
        }
    }

    /// Queues a woken task on this CPU.
    pub(super) fn wake_here(&self, runnable: Runnable) {
        let mask = movable_to(runnable.entity(), self);
        let running = self.current().is_some();
        if running {
            // Before the task is placed: it brings the virtual time up to date.
            self.contended();
        }
        // From the insertion on another CPU may take it, run it, and free it.
        let key = self.queue.lock().insert(self, runnable, Why::Woken);
        if running && preempts(key, self.current_key.load(Relaxed)) {
            self.resched.store(true, Relaxed);
        }
        let runs_next = !running && self.queued() == 1;
        if !runs_next {
            call_idle(mask);
        }
    }

    /// Empties the inbox into the queue.
    ///
    /// A thief (`lose_task_to`) may have emptied it and be about to put what it found into the queue, where it leaves what it
    /// cannot take: to have had the queue's lock since then is to see that.
    pub(super) fn drain(&self) {
        self.flags.fetch_and(!CALLED, SeqCst);
        while let Some(runnable) = self.inbox.pop() {
            self.wake_here(runnable);
        }
        drop(self.queue.lock());
        // What others put into the queue itself: because the inbox was full, or when they stole from it.
        if self.current().is_some() && self.has_waiting() {
            self.contended();
            let first = self.queue.lock().first();
            if first.is_some_and(|first| preempts(first, self.current_key.load(Relaxed))) {
                self.resched.store(true, Relaxed);
            }
        }
    }

    /// Makes the running task of this CPU give way, from any CPU.
    fn force_resched(&self) {
        self.resched.store(true, SeqCst);
        if self.id() != hw::cpu_id() {
            hw::irq::send_ipi(self.id());
        }
    }

    /// Takes a task that waits for another CPU, preferably a busy one.
    pub(super) fn steal(&self) -> bool {
        let mut left = cpu::online().0 & !(1 << self.id());
        while left != 0 {
            let busiest = cpu::all().filter(|cpu| left >> cpu.id() & 1 != 0).max_by_key(|cpu| cpu.waiting());
            let Some(victim) = busiest.filter(|cpu| cpu.waiting() > 0) else { return false };
            let stolen = victim.lose_task_to(self);
            if let Some(runnable) = stolen {
                self.queue.lock().insert(self, runnable, Why::Woken);
                return true;
            }
            left &= !(1 << victim.id());
        }
        false
    }

    /// Called by the CPU `to`. What is in the inbox is put into the queue on the way.
    fn lose_task_to(&self, to: &Cpu) -> Option<Runnable> {
        let mut queue = self.queue.lock();
        while let Some(runnable) = self.inbox.pop() {
            queue.insert(self, runnable, Why::Woken);
        }
        queue.take_for(self, to.id())
    }

    /// Others wait here and a slice has ended: pushes one of them to a CPU with less to do.
    pub(super) fn balance(&self) {
        let turn = self.turns.load(Relaxed).wrapping_add(1);
        self.turns.store(turn, Relaxed);
        let others = cpu::all().filter(|cpu| cpu.id() != self.id() && cpu::online().has(cpu.id()));
        let Some(quiet) = others.min_by_key(|cpu| cpu.runnable()) else { return };
        let (here, there) = (self.runnable(), quiet.runnable());
        if here > there + 1 || here > there && turn.is_multiple_of(ROTATION) {
            let moved = self.queue.lock().take_for(self, quiet.id());
            if let Some(runnable) = moved {
                exec().idle.fetch_and(!(1 << quiet.id()), SeqCst);
                send(quiet.id(), runnable);
            }
        }
    }

    /// The running task goes on, so the one that waits for the hand-over gets an idle CPU.
    pub(super) fn give_next_away(&self) {
        let Some(runnable) = self.take_next() else { return };
        if let Some(current) = self.current() {
            current.broke_hand_over();
        }
        match claim_idle(movable_to(runnable.entity(), self)) {
            Some(idle) => send(idle, runnable),
            None => self.wake_here(runnable),
        }
    }

    /// Tasks in the queue and the inbox.
    fn waiting(&self) -> usize {
        self.queued() + self.inbox.len()
    }

    /// Tasks that run or wait here.
    pub(super) fn runnable(&self) -> usize {
        let next = usize::from(!self.next.load(Relaxed).is_null());
        let running = usize::from(self.current_key.load(Relaxed) != u64::MAX);
        self.waiting() + next + running
    }
}
