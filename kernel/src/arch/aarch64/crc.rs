//! CRC-32C by the instructions for it (Arm ARM, FEAT_CRC32), which nearly all CPUs have.

use super::cpu;
use core::arch::aarch64::{__crc32cb, __crc32cd};

/// What comes after `state` and these bytes, without inversion at either end. None: this CPU has no such instructions.
pub fn crc32c(state: u32, bytes: &[u8]) -> Option<u32> {
    // SAFETY: it has them.
    cpu::has_crc32().then(|| unsafe { by_instruction(state, bytes) })
}

/// # Safety
///
/// The CPU has FEAT_CRC32.
#[target_feature(enable = "crc")]
unsafe fn by_instruction(state: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    let state = words.iter().fold(state, |state, word| __crc32cd(state, crate::arch::le_u64(word)));
    rest.iter().fold(state, |state, &byte| __crc32cb(state, byte))
}
