//! Changing names and attributes; directories of the process.

use core::mem::MaybeUninit;

use linux_raw_sys::general as raw;

use super::fs_open::{lookup_cwd, read_path};
use super::fs_stat::{SHORT, at_flags};
use crate::errno::{Errno, Result};
use crate::fs::attr::{self, NewTime};
use crate::fs::{self, AT_FDCWD, Ctx, DeviceId, FileType, Flags, NewNode, Path, RenameFlags, change, change_now, perm};
use crate::mm::{UserPtr, try_read_cstr};
use crate::process::{Caps, Thread};
use crate::time::{Timespec, UserTimespec};

pub async fn mkdirat(t: &Thread, dirfd: i32, path: UserPtr<u8>, mode: u32) -> Result<()> {
    let path = read_path(t, path).await?;
    change::create(Ctx::of(t), dirfd, &path, NewNode::Directory, mode & 0o1777).await?;
    Ok(())
}

pub fn mkdirat_now(t: &Thread, dirfd: i32, path: UserPtr<u8>, mode: u32) -> Option<Result<()>> {
    let mut buf = [MaybeUninit::uninit(); SHORT];
    change_now::make_directory(Ctx::of(t), dirfd, try_read_cstr(path.addr(), &mut buf)?, mode & 0o1777)
}

pub async fn mknodat(t: &Thread, dirfd: i32, path: UserPtr<u8>, mode: u32, dev: u32) -> Result<()> {
    let device = DeviceId::decode(dev as u64);
    let node = match FileType::from_mode(mode) {
        None if mode & 0o170000 == 0 => NewNode::Regular,
        Some(FileType::Regular) => NewNode::Regular,
        Some(FileType::CharDevice) => NewNode::CharDevice(device),
        Some(FileType::BlockDevice) => NewNode::BlockDevice(device),
        Some(FileType::Fifo) => NewNode::Fifo,
        Some(FileType::Socket) => NewNode::Socket,
        Some(FileType::Directory) => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    };
    let privileged = match node {
        // A whiteout opens no device.
        NewNode::CharDevice(device) => device != DeviceId::default(),
        NewNode::BlockDevice(_) => true,
        _ => false,
    };
    if privileged && !t.creds().capable(Caps::MKNOD) {
        return Err(Errno::EPERM);
    }
    let path = read_path(t, path).await?;
    change::create(Ctx::of(t), dirfd, &path, node, mode & 0o7777).await?;
    Ok(())
}

pub async fn symlinkat(t: &Thread, target: UserPtr<u8>, dirfd: i32, path: UserPtr<u8>) -> Result<()> {
    let target = read_path(t, target).await?;
    if target.is_empty() {
        return Err(Errno::ENOENT);
    }
    let path = read_path(t, path).await?;
    change::create(Ctx::of(t), dirfd, &path, NewNode::Symlink(&target), 0o777).await?;
    Ok(())
}

pub async fn linkat(
    t: &Thread,
    old_fd: i32,
    old: UserPtr<u8>,
    new_fd: i32,
    new: UserPtr<u8>,
    flags: u32,
) -> Result<()> {
    let walk = at_flags(flags, raw::AT_SYMLINK_FOLLOW | raw::AT_EMPTY_PATH)?;
    if walk.contains(Flags::EMPTY) && !t.creds().capable(Caps::DAC_READ_SEARCH) {
        return Err(Errno::ENOENT);
    }
    let old = read_path(t, old).await?;
    let source = fs::lookup(Ctx::of(t), old_fd, &old, walk).await?;
    let new = read_path(t, new).await?;
    change::link(Ctx::of(t), &source, new_fd, &new).await
}

pub async fn unlinkat(t: &Thread, dirfd: i32, path: UserPtr<u8>, flags: u32) -> Result<()> {
    if flags & !raw::AT_REMOVEDIR != 0 {
        return Err(Errno::EINVAL);
    }
    let path = read_path(t, path).await?;
    match flags {
        0 => change::unlink(Ctx::of(t), dirfd, &path).await,
        _ => change::rmdir(Ctx::of(t), dirfd, &path).await,
    }
}

pub fn unlinkat_now(t: &Thread, dirfd: i32, path: UserPtr<u8>, flags: u32) -> Option<Result<()>> {
    if flags & !raw::AT_REMOVEDIR != 0 {
        return None;
    }
    let mut buf = [MaybeUninit::uninit(); SHORT];
    change_now::remove(Ctx::of(t), dirfd, try_read_cstr(path.addr(), &mut buf)?, flags != 0)
}

pub async fn renameat(t: &Thread, old_fd: i32, old: UserPtr<u8>, new_fd: i32, new: UserPtr<u8>) -> Result<()> {
    renameat2(t, old_fd, old, new_fd, new, 0).await
}

pub async fn renameat2(
    t: &Thread,
    old_fd: i32,
    old: UserPtr<u8>,
    new_fd: i32,
    new: UserPtr<u8>,
    flags: u32,
) -> Result<()> {
    let flags = RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
    let old = read_path(t, old).await?;
    let new = read_path(t, new).await?;
    change::rename(Ctx::of(t), (old_fd, &old), (new_fd, &new), flags).await
}

pub fn renameat_now(t: &Thread, old_fd: i32, old: UserPtr<u8>, new_fd: i32, new: UserPtr<u8>) -> Option<Result<()>> {
    renameat2_now(t, old_fd, old, new_fd, new, 0)
}

pub fn renameat2_now(
    t: &Thread,
    old_fd: i32,
    old: UserPtr<u8>,
    new_fd: i32,
    new: UserPtr<u8>,
    flags: u32,
) -> Option<Result<()>> {
    let flags = RenameFlags::from_bits(flags)?;
    let mut bufs = [[MaybeUninit::uninit(); SHORT]; 2];
    let [first, second] = &mut bufs;
    let old = try_read_cstr(old.addr(), first)?;
    let new = try_read_cstr(new.addr(), second)?;
    change_now::rename(Ctx::of(t), (old_fd, old), (new_fd, new), flags)
}

pub async fn fchmod(t: &Thread, fd: i32, mode: u32) -> Result<()> {
    let file = t.files().get_io(fd)?;
    attr::chmod(t.creds(), file.path(), mode).await
}

pub async fn fchmodat(t: &Thread, dirfd: i32, path: UserPtr<u8>, mode: u32) -> Result<()> {
    fchmodat2(t, dirfd, path, mode, 0).await
}

pub async fn fchmodat2(t: &Thread, dirfd: i32, path: UserPtr<u8>, mode: u32, flags: u32) -> Result<()> {
    let walk = at_flags(flags, raw::AT_SYMLINK_NOFOLLOW | raw::AT_EMPTY_PATH)?;
    let path = read_path(t, path).await?;
    let place = fs::lookup(Ctx::of(t), dirfd, &path, walk).await?;
    attr::chmod(t.creds(), &place, mode).await
}

/// -1 means "leave it".
fn id(id: u32) -> Option<u32> {
    (id != u32::MAX).then_some(id)
}

pub async fn fchown(t: &Thread, fd: i32, uid: u32, gid: u32) -> Result<()> {
    let file = t.files().get_io(fd)?;
    attr::chown(t.creds(), file.path(), id(uid), id(gid)).await
}

pub async fn fchownat(t: &Thread, dirfd: i32, path: UserPtr<u8>, uid: u32, gid: u32, flags: u32) -> Result<()> {
    let walk = at_flags(flags, raw::AT_SYMLINK_NOFOLLOW | raw::AT_EMPTY_PATH)?;
    let path = read_path(t, path).await?;
    let place = fs::lookup(Ctx::of(t), dirfd, &path, walk).await?;
    attr::chown(t.creds(), &place, id(uid), id(gid)).await
}

const UTIME_NOW: i64 = (1 << 30) - 1;
const UTIME_OMIT: i64 = (1 << 30) - 2;

fn new_time(time: UserTimespec) -> Result<NewTime> {
    match time.nsec {
        UTIME_NOW => Ok(NewTime::Now),
        UTIME_OMIT => Ok(NewTime::Omit),
        nsec @ 0..1_000_000_000 => Ok(NewTime::At(Timespec { sec: time.sec, nsec: nsec as u32 })),
        _ => Err(Errno::EINVAL),
    }
}

pub async fn utimensat(
    t: &Thread,
    dirfd: i32,
    path: UserPtr<u8>,
    times: UserPtr<[UserTimespec; 2]>,
    flags: u32,
) -> Result<()> {
    let (atime, mtime) = match times.non_null() {
        None => (Ok(NewTime::Now), Ok(NewTime::Now)),
        Some(times) => {
            let [atime, mtime] = times.read(t.mm()).await?;
            if [atime.nsec, mtime.nsec] == [UTIME_OMIT; 2] {
                return Ok(());
            }
            (new_time(atime), new_time(mtime))
        }
    };
    let walk = at_flags(flags, raw::AT_SYMLINK_NOFOLLOW | raw::AT_EMPTY_PATH)?;
    let place = if path.is_null() && dirfd != AT_FDCWD {
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        t.files().get_io(dirfd)?.path().clone()
    } else {
        let path = read_path(t, path).await?;
        fs::lookup(Ctx::of(t), dirfd, &path, walk).await?
    };
    attr::set_times(t.creds(), &place, atime?, mtime?).await
}

fn enter_dir(t: &Thread, place: Path) -> Result<()> {
    perm::check_search(t.creds(), &**place.inode())?;
    t.fs().set_cwd(place);
    Ok(())
}

pub async fn chdir(t: &Thread, path: UserPtr<u8>) -> Result<()> {
    let place = lookup_cwd(t, path, Flags::FOLLOW | Flags::DIRECTORY).await?;
    enter_dir(t, place)
}

pub fn fchdir(t: &Thread, fd: i32) -> Result<()> {
    let place = t.files().get(fd)?.path().clone();
    if !place.dentry.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    enter_dir(t, place)
}

pub async fn chroot(t: &Thread, path: UserPtr<u8>) -> Result<()> {
    let place = lookup_cwd(t, path, Flags::FOLLOW | Flags::DIRECTORY).await?;
    perm::check_search(t.creds(), &**place.inode())?;
    if !t.creds().capable(Caps::SYS_CHROOT) {
        return Err(Errno::EPERM);
    }
    t.fs().set_root(place);
    Ok(())
}

pub fn umask(t: &Thread, mask: u32) -> Result<u32> {
    Ok(t.fs().set_umask(mask))
}
