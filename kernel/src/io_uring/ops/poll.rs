//! POLL_ADD, once or again and again, and POLL_REMOVE, which also changes what a poll waits for.

use alloc::sync::Arc;
use core::future::poll_fn;
use core::pin::pin;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::task::Poll;

use linux_raw_sys::io_uring as raw;

use super::{Op, number, wait};
use crate::errno::{Errno, Result};
use crate::exec::WaitNode;
use crate::fs::{Events, OpenFile};
use crate::io_uring::abi::{Outcome, Sqe};
use crate::io_uring::request::Request;
use crate::io_uring::ring::Ring;

/// What every poll is told of (IO_POLL_UNMASK of Linux).
const ALWAYS: Events = Events::ERR.union(Events::HUP).union(Events::NVAL).union(Events::RDHUP);

/// In [`Request::events`], beside the events that are wanted.
const MULTI: u32 = 1 << 16;
const LEVEL: u32 = 1 << 17;

fn wish(sqe: &Sqe) -> u32 {
    let mut wish = sqe.op_flags & Events::all().bits();
    if sqe.len & raw::IORING_POLL_ADD_MULTI != 0 {
        wish |= MULTI;
    }
    if sqe.len & raw::IORING_POLL_ADD_LEVEL != 0 {
        wish |= LEVEL;
    }
    wish
}

pub async fn add(request: &Arc<Request>, sqe: &Sqe, file: &Arc<OpenFile>) -> Outcome {
    let Some(queue) = file.ops().and_then(|ops| ops.wait_queue()) else {
        // Always ready, or never for what it is asked about.
        let found = file.ready() & (Events::from_bits_truncate(sqe.op_flags) | ALWAYS);
        return if found.is_empty() { Outcome::of(-Errno::EINVAL.get()) } else { Outcome::good(found.bits() as i32) };
    };
    *request.events.lock() = Some(wish(sqe));
    let mut first = true;
    let wait = wait(request, async {
        let mut node = pin!(WaitNode::shared(queue, 0, Events::all().bits()));
        let mut change = pin!(WaitNode::new(&request.changed));
        poll_fn(|cx| {
            // Edges: an event is told when it comes, and those that hold at the beginning or after a change.
            let look = first || node.was_woken() || change.was_woken();
            first = false;
            node.as_mut().register(cx.waker());
            change.as_mut().register(cx.waker());
            let wish = request.events.lock().unwrap_or(0);
            let found = file.ready() & (Events::from_bits_truncate(wish) | ALWAYS);
            if found.is_empty() || !look && wish & (MULTI | LEVEL) == MULTI {
                return Poll::Pending;
            }
            if wish & MULTI == 0 {
                return Poll::Ready(Outcome::good(found.bits() as i32));
            }
            let user_data = request.user_data.load(Relaxed);
            if !request.ring.complete_part(user_data, found.bits() as i32, 0) {
                return Poll::Ready(Outcome::of(-Errno::ECANCELED.get()));
            }
            Poll::Pending
        })
        .await
    });
    let outcome = wait.await;
    *request.events.lock() = None;
    outcome.unwrap_or_else(|error| Outcome::of(number(request, Err::<(), _>(error))))
}

pub fn remove(ring: &Ring, sqe: &Sqe) -> Result<()> {
    let has_name = |request: &Request| request.user_data.load(Acquire) == sqe.addr;
    if sqe.len & (raw::IORING_POLL_UPDATE_EVENTS | raw::IORING_POLL_UPDATE_USER_DATA) == 0 {
        return ring.cancel_one(|request| request.opcode.load(Acquire) == Op::PollAdd as u8 && has_name(request));
    }
    let changed = ring.find_one(|request| {
        let mut events = request.events.lock();
        let Some(events) = events.as_mut().filter(|_| has_name(request)) else { return false };
        if sqe.len & raw::IORING_POLL_UPDATE_USER_DATA != 0 {
            request.user_data.store(sqe.off, Release);
        }
        if sqe.len & raw::IORING_POLL_UPDATE_EVENTS != 0 {
            *events = wish(sqe) & Events::all().bits() | *events & (MULTI | LEVEL);
        }
        true
    });
    changed.ok_or(Errno::ENOENT)?.changed.wake_all();
    Ok(())
}
