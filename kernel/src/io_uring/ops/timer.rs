//! TIMEOUT, TIMEOUT_REMOVE, and the clocks of link timeouts.

use alloc::sync::Arc;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
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

/// Gives whoever waits another deadline; they are to be woken by `Request::changed`.
pub fn set(cell: &Cell, deadline: Option<Deadline>) {
    let mut timer = cell.lock();
    let version = timer.as_ref().map_or(0, |timer| timer.version.wrapping_add(1));
    *timer = deadline.map(|deadline| Timer { deadline, version });
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
    let is_timeout =
        |other: &Request| other.opcode.load(Relaxed) == Op::Timeout as u8 && other.user_data.load(Relaxed) == sqe.addr;
    if sqe.op_flags & raw::IORING_TIMEOUT_UPDATE == 0 {
        let found = ring.find_one(is_timeout).ok_or(Errno::ENOENT)?;
        return if found.cancel() { Ok(()) } else { Err(Errno::EALREADY) };
    }
    let deadline = deadline(fetched, sqe.op_flags)?;
    if sqe.op_flags & raw::IORING_LINK_TIMEOUT_UPDATE != 0 {
        let limited =
            |other: &Request| other.link_user_data.load(Relaxed) == sqe.addr && other.link_timer.lock().is_some();
        let found = ring.find_one(limited).ok_or(Errno::ENOENT)?;
        set(&found.link_timer, Some(deadline));
        found.changed.wake_all();
        return Ok(());
    }
    let found = ring.find_one(is_timeout).ok_or(Errno::ENOENT)?;
    set(&found.timer, Some(deadline));
    found.changed.wake_all();
    Ok(())
}

/// The deadline of a wait for completions.
pub fn deadline_in(time: UserTimespec) -> Option<Instant> {
    let negative = time.sec < 0 || time.nsec < 0;
    let length =
        Duration::from_secs(time.sec.max(0) as u64).saturating_add(Duration::from_nanos(time.nsec.max(0) as u64));
    Some(if negative { Instant::BOOT } else { exec::Instant::now().saturating_add(length) })
}
