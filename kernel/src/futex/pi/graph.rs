//! Which thread waits for which lock, who owns it, and who lends priority to whom.
//!
//! The threads and locks are a forest: a waiter points to its lock, a lock to its owner, who may wait for another lock. What
//! a lock lends its owner is the priority of its first waiter; an owner has the best of what its locks lend. All of it is
//! under one lock, [`GRAPH`]: a change runs along a chain of owners, through locks that have nothing else in common.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::fence;
use core::task::Waker;

use super::super::table::{Key, others};
use crate::errno::{Errno, Result};
use crate::process::Task;
use crate::sync::{SpinGuard, SpinLock};

static GRAPH: SpinLock<Graph> = SpinLock::new(Graph::new());

pub(super) fn lock() -> SpinGuard<'static, Graph> {
    GRAPH.lock()
}

/// Flags of `Task::pi`: it is in the graph, or was; it has ended, and can own nothing more.
const INVOLVED: u8 = 1;
const ENDED: u8 = 2;

/// A chain of owners that is longer counts as a deadlock (Linux's max_lock_depth).
const MAX_DEPTH: usize = 1024;

/// How late a waiter is served: 99 less its real-time priority. All who have none are equal.
type Rank = u8;
const ORDINARY: Rank = 99;

fn rank(task: &Task) -> Rank {
    ORDINARY - task.entity.active_policy().rt_priority().min(ORDINARY)
}

/// A task, as long as the graph holds it.
type Id = usize;

fn id(task: &Arc<Task>) -> Id {
    Arc::as_ptr(task) as Id
}

/// A lock that somebody waits for, or whose word does not name its owner yet.
struct Lock {
    owner: Arc<Task>,
    /// The rank that it lends its owner, by which it is in `loans`.
    lends: Rank,
    /// The owner has got it from one that died, and has yet to write that down.
    unwritten: bool,
}

/// Where a waiter is in the queue of its lock.
type Place = (Key, Rank, u64);

struct Wait {
    task: Arc<Task>,
    waker: Option<Waker>,
    /// None: it owns the lock, and has not been told.
    place: Option<Place>,
    key: Key,
}

pub(super) struct Graph {
    locks: BTreeMap<Key, Lock>,
    /// The waiters of all locks in the order in which they are served.
    queue: BTreeMap<Place, Id>,
    /// The locks of each owner, the one that lends most first.
    loans: BTreeSet<(Id, Rank, Key)>,
    waits: BTreeMap<Id, Wait>,
    /// Who waits to be requeued (FUTEX_WAIT_REQUEUE_PI), by the address of its place: the task, and the lock.
    travellers: BTreeMap<usize, (Arc<Task>, Key)>,
    sequence: u64,
}

impl Graph {
    const fn new() -> Self {
        Graph {
            locks: BTreeMap::new(),
            queue: BTreeMap::new(),
            loans: BTreeSet::new(),
            waits: BTreeMap::new(),
            travellers: BTreeMap::new(),
            sequence: 0,
        }
    }

    /// The owner of a lock that is known here, and whether the word has yet to be told of it.
    pub fn owner(&self, key: Key) -> Option<(&Arc<Task>, bool)> {
        self.locks.get(&key).map(|lock| (&lock.owner, lock.unwritten))
    }

    /// Makes a lock known that `owner` took without the kernel. ESRCH if the owner has ended.
    pub fn attach(&mut self, key: Key, owner: &Arc<Task>) -> Result<()> {
        if owner.pi.fetch_or(INVOLVED, SeqCst) & ENDED != 0 {
            return Err(Errno::ESRCH);
        }
        self.loans.insert((id(owner), ORDINARY, key));
        self.locks.insert(key, Lock { owner: owner.clone(), lends: ORDINARY, unwritten: false });
        Ok(())
    }

    /// Forgets a lock that nobody waits for.
    pub fn detach_if_idle(&mut self, key: Key) {
        if self.first(key).is_none()
            && let Some(lock) = self.locks.get(&key)
            && !lock.unwritten
        {
            let owner = lock.owner.clone();
            self.loans.remove(&(id(&owner), lock.lends, key));
            self.locks.remove(&key);
            self.lend_best(&owner);
        }
    }

    /// EDEADLK if the owner of the lock waits for the task, directly or through others.
    pub fn check_deadlock(&self, task: &Arc<Task>, key: Key) -> Result<()> {
        let mut key = key;
        for _ in 0..MAX_DEPTH {
            let Some(lock) = self.locks.get(&key) else { return Ok(()) };
            if Arc::ptr_eq(&lock.owner, task) {
                return Err(Errno::EDEADLK);
            }
            match self.waits.get(&id(&lock.owner)).and_then(|wait| wait.place) {
                Some((next, ..)) => key = next,
                None => return Ok(()),
            }
        }
        Err(Errno::EDEADLK)
    }

    /// The task waits for a lock that is known here. Without a waker it looks by itself.
    pub fn enqueue(&mut self, task: &Arc<Task>, key: Key, waker: Option<Waker>) {
        task.pi.fetch_or(INVOLVED, SeqCst);
        // See `priority_changed`.
        fence(SeqCst);
        let place = self.next_place(key, task);
        self.queue.insert(place, id(task));
        self.waits.insert(id(task), Wait { task: task.clone(), waker, place: Some(place), key });
        others(key).fetch_add(1, Relaxed);
        self.pass_on(key);
    }

    /// The task owns the lock that it has waited for elsewhere, and has to be told.
    pub fn grant(&mut self, task: &Arc<Task>, key: Key) {
        self.waits.insert(id(task), Wait { task: task.clone(), waker: None, place: None, key });
    }

    fn next_place(&mut self, key: Key, task: &Task) -> Place {
        self.sequence += 1;
        (key, rank(task), self.sequence)
    }

    /// The waiter that is served first.
    pub fn first_waiter(&self, key: Key) -> Option<&Arc<Task>> {
        let (_, id) = self.first(key)?;
        self.waits.get(&id).map(|wait| &wait.task)
    }

    fn first(&self, key: Key) -> Option<(Place, Id)> {
        self.queue.range((key, 0, 0)..=(key, Rank::MAX, u64::MAX)).next().map(|(place, id)| (*place, *id))
    }

    /// Gives a lock to its first waiter, whose waker is answered; forgets it if there is none. `unwritten`: the new owner has
    /// to write its name into the word.
    pub fn hand_over(&mut self, key: Key, unwritten: bool) -> Option<Waker> {
        let Some((place, next)) = self.first(key) else {
            if let Some(lock) = self.locks.get_mut(&key) {
                lock.unwritten = false;
            }
            self.detach_if_idle(key);
            return None;
        };
        self.queue.remove(&place);
        others(key).fetch_sub(1, Relaxed);
        let wait = self.waits.get_mut(&next)?;
        wait.place = None;
        let (waker, owner) = (wait.waker.take(), wait.task.clone());
        let rest = self.first(key).map_or(ORDINARY, |((_, rank, _), _)| rank);
        let lock = self.locks.get_mut(&key)?;
        let before = core::mem::replace(&mut lock.owner, owner.clone());
        self.loans.remove(&(id(&before), lock.lends, key));
        lock.lends = rest;
        lock.unwritten = unwritten;
        self.loans.insert((next, rest, key));
        // The new owner first: who loses priority may be this CPU's running task, and gives way.
        self.lend_best(&owner);
        self.lend_best(&before);
        self.detach_if_idle(key);
        waker
    }

    /// The owner has written its name into the word.
    pub fn written(&mut self, key: Key) {
        if let Some(lock) = self.locks.get_mut(&key) {
            lock.unwritten = false;
        }
        self.detach_if_idle(key);
    }

    /// Gives the owner what its locks lend it. True if that changes its rank.
    fn lend_best(&self, owner: &Arc<Task>) -> bool {
        let loans = self.loans.range((id(owner), 0, Key::MIN)..=(id(owner), Rank::MAX, Key::MAX));
        let best = loans.map(|(_, rank, _)| *rank).next().unwrap_or(ORDINARY);
        let before = rank(owner);
        owner.entity.lend(ORDINARY - best);
        rank(owner) != before
    }

    /// The first waiter of a lock may be another one, or have another rank: passes that on along the chain of owners.
    fn pass_on(&mut self, key: Key) {
        let mut key = key;
        for _ in 0..MAX_DEPTH {
            let first = self.first(key).map_or(ORDINARY, |((_, rank, _), _)| rank);
            let Some(lock) = self.locks.get_mut(&key).filter(|lock| lock.lends != first) else { return };
            let (owner, before) = (lock.owner.clone(), core::mem::replace(&mut lock.lends, first));
            self.loans.remove(&(id(&owner), before, key));
            self.loans.insert((id(&owner), first, key));
            if !self.lend_best(&owner) {
                return;
            }
            match self.requeue(&owner) {
                Some(next) => key = next,
                None => return,
            }
        }
    }

    /// Puts a waiter where its rank belongs now. Answers the lock that it waits for.
    fn requeue(&mut self, task: &Arc<Task>) -> Option<Key> {
        let old = self.waits.get(&id(task))?.place?;
        if old.1 == rank(task) {
            return None;
        }
        let place = self.next_place(old.0, task);
        self.queue.remove(&old);
        self.queue.insert(place, id(task));
        self.waits.get_mut(&id(task))?.place = Some(place);
        Some(old.0)
    }

    /// Whether the task has got its lock; else remembers whom to wake.
    pub fn poll(&mut self, task: &Arc<Task>, waker: &Waker) -> bool {
        match self.waits.get_mut(&id(task)) {
            Some(wait) if wait.place.is_some() => {
                if !wait.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
                    wait.waker = Some(waker.clone());
                }
                false
            }
            _ => true,
        }
    }

    /// The wait of the task is over, one way or the other. Answers what it owns.
    pub fn leave(&mut self, task: &Arc<Task>) -> Option<Owned> {
        let wait = self.waits.remove(&id(task))?;
        let Some(place) = wait.place else {
            let unwritten = self.locks.get(&wait.key).is_some_and(|lock| lock.unwritten);
            return Some(Owned { key: wait.key, unwritten });
        };
        self.queue.remove(&place);
        others(place.0).fetch_sub(1, Relaxed);
        self.pass_on(place.0);
        self.detach_if_idle(place.0);
        None
    }

    pub fn add_traveller(&mut self, place: usize, from: Key, task: &Arc<Task>, to: Key) {
        others(from).fetch_add(1, Relaxed);
        self.travellers.insert(place, (task.clone(), to));
    }

    pub fn remove_traveller(&mut self, place: usize, from: Key) {
        if self.travellers.remove(&place).is_some() {
            others(from).fetch_sub(1, Relaxed);
        }
    }

    /// The task that waits in this place, and the lock that it is to be requeued to.
    pub fn traveller(&self, place: usize) -> Option<&(Arc<Task>, Key)> {
        self.travellers.get(&place)
    }

    pub fn has_waiters(&self, key: Key) -> bool {
        self.first(key).is_some()
    }

    /// Does the task own a lock that is known here?
    pub fn owns_any(&self, task: &Arc<Task>) -> bool {
        self.lock_of(task).is_some()
    }

    /// A lock of the task, if there is one (left).
    fn lock_of(&self, task: &Arc<Task>) -> Option<Key> {
        let loans = self.loans.range((id(task), 0, Key::MIN)..=(id(task), Rank::MAX, Key::MAX));
        loans.map(|(_, _, key)| *key).next()
    }
}

/// A lock that a waiter has got.
#[derive(Clone, Copy)]
pub(super) struct Owned {
    pub key: Key,
    pub unwritten: bool,
}

/// The task gives up its address space. Its locks go to who waits for them; with `ends` it can get no more.
pub fn release_all(task: &Arc<Task>, ends: bool) {
    let flags = if ends { task.pi.fetch_or(ENDED, SeqCst) } else { task.pi.load(SeqCst) };
    if flags & INVOLVED == 0 {
        return;
    }
    loop {
        // One at a time: there may be many.
        let mut graph = lock();
        let Some(key) = graph.lock_of(task) else { return };
        let waker = graph.hand_over(key, true);
        drop(graph);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Nobody waits for such a lock: for tests.
pub fn is_idle() -> bool {
    let graph = lock();
    graph.locks.is_empty()
        && graph.queue.is_empty()
        && graph.loans.is_empty()
        && graph.waits.is_empty()
        && graph.travellers.is_empty()
}

/// The priority of a task was set: it may wait for a lock, whose owner it lends it.
///
/// ```text
/// this CPU                                  the task's (enqueue)
///   priority = new (SeqCst)                   flags |= INVOLVED (SeqCst)
///   flags has no INVOLVED → not waiting       rank, by what the priority is
/// ```
pub fn priority_changed(task: &Arc<Task>) {
    if task.pi.load(SeqCst) & INVOLVED != 0 {
        let mut graph = lock();
        if let Some(key) = graph.requeue(task) {
            graph.pass_on(key);
        }
    }
}
