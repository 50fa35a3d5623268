//! Taking mounts out of the table: umount2(2), and the steps of it that other changes need.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::table::{REFERENCES, TABLE};
use super::tree::{is_in_namespace, mounts_below, top_of};
use super::{CHANGES, Mount};
use crate::errno::{Errno, Result};
use crate::fs::dentry;
use crate::fs::inode::FileSystem;
use crate::fs::path::Path;

/// Takes the mount out of the table.
pub(super) fn detach(mount: &Arc<Mount>) {
    TABLE.write().leave(mount);
    leave_place(mount);
}

/// The same, unless somebody uses it: who walks into it finds it in its place, and counts, or finds it not. Answers
/// whether it was used.
fn detach_unless_used(mount: &Arc<Mount>, lazy: bool) -> Result<bool> {
    let place = mount.place();
    let mut table = TABLE.write();
    let used = in_use(mount);
    if used && !lazy {
        return Err(Errno::EBUSY);
    }
    table.leave(mount);
    if let Some(place) = &place {
        table.take_from(place);
    }
    drop(table);
    leave_place(mount);
    Ok(used)
}

/// Takes the mount out of its place, if it has one.
pub(super) fn leave_place(mount: &Mount) {
    let Some(place) = mount.place() else { return };
    TABLE.write().take_from(&place);
    mount.place.lock().take();
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
    let below = mounts_below(&top_of(mount));
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
    if lazy {
        for child in below.iter().rev() {
            detach(child);
        }
    } else if !below.is_empty() {
        return Err(Errno::EBUSY);
    }
    let used = detach_unless_used(mount, lazy)?;
    let ends = !used && below.is_empty();
    Ok(if ends { mount.instance.end_if_last() } else { None })
}

/// Open files, working directories and programs hold the mount through their paths: the other references are the table's
/// and the caller's. Under the exclusive lock of the table, since whoever only looks holds mounts under the shared one.
fn in_use(mount: &Arc<Mount>) -> bool {
    Arc::strong_count(mount) > REFERENCES + 1
}
