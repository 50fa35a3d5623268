//! Going through the pages that are there, and how many map each.

use core::ops::Range;

use super::super::addr::PAGE;
use super::super::frames::block_entries;
use super::super::frames::page::{Page, PageFlags, page};
use super::blocks::page_in_block;
use super::table::{LEAF, entries, index, load, pfn_of};
use super::tables::{Lowest, Tables, block_end};
use crate::arch::pte::{Pte, PteFlags};

/// A page that is mapped.
pub(super) struct Present {
    pub at: u64,
    /// Its entry, or the one that it would have if its block were cut up.
    pub pte: Pte,
    pub in_block: bool,
    /// How many other tables, or blocks, lead to it by the same entry.
    others: u32,
}

impl Present {
    /// The page of zeros, or one that the kernel lends: its frame does not count who maps it.
    pub fn is_lent(&self) -> bool {
        self.pte.flags().contains(PteFlags::SW_UNCOUNTED)
    }

    pub fn page(&self) -> &'static Page {
        page(pfn_of(self.pte))
    }

    /// In how many places it is mapped, if it is not lent: here, wherever else tables lead to the same entry, and by other
    /// entries. Tables that are shared by several spaces and lead to it by another entry count once; who holds the page for
    /// a transfer counts too.
    pub fn maps(&self) -> u32 {
        let page = self.page();
        let entries = page.refs().saturating_sub(u32::from(page.has(PageFlags::CACHE)));
        entries.max(1) + self.others
    }
}

impl Tables {
    /// Calls `visit` for each present page.
    pub(super) fn each_present(&self, range: Range<u64>, visit: &mut dyn FnMut(Present)) {
        let mut at = range.start;
        while at < range.end {
            at = self.present_in_next(at..range.end, visit);
        }
    }

    /// The same for what there is in the range up to the end of a block; answers where to go on.
    pub(super) fn present_in_next(&self, range: Range<u64>, visit: &mut dyn FnMut(Present)) -> u64 {
        let end = block_end(range.start).min(range.end);
        let pages = (range.start..end).step_by(PAGE as usize);
        match self.look(range.start) {
            (Lowest::None, _) => return self.skip(range.start),
            (Lowest::Block(entry), others) => {
                let block = entry.get();
                let others = others + block_entries(pfn_of(block)).saturating_sub(1);
                pages.for_each(|at| visit(Present { at, pte: page_in_block(block, at), in_block: true, others }));
            }
            (Lowest::Table(table), others) => {
                for at in pages {
                    let pte = load(&entries(table)[index(LEAF, at)]);
                    if pte.is_valid() {
                        visit(Present { at, pte, in_block: false, others });
                    }
                }
            }
        }
        end
    }
}
