//! mremap(2): growing, shrinking and moving mappings with their pages; remap_file_pages(2).

use core::ops::Range;

use super::super::addr::{PAGE, USER_END, page_up, untag};
use super::super::overcommit;
use super::map::{MAX_MAPPINGS, MMAP_MIN_ADDR, Removed, let_go, page_range};
use super::tlb::Gather;
use super::types::{Limits, MapFlags, MmapRequest, MremapRequest};
use super::vma::{Backing, Prot, Vma, VmaFlags};
use super::{AddressSpace, Inner};
use crate::errno::{Errno, Result};

const MAYMOVE: u32 = 1;
const FIXED: u32 = 2;
const DONTUNMAP: u32 = 4;

impl AddressSpace {
    pub async fn mremap(&self, request: MremapRequest) -> Result<u64> {
        let request = MremapRequest { addr: untag(request.addr), ..request };
        let old = check(&request)?;
        let new_len = page_range(0, request.new_len, Errno::EINVAL)?.end;
        let mut removed = Removed::new();
        let mut change = || {
            self.change(|inner, gather| {
                if !inner.is_conformed(&old) {
                    return None;
                }
                let result = inner.remap(&request, old.clone(), new_len, &self.limits, gather, &mut removed);
                let locked = result
                    .is_ok_and(|at| inner.vmas.find(at).is_some_and(|(_, vma)| vma.flags.contains(VmaFlags::LOCKED)));
                Some((result, locked))
            })
        };
        let ((result, locked), debris) = loop {
            let mut answer = change();
            if answer.1.is_short() {
                answer = super::again(answer, &mut change).await;
            }
            match answer {
                (Some(result), debris) => break (result, debris),
                (None, _) => self.settle_in(&old).await?,
            }
        };
        let_go(removed);
        debris.free().await;
        let start = result?;
        let old_len = old.end - old.start;
        if locked && new_len > old_len {
            let _ = self.populate(start + old_len..start + new_len, None).await;
        }
        Ok(start)
    }
}

impl AddressSpace {
    /// For remap_file_pages(2): what maps the range as it is mapped. EINVAL unless all of it is one shared object, with the
    /// same rights.
    pub fn remap_request(&self, range: Range<u64>) -> Result<MmapRequest> {
        let inner = self.inner.lock();
        if !inner.vmas.covers(range.clone()) {
            return Err(Errno::EINVAL);
        }
        let (_, first) = inner.vmas.find(range.start).ok_or(Errno::EINVAL)?;
        let Backing::Source(mapped, _) = &first.backing else { return Err(Errno::EINVAL) };
        let same = |vma: &Vma| {
            let object = matches!(&vma.backing, Backing::Source(other, _) if other.same(mapped));
            object && vma.flags == first.flags && vma.prot == first.prot
        };
        if !first.is_shared() || !inner.vmas.overlapping(range.clone()).all(|(_, vma)| same(vma)) {
            return Err(Errno::EINVAL);
        }
        let mut flags = MapFlags::SHARED | MapFlags::FIXED | MapFlags::POPULATE | MapFlags::LOW;
        flags.set(MapFlags::LOCKED, first.flags.contains(VmaFlags::LOCKED));
        let source = Some(mapped.source().clone());
        Ok(MmapRequest { addr: range.start, len: range.end - range.start, prot: first.prot, flags, source, offset: 0 })
    }
}

fn check(request: &MremapRequest) -> Result<Range<u64>> {
    let flags = request.flags;
    if flags & !(MAYMOVE | FIXED | DONTUNMAP) != 0
        || flags & (FIXED | DONTUNMAP) != 0 && flags & MAYMOVE == 0
        || flags & DONTUNMAP != 0 && request.old_len != request.new_len
        || request.new_len == 0
    {
        return Err(Errno::EINVAL);
    }
    // A length that wraps when it is rounded up counts as none, in Linux.
    let old = page_range(request.addr, page_up(request.old_len).unwrap_or(0), Errno::EFAULT)?;
    if flags & FIXED != 0 {
        let new = page_range(request.new_addr, request.new_len, Errno::EINVAL)?;
        if new.start < old.end && old.start < new.end {
            return Err(Errno::EINVAL);
        }
        if new.start < MMAP_MIN_ADDR {
            return Err(Errno::EPERM);
        }
    }
    Ok(old)
}

impl Inner {
    fn remap(
        &mut self,
        request: &MremapRequest,
        mut old: Range<u64>,
        new_len: u64,
        limits: &Limits,
        gather: &mut Gather,
        removed: &mut Removed,
    ) -> Result<u64> {
        let must_move = request.flags & (FIXED | DONTUNMAP) != 0;
        self.vmas.settle();
        let (_, vma) = self.vmas.find(old.start).ok_or(Errno::EFAULT)?;
        let duplicate = old.is_empty();
        if duplicate && !vma.is_shared() {
            return Err(Errno::EINVAL);
        }
        if request.flags & DONTUNMAP != 0 && vma.flags.contains(VmaFlags::SPECIAL) {
            return Err(Errno::EINVAL);
        }
        let len = old.end - old.start;
        if new_len <= len && !duplicate {
            // The whole old range must be mapped only up to what is kept.
            if new_len < len {
                self.unmap(old.start + new_len..old.end, gather, removed)?;
                old.end = old.start + new_len;
            }
            if !must_move {
                return Ok(old.start);
            }
        }
        let (start, vma) = self.vmas.find(old.start).ok_or(Errno::EFAULT)?;
        if old.end > vma.end {
            return Err(Errno::EFAULT);
        }
        let vma_end = vma.end;
        let grown = new_len - (old.end - old.start);
        if let Backing::Source(..) = vma.backing {
            let offset = vma.source_offset(start, old.start);
            offset.checked_add(new_len).filter(|&end| end <= i64::MAX as u64).ok_or(Errno::EINVAL)?;
        }
        if grown > 0 && vma.flags.contains(VmaFlags::SPECIAL) {
            return Err(Errno::EFAULT);
        }
        let more = if request.flags & DONTUNMAP != 0 { new_len } else { grown };
        self.check_size(more, vma, limits)?;
        self.check_locked(grown, vma, limits)?;
        if vma.prot.contains(Prot::WRITE) && !vma.flags.intersects(VmaFlags::SHARED | VmaFlags::NORESERVE) {
            overcommit::check(grown)?;
        }
        let may_grow = !must_move && !duplicate && vma_end == old.end && new_len <= USER_END - old.start;
        if may_grow && self.is_free(old.end..old.start + new_len) {
            self.extend(old.start, vma_end, grown);
            return Ok(old.start);
        }
        if request.flags & MAYMOVE == 0 {
            return Err(Errno::ENOMEM);
        }
        self.relocate(request, old, new_len, duplicate, gather, removed)
    }

    /// Lets the mapping that covers `addr` and ends at `end` go on for `grown` bytes.
    fn extend(&mut self, addr: u64, end: u64, grown: u64) {
        let Some((start, vma)) = self.vmas.find(addr) else { return };
        let tail = Vma { end: end + grown, ..vma.part(end - start) };
        if tail.flags.contains(VmaFlags::LOCKED) {
            self.locked += grown;
        }
        self.vmas.insert(end, tail);
        self.note_total();
    }

    fn relocate(
        &mut self,
        request: &MremapRequest,
        old: Range<u64>,
        new_len: u64,
        duplicate: bool,
        gather: &mut Gather,
        removed: &mut Removed,
    ) -> Result<u64> {
        if self.vmas.len() + 3 > MAX_MAPPINGS {
            return Err(Errno::ENOMEM);
        }
        let target = if request.flags & FIXED != 0 {
            self.unmap(request.new_addr..request.new_addr + new_len, gather, removed)?;
            gather.flush();
            request.new_addr
        } else {
            // MREMAP_DONTUNMAP takes the address as a hint.
            let hint = if request.flags & DONTUNMAP != 0 { request.new_addr & !(PAGE - 1) } else { 0 };
            match hint {
                0 => self.place_like(old.start, new_len),
                hint => self.place(hint, new_len, PAGE),
            }
            .ok_or(Errno::ENOMEM)?
        };
        let (start, vma) = self.vmas.find(old.start).ok_or(Errno::EFAULT)?;
        let mut moved = Vma { end: target + new_len, ..vma.part(old.start - start) };
        // Nobody is told where it goes, so nobody handles its faults there.
        moved.unwatch();
        let locked = moved.flags.contains(VmaFlags::LOCKED);
        let keep_old = request.flags & DONTUNMAP != 0 || duplicate;
        if !duplicate {
            let len = (old.end - old.start).min(new_len);
            self.tables.prepare_move(old.start, target, len, gather)?;
            self.tables.move_pages(old.start, target, len, gather)?;
        }
        if locked {
            self.locked += new_len;
        }
        self.vmas.insert(target, moved);
        if !keep_old {
            self.unmap(old, gather, removed)?;
        } else if locked && !duplicate {
            // MREMAP_DONTUNMAP: the lock goes with the pages.
            self.lock_pages(old, VmaFlags::empty(), u64::MAX)?;
        }
        self.note_total();
        Ok(target)
    }
}
