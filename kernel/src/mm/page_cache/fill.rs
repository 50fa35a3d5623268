//! Bringing pages into the cache.

use alloc::vec::Vec;

use super::super::addr::PAGE;
use super::super::frames::page::PageFlags;
use super::super::frames::{Frame, alloc_frame, alloc_zeroed};
use super::{CachePage, PageCache, wait};
use crate::errno::{Errno, Result};

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
        let mut short = 0;
        loop {
            let lookup = match self.begin(index, size, wanted) {
                // The tree was locked, so nothing of this file could be given up.
                Err(Errno::ENOMEM) if short < 2 => {
                    if short == 1 {
                        let _ = super::sync_all().await;
                    }
                    short += 1;
                    super::reclaim(2 * MAX_WINDOW);
                    continue;
                }
                lookup => lookup?,
            };
            match lookup {
                Lookup::Valid(page) => return Ok(page),
                Lookup::Busy(frame) => wait::until_clear(&frame, PageFlags::READING).await,
                Lookup::Fill(fill) => return fill.run().await,
            }
        }
    }

    fn begin(&self, index: u64, size: u64, wanted: usize) -> Result<Lookup<'_>> {
        if let Some(page) = self.lookup(index) {
            return Ok(Lookup::Valid(page));
        }
        let mut tree = self.tree.write();
        if let Some(pfn) = tree.get(index) {
            // SAFETY: the tree holds a count, and we hold the tree.
            let frame = unsafe { Frame::share_raw(pfn) };
            return Ok(match frame.has(PageFlags::UPTODATE) {
                true => Lookup::Valid(CachePage { index, frame }),
                false => Lookup::Busy(frame),
            });
        }
        if self.is_memory() {
            let frame = alloc_zeroed()?;
            frame.page().set(PageFlags::CACHE | PageFlags::UPTODATE | PageFlags::REFERENCED);
            tree.insert(index, frame.clone())?;
            self.counter().add(1);
            return Ok(Lookup::Valid(CachePage { index, frame }));
        }
        let window = match index == tree.next_miss {
            true => (tree.window * 2).clamp(MIN_WINDOW, MAX_WINDOW),
            false => MIN_WINDOW,
        };
        let window = window.max(wanted.min(MAX_WINDOW));
        let end = size.div_ceil(PAGE).clamp(index + 1, index + window as u64);
        let mut fill = Fill { cache: self, pages: Vec::new() };
        fill.pages.try_reserve_exact(window).map_err(|_| Errno::ENOMEM)?;
        for at in index..end {
            if at > index && tree.get(at).is_some() {
                break;
            }
            let frame = match alloc_frame() {
                Ok(frame) => frame,
                Err(errno) if at == index => return Err(errno),
                Err(_) => break,
            };
            frame.page().set(PageFlags::CACHE | PageFlags::READING);
            tree.insert(at, frame.clone())?;
            fill.pages.push(CachePage { index: at, frame });
        }
        self.counter().add(fill.pages.len() as i64);
        tree.next_miss = index + fill.pages.len() as u64;
        tree.window = fill.pages.len();
        Ok(Lookup::Fill(fill))
    }
}

impl Fill<'_> {
    async fn run(mut self) -> Result<CachePage> {
        let io = self.cache.io.as_ref().and_then(|io| io.upgrade()).ok_or(Errno::EIO)?;
        let page = self.pages.first().cloned().ok_or(Errno::EIO)?;
        io.read_pages(page.index, &self.pages).await?;
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
