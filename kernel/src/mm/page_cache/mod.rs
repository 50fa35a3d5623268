//! The page cache: the pages of one file, the same for read, write and mmap.
//!
//! * [`PageCache`]: one per file. [`CachePage`]: a counted handle on one of its pages. [`PageSource`]: what is mapped.
//! * [`PageIo`]: the file system that fills and stores pages; memory objects (tmpfs, memfd, shared anonymous memory) have
//!   none, their pages start as zeros and stay.
//!
//! State of a page is in its `Page` flags: READING from the first request until it is UPTODATE, DIRTY, WRITEBACK. Those
//! who wait for a change of them sleep in a hashed queue ([`wait`]). Bit maps beside the frames ([`tree`]) find dirty pages
//! without looking at clean ones.
//!
//! A page that is mapped writable and shared is SHARED_WRITE: it becomes dirty without notice. Write-back therefore takes
//! such pages out of the address spaces first; the next write faults and marks them again.
//!
//! Dirty pages are stored when a program asks for it ([`writeback`]), and for all files by the flushers ([`rounds`]).
//!
//! Locks: the tree's lock is shared for hits (data is copied under it, which needs no reference count) and exclusive for
//! inserting and removing. The list of dirty files and the list of all files are leaves. Reclaim only tries locks.

pub mod failure;
mod fill;
mod free;
mod reclaim;
mod rounds;
mod rw;
mod tree;
mod truncate;
mod unstored;
mod wait;
mod writeback;

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use core::future::Future;
use core::ops::Range;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use self::failure::Failure;
use self::tree::Tree;
use self::unstored::Unstored;
use super::addr::PAGE_SIZE;
use super::frames::Frame;
use super::frames::page::PageFlags;
use super::stats;
use crate::errno::{Errno, Result};
use crate::exec::{Storage, count_storage};
use crate::sync::{RwSpinLock, full_fence};

pub use self::free::is_freeing;
pub(crate) use self::reclaim::{reclaim, relieve};
pub use self::rounds::{start_flushers, sync_all, sync_device};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How a file system fills and stores pages. Whoever drops one of these futures early may do so while the device still
/// works on the frames: the driver must hold its own [`CachePage`] or [`Frame`] clones until then.
pub trait PageIo: Send + Sync {
    /// Fills consecutive pages, `pages[0]` being page `first` of the file. Holes and what lies beyond the end of the file are
    /// filled with zeros.
    fn read_pages<'a>(&'a self, first: u64, pages: &'a [CachePage]) -> BoxFuture<'a, Result<()>>;
    /// Stores consecutive pages; what lies beyond the end of the file is not stored.
    fn write_pages<'a>(&'a self, first: u64, pages: &'a [CachePage]) -> BoxFuture<'a, Result<()>>;
    /// To store a page, one of another file may be needed.
    fn is_backed_by_file(&self) -> bool {
        false
    }
    /// Device (encoded) that the file is on, as in [`PageSource::dev_ino`].
    fn device(&self) -> u64;
}

/// What can be mapped.
pub trait PageSource: Send + Sync {
    fn cache(&self) -> &Arc<PageCache>;
    /// Bytes; access to pages wholly beyond is SIGBUS. Called under an address space's lock.
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
    /// A seal forbids that (fcntl(2)).
    fn sealed(&self) -> bool {
        false
    }
    /// May pages be executed (the mount is not noexec)?
    fn executable(&self) -> bool {
        true
    }
    /// A fault is about to make this page of a memory object: ENOSPC if there is no room for it.
    fn make_room(&self, _index: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }
    /// Makes a hole of these whole pages (MADV_REMOVE).
    fn punch(&self, _pages: Range<u64>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Err(Errno::EOPNOTSUPP) })
    }
    /// A shared mapping is about to be written to for the first time since the page was cleaned: update mtime and ctime. An
    /// error, if it must not be written any more, is SIGBUS. Called under an address space's lock.
    fn modified(&self) -> Result<()> {
        Ok(())
    }
    /// Mappings of this source are one piece to shmdt(2), of so many bytes; None: it knows nothing of them.
    fn attached_size(&self) -> Option<u64> {
        None
    }
    /// EIO if pages could not be stored, and nobody who has this file was told.
    fn check_failure(&self) -> Result<()> {
        Ok(())
    }
    /// What was changed in these pages reaches the disk (msync(2), MS_SYNC).
    fn sync(&self, pages: Range<u64>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { self.cache().write_back(pages).await.and(self.check_failure()) })
    }
    /// A mapping of it, or part of one, was taken away. Called without locks of memory.
    fn unmapped(&self) {}
    /// Nobody maps the pages any more: the last of all mappings of the cache was one of this source. May be called under an
    /// address space's lock.
    fn last_unmapped(&self) {}
}

/// A page of a file: a counted handle. The page stays as long as the handle, but may leave the cache (truncation).
#[derive(Clone, Debug)]
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

    pub fn into_frame(self) -> Frame {
        self.frame
    }

    pub fn is_dirty(&self) -> bool {
        self.frame.has(PageFlags::DIRTY)
    }
}

/// A mapping's hold on what it maps; counts in the cache.
pub struct Mapped {
    source: Arc<dyn PageSource>,
    /// The mapping may write to it.
    writes: bool,
    /// See [`PageSource::attached_size`].
    attached: bool,
}

impl Mapped {
    pub fn new(source: Arc<dyn PageSource>, writes: bool) -> Self {
        let attached = source.attached_size().is_some();
        Mapped::counted(source, writes, attached)
    }

    fn counted(source: Arc<dyn PageSource>, writes: bool, attached: bool) -> Self {
        source.cache().maps.fetch_add(1, Ordering::AcqRel);
        source.cache().writers.fetch_add(usize::from(writes), Ordering::SeqCst);
        Mapped { source, writes, attached }
    }

    /// It is part of what shmat(2) has mapped.
    pub fn is_attached(&self) -> bool {
        self.attached
    }

    pub fn source(&self) -> &Arc<dyn PageSource> {
        &self.source
    }

    pub fn same(&self, other: &Mapped) -> bool {
        Arc::ptr_eq(&self.source, &other.source)
    }
}

impl Clone for Mapped {
    fn clone(&self) -> Self {
        Mapped::counted(self.source.clone(), self.writes, self.attached)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        self.source.cache().writers.fetch_sub(usize::from(self.writes), Ordering::SeqCst);
        if self.source.cache().maps.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.source.last_unmapped();
        }
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// The pages of one file.
pub struct PageCache {
    id: u64,
    this: Weak<PageCache>,
    io: Option<Weak<dyn PageIo>>,
    /// See [`PageCache::of_shared_file`].
    shared_file: bool,
    tree: RwSpinLock<Tree>,
    /// Mappings (VMAs) of it, in all address spaces; those that may write to it.
    maps: AtomicUsize,
    writers: AtomicUsize,
    unstored: Unstored,
    /// Is in the list of dirty files.
    listed: AtomicBool,
    failure: Failure,
    /// Place in the list of all files that can be reclaimed from.
    slot: usize,
}

impl PageCache {
    /// For a file system: `io` is the inode.
    pub fn new(io: Weak<dyn PageIo>) -> Arc<Self> {
        reclaim::register(|slot| Self::build(Some(io), false, slot))
    }

    /// For files that others than this kernel change: pages are for mappings only, reads and writes go past them.
    pub fn of_shared_file(io: Weak<dyn PageIo>) -> Arc<Self> {
        reclaim::register(|slot| Self::build(Some(io), true, slot))
    }

    /// For files that live in memory only (tmpfs, memfd): pages start as zeros and are never evicted.
    pub fn memory() -> Arc<Self> {
        Self::build(None, false, usize::MAX)
    }

    fn build(io: Option<Weak<dyn PageIo>>, shared_file: bool, slot: usize) -> Arc<Self> {
        Arc::new_cyclic(|this| PageCache {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            this: this.clone(),
            io,
            shared_file,
            tree: RwSpinLock::new(Tree::default()),
            maps: AtomicUsize::new(0),
            writers: AtomicUsize::new(0),
            unstored: Unstored::default(),
            listed: AtomicBool::new(false),
            failure: Failure::default(),
            slot,
        })
    }

    /// Never the same for two caches.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The file system, as long as there is one.
    fn io(&self) -> Option<Arc<dyn PageIo>> {
        self.io.as_ref().and_then(Weak::upgrade)
    }

    /// No file system behind it.
    pub fn is_memory(&self) -> bool {
        self.io.is_none()
    }

    /// What could not be stored.
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// See [`PageCache::of_shared_file`].
    #[inline]
    pub fn is_of_shared_file(&self) -> bool {
        self.shared_file
    }

    /// Mappings of the file, in all processes.
    pub fn map_count(&self) -> usize {
        self.maps.load(Ordering::Acquire)
    }

    /// Is some mapping writable, or may be made so?
    pub fn is_mapped_for_writing(&self) -> bool {
        self.writers.load(Ordering::SeqCst) > 0
    }

    /// The page, if it is present and valid.
    pub fn lookup(&self, index: u64) -> Option<CachePage> {
        let tree = self.tree.read();
        let pfn = tree.valid(index)?;
        // SAFETY: the tree holds a count of it, and cannot drop it under the lock.
        let frame = unsafe { Frame::share_raw(pfn) };
        Some(CachePage { index, frame })
    }

    /// Calls `visit` for the valid pages in `pages`, under the tree's lock.
    pub(crate) fn for_each_valid(&self, pages: Range<u64>, mut visit: impl FnMut(u64, Frame)) {
        let tree = self.tree.read();
        for index in pages {
            if let Some(pfn) = tree.valid(index) {
                // SAFETY: as in `lookup`.
                visit(index, unsafe { Frame::share_raw(pfn) });
            }
        }
    }

    /// The first page that is present from `index` on.
    pub fn next_present(&self, index: u64) -> Option<u64> {
        self.tree.read().next_present(index)
    }

    /// Pages present.
    pub fn page_count(&self) -> usize {
        self.tree.read().len()
    }

    pub fn dirty_count(&self) -> usize {
        self.unstored.dirty()
    }

    /// Pages are dirty, or on their way to storage, perhaps at somebody else's request: write-back has something to do, or to
    /// wait for.
    pub fn has_unstored(&self) -> bool {
        !self.unstored.is_empty()
    }

    /// The page was changed in memory.
    #[inline]
    pub fn mark_dirty(&self, page: &CachePage) {
        if self.is_memory() {
            return;
        }
        // Between the change and this look at DIRTY, as write-back does between clearing it and looking at the page.
        full_fence();
        if !page.is_dirty() {
            let tree = self.tree.read();
            self.set_dirty(&tree, page.index, &page.frame);
        }
    }

    /// The page is about to be mapped writable and shared.
    #[inline]
    pub(crate) fn mark_shared_write(&self, index: u64, frame: &Frame) {
        if !self.is_memory() {
            frame.page().set(PageFlags::SHARED_WRITE);
            let tree = self.tree.read();
            self.set_dirty(&tree, index, frame);
        }
    }

    /// Marks a page of the tree, unless it has left it.
    fn set_dirty(&self, tree: &Tree, index: u64, frame: &Frame) {
        if tree.get(index) != Some(frame.pfn()) || frame.page().set(PageFlags::DIRTY).contains(PageFlags::DIRTY) {
            return;
        }
        tree.mark_dirty(index);
        count_storage(Storage::Written, PAGE_SIZE);
        stats::DIRTY.add(1);
        self.unstored.add_dirty();
        if !self.listed.swap(true, Ordering::AcqRel) {
            rounds::list(self);
        }
    }

    /// The counter for this kind of pages.
    fn counter(&self) -> &'static stats::Counter {
        if self.is_memory() { &stats::SHMEM } else { &stats::CACHED }
    }
}

impl Drop for PageCache {
    fn drop(&mut self) {
        reclaim::unregister(self.slot);
        stats::DIRTY.add(-(self.dirty_count() as i64));
        let counter = self.counter();
        let tree = core::mem::take(self.tree.get_mut());
        counter.add(-(tree.len() as i64));
        free::free(tree);
    }
}
