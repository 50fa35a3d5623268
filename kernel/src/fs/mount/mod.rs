//! The mount table: which file system covers which directory.
//!
//! There is one mount namespace. A mount's place is a path in another mount; the root mount has none. Mounts on the same
//! path stack: the later one is mounted on the root of the earlier one.
//!
//! What is mounted where stands in the [`table`]; the changes of the [`tree`] that it makes are made one at a time, under
//! [`CHANGES`]. There may be very many mounts, so they are changed a few at a time: each stands in its place, and in the order
//! of the table, before it is seen. Before [`CHANGES`] comes the lock of the directory that is mounted on, or that has the
//! file that is mounted on, as in Linux: nobody is about to remove it.
//!
//! Besides there are detached trees, made by fsmount(2) and open_tree(2): their root is in no table and belongs to an open
//! file, until move_mount(2) puts it somewhere. What is mounted in such a tree is in the table as usual.
//!
//! All mounts of a file system share an [`Instance`], and with it one tree of names, as in Linux (`s_root`): what is changed
//! through one mount is so in all of them. Only what is mounted on a name belongs to one mount. When the last of them is gone, also from under those who have files
//! open in it, the file system is written back and let go. Files that are open for writing count in their mount and in its
//! instance, and so do changes of names and attributes as long as they take; one of the two is made read-only when it has
//! no writers, and lets none in from the moment that this is certain (see [`writers`]).

mod instance;
mod propagation;
mod show;
mod table;
#[cfg(test)]
mod tests;
mod tree;
mod unmount;
mod writers;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};

pub use self::instance::{Instance, end, file_systems, is_mounted, take_up};
use self::propagation::Share;
pub use self::propagation::Type;
pub use self::show::{proc_mountinfo, proc_mounts};
use self::table::{NOWHERE, TABLE};
pub use self::tree::{bind, change_flags, copy_tree, detached, dissolve, mount, move_mount, pivot_root, replace_flags};
pub use self::unmount::{Manner, unmount};
use self::writers::Writers;
pub use self::writers::Writing;
use super::dentry::Dentry;
use super::inode::FileSystem;
use super::op::Op;
use super::path::Path;
use crate::errno::{Errno, Result};
use crate::exec;
use crate::mm::page_cache;
use crate::sync::SpinLock;

bitflags::bitflags! {
    /// Per-mount options, with the bits of mount(2)'s MS_*.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MountFlags: u32 {
        const RDONLY = 1;
        const NOSUID = 2;
        const NODEV = 4;
        const NOEXEC = 8;
        const NOSYMFOLLOW = 256;
        const NOATIME = 1024;
        const NODIRATIME = 2048;
        const RELATIME = 1 << 21;
        const STRICTATIME = 1 << 24;
    }
}

pub struct Mount {
    id: u64,
    instance: Arc<Instance>,
    root: Arc<Dentry>,
    flags: AtomicU32,
    place: SpinLock<Option<Path>>,
    /// Its turn in the table, or [`NOWHERE`].
    turn: AtomicI64,
    /// Files that are open for writing through it, and changes through it that are under way.
    writers: Writers,
    /// For pipes, sockets and the like: in no namespace.
    internal: bool,
    /// The root of a tree that is not in the namespace yet.
    detached: AtomicBool,
    share: Share,
    /// How often somebody has come here since umount2(2) with MNT_EXPIRE, plus one; 0: nobody counts.
    expiring: AtomicU32,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(20);

impl Mount {
    pub fn new(fs: Arc<dyn FileSystem>, root: Arc<Dentry>, flags: MountFlags) -> Arc<Mount> {
        Mount::of(Instance::of(fs), root, flags)
    }

    pub(crate) fn new_internal(fs: Arc<dyn FileSystem>, root: Arc<Dentry>) -> Arc<Mount> {
        Mount::make(Instance::of(fs), root, MountFlags::empty(), true)
    }

    /// A mount that shows all of a file system.
    fn whole(instance: Arc<Instance>, flags: MountFlags) -> Arc<Mount> {
        let root = instance.root().clone();
        Mount::of(instance, root, flags)
    }

    pub(super) fn of(instance: Arc<Instance>, root: Arc<Dentry>, flags: MountFlags) -> Arc<Mount> {
        Mount::make(instance, root, flags, false)
    }

    fn make(instance: Arc<Instance>, root: Arc<Dentry>, flags: MountFlags, internal: bool) -> Arc<Mount> {
        Arc::new(Mount {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            instance,
            root,
            flags: AtomicU32::new(flags.bits()),
            place: SpinLock::new(None),
            turn: AtomicI64::new(NOWHERE),
            writers: Writers::default(),
            internal,
            detached: AtomicBool::new(false),
            share: Share::default(),
            expiring: AtomicU32::new(0),
        })
    }

    /// The same mount once more, for another place, with another root in the same file system.
    fn copy(&self, root: Arc<Dentry>) -> Arc<Mount> {
        let copy = Mount::of(self.instance.clone(), root, self.flags());
        copy.join_group_of(self);
        copy
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn fs(&self) -> &Arc<dyn FileSystem> {
        self.instance.fs()
    }

    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    pub fn root(&self) -> &Arc<Dentry> {
        &self.root
    }

    pub fn is_internal(&self) -> bool {
        self.internal
    }

    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_truncate(self.flags.load(Ordering::Relaxed))
    }

    pub fn set_flags(&self, flags: MountFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }

    /// Where it is mounted; None for the root of the namespace and for mounts in none.
    pub fn place(&self) -> Option<Path> {
        self.place.lock().clone()
    }

    /// A change through this mount begins. EROFS if it, or its file system, may not be written. Has to wait if it is just
    /// being made read-only.
    pub fn writing(&self) -> Op<'_, Result<Writing<&Mount>>> {
        Writing::begin(self)
    }

    /// One writer more, until [`Mount::stop_writing`]. None: the flags of the mount are being changed.
    #[inline]
    pub(super) fn start_writing(&self) -> Option<Result<()>> {
        self.writers.enter().then(|| self.entered())
    }

    fn entered(&self) -> Result<()> {
        if !self.instance.start_writing() {
            self.writers.leave();
            return Err(Errno::EROFS);
        }
        self.check_writable().inspect_err(|_| self.stop_writing())
    }

    pub(super) fn stop_writing(&self) {
        self.instance.stop_writing();
        self.writers.leave();
    }

    /// EROFS if the mount or its file system may not be written.
    pub fn check_writable(&self) -> Result<()> {
        let may_not =
            self.flags().contains(MountFlags::RDONLY) || self.instance.writers().are_held() || self.fs().read_only();
        if may_not { Err(Errno::EROFS) } else { Ok(()) }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.leave_group();
    }
}

/// The mount that covers `path`, if any (only the one directly on it).
pub fn mounted_on(path: &Path) -> Option<Arc<Mount>> {
    if !path.dentry.is_mount_point() {
        return None;
    }
    TABLE.read().mounted_on(path).cloned()
}

/// Steps from a mount point to the root of what is mounted there, through all layers. True if it moved.
pub fn descend(path: &mut Path) -> bool {
    let mut moved = false;
    while let Some(mount) = mounted_on(path) {
        if mount.expiring.load(Ordering::Relaxed) != 0 {
            mount.expiring.fetch_add(1, Ordering::Relaxed);
        }
        *path = Path { dentry: mount.root.clone(), mount };
        moved = true;
    }
    moved
}

/// Steps from a mount's root to its mount point, through all layers. False at the root of the namespace.
pub fn ascend(path: &mut Path) -> bool {
    while Arc::ptr_eq(&path.dentry, &path.mount.root) {
        match path.mount.place() {
            Some(place) => *path = place,
            None => return false,
        }
    }
    true
}

/// Makes `fs` the root of the namespace, below what was there; answers its root.
pub fn mount_root(fs: Arc<dyn FileSystem>, flags: MountFlags) -> Path {
    let mount = Mount::whole(Instance::of(fs), flags);
    TABLE.write().enter_first(&mount);
    tree::top_of(&mount)
}

/// The first mount of the table that is wanted.
pub fn find(is_wanted: impl Fn(&Mount) -> bool) -> Option<Arc<Mount>> {
    TABLE.read().mounts().find(|mount| is_wanted(mount)).cloned()
}

/// The root of the namespace.
pub fn root() -> Option<Path> {
    let mount = find(|mount| mount.place.lock().is_none())?;
    Some(Path { dentry: mount.root.clone(), mount })
}

/// Held over each change of the tree of mounts, from the first look to the last step.
static CHANGES: exec::Mutex<()> = exec::Mutex::new(());

/// fs.mount-max (Linux's admin-guide/sysctl/fs.rst): mounts that there may be.
pub static MAX_MOUNTS: AtomicUsize = AtomicUsize::new(100_000);

/// sync(2): all files, and every mounted file system, also those that have no place any more and are in use, or are ending.
pub fn sync_all() -> Op<'static, Result<()>> {
    Op::boxed(async {
        let mut result = page_cache::sync_all().await;
        for fs in instance::known() {
            if let Some(fs) = fs.upgrade() {
                result = result.and(fs.sync().await);
            }
        }
        result
    })
}
