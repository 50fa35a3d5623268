//! Changes of the tree of mounts: what mount(2), open_tree(2), move_mount(2), mount_setattr(2) and pivot_root(2) do to it.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::propagation::{Type, set_types};
use super::table::{TABLE, mounts_below};
use super::unmount::{detach_all, left};
use super::{CHANGES, Instance, MAX_MOUNTS, Mount, MountFlags, descend, mounted_on};
use crate::errno::{Errno, Result};
use crate::exec;
use crate::fs::dentry;
use crate::fs::inode::FileType;
use crate::fs::path::Path;

/// ENOSPC if there cannot be so many more.
fn check_room(more: usize) -> Result<()> {
    let fits = TABLE.read().len() + more <= MAX_MOUNTS.load(Ordering::Relaxed);
    if fits { Ok(()) } else { Err(Errno::ENOSPC) }
}

/// Does something with the place on top of what is mounted on `at`, while nobody is about to remove it. ENOENT if it has
/// been removed.
async fn with_place<T>(mut at: Path, then: impl AsyncFnOnce(Path) -> Result<T>) -> Result<T> {
    loop {
        descend(&mut at);
        // Names of files are taken away under the lock of their directory alone.
        let dir = if at.dentry.is_dir() { None } else { at.dentry.parent() };
        let inode = dir.as_ref().unwrap_or(&at.dentry).inode().clone();
        let _locked = inode.state().lock.lock().await;
        let moved = dir.is_some_and(|dir| at.dentry.parent().is_none_or(|now| !Arc::ptr_eq(&now, &dir)));
        if moved || mounted_on(&at).is_some() {
            continue;
        }
        if at.dentry.is_dead() {
            return Err(Errno::ENOENT);
        }
        return then(at).await;
    }
}

/// Puts a mount on `at`, for who holds [`CHANGES`].
async fn attach(mount: &Arc<Mount>, at: Path) -> Result<()> {
    let at = claim(mount, at)?;
    put(mount, at).await;
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
async fn put(mount: &Arc<Mount>, at: Path) {
    if !TABLE.read().contains(mount) {
        // As long as it has no place, it is not seen. What is in it comes after it in listings.
        TABLE.write().enter_last(mount);
        for below in mounts_below(&top_of(mount)).await {
            TABLE.write().enter_last(&below);
            exec::budget().await;
        }
    }
    pin(&at);
    let old = TABLE.write().settle(mount, Some(at));
    left(old);
    mount.detached.store(false, Ordering::Relaxed);
}

/// Walks find the mount on a name that no cache has.
fn pin(at: &Path) {
    if at.mount.fs().volatile_names() {
        dentry::pin(&at.dentry);
    }
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
    let mount = Mount::whole(instance, flags);
    with_place(at, async |at| {
        let _changes = CHANGES.lock().await;
        check_known(&at)?;
        check_not_twice(&mount, &at)?;
        check_room(1)?;
        share_in(&at.mount, &mount).await?;
        attach(&mount, at).await
    })
    .await
}

/// What is about to be mounted in a shared mount is shared, too, with all that is mounted in it.
async fn share_in(parent: &Mount, mount: &Arc<Mount>) -> Result<()> {
    if !parent.is_shared() {
        return Ok(());
    }
    set_types(&with_below(mount).await, Type::Shared).await
}

/// A mount and all that is mounted in it.
async fn with_below(mount: &Arc<Mount>) -> Vec<Arc<Mount>> {
    let mut all = vec![mount.clone()];
    all.extend(mounts_below(&top_of(mount)).await);
    all
}

/// EBUSY for what is the whole of a place's mount already.
fn check_not_twice(mount: &Mount, at: &Path) -> Result<()> {
    let there = Arc::ptr_eq(&at.mount.root, &at.dentry) && Arc::ptr_eq(&at.mount.instance, &mount.instance);
    if there { Err(Errno::EBUSY) } else { Ok(()) }
}

/// A second view of a tree (MS_BIND); with `recursive` of everything mounted below it, too.
pub async fn bind(source: &Path, at: Path, recursive: bool) -> Result<()> {
    if source.dentry.is_dir() != at.dentry.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    with_place(at, async |at| {
        let _changes = CHANGES.lock().await;
        check_known(&at)?;
        let copy = copy_tree_locked(source, recursive).await?;
        let attached = match share_in(&at.mount, &copy).await {
            Ok(()) => attach(&copy, at).await,
            Err(errno) => Err(errno),
        };
        if attached.is_err() {
            dissolve_locked(&copy).await;
        }
        attached
    })
    .await
}

/// A detached copy of a tree of mounts. EINVAL for what is in no namespace itself.
pub async fn copy_tree(source: &Path, recursive: bool) -> Result<Arc<Mount>> {
    let _changes = CHANGES.lock().await;
    copy_tree_locked(source, recursive).await
}

async fn copy_tree_locked(source: &Path, recursive: bool) -> Result<Arc<Mount>> {
    if !is_in_namespace(&source.mount) || source.mount.is_unbindable() {
        return Err(Errno::EINVAL);
    }
    let copy = source.mount.copy(source.dentry.clone());
    copy.detached.store(true, Ordering::Relaxed);
    let below: Vec<Arc<Mount>> = if recursive { mounts_below(source).await } else { Vec::new() };
    check_room(1 + below.len())?;
    // By the mount that they are copies of.
    let mut copies = BTreeMap::new();
    copies.insert(source.mount.id, copy.clone());
    for mount in below {
        let Some(place) = mount.place() else { continue };
        // What is unbindable is left out with all that is in it.
        let Some(parent) = copies.get(&place.mount.id).filter(|_| !mount.is_unbindable()).cloned() else { continue };
        let child = mount.copy(mount.root.clone());
        if let Err(errno) = attach(&child, Path { mount: parent, dentry: place.dentry }).await {
            dissolve_locked(&copy).await;
            return Err(errno);
        }
        copies.insert(mount.id, child);
        exec::budget().await;
    }
    Ok(copy)
}

/// A mount of a new instance that has no place yet (fsmount(2)).
pub fn detached(instance: Arc<Instance>, flags: MountFlags) -> Arc<Mount> {
    let mount = Mount::whole(instance, flags);
    mount.detached.store(true, Ordering::Relaxed);
    mount
}

/// The file that a detached tree belongs to is gone: so is the tree, unless it has got a place.
pub fn dissolve(mount: &Arc<Mount>) {
    // It is not to be kept in use.
    if !mount.detached.load(Ordering::Relaxed) {
        return;
    }
    if TABLE.read().is_bare(mount) {
        mount.detached.store(false, Ordering::Relaxed);
        return;
    }
    let mount = mount.clone();
    exec::spawn("dissolve", async move {
        let _changes = CHANGES.lock().await;
        dissolve_locked(&mount).await;
    });
}

async fn dissolve_locked(mount: &Arc<Mount>) {
    if mount.detached.swap(false, Ordering::Relaxed) {
        detach_all(mounts_below(&top_of(mount)).await).await;
    }
}

/// MS_MOVE, move_mount(2): the mount at `source`, which may be a detached tree, goes to `at`.
pub async fn move_mount(source: &Path, at: Path) -> Result<()> {
    with_place(at, async |at| move_locked(source, at).await).await
}

async fn move_locked(source: &Path, at: Path) -> Result<()> {
    let _changes = CHANGES.lock().await;
    let mount = &source.mount;
    let detached = mount.detached.load(Ordering::Relaxed);
    let movable = detached || is_in_namespace(mount);
    let whole = Arc::ptr_eq(&mount.root, &source.dentry);
    if !movable || !whole || !is_in_namespace(&at.mount) || source.dentry.is_dir() != at.dentry.is_dir() {
        return Err(Errno::EINVAL);
    }
    let mut top = at;
    descend(&mut top);
    if mount.place().is_some_and(|place| place.mount.is_shared()) {
        return Err(Errno::EINVAL);
    }
    if top.mount.is_shared() && with_below(mount).await.iter().any(|mount| mount.is_unbindable()) {
        return Err(Errno::EINVAL);
    }
    if is_at_or_above(mount, &top.mount) {
        return Err(Errno::ELOOP);
    }
    if detached {
        check_room(1)?;
    }
    share_in(&top.mount, mount).await?;
    let at = claim(mount, top)?;
    put(mount, at).await;
    Ok(())
}

fn is_at_or_above(mount: &Arc<Mount>, below: &Arc<Mount>) -> bool {
    let mut at = below.clone();
    while !Arc::ptr_eq(&at, mount) {
        match at.place() {
            Some(place) => at = place.mount,
            None => return false,
        }
    }
    true
}

/// mount_setattr(2): other flags for the mount at `top`, with `recursive` for those below it, too, and another type. All or none.
pub async fn change_flags(
    top: &Path,
    recursive: bool,
    set: MountFlags,
    clear: MountFlags,
    propagation: Option<Type>,
) -> Result<()> {
    let _changes = CHANGES.lock().await;
    let mount = &top.mount;
    let known = is_in_namespace(mount) || mount.detached.load(Ordering::Relaxed);
    if !known || !Arc::ptr_eq(&mount.root, &top.dentry) {
        return Err(Errno::EINVAL);
    }
    let mut mounts = vec![mount.clone()];
    if recursive {
        mounts.extend(mounts_below(top).await);
    }
    // Who would write through one of them waits for the outcome.
    let mut held = Vec::new();
    for mount in &mounts {
        if set.contains(MountFlags::RDONLY) && !mount.flags().contains(MountFlags::RDONLY) {
            held.push(mount.writers.hold()?);
        }
        exec::budget().await;
    }
    if let Some(new) = propagation {
        set_types(&mounts, new).await?;
    }
    for mount in &mounts {
        mount.set_flags((mount.flags() - clear) | set);
        exec::budget().await;
    }
    Ok(())
}

/// The flags of a mount become what `new` makes of them.
pub async fn replace_flags(mount: &Mount, new: impl FnOnce(MountFlags) -> MountFlags) {
    let _changes = CHANGES.lock().await;
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

/// pivot_root(2): the mount at `new` takes the place of the root, which goes to `put_old`.
pub async fn pivot_root(new: &Path, put_old: Path, root: &Path) -> Result<()> {
    with_place(put_old, async |put_old| {
        let _changes = CHANGES.lock().await;
        pivot_locked(new, put_old, root)
    })
    .await
}

fn pivot_locked(new: &Path, put_old: Path, root: &Path) -> Result<()> {
    let (new_mount, old_mount) = (&new.mount, &root.mount);
    let parents = [new_mount.place(), old_mount.place()];
    if put_old.mount.is_shared() || parents.iter().flatten().any(|place| place.mount.is_shared()) {
        return Err(Errno::EINVAL);
    }
    if !is_in_namespace(new_mount) || !is_in_namespace(old_mount) {
        return Err(Errno::EINVAL);
    }
    if new.dentry.is_dead() {
        return Err(Errno::ENOENT);
    }
    if Arc::ptr_eq(new_mount, old_mount) || Arc::ptr_eq(&put_old.mount, old_mount) {
        return Err(Errno::EBUSY);
    }
    let is_top = |path: &Path| Arc::ptr_eq(&path.mount.root, &path.dentry);
    if !is_top(new) || !is_top(root) || new_mount.place().is_none() {
        return Err(Errno::EINVAL);
    }
    if !is_reached_from(&put_old, new) || !is_reached_from(new, root) {
        return Err(Errno::EINVAL);
    }
    let put_old = claim(old_mount, put_old)?;
    pin(&put_old);
    let places = {
        // There is a root at any time.
        let mut table = TABLE.write();
        let freed = table.settle(new_mount, None);
        let place = table.settle(old_mount, Some(put_old));
        table.settle(new_mount, place);
        freed
    };
    left(places);
    Ok(())
}

/// Does the way up from `below` lead through `top`, which is the root of a mount?
fn is_reached_from(below: &Path, top: &Path) -> bool {
    is_at_or_above(&top.mount, &below.mount)
}
