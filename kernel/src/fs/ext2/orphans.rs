//! Unlinked inodes that are still in use. A volume that is marked clean has them on ext3's list: chained through `dtime` from
//! the superblock's `last_orphan`, so that a checker or the next mount frees them. The list is written at the end only: it is
//! a list in many blocks that power would cut, whereas an inode without links that was not deleted is what every checker frees.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

use smallvec::smallvec;

use super::inode::Ext2Inode;
use super::map::Extent;
use super::node::Node;
use super::volume::Volume;
use crate::errno::{Errno, Result};
use crate::exec;
use crate::fs::block::Memory;
use crate::fs::inode::FileType;
use crate::mm::PageCache;

/// An unlinked inode.
pub struct Orphan {
    node: Arc<Node>,
    /// Nobody uses it any more; it could not be freed because the volume was read-only.
    abandoned: bool,
}

impl Volume {
    /// The inode's last name is gone.
    pub fn add_orphan(self: &Arc<Self>, inode: &Arc<Ext2Inode>) {
        let orphan = Orphan { node: inode.node.clone(), abandoned: false };
        self.orphans.lock().insert(inode.node.ino, orphan);
        self.release_when_unused(inode);
    }

    pub fn remove_orphan(&self, node: &Arc<Node>) {
        self.orphans.lock().remove(&node.ino);
    }

    /// The last user is gone, and nothing may be changed.
    pub fn abandon(&self, node: &Arc<Node>) {
        self.orphans.lock().insert(node.ino, Orphan { node: node.clone(), abandoned: true });
    }

    /// Puts the orphans on the list on disk, or takes them off.
    pub fn list_orphans(&self, there: bool) {
        let mut next = 0;
        for Orphan { node, .. } in self.orphans.lock().values() {
            node.update(|state| state.dtime = next);
            next = if there { node.ino } else { 0 };
        }
        if self.last_orphan() != next {
            self.set_last_orphan(next);
        }
    }

    /// The volume can be written again.
    pub async fn free_abandoned(self: &Arc<Self>) {
        let nodes: Vec<Arc<Node>> = {
            let orphans = self.orphans.lock();
            orphans.values().filter(|orphan| orphan.abandoned).map(|orphan| orphan.node.clone()).collect()
        };
        for node in nodes {
            self.delete(node, None).await;
        }
    }

    /// Frees an inode that has no name and no user.
    pub async fn delete(self: &Arc<Self>, node: Arc<Node>, cache: Option<Arc<PageCache>>) {
        // Write-back that comes late finds nothing to write; what has begun is waited for.
        node.update(|state| (state.size, state.write_end) = (0, 0));
        if let Some(cache) = cache {
            cache.truncate(0).await;
        }
        drop(node.writes.write().await);
        if let Err(errno) = self.free_content(&node).await {
            self.corrupt(format_args!("inode {} could not be freed: {errno:?}", node.ino));
        }
        self.remove_orphan(&node);
        let now = self.now().sec as u32;
        node.update(|state| state.dtime = now);
        // Into the table before the number is free for others.
        let stored = node.store().await;
        self.disown(node.ino);
        self.order.forget(node.ino);
        let directory = node.kind == FileType::Directory;
        let freed = self.free_inode(node.ino, directory).await;
        if let Err(errno) = stored.and(freed) {
            self.corrupt(format_args!("inode {} could not be freed: {errno:?}", node.ino));
        }
    }

    async fn free_content(self: &Arc<Self>, node: &Arc<Node>) -> Result<()> {
        let _map = node.map_lock.write().await;
        node.drop_reservations(0);
        if has_blocks(node) {
            node.free_blocks_from(0).await?;
        }
        node.drop_attribute_block().await
    }

    /// Frees what is on the list on disk. What makes no sense there is left for e2fsck.
    pub async fn delete_orphans(self: &Arc<Self>) {
        let mut list = BTreeSet::new();
        let mut ino = self.last_orphan();
        while ino != 0 {
            exec::budget().await;
            match self.next_orphan(ino).await {
                Ok(next) if list.insert(ino) => ino = next,
                _ => {
                    self.corrupt(format_args!("the list of unlinked inodes leads to {ino}"));
                    break;
                }
            }
        }
        for &ino in &list {
            if let Err(errno) = self.delete_orphan(ino).await {
                self.corrupt(format_args!("the unlinked inode {ino} could not be freed: {errno:?}"));
            }
        }
        if !list.is_empty() {
            log::info!("ext2: {} unlinked inodes freed", list.len());
        }
        if self.last_orphan() != 0 {
            self.set_last_orphan(0);
        }
    }

    /// Which inode follows on the list.
    async fn next_orphan(&self, ino: u32) -> Result<u32> {
        if ino < self.layout.first_ino || !self.groups.is_inode_used(&self.layout, &self.buffers, ino).await? {
            return Err(Errno::EIO);
        }
        let (block, offset) = self.inode_position(ino)?;
        let buffer = self.buffers.read(block).await?;
        let raw = offset..offset + self.layout.inode_size;
        buffer.with(|data| self.decode(&data[raw], ino)).map(|(_, state)| state.dtime)
    }

    async fn delete_orphan(self: &Arc<Self>, ino: u32) -> Result<()> {
        let (block, offset) = self.inode_position(ino)?;
        let buffer = self.buffers.read(block).await?;
        let raw = offset..offset + self.layout.inode_size;
        let (kind, state) = buffer.with(|data| self.decode(&data[raw], ino))?;
        if state.nlink == 0 {
            self.delete(self.node(ino, kind, state), None).await;
            return Ok(());
        }
        // ext3 lists files that were being truncated too.
        let inode = self.inode(ino).await?;
        let node = &inode.node;
        let size = node.state.lock().size;
        node.update(|state| state.dtime = 0);
        let _map = node.map_lock.write().await;
        if !has_blocks(node) {
            return Ok(());
        }
        let block_size = self.layout.block_size as u64;
        let (last, tail) = (size / block_size, (size % block_size) as usize);
        if kind == FileType::Regular
            && tail != 0
            && let Extent::Blocks(run) = node.lookup_block(last, 1).await?
        {
            // Or what was there would be seen when the file grows.
            let sector = u64::from(run.start) * self.layout.sectors_per_block();
            let mut bytes = self.device.read_bytes(sector, self.layout.block_size).await?;
            bytes[tail..].fill(0);
            self.device.write(sector, smallvec![Memory::Bytes(bytes)]).await?;
        }
        node.free_blocks_from(size.div_ceil(block_size)).await
    }
}

/// Whether the pointers of the inode are block numbers.
fn has_blocks(node: &Node) -> bool {
    match node.kind {
        FileType::Regular | FileType::Directory => true,
        FileType::Symlink => !node.is_fast_symlink(),
        _ => false,
    }
}
