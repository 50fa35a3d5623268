//! Nodes of an extent tree ("Extent Tree" in the kernel documentation's `filesystems/ext4`): a header, then entries in the
//! order of their first logical block. In a leaf they are extents, elsewhere they lead to nodes of the next level.

use alloc::vec::Vec;

use crate::errno::{Errno, Result};

const MAGIC: u16 = 0xf30a;
pub const HEADER: usize = 12;
const ENTRY: usize = 12;
/// Levels below the root. With four entries in the smallest node there cannot be more for 2^32 blocks.
const MAX_DEPTH: u16 = 5;
/// Blocks of an extent at most. A length above that says: so many less, and never written.
pub const MAX_LEN: u32 = 32_768;
pub const MAX_UNWRITTEN: u32 = MAX_LEN - 1;

/// Consecutive blocks of a file on consecutive blocks of the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Block of the file.
    pub first: u32,
    pub len: u32,
    /// Block of the device.
    pub start: u32,
    /// Allocated, and to be read as zeros.
    pub unwritten: bool,
}

impl Extent {
    pub fn end(&self) -> u64 {
        u64::from(self.first) + u64::from(self.len)
    }

    pub fn contains(&self, block: u64) -> bool {
        u64::from(self.first) <= block && block < self.end()
    }

    /// The part from block `from` of the file on.
    pub fn tail(&self, from: u64) -> Extent {
        let skip = from.saturating_sub(self.first.into()) as u32;
        Extent { first: self.first + skip, len: self.len - skip, start: self.start + skip, ..*self }
    }

    /// The part before block `to` of the file.
    pub fn head(&self, to: u64) -> Extent {
        Extent { len: (to - u64::from(self.first)).min(self.len.into()) as u32, ..*self }
    }

    /// The two as one, if they are neighbours on both sides.
    pub fn join(&self, next: &Extent) -> Option<Extent> {
        let max = if self.unwritten { MAX_UNWRITTEN } else { MAX_LEN };
        let neighbours = self.end() == next.first.into()
            && self.start.checked_add(self.len) == Some(next.start)
            && self.unwritten == next.unwritten
            && self.len + next.len <= max;
        neighbours.then(|| Extent { len: self.len + next.len, ..*self })
    }
}

/// An entry of a node that is no leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Child {
    /// The first block of the file that may be below.
    pub first: u32,
    /// Block of the device.
    pub block: u32,
}

/// A node in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TreeNode {
    /// Levels below.
    pub depth: u16,
    pub entries: Entries,
    /// Entries that there is room for.
    pub room: usize,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entries {
    Extents(Vec<Extent>),
    Children(Vec<Child>),
}

impl Entries {
    pub fn len(&self) -> usize {
        match self {
            Entries::Extents(list) => list.len(),
            Entries::Children(list) => list.len(),
        }
    }

    pub fn first(&self) -> Option<u32> {
        match self {
            Entries::Extents(list) => list.first().map(|extent| extent.first),
            Entries::Children(list) => list.first().map(|child| child.first),
        }
    }

    /// Cuts the entries from `at` on off.
    pub fn split_off(&mut self, at: usize) -> Entries {
        match self {
            Entries::Extents(list) => Entries::Extents(list.split_off(at.min(list.len()))),
            Entries::Children(list) => Entries::Children(list.split_off(at.min(list.len()))),
        }
    }
}

fn half(data: &[u8], at: usize) -> Result<u16> {
    let bytes = data.get(at..at + 2).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u16::from_le_bytes).ok_or(Errno::EIO)
}

fn word(data: &[u8], at: usize) -> Result<u32> {
    let bytes = data.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u32::from_le_bytes).ok_or(Errno::EIO)
}

/// Entries that a node of so many bytes has room for; in a block there is a checksum behind them, or place for one.
pub fn room_in(len: usize) -> usize {
    (len - HEADER) / ENTRY
}

/// Of a list in the order of their keys, the last that begins at `block` or before.
pub fn position(keys: impl Fn(usize) -> u32, len: usize, block: u64) -> Option<usize> {
    let (mut low, mut high) = (0, len);
    while low < high {
        let middle = (low + high) / 2;
        if u64::from(keys(middle)) <= block {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low.checked_sub(1)
}

/// What a node knows of a block: the entry that it would be in or below, if there is one.
pub enum Entry {
    Extent(Option<Extent>),
    Child(Option<Child>),
}

/// Looks for a block in a node: its depth, the entry, and where the next entry begins.
pub fn search(data: &[u8], depth: Option<u16>, block: u64) -> Result<(u16, Entry, Option<u32>)> {
    let (count, found) = check(data, depth)?;
    let place = |index: usize| HEADER + index * ENTRY;
    let key = |index: usize| word(data, place(index)).unwrap_or(u32::MAX);
    let at = position(key, count, block);
    let entry = match found {
        0 => Entry::Extent(at.map(|at| decode_extent(data, place(at))).transpose()?),
        _ => Entry::Child(at.map(|at| decode_child(data, place(at))).transpose()?),
    };
    let next = at.map_or(0, |at| at + 1);
    Ok((found, entry, (next < count).then(|| key(next))))
}

/// Number of entries and depth of a node whose header is sound.
fn check(data: &[u8], depth: Option<u16>) -> Result<(usize, u16)> {
    let (count, max, found) = (half(data, 2)?, half(data, 4)?, half(data, 6)?);
    let sound = half(data, 0)? == MAGIC
        && found <= MAX_DEPTH
        && depth.is_none_or(|depth| depth == found)
        && count <= max
        && usize::from(max) <= room_in(data.len());
    if sound { Ok((count.into(), found)) } else { Err(Errno::EIO) }
}

/// What a node consists of; EIO if it keeps not to the rules: entries in order that do not overlap, not too many of them.
pub fn decode(data: &[u8], depth: Option<u16>) -> Result<TreeNode> {
    let (count, found) = check(data, depth)?;
    let places = (0..count).map(|index| HEADER + index * ENTRY);
    let entries = if found == 0 {
        let mut list: Vec<Extent> = Vec::with_capacity(count);
        for at in places {
            let extent = decode_extent(data, at)?;
            if list.last().is_some_and(|last| last.end() > extent.first.into()) {
                return Err(Errno::EIO);
            }
            list.push(extent);
        }
        Entries::Extents(list)
    } else {
        let mut list: Vec<Child> = Vec::with_capacity(count);
        for at in places {
            let child = decode_child(data, at)?;
            if list.last().is_some_and(|last| last.first >= child.first) {
                return Err(Errno::EIO);
            }
            list.push(child);
        }
        Entries::Children(list)
    };
    Ok(TreeNode { depth: found, entries, room: half(data, 4)?.into() })
}

fn decode_child(data: &[u8], at: usize) -> Result<Child> {
    let child = Child { first: word(data, at)?, block: word(data, at + 4)? };
    // Blocks behind 2^32 are not for us.
    if half(data, at + 8)? == 0 { Ok(child) } else { Err(Errno::EIO) }
}

fn decode_extent(data: &[u8], at: usize) -> Result<Extent> {
    let len = u32::from(half(data, at + 4)?);
    let unwritten = len > MAX_LEN;
    let len = if unwritten { len - MAX_LEN } else { len };
    let extent = Extent { first: word(data, at)?, len, start: word(data, at + 8)?, unwritten };
    let end = u64::from(extent.start) + u64::from(len);
    let sound = len > 0 && extent.end() <= 1 << 32 && end <= 1 << 32 && half(data, at + 6)? == 0;
    if sound { Ok(extent) } else { Err(Errno::EIO) }
}

/// Writes a node. What is behind its entries stays.
pub fn encode(node: &TreeNode, data: &mut [u8]) {
    let count = node.entries.len();
    let Some(bytes) = data.get_mut(..HEADER + count * ENTRY) else { return };
    bytes[..2].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[2..4].copy_from_slice(&(count as u16).to_le_bytes());
    bytes[4..6].copy_from_slice(&(node.room as u16).to_le_bytes());
    bytes[6..8].copy_from_slice(&node.depth.to_le_bytes());
    // The generation, which nobody looks at, is zero.
    bytes[8..HEADER].fill(0);
    let slots = bytes[HEADER..].chunks_exact_mut(ENTRY);
    match &node.entries {
        Entries::Extents(list) => slots.zip(list).for_each(|(slot, extent)| {
            let len = extent.len + if extent.unwritten { MAX_LEN } else { 0 };
            slot[..4].copy_from_slice(&extent.first.to_le_bytes());
            slot[4..6].copy_from_slice(&(len as u16).to_le_bytes());
            slot[6..8].fill(0);
            slot[8..].copy_from_slice(&extent.start.to_le_bytes());
        }),
        Entries::Children(list) => slots.zip(list).for_each(|(slot, child)| {
            slot[..4].copy_from_slice(&child.first.to_le_bytes());
            slot[4..8].copy_from_slice(&child.block.to_le_bytes());
            slot[8..].fill(0);
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(first: u32, len: u32, start: u32) -> Extent {
        Extent { first, len, start, unwritten: false }
    }

    #[test]
    fn what_is_written_is_read() {
        let unwritten = Extent { unwritten: true, ..extent(40_000, MAX_UNWRITTEN, 77) };
        let entries = Entries::Extents(vec![extent(0, MAX_LEN, 100), unwritten, extent(u32::MAX, 1, 9)]);
        let node = TreeNode { depth: 0, entries, room: 4 };
        let mut data = [0; 60];
        encode(&node, &mut data);
        assert_eq!(decode(&data, Some(0)).unwrap(), node);
        assert_eq!(decode(&data, Some(1)).err(), Some(Errno::EIO));
        let entries = Entries::Children(vec![Child { first: 0, block: 5 }, Child { first: 9, block: 6 }]);
        let node = TreeNode { depth: 2, entries, room: 4 };
        encode(&node, &mut data);
        assert_eq!(decode(&data, None).unwrap(), node);
    }

    #[test]
    fn nonsense_is_refused() {
        let refused = |list: Vec<Extent>| {
            let mut data = [0; 60];
            encode(&TreeNode { depth: 0, entries: Entries::Extents(list), room: 4 }, &mut data);
            decode(&data, None).is_err()
        };
        assert!(!refused(vec![extent(0, 5, 10), extent(5, 5, 20)]));
        assert!(refused(vec![extent(0, 6, 10), extent(5, 5, 20)]));
        assert!(refused(vec![extent(7, 1, 10), extent(5, 1, 20)]));
        assert!(refused(vec![extent(7, 0, 10)]));
        assert!(refused(vec![extent(u32::MAX, 2, 10)]));
        assert!(decode(&[0; 60], None).is_err());
    }

    #[test]
    fn the_last_key_that_is_not_behind_the_block_is_found() {
        let keys = [3, 7, 9];
        let find = |block| position(|index| keys[index], keys.len(), block);
        assert_eq!([find(0), find(2), find(3), find(6)], [None, None, Some(0), Some(0)]);
        assert_eq!([find(9), find(1 << 40)], [Some(2); 2]);
        assert_eq!(position(|_| 0, 0, 5), None);
    }

    #[test]
    fn neighbours_join() {
        assert_eq!(extent(0, 4, 10).join(&extent(4, 3, 14)), Some(extent(0, 7, 10)));
        assert_eq!(extent(0, 4, 10).join(&extent(4, 3, 15)), None);
        assert_eq!(extent(0, 4, 10).join(&extent(5, 3, 14)), None);
        assert_eq!(extent(0, MAX_LEN, 10).join(&extent(MAX_LEN, 1, 10 + MAX_LEN)), None);
        assert_eq!(extent(3, 4, 10).tail(5), extent(5, 2, 12));
        assert_eq!(extent(3, 4, 10).head(5), extent(3, 2, 10));
    }
}
