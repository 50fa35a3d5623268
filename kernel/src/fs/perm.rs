//! Who may do what: the checks of path_resolution(7) and capabilities(7) on inodes.

use core::sync::atomic::Ordering;

use super::inode::{FileType, Inode, Metadata};
use super::inode_flags::InodeFlags;
use super::path::Path;
use crate::errno::{Errno, Result};
use crate::process::{self, Caps, Credentials};

bitflags::bitflags! {
    /// What is wanted of an inode, with the bits of one rwx triple.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Want: u16 {
        const EXEC = 1;
        const WRITE = 2;
        const READ = 4;
    }
}

/// EACCES unless the mode bits or a capability grant `want`; EPERM for writing to what is immutable.
pub fn check(creds: &Credentials, inode: &dyn Inode, want: Want) -> Result<()> {
    if want.contains(Want::WRITE) {
        check_mutable(inode)?;
    }
    // Root's usual case is decided without looking at the inode's attributes.
    if !want.contains(Want::EXEC) && creds.capable(Caps::DAC_OVERRIDE) {
        return Ok(());
    }
    check_meta(creds, &inode.metadata(), want)
}

#[inline]
fn check_mutable(inode: &dyn Inode) -> Result<()> {
    if inode.obeyed_flags().contains(InodeFlags::IMMUTABLE) { Err(Errno::EPERM) } else { Ok(()) }
}

#[inline]
pub fn check_meta(creds: &Credentials, meta: &Metadata, want: Want) -> Result<()> {
    let perm = meta.perm;
    let triple = if creds.fsuid == meta.uid {
        perm >> 6
    } else if creds.in_group(meta.gid) {
        perm >> 3
    } else {
        perm
    };
    if want.bits() & !triple == 0 {
        return Ok(());
    }
    let dir = meta.kind == FileType::Directory;
    // Executing needs at least one x bit, even for the super-user.
    if creds.capable(Caps::DAC_OVERRIDE) && (dir || !want.contains(Want::EXEC) || perm & 0o111 != 0) {
        return Ok(());
    }
    let harmless = if dir { Want::READ | Want::EXEC } else { Want::READ };
    if harmless.contains(want) && creds.capable(Caps::DAC_READ_SEARCH) {
        return Ok(());
    }
    Err(Errno::EACCES)
}

/// Search permission on a directory that a path goes through.
pub fn check_search(creds: &Credentials, dir: &dyn Inode) -> Result<()> {
    if creds.capable(Caps::DAC_OVERRIDE) || creds.capable(Caps::DAC_READ_SEARCH) {
        return Ok(());
    }
    check_meta(creds, &dir.metadata(), Want::EXEC)
}

/// May names be added to or taken from this directory, if its mount may be written?
pub fn check_modify(creds: &Credentials, dir: &Path) -> Result<()> {
    check_mutable(&**dir.inode())?;
    if creds.capable(Caps::DAC_OVERRIDE) {
        return Ok(());
    }
    check_meta(creds, &dir.inode().metadata(), Want::WRITE | Want::EXEC)
}

/// In a sticky directory only the owner of the entry, of the directory, or CAP_FOWNER may remove or rename it.
pub fn check_sticky(creds: &Credentials, dir: &dyn Inode, victim: &dyn Inode) -> Result<()> {
    if creds.capable(Caps::FOWNER) {
        return Ok(());
    }
    let dir = dir.metadata();
    let may = dir.perm & 0o1000 == 0 || creds.fsuid == dir.uid || creds.fsuid == victim.metadata().uid;
    if may { Ok(()) } else { Err(Errno::EPERM) }
}

/// What is done about names that others have laid for somebody (/proc/sys/fs/protected_*, proc(5)): 0 nothing.
pub mod protected {
    use core::sync::atomic::AtomicUsize;

    pub static HARDLINKS: AtomicUsize = AtomicUsize::new(1);
    pub static SYMLINKS: AtomicUsize = AtomicUsize::new(1);
    /// 2: also in directories that only a group may write to.
    pub static FIFOS: AtomicUsize = AtomicUsize::new(0);
    pub static REGULAR: AtomicUsize = AtomicUsize::new(0);
}

/// May the symbolic link be followed where it is the last component of a path (proc(5), protected_symlinks)? In a sticky
/// directory that everybody may write to, only if it is the follower's or the directory's owner's: others could have
/// laid it for the follower.
pub fn check_follow(creds: &Credentials, dir: &dyn Inode, link: &dyn Inode) -> Result<()> {
    if protected::SYMLINKS.load(Ordering::Relaxed) == 0 {
        return Ok(());
    }
    let (dir, owner) = (dir.metadata(), link.metadata().uid);
    let shared = dir.perm & 0o1002 == 0o1002;
    if !shared || owner == creds.fsuid || owner == dir.uid { Ok(()) } else { Err(Errno::EACCES) }
}

/// May the file get one more name (proc(5), protected_hardlinks)? Files of others only if they could be copied and written
/// as well, and run with nobody else's rights.
pub fn check_link(creds: &Credentials, inode: &dyn Inode) -> Result<()> {
    if protected::HARDLINKS.load(Ordering::Relaxed) == 0 {
        return Ok(());
    }
    let meta = inode.metadata();
    let plain = meta.kind == FileType::Regular && meta.perm & 0o4000 == 0 && meta.perm & 0o2010 != 0o2010;
    let harmless = plain && check_meta(creds, &meta, Want::READ | Want::WRITE).is_ok();
    if harmless || is_owner(creds, &meta) { Ok(()) } else { Err(Errno::EPERM) }
}

/// May O_CREAT open the file that has the name already (proc(5), protected_fifos and protected_regular)? In a sticky directory
/// that others may write to, only if it is the opener's or the directory's owner's.
pub fn check_reuse(creds: &Credentials, dir: &dyn Inode, file: &dyn Inode) -> Result<()> {
    let (fifos, regular) = (protected::FIFOS.load(Ordering::Relaxed), protected::REGULAR.load(Ordering::Relaxed));
    // As on Linux, devices and sockets are protected always, but with no regard to groups.
    let level = match file.kind() {
        FileType::Directory => return Ok(()),
        FileType::Fifo => fifos,
        FileType::Regular => regular,
        _ => 1,
    };
    if level == 0 {
        return Ok(());
    }
    let (dir, owner) = (dir.metadata(), file.metadata().uid);
    let shared = dir.perm & 0o002 != 0 || level >= 2 && dir.perm & 0o020 != 0;
    let laid = dir.perm & 0o1000 != 0 && shared && owner != dir.uid && owner != creds.fsuid;
    if laid { Err(Errno::EACCES) } else { Ok(()) }
}

/// User and group of the thread that runs here, for what it makes.
#[inline]
pub fn current_ids() -> (u32, u32) {
    process::with_current(|task| {
        task.map_or((0, 0), |task| {
            let creds = task.shared_creds();
            (creds.fsuid, creds.fsgid)
        })
    })
}

pub fn is_owner(creds: &Credentials, meta: &Metadata) -> bool {
    creds.fsuid == meta.uid || creds.capable(Caps::FOWNER)
}
