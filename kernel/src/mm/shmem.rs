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
}

impl SharedMemory {
    pub fn new(size: u64) -> Arc<Self> {
        Arc::new(SharedMemory { cache: PageCache::memory(), size })
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
