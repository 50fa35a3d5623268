//! System V semaphores: semget(2), semop(2), semctl(2).
//!
//! * A [`SemSet`] is an array of semaphores behind one lock, with two lines: those who wait for zeros only, and those who
//!   change something. `ops` says whether an array of operations can be done, which is all of it or nothing.
//! * `wait`: semtimedop. `ctl`: what semctl asks and sets. `undo`: what a process gives back when it ends (SEM_UNDO).
//!
//! After each change those who wait for zeros go first, then the others in their order; each that can go on does, and what
//! it changed is looked at again. It is the changer who does this, so nobody sees a value that a waiter was promised.

mod ctl;
mod ops;
mod undo;
mod wait;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

pub use self::ctl::{
    Info, Query, Status, all, count_to_set, info, query, remove, set_all, set_owner, set_value, status, values,
};
pub use self::ops::{OpFlags, Ops, SemOp};
pub use self::undo::UndoSlot;
pub use self::wait::{operate, operate_now};
use super::ids::{self, Object, Perm, Registry};
use super::line::{Line, Served, Ticket};
use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::process::{Credentials, Pid};
use crate::sync::SpinLock;
use ops::{Attempt, Blocked};

/// Largest value of a semaphore, and largest adjustment at exit (SEMAEM).
pub const MAX_VALUE: i32 = 32767;

/// /proc/sys/kernel/sem: semaphores in a set, in all sets, operations in a call, sets.
pub static LIMITS: [AtomicUsize; 4] =
    [AtomicUsize::new(32000), AtomicUsize::new(1_024_000_000), AtomicUsize::new(500), AtomicUsize::new(32000)];

const IN_A_SET: usize = 0;
const IN_ALL: usize = 1;
const IN_A_CALL: usize = 2;
pub const SETS: usize = 3;

fn limit(which: usize) -> usize {
    LIMITS.get(which).map_or(0, |limit| limit.load(Ordering::Relaxed))
}

/// Operations that one call may have.
pub fn max_ops() -> usize {
    limit(IN_A_CALL)
}

static REGISTRY: Registry<SemSet> = Registry::new();
/// Semaphores in all sets.
static USED: AtomicUsize = AtomicUsize::new(0);

/// A semaphore.
#[derive(Clone, Copy, Default)]
struct Sem {
    value: u16,
    /// The process that changed it last.
    pid: Pid,
}

/// One who waits for its operations to be done.
struct Wanted {
    ops: Ops,
    pid: Pid,
    /// The undo list of the process, if one of the operations is to be undone.
    undo: Option<u64>,
    blocked: Blocked,
}

type Waiters = Line<Wanted, Result<()>>;

/// A set of semaphores.
pub struct SemSet {
    count: usize,
    queue: WaitQueue,
    state: SpinLock<State>,
}

struct State {
    perm: Perm,
    removed: bool,
    sems: Vec<Sem>,
    /// Seconds since the epoch: the last operation, the last change by semctl.
    otime: i64,
    ctime: i64,
    /// Those who only wait for zeros, and those who change something.
    for_zero: Waiters,
    changers: Waiters,
    last_ticket: Ticket,
    /// What is to be added to each semaphore when the processes with this undo list have ended.
    undos: BTreeMap<u64, Vec<i16>>,
}

impl Object for SemSet {
    fn with_perm<R>(&self, f: impl FnOnce(&mut Perm) -> R) -> R {
        f(&mut self.state.lock().perm)
    }
}

impl Drop for SemSet {
    fn drop(&mut self) {
        USED.fetch_sub(self.count, Ordering::Relaxed);
    }
}

/// semget(2).
pub fn get(creds: &Credentials, key: i32, count: i32, flags: u32) -> Result<i32> {
    let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
    if count > limit(IN_A_SET) {
        return Err(Errno::EINVAL);
    }
    let fits = |set: &SemSet| if count > set.count { Err(Errno::EINVAL) } else { Ok(()) };
    REGISTRY.get_or_make(key, flags, limit(SETS), creds, fits, || SemSet::new(creds, key, count, flags))
}

impl SemSet {
    fn new(creds: &Credentials, key: i32, count: usize, flags: u32) -> Result<SemSet> {
        if count == 0 {
            return Err(Errno::EINVAL);
        }
        let mut sems = Vec::new();
        sems.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
        sems.resize(count, Sem::default());
        let add = |used: usize| used.checked_add(count).filter(|sum| *sum <= limit(IN_ALL));
        USED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).map_err(|_| Errno::ENOSPC)?;
        let state = State {
            perm: Perm::new(key, flags, creds),
            removed: false,
            sems,
            otime: 0,
            ctime: ids::now(),
            for_zero: Line::new(),
            changers: Line::new(),
            last_ticket: 0,
            undos: BTreeMap::new(),
        };
        Ok(SemSet { count, queue: WaitQueue::new(), state: SpinLock::new(state) })
    }
}

impl State {
    /// EIDRM if the set was removed while the caller came here.
    fn check_valid(&self) -> Result<()> {
        if self.removed { Err(Errno::EIDRM) } else { Ok(()) }
    }

    fn attempt(&mut self, ops: &Ops, undo: Option<u64>, pid: Pid) -> Attempt {
        let undo = undo.and_then(|list| self.undos.get_mut(&list));
        ops::attempt(&mut self.sems, undo.map(Vec::as_mut_slice), ops, pid)
    }

    /// Values have changed, by `ops` if it was by operations: serves those who can go on at this time.
    fn settle(&mut self, now: i64, ops: Option<&Ops>, served: &mut Served) {
        self.serve_zero(now, ops, served);
        let mut index = 0;
        while let Some((attempt, only_takes)) = self.retry(index) {
            match attempt {
                Attempt::Blocked(blocked) => {
                    if let Some(wanted) = self.changers.get_mut(index) {
                        wanted.blocked = blocked;
                    }
                    index += 1;
                    continue;
                }
                Attempt::Failed(errno) => drop(self.changers.serve(index, Err(errno), served)),
                Attempt::Done => {
                    self.otime = now;
                    let gone = self.changers.serve(index, Ok(()), served);
                    self.serve_zero(now, gone.as_ref().map(|wanted| &wanted.ops), served);
                    // One that only took can have helped nobody before it.
                    index = if only_takes { index } else { 0 };
                }
            }
        }
    }

    /// Tries the changer at `index` again; also, whether all that it does is to take from one semaphore.
    fn retry(&mut self, index: usize) -> Option<(Attempt, bool)> {
        let State { sems, changers, undos, .. } = self;
        let wanted = changers.get(index)?;
        let only_takes = matches!(wanted.ops.as_slice(), [op] if op.delta < 0);
        if !wanted.blocked.may_go(sems, &wanted.ops) {
            return Some((Attempt::Blocked(wanted.blocked), only_takes));
        }
        let undo = wanted.undo.and_then(|list| undos.get_mut(&list));
        Some((ops::attempt(sems, undo.map(Vec::as_mut_slice), &wanted.ops, wanted.pid), only_takes))
    }

    fn serve_zero(&mut self, now: i64, ops: Option<&Ops>, served: &mut Served) {
        let is_zero = |op: &SemOp| self.sems.get(usize::from(op.index)).is_some_and(|sem| sem.value == 0);
        if self.for_zero.is_empty() || ops.is_some_and(|ops| !ops.iter().any(is_zero)) {
            return;
        }
        let mut index = 0;
        while let Some(wanted) = self.for_zero.get_mut(index) {
            if !wanted.blocked.may_go(&self.sems, &wanted.ops) {
                index += 1;
                continue;
            }
            // It changes no value, so it needs no list of undos.
            match ops::attempt(&mut self.sems, None, &wanted.ops, wanted.pid) {
                Attempt::Blocked(blocked) => {
                    wanted.blocked = blocked;
                    index += 1;
                }
                Attempt::Done => {
                    self.otime = now;
                    self.for_zero.serve(index, Ok(()), served);
                }
                Attempt::Failed(errno) => drop(self.for_zero.serve(index, Err(errno), served)),
            }
        }
    }
}
