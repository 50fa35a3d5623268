//! Looking a block up.

use super::super::groups::Run;
use super::super::map::Extent as Place;
use super::super::node::Node;
use super::format::{self, Entry, Extent};
use super::root_bytes;
use crate::errno::Result;

/// What is at a block of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Here {
    Extent(Extent),
    /// Nothing, for at least so many blocks.
    Gap(u32),
}

/// A gap is at most so long that its length is a sound one.
fn gap(from: u64, to: u64) -> Here {
    Here::Gap((to - from).clamp(1, 1 << 30) as u32)
}

impl Node {
    /// What is at `block` of the file.
    pub(super) async fn here(&self, block: u64) -> Result<Here> {
        let root = root_bytes(&self.state.lock().block);
        let mut found = format::search(&root, None, block);
        // Where the part of the file that the node is about ends.
        let mut end = 1 << 32;
        loop {
            let Ok((depth, entry, next)) = found else { return self.bad_tree() };
            end = next.map_or(end, u64::from);
            match entry {
                Entry::Extent(Some(extent)) if extent.contains(block) => return Ok(Here::Extent(extent)),
                Entry::Extent(_) | Entry::Child(None) => return Ok(gap(block, end.max(block + 1))),
                Entry::Child(Some(child)) => {
                    let buffer = self.tree_block(child.block).await?;
                    found = buffer.with(|data| format::search(data, Some(depth - 1), block));
                }
            }
        }
    }

    /// As `lookup_block`, for an inode with extents.
    pub async fn lookup_extent(&self, block: u64, max: u32) -> Result<Place> {
        match self.here(block).await? {
            Here::Extent(extent) => {
                let rest = extent.tail(block);
                let len = rest.len.min(max);
                if extent.unwritten {
                    return Ok(Place::Hole(len));
                }
                self.checked(Place::Blocks(Run { start: rest.start, len }))
            }
            Here::Gap(len) => Ok(Place::Hole(len.min(max).max(1))),
        }
    }
}
