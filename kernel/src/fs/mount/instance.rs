//! What all mounts of a file system share.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use super::super::dentry::{self, Dentry};
use super::super::inode::FileSystem;
use super::super::inotify;
use super::writers::Writers;
use crate::errno::{Errno, Result};
use crate::exec;
use crate::mm::page_cache;
use crate::sync::{Once, SpinLock};

/// A file system that is mounted, or about to be. The last drop, unless the instance has ended before, writes it back.
pub struct Instance {
    fs: Arc<dyn FileSystem>,
    /// Names are known by the dentries above them: all mounts have this one.
    root: Once<Arc<Dentry>>,
    ended: AtomicBool,
    /// Those of all its mounts.
    writers: Writers,
    /// What its writers write to ([`FileSystem::below`]).
    below: Option<Arc<Instance>>,
    /// Held over each change of the whole file system.
    change: exec::Mutex<()>,
}

type Known = (Weak<Instance>, Weak<dyn FileSystem>);

/// File systems that are there, the oldest first, each with its instance, or with none from when that ends: until it has been
/// written back, others have to know of it. Nobody holds an instance only to look at it: see [`Instance::end_if_last`].
static KNOWN: SpinLock<Vec<Known>> = SpinLock::new(Vec::new());

impl Instance {
    /// The one instance of a file system.
    pub fn of(fs: Arc<dyn FileSystem>) -> Arc<Instance> {
        let mut known = KNOWN.lock();
        known.retain(|(_, fs)| fs.strong_count() > 0);
        let of_fs = known.iter_mut().find(|(_, other)| is_same(other, &fs));
        if let Some(instance) = of_fs.as_ref().and_then(|(instance, _)| instance.upgrade()) {
            return instance;
        }
        let weak = Arc::downgrade(&fs);
        let instance = Arc::new(Instance::new(fs));
        match of_fs {
            Some((ended, _)) => *ended = Arc::downgrade(&instance),
            None => known.push((Arc::downgrade(&instance), weak)),
        }
        instance
    }

    fn new(fs: Arc<dyn FileSystem>) -> Instance {
        let below = fs.below();
        Instance {
            fs,
            root: Once::new(),
            ended: AtomicBool::new(false),
            writers: Writers::default(),
            below,
            change: exec::Mutex::new(()),
        }
    }

    pub fn fs(&self) -> &Arc<dyn FileSystem> {
        &self.fs
    }

    /// The top of the one tree of names that it has.
    pub fn root(&self) -> &Arc<Dentry> {
        self.root.call_once(|| Dentry::new_root(self.fs.root()))
    }

    pub fn writers(&self) -> &Writers {
        &self.writers
    }

    /// One writer more, also of what is below, until [`Instance::stop_writing`]; false if they are held.
    pub(super) fn start_writing(&self) -> bool {
        if !self.writers.enter() {
            return false;
        }
        let started = self.below.as_ref().is_none_or(|below| below.start_writing());
        if !started {
            self.writers.leave();
        }
        started
    }

    pub(super) fn stop_writing(&self) {
        if let Some(below) = &self.below {
            below.stop_writing();
        }
        self.writers.leave();
    }

    /// To change the whole file system, one at a time.
    pub async fn lock(&self) -> exec::MutexGuard<'_, ()> {
        self.change.lock().await
    }

    /// If the caller's mount is the last: the file system, which the caller has to [`end`].
    pub(super) fn end_if_last(self: &Arc<Self>) -> Option<Arc<dyn FileSystem>> {
        let mut known = KNOWN.lock();
        if Arc::strong_count(self) > 1 {
            return None;
        }
        self.ended.store(true, Ordering::Relaxed);
        let own = known.iter_mut().find(|(_, other)| is_same(other, &self.fs));
        own.into_iter().for_each(|(instance, _)| *instance = Weak::new());
        Some(self.fs.clone())
    }
}

fn is_same(a: &Weak<dyn FileSystem>, b: &Arc<dyn FileSystem>) -> bool {
    core::ptr::addr_eq(a.as_ptr(), Arc::as_ptr(b))
}

/// Whether a file system ends, or is taken up by a new mount, is settled one after the other.
static TURN: exec::Mutex<()> = exec::Mutex::new(());

/// The instance for a new mount of what a file-system type has answered. A file system of a disk that was about to end is
/// made what it is wanted to be; EBUSY if it is mounted otherwise.
pub async fn take_up(fs: Arc<dyn FileSystem>, read_only: bool) -> Result<Arc<Instance>> {
    let _turn = TURN.lock().await;
    let was_mounted = is_mounted(&fs);
    let instance = Instance::of(fs);
    let fs = instance.fs();
    if fs.device().major != 0 && fs.read_only() != read_only {
        if was_mounted {
            return Err(Errno::EBUSY);
        }
        fs.set_read_only(read_only).await?;
    }
    Ok(instance)
}

/// Is there a mount of it, or somebody about to make one?
pub fn is_mounted(fs: &Arc<dyn FileSystem>) -> bool {
    KNOWN.lock().iter().any(|(instance, other)| is_same(other, fs) && instance.strong_count() > 0)
}

/// Ends what no mount is left of: it is written back, whether or not somebody waits for that, unless it has been mounted again
/// meanwhile. As in Linux, what cannot be written is told to nobody but the log.
pub async fn end(fs: Arc<dyn FileSystem>) {
    exec::run_to_end(|future| exec::spawn("unmount", future), write_back(fs)).await;
}

async fn write_back(fs: Arc<dyn FileSystem>) {
    inotify::unmounted(&fs);
    dentry::forget_fs(&fs).await;
    // Files that cannot be stored tell it themselves.
    let _ = page_cache::sync_device(fs.stored_on().encode()).await;
    let _turn = TURN.lock().await;
    if is_mounted(&fs) {
        return;
    }
    if let Err(errno) = fs.set_read_only(true).await {
        log::error!("{} could not be written: {errno:?}", fs.type_name());
    }
}

/// Those that are mounted or being written back after that, the oldest first.
pub fn file_systems() -> Vec<Arc<dyn FileSystem>> {
    known().iter().filter_map(Weak::upgrade).collect()
}

/// The same, for those who take their time with each: a file system that is held keeps its disk from others.
pub fn known() -> Vec<Weak<dyn FileSystem>> {
    KNOWN.lock().iter().map(|(_, fs)| fs.clone()).collect()
}

impl Drop for Instance {
    fn drop(&mut self) {
        if !*self.ended.get_mut() {
            exec::spawn("unmount", write_back(self.fs.clone()));
        }
    }
}
