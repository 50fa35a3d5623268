//! What a thread that dies owes to others: robust futexes (get_robust_list(2)) and the word of set_tid_address(2).

use core::sync::atomic::Ordering;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Word;
use super::ops::wake_next;
use super::wait::key_of;
use crate::arch;
use crate::errno::Result;
use crate::exec;
use crate::mm::UserPtr;
use crate::process::Thread;

const FUTEX_WAITERS: u32 = 0x8000_0000;
const FUTEX_OWNER_DIED: u32 = 0x4000_0000;
const FUTEX_TID_MASK: u32 = 0x3fff_ffff;
/// ROBUST_LIST_LIMIT: a list may be circular or endless.
const LIMIT: usize = 2048;

/// `struct robust_list_head`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Head {
    /// The first entry; the lowest bit marks a PI futex. The list ends where it comes back to the head.
    next: u64,
    /// From an entry to its futex word.
    offset: i64,
    /// An entry that is being added or removed.
    pending: u64,
}

/// Size that set_robust_list(2) must be given.
pub const HEAD_SIZE: usize = size_of::<Head>();

/// Marks the futexes that the thread holds as orphaned and wakes a waiter of each. What cannot be reached ends the walk.
pub async fn exit_robust_list(t: &Thread) {
    let head = t.robust_list.swap(0, Ordering::Relaxed);
    if head != 0 {
        let _ = walk(t, head).await;
    }
}

async fn walk(t: &Thread, at: u64) -> Result<()> {
    let mm = t.mm();
    let head = UserPtr::<Head>::new(at).read(mm).await?;
    let mut entry = head.next;
    for _ in 0..LIMIT {
        if entry & !1 == at {
            break;
        }
        // The entry may be reused as soon as its futex is released.
        let next = UserPtr::<u64>::new(entry & !1).read(mm).await;
        if entry & !1 != head.pending & !1 {
            release(t, entry, head.offset, false).await?;
        }
        entry = next?;
        exec::budget().await;
    }
    if head.pending & !1 != 0 {
        release(t, head.pending, head.offset, true).await?;
    }
    Ok(())
}

/// Releases one futex of the dead thread.
async fn release(t: &Thread, entry: u64, offset: i64, pending: bool) -> Result<()> {
    let is_pi = entry & 1 != 0;
    let addr = (entry & !1).wrapping_add_signed(offset);
    let word = Word { addr, private: false };
    let key = key_of(t.mm(), word).await?;
    loop {
        let value = UserPtr::<u32>::new(addr).read(t.mm()).await?;
        if pending && !is_pi && value & FUTEX_TID_MASK != t.tid() {
            // Released in memory, but it died before it could wake the next one. Or it was woken, and died before it took the
            // lock: if another has taken it since, that one knows of no waiters, and Linux leaves them asleep.
            wake_next(key);
            return Ok(());
        }
        if value & FUTEX_TID_MASK != t.tid() {
            return Ok(());
        }
        let orphaned = value & FUTEX_WAITERS | FUTEX_OWNER_DIED;
        match arch::user::cmpxchg_u32(addr, value, orphaned) {
            Ok(seen) if seen == value => {
                if value & FUTEX_WAITERS != 0 && !is_pi {
                    wake_next(key);
                }
                return Ok(());
            }
            // Another thread may change the word for ever.
            Ok(_) => exec::budget().await,
            Err(fault) => t.mm().fault_in(fault).await?,
        }
    }
}

/// Wakes who waits for the end of a thread at its clear_child_tid word, which has just been written.
pub async fn wake_clear_tid(t: &Thread, addr: u64) {
    // The page may have been taken away since it was written: a wake must not be lost for that.
    if let Ok(key) = key_of(t.mm(), Word { addr, private: false }).await {
        wake_next(key);
    }
}
