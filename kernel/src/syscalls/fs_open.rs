//! Opening, closing and duplicating descriptors; fcntl, flock, ioctl.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::mem::MaybeUninit;

use linux_raw_sys::{general as raw, ioctl as ioc};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::SysResult;
use super::fs_stat::SHORT;
use crate::errno::{Errno, Result};
use crate::exec::interruptible;
use crate::fs::inode_flags::{self, Change};
use crate::fs::locks::{self, Owner, Record};
use crate::fs::open_file::{Kind, OpenFile};
use crate::fs::path::PATH_MAX;
use crate::fs::sigio::{self, OwnerKind};
use crate::fs::{self, AT_FDCWD, Ctx, FileType, Flags, How, pipe};
use crate::mm::{UserPtr, UserStr, read_cstr, try_read_cstr};
use crate::net::socket;
use crate::process::Thread;

/// The path argument of a system call.
pub(super) fn read_path(t: &Thread, path: UserPtr<u8>) -> impl Future<Output = Result<UserStr>> {
    read_cstr(t.mm(), path.addr(), PATH_MAX)
}

/// Flags that openat knows; it ignores all others, openat2 refuses them.
const KNOWN_FLAGS: u32 = raw::O_ACCMODE
    | raw::O_CREAT
    | raw::O_EXCL
    | raw::O_NOCTTY
    | raw::O_TRUNC
    | raw::O_APPEND
    | raw::O_NONBLOCK
    | raw::O_SYNC
    | raw::O_DSYNC
    | raw::FASYNC
    | raw::O_DIRECT
    | raw::O_LARGEFILE
    | raw::O_DIRECTORY
    | raw::O_NOFOLLOW
    | raw::O_NOATIME
    | raw::O_CLOEXEC
    | raw::O_PATH
    | raw::O_TMPFILE;

pub(crate) async fn open_how(t: &Thread, dirfd: i32, path: UserPtr<u8>, how: How) -> SysResult<i32> {
    let path = read_path(t, path).await?;
    if !t.files().has_room() {
        return Err(Errno::EMFILE.into());
    }
    let file = fs::open(Ctx::of(t), dirfd, &path, how).await?;
    Ok(t.files().install(file, how.flags & raw::O_CLOEXEC != 0)?)
}

/// Opens a file without giving it a descriptor.
pub(crate) async fn open_only(t: &Thread, dirfd: i32, path: UserPtr<u8>, how: How) -> SysResult<Arc<OpenFile>> {
    let path = read_path(t, path).await?;
    fs::open(Ctx::of(t), dirfd, &path, how).await
}

/// What openat(2) makes of its flags.
pub(crate) fn how_of(flags: u32, mode: u32) -> How {
    How::new(flags & KNOWN_FLAGS | raw::O_LARGEFILE, mode & 0o7777)
}

pub async fn openat(t: &Thread, dirfd: i32, path: UserPtr<u8>, flags: u32, mode: u32) -> SysResult<i32> {
    open_how(t, dirfd, path, how_of(flags, mode)).await
}

pub fn openat_now(t: &Thread, dirfd: i32, path: UserPtr<u8>, flags: u32, mode: u32) -> Option<SysResult<i32>> {
    let mut buf = [MaybeUninit::uninit(); SHORT];
    let path = try_read_cstr(path.addr(), &mut buf)?;
    if !t.files().has_room() {
        return None;
    }
    let file = fs::open_now(Ctx::of(t), dirfd, path, &how_of(flags, mode))?;
    let fd = file.and_then(|file| t.files().install(file, flags & raw::O_CLOEXEC != 0));
    Some(fd.map_err(Into::into))
}

pub async fn openat2(t: &Thread, dirfd: i32, path: UserPtr<u8>, how: UserPtr<[u64; 3]>, size: u64) -> SysResult<i32> {
    let how = read_how(t, how, size).await?;
    open_how(t, dirfd, path, how).await
}

/// Reads and checks a `struct open_how`.
pub(crate) async fn read_how(t: &Thread, how: UserPtr<[u64; 3]>, size: u64) -> Result<How> {
    const SIZE: u64 = 24;
    if size < SIZE {
        return Err(Errno::EINVAL);
    }
    if size > 4096 {
        return Err(Errno::E2BIG);
    }
    let [flags, mode, resolve] = how.read(t.mm()).await?;
    let rest = UserPtr::<u8>::new(how.addr() + SIZE).read_slice(t.mm(), (size - SIZE) as usize, 4096).await?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err(Errno::E2BIG);
    }
    let creates = flags & (raw::O_CREAT as u64 | (raw::O_TMPFILE & !raw::O_DIRECTORY) as u64) != 0;
    if flags & !(KNOWN_FLAGS as u64) != 0 || mode & !0o7777 != 0 || mode != 0 && !creates {
        return Err(Errno::EINVAL);
    }
    let path_flags = (raw::O_PATH | raw::O_DIRECTORY | raw::O_NOFOLLOW | raw::O_CLOEXEC) as u64;
    if flags & raw::O_PATH as u64 != 0 && flags & !path_flags != 0 {
        return Err(Errno::EINVAL);
    }
    let how = How { flags: flags as u32, mode: mode as u32, resolve: resolve_flags(resolve)? };
    let changes = raw::O_CREAT | raw::O_TRUNC | (raw::O_TMPFILE & !raw::O_DIRECTORY);
    if how.resolve.contains(Flags::CACHED) && how.flags & changes != 0 {
        return Err(Errno::EAGAIN);
    }
    Ok(how)
}

fn resolve_flags(resolve: u64) -> Result<Flags> {
    let table = [
        (raw::RESOLVE_NO_XDEV, Flags::NO_XDEV),
        (raw::RESOLVE_NO_MAGICLINKS, Flags::NO_MAGIC_LINKS),
        (raw::RESOLVE_NO_SYMLINKS, Flags::NO_SYMLINKS),
        (raw::RESOLVE_BENEATH, Flags::BENEATH),
        (raw::RESOLVE_IN_ROOT, Flags::IN_ROOT),
        (raw::RESOLVE_CACHED, Flags::CACHED),
    ];
    let mut flags = Flags::empty();
    let mut left = resolve;
    for (bit, flag) in table {
        if left & bit as u64 != 0 {
            flags |= flag;
            left &= !(bit as u64);
        }
    }
    if left != 0 || flags.contains(Flags::BENEATH | Flags::IN_ROOT) {
        return Err(Errno::EINVAL);
    }
    Ok(flags)
}

pub fn close_now(t: &Thread, fd: i32) -> Option<Result<()>> {
    t.files().close_now(fd)
}

pub async fn close(t: &Thread, fd: i32) -> Result<()> {
    let file = t.files().remove(fd)?;
    file.closed_by(t.files().lock_owner());
    file.let_go(t).await;
    Ok(())
}

const CLOSE_RANGE_UNSHARE: u32 = 2;
const CLOSE_RANGE_CLOEXEC: u32 = 4;

pub async fn close_range(t: &mut Thread, first: u32, last: u32, flags: u32) -> Result<()> {
    if flags & !(CLOSE_RANGE_CLOEXEC | CLOSE_RANGE_UNSHARE) != 0 || first > last {
        return Err(Errno::EINVAL);
    }
    if flags & CLOSE_RANGE_UNSHARE != 0 && Arc::strong_count(t.files()) > 2 {
        let copy = Arc::new(t.files().fork()?);
        t.set_files(copy);
    }
    if flags & CLOSE_RANGE_CLOEXEC != 0 {
        t.files().set_cloexec_range(first, last);
    } else {
        t.files().close_range(first, last).await;
    }
    Ok(())
}

pub fn dup(t: &Thread, fd: i32) -> Result<i32> {
    t.files().install(t.files().get(fd)?, false)
}

pub async fn dup3(t: &Thread, old: i32, new: i32, flags: u32) -> Result<i32> {
    if flags & !raw::O_CLOEXEC != 0 || old == new {
        return Err(Errno::EINVAL);
    }
    if new < 0 || new as u64 >= t.files().limit() {
        return Err(Errno::EBADF);
    }
    let file = t.files().get(old)?;
    if let Some(before) = t.files().replace(new, file, flags & raw::O_CLOEXEC != 0)? {
        before.let_go(t).await;
    }
    Ok(new)
}

// Commands of fcntl(2) that linux-raw-sys lacks or types differently.
const F_DUPFD: u32 = raw::F_DUPFD;
const F_LINUX: u32 = 1024;
const F_SETLEASE: u32 = F_LINUX;
const F_GETLEASE: u32 = F_LINUX + 1;
const F_NOTIFY: u32 = F_LINUX + 2;
const F_DUPFD_CLOEXEC: u32 = F_LINUX + 6;
const F_SETPIPE_SZ: u32 = F_LINUX + 7;
const F_GETPIPE_SZ: u32 = F_LINUX + 8;
const F_ADD_SEALS: u32 = F_LINUX + 9;
const F_GET_SEALS: u32 = F_LINUX + 10;
const F_GETOWNER_UIDS: u32 = 17;
const F_OFD_GETLK: u32 = 36;
const F_OFD_SETLK: u32 = 37;
const F_OFD_SETLKW: u32 = 38;

// ioctls of sockets that are about signals (asm-generic/sockios.h).
const FIOSETOWN: u32 = 0x8901;
const SIOCSPGRP: u32 = 0x8902;
const FIOGETOWN: u32 = 0x8903;
const SIOCGPGRP: u32 = 0x8904;

pub fn fcntl_now(t: &Thread, fd: i32, cmd: u32, _arg: u64) -> Option<SysResult<u64>> {
    match cmd {
        raw::F_GETFD => Some(t.files().cloexec(fd).map(u64::from).map_err(Into::into)),
        raw::F_GETFL => t.files().with(fd, |file| Some(Ok(file.flags() as u64))),
        _ => None,
    }
}

pub async fn fcntl(t: &Thread, fd: i32, cmd: u32, arg: u64) -> SysResult<u64> {
    let file = t.files().get(fd)?;
    match cmd {
        F_DUPFD | F_DUPFD_CLOEXEC => {
            let min = i32::try_from(arg).ok().filter(|min| (*min as u64) < t.files().limit()).ok_or(Errno::EINVAL)?;
            return Ok(t.files().install_from(min, file, cmd == F_DUPFD_CLOEXEC)? as u64);
        }
        raw::F_GETFD => return Ok(u64::from(t.files().cloexec(fd)?)),
        raw::F_SETFD => {
            t.files().set_cloexec(fd, arg & raw::FD_CLOEXEC as u64 != 0)?;
            return Ok(0);
        }
        raw::F_GETFL => return Ok(file.flags() as u64),
        _ => {}
    }
    if file.is_path() {
        return Err(Errno::EBADF.into());
    }
    match cmd {
        raw::F_SETFL => set_flags(t, fd, &file, arg as u32)?,
        raw::F_GETLK | raw::F_SETLK | raw::F_SETLKW | F_OFD_GETLK | F_OFD_SETLK | F_OFD_SETLKW => {
            return record_lock(t, fd, &file, cmd, UserPtr::new(arg)).await;
        }
        raw::F_SETOWN => {
            let owner = arg as i32;
            let kind = if owner < 0 { OwnerKind::Group } else { OwnerKind::Process };
            file.signals().owner().set(t.creds(), kind, owner.checked_abs().ok_or(Errno::EINVAL)?)?;
        }
        raw::F_GETOWN => {
            let (kind, id) = owner(&file);
            return Ok(if kind == OwnerKind::Group { -i64::from(id) } else { i64::from(id) } as u64);
        }
        raw::F_SETSIG if arg > 64 => return Err(Errno::EINVAL.into()),
        raw::F_SETSIG => file.signals().owner().set_signal(arg as u8),
        raw::F_GETSIG => return Ok(file.signals_if_any().map_or(0, |signals| u64::from(signals.owner().signal()))),
        F_GETOWNER_UIDS => {
            let uids = file.signals_if_any().map_or([0, 0], |signals| signals.owner().uids());
            UserPtr::<[u32; 2]>::new(arg).write(t.mm(), uids).await?;
        }
        raw::F_SETOWN_EX => {
            let [kind, pid] = UserPtr::<[i32; 2]>::new(arg).read(t.mm()).await?;
            let kind = OwnerKind::from_raw(kind).ok_or(Errno::EINVAL)?;
            file.signals().owner().set(t.creds(), kind, pid)?;
        }
        raw::F_GETOWN_EX => {
            let (kind, id) = owner(&file);
            UserPtr::<[i32; 2]>::new(arg).write(t.mm(), [kind as i32, id]).await?;
        }
        F_SETPIPE_SZ => return Ok(pipe::set_size(t, &file, arg)?),
        F_GETPIPE_SZ => return Ok(pipe::of_file(&file).ok_or(Errno::EBADF)?.capacity() as u64),
        F_ADD_SEALS if !file.writable() => return Err(Errno::EPERM.into()),
        F_ADD_SEALS => {
            let inode = file.inode();
            let _guard = inode.state().lock.lock().await;
            inode.state().add_seals(arg as u32, inode.page_cache().map(|cache| &**cache))?;
        }
        F_GET_SEALS => return Ok(file.inode().state().seals().ok_or(Errno::EINVAL)? as u64),
        // No lease is ever held; none is given.
        F_GETLEASE => return Ok(raw::F_UNLCK as u64),
        F_SETLEASE if arg == raw::F_UNLCK as u64 => return Err(Errno::EAGAIN.into()),
        F_SETLEASE | F_NOTIFY => return Err(Errno::EINVAL.into()),
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

/// Whom the signals of a file are for.
fn owner(file: &OpenFile) -> (OwnerKind, i32) {
    file.signals_if_any().map_or((OwnerKind::Thread, 0), |signals| signals.owner().get())
}

fn set_flags(t: &Thread, fd: i32, file: &OpenFile, flags: u32) -> Result<()> {
    if (flags ^ file.flags()) & raw::O_APPEND != 0 {
        inode_flags::check_not_append_only(&**file.inode())?;
    }
    let wants_noatime = flags & raw::O_NOATIME != 0 && file.flags() & raw::O_NOATIME == 0;
    if wants_noatime && !fs::perm::is_owner(t.creds(), &file.inode().metadata()) {
        return Err(Errno::EPERM);
    }
    let kind = file.inode().kind();
    let direct_io = matches!(kind, FileType::BlockDevice | FileType::Fifo) || file.inode().direct_alignment().is_some();
    if flags & raw::O_DIRECT != 0 && !direct_io {
        return Err(Errno::EINVAL);
    }
    match sigio::switch(t, file, fd, flags & raw::FASYNC != 0) {
        // Those that have nothing to tell take no notice.
        Ok(()) | Err(Errno::ENOTTY) => {}
        Err(errno) => return Err(errno),
    }
    if flags & raw::O_DIRECT != 0
        && let Some(pipe) = pipe::of_file(file)
    {
        pipe.begin_packets();
    }
    file.set_status_flags(flags);
    Ok(())
}

/// `struct flock`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Flock {
    kind: i16,
    whence: i16,
    pad: u32,
    start: i64,
    len: i64,
    pid: i32,
    pad2: u32,
}

const _: () = assert!(size_of::<Flock>() == size_of::<raw::flock>());

async fn record_lock(t: &Thread, fd: i32, file: &Arc<OpenFile>, cmd: u32, arg: UserPtr<Flock>) -> SysResult<u64> {
    let flock = arg.read(t.mm()).await?;
    let ofd = matches!(cmd, F_OFD_GETLK | F_OFD_SETLK | F_OFD_SETLKW);
    if ofd && flock.pid != 0 {
        return Err(Errno::EINVAL.into());
    }
    let (start, end) = lock_range(file, &flock).await?;
    let owner = if ofd { file.lock_owner() } else { Owner::Process(t.files().lock_owner()) };
    let pid = if ofd { -1 } else { t.process().pid as i32 };
    let exclusive = match flock.kind as u32 {
        raw::F_RDLCK => false,
        raw::F_WRLCK => true,
        raw::F_UNLCK => false,
        _ => return Err(Errno::EINVAL.into()),
    };
    let record = Record { owner, pid, exclusive, start, end };
    let unlock = flock.kind as u32 == raw::F_UNLCK;
    let locks = file.inode().state().locks();
    if matches!(cmd, raw::F_GETLK | F_OFD_GETLK) {
        if unlock {
            return Err(Errno::EINVAL.into());
        }
        let answer = locks.test(record).map_or(Flock { kind: raw::F_UNLCK as i16, ..flock }, to_flock);
        arg.write(t.mm(), answer).await?;
        return Ok(0);
    }
    if unlock {
        locks.unlock(record)?;
        return Ok(0);
    }
    if exclusive {
        file.check_writable()?;
    } else {
        file.check_readable()?;
    }
    if matches!(cmd, raw::F_SETLKW | F_OFD_SETLKW) {
        interruptible(t, locks.set_wait(record)).await??;
    } else {
        locks.set(record)?;
    }
    // Another thread closed the descriptor meanwhile: its close did not see this lock.
    if !ofd && !t.files().get(fd).is_ok_and(|now| Arc::ptr_eq(&now, file)) {
        let _ = locks.unlock(record);
        return Err(Errno::EBADF.into());
    }
    Ok(0)
}

fn to_flock(held: Record) -> Flock {
    Flock {
        kind: if held.exclusive { raw::F_WRLCK } else { raw::F_RDLCK } as i16,
        whence: 0,
        pad: 0,
        start: held.start as i64,
        len: if held.end == locks::END { 0 } else { (held.end - held.start + 1) as i64 },
        pid: held.pid,
        pad2: 0,
    }
}

/// First and last byte of a lock.
async fn lock_range(file: &OpenFile, flock: &Flock) -> Result<(u64, u64)> {
    let base = match flock.whence as u32 {
        raw::SEEK_SET => 0,
        raw::SEEK_CUR => *file.pos().lock().await as i64,
        raw::SEEK_END => file.inode().size() as i64,
        _ => return Err(Errno::EINVAL),
    };
    let start = base.checked_add(flock.start).ok_or(Errno::EOVERFLOW)?;
    if start < 0 {
        return Err(Errno::EINVAL);
    }
    let (start, end) = match flock.len {
        0 => (start, locks::END as i64),
        len if len > 0 => (start, start.checked_add(len - 1).ok_or(Errno::EOVERFLOW)?),
        len => (start.checked_add(len).filter(|start| *start >= 0).ok_or(Errno::EINVAL)?, start - 1),
    };
    Ok((start as u64, end as u64))
}

pub async fn flock(t: &Thread, fd: i32, operation: u32) -> SysResult<()> {
    let operation = (operation & !raw::LOCK_NB, operation & raw::LOCK_NB != 0);
    let (raw::LOCK_SH | raw::LOCK_EX | raw::LOCK_UN, nonblock) = operation else { return Err(Errno::EINVAL.into()) };
    let file = t.files().get_io(fd)?;
    let Owner::File(owner) = file.lock_owner() else { return Err(Errno::EBADF.into()) };
    let locks = file.inode().state().locks();
    if operation.0 == raw::LOCK_UN {
        locks.unflock(owner);
        return Ok(());
    }
    let exclusive = operation.0 == raw::LOCK_EX;
    if nonblock {
        return Ok(locks.flock(owner, exclusive)?);
    }
    Ok(interruptible(t, locks.flock_wait(owner, exclusive)).await?)
}

pub async fn ioctl(t: &Thread, fd: i32, cmd: u32, arg: u64) -> SysResult<u64> {
    let file = t.files().get_io(fd)?;
    let int = UserPtr::<i32>::new(arg);
    match cmd {
        ioc::FIOCLEX => t.files().set_cloexec(fd, true)?,
        ioc::FIONCLEX => t.files().set_cloexec(fd, false)?,
        ioc::FIONBIO => file.set_nonblock(int.read(t.mm()).await? != 0),
        ioc::FIOASYNC => sigio::switch(t, &file, fd, int.read(t.mm()).await? != 0)?,
        FIOSETOWN | SIOCSPGRP if socket::of_file(&file).is_ok() => {
            let id = int.read(t.mm()).await?;
            let kind = if id < 0 { OwnerKind::Group } else { OwnerKind::Process };
            file.signals().owner().set(t.creds(), kind, id.checked_abs().ok_or(Errno::EINVAL)?)?;
        }
        FIOGETOWN | SIOCGPGRP if socket::of_file(&file).is_ok() => {
            let (kind, id) = owner(&file);
            int.write(t.mm(), if kind == OwnerKind::Group { -id } else { id }).await?;
        }
        ioc::FIGETBSZ if file.ops().is_none() => {
            int.write(t.mm(), file.inode().metadata().block_size as i32).await?;
        }
        ioc::FS_IOC_GETFLAGS => {
            let flags = file.inode().flags().ok_or(Errno::ENOTTY)?;
            int.write(t.mm(), flags as i32).await?;
        }
        ioc::FS_IOC_SETFLAGS => {
            let flags = int.read(t.mm()).await?;
            Box::pin(inode_flags::set(t.creds(), file.path(), Change::All(flags as u32))).await?;
        }
        ioc::FS_IOC_FSGETXATTR => {
            let extended = inode_flags::extended(&**file.inode())?;
            UserPtr::new(arg).write(t.mm(), extended).await?;
        }
        ioc::FS_IOC_FSSETXATTR => {
            let extended = UserPtr::new(arg).read(t.mm()).await?;
            Box::pin(inode_flags::set(t.creds(), file.path(), Change::Common(extended))).await?;
        }
        ioc::FS_IOC_GETVERSION => {
            let version = file.inode().generation().ok_or(Errno::ENOTTY)?;
            int.write(t.mm(), version as i32).await?;
        }
        ioc::FIONREAD if matches!(file.kind(), Kind::Regular(_)) => {
            let left = file.inode().size().saturating_sub(*file.pos().lock().await);
            int.write(t.mm(), left.min(i32::MAX as u64) as i32).await?;
        }
        _ => {
            let Some(ops) = file.ops() else { return Err(Errno::ENOTTY.into()) };
            return Ok(interruptible(t, ops.ioctl(&file, t, cmd, arg)).await??);
        }
    }
    Ok(0)
}

/// For the handlers that take a path relative to the working directory only.
pub(super) async fn lookup_cwd(t: &Thread, path: UserPtr<u8>, flags: Flags) -> Result<fs::Path> {
    let path = read_path(t, path).await?;
    fs::lookup(Ctx::of(t), AT_FDCWD, &path, flags).await
}
