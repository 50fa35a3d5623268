//! The `Page` array: sixteen bytes of state for each physical frame.

use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use bitflags::bitflags;

use super::super::addr::PAGE_SHIFT;
use crate::arch;

/// A frame number: physical address divided by the page size.
pub(crate) type Pfn = u32;

/// State of one frame. What `data` means depends on who owns the frame: the links of the free list, the entry counts
/// of a page table, the number of block entries for the first frame of a block, nothing for other memory.
#[repr(C, align(16))]
pub(crate) struct Page {
    /// Owners: handles, page-table entries, the page cache. Zero while free.
    refs: AtomicU32,
    flags: AtomicU32,
    pub data: AtomicU64,
}

bitflags! {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct PageFlags: u32 {
        /// Head of a free block; the order is in bits 24 and up.
        const FREE = 1 << 0;
        /// Belongs to a page cache.
        const CACHE = 1 << 1;
        /// Content is valid.
        const UPTODATE = 1 << 2;
        /// Being read from or written to storage.
        const READING = 1 << 3;
        const DIRTY = 1 << 4;
        const WRITEBACK = 1 << 5;
        /// Used since the reclaim clock last passed.
        const REFERENCED = 1 << 6;
        /// Instruction fetch sees the content: no cache maintenance needed before mapping it executable.
        const ICACHE_CLEAN = 1 << 7;
        /// The last write to storage failed.
        const ERROR = 1 << 8;
        /// Mapped writable and shared at least once since it was last cleaned: may become dirty without notice.
        const SHARED_WRITE = 1 << 9;
        /// First frame of a block that waits to be freed.
        const DEAD_BLOCK = 1 << 10;
    }
}

const ORDER_SHIFT: u32 = 24;

impl Page {
    #[inline]
    pub fn refs(&self) -> u32 {
        self.refs.load(Ordering::Acquire)
    }

    #[inline]
    pub fn set_refs(&self, refs: u32) {
        self.refs.store(refs, Ordering::Relaxed);
    }

    #[inline]
    pub fn get(&self) {
        self.refs.fetch_add(1, Ordering::Relaxed);
    }

    /// True if that was the last owner.
    #[inline]
    pub fn put(&self) -> bool {
        // A sole owner needs no read-modify-write: nobody else can add a reference.
        if self.refs.load(Ordering::Acquire) == 1 {
            self.refs.store(0, Ordering::Relaxed);
            return true;
        }
        if self.refs.fetch_sub(1, Ordering::Release) == 1 {
            core::sync::atomic::fence(Ordering::Acquire);
            return true;
        }
        false
    }

    #[inline]
    pub fn flags(&self) -> PageFlags {
        PageFlags::from_bits_truncate(self.flags.load(Ordering::Acquire))
    }

    #[inline]
    pub fn has(&self, flags: PageFlags) -> bool {
        self.flags.load(Ordering::Acquire) & flags.bits() == flags.bits()
    }

    /// Answers the flags before.
    #[inline]
    pub fn set(&self, flags: PageFlags) -> PageFlags {
        PageFlags::from_bits_truncate(self.flags.fetch_or(flags.bits(), Ordering::AcqRel))
    }

    #[inline]
    pub fn clear(&self, flags: PageFlags) -> PageFlags {
        PageFlags::from_bits_truncate(self.flags.fetch_and(!flags.bits(), Ordering::AcqRel))
    }

    #[inline]
    pub fn reset(&self) {
        self.flags.store(0, Ordering::Relaxed);
    }

    pub fn set_free(&self, order: u32) {
        self.flags.store(PageFlags::FREE.bits() | order << ORDER_SHIFT, Ordering::Relaxed);
    }

    pub fn is_free(&self, order: u32) -> bool {
        self.flags.load(Ordering::Relaxed) == PageFlags::FREE.bits() | order << ORDER_SHIFT
    }
}

/// Address that the `Page` of frame 0 would have; the array starts at the first frame of RAM.
static BASE: AtomicUsize = AtomicUsize::new(0);

/// Makes the array at `array`, for frames from `first` on, the one that [`page`] looks into.
pub(super) fn install(array: *mut u8, first: Pfn) {
    let base = (array as usize).wrapping_sub(first as usize * size_of::<Page>());
    BASE.store(base, Ordering::Release);
}

/// The state of a frame. `pfn` must be a frame of RAM: all that come out of the allocator are.
#[inline]
pub(crate) fn page(pfn: Pfn) -> &'static Page {
    let address = BASE.load(Ordering::Relaxed).wrapping_add(pfn as usize * size_of::<Page>());
    // SAFETY: the array covers every frame of RAM, lives for ever, and has only atomic fields.
    unsafe { &*(address as *const Page) }
}

/// Where the kernel sees a frame.
#[inline]
pub(crate) fn frame_ptr(pfn: Pfn) -> *mut u8 {
    arch::paging::phys_to_virt((pfn as u64) << PAGE_SHIFT)
}
