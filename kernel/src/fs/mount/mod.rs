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

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

pub use self::instance::{Instance, instances, write_back};
pub use self::show::{proc_mountinfo, proc_mounts};
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
    TABLE.read().iter().find(|m| m.place.lock().as_ref() == Some(path)).cloned()
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

/// The root of the namespace.
pub fn root() -> Option<Path> {
    let mount = TABLE.read().iter().find(|m| m.place.lock().is_none()).cloned()?;
    Some(Path { dentry: mount.root.clone(), mount })
}

/// Held over each change of the tree of mounts, from the first look to the last step.
static CHANGES: SpinLock<()> = SpinLock::new(());

/// Puts a new mount on `at`, on top of what is mounted there.
pub fn attach(mount: Arc<Mount>, at: Path) -> Result<()> {
    let _changes = CHANGES.lock();
    attach_locked(mount, at)
}

/// The same for who holds [`CHANGES`].
fn attach_locked(mount: Arc<Mount>, mut at: Path) -> Result<()> {
    descend(&mut at);
    check_place(&mount, &at)?;
    at.dentry.add_mount();
    if at.mount.fs().volatile_names() {
        dentry::pin(&at.dentry);
    }
    let below = mounts_below(&top_of(&mount));
    *mount.place.lock() = Some(at);
    mount.detached.store(false, Ordering::Relaxed);
    // What is mounted in it stays behind it.
    let mut table = TABLE.write();
    table.retain(|other| !below.iter().any(|mount| Arc::ptr_eq(mount, other)));
    table.push(mount);
    table.extend(below);
    Ok(())
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
pub fn mount(fs: Arc<dyn FileSystem>, at: Path, flags: MountFlags) -> Result<Arc<Mount>> {
    let root = Dentry::new_root(fs.root());
    let mount = Mount::new(fs, root, flags);
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
    attach_locked(copy.clone(), at).inspect_err(|_| dissolve_locked(&copy))
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
    // Parents come before children in the table, so a copied parent is known when its child's turn comes.
    let mut copies = vec![(source.mount.clone(), copy.clone())];
    for mount in below {
        let Some(place) = mount.place() else { continue };
        let Some(parent) = copies.iter().find(|(old, _)| Arc::ptr_eq(old, &place.mount)).map(|(_, new)| new.clone())
        else {
            continue;
        };
        let child = Mount::of(mount.instance.clone(), mount.root.clone(), mount.flags());
        if let Err(errno) = attach_locked(child.clone(), Path { mount: parent, dentry: place.dentry }) {
            dissolve_locked(&copy);
            return Err(errno);
        }
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
    let mut up = at.clone();
    loop {
        if Arc::ptr_eq(&up.mount, mount) {
            return Err(Errno::ELOOP);
        }
        match up.mount.place() {
            Some(place) => up = place,
            None => break,
        }
    }
    let mut top = at.clone();
    descend(&mut top);
    check_place(mount, &top)?;
    if mount.place().is_some() {
        detach(mount);
    }
    attach_locked(mount.clone(), at)
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

/// Takes the mount out of the table.
fn detach(mount: &Arc<Mount>) {
    TABLE.write().retain(|m| !Arc::ptr_eq(m, mount));
    leave_place(mount);
}

/// The same if nobody uses it: who walks into it finds it in the table, and counts, or finds it not.
fn detach_unused(mount: &Arc<Mount>) -> bool {
    let mut table = TABLE.write();
    let unused = !in_use(mount);
    if unused {
        table.retain(|m| !Arc::ptr_eq(m, mount));
    }
    drop(table);
    if unused {
        leave_place(mount);
    }
    unused
}

fn leave_place(mount: &Arc<Mount>) {
    let place = mount.place.lock().take();
    if let Some(place) = place {
        place.dentry.remove_mount();
        if place.mount.fs().volatile_names() && !place.dentry.is_mount_point() {
            dentry::unpin(&place.dentry);
        }
    }
}

/// How umount2(2) treats a mount that is in use, or was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Manner {
    /// EBUSY.
    Refuse,
    /// MNT_DETACH: it goes with everything below it, and is let go of when nobody uses it any more.
    Lazy,
    /// MNT_EXPIRE: EAGAIN, unless nobody has come here since the last such call.
    Expire,
}

/// umount2(2) of the mount whose root is `at`. Answers the file system to be synced if this was its last mount and nobody
/// uses it.
pub fn unmount(at: &Path, manner: Manner) -> Result<Option<Arc<dyn FileSystem>>> {
    let _changes = CHANGES.lock();
    let mount = &at.mount;
    if !Arc::ptr_eq(&mount.root, &at.dentry) || !is_in_namespace(mount) {
        return Err(Errno::EINVAL);
    }
    let lazy = manner == Manner::Lazy;
    if mount.place().is_none() {
        return Err(if lazy { Errno::EINVAL } else { Errno::EBUSY });
    }
    let used = in_use(mount);
    let below = mounts_below(&top_of(mount));
    if manner == Manner::Expire {
        if used {
            return Err(Errno::EBUSY);
        }
        // The caller's own way here counts as one.
        if mount.expiring.swap(1, Ordering::Relaxed) != 2 {
            return Err(Errno::EAGAIN);
        }
    }
    if lazy {
        for child in below.iter().rev() {
            detach(child);
        }
        detach(mount);
    } else if !below.is_empty() || !detach_unused(mount) {
        return Err(Errno::EBUSY);
    }
    let last = !used && below.is_empty() && Arc::strong_count(&mount.instance) == 1;
    Ok(last.then(|| mount.instance.end()))
}

/// Open files, working directories and programs hold the mount through their paths: two references are the table's
/// and the caller's.
fn in_use(mount: &Arc<Mount>) -> bool {
    Arc::strong_count(mount) > 2
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
    check_place(old_mount, put_old)?;
    leave_place(new_mount);
    // There is a root at any time.
    let mut table = TABLE.write();
    table.retain(|m| !Arc::ptr_eq(m, old_mount) && !Arc::ptr_eq(m, new_mount));
    table.insert(0, new_mount.clone());
    drop(table);
    attach_locked(old_mount.clone(), put_old.clone())
}

/// All mounts of the namespace, parents before children.
pub fn all() -> Vec<Arc<Mount>> {
    TABLE.read().clone()
}

/// sync(2): every mounted file system, also those that have no place any more and are in use.
pub fn sync_all() -> Op<'static, Result<()>> {
    Op::boxed(async {
        let mut result = Ok(());
        for instance in instances() {
            result = result.and(instance.fs().sync().await);
        }
        result
    })
}
