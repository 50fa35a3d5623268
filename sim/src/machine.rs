//! The machine: CPUs, clock, devices' events, and who runs when.
//!
//! Each simulated CPU is a coroutine that runs the kernel's loop (`exec::run_cpu`). Wherever the kernel passes a *switch
//! point* (around every spinlock, at every access to user memory, at inter-processor interrupts) the seed may decide that
//! another CPU goes on. So CPUs interleave in the middle of polls as they do on a real machine, but in one order that can be
//! repeated. Time passes a little at each point, and jumps when all CPUs sleep.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, Yielder};
use pollux_kernel::arch::{self, MAX_CPUS, sim};
use pollux_kernel::{boot, drivers, exec, fs, klog, mm, process, time};

use crate::rng::Rng;
use crate::trace::Trace;
use crate::user;

type Fiber = Coroutine<(), (), ()>;
type Event = Box<dyn FnOnce()>;

/// How a machine is made.
#[derive(Clone, Debug)]
pub struct Config {
    pub seed: u64,
    /// Switch points that may be passed before the run counts as endless.
    pub steps: u64,
    /// CPUs; 0: the seed chooses.
    pub cpus: usize,
    /// Memory in MiB.
    pub memory: u64,
    /// The trace is wanted even if all goes well.
    pub keep_trace: bool,
}

/// Who goes on at a switch point.
#[derive(Clone, Copy, Debug)]
enum Policy {
    /// Anybody, after one in so many points.
    Random { one_in: u64 },
    /// Always the CPU of the highest rank that can; now and then the running one is demoted.
    /// (Burckhardt et al., "A randomized scheduler with probabilistic guarantees of finding bugs".)
    Ranks { ranks: [u64; MAX_CPUS], demote_after: u64, next: u64 },
}

struct Machine {
    rng: Rng,
    trace: Trace,
    policy: Policy,
    cpus: usize,
    /// In WFI.
    asleep: [bool; MAX_CPUS],
    /// Waits in a spin loop; until another CPU has done something.
    spinning: [bool; MAX_CPUS],
    futile_spins: u64,
    /// What a switch point costs, ns, and how often there is a pause as under a busy hypervisor.
    tick: u64,
    pause_one_in: u64,
    points: u64,
    limit: u64,
    /// Device events by time and number.
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    /// When a user thread last did something.
    last_progress: u64,
    finished: bool,
    stopped: bool,
}

std::thread_local! {
    static MACHINE: RefCell<Option<Machine>> = const { RefCell::new(None) };
    /// Of the CPU whose coroutine runs; None while the machine itself does.
    static RUNNING: Cell<Option<usize>> = const { Cell::new(None) };
    static YIELDERS: Cell<[*const Yielder<(), ()>; MAX_CPUS]> = const { Cell::new([std::ptr::null(); MAX_CPUS]) };
}

/// What the kernel calls.
static DRIVER: sim::Driver = sim::Driver { switch_point, spin, wait, enter_user: user::enter_user, console };

/// Virtual time without a system call after which a run counts as stuck: longer than any sleep of a scenario.
const PATIENCE: u64 = 1_000_000_000_000;
const FUTILE: u64 = 100_000;
const STACK: usize = 4 << 20;

/// Not to be nested: `access` must not call what passes a switch point.
fn with<R>(access: impl FnOnce(&mut Machine) -> R) -> R {
    MACHINE.with_borrow_mut(|machine| access(machine.as_mut().expect("no machine")))
}

/// Adds a line to the trace.
pub fn trace(text: impl Into<String>) {
    let text = text.into();
    with(|m| m.trace.event(RUNNING.get(), text));
}

/// Adds a line that may be different next time, so it does not count.
pub fn note(text: impl Into<String>) {
    let text = text.into();
    with(|m| m.trace.note(RUNNING.get(), text));
}

/// All that is kept of the trace.
pub fn full_trace() -> String {
    with(|m| m.trace.tail(usize::MAX))
}

/// A number below `n` from the seed.
pub fn random(n: u64) -> u64 {
    with(|m| m.rng.below(n))
}

/// What a switch point costs, ns: a trip into the kernel is some dozen times that.
pub fn tick() -> u64 {
    with(|m| m.tick)
}

/// Random numbers of one's own, from the seed.
pub fn split_rng() -> Rng {
    with(|m| m.rng.split())
}

/// The run is lost: reports why, with the trace, and ends the process.
pub fn fail(why: impl AsRef<str>) -> ! {
    // From now on nothing else runs.
    RUNNING.set(None);
    let report = MACHINE.with(|machine| match machine.try_borrow_mut() {
        Ok(mut machine) => machine.as_mut().map(|m| (m.trace.hash(), m.points, std::mem::take(&mut m.trace))),
        Err(_) => None,
    });
    let (hash, points, trace) = report.unwrap_or_default();
    crate::run::report_failure(why.as_ref(), &user::describe_all(), hash, points, &trace)
}

/// Calls `event` at or after `delay` ns from now, on no CPU: it may only make interrupts pending.
pub fn after(delay: u64, event: impl FnOnce() + 'static) {
    let due = arch::now_ns() + delay;
    with(|m| {
        m.next_event += 1;
        m.events.insert((due, m.next_event), Box::new(event));
    });
}

/// A user thread has done something.
pub fn progress() {
    let now = arch::now_ns();
    with(|m| m.last_progress = now);
}

/// The run ends well as soon as the calling CPU gives way.
pub fn finish() {
    with(|m| m.finished = true);
}

/// Power goes: the run ends at once.
pub fn stop() {
    trace("power is cut");
    with(|m| (m.finished, m.stopped) = (true, true));
}

/// How a run that went well ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    pub hash: u64,
    pub points: u64,
    /// Virtual time, ns.
    pub time: u64,
    /// By [`stop`].
    pub stopped: bool,
}

/// Boots the kernel, calls `attach` for devices, and runs `init` as process 1 until [`finish`] or [`stop`].
pub fn run(config: &Config, attach: impl FnOnce(), init: user::Program) -> Outcome {
    let machine = Machine::new(config);
    let cpus = machine.cpus;
    let seed = config.seed;
    MACHINE.set(Some(machine));
    start_kernel(config, cpus, seed);
    attach();
    user::set_init(init);
    exec::spawn("init", user::bring_up());
    sim::set_driver(&DRIVER);
    let mut fibers: Vec<Fiber> = (0..cpus).map(fiber).collect();
    while let Some(cpu) = next_cpu() {
        sim::set_cpu(cpu, cpus);
        RUNNING.set(Some(cpu));
        fibers[cpu].resume(());
        RUNNING.set(None);
    }
    // Their stacks hold what the kernel will never give back.
    fibers.into_iter().for_each(std::mem::forget);
    let time = arch::now_ns();
    with(|m| Outcome { hash: m.trace.hash(), points: m.points, time, stopped: m.stopped })
}

/// What `boot::start` does, without devices.
fn start_kernel(config: &Config, cpus: usize, seed: u64) {
    sim::set_cpu(0, cpus);
    klog::init();
    let (usable, reserved) = arch::early_memory();
    let start = usable[0].start;
    let end = usable[0].end.min(start + (config.memory << 20));
    #[allow(clippy::single_range_in_vec_init, reason = "a list of ranges")]
    mm::init(&[start..end], reserved);
    klog::heap_ready();
    let line = boot::cmdline::init("norandmaps quiet");
    klog::set_console_level(line.log_level);
    time::init();
    drivers::random::init();
    drivers::random::mix(&seed.to_le_bytes());
    fs::init();
    exec::init();
    pollux_kernel::mm::page_cache::start_flushers();
    exec::spawn("unix-gc", pollux_kernel::net::rights::run());
    exec::set_fp_saver(process::fp::evict_owner);
    mm::set_shortage_relief(process::oom::end_somebody);
}

fn fiber(cpu: usize) -> Fiber {
    let stack = DefaultStack::new(STACK).expect("no memory for a stack");
    Coroutine::with_stack(stack, move |yielder: &Yielder<(), ()>, ()| {
        let mut yielders = YIELDERS.get();
        yielders[cpu] = yielder;
        YIELDERS.set(yielders);
        exec::run_cpu(cpu)
    })
}

/// Lets the machine choose who goes on.
fn suspend() {
    let Some(cpu) = RUNNING.get() else { return };
    let yielder = YIELDERS.get()[cpu];
    // SAFETY: `fiber` stored it when the coroutine started, which lives as long as the run, and it is this coroutine that
    // runs now.
    unsafe { (*yielder).suspend(()) };
}

/// Chooses the CPU that goes on; lets time pass if all sleep. None at the end of the run.
fn next_cpu() -> Option<usize> {
    loop {
        let (finished, due) = with(|m| (m.finished, m.take_due(arch::now_ns())));
        if finished {
            return None;
        }
        if !due.is_empty() {
            due.into_iter().for_each(|event| event());
            continue;
        }
        if let Some(cpu) = with(Machine::choose) {
            return Some(cpu);
        }
        sleep_on();
    }
}

/// All CPUs sleep: jumps to the next moment at which something happens.
fn sleep_on() {
    if exec::nr_running() > 0 {
        fail("a task waits for a CPU, and all CPUs sleep");
    }
    let (cpus, event, last) = with(|m| (m.cpus, m.events.keys().next().map(|key| key.0), m.last_progress));
    let timer = (0..cpus).filter_map(sim::timer).min();
    let Some(next) = timer.into_iter().chain(event).min() else {
        fail("deadlock: all CPUs sleep, and neither a timer nor a device will wake them");
    };
    let now = arch::now_ns();
    if next > last + PATIENCE {
        fail("deadlock: no user thread does anything any more");
    }
    sim::advance(next.saturating_sub(now));
}

impl Machine {
    fn new(config: &Config) -> Machine {
        let mut rng = Rng::new(config.seed ^ 0x706f_6c6c_7578);
        let chosen = *rng.pick(&[1, 2, 2, 2, 3, 4]);
        let cpus = if config.cpus == 0 { chosen } else { config.cpus };
        let policy = match rng.below(3) {
            0 => {
                let demote_after = *rng.pick(&[50, 500, 3000]);
                let next = rng.below(demote_after);
                Policy::Ranks { ranks: std::array::from_fn(|_| (1 << 32) + rng.below(1 << 32)), demote_after, next }
            }
            _ => Policy::Random { one_in: *rng.pick(&[3, 10, 50, 400]) },
        };
        Machine {
            policy,
            cpus,
            trace: Trace::default(),
            asleep: [false; MAX_CPUS],
            spinning: [false; MAX_CPUS],
            futile_spins: 0,
            tick: *rng.pick(&[15, 15, 100, 1000]),
            pause_one_in: *rng.pick(&[2000, 20_000, 1 << 40]),
            points: 0,
            limit: config.steps,
            events: BTreeMap::new(),
            next_event: 0,
            last_progress: 0,
            finished: false,
            stopped: false,
            rng,
        }
    }

    fn take_due(&mut self, now: u64) -> Vec<Event> {
        let mut due = Vec::new();
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= now) {
            due.push(entry.remove());
        }
        due
    }

    /// A CPU that can go on; one that waits in a spin loop only if there is no other.
    fn choose(&mut self) -> Option<usize> {
        let awake = |m: &Machine, cpu: usize| !m.asleep[cpu] || sim::is_pending_on(cpu);
        let mut able: Vec<usize> = (0..self.cpus).filter(|&cpu| awake(self, cpu) && !self.spinning[cpu]).collect();
        if able.is_empty() {
            able = (0..self.cpus).filter(|&cpu| awake(self, cpu)).collect();
        }
        let cpu = match &self.policy {
            _ if able.is_empty() => return None,
            Policy::Random { .. } => *self.rng.pick(&able),
            Policy::Ranks { ranks, .. } => able.iter().copied().max_by_key(|&cpu| ranks[cpu])?,
        };
        self.asleep[cpu] = false;
        self.trace.silent(self.points << 3 | cpu as u64);
        Some(cpu)
    }

    /// A switch point is passed. Answers how much time it takes, and whether another CPU should run.
    fn pass(&mut self, cpu: usize) -> (u64, bool) {
        self.points += 1;
        self.futile_spins = 0;
        for (other, spinning) in self.spinning.iter_mut().enumerate() {
            *spinning &= other == cpu;
        }
        let pause = if self.rng.one_in(self.pause_one_in) { self.rng.below(3_000_000) } else { 0 };
        let give_way = match &mut self.policy {
            Policy::Random { one_in } => self.rng.one_in(*one_in),
            Policy::Ranks { ranks, demote_after, next } => {
                let demote = self.points >= *next;
                if demote {
                    *next = self.points + self.rng.below(2 * *demote_after);
                    ranks[cpu] = (1 << 32) - self.points;
                }
                demote
            }
        };
        (self.tick + pause, give_way || self.finished)
    }
}

/// The kernel passes a point where another CPU may have come first.
pub fn switch_point() {
    let Some(cpu) = RUNNING.get() else { return };
    let (time, give_way) = with(|m| m.pass(cpu));
    sim::advance(time);
    if with(|m| m.points > m.limit) {
        fail("no end: the limit of steps was reached");
    }
    if give_way {
        suspend();
    }
}

fn spin() {
    let Some(cpu) = RUNNING.get() else { return std::hint::spin_loop() };
    let futile = with(|m| {
        m.spinning[cpu] = true;
        m.futile_spins += 1;
        m.futile_spins > FUTILE
    });
    if futile {
        fail("deadlock: all CPUs wait in spin loops");
    }
    suspend();
}

fn wait() {
    let Some(cpu) = RUNNING.get() else { return };
    while !sim::is_pending_on(cpu) {
        with(|m| m.asleep[cpu] = true);
        suspend();
    }
}

fn console(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).trim_end().to_string();
    trace(format!("console: {text}"));
}
