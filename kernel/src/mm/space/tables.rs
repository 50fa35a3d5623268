//! Page tables that spaces share until one of them writes (docs/design.md 11).
//!
//! A table page has a reference count: the number of descriptors that lead to it. Two rules make sharing safe without a
//! lock between the spaces:
//! * every descriptor that leads to a table with more than one reference has APTable = read-only;
//! * a shared table is not changed, except that private pages in it become read-only, which nobody can notice.
//!
//! So whoever finds one reference is the sole owner: it clears APTable and goes on. Whoever finds more makes its own
//! copy, in which the tables, blocks or frames one level below get one more reference.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use super::super::addr::{PAGE, PAGE_SHIFT};
use super::super::frames::BLOCK_FRAMES;
use super::super::frames::page::{Pfn, page};
use super::blocks::{self, BLOCK, is_whole, page_in_block};
pub(super) use super::table::{Counts, LEAF, span};
use super::table::{
    alloc_table, copy_counts, counts, entries, for_each_entry, free_table, index, is_empty, load, note_page_emptied,
    note_page_filled, note_table_emptied, note_table_filled, pfn_of, table_pte,
};
use super::tlb::Gather;
use crate::arch::pte::{Pte, PteFlags};
use crate::errno::Result;

/// The entry of one page, or one level above of a block, in a table that belongs to one space only.
#[derive(Clone, Copy)]
pub(super) struct Leaf {
    pub(super) table: Pfn,
    pub(super) index: usize,
    slot: &'static AtomicU64,
}

/// What leads to pages at some address.
pub(super) enum Lowest {
    None,
    Table(Pfn),
    Block(Leaf),
}

impl Leaf {
    #[inline]
    pub(super) fn at(table: Pfn, index: usize) -> Leaf {
        Leaf { table, index, slot: &entries(table)[index] }
    }

    #[inline]
    pub fn get(self) -> Pte {
        load(self.slot)
    }

    /// The table that a non-leaf entry leads to, if that is the space's own.
    #[inline]
    fn own_child(self) -> Option<Pfn> {
        const TABLE: u64 = PteFlags::VALID.union(PteFlags::TABLE).bits();
        let entry = self.get();
        (entry.0 & (TABLE | PteFlags::TABLE_READ_ONLY.bits()) == TABLE).then(|| pfn_of(entry))
    }

    /// Does the entry lead to a table that is not the space's own?
    fn is_shared_table(self) -> bool {
        let entry = self.get();
        entry.is_valid() && !entry.is_block() && self.own_child().is_none()
    }

    /// The table that an entry of a table of `level` leads to, made the space's own: new if there is none, copied if it is
    /// shared, with the pages of the block that was there.
    #[inline]
    fn child(self, level: u32, addr: u64, gather: &mut Gather) -> Result<Pfn> {
        match self.own_child() {
            Some(child) => Ok(child),
            None => self.make_child(level, addr, gather),
        }
    }

    #[cold]
    fn make_child(self, level: u32, addr: u64, gather: &mut Gather) -> Result<Pfn> {
        let entry = self.get();
        if !entry.is_valid() {
            let child = gather.new_table()?;
            self.slot.store(table_pte(child).0, Ordering::Release);
            note_table_filled(self.table, self.index);
            Ok(child)
        } else if entry.is_block() {
            blocks::split(self, addr, gather)
        } else {
            unshare(self.slot, level + 1, addr, gather)
        }
    }

    /// For what [`Tables::above`] answers: the entry of the page at `addr`, if it is in a table of the space's own.
    #[inline]
    pub fn page_entry(self, addr: u64) -> Option<Leaf> {
        Some(Leaf::at(self.own_child()?, index(LEAF, addr)))
    }

    /// The same, whatever has to be done for it.
    #[inline]
    pub fn below(self, addr: u64, gather: &mut Gather) -> Result<Leaf> {
        Ok(Leaf::at(self.child(LEAF - 1, addr, gather)?, index(LEAF, addr)))
    }

    /// The entry for `other`, if this one is for `addr` and both are in the same table.
    pub fn near(self, addr: u64, other: u64) -> Leaf {
        debug_assert_eq!(addr / span(LEAF - 1), other / span(LEAF - 1));
        Leaf::at(self.table, index(LEAF, other))
    }

    /// Fills an empty entry. The count of the frame, or of the block, goes over to the entry, unless it is SW_UNCOUNTED.
    #[inline]
    pub fn fill(self, pte: Pte) {
        note_page_filled(self.table, self.index, pte);
        self.slot.store(pte.0, Ordering::Release);
    }

    /// Empties the entry and answers what was in it; its count goes over to the caller.
    #[inline]
    pub fn take(self) -> Pte {
        let pte = self.get();
        if pte.is_valid() {
            self.slot.store(0, Ordering::Release);
            note_page_emptied(self.table, pte);
        }
        pte
    }

    /// Changes the flags of a valid entry.
    #[inline]
    pub fn change(self, pte: Pte) {
        self.slot.store(pte.0, Ordering::Release);
    }
}

/// The page tables of one space.
pub(super) struct Tables {
    root: Pfn,
    /// There is a block, or was.
    blocks: bool,
}

/// A look at a block can be one at the counts of all its frames: so many entries of pages cost as much.
pub(super) const BLOCK_COST: usize = 16;

impl Tables {
    pub fn new() -> Result<Tables> {
        Ok(Tables { root: alloc_table()?, blocks: false })
    }

    /// Physical address of the root, for TTBR0.
    pub fn root(&self) -> u64 {
        (self.root as u64) << PAGE_SHIFT
    }

    /// A copy that shares everything below the root. The caller flushes this space if the answer's flag says that
    /// something was writable before.
    pub fn fork(&self) -> Result<(Tables, bool)> {
        let mut copy = Tables::new()?;
        copy.blocks = self.blocks;
        let (from, to) = (entries(self.root), entries(copy.root));
        let mut flush = false;
        for_each_entry(self.root, |index, entry| {
            flush |= share_table(&from[index], &to[index], entry);
        });
        copy_counts(self.root, copy.root);
        Ok((copy, flush))
    }

    pub(super) fn root_table(&self) -> Pfn {
        self.root
    }

    /// The entry for `addr`, in tables that are this space's own; missing tables are made, shared ones copied, and a block
    /// is cut up.
    #[inline]
    pub fn leaf(&mut self, addr: u64, gather: &mut Gather) -> Result<Leaf> {
        self.above(addr, gather)?.below(addr, gather)
    }

    /// The entry above that of the page at `addr`, which may be for a block or a table, or empty.
    #[inline]
    pub fn above(&mut self, addr: u64, gather: &mut Gather) -> Result<Leaf> {
        let mut table = self.root;
        for level in 0..LEAF - 1 {
            table = Leaf::at(table, index(level, addr)).child(level, addr, gather)?;
        }
        Ok(Leaf::at(table, index(LEAF - 1, addr)))
    }

    /// The page entry for `addr` as the hardware sees it: read-only if a table above says so, one page of a block.
    #[inline]
    pub fn peek(&self, addr: u64) -> Option<Pte> {
        let mut table = self.root;
        let mut read_only = PteFlags::empty();
        for level in 0..LEAF {
            let entry = load(&entries(table)[index(level, addr)]);
            if !entry.is_valid() {
                return None;
            }
            if entry.is_block() {
                return Some(Pte(page_in_block(entry, addr).0 | read_only.bits()));
            }
            if entry.flags().contains(PteFlags::TABLE_READ_ONLY) {
                read_only = PteFlags::READ_ONLY;
            }
            table = pfn_of(entry);
        }
        let pte = load(&entries(table)[index(LEAF, addr)]);
        pte.is_valid().then_some(Pte(pte.0 | read_only.bits()))
    }

    /// The entry of a page, if the tables down to it are this space's alone.
    pub fn peek_own(&self, addr: u64) -> Option<Pte> {
        let mut table = self.root;
        for level in 0..LEAF {
            let entry = load(&entries(table)[index(level, addr)]);
            if !entry.is_valid() || entry.is_block() || entry.flags().contains(PteFlags::TABLE_READ_ONLY) {
                return None;
            }
            table = pfn_of(entry);
        }
        let pte = load(&entries(table)[index(LEAF, addr)]);
        pte.is_valid().then_some(pte)
    }

    /// Takes all pages in `range` out and hands them, and the tables that became empty, to `gather`.
    pub fn unmap(&mut self, range: Range<u64>, gather: &mut Gather) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        // Most ranges are small and lie in one table, which stays.
        if (range.start ^ (range.end - 1)) < BLOCK {
            match self.lowest(range.start, gather)? {
                Lowest::None => return Ok(()),
                Lowest::Block(_) => {}
                Lowest::Table(table) => {
                    unmap_pages(table, range.clone(), gather);
                    if !is_empty(table) {
                        return Ok(());
                    }
                }
            }
        }
        unmap(self.root, 0, range, gather)
    }

    /// Takes everything out; the root stays.
    pub fn clear(&mut self, gather: &mut Gather) {
        for_each_entry(self.root, |index, _| detach(self.root, &entries(self.root)[index], 1, gather));
    }

    /// Cuts up the block that `addr` lies inside of.
    #[inline]
    pub fn cut(&mut self, addr: u64, gather: &mut Gather) -> Result<()> {
        if self.blocks
            && !addr.is_multiple_of(BLOCK)
            && let Lowest::Block(entry) = self.lowest(addr, gather)?
        {
            blocks::split(entry, addr, gather)?;
        }
        Ok(())
    }

    /// From now on there may be blocks.
    pub fn note_block(&mut self) {
        self.blocks = true;
    }

    /// Calls `visit` for each present page in `range`, in tables that are this space's own, and for each block that is
    /// wholly in it; other blocks are cut up. Stops after about `limit` entries; answers where to go on.
    pub fn visit(
        &mut self,
        range: Range<u64>,
        limit: usize,
        gather: &mut Gather,
        visit: &mut dyn FnMut(u64, Leaf, &mut Gather),
    ) -> Result<u64> {
        let mut at = range.start;
        let mut seen = 0;
        while at < range.end && seen < limit {
            let table = match self.lowest(at, gather)? {
                Lowest::None => {
                    at = self.skip(at);
                    seen += 1;
                    continue;
                }
                Lowest::Block(entry) if is_whole(at, &range) => {
                    visit(at, entry, gather);
                    at += BLOCK;
                    seen += BLOCK_COST;
                    continue;
                }
                Lowest::Block(entry) => blocks::split(entry, at, gather)?,
                Lowest::Table(table) => table,
            };
            let end = block_end(at).min(range.end);
            visit_table(table, at..end, |at, leaf| visit(at, leaf, gather));
            seen += ((end - at) / PAGE) as usize;
            at = end;
        }
        Ok(at.min(range.end))
    }

    /// The lowest-level table for `addr`, or the entry of the block, un-shared.
    pub(super) fn lowest(&mut self, addr: u64, gather: &mut Gather) -> Result<Lowest> {
        // Look first: do not copy tables on the way to a hole.
        let mut table = self.root;
        let mut shared = false;
        for level in 0..LEAF {
            let index = index(level, addr);
            let entry = load(&entries(table)[index]);
            if !entry.is_valid() {
                return Ok(Lowest::None);
            }
            if entry.is_block() {
                let entry = if shared { self.above(addr, gather)? } else { Leaf::at(table, index) };
                return Ok(Lowest::Block(entry));
            }
            shared |= entry.flags().contains(PteFlags::TABLE_READ_ONLY);
            table = pfn_of(entry);
        }
        if shared {
            table = self.leaf(addr, gather)?.table;
        }
        Ok(Lowest::Table(table))
    }

    /// The first address after `addr`, where nothing is, for which there may be a table or a block.
    pub(super) fn skip(&self, addr: u64) -> u64 {
        let mut table = self.root;
        for level in 0..LEAF {
            let entry = load(&entries(table)[index(level, addr)]);
            if !entry.is_valid() {
                return (addr | (span(level) - 1)) + 1;
            }
            table = pfn_of(entry);
        }
        addr
    }

    /// Resident pages, and how many tables there are (as live).
    pub fn resident(&self) -> Counts {
        let mut sum = Counts { live: 1, ..Counts::default() };
        add_resident(self.root, 0, &mut sum);
        sum
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        let mut gather = Gather::new(None);
        self.clear(&mut gather);
        drop(gather);
        free_table(self.root, 0, &mut |_| ());
    }
}

/// Calls `visit` for each present page in a range that one lowest table, which is a space's own, covers.
#[inline]
pub(super) fn visit_table(table: Pfn, range: Range<u64>, mut visit: impl FnMut(u64, Leaf)) {
    let mut at = range.start;
    while at < range.end {
        let leaf = Leaf::at(table, index(LEAF, at));
        if leaf.get().is_valid() {
            visit(at, leaf);
        }
        at += PAGE;
    }
}

/// Where what one lowest table, or one block, maps ends.
pub(super) fn block_end(addr: u64) -> u64 {
    (addr | (BLOCK - 1)) + 1
}

fn add_resident(table: Pfn, level: u32, sum: &mut Counts) {
    // Only what is one above the lowest has any.
    sum.anon += counts(table).anon * BLOCK_FRAMES as u64;
    for_each_entry(table, |_, entry| {
        if entry.is_block() {
            return;
        }
        let child = pfn_of(entry);
        sum.live += 1;
        if level + 1 == LEAF {
            let here = counts(child);
            sum.anon += here.anon;
            sum.file += here.file;
        } else {
            add_resident(child, level + 1, sum);
        }
    });
}

/// Lets `to` lead to the table of `from` too. True if `from` gave write access until now.
fn share_table(from: &AtomicU64, to: &AtomicU64, entry: Pte) -> bool {
    page(pfn_of(entry)).get();
    let shared = entry.0 | PteFlags::TABLE_READ_ONLY.bits();
    to.store(shared, Ordering::Release);
    if shared == entry.0 {
        return false;
    }
    from.store(shared, Ordering::Release);
    true
}

/// Makes the table that `slot` leads to (of `level`, on the way to `addr`) belong to this space alone.
#[cold]
fn unshare(slot: &AtomicU64, level: u32, addr: u64, gather: &mut Gather) -> Result<Pfn> {
    let old = pfn_of(load(slot));
    gather.note_walk(addr);
    if page(old).refs() == 1 {
        slot.store(table_pte(old).0, Ordering::Release);
        return Ok(old);
    }
    let new = gather.new_table()?;
    let (from, to) = (entries(old), entries(new));
    for_each_entry(old, |index, entry| {
        let (from, to) = (&from[index], &to[index]);
        if level == LEAF {
            share_page(from, to, entry);
        } else if entry.is_block() {
            blocks::share(from, to, entry);
        } else {
            share_table(from, to, entry);
        }
    });
    copy_counts(old, new);
    slot.store(table_pte(new).0, Ordering::Release);
    gather.replaced(old, level);
    Ok(new)
}

/// Lets `to` map the page of `from` too; a private page becomes read-only in both.
fn share_page(from: &AtomicU64, to: &AtomicU64, entry: Pte) {
    let flags = entry.flags();
    if !flags.contains(PteFlags::SW_UNCOUNTED) {
        page(pfn_of(entry)).get();
    }
    let mut shared = entry.0;
    if flags.contains(PteFlags::SW_PRIVATE) {
        shared |= PteFlags::READ_ONLY.bits();
        if shared != entry.0 {
            from.store(shared, Ordering::Release);
        }
    }
    to.store(shared, Ordering::Release);
}

fn unmap(table: Pfn, level: u32, range: Range<u64>, gather: &mut Gather) -> Result<()> {
    if level == LEAF {
        unmap_pages(table, range, gather);
        return Ok(());
    }
    let size = span(level);
    let mut at = range.start;
    while at < range.end {
        let end = ((at | (size - 1)) + 1).min(range.end);
        let leaf = Leaf::at(table, index(level, at));
        let entry = leaf.get();
        if !entry.is_valid() {
            if is_empty(table) {
                break;
            }
        } else if end - at == size {
            if entry.is_block() {
                gather.block(at, leaf.take());
            } else {
                detach(table, leaf.slot, level + 1, gather);
            }
        } else if !leaf.is_shared_table() || !is_hole(pfn_of(entry), level + 1, at..end) {
            let child = leaf.child(level, at, gather)?;
            unmap(child, level + 1, at..end, gather)?;
            if is_empty(child) {
                detach(table, leaf.slot, level + 1, gather);
            }
        }
        at = end;
    }
    Ok(())
}

/// Is there nothing in this part of a table? What is shared need not be made one's own then.
fn is_hole(table: Pfn, level: u32, range: Range<u64>) -> bool {
    let size = span(level);
    let mut at = range.start;
    while at < range.end {
        let end = ((at | (size - 1)) + 1).min(range.end);
        let entry = load(&entries(table)[index(level, at)]);
        let empty =
            !entry.is_valid() || level < LEAF && !entry.is_block() && is_hole(pfn_of(entry), level + 1, at..end);
        if !empty {
            return false;
        }
        at = end;
    }
    true
}

#[inline]
fn unmap_pages(table: Pfn, range: Range<u64>, gather: &mut Gather) {
    let first = index(LEAF, range.start);
    let count = ((range.end - range.start) / PAGE) as usize;
    let Some(slots) = entries(table).get(first..first + count) else { return };
    for (offset, slot) in slots.iter().enumerate() {
        // Most are empty: no order with other accesses is needed to see that.
        if slot.load(Ordering::Relaxed) != 0 {
            let leaf = Leaf { table, index: first + offset, slot };
            gather.page(range.start + offset as u64 * PAGE, leaf.take());
        }
    }
}

/// Cuts a table off its parent.
fn detach(parent: Pfn, slot: &AtomicU64, level: u32, gather: &mut Gather) {
    let child = pfn_of(load(slot));
    slot.store(0, Ordering::Release);
    note_table_emptied(parent);
    gather.table(child, level);
}
