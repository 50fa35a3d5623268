//! Faults that a program handles (userfaultfd(2)): which mappings are watched, and pages that the handler brings.
//!
//! A watched mapping has a flag, [`VmaFlags::WATCH_MISSING`] or [`VmaFlags::WATCH_MINOR`], and its [`Watcher`]. Both stay
//! with every part of it, also when it grows, and nothing is joined with what somebody else watches. A copy of the space
//! is not watched, nor is what moves.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;

use super::super::addr::{PAGE, page_down};
use super::super::frames::{Frame, alloc_frame, alloc_zeroed};
use super::super::page_cache::BoxFuture;
use super::super::shortage;
use super::fault::{allows, anonymous, map_frame};
use super::tlb::Gather;
use super::vma::{Backing, Prot, Vma, VmaFlags};
use super::{AddressSpace, Inner};
use crate::arch::{Access, paging};
use crate::errno::{Errno, Result};

/// Who needs a page that is not there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Toucher {
    /// An instruction of the program.
    Program,
    /// A system call.
    Call,
    /// Somebody who looks at the memory of a process, for which nothing is to happen there: a file of /proc, a tracer. The
    /// protection of pages does not bind it; what it writes where the process may not is private to that.
    Onlooker,
}

/// A fault in a watched mapping.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    pub addr: u64,
    pub write: bool,
    /// The page is there, but not mapped.
    pub minor: bool,
    /// The kernel touched the memory, in a system call.
    pub kernel: bool,
}

/// What becomes of the access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is made again.
    Again,
    /// A signal comes first.
    Interrupted,
    /// SIGBUS, or EFAULT for the kernel.
    Refused,
}

/// Who handles faults.
pub trait FaultHandler: Send + Sync {
    /// Tells of a fault and waits. `must_wait` is asked after that: the page may have come meanwhile.
    fn report<'a>(&'a self, report: Report, must_wait: Box<dyn Fn() -> bool + Send + 'a>) -> BoxFuture<'a, Outcome>;

    /// Whoever waits for a page of this range makes his access again.
    fn wake(&self, range: Range<u64>);
}

/// What the mappings know of their handler, by which they also tell it from others. They do not keep it: its end takes
/// the mark off them ([`AddressSpace::forget_watcher`]).
pub struct Watcher {
    handler: Weak<dyn FaultHandler>,
}

impl Watcher {
    pub fn new(handler: Weak<dyn FaultHandler>) -> Arc<Watcher> {
        Arc::new(Watcher { handler })
    }
}

/// What a handler brings.
pub enum Fill<'a> {
    /// A page with these bytes.
    Bytes(&'a [u8]),
    Zero,
    /// The page that the file has.
    Cached,
}

impl Vma {
    /// Can faults in it be handled by a program? Not those of files on disk, nor of what belongs to the kernel.
    fn is_watchable(&self, modes: VmaFlags) -> bool {
        match &self.backing {
            Backing::Anonymous => !modes.contains(VmaFlags::WATCH_MINOR),
            Backing::Source(mapped, _) => self.is_shared() && mapped.source().cache().is_memory(),
            Backing::Special(..) => false,
        }
    }

    fn is_watched(&self) -> bool {
        self.flags.intersects(VmaFlags::WATCHED)
    }

    fn watch(&mut self, modes: VmaFlags, watcher: Option<&Arc<Watcher>>) {
        self.flags = (self.flags - VmaFlags::WATCHED) | modes;
        self.watcher = watcher.cloned();
    }

    pub(super) fn unwatch(&mut self) {
        self.watch(VmaFlags::empty(), None);
    }

    pub(super) fn same_watcher(&self, other: &Vma) -> bool {
        match (&self.watcher, &other.watcher) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }

    /// Is this fault in a page that is not mapped its watcher's? If so, whether the page is there.
    #[cold]
    pub(super) fn reports(&self, start: u64, addr: u64) -> Option<bool> {
        let Backing::Source(mapped, _) = &self.backing else {
            return self.flags.contains(VmaFlags::WATCH_MISSING).then_some(false);
        };
        let source = mapped.source();
        let index = self.source_offset(start, addr) / PAGE;
        if index >= source.file_size().div_ceil(PAGE) {
            return None;
        }
        let there = source.cache().lookup(index).is_some();
        let wanted = if there { VmaFlags::WATCH_MINOR } else { VmaFlags::WATCH_MISSING };
        self.flags.contains(wanted).then_some(there)
    }
}

impl AddressSpace {
    /// From now on faults in the mappings of a range are this watcher's.
    pub fn watch_faults(&self, range: Range<u64>, modes: VmaFlags, watcher: &Arc<Watcher>) -> Result<()> {
        let mut inner = self.inner.lock();
        inner.check_any(&range)?;
        for (_, vma) in inner.vmas.overlapping(range.clone()) {
            if !vma.is_watchable(modes) {
                return Err(Errno::EINVAL);
            }
            if vma.flags.contains(VmaFlags::NO_WRITE) {
                return Err(Errno::EPERM);
            }
            if vma.watcher.as_ref().is_some_and(|other| !Arc::ptr_eq(other, watcher)) {
                return Err(Errno::EBUSY);
            }
        }
        if !inner.can_cut(&range, |vma| !vma.flags.contains(modes)) {
            return Err(Errno::ENOMEM);
        }
        inner.vmas.update(range, |_, vma| {
            if !vma.flags.contains(modes) {
                vma.watch(modes, Some(watcher));
            }
            true
        });
        Ok(())
    }

    /// The end of that, for whoever's the range is; who waits there for a page gets it as if it had never been watched.
    pub fn unwatch_faults(&self, range: Range<u64>) -> Result<()> {
        let mut watchers: Vec<Arc<Watcher>> = Vec::new();
        {
            let mut inner = self.inner.lock();
            inner.check_any(&range)?;
            for (_, vma) in inner.vmas.overlapping(range.clone()) {
                if !vma.is_watchable(vma.flags) {
                    return Err(Errno::EINVAL);
                }
            }
            if !inner.can_cut(&range, Vma::is_watched) {
                return Err(Errno::ENOMEM);
            }
            inner.vmas.update(range.clone(), |_, vma| {
                if let Some(watcher) = &vma.watcher
                    && !watchers.last().is_some_and(|last| Arc::ptr_eq(last, watcher))
                {
                    watchers.push(watcher.clone());
                }
                vma.unwatch();
                true
            });
        }
        for handler in watchers.iter().filter_map(|watcher| watcher.handler.upgrade()) {
            handler.wake(range.clone());
        }
        Ok(())
    }

    /// The handler is gone, and so is what it watched.
    pub fn forget_watcher(&self, watcher: &Arc<Watcher>) {
        self.inner.lock().vmas.update(0..u64::MAX, |_, vma| {
            if vma.watcher.as_ref().is_some_and(|other| Arc::ptr_eq(other, watcher)) {
                vma.unwatch();
            }
            true
        });
    }

    /// ENOENT unless one watched mapping has all of the range; ESRCH if nobody lives here any more.
    pub fn check_watched(&self, range: &Range<u64>) -> Result<()> {
        let mut inner = self.inner.lock();
        inner.vmas.settle();
        if inner.vmas.is_empty() {
            return Err(Errno::ESRCH);
        }
        let found = inner.vmas.find(range.start).filter(|(_, vma)| vma.is_watched());
        found.filter(|(_, vma)| vma.end >= range.end).map(drop).ok_or(Errno::ENOENT)
    }

    /// Puts a page where there is none: EEXIST if there is one. Others see it whole or not at all.
    pub async fn fill_page(&self, addr: u64, fill: Fill<'_>) -> Result<()> {
        for _ in 0..shortage::TRIES {
            match self.try_fill(addr, &fill) {
                Err(Errno::ENOMEM) if Box::pin(shortage::wait_for_page()).await => {}
                result => return result,
            }
        }
        Err(Errno::ENOMEM)
    }

    fn try_fill(&self, addr: u64, fill: &Fill<'_>) -> Result<()> {
        let frame = match fill {
            Fill::Bytes(bytes) => {
                let frame = alloc_frame()?;
                frame.copy_in(0, bytes);
                Some(frame)
            }
            _ => None,
        };
        let zero = matches!(fill, Fill::Zero);
        let mut gather = self.gather();
        let mut inner = self.inner.lock();
        let result = inner.fill_page(addr, frame, zero, &mut gather);
        gather.flush();
        drop(inner);
        result
    }

    /// The page is still not there.
    fn must_wait(&self, addr: u64, access: Access) -> bool {
        let inner = self.inner.lock();
        let Some((start, vma)) = inner.vmas.find(addr) else { return false };
        vma.is_watched()
            && allows(vma.prot, access)
            && inner.tables.peek(addr).is_none()
            && vma.reports(start, page_down(addr)).is_some()
    }

    /// Has a fault handled.
    pub(super) async fn report(
        &self,
        watcher: Arc<Watcher>,
        addr: u64,
        access: Access,
        minor: bool,
        who: Toucher,
    ) -> Outcome {
        if who == Toucher::Onlooker {
            return Outcome::Refused;
        }
        // If it is gone, so is its mark.
        let Some(handler) = watcher.handler.upgrade() else { return Outcome::Again };
        let report = Report { addr, write: access == Access::Write, minor, kernel: who != Toucher::Program };
        handler.report(report, Box::new(move || self.must_wait(addr, access))).await
    }
}

impl Inner {
    /// ENOMEM if there are no mappings in the range or above, EINVAL if there are only such above.
    fn check_any(&self, range: &Range<u64>) -> Result<()> {
        let (start, _) = self.vmas.find_from(range.start).ok_or(Errno::ENOMEM)?;
        if start < range.end { Ok(()) } else { Err(Errno::EINVAL) }
    }

    fn fill_page(&mut self, addr: u64, frame: Option<Frame>, zero: bool, gather: &mut Gather) -> Result<()> {
        let (start, vma) = self.vmas.find(addr).ok_or(Errno::ENOENT)?;
        if !vma.is_watched() {
            return Err(Errno::ENOENT);
        }
        // Look first: nothing is to be cut up or copied only to find a page there.
        if self.tables.peek(addr).is_some() {
            return Err(Errno::EEXIST);
        }
        let leaf = self.tables.leaf(addr, gather)?;
        let writable = vma.prot.contains(Prot::WRITE);
        match (&vma.backing, frame) {
            (Backing::Anonymous, Some(frame)) => map_frame(leaf, vma, frame, writable),
            (Backing::Anonymous, None) if zero => anonymous(vma, leaf, Access::Read)?,
            (Backing::Source(mapped, _), frame) => {
                let source = mapped.source();
                let index = vma.source_offset(start, addr) / PAGE;
                if index >= source.file_size().div_ceil(PAGE) {
                    return Err(Errno::EFAULT);
                }
                let cache = source.cache();
                match frame {
                    Some(frame) => cache.insert_filled(index, frame)?,
                    None if zero => cache.insert_filled(index, alloc_zeroed()?)?,
                    None => {}
                }
                let page = cache.lookup(index).ok_or(Errno::EFAULT)?;
                map_frame(leaf, vma, page.into_frame(), writable);
            }
            _ => return Err(Errno::EINVAL),
        }
        paging::publish();
        Ok(())
    }
}
