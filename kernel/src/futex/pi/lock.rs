//! FUTEX_LOCK_PI, FUTEX_TRYLOCK_PI, FUTEX_UNLOCK_PI.

use alloc::sync::Arc;
use core::future::poll_fn;
use core::task::Poll;

use super::super::Word;
use super::super::table::{Key, first, lock as lock_bucket};
use super::super::wait::key_of;
use super::graph::{self, Graph, Owned};
use super::{OWNER_DIED, TID_MASK, WAITERS};
use crate::arch::{self, UserFault};
use crate::errno::{Errno, Result};
use crate::exec;
use crate::process::{Task, Thread, table};
use crate::signal::Restart;
use crate::syscalls::SysResult;
use crate::time::Deadline;

/// Takes the lock, or waits until it is given. ETIMEDOUT after the deadline; a signal lets it begin again.
pub async fn lock(t: &Thread, word: Word, deadline: Option<Deadline>) -> SysResult {
    let key = key_of(t.mm(), word).await?;
    match begin(t, word.addr, key, true).await? {
        Begun::Taken => Ok(0),
        Begun::Waits(wait) => match wait.end(t, word.addr, deadline).await? {
            Ended::Owns => Ok(0),
            Ended::Late => Err(Errno::ETIMEDOUT.into()),
            Ended::Interrupted => Err(Restart::NoIntr.into()),
        },
    }
}

/// Takes the lock. EAGAIN if it has an owner.
pub async fn try_lock(t: &Thread, word: Word) -> SysResult {
    let key = key_of(t.mm(), word).await?;
    begin(t, word.addr, key, false).await.map(|_| 0).map_err(Into::into)
}

enum Begun<'a> {
    Taken,
    Waits(Wait<'a>),
}

async fn begin(t: &Thread, addr: u64, key: Key, wait: bool) -> Result<Begun<'_>> {
    loop {
        match try_begin(t.task(), addr, key, wait)? {
            Step::Taken => return Ok(Begun::Taken),
            Step::Contended => return Ok(Begun::Waits(Wait { task: t.task() })),
            Step::Changed => exec::budget().await,
            Step::Absent(fault) => t.mm().fault_in(fault).await?,
        }
    }
}

/// Takes the lock or, with `wait`, a place among its waiters.
fn try_begin(task: &Arc<Task>, addr: u64, key: Key, wait: bool) -> Result<Step> {
    let owner = match Owner::of(addr) {
        Ok(owner) => owner,
        Err(fault) => return Ok(Step::Absent(fault)),
    };
    let plain = has_plain_waiters(key);
    let mut graph = graph::lock();
    let step = acquire(&mut graph, task, addr, key, &owner, plain, false)?;
    if let Step::Contended = step {
        let may_wait = if wait { graph.check_deadlock(task, key) } else { Err(Errno::EAGAIN) };
        match may_wait {
            Ok(()) => graph.enqueue(task, key, None),
            Err(_) => graph.detach_if_idle(key),
        }
        may_wait?;
    }
    Ok(step)
}

/// Threads that wait for the word with FUTEX_WAIT: a program that mixes the two is told.
pub(super) fn has_plain_waiters(key: Key) -> bool {
    first(&lock_bucket(key.bucket()), key).is_some()
}

/// What a word says, and the thread that it names.
pub(super) struct Owner {
    value: u32,
    task: Option<Arc<Task>>,
}

impl Owner {
    pub fn of(addr: u64) -> Result<Owner, UserFault> {
        let value = arch::user::load_u32(addr)?;
        let task = match value & TID_MASK {
            0 => None,
            tid => table::find_task(tid),
        };
        Ok(Owner { value, task })
    }
}

/// How far an attempt to take a lock has come.
pub(super) enum Step {
    Taken,
    /// It has an owner, whom the graph knows.
    Contended,
    /// The word has changed since its owner was looked up.
    Changed,
    Absent(UserFault),
}

/// Takes the lock for `task` if it is free, else makes its owner known. `waiters`: others will wait for it, too.
pub(super) fn acquire(
    graph: &mut Graph,
    task: &Arc<Task>,
    addr: u64,
    key: Key,
    owner: &Owner,
    plain: bool,
    waiters: bool,
) -> Result<Step> {
    let value = owner.value;
    match arch::user::load_u32(addr) {
        Ok(now) if now == value => {}
        Ok(_) => return Ok(Step::Changed),
        Err(fault) => return Ok(Step::Absent(fault)),
    }
    if value & TID_MASK == task.tid() {
        return Err(Errno::EDEADLK);
    }
    if let Some((known, unwritten)) = graph.owner(key) {
        let fits = match value & TID_MASK {
            _ if unwritten => true,
            0 => value & OWNER_DIED != 0,
            tid => tid == known.tid(),
        };
        return if fits { Ok(Step::Contended) } else { Err(Errno::EINVAL) };
    }
    if plain {
        return Err(Errno::EINVAL);
    }
    let free = value & TID_MASK == 0;
    let new = match free {
        true => value & OWNER_DIED | task.tid() | if waiters { WAITERS } else { 0 },
        false => value | WAITERS,
    };
    match arch::user::cmpxchg_u32(addr, value, new) {
        Ok(seen) if seen == value => {}
        Ok(_) => return Ok(Step::Changed),
        Err(fault) => return Ok(Step::Absent(fault)),
    }
    if free {
        return Ok(Step::Taken);
    }
    graph.attach(key, owner.task.as_ref().ok_or(Errno::ESRCH)?)?;
    Ok(Step::Contended)
}

/// A thread's wait for a lock, or its right to it. Dropping it ends the wait.
pub(super) struct Wait<'a> {
    pub task: &'a Arc<Task>,
}

pub(super) enum Ended {
    Owns,
    Late,
    Interrupted,
}

impl Wait<'_> {
    /// Waits until the lock is the thread's. What is there wins over the deadline and over signals.
    pub async fn end(self, t: &Thread, addr: u64, deadline: Option<Deadline>) -> Result<Ended> {
        let given = poll_fn(|cx| match graph::lock().poll(self.task, cx.waker()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        });
        let waited = match &deadline {
            None => exec::interruptible(t, given).await.map(Some),
            Some(deadline) => exec::interruptible(t, deadline.until(given)).await,
        };
        self.settle(t, addr, waited).await
    }

    /// Sees what a wait has come to.
    pub async fn settle<E>(self, t: &Thread, addr: u64, waited: Result<Option<()>, E>) -> Result<Ended> {
        let owned = graph::lock().leave(self.task);
        match (owned, waited) {
            (Some(owned), _) => sign(t, addr, owned).await.map(|()| Ended::Owns),
            (None, Ok(_)) => Ok(Ended::Late),
            (None, Err(_)) => Ok(Ended::Interrupted),
        }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        // If it owns the lock, the thread dies with it: see `graph::release_all`.
        graph::lock().leave(self.task);
    }
}

/// Writes the thread's name into the word of a lock that it has got from a dead owner. If that cannot be done, somebody else
/// shall have the lock.
async fn sign(t: &Thread, addr: u64, owned: Owned) -> Result<()> {
    if !owned.unwritten {
        return Ok(());
    }
    loop {
        let fault = match try_sign(t, addr, owned.key) {
            Ok(true) => return Ok(()),
            Ok(false) => {
                exec::budget().await;
                continue;
            }
            Err(fault) => fault,
        };
        if let Err(error) = t.mm().fault_in(fault).await {
            let next = graph::lock().hand_over(owned.key, true);
            if let Some(waker) = next {
                waker.wake();
            }
            return Err(error);
        }
    }
}

/// False if the word has changed meanwhile.
fn try_sign(t: &Thread, addr: u64, key: Key) -> Result<bool, UserFault> {
    let mut graph = graph::lock();
    let old = arch::user::load_u32(addr)?;
    if arch::user::cmpxchg_u32(addr, old, t.tid() | WAITERS | OWNER_DIED)? != old {
        return Ok(false);
    }
    graph.written(key);
    Ok(true)
}

/// Gives the lock up. EPERM if it is not the caller's.
pub async fn unlock(t: &Thread, word: Word) -> Result<()> {
    let mm = t.mm();
    let value = crate::mm::UserPtr::<u32>::new(word.addr).read(mm).await?;
    if value & TID_MASK != t.tid() {
        return Err(Errno::EPERM);
    }
    let key = key_of(mm, word).await?;
    loop {
        match try_unlock(t, word.addr, key)? {
            Step::Absent(fault) => mm.fault_in(fault).await?,
            Step::Changed => exec::budget().await,
            Step::Taken | Step::Contended => return Ok(()),
        }
    }
}

fn try_unlock(t: &Thread, addr: u64, key: Key) -> Result<Step> {
    let plain = has_plain_waiters(key);
    let mut graph = graph::lock();
    let value = match arch::user::load_u32(addr) {
        Ok(value) if value & TID_MASK == t.tid() => value,
        Ok(_) => return Err(Errno::EPERM),
        Err(fault) => return Ok(Step::Absent(fault)),
    };
    let next = match graph.owner(key) {
        Some((owner, _)) if !Arc::ptr_eq(owner, t.task()) => return Err(Errno::EINVAL),
        Some(_) => graph.first_waiter(key).map(|task| task.tid()),
        None if plain => return Err(Errno::EINVAL),
        None => None,
    };
    // Waiters that are not here yet find the word changed. As on Linux it keeps no mark of an owner that died.
    let new = next.map_or(0, |tid| tid | WAITERS);
    match arch::user::cmpxchg_u32(addr, value, new) {
        Ok(seen) if seen == value => {}
        Ok(seen) if next.is_none() || seen & TID_MASK != t.tid() => {
            return Err(if next.is_none() { Errno::EAGAIN } else { Errno::EINVAL });
        }
        Ok(_) => return Ok(Step::Changed),
        Err(fault) => return Ok(Step::Absent(fault)),
    }
    let waker = graph.hand_over(key, false);
    drop(graph);
    if let Some(waker) = waker {
        waker.wake();
    }
    Ok(Step::Taken)
}
