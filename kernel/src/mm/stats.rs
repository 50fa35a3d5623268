//! Where memory went: counters per CPU, summed when somebody asks.

use core::sync::atomic::{AtomicI64, Ordering};

use super::addr::PAGE;
use super::frames;
use crate::arch::{MAX_CPUS, PerCpu};

/// A counter of frames. Each CPU adds to its own part; only the sum means something.
pub(crate) struct Counter(PerCpu<AtomicI64>);

impl Counter {
    const fn new() -> Self {
        Counter(PerCpu::new([const { AtomicI64::new(0) }; MAX_CPUS]))
    }

    #[inline]
    pub fn add(&self, frames: i64) {
        self.0.get().fetch_add(frames, Ordering::Relaxed);
    }

    pub fn sum(&self) -> u64 {
        self.0.iter().map(|part| part.load(Ordering::Relaxed)).sum::<i64>().max(0) as u64
    }
}

/// Frames of blocks that page tables map as a whole.
pub(crate) static HUGE: Counter = Counter::new();
/// Page tables.
pub(crate) static TABLES: Counter = Counter::new();
/// Pages of page caches with a file system behind them.
pub(crate) static CACHED: Counter = Counter::new();
/// Pages of tmpfs, memfd and shared anonymous memory.
pub(crate) static SHMEM: Counter = Counter::new();
pub(crate) static DIRTY: Counter = Counter::new();
pub(crate) static WRITEBACK: Counter = Counter::new();
/// The kernel heap.
pub(crate) static SLAB: Counter = Counter::new();
/// Contiguous runs outside of the heap: DMA buffers.
pub(crate) static OTHER: Counter = Counter::new();

/// What /proc/meminfo and sysinfo(2) tell, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemInfo {
    pub total: u64,
    pub free: u64,
    /// Estimate of what programs could still get: free plus what can be reclaimed.
    pub available: u64,
    /// Block-device cache; Pollux caches files only, so 0.
    pub buffers: u64,
    pub cached: u64,
    pub shmem: u64,
    pub anon: u64,
    /// The part of `anon` that is mapped in blocks of 2 MiB.
    pub anon_huge: u64,
    pub slab: u64,
    pub page_tables: u64,
    pub dirty: u64,
    pub writeback: u64,
    pub other: u64,
}

pub fn meminfo() -> MemInfo {
    let total = frames::total_frames() as u64;
    let free = frames::free_frames() as u64;
    let (file, shmem, slab) = (CACHED.sum(), SHMEM.sum(), SLAB.sum());
    let (tables, other) = (TABLES.sum(), OTHER.sum());
    // Everything that is in use and nothing of the above.
    let anon = total.saturating_sub(free + file + shmem + slab + tables + other);
    let dirty = DIRTY.sum();
    MemInfo {
        total: total * PAGE,
        free: free * PAGE,
        available: (free + file.saturating_sub(dirty)) * PAGE,
        buffers: 0,
        cached: (file + shmem) * PAGE,
        shmem: shmem * PAGE,
        anon: anon * PAGE,
        anon_huge: HUGE.sum() * PAGE,
        slab: slab * PAGE,
        page_tables: tables * PAGE,
        dirty: dirty * PAGE,
        writeback: WRITEBACK.sum() * PAGE,
        other: other * PAGE,
    }
}
