//! The result of a file-system operation that may or may not have to wait.
//!
//! A hit is answered at once and allocates nothing; a miss is a boxed future. Both are awaited the same way.

use alloc::boxed::Box;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A future that is either ready from the start or boxed.
#[must_use]
pub enum Op<'a, T> {
    Ready(Option<T>),
    Boxed(BoxFuture<'a, T>),
}

impl<'a, T> Op<'a, T> {
    pub fn ready(value: T) -> Self {
        Op::Ready(Some(value))
    }

    pub fn boxed(future: impl Future<Output = T> + Send + 'a) -> Self {
        Op::Boxed(Box::pin(future))
    }

    /// The answer, if there is one already. None: it would have to be awaited, and does not begin.
    pub fn now(self) -> Option<T> {
        match self {
            Op::Ready(value) => value,
            Op::Boxed(_) => None,
        }
    }
}

// Nothing in an `Op` is address-sensitive: the boxed future is pinned in its own box.
impl<T> Unpin for Op<'_, T> {}

impl<T> Future for Op<'_, T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match self.get_mut() {
            Op::Ready(value) => Poll::Ready(value.take().expect("an Op is not polled again after it was ready")),
            Op::Boxed(future) => future.as_mut().poll(cx),
        }
    }
}
