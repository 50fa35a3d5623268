//! SEM_UNDO: what a process has done to semaphores is undone when it ends.
//!
//! Processes (or threads) that were cloned with CLONE_SYSVSEM share a list of undos; the last of them applies it. The list
//! has an id and knows the sets; the adjustments are kept with each set, under its lock, where operations need them.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use super::{MAX_VALUE, SemSet};
use crate::errno::{Errno, Result};
use crate::exec::budget;
use crate::ipc::line::Served;
use crate::ipc::{ids, memory};
use crate::process::Pid;
use crate::sync::SpinLock;

struct UndoList {
    id: u64,
    /// The sets that have adjustments for it.
    sets: SpinLock<Vec<Weak<SemSet>>>,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl UndoList {
    fn new() -> Arc<UndoList> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Arc::new(UndoList { id, sets: SpinLock::new(Vec::new()) })
    }
}

/// A thread's share in a list of undos, which it gets when it needs one.
#[derive(Default)]
pub struct UndoSlot(SpinLock<Option<Arc<UndoList>>>);

impl UndoSlot {
    #[inline]
    fn list(&self) -> Arc<UndoList> {
        self.0.lock().get_or_insert_with(UndoList::new).clone()
    }

    pub(super) fn id(&self) -> Option<u64> {
        self.0.lock().as_ref().map(|list| list.id)
    }

    /// CLONE_SYSVSEM: the new thread has the same list.
    pub fn share_with(&self, new: &UndoSlot) {
        let list = self.list();
        *new.0.lock() = Some(list);
    }

    /// From now on the set keeps adjustments for this list.
    pub(super) fn include(&self, set: &Arc<SemSet>) -> Result<()> {
        let list = self.list();
        if set.state.lock().undos.contains_key(&list.id) {
            return Ok(());
        }
        memory::check()?;
        let mut adjustments = Vec::new();
        adjustments.try_reserve_exact(set.count).map_err(|_| Errno::ENOMEM)?;
        adjustments.resize(set.count, 0);
        let mut sets = list.sets.lock();
        sets.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        sets.retain(|set| set.strong_count() > 0);
        sets.push(Arc::downgrade(set));
        drop(sets);
        let mut state = set.state.lock();
        state.check_valid()?;
        state.undos.entry(list.id).or_insert(adjustments);
        Ok(())
    }

    /// Gives up the share, at exit or unshare(2): the last one undoes.
    pub async fn leave(&self, pid: Pid) {
        let Some(list) = self.0.lock().take() else { return };
        let Some(list) = Arc::into_inner(list) else { return };
        for set in list.sets.into_inner() {
            if let Some(set) = set.upgrade() {
                set.undo(list.id, pid);
                budget().await;
            }
        }
    }
}

impl SemSet {
    /// Values stop at their limits: an undo does not wait (semop(2), BUGS).
    fn undo(&self, list: u64, pid: Pid) {
        let mut served = Served::default();
        let mut state = self.state.lock();
        let Some(adjustments) = state.undos.remove(&list) else { return };
        for (sem, adjustment) in state.sems.iter_mut().zip(adjustments) {
            if adjustment != 0 {
                sem.value = (i32::from(sem.value) + i32::from(adjustment)).clamp(0, MAX_VALUE) as u16;
                sem.pid = pid;
            }
        }
        let now = ids::now();
        state.otime = now;
        state.settle(now, None, &mut served);
        drop(state);
        served.wake(&self.queue);
    }
}
