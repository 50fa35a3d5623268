//! Taking mounts out of the table: umount2(2), and the steps of it that other changes need.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::table::{REFERENCES, TABLE, mounts_below};
use super::tree::{is_in_namespace, top_of};
use super::{CHANGES, Mount};
use crate::errno::{Errno, Result};
use crate::exec;
use crate::fs::dentry;
use crate::fs::inode::FileSystem;
use crate::fs::path::Path;

/// Takes mounts out of the table, the last one first.
pub(super) async fn detach_all(mut mounts: Vec<Arc<Mount>>) {
    while let Some(mount) = mounts.pop() {
        let place = {
            let mut table = TABLE.write();
            table.leave(&mount);
            table.settle(&mount, None)
        };
        mount.leave_group();
        left(place);
        exec::budget().await;
    }
}

/// The same for one, unless somebody uses it: who walks into it finds it in its place, and counts, or finds it not. Answers
/// whether it was used.
fn detach_unless_used(mount: &Arc<Mount>, lazy: bool) -> Result<bool> {
    let mut table = TABLE.write();
    let used = in_use(mount);
    if used && !lazy {
        return Err(Errno::EBUSY);
    }
    table.leave(mount);
    let place = table.settle(mount, None);
    drop(table);
    mount.leave_group();
    left(place);
    Ok(used)
}

/// A mount has left this place.
pub(super) fn left(place: Option<Path>) {
    let Some(place) = place else { return };
    place.dentry.remove_mount();
    if place.mount.fs().volatile_names() && !place.dentry.is_mount_point() {
        dentry::unpin(&place.dentry);
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

/// umount2(2) of the mount whose root is `at`. Answers the file system to be ended ([`super::end`]) if this was its last mount
/// and nobody uses it.
pub async fn unmount(at: &Path, manner: Manner) -> Result<Option<Arc<dyn FileSystem>>> {
    let _changes = CHANGES.lock().await;
    let mount = &at.mount;
    if !Arc::ptr_eq(&mount.root, &at.dentry) || !is_in_namespace(mount) {
        return Err(Errno::EINVAL);
    }
    let lazy = manner == Manner::Lazy;
    if mount.place().is_none() {
        return Err(if lazy { Errno::EINVAL } else { Errno::EBUSY });
    }
    let below = if lazy { mounts_below(&top_of(mount)).await } else { Vec::new() };
    if manner == Manner::Expire {
        let table = TABLE.write();
        if in_use(mount) {
            return Err(Errno::EBUSY);
        }
        drop(table);
        // The caller's own way here counts as one.
        if mount.expiring.swap(1, Ordering::Relaxed) != 2 {
            return Err(Errno::EAGAIN);
        }
    }
    if !lazy && !TABLE.read().is_bare(mount) {
        return Err(Errno::EBUSY);
    }
    // What is in it is not reached any more then.
    let used = detach_unless_used(mount, lazy)?;
    let ends = !used && below.is_empty();
    detach_all(below).await;
    Ok(if ends { mount.instance.end_if_last() } else { None })
}

/// Open files, working directories and programs hold the mount through their paths: the other references are the table's
/// and the caller's. Under the exclusive lock of the table, since whoever only looks holds mounts under the shared one.
fn in_use(mount: &Arc<Mount>) -> bool {
    Arc::strong_count(mount) > REFERENCES + 1
}
