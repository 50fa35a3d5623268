//! rename(2): names that move, change places, or take that of another. It runs to its end once begun (`Volume::run_to_end`).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::dir::Found;
use super::dir_change::Removed;
use super::inode::Ext2Inode;
use super::layout::NAME_MAX;
use super::node::Node;
use crate::errno::{Errno, Result};
use crate::exec::{MutexGuard, ReadGuard};
use crate::fs::inode::{FileType, NewAttr, RenameFlags};

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

impl Node {
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
            self.volume.give_up(&whiteout);
        }
        result
    }

    /// Leads the new name of a rename to what it moves, and the old one to nothing or to a whiteout.
    async fn move_name(self: &Arc<Self>, rename: &Rename, old: Found, whiteout: Option<&Arc<Ext2Inode>>) -> Result<()> {
        let new_dir = &rename.new_dir.node;
        let moved = &rename.moved.node;
        let directory = moved.kind == FileType::Directory;
        let parent_changes = directory && self.ino != new_dir.ino;
        let order = &self.volume.order;
        let mut place = None;
        let mut guard = None;
        let parent_name = if parent_changes { Some(moved.parent_name().await?) } else { None };
        if let Some(replaced) = &rename.replaced {
            place = Some(new_dir.device_of(new_dir.find_target(&rename.new_name, replaced).await?.place)?);
            guard = Some(self.replace(rename, replaced).await?);
        } else {
            if new_dir.find_name(&rename.new_name).await?.is_some() {
                return Err(Errno::EEXIST);
            }
            if parent_changes && !new_dir.has_room_for_directory() {
                return Err(Errno::EMLINK);
            }
            if self.ino == new_dir.ino
                && whiteout.is_none()
                && self.change_name(old, &rename.new_name, moved.kind).await?
            {
                let now = self.volume.now();
                moved.update(|state| state.ctime = now);
                return Ok(());
            }
            new_dir.add_name(&rename.new_name, moved.ino, moved.kind).await?;
        }
        let removal = match guard {
            Some(guard) => guard,
            None => order.removal.read().await,
        };
        // Places stay valid when other names come, so `old` still holds.
        match whiteout {
            Some(whiteout) => {
                self.set_name(old, whiteout.node.ino, FileType::CharDevice).await?;
                order.named(whiteout.node.ino, self.ino);
                self.volume.unnamed(moved.ino, self.ino, false);
                self.replaced(moved);
            }
            // Two names of a directory would be a question too.
            None => {
                let together = place == Some(self.device_of(old.place)?);
                let known = order.is_known(moved.ino);
                self.remove_name(old, Removed { known, later: known && !directory && !together, last: false }).await?;
            }
        }
        if let Some(found) = parent_name {
            moved.set_parent(found, new_dir.ino).await?;
            self.lose_directory();
            new_dir.gain_directory();
        }
        drop(removal);
        let now = self.volume.now();
        moved.update(|state| state.ctime = now);
        Ok(())
    }

    /// A name leads elsewhere that led to this node.
    fn replaced(&self, node: &Node) {
        if node.kind != FileType::Directory {
            self.volume.order.replaced(node.ino, self.kind_byte(node.kind));
        }
    }

    /// Points the new name of a rename to the moved inode and drops what it led to. Answers what the removal of the old name
    /// needs.
    async fn replace<'a>(self: &'a Arc<Self>, rename: &Rename, replaced: &Arc<Ext2Inode>) -> Result<ReadGuard<'a, ()>> {
        let new_dir = &rename.new_dir.node;
        let order = &self.volume.order;
        let found = new_dir.find_target(&rename.new_name, replaced).await?;
        let directory = replaced.node.kind == FileType::Directory;
        if directory && !replaced.node.bury_if_empty().await? {
            return Err(Errno::ENOTEMPTY);
        }
        let moved = &rename.moved.node;
        let raw = if directory { replaced.node.last_raw().await } else { Ok(None) };
        let removal = order.removal.read().await;
        let led = match raw {
            Ok(raw) => new_dir.set_name(found, moved.ino, moved.kind).await.map(|()| raw),
            Err(errno) => Err(errno),
        };
        let raw = led.inspect_err(|_| {
            if directory {
                replaced.node.exhume();
            }
        })?;
        order.named(moved.ino, new_dir.ino);
        self.replaced(&replaced.node);
        if let Some(raw) = raw {
            order.go(replaced.node.ino, raw);
        }
        self.volume.unnamed(replaced.node.ino, new_dir.ino, directory);
        if directory {
            new_dir.lose_directory();
        }
        self.drop_link(replaced, if directory { u32::MAX } else { 1 });
        Ok(removal)
    }

    async fn exchange(self: &Arc<Self>, rename: &Rename, old: Found) -> Result<()> {
        let Some(other) = &rename.replaced else { return Err(Errno::ENOENT) };
        if rename.flags != RenameFlags::EXCHANGE {
            return Err(Errno::EINVAL);
        }
        let (new_dir, moved, other) = (&rename.new_dir.node, &rename.moved.node, &other.node);
        let new = new_dir.find_name(&rename.new_name).await?.filter(|new| new.ino == other.ino).ok_or(Errno::ENOENT)?;
        let order = &self.volume.order;
        let apart = self.ino != new_dir.ino;
        let mut parents = Vec::new();
        for (node, from, to) in [(moved, self, new_dir), (other, new_dir, self)] {
            if apart && node.kind == FileType::Directory {
                parents.push((node, from, to, node.parent_name().await?));
            }
        }
        {
            let _removal = order.removal.read().await;
            new_dir.set_name(new, moved.ino, moved.kind).await?;
            self.set_name(old, other.ino, other.kind).await?;
            for (node, from, to) in [(moved, self, new_dir), (other, new_dir, self)] {
                order.named(node.ino, to.ino);
                self.volume.unnamed(node.ino, from.ino, false);
                self.replaced(node);
            }
            for (node, from, to, found) in parents {
                node.set_parent(found, to.ino).await?;
                from.lose_directory();
                to.gain_directory();
            }
        }
        let now = self.volume.now();
        moved.update(|state| state.ctime = now);
        other.update(|state| state.ctime = now);
        Ok(())
    }

    /// The place of "..".
    async fn parent_name(&self) -> Result<Found> {
        self.find_name(b"..").await?.ok_or(Errno::EIO)
    }

    /// Makes "..", which was `found`, lead to another directory.
    async fn set_parent(self: &Arc<Self>, found: Found, parent: u32) -> Result<()> {
        let mtime = self.state.lock().mtime;
        self.set_name(found, parent, FileType::Directory).await?;
        self.parent.store(parent, Ordering::Relaxed);
        // Moving a directory does not change its own list of names.
        self.update(|state| state.mtime = mtime);
        Ok(())
    }
}
