//! Blocks in the page tables: entries one level above the lowest that map 2 MiB of private anonymous memory.
//!
//! A block is entered only where there is neither page nor table, and where all of it is inside one mapping. What changes a
//! part of a block cuts it up into the pages that it consists of ([`split`]), which no program can notice; what changes
//! all of it treats its entry like that of a page. Fork shares blocks with the tables that they are in, and copies of
//! these tables share them by one count (see `frames::block`); the write that finds a block shared cuts it up and copies
//! a page.

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use super::super::addr::PAGE;
use super::super::frames::page::page;
use super::super::frames::{share_block, split_block};
use super::table::{LEAF, entries, fill_from_block, index, load, note_split, pfn_of, span, table_pte};
use super::tables::{Leaf, Lowest, Tables};
use super::tlb::Gather;
use crate::arch::paging;
use crate::arch::pte::{Pte, PteFlags};
use crate::errno::Result;

/// Bytes of a block.
pub(super) const BLOCK: u64 = span(LEAF - 1);

/// The start of the block that `addr` is in.
pub(super) fn block_down(addr: u64) -> u64 {
    addr & !(BLOCK - 1)
}

/// Is all of the block that starts at `at` inside `range`?
pub(super) fn is_whole(at: u64, range: &Range<u64>) -> bool {
    at.is_multiple_of(BLOCK) && at >= range.start && at < range.end && range.end - at >= BLOCK
}

/// The entry that the page at `addr` would have if its block were cut up.
pub(super) fn page_in_block(block: Pte, addr: u64) -> Pte {
    Pte((block.0 | PteFlags::TABLE.bits()) + (addr & (BLOCK - 1) & !(PAGE - 1)))
}

/// Puts a table of pages in the place of the block that `entry` maps; answers the table.
#[cold]
pub(super) fn split(entry: Leaf, addr: u64, gather: &mut Gather) -> Result<u32> {
    let table = gather.new_table()?;
    let block = entry.get();
    fill_from_block(table, block);
    split_block(pfn_of(block));
    // Break before make: no TLB may know a page both by itself and as part of a block (Arm ARM D8.16.1). Who meets the
    // break waits for the lock of the space, and finds the page there.
    entry.change(Pte::EMPTY);
    gather.note(addr);
    gather.flush();
    entry.change(table_pte(table));
    note_split(entry.table);
    paging::publish();
    Ok(table)
}

/// Lets `to` map the block of `from` too; it becomes read-only in both.
pub(super) fn share(from: &AtomicU64, to: &AtomicU64, entry: Pte) {
    share_block(pfn_of(entry));
    let shared = entry.0 | PteFlags::READ_ONLY.bits();
    if shared != entry.0 {
        from.store(shared, Ordering::Release);
    }
    to.store(shared, Ordering::Release);
}

impl Tables {
    /// Up to where the same entry says what [`Tables::peek`] says of `addr`.
    pub fn same_until(&self, addr: u64) -> u64 {
        match self.look(addr).0 {
            Lowest::Block(_) => (addr | (BLOCK - 1)) + 1,
            _ => (addr | (PAGE - 1)) + 1,
        }
    }

    /// What there is for `addr`, in tables that may be shared, and how many other tables lead there too: of each that is
    /// shared on the way, all but the one that was come by.
    #[inline]
    pub(super) fn look(&self, addr: u64) -> (Lowest, u32) {
        let mut table = self.root_table();
        let mut others = 0;
        for level in 0..LEAF {
            let index = index(level, addr);
            let entry = load(&entries(table)[index]);
            if !entry.is_valid() {
                return (Lowest::None, others);
            }
            if entry.is_block() {
                return (Lowest::Block(Leaf::at(table, index)), others);
            }
            table = pfn_of(entry);
            others += page(table).refs().saturating_sub(1);
        }
        (Lowest::Table(table), others)
    }
}
