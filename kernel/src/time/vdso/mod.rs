//! The vDSO (vdso(7)): a page of code and a page of data that every program has mapped, so that it reads clocks without
//! entering the kernel and returns from signal handlers.
//!
//! The data page `[vvar]` lies right before the image `[vdso]`, which is how the code finds it.

mod image;

use core::sync::atomic::{AtomicU64, Ordering};

use crate::arch;
use crate::errno::{Errno, Result};
use crate::mm::space::Prot;
use crate::mm::{AddressSpace, Frame, PAGE_SIZE, alloc_zeroed};
use crate::sync::Once;

/// The pages that all programs share.
struct Pages {
    data: Frame,
    code: Frame,
}

static PAGES: Once<Pages> = Once::new();

/// Where a program has the vDSO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VdsoAddrs {
    /// AT_SYSINFO_EHDR.
    pub base: u64,
    /// The signal trampoline.
    pub sigreturn: u64,
}

/// The data page; `arch`'s vdso.s knows the offsets.
#[repr(C)]
struct Data {
    counter_base: AtomicU64,
    /// Nanoseconds per tick of the counter, times 2^32.
    mult: AtomicU64,
    realtime_offset: AtomicU64,
}

impl Pages {
    fn data(&self) -> &Data {
        // SAFETY: the page is owned by `self`, page-aligned, large enough, and any bits are valid atomics.
        unsafe { &*self.data.as_ptr().cast() }
    }
}

/// Builds the pages. Without memory for them there is no system to speak of.
pub(super) fn init() {
    let pages = (|| Ok::<_, Errno>(Pages { data: alloc_zeroed()?, code: alloc_zeroed()? }))();
    let Ok(pages) = pages else { panic!("no memory for the vDSO") };
    pages.code.copy_in(0, &image::build());
    let clock = arch::clock_params();
    pages.data().counter_base.store(clock.base, Ordering::Relaxed);
    pages.data().mult.store(clock.mult, Ordering::Relaxed);
    arch::paging::sync_icache(pages.code.as_ptr(), PAGE_SIZE);
    PAGES.call_once(|| pages);
}

/// Tells programs the difference between wall clock and monotonic clock.
pub(super) fn publish(realtime_offset: u64) {
    if let Some(pages) = PAGES.get() {
        pages.data().realtime_offset.store(realtime_offset, Ordering::Release);
    }
}

/// Maps the vDSO into a new address space.
pub fn map(mm: &AddressSpace) -> Result<VdsoAddrs> {
    const ATTEMPTS: u64 = 8;
    let pages = PAGES.get().ok_or(Errno::ENOMEM)?;
    let mut hint = 0;
    for _ in 0..ATTEMPTS {
        let base = mm.insert_special(hint, vec![pages.code.clone()], Prot::READ | Prot::EXEC, "[vdso]")?;
        let below = base - PAGE_SIZE as u64;
        if mm.insert_special(below, vec![pages.data.clone()], Prot::READ, "[vvar]")? == below {
            mm.meta().vdso = base;
            return Ok(VdsoAddrs { base, sigreturn: sigreturn(base) });
        }
        // Something is in the way: leave the pieces where they are, and try elsewhere.
        hint = base - (PAGE_SIZE as u64) * 64;
    }
    Err(Errno::ENOMEM)
}

fn sigreturn(base: u64) -> u64 {
    let [entry, ..] = arch::vdso::entries();
    base + (arch::vdso::CODE_OFFSET + entry) as u64
}

/// The trampoline that a handler without SA_RESTORER returns to. None before exec.
pub fn sigreturn_trampoline(mm: &AddressSpace) -> Option<u64> {
    let base = mm.meta().vdso;
    (base != 0).then(|| sigreturn(base))
}
