//! TIMEOUT, TIMEOUT_REMOVE, and the clocks of link timeouts.

use alloc::sync::Arc;
use core::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use core::time::Duration;

use linux_raw_sys::io_uring as raw;

use super::{Op, exec_select, number, wait};
use crate::errno::{Errno, Result};
use crate::exec::{self, Instant};
use crate::io_uring::abi::{Outcome, Sqe};
use crate::io_uring::request::{Request, Timer};
use crate::io_uring::submit::Fetched;
use crate::sync::SpinLock;
use crate::time::{ClockId, Deadline, UserTimespec};

type Cell = SpinLock<Option<Timer>>;

/// The time of a timeout, from now or as a point on a clock.
pub fn deadline(fetched: &Fetched, flags: u32) -> Result<Deadline> {
    let time = fetched.time.ok_or(Errno::EFAULT)?;
    if time.sec < 0 || time.nsec < 0 {
        return Err(Errno::EINVAL);
    }
    let length = Duration::from_secs(time.sec as u64).saturating_add(Duration::from_nanos(time.nsec as u64));
    if flags & raw::IORING_TIMEOUT_ABS == 0 {
        return Ok(Deadline::after(length));
    }
    let clock = match flags & raw::IORING_TIMEOUT_CLOCK_MASK {
        raw::IORING_TIMEOUT_REALTIME => ClockId::Realtime,
        raw::IORING_TIMEOUT_BOOTTIME => ClockId::Boottime,
        _ => ClockId::Monotonic,
    };
    Ok(Deadline { clock, at: u64::try_from(length.as_nanos()).unwrap_or(u64::MAX) })
}

/// Begins or ends a wait.
pub fn set(cell: &Cell, deadline: Option<Deadline>) {
    *cell.lock() = deadline.map(|deadline| Timer { deadline, version: 0 });
}

/// Gives whoever waits, if it is who is `meant`, another deadline; they are to be woken by `Request::changed`.
fn replace(cell: &Cell, deadline: &Deadline, meant: impl FnOnce() -> bool) -> bool {
    let mut timer = cell.lock();
    let Some(timer) = timer.as_mut().filter(|_| meant()) else { return false };
    *timer = Timer { deadline: deadline.clone(), version: timer.version.wrapping_add(1) };
    true
}

/// Sleeps until the deadline, wherever it is moved meanwhile.
pub async fn wait_until(request: &Request, cell: &Cell) {
    loop {
        let Some(timer) = cell.lock().clone() else { return };
        let changed = || (cell.lock().as_ref().is_none_or(|now| now.version != timer.version)).then_some(());
        let sleep = core::pin::pin!(timer.deadline.sleep());
        let change = core::pin::pin!(request.changed.wait_for(changed));
        if exec_select(sleep, change).await.is_some() {
            return;
        }
    }
}

pub async fn timeout(request: &Arc<Request>, sqe: &Sqe, fetched: &Fetched) -> Outcome {
    let ring = &request.ring;
    // Before anything else can complete.
    let target = ring.counted.load(SeqCst).wrapping_add(sqe.off as u32);
    let counts = sqe.off as u32 != 0;
    match deadline(fetched, sqe.op_flags) {
        Ok(deadline) => set(&request.timer, Some(deadline)),
        Err(errno) => return Outcome::of(-errno.get()),
    }
    let reached = || (counts && target.wrapping_sub(ring.counted.load(SeqCst)) as i32 <= 0).then_some(());
    let waiting = wait(request, async {
        let count = core::pin::pin!(ring.count_queue.wait_for(reached));
        let clock = core::pin::pin!(wait_until(request, &request.timer));
        exec_select(count, clock).await.is_some()
    });
    let answer = waiting.await;
    set(&request.timer, None);
    match answer {
        Ok(true) => Outcome::good(0),
        Ok(false) => {
            let failed = sqe.op_flags & raw::IORING_TIMEOUT_ETIME_SUCCESS == 0;
            Outcome { res: -Errno::ETIME.get(), flags: 0, failed }
        }
        Err(error) => Outcome::of(number(request, Err::<(), _>(error))),
    }
}

pub fn remove(request: &Arc<Request>, sqe: &Sqe, fetched: &Fetched) -> Outcome {
    Outcome::of(number(request, change(request, sqe, fetched)))
}

fn change(request: &Arc<Request>, sqe: &Sqe, fetched: &Fetched) -> Result<()> {
    let ring = &request.ring;
    let has_name = |other: &Request| other.user_data.load(Acquire) == sqe.addr;
    if sqe.op_flags & raw::IORING_TIMEOUT_UPDATE == 0 {
        return ring.cancel_one(|other| other.opcode.load(Acquire) == Op::Timeout as u8 && has_name(other));
    }
    let deadline = deadline(fetched, sqe.op_flags)?;
    let limits = sqe.op_flags & raw::IORING_LINK_TIMEOUT_UPDATE != 0;
    let changed = ring.find_one(|other| match limits {
        true => replace(&other.link_timer, &deadline, || other.link_user_data.load(Relaxed) == sqe.addr),
        false => replace(&other.timer, &deadline, || has_name(other)),
    });
    changed.ok_or(Errno::ENOENT)?.changed.wake_all();
    Ok(())
}

/// The deadline of a wait for completions.
pub fn deadline_in(time: UserTimespec) -> Option<Instant> {
    let negative = time.sec < 0 || time.nsec < 0;
    let length =
        Duration::from_secs(time.sec.max(0) as u64).saturating_add(Duration::from_nanos(time.nsec.max(0) as u64));
    Some(if negative { Instant::BOOT } else { exec::Instant::now().saturating_add(length) })
}
