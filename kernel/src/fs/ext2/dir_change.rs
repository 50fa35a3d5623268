//! Changes of a directory: names that come, go, and lead elsewhere.
//!
//! Those that go may have to stay on the disk for a while ([`super::order`]). What comes meanwhile gets room that they do not
//! take.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::buffers::Buffer;
use super::checksum::{self, Seal};
use super::dir::{Candidate, DirBlock, DirBuffer, Found, GonePlaces, Place, hash};
use super::dirent::{self, Entry, room_of, space_for, write_entry};
use super::layout::{NAME_MAX, inode_flags};
use super::node::Node;
use crate::errno::{Errno, Result};
use crate::fs::inode::FileType;

/// What became of a name that was to come into a block.
pub(super) enum Added {
    There,
    /// The block has no room.
    Full,
    /// It has another inode's name on the disk, which may not get another one while a write-back copies.
    Taken,
}

/// Whose name goes.
#[derive(Clone, Copy)]
pub struct Removed {
    /// The disk may know the inode, and so the name.
    pub known: bool,
    /// The disk keeps the name until inodes have been written.
    pub later: bool,
    /// The inode has no other link.
    pub last: bool,
}

impl Node {
    /// Before the first change of a directory with a hash tree: the tree's nodes become blocks that are linear like the
    /// others, with the checksums of such.
    async fn make_linear(self: &Arc<Self>) -> Result<()> {
        if self.state.lock().flags & inode_flags::INDEX == 0 {
            return Ok(());
        }
        if self.volume.layout.features.metadata_csum() {
            let area = self.volume.layout.dir_area();
            let blocks: Vec<u32> = self.with_index(|index| index.blocks.iter().map(|block| block.device).collect())?;
            for (position, device) in blocks.into_iter().enumerate().filter(|(_, device)| *device != 0) {
                let DirBuffer::Inner(buffer) = self.dir_block(device, position == 0).await? else { continue };
                let room = buffer.modify_sealed(self.dir_seal(), |data| {
                    dirent::linear(data, position == 0, area);
                    checksum::write_dir_tail(data);
                    room_of(&data[..area])
                });
                self.with_index(|index| index.blocks[position].room = room)?;
            }
        }
        self.update(|state| state.flags &= !inode_flags::INDEX);
        Ok(())
    }

    /// The block of an entry that is going to change, in a linear directory.
    async fn dir_block_to_change(&self, device: u32) -> Result<Arc<Buffer>> {
        match self.dir_block(device, false).await? {
            DirBuffer::Leaf(buffer) | DirBuffer::Inner(buffer) => Ok(buffer),
        }
    }

    /// Adds a name that is not there yet.
    pub async fn add_name(self: &Arc<Self>, name: &[u8], ino: u32, kind: FileType) -> Result<()> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        self.load_dir().await?;
        self.make_linear().await?;
        let begun = self.with_index(|index| {
            index.live += usize::from(!index.dead);
            !index.dead
        })?;
        if !begun {
            return Err(Errno::ENOENT);
        }
        let result = self.add_name_somewhere(name, ino, kind).await;
        if result.is_err() {
            self.with_index(|index| index.live -= 1)?;
        }
        result
    }

    async fn add_name_somewhere(self: &Arc<Self>, name: &[u8], ino: u32, kind: FileType) -> Result<()> {
        let volume = &self.volume;
        let hash = hash(name);
        let mut waited = false;
        let mut removal = None;
        loop {
            let (gone, mut candidate, blocked) = self.with_index(|index| {
                let period = volume.order.period();
                let (candidate, blocked) = index.candidate(space_for(name.len()), period);
                (index.gone(hash, period), candidate, blocked)
            })?;
            if !gone.is_empty() {
                candidate = self.gone_place(name, gone).await?.or(candidate);
            }
            let mut wait = candidate.as_ref().is_some_and(|candidate| candidate.only);
            let (position, buffer) = match candidate {
                Some(Candidate { position, device, .. }) => (position, self.dir_block_to_change(device).await?),
                None => {
                    // What follows may wait for a write-back.
                    removal = None;
                    match self.grow_dir().await {
                        Err(Errno::ENOSPC) if blocked && !waited => {
                            waited = true;
                            volume.write_metadata().await.map_err(|_| Errno::ENOSPC)?;
                            continue;
                        }
                        grown => grown?,
                    }
                }
            };
            match self.put_name(position, &buffer, (name, hash, ino, kind), removal.is_some())? {
                Added::There => {
                    self.changed();
                    return Ok(());
                }
                Added::Taken => {
                    removal = Some(volume.order.removal.read().await);
                    wait = false;
                }
                Added::Full => {}
            }
            if wait {
                removal = None;
                if core::mem::replace(&mut waited, true) {
                    return Err(Errno::EIO);
                }
                // If that fails, the names have gone all the same.
                let _ = volume.write_metadata().await;
            }
        }
    }

    /// Which of these blocks the name has to come into: one that has it on the disk, as far as that is known.
    async fn gone_place(&self, name: &[u8], blocks: GonePlaces) -> Result<Option<Candidate>> {
        let area = self.volume.layout.dir_area();
        let mut place = blocks.first().copied();
        for &(position, device) in blocks.iter().filter(|_| blocks.len() > 1) {
            let buffer = self.dir_block_to_change(device).await?;
            let is_there = |before: &[u8]| dirent::find(&before[..area], name).is_some();
            if buffer.with_names(|_, before| before.is_some_and(is_there)) {
                place = Some((position, device));
            }
        }
        Ok(place.map(|(position, device)| Candidate { position, device, only: true }))
    }

    /// `safe`: [`super::order::Order::removal`] is held.
    pub(super) fn put_name(
        &self,
        position: usize,
        buffer: &Buffer,
        entry: (&[u8], u32, u32, FileType),
        safe: bool,
    ) -> Result<Added> {
        let (name, hash, ino, kind) = entry;
        let order = &self.volume.order;
        let period = order.period();
        let (kind, area) = (self.kind_byte(kind), self.volume.layout.dir_area());
        let (added, offset, room) = buffer.modify_names(|data, before| {
            let data = &mut data[..area];
            let mut added = Added::There;
            let (mut offset, mut room) = dirent::insert(data, ino, name, kind);
            if let Some(at) = offset
                && let Some(before) = before
            {
                let before = &mut before[..area];
                let old = dirent::find(before, name);
                let other = old.filter(|old| old.ino != ino);
                if other.is_some() && !safe {
                    added = Added::Taken;
                } else if dirent::put(before, old, ino, name, kind).is_err() {
                    added = Added::Full;
                } else if let Some(other) = other {
                    order.replaced(other.ino, other.kind);
                }
                if !matches!(added, Added::There) {
                    room = dirent::remove(data, at).unwrap_or(0);
                    offset = None;
                }
            }
            match (offset, &added) {
                // Before anybody sees it, and syncs it.
                (Some(_), _) => order.named(ino, self.ino),
                (None, Added::There) => added = Added::Full,
                (None, _) => {}
            }
            (added, offset, room)
        });
        self.with_index(|index| {
            let block = &mut index.blocks[position];
            block.room = room;
            if let Added::Full = added {
                block.full_in = period;
            }
            if let Some(offset) = offset {
                index.insert(Place { hash, block: position as u32, offset: offset as u16 });
            }
        })?;
        Ok(added)
    }

    /// Appends an empty block.
    async fn grow_dir(self: &Arc<Self>) -> Result<(usize, Arc<Buffer>)> {
        let volume = &self.volume;
        let block_size = volume.layout.block_size;
        let position = self.with_index(|index| index.blocks.len())?;
        let _map = self.map_lock.write().await;
        let (run, _) = self.provide_blocks(position as u64, 1, false).await?;
        let buffer = volume.buffers.fresh(run.start);
        let area = volume.layout.dir_area();
        self.fill_dir_block(&buffer, |data| write_entry(data, 0, 0, area, b"", 0));
        self.update(|state| state.size += block_size as u64);
        self.with_index(|index| index.blocks.push(DirBlock::new(run.start, area as u16)))?;
        volume.order.grown(self.ino);
        Ok((position, buffer))
    }

    /// Gives a new block its content, and a place for the checksum, if blocks have any.
    pub(super) fn fill_dir_block(&self, buffer: &Buffer, fill: impl FnOnce(&mut [u8])) {
        let (seal, area) = (self.dir_seal(), self.volume.layout.dir_area());
        buffer.modify_first(seal, |data| {
            if seal != Seal::None {
                checksum::write_dir_tail(data);
            }
            fill(&mut data[..area]);
        });
    }

    /// A change of names shows in the times.
    pub(super) fn changed(self: &Arc<Self>) {
        let now = self.volume.now();
        self.update(|state| {
            state.mtime = now;
            state.ctime = now;
        });
    }

    /// The caller holds [`super::order::Order::removal`].
    pub async fn remove_name(self: &Arc<Self>, found: Found, why: Removed) -> Result<()> {
        let device = self.device_of(found.place)?;
        self.make_linear().await?;
        let buffer = self.dir_block_to_change(device).await?;
        self.remove_name_in(&buffer, found, why)
    }

    /// The same in its block, in a linear directory.
    pub fn remove_name_in(self: &Arc<Self>, buffer: &Buffer, found: Found, why: Removed) -> Result<()> {
        let place = found.place;
        let area = self.volume.layout.dir_area();
        let offset = place.offset.into();
        let period = self.volume.order.period();
        let removed = if why.later {
            buffer.modify_later(|data| dirent::remove(&mut data[..area], offset))
        } else {
            buffer.modify_names(|data, before| {
                if let Some(before) = before
                    && let Some(entry) = Entry::parse(data, offset)
                    && let Some(same) =
                        dirent::find(&before[..area], entry.name(data)).filter(|same| same.ino == found.ino)
                {
                    dirent::remove(&mut before[..area], same.offset);
                }
                dirent::remove(&mut data[..area], offset)
            })
        };
        let Some(room) = removed else { return self.broken_dir("entry") };
        // Before the directory looks empty.
        self.volume.unnamed(found.ino, self.ino, why.last);
        let old = self.with_index(|index| {
            index.blocks[place.block as usize].room = room;
            index.remove(place);
            why.known.then(|| index.add_gone(place.hash, place.block, period))
        })?;
        drop(old);
        self.changed();
        Ok(())
    }

    /// Gives an entry another name, if its block has room for that. On the disk it always has one of them.
    pub async fn change_name(self: &Arc<Self>, found: Found, name: &[u8], kind: FileType) -> Result<bool> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let device = self.device_of(found.place)?;
        self.make_linear().await?;
        let buffer = self.dir_block_to_change(device).await?;
        // What it takes the name of must not lose it while a write-back copies.
        let _removal = self.volume.order.removal.read().await;
        self.change_name_in(&buffer, found, name, kind)
    }

    /// The same in its block, in a linear directory. The caller holds [`super::order::Order::removal`].
    pub fn change_name_in(
        self: &Arc<Self>,
        buffer: &Buffer,
        found: Found,
        name: &[u8],
        kind: FileType,
    ) -> Result<bool> {
        let (place, ino) = (found.place, found.ino);
        let (need, kind) = (space_for(name.len()), self.kind_byte(kind));
        let order = &self.volume.order;
        let elsewhere = self.with_index(|index| {
            let gone = index.gone(hash(name), order.period());
            gone.iter().any(|(position, _)| *position != place.block as usize)
        })?;
        if elsewhere {
            return Ok(false);
        }
        let area = self.volume.layout.dir_area();
        let changed = buffer.modify_names(|data, before| {
            let data = &mut data[..area];
            let old = Entry::parse(data, place.offset.into()).filter(|old| old.ino == ino)?;
            if usize::from(room_of(data)) < need {
                return None;
            }
            let mut replaced = None;
            if let Some(before) = before {
                let before = &mut before[..area];
                replaced = dirent::find(before, name);
                dirent::put(before, replaced, ino, name, kind).ok()?;
                if let Some(same) = dirent::find(before, old.name(data)).filter(|same| same.ino == ino) {
                    dirent::remove(before, same.offset);
                }
            }
            let offset = dirent::insert(data, ino, name, kind).0?;
            let room = dirent::remove(data, old.offset).unwrap_or(0);
            Some((offset, room, replaced))
        });
        let Some((offset, room, replaced)) = changed else { return Ok(false) };
        let (known, period) = (order.is_known(ino), order.period());
        let old = self.with_index(|index| {
            index.blocks[place.block as usize].room = room;
            index.places.remove(&place);
            index.insert(Place { hash: hash(name), block: place.block, offset: offset as u16 });
            known.then(|| index.add_gone(place.hash, place.block, period))
        })?;
        drop(old);
        if let Some(replaced) = replaced.filter(|replaced| replaced.ino != ino) {
            order.replaced(replaced.ino, replaced.kind);
        }
        self.changed();
        Ok(true)
    }

    /// Makes an existing name lead elsewhere.
    pub async fn set_name(self: &Arc<Self>, found: Found, ino: u32, kind: FileType) -> Result<()> {
        let device = self.device_of(found.place)?;
        self.make_linear().await?;
        let buffer = self.dir_block_to_change(device).await?;
        let kind = self.kind_byte(kind);
        let area = self.volume.layout.dir_area();
        let done = buffer.modify_names(|data, before| {
            let entry = Entry::parse(data, found.place.offset.into())?;
            if let Some(before) = before
                && let Some(same) = dirent::find(&before[..area], entry.name(data))
            {
                dirent::lead(before, same, ino, kind);
            }
            dirent::lead(data, entry, ino, kind);
            Some(())
        });
        if done.is_none() {
            return self.broken_dir("entry");
        }
        self.changed();
        Ok(())
    }
}
