//! signalfd(2): pending signals of the reader as a file.

use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::deliver::dequeue;
use super::info::{SI_QUEUE, SI_TIMER, SigInfo};
use super::set::{SIGCHLD, SigSet};
use crate::errno::{Errno, Result};
use crate::exec::{WaitEntry, WaitQueue};
use crate::fs::eventfd::copy_whole;
use crate::fs::{Events, FileOps, OpenFile, TryError};
use crate::mm::IoBuf;
use crate::process::{Pid, Process, Task, Thread, run};

/// Who waits for a signalfd waits for signals of its own process (signalfd(2), "fork(2) semantics"), so it is not the file that
/// has a queue but the process: by its id. Processes whose ids fall together wake each other in vain, and look again.
/// An epoll's watch is in the queue of the process that added it, as on Linux.
static QUEUES: [WaitQueue; 1024] = [const { WaitQueue::new() }; 1024];
static OPEN: AtomicUsize = AtomicUsize::new(0);

fn queue_of(pid: Pid) -> &'static WaitQueue {
    &QUEUES[pid as usize % QUEUES.len()]
}

/// A signal became pending for a process or one of its threads.
#[inline]
pub(super) fn notify(process: &Process) {
    if OPEN.load(Ordering::Relaxed) != 0 {
        queue_of(process.pid).wake(usize::MAX, Events::IN.bits() | Events::RDNORM.bits());
    }
}

struct SignalFile {
    mask: AtomicU64,
}

/// `struct signalfd_siginfo`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Record {
    signo: u32,
    errno: i32,
    code: i32,
    pid: u32,
    uid: u32,
    fd: i32,
    tid: u32,
    band: u32,
    overrun: u32,
    trapno: u32,
    status: i32,
    int: i32,
    ptr: u64,
    utime: u64,
    stime: u64,
    addr: u64,
    addr_lsb: u16,
    pad2: u16,
    syscall: i32,
    call_addr: u64,
    arch: u32,
    pad: [u32; 7],
}

const RECORD_SIZE: usize = 128;
const _: () = assert!(size_of::<Record>() == RECORD_SIZE);

impl Record {
    fn new(info: &SigInfo) -> Record {
        let mut record = Record { signo: info.signo as u32, errno: info.errno, code: info.code, ..Record::default() };
        let is_fault = info.from_kernel() && SigSet::SYNCHRONOUS.contains(info.signo());
        let (low, high) = info.sender();
        if info.code == SI_TIMER {
            (record.tid, record.overrun) = (low, high);
            (record.ptr, record.int) = (info.value(), info.value() as i32);
        } else if info.is_io() {
            let (band, fd) = info.band_and_fd();
            (record.band, record.fd) = (band as u32, fd);
        } else if is_fault {
            record.addr = info.fields[0];
        } else {
            (record.pid, record.uid) = (low, high);
            if info.signo() == SIGCHLD && info.from_kernel() {
                record.status = info.fields[1] as i32;
                (record.utime, record.stime) = (info.fields[2], info.fields[3]);
            } else if info.code == SI_QUEUE {
                (record.ptr, record.int) = (info.value(), info.value() as i32);
            }
        }
        record
    }
}

impl SignalFile {
    fn mask(&self) -> SigSet {
        SigSet(self.mask.load(Ordering::Relaxed))
    }

    fn has_pending(&self, task: &Task) -> bool {
        !((task.sig.pending() | task.process().sig.pending()) & self.mask()).is_empty()
    }
}

impl FileOps for SignalFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn info(&self) -> String {
        format!("sigmask:\t{:016x}\n", self.mask().0)
    }

    fn ignores_seek(&self) -> bool {
        true
    }

    fn splices_to(&self) -> bool {
        false
    }

    fn try_read(&self, _file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        if buf.remaining() < RECORD_SIZE {
            return Err(Errno::EINVAL.into());
        }
        run::with_current(|task| {
            let task = task.ok_or(Errno::EINVAL)?;
            let mut done = 0;
            while buf.remaining() >= RECORD_SIZE {
                let Some(info) = dequeue(task, self.mask()).0 else { break };
                // A signal that meets an absent page goes back to where it will be found again.
                match copy_whole(buf, Record::new(&info).as_bytes()) {
                    Ok(()) => done += RECORD_SIZE,
                    Err(error) => {
                        super::send::put_back(task, info);
                        return if done > 0 { Ok(done) } else { Err(error) };
                    }
                }
            }
            if done > 0 { Ok(done) } else { Err(TryError::WouldBlock) }
        })
    }

    fn ready(&self) -> Events {
        let pending = run::with_current(|task| task.is_some_and(|task| self.has_pending(task)));
        if pending { Events::IN } else { Events::empty() }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        run::with_current(|task| task.map(|task| queue_of(task.process().pid)))
    }

    /// It may be another process that takes it out.
    fn unwatch(&self, entry: &Arc<WaitEntry>) {
        entry.leave(&QUEUES);
    }
}

impl Drop for SignalFile {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// SFD_NONBLOCK and SFD_CLOEXEC.
pub const NONBLOCK: u32 = 0o4000;
pub const CLOEXEC: u32 = 0o2000000;

/// signalfd4(2): a new descriptor for `fd` −1, else another mask for an existing one.
pub fn signalfd(t: &Thread, fd: i32, mask: SigSet, flags: u32) -> Result<i32> {
    if flags & !(NONBLOCK | CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    let mask = mask.blockable();
    if fd == -1 {
        OPEN.fetch_add(1, Ordering::Relaxed);
        let ops = Arc::new(SignalFile { mask: AtomicU64::new(mask.0) });
        let file = OpenFile::new_anon("[signalfd]", ops, flags & NONBLOCK | 0o2);
        return t.files().install(file, flags & CLOEXEC != 0);
    }
    let file = t.files().get_io(fd)?;
    let ops = file.ops().ok_or(Errno::EINVAL)?;
    let signal_file = ops.as_any().downcast_ref::<SignalFile>().ok_or(Errno::EINVAL)?;
    signal_file.mask.store(mask.0, Ordering::Relaxed);
    notify(t.process());
    Ok(fd)
}
