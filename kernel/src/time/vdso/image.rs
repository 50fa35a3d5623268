//! The ELF image of the vDSO: what a dynamic linker needs to find four functions, and their code (elf(5), vdso(7)).
//!
//! One page: ELF header, program headers, hash table, symbols, strings, versions, dynamic section, and at
//! `arch::vdso::CODE_OFFSET` the code. No section headers: nobody who maps it needs them.

use alloc::vec::Vec;

use crate::arch::vdso;
use crate::mm::PAGE_SIZE;

const SONAME: &str = "linux-vdso.so.1";
/// The version that arm64 has had from the start; glibc and musl ask for it.
const VERSION: &str = "LINUX_2.6.39";
const NAMES: [&str; 4] =
    ["__kernel_rt_sigreturn", "__kernel_clock_gettime", "__kernel_gettimeofday", "__kernel_clock_getres"];

const EHDR_SIZE: usize = 64;
const PHDR_SIZE: usize = 56;
const PHDRS: usize = 2;
const PF_X: u32 = 1;
const PF_R: u32 = 4;

/// Bytes that are appended field by field, little-endian.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn u16(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }
    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }
    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }
    /// Pads to a multiple of `align` and answers the offset there.
    fn align(&mut self, align: usize) -> u64 {
        self.0.resize(self.0.len().next_multiple_of(align), 0);
        self.0.len() as u64
    }
}

/// The string table with the offsets of what is in it.
struct Strings {
    bytes: Vec<u8>,
    names: [u32; NAMES.len()],
    soname: u32,
    version: u32,
}

impl Strings {
    fn new() -> Self {
        let mut bytes = vec![0];
        let mut add = |text: &str| {
            let offset = bytes.len() as u32;
            bytes.extend(text.as_bytes());
            bytes.push(0);
            offset
        };
        let names = NAMES.map(&mut add);
        let (soname, version) = (add(SONAME), add(VERSION));
        Strings { bytes, names, soname, version }
    }
}

/// Where the parts ended up.
struct Offsets {
    hash: u64,
    symbols: u64,
    strings: u64,
    versions: u64,
    definitions: u64,
}

/// The image, one page long.
pub fn build() -> Vec<u8> {
    let strings = Strings::new();
    let mut out = Writer::default();
    out.0.resize(EHDR_SIZE + PHDRS * PHDR_SIZE, 0);
    let offsets = Offsets {
        hash: hash_table(&mut out),
        symbols: symbols(&mut out, &strings),
        versions: versions(&mut out),
        definitions: definitions(&mut out, &strings),
        strings: {
            let at = out.align(1);
            out.0.extend(&strings.bytes);
            at
        },
    };
    let dynamic = dynamic(&mut out, &strings, &offsets);
    let dynamic_size = out.0.len() as u64 - dynamic;
    debug_assert!(out.0.len() <= vdso::CODE_OFFSET);
    out.0.resize(vdso::CODE_OFFSET, 0);
    out.0.extend(vdso::code());
    let size = out.0.len() as u64;
    debug_assert!(out.0.len() <= PAGE_SIZE);
    let headers = headers(size, dynamic, dynamic_size);
    out.0[..headers.len()].copy_from_slice(&headers);
    out.0.resize(PAGE_SIZE, 0);
    out.0
}

fn headers(size: u64, dynamic: u64, dynamic_size: u64) -> Vec<u8> {
    const ET_DYN: u16 = 3;
    const EM_AARCH64: u16 = 183;
    const PT_LOAD: u32 = 1;
    const PT_DYNAMIC: u32 = 2;
    let mut out = Writer::default();
    out.0.extend(b"\x7fELF");
    // 64 bits, little-endian, version 1, System V.
    out.0.extend([2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    out.u16(ET_DYN);
    out.u16(EM_AARCH64);
    out.u32(1);
    out.u64(0); // no entry point
    out.u64(EHDR_SIZE as u64);
    out.u64(0); // no sections
    out.u32(0);
    out.u16(EHDR_SIZE as u16);
    out.u16(PHDR_SIZE as u16);
    out.u16(PHDRS as u16);
    out.u16(64);
    out.u16(0);
    out.u16(0);
    let mut segment = |kind, flags, at, size, align| {
        out.u32(kind);
        out.u32(flags);
        [at, at, at, size, size, align].into_iter().for_each(|field| out.u64(field));
    };
    segment(PT_LOAD, PF_R | PF_X, 0, size, PAGE_SIZE as u64);
    segment(PT_DYNAMIC, PF_R, dynamic, dynamic_size, 8);
    out.0
}

/// DT_HASH with one bucket: the chain goes through all symbols.
fn hash_table(out: &mut Writer) -> u64 {
    let at = out.align(8);
    let count = NAMES.len() as u32 + 1;
    out.u32(1);
    out.u32(count);
    out.u32(1);
    out.u32(0);
    for next in 2..=count {
        out.u32(if next < count { next } else { 0 });
    }
    at
}

fn symbols(out: &mut Writer, strings: &Strings) -> u64 {
    const GLOBAL_FUNCTION: u8 = 1 << 4 | 2;
    /// Any section index but "undefined" will do: addresses are relative to the load address.
    const SECTION: u16 = 1;
    let at = out.align(8);
    out.0.extend([0; 24]);
    let entries = vdso::entries();
    for (index, name) in strings.names.into_iter().enumerate() {
        let end = entries.get(index + 1).copied().unwrap_or(vdso::code().len());
        out.u32(name);
        out.0.extend([GLOBAL_FUNCTION, 0]);
        out.u16(SECTION);
        out.u64((vdso::CODE_OFFSET + entries[index]) as u64);
        out.u64(end.saturating_sub(entries[index]) as u64);
    }
    at
}

/// DT_VERSYM: every function has version 2 of `definitions`.
fn versions(out: &mut Writer) -> u64 {
    let at = out.align(2);
    out.u16(0);
    NAMES.iter().for_each(|_| out.u16(2));
    at
}

/// DT_VERDEF: 1 is the file itself, 2 the version.
fn definitions(out: &mut Writer, strings: &Strings) -> u64 {
    const BASE: u16 = 1;
    const DEF_SIZE: u32 = 20;
    const AUX_SIZE: u32 = 8;
    let at = out.align(8);
    for (index, (flags, name, text)) in
        [(BASE, strings.soname, SONAME), (0, strings.version, VERSION)].into_iter().enumerate()
    {
        out.u16(1);
        out.u16(flags);
        out.u16(index as u16 + 1);
        out.u16(1);
        out.u32(sysv_hash(text));
        out.u32(DEF_SIZE);
        out.u32(if index == 0 { DEF_SIZE + AUX_SIZE } else { 0 });
        out.u32(name);
        out.u32(0);
    }
    at
}

fn dynamic(out: &mut Writer, strings: &Strings, offsets: &Offsets) -> u64 {
    const DT_HASH: u64 = 4;
    const DT_STRTAB: u64 = 5;
    const DT_SYMTAB: u64 = 6;
    const DT_STRSZ: u64 = 10;
    const DT_SYMENT: u64 = 11;
    const DT_SONAME: u64 = 14;
    const DT_VERSYM: u64 = 0x6fff_fff0;
    const DT_VERDEF: u64 = 0x6fff_fffc;
    const DT_VERDEFNUM: u64 = 0x6fff_fffd;
    let at = out.align(8);
    for (tag, value) in [
        (DT_SONAME, strings.soname as u64),
        (DT_HASH, offsets.hash),
        (DT_STRTAB, offsets.strings),
        (DT_STRSZ, strings.bytes.len() as u64),
        (DT_SYMTAB, offsets.symbols),
        (DT_SYMENT, 24),
        (DT_VERSYM, offsets.versions),
        (DT_VERDEF, offsets.definitions),
        (DT_VERDEFNUM, 2),
        (0, 0),
    ] {
        out.u64(tag);
        out.u64(value);
    }
    at
}

/// The hash of DT_HASH and of version names (System V gABI).
fn sysv_hash(name: &str) -> u32 {
    name.bytes().fold(0, |hash: u32, byte| {
        let hash = (hash << 4).wrapping_add(byte.into());
        let high = hash & 0xf000_0000;
        (hash ^ high >> 24) & !high
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use goblin::elf::Elf;

    #[test]
    fn a_linker_finds_the_functions() {
        let image = build();
        let elf = Elf::parse(&image).unwrap();
        assert_eq!(elf.soname, Some(SONAME));
        let names: Vec<_> = elf.dynsyms.iter().skip(1).map(|sym| elf.dynstrtab.get_at(sym.st_name).unwrap()).collect();
        assert_eq!(names, NAMES);
        for sym in elf.dynsyms.iter().skip(1) {
            assert!(sym.is_function() && sym.st_value >= vdso::CODE_OFFSET as u64 && sym.st_size > 0);
        }
        let load = &elf.program_headers[0];
        assert_eq!((load.p_offset, load.p_vaddr), (0, 0));
        assert!(load.is_executable() && !load.is_write());
    }

    #[test]
    fn every_function_has_the_version() {
        let image = build();
        let elf = Elf::parse(&image).unwrap();
        let dynamic = elf.dynamic.as_ref().unwrap();
        assert!(dynamic.info.verdef > 0 && dynamic.info.verdefnum == 2);
        let at = dynamic.info.verdef as usize + 28;
        let word = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap());
        assert_eq!(word(at + 8), sysv_hash(VERSION));
        let name = word(at + 20) as usize;
        assert_eq!(elf.dynstrtab.get_at(name), Some(VERSION));
        let versym = elf.dynamic.unwrap().info.versym as usize;
        assert_eq!(&image[versym..versym + 10], &[0, 0, 2, 0, 2, 0, 2, 0, 2, 0]);
    }

    #[test]
    fn the_hash_is_that_of_the_gabi() {
        assert_eq!(sysv_hash("printf"), 0x077905a6);
    }
}
