//! [`Request`]: an entry that has to wait, or a chain of linked ones, as a future that its ring owns.
//!
//! ```text
//!            start, or wake                     poll                    Ready
//!   idle ────────────────────▶ on the ready list ────▶ running ────────────────▶ done: leaves the ring
//!     ▲                                                 │   ▲
//!     └─────────────────────────── Pending ─────────────┘   └─ woken meanwhile: on the list again
//! ```
//!
//! Wakers put requests on the ring's ready list; who polls them is whoever comes first: a thread that waits for
//! completions in io_uring_enter(2), which is then the only one that has to be woken, or the ring's driver, a task of the
//! kernel. (What was submitted by another thread is left to the driver.) Both make the request's address space current meanwhile (`process::run::poll_for`).
//!
//! [`mod@cancel`]: looking for requests, and ending them before their time.

mod cancel;

use alloc::boxed::Box;
use alloc::collections::{TryReserveError, VecDeque};
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::Ordering::{AcqRel, Relaxed, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize};
use core::task::{Context, Waker};

use self::cancel::NONE;
use super::abi::{Setup, Sqe};
use super::ring::{Ring, WORK};
use crate::errno::{Errno, Result};
use crate::exec::{self, Interrupts, WaitQueue};
use crate::fs::{Events, OpenFile};
use crate::mm::{AddressSpace, frames};
use crate::process::run::{may_poll_for, poll_for};
use crate::process::{Task, Thread};
use crate::sync::SpinLock;
use crate::time::Deadline;
use linux_raw_sys::io_uring as raw;

/// On the ready list, or to be put there when its poll has ended.
const WOKEN: u8 = 1;
/// Being polled, or not begun yet.
const RUNNING: u8 = 2;
const DONE: u8 = 4;

type Body = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A deadline that can be moved while somebody waits for it.
#[derive(Clone)]
pub struct Timer {
    pub deadline: Deadline,
    /// Counts changes.
    pub version: u32,
}

pub struct Request {
    pub ring: Arc<Ring>,
    pub task: Arc<Task>,
    mm: Arc<AddressSpace>,
    slot: AtomicUsize,
    state: AtomicU8,
    body: SpinLock<Option<Body>>,
    entry: AtomicU32,
    /// The wait that the last poll ended in looks at `entry`.
    interruptible: AtomicBool,

    // The entry that is under way, for those who look for it.
    pub opcode: AtomicU8,
    pub user_data: AtomicU64,
    pub file: SpinLock<Option<Arc<OpenFile>>>,
    /// What a poll or timeout waits for, while it does: whoever holds the lock then has the right entry before himself. And who
    /// is to look when that is changed.
    pub events: SpinLock<Option<u32>>,
    pub timer: SpinLock<Option<Timer>>,
    /// The link timeout beside it.
    pub link_timer: SpinLock<Option<Timer>>,
    pub link_user_data: AtomicU64,
    pub changed: WaitQueue,
}

impl Interrupts for Request {
    fn pending(&self) -> bool {
        self.interruptible.store(true, Relaxed);
        self.is_cancelled()
    }
}

impl Wake for Request {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.fetch_or(WOKEN, AcqRel) & (WOKEN | RUNNING | DONE) == 0 {
            self.ring.push_ready(self.clone());
        }
    }
}

impl Request {
    /// A request that acts for `t`, and whose first entry this is. EAGAIN without memory. It begins with
    /// [`Request::begin`].
    pub fn new(ring: &Arc<Ring>, t: &Thread, first: &Sqe) -> Result<Arc<Request>> {
        if !frames::has_spare() {
            return Err(Errno::EAGAIN);
        }
        let request = Arc::new(Request {
            ring: ring.clone(),
            task: t.task().clone(),
            mm: t.mm().clone(),
            slot: AtomicUsize::new(usize::MAX),
            state: AtomicU8::new(RUNNING),
            body: SpinLock::new(None),
            entry: AtomicU32::new(0),
            interruptible: AtomicBool::new(true),
            opcode: AtomicU8::new(first.opcode),
            user_data: AtomicU64::new(first.user_data),
            file: SpinLock::new(None),
            events: SpinLock::new(None),
            timer: SpinLock::new(None),
            link_timer: SpinLock::new(None),
            link_user_data: AtomicU64::new(0),
            changed: WaitQueue::new(),
        });
        Ok(request)
    }

    pub fn set_body(&self, body: impl Future<Output = ()> + Send + 'static) {
        *self.body.lock() = Some(Box::pin(body));
    }

    /// The first poll, at once.
    pub fn begin(self: &Arc<Self>) {
        self.poll();
    }

    /// The first poll, by and by.
    pub fn begin_later(self: &Arc<Self>) {
        self.state.store(WOKEN, Relaxed);
        self.ring.push_ready(self.clone());
    }

    /// Polls it, unless somebody does.
    fn poll(self: &Arc<Self>) {
        self.state.swap(RUNNING, AcqRel);
        let Some(mut body) = self.body.lock().take() else { return };
        let waker = Waker::from(self.clone());
        self.interruptible.store(false, Relaxed);
        let poll = poll_for(&self.task, &self.mm, || body.as_mut().poll(&mut Context::from_waker(&waker)));
        if poll.is_ready() {
            self.state.store(DONE, Relaxed);
            // Handles that it held go before anybody learns that it is gone.
            drop(body);
            self.ring.finished(self);
            return;
        }
        *self.body.lock() = Some(body);
        if self.state.fetch_and(!RUNNING, AcqRel) & WOKEN != 0 {
            self.ring.push_ready(self.clone());
        }
    }
}

/// The requests of a ring.
#[derive(Default)]
pub struct Requests {
    all: SpinLock<Slab>,
    /// To be polled.
    ready: SpinLock<VecDeque<Arc<Request>>>,
    /// Those that IOSQE_IO_DRAIN holds back, and what was submitted after them; with `true` for the former.
    held: SpinLock<VecDeque<(Arc<Request>, bool)>>,
    /// Their number, and that of `ready`: written under the locks.
    holds: AtomicUsize,
    waits: AtomicUsize,
    /// Begun and not finished.
    active: AtomicUsize,
    /// The driver sleeps here.
    driver: WaitQueue,
    driven: AtomicBool,
    /// The driver is to tell who polls the descriptor that there are requests to be polled.
    untold: AtomicBool,
    /// Threads that end and wait for their requests to be gone.
    abandoned: AtomicUsize,
    /// Woken when a request is gone, or another entry of it begins.
    gone: WaitQueue,
}

#[derive(Default)]
struct Slab {
    slots: Vec<Option<Arc<Request>>>,
    free: Vec<usize>,
}

impl Ring {
    /// Takes a request in. It is not begun yet.
    pub fn insert(self: &Arc<Self>, request: &Arc<Request>) -> Result<()> {
        let mut all = self.requests.all.lock();
        // Room for all to be free, ready, or held back at once: none of it can fail later.
        let count = all.slots.len() + 1;
        let more = count.saturating_sub(all.free.len());
        all.free.try_reserve(more).map_err(|_| Errno::EAGAIN)?;
        let slot = match all.free.pop() {
            Some(slot) => slot,
            None => {
                all.slots.try_reserve(1).map_err(|_| Errno::EAGAIN)?;
                all.slots.push(None);
                all.slots.len() - 1
            }
        };
        if let Some(place) = all.slots.get_mut(slot) {
            *place = Some(request.clone());
        }
        request.slot.store(slot, Relaxed);
        if self.requests.reserve(count).is_err() {
            if let Some(place) = all.slots.get_mut(slot) {
                *place = None;
            }
            all.free.push(slot);
            return Err(Errno::EAGAIN);
        }
        drop(all);
        if !self.requests.driven.swap(true, Relaxed) {
            exec::spawn("io_uring", drive(self.clone()));
        }
        Ok(())
    }

    /// Begins a request, or holds it back behind those that drain. Nobody finds it then: it is not under way.
    pub fn start(&self, request: &Arc<Request>, drain: bool, at_once: bool) {
        let mut held = self.requests.held.lock();
        if !held.is_empty() || drain && self.requests.active.load(SeqCst) > 0 {
            request.entry.fetch_or(NONE, SeqCst);
            held.push_back((request.clone(), drain));
            self.requests.holds.store(held.len(), SeqCst);
            return;
        }
        self.requests.active.fetch_add(1, SeqCst);
        drop(held);
        if at_once { request.begin() } else { request.begin_later() }
    }

    /// Is something held back, so that all else must be too?
    pub fn is_draining(&self) -> bool {
        self.requests.holds.load(SeqCst) > 0
    }

    fn finished(&self, request: &Arc<Request>) {
        let slot = request.slot.load(Relaxed);
        let mut all = self.requests.all.lock();
        let gone = all.slots.get_mut(slot).and_then(Option::take);
        all.free.push(slot);
        drop(all);
        drop(gone);
        self.requests.active.fetch_sub(1, SeqCst);
        self.release_held();
        if !self.requests.gone.is_empty() {
            self.requests.gone.wake_all();
        }
        if self.is_closing() {
            self.requests.driver.wake_all();
        }
    }

    /// Begins what need not be held back any more.
    fn release_held(&self) {
        loop {
            let mut held = self.requests.held.lock();
            let Some((_, drain)) = held.front() else { return };
            if *drain && self.requests.active.load(SeqCst) > 0 {
                return;
            }
            let Some((request, _)) = held.pop_front() else { return };
            self.requests.holds.store(held.len(), SeqCst);
            self.requests.active.fetch_add(1, SeqCst);
            drop(held);
            request.entry.fetch_and(!NONE, SeqCst);
            request.begin_later();
        }
    }

    /// Somebody shall poll this request.
    fn push_ready(&self, request: Arc<Request>) {
        self.put_ready(request);
        self.announce_ready();
    }

    fn announce_ready(&self) {
        if self.queue.wake_where(1, |_, mask| mask & WORK != 0) > 0 {
            return;
        }
        if !self.is_driven() {
            if self.setup.contains(Setup::TASKRUN_FLAG) {
                self.rings.change(super::abi::at::SQ_FLAGS, raw::IORING_SQ_TASKRUN, 0);
            }
            if self.queue.is_empty() {
                return;
            }
            // Who polls the descriptor may be another ring, and so on: the driver tells them, lest this become a recursion.
            self.requests.untold.store(true, SeqCst);
        }
        self.requests.driver.wake_one();
    }

    /// With IORING_SETUP_DEFER_TASKRUN: something is to be done by who asks for completions.
    pub fn is_deferring(&self) -> bool {
        self.setup.contains(Setup::DEFER_TASKRUN) && self.has_ready()
    }

    pub fn has_ready(&self) -> bool {
        self.requests.waits.load(SeqCst) > 0
    }

    fn put_ready(&self, request: Arc<Request>) {
        let mut ready = self.requests.ready.lock();
        ready.push_back(request);
        self.requests.waits.store(ready.len(), SeqCst);
    }

    fn take_ready(&self) -> Option<Arc<Request>> {
        let mut ready = self.requests.ready.lock();
        let request = ready.pop_front();
        self.requests.waits.store(ready.len(), SeqCst);
        request
    }

    /// Polls requests that are ready now, as many as one turn may take. The caller makes its own address space current
    /// afterwards. Answers how many.
    pub fn run_ready(&self) -> usize {
        let count = self.requests.waits.load(SeqCst);
        let mut polled = 0;
        for _ in 0..count {
            if polled > 0 && exec::is_budget_used() {
                break;
            }
            let Some(request) = self.take_ready() else { break };
            if may_poll_for(&request.task) {
                request.poll();
                polled += 1;
            } else {
                // Another thread's.
                self.put_ready(request);
                self.requests.driver.wake_one();
            }
        }
        if self.setup.contains(Setup::TASKRUN_FLAG) && !self.has_ready() {
            self.rings.change(super::abi::at::SQ_FLAGS, 0, raw::IORING_SQ_TASKRUN);
        }
        polled
    }

    /// A thread that would have polled them goes away: lets the driver do it.
    pub fn hand_over(&self) {
        if self.is_driven() && self.has_ready() {
            self.requests.driver.wake_one();
        }
    }

    /// The driver polls what is ready; with IORING_SETUP_DEFER_TASKRUN only at the end.
    fn is_driven(&self) -> bool {
        !self.setup.contains(Setup::DEFER_TASKRUN) || self.is_closing() || self.requests.abandoned.load(SeqCst) > 0
    }
}

/// Polls what nobody else does, until the ring is closed and everything has ended.
async fn drive(ring: Arc<Ring>) {
    loop {
        let look = || {
            let over = ring.is_closing() && ring.is_idle();
            let untold = ring.requests.untold.load(SeqCst);
            (over || untold || ring.has_ready() && ring.is_driven()).then_some(over)
        };
        if ring.requests.driver.wait_for(look).await {
            return;
        }
        if ring.requests.untold.swap(false, SeqCst) {
            ring.queue.wake(usize::MAX, (Events::IN | Events::RDNORM).bits());
        }
        if ring.is_driven() {
            ring.run_ready();
        }
        exec::budget().await;
    }
}

impl Requests {
    /// Makes room for `count` requests on the ready list, and among those that are held back.
    fn reserve(&self, count: usize) -> core::result::Result<(), TryReserveError> {
        let mut ready = self.ready.lock();
        let more = count.saturating_sub(ready.len());
        ready.try_reserve(more)?;
        drop(ready);
        let mut held = self.held.lock();
        let more = count.saturating_sub(held.len());
        held.try_reserve(more)
    }

    /// Woken when a request is gone, or another entry of it begins.
    pub fn gone(&self) -> &WaitQueue {
        &self.gone
    }
}
