//! Operations on names: create, link, unlink, rename. Each runs to its end once begun (`Volume::run_to_end`).
//!
//! Order of changes: an inode is in the table before a name leads to it, and a name is gone before its inode is freed.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::buffers::Buffer;
use super::checksum::Seal;
use super::dir::{DirIndex, Found};
use super::dirent;
use super::extents;
use super::features::RoCompat;
use super::inode::Ext2Inode;
use super::layout::{LINK_MAX, NAME_MAX, RAW_INODE_SIZE};
use super::map::Extent;
use super::node::{self, FAST_SYMLINK_MAX, Holes, Node, NodeState, POINTERS};
use super::ranges::Ranges;
use crate::errno::{Errno, Result};
use crate::exec::MutexGuard;
use crate::fs::inode::{DeviceId, FileType, Inode, NewAttr, NewNode, RenameFlags};

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
    fn kind(&self) -> FileType {
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
            // The last drop frees what has been made so far.
            inode.node.update(|state| state.nlink = 0);
            self.volume.release_when_unused(&inode);
            return Err(errno);
        }
        if directory {
            inode.node.parent.store(self.ino, Ordering::Relaxed);
            self.gain_directory();
        }
        Ok(inode)
    }

    /// A regular file without a name; [`Node::link`] may give it one.
    pub async fn create_unnamed(self: &Arc<Self>, attr: NewAttr) -> Result<Arc<Ext2Inode>> {
        let _change = self.volume.begin_change().await?;
        let inode = self.new_inode(FileType::Regular, attr, 0).await?;
        self.volume.add_orphan(&inode);
        Ok(inode)
    }

    /// Allocates and initialises an inode near this directory.
    async fn new_inode(self: &Arc<Self>, kind: FileType, attr: NewAttr, nlink: u32) -> Result<Arc<Ext2Inode>> {
        let volume = &self.volume;
        let (layout, buffers) = (&volume.layout, &volume.buffers);
        let directory = kind == FileType::Directory;
        let ino = volume.alloc_inode(self.ino, directory).await?;
        let slot = async {
            let (block, offset) = volume.inode_position(ino)?;
            Ok::<(Arc<Buffer>, usize), Errno>((buffers.read(block).await?, offset))
        };
        let (buffer, offset) = match slot.await {
            Ok(slot) => slot,
            Err(errno) => {
                volume.free_inode(ino, directory).await?;
                return Err(errno);
            }
        };
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
        Ok(inode)
    }

    /// With dir_nlink, a directory that has too many others in it counts them no more: it has one link then.
    fn has_room_for_directory(&self) -> bool {
        let layout = &self.volume.layout;
        self.state.lock().nlink < layout.link_max() || layout.features.ro_compat.contains(RoCompat::DIR_NLINK)
    }

    fn gain_directory(self: &Arc<Self>) {
        let max = self.volume.layout.link_max();
        self.update(|state| match state.nlink {
            1 => {}
            nlink if nlink + 1 >= max && max > LINK_MAX => state.nlink = 1,
            nlink => state.nlink = nlink + 1,
        });
    }

    fn lose_directory(self: &Arc<Self>) {
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
                let file_type = volume.layout.file_type;
                let area = volume.layout.dir_area();
                self.fill_dir_block(&buffer, |data| dirent::first_block(data, self.ino, parent, file_type));
                self.update(|state| state.size = block_size as u64);
                let index = buffer.with(|data| DirIndex::fresh(buffer.block, &data[..area]));
                *self.dir.lock() = Some(Box::new(index));
            }
            Content::Plain(_) => {}
            Content::Device(_, id) => self.update(|state| state.block = node::encode_device(id)),
            Content::Symlink(target) if target.len() <= FAST_SYMLINK_MAX => self.update(|state| {
                for (slot, piece) in state.block.iter_mut().zip(target.chunks(4)) {
                    let mut bytes = [0; 4];
                    bytes[..piece.len()].copy_from_slice(piece);
                    *slot = u32::from_le_bytes(bytes);
                }
                state.size = target.len() as u64;
            }),
            Content::Symlink(target) => {
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
        }
        Ok(())
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

    /// Takes links away; without any the inode goes when its last user does.
    fn drop_link(&self, target: &Arc<Ext2Inode>, count: u32) {
        let now = self.volume.now();
        let left = target.node.update(|state| {
            state.nlink = state.nlink.saturating_sub(count);
            state.ctime = now;
            state.nlink
        });
        if left == 0 {
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
        if let Err(errno) = self.remove_name(found).await {
            if directory {
                target.node.exhume();
            }
            return Err(errno);
        }
        if directory {
            self.lose_directory();
        }
        // An empty directory has two links: its name and its own ".".
        self.drop_link(target, if directory { u32::MAX } else { 1 });
        Ok(())
    }

    /// The name's place, if it still leads to `target`.
    async fn find_target(&self, name: &[u8], target: &Ext2Inode) -> Result<Found> {
        match self.find_name(name).await? {
            Some(found) if found.ino == target.node.ino => Ok(found),
            _ => Err(Errno::ENOENT),
        }
    }

    /// Locks the names of two directories, or of one.
    async fn lock_two<'a>(
        self: &'a Arc<Self>,
        other: &'a Arc<Self>,
    ) -> (MutexGuard<'a, ()>, Option<MutexGuard<'a, ()>>) {
        if self.ino == other.ino {
            return (self.names_lock.lock().await, None);
        }
        let (first, second) = if self.ino < other.ino { (self, other) } else { (other, self) };
        let first = first.names_lock.lock().await;
        (first, Some(second.names_lock.lock().await))
    }

    pub async fn rename(self: &Arc<Self>, rename: &Rename) -> Result<()> {
        let _change = self.volume.begin_change().await?;
        let new_dir = &rename.new_dir.node;
        let _names = self.lock_two(new_dir).await;
        let old = self.find_target(&rename.old_name, &rename.moved).await?;
        if rename.new_name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        if rename.flags.contains(RenameFlags::EXCHANGE) {
            return self.exchange(rename, old).await;
        }
        if !(rename.flags - RenameFlags::NOREPLACE - RenameFlags::WHITEOUT).is_empty() {
            return Err(Errno::EINVAL);
        }
        let Some(owner) = rename.whiteout else { return self.move_name(rename, old, None).await };
        let whiteout = self.new_inode(FileType::CharDevice, owner, 1).await?;
        let result = self.move_name(rename, old, Some(&whiteout)).await;
        if result.is_err() {
            // The last drop frees it.
            whiteout.node.update(|state| state.nlink = 0);
            self.volume.release_when_unused(&whiteout);
        }
        result
    }

    /// Leads the new name of a rename to what it moves, and the old one to nothing or to a whiteout.
    async fn move_name(self: &Arc<Self>, rename: &Rename, old: Found, whiteout: Option<&Arc<Ext2Inode>>) -> Result<()> {
        let new_dir = &rename.new_dir.node;
        let moved = &rename.moved.node;
        let directory = moved.kind == FileType::Directory;
        let parent_changes = directory && self.ino != new_dir.ino;
        if let Some(replaced) = &rename.replaced {
            self.replace(rename, replaced).await?;
        } else {
            if new_dir.find_name(&rename.new_name).await?.is_some() {
                return Err(Errno::EEXIST);
            }
            if parent_changes && !new_dir.has_room_for_directory() {
                return Err(Errno::EMLINK);
            }
            new_dir.add_name(&rename.new_name, moved.ino, moved.kind).await?;
        }
        // Places stay valid when other names come, so `old` still holds.
        match whiteout {
            Some(whiteout) => self.set_name(old, whiteout.node.ino, FileType::CharDevice).await?,
            None => self.remove_name(old).await?,
        }
        if parent_changes {
            moved.set_parent(new_dir.ino).await?;
            self.lose_directory();
            new_dir.gain_directory();
        }
        let now = self.volume.now();
        moved.update(|state| state.ctime = now);
        Ok(())
    }

    /// Points the new name of a rename to the moved inode and drops what it led to.
    async fn replace(self: &Arc<Self>, rename: &Rename, replaced: &Arc<Ext2Inode>) -> Result<()> {
        let new_dir = &rename.new_dir.node;
        let found = new_dir.find_target(&rename.new_name, replaced).await?;
        let directory = replaced.node.kind == FileType::Directory;
        if directory && !replaced.node.bury_if_empty().await? {
            return Err(Errno::ENOTEMPTY);
        }
        let moved = &rename.moved.node;
        if let Err(errno) = new_dir.set_name(found, moved.ino, moved.kind).await {
            if directory {
                replaced.node.exhume();
            }
            return Err(errno);
        }
        if directory {
            new_dir.lose_directory();
        }
        self.drop_link(replaced, if directory { u32::MAX } else { 1 });
        Ok(())
    }

    async fn exchange(self: &Arc<Self>, rename: &Rename, old: Found) -> Result<()> {
        let Some(other) = &rename.replaced else { return Err(Errno::ENOENT) };
        if rename.flags != RenameFlags::EXCHANGE {
            return Err(Errno::EINVAL);
        }
        let (new_dir, moved, other) = (&rename.new_dir.node, &rename.moved.node, &other.node);
        let new = new_dir.find_name(&rename.new_name).await?.filter(|new| new.ino == other.ino).ok_or(Errno::ENOENT)?;
        new_dir.set_name(new, moved.ino, moved.kind).await?;
        self.set_name(old, other.ino, other.kind).await?;
        if self.ino != new_dir.ino {
            for (node, from, to) in [(moved, self, new_dir), (other, new_dir, self)] {
                if node.kind == FileType::Directory {
                    node.set_parent(to.ino).await?;
                    from.lose_directory();
                    to.gain_directory();
                }
            }
        }
        let now = self.volume.now();
        moved.update(|state| state.ctime = now);
        other.update(|state| state.ctime = now);
        Ok(())
    }

    /// Makes ".." lead to another directory.
    async fn set_parent(self: &Arc<Self>, parent: u32) -> Result<()> {
        let mtime = self.state.lock().mtime;
        let found = self.find_name(b"..").await?.ok_or(Errno::EIO)?;
        self.set_name(found, parent, FileType::Directory).await?;
        self.parent.store(parent, Ordering::Relaxed);
        // Moving a directory does not change its own list of names.
        self.update(|state| state.mtime = mtime);
        Ok(())
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

/// The arguments of a rename, owned.
pub struct Rename {
    pub old_name: Vec<u8>,
    pub moved: Arc<Ext2Inode>,
    pub new_dir: Arc<Ext2Inode>,
    pub new_name: Vec<u8>,
    pub replaced: Option<Arc<Ext2Inode>>,
    pub flags: RenameFlags,
    /// RENAME_WHITEOUT: whose the character device 0/0 is that is left in the old place.
    pub whiteout: Option<NewAttr>,
}
