//! The page cache.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::future::Future;
use core::ops::Range;
use core::pin::Pin;

use super::frames::Frame;
use super::iobuf::IoBuf;
use crate::errno::Result;

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How a file system fills and stores pages. Pages beyond the end of the file and in holes are filled with zeros by it.
pub trait PageIo: Send + Sync {
    /// Fills consecutive pages, `pages[0]` being page `first` of the file.
    fn read_pages<'a>(&'a self, first: u64, pages: &'a [CachePage]) -> BoxFuture<'a, Result<()>>;
    /// Stores consecutive pages; what lies beyond the end of the file is not stored.
    fn write_pages<'a>(&'a self, first: u64, pages: &'a [CachePage]) -> BoxFuture<'a, Result<()>>;
}

/// What can be mapped.
pub trait PageSource: Send + Sync {
    fn cache(&self) -> &Arc<PageCache>;
    /// Bytes; access to pages wholly beyond is SIGBUS.
    fn file_size(&self) -> u64;
    /// The path for /proc/PID/maps.
    fn name(&self) -> String;
    /// Device (encoded) and inode number for /proc/PID/maps.
    fn dev_ino(&self) -> (u64, u64);
    /// May pages be read (the file was opened for reading)?
    fn readable(&self) -> bool {
        true
    }
    /// May a shared mapping be written (the file was opened for reading and writing)?
    fn writable(&self) -> bool {
        true
    }
    /// May pages be executed (the mount is not noexec)?
    fn executable(&self) -> bool {
        true
    }
    /// A shared mapping was written to for the first time since the page was cleaned: update mtime and ctime.
    fn modified(&self) {}
}

/// A page of a file: a counted handle.
#[derive(Clone)]
pub struct CachePage {
    index: u64,
    frame: Frame,
}

impl CachePage {
    /// Offset in the file, in pages.
    pub fn index(&self) -> u64 {
        self.index
    }

    pub fn frame(&self) -> &Frame {
        &self.frame
    }
}

/// A mapping's hold on what it maps.
#[derive(Clone)]
pub struct Mapped(Arc<dyn PageSource>);

impl Mapped {
    pub fn new(source: Arc<dyn PageSource>) -> Self {
        Mapped(source)
    }

    pub fn source(&self) -> &Arc<dyn PageSource> {
        &self.0
    }

    pub fn same(&self, other: &Mapped) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The pages of one file.
pub struct PageCache {
    io: Option<Weak<dyn PageIo>>,
}

impl PageCache {
    /// For a file system: `io` is the inode.
    pub fn new(io: Weak<dyn PageIo>) -> Arc<Self> {
        Arc::new(PageCache { io: Some(io) })
    }

    /// For files that live in memory only (tmpfs, memfd): pages start as zeros and are never evicted.
    pub fn memory() -> Arc<Self> {
        Arc::new(PageCache { io: None })
    }

    /// The page, if it is present and valid.
    pub fn lookup(&self, _index: u64) -> Option<CachePage> {
        todo!()
    }

    /// The page, read from storage if need be. `size` is the file's size in bytes: read-ahead ends there.
    pub async fn get(&self, _index: u64, _size: u64) -> Result<CachePage> {
        let _ = &self.io;
        todo!()
    }

    /// The page was changed in memory.
    pub fn mark_dirty(&self, _page: &CachePage) {
        todo!()
    }

    /// Stores dirty pages with an index in `pages` and waits for it.
    pub async fn write_back(&self, _pages: Range<u64>) -> Result<()> {
        todo!()
    }

    /// The file now ends at `size` (already visible in `PageSource::file_size`): zeroes the tail of the last page and drops the pages
    /// behind, also from address spaces.
    pub async fn truncate(&self, _size: u64) {
        todo!()
    }

    /// Drops clean, unmapped pages in `pages`.
    pub fn invalidate(&self, _pages: Range<u64>) {
        todo!()
    }

    /// Pages present.
    pub fn page_count(&self) -> usize {
        todo!()
    }

    pub fn dirty_count(&self) -> usize {
        todo!()
    }

    /// Copies file content at `pos` into `buf`, up to the file's `size`. Answers the count; 0 at the end.
    pub async fn read(&self, _pos: u64, _size: u64, _buf: &mut IoBuf<'_>) -> Result<usize> {
        todo!()
    }

    /// Copies `buf` into the file at `pos` and marks pages dirty. `size` is the size before. The caller updates the size from the
    /// answer, and has excluded other writers and truncation.
    pub async fn write(&self, _pos: u64, _size: u64, _buf: &mut IoBuf<'_>) -> Result<usize> {
        todo!()
    }
}

/// Writes all dirty pages of all files and waits for it.
pub async fn sync_all() -> Result<()> {
    todo!()
}

/// The kernel task that writes dirty pages back in time.
pub async fn flusher() {
    todo!()
}

/// Gives up to `frames` clean pages back; answers how many.
pub(crate) fn reclaim(_frames: usize) -> usize {
    0
}
