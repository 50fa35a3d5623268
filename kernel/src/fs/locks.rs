//! Advisory locks: flock(2), and the record locks of fcntl(2) (POSIX and open-file-description locks).

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

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
    /// In the order of their numbers.
    waits: Vec<Wait>,
}

/// The locks on one inode.
#[derive(Default)]
pub struct FileLocks {
    held: SpinLock<Held>,
    released: WaitQueue,
}

/// Others between two who wait for each other: a longer chain is not followed to its end, as in Linux.
const MAX_STEPS: usize = 10;

/// A process that waits: an edge of the waits-for graph, until what is in its way changes.
struct Wait {
    /// Tells it from others; later ones have larger ones.
    number: usize,
    /// Who waits.
    owner: usize,
    in_the_way: Record,
    over: Arc<AtomicBool>,
}

struct Graph {
    /// By who waits, and the number of the wait: who is in the way.
    edges: BTreeMap<(usize, usize), usize>,
    last: usize,
}

/// Who waits for whom, for EDEADLK. Taken under the locks of a file.
static GRAPH: SpinLock<Graph> = SpinLock::new(Graph { edges: BTreeMap::new(), last: 0 });

/// A wait, for as long as this lives.
struct WaitEdge<'a> {
    locks: &'a FileLocks,
    number: usize,
    over: Arc<AtomicBool>,
}

impl<'a> WaitEdge<'a> {
    /// With these locks held, in which the one is in the way of what `owner` wants. EDEADLK if its own owner, `other`, waits, directly
    /// or over at most [`MAX_STEPS`] others, for `owner`.
    fn new(locks: &'a FileLocks, held: &mut Held, owner: usize, (other, in_the_way): (usize, Record)) -> Result<Self> {
        held.waits.try_reserve(1).map_err(|_| Errno::ENOLCK)?;
        let mut graph = GRAPH.lock();
        let mut at = other;
        for _ in 0..=MAX_STEPS + 1 {
            if at == owner {
                return Err(Errno::EDEADLK);
            }
            match graph.edges.range((at, 0)..=(at, usize::MAX)).next() {
                Some((_, next)) => at = *next,
                None => break,
            }
        }
        graph.last += 1;
        let number = graph.last;
        graph.edges.insert((owner, number), other);
        let over = Arc::<AtomicBool>::default();
        held.waits.push(Wait { number, owner, in_the_way, over: over.clone() });
        Ok(WaitEdge { locks, number, over })
    }
}

impl Drop for WaitEdge<'_> {
    fn drop(&mut self) {
        let mut held = self.locks.held.lock();
        if let Ok(place) = held.waits.binary_search_by_key(&self.number, |wait| wait.number) {
            let wait = held.waits.remove(place);
            GRAPH.lock().edges.remove(&(wait.owner, wait.number));
        }
    }
}

impl Held {
    /// An owner has changed what it holds in this range: whoever waits for some of that looks again.
    fn end_waits(&mut self, changed: &Record) {
        self.waits.retain(|wait| {
            let over = wait.in_the_way.owner == changed.owner && overlaps(&wait.in_the_way, changed);
            if over {
                GRAPH.lock().edges.remove(&(wait.owner, wait.number));
                wait.over.store(true, Ordering::Relaxed);
            }
            !over
        });
    }
}

impl FileLocks {
    /// What an owner holds in this range has become smaller, or weaker.
    fn wake(&self, mut held: SpinGuard<'_, Held>, changed: &Record) {
        held.end_waits(changed);
        drop(held);
        self.released.wake_all();
    }

    /// Takes the lock, in whose way there is none.
    fn take(&self, mut held: SpinGuard<'_, Held>, new: Record) -> Result<()> {
        make_room(&mut held.records)?;
        carve(&mut held.records, &new);
        add(&mut held.records, new);
        // A write lock that became a read lock lets others in.
        self.wake(held, &new);
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
            let (other, edge) = {
                let mut held = self.held.lock();
                let Some(other) = conflict(&held.records, &new) else { return self.take(held, new) };
                // Locks of open file descriptions take no part in deadlock detection (fcntl(2)).
                let edge = match (new.owner, other.owner) {
                    (Owner::Process(own), Owner::Process(theirs)) => {
                        Some(WaitEdge::new(self, &mut held, own, (theirs, other))?)
                    }
                    _ => None,
                };
                (other, edge)
            };
            let is_over = || {
                let held = self.held.lock();
                match &edge {
                    Some(edge) => edge.over.load(Ordering::Relaxed),
                    None => conflict(&held.records, &new).is_none_or(|in_the_way| in_the_way != other),
                }
            };
            self.released.wait_for(|| is_over().then_some(())).await;
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
        self.wake(held, &range);
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
            self.wake(held, &Record { owner, pid: 0, exclusive: true, start: 0, end: END });
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
    use core::pin::pin;

    use futures_util::future::poll_immediate;

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
        WaitEdge::new(locks, &mut locks.held.lock(), wants, (has, record(has, true, at, at)))
    }

    #[test]
    fn a_cycle_of_waiters_is_refused() {
        let locks = FileLocks::default();
        let first = edge(&locks, 101, 102).unwrap();
        assert_eq!(edge(&locks, 102, 101).err(), Some(Errno::EDEADLK));
        drop(first);
        assert!(edge(&locks, 102, 101).is_ok());
        assert!(locks.held.lock().waits.is_empty());
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
        assert!(locks.held.lock().waits.is_empty());
    }

    /// Else both would sleep for ever, each waiting for the other.
    #[test]
    fn who_sleeps_while_a_lock_is_given_up_and_taken_again_waits_anew() {
        crate::mm::test_util::run(async {
            let locks = FileLocks::default();
            let [zero, one] = [401, 402].map(|owner| move |at| record(owner, true, at, at));
            locks.set(zero(0)).unwrap();
            locks.set(one(1)).unwrap();
            let mut second = pin!(locks.set_wait(one(0)));
            assert!(poll_immediate(second.as_mut()).await.is_none());
            locks.unlock(zero(0)).unwrap();
            locks.set(zero(0)).unwrap();
            let mut first = pin!(locks.set_wait(zero(1)));
            assert!(poll_immediate(first.as_mut()).await.is_none());
            assert_eq!(second.await, Err(Errno::EDEADLK));
            locks.release(Owner::Process(402));
            assert_eq!(first.await, Ok(()));
            assert!(locks.held.lock().waits.is_empty());
        });
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
