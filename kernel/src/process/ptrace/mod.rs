//! ptrace(2): one thread, the tracer, sees and decides what becomes of another, the tracee.
//!
//! * [`Trace`] is the bond between the two. The tracee's record has it, and the tracer's record has a list of its tracees
//!   ([`Bonds`]). [`relation`] makes and ends bonds: attaching, clone, exec, the end of either.
//! * A stop is an await in the tracee's own future ([`mod@stop`]): it leaves its registers in the bond as a [`Stop`], tells the
//!   tracer, and takes them back, changed or not, when it is resumed, detached or killed. So a tracer never reaches into a
//!   running thread, and needs no lock that a system call of the tracee would have to take.
//! * [`call()`] is the way of a traced thread's system calls; [`control`] is what tracers do with a stopped thread, [`registers`]
//!   the sets of registers that they read and write; [`report`] is what wait(2) tells them.
//!
//! An untraced thread has [`Task::watch`] 0 and none of this on its way: the test for that is the one for recorded calls.
//!
//! Locks: bonds are made and ended under the lock of `process::table`. Under it come those of a process's threads and signals,
//! then a record's `Bonds::tracees` or `Bonds::trace`, and last the lock inside a bond, which is a leaf: nothing
//! is locked under it, and it is never held while somebody is woken or sent a signal. A tracer and a tracee so never
//! wait for each other's locks, also if they trace each other in a circle.

mod call;
pub mod control;
pub mod registers;
mod relation;
pub mod report;
mod stop;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};

use bitflags::bitflags;

use super::exit::ExitStatus;
use super::task::Task;
use crate::arch::{FpRegs, UserRegs};
use crate::exec::WaitQueue;
use crate::signal::SigInfo;
use crate::sync::SpinLock;

pub use call::call;
pub use relation::{
    attach, detach_all, exists, forget, forget_old_leader, inherit, keep_dead, seize_options, trace_me, unlink,
};
pub use stop::{event, exec_event, exit_event, hurry, job_stop, signal_stop, step_into_handler};

bitflags! {
    /// PTRACE_O_*.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Options: u32 {
        const SYSGOOD = 1;
        const FORK = 1 << 1;
        const VFORK = 1 << 2;
        const CLONE = 1 << 3;
        const EXEC = 1 << 4;
        const VFORK_DONE = 1 << 5;
        const EXIT = 1 << 6;
        /// There are no filters of system calls whose events it could ask for.
        const SECCOMP = 1 << 7;
        const EXITKILL = 1 << 20;
    }
}

/// PTRACE_EVENT_*.
pub mod events {
    pub const FORK: u32 = 1;
    pub const VFORK: u32 = 2;
    pub const CLONE: u32 = 3;
    pub const EXEC: u32 = 4;
    pub const VFORK_DONE: u32 = 5;
    pub const EXIT: u32 = 6;
    pub const STOP: u32 = 128;
}

/// Bits of [`Task::watch`]: its system calls do not take the short way.
pub mod watch {
    /// They are recorded (`syscalls::trace`).
    pub const RECORDED: u8 = 1;
    /// Another thread traces it.
    pub const TRACED: u8 = 2;
    /// It has entered user mode for one instruction. Only the thread itself changes this one.
    pub const STEPS: u8 = 4;
}

/// How a tracee was resumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resume {
    Go,
    /// To the next entry to a system call, or the return from it.
    Syscall,
    /// To the next instruction.
    Step,
    /// To the next entry to a system call, which is not made.
    Emulate,
    EmulateAndStep,
}

impl Resume {
    pub fn steps(self) -> bool {
        matches!(self, Resume::Step | Resume::EmulateAndStep)
    }
}

/// That one thread traces another.
pub struct Trace {
    pub tracer: Arc<Task>,
    /// Bonds are numbered as they are made.
    number: u64,
    /// By PTRACE_SEIZE, or as the child of such a one.
    pub seized: bool,
    /// The tracer had CAP_SYS_PTRACE when it attached.
    pub capable: bool,
    bond: SpinLock<Bond>,
    /// The stopped tracee waits here.
    resumed: WaitQueue,
}

struct Bond {
    options: Options,
    resume: Resume,
    /// There while the tracee is stopped.
    stop: Option<Box<Stop>>,
    /// What wait(2) has not been told of the stop: signal, flags and event.
    report: Option<u32>,
    /// How the tracee has ended, if it was not the first of its process.
    dead: Option<ExitStatus>,
    /// The bond has ended.
    over: bool,
}

/// A stopped tracee. Only its tracer changes it, while it has not been resumed.
pub struct Stop {
    /// si_code of CLD_STOPPED or CLD_TRAPPED is not told apart for tracers; this is for GETSIGINFO.
    pub info: Option<SigInfo>,
    /// PTRACE_GETEVENTMSG.
    pub message: u64,
    pub regs: UserRegs,
    pub fp: FpRegs,
    /// The system call that it is in; -1: in none.
    pub call: i32,
    /// x0 as it was when that was made.
    pub orig_x0: u64,
    fp_changed: bool,
    /// It was resumed by a step.
    stepped: bool,
    /// PTRACE_LISTEN: it stays stopped, and is no longer the tracer's to change.
    listens: bool,
    /// The signal with which it was resumed.
    with: Option<u32>,
}

/// What a thread's record knows of tracing.
#[derive(Default)]
pub struct Bonds {
    /// Who traces it.
    trace: SpinLock<Option<Arc<Trace>>>,
    /// Whom it traces by the number of the bond, those included that have ended and have not been waited for. There may be very
    /// many: one comes and goes without the others being moved, and nobody looks at all of them at once.
    tracees: SpinLock<BTreeMap<u64, Arc<Task>>>,
}

impl Task {
    /// Another thread traces it.
    #[inline]
    pub fn is_traced(&self) -> bool {
        self.watch.load(Ordering::Relaxed) & watch::TRACED != 0
    }

    pub fn trace(&self) -> Option<Arc<Trace>> {
        self.bonds.trace.lock().clone()
    }

    /// It is in a stop of ptrace(2).
    pub fn is_trapped(&self) -> bool {
        self.is_traced() && self.trace().is_some_and(|trace| trace.bond.lock().stop.is_some())
    }

    /// Another process traces it and may not see what it could gain (LSM_UNSAFE_PTRACE without CAP_SYS_PTRACE).
    pub fn is_traced_unsafely(&self) -> bool {
        self.trace().is_some_and(|trace| !trace.capable)
    }
}

impl Trace {
    fn new(tracer: Arc<Task>, seized: bool, capable: bool, options: Options) -> Arc<Trace> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let bond = Bond { options, resume: Resume::Go, stop: None, report: None, dead: None, over: false };
        Arc::new(Trace { tracer, number, seized, capable, bond: SpinLock::new(bond), resumed: WaitQueue::new() })
    }

    fn has(&self, option: Options) -> bool {
        self.bond.lock().options.contains(option)
    }
}
