//! What ends a wait other than what was waited for: a signal or a deadline.

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;

use super::instant::Instant;
use super::timer::sleep_until;

/// Something whose waits can be interrupted: a thread.
pub trait Interrupts {
    /// A signal can be delivered, or the thread is to die. Whoever makes this true wakes the thread's task afterwards.
    fn pending(&self) -> bool;
}

/// The wait was ended by a signal; how the call restarts is decided when the signal is delivered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupted;

/// The deadline came first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Elapsed;

/// Awaits `future` until `who` is interrupted. What is ready wins over the interruption. The inner future is
/// dropped when this one is: a wake that was spent on it is passed on then.
pub async fn interruptible<T>(
    who: &(impl Interrupts + ?Sized),
    future: impl Future<Output = T>,
) -> Result<T, Interrupted> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Ok(value)),
        // The inner future has registered before this test: a signal posted later finds the task asleep and wakes it,
        // one posted earlier is seen here.
        Poll::Pending if who.pending() => Poll::Ready(Err(Interrupted)),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Awaits `future` until the deadline, if there is one. What is ready wins over the deadline; an overdue one lets `future`
/// be polled once.
pub async fn timeout<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Result<T, Elapsed> {
    let Some(deadline) = deadline else { return Ok(future.await) };
    let mut future = pin!(future);
    let mut sleep = pin!(sleep_until(deadline));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Ok(value)),
        Poll::Pending => sleep.as_mut().poll(cx).map(|()| Err(Elapsed)),
    })
    .await
}
