//! brk(2): the heap that grows up from the end of the program.

use core::ops::Range;
use core::sync::atomic::Ordering;

use super::super::addr::{PAGE, USER_END, page_up};
use super::super::overcommit;
use super::map::{Removed, let_go};
use super::tlb::Gather;
use super::types::Limits;
use super::vma::{Backing, Prot, Vma};
use super::{AddressSpace, Inner};

impl AddressSpace {
    /// Where the heap starts: exec calls it with the end of the program's data.
    pub fn set_brk_start(&self, addr: u64) {
        let mut inner = self.inner.lock();
        inner.brk_start = addr;
        inner.brk = addr;
    }

    /// The same as [`AddressSpace::brk`] if it takes but little time. None, with nothing done, if it may take more.
    pub fn brk_now(&self, addr: u64) -> Option<u64> {
        const MOST: u64 = 64 * PAGE;
        let mut removed = Removed::new();
        let (result, debris) = self.change(|inner, gather| {
            let frees_much = addr >= inner.brk_start && inner.brk.saturating_sub(addr) > MOST;
            if !inner.lock_future.is_empty() || frees_much {
                return None;
            }
            Some(inner.move_break(addr, &self.limits, gather, &mut removed).0)
        });
        let_go(removed);
        result.filter(|_| !debris.is_short())
    }

    /// Moves the break; answers where it is then, which is where it was if it cannot be moved.
    pub async fn brk(&self, addr: u64) -> u64 {
        let mut removed = Removed::new();
        let mut change = || self.change(|inner, gather| inner.move_break(addr, &self.limits, gather, &mut removed));
        let mut answer = change();
        if answer.1.is_short() {
            answer = super::again(answer, change).await;
        }
        let ((result, grown), debris) = answer;
        let_go(removed);
        debris.free().await;
        if let Some(range) = grown {
            let _ = self.populate(range, None).await;
        }
        result
    }
}

impl Inner {
    /// Answers the break, and what is to be populated because it is locked.
    fn move_break(
        &mut self,
        addr: u64,
        limits: &Limits,
        gather: &mut Gather,
        removed: &mut Removed,
    ) -> (u64, Option<Range<u64>>) {
        let (start, old) = (self.brk_start, self.brk);
        let (Some(old_end), Some(new_end)) = (page_up(old), page_up(addr)) else { return (old, None) };
        if addr < start || new_end > USER_END {
            return (old, None);
        }
        let mut grown = None;
        if new_end < old_end && self.unmap(new_end..old_end, gather, removed).is_err() {
            return (old, None);
        }
        if new_end > old_end {
            let vma = Vma::new(new_end, Prot::READ | Prot::WRITE, self.lock_future, Backing::Anonymous);
            let allowed = new_end - start <= limits.heap.load(Ordering::Relaxed)
                && overcommit::check(new_end - old_end).is_ok()
                && self.is_free(old_end..new_end);
            if !allowed || self.add(old_end, vma, limits).is_err() {
                return (old, None);
            }
            grown = (!self.lock_future.is_empty()).then_some(old_end..new_end);
        }
        self.brk = addr;
        (addr, grown)
    }
}
