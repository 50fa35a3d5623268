//! `Task`: what the rest of the system may know and ask of a user thread. `Thread`: the thread's own part, owned by
//! its future. The split is what makes the system-call path free of locks: a thread reaches its own address space,
//! descriptors and registers through `&mut Thread`, and nobody else can.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Deref;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::creds::Credentials;
use super::exit::VforkDone;
use super::fp::FpSlot;
use super::io::IoCounts;
use super::limits::{Limit, Resource};
use super::process::Process;
use super::ptrace::Bonds;
use super::table::{self, Pid};
use crate::arch::{FpRegs, UserRegs};
use crate::exec::{Entity, Instant, Interrupts};
use crate::fs::poll::Spare;
use crate::fs::{FdTable, FsContext};
use crate::io_uring::TaskRings;
use crate::ipc::sem::UndoSlot;
use crate::mm::AddressSpace;
use crate::signal::{Restart, RestartBlock, TaskSignals};
use crate::sync::{SpinGuard, SpinLock};

/// The shared handles of a thread, as others see them (/proc, ptrace). The thread's own copies are in [`Thread`].
#[derive(Clone)]
pub struct Handles {
    pub mm: Option<Arc<AddressSpace>>,
    pub files: Option<Arc<FdTable>>,
    pub fs: Option<Arc<FsContext>>,
    pub creds: Arc<Credentials>,
}

/// The public record of a user thread.
pub struct Task {
    /// The thread id. Changes once at most: a thread other than the leader that calls execve takes the leader's.
    tid: AtomicU32,
    process: Arc<Process>,
    pub entity: Arc<Entity>,
    /// Pending signals and mask.
    pub sig: TaskSignals,
    handles: SpinLock<Handles>,
    comm: SpinLock<[u8; 16]>,
    pub start: Instant,
    /// set_tid_address(2): where to write 0 and wake at exit; 0 = nowhere.
    pub clear_child_tid: AtomicU64,
    /// set_robust_list(2).
    pub robust_list: AtomicU64,
    /// What operations on semaphores are undone at exit (CLONE_SYSVSEM).
    pub sem_undo: UndoSlot,
    /// Where it is in the list of its process's threads, whose lock guards it.
    place: AtomicU32,
    /// Whether it has to do with futexes that lend priorities: flags of `futex::pi`.
    pub pi: AtomicU8,
    /// The parent that waits for this thread's exec or exit (CLONE_VFORK).
    pub vfork: SpinLock<Option<Arc<VforkDone>>>,
    /// prctl(PR_SET_PDEATHSIG); 0 = none.
    pub parent_death_signal: AtomicU32,
    /// SCHED_RESET_ON_FORK: children are scheduled as usual.
    pub reset_on_fork: AtomicBool,
    /// ioprio_set(2); shared after clone with CLONE_IO. None: nobody has set it.
    pub io_priority: SpinLock<Option<Arc<AtomicU16>>>,
    /// personality(2), which is each thread's own.
    pub personality: AtomicU32,
    /// prctl(PR_SET_TIMERSLACK), nanoseconds; reported, not used: timers here are exact.
    pub timer_slack: AtomicU64,
    /// What PR_SET_TIMERSLACK of 0 sets: what the maker of this thread had.
    pub default_timer_slack: AtomicU64,
    /// The wait that the last poll ended in looks for signals: S and not D in /proc/PID/stat.
    pub interruptible: AtomicBool,
    pub exited: AtomicBool,
    /// It gives up what it has, and waits no more for pages that a program is to bring.
    pub leaving: AtomicBool,
    /// Somebody watches its system calls: bits of [`super::ptrace::watch`].
    pub watch: AtomicU8,
    /// Who traces it, and whom it traces.
    pub(super) bonds: Bonds,
    /// It brings a page in that it has touched.
    pub faulting: AtomicBool,
    /// Where its registers are while it lives: see `run::look_at`.
    pub(super) registers: AtomicPtr<UserRegs>,
    /// The rings of io_uring that it uses.
    pub rings: SpinLock<Option<Box<TaskRings>>>,
    pub min_faults: AtomicU64,
    pub maj_faults: AtomicU64,
    pub io: IoCounts,
    fp: FpSlot,
}

impl Task {
    pub fn new(
        tid: Pid,
        process: Arc<Process>,
        entity: Arc<Entity>,
        sig: TaskSignals,
        handles: Handles,
        comm: [u8; 16],
        fp: FpRegs,
    ) -> Arc<Task> {
        Arc::new(Task {
            tid: AtomicU32::new(tid),
            process,
            entity,
            sig,
            handles: SpinLock::new(handles),
            comm: SpinLock::new(comm),
            start: Instant::now(),
            clear_child_tid: AtomicU64::new(0),
            robust_list: AtomicU64::new(0),
            sem_undo: UndoSlot::default(),
            place: AtomicU32::new(0),
            pi: AtomicU8::new(0),
            vfork: SpinLock::new(None),
            parent_death_signal: AtomicU32::new(0),
            reset_on_fork: AtomicBool::new(false),
            io_priority: SpinLock::new(None),
            personality: AtomicU32::new(0),
            timer_slack: AtomicU64::new(50_000),
            default_timer_slack: AtomicU64::new(50_000),
            interruptible: AtomicBool::new(false),
            exited: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            watch: AtomicU8::new(0),
            bonds: Bonds::default(),
            faulting: AtomicBool::new(false),
            registers: AtomicPtr::default(),
            rings: SpinLock::new(None),
            min_faults: AtomicU64::new(0),
            maj_faults: AtomicU64::new(0),
            io: IoCounts::default(),
            fp: FpSlot::new(fp),
        })
    }

    pub fn tid(&self) -> Pid {
        self.tid.load(Ordering::Relaxed)
    }

    pub fn set_tid(&self, tid: Pid) {
        self.tid.store(tid, Ordering::Relaxed)
    }

    /// Puts it into the list of its process's threads.
    pub fn join(self: &Arc<Self>, threads: &mut Vec<Arc<Task>>) {
        self.place.store(threads.len() as u32, Ordering::Relaxed);
        threads.push(self.clone());
    }

    /// Takes it out of the list, in which another one may change its place: there may be very many.
    pub fn part(&self, threads: &mut Vec<Arc<Task>>) {
        let place = self.place.load(Ordering::Relaxed) as usize;
        if threads.get(place).is_some_and(|task| ptr::eq(&**task, self)) {
            // Not the last reference: the caller has one.
            drop(threads.swap_remove(place));
            if let Some(moved) = threads.get(place) {
                moved.place.store(place as u32, Ordering::Relaxed);
            }
        }
    }

    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// The saved FP registers; see [`super::fp`] for when they are current.
    pub(super) fn fp_slot(&self) -> &FpSlot {
        &self.fp
    }

    pub fn is_leader(&self) -> bool {
        self.tid() == self.process.pid
    }

    /// The handles as last published.
    pub fn handles(&self) -> Handles {
        self.handles.lock().clone()
    }

    pub(super) fn lock_handles(&self) -> SpinGuard<'_, Handles> {
        self.handles.lock()
    }

    /// Makes the thread's address space current on this CPU, if it has one.
    pub fn activate_mm(&self) {
        if let Some(mm) = &self.handles.lock().mm {
            mm.activate();
        }
    }

    pub fn shared_creds(&self) -> Arc<Credentials> {
        self.handles.lock().creds.clone()
    }

    pub fn comm(&self) -> [u8; 16] {
        *self.comm.lock()
    }

    /// Sets the name, cut to 15 bytes.
    pub fn set_comm(&self, name: &[u8]) {
        let mut comm = [0; 16];
        let len = name.len().min(15);
        comm[..len].copy_from_slice(&name[..len]);
        *self.comm.lock() = comm;
    }

    pub fn rlimit(&self, resource: Resource) -> Limit {
        self.process.limits.get(resource)
    }
}

/// A share in an address space.
#[derive(Default)]
pub struct MmUse;

/// A user thread from the inside: owned by its future, handed to system calls by reference.
pub struct Thread {
    task: Arc<Task>,
    pub regs: UserRegs,
    mm: Arc<AddressSpace>,
    /// One clone per thread that lives in `mm`: who gives up the last one tears the space down.
    mm_use: Arc<MmUse>,
    files: Arc<FdTable>,
    fs: Arc<FsContext>,
    creds: Arc<Credentials>,
    /// Set by a system call that was interrupted ([`crate::signal::set_restart`]); resolved at signal delivery.
    pub restart: Option<Restart>,
    /// x0 as it was when the system call was made, for a restart.
    pub orig_x0: u64,
    /// For its tracer: the number of the system call that it is in; -1: in none.
    pub call: i32,
    /// How restart_syscall(2) goes on, when `restart` is `Restart::Block`.
    pub restart_block: SpinLock<Option<RestartBlock>>,
    /// Address and syndrome of the last fault, for the signal frame.
    pub fault_address: u64,
    pub fault_esr: u64,
    /// Set when this thread is to end ([`crate::signal::set_exit`]); the wait status as in wait(2).
    pub exit: Option<super::ExitStatus>,
    /// Its last read had to wait: the next one does not try first, but waits at once, and looks whether there is something then.
    pub read_waits: AtomicBool,
    /// What its last poll of some files has used.
    pub poll_spare: Spare,
    /// This is no thread but acts for one, with what it had: what interrupts its waits, instead of signals.
    stand_in: Option<Arc<dyn Interrupts + Send + Sync>>,
}

impl Deref for Thread {
    type Target = Task;

    fn deref(&self) -> &Task {
        &self.task
    }
}

impl Thread {
    pub fn new(
        task: Arc<Task>,
        regs: UserRegs,
        mm: (Arc<AddressSpace>, Arc<MmUse>),
        files: Arc<FdTable>,
        fs: Arc<FsContext>,
        creds: Arc<Credentials>,
    ) -> Self {
        let (mm, mm_use) = mm;
        Thread {
            task,
            regs,
            mm,
            mm_use,
            files,
            fs,
            creds,
            restart: None,
            orig_x0: 0,
            call: -1,
            restart_block: SpinLock::new(None),
            fault_address: 0,
            fault_esr: 0,
            exit: None,
            read_waits: AtomicBool::new(false),
            poll_spare: Spare::default(),
            stand_in: None,
        }
    }

    /// Somebody who does a thing for this thread while the thread goes on: with the same handles (but no share in the life of
    /// the address space) and these credentials, and deaf to the thread's signals.
    pub fn acting(&self, creds: Arc<Credentials>, interrupts: Arc<dyn Interrupts + Send + Sync>) -> Thread {
        let mm = (self.mm.clone(), Arc::default());
        let mut other =
            Thread::new(self.task.clone(), UserRegs::default(), mm, self.files.clone(), self.fs.clone(), creds);
        other.stand_in = Some(interrupts);
        other
    }

    /// What interrupts waits instead of signals: see [`Thread::acting`].
    #[inline]
    pub fn stand_in(&self) -> Option<&(dyn Interrupts + Send + Sync)> {
        self.stand_in.as_deref()
    }

    pub fn task(&self) -> &Arc<Task> {
        &self.task
    }

    /// The public record and the registers, borrowed apart.
    #[inline]
    pub fn split_regs(&mut self) -> (&Task, &mut UserRegs) {
        (&self.task, &mut self.regs)
    }

    #[inline]
    pub fn mm(&self) -> &Arc<AddressSpace> {
        &self.mm
    }

    #[inline]
    pub fn files(&self) -> &Arc<FdTable> {
        &self.files
    }

    #[inline]
    pub fn fs(&self) -> &Arc<FsContext> {
        &self.fs
    }

    #[inline]
    pub fn creds(&self) -> &Arc<Credentials> {
        &self.creds
    }

    pub fn set_creds(&mut self, creds: Credentials) {
        let (old, new) = (self.creds.uid, creds.uid);
        self.creds = Arc::new(creds);
        let publish = || self.task.handles.lock().creds = self.creds.clone();
        if old == new {
            publish();
        } else {
            table::move_to_user(old, new, publish);
        }
    }

    /// A share in the address space, for a new thread.
    pub fn mm_use(&self) -> Arc<MmUse> {
        self.mm_use.clone()
    }

    /// Does another thread or process live in this address space?
    pub fn mm_is_shared(&self) -> bool {
        Arc::strong_count(&self.mm_use) > 1
    }

    /// Moves to another address space, at first as its only user, with other credentials: nobody sees the one without the
    /// other. Answers the old one if nobody uses it any more.
    #[must_use]
    pub fn set_image(&mut self, mm: Arc<AddressSpace>, creds: Credentials) -> Option<Arc<AddressSpace>> {
        self.creds = Arc::new(creds);
        let mut handles = self.task.handles.lock();
        handles.mm = Some(mm.clone());
        let old_creds = core::mem::replace(&mut handles.creds, self.creds.clone());
        drop(handles);
        drop(old_creds);
        mm.activate();
        let old = core::mem::replace(&mut self.mm, mm);
        Arc::into_inner(core::mem::take(&mut self.mm_use)).map(|MmUse| old)
    }

    /// Leaves the address space at exit; answers it if nobody uses it any more.
    pub fn leave_mm(&mut self) -> Option<Arc<AddressSpace>> {
        Arc::into_inner(core::mem::take(&mut self.mm_use)).map(|MmUse| self.mm.clone())
    }

    pub fn set_files(&mut self, files: Arc<FdTable>) {
        self.task.handles.lock().files = Some(files.clone());
        self.files = files;
    }

    /// Leaves the table of descriptors at exit.
    pub fn leave_files(&mut self) -> Arc<FdTable> {
        core::mem::replace(&mut self.files, FdTable::none())
    }

    pub fn set_fs(&mut self, fs: Arc<FsContext>) {
        self.task.handles.lock().fs = Some(fs.clone());
        self.fs = fs;
    }

    /// At exit: others can no longer reach what this thread shared.
    pub fn unpublish_handles(&self) {
        let mut handles = self.task.handles.lock();
        let (mm, files, fs) = (handles.mm.take(), handles.files.take(), handles.fs.take());
        drop(handles);
        drop((mm, files, fs));
    }
}
