//! Channels to servers: what carries a message there and its reply back, and the table of them by mount tag.
//!
//! An [`Exchange`] owns its buffers until the channel completes it, so a future that waits for a reply may be dropped at
//! any time.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};

use crate::errno::{Errno, Result};
use crate::sync::{RwSpinLock, SpinLock};

/// A message and the room for its reply. An exchange that is dropped has failed.
pub struct Exchange {
    pub request: Vec<u8>,
    pub reply: Vec<u8>,
    completion: Arc<Completion>,
}

#[derive(Default)]
struct Completion(SpinLock<State>);

#[derive(Default)]
enum State {
    #[default]
    Sent,
    Awaited(Waker),
    Done(Result<Vec<u8>>),
    Taken,
}

impl Exchange {
    pub fn new(request: Vec<u8>, reply: Vec<u8>) -> (Exchange, Pending) {
        let completion = Arc::new(Completion::default());
        (Exchange { request, reply, completion: completion.clone() }, Pending(completion))
    }

    /// The reply has come, with so many bytes; called once, at the latest in interrupt service.
    pub fn complete(mut self, result: Result<usize>) {
        let mut reply = core::mem::take(&mut self.reply);
        self.end(result.map(|len| {
            reply.truncate(len);
            reply
        }));
    }

    fn end(&self, result: Result<Vec<u8>>) {
        let before = {
            let mut state = self.completion.0.lock();
            match *state {
                State::Done(_) | State::Taken => return,
                _ => core::mem::replace(&mut *state, State::Done(result)),
            }
        };
        if let State::Awaited(waker) = before {
            waker.wake();
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.end(Err(Errno::EIO));
    }
}

/// Waits for the reply. Dropping it does not end the exchange.
pub struct Pending(Arc<Completion>);

impl Future for Pending {
    type Output = Result<Vec<u8>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.0.lock();
        match core::mem::replace(&mut *state, State::Taken) {
            State::Done(result) => Poll::Ready(result),
            State::Taken => Poll::Ready(Err(Errno::EIO)),
            State::Sent | State::Awaited(_) => {
                *state = State::Awaited(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A way to a server.
pub trait Channel: Send + Sync {
    /// Takes the exchange and answers at once; it is completed later, possibly before this returns, in any order.
    fn submit(&self, exchange: Exchange);
}

struct Known {
    tag: Vec<u8>,
    channel: Arc<dyn Channel>,
    used: Arc<AtomicBool>,
}

static CHANNELS: RwSpinLock<Vec<Known>> = RwSpinLock::new(Vec::new());

/// Makes a channel known to mount(2).
pub fn register(tag: Vec<u8>, channel: Arc<dyn Channel>) {
    CHANNELS.write().push(Known { tag, channel, used: Arc::new(AtomicBool::new(false)) });
}

/// A channel for one session: a server knows only one at a time.
pub struct Claim {
    channel: Arc<dyn Channel>,
    used: Arc<AtomicBool>,
}

impl Claim {
    /// ENOENT if there is no channel of this tag, EBUSY if all are in use, as on Linux.
    pub fn of_tag(tag: &[u8]) -> Result<Claim> {
        let mut error = Errno::ENOENT;
        for known in CHANNELS.read().iter().filter(|known| known.tag == tag) {
            if !known.used.swap(true, Ordering::AcqRel) {
                return Ok(Claim { channel: known.channel.clone(), used: known.used.clone() });
            }
            error = Errno::EBUSY;
        }
        Err(error)
    }

    #[cfg(test)]
    pub fn of_channel(channel: Arc<dyn Channel>) -> Claim {
        Claim { channel, used: Arc::new(AtomicBool::new(true)) }
    }

    pub fn submit(&self, exchange: Exchange) {
        self.channel.submit(exchange);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.used.store(false, Ordering::Release);
    }
}
