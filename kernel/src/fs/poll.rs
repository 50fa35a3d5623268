//! poll(2) and select(2): waiting for several files at once.
//!
//! Nodes of the files' wait queues live in the caller's future; up to four files need no memory besides. For some more a thread
//! keeps what its last poll has used.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::pin::{Pin, pin};
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;
use core::task::{Poll, Waker};

use smallvec::SmallVec;

use super::file::Events;
use super::open_file::{Kind, OpenFile};
use crate::errno::{Errno, Result};
use crate::exec::{Instant, Interrupted, Interrupts, WaitNode, WaitQueue, interruptible, timeout};
use crate::sync::SpinLock;

/// So many files are in the future itself.
const INLINE: usize = 4;
/// For so many a thread keeps room.
const KEPT: usize = 16;

/// One file to watch and what for. ERR, HUP and NVAL are always looked for.
pub struct Watched {
    /// None: not a descriptor to look at, what is found stays what it is.
    file: Option<Arc<OpenFile>>,
    events: Events,
    found: AtomicU32,
}

impl Watched {
    pub fn new(file: Option<Arc<OpenFile>>, events: Events, found: Events) -> Self {
        Watched { file, events, found: AtomicU32::new(found.bits()) }
    }

    pub fn found(&self) -> Events {
        Events::from_bits_retain(self.found.load(Relaxed))
    }

    fn wanted(&self) -> Events {
        self.events | Events::ERR | Events::HUP | Events::NVAL
    }

    fn look(&self) -> bool {
        if let Some(file) = &self.file {
            self.found.store((file.ready() & self.wanted()).bits(), Relaxed);
        }
        self.found.load(Relaxed) != 0
    }

    fn queue(&self) -> Option<&WaitQueue> {
        match self.file.as_ref()?.kind() {
            Kind::Ops(ops) => ops.wait_queue(),
            _ => None,
        }
    }
}

/// Room for a poll of some files, which a thread keeps from one to the next.
#[derive(Default)]
pub struct Spare(SpinLock<Option<Room>>);

#[derive(Default)]
struct Room {
    watched: Vec<Watched>,
    nodes: Vec<WaitNode<'static>>,
}

/// What is watched together.
pub struct WatchList<'t> {
    watched: SmallVec<[Watched; INLINE]>,
    /// For the nodes, if there are more than fit into the future.
    nodes: Vec<WaitNode<'static>>,
    spare: &'t Spare,
}

impl<'t> WatchList<'t> {
    /// For `count` files at most.
    pub fn new(count: usize, spare: &'t Spare) -> Result<Self> {
        if count <= INLINE {
            return Ok(WatchList { watched: SmallVec::new(), nodes: Vec::new(), spare });
        }
        let kept = if count <= KEPT { spare.0.lock().take() } else { None };
        let mut room = kept.unwrap_or_default();
        room.watched.try_reserve_exact(count.max(KEPT)).map_err(|_| Errno::ENOMEM)?;
        room.nodes.try_reserve_exact(count.max(KEPT)).map_err(|_| Errno::ENOMEM)?;
        Ok(WatchList { watched: SmallVec::from_vec(room.watched), nodes: room.nodes, spare })
    }

    pub fn push(&mut self, watched: Watched) {
        self.watched.push(watched);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Watched> {
        self.watched.iter()
    }

    fn look_at_all(watched: &[Watched]) -> usize {
        watched.iter().map(|watched| usize::from(watched.look())).sum()
    }
}

impl Drop for WatchList<'_> {
    fn drop(&mut self) {
        let mut watched = core::mem::take(&mut self.watched);
        watched.clear();
        if watched.spilled() && watched.capacity() <= KEPT {
            *self.spare.0.lock() = Some(Room { watched: watched.into_vec(), nodes: core::mem::take(&mut self.nodes) });
        }
    }
}

/// Nodes that are registered and dropped together.
struct Nodes<'q>(SmallVec<[WaitNode<'q>; INLINE]>);

impl Nodes<'_> {
    fn register(self: Pin<&mut Self>, waker: &Waker) {
        // SAFETY: the nodes are never moved out of the vector, and the vector neither grows nor shrinks once pinned, so
        // they keep their addresses whether it is inline or on the heap.
        for node in unsafe { self.get_unchecked_mut() }.0.iter_mut() {
            // SAFETY: as above.
            unsafe { Pin::new_unchecked(node) }.register(waker);
        }
    }

    /// Drops the nodes where they are; answers the memory that they had.
    fn end(self: Pin<&mut Self>) -> Vec<WaitNode<'static>> {
        // SAFETY: what is moved is the vector when it is empty.
        let nodes = unsafe { &mut self.get_unchecked_mut().0 };
        nodes.clear();
        if nodes.spilled() { without_borrows(core::mem::take(nodes).into_vec()) } else { Vec::new() }
    }
}

/// An empty vector with the memory of `nodes`: collecting an iterator over a vector reuses it.
fn without_borrows<'q>(nodes: Vec<WaitNode<'_>>) -> Vec<WaitNode<'q>> {
    nodes.into_iter().map_while(|_| None).collect()
}

/// Waits until some file has an event, the deadline, or an interruption. Answers how many have one; 0 at the deadline.
pub async fn poll(
    who: &(impl Interrupts + ?Sized),
    list: &mut WatchList<'_>,
    deadline: Option<Instant>,
) -> core::result::Result<usize, Interrupted> {
    let found = WatchList::look_at_all(&list.watched);
    if found > 0 || deadline == Some(Instant::BOOT) {
        return Ok(found);
    }
    let WatchList { watched, nodes: room, .. } = list;
    let mut nodes = SmallVec::from_vec(without_borrows(core::mem::take(room)));
    nodes.extend(
        watched.iter().filter_map(|watched| Some(WaitNode::shared(watched.queue()?, 0, watched.wanted().bits()))),
    );
    let mut nodes = pin!(Nodes(nodes));
    let wait = poll_fn(|cx| {
        nodes.as_mut().register(cx.waker());
        match WatchList::look_at_all(watched) {
            0 => Poll::Pending,
            found => Poll::Ready(found),
        }
    });
    let result = interruptible(who, timeout(deadline, wait)).await;
    *room = nodes.as_mut().end();
    Ok(result?.unwrap_or(0))
}
