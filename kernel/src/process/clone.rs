//! fork, vfork, clone, clone3 (clone(2)).

use alloc::boxed::Box;
use alloc::sync::Arc;

use bitflags::bitflags;
use core::sync::atomic::{AtomicU16, Ordering};

use super::exit::VforkDone;
use super::fp;
use super::limits::{INFINITY, Resource};
use super::process::{NewProcess, Process};
use super::ptrace::{self, Options, events, watch};
use super::run;
use super::table::{self, Pid};
use super::task::{Handles, MmUse, Task, Thread};
use crate::arch::PSTATE_SS;
use crate::errno::{Errno, Result};
use crate::exec::{Entity, SchedPolicy};
use crate::mm::{AddressSpace, Toucher, UserPtr};
use crate::process::Caps;
use crate::signal::{self, Fork, Restart, SigSet};
use crate::syscalls::SysResult;

bitflags! {
    /// CLONE_* of linux/sched.h, without the exit signal.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct CloneFlags: u64 {
        const NEWTIME = 0x80;
        const VM = 0x100;
        const FS = 0x200;
        const FILES = 0x400;
        const SIGHAND = 0x800;
        const PIDFD = 0x1000;
        const PTRACE = 0x2000;
        const VFORK = 0x4000;
        const PARENT = 0x8000;
        const THREAD = 0x1_0000;
        const NEWNS = 0x2_0000;
        const SYSVSEM = 0x4_0000;
        const SETTLS = 0x8_0000;
        const PARENT_SETTID = 0x10_0000;
        const CHILD_CLEARTID = 0x20_0000;
        const DETACHED = 0x40_0000;
        const UNTRACED = 0x80_0000;
        const CHILD_SETTID = 0x100_0000;
        const NEWCGROUP = 0x200_0000;
        const NEWUTS = 0x400_0000;
        const NEWIPC = 0x800_0000;
        const NEWUSER = 0x1000_0000;
        const NEWPID = 0x2000_0000;
        const NEWNET = 0x4000_0000;
        const IO = 0x8000_0000;
        const CLEAR_SIGHAND = 0x1_0000_0000;
        const INTO_CGROUP = 0x2_0000_0000;
    }
}

impl CloneFlags {
    pub const NAMESPACES: CloneFlags = CloneFlags::NEWNS
        .union(CloneFlags::NEWCGROUP)
        .union(CloneFlags::NEWUTS)
        .union(CloneFlags::NEWIPC)
        .union(CloneFlags::NEWUSER)
        .union(CloneFlags::NEWPID)
        .union(CloneFlags::NEWNET)
        .union(CloneFlags::NEWTIME);
}

/// The arguments of clone3(2), which clone's are turned into.
#[derive(Clone, Copy, Debug)]
pub struct CloneArgs {
    pub flags: CloneFlags,
    pub exit_signal: u32,
    pub pidfd: UserPtr<i32>,
    pub child_tid: UserPtr<u32>,
    pub parent_tid: UserPtr<u32>,
    /// Initial stack pointer; 0 = the parent's.
    pub stack: u64,
    pub tls: u64,
    /// The id that the child is to have.
    pub set_tid: Option<Pid>,
}

/// Makes the child and starts it; answers its id in the parent, after a vfork child has let go of the address space.
pub async fn clone(t: &mut Thread, args: CloneArgs) -> SysResult {
    check(t, &args)?;
    let flags = args.flags;
    let vfork = flags.contains(CloneFlags::VFORK).then(|| Arc::new(VforkDone::default()));
    let shares = flags.contains(CloneFlags::VM);
    // Nobody sees the restart.
    let fork = Fork::begin(t.task()).ok_or(Restart::NoIntr)?;
    let (mm, mm_use) = if shares { (t.mm().clone(), t.mm_use()) } else { (copy_of(t.mm()).await?, Arc::default()) };
    let child = match build(t, &args, (mm.clone(), mm_use), fork) {
        Ok(child) => child,
        Err(errno) => {
            if !shares {
                mm.teardown().await;
            }
            return Err(errno);
        }
    };
    drop(mm);
    let tid = child.tid();
    *child.vfork.lock() = vfork.clone();

    if let Err(errno) = announce(t, &args, &child).await {
        abandon(child).await;
        return Err(errno.into());
    }
    run::start(child);
    if t.is_traced() {
        Box::pin(tell_tracer(t, &args, tid)).await;
    }
    if let Some(done) = vfork {
        run::killable(t, done.wait()).await?;
        if t.is_traced() {
            Box::pin(ptrace::event(t, Options::VFORK_DONE, events::VFORK_DONE, tid.into())).await;
        }
    }
    Ok(tid as u64)
}

/// Boxed, as it is rare: somebody is just changing the rights of much memory.
async fn copy_of(mm: &AddressSpace) -> Result<Arc<AddressSpace>> {
    match mm.fork() {
        Err(Errno::EAGAIN) => Box::pin(mm.fork_after_change()).await,
        result => result,
    }
}

/// The event that a tracer may want to know of.
fn event_of(args: &CloneArgs) -> (Options, u32) {
    if args.flags.contains(CloneFlags::UNTRACED) {
        (Options::empty(), 0)
    } else if args.flags.contains(CloneFlags::VFORK) {
        (Options::VFORK, events::VFORK)
    } else if args.exit_signal != u32::from(signal::SIGCHLD) {
        (Options::CLONE, events::CLONE)
    } else {
        (Options::FORK, events::FORK)
    }
}

async fn tell_tracer(t: &mut Thread, args: &CloneArgs, tid: Pid) {
    let (option, number) = event_of(args);
    if !option.is_empty() {
        ptrace::event(t, option, number, tid.into()).await;
    }
}

/// Linux's own validity rules (copy_process), in its order.
fn check(t: &Thread, args: &CloneArgs) -> Result<()> {
    let flags = args.flags;
    let both = |a, b| flags.contains(a) && flags.intersects(b);
    if both(CloneFlags::FS, CloneFlags::NEWNS | CloneFlags::NEWUSER)
        || both(CloneFlags::THREAD, CloneFlags::NEWUSER | CloneFlags::NEWPID)
        || (flags.contains(CloneFlags::THREAD) && !flags.contains(CloneFlags::SIGHAND))
        || (flags.contains(CloneFlags::SIGHAND) && !flags.contains(CloneFlags::VM))
        || (flags.contains(CloneFlags::PARENT) && t.process().pid == 1)
        || both(CloneFlags::PIDFD, CloneFlags::DETACHED | CloneFlags::THREAD)
        || both(CloneFlags::CLEAR_SIGHAND, CloneFlags::SIGHAND)
        // Both would store to the same word.
        || (flags.contains(CloneFlags::PIDFD | CloneFlags::PARENT_SETTID) && args.pidfd.addr() == args.parent_tid.addr())
    {
        return Err(Errno::EINVAL);
    }
    if flags.intersects(CloneFlags::NAMESPACES) {
        // Without namespaces in the kernel: what Linux answers for those it was built without.
        let needs_admin = flags.intersects(CloneFlags::NAMESPACES.difference(CloneFlags::NEWUSER));
        let unprivileged = needs_admin && !flags.contains(CloneFlags::NEWUSER) && !t.creds().capable(Caps::SYS_ADMIN);
        return Err(if unprivileged { Errno::EPERM } else { Errno::EINVAL });
    }
    if flags.contains(CloneFlags::INTO_CGROUP) {
        return Err(Errno::EBADF);
    }
    if let Some(tid) = args.set_tid {
        if !(1..table::pid_max()).contains(&tid) {
            return Err(Errno::EINVAL);
        }
        if !t.creds().cap_effective.intersects(Caps::CHECKPOINT_RESTORE | Caps::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
    }
    let limit = t.rlimit(Resource::Nproc).soft;
    let creds = t.creds();
    if creds.uid != 0
        && !creds.capable(Caps::SYS_RESOURCE)
        && !creds.capable(Caps::SYS_ADMIN)
        && table::threads_of_user(creds.uid) as u64 >= limit
    {
        return Err(Errno::EAGAIN);
    }
    Ok(())
}

/// The list of what is shared and what is copied.
fn build(t: &Thread, args: &CloneArgs, (mm, mm_use): (Arc<AddressSpace>, Arc<MmUse>), fork: Fork) -> SysResult<Thread> {
    let flags = args.flags;
    let files = if flags.contains(CloneFlags::FILES) { t.files().clone() } else { Arc::new(t.files().fork()?) };
    let fs = if flags.contains(CloneFlags::FS) { t.fs().clone() } else { Arc::new(t.fs().fork()) };
    let creds = t.creds().clone();
    let fp = fp::get(t);

    let mut regs = t.regs;
    regs.x[0] = 0;
    regs.pstate &= !PSTATE_SS;
    if args.stack != 0 {
        regs.sp = args.stack;
    }
    if flags.contains(CloneFlags::SETTLS) {
        regs.tpidr = args.tls;
    }

    let mut table = table::lock();
    let signals = fork.complete(table.due_to_children(t.process())).ok_or(Restart::NoIntr)?;
    let signals = if flags.contains(CloneFlags::THREAD) { SigSet::EMPTY } else { signals };
    // For everybody, root too: more threads would end in a lack of memory.
    if table.thread_count() as u64 >= crate::boot::threads_max() {
        return Err(Errno::EAGAIN.into());
    }
    let tid = match args.set_tid {
        Some(tid) => table.choose_pid(tid)?,
        None => table.allocate_pid()?,
    };
    let process =
        if flags.contains(CloneFlags::THREAD) { t.process().clone() } else { new_process(&mut table, t, args, tid) };
    let sig = t.sig.fork(
        flags.contains(CloneFlags::THREAD),
        flags.contains(CloneFlags::VM),
        flags.contains(CloneFlags::VFORK),
    );
    let handles =
        Handles { mm: Some(mm.clone()), files: Some(files.clone()), fs: Some(fs.clone()), creds: creds.clone() };
    let mut params = t.entity.params();
    if t.reset_on_fork.load(Ordering::Relaxed) {
        // Real-time ones start with nice 0 too: theirs counted for nothing.
        let real_time = params.policy.is_rt();
        params.policy = if real_time { SchedPolicy::Other } else { params.policy };
        params.nice = if real_time { 0 } else { params.nice.max(0) };
    }
    let entity = Entity::new(params);
    let task = Task::new(tid, process.clone(), entity, sig, handles, t.comm(), fp);
    task.personality.store(t.personality.load(Ordering::Relaxed), Ordering::Relaxed);
    if let Some(priority) = &*t.io_priority.lock() {
        let shared = flags.contains(CloneFlags::IO);
        let own = || Arc::new(AtomicU16::new(priority.load(Ordering::Relaxed)));
        *task.io_priority.lock() = Some(if shared { priority.clone() } else { own() });
    }
    let slack = t.timer_slack.load(Ordering::Relaxed);
    task.timer_slack.store(slack, Ordering::Relaxed);
    task.default_timer_slack.store(slack, Ordering::Relaxed);
    task.watch.store(t.watch.load(Ordering::Relaxed) & watch::RECORDED, Ordering::Relaxed);
    if flags.contains(CloneFlags::CHILD_CLEARTID) {
        task.clear_child_tid.store(args.child_tid.addr(), Ordering::Relaxed);
    }
    if flags.contains(CloneFlags::SYSVSEM) {
        t.sem_undo.share_with(&task.sem_undo);
    }
    signal::adopt(&process, &task, t, signals);
    if t.is_traced() {
        let (option, _) = event_of(args);
        ptrace::inherit(t, &task, flags.contains(CloneFlags::PTRACE), option);
    }
    table.add_task(task.clone());
    drop(table);
    Ok(Thread::new(task, regs, (mm, mm_use), files, fs, creds))
}

fn new_process(table: &mut table::Table, t: &Thread, args: &CloneArgs, pid: Pid) -> Arc<Process> {
    let parent = t.process();
    let handlers = if args.flags.contains(CloneFlags::SIGHAND) {
        parent.handlers.read().clone()
    } else {
        Arc::new(parent.handlers.read().fork(args.flags.contains(CloneFlags::CLEAR_SIGHAND)))
    };
    let process = Process::new(NewProcess {
        pid,
        creator: if args.flags.contains(CloneFlags::PARENT) { parent.creator.load(Ordering::Relaxed) } else { t.tid() },
        pgid: parent.pgid.load(Ordering::Relaxed),
        session: parent.session.read().clone(),
        handlers,
        limits: parent.limits.fork(),
        exit_signal: if args.flags.contains(CloneFlags::PARENT) {
            parent.exit_signal.load(Ordering::Relaxed)
        } else {
            args.exit_signal
        },
    });
    process.inherit(parent);
    let cpu_limit = process.limits.get(Resource::Cpu);
    if cpu_limit.hard != INFINITY || cpu_limit.soft != INFINITY {
        crate::time::limit_cpu(&process, cpu_limit);
    }
    let new_parent =
        if args.flags.contains(CloneFlags::PARENT) { parent.ppid.load(Ordering::Relaxed) } else { parent.pid };
    table.add_process(process.clone(), new_parent);
    process
}

/// Stores ids where the flags ask for it; the child does not run yet.
async fn announce(t: &Thread, args: &CloneArgs, child: &Thread) -> Result<()> {
    let tid = child.tid();
    if args.flags.contains(CloneFlags::PIDFD) {
        let fd = super::pidfd::install(t, child.process().clone(), 0)?;
        if let Err(errno) = args.pidfd.write(t.mm(), fd).await {
            let _ = t.files().close(fd);
            return Err(errno);
        }
    }
    if args.flags.contains(CloneFlags::PARENT_SETTID) {
        // Linux ignores a bad address here.
        let _ = args.parent_tid.write(t.mm(), tid).await;
    }
    if args.flags.contains(CloneFlags::CHILD_SETTID) {
        if args.flags.contains(CloneFlags::VM) {
            let _ = args.child_tid.write(t.mm(), tid).await;
        } else {
            let _ = child.mm().write_remote(args.child_tid.addr(), &tid.to_le_bytes(), Toucher::Call).await;
        }
    }
    Ok(())
}

/// Takes back a child that never ran.
async fn abandon(mut child: Thread) {
    withdraw(&child);
    if let Some(mm) = child.leave_mm() {
        mm.teardown().await;
    }
}

fn withdraw(child: &Thread) {
    let process = child.process();
    let mut table = table::lock();
    table.remove_task(child.tid());
    ptrace::unlink(child.task());
    let mut threads = process.threads.lock();
    child.task().part(&mut threads);
    if threads.is_empty() {
        table.remove_process(process.pid);
    }
}

/// unshare(2).
pub async fn unshare(t: &mut Thread, flags: u64) -> Result<()> {
    let flags = CloneFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let own = CloneFlags::FS | CloneFlags::FILES | CloneFlags::VM | CloneFlags::SIGHAND | CloneFlags::THREAD;
    if !(own | CloneFlags::SYSVSEM | CloneFlags::NAMESPACES).contains(flags) {
        return Err(Errno::EINVAL);
    }
    if flags.intersects(CloneFlags::NAMESPACES) {
        let needs_admin = !flags.contains(CloneFlags::NEWUSER) && !t.creds().capable(Caps::SYS_ADMIN);
        return Err(if needs_admin { Errno::EPERM } else { Errno::EINVAL });
    }
    // Threads, handlers and memory cannot be unshared, only found to be unshared already.
    let alone = t.process().threads.lock().len() == 1;
    if flags.intersects(CloneFlags::THREAD | CloneFlags::SIGHAND | CloneFlags::VM) && !alone {
        return Err(Errno::EINVAL);
    }
    if flags.intersects(CloneFlags::SIGHAND | CloneFlags::VM) && Arc::strong_count(&t.process().handlers.read()) > 1 {
        return Err(Errno::EINVAL);
    }
    if flags.contains(CloneFlags::VM) && t.mm_is_shared() {
        return Err(Errno::EINVAL);
    }
    if flags.contains(CloneFlags::SYSVSEM) {
        t.sem_undo.leave(t.process().pid).await;
    }
    if flags.contains(CloneFlags::FS) {
        let fs = Arc::new(t.fs().fork());
        t.set_fs(fs);
    }
    if flags.contains(CloneFlags::FILES) {
        let files = Arc::new(t.files().fork()?);
        t.set_files(files);
    }
    Ok(())
}
