//! Advisory locks: flock(2), and the record locks of fcntl(2) (POSIX and open-file-description locks).

use alloc::vec::Vec;

use arrayvec::ArrayVec;

use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::sync::SpinLock;

/// Who holds a lock: a process (by its descriptor table) or an open file description (by its address).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    Process(usize),
    File(usize),
}

/// A record lock; `end` is inclusive, `u64::MAX >> 1` means to the end of the file for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    pub owner: Owner,
    /// For F_GETLK: the process id, or -1 for locks of open file descriptions.
    pub pid: i32,
    pub exclusive: bool,
    pub start: u64,
    pub end: u64,
}

/// Records on one inode at most, so that looking through them takes no long time; ENOLCK beyond.
const MAX_RECORDS: usize = 1 << 16;

/// The last byte that a lock can cover.
pub const END: u64 = i64::MAX as u64;

#[derive(Clone, Copy, PartialEq, Eq)]
struct Whole {
    file: usize,
    exclusive: bool,
}

#[derive(Default)]
struct Held {
    /// In no order; ranges of one owner do not overlap.
    records: Vec<Record>,
    whole: Vec<Whole>,
}

/// The locks on one inode.
#[derive(Default)]
pub struct FileLocks {
    held: SpinLock<Held>,
    released: WaitQueue,
}

/// Others between two who wait for each other: a longer chain is not followed to its end, as in Linux.
const MAX_STEPS: usize = 10;

/// Who waits for whom, for EDEADLK.
static WAITS: SpinLock<Vec<(Owner, Owner)>> = SpinLock::new(Vec::new());

/// An edge of the waits-for graph for as long as the wait lasts.
struct WaitEdge(Owner, Owner);

impl WaitEdge {
    /// EDEADLK if `holder` waits, directly or over at most [`MAX_STEPS`] others, for `waiter`.
    fn new(waiter: Owner, holder: Owner) -> Result<Self> {
        let mut waits = WAITS.lock();
        let mut at = holder;
        for _ in 0..=MAX_STEPS + 1 {
            if at == waiter {
                return Err(Errno::EDEADLK);
            }
            match waits.iter().find(|(from, _)| *from == at) {
                Some((_, next)) => at = *next,
                None => break,
            }
        }
        waits.push((waiter, holder));
        Ok(WaitEdge(waiter, holder))
    }
}

impl Drop for WaitEdge {
    fn drop(&mut self) {
        let mut waits = WAITS.lock();
        if let Some(at) = waits.iter().position(|edge| *edge == (self.0, self.1)) {
            waits.swap_remove(at);
        }
    }
}

impl FileLocks {
    /// F_SETLK with F_RDLCK or F_WRLCK: takes the lock, or answers the lock in the way.
    fn try_lock(&self, new: Record) -> Result<Option<Record>> {
        let mut held = self.held.lock();
        if let Some(other) = conflict(&held.records, &new) {
            return Ok(Some(other));
        }
        make_room(&mut held.records)?;
        carve(&mut held.records, &new);
        add(&mut held.records, new);
        drop(held);
        // A write lock that became a read lock lets others in.
        self.released.wake_all();
        Ok(None)
    }

    pub fn set(&self, new: Record) -> Result<()> {
        if self.try_lock(new)?.is_some() { Err(Errno::EAGAIN) } else { Ok(()) }
    }

    /// F_SETLKW. To be awaited interruptibly.
    pub async fn set_wait(&self, new: Record) -> Result<()> {
        loop {
            let Some(other) = self.try_lock(new)? else { return Ok(()) };
            // Locks of open file descriptions take no part in deadlock detection (fcntl(2)).
            let _edge = match (new.owner, other.owner) {
                (Owner::Process(_), Owner::Process(_)) => Some(WaitEdge::new(new.owner, other.owner)?),
                _ => None,
            };
            self.released
                .wait_for(|| conflict(&self.held.lock().records, &new).is_none_or(|c| c != other).then_some(()))
                .await;
        }
    }

    /// F_UNLCK.
    pub fn unlock(&self, range: Record) -> Result<()> {
        let mut held = self.held.lock();
        // What is left of a record at both ends takes one more.
        if held.records.iter().any(|r| r.owner == range.owner && r.start < range.start && r.end > range.end) {
            make_room(&mut held.records)?;
        }
        carve(&mut held.records, &range);
        drop(held);
        self.released.wake_all();
        Ok(())
    }

    /// F_GETLK: the first lock in the way.
    pub fn test(&self, wanted: Record) -> Option<Record> {
        conflict(&self.held.lock().records, &wanted)
    }

    /// Drops everything of one owner: close(2) by a process, or the last close of an open file description.
    pub fn release(&self, owner: Owner) {
        let mut held = self.held.lock();
        let before = held.records.len() + held.whole.len();
        held.records.retain(|record| record.owner != owner);
        if let Owner::File(file) = owner {
            held.whole.retain(|whole| whole.file != file);
        }
        let released = held.records.len() + held.whole.len() != before;
        drop(held);
        if released {
            self.released.wake_all();
        }
    }

    /// flock(2) with LOCK_SH or LOCK_EX. A conversion gives the old lock up first, as Linux does.
    fn try_flock(&self, file: usize, exclusive: bool) -> bool {
        let mut held = self.held.lock();
        let new = Whole { file, exclusive };
        if held.whole.contains(&new) {
            return true;
        }
        let before = held.whole.len();
        held.whole.retain(|whole| whole.file != file);
        let converted = held.whole.len() != before;
        let free = !held.whole.iter().any(|whole| whole.exclusive || exclusive);
        if free {
            held.whole.push(new);
        }
        drop(held);
        if converted {
            self.released.wake_all();
        }
        free
    }

    pub fn flock(&self, file: usize, exclusive: bool) -> Result<()> {
        if self.try_flock(file, exclusive) { Ok(()) } else { Err(Errno::EAGAIN) }
    }

    /// To be awaited interruptibly.
    pub async fn flock_wait(&self, file: usize, exclusive: bool) {
        self.released.wait_for(|| self.try_flock(file, exclusive).then_some(())).await
    }

    pub fn unflock(&self, file: usize) {
        self.held.lock().whole.retain(|whole| whole.file != file);
        self.released.wake_all();
    }
}

fn overlaps(a: &Record, b: &Record) -> bool {
    a.start <= b.end && b.start <= a.end
}

fn conflict(records: &[Record], new: &Record) -> Option<Record> {
    let clashes = |r: &&Record| r.owner != new.owner && (r.exclusive || new.exclusive) && overlaps(r, new);
    records.iter().filter(clashes).min_by_key(|r| r.start).copied()
}

/// For the records that one call may add.
fn make_room(records: &mut Vec<Record>) -> Result<()> {
    if records.len() >= MAX_RECORDS || records.try_reserve(2).is_err() {
        return Err(Errno::ENOLCK);
    }
    Ok(())
}

/// Takes `range` out of what its owner holds.
fn carve(records: &mut Vec<Record>, range: &Record) {
    // Ranges of one owner do not overlap: at most one is left on each side.
    let mut pieces: ArrayVec<Record, 2> = ArrayVec::new();
    records.retain(|held| {
        if held.owner != range.owner || !overlaps(held, range) {
            return true;
        }
        if held.start < range.start {
            pieces.push(Record { end: range.start - 1, ..*held });
        }
        if held.end > range.end {
            pieces.push(Record { start: range.end + 1, ..*held });
        }
        false
    });
    records.extend(pieces);
}

/// Adds a record where its owner holds nothing, joined with its neighbours if they are of the same kind.
fn add(records: &mut Vec<Record>, mut new: Record) {
    records.retain(|held| {
        let like = held.owner == new.owner && held.exclusive == new.exclusive;
        if like && held.end.checked_add(1) == Some(new.start) {
            new.start = held.start;
            return false;
        }
        if like && new.end.checked_add(1) == Some(held.start) {
            new.end = held.end;
            return false;
        }
        true
    });
    records.push(new);
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn record(owner: usize, exclusive: bool, start: u64, end: u64) -> Record {
        Record { owner: Owner::Process(owner), pid: owner as i32, exclusive, start, end }
    }

    #[test]
    fn read_locks_are_shared_and_write_locks_are_not() {
        let locks = FileLocks::default();
        assert_eq!(locks.set(record(1, false, 0, 99)), Ok(()));
        assert_eq!(locks.set(record(2, false, 50, 149)), Ok(()));
        assert_eq!(locks.set(record(2, true, 90, 100)), Err(Errno::EAGAIN));
        assert_eq!(locks.set(record(2, true, 100, 110)), Ok(()));
        assert_eq!(locks.test(record(1, false, 100, 100)).map(|r| (r.start, r.end)), Some((100, 110)));
    }

    #[test]
    fn unlocking_the_middle_splits_and_relocking_joins() {
        let locks = FileLocks::default();
        locks.set(record(1, true, 0, END)).unwrap();
        locks.unlock(record(1, true, 10, 19)).unwrap();
        assert_eq!(locks.set(record(2, true, 10, 19)), Ok(()));
        assert_eq!(locks.set(record(2, true, 9, 9)), Err(Errno::EAGAIN));
        locks.release(Owner::Process(2));
        locks.set(record(1, true, 10, 19)).unwrap();
        assert_eq!(locks.held.lock().records, vec![record(1, true, 0, END)]);
    }

    #[test]
    fn records_are_not_without_number() {
        let held: Vec<Record> = (0..MAX_RECORDS as u64).map(|n| record(1, true, 4 * n, 4 * n + 2)).collect();
        let locks = FileLocks::default();
        locks.held.lock().records = held;
        assert_eq!(locks.set(record(2, true, 3, 3)), Err(Errno::ENOLCK));
        assert_eq!(locks.unlock(record(1, true, 1, 1)), Err(Errno::ENOLCK));
        assert_eq!(locks.unlock(record(1, true, 0, 2)), Ok(()));
        assert_eq!(locks.set(record(2, true, 3, 3)), Ok(()));
    }

    #[test]
    fn flock_conversion_and_release() {
        let locks = FileLocks::default();
        assert_eq!(locks.flock(1, false), Ok(()));
        assert_eq!(locks.flock(2, false), Ok(()));
        assert_eq!(locks.flock(1, true), Err(Errno::EAGAIN));
        locks.release(Owner::File(2));
        assert_eq!(locks.flock(1, true), Ok(()));
        locks.unflock(1);
        assert_eq!(locks.flock(2, true), Ok(()));
    }

    #[test]
    fn a_cycle_of_waiters_is_refused() {
        let edge = WaitEdge::new(Owner::Process(101), Owner::Process(102)).unwrap();
        assert_eq!(WaitEdge::new(Owner::Process(102), Owner::Process(101)).err(), Some(Errno::EDEADLK));
        drop(edge);
        assert!(WaitEdge::new(Owner::Process(102), Owner::Process(101)).is_ok());
    }

    #[test]
    fn a_long_chain_of_waiters_is_not_followed_to_its_end() {
        let link = |from: usize| WaitEdge::new(Owner::Process(200 + from), Owner::Process(201 + from)).unwrap();
        let mut chain: Vec<WaitEdge> = (0..11).map(link).collect();
        let closes = |chain: &[WaitEdge]| WaitEdge::new(Owner::Process(200 + chain.len()), Owner::Process(200)).err();
        assert_eq!(closes(&chain), Some(Errno::EDEADLK));
        chain.push(link(11));
        assert_eq!(closes(&chain), None);
    }
}
