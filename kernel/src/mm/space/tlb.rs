//! [`Gather`]: what was taken out of page tables waits here until no TLB can know it any more.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use arrayvec::ArrayVec;

use super::super::frames::page::{PageFlags, Pfn, page};
use super::super::frames::{free_block, put_block};
use super::table::{Orphan, alloc_table, buried_level, bury, free_table, pfn_of, put_page};
use crate::arch::paging;
use crate::arch::pte::Pte;
use crate::errno::Result;
use crate::exec;

/// Pages that are flushed one by one; beyond that the whole ASID is.
const SINGLE: usize = 8;
const PAGES: usize = 64;
const SHARED: usize = 16;
/// In the place of a table's level: a block. No table of level 0 is ever cut off.
const BLOCK: u32 = 0;

/// Collects pages and tables of one space. [`Gather::flush`] must be called before the lock of the space is dropped; what
/// was collected is freed afterwards, by [`Gather::finish`] or by the drop. It is large: not to be kept in a future.
pub(super) struct Gather<'a> {
    /// Of the space: its ASID is read when it is time to flush. None: no TLB knows the tables.
    context: Option<&'a AtomicU64>,
    /// Addresses whose last-level translation is stale.
    stale: ArrayVec<u64, SINGLE>,
    /// An address whose whole walk is stale.
    walk: Option<u64>,
    all: bool,
    pages: ArrayVec<Pte, PAGES>,
    /// Tables that had other owners when they were cut off, with their level, and blocks.
    shared: ArrayVec<(Pfn, u32), SHARED>,
    /// Tables that had none.
    debris: Debris,
}

impl<'a> Gather<'a> {
    pub fn new(context: Option<&'a AtomicU64>) -> Self {
        Gather {
            context,
            stale: ArrayVec::new(),
            walk: None,
            all: false,
            pages: ArrayVec::new(),
            shared: ArrayVec::new(),
            debris: Debris::default(),
        }
    }

    /// A page for a table of this space.
    pub fn new_table(&mut self) -> Result<Pfn> {
        alloc_table().inspect_err(|_| self.debris.short = true)
    }

    /// The translation of `addr` was valid and changed. One address stands for all of a block (Arm ARM D8.16).
    #[inline]
    pub fn note(&mut self, addr: u64) {
        if !self.all && self.stale.try_push(addr).is_err() {
            self.all = true;
        }
    }

    /// A table on the way to `addr` changed.
    pub fn note_walk(&mut self, addr: u64) {
        match self.walk {
            Some(other) if other != addr => self.all = true,
            _ => self.walk = Some(addr),
        }
    }

    pub fn note_all(&mut self) {
        self.all = true;
    }

    /// A page that was taken out at `addr`.
    #[inline]
    pub fn page(&mut self, addr: u64, pte: Pte) {
        self.note(addr);
        if self.pages.is_full() {
            self.flush();
            self.free_pages();
        }
        self.pages.push(pte);
    }

    /// A block that was taken out at `addr`.
    pub fn block(&mut self, addr: u64, pte: Pte) {
        self.note(addr);
        self.keep_shared(pfn_of(pte), BLOCK);
    }

    /// A table that was cut off with all that is in it.
    pub fn table(&mut self, table: Pfn, level: u32) {
        self.all = true;
        self.replaced(table, level);
    }

    /// A table in whose place a copy was put. All that TLBs know from it is still true, but for the way to it, which is
    /// the same for every address below: the caller has noted that walk.
    pub fn replaced(&mut self, table: Pfn, level: u32) {
        if page(table).refs() == 1 {
            self.debris.push(table, level);
        } else {
            self.keep_shared(table, level);
        }
    }

    fn keep_shared(&mut self, what: Pfn, level: u32) {
        if self.shared.is_full() {
            self.flush();
            self.put_shared();
        }
        self.shared.push((what, level));
    }

    /// Makes every TLB forget what was collected.
    #[inline]
    pub fn flush(&mut self) {
        if !self.all && self.walk.is_none() && self.stale.is_empty() {
            return;
        }
        //   here                     a CPU that makes the space current
        //   change entries           give it an ASID
        //   read the ASID            walk the tables
        // With a barrier between on both sides, either the ASID is seen here or the change there.
        fence(Ordering::SeqCst);
        match self.context.map_or(0, |context| context.load(Ordering::Relaxed) as u16) {
            0 => {}
            asid if self.all => paging::flush_asid(asid),
            asid => {
                if let Some(addr) = self.walk {
                    paging::flush_walk(asid, addr);
                }
                for &addr in self.stale.iter().filter(|&&addr| self.walk != Some(addr)) {
                    paging::flush_page(asid, addr);
                }
            }
        }
        self.all = false;
        self.walk = None;
        self.stale.clear();
    }

    /// Nothing is left to be flushed or freed, as after most faults.
    #[inline]
    pub fn is_idle(&self) -> bool {
        let flushed = !self.all && self.walk.is_none() && self.stale.is_empty();
        flushed && self.pages.is_empty() && self.shared.is_empty() && self.debris.first == 0
    }

    fn free_pages(&mut self) {
        for &pte in &self.pages {
            put_page(pte);
        }
        self.pages.clear();
    }

    fn put_shared(&mut self) {
        while let Some((what, level)) = self.shared.pop() {
            let orphan = if level == BLOCK { Orphan::Block(what) } else { Orphan::Table(what, level) };
            self.debris.put(orphan);
        }
    }

    /// Frees what takes little time; the rest is the answer. To be called without the space's lock.
    #[inline]
    pub fn finish(&mut self) -> Debris {
        if !self.pages.is_empty() || !self.shared.is_empty() {
            self.free_pages();
            self.put_shared();
        }
        core::mem::take(&mut self.debris)
    }
}

impl Drop for Gather<'_> {
    #[inline]
    fn drop(&mut self) {
        if !self.is_idle() {
            self.flush();
            drop(self.finish());
        }
    }
}

/// Dead tables of ours alone, with all that is in them, and dead blocks.
#[derive(Default)]
pub(super) struct Debris {
    /// A list: of tables through their reference counts, of blocks through `Page::data` of their first frames.
    first: Pfn,
    /// The change was given up because there was no page for a table.
    short: bool,
}

impl Debris {
    /// Must the change be made again when there are pages?
    #[inline]
    pub fn is_short(&self) -> bool {
        self.short
    }

    /// A dead table needs no reference count: that field holds the next one's number.
    fn push(&mut self, table: Pfn, level: u32) {
        bury(table, level);
        page(table).set_refs(self.first);
        self.first = table;
    }

    /// A block that nobody maps any more: how many do needs no count then.
    fn push_block(&mut self, block: Pfn) {
        page(block).set(PageFlags::DEAD_BLOCK);
        page(block).data.store(self.first as u64, Ordering::Relaxed);
        self.first = block;
    }

    /// Gives up one reference.
    #[inline]
    fn put(&mut self, orphan: Orphan) {
        match orphan {
            Orphan::Table(table, level) => {
                if page(table).put() {
                    self.push(table, level);
                }
            }
            Orphan::Block(block) => {
                if put_block(block) {
                    self.push_block(block);
                }
            }
        }
    }

    /// Frees one table or block; false when none is left.
    #[inline]
    fn free_one(&mut self) -> bool {
        if self.first == 0 {
            return false;
        }
        self.free_next();
        true
    }

    #[inline]
    fn free_next(&mut self) {
        let first = self.first;
        if page(first).has(PageFlags::DEAD_BLOCK) {
            page(first).clear(PageFlags::DEAD_BLOCK);
            self.first = page(first).data.load(Ordering::Relaxed) as Pfn;
            free_block(first);
        } else {
            self.first = page(first).refs();
            free_table(first, buried_level(first), &mut |orphan| self.put(orphan));
        }
    }

    /// Frees everything, with pauses.
    pub async fn free(mut self) {
        if self.first == 0 {
            return;
        }
        while self.free_one() {
            exec::budget().await;
        }
    }
}

impl Drop for Debris {
    #[inline]
    fn drop(&mut self) {
        while self.free_one() {}
    }
}
