//! What a program finds at its stack pointer: argc, argv, envp, auxiliary vector, strings.

use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::auxvec::*;

use super::TOO_BIG;
use super::args::Strings;
use super::elf::{Image, anonymous, write};
use super::program::Program;
use super::rights::Rights;
use crate::arch;
use crate::drivers::random;
use crate::errno::Result;
use crate::mm::{AddressSpace, MapFlags, PAGE_SIZE, Prot};

/// The program's clock ticks per second as times(2) counts them.
const USER_HZ: u64 = 100;
/// Size of the signal frame that sigaltstack must hold at least, AT_MINSIGSTKSZ, bytes.
const MIN_SIGNAL_STACK: u64 = 4720;
const PLATFORM: &[u8] = b"aarch64\0";
/// Above this address of the stack's end nothing is stored.
const TOP_PADDING: u64 = 8;

/// What is mapped at first beyond the strings (stack_guard's 128 KiB, as Linux does), bytes.
const INITIAL_STACK: u64 = 132 << 10;
/// Arguments may use at least this much, whatever RLIMIT_STACK says, and at most the second.
const MIN_STACK: u64 = 128 << 10;
const MAX_INITIAL_STACK: u64 = 8 << 20;

/// Bytes being laid out downwards from `top`.
struct Layout {
    at: u64,
    limit: u64,
}

impl Layout {
    fn take(&mut self, len: usize, align: u64) -> Result<u64> {
        let at = self.at.checked_sub(len as u64).ok_or(TOO_BIG)? & !(align - 1);
        if at < self.limit {
            return Err(TOO_BIG);
        }
        self.at = at;
        Ok(at)
    }
}

/// Fills the new stack; answers the stack pointer.
#[allow(clippy::too_many_arguments)]
pub async fn build(
    mm: &Arc<AddressSpace>,
    top: u64,
    stack_limit: u64,
    randomize: bool,
    program: &Program,
    image: &Image,
    vdso: u64,
    rights: &Rights,
) -> Result<u64> {
    let used = program.name.len() + program.argv.bytes().len() + program.envp.bytes().len();
    let pointers = 8 * (program.argv.count() + program.envp.count());
    map_stack(mm, top, (used + pointers) as u64, image.executable_stack).await?;
    let room = stack_limit.clamp(MIN_STACK, MAX_INITIAL_STACK);
    let mut layout = Layout { at: top - TOP_PADDING, limit: top - room };

    let name = layout.take(program.name.len() + 1, 1)?;
    let env = layout.take(program.envp.bytes().len(), 1)?;
    let args = layout.take(program.argv.bytes().len(), 1)?;
    write(mm, name, &with_nul(&program.name)).await?;
    write(mm, env, program.envp.bytes()).await?;
    write(mm, args, program.argv.bytes()).await?;
    {
        let mut meta = mm.meta();
        (meta.arg_start, meta.arg_end) = (args, args + program.argv.bytes().len() as u64);
        (meta.env_start, meta.env_end) = (env, env + program.envp.bytes().len() as u64);
    }

    if randomize {
        // arch_align_stack: up to two pages.
        layout.take((random::u64() & 0x1fff) as usize, 16)?;
    }
    let platform = layout.take(PLATFORM.len(), 16)?;
    write(mm, platform, PLATFORM).await?;
    let mut seed = [0; 16];
    random::fill(&mut seed);
    let random_bytes = layout.take(seed.len(), 16)?;
    write(mm, random_bytes, &seed).await?;

    let auxv = auxv(image, vdso, rights, name, platform, random_bytes);
    let auxv_bytes: Vec<u8> = auxv.iter().flat_map(|(key, value)| [*key, *value]).flat_map(u64::to_le_bytes).collect();

    let words = 1 + program.argv.count() + 1 + program.envp.count() + 1;
    let sp = layout.take(words * 8 + auxv_bytes.len(), 16)?;
    let mut block = Vec::new();
    block.try_reserve(words * 8 + auxv_bytes.len()).map_err(|_| TOO_BIG)?;
    block.extend_from_slice(&(program.argv.count() as u64).to_le_bytes());
    push_pointers(&mut block, &program.argv, args);
    push_pointers(&mut block, &program.envp, env);
    block.extend_from_slice(&auxv_bytes);
    write(mm, sp, &block).await?;
    let mut meta = mm.meta();
    meta.start_stack = sp;
    meta.auxv = auxv.iter().flat_map(|(key, value)| [*key, *value]).collect();
    drop(meta);
    Ok(sp)
}

/// The grow-down mapping below `top`, large enough for the strings and a first frame.
async fn map_stack(mm: &Arc<AddressSpace>, top: u64, strings: u64, executable: bool) -> Result<()> {
    let len = (strings + INITIAL_STACK).next_multiple_of(PAGE_SIZE as u64);
    let mut prot = Prot::READ | Prot::WRITE;
    prot.set(Prot::EXEC, executable);
    let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE | MapFlags::GROWSDOWN | MapFlags::STACK;
    mm.mmap(anonymous(top - len, len, prot, flags)).await.map(|_| ())
}

fn with_nul(name: &[u8]) -> Vec<u8> {
    let mut bytes = name.to_vec();
    bytes.push(0);
    bytes
}

fn push_pointers(block: &mut Vec<u8>, strings: &Strings, base: u64) {
    for offset in strings.offsets() {
        block.extend_from_slice(&(base + offset as u64).to_le_bytes());
    }
    block.extend_from_slice(&0u64.to_le_bytes());
}

fn auxv(image: &Image, vdso: u64, rights: &Rights, name: u64, platform: u64, random_bytes: u64) -> Vec<(u64, u64)> {
    let creds = &rights.creds;
    let hwcap = arch::hwcaps();
    [
        (AT_SYSINFO_EHDR, vdso),
        (AT_MINSIGSTKSZ, MIN_SIGNAL_STACK),
        (AT_HWCAP, hwcap.0),
        (AT_PAGESZ, PAGE_SIZE as u64),
        (AT_CLKTCK, USER_HZ),
        (AT_PHDR, image.phdr),
        (AT_PHENT, 56),
        (AT_PHNUM, image.phnum as u64),
        (AT_BASE, image.base),
        (AT_FLAGS, 0),
        (AT_ENTRY, image.entry),
        (AT_UID, creds.uid as u64),
        (AT_EUID, creds.euid as u64),
        (AT_GID, creds.gid as u64),
        (AT_EGID, creds.egid as u64),
        (AT_SECURE, rights.secure as u64),
        (AT_RANDOM, random_bytes),
        (AT_HWCAP2, hwcap.1),
        (AT_EXECFN, name),
        (AT_PLATFORM, platform),
        (AT_NULL, 0),
    ]
    .into_iter()
    .map(|(key, value)| (key as u64, value))
    .collect()
}
