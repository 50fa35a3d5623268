//! [`OverlayInode`]: an object of the overlay, and where it is in the layers.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use super::OverlayFs;
use super::listing::Listing;
use crate::errno::{Errno, Result};
use crate::exec::Mutex;
use crate::fs::dentry::{Dentry, Name};
use crate::fs::inode::{DeviceId, FileType, Inode, Metadata};
use crate::fs::inode_flags::InodeFlags;
use crate::fs::state::InodeState;
use crate::sync::{Once, SpinLock};

/// An inode number, and of which group of layers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Number {
    pub ino: u64,
    pub group: usize,
}

/// Something in a lower layer.
#[derive(Clone)]
pub struct Lower {
    pub dentry: Arc<Dentry>,
    pub group: usize,
}

/// Where it is in the overlay.
pub struct Place {
    pub parent: Arc<OverlayInode>,
    pub name: Name,
}

pub struct OverlayInode {
    fs: Weak<OverlayFs>,
    this: Weak<OverlayInode>,
    kind: FileType,
    /// The number of a directory when those of several file systems would meet.
    own_number: u64,
    /// What it was found as: the upper dentry, or the topmost of the lower ones.
    found: Arc<Dentry>,
    /// The upper dentry: there from the start, or since it was copied up. Of a file with several names any of them.
    upper: Once<Arc<Dentry>>,
    /// Directories: those below that are seen through it, the topmost first. Others: what it is, while there is no upper
    /// one.
    pub lower: Vec<Lower>,
    /// The number that it has whatever it is copied to, if that is not the upper one's.
    number: Option<Number>,
    /// Of directories; and of others as long as they can be copied up, when they have no other name.
    place: SpinLock<Option<Place>>,
    /// The name was taken away.
    removed: AtomicBool,
    /// An upper directory in which something is that has the number of a lower one.
    impure: AtomicBool,
    /// Held while it is copied up, or taken away, or names in it change.
    pub lock: Mutex<()>,
    pub listing: Mutex<Listing>,
    state: InodeState,
}

/// What an inode is made of.
pub struct Parts {
    pub upper: Option<Arc<Dentry>>,
    pub lower: Vec<Lower>,
    pub number: Option<Number>,
    pub place: Option<Place>,
    pub impure: bool,
    /// Of an upper one: what it was bound by where it was copied from.
    pub bound: InodeFlags,
}

impl OverlayInode {
    /// None: there is nothing to make it of.
    pub fn new(fs: &OverlayFs, parts: Parts) -> Option<Arc<OverlayInode>> {
        let found = parts.upper.as_ref().or(parts.lower.first().map(|lower| &lower.dentry))?.clone();
        let state = InodeState::default();
        state.set_flags(parts.bound);
        Some(Arc::new_cyclic(|this| OverlayInode {
            fs: fs.this.clone(),
            this: this.clone(),
            kind: found.kind(),
            own_number: if found.is_dir() { fs.next_number() } else { 0 },
            upper: parts.upper.map_or_else(Once::new, Once::initialized),
            found,
            lower: parts.lower,
            number: parts.number,
            place: SpinLock::new(parts.place),
            removed: AtomicBool::new(false),
            impure: AtomicBool::new(parts.impure),
            lock: Mutex::new(()),
            listing: Mutex::new(Listing::default()),
            state,
        }))
    }

    /// ESTALE when the last mount is gone; who comes by a path holds it.
    pub fn instance(&self) -> Result<Arc<OverlayFs>> {
        self.fs.upgrade().ok_or(Errno::ESTALE)
    }

    pub fn instance_if_any(&self) -> Option<Arc<OverlayFs>> {
        self.fs.upgrade()
    }

    pub fn shared(&self) -> Result<Arc<OverlayInode>> {
        self.this.upgrade().ok_or(Errno::ESTALE)
    }

    pub fn kind_now(&self) -> FileType {
        self.kind
    }

    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    pub fn vfs_state(&self) -> &InodeState {
        &self.state
    }

    pub fn upper(&self) -> Option<&Arc<Dentry>> {
        self.upper.get()
    }

    /// The upper dentry of what was copied up; ESTALE if somebody has taken that away.
    pub fn upper_now(&self) -> Result<&Arc<Dentry>> {
        let upper = self.upper.get().ok_or(Errno::ESTALE)?;
        if self.is_dir() && upper.is_dead() { Err(Errno::ESTALE) } else { Ok(upper) }
    }

    /// It has been copied up.
    pub fn set_upper(&self, upper: Arc<Dentry>) {
        self.upper.call_once(|| upper);
        if !self.is_dir() {
            // From now on it may have other names.
            let place = self.place.lock().take();
            drop(place);
        }
    }

    /// What it is now.
    pub fn real(&self) -> &Arc<dyn Inode> {
        self.upper.get().unwrap_or(&self.found).inode()
    }

    /// A directory that shows what lower layers have.
    pub fn is_merged(&self) -> bool {
        self.lower.len() + usize::from(self.upper.get().is_some()) > 1
    }

    /// All of it is in the upper layer.
    pub fn is_pure(&self) -> bool {
        self.upper.get().is_some() && self.lower.is_empty()
    }

    /// See `number`.
    pub fn lower_number(&self) -> Option<Number> {
        self.number
    }

    pub fn parent(&self) -> Option<Arc<OverlayInode>> {
        self.place.lock().as_ref().map(|place| place.parent.clone())
    }

    pub fn parent_and_name(&self) -> Option<(Arc<OverlayInode>, Name)> {
        self.place.lock().as_ref().map(|place| (place.parent.clone(), place.name.clone()))
    }

    /// A directory has another name.
    pub fn moved(&self, parent: &Arc<OverlayInode>, name: &[u8]) {
        if self.is_dir() {
            let place = Place { parent: parent.clone(), name: Name::from_slice(name) };
            let old = self.place.lock().replace(place);
            drop(old);
        }
    }

    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    pub fn set_removed(&self) {
        self.removed.store(true, Ordering::Release);
    }

    pub fn is_impure(&self) -> bool {
        self.impure.load(Ordering::Relaxed)
    }

    pub fn set_impure(&self) {
        self.impure.store(true, Ordering::Relaxed);
    }

    /// What it is known as in the table.
    pub fn keys(&self) -> impl Iterator<Item = &Arc<dyn Inode>> {
        let upper = self.upper.get().filter(|upper| !Arc::ptr_eq(upper, &self.found));
        core::iter::once(&self.found).chain(upper).map(|dentry| dentry.inode())
    }

    /// Numbers stay the same when it is copied up, and no two objects of a device have the same.
    pub fn shown(&self) -> Metadata {
        let mut meta = self.real().metadata();
        if self.is_dir() {
            match self.fs.upgrade() {
                Some(fs) if !fs.one_file_system => meta.ino = self.own_number,
                _ => meta.ino = self.number.map_or(meta.ino, |number| number.ino),
            }
            if self.is_merged() {
                // Nobody has counted them, and 1 says so.
                meta.nlink = 1;
            }
        } else if let Some(number) = self.number {
            meta.ino = number.ino;
        }
        meta
    }

    /// Files of several file systems are on several devices: numbers are theirs.
    pub fn shown_device(&self) -> DeviceId {
        let Some(fs) = self.fs.upgrade() else { return DeviceId::default() };
        if self.is_dir() || fs.one_file_system {
            return fs.device;
        }
        let group = match (self.number, self.lower.first()) {
            (Some(number), _) => number.group,
            (None, Some(lower)) if self.upper.get().is_none() => lower.group,
            _ => 0,
        };
        fs.devices.get(group).copied().unwrap_or(fs.device)
    }
}

impl Drop for OverlayInode {
    /// Lets go of the chain of parents one by one: a deep tree must not become a deep recursion.
    fn drop(&mut self) {
        if let Some(fs) = self.fs.upgrade() {
            fs.table.forget(self);
        }
        let mut next = self.place.get_mut().take();
        while let Some(mut parent) = next.and_then(|place| Arc::into_inner(place.parent)) {
            next = parent.place.get_mut().take();
        }
    }
}

/// What the VFS hands in as an inode of the same overlay.
pub fn own(inode: &Arc<dyn Inode>) -> Result<Arc<OverlayInode>> {
    inode.as_any().downcast_ref::<OverlayInode>().ok_or(Errno::EXDEV)?.shared()
}
