//! FUTEX_WAKE, FUTEX_REQUEUE, FUTEX_WAKE_OP.

use core::pin::{Pin, pin};
use core::sync::atomic::Ordering::Relaxed;
use core::task::Waker;

use super::Word;
use super::mark::{self, Mark};
use super::table::{self, Key, Pair, Wakers};
use super::wait::{key_after, key_of, try_key};
use crate::arch::{self, UserFault};
use crate::errno::{Errno, Result};
use crate::exec;
use crate::mm::AddressSpace;

/// Wakes up to `count` waiters (at least one, as Linux does) whose bitset meets `bitset`.
pub async fn wake(mm: &AddressSpace, word: Word, count: i32, bitset: u32) -> Result<usize> {
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    let key = match try_key(mm, word) {
        Ok(key) => key,
        Err(error) => key_after(mm, word, error).await?,
    };
    wake_key(key, count, bitset).await
}

/// The same, if it takes no waiting to find out what the word stands for, and few wait for it.
#[inline(always)]
pub fn wake_now(mm: &AddressSpace, word: Word, count: i32, bitset: u32) -> Option<Result<usize>> {
    let key = try_key(mm, word).ok()?;
    table::wake_now(key, count.max(1) as usize, bitset)
}

async fn wake_key(key: Key, count: i32, bitset: u32) -> Result<usize> {
    let count = count.max(1) as usize;
    match table::wake_now(key, count, bitset) {
        Some(answer) => answer,
        None => wake_many(key, count, bitset).await,
    }
}

#[cold]
async fn wake_many(key: Key, count: usize, bitset: u32) -> Result<usize> {
    let mut mark = pin!(Mark::new(key));
    let mut woken = 0;
    loop {
        woken += mark::wake_some(mark.as_mut(), key, count - woken, bitset);
        if !mark.is_set() {
            return table::woken(key, woken);
        }
        exec::budget().await;
    }
}

/// The word can be read and has another value: a wait for this one ends at once.
pub fn differs(word: Word, expected: u32) -> bool {
    arch::user::load_u32(word.addr).is_ok_and(|value| value != expected)
}

/// Wakes up to `wake` waiters of `from` and lets up to `requeue` others wait for `to`; both together are the answer. With
/// `expected`, EAGAIN if `from` has another value.
pub async fn requeue(
    mm: &AddressSpace,
    from: Word,
    to: Word,
    wake: i32,
    requeue: i32,
    expected: Option<u32>,
) -> Result<usize> {
    if wake < 0 || requeue < 0 {
        return Err(Errno::EINVAL);
    }
    let (from_key, to_key) = (key_of(mm, from).await?, key_of(mm, to).await?);
    let mut plan = Requeue {
        from: from_key,
        to: to_key,
        wake: wake as usize,
        requeue: requeue as usize,
        expected: expected.map(|expected| (from.addr, expected)),
        done: 0,
    };
    let mut mark = pin!(Mark::new(from_key));
    loop {
        match plan.step(mark.as_mut())? {
            Step::Done => return Ok(plan.done),
            Step::More => exec::budget().await,
            Step::Absent(fault) => mm.fault_in(fault).await?,
        }
    }
}

/// A requeue in progress.
struct Requeue {
    from: Key,
    to: Key,
    /// Still to be woken.
    wake: usize,
    requeue: usize,
    /// The comparison that is still to be made: address and value.
    expected: Option<(u64, u32)>,
    done: usize,
}

enum Step {
    Done,
    More,
    Absent(UserFault),
}

impl Requeue {
    /// Does as much as one hold of the locks allows.
    fn step(&mut self, mut mark: Pin<&mut Mark>) -> Result<Step> {
        let mut wakers = Wakers::new();
        let mut pair = Pair::lock(self.from, self.to);
        if let Some((addr, expected)) = self.expected {
            match arch::user::load_u32(addr) {
                Ok(value) if value == expected => self.expected = None,
                Ok(_) => return Err(Errno::EAGAIN),
                Err(fault) => return Ok(Step::Absent(fault)),
            }
        }
        let woken = mark::take(pair.source(), mark.as_mut(), self.from, self.wake, super::ANY, &mut wakers);
        self.wake -= woken;
        self.done += woken;
        let more = mark.is_set();
        let moved = if more { Ok(0) } else { table::transfer(&mut pair, self.from, self.to, self.requeue) };
        drop(pair);
        wakers.into_iter().for_each(Waker::wake);
        self.done += moved?;
        if !more && self.done == 0 && table::others(self.from).load(Relaxed) != 0 {
            super::pi::check_no_waiters(self.from)?;
        }
        Ok(if more { Step::More } else { Step::Done })
    }
}

/// The operation of FUTEX_WAKE_OP as futex(2)'s val3 has it: `old = *addr; *addr = old OP arg; condition = old CMP cmp_arg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakeOp(pub u32);

const fn sign_extend(bits: u32) -> i32 {
    ((bits << 20) as i32) >> 20
}

impl WakeOp {
    /// The new value. ENOSYS for operations that do not exist.
    fn apply(self, old: u32) -> Result<u32> {
        const OP_ARG_SHIFT: u32 = 8;
        let mut arg = sign_extend(self.0 >> 12 & 0xfff) as u32;
        if self.0 >> 28 & OP_ARG_SHIFT != 0 {
            arg = 1u32.wrapping_shl(arg & 31);
        }
        Ok(match self.0 >> 28 & 7 {
            0 => arg,
            1 => old.wrapping_add(arg),
            2 => old | arg,
            3 => old & !arg,
            4 => old ^ arg,
            _ => return Err(Errno::ENOSYS),
        })
    }

    /// The condition. ENOSYS for comparisons that do not exist.
    fn holds(self, old: u32) -> Result<bool> {
        let (old, arg) = (old as i32, sign_extend(self.0 & 0xfff));
        Ok(match self.0 >> 24 & 15 {
            0 => old == arg,
            1 => old != arg,
            2 => old < arg,
            3 => old <= arg,
            4 => old > arg,
            5 => old >= arg,
            _ => return Err(Errno::ENOSYS),
        })
    }
}

/// Changes the second word, wakes waiters of the first, and of the second if its old value meets the condition.
pub async fn wake_op(
    mm: &AddressSpace,
    first: Word,
    second: Word,
    wake_first: i32,
    wake_second: i32,
    op: WakeOp,
) -> Result<usize> {
    let (first_key, second_key) = (key_of(mm, first).await?, key_of(mm, second).await?);
    op.apply(0)?;
    let condition = loop {
        match change(first_key, second_key, second.addr, op) {
            // As on Linux the word has changed when an unknown comparison is found.
            Ok(Some(old)) => break op.holds(old)?,
            Ok(None) => exec::budget().await,
            Err(fault) => mm.fault_in(fault).await?,
        }
    };
    // Waiters that come after the change see the new value; waking them too would be spurious, but allowed.
    let mut woken = wake_key(first_key, wake_first, super::ANY).await?;
    if condition {
        woken += wake_key(second_key, wake_second, super::ANY).await?;
    }
    Ok(woken)
}

/// Applies the operation atomically, with both buckets locked so that no waiter tests a word meanwhile; answers the old
/// value. None if other CPUs changed the word each time: the locks must not be held for as long as they like.
fn change(first: Key, second: Key, addr: u64, op: WakeOp) -> Result<Option<u32>, UserFault> {
    const ATTEMPTS: usize = 128;
    let _pair = Pair::lock(first, second);
    let mut old = arch::user::load_u32(addr)?;
    for _ in 0..ATTEMPTS {
        // Who calls has tried the operation.
        let seen = arch::user::cmpxchg_u32(addr, old, op.apply(old).unwrap_or(old))?;
        if seen == old {
            return Ok(Some(old));
        }
        old = seen;
    }
    Ok(None)
}

/// For callers that have the key already.
pub(super) fn wake_next(key: Key) {
    // Whoever else waits for the word is not to be woken by this.
    let _ = table::wake_one(key, super::ANY);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_op_is_decoded_as_the_manual_says() {
        // FUTEX_OP(FUTEX_OP_SET, 0, FUTEX_OP_CMP_GT, 1), as glibc's pthread_cond_signal used it.
        let op = WakeOp(4 << 24 | 1);
        assert_eq!((op.apply(7), op.holds(2), op.holds(1)), (Ok(0), Ok(true), Ok(false)));
        // FUTEX_OP_ADD with −1.
        assert_eq!(WakeOp(1 << 28 | 0xfff << 12).apply(5), Ok(4));
        // FUTEX_OP_OR | FUTEX_OP_OPARG_SHIFT with 31.
        assert_eq!(WakeOp(10 << 28 | 31 << 12).apply(1), Ok(0x8000_0001));
        assert_eq!(WakeOp(5 << 28).apply(1), Err(Errno::ENOSYS));
        assert_eq!(WakeOp(6 << 24).holds(1), Err(Errno::ENOSYS));
    }
}
