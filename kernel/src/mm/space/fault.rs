//! Page faults: bringing one page of the tables in line with its VMA.
//!
//! [`AddressSpace::try_fault`] does everything that needs no waiting, under the lock. What is missing for more is named in its
//! answer: a page that must be read first, a block, a program that handles the fault. The future sees to it and tries
//! again, with what it has got.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::mem::ManuallyDrop;
use core::sync::atomic::Ordering;

use super::super::addr::{PAGE, USER_END, page_down, untag};
use super::super::frames::page::{PageFlags, frame_ptr, page};
use super::super::frames::{Block, Frame, alloc_frame, alloc_zeroed};
use super::super::page_cache::{self, CachePage, PageSource};
use super::super::shortage;
use super::huge::{self, Found, Wish};
use super::tables::Leaf;
use super::tlb::Gather;
use super::types::{FaultSignal, Limits};
use super::userfault::{Outcome, Toucher, Watcher};
use super::vma::{Backing, Prot, Vma, VmaFlags};
use super::{AddressSpace, Inner};
use crate::arch::pte::{Pte, PteFlags};
use crate::arch::{Access, UserFault, page_ops, paging};
use crate::errno::{Errno, Result};
use crate::exec;
use crate::sync::Once;

const SIGBUS: u8 = 7;
pub(super) const SIGKILL: u8 = 9;
const SIGSEGV: u8 = 11;
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
const BUS_ADRERR: i32 = 2;
pub(super) const SI_KERNEL: i32 = 0x80;

/// No stack grows closer than this to what is below it, and nothing is placed closer (bytes).
pub(super) const STACK_GUARD: u64 = 256 * PAGE;
/// Cached file pages that one read fault maps at once; aligned.
const AROUND: u64 = 16;

/// What an attempt found.
enum Step {
    Done,
    /// The same, and a page of this file became dirty.
    Dirtied(Arc<dyn PageSource>),
    Signal(u8, i32),
    /// This page of the source has to be read first.
    Read(Arc<dyn PageSource>, u64),
    /// A program handles it; with whether the page is there.
    Report(Arc<Watcher>, bool),
    /// A block of zeros can be mapped, if there is one.
    Block(Wish),
}

/// A page fault for which something has to be awaited, or that ends in a signal.
pub struct Unfinished(Result<Step>);

impl Unfinished {
    /// The signal, if the fault at `addr` ends in one whatever is awaited.
    #[inline]
    pub fn signal(&self, addr: u64) -> Option<FaultSignal> {
        match self.0 {
            Ok(Step::Signal(signo, code)) => Some(FaultSignal { signo, code, addr: untag(addr) }),
            _ => None,
        }
    }
}

/// What an attempt can use that an earlier one asked for.
#[derive(Default)]
struct Supply {
    /// The page that had to be read: held, so that it cannot be evicted meanwhile.
    page: Option<CachePage>,
    /// None: nobody has asked yet.
    block: Option<Option<Block>>,
    /// The protection does not count: see [`may_force`].
    force: bool,
}

/// The page of zeros that read faults of anonymous memory map.
static ZERO: Once<Frame> = Once::new();

fn zero_frame() -> Result<&'static Frame> {
    ZERO.try_call_once(alloc_zeroed)
}

impl AddressSpace {
    /// A user instruction faulted: makes the page present, if that can be done at once. Else the answer is for
    /// [`AddressSpace::finish_fault`].
    #[inline]
    pub fn fault_now(&self, addr: u64, access: Access) -> Option<Unfinished> {
        self.begin(addr, access, false)
    }

    #[inline]
    fn begin(&self, addr: u64, access: Access, force: bool) -> Option<Unfinished> {
        match self.try_fault(untag(addr), access, &mut Supply { force, ..Supply::default() }) {
            Ok(Step::Done) => None,
            step => Some(Unfinished(step)),
        }
    }

    /// Makes the page present, or says which signal the thread gets.
    pub fn handle_fault(&self, addr: u64, access: Access) -> impl Future<Output = Result<(), FaultSignal>> + Send + '_ {
        self.resolve(addr, access, Toucher::Program)
    }

    /// The same, for whose fault it is: a program that handles faults may want to know only of its own instructions'.
    pub(super) async fn resolve(&self, addr: u64, access: Access, who: Toucher) -> Result<(), FaultSignal> {
        match self.begin(addr, access, who == Toucher::Onlooker) {
            None => Ok(()),
            // Boxed, as it is rare: many futures have this one in them.
            Some(unfinished) => Box::pin(self.finish(unfinished, addr, access, who)).await,
        }
    }

    /// Goes on with the fault of a user instruction from where [`AddressSpace::fault_now`] came to.
    pub fn finish_fault(
        &self,
        begun: Unfinished,
        addr: u64,
        access: Access,
    ) -> impl Future<Output = Result<(), FaultSignal>> + Send + '_ {
        self.finish(begun, addr, access, Toucher::Program)
    }

    async fn finish(&self, begun: Unfinished, addr: u64, access: Access, who: Toucher) -> Result<(), FaultSignal> {
        let addr = untag(addr);
        let signal = |signo, code| FaultSignal { signo, code, addr };
        let mut supply = Supply { force: who == Toucher::Onlooker, ..Supply::default() };
        let mut step = begun.0;
        loop {
            match step {
                Ok(Step::Done) => return Ok(()),
                Ok(Step::Dirtied(source)) => {
                    source.cache().throttle().await;
                    return Ok(());
                }
                Ok(Step::Signal(signo, code)) => return Err(signal(signo, code)),
                Ok(Step::Read(source, index)) => match page_of(&source, index).await {
                    Ok(page) => supply.page = Some(page),
                    Err(Errno::ENOMEM) => return Err(signal(SIGKILL, SI_KERNEL)),
                    Err(_) => return Err(signal(SIGBUS, BUS_ADRERR)),
                },
                Ok(Step::Block(wish)) => supply.block = Some(huge::make_block(wish).await),
                Ok(Step::Report(watcher, minor)) => match self.report(watcher, addr, access, minor, who).await {
                    Outcome::Again => exec::budget().await,
                    // The instruction is tried again after the signal.
                    Outcome::Interrupted if who == Toucher::Program => return Ok(()),
                    Outcome::Interrupted | Outcome::Refused => return Err(signal(SIGBUS, BUS_ADRERR)),
                },
                Err(_) if page_cache::relieve().await => {}
                Err(_) => return Err(signal(SIGKILL, SI_KERNEL)),
            }
            step = self.try_fault(addr, access, &mut supply);
            supply.page = None;
        }
    }

    /// A kernel access to user memory faulted: makes the page present, or EFAULT. Tags are for user code only: what
    /// `arch::user` never reaches must not be answered with "try again".
    pub async fn fault_in(&self, fault: UserFault) -> Result<()> {
        if fault.addr >= USER_END {
            return Err(Errno::EFAULT);
        }
        for _ in 0..shortage::TRIES {
            match self.resolve(fault.addr, fault.access, Toucher::Call).await {
                Ok(()) => return Ok(()),
                Err(signal) if signal.is_shortage() && Box::pin(shortage::wait_for_page()).await => {}
                Err(_) => break,
            }
        }
        Err(Errno::EFAULT)
    }

    fn try_fault(&self, addr: u64, access: Access, supply: &mut Supply) -> Result<Step> {
        // Mostly there is nothing in it: then its drop, a call, is left out.
        let mut gather = ManuallyDrop::new(self.gather());
        let mut inner = self.inner.lock();
        let step = inner.fault(addr, access, &self.limits, supply, &mut gather);
        gather.flush();
        drop(inner);
        if !gather.is_idle() {
            drop(gather.finish());
        }
        step
    }
}

/// May memory of this protection be accessed so? The hardware cannot refuse reads of what may be written or executed.
pub(super) fn allows(prot: Prot, access: Access) -> bool {
    match access {
        Access::Read => !prot.is_empty(),
        Access::Write => prot.contains(Prot::WRITE),
        Access::Execute => prot.contains(Prot::EXEC),
    }
}

/// May memory be accessed so by a tracer, whatever its protection? What that writes must not be seen by others.
pub(super) fn may_force(vma: &Vma, access: Access) -> bool {
    access != Access::Write || !vma.flags.intersects(VmaFlags::SHARED | VmaFlags::SPECIAL)
}

/// Flags of a page entry in this mapping; read-only until somebody decides otherwise.
pub(super) fn page_flags(vma: &Vma) -> PteFlags {
    let mut flags = PteFlags::VALID
        | PteFlags::TABLE
        | PteFlags::INNER_SHAREABLE
        | PteFlags::NOT_GLOBAL
        | PteFlags::PXN
        | PteFlags::READ_ONLY;
    // Without the access flag, the kernel's own loads on the user's behalf fault on PROT_NONE, too.
    if !vma.prot.is_empty() {
        flags |= PteFlags::USER | PteFlags::ACCESSED;
    }
    if !vma.prot.contains(Prot::EXEC) {
        flags |= PteFlags::UXN;
    }
    if !vma.is_shared() {
        flags |= PteFlags::SW_PRIVATE;
    }
    flags
}

/// Before a frame is mapped executable.
pub(super) fn sync_instructions(vma: &Vma, pfn: u32) {
    if vma.prot.contains(Prot::EXEC) && !page(pfn).has(PageFlags::ICACHE_CLEAN) {
        paging::sync_icache(frame_ptr(pfn), PAGE as usize);
        page(pfn).set(PageFlags::ICACHE_CLEAN);
    }
}

/// Puts a frame into an empty entry.
pub(super) fn map_frame(leaf: Leaf, vma: &Vma, frame: Frame, writable: bool) {
    sync_instructions(vma, frame.pfn());
    let mut flags = page_flags(vma);
    if writable {
        flags -= PteFlags::READ_ONLY;
    }
    let address = frame.phys().get();
    let _ = frame.into_raw();
    leaf.fill(Pte::new(address, flags));
}

/// A private page that nobody else sees may be written in place.
pub(super) fn is_sole_owner(pte: Pte) -> bool {
    if pte.flags().contains(PteFlags::SW_UNCOUNTED) {
        return false;
    }
    let page = page((pte.address() / PAGE) as u32);
    page.refs() == 1 && !page.has(PageFlags::CACHE)
}

impl Inner {
    fn fault(
        &mut self,
        addr: u64,
        access: Access,
        limits: &Limits,
        supply: &mut Supply,
        gather: &mut Gather,
    ) -> Result<Step> {
        // The tables know no more bits of an address.
        if addr >= USER_END {
            return Ok(Step::Signal(SIGSEGV, SEGV_MAPERR));
        }
        let (start, vma) = match self.vmas.find(addr) {
            Some(found) => found,
            None => match self.grow_stack(addr, limits).then(|| self.vmas.find(addr)).flatten() {
                Some(found) => found,
                None => return Ok(Step::Signal(SIGSEGV, SEGV_MAPERR)),
            },
        };
        if !(allows(vma.prot, access) || supply.force && may_force(vma, access)) {
            return Ok(Step::Signal(SIGSEGV, SEGV_ACCERR));
        }
        let addr = page_down(addr);
        let above = self.tables.above(addr, gather)?;
        let leaf = match above.page_entry(addr) {
            Some(leaf) => leaf,
            None if supply.force => above.below(addr, gather)?,
            None => match huge::fault(vma, start, above, addr, access, limits, &mut supply.block, gather) {
                Found::Done => {
                    self.tables.note_block();
                    return Ok(Step::Done);
                }
                Found::Wish(wish) => return Ok(Step::Block(wish)),
                Found::Page => above.below(addr, gather)?,
            },
        };
        let pte = leaf.get();
        if pte.is_valid() {
            return present(vma, start, leaf, pte, addr, access, gather);
        }
        // A page that was just made is nobody's news.
        if let Some(watcher) = &vma.watcher
            && supply.page.is_none()
            && let Some(minor) = vma.reports(start, addr)
        {
            return Ok(Step::Report(watcher.clone(), minor));
        }
        match &vma.backing {
            Backing::Anonymous => {
                anonymous(vma, leaf, access)?;
                paging::publish();
                Ok(Step::Done)
            }
            Backing::Source(mapped, _) => {
                let source = mapped.source().clone();
                let step = file(vma, start, leaf, addr, access, &source)?;
                let around = access != Access::Write && !vma.flags.contains(VmaFlags::WATCH_MINOR);
                if matches!(step, Step::Done) && around {
                    fault_around(vma, start, leaf, addr, &source);
                }
                paging::publish();
                Ok(step)
            }
            Backing::Special(special, first) => {
                let Some(frame) = special.frames.get((first + (addr - start) / PAGE) as usize) else {
                    return Ok(Step::Signal(SIGBUS, BUS_ADRERR));
                };
                map_frame(leaf, vma, frame.clone(), vma.is_shared() && vma.prot.contains(Prot::WRITE));
                paging::publish();
                Ok(Step::Done)
            }
        }
    }

    /// Extends the stack that starts above `addr` down to it, if there is one and the limits allow.
    #[cold]
    fn grow_stack(&mut self, addr: u64, limits: &Limits) -> bool {
        let Some((start, vma)) = self.vmas.find_from(addr) else { return false };
        let new_start = page_down(addr);
        if !vma.flags.contains(VmaFlags::GROWSDOWN) || vma.end - new_start > limits.stack.load(Ordering::Relaxed) {
            return false;
        }
        let (grown, locked) = (start - new_start, vma.flags.contains(VmaFlags::LOCKED));
        if self.check_limits(grown, vma, limits).is_err() {
            return false;
        }
        if let Some((_, below)) = self.vmas.before(addr)
            && !below.prot.is_empty()
            && new_start < below.end.saturating_add(STACK_GUARD)
        {
            return false;
        }
        if new_start < super::map::MMAP_MIN_ADDR {
            return false;
        }
        if locked {
            self.locked += grown;
        }
        self.vmas.grow_down(start, new_start);
        self.note_total();
        true
    }
}

/// A page of a file that is not in the cache.
async fn page_of(source: &Arc<dyn PageSource>, index: u64) -> Result<CachePage> {
    let cache = source.cache();
    if cache.is_memory() {
        source.make_room(index).await?;
    }
    cache.get(index, source.file_size()).await
}

/// First touch of anonymous memory.
#[inline]
pub(super) fn anonymous(vma: &Vma, leaf: Leaf, access: Access) -> Result<()> {
    if access == Access::Write {
        map_frame(leaf, vma, alloc_zeroed()?, vma.prot.contains(Prot::WRITE));
    } else {
        let zero = zero_frame()?;
        sync_instructions(vma, zero.pfn());
        leaf.fill(Pte::new(zero.phys().get(), page_flags(vma) | PteFlags::SW_UNCOUNTED));
    }
    Ok(())
}

/// First touch of a page of a file or of shared memory.
fn file(vma: &Vma, start: u64, leaf: Leaf, addr: u64, access: Access, source: &Arc<dyn PageSource>) -> Result<Step> {
    let index = vma.source_offset(start, addr) / PAGE;
    if index >= source.file_size().div_ceil(PAGE) {
        return Ok(Step::Signal(SIGBUS, BUS_ADRERR));
    }
    let cache = source.cache();
    let Some(cached) = cache.lookup(index) else { return Ok(Step::Read(source.clone(), index)) };
    if access == Access::Write && !vma.is_shared() {
        let copy = alloc_frame()?;
        // SAFETY: both are frames that we hold; the copy is ours alone.
        unsafe { page_ops::copy_page(copy.as_ptr(), cached.frame().as_ptr()) };
        map_frame(leaf, vma, copy, vma.prot.contains(Prot::WRITE));
    } else if access == Access::Write {
        if source.modified().is_err() {
            return Ok(Step::Signal(SIGBUS, BUS_ADRERR));
        }
        cache.mark_shared_write(index, cached.frame());
        map_frame(leaf, vma, cached.into_frame(), true);
        return Ok(dirtied(source));
    } else {
        // Memory objects have nothing to write back, so nobody needs to know when they become dirty.
        let writable = vma.is_shared() && vma.prot.contains(Prot::WRITE) && cache.is_memory();
        map_frame(leaf, vma, cached.into_frame(), writable);
    }
    Ok(Step::Done)
}

/// Maps what is in the page cache around a page that was just mapped for reading. The last page of the file may be partial,
/// it is mapped too; pages beyond may still be in the cache while the file is made shorter, and must not be mapped again.
fn fault_around(vma: &Vma, start: u64, leaf: Leaf, addr: u64, source: &Arc<dyn PageSource>) {
    let from = (addr & !(AROUND * PAGE - 1)).max(start);
    let to = (addr | (AROUND * PAGE - 1)).saturating_add(1).min(vma.end);
    let first = vma.source_offset(start, from) / PAGE;
    let end = (first + (to - from) / PAGE).min(source.file_size().div_ceil(PAGE));
    let writable = vma.is_shared() && vma.prot.contains(Prot::WRITE) && source.cache().is_memory();
    source.cache().for_each_valid(first..end, |index, frame| {
        let near = leaf.near(addr, from + (index - first) * PAGE);
        if !near.get().is_valid() {
            map_frame(near, vma, frame, writable);
        }
    });
}

fn dirtied(source: &Arc<dyn PageSource>) -> Step {
    if source.cache().is_memory() { Step::Done } else { Step::Dirtied(source.clone()) }
}

/// The page is there: a write to a read-only one, or a translation that is out of date.
fn present(
    vma: &Vma,
    start: u64,
    leaf: Leaf,
    pte: Pte,
    addr: u64,
    access: Access,
    gather: &mut Gather,
) -> Result<Step> {
    let write = access == Access::Write && pte.flags().contains(PteFlags::READ_ONLY);
    if !write {
        // What the VMA allows is what the entry allows now: the TLB knew an older state (Arm ARM D8.16.1 permits that).
        let kept = PteFlags::READ_ONLY | PteFlags::SW_PRIVATE | PteFlags::SW_UNCOUNTED;
        let flags = (page_flags(vma) - kept) | (pte.flags() & kept);
        if flags != pte.flags() {
            sync_instructions(vma, (pte.address() / PAGE) as u32);
            leaf.change(Pte::new(pte.address(), flags));
        }
        gather.note_walk(addr);
        return Ok(Step::Done);
    }
    if pte.flags().contains(PteFlags::SW_PRIVATE) {
        copy_on_write(vma, leaf, pte, addr, gather)?;
        return Ok(Step::Done);
    }
    let mut step = Step::Done;
    if let Backing::Source(mapped, _) = &vma.backing {
        let index = vma.source_offset(start, addr) / PAGE;
        let source = mapped.source();
        if source.modified().is_err() {
            return Ok(Step::Signal(SIGBUS, BUS_ADRERR));
        }
        let pfn = (pte.address() / PAGE) as u32;
        // SAFETY: the entry holds a count of the frame, and cannot be emptied under the lock.
        let frame = unsafe { Frame::share_raw(pfn) };
        source.cache().mark_shared_write(index, &frame);
        step = dirtied(source);
    }
    leaf.change(Pte::new(pte.address(), pte.flags() - PteFlags::READ_ONLY));
    gather.note(addr);
    Ok(step)
}

/// A write to a private page that is shared with the page cache, with a copy of the space, or is the zero page.
fn copy_on_write(vma: &Vma, leaf: Leaf, pte: Pte, addr: u64, gather: &mut Gather) -> Result<()> {
    let writable = vma.prot.contains(Prot::WRITE);
    if is_sole_owner(pte) {
        let flags = if writable { page_flags(vma) - PteFlags::READ_ONLY } else { page_flags(vma) };
        leaf.change(Pte::new(pte.address(), flags));
        gather.note(addr);
        return Ok(());
    }
    let frame = if pte.flags().contains(PteFlags::SW_UNCOUNTED) {
        alloc_zeroed()?
    } else {
        let copy = alloc_frame()?;
        // SAFETY: the entry holds a count of the source; the copy is ours alone.
        unsafe { page_ops::copy_page(copy.as_ptr(), frame_ptr((pte.address() / PAGE) as u32)) };
        copy
    };
    // Break before make: no TLB may know both frames at once (Arm ARM D8.16.1).
    let old = leaf.take();
    gather.page(addr, old);
    gather.flush();
    map_frame(leaf, vma, frame, writable);
    paging::publish();
    Ok(())
}
