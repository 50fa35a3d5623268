//! One table page: its entries, and what `Page::data` of its frame says about them.
//!
//! ```text
//!   63 62 | 61 ........ 30 | 29 .. 20 | 19 .. 10 | 9 .. 0
//!   level | groups in use  | file     | anon     | live      (level: of dead tables only)
//! ```
//! `anon` and `file` count the pages of a table of the lowest level, and `anon` the blocks of one above it. A group is 16 entries; its bit is set with the first entry and cleared when the whole table is empty. So going through
//! a table costs by what is in it, mostly.

use core::sync::atomic::{AtomicU64, Ordering};

use super::super::addr::PAGE_SHIFT;
use super::super::frames::page::{PageFlags, Pfn, frame_ptr, page};
use super::super::frames::{BLOCK_FRAMES, Frame, alloc_zeroed};
use super::super::stats;
use crate::arch::pte::{Pte, PteFlags};
use crate::errno::Result;

/// Level of the tables whose entries are pages. The root is level 0.
pub(super) const LEAF: u32 = 3;
const ENTRIES: usize = 512;
const GROUP: usize = 16;
/// What a descriptor of a table says, apart from the address.
const TABLE: PteFlags = PteFlags::VALID.union(PteFlags::TABLE);

/// Bytes that one entry of a table of this level maps.
pub(super) const fn span(level: u32) -> u64 {
    1 << (PAGE_SHIFT + 9 * (LEAF - level))
}

pub(super) const fn index(level: u32, addr: u64) -> usize {
    (addr / span(level)) as usize % ENTRIES
}

pub(super) fn entries(table: Pfn) -> &'static [AtomicU64; ENTRIES] {
    // SAFETY: tables are whole frames, reached through the linear map, and only used as atomics. The reference is not
    // kept beyond the operation during which the caller holds a reference on the table.
    unsafe { &*frame_ptr(table).cast() }
}

pub(super) fn load(slot: &AtomicU64) -> Pte {
    Pte(slot.load(Ordering::Acquire))
}

pub(super) fn pfn_of(pte: Pte) -> Pfn {
    (pte.address() >> PAGE_SHIFT) as Pfn
}

pub(super) fn table_pte(table: Pfn) -> Pte {
    Pte::new((table as u64) << PAGE_SHIFT, TABLE)
}

/// How many entries of a table are in use, and how many of them are pages, or blocks, that count as resident.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub live: u64,
    pub anon: u64,
    pub file: u64,
}

/// Units of the counters.
const LIVE: u64 = 1;
const ANON: u64 = 1 << 10;
const FILE: u64 = 1 << 20;
const COUNTER: u64 = 0x3ff;
const GROUPS_SHIFT: u32 = 30;
const LEVEL_SHIFT: u32 = 62;

fn data(table: Pfn) -> &'static AtomicU64 {
    &page(table).data
}

impl Counts {
    fn of(data: u64) -> Counts {
        Counts { live: data & COUNTER, anon: (data / ANON) & COUNTER, file: (data / FILE) & COUNTER }
    }
}

pub(super) fn counts(table: Pfn) -> Counts {
    Counts::of(data(table).load(Ordering::Relaxed))
}

pub(super) fn is_empty(table: Pfn) -> bool {
    data(table).load(Ordering::Relaxed) & COUNTER == 0
}

/// What a page or block entry adds to the counters of its table.
fn weight(pte: Pte) -> u64 {
    if pte.flags().contains(PteFlags::SW_UNCOUNTED) {
        LIVE
    } else if page(pfn_of(pte)).has(PageFlags::CACHE) {
        LIVE + FILE
    } else {
        LIVE + ANON
    }
}

fn note_filled(table: Pfn, index: usize, weight: u64) {
    let data = data(table);
    let group = 1 << (GROUPS_SHIFT as usize + index / GROUP);
    data.store((data.load(Ordering::Relaxed) + weight) | group, Ordering::Relaxed);
}

fn note_emptied(table: Pfn, weight: u64) {
    let data = data(table);
    let left = data.load(Ordering::Relaxed) - weight;
    data.store(if left & COUNTER == 0 { 0 } else { left }, Ordering::Relaxed);
}

pub(super) fn note_page_filled(table: Pfn, index: usize, pte: Pte) {
    note_filled(table, index, weight(pte));
}

pub(super) fn note_page_emptied(table: Pfn, pte: Pte) {
    note_emptied(table, weight(pte));
}

pub(super) fn note_table_filled(table: Pfn, index: usize) {
    note_filled(table, index, LIVE);
}

pub(super) fn note_table_emptied(table: Pfn) {
    note_emptied(table, LIVE);
}

/// A block entry became a table.
pub(super) fn note_split(table: Pfn) {
    let data = data(table);
    data.store(data.load(Ordering::Relaxed) - ANON, Ordering::Relaxed);
}

/// The table was filled with the pages of a block.
pub(super) fn note_full(table: Pfn) {
    const GROUPS: u64 = (1 << (ENTRIES / GROUP)) - 1;
    const FULL: u64 = (ENTRIES as u64 * (LIVE + ANON)) | (GROUPS << GROUPS_SHIFT);
    data(table).store(FULL, Ordering::Relaxed);
}

/// A copy with the same entries counts the same.
pub(super) fn copy_counts(from: Pfn, to: Pfn) {
    data(to).store(data(from).load(Ordering::Relaxed), Ordering::Relaxed);
}

/// Remembers the level of a table that is dead.
pub(super) fn bury(table: Pfn, level: u32) {
    data(table).fetch_or((level as u64) << LEVEL_SHIFT, Ordering::Relaxed);
}

pub(super) fn buried_level(table: Pfn) -> u32 {
    (data(table).load(Ordering::Relaxed) >> LEVEL_SHIFT) as u32
}

/// Calls `visit` with the index and value of each entry in use.
#[inline]
pub(super) fn for_each_entry(table: Pfn, mut visit: impl FnMut(usize, Pte)) {
    let data = data(table).load(Ordering::Relaxed);
    let mut left = data & COUNTER;
    let mut groups = (data >> GROUPS_SHIFT) as u32;
    let entries = entries(table);
    while groups != 0 && left != 0 {
        let first = groups.trailing_zeros() as usize * GROUP;
        groups &= groups - 1;
        let Some(group) = entries.get(first..first + GROUP) else { return };
        for (offset, slot) in group.iter().enumerate() {
            let entry = load(slot);
            if entry.is_valid() {
                left -= 1;
                visit(first + offset, entry);
            }
        }
    }
}

#[inline]
pub(super) fn alloc_table() -> Result<Pfn> {
    let table = alloc_zeroed()?.into_raw();
    data(table).store(0, Ordering::Relaxed);
    stats::TABLES.add(1);
    Ok(table)
}

/// What a dead table led to.
pub(super) enum Orphan {
    /// With its level.
    Table(Pfn, u32),
    Block(Pfn),
}

/// Gives up the references that the entries of a dead table hold: `child` gets tables and blocks, frames are freed. Then
/// frees the table itself, which nobody can reach any more.
pub(super) fn free_table(table: Pfn, level: u32, child: &mut dyn FnMut(Orphan)) {
    for_each_entry(table, |_, entry| match level {
        LEAF => put_page(entry),
        _ if entry.is_block() => child(Orphan::Block(pfn_of(entry))),
        _ => child(Orphan::Table(pfn_of(entry), level + 1)),
    });
    stats::TABLES.add(-1);
    // `put` of the caller may have brought the count to zero already: start from one again.
    page(table).set_refs(1);
    // SAFETY: the frame was given up with `into_raw` in `alloc_table`; its last reference ends here.
    drop(unsafe { Frame::from_raw(table) });
}

/// Fills a new table with the pages of a block.
pub(super) fn fill_from_block(table: Pfn, block: Pte) {
    let first = Pte(block.0 | PteFlags::TABLE.bits());
    for (slot, index) in entries(table).iter().zip(0..BLOCK_FRAMES as u64) {
        slot.store(first.0 + (index << PAGE_SHIFT), Ordering::Relaxed);
    }
    note_full(table);
}

/// Gives up what a page entry holds.
#[inline]
pub(super) fn put_page(pte: Pte) {
    if pte.is_valid() && !pte.flags().contains(PteFlags::SW_UNCOUNTED) {
        // SAFETY: the entry held this count (see `Leaf::fill`), and was taken out of its table.
        drop(unsafe { Frame::from_raw(pfn_of(pte)) });
    }
}
