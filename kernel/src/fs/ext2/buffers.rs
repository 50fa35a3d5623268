//! The buffer cache: metadata blocks (bitmaps, inode tables, indirect blocks, directories, group descriptors).
//!
//! A [`Buffer`] is one block by its number on the device. Its content is changed in place under its spinlock, which
//! marks it dirty; write-back ([`super::writeback`]) copies dirty blocks out (so that a transfer never sees half a change)
//! and writes neighbours with one request. Blocks that are new go *first* ([`Buffer::modify_first`]): they are on the disk
//! before those that lead to them. Locks: a buffer's state > the cache's index.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use smallvec::{SmallVec, smallvec};

use super::checksum::Seal;
use crate::errno::Result;
use crate::exec;
use crate::fs::block::{BlockDevice, Memory, Pending, SECTOR_SIZE};
use crate::fs::op::BoxFuture;
use crate::sync::SpinLock;

/// Bytes of clean blocks kept at most.
const CACHE_BYTES: usize = 8 << 20;
/// Blocks in one write request at most.
const WRITE_BLOCKS: usize = 32;

/// Copies of consecutive blocks.
type Run = SmallVec<[Memory; 2]>;

struct State {
    /// Empty as long as the block has not been read.
    data: Box<[u8]>,
    loading: Option<Pending>,
    /// When it is written, if it is dirty.
    wave: Option<Wave>,
    /// A directory with names that have gone: what it is on the disk until inodes have been written. It has the names that have
    /// come.
    before: Option<Box<[u8]>>,
    /// The checksum that the block gets when it is written.
    seal: Seal,
}

pub struct Buffer {
    pub block: u32,
    state: SpinLock<State>,
    index: Arc<SpinLock<Index>>,
}

struct Index {
    /// A tree, because it must not need large pieces of memory.
    blocks: BTreeMap<u32, Arc<Buffer>>,
    /// Where the search for blocks that may go has come to.
    hand: u32,
    /// Dirty blocks, by their waves.
    dirty: [BTreeSet<u32>; 3],
    /// Those that names have gone out of.
    left: BTreeSet<u32>,
}

pub struct Buffers {
    device: Arc<dyn BlockDevice>,
    block_size: usize,
    index: Arc<SpinLock<Index>>,
}

/// Which dirty blocks are meant. A block goes with the last of these that it is in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Wave {
    Others,
    /// Directories, whose names go before inodes ([`super::order`]).
    Names,
    /// New ones, that others are going to lead to.
    First,
}

/// Gets to know what is written.
type See<'a> = &'a (dyn Fn(Seal, &[u8]) + Sync);

/// What a dirty block held at some moment, to be written. The buffer stays in the cache meanwhile: what the device has is
/// old.
#[derive(Clone)]
pub struct Copy {
    buffer: Arc<Buffer>,
    wave: Wave,
    pub data: Box<[u8]>,
}

impl Buffer {
    /// Looks at the content. Only for buffers that `read` or `zeroed` answered.
    pub fn with<R>(&self, look: impl FnOnce(&[u8]) -> R) -> R {
        look(&self.state.lock().data)
    }

    /// The same for a directory, with what is on the disk until inodes have been written, if that is something else.
    pub fn with_names<R>(&self, look: impl FnOnce(&[u8], Option<&[u8]>) -> R) -> R {
        let state = self.state.lock();
        look(&state.data, state.before.as_deref())
    }

    /// Changes the content and marks it dirty.
    pub fn modify<R>(&self, change: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut state = self.state.lock();
        let result = change(&mut state.data);
        self.mark(&mut state, Wave::Others);
        result
    }

    /// The same for content that has this checksum from now on.
    pub fn modify_sealed<R>(&self, seal: Seal, change: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut state = self.state.lock();
        state.seal = seal;
        let result = change(&mut state.data);
        self.mark(&mut state, Wave::Others);
        result
    }

    /// The same for content that has to be on the disk before what is going to lead to it.
    pub fn modify_first<R>(&self, seal: Seal, change: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut state = self.state.lock();
        state.seal = seal;
        let result = change(&mut state.data);
        self.mark(&mut state, Wave::First);
        result
    }

    /// The same for names that come, or go at once. `change` also gets what is on the disk until inodes have been written, if
    /// that is something else.
    pub fn modify_names<R>(&self, change: impl FnOnce(&mut [u8], Option<&mut [u8]>) -> R) -> R {
        let mut state = self.state.lock();
        let State { data, before, .. } = &mut *state;
        let result = change(data, before.as_deref_mut());
        self.mark(&mut state, Wave::Names);
        result
    }

    /// The same for names that go, but stay on the disk until inodes have been written.
    pub fn modify_later<R>(&self, change: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut state = self.state.lock();
        self.keep(&mut state);
        change(&mut state.data)
    }

    /// Changes only what is on the disk until inodes have been written.
    pub fn modify_before<R>(&self, change: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut state = self.state.lock();
        let result = change(self.keep(&mut state));
        self.mark(&mut state, Wave::Names);
        result
    }

    fn keep<'a>(&self, state: &'a mut State) -> &'a mut [u8] {
        if state.before.is_none() {
            self.index.lock().left.insert(self.block);
            if state.wave == Some(Wave::Others) {
                self.mark(state, Wave::Names);
            }
        }
        let State { data, before, .. } = state;
        before.get_or_insert_with(|| data.clone())
    }

    /// The content, whatever it is, has to be on the disk before others.
    pub fn put_first(&self) {
        self.mark(&mut self.state.lock(), Wave::First);
    }

    #[inline]
    fn mark(&self, state: &mut State, wave: Wave) {
        if state.wave < Some(wave) {
            let mut index = self.index.lock();
            if let Some(old) = state.wave.replace(wave) {
                index.dirty[old as usize].remove(&self.block);
            }
            index.dirty[wave as usize].insert(self.block);
        }
    }

    /// Whether it is known to have this checksum.
    pub fn has_seal(&self, seal: Seal) -> bool {
        self.state.lock().seal == seal
    }

    /// Says which checksum the block has; false if that is not what it `is`. What has been changed gets its checksum when it
    /// is written.
    pub fn check_seal(&self, seal: Seal, is: impl FnOnce(&[u8]) -> bool) -> bool {
        let mut state = self.state.lock();
        if state.seal == seal {
            return true;
        }
        if state.wave.is_none() && !is(&state.data) {
            return false;
        }
        state.seal = seal;
        true
    }

    pub fn get_u32(&self, index: usize) -> u32 {
        self.with(|data| {
            let at = index * 4;
            data.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes)
        })
    }

    pub fn set_u32(&self, index: usize, value: u32) {
        self.modify(|data| {
            if let Some(bytes) = data.get_mut(index * 4..index * 4 + 4) {
                bytes.copy_from_slice(&value.to_le_bytes());
            }
        });
    }

    fn is_evictable(&self) -> bool {
        let state = self.state.lock();
        state.wave.is_none() && state.before.is_none() && state.loading.is_none()
    }
}

impl Buffers {
    pub fn new(device: Arc<dyn BlockDevice>, block_size: usize) -> Buffers {
        let index = Index { blocks: BTreeMap::new(), hand: 0, dirty: Default::default(), left: BTreeSet::new() };
        Buffers { device, block_size, index: Arc::new(SpinLock::new(index)) }
    }

    fn sector(&self, block: u32) -> u64 {
        u64::from(block) * (self.block_size / SECTOR_SIZE) as u64
    }

    fn get(&self, block: u32) -> Arc<Buffer> {
        let mut index = self.index.lock();
        if let Some(buffer) = index.blocks.get(&block) {
            return buffer.clone();
        }
        index.shrink(CACHE_BYTES / self.block_size);
        let state = State { data: Box::default(), loading: None, wave: None, before: None, seal: Seal::None };
        let buffer = Arc::new(Buffer { block, state: SpinLock::new(state), index: self.index.clone() });
        index.blocks.insert(block, buffer.clone());
        buffer
    }

    /// The block, if its content is in memory.
    pub fn cached(&self, block: u32) -> Option<Arc<Buffer>> {
        let buffer = self.index.lock().blocks.get(&block)?.clone();
        let is_there = !buffer.state.lock().data.is_empty();
        is_there.then_some(buffer)
    }

    /// The block with its content.
    pub async fn read(&self, block: u32) -> Result<Arc<Buffer>> {
        let buffer = self.get(block);
        while let Some(pending) = self.start_load(&buffer) {
            let result = pending.clone().await;
            let mut state = buffer.state.lock();
            // The first of those who wait for one transfer gets the memory; for the others it is done.
            if let Some(bytes) = pending.take_bytes() {
                state.loading = None;
                if result.is_ok() && state.data.is_empty() {
                    state.data = bytes;
                }
            }
            result?;
        }
        Ok(buffer)
    }

    /// The block with its content; None if its checksum is wrong.
    pub async fn read_sealed(&self, block: u32, seal: Seal) -> Result<Option<Arc<Buffer>>> {
        let buffer = self.read(block).await?;
        Ok(buffer.check_seal(seal, |data| seal.verify(data)).then_some(buffer))
    }

    /// Starts to read a block that will be wanted soon.
    #[inline]
    pub fn prefetch(&self, block: u32) {
        let buffer = self.get(block);
        self.start_load(&buffer);
    }

    fn start_load(&self, buffer: &Buffer) -> Option<Pending> {
        let mut state = buffer.state.lock();
        if !state.data.is_empty() {
            return None;
        }
        let pending = state.loading.get_or_insert_with(|| {
            let memory = smallvec![Memory::Bytes(vec![0; self.block_size].into_boxed_slice())];
            self.device.read(self.sector(buffer.block), memory)
        });
        Some(pending.clone())
    }

    /// A newly allocated block: zeros, whatever the device holds. It is not dirty before it gets its content.
    pub fn fresh(&self, block: u32) -> Arc<Buffer> {
        let buffer = self.get(block);
        {
            let mut state = buffer.state.lock();
            state.loading = None;
            state.before = None;
            state.seal = Seal::None;
            state.data = vec![0; self.block_size].into_boxed_slice();
        }
        buffer
    }

    /// The blocks have been freed: their content must not be written any more. No copies of them are on their way, because
    /// their next owner may write them too.
    pub fn forget(&self, start: u32, len: u32) {
        let end = start.saturating_add(len);
        let mut index = self.index.lock();
        while let Some(block) = index.blocks.range(start..end).next().map(|(&block, _)| block) {
            index.blocks.remove(&block);
            for dirty in &mut index.dirty {
                dirty.remove(&block);
            }
            index.left.remove(&block);
        }
    }

    /// As if all room were wanted for others.
    #[cfg(test)]
    pub fn forget_clean(&self) {
        let clean = |buffer: &mut Arc<Buffer>| Arc::strong_count(buffer) == 1 && buffer.is_evictable();
        self.index.lock().blocks.retain(|_, buffer| !clean(buffer));
    }

    pub fn dirty_count(&self) -> usize {
        let index = self.index.lock();
        index.dirty.iter().map(BTreeSet::len).sum::<usize>() + index.left.len()
    }

    /// Copies every block that is dirty now, and is not one of those `later`, in the order of their numbers. They count as
    /// clean then: what is not written has to be given to [`Copy::take_back`].
    ///
    /// Boxed, because there is no need for its code in each caller.
    pub fn copy<'a>(&'a self, wave: Wave, later: fn(Seal) -> bool, see: See<'a>) -> BoxFuture<'a, Vec<Copy>> {
        Box::pin(self.copy_dirty(wave, later, see))
    }

    async fn copy_dirty(&self, wave: Wave, later: fn(Seal) -> bool, see: See<'_>) -> Vec<Copy> {
        let blocks = core::mem::take(&mut self.index.lock().dirty[wave as usize]);
        let mut copies = Vec::new();
        for block in blocks {
            let Some(buffer) = self.index.lock().blocks.get(&block).cloned() else { continue };
            let (seal, data) = {
                let mut state = buffer.state.lock();
                if state.wave != Some(wave) {
                    continue;
                }
                let seal = state.seal;
                if later(seal) {
                    self.index.lock().dirty[wave as usize].insert(block);
                    continue;
                }
                state.wave = None;
                let State { data, before, .. } = &mut *state;
                let data = before.as_mut().unwrap_or(data);
                seal.apply(data);
                (seal, data.clone())
            };
            see(seal, &data);
            copies.push(Copy { buffer, wave, data });
            exec::budget().await;
        }
        copies
    }

    /// Copies the directories that names have gone out of, without those.
    pub async fn copy_left(&self) -> Vec<Copy> {
        let blocks = core::mem::take(&mut self.index.lock().left);
        let mut copies = Vec::new();
        for block in blocks {
            let Some(buffer) = self.index.lock().blocks.get(&block).cloned() else { continue };
            let data = {
                let mut state = buffer.state.lock();
                if state.before.take().is_none() {
                    continue;
                }
                let seal = state.seal;
                seal.apply(&mut state.data);
                state.data.clone()
            };
            copies.push(Copy { buffer, wave: Wave::Names, data });
            exec::budget().await;
        }
        copies
    }

    /// Writes copies and waits until the device has taken all of them. Not to be dropped before it ends.
    pub async fn write(&self, copies: Vec<Copy>) -> Result<()> {
        let limit = self.device.max_segments().min(WRITE_BLOCKS);
        let mut buffers: Vec<(Arc<Buffer>, Wave)> = Vec::with_capacity(copies.len());
        let mut pending: Vec<(Pending, usize)> = Vec::new();
        let mut run: Run = SmallVec::new();
        for Copy { buffer, wave, data } in copies {
            let follows = buffers.last().is_some_and(|(last, _)| last.block + 1 == buffer.block);
            if !run.is_empty() && (!follows || run.len() >= limit) {
                pending.push(self.start_write(&buffers, core::mem::take(&mut run)));
                exec::budget().await;
            }
            run.push(Memory::Bytes(data));
            buffers.push((buffer, wave));
        }
        if !run.is_empty() {
            pending.push(self.start_write(&buffers, run));
        }
        let mut result = Ok(());
        let mut start = 0;
        for (pending, end) in pending {
            if let Err(errno) = pending.await {
                let failed = buffers.get(start..end).unwrap_or(&[]);
                log::error!(
                    "ext2: writing {} blocks from {} on failed: {errno:?}",
                    failed.len(),
                    failed.first().map_or(0, |(buffer, _)| buffer.block)
                );
                failed.iter().for_each(|(buffer, wave)| buffer.mark(&mut buffer.state.lock(), *wave));
                result = Err(errno);
            }
            start = end;
        }
        result
    }

    /// Writes the last of these blocks; also answers how many there are.
    fn start_write(&self, buffers: &[(Arc<Buffer>, Wave)], run: Run) -> (Pending, usize) {
        let first = buffers[buffers.len() - run.len()].0.block;
        (self.device.write(self.sector(first), run), buffers.len())
    }
}

impl Copy {
    pub fn block(&self) -> u32 {
        self.buffer.block
    }

    /// The block is not written, and dirty again.
    pub fn take_back(&self) {
        self.buffer.mark(&mut self.buffer.state.lock(), self.wave);
    }
}

impl Index {
    /// Drops clean blocks that nobody uses until at most `limit` are left; looks at a few only.
    fn shrink(&mut self, limit: usize) {
        for _ in 0..4 {
            if self.blocks.len() < limit {
                return;
            }
            let Some((&block, buffer)) = self.blocks.range(self.hand..).next() else {
                self.hand = 0;
                continue;
            };
            self.hand = block + 1;
            // The index's own reference is the only one, so nobody holds the state lock.
            if Arc::strong_count(buffer) == 1 && buffer.is_evictable() {
                self.blocks.remove(&block);
            }
        }
    }
}
