//! How much of inotify a user may have: /proc/sys/fs/inotify.

use alloc::collections::BTreeMap;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::errno::{Errno, Result};
use crate::mm::{PAGE_SIZE, frames};
use crate::sync::SpinLock;

/// Events that wait to be read, of an instance; those that exist keep theirs.
pub static QUEUED_EVENTS: AtomicUsize = AtomicUsize::new(16384);
pub static USER_INSTANCES: AtomicUsize = AtomicUsize::new(128);
/// 0: not set, so as much as memory allows.
static USER_WATCHES: AtomicUsize = AtomicUsize::new(0);

/// What a watch may hold in memory, about: itself, and an inode that is kept for it.
const WATCH_COST: usize = 1280;

/// A hundredth of memory, as on Linux.
pub fn user_watches() -> usize {
    match USER_WATCHES.load(Ordering::Relaxed) {
        0 => (frames::total_frames() * (PAGE_SIZE / WATCH_COST) / 100).clamp(8192, 1_048_576),
        set => set - 1,
    }
}

pub fn set_user_watches(limit: usize) {
    USER_WATCHES.store(limit.saturating_add(1), Ordering::Relaxed);
}

#[derive(Default)]
struct Used {
    instances: usize,
    watches: usize,
}

static USERS: SpinLock<BTreeMap<u32, Used>> = SpinLock::new(BTreeMap::new());

/// An instance, on the account of the user who made it.
pub struct Account(u32);

impl Account {
    pub fn open(uid: u32) -> Result<Account> {
        let mut users = USERS.lock();
        let used = users.entry(uid).or_default();
        if used.instances >= USER_INSTANCES.load(Ordering::Relaxed) {
            if used.instances == 0 {
                users.remove(&uid);
            }
            return Err(Errno::EMFILE);
        }
        used.instances += 1;
        Ok(Account(uid))
    }

    pub fn add_watch(&self) -> Result<()> {
        let mut users = USERS.lock();
        let used = users.entry(self.0).or_default();
        if used.watches >= user_watches() {
            return Err(Errno::ENOSPC);
        }
        used.watches += 1;
        Ok(())
    }

    pub fn remove_watch(&self) {
        if let Some(used) = USERS.lock().get_mut(&self.0) {
            used.watches = used.watches.saturating_sub(1);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let mut users = USERS.lock();
        if let Some(used) = users.get_mut(&self.0) {
            used.instances -= 1;
            if used.instances == 0 {
                users.remove(&self.0);
            }
        }
    }
}
