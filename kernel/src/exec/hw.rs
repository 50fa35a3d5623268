//! The part of `arch` that the executor uses. Unit tests replace it by a simulated machine with a virtual clock,
//! one per test thread.

#[cfg(not(test))]
pub(super) use crate::arch::{cpu_count, cpu_id, irq, now_ns, ns_at, set_timer, ticks, ticks_to_ns};

#[cfg(test)]
pub(super) use super::test_util::machine::{cpu_count, cpu_id, irq, now_ns, ns_at, set_timer, ticks, ticks_to_ns};
