//! Bitmaps of groups: what they must say, those that were never written, and their checksums in the descriptors.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;

use zerocopy::FromBytes;

use super::bits::{are_set, set_bits};
use super::buffers::{Buffer, Buffers};
use super::checksum::{Seal, Sums};
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

impl Groups {
    fn flag(&self, index: u32, flag: u16) -> Result<bool> {
        self.group(index, |group| Some(group.desc.flags.get() & flag != 0)).ok_or(Errno::EIO)
    }

    fn clear_flag(&self, index: u32, flag: u16) {
        self.change(index, |group| group.desc.flags.set(group.desc.flags.get() & !flag));
    }

    fn is_damaged<T>(&self, index: u32, what: &str) -> Result<T> {
        log::error!("ext2: the {what} of group {index} is wrong");
        if let Some(group) = self.groups.lock().get_mut(index as usize) {
            self.damaged(group);
        }
        self.damage.store(true, Ordering::Relaxed);
        Err(Errno::EIO)
    }

    /// The bitmap of the group's blocks.
    pub async fn block_bitmap(&self, layout: &Layout, buffers: &Buffers, index: u32) -> Result<Arc<Buffer>> {
        let block = self.group(index, |group| Some(group.desc.block_bitmap.get())).ok_or(Errno::EIO)?;
        let seal = Seal::Bitmap { group: index, inodes: false };
        if !layout.features.group_checksums() || !self.flag(index, group_flags::BLOCKS_UNINIT)? {
            return self.read_bitmap(layout, buffers, block, seal).await;
        }
        let _making = self.making.lock().await;
        if !self.flag(index, group_flags::BLOCKS_UNINIT)? {
            return self.read_bitmap(layout, buffers, block, seal).await;
        }
        let system = self.system(layout, index);
        let mut bits = vec![0; layout.block_size];
        system.iter().for_each(|used| set_bits(&mut bits, used.clone()));
        set_bits(&mut bits, layout.group_blocks(index)..layout.block_size as u32 * 8);
        let free = bits.iter().map(|byte| byte.count_zeros()).sum::<u32>();
        if self.group(index, |group| Some(group.free_blocks)) != Some(free) {
            return self.is_damaged(index, "count of free blocks");
        }
        let bitmap = buffers.fresh(block);
        bitmap.modify_sealed(seal, |data| data.copy_from_slice(&bits));
        self.clear_flag(index, group_flags::BLOCKS_UNINIT);
        Ok(bitmap)
    }

    /// The bitmap of the group's inodes. Who takes one is about to use blocks of the group.
    pub async fn inode_bitmap(&self, layout: &Layout, buffers: &Buffers, index: u32) -> Result<Arc<Buffer>> {
        let block = self.group(index, |group| Some(group.desc.inode_bitmap.get())).ok_or(Errno::EIO)?;
        let seal = Seal::Bitmap { group: index, inodes: true };
        if !layout.features.group_checksums() || !self.flag(index, group_flags::INODES_UNINIT)? {
            return self.read_bitmap(layout, buffers, block, seal).await;
        }
        self.block_bitmap(layout, buffers, index).await?;
        let _making = self.making.lock().await;
        if !self.flag(index, group_flags::INODES_UNINIT)? {
            return self.read_bitmap(layout, buffers, block, seal).await;
        }
        let bitmap = buffers.fresh(block);
        bitmap.modify_sealed(seal, |data| set_bits(data, layout.inodes_per_group..layout.block_size as u32 * 8));
        self.clear_flag(index, group_flags::INODES_UNINIT);
        Ok(bitmap)
    }

    /// The same, if it is in memory and was tested.
    pub fn inode_bitmap_now(&self, layout: &Layout, buffers: &Buffers, index: u32) -> Option<Arc<Buffer>> {
        let block = self.group(index, |group| Some(group.desc.inode_bitmap.get()))?;
        self.bitmap_now(layout, buffers, block, Seal::Bitmap { group: index, inodes: true })
    }

    /// The bitmap of the group's blocks, if it is in memory and was tested.
    pub fn block_bitmap_now(&self, layout: &Layout, buffers: &Buffers, index: u32) -> Option<Arc<Buffer>> {
        let block = self.group(index, |group| Some(group.desc.block_bitmap.get()))?;
        self.bitmap_now(layout, buffers, block, Seal::Bitmap { group: index, inodes: false })
    }

    fn bitmap_now(&self, layout: &Layout, buffers: &Buffers, block: u32, seal: Seal) -> Option<Arc<Buffer>> {
        let Seal::Bitmap { group, inodes } = seal else { return None };
        let unwritten = if inodes { group_flags::INODES_UNINIT } else { group_flags::BLOCKS_UNINIT };
        if layout.features.group_checksums() && self.flag(group, unwritten).ok()? {
            return None;
        }
        buffers.cached(block).filter(|bitmap| bitmap.has_seal(seal))
    }

    /// A bitmap from the disk, which must have the checksum that its group knows and must not give away metadata.
    async fn read_bitmap(&self, layout: &Layout, buffers: &Buffers, block: u32, seal: Seal) -> Result<Arc<Buffer>> {
        let Seal::Bitmap { group, inodes } = seal else { return Err(Errno::EIO) };
        let buffer = buffers.read(block).await?;
        if buffer.check_seal(seal, |_| false) {
            return Ok(buffer);
        }
        let known = self.known_sum(group, inodes);
        let system = if inodes { Arc::default() } else { self.system(layout, group) };
        let sound = buffer.check_seal(seal, |data| {
            let sum = data.get(..bytes_covered(layout, inodes)).and_then(|bits| self.sums.bitmap(bits));
            let agrees = sum.zip(known).is_none_or(|(sum, (known, mask))| sum & mask == known & mask);
            agrees && system.iter().all(|used| are_set(data, used))
        });
        if sound { Ok(buffer) } else { self.is_damaged(group, if inodes { "inode bitmap" } else { "block bitmap" }) }
    }

    /// What of a group's bitmap stands for metadata, whichever group's it is.
    fn system(&self, layout: &Layout, index: u32) -> Arc<[Range<u32>]> {
        if let Some(known) = self.group(index, |group| group.system.clone()) {
            return known;
        }
        let first = u64::from(layout.group_first_block(index));
        let end = first + u64::from(layout.group_blocks(index));
        let table = (layout.inodes_per_group as usize * layout.inode_size).div_ceil(layout.block_size) as u64;
        let mut used: Vec<Range<u32>> = Vec::new();
        let mut add = |start: u32, len: u64| {
            let (from, to) = (u64::from(start).max(first), (u64::from(start) + len).min(end));
            if from < to {
                used.push((from - first) as u32..(to - first) as u32);
            }
        };
        let head = u32::from(layout.has_super(index)) + layout.desc_blocks_of(index);
        add(layout.group_first_block(index), head.into());
        let mut groups = self.groups.lock();
        for group in groups.iter() {
            add(group.desc.block_bitmap.get(), 1);
            add(group.desc.inode_bitmap.get(), 1);
            add(group.desc.inode_table.get(), table);
        }
        used.sort_unstable_by_key(|bits| bits.start);
        used.dedup_by(|next, bits| {
            let joined = next.start <= bits.end;
            bits.end = bits.end.max(if joined { next.end } else { 0 });
            joined
        });
        let used: Arc<[Range<u32>]> = used.into();
        if let Some(group) = groups.get_mut(index as usize) {
            group.system = Some(used.clone());
        }
        used
    }

    /// The checksum of a bitmap, and which of its bits the descriptor has room for.
    fn known_sum(&self, index: u32, inodes: bool) -> Option<(u32, u32)> {
        let desc = self.group(index, |group| Some(group.desc.clone()))?;
        let low = if inodes { desc.inode_bitmap_checksum } else { desc.block_bitmap_checksum };
        if self.desc_size == DESC_SIZE {
            return Some((low.get().into(), 0xffff));
        }
        let at = index as usize % self.descs_per_block * self.desc_size;
        let high = self.descs.get(index as usize / self.descs_per_block)?.with(|data| {
            let (high, _) = GroupDescHigh::ref_from_prefix(data.get(at + DESC_SIZE..)?).ok()?;
            Some(if inodes { high.inode_bitmap_checksum.get() } else { high.block_bitmap_checksum.get() })
        })?;
        Some((u32::from(high) << 16 | u32::from(low.get()), !0))
    }

    /// A block is about to be written: if it is a bitmap, its group has the checksum of just this content from now on.
    pub fn note_written(&self, layout: &Layout, seal: Seal, data: &[u8]) {
        let Seal::Bitmap { group, inodes } = seal else { return };
        let Some(sum) = data.get(..bytes_covered(layout, inodes)).and_then(|bits| self.sums.bitmap(bits)) else {
            return;
        };
        self.change(group, |group| {
            let low = &mut group.desc;
            let low = if inodes { &mut low.inode_bitmap_checksum } else { &mut low.block_bitmap_checksum };
            low.set(sum as u16);
        });
        let at = group as usize % self.descs_per_block * self.desc_size;
        let Some(buffer) = self.descs.get(group as usize / self.descs_per_block) else { return };
        buffer.modify(|data| {
            let raw = data.get_mut(at + DESC_SIZE..at + self.desc_size).unwrap_or(&mut []);
            if let Ok((high, _)) = GroupDescHigh::mut_from_prefix(raw) {
                let high = if inodes { &mut high.inode_bitmap_checksum } else { &mut high.block_bitmap_checksum };
                high.set((sum >> 16) as u16);
            }
        });
    }
}

/// Bytes of a bitmap that its checksum is of.
fn bytes_covered(layout: &Layout, inodes: bool) -> usize {
    (if inodes { layout.inodes_per_group } else { layout.blocks_per_group }) as usize / 8
}
