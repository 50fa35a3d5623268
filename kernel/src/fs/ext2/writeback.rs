//! Writing everything back: content first (which allocates its blocks), then inodes, then the blocks of metadata, then
//! the superblock, then a flush of the device.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use smallvec::smallvec;
use zerocopy::IntoBytes;

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

    /// Writes inodes, directories, maps, bitmaps and superblock. Not to be dropped before it ends.
    pub async fn write_metadata(&self) -> Result<()> {
        let mut result = Ok(());
        let storing = self.storing.lock().await;
        let nodes = core::mem::take(&mut *self.dirty_nodes.lock());
        for node in nodes.into_values() {
            if let Err(errno) = node.store().await {
                log::error!("ext2: inode {} could not be written: {errno:?}", node.ino);
                self.dirty_nodes.lock().insert(node.ino, node);
                result = Err(errno);
            }
        }
        drop(storing);
        if self.buffers.dirty_count() > 0 {
            // The free counts in the superblock go with the bitmaps.
            self.superblock_dirty.store(true, Ordering::Release);
        }
        result = self.groups.seal(&self.layout, &self.buffers, self.sums).await.and(result);
        result = self.buffers.write_back().await.and(result);
        if self.superblock_dirty.load(Ordering::Acquire) {
            result = self.write_superblock().await.and(result);
        }
        result
    }

    async fn write_superblock(&self) -> Result<()> {
        let _one = self.superblock_lock.lock().await;
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
        let mut result = self.write_data().await;
        if !self.read_only() {
            self.superblock_dirty.store(true, Ordering::Release);
        }
        result = self.write_metadata().await.and(result);
        self.device.flush().await.and(result)
    }

    /// Makes the volume writable, which marks it as in use; or read-only, with everything written and marked clean.
    pub async fn set_read_only(self: &Arc<Self>, read_only: bool) -> Result<()> {
        if read_only {
            let was = self.read_only.swap(true, Ordering::AcqRel);
            self.no_deletions().await;
            if was && self.buffers.dirty_count() == 0 {
                return Ok(());
            }
            let mut result = self.sync_all().await;
            {
                let mut sb = self.superblock.lock();
                let errors = sb.state.get() & layout::STATE_ERRORS;
                let clean = if errors == 0 { self.found_state & layout::STATE_CLEAN } else { 0 };
                sb.state.set((self.found_state & !layout::STATE_CLEAN) | errors | clean);
            }
            result = self.write_superblock().await.and(result);
            return self.device.flush().await.and(result);
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
        self.write_superblock().await?;
        self.read_only.store(false, Ordering::Release);
        self.delete_orphans().await
    }
}
