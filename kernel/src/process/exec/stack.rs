//! What a program finds at its stack pointer: argc, argv, envp, auxiliary vector, strings.

use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::auxvec::*;

use super::TOO_BIG;
use super::args::Strings;
use super::elf::Image;
use super::program::Program;
use crate::arch;
use crate::drivers::random;
use crate::errno::Result;
use crate::mm::{AddressSpace, PAGE_SIZE};
use crate::process::Credentials;

/// The program's clock ticks per second as times(2) counts them.
const USER_HZ: u64 = 100;
/// Size of the signal frame that sigaltstack must hold at least, AT_MINSIGSTKSZ, bytes.
const MIN_SIGNAL_STACK: u64 = 4720;
const PLATFORM: &[u8] = b"aarch64\0";
/// Above this address of the stack's end nothing is stored.
const TOP_PADDING: u64 = 8;

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
    creds: &Credentials,
    secure: bool,
) -> Result<u64> {
    let top = mm.map_stack(top, stack_limit, image.executable_stack)?;
    let room = stack_limit.clamp(128 << 10, 8 << 20);
    let mut layout = Layout { at: top - TOP_PADDING, limit: top - room };

    let name = layout.take(program.name.len() + 1, 1)?;
    let env = layout.take(program.envp.bytes().len(), 1)?;
    let args = layout.take(program.argv.bytes().len(), 1)?;
    mm.write_remote(name, &with_nul(&program.name)).await?;
    mm.write_remote(env, program.envp.bytes()).await?;
    mm.write_remote(args, program.argv.bytes()).await?;
    mm.set_args(args, args + program.argv.bytes().len() as u64, env, env + program.envp.bytes().len() as u64);

    if randomize {
        // arch_align_stack: up to two pages.
        layout.take((random::next_u64() & 0x1fff) as usize, 16)?;
    }
    let platform = layout.take(PLATFORM.len(), 16)?;
    mm.write_remote(platform, PLATFORM).await?;
    let mut seed = [0; 16];
    random::fill(&mut seed);
    let random_bytes = layout.take(seed.len(), 16)?;
    mm.write_remote(random_bytes, &seed).await?;

    let auxv = auxv(image, vdso, creds, secure, name, platform, random_bytes);
    let auxv_bytes: Vec<u8> = auxv.iter().flat_map(|(key, value)| [*key, *value]).flat_map(u64::to_le_bytes).collect();
    mm.set_auxv(&auxv_bytes);

    let words = 1 + program.argv.count() + 1 + program.envp.count() + 1;
    let sp = layout.take(words * 8 + auxv_bytes.len(), 16)?;
    let mut block = Vec::new();
    block.try_reserve(words * 8 + auxv_bytes.len()).map_err(|_| TOO_BIG)?;
    block.extend_from_slice(&(program.argv.count() as u64).to_le_bytes());
    push_pointers(&mut block, &program.argv, args);
    push_pointers(&mut block, &program.envp, env);
    block.extend_from_slice(&auxv_bytes);
    mm.write_remote(sp, &block).await?;
    mm.set_start_stack(sp);
    Ok(sp)
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

#[allow(clippy::too_many_arguments)]
fn auxv(
    image: &Image,
    vdso: u64,
    creds: &Credentials,
    secure: bool,
    name: u64,
    platform: u64,
    random_bytes: u64,
) -> Vec<(u64, u64)> {
    let hwcap = arch::hwcap();
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
        (AT_SECURE, secure as u64),
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
