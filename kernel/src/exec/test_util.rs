//! Driving futures in host tests.
//!
//! Every test thread has a machine of its own, with one CPU (see [`set_cpus`] for more) and a virtual clock that stands still
//! while tasks run. [`block_on`] and [`run_until_idle`] run its tasks on the calling thread.

use alloc::sync::Arc;
use core::future::Future;
use core::time::Duration;
use std::sync::Mutex;

use super::cpu;
use super::spawn;

/// Polls tasks until all of them wait. Virtual time does not pass: timers that are due now fire.
pub fn run_until_idle() {
    loop {
        let mut busy = false;
        for id in 0..machine::cpu_count() {
            machine::set_cpu(id);
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
            machine::set_cpu(id);
            busy |= machine::irq::is_pending();
            cpu::on(id).idle_leave();
        }
        machine::set_cpu(0);
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
    loop {
        run_until_idle();
        if let Some(value) = result.lock().unwrap().take() {
            return value;
        }
        let next = machine::next_timer().expect("deadlock: all tasks wait, and no timer is armed");
        machine::set_clock(next);
    }
}

/// How many CPUs the calling thread's machine has.
pub fn set_cpus(count: usize) {
    machine::set_cpu_count(count);
}

/// The simulated hardware.
pub mod machine {
    use crate::arch::MAX_CPUS;
    use crate::exec::cpu;
    use core::cell::Cell;
    use core::sync::atomic::Ordering::SeqCst;
    use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
    use std::sync::{Condvar, Mutex};
    use std::time::Instant;

    /// How time passes.
    #[derive(Clone, Copy, PartialEq, Eq)]
    pub enum Clock {
        /// Only when a test says so. All CPUs on one thread, one clock.
        Virtual,
        /// One thread and one clock per CPU; only the CPU whose clock is the most behind runs.
        Lockstep,
        /// One thread per CPU, all in parallel, in real time.
        Real,
    }

    pub struct Machine {
        pub clock: Clock,
        cpus: AtomicUsize,
        now: [AtomicU64; MAX_CPUS],
        timer: [AtomicU64; MAX_CPUS],
        ipi: [AtomicBool; MAX_CPUS],
        boot: Instant,
        /// Lockstep: whose turn it is.
        turn: Mutex<usize>,
        turned: Condvar,
        pub stop: AtomicBool,
    }

    std::thread_local! {
        static MACHINE: Cell<Option<&'static Machine>> = const { Cell::new(None) };
        static CPU: Cell<usize> = const { Cell::new(0) };
    }

    impl Machine {
        pub fn new(clock: Clock, cpus: usize) -> &'static Self {
            std::boxed::Box::leak(std::boxed::Box::new(Machine {
                clock,
                cpus: AtomicUsize::new(cpus),
                now: [const { AtomicU64::new(1_000_000) }; MAX_CPUS],
                timer: [const { AtomicU64::new(u64::MAX) }; MAX_CPUS],
                ipi: [const { AtomicBool::new(false) }; MAX_CPUS],
                boot: Instant::now(),
                turn: Mutex::new(0),
                turned: Condvar::new(),
                stop: AtomicBool::new(false),
            }))
        }

        /// Makes the calling thread a CPU of this machine.
        pub fn adopt(&'static self, cpu: usize) {
            MACHINE.set(Some(self));
            CPU.set(cpu);
        }

        fn furthest_behind(&self) -> usize {
            (0..self.cpus.load(SeqCst)).min_by_key(|cpu| self.now[*cpu].load(SeqCst)).unwrap()
        }

        /// Lockstep: gives the turn to the CPU that is the most behind, and waits for it to come back.
        pub fn pass_turn(&self) {
            let next = self.furthest_behind();
            let mut turn = self.turn.lock().unwrap();
            *turn = next;
            self.turned.notify_all();
            while *turn != cpu_id() && !self.stop.load(SeqCst) {
                turn = self.turned.wait(turn).unwrap();
            }
        }

        pub fn halt(&self) {
            self.stop.store(true, SeqCst);
            let _turn = self.turn.lock().unwrap();
            self.turned.notify_all();
        }
    }

    pub fn machine() -> &'static Machine {
        MACHINE.get().unwrap_or_else(|| {
            let machine = Machine::new(Clock::Virtual, 1);
            MACHINE.set(Some(machine));
            machine
        })
    }

    pub fn set_cpu(cpu: usize) {
        CPU.set(cpu);
    }

    pub fn set_cpu_count(count: usize) {
        machine().cpus.store(count, SeqCst);
    }

    pub fn set_clock(now: u64) {
        machine().now.iter().for_each(|clock| clock.store(now, SeqCst));
    }

    pub fn next_timer() -> Option<u64> {
        machine().timer.iter().map(|timer| timer.load(SeqCst)).min().filter(|timer| *timer != u64::MAX)
    }

    /// The CPU works for up to `ns`; ends early when an interrupt comes. Answers how long it worked.
    pub fn work(ns: u64) -> u64 {
        let (machine, cpu) = (machine(), cpu_id());
        let begin = now_ns();
        while !irq::is_pending() && now_ns() < begin + ns && !machine.stop.load(SeqCst) {
            match machine.clock {
                Clock::Real => core::hint::spin_loop(),
                _ => {
                    let step = (begin + ns).min(machine.timer[cpu].load(SeqCst)).min(now_ns() + 20_000);
                    machine.now[cpu].store(step, SeqCst);
                }
            }
            if machine.clock == Clock::Lockstep {
                machine.pass_turn();
            }
        }
        let worked = now_ns() - begin;
        irq::service_pending();
        worked
    }

    pub fn cpu_id() -> usize {
        CPU.get()
    }

    pub fn cpu_count() -> usize {
        machine().cpus.load(SeqCst)
    }

    pub fn now_ns() -> u64 {
        let machine = machine();
        match machine.clock {
            Clock::Real => machine.boot.elapsed().as_nanos() as u64,
            _ => machine.now[cpu_id()].load(SeqCst),
        }
    }

    pub fn set_timer(deadline: Option<u64>) {
        machine().timer[cpu_id()].store(deadline.unwrap_or(u64::MAX), SeqCst);
    }

    pub mod irq {
        use super::*;
        pub use crate::arch::irq::Hooks;

        pub fn set_hooks(_: Hooks) {}

        pub fn is_pending() -> bool {
            let (machine, cpu) = (machine(), cpu_id());
            machine.ipi[cpu].load(SeqCst) || machine.timer[cpu].load(SeqCst) <= now_ns()
        }

        pub fn service_pending() {
            let (machine, cpu) = (machine(), cpu_id());
            if machine.ipi[cpu].swap(false, SeqCst) {
                cpu::this().on_ipi();
            }
            if machine.timer[cpu].load(SeqCst) <= now_ns() {
                machine.timer[cpu].store(u64::MAX, SeqCst);
                cpu::this().on_timer();
            }
        }

        /// WFI, on a thread of its own.
        pub fn wait() {
            let (machine, cpu) = (machine(), cpu_id());
            while !is_pending() && !machine.stop.load(SeqCst) {
                if machine.clock == Clock::Lockstep {
                    machine.now[cpu].fetch_add(5_000, SeqCst);
                    machine.pass_turn();
                } else {
                    std::thread::yield_now();
                }
            }
        }

        pub fn send_ipi(cpu: usize) {
            let machine = machine();
            machine.ipi[cpu].store(true, SeqCst);
        }
    }
}
