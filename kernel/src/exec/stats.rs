//! What CPUs did with their time, and the load average (proc(5): stat, loadavg).

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use core::time::Duration;

use super::cpu;
use super::hw;
use super::instant::Instant;
use super::timer::sleep_until;

/// A CPU's counters since boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CpuStats {
    pub user_ns: u64,
    pub system_ns: u64,
    pub idle_ns: u64,
    /// Polls of tasks.
    pub switches: u64,
    /// IPIs and timer interrupts.
    pub ipis: u64,
    pub timer_irqs: u64,
}

/// Written by their own CPU. The `since` fields are 0 when nothing of the kind is going on. User time is in ticks, the
/// others in ns: it is counted twice per system call, and what a conversion costs would show.
pub(super) struct Counters {
    busy: AtomicU64,
    user: AtomicU64,
    idle: AtomicU64,
    switches: AtomicU64,
    pub(super) ipis: AtomicU64,
    pub(super) timer_irqs: AtomicU64,
    busy_since: AtomicU64,
    user_since: AtomicU64,
    idle_since: AtomicU64,
}

fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Relaxed) + n, Relaxed);
}

fn since(start: &AtomicU64, now: u64) -> u64 {
    match start.load(Relaxed) {
        0 => 0,
        start => now.saturating_sub(start),
    }
}

impl Counters {
    pub(super) const fn new() -> Self {
        Counters {
            busy: AtomicU64::new(0),
            user: AtomicU64::new(0),
            idle: AtomicU64::new(0),
            switches: AtomicU64::new(0),
            ipis: AtomicU64::new(0),
            timer_irqs: AtomicU64::new(0),
            busy_since: AtomicU64::new(0),
            user_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(super) fn begin(&self, now: u64) {
        self.busy_since.store(now, Relaxed);
        add(&self.switches, 1);
    }

    #[inline]
    pub(super) fn charge(&self, ran: u64, now: u64) {
        add(&self.busy, ran);
        self.busy_since.store(now, Relaxed);
    }

    #[inline]
    pub(super) fn end(&self) {
        self.busy_since.store(0, Relaxed);
    }

    #[inline]
    pub(super) fn user_begin(&self, ticks: u64) {
        self.user_since.store(ticks, Relaxed);
    }

    /// Answers how many ticks it took.
    #[inline]
    pub(super) fn user_end(&self, ticks: u64) -> u64 {
        let ran = ticks.wrapping_sub(self.user_since.load(Relaxed));
        self.user_since.store(0, Relaxed);
        add(&self.user, ran);
        ran
    }

    /// The CPU runs user code: who wakes now is an interrupt handler.
    #[inline]
    pub(super) fn in_user(&self) -> bool {
        self.user_since.load(Relaxed) != 0
    }

    pub(super) fn idle_begin(&self, now: u64) {
        self.idle_since.store(now, Relaxed);
    }

    pub(super) fn idle_end(&self, now: u64) {
        add(&self.idle, since(&self.idle_since, now));
        self.idle_since.store(0, Relaxed);
    }

    pub(super) fn ipi(&self) {
        add(&self.ipis, 1);
    }

    pub(super) fn timer_irq(&self) {
        add(&self.timer_irqs, 1);
    }
}

/// What a CPU did since boot, up to now.
pub fn cpu_stats(cpu: usize) -> CpuStats {
    if cpu >= hw::cpu_count() {
        return CpuStats::default();
    }
    let (counters, now) = (&cpu::on(cpu).counters, hw::now_ns());
    let busy = counters.busy.load(Relaxed) + since(&counters.busy_since, now);
    let user = hw::ticks_to_ns(counters.user.load(Relaxed) + since(&counters.user_since, hw::ticks()));
    CpuStats {
        user_ns: user,
        system_ns: busy.saturating_sub(user),
        idle_ns: counters.idle.load(Relaxed) + since(&counters.idle_since, now),
        switches: counters.switches.load(Relaxed),
        ipis: counters.ipis.load(Relaxed),
        timer_irqs: counters.timer_irqs.load(Relaxed),
    }
}

/// Tasks that run or wait for a CPU.
#[inline]
pub fn nr_running() -> usize {
    cpu::all().map(cpu::Cpu::runnable).sum()
}

/// Fraction bits of [`load_average`], as in sysinfo(2).
pub const LOAD_SHIFT: u32 = 16;
const ONE: u64 = 1 << LOAD_SHIFT;
const PERIOD: Duration = Duration::from_secs(5);
/// e^(−5 s / 1, 5, 15 min), times `ONE`.
const DECAY: [u64; 3] = [60297, 64453, 65173];

static LOAD: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// Load averages over 1, 5 and 15 minutes with [`LOAD_SHIFT`] fraction bits.
pub fn load_average() -> [u64; 3] {
    [LOAD[0].load(Relaxed), LOAD[1].load(Relaxed), LOAD[2].load(Relaxed)]
}

pub(super) fn init() {
    super::spawn("loadavg", async {
        let mut at = Instant::now();
        loop {
            at = at.saturating_add(PERIOD);
            sleep_until(at).await;
            // This task itself runs now and does not count.
            sample(nr_running().saturating_sub(1) as u64);
        }
    });
}

fn sample(running: u64) {
    for (load, decay) in LOAD.iter().zip(DECAY) {
        let value = (load.load(Relaxed) * decay + running * ONE * (ONE - decay)) >> LOAD_SHIFT;
        load.store(value, Relaxed);
    }
}
