//! Putting extents into the tree and taking them out.
//!
//! Power may go between any two writes, and then what was synced must still be found. So a change is one write to one node
//! that is there already, or to the root in the inode; all others that it needs are new blocks, which are on the disk before
//! it ([`Buffer::modify_first`]). A node that is split keeps its place only if it loses nothing but what is new.

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
    /// What the node's first entry was.
    first: Option<u32>,
}

type Path = Vec<Level>;

/// What a change of the tree comes to, before anything is touched.
#[derive(Default)]
struct Plan {
    new: Vec<(Arc<Buffer>, TreeNode)>,
    /// The one node that changes in its place.
    changed: Option<Level>,
    /// Blocks of nodes that others take the place of.
    old: Vec<u32>,
}

impl Node {
    /// As `provide_blocks`, for an inode with extents.
    pub async fn provide_extent(self: &Arc<Self>, block: u64, want: u32, promised: bool) -> Result<(Run, bool)> {
        let gap = match self.here(block).await? {
            Here::Extent(extent) if extent.unwritten => {
                let run = self.write_unwritten(extent, block, want, promised).await?;
                return Ok((run, true));
            }
            Here::Extent(extent) => {
                let rest = extent.tail(block);
                let run = Run { start: rest.start, len: rest.len.min(want) };
                self.checked(super::Place::Blocks(run))?;
                return Ok((run, false));
            }
            Here::Gap(len) => len,
        };
        Ok((self.fill_hole(block, gap.min(want), promised).await?, true))
    }

    /// Where blocks that were allocated and never written are, from `block` of the file on.
    pub async fn unwritten_at(&self, block: u64, want: u32) -> Result<Option<Run>> {
        if !self.has_extents() {
            return Ok(None);
        }
        let Here::Extent(extent) = self.here(block).await? else { return Ok(None) };
        let rest = extent.tail(block);
        let run = Run { start: rest.start, len: rest.len.min(want) };
        if !extent.unwritten {
            return Ok(None);
        }
        self.checked(super::Place::Blocks(run))?;
        Ok(Some(run))
    }

    /// They have been written.
    pub async fn end_unwritten(self: &Arc<Self>, blocks: Range<u64>) -> Result<()> {
        let mut block = blocks.start;
        while block < blocks.end {
            let want = (blocks.end - block) as u32;
            let len = match self.here(block).await? {
                Here::Extent(extent) if extent.unwritten => self.write_unwritten(extent, block, want, true).await?.len,
                Here::Extent(extent) => extent.tail(block).len,
                Here::Gap(len) => len,
            };
            block += u64::from(len.min(want));
        }
        let kept = self.state.lock().reserved.remove(blocks);
        self.volume.groups.unreserve(kept);
        Ok(())
    }

    /// Makes ordinary blocks of the part of an unwritten extent that begins at `block`.
    async fn write_unwritten(self: &Arc<Self>, extent: Extent, block: u64, want: u32, promised: bool) -> Result<Run> {
        let part = Extent { unwritten: false, ..extent.tail(block).head(block + u64::from(want)) };
        self.checked(super::Place::Blocks(Run { start: part.start, len: part.len }))?;
        let pieces = [extent.head(block), part, extent.tail(part.end())];
        let mut path = self.path_to(block).await?;
        let at = replace(&mut path, extent, pieces.into_iter().filter(|piece| piece.len > 0))?;
        join_around(&mut path, at)?;
        self.store_path(path, part.start, promised).await?;
        Ok(Run { start: part.start, len: part.len })
    }

    /// Puts new blocks into a gap of the tree.
    pub async fn insert_run(self: &Arc<Self>, block: u64, run: Run, promised: bool) -> Result<()> {
        let new = Extent { first: block as u32, len: run.len, start: run.start, unwritten: false };
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
        let root = self.root_node()?;
        let mut path = vec![Level { buffer: None, first: root.entries.first(), node: root, slot: 0 }];
        while let Some(level) = path.last_mut() {
            let Entries::Children(list) = &level.node.entries else { break };
            // A block before all others belongs to the first.
            level.slot = position(|index| list[index].first, list.len(), block).unwrap_or(0);
            let Some(child) = list.get(level.slot) else { return self.bad_tree() };
            let (buffer, node) = self.tree_node(child.block, level.node.depth - 1).await?;
            path.push(Level { buffer: Some(buffer), first: node.entries.first(), node, slot: 0 });
        }
        Ok(path)
    }

    /// Writes the nodes of a path whose leaf has changed, in as many nodes as it takes.
    async fn store_path(self: &Arc<Self>, path: Path, goal: u32, promised: bool) -> Result<()> {
        let mut plan = Plan::default();
        if let Err(errno) = self.plan(path, goal, promised, &mut plan).await {
            for (buffer, _) in plan.new {
                self.give_back(buffer.block).await?;
            }
            return Err(errno);
        }
        let generation = self.state.lock().generation;
        let seal = self.volume.sums.extents(self.ino, generation);
        for (buffer, node) in &plan.new {
            buffer.modify_first(seal, |data| format::encode(node, data));
        }
        if let Some(Level { buffer, node, .. }) = &plan.changed {
            match buffer {
                None => self.update(|state| set_root(state, node)),
                Some(buffer) => buffer.modify(|data| format::encode(node, data)),
            }
        }
        for block in plan.old {
            self.give_back(block).await?;
        }
        Ok(())
    }

    /// Goes from the leaf up to the node that can change in its place, and allocates nodes for what is below.
    async fn plan(self: &Arc<Self>, mut path: Path, goal: u32, promised: bool, plan: &mut Plan) -> Result<()> {
        while let Some(mut level) = path.pop() {
            let full = level.node.entries.len() > level.node.room;
            let Some(buffer) = level.buffer.clone() else {
                if full {
                    self.deepen(&mut level.node, goal, promised, plan).await?;
                }
                plan.changed = Some(level);
                return Ok(());
            };
            // Its first entry is the key by which it is found.
            if !full && level.node.entries.first() == level.first {
                plan.changed = Some(level);
                return Ok(());
            }
            let Some(Level { node: TreeNode { entries: Entries::Children(above), .. }, slot, .. }) = path.last_mut()
            else {
                return self.bad_tree();
            };
            let right = full.then(|| split(&mut level)).map(|entries| TreeNode { entries, ..level.node.clone() });
            let kept = |data: &[u8]| format::decode(data, None).is_ok_and(|was| was.entries == level.node.entries);
            let same = full && buffer.with(kept);
            let nodes = [(!same).then_some(level.node), right];
            if !same {
                plan.old.push(buffer.block);
                above.remove(*slot);
            }
            let from = if same { *slot + 1 } else { *slot };
            for (at, node) in (from..).zip(nodes.into_iter().flatten()) {
                above.insert(at, self.plan_node(node, goal, promised, plan).await?);
            }
        }
        self.bad_tree()
    }

    /// A new node, and what leads to it.
    async fn plan_node(
        self: &Arc<Self>,
        mut node: TreeNode,
        goal: u32,
        promised: bool,
        plan: &mut Plan,
    ) -> Result<Child> {
        let buffer = self.new_node(goal, promised).await?;
        let child = Child { first: node.entries.first().unwrap_or(0), block: buffer.block };
        node.room = format::room_in(self.volume.layout.block_size);
        plan.new.push((buffer, node));
        Ok(child)
    }

    /// The root's entries move into a node of their own.
    async fn deepen(self: &Arc<Self>, root: &mut TreeNode, goal: u32, promised: bool, plan: &mut Plan) -> Result<()> {
        let child = self.plan_node(root.clone(), goal, promised, plan).await?;
        *root = TreeNode { depth: root.depth + 1, entries: Entries::Children(vec![child]), room: ROOT_ROOM };
        Ok(())
    }

    /// A new block for a node whose first entry changes: the key that leads to it changes as well, which is another write.
    async fn replace_node(self: &Arc<Self>, node: &TreeNode, goal: u32) -> Result<u32> {
        let buffer = self.new_node(goal, false).await?;
        let generation = self.state.lock().generation;
        let seal = self.volume.sums.extents(self.ino, generation);
        buffer.modify_first(seal, |data| format::encode(node, data));
        Ok(buffer.block)
    }

    async fn give_back(self: &Arc<Self>, block: u32) -> Result<()> {
        let volume = &self.volume;
        self.update(|state| state.sectors = state.sectors.saturating_sub(volume.layout.sectors_per_block()));
        volume.free_run(Run { start: block, len: 1 }).await
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
                // A tree in which nodes are shared would lead on for years.
                let found = if freed.sees(child.block) {
                    self.bad_tree()
                } else {
                    self.tree_node(child.block, depth - 1).await
                };
                let (buffer, mut below) = match found {
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
                if below.entries.first() != before.entries.first()
                    && let Ok(block) = self.replace_node(&below, child.block).await
                {
                    list[at].block = block;
                    freed.metadata(child.block);
                } else if below != before {
                    // Without space for another, punching must not fail.
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

/// Takes the second part of a node's entries out.
fn split(level: &mut Level) -> Entries {
    let (len, room) = (level.node.entries.len(), level.node.room);
    // Files mostly grow at their end: then what is there stays together.
    let middle = if level.slot + 2 >= len { room.min(len - 1) } else { len / 2 };
    level.node.entries.split_off(middle)
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
