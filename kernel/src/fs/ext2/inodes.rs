//! The table of inodes in memory: one [`Ext2Inode`] for an inode number.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use super::inode::Ext2Inode;
use super::layout;
use super::node::{Node, NodeState};
use super::volume::Volume;
use crate::errno::{Errno, Result};
use crate::exec::{Mutex, RwLock};
use crate::fs::handle::{Handle, INO_GENERATION, INO_GENERATION_PARENT};
use crate::fs::inode::FileType;
use crate::fs::inode_flags::InodeFlags;
use crate::sync::SpinLock;

/// Inodes kept in memory while nobody uses them.
const IDLE_INODES: usize = 8192;
/// An inode in the table.
enum Slot {
    /// With a name: kept while memory allows.
    Live(Arc<Ext2Inode>),
    /// Without a name, alive as long as somebody uses it.
    Unlinked(Weak<Ext2Inode>),
}

#[derive(Default)]
pub struct InodeTable {
    /// A tree, because it must not need large pieces of memory.
    slots: BTreeMap<u32, Slot>,
    /// Where the search for inodes that may go has come to.
    hand: u32,
}

impl Volume {
    /// The inode, from memory or from disk.
    pub async fn inode(self: &Arc<Self>, ino: u32) -> Result<Arc<Ext2Inode>> {
        if let Some(found) = self.cached_inode(ino) {
            return found;
        }
        let reserved = ino != layout::ROOT_INO && ino < self.layout.first_ino;
        if reserved || ino > self.layout.inodes {
            self.corrupt(format_args!("a name leads to inode {ino}"));
            return Err(Errno::EIO);
        }
        let (block, offset) = self.inode_position(ino)?;
        let buffer = self.buffers.read(block).await?;
        // Decoded under the lock of the table: if the inode is not in there, its block is up to date.
        let mut table = self.inodes.lock();
        if let Some(found) = table.get(ino) {
            return found;
        }
        let size = self.layout.inode_size;
        let (kind, state) = buffer.with(|data| self.decode(&data[offset..offset + size], ino))?;
        if state.nlink == 0 {
            return Err(Errno::ESTALE);
        }
        let inode = Ext2Inode::new(self.node(ino, kind, state));
        table.insert(ino, Slot::Live(inode.clone()));
        Ok(inode)
    }

    /// The inode that a handle stands for, or stood for: ESTALE if it has been deleted, or is another one now.
    pub async fn inode_of(self: &Arc<Self>, handle: &Handle) -> Result<Arc<Ext2Inode>> {
        let (INO_GENERATION | INO_GENERATION_PARENT, &[ino, generation, ..]) = (handle.kind, &handle.words[..]) else {
            return Err(Errno::ESTALE);
        };
        if ino != layout::ROOT_INO && !(self.layout.first_ino..=self.layout.inodes).contains(&ino) {
            return Err(Errno::ESTALE);
        }
        // One without a name is in memory. Of others that are free, what is on the disk means nothing.
        let known = self.cached_inode(ino).is_some();
        if !known && !self.groups.is_inode_used(&self.layout, &self.buffers, ino).await? {
            return Err(Errno::ESTALE);
        }
        let inode = self.inode(ino).await?;
        let is_it = generation == 0 || inode.node.state.lock().generation == generation;
        if is_it { Ok(inode) } else { Err(Errno::ESTALE) }
    }

    fn cached_inode(&self, ino: u32) -> Option<Result<Arc<Ext2Inode>>> {
        self.inodes.lock().get(ino)
    }

    pub fn node(self: &Arc<Self>, ino: u32, kind: FileType, state: NodeState) -> Arc<Node> {
        Arc::new_cyclic(|me| Node {
            volume: self.clone(),
            me: me.clone(),
            ino,
            kind,
            parent: AtomicU32::new(0),
            state: SpinLock::new(state),
            map_lock: RwLock::new(()),
            writes: RwLock::new(()),
            names_lock: Mutex::new(()),
            dir: SpinLock::new(None),
        })
    }

    /// Enters a new inode.
    pub fn adopt(&self, inode: &Arc<Ext2Inode>) {
        let mut table = self.inodes.lock();
        // The volume may have been told something else since it was made.
        inode.obey();
        table.insert(inode.node.ino, Slot::Live(inode.clone()));
    }

    /// All inodes obey these besides their own flags from now on, and of those before what is `kept`.
    pub fn change_syncs(&self, kept: InodeFlags, set: InodeFlags) {
        self.set_syncs(self.syncs() & kept | set);
        self.live_inodes().iter().for_each(|inode| inode.obey());
    }

    /// The inode has lost its last name: it lives as long as somebody uses it.
    #[inline]
    pub fn release_when_unused(&self, inode: &Arc<Ext2Inode>) {
        let slot = Slot::Unlinked(Arc::downgrade(inode));
        let old = self.inodes.lock().slots.insert(inode.node.ino, slot);
        drop(old);
    }

    /// What has been made got no name after all: the last drop frees it.
    pub fn give_up(&self, inode: &Arc<Ext2Inode>) {
        inode.node.update(|state| state.nlink = 0);
        self.release_when_unused(inode);
    }

    /// The inode is about to become free.
    pub fn disown(&self, ino: u32) {
        let old = self.inodes.lock().slots.remove(&ino);
        drop(old);
    }

    /// The type of an inode, for directories that do not say it.
    pub async fn kind_of(&self, ino: u32) -> Result<FileType> {
        if let Some(Ok(inode)) = self.cached_inode(ino) {
            return Ok(inode.node.kind);
        }
        let (block, offset) = self.inode_position(ino)?;
        let buffer = self.buffers.read(block).await?;
        let size = self.layout.inode_size;
        buffer.with(|data| self.decode(&data[offset..offset + size], ino)).map(|(kind, _)| kind)
    }

    #[inline]
    pub fn note_dirty(&self, node: &Arc<Node>) {
        let mut nodes = self.dirty_nodes.lock();
        // Nobody would let go of it any more.
        if !self.ended.load(Ordering::Acquire) {
            nodes.insert(node.ino, node.clone());
        }
    }

    pub fn live_inodes(&self) -> Vec<Arc<Ext2Inode>> {
        let table = self.inodes.lock();
        let live = table.slots.values().filter_map(|slot| match slot {
            Slot::Live(inode) => Some(inode.clone()),
            Slot::Unlinked(inode) => inode.upgrade(),
        });
        live.collect()
    }

    /// The volume is not mounted any more. Lets go of its inodes, which hold it and keep it alive, and those that could not be stored.
    pub fn let_go(&self) {
        let table = core::mem::take(&mut *self.inodes.lock());
        drop(table);
        self.orphans.lock().clear();
        self.ended.store(true, Ordering::Release);
        self.forget_lost_found();
        let unstored = core::mem::take(&mut *self.dirty_nodes.lock());
        drop(unstored);
    }
}

impl InodeTable {
    #[inline]
    fn get(&self, ino: u32) -> Option<Result<Arc<Ext2Inode>>> {
        match self.slots.get(&ino)? {
            Slot::Live(inode) => Some(Ok(inode.clone())),
            Slot::Unlinked(inode) => Some(inode.upgrade().ok_or(Errno::ESTALE)),
        }
    }

    fn insert(&mut self, ino: u32, slot: Slot) {
        self.slots.insert(ino, slot);
        // References are given out under the lock of this table, so one that is the only one stays so while we look.
        for _ in 0..4 {
            if self.slots.len() <= IDLE_INODES {
                return;
            }
            let Some((&ino, slot)) = self.slots.range(self.hand..).next() else {
                self.hand = 0;
                continue;
            };
            self.hand = ino + 1;
            if matches!(slot, Slot::Live(inode) if Arc::strong_count(inode) == 1 && inode.is_idle()) {
                self.slots.remove(&ino);
            }
        }
    }
}
