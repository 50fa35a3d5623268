//! Per-CPU state of the executor, and its main loop.
//!
//! Fields are written by their own CPU only, with plain (relaxed) stores, except `flags`, `inbox`, `resched` and
//! what is under a lock. Lock order: a run queue's lock and a timer tree's lock are leaves; nobody holds two of them.

use core::ptr::{self, NonNull};
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicU32, AtomicU64};

use super::entity::{ASLEEP, Entity};
use super::hw;
use super::inbox::Inbox;
use super::params::CpuMask;
use super::params::SchedPolicy;
use super::queue::{RR_SLICE, RunQueue, SLICE, Why, allowed, is_rt, outranks, running_key};
use super::runnable::Runnable;
use super::stats::Counters;
use super::throttle::Throttle;
use super::timer::Timers;
use crate::arch::{MAX_CPUS, PerCpu};
use crate::sync::{Once, SpinLock};

/// The inbox holds something, or the CPU should look around.
pub(super) const CALLED: u32 = 1;
/// The CPU is in the idle loop and may be in WFI.
pub(super) const IDLE: u32 = 2;

/// What one poll may take between two calls of `budget` (ns): as long do interrupts wait.
const BUDGET: u64 = 500_000;

pub struct Cpu {
    id: AtomicU8,
    /// CALLED and IDLE: see `idle` and `wake::send` for the protocol.
    pub(super) flags: AtomicU32,
    /// Tasks woken by other CPUs.
    pub(super) inbox: Inbox,
    pub(super) queue: SpinLock<RunQueue>,
    /// Length of `queue`. Written under its lock.
    queued: AtomicI32,
    /// The real-time tasks among them.
    queued_rt: AtomicI32,
    /// Virtual time: the weighted run time of the task that was picked last. Written under the lock or by this CPU.
    pub(super) vtime: AtomicU64,
    pub(super) timers: Timers,

    /// The task being polled; null between polls.
    pub(super) current: AtomicPtr<Entity>,
    /// Its key; the greatest one if there is none.
    pub(super) current_key: AtomicU64,
    /// It should give way.
    pub(super) resched: AtomicBool,
    /// The task ends its poll to give way, not to wait.
    yielding: AtomicBool,
    /// It has asked for that itself.
    polite: AtomicBool,
    /// Woken by the running task: runs next, in what is left of the slice. Owned by this CPU.
    pub(super) next: AtomicPtr<Entity>,
    /// `next` was there already when the timer looked last.
    pub(super) next_seen: AtomicBool,

    /// The clock at the last switch.
    pub(super) now: AtomicU64,
    /// Ticks at the beginning of this poll, or at the last return from user mode.
    kernel_since: AtomicU64,
    pub(super) slice_end: AtomicU64,
    /// When others get their turn: the slice's end, or before it that of what real-time tasks may have.
    pub(super) turn_end: AtomicU64,
    throttle: Throttle,
    /// What the timer is set to. May be earlier than needed: it is not moved back, but looks again when it fires.
    pub(super) armed: AtomicU64,
    /// Slices that ended with others waiting.
    pub(super) turns: AtomicU32,
    pub(super) counters: Counters,
}

pub(super) struct Exec {
    cpus: PerCpu<Cpu>,
    /// CPUs in the idle loop that nobody has sent a task to yet.
    pub(super) idle: AtomicU64,
    /// CPUs whose executor runs.
    pub(super) online: AtomicU64,
    /// Saves the FP registers that are live on this CPU.
    pub(super) save_fp: Once<fn()>,
}

impl Exec {
    const fn new() -> Self {
        Exec {
            cpus: PerCpu::new([const { Cpu::new() }; MAX_CPUS]),
            idle: AtomicU64::new(0),
            online: AtomicU64::new(1),
            save_fp: Once::new(),
        }
    }
}

#[cfg(not(test))]
pub(super) fn exec() -> &'static Exec {
    static EXEC: Exec = Exec::new();
    &EXEC
}

/// Every test has a machine of its own; the threads that simulate its CPUs share it.
#[cfg(test)]
pub(super) fn exec() -> &'static Exec {
    EXEC.with(|slot| *slot.get_or_init(|| std::boxed::Box::leak(std::boxed::Box::new(Exec::new())).started()))
}

#[cfg(test)]
std::thread_local! {
    static EXEC: core::cell::OnceCell<&'static Exec> = const { core::cell::OnceCell::new() };
}

#[cfg(test)]
impl Exec {
    fn started(&'static mut self) -> &'static Self {
        self.cpus.iter().enumerate().for_each(|(id, cpu)| cpu.start(id));
        self
    }

    /// Makes the calling thread a CPU of this machine.
    pub(super) fn adopt(&'static self) {
        EXEC.with(|slot| assert!(slot.set(self).is_ok(), "this thread has a machine already"));
    }
}

#[inline]
pub(super) fn on(cpu: usize) -> &'static Cpu {
    exec().cpus.on(cpu)
}

#[inline]
pub(super) fn this() -> &'static Cpu {
    on(hw::cpu_id())
}

pub(super) fn all() -> impl Iterator<Item = &'static Cpu> {
    exec().cpus.iter().take(hw::cpu_count())
}

/// CPUs that run tasks.
pub fn online() -> CpuMask {
    CpuMask(exec().online.load(Relaxed))
}

/// Installs the executor's interrupt hooks. To be called once, before any task is spawned.
pub fn init() {
    let id = hw::cpu_id();
    on(id).start(id);
    hw::irq::set_hooks(hw::irq::Hooks { timer: || this().on_timer(), ipi: || this().on_ipi() });
    super::stats::init();
}

/// Says how to save the FP registers that are live on the calling CPU to their owner, who is then marked with
/// [`Entity::clear_fp_live`]. Without it a task with live FP state stays where it is, whatever its affinity says.
pub fn set_fp_saver(save: fn()) {
    exec().save_fp.call_once(|| save);
}

/// The executor's loop: polls tasks for ever. Every CPU calls it once.
pub fn run_cpu(cpu: usize) -> ! {
    let id = cpu;
    let cpu = on(id);
    cpu.start(id);
    cpu.go_online();
    loop {
        hw::irq::service_pending();
        if !cpu.run_next() {
            if cpu.idle_enter() {
                hw::irq::wait();
            }
            cpu.idle_leave();
        }
    }
}

impl Cpu {
    const fn new() -> Self {
        Cpu {
            id: AtomicU8::new(0),
            flags: AtomicU32::new(0),
            inbox: Inbox::new(),
            queue: SpinLock::new(RunQueue::new()),
            queued: AtomicI32::new(0),
            queued_rt: AtomicI32::new(0),
            vtime: AtomicU64::new(0),
            timers: Timers::new(),
            current: AtomicPtr::new(ptr::null_mut()),
            current_key: AtomicU64::new(u64::MAX),
            resched: AtomicBool::new(false),
            yielding: AtomicBool::new(false),
            polite: AtomicBool::new(false),
            next: AtomicPtr::new(ptr::null_mut()),
            next_seen: AtomicBool::new(false),
            now: AtomicU64::new(0),
            kernel_since: AtomicU64::new(0),
            slice_end: AtomicU64::new(0),
            turn_end: AtomicU64::new(0),
            throttle: Throttle::new(),
            armed: AtomicU64::new(u64::MAX),
            turns: AtomicU32::new(0),
            counters: Counters::new(),
        }
    }

    fn start(&self, id: usize) {
        self.id.store(id as u8, Relaxed);
        self.inbox.open();
    }

    #[inline]
    pub(super) fn id(&self) -> usize {
        self.id.load(Relaxed).into()
    }

    /// Tasks in the run queue.
    #[inline]
    pub(super) fn queued(&self) -> usize {
        self.queued.load(SeqCst) as usize
    }

    /// Called under the queue's lock. SeqCst: see `wake::call_idle`.
    pub(super) fn note_queued(&self, key: u64, delta: i32) {
        self.queued.store(self.queued.load(Relaxed) + delta, SeqCst);
        if is_rt(key) {
            self.queued_rt.store(self.queued_rt.load(Relaxed) + delta, Relaxed);
        }
    }

    /// The running task, if one is being polled.
    pub(super) fn current(&self) -> Option<&Entity> {
        // SAFETY: only asked on this CPU, and cleared before the poll that borrows the entity ends.
        unsafe { self.current.load(Relaxed).as_ref() }
    }

    /// Somebody waits for this CPU besides the running task.
    #[inline]
    pub(super) fn has_waiting(&self) -> bool {
        self.queued.load(Relaxed) > 0 || !self.next.load(Relaxed).is_null()
    }

    /// Polls the task whose turn it is. False if there is none.
    pub(super) fn run_next(&self) -> bool {
        if self.flags.load(Relaxed) & CALLED != 0 {
            self.drain();
        }
        let Some(runnable) = self.pick() else { return false };
        self.begin(runnable.entity());
        runnable.run(self);
        true
    }

    fn pick(&self) -> Option<Runnable> {
        self.resched.store(false, Relaxed);
        let now = self.now.load(Relaxed);
        if let Some(next) = self.take_next() {
            if now < self.slice_end.load(Relaxed) && self.queued_rt.load(Relaxed) == 0 {
                return Some(next);
            }
            self.wake_here(next);
        }
        loop {
            if self.queued.load(Relaxed) == 0 {
                return None;
            }
            let throttled = self.others_wait_for_rt(now);
            let mut queue = self.queue.lock();
            let runnable = if throttled { queue.pop_fair(self).or_else(|| queue.pop(self)) } else { queue.pop(self) }?;
            drop(queue);
            if let Some(runnable) = self.keep(runnable) {
                self.begin_slice(runnable.entity(), now);
                return Some(runnable);
            }
        }
    }

    /// Sends a task away that may not run here (any more).
    fn keep(&self, runnable: Runnable) -> Option<Runnable> {
        let entity = runnable.entity();
        if allowed(entity).has(self.id()) || !self.release_fp(entity) {
            return Some(runnable);
        }
        super::wake::send_away(runnable);
        None
    }

    /// Makes sure that the task's FP state is not in this CPU's registers. False if that cannot be done.
    fn release_fp(&self, entity: &Entity) -> bool {
        if entity.fp_live_on() == Some(self.id())
            && let Some(save) = exec().save_fp.get()
        {
            save();
        }
        entity.fp_live_on().is_none()
    }

    fn begin_slice(&self, entity: &Entity, now: u64) {
        let policy = entity.active_policy();
        let slice_end = match policy {
            SchedPolicy::Fifo(_) => u64::MAX,
            SchedPolicy::Rr(_) => now + RR_SLICE,
            _ => now + SLICE,
        };
        self.slice_end.store(slice_end, Relaxed);
        let turn_end = if policy.is_rt() {
            slice_end.min(self.throttle.end(now))
        } else {
            let vtime = self.vtime.load(Relaxed).max(entity.vruntime.load(Relaxed));
            self.vtime.store(vtime, Relaxed);
            slice_end
        };
        self.turn_end.store(turn_end, Relaxed);
        if self.queued.load(Relaxed) > 0 && turn_end != u64::MAX {
            self.timer_wanted(turn_end);
        }
    }

    /// Real-time tasks have had their share of the period, and others wait.
    fn others_wait_for_rt(&self, now: u64) -> bool {
        self.queued_rt.load(Relaxed) > 0 && self.others_wait() && self.throttle.end(now) <= now
    }

    /// Somebody waits for this CPU who is no real-time task.
    pub(super) fn others_wait(&self) -> bool {
        self.queued.load(Relaxed) > self.queued_rt.load(Relaxed) || !self.next.load(Relaxed).is_null()
    }

    /// The running task's class, priority or weight has changed. To be called on this CPU.
    pub(super) fn rank_changed(&self, entity: &Entity) {
        let now = hw::now_ns();
        // The time until now counts by the old rank: `charge` goes by the old key.
        self.charge(entity, entity.begin_charge(), now, now);
        let key = running_key(entity);
        self.current_key.store(key, Relaxed);
        let endless = matches!(entity.active_policy(), SchedPolicy::Fifo(_));
        // Else the slice goes on: who changes its rank all the time gets no more for it.
        if endless != (self.slice_end.load(Relaxed) == u64::MAX) {
            self.begin_slice(entity, now);
        }
        let first = self.queue.lock().first();
        if first.is_some_and(|first| outranks(first, key)) {
            self.resched.store(true, Relaxed);
        }
    }

    pub(super) fn take_next(&self) -> Option<Runnable> {
        let next = NonNull::new(self.next.load(Relaxed))?;
        self.next.store(ptr::null_mut(), Relaxed);
        // SAFETY: `wake::here` put it there with `into_raw`; it is taken once, as only this CPU touches the slot.
        Some(unsafe { Runnable::from_raw(next) })
    }

    /// A poll begins. The entity lives until `end` at least: its runnable is about to run.
    ///
    /// `current` is set before the task's state becomes POLLED, and `Entity::wake` looks at it after it has changed that
    /// state: it sees the task here, or the task sees what it was woken for.
    #[inline]
    fn begin(&self, entity: &Entity) {
        let now = self.now.load(Relaxed);
        entity.cpu.store(self.id.load(Relaxed), Relaxed);
        entity.run_since.store(now, Relaxed);
        self.counters.begin(now);
        self.yielding.store(false, Relaxed);
        self.polite.store(false, Relaxed);
        self.current_key.store(running_key(entity), Relaxed);
        self.current.store(ptr::from_ref(entity).cast_mut(), Relaxed);
    }

    /// The poll has ended.
    #[inline]
    pub(super) fn end(&self, entity: &Entity) {
        let from = entity.begin_charge();
        let now = self.read_clock();
        self.charge(entity, from, now, ASLEEP | now);
        self.counters.end();
        let switches = if self.yielding.load(Relaxed) { &entity.involuntary } else { &entity.voluntary };
        switches.store(switches.load(Relaxed) + 1, Relaxed);
        self.current.store(ptr::null_mut(), Relaxed);
        self.current_key.store(u64::MAX, Relaxed);
    }

    /// Charges the task for what it ran; from then on it runs uncharged since `since`.
    fn charge(&self, entity: &Entity, from: u64, now: u64, since: u64) {
        let ran = entity.charge(from, now, since);
        if is_rt(self.current_key.load(Relaxed)) {
            self.throttle.charge(ran);
        } else {
            entity.vruntime.store(entity.vruntime.load(Relaxed) + entity.scale(ran), Relaxed);
        }
        self.counters.charge(ran, now);
    }

    /// Brings the running task's accounts, and the virtual time, up to date.
    pub(super) fn update_current(&self, now: u64) {
        let Some(entity) = self.current() else { return };
        self.charge(entity, entity.begin_charge(), now, now);
        self.current_key.store(running_key(entity), Relaxed);
        if self.queued.load(Relaxed) == 0 && !entity.active_policy().is_rt() {
            let vtime = self.vtime.load(Relaxed).max(entity.vruntime.load(Relaxed));
            self.vtime.store(vtime, Relaxed);
        }
    }

    /// The task that was just polled goes on later: it gave way, or was woken while it ran.
    pub(super) fn requeue(&self, runnable: Runnable) {
        let Some(runnable) = self.keep(runnable) else { return };
        let slice_over = self.now.load(Relaxed) >= self.slice_end.load(Relaxed);
        let round = slice_over && matches!(runnable.entity().active_policy(), SchedPolicy::Rr(_));
        let made_to = self.resched.load(Relaxed) && !self.polite.load(Relaxed);
        let gives_way = self.yielding.load(Relaxed) && !made_to;
        let why = if round || gives_way { Why::Yielded } else { Why::Preempted };
        self.queue.lock().insert(self, runnable, why);
    }

    pub(super) fn go_online(&self) {
        exec().online.fetch_or(1 << self.id(), SeqCst);
        self.read_clock();
    }

    #[inline]
    fn read_clock(&self) -> u64 {
        let ticks = hw::ticks();
        let now = hw::ns_at(ticks);
        self.kernel_since.store(ticks, Relaxed);
        self.now.store(now, Relaxed);
        now
    }

    /// Nothing is to be done: looks at the others, and says whether to sleep until an interrupt comes.
    ///
    /// ```text
    /// another CPU (wake::send, call_idle)       this CPU
    ///   push to the inbox                         flags |= IDLE
    ///   old = flags |= CALLED                     old has CALLED → do not sleep
    ///   old has IDLE → send an IPI                WFI: over at once if an interrupt is pending
    /// ```
    /// Both `|=` are read-modify-writes of one word: one comes first, and the other sees it.
    pub(super) fn idle_enter(&self) -> bool {
        self.counters.idle_begin(self.now.load(Relaxed));
        // Whoever waits for something now may go on anywhere.
        if let Some(save) = exec().save_fp.get()
            && online().count() > 1
        {
            save();
        }
        exec().idle.fetch_or(1 << self.id(), SeqCst);
        let old = self.flags.fetch_or(IDLE, SeqCst);
        let sleep = old & CALLED == 0 && !self.steal();
        if sleep {
            self.arm_exactly(self.timers.first());
        }
        sleep
    }

    pub(super) fn idle_leave(&self) {
        self.flags.fetch_and(!IDLE, SeqCst);
        exec().idle.fetch_and(!(1 << self.id()), SeqCst);
        let now = self.read_clock();
        self.counters.idle_end(now);
    }

    /// The running task wants to yield as soon as it is asked.
    pub(super) fn give_way(&self) {
        self.polite.store(true, Relaxed);
        self.resched.store(true, Relaxed);
    }

    pub(super) fn yields(&self) {
        self.yielding.store(true, Relaxed);
    }

    /// The poll has used what it may without looking at interrupts and others.
    pub(super) fn budget_used(&self) -> bool {
        let here = || hw::ticks_to_ns(hw::ticks().wrapping_sub(self.kernel_since.load(Relaxed)));
        self.resched.load(Relaxed) || here() >= BUDGET
    }

    pub(super) fn others_runnable(&self) -> bool {
        self.has_waiting() || self.flags.load(Relaxed) & CALLED != 0
    }
}

/// See [`Entity::in_user`].
#[inline]
pub(super) fn enter_user(entity: &Entity) {
    let now = hw::ticks();
    entity.user_since.store(now, Relaxed);
    this().counters.user_begin(now);
}

#[inline]
pub(super) fn leave_user(entity: &Entity) {
    let cpu = this();
    let now = hw::ticks();
    cpu.kernel_since.store(now, Relaxed);
    let ran = cpu.counters.user_end(now);
    entity.user.store(entity.user.load(Relaxed) + ran, Relaxed);
    entity.user_since.store(0, Relaxed);
}
