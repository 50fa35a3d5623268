//! /dev/vda and the like: a disk as one file, through a page cache of its own, which mappings share.
//!
//! A mounted file system does not go through that cache. So that neither sees what the other has made obsolete, the cache
//! is stored and emptied when a file system is mounted and when nobody has the disk open any more.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::any::Any;

use linux_raw_sys::{general as raw, ioctl};
use smallvec::SmallVec;

use super::block::{BlockDevice, Call, Disk, Memory, Pending, SECTOR_SIZE};
use super::devfs;
use super::file::FileOps;
use super::file_source::FileSource;
use super::inode::{DeviceId, FileType};
use super::op::Op;
use super::open_file::OpenFile;
use crate::errno::{Errno, Result};
use crate::exec::{self, WaitQueue};
use crate::mm::{BoxFuture, CachePage, IoBuf, PAGE_SIZE, PageCache, PageIo, PageSource, UserPtr};
use crate::process::{Caps, Thread};
use crate::sync::SpinLock;

/// BLKGETSIZE64: _IOR(0x12, 114, size_t), which linux-raw-sys does not list.
const BLKGETSIZE64: u32 = 0x8008_1272;

/// What disk nodes are on Debian: root, group disk.
const PERM: u16 = 0o660;

struct DiskIo(Arc<dyn BlockDevice>, DeviceId);

/// What all who have a disk open share.
pub struct DiskFile {
    disk: Disk,
    cache: Arc<PageCache>,
    /// The cache holds it weakly.
    _io: Arc<DiskIo>,
    users: SpinLock<Users>,
    /// Woken when the last user's leaving is complete.
    left: WaitQueue,
}

#[derive(Default)]
struct Users {
    /// Open files and mounted file systems.
    count: usize,
    /// One of the files was opened with O_EXCL.
    exclusive: bool,
    /// File systems, but for those that only write what is left to write.
    mounted: usize,
    /// The others.
    ending: usize,
    /// The last has gone, and what he wrote is being stored. Who wants to open the disk waits.
    leaving: bool,
}

/// What a disk is opened for. As in Linux, those who want it for themselves keep each other out, and nobody else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    File,
    /// open(2) with O_EXCL.
    Exclusive,
    FileSystem,
    /// That has ended.
    FormerFileSystem,
}

impl Users {
    /// One user more; EBUSY, or None if that has to be waited for.
    fn enter(&mut self, what: Use) -> Option<Result<()>> {
        if self.leaving {
            return None;
        }
        match what {
            Use::Exclusive if self.exclusive || self.mounted > 0 => return Some(Err(Errno::EBUSY)),
            Use::Exclusive if self.ending > 0 => return None,
            Use::FileSystem if self.exclusive => return Some(Err(Errno::EBUSY)),
            _ => {}
        }
        self.count += 1;
        self.count_use(what, true);
        Some(Ok(()))
    }

    fn count_use(&mut self, what: Use, more: bool) {
        let count = match what {
            Use::File => return,
            Use::Exclusive => {
                self.exclusive = more;
                return;
            }
            Use::FileSystem => &mut self.mounted,
            Use::FormerFileSystem => &mut self.ending,
        };
        *count = if more { *count + 1 } else { *count - 1 };
    }
}

/// One user of a disk: an open file or a mounted file system.
pub struct Opened {
    file: Arc<DiskFile>,
    /// Changed with the disk's users locked.
    what: SpinLock<Use>,
}

/// Pages that are dropped by close(2) itself; more are left to a task.
const DROPPED_AT_ONCE: usize = 1024;

/// Shows the disk in /dev.
pub(super) fn show(disk: &Disk, file: Arc<DiskFile>) {
    let open: devfs::Factory = Box::new(move |flags, _| {
        let file = file.clone();
        let what = if flags & raw::O_EXCL != 0 { Use::Exclusive } else { Use::File };
        Op::boxed(async move { Ok(Arc::new(file.open(what).await?) as Arc<dyn FileOps>) })
    });
    devfs::register(&disk.name, disk.id, FileType::BlockDevice, PERM, open);
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

    fn is_backed_by_file(&self) -> bool {
        self.0.is_backed_by_file()
    }

    fn device(&self) -> u64 {
        self.1.encode()
    }
}

impl DiskFile {
    pub(super) fn new(disk: &Disk) -> Arc<DiskFile> {
        let io = Arc::new(DiskIo(disk.device.clone(), disk.id));
        let weak: Weak<DiskIo> = Arc::downgrade(&io);
        Arc::new(DiskFile {
            disk: disk.clone(),
            cache: PageCache::new(weak as Weak<dyn PageIo>),
            _io: io,
            users: SpinLock::new(Users::default()),
            left: WaitQueue::new(),
        })
    }

    /// EBUSY if somebody else has it for himself.
    pub async fn open(self: &Arc<Self>, what: Use) -> Result<Opened> {
        self.left.wait_for(|| self.users.lock().enter(what)).await?;
        Ok(Opened { file: self.clone(), what: SpinLock::new(what) })
    }

    /// EBUSY if somebody has it for himself, but for who asks.
    pub fn check_not_held(&self, opened_for: Use) -> Result<()> {
        let users = self.users.lock();
        let held = users.mounted > 0 || users.exclusive && opened_for != Use::Exclusive;
        if held { Err(Errno::EBUSY) } else { Ok(()) }
    }

    /// How many have it open or mounted; asked when nobody is just leaving.
    pub async fn users(&self) -> usize {
        let count = || {
            let users = self.users.lock();
            (!users.leaving).then_some(users.count)
        };
        self.left.wait_for(count).await
    }

    pub fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.disk.device
    }

    /// Stores what is only in memory, and forgets what is on the disk.
    pub async fn settle(&self) -> Result<()> {
        self.cache.write_back(0..u64::MAX).await?;
        self.cache.invalidate(0..u64::MAX);
        Ok(())
    }

    fn left(&self) {
        self.disk.device.last_closed();
        self.users.lock().leaving = false;
        self.left.wake_all();
    }

    fn bytes(&self) -> u64 {
        self.disk.device.sectors() * SECTOR_SIZE as u64
    }

    async fn sync_now(&self) -> Result<()> {
        self.cache.write_back(0..u64::MAX).await?;
        self.disk.device.flush().await
    }
}

impl Opened {
    pub fn disk(&self) -> &Arc<DiskFile> {
        &self.file
    }

    /// The file system that has it only writes what is left to write: who wants the disk for himself waits for that.
    pub fn end(&self) {
        let mut users = self.file.users.lock();
        let mut what = self.what.lock();
        if *what == Use::FileSystem {
            users.count_use(*what, false);
            *what = Use::FormerFileSystem;
            users.count_use(*what, true);
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let file = &self.file;
        {
            let what = *self.what.get_mut();
            let mut users = file.users.lock();
            users.count_use(what, false);
            users.count -= 1;
            users.leaving = users.count == 0;
            if users.count > 0 {
                drop(users);
                if what != Use::File {
                    file.left.wake_all();
                }
                return;
            }
        }
        if !file.cache.has_unstored() && file.cache.page_count() < DROPPED_AT_ONCE {
            file.cache.invalidate(0..u64::MAX);
            file.left();
            return;
        }
        let file = file.clone();
        exec::spawn("disk", async move {
            if let Err(errno) = file.settle().await {
                log::error!("{}: what was written last is lost: {errno:?}", file.disk.name);
            }
            file.left();
        });
    }
}

impl FileOps for Opened {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read<'a>(&'a self, _file: &'a OpenFile, buf: &'a mut IoBuf<'_>, pos: u64) -> Option<Op<'a, Result<usize>>> {
        Some(Op::boxed(async move {
            if pos >= self.file.bytes() { Ok(0) } else { self.file.cache.read(pos, self.file.bytes(), buf).await }
        }))
    }

    fn write<'a>(&'a self, _file: &'a OpenFile, buf: &'a mut IoBuf<'_>, pos: u64) -> Option<Op<'a, Result<usize>>> {
        Some(Op::boxed(async move {
            if self.file.disk.device.read_only() {
                return Err(Errno::EPERM);
            }
            let room = self.file.bytes().saturating_sub(pos);
            if room == 0 {
                return if buf.is_empty() { Ok(0) } else { Err(Errno::ENOSPC) };
            }
            let cut = buf.limit(usize::try_from(room).unwrap_or(usize::MAX));
            let result = self.file.cache.write(pos, self.file.bytes(), buf).await;
            buf.extend(cut);
            result
        }))
    }

    fn seekable(&self) -> bool {
        true
    }

    fn size(&self) -> Option<u64> {
        Some(self.file.bytes())
    }

    /// A mapping holds the file, so the disk stays open, and its cache, too.
    fn page_source(&self, file: &Arc<OpenFile>) -> Option<Arc<dyn PageSource>> {
        let (cache, read_only) = (self.file.cache.clone(), self.file.disk.device.read_only());
        Some(Arc::new(FileSource { file: file.clone(), cache, read_only }))
    }

    fn ioctl<'a>(&'a self, file: &'a OpenFile, thread: &'a Thread, cmd: u32, arg: u64) -> Op<'a, Result<u64>> {
        let disk = &self.file.disk;
        let opened_for = *self.what.lock();
        Op::boxed(async move {
            match cmd {
                BLKGETSIZE64 => UserPtr::<u64>::new(arg).write(thread.mm(), self.file.bytes()).await?,
                ioctl::BLKGETSIZE => UserPtr::<u64>::new(arg).write(thread.mm(), disk.device.sectors()).await?,
                ioctl::BLKSSZGET | ioctl::BLKPBSZGET => {
                    UserPtr::<u32>::new(arg).write(thread.mm(), disk.device.logical_block()).await?
                }
                ioctl::BLKROGET => UserPtr::<u32>::new(arg).write(thread.mm(), disk.device.read_only().into()).await?,
                ioctl::BLKFLSBUF if !thread.creds().capable(Caps::SYS_ADMIN) => return Err(Errno::EACCES),
                ioctl::BLKFLSBUF => {
                    self.file.sync_now().await?;
                    self.file.settle().await?;
                }
                _ => {
                    return disk.device.ioctl(Call { disk: &self.file, opened_for, file, thread, cmd, arg }).await;
                }
            }
            Ok(0)
        })
    }

    fn sync(&self) -> Op<'_, Result<()>> {
        Op::boxed(self.file.sync_now())
    }
}
