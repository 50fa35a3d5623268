//! [`Ring`]: what a ring descriptor stands for, and its completion side.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};

use linux_raw_sys::io_uring as raw;
use zerocopy::IntoBytes;

use super::abi::{
    CQE_SIZE, CqOffsets, Cqe, MAX_CQ_ENTRIES, MAX_ENTRIES, Outcome, Params, SQE_SIZE, Setup, SqOffsets, at,
};
use super::register::Registered;
use super::request::Requests;
use super::submit::Submission;
use crate::errno::{Errno, Result};
use crate::exec::{Mutex, WaitQueue};
use crate::fs::Events;
use crate::mm::SharedPages;
use crate::mm::frames;
use crate::process::{Task, Thread};
use crate::sync::SpinLock;

/// Events that only threads in io_uring_enter(2) wait for: there are requests to poll; look at the completions again.
pub const WORK: u32 = 1 << 28;
pub const LOOK: u32 = 1 << 29;

/// Whether completions tell about themselves one by one, or the caller does so for many at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tell {
    Now,
    Later,
}

pub struct Ring {
    pub setup: Setup,
    pub sq_entries: u32,
    pub cq_entries: u32,
    /// Head and tail of both sides, completions, and the array of indices.
    pub rings: SharedPages,
    pub array_at: usize,
    pub sqes: SharedPages,
    /// One thread submits at a time.
    pub submission: Mutex<Submission>,
    completions: SpinLock<Completions>,
    /// Threads that wait for completions, and who polls the descriptor.
    pub queue: WaitQueue,
    /// Completions of timeouts, which end every wait, and of all else, which timeouts can count.
    pub timeouts: AtomicU32,
    pub counted: AtomicU32,
    /// Timeouts that count completions.
    pub count_queue: WaitQueue,
    pub requests: Requests,
    pub registered: Registered,
    /// IORING_SETUP_R_DISABLED, until IORING_REGISTER_ENABLE_RINGS.
    pub disabled: AtomicBool,
    /// The last descriptor and mapping are gone.
    pub closing: AtomicBool,
    /// IORING_SETUP_SINGLE_ISSUER: the address of the task that may submit; 0 = nobody yet.
    issuer: AtomicUsize,
}

#[derive(Default)]
struct Completions {
    /// As the kernel knows it; programs cannot be trusted with theirs.
    tail: u32,
    /// What did not fit.
    backlog: VecDeque<Cqe>,
}

/// The sizes that were asked for, as they come to be.
struct Sizes {
    sq: u32,
    cq: u32,
}

impl Sizes {
    /// In Linux's order of errors.
    fn choose(params: &Params, setup: Setup) -> Result<Sizes> {
        let limit = |wanted: u32, most: u32| match wanted {
            0 => Err(Errno::EINVAL),
            wanted if wanted <= most => Ok(wanted),
            _ if setup.contains(Setup::CLAMP) => Ok(most),
            _ => Err(Errno::EINVAL),
        };
        let sq = limit(params.sq_entries, MAX_ENTRIES)?.next_power_of_two();
        if !setup.contains(Setup::CQSIZE) {
            return Ok(Sizes { sq, cq: 2 * sq });
        }
        let cq = limit(params.cq_entries, MAX_CQ_ENTRIES)?.next_power_of_two();
        if cq < sq { Err(Errno::EINVAL) } else { Ok(Sizes { sq, cq }) }
    }
}

impl Ring {
    /// A ring as `params` want it, and what it tells the program about itself.
    pub fn new(t: &Thread, params: &mut Params, setup: Setup) -> Result<Arc<Ring>> {
        let sizes = Sizes::choose(params, setup)?;
        let cqe_size = if setup.contains(Setup::CQE32) { 2 * CQE_SIZE } else { CQE_SIZE };
        let sqe_size = if setup.contains(Setup::SQE128) { 2 * SQE_SIZE } else { SQE_SIZE };
        // Linux doubles what is before the completions, too.
        let array_at = (at::CQES * cqe_size / CQE_SIZE + cqe_size * sizes.cq as usize).next_multiple_of(64);
        let rings = SharedPages::new(array_at + 4 * sizes.sq as usize)?;
        let sqes = SharedPages::new(sqe_size * sizes.sq as usize)?;
        for (offset, value) in [
            (at::SQ_MASK, sizes.sq - 1),
            (at::CQ_MASK, sizes.cq - 1),
            (at::SQ_ENTRIES, sizes.sq),
            (at::CQ_ENTRIES, sizes.cq),
        ] {
            rings.store(offset, value, Relaxed);
        }
        params.sq_entries = sizes.sq;
        params.cq_entries = sizes.cq;
        params.features = super::abi::FEATURES;
        params.sq_off = SqOffsets {
            head: at::SQ_HEAD as u32,
            tail: at::SQ_TAIL as u32,
            mask: at::SQ_MASK as u32,
            entries: at::SQ_ENTRIES as u32,
            flags: at::SQ_FLAGS as u32,
            dropped: at::SQ_DROPPED as u32,
            array: array_at as u32,
            resv: [0; 3],
        };
        params.cq_off = CqOffsets {
            head: at::CQ_HEAD as u32,
            tail: at::CQ_TAIL as u32,
            mask: at::CQ_MASK as u32,
            entries: at::CQ_ENTRIES as u32,
            overflow: at::CQ_OVERFLOW as u32,
            cqes: at::CQES as u32,
            flags: at::CQ_FLAGS as u32,
            resv: [0; 3],
        };
        let disabled = setup.contains(Setup::R_DISABLED);
        let ring = Arc::new(Ring {
            setup,
            sq_entries: sizes.sq,
            cq_entries: sizes.cq,
            rings,
            array_at,
            sqes,
            submission: Mutex::new(Submission::default()),
            completions: SpinLock::default(),
            queue: WaitQueue::new(),
            timeouts: AtomicU32::new(0),
            counted: AtomicU32::new(0),
            count_queue: WaitQueue::new(),
            requests: Requests::default(),
            registered: Registered::default(),
            disabled: AtomicBool::new(disabled),
            closing: AtomicBool::new(false),
            issuer: AtomicUsize::new(0),
        });
        if !disabled {
            ring.adopt(t);
        }
        Ok(ring)
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Acquire)
    }

    pub fn is_disabled(&self) -> bool {
        self.disabled.load(Acquire)
    }

    /// From now on only this thread submits, if only one is to.
    pub fn adopt(&self, t: &Thread) {
        if self.setup.contains(Setup::SINGLE_ISSUER) {
            self.issuer.store(Arc::as_ptr(t.task()).addr(), Relaxed);
        }
    }

    /// May this thread submit and register?
    pub fn may_submit(&self, task: &Arc<Task>) -> bool {
        let issuer = self.issuer.load(Relaxed);
        issuer == 0 || issuer == Arc::as_ptr(task).addr()
    }

    fn cqe_size(&self) -> usize {
        if self.setup.contains(Setup::CQE32) { 2 * CQE_SIZE } else { CQE_SIZE }
    }

    /// Completions that the program has not taken yet. It may write nonsense into its head, and reads it then.
    pub fn waiting_completions(&self) -> u32 {
        let tail = self.rings.load(at::CQ_TAIL, Acquire);
        tail.wrapping_sub(self.rings.load(at::CQ_HEAD, Acquire))
    }

    /// Puts a completion where the program finds it, or into the backlog.
    #[inline]
    fn put(&self, completions: &mut Completions, cqe: &Cqe) -> bool {
        let used = completions.tail.wrapping_sub(self.rings.load(at::CQ_HEAD, Acquire));
        if used >= self.cq_entries {
            return false;
        }
        let index = (completions.tail & (self.cq_entries - 1)) as usize;
        let offset = at::CQES + index * self.cqe_size();
        self.rings.copy_in(offset, cqe.as_bytes());
        if self.setup.contains(Setup::CQE32) {
            self.rings.copy_in(offset + CQE_SIZE, &[0; CQE_SIZE]);
        }
        completions.tail = completions.tail.wrapping_add(1);
        self.rings.store(at::CQ_TAIL, completions.tail, Release);
        true
    }

    /// Posts a completion; false if there is no room in the ring and `may_wait` forbids the backlog.
    fn post_cqe(&self, cqe: Cqe, may_wait: bool) -> bool {
        let mut completions = self.completions.lock();
        if completions.backlog.is_empty() && self.put(&mut completions, &cqe) {
            return true;
        }
        if !may_wait {
            return false;
        }
        if !frames::has_spare() || completions.backlog.try_reserve(1).is_err() {
            // As Linux without memory: it is counted, that is all.
            self.rings.add(at::CQ_OVERFLOW, 1);
            return true;
        }
        completions.backlog.push_back(cqe);
        self.rings.change(at::SQ_FLAGS, raw::IORING_SQ_CQ_OVERFLOW, 0);
        true
    }

    /// An entry is done.
    pub fn complete(&self, user_data: u64, outcome: Outcome, tell: Tell) {
        self.post_cqe(Cqe { user_data, res: outcome.res, flags: outcome.flags }, true);
        self.count(tell);
    }

    /// A timeout is done, which ends waits also if it is silent.
    pub fn complete_timeout(&self, user_data: u64, outcome: Outcome, silent: bool) {
        self.timeouts.fetch_add(1, SeqCst);
        if !silent {
            self.post_cqe(Cqe { user_data, res: outcome.res, flags: outcome.flags }, true);
        }
        self.tell();
    }

    /// One of several completions of an entry; false if there was no room.
    pub fn complete_part(&self, user_data: u64, res: i32, flags: u32) -> bool {
        let cqe = Cqe { user_data, res, flags: flags | raw::IORING_CQE_F_MORE };
        let posted = self.post_cqe(cqe, false);
        if posted {
            self.count(Tell::Now);
        }
        posted
    }

    /// A completion that stands for no entry of this ring (MSG_RING).
    pub fn complete_message(&self, user_data: u64, res: i32) -> bool {
        let posted = self.post_cqe(Cqe { user_data, res, flags: 0 }, true);
        self.count(Tell::Now);
        posted
    }

    fn count(&self, tell: Tell) {
        self.counted.fetch_add(1, SeqCst);
        if !self.count_queue.is_empty() {
            self.count_queue.wake_all();
        }
        if tell == Tell::Now {
            self.tell();
        }
    }

    /// Tells that entries are done which had to wait.
    pub fn tell(&self) {
        self.tell_eventfd(true);
        self.wake_waiters();
    }

    /// Wakes who waits for completions.
    pub fn wake_waiters(&self) {
        if !self.queue.is_empty() {
            self.queue.wake(usize::MAX, (Events::IN | Events::RDNORM).bits() | LOOK);
        }
    }

    pub fn tell_eventfd(&self, later: bool) {
        self.registered.signal_eventfd(self, later);
    }

    /// What was posted last, for who wants to know whether there is more.
    pub fn posted(&self) -> u32 {
        let completions = self.completions.lock();
        completions.tail.wrapping_add(completions.backlog.len() as u32)
    }

    /// Moves what has waited for room into the ring. False if some of it still waits.
    pub fn flush_backlog(&self) -> bool {
        if self.rings.load(at::SQ_FLAGS, Relaxed) & raw::IORING_SQ_CQ_OVERFLOW == 0 {
            return true;
        }
        let mut completions = self.completions.lock();
        let mut moved = false;
        while let Some(cqe) = completions.backlog.front().copied() {
            if !self.put(&mut completions, &cqe) {
                break;
            }
            completions.backlog.pop_front();
            moved = true;
        }
        let empty = completions.backlog.is_empty();
        if empty {
            self.rings.change(at::SQ_FLAGS, 0, raw::IORING_SQ_CQ_OVERFLOW);
        }
        drop(completions);
        if moved {
            self.wake_waiters();
        }
        empty
    }

    /// The first completions in the backlog, for /proc.
    pub fn backlog(&self, most: usize) -> alloc::vec::Vec<Cqe> {
        self.completions.lock().backlog.iter().take(most).copied().collect()
    }

    /// What the kernel has come to in the ring of completions, for /proc.
    pub fn cached_tail(&self) -> u32 {
        self.completions.lock().tail
    }

    /// Entries that wait to be submitted.
    pub fn pending_entries(&self) -> u32 {
        self.rings.load(at::SQ_TAIL, Acquire).wrapping_sub(self.rings.load(at::SQ_HEAD, Relaxed))
    }
}
