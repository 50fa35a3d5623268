//! What is mapped where: one [`Vma`] per range of equal properties, and the ordered map of them.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use bitflags::bitflags;

use super::super::addr::PAGE;
use super::super::frames::Frame;
use super::super::page_cache::{Mapped, PageSource};

bitflags! {
    /// PROT_* of mmap(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Prot: u32 {
        const READ = 1;
        const WRITE = 2;
        const EXEC = 4;
    }
}

bitflags! {
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct VmaFlags: u32 {
        const SHARED = 1 << 0;
        const GROWSDOWN = 1 << 1;
        const LOCKED = 1 << 2;
        const NORESERVE = 1 << 3;
        /// MADV_DONTFORK.
        const DONTFORK = 1 << 4;
        /// MADV_WIPEONFORK.
        const WIPEONFORK = 1 << 5;
        /// MADV_DONTDUMP.
        const DONTDUMP = 1 << 6;
        /// mprotect(2) must not add PROT_WRITE: a shared mapping of a file that was opened read-only.
        const NO_WRITE = 1 << 7;
        /// mprotect(2) must not add PROT_EXEC: a mapping of a file on a noexec mount.
        const NO_EXEC = 1 << 8;
        /// May not be changed or split apart (vDSO); munmap of the whole is fine.
        const SPECIAL = 1 << 9;
    }
}

/// Frames that the kernel lends: vDSO, vvar.
pub struct Special {
    pub name: &'static str,
    pub frames: Vec<Frame>,
}

/// Where the pages of a mapping come from.
#[derive(Clone)]
pub enum Backing {
    Anonymous,
    /// A file or shared memory object, from this offset (bytes, page-aligned) on.
    Source(Mapped, u64),
    /// Kernel pages, from this index on.
    Special(Arc<Special>, u64),
}

/// A range of one address space with the same properties; its start is the key in the map.
#[derive(Clone)]
pub struct Vma {
    pub end: u64,
    pub prot: Prot,
    pub flags: VmaFlags,
    pub backing: Backing,
}

impl Vma {
    pub fn is_shared(&self) -> bool {
        self.flags.contains(VmaFlags::SHARED)
    }

    pub fn source(&self) -> Option<&Arc<dyn PageSource>> {
        match &self.backing {
            Backing::Source(mapped, _) => Some(mapped.source()),
            _ => None,
        }
    }

    /// Offset in the source of `addr`, for a mapping that starts at `start`.
    pub fn source_offset(&self, start: u64, addr: u64) -> u64 {
        match &self.backing {
            Backing::Source(_, offset) => offset + (addr - start),
            _ => 0,
        }
    }

    /// The part from `bytes` after the start on.
    pub fn part(&self, bytes: u64) -> Vma {
        Vma { end: self.end, prot: self.prot, flags: self.flags, backing: self.backing_at(bytes) }
    }

    fn backing_at(&self, bytes: u64) -> Backing {
        match &self.backing {
            Backing::Anonymous => Backing::Anonymous,
            Backing::Source(mapped, offset) => Backing::Source(mapped.clone(), offset + bytes),
            Backing::Special(special, index) => Backing::Special(special.clone(), index + bytes / PAGE),
        }
    }

    /// Can `next` (starting where this ends) be one mapping with this?
    fn merges_with(&self, start: u64, next: &Vma) -> bool {
        if self.prot != next.prot || self.flags != next.flags || self.flags.contains(VmaFlags::GROWSDOWN) {
            return false;
        }
        match (&self.backing, &next.backing) {
            (Backing::Anonymous, Backing::Anonymous) => true,
            (Backing::Source(a, offset), Backing::Source(b, next_offset)) => {
                a.same(b) && offset + (self.end - start) == *next_offset
            }
            _ => false,
        }
    }
}

/// The mappings of one address space, by start. They never overlap and are never empty.
#[derive(Default)]
pub struct VmaMap {
    map: BTreeMap<u64, Vma>,
    /// Sum of all lengths, bytes.
    total: u64,
}

impl VmaMap {
    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Mapped bytes.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The mapping that covers `addr`.
    #[inline]
    pub fn find(&self, addr: u64) -> Option<(u64, &Vma)> {
        self.map.range(..=addr).next_back().map(|(&start, vma)| (start, vma)).filter(|(_, vma)| addr < vma.end)
    }

    /// The mapping that covers `addr` or the first one after it.
    pub fn find_from(&self, addr: u64) -> Option<(u64, &Vma)> {
        self.find(addr).or_else(|| self.map.range(addr..).next().map(|(&start, vma)| (start, vma)))
    }

    /// The last mapping that starts below `addr`.
    pub fn before(&self, addr: u64) -> Option<(u64, &Vma)> {
        self.map.range(..addr).next_back().map(|(&start, vma)| (start, vma))
    }

    /// Mappings that touch `range`, in order.
    pub fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = (u64, &Vma)> {
        let first = self.find(range.start).map_or(range.start, |(start, _)| start);
        self.map.range(first..range.end.max(first)).map(|(&start, vma)| (start, vma))
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &Vma)> {
        self.map.iter().map(|(&start, vma)| (start, vma))
    }

    /// Is every byte of `range` mapped?
    pub fn covers(&self, range: Range<u64>) -> bool {
        let mut at = range.start;
        for (start, vma) in self.overlapping(range.clone()) {
            if start > at {
                return false;
            }
            at = vma.end;
        }
        at >= range.end
    }

    /// Adds a mapping where there is none, joined with its neighbours if they are alike.
    pub fn insert(&mut self, start: u64, mut vma: Vma) {
        debug_assert!(start < vma.end);
        self.total += vma.end - start;
        if let Some(next) = self.map.get(&vma.end)
            && vma.merges_with(start, next)
        {
            let key = vma.end;
            if let Some(next) = self.map.remove(&key) {
                vma.end = next.end;
            }
        }
        if let Some((&before_start, before)) = self.map.range_mut(..start).next_back()
            && before.end == start
            && before.merges_with(before_start, &vma)
        {
            before.end = vma.end;
            return;
        }
        self.map.insert(start, vma);
    }

    /// Cuts the mapping that covers `addr` in two there.
    pub fn split_at(&mut self, addr: u64) {
        let Some((&start, vma)) = self.map.range_mut(..addr).next_back() else { return };
        if addr >= vma.end {
            return;
        }
        let tail = vma.part(addr - start);
        vma.end = addr;
        self.map.insert(addr, tail);
    }

    /// Takes everything in `range` out, splitting at its borders; calls `removed` with each piece.
    pub fn remove(&mut self, range: Range<u64>, mut removed: impl FnMut(u64, Vma)) {
        self.split_at(range.start);
        self.split_at(range.end);
        while let Some((&start, _)) = self.map.range(range.clone()).next() {
            if let Some(vma) = self.map.remove(&start) {
                self.total -= vma.end - start;
                removed(start, vma);
            }
        }
    }

    /// Moves the start of the mapping at `start` down to `new_start` (a stack that grows).
    pub fn grow_down(&mut self, start: u64, new_start: u64) {
        if let Some(vma) = self.map.remove(&start) {
            self.total += start - new_start;
            self.map.insert(new_start, vma);
        }
    }

    /// Changes the properties of all that is mapped in `range`, splitting and joining as needed.
    pub fn update(&mut self, range: Range<u64>, mut change: impl FnMut(&mut Vma)) {
        let mut at = range.start;
        while at < range.end {
            let Some((start, vma)) = self.find_from(at) else { break };
            if start >= range.end {
                break;
            }
            let (from, to) = (start.max(range.start), vma.end.min(range.end));
            let mut changed = Vma { end: to, ..vma.part(from - start) };
            change(&mut changed);
            at = to;
            if (changed.prot, changed.flags) == (vma.prot, vma.flags) {
                continue;
            }
            let tail = (to < vma.end).then(|| vma.part(to - start));
            if from == start {
                self.map.remove(&start);
            } else if let Some(head) = self.map.get_mut(&start) {
                head.end = from;
            }
            if let Some(tail) = tail {
                self.map.insert(to, tail);
            }
            self.total -= to - from;
            self.insert(from, changed);
        }
    }
}

impl Clone for VmaMap {
    /// What fork copies: without MADV_DONTFORK, locks not inherited (mlock(2)).
    fn clone(&self) -> Self {
        let special = VmaFlags::DONTFORK | VmaFlags::LOCKED;
        if !self.map.values().any(|vma| vma.flags.intersects(special)) {
            return VmaMap { map: self.map.clone(), total: self.total };
        }
        let mut copy = VmaMap::default();
        for (&start, vma) in &self.map {
            if !vma.flags.contains(VmaFlags::DONTFORK) {
                copy.insert(start, Vma { flags: vma.flags - VmaFlags::LOCKED, ..vma.clone() });
            }
        }
        copy
    }
}
