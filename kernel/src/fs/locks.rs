//! Advisory locks: flock(2), and the record locks of fcntl(2) (POSIX and open-file-description locks).

use alloc::vec::Vec;

use arrayvec::ArrayVec;

use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::sync::{SpinGuard, SpinLock};

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
    /// Those of [`WAITS`] that are about these locks.
    waits: usize,
}

/// The locks on one inode.
#[derive(Default)]
pub struct FileLocks {
    held: SpinLock<Held>,
    released: WaitQueue,
}

/// Others between two who wait for each other: a longer chain is not followed to its end, as in Linux.
const MAX_STEPS: usize = 10;

/// An edge of the waits-for graph.
struct Wait {
    /// Tells it from others.
    number: u64,
    /// The address of the locks.
    locks: usize,
    wanted: Record,
    in_the_way: Record,
}

struct Waits {
    list: Vec<Wait>,
    last: u64,
}

/// Who waits for whom, for EDEADLK.
static WAITS: SpinLock<Waits> = SpinLock::new(Waits { list: Vec::new(), last: 0 });

/// An edge for as long as the wait lasts, or what it waits for stays in the way.
struct WaitEdge<'a> {
    locks: &'a FileLocks,
    number: u64,
}

impl<'a> WaitEdge<'a> {
    /// With these locks held, in which the one is in the other's way. EDEADLK if its owner waits, directly or over at most
    /// [`MAX_STEPS`] others, for who wants it.
    fn new(locks: &'a FileLocks, held: &mut Held, wanted: Record, in_the_way: Record) -> Result<Self> {
        let mut waits = WAITS.lock();
        let mut at = in_the_way.owner;
        for _ in 0..=MAX_STEPS + 1 {
            if at == wanted.owner {
                return Err(Errno::EDEADLK);
            }
            match waits.list.iter().find(|wait| wait.wanted.owner == at) {
                Some(wait) => at = wait.in_the_way.owner,
                None => break,
            }
        }
        waits.last += 1;
        let number = waits.last;
        waits.list.push(Wait { number, locks: locks.id(), wanted, in_the_way });
        held.waits += 1;
        Ok(WaitEdge { locks, number })
    }
}

impl Drop for WaitEdge<'_> {
    fn drop(&mut self) {
        self.locks.forget_waits(&mut self.locks.held.lock(), |_, wait| wait.number != self.number);
    }
}

impl FileLocks {
    fn id(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    /// Leaves those out that do not go on.
    fn forget_waits(&self, held: &mut Held, goes_on: impl Fn(&[Record], &Wait) -> bool) {
        if held.waits == 0 {
            return;
        }
        let mut waits = WAITS.lock();
        let before = waits.list.len();
        waits.list.retain(|wait| wait.locks != self.id() || goes_on(&held.records, wait));
        held.waits -= before - waits.list.len();
    }

    /// Some record is smaller, or weaker. Who waited for it waits no longer, even before it knows.
    fn wake(&self, mut held: SpinGuard<'_, Held>) {
        self.forget_waits(&mut held, |records, wait| conflict(records, &wait.wanted) == Some(wait.in_the_way));
        drop(held);
        self.released.wake_all();
    }

    /// Takes the lock, in whose way there is none.
    fn take(&self, mut held: SpinGuard<'_, Held>, new: Record) -> Result<()> {
        make_room(&mut held.records)?;
        carve(&mut held.records, &new);
        add(&mut held.records, new);
        // A write lock that became a read lock lets others in.
        self.wake(held);
        Ok(())
    }

    /// F_SETLK with F_RDLCK or F_WRLCK.
    pub fn set(&self, new: Record) -> Result<()> {
        let held = self.held.lock();
        if conflict(&held.records, &new).is_some() { Err(Errno::EAGAIN) } else { self.take(held, new) }
    }

    /// F_SETLKW. To be awaited interruptibly.
    pub async fn set_wait(&self, new: Record) -> Result<()> {
        loop {
            let (other, _edge) = {
                let mut held = self.held.lock();
                let Some(other) = conflict(&held.records, &new) else { return self.take(held, new) };
                // Locks of open file descriptions take no part in deadlock detection (fcntl(2)).
                let edge = match (new.owner, other.owner) {
                    (Owner::Process(_), Owner::Process(_)) => Some(WaitEdge::new(self, &mut held, new, other)?),
                    _ => None,
                };
                (other, edge)
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
        self.wake(held);
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
        if held.records.len() + held.whole.len() != before {
            self.wake(held);
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

    /// Who wants byte `at`, which another has.
    fn edge(locks: &FileLocks, wants: usize, has: usize) -> Result<WaitEdge<'_>> {
        let at = has as u64;
        WaitEdge::new(locks, &mut locks.held.lock(), record(wants, true, at, at), record(has, true, at, at))
    }

    #[test]
    fn a_cycle_of_waiters_is_refused() {
        let locks = FileLocks::default();
        let first = edge(&locks, 101, 102).unwrap();
        assert_eq!(edge(&locks, 102, 101).err(), Some(Errno::EDEADLK));
        drop(first);
        assert!(edge(&locks, 102, 101).is_ok());
        assert_eq!(locks.held.lock().waits, 0);
    }

    /// Who has been let in does not wait, although it does not know yet.
    #[test]
    fn who_waits_for_nothing_any_more_makes_no_cycle() {
        let locks = FileLocks::default();
        for has in [301, 302] {
            locks.set(record(has, true, has as u64, has as u64)).unwrap();
        }
        let waits = edge(&locks, 301, 302).unwrap();
        assert_eq!(edge(&locks, 302, 301).err(), Some(Errno::EDEADLK));
        locks.unlock(record(303, true, 0, 400)).unwrap();
        assert_eq!(edge(&locks, 302, 301).err(), Some(Errno::EDEADLK));
        locks.unlock(record(302, true, 302, 302)).unwrap();
        assert!(edge(&locks, 302, 301).is_ok());
        drop(waits);
        assert_eq!(locks.held.lock().waits, 0);
    }

    #[test]
    fn a_long_chain_of_waiters_is_not_followed_to_its_end() {
        let locks = FileLocks::default();
        let mut chain: Vec<_> = (0..11).map(|from| edge(&locks, 200 + from, 201 + from).unwrap()).collect();
        let closes = |len: usize| edge(&locks, 200 + len, 200).err();
        assert_eq!(closes(chain.len()), Some(Errno::EDEADLK));
        chain.push(edge(&locks, 211, 212).unwrap());
        assert_eq!(closes(chain.len()), None);
    }
}
