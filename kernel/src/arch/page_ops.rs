//! Whole-page operations, in assembly on the bare machine: they are most of the price of a page fault.

/// Fills a page with zeros.
///
/// # Safety
/// `page` must be page-aligned RAM of 4096 bytes that nobody else uses.
#[inline]
pub unsafe fn zero_page(page: *mut u8) {
    #[cfg(target_os = "none")]
    // SAFETY: DC ZVA zeroes aligned blocks of the size that DCZID_EL0 tells (Arm ARM C5.3.8: 2^BS words); a page is a
    // multiple of any of them up to 2 KiB. The kernel's linear map is cacheable, which DC ZVA needs.
    unsafe {
        core::arch::asm!(
            "mrs {step}, dczid_el0",
            "tbnz {step}, #4, 3f",
            "and {step}, {step}, #15",
            "mov {at}, #4",
            "lsl {step}, {at}, {step}",
            "add {end}, {page}, #4096",
            "2: dc zva, {page}",
            "add {page}, {page}, {step}",
            "cmp {page}, {end}",
            "b.lo 2b",
            "b 5f",
            "3: add {end}, {page}, #4096",
            "4: stp xzr, xzr, [{page}], #16",
            "cmp {page}, {end}",
            "b.lo 4b",
            "5:",
            page = inout(reg) page => _,
            step = out(reg) _,
            at = out(reg) _,
            end = out(reg) _,
            options(nostack)
        );
    }
    #[cfg(not(target_os = "none"))]
    // SAFETY: by the contract.
    unsafe {
        page.write_bytes(0, 4096)
    }
}

/// Copies a page.
///
/// # Safety
/// Both must be page-aligned RAM of 4096 bytes; nobody else may use `to`.
#[inline]
pub unsafe fn copy_page(to: *mut u8, from: *const u8) {
    #[cfg(target_os = "none")]
    // SAFETY: reads and writes exactly 4096 bytes each; general registers only, so no FP state is touched.
    unsafe {
        core::arch::asm!(
            "add {end}, {from}, #4096",
            "2: ldp {a}, {b}, [{from}]",
            "ldp {c}, {d}, [{from}, #16]",
            "ldp {e}, {f}, [{from}, #32]",
            "ldp {g}, {h}, [{from}, #48]",
            "add {from}, {from}, #64",
            "stp {a}, {b}, [{to}]",
            "stp {c}, {d}, [{to}, #16]",
            "stp {e}, {f}, [{to}, #32]",
            "stp {g}, {h}, [{to}, #48]",
            "add {to}, {to}, #64",
            "cmp {from}, {end}",
            "b.lo 2b",
            from = inout(reg) from => _,
            to = inout(reg) to => _,
            end = out(reg) _,
            a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
            e = out(reg) _, f = out(reg) _, g = out(reg) _, h = out(reg) _,
            options(nostack)
        );
    }
    #[cfg(not(target_os = "none"))]
    // SAFETY: by the contract.
    unsafe {
        core::ptr::copy_nonoverlapping(from, to, 4096)
    }
}
