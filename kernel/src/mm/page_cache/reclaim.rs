//! Getting memory back from the cache: a clock over all files and their pages.

use alloc::sync::{Arc, Weak};

use super::super::chunks::Chunks;
use super::super::frames;
use super::super::frames::page::{PageFlags, page};
use super::super::space;
use super::truncate::is_idle;
use super::{PageCache, rounds};
use crate::sync::SpinLock;

enum Slot {
    File(Weak<PageCache>),
    /// And the next free one.
    Free(Option<usize>),
}

struct Files {
    slots: Chunks<Slot>,
    free: Option<usize>,
    /// The file that the clock's hand is at.
    hand: usize,
}

static FILES: SpinLock<Files> = SpinLock::new(Files { slots: Chunks::new(), free: None, hand: 0 });

impl Files {
    fn set(&mut self, slot: usize, content: Slot) -> Option<Slot> {
        Some(core::mem::replace(self.slots.get_mut(slot)?, content))
    }

    fn take_free(&mut self) -> usize {
        let Some(slot) = self.free else {
            self.slots.push(Slot::Free(None));
            return self.slots.len() - 1;
        };
        if let Some(Slot::Free(next)) = self.slots.get(slot) {
            self.free = *next;
        }
        slot
    }
}

/// Pages that are looked at in one file before the next is visited.
const STRIDE: usize = 256;

pub(super) fn register(build: impl FnOnce(usize) -> Arc<PageCache>) -> Arc<PageCache> {
    let slot = FILES.lock().take_free();
    let cache = build(slot);
    FILES.lock().set(slot, Slot::File(Arc::downgrade(&cache)));
    cache
}

pub(super) fn unregister(slot: usize) {
    if slot == usize::MAX {
        return;
    }
    let mut files = FILES.lock();
    let next = files.free;
    let dead = files.set(slot, Slot::Free(next));
    files.free = Some(slot);
    drop(files);
    drop(dead);
}

/// Gives up to `frames` clean pages back that were not used lately; answers how many. May be called under any lock:
/// what is locked is left out.
pub(crate) fn reclaim(frames: usize) -> usize {
    let mut freed = 0;
    // Three times around all pages: the first may find everything referenced.
    let strides = super::stats::CACHED.sum() as usize / STRIDE;
    let mut visits = FILES.try_lock().map_or(0, |files| 3 * (2 * files.slots.len() + strides));
    while freed < frames && visits > 0 {
        visits -= 1;
        let Some(files) = FILES.try_lock() else { break };
        let hand = files.hand;
        let cache = match files.slots.get(hand) {
            Some(Slot::File(cache)) => cache.upgrade(),
            _ => None,
        };
        drop(files);
        let (some, rest) = cache.map_or((0, false), |cache| cache.sweep(frames - freed));
        freed += some;
        if !rest && let Some(mut files) = FILES.try_lock() {
            files.hand = (hand + 1) % files.slots.len().max(1);
        }
    }
    freed
}

/// Pages that a task in need asks for.
const NEED: usize = 128;

/// Files of which not more than this part of memory is cached, nor more than so many pages, are what programs run on at
/// the moment. Who takes their pages out of address spaces gets none that is not wanted back at once, and everybody
/// waits for the disk instead of for the end of one program.
const IN_USE: (usize, usize) = (128, 4096);

/// When plain reclaim found nothing: takes clean file pages out of address spaces, where they are found again by the next
/// fault. False if that does not help either.
async fn unmap_and_reclaim() -> bool {
    let in_use = (frames::total_frames() / IN_USE.0).min(IN_USE.1);
    let to_spare = || super::stats::CACHED.sum() as usize > in_use;
    reclaim(NEED) > 0 || to_spare() && space::unmap_files(|| reclaim(NEED) > 0).await
}

/// The last resort before a program is killed: waits for dirty pages to be stored, too. Whoever calls may hold locks of
/// files, or be what a device works with: see [`rounds`].
pub(crate) async fn relieve() -> bool {
    rounds::store_until(unmap_and_reclaim).await
}

impl PageCache {
    /// Drops idle pages, after a second chance for those that were used. Answers how many, and whether there are pages
    /// left that the clock's hand has not come to in this file.
    pub(super) fn sweep(&self, wanted: usize) -> (usize, bool) {
        let Some(mut tree) = self.tree.try_write() else { return (0, false) };
        let mut freed = 0;
        for _ in 0..STRIDE.min(tree.len()) {
            let Some(index) = tree.next_present(tree.hand) else {
                tree.hand = 0;
                return (freed, false);
            };
            tree.hand = index + 1;
            if !is_idle(&tree, index) {
                continue;
            }
            let used = tree
                .get(index)
                .is_some_and(|pfn| page(pfn).clear(PageFlags::REFERENCED).contains(PageFlags::REFERENCED));
            if !used {
                self.drop_page(&mut tree, index);
                freed += 1;
                if freed >= wanted {
                    break;
                }
            }
        }
        (freed, tree.len() > 0)
    }
}
