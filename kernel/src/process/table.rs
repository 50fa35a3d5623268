//! Who exists, and who belongs to whom: ids, parents, children, process groups, sessions. One lock for all of it;
//! it is taken by fork, exit, wait and the calls that change or walk these relations, never on other paths.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicU32, Ordering};

use arrayvec::ArrayVec;

use super::process::Process;
use super::task::Task;
use super::walks::{Overtaken, Walks};
use crate::errno::{Errno, Result};
use crate::sync::{SpinGuard, SpinLock};

/// A process, thread, process-group or session id. Never 0.
pub type Pid = u32;

/// Ids are below: what /proc/sys/kernel/pid_max may be at most on 64-bit machines.
pub const PID_LIMIT: Pid = 4_194_304;
/// How many processes or threads are looked at without letting go of the lock.
pub(super) const TURN: usize = 32;
/// Ids that may be given again from when the greatest was reached.
const FIRST_AGAIN: Pid = 300;

/// /proc/sys/kernel/pid_max: new ids are below.
static PID_MAX: AtomicU32 = AtomicU32::new(PID_LIMIT);

pub fn pid_max() -> Pid {
    PID_MAX.load(Ordering::Relaxed)
}

/// EINVAL for what leaves too few ids, or is more than there are.
pub fn set_pid_max(max: i64) -> Result<()> {
    let range = i64::from(FIRST_AGAIN) + 1..=i64::from(PID_LIMIT);
    let max = Some(max).filter(|max| range.contains(max)).ok_or(Errno::EINVAL)?;
    PID_MAX.store(max as Pid, Ordering::Relaxed);
    Ok(())
}

pub(super) struct Node {
    pub(super) process: Arc<Process>,
    parent: Pid,
    children: BTreeSet<Pid>,
}

#[derive(Default)]
pub struct Table {
    pub(super) nodes: BTreeMap<Pid, Node>,
    tasks: BTreeMap<Pid, Arc<Task>>,
    /// Members of each process group, zombies included, in the order in which they have come: who goes through a group meets
    /// those that come meanwhile, whatever their pids are.
    pub(super) groups: BTreeMap<Pid, BTreeMap<u64, Pid>>,
    /// The greatest place that was given in any group.
    pub(super) last_place: u64,
    /// Signals that are on their way to many.
    pub(super) walks: Walks,
    pub(super) last_walk: u64,
    /// Number of processes in each session.
    sessions: BTreeMap<Pid, usize>,
    /// Threads that have ended and keep their ids until their tracers have waited for them.
    dead_tracees: BTreeMap<Pid, Arc<Task>>,
    /// How many of all these threads each real user has.
    users: BTreeMap<u32, usize>,
    last_pid: Pid,
}

static TABLE: SpinLock<Table> = SpinLock::new(Table {
    nodes: BTreeMap::new(),
    tasks: BTreeMap::new(),
    groups: BTreeMap::new(),
    last_place: 0,
    walks: Walks::new_const(),
    last_walk: 0,
    sessions: BTreeMap::new(),
    dead_tracees: BTreeMap::new(),
    users: BTreeMap::new(),
    last_pid: 0,
});

/// Locks the relations.
pub fn lock() -> SpinGuard<'static, Table> {
    TABLE.lock()
}

/// The process with this pid, zombies included.
pub fn find(pid: Pid) -> Option<Arc<Process>> {
    lock().process(pid).cloned()
}

/// The living thread with this tid.
pub fn find_task(tid: Pid) -> Option<Arc<Task>> {
    lock().tasks.get(&tid).cloned()
}

/// Does anybody belong to this process group?
pub fn group_exists(pgid: Pid) -> bool {
    lock().group_exists(pgid)
}

/// All processes by pid, zombies included. There may be very many, and no memory: some at a time, so those that come and go
/// meanwhile may be among them or not.
pub fn processes() -> impl Iterator<Item = Arc<Process>> {
    in_turns(|table, from| {
        let from = Pid::try_from(from).unwrap_or(PID_LIMIT);
        table.nodes.range(from..).take(TURN).map(|(pid, node)| ((*pid).into(), node.process.clone())).collect()
    })
}

/// All living threads by tid, in the same way.
pub fn tasks() -> impl Iterator<Item = Arc<Task>> {
    in_turns(|table, from| {
        let from = Pid::try_from(from).unwrap_or(PID_LIMIT);
        table.tasks.range(from..).take(TURN).map(|(tid, task)| ((*tid).into(), task.clone())).collect()
    })
}

/// Members of a process group in the order in which they have come, zombies included, in the same way. A child that one makes
/// meanwhile is among them.
pub fn members(pgid: Pid) -> impl Iterator<Item = Arc<Process>> {
    in_turns(move |table, from| {
        let members = table.groups.get(&pgid).into_iter().flat_map(|members| members.range(from..));
        members.filter_map(|(place, pid)| Some((*place, table.process(*pid)?.clone()))).take(TURN).collect()
    })
}

type Turn<T> = ArrayVec<(u64, Arc<T>), TURN>;

/// What `fetch` finds with ids, or places, from the given one on, in their order.
fn in_turns<T>(fetch: impl Fn(&Table, u64) -> Turn<T>) -> impl Iterator<Item = Arc<T>> {
    let mut turn = Turn::new();
    let mut next = 0;
    core::iter::from_fn(move || {
        if turn.is_empty() {
            turn = fetch(&lock(), next);
            next = turn.last()?.0 + 1;
            turn.reverse();
        }
        turn.pop().map(|(_, found)| found)
    })
}

/// How many processes there are.
pub fn process_count() -> usize {
    lock().nodes.len()
}

/// All living threads.
pub fn thread_count() -> usize {
    lock().thread_count()
}

/// Threads whose real user is `uid`, living or kept for their tracers (RLIMIT_NPROC).
pub fn threads_of_user(uid: u32) -> usize {
    lock().users.get(&uid).copied().unwrap_or(0)
}

/// A thread with an id is another real user's from now on: `set` makes it so.
pub fn move_to_user(old: u32, new: u32, set: impl FnOnce()) {
    let mut table = lock();
    set();
    table.lose(old);
    *table.users.entry(new).or_default() += 1;
}

/// Is nobody left to continue the group, of which somebody has stopped? Not `ends`, who is about to leave. Some members at a
/// time.
pub fn is_left_stopped(pgid: Pid, ends: Pid) -> bool {
    let mut stopped = false;
    let mut next = 0;
    loop {
        let table = lock();
        let members = table.groups.get(&pgid).into_iter().flat_map(|members| members.range(next..)).take(TURN);
        let mut last = None;
        for (place, pid) in members {
            last = Some(*place);
            let Some(member) = table.process(*pid).filter(|member| member.pid != ends) else { continue };
            if table.is_linked(member, pgid) {
                return false;
            }
            stopped |= member.sig.is_stopped();
        }
        match last {
            Some(last) => next = last + 1,
            None => return stopped,
        }
    }
}

/// The pid handed out last (/proc/loadavg).
pub fn last_pid() -> Pid {
    lock().last_pid
}

impl Table {
    pub fn process(&self, pid: Pid) -> Option<&Arc<Process>> {
        self.nodes.get(&pid).map(|node| &node.process)
    }

    /// The living thread with this tid.
    pub fn task(&self, tid: Pid) -> Option<&Arc<Task>> {
        self.tasks.get(&tid)
    }

    pub fn thread_count(&self) -> usize {
        self.tasks.len()
    }

    /// Next free id. An id is taken while a thread, process, group or session bears it.
    pub fn allocate_pid(&mut self) -> Result<Pid> {
        let max = pid_max();
        for _ in 0..max {
            self.last_pid = if self.last_pid >= max - 1 { FIRST_AGAIN } else { self.last_pid + 1 };
            let id = self.last_pid;
            if !self.is_taken(id) {
                return Ok(id);
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Takes the id that somebody has chosen (clone3's set_tid).
    pub fn choose_pid(&self, id: Pid) -> Result<Pid> {
        if self.is_taken(id) { Err(Errno::EEXIST) } else { Ok(id) }
    }

    /// Does a thread, process, group or session bear this id?
    pub fn is_taken(&self, id: Pid) -> bool {
        self.nodes.contains_key(&id)
            || self.tasks.contains_key(&id)
            || self.groups.contains_key(&id)
            || self.sessions.contains_key(&id)
            || self.dead_tracees.contains_key(&id)
    }

    pub fn add_process(&mut self, process: Arc<Process>, parent: Pid) {
        let pid = process.pid;
        let pgid = process.pgid.load(Ordering::Relaxed);
        let sid = process.session.read().sid;
        process.ppid.store(parent, Ordering::Relaxed);
        self.join_group(&process, pgid);
        process.born.store(self.last_place, Ordering::Relaxed);
        *self.sessions.entry(sid).or_default() += 1;
        if let Some(node) = self.nodes.get_mut(&parent) {
            node.children.insert(pid);
        }
        self.nodes.insert(pid, Node { process, parent, children: BTreeSet::new() });
    }

    pub fn add_task(&mut self, task: Arc<Task>) {
        *self.users.entry(task.shared_creds().uid).or_default() += 1;
        self.tasks.insert(task.tid(), task);
    }

    pub fn remove_task(&mut self, tid: Pid) -> Option<Arc<Task>> {
        let task = self.tasks.remove(&tid)?;
        self.lose(task.shared_creds().uid);
        Some(task)
    }

    pub fn add_dead_tracee(&mut self, task: Arc<Task>) {
        *self.users.entry(task.shared_creds().uid).or_default() += 1;
        self.dead_tracees.insert(task.tid(), task);
    }

    pub fn remove_dead_tracee(&mut self, tid: Pid) -> Option<Arc<Task>> {
        let task = self.dead_tracees.remove(&tid)?;
        self.lose(task.shared_creds().uid);
        Some(task)
    }

    /// A user has a thread less.
    fn lose(&mut self, uid: u32) {
        if let Some(count) = self.users.get_mut(&uid) {
            *count -= 1;
            if *count == 0 {
                self.users.remove(&uid);
            }
        }
    }

    /// A thread that has ended, of which its tracer has not been told.
    pub fn dead_tracee(&self, tid: Pid) -> Option<&Arc<Task>> {
        self.dead_tracees.get(&tid)
    }

    /// Forgets a zombie that was waited for.
    pub fn remove_process(&mut self, pid: Pid) -> Option<Arc<Process>> {
        let node = self.nodes.remove(&pid)?;
        if let Some(parent) = self.nodes.get_mut(&node.parent) {
            parent.children.remove(&pid);
        }
        self.leave_group(&node.process, node.process.pgid.load(Ordering::Relaxed));
        self.leave_session(node.process.session.read().sid);
        Some(node.process)
    }

    fn join_group(&mut self, process: &Process, pgid: Pid) {
        self.last_place += 1;
        process.group_place.store(self.last_place, Ordering::Relaxed);
        self.groups.entry(pgid).or_default().insert(self.last_place, process.pid);
    }

    fn leave_group(&mut self, process: &Process, pgid: Pid) {
        if let Some(members) = self.groups.get_mut(&pgid) {
            members.remove(&process.group_place.load(Ordering::Relaxed));
            if members.is_empty() {
                self.groups.remove(&pgid);
            }
        }
    }

    fn leave_session(&mut self, sid: Pid) {
        if let Some(count) = self.sessions.get_mut(&sid) {
            *count -= 1;
            if *count == 0 {
                self.sessions.remove(&sid);
            }
        }
    }

    pub fn parent(&self, pid: Pid) -> Option<&Arc<Process>> {
        self.process(self.nodes.get(&pid)?.parent)
    }

    /// Children in order of pid.
    pub fn children(&self, pid: Pid) -> impl Iterator<Item = &Arc<Process>> {
        self.children_in(pid, 0..=PID_LIMIT)
    }

    /// Those whose pids are in this range.
    pub fn children_in(&self, pid: Pid, range: RangeInclusive<Pid>) -> impl Iterator<Item = &Arc<Process>> {
        let children = self.nodes.get(&pid).map(|node| node.children.range(range));
        children.into_iter().flatten().filter_map(|pid| self.process(*pid))
    }

    /// Moves some children of `from`, the last ones first, to `to`.
    pub(super) fn reparent_some(&mut self, from: Pid, to: Pid) -> ArrayVec<Arc<Process>, TURN> {
        let next = || {
            let pid = self.nodes.get_mut(&from)?.children.pop_last()?;
            if let Some(new_parent) = self.nodes.get_mut(&to) {
                new_parent.children.insert(pid);
            }
            let child = self.nodes.get_mut(&pid)?;
            child.parent = to;
            child.process.ppid.store(to, Ordering::Relaxed);
            Some(child.process.clone())
        };
        core::iter::from_fn(next).take(TURN).collect()
    }

    /// Members of a process group, zombies included.
    pub fn group(&self, pgid: Pid) -> impl Iterator<Item = &Arc<Process>> {
        let members = self.groups.get(&pgid).into_iter().flat_map(BTreeMap::values);
        members.filter_map(|pid| self.process(*pid))
    }

    pub fn group_exists(&self, pgid: Pid) -> bool {
        self.groups.contains_key(&pgid)
    }

    pub fn set_group<'a>(&mut self, process: &'a Arc<Process>, pgid: Pid) -> Overtaken<'a> {
        let old = process.pgid.load(Ordering::Relaxed);
        if old == pgid {
            return Overtaken::default();
        }
        let overtaken = self.catch_up(process);
        process.pgid.store(pgid, Ordering::Relaxed);
        self.leave_group(process, old);
        self.join_group(process, pgid);
        overtaken
    }

    /// Makes `process` the leader of a new session and group (setsid(2)).
    pub fn set_session(&mut self, process: &Process, session: Arc<super::Session>) {
        *self.sessions.entry(session.sid).or_default() += 1;
        let old = core::mem::replace(&mut *process.session.write(), session);
        self.leave_session(old.sid);
    }

    /// A group is orphaned when no member has a parent in another group of the same session (POSIX 3.264).
    pub fn is_orphaned_group(&self, pgid: Pid) -> bool {
        !self.group(pgid).any(|member| self.is_linked(member, pgid))
    }

    fn is_linked(&self, member: &Process, pgid: Pid) -> bool {
        let Some(parent) = self.parent(member.pid).filter(|_| !member.is_zombie()) else { return false };
        parent.pid != 1
            && parent.pgid.load(Ordering::Relaxed) != pgid
            && parent.session.read().sid == member.session.read().sid
    }
}
