//! The executor: runs tasks on CPUs, lets them wait, and shares the CPUs among them.
//!
//! A *task* is a future with its [`Entity`], which is what the scheduler knows of it. Every CPU runs
//! [`run_cpu`]: service interrupts, pick a task, poll it, again. A task that answers `Pending` has left its waker somewhere:
//! in a [`WaitQueue`], a timer, a lock. Waking makes a `Runnable` of it, which belongs to exactly one place at a time:
//!
//! ```text
//!              wake                    pick                      poll
//!   asleep ───────────▶ run queue ────────────▶ polled ─────────────────▶ asleep, or gone
//!     │  other CPU's ▲      ▲  ▲                  ▲  │
//!     ├────▶ inbox ──┘      │  └──────────────────┼──┘ woken while it ran: `yield_now`, pre-emption
//!     │                     │ slice over          │
//!     └────▶ next slot ─────┴─────────────────────┘ the hand-over of a wake by the running task
//! ```
//!
//! * `runnable`: what is polled, and its states; `cpu`: per-CPU state and the main loop; `queue`, `front`: order of tasks; `wake`: where a woken task goes; `inbox`: what other CPUs wake; `tick`: timer and slices; `throttle`: what
//!   real-time tasks leave to others.
//! * `list`, `wait`, `timer`, `semaphore`, `locks`: what tasks wait in. Nodes live in the waiting futures.
//! * `interrupt`: waits that end by a signal or a deadline.
//!
//! Locks: spinlocks here are leaves. Wakers are called with no lock of this module held.

mod cpu;
mod entity;
mod front;
mod hw;
mod inbox;
mod instant;
mod interrupt;
pub mod list;
mod locks;
mod params;
mod queue;
mod run_to_end;
mod runnable;
mod semaphore;
mod stats;
mod task;
#[cfg(test)]
pub mod test_util;
#[cfg(test)]
mod tests;
mod throttle;
mod tick;
mod timer;
mod wait;
mod wake;

pub use cpu::{init, online, run_cpu, set_fp_saver};
pub use entity::{Entity, Storage, count_storage};
pub use instant::Instant;
pub use interrupt::{Elapsed, Interrupted, Interruptible, Interrupts, Timeout, interruptible, timeout};
pub use locks::{Event, Mutex, MutexGuard, Notify, ReadGuard, RwLock, WriteGuard};
pub use params::{CpuMask, SchedParams, SchedPolicy};
pub use run_to_end::{RunToEnd, run_to_end};
pub use semaphore::{Acquire, Semaphore};
pub use stats::{CpuStats, LOAD_SHIFT, cpu_stats, load_average, nr_running};
pub use task::{budget, give_way, is_budget_used, is_current, need_resched, spawn, spawn_entity, yield_now};
pub use throttle::{rt_bandwidth, set_rt_bandwidth};
pub use timer::{Sleep, TimerHandle, sleep_until};
pub use wait::{ANY, WaitEntry, WaitFor, WaitNode, WaitOnce, WaitQueue};
