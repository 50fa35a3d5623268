//! Which pages of a file are in memory: chunks of 64 frames with bit maps, in a balanced map.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use core::sync::atomic::{AtomicU64, Ordering};

use super::super::frames::Frame;
use super::super::frames::page::{PageFlags, Pfn, page};
use crate::errno::{Errno, Result};

const SHIFT: u32 = 6;
const PAGES: usize = 1 << SHIFT;

struct Chunk {
    frames: [Pfn; PAGES],
    present: u64,
    /// Atomic: set by writers that hold the tree shared.
    dirty: AtomicU64,
}

impl Chunk {
    fn empty() -> Box<Chunk> {
        Box::new(Chunk { frames: [0; PAGES], present: 0, dirty: AtomicU64::new(0) })
    }
}

#[derive(Default)]
pub(super) struct Tree {
    chunks: BTreeMap<u64, Box<Chunk>>,
    len: usize,
    /// Where a sequential reader misses next, and how much it got last time (pages).
    pub next_miss: u64,
    pub window: usize,
    /// Where reclaim goes on.
    pub hand: u64,
}

const fn split(index: u64) -> (u64, usize) {
    (index >> SHIFT, index as usize % PAGES)
}

impl Tree {
    /// Pages present.
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub fn get(&self, index: u64) -> Option<Pfn> {
        let (key, slot) = split(index);
        let chunk = self.chunks.get(&key)?;
        (chunk.present & 1 << slot != 0).then(|| chunk.frames[slot])
    }

    /// The page if its content is valid; notes that it was used.
    #[inline]
    pub fn valid(&self, index: u64) -> Option<Pfn> {
        let pfn = self.get(index)?;
        let page = page(pfn);
        let flags = page.flags();
        if !flags.contains(PageFlags::UPTODATE) {
            return None;
        }
        if !flags.contains(PageFlags::REFERENCED) {
            page.set(PageFlags::REFERENCED);
        }
        Some(pfn)
    }

    /// Adds a page where there is none.
    pub fn insert(&mut self, index: u64, frame: Frame) -> Result<()> {
        let (key, slot) = split(index);
        let chunk = self.chunks.entry(key).or_insert_with(Chunk::empty);
        if chunk.present & 1 << slot != 0 {
            return Err(Errno::EEXIST);
        }
        chunk.present |= 1 << slot;
        chunk.frames[slot] = frame.into_raw();
        self.len += 1;
        Ok(())
    }

    /// Takes a page out; with it whether it was marked dirty here.
    pub fn remove(&mut self, index: u64) -> Option<(Frame, bool)> {
        let (key, slot) = split(index);
        let chunk = self.chunks.get_mut(&key)?;
        let bit = 1 << slot;
        if chunk.present & bit == 0 {
            return None;
        }
        chunk.present &= !bit;
        self.len -= 1;
        let dirty = *chunk.dirty.get_mut() & bit != 0;
        *chunk.dirty.get_mut() &= !bit;
        // SAFETY: `insert` gave up this count.
        let frame = unsafe { Frame::from_raw(chunk.frames[slot]) };
        if chunk.present == 0 {
            self.chunks.remove(&key);
        }
        Some((frame, dirty))
    }

    pub fn mark_dirty(&self, index: u64) {
        let (key, slot) = split(index);
        if let Some(chunk) = self.chunks.get(&key) {
            chunk.dirty.fetch_or(1 << slot, Ordering::AcqRel);
        }
    }

    pub fn is_dirty(&self, index: u64) -> bool {
        let (key, slot) = split(index);
        self.chunks.get(&key).is_some_and(|chunk| chunk.dirty.load(Ordering::Acquire) & 1 << slot != 0)
    }

    /// True if it was marked.
    pub fn mark_clean(&self, index: u64) -> bool {
        let (key, slot) = split(index);
        match self.chunks.get(&key) {
            Some(chunk) => chunk.dirty.fetch_and(!(1 << slot), Ordering::AcqRel) & 1 << slot != 0,
            None => false,
        }
    }

    /// The first dirty page from `index` on.
    pub fn next_dirty(&self, index: u64) -> Option<u64> {
        self.next_in(index, |chunk| chunk.dirty.load(Ordering::Acquire))
    }

    /// The first page from `index` on.
    pub fn next_present(&self, index: u64) -> Option<u64> {
        self.next_in(index, |chunk| chunk.present)
    }

    fn next_in(&self, index: u64, bits: impl Fn(&Chunk) -> u64) -> Option<u64> {
        let (first, slot) = split(index);
        self.chunks.range(first..).find_map(|(&key, chunk)| {
            let from = if key == first { u64::MAX << slot } else { u64::MAX };
            let found = bits(chunk) & from;
            (found != 0).then(|| (key << SHIFT) + found.trailing_zeros() as u64)
        })
    }

    /// Frees the pages of one chunk, those at the front; false if there is none.
    pub fn free_some(&mut self) -> bool {
        let Some((_, chunk)) = self.chunks.pop_first() else { return false };
        for slot in (0..PAGES).filter(|slot| chunk.present & 1 << slot != 0) {
            self.len -= 1;
            // SAFETY: `insert` gave up this count.
            drop(unsafe { Frame::from_raw(chunk.frames[slot]) });
        }
        true
    }
}
