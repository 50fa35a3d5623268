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
use crate::mm::{AddressSpace, BoxFuture, FaultHandler, IoBuf, Outcome, PAGE_SIZE, Report};
use crate::process::{self, Thread};
use crate::signal;
use crate::sync::SpinLock;

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
    me: Weak<UserFault>,
    /// The flags of userfaultfd(2).
    flags: u32,
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
    pub fn new(space: &Arc<AddressSpace>, flags: u32) -> Arc<UserFault> {
        Arc::new_cyclic(|me| UserFault {
            space: Arc::downgrade(space),
            me: me.clone(),
            flags,
            features: AtomicU64::new(0),
            state: SpinLock::new(State::default()),
            readers: WaitQueue::new(),
            faulted: WaitQueue::new(),
        })
    }

    fn has(&self, feature: u32) -> bool {
        self.features.load(Ordering::Relaxed) & u64::from(feature) != 0
    }

    fn begun(&self) -> bool {
        self.features.load(Ordering::Relaxed) & BEGUN != 0
    }

    fn handler(&self) -> Option<Arc<dyn FaultHandler>> {
        self.me.upgrade().map(|me| me as Arc<dyn FaultHandler>)
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
        self.faulted.wake_all();
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
        let mut state = self.file.state.lock();
        state.new.retain(|fault| !Arc::ptr_eq(fault, &self.fault));
        state.told.retain(|fault| !Arc::ptr_eq(fault, &self.fault));
    }
}

impl FaultHandler for UserFault {
    fn report<'a>(&'a self, report: Report, must_wait: Box<dyn Fn() -> bool + Send + 'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            if self.has(raw::UFFD_FEATURE_SIGBUS) || report.kernel && self.flags & USER_MODE_ONLY != 0 {
                return Outcome::Refused;
            }
            let Some(posted) = self.post(&report) else { return Outcome::Again };
            if !must_wait() {
                return Outcome::Again;
            }
            drop(must_wait);
            let answered = || posted.fault.answered.load(Ordering::Acquire).then_some(());
            let mut wait = pin!(self.faulted.wait_for(answered));
            poll_fn(|cx| match wait.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(Outcome::Again),
                // After the wait has registered, as `exec::interruptible` does. A system call goes on until the thread is to end.
                Poll::Pending if ends_wait(report.kernel) => Poll::Ready(Outcome::Interrupted),
                Poll::Pending => Poll::Pending,
            })
            .await
        })
    }
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
        if !self.begun() || self.flags & raw::O_NONBLOCK == 0 {
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
        if let (Some(space), Some(handler)) = (self.space.upgrade(), self.handler()) {
            space.forget_handler(&handler);
        }
        self.answer(0..u64::MAX);
    }
}
