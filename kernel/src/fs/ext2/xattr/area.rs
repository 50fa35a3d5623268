//! How attributes are laid out ("Extended Attributes" in the kernel documentation's `filesystems/ext4`): entries from the
//! front, closed by four zero bytes, and their values from the back. So in a block of its own, behind a header, and in
//! what the fields of a large inode leave free, behind a magic number.

use alloc::vec::Vec;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::errno::{Errno, Result};
use crate::fs::xattr::{self, Space};

pub const MAGIC: u32 = 0xea02_0000;
/// Entries and values begin at multiples of this.
const PAD: usize = 4;

/// What a block begins with.
#[repr(C)]
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    pub magic: U32,
    /// Inodes that share the block.
    pub references: U32,
    pub blocks: U32,
    pub hash: U32,
    pub checksum: U32,
    pub reserved: [U32; 3],
}

pub const HEADER_SIZE: usize = size_of::<Header>();

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
struct RawEntry {
    name_len: u8,
    space: u8,
    value_offset: U16,
    value_inode: U32,
    value_size: U32,
    hash: U32,
}

const ENTRY_SIZE: usize = size_of::<RawEntry>();

/// A name as it is stored: its prefix is a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name<'a> {
    pub space: u8,
    pub rest: &'a [u8],
}

/// The numbers of the prefixes. What others there are (POSIX ACLs) is nothing that a program gets to see.
const SPACES: [(u8, Space); 3] = [(1, Space::User), (4, Space::Trusted), (6, Space::Security)];

impl<'a> Name<'a> {
    /// EOPNOTSUPP for names that ext2 has no place for, EINVAL for a prefix alone.
    pub fn parse(name: &'a [u8]) -> Result<Name<'a>> {
        let (space, rest) = xattr::split(name).ok_or(Errno::EOPNOTSUPP)?;
        let &(number, _) = SPACES.iter().find(|(_, known)| *known == space).ok_or(Errno::EOPNOTSUPP)?;
        if rest.is_empty() { Err(Errno::EINVAL) } else { Ok(Name { space: number, rest }) }
    }

    pub fn space(&self) -> Option<Space> {
        SPACES.iter().find(|(number, _)| *number == self.space).map(|(_, space)| *space)
    }

    /// The order of the entries in a block.
    fn key(&self) -> (u8, usize, &'a [u8]) {
        (self.space, self.rest.len(), self.rest)
    }
}

/// An attribute in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attribute {
    space: u8,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Attribute {
    pub fn new(name: Name<'_>, value: &[u8]) -> Attribute {
        Attribute { space: name.space, name: name.rest.into(), value: value.into() }
    }

    pub fn name(&self) -> Name<'_> {
        Name { space: self.space, rest: &self.name }
    }
}

const fn padded(len: usize) -> usize {
    len.next_multiple_of(PAD)
}

/// Calls `see` with each attribute until it answers something. EIO if the entries make no sense.
pub fn scan<'a, R>(
    region: &'a [u8],
    first: usize,
    mut see: impl FnMut(Name<'a>, &'a [u8]) -> Option<R>,
) -> Result<Option<R>> {
    let mut at = first;
    let mut values = 0;
    while region.get(at..at + PAD).ok_or(Errno::EIO)? != [0; PAD] {
        let (entry, rest) = RawEntry::ref_from_prefix(&region[at..]).map_err(|_| Errno::EIO)?;
        let name = rest.get(..entry.name_len.into()).ok_or(Errno::EIO)?;
        let size = entry.value_size.get() as usize;
        values += size;
        let start = usize::from(entry.value_offset.get());
        let value = if size == 0 { Some(&[][..]) } else { region.get(start..).and_then(|tail| tail.get(..size)) };
        // Only a feature that keeps us from mounting puts values elsewhere, and values that overlap would be many.
        let Some(value) = value.filter(|_| entry.value_inode.get() == 0 && values <= region.len()) else {
            return Err(Errno::EIO);
        };
        let found = see(Name { space: entry.space, rest: name }, value);
        if found.is_some() {
            return Ok(found);
        }
        at += ENTRY_SIZE + padded(name.len());
    }
    Ok(None)
}

pub fn read(region: &[u8], first: usize) -> Result<Vec<Attribute>> {
    let mut list = Vec::new();
    scan(region, first, |name, value| {
        list.push(Attribute::new(name, value));
        None::<()>
    })?;
    Ok(list)
}

/// Where a new attribute belongs among those of a block.
pub fn place(list: &[Attribute], name: Name<'_>) -> usize {
    list.partition_point(|other| other.name().key() < name.key())
}

/// Whether a region of `len` bytes has room for the attributes from byte `first` on.
pub fn fits(list: &[Attribute], first: usize, len: usize) -> bool {
    let size = |attribute: &Attribute| ENTRY_SIZE + padded(attribute.name.len()) + padded(attribute.value.len());
    first + list.iter().map(size).sum::<usize>() + PAD <= len
}

/// Writes attributes that fit. Those of a block are `hashed`; answers the hash of all of them.
pub fn write(list: &[Attribute], region: &mut [u8], first: usize, hashed: bool) -> u32 {
    if !fits(list, first, region.len()) {
        return 0;
    }
    region[first..].fill(0);
    let (mut at, mut value_at) = (first, region.len());
    let mut all = 0u32;
    for attribute in list {
        let Attribute { space, name, value } = attribute;
        let (name_len, value_len) = (name.len(), value.len());
        value_at -= padded(value_len);
        region[value_at..value_at + value_len].copy_from_slice(value);
        let hash = if hashed { hash(name, &region[value_at..value_at + padded(value_len)]) } else { 0 };
        all = all.rotate_left(16) ^ hash;
        let entry = RawEntry {
            name_len: name_len as u8,
            space: *space,
            value_offset: U16::new(if value_len == 0 { 0 } else { value_at as u16 }),
            value_inode: U32::new(0),
            value_size: U32::new(value_len as u32),
            hash: U32::new(hash),
        };
        region[at..at + ENTRY_SIZE].copy_from_slice(entry.as_bytes());
        at += ENTRY_SIZE;
        region[at..at + name_len].copy_from_slice(name);
        at += padded(name_len);
    }
    all
}

/// The hash of an entry: of the bytes of its name, then of the words of its value.
fn hash(name: &[u8], value: &[u8]) -> u32 {
    let of_name = name.iter().fold(0u32, |hash, &byte| hash.rotate_left(5) ^ u32::from(byte));
    let words = value.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    words.fold(of_name, |hash, word| hash.rotate_left(16) ^ word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let name = |text: &'static [u8]| Name::parse(text).unwrap();
        let list = [
            Attribute::new(name(b"user.a"), b"first"),
            Attribute::new(name(b"trusted.empty"), b""),
            Attribute::new(name(b"security.x"), &[7; 13]),
        ];
        let mut region = [0xff; 128];
        write(&list, &mut region, 4, true);
        assert_eq!(read(&region, 4).unwrap(), list);
        assert!(fits(&list, 4, 128) && !fits(&list, 4, 92));
    }

    #[test]
    fn nonsense_is_refused() {
        let mut region = [0xff; 64];
        assert_eq!(read(&region, 0).err(), Some(Errno::EIO));
        region.fill(0);
        // A value behind the end, no room for the end of the list, two values in one place.
        region[..16].copy_from_slice(&[1, 1, 60, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(read(&region, 0).err(), Some(Errno::EIO));
        region[8] = 4;
        assert_eq!(read(&region, 0).unwrap().len(), 1);
        assert_eq!(read(&region[..20], 0).err(), Some(Errno::EIO));
        region[2] = 0;
        region[8] = 60;
        region.copy_within(..16, 20);
        assert_eq!(read(&region, 0).err(), Some(Errno::EIO));
    }

    #[test]
    fn names_are_split_as_linux_does() {
        assert_eq!(Name::parse(b"user.").err(), Some(Errno::EINVAL));
        for name in [&b"user"[..], b"other.x", b"system.posix_acl_access", b""] {
            assert_eq!(Name::parse(name).err(), Some(Errno::EOPNOTSUPP));
        }
        assert_eq!(Name::parse(b"trusted.a.b").unwrap(), Name { space: 4, rest: b"a.b" });
    }
}
