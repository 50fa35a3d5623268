//! Putting extents into the tree and taking them out.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::pin::Pin;

use super::super::buffers::Buffer;
use super::super::groups::Run;
use super::super::map::Freed;
use super::super::node::Node;
use super::find::Here;
use super::format::{self, Child, Entries, Extent, TreeNode, position};
use super::{ROOT_ROOM, set_root};
use crate::errno::{Errno, Result};
use crate::exec;

/// A node on the way from the root to a leaf.
struct Level {
    /// None: the root, which is in the inode.
    buffer: Option<Arc<Buffer>>,
    node: TreeNode,
    /// Which of the node's entries leads on.
    slot: usize,
}

type Path = Vec<Level>;

/// Takes the nodes that a change needs from what was allocated for it.
struct Spare(Vec<Arc<Buffer>>);

impl Spare {
    fn take(&mut self) -> Result<Arc<Buffer>> {
        self.0.pop().ok_or(Errno::EIO)
    }
}

impl Node {
    /// As `provide_blocks`, for an inode with extents.
    pub async fn provide_extent(self: &Arc<Self>, block: u64, want: u32, promised: bool) -> Result<(Run, bool)> {
        let gap = match self.here(block).await? {
            Here::Extent(extent) if extent.unwritten => {
                return self.begin_to_write(extent, block, want, promised).await;
            }
            Here::Extent(extent) => {
                let rest = extent.tail(block);
                let run = Run { start: rest.start, len: rest.len.min(want) };
                self.checked(super::Place::Blocks(run))?;
                return Ok((run, false));
            }
            Here::Gap(len) => len,
        };
        let run = self.allocate(block, gap.min(want).min(format::MAX_LEN), promised).await?;
        let new = Extent { first: block as u32, len: run.len, start: run.start, unwritten: false };
        if let Err(errno) = self.insert_extent(new, promised).await {
            self.volume.groups.free_run(&self.volume.layout, &self.volume.buffers, run).await?;
            return Err(errno);
        }
        self.took(block, run);
        Ok((run, true))
    }

    /// Makes ordinary blocks of the part of an unwritten extent that begins at `block`.
    async fn begin_to_write(
        self: &Arc<Self>,
        extent: Extent,
        block: u64,
        want: u32,
        promised: bool,
    ) -> Result<(Run, bool)> {
        let part = Extent { unwritten: false, ..extent.tail(block).head(block + u64::from(want)) };
        self.checked(super::Place::Blocks(Run { start: part.start, len: part.len }))?;
        let pieces = [extent.head(block), part, extent.tail(part.end())];
        let mut path = self.path_to(block).await?;
        let at = replace(&mut path, extent, pieces.into_iter().filter(|piece| piece.len > 0))?;
        join_around(&mut path, at)?;
        self.store_path(path, part.start, promised).await?;
        Ok((Run { start: part.start, len: part.len }, true))
    }

    async fn insert_extent(self: &Arc<Self>, new: Extent, promised: bool) -> Result<()> {
        let mut path = self.path_to(new.first.into()).await?;
        let at = {
            let list = leaf(&mut path)?;
            let at = position(|index| list[index].first, list.len(), new.first.into()).map_or(0, |at| at + 1);
            list.insert(at, new);
            at
        };
        join_around(&mut path, at)?;
        self.store_path(path, new.start + new.len, promised).await
    }

    /// The nodes that lead to where `block` is or would be.
    async fn path_to(&self, block: u64) -> Result<Path> {
        let mut path = vec![Level { buffer: None, node: self.root_node()?, slot: 0 }];
        while let Some(level) = path.last_mut() {
            let Entries::Children(list) = &level.node.entries else { break };
            // A block before all others belongs to the first.
            level.slot = position(|index| list[index].first, list.len(), block).unwrap_or(0);
            let Some(child) = list.get(level.slot) else { return self.bad_tree() };
            let (buffer, node) = self.tree_node(child.block, level.node.depth - 1).await?;
            path.push(Level { buffer: Some(buffer), node, slot: 0 });
        }
        Ok(path)
    }

    /// Writes the nodes of a path whose leaf has changed, in as many nodes as it takes.
    async fn store_path(self: &Arc<Self>, mut path: Path, goal: u32, promised: bool) -> Result<()> {
        let mut spare = self.spare_nodes(&path, goal, promised).await?;
        let mut at = path.len() - 1;
        loop {
            let level = &mut path[at];
            if level.node.entries.len() <= level.node.room {
                self.write_level(level);
                let first = level.node.entries.first();
                let Some(above) = at.checked_sub(1) else { return Ok(()) };
                // Each node's key is where its first entry begins.
                let level = &mut path[above];
                if let (Entries::Children(list), Some(first)) = (&mut level.node.entries, first) {
                    list[level.slot].first = first;
                }
                at = above;
            } else if at == 0 {
                self.deepen(&mut path, spare.take()?);
                at = 1;
            } else {
                self.split(&mut path, at, spare.take()?)?;
                at -= 1;
            }
        }
    }

    /// Allocates the nodes that storing the path will take.
    async fn spare_nodes(self: &Arc<Self>, path: &Path, goal: u32, promised: bool) -> Result<Spare> {
        let mut spare = Spare(Vec::new());
        let mut overflows = path
            .iter()
            .rev()
            .enumerate()
            .take_while(|(below, level)| level.node.entries.len() + usize::from(*below > 0) > level.node.room);
        let needed = overflows.by_ref().count();
        for _ in 0..needed {
            match self.new_indirect(goal, promised).await {
                Ok(buffer) => spare.0.push(buffer),
                Err(errno) => {
                    for buffer in spare.0 {
                        self.give_back(&buffer).await?;
                    }
                    return Err(errno);
                }
            }
        }
        let generation = self.state.lock().generation;
        for buffer in &spare.0 {
            buffer.set_seal(self.volume.sums.extents(self.ino, generation));
        }
        Ok(spare)
    }

    async fn give_back(self: &Arc<Self>, buffer: &Buffer) -> Result<()> {
        let volume = &self.volume;
        volume.buffers.forget(buffer.block).await;
        self.update(|state| state.sectors = state.sectors.saturating_sub(volume.layout.sectors_per_block()));
        volume.groups.free_run(&volume.layout, &volume.buffers, Run { start: buffer.block, len: 1 }).await
    }

    fn write_level(self: &Arc<Self>, level: &Level) {
        match &level.buffer {
            None => self.update(|state| set_root(state, &level.node)),
            Some(buffer) => buffer.modify(|data| format::encode(&level.node, data)),
        }
    }

    /// The root's entries move into a node of their own.
    fn deepen(&self, path: &mut Path, buffer: Arc<Buffer>) {
        let root = &mut path[0];
        let child = Child { first: root.node.entries.first().unwrap_or(0), block: buffer.block };
        let above = TreeNode { depth: root.node.depth + 1, entries: Entries::Children(vec![child]), room: ROOT_ROOM };
        let mut below = core::mem::replace(&mut root.node, above);
        below.room = format::room_in(self.volume.layout.block_size);
        let slot = core::mem::take(&mut root.slot);
        path.insert(1, Level { buffer: Some(buffer), node: below, slot });
    }

    /// The second part of a node's entries moves into a new one behind it.
    fn split(self: &Arc<Self>, path: &mut Path, at: usize, buffer: Arc<Buffer>) -> Result<()> {
        let level = &mut path[at];
        let (len, room) = (level.node.entries.len(), level.node.room);
        // Files mostly grow at their end: then what is there stays together.
        let middle = if level.slot + 2 >= len { room.min(len - 1) } else { len / 2 };
        let entries = level.node.entries.split_off(middle);
        let right = TreeNode { depth: level.node.depth, entries, room: format::room_in(self.volume.layout.block_size) };
        let child = Child { first: right.entries.first().ok_or(Errno::EIO)?, block: buffer.block };
        buffer.modify(|data| format::encode(&right, data));
        self.write_level(level);
        let first = level.node.entries.first();
        let above = &mut path[at - 1];
        let Entries::Children(list) = &mut above.node.entries else { return Err(Errno::EIO) };
        if let Some(first) = first {
            list[above.slot].first = first;
        }
        list.insert(above.slot + 1, child);
        Ok(())
    }

    /// As `free_blocks`, for an inode with extents.
    pub async fn free_extents(self: &Arc<Self>, range: Range<u64>) -> Result<()> {
        self.update(|state| state.goal = (0, 0));
        let mut freed = Freed::default();
        if let Here::Extent(extent) = self.here(range.start).await?
            && u64::from(extent.first) < range.start
            && range.end < extent.end()
        {
            // The only case in which there are more extents afterwards.
            let mut path = self.path_to(range.start).await?;
            let pieces = [extent.head(range.start), extent.tail(range.end)];
            replace(&mut path, extent, pieces.into_iter())?;
            self.store_path(path, extent.start, false).await?;
            let hole = extent.tail(range.start).head(range.end);
            freed.run(Run { start: hole.start, len: hole.len });
            return self.release(freed).await;
        }
        let mut root = self.root_node()?;
        let result = self.prune_node(&mut root, &range, &mut freed).await;
        if root.entries.len() == 0 {
            root = TreeNode { depth: 0, entries: Entries::Extents(Vec::new()), room: ROOT_ROOM };
        }
        self.update(|state| set_root(state, &root));
        self.release(freed).await?;
        result
    }

    /// Takes what is in `range` out of a node and of all below it. Even if it fails, what was freed has left the tree.
    fn prune_node<'a>(
        self: &'a Arc<Self>,
        node: &'a mut TreeNode,
        range: &'a Range<u64>,
        freed: &'a mut Freed,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>> {
        Box::pin(async move {
            exec::budget().await;
            if freed.count > u64::from(self.volume.layout.blocks) {
                // A tree in which nodes are shared would lead on for years.
                return self.bad_tree();
            }
            let depth = node.depth;
            let list = match &mut node.entries {
                Entries::Extents(list) => {
                    prune_extents(list, range, freed);
                    return Ok(());
                }
                Entries::Children(list) => list,
            };
            let mut at = 0;
            let mut result = Ok(());
            while let Some(&child) = list.get(at) {
                let end = list.get(at + 1).map_or(1 << 32, |next| u64::from(next.first));
                if u64::from(child.first) >= range.end || result.is_err() {
                    break;
                }
                if end <= range.start {
                    at += 1;
                    continue;
                }
                let (buffer, mut below) = match self.tree_node(child.block, depth - 1).await {
                    Ok(found) => found,
                    Err(errno) => {
                        result = Err(errno);
                        break;
                    }
                };
                let before = below.clone();
                result = self.prune_node(&mut below, range, freed).await;
                match below.entries.first() {
                    None => {
                        freed.metadata(child.block);
                        list.remove(at);
                        continue;
                    }
                    Some(first) => list[at].first = first,
                }
                if below != before {
                    buffer.modify(|data| format::encode(&below, data));
                }
                at += 1;
            }
            result
        })
    }
}

/// Takes the blocks in `range` out of the extents of a leaf; of no extent is a part left on both sides.
fn prune_extents(list: &mut Vec<Extent>, range: &Range<u64>, freed: &mut Freed) {
    list.retain_mut(|extent| {
        let (first, end) = (u64::from(extent.first), extent.end());
        if end <= range.start || first >= range.end {
            return true;
        }
        let hole = extent.tail(range.start.max(first)).head(range.end.min(end));
        freed.run(Run { start: hole.start, len: hole.len });
        if first < range.start {
            *extent = extent.head(range.start);
        } else if end > range.end {
            *extent = extent.tail(range.end);
        } else {
            return false;
        }
        true
    });
}

fn leaf(path: &mut Path) -> Result<&mut Vec<Extent>> {
    match path.last_mut().map(|level| &mut level.node.entries) {
        Some(Entries::Extents(list)) => Ok(list),
        _ => Err(Errno::EIO),
    }
}

/// Puts other extents in the place of one; answers which the first of them is.
fn replace(path: &mut Path, old: Extent, new: impl Iterator<Item = Extent>) -> Result<usize> {
    let list = leaf(path)?;
    let at = list.iter().position(|extent| *extent == old).ok_or(Errno::EIO)?;
    list.splice(at..at + 1, new);
    Ok(at)
}

/// Joins neighbours from the extent before `at` on, and notes where the change was.
fn join_around(path: &mut Path, at: usize) -> Result<()> {
    let list = leaf(path)?;
    let mut left = at.saturating_sub(1);
    while left < at + 3 {
        let (Some(one), Some(next)) = (list.get(left), list.get(left + 1)) else { break };
        match one.join(next) {
            Some(joined) => {
                list[left] = joined;
                list.remove(left + 1);
            }
            None => left += 1,
        }
    }
    if let Some(level) = path.last_mut() {
        level.slot = at;
    }
    Ok(())
}
