//! The map of an inode with extents: a tree whose root is in place of the block pointers.
//!
//! [`mod@format`] is what a node looks like, `find` looks one block up, `change` puts extents in and takes them out. The
//! caller holds the inode's `map_lock` as for block pointers (`map`).
//!
//! A change that needs new nodes allocates them before it touches anything, so that a full disk leaves the tree as it was.
//! Extents that were allocated and never written (fallocate(2) of Linux) read as holes; blocks of them become ordinary ones
//! when they have been written.

mod change;
mod find;
pub mod format;

use alloc::sync::Arc;

use self::format::{Entries, TreeNode};
use super::buffers::Buffer;
use super::groups::Run;
use super::layout::inode_flags;
use super::map::Extent as Place;
use super::node::{Node, NodeState, POINTERS};
use crate::errno::{Errno, Result};

/// Entries in the root.
const ROOT_ROOM: usize = 4;

/// The pointers of an inode as bytes.
fn root_bytes(block: &[u32; POINTERS]) -> [u8; POINTERS * 4] {
    let mut bytes = [0; POINTERS * 4];
    bytes.as_chunks_mut::<4>().0.iter_mut().zip(block).for_each(|(to, from)| *to = from.to_le_bytes());
    bytes
}

fn set_root(state: &mut NodeState, node: &TreeNode) {
    let mut bytes = root_bytes(&state.block);
    format::encode(node, &mut bytes);
    for (to, from) in state.block.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *to = u32::from_le_bytes(*from);
    }
}

/// Makes an empty tree of an inode's pointers.
pub fn plant(state: &mut NodeState) {
    state.flags |= inode_flags::EXTENTS;
    state.block = [0; POINTERS];
    set_root(state, &TreeNode { depth: 0, entries: Entries::Extents(Default::default()), room: ROOT_ROOM });
}

impl Node {
    pub fn has_extents(&self) -> bool {
        self.state.lock().flags & inode_flags::EXTENTS != 0
    }

    fn bad_tree<T>(&self) -> Result<T> {
        self.volume.corrupt(format_args!("the extents of inode {} make no sense", self.ino));
        Err(Errno::EIO)
    }

    fn root_node(&self) -> Result<TreeNode> {
        let bytes = root_bytes(&self.state.lock().block);
        format::decode(&bytes, None).or_else(|_| self.bad_tree())
    }

    async fn tree_block(&self, block: u32) -> Result<Arc<Buffer>> {
        self.checked(Place::Blocks(Run { start: block, len: 1 }))?;
        let generation = self.state.lock().generation;
        let seal = self.volume.sums.extents(self.ino, generation);
        match self.volume.buffers.read_sealed(block, seal).await? {
            Some(buffer) => Ok(buffer),
            None => self.bad_tree(),
        }
    }

    /// A node below the root, so many levels above the leaves.
    async fn tree_node(&self, block: u32, depth: u16) -> Result<(Arc<Buffer>, TreeNode)> {
        let buffer = self.tree_block(block).await?;
        let node = buffer.with(|data| format::decode(data, Some(depth))).or_else(|_| self.bad_tree())?;
        Ok((buffer, node))
    }
}
