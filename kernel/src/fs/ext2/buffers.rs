//! The buffer cache: metadata blocks (bitmaps, inode tables, indirect blocks, directories, group descriptors).
//!
//! A [`Buffer`] is one block by its number on the device. Its content is changed in place under its spinlock, which
//! marks it dirty; [`Buffers::write_back`] copies dirty blocks out (so that a transfer never sees half a change) and
//! writes neighbours with one request. Locks: `write_lock` (async) > a buffer's state > the cache's index.

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;
use hashbrown::HashMap;
use smallvec::smallvec;

use crate::errno::Result;
use crate::exec::{self, Mutex};
use crate::fs::block::{BlockDevice, Memory, Pending, SECTOR_SIZE};
use crate::sync::SpinLock;

/// Bytes of clean blocks kept at most.
const CACHE_BYTES: usize = 8 << 20;
/// Bytes in one write request at most.
const WRITE_BYTES: usize = 128 << 10;

struct State {
    /// Empty as long as the block has not been read.
    data: Box<[u8]>,
    loading: Option<Pending>,
    dirty: bool,
}

pub struct Buffer {
    pub block: u32,
    state: SpinLock<State>,
    index: Arc<SpinLock<Index>>,
}

struct Index {
    blocks: HashMap<u32, Arc<Buffer>>,
    /// Candidates for eviction, oldest first.
    clock: VecDeque<u32>,
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
        let index = Index { blocks: HashMap::new(), clock: VecDeque::new(), dirty: BTreeSet::new() };
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
        let state = State { data: Box::default(), loading: None, dirty: false };
        let buffer = Arc::new(Buffer { block, state: SpinLock::new(state), index: self.index.clone() });
        index.blocks.insert(block, buffer.clone());
        index.clock.push_back(block);
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
        let mut pending: Vec<(Pending, u32, u32)> = Vec::new();
        let mut run: Vec<u8> = Vec::new();
        let mut first = 0;
        for block in dirty {
            let next = first + (run.len() / self.block_size) as u32;
            if !run.is_empty() && (block != next || run.len() >= WRITE_BYTES) {
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
            run.extend_from_slice(&state.data);
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

    fn start_write(&self, first: u32, bytes: Vec<u8>) -> (Pending, u32, u32) {
        let count = (bytes.len() / self.block_size) as u32;
        (self.device.write(self.sector(first), smallvec![Memory::Bytes(bytes.into_boxed_slice())]), first, count)
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
            let Some(block) = self.clock.pop_front() else { return };
            match self.blocks.get(&block) {
                // The index's own reference is the only one, so nobody holds the state lock.
                Some(buffer) if Arc::strong_count(buffer) == 1 && buffer.is_evictable() => {
                    self.blocks.remove(&block);
                }
                Some(_) => self.clock.push_back(block),
                None => {}
            }
        }
    }
}
