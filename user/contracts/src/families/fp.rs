//! FP and SIMD registers: each thread has its own, whatever others do and the kernel does with them.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use libc::*;

use crate::memory::shared_words;
use crate::process::{self, child, in_child, wait};
use crate::signal::handle;
use crate::sys::sys;
use crate::{say, tests};

tests! {
    over_switches, over_system_calls, over_moves, over_signals, of_a_child, of_a_new_thread, rare_use,
}

/// v0 to v31, FPCR and FPSR.
#[repr(C, align(16))]
#[derive(Clone, Copy, PartialEq, Eq)]
struct Registers {
    v: [u128; 32],
    control: u64,
    status: u64,
}

/// Round towards zero, default NaN: bits of FPCR that any CPU has.
const CONTROL: u64 = 3 << 22 | 1 << 25;
/// Inexact, invalid.
const STATUS: u64 = 1 << 4 | 1;

fn pattern(seed: u64) -> Registers {
    let word = |at: u64| u128::from(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at << 8) * 0x1_0000_0000_0000_0001;
    Registers { v: std::array::from_fn(|at| word(at as u64)), control: CONTROL, status: STATUS }
}

/// Loads the registers, makes a system call with one argument `count` times, and answers what is in the registers then.
#[cfg(target_arch = "aarch64")]
#[inline(never)]
fn keep(start: &Registers, number: i64, argument: u64, count: u64) -> Registers {
    let mut end = Registers { v: [0; 32], control: 0, status: 0 };
    // SAFETY: all registers are given up; both structures have room for them.
    unsafe {
        std::arch::asm!(
            "mrs x13, fpcr", "mrs x14, fpsr",
            "mov x10, x9",
            "ldp q0, q1, [x10], #32", "ldp q2, q3, [x10], #32", "ldp q4, q5, [x10], #32", "ldp q6, q7, [x10], #32",
            "ldp q8, q9, [x10], #32", "ldp q10, q11, [x10], #32", "ldp q12, q13, [x10], #32", "ldp q14, q15, [x10], #32",
            "ldp q16, q17, [x10], #32", "ldp q18, q19, [x10], #32", "ldp q20, q21, [x10], #32", "ldp q22, q23, [x10], #32",
            "ldp q24, q25, [x10], #32", "ldp q26, q27, [x10], #32", "ldp q28, q29, [x10], #32", "ldp q30, q31, [x10], #32",
            "ldp x15, x16, [x10]", "msr fpcr, x15", "msr fpsr, x16",
            "2: cbz x11, 3f",
            "mov x0, x17", "mov x1, xzr", "mov x2, xzr", "mov x3, xzr", "mov x4, xzr",
            "svc #0",
            "sub x11, x11, #1",
            "b 2b",
            "3: mov x10, x12",
            "stp q0, q1, [x10], #32", "stp q2, q3, [x10], #32", "stp q4, q5, [x10], #32", "stp q6, q7, [x10], #32",
            "stp q8, q9, [x10], #32", "stp q10, q11, [x10], #32", "stp q12, q13, [x10], #32", "stp q14, q15, [x10], #32",
            "stp q16, q17, [x10], #32", "stp q18, q19, [x10], #32", "stp q20, q21, [x10], #32", "stp q22, q23, [x10], #32",
            "stp q24, q25, [x10], #32", "stp q26, q27, [x10], #32", "stp q28, q29, [x10], #32", "stp q30, q31, [x10], #32",
            "mrs x15, fpcr", "mrs x16, fpsr", "stp x15, x16, [x10]",
            "msr fpcr, x13", "msr fpsr, x14",
            in("x8") number, in("x17") argument, in("x9") start, in("x12") &mut end, inout("x11") count => _,
            out("x0") _, out("x1") _, out("x2") _, out("x3") _, out("x4") _, out("x10") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
            out("v8") _, out("v9") _, out("v10") _, out("v11") _, out("v12") _, out("v13") _, out("v14") _, out("v15") _,
            out("v16") _, out("v17") _, out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            out("v24") _, out("v25") _, out("v26") _, out("v27") _, out("v28") _, out("v29") _, out("v30") _, out("v31") _,
        );
    }
    end
}

#[cfg(not(target_arch = "aarch64"))]
fn keep(start: &Registers, _: i64, _: u64, _: u64) -> Registers {
    *start
}

/// Whether registers with this content survive so many calls.
fn kept(seed: u64, number: i64, argument: u64, count: u64) -> bool {
    let start = pattern(seed);
    keep(&start, number, argument, count) == start
}

fn over_switches() {
    let children: Vec<_> = (0..4)
        .map(|seed| child(move || i32::from(!(0..50).all(|round| kept(seed * 100 + round, SYS_sched_yield, 0, 20)))))
        .collect();
    for pid in children {
        say!("{}", wait(pid));
    }
    let threads: Vec<_> = (0..4)
        .map(|seed| std::thread::spawn(move || (0..50).all(|round| kept(seed * 100 + round, SYS_sched_yield, 0, 20))))
        .collect();
    for thread in threads {
        say!("{:?}", thread.join().ok());
    }
}

fn over_system_calls() {
    say!("getpid: {}", kept(1, SYS_getpid, 0, 10));
    say!("unknown: {}", kept(2, 1000, 0, 10));
    let time = timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    say!("nanosleep: {}", kept(3, SYS_nanosleep, &raw const time as u64, 5));
}

fn over_moves() {
    let stop: &'static AtomicU32 = &shared_words()[0];
    let watched = child(|| {
        let mut good = true;
        let mut round = 0;
        while stop.load(SeqCst) == 0 || round < 10 {
            round += 1;
            good &= kept(round, SYS_sched_yield, 0, 100);
        }
        i32::from(!good)
    });
    let other = child(|| {
        while stop.load(SeqCst) == 0 {
            kept(77, SYS_sched_yield, 0, 100);
        }
        0
    });
    for turn in 0..40u64 {
        // As many CPUs as there are: a set without one of them is refused.
        let mask: u64 = 1 << (turn % 4);
        sys!(SYS_sched_setaffinity, watched, 8, &raw const mask);
        process::sleep_ms(1);
    }
    stop.store(1, SeqCst);
    say!("the one that moved: {}", wait(watched));
    say!("the other: {}", wait(other));
}

extern "C" fn spoil(_: i32, _: *const siginfo_t, _: *mut c_void) {
    kept(0xdead, SYS_getpid, 0, 1);
}

fn over_signals() {
    let status = in_child(|| {
        handle(SIGALRM, spoil, 0);
        let good = (0..20).all(|round| {
            let start = pattern(round);
            let timer = itimerval {
                it_interval: timeval { tv_sec: 0, tv_usec: 0 },
                it_value: timeval { tv_sec: 0, tv_usec: 500 },
            };
            sys!(SYS_setitimer, ITIMER_REAL, &raw const timer, 0);
            let time = timespec { tv_sec: 0, tv_nsec: 2_000_000 };
            keep(&start, SYS_nanosleep, &raw const time as u64, 1) == start
        });
        i32::from(!good)
    });
    say!("{status}");
}

fn of_a_child() {
    // clone(SIGCHLD): the child's registers are those that the parent had at the call.
    let start = pattern(5);
    let before = process::pid();
    let end = keep(&start, SYS_clone, SIGCHLD as u64, 1);
    if process::pid() != before {
        process::exit(i32::from(end != start));
    }
    say!("the parent's: {}", end == start);
    say!("the child's: {}", wait(-1));
}

fn of_a_new_thread() {
    say!("used before: {}", kept(9, SYS_getpid, 0, 1));
    let inside = std::thread::spawn(|| (kept(10, SYS_sched_yield, 0, 30), kept(11, SYS_gettid, 0, 3))).join();
    say!("in the thread: {:?}", inside.ok());
    say!("used after: {}", kept(12, SYS_getpid, 0, 1));
}

/// Turns without an FP instruction between turns with some, in competition with somebody who uses them always.
fn rare_use() {
    let stop: &'static AtomicU32 = &shared_words()[0];
    let rival = child(|| {
        while stop.load(SeqCst) == 0 {
            kept(3, SYS_sched_yield, 0, 3);
        }
        0
    });
    let good = (1..60).all(|round| {
        let start = pattern(round);
        keep(&start, SYS_sched_yield, 0, round) == start
    });
    stop.store(1, SeqCst);
    say!("kept: {good}");
    say!("the rival: {}", wait(rival));
}
