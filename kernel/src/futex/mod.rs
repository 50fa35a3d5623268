//! Futexes (futex(2)): how threads wait for a word in user memory to change.
//!
//! * `table`: hashed buckets of waiters. A waiter is a node in the future that waits; a wake takes it off its bucket.
//! * `wait`: the test of the word and the enqueueing are under one bucket lock, as are the waker's look at the bucket, so no
//!   wake falls between. The word is read without faulting; on a fault the lock is dropped, the page brought in, and
//!   everything starts again.
//! * `ops`: wake, requeue and wake-op; `mark`: wakes of many, in turns. `robust`: what a dying thread leaves behind. `pi`: locks that lend priority.
//!
//! Locks: two buckets are locked in the order of their index. Wakers are called after the locks were released.

mod mark;
mod ops;
pub mod pi;
mod robust;
mod table;
#[cfg(test)]
mod tests;
mod wait;

pub use ops::{WakeOp, differs, requeue, wake, wake_now, wake_op};
pub use robust::{HEAD_SIZE as ROBUST_HEAD_SIZE, exit_robust_list, wake_clear_tid};
pub use wait::{MAX_VECTOR, VectorEntry, WaitRequest, WaitRest, resume_wait, wait, wait_until, wait_vector};

/// Matches every waiter (FUTEX_BITSET_MATCH_ANY).
pub const ANY: u32 = u32::MAX;

/// A futex word: its address, and whether FUTEX_PRIVATE_FLAG says that only this address space knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Word {
    pub addr: u64,
    pub private: bool,
}
