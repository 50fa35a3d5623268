//! Words at any address. The target forbids the compiler accesses that are not aligned, because they fault before the MMU is
//! on: it would load a word byte by byte.

/// The little-endian word that these bytes are.
#[inline(always)]
pub fn le_u64(bytes: &[u8; 8]) -> u64 {
    #[cfg(target_os = "none")]
    {
        let word: u64;
        // SAFETY: it only reads eight bytes that may be read. They are in normal memory, where a load needs no alignment
        // (SCTLR_EL1.A is 0; Arm ARM B2.5.2), and no Rust code runs before the MMU is on.
        unsafe {
            core::arch::asm!(
                "ldr {}, [{}]",
                out(reg) word,
                in(reg) bytes.as_ptr(),
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        word
    }
    #[cfg(not(target_os = "none"))]
    u64::from_le_bytes(*bytes)
}
