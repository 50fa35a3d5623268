//! mmap(2) and munmap(2): where mappings go, and that they go.

use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::Ordering;

use super::super::addr::{PAGE, USER_END, page_down, page_up, untag};
use super::super::overcommit;
use super::super::page_cache::Mapped;
use super::super::shmem::SharedMemory;
use super::fault::STACK_GUARD;
use super::huge;
use super::tables::LEAF;
use super::tlb::{Debris, Gather};
use super::types::{Limits, MapFlags, MmapRequest};
use super::vma::{Backing, Prot, Special, Vma, VmaFlags};
use super::{AddressSpace, Inner, tables};
use crate::errno::{Errno, Result};
use crate::mm::chunks::Chunks;

/// Lowest address that may be mapped (vm.mmap_min_addr, what Linux has on arm64).
pub const MMAP_MIN_ADDR: u64 = 0x8000;
/// Most mappings of one space (vm.max_map_count).
pub const MAX_MAPPINGS: usize = 65530;
/// Bounds of the room that is left for the stack above the mappings (bytes).
const MIN_STACK_GAP: u64 = 128 << 20;
const MAX_STACK_GAP: u64 = USER_END / 6 * 5;

/// Mappings that were taken out: dropped only after the lock, because the last close of a file may do anything. There may be as many
/// as a space can have.
pub(super) struct Removed {
    first: Option<Vma>,
    others: Chunks<Vma>,
}

impl Removed {
    pub fn new() -> Removed {
        Removed { first: None, others: Chunks::new() }
    }

    fn push(&mut self, vma: Vma) {
        if self.first.is_none() {
            self.first = Some(vma);
        } else {
            self.others.push(vma);
        }
    }
}

/// Drops what was taken out. No lock is held.
pub(super) fn let_go(removed: Removed) {
    removed.first.into_iter().chain(removed.others).for_each(|vma| vma.tell_unmapped());
}

/// `addr..addr + len`, rounded up to whole pages, if it is aligned and lies in the user half.
pub(super) fn page_range(addr: u64, len: u64, outside: Errno) -> Result<Range<u64>> {
    if !addr.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    let len = page_up(len).ok_or(outside)?;
    match addr.checked_add(len) {
        Some(end) if end <= USER_END => Ok(addr..end),
        _ => Err(outside),
    }
}

impl AddressSpace {
    /// Places the area of mappings below a stack whose top is `stack_top`, with room for its limit and `random` bytes
    /// (address-space randomisation) between.
    pub fn set_layout(&self, stack_top: u64, stack_limit: u64, random: u64) {
        let gap = stack_limit.saturating_add(STACK_GUARD).clamp(MIN_STACK_GAP, MAX_STACK_GAP);
        let base = page_down(stack_top.min(USER_END).saturating_sub(gap).saturating_sub(random));
        let mut inner = self.inner.lock();
        inner.mmap_base = base.max(MMAP_MIN_ADDR);
        inner.search_from = inner.mmap_base;
        inner.hole_above = 0;
    }

    pub async fn mmap(&self, request: MmapRequest) -> Result<u64> {
        let populate = request.flags.intersects(MapFlags::POPULATE | MapFlags::LOCKED)
            && !request.flags.contains(MapFlags::NONBLOCK);
        let mut answer = self.map(&request);
        if answer.1.is_short() {
            answer = super::again(answer, || self.map(&request)).await;
        }
        let (result, debris) = answer;
        debris.free().await;
        let (range, locked) = result?;
        if populate || locked {
            // The mapping stands, whatever comes of this (mmap(2)).
            let _ = self.populate(range.clone(), None).await;
        }
        Ok(range.start)
    }

    /// Answers what was mapped, and whether it is locked.
    fn map(&self, request: &MmapRequest) -> (Result<(Range<u64>, bool)>, Debris) {
        let (len, flags) = match check(request) {
            Ok(checked) => checked,
            Err(errno) => return (Err(errno), Debris::default()),
        };
        let shared = flags.contains(VmaFlags::SHARED);
        let backing = match &request.source {
            Some(source) => {
                let writes = shared && !flags.contains(VmaFlags::NO_WRITE);
                let mapped = Mapped::new(source.clone(), writes);
                // Now that this mapping counts, a seal that comes sees it; one that came first is seen here.
                if writes && mapped.source().sealed() {
                    return (Err(Errno::EPERM), Debris::default());
                }
                Backing::Source(mapped, request.offset)
            }
            None if shared => Backing::Source(Mapped::new(SharedMemory::new(len), true), 0),
            None => Backing::Anonymous,
        };
        self.put(request, len, flags, backing)
    }

    /// mmap(2) of pages that the kernel lends: of a file whose pages are not in a page cache.
    pub async fn mmap_special(&self, request: MmapRequest, special: Arc<Special>) -> Result<u64> {
        let (len, flags) = check(&request)?;
        let flags = (flags - VmaFlags::LOCKED) | VmaFlags::SPECIAL | VmaFlags::DONTDUMP;
        let put = || self.put(&request, len, flags, Backing::Special(special.clone(), 0));
        let mut answer = put();
        if answer.1.is_short() {
            answer = super::again(answer, put).await;
        }
        let (result, debris) = answer;
        debris.free().await;
        let (range, _) = result?;
        if request.flags.contains(MapFlags::POPULATE) {
            let _ = self.populate(range.clone(), None).await;
        }
        Ok(range.start)
    }

    /// Puts a mapping where the request wants it.
    fn put(
        &self,
        request: &MmapRequest,
        len: u64,
        flags: VmaFlags,
        backing: Backing,
    ) -> (Result<(Range<u64>, bool)>, Debris) {
        let fixed = request.flags.intersects(FIXED);
        let mut removed = Removed::new();
        let answer = self.change(|inner, gather| {
            let start = if fixed {
                request.addr
            } else {
                inner.place(request.addr, len, huge::alignment(len, &backing)).ok_or(Errno::ENOMEM)?
            };
            let range = start..start + len;
            let mut vma = Vma::new(range.end, request.prot, flags, backing);
            if !vma.flags.contains(VmaFlags::SPECIAL) {
                vma.flags |= inner.lock_future;
            }
            let locked = vma.flags.contains(VmaFlags::LOCKED);
            let replaced = if fixed { inner.mapped_in(&range) } else { 0 };
            if replaced > 0 && request.flags.contains(MapFlags::FIXED_NOREPLACE) {
                return Err(Errno::EEXIST);
            }
            // What is there goes only if the new one may come.
            inner.check_room(len, replaced, &vma, &self.limits, request.flags.contains(MapFlags::LOCK_ANY))?;
            if replaced > 0 {
                inner.unmap(range.clone(), gather, &mut removed)?;
            }
            inner.enter(start, vma);
            Ok((range, locked))
        });
        let_go(removed);
        answer
    }

    /// munmap(2) of so little that it can be done at once. None if there was no memory for that: then it is to be made again.
    pub fn munmap_now(&self, addr: u64, len: u64) -> Option<Result<()>> {
        const MOST: u64 = 64 * PAGE;
        if len > MOST {
            return None;
        }
        let range = match page_range(untag(addr), len, Errno::EINVAL) {
            Ok(range) if !range.is_empty() => range,
            Ok(_) => return Some(Err(Errno::EINVAL)),
            Err(errno) => return Some(Err(errno)),
        };
        let mut removed = Removed::new();
        let (result, debris) = self.change(|inner, gather| inner.unmap(range, gather, &mut removed));
        let_go(removed);
        (!debris.is_short()).then_some(result)
    }

    pub async fn munmap(&self, addr: u64, len: u64) -> Result<()> {
        let range = page_range(untag(addr), len, Errno::EINVAL)?;
        if range.is_empty() {
            return Err(Errno::EINVAL);
        }
        let mut removed = Removed::new();
        let mut change = || self.change(|inner, gather| inner.unmap(range.clone(), gather, &mut removed));
        let mut answer = change();
        if answer.1.is_short() {
            answer = super::again(answer, change).await;
        }
        let (result, debris) = answer;
        let_go(removed);
        debris.free().await;
        result
    }
}

const FIXED: MapFlags = MapFlags::FIXED.union(MapFlags::FIXED_NOREPLACE);

/// Everything that can be refused without looking at what is mapped. Answers the length in whole pages and the flags.
fn check(request: &MmapRequest) -> Result<(u64, VmaFlags)> {
    let len = check_len(request)?;
    let flags = vma_flags(request)?;
    if request.flags.intersects(FIXED) {
        check_fixed(request.addr, len, request.flags.contains(MapFlags::LOW))?;
    }
    // Of a file that is shared nothing is promised; memory that is shared has room for all of it.
    let promised =
        if flags.contains(VmaFlags::SHARED) { request.source.is_none() } else { request.prot.contains(Prot::WRITE) };
    if promised && !flags.contains(VmaFlags::NORESERVE) {
        overcommit::check(len)?;
    }
    Ok((len, flags))
}

fn check_len(request: &MmapRequest) -> Result<u64> {
    if request.len == 0 {
        return Err(Errno::EINVAL);
    }
    let len = page_up(request.len).filter(|&len| len <= USER_END).ok_or(Errno::ENOMEM)?;
    if request.source.is_some() {
        if !request.offset.is_multiple_of(PAGE) {
            return Err(Errno::EINVAL);
        }
        request.offset.checked_add(len).filter(|&end| end <= i64::MAX as u64).ok_or(Errno::EOVERFLOW)?;
    }
    Ok(len)
}

fn check_fixed(addr: u64, len: u64, may_be_low: bool) -> Result<()> {
    if !addr.is_multiple_of(PAGE) {
        return Err(Errno::EINVAL);
    }
    if addr.checked_add(len).is_none_or(|end| end > USER_END) {
        return Err(Errno::ENOMEM);
    }
    if addr < MMAP_MIN_ADDR && !may_be_low {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// The flags of the mapping, once the file has agreed to it.
fn vma_flags(request: &MmapRequest) -> Result<VmaFlags> {
    let mut flags = VmaFlags::empty();
    let pairs = [
        (MapFlags::SHARED, VmaFlags::SHARED),
        (MapFlags::GROWSDOWN, VmaFlags::GROWSDOWN),
        (MapFlags::LOCKED, VmaFlags::LOCKED),
        (MapFlags::NORESERVE, VmaFlags::NORESERVE),
        (MapFlags::STACK, VmaFlags::STACK),
    ];
    for (map, vma) in pairs {
        flags.set(vma, request.flags.contains(map));
    }
    let Some(source) = &request.source else {
        if request.flags.contains(MapFlags::GROWSDOWN | MapFlags::SHARED) {
            return Err(Errno::EINVAL);
        }
        return Ok(flags);
    };
    if request.flags.contains(MapFlags::GROWSDOWN) {
        return Err(Errno::EINVAL);
    }
    if !source.readable() {
        return Err(Errno::EACCES);
    }
    if flags.contains(VmaFlags::SHARED) && !source.writable() {
        if request.prot.contains(Prot::WRITE) {
            return Err(if source.sealed() { Errno::EPERM } else { Errno::EACCES });
        }
        flags |= VmaFlags::NO_WRITE;
    }
    if !source.executable() {
        if request.prot.contains(Prot::EXEC) {
            return Err(Errno::EPERM);
        }
        flags |= VmaFlags::NO_EXEC;
    }
    Ok(flags)
}

impl Inner {
    /// Adds a mapping to free space, if the limits allow it.
    pub(super) fn add(&mut self, start: u64, vma: Vma, limits: &Limits) -> Result<()> {
        self.check_room(vma.end - start, 0, &vma, limits, false)?;
        self.enter(start, vma);
        Ok(())
    }

    fn enter(&mut self, start: u64, vma: Vma) {
        if vma.flags.contains(VmaFlags::LOCKED) {
            self.locked += vma.end - start;
        }
        self.vmas.insert(start, vma);
        self.note_total();
    }

    /// Mapped bytes of a range.
    fn mapped_in(&self, range: &Range<u64>) -> u64 {
        let parts = self.vmas.overlapping(range.clone());
        parts.map(|(start, vma)| vma.end.min(range.end) - start.max(range.start)).sum()
    }

    /// May there be one mapping more, of so many bytes, of which some only replace others?
    fn check_room(&self, len: u64, replaced: u64, like: &Vma, limits: &Limits, lock_any: bool) -> Result<()> {
        if self.vmas.len() >= MAX_MAPPINGS {
            return Err(Errno::ENOMEM);
        }
        if !lock_any {
            self.check_locked(len, like, limits)?;
        }
        self.check_size(len - replaced, like, limits)
    }

    /// May the mappings be cut at the borders of the range, where they are to change?
    pub(super) fn can_cut(&self, range: &Range<u64>, changes: impl Fn(&Vma) -> bool) -> bool {
        let cuts = |at: u64| self.vmas.find(at).is_some_and(|(start, vma)| start < at && changes(vma));
        let len = self.vmas.len();
        len + 2 <= MAX_MAPPINGS || len + usize::from(cuts(range.start)) + usize::from(cuts(range.end)) <= MAX_MAPPINGS
    }

    /// May there be `len` bytes more like this mapping?
    pub(super) fn check_limits(&self, len: u64, like: &Vma, limits: &Limits) -> Result<()> {
        self.check_size(len, like, limits)?;
        self.check_locked(len, like, limits)
    }

    pub(super) fn check_size(&self, len: u64, like: &Vma, limits: &Limits) -> Result<()> {
        if self.vmas.total().saturating_add(len) > limits.address_space.load(Ordering::Relaxed) {
            return Err(Errno::ENOMEM);
        }
        let data_limit = limits.data.load(Ordering::Relaxed);
        if data_limit != u64::MAX && is_data(like) && self.data_size().saturating_add(len) > data_limit {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    pub(super) fn check_locked(&self, len: u64, like: &Vma, limits: &Limits) -> Result<()> {
        let locks = like.flags.contains(VmaFlags::LOCKED);
        if locks && self.locked.saturating_add(len) > limits.memlock.load(Ordering::Relaxed) {
            return Err(Errno::EAGAIN);
        }
        Ok(())
    }

    /// Takes everything in `range` out. The caller flushes, and drops `removed` after the lock.
    pub(super) fn unmap(&mut self, range: Range<u64>, gather: &mut Gather, removed: &mut Removed) -> Result<()> {
        if self.vmas.len() >= MAX_MAPPINGS
            && self.vmas.find(range.start).is_some_and(|(start, vma)| start < range.start && vma.end > range.end)
        {
            return Err(Errno::ENOMEM);
        }
        self.tables.unmap(range.clone(), gather)?;
        let locked = &mut self.locked;
        self.vmas.remove(range.clone(), |start, vma| {
            if vma.flags.contains(VmaFlags::LOCKED) {
                *locked = locked.saturating_sub(vma.end - start);
            }
            if !matches!(vma.backing, Backing::Anonymous) {
                removed.push(vma);
            }
        });
        if range.end > self.search_from {
            let above = self.vmas.find_from(range.end).map_or(self.mmap_base, |(start, vma)| hole_end(start, vma));
            self.search_from = above.min(self.mmap_base).max(self.search_from);
        }
        Ok(())
    }

    /// Finds room for `len` bytes: at `hint` if that is free, else as high as possible below the base, at a multiple of
    /// `align`.
    #[inline]
    pub(super) fn place(&mut self, hint: u64, len: u64, align: u64) -> Option<u64> {
        let hint = page_down(hint);
        if hint != 0 {
            let start = hint.max(MMAP_MIN_ADDR);
            let end = start.checked_add(len).filter(|&end| end <= USER_END);
            if end.is_some_and(|end| self.is_free(start..end)) {
                return Some(start);
            }
        }
        self.find_free(len, align).or_else(|| self.find_free(len, PAGE))
    }

    /// Room for `len` bytes at an address that is congruent to `like` in units of what a lowest-level table maps, so
    /// that whole tables can be moved there.
    pub(super) fn place_like(&mut self, like: u64, len: u64) -> Option<u64> {
        let block = tables::span(LEAF - 1);
        if len < block {
            return self.find_free(len, PAGE);
        }
        let start = self.find_free(len.checked_add(block)?, PAGE)?;
        Some(start + (like.wrapping_sub(start)) % block)
    }

    /// Nothing is mapped there, nor so close above that a stack could not grow.
    pub(super) fn is_free(&self, range: Range<u64>) -> bool {
        self.vmas.find_from(range.start).is_none_or(|(start, vma)| hole_end(start, vma) >= range.end)
    }

    /// First fit from the top. What is above `search_from` has no hole larger than `hole_above`.
    fn find_free(&mut self, len: u64, align: u64) -> Option<u64> {
        if len <= self.hole_above {
            self.restart_search();
        }
        if let Some(start) = self.search_down(len, align) {
            return Some(start);
        }
        if self.search_from < self.mmap_base {
            self.restart_search();
            if let Some(start) = self.search_down(len, align) {
                return Some(start);
            }
        }
        self.restart_search();
        self.search_up(len)
    }

    fn restart_search(&mut self) {
        self.search_from = self.mmap_base;
        self.hole_above = 0;
    }

    fn search_down(&mut self, len: u64, align: u64) -> Option<u64> {
        let mut top = self.search_from;
        loop {
            let below = self.vmas.before(top);
            let bottom = below.map_or(MMAP_MIN_ADDR, |(_, vma)| vma.end);
            let found = top.checked_sub(len).map(|start| start & !(align - 1)).filter(|&start| start >= bottom);
            if let Some(start) = found {
                self.search_from = start;
                self.hole_above = self.hole_above.max(top - len - start);
                return Some(start);
            }
            self.hole_above = self.hole_above.max(top.saturating_sub(bottom));
            let (start, vma) = below?;
            top = hole_end(start, vma);
        }
    }

    /// Between the base and the end of the user half, if nothing else is left.
    fn search_up(&self, len: u64) -> Option<u64> {
        let mut at = self.mmap_base;
        while at.checked_add(len)? <= USER_END {
            match self.vmas.find_from(at) {
                Some((start, vma)) if hole_end(start, vma) < at + len => at = vma.end,
                _ => return Some(at),
            }
        }
        None
    }

    /// Bytes that count for RLIMIT_DATA: private and writable, not a stack.
    pub(super) fn data_size(&self) -> u64 {
        self.vmas.iter().filter(|(_, vma)| is_data(vma)).map(|(start, vma)| vma.end - start).sum()
    }
}

pub(super) fn is_data(vma: &Vma) -> bool {
    vma.prot.contains(Prot::WRITE) && !vma.flags.intersects(VmaFlags::SHARED | VmaFlags::GROWSDOWN)
}

/// Where free space below this mapping ends.
pub(super) fn hole_end(start: u64, vma: &Vma) -> u64 {
    if vma.flags.contains(VmaFlags::GROWSDOWN) { start.saturating_sub(STACK_GUARD) } else { start }
}
