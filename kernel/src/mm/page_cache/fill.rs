//! Bringing pages into the cache.

use alloc::vec::Vec;

use super::super::addr::{PAGE, PAGE_SIZE};
use super::super::frames::page::PageFlags;
use super::super::frames::{Frame, alloc_frame, alloc_zeroed};
use super::tree::Tree;
use super::{CachePage, PageCache, reclaim, wait};
use crate::errno::{Errno, Result};
use crate::exec::{Storage, count_storage};

/// Pages that one request reads at most.
const MAX_WINDOW: usize = 64;
/// And at least, where the file has them.
const MIN_WINDOW: usize = 4;

enum Lookup<'a> {
    Valid(CachePage),
    /// Somebody reads it.
    Busy(Frame),
    /// Ours to read, with its neighbours.
    Fill(Fill<'a>),
}

/// Pages that are being read. Dropped before it is `done`, it takes them out again and lets those who wait try themselves.
struct Fill<'a> {
    cache: &'a PageCache,
    pages: Vec<CachePage>,
}

impl PageCache {
    /// The page, read from storage if need be. `size` is the file's size in bytes: read-ahead ends there.
    pub async fn get(&self, index: u64, size: u64) -> Result<CachePage> {
        self.get_for(index, size, 1).await
    }

    /// Like `get` for somebody who is going to read `wanted` pages from there on.
    pub(super) async fn get_for(&self, index: u64, size: u64, wanted: usize) -> Result<CachePage> {
        loop {
            match self.begin(index, size, wanted) {
                Ok(Lookup::Valid(page)) => return Ok(page),
                Ok(Lookup::Busy(frame)) => wait::until_clear(&frame, PageFlags::READING).await,
                Ok(Lookup::Fill(fill)) => return fill.run().await,
                Err(Errno::ENOMEM) if reclaim::relieve().await => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Adds a page to a memory object, with what is in it: EEXIST if there is one.
    pub fn insert_filled(&self, index: u64, frame: Frame) -> Result<()> {
        frame.page().set(PageFlags::CACHE | PageFlags::UPTODATE | PageFlags::REFERENCED);
        let mut tree = self.tree.write();
        if tree.get(index).is_some() {
            return Err(Errno::EEXIST);
        }
        tree.insert(index, frame)?;
        self.counter().add(1);
        Ok(())
    }

    fn begin(&self, index: u64, size: u64, wanted: usize) -> Result<Lookup<'_>> {
        if let Some(found) = present(&self.tree.read(), index) {
            return Ok(found);
        }
        // Not under the tree's lock: allocation may take pages from this very tree.
        let mut pages = self.new_pages(index, size, wanted)?;
        let mut tree = self.tree.write();
        if let Some(found) = present(&tree, index) {
            return Ok(found);
        }
        let mut inserted = 0;
        for page in &pages {
            if tree.insert(page.index, page.frame.clone()).is_err() {
                break;
            }
            inserted += 1;
        }
        self.counter().add(inserted as i64);
        if inserted == 0 {
            return Err(Errno::ENOMEM);
        }
        if self.is_memory() {
            drop(tree);
            return pages.pop().map(Lookup::Valid).ok_or(Errno::ENOMEM);
        }
        tree.next_miss = index + inserted as u64;
        tree.window = inserted;
        drop(tree);
        pages.truncate(inserted);
        Ok(Lookup::Fill(Fill { cache: self, pages }))
    }

    /// Pages to be inserted from `index` on: one of zeros for a memory object, a window to be read for a file.
    fn new_pages(&self, index: u64, size: u64, wanted: usize) -> Result<Vec<CachePage>> {
        let mut pages = Vec::new();
        if self.is_memory() {
            let frame = alloc_zeroed()?;
            frame.page().set(PageFlags::CACHE | PageFlags::UPTODATE | PageFlags::REFERENCED);
            pages.try_reserve_exact(1).map_err(|_| Errno::ENOMEM)?;
            pages.push(CachePage { index, frame });
            return Ok(pages);
        }
        let (next_miss, last) = {
            let tree = self.tree.read();
            (tree.next_miss, tree.window)
        };
        let window = if index == next_miss { (last * 2).clamp(MIN_WINDOW, MAX_WINDOW) } else { MIN_WINDOW };
        let window = window.max(wanted.min(MAX_WINDOW)) as u64;
        let end = size.div_ceil(PAGE).clamp(index + 1, index + window);
        pages.try_reserve_exact((end - index) as usize).map_err(|_| Errno::ENOMEM)?;
        for at in index..end {
            match alloc_frame() {
                Ok(frame) => {
                    frame.page().set(PageFlags::CACHE | PageFlags::READING);
                    pages.push(CachePage { index: at, frame });
                }
                Err(errno) if at == index => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(pages)
    }
}

#[inline]
fn present<'a>(tree: &Tree, index: u64) -> Option<Lookup<'a>> {
    let pfn = tree.get(index)?;
    // SAFETY: the tree holds a count, and we hold the tree.
    let frame = unsafe { Frame::share_raw(pfn) };
    Some(match frame.has(PageFlags::UPTODATE) {
        true => Lookup::Valid(CachePage { index, frame }),
        false => Lookup::Busy(frame),
    })
}

impl Fill<'_> {
    async fn run(mut self) -> Result<CachePage> {
        let io = self.cache.io().ok_or(Errno::EIO)?;
        let page = self.pages.first().cloned().ok_or(Errno::EIO)?;
        io.read_pages(page.index, &self.pages).await?;
        count_storage(Storage::Read, self.pages.len() * PAGE_SIZE);
        for page in self.pages.drain(..) {
            let state = page.frame.page();
            state.set(PageFlags::UPTODATE | PageFlags::REFERENCED);
            state.clear(PageFlags::READING);
            wait::wake(&page.frame);
        }
        Ok(page)
    }
}

impl Drop for Fill<'_> {
    fn drop(&mut self) {
        if self.pages.is_empty() {
            return;
        }
        let mut tree = self.cache.tree.write();
        for page in &self.pages {
            if tree.get(page.index) == Some(page.frame.pfn()) {
                tree.remove(page.index);
                self.cache.counter().add(-1);
            }
        }
        drop(tree);
        for page in &self.pages {
            page.frame.page().clear(PageFlags::READING);
            wait::wake(&page.frame);
        }
    }
}
