//! The generic timer: the virtual counter as clock, the virtual timer (one per CPU) for deadlines.
//! Virtual works at EL1 whether or not we were entered at EL2 (`boot.s` clears CNTVOFF_EL2).

use super::irq;
use aarch64_cpu::registers::*;
use core::sync::atomic::{AtomicU64, Ordering};

/// What it takes to turn counter values into nanoseconds, here and in the vDSO:
/// `ns = ((cntvct - base) as u128 * mult as u128) >> shift`.
#[derive(Clone, Copy, Debug)]
pub struct ClockParams {
    pub base: u64,
    pub mult: u64,
    pub shift: u32,
    /// Of the counter, in Hz.
    pub frequency: u64,
}

const SHIFT: u32 = 32;
const NANOS: u128 = 1_000_000_000;

static BASE: AtomicU64 = AtomicU64::new(0);
/// Nanoseconds per tick, times 2^32.
static MULT: AtomicU64 = AtomicU64::new(0);
/// Ticks per nanosecond, times 2^32, rounded up: a deadline is never early.
static INVERSE: AtomicU64 = AtomicU64::new(0);

pub fn init(epoch: u64) {
    let frequency = (CNTFRQ_EL0.get() as u128).max(1);
    BASE.store(epoch, Ordering::Relaxed);
    MULT.store(((NANOS << SHIFT) / frequency) as u64, Ordering::Relaxed);
    INVERSE.store((frequency << SHIFT).div_ceil(NANOS) as u64, Ordering::Relaxed);
}

pub fn clock_params() -> ClockParams {
    ClockParams {
        base: BASE.load(Ordering::Relaxed),
        mult: MULT.load(Ordering::Relaxed),
        shift: SHIFT,
        frequency: CNTFRQ_EL0.get(),
    }
}

/// Nanoseconds since boot, monotonic.
///
/// No ISB before the counter read: entering the kernel was a context synchronisation event, so a value never
/// precedes the call that asks for it.
#[inline]
pub fn now_ns() -> u64 {
    ns_at(ticks())
}

/// What [`now_ns`] was when the counter stood at `ticks`.
#[inline]
pub fn ns_at(ticks: u64) -> u64 {
    ticks_to_ns(ticks.wrapping_sub(BASE.load(Ordering::Relaxed)))
}

/// The counter itself, monotonic and never 0: for accounts that are kept more often than they are asked for.
#[inline]
pub fn ticks() -> u64 {
    CNTVCT_EL0.get()
}

/// A difference of [`ticks`] in nanoseconds.
#[inline]
pub fn ticks_to_ns(ticks: u64) -> u64 {
    ((ticks as u128 * MULT.load(Ordering::Relaxed) as u128) >> SHIFT) as u64
}

/// Arms this CPU's one-shot timer (absolute, in `now_ns` units), or disarms it.
#[inline]
pub fn set_timer(deadline_ns: Option<u64>) {
    let Some(deadline) = deadline_ns else {
        CNTV_CTL_EL0.set(0);
        return;
    };
    let scaled = deadline as u128 * INVERSE.load(Ordering::Relaxed) as u128 + ((1 << SHIFT) - 1);
    let ticks = (scaled >> SHIFT) as u64;
    CNTV_CVAL_EL0.set(BASE.load(Ordering::Relaxed).saturating_add(ticks));
    CNTV_CTL_EL0.set(1);
}

/// The timer's interrupt: the line stays up until the timer is off or armed anew.
pub fn interrupt() {
    CNTV_CTL_EL0.set(0);
    (irq::hooks().timer)()
}
