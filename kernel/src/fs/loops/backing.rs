//! The file behind a loop device.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use linux_raw_sys::general as raw;

use crate::errno::{Errno, Result};
use crate::exec::{self, Instant};
use crate::fs::block::{Memory, Request, SECTOR_SIZE, Transfer};
use crate::fs::open_file::{Kind, OpenFile};
use crate::fs::regular;
use crate::mm::page_cache::relieve;
use crate::mm::{CachePage, IoBuf, PAGE_SIZE, PageCache};

/// How long a request looks for memory, and how long it waits between. Programs that are killed for theirs need their time.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

pub struct Backing {
    pub file: Arc<OpenFile>,
    cache: Arc<PageCache>,
}

impl Backing {
    /// EINVAL for what is not a regular file.
    pub fn new(file: Arc<OpenFile>) -> Result<Backing> {
        let cache = match file.kind() {
            Kind::Regular(cache) => cache.clone(),
            Kind::Path => return Err(Errno::EBADF),
            _ => return Err(Errno::EINVAL),
        };
        Ok(Backing { file, cache })
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.file.inode().size()
    }

    pub fn path(&self) -> Vec<u8> {
        self.file.path().display(None)
    }

    /// Carries out a request of a device that begins at byte `offset` of the file.
    pub async fn perform(&self, mut request: Request, offset: u64) {
        let mut at = offset.saturating_add(request.sector.saturating_mul(SECTOR_SIZE as u64));
        let mut result = match request.transfer {
            Transfer::Flush => self.flush().await,
            _ => Ok(()),
        };
        let transfer = request.transfer;
        for memory in request.memory.iter_mut() {
            let len = memory.len() as u64;
            result = match transfer {
                Transfer::Read => self.read(at, memory).await,
                Transfer::Write => self.write(at, memory).await,
                Transfer::Flush => Ok(()),
            };
            if result.is_err() {
                break;
            }
            at = at.saturating_add(len);
        }
        if let Err(errno) = result {
            log::warn!("loop: {transfer:?} of {}: {errno:?}", alloc::string::String::from_utf8_lossy(&self.path()));
        }
        // A disk knows no other error.
        request.complete(result.map_err(|_| Errno::EIO));
    }

    async fn flush(&self) -> Result<()> {
        self.cache.write_back(0..u64::MAX).await?;
        self.file.inode().sync(false).await
    }

    async fn read(&self, mut at: u64, memory: &mut Memory) -> Result<()> {
        let len = memory.len();
        let mut done = 0;
        while done < len {
            let within = (at % PAGE_SIZE as u64) as usize;
            let count = (PAGE_SIZE - within).min(len - done);
            match self.page(at / PAGE_SIZE as u64).await? {
                Some(page) => put(memory, done, &page.frame().bytes()[within..within + count]),
                None => put(memory, done, &ZEROS[..count]),
            }
            done += count;
            at += count as u64;
            exec::budget().await;
        }
        Ok(())
    }

    /// A page of the file; None if there is nothing but zeros.
    async fn page(&self, index: u64) -> Result<Option<CachePage>> {
        let size = self.size();
        if index >= size.div_ceil(PAGE_SIZE as u64) {
            return Ok(None);
        }
        if self.cache.is_memory() {
            return Ok(self.cache.lookup(index));
        }
        let deadline = Instant::now().saturating_add(PATIENCE);
        loop {
            match self.cache.get(index, size).await {
                Err(Errno::ENOMEM) if Instant::now() < deadline => self.make_room().await,
                page => return page.map(Some),
            }
        }
    }

    async fn write(&self, mut at: u64, memory: &Memory) -> Result<()> {
        let bytes = match memory {
            Memory::Frame(frame, from, len) => &frame.bytes()[*from as usize..(*from + *len) as usize],
            Memory::Bytes(bytes) => bytes,
        };
        let mut buf = IoBuf::kernel(bytes);
        let deadline = Instant::now().saturating_add(PATIENCE);
        while !buf.is_empty() {
            // A file that appends does so here, too (Linux).
            if self.file.flags() & raw::O_APPEND != 0 {
                at = self.size();
            }
            match regular::write_kernel(self.file.inode(), &self.cache, at, &mut buf).await {
                Ok(0) => return Err(Errno::EIO),
                Ok(n) => at += n as u64,
                Err(Errno::ENOMEM) if Instant::now() < deadline => self.make_room().await,
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// There is no page for the file. See the story of the folder.
    async fn make_room(&self) {
        // Errors are told to those who flush.
        let _ = self.cache.write_back(0..u64::MAX).await;
        if !relieve().await {
            exec::sleep_until(Instant::now().saturating_add(PAUSE)).await;
        }
    }
}

static ZEROS: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

/// Puts bytes into the memory of a request.
fn put(memory: &mut Memory, at: usize, bytes: &[u8]) {
    match memory {
        Memory::Frame(frame, from, _) => frame.copy_in(*from as usize + at, bytes),
        Memory::Bytes(target) => target[at..at + bytes.len()].copy_from_slice(bytes),
    }
}
