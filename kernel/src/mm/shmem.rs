//! Shared anonymous memory: what mmap(MAP_SHARED | MAP_ANONYMOUS) maps.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::ops::Range;

use super::page_cache::{BoxFuture, PageCache, PageSource};
use crate::errno::Result;

/// A nameless memory object.
pub struct SharedMemory {
    cache: Arc<PageCache>,
    size: u64,
    access: Access,
}

/// What mappings of it may do.
#[derive(Clone, Copy)]
pub struct Access {
    pub read: bool,
    /// Of shared ones.
    pub write: bool,
    pub execute: bool,
}

impl SharedMemory {
    pub fn new(size: u64) -> Arc<Self> {
        SharedMemory::with_access(size, Access { read: true, write: true, execute: true })
    }

    pub fn with_access(size: u64, access: Access) -> Arc<Self> {
        Arc::new(SharedMemory { cache: PageCache::memory(), size, access })
    }
}

impl PageSource for SharedMemory {
    fn cache(&self) -> &Arc<PageCache> {
        &self.cache
    }

    fn file_size(&self) -> u64 {
        self.size
    }

    fn name(&self) -> String {
        "/dev/zero (deleted)".into()
    }

    fn readable(&self) -> bool {
        self.access.read
    }

    fn writable(&self) -> bool {
        self.access.write
    }

    fn executable(&self) -> bool {
        self.access.execute
    }

    fn punch(&self, pages: Range<u64>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.cache.punch(pages).await;
            Ok(())
        })
    }

    fn dev_ino(&self) -> (u64, u64) {
        (1, 0)
    }
}
