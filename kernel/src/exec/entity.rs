//! The scheduler's view of a task.

use alloc::sync::Arc;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::fence;
use core::sync::atomic::{AtomicBool, AtomicI8, AtomicU8, AtomicU16, AtomicU32, AtomicU64};
use intrusive_collections::RBTreeAtomicLink;

use super::cpu;
use super::hw;
use super::instant::Instant;
use super::params::{CpuMask, SchedParams, SchedPolicy, UNIT, weight};
use super::runnable::State;
use super::wake;
use crate::sync::SpinLock;

/// A task as the scheduler sees it: what it may claim, where it is, what it used. One per task.
///
/// Fields are atomics because others may look; unless said otherwise only the CPU that runs the task, or holds the lock
/// of the run queue that it is in, writes them.
pub struct Entity {
    name: &'static str,
    /// In a run queue's tree, under its lock.
    pub(super) link: RBTreeAtomicLink,
    /// Its future, and who may poll it.
    pub(super) state: State,
    /// Position in the run queue. See `queue`.
    pub(super) key: AtomicU64,
    /// Weighted run time (fair class), comparable with the virtual time of `cpu`.
    pub(super) vruntime: AtomicU64,
    /// Where it runs, waits for the CPU, or ran last.
    pub(super) cpu: AtomicU8,
    pub(super) queued: AtomicBool,
    /// So many wakes by this task are no hand-overs, because it did not wait after the last one.
    distrust: AtomicU8,

    /// Written by anybody, under `ranks`.
    policy: AtomicU16,
    /// A real-time priority that is lent to it; 0: none.
    lent: AtomicU8,
    /// What it is scheduled by: `policy`, or the lent priority if that is better.
    active: AtomicU16,
    ranks: SpinLock<()>,
    nice: AtomicI8,
    weight: AtomicU32,
    affinity: AtomicU64,

    /// CPU + 1 whose registers hold the FP state; 0: it is in memory.
    fp_live: AtomicU8,

    /// Run time (ns), user time (ticks) and numbers of switches.
    pub(super) ran: AtomicU64,
    pub(super) user: AtomicU64,
    pub(super) voluntary: AtomicU64,
    pub(super) involuntary: AtomicU64,
    /// Since when it runs (user code) without having been charged for it; 0: it does not. `run_since` then says with
    /// [`ASLEEP`] when it ran last.
    pub(super) run_since: AtomicU64,
    pub(super) user_since: AtomicU64,
    /// Bytes: see [`Storage`].
    storage: [AtomicU64; 3],
}

/// What a task has done about storage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Storage {
    /// It had this fetched.
    Read,
    /// It changed this in memory, to be stored.
    Written,
    /// It threw away what was to be stored.
    Cancelled,
}

/// Counts bytes for the task that runs, if one does.
pub fn count_storage(what: Storage, bytes: usize) {
    if let Some(entity) = cpu::this().current() {
        let [read, written, cancelled] = &entity.storage;
        let counter = match what {
            Storage::Read => read,
            Storage::Written => written,
            Storage::Cancelled => cancelled,
        };
        counter.fetch_add(bytes as u64, Relaxed);
    }
}

const NEVER_RAN: u8 = u8::MAX;
/// `run_since` while the time is being moved to `ran`: for a few instructions.
const CHARGING: u64 = u64::MAX;
pub(super) const ASLEEP: u64 = 1 << 63;
const DISTRUST: u8 = 16;

impl Entity {
    /// Bytes by [`Storage`].
    pub fn storage(&self) -> [u64; 3] {
        self.storage.each_ref().map(|counter| counter.load(Relaxed))
    }

    pub fn new(params: SchedParams) -> Arc<Self> {
        Entity::named("thread", params)
    }

    /// `name` is for diagnostics.
    pub fn named(name: &'static str, params: SchedParams) -> Arc<Self> {
        let entity = Entity {
            name,
            link: RBTreeAtomicLink::new(),
            state: State::new(),
            key: AtomicU64::new(0),
            vruntime: AtomicU64::new(0),
            cpu: AtomicU8::new(NEVER_RAN),
            queued: AtomicBool::new(false),
            distrust: AtomicU8::new(0),
            policy: AtomicU16::new(encode(params.policy)),
            lent: AtomicU8::new(0),
            active: AtomicU16::new(encode(params.policy)),
            ranks: SpinLock::new(()),
            nice: AtomicI8::new(params.nice.clamp(-20, 19)),
            weight: AtomicU32::new(weight(params.policy, params.nice)),
            affinity: AtomicU64::new(params.affinity.0),
            fp_live: AtomicU8::new(0),
            ran: AtomicU64::new(0),
            user: AtomicU64::new(0),
            voluntary: AtomicU64::new(0),
            involuntary: AtomicU64::new(0),
            run_since: AtomicU64::new(0),
            user_since: AtomicU64::new(0),
            storage: [const { AtomicU64::new(0) }; 3],
        };
        Arc::new(entity)
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What a child starts with.
    pub fn params(&self) -> SchedParams {
        SchedParams { policy: self.policy(), nice: self.nice(), affinity: self.affinity() }
    }

    pub fn policy(&self) -> SchedPolicy {
        decode(self.policy.load(Relaxed))
    }

    pub fn nice(&self) -> i8 {
        self.nice.load(Relaxed)
    }

    /// Takes effect at once, also if the task is waiting for a CPU.
    pub fn set_policy(&self, policy: SchedPolicy) {
        let ranks = self.ranks.lock();
        self.policy.store(encode(policy), Relaxed);
        self.weight.store(weight(policy, self.nice()), Relaxed);
        self.activate(policy, self.lent.load(Relaxed));
        drop(ranks);
        wake::params_changed(self);
    }

    /// The policy that it is scheduled by: its own, or a better one that others lend it.
    #[inline]
    pub fn active_policy(&self) -> SchedPolicy {
        decode(self.active.load(Relaxed))
    }

    /// Has it become a real-time task by now? SeqCst: see `wake::params_changed`.
    pub(super) fn is_rt_now(&self) -> bool {
        decode(self.active.load(SeqCst)).is_rt()
    }

    /// Lends the task a real-time priority, instead of what it was lent before; 0 takes it back. As for `set_policy`.
    pub fn lend(&self, priority: u8) {
        let ranks = self.ranks.lock();
        if self.lent.swap(priority, Relaxed) == priority {
            return;
        }
        self.activate(self.policy(), priority);
        drop(ranks);
        wake::params_changed(self);
    }

    /// As on Linux a lent priority makes no turns of the tasks that have none.
    fn activate(&self, policy: SchedPolicy, lent: u8) {
        let active = match policy {
            _ if lent <= policy.rt_priority() => policy,
            SchedPolicy::Rr(_) => SchedPolicy::Rr(lent),
            _ => SchedPolicy::Fifo(lent),
        };
        // SeqCst: see `wake::params_changed`.
        self.active.store(encode(active), SeqCst);
    }

    pub fn set_nice(&self, nice: i8) {
        let nice = nice.clamp(-20, 19);
        self.nice.store(nice, Relaxed);
        self.weight.store(weight(self.policy(), nice), Relaxed);
        wake::params_changed(self);
    }

    pub fn affinity(&self) -> CpuMask {
        CpuMask(self.affinity.load(Relaxed))
    }

    /// From its next scheduling on the task runs on these CPUs only; one that runs elsewhere now is pre-empted. The
    /// caller has checked that the set contains a CPU that is online.
    pub fn set_affinity(&self, mask: CpuMask) {
        self.affinity.store(mask.0, Relaxed);
        wake::affinity_changed(self);
    }

    /// The CPU that runs it or ran it last.
    pub fn last_cpu(&self) -> usize {
        match self.cpu.load(Relaxed) {
            NEVER_RAN => 0,
            cpu => cpu.into(),
        }
    }

    /// It runs or waits for a CPU (state R of proc(5)).
    pub fn is_runnable(&self) -> bool {
        let since = self.run_since.load(Relaxed);
        self.queued.load(Relaxed) || since == CHARGING || since != 0 && since & ASLEEP == 0
    }

    /// When it ran last, if it does not run.
    pub fn asleep_since(&self) -> Option<Instant> {
        let since = self.run_since.load(Relaxed);
        (since & ASLEEP != 0 && since != CHARGING).then(|| Instant::from_nanos(since & !ASLEEP))
    }

    /// Where it should run again, if it ran before.
    pub(super) fn home(&self) -> Option<usize> {
        let cpu = self.cpu.load(Relaxed);
        (cpu != NEVER_RAN).then_some(cpu.into())
    }

    /// The CPU whose registers hold its FP state: it is not moved away from there.
    pub fn fp_live_on(&self) -> Option<usize> {
        self.fp_live.load(Acquire).checked_sub(1).map(usize::from)
    }

    /// To be called on that CPU, by the running task.
    pub fn set_fp_live(&self, cpu: usize) {
        self.fp_live.store(cpu as u8 + 1, Relaxed);
    }

    /// To be called on that CPU after the registers were saved (or are not wanted any more).
    pub fn clear_fp_live(&self) {
        // Others may move the task as soon as they see this: the saved registers must be visible before.
        self.fp_live.store(0, Release);
    }

    /// Makes the task look around, whatever it does: a signal was posted, or it is being killed. It is woken if it sleeps, polled
    /// again if it is being polled, and interrupted if it runs user code on another CPU.
    #[inline]
    pub fn wake(&self) {
        self.poll_again();
        wake::interrupt(self);
    }

    /// Runs user code: time inside `enter` is user time, and wakes that interrupt handlers issue meanwhile are told from
    /// those of the task itself.
    #[inline]
    pub fn in_user<R>(&self, enter: impl FnOnce() -> R) -> R {
        cpu::enter_user(self);
        let result = enter();
        cpu::leave_user(self);
        result
    }

    /// Run time in all, up to now.
    pub fn run_time_ns(&self) -> u64 {
        loop {
            let since = self.run_since.load(Acquire);
            let ran = self.ran.load(Acquire);
            // The clock before the second look: who charges stores CHARGING before it reads the clock.
            let total = ran + if since == CHARGING { 0 } else { elapsed(since) };
            fence(SeqCst);
            if since != CHARGING && self.run_since.load(Relaxed) == since {
                return total;
            }
            crate::arch::spin_hint();
        }
    }

    /// Begins to charge: answers `run_since`. To be called before the clock is read, so that nobody has seen later times.
    #[inline]
    pub(super) fn begin_charge(&self) -> u64 {
        let since = self.run_since.load(Relaxed);
        self.run_since.store(CHARGING, SeqCst);
        since
    }

    /// Moves the time since `from` to `ran`, and answers it. Readers never see it in both, nor in neither.
    #[inline]
    pub(super) fn charge(&self, from: u64, now: u64, since: u64) -> u64 {
        let ran = now.saturating_sub(from);
        self.ran.store(self.ran.load(Relaxed) + ran, Release);
        self.run_since.store(since, Release);
        ran
    }

    /// User and system time, which together never go back.
    pub fn times_ns(&self) -> (u64, u64) {
        let run = self.run_time_ns();
        let user = self.utime_ns().min(run);
        (user, run - user)
    }

    /// User time, up to now.
    pub fn utime_ns(&self) -> u64 {
        let running = match self.user_since.load(Relaxed) {
            0 => 0,
            since => hw::ticks().saturating_sub(since),
        };
        hw::ticks_to_ns(self.user.load(Relaxed) + running)
    }

    pub fn stime_ns(&self) -> u64 {
        self.times_ns().1
    }

    /// Times it gave the CPU up to wait.
    pub fn nvcsw(&self) -> u64 {
        self.voluntary.load(Relaxed)
    }

    /// Times the CPU was taken from it.
    pub fn nivcsw(&self) -> u64 {
        self.involuntary.load(Relaxed)
    }

    /// Will it wait soon after this wake, going by what it did before?
    pub(super) fn hands_over_soon(&self) -> bool {
        let distrust = self.distrust.load(Relaxed);
        if distrust > 0 {
            self.distrust.store(distrust - 1, Relaxed);
        }
        distrust == 0
    }

    pub(super) fn broke_hand_over(&self) {
        self.distrust.store(DISTRUST, Relaxed);
    }

    /// Real time to virtual time.
    pub(super) fn scale(&self, ns: u64) -> u64 {
        match u64::from(self.weight.load(Relaxed)) {
            UNIT => ns,
            weight => ns * UNIT / weight,
        }
    }
}

fn elapsed(start: u64) -> u64 {
    match start {
        0 | ASLEEP.. => 0,
        start => hw::now_ns().saturating_sub(start),
    }
}

const fn encode(policy: SchedPolicy) -> u16 {
    match policy {
        SchedPolicy::Other => 0,
        SchedPolicy::Fifo(priority) => 1 << 8 | priority as u16,
        SchedPolicy::Rr(priority) => 2 << 8 | priority as u16,
        SchedPolicy::Batch => 3 << 8,
        SchedPolicy::Idle => 5 << 8,
    }
}

const fn decode(policy: u16) -> SchedPolicy {
    match policy >> 8 {
        1 => SchedPolicy::Fifo(policy as u8),
        2 => SchedPolicy::Rr(policy as u8),
        3 => SchedPolicy::Batch,
        5 => SchedPolicy::Idle,
        _ => SchedPolicy::Other,
    }
}
