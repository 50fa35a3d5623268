//! Making files shorter, and dropping pages.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::future::Future;
use core::ops::Range;

use super::super::addr::{PAGE, PAGE_SIZE};
use super::super::frames::Frame;
use super::super::frames::page::{PageFlags, page};
use super::super::{shortage, space, stats};
use super::tree::Tree;
use super::{PageCache, wait};
use crate::errno::Result;
use crate::exec::{self, Storage, count_storage};

/// Pages that are dropped under one hold of the lock.
const CHUNK: usize = 256;

impl PageCache {
    /// The file ends at `size` now, which `PageSource::file_size` already tells: drops the pages behind, also from address
    /// spaces, and zeroes the rest of the last page. Only needed when the file became shorter.
    pub async fn truncate(&self, size: u64) {
        let first = size.div_ceil(PAGE);
        if self.map_count() > 0
            && let Some(this) = self.this.upgrade()
        {
            surely(|| space::unmap_source(&this, first..u64::MAX, true)).await;
        }
        self.drop_all(first..u64::MAX).await;
        let tail = (size % PAGE) as usize;
        if tail != 0 {
            // What lies behind the end must read as zeros if the file grows again.
            self.zero_part(size / PAGE, size, tail..PAGE_SIZE).await;
        }
    }

    /// Zeroes a part of a page, in a file of `size` bytes.
    pub async fn zero_part(&self, index: u64, size: u64, part: Range<usize>) {
        let page = match self.lookup(index) {
            Some(page) => page,
            None if self.is_memory() => return,
            // If it cannot be read it cannot be stored either.
            None => match self.get(index, size).await {
                Ok(page) => page,
                Err(_) => return,
            },
        };
        if page.frame.bytes()[part.clone()].iter().any(|&byte| byte != 0) {
            page.frame.zero(part);
            self.mark_dirty(&page);
        }
    }

    /// Zeroes the parts of pages at both ends of `bytes`, and answers the whole pages between (fallocate(2) PUNCH_HOLE).
    pub async fn zero_ends(&self, size: u64, bytes: Range<u64>) -> Range<u64> {
        let whole = bytes.start.div_ceil(PAGE)..bytes.end / PAGE;
        let within = |offset: u64| (offset % PAGE) as usize;
        if whole.start > whole.end {
            self.zero_part(whole.end, size, within(bytes.start)..within(bytes.end)).await;
            return 0..0;
        }
        if within(bytes.start) != 0 {
            self.zero_part(bytes.start / PAGE, size, within(bytes.start)..PAGE_SIZE).await;
        }
        if within(bytes.end) != 0 {
            self.zero_part(whole.end, size, 0..within(bytes.end)).await;
        }
        whole
    }

    /// Drops whole pages, dirty or not, also from address spaces; copies that private mappings have made stay. In memory
    /// objects they read as zeros then.
    pub async fn punch(&self, pages: Range<u64>) {
        let Some(this) = self.this.upgrade() else { return };
        // What has been dropped must not stay mapped.
        exec::run_to_end(|future| exec::spawn("punch", future), this.punch_all(pages)).await;
    }

    async fn punch_all(self: Arc<Self>, pages: Range<u64>) {
        self.drop_all(pages.clone()).await;
        // Not before: a fault in between would map a page that is about to go.
        if self.map_count() > 0 {
            surely(|| space::unmap_cached(&self, pages.clone())).await;
        }
    }

    /// What is stored has changed: drops the pages but for those that are dirty, also from address spaces. Copies that
    /// private mappings have made stay.
    pub async fn forget(&self, pages: Range<u64>) {
        let mapped = if self.map_count() > 0 { self.this.upgrade() } else { None };
        if let Some(this) = &mapped {
            surely(|| space::unmap_cached(this, pages.clone())).await;
        }
        let mut at = pages.start;
        while let Some(next) = self.drop_some(at, pages.end, |tree, index| !tree.is_dirty(index)) {
            at = next;
            exec::budget().await;
        }
        if let Some(this) = &mapped {
            // Those that were mapped in between.
            surely(|| space::unmap_source(this, pages.clone(), false)).await;
        }
    }

    /// Drops clean pages in `pages` that nobody else holds or maps.
    pub fn invalidate(&self, pages: Range<u64>) {
        let mut at = pages.start;
        while let Some(next) = self.drop_some(at, pages.end, is_idle) {
            at = next;
        }
    }

    /// Drops all of these. One that is on its way to storage is waited for: what was collected to be stored must not get there after what
    /// comes in its place, nor what is cut off get to where there is something else by then.
    async fn drop_all(&self, pages: Range<u64>) {
        let mut at = pages.start;
        while let Some((next, leaving)) = self.drop_settled(at, pages.end) {
            at = next;
            match leaving {
                Some(frame) => wait::until_clear(&frame, PageFlags::WRITEBACK).await,
                None => exec::budget().await,
            }
        }
    }

    /// Drops the next pages from `at` on, up to one that is on its way to storage, which is answered; and where to go on.
    fn drop_settled(&self, at: u64, end: u64) -> Option<(u64, Option<Frame>)> {
        let mut tree = self.tree.write();
        let mut at = at;
        for _ in 0..CHUNK {
            at = tree.next_present(at).filter(|&index| index < end)?;
            let leaving = tree.get(at).filter(|pfn| page(*pfn).flags().contains(PageFlags::WRITEBACK));
            if let Some(pfn) = leaving {
                // SAFETY: as in `lookup`.
                return Some((at, Some(unsafe { Frame::share_raw(pfn) })));
            }
            self.drop_page(&mut tree, at);
            at += 1;
        }
        Some((at, None))
    }

    /// Drops the next pages from `at` on that `condemned` agrees to; answers where to go on.
    fn drop_some(&self, at: u64, end: u64, condemned: impl Fn(&Tree, u64) -> bool) -> Option<u64> {
        let mut tree = self.tree.write();
        let mut at = at;
        for _ in 0..CHUNK {
            at = tree.next_present(at).filter(|&index| index < end)?;
            if condemned(&tree, at) {
                self.drop_page(&mut tree, at);
            }
            at += 1;
        }
        Some(at)
    }

    /// Takes one page out of the tree.
    pub(super) fn drop_page(&self, tree: &mut Tree, index: u64) {
        let Some((frame, dirty)) = tree.remove(index) else { return };
        self.counter().add(-1);
        if dirty {
            frame.page().clear(PageFlags::DIRTY);
            count_storage(Storage::Cancelled, PAGE_SIZE);
            stats::DIRTY.add(-1);
            self.unstored.forget_dirty();
        }
    }
}

/// Tries again while there is no memory for it.
async fn surely<F: Future<Output = Result<()>>>(mut unmap: impl FnMut() -> F) {
    for _ in 0..shortage::TRIES {
        if unmap().await.is_ok() {
            return;
        }
        if !Box::pin(shortage::wait_for_page()).await {
            break;
        }
    }
    log::error!("out of memory: pages that are no longer in a file stay mapped");
}

/// Clean, valid, and held by the tree alone.
pub(super) fn is_idle(tree: &Tree, index: u64) -> bool {
    let busy = PageFlags::DIRTY | PageFlags::READING | PageFlags::WRITEBACK;
    tree.get(index).is_some_and(|pfn| {
        let page = page(pfn);
        page.refs() == 1 && !page.flags().intersects(busy)
    })
}
