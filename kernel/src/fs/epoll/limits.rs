//! How many files a user may have watched: /proc/sys/fs/epoll (epoll(7)).

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::errno::{Errno, Result};
use crate::mm::{PAGE_SIZE, frames};
use crate::sync::SpinLock;

/// 0: not set, so as much as memory allows; else one more than what was set.
static USER_WATCHES: AtomicUsize = AtomicUsize::new(0);

/// What a watch takes up, as Linux counts it.
const WATCH_COST: usize = 192;

/// max_user_watches: if nobody has said otherwise, a twenty-fifth of memory, as on Linux.
pub fn user_watches() -> usize {
    match USER_WATCHES.load(Ordering::Relaxed) {
        0 => (frames::total_frames() / 25 * PAGE_SIZE / WATCH_COST).max(8192),
        set => set - 1,
    }
}

pub fn set_user_watches(limit: usize) {
    USER_WATCHES.store(limit.saturating_add(1), Ordering::Relaxed);
}

static USERS: SpinLock<BTreeMap<u32, Weak<AtomicUsize>>> = SpinLock::new(BTreeMap::new());

/// The watches of the user who made an epoll, of all epolls of that user.
pub struct Account(Arc<AtomicUsize>);

impl Account {
    pub fn of(uid: u32) -> Account {
        let mut users = USERS.lock();
        if let Some(count) = users.get(&uid).and_then(Weak::upgrade) {
            return Account(count);
        }
        // The others leave their entries when they go: as many as there are users.
        users.retain(|_, count| count.strong_count() > 0);
        let count = Arc::new(AtomicUsize::new(0));
        users.insert(uid, Arc::downgrade(&count));
        Account(count)
    }

    /// One more; ENOSPC if the user has too many.
    pub fn add(&self) -> Result<()> {
        let add = |count: usize| (count < user_watches()).then_some(count + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).map(drop).map_err(|_| Errno::ENOSPC)
    }

    pub fn remove(&self, watches: usize) {
        self.0.fetch_sub(watches, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epolls_of_a_user_have_one_account() {
        let (one, other, stranger) = (Account::of(4711), Account::of(4711), Account::of(4712));
        one.add().unwrap();
        other.add().unwrap();
        assert_eq!(one.0.load(Ordering::Relaxed), 2);
        assert_eq!(stranger.0.load(Ordering::Relaxed), 0);
        other.remove(2);
        assert_eq!(one.0.load(Ordering::Relaxed), 0);
    }
}
