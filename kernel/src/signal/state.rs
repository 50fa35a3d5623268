//! Signal state of threads and processes.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::info::SigInfo;
use super::queue::Queue;
use super::set::SigSet;
use crate::exec::WaitQueue;
use crate::process::{Process, Task};
use crate::sync::SpinLock;

/// An unblocked signal may be pending.
pub(super) const PENDING: u32 = 1;
/// The thread is to end: SIGKILL, a fatal signal of another thread, exit_group, another thread's exec.
pub(super) const KILLED: u32 = 2;
/// The process is stopping: the thread is to park.
pub(super) const STOP: u32 = 4;
/// See `trap`.
pub(super) const TRAP: u32 = 8;
pub(super) const NOTIFY: u32 = 16;
pub(super) const STEP: u32 = 32;
/// Raised by the thread itself at the end of a system call: it is to end, or the call has been interrupted.
pub(super) const OWN: u32 = 64;

/// The alternate signal stack (sigaltstack(2)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AltStack {
    pub sp: u64,
    /// SS_AUTODISARM, or 0.
    pub flags: u32,
    /// 0: there is none.
    pub size: u64,
}

pub const SS_ONSTACK: u32 = 1;
pub const SS_DISABLE: u32 = 2;
pub const SS_AUTODISARM: u32 = 1 << 31;

impl AltStack {
    /// `sp` is on this stack. One that disarms itself is never said to be in use.
    pub fn contains(&self, sp: u64) -> bool {
        self.flags & SS_AUTODISARM == 0 && sp > self.sp && sp - self.sp <= self.size
    }

    /// ss_flags as sigaltstack(2) answers them to a thread with this stack pointer.
    pub fn flags_at(&self, sp: u64) -> u32 {
        let state = match self.size {
            0 => SS_DISABLE,
            _ if self.contains(sp) => SS_ONSTACK,
            _ => 0,
        };
        state | self.flags
    }
}

/// The signal state of one thread.
pub struct TaskSignals {
    /// PENDING, KILLED, STOP: what a return to user mode and an interruptible wait look at. Set under `local`'s lock.
    flags: AtomicU32,
    local: SpinLock<Local>,
}

/// What the lock of a thread's signals protects. Only the thread itself changes the masks.
pub(super) struct Local {
    pub pending: Queue,
    pub blocked: SigSet,
    /// The mask proper while sigtimedwait has unblocked what it waits for.
    pub real_blocked: Option<SigSet>,
    /// The mask to return to after sigsuspend, ppoll or pselect, once signals have been delivered.
    pub saved: Option<SigSet>,
    pub alt_stack: AltStack,
    /// Stopped by job control. Under the process's signal lock too.
    pub parked: bool,
    /// A tracee that its tracer lets run while its process stops. As `parked`.
    pub excused: bool,
    /// What came for many while the thread makes a child ([`super::fork`]).
    pub for_child: Option<SigSet>,
}

impl Local {
    /// Blocked in the eyes of a sender: also what sigtimedwait waits for.
    pub fn holds_back(&self, signo: u8) -> bool {
        (self.blocked | self.real_blocked.unwrap_or_default()).contains(signo)
    }
}

impl TaskSignals {
    pub fn new() -> Self {
        TaskSignals::with_mask(SigSet::EMPTY, AltStack::default())
    }

    fn with_mask(blocked: SigSet, alt_stack: AltStack) -> Self {
        let local = Local {
            pending: Queue::new(),
            blocked,
            real_blocked: None,
            saved: None,
            alt_stack,
            parked: false,
            excused: false,
            for_child: None,
        };
        TaskSignals { flags: AtomicU32::new(0), local: SpinLock::new(local) }
    }

    /// A new thread's: the same mask, nothing pending. The alternate stack goes along unless the child shares memory
    /// (clone(2)); a vfork child runs alone, so it keeps it.
    pub fn fork(&self, _thread: bool, vm: bool, vfork: bool) -> Self {
        let local = self.local.lock();
        let alt_stack = if vm && !vfork { AltStack::default() } else { local.alt_stack };
        TaskSignals::with_mask(local.blocked, alt_stack)
    }

    /// What exec leaves of a thread's signals: mask and pending ones stay, the alternate stack is gone.
    pub fn after_exec(&self) {
        self.local.lock().alt_stack = AltStack::default();
    }

    pub(super) fn lock(&self) -> crate::sync::SpinGuard<'_, Local> {
        self.local.lock()
    }

    #[inline]
    pub(super) fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    pub(super) fn raise(&self, flags: u32) {
        self.flags.fetch_or(flags, Ordering::Release);
    }

    pub(super) fn clear(&self, flags: u32) {
        self.flags.fetch_and(!flags, Ordering::Release);
    }

    pub fn blocked(&self) -> SigSet {
        self.local.lock().blocked
    }

    /// Pending for this thread alone.
    pub fn pending(&self) -> SigSet {
        self.local.lock().pending.set()
    }

    pub fn alt_stack(&self) -> AltStack {
        self.local.lock().alt_stack
    }

    pub fn set_alt_stack(&self, stack: AltStack) {
        self.local.lock().alt_stack = stack;
    }

    pub(super) fn is_killed(&self) -> bool {
        self.flags() & KILLED != 0
    }
}

impl Default for TaskSignals {
    fn default() -> Self {
        TaskSignals::new()
    }
}

/// Job control (wait(2), "WIFSTOPPED").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Job {
    Running,
    /// Threads are parking because of this signal.
    Stopping(u8),
    /// All threads have parked.
    Stopped(u8),
}

/// The signal state of a process.
pub struct ProcessSignals {
    /// Copy of the set of pending signals, for threads that look whether they have work. Changed under `shared`'s lock,
    /// before the thread that shall take the signal is marked.
    pending: AtomicU64,
    /// Counts SIGCONT and SIGKILL: a stop signal taken from a queue before one of these stops nobody.
    pub(super) continues: AtomicU32,
    /// The first process ignores signals that it has no handler for, until a fault of its own kills it.
    pub(super) mortal: AtomicBool,
    shared: SpinLock<Shared>,
    /// Parked threads wait here.
    pub(super) stop_wait: WaitQueue,
}

pub(super) struct Shared {
    pub pending: Queue,
    pub job: Job,
    /// What wait4 has not been told yet.
    pub stop_report: Option<u8>,
    pub continue_report: bool,
    /// How many threads make children just now.
    pub forks: usize,
}

impl ProcessSignals {
    pub fn new() -> Self {
        let shared =
            Shared { pending: Queue::new(), job: Job::Running, stop_report: None, continue_report: false, forks: 0 };
        ProcessSignals {
            pending: AtomicU64::new(0),
            continues: AtomicU32::new(0),
            mortal: AtomicBool::new(false),
            shared: SpinLock::new(shared),
            stop_wait: WaitQueue::new(),
        }
    }

    pub(super) fn lock(&self) -> crate::sync::SpinGuard<'_, Shared> {
        self.shared.lock()
    }

    /// Pending for any thread of the process.
    #[inline]
    pub fn pending(&self) -> SigSet {
        SigSet(self.pending.load(Ordering::Relaxed))
    }

    /// Publishes the set of pending signals; the lock is held.
    pub(super) fn publish(&self, shared: &Shared) {
        self.pending.store(shared.pending.set().0, Ordering::Release);
    }

    /// Takes a pending signal of `wanted`.
    pub(super) fn pop(&self, wanted: SigSet) -> Option<SigInfo> {
        if (self.pending() & wanted).is_empty() {
            return None;
        }
        let mut shared = self.lock();
        let info = shared.pending.pop(wanted);
        self.publish(&shared);
        info
    }

    /// All threads are stopped by job control.
    pub fn is_stopped(&self) -> bool {
        matches!(self.lock().job, Job::Stopped(_))
    }

    /// The signal that stopped the process, if it has not been reported; `consume` makes it reported.
    pub fn stopped_report(&self, consume: bool) -> Option<u8> {
        let mut shared = self.lock();
        if consume { shared.stop_report.take() } else { shared.stop_report }
    }

    /// The process was continued and that has not been reported.
    pub fn continued_report(&self, consume: bool) -> bool {
        let mut shared = self.lock();
        let report = shared.continue_report;
        shared.continue_report &= !consume;
        report
    }
}

impl Default for ProcessSignals {
    fn default() -> Self {
        ProcessSignals::new()
    }
}

impl Process {
    /// The first process, as long as it is protected (kill(2), NOTES).
    pub(super) fn is_protected(&self) -> bool {
        self.pid == 1 && !self.sig.mortal.load(Ordering::Relaxed)
    }
}

impl Task {
    /// Recomputes PENDING. A sender changes the set of pending signals first and marks threads under their lock after
    /// that, so one of the two sees the other's change.
    pub(super) fn update_pending(&self, local: &Local) {
        let pending = local.pending.set() | self.process().sig.pending();
        if pending.without(local.blocked).is_empty() {
            self.sig.clear(PENDING);
        } else {
            self.sig.raise(PENDING);
        }
    }
}
