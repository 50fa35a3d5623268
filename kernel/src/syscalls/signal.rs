//! Signals: kill(2), sigaction(2), sigprocmask(2), sigreturn(2) and their kin.

use super::SysResult;
use crate::errno::{Errno, Result};
use crate::exec::Instant;
use crate::mm::UserPtr;
use crate::process::{self, Process, Reach, Task, Thread, Whom, table};
use crate::signal::{
    self, AltStack, RestartBlock, Restored, SIGINFO_SIZE, SIGKILL, SIGSTOP, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK,
    SigAction, SigInfo, SigSet, UserStack,
};
use crate::time::UserTimespec;

use alloc::sync::Arc;

/// sizeof(sigset_t) of the kernel ABI.
const SIGSET_SIZE: usize = 8;
/// MINSIGSTKSZ of arm64.
const MIN_STACK: u64 = 5120;

fn check_size(size: usize) -> Result<()> {
    if size == SIGSET_SIZE { Ok(()) } else { Err(Errno::EINVAL) }
}

pub async fn rt_sigaction(
    t: &Thread,
    signo: i32,
    new: UserPtr<SigAction>,
    old: UserPtr<SigAction>,
    size: usize,
) -> Result<()> {
    check_size(size)?;
    if !signal::is_valid(signo) {
        return Err(Errno::EINVAL);
    }
    let signo = signo as u8;
    let handlers = t.process().handlers.read().clone();
    let previous = match new.non_null() {
        None => handlers.get(signo),
        Some(new) => {
            let action = new.read(t.mm()).await?;
            if signo == SIGKILL || signo == SIGSTOP {
                return Err(Errno::EINVAL);
            }
            signal::set_action(t, signo, action.sanitized())
        }
    };
    match old.non_null() {
        Some(old) => old.write(t.mm(), previous).await,
        None => Ok(()),
    }
}

pub async fn rt_sigprocmask(t: &Thread, how: i32, new: UserPtr<u64>, old: UserPtr<u64>, size: usize) -> Result<()> {
    check_size(size)?;
    let previous = t.sig.blocked();
    if let Some(new) = new.non_null() {
        let set = SigSet(new.read(t.mm()).await?);
        signal::set_mask(t, changed_mask(previous, how, set)?);
    }
    match old.non_null() {
        Some(old) => old.write(t.mm(), previous.0).await,
        None => Ok(()),
    }
}

pub fn rt_sigprocmask_now(
    t: &Thread,
    how: i32,
    new: UserPtr<u64>,
    old: UserPtr<u64>,
    size: usize,
) -> Option<Result<()>> {
    check_size(size).ok()?;
    let previous = t.sig.blocked();
    let mask = match new.non_null() {
        Some(new) => Some(changed_mask(previous, how, SigSet(new.try_read().ok()?)).ok()?),
        None => None,
    };
    // Before the mask changes: if this faults, nothing has been done.
    if let Some(old) = old.non_null() {
        old.try_write(&previous.0).ok()?;
    }
    if let Some(mask) = mask {
        signal::set_mask(t, mask);
    }
    Some(Ok(()))
}

fn changed_mask(previous: SigSet, how: i32, set: SigSet) -> Result<SigSet> {
    const SIG_BLOCK: i32 = 0;
    const SIG_UNBLOCK: i32 = 1;
    const SIG_SETMASK: i32 = 2;
    match how {
        SIG_BLOCK => Ok(previous | set.blockable()),
        SIG_UNBLOCK => Ok(previous.without(set)),
        SIG_SETMASK => Ok(set),
        _ => Err(Errno::EINVAL),
    }
}

pub async fn rt_sigpending(t: &Thread, set: UserPtr<u64>, size: usize) -> Result<()> {
    if size > SIGSET_SIZE {
        return Err(Errno::EINVAL);
    }
    let pending = (t.sig.pending() | t.process().sig.pending()) & t.sig.blocked();
    set.cast::<u8>().write_bytes(t.mm(), &pending.0.to_le_bytes()[..size]).await
}

pub async fn rt_sigsuspend(t: &Thread, mask: UserPtr<u64>, size: usize) -> SysResult<()> {
    check_size(size)?;
    let mask = SigSet(mask.read(t.mm()).await?);
    Err(signal::suspend(t, mask).await)
}

pub async fn rt_sigtimedwait(
    t: &Thread,
    wanted: UserPtr<u64>,
    info: UserPtr<u8>,
    timeout: UserPtr<UserTimespec>,
    size: usize,
) -> Result<i32> {
    check_size(size)?;
    let wanted = SigSet(wanted.read(t.mm()).await?);
    let deadline = match timeout.non_null() {
        Some(timeout) => {
            let timeout = timeout.read(t.mm()).await?.validate()?;
            Some(Instant::now().saturating_add(timeout.to_duration()))
        }
        None => None,
    };
    let taken = signal::wait_for(t, wanted, deadline).await?;
    if let Some(info) = info.non_null() {
        info.write_bytes(t.mm(), &taken.to_user()).await?;
    }
    Ok(taken.signo)
}

pub async fn sigaltstack(t: &Thread, new: UserPtr<UserStack>, old: UserPtr<UserStack>) -> Result<()> {
    let sp = t.regs.sp;
    let previous = t.sig.alt_stack();
    if let Some(new) = new.non_null() {
        let stack = new.read(t.mm()).await?;
        set_alt_stack(t, &stack, sp)?;
    }
    match old.non_null() {
        Some(old) => old.write(t.mm(), UserStack::new(previous.sp, previous.flags_at(sp), previous.size)).await,
        None => Ok(()),
    }
}

#[inline]
fn set_alt_stack(t: &Thread, stack: &UserStack, sp: u64) -> Result<()> {
    let current = t.sig.alt_stack();
    if current.size != 0 && current.contains(sp) {
        return Err(Errno::EPERM);
    }
    let mode = stack.flags & !SS_AUTODISARM;
    let flags = stack.flags & SS_AUTODISARM;
    let new = match mode {
        SS_DISABLE => AltStack { sp: 0, flags, size: 0 },
        0 | SS_ONSTACK if stack.size < MIN_STACK => return Err(Errno::ENOMEM),
        0 | SS_ONSTACK => AltStack { sp: stack.sp, flags, size: stack.size },
        _ => return Err(Errno::EINVAL),
    };
    t.sig.set_alt_stack(new);
    Ok(())
}

fn restore(t: &Thread, restored: &Restored) {
    signal::set_mask(t, restored.mask);
    // Linux ignores a stack that sigaltstack would refuse.
    let _ = set_alt_stack(t, &restored.stack, t.regs.sp);
}

/// The same if the frame is there and good.
pub fn rt_sigreturn_now(t: &mut Thread) -> Option<Result<u64>> {
    let restored = signal::try_pop_frame(t)?;
    restore(t, &restored);
    Some(Ok(t.regs.x[0]))
}

/// Returns from a handler: every register comes from the frame, x0 included.
pub async fn rt_sigreturn(t: &mut Thread) -> Result<u64> {
    match signal::pop_frame(t).await {
        Ok(restored) => restore(t, &restored),
        Err(_) => {
            let sp = t.regs.sp;
            signal::force_fault(t, signal::SIGSEGV, signal::SEGV_MAPERR, sp, 0);
        }
    }
    Ok(t.regs.x[0])
}

/// Goes on with a wait that a stop or an ignored signal interrupted.
pub async fn restart_syscall(t: &Thread) -> SysResult {
    let block = t.restart_block.lock().take();
    match block {
        Some(RestartBlock::Sleep(sleep)) => crate::time::resume_sleep(t, sleep).await.map(|()| 0),
        Some(RestartBlock::Futex(wait)) => crate::futex::resume_wait(t, wait).await,
        Some(RestartBlock::Call(resume)) => resume(t).await,
        None => Err(Errno::EINTR.into()),
    }
}

fn sent_by(t: &Thread, signo: i32, code: i32) -> SigInfo {
    let mut info = SigInfo::user(0, t.process().pid, t.creds().uid);
    info.signo = signo;
    info.code = code;
    info
}

fn check_signo(signo: i32) -> Result<()> {
    if signo == 0 || signal::is_valid(signo) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Checks the number after the target has been found, as Linux does.
fn send_checked(t: &Thread, target: &Arc<Process>, info: SigInfo) -> Result<()> {
    check_signo(info.signo)?;
    signal::may_signal(t.process(), t.creds(), target, info.signo())?;
    if info.signo == 0 { Ok(()) } else { signal::send_to_process(target, info) }
}

pub fn kill(t: &mut Thread, pid: i32, signo: i32) -> Result<()> {
    let info = sent_by(t, signo, signal::SI_USER);
    match pid {
        1.. => send_checked(t, &process_of(pid)?, info),
        -1 => process::signal_many(Whom::Everybody, &reach(t), info),
        i32::MIN => Err(Errno::ESRCH),
        _ => {
            let pgid = if pid == 0 {
                t.process().pgid.load(core::sync::atomic::Ordering::Relaxed)
            } else {
                pid.unsigned_abs()
            };
            process::signal_many(Whom::Group(pgid), &reach(t), info)
        }
    }
}

/// kill(2) with the id of a thread that is no leader reaches its process.
fn process_of(id: i32) -> Result<Arc<Process>> {
    let id = id as u32;
    let table = table::lock();
    let thread = || table.task(id).or_else(|| table.dead_tracee(id)).map(|task| task.process());
    table.process(id).or_else(thread).cloned().ok_or(Errno::ESRCH)
}

fn reach(t: &Thread) -> Reach {
    Reach::By(t.process().clone(), t.creds().clone())
}

/// The thread `tid`, which must belong to `tgid` if that is given.
fn find_thread(tgid: Option<i32>, tid: i32) -> Result<Arc<Task>> {
    if tid <= 0 || tgid.is_some_and(|tgid| tgid <= 0) {
        return Err(Errno::EINVAL);
    }
    let task = table::find_task(tid as u32).ok_or(Errno::ESRCH)?;
    match tgid {
        Some(tgid) if task.process().pid != tgid as u32 => Err(Errno::ESRCH),
        _ => Ok(task),
    }
}

fn send_to_thread(t: &Thread, tgid: Option<i32>, tid: i32, info: SigInfo) -> Result<()> {
    let task = match find_thread(tgid, tid) {
        Err(Errno::ESRCH) => return send_to_ended(t, tgid, tid, info),
        found => found?,
    };
    check_signo(info.signo)?;
    signal::may_signal(t.process(), t.creds(), task.process(), info.signo())?;
    if info.signo == 0 { Ok(()) } else { signal::send_to_task(&task, info) }
}

/// A thread that has ended is there, to be signalled in vain: a first one as long as its process, a traced one until its
/// tracer has waited for it.
fn send_to_ended(t: &Thread, tgid: Option<i32>, tid: i32, info: SigInfo) -> Result<()> {
    let process = process_of(tid)?;
    if tgid.is_some_and(|tgid| process.pid != tgid as u32) {
        return Err(Errno::ESRCH);
    }
    check_signo(info.signo)?;
    signal::may_signal(t.process(), t.creds(), &process, info.signo())
}

pub fn tkill(t: &mut Thread, tid: i32, signo: i32) -> Result<()> {
    let info = sent_by(t, signo, signal::SI_TKILL);
    send_to_thread(t, None, tid, info)
}

pub fn tgkill(t: &mut Thread, tgid: i32, tid: i32, signo: i32) -> Result<()> {
    let info = sent_by(t, signo, signal::SI_TKILL);
    send_to_thread(t, Some(tgid), tid, info)
}

/// The information that sigqueue passes. Only to oneself may it look as if it came from kill or the kernel.
async fn read_info(t: &Thread, info: UserPtr<u8>, signo: i32, to_self: bool) -> Result<SigInfo> {
    let mut bytes = [0; SIGINFO_SIZE];
    let known = size_of::<SigInfo>();
    info.read_bytes(t.mm(), &mut bytes[..known]).await?;
    bytes[..4].copy_from_slice(&signo.to_le_bytes());
    // The rest counts only for kinds that the kernel does not know.
    if !SigInfo::from_user(&bytes).is_some_and(|info| info.has_known_layout()) {
        info.byte_add(known as u64).read_bytes(t.mm(), &mut bytes[known..]).await?;
    }
    let info = SigInfo::from_user(&bytes).ok_or(Errno::E2BIG)?;
    if (info.code >= 0 || info.code == signal::SI_TKILL) && !to_self {
        return Err(Errno::EPERM);
    }
    Ok(info)
}

pub async fn rt_sigqueueinfo(t: &Thread, pid: i32, signo: i32, info: UserPtr<u8>) -> Result<()> {
    let info = read_info(t, info, signo, pid > 0 && pid as u32 == t.process().pid).await?;
    if pid <= 0 {
        return Err(Errno::ESRCH);
    }
    send_checked(t, &process_of(pid)?, info)
}

pub async fn rt_tgsigqueueinfo(t: &Thread, tgid: i32, tid: i32, signo: i32, info: UserPtr<u8>) -> Result<()> {
    let info = read_info(t, info, signo, tid > 0 && tid as u32 == t.tid()).await?;
    send_to_thread(t, Some(tgid), tid, info)
}

pub async fn signalfd4(t: &Thread, fd: i32, mask: UserPtr<u64>, size: usize, flags: u32) -> Result<i32> {
    check_size(size)?;
    let mask = SigSet(mask.read(t.mm()).await?);
    signal::signalfd(t, fd, mask, flags)
}

/// pidfd_send_signal(2).
pub async fn pidfd_send_signal(t: &Thread, fd: i32, signo: i32, info: UserPtr<u8>, flags: u32) -> Result<()> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let target = crate::process::pidfd::receiver_of(t, fd)?;
    check_signo(signo)?;
    let info = match info.non_null() {
        None => sent_by(t, signo, signal::SI_USER),
        Some(info) => {
            let read = read_info(t, info, signo, target.pid == t.process().pid).await?;
            let mut bytes = [0; 4];
            info.read_bytes(t.mm(), &mut bytes).await?;
            if i32::from_le_bytes(bytes) != signo {
                return Err(Errno::EINVAL);
            }
            read
        }
    };
    if table::find(target.pid).is_none_or(|found| !Arc::ptr_eq(&found, &target)) {
        return Err(Errno::ESRCH); // waited for
    }
    send_checked(t, &target, info)
}
