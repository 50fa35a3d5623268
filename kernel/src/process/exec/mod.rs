//! execve(2): finding the program, loading it into a fresh address space, and the point of no return.
//!
//! `program` resolves `#!` lines down to an ELF file; `elf` maps it (and its interpreter); `stack` builds what the
//! program finds at its stack pointer. Everything that can fail happens before the caller loses its old image.

mod args;
mod elf;
mod program;
mod stack;

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

pub use args::Strings;

use super::creds::{Caps, Credentials};
use super::exit;
use super::fp;
use super::limits::Resource;
use super::run::killable;
use super::table;
use super::task::Thread;
use crate::arch::{FpRegs, UserRegs};
use crate::drivers::random;
use crate::errno::{Errno, Result};
use crate::fs::{self, MountFlags, OpenFile, Path};
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

/// Replaces the program of the calling process.
pub async fn exec(t: &mut Thread, request: Request) -> Result<()> {
    let program = program::resolve(t, request).await?;
    let mm = AddressSpace::new()?;
    t.process().limits.publish_to(&mm.limits);
    mm.limits.no_blocks.store(t.mm().limits.no_blocks.load(Ordering::Relaxed), Ordering::Relaxed);
    let loaded = load(t, &mm, &program).await;
    let (image, sp, creds) = match loaded {
        Ok(loaded) => loaded,
        Err(errno) => {
            mm.teardown().await;
            return Err(errno);
        }
    };
    if let Err(errno) = end_other_threads(t).await {
        mm.teardown().await;
        return Err(errno);
    }
    commit(t, mm, creds, &program).await;
    t.regs = UserRegs { pc: image.start, sp, ..UserRegs::default() };
    fp::set(t, &FpRegs::default());
    Ok(())
}

async fn load(
    t: &Thread,
    mm: &Arc<AddressSpace>,
    program: &program::Program,
) -> Result<(elf::Image, u64, Option<Credentials>)> {
    let randomize = t.personality.load(Ordering::Relaxed) & ADDR_NO_RANDOMIZE == 0 && aslr_enabled();
    let stack_limit = t.rlimit(Resource::Stack).soft;
    let stack_top = choose_stack_top(randomize);
    mm.set_layout(stack_top, stack_limit, random_pages(randomize));
    let image = elf::load(t, mm, program, randomize).await?;
    let vdso = time::vdso::map(mm)?;
    let creds = new_creds(t, &program.file);
    let secure = creds.as_ref().is_some_and(|creds| creds.euid != creds.uid || creds.egid != creds.gid);
    let effective = creds.as_ref().unwrap_or(t.creds());
    let sp = stack::build(mm, stack_top, stack_limit, randomize, program, &image, vdso.base, effective, secure).await?;
    Ok((image, sp, creds))
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

/// "norandmaps" on the kernel command line.
fn aslr_enabled() -> bool {
    !crate::boot::cmdline::has_flag("norandmaps")
}

/// What set-id bits make of the credentials; None leaves them as they are (capabilities(7), "Programs and user IDs").
fn new_creds(t: &Thread, file: &OpenFile) -> Option<Credentials> {
    const SETUID: u16 = 0o4000;
    const SETGID: u16 = 0o2000;
    const GROUP_EXEC: u16 = 0o010;
    let old = t.creds();
    let meta = file.inode().metadata();
    let mut new = (**old).clone();
    if !old.no_new_privs && !file.path().mount.flags().contains(MountFlags::NOSUID) {
        if meta.perm & SETUID != 0 {
            new.euid = meta.uid;
        }
        if meta.perm & (SETGID | GROUP_EXEC) == SETGID | GROUP_EXEC {
            new.egid = meta.gid;
        }
    }
    new.suid = new.euid;
    new.fsuid = new.euid;
    new.sgid = new.egid;
    new.fsgid = new.egid;
    const SECBIT_NOROOT: u32 = 1;
    const SECBIT_KEEP_CAPS: u32 = 1 << 4;
    new.securebits &= !SECBIT_KEEP_CAPS;
    let root = (new.euid == 0 || new.uid == 0) && new.securebits & SECBIT_NOROOT == 0;
    let set_id = new.euid != old.euid || new.egid != old.egid;
    if set_id {
        new.cap_ambient = Caps::empty();
    }
    let file_permitted = if root { Caps::all() } else { Caps::empty() };
    new.cap_permitted = (new.cap_inheritable & file_permitted) | (file_permitted & new.cap_bounding) | new.cap_ambient;
    new.cap_effective = if new.euid == 0 && root { new.cap_permitted } else { new.cap_ambient };
    Some(new)
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
        t.set_tid(process.pid);
        table.add_task(t.task().clone());
    }
    Ok(())
}

/// From here on nothing fails.
async fn commit(t: &mut Thread, mm: Arc<AddressSpace>, creds: Option<Credentials>, program: &program::Program) {
    exit::leave_memory(t, false).await;
    let vfork = t.vfork.lock().take();
    let process = t.process().clone();
    let mut dumpable = None;
    if let Some(creds) = &creds {
        let old = t.creds();
        let changed = [creds.euid, creds.egid, creds.fsuid, creds.fsgid] != [old.euid, old.egid, old.fsuid, old.fsgid]
            || !old.cap_permitted.contains(creds.cap_permitted);
        // Nor may a program be looked at that cannot be read, or by those who lent their rights to run it.
        let readable = fs::perm::check(old, &**program.file.inode(), fs::perm::Want::READ).is_ok();
        let may = !changed && readable && old.uid == old.euid && old.gid == old.egid;
        // Before anybody can see the new memory.
        if !may {
            process.dumpable.store(0, Ordering::Relaxed);
        }
        if changed {
            t.parent_death_signal.store(0, Ordering::Relaxed);
        }
        dumpable = Some(may);
    }
    if let Some(old) = t.set_image(mm, creds) {
        process.remember_peak(&old);
        old.teardown().await;
    }
    if let Some(done) = vfork {
        done.complete();
    }
    if Arc::strong_count(t.files()) > 2 {
        let files = Arc::new(t.files().fork());
        t.set_files(files);
    }
    t.files().close_on_exec().await;
    let handlers = Arc::new(process.handlers.read().after_exec());
    *process.handlers.write() = handlers;
    t.sig.after_exec();
    time::process_exec(&process);
    if let Some(dumpable) = dumpable {
        process.dumpable.store(u32::from(dumpable), Ordering::Relaxed);
    }
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
