//! Waiting for the state of a page to change.

use super::super::frames::Frame;
use super::super::frames::page::PageFlags;
use crate::exec::WaitQueue;

const QUEUES: usize = 64;

/// Hashed by frame number: a wake may reach waiters for another page, who test again.
static WAITERS: [WaitQueue; QUEUES] = [const { WaitQueue::new() }; QUEUES];

fn queue(frame: &Frame) -> &'static WaitQueue {
    &WAITERS[frame.pfn() as usize % QUEUES]
}

/// Sleeps until none of `flags` is set.
pub(super) async fn until_clear(frame: &Frame, flags: PageFlags) {
    queue(frame).wait_for(|| (!frame.page().flags().intersects(flags)).then_some(())).await;
}

/// To be called after a flag that others wait for was cleared.
pub(super) fn wake(frame: &Frame) {
    queue(frame).wake_all();
}
