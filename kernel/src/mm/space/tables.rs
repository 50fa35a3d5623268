//! Page tables that spaces share until one of them writes (docs/design.md 11).
//!
//! A table page has a reference count: the number of descriptors that lead to it. Two rules make sharing safe without a
//! lock between the spaces:
//! * every descriptor that leads to a table with more than one reference has APTable = read-only;
//! * a shared table is not changed, except that private pages in it become read-only, which nobody can notice.
//!
//! So whoever finds one reference is the sole owner: it clears APTable and goes on. Whoever finds more makes its own
//! copy, in which the tables or frames one level below get one more reference.
//!
//! `Page::data` of a table counts its entries; see [`Counts`].

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use super::super::addr::{PAGE, PAGE_SHIFT, USER_END};
use super::super::frames::page::{PageFlags, Pfn, frame_ptr, page};
use super::super::frames::{Frame, alloc_zeroed};
use super::super::stats;
use super::tlb::Gather;
use crate::arch::pte::{Pte, PteFlags};
use crate::errno::Result;

/// Level of the tables whose entries are pages. The root is level 0.
pub(super) const LEAF: u32 = 3;
const ENTRIES: usize = 512;
/// What a descriptor of a table says, apart from the address.
const TABLE: PteFlags = PteFlags::VALID.union(PteFlags::TABLE);

/// Bytes that one entry of a table of this level maps.
pub(super) const fn span(level: u32) -> u64 {
    1 << (PAGE_SHIFT + 9 * (LEAF - level))
}

const fn index(level: u32, addr: u64) -> usize {
    (addr / span(level)) as usize % ENTRIES
}

fn entries(table: Pfn) -> &'static [AtomicU64; ENTRIES] {
    // SAFETY: tables are whole frames, reached through the linear map, and only used as atomics. The reference is not
    // kept beyond the operation during which the caller holds a reference on the table.
    unsafe { &*frame_ptr(table).cast() }
}

fn load(slot: &AtomicU64) -> Pte {
    Pte(slot.load(Ordering::Acquire))
}

fn pfn_of(pte: Pte) -> Pfn {
    (pte.address() >> PAGE_SHIFT) as Pfn
}

fn table_pte(table: Pfn) -> Pte {
    Pte::new((table as u64) << PAGE_SHIFT, TABLE)
}

/// How many entries of a table are in use, and for the lowest level how many of them count as resident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub live: u64,
    pub anon: u64,
    pub file: u64,
}

const LIVE: u64 = 1;
const ANON: u64 = 1 << 16;
const RESIDENT_FILE: u64 = 1 << 32;

fn counts(table: Pfn) -> Counts {
    let data = page(table).data.load(Ordering::Relaxed);
    Counts { live: data & 0xffff, anon: (data >> 16) & 0xffff, file: (data >> 32) & 0xffff }
}

fn count_add(table: Pfn, what: u64) {
    let data = &page(table).data;
    data.store(data.load(Ordering::Relaxed) + what, Ordering::Relaxed);
}

fn count_sub(table: Pfn, what: u64) {
    let data = &page(table).data;
    data.store(data.load(Ordering::Relaxed) - what, Ordering::Relaxed);
}

/// How a page entry counts.
fn weight(pte: Pte) -> u64 {
    if pte.flags().contains(PteFlags::SW_UNCOUNTED) {
        LIVE
    } else if page(pfn_of(pte)).has(PageFlags::CACHE) {
        LIVE + RESIDENT_FILE
    } else {
        LIVE + ANON
    }
}

fn alloc_table() -> Result<Pfn> {
    let table = alloc_zeroed()?.into_raw();
    page(table).data.store(0, Ordering::Relaxed);
    stats::TABLES.add(1);
    Ok(table)
}

/// The entry of one page in a table that belongs to one space only.
#[derive(Clone, Copy)]
pub(super) struct Leaf {
    table: Pfn,
    slot: &'static AtomicU64,
}

impl Leaf {
    fn at(table: Pfn, index: usize) -> Leaf {
        Leaf { table, slot: &entries(table)[index] }
    }

    #[inline]
    pub fn get(self) -> Pte {
        load(self.slot)
    }

    /// The entry for `other`, if this one is for `addr` and both are in the same table.
    pub fn near(self, addr: u64, other: u64) -> Leaf {
        debug_assert_eq!(addr / span(LEAF - 1), other / span(LEAF - 1));
        Leaf::at(self.table, index(LEAF, other))
    }

    /// Fills an empty entry. The count of the frame goes over to the entry, unless it is SW_UNCOUNTED.
    #[inline]
    pub fn fill(self, pte: Pte) {
        count_add(self.table, weight(pte));
        self.slot.store(pte.0, Ordering::Release);
    }

    /// Empties the entry and answers what was in it; its count goes over to the caller.
    #[inline]
    pub fn take(self) -> Pte {
        let pte = self.get();
        if pte.is_valid() {
            self.slot.store(0, Ordering::Release);
            count_sub(self.table, weight(pte));
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
}

impl Tables {
    pub fn new() -> Result<Tables> {
        Ok(Tables { root: alloc_table()? })
    }

    /// Physical address of the root, for TTBR0.
    pub fn root(&self) -> u64 {
        (self.root as u64) << PAGE_SHIFT
    }

    /// A copy that shares everything below the root. The caller flushes this space if the answer's flag says that
    /// something was writable before.
    pub fn fork(&self) -> Result<(Tables, bool)> {
        let copy = Tables::new()?;
        let (from, to) = (entries(self.root), entries(copy.root));
        let mut left = counts(self.root).live;
        let mut flush = false;
        for (from, to) in from.iter().zip(to) {
            if left == 0 {
                break;
            }
            let entry = load(from);
            if entry.is_valid() {
                left -= 1;
                flush |= share_table(from, to, entry);
                count_add(copy.root, LIVE);
            }
        }
        Ok((copy, flush))
    }

    /// The entry for `addr`, in tables that are this space's own; missing tables are made, shared ones copied.
    #[inline]
    pub fn leaf(&mut self, addr: u64, gather: &mut Gather) -> Result<Leaf> {
        let mut table = self.root;
        for level in 0..LEAF {
            let slot = &entries(table)[index(level, addr)];
            let entry = load(slot);
            table = if !entry.is_valid() {
                let child = alloc_table()?;
                slot.store(table_pte(child).0, Ordering::Release);
                count_add(table, LIVE);
                child
            } else if entry.flags().contains(PteFlags::TABLE_READ_ONLY) {
                unshare(slot, level + 1, addr, gather)?
            } else {
                pfn_of(entry)
            };
        }
        Ok(Leaf::at(table, index(LEAF, addr)))
    }

    /// The page entry for `addr` as the hardware sees it: read-only if a table above says so.
    pub fn peek(&self, addr: u64) -> Option<Pte> {
        let mut table = self.root;
        let mut read_only = PteFlags::empty();
        for level in 0..LEAF {
            let entry = load(&entries(table)[index(level, addr)]);
            if !entry.is_valid() {
                return None;
            }
            if entry.flags().contains(PteFlags::TABLE_READ_ONLY) {
                read_only = PteFlags::READ_ONLY;
            }
            table = pfn_of(entry);
        }
        let pte = load(&entries(table)[index(LEAF, addr)]);
        pte.is_valid().then_some(Pte(pte.0 | read_only.bits()))
    }

    /// Takes all pages in `range` out and hands them, and the tables that became empty, to `gather`.
    pub fn unmap(&mut self, range: Range<u64>, gather: &mut Gather) -> Result<()> {
        if range.start < range.end {
            unmap(self.root, 0, range, gather)?;
        }
        Ok(())
    }

    /// Takes everything out; the root stays.
    pub fn clear(&mut self, gather: &mut Gather) {
        // Whole entries of the root only: nothing to un-share, nothing that can fail.
        let _ = self.unmap(0..USER_END, gather);
    }

    /// Calls `visit` for each present page in `range`, in tables that are this space's own. Stops after about `limit`
    /// pages; answers where to go on.
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
            let Some((table, next)) = self.leaf_table(at, gather)? else {
                at = self.skip(at);
                continue;
            };
            let end = next.min(range.end);
            while at < end {
                let leaf = Leaf::at(table, index(LEAF, at));
                if leaf.get().is_valid() {
                    visit(at, leaf, gather);
                }
                at += PAGE;
                seen += 1;
            }
        }
        Ok(at.min(range.end))
    }

    /// The lowest-level table for `addr` and the address after what it maps, un-shared; None if there is none.
    fn leaf_table(&mut self, addr: u64, gather: &mut Gather) -> Result<Option<(Pfn, u64)>> {
        // Look first: do not copy tables on the way to a hole.
        let mut table = self.root;
        for level in 0..LEAF {
            let entry = load(&entries(table)[index(level, addr)]);
            if !entry.is_valid() {
                return Ok(None);
            }
            table = pfn_of(entry);
        }
        let leaf = self.leaf(addr, gather)?;
        Ok(Some((leaf.table, (addr | (span(LEAF - 1) - 1)) + 1)))
    }

    /// The first address after `addr` for which there may be a table.
    fn skip(&self, addr: u64) -> u64 {
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

    /// Moves the pages of `len` bytes at `old` to `new`, where nothing is mapped. Whole tables are moved where both
    /// addresses allow it.
    pub fn move_pages(&mut self, old: u64, new: u64, len: u64, gather: &mut Gather) -> Result<()> {
        let block = span(LEAF - 1);
        let mut at = 0;
        while at < len {
            let (from, to) = (old + at, new + at);
            let Some((table, next)) = self.leaf_table(from, gather)? else {
                at = self.skip(from) - old;
                continue;
            };
            if from % block == 0 && to % block == 0 && len - at >= block {
                self.move_table(from, to, gather)?;
                at += block;
                continue;
            }
            let end = (next - old).min(len);
            while at < end {
                let source = Leaf::at(table, index(LEAF, old + at));
                if source.get().is_valid() {
                    let target = self.leaf(new + at, gather)?;
                    let pte = source.take();
                    gather.note(old + at);
                    target.fill(pte);
                }
                at += PAGE;
            }
        }
        Ok(())
    }

    /// Moves one lowest-level table to where there is none or an empty one.
    fn move_table(&mut self, from: u64, to: u64, gather: &mut Gather) -> Result<()> {
        // Makes the way to both our own.
        let table = self.leaf(from, gather)?.table;
        let replaced = self.leaf(to, gather)?.table;
        let (from_parent, from_slot) = self.parent_of_leaf(from);
        let (_, to_slot) = self.parent_of_leaf(to);
        from_slot.store(0, Ordering::Release);
        count_sub(from_parent, LIVE);
        to_slot.store(table_pte(table).0, Ordering::Release);
        gather.table(replaced, LEAF);
        Ok(())
    }

    /// The table one above the lowest for `addr` (which exists) and the slot in it.
    fn parent_of_leaf(&self, addr: u64) -> (Pfn, &'static AtomicU64) {
        let mut table = self.root;
        for level in 0..LEAF - 1 {
            table = pfn_of(load(&entries(table)[index(level, addr)]));
        }
        (table, &entries(table)[index(LEAF - 1, addr)])
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
        let mut gather = Gather::new(0);
        self.clear(&mut gather);
        drop(gather);
        free_table_page(self.root);
    }
}

fn add_resident(table: Pfn, level: u32, sum: &mut Counts) {
    let mut left = counts(table).live;
    for slot in entries(table) {
        if left == 0 {
            break;
        }
        let entry = load(slot);
        if !entry.is_valid() {
            continue;
        }
        left -= 1;
        let child = pfn_of(entry);
        sum.live += 1;
        if level + 1 == LEAF {
            let here = counts(child);
            sum.anon += here.anon;
            sum.file += here.file;
        } else {
            add_resident(child, level + 1, sum);
        }
    }
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
    let new = alloc_table()?;
    let mut left = counts(old).live;
    for (from, to) in entries(old).iter().zip(entries(new)) {
        if left == 0 {
            break;
        }
        let entry = load(from);
        if !entry.is_valid() {
            continue;
        }
        left -= 1;
        if level < LEAF {
            share_table(from, to, entry);
        } else {
            share_page(from, to, entry);
        }
    }
    page(new).data.store(page(old).data.load(Ordering::Relaxed), Ordering::Relaxed);
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
        let slot = &entries(table)[index(level, at)];
        let entry = load(slot);
        if !entry.is_valid() {
            if counts(table).live == 0 {
                break;
            }
        } else if end - at == size {
            detach(table, slot, level + 1, gather);
        } else {
            let child = if entry.flags().contains(PteFlags::TABLE_READ_ONLY) {
                unshare(slot, level + 1, at, gather)?
            } else {
                pfn_of(entry)
            };
            unmap(child, level + 1, at..end, gather)?;
            if counts(child).live == 0 {
                detach(table, slot, level + 1, gather);
            }
        }
        at = end;
    }
    Ok(())
}

fn unmap_pages(table: Pfn, range: Range<u64>, gather: &mut Gather) {
    let first = index(LEAF, range.start);
    let count = ((range.end - range.start) / PAGE) as usize;
    let Some(slots) = entries(table).get(first..first + count) else { return };
    for (slot, at) in slots.iter().zip((range.start..).step_by(PAGE as usize)) {
        // Most are empty: no order with other accesses is needed to see that.
        if slot.load(Ordering::Relaxed) != 0 {
            gather.page(at, Leaf { table, slot }.take());
        }
    }
}

/// Cuts a table off its parent.
fn detach(parent: Pfn, slot: &AtomicU64, level: u32, gather: &mut Gather) {
    let child = pfn_of(load(slot));
    slot.store(0, Ordering::Release);
    count_sub(parent, LIVE);
    gather.table(child, level);
}

/// Gives up the references that the entries of a dead table hold: `child` gets the tables (with their level), frames
/// are freed. Then frees the table itself. Nobody can reach the table any more.
pub(super) fn free_table(table: Pfn, level: u32, child: &mut dyn FnMut(Pfn, u32)) {
    let mut left = counts(table).live;
    for slot in entries(table) {
        if left == 0 {
            break;
        }
        let entry = load(slot);
        if !entry.is_valid() {
            continue;
        }
        left -= 1;
        if level < LEAF {
            child(pfn_of(entry), level + 1);
        } else {
            put_page(entry);
        }
    }
    free_table_page(table);
}

fn free_table_page(table: Pfn) {
    stats::TABLES.add(-1);
    // SAFETY: the table's frame was given up with `into_raw` in `alloc_table`; its last reference ends here.
    // `put` of the caller may have brought the count to zero already: start from one again.
    page(table).set_refs(1);
    drop(unsafe { Frame::from_raw(table) });
}

/// Gives up what a page entry holds.
#[inline]
pub(super) fn put_page(pte: Pte) {
    if pte.is_valid() && !pte.flags().contains(PteFlags::SW_UNCOUNTED) {
        // SAFETY: the entry held this count (see `Leaf::fill`), and was taken out of its table.
        drop(unsafe { Frame::from_raw(pfn_of(pte)) });
    }
}
