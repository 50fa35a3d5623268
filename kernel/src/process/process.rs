//! `Process`: a thread group, and what its threads always share.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};

use arrayvec::ArrayVec;

use super::ExitStatus;
use super::creds::{Caps, Credentials};
use super::io::IoUsage;
use super::limits::{Limit, Limits, Resource};
use super::ptrace::Trace;
use super::session::Session;
use super::table::{Pid, TURN};
use super::task::{Task, Thread};
use crate::errno::{Errno, Result};
use crate::exec::{Instant, WaitQueue};
use crate::fs::path::Path;
use crate::mm::{AddressSpace, PAGE_SIZE};
use crate::signal::{ProcessSignals, SigHandlers};
use crate::sync::{RwSpinLock, SpinLock};

/// CPU time and faults of something that ran, nanoseconds and counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub utime: u64,
    pub stime: u64,
    pub min_faults: u64,
    pub maj_faults: u64,
    pub nvcsw: u64,
    pub nivcsw: u64,
    /// Peak resident set, KiB.
    pub max_rss: u64,
}

impl Usage {
    pub fn add(&mut self, other: &Usage) {
        self.utime += other.utime;
        self.stime += other.stime;
        self.min_faults += other.min_faults;
        self.maj_faults += other.maj_faults;
        self.nvcsw += other.nvcsw;
        self.nivcsw += other.nivcsw;
        self.max_rss = self.max_rss.max(other.max_rss);
    }

    /// `struct rusage` of getrusage(2) as 64-bit words.
    pub fn to_rusage(&self) -> [u64; 18] {
        const SECOND: u64 = 1_000_000_000;
        let mut words = [0; 18];
        words[0] = self.utime / SECOND;
        words[1] = self.utime % SECOND / 1000;
        words[2] = self.stime / SECOND;
        words[3] = self.stime % SECOND / 1000;
        words[4] = self.max_rss;
        words[8] = self.min_faults;
        words[9] = self.maj_faults;
        words[16] = self.nvcsw;
        words[17] = self.nivcsw;
        words
    }
}

/// A thread group. Parent, children, process group and session are relations, kept in [`super::table`] under its lock.
pub struct Process {
    pub pid: Pid,
    /// The parent's pid as getppid answers it (copy of the table's relation).
    pub ppid: AtomicU32,
    /// The parent's thread that made it (__WNOTHREAD); when that has ended, the first one counts as its maker.
    pub creator: AtomicU32,
    pub pgid: AtomicU32,
    /// Its place among the members of the group.
    pub(super) group_place: AtomicU64,
    /// The first such place it had.
    pub(super) born: AtomicU64,
    pub session: RwSpinLock<Arc<Session>>,
    pub threads: SpinLock<Vec<Arc<Task>>>,
    pub sig: ProcessSignals,
    pub handlers: RwSpinLock<Arc<SigHandlers>>,
    pub limits: Limits,
    /// Signal sent to the parent at exit; 0 = none (clone's exit_signal), SIGCHLD after exec.
    pub exit_signal: AtomicU32,
    /// Woken when a child changes state.
    pub child_wait: WaitQueue,
    /// Woken when this process becomes a zombie (pidfd), when a thread leaves (exec waits for that), and when `gains_rights`
    /// has come to 0.
    pub exit_wait: WaitQueue,
    /// Set once: the status all threads end with (exit_group, fatal signal).
    pub group_exit: SpinLock<Option<ExitStatus>>,
    pub state: SpinLock<State>,
    /// How many signals of this process's end are still on their way to its parent. wait may report it when there are none: who
    /// has waited has the signal. Counted up under the table's lock.
    pub announcements: AtomicU32,
    /// Whose the process was, for a zombie: the credentials of its last thread.
    pub last_creds: SpinLock<Option<Arc<Credentials>>>,
    /// The name of the first thread, when that has ended.
    pub last_comm: SpinLock<[u8; 16]>,
    /// That the first thread is traced, as long as that, or what is left of it, is.
    pub leader_trace: SpinLock<Option<Arc<Trace>>>,
    /// How many tracees its threads have.
    pub tracees: AtomicU32,
    /// Since when its memory has been wanted, nanoseconds since boot, and no thread of it has stopped for its tracer before
    /// its end; 0: it is not.
    pub hurries: AtomicU64,
    /// How many threads of it load a program that has more rights than it had: who attaches to it waits for them.
    pub gains_rights: AtomicU32,
    /// Usage of threads that have ended, and of children that were waited for.
    pub dead_threads: SpinLock<Usage>,
    pub(super) dead_io: SpinLock<IoUsage>,
    pub reaped_children: SpinLock<Usage>,
    pub exe: SpinLock<Option<Path>>,
    pub start: Instant,
    /// Has called execve since fork (setpgid's EACCES).
    pub did_exec: AtomicBool,
    pub child_subreaper: AtomicBool,
    pub dumpable: AtomicU32,
    pub oom_score_adj: AtomicI32,
    /// ITIMER_* state and POSIX timers are kept by `time`.
    pub timers: crate::time::ProcessTimers,
    pub read_bytes: AtomicU64,
    pub write_bytes: AtomicU64,
    /// An unknown system call of this program was logged already.
    pub warned_enosys: AtomicBool,
}

/// Life of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Running,
    /// All threads have ended; the status waits for the parent.
    Zombie(ExitStatus),
    /// Waited for.
    Dead,
}

/// What is decided about a process when it is made.
pub struct NewProcess {
    pub pid: Pid,
    pub creator: Pid,
    pub pgid: Pid,
    pub session: Arc<Session>,
    pub handlers: Arc<SigHandlers>,
    pub limits: Limits,
    pub exit_signal: u32,
}

impl Process {
    pub fn new(new: NewProcess) -> Arc<Process> {
        Arc::new(Process {
            pid: new.pid,
            ppid: AtomicU32::new(0),
            creator: AtomicU32::new(new.creator),
            pgid: AtomicU32::new(new.pgid),
            group_place: AtomicU64::new(0),
            born: AtomicU64::new(0),
            session: RwSpinLock::new(new.session),
            threads: SpinLock::new(Vec::new()),
            sig: ProcessSignals::new(),
            handlers: RwSpinLock::new(new.handlers),
            limits: new.limits,
            exit_signal: AtomicU32::new(new.exit_signal),
            child_wait: WaitQueue::new(),
            exit_wait: WaitQueue::new(),
            group_exit: SpinLock::new(None),
            state: SpinLock::new(State::Running),
            announcements: AtomicU32::new(0),
            last_creds: SpinLock::new(None),
            last_comm: SpinLock::new([0; 16]),
            leader_trace: SpinLock::new(None),
            tracees: AtomicU32::new(0),
            hurries: AtomicU64::new(0),
            gains_rights: AtomicU32::new(0),
            dead_threads: SpinLock::new(Usage::default()),
            dead_io: SpinLock::new(IoUsage::default()),
            reaped_children: SpinLock::new(Usage::default()),
            exe: SpinLock::new(None),
            start: Instant::now(),
            did_exec: AtomicBool::new(false),
            child_subreaper: AtomicBool::new(false),
            dumpable: AtomicU32::new(1),
            oom_score_adj: AtomicI32::new(0),
            timers: Default::default(),
            read_bytes: AtomicU64::new(0),
            write_bytes: AtomicU64::new(0),
            warned_enosys: AtomicBool::new(false),
        })
    }

    /// What fork copies besides the handles.
    pub fn inherit(&self, parent: &Process) {
        *self.exe.lock() = parent.exe.lock().clone();
        self.dumpable.store(parent.dumpable.load(Ordering::Relaxed), Ordering::Relaxed);
        self.oom_score_adj.store(parent.oom_score_adj.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Notes how large an address space has been that the process gives up.
    pub fn remember_peak(&self, mm: &AddressSpace) {
        let peak = mm.stats().resident_peak * (PAGE_SIZE as u64 / 1024);
        let mut usage = self.dead_threads.lock();
        usage.max_rss = usage.max_rss.max(peak);
    }

    /// Tells those who obey a limit without asking for it each time.
    pub fn publish_limit(self: &Arc<Self>, resource: Resource, limit: Limit) {
        for mm in self.tasks().filter_map(|task| task.handles().mm) {
            self.limits.publish_to(&mm.limits);
        }
        if resource == Resource::Cpu {
            crate::time::limit_cpu(self, limit);
        }
        if resource == Resource::Nofile {
            for files in self.tasks().filter_map(|task| task.handles().files) {
                files.set_limit(limit.soft);
            }
        }
    }

    /// The group is ending: no new threads.
    pub fn is_dying(&self) -> bool {
        self.group_exit.lock().is_some()
    }

    /// Logs the first unknown system call of each program.
    pub fn log_unknown_syscall(&self, task: &Task, number: u64) {
        if !self.warned_enosys.load(Ordering::Relaxed) && !self.warned_enosys.swap(true, Ordering::Relaxed) {
            warn_unknown_syscall(task, number);
        }
    }

    /// The thread whose id is the process id, while it lives.
    pub fn leader(&self) -> Option<Arc<Task>> {
        self.threads.lock().iter().find(|task| task.is_leader()).cloned()
    }

    /// Any living thread, the leader first.
    pub fn any_thread(&self) -> Option<Arc<Task>> {
        let threads = self.threads.lock();
        threads.iter().find(|task| task.is_leader()).or(threads.first()).cloned()
    }

    /// The threads, the last one first. There may be very many, and no memory: some at a time. New ones do not come; one may
    /// come twice if another ends meanwhile.
    pub fn tasks(&self) -> impl Iterator<Item = Arc<Task>> {
        let mut turn = ArrayVec::<Arc<Task>, TURN>::new();
        let mut left = usize::MAX;
        core::iter::from_fn(move || {
            if turn.is_empty() {
                // One that goes leaves its place to one that comes after it: those before `left` stay before it.
                let threads = self.threads.lock();
                left = left.min(threads.len());
                let first = left.saturating_sub(TURN);
                turn.extend(threads[first..left].iter().cloned());
                left = first;
            }
            turn.pop()
        })
    }

    /// How many threads live.
    pub fn thread_count(&self) -> usize {
        self.threads.lock().len()
    }

    /// The credentials of any thread, the leader's first, or what a zombie has left of them.
    pub fn creds(&self) -> Option<Arc<Credentials>> {
        self.any_thread().map(|task| task.shared_creds()).or_else(|| self.last_creds.lock().clone())
    }

    /// The real user, as si_uid tells a parent.
    pub fn uid(&self) -> u32 {
        self.creds().map_or(0, |creds| creds.uid)
    }

    pub fn is_zombie(&self) -> bool {
        matches!(*self.state.lock(), State::Zombie(_))
    }

    /// Usage of all threads, living and dead.
    pub fn usage(&self) -> Usage {
        // A thread changes from one to the other under the lock of the list.
        let threads = self.threads.lock();
        let mut usage = *self.dead_threads.lock();
        for task in threads.iter() {
            usage.add(&task.usage());
        }
        usage
    }
}

/// EPERM unless `t`, with its file-system ids or with the real ones, may look into `target` and change it (ptrace(2),
/// "Ptrace access mode checking").
pub fn may_trace(t: &Thread, target: &Arc<Process>, by_fs_ids: bool) -> Result<()> {
    may_trace_as(t.process(), t.creds(), target, by_fs_ids)
}

/// The same for a process with these credentials.
pub fn may_trace_as(by: &Arc<Process>, own: &Credentials, target: &Arc<Process>, by_fs_ids: bool) -> Result<()> {
    if Arc::ptr_eq(by, target) || own.capable(Caps::SYS_PTRACE) {
        return Ok(());
    }
    let theirs = target.creds().ok_or(Errno::ESRCH)?;
    let (uid, gid) = if by_fs_ids { (own.fsuid, own.fsgid) } else { (own.uid, own.gid) };
    let same_user = [theirs.euid, theirs.suid, theirs.uid].iter().all(|id| *id == uid);
    let same_group = [theirs.egid, theirs.sgid, theirs.gid].iter().all(|id| *id == gid);
    let dumpable = target.dumpable.load(Ordering::Relaxed) == 1;
    // Without a capability for it, only who has all that the other has.
    let stronger = own.cap_permitted.contains(theirs.cap_permitted);
    if same_user && same_group && dumpable && stronger { Ok(()) } else { Err(Errno::EPERM) }
}

impl Task {
    pub fn usage(&self) -> Usage {
        use core::sync::atomic::Ordering::Relaxed;
        let entity = &self.entity;
        let (utime, stime) = entity.times_ns();
        Usage {
            utime,
            stime,
            min_faults: self.min_faults.load(Relaxed),
            maj_faults: self.maj_faults.load(Relaxed),
            nvcsw: entity.nvcsw(),
            nivcsw: entity.nivcsw(),
            max_rss: 0,
        }
    }
}

#[cold]
#[inline(never)]
fn warn_unknown_syscall(task: &Task, number: u64) {
    let comm = task.comm();
    let len = comm.iter().position(|b| *b == 0).unwrap_or(comm.len());
    let name = alloc::string::String::from_utf8_lossy(&comm[..len]).into_owned();
    log::warn!("{name}[{}]: system call {number} is not implemented", task.tid());
}
