//! The kernel's symbol table, put into its flat image after linking, so that a panic prints names.
//! The format is described in `kernel/src/arch/aarch64/symbols.rs`.

use anyhow::{Context, Result};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

const MAGIC: &[u8; 8] = b"PLXSYMS1";
/// Longer names are cut, more so if the table would not fit.
const NAME_LENGTHS: [usize; 5] = [120, 80, 50, 30, 16];

/// Fills the section `.ksyms` of `image`, the flattened `elf`. A kernel without the section stays as it is.
pub fn fill(elf: &[u8], image: &mut [u8]) -> Result<()> {
    let file = object::read::elf::ElfFile64::<object::LittleEndian>::parse(elf).context("not a 64-bit ELF file")?;
    let Some(section) = file.section_by_name(".ksyms") else { return Ok(()) };
    let text = file.section_by_name(".text").context("the kernel has no .text")?;
    let base = text.address();
    let symbols = functions(&file, text.index(), base);
    let room = section.size() as usize;
    let tables = NAME_LENGTHS.iter().map(|&length| table(&symbols, text.size() as u32, length));
    let table = tables.into_iter().find(|table| table.len() <= room).context("the symbols do not fit .ksyms")?;
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

fn table(symbols: &[(u32, String)], end: u32, longest: usize) -> Vec<u8> {
    let mut names = String::new();
    let mut out = MAGIC.to_vec();
    out.extend((symbols.len() as u32).to_le_bytes());
    for (offset, name) in symbols {
        out.extend(offset.to_le_bytes());
        out.extend((names.len() as u32).to_le_bytes());
        // The end of a path tells more than its beginning.
        let cut = name.len().saturating_sub(longest);
        names += &name[name.ceil_char_boundary(cut)..];
    }
    out.extend(end.to_le_bytes());
    out.extend((names.len() as u32).to_le_bytes());
    out.extend(names.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_laid_out_as_the_kernel_reads_it() {
        let bytes = table(&[(0, "_head".into()), (0x40, "core::fmt::write".into())], 0x100, 9);
        assert_eq!(&bytes[..8], MAGIC);
        let words: Vec<u32> = bytes[8..36].as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        assert_eq!(words, [2, 0, 0, 0x40, 5, 0x100, 14]);
        assert_eq!(&bytes[36..], b"_headmt::write");
    }
}
