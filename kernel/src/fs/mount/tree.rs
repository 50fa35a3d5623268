//! Changes of the tree of mounts: what mount(2), open_tree(2), move_mount(2), mount_setattr(2) and pivot_root(2) do to it.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::table::TABLE;
use super::unmount::{detach, leave_place};
use super::{CHANGES, Instance, MAX_MOUNTS, Mount, MountFlags, descend, mounted_on};
use crate::errno::{Errno, Result};
use crate::fs::dentry::{self, Dentry};
use crate::fs::inode::FileType;
use crate::fs::path::Path;

/// ENOSPC if there cannot be so many more.
fn check_room(more: usize) -> Result<()> {
    let fits = TABLE.read().len() + more <= MAX_MOUNTS.load(Ordering::Relaxed);
    if fits { Ok(()) } else { Err(Errno::ENOSPC) }
}

/// Does something with the place on top of what is mounted on `at`, while nobody is about to remove it.
async fn with_place<T>(mut at: Path, then: impl FnOnce(Path) -> Result<T>) -> Result<T> {
    loop {
        descend(&mut at);
        let inode = at.inode().clone();
        let _locked = inode.state().lock.lock().await;
        if mounted_on(&at).is_none() {
            return then(at);
        }
    }
}

/// Puts a mount on `at`, for who holds [`CHANGES`].
fn attach(mount: &Arc<Mount>, at: Path) -> Result<()> {
    let at = claim(mount, at)?;
    put(mount, at);
    Ok(())
}

/// The place for a mount, on top of what is mounted there; it cannot be removed from now on. [`put`] comes next.
fn claim(mount: &Mount, mut at: Path) -> Result<Path> {
    descend(&mut at);
    check_place(mount, &at)?;
    at.dentry.add_mount()?;
    Ok(at)
}

/// Puts a mount into the place that was claimed for it. What is mounted in it stays there.
fn put(mount: &Arc<Mount>, at: Path) {
    if at.mount.fs().volatile_names() {
        dentry::pin(&at.dentry);
    }
    *mount.place.lock() = Some(at.clone());
    TABLE.write().put(mount, &at);
    mount.detached.store(false, Ordering::Relaxed);
}

pub(super) fn top_of(mount: &Arc<Mount>) -> Path {
    Path { mount: mount.clone(), dentry: mount.root.clone() }
}

/// The topmost mount above, if it is in the namespace.
pub(super) fn is_in_namespace(mount: &Arc<Mount>) -> bool {
    let mut top = mount.clone();
    while let Some(place) = top.place() {
        top = place.mount;
    }
    TABLE.read().contains(&top)
}

/// EINVAL for a place in what is not mounted any more.
fn check_known(at: &Path) -> Result<()> {
    if is_in_namespace(&at.mount) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// Mounts a file system on a directory.
pub async fn mount(instance: Arc<Instance>, at: Path, flags: MountFlags) -> Result<()> {
    let root = Dentry::new_root(instance.fs().root());
    let mount = Mount::of(instance, root, flags);
    with_place(at, |at| {
        let _changes = CHANGES.lock();
        check_known(&at)?;
        check_room(1)?;
        attach(&mount, at)
    })
    .await
}

/// A second view of a tree (MS_BIND); with `recursive` of everything mounted below it, too.
pub async fn bind(source: &Path, at: Path, recursive: bool) -> Result<()> {
    if source.dentry.is_dir() != at.dentry.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    with_place(at, |at| {
        let _changes = CHANGES.lock();
        check_known(&at)?;
        let copy = copy_tree_locked(source, recursive)?;
        attach(&copy, at).inspect_err(|_| dissolve_locked(&copy))
    })
    .await
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
    // By the mount that they are copies of.
    let mut copies = BTreeMap::from([(source.mount.id, copy.clone())]);
    for mount in below {
        let Some(place) = mount.place() else { continue };
        let Some(parent) = copies.get(&place.mount.id).cloned() else { continue };
        let child = Mount::of(mount.instance.clone(), mount.root.clone(), mount.flags());
        attach(&child, Path { mount: parent, dentry: place.dentry }).inspect_err(|_| dissolve_locked(&copy))?;
        copies.insert(mount.id, child);
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

pub(super) fn mounts_below(top: &Path) -> Vec<Arc<Mount>> {
    TABLE.read().below(top)
}

/// MS_MOVE, move_mount(2): the mount at `source`, which may be a detached tree, goes to `at`.
pub async fn move_mount(source: &Path, at: Path) -> Result<()> {
    with_place(at, |at| move_locked(source, at)).await
}

fn move_locked(source: &Path, at: Path) -> Result<()> {
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
    leave_place(mount);
    put(mount, at);
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
    let turns = |mount: &&Arc<Mount>| set.contains(MountFlags::RDONLY) && !mount.flags().contains(MountFlags::RDONLY);
    let _held = mounts.iter().filter(turns).map(|mount| mount.writers.hold()).collect::<Result<Vec<_>>>()?;
    for mount in &mounts {
        mount.set_flags((mount.flags() - clear) | set);
    }
    Ok(())
}

/// The flags of a mount become what `new` makes of them.
pub fn replace_flags(mount: &Mount, new: impl FnOnce(MountFlags) -> MountFlags) {
    let _changes = CHANGES.lock();
    mount.set_flags(new(mount.flags()));
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
pub async fn pivot_root(new: &Path, put_old: Path, root: &Path) -> Result<()> {
    with_place(put_old, |put_old| pivot_locked(new, put_old, root)).await
}

fn pivot_locked(new: &Path, put_old: Path, root: &Path) -> Result<()> {
    let _changes = CHANGES.lock();
    let (new_mount, old_mount) = (&new.mount, &root.mount);
    if Arc::ptr_eq(new_mount, old_mount) || Arc::ptr_eq(&put_old.mount, old_mount) && *root == put_old {
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
    let put_old = claim(old_mount, put_old)?;
    // There is a root at any time.
    leave_place(new_mount);
    put(old_mount, put_old);
    Ok(())
}
