//! Directories: blocks of variable-length entries, with an index of all names in memory.
//!
//! The index is built by the first use of a directory and maps a name's hash to its place, so that neither a look-up
//! nor an insertion reads the whole directory. Entries never move once written (removal widens the entry before), so
//! places stay valid. On disk the directory is linear; a hash tree made by others is left behind (its flag cleared) by
//! the first change, which is what Linux's ext2 does.
//!
//! Changes of one directory are serialised by `Node::names_lock`, which `names` holds; look-ups are not, and check
//! what they find.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use smallvec::SmallVec;

use super::buffers::Buffer;
use super::checksum::Seal;
use super::dirent::{self, Entry, entries, room_of};
use super::layout::{NAME_MAX, inode_flags};
use super::map::Extent;
use super::node::Node;
use crate::errno::{Errno, Result};
use crate::exec;
use crate::fs::inode::{DirSink, FileType};

/// Where an entry is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    pub(super) hash: u32,
    /// Block of the directory, from 0.
    pub(super) block: u32,
    /// Byte in that block.
    pub(super) offset: u16,
}

pub(super) struct DirBlock {
    /// Block of the device; 0 for a hole.
    pub(super) device: u32,
    /// Bytes of the longest entry that fits.
    pub(super) room: u16,
    /// It has no room as long as the names that have gone are on the disk; when ([`super::order::Order::period`]).
    pub(super) full_in: u32,
}

impl DirBlock {
    pub(super) fn new(device: u32, room: u16) -> DirBlock {
        DirBlock { device, room, full_in: 0 }
    }
}

type Gone = BTreeSet<(u32, u32)>;

/// Position and block of the device.
pub(super) type GonePlaces = SmallVec<[(usize, u32); 1]>;

/// A block that may have room for a name.
pub(super) struct Candidate {
    pub position: usize,
    pub device: u32,
    /// The disk has the name there: it must not come anywhere else.
    pub only: bool,
}

pub struct DirIndex {
    pub(super) blocks: Vec<DirBlock>,
    /// By hash. A tree, because it must not need large pieces of memory.
    pub(super) places: BTreeSet<Place>,
    /// Entries that are there or being added, "." and ".." included.
    pub(super) live: usize,
    /// Removed: nothing can be added any more.
    pub(super) dead: bool,
    /// Names that have gone and may be on the disk: hash and block. What comes back comes into the same block, because a name in
    /// two is a question of e2fsck.
    gone: Gone,
    /// When they went ([`super::order::Order::period`]).
    gone_in: u32,
}

/// FNV-1a.
pub(super) fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |hash, &byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl DirIndex {
    fn new() -> DirIndex {
        let (places, gone) = (BTreeSet::new(), BTreeSet::new());
        DirIndex { blocks: Vec::new(), places, live: 0, dead: false, gone, gone_in: 0 }
    }

    /// The index of a directory that has just been made: "." and "..", in one block.
    pub fn fresh(device: u32, data: &[u8]) -> DirIndex {
        let mut index = DirIndex::new();
        // What was written a moment ago is sound.
        let _ = index.add_block(device, Some(data));
        index
    }

    fn add_block(&mut self, device: u32, data: Option<&[u8]>) -> Result<()> {
        let block = self.blocks.len() as u32;
        let Some(data) = data else {
            self.blocks.push(DirBlock::new(0, 0));
            return Ok(());
        };
        for entry in entries(data) {
            let entry = entry?;
            if entry.ino != 0 {
                self.insert(Place { hash: hash(entry.name(data)), block, offset: entry.offset as u16 });
                self.live += 1;
            }
        }
        self.blocks.push(DirBlock::new(device, room_of(data)));
        Ok(())
    }

    pub(super) fn insert(&mut self, place: Place) {
        self.places.insert(place);
    }

    pub(super) fn remove(&mut self, place: Place) {
        if self.places.remove(&place) {
            self.live -= 1;
        }
    }

    /// A name with this hash goes from a block. Answers what is to be dropped, which may be much.
    #[must_use]
    pub(super) fn add_gone(&mut self, hash: u32, block: u32, period: u32) -> Gone {
        let old = if self.gone_in == period { Gone::new() } else { core::mem::take(&mut self.gone) };
        self.gone_in = period;
        self.gone.insert((hash, block));
        old
    }

    /// It knows more than could be read again.
    pub(super) fn has_gone(&self, period: u32) -> bool {
        self.gone_in == period && !self.gone.is_empty()
    }

    /// Blocks that may have names with this hash that have gone: position and block of the device.
    pub(super) fn gone(&self, hash: u32, period: u32) -> GonePlaces {
        if self.gone.is_empty() || self.gone_in != period {
            return SmallVec::new();
        }
        let places = self.gone.range((hash, 0)..=(hash, u32::MAX));
        places.map(|&(_, block)| (block as usize, self.blocks[block as usize].device)).collect()
    }

    /// Where the name may be: places and blocks of the device.
    #[inline]
    fn candidates(&self, name: &[u8]) -> SmallVec<[(Place, u32); 2]> {
        let hash = hash(name);
        let first = Place { hash, block: 0, offset: 0 };
        let last = Place { hash, block: u32::MAX, offset: u16::MAX };
        let places = self.places.range(first..=last);
        places.map(|&place| (place, self.blocks[place.block as usize].device)).collect()
    }

    /// A block that can take so many bytes; without one, whether some can after a write-back.
    pub(super) fn candidate(&self, need: usize, period: u32) -> (Option<Candidate>, bool) {
        let has_room = |block: &DirBlock| usize::from(block.room) >= need;
        let found = self.blocks.iter().position(|block| has_room(block) && block.full_in != period);
        let blocked = found.is_none() && self.blocks.iter().any(has_room);
        (found.map(|position| Candidate { position, device: self.blocks[position].device, only: false }), blocked)
    }

    /// "Empty" is "." and ".." only; a directory found empty takes no new names from then on.
    fn bury(&mut self) -> bool {
        self.dead |= self.live <= 2;
        self.dead
    }
}

pub(super) enum DirBuffer {
    Leaf(Arc<Buffer>),
    /// A node of a hash tree.
    Inner(Arc<Buffer>),
}

/// What a name leads to.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    pub place: Place,
    pub ino: u32,
}

/// What the entry at this place leads to, if it has this name.
fn led_to(buffer: &Buffer, place: Place, name: &[u8]) -> Option<u32> {
    buffer.with(|data| {
        let entry = Entry::parse(data, place.offset.into())?;
        (entry.ino != 0 && entry.name(data) == name).then_some(entry.ino)
    })
}

impl Node {
    pub(super) fn with_index<R>(&self, f: impl FnOnce(&mut DirIndex) -> R) -> Result<R> {
        self.dir.lock().as_deref_mut().map(f).ok_or(Errno::EIO)
    }

    /// Reads the whole directory and makes its index, unless that has been done.
    pub async fn load_dir(&self) -> Result<()> {
        if self.kind != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        if self.dir.lock().is_some() {
            return Ok(());
        }
        let volume = &self.volume;
        let size = self.state.lock().size;
        let count = size / volume.layout.block_size as u64;
        if count > u64::from(volume.layout.blocks) {
            return self.broken_dir("size");
        }
        let mut device_blocks: Vec<u32> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut next = 0;
        {
            let _map = self.map_lock.read().await;
            while next < count {
                exec::budget().await;
                // A file system that is not sound, or has very much in one place: no reason to die of it.
                device_blocks.try_reserve(1 << 12).map_err(|_| Errno::ENOMEM)?;
                let max = (count - next).min(1 << 12) as u32;
                match self.lookup_block(next, max).await? {
                    Extent::Blocks(run) => {
                        let blocks = run.start..run.start + run.len;
                        if !blocks.clone().all(|block| seen.insert(block)) {
                            // The index would have as many names as somebody likes.
                            return self.broken_dir("map");
                        }
                        device_blocks.extend(blocks);
                    }
                    Extent::Hole(len) => device_blocks.extend(core::iter::repeat_n(0, len as usize)),
                }
                next = device_blocks.len() as u64;
            }
        }
        drop(seen);
        let area = volume.layout.dir_area();
        let mut index = DirIndex::new();
        let period = volume.order.period();
        index.blocks.try_reserve_exact(device_blocks.len()).map_err(|_| Errno::ENOMEM)?;
        for (position, &block) in device_blocks.iter().enumerate() {
            if position % 32 == 0 {
                let ahead = device_blocks[position..].iter().take(32);
                ahead.filter(|&&block| block != 0).for_each(|&block| volume.buffers.prefetch(block));
            }
            if block == 0 {
                index.add_block(0, None)?;
                continue;
            }
            exec::budget().await;
            let sound = match self.dir_block(block, position == 0).await? {
                DirBuffer::Leaf(buffer) => buffer.with_names(|data, before| {
                    // More than those that have gone does no harm.
                    for entry in before.into_iter().flat_map(|before| entries(&before[..area])).flatten() {
                        let name = before.map_or(&[][..], |before| entry.name(before));
                        drop(index.add_gone(hash(name), position as u32, period));
                    }
                    index.add_block(block, Some(&data[..area]))
                }),
                DirBuffer::Inner(buffer) if position == 0 => {
                    // The root of a hash tree: "." and "..", and no room for others.
                    let sound = buffer.with(|data| index.add_block(block, Some(data)));
                    sound.map(|()| index.blocks[0].room = 0)
                }
                DirBuffer::Inner(_) => {
                    index.blocks.push(DirBlock::new(block, 0));
                    Ok(())
                }
            };
            if sound.is_err() {
                return self.broken_dir("entry");
            }
        }
        let mut slot = self.dir.lock();
        if slot.is_none() {
            *slot = Some(Box::new(index));
        }
        Ok(())
    }

    /// A block of the directory, with the checksum that it should have.
    pub(super) async fn dir_block(&self, block: u32, first: bool) -> Result<DirBuffer> {
        let volume = &self.volume;
        if !volume.layout.features.metadata_csum() {
            return Ok(DirBuffer::Leaf(volume.buffers.read(block).await?));
        }
        let seal = self.dir_seal();
        let flags = self.state.lock().flags;
        if flags & inode_flags::INDEX != 0 {
            let buffer = volume.buffers.read(block).await?;
            // Nodes of the tree look like directory blocks without entries, and their checksums are elsewhere.
            let whole = volume.layout.block_size;
            let is_node = |data: &[u8]| Entry::parse(data, 0).is_some_and(|e| e.ino == 0 && e.rec_len == whole);
            if first || buffer.with(is_node) {
                return Ok(DirBuffer::Inner(buffer));
            }
        }
        match volume.buffers.read_sealed(block, seal).await? {
            Some(buffer) => Ok(DirBuffer::Leaf(buffer)),
            None => self.broken_dir("checksum"),
        }
    }

    pub(super) fn broken_dir<T>(&self, what: &str) -> Result<T> {
        self.volume.corrupt(format_args!("directory {} has a bad {what}", self.ino));
        Err(Errno::EIO)
    }

    pub async fn find_name(&self, name: &[u8]) -> Result<Option<Found>> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        self.load_dir().await?;
        for (place, device) in self.with_index(|index| index.candidates(name))? {
            let buffer = self.volume.buffers.read(device).await?;
            if let Some(ino) = led_to(&buffer, place, name) {
                return Ok(Some(Found { place, ino }));
            }
        }
        Ok(None)
    }

    /// The same with the block that the name is in, if all that has to be looked at is in memory.
    pub(super) fn find_now(&self, name: &[u8]) -> Option<Option<(Found, Arc<Buffer>)>> {
        for (place, device) in self.with_index(|index| index.candidates(name)).ok()? {
            let buffer = self.volume.buffers.cached(device)?;
            if let Some(ino) = led_to(&buffer, place, name) {
                return Some(Some((Found { place, ino }, buffer)));
            }
        }
        Some(None)
    }

    /// Whether this block of the directory, which is in memory, can be changed as it is: it has the checksum that it should have, and
    /// there is no hash tree.
    pub(super) fn is_linear(&self, buffer: &Buffer) -> bool {
        if self.state.lock().flags & inode_flags::INDEX != 0 {
            return false;
        }
        if !self.volume.layout.features.metadata_csum() {
            return true;
        }
        let seal = self.dir_seal();
        buffer.check_seal(seal, |data| seal.verify(data))
    }

    /// True if the directory holds nothing but "." and "..", in which case it takes no new names any more.
    pub async fn bury_if_empty(&self) -> Result<bool> {
        self.load_dir().await?;
        self.bury_if_loaded()
    }

    /// The same of a directory that has been loaded; EIO for others.
    pub(super) fn bury_if_loaded(&self) -> Result<bool> {
        self.with_index(DirIndex::bury)
    }

    /// Undoes [`Node::bury_if_empty`] when the removal failed.
    pub fn exhume(&self) {
        let _ = self.with_index(|index| index.dead = false);
    }

    /// The byte for the type in an entry; 0 on volumes that do not keep it there.
    pub(super) fn kind_byte(&self, kind: FileType) -> u8 {
        if self.volume.layout.file_type { dirent::type_byte(kind) } else { 0 }
    }

    pub(super) fn dir_seal(&self) -> Seal {
        let generation = self.state.lock().generation;
        self.volume.sums.directory(self.ino, generation)
    }

    /// Those of the device, if they are known.
    pub fn dir_blocks(&self) -> Vec<u32> {
        let blocks = self.with_index(|index| index.blocks.iter().map(|block| block.device).collect());
        blocks.map_or_else(|_| Vec::new(), |blocks: Vec<u32>| blocks.into_iter().filter(|block| *block != 0).collect())
    }

    /// Whether a directory that has been loaded may have the name, or have it on the disk.
    pub fn may_have(&self, name: &[u8]) -> bool {
        let (hash, period) = (hash(name), self.volume.order.period());
        let [first, last] = [(0, 0), (u32::MAX, u16::MAX)].map(|(block, offset)| Place { hash, block, offset });
        let has = |index: &mut DirIndex| {
            index.places.range(first..=last).next().is_some() || !index.gone(hash, period).is_empty()
        };
        self.with_index(has).unwrap_or(true)
    }

    /// The block of the device that a name is in.
    pub fn device_of(&self, place: Place) -> Result<u32> {
        self.with_index(|index| index.blocks[place.block as usize].device)
    }

    /// Offers entries from byte `cookie` of the directory on.
    pub async fn list(&self, cookie: u64, sink: &mut dyn DirSink) -> Result<()> {
        self.load_dir().await?;
        let (block_size, area) = (self.volume.layout.block_size as u64, self.volume.layout.dir_area());
        let mut position = (cookie / block_size) as usize;
        let mut from = (cookie % block_size) as usize;
        loop {
            let Some(device) = self.with_index(|index| index.blocks.get(position).map(|block| block.device))? else {
                return Ok(());
            };
            if device != 0 {
                // A copy, because the sink may have to touch user memory.
                let data: Vec<u8> = match self.dir_block(device, position == 0).await? {
                    DirBuffer::Leaf(buffer) => buffer.with(|data| data[..area].to_vec()),
                    DirBuffer::Inner(buffer) if position == 0 => buffer.with(<[u8]>::to_vec),
                    DirBuffer::Inner(_) => Vec::new(),
                };
                for entry in entries(&data) {
                    let Ok(entry) = entry else { return self.broken_dir("entry") };
                    if entry.ino == 0 || entry.offset < from {
                        continue;
                    }
                    // What is no name cannot be told from a path.
                    let name = entry.name(&data);
                    if name.is_empty() || name.contains(&b'/') {
                        return self.broken_dir("name");
                    }
                    let next = position as u64 * block_size + (entry.offset + entry.rec_len) as u64;
                    let kind = match dirent::file_type(entry.kind) {
                        Some(kind) => kind,
                        None => self.volume.kind_of(entry.ino).await?,
                    };
                    if !sink.entry(entry.ino.into(), next, kind, name) {
                        return Ok(());
                    }
                }
            }
            exec::budget().await;
            position += 1;
            from = 0;
        }
    }
}
