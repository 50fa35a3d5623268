//! What callers hand in and get back.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bitflags::bitflags;

use super::super::page_cache::PageSource;
use super::fault::{SI_KERNEL, SIGKILL};
use super::vma::Prot;

/// The signal that an unresolvable fault becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultSignal {
    pub signo: u8,
    pub code: i32,
    pub addr: u64,
}

impl FaultSignal {
    /// There was no memory for the page.
    pub fn is_shortage(&self) -> bool {
        (self.signo, self.code) == (SIGKILL, SI_KERNEL)
    }
}

bitflags! {
    /// MAP_* of mmap(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MapFlags: u32 {
        const SHARED = 0x01;
        const PRIVATE = 0x02;
        const FIXED = 0x10;
        const ANONYMOUS = 0x20;
        const GROWSDOWN = 0x100;
        const LOCKED = 0x2000;
        const NORESERVE = 0x4000;
        const POPULATE = 0x8000;
        const NONBLOCK = 0x10000;
        const STACK = 0x20000;
        const FIXED_NOREPLACE = 0x100000;
        /// Not a flag of mmap(2): whoever asks may have the lowest addresses, where null pointers lead to.
        const LOW = 1 << 31;
        /// Nor is this: whoever asks may lock as much as there is.
        const LOCK_ANY = 1 << 30;
    }
}

pub struct MmapRequest {
    pub addr: u64,
    pub len: u64,
    pub prot: Prot,
    pub flags: MapFlags,
    /// None: anonymous.
    pub source: Option<Arc<dyn PageSource>>,
    /// Bytes, page-aligned.
    pub offset: u64,
}

pub struct MremapRequest {
    pub addr: u64,
    pub old_len: u64,
    pub new_len: u64,
    /// MREMAP_*.
    pub flags: u32,
    pub new_addr: u64,
}

/// What memory calls and faults obey: the resource limits, in bytes (`u64::MAX` = none), which the process stores here
/// when they change, and what prctl(2) says.
#[derive(Debug)]
pub struct Limits {
    pub address_space: AtomicU64,
    pub data: AtomicU64,
    /// Of brk(2) alone.
    pub heap: AtomicU64,
    pub stack: AtomicU64,
    pub memlock: AtomicU64,
    /// prctl(PR_SET_THP_DISABLE).
    pub no_blocks: AtomicBool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            address_space: AtomicU64::new(u64::MAX),
            data: AtomicU64::new(u64::MAX),
            heap: AtomicU64::new(u64::MAX),
            stack: AtomicU64::new(8 << 20),
            memlock: AtomicU64::new(8 << 20),
            no_blocks: AtomicBool::new(false),
        }
    }
}

impl Clone for Limits {
    fn clone(&self) -> Self {
        let copy = |limit: &AtomicU64| AtomicU64::new(limit.load(Ordering::Relaxed));
        Limits {
            address_space: copy(&self.address_space),
            data: copy(&self.data),
            heap: copy(&self.heap),
            stack: copy(&self.stack),
            memlock: copy(&self.memlock),
            no_blocks: AtomicBool::new(self.no_blocks.load(Ordering::Relaxed)),
        }
    }
}

/// What exec records about the program, for /proc and prctl(PR_SET_MM).
#[derive(Clone, Default)]
pub struct Meta {
    pub start_code: u64,
    pub end_code: u64,
    pub start_data: u64,
    pub end_data: u64,
    pub start_stack: u64,
    pub arg_start: u64,
    pub arg_end: u64,
    pub env_start: u64,
    pub env_end: u64,
    pub auxv: Vec<u64>,
    /// Where the vDSO is mapped; 0 before exec.
    pub vdso: u64,
    pub exe: Option<Arc<dyn PageSource>>,
}

/// What identifies a futex (docs/design.md 7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FutexKey {
    /// Space and address.
    Private { space: u64, addr: u64 },
    /// The same, asked for as what others may share, which it is not.
    Anonymous { space: u64, addr: u64 },
    /// Object (see `PageCache::id`) and byte offset in it.
    Shared { object: u64, offset: u64 },
}
