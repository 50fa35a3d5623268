//! FUTEX_WAIT, FUTEX_WAIT_BITSET, and futex_waitv(2).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll};

use super::Word;
use super::table::{Key, Queued, lock};
use crate::arch::{self, UserFault};
use crate::errno::{Errno, Result};
use crate::exec::{self, Interrupts};
use crate::mm::AddressSpace;
use crate::process::Thread;
use crate::signal::{Restart, RestartBlock};
use crate::syscalls::SysResult;
use crate::time::Deadline;

/// A wait for the word to be woken, if it has the expected value.
#[derive(Clone, Copy)]
pub struct WaitRequest {
    pub word: Word,
    pub expected: u32,
    pub bitset: u32,
}

/// A wait with a deadline that was interrupted.
pub struct WaitRest {
    request: WaitRequest,
    deadline: Deadline,
}

/// How one attempt to wait ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Woken,
    /// The word has another value.
    Differs,
    /// The word is not in memory.
    Absent(UserFault),
    /// A signal came.
    Interrupted,
}

/// Waits until it is woken. EAGAIN if the word has another value.
pub async fn wait(t: &Thread, request: WaitRequest) -> SysResult {
    loop {
        let key = match try_key(t.mm(), request.word) {
            Ok(key) => key,
            Err(error) => key_after(t.mm(), request.word, error).await?,
        };
        match Attempt::new(key, request, Some(t)).await {
            Outcome::Woken => return Ok(0),
            Outcome::Differs => return Err(Errno::EAGAIN.into()),
            Outcome::Interrupted => return Err(Restart::Sys.into()),
            Outcome::Absent(fault) => t.mm().fault_in(fault).await?,
        }
    }
}

/// The same with a deadline, after which it answers ETIMEDOUT.
pub async fn wait_until(t: &Thread, request: WaitRequest, deadline: Deadline) -> SysResult {
    loop {
        let key = key_of(t.mm(), request.word).await?;
        let outcome = {
            let mut attempt = pin!(Attempt::new(key, request, Some(t)));
            let outcome = deadline.until(attempt.as_mut()).await;
            if outcome.is_none() && attempt.give_up() { Some(Outcome::Woken) } else { outcome }
        };
        match outcome {
            Some(Outcome::Woken) => return Ok(0),
            Some(Outcome::Differs) => return Err(Errno::EAGAIN.into()),
            None => return Err(Errno::ETIMEDOUT.into()),
            Some(Outcome::Interrupted) => {
                *t.restart_block.lock() = Some(RestartBlock::Futex(WaitRest { request, deadline }));
                return Err(Restart::Block.into());
            }
            Some(Outcome::Absent(fault)) => t.mm().fault_in(fault).await?,
        }
    }
}

/// Goes on with a wait through restart_syscall(2).
pub async fn resume_wait(t: &Thread, rest: WaitRest) -> SysResult {
    wait_until(t, rest.request, rest.deadline).await
}

/// Why a word's identity could not be told.
pub(super) enum KeyError {
    Failed(Errno),
    Absent(UserFault),
}

/// The identity of a word. EINVAL if it is not aligned, EFAULT if it is not there.
#[inline]
pub(super) fn try_key(mm: &AddressSpace, word: Word) -> Result<Key, KeyError> {
    if !word.addr.is_multiple_of(4) {
        return Err(KeyError::Failed(Errno::EINVAL));
    }
    if !crate::mm::access_ok(word.addr, 4) {
        return Err(KeyError::Failed(Errno::EFAULT));
    }
    mm.futex_key(word.addr, word.private).map(Key::from).map_err(KeyError::Absent)
}

/// Goes on after an attempt of `try_key`: brings the word in and tries again.
#[cold]
pub(super) async fn key_after(mm: &AddressSpace, word: Word, mut error: KeyError) -> Result<Key> {
    loop {
        match error {
            KeyError::Failed(errno) => return Err(errno),
            KeyError::Absent(fault) => mm.fault_in(fault).await?,
        }
        match try_key(mm, word) {
            Ok(key) => return Ok(key),
            Err(next) => error = next,
        }
    }
}

pub(super) async fn key_of(mm: &AddressSpace, word: Word) -> Result<Key> {
    match try_key(mm, word) {
        Ok(key) => Ok(key),
        Err(error) => key_after(mm, word, error).await,
    }
}

/// One attempt: test and enqueue on the first poll, then wait. It is the innermost future of a blocked thread, so it looks
/// for signals itself instead of being wrapped.
pub(super) struct Attempt<'a> {
    place: Queued,
    key: Key,
    addr: u64,
    expected: u32,
    /// Whose signals interrupt it.
    thread: Option<&'a Thread>,
}

impl<'a> Attempt<'a> {
    #[inline]
    pub fn new(key: Key, request: WaitRequest, thread: Option<&'a Thread>) -> Self {
        let place = Queued::new(request.bitset);
        Attempt { place, key, addr: request.word.addr, expected: request.expected, thread }
    }

    /// Ends the attempt. True if a wake had come.
    fn give_up(self: Pin<&mut Self>) -> bool {
        // SAFETY: `place` is pinned structurally.
        unsafe { self.map_unchecked_mut(|this| &mut this.place) }.give_up()
    }
}

impl Future for Attempt<'_> {
    type Output = Outcome;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        // SAFETY: `place` is pinned structurally, the rest is plain data.
        let (mut place, key, addr, expected, thread) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.place), this.key, this.addr, this.expected, this.thread)
        };
        match poll_place(place.as_mut(), key, addr, expected, thread, cx) {
            // Queued before the look at signals: one that is posted later finds the task asleep and wakes it.
            Poll::Pending if thread.is_some_and(|thread| thread.pending()) => {
                Poll::Ready(if place.give_up() { Outcome::Woken } else { Outcome::Interrupted })
            }
            outcome => outcome,
        }
    }
}

/// Enqueues a waiter if the word has the expected value, or sees whether it was woken.
pub(super) fn poll_place(
    mut place: Pin<&mut Queued>,
    key: Key,
    addr: u64,
    expected: u32,
    who: Option<&Thread>,
    cx: &mut Context<'_>,
) -> Poll<Outcome> {
    if place.is_queued() {
        if !place.as_mut().take_wake() {
            place.set_waker(cx.waker());
            // A wake in between has called the old waker, which may be another's (a select's): look once more.
            if !place.as_mut().take_wake() {
                return Poll::Pending;
            }
        }
        return Poll::Ready(Outcome::Woken);
    }
    let mut bucket = lock(key.bucket());
    match arch::user::load_u32(addr) {
        Err(fault) => Poll::Ready(Outcome::Absent(fault)),
        Ok(value) if value != expected => Poll::Ready(Outcome::Differs),
        Ok(_) => {
            let priority = who.map_or(0, |thread| thread.entity.policy().rt_priority());
            place.as_ref().enqueue(&mut bucket, key, priority, cx.waker());
            Poll::Pending
        }
    }
}

/// FUTEX_WAITV_MAX.
pub const MAX_VECTOR: usize = 128;

/// One word of futex_waitv(2).
#[derive(Clone, Copy)]
pub struct VectorEntry {
    pub word: Word,
    pub expected: u32,
}

/// Waits until one of the words is woken; answers the index of one that was.
pub async fn wait_vector(t: &Thread, entries: &[VectorEntry], deadline: Option<Deadline>) -> SysResult {
    loop {
        let mut places = Vec::new();
        for entry in entries {
            let key = key_of(t.mm(), entry.word).await?;
            places.push((Box::pin(Queued::new(super::ANY)), key, *entry));
        }
        let any = poll_fn(|cx| poll_vector(t, &mut places, cx));
        let waited = match &deadline {
            None => exec::interruptible(t, any).await.map(Some),
            Some(deadline) => exec::interruptible(t, deadline.until(any)).await,
        };
        let (index, outcome) = match waited {
            Ok(Some(found)) => found,
            Ok(None) | Err(_) if let Some(index) = places.iter_mut().position(|place| place.0.as_mut().give_up()) => {
                (index, Outcome::Woken)
            }
            Ok(None) => return Err(Errno::ETIMEDOUT.into()),
            // The deadline is absolute: the call can be made again as it is.
            Err(_) => return Err(Restart::Sys.into()),
        };
        drop(places);
        match outcome {
            Outcome::Woken => return Ok(index as u64),
            Outcome::Differs => return Err(Errno::EAGAIN.into()),
            Outcome::Interrupted => return Err(Restart::Sys.into()),
            Outcome::Absent(fault) => t.mm().fault_in(fault).await?,
        }
    }
}

fn poll_vector(
    t: &Thread,
    places: &mut [(Pin<Box<Queued>>, Key, VectorEntry)],
    cx: &mut Context<'_>,
) -> Poll<(usize, Outcome)> {
    for (index, (place, key, entry)) in places.iter_mut().enumerate() {
        let (addr, expected) = (entry.word.addr, entry.expected);
        if let Poll::Ready(outcome) = poll_place(place.as_mut(), *key, addr, expected, Some(t), cx) {
            return Poll::Ready((index, outcome));
        }
    }
    Poll::Pending
}
