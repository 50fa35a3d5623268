//! Signal masks, and waiting for signals: sigprocmask(2), sigsuspend(2), sigtimedwait(2), and the masks of ppoll(2).

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::Restart;
use super::deliver::dequeue;
use super::info::SigInfo;
use super::send::{is_fatal, retarget};
use super::set::{SIGMAX, SigSet};
use crate::errno::{Errno, Result};
use crate::exec::{self, Instant};
use crate::process::Thread;
use crate::syscalls::{SysError, SysResult};

/// Replaces the thread's mask; answers the old one.
#[inline(always)]
pub fn set_mask(t: &Thread, mask: SigSet) -> SigSet {
    let mask = mask.blockable();
    let mut local = t.sig.lock();
    let old = core::mem::replace(&mut local.blocked, mask);
    t.task().update_pending(&local);
    drop(local);
    let newly = mask.without(old);
    if !newly.is_empty() {
        retarget(t.process(), newly, t.task());
    }
    old
}

pin_project! {
    /// See [`with_mask`].
    #[must_use = "futures do nothing unless awaited"]
    pub struct WithMask<'a, F> {
        t: &'a Thread,
        // The mask to be set by the first poll.
        mask: Option<SigSet>,
        // The mask to come back.
        old: Option<SigSet>,
        #[pin]
        wait: F,
    }
}

/// Runs a wait with another mask (ppoll, pselect, epoll_pwait). If a signal ends it, the old mask comes back only
/// when the handler returns, so that the signal that was let in is handled.
pub fn with_mask<T, F: Future<Output = SysResult<T>>>(t: &Thread, mask: Option<SigSet>, wait: F) -> WithMask<'_, F> {
    WithMask { t, mask, old: None, wait }
}

impl<T, F: Future<Output = SysResult<T>>> Future for WithMask<'_, F> {
    type Output = SysResult<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SysResult<T>> {
        let this = self.project();
        if let Some(mask) = this.mask.take() {
            *this.old = Some(begin_temporary(this.t, mask));
        }
        let Poll::Ready(result) = this.wait.poll(cx) else { return Poll::Pending };
        let interrupted = matches!(result, Err(SysError::Restart(_) | SysError::Errno(Errno::EINTR)));
        if let Some(old) = this.old.take_if(|_| !interrupted) {
            this.t.sig.lock().saved = None;
            set_mask(this.t, old);
        }
        Poll::Ready(result)
    }
}

fn begin_temporary(t: &Thread, mask: SigSet) -> SigSet {
    let old = set_mask(t, mask);
    t.sig.lock().saved = Some(old);
    old
}

/// sigsuspend(2): waits until a signal has been handled.
pub async fn suspend(t: &Thread, mask: SigSet) -> SysError {
    begin_temporary(t, mask);
    let _ = exec::interruptible(t, core::future::pending::<()>()).await;
    SysError::Restart(Restart::NoHand)
}

/// sigtimedwait(2): takes a pending signal of `wanted`, waiting for one until the deadline. EAGAIN after that, EINTR
/// if a signal that is not wanted came first.
pub async fn wait_for(t: &Thread, wanted: SigSet, deadline: Option<Instant>) -> Result<SigInfo> {
    let wanted = wanted.blockable();
    if let Some(info) = take(t, wanted) {
        return Ok(info);
    }
    // While it waits, what it waits for is not blocked, so that senders choose this thread and wake it.
    {
        let mut local = t.sig.lock();
        let blocked = local.blocked;
        local.real_blocked = Some(blocked);
        local.blocked = blocked.without(wanted);
        t.task().update_pending(&local);
    }
    let waited = exec::timeout(deadline, exec::interruptible(t, core::future::pending::<()>())).await;
    {
        let mut local = t.sig.lock();
        if let Some(blocked) = local.real_blocked.take() {
            local.blocked = blocked;
        }
    }
    // One that ends the process and was not blocked before does so: it has not been waited for, as on Linux.
    let mut wanted = wanted;
    let unblocked = wanted.without(t.sig.lock().blocked);
    if !unblocked.is_empty() {
        let deadly = |signo: &u8| unblocked.contains(*signo) && is_fatal(t.process(), *signo);
        (1..=SIGMAX).filter(deadly).for_each(|signo| wanted.remove(signo));
    }
    // The mask is narrower again: whether anything is pending has to be found out anew, which `take` does.
    let taken = take(t, wanted);
    // More of them may have come, to this thread because it did not block them.
    retarget(t.process(), wanted, t.task());
    match taken {
        Some(info) => Ok(info),
        None if waited.is_err() => Err(Errno::EAGAIN),
        None => Err(Errno::EINTR),
    }
}

/// Takes a pending signal of `wanted`, blocked or not.
pub(super) fn take(t: &Thread, wanted: SigSet) -> Option<SigInfo> {
    dequeue(t, wanted).0
}
