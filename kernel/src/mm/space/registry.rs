//! All address spaces, for the rare operations that start from a file: truncation of a mapped file unmaps its pages
//! everywhere.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::ops::Range;

use super::super::addr::{PAGE, USER_END};
use super::super::frames::page::{PageFlags, Pfn, page};
use super::super::page_cache::{PageCache, PageSource};
use super::AddressSpace;
use super::tables::Leaf;
use super::tlb::Gather;
use super::vma::{Backing, Vma, VmaFlags};
use crate::errno::Result;
use crate::exec;
use crate::sync::SpinLock;

struct Registry {
    /// By their numbers, which only grow: who goes through them meets a space before its copies, and those that are made
    /// meanwhile.
    spaces: BTreeMap<u64, Weak<AddressSpace>>,
    next: u64,
}

static REGISTRY: SpinLock<Registry> = SpinLock::new(Registry { spaces: BTreeMap::new(), next: 1 });

/// Builds a space with this number and enters it. The caller holds the lock of the space that it is a copy of: else pages
/// that are unmapped everywhere could stay in the copy.
pub(super) fn register(build: impl FnOnce(u64) -> AddressSpace) -> Arc<AddressSpace> {
    let mut registry = REGISTRY.lock();
    let id = registry.next;
    registry.next += 1;
    let space = Arc::new(build(id));
    registry.spaces.insert(id, Arc::downgrade(&space));
    space
}

pub(super) fn unregister(id: u64) {
    let dead = REGISTRY.lock().spaces.remove(&id);
    drop(dead);
}

/// The first space with this number or a greater one.
fn next_space(id: u64) -> Option<Arc<AddressSpace>> {
    REGISTRY.lock().spaces.range(id..).find_map(|(_, space)| space.upgrade())
}

/// Unmaps the pages with an index in `pages` of `cache` from every space. With `private`, also from private mappings, with
/// the copies that they made (truncation); else from shared ones only, which will find the same page again. ENOMEM if some
/// stay mapped because there is no memory to un-share the table that they are in.
pub(crate) async fn unmap_source(cache: &Arc<PageCache>, pages: Range<u64>, private: bool) -> Result<()> {
    let (mut id, mut result) = (0, Ok(()));
    while let Some(space) = next_space(id) {
        result = space.unmap_pages_of(cache, pages.clone(), private).await.and(result);
        id = space.id + 1;
        drop(space);
        exec::budget().await;
    }
    result
}

/// Unmaps the pages of `cache` with an index in `pages` from every space; copies that private mappings have made stay.
/// ENOMEM as above.
pub(crate) async fn unmap_cached(cache: &Arc<PageCache>, pages: Range<u64>) -> Result<()> {
    let (mut id, mut result) = (0, Ok(()));
    while let Some(space) = next_space(id) {
        result = space.unmap_cached_of(cache, pages.clone()).await.and(result);
        id = space.id + 1;
        drop(space);
        exec::budget().await;
    }
    result
}

/// Unmaps file pages from one space after the other until `enough`. Private copies stay. `enough` looks at all that is
/// cached, and what all spaces have in common is free only after the last: it is asked each time as many are done again.
pub(crate) async fn unmap_files(mut enough: impl FnMut() -> bool) -> bool {
    let (mut id, mut spaces) = (0, 0usize);
    while let Some(space) = next_space(id) {
        space.unmap_file_pages().await;
        id = space.id + 1;
        drop(space);
        spaces += 1;
        if spaces.is_power_of_two() && enough() {
            return true;
        }
        exec::budget().await;
    }
    !spaces.is_power_of_two() && enough()
}

/// Page entries that are looked at in one go.
const CHUNK: usize = 4096;

impl AddressSpace {
    async fn unmap_pages_of(&self, cache: &Arc<PageCache>, pages: Range<u64>, private: bool) -> Result<()> {
        let (result, debris) = self.change(|inner, gather| {
            let mut result = Ok(());
            for (start, vma) in inner.vmas.iter() {
                if !private && !vma.is_shared() {
                    continue;
                }
                let Some(range) = part_of(cache, &pages, start, vma) else { continue };
                result = inner.tables.unmap(range, gather).and(result);
            }
            result
        });
        debris.free().await;
        result
    }

    async fn unmap_cached_of(&self, cache: &Arc<PageCache>, pages: Range<u64>) -> Result<()> {
        let (mut at, mut result) = (0, Ok(()));
        while at < USER_END {
            let ((next, done), debris) = self.change(|inner, gather| {
                let part = |(start, vma): (u64, &Vma)| Some((vma.end, part_of(cache, &pages, start, vma)?));
                let mut parts = inner.vmas.overlapping(at..USER_END).filter_map(part);
                let found = parts.find(|(_, range)| range.end > at.max(range.start));
                let Some((end, range)) = found else { return (USER_END, Ok(())) };
                match inner.tables.visit(range.start.max(at)..range.end, CHUNK, gather, &mut take_cached) {
                    Ok(next) if next < range.end => (next, Ok(())),
                    Ok(_) => (end, Ok(())),
                    Err(errno) => (end, Err(errno)),
                }
            });
            result = done.and(result);
            at = next;
            debris.free().await;
            exec::budget().await;
        }
        result
    }

    /// Takes out all pages that belong to files, which keep them.
    async fn unmap_file_pages(&self) {
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
