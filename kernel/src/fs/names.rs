//! Changes of names, with the cache and those who watch kept informed. Nobody is asked whether they may be made: for system
//! calls [`super::change`] has done that, for its layers an overlay.
//!
//! While the file system works on a change, the name's cache entry is in doubt: if the future is dropped half-way, the
//! entry goes ([`Doubt`]), and the next lookup asks the file system.

use alloc::sync::Arc;

use super::dentry::{self, Dentry};
use super::inode::{FileSystem, Inode, NewAttr, NewNode, RenameFlags};
use super::inotify::hooks;
use crate::errno::Result;
use crate::exec::MutexGuard;

/// Takes the cache entry out when dropped, unless the change was settled.
struct Doubt<'a> {
    dir: &'a Arc<Dentry>,
    name: &'a [u8],
    settled: bool,
}

impl<'a> Doubt<'a> {
    fn new(dir: &'a Arc<Dentry>, name: &'a [u8]) -> Self {
        Doubt { dir, name, settled: false }
    }

    fn settle(mut self) {
        self.settled = true;
    }
}

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if !self.settled {
            dentry::forget(self.dir, self.name);
        }
    }
}

/// A new node. The directory is locked, and the name was seen not to be there.
pub async fn make(dir: &Arc<Dentry>, name: &[u8], node: NewNode<'_>, attr: NewAttr) -> Result<Arc<Dentry>> {
    let doubt = Doubt::new(dir, name);
    let inode = dir.inode().create(name, node, attr).await?;
    doubt.settle();
    hooks::created(dir.inode(), name, inode.kind());
    if dir.inode().fs().volatile_names() {
        return Ok(Dentry::new(Some(dir.clone()), name, inode));
    }
    Ok(dentry::insert(dir, name, inode))
}

/// One more name for `inode`. The directory is locked, and the name was seen not to be there.
pub async fn link(dir: &Arc<Dentry>, name: &[u8], inode: &Arc<dyn Inode>) -> Result<()> {
    let doubt = Doubt::new(dir, name);
    dir.inode().link(name, inode).await?;
    doubt.settle();
    if !dir.inode().fs().volatile_names() {
        dentry::insert(dir, name, inode.clone());
    }
    hooks::linked(dir.inode(), name, inode);
    Ok(())
}

/// Takes away the name of `victim`, which is in the locked directory.
pub async fn remove(dir: &Arc<Dentry>, name: &[u8], victim: &Arc<Dentry>) -> Result<()> {
    let _victim_guard = match victim.is_dir() {
        true => Some(victim.inode().state().lock.lock().await),
        false => None,
    };
    let doubt = Doubt::new(dir, name);
    let result = dir.inode().unlink(name, victim.inode()).await;
    doubt.settle();
    if result.is_ok() {
        dentry::removed(victim);
        hooks::removed(dir.inode(), name, victim);
    }
    result
}

/// Locks two directories of a file system, the ancestor first; the same one once. Between different ones the rename lock is
/// held.
pub async fn lock_pair<'a>(
    fs: &'a dyn FileSystem,
    a: &'a Arc<Dentry>,
    b: &'a Arc<Dentry>,
) -> (Option<MutexGuard<'a, ()>>, MutexGuard<'a, ()>, Option<MutexGuard<'a, ()>>) {
    if Arc::ptr_eq(a, b) {
        return (None, a.inode().state().lock.lock().await, None);
    }
    let tree = fs.rename_lock().lock().await;
    let by_address = Arc::as_ptr(a) < Arc::as_ptr(b);
    let a_first = a.is_ancestor_of(b) || by_address && !b.is_ancestor_of(a);
    let (first, second) = if a_first { (a, b) } else { (b, a) };
    let outer = first.inode().state().lock.lock().await;
    let inner = second.inode().state().lock.lock().await;
    (Some(tree), outer, Some(inner))
}

/// A name in a directory.
#[derive(Clone, Copy)]
pub struct Name<'a> {
    pub dir: &'a Arc<Dentry>,
    pub name: &'a [u8],
}

/// Moves `source` from one name to another, where `target` is if there is anything. Both directories are locked.
pub async fn rename(
    from: Name<'_>,
    source: &Arc<Dentry>,
    to: Name<'_>,
    target: Option<&Arc<Dentry>>,
    flags: RenameFlags,
) -> Result<()> {
    let exchange = flags.contains(RenameFlags::EXCHANGE);
    let _victim_guard = match target.filter(|target| !exchange && target.is_dir()) {
        Some(victim) => Some(victim.inode().state().lock.lock().await),
        None => None,
    };
    let old_doubt = Doubt::new(from.dir, from.name);
    let new_doubt = Doubt::new(to.dir, to.name);
    let (moved, replaced) = (source.inode(), target.map(|target| target.inode()));
    let result = from.dir.inode().rename(from.name, moved, to.dir.inode(), to.name, replaced, flags).await;
    old_doubt.settle();
    new_doubt.settle();
    result?;
    match target {
        Some(target) if exchange => dentry::exchanged(source, target),
        Some(target) => {
            dentry::removed(target);
            dentry::moved(source, to.dir, to.name);
        }
        None => dentry::moved(source, to.dir, to.name),
    }
    let (old, new) = ((from.dir.inode(), from.name), (to.dir.inode(), to.name));
    let replaced = target.filter(|_| !exchange);
    hooks::renamed(old, new, source, replaced.map(|target| &**target));
    if let Some(target) = target.filter(|_| exchange) {
        hooks::renamed(new, old, target, None);
    }
    Ok(())
}
