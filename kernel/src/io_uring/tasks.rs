//! What a thread has to do with rings: those that it has registered for itself, and those that work for it.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::ops::ring_of;
use super::ring::Ring;
use crate::errno::{Errno, Result};
use crate::fs::OpenFile;
use crate::mm::UserPtr;
use crate::process::{Task, Thread};

/// IO_RINGFD_REG_MAX of Linux.
const SLOTS: usize = 16;

/// A thread's rings.
#[derive(Default)]
pub struct TaskRings {
    /// Rings that have, or had, requests of this thread.
    used: Vec<Weak<Ring>>,
    /// IORING_REGISTER_RING_FDS.
    registered: [Option<Arc<OpenFile>>; SLOTS],
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RingUpdate {
    offset: u32,
    resv: u32,
    data: u64,
}

fn with<R>(task: &Task, f: impl FnOnce(&mut TaskRings) -> R) -> R {
    f(task.rings.lock().get_or_insert_with(Box::default))
}

/// A request of the thread begins: it must not outlive the thread.
pub fn note_use(ring: &Arc<Ring>, task: &Task) {
    with(task, |rings| {
        if !rings.used.iter().any(|used| Weak::as_ptr(used) == Arc::as_ptr(ring)) {
            rings.used.retain(|used| used.strong_count() > 0);
            rings.used.push(Arc::downgrade(ring));
        }
    });
}

/// The thread has made a ring.
pub fn note_setup(task: &Task) {
    with(task, |_| ());
}

/// The ring that a thread has registered at this index.
pub fn registered_ring(task: &Task, index: u32) -> Result<Arc<OpenFile>> {
    if index as usize >= SLOTS {
        return Err(Errno::EINVAL);
    }
    let rings = task.rings.lock();
    let rings = rings.as_ref().ok_or(Errno::EINVAL)?;
    rings.registered.get(index as usize).and_then(Clone::clone).ok_or(Errno::EBADF)
}

/// IORING_REGISTER_RING_FDS; answers how many were registered.
pub async fn register_rings(t: &Thread, list: UserPtr<RingUpdate>, count: u32) -> Result<i32> {
    each(t, list, count, |update| {
        let range = match update.offset {
            u32::MAX => 0..SLOTS,
            offset if (offset as usize) < SLOTS => offset as usize..offset as usize + 1,
            _ => return Err(Errno::EINVAL),
        };
        let file = t.files().get(update.data as i32)?;
        ring_of(&file).ok_or(Errno::EOPNOTSUPP)?;
        let free = |rings: &mut TaskRings| {
            let slot = range.into_iter().find(|slot| matches!(rings.registered.get(*slot), Some(None)))?;
            rings.registered[slot] = Some(file);
            Some(slot as u32)
        };
        with(t.task(), free).map(Some).ok_or(Errno::EBUSY)
    })
    .await
}

/// IORING_UNREGISTER_RING_FDS; answers how many were given up.
pub async fn unregister_rings(t: &Thread, list: UserPtr<RingUpdate>, count: u32) -> Result<i32> {
    if t.task().rings.lock().is_none() {
        return Ok(0);
    }
    each(t, list, count, |update| {
        if update.data != 0 || update.offset as usize >= SLOTS {
            return Err(Errno::EINVAL);
        }
        let old = with(t.task(), |rings| rings.registered.get_mut(update.offset as usize).and_then(Option::take));
        drop(old);
        Ok(None)
    })
    .await
}

/// Goes through a list; `change` answers what its offset becomes. What was done before an error counts.
async fn each(
    t: &Thread,
    list: UserPtr<RingUpdate>,
    count: u32,
    change: impl Fn(RingUpdate) -> Result<Option<u32>>,
) -> Result<i32> {
    if count == 0 || count as usize > SLOTS {
        return Err(Errno::EINVAL);
    }
    let mut done = 0;
    for index in 0..count as usize {
        let one = async {
            let mut update = list.at(index).read(t.mm()).await?;
            if update.resv != 0 {
                return Err(Errno::EINVAL);
            }
            if let Some(offset) = change(update)? {
                update.offset = offset;
                list.at(index).write(t.mm(), update).await?;
            }
            Ok(())
        };
        match one.await {
            Ok(()) => done += 1,
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// The thread ends, or executes another program: what rings do for it ends first.
pub async fn leave(t: &Thread) {
    let Some(rings) = t.task().rings.lock().take() else { return };
    let TaskRings { used, registered } = *rings;
    for ring in used.iter().filter_map(Weak::upgrade) {
        ring.abandon(t.task()).await;
    }
    t.mm().activate();
    drop(registered);
}
