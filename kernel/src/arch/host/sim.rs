//! The state of the simulated machine, one per host thread, and the knobs that tests turn.

use super::irq::Hooks;
use crate::arch::{FpRegs, MAX_CPUS, Trap, UserRegs};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use std::cell::{Cell, RefCell};

/// INTID, function, argument.
type Handler = (u32, fn(usize), usize);
type UserCode = Box<dyn FnMut(&mut UserRegs) -> Trap>;

pub(super) struct State {
    pub cpu: usize,
    pub cpus: usize,
    pub now: u64,
    pub timers: [Option<u64>; MAX_CPUS],
    pub ipis: [bool; MAX_CPUS],
    pub raised: VecDeque<u32>,
    pub handlers: Vec<Handler>,
    pub hooks: Hooks,
    pub fp: [FpRegs; MAX_CPUS],
    /// User translation tables.
    pub roots: [u64; MAX_CPUS],
    /// How often each CPU has emptied its TLB.
    pub flushes: [usize; MAX_CPUS],
    pub user_code: Option<UserCode>,
}

const NO_FP: FpRegs = FpRegs { v: [0; 32], fpsr: 0, fpcr: 0 };

std::thread_local! {
    static STATE: RefCell<State> = const {
        RefCell::new(State {
            cpu: 0,
            cpus: 1,
            now: 0,
            timers: [None; MAX_CPUS],
            ipis: [false; MAX_CPUS],
            raised: VecDeque::new(),
            handlers: Vec::new(),
            hooks: Hooks { timer: || {}, ipi: || {} },
            fp: [NO_FP; MAX_CPUS],
            roots: [0; MAX_CPUS],
            flushes: [0; MAX_CPUS],
            user_code: None,
        })
    };
}

/// Plays all CPUs of a machine on one thread: it switches between them where the seam calls it, and counts time.
/// Without one a thread plays one CPU at a time, and time passes only in [`advance`] and [`wait`].
pub struct Driver {
    /// Another CPU may run now.
    pub switch_point: fn(),
    /// This CPU waits for something that another CPU does.
    pub spin: fn(),
    /// This CPU sleeps until an interrupt is pending.
    pub wait: fn(),
    /// Runs the current thread's user code until the next trap.
    pub enter_user: fn(&mut UserRegs) -> Trap,
    /// The boot console.
    pub console: fn(&[u8]),
}

std::thread_local! {
    static DRIVER: Cell<Option<&'static Driver>> = const { Cell::new(None) };
}

/// Puts the calling thread's machine into the hands of a driver.
pub fn set_driver(driver: &'static Driver) {
    DRIVER.set(Some(driver));
}

pub(super) fn driver() -> Option<&'static Driver> {
    DRIVER.get()
}

/// Where a driver may let another CPU run. Not to be called inside of [`with`].
#[inline]
pub fn switch_point() {
    if let Some(driver) = driver() {
        (driver.switch_point)();
    }
}

/// Relaxes a spin loop.
pub fn spin_hint() {
    match driver() {
        Some(driver) => (driver.spin)(),
        None => core::hint::spin_loop(),
    }
}

/// Not to be nested: `access` must not call anything of the seam.
pub(super) fn with<R>(access: impl FnOnce(&mut State) -> R) -> R {
    STATE.with_borrow_mut(access)
}

/// The running CPU, 0 … `cpu_count() - 1`.
pub fn cpu_id() -> usize {
    with(|state| state.cpu)
}

/// CPUs that are online.
pub fn cpu_count() -> usize {
    with(|state| state.cpus)
}

/// From now on this thread plays `cpu`, of which there are `count`.
pub fn set_cpu(cpu: usize, count: usize) {
    assert!(cpu < count && count <= MAX_CPUS);
    with(|state| (state.cpu, state.cpus) = (cpu, count));
}

/// How often each CPU has emptied its TLB.
pub fn flushes() -> [usize; MAX_CPUS] {
    with(|state| state.flushes)
}

/// Nanoseconds since boot, monotonic; they pass only in [`advance`] and [`wait`].
pub fn now_ns() -> u64 {
    with(|state| state.now)
}

/// The counter behind [`now_ns`], never 0.
pub fn ticks() -> u64 {
    now_ns() + 1
}

/// What [`now_ns`] was then.
pub fn ns_at(ticks: u64) -> u64 {
    ticks - 1
}

/// A difference of [`ticks`] in nanoseconds.
pub fn ticks_to_ns(ticks: u64) -> u64 {
    ticks
}

/// Lets time pass. Timers that expire are pending interrupts.
pub fn advance(ns: u64) {
    with(|state| state.now += ns);
}

/// Arms this CPU's one-shot timer (absolute, in `now_ns` units), or disarms it.
pub fn set_timer(deadline_ns: Option<u64>) {
    with(|state| state.timers[state.cpu] = deadline_ns);
}

/// What `cpu`'s timer is set to.
pub fn timer(cpu: usize) -> Option<u64> {
    with(|state| state.timers[cpu])
}

/// Makes a device interrupt pending.
pub fn raise(intid: u32) {
    with(|state| state.raised.push_back(intid));
}

/// Whether an interrupt is pending on the CPU that this thread plays.
pub fn is_pending() -> bool {
    with(|state| state.is_pending(state.cpu))
}

/// Whether an interrupt is pending on `cpu`. Those of devices are pending on all, until one services them.
pub fn is_pending_on(cpu: usize) -> bool {
    with(|state| state.is_pending(cpu))
}

impl State {
    fn timer_expired(&self, cpu: usize) -> bool {
        self.timers[cpu].is_some_and(|deadline| deadline <= self.now)
    }

    fn is_pending(&self, cpu: usize) -> bool {
        self.timer_expired(cpu) || self.ipis[cpu] || !self.raised.is_empty()
    }

    /// The next pending interrupt, acknowledged, as a call to make.
    fn take(&mut self) -> Option<(fn(usize), usize)> {
        if self.timer_expired(self.cpu) {
            self.timers[self.cpu] = None;
            return Some((|_| call_hook(|hooks| hooks.timer), 0));
        }
        if core::mem::take(&mut self.ipis[self.cpu]) {
            return Some((|_| call_hook(|hooks| hooks.ipi), 0));
        }
        let intid = self.raised.pop_front()?;
        let found = self.handlers.iter().find(|handler| handler.0 == intid);
        Some(found.map_or((|_| {}, 0), |&(_, handler, arg)| (handler, arg)))
    }
}

fn call_hook(which: fn(&Hooks) -> fn()) {
    let hook = with(|state| which(&state.hooks));
    hook();
}

/// Services every interrupt pending on this CPU, then returns.
pub fn service_pending() {
    switch_point();
    while let Some((call, arg)) = with(State::take) {
        call(arg);
    }
}

/// Sleeps until an interrupt is pending on this CPU: time jumps to its timer's deadline.
pub fn wait() {
    if let Some(driver) = driver() {
        return (driver.wait)();
    }
    with(|state| {
        if state.is_pending(state.cpu) {
            return;
        }
        match state.timers[state.cpu] {
            Some(deadline) => state.now = deadline,
            // Another host thread may play the CPU that will wake this one.
            None => std::thread::yield_now(),
        }
    });
}

/// Makes `cpu` call its `ipi` hook.
pub fn send_ipi(cpu: usize) {
    with(|state| state.ipis[cpu] = true);
    switch_point();
}

/// What user mode does on this thread: called by [`enter_user`] for each entry.
pub fn set_user_code(code: impl FnMut(&mut UserRegs) -> Trap + 'static) {
    with(|state| state.user_code = Some(Box::new(code)));
}

/// Runs user code until the next trap: here, one call of what [`set_user_code`] was given.
pub fn enter_user(regs: &mut UserRegs) -> Trap {
    if let Some(driver) = driver() {
        return (driver.enter_user)(regs);
    }
    let mut code = with(|state| state.user_code.take()).expect("no user code: see sim::set_user_code");
    let trap = code(regs);
    with(|state| {
        state.user_code.get_or_insert(code);
    });
    if trap == Trap::Interrupt {
        service_pending();
    }
    trap
}
