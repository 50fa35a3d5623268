//! Regular files and disks as something to be mapped (mmap(2)).

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::ops::Range;

use super::inode::SetAttr;
use super::inode_flags;
use super::mount::MountFlags;
use super::open_file::{Kind, OpenFile};
use super::regular;
use super::state::Seals;
use crate::errno::Result;
use crate::mm::{BoxFuture, PAGE_SIZE, PageCache, PageSource};

/// What a mapping holds of its file.
pub struct FileSource {
    pub file: Arc<OpenFile>,
    pub cache: Arc<PageCache>,
    /// It cannot be written, whatever it was opened for.
    pub read_only: bool,
}

impl FileSource {
    pub fn new(file: &Arc<OpenFile>, cache: &Arc<PageCache>) -> Arc<FileSource> {
        Arc::new(FileSource { file: file.clone(), cache: cache.clone(), read_only: false })
    }
}

impl PageSource for FileSource {
    fn cache(&self) -> &Arc<PageCache> {
        &self.cache
    }

    fn file_size(&self) -> u64 {
        match self.file.kind() {
            Kind::Ops(ops) => ops.size().unwrap_or(0),
            _ => self.file.inode().size(),
        }
    }

    fn name(&self) -> String {
        String::from_utf8_lossy(&self.file.path().display(None)).into_owned()
    }

    fn dev_ino(&self) -> (u64, u64) {
        let inode = self.file.inode();
        (inode.device().encode(), inode.metadata().ino)
    }

    fn readable(&self) -> bool {
        self.file.readable()
    }

    fn writable(&self) -> bool {
        self.file.readable() && self.file.writable() && !self.read_only && !self.sealed()
    }

    fn sealed(&self) -> bool {
        self.file.inode().state().is_sealed(Seals::WRITE | Seals::FUTURE_WRITE)
    }

    fn executable(&self) -> bool {
        !self.file.path().mount.flags().contains(MountFlags::NOEXEC)
    }

    fn check_failure(&self) -> Result<()> {
        self.file.check_failure()
    }

    fn sync(&self, _pages: Range<u64>) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.file.sync(true))
    }

    fn make_room(&self, index: u64) -> BoxFuture<'_, Result<()>> {
        const PAGE: u64 = PAGE_SIZE as u64;
        Box::pin(self.file.inode().prepare_write(index * PAGE, PAGE))
    }

    fn punch(&self, pages: Range<u64>) -> BoxFuture<'_, Result<()>> {
        const PAGE: u64 = PAGE_SIZE as u64;
        Box::pin(regular::punch(self.file.inode(), pages.start * PAGE, (pages.end - pages.start) * PAGE))
    }

    fn modified(&self) -> Result<()> {
        inode_flags::check_content(&**self.file.inode())?;
        let now = super::now();
        let times = SetAttr { mtime: Some(now), ctime: Some(now), ..Default::default() };
        // Cached times are changed at once; there is nobody to await more.
        drop(self.file.inode().set_attr(times));
        Ok(())
    }
}
