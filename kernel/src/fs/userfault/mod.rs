//! userfaultfd(2): page faults of a process as messages, answered with pages.
//!
//! [`UserFault`] is the file. A thread that faults in a watched range leaves a [`Fault`] here and waits until somebody
//! answers for its address: UFFDIO_COPY and its like, UFFDIO_WAKE, or the end of the file. A fault is first in line to be
//! read, then among those that were told.
//!
//! As in Linux 6.1 on arm64 there is no write protection (UFFDIO_WRITEPROTECT). Events other than faults (fork, remap, remove,
//! unmap) are not offered.

mod calls;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::future::poll_fn;
use core::ops::Range;
use core::pin::pin;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::Poll;

use linux_raw_sys::general as raw;
use zerocopy::{Immutable, IntoBytes};

use super::eventfd::copy_whole;
use super::file::{Events, FileOps, TryError};
use super::op::Op;
use super::open_file::OpenFile;
use crate::errno::{Errno, Result};
use crate::exec::{Interrupts, WaitQueue};
use crate::mm::{AddressSpace, BoxFuture, FaultHandler, IoBuf, Outcome, PAGE_SIZE, Report, Watcher};
use crate::process::{self, Thread};
use crate::signal;
use crate::sync::{Once, SpinLock};

/// vm.unprivileged_userfaultfd: may everybody handle faults of the kernel?
pub static UNPRIVILEGED: AtomicBool = AtomicBool::new(false);

/// UFFD_USER_MODE_ONLY: faults in system calls are not handled.
pub const USER_MODE_ONLY: u32 = 1;
/// The version of the protocol.
const API: u64 = 0xaa;
/// What can be asked for with UFFDIO_API.
const FEATURES: u64 = (raw::UFFD_FEATURE_MISSING_SHMEM
    | raw::UFFD_FEATURE_SIGBUS
    | raw::UFFD_FEATURE_THREAD_ID
    | raw::UFFD_FEATURE_MINOR_SHMEM
    | raw::UFFD_FEATURE_EXACT_ADDRESS) as u64;
/// In the word of features: UFFDIO_API has been called.
const BEGUN: u64 = 1 << 63;

pub struct UserFault {
    space: Weak<AddressSpace>,
    /// What stands for this in the mappings that it watches.
    watcher: Arc<Watcher>,
    /// UFFD_USER_MODE_ONLY.
    user_mode_only: bool,
    /// The open file: poll(2) answers by its flags.
    file: Once<Weak<OpenFile>>,
    features: AtomicU64,
    state: SpinLock<State>,
    /// Those who read or poll.
    readers: WaitQueue,
    /// Those who have faulted.
    faulted: WaitQueue,
}

#[derive(Default)]
struct State {
    /// Nobody has read of these yet.
    new: VecDeque<Arc<Fault>>,
    told: Vec<Arc<Fault>>,
    closed: bool,
}

/// A thread's wait for a page.
struct Fault {
    page: u64,
    message: Message,
    answered: AtomicBool,
}

/// `struct uffd_msg` of a page fault.
#[repr(C)]
#[derive(Clone, Copy, IntoBytes, Immutable)]
struct Message {
    event: u64,
    flags: u64,
    address: u64,
    thread: u64,
}

const MESSAGE: usize = size_of::<Message>();
const _: () = assert!(MESSAGE == 32);

impl UserFault {
    /// The file for userfaultfd(2) with these flags.
    pub fn open(space: &Arc<AddressSpace>, flags: u32) -> Arc<OpenFile> {
        let ops = Arc::new_cyclic(|me: &Weak<UserFault>| UserFault {
            space: Arc::downgrade(space),
            watcher: Watcher::new(me.clone()),
            user_mode_only: flags & USER_MODE_ONLY != 0,
            file: Once::new(),
            features: AtomicU64::new(0),
            state: SpinLock::new(State::default()),
            readers: WaitQueue::new(),
            faulted: WaitQueue::new(),
        });
        let file = OpenFile::new_anon("[userfaultfd]", ops.clone(), raw::O_RDONLY | flags & raw::O_NONBLOCK);
        ops.file.call_once(|| Arc::downgrade(&file));
        file
    }

    fn has(&self, feature: u32) -> bool {
        self.features.load(Ordering::Relaxed) & u64::from(feature) != 0
    }

    fn begun(&self) -> bool {
        self.features.load(Ordering::Relaxed) & BEGUN != 0
    }

    /// Lets those go on who wait for pages of this range.
    fn answer(&self, range: Range<u64>) {
        let is_answered = |fault: &Arc<Fault>| {
            let hit = range.contains(&fault.page);
            if hit {
                fault.answered.store(true, Ordering::Release);
            }
            !hit
        };
        {
            let mut state = self.state.lock();
            state.new.retain(is_answered);
            state.told.retain(is_answered);
        }
        self.faulted.wake_where(usize::MAX, |page, _| range.contains(&page));
    }

    /// A fault gets in line, unless the file is closed.
    fn post(&self, report: &Report) -> Option<Posted<'_>> {
        let page = report.addr & !(PAGE_SIZE as u64 - 1);
        let mut flags = 0;
        if report.write {
            flags |= u64::from(raw::UFFD_PAGEFAULT_FLAG_WRITE);
        }
        if report.minor {
            flags |= u64::from(raw::UFFD_PAGEFAULT_FLAG_MINOR);
        }
        let thread = match self.has(raw::UFFD_FEATURE_THREAD_ID) {
            true => process::with_current(|task| task.map_or(0, |task| task.tid() as u64)),
            false => 0,
        };
        let address = if self.has(raw::UFFD_FEATURE_EXACT_ADDRESS) { report.addr } else { page };
        let message = Message { event: raw::UFFD_EVENT_PAGEFAULT.into(), flags, address, thread };
        let fault = Arc::new(Fault { page, message, answered: AtomicBool::new(false) });
        {
            let mut state = self.state.lock();
            if state.closed {
                return None;
            }
            state.new.push_back(fault.clone());
        }
        self.readers.wake(usize::MAX, (Events::IN | Events::RDNORM).bits());
        Some(Posted { file: self, fault })
    }
}

/// Takes the fault out of line when its thread does not wait any more.
struct Posted<'a> {
    file: &'a UserFault,
    fault: Arc<Fault>,
}

impl Drop for Posted<'_> {
    fn drop(&mut self) {
        // Whoever answers takes it out, under the lock.
        if self.fault.answered.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.file.state.lock();
        state.new.retain(|fault| !Arc::ptr_eq(fault, &self.fault));
        state.told.retain(|fault| !Arc::ptr_eq(fault, &self.fault));
    }
}

impl FaultHandler for UserFault {
    fn report<'a>(&'a self, report: Report, must_wait: Box<dyn Fn() -> bool + Send + 'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            if self.has(raw::UFFD_FEATURE_SIGBUS) || report.kernel && (self.user_mode_only || is_leaving()) {
                return Outcome::Refused;
            }
            let Some(posted) = self.post(&report) else { return Outcome::Again };
            if !must_wait() {
                return Outcome::Again;
            }
            drop(must_wait);
            let answered = || posted.fault.answered.load(Ordering::Acquire).then_some(());
            let mut wait = pin!(self.faulted.wait_for_key(posted.fault.page, answered));
            poll_fn(|cx| match wait.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Outcome::Again),
                // After the wait has registered, as `exec::interruptible` does. A system call goes on until the thread is to end.
                Poll::Pending if ends_wait(report.kernel) => Poll::Ready(Outcome::Interrupted),
                Poll::Pending => Poll::Pending,
            })
            .await
        })
    }

    fn wake(&self, range: Range<u64>) {
        self.answer(range);
    }
}

/// At its end a thread waits for nobody: who would bring the page may have ended before it.
fn is_leaving() -> bool {
    process::with_current(|task| task.is_some_and(|task| task.leaving.load(Ordering::Relaxed)))
}

fn ends_wait(kernel: bool) -> bool {
    process::with_current(|task| {
        task.is_some_and(|task| Interrupts::pending(task) && (!kernel || signal::fatal_pending(task)))
    })
}

impl FileOps for UserFault {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn try_read(&self, _file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        if !self.begun() || buf.remaining() < MESSAGE {
            return Err(Errno::EINVAL.into());
        }
        let mut done = 0;
        let mut state = self.state.lock();
        while buf.remaining() >= MESSAGE {
            let Some(fault) = state.new.front() else { break };
            match copy_whole(buf, fault.message.as_bytes()) {
                Ok(()) => done += MESSAGE,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
            let told = state.new.pop_front();
            state.told.extend(told);
        }
        if done == 0 { Err(TryError::WouldBlock) } else { Ok(done) }
    }

    /// Those who would have to wait in read(2) cannot be told that there is something to read: it may be answered before.
    fn ready(&self) -> Events {
        let nonblocking = || self.file.get().and_then(Weak::upgrade).is_some_and(|file| file.is_nonblock());
        if !self.begun() || !nonblocking() {
            return Events::ERR;
        }
        if self.state.lock().new.is_empty() { Events::empty() } else { Events::IN | Events::RDNORM }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.readers)
    }

    fn ignores_seek(&self) -> bool {
        true
    }

    fn info(&self) -> String {
        let state = self.state.lock();
        let (new, features) = (state.new.len(), self.features.load(Ordering::Relaxed) & !BEGUN);
        let (total, ioctls) = (new + state.told.len(), calls::API_IOCTLS | calls::RANGE_IOCTLS);
        format!("pending:\t{new}\ntotal:\t{total}\nAPI:\t{API:x}:{features:x}:{ioctls:x}\n")
    }

    fn ioctl<'a>(&'a self, _file: &'a OpenFile, thread: &'a Thread, cmd: u32, arg: u64) -> Op<'a, Result<u64>> {
        Op::boxed(self.call(thread, cmd, arg))
    }

    fn released(&self) {
        self.state.lock().closed = true;
        if let Some(space) = self.space.upgrade() {
            space.forget_watcher(&self.watcher);
        }
        self.answer(0..u64::MAX);
    }
}
