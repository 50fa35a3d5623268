//! Free inodes: which group a new one is looked for in, and how it is taken and given back.

use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::Ordering;

use super::bits::{Bits, clear_bits, set_bits};
use super::buffers::{Buffer, Buffers};
use super::groups::{Group, Groups, subtract};
use super::held::Piece;
use super::layout::{Layout, ROOT_INO};
use crate::errno::{Errno, Result};

impl Groups {
    /// Allocates an inode: files in their directory's group if it has room; directories spread out, so that what is
    /// put into them later finds room near them (after Orlov's allocator of 4.4BSD).
    pub async fn alloc_inode(&self, layout: &Layout, buffers: &Buffers, parent: u32, directory: bool) -> Result<u32> {
        if self.free_inodes() == 0 {
            return Err(Errno::ENOSPC);
        }
        let mut why = Errno::ENOSPC;
        let home = self.inode_group(layout, parent, directory);
        for step in 0..layout.groups {
            let index = (home + step) % layout.groups;
            if self.group(index, |group| (group.free_inodes > 0 && !group.damaged).then_some(())).is_none() {
                continue;
            }
            let bitmap = match self.inode_bitmap(layout, buffers, index).await {
                Ok(bitmap) => bitmap,
                Err(errno) => {
                    why = errno;
                    continue;
                }
            };
            let all = first_to_take(layout, index)..layout.inodes_per_group;
            if let Some(ino) = self.take_inode(layout, &bitmap, index, all, directory) {
                return Ok(ino);
            }
        }
        Err(why)
    }

    /// An inode that is free, with the bitmap that says so: of the first group that [`Groups::alloc_inode`] would look in, if
    /// that has one and its bitmap is in memory.
    pub fn find_inode_now(
        &self,
        layout: &Layout,
        buffers: &Buffers,
        parent: u32,
        directory: bool,
    ) -> Option<(Arc<Buffer>, u32)> {
        let index = self.inode_group(layout, parent, directory);
        self.group(index, |group| (group.free_inodes > 0 && !group.damaged).then_some(()))?;
        let bitmap = self.inode_bitmap_now(layout, buffers, index)?;
        let from = first_to_take(layout, index);
        let bit = {
            let held = self.held_inodes.lock();
            let held = held.bits(index);
            bitmap.with(|used| Bits { used, held }.next_clear(from, layout.inodes_per_group))?
        };
        Some((bitmap, index * layout.inodes_per_group + bit + 1))
    }

    /// Takes this inode, unless somebody else has done so.
    pub fn take_inode_now(&self, layout: &Layout, bitmap: &Buffer, ino: u32, directory: bool) -> bool {
        let (index, bit) = (layout.group_of_inode(ino), (ino - 1) % layout.inodes_per_group);
        self.take_inode(layout, bitmap, index, bit..bit + 1, directory).is_some()
    }

    /// The first free one of these inodes of a group.
    fn take_inode(
        &self,
        layout: &Layout,
        bitmap: &Buffer,
        index: u32,
        among: Range<u32>,
        directory: bool,
    ) -> Option<u32> {
        let bit = {
            let mut held = self.held_inodes.lock();
            let first = bitmap.modify(|used| {
                let bit = Bits { used: &*used, held: held.bits(index) }.next_clear(among.start, among.end)?;
                set_bits(used, bit..bit + 1);
                Some(bit)
            })?;
            held.take(Piece { group: index, first, len: 1 }, layout.block_size);
            first
        };
        let mut first_use = false;
        self.change(index, |group| {
            group.free_inodes = group.free_inodes.saturating_sub(1);
            group.used_dirs += u32::from(directory);
            // What is behind the last inode that was ever used is not looked at by checkers.
            let before = group.desc.unused_inodes.get();
            let unused = before.min((layout.inodes_per_group - bit - 1) as u16);
            first_use = unused < before;
            group.desc.unused_inodes.set(unused);
            if !group.damaged {
                subtract(&self.free_inodes, 1);
            }
        });
        if first_use && let Some(buffer) = self.descs.get(index as usize / self.descs_per_block) {
            // A name that leads to one of those would be a question.
            buffer.put_first();
        }
        Some(index * layout.inodes_per_group + bit + 1)
    }

    pub async fn free_inode(&self, layout: &Layout, buffers: &Buffers, ino: u32, directory: bool) -> Result<()> {
        let bitmap = self.inode_bitmap(layout, buffers, layout.group_of_inode(ino)).await?;
        self.give_back(layout, &bitmap, ino, directory)
    }

    fn give_back(&self, layout: &Layout, bitmap: &Buffer, ino: u32, directory: bool) -> Result<()> {
        let index = layout.group_of_inode(ino);
        let bit = (ino - 1) % layout.inodes_per_group;
        let cleared = {
            let mut held = self.held_inodes.lock();
            held.free(Piece { group: index, first: bit, len: 1 }, layout.block_size);
            bitmap.modify(|data| clear_bits(data, bit, 1))
        };
        if cleared != 1 {
            log::error!("ext2: inode {ino} was already free");
            return Err(Errno::EIO);
        }
        self.change(index, |group| {
            group.free_inodes += 1;
            group.used_dirs = group.used_dirs.saturating_sub(u32::from(directory));
            if !group.damaged {
                self.free_inodes.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(())
    }

    pub async fn is_inode_used(&self, layout: &Layout, buffers: &Buffers, ino: u32) -> Result<bool> {
        let Some(bit) = ino.checked_sub(1).filter(|_| ino <= layout.inodes) else { return Ok(false) };
        let bitmap = self.inode_bitmap(layout, buffers, layout.group_of_inode(ino)).await?;
        let bit = bit % layout.inodes_per_group;
        Ok(bitmap.with(|data| data[bit as usize / 8] & 1 << (bit % 8) != 0))
    }

    fn inode_group(&self, layout: &Layout, parent: u32, directory: bool) -> u32 {
        if directory { self.directory_group(layout, parent) } else { layout.group_of_inode(parent) }
    }

    /// The group for a new directory: below the root, the emptiest of those with more free space than the average;
    /// elsewhere the first from the parent's on that is not crowded.
    fn directory_group(&self, layout: &Layout, parent: u32) -> u32 {
        let average_inodes = (self.free_inodes() / u64::from(layout.groups)) as u32;
        let average_blocks = (self.free_blocks() / u64::from(layout.groups)) as u32;
        let groups = self.groups.lock();
        let roomy = |group: &Group| {
            group.free_inodes > 0 && group.free_inodes >= average_inodes && group.free_blocks >= average_blocks
        };
        if parent == ROOT_INO {
            let best = groups.iter().enumerate().filter(|(_, group)| roomy(group)).min_by_key(|(_, g)| g.used_dirs);
            if let Some((index, _)) = best {
                return index as u32;
            }
        }
        let home = layout.group_of_inode(parent);
        let crowded =
            |group: &Group| group.free_inodes <= average_inodes / 4 || group.free_blocks <= average_blocks / 4;
        let from = (0..layout.groups).map(|step| (home + step) % layout.groups);
        from.into_iter().find(|&index| groups.get(index as usize).is_some_and(|g| !crowded(g))).unwrap_or(home)
    }
}

/// The first bit of a group's bitmap that stands for an inode of files.
fn first_to_take(layout: &Layout, index: u32) -> u32 {
    if index == 0 { layout.first_ino - 1 } else { 0 }
}
