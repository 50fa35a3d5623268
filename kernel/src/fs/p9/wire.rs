//! The messages of 9P2000.L as bytes: numbers little-endian, strings with a length of two bytes before them.
//!
//! What a server sends is taken apart by [`Reader`], which answers EPROTO for whatever does not fit: nothing of a reply
//! is believed before it was looked at.

use alloc::vec::Vec;

use crate::errno::{Errno, Result};
use crate::fs::inode::{DeviceId, FileType, Metadata};
use crate::time::Timespec;

/// size\[4\] type\[1\] tag\[2\]
pub const HEADER: usize = 7;
/// What Tread and Twrite messages carry besides the data, with some room to spare (P9_IOHDRSZ of Linux).
pub const IO_HEADER: usize = 24;

/// Where the data of a Twrite begins: after fid\[4\] offset\[8\] count\[4\].
const WRITE_DATA: usize = HEADER + 16;

/// Types of requests; the reply's is one more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Kind {
    Statfs = 8,
    Lopen = 12,
    Lcreate = 14,
    Symlink = 16,
    Mknod = 18,
    Readlink = 22,
    Getattr = 24,
    Setattr = 26,
    Xattrwalk = 30,
    Xattrcreate = 32,
    Readdir = 40,
    Fsync = 50,
    Link = 70,
    Mkdir = 72,
    Renameat = 74,
    Unlinkat = 76,
    Version = 100,
    Attach = 104,
    Flush = 108,
    Walk = 110,
    Read = 116,
    Write = 118,
    Clunk = 120,
}

/// The reply to any request that failed.
pub const RLERROR: u8 = 7;

/// A request in the making.
pub struct Message {
    pub kind: Kind,
    bytes: Vec<u8>,
}

impl Message {
    pub fn new(kind: Kind) -> Message {
        Message { kind, bytes: vec![0; HEADER] }
    }

    /// Room for data, which may be much.
    pub fn with_room(kind: Kind, room: usize) -> Result<Message> {
        let mut message = Message::new(kind);
        message.bytes.try_reserve_exact(room).map_err(|_| Errno::ENOMEM)?;
        Ok(message)
    }

    pub fn u16(mut self, value: u16) -> Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub fn u32(mut self, value: u32) -> Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub fn u64(mut self, value: u64) -> Self {
        self.bytes.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A name or a path; longer than PATH_MAX does not come here.
    pub fn text(self, text: &[u8]) -> Self {
        let len = text.len().min(u16::MAX.into());
        let mut message = self.u16(len as u16);
        message.bytes.extend_from_slice(text.get(..len).unwrap_or(text));
        message
    }

    pub fn data(mut self, data: &[u8]) -> Self {
        self.bytes.extend_from_slice(data);
        self
    }

    /// Where the data of a Twrite goes: as long as `len`, to be made shorter by [`Message::cut_data`].
    pub fn data_mut(&mut self, len: usize) -> &mut [u8] {
        self.bytes.resize(WRITE_DATA + len, 0);
        self.bytes.get_mut(WRITE_DATA..).unwrap_or_default()
    }

    /// So much data it is.
    pub fn cut_data(&mut self, len: usize) {
        self.bytes.truncate(WRITE_DATA + len);
        let len = self.bytes.len().saturating_sub(WRITE_DATA) as u32;
        if let Some(count) = self.bytes.get_mut(WRITE_DATA - 4..WRITE_DATA) {
            count.copy_from_slice(&len.to_le_bytes());
        }
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn finish(self, tag: u16) -> Vec<u8> {
        let mut bytes = self.bytes;
        let size = bytes.len() as u32;
        if let Some(header) = bytes.first_chunk_mut::<HEADER>() {
            let [a, b, c, d] = size.to_le_bytes();
            let [low, high] = tag.to_le_bytes();
            *header = [a, b, c, d, self.kind as u8, low, high];
        }
        bytes
    }
}

/// Takes a reply apart.
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Errno::EPROTO)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Errno::EPROTO)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub fn u8(&mut self) -> Result<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn text(&mut self) -> Result<&'a [u8]> {
        let len = self.u16()?;
        self.bytes(len.into())
    }

    pub fn qid(&mut self) -> Result<Qid> {
        Ok(Qid { kind: self.u8()?, version: self.u32()?, path: self.u64()? })
    }

    fn time(&mut self) -> Result<Timespec> {
        let (sec, nsec) = (self.u64()? as i64, self.u64()?);
        let nsec = u32::try_from(nsec).ok().filter(|nsec| *nsec < 1_000_000_000).ok_or(Errno::EPROTO)?;
        Ok(Timespec { sec, nsec })
    }

    /// The attributes of an Rgetattr.
    pub fn attributes(&mut self) -> Result<(Qid, Metadata)> {
        let _valid = self.u64()?;
        let qid = self.qid()?;
        let mode = self.u32()?;
        let (uid, gid, nlink, rdev) = (self.u32()?, self.u32()?, self.u64()?, self.u64()?);
        let (size, block_size, blocks) = (self.u64()?, self.u64()?, self.u64()?);
        let (atime, mtime, ctime) = (self.time()?, self.time()?, self.time()?);
        let meta = Metadata {
            ino: qid.path,
            kind: FileType::from_mode(mode).ok_or(Errno::EPROTO)?,
            perm: (mode & 0o7777) as u16,
            nlink: u32::try_from(nlink).unwrap_or(u32::MAX),
            uid,
            gid,
            rdev: DeviceId::decode(rdev),
            // No file is longer than what an offset can say.
            size: size.min(i64::MAX as u64),
            block_size: u32::try_from(block_size).unwrap_or(u32::MAX),
            blocks,
            atime,
            mtime,
            ctime,
            btime: None,
        };
        Ok((qid, meta))
    }

    /// The next entry of an Rreaddir.
    pub fn entry(&mut self) -> Result<Entry<'a>> {
        let (qid, next, kind) = (self.qid()?, self.u64()?, self.u8()?);
        let name = self.text()?;
        if name.is_empty() || name.len() > crate::fs::dentry::NAME_MAX || name.iter().any(|b| matches!(b, 0 | b'/')) {
            return Err(Errno::EPROTO);
        }
        Ok(Entry { qid, next, kind: FileType::from_mode(u32::from(kind) << 12).unwrap_or(qid.file_type()), name })
    }
}

/// What a server knows a file by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Qid {
    pub kind: u8,
    pub version: u32,
    pub path: u64,
}

impl Qid {
    const DIRECTORY: u8 = 0x80;
    const SYMLINK: u8 = 0x02;

    /// What can be told from the qid alone.
    fn file_type(self) -> FileType {
        match self.kind {
            kind if kind & Self::DIRECTORY != 0 => FileType::Directory,
            kind if kind & Self::SYMLINK != 0 => FileType::Symlink,
            _ => FileType::Regular,
        }
    }
}

/// A directory entry.
pub struct Entry<'a> {
    pub qid: Qid,
    /// Where reading goes on after it.
    pub next: u64,
    pub kind: FileType,
    pub name: &'a [u8],
}

bitflags::bitflags! {
    /// Which attributes a Tsetattr changes. Times without their `_SET` become those of the server's clock.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Valid: u32 {
        const MODE = 0x001;
        const UID = 0x002;
        const GID = 0x004;
        const SIZE = 0x008;
        const ATIME = 0x010;
        const MTIME = 0x020;
        const CTIME = 0x040;
        const ATIME_SET = 0x080;
        const MTIME_SET = 0x100;
    }
}

/// Everything of P9_GETATTR_BASIC: mode to blocks.
pub const GETATTR_BASIC: u64 = 0x7ff;
