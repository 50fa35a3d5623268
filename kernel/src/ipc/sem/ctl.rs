//! semctl(2), and what /proc/sysvipc/sem shows.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::{IN_A_CALL, IN_A_SET, IN_ALL, MAX_VALUE, REGISTRY, SETS, SemSet, State, USED, limit};
use crate::errno::{Errno, Result};
use crate::ipc::ids::{self, Change, Perm, READ, WRITE};
use crate::ipc::line::Served;
use crate::process::{Credentials, Pid};
use crate::sync::SpinGuard;

/// IPC_STAT.
pub struct Status {
    pub perm: Perm,
    pub otime: i64,
    pub ctime: i64,
    pub count: usize,
}

/// IPC_INFO and SEM_INFO: the limits, what is used, and the highest place in the table.
pub struct Info {
    pub in_a_set: usize,
    pub in_all: usize,
    pub in_a_call: usize,
    pub sets: usize,
    pub used_sets: usize,
    pub used: usize,
    pub highest: usize,
}

pub fn info() -> Info {
    Info {
        in_a_set: limit(IN_A_SET),
        in_all: limit(IN_ALL),
        in_a_call: limit(IN_A_CALL),
        sets: limit(SETS),
        used_sets: REGISTRY.used(),
        used: USED.load(Ordering::Relaxed),
        highest: REGISTRY.highest(),
    }
}

impl SemSet {
    fn status(&self) -> Option<Status> {
        let state = self.state.lock();
        let status = Status { perm: state.perm, otime: state.otime, ctime: state.ctime, count: self.count };
        (!state.removed).then_some(status)
    }

    /// Locks it for one who may do what `wanted` says.
    fn lock_for(&self, creds: &Credentials, wanted: u32) -> Result<SpinGuard<'_, State>> {
        let state = self.state.lock();
        state.perm.check(creds, wanted)?;
        state.check_valid()?;
        Ok(state)
    }

    /// Values were set: waiters may go on.
    fn changed(&self, mut state: SpinGuard<'_, State>) {
        let mut served = Served::default();
        let now = ids::now();
        state.ctime = now;
        state.settle(now, None, &mut served);
        drop(state);
        served.wake(&self.queue);
    }
}

/// All sets.
pub fn all() -> Vec<Status> {
    REGISTRY.all().iter().filter_map(|set| set.status()).collect()
}

/// IPC_STAT by id, SEM_STAT and SEM_STAT_ANY by place in the table. `creds`: whose right to read counts.
pub fn status(creds: Option<&Credentials>, id: i32, by_place: bool) -> Result<Status> {
    let set = if by_place { REGISTRY.at(id)? } else { REGISTRY.get(id)? };
    let status = set.status().ok_or(Errno::EIDRM)?;
    if let Some(creds) = creds {
        status.perm.check(creds, READ)?;
    }
    Ok(status)
}

/// GETALL.
pub fn values(creds: &Credentials, id: i32) -> Result<Vec<u16>> {
    let set = REGISTRY.get(id)?;
    let mut values = Vec::new();
    values.try_reserve_exact(set.count).map_err(|_| Errno::ENOMEM)?;
    let state = set.lock_for(creds, READ)?;
    values.extend(state.sems.iter().map(|sem| sem.value));
    Ok(values)
}

/// How many semaphores SETALL sets, for one who may.
pub fn count_to_set(creds: &Credentials, id: i32) -> Result<usize> {
    let set = REGISTRY.get(id)?;
    drop(set.lock_for(creds, WRITE)?);
    Ok(set.count)
}

/// SETALL.
pub fn set_all(creds: &Credentials, id: i32, values: &[u16], pid: Pid) -> Result<()> {
    if values.iter().any(|value| i32::from(*value) > MAX_VALUE) {
        return Err(Errno::ERANGE);
    }
    let set = REGISTRY.get(id)?;
    let mut state = set.lock_for(creds, WRITE)?;
    for (sem, value) in state.sems.iter_mut().zip(values) {
        (sem.value, sem.pid) = (*value, pid);
    }
    state.undos.values_mut().for_each(|adjustments| adjustments.fill(0));
    set.changed(state);
    Ok(())
}

/// SETVAL.
pub fn set_value(creds: &Credentials, id: i32, index: i32, value: i32, pid: Pid) -> Result<()> {
    if !(0..=MAX_VALUE).contains(&value) {
        return Err(Errno::ERANGE);
    }
    let set = REGISTRY.get(id)?;
    let index = usize::try_from(index).ok().filter(|index| *index < set.count).ok_or(Errno::EINVAL)?;
    let mut state = set.lock_for(creds, WRITE)?;
    for adjustments in state.undos.values_mut() {
        if let Some(adjustment) = adjustments.get_mut(index) {
            *adjustment = 0;
        }
    }
    if let Some(sem) = state.sems.get_mut(index) {
        (sem.value, sem.pid) = (value as u16, pid);
    }
    set.changed(state);
    Ok(())
}

/// What can be asked of one semaphore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    Value,
    Pid,
    /// Those who wait for a higher value, or for zero.
    Higher,
    Zero,
}

/// GETVAL, GETPID, GETNCNT, GETZCNT.
pub fn query(creds: &Credentials, id: i32, index: i32, query: Query) -> Result<u32> {
    let set = REGISTRY.get(id)?;
    let state = set.state.lock();
    state.perm.check(creds, READ)?;
    let index = usize::try_from(index).ok().filter(|index| *index < set.count).ok_or(Errno::EINVAL)?;
    state.check_valid()?;
    let sem = state.sems.get(index).ok_or(Errno::EINVAL)?;
    Ok(match query {
        Query::Value => sem.value.into(),
        Query::Pid => sem.pid,
        Query::Higher => state.count_waiting(index, false),
        Query::Zero => state.count_waiting(index, true),
    })
}

impl State {
    fn count_waiting(&self, index: usize, for_zero: bool) -> u32 {
        let waits = self.for_zero.iter().chain(self.changers.iter());
        let blocking = waits.filter_map(|wanted| wanted.ops.get(wanted.blocked.0));
        blocking.filter(|op| usize::from(op.index) == index && (op.delta == 0) == for_zero).count() as u32
    }
}

/// IPC_SET.
pub fn set_owner(creds: &Credentials, id: i32, change: &Change) -> Result<()> {
    let set = REGISTRY.get(id)?;
    let mut state = set.state.lock();
    state.perm.check_owner(creds)?;
    state.check_valid()?;
    state.perm.set(change)?;
    state.ctime = ids::now();
    Ok(())
}

/// IPC_RMID: whoever waits fails with EIDRM.
pub fn remove(creds: &Credentials, id: i32) -> Result<()> {
    let set: Arc<SemSet> = REGISTRY.get(id)?;
    let mut state = set.state.lock();
    state.perm.check_owner(creds)?;
    state.check_valid()?;
    state.removed = true;
    let undos = core::mem::take(&mut state.undos);
    drop(state);
    REGISTRY.remove(id);
    set.queue.wake_all();
    drop(undos);
    Ok(())
}
