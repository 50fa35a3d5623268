//! Changes of names without waiting: where all that they look at is in memory, nobody holds what they need, and nothing has to be
//! written before. They do what [`super::names`] and [`super::rename`] do, in the same order.
//!
//! None, from any of these: nothing was changed, and it must be done the other way.

use alloc::sync::Arc;

use super::buffers::Buffer;
use super::dir::{Candidate, Found, hash};
use super::dir_change::{Added, Removed};
use super::dirent::space_for;
use super::groups::Run;
use super::inode::Ext2Inode;
use super::layout::NAME_MAX;
use super::names::Content;
use super::node::{FAST_SYMLINK_MAX, Node};
use crate::errno::{Errno, Result};
use crate::fs::change_now::answer;
use crate::fs::inode::{FileType, NewAttr};

impl Node {
    /// The place of a name, if it leads to `target`, and its block, which can be changed.
    fn target_now(&self, name: &[u8], target: &Ext2Inode) -> Option<Result<(Found, Arc<Buffer>)>> {
        match self.find_now(name)? {
            Some((found, buffer)) if found.ino == target.node.ino => {
                self.is_linear(&buffer).then_some(Ok((found, buffer)))
            }
            _ => Some(Err(Errno::ENOENT)),
        }
    }

    /// See [`Node::create`]. Of directories where they have no extents, and what is in the inode itself.
    pub fn create_now(
        self: &Arc<Self>,
        name: &[u8],
        content: Content<'_>,
        attr: NewAttr,
    ) -> Option<Result<Arc<Ext2Inode>>> {
        let volume = &self.volume;
        let directory = content.kind() == FileType::Directory;
        match content {
            _ if directory && volume.layout.features.extents() => return None,
            Content::Symlink(target) if target.len() > FAST_SYMLINK_MAX => return None,
            _ => {}
        }
        let _change = answer!(volume.begin_change_now()?);
        let _names = self.names_lock.try_lock()?;
        if name.len() > NAME_MAX {
            return Some(Err(Errno::ENAMETOOLONG));
        }
        if self.find_now(name)?.is_some() {
            return Some(Err(Errno::EEXIST));
        }
        if directory && !self.has_room_for_directory() {
            return Some(Err(Errno::EMLINK));
        }
        let hash = hash(name);
        let begun = self.with_index(|index| {
            let period = volume.order.period();
            let simple = !index.dead && index.gone(hash, period).is_empty();
            let candidate = if simple { index.candidate(space_for(name.len()), period).0 } else { None };
            index.live += usize::from(candidate.is_some());
            candidate
        });
        let Candidate { position, device, .. } = begun.ok()??;
        let made = self.make_in(position, device, (name, hash), content, attr);
        match &made {
            Some(Ok(inode)) if directory => self.adopt_directory(&inode.node),
            Some(Ok(_)) => {}
            _ => answer!(self.with_index(|index| index.live -= 1)),
        }
        made
    }

    /// A new inode, and its name in this block.
    fn make_in(
        self: &Arc<Self>,
        position: usize,
        device: u32,
        (name, hash): (&[u8], u32),
        content: Content<'_>,
        attr: NewAttr,
    ) -> Option<Result<Arc<Ext2Inode>>> {
        let block = self.volume.buffers.cached(device).filter(|block| self.is_linear(block))?;
        let kind = content.kind();
        let inode = self.new_inode_now(content, attr)?;
        match self.put_name(position, &block, (name, hash, inode.node.ino, kind), false) {
            Ok(Added::There) => {
                self.changed();
                Some(Ok(inode))
            }
            Ok(Added::Full | Added::Taken) => {
                self.volume.give_up(&inode);
                None
            }
            Err(errno) => {
                self.volume.give_up(&inode);
                Some(Err(errno))
            }
        }
    }

    /// A new inode with its content. Nothing is taken before all of it is known to be there: an inode that was taken and not made
    /// is one that checkers look at, and that was never written.
    fn new_inode_now(self: &Arc<Self>, content: Content<'_>, attr: NewAttr) -> Option<Arc<Ext2Inode>> {
        let volume = &self.volume;
        let (groups, layout, buffers) = (&volume.groups, &volume.layout, &volume.buffers);
        let kind = content.kind();
        let directory = kind == FileType::Directory;
        let (bitmap, ino) = groups.find_inode_now(layout, buffers, self.ino, directory)?;
        let (block, offset) = volume.inode_position(ino).ok()?;
        let buffer = buffers.cached(block)?;
        let first = if directory { Some(groups.alloc_block_now(layout, buffers, layout.home(ino))?) } else { None };
        if !groups.take_inode_now(layout, &bitmap, ino, directory) {
            if let Some((start, bitmap)) = first {
                groups.free_in(layout, buffers, &bitmap, Run { start, len: 1 }).ok()?;
            }
            return None;
        }
        let inode = self.plant(ino, (&buffer, offset), kind, attr, if directory { 2 } else { 1 });
        match first {
            Some((start, _)) => inode.node.begin_directory(start, self.ino),
            None => inode.node.fill_inode(content),
        }
        Some(inode)
    }

    /// Gives a new directory its first block.
    fn begin_directory(self: &Arc<Self>, start: u32, parent: u32) {
        let volume = &self.volume;
        self.update(|state| {
            state.block[0] = start;
            state.goal = (1, start + 1);
            state.sectors += volume.layout.sectors_per_block();
        });
        self.fill_directory(&volume.buffers.fresh(start), parent);
    }

    /// See [`Node::unlink`].
    pub fn unlink_now(self: &Arc<Self>, name: &[u8], target: &Arc<Ext2Inode>) -> Option<Result<()>> {
        let volume = &self.volume;
        let _change = answer!(volume.begin_change_now()?);
        let _names = self.names_lock.try_lock()?;
        let (found, buffer) = answer!(self.target_now(name, target)?);
        let order = &volume.order;
        let _removal = order.removal.try_read()?;
        let ino = target.node.ino;
        let directory = target.node.kind == FileType::Directory;
        if directory && !target.node.bury_if_loaded().ok()? {
            return Some(Err(Errno::ENOTEMPTY));
        }
        let known = order.is_known(ino);
        if directory && known && order.was_left(ino) {
            target.node.exhume();
            return None;
        }
        let removed = self.remove_name_in(&buffer, found, Removed { known, later: known, last: directory });
        match removed {
            Ok(()) => self.lose(target),
            Err(_) if directory => target.node.exhume(),
            Err(_) => {}
        }
        Some(removed)
    }

    /// See [`Node::rename`]: to a name of the same directory that nothing has.
    pub fn rename_now(self: &Arc<Self>, old: &[u8], moved: &Ext2Inode, new: &[u8]) -> Option<Result<()>> {
        let volume = &self.volume;
        let _change = answer!(volume.begin_change_now()?);
        let _names = self.names_lock.try_lock()?;
        let (found, buffer) = answer!(self.target_now(old, moved)?);
        if new.len() > NAME_MAX {
            return Some(Err(Errno::ENAMETOOLONG));
        }
        if self.find_now(new)?.is_some() {
            return Some(Err(Errno::EEXIST));
        }
        let _removal = volume.order.removal.try_read()?;
        if !answer!(self.change_name_in(&buffer, found, new, moved.node.kind)) {
            return None;
        }
        let now = volume.now();
        moved.node.update(|state| state.ctime = now);
        Some(Ok(()))
    }
}
