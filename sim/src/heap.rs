//! The process's heap, which gives the same addresses in each run of a seed. The kernel hashes pointers here and there, and
//! where its objects lie must be as repeatable as everything else.
//!
//! Blocks come from a region at a fixed address, in classes of powers of two; freed ones are used again, last in first out.
//! A process that runs a seed begins with a region of its own ([`begin`]), so that it does not matter what its parent did.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;

const FIRST: usize = 0x5a00_0000_0000;
const SECOND: usize = 0x5b00_0000_0000;
const SIZE: usize = 16 << 30;
const CLASSES: usize = 40;

struct State {
    start: usize,
    next: usize,
    /// Freed blocks by class, linked through their first words.
    free: [usize; CLASSES],
}

struct Shared(UnsafeCell<State>);

// SAFETY: the simulator's processes have one thread; only its program makes this its allocator.
unsafe impl Sync for Shared {}

static STATE: Shared = Shared(UnsafeCell::new(State { start: 0, next: 0, free: [0; CLASSES] }));

/// The allocator, for the simulator's program.
pub struct Heap;

/// From now on blocks come from a new region. Those of the old one are never used again.
pub fn begin() {
    // SAFETY: one thread, and no call of the allocator is under way.
    unsafe { *STATE.0.get() = State { start: SECOND, next: map(SECOND), free: [0; CLASSES] } };
}

/// Reserves the region.
fn map(start: usize) -> usize {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: nothing is replaced.
    let at = unsafe { libc::mmap(start as *mut _, SIZE, protection, flags, -1, 0) };
    if at as usize != start {
        // SAFETY: ends the process. There is no heap to tell why.
        unsafe { libc::abort() };
    }
    start
}

/// The class of a layout, and its block size: a power of two that is enough for the alignment as well.
fn class(layout: Layout) -> (usize, usize) {
    let size = layout.size().max(layout.align()).max(16).next_power_of_two();
    (size.trailing_zeros() as usize, size)
}

impl State {
    /// A block, and whether it has never been used, and so is zero.
    unsafe fn take(&mut self, layout: Layout) -> (*mut u8, bool) {
        let (class, size) = class(layout);
        let freed = self.free[class];
        if freed != 0 {
            // SAFETY: a freed block of this class; its first word is the link.
            self.free[class] = unsafe { *(freed as *const usize) };
            return (freed as *mut u8, false);
        }
        if self.start == 0 {
            self.start = FIRST;
            self.next = map(FIRST);
        }
        let at = self.next.next_multiple_of(size.min(4096));
        self.next = at + size;
        if self.next > self.start + SIZE {
            return (std::ptr::null_mut(), false);
        }
        (at as *mut u8, true)
    }
}

// SAFETY: blocks do not overlap, are large enough, and aligned: to their size up to a page, which is the largest alignment
// that anything here asks for.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        debug_assert!(layout.align() <= 4096);
        // SAFETY: one thread.
        unsafe { (*STATE.0.get()).take(layout).0 }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: one thread; the block has the layout's size.
        unsafe {
            let (block, zero) = (*STATE.0.get()).take(layout);
            if !zero && !block.is_null() {
                block.write_bytes(0, layout.size());
            }
            block
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: one thread; the caller owns the block, which has room for the link.
        unsafe {
            let state = &mut *STATE.0.get();
            if (state.start..state.start + SIZE).contains(&(block as usize)) {
                let (class, _) = class(layout);
                *block.cast::<usize>() = state.free[class];
                state.free[class] = block as usize;
            }
        }
    }
}
