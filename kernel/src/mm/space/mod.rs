//! Address spaces.

mod vma;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use bitflags::bitflags;

pub use self::vma::{Backing, Prot, Special, Vma, VmaFlags, VmaMap};
use super::frames::Frame;
use super::page_cache::PageSource;
use crate::arch::{Access, UserFault};
use crate::errno::Result;
use crate::sync::{SpinGuard, SpinLock};

/// The signal that an unresolvable fault becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FaultSignal {
    pub signo: u8,
    pub code: i32,
    pub addr: u64,
}

bitflags! {
    /// MAP_* of mmap(2), apart from the type bits that say shared or private.
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

/// The resource limits that memory calls obey, in bytes (u64::MAX = none). The process stores them here when they change.
pub struct Limits {
    pub address_space: AtomicU64,
    pub data: AtomicU64,
    pub stack: AtomicU64,
    pub memlock: AtomicU64,
}

/// What exec records about the program, for /proc.
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
    pub exe: Option<Arc<dyn PageSource>>,
}

/// One line of /proc/PID/maps.
pub struct VmaInfo {
    pub range: Range<u64>,
    pub prot: Prot,
    pub shared: bool,
    pub offset: u64,
    pub dev: u64,
    pub ino: u64,
    pub name: String,
    pub flags: VmaFlags,
}

/// Sizes in pages, for /proc/PID/{stat,statm,status}.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpaceStats {
    pub total: u64,
    pub peak: u64,
    pub resident: u64,
    pub resident_peak: u64,
    pub resident_anon: u64,
    pub resident_file: u64,
    pub data: u64,
    pub stack: u64,
    pub exe: u64,
    pub lib: u64,
    pub locked: u64,
    pub tables: u64,
}

/// What identifies a futex (docs/design.md 7).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum FutexKey {
    Private { space: u64, addr: u64 },
    Shared { object: u64, offset: u64 },
}

pub struct AddressSpace {
    id: u64,
    pub limits: Limits,
    meta: SpinLock<Meta>,
}

impl AddressSpace {
    pub fn new() -> Result<Arc<Self>> {
        todo!()
    }

    /// A copy-on-write copy. Limits and metadata are copied too.
    pub fn fork(&self) -> Result<Arc<Self>> {
        todo!()
    }

    /// Never the same for two spaces.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Makes this the address space of the running CPU.
    #[inline]
    pub fn activate(self: &Arc<Self>) {
        todo!()
    }

    /// Leaves the running CPU without user memory.
    pub fn deactivate() {
        todo!()
    }

    /// Frees all mappings; for exit and exec, when no thread uses the space any more.
    pub async fn teardown(&self) {
        todo!()
    }

    /// A user instruction faulted: makes the page present or says which signal it gets.
    pub async fn handle_fault(&self, _addr: u64, _access: Access) -> Result<(), FaultSignal> {
        todo!()
    }

    /// A kernel access to user memory faulted: makes the page present, or EFAULT.
    pub async fn fault_in(&self, _fault: UserFault) -> Result<()> {
        todo!()
    }

    pub async fn mmap(&self, _request: MmapRequest) -> Result<u64> {
        todo!()
    }

    pub async fn munmap(&self, _addr: u64, _len: u64) -> Result<()> {
        todo!()
    }

    pub async fn mprotect(&self, _addr: u64, _len: u64, _prot: Prot) -> Result<()> {
        todo!()
    }

    pub async fn mremap(&self, _request: MremapRequest) -> Result<u64> {
        todo!()
    }

    pub async fn madvise(&self, _addr: u64, _len: u64, _advice: u32) -> Result<()> {
        todo!()
    }

    pub async fn msync(&self, _addr: u64, _len: u64, _flags: u32) -> Result<()> {
        todo!()
    }

    /// brk(2): answers the new break, or the old one if it cannot be moved.
    pub async fn brk(&self, _addr: u64) -> u64 {
        todo!()
    }

    /// Where the heap starts: exec calls it with the end of the program's data.
    pub fn set_brk_start(&self, _addr: u64) {
        todo!()
    }

    /// Places the area of mmap below a stack whose top is `stack_top`, leaving room for RLIMIT_STACK.
    pub fn set_layout(&self, _stack_top: u64, _stack_limit: u64) {
        todo!()
    }

    /// Maps kernel frames (vDSO, vvar), anywhere near `hint`; answers where.
    pub fn insert_special(&self, _hint: u64, _frames: Vec<Frame>, _prot: Prot, _name: &'static str) -> Result<u64> {
        todo!()
    }

    /// Calls `visit` for each mapping in order, until it answers false.
    pub fn for_each_vma(&self, _visit: impl FnMut(VmaInfo) -> bool) {
        todo!()
    }

    /// The mapping at `addr` or the first after it.
    pub fn next_vma(&self, _addr: u64) -> Option<VmaInfo> {
        todo!()
    }

    pub fn stats(&self) -> SpaceStats {
        todo!()
    }

    pub fn meta(&self) -> SpinGuard<'_, Meta> {
        self.meta.lock()
    }

    /// Reads memory of this space, whether or not it is current; answers how much was readable.
    pub async fn read_remote(&self, _addr: u64, _buf: &mut [u8]) -> Result<usize> {
        todo!()
    }

    /// Writes memory of this space, whether or not it is current.
    pub async fn write_remote(&self, _addr: u64, _buf: &[u8]) -> Result<usize> {
        todo!()
    }

    /// The identity of the futex word at `addr`; `private` is FUTEX_PRIVATE_FLAG.
    pub fn futex_key(&self, _addr: u64, _private: bool) -> Result<FutexKey, UserFault> {
        todo!()
    }
}

impl Limits {
    pub fn set(limit: &AtomicU64, bytes: u64) {
        limit.store(bytes, Ordering::Relaxed);
    }
}
