//! Whole-page operations, in assembly on the bare machine: they are most of the price of a page fault.

/// Fills a page with zeros.
///
/// # Safety
/// `page` must be page-aligned RAM of 4096 bytes that nobody else uses.
#[inline]
pub unsafe fn zero_page(page: *mut u8) {
    // SAFETY: by the contract. On the bare machine this is `memset` of `mem.s`: DC ZVA, four lines a round.
    unsafe { page.write_bytes(0, 4096) }
}

/// Copies a page.
///
/// # Safety
/// Both must be page-aligned RAM of 4096 bytes; nobody else may use `to`.
#[inline]
pub unsafe fn copy_page(to: *mut u8, from: *const u8) {
    // SAFETY: by the contract. On the bare machine this is `memcpy` of `mem.s`: through the SIMD registers.
    unsafe { core::ptr::copy_nonoverlapping(from, to, 4096) }
}
