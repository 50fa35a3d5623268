//! Inode flags (ioctl_iflags(2), chattr(1)): kept by file systems on disk and in memory, obeyed here and by [`super::perm`].

use super::inode::Inode;
use super::open_file::OpenFile;
use super::path::Path;
use super::perm;
use crate::errno::{Errno, Result};
use crate::process::{Caps, Credentials};

bitflags::bitflags! {
    /// FS_*_FL of ioctl_iflags(2): those with an effect here.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct InodeFlags: u32 {
        /// Writes are stored before they return, as with O_SYNC; changes of names, too, in a directory.
        const SYNC = 0x8;
        /// Nothing of it changes: neither content nor attributes nor names.
        const IMMUTABLE = 0x10;
        /// Content is only added at the end; a directory loses no names.
        const APPEND = 0x20;
        /// Without effect: dump(8) asks for it, and statx(2) tells it.
        const NODUMP = 0x40;
        const NOATIME = 0x80;
        /// Changes of names are stored before they return.
        const DIRSYNC = 0x1_0000;

        /// Those that keep even its owner out.
        const BINDING = Self::IMMUTABLE.bits() | Self::APPEND.bits();
    }
}

/// FS_IOC_SETFLAGS of what `path` is: ENOTTY where there are none, EPERM for others than the owner, EOPNOTSUPP for flags
/// that the file system does not have for such a file.
pub async fn set(creds: &Credentials, path: &Path, new: u32) -> Result<()> {
    let _writing = path.mount.writing().await?;
    let inode = path.inode();
    inode.flags().ok_or(Errno::ENOTTY)?;
    if !perm::is_owner(creds, &inode.metadata()) {
        return Err(Errno::EPERM);
    }
    let _guard = inode.state().lock.lock().await;
    let old = inode.flags().ok_or(Errno::ENOTTY)?;
    if (old ^ new) & InodeFlags::BINDING.bits() != 0 && !creds.capable(Caps::LINUX_IMMUTABLE) {
        return Err(Errno::EPERM);
    }
    inode.set_flags(new).await
}

/// EPERM for a change of attributes or names that neither immutable nor append-only files take.
pub fn check_bound(inode: &dyn Inode) -> Result<()> {
    if inode.obeyed_flags().intersects(InodeFlags::BINDING) { Err(Errno::EPERM) } else { Ok(()) }
}

/// EPERM for a change by somebody who had the file open before it became immutable. As in Linux tmpfs does not care.
pub fn check_content(inode: &dyn Inode) -> Result<()> {
    let bound = inode.obeyed_flags().contains(InodeFlags::IMMUTABLE)
        && inode.page_cache().is_none_or(|cache| !cache.is_memory());
    if bound { Err(Errno::EPERM) } else { Ok(()) }
}

/// EPERM for a change of content other than at the end.
pub fn check_not_append_only(inode: &dyn Inode) -> Result<()> {
    if inode.obeyed_flags().contains(InodeFlags::APPEND) { Err(Errno::EPERM) } else { Ok(()) }
}

/// Does a write through this file return only when all of it is stored?
pub fn syncs(file: &OpenFile) -> bool {
    file.inode().obeyed_flags().contains(InodeFlags::SYNC)
}

pub fn syncs_names(dir: &dyn Inode) -> bool {
    dir.obeyed_flags().intersects(InodeFlags::SYNC | InodeFlags::DIRSYNC)
}

/// Stores a change of names where the directory wants that.
pub async fn sync_names(dir: &dyn Inode) -> Result<()> {
    if syncs_names(dir) { dir.sync(false).await } else { Ok(()) }
}
