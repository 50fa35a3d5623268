//! The kernel heap: size classes cut from slabs of frames, with a stack of free objects per CPU in front.
//!
//! An object is found back from its address and layout: slabs are aligned to their size and start with a
//! [`SlabHeader`]. An empty slab goes back to the frames. What is larger than the largest class is a run of pages.
//!
//! Locks: one per class, then the frame allocator. Nothing is allocated while a per-CPU stack is borrowed.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::null_mut;

use super::addr::{PAGE_SIZE, PhysAddr};
use super::frames::{FrameRun, alloc_contiguous};
use super::local::{Local, LocalCell};
use super::stats;
use crate::arch::{self, MAX_CPUS};
use crate::sync::SpinLock;

/// Sizes of the classes, in bytes.
const SIZES: [usize; CLASSES] = [16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 2432];
const CLASSES: usize = 15;
const LARGEST: usize = SIZES[CLASSES - 1];

/// Class by size in units of 16 bytes, rounded up.
static CLASS_OF: [u8; LARGEST / 16 + 1] = {
    let mut table = [0; LARGEST / 16 + 1];
    let mut units = 0;
    while units < table.len() {
        let mut class = 0;
        while SIZES[class] < units * 16 {
            class += 1;
        }
        table[units] = class as u8;
        units += 1;
    }
    table
};

const fn slab_pages(class: usize) -> usize {
    if SIZES[class] <= 256 {
        1
    } else if SIZES[class] <= 768 {
        4
    } else {
        8
    }
}

/// Objects that a CPU keeps of each class, and how many it trades with the slabs at once.
const MAGAZINE: usize = 32;
const BATCH: usize = 16;

struct Magazine {
    /// How many objects have been asked for on this CPU.
    asked: u64,
    len: usize,
    objects: [usize; MAGAZINE],
}

static MAGAZINES: Local<[Magazine; CLASSES]> = Local::new(
    [const { LocalCell::new([const { Magazine { asked: 0, len: 0, objects: [0; MAGAZINE] } }; CLASSES]) }; MAX_CPUS],
);

/// At the start of each slab.
struct SlabHeader {
    prev: *mut SlabHeader,
    next: *mut SlabHeader,
    /// First free object; each holds the address of the next.
    free: *mut usize,
    used: usize,
}

/// Slabs of one class that have free objects.
struct Class {
    partial: *mut SlabHeader,
    /// Slabs with no used object on the list: at most one is kept.
    empty: u32,
    /// All slabs, and their objects that are used or in a magazine.
    slabs: usize,
    used: usize,
}

// SAFETY: the pointers lead to slabs that only the holder of the class's lock touches.
unsafe impl Send for Class {}

static SLABS: [SpinLock<Class>; CLASSES] =
    [const { SpinLock::new(Class { partial: null_mut(), empty: 0, slabs: 0, used: 0 }) }; CLASSES];

/// The allocator; the global one on the bare machine.
pub struct Heap;

#[cfg(target_os = "none")]
#[global_allocator]
static HEAP: Heap = Heap;

/// The class that serves a layout, if one does. Objects of a power-of-two class are aligned to its size.
#[inline]
fn class_of(layout: Layout) -> Option<usize> {
    let size = if layout.align() <= 16 { layout.size() } else { layout.size().max(layout.align()).next_power_of_two() };
    (size <= LARGEST).then(|| CLASS_OF[size.div_ceil(16)] as usize)
}

// SAFETY: blocks come from disjoint slabs or runs, are large enough and aligned (see `class_of`), and stay until freed.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class_of(layout) else { return alloc_large(layout) };
        let object = MAGAZINES.with(|magazines| {
            let magazine = &mut magazines[class];
            magazine.asked += 1;
            let left = magazine.len.checked_sub(1)?;
            magazine.len = left;
            magazine.objects.get(left).copied()
        });
        match object {
            Some(object) => object as *mut u8,
            None => alloc_slow(class),
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(class) = class_of(layout) else {
            // SAFETY: `alloc` took the same way for this layout.
            return unsafe { free_large(block, layout) };
        };
        let full = MAGAZINES.with(|magazines| {
            let magazine = &mut magazines[class];
            let mut full = None;
            if magazine.len == MAGAZINE {
                let mut batch = [0; BATCH];
                batch.copy_from_slice(&magazine.objects[MAGAZINE - BATCH..]);
                magazine.len -= BATCH;
                full = Some(batch);
            }
            magazine.objects[magazine.len] = block as usize;
            magazine.len += 1;
            full
        });
        if let Some(batch) = full {
            give_back(class, &batch);
        }
    }
}

/// How many objects the calling CPU has asked for; those that are larger than the largest class do not count.
pub fn asked_here() -> u64 {
    MAGAZINES.with(|magazines| magazines.iter().map(|magazine| magazine.asked).sum())
}

/// The magazine is empty: take a batch from the slabs.
#[cold]
fn alloc_slow(class: usize) -> *mut u8 {
    let mut batch = [0; BATCH];
    let mut len = take(class, &mut batch);
    if len == 0 {
        if !grow(class) {
            return null_mut();
        }
        len = take(class, &mut batch);
        if len == 0 {
            return null_mut();
        }
    }
    MAGAZINES.with(|magazines| {
        let magazine = &mut magazines[class];
        for &object in &batch[1..len] {
            if magazine.len < MAGAZINE {
                magazine.objects[magazine.len] = object;
                magazine.len += 1;
            }
        }
    });
    batch[0] as *mut u8
}

/// Takes up to a batch of objects from the partial slabs.
fn take(class: usize, batch: &mut [usize; BATCH]) -> usize {
    let mut slabs = SLABS[class].lock();
    let mut len = 0;
    while len < BATCH && !slabs.partial.is_null() {
        let slab = slabs.partial;
        // SAFETY: listed slabs are live and guarded by the class lock; free objects hold the next one's address.
        unsafe {
            if (*slab).used == 0 {
                slabs.empty -= 1;
            }
            while len < BATCH && !(*slab).free.is_null() {
                let object = (*slab).free;
                (*slab).free = *object as *mut usize;
                (*slab).used += 1;
                slabs.used += 1;
                batch[len] = object as usize;
                len += 1;
            }
            if (*slab).free.is_null() {
                unlink(&mut slabs, slab);
            }
        }
    }
    len
}

/// What /proc/slabinfo tells of a class.
#[derive(Clone, Copy, Debug)]
pub struct SlabStats {
    /// Bytes.
    pub object_size: usize,
    /// Objects that are used, or kept by a CPU for the next use.
    pub used: usize,
    pub slabs: usize,
    pub objects_per_slab: usize,
    pub pages_per_slab: usize,
}

/// The classes, small ones first.
pub fn slab_stats() -> impl Iterator<Item = SlabStats> {
    SLABS.iter().enumerate().map(|(class, slabs)| {
        let slabs = slabs.lock();
        SlabStats {
            object_size: SIZES[class],
            used: slabs.used,
            slabs: slabs.slabs,
            objects_per_slab: capacity(class),
            pages_per_slab: slab_pages(class),
        }
    })
}

/// Offset of the first object in a slab. Power-of-two classes keep their natural alignment; the others need 16 bytes.
const fn first_object(class: usize) -> usize {
    let size = SIZES[class];
    size_of::<SlabHeader>().next_multiple_of(if size.is_power_of_two() { size } else { 16 })
}

const fn capacity(class: usize) -> usize {
    (slab_pages(class) * PAGE_SIZE - first_object(class)) / SIZES[class]
}

/// Adds a slab to a class.
fn grow(class: usize) -> bool {
    let pages = slab_pages(class);
    let Ok(run) = alloc_contiguous(pages) else { return false };
    let (_, start) = run.leak();
    stats::OTHER.add(-(pages as i64));
    stats::SLAB.add(pages as i64);
    let size = SIZES[class];
    let first = first_object(class);
    let capacity = capacity(class);
    let header = start.cast::<SlabHeader>();
    // SAFETY: the run is ours and large enough for the header and `capacity` objects.
    unsafe {
        let mut next: *mut usize = null_mut();
        for index in (0..capacity).rev() {
            let object = start.add(first + index * size).cast::<usize>();
            object.write(next as usize);
            next = object;
        }
        header.write(SlabHeader { prev: null_mut(), next: null_mut(), free: next, used: 0 });
        let mut slabs = SLABS[class].lock();
        slabs.empty += 1;
        slabs.slabs += 1;
        link(&mut slabs, header);
    }
    true
}

/// Returns objects to their slabs, and a slab that became empty to the frames unless it is the only spare one.
#[cold]
fn give_back(class: usize, objects: &[usize]) {
    let slab_size = slab_pages(class) * PAGE_SIZE;
    for &object in objects {
        let slab = (object & !(slab_size - 1)) as *mut SlabHeader;
        let mut slabs = SLABS[class].lock();
        // SAFETY: the object came from this slab, whose header is guarded by the class lock.
        let surplus = unsafe {
            let was_full = (*slab).free.is_null();
            (object as *mut usize).write((*slab).free as usize);
            (*slab).free = object as *mut usize;
            (*slab).used -= 1;
            slabs.used -= 1;
            if was_full {
                link(&mut slabs, slab);
            }
            let empty = (*slab).used == 0;
            if empty {
                slabs.empty += 1;
            }
            let surplus = empty && slabs.empty > 1;
            if surplus {
                slabs.empty -= 1;
                slabs.slabs -= 1;
                unlink(&mut slabs, slab);
            }
            surplus
        };
        drop(slabs);
        if surplus {
            stats::SLAB.add(-(slab_pages(class) as i64));
            stats::OTHER.add(slab_pages(class) as i64);
            // SAFETY: the run was leaked by `grow`, and no object of it is in use.
            drop(unsafe { run_at(slab.cast(), slab_pages(class)) });
        }
    }
}

/// # Safety
/// `slab` must be live and not listed; the class lock is held.
unsafe fn link(slabs: &mut Class, slab: *mut SlabHeader) {
    // SAFETY: by the contract; listed slabs are live.
    unsafe {
        (*slab).prev = null_mut();
        (*slab).next = slabs.partial;
        if !slabs.partial.is_null() {
            (*slabs.partial).prev = slab;
        }
    }
    slabs.partial = slab;
}

/// # Safety
/// `slab` must be listed; the class lock is held.
unsafe fn unlink(slabs: &mut Class, slab: *mut SlabHeader) {
    // SAFETY: by the contract; listed slabs are live.
    unsafe {
        let (prev, next) = ((*slab).prev, (*slab).next);
        if prev.is_null() {
            slabs.partial = next;
        } else {
            (*prev).next = next;
        }
        if !next.is_null() {
            (*next).prev = prev;
        }
    }
}

#[cold]
fn alloc_large(layout: Layout) -> *mut u8 {
    let pages = large_pages(layout);
    match alloc_contiguous(pages) {
        Ok(run) => {
            stats::OTHER.add(-(pages as i64));
            stats::SLAB.add(pages as i64);
            run.leak().1
        }
        Err(_) => null_mut(),
    }
}

/// # Safety
/// `block` must come from `alloc_large` with this layout.
#[cold]
unsafe fn free_large(block: *mut u8, layout: Layout) {
    let pages = large_pages(layout);
    stats::SLAB.add(-(pages as i64));
    stats::OTHER.add(pages as i64);
    // SAFETY: `alloc_large` leaked this run.
    drop(unsafe { run_at(block, pages) });
}

/// A run is aligned to the power of two of its length, so asking for at least the alignment's worth is enough.
fn large_pages(layout: Layout) -> usize {
    layout.size().max(layout.align()).div_ceil(PAGE_SIZE)
}

/// # Safety
/// `start` must be a leaked run of `pages` pages.
unsafe fn run_at(start: *mut u8, pages: usize) -> FrameRun {
    let phys = PhysAddr(arch::paging::virt_to_phys(start));
    // SAFETY: by the contract.
    unsafe { FrameRun::from_phys(phys, pages) }
}

#[cfg(test)]
mod tests {
    use super::super::test_util::{Rng, init};
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn blocks_are_aligned_and_keep_their_content() {
        init();
        let mut rng = Rng(7);
        let mut live: Vec<(*mut u8, Layout, u8)> = Vec::new();
        for round in 0..20_000u32 {
            if rng.below(5) < 3 && live.len() < 2000 {
                let size = if rng.below(50) == 0 { rng.below(40_000) } else { rng.below(600) } as usize + 1;
                let layout = Layout::from_size_align(size, 1 << rng.below(9)).unwrap();
                // SAFETY: the size is not 0.
                let block = unsafe { Heap.alloc(layout) };
                assert!(!block.is_null() && (block as usize).is_multiple_of(layout.align()));
                // SAFETY: the block has that size.
                unsafe { block.write_bytes(round as u8, size) };
                live.push((block, layout, round as u8));
            } else if !live.is_empty() {
                let (block, layout, byte) = live.swap_remove(rng.below(live.len() as u64) as usize);
                // SAFETY: the block is live and has that size.
                unsafe {
                    assert!((0..layout.size()).all(|at| block.add(at).read() == byte));
                    Heap.dealloc(block, layout);
                }
            }
        }
        for (block, layout, _) in live {
            // SAFETY: as above.
            unsafe { Heap.dealloc(block, layout) };
        }
    }
}
