//! Content of regular files, between the page cache and the device.
//!
//! Blocks for written data are *reserved* when the page is about to change ([`Node::reserve`], where a full disk is
//! reported) and allocated when the page is written back, so that they come in long runs. A shared mapping may fill
//! holes without asking; write-back then allocates for the blocks that are not all zeros.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::map::Extent;
use super::node::Node;
use crate::errno::{Errno, Result};
use crate::fs::block::{Memory, Pending};
use crate::mm::{BoxFuture, CachePage, PAGE_SIZE, PageIo};

impl Node {
    fn blocks_per_page(&self) -> u64 {
        (PAGE_SIZE / self.volume.layout.block_size) as u64
    }

    /// Makes sure that the bytes can be stored later. If there is no space but files are being deleted, it waits for
    /// theirs, because unlink(2) does not.
    pub async fn reserve(&self, offset: u64, len: u64) -> Result<()> {
        let result = self.reserve_now(offset, len).await;
        if result != Err(Errno::ENOSPC) || !self.volume.is_deleting() {
            return result;
        }
        self.volume.no_deletions().await;
        self.reserve_now(offset, len).await
    }

    /// Nothing is changed before the last await.
    async fn reserve_now(&self, offset: u64, len: u64) -> Result<()> {
        let volume = &self.volume;
        if volume.read_only() {
            return Err(Errno::EROFS);
        }
        let block_size = volume.layout.block_size as u64;
        let end = offset.checked_add(len).ok_or(Errno::EFBIG)?.div_ceil(block_size);
        if end > self.max_blocks() {
            return Err(Errno::EFBIG);
        }
        let mut holes: SmallVec<[(u64, u64); 4]> = SmallVec::new();
        let _map = self.map_lock.read().await;
        let mut block = offset / block_size;
        while block < end {
            let (reserved, count) = self.state.lock().reserved.uniform(block, end - block);
            if reserved {
                block += count;
                continue;
            }
            match self.lookup_block(block, count.min(1 << 20) as u32).await? {
                Extent::Blocks(run) => block += u64::from(run.len),
                Extent::Hole(len) => {
                    holes.push((block, block + u64::from(len)));
                    block += u64::from(len);
                }
            }
        }
        let wanted = holes.iter().map(|(start, end)| end - start).sum();
        if wanted > 0 {
            volume.groups.reserve(wanted)?;
        }
        // Another writer may have come first with some of them.
        let before = {
            let mut state = self.state.lock();
            let before = state.reserved.len();
            state.write_end = state.write_end.max(offset + len);
            holes.into_iter().for_each(|(start, end)| state.reserved.insert(start..end));
            state.reserved.len() - before
        };
        volume.groups.unreserve(wanted - before);
        Ok(())
    }

    /// Gives up the reservations from block `keep` on.
    pub fn drop_reservations(&self, keep: u64) {
        let dropped = self.state.lock().reserved.remove(keep..u64::MAX);
        self.volume.groups.unreserve(dropped);
    }

    /// Reads consecutive pages.
    async fn read_in(&self, first: u64, pages: &[CachePage]) -> Result<()> {
        let mut transfer = Transfer::new(self, false);
        let per_page = self.blocks_per_page();
        let end = (first + pages.len() as u64) * per_page;
        let size_end = self.state.lock().content_end().div_ceil(self.volume.layout.block_size as u64);
        let mut block = first * per_page;
        {
            let _map = self.map_lock.read().await;
            while block < end {
                let extent = if block < size_end {
                    self.lookup_block(block, (end.min(size_end) - block) as u32).await?
                } else {
                    Extent::Hole((end - block) as u32)
                };
                let len = match extent {
                    Extent::Blocks(run) => {
                        for index in 0..run.len {
                            transfer.block(run.start + index, pages, block + u64::from(index) - first * per_page);
                        }
                        run.len
                    }
                    Extent::Hole(len) => {
                        for index in 0..u64::from(len) {
                            let (page, offset) = transfer.place(pages, block + index - first * per_page);
                            page.frame().zero(offset..offset + self.volume.layout.block_size);
                        }
                        len
                    }
                };
                block += u64::from(len);
            }
            transfer.submit();
        }
        transfer.wait().await?;
        self.zero_tail(first, pages);
        Ok(())
    }

    /// Zeroes what lies behind the end of the file in its last page. With the state locked: a writer moves the end first
    /// and then copies, so that what is zeroed is never content.
    fn zero_tail(&self, first: u64, pages: &[CachePage]) {
        let state = self.state.lock();
        let size = state.content_end();
        let (last, tail) = (size / PAGE_SIZE as u64, (size % PAGE_SIZE as u64) as usize);
        let page = last.checked_sub(first).and_then(|index| pages.get(usize::try_from(index).ok()?));
        if let Some(page) = page.filter(|_| tail != 0) {
            page.frame().zero(tail..PAGE_SIZE);
        }
    }

    /// Writes consecutive pages, allocating what has no blocks yet.
    async fn write_out(self: Arc<Self>, first: u64, pages: Vec<CachePage>) -> Result<()> {
        let volume = &self.volume;
        let per_page = self.blocks_per_page();
        let _change = volume.count_change();
        let _writes = self.writes.read().await;
        self.zero_tail(first, &pages);
        let mut transfer = Transfer::new(&self, true);
        let mut result = Ok(());
        {
            let _map = self.map_lock.write().await;
            let size_end = self.state.lock().content_end().div_ceil(volume.layout.block_size as u64);
            let start = first * per_page;
            let end = (start + pages.len() as u64 * per_page).min(size_end);
            let mut block = start;
            while block < end {
                let len = match self.provide_for_write(block, end - block, &mut transfer, &pages, start).await {
                    Ok(Extent::Blocks(run)) => {
                        for index in 0..run.len {
                            transfer.block(run.start + index, &pages, block + u64::from(index) - start);
                        }
                        run.len
                    }
                    Ok(Extent::Hole(len)) => len,
                    Err(errno) => {
                        // Write what has a place all the same.
                        result = result.and(Err(errno));
                        1
                    }
                };
                block += u64::from(len);
            }
            transfer.submit();
        }
        let begun = core::mem::take(&mut transfer.begun);
        let written = transfer.wait().await;
        if written.is_ok() && !begun.is_empty() {
            // Before, the blocks would have shown what somebody else had deleted.
            let _map = self.map_lock.write().await;
            for blocks in begun {
                if let Err(errno) = self.end_unwritten(blocks).await {
                    result = Err(errno);
                }
            }
        }
        written.and(result)
    }

    /// The blocks to write to at `block`, or a hole that stays one.
    async fn provide_for_write(
        self: &Arc<Self>,
        block: u64,
        max: u64,
        transfer: &mut Transfer<'_>,
        pages: &[CachePage],
        start: u64,
    ) -> Result<Extent> {
        let hole = match self.lookup_block(block, max as u32).await? {
            Extent::Blocks(run) => return Ok(Extent::Blocks(run)),
            Extent::Hole(len) => len,
        };
        let (reserved, count) = self.state.lock().reserved.uniform(block, hole.into());
        if !reserved && transfer.is_zero(pages, block - start) {
            return Ok(Extent::Hole(1));
        }
        if self.volume.sealed.load(Ordering::SeqCst) {
            return Err(Errno::EROFS);
        }
        if let Some(run) = self.unwritten_at(block, if reserved { count as u32 } else { 1 }).await? {
            transfer.begun.push(block..block + u64::from(run.len));
            return Ok(Extent::Blocks(run));
        }
        if reserved {
            let (run, _) = self.provide_blocks(block, count as u32, true).await?;
            let kept = self.state.lock().reserved.remove(block..block + u64::from(run.len));
            self.volume.groups.unreserve(kept);
            return Ok(Extent::Blocks(run));
        }
        let (run, _) = self.provide_blocks(block, 1, false).await?;
        Ok(Extent::Blocks(run))
    }
}

impl PageIo for Node {
    fn read_pages<'a>(&'a self, first: u64, pages: &'a [CachePage]) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.read_in(first, pages))
    }

    fn write_pages<'a>(&'a self, first: u64, pages: &'a [CachePage]) -> BoxFuture<'a, Result<()>> {
        let Some(node) = self.me() else { return Box::pin(async { Err(Errno::EIO) }) };
        // Allocation must not stop between a bitmap and a map.
        Box::pin(self.volume.run_to_end(node.write_out(first, pages.to_vec())))
    }

    fn is_backed_by_file(&self) -> bool {
        self.volume.device.is_backed_by_file()
    }
}

/// Collects blocks of pages into requests: neighbours on the device go into one.
struct Transfer<'a> {
    node: &'a Node,
    write: bool,
    first: u32,
    len: u32,
    memory: SmallVec<[Memory; 2]>,
    pending: Vec<Pending>,
    /// Blocks of the file that were allocated and never written before.
    begun: Vec<Range<u64>>,
}

impl<'a> Transfer<'a> {
    fn new(node: &'a Node, write: bool) -> Self {
        Transfer { node, write, first: 0, len: 0, memory: SmallVec::new(), pending: Vec::new(), begun: Vec::new() }
    }

    /// The page that holds the `index`th block of the range, and where in it.
    fn place<'p>(&self, pages: &'p [CachePage], index: u64) -> (&'p CachePage, usize) {
        let per_page = self.node.blocks_per_page();
        (&pages[(index / per_page) as usize], (index % per_page) as usize * self.node.volume.layout.block_size)
    }

    fn is_zero(&self, pages: &[CachePage], index: u64) -> bool {
        let (page, offset) = self.place(pages, index);
        page.frame().bytes()[offset..offset + self.node.volume.layout.block_size].iter().all(|&byte| byte == 0)
    }

    /// Adds the transfer of one block.
    fn block(&mut self, block: u32, pages: &[CachePage], index: u64) {
        let device = &self.node.volume.device;
        let (page, offset) = self.place(pages, index);
        let block_size = self.node.volume.layout.block_size as u32;
        if self.len != 0 && self.first + self.len != block {
            self.submit();
        }
        if self.len == 0 {
            self.first = block;
        }
        match self.memory.last_mut() {
            // The next block of the same page joins the segment.
            Some(Memory::Frame(frame, at, len))
                if offset != 0 && frame.phys() == page.frame().phys() && *at + *len == offset as u32 =>
            {
                *len += block_size;
            }
            _ => {
                if self.memory.len() == device.max_segments() {
                    self.submit();
                    self.first = block;
                }
                self.memory.push(Memory::Frame(page.frame().clone(), offset as u32, block_size));
            }
        }
        self.len += 1;
    }

    fn submit(&mut self) {
        if self.len == 0 {
            return;
        }
        let volume = &self.node.volume;
        let sector = u64::from(self.first) * volume.layout.sectors_per_block();
        let memory = core::mem::take(&mut self.memory);
        let pending = if self.write { volume.device.write(sector, memory) } else { volume.device.read(sector, memory) };
        self.pending.push(pending);
        self.len = 0;
    }

    async fn wait(self) -> Result<()> {
        let mut result = Ok(());
        for pending in self.pending {
            if let Err(errno) = pending.await {
                result = Err(errno);
            }
        }
        result
    }
}
