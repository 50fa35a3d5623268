//! Extended attributes. They are kept behind the fields of a large inode as long as they fit there, the others in one
//! block, which inodes with the same attributes may share: who changes his gets a block of his own. We share none.
//!
//! [`area`] is the format. The node's `map_lock` is held over all of this: the block is one of the inode's.

pub mod area;

use alloc::sync::Arc;
use alloc::vec::Vec;

use zerocopy::FromBytes;

use self::area::{Attribute, HEADER_SIZE, Header, MAGIC, Name};
use super::buffers::Buffer;
use super::checksum::Sums;
use super::features::Compat;
use super::groups::Run;
use super::layout::{RAW_INODE_SIZE, RawExtra};
use super::node::Node;
use crate::errno::{Errno, Result};
use crate::fs::xattr::Space;

/// XATTR_CREATE and XATTR_REPLACE of setxattr(2).
const CREATE: u32 = 1;
const REPLACE: u32 = 2;

/// The part of an inode for attributes, its magic number included; None if it has no such part.
fn inline(raw: &[u8]) -> Option<core::ops::Range<usize>> {
    let (extra, _) = RawExtra::ref_from_prefix(raw.get(RAW_INODE_SIZE..)?).ok()?;
    let size = usize::from(extra.size.get());
    let start = RAW_INODE_SIZE + size;
    let sound = size != 0 && size.is_multiple_of(4) && start + 8 <= raw.len();
    sound.then_some(start..raw.len())
}

fn has_magic(bytes: &[u8]) -> bool {
    bytes.starts_with(&MAGIC.to_le_bytes())
}

/// The attributes of an inode, as far as they are in there.
fn inline_region(raw: &[u8]) -> Option<&[u8]> {
    raw.get(inline(raw)?).filter(|bytes| has_magic(bytes)).map(|bytes| &bytes[4..])
}

/// Where an inode is in its table.
struct Place {
    buffer: Arc<Buffer>,
    offset: usize,
    size: usize,
}

impl Place {
    fn with<R>(&self, look: impl FnOnce(&[u8]) -> R) -> R {
        self.buffer.with(|data| look(&data[self.offset..self.offset + self.size]))
    }

    /// Bytes for attributes behind the magic number.
    fn room(&self) -> usize {
        self.with(|raw| inline(raw).map_or(0, |range| range.len() - 4))
    }

    fn write(&self, list: &[Attribute], ino: u32, sums: Sums) {
        self.buffer.modify(|data| {
            let raw = &mut data[self.offset..self.offset + self.size];
            let Some(bytes) = inline(raw).and_then(|range| raw.get_mut(range)) else { return };
            bytes.fill(0);
            if let Some((magic, region)) = bytes.split_at_mut_checked(4).filter(|_| !list.is_empty()) {
                magic.copy_from_slice(&MAGIC.to_le_bytes());
                area::write(list, region, 0, false);
            }
            sums.seal_inode(ino, raw);
        });
    }
}

fn references(buffer: &Buffer) -> Result<u32> {
    let header = |data: &[u8]| Header::ref_from_prefix(data).map(|(header, _)| header.references.get()).ok();
    buffer.with(header).ok_or(Errno::EIO)
}

fn set_references(buffer: &Buffer, change: impl FnOnce(u32) -> u32) -> Result<()> {
    buffer.modify(|data| {
        let (header, _) = Header::mut_from_prefix(data).map_err(|_| Errno::EIO)?;
        header.references = change(header.references.get()).into();
        Ok(())
    })
}

impl Node {
    async fn place(&self) -> Result<Place> {
        let (block, offset) = self.volume.inode_position(self.ino)?;
        Ok(Place { buffer: self.volume.buffers.read(block).await?, offset, size: self.volume.layout.inode_size })
    }

    fn attributes_make_no_sense(&self) -> Errno {
        self.volume.corrupt(format_args!("the attributes of inode {} make no sense", self.ino));
        Errno::EIO
    }

    /// The block of attributes.
    async fn attribute_block(&self) -> Result<Option<Arc<Buffer>>> {
        let block = self.state.lock().file_acl;
        if block == 0 {
            return Ok(None);
        }
        if !self.volume.layout.valid_block(block) {
            return Err(self.attributes_make_no_sense());
        }
        let seal = self.volume.sums.attributes(block);
        let Some(buffer) = self.volume.buffers.read_sealed(block, seal).await? else {
            return Err(self.attributes_make_no_sense());
        };
        let sound = buffer.with(|data| {
            Header::ref_from_prefix(data).is_ok_and(|(header, _)| {
                header.magic.get() == MAGIC && header.blocks.get() == 1 && header.references.get() > 0
            })
        });
        if sound { Ok(Some(buffer)) } else { Err(self.attributes_make_no_sense()) }
    }

    /// Calls `see` with each attribute until it answers something.
    async fn scan_attributes<R>(&self, mut see: impl FnMut(Name<'_>, &[u8]) -> Option<R>) -> Result<Option<R>> {
        let _map = self.map_lock.read().await;
        let place = self.place().await?;
        let mut found = place.with(|raw| inline_region(raw).map_or(Ok(None), |region| area::scan(region, 0, &mut see)));
        if let Ok(None) = found
            && let Some(block) = self.attribute_block().await?
        {
            found = block.with(|data| area::scan(data, HEADER_SIZE, see));
        }
        found.map_err(|_| self.attributes_make_no_sense())
    }

    fn check_space(&self, space: Option<Space>) -> Result<()> {
        let refused = space == Some(Space::User) && !self.volume.has_user_attributes();
        if refused { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
    }

    pub async fn attribute(&self, name: Name<'_>) -> Result<Vec<u8>> {
        self.check_space(name.space())?;
        let found = self.scan_attributes(|other, value| (other == name).then(|| value.to_vec())).await?;
        found.ok_or(Errno::ENODATA)
    }

    /// The names, each with a NUL behind it.
    pub async fn attribute_names(&self) -> Result<Vec<u8>> {
        let mut names = Vec::new();
        self.scan_attributes(|name, _| {
            if let Some(space) = name.space().filter(|space| self.check_space(Some(*space)).is_ok()) {
                names.extend_from_slice(space.prefix());
                names.extend_from_slice(name.rest);
                names.push(0);
            }
            None::<()>
        })
        .await?;
        Ok(names)
    }

    /// setxattr(2) with its flags; removexattr(2) without a value. Not to be dropped before it ends.
    pub async fn change_attribute(self: &Arc<Self>, name: Name<'_>, value: Option<&[u8]>, flags: u32) -> Result<()> {
        let volume = &self.volume;
        self.check_space(name.space())?;
        let _change = volume.begin_change().await?;
        let _map = self.map_lock.write().await;
        let place = self.place().await?;
        let block = self.attribute_block().await?;
        let read = || {
            let inner = place.with(|raw| inline_region(raw).map_or(Ok(Vec::new()), |region| area::read(region, 0)))?;
            let outer =
                block.as_ref().map_or(Ok(Vec::new()), |buffer| buffer.with(|data| area::read(data, HEADER_SIZE)))?;
            Ok((inner, outer))
        };
        let (mut inner, mut outer) = read().map_err(|_: Errno| self.attributes_make_no_sense())?;
        let take = |list: &mut Vec<Attribute>| {
            let index = list.iter().position(|attribute| attribute.name() == name)?;
            list.remove(index);
            Some(index)
        };
        let (was_inner, was_outer) = (take(&mut inner), take(&mut outer));
        let exists = was_inner.is_some() || was_outer.is_some();
        if exists && value.is_some() && flags & CREATE != 0 {
            return Err(Errno::EEXIST);
        }
        if !exists && (value.is_none() || flags & REPLACE != 0) {
            return Err(Errno::ENODATA);
        }
        let mut changes = (was_inner.is_some(), was_outer.is_some());
        if let Some(value) = value {
            if volume.is_revision_0() {
                return Err(Errno::EOPNOTSUPP);
            }
            let new = Attribute::new(name, value);
            inner.insert(was_inner.unwrap_or(inner.len()), new.clone());
            if area::fits(&inner, 0, place.room()) {
                changes.0 = true;
            } else {
                take(&mut inner);
                outer.insert(area::place(&outer, name), new);
                changes.1 = true;
                if !area::fits(&outer, HEADER_SIZE, volume.layout.block_size) {
                    return Err(Errno::ENOSPC);
                }
            }
        }
        // What makes no sense may be larger than what is written.
        let fit = area::fits(&inner, 0, place.room()) || !changes.0;
        if !fit || changes.1 && !area::fits(&outer, HEADER_SIZE, volume.layout.block_size) {
            return Err(self.attributes_make_no_sense());
        }
        if value.is_some() {
            volume.need_compat(Compat::EXT_ATTR);
        }
        if changes == (true, true) && was_outer.is_some() {
            // It moves from the block to the inode, and power must not go while it is in neither.
            let (before, _) = read().map_err(|_: Errno| self.attributes_make_no_sense())?;
            place.write(&inner, self.ino, volume.sums);
            let mut stored = if outer.is_empty() { Ok(()) } else { volume.write_metadata().await };
            if stored.is_ok() {
                stored = self.store_block(block.clone(), &outer).await;
            }
            if stored.is_err() {
                place.write(&before, self.ino, volume.sums);
            }
            stored?;
        } else {
            // First what may fail.
            if changes.1 {
                self.store_block(block.clone(), &outer).await?;
                self.store().await?;
            }
            if changes.0 {
                place.write(&inner, self.ino, volume.sums);
            }
        }
        let now = volume.now();
        self.update(|state| state.ctime = now);
        Ok(())
    }

    /// Makes these the attributes of the block.
    async fn store_block(self: &Arc<Self>, old: Option<Arc<Buffer>>, list: &[Attribute]) -> Result<()> {
        if list.is_empty() {
            return self.drop_attribute_block().await;
        }
        if let Some(old) = &old
            && references(old)? == 1
        {
            self.write_block(old, list);
            return Ok(());
        }
        let volume = &self.volume;
        let layout = &volume.layout;
        let goal = layout.group_first_block(layout.group_of_inode(self.ino)).max(layout.first_data_block + 1);
        let run = volume.alloc_blocks(goal, 1, false).await?;
        self.write_block(&volume.buffers.fresh(run.start), list);
        self.update(|state| {
            state.file_acl = run.start;
            state.sectors += if old.is_some() { 0 } else { layout.sectors_per_block() };
        });
        match old {
            Some(old) => self.release_attribute_block(&old).await,
            None => Ok(()),
        }
    }

    /// The block goes first: what was in the inode so far may be synced, and must be there when it has left the inode.
    fn write_block(&self, buffer: &Buffer, list: &[Attribute]) {
        buffer.modify_first(self.volume.sums.attributes(buffer.block), |data| {
            let hash = area::write(list, data, HEADER_SIZE, true);
            if let Ok((header, _)) = Header::mut_from_prefix(data) {
                (header.magic, header.references, header.blocks) = (MAGIC.into(), 1.into(), 1.into());
                header.hash = hash.into();
            }
        });
    }

    /// Lets go of the block of attributes. The caller holds `map_lock` exclusively.
    pub async fn drop_attribute_block(self: &Arc<Self>) -> Result<()> {
        let Some(buffer) = self.attribute_block().await? else { return Ok(()) };
        self.update(|state| {
            state.file_acl = 0;
            state.sectors = state.sectors.saturating_sub(self.volume.layout.sectors_per_block());
        });
        self.release_attribute_block(&buffer).await
    }

    /// This inode has the block no more: frees it if none has.
    async fn release_attribute_block(&self, buffer: &Buffer) -> Result<()> {
        let volume = &self.volume;
        if references(buffer)? > 1 {
            return set_references(buffer, |count| count - 1);
        }
        // It stays as it is as long as something on the disk leads to it.
        volume.free_run(Run { start: buffer.block, len: 1 }).await
    }
}
