//! Driving futures in host tests.
//!
//! Every test thread has a machine of its own (`crate::arch`'s), with one CPU (see [`set_cpus`] for more) and a virtual clock
//! that stands still while tasks run. [`block_on`] and [`run_until_idle`] run its tasks on the calling thread.

use alloc::sync::Arc;
use core::future::Future;
use core::time::Duration;
use std::sync::Mutex;

use super::cpu;
use super::spawn;
use crate::arch;

/// Polls tasks until all of them wait. Virtual time does not pass: timers that are due now fire.
pub fn run_until_idle() {
    init();
    loop {
        let mut busy = false;
        for id in 0..machine::cpu_count() {
            arch::sim::set_cpu(id, arch::cpu_count());
            let cpu = cpu::on(id);
            cpu.go_online();
            machine::irq::service_pending();
            while cpu.run_next() {
                busy = true;
                machine::irq::service_pending();
            }
            // It stays idle, for others to see, until its next turn.
            busy |= !cpu.idle_enter();
        }
        for id in 0..machine::cpu_count() {
            arch::sim::set_cpu(id, arch::cpu_count());
            busy |= machine::irq::is_pending();
            cpu::on(id).idle_leave();
        }
        arch::sim::set_cpu(0, arch::cpu_count());
        if !busy {
            return;
        }
    }
}

/// Lets virtual time pass, timer by timer.
pub fn advance(by: Duration) {
    let end = machine::now_ns() + by.as_nanos() as u64;
    run_until_idle();
    while let Some(next) = machine::next_timer().filter(|next| *next <= end) {
        machine::set_clock(next);
        run_until_idle();
    }
    machine::set_clock(end);
    run_until_idle();
}

/// Runs a future as a task of its own, together with all others, until it ends. Virtual time passes when all tasks wait.
pub fn block_on<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let result = Arc::new(Mutex::new(None));
    let slot = result.clone();
    spawn("test", async move {
        let value = future.await;
        *slot.lock().unwrap() = Some(value);
    });
    let mut patience = PATIENCE;
    loop {
        run_until_idle();
        if let Some(value) = result.lock().unwrap().take() {
            return value;
        }
        match machine::next_timer() {
            Some(next) => {
                machine::set_clock(next);
                patience = PATIENCE;
            }
            // What the kernel has only one of may be in the hands of a test on another thread.
            None if patience > 0 => {
                patience -= 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            None => panic!("deadlock: all tasks wait, and no timer is armed"),
        }
    }
}

/// For how many milliseconds nothing at all may happen.
const PATIENCE: u32 = 5000;

fn init() {
    use arch::irq::{Hooks, set_hooks};
    set_hooks(Hooks { timer: || cpu::this().on_timer(), ipi: || cpu::this().on_ipi() });
}

/// How many CPUs the calling thread's machine has.
pub fn set_cpus(count: usize) {
    arch::sim::set_cpu(0, count);
    (0..count).for_each(|id| cpu::on(id).go_online());
}

/// The machine as the executor's tests see it: the thread's own one of [`crate::arch`], or one that several threads
/// share, each playing a CPU.
pub mod machine {
    use crate::arch::{self, MAX_CPUS};
    use crate::exec::cpu::{self, Exec};
    use core::cell::Cell;
    use core::sync::atomic::Ordering::SeqCst;
    use core::sync::atomic::{AtomicBool, AtomicU64};
    use std::sync::{Condvar, Mutex};
    use std::time::Instant;

    /// How time passes on a shared machine.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub enum Clock {
        /// One virtual clock per CPU; only the CPU whose clock is the most behind runs.
        Lockstep,
        /// All in parallel, in real time.
        Real,
    }

    pub struct Machine {
        clock: Clock,
        cpus: usize,
        now: [AtomicU64; MAX_CPUS],
        timer: [AtomicU64; MAX_CPUS],
        ipi: [AtomicBool; MAX_CPUS],
        boot: Instant,
        /// When its threads end.
        end: AtomicU64,
        /// Lockstep: whose turn it is.
        turn: Mutex<usize>,
        turned: Condvar,
    }

    std::thread_local! {
        static MACHINE: Cell<Option<&'static Machine>> = const { Cell::new(None) };
    }

    /// Real time passes slower for Miri, which is that slow itself.
    const SLOWER: u64 = if cfg!(miri) { 2000 } else { 1 };

    /// What a poll costs in virtual time.
    const POLL: u64 = 500;
    /// How far the clocks of CPUs may drift apart.
    const DRIFT: u64 = 20_000;

    /// Runs a machine until its clock says `end` (ns) or `stop_early`. `setup` runs on CPU 0 before the executors start.
    pub fn run(clock: Clock, cpus: usize, end: u64, setup: impl FnOnce()) {
        let machine: &'static Machine = std::boxed::Box::leak(std::boxed::Box::new(Machine {
            clock,
            cpus,
            now: [const { AtomicU64::new(1) }; MAX_CPUS],
            timer: [const { AtomicU64::new(u64::MAX) }; MAX_CPUS],
            ipi: [const { AtomicBool::new(false) }; MAX_CPUS],
            boot: Instant::now(),
            end: AtomicU64::new(end),
            turn: Mutex::new(0),
            turned: Condvar::new(),
        }));
        let exec = cpu::exec();
        machine.adopt(0);
        (0..cpus).for_each(|id| cpu::on(id).go_online());
        setup();
        std::thread::scope(|scope| {
            for id in 1..cpus {
                scope.spawn(move || {
                    exec.adopt();
                    machine.adopt(id);
                    machine.run_cpu();
                });
            }
            machine.run_cpu();
        });
        MACHINE.set(None);
        arch::sim::set_cpu(0, 1);
        let _: &Exec = exec;
    }

    /// Ends [`run`].
    pub fn stop_early() {
        if let Some(machine) = MACHINE.get() {
            machine.end.store(0, SeqCst);
        }
    }

    /// The run is over: tasks that never wait have to look.
    pub fn is_over() -> bool {
        MACHINE.get().is_some_and(|machine| now_ns() >= machine.end.load(SeqCst))
    }

    impl Machine {
        fn adopt(&'static self, cpu: usize) {
            MACHINE.set(Some(self));
            arch::sim::set_cpu(cpu, self.cpus);
        }

        fn run_cpu(&self) {
            let cpu = cpu::this();
            // A test that fails on one CPU ends the others.
            let _guard = scopeguard::guard((), |()| {
                if std::thread::panicking() {
                    self.end.store(0, SeqCst);
                    self.turned.notify_all();
                }
            });
            self.await_turn();
            while !is_over() {
                irq::service_pending();
                if cpu.run_next() {
                    self.pass(POLL);
                } else {
                    if cpu.idle_enter() {
                        irq::wait();
                    }
                    cpu.idle_leave();
                }
            }
            self.now[cpu.id()].store(u64::MAX, SeqCst);
            self.pass_turn_to_last();
        }

        /// Virtual time passes on this CPU.
        fn pass(&self, ns: u64) {
            let now = &self.now[cpu_id()];
            now.store(now.load(SeqCst).saturating_add(ns), SeqCst);
            let behind = (0..self.cpus).map(|cpu| self.now[cpu].load(SeqCst)).min().unwrap_or(0);
            if self.clock == Clock::Lockstep && now.load(SeqCst) > behind + DRIFT {
                self.pass_turn_to_last();
                self.await_turn();
            }
        }

        fn pass_turn_to_last(&self) {
            let next = (0..self.cpus).min_by_key(|cpu| self.now[*cpu].load(SeqCst)).unwrap_or(0);
            *self.turn.lock().unwrap() = next;
            self.turned.notify_all();
        }

        fn await_turn(&self) {
            if self.clock == Clock::Lockstep {
                let turn = self.turn.lock().unwrap();
                drop(self.turned.wait_while(turn, |turn| *turn != cpu_id() && self.end.load(SeqCst) != 0).unwrap());
            }
        }
    }

    /// User code works for up to `ns`; an interrupt ends it early, and is serviced. Answers how long it worked.
    pub fn work(ns: u64) -> u64 {
        let begin = now_ns();
        let end = begin.saturating_add(ns);
        while !irq::is_pending() && now_ns() < end && !is_over() {
            let step = (end - now_ns()).min(DRIFT / 2);
            match MACHINE.get() {
                None => arch::sim::advance(step),
                Some(machine) if machine.clock == Clock::Lockstep => {
                    machine.pass(step.min(machine.timer[cpu_id()].load(SeqCst) - now_ns()))
                }
                Some(_) => core::hint::spin_loop(),
            }
        }
        let worked = now_ns() - begin;
        irq::service_pending();
        worked
    }

    /// The first timer of the thread's own machine.
    pub fn next_timer() -> Option<u64> {
        (0..MAX_CPUS).filter_map(arch::sim::timer).min()
    }

    pub fn set_clock(now: u64) {
        arch::sim::advance(now.saturating_sub(arch::now_ns()));
    }

    pub fn cpu_id() -> usize {
        arch::cpu_id()
    }

    pub fn cpu_count() -> usize {
        arch::cpu_count()
    }

    pub fn now_ns() -> u64 {
        match MACHINE.get() {
            None => arch::now_ns(),
            Some(machine) if machine.clock == Clock::Real => machine.boot.elapsed().as_nanos() as u64 / SLOWER + 1,
            Some(machine) => machine.now[cpu_id()].load(SeqCst),
        }
    }

    pub fn ticks() -> u64 {
        now_ns() + 1
    }

    pub fn ns_at(ticks: u64) -> u64 {
        ticks - 1
    }

    pub fn ticks_to_ns(ticks: u64) -> u64 {
        ticks
    }

    pub fn set_timer(deadline: Option<u64>) {
        match MACHINE.get() {
            None => arch::set_timer(deadline),
            Some(machine) => machine.timer[cpu_id()].store(deadline.unwrap_or(u64::MAX), SeqCst),
        }
    }

    pub mod irq {
        use super::*;
        pub use crate::arch::irq::{Hooks, set_hooks};

        pub fn is_pending() -> bool {
            let Some(machine) = MACHINE.get() else { return arch::irq::is_pending() };
            machine.ipi[cpu_id()].load(SeqCst) || machine.timer[cpu_id()].load(SeqCst) <= now_ns()
        }

        pub fn service_pending() {
            let Some(machine) = MACHINE.get() else { return arch::irq::service_pending() };
            let (cpu, timer) = (cpu_id(), &machine.timer[cpu_id()]);
            if machine.ipi[cpu].swap(false, SeqCst) {
                cpu::this().on_ipi();
            }
            if timer.load(SeqCst) <= now_ns() {
                timer.store(u64::MAX, SeqCst);
                cpu::this().on_timer();
            }
        }

        /// WFI, on a thread of its own.
        pub fn wait() {
            let Some(machine) = MACHINE.get() else { return };
            while !is_pending() && !is_over() {
                match machine.clock {
                    Clock::Lockstep => machine.pass(DRIFT / 2),
                    Clock::Real => std::thread::yield_now(),
                }
            }
        }

        pub fn send_ipi(cpu: usize) {
            match MACHINE.get() {
                None => arch::irq::send_ipi(cpu),
                Some(machine) => machine.ipi[cpu].store(true, SeqCst),
            }
        }
    }
}
