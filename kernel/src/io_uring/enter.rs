//! io_uring_enter(2): submitting, and waiting for completions.

use alloc::sync::Arc;
use core::future::poll_fn;
use core::pin::pin;
use core::sync::atomic::Ordering::{Acquire, SeqCst};
use core::task::Poll;

use super::abi::{Enter, GetEventsArg, Setup, at};
use super::ops::{deadline_in, ring_of};
use super::ring::{LOOK, Ring, WORK};
use super::tasks;
use crate::errno::{Errno, Result};
use crate::exec::{Instant, Interrupted, WaitNode, interruptible, is_budget_used, timeout};
use crate::mm::UserPtr;
use crate::process::Thread;
use crate::signal::{SigSet, with_mask};
use crate::syscalls::{SysError, SysResult};
use crate::time::UserTimespec;

pub async fn enter(t: &Thread, fd: u32, to_submit: u32, least: u32, flags: u32, arg: u64, size: u64) -> SysResult<u32> {
    let flags = Enter::from_bits(flags).ok_or(Errno::EINVAL)?;
    let file = match flags.contains(Enter::REGISTERED_RING) {
        true => tasks::registered_ring(t.task(), fd)?,
        false => t.files().get_io(fd as i32)?,
    };
    let ring = ring_of(&file).ok_or(Errno::EOPNOTSUPP)?;
    if ring.is_disabled() {
        return Err(Errno::EBADFD.into());
    }
    let mut submitted = 0;
    if to_submit > 0 {
        if !ring.may_submit(t.task()) {
            return Err(Errno::EEXIST.into());
        }
        submitted = ring.submit(t, to_submit).await?;
        if submitted != to_submit {
            return Ok(submitted);
        }
    }
    if !flags.contains(Enter::GETEVENTS) {
        return Ok(submitted);
    }
    let waited = wait(ring, t, least.min(ring.cq_entries), flags, arg, size).await;
    ring.hand_over();
    match waited {
        Err(error) if submitted == 0 => Err(error),
        _ => Ok(submitted),
    }
}

/// One simple entry, which is done at once, and perhaps a wait for one completion, which that is.
pub fn enter_now(t: &Thread, fd: u32, to_submit: u32, least: u32, flags: u32) -> Option<SysResult<u32>> {
    if to_submit != 1 || least > 1 || flags & !Enter::GETEVENTS.bits() != 0 {
        return None;
    }
    t.files().with(fd as i32, |file| {
        let ring = ring_of(file)?;
        if ring.is_disabled() || ring.has_ready() || !ring.may_submit(t.task()) || !ring.flush_backlog() {
            return None;
        }
        ring.submit_now(t)?;
        Some(Ok(1))
    })
}

/// The signal mask and deadline of IORING_ENTER_EXT_ARG, or the mask alone.
async fn read_arg(t: &Thread, flags: Enter, arg: u64, size: u64) -> Result<GetEventsArg> {
    if !flags.contains(Enter::EXT_ARG) {
        return Ok(GetEventsArg { sigmask: arg, sigmask_size: size as u32, pad: 0, ts: 0 });
    }
    if size != size_of::<GetEventsArg>() as u64 {
        return Err(Errno::EINVAL);
    }
    let arg = UserPtr::<GetEventsArg>::new(arg).read(t.mm()).await?;
    if arg.pad != 0 { Err(Errno::EINVAL) } else { Ok(arg) }
}

async fn read_mask(t: &Thread, arg: &GetEventsArg) -> Result<Option<SigSet>> {
    if arg.sigmask == 0 {
        return Ok(None);
    }
    if arg.sigmask_size != 8 {
        return Err(Errno::EINVAL);
    }
    Ok(Some(SigSet(UserPtr::<u64>::new(arg.sigmask).read(t.mm()).await?)))
}

/// Polls what is ready, again and again while that makes more ready, within bounds. True if there may be more to poll.
fn work(ring: &Ring, t: &Thread) -> bool {
    if !ring.has_ready() {
        return false;
    }
    let mut more = false;
    for _ in 0..8 {
        more = ring.run_ready() > 0 && ring.has_ready();
        if !more || is_budget_used() {
            break;
        }
    }
    t.mm().activate();
    more
}

async fn wait(ring: &Arc<Ring>, t: &Thread, least: u32, flags: Enter, arg: u64, size: u64) -> SysResult<()> {
    let arg = read_arg(t, flags, arg, size).await?;
    if ring.setup.contains(Setup::DEFER_TASKRUN) && !ring.may_submit(t.task()) {
        return Err(Errno::EEXIST.into());
    }
    work(ring, t);
    ring.flush_backlog();
    if ring.waiting_completions() >= least {
        return Ok(());
    }
    let mask = read_mask(t, &arg).await?;
    let deadline = match arg.ts {
        0 => None,
        ts => deadline_in(UserPtr::<UserTimespec>::new(ts).read(t.mm()).await?),
    };
    let waited = with_mask(t, mask, wait_for(ring, t, least, deadline)).await;
    // Whatever came first: there is something to be taken.
    if ring.waiting_completions() > 0 { Ok(()) } else { waited }
}

async fn wait_for(ring: &Ring, t: &Thread, least: u32, deadline: Option<Instant>) -> SysResult<()> {
    let target = ring.rings.load(at::CQ_HEAD, Acquire).wrapping_add(least);
    let timeouts = ring.timeouts.load(SeqCst);
    let mut node = pin!(WaitNode::exclusive(&ring.queue, 0, WORK | LOOK));
    let done = poll_fn(|cx| {
        node.as_mut().register(cx.waker());
        let more = work(ring, t);
        if !ring.flush_backlog() {
            return Poll::Ready(Err(Errno::EBUSY));
        }
        let enough = ring.rings.load(at::CQ_TAIL, Acquire).wrapping_sub(target) as i32 >= 0;
        if enough || ring.timeouts.load(SeqCst) != timeouts {
            return Poll::Ready(Ok(()));
        }
        if more {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    });
    match interruptible(t, timeout(deadline, done)).await {
        Ok(Ok(done)) => Ok(done?),
        Ok(Err(_)) => Err(Errno::ETIME.into()),
        // Never restarted: entries may have been submitted.
        Err(Interrupted) => Err(SysError::Errno(Errno::EINTR)),
    }
}
