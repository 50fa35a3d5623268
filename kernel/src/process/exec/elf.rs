//! Mapping an ELF file and its interpreter (elf(5), System V ABI chapter 5).

use alloc::sync::Arc;
use alloc::vec::Vec;

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::header::{EM_AARCH64, ET_DYN, ET_EXEC, Header};
use goblin::elf::program_header::{PF_R, PF_W, PF_X, PT_GNU_STACK, PT_INTERP, PT_LOAD, PT_PHDR, ProgramHeader};

use super::program::{self, Program, read_file};
use crate::drivers::random;
use crate::errno::{Errno, Result};
use crate::fs::OpenFile;
use crate::mm::{AddressSpace, MapFlags, MmapRequest, PAGE_SIZE, Prot, Toucher, USER_END};
use crate::process::Thread;

const EHDR_SIZE: usize = 64;
const PHDR_SIZE: usize = 56;
/// Linux reads program headers up to 64 KiB.
const MAX_PHDRS: usize = 65_536 / PHDR_SIZE;
const PATH_MAX: u64 = 4096;
const PAGE: u64 = PAGE_SIZE as u64;
/// Where position-independent programs with an interpreter go: two thirds of the address space (ELF_ET_DYN_BASE).
const DYN_BASE: u64 = USER_END / 3 * 2;

/// A loaded program.
pub struct Image {
    /// First instruction: the interpreter's entry, or the program's.
    pub start: u64,
    /// AT_ENTRY, AT_PHDR, AT_PHNUM, AT_BASE.
    pub entry: u64,
    pub phdr: u64,
    pub phnum: usize,
    pub base: u64,
    pub executable_stack: bool,
}

/// The headers of one file.
struct Elf {
    header: Header,
    segments: Vec<ProgramHeader>,
}

pub async fn load(t: &Thread, mm: &Arc<AddressSpace>, program: &Program, randomize: bool) -> Result<Image> {
    let elf = Elf::parse(t, &program.file, &program.head).await?;
    let interpreter = match elf.segment(PT_INTERP) {
        Some(segment) => Some(open_interpreter(t, &program.file, segment).await?),
        None => None,
    };
    let interpreter = match interpreter {
        Some(file) => {
            let mut head = vec![0; EHDR_SIZE];
            if read_file(t, &file, &mut head, 0).await? < head.len() {
                return Err(Errno::EIO);
            }
            // A broken interpreter is a broken library, not "not executable".
            let elf =
                Elf::parse(t, &file, &head).await.map_err(|e| if e == Errno::ENOEXEC { Errno::ELIBBAD } else { e })?;
            Some((file, elf))
        }
        None => None,
    };

    let bias = elf.choose_bias(interpreter.is_some(), randomize)?;
    let map = map_segments(mm, &program.file, &elf, bias).await?;
    set_brk(mm, map.end, randomize);
    {
        let mut meta = mm.meta();
        (meta.start_code, meta.end_code) = (map.code_start, map.code_end);
        (meta.start_data, meta.end_data) = (map.data_start, map.data_end);
        meta.exe = program.file.page_source().ok();
    }

    let entry = elf.header.e_entry.wrapping_add(map.bias);
    let mut image = Image {
        start: entry,
        entry,
        phdr: elf.phdr_address(map.bias),
        phnum: elf.segments.len(),
        base: 0,
        executable_stack: elf.segment(PT_GNU_STACK).is_some_and(|segment| segment.p_flags & PF_X != 0),
    };
    if let Some((file, elf)) = interpreter {
        let fixed = (elf.header.e_type == ET_EXEC).then_some(0);
        let map = map_segments(mm, &file, &elf, fixed).await?;
        image.base = map.bias;
        image.start = elf.header.e_entry.wrapping_add(map.bias);
    }
    if image.start >= USER_END {
        return Err(Errno::EINVAL);
    }
    Ok(image)
}

impl Elf {
    async fn parse(t: &Thread, file: &OpenFile, head: &[u8]) -> Result<Elf> {
        let context = Ctx::new(Container::Big, Endian::Little);
        if head.len() < EHDR_SIZE || !head.starts_with(b"\x7fELF") || head[4] != 2 || head[5] != 1 {
            return Err(Errno::ENOEXEC);
        }
        let header = goblin::elf::Elf::parse_header(head).map_err(|_| Errno::ENOEXEC)?;
        let count = header.e_phnum as usize;
        if header.e_machine != EM_AARCH64
            || !(header.e_type == ET_EXEC || header.e_type == ET_DYN)
            || header.e_phentsize as usize != PHDR_SIZE
            || count == 0
            || count > MAX_PHDRS
        {
            return Err(Errno::ENOEXEC);
        }
        let mut table = vec![0; count * PHDR_SIZE];
        if read_file(t, file, &mut table, header.e_phoff).await != Ok(table.len()) {
            return Err(Errno::ENOEXEC);
        }
        let segments = ProgramHeader::parse(&table, 0, count, context).map_err(|_| Errno::ENOEXEC)?;
        let elf = Elf { header, segments };
        elf.validate()?;
        Ok(elf)
    }

    fn loads(&self) -> impl Iterator<Item = &ProgramHeader> {
        self.segments.iter().filter(|segment| segment.p_type == PT_LOAD)
    }

    fn segment(&self, kind: u32) -> Option<&ProgramHeader> {
        self.segments.iter().find(|segment| segment.p_type == kind)
    }

    /// Sizes and addresses that could wrap are refused here, so that mapping need not check again. Segments may overlap:
    /// the later one wins.
    fn validate(&self) -> Result<()> {
        for segment in self.loads() {
            let end = segment.p_vaddr.checked_add(segment.p_memsz).ok_or(Errno::EINVAL)?;
            if segment.p_filesz > segment.p_memsz || end > USER_END || segment.p_memsz > USER_END {
                return Err(Errno::EINVAL);
            }
            if segment.p_vaddr % PAGE != segment.p_offset % PAGE {
                return Err(Errno::EINVAL);
            }
            segment.p_offset.checked_add(segment.p_filesz).ok_or(Errno::EINVAL)?;
        }
        if self.loads().next().is_none() { Err(Errno::ENOEXEC) } else { Ok(()) }
    }

    /// The lowest page of all segments.
    fn lowest(&self) -> u64 {
        self.loads().map(|segment| segment.p_vaddr & !(PAGE - 1)).min().unwrap_or(0)
    }

    /// Where a position-independent program goes; None lets mmap choose (no interpreter: it is a loader itself, or
    /// static), Some(0) for a program with fixed addresses.
    fn choose_bias(&self, has_interpreter: bool, randomize: bool) -> Result<Option<u64>> {
        if self.header.e_type == ET_EXEC {
            return Ok(Some(0));
        }
        if !has_interpreter {
            return Ok(None);
        }
        let align = self.loads().map(|segment| segment.p_align).filter(|align| align.is_power_of_two()).max();
        let align = align.unwrap_or(PAGE).clamp(PAGE, 1 << 30);
        // arm64: mmap_rnd_bits = 18 pages bits by default for 4 KiB pages and 48-bit addresses.
        let random = if randomize { (random::u64() & 0x3_ffff) * PAGE } else { 0 };
        Ok(Some((DYN_BASE + random).wrapping_sub(self.lowest()) & !(align - 1)))
    }

    /// Address of the program headers in memory.
    fn phdr_address(&self, bias: u64) -> u64 {
        if let Some(segment) = self.segment(PT_PHDR) {
            return segment.p_vaddr.wrapping_add(bias);
        }
        let offset = self.header.e_phoff;
        let holder = self.loads().find(|s| s.p_offset <= offset && offset < s.p_offset + s.p_filesz);
        holder.map_or(0, |segment| (offset - segment.p_offset + segment.p_vaddr).wrapping_add(bias))
    }
}

async fn open_interpreter(t: &Thread, file: &OpenFile, segment: &ProgramHeader) -> Result<Arc<OpenFile>> {
    if segment.p_filesz < 2 || segment.p_filesz > PATH_MAX {
        return Err(Errno::ENOEXEC);
    }
    let mut path = vec![0; segment.p_filesz as usize];
    if read_file(t, file, &mut path, segment.p_offset).await? != path.len() {
        return Err(Errno::EIO);
    }
    if path.pop() != Some(0) {
        return Err(Errno::ENOEXEC);
    }
    let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
    // Like a library, it may be opened for writing once it is mapped.
    program::open(t, &path[..end], false).await
}

struct Mapped {
    bias: u64,
    /// End of the last segment, bss included.
    end: u64,
    code_start: u64,
    code_end: u64,
    data_start: u64,
    data_end: u64,
}

/// Maps all PT_LOAD segments; with `bias` None at a place that mmap chooses.
async fn map_segments(mm: &Arc<AddressSpace>, file: &Arc<OpenFile>, elf: &Elf, bias: Option<u64>) -> Result<Mapped> {
    let low = elf.lowest();
    let high = elf.loads().map(|s| page_up(s.p_vaddr + s.p_memsz)).max().unwrap_or(0);
    let bias = match bias {
        Some(bias) => bias,
        // Reserve room for everything at once, then map over it.
        None => {
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
            let at = mm.mmap(anonymous(0, high - low, Prot::empty(), flags)).await?;
            mm.munmap(at, high - low).await?;
            at.wrapping_sub(low)
        }
    };
    // A bias below the link address wraps on purpose; only a range that leaves the user half is wrong.
    let (first, last) = (bias.wrapping_add(low), bias.wrapping_add(high));
    if last > USER_END || first >= last {
        return Err(Errno::ENOMEM);
    }
    let mut mapped = Mapped { bias, end: 0, code_start: u64::MAX, code_end: 0, data_start: 0, data_end: 0 };
    for segment in elf.loads() {
        map_segment(mm, file, segment, bias).await?;
        let start = segment.p_vaddr.wrapping_add(bias);
        let file_end = start + segment.p_filesz;
        mapped.end = mapped.end.max(start + segment.p_memsz);
        mapped.code_start = mapped.code_start.min(start);
        if segment.p_flags & PF_X != 0 {
            mapped.code_end = mapped.code_end.max(file_end);
        }
        if start >= mapped.data_start {
            mapped.data_start = start;
        }
        mapped.data_end = mapped.data_end.max(file_end);
    }
    Ok(mapped)
}

async fn map_segment(mm: &Arc<AddressSpace>, file: &Arc<OpenFile>, segment: &ProgramHeader, bias: u64) -> Result<()> {
    let prot = protection(segment.p_flags);
    let start = segment.p_vaddr.wrapping_add(bias);
    let file_end = start + segment.p_filesz;
    let end = start + segment.p_memsz;
    let first_page = start & !(PAGE - 1);
    let fixed = MapFlags::PRIVATE | MapFlags::FIXED;
    if segment.p_filesz > 0 {
        let offset = segment.p_offset & !(PAGE - 1);
        let len = page_up(file_end) - first_page;
        let source = Some(file.page_source()?);
        mm.mmap(MmapRequest { addr: first_page, len, prot, flags: fixed, source, offset }).await?;
    }
    let anon_start = if segment.p_filesz > 0 { page_up(file_end) } else { first_page };
    if page_up(end) > anon_start {
        // Like the heap: to be read and written, whatever the segment says.
        let bss = Prot::READ | Prot::WRITE | prot & Prot::EXEC;
        mm.mmap(anonymous(anon_start, page_up(end) - anon_start, bss, fixed)).await?;
    }
    let tail = page_up(file_end) - file_end;
    if end > file_end && segment.p_filesz > 0 && tail > 0 && prot.contains(Prot::WRITE) {
        // The rest of the last file page is bss.
        write(mm, file_end, &[0; PAGE_SIZE][..tail as usize]).await?;
    }
    Ok(())
}

/// An anonymous private mapping.
pub(super) fn anonymous(addr: u64, len: u64, prot: Prot, flags: MapFlags) -> MmapRequest {
    MmapRequest { addr, len, prot, flags: flags | MapFlags::ANONYMOUS, source: None, offset: 0 }
}

/// Writes to the new address space, all of it or EFAULT.
pub(super) async fn write(mm: &AddressSpace, addr: u64, bytes: &[u8]) -> Result<()> {
    if mm.write_remote(addr, bytes, Toucher::Call).await? == bytes.len() { Ok(()) } else { Err(Errno::EFAULT) }
}

fn protection(flags: u32) -> Prot {
    let mut prot = Prot::empty();
    prot.set(Prot::READ, flags & PF_R != 0);
    prot.set(Prot::WRITE, flags & PF_W != 0);
    prot.set(Prot::EXEC, flags & PF_X != 0);
    prot
}

fn set_brk(mm: &AddressSpace, end: u64, randomize: bool) {
    let mut start = page_up(end);
    if randomize {
        // arch_randomize_brk: within 1 GiB.
        let random = (random::u64() & 0x3_ffff) * PAGE;
        start = start.saturating_add(random).min(USER_END - PAGE);
    }
    mm.set_brk_start(start);
}

const fn page_up(addr: u64) -> u64 {
    (addr + PAGE - 1) & !(PAGE - 1)
}
