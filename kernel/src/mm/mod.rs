//! Memory: physical frames, the kernel heap, address spaces, the page cache, and access to user memory.
//!
//! * [`frames`]: who owns which physical frame. [`heap`]: the kernel's allocator on top of it.
//! * [`space`]: [`AddressSpace`], what a process sees: VMAs and page tables, faults, mmap and its family.
//! * [`page_cache`]: [`PageCache`], the pages of one file, shared by read, write and mmap. [`PageSource`] is what can be
//!   mapped: an open file, or a piece of shared anonymous memory ([`shmem`]).
//! * [`shared_pages`]: pages that the kernel and programs use at the same time (io_uring).
//! * [`overcommit`]: how much is promised. [`shortage`]: what those wait for who find no page.
//! * [`uaccess`], [`iobuf`]: typed pointers into user memory and the buffers of read and write.
//!
//! Lock order: address space → page cache → frame allocator and heap. None is held over an await.

mod addr;
mod chunks;
pub mod frames;
pub mod heap;
mod iobuf;
mod local;
pub mod overcommit;
pub mod page_cache;
pub mod shared_pages;
pub mod shmem;
mod shortage;
pub mod space;
mod stats;
#[cfg(test)]
pub mod test_util;
mod uaccess;

pub use addr::{
    MAX_RW_COUNT, PAGE_SHIFT, PAGE_SIZE, PhysAddr, USER_END, VirtAddr, access_ok, page_down, page_up, untag,
    within_page,
};
pub use frames::{Frame, FrameRun, OwnPage, alloc_contiguous, alloc_frame, alloc_order, alloc_zeroed, init, is_short};
pub use iobuf::{IoBuf, IoVec, IoVecs, import_iovec, read_iovec};
pub use page_cache::{BoxFuture, CachePage, PageCache, PageIo, PageSource};
pub use shared_pages::SharedPages;
pub use shortage::set_relief as set_shortage_relief;
pub use space::{
    AddressSpace, Cut, FaultHandler, FaultSignal, Fill, FutexKey, Limits, MapFlags, MappedPage, Meta, MmapRequest,
    MremapRequest, Outcome, Prot, Report, SpaceStats, Special, Toucher, Unfinished, Usage, VmaInfo, Watcher, huge,
};
pub use stats::{MemInfo, meminfo};
pub use uaccess::{UserPtr, UserStr, copy_string, read_cstr, try_read_cstr};
