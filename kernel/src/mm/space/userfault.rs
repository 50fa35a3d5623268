//! Faults that a program handles (userfaultfd(2)): which ranges are watched, and pages that the handler brings.
//!
//! A watched mapping has a flag, [`VmaFlags::WATCH_MISSING`] or [`VmaFlags::WATCH_MINOR`]; whose it is says a list beside the
//! mappings. What is unmapped leaves its range in the list, where it does nothing until somebody watches there again.
//!
//! The list's lock is inside of the space's.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;

use super::super::addr::PAGE;
use super::super::frames::{Frame, alloc_zeroed};
use super::super::page_cache::BoxFuture;
use super::fault::{anonymous, map_frame};
use super::map::MAX_MAPPINGS;
use super::vma::{Backing, Prot, Vma, VmaFlags};
use super::{AddressSpace, Inner};
use crate::arch::{Access, paging};
use crate::errno::{Errno, Result};

/// A fault in a watched range.
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
}

/// What a handler brings.
pub enum Fill {
    Frame(Frame),
    Zero,
    /// The page that the file has.
    Cached,
}

/// The ranges that are watched in a space.
#[derive(Default)]
pub(super) struct Watched(Vec<(Range<u64>, Arc<dyn FaultHandler>)>);

impl Watched {
    pub(super) const fn new() -> Self {
        Watched(Vec::new())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn handler(&self, addr: u64) -> Option<&Arc<dyn FaultHandler>> {
        self.0.iter().find(|(range, _)| range.contains(&addr)).map(|(_, handler)| handler)
    }

    /// Takes a range out.
    fn carve(&mut self, hole: &Range<u64>) {
        let mut kept = Vec::new();
        for (range, handler) in self.0.drain(..) {
            for part in [range.start..range.end.min(hole.start), range.start.max(hole.end)..range.end] {
                if !part.is_empty() {
                    kept.push((part, handler.clone()));
                }
            }
        }
        self.0 = kept;
    }
}

fn same(a: &Arc<dyn FaultHandler>, b: &Arc<dyn FaultHandler>) -> bool {
    core::ptr::addr_eq(Arc::as_ptr(a), Arc::as_ptr(b))
}

impl Vma {
    /// Can faults in it be handled by a program? Shared memory and what belongs to no file.
    fn is_watchable(&self, modes: VmaFlags) -> bool {
        match &self.backing {
            Backing::Anonymous => !modes.contains(VmaFlags::WATCH_MINOR),
            Backing::Source(mapped, _) => self.is_shared() && mapped.source().cache().is_memory(),
            Backing::Special(..) => false,
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
    /// From now on faults in the mappings of a range are this handler's.
    pub fn watch_faults(&self, range: Range<u64>, modes: VmaFlags, handler: &Arc<dyn FaultHandler>) -> Result<()> {
        let mut inner = self.inner.lock();
        let mut watched = self.watched.lock();
        inner.check_watchable(&range, modes)?;
        for (start, vma) in inner.vmas.overlapping(range.clone()) {
            if vma.flags.contains(VmaFlags::NO_WRITE) {
                return Err(Errno::EPERM);
            }
            let other = watched.handler(start.max(range.start)).is_some_and(|other| !same(other, handler));
            if vma.flags.intersects(VmaFlags::WATCHED) && other {
                return Err(Errno::EBUSY);
            }
        }
        if inner.vmas.len() + 2 > MAX_MAPPINGS {
            return Err(Errno::ENOMEM);
        }
        inner.set_watched(&range, modes);
        watched.carve(&range);
        watched.0.push((range, handler.clone()));
        Ok(())
    }

    /// The end of that, for whoever's the range is.
    pub fn unwatch_faults(&self, range: Range<u64>) -> Result<()> {
        let mut inner = self.inner.lock();
        inner.check_watchable(&range, VmaFlags::empty())?;
        if inner.vmas.len() + 2 > MAX_MAPPINGS {
            return Err(Errno::ENOMEM);
        }
        inner.set_watched(&range, VmaFlags::empty());
        self.watched.lock().carve(&range);
        Ok(())
    }

    /// The handler is gone, and so is what it watched.
    pub fn forget_handler(&self, handler: &Arc<dyn FaultHandler>) {
        let mut inner = self.inner.lock();
        let mut gone = Vec::new();
        self.watched.lock().0.retain(|(range, other)| {
            let stays = !same(other, handler);
            if !stays {
                gone.push((range.clone(), other.clone()));
            }
            stays
        });
        for (range, _) in &gone {
            inner.set_watched(range, VmaFlags::empty());
        }
        drop(inner);
    }

    /// ENOENT unless one watched mapping has all of the range.
    pub fn check_watched(&self, range: &Range<u64>) -> Result<()> {
        let inner = self.inner.lock();
        let found = inner.vmas.find(range.start).filter(|(_, vma)| vma.flags.intersects(VmaFlags::WATCHED));
        found.filter(|(_, vma)| vma.end >= range.end).map(drop).ok_or(Errno::ENOENT)
    }

    /// Puts a page where there is none: EEXIST if there is one. Others see it whole or not at all.
    pub fn fill_page(&self, addr: u64, fill: Fill) -> Result<()> {
        let mut gather = self.gather();
        let mut inner = self.inner.lock();
        let result = inner.fill_page(addr, fill, &mut gather);
        gather.flush();
        drop(inner);
        result
    }

    /// The page is still not there.
    fn must_wait(&self, addr: u64, access: Access) -> bool {
        let mut gather = self.gather();
        let mut inner = self.inner.lock();
        let waits = inner.is_reported(addr, access, &mut gather);
        gather.flush();
        drop(inner);
        waits
    }

    /// Has a fault handled.
    pub(super) async fn report(&self, addr: u64, access: Access, minor: bool, kernel: bool) -> Outcome {
        let handler = self.watched.lock().handler(addr).cloned();
        let Some(handler) = handler else {
            // It is gone, and so is the mark; or the mapping has grown beyond what was registered, where nobody would answer.
            return if self.must_wait(addr, access) { Outcome::Refused } else { Outcome::Again };
        };
        let report = Report { addr, write: access == Access::Write, minor, kernel };
        handler.report(report, Box::new(move || self.must_wait(addr, access))).await
    }
}

impl Inner {
    fn check_watchable(&self, range: &Range<u64>, modes: VmaFlags) -> Result<()> {
        let mut some = false;
        for (_, vma) in self.vmas.overlapping(range.clone()) {
            some = true;
            if !vma.is_watchable(modes) {
                return Err(Errno::EINVAL);
            }
        }
        if some { Ok(()) } else { Err(Errno::EINVAL) }
    }

    fn set_watched(&mut self, range: &Range<u64>, modes: VmaFlags) {
        self.vmas.update(range.clone(), |_, vma| {
            vma.flags = (vma.flags - VmaFlags::WATCHED) | modes;
            true
        });
    }

    /// A copy of a space is not watched, nor is a mapping that moved.
    pub(super) fn unwatch_all(&mut self) {
        self.set_watched(&(0..u64::MAX), VmaFlags::empty());
    }

    fn is_reported(&mut self, addr: u64, access: Access, gather: &mut super::Gather) -> bool {
        let Some((start, vma)) = self.vmas.find(addr) else { return false };
        if !vma.flags.intersects(VmaFlags::WATCHED) || !super::fault::allows(vma.prot, access) {
            return false;
        }
        let Ok(leaf) = self.tables.leaf(addr & !(PAGE - 1), gather) else { return false };
        !leaf.get().is_valid() && vma.reports(start, addr).is_some()
    }

    fn fill_page(&mut self, addr: u64, fill: Fill, gather: &mut super::Gather) -> Result<()> {
        let (start, vma) = self.vmas.find(addr).ok_or(Errno::ENOENT)?;
        if !vma.flags.intersects(VmaFlags::WATCHED) {
            return Err(Errno::ENOENT);
        }
        let leaf = self.tables.leaf(addr, gather)?;
        if leaf.get().is_valid() {
            return Err(Errno::EEXIST);
        }
        let writable = vma.prot.contains(Prot::WRITE);
        match (&vma.backing, fill) {
            (Backing::Anonymous, Fill::Frame(frame)) => map_frame(leaf, vma, frame, writable),
            (Backing::Anonymous, Fill::Zero) => anonymous(vma, leaf, Access::Read)?,
            (Backing::Source(mapped, _), fill) => {
                let source = mapped.source();
                let index = vma.source_offset(start, addr) / PAGE;
                if index >= source.file_size().div_ceil(PAGE) {
                    return Err(Errno::EFAULT);
                }
                let cache = source.cache();
                match fill {
                    Fill::Frame(frame) => cache.insert_filled(index, frame)?,
                    Fill::Zero => cache.insert_filled(index, alloc_zeroed()?)?,
                    Fill::Cached => {}
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
