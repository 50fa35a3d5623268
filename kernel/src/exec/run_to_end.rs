//! Work that ends although nobody waits for it any more.

use alloc::boxed::Box;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Runs an operation to its end even if whoever waits for it goes away: a change of several steps must not stop half-way.
/// What has not begun by then does not begin.
pub fn run_to_end<T: Send + 'static>(
    spawn: fn(BoxFuture<'static, ()>),
    future: impl Future<Output = T> + Send + 'static,
) -> RunToEnd<T> {
    RunToEnd { future: Some(Box::pin(future)), begun: false, spawn }
}

/// See [`run_to_end`].
pub struct RunToEnd<T: Send + 'static> {
    future: Option<BoxFuture<'static, T>>,
    begun: bool,
    spawn: fn(BoxFuture<'static, ()>),
}

impl<T: Send> Future for RunToEnd<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.begun = true;
        let Some(future) = &mut self.future else { return Poll::Pending };
        let result = core::task::ready!(future.as_mut().poll(cx));
        self.future = None;
        Poll::Ready(result)
    }
}

impl<T: Send + 'static> Drop for RunToEnd<T> {
    fn drop(&mut self) {
        if let Some(future) = self.future.take()
            && self.begun
        {
            (self.spawn)(Box::pin(async move {
                future.await;
            }));
        }
    }
}
