//! Waiting for files: epoll(7).

use alloc::sync::Arc;
use core::time::Duration;

use linux_raw_sys::general as raw;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::poll::{deadline_after, read_deadline, read_mask};
use super::{SysError, SysResult};
use crate::arch::UserFault;
use crate::errno::{Errno, Result};
use crate::exec::{self, Elapsed, Instant, Interrupted, interruptible, timeout};
use crate::fs::OpenFile;
use crate::fs::epoll::{Collected, EPOLLET, EPOLLEXCLUSIVE, EPOLLONESHOT, EPOLLWAKEUP, Epoll};
use crate::mm::{PAGE_SIZE, UserPtr};
use crate::process::Thread;
use crate::process::run::killable;
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
    let files = t.files().get_two(epfd, fd)?;
    match change_now(&files, op, fd, event) {
        Some(done) => done,
        // Others may search through long nests of epolls first.
        None => killable(t, add_nested(&files, fd, event)).await?,
    }
}

pub fn epoll_ctl_now(t: &Thread, epfd: i32, op: u32, fd: i32, event: UserPtr<EpollEvent>) -> Option<Result<()>> {
    let event = match op {
        raw::EPOLL_CTL_DEL => EpollEvent::default(),
        _ => event.try_read().ok()?,
    };
    match t.files().get_two(epfd, fd) {
        Ok(files) => change_now(&files, op, fd, event),
        Err(errno) => Some(Err(errno)),
    }
}

/// All changes but those of epolls that watch epolls.
fn change_now(files: &[Arc<OpenFile>; 2], op: u32, fd: i32, event: EpollEvent) -> Option<Result<()>> {
    let [epoll_file, file] = files;
    let result = match epoll_file.ops_as::<Epoll>() {
        Some(epoll) => change_watch_of(epoll, op, fd, file, event)?,
        None => Err(Errno::EINVAL),
    };
    Some(match result {
        // Linux asks for these first: a file that cannot be watched, and the epoll itself.
        Err(Errno::EINVAL) if !Epoll::can_watch(file) => Err(Errno::EPERM),
        Err(Errno::ENOENT) if Arc::ptr_eq(epoll_file, file) => Err(Errno::EINVAL),
        result => result,
    })
}

async fn add_nested([epoll, file]: &[Arc<OpenFile>; 2], fd: i32, event: EpollEvent) -> Result<()> {
    let epoll = epoll.ops_as::<Epoll>().ok_or(Errno::EINVAL)?;
    epoll.add(fd, file, event.events, event.data).await
}

fn change_watch_of(epoll: &Epoll, op: u32, fd: i32, file: &Arc<OpenFile>, event: EpollEvent) -> Option<Result<()>> {
    let EpollEvent { events, data, .. } = event;
    if events & EPOLLEXCLUSIVE != 0 {
        let allowed = EPOLLEXCLUSIVE | EPOLLET | EPOLLWAKEUP | 0x1d;
        if op == raw::EPOLL_CTL_MOD || events & (!allowed | EPOLLONESHOT) != 0 || file.ops_as::<Epoll>().is_some() {
            return Some(Err(Errno::EINVAL));
        }
    }
    match op {
        raw::EPOLL_CTL_ADD => epoll.add_now(fd, file, events, data),
        raw::EPOLL_CTL_MOD => Some(epoll.modify(fd, file, events, data)),
        raw::EPOLL_CTL_DEL => Some(epoll.delete(fd, file)),
        _ => Some(Err(Errno::EINVAL)),
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
        let (mut absent, mut index) = (false, 0);
        // In one page: it is there for all events, or for none.
        let room = (PAGE_SIZE - events.addr() as usize % PAGE_SIZE) / size_of::<EpollEvent>();
        let collected = file.ops_as::<Epoll>()?.collect_at_once(max as usize, room, |bits, data| {
            absent = events.at(index).try_write(&EpollEvent { events: bits, pad: 0, data }).is_err();
            index += 1;
            !absent
        })?;
        (collected.count > 0 || timeout_ms == 0 && !absent).then_some(Ok(collected.count))
    })
}

/// What came of looking for events once.
struct Taken {
    /// So many were written, and so many watches not looked at.
    collected: Collected,
    /// The page that the next one goes to is not there.
    fault: Option<UserFault>,
}

/// Where events go to.
struct Room {
    out: UserPtr<EpollEvent>,
    max: usize,
}

impl Room {
    /// Takes events of the first `turns` watches, or of all.
    fn take(&self, epoll: &Epoll, turns: Option<usize>) -> Taken {
        let mut fault = None;
        let mut index = 0;
        let collected = epoll.collect_into(self.max, turns, |bits, data| {
            fault = self.out.at(index).try_write(&EpollEvent { events: bits, pad: 0, data }).err();
            index += 1;
            fault.is_none()
        });
        Taken { collected, fault }
    }

    /// Is any of it used, or must the caller do something before it looks again?
    fn take_first(&self, epoll: &Epoll) -> Option<Taken> {
        let taken = self.take(epoll, None);
        (taken.collected.count > 0 || taken.collected.left > 0 || taken.fault.is_some()).then_some(taken)
    }

    /// Goes on behind the first events, which no longer are where others could take them: nothing but an address that is not there
    /// ends it early. Answers how many there are.
    async fn fill(mut self, t: &Thread, epoll: &Epoll, mut taken: Taken) -> usize {
        let mut count = 0;
        loop {
            let Collected { count: more, left } = taken.collected;
            count += more;
            self = Room { out: self.out.at(more), max: self.max - more };
            if left == 0 || self.max == 0 {
                return count;
            }
            match taken.fault {
                Some(fault) if t.mm().fault_in(fault).await.is_err() => return count,
                Some(_) => {}
                None => exec::budget().await,
            }
            taken = self.take(epoll, Some(left));
        }
    }
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

/// epoll_wait is never restarted (signal(7)).
const NEVER_RESTARTED: SysError = SysError::Errno(Errno::EINTR);

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
    let room = Room { out, max };
    with_mask(t, mask, async {
        let attempt = || room.take_first(epoll);
        let taken = loop {
            let taken = match attempt() {
                Some(taken) => taken,
                None if deadline == Some(Instant::BOOT) => return Ok(0),
                None => match interruptible(t, timeout(deadline, epoll.queue().wait_for(attempt))).await {
                    Ok(Ok(taken)) => taken,
                    Ok(Err(Elapsed)) => return Ok(0),
                    Err(Interrupted) => return Err(NEVER_RESTARTED),
                },
            };
            match (taken.collected.count, taken.fault) {
                (1.., _) => break taken,
                (0, Some(fault)) => t.mm().fault_in(fault).await?,
                (0, None) => interruptible(t, exec::budget()).await.map_err(|Interrupted| NEVER_RESTARTED)?,
            }
        };
        Ok(room.fill(t, epoll, taken).await)
    })
    .await
}
