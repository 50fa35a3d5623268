//! From a linked kernel to the flat `Image` that boot loaders take: the loadable segments at
//! their physical addresses, without what is only zeros at the end.

use anyhow::{Context, Result, bail, ensure};
use object::LittleEndian;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};

/// "ARM\x64" in Linux's Documentation/arch/arm64/booting.rst.
const MAGIC: &[u8; 4] = b"ARM\x64";
const MAGIC_OFFSET: usize = 0x38;
/// A linker script gone wrong would otherwise fill the disk.
const LARGEST: u64 = 64 << 20;

/// Makes the flat image of an ELF file.
pub fn from_elf(elf: &[u8]) -> Result<Vec<u8>> {
    let header = FileHeader64::<LittleEndian>::parse(elf).context("not a 64-bit ELF file")?;
    let endian = header.endian().context("not a little-endian ELF file")?;
    let segments: Vec<_> = header
        .program_headers(endian, elf)
        .context("no program headers")?
        .iter()
        .filter(|header| header.p_type(endian) == PT_LOAD && header.p_filesz(endian) > 0)
        .collect();
    let start = segments.iter().map(|s| s.p_paddr(endian)).min().context("nothing to load")?;
    let end = segments.iter().map(|s| s.p_paddr(endian) + s.p_filesz(endian)).max().unwrap_or(start);
    ensure!(end - start <= LARGEST, "its segments lie {} MiB apart", (end - start) >> 20);
    let mut image = vec![0; (end - start) as usize];
    for segment in segments {
        let data = segment.data(endian, elf).ok().context("a segment lies outside of the file")?;
        let offset = (segment.p_paddr(endian) - start) as usize;
        image[offset..][..data.len()].copy_from_slice(data);
    }
    check_header(&image)?;
    Ok(image)
}

/// The fields that boot loaders rely upon.
fn check_header(image: &[u8]) -> Result<()> {
    if image.get(MAGIC_OFFSET..MAGIC_OFFSET + 4) != Some(MAGIC) {
        bail!("it does not start with the header of an arm64 Image (no magic at 0x38)");
    }
    let field = |offset: usize| image[offset..].first_chunk().map_or(0, |bytes: &[u8; 8]| u64::from_le_bytes(*bytes));
    let (text_offset, image_size, flags) = (field(0x08), field(0x10), field(0x18));
    ensure!(image_size >= image.len() as u64, "its header claims {image_size} bytes, but {} are loaded", image.len());
    ensure!(text_offset < 2 << 20, "its text offset {text_offset:#x} exceeds 2 MiB");
    ensure!(flags & 1 == 0, "its header says big-endian");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_checked() {
        let mut image = vec![0u8; 64];
        assert!(check_header(&image).is_err());
        image[MAGIC_OFFSET..].copy_from_slice(b"ARM\x64\0\0\0\0");
        assert!(check_header(&image).is_err(), "the size is missing");
        image[0x10..0x18].copy_from_slice(&64u64.to_le_bytes());
        check_header(&image).unwrap();
        image[0x18] = 1;
        assert!(check_header(&image).is_err(), "big-endian");
    }
}
