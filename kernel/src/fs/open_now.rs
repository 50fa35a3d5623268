//! open(2) without waiting: where the way is in the cache, and nothing has to be read or cut off. A file is made where the file
//! system answers at once.
//!
//! None, from any of these: nothing was opened or made, and it must be tried the other way.

use alloc::sync::Arc;

use linux_raw_sys::general as raw;

use super::change;
use super::change_now::{Purpose, Spot, answer};
use super::dentry::{self, Cached, Dentry};
use super::inode::{FileType, NewNode};
use super::inotify::hooks;
use super::mount::Writing;
use super::names;
use super::open::{HoldGuard, How, TMPFILE, check_open, opened};
use super::open_file::{Kind, OpenFile, plain_kind};
use super::path::Path;
use super::perm;
use super::state::Hold;
use super::walk::Ctx;
use super::walk_now::lookup_now;
use crate::errno::{Errno, Result};

/// What `open` would answer.
pub fn open_now(ctx: Ctx<'_>, dirfd: i32, path: &[u8], how: &How) -> Option<Result<Arc<OpenFile>>> {
    if how.has(raw::O_PATH) || how.has(TMPFILE) || how.has(raw::O_CREAT | raw::O_DIRECTORY) {
        return None;
    }
    let file = if how.has(raw::O_CREAT) {
        find_or_create(ctx, dirfd, path, how)?
    } else {
        match lookup_now(ctx, dirfd, path, how.walk_flags())? {
            Ok(place) => open_found(ctx, place, how)?,
            Err(errno) => Err(errno),
        }
    };
    Some(file.inspect(|file| hooks::used(file, raw::IN_OPEN)))
}

/// Regular files and directories that are there.
fn open_found(ctx: Ctx<'_>, place: Path, how: &How) -> Option<Result<Arc<OpenFile>>> {
    let kind = place.dentry.kind();
    if !matches!(kind, FileType::Regular | FileType::Directory) || how.has(raw::O_TRUNC) {
        return None;
    }
    answer!(check_open(ctx, &place, how));
    let wanted = how.hold(kind);
    let writing = match wanted {
        Hold::Writer => Some(answer!(place.mount.writing().now()?)),
        _ => None,
    };
    let hold = answer!(HoldGuard::with(&place, wanted, writing));
    let ops = answer!(place.inode().open(how.flags, ctx.thread?).now()?);
    let kind = match ops {
        Some(ops) => Kind::Ops(ops),
        None => plain_kind(place.inode())?,
    };
    answer!(how.check_direct(&place));
    let hold = hold.keep();
    Some(Ok(opened(place, kind, how, hold)))
}

/// O_CREAT.
fn find_or_create(ctx: Ctx<'_>, dirfd: i32, path: &[u8], how: &How) -> Option<Result<Arc<OpenFile>>> {
    if !how.resolve.is_empty() {
        return None;
    }
    let spot = answer!(Spot::find(ctx, dirfd, path, Purpose::Look)?);
    if spot.slash {
        return None;
    }
    if let Cached::Found(child) = dentry::cached(&spot.dir.dentry, spot.name) {
        return existing(ctx, spot.dir, child, how);
    }
    if !spot.dir.mount.fs().changes_at_once() {
        return None;
    }
    create(ctx, spot, how)
}

fn existing(ctx: Ctx<'_>, dir: Path, child: Arc<Dentry>, how: &How) -> Option<Result<Arc<OpenFile>>> {
    if how.has(raw::O_EXCL) {
        return Some(Err(Errno::EEXIST));
    }
    // Its attributes would have to be asked for.
    if child.is_shared() {
        return None;
    }
    answer!(perm::check_reuse(ctx.creds, &**dir.inode(), &**child.inode()));
    open_found(ctx, dir.entered(child), how)
}

fn create(ctx: Ctx<'_>, spot: Spot<'_>, how: &How) -> Option<Result<Arc<OpenFile>>> {
    let writing = spot.dir.mount.writing().now()?;
    let guard = spot.dir.inode().state().lock.try_lock()?;
    if spot.entry()?.is_some() {
        return None;
    }
    let outcome = Writing::outcome(&writing);
    let attr = answer!(change::check_create(ctx, &spot.dir, &NewNode::Regular, how.mode, outcome));
    let dentry = answer!(names::make_now(&spot.dir.dentry, spot.name, NewNode::Regular, attr)?);
    drop(guard);
    // From here on there is an answer, whatever it is: the file is made.
    let place = Path { mount: spot.dir.mount.clone(), dentry };
    let kind = answer!(plain_kind(place.inode()).ok_or(Errno::ENXIO));
    let hold = answer!(HoldGuard::with(&place, how.hold(FileType::Regular), writing.ok()));
    answer!(how.check_direct(&place));
    let hold = hold.keep();
    Some(Ok(opened(place, kind, how, hold)))
}
