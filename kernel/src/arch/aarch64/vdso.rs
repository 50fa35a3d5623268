//! The machine code of the vDSO, for `time::vdso` to wrap into an ELF image.

use core::arch::global_asm;
use core::slice;

global_asm!(include_str!("vdso.s"));

/// Where the code must be placed in the image. The data page lies one page before the image.
pub const CODE_OFFSET: usize = 0x800;

unsafe extern "C" {
    static vdso_code_start: u8;
    static vdso_code_end: u8;
    static vdso_rt_sigreturn: u8;
    static vdso_clock_gettime: u8;
    static vdso_gettimeofday: u8;
    static vdso_clock_getres: u8;
}

/// The code, position-independent.
pub fn code() -> &'static [u8] {
    let (start, end) = (&raw const vdso_code_start, &raw const vdso_code_end);
    // SAFETY: both symbols delimit one read-only section part that lives for ever.
    unsafe { slice::from_raw_parts(start, end as usize - start as usize) }
}

/// Offsets into the code of: rt_sigreturn, clock_gettime, gettimeofday, clock_getres.
pub fn entries() -> [usize; 4] {
    let start = &raw const vdso_code_start as usize;
    [
        &raw const vdso_rt_sigreturn as usize - start,
        &raw const vdso_clock_gettime as usize - start,
        &raw const vdso_gettimeofday as usize - start,
        &raw const vdso_clock_getres as usize - start,
    ]
}
