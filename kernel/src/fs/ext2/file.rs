//! Content of regular files, between the page cache and the device.
//!
//! Blocks for written data are *reserved* when the page is about to change ([`Node::reserve`], where a full disk is
//! reported) and allocated when the page is written back, so that they come in long runs. A shared mapping may fill
//! holes without asking; write-back then allocates for the blocks that are not all zeros. The map leads to new blocks when the
//! data has arrived there, and is written when the device has been flushed since ([`super::writeback`]): else a power cut
//! would show what somebody else had deleted.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;

use super::groups::Run;
use super::map::Extent;
use super::node::{Holes, Node};
use super::transfer::{New, Transfer};
use crate::errno::{Errno, Result};
use crate::exec::WriteGuard;
use crate::mm::{BoxFuture, CachePage, PAGE_SIZE, PageIo};

/// Blocks that the map may need on its way to new ones of one write, kept as long as those are not entered.
const NODES: u64 = 8;

impl Node {
    pub(super) fn blocks_per_page(&self) -> u64 {
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
        let mut holes = Holes::new();
        let _map = self.map_lock.read().await;
        let mut block = offset / block_size;
        while block < end {
            let (provided, count) = {
                let state = self.state.lock();
                let (reserved, count) = state.reserved.uniform(block, end - block);
                if reserved { (true, count) } else { state.coming.uniform(block, count) }
            };
            if provided {
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
            holes.iter().for_each(|&(start, end)| state.reserved.insert(start..end));
            state.added = holes;
            state.reserved.len() - before
        };
        volume.groups.unreserve(wanted - before);
        Ok(())
    }

    /// See [`crate::fs::Inode::give_up_write`]. What is in a page with bytes that were written stays reserved, up to the end of
    /// the file.
    pub fn give_up(&self, bytes: Range<u64>) {
        let per_page = self.blocks_per_page();
        let blocks = |at: u64| at.div_ceil(PAGE_SIZE as u64) * per_page;
        let dropped = {
            let mut state = self.state.lock();
            let behind = bytes.start >= state.size;
            let block_size = self.volume.layout.block_size as u64;
            // What the file ends in stays; a block further behind was not there.
            let first = match behind {
                true => (bytes.start / block_size).max(state.size.div_ceil(block_size)),
                false => blocks(bytes.start),
            };
            let (start, end) = (first, blocks(bytes.end));
            let added = core::mem::take(&mut state.added);
            // Unless the size has followed what was written, nothing was.
            state.write_end = 0;
            let given_up = added.iter().map(|&(first, last)| first.max(start)..last.min(end));
            given_up.filter(|blocks| !blocks.is_empty()).map(|blocks| state.reserved.remove(blocks)).sum()
        };
        self.volume.groups.unreserve(dropped);
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
        transfer.wait().await.0?;
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
        let _change = self.volume.count_change();
        let _writes = self.writes.read().await;
        self.zero_tail(first, &pages);
        let start = first * self.blocks_per_page();
        let mut result = Ok(());
        let mut next = Some(start);
        while let Some(from) = next {
            let part;
            (next, part) = self.write_from(from, start, &pages).await;
            result = result.and(part);
        }
        result
    }

    /// Writes what is from block `from` on of pages that begin at block `start`. Answers where to go on, if there may be space
    /// after this.
    async fn write_from(self: &Arc<Self>, from: u64, start: u64, pages: &[CachePage]) -> (Option<u64>, Result<()>) {
        let volume = &self.volume;
        let mut transfer = Transfer::new(self, true);
        let mut result = Ok(());
        let mut next = None;
        {
            let end = start + pages.len() as u64 * self.blocks_per_page();
            let _map = self.lock_arrived(from..end).await;
            let end = self.state.lock().content_end().div_ceil(volume.layout.block_size as u64).min(end);
            let mut block = from;
            while block < end {
                let len = match self.provide_for_write(block, end - block, &mut transfer, pages, start).await {
                    Ok(Extent::Blocks(run)) => {
                        for index in 0..run.len {
                            transfer.block(run.start + index, pages, block + u64::from(index) - start);
                        }
                        run.len
                    }
                    Ok(Extent::Hole(len)) => len,
                    Err(Errno::ENOSPC) if !transfer.new.is_empty() => {
                        // Those that are on their way keep space for the map.
                        next = Some(block);
                        break;
                    }
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
        let arrived = self.write_and_enter(transfer).await;
        (next, arrived.and(result))
    }

    /// The map, locked exclusively when no data is on its way to new blocks for these. It may be: who waits for a write-back
    /// can be killed, and pages can be punched out, while the write goes on.
    async fn lock_arrived(&self, blocks: Range<u64>) -> WriteGuard<'_, ()> {
        loop {
            let map = self.map_lock.write().await;
            let all_arrived = || {
                let len = blocks.end - blocks.start;
                self.state.lock().coming.uniform(blocks.start, len) == (false, len)
            };
            if all_arrived() {
                return map;
            }
            drop(map);
            self.volume.settled.wait_for(|| all_arrived().then_some(())).await;
        }
    }

    /// Waits for the transfer; the map leads to what has arrived.
    async fn write_and_enter(self: &Arc<Self>, mut transfer: Transfer<'_>) -> Result<()> {
        let volume = &self.volume;
        let (begun, new) = (core::mem::take(&mut transfer.begun), core::mem::take(&mut transfer.new));
        let (written, failed) = transfer.wait().await;
        if begun.is_empty() && new.is_empty() {
            return written;
        }
        let mut result = Ok(());
        // Before, the blocks would have shown what somebody else had deleted.
        let _map = self.map_lock.write().await;
        volume.unflushed.store(true, Ordering::Release);
        for blocks in begun.into_iter().filter(|_| written.is_ok()) {
            if let Err(errno) = self.end_unwritten(blocks).await {
                result = Err(errno);
            }
        }
        if new.is_empty() {
            return written.and(result);
        }
        for (part, arrived) in new.iter().flat_map(|new| new.parts(&failed)) {
            if let Err(errno) = self.end_new(part, arrived).await {
                result = Err(errno);
            }
        }
        volume.groups.unreserve(NODES);
        volume.settled.wake_all();
        written.and(result)
    }

    /// New blocks for data that waits for them, which the map does not lead to yet.
    async fn begin_new(&self, block: u64, want: u32, promised: bool, transfer: &mut Transfer<'_>) -> Result<Run> {
        let run = self.allocate(block, want, promised).await?;
        let blocks = block..block + u64::from(run.len);
        let kept = {
            let mut state = self.state.lock();
            state.coming.insert(blocks.clone());
            state.reserved.remove(blocks)
        };
        if transfer.new.is_empty() {
            self.volume.groups.reserve_again(NODES);
        }
        self.volume.groups.unreserve(kept);
        match transfer.new.last_mut() {
            // Pointers have to be within one block.
            Some(last) if self.has_extents() && last.goes_on_with(block, run) => last.run.len += run.len,
            _ => transfer.new.push(New { block, run }),
        }
        Ok(run)
    }

    /// The data has arrived, and the map leads to it from now on; or it has not, and waits for blocks again. The caller holds
    /// `map_lock` exclusively.
    async fn end_new(self: &Arc<Self>, new: New, arrived: bool) -> Result<()> {
        let New { block, run } = new;
        let entered = if arrived { self.enter(block, run, true).await } else { Err(Errno::EIO) };
        let groups = &self.volume.groups;
        if entered.is_err() {
            groups.reserve_again(run.len.into());
        }
        {
            let mut state = self.state.lock();
            let blocks = block..block + u64::from(run.len);
            state.coming.remove(blocks.clone());
            if entered.is_err() {
                state.reserved.insert(blocks);
            }
        }
        if entered.is_err() {
            self.volume.free_run(run).await?;
        }
        entered
    }

    /// The blocks to write to at `block`, or a hole that stays one.
    async fn provide_for_write(
        &self,
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
        let want = if reserved { count as u32 } else { 1 };
        self.begin_new(block, want, reserved, transfer).await.map(Extent::Blocks)
    }
}

impl PageIo for Node {
    fn device(&self) -> u64 {
        self.volume.id().encode()
    }

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
