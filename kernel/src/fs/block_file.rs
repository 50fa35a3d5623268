//! /dev/vda and the like: a disk as one file, through a page cache of its own.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::any::Any;

use linux_raw_sys::ioctl;
use smallvec::SmallVec;

use super::block::{BlockDevice, Disk, Memory, Pending, SECTOR_SIZE};
use super::devfs;
use super::file::FileOps;
use super::inode::FileType;
use super::op::Op;
use super::open_file::OpenFile;
use crate::errno::{Errno, Result};
use crate::mm::{BoxFuture, CachePage, IoBuf, PAGE_SIZE, PageCache, PageIo, PageSource, UserPtr};
use crate::process::Thread;

/// BLKGETSIZE64: _IOR(0x12, 114, size_t), which linux-raw-sys does not list.
const BLKGETSIZE64: u32 = 0x8008_1272;

/// What disk nodes are on Debian: root, group disk.
const PERM: u16 = 0o660;

struct DiskIo(Arc<dyn BlockDevice>);

struct DiskFile {
    disk: Disk,
    cache: Arc<PageCache>,
    /// The cache holds it weakly.
    _io: Arc<DiskIo>,
}

/// Shows the disk in /dev.
pub(super) fn show(disk: &Disk) {
    let io = Arc::new(DiskIo(disk.device.clone()));
    let weak: Weak<DiskIo> = Arc::downgrade(&io);
    let file = Arc::new(DiskFile { disk: disk.clone(), cache: PageCache::new(weak as Weak<dyn PageIo>), _io: io });
    devfs::register(&disk.name, disk.id, FileType::BlockDevice, PERM, devfs::shared(file));
}

impl DiskIo {
    async fn transfer(&self, first: u64, pages: &[CachePage], write: bool) -> Result<()> {
        let per_page = (PAGE_SIZE / SECTOR_SIZE) as u64;
        let mut pending: SmallVec<[Pending; 4]> = SmallVec::new();
        for (index, chunk) in pages.chunks(self.0.max_segments()).enumerate() {
            let sector = (first + (index * self.0.max_segments()) as u64) * per_page;
            let mut memory: SmallVec<[Memory; 2]> = SmallVec::new();
            let mut left = self.0.sectors().saturating_sub(sector) as usize * SECTOR_SIZE;
            for page in chunk {
                // The last page may be cut short by the end of the disk.
                let len = left.min(PAGE_SIZE);
                left -= len;
                if !write {
                    page.frame().zero(len..PAGE_SIZE);
                }
                if len > 0 {
                    memory.push(Memory::Frame(page.frame().clone(), 0, len as u32));
                }
            }
            if !memory.is_empty() {
                pending.push(if write { self.0.write(sector, memory) } else { self.0.read(sector, memory) });
            }
        }
        let mut result = Ok(());
        for pending in pending {
            result = pending.await.and(result);
        }
        result
    }
}

impl PageIo for DiskIo {
    fn read_pages<'a>(&'a self, first: u64, pages: &'a [CachePage]) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.transfer(first, pages, false))
    }

    fn write_pages<'a>(&'a self, first: u64, pages: &'a [CachePage]) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.transfer(first, pages, true))
    }
}

impl DiskFile {
    fn bytes(&self) -> u64 {
        self.disk.device.sectors() * SECTOR_SIZE as u64
    }

    async fn sync_now(&self) -> Result<()> {
        self.cache.write_back(0..u64::MAX).await?;
        self.disk.device.flush().await
    }
}

impl PageSource for DiskFile {
    fn cache(&self) -> &Arc<PageCache> {
        &self.cache
    }

    fn file_size(&self) -> u64 {
        self.bytes()
    }

    fn name(&self) -> String {
        format!("/dev/{}", self.disk.name)
    }

    fn dev_ino(&self) -> (u64, u64) {
        (self.disk.id.encode(), 0)
    }
}

impl FileOps for DiskFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read<'a>(&'a self, _file: &'a OpenFile, buf: &'a mut IoBuf<'_>, pos: u64) -> Option<Op<'a, Result<usize>>> {
        Some(Op::boxed(async move {
            if pos >= self.bytes() { Ok(0) } else { self.cache.read(pos, self.bytes(), buf).await }
        }))
    }

    fn write<'a>(&'a self, _file: &'a OpenFile, buf: &'a mut IoBuf<'_>, pos: u64) -> Option<Op<'a, Result<usize>>> {
        Some(Op::boxed(async move {
            if self.disk.device.read_only() {
                return Err(Errno::EPERM);
            }
            let room = self.bytes().saturating_sub(pos);
            if room == 0 {
                return if buf.is_empty() { Ok(0) } else { Err(Errno::ENOSPC) };
            }
            let cut = buf.limit(usize::try_from(room).unwrap_or(usize::MAX));
            let result = self.cache.write(pos, self.bytes(), buf).await;
            buf.extend(cut);
            result
        }))
    }

    fn seekable(&self) -> bool {
        true
    }

    fn size(&self) -> Option<u64> {
        Some(self.bytes())
    }

    fn ioctl<'a>(&'a self, _file: &'a OpenFile, thread: &'a Thread, cmd: u32, arg: u64) -> Op<'a, Result<u64>> {
        Op::boxed(async move {
            match cmd {
                BLKGETSIZE64 => UserPtr::<u64>::new(arg).write(thread.mm(), self.bytes()).await?,
                ioctl::BLKGETSIZE => UserPtr::<u64>::new(arg).write(thread.mm(), self.disk.device.sectors()).await?,
                ioctl::BLKSSZGET => UserPtr::<u32>::new(arg).write(thread.mm(), SECTOR_SIZE as u32).await?,
                ioctl::BLKROGET => {
                    UserPtr::<u32>::new(arg).write(thread.mm(), self.disk.device.read_only().into()).await?
                }
                ioctl::BLKFLSBUF => self.sync_now().await?,
                _ => return Err(Errno::ENOTTY),
            }
            Ok(0)
        })
    }

    fn sync(&self) -> Op<'_, Result<()>> {
        Op::boxed(self.sync_now())
    }
}
