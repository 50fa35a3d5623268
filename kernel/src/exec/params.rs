//! Scheduling parameters: policies, weights, CPU sets (sched(7)).

use core::fmt;

/// A scheduling policy with its static priority, 1 (low) to 99 for the real-time ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SchedPolicy {
    #[default]
    Other,
    Fifo(u8),
    Rr(u8),
    Batch,
    Idle,
}

impl SchedPolicy {
    /// The real-time priority; 0 for the others.
    pub const fn rt_priority(self) -> u8 {
        match self {
            SchedPolicy::Fifo(priority) | SchedPolicy::Rr(priority) => priority,
            _ => 0,
        }
    }

    pub const fn is_rt(self) -> bool {
        self.rt_priority() != 0
    }
}

/// What a task starts with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SchedParams {
    pub policy: SchedPolicy,
    /// −20 (gets most) to 19.
    pub nice: i8,
    pub affinity: CpuMask,
}

/// A set of CPUs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CpuMask(pub u64);

impl CpuMask {
    pub const ALL: CpuMask = CpuMask(u64::MAX);
    pub const EMPTY: CpuMask = CpuMask(0);

    pub const fn of(cpu: usize) -> Self {
        CpuMask(1 << cpu)
    }

    pub const fn has(self, cpu: usize) -> bool {
        self.0 >> cpu & 1 != 0
    }

    pub const fn and(self, other: CpuMask) -> Self {
        CpuMask(self.0 & other.0)
    }

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The lowest CPU in the set.
    pub const fn first(self) -> Option<usize> {
        if self.0 == 0 { None } else { Some(self.0.trailing_zeros() as usize) }
    }

    pub const fn count(self) -> usize {
        self.0.count_ones() as usize
    }
}

impl Default for CpuMask {
    fn default() -> Self {
        CpuMask::ALL
    }
}

impl fmt::Debug for CpuMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuMask({:#x})", self.0)
    }
}

/// The weight of nice 0; a task's virtual time runs at `UNIT / weight` of real time.
pub(super) const UNIT: u64 = 1024;

/// Weights by nice value, −20 first: each step is worth about 10 % of the CPU (factor 1.25). The values are Linux's, because programs can see
/// the shares they give.
const WEIGHTS: [u32; 40] = [
    88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916, 9548, 7620, 6100, 4904, 3906, 3121, 2501,
    1991, 1586, 1277, 1024, 820, 655, 526, 423, 335, 272, 215, 172, 137, 110, 87, 70, 56, 45, 36, 29, 23, 18, 15,
];

/// SCHED_IDLE: less than any nice value.
const IDLE_WEIGHT: u32 = 3;

pub(super) fn weight(policy: SchedPolicy, nice: i8) -> u32 {
    match policy {
        SchedPolicy::Idle => IDLE_WEIGHT,
        _ => WEIGHTS[(nice.clamp(-20, 19) + 20) as usize],
    }
}
