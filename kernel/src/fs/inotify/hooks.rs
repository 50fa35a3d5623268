//! What happened to files, as the VFS tells it.
//!
//! Something that happens to a file is told to those who watch it, and before them to those who watch the directory that it
//! was reached through, with its name. What happens to a name is told to those who watch the directory.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};

use linux_raw_sys::general as raw;

use super::queue::Event;
use super::watch::{Watches, any};
use crate::fs::dentry::Dentry;
use crate::fs::inode::{FileType, Inode};
use crate::fs::open_file::OpenFile;
use crate::fs::path::Path;

/// Nobody watches anything: what the ways that are taken often ask first.
#[inline]
pub fn quiet() -> bool {
    !any()
}

/// What an event is about besides the inode.
#[derive(Clone, Copy, Default)]
struct About<'a> {
    name: Option<&'a [u8]>,
    cookie: u32,
    /// It came through an open file whose name is gone (IN_EXCL_UNLINK).
    unlinked: bool,
}

#[cold]
fn tell(inode: &Arc<dyn Inode>, mask: u32, about: About<'_>) {
    if !Watches::may_want(inode, mask) {
        return;
    }
    for watch in Watches::of(inode).all() {
        if !watch.wants(mask, about.unlinked) {
            continue;
        }
        let Some(instance) = watch.instance() else { continue };
        instance.push(Event::new(watch.wd(), mask, about.cookie, about.name));
        if watch.mask() & raw::IN_ONESHOT != 0 {
            let _ = instance.remove(watch.wd());
        }
    }
}

/// IN_ISDIR for directories.
pub(super) fn is_dir(kind: FileType) -> u32 {
    if kind == FileType::Directory { raw::IN_ISDIR } else { 0 }
}

/// To the directory that has it, and to the file itself.
#[cold]
fn tell_both(dentry: &Arc<Dentry>, mask: u32, unlinked: bool) {
    let kind = dentry.kind();
    let mask = mask | is_dir(kind);
    // What goes through a pipe or a device is no change of the directory's.
    let content = matches!(kind, FileType::Regular | FileType::Directory | FileType::Symlink);
    if (content || mask & (raw::IN_ACCESS | raw::IN_MODIFY) == 0)
        && let (Some(parent), name) = dentry.parent_and_name()
    {
        tell(parent.inode(), mask, About { name: Some(&name), unlinked, ..About::default() });
    }
    tell(dentry.inode(), mask, About { unlinked, ..About::default() });
}

/// Something was done with an open file: IN_OPEN, IN_ACCESS, IN_MODIFY, IN_CLOSE_*.
#[inline]
pub fn used(file: &OpenFile, event: u32) {
    if any() {
        used_path(file.path(), event);
    }
}

#[cold]
pub fn used_path(path: &Path, event: u32) {
    if !path.mount.is_internal() {
        tell_both(&path.dentry, event, path.dentry.is_dead());
    }
}

/// Attributes or content were changed by name: IN_ATTRIB, IN_MODIFY.
#[inline]
pub fn changed(path: &Path, event: u32) {
    if any() && !path.mount.is_internal() {
        tell_both(&path.dentry, event, false);
    }
}

/// A directory has got a name.
#[inline]
pub fn created(dir: &Arc<dyn Inode>, name: &[u8], kind: FileType) {
    if any() {
        tell(dir, raw::IN_CREATE | is_dir(kind), About { name: Some(name), ..About::default() });
    }
}

/// A file has got one name more.
#[inline]
pub fn linked(dir: &Arc<dyn Inode>, name: &[u8], inode: &Arc<dyn Inode>) {
    if any() {
        tell(inode, raw::IN_ATTRIB, About::default());
        created(dir, name, inode.kind());
    }
}

/// The name `name` of `dentry` in `dir` was removed. To be called when the cache has let go of it.
#[inline]
pub fn removed(dir: &Arc<dyn Inode>, name: &[u8], dentry: &Arc<Dentry>) {
    if any() {
        if !dentry.is_dir() {
            tell(dentry.inode(), raw::IN_ATTRIB, About::default());
        }
        // If nobody has it open this is its end, which is told first.
        if Arc::strong_count(dentry) == 1 {
            dentry_gone(dentry);
        }
        tell(dir, raw::IN_DELETE | is_dir(dentry.kind()), About { name: Some(name), ..About::default() });
    }
}

/// One half of a rename: `moved` went from one name to the other, where it replaced something.
#[inline]
pub fn renamed(
    from: (&Arc<dyn Inode>, &[u8]),
    to: (&Arc<dyn Inode>, &[u8]),
    moved: &Dentry,
    replaced: Option<&Dentry>,
) {
    static COOKIE: AtomicU32 = AtomicU32::new(0);
    if !any() {
        return;
    }
    let cookie = COOKIE.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    let is_dir = is_dir(moved.kind());
    tell(from.0, raw::IN_MOVED_FROM | is_dir, About { name: Some(from.1), cookie, unlinked: false });
    tell(to.0, raw::IN_MOVED_TO | is_dir, About { name: Some(to.1), cookie, unlinked: false });
    if let Some(replaced) = replaced {
        let is_dir = self::is_dir(replaced.kind());
        tell(replaced.inode(), raw::IN_ATTRIB | is_dir, About::default());
    }
    tell(moved.inode(), raw::IN_MOVE_SELF, About::default());
}

/// A name that is let go of was the last of its inode, which is gone now: so are its watches.
#[cold]
pub fn dentry_gone(dentry: &Dentry) {
    let inode = dentry.inode();
    if !dentry.is_dead() || !dentry.is_dir() && !inode.is_unlinked() {
        return;
    }
    let watches = Watches::of(inode).all();
    if watches.is_empty() {
        return;
    }
    tell(inode, raw::IN_DELETE_SELF, About::default());
    for watch in watches {
        if let Some(instance) = watch.instance() {
            let _ = instance.remove(watch.wd());
        }
    }
}
