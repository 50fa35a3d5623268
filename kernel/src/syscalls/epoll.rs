//! Waiting for files: epoll(7).

use alloc::sync::Arc;
use core::time::Duration;

use linux_raw_sys::general as raw;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::poll::{deadline_after, read_deadline, read_mask};
use super::{SysError, SysResult};
use crate::errno::{Errno, Result};
use crate::exec::{Instant, Interrupted, interruptible, timeout};
use crate::fs::OpenFile;
use crate::fs::epoll::{Collected, EPOLLET, EPOLLEXCLUSIVE, EPOLLONESHOT, EPOLLWAKEUP, Epoll};
use crate::mm::UserPtr;
use crate::process::Thread;
use crate::signal::{SigSet, with_mask};
use crate::time::UserTimespec;

/// `struct epoll_event` of arm64, where it is not packed.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct EpollEvent {
    events: u32,
    pad: u32,
    data: u64,
}

pub fn epoll_create1(t: &Thread, flags: u32) -> Result<i32> {
    if flags & !raw::EPOLL_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let file = OpenFile::new_anon("[eventpoll]", Epoll::new(t.creds().uid), raw::O_RDWR);
    t.files().install(file, flags & raw::EPOLL_CLOEXEC != 0)
}

pub async fn epoll_ctl(t: &Thread, epfd: i32, op: u32, fd: i32, event: UserPtr<EpollEvent>) -> Result<()> {
    let event = match op {
        raw::EPOLL_CTL_DEL => EpollEvent::default(),
        _ => event.read(t.mm()).await?,
    };
    change_watch(t, epfd, op, fd, event)
}

pub fn epoll_ctl_now(t: &Thread, epfd: i32, op: u32, fd: i32, event: UserPtr<EpollEvent>) -> Option<Result<()>> {
    let event = match op {
        raw::EPOLL_CTL_DEL => EpollEvent::default(),
        _ => event.try_read().ok()?,
    };
    Some(change_watch(t, epfd, op, fd, event))
}

pub(crate) fn change_watch(t: &Thread, epfd: i32, op: u32, fd: i32, event: EpollEvent) -> Result<()> {
    let [epoll_file, file] = t.files().get_two(epfd, fd)?;
    let result = match epoll_file.ops_as::<Epoll>() {
        Some(epoll) => change_watch_of(epoll, op, fd, &file, event),
        None => Err(Errno::EINVAL),
    };
    match result {
        // Linux asks for these first: a file that cannot be watched, and the epoll itself.
        Err(Errno::EINVAL) if !Epoll::can_watch(&file) => Err(Errno::EPERM),
        Err(Errno::ENOENT) if Arc::ptr_eq(&epoll_file, &file) => Err(Errno::EINVAL),
        result => result,
    }
}

fn change_watch_of(epoll: &Epoll, op: u32, fd: i32, file: &Arc<OpenFile>, event: EpollEvent) -> Result<()> {
    let EpollEvent { events, data, .. } = event;
    if events & EPOLLEXCLUSIVE != 0 {
        let allowed = EPOLLEXCLUSIVE | EPOLLET | EPOLLWAKEUP | 0x1d;
        if op == raw::EPOLL_CTL_MOD || events & (!allowed | EPOLLONESHOT) != 0 || file.ops_as::<Epoll>().is_some() {
            return Err(Errno::EINVAL);
        }
    }
    match op {
        raw::EPOLL_CTL_ADD => epoll.add(fd, file, events, data),
        raw::EPOLL_CTL_MOD => epoll.modify(fd, file, events, data),
        raw::EPOLL_CTL_DEL => epoll.delete(fd, file),
        _ => Err(Errno::EINVAL),
    }
}

/// Events that are there already, or none if there is no time to wait.
pub fn epoll_pwait_now(
    t: &Thread,
    epfd: i32,
    events: UserPtr<EpollEvent>,
    max: i32,
    timeout_ms: i32,
    mask: UserPtr<u64>,
    _mask_size: u64,
) -> Option<SysResult<usize>> {
    if !mask.is_null() || max <= 0 || max as usize > MAX_EVENTS {
        return None;
    }
    if !crate::mm::access_ok(events.addr(), max as u64 * size_of::<EpollEvent>() as u64) {
        return None;
    }
    t.files().with(epfd, |file| {
        let mut absent = false;
        let mut index = 0;
        let count = file.ops_as::<Epoll>()?.collect_into(max as usize, |bits, data| {
            absent = events.at(index).try_write(&EpollEvent { events: bits, pad: 0, data }).is_err();
            index += 1;
            !absent
        });
        (count > 0 || timeout_ms == 0 && !absent).then_some(Ok(count))
    })
}

pub async fn epoll_pwait(
    t: &Thread,
    epfd: i32,
    events: UserPtr<EpollEvent>,
    max: i32,
    timeout_ms: i32,
    mask: UserPtr<u64>,
    mask_size: u64,
) -> SysResult<usize> {
    let mask = read_mask(t, mask, mask_size).await?;
    let deadline = u64::try_from(timeout_ms).ok().map(|ms| deadline_after(Duration::from_millis(ms)));
    epoll_wait(t, epfd, events, max, deadline, mask).await
}

pub async fn epoll_pwait2(
    t: &Thread,
    epfd: i32,
    events: UserPtr<EpollEvent>,
    max: i32,
    time: UserPtr<UserTimespec>,
    mask: UserPtr<u64>,
    mask_size: u64,
) -> SysResult<usize> {
    let deadline = read_deadline(t, time).await?;
    let mask = read_mask(t, mask, mask_size).await?;
    epoll_wait(t, epfd, events, max, deadline, mask).await
}

/// EP_MAX_EVENTS of Linux.
const MAX_EVENTS: usize = i32::MAX as usize / size_of::<EpollEvent>();

async fn epoll_wait(
    t: &Thread,
    epfd: i32,
    out: UserPtr<EpollEvent>,
    max: i32,
    deadline: Option<Instant>,
    mask: Option<SigSet>,
) -> SysResult<usize> {
    let max = usize::try_from(max).ok().filter(|max| (1..=MAX_EVENTS).contains(max)).ok_or(Errno::EINVAL)?;
    if !crate::mm::access_ok(out.addr(), (max * size_of::<EpollEvent>()) as u64) {
        return Err(Errno::EFAULT.into());
    }
    let file = t.files().get_io(epfd)?;
    let epoll = file.ops_as::<Epoll>().ok_or(Errno::EINVAL)?;
    let found = with_mask(t, mask, async {
        let attempt = || Some(epoll.collect(max)).filter(|found| !found.is_empty());
        if let Some(found) = attempt() {
            return Ok(found);
        }
        if deadline == Some(Instant::BOOT) {
            return Ok(Collected::new());
        }
        match interruptible(t, timeout(deadline, epoll.queue().wait_for(attempt))).await {
            Ok(found) => Ok(found.unwrap_or_default()),
            // epoll_wait is never restarted (signal(7)).
            Err(Interrupted) => Err(SysError::Errno(Errno::EINTR)),
        }
    })
    .await?;
    for (index, (events, data)) in found.iter().enumerate() {
        out.at(index).write(t.mm(), EpollEvent { events: *events, pad: 0, data: *data }).await?;
    }
    Ok(found.len())
}
