//! Tests of the executor on simulated machines.

mod locks;
mod sched;
mod smp;
mod time;
mod wait;

use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Context, Poll, Waker};
use std::boxed::Box;
use std::sync::Arc;

/// A waker that counts.
#[derive(Default)]
pub struct Count(pub AtomicUsize);

impl alloc::task::Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A future polled by hand.
pub struct Manual<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + 'a>>,
    count: Arc<Count>,
}

impl<'a, T> Manual<'a, T> {
    pub fn new(future: impl Future<Output = T> + 'a) -> Self {
        Manual { future: Box::pin(future), count: Arc::default() }
    }

    pub fn poll(&mut self) -> Poll<T> {
        let waker = Waker::from(self.count.clone());
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }

    pub fn wakes(&self) -> usize {
        self.count.0.load(Ordering::SeqCst)
    }
}
