//! Inode flags (ioctl_iflags(2), ioctl_xfs_fsgetxattr(2), chattr(1)): kept by file systems on disk and in memory, obeyed here and by [`super::perm`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::inode::{FileType, Inode};
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

/// Flags that both kinds of calls know (FS_COMMON_FL), as FS_*_FL and FS_XFLAG_*: SYNC, IMMUTABLE, APPEND, NODUMP, NOATIME,
/// DAX, PROJINHERIT.
const COMMON: [(u32, u32); 7] =
    [(0x8, 0x20), (0x10, 0x8), (0x20, 0x10), (0x40, 0x80), (0x80, 0x40), (0x200_0000, 0x8000), (0x2000_0000, 0x200)];
/// Hints about sizes: of files, and of those in a directory.
const EXTSIZE: u32 = 0x800;
const EXTSZINHERIT: u32 = 0x1000;

/// `struct fsxattr` (FS_IOC_FSGETXATTR). Of hints about sizes and of projects there are none.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Extended {
    pub xflags: u32,
    pub extsize: u32,
    pub nextents: u32,
    pub projid: u32,
    pub cowextsize: u32,
    pad: [u8; 8],
}

/// What is to be set.
#[derive(Clone, Copy)]
pub enum Change {
    /// FS_IOC_SETFLAGS
    All(u32),
    /// FS_IOC_FSSETXATTR
    Common(Extended),
}

impl Change {
    /// The new flags of an inode that has these.
    fn flags(&self, old: u32) -> u32 {
        match self {
            Change::All(new) => *new,
            Change::Common(new) => COMMON
                .iter()
                .fold(old, |flags, (flag, xflag)| if new.xflags & xflag != 0 { flags | flag } else { flags & !flag }),
        }
    }

    /// EINVAL and EOPNOTSUPP for what is asked besides the flags.
    fn check(&self, kind: FileType) -> Result<()> {
        let Change::Common(new) = self else { return Ok(()) };
        let (file, directory) = (kind == FileType::Regular, kind == FileType::Directory);
        let misplaced = new.xflags & EXTSIZE != 0 && !file || new.xflags & EXTSZINHERIT != 0 && !directory;
        match new.projid {
            _ if misplaced => Err(Errno::EINVAL),
            0 => Ok(()),
            u32::MAX => Err(Errno::EINVAL),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }
}

/// FS_IOC_FSGETXATTR
pub fn extended(inode: &dyn Inode) -> Result<Extended> {
    let flags = inode.flags().ok_or(Errno::ENOTTY)?;
    let xflags = COMMON.iter().filter(|(flag, _)| flags & flag != 0).map(|(_, xflag)| xflag).sum();
    Ok(Extended { xflags, ..Extended::default() })
}

/// FS_IOC_SETFLAGS and FS_IOC_FSSETXATTR of what `path` is: ENOTTY where there are none, EPERM for others than the owner,
/// EOPNOTSUPP for flags that the file system does not have for such a file.
pub async fn set(creds: &Credentials, path: &Path, change: Change) -> Result<()> {
    let _writing = path.mount.writing().await?;
    let inode = path.inode();
    inode.flags().ok_or(Errno::ENOTTY)?;
    if !perm::is_owner(creds, &inode.metadata()) {
        return Err(Errno::EPERM);
    }
    let _guard = inode.state().lock.lock().await;
    let old = inode.flags().ok_or(Errno::ENOTTY)?;
    let new = change.flags(old);
    if (old ^ new) & InodeFlags::BINDING.bits() != 0 && !creds.capable(Caps::LINUX_IMMUTABLE) {
        return Err(Errno::EPERM);
    }
    change.check(inode.kind())?;
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
