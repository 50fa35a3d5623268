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
use crate::exec;
use crate::mm::AddressSpace;
use crate::process::Thread;
use crate::signal::{Restart, RestartBlock};
use crate::syscalls::{SysError, SysResult};
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
}

/// Waits until it is woken. EAGAIN if the word has another value, ETIMEDOUT after the deadline.
pub async fn wait(t: &Thread, request: WaitRequest, deadline: Option<Deadline>) -> SysResult {
    loop {
        let key = key_of(t.mm(), request.word).await?;
        let attempt = Attempt::new(key, request);
        let outcome = match &deadline {
            None => exec::interruptible(t, attempt).await.map_err(|_| SysError::Restart(Restart::Sys))?,
            Some(deadline) => match exec::interruptible(t, until(deadline, attempt)).await {
                Ok(Some(outcome)) => outcome,
                Ok(None) => return Err(Errno::ETIMEDOUT.into()),
                Err(_) => {
                    let rest = WaitRest { request, deadline: deadline.clone() };
                    *t.restart_block.lock() = Some(RestartBlock::Futex(rest));
                    return Err(Restart::Block.into());
                }
            },
        };
        match outcome {
            Outcome::Woken => return Ok(0),
            Outcome::Differs => return Err(Errno::EAGAIN.into()),
            Outcome::Absent(fault) => t.mm().fault_in(fault).await?,
        }
    }
}

/// Goes on with a wait through restart_syscall(2).
pub async fn resume_wait(t: &Thread, rest: WaitRest) -> SysResult {
    wait(t, rest.request, Some(rest.deadline)).await
}

/// Runs `attempt` until the deadline; None if that came first. What is ready wins.
pub(super) async fn until<T>(deadline: &Deadline, attempt: impl Future<Output = T>) -> Option<T> {
    let mut attempt = pin!(attempt);
    let mut sleep = pin!(deadline.sleep());
    poll_fn(|cx| match attempt.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// The identity of a word. EINVAL if it is not aligned, EFAULT if it is not there.
pub(super) async fn key_of(mm: &AddressSpace, word: Word) -> Result<Key> {
    if word.addr % 4 != 0 {
        return Err(Errno::EINVAL);
    }
    if !crate::mm::access_ok(word.addr, 4) {
        return Err(Errno::EFAULT);
    }
    loop {
        match mm.futex_key(word.addr, word.private) {
            Ok(key) => return Ok(key.into()),
            Err(fault) => mm.fault_in(fault).await?,
        }
    }
}

/// One attempt: test and enqueue on the first poll, then wait.
pub(super) struct Attempt {
    place: Queued,
    key: Key,
    addr: u64,
    expected: u32,
}

impl Attempt {
    pub fn new(key: Key, request: WaitRequest) -> Self {
        Attempt { place: Queued::new(request.bitset), key, addr: request.word.addr, expected: request.expected }
    }
}

impl Future for Attempt {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        // SAFETY: `place` is pinned structurally, the rest is plain data.
        let (place, key, addr, expected) = unsafe {
            let this = self.get_unchecked_mut();
            (Pin::new_unchecked(&mut this.place), this.key, this.addr, this.expected)
        };
        poll_place(place, key, addr, expected, cx)
    }
}

/// Enqueues a waiter if the word has the expected value, or sees whether it was woken.
fn poll_place(mut place: Pin<&mut Queued>, key: Key, addr: u64, expected: u32, cx: &mut Context<'_>) -> Poll<Outcome> {
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
            place.as_ref().enqueue(&mut bucket, key, cx.waker());
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
        let any = poll_fn(|cx| poll_vector(&mut places, cx));
        let waited = match &deadline {
            None => exec::interruptible(t, any).await.map(Some),
            Some(deadline) => exec::interruptible(t, until(deadline, any)).await,
        };
        let (index, outcome) = match waited {
            Ok(Some(found)) => found,
            Ok(None) => return Err(Errno::ETIMEDOUT.into()),
            // The deadline is absolute: the call can be made again as it is.
            Err(_) => return Err(Restart::Sys.into()),
        };
        drop(places);
        match outcome {
            Outcome::Woken => return Ok(index as u64),
            Outcome::Differs => return Err(Errno::EAGAIN.into()),
            Outcome::Absent(fault) => t.mm().fault_in(fault).await?,
        }
    }
}

fn poll_vector(places: &mut [(Pin<Box<Queued>>, Key, VectorEntry)], cx: &mut Context<'_>) -> Poll<(usize, Outcome)> {
    for (index, (place, key, entry)) in places.iter_mut().enumerate() {
        if let Poll::Ready(outcome) = poll_place(place.as_mut(), *key, entry.word.addr, entry.expected, cx) {
            return Poll::Ready((index, outcome));
        }
    }
    Poll::Pending
}
