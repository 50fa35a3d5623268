//! Clocks and timers.

use super::{Row, row};
use crate::measure::{Bench, Result, now};
use crate::sys;

pub const ROWS: &[Row] = &[
    row("clock_gettime_vdso", clock_vdso),
    row("clock_gettime_syscall", clock_syscall),
    row("timer_arm_disarm", timer),
    row("nanosleep_overhead", nanosleep),
];

fn clock_vdso(bench: &Bench) -> Result<f64> {
    bench.per_operation(200_000, || {
        std::hint::black_box(now());
        Ok(())
    })
}

fn clock_syscall(bench: &Bench) -> Result<f64> {
    let mut time = [0u64; 2];
    let arguments = [libc::CLOCK_MONOTONIC as usize, time.as_mut_ptr() as usize];
    bench.per_operation(20_000, || sys::call("clock_gettime", libc::SYS_clock_gettime, arguments).map(drop))
}

/// An alarm in an hour that is called off: the cost of both calls.
fn timer(bench: &Bench) -> Result<f64> {
    let set = |seconds: i64| {
        let value = [0i64, 0, seconds, 0];
        sys::call("setitimer", libc::SYS_setitimer, [0, value.as_ptr() as usize, 0]).map(drop)
    };
    bench.per_operation(5_000, || {
        set(3600)?;
        set(0)
    })
}

/// How much longer than asked for a sleep of 100 µs lasts. The way into the sleep does not show
/// in it, only the way out.
fn nanosleep(bench: &Bench) -> Result<f64> {
    const ASKED: u64 = 100_000;
    // Timers that fire when they are due, and not up to 50 µs later.
    sys::call("prctl", libc::SYS_prctl, [libc::PR_SET_TIMERSLACK as usize, 1])?;
    let time = [0, ASKED];
    let arguments = [time.as_ptr() as usize, 0];
    let cost = bench.per_operation(200, || sys::call("nanosleep", libc::SYS_nanosleep, arguments).map(drop))?;
    Ok(cost - ASKED as f64)
}
