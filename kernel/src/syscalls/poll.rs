//! Waiting for files: ppoll, pselect6, epoll.

use core::future::Future;
use core::time::Duration;

use futures_util::TryFutureExt;

use linux_raw_sys::general as raw;
use smallvec::SmallVec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{SysError, SysResult};
use crate::errno::{Errno, Result};
use crate::exec::{Instant, Interrupted, interruptible, timeout};
use crate::fs::epoll::{EPOLLET, EPOLLEXCLUSIVE, EPOLLONESHOT, EPOLLWAKEUP, Epoll};
use crate::fs::poll::{WatchList, Watched, poll};
use crate::fs::{Events, OpenFile};
use crate::mm::UserPtr;
use crate::process::Thread;
use crate::signal::{Restart, SigSet, with_mask};
use crate::time::UserTimespec;

/// A timeout as a deadline: None waits for ever, zero is [`Instant::BOOT`], which does not wait at all.
async fn read_deadline(t: &Thread, time: UserPtr<UserTimespec>) -> Result<Option<Instant>> {
    let Some(time) = time.non_null() else { return Ok(None) };
    let time = time.read(t.mm()).await?.validate()?;
    Ok(Some(deadline_after(time.to_duration())))
}

fn deadline_after(wait: Duration) -> Instant {
    if wait.is_zero() { Instant::BOOT } else { Instant::now().saturating_add(wait) }
}

/// Linux tells what is left of the timeout; a failure to store it is no error.
async fn write_rest(t: &Thread, time: UserPtr<UserTimespec>, deadline: Option<Instant>) {
    if let (Some(time), Some(deadline)) = (time.non_null(), deadline) {
        let left = deadline.saturating_since(Instant::now());
        let _ = time.write(t.mm(), UserTimespec::from_nanos(left.as_nanos() as u64)).await;
    }
}

async fn read_mask(t: &Thread, mask: UserPtr<u64>, size: u64) -> Result<Option<SigSet>> {
    let Some(mask) = mask.non_null() else { return Ok(None) };
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    Ok(Some(SigSet(mask.read(t.mm()).await?)))
}

/// A signal ends poll and select for good if it has a handler, and else is as if it had not been.
fn no_handler<T>(wait: impl Future<Output = Result<T, Interrupted>>) -> impl Future<Output = SysResult<T>> {
    wait.map_err(|Interrupted| Restart::NoHand.into())
}

/// `struct pollfd`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct PollFd {
    fd: i32,
    events: u16,
    revents: u16,
}

pub async fn ppoll(
    t: &Thread,
    fds: UserPtr<PollFd>,
    count: u32,
    time: UserPtr<UserTimespec>,
    mask: UserPtr<u64>,
    mask_size: u64,
) -> SysResult<usize> {
    let deadline = read_deadline(t, time).await?;
    let mask = read_mask(t, mask, mask_size).await?;
    if count as u64 > t.files().limit() {
        return Err(Errno::EINVAL.into());
    }
    let mut polled: SmallVec<[PollFd; 4]> = SmallVec::new();
    polled.try_reserve(count as usize).map_err(|_| Errno::ENOMEM)?;
    polled.resize(count as usize, PollFd::default());
    fds.cast::<u8>().read_bytes(t.mm(), polled.as_mut_slice().as_mut_bytes()).await?;
    let mut list: WatchList = polled.iter().map(|entry| watched(t, entry)).collect();
    let result = with_mask(t, mask, no_handler(poll(t, &mut list, deadline))).await;
    write_rest(t, time, deadline).await;
    let found = result?;
    for (entry, watched) in polled.iter_mut().zip(&list) {
        entry.revents = watched.found.bits() as u16;
    }
    fds.cast::<u8>().write_bytes(t.mm(), polled.as_slice().as_bytes()).await?;
    Ok(found)
}

fn watched(t: &Thread, entry: &PollFd) -> Watched {
    let events = Events::from_bits_truncate(entry.events as u32);
    if entry.fd < 0 {
        return Watched { file: None, events, found: Events::empty() };
    }
    match t.files().get(entry.fd) {
        Ok(file) => Watched { file: Some(file), events, found: Events::empty() },
        Err(_) => Watched { file: None, events, found: Events::NVAL },
    }
}

/// What the three sets of select(2) stand for (POLLIN_SET and so on of Linux).
const READ_SET: Events = Events::RDNORM.union(Events::RDBAND).union(Events::IN).union(Events::HUP).union(Events::ERR);
const WRITE_SET: Events = Events::WRBAND.union(Events::WRNORM).union(Events::OUT).union(Events::ERR);
const EXCEPT_SET: Events = Events::PRI;

type FdSet = SmallVec<[u64; 2]>;

async fn read_set(t: &Thread, set: UserPtr<u64>, words: usize) -> Result<FdSet> {
    let mut bits = FdSet::new();
    bits.try_reserve(words).map_err(|_| Errno::ENOMEM)?;
    bits.resize(words, 0);
    if !set.is_null() {
        set.cast::<u8>().read_bytes(t.mm(), bits.as_mut_slice().as_mut_bytes()).await?;
    }
    Ok(bits)
}

async fn write_set(t: &Thread, set: UserPtr<u64>, bits: &FdSet) -> Result<()> {
    if set.is_null() { Ok(()) } else { set.write_slice(t.mm(), bits).await }
}

fn has(set: &FdSet, fd: usize) -> bool {
    set.get(fd / 64).is_some_and(|word| word >> (fd % 64) & 1 != 0)
}

fn put(set: &mut FdSet, fd: usize) {
    if let Some(word) = set.get_mut(fd / 64) {
        *word |= 1 << (fd % 64);
    }
}

pub async fn pselect6(
    t: &Thread,
    count: i32,
    read: UserPtr<u64>,
    write: UserPtr<u64>,
    except: UserPtr<u64>,
    time: UserPtr<UserTimespec>,
    mask: UserPtr<[u64; 2]>,
) -> SysResult<usize> {
    let deadline = read_deadline(t, time).await?;
    let mask = match mask.non_null() {
        Some(pair) => {
            let [mask, size] = pair.read(t.mm()).await?;
            read_mask(t, UserPtr::new(mask), size).await?
        }
        None => None,
    };
    // Descriptors beyond the table cannot be open.
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?.min(t.files().capacity());
    let words = count.div_ceil(64);
    let mut sets =
        [read_set(t, read, words).await?, read_set(t, write, words).await?, read_set(t, except, words).await?];
    let mut fds: SmallVec<[usize; 4]> = SmallVec::new();
    let mut list = WatchList::new();
    for fd in 0..count {
        let mut events = Events::empty();
        for (set, bits) in sets.iter().zip([READ_SET, WRITE_SET, EXCEPT_SET]) {
            if has(set, fd) {
                events |= bits;
            }
        }
        if !events.is_empty() {
            fds.push(fd);
            list.push(Watched { file: Some(t.files().get(fd as i32)?), events, found: Events::empty() });
        }
    }
    let result = with_mask(t, mask, no_handler(poll(t, &mut list, deadline))).await;
    write_rest(t, time, deadline).await;
    result?;
    let mut total = 0;
    let wanted = core::mem::take(&mut sets);
    for set in &mut sets {
        set.resize(words, 0);
    }
    for (fd, watched) in fds.iter().zip(&list) {
        for ((set, wanted), bits) in sets.iter_mut().zip(&wanted).zip([READ_SET, WRITE_SET, EXCEPT_SET]) {
            if has(wanted, *fd) && watched.found.intersects(bits) {
                put(set, *fd);
                total += 1;
            }
        }
    }
    for (pointer, set) in [read, write, except].into_iter().zip(&sets) {
        write_set(t, pointer, set).await?;
    }
    Ok(total)
}

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
    let file = OpenFile::new_anon("[eventpoll]", Epoll::new(), raw::O_RDWR);
    t.files().install(file, flags & raw::EPOLL_CLOEXEC != 0)
}

pub async fn epoll_ctl(t: &Thread, epfd: i32, op: u32, fd: i32, event: UserPtr<EpollEvent>) -> Result<()> {
    let event = match op {
        raw::EPOLL_CTL_DEL => EpollEvent::default(),
        _ => event.read(t.mm()).await?,
    };
    let epoll_file = t.files().get_io(epfd)?;
    let file = t.files().get_io(fd)?;
    let epoll = epoll_file.ops_as::<Epoll>().ok_or(Errno::EINVAL)?;
    let EpollEvent { events, data, .. } = event;
    if events & EPOLLEXCLUSIVE != 0 {
        let allowed = EPOLLEXCLUSIVE | EPOLLET | EPOLLWAKEUP | 0x1f;
        if op == raw::EPOLL_CTL_MOD || events & (!allowed | EPOLLONESHOT) != 0 || file.ops_as::<Epoll>().is_some() {
            return Err(Errno::EINVAL);
        }
    }
    match op {
        raw::EPOLL_CTL_ADD => epoll.add(fd, &file, events, data),
        raw::EPOLL_CTL_MOD => epoll.modify(fd, &file, events, data),
        raw::EPOLL_CTL_DEL => epoll.delete(fd, &file),
        _ => Err(Errno::EINVAL),
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

async fn epoll_wait(
    t: &Thread,
    epfd: i32,
    out: UserPtr<EpollEvent>,
    max: i32,
    deadline: Option<Instant>,
    mask: Option<SigSet>,
) -> SysResult<usize> {
    let max = usize::try_from(max).ok().filter(|max| (1..=MAX_EVENTS).contains(max)).ok_or(Errno::EINVAL)?;
    let file = t.files().get_io(epfd)?;
    let epoll = file.ops_as::<Epoll>().ok_or(Errno::EINVAL)?;
    let found = with_mask(t, mask, async {
        let attempt = || Some(epoll.collect(max)).filter(|found| !found.is_empty());
        if let Some(found) = attempt() {
            return Ok(found);
        }
        if deadline == Some(Instant::BOOT) {
            return Ok(alloc::vec::Vec::new());
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
