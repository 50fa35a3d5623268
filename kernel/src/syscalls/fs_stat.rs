//! What files are: stat, statx, statfs, access, readlink, directories.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::mem::MaybeUninit;

use linux_raw_sys::general as raw;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::fs_open::{lookup_cwd, read_path};
use crate::errno::{Errno, Result};
use crate::fs::inode_flags::InodeFlags;
use crate::fs::inotify::hooks;
use crate::fs::path::PATH_MAX;
use crate::fs::perm::{self, Want};
use crate::fs::{self, Ctx, DirSink, FileType, Flags, Inode, Metadata, MountFlags, Path, regular};
use crate::mm::{UserPtr, try_read_cstr};
use crate::process::{Caps, Credentials, Thread};
use crate::time::Timespec;

/// `struct stat` of arm64.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Stat {
    dev: u64,
    ino: u64,
    mode: u32,
    nlink: u32,
    uid: u32,
    gid: u32,
    rdev: u64,
    pad1: u64,
    size: i64,
    blksize: i32,
    pad2: i32,
    blocks: i64,
    atime: i64,
    atime_nsec: u64,
    mtime: i64,
    mtime_nsec: u64,
    ctime: i64,
    ctime_nsec: u64,
    unused: [u32; 2],
}

const _: () = assert!(size_of::<Stat>() == 128);

/// The mode as stat shows it: anonymous inodes have no type.
#[inline]
fn shown_mode(path: &Path, meta: &Metadata) -> u32 {
    let typeless = path.mount.is_internal() && path.mount.fs().type_name() == "anon_inodefs";
    if typeless { meta.perm as u32 } else { meta.mode() }
}

fn stat_of(path: &Path) -> Stat {
    let meta = path.inode().metadata();
    Stat {
        dev: path.inode().device().encode(),
        ino: meta.ino,
        mode: shown_mode(path, &meta),
        nlink: meta.nlink,
        uid: meta.uid,
        gid: meta.gid,
        rdev: meta.rdev.encode(),
        size: meta.size as i64,
        blksize: meta.block_size as i32,
        blocks: meta.blocks as i64,
        atime: meta.atime.sec,
        atime_nsec: meta.atime.nsec as u64,
        mtime: meta.mtime.sec,
        mtime_nsec: meta.mtime.nsec as u64,
        ctime: meta.ctime.sec,
        ctime_nsec: meta.ctime.nsec as u64,
        ..Stat::default()
    }
}

/// AT_* flags that lookups understand, as walk flags; others are EINVAL.
pub(super) fn at_flags(flags: u32, allowed: u32) -> Result<Flags> {
    if flags & !allowed != 0 {
        return Err(Errno::EINVAL);
    }
    let mut walk = Flags::empty();
    let follow = flags & raw::AT_SYMLINK_NOFOLLOW == 0 && allowed & raw::AT_SYMLINK_NOFOLLOW != 0;
    walk.set(Flags::FOLLOW, follow || flags & raw::AT_SYMLINK_FOLLOW != 0);
    walk.set(Flags::EMPTY, flags & raw::AT_EMPTY_PATH != 0);
    Ok(walk)
}

const STAT_FLAGS: u32 = raw::AT_SYMLINK_NOFOLLOW | raw::AT_NO_AUTOMOUNT | raw::AT_EMPTY_PATH;

pub async fn newfstatat(t: &Thread, dirfd: i32, path: UserPtr<u8>, out: UserPtr<Stat>, flags: u32) -> Result<()> {
    let flags = at_flags(flags, STAT_FLAGS)?;
    let path = read_path(t, path).await?;
    let place = fs::lookup(Ctx::of(t), dirfd, &path, flags).await?;
    if place.dentry.is_shared() {
        Box::pin(place.refresh()).await?;
    }
    out.write(t.mm(), stat_of(&place)).await
}

/// What a path leads to by the cache of names alone, see [`fs::lookup_now`].
fn place_now(ctx: Ctx<'_>, dirfd: i32, path: UserPtr<u8>, flags: Flags) -> Option<Result<Path>> {
    let mut buf = [MaybeUninit::uninit(); SHORT];
    fs::lookup_now(ctx, dirfd, try_read_cstr(path.addr(), &mut buf)?, flags)
}

/// Longest path that is not worth a future, with its NUL.
pub(super) const SHORT: usize = 128;

pub fn newfstatat_now(t: &Thread, dirfd: i32, path: UserPtr<u8>, out: UserPtr<Stat>, flags: u32) -> Option<Result<()>> {
    match place_now(Ctx::of(t), dirfd, path, at_flags(flags, STAT_FLAGS).ok()?)? {
        Ok(place) => out.try_write(&stat_of(&place)).ok().map(Ok),
        Err(errno) => Some(Err(errno)),
    }
}

pub async fn fstat(t: &Thread, fd: i32, out: UserPtr<Stat>) -> Result<()> {
    let file = t.files().get(fd)?;
    if file.path().dentry.is_shared() {
        Box::pin(file.refresh()).await?;
    }
    out.write(t.mm(), stat_of(file.path())).await
}

pub fn fstat_now(t: &Thread, fd: i32, out: UserPtr<Stat>) -> Option<Result<()>> {
    let stat = t.files().with(fd, |file| (!file.path().dentry.is_shared()).then(|| stat_of(file.path())))?;
    out.try_write(&stat).ok().map(Ok)
}

#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct StatxTime {
    sec: i64,
    nsec: u32,
    pad: i32,
}

/// `struct statx`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Statx {
    mask: u32,
    blksize: u32,
    attributes: u64,
    nlink: u32,
    uid: u32,
    gid: u32,
    mode: u16,
    pad1: u16,
    ino: u64,
    size: u64,
    blocks: u64,
    attributes_mask: u64,
    atime: StatxTime,
    btime: StatxTime,
    ctime: StatxTime,
    mtime: StatxTime,
    rdev: [u32; 2],
    dev: [u32; 2],
    mnt_id: u64,
    dio: [u32; 2],
    spare: [u64; 12],
}

const _: () = assert!(size_of::<Statx>() == 256);

fn statx_time(time: Timespec) -> StatxTime {
    StatxTime { sec: time.sec, nsec: time.nsec, pad: 0 }
}

fn statx_of(path: &Path) -> Statx {
    let meta = path.inode().metadata();
    let dev = path.inode().device();
    let mount_root = alloc::sync::Arc::ptr_eq(&path.dentry, path.mount.root());
    let mut mask = raw::STATX_BASIC_STATS | raw::STATX_MNT_ID;
    if meta.btime.is_some() {
        mask |= raw::STATX_BTIME;
    }
    // The bits of these are the same in both.
    let shown = InodeFlags::BINDING | InodeFlags::NODUMP;
    let flags = path.inode().obeyed_flags() & shown;
    let known = if path.inode().flags().is_some() { shown } else { InodeFlags::empty() };
    Statx {
        mask,
        blksize: meta.block_size,
        attributes: u64::from(flags.bits()) | if mount_root { raw::STATX_ATTR_MOUNT_ROOT as u64 } else { 0 },
        attributes_mask: u64::from(known.bits()) | raw::STATX_ATTR_MOUNT_ROOT as u64,
        nlink: meta.nlink,
        uid: meta.uid,
        gid: meta.gid,
        mode: shown_mode(path, &meta) as u16,
        ino: meta.ino,
        size: meta.size,
        blocks: meta.blocks,
        atime: statx_time(meta.atime),
        btime: statx_time(meta.btime.unwrap_or_default()),
        ctime: statx_time(meta.ctime),
        mtime: statx_time(meta.mtime),
        rdev: [meta.rdev.major, meta.rdev.minor],
        dev: [dev.major, dev.minor],
        mnt_id: path.mount.id(),
        ..Statx::default()
    }
}

pub async fn statx(
    t: &Thread,
    dirfd: i32,
    path: UserPtr<u8>,
    flags: u32,
    mask: u32,
    out: UserPtr<Statx>,
) -> Result<()> {
    let flags = statx_flags(flags, mask)?;
    let path = read_path(t, path).await?;
    let place = fs::lookup(Ctx::of(t), dirfd, &path, flags).await?;
    if place.dentry.is_shared() {
        Box::pin(place.refresh()).await?;
    }
    out.write(t.mm(), statx_of(&place)).await
}

pub fn statx_now(
    t: &Thread,
    dirfd: i32,
    path: UserPtr<u8>,
    flags: u32,
    mask: u32,
    out: UserPtr<Statx>,
) -> Option<Result<()>> {
    match place_now(Ctx::of(t), dirfd, path, statx_flags(flags, mask).ok()?)? {
        Ok(place) => out.try_write(&statx_of(&place)).ok().map(Ok),
        Err(errno) => Some(Err(errno)),
    }
}

fn statx_flags(flags: u32, mask: u32) -> Result<Flags> {
    let sync = raw::AT_STATX_FORCE_SYNC | raw::AT_STATX_DONT_SYNC;
    if mask & raw::STATX__RESERVED != 0 || flags & sync == sync {
        return Err(Errno::EINVAL);
    }
    at_flags(flags & !sync, STAT_FLAGS)
}

/// `struct statfs` of 64-bit machines.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct StatFs {
    kind: u64,
    bsize: u64,
    blocks: u64,
    bfree: u64,
    bavail: u64,
    files: u64,
    ffree: u64,
    fsid: [u32; 2],
    namelen: u64,
    frsize: u64,
    flags: u64,
    spare: [u64; 4],
}

const _: () = assert!(size_of::<StatFs>() == 120);

fn statfs_of(path: &Path) -> StatFs {
    let st = path.inode().fs().statfs();
    let flags = path.mount.flags();
    // ST_* of statfs(2); ST_VALID is always set by Linux.
    let mut shown = 0x20;
    for (flag, bit) in [
        (MountFlags::RDONLY, 1),
        (MountFlags::NOSUID, 2),
        (MountFlags::NODEV, 4),
        (MountFlags::NOEXEC, 8),
        (MountFlags::NOATIME, 0x400),
        (MountFlags::NODIRATIME, 0x800),
        (MountFlags::RELATIME, 0x1000),
    ] {
        if flags.contains(flag) {
            shown |= bit;
        }
    }
    if path.mount.fs().read_only() {
        shown |= 1;
    }
    StatFs {
        kind: st.magic,
        bsize: st.block_size,
        blocks: st.blocks,
        bfree: st.free,
        bavail: st.available,
        files: st.files,
        ffree: st.files_free,
        fsid: st.fsid,
        namelen: st.name_max,
        frsize: st.block_size,
        flags: shown,
        spare: [0; 4],
    }
}

pub async fn statfs(t: &Thread, path: UserPtr<u8>, out: UserPtr<StatFs>) -> Result<()> {
    let place = lookup_cwd(t, path, Flags::FOLLOW).await?;
    place.inode().fs().refresh().await?;
    out.write(t.mm(), statfs_of(&place)).await
}

pub async fn fstatfs(t: &Thread, fd: i32, out: UserPtr<StatFs>) -> Result<()> {
    let file = t.files().get(fd)?;
    file.inode().fs().refresh().await?;
    out.write(t.mm(), statfs_of(file.path())).await
}

pub async fn faccessat(t: &Thread, dirfd: i32, path: UserPtr<u8>, mode: u32) -> Result<()> {
    access(t, dirfd, path, mode, 0).await
}

pub async fn faccessat2(t: &Thread, dirfd: i32, path: UserPtr<u8>, mode: u32, flags: u32) -> Result<()> {
    access(t, dirfd, path, mode, flags).await
}

async fn access(t: &Thread, dirfd: i32, path: UserPtr<u8>, mode: u32, flags: u32) -> Result<()> {
    let want = Want::from_bits(mode as u16).filter(|_| mode <= 7).ok_or(Errno::EINVAL)?;
    let walk = at_flags(flags, raw::AT_SYMLINK_NOFOLLOW | raw::AT_EMPTY_PATH | raw::AT_EACCESS)?;
    let path = read_path(t, path).await?;
    let creds = if flags & raw::AT_EACCESS != 0 { None } else { real_creds(t.creds()) };
    let ctx = match &creds {
        Some(creds) => Ctx { creds, ..Ctx::of(t) },
        None => Ctx::of(t),
    };
    let place = fs::lookup(ctx, dirfd, &path, walk).await?;
    allows(ctx, &place, want)
}

pub fn faccessat_now(t: &Thread, dirfd: i32, path: UserPtr<u8>, mode: u32) -> Option<Result<()>> {
    let want = Want::from_bits(mode as u16).filter(|_| mode <= 7)?;
    if real_creds(t.creds()).is_some() {
        return None;
    }
    let ctx = Ctx::of(t);
    let place = place_now(ctx, dirfd, path, Flags::FOLLOW)?;
    Some(place.and_then(|place| allows(ctx, &place, want)))
}

#[inline]
fn allows(ctx: Ctx<'_>, place: &Path, want: Want) -> Result<()> {
    let kind = place.dentry.kind();
    if want.contains(Want::EXEC) && kind == FileType::Regular && place.mount.flags().contains(MountFlags::NOEXEC) {
        return Err(Errno::EACCES);
    }
    perm::check(ctx.creds, &**place.inode(), want)?;
    let special = !matches!(kind, FileType::Regular | FileType::Directory | FileType::Symlink);
    if want.contains(Want::WRITE) && !special {
        place.mount.check_writable()?;
    }
    Ok(())
}

/// access(2) asks for the real ids; None if they are the same as the ones that count anyway.
fn real_creds(creds: &Credentials) -> Option<Credentials> {
    let caps = if creds.uid == 0 { creds.cap_permitted } else { Caps::empty() };
    if (creds.fsuid, creds.fsgid, creds.cap_effective) == (creds.uid, creds.gid, caps) {
        return None;
    }
    Some(Credentials { fsuid: creds.uid, fsgid: creds.gid, cap_effective: caps, ..creds.clone() })
}

pub async fn readlinkat(t: &Thread, dirfd: i32, path: UserPtr<u8>, buf: UserPtr<u8>, size: i32) -> Result<usize> {
    let size = usize::try_from(size).ok().filter(|size| *size > 0).ok_or(Errno::EINVAL)?;
    let path = read_path(t, path).await?;
    let place = fs::lookup(Ctx::of(t), dirfd, &path, Flags::EMPTY).await?;
    if place.dentry.kind() != FileType::Symlink {
        return Err(if path.is_empty() { Errno::ENOENT } else { Errno::EINVAL });
    }
    let text = link_text(t, &**place.inode()).await?;
    regular::touch_atime(&place, &place.inode().size_and_times()).await;
    let text = text.get(..text.len().min(size)).unwrap_or(&text);
    buf.write_bytes(t.mm(), text).await?;
    Ok(text.len())
}

/// The same for a link that the cache of names knows, if its text is at hand and its access time stays.
pub fn readlinkat_now(t: &Thread, dirfd: i32, path: UserPtr<u8>, buf: UserPtr<u8>, size: i32) -> Option<Result<usize>> {
    let size = usize::try_from(size).ok().filter(|size| *size > 0)?;
    let place = match place_now(Ctx::of(t), dirfd, path, Flags::EMPTY)? {
        Ok(place) => place,
        Err(errno) => return Some(Err(errno)),
    };
    let inode = place.inode();
    if place.dentry.kind() != FileType::Symlink || regular::due_atime(&place, &inode.size_and_times()).is_some() {
        return None;
    }
    let text = match inode.read_link_for(t) {
        Some(text) => text,
        None => inode.read_link().now()?,
    };
    let text = match text {
        Ok(text) => text,
        Err(errno) => return Some(Err(errno)),
    };
    let text = text.get(..text.len().min(size)).unwrap_or(&text);
    buf.try_write_bytes(text).ok().map(|()| Ok(text.len()))
}

async fn link_text(t: &Thread, inode: &dyn Inode) -> Result<Vec<u8>> {
    match inode.read_link_for(t) {
        Some(text) => text,
        None => inode.read_link().await,
    }
}

/// The longest stretch of entries that one call answers.
const DIRENTS_MAX: usize = 64 * 1024;
/// Offset of the name in `struct linux_dirent64`.
const DIRENT_NAME: usize = 19;

/// Collects records as getdents64(2) lays them out, in whole words: each begins with one.
struct Dirents {
    out: Vec<u64>,
    /// Bytes.
    room: usize,
    next: u64,
    /// An entry did not fit.
    full: bool,
}

impl DirSink for Dirents {
    fn entry(&mut self, ino: u64, next: u64, kind: FileType, name: &[u8]) -> bool {
        let words = (DIRENT_NAME + name.len() + 1).div_ceil(8);
        let start = self.out.len();
        if 8 * (start + words) > self.room || self.out.try_reserve(words).is_err() {
            self.full = true;
            return false;
        }
        // The length, the type, and the begin of the name, which ends with a NUL at least.
        self.out.extend([ino, next, (8 * words as u64) | (u64::from(kind.dirent_type()) << 16)]);
        self.out.resize(start + words, 0);
        let at = 8 * start + DIRENT_NAME;
        if let Some(place) = self.out.as_mut_bytes().get_mut(at..at + name.len()) {
            place.copy_from_slice(name);
        }
        self.next = next;
        true
    }
}

pub async fn getdents64(t: &Thread, fd: i32, buf: UserPtr<u8>, size: u32) -> Result<usize> {
    let file = t.files().get_io(fd)?;
    if !file.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    if file.path().dentry.is_dead() {
        return Err(Errno::ENOENT);
    }
    let mut pos = file.pos().lock().await;
    let mut sink = Dirents { out: Vec::new(), room: (size as usize).min(DIRENTS_MAX), next: *pos, full: false };
    file.inode().read_dir(*pos, &mut sink).await?;
    if sink.out.is_empty() && sink.full {
        return Err(Errno::EINVAL);
    }
    buf.write_bytes(t.mm(), sink.out.as_bytes()).await?;
    *pos = sink.next;
    drop(pos);
    hooks::used(&file, raw::IN_ACCESS);
    if file.flags() & raw::O_NOATIME == 0 && !file.path().mount.flags().contains(MountFlags::NODIRATIME) {
        regular::touch_atime(file.path(), &file.inode().size_and_times()).await;
    }
    Ok(size_of_val(&*sink.out))
}

pub async fn getcwd(t: &Thread, buf: UserPtr<u8>, size: u64) -> Result<usize> {
    let cwd = t.fs().cwd();
    if cwd.dentry.is_dead() {
        return Err(Errno::ENOENT);
    }
    let mut text = match cwd.display_below(&t.fs().root()) {
        Some(text) => text,
        None => {
            let text = cwd.display(None);
            if text.len() > PATH_MAX {
                return Err(Errno::ENAMETOOLONG);
            }
            [b"(unreachable)".as_slice(), &text].concat()
        }
    };
    text.push(0);
    if text.len() > PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    if text.len() as u64 > size {
        return Err(Errno::ERANGE);
    }
    buf.write_bytes(t.mm(), &text).await?;
    Ok(text.len())
}
