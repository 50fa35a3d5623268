//! The kernel's symbol table, put into its flat image after linking, so that a panic prints names.
//! The format is described in `kernel/src/arch/aarch64/symbols.rs`.

use std::cmp::Reverse;
use std::collections::HashMap;

use anyhow::{Context, Result};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

const MAGIC: &[u8; 8] = b"PLXSYMS3";
/// Longer names are cut, more so if the table would not fit.
const NAME_LENGTHS: [usize; 5] = [120, 80, 50, 30, 16];
/// So many words, the most frequent ones, take one byte in a name, the others two.
const SHORT: usize = 192;
const MAX_WORDS: usize = SHORT + (256 - SHORT) * 256;

/// Fills the section `.ksyms` of `image`, the flattened `elf`. A kernel without the section stays as it is.
pub fn fill(elf: &[u8], image: &mut [u8]) -> Result<()> {
    let file = object::read::elf::ElfFile64::<object::LittleEndian>::parse(elf).context("not a 64-bit ELF file")?;
    let Some(section) = file.section_by_name(".ksyms") else { return Ok(()) };
    let text = file.section_by_name(".text").context("the kernel has no .text")?;
    let base = text.address();
    let symbols = functions(&file, text.index(), base);
    let room = section.size() as usize;
    let mut tables = NAME_LENGTHS.iter().filter_map(|&length| table(&symbols, text.size() as u32, length));
    let table = tables.find(|table| table.len() <= room).context("the symbols do not fit .ksyms")?;
    let offset = section.address().checked_sub(base).context(".ksyms lies before .text")? as usize;
    image.get_mut(offset..offset + table.len()).context(".ksyms is not in the image")?.copy_from_slice(&table);
    Ok(())
}

/// Offset and name of every function, ascending, one for each offset.
fn functions<'a>(
    file: &object::read::elf::ElfFile64<'a, object::LittleEndian>,
    text: object::SectionIndex,
    base: u64,
) -> Vec<(u32, String)> {
    let named = file.symbols().filter(|symbol| symbol.section_index() == Some(text));
    let mut all: Vec<_> = named
        .filter(|symbol| matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Unknown | SymbolKind::Label))
        .filter_map(|symbol| {
            let name = symbol.name().ok().filter(|name| !name.is_empty() && !name.starts_with('$'))?;
            // Functions before bare labels at the same address.
            let rank = symbol.kind() != SymbolKind::Text;
            Some(((symbol.address() - base) as u32, rank, format!("{:#}", rustc_demangle::demangle(name))))
        })
        .collect();
    all.sort_unstable();
    all.dedup_by_key(|symbol| symbol.0);
    all.into_iter().map(|(offset, _, name)| (offset, name)).collect()
}

/// What is in the table.
fn number(number: usize) -> Option<[u8; 3]> {
    (number as u64).to_le_bytes().first_chunk().copied().filter(|_| number < 1 << 24)
}

/// None if the names have more words than can be told apart, or something is larger than numbers are.
fn table(symbols: &[(u32, String)], end: u32, longest: usize) -> Option<Vec<u8>> {
    let names: Vec<&str> = symbols.iter().map(|(_, name)| tail(name, longest)).collect();
    let words = words_by_use(&names);
    if words.len() > MAX_WORDS {
        return None;
    }
    let places: HashMap<&str, usize> = words.iter().enumerate().map(|(place, &word)| (word, place)).collect();
    let mut spellings = Vec::new();
    let mut out = MAGIC.to_vec();
    out.extend(number(symbols.len())?);
    out.extend(number(words.len())?);
    for ((offset, _), name) in symbols.iter().zip(&names) {
        out.extend(number(*offset as usize)?);
        out.extend(number(spellings.len())?);
        for word in words_of(name) {
            match places[word] {
                short if short < SHORT => spellings.push(short as u8),
                long => spellings.extend(((SHORT << 8) + long - SHORT).to_be_bytes().last_chunk::<2>()?),
            }
        }
    }
    out.extend(number(end as usize)?);
    out.extend(number(spellings.len())?);
    let mut letters = 0;
    for word in &words {
        out.extend(number(letters)?);
        letters += word.len();
    }
    out.extend(number(letters)?);
    out.extend(spellings);
    out.extend(words.concat().bytes());
    Some(out)
}

/// The end of a path tells more than its beginning.
fn tail(name: &str, longest: usize) -> &str {
    let cut = name.len().saturating_sub(longest);
    &name[name.ceil_char_boundary(cut)..]
}

/// Words end where an identifier comes after what is none.
fn words_of(name: &str) -> impl Iterator<Item = &str> {
    let in_identifier = |c: char| c.is_alphanumeric() || c == '_';
    let mut rest = name;
    std::iter::from_fn(move || {
        let tail = rest.trim_start_matches(in_identifier).trim_start_matches(|c| !in_identifier(c));
        let (word, after) = rest.split_at(rest.len() - tail.len());
        rest = after;
        (!word.is_empty()).then_some(word)
    })
}

/// Each word once, the most frequent first.
fn words_by_use<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let mut uses: HashMap<&str, usize> = HashMap::new();
    for word in names.iter().flat_map(|name| words_of(name)) {
        *uses.entry(word).or_default() += 1;
    }
    let mut words: Vec<&str> = uses.keys().copied().collect();
    words.sort_unstable_by_key(|&word| (Reverse(uses[word]), word));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_laid_out_as_the_kernel_reads_it() {
        let bytes = table(&[(0, "_head".into()), (0x40, "core::fmt::fmt::write".into())], 0x100, 15).unwrap();
        assert_eq!(&bytes[..8], MAGIC);
        let numbers = bytes[8..44].as_chunks().0.iter();
        let numbers: Vec<u32> = numbers.map(|&[a, b, c]| u32::from_le_bytes([a, b, c, 0])).collect();
        // Counts; offsets of code and spelling; offsets of letters.
        assert_eq!(numbers, [2, 3, 0, 0, 0x40, 1, 0x100, 4, 0, 5, 10, 15]);
        assert_eq!(&bytes[44..48], [1, 0, 0, 2], "fmt:: is the most frequent word");
        assert_eq!(&bytes[48..], b"fmt::_headwrite");
    }

    #[test]
    fn rare_words_take_two_bytes() {
        let name: String = (0..SHORT + 2).map(|i| format!("w{i:03}:")).collect();
        let bytes = table(&[(0, name.clone())], 4, name.len()).unwrap();
        let spelling = 14 + 6 * 2 + 3 * (SHORT + 3);
        let (short, long) = bytes[spelling..][..SHORT + 4].split_at(SHORT);
        assert!(short.iter().copied().eq(0..SHORT as u8));
        assert_eq!(long, [192, 0, 192, 1]);
    }
}
