//! What of a mapping is in memory, and with how many others, for /proc/PID/smaps.

use core::ops::{AddAssign, Range};

use super::super::addr::PAGE;
use super::super::frames::page::PageFlags;
use super::AddressSpace;
use super::present::Present;
use super::vma::{Backing, Vma, VmaFlags};

/// Parts of a byte in which shares are counted: a page that three map is a third of a page for each.
const PARTS: u64 = 4096;

/// Bytes in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub resident: u64,
    pub anon: u64,
    /// In blocks of 2 MiB.
    pub huge: u64,
    /// Of pages that nobody else maps, and of others.
    pub private: Content,
    pub shared: Content,
    /// Shares, by who maps a page.
    pub anon_share: Share,
    pub file_share: Share,
    /// Of shared memory and tmpfs.
    pub memory_share: Share,
    pub dirty_share: Share,
    pub locked_share: Share,
}

/// Bytes, by whether they are what is stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Content {
    pub clean: u64,
    pub dirty: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Share(u64);

impl Share {
    pub fn bytes(self) -> u64 {
        self.0 / PARTS
    }
}

impl AddAssign for Share {
    fn add_assign(&mut self, other: Share) {
        self.0 += other.0;
    }
}

impl AddAssign for Content {
    fn add_assign(&mut self, other: Content) {
        self.clean += other.clean;
        self.dirty += other.dirty;
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        self.resident += other.resident;
        self.anon += other.anon;
        self.huge += other.huge;
        self.private += other.private;
        self.shared += other.shared;
        self.anon_share += other.anon_share;
        self.file_share += other.file_share;
        self.memory_share += other.memory_share;
        self.dirty_share += other.dirty_share;
        self.locked_share += other.locked_share;
    }
}

impl Usage {
    /// Of all pages.
    pub fn share(&self) -> u64 {
        Share(self.anon_share.0 + self.file_share.0 + self.memory_share.0).bytes()
    }

    fn add(&mut self, present: &Present, kind: &Kind) {
        if present.is_lent() {
            return;
        }
        let (page, maps) = (present.page(), present.maps());
        let cached = page.has(PageFlags::CACHE);
        let share = Share(PAGE * PARTS / u64::from(maps));
        self.resident += PAGE;
        // What is in memory only has no place that it could be like.
        let dirty = kind.memory || !cached || page.flags().intersects(PageFlags::DIRTY | PageFlags::SHARED_WRITE);
        let content = if maps > 1 { &mut self.shared } else { &mut self.private };
        *(if dirty { &mut content.dirty } else { &mut content.clean }) += PAGE;
        if dirty {
            self.dirty_share += share;
        }
        if kind.locked {
            self.locked_share += share;
        }
        if present.in_block {
            self.huge += PAGE;
        }
        if !cached {
            self.anon += PAGE;
            self.anon_share += share;
        } else if kind.memory {
            self.memory_share += share;
        } else {
            self.file_share += share;
        }
    }
}

/// What kind of mapping it is.
struct Kind {
    memory: bool,
    locked: bool,
}

impl Kind {
    fn of(vma: &Vma) -> Kind {
        let memory = matches!(&vma.backing, Backing::Source(mapped, _) if mapped.source().cache().is_memory());
        Kind { memory, locked: vma.flags.contains(VmaFlags::LOCKED) }
    }
}

impl AddressSpace {
    /// What is in memory of the start of a range, up to the end of one table; and where to go on.
    pub fn usage(&self, range: Range<u64>) -> (Usage, u64) {
        let mut usage = Usage::default();
        let inner = self.inner.lock();
        let Some((start, vma)) = inner.vmas.find_from(range.start) else { return (usage, range.end) };
        let part = start.max(range.start)..vma.end.min(range.end);
        if part.is_empty() {
            return (usage, range.end);
        }
        let kind = Kind::of(vma);
        let next = inner.tables.present_in_next(part.clone(), &mut |present| usage.add(&present, &kind));
        (usage, next.min(part.end))
    }
}
