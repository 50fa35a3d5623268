//! What /proc/PID/pagemap tells: which page is where.

use core::ops::Range;

use super::super::frames::page::PageFlags;
use super::AddressSpace;
use super::table::pfn_of;
use super::vma::Backing;

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
            inner.tables.each_present(part, &mut |present| {
                let lent = present.is_lent();
                let file = special || !lent && present.page().has(PageFlags::CACHE);
                let exclusive = !lent && !special && present.maps() == 1;
                visit(present.at, MappedPage { frame: pfn_of(present.pte).into(), file, exclusive });
            });
        }
    }
}
