//! All address spaces, for the rare operations that start from a file: truncation of a mapped file unmaps its pages
//! everywhere.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;

use super::super::addr::{PAGE, USER_END};
use super::super::frames::page::{PageFlags, Pfn, page};
use super::super::page_cache::{PageCache, PageSource};
use super::AddressSpace;
use super::tables::Leaf;
use super::tlb::Gather;
use super::vma::{Backing, Vma, VmaFlags};
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

/// The space in the first slot from `slot` on, and the slot after it.
fn next_space(slot: usize) -> Option<(Arc<AddressSpace>, usize)> {
    let registry = REGISTRY.lock();
    (slot..registry.spaces.len()).find_map(|slot| Some((registry.spaces[slot].upgrade()?, slot + 1)))
}

/// Unmaps the pages with an index in `pages` of `cache` from every space. With `private`, also from private mappings, with
/// the copies that they made (truncation); else from shared ones only, which will find the same page again.
pub(crate) async fn unmap_source(cache: &Arc<PageCache>, pages: Range<u64>, private: bool) {
    let mut slot = 0;
    while let Some((space, next)) = next_space(slot) {
        space.unmap_pages_of(cache, pages.clone(), private).await;
        slot = next;
        exec::budget().await;
    }
}

/// Unmaps the pages of `cache` with an index in `pages` from every space; copies that private mappings have made stay.
pub(crate) async fn unmap_cached(cache: &Arc<PageCache>, pages: Range<u64>) {
    let mut slot = 0;
    while let Some((space, next)) = next_space(slot) {
        space.unmap_cached_of(cache, pages.clone()).await;
        slot = next;
        exec::budget().await;
    }
}

/// Unmaps file pages from one space after the other until `enough`. Private copies stay.
pub(crate) async fn unmap_files(mut enough: impl FnMut() -> bool) -> bool {
    let mut slot = 0;
    while let Some((space, next)) = next_space(slot) {
        space.unmap_file_pages().await;
        drop(space);
        if enough() {
            return true;
        }
        slot = next;
        exec::budget().await;
    }
    false
}

impl AddressSpace {
    async fn unmap_pages_of(&self, cache: &Arc<PageCache>, pages: Range<u64>, private: bool) {
        let ((), debris) = self.change(|inner, gather| {
            for (start, vma) in inner.vmas.iter() {
                if !private && !vma.is_shared() {
                    continue;
                }
                let Some(range) = part_of(cache, &pages, start, vma) else { continue };
                // Without memory to un-share a table the pages stay mapped: they keep their frames, so nothing breaks.
                let _ = inner.tables.unmap(range, gather);
            }
        });
        debris.free().await;
    }

    async fn unmap_cached_of(&self, cache: &Arc<PageCache>, pages: Range<u64>) {
        let ((), debris) = self.change(|inner, gather| {
            for (start, vma) in inner.vmas.iter() {
                let Some(range) = part_of(cache, &pages, start, vma) else { continue };
                // Without memory to un-share a table the pages stay mapped, as above.
                let _ = inner.tables.visit(range, usize::MAX, gather, &mut take_cached);
            }
        });
        debris.free().await;
    }

    /// Takes out all pages that belong to files, which keep them.
    async fn unmap_file_pages(&self) {
        /// Page entries that are looked at in one go.
        const CHUNK: usize = 4096;
        let mut at = 0;
        while at < USER_END {
            let (next, debris) = self.change(|inner, gather| {
                let Some((start, vma)) = inner.vmas.find_from(at) else { return USER_END };
                let evictable = |source: &Arc<dyn PageSource>| !source.cache().is_memory();
                if vma.flags.contains(VmaFlags::LOCKED) || !vma.source().is_some_and(evictable) {
                    return vma.end;
                }
                let range = start.max(at)..vma.end;
                let visited = inner.tables.visit(range, CHUNK, gather, &mut take_cached);
                // No memory to un-share a table: go on with the next mapping.
                visited.unwrap_or(vma.end)
            });
            at = next;
            debris.free().await;
            exec::budget().await;
        }
    }
}

/// Where a mapping has pages of this range of the file.
fn part_of(cache: &Arc<PageCache>, pages: &Range<u64>, start: u64, vma: &Vma) -> Option<Range<u64>> {
    let Backing::Source(mapped, offset) = &vma.backing else { return None };
    if !Arc::ptr_eq(mapped.source().cache(), cache) {
        return None;
    }
    let first = *offset / PAGE;
    let count = (vma.end - start) / PAGE;
    let from = pages.start.clamp(first, first + count) - first;
    let to = pages.end.clamp(first, first + count) - first;
    Some(start + from * PAGE..start + to * PAGE)
}

/// Unmaps a page that belongs to a file; blocks never do.
fn take_cached(at: u64, leaf: Leaf, gather: &mut Gather) {
    let pfn = (leaf.get().address() / PAGE) as Pfn;
    if page(pfn).has(PageFlags::CACHE) {
        gather.page(at, leaf.take());
    }
}
