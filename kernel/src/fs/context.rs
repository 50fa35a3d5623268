//! What CLONE_FS shares: root directory, working directory and umask.

use core::sync::atomic::{AtomicU32, Ordering};

use super::path::Path;
use crate::sync::SpinLock;

struct Places {
    root: Path,
    cwd: Path,
}

pub struct FsContext {
    places: SpinLock<Places>,
    umask: AtomicU32,
}

impl FsContext {
    /// Both directories at `root`, umask 022.
    pub fn new(root: Path) -> Self {
        let places = Places { cwd: root.clone(), root };
        FsContext { places: SpinLock::new(places), umask: AtomicU32::new(0o022) }
    }

    /// A copy that goes its own way (clone without CLONE_FS).
    pub fn fork(&self) -> Self {
        let places = self.places.lock();
        let copy = Places { root: places.root.clone(), cwd: places.cwd.clone() };
        FsContext { places: SpinLock::new(copy), umask: AtomicU32::new(self.umask()) }
    }

    pub fn root(&self) -> Path {
        self.places.lock().root.clone()
    }

    pub fn cwd(&self) -> Path {
        self.places.lock().cwd.clone()
    }

    pub fn set_cwd(&self, cwd: Path) {
        // The old path is dropped after the lock.
        let _old = core::mem::replace(&mut self.places.lock().cwd, cwd);
    }

    pub fn set_root(&self, root: Path) {
        let _old = core::mem::replace(&mut self.places.lock().root, root);
    }

    /// pivot_root(2): whoever stood at the old root stands at the new one.
    pub fn replace_root(&self, old: &Path, new: &Path) {
        let mut places = self.places.lock();
        if places.root == *old {
            places.root = new.clone();
        }
        if places.cwd == *old {
            places.cwd = new.clone();
        }
    }

    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }

    /// Answers the umask that was.
    pub fn set_umask(&self, umask: u32) -> u32 {
        self.umask.swap(umask & 0o777, Ordering::Relaxed)
    }
}
