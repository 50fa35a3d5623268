//! Content of regular files: straight from and to the server for read(2) and write(2), by way of the page cache for
//! mappings.
//!
//! Pages are there only for mappings and programs. They are dropped where a write goes past them, and altogether when
//! the attributes tell that the file has changed on the server. What a shared mapping has changed is written back before
//! the same bytes are read or written in the other way.

use alloc::boxed::Box;
use core::ops::Range;

use super::inode::{Open, P9Inode};
use crate::errno::{Errno, Result};
use crate::mm::{BoxFuture, CachePage, IoBuf, PAGE_SIZE, PageIo};

const PAGE: u64 = PAGE_SIZE as u64;

fn pages_of(pos: u64, len: u64) -> Range<u64> {
    pos / PAGE..pos.saturating_add(len).div_ceil(PAGE)
}

impl P9Inode {
    /// Stores what mappings have changed in these pages and drops them all.
    pub async fn drop_pages(&self, pages: Range<u64>) {
        let Some(cache) = self.cache.as_ref().filter(|cache| cache.page_count() > 0) else { return };
        if cache.has_unstored() && cache.write_back(pages.clone()).await.is_err() {
            // Better old pages than lost ones: the error has been noted for fsync.
            return;
        }
        cache.forget(pages).await;
    }

    async fn store_pages(&self, pages: Range<u64>) -> Result<()> {
        match &self.cache {
            Some(cache) if cache.has_unstored() => cache.write_back(pages).await,
            _ => Ok(()),
        }
    }

    /// Reads into the buffer from `pos` on, up to the end of the file.
    pub async fn read_at(&self, pos: u64, buf: &mut IoBuf<'_>) -> Result<usize> {
        self.store_pages(pages_of(pos, buf.remaining() as u64)).await?;
        let open = self.opened(false).await?;
        let mut done = 0;
        while !buf.is_empty() {
            let wanted = buf.remaining().min(open.unit);
            let data = match open.fid.read(pos + done as u64, wanted).await {
                Ok(data) => data,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            };
            let bytes = data.bytes();
            let copied = match buf.copy_all_to(bytes).await {
                Ok(copied) => copied,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            };
            done += copied;
            if copied < wanted {
                break;
            }
        }
        Ok(done)
    }

    /// Writes what is in the buffer to `pos`; answers how much was written, or why nothing was.
    pub async fn write_at(&self, pos: u64, buf: &mut IoBuf<'_>) -> Result<usize> {
        let pages = pages_of(pos, buf.remaining() as u64);
        self.store_pages(pages.clone()).await?;
        let open = self.opened(true).await?;
        let mut done = 0;
        let mut result = Ok(());
        while !buf.is_empty() {
            match self.write_piece(&open, pos + done as u64, buf).await {
                Ok((written, sent)) => {
                    done += written;
                    if written < sent || sent == 0 {
                        buf.rewind(sent - written);
                        break;
                    }
                }
                Err(errno) => {
                    result = Err(errno);
                    break;
                }
            }
        }
        self.drop_pages(pages).await;
        if done > 0 { Ok(done) } else { result.map(|()| 0) }
    }

    /// One message's worth: how much was written of how much was sent.
    async fn write_piece(&self, open: &Open, pos: u64, buf: &mut IoBuf<'_>) -> Result<(usize, usize)> {
        let len = buf.remaining().min(open.unit);
        let mut message = open.fid.writing(pos, len)?;
        let filled = fill(message.data_mut(len), buf).await?;
        message.cut_data(filled);
        self.change(|_| ());
        let written = open.fid.write(message, filled).await;
        let end = pos + *written.as_ref().unwrap_or(&0) as u64;
        self.change(|meta| meta.size = if written.is_ok() { meta.size.max(end) } else { meta.size });
        Ok((written?, filled))
    }

    async fn read_in(&self, first: u64, pages: &[CachePage]) -> Result<()> {
        let open = self.opened(false).await?;
        let (start, len) = (first * PAGE, pages.len() * PAGE_SIZE);
        let mut done = 0;
        while done < len {
            let data = open.fid.read(start + done as u64, (len - done).min(open.unit)).await?;
            let bytes = data.bytes();
            if bytes.is_empty() {
                break;
            }
            let mut at = 0;
            while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
                let (index, offset) = ((done + at) / PAGE_SIZE, (done + at) % PAGE_SIZE);
                let Some(page) = pages.get(index) else { break };
                page.frame().copy_in(offset, rest);
                at += rest.len().min(PAGE_SIZE - offset);
            }
            done += bytes.len();
        }
        // The rest is behind the end of the file.
        for (index, page) in pages.iter().enumerate() {
            page.frame().zero(done.saturating_sub(index * PAGE_SIZE).min(PAGE_SIZE)..PAGE_SIZE);
        }
        Ok(())
    }

    async fn write_out(&self, first: u64, pages: &[CachePage]) -> Result<()> {
        let open = self.opened(true).await?;
        let start = first * PAGE;
        let len = self.size().saturating_sub(start).min((pages.len() * PAGE_SIZE) as u64) as usize;
        let mut done = 0;
        while done < len {
            let mut message = open.fid.writing(start + done as u64, (len - done).min(open.unit))?;
            let data = message.data_mut((len - done).min(open.unit));
            let mut filled = 0;
            while let Some(room) = data.get_mut(filled..).filter(|room| !room.is_empty()) {
                let (index, offset) = ((done + filled) / PAGE_SIZE, (done + filled) % PAGE_SIZE);
                let Some(page) = pages.get(index) else { break };
                let piece = room.len().min(PAGE_SIZE - offset);
                page.frame().copy_out(offset, room);
                filled += piece;
            }
            message.cut_data(filled);
            self.change(|_| ());
            let written = open.fid.write(message, filled).await?;
            self.change(|_| ());
            if written == 0 {
                return Err(Errno::ENOSPC);
            }
            done += written;
        }
        Ok(())
    }
}

/// Copies from the buffer until the room is full; less only if memory is missing, EFAULT if all of it is.
async fn fill(room: &mut [u8], buf: &mut IoBuf<'_>) -> Result<usize> {
    let mut filled = 0;
    while let Some(rest) = room.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match buf.copy_from(rest) {
            Ok(0) => break,
            Ok(copied) => filled += copied,
            Err(fault) => match buf.fault_in(&fault).await {
                Ok(()) => {}
                Err(_) if filled > 0 => break,
                Err(errno) => return Err(errno),
            },
        }
    }
    Ok(filled)
}

impl PageIo for P9Inode {
    fn device(&self) -> u64 {
        super::super::inode::Inode::fs(self).device().encode()
    }

    fn read_pages<'a>(&'a self, first: u64, pages: &'a [CachePage]) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.read_in(first, pages))
    }

    fn write_pages<'a>(&'a self, first: u64, pages: &'a [CachePage]) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.write_out(first, pages))
    }
}
