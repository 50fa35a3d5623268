//! semop(2) and semtimedop(2).

use alloc::sync::Arc;

use super::ops::{Attempt, Blocked, OpFlags, Ops};
use super::{REGISTRY, SemSet, State, Wanted};
use crate::errno::{Errno, Result};
use crate::exec::{Instant, interruptible, timeout};
use crate::ipc::ids::{self, READ, WRITE};
use crate::ipc::line::{Served, Ticket};
use crate::process::{Pid, Thread};
use crate::sync::SpinGuard;

/// Those who have operations that change something stand in one line, the others in another.
fn alters(ops: &Ops) -> bool {
    ops.iter().any(|op| op.delta != 0)
}

fn wants_undo(ops: &Ops) -> bool {
    ops.iter().any(|op| op.flags.contains(OpFlags::UNDO))
}

/// What can be refused before the values are looked at.
fn check(t: &Thread, set: &SemSet, state: &State, ops: &Ops) -> Result<()> {
    if ops.iter().any(|op| usize::from(op.index) >= set.count) {
        return Err(Errno::EFBIG);
    }
    state.perm.check(t.creds(), if alters(ops) { WRITE } else { READ })?;
    state.check_valid()
}

/// Does the operations if they need no waiting. None: nothing was done, see [`operate`].
pub fn operate_now(t: &Thread, id: i32, ops: &Ops) -> Option<Result<()>> {
    if wants_undo(ops) {
        return None;
    }
    let set = match REGISTRY.get(id) {
        Ok(set) => set,
        Err(errno) => return Some(Err(errno)),
    };
    match set.try_operate(t, ops, None, t.process().pid) {
        Ok(None) => Some(Ok(())),
        Ok(Some(_)) => None,
        Err(errno) => Some(Err(errno)),
    }
}

/// Does the operations, when they can be done. EAGAIN if that is not before the deadline, EINTR if a signal comes, whatever
/// its action says of restarts (signal(7)).
pub async fn operate(t: &Thread, id: i32, ops: Ops, deadline: Option<Instant>) -> Result<()> {
    let set = if wants_undo(&ops) {
        let set = REGISTRY.get(id)?;
        t.sem_undo.include(&set)?;
        set
    } else {
        REGISTRY.get(id)?
    };
    let undo = if wants_undo(&ops) { t.sem_undo.id() } else { None };
    let (pid, change) = (t.process().pid, alters(&ops));
    let ticket = {
        let mut state = set.state.lock();
        let Some(blocked) = set.try_locked(t, &mut state, &ops, undo, pid)? else {
            set.finish(state, &ops);
            return Ok(());
        };
        state.last_ticket += 1;
        let ticket = state.last_ticket;
        let wanted = Wanted { ops, pid, undo, blocked };
        if change { &mut state.changers } else { &mut state.for_zero }.join(ticket, wanted);
        ticket
    };
    let turn = Turn { set: &set, ticket, change };
    let served = set.queue.wait_for_key(ticket, || turn.look()).after_trying();
    match interruptible(t, timeout(deadline, served)).await {
        Ok(Ok(result)) => {
            turn.end();
            result
        }
        // What was done in the meantime counts.
        Ok(Err(_)) => turn.leave().unwrap_or(Err(Errno::EAGAIN)),
        Err(_) => turn.leave().unwrap_or(Err(Errno::EINTR)),
    }
}

impl SemSet {
    /// None: done. Else what it would have to wait for.
    fn try_operate(&self, t: &Thread, ops: &Ops, undo: Option<u64>, pid: Pid) -> Result<Option<Blocked>> {
        let mut state = self.state.lock();
        let blocked = self.try_locked(t, &mut state, ops, undo, pid)?;
        if blocked.is_none() {
            self.finish(state, ops);
        }
        Ok(blocked)
    }

    #[inline]
    fn try_locked(
        &self,
        t: &Thread,
        state: &mut State,
        ops: &Ops,
        undo: Option<u64>,
        pid: Pid,
    ) -> Result<Option<Blocked>> {
        check(t, self, state, ops)?;
        match state.attempt(ops, undo, pid) {
            Attempt::Done => Ok(None),
            Attempt::Failed(errno) => Err(errno),
            Attempt::Blocked(blocked) => match ops.get(blocked.0) {
                Some(op) if op.flags.contains(OpFlags::NOWAIT) => Err(Errno::EAGAIN),
                _ => Ok(Some(blocked)),
            },
        }
    }

    /// After operations were done: others may go on.
    #[inline]
    fn finish(&self, mut state: SpinGuard<'_, State>, ops: &Ops) {
        let mut served = Served::default();
        let now = ids::now();
        state.otime = now;
        if alters(ops) {
            state.settle(now, Some(ops), &mut served);
        }
        drop(state);
        served.wake(&self.queue);
    }
}

/// A place in a line, which is left in the end.
struct Turn<'a> {
    set: &'a Arc<SemSet>,
    ticket: Ticket,
    change: bool,
}

impl Turn<'_> {
    fn look(&self) -> Option<Result<()>> {
        let mut state = self.set.state.lock();
        let line = if self.change { &mut state.changers } else { &mut state.for_zero };
        let result = line.fetch(self.ticket);
        if result.is_none() && state.removed { Some(Err(Errno::EIDRM)) } else { result }
    }

    fn leave(&self) -> Option<Result<()>> {
        let mut state = self.set.state.lock();
        let removed = state.removed;
        let line = if self.change { &mut state.changers } else { &mut state.for_zero };
        line.leave(self.ticket).or_else(|| removed.then_some(Err(Errno::EIDRM)))
    }

    /// It was served, or there is no line any more: nothing to look for once more.
    fn end(self) {
        core::mem::forget(self);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let _outcome = self.leave();
    }
}
