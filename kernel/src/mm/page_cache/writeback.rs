//! Storing dirty pages of one file.

use alloc::vec::Vec;
use core::ops::Range;

use super::super::frames::Frame;
use super::super::frames::page::PageFlags;
use super::super::{space, stats};
use super::{CachePage, PageCache, PageIo, rounds, wait};
use crate::errno::{Errno, Result};
use crate::exec;
use crate::sync::full_fence;

/// Pages that are stored at once.
const BATCH: usize = 64;

enum Next<'a> {
    Run(Batch<'a>),
    /// Somebody else is still storing an older state of the next dirty page.
    Busy(Frame),
}

/// Pages on their way to storage.
struct Batch<'a> {
    cache: &'a PageCache,
    pages: Vec<CachePage>,
    /// They need not be tried again.
    done: bool,
    stored: bool,
    /// Mappings of the pages are being taken away, so that what is written next is noticed.
    unmapping: bool,
}

impl PageCache {
    /// Stores the dirty pages in `pages` and waits for it; also for those that somebody else is storing.
    pub async fn write_back(&self, pages: Range<u64>) -> Result<()> {
        if self.is_memory() {
            return Ok(());
        }
        let Some(io) = self.io() else { return Ok(()) };
        let mut result = Ok(());
        let mut at = pages.start;
        while let Some(next) = self.collect(at..pages.end) {
            match next {
                Next::Run(batch) => {
                    at = batch.pages.last().map_or(pages.end, |page| page.index + 1);
                    if let Err(errno) = batch.store(&*io).await {
                        result = Err(errno);
                    }
                }
                Next::Busy(frame) => wait::until_clear(&frame, PageFlags::WRITEBACK).await,
            }
            exec::budget().await;
        }
        self.wait_for_writeback(pages).await;
        result
    }

    /// The next run of dirty pages, marked as being stored.
    ///
    /// ```text
    ///   writer                                   here
    ///   changes the page                         clears the bit in the tree
    ///   fence                                    clears DIRTY
    ///   sets DIRTY; if it was clear:             fence
    ///     sets the bit in the tree               stores the page
    /// ```
    /// If the writer finds DIRTY still set, its change is in memory before the page is stored.
    fn collect(&self, pages: Range<u64>) -> Option<Next<'_>> {
        let mut batch = Batch { cache: self, pages: Vec::new(), done: false, stored: false, unmapping: false };
        let tree = self.tree.read();
        let mut at = tree.next_dirty(pages.start)?;
        while at < pages.end && batch.pages.len() < BATCH && tree.is_dirty(at) {
            let Some(pfn) = tree.get(at) else { break };
            // SAFETY: as in `lookup`.
            let frame = unsafe { Frame::share_raw(pfn) };
            if frame.page().set(PageFlags::WRITEBACK).contains(PageFlags::WRITEBACK) {
                return Some(if batch.pages.is_empty() { Next::Busy(frame) } else { Next::Run(batch) });
            }
            stats::WRITEBACK.add(1);
            let was_dirty = tree.mark_clean(at);
            if was_dirty {
                stats::DIRTY.add(-1);
            }
            self.unstored.leave(was_dirty);
            frame.page().clear(PageFlags::DIRTY);
            batch.pages.push(CachePage { index: at, frame });
            at += 1;
        }
        (!batch.pages.is_empty()).then_some(Next::Run(batch))
    }

    async fn wait_for_writeback(&self, pages: Range<u64>) {
        let mut at = pages.start;
        loop {
            let page = {
                let tree = self.tree.read();
                let Some(index) = tree.next_present(at).filter(|&index| index < pages.end) else { return };
                at = index + 1;
                // SAFETY: as in `lookup`.
                tree.get(index).map(|pfn| unsafe { Frame::share_raw(pfn) })
            };
            if let Some(frame) = page
                && frame.has(PageFlags::WRITEBACK)
            {
                wait::until_clear(&frame, PageFlags::WRITEBACK).await;
            }
            exec::budget().await;
        }
    }
}

impl Batch<'_> {
    async fn store(mut self, io: &dyn PageIo) -> Result<()> {
        let first = self.pages.first().map_or(0, |page| page.index);
        let end = first + self.pages.len() as u64;
        let mut shared = false;
        full_fence();
        for page in &self.pages {
            shared |= page.frame.page().clear(PageFlags::SHARED_WRITE).contains(PageFlags::SHARED_WRITE);
        }
        if shared && let Some(cache) = self.cache.this.upgrade() {
            // Later writes through mappings fault and mark the pages again.
            self.unmapping = true;
            space::unmap_source(&cache, first..end, false).await?;
            self.unmapping = false;
        }
        let result = io.write_pages(first, &self.pages).await;
        if result == Err(Errno::ENOMEM) {
            // That is not for ever: the pages stay dirty, and are tried again.
            return result;
        }
        self.done = true;
        self.stored = result.is_ok();
        if result.is_err() {
            self.cache.failure().note();
        }
        result.map_err(|_| Errno::EIO)
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for page in &self.pages {
            if self.unmapping {
                // Whether that failed or the caller was killed: where they are still mapped they may be written to unnoticed.
                page.frame.page().set(PageFlags::SHARED_WRITE);
            }
            if !self.done {
                self.cache.mark_dirty(page);
            }
            self.cache.unstored.arrived();
            page.frame.page().clear(PageFlags::WRITEBACK);
            stats::WRITEBACK.add(-1);
            wait::wake(&page.frame);
        }
        if self.stored {
            // Nobody holds the pages then.
            self.pages.clear();
            rounds::batch_stored();
        }
    }
}
