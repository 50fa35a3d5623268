//! poll(2) and select(2): waiting for several files at once.
//!
//! Nodes of the files' wait queues live in the caller's future; up to four files need no allocation.

use alloc::sync::Arc;
use core::future::poll_fn;
use core::pin::{Pin, pin};
use core::task::{Poll, Waker};

use smallvec::SmallVec;

use super::file::Events;
use super::open_file::{Kind, OpenFile};
use crate::exec::{Instant, Interrupted, Interrupts, WaitNode, WaitQueue, interruptible, timeout};

/// One file to watch and what for. ERR, HUP and NVAL are always looked for.
pub struct Watched {
    /// None: not a descriptor to look at, `found` stays what it is.
    pub file: Option<Arc<OpenFile>>,
    pub events: Events,
    pub found: Events,
}

pub type WatchList = SmallVec<[Watched; 4]>;

impl Watched {
    fn look(&mut self) -> bool {
        if let Some(file) = &self.file {
            self.found = file.ready() & (self.events | Events::ERR | Events::HUP | Events::NVAL);
        }
        !self.found.is_empty()
    }
}

fn look_at_all(list: &mut [Watched]) -> usize {
    list.iter_mut().map(|watched| usize::from(watched.look())).sum()
}

fn queue_of(file: &Option<Arc<OpenFile>>) -> Option<&WaitQueue> {
    match file.as_ref()?.kind() {
        Kind::Ops(ops) => ops.wait_queue(),
        _ => None,
    }
}

/// Nodes that are registered and dropped together.
struct Nodes<'q>(SmallVec<[WaitNode<'q>; 4]>);

impl Nodes<'_> {
    fn register(self: Pin<&mut Self>, waker: &Waker) {
        // SAFETY: the nodes are never moved out of the vector, and the vector neither grows nor shrinks once pinned, so
        // they keep their addresses whether it is inline or on the heap.
        for node in unsafe { self.get_unchecked_mut() }.0.iter_mut() {
            // SAFETY: as above.
            unsafe { Pin::new_unchecked(node) }.register(waker);
        }
    }
}

/// Waits until some file has an event, the deadline, or an interruption. Answers how many have one; 0 at the deadline.
pub async fn poll(
    who: &(impl Interrupts + ?Sized),
    list: &mut [Watched],
    deadline: Option<Instant>,
) -> Result<usize, Interrupted> {
    let found = look_at_all(list);
    if found > 0 || deadline == Some(Instant::BOOT) {
        return Ok(found);
    }
    let files: SmallVec<[(Option<Arc<OpenFile>>, Events); 4]> =
        list.iter().map(|watched| (watched.file.clone(), watched.events)).collect();
    let always = Events::ERR | Events::HUP | Events::NVAL;
    let nodes = files
        .iter()
        .filter_map(|(file, events)| Some(WaitNode::shared(queue_of(file)?, 0, (*events | always).bits())))
        .collect();
    let mut nodes = pin!(Nodes(nodes));
    let wait = poll_fn(|cx| {
        nodes.as_mut().register(cx.waker());
        match look_at_all(list) {
            0 => Poll::Pending,
            found => Poll::Ready(found),
        }
    });
    Ok(interruptible(who, timeout(deadline, wait)).await?.unwrap_or(0))
}
