//! Writing everything back: content first (which allocates its blocks), then inodes, then the blocks of metadata and the
//! superblock, then a flush of the device.
//!
//! Power may go at any moment, and there is no journal; so two things have an order. What leads to a new block (of a map, a
//! tree of extents, a directory, attributes) is written when the block is on the disk, and so is what needs a feature that
//! the superblock says. And what has been freed is used again when nothing on the disk leads to it any more
//! ([`super::held`]).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use smallvec::smallvec;
use zerocopy::IntoBytes;

use super::buffers::{Copy, Wave};
use super::checksum::{Seal, Sums};
use super::volume::Volume;
use super::{checksum, layout};
use crate::errno::{Errno, Result};
use crate::fs::block::Memory;

impl Volume {
    /// Writes dirty file content, which allocates its blocks.
    pub async fn write_data(&self) -> Result<()> {
        let mut result = Ok(());
        for inode in self.live_inodes() {
            if let Err(errno) = inode.write_data().await {
                result = Err(errno);
            }
        }
        result
    }

    /// Writes inodes, directories, maps, bitmaps and superblock; all of that, and what was written before, is on stable
    /// storage afterwards. Not to be dropped before it ends.
    pub async fn write_metadata(&self) -> Result<()> {
        self.write_metadata_above(0).await
    }

    /// The same, if more than so many blocks are dirty.
    pub async fn write_metadata_above(&self, limit: usize) -> Result<()> {
        let _one = self.writing.lock().await;
        if limit > 0 && self.buffers.dirty_count() <= limit {
            return Ok(());
        }
        if self.ended.load(Ordering::Acquire) {
            return Err(Errno::EIO);
        }
        // What was freed by now is so by all that is written from now on.
        let release = self.groups.begin_release();
        let mut result = Ok(());
        let nodes = core::mem::take(&mut *self.dirty_nodes.lock());
        for node in nodes.into_values() {
            if let Err(errno) = node.store().await {
                log::error!("ext2: inode {} could not be written: {errno:?}", node.ino);
                self.dirty_nodes.lock().insert(node.ino, node);
                result = Err(errno);
            }
        }
        result = self.write_blocks().await.and(result);
        result = self.device.flush().await.and(result);
        let forget = |start, len| self.buffers.forget(start, len);
        self.groups.end_release(&self.layout, release, result.is_ok(), forget).await;
        if result.is_err() {
            // For who tries again in a while.
            self.dirty.notify();
        }
        result
    }

    /// Two waves, with a flush in between: what others are going to lead to, then everything else. The others are copied
    /// before, so that whatever they lead to is in the first wave or on the disk.
    async fn write_blocks(&self) -> Result<()> {
        let see = |seal, data: &[u8]| self.groups.note_written(&self.layout, seal, data);
        let is_late = |seal| matches!(seal, Seal::Descriptors { .. });
        let mut others = self.buffers.copy(Wave::Others, is_late, see).await;
        if self.groups.sums != Sums::None {
            // They have the checksums of the bitmaps.
            let late = |seal| !is_late(seal);
            others.append(&mut self.buffers.copy(Wave::Others, late, |_, _| ()).await);
        }
        match self.write_first(&mut others).await {
            Ok(()) => {}
            Err(errno) => {
                others.iter().for_each(Copy::take_back);
                return Err(errno);
            }
        }
        // The free counts in the superblock go with the bitmaps.
        if !others.is_empty() {
            self.superblock_dirty.store(true, Ordering::Release);
        }
        let result = self.buffers.write(others).await;
        if self.superblock_dirty.load(Ordering::Acquire) {
            return self.write_superblock().await.and(result);
        }
        result
    }

    /// Writes what has to be there before the `others`, of which it takes out what it has a newer copy of.
    async fn write_first(&self, others: &mut Vec<Copy>) -> Result<()> {
        let mut some = false;
        loop {
            let first = self.buffers.copy(Wave::First, |_| false, |_, _| ()).await;
            if first.is_empty() {
                break;
            }
            some = true;
            let newer = |copy: &Copy| first.binary_search_by_key(&copy.block(), Copy::block).is_ok();
            others.retain(|copy| !newer(copy));
            // There may be more by now that these lead to.
            self.buffers.write(first).await?;
        }
        if self.superblock_first.swap(false, Ordering::AcqRel) {
            some = true;
            if let Err(errno) = self.write_superblock().await {
                self.superblock_first.store(true, Ordering::Release);
                return Err(errno);
            }
        }
        // The copies were made before: what they lead to has arrived if this says so.
        if !self.unflushed.swap(false, Ordering::AcqRel) && !some {
            return Ok(());
        }
        let result = self.device.flush().await;
        if result.is_err() {
            self.unflushed.store(true, Ordering::Release);
        }
        result
    }

    async fn write_superblock(&self) -> Result<()> {
        let _one = self.superblock_lock.lock().await;
        if self.ended.load(Ordering::Acquire) {
            return Err(Errno::EIO);
        }
        self.superblock_dirty.store(false, Ordering::Release);
        let bytes: Box<[u8]> = {
            let mut sb = self.superblock.lock();
            sb.free_blocks.set(self.groups.free_blocks() as u32);
            sb.free_inodes.set(self.groups.free_inodes() as u32);
            sb.write_time.set(self.now().sec as u32);
            if self.layout.features.metadata_csum() {
                let sum = checksum::crc32c(!0, &sb.as_bytes()[..checksum::SUPER_COVERED]);
                sb.checksum.set(sum);
            }
            sb.as_bytes().into()
        };
        let result = self.device.write(layout::SUPER_SECTOR, smallvec![Memory::Bytes(bytes)]).await;
        if result.is_err() {
            self.superblock_dirty.store(true, Ordering::Release);
        }
        result
    }

    /// Everything that was written so far is on stable storage afterwards. Not to be dropped before it ends.
    pub async fn sync_all(&self) -> Result<()> {
        let result = self.write_data().await;
        if !self.read_only() {
            self.superblock_dirty.store(true, Ordering::Release);
        }
        self.write_metadata().await.and(result)
    }

    /// Makes the volume writable, which marks it as in use; or read-only, with everything written and marked clean.
    pub async fn set_read_only(self: &Arc<Self>, read_only: bool) -> Result<()> {
        let mut complete = self.complete.lock().await;
        if read_only {
            if !*complete {
                self.seal().await?;
                *complete = true;
            }
            return Ok(());
        }
        if !self.read_only() {
            return Ok(());
        }
        if self.device.read_only() || self.must_read_only {
            return Err(Errno::EROFS);
        }
        {
            let mut sb = self.superblock.lock();
            let state = sb.state.get();
            if state & layout::STATE_CLEAN == 0 || state & layout::STATE_ERRORS != 0 {
                log::warn!("ext2: the file system was not unmounted cleanly: e2fsck is recommended");
            }
            sb.state.set(state & !layout::STATE_CLEAN);
            let mounts = sb.mount_count.get();
            sb.mount_count.set(mounts.wrapping_add(1));
            sb.mount_time.set(self.now().sec as u32);
        }
        *complete = false;
        self.write_superblock().await?;
        // Nothing may be on the disk before that is: who finds the volume clean looks no further.
        self.device.flush().await?;
        self.sealed.store(false, Ordering::Release);
        self.read_only.store(false, Ordering::SeqCst);
        if self.orphans.lock().is_empty() {
            self.delete_orphans().await;
        } else {
            // They are those that are known.
            self.list_orphans(false);
            self.free_abandoned().await;
        }
        Ok(())
    }

    /// Writes everything, and marks the volume as clean when nothing changes it any more. One at a time.
    async fn seal(self: &Arc<Self>) -> Result<()> {
        self.read_only.store(true, Ordering::SeqCst);
        self.no_changes().await;
        self.no_deletions().await;
        let mut result = self.write_data().await;
        // Of the pages that get dirty now, by mappings, none is given blocks.
        self.sealed.store(true, Ordering::SeqCst);
        self.no_changes().await;
        self.list_orphans(true);
        self.superblock_dirty.store(true, Ordering::Release);
        result = self.write_metadata().await.and(result);
        {
            let mut sb = self.superblock.lock();
            let errors = sb.state.get() & layout::STATE_ERRORS;
            let clean = if errors == 0 && result.is_ok() { self.found_state & layout::STATE_CLEAN } else { 0 };
            sb.state.set((self.found_state & !layout::STATE_CLEAN) | errors | clean);
        }
        result = self.write_superblock().await.and(result);
        self.device.flush().await.and(result)
    }
}
