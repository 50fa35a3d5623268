//! Which blocks of the device hold a file: 12 direct pointers, then blocks of pointers one, two and three levels deep.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::future::Future;
use core::ops::Range;
use core::pin::Pin;

use super::buffers::Buffer;
use super::checksum::Seal;
use super::extents::format::MAX_LEN;
use super::groups::Run;
use super::layout::inode_flags;
use super::node::{DIRECT, Node};
use crate::errno::{Errno, Result};
use crate::exec;

/// The way to a block's pointer: an index into the inode's pointers, then one into each indirect block.
struct Way {
    index: [usize; 4],
    len: usize,
}

/// What is at some place of a file: consecutive blocks of the device, or a hole of some length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extent {
    Blocks(Run),
    Hole(u32),
}

fn way(block: u64, n: u64) -> Result<Way> {
    let direct = DIRECT as u64;
    if block < direct {
        return Ok(Way { index: [block as usize, 0, 0, 0], len: 1 });
    }
    let mut rest = block - direct;
    if rest < n {
        return Ok(Way { index: [DIRECT, rest as usize, 0, 0], len: 2 });
    }
    rest -= n;
    if rest < n * n {
        return Ok(Way { index: [DIRECT + 1, (rest / n) as usize, (rest % n) as usize, 0], len: 3 });
    }
    rest -= n * n;
    if rest < n * n * n {
        let (a, b, c) = (rest / (n * n), rest / n % n, rest % n);
        return Ok(Way { index: [DIRECT + 2, a as usize, b as usize, c as usize], len: 4 });
    }
    Err(Errno::EFBIG)
}

/// The run that a list of pointers begins with, at most `max` long.
fn leading_run(pointers: impl Iterator<Item = u32>, max: u32) -> Extent {
    let mut first = 0;
    let mut len = 0;
    for pointer in pointers.take(max as usize) {
        if len == 0 {
            first = pointer;
        } else if pointer != if first == 0 { 0 } else { first.wrapping_add(len) } {
            break;
        }
        len += 1;
    }
    if first == 0 { Extent::Hole(len.max(1)) } else { Extent::Blocks(Run { start: first, len }) }
}

fn pointers(data: &[u8], from: usize) -> impl Iterator<Item = u32> {
    data.chunks_exact(4).skip(from).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

impl Node {
    pub(super) fn checked(&self, extent: Extent) -> Result<Extent> {
        if let Extent::Blocks(run) = extent {
            let layout = &self.volume.layout;
            let last = run.start.checked_add(run.len - 1);
            if !layout.valid_block(run.start) || !last.is_some_and(|last| layout.valid_block(last)) {
                self.volume.corrupt(format_args!("inode {} points to block {}", self.ino, run.start));
                return Err(Errno::EIO);
            }
        }
        Ok(extent)
    }

    async fn indirect(&self, block: u32) -> Result<Arc<Buffer>> {
        self.checked(Extent::Blocks(Run { start: block, len: 1 }))?;
        self.volume.buffers.read(block).await
    }

    /// What is at `block` of the file, looking at most `max` blocks far. The caller holds `map_lock`.
    pub async fn lookup_block(&self, block: u64, max: u32) -> Result<Extent> {
        let n = self.volume.layout.pointers_per_block();
        let start = {
            let state = self.state.lock();
            if state.flags & inode_flags::EXTENTS != 0 {
                None
            } else {
                let way = way(block, n)?;
                if way.len == 1 {
                    let extent = leading_run(state.block[way.index[0]..DIRECT].iter().copied(), max);
                    drop(state);
                    return self.checked(extent);
                }
                let pointer = state.block[way.index[0]];
                Some((way, pointer))
            }
        };
        let Some((way, mut pointer)) = start else { return self.lookup_extent(block, max).await };
        for (level, &index) in way.index[..way.len].iter().enumerate().skip(1) {
            if pointer == 0 {
                // Nothing below: a hole at least to the end of the leaf.
                let left = n - way.index[way.len - 1] as u64;
                return Ok(Extent::Hole((left as u32).min(max)));
            }
            let buffer = self.indirect(pointer).await?;
            if level == way.len - 1 {
                let extent = buffer.with(|data| leading_run(pointers(data, index), max));
                return self.checked(extent);
            }
            pointer = buffer.get_u32(index);
        }
        Err(Errno::EIO)
    }

    /// The blocks at `block` of the file, up to `want`; allocates them if there is a hole. `promised`: the caller has
    /// reserved space. The caller holds `map_lock` exclusively. The content of new blocks is whatever was there.
    pub async fn provide_blocks(self: &Arc<Self>, block: u64, want: u32, promised: bool) -> Result<(Run, bool)> {
        if block >= self.max_blocks() {
            return Err(Errno::EFBIG);
        }
        if self.has_extents() {
            return self.provide_extent(block, want, promised).await;
        }
        let hole = match self.lookup_block(block, want).await? {
            Extent::Blocks(run) => return Ok((run, false)),
            Extent::Hole(len) => len,
        };
        Ok((self.fill_hole(block, hole.min(want), promised).await?, true))
    }

    /// Blocks for a hole, which the map leads to at once.
    pub(super) async fn fill_hole(self: &Arc<Self>, block: u64, want: u32, promised: bool) -> Result<Run> {
        let run = self.allocate(block, want, promised).await?;
        if let Err(errno) = self.enter(block, run, promised).await {
            self.volume.free_run(run).await?;
            return Err(errno);
        }
        Ok(run)
    }

    /// Logical blocks that the file can have.
    pub fn max_blocks(&self) -> u64 {
        self.volume.layout.max_file_blocks(self.has_extents())
    }

    /// New blocks for a hole of the file, which nothing leads to yet. The caller holds `map_lock` exclusively.
    pub async fn allocate(&self, block: u64, want: u32, promised: bool) -> Result<Run> {
        let goal = self.goal(block).await?;
        let run = self.volume.alloc_blocks(goal, want.min(MAX_LEN), promised).await?;
        self.state.lock().goal = (block + u64::from(run.len), run.start + run.len);
        Ok(run)
    }

    /// Makes the map lead to new blocks, from `block` of the file on. The caller holds `map_lock` exclusively.
    pub async fn enter(self: &Arc<Self>, block: u64, run: Run, promised: bool) -> Result<()> {
        if let Extent::Blocks(_) = self.lookup_block(block, 1).await? {
            self.volume.corrupt(format_args!("block {block} of inode {} is there twice", self.ino));
            return Err(Errno::EIO);
        }
        if self.has_extents() {
            self.insert_run(block, run, promised).await?;
        } else {
            self.attach(block, run, promised).await?;
        }
        let sectors = u64::from(run.len) * self.volume.layout.sectors_per_block();
        self.update(|state| state.sectors += sectors);
        Ok(())
    }

    /// Where a new block would best be: behind the file's previous one, or in the inode's group.
    async fn goal(&self, block: u64) -> Result<u32> {
        let (next, goal) = self.state.lock().goal;
        if goal != 0 && next == block {
            return Ok(goal);
        }
        if block > 0
            && let Extent::Blocks(run) = self.lookup_block(block - 1, 1).await?
        {
            return Ok(run.start + 1);
        }
        Ok(self.volume.layout.home(self.ino))
    }

    /// The same for an inode with pointers: with the indirect blocks on the way to the new ones.
    async fn attach(self: &Arc<Self>, block: u64, run: Run, promised: bool) -> Result<()> {
        let way = way(block, self.volume.layout.pointers_per_block())?;
        let leaf_index = way.index[way.len - 1];
        if way.len == 1 {
            self.update(|state| {
                let slots = state.block[leaf_index..DIRECT].iter_mut();
                slots.take(run.len as usize).zip(run.start..).for_each(|(slot, pointer)| *slot = pointer);
            });
            return Ok(());
        }
        let goal = run.start + run.len;
        let root = self.state.lock().block[way.index[0]];
        let mut buffer = if root == 0 {
            let buffer = self.new_indirect(goal, promised).await?;
            self.update(|state| state.block[way.index[0]] = buffer.block);
            buffer
        } else {
            self.indirect(root).await?
        };
        for &index in &way.index[1..way.len - 1] {
            let pointer = buffer.get_u32(index);
            buffer = if pointer == 0 {
                let child = self.new_indirect(goal, promised).await?;
                buffer.set_u32(index, child.block);
                child
            } else {
                self.indirect(pointer).await?
            };
        }
        buffer.modify(|data| {
            let slots = data.chunks_exact_mut(4).skip(leaf_index).take(run.len as usize);
            slots.zip(run.start..).for_each(|(slot, pointer)| slot.copy_from_slice(&pointer.to_le_bytes()));
        });
        Ok(())
    }

    /// A block for the map itself, without content so far.
    pub(super) async fn new_node(self: &Arc<Self>, goal: u32, promised: bool) -> Result<Arc<Buffer>> {
        let volume = &self.volume;
        let run = volume.alloc_blocks(goal, 1, promised).await?;
        self.update(|state| state.sectors += volume.layout.sectors_per_block());
        Ok(volume.buffers.fresh(run.start))
    }

    async fn new_indirect(self: &Arc<Self>, goal: u32, promised: bool) -> Result<Arc<Buffer>> {
        let buffer = self.new_node(goal, promised).await?;
        buffer.modify_first(Seal::None, |_| ());
        Ok(buffer)
    }

    /// Frees all blocks from `keep` on.
    pub async fn free_blocks_from(self: &Arc<Self>, keep: u64) -> Result<()> {
        self.free_blocks(keep..u64::MAX).await
    }

    /// Frees the blocks in `range`. The caller holds `map_lock` exclusively, and no page of them is being written.
    pub async fn free_blocks(self: &Arc<Self>, range: Range<u64>) -> Result<()> {
        if self.has_extents() {
            return self.free_extents(range).await;
        }
        let (keep, end) = (range.start, range.end);
        let n = self.volume.layout.pointers_per_block();
        let mut freed = Freed::default();
        let taken = self.update(|state| {
            state.goal = (0, 0);
            let direct = |block: u64| block.min(DIRECT as u64) as usize;
            let (from, to) = (direct(keep), direct(end));
            let mut taken = [0; DIRECT];
            taken[from..to].copy_from_slice(&state.block[from..to]);
            state.block[from..to].fill(0);
            taken
        });
        for pointer in taken {
            freed.data(pointer);
        }
        let mut first = DIRECT as u64;
        let mut result = Ok(());
        for level in 1..=3u32 {
            let root = self.state.lock().block[DIRECT + level as usize - 1];
            if root != 0 && keep < first + n.pow(level) && end > first {
                match self.prune(root, level, keep.saturating_sub(first)..end - first, &mut freed).await {
                    Ok(false) => {}
                    Ok(true) => self.update(|state| state.block[DIRECT + level as usize - 1] = 0),
                    Err(errno) => result = Err(errno),
                }
            }
            first += n.pow(level);
        }
        self.release(freed).await?;
        result
    }

    /// Frees those of the blocks that an indirect block of `level` leads to which are in `range`; answers whether nothing
    /// is left of it, in which case it is freed itself.
    fn prune<'a>(
        self: &'a Arc<Self>,
        block: u32,
        level: u32,
        range: Range<u64>,
        freed: &'a mut Freed,
    ) -> Pin<Box<dyn Future<Output = Result<bool>> + Send + 'a>> {
        Box::pin(async move {
            let n = self.volume.layout.pointers_per_block();
            let below = n.pow(level - 1);
            let buffer = self.indirect(block).await?;
            let list: Vec<u32> = buffer.with(|data| pointers(data, 0).collect());
            exec::budget().await;
            if freed.count > u64::from(self.volume.layout.blocks) {
                // Blocks that lead to themselves would lead on for years.
                self.volume.corrupt(format_args!("inode {} has more blocks than there are", self.ino));
                return Err(Errno::EIO);
            }
            let mut changed: Vec<usize> = Vec::new();
            let mut result = Ok(false);
            let within = |block: u64| (block / below).min(n) as usize;
            let (first, end) = (within(range.start), within(range.end.saturating_add(below - 1)));
            for (index, pointer) in list.iter().copied().enumerate().take(end).skip(first) {
                if pointer == 0 {
                    continue;
                }
                let gone = if level == 1 {
                    freed.data(pointer);
                    true
                } else {
                    let start = index as u64 * below;
                    let part = range.start.saturating_sub(start)..range.end - start;
                    match self.prune(pointer, level - 1, part, freed).await {
                        Ok(gone) => gone,
                        Err(errno) => {
                            // What is going to be freed must leave the map all the same.
                            result = Err(errno);
                            break;
                        }
                    }
                };
                if gone {
                    changed.push(index);
                }
            }
            let left = list.iter().filter(|&&pointer| pointer != 0).count();
            if left == changed.len() {
                freed.metadata(block);
                return Ok(true);
            }
            if !changed.is_empty() {
                buffer.modify(|data| {
                    for index in changed {
                        if let Some(slot) = data.get_mut(index * 4..index * 4 + 4) {
                            slot.fill(0);
                        }
                    }
                });
            }
            result
        })
    }

    pub(super) async fn release(self: &Arc<Self>, mut freed: Freed) -> Result<()> {
        let volume = &self.volume;
        let metadata = core::mem::take(&mut freed.metadata);
        for block in metadata.into_iter().flatten() {
            freed.data(block);
        }
        let mut result = Ok(());
        let mut count = 0;
        for run in freed.runs.into_iter().flatten() {
            exec::budget().await;
            count += u64::from(run.len);
            if let Err(errno) = volume.free_run(run).await {
                volume.corrupt(format_args!("inode {} held blocks {}+{}", self.ino, run.start, run.len));
                result = Err(errno);
            }
        }
        let sectors = count * volume.layout.sectors_per_block();
        self.update(|state| state.sectors = state.sectors.saturating_sub(sectors));
        result
    }
}

/// In vectors of up to [`TURN`]: of a fragmented file there is more than has room in one piece of memory.
type Pieces<T> = Vec<Vec<T>>;
const TURN: usize = 1024;

fn push<T>(pieces: &mut Pieces<T>, new: T) {
    match pieces.last_mut() {
        Some(turn) if turn.len() < TURN => turn.push(new),
        _ => pieces.push(vec![new]),
    }
}

/// Blocks taken out of a map.
#[derive(Default)]
pub(super) struct Freed {
    /// How many in all.
    pub count: u64,
    runs: Pieces<Run>,
    /// Indirect blocks.
    metadata: Pieces<u32>,
    /// Those that were looked at.
    seen: BTreeSet<u32>,
}

impl Freed {
    fn data(&mut self, pointer: u32) {
        if pointer != 0 {
            self.run(Run { start: pointer, len: 1 });
        }
    }

    pub fn run(&mut self, new: Run) {
        self.count += u64::from(new.len);
        match self.runs.last_mut().and_then(|turn| turn.last_mut()) {
            Some(run) if run.start.wrapping_add(run.len) == new.start => run.len = run.len.saturating_add(new.len),
            _ => push(&mut self.runs, new),
        }
    }

    /// Whether a block of the map has been looked at before.
    pub fn sees(&mut self, block: u32) -> bool {
        !self.seen.insert(block)
    }

    /// A block of the map itself.
    pub fn metadata(&mut self, block: u32) {
        self.count += 1;
        push(&mut self.metadata, block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_changes_level_at_the_borders() {
        let n = 256;
        let index = |block| way(block, n).map(|way| way.index[..way.len].to_vec());
        assert_eq!(index(11).unwrap(), [11]);
        assert_eq!(index(12).unwrap(), [12, 0]);
        assert_eq!(index(12 + 255).unwrap(), [12, 255]);
        assert_eq!(index(12 + 256).unwrap(), [13, 0, 0]);
        assert_eq!(index(12 + 256 + 65535).unwrap(), [13, 255, 255]);
        assert_eq!(index(12 + 256 + 65536).unwrap(), [14, 0, 0, 0]);
        assert_eq!(index(12 + 256 + 65536 + (1 << 24)).unwrap_err(), Errno::EFBIG);
    }

    #[test]
    fn what_is_freed_is_kept_in_pieces() {
        let mut freed = Freed::default();
        for block in 0..5000 {
            freed.data(10 + 3 * block);
            freed.data(11 + 3 * block);
            freed.metadata(12 + 3 * block);
        }
        assert_eq!(freed.count, 15_000);
        assert!(
            freed.runs.iter().all(|turn| turn.capacity() <= TURN)
                && freed.metadata.iter().all(|turn| turn.len() <= TURN)
        );
        let runs: Vec<Run> = freed.runs.into_iter().flatten().collect();
        assert_eq!((runs.len(), runs[4999]), (5000, Run { start: 10 + 3 * 4999, len: 2 }));
        assert!(freed.metadata.into_iter().flatten().eq((0..5000).map(|block| 12 + 3 * block)));
    }

    #[test]
    fn a_run_ends_where_the_numbers_jump() {
        let run = |list: &[u32]| leading_run(list.iter().copied(), 100);
        assert_eq!(run(&[7, 8, 9, 11]), Extent::Blocks(Run { start: 7, len: 3 }));
        assert_eq!(run(&[0, 0, 5]), Extent::Hole(2));
    }
}
