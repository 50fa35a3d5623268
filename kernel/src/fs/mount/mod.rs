//! The mount table: which file system covers which directory.
//!
//! There is one mount namespace. A mount's place is a path in another mount; the root mount has none. Mounts on the same
//! path stack: the later one is mounted on the root of the earlier one.
//!
//! Besides there are detached trees, made by fsmount(2) and open_tree(2): their root is in no table and belongs to an open
//! file, until move_mount(2) puts it somewhere. What is mounted in such a tree is in the table as usual.
//!
//! All mounts of a file system share an [`Instance`]; when the last of them is gone, also from under those who have files
//! open in it, the file system is written back and let go.

mod instance;
mod show;
mod unmount;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

pub use self::instance::{Instance, file_systems, is_mounted, take_up, write_back};
pub use self::show::{proc_mountinfo, proc_mounts};
pub use self::unmount::{Manner, unmount};
use self::unmount::{detach, leave_place};
use super::dentry::{self, Dentry};
use super::inode::{FileSystem, FileType};
use super::op::Op;
use super::path::Path;
use crate::errno::{Errno, Result};
use crate::sync::{RwSpinLock, SpinLock};

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
    /// The address of the place's dentry, to look for; 0: it has none.
    at: AtomicUsize,
    /// Files that are open for writing through it.
    writers: AtomicUsize,
    /// For pipes, sockets and the like: in no namespace.
    internal: bool,
    /// The root of a tree that is not in the namespace yet.
    detached: AtomicBool,
    /// How often somebody has come here since umount2(2) with MNT_EXPIRE, plus one; 0: nobody counts.
    expiring: AtomicU32,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(20);
static TABLE: RwSpinLock<Vec<Arc<Mount>>> = RwSpinLock::new(Vec::new());

impl Mount {
    pub fn new(fs: Arc<dyn FileSystem>, root: Arc<Dentry>, flags: MountFlags) -> Arc<Mount> {
        Mount::of(Instance::of(fs), root, flags)
    }

    pub(crate) fn new_internal(fs: Arc<dyn FileSystem>, root: Arc<Dentry>) -> Arc<Mount> {
        Mount::make(Instance::of(fs), root, MountFlags::empty(), true)
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
            at: AtomicUsize::new(0),
            writers: AtomicUsize::new(0),
            internal,
            detached: AtomicBool::new(false),
            expiring: AtomicU32::new(0),
        })
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

    pub(super) fn count_writer(&self, opened: bool) {
        if opened {
            self.writers.fetch_add(1, Ordering::Relaxed);
        } else {
            self.writers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Is a file of its file system open for writing, through whichever mount?
    pub fn has_writers(&self) -> bool {
        self.is_written() || has_writers(&self.instance)
    }

    /// Is a file open for writing through this mount?
    pub fn is_written(&self) -> bool {
        self.writers.load(Ordering::Relaxed) > 0
    }

    /// EROFS if the mount or its file system may not be written.
    pub fn check_writable(&self) -> Result<()> {
        if self.flags().contains(MountFlags::RDONLY) || self.fs().read_only() { Err(Errno::EROFS) } else { Ok(()) }
    }
}

/// Is a file of the file system open for writing, through a mount of the table?
pub fn has_writers(instance: &Arc<Instance>) -> bool {
    TABLE.read().iter().any(|mount| Arc::ptr_eq(&mount.instance, instance) && mount.is_written())
}

/// The mount that covers `path`, if any (only the one directly on it).
pub fn mounted_on(path: &Path) -> Option<Arc<Mount>> {
    if !path.dentry.is_mount_point() {
        return None;
    }
    let address = Arc::as_ptr(&path.dentry).addr();
    let covers =
        |mount: &Arc<Mount>| mount.at.load(Ordering::Relaxed) == address && mount.place.lock().as_ref() == Some(path);
    TABLE.read().iter().find(|mount| covers(mount)).cloned()
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
    let root = Dentry::new_root(fs.root());
    let mount = Mount::new(fs, root.clone(), flags);
    TABLE.write().insert(0, mount.clone());
    Path { mount, dentry: root }
}

/// The first mount of the table that is wanted.
pub fn find(is_wanted: impl Fn(&Mount) -> bool) -> Option<Arc<Mount>> {
    TABLE.read().iter().find(|mount| is_wanted(mount)).cloned()
}

/// The root of the namespace.
pub fn root() -> Option<Path> {
    let mount = find(|mount| mount.place.lock().is_none())?;
    Some(Path { dentry: mount.root.clone(), mount })
}

/// Held over each change of the tree of mounts, from the first look to the last step.
static CHANGES: SpinLock<()> = SpinLock::new(());

/// fs.mount-max (Linux's admin-guide/sysctl/fs.rst): mounts that there may be.
pub static MAX_MOUNTS: AtomicUsize = AtomicUsize::new(100_000);

/// ENOSPC if there cannot be so many more.
fn check_room(more: usize) -> Result<()> {
    let fits = TABLE.read().len() + more <= MAX_MOUNTS.load(Ordering::Relaxed);
    if fits { Ok(()) } else { Err(Errno::ENOSPC) }
}

/// Puts a mount, of which there is nothing in the table but what is mounted in it, on `at`, on top of what is mounted there.
pub fn attach(mount: Arc<Mount>, at: Path) -> Result<()> {
    let _changes = CHANGES.lock();
    check_room(1)?;
    attach_tree(mount, at)
}

/// The same for who holds [`CHANGES`].
fn attach_tree(mount: Arc<Mount>, at: Path) -> Result<()> {
    let at = claim(&mount, at)?;
    settle(mount, at);
    Ok(())
}

/// The place for a mount, on top of what is mounted there; it cannot be removed from now on. [`settle`] comes next.
fn claim(mount: &Mount, mut at: Path) -> Result<Path> {
    descend(&mut at);
    check_place(mount, &at)?;
    at.dentry.add_mount()?;
    Ok(at)
}

/// Puts a mount into the place that was claimed for it.
fn settle(mount: Arc<Mount>, at: Path) {
    let below = mounts_below(&top_of(&mount));
    put(&mount, at);
    // What is mounted in it stays behind it.
    let mut table = TABLE.write();
    table.retain(|other| !below.iter().any(|mount| Arc::ptr_eq(mount, other)));
    table.push(mount);
    table.extend(below);
}

/// Says where the mount is. It enters the table next.
fn put(mount: &Mount, at: Path) {
    if at.mount.fs().volatile_names() {
        dentry::pin(&at.dentry);
    }
    mount.at.store(Arc::as_ptr(&at.dentry).addr(), Ordering::Relaxed);
    *mount.place.lock() = Some(at);
    mount.detached.store(false, Ordering::Relaxed);
}

fn top_of(mount: &Arc<Mount>) -> Path {
    Path { mount: mount.clone(), dentry: mount.root.clone() }
}

/// The topmost mount above, if it is in the namespace.
fn is_in_namespace(mount: &Arc<Mount>) -> bool {
    let mut top = mount.clone();
    while let Some(place) = top.place() {
        top = place.mount;
    }
    TABLE.read().iter().any(|other| Arc::ptr_eq(other, &top))
}

/// Mounts a file system on a directory.
pub fn mount(instance: Arc<Instance>, at: Path, flags: MountFlags) -> Result<Arc<Mount>> {
    let root = Dentry::new_root(instance.fs().root());
    let mount = Mount::of(instance, root, flags);
    attach(mount.clone(), at)?;
    Ok(mount)
}

/// A second view of a tree (MS_BIND); with `recursive` of everything mounted below it, too.
pub fn bind(source: &Path, at: Path, recursive: bool) -> Result<()> {
    if source.dentry.is_dir() != at.dentry.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    let _changes = CHANGES.lock();
    let copy = copy_tree_locked(source, recursive)?;
    attach_tree(copy.clone(), at).inspect_err(|_| dissolve_locked(&copy))
}

/// A detached copy of a tree of mounts. EINVAL for what is in no namespace itself.
pub fn copy_tree(source: &Path, recursive: bool) -> Result<Arc<Mount>> {
    let _changes = CHANGES.lock();
    copy_tree_locked(source, recursive)
}

fn copy_tree_locked(source: &Path, recursive: bool) -> Result<Arc<Mount>> {
    if !is_in_namespace(&source.mount) {
        return Err(Errno::EINVAL);
    }
    let copy = Mount::of(source.mount.instance.clone(), source.dentry.clone(), source.mount.flags());
    copy.detached.store(true, Ordering::Relaxed);
    let below: Vec<Arc<Mount>> = if recursive { mounts_below(source) } else { Vec::new() };
    check_room(1 + below.len())?;
    // Parents come before children in the table, so a copied parent is known when its child's turn comes.
    let mut copies = vec![(source.mount.clone(), copy.clone())];
    for mount in below {
        let Some(place) = mount.place() else { continue };
        let Some(parent) = copies.iter().find(|(old, _)| Arc::ptr_eq(old, &place.mount)).map(|(_, new)| new.clone())
        else {
            continue;
        };
        let child = Mount::of(mount.instance.clone(), mount.root.clone(), mount.flags());
        let at = claim(&child, Path { mount: parent, dentry: place.dentry });
        put(&child, at.inspect_err(|_| dissolve_locked(&copy))?);
        TABLE.write().push(child.clone());
        copies.push((mount, child));
    }
    Ok(copy)
}

/// A mount of a new instance that has no place yet (fsmount(2)).
pub fn detached(instance: Arc<Instance>, flags: MountFlags) -> Arc<Mount> {
    let root = Dentry::new_root(instance.fs().root());
    let mount = Mount::of(instance, root, flags);
    mount.detached.store(true, Ordering::Relaxed);
    mount
}

/// The file that a detached tree belongs to is gone: so is the tree, unless it has got a place.
pub fn dissolve(mount: &Arc<Mount>) {
    let _changes = CHANGES.lock();
    dissolve_locked(mount);
}

fn dissolve_locked(mount: &Arc<Mount>) {
    if mount.detached.swap(false, Ordering::Relaxed) {
        for child in mounts_below(&top_of(mount)).iter().rev() {
            detach(child);
        }
    }
}

/// Mounts whose place is at or below `top` (not counting `top`'s own mount), parents first.
fn mounts_below(top: &Path) -> Vec<Arc<Mount>> {
    let all: Vec<Arc<Mount>> = TABLE.read().clone();
    let mut found: Vec<Arc<Mount>> = Vec::new();
    for mount in all {
        let Some(place) = mount.place() else { continue };
        let in_found = found.iter().any(|m| Arc::ptr_eq(m, &place.mount));
        if in_found || (Arc::ptr_eq(&place.mount, &top.mount) && top.dentry.is_ancestor_of(&place.dentry)) {
            found.push(mount);
        }
    }
    found
}

/// MS_MOVE, move_mount(2): the mount at `source`, which may be a detached tree, goes to `at`.
pub fn move_mount(source: &Path, at: Path) -> Result<()> {
    let _changes = CHANGES.lock();
    let mount = &source.mount;
    let movable = is_in_namespace(mount) || mount.detached.load(Ordering::Relaxed);
    let whole = Arc::ptr_eq(&mount.root, &source.dentry);
    if !movable || !whole || !is_in_namespace(&at.mount) || source.dentry.is_dir() != at.dentry.is_dir() {
        return Err(Errno::EINVAL);
    }
    let mut top = at;
    descend(&mut top);
    let mut up = top.clone();
    loop {
        if Arc::ptr_eq(&up.mount, mount) {
            return Err(Errno::ELOOP);
        }
        match up.mount.place() {
            Some(place) => up = place,
            None => break,
        }
    }
    let at = claim(mount, top)?;
    if mount.place().is_some() {
        detach(mount);
    }
    settle(mount.clone(), at);
    Ok(())
}

/// mount_setattr(2): other flags for the mount at `top`, with `recursive` for those below it, too. All or none.
pub fn change_flags(top: &Path, recursive: bool, set: MountFlags, clear: MountFlags) -> Result<()> {
    let _changes = CHANGES.lock();
    let mount = &top.mount;
    let known = is_in_namespace(mount) || mount.detached.load(Ordering::Relaxed);
    if !known || !Arc::ptr_eq(&mount.root, &top.dentry) {
        return Err(Errno::EINVAL);
    }
    let mut mounts = vec![mount.clone()];
    if recursive {
        mounts.extend(mounts_below(top));
    }
    let turns = |mount: &Arc<Mount>| set.contains(MountFlags::RDONLY) && !mount.flags().contains(MountFlags::RDONLY);
    if mounts.iter().any(|mount| turns(mount) && mount.is_written()) {
        return Err(Errno::EBUSY);
    }
    for mount in mounts {
        mount.set_flags((mount.flags() - clear) | set);
    }
    Ok(())
}

/// May the mount be put there?
fn check_place(mount: &Mount, at: &Path) -> Result<()> {
    let dir = mount.root.kind() == FileType::Directory;
    if dir != at.dentry.is_dir() {
        return Err(if dir { Errno::ENOTDIR } else { Errno::EINVAL });
    }
    if at.dentry.is_dead() { Err(Errno::ENOENT) } else { Ok(()) }
}

/// pivot_root(2): the mount at `new` becomes the root of the namespace, the old root goes to `put_old`.
pub fn pivot_root(new: &Path, put_old: &Path, root: &Path) -> Result<()> {
    let _changes = CHANGES.lock();
    let (new_mount, old_mount) = (&new.mount, &root.mount);
    if Arc::ptr_eq(new_mount, old_mount) || Arc::ptr_eq(&put_old.mount, old_mount) && root == put_old {
        return Err(Errno::EBUSY);
    }
    if !Arc::ptr_eq(&new_mount.root, &new.dentry) || !Arc::ptr_eq(&old_mount.root, &root.dentry) {
        return Err(Errno::EINVAL);
    }
    if !Arc::ptr_eq(&put_old.mount, new_mount) {
        return Err(Errno::EINVAL);
    }
    if old_mount.place().is_some() || new_mount.place().is_none() {
        return Err(Errno::EINVAL);
    }
    let put_old = claim(old_mount, put_old.clone())?;
    leave_place(new_mount);
    // There is a root at any time.
    let mut table = TABLE.write();
    table.retain(|m| !Arc::ptr_eq(m, old_mount) && !Arc::ptr_eq(m, new_mount));
    table.insert(0, new_mount.clone());
    drop(table);
    settle(old_mount.clone(), put_old);
    Ok(())
}

/// sync(2): every mounted file system, also those that have no place any more and are in use.
pub fn sync_all() -> Op<'static, Result<()>> {
    Op::boxed(async {
        let mut result = Ok(());
        for fs in file_systems() {
            result = result.and(fs.sync().await);
        }
        result
    })
}
