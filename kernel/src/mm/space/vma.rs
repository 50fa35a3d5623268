//! What is mapped where: one [`Vma`] per range of equal properties. [`super::vma_map`] is the ordered map of them.

use alloc::borrow::Cow;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use bitflags::bitflags;

use super::super::addr::PAGE;
use super::super::frames::Frame;
use super::super::page_cache::{Mapped, PageSource};
use super::userfault::Watcher;

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
        /// MADV_HUGEPAGE.
        const HUGE = 1 << 10;
        /// MADV_NOHUGEPAGE.
        const NO_HUGE = 1 << 11;
        /// MAP_STACK: a thread's stack, of which but a little is used mostly.
        const STACK = 1 << 12;
        /// Beside LOCKED: pages are locked as they are touched, none is made present for it (MLOCK_ONFAULT).
        const LOCK_ON_FAULT = 1 << 13;
        const LOCK = Self::LOCKED.bits() | Self::LOCK_ON_FAULT.bits();
        /// A program handles faults in pages that are nowhere, or that are only not mapped ([`super::userfault`]).
        const WATCH_MISSING = 1 << 16;
        const WATCH_MINOR = 1 << 17;
        const WATCHED = Self::WATCH_MISSING.bits() | Self::WATCH_MINOR.bits();
    }
}

/// Frames that the kernel lends: vDSO, vvar, rings.
pub struct Special {
    pub name: Cow<'static, str>,
    pub frames: Vec<Frame>,
    /// What is to live as long as the mapping.
    pub keep: Option<Arc<dyn Any + Send + Sync>>,
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
    /// Who handles its faults, if it is watched.
    pub(super) watcher: Option<Arc<Watcher>>,
}

impl Vma {
    pub fn new(end: u64, prot: Prot, flags: VmaFlags, backing: Backing) -> Vma {
        Vma { end, prot, flags, backing, watcher: None }
    }

    pub fn is_shared(&self) -> bool {
        self.flags.contains(VmaFlags::SHARED)
    }

    pub fn source(&self) -> Option<&Arc<dyn PageSource>> {
        match &self.backing {
            Backing::Source(mapped, _) => Some(mapped.source()),
            _ => None,
        }
    }

    /// It was taken away: tells the source, if that wants to know.
    pub(super) fn tell_unmapped(&self) {
        if let Backing::Source(mapped, _) = &self.backing
            && mapped.is_attached()
        {
            mapped.source().unmapped();
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
    #[inline]
    pub fn part(&self, bytes: u64) -> Vma {
        let (prot, flags, backing) = (self.prot, self.flags, self.backing_at(bytes));
        Vma { end: self.end, prot, flags, backing, watcher: self.watcher.clone() }
    }

    fn backing_at(&self, bytes: u64) -> Backing {
        match &self.backing {
            Backing::Anonymous => Backing::Anonymous,
            Backing::Source(mapped, offset) => Backing::Source(mapped.clone(), offset + bytes),
            Backing::Special(special, index) => Backing::Special(special.clone(), index + bytes / PAGE),
        }
    }

    /// Can `next` (starting where this ends) be one mapping with this?
    #[inline]
    pub(super) fn merges_with(&self, start: u64, next: &Vma) -> bool {
        if self.prot != next.prot || self.flags != next.flags || self.flags.contains(VmaFlags::GROWSDOWN) {
            return false;
        }
        if !self.same_watcher(next) {
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
