//! Changes of attributes: chmod, chown, utimensat, truncate, with the checks of their man pages.

use alloc::sync::Arc;

use linux_raw_sys::general as raw;

use super::capabilities;
use super::inode::{FileType, Inode, Metadata, SetAttr};
use super::inode_flags::{self, InodeFlags};
use super::inotify::hooks;
use super::path::Path;
use super::perm::{self, Want};
use crate::errno::{Errno, Result};
use crate::exec::MutexGuard;
use crate::process::{Caps, Credentials};
use crate::time::Timespec;

/// chmod(2) of what `path` is.
pub async fn chmod(creds: &Credentials, path: &Path, mode: u32) -> Result<()> {
    let _writing = path.mount.writing().await?;
    let inode = path.inode();
    let _guard = lock_content(inode).await;
    let meta = inode.metadata();
    if meta.kind == FileType::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    inode_flags::check_bound(&**inode)?;
    if !perm::is_owner(creds, &meta) {
        return Err(Errno::EPERM);
    }
    let mut perm = (mode & 0o7777) as u16;
    if !creds.in_group(meta.gid) && !creds.capable(Caps::FSETID) {
        perm &= !0o2000;
    }
    inode.set_attr(SetAttr { perm: Some(perm), ctime: Some(super::now()), ..SetAttr::default() }).await?;
    hooks::changed(path, raw::IN_ATTRIB);
    Ok(())
}

/// The mode without what a change of content or owner takes away; None if nothing changes.
pub fn without_set_id(meta: &Metadata) -> Option<u16> {
    if meta.kind == FileType::Directory {
        return None;
    }
    let mut perm = meta.perm & !0o4000;
    // Set-group-ID without group execution used to mark mandatory locking and stays.
    if perm & 0o010 != 0 {
        perm &= !0o2000;
    }
    (perm != meta.perm).then_some(perm)
}

/// Keeps writes and other changes of mode and owner away, which set-id bits depend on. Directories have none that matter.
async fn lock_content(inode: &Arc<dyn Inode>) -> Option<MutexGuard<'_, ()>> {
    match inode.metadata().kind {
        FileType::Directory => None,
        _ => Some(inode.state().lock.lock().await),
    }
}

/// chown(2) of what `path` is; None leaves an id as it is.
pub async fn chown(creds: &Credentials, path: &Path, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    let _writing = path.mount.writing().await?;
    let inode = path.inode();
    let _guard = lock_content(inode).await;
    let meta = inode.metadata();
    let perm = without_set_id(&meta);
    if uid.is_some() || gid.is_some() || perm.is_some() {
        inode_flags::check_bound(&**inode)?;
    }
    inode_flags::check_content(&**inode)?;
    let privileged = creds.capable(Caps::CHOWN);
    if uid.is_some_and(|uid| !privileged && (creds.fsuid != meta.uid || uid != meta.uid)) {
        return Err(Errno::EPERM);
    }
    let in_group = |gid: u32| gid == meta.gid || creds.in_group(gid);
    if gid.is_some_and(|gid| !privileged && (creds.fsuid != meta.uid || !in_group(gid))) {
        return Err(Errno::EPERM);
    }
    // To change no id is everybody's right, but not what comes with it.
    if perm.is_some() && !privileged && !perm::is_owner(creds, &meta) {
        return Err(Errno::EPERM);
    }
    if meta.kind != FileType::Directory && (privileged || perm::is_owner(creds, &meta)) {
        capabilities::remove_for_chown(inode).await?;
    }
    inode.set_attr(SetAttr { uid, gid, perm, ctime: Some(super::now()), ..SetAttr::default() }).await?;
    if uid.is_some() || gid.is_some() || perm.is_some() {
        hooks::changed(path, raw::IN_ATTRIB);
    }
    Ok(())
}

/// One of the two times of utimensat(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewTime {
    Now,
    Omit,
    At(Timespec),
}

pub async fn set_times(creds: &Credentials, path: &Path, atime: NewTime, mtime: NewTime) -> Result<()> {
    if (atime, mtime) == (NewTime::Omit, NewTime::Omit) {
        return Ok(());
    }
    let _writing = path.mount.writing().await?;
    let inode = path.inode();
    let meta = inode.metadata();
    let touches = (atime, mtime) == (NewTime::Now, NewTime::Now);
    let flags = inode.obeyed_flags();
    if flags.contains(InodeFlags::IMMUTABLE) || !touches && flags.contains(InodeFlags::APPEND) {
        return Err(Errno::EPERM);
    }
    if !perm::is_owner(creds, &meta) {
        if !touches {
            return Err(Errno::EPERM);
        }
        perm::check(creds, &**inode, Want::WRITE)?;
    }
    let now = super::now();
    let value = |time| match time {
        NewTime::Now => Some(now),
        NewTime::Omit => None,
        NewTime::At(time) => Some(time),
    };
    inode
        .set_attr(SetAttr { atime: value(atime), mtime: value(mtime), ctime: Some(now), ..SetAttr::default() })
        .await?;
    // One time alone looks like an access or a write.
    let event = match (atime, mtime) {
        (_, NewTime::Omit) => raw::IN_ACCESS,
        (NewTime::Omit, _) => raw::IN_MODIFY,
        _ => raw::IN_ATTRIB,
    };
    hooks::changed(path, event);
    Ok(())
}
