//! Waiting for files: ppoll, pselect6. epoll is in `epoll`.

use core::future::Future;
use core::time::Duration;

use futures_util::TryFutureExt;

use smallvec::SmallVec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::SysResult;
use crate::errno::{Errno, Result};
use crate::exec::{Instant, Interrupted};
use crate::fs::Events;
use crate::fs::poll::{WatchList, Watched, poll};
use crate::mm::UserPtr;
use crate::process::Thread;
use crate::signal::{Restart, SigSet, with_mask};
use crate::time::UserTimespec;

/// A timeout as a deadline: None waits for ever, zero is [`Instant::BOOT`], which does not wait at all.
pub(super) async fn read_deadline(t: &Thread, time: UserPtr<UserTimespec>) -> Result<Option<Instant>> {
    let Some(time) = time.non_null() else { return Ok(None) };
    let time = time.read(t.mm()).await?.validate()?;
    Ok(Some(deadline_after(time.to_duration())))
}

pub(super) fn deadline_after(wait: Duration) -> Instant {
    if wait.is_zero() { Instant::BOOT } else { Instant::now().saturating_add(wait) }
}

/// Linux tells what is left of the timeout; a failure to store it is no error.
async fn write_rest(t: &Thread, time: UserPtr<UserTimespec>, deadline: Option<Instant>) {
    if let (Some(time), Some(deadline)) = (time.non_null(), deadline) {
        let left = deadline.saturating_since(Instant::now());
        let _ = time.write(t.mm(), UserTimespec::from_nanos(left.as_nanos() as u64)).await;
    }
}

pub(super) async fn read_mask(t: &Thread, mask: UserPtr<u64>, size: u64) -> Result<Option<SigSet>> {
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

impl PollFd {
    /// What is to be told of what its file has ready, or of that there is none.
    #[inline]
    fn answer(&self, ready: Option<Events>) -> u16 {
        let wanted = Events::from_bits_truncate(self.events as u32) | Events::ERR | Events::HUP | Events::NVAL;
        let events = match ready {
            Some(ready) => ready & wanted,
            None if self.fd < 0 => Events::empty(),
            None => Events::NVAL,
        };
        events.bits() as u16
    }
}

/// Where the answer for an entry goes. All else in the array stays as it is: another thread may change it meanwhile.
fn answer_of(fds: UserPtr<PollFd>, index: usize) -> UserPtr<u16> {
    fds.at(index).byte_add(core::mem::offset_of!(PollFd, revents) as u64).cast()
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
    let mut polled: SmallVec<[PollFd; 16]> = SmallVec::new();
    polled.try_reserve(count as usize).map_err(|_| Errno::ENOMEM)?;
    polled.resize(count as usize, PollFd::default());
    fds.cast::<u8>().read_bytes(t.mm(), polled.as_mut_slice().as_mut_bytes()).await?;
    let mut list = WatchList::new(polled.len(), &t.poll_spare)?;
    polled.iter().for_each(|entry| list.push(watched(t, entry)));
    let result = with_mask(t, mask, no_handler(poll(t, &mut list, deadline))).await;
    write_rest(t, time, deadline).await;
    let found = result?;
    let answers = list.iter().map(|watched| watched.found().bits() as u16);
    for (index, answer) in answers.enumerate() {
        answer_of(fds, index).write(t.mm(), answer).await?;
    }
    Ok(found)
}

fn watched(t: &Thread, entry: &PollFd) -> Watched {
    let events = Events::from_bits_truncate(entry.events as u32);
    if entry.fd < 0 {
        return Watched::new(None, events, Events::empty());
    }
    match t.files().get(entry.fd) {
        Ok(file) => Watched::new(Some(file), events, Events::empty()),
        Err(_) => Watched::new(None, events, Events::NVAL),
    }
}

/// Descriptors that `ppoll_now` and `pselect6_now` look at: as many as fit into little memory.
const FEW: usize = 128;

/// Asks descriptors what is ready. Each has a number below 64, which `answer` gets with the events, or with None if the
/// descriptor is not open. Plain files are asked under one hold of the table's lock, without counting references.
#[inline]
fn ready_now(t: &Thread, fds: impl Iterator<Item = (u32, i32)> + Clone, mut answer: impl FnMut(u32, Option<Events>)) {
    let mut others = 0u64;
    let table = t.files().look();
    for (number, fd) in fds.clone() {
        match table.file(fd) {
            Some(file) if file.is_plain() => answer(number, Some(file.ready())),
            Some(_) => others |= 1 << (number % 64),
            None => answer(number, None),
        }
    }
    drop(table);
    if others != 0 {
        for (number, fd) in fds.filter(|(number, _)| others >> (number % 64) & 1 != 0) {
            answer(number, t.files().get(fd).ok().map(|file| file.ready()));
        }
    }
}

/// The numbers of the bits that are set.
#[derive(Clone)]
struct Bits(u64);

impl Iterator for Bits {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        let lowest = (self.0 != 0).then(|| self.0.trailing_zeros())?;
        self.0 &= self.0 - 1;
        Some(lowest)
    }
}

/// No time to wait; None if it cannot be read at once.
fn is_zero(time: UserPtr<UserTimespec>) -> Option<bool> {
    match time.non_null() {
        Some(time) => Some(time.try_read().ok()?.validate().ok()?.to_duration().is_zero()),
        None => Some(false),
    }
}

/// If one of a few descriptors has something to tell, or there is no time to wait.
pub fn ppoll_now(
    t: &Thread,
    fds: UserPtr<PollFd>,
    count: u32,
    time: UserPtr<UserTimespec>,
    mask: UserPtr<u64>,
    _mask_size: u64,
) -> Option<SysResult<usize>> {
    let mut polled = [PollFd::default(); FEW];
    let polled = polled.get_mut(..count as usize)?;
    if !mask.is_null() || count as u64 > t.files().limit() {
        return None;
    }
    let at_once = is_zero(time)?;
    fds.cast::<u8>().try_read_bytes(polled.as_mut_bytes()).ok()?;
    let mut found = 0;
    // What stays as it is was written before it was read; but one is written in any case, to see whether that is possible.
    let mut written = polled.is_empty();
    let mut tell = |index: usize, entry: &PollFd, ready: Option<Events>| {
        let answer = entry.answer(ready);
        found += usize::from(answer != 0);
        if answer == entry.revents {
            return Some(());
        }
        written = true;
        answer_of(fds, index).try_write(&answer).ok()
    };
    for (round, chunk) in polled.chunks(64).enumerate() {
        let mut others = 0u64;
        let table = t.files().look();
        for (number, entry) in chunk.iter().enumerate() {
            match table.file(entry.fd) {
                Some(file) if file.is_plain() => tell(64 * round + number, entry, Some(file.ready()))?,
                Some(_) => others |= 1 << (number % 64),
                None => tell(64 * round + number, entry, None)?,
            }
        }
        drop(table);
        for number in Bits(others) {
            let Some(entry) = chunk.get(number as usize) else { break };
            let ready = t.files().get(entry.fd).ok().map(|file| file.ready());
            tell(64 * round + number as usize, entry, ready)?;
        }
    }
    if let Some(first) = polled.first().filter(|_| !written) {
        answer_of(fds, 0).try_write(&first.revents).ok()?;
    }
    // Those that were told that there is nothing are told again by who waits.
    if found == 0 && !at_once { None } else { Some(Ok(found)) }
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
    let asked = |fd: &usize| sets.iter().any(|set| has(set, *fd));
    let fds: SmallVec<[usize; 16]> = (0..count).filter(asked).collect();
    let mut list = WatchList::new(fds.len(), &t.poll_spare)?;
    for fd in &fds {
        let mut events = Events::empty();
        for (set, bits) in sets.iter().zip([READ_SET, WRITE_SET, EXCEPT_SET]) {
            if has(set, *fd) {
                events |= bits;
            }
        }
        list.push(Watched::new(Some(t.files().get(*fd as i32)?), events, Events::empty()));
    }
    let result = with_mask(t, mask, no_handler(poll(t, &mut list, deadline))).await;
    write_rest(t, time, deadline).await;
    result?;
    let mut total = 0;
    let wanted = core::mem::take(&mut sets);
    for set in &mut sets {
        set.resize(words, 0);
    }
    for (fd, watched) in fds.iter().zip(list.iter()) {
        for ((set, wanted), bits) in sets.iter_mut().zip(&wanted).zip([READ_SET, WRITE_SET, EXCEPT_SET]) {
            if has(wanted, *fd) && watched.found().intersects(bits) {
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

/// If one of a few descriptors has something to tell, or there is no time to wait.
pub fn pselect6_now(
    t: &Thread,
    count: i32,
    read: UserPtr<u64>,
    write: UserPtr<u64>,
    except: UserPtr<u64>,
    time: UserPtr<UserTimespec>,
    mask: UserPtr<[u64; 2]>,
) -> Option<SysResult<usize>> {
    const WORDS: usize = 16;
    let count = usize::try_from(count).ok()?.min(t.files().capacity());
    let words = count.div_ceil(64);
    if !mask.is_null() || words > WORDS {
        return None;
    }
    let at_once = is_zero(time)?;
    let pointers = [read, write, except];
    let mut wanted = [[0u64; WORDS]; 3];
    for (set, pointer) in wanted.iter_mut().zip(pointers) {
        if !pointer.is_null() {
            pointer.cast::<u8>().try_read_bytes(set.get_mut(..words)?.as_mut_bytes()).ok()?;
        }
    }
    let mut found = [[0u64; WORDS]; 3];
    let mut total = 0;
    for word in 0..words {
        let [reads, writes, excepts] = wanted.each_ref().map(|set| set[word % WORDS]);
        let mut left = reads | writes | excepts;
        if count - word * 64 < 64 {
            left &= (1 << (count - word * 64)) - 1;
        }
        let mut closed = false;
        let asked = Bits(left).map(|bit| (bit, (word * 64) as i32 + bit as i32));
        ready_now(t, asked, |number, ready| {
            let bit = 1 << number;
            closed |= ready.is_none();
            let events = ready.unwrap_or(Events::empty());
            for (index, set) in [READ_SET, WRITE_SET, EXCEPT_SET].into_iter().enumerate() {
                if wanted[index][word % WORDS] & bit != 0 && events.intersects(set) {
                    found[index][word % WORDS] |= bit;
                    total += 1;
                }
            }
        });
        if closed {
            // EBADF is for the other path.
            return None;
        }
    }
    if total == 0 && !at_once {
        return None;
    }
    // What was read can be written, or nothing has been done yet.
    for (set, pointer) in wanted.iter().zip(pointers) {
        if !pointer.is_null() {
            pointer.cast::<u8>().try_write_bytes(set.get(..words)?.as_bytes()).ok()?;
        }
    }
    for (set, pointer) in found.iter().zip(pointers) {
        let written = pointer.is_null() || pointer.cast::<u8>().try_write_bytes(set.get(..words)?.as_bytes()).is_ok();
        if !written {
            return Some(Err(Errno::EFAULT.into()));
        }
    }
    Some(Ok(total))
}
