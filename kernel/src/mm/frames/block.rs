//! Blocks: 2 MiB of contiguous frames that one entry of a page table maps.
//!
//! The frames of a block are ordinary ones, each with its own count: whoever holds a single one of them, a page entry or a
//! [`Frame`](super::Frame), needs to know nothing of blocks. Only the entries that map the whole block are counted apart, in
//! `Page::data` of the first frame, and hold one count of each frame together. So another such entry costs one addition
//! and not 512; a block entry that is cut up into pages, when it is the only one, passes its counts on to them; and a
//! frame is free when neither a page nor a block leads to it any more.

use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use super::page::{Pfn, frame_ptr, page};
use super::{RESERVE, TOTAL, ZONE, flush_cache, release};
use crate::mm::addr::PAGE_SIZE;
use crate::mm::{page_cache, stats};

const ORDER: usize = 9;
pub(crate) const BLOCK_FRAMES: usize = 1 << ORDER;
const BLOCK_SIZE: usize = BLOCK_FRAMES * PAGE_SIZE;

/// How many entries map the block.
fn entries(first: Pfn) -> &'static AtomicU64 {
    &page(first).data
}

fn frames(first: Pfn) -> core::ops::Range<Pfn> {
    first..first + BLOCK_FRAMES as Pfn
}

/// Bytes that are zeroed in one go.
const PIECE: usize = 64 << 10;

/// A block that nobody maps yet, of zeros as far as it has been cleared.
pub(crate) struct Block {
    first: Pfn,
    cleared: usize,
}

impl Block {
    /// None if there is none to spare: a block saves time and wastes memory, so single frames come first, of which an eighth of
    /// all memory is left unless the program has asked for blocks. With `reclaim` cached pages make room.
    pub fn alloc(asked: bool, reclaim: bool) -> Option<Block> {
        let total = TOTAL.load(Ordering::Relaxed);
        let left = if asked { RESERVE.load(Ordering::Relaxed) } else { total / 8 };
        let first = match take(left) {
            Ok(first) => first,
            Err(shortage) if shortage && reclaim && BACKOFF.allows() => reclaim_and_take(left)?,
            Err(_) => return None,
        };
        for pfn in frames(first) {
            page(pfn).reset();
            page(pfn).set_refs(1);
        }
        entries(first).store(1, Ordering::Relaxed);
        stats::HUGE.add(BLOCK_FRAMES as i64);
        Some(Block { first, cleared: 0 })
    }

    /// Zeros the next piece; false if that was the last.
    pub fn clear_more(&mut self) -> bool {
        if self.cleared < BLOCK_SIZE {
            // SAFETY: the frames are contiguous RAM and ours alone, and the piece is one of them.
            unsafe { frame_ptr(self.first).add(self.cleared).write_bytes(0, PIECE) };
            self.cleared += PIECE;
        }
        self.cleared < BLOCK_SIZE
    }

    /// For an entry, which has to give it up with [`put_block`].
    pub fn into_raw(self) -> Pfn {
        debug_assert_eq!(self.cleared, BLOCK_SIZE);
        ManuallyDrop::new(self).first
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if put_block(self.first) {
            free_block(self.first);
        }
    }
}

/// If `left` frames stay behind. The error says whether there is too little memory; else it is only in pieces.
fn take(left: usize) -> Result<Pfn, bool> {
    let mut zone = ZONE.lock();
    if zone.free_frames() < left + BLOCK_FRAMES {
        return Err(true);
    }
    if zone.large_frames() < RESERVE.load(Ordering::Relaxed) / 2 + BLOCK_FRAMES {
        return Err(false);
    }
    zone.alloc(ORDER).ok_or(false)
}

fn reclaim_and_take(left: usize) -> Option<Pfn> {
    let found = match page_cache::reclaim(2 * BLOCK_FRAMES) {
        0 => None,
        _ => {
            flush_cache();
            take(left).ok()
        }
    };
    BACKOFF.note(found.is_some());
    found
}

/// Cached pages that make no room for a block, because they are scattered, are given up in vain: after each time more and more
/// wishes for blocks are refused at once.
struct Backoff {
    /// Wishes that are still to be refused, and how many times in a row it was in vain.
    skip: AtomicU32,
    failures: AtomicU32,
}

static BACKOFF: Backoff = Backoff { skip: AtomicU32::new(0), failures: AtomicU32::new(0) };

impl Backoff {
    const MOST: u32 = 6;

    fn allows(&self) -> bool {
        self.skip.try_update(Ordering::Relaxed, Ordering::Relaxed, |skip| skip.checked_sub(1)).is_err()
    }

    fn note(&self, useful: bool) {
        let failures = if useful { 0 } else { (self.failures.load(Ordering::Relaxed) + 1).min(Self::MOST) };
        self.failures.store(failures, Ordering::Relaxed);
        self.skip.store((1 << failures) - 1, Ordering::Relaxed);
    }
}

/// Another entry maps the block. The caller has one that stays meanwhile.
pub(crate) fn share_block(first: Pfn) {
    entries(first).fetch_add(1, Ordering::Relaxed);
}

/// An entry is gone. True if it was the last: then the caller has to call [`free_block`].
#[must_use]
pub(crate) fn put_block(first: Pfn) -> bool {
    // Only who has an entry can make more: the sole one needs no read-modify-write.
    if entries(first).load(Ordering::Acquire) != 1 && entries(first).fetch_sub(1, Ordering::Release) != 1 {
        return false;
    }
    fence(Ordering::Acquire);
    true
}

/// Gives up the counts that the entries held together.
pub(crate) fn free_block(first: Pfn) {
    stats::HUGE.add(-(BLOCK_FRAMES as i64));
    let mut dead = [0u64; BLOCK_FRAMES / 64];
    for (index, pfn) in frames(first).enumerate() {
        if page(pfn).put() {
            dead[index / 64] |= 1 << (index % 64);
        }
    }
    if dead.iter().all(|&word| word == u64::MAX) {
        ZONE.lock().free(first, ORDER);
        return;
    }
    for (index, pfn) in frames(first).enumerate() {
        if dead[index / 64] & 1 << (index % 64) != 0 {
            release(pfn);
        }
    }
}

/// How many entries map the block that begins with this frame, of which one is the caller's.
pub(crate) fn block_entries(first: Pfn) -> u32 {
    entries(first).load(Ordering::Relaxed) as u32
}

/// Is the caller's entry all that leads to any of the frames?
pub(crate) fn is_sole_block(first: Pfn) -> bool {
    entries(first).load(Ordering::Acquire) == 1 && frames(first).all(|pfn| page(pfn).refs() == 1)
}

/// Puts 512 page entries in the place of one block entry: each frame has a count more for its page, the block an entry
/// less.
pub(crate) fn split_block(first: Pfn) {
    if entries(first).load(Ordering::Acquire) == 1 {
        // What the last entry held is what the pages need.
        stats::HUGE.add(-(BLOCK_FRAMES as i64));
        return;
    }
    for pfn in frames(first) {
        page(pfn).get();
    }
    if put_block(first) {
        free_block(first);
    }
}
