//! Descriptors without files: pipe2, eventfd2, timerfd, memfd_create, userfaultfd; and getrandom.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use core::time::Duration;

use linux_raw_sys::general as raw;

use super::SysResult;
use crate::drivers::random;
use crate::errno::{Errno, Result};
use crate::exec::{Instant, budget};
use crate::fs::eventfd::EventFd;
use crate::fs::timerfd::TimerFd;
use crate::fs::userfault::{self, UserFault};
use crate::fs::{self, OpenFile, pipe};
use crate::mm::{IoBuf, UserPtr, read_cstr};
use crate::process::{Caps, Thread};
use crate::time::{ClockId, UserItimerspec, UserTimespec};

pub async fn pipe2(t: &Thread, fds: UserPtr<[i32; 2]>, flags: u32) -> Result<()> {
    // O_NOTIFICATION_PIPE is not there.
    if flags & !(raw::O_CLOEXEC | raw::O_NONBLOCK | raw::O_DIRECT) != 0 {
        return Err(Errno::EINVAL);
    }
    let cloexec = flags & raw::O_CLOEXEC != 0;
    let (reader, writer) = pipe::open_pair(flags);
    let read_fd = t.files().install(reader, cloexec)?;
    let write_fd = match t.files().install(writer, cloexec) {
        Ok(fd) => fd,
        Err(errno) => {
            t.files().close(read_fd)?;
            return Err(errno);
        }
    };
    if let Err(errno) = fds.write(t.mm(), [read_fd, write_fd]).await {
        let _ = t.files().close(read_fd);
        let _ = t.files().close(write_fd);
        return Err(errno);
    }
    Ok(())
}

pub fn eventfd2(t: &Thread, initial: u32, flags: u32) -> Result<i32> {
    let known = raw::EFD_SEMAPHORE | raw::EFD_CLOEXEC | raw::EFD_NONBLOCK;
    if flags & !known != 0 {
        return Err(Errno::EINVAL);
    }
    let event = EventFd::new(initial, flags & raw::EFD_SEMAPHORE != 0);
    let file = OpenFile::new_anon("[eventfd]", event, raw::O_RDWR | flags & raw::EFD_NONBLOCK);
    t.files().install(file, flags & raw::EFD_CLOEXEC != 0)
}

/// Without CAP_SYS_PTRACE only for faults of user mode, unless vm.unprivileged_userfaultfd says otherwise.
pub fn userfaultfd(t: &Thread, flags: u32) -> Result<i32> {
    let anybody = flags & userfault::USER_MODE_ONLY != 0 || userfault::UNPRIVILEGED.load(Ordering::Relaxed);
    if !anybody && !t.creds().capable(Caps::SYS_PTRACE) {
        return Err(Errno::EPERM);
    }
    if flags & !(raw::O_CLOEXEC | raw::O_NONBLOCK | userfault::USER_MODE_ONLY) != 0 {
        return Err(Errno::EINVAL);
    }
    t.files().install(UserFault::open(t.mm(), flags), flags & raw::O_CLOEXEC != 0)
}

pub fn timerfd_create(t: &Thread, clock: i32, flags: u32) -> Result<i32> {
    if flags & !(raw::TFD_CLOEXEC | raw::TFD_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let id = ClockId::from_raw(t, clock)?;
    match id {
        ClockId::Realtime | ClockId::Monotonic | ClockId::Boottime => {}
        ClockId::RealtimeAlarm | ClockId::BoottimeAlarm if !t.creds().capable(crate::process::Caps::WAKE_ALARM) => {
            return Err(Errno::EPERM);
        }
        ClockId::RealtimeAlarm | ClockId::BoottimeAlarm => {}
        _ => return Err(Errno::EINVAL),
    }
    let file = OpenFile::new_anon("[timerfd]", TimerFd::new(clock), raw::O_RDWR | flags & raw::TFD_NONBLOCK);
    t.files().install(file, flags & raw::TFD_CLOEXEC != 0)
}

fn itimerspec((value, interval): (Duration, Duration)) -> UserItimerspec {
    let spec = |time: Duration| UserTimespec::from_nanos(time.as_nanos() as u64);
    UserItimerspec { interval: spec(interval), value: spec(value) }
}

pub async fn timerfd_settime(
    t: &Thread,
    fd: i32,
    flags: u32,
    new: UserPtr<UserItimerspec>,
    old: UserPtr<UserItimerspec>,
) -> Result<()> {
    let new = new.read(t.mm()).await?;
    let (value, interval) = (new.value.validate()?, new.interval.validate()?.to_duration());
    if flags & !(raw::TFD_TIMER_ABSTIME | raw::TFD_TIMER_CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL);
    }
    let file = t.files().get_io(fd)?;
    let timer = file.ops_as::<TimerFd>().ok_or(Errno::EINVAL)?;
    let next = if value.to_nanos() == 0 {
        None
    } else if flags & raw::TFD_TIMER_ABSTIME != 0 {
        ClockId::from_raw(t, timer.clock())?.instant_of(value.to_nanos())
    } else {
        Some(Instant::now().saturating_add(value.to_duration()))
    };
    let before = timer.set(next, interval);
    if let Some(old) = old.non_null() {
        old.write(t.mm(), itimerspec(before)).await?;
    }
    Ok(())
}

pub async fn timerfd_gettime(t: &Thread, fd: i32, out: UserPtr<UserItimerspec>) -> Result<()> {
    let file = t.files().get_io(fd)?;
    let timer = file.ops_as::<TimerFd>().ok_or(Errno::EINVAL)?;
    out.write(t.mm(), itimerspec(timer.get())).await
}

pub async fn memfd_create(t: &Thread, name: UserPtr<u8>, flags: u32) -> Result<i32> {
    const NAME_MAX: usize = 249;
    let known = raw::MFD_CLOEXEC | raw::MFD_ALLOW_SEALING | raw::MFD_NOEXEC_SEAL | raw::MFD_EXEC;
    if flags & !known != 0 || flags & raw::MFD_EXEC != 0 && flags & raw::MFD_NOEXEC_SEAL != 0 {
        return Err(Errno::EINVAL);
    }
    let name = match read_cstr(t.mm(), name.addr(), NAME_MAX + 1).await {
        Err(Errno::ENAMETOOLONG) => return Err(Errno::EINVAL),
        name => name?,
    };
    let sealing = flags & (raw::MFD_ALLOW_SEALING | raw::MFD_NOEXEC_SEAL) != 0;
    let perm = if flags & raw::MFD_NOEXEC_SEAL != 0 { 0o666 } else { 0o777 };
    let file = fs::memfd::create(t.creds(), &name, perm, sealing)?;
    t.files().install(file, flags & raw::MFD_CLOEXEC != 0)
}

pub async fn getrandom(t: &Thread, addr: u64, len: u64, flags: u32) -> SysResult<usize> {
    let known = raw::GRND_NONBLOCK | raw::GRND_RANDOM | raw::GRND_INSECURE;
    let both = raw::GRND_INSECURE | raw::GRND_RANDOM;
    if flags & !known != 0 || flags & both == both {
        return Err(Errno::EINVAL.into());
    }
    let mut buf = IoBuf::user(t.mm(), addr, len.min(i32::MAX as u64))?;
    let mut piece = Vec::new();
    while !buf.is_empty() {
        let want = buf.remaining().min(256);
        piece.resize(want, 0);
        random::fill(&mut piece);
        match buf.copy_to(&piece) {
            Ok(_) => {}
            Err(fault) => match buf.fault_in(&fault).await {
                Err(_) if buf.done() > 0 => break,
                result => result?,
            },
        }
        budget().await;
    }
    Ok(buf.done())
}
