//! What all mounts of a file system share.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use super::super::inode::FileSystem;
use super::super::{dentry, inotify};
use crate::errno::Result;
use crate::exec;
use crate::sync::SpinLock;

/// A file system that is mounted, or about to be. The last drop, unless the instance has ended before, writes it back.
pub struct Instance {
    fs: Arc<dyn FileSystem>,
    ended: AtomicBool,
}

static KNOWN: SpinLock<Vec<Weak<Instance>>> = SpinLock::new(Vec::new());

impl Instance {
    /// The one instance of a file system.
    pub fn of(fs: Arc<dyn FileSystem>) -> Arc<Instance> {
        let mut known = KNOWN.lock();
        known.retain(|instance| instance.strong_count() > 0);
        if let Some(instance) = known.iter().filter_map(Weak::upgrade).find(|instance| instance.is_of(&fs)) {
            return instance;
        }
        let instance = Arc::new(Instance { fs, ended: AtomicBool::new(false) });
        known.push(Arc::downgrade(&instance));
        instance
    }

    pub fn fs(&self) -> &Arc<dyn FileSystem> {
        &self.fs
    }

    /// Has not ended, and is this file system's.
    fn is_of(&self, fs: &Arc<dyn FileSystem>) -> bool {
        Arc::ptr_eq(&self.fs, fs) && !self.ended.load(Ordering::Relaxed)
    }

    /// The last mount is gone, and whoever asks writes the file system back.
    pub(super) fn end(&self) -> Arc<dyn FileSystem> {
        self.ended.store(true, Ordering::Relaxed);
        forget(&self.fs);
        self.fs.clone()
    }
}

fn forget(fs: &Arc<dyn FileSystem>) {
    inotify::unmounted(fs);
    dentry::forget_fs(fs);
}

/// Writes back what no mount is left of, unless it has been mounted again meanwhile.
pub async fn write_back(fs: &Arc<dyn FileSystem>) -> Result<()> {
    let written = crate::mm::page_cache::sync_all().await;
    if instances().iter().any(|instance| instance.is_of(fs)) {
        return written;
    }
    written.and(fs.set_read_only(true).await)
}

/// Those that are there.
pub fn instances() -> Vec<Arc<Instance>> {
    KNOWN.lock().iter().filter_map(Weak::upgrade).collect()
}

impl Drop for Instance {
    fn drop(&mut self) {
        if *self.ended.get_mut() {
            return;
        }
        let fs = self.fs.clone();
        exec::spawn("unmount", async move {
            forget(&fs);
            if let Err(errno) = write_back(&fs).await {
                log::error!("{} could not be written: {errno:?}", fs.type_name());
            }
        });
    }
}
