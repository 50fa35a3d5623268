//! What ends a wait other than what was waited for: a signal or a deadline.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::instant::Instant;
use super::timer::{Sleep, sleep_until};

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

// The two combinators are structs: an async function keeps its arguments beside the future that awaits them, and nesting
// doubles the size each time. Every blocked thread is as large as its largest system call.
pin_project! {
    /// See [`interruptible`].
    #[must_use = "futures do nothing unless awaited"]
    pub struct Interruptible<'a, W: ?Sized, F> {
        who: &'a W,
        #[pin]
        future: F,
    }
}

/// Awaits `future` until `who` is interrupted. What is ready wins over the interruption. The inner future is
/// dropped when this one is: a wake that was spent on it is passed on then.
pub fn interruptible<W: Interrupts + ?Sized, F: Future>(who: &W, future: F) -> Interruptible<'_, W, F> {
    Interruptible { who, future }
}

impl<W: Interrupts + ?Sized, F: Future> Future for Interruptible<'_, W, F> {
    type Output = Result<F::Output, Interrupted>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.future.poll(cx) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            // The inner future has registered before this test: a signal posted later finds the task asleep and wakes
            // it, one posted earlier is seen here.
            Poll::Pending if this.who.pending() => Poll::Ready(Err(Interrupted)),
            Poll::Pending => Poll::Pending,
        }
    }
}

pin_project! {
    /// See [`timeout`].
    #[must_use = "futures do nothing unless awaited"]
    pub struct Timeout<F> {
        #[pin]
        future: F,
        #[pin]
        sleep: Option<Sleep>,
    }
}

/// Awaits `future` until the deadline, if there is one. What is ready wins over the deadline; an overdue one lets `future`
/// be polled once.
pub fn timeout<F: Future>(deadline: Option<Instant>, future: F) -> Timeout<F> {
    Timeout { future, sleep: deadline.map(sleep_until) }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match (this.future.poll(cx), this.sleep.as_pin_mut()) {
            (Poll::Ready(value), _) => Poll::Ready(Ok(value)),
            (Poll::Pending, Some(sleep)) => sleep.poll(cx).map(|()| Err(Elapsed)),
            (Poll::Pending, None) => Poll::Pending,
        }
    }
}
