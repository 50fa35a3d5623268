//! ptrace(2): the requests, and what they move between the tracer's memory and a stopped tracee.

use alloc::sync::Arc;

use super::SysResult;
use crate::errno::{Errno, Result};
use crate::mm::{AddressSpace, Toucher, UserPtr};
use crate::process::Thread;
use crate::process::ptrace::control::Tracee;
use crate::process::ptrace::registers::Set;
use crate::process::ptrace::{self, Resume};
use crate::process::run::killable;
use crate::signal::{self, SIGINFO_SIZE, SigInfo, SigSet};

use linux_raw_sys::ptrace as raw;

/// Sizes of sigset_t, and of the word that PEEKTEXT and POKETEXT move.
const WORD: usize = 8;

pub async fn ptrace(t: &Thread, request: u64, pid: i32, addr: u64, data: u64) -> SysResult {
    let Ok(request) = u32::try_from(request) else { return refuse(t, pid) };
    match request {
        raw::PTRACE_TRACEME => ptrace::trace_me(t)?,
        raw::PTRACE_ATTACH => ptrace::attach(t, pid, None).await?,
        raw::PTRACE_SEIZE => seize(t, pid, addr, data).await?,
        raw::PTRACE_KILL => Tracee::find(t, pid)?.kill(),
        raw::PTRACE_INTERRUPT => Tracee::find(t, pid)?.interrupt()?,
        _ => return of_stopped(t, Tracee::find_stopped(t, pid)?, request, addr, data).await,
    }
    Ok(0)
}

fn refuse(t: &Thread, pid: i32) -> SysResult {
    Tracee::find_stopped(t, pid)?;
    Err(Errno::EIO.into())
}

async fn seize(t: &Thread, pid: i32, addr: u64, data: u64) -> SysResult<()> {
    if addr != 0 || data & !u64::from(raw::PTRACE_O_MASK) != 0 {
        // Whether there is such a thread is asked first.
        return match ptrace::exists(pid) {
            true => Err(Errno::EIO.into()),
            false => Err(Errno::ESRCH.into()),
        };
    }
    ptrace::attach(t, pid, Some(ptrace::seize_options(data)?)).await
}

async fn of_stopped(t: &Thread, tracee: Tracee, request: u32, addr: u64, data: u64) -> SysResult {
    let to = UserPtr::<u64>::new(data);
    match request {
        raw::PTRACE_PEEKTEXT | raw::PTRACE_PEEKDATA => {
            let word = peek(t, &tracee, addr).await?;
            to.write(t.mm(), word).await?;
        }
        raw::PTRACE_POKETEXT | raw::PTRACE_POKEDATA => poke(t, &tracee, addr, data).await?,
        raw::PTRACE_CONT => tracee.resume(Resume::Go, data)?,
        raw::PTRACE_SYSCALL => tracee.resume(Resume::Syscall, data)?,
        raw::PTRACE_SINGLESTEP => tracee.resume(Resume::Step, data)?,
        raw::PTRACE_SYSEMU => tracee.resume(Resume::Emulate, data)?,
        raw::PTRACE_SYSEMU_SINGLESTEP => tracee.resume(Resume::EmulateAndStep, data)?,
        // Of its data only a word counts.
        raw::PTRACE_DETACH => tracee.detach(u64::from(data as u32))?,
        raw::PTRACE_LISTEN => tracee.listen()?,
        raw::PTRACE_SETOPTIONS => tracee.set_options(ptrace::seize_options(data)?),
        raw::PTRACE_GETEVENTMSG => to.write(t.mm(), tracee.message()?).await?,
        raw::PTRACE_GETSIGINFO => to.cast::<u8>().write_bytes(t.mm(), &tracee.info()?).await?,
        raw::PTRACE_SETSIGINFO => tracee.set_info(read_info(t, data).await?)?,
        raw::PTRACE_PEEKSIGINFO => return peek_infos(t, &tracee, addr, data).await,
        raw::PTRACE_GETSIGMASK | raw::PTRACE_SETSIGMASK if addr != WORD as u64 => return Err(Errno::EINVAL.into()),
        raw::PTRACE_GETSIGMASK => to.write(t.mm(), tracee.mask().0).await?,
        raw::PTRACE_SETSIGMASK => tracee.set_mask(SigSet(to.read(t.mm()).await?)),
        raw::PTRACE_GETREGSET | raw::PTRACE_SETREGSET => {
            registers(t, &tracee, addr, data, request == raw::PTRACE_SETREGSET).await?;
        }
        raw::PTRACE_GET_SYSCALL_INFO => return call_info(t, &tracee, addr, data).await,
        // There are no filters.
        raw::PTRACE_SECCOMP_GET_FILTER => return Err(Errno::EINVAL.into()),
        _ => return Err(Errno::EIO.into()),
    }
    Ok(0)
}

/// EIO if the tracer may not see it.
fn space_of(tracee: &Tracee) -> Result<Arc<AddressSpace>> {
    tracee.task.handles().mm.filter(|_| tracee.may_access_memory()).ok_or(Errno::EIO)
}

async fn peek(t: &Thread, tracee: &Tracee, addr: u64) -> Result<u64> {
    let space = space_of(tracee)?;
    let mut word = [0; WORD];
    let moved = killable(t, space.read_remote(addr, &mut word, Toucher::Onlooker)).await?;
    if moved == Ok(WORD) { Ok(u64::from_le_bytes(word)) } else { Err(Errno::EIO) }
}

async fn poke(t: &Thread, tracee: &Tracee, addr: u64, data: u64) -> Result<()> {
    let space = space_of(tracee)?;
    let moved = killable(t, space.write_remote(addr, &data.to_le_bytes(), Toucher::Onlooker)).await?;
    if moved == Ok(WORD) { Ok(()) } else { Err(Errno::EIO) }
}

async fn read_info(t: &Thread, data: u64) -> Result<SigInfo> {
    let mut bytes = [0; SIGINFO_SIZE];
    UserPtr::<u8>::new(data).read_bytes(t.mm(), &mut bytes).await?;
    SigInfo::from_user(&bytes).ok_or(Errno::E2BIG)
}

/// PTRACE_PEEKSIGINFO: how many were stored.
async fn peek_infos(t: &Thread, tracee: &Tracee, args: u64, data: u64) -> SysResult {
    let [offset, rest] = UserPtr::<[u64; 2]>::new(args).read(t.mm()).await?;
    let (flags, wanted) = (rest as u32, (rest >> 32) as i32);
    if flags & !raw::PTRACE_PEEKSIGINFO_SHARED != 0 || wanted < 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut done = 0;
    while done < wanted as u64 {
        let index = usize::try_from(offset.saturating_add(done)).unwrap_or(usize::MAX);
        let Some(info) = signal::peek(&tracee.task, flags != 0, index) else { break };
        let to = UserPtr::<u8>::new(data.wrapping_add(done * SIGINFO_SIZE as u64));
        match to.write_bytes(t.mm(), &info).await {
            Ok(()) => done += 1,
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno.into()),
        }
        crate::exec::budget().await;
    }
    Ok(done)
}

/// PTRACE_GETREGSET and PTRACE_SETREGSET: `data` is a vector whose length becomes that of what was moved.
async fn registers(t: &Thread, tracee: &Tracee, kind: u64, data: u64, set: bool) -> Result<()> {
    let vector = UserPtr::<[u64; 2]>::new(data);
    let [base, len] = vector.read(t.mm()).await?;
    let kind = Set::of(kind)?;
    if !len.is_multiple_of(kind.unit()) {
        return Err(Errno::EINVAL);
    }
    let now = tracee.with(|stop| kind.read(stop))?;
    let len = now.len().min(usize::try_from(len).unwrap_or(usize::MAX));
    let buffer = UserPtr::<u8>::new(base);
    if set {
        let mut bytes = now;
        bytes.truncate(len);
        buffer.read_bytes(t.mm(), &mut bytes).await?;
        tracee.with(|stop| kind.write(stop, &bytes))??;
    } else {
        buffer.write_bytes(t.mm(), &now[..len]).await?;
    }
    vector.cast::<u64>().byte_add(8).write(t.mm(), len as u64).await
}

/// PTRACE_GET_SYSCALL_INFO: how much there is, whatever fits.
async fn call_info(t: &Thread, tracee: &Tracee, size: u64, data: u64) -> SysResult {
    let (words, known) = tracee.call_info()?;
    let bytes = zerocopy::IntoBytes::as_bytes(&words);
    let len = known.min(usize::try_from(size).unwrap_or(usize::MAX));
    UserPtr::<u8>::new(data).write_bytes(t.mm(), &bytes[..len]).await?;
    Ok(known as u64)
}
