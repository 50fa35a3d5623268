//! [`Gather`]: what was taken out of page tables waits here until no TLB can know it any more.

use core::sync::atomic::{AtomicU64, Ordering, fence};

use arrayvec::ArrayVec;

use super::super::frames::page::{Pfn, page};
use super::table::{alloc_table, buried_level, bury, free_table, put_page};
use crate::arch::paging;
use crate::arch::pte::Pte;
use crate::errno::Result;
use crate::exec;

/// Pages that are flushed one by one; beyond that the whole ASID is.
const SINGLE: usize = 8;
const PAGES: usize = 64;
const SHARED: usize = 16;

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
    /// Tables that had other owners when they were cut off, with their level.
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

    /// The translation of `addr` was valid and changed.
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
            return;
        }
        if self.shared.is_full() {
            self.flush();
            self.put_shared();
        }
        self.shared.push((table, level));
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

    fn free_pages(&mut self) {
        for &pte in &self.pages {
            put_page(pte);
        }
        self.pages.clear();
    }

    fn put_shared(&mut self) {
        while let Some((table, level)) = self.shared.pop() {
            if page(table).put() {
                self.debris.push(table, level);
            }
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
        self.flush();
        drop(self.finish());
    }
}

/// Dead tables of ours alone, with all that is in them: a list through `Page::data`.
#[derive(Default)]
pub(super) struct Debris {
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

    /// Frees one table; false when none is left.
    fn free_one(&mut self) -> bool {
        let table = self.first;
        if table == 0 {
            return false;
        }
        self.first = page(table).refs();
        free_table(table, buried_level(table), &mut |child, level| {
            if page(child).put() {
                self.push(child, level);
            }
        });
        true
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
