//! Names of kernel addresses. xtask fills the section `.ksyms` of the flat image after linking; unfilled, only
//! addresses are printed.
//!
//! Format, little endian: the bytes `PLXSYMS1`; count: u32; count + 1 entries of (offset of the code from the start
//! of the image: u32, offset of its name in the names: u32), ascending; then the names, UTF-8, each up to where the
//! next begins. The last entry is the end of the text, and of the names.

use super::layout::KERNEL;
use core::fmt;

unsafe extern "C" {
    static __ksyms_start: u8;
    static __ksyms_end: u8;
}

const MAGIC: &[u8] = b"PLXSYMS1";

/// Prints as `function+0x12` or as the bare address.
pub struct Name(pub u64);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match find(self.0) {
            Some((name, offset)) => write!(f, "{name}+{offset:#x}"),
            None if self.0 >= KERNEL => write!(f, "pollux+{:#x}", self.0 - KERNEL),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

fn find(address: u64) -> Option<(&'static str, u64)> {
    let start = &raw const __ksyms_start;
    let len = &raw const __ksyms_end as usize - start as usize;
    // SAFETY: the section, which nothing writes to.
    let table: &'static [u8] = unsafe { core::slice::from_raw_parts(start, len) };
    let word = |at: usize| Some(u32::from_le_bytes(table.get(at..at + 4)?.try_into().ok()?));
    if !table.starts_with(MAGIC) {
        return None;
    }
    let target = u32::try_from(address.checked_sub(KERNEL)?).ok()?;
    let count = word(8)? as usize;
    let code = |i: usize| word(12 + 8 * i);
    let name = |i: usize| word(16 + 8 * i);
    if target < code(0)? || target >= code(count)? {
        return None;
    }
    let (mut low, mut high) = (0, count);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if code(middle)? <= target { low = middle } else { high = middle }
    }
    let names = 12 + 8 * (count + 1);
    let bytes = table.get(names + name(low)? as usize..names + name(low + 1)? as usize)?;
    Some((core::str::from_utf8(bytes).ok()?, (target - code(low)?) as u64))
}
