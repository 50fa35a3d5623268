//! Operations on names: create, link, unlink ([`super::rename`] is another). Each runs to its end once begun (`Volume::run_to_end`).
//!
//! Order of changes: an inode is in the table before a name leads to it, and a name is gone before its inode is freed.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::buffers::Buffer;
use super::checksum::Seal;
use super::dir::{DirIndex, Found};
use super::dir_change::Removed;
use super::dirent;
use super::extents;
use super::features::RoCompat;
use super::inode::Ext2Inode;
use super::layout::{LINK_MAX, RAW_INODE_SIZE};
use super::map::Extent;
use super::node::{self, FAST_SYMLINK_MAX, Holes, Node, NodeState, POINTERS};
use super::ranges::Ranges;
use crate::errno::{Errno, Result};
use crate::fs::inode::{DeviceId, FileType, Inode, NewAttr, NewNode};

/// [`NewNode`] by what it takes to make it.
#[derive(Clone, Copy)]
pub enum Content<'a> {
    Plain(FileType),
    Symlink(&'a [u8]),
    Device(FileType, DeviceId),
}

impl<'a> From<NewNode<'a>> for Content<'a> {
    fn from(node: NewNode<'a>) -> Self {
        match node {
            NewNode::Regular => Content::Plain(FileType::Regular),
            NewNode::Directory => Content::Plain(FileType::Directory),
            NewNode::Fifo => Content::Plain(FileType::Fifo),
            NewNode::Socket => Content::Plain(FileType::Socket),
            NewNode::Symlink(target) => Content::Symlink(target),
            NewNode::CharDevice(id) => Content::Device(FileType::CharDevice, id),
            NewNode::BlockDevice(id) => Content::Device(FileType::BlockDevice, id),
        }
    }
}

impl Content<'_> {
    pub(super) fn kind(&self) -> FileType {
        match self {
            Content::Plain(kind) | Content::Device(kind, _) => *kind,
            Content::Symlink(_) => FileType::Symlink,
        }
    }
}

impl Node {
    /// Makes a node and gives it a name.
    pub async fn create(self: &Arc<Self>, name: &[u8], content: Content<'_>, attr: NewAttr) -> Result<Arc<Ext2Inode>> {
        let _change = self.volume.begin_change().await?;
        let _names = self.names_lock.lock().await;
        let kind = content.kind();
        if self.find_name(name).await?.is_some() {
            return Err(Errno::EEXIST);
        }
        let directory = kind == FileType::Directory;
        if directory && !self.has_room_for_directory() {
            return Err(Errno::EMLINK);
        }
        let inode = self.new_inode(kind, attr, if directory { 2 } else { 1 }).await?;
        let mut result = inode.node.fill(content, self.ino).await;
        if result.is_ok() {
            result = self.add_name(name, inode.node.ino, kind).await;
        }
        if let Err(errno) = result {
            self.volume.give_up(&inode);
            return Err(errno);
        }
        if directory {
            self.adopt_directory(&inode.node);
        }
        Ok(inode)
    }

    /// A new directory has its name in this one.
    pub(super) fn adopt_directory(self: &Arc<Self>, child: &Node) {
        child.parent.store(self.ino, Ordering::Relaxed);
        self.gain_directory();
    }

    /// A regular file without a name; [`Node::link`] may give it one.
    pub async fn create_unnamed(self: &Arc<Self>, attr: NewAttr) -> Result<Arc<Ext2Inode>> {
        let _change = self.volume.begin_change().await?;
        let inode = self.new_inode(FileType::Regular, attr, 0).await?;
        self.volume.add_orphan(&inode);
        Ok(inode)
    }

    /// Allocates and initialises an inode near this directory.
    pub(super) async fn new_inode(
        self: &Arc<Self>,
        kind: FileType,
        attr: NewAttr,
        nlink: u32,
    ) -> Result<Arc<Ext2Inode>> {
        let volume = &self.volume;
        let directory = kind == FileType::Directory;
        let ino = volume.alloc_inode(self.ino, directory).await?;
        let slot = async {
            let (block, offset) = volume.inode_position(ino)?;
            Ok::<(Arc<Buffer>, usize), Errno>((volume.buffers.read(block).await?, offset))
        };
        match slot.await {
            Ok((buffer, offset)) => Ok(self.plant(ino, (&buffer, offset), kind, attr, nlink)),
            Err(errno) => {
                volume.free_inode(ino, directory).await?;
                Err(errno)
            }
        }
    }

    /// Initialises an inode, which is in this place of the table.
    pub(super) fn plant(
        &self,
        ino: u32,
        (buffer, offset): (&Buffer, usize),
        kind: FileType,
        attr: NewAttr,
        nlink: u32,
    ) -> Arc<Ext2Inode> {
        let volume = &self.volume;
        let layout = &volume.layout;
        if nlink > 0 {
            volume.order.begin(ino);
        }
        buffer.modify(|data| node::format(&mut data[offset..offset + layout.inode_size]));
        let now = volume.now();
        let mut state = NodeState {
            perm: attr.perm & 0o7777,
            uid: attr.uid,
            gid: attr.gid,
            size: 0,
            nlink,
            sectors: 0,
            flags: node::inherited_flags(self.state.lock().flags, kind),
            generation: now.nsec ^ (now.sec as u32).rotate_left(16) ^ ino,
            file_acl: 0,
            block: [0; POINTERS],
            atime: now,
            mtime: now,
            ctime: now,
            btime: (layout.inode_size > RAW_INODE_SIZE).then_some(now),
            dtime: 0,
            write_end: 0,
            reserved: Ranges::default(),
            added: Holes::new(),
            coming: Ranges::default(),
            goal: (0, 0),
            dirty: false,
        };
        if layout.features.extents() && matches!(kind, FileType::Regular | FileType::Directory) {
            extents::plant(&mut state);
        }
        let inode = Ext2Inode::new(volume.node(ino, kind, state));
        volume.adopt(&inode);
        inode.node.update(|_| ());
        inode
    }

    /// With dir_nlink, a directory that has too many others in it counts them no more: it has one link then.
    pub(super) fn has_room_for_directory(&self) -> bool {
        let layout = &self.volume.layout;
        self.state.lock().nlink < layout.link_max() || layout.features.ro_compat.contains(RoCompat::DIR_NLINK)
    }

    pub(super) fn gain_directory(self: &Arc<Self>) {
        let max = self.volume.layout.link_max();
        self.update(|state| match state.nlink {
            1 => {}
            nlink if nlink + 1 >= max && max > LINK_MAX => state.nlink = 1,
            nlink => state.nlink = nlink + 1,
        });
    }

    pub(super) fn lose_directory(self: &Arc<Self>) {
        self.update(|state| {
            if state.nlink > 2 {
                state.nlink -= 1;
            }
        });
    }

    /// Gives a new node its content.
    async fn fill(self: &Arc<Self>, content: Content<'_>, parent: u32) -> Result<()> {
        let volume = &self.volume;
        let block_size = volume.layout.block_size;
        match content {
            Content::Plain(FileType::Directory) => {
                let buffer = self.first_block().await?;
                self.fill_directory(&buffer, parent);
            }
            Content::Symlink(target) if target.len() > FAST_SYMLINK_MAX => {
                if target.len() >= block_size {
                    return Err(Errno::ENAMETOOLONG);
                }
                if volume.layout.features.extents() {
                    self.update(extents::plant);
                }
                let buffer = self.first_block().await?;
                buffer.modify_first(Seal::None, |data| data[..target.len()].copy_from_slice(target));
                self.update(|state| state.size = target.len() as u64);
            }
            content => self.fill_inode(content),
        }
        Ok(())
    }

    /// Makes this block the first one of a new directory.
    pub(super) fn fill_directory(self: &Arc<Self>, buffer: &Buffer, parent: u32) {
        let layout = &self.volume.layout;
        self.fill_dir_block(buffer, |data| dirent::first_block(data, self.ino, parent, layout.file_type));
        self.update(|state| state.size = layout.block_size as u64);
        let index = buffer.with(|data| DirIndex::fresh(buffer.block, &data[..layout.dir_area()]));
        *self.dir.lock() = Some(Box::new(index));
    }

    /// The same for what is in the inode itself.
    pub(super) fn fill_inode(self: &Arc<Self>, content: Content<'_>) {
        match content {
            Content::Plain(_) => {}
            Content::Device(_, id) => self.update(|state| state.block = node::encode_device(id)),
            Content::Symlink(target) => self.update(|state| {
                for (slot, piece) in state.block.iter_mut().zip(target.chunks(4)) {
                    let mut bytes = [0; 4];
                    bytes[..piece.len()].copy_from_slice(piece);
                    *slot = u32::from_le_bytes(bytes);
                }
                state.size = target.len() as u64;
            }),
        }
    }

    /// Without content so far.
    async fn first_block(self: &Arc<Self>) -> Result<Arc<Buffer>> {
        let _map = self.map_lock.write().await;
        let (run, _) = self.provide_blocks(0, 1, false).await?;
        Ok(self.volume.buffers.fresh(run.start))
    }

    pub async fn link(self: &Arc<Self>, name: &[u8], target: &Arc<Ext2Inode>) -> Result<()> {
        let _change = self.volume.begin_change().await?;
        let _names = self.names_lock.lock().await;
        if self.find_name(name).await?.is_some() {
            return Err(Errno::EEXIST);
        }
        let node = &target.node;
        let now = self.volume.now();
        // The count first: a name must never lead to an inode that may be freed.
        let unnamed = node.update(|state| {
            if state.nlink >= self.volume.layout.link_max() {
                return Err(Errno::EMLINK);
            }
            target.state().check_link(state.nlink)?;
            if state.nlink == 0 {
                self.volume.order.begin(node.ino);
            }
            state.nlink += 1;
            state.ctime = now;
            Ok(state.nlink == 1)
        })?;
        if unnamed {
            self.volume.remove_orphan(node);
            self.volume.adopt(target);
        }
        let result = self.add_name(name, node.ino, node.kind).await;
        if result.is_err() {
            self.drop_link(target, 1);
        }
        result
    }

    /// What the table of inodes has, if the disk must know a directory until what was in it has gone.
    pub(super) async fn last_raw(&self) -> Result<Option<Box<[u8]>>> {
        let (volume, order) = (&self.volume, &self.volume.order);
        if !order.is_known(self.ino) || !order.was_left(self.ino) {
            return Ok(None);
        }
        // With the blocks that it has now, which stay until it has gone.
        volume.groups.hold_new_blocks();
        self.store().await?;
        let (block, offset) = volume.inode_position(self.ino)?;
        let buffer = volume.buffers.read(block).await?;
        Ok(Some(buffer.with(|data| data[offset..offset + volume.layout.inode_size].into())))
    }

    /// Takes links away; without any the inode goes when its last user does.
    pub(super) fn drop_link(&self, target: &Arc<Ext2Inode>, count: u32) {
        let now = self.volume.now();
        let left = target.node.update(|state| {
            state.nlink = state.nlink.saturating_sub(count);
            state.ctime = now;
            state.nlink
        });
        if left == 0 {
            self.volume.order.unlinked(target.node.ino);
            self.volume.add_orphan(target);
        }
    }

    pub async fn unlink(self: &Arc<Self>, name: &[u8], target: &Arc<Ext2Inode>) -> Result<()> {
        let _change = self.volume.begin_change().await?;
        let _names = self.names_lock.lock().await;
        let found = self.find_target(name, target).await?;
        let directory = target.node.kind == FileType::Directory;
        if directory && !target.node.bury_if_empty().await? {
            return Err(Errno::ENOTEMPTY);
        }
        let order = &self.volume.order;
        let ino = target.node.ino;
        let raw = if directory { target.node.last_raw().await } else { Ok(None) };
        let _removal = order.removal.read().await;
        let removed = match raw {
            Ok(raw) => {
                if let Some(raw) = raw {
                    order.go(ino, raw);
                }
                let known = order.is_known(ino);
                self.remove_name(found, Removed { known, later: known, last: directory }).await
            }
            Err(errno) => Err(errno),
        };
        if let Err(errno) = removed {
            order.stay(ino);
            if directory {
                target.node.exhume();
            }
            return Err(errno);
        }
        self.lose(target);
        Ok(())
    }

    /// The name of `target` is gone, which is not a directory or an empty one.
    pub(super) fn lose(self: &Arc<Self>, target: &Arc<Ext2Inode>) {
        let directory = target.node.kind == FileType::Directory;
        if directory {
            self.lose_directory();
        }
        // An empty directory has two links: its name and its own ".".
        self.drop_link(target, if directory { u32::MAX } else { 1 });
    }

    /// The name's place, if it still leads to `target`.
    pub(super) async fn find_target(&self, name: &[u8], target: &Ext2Inode) -> Result<Found> {
        match self.find_name(name).await? {
            Some(found) if found.ino == target.node.ino => Ok(found),
            _ => Err(Errno::ENOENT),
        }
    }

    pub async fn read_link(&self) -> Result<Vec<u8>> {
        if self.kind != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        let size = self.state.lock().size as usize;
        if self.is_fast_symlink() {
            let bytes = self.state.lock().block.map(u32::to_le_bytes);
            return bytes.as_flattened().get(..size).map(Into::into).ok_or(Errno::EIO);
        }
        let block = {
            let _map = self.map_lock.read().await;
            match self.lookup_block(0, 1).await? {
                Extent::Blocks(run) => run.start,
                Extent::Hole(_) => return Err(Errno::EIO),
            }
        };
        let buffer = self.volume.buffers.read(block).await?;
        buffer.with(|data| data.get(..size).map(Into::into)).ok_or(Errno::EIO)
    }
}
