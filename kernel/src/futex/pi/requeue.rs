//! FUTEX_WAIT_REQUEUE_PI and FUTEX_CMP_REQUEUE_PI: a condition variable whose waiters are moved to its lock.

use alloc::sync::Arc;
use core::future::Future;
use core::pin::{Pin, pin};
use core::ptr;
use core::task::{Context, Poll, Waker};

use super::super::table::{self, Key, Pair, Queued, TO_LOCK, Waiter, Wakers};
use super::super::wait::{Outcome, key_of, poll_place};
use super::super::{WaitRequest, Word};
use super::graph::{self, Graph};
use super::lock::{Ended, Owner, Step, Wait, acquire};
use crate::arch::{self, UserFault};
use crate::errno::{Errno, Result};
use crate::exec::list::Node;
use crate::exec::{self, Interrupts};
use crate::mm::UserPtr;
use crate::process::{Task, Thread};
use crate::signal::Restart;
use crate::syscalls::SysResult;
use crate::time::Deadline;

/// Waits until it is requeued to the lock `to`, and then until it has got that. EAGAIN if the word has another value; ETIMEDOUT
/// after the deadline, in either wait.
pub async fn wait_requeue(t: &Thread, request: WaitRequest, to: Word, deadline: Option<Deadline>) -> SysResult {
    if request.word.addr == to.addr {
        return Err(Errno::EINVAL.into());
    }
    loop {
        let lock = key_of(t.mm(), to).await?;
        let key = key_of(t.mm(), request.word).await?;
        if key == lock {
            let value = UserPtr::<u32>::new(request.word.addr).read(t.mm()).await?;
            return Err(if value == request.expected { Errno::EINVAL } else { Errno::EAGAIN }.into());
        }
        let travel = pin!(Travel {
            place: Queued::new(TO_LOCK),
            t,
            key,
            lock,
            addr: request.word.addr,
            expected: request.expected,
            wait: None,
            arrived: false,
        });
        let (outcome, wait) = travel_until(travel, deadline.as_ref()).await;
        let Some(wait) = wait else {
            match outcome {
                Some(Outcome::Absent(fault)) => {
                    t.mm().fault_in(fault).await?;
                    continue;
                }
                Some(Outcome::Interrupted) => return Err(Restart::NoIntr.into()),
                Some(Outcome::Differs | Outcome::Woken) => return Err(Errno::EAGAIN.into()),
                None => return Err(Errno::ETIMEDOUT.into()),
            }
        };
        let waited = match outcome {
            Some(Outcome::Interrupted) => Err(()),
            outcome => Ok(outcome.map(|_| ())),
        };
        return match wait.settle(t, to.addr, waited).await? {
            Ended::Owns => Ok(0),
            Ended::Late => Err(Errno::ETIMEDOUT.into()),
            // It cannot be made again: the word has changed since (as Linux answers).
            Ended::Interrupted => Err(Errno::EAGAIN.into()),
        };
    }
}

/// Answers how the wait ended, None for the deadline; and the wait for the lock if it was requeued.
async fn travel_until<'a>(
    mut travel: Pin<&mut Travel<'a>>,
    deadline: Option<&Deadline>,
) -> (Option<Outcome>, Option<Wait<'a>>) {
    let outcome = match deadline {
        None => Some(travel.as_mut().await),
        Some(deadline) => deadline.until(travel.as_mut()).await,
    };
    travel.as_mut().arrive();
    // SAFETY: `wait` is not pinned structurally.
    (outcome, unsafe { travel.get_unchecked_mut() }.wait.take())
}

/// The wait for a word that goes on as a wait for a lock.
struct Travel<'a> {
    place: Queued,
    t: &'a Thread,
    key: Key,
    lock: Key,
    addr: u64,
    expected: u32,
    /// It was requeued.
    wait: Option<Wait<'a>>,
    arrived: bool,
}

impl Travel<'_> {
    /// Ends the wait for the word, or sees that it has ended.
    fn arrive(self: Pin<&mut Self>) {
        // SAFETY: `place` is pinned structurally, the rest is plain data.
        let this = unsafe { self.get_unchecked_mut() };
        if core::mem::replace(&mut this.arrived, true) {
            return;
        }
        // SAFETY: as above.
        let place = unsafe { Pin::new_unchecked(&mut this.place) };
        let at = place.address();
        if place.give_up() && this.wait.is_none() {
            this.wait = Some(Wait { task: this.t.task() });
        }
        graph::lock().remove_traveller(at, this.key);
    }
}

impl Future for Travel<'_> {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        // SAFETY: `place` is pinned structurally, the rest is plain data.
        let this = unsafe { self.get_unchecked_mut() };
        // SAFETY: as above.
        let mut place = unsafe { Pin::new_unchecked(&mut this.place) };
        if this.wait.is_none() {
            if !place.is_queued() {
                graph::lock().add_traveller(place.address(), this.key, this.t.task(), this.lock);
            }
            match poll_place(place.as_mut(), this.key, this.addr, this.expected, Some(this.t), cx) {
                Poll::Ready(Outcome::Woken) => this.wait = Some(Wait { task: this.t.task() }),
                Poll::Pending if !this.t.pending() => return Poll::Pending,
                Poll::Pending => return Poll::Ready(Outcome::Interrupted),
                ended => return ended,
            }
        }
        match graph::lock().poll(this.t.task(), cx.waker()) {
            true => Poll::Ready(Outcome::Woken),
            false if this.t.pending() => Poll::Ready(Outcome::Interrupted),
            false => Poll::Pending,
        }
    }
}

impl Drop for Travel<'_> {
    fn drop(&mut self) {
        // SAFETY: it is not moved any more.
        unsafe { Pin::new_unchecked(self) }.arrive();
    }
}

/// Lets the first waiter of `from` have the lock `to`, or wait for it, and up to `requeue` others wait for it. Answers how many
/// were moved. EAGAIN if `from` has another value.
pub async fn cmp_requeue(t: &Thread, from: Word, to: Word, wake: i32, requeue: i32, expected: u32) -> Result<usize> {
    if wake != 1 || requeue < 0 || from.addr == to.addr {
        return Err(Errno::EINVAL);
    }
    let mm = t.mm();
    let (from_key, to_key) = (key_of(mm, from).await?, key_of(mm, to).await?);
    if from_key == to_key {
        return Err(Errno::EINVAL);
    }
    let left = requeue as usize + 1;
    let mut plan = Plan { from: from.addr, from_key, to: to.addr, to_key, left, expected: Some(expected) };
    let mut moved = 0;
    loop {
        let mut wakers = Wakers::new();
        let step = plan.step(&mut wakers);
        wakers.into_iter().for_each(Waker::wake);
        match step? {
            Stage::Moved(count) => {
                moved += count;
                plan.left -= count.min(plan.left);
                // The others of them stay on the condition variable, as if this call had come after another.
                if count < TURN || plan.left == 0 {
                    return Ok(moved);
                }
                exec::budget().await;
            }
            Stage::Changed => exec::budget().await,
            Stage::Absent(fault) => mm.fault_in(fault).await?,
        }
    }
}

/// So many waiters are moved while the locks are held.
const TURN: usize = 32;

struct Plan {
    from: u64,
    from_key: Key,
    to: u64,
    to_key: Key,
    /// How many may still be moved.
    left: usize,
    /// The comparison that is still to be made.
    expected: Option<u32>,
}

enum Stage {
    Moved(usize),
    Changed,
    Absent(UserFault),
}

impl Plan {
    fn step(&mut self, wakers: &mut Wakers) -> Result<Stage> {
        // The owner is looked up before the locks are taken.
        let owner = Owner::of(self.to);
        let mut pair = Pair::lock(self.from_key, self.to_key);
        if let Some(expected) = self.expected {
            match arch::user::load_u32(self.from) {
                Ok(value) if value == expected => {}
                Ok(_) => return Err(Errno::EAGAIN),
                Err(fault) => return Ok(Stage::Absent(fault)),
            }
        }
        let owner = match owner {
            Ok(owner) => owner,
            Err(fault) => return Ok(Stage::Absent(fault)),
        };
        let plain = table::first(pair.target(), self.to_key).is_some();
        let mut graph = graph::lock();
        let Some(first) = table::first(pair.source(), self.from_key) else { return Ok(Stage::Moved(0)) };
        let first = self.traveller(first, &graph)?;
        let taken = match acquire(&mut graph, &first, self.to, self.to_key, &owner, plain, self.left > 1)? {
            Step::Taken => true,
            Step::Contended => false,
            Step::Changed => return Ok(Stage::Changed),
            Step::Absent(fault) => return Ok(Stage::Absent(fault)),
        };
        self.expected = None;
        if taken {
            wakers.extend(self.unlink_first(&mut pair));
            graph.grant(&first, self.to_key);
            if self.left > 1 {
                graph.attach(self.to_key, &first)?;
            }
        }
        let moved = self.move_others(&mut pair, &mut graph, usize::from(taken));
        graph.detach_if_idle(self.to_key);
        moved.map(Stage::Moved)
    }

    /// Lets waiters wait for the lock, which has an owner, until as many are moved as may be in this turn.
    fn move_others(&self, pair: &mut Pair, graph: &mut Graph, mut moved: usize) -> Result<usize> {
        let list = pair.source();
        let mut cursor = list.front().map(ptr::from_ref);
        let mut checked = false;
        while let Some(node) = cursor
            && moved < self.left.min(TURN)
        {
            // SAFETY: nodes in the locked list are alive; none is touched after it was taken off.
            let node = unsafe { &*node };
            // SAFETY: as above.
            cursor = unsafe { list.after(node) }.map(ptr::from_ref);
            if node.data.key() != self.from_key {
                continue;
            }
            let task = self.traveller(node, graph)?;
            // The chain of owners is walked once, and for those who might be in it.
            if !core::mem::replace(&mut checked, true) || graph.owns_any(&task) {
                graph.check_deadlock(&task, self.to_key)?;
            }
            // SAFETY: as above.
            let waker = unsafe { table::unlink(list, node) };
            graph.enqueue(&task, self.to_key, waker);
            moved += 1;
        }
        Ok(moved)
    }

    /// Who waits in this place. EINVAL if not to be requeued to `to`.
    fn traveller(&self, node: &Node<Waiter>, graph: &Graph) -> Result<Arc<Task>> {
        match graph.traveller(ptr::from_ref(node) as usize) {
            Some((task, to)) if node.data.waits_for_lock() && *to == self.to_key => Ok(task.clone()),
            _ => Err(Errno::EINVAL),
        }
    }

    fn unlink_first(&self, pair: &mut Pair) -> Option<Waker> {
        let list = pair.source();
        let node = ptr::from_ref(table::first(list, self.from_key)?);
        // SAFETY: the node is in the locked list; it is not touched afterwards.
        unsafe { table::unlink(list, &*node) }
    }
}
