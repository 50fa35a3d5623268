//! futex(2), futex_waitv(2), get_robust_list(2), set_tid_address(2).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use core::time::Duration;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::SysResult;
use crate::errno::{Errno, Result};
use crate::futex::{self, ANY, VectorEntry, WaitRequest, WakeOp, Word, pi};
use crate::mm::UserPtr;
use crate::process::{Thread, may_trace, table};
use crate::time::{ClockId, Deadline, UserTimespec};

const PRIVATE: u32 = 128;
const CLOCK_REALTIME: u32 = 256;

const WAIT: u32 = 0;
const WAKE: u32 = 1;
const REQUEUE: u32 = 3;
const CMP_REQUEUE: u32 = 4;
const WAKE_OP: u32 = 5;
const LOCK_PI: u32 = 6;
const UNLOCK_PI: u32 = 7;
const TRYLOCK_PI: u32 = 8;
const WAIT_BITSET: u32 = 9;
const WAKE_BITSET: u32 = 10;
const WAIT_REQUEUE_PI: u32 = 11;
const CMP_REQUEUE_PI: u32 = 12;
const LOCK_PI2: u32 = 13;

pub async fn futex(t: &Thread, addr: u64, op: u32, value: u32, timeout: u64, addr2: u64, value3: u32) -> SysResult {
    let private = op & PRIVATE != 0;
    let command = op & !(PRIVATE | CLOCK_REALTIME);
    if op & CLOCK_REALTIME != 0 && !matches!(command, WAIT_BITSET | WAIT_REQUEUE_PI | LOCK_PI2) {
        return Err(Errno::ENOSYS.into());
    }
    let word = Word { addr, private };
    let word2 = Word { addr: addr2, private };
    // Where wakes have a second count, it is in the register of the timeout.
    let count2 = timeout as i32;
    let count = match command {
        WAIT | WAIT_BITSET => {
            let bitset = if command == WAIT { ANY } else { value3 };
            if bitset == 0 {
                return Err(Errno::EINVAL.into());
            }
            let request = WaitRequest { word, expected: value, bitset };
            if timeout == 0 {
                return futex::wait(t, request).await;
            }
            let deadline = read_deadline(t, timeout, op).await?;
            return futex::wait_until(t, request, deadline).await;
        }
        WAKE => futex::wake(t.mm(), word, value as i32, ANY).await?,
        WAKE_BITSET => futex::wake(t.mm(), word, value as i32, value3).await?,
        REQUEUE => futex::requeue(t.mm(), word, word2, value as i32, count2, None).await?,
        CMP_REQUEUE => futex::requeue(t.mm(), word, word2, value as i32, count2, Some(value3)).await?,
        WAKE_OP => futex::wake_op(t.mm(), word, word2, value as i32, count2, WakeOp(value3)).await?,
        LOCK_PI | LOCK_PI2 => {
            let deadline = if timeout == 0 { None } else { Some(read_deadline(t, timeout, op).await?) };
            return Box::pin(pi::lock(t, word, deadline)).await;
        }
        TRYLOCK_PI => return Box::pin(pi::try_lock(t, word)).await,
        UNLOCK_PI => Box::pin(pi::unlock(t, word)).await.map(|()| 0)?,
        WAIT_REQUEUE_PI => {
            let deadline = if timeout == 0 { None } else { Some(read_deadline(t, timeout, op).await?) };
            let request = WaitRequest { word, expected: value, bitset: ANY };
            return Box::pin(pi::wait_requeue(t, request, word2, deadline)).await;
        }
        CMP_REQUEUE_PI => Box::pin(pi::cmp_requeue(t, word, word2, value as i32, count2, value3)).await?,
        _ => return Err(Errno::ENOSYS.into()),
    };
    Ok(count as u64)
}

/// A wake, or a wait for a value that is not there.
pub fn futex_now(
    t: &Thread,
    addr: u64,
    op: u32,
    value: u32,
    timeout: u64,
    _addr2: u64,
    value3: u32,
) -> Option<SysResult> {
    let word = Word { addr, private: op & PRIVATE != 0 };
    match op & !PRIVATE {
        WAKE => futex::wake_now(t.mm(), word, value as i32, ANY).map(answer),
        WAKE_BITSET if value3 != 0 => futex::wake_now(t.mm(), word, value as i32, value3).map(answer),
        WAIT if timeout == 0 => futex::differs(word, value).then_some(Err(Errno::EAGAIN.into())),
        _ => None,
    }
}

fn answer(count: Result<usize>) -> SysResult {
    count.map(|count| count as u64).map_err(Into::into)
}

/// FUTEX_WAIT has a length of time, FUTEX_LOCK_PI a time of day, the others a point on one of two clocks.
async fn read_deadline(t: &Thread, timeout: u64, op: u32) -> Result<Deadline> {
    let time = UserPtr::<UserTimespec>::new(timeout).read(t.mm()).await?.validate()?;
    Ok(match op & !PRIVATE {
        WAIT => Deadline::after(Duration::from_nanos(time.to_nanos())),
        op if op & CLOCK_REALTIME != 0 || op == LOCK_PI => Deadline { clock: ClockId::Realtime, at: time.to_nanos() },
        _ => Deadline { clock: ClockId::Monotonic, at: time.to_nanos() },
    })
}

/// `struct futex_waitv`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct UserWaiter {
    value: u64,
    addr: u64,
    flags: u32,
    reserved: u32,
}

pub async fn futex_waitv(
    t: &Thread,
    waiters: UserPtr<UserWaiter>,
    count: u32,
    flags: u32,
    timeout: UserPtr<UserTimespec>,
    clock: i32,
) -> SysResult {
    const SIZE_U32: u32 = 2;
    if flags != 0 || count == 0 || waiters.is_null() {
        return Err(Errno::EINVAL.into());
    }
    let deadline = match timeout.non_null() {
        Some(timeout) => {
            let clock = match clock {
                0 => ClockId::Realtime,
                1 => ClockId::Monotonic,
                _ => return Err(Errno::EINVAL.into()),
            };
            Some(Deadline { clock, at: timeout.read(t.mm()).await?.validate()?.to_nanos() })
        }
        None => None,
    };
    let waiters = waiters.read_slice(t.mm(), count as usize, futex::MAX_VECTOR).await?;
    let mut entries = Vec::new();
    for waiter in waiters {
        if waiter.flags & !(SIZE_U32 | PRIVATE) != 0 || waiter.flags & SIZE_U32 == 0 || waiter.reserved != 0 {
            return Err(Errno::EINVAL.into());
        }
        let word = Word { addr: waiter.addr, private: waiter.flags & PRIVATE != 0 };
        entries.push(VectorEntry { word, expected: waiter.value as u32 });
    }
    futex::wait_vector(t, &entries, deadline).await
}

pub fn set_robust_list(t: &mut Thread, head: u64, size: usize) -> Result<()> {
    if size != futex::ROBUST_HEAD_SIZE {
        return Err(Errno::EINVAL);
    }
    t.robust_list.store(head, Ordering::Relaxed);
    Ok(())
}

pub async fn get_robust_list(t: &Thread, tid: i32, head: UserPtr<u64>, size: UserPtr<u64>) -> Result<()> {
    let task = if tid == 0 { t.task().clone() } else { table::find_task(tid as u32).ok_or(Errno::ESRCH)? };
    may_trace(t, task.process(), false)?;
    size.write(t.mm(), futex::ROBUST_HEAD_SIZE as u64).await?;
    head.write(t.mm(), task.robust_list.load(Ordering::Relaxed)).await
}
