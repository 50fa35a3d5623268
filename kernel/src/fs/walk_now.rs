//! Path resolution for what is in the cache of names: no wait, no future, no allocation.

use alloc::sync::Arc;

use super::dentry::{self, Cached, Dentry};
use super::inode::FileType;
use super::mount;
use super::path::Path;
use super::slashes;
use super::walk::{Ctx, Flags, at_descriptor, start_of};
use crate::errno::{Errno, Result};

/// What `walk::lookup` would answer. None: the way leads over a name that is not in the cache, a symbolic link or "..", or
/// is restricted by flags of openat2(2); walk it step by step.
pub fn lookup_now(ctx: Ctx<'_>, dirfd: i32, path: &[u8], flags: Flags) -> Option<Result<Path>> {
    if !(Flags::FOLLOW | Flags::DIRECTORY | Flags::EMPTY).contains(flags) {
        return None;
    }
    let mut at = match path.first() {
        Some(b'/') => ctx.fs.root(),
        None if flags.contains(Flags::EMPTY) => {
            return match at_descriptor(ctx, dirfd) {
                Ok(at) if at.dentry.is_shared() => None,
                answer => Some(answer),
            };
        }
        None => return Some(Err(Errno::ENOENT)),
        Some(_) => match start_of(ctx, dirfd) {
            Ok(start) => start,
            Err(errno) => return Some(Err(errno)),
        },
    };
    let mut rest = path;
    let mut slashed = false;
    loop {
        let (name, after) = first_name(rest);
        if name.is_empty() {
            break;
        }
        if let Err(errno) = check_directory(ctx, &at) {
            return Some(Err(errno));
        }
        // Others than "." end the path only without a slash, or are directories.
        slashed = !after.is_empty();
        rest = after;
        if name == b"." {
            continue;
        }
        let child = match name {
            b".." => return None,
            name => match dentry::cached(&at.dentry, name) {
                Cached::Found(child) => child,
                Cached::Nothing => return Some(Err(Errno::ENOENT)),
                Cached::Unknown => return None,
            },
        };
        if is_followed(&child, slashed, flags) {
            return None;
        }
        at.dentry = child;
        if at.dentry.is_mount_point() {
            mount::descend(&mut at);
        }
    }
    if (slashed || flags.contains(Flags::DIRECTORY)) && !at.dentry.is_dir() {
        return Some(Err(Errno::ENOTDIR));
    }
    // Its attributes would have to be asked for.
    if at.dentry.is_shared() { None } else { Some(Ok(at)) }
}

/// Goes from `at` over the first names of a path, as far as they are directories in the cache, up to its last one. Answers how
/// long they are, with the slashes around them.
pub(super) fn skip_known(ctx: Ctx<'_>, at: &mut Path, path: &[u8]) -> usize {
    let mut rest = path;
    loop {
        let (name, after) = first_name(rest);
        let slashes = after.iter().take_while(|byte| **byte == b'/').count();
        let after = after.get(slashes..).unwrap_or(&[]);
        let stays = after.is_empty() || matches!(name, b"" | b"." | b"..");
        if stays || check_directory(ctx, at).is_err() {
            break;
        }
        match dentry::cached(&at.dentry, name) {
            Cached::Found(child) if child.is_dir() => at.dentry = child,
            _ => break,
        }
        if at.dentry.is_mount_point() {
            mount::descend(at);
        }
        rest = after;
    }
    path.len() - rest.len()
}

fn is_followed(child: &Arc<Dentry>, slashed: bool, flags: Flags) -> bool {
    child.kind() == FileType::Symlink && (slashed || flags.contains(Flags::FOLLOW))
}

fn check_directory(ctx: Ctx<'_>, at: &Path) -> Result<()> {
    if !at.dentry.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    ctx.check_search(&**at.inode())
}

/// The first component, and what follows it from its slash on; slashes before it are skipped.
fn first_name(path: &[u8]) -> (&[u8], &[u8]) {
    let slashes = path.iter().take_while(|byte| **byte == b'/').count();
    let path = path.get(slashes..).unwrap_or(&[]);
    path.split_at(slashes::first(path).unwrap_or(path.len()))
}

#[cfg(test)]
mod tests {
    use super::first_name;

    #[test]
    fn paths_come_apart_at_slashes() {
        let cases: [(&[u8], &[u8], &[u8]); 6] = [
            (b"/a/b", b"a", b"/b"),
            (b"a", b"a", b""),
            (b"a/", b"a", b"/"),
            (b"//a//b", b"a", b"//b"),
            (b"/", b"", b""),
            (b"", b"", b""),
        ];
        for (path, name, rest) in cases {
            assert_eq!(first_name(path), (name, rest));
        }
    }
}
