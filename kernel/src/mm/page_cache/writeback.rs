//! Storing dirty pages: fsync, msync, sync, and the flusher that does it in time.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;
use core::time::Duration;

use super::super::frames::Frame;
use super::super::frames::page::PageFlags;
use super::super::{space, stats};
use super::{CachePage, PageCache, PageIo, wait};
use crate::errno::{Errno, Result};
use crate::exec::{self, Instant, Mutex, Notify};
use crate::sync::SpinLock;

/// Pages that are stored at once.
const BATCH: usize = 64;
/// How long data stays in memory only.
const DELAY: Duration = Duration::from_secs(5);

type DirtyFile = (Arc<PageCache>, Arc<dyn PageIo>);

/// Files with dirty pages; held, with the inode, until the pages are stored.
static DIRTY: SpinLock<VecDeque<DirtyFile>> = SpinLock::new(VecDeque::new());
/// One round of writing everything at a time.
static ROUND: Mutex<()> = Mutex::new(());
static WORK: Notify = Notify::new();

/// The first page of a file became dirty.
pub(super) fn list(cache: &PageCache) {
    if let (Some(cache), Some(io)) = (cache.this.upgrade(), cache.io.as_ref().and_then(|io| io.upgrade())) {
        DIRTY.lock().push_back((cache, io));
        WORK.notify();
    }
}

enum Next<'a> {
    Run(Batch<'a>),
    /// Somebody else is still storing an older state of the next dirty page.
    Busy(Frame),
}

/// Pages on their way to storage.
struct Batch<'a> {
    cache: &'a PageCache,
    pages: Vec<CachePage>,
    done: bool,
}

impl PageCache {
    /// Stores the dirty pages in `pages` and waits for it; also for those that somebody else is storing.
    pub async fn write_back(&self, pages: Range<u64>) -> Result<()> {
        if self.is_memory() {
            return Ok(());
        }
        let Some(io) = self.io.as_ref().and_then(|io| io.upgrade()) else { return Ok(()) };
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
    ///   sets DIRTY; if it was clear:             clears DIRTY
    ///     sets the bit in the tree               stores the page
    /// ```
    /// If the writer finds DIRTY still set, its change is in memory before the page is stored.
    fn collect(&self, pages: Range<u64>) -> Option<Next<'_>> {
        let mut batch = Batch { cache: self, pages: Vec::new(), done: false };
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
            if tree.mark_clean(at) {
                stats::DIRTY.add(-1);
                self.dirty.fetch_sub(1, Ordering::Relaxed);
            }
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
        for page in &self.pages {
            shared |= page.frame.page().clear(PageFlags::SHARED_WRITE).contains(PageFlags::SHARED_WRITE);
        }
        if shared && let Some(cache) = self.cache.this.upgrade() {
            // Later writes through mappings fault and mark the pages again.
            space::unmap_source(&cache, first..end, false).await;
        }
        let result = io.write_pages(first, &self.pages).await;
        self.done = true;
        if result.is_err() {
            self.cache.failure().note();
        }
        result.map_err(|_| Errno::EIO)
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for page in &self.pages {
            if !self.done {
                self.cache.mark_dirty(page);
            }
            page.frame.page().clear(PageFlags::WRITEBACK);
            stats::WRITEBACK.add(-1);
            wait::wake(&page.frame);
        }
    }
}

/// Writes all dirty pages of all files and waits for it.
pub async fn sync_all() -> Result<()> {
    let _round = ROUND.lock().await;
    write_round().await
}

/// The same for tasks that may be part of a round themselves: nothing if one is going on.
pub(super) async fn sync_unless_busy() -> Result<()> {
    match ROUND.try_lock() {
        Some(_round) => write_round().await,
        None => Err(Errno::EBUSY),
    }
}

async fn write_round() -> Result<()> {
    let mut result = Ok(());
    // Those that come while this goes on are for the next round.
    let turns = DIRTY.lock().len();
    for _ in 0..turns {
        let Some(turn) = Turn::next() else { break };
        if let Err(errno) = turn.0.0.write_back(0..u64::MAX).await {
            result = Err(errno);
        }
    }
    result
}

/// A file that is being stored. It goes back to the list if something of it is left, also when the call that stores it is
/// given up.
struct Turn(DirtyFile);

impl Turn {
    fn next() -> Option<Turn> {
        let file = DIRTY.lock().pop_front()?;
        file.0.listed.store(false, Ordering::Release);
        Some(Turn(file))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.0.0.dirty_count() > 0 && !self.0.0.listed.swap(true, Ordering::AcqRel) {
            DIRTY.lock().push_back(self.0.clone());
            WORK.notify();
        }
    }
}

/// The kernel task that writes dirty pages back in time. It sleeps without a timer while nothing is dirty.
pub async fn flusher() {
    loop {
        WORK.wait().await;
        exec::sleep_until(Instant::now().saturating_add(DELAY)).await;
        if let Err(errno) = sync_all().await {
            log::error!("write-back failed: {errno:?}");
        }
        if !DIRTY.lock().is_empty() {
            WORK.notify();
        }
    }
}
