//! Address arithmetic, the user root, and maintenance of TLBs and instruction caches.

use super::layout::{KERNEL, LINEAR, MMIO, MMIO_LIMIT, PAGE_SIZE, STACKS};
use super::{smp, tables};
use core::arch::asm;

/// Where physical memory is visible to the kernel (cacheable, read-write, never executable).
#[inline(always)]
pub fn phys_to_virt(pa: u64) -> *mut u8 {
    (pa | LINEAR) as *mut u8
}

/// Inverse of [`phys_to_virt`] for any kernel pointer (linear map, kernel image or kernel stack).
#[inline]
pub fn virt_to_phys(va: *const u8) -> u64 {
    let va = va as u64;
    if va < MMIO {
        va & !LINEAR
    } else if va >= KERNEL {
        tables::image_to_phys(va)
    } else {
        debug_assert!(va >= STACKS);
        smp::stack_to_phys(va)
    }
}

/// Maps device registers; the mapping is never removed.
pub fn map_mmio(pa: u64, size: u64) -> *mut u8 {
    assert!(pa < MMIO_LIMIT && size <= MMIO_LIMIT - pa, "device at {pa:#x} is out of reach");
    let start = pa & !(PAGE_SIZE - 1);
    let end = (pa + size).next_multiple_of(PAGE_SIZE);
    tables::map(MMIO + start, start, end - start, tables::DEVICE);
    (MMIO + pa) as *mut u8
}

/// Loads TTBR0_EL1 with this root and ASID on this CPU. Root 0 = the empty table.
#[inline]
pub fn set_user_root(root: u64, asid: u16) {
    let root = if root == 0 { tables::empty_root_phys() } else { root };
    // SAFETY: user mappings are no memory that Rust knows of.
    unsafe { asm!("msr ttbr0_el1, {}", "isb", in(reg) root | (asid as u64) << 48, options(nostack, preserves_flags)) }
}

/// Makes table writes visible to the walkers (DSB ISHST, ISB). Needed after making an entry valid.
#[inline]
pub fn publish() {
    // SAFETY: barriers.
    unsafe { asm!("dsb ishst", "isb", options(nostack, preserves_flags)) }
}

/// Operand of the TLBI instructions by address.
#[inline(always)]
fn tlbi_operand(asid: u16, va: u64) -> u64 {
    (asid as u64) << 48 | (va >> 12) & 0xfff_ffff_ffff
}

/// Invalidates one page's translations, last level, on all CPUs.
#[inline]
pub fn flush_page(asid: u16, va: u64) {
    // SAFETY: dropping cached translations is always sound; so below.
    unsafe {
        asm!("dsb ishst", "tlbi vale1is, {}", "dsb ish", "isb", in(reg) tlbi_operand(asid, va), options(nostack, preserves_flags))
    }
}

/// Like [`flush_page`] for `pages` pages from `va` on, with one wait for all.
pub fn flush_range(asid: u16, va: u64, pages: usize) {
    // SAFETY: see `flush_page`.
    unsafe {
        asm!("dsb ishst", options(nostack, preserves_flags));
        for page in 0..pages as u64 {
            asm!("tlbi vale1is, {}", in(reg) tlbi_operand(asid, va + page * PAGE_SIZE), options(nostack, preserves_flags));
        }
        asm!("dsb ish", "isb", options(nostack, preserves_flags));
    }
}

/// Invalidates a page's translations and the walk that led to them (a table descriptor changed), on all CPUs.
#[inline]
pub fn flush_walk(asid: u16, va: u64) {
    // SAFETY: see `flush_page`.
    unsafe {
        asm!("dsb ishst", "tlbi vae1is, {}", "dsb ish", "isb", in(reg) tlbi_operand(asid, va), options(nostack, preserves_flags))
    }
}

/// Invalidates everything of one ASID, on all CPUs.
#[inline]
pub fn flush_asid(asid: u16) {
    // SAFETY: see `flush_page`.
    unsafe {
        asm!("dsb ishst", "tlbi aside1is, {}", "dsb ish", "isb", in(reg) (asid as u64) << 48, options(nostack, preserves_flags))
    }
}

/// Invalidates all translations that this CPU alone knows (ASID roll-over).
pub fn flush_local() {
    // SAFETY: see `flush_page`.
    unsafe { asm!("dsb nshst", "tlbi vmalle1", "dsb nsh", "isb", options(nostack, preserves_flags)) }
}

/// Invalidates all translations on all CPUs.
pub fn flush_all() {
    // SAFETY: see `flush_page`.
    unsafe { asm!("dsb ishst", "tlbi vmalle1is", "dsb ish", "isb", options(nostack, preserves_flags)) }
}

/// Makes instructions written through the linear map at `va` visible to instruction fetch.
pub fn sync_icache(va: *const u8, len: usize) {
    let ctr: u64;
    // SAFETY: CTR_EL0 is readable.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
    let (start, end) = (va as u64, va as u64 + len as u64);
    if ctr & 1 << 28 == 0 {
        // No IDC: clean the data cache to the point of unification.
        for_lines(start, end, 4 << (ctr >> 16 & 15), |line| {
            // SAFETY: cleaning changes no contents.
            unsafe { asm!("dc cvau, {}", in(reg) line, options(nostack, preserves_flags)) }
        });
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
    if ctr & 1 << 29 == 0 {
        if ctr >> 14 & 3 == 3 {
            for_lines(start, end, 4 << (ctr & 15), |line| {
                // SAFETY: dropping instruction cache lines changes nothing.
                unsafe { asm!("ic ivau, {}", in(reg) line, options(nostack, preserves_flags)) }
            });
        } else {
            // Not PIPT: the line may be cached under the user's address, which differs from ours.
            // SAFETY: as above.
            unsafe { asm!("ic ialluis", options(nostack, preserves_flags)) };
        }
        // SAFETY: a barrier.
        unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
    }
    // SAFETY: a barrier.
    unsafe { asm!("isb", options(nostack, preserves_flags)) };
}

#[inline(always)]
fn for_lines(start: u64, end: u64, line_size: u64, each: impl Fn(u64)) {
    let mut line = start & !(line_size - 1);
    while line < end {
        each(line);
        line += line_size;
    }
}
