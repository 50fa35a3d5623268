//! An array of operations is done as a whole or not at all (semop(2)).

use smallvec::SmallVec;

use super::{MAX_VALUE, Sem};
use crate::errno::Errno;
use crate::process::Pid;

bitflags::bitflags! {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct OpFlags: u16 {
        const NOWAIT = 0o4000;
        const UNDO = 0x1000;
        const _ = !0;
    }
}

/// `struct sembuf`.
#[derive(Clone, Copy, Debug)]
pub struct SemOp {
    pub index: u16,
    /// Added to the value; 0: waits until the value is 0.
    pub delta: i16,
    pub flags: OpFlags,
}

pub type Ops = SmallVec<[SemOp; 2]>;

/// The operation that an array could not get past: its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked(pub usize);

impl Blocked {
    /// False if nothing has changed for the operation. Of several operations an earlier one may help a later one.
    pub fn may_go(self, sems: &[Sem], ops: &Ops) -> bool {
        let &[op] = ops.as_slice() else { return true };
        let value = sems.get(usize::from(op.index)).map_or(0, |sem| i32::from(sem.value));
        if op.delta == 0 { value == 0 } else { value + i32::from(op.delta) >= 0 }
    }
}

/// What came of an attempt. Unless it is `Done`, nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    Done,
    Blocked(Blocked),
    /// ERANGE; EFBIG if there is no such semaphore.
    Failed(Errno),
}

/// Does all of `ops`, or nothing. `undo` has what operations with UNDO leave behind.
pub fn attempt(sems: &mut [Sem], mut undo: Option<&mut [i16]>, ops: &Ops, pid: Pid) -> Attempt {
    for (index, op) in ops.iter().enumerate() {
        if let Err(stop) = step(sems, undo.as_deref_mut(), op) {
            for op in ops.iter().take(index).rev() {
                take_back(sems, undo.as_deref_mut(), op);
            }
            return stop.unwrap_or(Attempt::Blocked(Blocked(index)));
        }
    }
    for op in ops {
        if let Some(sem) = sems.get_mut(usize::from(op.index)) {
            sem.pid = pid;
        }
    }
    Attempt::Done
}

/// Does one operation. Err(None): it cannot be done now.
fn step(sems: &mut [Sem], undo: Option<&mut [i16]>, op: &SemOp) -> Result<(), Option<Attempt>> {
    let out_of_range = Some(Attempt::Failed(Errno::ERANGE));
    let sem = sems.get_mut(usize::from(op.index)).ok_or(Some(Attempt::Failed(Errno::EFBIG)))?;
    if op.delta == 0 && sem.value != 0 {
        return Err(None);
    }
    let value = i32::from(sem.value) + i32::from(op.delta);
    if value < 0 {
        return Err(None);
    }
    if value > MAX_VALUE {
        return Err(out_of_range);
    }
    if op.flags.contains(OpFlags::UNDO)
        && let Some(adjustment) = undo.and_then(|undo| undo.get_mut(usize::from(op.index)))
    {
        let new = i32::from(*adjustment) - i32::from(op.delta);
        *adjustment = i16::try_from(new).map_err(|_| out_of_range)?;
    }
    sem.value = value as u16;
    Ok(())
}

fn take_back(sems: &mut [Sem], undo: Option<&mut [i16]>, op: &SemOp) {
    if let Some(sem) = sems.get_mut(usize::from(op.index)) {
        sem.value = (i32::from(sem.value) - i32::from(op.delta)) as u16;
    }
    if op.flags.contains(OpFlags::UNDO)
        && let Some(adjustment) = undo.and_then(|undo| undo.get_mut(usize::from(op.index)))
    {
        *adjustment = adjustment.wrapping_add(op.delta);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sems(values: &[u16]) -> alloc::vec::Vec<Sem> {
        values.iter().map(|value| Sem { value: *value, pid: 1 }).collect()
    }

    fn values(sems: &[Sem]) -> alloc::vec::Vec<u16> {
        sems.iter().map(|sem| sem.value).collect()
    }

    fn ops(all: &[(u16, i16)]) -> Ops {
        all.iter().map(|(index, delta)| SemOp { index: *index, delta: *delta, flags: OpFlags::UNDO }).collect()
    }

    #[test]
    fn all_or_nothing() {
        let mut set = sems(&[2, 0, 32767]);
        let mut undo = [0; 3];
        let blocked = attempt(&mut set, Some(&mut undo), &ops(&[(0, -1), (0, -1), (1, -1)]), 9);
        assert_eq!(blocked, Attempt::Blocked(Blocked(2)));
        let failed = attempt(&mut set, Some(&mut undo), &ops(&[(0, -1), (2, 1)]), 9);
        assert_eq!(failed, Attempt::Failed(Errno::ERANGE));
        let missing = attempt(&mut set, Some(&mut undo), &ops(&[(0, -1), (3, 1)]), 9);
        assert_eq!(missing, Attempt::Failed(Errno::EFBIG));
        assert_eq!((values(&set), undo), (alloc::vec![2, 0, 32767], [0; 3]));
        assert!(set.iter().all(|sem| sem.pid == 1));
        // One operation makes room for the next.
        assert_eq!(attempt(&mut set, Some(&mut undo), &ops(&[(1, 3), (1, -2), (0, -2), (0, 0)]), 9), Attempt::Done);
        assert_eq!((values(&set), undo), (alloc::vec![0, 1, 32767], [2, -1, 0]));
        assert_eq!([set[0].pid, set[1].pid, set[2].pid], [9, 9, 1]);
    }

    #[test]
    fn adjustments_have_a_range() {
        let mut set = sems(&[0]);
        let mut undo = [0];
        for _ in 0..2 {
            assert_eq!(attempt(&mut set, Some(&mut undo), &ops(&[(0, 16384), (0, -1)]), 9), Attempt::Done);
            assert_eq!(attempt(&mut set, None, &ops(&[(0, -16383)]), 9), Attempt::Done);
        }
        assert_eq!(undo, [-32766]);
        let failed = attempt(&mut set, Some(&mut undo), &ops(&[(0, 3)]), 9);
        assert_eq!((failed, undo, values(&set)), (Attempt::Failed(Errno::ERANGE), [-32766], alloc::vec![0]));
    }
}
