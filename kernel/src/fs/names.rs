//! Changes of names, with the cache and those who watch kept informed. Nobody is asked whether they may be made: for system
//! calls [`super::change`] has done that, for its layers an overlay.
//!
//! While the file system works on a change, the name's cache entry is in doubt: if the future is dropped half-way, the
//! entry goes ([`Doubt`]), and the next lookup asks the file system.

use alloc::sync::Arc;

use super::dentry::{self, Dentry, Doomed};
use super::inode::{FileSystem, Inode, NewAttr, NewNode, RenameFlags};
use super::inode_flags;
use super::inotify::hooks;
use crate::errno::{Errno, Result};
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
    let made = made(dir, name, inode);
    inode_flags::sync_names(&**dir.inode()).await?;
    Ok(made)
}

/// The same for file systems that answer at once. None: it has not begun.
pub fn make_now(dir: &Arc<Dentry>, name: &[u8], node: NewNode<'_>, attr: NewAttr) -> Option<Result<Arc<Dentry>>> {
    let inode = dir.inode().create(name, node, attr).now()?;
    Some(inode.map(|inode| made(dir, name, inode)).inspect_err(|_| dentry::forget(dir, name)))
}

fn made(dir: &Arc<Dentry>, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
    hooks::created(dir.inode(), name, inode.kind());
    if dir.inode().fs().volatile_names() {
        return Dentry::new(Some(dir.clone()), name, inode);
    }
    dentry::insert(dir, name, inode)
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
    inode_flags::sync_names(&**dir.inode()).await
}

/// Takes away the name of `victim`, which is in the locked directory.
pub async fn remove(dir: &Arc<Dentry>, name: &[u8], victim: &Arc<Dentry>) -> Result<()> {
    check_not_locked(victim, [dir])?;
    let _victim_guard = match victim.is_dir() {
        true => Some(victim.inode().state().lock.lock().await),
        false => None,
    };
    let removal = Removal::begin(dir, name, victim)?;
    let result = dir.inode().unlink(name, victim.inode()).await;
    removal.end(result)?;
    inode_flags::sync_names(&**dir.inode()).await
}

/// The same for file systems that answer at once. None: it has not begun.
pub fn remove_now(dir: &Arc<Dentry>, name: &[u8], victim: &Arc<Dentry>) -> Option<Result<()>> {
    if let Err(errno) = check_not_locked(victim, [dir]) {
        return Some(Err(errno));
    }
    let _victim_guard = match victim.is_dir() {
        true => Some(victim.inode().state().lock.try_lock()?),
        false => None,
    };
    let removal = match Removal::begin(dir, name, victim) {
        Ok(removal) => removal,
        Err(errno) => return Some(Err(errno)),
    };
    match dir.inode().unlink(name, victim.inode()).now() {
        Some(result) => Some(removal.end(result)),
        None => {
            removal.doubt.settle();
            None
        }
    }
}

/// A name that is being taken away.
struct Removal<'a> {
    doubt: Doubt<'a>,
    victim: &'a Arc<Dentry>,
    _doomed: Doomed<'a>,
}

impl<'a> Removal<'a> {
    fn begin(dir: &'a Arc<Dentry>, name: &'a [u8], victim: &'a Arc<Dentry>) -> Result<Removal<'a>> {
        let doomed = Doomed::new(victim)?;
        Ok(Removal { doubt: Doubt::new(dir, name), victim, _doomed: doomed })
    }

    fn end(self, result: Result<()>) -> Result<()> {
        let Doubt { dir, name, .. } = self.doubt;
        self.doubt.settle();
        if result.is_ok() {
            dentry::removed(self.victim);
            hooks::removed(dir.inode(), name, self.victim);
        }
        result
    }
}

/// The rename lock and two directories, the second unless it is the first.
type Pair<'a> = (Option<MutexGuard<'a, ()>>, MutexGuard<'a, ()>, Option<MutexGuard<'a, ()>>);

/// A directory that is its own entry, which only a file system can be that is not sound or is changed from outside, cannot be
/// taken away: its lock is held for the entry.
fn check_not_locked<const N: usize>(victim: &Arc<Dentry>, locked: [&Arc<Dentry>; N]) -> Result<()> {
    if locked.iter().any(|dir| is_same(dir, victim)) { Err(Errno::EBUSY) } else { Ok(()) }
}

/// Are these names of one directory?
fn is_same(a: &Dentry, b: &Dentry) -> bool {
    Arc::ptr_eq(a.inode(), b.inode())
}

/// Locks two directories of a file system, the ancestor first; the same one once. Between different ones the rename lock is
/// held.
pub async fn lock_pair<'a>(fs: &'a dyn FileSystem, a: &'a Arc<Dentry>, b: &'a Arc<Dentry>) -> Pair<'a> {
    if is_same(a, b) {
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

/// The same if nobody has locked them. None: somebody has.
pub fn try_lock_pair<'a>(fs: &'a dyn FileSystem, a: &'a Arc<Dentry>, b: &'a Arc<Dentry>) -> Option<Pair<'a>> {
    let try_lock = |dentry: &'a Arc<Dentry>| dentry.inode().state().lock.try_lock();
    if is_same(a, b) {
        return Some((None, try_lock(a)?, None));
    }
    Some((Some(fs.rename_lock().try_lock()?), try_lock(a)?, Some(try_lock(b)?)))
}

/// Moves `source` from one name to another, where `target` is if there is anything. Both directories are locked.
pub async fn rename(
    from: Name<'_>,
    source: &Arc<Dentry>,
    to: Name<'_>,
    target: Option<&Arc<Dentry>>,
    flags: RenameFlags,
) -> Result<()> {
    let replaced = replaced_by(target, flags).filter(|victim| victim.is_dir());
    replaced.map_or(Ok(()), |victim| check_not_locked(victim, [from.dir, to.dir]))?;
    let _victim_guard = match replaced {
        Some(victim) => Some(victim.inode().state().lock.lock().await),
        None => None,
    };
    let renaming = Renaming::begin(from, source, to, target, flags)?;
    let (moved, in_place) = (source.inode(), target.map(|target| target.inode()));
    let result = from.dir.inode().rename(from.name, moved, to.dir.inode(), to.name, in_place, flags).await;
    renaming.end(result)?;
    // Either stores all that changed.
    match inode_flags::syncs_names(&**to.dir.inode()) {
        true => inode_flags::sync_names(&**to.dir.inode()).await,
        false => inode_flags::sync_names(&**from.dir.inode()).await,
    }
}

/// The same for file systems that answer at once. None: it has not begun.
pub fn rename_now(
    from: Name<'_>,
    source: &Arc<Dentry>,
    to: Name<'_>,
    target: Option<&Arc<Dentry>>,
    flags: RenameFlags,
) -> Option<Result<()>> {
    let replaced = replaced_by(target, flags).filter(|victim| victim.is_dir());
    if let Some(Err(errno)) = replaced.map(|victim| check_not_locked(victim, [from.dir, to.dir])) {
        return Some(Err(errno));
    }
    let _victim_guard = match replaced {
        Some(victim) => Some(victim.inode().state().lock.try_lock()?),
        None => None,
    };
    let renaming = match Renaming::begin(from, source, to, target, flags) {
        Ok(renaming) => renaming,
        Err(errno) => return Some(Err(errno)),
    };
    let (moved, in_place) = (source.inode(), target.map(|target| target.inode()));
    match from.dir.inode().rename(from.name, moved, to.dir.inode(), to.name, in_place, flags).now() {
        Some(result) => Some(renaming.end(result)),
        None => {
            renaming.doubts.into_iter().for_each(Doubt::settle);
            None
        }
    }
}

/// What a rename takes the name away from.
fn replaced_by(target: Option<&Arc<Dentry>>, flags: RenameFlags) -> Option<&Arc<Dentry>> {
    target.filter(|_| !flags.contains(RenameFlags::EXCHANGE))
}

/// A name that is being moved.
struct Renaming<'a> {
    doubts: [Doubt<'a>; 2],
    source: &'a Arc<Dentry>,
    target: Option<&'a Arc<Dentry>>,
    /// The target, if it is not exchanged.
    replaced: Option<&'a Arc<Dentry>>,
    /// Something else gets the old name.
    whiteout: bool,
    _doomed: Option<Doomed<'a>>,
}

impl<'a> Renaming<'a> {
    fn begin(
        from: Name<'a>,
        source: &'a Arc<Dentry>,
        to: Name<'a>,
        target: Option<&'a Arc<Dentry>>,
        flags: RenameFlags,
    ) -> Result<Renaming<'a>> {
        let replaced = replaced_by(target, flags);
        let doomed = replaced.map(|target| Doomed::new(target)).transpose()?;
        let doubts = [Doubt::new(from.dir, from.name), Doubt::new(to.dir, to.name)];
        let whiteout = flags.contains(RenameFlags::WHITEOUT);
        Ok(Renaming { doubts, source, target, replaced, whiteout, _doomed: doomed })
    }

    fn end(self, result: Result<()>) -> Result<()> {
        let [from, to] = self.doubts.each_ref().map(|doubt| Name { dir: doubt.dir, name: doubt.name });
        self.doubts.into_iter().for_each(Doubt::settle);
        result?;
        let source = self.source;
        match (self.target, self.replaced) {
            (Some(target), None) => dentry::exchanged(source, target),
            (_, replaced) => {
                if let Some(replaced) = replaced {
                    replaced.set_dead();
                }
                dentry::moved(source, (from.dir, from.name), (to.dir, to.name), self.whiteout);
            }
        }
        let (old, new) = ((from.dir.inode(), from.name), (to.dir.inode(), to.name));
        hooks::renamed(old, new, source, self.replaced.map(|target| &**target));
        if let (Some(target), None) = (self.target, self.replaced) {
            hooks::renamed(new, old, target, None);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::tests::World;
    use crate::fs::walk::Flags;
    use crate::mm::test_util::run as block_on;

    /// As an overlay shows a directory whose upper one was moved behind its back.
    #[test]
    fn a_directory_that_is_there_twice_is_locked_once() {
        block_on(async {
            let w = World::new();
            w.mkdir("/d").await.unwrap();
            w.create("/d/file").await.unwrap();
            let root = w.find("/", Flags::empty()).await.unwrap().dentry;
            let d = w.find("/d", Flags::empty()).await.unwrap().dentry;
            let again = dentry::insert(&root, b"again", d.inode().clone());
            dentry::insert(&d, b"self", d.inode().clone());
            w.rename("/d/file", "/again/moved", RenameFlags::empty()).await.unwrap();
            assert!(w.ino("/again/moved").await.is_ok());
            assert_eq!(w.rmdir("/d/self").await, Err(Errno::EBUSY));
            // Its inner directory would take the place of what it is in.
            w.mkdir("/again/inner").await.unwrap();
            assert_eq!(w.rename("/again/inner", "/d/self", RenameFlags::empty()).await, Err(Errno::EBUSY));
            assert_eq!(w.rename("/again/inner", "/d", RenameFlags::empty()).await, Err(Errno::EBUSY));
            let fs = d.inode().fs();
            let pair = lock_pair(&*fs, &d, &again).await;
            assert!(pair.0.is_none() && pair.2.is_none() && try_lock_pair(&*fs, &again, &d).is_none());
        });
    }
}
