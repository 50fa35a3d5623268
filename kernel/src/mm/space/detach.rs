//! shmdt(2): taking away what one shmat(2) has mapped, wherever it was cut apart since.

use core::ops::Range;

use super::map::{Removed, let_go};
use super::vma::{Backing, Vma};
use super::{AddressSpace, Inner};
use crate::errno::{Errno, Result};
use crate::mm::page_cache::Mapped;

impl AddressSpace {
    /// Unmaps all parts of the attached object that begins at `addr`, or would, that are still where they were. EINVAL if
    /// there is none.
    pub async fn detach(&self, addr: u64) -> Result<()> {
        let mut removed = Removed::new();
        // Known after the first part is gone, in case the rest has to be tried again.
        let mut found: Option<Mapped> = None;
        let mut change = || {
            self.change(|inner, gather| {
                if found.is_none() {
                    found = inner.attached_at(addr);
                }
                let mapped = found.as_ref().ok_or(Errno::EINVAL)?;
                while let Some(range) = inner.part_of(mapped, addr) {
                    inner.unmap(range, gather, &mut removed)?;
                }
                Ok(())
            })
        };
        let mut answer = change();
        if answer.1.is_short() {
            answer = super::again(answer, change).await;
        }
        let (result, debris) = answer;
        let_go(removed);
        drop(found);
        debris.free().await;
        result
    }
}

/// The mapping is a part that is as far from `addr` as from the start of the object.
fn is_in_place(start: u64, vma: &Vma, addr: u64) -> Option<&Mapped> {
    match &vma.backing {
        Backing::Source(mapped, offset) if mapped.is_attached() && start.checked_sub(addr) == Some(*offset) => {
            Some(mapped)
        }
        _ => None,
    }
}

impl Inner {
    fn attached_at(&self, addr: u64) -> Option<Mapped> {
        let mut parts = self.vmas.iter().skip_while(|(start, _)| *start < addr);
        parts.find_map(|(start, vma)| is_in_place(start, vma, addr)).cloned()
    }

    fn part_of(&self, mapped: &Mapped, addr: u64) -> Option<Range<u64>> {
        let size = mapped.source().attached_size()?;
        let mut parts = self.vmas.overlapping(addr..addr.saturating_add(size));
        parts.find_map(|(start, vma)| {
            let mine = is_in_place(start, vma, addr).is_some_and(|other| other.same(mapped));
            mine.then_some(start..vma.end)
        })
    }
}
