//! Entries of a directory block: inode, length of the entry, length of the name, type, name. Together they fill the block;
//! an entry without an inode is free space.

use zerocopy::FromBytes;

use crate::errno::{Errno, Result};
use crate::fs::inode::FileType;

/// Fixed part of an entry: inode, rec_len, name_len, file_type.
const HEADER: usize = 8;

/// An entry as it is in its block.
#[derive(Clone, Copy)]
pub struct Entry {
    pub offset: usize,
    pub ino: u32,
    pub rec_len: usize,
    name_len: usize,
    pub kind: u8,
}

impl Entry {
    /// The entry at `offset`, if it keeps the rules of the format.
    pub fn parse(data: &[u8], offset: usize) -> Option<Entry> {
        let header = data.get(offset..offset + HEADER)?;
        // Entries are aligned like their blocks, as a rule.
        let [ino, rest] = match <[u32; 2]>::ref_from_bytes(header) {
            Ok(words) => words.map(u32::from_le),
            Err(_) => <[u32; 2]>::read_from_bytes(header).ok()?.map(u32::from_le),
        };
        let [low, high, name_len, kind] = rest.to_le_bytes();
        let rec_len = u16::from_le_bytes([low, high]).into();
        let entry = Entry { offset, ino, rec_len, name_len: name_len.into(), kind };
        let sound = entry.rec_len >= HEADER + 4
            && entry.rec_len.is_multiple_of(4)
            && HEADER + entry.name_len <= entry.rec_len
            && offset + entry.rec_len <= data.len();
        sound.then_some(entry)
    }

    pub fn name<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        &data[self.offset + HEADER..self.offset + HEADER + self.name_len]
    }
}

/// What entries take up of a block, in order, up to the first that is not sound: what [`entries`] says without the names,
/// for those who only look for a place.
struct Spaces<'a> {
    words: &'a [u32],
    /// In words.
    next: usize,
}

struct Space {
    offset: usize,
    rec_len: usize,
    ino: u32,
    name_len: usize,
}

impl Space {
    #[inline]
    fn room(&self) -> usize {
        self.rec_len - self.used()
    }

    /// Bytes that the entry needs itself.
    #[inline]
    fn used(&self) -> usize {
        if self.ino == 0 { 0 } else { space_for(self.name_len) }
    }
}

/// Blocks are aligned, and as long as some number of words.
#[inline]
fn spaces(data: &[u8]) -> Spaces<'_> {
    Spaces { words: <[u32]>::ref_from_bytes(data).unwrap_or_default(), next: 0 }
}

impl Iterator for Spaces<'_> {
    type Item = Space;

    #[inline]
    fn next(&mut self) -> Option<Space> {
        let at = self.next;
        let &[ino, rest] = self.words.get(at..at + 2)? else { return None };
        let (ino, rest) = (u32::from_le(ino), u32::from_le(rest));
        let (rec_len, name_len) = ((rest & 0xffff) as usize, (rest >> 16 & 0xff) as usize);
        self.next = at + rec_len / 4;
        let sound = rec_len >= HEADER + 4
            && rec_len.is_multiple_of(4)
            && HEADER + name_len <= rec_len
            && self.next <= self.words.len();
        sound.then_some(Space { offset: at * 4, rec_len, ino, name_len })
    }
}

pub fn space_for(name_len: usize) -> usize {
    (HEADER + name_len).next_multiple_of(4)
}

/// All entries of a block; `Err` at the first that is not sound.
pub fn entries(data: &[u8]) -> impl Iterator<Item = Result<Entry>> {
    let mut next = Some(0);
    core::iter::from_fn(move || {
        let offset = next.take().filter(|&offset| offset < data.len())?;
        let entry = Entry::parse(data, offset);
        next = entry.map(|entry| offset + entry.rec_len);
        Some(entry.ok_or(Errno::EIO))
    })
}

pub fn write_entry(data: &mut [u8], offset: usize, ino: u32, rec_len: usize, name: &[u8], kind: u8) {
    let Some(slot) = data.get_mut(offset..offset + HEADER + name.len()) else { return };
    slot[..4].copy_from_slice(&ino.to_le_bytes());
    slot[4..6].copy_from_slice(&(rec_len as u16).to_le_bytes());
    slot[6] = name.len() as u8;
    slot[7] = kind;
    slot[HEADER..].copy_from_slice(name);
}

/// The length of the longest entry that fits.
pub fn room_of(data: &[u8]) -> u16 {
    spaces(data).map(|space| space.room()).max().unwrap_or(0) as u16
}

/// The type that an entry states.
pub fn file_type(byte: u8) -> Option<FileType> {
    Some(match byte {
        1 => FileType::Regular,
        2 => FileType::Directory,
        3 => FileType::CharDevice,
        4 => FileType::BlockDevice,
        5 => FileType::Fifo,
        6 => FileType::Socket,
        7 => FileType::Symlink,
        _ => return None,
    })
}

/// Puts an entry where a block has room for it and answers the offset; and the room that the block has then.
pub fn insert(data: &mut [u8], ino: u32, name: &[u8], kind: u8) -> (Option<usize>, u16) {
    let need = space_for(name.len());
    let (mut host, mut most) = (None, 0);
    for space in spaces(data) {
        let mut room = space.room();
        if room >= need && host.is_none() {
            room -= need;
            host = Some(space);
        }
        most = room.max(most);
    }
    let offset = host.map(|host| {
        let used = host.used();
        let offset = host.offset + used;
        if used != 0 {
            data[host.offset + 4..host.offset + 6].copy_from_slice(&(used as u16).to_le_bytes());
        }
        write_entry(data, offset, ino, host.rec_len - used, name, kind);
        offset
    });
    (offset, most as u16)
}

/// The entry with this name.
#[inline]
pub fn find(data: &[u8], name: &[u8]) -> Option<Entry> {
    let is_it = |space: &Space| {
        let there = space.offset + HEADER;
        space.ino != 0 && space.name_len == name.len() && data[there..there + space.name_len] == *name
    };
    Entry::parse(data, spaces(data).find(is_it)?.offset)
}

/// Makes an entry lead elsewhere.
pub fn lead(data: &mut [u8], entry: Entry, ino: u32, kind: u8) {
    data[entry.offset..entry.offset + 4].copy_from_slice(&ino.to_le_bytes());
    data[entry.offset + 7] = kind;
}

/// Makes a name lead somewhere; `old` is its entry, if there is one. `Err` if there is no room for it, or it leads to
/// what may be another directory, which has only one name.
#[inline]
pub fn put(data: &mut [u8], old: Option<Entry>, ino: u32, name: &[u8], kind: u8) -> core::result::Result<(), ()> {
    let Some(entry) = old else { return insert(data, ino, name, kind).0.map(drop).ok_or(()) };
    if entry.ino != ino && file_type(entry.kind).is_none_or(|kind| kind == FileType::Directory) {
        return Err(());
    }
    lead(data, entry, ino, kind);
    Ok(())
}

/// Joins the entry at `offset` with the one before it; the first of a block stays, without an inode. Answers the room that
/// the block has then; None if there is no such entry.
pub fn remove(data: &mut [u8], offset: usize) -> Option<u16> {
    let mut previous: Option<Space> = None;
    let (mut joined, mut most) = (None, 0);
    for space in spaces(data) {
        let mut room = space.room();
        if space.offset == offset {
            room = space.rec_len;
            if let Some(previous) = &previous {
                room += previous.room();
            }
            joined = Some(previous.take().map(|previous| (previous.offset, previous.rec_len + space.rec_len)));
        }
        most = room.max(most);
        if joined.is_none() {
            previous = Some(space);
        }
    }
    let joined = joined?;
    data[offset..offset + 4].fill(0);
    if let Some((host, rec_len)) = joined {
        data[host + 4..host + 6].copy_from_slice(&(rec_len as u16).to_le_bytes());
    }
    Some(most as u16)
}

/// Makes a linear block of a node of a hash tree, whose entries are to end at `area`: "." and ".." in the root, otherwise
/// none.
pub fn linear(data: &mut [u8], root: bool, area: usize) {
    let last = if root { space_for(1) } else { 0 };
    if let Some(len) = data.get_mut(last + 4..last + 6) {
        len.copy_from_slice(&((area - last) as u16).to_le_bytes());
    }
    if !root {
        data[HEADER..].fill(0);
    }
}

/// Fills the first block of a new directory.
pub fn first_block(data: &mut [u8], ino: u32, parent: u32, file_type: bool) {
    let kind = if file_type { 2 } else { 0 };
    let len = data.len();
    write_entry(data, 0, ino, 12, b".", kind);
    write_entry(data, 12, parent, len - 12, b"..", kind);
}

/// The number for a type.
pub fn type_byte(kind: FileType) -> u8 {
    match kind {
        FileType::Regular => 1,
        FileType::Directory => 2,
        FileType::CharDevice => 3,
        FileType::BlockDevice => 4,
        FileType::Fifo => 5,
        FileType::Socket => 6,
        FileType::Symlink => 7,
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use zerocopy::IntoBytes;

    use super::*;

    /// What is said of the room is what is there.
    fn added(data: &mut [u8], ino: u32, name: &[u8]) -> Option<usize> {
        let (offset, room) = insert(data, ino, name, 1);
        assert_eq!(room, counted(data));
        assert_eq!(offset, find(data, name).map(|entry| entry.offset));
        offset
    }

    fn removed(data: &mut [u8], offset: usize) -> bool {
        let room = remove(data, offset);
        assert!(room.is_none_or(|room| room == counted(data)));
        room.is_some()
    }

    fn counted(data: &[u8]) -> u16 {
        let used = |entry: &Entry| if entry.ino == 0 { 0 } else { space_for(entry.name_len) };
        let room = entries(data).flatten().map(|entry| entry.rec_len - used(&entry)).max().unwrap_or(0) as u16;
        assert_eq!(room_of(data), room);
        room
    }

    fn names(data: &[u8]) -> Vec<Vec<u8>> {
        entries(data).map(|e| e.unwrap()).filter(|e| e.ino != 0).map(|e| e.name(data).to_vec()).collect()
    }

    #[test]
    fn entries_split_and_join() {
        let mut words = [0u32; 16];
        let data = words.as_mut_bytes();
        first_block(data, 5, 2, true);
        assert_eq!(room_of(data), 64 - 24);
        let a = added(data, 7, b"alpha").unwrap();
        let b = added(data, 8, b"b").unwrap();
        assert!(added(data, 9, b"longer").is_none());
        assert_eq!(names(data), [&b"."[..], b"..", b"alpha", b"b"]);
        assert!(removed(data, a));
        assert!(!removed(data, a));
        assert_eq!(names(data), [&b"."[..], b"..", b"b"]);
        assert!(removed(data, b));
        assert_eq!(added(data, 9, b"longer"), Some(24));
        assert!(removed(data, 0) && removed(data, 24) && removed(data, 12));
        assert_eq!(names(data), [] as [&[u8]; 0]);
        assert_eq!(added(data, 10, b"first"), Some(0));
    }

    #[test]
    fn a_broken_entry_is_an_error() {
        let mut data = vec![0; 64];
        first_block(&mut data, 5, 2, true);
        data[16] = 3;
        assert!(entries(&data).any(|entry| entry.is_err()));
    }
}
