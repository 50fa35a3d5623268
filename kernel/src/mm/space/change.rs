//! mprotect(2): other rights for what is mapped.

use alloc::sync::Arc;
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
    /// mprotect(2) of so little that it can be done at once. None if it could not, for want of memory mostly: then it is to be
    /// made again.
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
                Some(()) => Some(Ok(())),
                None => match inner.protect_and_conform(range, prot, &self.limits, gather) {
                    // Pages are left to be brought in line: its own, or those of an earlier change.
                    Ok(_) if !inner.unconformed.is_empty() => None,
                    done => Some(done.and_then(|done| done.result)),
                },
            });
        if debris.is_short() { None } else { answer }
    }

    /// `grows_down` is PROT_GROWSDOWN: from the start of the stack that the range begins in.
    pub async fn mprotect(&self, addr: u64, len: u64, prot: Prot, grows_down: bool) -> Result<()> {
        let mut range = page_range(untag(addr), len, Errno::ENOMEM)?;
        if range.is_empty() {
            return Ok(());
        }
        let _changing = self.changing.lock().await;
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
                done.conformed.and(Ok(done.result))
            })
        };
        let mut answer = change();
        if answer.1.is_short() {
            answer = super::again(answer, change).await;
        }
        let result = answer.0?;
        self.settle().await?;
        result
    }

    /// Completes changes of rights. `changing` is locked, so that no other long one begins.
    async fn settle(&self) -> Result<()> {
        loop {
            let step = || self.change(Inner::conform_next);
            let mut answer = step();
            if answer.1.is_short() {
                answer = super::again(answer, step).await;
            }
            if answer.0? {
                return Ok(());
            }
            exec::budget().await;
        }
    }

    /// The same as [`AddressSpace::fork`], once all pages are in line with their mappings.
    pub async fn fork_after_change(&self) -> Result<Arc<Self>> {
        let _changing = self.changing.lock().await;
        loop {
            self.settle().await?;
            match self.fork() {
                // A short change came between, and lacked memory.
                Err(Errno::EAGAIN) => {}
                result => return result,
            }
        }
    }

    /// Completes changes of rights in a range whose pages are to move. They may begin anew as soon as this is done.
    pub(super) async fn settle_in(&self, range: &Range<u64>) -> Result<()> {
        if self.inner.lock().is_conformed(range) {
            return Ok(());
        }
        let _changing = self.changing.lock().await;
        self.settle().await
    }
}

/// What came of a change of rights.
struct Protected {
    /// How far mappings were changed, and what was in the way of more.
    end: u64,
    result: Result<()>,
    /// Whether their pages could be brought in line with that, as far as it was tried ([`Inner::unconformed`]).
    conformed: Result<()>,
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
        self.unconformed = match self.unconformed.is_empty() {
            true => range.start..end,
            false => self.unconformed.start.min(range.start)..self.unconformed.end.max(end),
        };
        let conformed = self.conform_next(gather).map(drop);
        Ok(Protected { end, result, conformed })
    }

    /// Are the pages of this range in line with their mappings?
    pub(super) fn is_conformed(&self, range: &Range<u64>) -> bool {
        let left = &self.unconformed;
        left.is_empty() || left.end <= range.start || range.end <= left.start
    }

    /// Brings some of the pages in line that are not; answers whether all are. Of mappings that others changed meanwhile, with
    /// what they are now.
    fn conform_next(&mut self, gather: &mut Gather) -> Result<bool> {
        let left = self.unconformed.clone();
        self.unconformed.start = self.conform(left, gather)?;
        Ok(self.unconformed.is_empty())
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
