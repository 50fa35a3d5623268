//! The requests of 9P2000.L, as methods of the fid that each is about.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use super::client::{Client, Fid, Reply};
use super::wire::{GETATTR_BASIC, HEADER, Kind, Message, Qid, Reader, Valid};
use crate::errno::{Errno, Result};
use crate::fs::inode::{DeviceId, Metadata, SetAttr, StatFs};

/// Room for replies without data: an Rgetattr is the longest.
const SMALL: usize = 192;
/// The longest text of a symbolic link, and the longest value or list of extended attributes (xattr(7)).
const PATH_MAX: usize = 4096;
const XATTR_MAX: u64 = 64 * 1024;
/// Tunlinkat's flag for directories.
const AT_REMOVEDIR: u32 = 0x200;

/// Data in a reply.
pub struct Data {
    reply: Reply,
    range: Range<usize>,
}

impl Data {
    /// The reply to a request for at most `max` bytes: count\[4\] data\[count\].
    fn new(reply: Reply, max: usize) -> Result<Data> {
        let mut reader = reply.reader();
        let count = reader.u32()? as usize;
        if count > max {
            return Err(Errno::EPROTO);
        }
        reader.bytes(count)?;
        Ok(Data { range: 4..4 + count, reply })
    }

    pub fn bytes(&self) -> &[u8] {
        let mut reader = self.reply.reader();
        reader.bytes(self.range.start).and_then(|_| reader.bytes(self.range.len())).unwrap_or(&[])
    }
}

impl Client {
    fn piece(&self, len: usize) -> usize {
        len.min(self.io_max())
    }
}

impl Fid {
    fn message(&self, kind: Kind) -> Message {
        Message::new(kind).u32(self.id)
    }

    async fn ask(&self, message: Message) -> Result<Reply> {
        self.client.call(message, SMALL).await
    }

    /// The place below this one, or with no name another fid for the same place.
    pub async fn walk(&self, name: Option<&[u8]>) -> Result<Arc<Fid>> {
        let new = self.client.new_fid()?;
        let message = self.message(Kind::Walk).u32(new.id).u16(name.is_some().into());
        let message = name.into_iter().fold(message, Message::text);
        // One qid for each name that was found; with less than all of them there is no new fid.
        let reply = self.client.call_for(message, 2 + 13, &new).await?;
        let found = reply.reader().u16()?;
        match (found, u16::from(name.is_some())) {
            (found, wanted) if found == wanted => Ok(new),
            (0, 1) => {
                new.was_not_made();
                Err(Errno::ENOENT)
            }
            _ => Err(Errno::EPROTO),
        }
    }

    pub async fn getattr(&self) -> Result<(Qid, Metadata)> {
        let reply = self.ask(self.message(Kind::Getattr).u64(GETATTR_BASIC)).await?;
        reply.reader().attributes()
    }

    /// Changes what `valid` names of `attr`.
    pub async fn setattr(&self, valid: Valid, attr: &SetAttr) -> Result<()> {
        let (atime, mtime) = (attr.atime.unwrap_or_default(), attr.mtime.unwrap_or_default());
        let message = self
            .message(Kind::Setattr)
            .u32(valid.bits())
            .u32(attr.perm.unwrap_or(0).into())
            .u32(attr.uid.unwrap_or(0))
            .u32(attr.gid.unwrap_or(0))
            .u64(attr.size.unwrap_or(0))
            .u64(atime.sec as u64)
            .u64(atime.nsec.into())
            .u64(mtime.sec as u64)
            .u64(mtime.nsec.into());
        self.ask(message).await.map(drop)
    }

    /// Opens the file behind this fid; answers how much may be read or written at once, or 0.
    pub async fn lopen(&self, flags: u32) -> Result<u32> {
        let reply = self.ask(self.message(Kind::Lopen).u32(flags)).await?;
        let mut reader = reply.reader();
        reader.qid()?;
        reader.u32()
    }

    /// Makes a file in the directory behind this fid, which becomes that file, open.
    pub async fn lcreate(&self, name: &[u8], flags: u32, perm: u16, gid: u32) -> Result<(Qid, u32)> {
        let message = self.message(Kind::Lcreate).text(name).u32(flags).u32(perm.into()).u32(gid);
        let reply = self.ask(message).await?;
        let mut reader = reply.reader();
        Ok((reader.qid()?, reader.u32()?))
    }

    pub async fn mkdir(&self, name: &[u8], perm: u16, gid: u32) -> Result<()> {
        self.ask(self.message(Kind::Mkdir).text(name).u32(perm.into()).u32(gid)).await.map(drop)
    }

    pub async fn symlink(&self, name: &[u8], target: &[u8], gid: u32) -> Result<()> {
        self.ask(self.message(Kind::Symlink).text(name).text(target).u32(gid)).await.map(drop)
    }

    /// `mode` with the type of the file.
    pub async fn mknod(&self, name: &[u8], mode: u32, device: DeviceId, gid: u32) -> Result<()> {
        let message = self.message(Kind::Mknod).text(name).u32(mode).u32(device.major).u32(device.minor).u32(gid);
        self.ask(message).await.map(drop)
    }

    pub async fn link(&self, name: &[u8], target: &Fid) -> Result<()> {
        self.ask(self.message(Kind::Link).u32(target.id).text(name)).await.map(drop)
    }

    pub async fn renameat(&self, old: &[u8], to: &Fid, new: &[u8]) -> Result<()> {
        self.ask(self.message(Kind::Renameat).text(old).u32(to.id).text(new)).await.map(drop)
    }

    pub async fn unlinkat(&self, name: &[u8], directory: bool) -> Result<()> {
        let flags = if directory { AT_REMOVEDIR } else { 0 };
        self.ask(self.message(Kind::Unlinkat).text(name).u32(flags)).await.map(drop)
    }

    pub async fn readlink(&self) -> Result<Vec<u8>> {
        let reply = self.client.call(self.message(Kind::Readlink), 2 + PATH_MAX).await?;
        let target = reply.reader().text()?.to_vec();
        // The walk wants a text that C programs could have, and an end to it.
        if target.len() >= PATH_MAX || target.contains(&0) { Err(Errno::EPROTO) } else { Ok(target) }
    }

    /// Up to `len` bytes, or what fits into a message; none at the end of the file.
    pub async fn read(&self, offset: u64, len: usize) -> Result<Data> {
        self.fetch(Kind::Read, offset, len).await
    }

    /// Entries from `offset` on, as many as have room: pieces for [`Reader::entry`].
    pub async fn readdir(&self, offset: u64, len: usize) -> Result<Data> {
        self.fetch(Kind::Readdir, offset, len).await
    }

    async fn fetch(&self, kind: Kind, offset: u64, len: usize) -> Result<Data> {
        let len = self.client.piece(len);
        let message = self.message(kind).u64(offset).u32(len as u32);
        Data::new(self.client.call(message, 4 + len).await?, len)
    }

    /// The beginning of a Twrite, to which up to `len` bytes of data come.
    pub fn writing(&self, offset: u64, len: usize) -> Result<Message> {
        let len = self.client.piece(len);
        Ok(Message::with_room(Kind::Write, HEADER + 16 + len)?.u32(self.id).u64(offset).u32(0))
    }

    /// Sends what `writing` began, with `len` bytes of data; answers how many were written.
    pub async fn write(&self, message: Message, len: usize) -> Result<usize> {
        let reply = self.ask(message).await?;
        let count = reply.reader().u32()? as usize;
        if count > len { Err(Errno::EPROTO) } else { Ok(count) }
    }

    /// Writes all of it. ENOSPC if the server takes nothing.
    pub async fn write_all(&self, mut offset: u64, mut data: &[u8]) -> Result<()> {
        while !data.is_empty() {
            let len = self.client.piece(data.len());
            let mut message = self.writing(offset, len)?.data(data.get(..len).unwrap_or(data));
            message.cut_data(len);
            let written = self.write(message, len).await?;
            if written == 0 {
                return Err(Errno::ENOSPC);
            }
            data = data.get(written..).unwrap_or(&[]);
            offset += written as u64;
        }
        Ok(())
    }

    pub async fn fsync(&self, data_only: bool) -> Result<()> {
        self.ask(self.message(Kind::Fsync).u32(data_only.into())).await.map(drop)
    }

    pub async fn statfs(&self) -> Result<StatFs> {
        let reply = self.ask(self.message(Kind::Statfs)).await?;
        let mut reader = reply.reader();
        let (magic, block_size) = (reader.u32()?.into(), reader.u32()?.into());
        let (blocks, free, available) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let (files, files_free, id) = (reader.u64()?, reader.u64()?, reader.u64()?);
        let name_max = reader.u32()?.into();
        let fsid = [id as u32, (id >> 32) as u32];
        Ok(StatFs { magic, block_size, blocks, free, available, files, files_free, name_max, fsid })
    }

    /// The value of an extended attribute, or with an empty name the list of names, each with a NUL behind it.
    pub async fn attribute(&self, name: &[u8]) -> Result<Vec<u8>> {
        let value = self.client.new_fid()?;
        let message = self.message(Kind::Xattrwalk).u32(value.id).text(name);
        let reply = self.client.call_for(message, 8, &value).await?;
        let size = reply.reader().u64()?;
        if size > XATTR_MAX {
            return Err(Errno::EPROTO);
        }
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(size as usize).map_err(|_| Errno::ENOMEM)?;
        while (bytes.len() as u64) < size {
            let data = value.read(bytes.len() as u64, size as usize - bytes.len()).await?;
            if data.bytes().is_empty() {
                return Err(Errno::EPROTO);
            }
            bytes.extend_from_slice(data.bytes());
        }
        Ok(bytes)
    }

    /// Sets an extended attribute; an empty value removes it, for the protocol knows no other way. Not to be stopped half-way.
    pub async fn set_attribute(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        let fid = self.walk(None).await?;
        let message = fid.message(Kind::Xattrcreate).text(name).u64(value.len() as u64).u32(flags);
        fid.ask(message).await?;
        let written = fid.write_all(0, value).await;
        // It is done when the fid is clunked.
        written.and(fid.close().await)
    }
}

/// For [`Fid::readdir`].
pub fn entries(data: &Data) -> Reader<'_> {
    Reader::new(data.bytes())
}
