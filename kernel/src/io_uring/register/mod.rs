//! What programs register with a ring (io_uring_register(2)).
//!
//! * [`files`], [`buffers`]: open files and memory that entries name by an index.
//! * [`provided`]: groups of buffers from which entries take one when they need it.
//! * [`call`]: the system call; [`probe`]: what there is; [`restrict`]: what entries may do.

mod buffers;
mod call;
mod files;
mod probe;
mod provided;
mod restrict;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;

use linux_raw_sys::io_uring as raw;

pub use buffers::Fixed;
pub use call::{is_known, register};
pub use provided::{Buffer, Provided};

use self::files::Files;
use self::provided::Group;
use self::restrict::Restrictions;
use super::abi::at;
use super::ring::Ring;
use crate::errno::{Errno, Result};
use crate::fs::OpenFile;
use crate::fs::eventfd::EventFd;
use crate::process::Credentials;
use crate::sync::{Once, SpinLock};

/// What is registered with one ring. Each lock is a leaf, but `eventfd`: the ring's completions are counted under it.
#[derive(Default)]
pub struct Registered {
    files: SpinLock<Option<Files>>,
    buffers: SpinLock<Option<Arc<[Fixed]>>>,
    groups: SpinLock<BTreeMap<u16, Group>>,
    eventfd: SpinLock<Option<Notified>>,
    /// There is one.
    notifies: AtomicBool,
    personalities: SpinLock<BTreeMap<u16, Arc<Credentials>>>,
    restrictions: Once<Restrictions>,
}

/// IORING_REGISTER_EVENTFD.
struct Notified {
    file: Arc<OpenFile>,
    /// Only for what does not complete at once.
    only_later: bool,
    /// What the tail was when it was last told.
    tail: u32,
}

impl Registered {
    /// The ring is closed: lets go of everything.
    pub fn clear(&self) {
        let files = self.files.lock().take();
        let eventfd = self.eventfd.lock().take();
        let groups = core::mem::take(&mut *self.groups.lock());
        drop((files, eventfd, groups));
        *self.buffers.lock() = None;
        self.personalities.lock().clear();
    }

    /// IORING_REGISTER_EVENTFD, or IORING_REGISTER_EVENTFD_ASYNC.
    fn set_eventfd(&self, ring: &Ring, file: Arc<OpenFile>, only_later: bool) -> Result<()> {
        if file.ops_as::<EventFd>().is_none() {
            return Err(Errno::EINVAL);
        }
        let mut eventfd = self.eventfd.lock();
        if eventfd.is_some() {
            return Err(Errno::EBUSY);
        }
        *eventfd = Some(Notified { file, only_later, tail: ring.cached_tail() });
        self.notifies.store(true, Relaxed);
        Ok(())
    }

    fn take_eventfd(&self) -> Result<()> {
        let old = self.eventfd.lock().take();
        old.map(drop).ok_or(Errno::ENXIO)
    }

    /// There are new completions; `later`: of entries that had to wait.
    pub fn signal_eventfd(&self, ring: &Ring, later: bool) {
        if !self.notifies.load(Relaxed) {
            return;
        }
        let mut eventfd = self.eventfd.lock();
        let Some(notified) = eventfd.as_mut() else { return };
        if ring.rings.load(at::CQ_FLAGS, Relaxed) & raw::IORING_CQ_EVENTFD_DISABLED != 0
            || notified.only_later && !later
        {
            return;
        }
        let tail = ring.posted();
        if core::mem::replace(&mut notified.tail, tail) == tail {
            return;
        }
        let file = notified.file.clone();
        drop(eventfd);
        if let Some(event) = file.ops_as::<EventFd>() {
            event.signal(1);
        }
    }

    /// IORING_REGISTER_PERSONALITY.
    fn add_personality(&self, creds: Arc<Credentials>) -> Result<u16> {
        let mut all = self.personalities.lock();
        let id = (1..=u16::MAX).find(|id| !all.contains_key(id)).ok_or(Errno::ENOMEM)?;
        all.insert(id, creds);
        Ok(id)
    }

    fn remove_personality(&self, id: u32) -> Result<()> {
        let id = u16::try_from(id).map_err(|_| Errno::EINVAL)?;
        let old = self.personalities.lock().remove(&id);
        old.map(drop).ok_or(Errno::EINVAL)
    }

    pub fn personality(&self, id: u16) -> Result<Arc<Credentials>> {
        self.personalities.lock().get(&id).cloned().ok_or(Errno::EINVAL)
    }

    /// The ids of personalities, for /proc.
    pub fn personalities(&self) -> alloc::vec::Vec<(u16, Arc<Credentials>)> {
        self.personalities.lock().iter().map(|(id, creds)| (*id, creds.clone())).collect()
    }

    /// Has the ring been told what it may do?
    pub fn is_restricted(&self) -> bool {
        self.restrictions.get().is_some()
    }

    /// May the entry be begun?
    pub fn allows(&self, sqe: &super::abi::Sqe) -> Result<()> {
        match self.restrictions.get() {
            Some(restrictions) => restrictions.allow(sqe),
            None => Ok(()),
        }
    }
}
