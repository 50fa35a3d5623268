//! Names of kernel addresses. xtask fills the section `.ksyms` of the flat image after linking; unfilled, only
//! addresses are printed.
//!
//! Format, little endian: the bytes `PLXSYMS3`; the number of functions and that of words: 3 bytes each, as all numbers; for each function
//! (offset of its code from the start of the image, offset of its spelling), ascending, and once more for the
//! end of the text; for each word where its letters begin, and once more for the end; the spellings; the letters, UTF-8.
//! A spelling is a row of words: a byte below 192 is the number of one, others are with the byte behind them
//! (192 << 8) + number - 192.

use super::layout::KERNEL;
use core::fmt;

unsafe extern "C" {
    static __ksyms_start: u8;
    static __ksyms_end: u8;
}

const MAGIC: &[u8] = b"PLXSYMS3";

const SHORT: usize = 192;
/// Bytes of a number.
const NUMBER: usize = 3;
/// Where the functions begin.
const FUNCTIONS: usize = 8 + 2 * NUMBER;

/// Prints as `function+0x12` or as the bare address.
pub struct Name(pub u64);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = Table::get();
        match table.as_ref().and_then(|table| Some((table, table.find(self.0)?))) {
            Some((table, (function, offset))) => {
                table.spell(function, &mut |word| f.write_str(word))?;
                write!(f, "+{offset:#x}")
            }
            None if self.0 >= KERNEL => write!(f, "pollux+{:#x}", self.0 - KERNEL),
            None => write!(f, "{:#x}", self.0),
        }
    }
}

struct Table {
    bytes: &'static [u8],
    functions: usize,
    words: usize,
}

impl Table {
    fn get() -> Option<Table> {
        let start = &raw const __ksyms_start;
        let len = &raw const __ksyms_end as usize - start as usize;
        // SAFETY: the section, which nothing writes to.
        let bytes: &'static [u8] = unsafe { core::slice::from_raw_parts(start, len) };
        if !bytes.starts_with(MAGIC) {
            return None;
        }
        let table = Table { bytes, functions: 0, words: 0 };
        Some(Table { functions: table.number(8)?, words: table.number(8 + NUMBER)?, ..table })
    }

    fn number(&self, at: usize) -> Option<usize> {
        let bytes = self.bytes.get(at..at + NUMBER)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    fn code(&self, function: usize) -> Option<usize> {
        self.number(FUNCTIONS + 2 * NUMBER * function)
    }

    /// The function that an address lies in, and how far.
    fn find(&self, address: u64) -> Option<(usize, usize)> {
        let target = usize::try_from(address.checked_sub(KERNEL)?).ok()?;
        if target < self.code(0)? || target >= self.code(self.functions)? {
            return None;
        }
        let (mut low, mut high) = (0, self.functions);
        while high - low > 1 {
            let middle = (low + high) / 2;
            if self.code(middle)? <= target { low = middle } else { high = middle }
        }
        Some((low, target - self.code(low)?))
    }

    /// Tells the words of a function's name, as far as they can be read.
    fn spell(&self, function: usize, tell: &mut dyn FnMut(&str) -> fmt::Result) -> fmt::Result {
        let mut spelling = self.spelling(function).unwrap_or_default().iter().map(|&byte| usize::from(byte));
        while let Some(first) = spelling.next() {
            let number = match first {
                short if short < SHORT => short,
                long => ((long - SHORT) << 8) + spelling.next().unwrap_or(0) + SHORT,
            };
            tell(self.letters(number).unwrap_or("?"))?;
        }
        Ok(())
    }

    fn word_offsets(&self) -> usize {
        FUNCTIONS + 2 * NUMBER * (self.functions + 1)
    }

    fn spellings(&self) -> usize {
        self.word_offsets() + NUMBER * (self.words + 1)
    }

    fn spelling_offset(&self, function: usize) -> Option<usize> {
        self.number(FUNCTIONS + 2 * NUMBER * function + NUMBER)
    }

    fn spelling(&self, function: usize) -> Option<&'static [u8]> {
        let offset = |function: usize| Some(self.spellings() + self.spelling_offset(function)?);
        self.bytes.get(offset(function)?..offset(function + 1)?)
    }

    fn letters(&self, word: usize) -> Option<&'static str> {
        let letters = self.spellings() + self.spelling_offset(self.functions)?;
        let offset = |word: usize| Some(letters + self.number(self.word_offsets() + NUMBER * word)?);
        core::str::from_utf8(self.bytes.get(offset(word)?..offset(word + 1)?)?).ok()
    }
}
