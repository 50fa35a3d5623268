//! The life of a user thread: one future, from its first instruction to its last.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::future::Future;
use core::pin::Pin;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use core::task::{Context, Poll};

use arrayvec::ArrayVec;

use super::exit;
use super::fp;
use super::oom;
use super::ptrace;
use super::table;
use super::task::{Task, Thread};
use crate::arch::{self, MAX_CPUS, PerCpu, Trap, UserRegs};
use crate::errno::Errno;
use crate::mm::{AddressSpace, Unfinished};
use crate::{exec, mm, signal, syscalls};

/// Starts a thread that is already in the tables.
pub fn start(t: Thread) {
    let task = t.task().clone();
    exec::spawn_entity(task.entity.clone(), UserFuture { task, life: life(t) });
}

/// User code and system calls in turn until the thread ends. A block, and not a function: that would keep the thread twice, as
/// its argument and as a variable.
#[allow(clippy::manual_async_fn)]
fn life(mut t: Thread) -> impl Future<Output = ()> {
    async move {
        // Here it stays until its end: see `look_at`.
        let registers = &raw mut t.regs;
        t.registers.store(registers, Ordering::Release);
        let status = loop {
            // At the top, for a thread that was made while its group was being killed or stopped.
            if signal::work_pending(&t) {
                signal::deliver(&mut t).await;
                if let Some(status) = t.exit {
                    break status;
                }
            }
            match enter_user(&mut t) {
                Trap::Syscall => {
                    if t.watch.load(Ordering::Relaxed) != 0 {
                        // Boxed: it would be the largest state of the future.
                        Box::pin(ptrace::call(&mut t)).await;
                    } else if !syscalls::dispatch_now(&mut t) {
                        syscalls::dispatch(&mut t).await;
                    }
                }
                Trap::PageFault { addr, access, esr } => {
                    t.min_faults.fetch_add(1, Ordering::Relaxed);
                    if let Some(unfinished) = t.mm().fault_now(addr, access) {
                        match unfinished.signal(addr) {
                            Some(fault) => signal::force_fault(&mut t, fault.signo, fault.code, fault.addr, esr),
                            // Boxed, as it is rare and large.
                            None => Box::pin(page_fault(&mut t, unfinished, addr, access, esr)).await,
                        }
                    }
                }
                Trap::Exception { signal, code, addr, esr } => signal::force_fault(&mut t, signal, code, addr, esr),
                Trap::FpAccess => fp::on_trap(&t),
                Trap::Interrupt => {}
            }
            // Before it can ask for more.
            if mm::is_short() {
                Box::pin(oom::make_room(&t)).await;
            }
            if exec::need_resched() {
                exec::yield_now().await;
            }
        };
        if t.is_traced() {
            Box::pin(ptrace::exit_event(&mut t, status)).await;
        }
        t.registers.store(ptr::null_mut(), Ordering::Release);
        exit::leave(&mut t).await;
        let task = t.task().clone();
        drop(t);
        exit::leave_group(&task, status).await;
    }
}

#[inline]
fn enter_user(t: &mut Thread) -> Trap {
    fp::make_current(t);
    let (task, regs) = t.split_regs();
    task.entity.in_user(|| arch::enter_user(regs))
}

/// What is left of a page fault that [`AddressSpace::fault_now`] has begun.
async fn page_fault(t: &mut Thread, begun: Unfinished, addr: u64, access: arch::Access, esr: u64) {
    t.faulting.store(true, Ordering::Relaxed);
    finish_fault(t, begun, addr, access, esr).await;
    t.faulting.store(false, Ordering::Relaxed);
}

async fn finish_fault(t: &mut Thread, begun: Unfinished, addr: u64, access: arch::Access, esr: u64) {
    let mm = t.mm().clone();
    let mut result = killable(t, mm.finish_fault(begun, addr, access)).await;
    // Who is killed meanwhile ends, however long storage takes.
    while let Ok(Err(fault)) = result {
        if !fault.is_shortage() || !Box::pin(oom::make_room_for_page(t)).await {
            return signal::force_fault(t, fault.signo, fault.code, fault.addr, esr);
        }
        if signal::fatal_pending(t.task()) {
            return;
        }
        result = killable(t, mm.handle_fault(addr, access)).await;
    }
}

/// Makes the thread's address space current before each poll, so that user memory can be reached from any of them.
struct UserFuture<F> {
    task: Arc<Task>,
    life: F,
}

impl<F: Future<Output = ()>> Future for UserFuture<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // SAFETY: `life` is pinned with the struct and never moved out; `task` is not pinned structurally.
        let this = unsafe { self.get_unchecked_mut() };
        let current = CURRENT.get();
        current.store(Arc::as_ptr(&this.task).cast_mut(), Ordering::Relaxed);
        // It takes the lock that `look_at` holds.
        this.task.activate_mm();
        this.task.interruptible.store(false, Ordering::Relaxed);
        // SAFETY: see above.
        let poll = unsafe { Pin::new_unchecked(&mut this.life) }.poll(cx);
        // The poll began and ends on the same CPU.
        current.store(ptr::null_mut(), Ordering::Release);
        poll
    }
}

/// Polls a future that acts for a thread (see [`Thread::acting`]): its address space is the current one meanwhile, and
/// the current task is the thread's. Who calls is the thread itself, which makes its own address space current again, or
/// a task of the kernel; not another thread ([`may_poll_for`]), as its own poll would then not be seen in [`CURRENT`].
pub fn poll_for<R>(task: &Arc<Task>, mm: &Arc<AddressSpace>, poll: impl FnOnce() -> R) -> R {
    mm.activate();
    let current = CURRENT.get();
    if !current.load(Ordering::Relaxed).is_null() {
        return poll();
    }
    // Marked: the thread does not run here, and whoever wants it to notice something must wake it.
    let marked = Arc::as_ptr(task).cast_mut().map_addr(|addr| addr | MARK);
    current.store(marked, Ordering::Relaxed);
    let result = poll();
    // The same CPU: nothing was awaited.
    current.store(ptr::null_mut(), Ordering::Relaxed);
    result
}

/// Is this the thread itself, or a task of the kernel?
pub fn may_poll_for(task: &Task) -> bool {
    let current = CURRENT.get().load(Ordering::Relaxed);
    current.is_null() || ptr::eq(current, task)
}

/// In an address of [`CURRENT`]: a future is polled that acts for the task.
const MARK: usize = 1;

/// The task whose future each CPU is polling; null between polls. The future holds the task for as long as it is here.
static CURRENT: PerCpu<AtomicPtr<Task>> = PerCpu::new([const { AtomicPtr::new(ptr::null_mut()) }; MAX_CPUS]);

/// Calls `f` with the user thread that is being polled on this CPU, if one is: for code that is not given its thread
/// (signalfd, log lines). The reference cannot outlive the call, let alone an `.await`.
pub fn with_current<R>(f: impl FnOnce(Option<&Task>) -> R) -> R {
    let current = CURRENT.get().load(Ordering::Relaxed).map_addr(|addr| addr & !MARK);
    // SAFETY: only this CPU writes its slot, and non-null means that the poll of the task's future, or of one that has a
    // reference to the task (`poll_for`), encloses this call.
    f(unsafe { current.as_ref() })
}

/// What another thread does, as far as it can be told without stopping it.
pub enum Doing {
    /// It runs, or is about to, or has ended.
    Runs,
    /// It waits in a system call, made with these registers.
    Call(UserRegs),
    /// It waits for something else: a page, the end of a stop.
    Waits(UserRegs),
}

/// Looks at a thread. Its registers are its future's; they are not written while that is not polled:
///
/// ```text
/// who looks                                 who polls the thread
///   lock its handles                          CURRENT = the thread
///   CURRENT is the thread's on no CPU         lock and unlock its handles (activate_mm)
///   copy the registers; unlock                … CURRENT = null (release)
/// ```
/// A poll that has come past the lock is seen in CURRENT, and one that has not waits for the lock.
pub fn look_at(task: &Task) -> Doing {
    let handles = task.lock_handles();
    let polled = CURRENT.iter().any(|current| ptr::eq(current.load(Ordering::Acquire), task));
    let registers = task.registers.load(Ordering::Acquire);
    if polled || registers.is_null() || task.entity.is_runnable() {
        return Doing::Runs;
    }
    // SAFETY: not null: the future is in `life`, where the registers stay; nobody polls it, see above.
    let regs = unsafe { *registers };
    drop(handles);
    let waits = task.faulting.load(Ordering::Relaxed) || task.process().sig.is_stopped() || task.is_trapped();
    if waits { Doing::Waits(regs) } else { Doing::Call(regs) }
}

/// The thread that each CPU polls, for a look at the machine.
pub fn current_of_cpus() -> ArrayVec<Option<Arc<Task>>, MAX_CPUS> {
    let on = |current: &AtomicPtr<Task>| {
        let current = current.load(Ordering::Relaxed);
        table::tasks().find(|task| ptr::eq(Arc::as_ptr(task), current))
    };
    CURRENT.iter().take(arch::cpu_count()).map(on).collect()
}

/// Is this the thread being polled on this CPU?
pub fn is_current(task: &Task) -> bool {
    ptr::eq(CURRENT.get().load(Ordering::Relaxed), task)
}

/// For calls that only a fatal signal may end (vfork's parent, waits for pages): pending when the group is dying.
pub struct Killable<'a>(pub &'a Task);

impl exec::Interrupts for Killable<'_> {
    fn pending(&self) -> bool {
        signal::fatal_pending(self.0)
    }
}

/// Runs `future` to its end, or until the thread is being killed (EINTR, which nobody sees).
pub async fn killable<T>(t: &Thread, future: impl Future<Output = T>) -> crate::errno::Result<T> {
    exec::interruptible(&Killable(t.task()), future).await.map_err(|_| Errno::EINTR)
}
