//! Changes of a directory: names that come, go, and lead elsewhere.
//!
//! Those that go may have to stay on the disk for a while ([`super::order`]). What comes meanwhile gets room that they do not
//! take.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::buffers::Buffer;
use super::checksum::{self, Seal};
use super::dir::{DirBlock, DirBuffer, Found, Place, hash};
use super::dirent::{self, Entry, room_of, space_for, write_entry};
use super::layout::{NAME_MAX, inode_flags};
use super::node::Node;
use crate::errno::{Errno, Result};
use crate::fs::inode::FileType;

/// A name came into a block.
enum Added {
    /// At this offset, if there was room, of which so much is left; and what the name leads to on the disk so far.
    There(Option<usize>, u16, Option<Entry>),
    /// What has gone takes the room.
    Full,
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
        let need = space_for(name.len());
        let order = &self.volume.order;
        let (kind, area) = (self.kind_byte(kind), self.volume.layout.dir_area());
        let mut waited = false;
        loop {
            let period = order.period();
            let roomy = self.with_index(|index| {
                let has_room = |block: &DirBlock| usize::from(block.room) >= need;
                let found = index.blocks.iter().position(|block| has_room(block) && block.full_in != period);
                let blocked = found.is_none() && index.blocks.iter().any(has_room);
                (found.map(|position| (position, index.blocks[position].device)), blocked)
            })?;
            let (position, buffer) = match roomy {
                (Some((position, device)), _) => (position, self.dir_block_to_change(device).await?),
                (None, blocked) => match self.grow_dir().await {
                    // There is room after a write-back.
                    Err(Errno::ENOSPC) if blocked && !waited => {
                        waited = true;
                        self.volume.write_metadata().await?;
                        continue;
                    }
                    grown => grown?,
                },
            };
            let added = buffer.modify_names(|data, before| {
                let data = &mut data[..area];
                let mut old = None;
                if let Some(before) = before
                    && usize::from(room_of(data)) >= need
                {
                    match dirent::put(&mut before[..area], ino, name, kind) {
                        Ok(found) => old = found,
                        Err(()) => return Added::Full,
                    }
                }
                let offset = dirent::insert(data, ino, name, kind);
                if offset.is_some() {
                    // Before anybody sees it, and syncs it.
                    order.named(ino, self.ino);
                }
                Added::There(offset, room_of(data), old)
            });
            let offset = self.with_index(|index| match added {
                Added::Full => {
                    index.blocks[position].full_in = period;
                    None
                }
                Added::There(offset, room, _) => {
                    index.blocks[position].room = room;
                    if let Some(offset) = offset {
                        index.insert(Place { hash: hash(name), block: position as u32, offset: offset as u16 });
                    }
                    offset
                }
            })?;
            if let Added::There(_, _, Some(old)) = added
                && old.ino != ino
            {
                order.replaced(old.ino, old.kind);
            }
            if offset.is_some() {
                self.changed();
                return Ok(());
            }
        }
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
    fn changed(self: &Arc<Self>) {
        let now = self.volume.now();
        self.update(|state| {
            state.mtime = now;
            state.ctime = now;
        });
    }

    /// `later`: the disk keeps it until inodes have been written.
    pub async fn remove_name(self: &Arc<Self>, found: Found, later: bool) -> Result<()> {
        let place = found.place;
        let device = self.device_of(place)?;
        self.make_linear().await?;
        let buffer = self.dir_block_to_change(device).await?;
        let area = self.volume.layout.dir_area();
        let offset = place.offset.into();
        let removed = if later {
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
        if !removed {
            return self.broken_dir("entry");
        }
        let room = buffer.with(|data| room_of(&data[..area]));
        self.with_index(|index| {
            index.blocks[place.block as usize].room = room;
            index.remove(place);
        })?;
        self.changed();
        Ok(())
    }

    /// Gives an entry another name, if its block has room for that. On the disk it always has one of them.
    pub async fn change_name(self: &Arc<Self>, found: Found, name: &[u8], kind: FileType) -> Result<bool> {
        if name.len() > NAME_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let (place, ino) = (found.place, found.ino);
        let (need, kind) = (space_for(name.len()), self.kind_byte(kind));
        let device = self.device_of(place)?;
        self.make_linear().await?;
        let buffer = self.dir_block_to_change(device).await?;
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
                replaced = dirent::put(before, ino, name, kind).ok()?;
                if let Some(same) = dirent::find(before, old.name(data)).filter(|same| same.ino == ino) {
                    dirent::remove(before, same.offset);
                }
            }
            let offset = dirent::insert(data, ino, name, kind)?;
            dirent::remove(data, old.offset);
            Some((offset, room_of(data), replaced))
        });
        let Some((offset, room, replaced)) = changed else { return Ok(false) };
        self.with_index(|index| {
            index.blocks[place.block as usize].room = room;
            index.places.remove(&place);
            index.insert(Place { hash: hash(name), block: place.block, offset: offset as u16 });
        })?;
        if let Some(replaced) = replaced.filter(|replaced| replaced.ino != ino) {
            self.volume.order.replaced(replaced.ino, replaced.kind);
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
