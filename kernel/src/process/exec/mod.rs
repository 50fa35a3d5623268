//! execve(2): finding the program, loading it into a fresh address space, and the point of no return.
//!
//! `program` resolves `#!` lines down to an ELF file; `elf` maps it (and its interpreter); `stack` builds what the
//! program finds at its stack pointer; `rights` is what it may do. Everything that can fail happens before the caller loses its old image.

mod args;
mod elf;
mod program;
mod rights;
mod stack;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

pub use args::Strings;
use rights::Rights;

use super::exit;
use super::fp;
use super::limits::{Limit, Resource};
use super::ptrace;
use super::run::killable;
use super::table;
use super::task::Thread;
use crate::arch::{FpRegs, UserRegs};
use crate::drivers::random;
use crate::errno::{Errno, Result};
use crate::fs::{self, OpenFile, Path};
use crate::mm::{AddressSpace, PAGE_SIZE, USER_END};
use crate::{signal, time};

/// A request to run a program.
pub struct Request {
    pub file: Arc<OpenFile>,
    /// The name it was called by: AT_EXECFN, and argv of scripts.
    pub name: alloc::vec::Vec<u8>,
    pub argv: Strings,
    pub envp: Strings,
    /// A script could not be opened again by `name` (close-on-exec descriptor): ENOENT.
    pub name_vanishes: bool,
    /// Called by a descriptor alone.
    pub nameless: bool,
}

/// References to what only this thread uses: its own, and that in its public record.
const ALONE: usize = 2;

/// Replaces the program of the calling process.
pub async fn exec(t: &mut Thread, request: Request) -> Result<()> {
    let program = program::resolve(t, request).await?;
    let rights = rights::of(t, &program.file).await?;
    let (rights, gaining) = rights::settle(t, &program.file, rights).await?;
    let mm = AddressSpace::new()?;
    t.process().limits.publish_to(&mm.limits);
    mm.limits.no_blocks.store(t.mm().limits.no_blocks.load(Ordering::Relaxed), Ordering::Relaxed);
    let loaded = load(t, &mm, &program, &rights).await;
    let (image, sp) = match loaded {
        Ok(loaded) => loaded,
        Err(errno) => {
            mm.teardown().await;
            return Err(errno);
        }
    };
    let old_tid = t.tid();
    if let Err(errno) = end_other_threads(t).await.and_then(|()| unshare_files(t)) {
        mm.teardown().await;
        return Err(errno);
    }
    if rights.raised && Arc::strong_count(t.fs()) > ALONE {
        // Somebody has come to share it while the program was loaded.
        let fs = Arc::new(t.fs().fork());
        t.set_fs(fs);
    }
    commit(t, mm, rights, &program).await;
    t.regs = UserRegs { pc: image.start, sp, ..UserRegs::default() };
    fp::set(t, &FpRegs::default());
    drop(gaining);
    if t.is_traced() {
        Box::pin(ptrace::exec_event(t, old_tid)).await;
    }
    Ok(())
}

async fn load(
    t: &Thread,
    mm: &Arc<AddressSpace>,
    program: &program::Program,
    rights: &Rights,
) -> Result<(elf::Image, u64)> {
    let fixed = !rights.raised && t.personality.load(Ordering::Relaxed) & ADDR_NO_RANDOMIZE != 0;
    let randomize = !fixed && aslr_enabled();
    let stack_limit = stack_limit(t, rights).soft;
    let stack_top = choose_stack_top(randomize);
    mm.set_layout(stack_top, stack_limit, random_pages(randomize));
    let image = elf::load(t, mm, program, randomize).await?;
    let vdso = time::vdso::map(mm)?;
    let sp = stack::build(mm, stack_top, stack_limit, randomize, program, &image, vdso.base, rights).await?;
    Ok((image, sp))
}

/// RLIMIT_STACK, which may not be very large for who has more rights than the caller.
fn stack_limit(t: &Thread, rights: &Rights) -> Limit {
    const STK_LIM: u64 = 8 << 20;
    let limit = t.rlimit(Resource::Stack);
    if rights.secure { Limit { soft: limit.soft.min(STK_LIM), ..limit } } else { limit }
}

/// Top of the stack: the end of the user half, up to 1 GiB lower at random.
fn choose_stack_top(randomize: bool) -> u64 {
    (USER_END - random_pages(randomize)) & !(PAGE_SIZE as u64 - 1)
}

/// 18 bits of pages (mmap_rnd_bits on arm64 with 4 KiB pages and 48-bit addresses), in bytes.
fn random_pages(randomize: bool) -> u64 {
    if randomize { (random::u64() & 0x3_ffff) * PAGE_SIZE as u64 } else { 0 }
}

/// personality(2).
const ADDR_NO_RANDOMIZE: u32 = 0x0004_0000;
/// No program for 64-bit Arm has it.
const READ_IMPLIES_EXEC: u32 = 0x0040_0000;
/// PER_CLEAR_ON_SETID, what a program loses that has more rights than its caller: also ADDR_COMPAT_LAYOUT and MMAP_PAGE_ZERO.
const CLEAR_ON_SETID: u32 = READ_IMPLIES_EXEC | ADDR_NO_RANDOMIZE | 0x0020_0000 | 0x0010_0000;

/// "norandmaps" on the kernel command line.
fn aslr_enabled() -> bool {
    !crate::boot::cmdline::has_flag("norandmaps")
}

/// All threads but the caller end; the caller becomes the leader.
async fn end_other_threads(t: &mut Thread) -> Result<()> {
    let process = t.process().clone();
    if process.threads.lock().len() > 1 {
        if !signal::kill_others(&process, t.task()) {
            return Err(Errno::EINTR);
        }
        killable(t, process.exit_wait.wait_for(|| (process.threads.lock().len() == 1).then_some(()))).await?;
    }
    if !t.is_leader() {
        let mut table = table::lock();
        table.remove_task(t.tid());
        ptrace::forget_old_leader(&process, t.task());
        t.set_tid(process.pid);
        table.add_task(t.task().clone());
    }
    Ok(())
}

fn unshare_files(t: &mut Thread) -> Result<()> {
    if Arc::strong_count(t.files()) > 2 {
        let files = Arc::new(t.files().fork()?);
        t.set_files(files);
    }
    Ok(())
}

/// From here on nothing fails.
async fn commit(t: &mut Thread, mm: Arc<AddressSpace>, rights: Rights, program: &program::Program) {
    exit::leave_memory(t, false).await;
    let vfork = t.vfork.lock().take();
    let process = t.process().clone();
    if rights.secure {
        process.limits.set(Resource::Stack, stack_limit(t, &rights));
        process.limits.publish_to(&mm.limits);
    }
    let Rights { creds, secure, raised } = rights;
    let old = t.creds();
    let changed = [creds.euid, creds.egid, creds.fsuid, creds.fsgid] != [old.euid, old.egid, old.fsuid, old.fsgid]
        || !old.cap_permitted.contains(creds.cap_permitted);
    // Nor may a program be looked at that cannot be read, or by those who lent their rights to run it.
    let readable = fs::perm::check(old, &**program.file.inode(), fs::perm::Want::READ).is_ok();
    let dumpable = !changed && readable && old.uid == old.euid && old.gid == old.egid;
    // Before anybody can see the new memory.
    if !dumpable {
        process.dumpable.store(0, Ordering::Relaxed);
    }
    if changed || secure {
        t.parent_death_signal.store(0, Ordering::Relaxed);
    }
    t.personality.fetch_and(if raised { !CLEAR_ON_SETID } else { !READ_IMPLIES_EXEC }, Ordering::Relaxed);
    if let Some(old) = t.set_image(mm, creds) {
        process.remember_peak(&old);
        old.teardown().await;
    }
    if let Some(done) = vfork {
        done.complete();
    }
    t.files().close_on_exec().await;
    let handlers = Arc::new(process.handlers.read().after_exec());
    *process.handlers.write() = handlers;
    t.sig.after_exec();
    time::process_exec(&process);
    process.dumpable.store(u32::from(dumpable), Ordering::Relaxed);
    t.robust_list.store(0, Ordering::Relaxed);
    t.set_comm(program.comm());
    *process.exe.lock() = Some(program.file.path().clone());
    process.exit_signal.store(signal::SIGCHLD as u32, Ordering::Relaxed);
    process.did_exec.store(true, Ordering::Relaxed);
    process.warned_enosys.store(false, Ordering::Relaxed);
}

/// The first program: a thread of process 1 that has no image yet calls this instead of returning from execve.
pub async fn exec_path(t: &mut Thread, path: &[u8], argv: Strings, envp: Strings) -> Result<Path> {
    let file = program::open(t, path, true).await?;
    let location = file.path().clone();
    let request = Request { file, name: path.to_vec(), argv, envp, name_vanishes: false, nameless: false };
    exec(t, request).await.map(|()| location)
}

/// E2BIG is what a program gets whose arguments do not fit.
pub(super) const TOO_BIG: Errno = Errno::E2BIG;
