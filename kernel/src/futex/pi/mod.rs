//! Futexes that lend priority (FUTEX_LOCK_PI and its kin in futex(2)).
//!
//! The word of such a lock is 0, or the id of the thread that owns it, and FUTEX_WAITERS if others may wait in the kernel; who
//! finds it free takes it without the kernel. The kernel knows a lock from the moment that somebody waits for it (`graph`).
//!
//! * `lock`: FUTEX_LOCK_PI, FUTEX_TRYLOCK_PI and FUTEX_UNLOCK_PI. A lock is handed over: the unlocker, or the end of the owner,
//!   decides who is next, by priority and age.
//! * `requeue`: a condition variable's waiters, which go on to wait for its lock.
//!
//! Words are read and changed under the lock of the graph and without faulting, as elsewhere under the bucket's; what a word
//! says about its owner is looked up before and compared again. Order: a futex bucket, the graph, a run queue.

mod graph;
mod lock;
mod requeue;

pub use graph::{is_idle, priority_changed, release_all};
pub use lock::{lock, try_lock, unlock};
pub use requeue::{cmp_requeue, wait_requeue};

use super::table::{Key, first, lock as lock_bucket};
use crate::errno::{Errno, Result};

const WAITERS: u32 = 0x8000_0000;
const OWNER_DIED: u32 = 0x4000_0000;
const TID_MASK: u32 = 0x3fff_ffff;

/// EINVAL if somebody waits for the word, but not for FUTEX_WAKE. To be asked when there was nobody to wake.
#[cold]
pub(super) fn check_no_waiters(key: Key) -> Result<()> {
    let travels = first(&lock_bucket(key.bucket()), key).is_some_and(|node| node.data.waits_for_lock());
    if travels || graph::lock().has_waiters(key) { Err(Errno::EINVAL) } else { Ok(()) }
}
