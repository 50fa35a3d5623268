//! What /proc/PID/pagemap tells: which page is where; and /proc/PID/smaps: how many of which kind there are.

use core::ops::Range;

use super::super::addr::PAGE;
use super::super::frames::is_sole_block;
use super::super::frames::page::{PageFlags, page};
use super::AddressSpace;
use super::blocks::page_in_block;
use super::info::VmaUsage;
use super::table::{LEAF, entries, for_each_entry, index, load, pfn_of};
use super::tables::{Lowest, Tables, block_end};
use super::vma::Backing;
use crate::arch::pte::{Pte, PteFlags};

/// A page that is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MappedPage {
    /// Number of its frame.
    pub frame: u64,
    /// Of a file or of shared memory.
    pub file: bool,
    /// Mapped nowhere else.
    pub exclusive: bool,
}

impl AddressSpace {
    /// Calls `visit` with the address of each present page of the range, which should be short.
    pub fn each_page(&self, range: Range<u64>, mut visit: impl FnMut(u64, MappedPage)) {
        let inner = self.inner.lock();
        for (start, vma) in inner.vmas.overlapping(range.clone()) {
            let special = matches!(vma.backing, Backing::Special(..));
            let part = start.max(range.start)..vma.end.min(range.end);
            inner.tables.each_present(part, &mut |at, pte, sole| {
                let lent = pte.flags().contains(PteFlags::SW_UNCOUNTED);
                let file = special || !lent && page(pfn_of(pte)).has(PageFlags::CACHE);
                let exclusive = sole && !lent && !special;
                visit(at, MappedPage { frame: pfn_of(pte).into(), file, exclusive });
            });
        }
    }
}

impl Tables {
    /// What is in memory of `range`, looked at in so many tables at most; and how far that went.
    pub fn usage_up_to(&self, range: Range<u64>, mut tables: usize) -> (VmaUsage, u64) {
        let mut sum = VmaUsage::default();
        let mut at = range.start;
        while at < range.end && tables > 0 {
            tables -= 1;
            let (lowest, shared) = self.look(at);
            let end = block_end(at).min(range.end);
            match lowest {
                Lowest::None => {
                    at = self.skip(at);
                    continue;
                }
                Lowest::Block(entry) => {
                    let pages = (end - at) / PAGE;
                    sum.huge += pages;
                    sum.add_anon(pages, !shared && is_sole_block(pfn_of(entry.get())));
                }
                Lowest::Table(table) => {
                    let pages = index(LEAF, at)..index(LEAF, at) + ((end - at) / PAGE) as usize;
                    for_each_entry(table, |index, pte| {
                        if pages.contains(&index) {
                            sum.add_page(pte, !shared && is_sole(pte));
                        }
                    });
                }
            }
            at = end;
        }
        (sum, at.min(range.end))
    }

    /// Calls `visit` for each present page; with whether nothing else maps it.
    fn each_present(&self, range: Range<u64>, visit: &mut dyn FnMut(u64, Pte, bool)) {
        let mut at = range.start;
        while at < range.end {
            let (lowest, shared) = self.look(at);
            let end = block_end(at).min(range.end);
            match lowest {
                Lowest::None => {
                    at = self.skip(at);
                    continue;
                }
                Lowest::Block(entry) => {
                    let block = entry.get();
                    let sole = !shared && is_sole_block(pfn_of(block));
                    (at..end).step_by(PAGE as usize).for_each(|at| visit(at, page_in_block(block, at), sole));
                }
                Lowest::Table(table) => {
                    for at in (at..end).step_by(PAGE as usize) {
                        let pte = load(&entries(table)[index(LEAF, at)]);
                        if pte.is_valid() {
                            visit(at, pte, !shared && is_sole(pte));
                        }
                    }
                }
            }
            at = end;
        }
    }
}

impl VmaUsage {
    /// Anonymous memory has no file that it could be as.
    fn add_anon(&mut self, pages: u64, sole: bool) {
        self.anon += pages;
        if sole {
            self.private_dirty += pages;
        } else {
            self.shared += pages;
            self.shared_dirty += pages;
        }
    }

    fn add_page(&mut self, pte: Pte, sole: bool) {
        let page = page(pfn_of(pte));
        if pte.flags().contains(PteFlags::SW_UNCOUNTED) {
            return;
        }
        if !page.has(PageFlags::CACHE) {
            return self.add_anon(1, sole);
        }
        let dirty = u64::from(pte.flags().contains(PteFlags::SW_DIRTY) || page.has(PageFlags::DIRTY));
        self.file += 1;
        self.shared += u64::from(!sole);
        *(if sole { &mut self.private_dirty } else { &mut self.shared_dirty }) += dirty;
    }
}

/// Besides this entry only the page cache holds the page, if that does.
fn is_sole(pte: Pte) -> bool {
    let page = page(pfn_of(pte));
    page.refs() == 1 + u32::from(page.has(PageFlags::CACHE))
}
