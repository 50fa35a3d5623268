//! Address spaces: what a process sees of memory.
//!
//! [`AddressSpace`] is a handle: threads and vfork share it, fork copies it. Inside one spinlock ([`Inner`]) are
//! * the VMAs ([`VmaMap`]): what is mapped where, with which rights;
//! * the page tables ([`tables::Tables`]): what is present, shared with copies until somebody writes.
//!
//! Faults ([`fault`], and those that a program handles: [`userfault`]) bring the tables in line with the VMAs page by page,
//! or by blocks of 2 MiB ([`huge`], [`blocks`]); [`map`], [`change`], [`remap`] and [`advice`]
//! are the calls of the mmap family; `heap` is brk; [`remote`] reaches memory of spaces that are not current.
//!
//! Everything taken out of the tables goes through a [`tlb::Gather`], which is flushed before the lock is released and
//! freed after.

mod advice;
mod asid;
mod blocks;
mod brk;
mod change;
mod detach;
mod fault;
pub mod huge;
mod info;
mod map;
mod moving;
mod pagemap;
mod present;
mod registry;
mod remap;
mod remote;
mod table;
mod tables;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_hostile;
#[cfg(test)]
mod tests_huge;
#[cfg(test)]
mod tests_userfault;
mod tlb;
mod types;
mod usage;
mod userfault;
mod vma;
mod vma_map;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub use self::fault::Unfinished;
pub use self::info::{SpaceStats, VmaInfo};
pub use self::map::{MAX_MAPPINGS, MMAP_MIN_ADDR};
pub use self::pagemap::MappedPage;
pub use self::remote::Cut;
use self::tables::Tables;
use self::tlb::{Debris, Gather};
pub use self::types::{FaultSignal, FutexKey, Limits, MapFlags, Meta, MmapRequest, MremapRequest};
pub use self::usage::Usage;
pub use self::userfault::{FaultHandler, Fill, Outcome, Report, Toucher, Watcher};
pub use self::vma::{Backing, Prot, Special, Vma, VmaFlags};
pub use self::vma_map::VmaMap;
use super::addr::USER_END;
use super::page_cache::BoxFuture;
use super::{frames, shortage};
use crate::errno::{Errno, Result};
use crate::exec;
use crate::sync::{SpinGuard, SpinLock};

pub(crate) use self::registry::{unmap_cached, unmap_files, unmap_source};

/// The memory of a process.
pub struct AddressSpace {
    id: u64,
    /// Physical address of the root table; never changes.
    root: u64,
    /// Generation and ASID, see [`asid`].
    context: AtomicU64,
    pub limits: Limits,
    /// Registrations of membarrier(2).
    pub barriers: AtomicU32,
    meta: SpinLock<Meta>,
    /// Held by changes that are made piece by piece, and by who waits for their end. Before `inner`.
    changing: exec::Mutex<()>,
    inner: SpinLock<Inner>,
}

/// What the lock of a space guards.
struct Inner {
    vmas: VmaMap,
    tables: Tables,
    brk_start: u64,
    brk: u64,
    /// Mappings are placed below this.
    mmap_base: u64,
    /// Where the search for free space starts, and the largest hole that is known to be above it.
    search_from: u64,
    hole_above: u64,
    /// Where pages may allow more than their mappings, because mprotect(2) is not done with them: such pages must not be
    /// copied or moved, where nobody would bring them in line.
    unconformed: Range<u64>,
    /// How mappings to come are locked (mlockall(MCL_FUTURE)).
    lock_future: VmaFlags,
    locked: u64,
    peak_total: u64,
    peak_resident: u64,
}

/// Mappings that are copied without asking whether there is memory for it.
const FEW: usize = 1000;

/// Where stacks end and, below, mappings begin before exec says otherwise.
const DEFAULT_MMAP_BASE: u64 = USER_END - (256 << 20);

impl AddressSpace {
    pub fn new() -> Result<Arc<Self>> {
        let inner = Inner {
            vmas: VmaMap::default(),
            tables: Tables::new()?,
            brk_start: 0,
            brk: 0,
            mmap_base: DEFAULT_MMAP_BASE,
            search_from: DEFAULT_MMAP_BASE,
            hole_above: 0,
            unconformed: 0..0,
            lock_future: VmaFlags::empty(),
            locked: 0,
            peak_total: 0,
            peak_resident: 0,
        };
        Ok(Self::build(inner, Limits::default(), Meta::default()))
    }

    fn build(inner: Inner, limits: Limits, meta: Meta) -> Arc<Self> {
        registry::register(|id| AddressSpace {
            id,
            root: inner.tables.root(),
            context: AtomicU64::new(0),
            limits,
            barriers: AtomicU32::new(0),
            meta: SpinLock::new(meta),
            changing: exec::Mutex::new(()),
            inner: SpinLock::new(inner),
        })
    }

    /// A copy-on-write copy. Limits and metadata are copied too. EAGAIN while a change of rights is not complete: then
    /// [`AddressSpace::fork_after_change`] is for it.
    pub fn fork(&self) -> Result<Arc<Self>> {
        let (limits, meta) = (self.limits.clone(), self.meta.lock().clone());
        let mut gather = self.gather();
        let inner = self.inner.lock();
        if !inner.unconformed.is_empty() {
            return Err(Errno::EAGAIN);
        }
        if inner.vmas.len() > FEW && !frames::has_room(inner.vmas.bytes()) {
            return Err(Errno::ENOMEM);
        }
        let (tables, flush) = inner.tables.fork()?;
        if flush {
            gather.note_all();
            gather.flush();
        }
        let vmas = inner.vmas.clone();
        let mut copy = Inner { vmas, tables, unconformed: 0..0, lock_future: VmaFlags::empty(), locked: 0, ..*inner };
        copy.forget_unshared(&inner.vmas)?;
        let copy = Self::build(copy, limits, meta);
        drop(inner);
        copy.barriers.store(self.barriers.load(Ordering::Relaxed), Ordering::Relaxed);
        Ok(copy)
    }

    /// Never the same for two spaces.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Makes this the address space of the running CPU; cheap if it is already.
    #[inline]
    pub fn activate(self: &Arc<Self>) {
        asid::activate(self);
    }

    /// Leaves the running CPU without user memory.
    pub fn deactivate() {
        asid::deactivate();
    }

    /// Is this the address space of the running CPU?
    pub fn is_current(&self) -> bool {
        asid::is_current(self)
    }

    /// Frees all mappings; for exit and exec, when no thread uses the space any more.
    pub async fn teardown(&self) {
        let (vmas, debris) = self.change(|inner, gather| {
            inner.note_resident();
            inner.tables.clear(gather);
            core::mem::take(&mut inner.vmas)
        });
        vmas.iter().for_each(|(_, vma)| vma.tell_unmapped());
        drop(vmas);
        debris.free().await;
        let exe = self.meta.lock().exe.take();
        drop(exe);
    }

    /// What exec recorded; not to be held long.
    pub fn meta(&self) -> SpinGuard<'_, Meta> {
        self.meta.lock()
    }

    fn gather(&self) -> Gather<'_> {
        Gather::new(Some(&self.context))
    }

    /// Changes VMAs and tables under the lock. What was taken out of the tables is flushed before the lock is released,
    /// and the small part of it freed after; the answer has the rest.
    #[inline]
    fn change<R>(&self, change: impl FnOnce(&mut Inner, &mut Gather) -> R) -> (R, Debris) {
        let mut gather = self.gather();
        let mut inner = self.inner.lock();
        let result = change(&mut inner, &mut gather);
        gather.flush();
        drop(inner);
        (result, gather.finish())
    }
}

/// Goes on with a change that stopped because there was no page for a table ([`Debris::is_short`]): waits for one, and
/// changes again, from wherever the last attempt came to.
#[cold]
fn again<'a, R: Send + 'a>(
    mut last: (R, Debris),
    mut change: impl FnMut() -> (R, Debris) + Send + 'a,
) -> BoxFuture<'a, (R, Debris)> {
    Box::pin(async move {
        for _ in 0..shortage::TRIES {
            if !last.1.is_short() {
                break;
            }
            last.1.free().await;
            last.1 = Debris::default();
            if !shortage::wait_for_page().await {
                break;
            }
            last = change();
        }
        last
    })
}

impl Drop for AddressSpace {
    fn drop(&mut self) {
        registry::unregister(self.id);
    }
}

impl Inner {
    /// Takes out of a fresh copy what fork does not inherit: MADV_DONTFORK ranges and the content of MADV_WIPEONFORK.
    fn forget_unshared(&mut self, original: &VmaMap) -> Result<()> {
        let gone = VmaFlags::DONTFORK | VmaFlags::WIPEONFORK;
        let mut gather = Gather::new(None);
        for (start, vma) in original.iter().filter(|(_, vma)| vma.flags.intersects(gone)) {
            self.tables.unmap(start..vma.end, &mut gather)?;
        }
        Ok(())
    }

    fn note_total(&mut self) {
        self.peak_total = self.peak_total.max(self.vmas.total());
    }

    fn note_resident(&mut self) -> tables::Counts {
        let counts = self.tables.resident();
        self.peak_resident = self.peak_resident.max(counts.anon + counts.file);
        counts
    }
}
