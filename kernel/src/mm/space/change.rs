//! mprotect(2): other rights for what is mapped.

use core::ops::Range;
use core::sync::atomic::Ordering;

use super::super::addr::{PAGE, untag};
use super::super::frames::is_sole_block;
use super::super::frames::page::Pfn;
use super::super::overcommit;
use super::blocks::BLOCK;
use super::fault::{is_sole_owner, page_flags, sync_instructions};
use super::map::{is_data, page_range};
use super::tables::{BLOCK_COST, Leaf, Lowest, visit_table};
use super::tlb::Gather;
use super::vma::{Prot, Vma, VmaFlags};
use super::{AddressSpace, Inner, Limits};
use crate::arch::pte::{Pte, PteFlags};
use crate::errno::{Errno, Result};
use crate::exec;

/// Page entries that are looked at in one go.
const CHUNK: usize = 4096;

impl AddressSpace {
    /// mprotect(2) of so little that it can be done at once. None if there was no memory for that: then it is to be made again.
    pub fn mprotect_now(&self, addr: u64, len: u64, prot: Prot) -> Option<Result<()>> {
        if len > CHUNK as u64 / 2 * PAGE {
            return None;
        }
        let range = match page_range(untag(addr), len, Errno::ENOMEM) {
            Ok(range) if !range.is_empty() => range,
            other => return Some(other.map(drop)),
        };
        let (answer, debris) =
            self.change(|inner, gather| match inner.protect_whole(&range, prot, &self.limits, gather) {
                Some(()) => Ok(()),
                None => inner
                    .protect_and_conform(range, prot, &self.limits, gather)
                    .and_then(|done| done.conformed.and(done.result)),
            });
        if debris.is_short() { None } else { Some(answer) }
    }

    /// `grows_down` is PROT_GROWSDOWN: from the start of the stack that the range begins in.
    pub async fn mprotect(&self, addr: u64, len: u64, prot: Prot, grows_down: bool) -> Result<()> {
        let mut range = page_range(untag(addr), len, Errno::ENOMEM)?;
        if range.is_empty() {
            return Ok(());
        }
        let mut change = || {
            self.change(|inner, gather| {
                if grows_down {
                    let (start, vma) = inner.vmas.find(range.start).ok_or(Errno::ENOMEM)?;
                    if !vma.flags.contains(VmaFlags::GROWSDOWN) {
                        return Err(Errno::EINVAL);
                    }
                    range.start = start;
                }
                let done = inner.protect_and_conform(range.clone(), prot, &self.limits, gather)?;
                range.end = done.end;
                Ok((done.result, done.conformed))
            })
        };
        let mut answer = change();
        if answer.1.is_short() {
            answer = super::again(answer, change).await;
        }
        let (result, mut next) = answer.0?;
        // Mappings that others changed meanwhile are brought in line with what they are then.
        while let Ok(at) = next
            && at < range.end
        {
            exec::budget().await;
            let change = || self.change(|inner, gather| inner.conform(at..range.end, gather));
            let mut answer = change();
            if answer.1.is_short() {
                answer = super::again(answer, change).await;
            }
            next = answer.0;
        }
        next?;
        result
    }
}

/// What came of a change of rights.
struct Protected {
    /// How far mappings were changed, and what was in the way of more.
    end: u64,
    result: Result<()>,
    /// How far their pages are in line with that.
    conformed: Result<u64>,
}

impl Inner {
    /// Changes the rights of all of one mapping, with its pages, if they are within one table: nothing is cut, nothing is
    /// joined. None: it is not so, nothing has changed.
    #[inline]
    fn protect_whole(&mut self, range: &Range<u64>, prot: Prot, limits: &Limits, gather: &mut Gather) -> Option<()> {
        if (range.start ^ (range.end - 1)) >= BLOCK {
            return None;
        }
        // Where nothing is, it is joined at once: there may be a block later.
        let Ok(Lowest::Table(table)) = self.tables.lowest(range.start, gather) else { return None };
        let vma = self.vmas.exact(range)?;
        let counts = prot.contains(Prot::WRITE) && limits.data.load(Ordering::Relaxed) != u64::MAX;
        if counts || !may_protect(vma, prot) {
            return None;
        }
        vma.prot = prot;
        visit_table(table, range.clone(), |at, leaf| conform_page(vma, at, leaf, gather));
        Some(())
    }

    fn protect_and_conform(
        &mut self,
        range: Range<u64>,
        prot: Prot,
        limits: &Limits,
        gather: &mut Gather,
    ) -> Result<Protected> {
        // Before anything is changed: what follows needs no table any more, but for such as copies share.
        for border in [range.start, range.end] {
            self.tables.cut(border, gather)?;
        }
        let (end, result) = self.protect(range.clone(), prot, limits);
        let conformed = self.conform(range.start..end, gather);
        Ok(Protected { end, result, conformed })
    }

    /// Changes the VMAs from the start of the range on, up to the first hole or refusal. Answers how far it came.
    fn protect(&mut self, range: Range<u64>, prot: Prot, limits: &Limits) -> (u64, Result<()>) {
        if !self.can_cut(&range, |vma| vma.prot != prot) {
            return (range.start, Err(Errno::ENOMEM));
        }
        // What becomes data counts against its limit, as long as there is room in the address space for as much (Linux).
        let mut data_left = limits.data.load(Ordering::Relaxed);
        if data_left != u64::MAX {
            data_left = data_left.saturating_sub(self.data_size());
        }
        let space_left = limits.address_space.load(Ordering::Relaxed).saturating_sub(self.vmas.total());
        let mut end = range.start;
        let mut result = Ok(());
        self.vmas.update(range.clone(), |from, vma| {
            if from > end {
                return false;
            }
            if !may_protect(vma, prot) {
                result = Err(Errno::EACCES);
                return false;
            }
            let was_data = is_data(vma);
            let old = core::mem::replace(&mut vma.prot, prot);
            let len = vma.end - from;
            if !was_data && is_data(vma) {
                let promised = !vma.flags.contains(VmaFlags::NORESERVE);
                if len > data_left && len <= space_left || promised && overcommit::check(len).is_err() {
                    vma.prot = old;
                    result = Err(Errno::ENOMEM);
                    return false;
                }
                data_left = data_left.saturating_sub(len);
            }
            end = vma.end;
            true
        });
        if result.is_ok() && end < range.end {
            result = Err(Errno::ENOMEM);
        }
        (end, result)
    }

    /// Brings present pages from the start of `range` on in line with their VMAs; answers where to go on.
    fn conform(&mut self, range: Range<u64>, gather: &mut Gather) -> Result<u64> {
        let mut left = CHUNK;
        for (start, vma) in self.vmas.overlapping(range.clone()) {
            let part = start.max(range.start)..vma.end.min(range.end);
            let end = part.end;
            left = left.saturating_sub(1);
            let next = self.tables.visit(part, left, gather, &mut |at, leaf, gather| {
                left = left.saturating_sub(if leaf.get().is_block() { BLOCK_COST } else { 1 });
                conform_page(vma, at, leaf, gather);
            })?;
            if next < end || left == 0 {
                return Ok(next);
            }
        }
        Ok(range.end)
    }
}

fn may_protect(vma: &Vma, prot: Prot) -> bool {
    !(prot.contains(Prot::WRITE) && vma.flags.intersects(VmaFlags::NO_WRITE | VmaFlags::SPECIAL)
        || prot.contains(Prot::EXEC) && vma.flags.contains(VmaFlags::NO_EXEC))
}

#[inline]
fn conform_page(vma: &Vma, at: u64, leaf: Leaf, gather: &mut Gather) {
    let old = leaf.get();
    let new = conforming(vma, old);
    if new != old {
        leaf.change(new);
        gather.note(at);
    }
}

/// The entry of a present page as its mapping wants it. Write access is given only where a write fault would do no more
/// than that.
fn conforming(vma: &Vma, old: Pte) -> Pte {
    let mut flags = page_flags(vma) | (old.flags() & PteFlags::SW_UNCOUNTED);
    let is_sole_owner = |old: Pte| match old.is_block() {
        true => is_sole_block((old.address() / PAGE) as Pfn),
        false => is_sole_owner(old),
    };
    if old.is_block() {
        flags -= PteFlags::TABLE;
    }
    if old.is_block() {
        // Pages are made ready for instruction fetch one by one: the fetch that faults cuts the block up.
        flags |= PteFlags::UXN;
    }
    let was_writable = !old.flags().contains(PteFlags::READ_ONLY);
    if vma.prot.contains(Prot::WRITE) && (was_writable || !vma.is_shared() && is_sole_owner(old)) {
        flags -= PteFlags::READ_ONLY;
    }
    if old.flags().contains(PteFlags::UXN) && !old.is_block() {
        sync_instructions(vma, (old.address() / PAGE) as u32);
    }
    Pte::new(old.address(), flags)
}
