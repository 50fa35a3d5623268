//! Processes and threads: clone(2), execve(2), exit(2), wait(2) and their kin.

use core::sync::atomic::Ordering;

use super::{SysError, SysResult};
use crate::errno::{Errno, Result};
use crate::mm::{UserPtr, read_cstr};
use crate::process::clone::{CloneArgs, CloneFlags};
use crate::process::exec::{Request, Strings};
use crate::process::wait::{self, Change, Report, WaitOptions, Who};
use crate::process::{self, ExitStatus, Resource, Thread, exit, group, pidfd};
use crate::{fs, signal};

/// CSIGNAL: clone's low byte is the exit signal.
const EXIT_SIGNAL_MASK: u64 = 0xff;
const PATH_MAX: usize = 4096;

pub async fn clone(
    t: &mut Thread,
    flags: u64,
    stack: u64,
    parent_tid: UserPtr<u32>,
    tls: u64,
    child_tid: UserPtr<u32>,
) -> SysResult {
    // The legacy call takes 32 bits of flags and ignores what it does not know.
    let bits = CloneFlags::from_bits_truncate(flags & 0xffff_ff00);
    let args = CloneArgs {
        flags: bits.difference(CloneFlags::NEWTIME),
        exit_signal: (flags & EXIT_SIGNAL_MASK) as u32,
        pidfd: parent_tid.cast(),
        child_tid,
        parent_tid,
        stack,
        tls,
        set_tid: None,
    };
    process::clone::clone(t, args).await
}

/// `struct clone_args` of clone3(2), in 64-bit words.
const CLONE_ARGS_WORDS: usize = 11;
const CLONE_ARGS_SIZE_VER0: usize = 64;

pub async fn clone3(t: &mut Thread, uargs: UserPtr<u64>, size: usize) -> SysResult {
    if size > crate::mm::PAGE_SIZE {
        return Err(Errno::E2BIG.into());
    }
    if size < CLONE_ARGS_SIZE_VER0 {
        return Err(Errno::EINVAL.into());
    }
    let mut words = [0u64; CLONE_ARGS_WORDS];
    let known = size.min(CLONE_ARGS_WORDS * 8);
    let mut bytes = [0u8; CLONE_ARGS_WORDS * 8];
    uargs.cast::<u8>().read_bytes(t.mm(), &mut bytes[..known]).await?;
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
    }
    if size > known {
        check_zero(t, uargs.addr() + known as u64, size - known).await?;
    }
    let [flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, _cgroup] =
        words;
    let bits = CloneFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    if bits.contains(CloneFlags::DETACHED) || exit_signal > 64 || (stack == 0) != (stack_size == 0) {
        return Err(Errno::EINVAL.into());
    }
    if bits.intersects(CloneFlags::THREAD | CloneFlags::PARENT) && exit_signal != 0 {
        return Err(Errno::EINVAL.into());
    }
    if (set_tid == 0) != (set_tid_size == 0) || set_tid_size > 32 {
        return Err(Errno::EINVAL.into());
    }
    let set_tid = match set_tid_size {
        0 => None,
        1 => Some(UserPtr::<u32>::new(set_tid).read(t.mm()).await?),
        // One for each namespace that the child is in: there is but one.
        _ => return Err(Errno::EINVAL.into()),
    };
    if stack != 0 && !crate::mm::access_ok(stack, stack_size) {
        return Err(Errno::EINVAL.into());
    }
    let args = CloneArgs {
        flags: bits,
        exit_signal: exit_signal as u32,
        pidfd: UserPtr::new(pidfd),
        child_tid: UserPtr::new(child_tid),
        parent_tid: UserPtr::new(parent_tid),
        stack: stack.wrapping_add(stack_size),
        tls,
        set_tid,
    };
    process::clone::clone(t, args).await
}

/// The unknown tail of an extensible structure must be zero (E2BIG).
async fn check_zero(t: &Thread, addr: u64, len: usize) -> Result<()> {
    let tail = UserPtr::<u8>::new(addr).read_slice(t.mm(), len, crate::mm::PAGE_SIZE).await?;
    if tail.iter().any(|byte| *byte != 0) { Err(Errno::E2BIG) } else { Ok(()) }
}

pub async fn execve(t: &mut Thread, path: u64, argv: UserPtr<u64>, envp: UserPtr<u64>) -> Result<()> {
    execveat(t, fs::AT_FDCWD, path, argv, envp, 0).await
}

const AT_SYMLINK_NOFOLLOW: u32 = 0x100;
const AT_EMPTY_PATH: u32 = 0x1000;

pub async fn execveat(
    t: &mut Thread,
    dirfd: i32,
    path: u64,
    argv: UserPtr<u64>,
    envp: UserPtr<u64>,
    flags: u32,
) -> Result<()> {
    let path = read_cstr(t.mm(), path, PATH_MAX).await?;
    if path.is_empty() && flags & AT_EMPTY_PATH == 0 {
        return Err(Errno::ENOENT);
    }
    let mut walk = fs::Flags::empty();
    walk.set(fs::Flags::FOLLOW, flags & AT_SYMLINK_NOFOLLOW == 0);
    walk.set(fs::Flags::EMPTY, flags & AT_EMPTY_PATH != 0);
    let budget = Strings::budget(t.rlimit(Resource::Stack).soft).saturating_sub(path.len() + 1);
    let argv = Strings::copy_from_user(t.mm(), argv, budget).await?;
    let envp = Strings::copy_from_user(t.mm(), envp, budget.saturating_sub(argv.cost())).await?;
    if flags & !(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH) != 0 {
        return Err(Errno::EINVAL);
    }
    let file = fs::open_exec(fs::Ctx::of(t), dirfd, &path, walk, true).await?;
    let by_descriptor = dirfd != fs::AT_FDCWD && path.first() != Some(&b'/');
    let name = match (by_descriptor, path.is_empty()) {
        (false, _) => path.to_vec(),
        (true, true) => format!("/dev/fd/{dirfd}").into_bytes(),
        (true, false) => [format!("/dev/fd/{dirfd}/").as_bytes(), &path].concat(),
    };
    let name_vanishes = by_descriptor && t.files().cloexec(dirfd)?;
    let nameless = path.is_empty();
    let request = Request { file, name, argv, envp, name_vanishes, nameless };
    // Boxed: the largest future of all must not make every thread's larger.
    alloc::boxed::Box::pin(process::exec::exec(t, request)).await
}

pub fn exit(t: &mut Thread, code: i32) -> Result<()> {
    signal::set_exit(t, ExitStatus::Exited(code as u8));
    Ok(())
}

pub fn exit_group(t: &mut Thread, code: i32) -> Result<()> {
    exit::exit_group(t, ExitStatus::Exited(code as u8));
    Ok(())
}

pub async fn wait4(t: &Thread, pid: i32, status: UserPtr<u32>, options: u32, rusage: UserPtr<u8>) -> SysResult {
    let allowed = WaitOptions::NOHANG
        | WaitOptions::STOPPED
        | WaitOptions::CONTINUED
        | WaitOptions::NOTHREAD
        | WaitOptions::CLONE
        | WaitOptions::ALL;
    let options = WaitOptions::from_bits(options).filter(|o| allowed.contains(*o)).ok_or(Errno::EINVAL)?;
    let who = match pid {
        i32::MIN => return Err(Errno::ESRCH.into()),
        -0x7fff_ffff..-1 => Who::Group(pid.unsigned_abs()),
        -1 => Who::Any,
        0 => Who::Group(t.process().pgid.load(Ordering::Relaxed)),
        _ => Who::Pid(pid as u32),
    };
    let Some(report) = wait::wait(t, who, options | WaitOptions::EXITED).await? else { return Ok(0) };
    if !status.is_null() {
        status.write(t.mm(), wait_status(report.change)).await?;
    }
    write_rusage(t, rusage, &report).await?;
    Ok(report.pid as u64)
}

fn wait_status(change: Change) -> u32 {
    match change {
        Change::Ended(status) => status.wait_status(),
        Change::Stopped(signal) => (signal as u32) << 8 | 0x7f,
        Change::Trapped(code) => code << 8 | 0x7f,
        Change::Continued => 0xffff,
    }
}

async fn write_rusage(t: &Thread, to: UserPtr<u8>, report: &Report) -> Result<()> {
    if to.is_null() {
        return Ok(());
    }
    to.cast::<[u64; 18]>().write(t.mm(), report.usage.to_rusage()).await
}

/// Linux fills the record whatever comes of the call, with zeros if there is nothing to report.
pub async fn waitid(
    t: &Thread,
    idtype: u32,
    id: u32,
    info: UserPtr<u8>,
    options: u32,
    rusage: UserPtr<u8>,
) -> SysResult {
    let outcome = wait_for(t, idtype, id, options).await;
    let report = outcome.as_ref().ok().and_then(|report| report.as_ref());
    if let Some(report) = report {
        write_rusage(t, rusage, report).await?;
    }
    if !info.is_null() && !matches!(outcome, Err(SysError::Restart(_))) {
        write_child_info(t, info, report).await?;
    }
    outcome.map(|_| 0)
}

async fn wait_for(t: &Thread, idtype: u32, id: u32, options: u32) -> SysResult<Option<Report>> {
    let options = WaitOptions::from_bits(options).ok_or(Errno::EINVAL)?;
    if !options.intersects(WaitOptions::EXITED | WaitOptions::STOPPED | WaitOptions::CONTINUED) {
        return Err(Errno::EINVAL.into());
    }
    const P_ALL: u32 = 0;
    const P_PID: u32 = 1;
    const P_PGID: u32 = 2;
    const P_PIDFD: u32 = 3;
    let mut nonblocking_fd = false;
    let mut effective = options;
    let who = match idtype {
        P_ALL => Who::Any,
        P_PID if id as i32 > 0 => Who::Pid(id),
        P_PGID if id == 0 => Who::Group(t.process().pgid.load(Ordering::Relaxed)),
        P_PGID if id as i32 > 0 => Who::Group(id),
        P_PIDFD if id as i32 >= 0 => {
            nonblocking_fd = t.files().get(id as i32)?.flags() & pidfd::NONBLOCK != 0;
            Who::Pidfd(pidfd::process_of(t, id as i32)?)
        }
        _ => return Err(Errno::EINVAL.into()),
    };
    if nonblocking_fd && !options.contains(WaitOptions::NOHANG) {
        effective |= WaitOptions::NOHANG;
    }
    let report = wait::wait(t, who, effective).await?;
    if report.is_none() && nonblocking_fd && !options.contains(WaitOptions::NOHANG) {
        return Err(SysError::Errno(Errno::EAGAIN));
    }
    Ok(report)
}

/// The fields of siginfo_t that waitid fills: si_signo, si_errno, si_code, then at offset 16 si_pid, si_uid, si_status.
async fn write_child_info(t: &Thread, info: UserPtr<u8>, report: Option<&Report>) -> Result<()> {
    const CLD_EXITED: u32 = 1;
    const CLD_KILLED: u32 = 2;
    const CLD_DUMPED: u32 = 3;
    const CLD_TRAPPED: u32 = 4;
    const CLD_STOPPED: u32 = 5;
    const CLD_CONTINUED: u32 = 6;
    let (head, tail) = match report {
        None => ([0; 3], [0; 3]),
        Some(report) => {
            let (code, status) = match report.change {
                Change::Ended(ExitStatus::Exited(code)) => (CLD_EXITED, code as u32),
                Change::Ended(ExitStatus::Killed { signal, core: false }) => (CLD_KILLED, signal as u32),
                Change::Ended(ExitStatus::Killed { signal, core: true }) => (CLD_DUMPED, signal as u32),
                Change::Stopped(signal) => (CLD_STOPPED, signal as u32),
                Change::Trapped(code) => (CLD_TRAPPED, code),
                Change::Continued => (CLD_CONTINUED, signal::SIGCONT as u32),
            };
            ([signal::SIGCHLD as u32, 0, code], [report.pid, report.uid, status])
        }
    };
    info.cast::<[u32; 3]>().write(t.mm(), head).await?;
    info.byte_add(16).cast::<[u32; 3]>().write(t.mm(), tail).await
}

pub fn getpid(t: &mut Thread) -> Result<u32> {
    Ok(t.process().pid)
}

pub fn gettid(t: &mut Thread) -> Result<u32> {
    Ok(t.tid())
}

pub fn getppid(t: &mut Thread) -> Result<u32> {
    Ok(t.process().ppid.load(Ordering::Relaxed))
}

pub fn setpgid(t: &mut Thread, pid: i32, pgid: i32) -> Result<()> {
    group::setpgid(t, pid, pgid)
}

pub fn getpgid(t: &mut Thread, pid: i32) -> Result<u32> {
    group::getpgid(t, pid)
}

pub fn getsid(t: &mut Thread, pid: i32) -> Result<u32> {
    group::getsid(t, pid)
}

pub fn setsid(t: &mut Thread) -> Result<u32> {
    group::setsid(t)
}

pub fn set_tid_address(t: &mut Thread, addr: u64) -> Result<u32> {
    t.clear_child_tid.store(addr, Ordering::Relaxed);
    Ok(t.tid())
}

pub fn pidfd_open(t: &mut Thread, pid: i32, flags: u32) -> Result<i32> {
    pidfd::open(t, pid, flags)
}

pub fn pidfd_getfd(t: &mut Thread, pidfd: i32, fd: i32, flags: u32) -> Result<i32> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    pidfd::take_descriptor(t, pidfd, fd)
}

pub async fn unshare(t: &mut Thread, flags: u64) -> Result<()> {
    process::clone::unshare(t, flags).await
}

pub fn setns(t: &mut Thread, fd: i32, _kind: u32) -> Result<()> {
    // Without namespaces no descriptor stands for one; a pidfd would name some, all of them unknown.
    t.files().get_io(fd)?;
    Err(Errno::EINVAL)
}
