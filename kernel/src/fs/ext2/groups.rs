//! Block groups: which blocks and inodes are free, and the policy by which they are given out.
//!
//! The counters of all groups are in memory under one spinlock; the bitmaps are buffers. A bit is tested and set under
//! the bitmap buffer's own lock, so no lock is held over the read of a bitmap. Locks: what is held back > a bitmap's buffer;
//! groups > a descriptors' buffer.
//!
//! What a bitmap says is tested when it comes from the disk, and with checksums a group may say that its bitmaps have never
//! been written ([`super::bitmaps`]).
//!
//! What has been freed is held back ([`super::held`]) until the disk knows it: else two inodes could have one block there, or
//! a name lead to another file.
//!
//! Blocks of written but not yet allocated data are *reserved*: they count as used, so that the allocation at
//! write-back cannot fail for lack of space.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use zerocopy::{FromBytes, IntoBytes};

use super::bits::{clear_bits, take};
use super::buffers::{Buffer, Buffers};
use super::checksum::{Seal, Sums};
use super::held::{Held, List, Piece};
use super::layout::{DESC_SIZE, GroupDesc, Layout};
use crate::errno::{Errno, Result};
use crate::exec::{self, Mutex};
use crate::sync::SpinLock;

pub(super) struct Group {
    pub desc: GroupDesc,
    pub free_blocks: u32,
    pub(super) free_inodes: u32,
    pub(super) used_dirs: u32,
    /// Which bits of the bitmap stand for metadata; known from the first use of the bitmap on.
    pub system: Option<Arc<[Range<u32>]>>,
    /// A bitmap makes no sense: nothing is allocated here.
    pub damaged: bool,
}

pub struct Groups {
    pub(super) groups: SpinLock<Vec<Group>>,
    /// The blocks of the group descriptor table, kept in memory.
    pub(super) descs: Vec<Arc<Buffer>>,
    pub(super) descs_per_block: usize,
    pub(super) desc_size: usize,
    pub(super) sums: Sums,
    /// Held while a bitmap is made that was never written.
    pub(super) making: Mutex<()>,
    free_blocks: AtomicU64,
    pub(super) free_inodes: AtomicU64,
    reserved: AtomicU64,
    held_blocks: SpinLock<Held>,
    pub(super) held_inodes: SpinLock<Held>,
    /// A bitmap turned out to be damaged.
    pub(super) damage: AtomicBool,
}

/// Blocks of descriptors that are read in one go.
const AHEAD: u32 = 32;

/// What has been freed before some moment.
pub struct Release {
    blocks: List,
    inodes: List,
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
        let mut descs = Vec::new();
        let mut groups: Vec<Group> = Vec::new();
        descs.try_reserve_exact(blocks as usize).map_err(|_| Errno::ENOMEM)?;
        groups.try_reserve_exact(layout.groups as usize).map_err(|_| Errno::ENOMEM)?;
        for index in 0..blocks {
            if index.is_multiple_of(AHEAD) {
                let ahead = (index..blocks.min(index + AHEAD)).map(|index| layout.desc_block(index));
                ahead.filter(|&block| layout.valid_block(block)).for_each(|block| buffers.prefetch(block));
            }
            let block = layout.desc_block(index);
            if !layout.valid_block(block) {
                return Err(Errno::EINVAL);
            }
            let buffer = buffers.read(block).await?;
            exec::budget().await;
            let first = groups.len() as u32;
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
                        system: None,
                        damaged: false,
                    });
                }
                Ok(())
            })?;
            if sums != Sums::None {
                let wide = layout.desc_size > DESC_SIZE;
                let count = groups.len() as u32 - first;
                buffer.check_seal(Seal::Descriptors { first, count, wide, sums }, |_| true);
            }
            descs.push(buffer);
        }
        let free_blocks = groups.iter().map(|group| u64::from(group.free_blocks)).sum();
        let free_inodes = groups.iter().map(|group| u64::from(group.free_inodes)).sum();
        Ok(Groups {
            groups: SpinLock::new(groups),
            descs,
            descs_per_block: layout.descs_per_block() as usize,
            desc_size: layout.desc_size,
            sums,
            making: Mutex::new(()),
            free_blocks: AtomicU64::new(free_blocks),
            free_inodes: AtomicU64::new(free_inodes),
            reserved: AtomicU64::new(0),
            held_blocks: SpinLock::default(),
            held_inodes: SpinLock::default(),
            damage: AtomicBool::new(false),
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

    /// Promises blocks that are free, or about to be: they were promised before.
    pub fn reserve_again(&self, count: u64) {
        self.reserved.fetch_add(count, Ordering::Relaxed);
    }

    /// Nothing of the group can be promised any more.
    pub(super) fn damaged(&self, group: &mut Group) {
        if !core::mem::replace(&mut group.damaged, true) {
            subtract(&self.free_blocks, group.free_blocks.into());
            subtract(&self.free_inodes, group.free_inodes.into());
        }
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
        let mut why = Errno::ENOSPC;
        // First round: the goal itself or unbroken space, in any group. Second round: whatever there is.
        for step in 0..2 * layout.groups {
            let index = (home + step) % layout.groups;
            let unbroken = step < layout.groups;
            if self.group(index, |group| (group.free_blocks > 0 && !group.damaged).then_some(())).is_none() {
                continue;
            }
            let bitmap = match self.block_bitmap(layout, buffers, index).await {
                Ok(bitmap) => bitmap,
                Err(errno) => {
                    why = errno;
                    continue;
                }
            };
            let from = if step == 0 { goal - layout.group_first_block(index) } else { 0 };
            if let Some(run) = self.take_blocks(layout, &bitmap, index, from, want, unbroken) {
                return Ok(run);
            }
        }
        Err(why)
    }

    /// One block that nobody was promised, if the group of `goal` has one and its bitmap is in memory; and that bitmap.
    pub fn alloc_block_now(&self, layout: &Layout, buffers: &Buffers, goal: u32) -> Option<(u32, Arc<Buffer>)> {
        if !layout.valid_block(goal) {
            return None;
        }
        let index = layout.group_of_block(goal);
        let free = self.group(index, |group| (group.free_blocks > 0 && !group.damaged).then_some(()));
        free.filter(|()| self.available_blocks() > 0)?;
        let bitmap = self.block_bitmap_now(layout, buffers, index)?;
        let from = goal - layout.group_first_block(index);
        let block = self.take_blocks(layout, &bitmap, index, from, 1, true)?.start;
        Some((block, bitmap))
    }

    fn take_blocks(
        &self,
        layout: &Layout,
        bitmap: &Buffer,
        index: u32,
        from: u32,
        want: u32,
        unbroken: bool,
    ) -> Option<Run> {
        let limit = layout.group_blocks(index);
        let (bit, len) = {
            let mut held = self.held_blocks.lock();
            let bits = held.bits(index);
            let (first, len) = bitmap.modify(|data| take(data, bits, from, limit, want, unbroken))?;
            held.take(Piece { group: index, first, len }, layout.block_size);
            (first, len)
        };
        self.change(index, |group| {
            group.free_blocks = group.free_blocks.saturating_sub(len);
            if !group.damaged {
                subtract(&self.free_blocks, len.into());
            }
        });
        Some(Run { start: layout.group_first_block(index) + bit, len })
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
            self.free_in(layout, buffers, &bitmap, Run { start, len })?;
            start += len;
        }
        Ok(())
    }

    /// Blocks of one group, whose bitmap this is.
    pub fn free_in(&self, layout: &Layout, buffers: &Buffers, bitmap: &Buffer, run: Run) -> Result<()> {
        let Run { start, len } = run;
        let index = layout.group_of_block(start);
        let first = start - layout.group_first_block(index);
        let system = self.group(index, |group| group.system.clone()).unwrap_or_default();
        if system.iter().any(|used| used.start < first + len && first < used.end) {
            log::error!("ext2: blocks {start}+{len} are not a file's");
            return Err(Errno::EIO);
        }
        let cleared = {
            let mut held = self.held_blocks.lock();
            if held.free(Piece { group: index, first, len }, layout.block_size) {
                buffers.forget(start, len);
            }
            bitmap.modify(|data| clear_bits(data, first, len))
        };
        if cleared != len {
            log::error!("ext2: blocks {start}+{len} were already free in part");
        }
        self.change(index, |group| {
            group.free_blocks += cleared;
            if !group.damaged {
                self.free_blocks.fetch_add(u64::from(cleared), Ordering::Relaxed);
            }
        });
        Ok(())
    }

    /// All blocks that were allocated so far are held when they are freed.
    pub fn hold_new_blocks(&self) {
        let new = self.held_blocks.lock().hold_new();
        drop(new);
    }

    /// A write-back begins: answers what has been freed so far, and may be used again when it has ended.
    pub fn begin_release(&self) -> Release {
        Release { blocks: self.held_blocks.lock().begin(), inodes: self.held_inodes.lock().begin() }
    }

    /// It has ended: `forget` gets to know the blocks before they are given to others. Or it has failed.
    pub async fn end_release(&self, layout: &Layout, mut release: Release, written: bool, forget: impl Fn(u32, u32)) {
        if written {
            let forget = |piece: &Piece| forget(layout.group_first_block(piece.group) + piece.first, piece.len);
            let_go(&self.held_blocks, core::mem::take(&mut release.blocks), forget).await;
            let_go(&self.held_inodes, core::mem::take(&mut release.inodes), |_| ()).await;
        }
        self.held_blocks.lock().end(release.blocks);
        self.held_inodes.lock().end(release.inodes);
    }

    pub fn holds_blocks(&self) -> bool {
        !self.held_blocks.lock().is_empty()
    }

    pub fn holds_inodes(&self) -> bool {
        !self.held_inodes.lock().is_empty()
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
        group.desc.free_blocks.set(group.free_blocks as u16);
        group.desc.free_inodes.set(group.free_inodes as u16);
        group.desc.used_dirs.set(group.used_dirs as u16);
        if let Some(buffer) = self.descs.get(index / self.descs_per_block) {
            let at = index % self.descs_per_block * self.desc_size;
            buffer.modify(|data| data[at..at + DESC_SIZE].copy_from_slice(group.desc.as_bytes()));
        }
    }
}

/// In turns, as there may be a piece for each block of a large file. `forget` gets to know a piece before anybody can take it.
async fn let_go(held: &SpinLock<Held>, list: List, forget: impl Fn(&Piece)) {
    let mut groups = BTreeSet::new();
    for turn in list {
        turn.iter().for_each(&forget);
        held.lock().release(&turn);
        groups.extend(turn.iter().map(|piece| piece.group));
        exec::budget().await;
    }
    for group in groups {
        held.lock().tidy(group);
        exec::budget().await;
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

/// Counts that contradict the bitmaps must not wrap.
pub(super) fn subtract(count: &AtomicU64, n: u64) {
    let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| Some(count.saturating_sub(n)));
}
