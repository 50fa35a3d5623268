//! Bitmaps of groups with checksums: those that were never written, and the checksums in the descriptors.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;

use zerocopy::FromBytes;

use super::buffers::{Buffer, Buffers};
use super::checksum::Sums;
use super::groups::Groups;
use super::layout::{DESC_SIZE, GroupDesc, GroupDescHigh, Layout, group_flags};
use crate::errno::{Errno, Result};

/// Refuses a descriptor with a wrong checksum, and one that leads to blocks behind 2^32.
pub fn check(group: u32, desc: &GroupDesc, raw: &[u8], high: &[u8], sums: Sums) -> Result<()> {
    if !matches!(sums, Sums::None) && sums.descriptor(group, raw) != desc.checksum.get() {
        log::error!("ext2: the checksum of group {group} is wrong");
        return Err(Errno::EINVAL);
    }
    let Ok((high, _)) = GroupDescHigh::ref_from_prefix(high) else { return Ok(()) };
    let blocks = [high.block_bitmap, high.inode_bitmap, high.inode_table];
    let counts = [high.free_blocks, high.free_inodes, high.used_dirs, high.unused_inodes];
    let sound = blocks.iter().all(|block| block.get() == 0) && counts.iter().all(|count| count.get() == 0);
    if sound { Ok(()) } else { Err(Errno::EINVAL) }
}

fn set_bits(data: &mut [u8], bits: Range<usize>) {
    for bit in bits {
        if let Some(byte) = data.get_mut(bit / 8) {
            *byte |= 1 << (bit % 8);
        }
    }
}

impl Groups {
    fn flag(&self, index: u32, flag: u16) -> Result<bool> {
        self.group(index, |group| Some(group.desc.flags.get() & flag != 0)).ok_or(Errno::EIO)
    }

    fn clear_flag(&self, index: u32, flag: u16) {
        self.change(index, |group| group.desc.flags.set(group.desc.flags.get() & !flag));
    }

    /// The bitmap of the group's blocks.
    pub async fn block_bitmap(&self, layout: &Layout, buffers: &Buffers, index: u32) -> Result<Arc<Buffer>> {
        let block = self.group(index, |group| Some(group.desc.block_bitmap.get())).ok_or(Errno::EIO)?;
        if !layout.features.group_checksums() || !self.flag(index, group_flags::BLOCKS_UNINIT)? {
            return buffers.read(block).await;
        }
        let _making = self.making.lock().await;
        if !self.flag(index, group_flags::BLOCKS_UNINIT)? {
            return buffers.read(block).await;
        }
        let used = self.metadata_in(layout, index);
        let bitmap = buffers.zeroed(block);
        let free = bitmap.modify(|data| {
            used.into_iter().for_each(|bits| set_bits(data, bits));
            set_bits(data, layout.group_blocks(index) as usize..layout.block_size * 8);
            data.iter().map(|byte| byte.count_zeros()).sum::<u32>()
        });
        self.clear_flag(index, group_flags::BLOCKS_UNINIT);
        if self.group(index, |group| Some(group.free_blocks)) != Some(free) {
            log::error!("ext2: group {index}, never used, has a wrong count of free blocks");
            return Err(Errno::EIO);
        }
        Ok(bitmap)
    }

    /// The bitmap of the group's inodes. Who takes one is about to use blocks of the group.
    pub async fn inode_bitmap(&self, layout: &Layout, buffers: &Buffers, index: u32) -> Result<Arc<Buffer>> {
        let block = self.group(index, |group| Some(group.desc.inode_bitmap.get())).ok_or(Errno::EIO)?;
        if !layout.features.group_checksums() || !self.flag(index, group_flags::INODES_UNINIT)? {
            return buffers.read(block).await;
        }
        self.block_bitmap(layout, buffers, index).await?;
        let _making = self.making.lock().await;
        if !self.flag(index, group_flags::INODES_UNINIT)? {
            return buffers.read(block).await;
        }
        let bitmap = buffers.zeroed(block);
        bitmap.modify(|data| set_bits(data, layout.inodes_per_group as usize..layout.block_size * 8));
        self.clear_flag(index, group_flags::INODES_UNINIT);
        Ok(bitmap)
    }

    /// What of a group holds metadata, whichever group's it is, as bits of the group.
    fn metadata_in(&self, layout: &Layout, index: u32) -> Vec<Range<usize>> {
        let first = u64::from(layout.group_first_block(index));
        let end = first + u64::from(layout.group_blocks(index));
        let table = (layout.inodes_per_group as usize * layout.inode_size).div_ceil(layout.block_size) as u64;
        let mut used = Vec::new();
        let mut add = |start: u32, len: u64| {
            let (from, to) = (u64::from(start).max(first), (u64::from(start) + len).min(end));
            if from < to {
                used.push((from - first) as usize..(to - first) as usize);
            }
        };
        let head = u32::from(layout.has_super(index)) + layout.desc_blocks_of(index);
        add(layout.group_first_block(index), head.into());
        for group in self.groups.lock().iter() {
            add(group.desc.block_bitmap.get(), 1);
            add(group.desc.inode_bitmap.get(), 1);
            add(group.desc.inode_table.get(), table);
        }
        used
    }

    /// Brings the checksums of the groups that have changed up to date, in the descriptors' buffers.
    pub async fn seal(&self, layout: &Layout, buffers: &Buffers, sums: Sums) -> Result<()> {
        if matches!(sums, Sums::None) || !self.stale.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let list: Vec<(u32, GroupDesc)> = {
            let mut groups = self.groups.lock();
            let stale = groups.iter_mut().enumerate().filter(|(_, group)| group.stale);
            let taken = stale.map(|(index, group)| {
                group.stale = false;
                (index as u32, group.desc.clone())
            });
            taken.collect()
        };
        for (index, desc) in list {
            let sum = async |flag: u16, block: u32, bits: u32| -> Result<Option<u32>> {
                if desc.flags.get() & flag != 0 || !matches!(sums, Sums::All(_)) {
                    return Ok(None);
                }
                let bitmap = buffers.read(block).await?;
                Ok(bitmap.with(|data| data.get(..bits as usize / 8).and_then(|bits| sums.bitmap(bits))))
            };
            let blocks = sum(group_flags::BLOCKS_UNINIT, desc.block_bitmap.get(), layout.blocks_per_group).await?;
            let inodes = sum(group_flags::INODES_UNINIT, desc.inode_bitmap.get(), layout.inodes_per_group).await?;
            self.write_sums(index, blocks, inodes, sums);
        }
        Ok(())
    }

    fn write_sums(&self, index: u32, blocks: Option<u32>, inodes: Option<u32>, sums: Sums) {
        let mut groups = self.groups.lock();
        let Some(group) = groups.get_mut(index as usize) else { return };
        let Some(buffer) = self.descs.get(index as usize / self.descs_per_block) else { return };
        let at = index as usize % self.descs_per_block * self.desc_size;
        buffer.modify(|data| {
            let Some(raw) = data.get_mut(at..at + self.desc_size) else { return };
            let (low, high) = raw.split_at_mut(DESC_SIZE);
            let Ok(low) = GroupDesc::mut_from_bytes(low) else { return };
            let mut high = GroupDescHigh::mut_from_prefix(high).ok().map(|(high, _)| high);
            if let Some(sum) = blocks {
                low.block_bitmap_checksum.set(sum as u16);
                if let Some(high) = &mut high {
                    high.block_bitmap_checksum.set((sum >> 16) as u16);
                }
            }
            if let Some(sum) = inodes {
                low.inode_bitmap_checksum.set(sum as u16);
                if let Some(high) = &mut high {
                    high.inode_bitmap_checksum.set((sum >> 16) as u16);
                }
            }
            let sum = sums.descriptor(index, raw);
            if let Ok((low, _)) = GroupDesc::mut_from_prefix(raw) {
                low.checksum.set(sum);
                group.desc = low.clone();
            }
        });
    }
}
