//! All address spaces, for the rare operations that start from a file: truncation of a mapped file unmaps its pages
//! everywhere.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;

use super::super::addr::PAGE;
use super::super::page_cache::PageCache;
use super::AddressSpace;
use super::vma::Backing;
use crate::exec;
use crate::sync::SpinLock;

struct Registry {
    spaces: Vec<Weak<AddressSpace>>,
    free: Vec<usize>,
}

static REGISTRY: SpinLock<Registry> = SpinLock::new(Registry { spaces: Vec::new(), free: Vec::new() });

/// Builds a space and enters it.
pub(super) fn register(build: impl FnOnce(usize) -> AddressSpace) -> Arc<AddressSpace> {
    let mut registry = REGISTRY.lock();
    let slot = registry.free.pop().unwrap_or_else(|| {
        registry.spaces.push(Weak::new());
        registry.spaces.len() - 1
    });
    let space = Arc::new(build(slot));
    registry.spaces[slot] = Arc::downgrade(&space);
    space
}

pub(super) fn unregister(slot: usize) {
    let mut registry = REGISTRY.lock();
    let dead = core::mem::take(&mut registry.spaces[slot]);
    registry.free.push(slot);
    drop(registry);
    drop(dead);
}

/// Unmaps the pages with an index in `pages` of `cache` from every space. With `private`, also from private mappings, with
/// the copies that they made (truncation); else from shared ones only, which will find the same page again.
pub(crate) async fn unmap_source(cache: &Arc<PageCache>, pages: Range<u64>, private: bool) {
    let mut slot = 0;
    loop {
        let space = {
            let registry = REGISTRY.lock();
            if slot >= registry.spaces.len() {
                return;
            }
            registry.spaces[slot].upgrade()
        };
        slot += 1;
        if let Some(space) = space {
            space.unmap_pages_of(cache, pages.clone(), private).await;
        }
        exec::budget().await;
    }
}

impl AddressSpace {
    async fn unmap_pages_of(&self, cache: &Arc<PageCache>, pages: Range<u64>, private: bool) {
        let ((), debris) = self.change(|inner, gather| {
            for (start, vma) in inner.vmas.iter() {
                let Backing::Source(mapped, offset) = &vma.backing else { continue };
                if !Arc::ptr_eq(mapped.source().cache(), cache) || !private && !vma.is_shared() {
                    continue;
                }
                let first = *offset / PAGE;
                let count = (vma.end - start) / PAGE;
                let from = pages.start.clamp(first, first + count) - first;
                let to = pages.end.clamp(first, first + count) - first;
                // Without memory to un-share a table the pages stay mapped: they keep their frames, so nothing breaks.
                let _ = inner.tables.unmap(start + from * PAGE..start + to * PAGE, gather);
            }
        });
        debris.free().await;
    }
}
