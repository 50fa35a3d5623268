//! madvise(2), msync(2), mincore(2), mlock(2) and the like: calls that say something about what is mapped.

use alloc::sync::Arc;
use core::ops::Range;
use core::sync::atomic::Ordering;

use super::super::addr::{PAGE, page_down, page_up, untag};
use super::super::page_cache::PageSource;
use super::fault::allows;
use super::map::page_range;
use super::tlb::Gather;
use super::userfault::Toucher;
use super::vma::{Backing, Prot, Vma, VmaFlags};
use super::{AddressSpace, Inner};
use crate::arch::Access;
use crate::arch::pte::PteFlags;
use crate::errno::{Errno, Result};
use crate::exec;

/// madvise(2)'s advice values that Pollux knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Advice {
    /// NORMAL, RANDOM, SEQUENTIAL: nothing that a program can observe.
    Hint,
    /// COLD, PAGEOUT: the same, but not for what is locked.
    Cold,
    WillNeed,
    DontNeed,
    Free,
    Set(VmaFlags),
    Clear(VmaFlags),
    Huge(bool),
    Populate(Access),
    Remove,
}

impl Advice {
    fn decode(advice: u32) -> Result<Advice> {
        Ok(match advice {
            0..=2 => Advice::Hint,
            20 | 21 => Advice::Cold,
            3 => Advice::WillNeed,
            4 => Advice::DontNeed,
            8 => Advice::Free,
            10 => Advice::Set(VmaFlags::DONTFORK),
            11 => Advice::Clear(VmaFlags::DONTFORK),
            16 => Advice::Set(VmaFlags::DONTDUMP),
            17 => Advice::Clear(VmaFlags::DONTDUMP),
            18 => Advice::Set(VmaFlags::WIPEONFORK),
            19 => Advice::Clear(VmaFlags::WIPEONFORK),
            14 => Advice::Huge(true),
            15 => Advice::Huge(false),
            22 => Advice::Populate(Access::Read),
            23 => Advice::Populate(Access::Write),
            9 => Advice::Remove,
            // The KSM, memory-failure and collapse advice: like a kernel built without them.
            _ => return Err(Errno::EINVAL),
        })
    }
}

/// Most that MADV_WILLNEED reads ahead in one call (pages).
const WILLNEED: u64 = 512;

impl AddressSpace {
    pub async fn madvise(&self, addr: u64, len: u64, advice: u32) -> Result<()> {
        let advice = Advice::decode(advice)?;
        let addr = untag(addr);
        page_up(len).and_then(|len| addr.checked_add(len)).ok_or(Errno::EINVAL)?;
        let range = page_range(addr, len, Errno::ENOMEM)?;
        if range.is_empty() {
            return Ok(());
        }
        match advice {
            Advice::Populate(access) => return self.populate(range, Some(access)).await,
            Advice::Remove => return self.punch(range).await,
            Advice::WillNeed => self.read_ahead(range.clone()).await,
            _ => {}
        }
        let change = || {
            self.change(|inner, gather| {
                let result = inner.advise(range.clone(), advice, gather);
                // A hole in the range is reported after the rest was done.
                result.and_then(|()| if inner.vmas.covers(range.clone()) { Ok(()) } else { Err(Errno::ENOMEM) })
            })
        };
        let mut answer = change();
        if answer.1.is_short() {
            answer = super::again(answer, change).await;
        }
        let (result, debris) = answer;
        debris.free().await;
        result
    }

    /// Reads file pages of the range into the cache. Of memory objects there is nothing to be read.
    async fn read_ahead(&self, range: Range<u64>) {
        let mut at = range.start;
        let mut left = WILLNEED;
        while at < range.end && left > 0 {
            let is_stored = |vma: &Vma| vma.source().is_some_and(|source| !source.cache().is_memory());
            let Some((source, pages, end)) = self.source_from(at, range.end, is_stored) else { return };
            for index in pages.take(left as usize) {
                left -= 1;
                let size = source.file_size();
                if index * PAGE >= size || source.cache().get(index, size).await.is_err() {
                    break;
                }
                exec::budget().await;
            }
            at = end;
        }
    }

    /// Makes holes in what is mapped there, which others can write, too.
    async fn punch(&self, range: Range<u64>) -> Result<()> {
        let mut at = range.start;
        let mut result = Ok(());
        while at < range.end {
            let (source, pages, end) = {
                let inner = self.inner.lock();
                let Some((start, vma)) = inner.vmas.overlapping(at..range.end).next() else {
                    return Err(Errno::ENOMEM);
                };
                let Some(source) = vma.source().filter(|_| !vma.flags.contains(VmaFlags::LOCKED)) else {
                    return Err(Errno::EINVAL);
                };
                if !vma.is_shared() || vma.flags.contains(VmaFlags::NO_WRITE) {
                    return Err(Errno::EACCES);
                }
                let (from, to) = (start.max(at), vma.end.min(range.end));
                if from > at {
                    // A hole in the range is reported after the rest was done.
                    result = Err(Errno::ENOMEM);
                }
                let first = vma.source_offset(start, from) / PAGE;
                (source.clone(), first..first + (to - from) / PAGE, to)
            };
            source.punch(pages).await?;
            exec::budget().await;
            at = end;
        }
        result
    }

    /// The first wanted file mapping in `at..end`: what it maps, which pages, and where it ends.
    fn source_from(
        &self,
        at: u64,
        end: u64,
        wanted: impl Fn(&Vma) -> bool,
    ) -> Option<(Arc<dyn PageSource>, Range<u64>, u64)> {
        let inner = self.inner.lock();
        inner.vmas.overlapping(at..end).filter(|(_, vma)| wanted(vma)).find_map(|(start, vma)| {
            let source = vma.source()?.clone();
            let (from, to) = (start.max(at), vma.end.min(end));
            let first = vma.source_offset(start, from) / PAGE;
            Some((source, first..first + (to - from) / PAGE, to))
        })
    }

    /// MS_ASYNC = 1, MS_INVALIDATE = 2, MS_SYNC = 4.
    pub async fn msync(&self, addr: u64, len: u64, flags: u32) -> Result<()> {
        if flags & !7 != 0 || flags & 5 == 5 {
            return Err(Errno::EINVAL);
        }
        // A length that wraps when it is rounded up counts as none, in Linux.
        let range = page_range(untag(addr), page_up(len).unwrap_or(0), Errno::ENOMEM)?;
        let mut at = range.start;
        let covered = {
            let inner = self.inner.lock();
            let locked = inner.vmas.overlapping(range.clone()).any(|(_, vma)| vma.flags.contains(VmaFlags::LOCKED));
            if flags & 2 != 0 && locked {
                return Err(Errno::EBUSY);
            }
            inner.vmas.covers(range.clone())
        };
        while flags & 4 != 0 && at < range.end {
            let Some((source, pages, end)) = self.source_from(at, range.end, Vma::is_shared) else { break };
            source.sync(pages).await?;
            exec::budget().await;
            at = end;
        }
        if covered { Ok(()) } else { Err(Errno::ENOMEM) }
    }

    /// For mincore(2): one byte per page of the range, 1 for resident; ENOMEM if part of it is not mapped.
    pub fn residency(&self, addr: u64, resident: &mut [u8]) -> Result<()> {
        let range = page_range(untag(addr), resident.len() as u64 * PAGE, Errno::ENOMEM)?;
        let inner = self.inner.lock();
        if !inner.vmas.covers(range.clone()) {
            return Err(Errno::ENOMEM);
        }
        for (start, vma) in inner.vmas.overlapping(range.clone()) {
            let mut at = start.max(range.start);
            while at < vma.end.min(range.end) {
                let cached = || match vma.source() {
                    Some(source) => source.cache().lookup(vma.source_offset(start, at) / PAGE).is_some(),
                    None => false,
                };
                if let Some(byte) = resident.get_mut(((at - range.start) / PAGE) as usize) {
                    *byte = (inner.tables.peek(at).is_some() || cached()) as u8;
                }
                at += PAGE;
            }
        }
        Ok(())
    }

    /// mlock(2) and mlock2(2): `on_fault` locks pages only as they are touched. `limitless` is CAP_IPC_LOCK.
    pub async fn mlock(&self, addr: u64, len: u64, on_fault: bool, limitless: bool) -> Result<()> {
        let range = lock_range(addr, len)?;
        let limit = if limitless { u64::MAX } else { self.limits.memlock.load(Ordering::Relaxed) };
        self.inner.lock().lock_pages(range.clone(), lock_flags(on_fault), limit)?;
        self.populate(range, None).await.map_err(|_| Errno::ENOMEM)
    }

    pub async fn munlock(&self, addr: u64, len: u64) -> Result<()> {
        let range = lock_range(addr, len)?;
        self.inner.lock().lock_pages(range, VmaFlags::empty(), u64::MAX)
    }

    /// mlockall(2). With `limitless` (CAP_IPC_LOCK) the limit no longer counts in this space, for what is to be locked later.
    pub async fn mlockall(&self, current: bool, future: bool, on_fault: bool, limitless: bool) -> Result<()> {
        if limitless {
            self.limits.memlock.store(u64::MAX, Ordering::Relaxed);
        }
        let limit = self.limits.memlock.load(Ordering::Relaxed);
        let mut next = 0;
        {
            let mut inner = self.inner.lock();
            if current && inner.vmas.total() > limit {
                return Err(Errno::ENOMEM);
            }
            inner.lock_future = if future { lock_flags(on_fault) } else { VmaFlags::empty() };
            if current {
                inner.lock_all(lock_flags(on_fault));
            }
        }
        if !current {
            return Ok(());
        }
        while let Some(range) = self.range_from(next) {
            next = range.end;
            // Not all mappings can be populated (beyond the end of a file): that is no error here.
            let _ = self.populate(range, None).await;
        }
        Ok(())
    }

    pub fn munlockall(&self) {
        let mut inner = self.inner.lock();
        inner.lock_future = VmaFlags::empty();
        inner.lock_all(VmaFlags::empty());
    }

    fn range_from(&self, addr: u64) -> Option<Range<u64>> {
        let inner = self.inner.lock();
        inner.vmas.find_from(addr).map(|(start, vma)| start..vma.end)
    }

    /// Touches all pages of the range, each as its mapping allows: with `access` (EINVAL where that is not allowed), or as
    /// mlock(2) does it (write where that makes a private copy; nothing where pages are locked as they are touched). ENOMEM for
    /// holes, EFAULT for what cannot be touched.
    pub(super) async fn populate(&self, range: Range<u64>, access: Option<Access>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let (access, end) = {
                let inner = self.inner.lock();
                let (_, vma) = inner.vmas.find(at).ok_or(Errno::ENOMEM)?;
                let end = vma.end.min(range.end);
                let wanted = match access {
                    Some(access) if !allows(vma.prot, access) => return Err(Errno::EINVAL),
                    Some(access) => access,
                    None if vma.flags.contains(VmaFlags::LOCK_ON_FAULT) => {
                        at = end;
                        continue;
                    }
                    None if vma.prot.is_empty() => return Err(Errno::EFAULT),
                    None if vma.prot.contains(Prot::WRITE) && !vma.is_shared() => Access::Write,
                    None => Access::Read,
                };
                (wanted, end)
            };
            while at < end {
                match self.present_until(at, access) {
                    Some(next) => at = next,
                    None => {
                        let refused = |signal: super::FaultSignal| {
                            if signal.is_shortage() { Errno::ENOMEM } else { Errno::EFAULT }
                        };
                        self.resolve(at, access, Toucher::Call).await.map_err(refused)?;
                        at += PAGE;
                    }
                }
                exec::budget().await;
            }
        }
        Ok(())
    }

    /// Where what is at `addr` ends, if it is there and may be accessed so.
    fn present_until(&self, addr: u64, access: Access) -> Option<u64> {
        let inner = self.inner.lock();
        let flags = inner.tables.peek(addr)?.flags();
        let allowed =
            flags.contains(PteFlags::USER) && (access != Access::Write || !flags.contains(PteFlags::READ_ONLY));
        allowed.then(|| inner.tables.same_until(addr))
    }
}

/// mlock(2) takes any address: the range is widened to whole pages.
fn lock_range(addr: u64, len: u64) -> Result<Range<u64>> {
    let addr = untag(addr);
    let start = page_down(addr);
    // A length that wraps when it is rounded up counts as none, in Linux.
    let len = len.checked_add(addr - start).and_then(page_up).unwrap_or(0);
    start.checked_add(len).ok_or(Errno::EINVAL)?;
    page_range(start, len, Errno::ENOMEM)
}

fn lock_flags(on_fault: bool) -> VmaFlags {
    if on_fault { VmaFlags::LOCK } else { VmaFlags::LOCKED }
}

/// For [`super::VmaMap::update`]: locks mappings so, or unlocks them. What the kernel lends is in memory anyway, and does not count.
fn set_lock(lock: VmaFlags) -> impl FnMut(u64, &mut Vma) -> bool {
    move |_, vma| {
        if !vma.flags.contains(VmaFlags::SPECIAL) {
            vma.flags = (vma.flags - VmaFlags::LOCK) | lock;
        }
        true
    }
}

impl Inner {
    fn advise(&mut self, range: Range<u64>, advice: Advice, gather: &mut Gather) -> Result<()> {
        match advice {
            Advice::Hint | Advice::WillNeed | Advice::Populate(_) | Advice::Remove => Ok(()),
            Advice::Cold => {
                let fixed = VmaFlags::LOCKED | VmaFlags::SPECIAL;
                let refused = self.vmas.overlapping(range).any(|(_, vma)| vma.flags.intersects(fixed));
                if refused { Err(Errno::EINVAL) } else { Ok(()) }
            }
            Advice::DontNeed | Advice::Free => self.discard(range, advice == Advice::Free, gather),
            Advice::Set(flag) => {
                let refused = |vma: &Vma| flag == VmaFlags::WIPEONFORK && !matches!(vma.backing, Backing::Anonymous);
                if self.vmas.overlapping(range.clone()).any(|(_, vma)| refused(vma)) {
                    return Err(Errno::EINVAL);
                }
                self.change_flags(range, flag, VmaFlags::empty())
            }
            Advice::Clear(flag) => self.change_flags(range, VmaFlags::empty(), flag),
            Advice::Huge(true) => self.change_flags(range, VmaFlags::HUGE, VmaFlags::NO_HUGE),
            Advice::Huge(false) => self.change_flags(range, VmaFlags::NO_HUGE, VmaFlags::HUGE),
        }
    }

    /// EAGAIN (madvise(2)) if that made too many mappings.
    fn change_flags(&mut self, range: Range<u64>, set: VmaFlags, clear: VmaFlags) -> Result<()> {
        let changed = |vma: &Vma| (vma.flags - clear) | set;
        if !self.can_cut(&range, |vma| changed(vma) != vma.flags) {
            return Err(Errno::EAGAIN);
        }
        self.vmas.update(range, |_, vma| {
            vma.flags = changed(vma);
            true
        });
        Ok(())
    }

    /// Drops the pages: private memory reads as zeros or as the file again.
    fn discard(&mut self, range: Range<u64>, free: bool, gather: &mut Gather) -> Result<()> {
        for (start, vma) in self.vmas.overlapping(range.clone()) {
            if vma.flags.intersects(VmaFlags::LOCKED | VmaFlags::SPECIAL)
                || free && !matches!(vma.backing, Backing::Anonymous)
            {
                return Err(Errno::EINVAL);
            }
            self.tables.unmap(start.max(range.start)..vma.end.min(range.end), gather)?;
        }
        Ok(())
    }

    /// Locks so, or unlocks.
    pub(super) fn lock_pages(&mut self, range: Range<u64>, lock: VmaFlags, limit: u64) -> Result<()> {
        if !self.vmas.covers(range.clone()) {
            return Err(Errno::ENOMEM);
        }
        if !self.can_cut(&range, |vma| vma.flags & VmaFlags::LOCK != lock && !vma.flags.contains(VmaFlags::SPECIAL)) {
            return Err(Errno::ENOMEM);
        }
        let bytes = |flag| -> u64 {
            let these = self.vmas.overlapping(range.clone()).filter(|(_, vma)| vma.flags.contains(flag));
            these.map(|(start, vma)| vma.end.min(range.end) - start.max(range.start)).sum()
        };
        let (already, special) = (bytes(VmaFlags::LOCKED), bytes(VmaFlags::SPECIAL));
        if lock.is_empty() {
            self.locked = self.locked.saturating_sub(already);
            self.vmas.update(range, set_lock(lock));
            return Ok(());
        }
        let locked = self.locked + (range.end - range.start) - already;
        if locked > limit {
            return Err(if limit == 0 { Errno::EPERM } else { Errno::ENOMEM });
        }
        self.locked = locked - special;
        self.vmas.update(range, set_lock(lock));
        Ok(())
    }

    fn lock_all(&mut self, lock: VmaFlags) {
        let (mut next, mut locked) = (0, 0);
        while let Some((start, vma)) = self.vmas.find_from(next) {
            let range = start..vma.end;
            next = range.end;
            if !vma.flags.contains(VmaFlags::SPECIAL) {
                locked += range.end - range.start;
            }
            self.vmas.update(range, set_lock(lock));
        }
        self.locked = if lock.is_empty() { 0 } else { locked };
    }
}
