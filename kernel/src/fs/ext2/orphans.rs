//! Unlinked inodes that are still in use. They are chained through `dtime` from the superblock's `last_orphan`, as ext3
//! does, so that a checker or the next mount frees them if the machine stops before their last user lets go.

use alloc::sync::Arc;

use super::inode::Ext2Inode;
use super::node::Node;
use super::volume::Volume;
use crate::errno::Result;
use crate::fs::inode::FileType;
use crate::mm::PageCache;

impl Volume {
    /// The inode's last name is gone.
    pub fn add_orphan(self: &Arc<Self>, inode: &Arc<Ext2Inode>) {
        let node = &inode.node;
        {
            let mut orphans = self.orphans.lock();
            let next = orphans.last().map_or(0, |last| last.ino);
            node.update(|state| state.dtime = next);
            self.set_last_orphan(node.ino);
            orphans.push(node.clone());
        }
        self.release_when_unused(inode);
    }

    pub fn remove_orphan(&self, node: &Arc<Node>) {
        let mut orphans = self.orphans.lock();
        let Some(position) = orphans.iter().position(|other| other.ino == node.ino) else { return };
        let next = position.checked_sub(1).and_then(|below| orphans.get(below)).map_or(0, |below| below.ino);
        match orphans.get(position + 1) {
            Some(above) => above.update(|state| state.dtime = next),
            None => self.set_last_orphan(next),
        }
        orphans.remove(position);
        node.update(|state| state.dtime = 0);
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
        let directory = node.kind == FileType::Directory;
        let freed = self.groups.free_inode(&self.layout, &self.buffers, node.ino, directory).await;
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

    /// Frees what a crash left on the list.
    pub async fn delete_orphans(self: &Arc<Self>) -> Result<()> {
        let mut ino = self.last_orphan();
        let mut count = 0;
        while ino != 0 && count < self.layout.inodes {
            if ino < self.layout.first_ino {
                break;
            }
            let (block, offset) = self.inode_position(ino)?;
            let buffer = self.buffers.read(block).await?;
            let size = self.layout.inode_size;
            let Ok((kind, state)) = buffer.with(|data| self.decode(&data[offset..offset + size], ino)) else { break };
            let (next, nlink) = (state.dtime, state.nlink);
            if nlink == 0 {
                let node = self.node(ino, kind, state);
                self.delete(node, None).await;
            } else {
                // ext3 lists files that were being truncated too.
                let inode = self.inode(ino).await?;
                let keep = inode.node.state.lock().size.div_ceil(self.layout.block_size as u64);
                inode.node.update(|state| state.dtime = 0);
                let _map = inode.node.map_lock.write().await;
                if has_blocks(&inode.node) {
                    inode.node.free_blocks_from(keep).await?;
                }
            }
            ino = next;
            count += 1;
        }
        if count > 0 {
            log::info!("ext2: {count} unlinked inodes freed");
        }
        if self.last_orphan() != 0 {
            self.set_last_orphan(0);
        }
        Ok(())
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
