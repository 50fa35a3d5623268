//! Physical memory: who owns which frame.
//!
//! * [`Frame`] is one owned, counted 4 KiB frame; [`OwnPage`] one that is not shared; [`FrameRun`] a contiguous piece for DMA and large heap blocks.
//! * Frames come from a per-CPU stack of free ones (`Local`, no lock), which trades batches with the one
//!   [`buddy::Buddy`] under [`ZONE`].
//! * [`block`]: 2 MiB of them that one page-table entry maps.
//! * [`page::Page`] holds what is known about a frame: reference count, flags.
//!
//! Locks: `ZONE` is a leaf. When memory runs out the allocator asks the page cache to give up clean pages, which takes
//! page-cache locks by `try_lock` only; so memory may be allocated under any lock.

mod block;
pub(crate) mod buddy;
mod own;
pub(crate) mod page;
#[cfg(test)]
mod tests;

use core::fmt;
use core::mem::ManuallyDrop;
use core::num::NonZeroU32;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

pub(crate) use self::block::{
    BLOCK_FRAMES, Block, block_entries, free_block, is_sole_block, put_block, share_block, split_block,
};
use self::buddy::{Buddy, LARGE, ORDERS};
pub use self::own::OwnPage;
use self::page::{Page, PageFlags, Pfn, frame_ptr, page};
use super::addr::{PAGE, PAGE_SHIFT, PAGE_SIZE, PhysAddr};
use super::local::{Local, LocalCell};
use super::stats;
use crate::arch::{self, MAX_CPUS};
use crate::errno::{Errno, Result};
use crate::sync::SpinLock;

static ZONE: SpinLock<Buddy> = SpinLock::new(Buddy::new());
static TOTAL: AtomicUsize = AtomicUsize::new(0);
/// Frames that single-frame allocations, which programs cause, leave to the kernel's heap: it has no way to fail.
static RESERVE: AtomicUsize = AtomicUsize::new(0);
/// The heap was seen to have taken half of it.
static SHORT: AtomicBool = AtomicBool::new(false);

/// Free frames kept by one CPU.
const CACHE: usize = 128;
/// Frames traded with the buddy at once.
const BATCH: usize = 1 << BATCH_ORDER;
const BATCH_ORDER: usize = 5;

struct CpuCache {
    /// Atomic because other CPUs read it for statistics; only the owner writes.
    len: AtomicUsize,
    frames: [Pfn; CACHE],
}

impl CpuCache {
    const fn new() -> Self {
        CpuCache { len: AtomicUsize::new(0), frames: [0; CACHE] }
    }

    #[inline]
    fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed).min(CACHE)
    }

    #[inline]
    fn set_len(&self, len: usize) {
        self.len.store(len, Ordering::Relaxed);
    }
}

static CACHES: Local<CpuCache> = Local::new([const { LocalCell::new(CpuCache::new()) }; MAX_CPUS]);

/// One owned 4 KiB frame. Clones are further owners of the same memory; the last drop frees it.
pub struct Frame(NonZeroU32);

impl Frame {
    pub fn phys(&self) -> PhysAddr {
        PhysAddr((self.0.get() as u64) << PAGE_SHIFT)
    }

    /// Where the kernel sees the content.
    #[inline]
    pub fn as_ptr(&self) -> *mut u8 {
        frame_ptr(self.0.get())
    }

    /// The content. User programs or devices may change it meanwhile; only for data whose value does not matter to
    /// memory safety, which is true of bytes.
    pub fn bytes(&self) -> &[u8; PAGE_SIZE] {
        // SAFETY: the frame is RAM that this handle owns.
        unsafe { &*self.as_ptr().cast() }
    }

    /// # Safety
    /// Nobody else may hold a reference made by `bytes` or `bytes_mut` meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn bytes_mut(&self) -> &mut [u8; PAGE_SIZE] {
        // SAFETY: the frame is RAM that this handle owns; exclusive by the contract.
        unsafe { &mut *self.as_ptr().cast() }
    }

    /// Copies `src` to `offset`; what does not fit in the page is dropped.
    pub fn copy_in(&self, offset: usize, src: &[u8]) {
        let len = src.len().min(PAGE_SIZE.saturating_sub(offset));
        // SAFETY: offset + len is within the frame.
        unsafe { core::ptr::copy_nonoverlapping(src.as_ptr(), self.as_ptr().add(offset), len) };
    }

    /// Copies from `offset` into `dst`, as far as the page reaches.
    pub fn copy_out(&self, offset: usize, dst: &mut [u8]) {
        let len = dst.len().min(PAGE_SIZE.saturating_sub(offset));
        // SAFETY: offset + len is within the frame.
        unsafe { core::ptr::copy_nonoverlapping(self.as_ptr().add(offset), dst.as_mut_ptr(), len) };
    }

    /// Zeroes `range` of the page.
    pub fn zero(&self, range: Range<usize>) {
        let end = range.end.min(PAGE_SIZE);
        if range.start < end {
            // SAFETY: the range is within the frame.
            unsafe { core::ptr::write_bytes(self.as_ptr().add(range.start), 0, end - range.start) };
        }
    }

    pub(crate) fn pfn(&self) -> Pfn {
        self.0.get()
    }

    #[inline]
    pub(crate) fn page(&self) -> &'static Page {
        page(self.0.get())
    }

    /// Gives up the handle but not its count: a page-table entry or a tree slot holds it from now on.
    #[inline]
    pub(crate) fn into_raw(self) -> Pfn {
        ManuallyDrop::new(self).0.get()
    }

    /// # Safety
    /// `pfn` must come from [`Frame::into_raw`], once for each call.
    #[inline]
    pub(crate) unsafe fn from_raw(pfn: Pfn) -> Frame {
        // SAFETY: `into_raw` answers what was NonZero.
        Frame(unsafe { NonZeroU32::new_unchecked(pfn) })
    }

    /// Another owner of a frame that is known to be owned by a table or tree.
    ///
    /// # Safety
    /// `pfn` must be an owned frame that cannot be freed during the call.
    #[inline]
    pub(crate) unsafe fn share_raw(pfn: Pfn) -> Frame {
        page(pfn).get();
        // SAFETY: owned frames are not frame 0.
        Frame(unsafe { NonZeroU32::new_unchecked(pfn) })
    }
}

impl Clone for Frame {
    #[inline]
    fn clone(&self) -> Self {
        self.page().get();
        Frame(self.0)
    }
}

impl Drop for Frame {
    #[inline]
    fn drop(&mut self) {
        if self.page().put() {
            release(self.0.get());
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({:?} x{})", self.phys(), self.page().refs())
    }
}

/// One frame with whatever was in it.
#[inline]
pub fn alloc_frame() -> Result<Frame> {
    let pfn = match take_cached() {
        Some(pfn) => pfn,
        None => refill()?,
    };
    let page = page(pfn);
    page.reset();
    page.set_refs(1);
    NonZeroU32::new(pfn).map(Frame).ok_or(Errno::ENOMEM)
}

/// One frame of zeros.
#[inline]
pub fn alloc_zeroed() -> Result<Frame> {
    let frame = alloc_frame()?;
    // SAFETY: the frame is ours alone and page-aligned.
    unsafe { arch::page_ops::zero_page(frame.as_ptr()) };
    Ok(frame)
}

/// A free frame of this CPU's cache.
#[inline]
fn take_cached() -> Option<Pfn> {
    CACHES.with(|cache| {
        let left = cache.len().checked_sub(1)?;
        cache.set_len(left);
        Some(cache.frames[left])
    })
}

/// Takes a batch from the buddy; the first of it is the answer.
#[cold]
fn refill() -> Result<Pfn> {
    for attempt in 0..2 {
        let mut batch: [Pfn; BATCH] = [0; BATCH];
        let mut len = 0;
        {
            let mut zone = ZONE.lock();
            let reserve = RESERVE.load(Ordering::Relaxed);
            let above_reserve = |zone: &Buddy| zone.free_frames() > reserve;
            // A half of the reserve is in pieces in which the heap can have what it wants in a row. They are the last that single
            // frames are taken from, and then there are enough of these.
            let most = |zone: &Buddy| if zone.large_frames() > reserve / 2 { ORDERS } else { LARGE };
            if above_reserve(&zone)
                && let end = most(&zone)
                && let Some(first) = zone.alloc_below(BATCH_ORDER, end)
            {
                batch = core::array::from_fn(|offset| first + offset as Pfn);
                len = BATCH;
            }
            while len < BATCH
                && above_reserve(&zone)
                && let end = most(&zone)
                && let Some(pfn) = zone.alloc_below(0, end)
            {
                batch[len] = pfn;
                len += 1;
            }
        }
        if len > 0 {
            keep(&batch[1..len]);
            return Ok(batch[0]);
        }
        if attempt == 0 && super::page_cache::reclaim(4 * BATCH) == 0 {
            break;
        }
        // What was given back is in this CPU's cache first.
        if let Some(pfn) = take_cached() {
            return Ok(pfn);
        }
    }
    Err(Errno::ENOMEM)
}

/// May data of programs (in pipes, sockets, texts of /proc) take more of the kernel's heap? The heap itself goes on
/// below the reserve, for what cannot be refused.
#[inline]
pub fn has_spare() -> bool {
    // As much as the reserve is enough: tests without frames have both at 0.
    let spare = || ZONE.lock().free_frames() >= RESERVE.load(Ordering::Relaxed);
    spare() || super::page_cache::reclaim(4 * BATCH) > 0 && spare()
}

/// Puts free frames in this CPU's cache, or back into the buddy if there is no room.
fn keep(frames: &[Pfn]) {
    let stored = CACHES.with(|cache| {
        let len = cache.len();
        let stored = frames.len().min(CACHE - len);
        cache.frames[len..len + stored].copy_from_slice(&frames[..stored]);
        cache.set_len(len + stored);
        stored
    });
    if stored < frames.len() {
        let mut zone = ZONE.lock();
        for &pfn in &frames[stored..] {
            zone.free(pfn, 0);
        }
    }
}

/// The last owner of a frame is gone.
fn release(pfn: Pfn) {
    CACHES.with(|cache| {
        let mut len = cache.len();
        if len == CACHE {
            let mut zone = ZONE.lock();
            for &pfn in &cache.frames[CACHE - BATCH..] {
                zone.free(pfn, 0);
            }
            len -= BATCH;
        }
        cache.frames[len] = pfn;
        cache.set_len(len + 1);
    });
}

/// Physically contiguous frames, owned by one.
pub struct FrameRun {
    first: Pfn,
    count: u32,
}

impl FrameRun {
    pub fn phys(&self) -> PhysAddr {
        PhysAddr((self.first as u64) << PAGE_SHIFT)
    }

    pub fn as_ptr(&self) -> *mut u8 {
        frame_ptr(self.first)
    }

    pub fn pages(&self) -> usize {
        self.count as usize
    }

    /// Gives up the handle without freeing the memory.
    pub fn leak(self) -> (PhysAddr, *mut u8) {
        let run = ManuallyDrop::new(self);
        (run.phys(), run.as_ptr())
    }

    /// # Safety
    /// `phys` must come from [`FrameRun::leak`] of a run of `pages` pages.
    pub unsafe fn from_phys(phys: PhysAddr, pages: usize) -> FrameRun {
        FrameRun { first: (phys.0 >> PAGE_SHIFT) as Pfn, count: pages as u32 }
    }
}

impl Drop for FrameRun {
    #[inline]
    fn drop(&mut self) {
        stats::OTHER.add(-(self.count as i64));
        ZONE.lock().free_range(self.first, self.first + self.count);
    }
}

/// `pages` contiguous frames with whatever was in them, aligned to the next power of two of their number.
pub fn alloc_contiguous(pages: usize) -> Result<FrameRun> {
    let order = pages.max(1).next_power_of_two().trailing_zeros() as usize;
    if order >= ORDERS {
        return Err(Errno::ENOMEM);
    }
    // Single pages free up at random places: the more are given back, the likelier some lie together.
    for attempt in 0..5 {
        let mut zone = ZONE.lock();
        if let Some(first) = zone.alloc(order) {
            let count = pages.max(1) as u32;
            zone.free_range(first + count, first + (1 << order));
            let short = zone.free_frames() < RESERVE.load(Ordering::Relaxed) / 2;
            drop(zone);
            if short {
                SHORT.store(true, Ordering::Relaxed);
            }
            for pfn in first..first + count {
                page(pfn).reset();
                page(pfn).set_refs(1);
            }
            stats::OTHER.add(count as i64);
            return Ok(FrameRun { first, count });
        }
        drop(zone);
        if (1..4).contains(&attempt) {
            super::page_cache::reclaim((4 * BATCH).max(2 << order) << (2 * attempt - 2));
        }
        flush_cache();
    }
    Err(Errno::ENOMEM)
}

/// The heap has taken half of its reserve: who may make it grow has to make room first.
#[inline]
pub fn is_short() -> bool {
    SHORT.load(Ordering::Relaxed) && !has_room(0)
}

/// Can the heap grow by so many bytes without being short then? For what is allocated in many pieces, none of which can
/// fail.
#[cold]
pub fn has_room(bytes: usize) -> bool {
    let wanted = bytes.div_ceil(PAGE_SIZE) + RESERVE.load(Ordering::Relaxed) / 2;
    flush_cache();
    let mut free = ZONE.lock().free_frames();
    if bytes > 0 && free < wanted {
        free += super::page_cache::reclaim(wanted - free);
    }
    let room = free >= wanted;
    if bytes == 0 {
        SHORT.store(!room, Ordering::Relaxed);
    }
    room
}

/// 2^order contiguous frames.
pub fn alloc_order(order: usize) -> Result<FrameRun> {
    if order >= ORDERS {
        return Err(Errno::ENOMEM);
    }
    alloc_contiguous(1 << order)
}

/// Empties this CPU's cache so that blocks can join.
fn flush_cache() {
    CACHES.with(|cache| {
        let mut zone = ZONE.lock();
        for &pfn in &cache.frames[..cache.len()] {
            zone.free(pfn, 0);
        }
        cache.set_len(0);
    });
}

/// Frames that the allocator manages.
pub fn total_frames() -> usize {
    TOTAL.load(Ordering::Relaxed)
}

/// Frames that are free, those that CPUs keep at hand included.
pub fn free_frames() -> usize {
    let kept = CACHES.pointers().map(|cache| {
        // SAFETY: the cache is static and the field atomic.
        unsafe { &(*cache).len }.load(Ordering::Relaxed)
    });
    kept.sum::<usize>() + ZONE.lock().free_frames()
}

/// Hands all of `usable` that is not `reserved` to the allocator; called once, on the boot CPU, before any allocation.
/// The `Page` array is put at the end of the first usable piece that has room.
pub fn init(usable: &[Range<u64>], reserved: &[Range<u64>]) {
    let lowest = usable.iter().map(|range| range.start).min().unwrap_or(0);
    let highest = usable.iter().map(|range| range.end).max().unwrap_or(0);
    let (first, end) = ((lowest >> PAGE_SHIFT) as Pfn, (highest >> PAGE_SHIFT) as Pfn);
    let array_size = ((end - first) as u64 * size_of::<Page>() as u64).next_multiple_of(PAGE);

    let mut array = None;
    for_each_free(usable, reserved, &mut |range| {
        if array.is_none() && range.end - range.start >= array_size {
            array = Some(range.end - array_size..range.end);
        }
    });
    let Some(array) = array else { panic!("no memory for the page array: {usable:?} without {reserved:?}") };
    let pointer = arch::paging::phys_to_virt(array.start);
    // SAFETY: the range is usable RAM that nobody has been given. Zero is a valid `Page`: in use, no owner.
    unsafe { pointer.write_bytes(0, array_size as usize) };
    page::install(pointer, first);

    let mut zone = ZONE.lock();
    zone.set_bounds(first, end);
    for_each_free(usable, reserved, &mut |range| {
        let cut = if range.end == array.end { range.start..array.start } else { range };
        let start = (cut.start >> PAGE_SHIFT).max(1);
        zone.free_range(start as Pfn, (cut.end >> PAGE_SHIFT).max(start) as Pfn);
    });
    let total = zone.free_frames();
    TOTAL.store(total, Ordering::Relaxed);
    RESERVE.store((total / 32).min(4096), Ordering::Relaxed);
}

/// Calls `found` for each maximal piece of `usable` outside of `reserved`, shrunk to whole pages.
fn for_each_free(usable: &[Range<u64>], reserved: &[Range<u64>], found: &mut dyn FnMut(Range<u64>)) {
    for range in usable {
        let mut start = range.start;
        while start < range.end {
            // The reserved piece that covers `start`, or else the next one after it.
            if let Some(cover) = reserved.iter().find(|r| r.start <= start && start < r.end) {
                start = cover.end;
                continue;
            }
            let next = reserved.iter().map(|r| r.start).filter(|&s| s > start).min().unwrap_or(u64::MAX);
            let end = next.min(range.end);
            let (first, last) = (start.next_multiple_of(PAGE), end & !(PAGE - 1));
            if first < last {
                found(first..last);
            }
            start = end;
        }
    }
}

impl Frame {
    pub(crate) fn has(&self, flags: PageFlags) -> bool {
        self.page().has(flags)
    }
}
