//! The buffer cache: metadata blocks (bitmaps, inode tables, indirect blocks, directories, group descriptors).
//!
//! A [`Buffer`] is one block by its number on the device. Its content is changed in place under its spinlock, which
//! marks it dirty; [`Buffers::write_back`] copies dirty blocks out (so that a transfer never sees half a change) and
//! writes neighbours with one request. Locks: `write_lock` (async) > a buffer's state > the cache's index.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use smallvec::{SmallVec, smallvec};

use super::checksum::Seal;
use crate::errno::Result;
use crate::exec::{self, Mutex};
use crate::fs::block::{BlockDevice, Memory, Pending, SECTOR_SIZE};
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
    dirty: bool,
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
    dirty: BTreeSet<u32>,
}

pub struct Buffers {
    device: Arc<dyn BlockDevice>,
    block_size: usize,
    index: Arc<SpinLock<Index>>,
    /// Only one write-back at a time, so that two writes of one block are never in flight together.
    write_lock: Mutex<()>,
}

impl Buffer {
    /// Looks at the content. Only for buffers that `read` or `zeroed` answered.
    pub fn with<R>(&self, look: impl FnOnce(&[u8]) -> R) -> R {
        look(&self.state.lock().data)
    }

    /// Changes the content and marks it dirty.
    pub fn modify<R>(&self, change: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut state = self.state.lock();
        let result = change(&mut state.data);
        if !state.dirty {
            state.dirty = true;
            self.index.lock().dirty.insert(self.block);
        }
        result
    }

    pub fn set_seal(&self, seal: Seal) {
        self.state.lock().seal = seal;
    }

    /// Says which checksum the block has; false if it has another. What has been changed gets its checksum when it is
    /// written.
    fn check_seal(&self, seal: Seal) -> bool {
        let mut state = self.state.lock();
        if state.seal == seal {
            return true;
        }
        if !state.dirty && !seal.verify(&state.data) {
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

    fn is_loaded(&self) -> bool {
        !self.state.lock().data.is_empty()
    }

    fn is_evictable(&self) -> bool {
        let state = self.state.lock();
        !state.dirty && state.loading.is_none()
    }
}

impl Buffers {
    pub fn new(device: Arc<dyn BlockDevice>, block_size: usize) -> Buffers {
        let index = Index { blocks: BTreeMap::new(), hand: 0, dirty: BTreeSet::new() };
        Buffers { device, block_size, index: Arc::new(SpinLock::new(index)), write_lock: Mutex::new(()) }
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
        let state = State { data: Box::default(), loading: None, dirty: false, seal: Seal::None };
        let buffer = Arc::new(Buffer { block, state: SpinLock::new(state), index: self.index.clone() });
        index.blocks.insert(block, buffer.clone());
        buffer
    }

    /// The block, if it is in memory.
    pub fn try_read(&self, block: u32) -> Option<Arc<Buffer>> {
        let buffer = self.index.lock().blocks.get(&block)?.clone();
        buffer.is_loaded().then_some(buffer)
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
        Ok(buffer.check_seal(seal).then_some(buffer))
    }

    /// Starts to read a block that will be wanted soon.
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

    /// A newly allocated block: zeros, whatever the device holds.
    pub fn zeroed(&self, block: u32) -> Arc<Buffer> {
        let buffer = self.get(block);
        {
            let mut state = buffer.state.lock();
            state.loading = None;
            state.seal = Seal::None;
            state.data = vec![0; self.block_size].into_boxed_slice();
        }
        buffer.modify(|_| ());
        buffer
    }

    /// The block has been freed: its content must not be written any more. Waits for a write that is under way,
    /// because the block's next owner may write it too.
    pub async fn forget(&self, block: u32) {
        let removed = {
            let mut index = self.index.lock();
            index.dirty.remove(&block);
            index.blocks.remove(&block)
        };
        if removed.is_some() {
            drop(self.write_lock.lock().await);
        }
    }

    pub fn dirty_count(&self) -> usize {
        self.index.lock().dirty.len()
    }

    /// Writes every block that is dirty now and waits until the device has taken all of them. Not to be dropped
    /// before it ends: the blocks already count as clean.
    pub async fn write_back(&self) -> Result<()> {
        let _one = self.write_lock.lock().await;
        let dirty = core::mem::take(&mut self.index.lock().dirty);
        let limit = self.device.max_segments().min(WRITE_BLOCKS);
        let mut pending: Vec<(Pending, u32, u32)> = Vec::new();
        let mut run: Run = SmallVec::new();
        let mut first = 0;
        for block in dirty {
            if !run.is_empty() && (block != first + run.len() as u32 || run.len() >= limit) {
                pending.push(self.start_write(first, core::mem::take(&mut run)));
                exec::budget().await;
            }
            let Some(buffer) = self.index.lock().blocks.get(&block).cloned() else { continue };
            let mut state = buffer.state.lock();
            if !state.dirty {
                continue;
            }
            state.dirty = false;
            if run.is_empty() {
                first = block;
            }
            let seal = state.seal;
            seal.apply(&mut state.data);
            run.push(Memory::Bytes(state.data.clone()));
        }
        if !run.is_empty() {
            pending.push(self.start_write(first, run));
        }
        let mut result = Ok(());
        for (pending, first, count) in pending {
            if let Err(errno) = pending.await {
                log::error!("ext2: writing blocks {first}+{count} failed: {errno:?}");
                self.redirty(first, count);
                result = Err(errno);
            }
        }
        result
    }

    fn start_write(&self, first: u32, run: Run) -> (Pending, u32, u32) {
        let count = run.len() as u32;
        (self.device.write(self.sector(first), run), first, count)
    }

    fn redirty(&self, first: u32, count: u32) {
        for block in first..first + count {
            if let Some(buffer) = self.try_read(block) {
                buffer.modify(|_| ());
            }
        }
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
