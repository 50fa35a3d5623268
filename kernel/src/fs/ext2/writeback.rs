//! Writing everything back: content first (which allocates its blocks), then inodes, then the blocks of metadata and the
//! superblock, then a flush of the device.
//!
//! Power may go at any moment, and there is no journal; so three things have an order. What leads to a new block (of a map, a
//! tree of extents, a directory, attributes) is written when the block is on the disk, and so is what needs a feature that
//! the superblock says. Names are there before inodes that come, and after inodes that go ([`super::order`]). And what has been
//! freed is used again when nothing on the disk leads to it any more ([`super::held`]).
//!
//! Everything is copied first ([`Volume::copy_all`]), then the copies are written in waves with a flush after each; those that are
//! empty cost none. After a write that failed, all of it is dirty again, and the next write-back puts right what that has left; only
//! names that have gone go without waiting for inodes then.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::take;
use core::sync::atomic::Ordering;

use smallvec::smallvec;
use zerocopy::IntoBytes;

use super::buffers::{Copy, Wave};
use super::checksum::Sums;
use super::order::{Late, Turns};
use super::volume::Volume;
use super::{checksum, layout};
use crate::errno::{Errno, Result};
use crate::exec;
use crate::fs::block::Memory;

/// Copies of blocks, by when they are written.
struct Waves {
    turns: Turns,
    first: Vec<Copy>,
    names: Vec<Copy>,
    /// The names need not wait until the first have arrived.
    together: bool,
    others: Vec<Copy>,
    /// Parts of the inode table, for what comes one after the other.
    levels: Vec<Vec<Copy>>,
    /// Directories without the names that have gone.
    left: Vec<Copy>,
    /// Whether all inodes are in the copies as they are.
    stored: Result<()>,
}

impl Volume {
    /// Writes dirty file content, which allocates its blocks.
    pub async fn write_data(&self) -> Result<()> {
        let mut result = Ok(());
        for inode in self.live_inodes() {
            if let Err(errno) = inode.write_data().await {
                result = Err(errno);
            }
        }
        result
    }

    /// Writes inodes, directories, maps, bitmaps and superblock; all of that, and what was written before, is on stable
    /// storage afterwards. Not to be dropped before it ends.
    pub async fn write_metadata(&self) -> Result<()> {
        self.write_metadata_if(|_| true).await
    }

    /// The same, if there is a reason when others have ended theirs.
    pub async fn write_metadata_if(&self, reason: fn(&Volume) -> bool) -> Result<()> {
        let _one = self.writing.lock().await;
        if !reason(self) {
            return Ok(());
        }
        if self.ended.load(Ordering::Acquire) {
            return Err(Errno::EIO);
        }
        // What was freed by now is so by all that is written from now on.
        let release = self.groups.begin_release();
        // Most of them before those who change names have to wait; what fails here fails again.
        let _ = self.store_nodes().await;
        let (result, stored) = self.write_blocks().await;
        let flushed = self.device.flush().await;
        if flushed.is_ok()
            && let Ok(turns) = &result
        {
            self.order.written(turns).await;
        }
        let result = result.map(drop).and(flushed).and(stored);
        let forget = |start, len| self.buffers.forget(start, len);
        self.groups.end_release(&self.layout, release, result.is_ok(), forget).await;
        if result.is_err() {
            // For who tries again in a while.
            self.dirty.notify();
        }
        result
    }

    /// Writes what has changed of the inodes to the inode table in memory.
    async fn store_nodes(&self) -> Result<()> {
        let mut result = Ok(());
        let nodes = core::mem::take(&mut *self.dirty_nodes.lock());
        for node in nodes.into_values() {
            if let Err(errno) = node.store().await {
                log::error!("ext2: inode {} could not be written: {errno:?}", node.ino);
                let mut nodes = self.dirty_nodes.lock();
                // Else nobody would let go of it.
                if !self.ended.load(Ordering::Acquire) {
                    nodes.insert(node.ino, node);
                }
                result = Err(errno);
            }
            exec::budget().await;
        }
        result
    }

    /// Copies all that is dirty, so that the names in it are those of the inodes. Others are copied before what they lead to,
    /// so that this is in the first wave or on the disk.
    async fn copy_all(&self) -> Waves {
        let _removal = self.order.removal.write().await;
        let mut turns = self.order.begin_turns(|a, b| self.are_together(a, b)).await;
        // A new inode must not be left out, nor one that has lost its name.
        let stored = self.store_nodes().await;
        let guests = self.name_in_lost_found(&turns).await;
        let see = |seal, data: &[u8]| self.groups.note_written(&self.layout, seal, data);
        let mut others = self.buffers.copy(Wave::Others, |seal| seal.is_of_descriptors(), &see).await;
        self.order.end_turns(&mut turns).await;
        let levels = self.part(&turns, &mut others).await;
        if self.groups.sums != Sums::None {
            // They have the checksums of the bitmaps.
            others.append(&mut self.buffers.copy(Wave::Others, |seal| !seal.is_of_descriptors(), &|_, _| ()).await);
        }
        let mut first = self.buffers.copy(Wave::First, |_| false, &|_, _| ()).await;
        let (guests, names) = {
            let names = self.buffers.copy(Wave::Names, |_| false, &|_, _| ()).await;
            names.into_iter().partition::<Vec<_>, _>(|copy| guests.contains(&copy.block()))
        };
        let together = guests.is_empty() && (first.is_empty() || self.groups.sums == Sums::None);
        first.extend(guests);
        first.sort_unstable_by_key(Copy::block);
        let left = self.buffers.copy_left().await;
        self.order.end_period();
        Waves { turns, first, names, together, others, levels, left, stored }
    }

    /// Takes inodes out of copies of the inode table that are not to be on the disk yet. Answers the copies that have them, for
    /// each level from 1 on.
    async fn part(&self, turns: &Turns, others: &mut [Copy]) -> Vec<Vec<Copy>> {
        let mut levels: Vec<Vec<Copy>> = (0..turns.levels).map(|_| Vec::new()).collect();
        let mut places: BTreeMap<u32, Vec<(usize, &Late)>> = BTreeMap::new();
        for (&ino, late) in &turns.late {
            if let Ok((block, offset)) = self.inode_position(ino) {
                places.entry(block).or_default().push((offset, late));
            }
        }
        for (block, places) in places {
            exec::budget().await;
            let Ok(at) = others.binary_search_by_key(&block, Copy::block) else { continue };
            let whole = others[at].clone();
            let hide = |copy: &mut Copy, level| {
                for (offset, late) in &places {
                    if late.level.is_none_or(|its| its > level) {
                        let slot = &mut copy.data[*offset..*offset + self.layout.inode_size];
                        match &late.raw {
                            Some(raw) => slot.copy_from_slice(raw),
                            None => slot.fill(0),
                        }
                    }
                }
            };
            hide(&mut others[at], 0);
            let its: BTreeSet<u32> =
                places.iter().filter_map(|(_, late)| late.level).filter(|level| *level > 0).collect();
            for level in its {
                let mut copy = whole.clone();
                hide(&mut copy, level);
                levels[level as usize - 1].push(copy);
            }
            if places.iter().any(|(_, late)| late.level.is_none()) {
                // They are for another write-back.
                whole.take_back();
            }
        }
        levels
    }

    /// Writes everything that is dirty, with flushes in between. Also answers whether all inodes were in it.
    async fn write_blocks(&self) -> (Result<Turns>, Result<()>) {
        let mut waves = self.copy_all().await;
        let result = self.write_waves(&mut waves).await;
        if result.is_err() {
            let Waves { first, names, others, levels, left, .. } = &waves;
            let copies = [first, names, others, left].into_iter().chain(levels).flatten();
            copies.for_each(Copy::take_back);
        }
        (result.map(|()| waves.turns), waves.stored)
    }

    async fn write_waves(&self, waves: &mut Waves) -> Result<()> {
        self.write_first(waves).await?;
        // The free counts in the superblock go with the bitmaps.
        if !waves.others.is_empty() {
            self.superblock_dirty.store(true, Ordering::Release);
        }
        self.buffers.write(take(&mut waves.others)).await?;
        for copies in &mut waves.levels {
            self.device.flush().await?;
            self.buffers.write(take(copies)).await?;
        }
        if !waves.left.is_empty() {
            self.device.flush().await?;
            self.buffers.write(take(&mut waves.left)).await?;
        }
        if self.superblock_dirty.load(Ordering::Acquire) {
            return self.write_superblock().await;
        }
        Ok(())
    }

    /// Writes what has to be there before the others, of which it takes out what it has a newer copy of; and names.
    async fn write_first(&self, waves: &mut Waves) -> Result<()> {
        let mut some = false;
        while !waves.first.is_empty() {
            some = true;
            let first = &waves.first;
            let newer = |copy: &Copy| first.binary_search_by_key(&copy.block(), Copy::block).is_ok();
            waves.others.retain(|copy| !newer(copy));
            self.buffers.write(take(&mut waves.first)).await?;
            // There may be more by now that these lead to.
            waves.first = self.buffers.copy(Wave::First, |_| false, &|_, _| ()).await;
        }
        if self.superblock_first.swap(false, Ordering::AcqRel) {
            some = true;
            if let Err(errno) = self.write_superblock().await {
                self.superblock_first.store(true, Ordering::Release);
                return Err(errno);
            }
        }
        if !waves.names.is_empty() {
            if some && !waves.together {
                self.device.flush().await?;
            }
            some = true;
            self.buffers.write(take(&mut waves.names)).await?;
        }
        // The copies were made before: what they lead to has arrived if this says so.
        if !self.unflushed.swap(false, Ordering::AcqRel) && !some {
            return Ok(());
        }
        let result = self.device.flush().await;
        if result.is_err() {
            self.unflushed.store(true, Ordering::Release);
        }
        result
    }

    async fn write_superblock(&self) -> Result<()> {
        let _one = self.superblock_lock.lock().await;
        if self.ended.load(Ordering::Acquire) {
            return Err(Errno::EIO);
        }
        self.superblock_dirty.store(false, Ordering::Release);
        let bytes: Box<[u8]> = {
            let mut sb = self.superblock.lock();
            sb.free_blocks.set(self.groups.free_blocks() as u32);
            sb.free_inodes.set(self.groups.free_inodes() as u32);
            sb.write_time.set(self.now().sec as u32);
            if self.layout.features.metadata_csum() {
                let sum = checksum::crc32c(!0, &sb.as_bytes()[..checksum::SUPER_COVERED]);
                sb.checksum.set(sum);
            }
            sb.as_bytes().into()
        };
        let result = self.device.write(layout::SUPER_SECTOR, smallvec![Memory::Bytes(bytes)]).await;
        if result.is_err() {
            self.superblock_dirty.store(true, Ordering::Release);
        }
        result
    }

    /// Everything that was written so far is on stable storage afterwards. Not to be dropped before it ends.
    pub async fn sync_all(&self) -> Result<()> {
        let result = self.write_data().await;
        if !self.read_only() {
            self.superblock_dirty.store(true, Ordering::Release);
        }
        self.write_metadata().await.and(result)
    }

    /// Makes the volume writable, which marks it as in use; or read-only, with everything written and marked clean.
    pub async fn set_read_only(self: &Arc<Self>, read_only: bool) -> Result<()> {
        let mut complete = self.complete.lock().await;
        if read_only {
            if !*complete {
                self.seal().await?;
                *complete = true;
            }
            return Ok(());
        }
        if !self.read_only() {
            return Ok(());
        }
        if self.device.read_only() || self.must_read_only {
            return Err(Errno::EROFS);
        }
        {
            let mut sb = self.superblock.lock();
            let state = sb.state.get();
            if state & layout::STATE_CLEAN == 0 || state & layout::STATE_ERRORS != 0 {
                log::warn!("ext2: the file system was not unmounted cleanly: e2fsck is recommended");
            }
            sb.state.set(state & !layout::STATE_CLEAN);
            let mounts = sb.mount_count.get();
            sb.mount_count.set(mounts.wrapping_add(1));
            sb.mount_time.set(self.now().sec as u32);
        }
        *complete = false;
        self.write_superblock().await?;
        // Nothing may be on the disk before that is: who finds the volume clean looks no further.
        self.device.flush().await?;
        self.sealed.store(false, Ordering::Release);
        self.read_only.store(false, Ordering::SeqCst);
        self.find_lost_found().await;
        if self.orphans.lock().is_empty() {
            self.delete_orphans().await;
        } else {
            // They are those that are known.
            self.list_orphans(false);
            self.free_abandoned().await;
        }
        Ok(())
    }

    /// Writes everything, and marks the volume as clean when nothing changes it any more. One at a time.
    async fn seal(self: &Arc<Self>) -> Result<()> {
        self.read_only.store(true, Ordering::SeqCst);
        self.no_changes().await;
        self.no_deletions().await;
        let mut result = self.write_data().await;
        // Of the pages that get dirty now, by mappings, none is given blocks.
        self.sealed.store(true, Ordering::SeqCst);
        self.no_changes().await;
        self.list_orphans(true);
        self.superblock_dirty.store(true, Ordering::Release);
        result = self.write_metadata().await.and(result);
        {
            let mut sb = self.superblock.lock();
            let errors = sb.state.get() & layout::STATE_ERRORS;
            let clean = if errors == 0 && result.is_ok() { self.found_state & layout::STATE_CLEAN } else { 0 };
            sb.state.set((self.found_state & !layout::STATE_CLEAN) | errors | clean);
        }
        result = self.write_superblock().await.and(result);
        self.device.flush().await.and(result)
    }
}
