//! Block groups: which blocks and inodes are free, and the policy by which they are given out.
//!
//! The counters of all groups are in memory under one spinlock; the bitmaps are buffers. A bit is tested and set under
//! the bitmap buffer's own lock, so no lock is held over the read of a bitmap.
//!
//! With checksums, a group may say that its bitmaps have never been written ([`super::bitmaps`]), and has checksums of them
//! in its descriptor, which are brought up to date before the descriptors are written.
//!
//! Blocks of written but not yet allocated data are *reserved*: they count as used, so that the allocation at
//! write-back cannot fail for lack of space.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use zerocopy::{FromBytes, IntoBytes};

use super::buffers::{Buffer, Buffers};
use super::checksum::Sums;
use super::layout::{DESC_SIZE, GroupDesc, Layout, ROOT_INO};
use crate::errno::{Errno, Result};
use crate::exec::Mutex;
use crate::sync::SpinLock;

pub(super) struct Group {
    pub desc: GroupDesc,
    pub free_blocks: u32,
    free_inodes: u32,
    used_dirs: u32,
    /// The checksums are those of an earlier state.
    pub stale: bool,
}

pub struct Groups {
    pub(super) groups: SpinLock<Vec<Group>>,
    /// The blocks of the group descriptor table, kept in memory.
    pub(super) descs: Vec<Arc<Buffer>>,
    pub(super) descs_per_block: usize,
    pub(super) desc_size: usize,
    /// Some group's checksums are.
    pub(super) stale: AtomicBool,
    /// Held while a bitmap is made that was never written.
    pub(super) making: Mutex<()>,
    free_blocks: AtomicU64,
    free_inodes: AtomicU64,
    reserved: AtomicU64,
}

/// Consecutive blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    pub start: u32,
    pub len: u32,
}

/// Reserved blocks may need indirect blocks besides: one in 64 is more than any sequential file takes, and the
/// constant covers the short paths of scattered ones.
fn with_metadata(reserved: u64) -> u64 {
    if reserved == 0 { 0 } else { reserved + reserved / 64 + 16 }
}

impl Groups {
    pub async fn load(layout: &Layout, buffers: &Buffers, sums: Sums) -> Result<Groups> {
        let blocks = layout.groups.div_ceil(layout.descs_per_block());
        for index in 0..blocks {
            if layout.desc_block(index) < layout.blocks {
                buffers.prefetch(layout.desc_block(index));
            }
        }
        let mut descs = Vec::new();
        let mut groups = Vec::new();
        for index in 0..blocks {
            let block = layout.desc_block(index);
            if !layout.valid_block(block) {
                return Err(Errno::EINVAL);
            }
            let buffer = buffers.read(block).await?;
            buffer.with(|data| {
                let left = (layout.groups - index * layout.descs_per_block()) as usize;
                for raw in data.chunks_exact(layout.desc_size).take(left) {
                    let (low, high) = raw.split_at(DESC_SIZE);
                    let desc = GroupDesc::read_from_bytes(low).map_err(|_| Errno::EINVAL)?;
                    check(layout, &desc)?;
                    super::bitmaps::check(groups.len() as u32, &desc, raw, high, sums)?;
                    groups.push(Group {
                        free_blocks: desc.free_blocks.get().into(),
                        free_inodes: desc.free_inodes.get().into(),
                        used_dirs: desc.used_dirs.get().into(),
                        desc,
                        stale: false,
                    });
                }
                Ok(())
            })?;
            descs.push(buffer);
        }
        let free_blocks = groups.iter().map(|group| u64::from(group.free_blocks)).sum();
        let free_inodes = groups.iter().map(|group| u64::from(group.free_inodes)).sum();
        Ok(Groups {
            groups: SpinLock::new(groups),
            descs,
            descs_per_block: layout.descs_per_block() as usize,
            desc_size: layout.desc_size,
            stale: AtomicBool::new(false),
            making: Mutex::new(()),
            free_blocks: AtomicU64::new(free_blocks),
            free_inodes: AtomicU64::new(free_inodes),
            reserved: AtomicU64::new(0),
        })
    }

    pub fn free_blocks(&self) -> u64 {
        self.free_blocks.load(Ordering::Relaxed)
    }

    /// Free blocks that are not promised to data waiting for its allocation.
    pub fn available_blocks(&self) -> u64 {
        self.free_blocks().saturating_sub(with_metadata(self.reserved.load(Ordering::Relaxed)))
    }

    pub fn free_inodes(&self) -> u64 {
        self.free_inodes.load(Ordering::Relaxed)
    }

    /// Promises `count` blocks.
    pub fn reserve(&self, count: u64) -> Result<()> {
        let before = self.reserved.fetch_add(count, Ordering::Relaxed);
        if with_metadata(before + count) > self.free_blocks() {
            self.reserved.fetch_sub(count, Ordering::Relaxed);
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    pub fn unreserve(&self, count: u64) {
        self.reserved.fetch_sub(count, Ordering::Relaxed);
    }

    /// First block of the inode table of the group.
    pub fn inode_table(&self, group: u32) -> Result<u32> {
        self.groups.lock().get(group as usize).map(|group| group.desc.inode_table.get()).ok_or(Errno::EIO)
    }

    /// Allocates up to `want` consecutive blocks, the first as near behind `goal` as possible. `promised` says that
    /// the caller holds a reservation for them; otherwise what others have reserved is not touched.
    pub async fn alloc_blocks(
        &self,
        layout: &Layout,
        buffers: &Buffers,
        goal: u32,
        want: u32,
        promised: bool,
    ) -> Result<Run> {
        let available = if promised { self.free_blocks() } else { self.available_blocks() };
        if available == 0 {
            return Err(Errno::ENOSPC);
        }
        let want = u64::from(want).clamp(1, available) as u32;
        let goal = if layout.valid_block(goal) { goal } else { layout.first_data_block };
        let home = layout.group_of_block(goal);
        // First round: the goal itself or unbroken space, in any group. Second round: whatever there is.
        for step in 0..2 * layout.groups {
            let index = (home + step) % layout.groups;
            let unbroken = step < layout.groups;
            if self.group(index, |group| (group.free_blocks > 0).then_some(())).is_none() {
                continue;
            }
            let bitmap = self.block_bitmap(layout, buffers, index).await?;
            let from = if step == 0 { goal - layout.group_first_block(index) } else { 0 };
            let limit = layout.group_blocks(index);
            let Some((bit, len)) = bitmap.modify(|data| take_bits(data, from, limit, want, unbroken)) else {
                continue;
            };
            let run = Run { start: layout.group_first_block(index) + bit, len };
            if !self.is_data(layout, index, run) {
                // A bitmap that offers the group's own metadata is corrupt; what was taken of it stays taken.
                log::error!("ext2: the block bitmap of group {index} is wrong");
                return Err(Errno::EIO);
            }
            self.change(index, |group| group.free_blocks = group.free_blocks.saturating_sub(len));
            self.free_blocks.fetch_sub(u64::from(len), Ordering::Relaxed);
            return Ok(run);
        }
        Err(Errno::ENOSPC)
    }

    /// True if no block of the run belongs to the group's bitmaps or inode table.
    fn is_data(&self, layout: &Layout, index: u32, run: Run) -> bool {
        let table = (layout.inodes_per_group as usize * layout.inode_size).div_ceil(layout.block_size) as u32;
        let outside = |first: u32, len: u32| run.start + run.len <= first || first + len <= run.start;
        self.group(index, |group| {
            let desc = &group.desc;
            Some(
                outside(desc.block_bitmap.get(), 1)
                    && outside(desc.inode_bitmap.get(), 1)
                    && outside(desc.inode_table.get(), table),
            )
        })
        .unwrap_or(false)
    }

    pub async fn free_run(&self, layout: &Layout, buffers: &Buffers, run: Run) -> Result<()> {
        let (mut start, end) = (run.start, run.start.saturating_add(run.len));
        if !layout.valid_block(start) || end > layout.blocks {
            return Err(Errno::EIO);
        }
        while start < end {
            let index = layout.group_of_block(start);
            let first = layout.group_first_block(index);
            let len = (end - start).min(first + layout.group_blocks(index) - start);
            let bitmap = self.block_bitmap(layout, buffers, index).await?;
            let cleared = bitmap.modify(|data| clear_bits(data, start - first, len));
            if cleared != len {
                log::error!("ext2: blocks {start}+{len} were already free in part");
            }
            self.change(index, |group| group.free_blocks += cleared);
            self.free_blocks.fetch_add(u64::from(cleared), Ordering::Relaxed);
            start += len;
        }
        Ok(())
    }

    /// Allocates an inode: files in their directory's group if it has room; directories spread out, so that what is
    /// put into them later finds room near them (after Orlov's allocator of 4.4BSD).
    pub async fn alloc_inode(&self, layout: &Layout, buffers: &Buffers, parent: u32, directory: bool) -> Result<u32> {
        if self.free_inodes() == 0 {
            return Err(Errno::ENOSPC);
        }
        let home = if directory { self.directory_group(layout, parent) } else { layout.group_of_inode(parent) };
        for step in 0..layout.groups {
            let index = (home + step) % layout.groups;
            if self.group(index, |group| (group.free_inodes > 0).then_some(())).is_none() {
                continue;
            }
            let bitmap = self.inode_bitmap(layout, buffers, index).await?;
            let from = if index == 0 { layout.first_ino - 1 } else { 0 };
            let taken = bitmap.modify(|data| {
                let bit = next_zero(data, from, layout.inodes_per_group)?;
                data[bit as usize / 8] |= 1 << (bit % 8);
                Some(bit)
            });
            let Some(bit) = taken else { continue };
            self.change(index, |group| {
                group.free_inodes = group.free_inodes.saturating_sub(1);
                group.used_dirs += u32::from(directory);
                // What is behind the last inode that was ever used is not looked at by checkers.
                let unused = group.desc.unused_inodes.get().min((layout.inodes_per_group - bit - 1) as u16);
                group.desc.unused_inodes.set(unused);
            });
            self.free_inodes.fetch_sub(1, Ordering::Relaxed);
            return Ok(index * layout.inodes_per_group + bit + 1);
        }
        Err(Errno::ENOSPC)
    }

    pub async fn free_inode(&self, layout: &Layout, buffers: &Buffers, ino: u32, directory: bool) -> Result<()> {
        let index = layout.group_of_inode(ino);
        let bitmap = self.inode_bitmap(layout, buffers, index).await?;
        let bit = (ino - 1) % layout.inodes_per_group;
        if bitmap.modify(|data| clear_bits(data, bit, 1)) != 1 {
            log::error!("ext2: inode {ino} was already free");
            return Err(Errno::EIO);
        }
        self.change(index, |group| {
            group.free_inodes += 1;
            group.used_dirs = group.used_dirs.saturating_sub(u32::from(directory));
        });
        self.free_inodes.fetch_add(1, Ordering::Relaxed);
        Ok(())
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

    pub(super) fn group<R>(&self, index: u32, look: impl FnOnce(&Group) -> Option<R>) -> Option<R> {
        self.groups.lock().get(index as usize).and_then(look)
    }

    /// Changes a group's counters, also in the descriptor table.
    pub(super) fn change(&self, index: u32, change: impl FnOnce(&mut Group)) {
        let index = index as usize;
        let mut groups = self.groups.lock();
        let Some(group) = groups.get_mut(index) else { return };
        change(group);
        group.stale = true;
        self.stale.store(true, Ordering::Relaxed);
        group.desc.free_blocks.set(group.free_blocks as u16);
        group.desc.free_inodes.set(group.free_inodes as u16);
        group.desc.used_dirs.set(group.used_dirs as u16);
        if let Some(buffer) = self.descs.get(index / self.descs_per_block) {
            let at = index % self.descs_per_block * self.desc_size;
            buffer.modify(|data| data[at..at + DESC_SIZE].copy_from_slice(group.desc.as_bytes()));
        }
    }
}

fn check(layout: &Layout, desc: &GroupDesc) -> Result<()> {
    let table = (layout.inodes_per_group as usize * layout.inode_size).div_ceil(layout.block_size) as u32;
    let first = desc.inode_table.get();
    let sound = layout.valid_block(desc.block_bitmap.get())
        && layout.valid_block(desc.inode_bitmap.get())
        && layout.valid_block(first)
        && first.checked_add(table).is_some_and(|end| end <= layout.blocks);
    if sound { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Sets a run of up to `want` clear bits below `limit` and answers it: at `from` if that is clear; else the next eight
/// clear bits that begin a byte (which keeps files that grow side by side apart); else, unless it has to be `unbroken`
/// space, any clear bit.
fn take_bits(data: &mut [u8], from: u32, limit: u32, want: u32, unbroken: bool) -> Option<(u32, u32)> {
    let is_clear = |data: &[u8], bit: u32| data[bit as usize / 8] & (1 << (bit % 8)) == 0;
    let start = if from < limit && is_clear(data, from) {
        from
    } else {
        let whole = |range: core::ops::Range<u32>| range.into_iter().find(|&byte| data[byte as usize] == 0);
        let middle = (from / 8 + 1).min(limit / 8);
        match whole(middle..limit / 8).or_else(|| whole(0..middle)) {
            Some(byte) => byte * 8,
            None if unbroken => return None,
            None => next_zero(data, from, limit).or_else(|| next_zero(data, 0, limit))?,
        }
    };
    let mut len = 0;
    while len < want && start + len < limit && is_clear(data, start + len) {
        data[(start + len) as usize / 8] |= 1 << ((start + len) % 8);
        len += 1;
    }
    Some((start, len))
}

/// Clears bits; answers how many were set.
pub(super) fn clear_bits(data: &mut [u8], from: u32, len: u32) -> u32 {
    let mut cleared = 0;
    for bit in from..from + len {
        let mask = 1 << (bit % 8);
        if let Some(byte) = data.get_mut(bit as usize / 8) {
            cleared += u32::from(*byte & mask != 0);
            *byte &= !mask;
        }
    }
    cleared
}

fn next_zero(data: &[u8], from: u32, limit: u32) -> Option<u32> {
    let mut bit = from;
    while bit < limit {
        if bit.is_multiple_of(8) && data[bit as usize / 8] == 0xff {
            bit += 8;
        } else if data[bit as usize / 8] & (1 << (bit % 8)) == 0 {
            return Some(bit);
        } else {
            bit += 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_starts_at_the_goal_if_that_is_free() {
        let mut bits = [0u8; 8];
        assert_eq!(take_bits(&mut bits, 5, 64, 3, true), Some((5, 3)));
        assert_eq!(bits[0], 0b1110_0000);
    }

    #[test]
    fn a_taken_goal_moves_to_a_free_byte() {
        let mut bits = [0x01, 0x01, 0x00, 0x00];
        assert_eq!(take_bits(&mut bits, 0, 32, 32, true), Some((16, 16)));
        assert_eq!(take_bits(&mut bits, 0, 32, 2, true), None);
        assert_eq!(take_bits(&mut bits, 0, 32, 2, false), Some((1, 2)));
    }

    #[test]
    fn the_end_of_a_short_group_is_never_taken() {
        let mut bits = [0u8; 8];
        assert_eq!(take_bits(&mut bits, 0, 10, 64, true), Some((0, 10)));
        assert_eq!(take_bits(&mut bits, 0, 10, 1, false), None);
        assert_eq!(clear_bits(&mut bits, 0, 12), 10);
    }
}
