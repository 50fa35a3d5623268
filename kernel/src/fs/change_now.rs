//! Changes of names without waiting, as [`super::change`] makes them: where the way there is in the cache, nobody holds the
//! directories, and the file system answers at once.
//!
//! None, from any of these: nothing was changed, and it must be tried the other way.

use alloc::sync::Arc;

use super::change::{self, Ends};
use super::dentry::{self, Cached, Dentry, NAME_MAX};
use super::inode::{FileSystem, NewNode, RenameFlags};
use super::mount::Writing;
use super::names::{self, Name};
use super::path::Path;
use super::slashes;
use super::walk::{Ctx, Flags, start_of};
use super::walk_now::lookup_now;
use crate::errno::{Errno, Result};

/// A path, taken apart.
struct Split<'p> {
    /// Up to its last name.
    parent: &'p [u8],
    name: &'p [u8],
    /// It ends in one.
    slash: bool,
}

impl<'p> Split<'p> {
    /// None for the empty path, and those that end in ".", ".." or are nothing but slashes.
    fn of(path: &'p [u8]) -> Option<Split<'p>> {
        let end = path.iter().rposition(|byte| *byte != b'/')? + 1;
        let (trimmed, slashes) = path.split_at(end);
        let start = slashes::last(trimmed).map_or(0, |at| at + 1);
        let (parent, name) = trimmed.split_at(start);
        (!matches!(name, b"." | b"..")).then_some(Split { parent, name, slash: !slashes.is_empty() })
    }

    /// The directory that the name is in, which is searchable.
    #[inline]
    fn directory(&self, ctx: Ctx<'_>, dirfd: i32, purpose: Purpose) -> Option<Result<Path>> {
        let dir = match self.parent.is_empty() {
            true => start_of(ctx, dirfd),
            false => lookup_now(ctx, dirfd, self.parent, Flags::FOLLOW | Flags::DIRECTORY)?,
        };
        match dir.and_then(|dir| ctx.check_search(&**dir.inode()).map(|()| dir)) {
            Ok(dir) if !purpose.is_met_at_once(&**dir.mount.fs()) => None,
            dir => Some(dir),
        }
    }
}

/// What a directory is wanted for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To look for a name in it.
    Look,
    /// To change it at once, which not all can be.
    Change,
    /// To make a directory in it.
    MakeDirectory,
}

impl Purpose {
    #[inline]
    fn is_met_at_once(self, fs: &dyn FileSystem) -> bool {
        match self {
            Purpose::Look => true,
            Purpose::Change => fs.changes_at_once(),
            Purpose::MakeDirectory => fs.makes_directories_at_once(),
        }
    }
}

/// The last name of a path, and the directory that it is in.
pub(super) struct Spot<'p> {
    pub dir: Path,
    pub name: &'p [u8],
    /// The path ends in one.
    pub slash: bool,
}

impl<'p> Spot<'p> {
    pub fn find(ctx: Ctx<'_>, dirfd: i32, path: &'p [u8], purpose: Purpose) -> Option<Result<Spot<'p>>> {
        let split = Split::of(path)?;
        let dir = split.directory(ctx, dirfd, purpose)?;
        Some(dir.map(|dir| Spot { dir, name: split.name, slash: split.slash }))
    }

    /// What has the name; None if nothing has. The directory is locked.
    pub fn entry(&self) -> Option<Option<Arc<Dentry>>> {
        let dir = &self.dir.dentry;
        match dentry::cached(dir, self.name) {
            Cached::Found(dentry) => Some(Some(dentry)),
            Cached::Nothing => Some(None),
            Cached::Unknown if self.name.len() > NAME_MAX => None,
            Cached::Unknown => match dir.inode().lookup(self.name).now()? {
                Ok(inode) => Some(Some(dentry::insert(dir, self.name, inode))),
                Err(Errno::ENOENT) => Some(None),
                Err(_) => None,
            },
        }
    }
}

/// Unwraps an answer, or passes it on.
macro_rules! answer {
    ($result:expr) => {
        match $result {
            Ok(value) => value,
            Err(errno) => return Some(Err(errno)),
        }
    };
}
pub(in crate::fs) use answer;

/// mkdirat(2).
pub fn make_directory(ctx: Ctx<'_>, dirfd: i32, path: &[u8], perm: u32) -> Option<Result<()>> {
    let spot = answer!(Spot::find(ctx, dirfd, path, Purpose::MakeDirectory)?);
    let writing = spot.dir.mount.writing().now()?;
    let _guard = spot.dir.inode().state().lock.try_lock()?;
    if spot.entry()?.is_some() {
        return Some(Err(Errno::EEXIST));
    }
    let attr = answer!(change::check_create(ctx, &spot.dir, &NewNode::Directory, perm, Writing::outcome(&writing)));
    names::make_now(&spot.dir.dentry, spot.name, NewNode::Directory, attr).map(|made| made.map(drop))
}

/// unlinkat(2); of a directory if `directory`.
pub fn remove(ctx: Ctx<'_>, dirfd: i32, path: &[u8], directory: bool) -> Option<Result<()>> {
    let spot = answer!(Spot::find(ctx, dirfd, path, Purpose::Change)?);
    let _writing = answer!(spot.dir.mount.writing().now()?);
    let _guard = spot.dir.inode().state().lock.try_lock()?;
    let Some(victim) = spot.entry()? else { return Some(Err(Errno::ENOENT)) };
    answer!(match directory {
        true => change::check_rmdir(ctx, &spot.dir, &victim),
        false => change::check_unlink(ctx, &spot.dir, &victim, spot.slash),
    });
    names::remove_now(&spot.dir.dentry, spot.name, &victim)
}

/// renameat2(2).
pub fn rename(ctx: Ctx<'_>, old: (i32, &[u8]), new: (i32, &[u8]), flags: RenameFlags) -> Option<Result<()>> {
    answer!(change::check_flags(flags));
    let (old_split, new_split) = (Split::of(old.1)?, Split::of(new.1)?);
    let old_dir = answer!(old_split.directory(ctx, old.0, Purpose::Change)?);
    let new_dir = match (old.0, old_split.parent) == (new.0, new_split.parent) {
        true => old_dir.clone(),
        false => answer!(new_split.directory(ctx, new.0, Purpose::Change)?),
    };
    let from = Spot { dir: old_dir, name: old_split.name, slash: old_split.slash };
    let to = Spot { dir: new_dir, name: new_split.name, slash: new_split.slash };
    if !Arc::ptr_eq(&from.dir.mount, &to.dir.mount) {
        return Some(Err(Errno::EXDEV));
    }
    let _writing = answer!(from.dir.mount.writing().now()?);
    let _guards = names::try_lock_pair(&**from.dir.mount.fs(), &from.dir.dentry, &to.dir.dentry)?;
    let Some(source) = from.entry()? else { return Some(Err(Errno::ENOENT)) };
    let target = to.entry()?;
    let slashes = [from.slash, to.slash];
    let ends = Ends { old_dir: &from.dir, new_dir: &to.dir, source: &source, target: target.as_ref(), flags, slashes };
    if !answer!(ends.check(ctx)) {
        return Some(Ok(()));
    }
    let old = Name { dir: &from.dir.dentry, name: from.name };
    let new = Name { dir: &to.dir.dentry, name: to.name };
    names::rename_now(old, &source, new, target.as_ref(), flags)
}

#[cfg(test)]
mod tests {
    use super::Split;

    #[test]
    fn paths_come_apart_before_their_last_name() {
        let cases = [
            ("a", "", "a", false),
            ("a//", "", "a", true),
            ("/a", "/", "a", false),
            ("/a/b", "/a/", "b", false),
            ("a/../b/", "a/../", "b", true),
        ];
        for (path, parent, name, slash) in cases {
            let split = Split::of(path.as_bytes()).unwrap();
            assert_eq!((split.parent, split.name, split.slash), (parent.as_bytes(), name.as_bytes(), slash), "{path}");
        }
        for path in ["a/..", "./", "//", ""] {
            assert!(Split::of(path.as_bytes()).is_none(), "{path}");
        }
    }
}
