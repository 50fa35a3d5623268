//! brk(2): the heap that grows up from the end of the program.

use core::sync::atomic::Ordering;

use super::super::addr::{USER_END, page_up};
use super::AddressSpace;
use super::fault::untag;
use super::map::Removed;
use super::vma::{Backing, Prot, Vma, VmaFlags};

impl AddressSpace {
    /// Where the heap starts: exec calls it with the end of the program's data.
    pub fn set_brk_start(&self, addr: u64) {
        let mut inner = self.inner.lock();
        inner.brk_start = addr;
        inner.brk = addr;
    }

    /// Moves the break; answers where it is then, which is where it was if it cannot be moved.
    pub async fn brk(&self, addr: u64) -> u64 {
        let addr = untag(addr);
        let mut gather = self.gather();
        let mut removed = Removed::new();
        let (result, grown) = {
            let mut inner = self.inner.lock();
            let (start, old) = (inner.brk_start, inner.brk);
            let (Some(old_end), Some(new_end)) = (page_up(old), page_up(addr)) else { return old };
            if addr < start || new_end > USER_END {
                return old;
            }
            let mut grown = None;
            if new_end < old_end {
                if inner.unmap(new_end..old_end, &mut gather, &mut removed).is_err() {
                    gather.flush();
                    return old;
                }
                gather.flush();
            } else if new_end > old_end {
                let heap = new_end - start.min(new_end);
                let vma = Vma {
                    end: new_end,
                    prot: Prot::READ | Prot::WRITE,
                    flags: if inner.lock_future { VmaFlags::LOCKED } else { VmaFlags::empty() },
                    backing: Backing::Anonymous,
                };
                let too_much = heap > self.limits.data.load(Ordering::Relaxed)
                    || super::map::check_overcommit(new_end - old_end).is_err();
                if too_much || !inner.is_free(old_end..new_end) || inner.add(old_end, vma, &self.limits).is_err() {
                    return old;
                }
                grown = inner.lock_future.then_some(old_end..new_end);
            }
            inner.brk = addr;
            (addr, grown)
        };
        drop(removed);
        Self::free(&mut gather).await;
        drop(gather);
        if let Some(range) = grown {
            let _ = self.populate(range, None).await;
        }
        result
    }
}
