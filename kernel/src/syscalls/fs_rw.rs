//! Reading, writing and positioning.

use core::sync::atomic::Ordering;

use linux_raw_sys::general as raw;

use super::{SysError, SysResult};
use crate::errno::{Errno, Result};
use crate::exec::interruptible;
use crate::fs::inode_flags::{self, InodeFlags};
use crate::fs::inotify::hooks;
use crate::fs::open_file::{Kind, OpenFile, READ_EVENTS, settled};
use crate::fs::{self, Ctx, FileType, TryError, mount, regular, splice};
use crate::mm::{self, IoBuf, UserPtr, import_iovec, within_page};
use crate::process::Thread;

pub async fn read(t: &Thread, fd: i32, addr: u64, len: u64) -> SysResult<usize> {
    let file = t.files().get_io(fd)?;
    let mut buf = IoBuf::user(t.mm(), addr, len)?;
    // The most common wait of all gets a future of its own, without the layers that others need.
    if let Some((ops, queue)) = file.blocking_stream() {
        let mut attempts = 0;
        let attempt = || {
            attempts += 1;
            settled(ops.try_read(&file, &mut buf, 0))
        };
        let wait = queue.wait_for_mask(READ_EVENTS.bits(), attempt);
        // `read_now` has tried, or has not because it does not pay.
        let wait = if within_page(addr, len) { wait.after_trying() } else { wait };
        let result = interruptible(t, wait).await;
        t.read_waits.store(attempts > 1, Ordering::Relaxed);
        match result {
            Ok(Ok(n)) => {
                let n = if buf.is_cut() { n + file.read_on(ops, &mut buf, 0).await } else { n };
                t.io.count_read(n);
                return Ok(n);
            }
            Ok(Err(TryError::Failed(errno))) => return counted_read(t, Err(errno.into())),
            Err(interrupted) => return counted_read(t, Err(interrupted.into())),
            Ok(Err(_)) => {}
        }
        buf.take_fault();
    }
    t.read_waits.store(false, Ordering::Relaxed);
    counted_read(t, file.read(t, &mut buf).await)
}

/// For /proc/PID/io, where calls count that were not refused at once.
fn counted_read(t: &Thread, result: SysResult<usize>) -> SysResult<usize> {
    if !matches!(result, Err(SysError::Errno(Errno::EBADF))) {
        t.io.count_read(*result.as_ref().unwrap_or(&0));
    }
    result
}

fn counted_write(t: &Thread, result: SysResult<usize>) -> SysResult<usize> {
    if !matches!(result, Err(SysError::Errno(Errno::EBADF))) {
        t.io.count_write(*result.as_ref().unwrap_or(&0));
    }
    result
}

pub async fn write(t: &Thread, fd: i32, addr: u64, len: u64) -> SysResult<usize> {
    let file = t.files().get_io(fd)?;
    let mut buf = IoBuf::user(t.mm(), addr, len)?;
    counted_write(t, file.write(t, &mut buf).await)
}

pub fn read_now(t: &Thread, fd: i32, addr: u64, len: u64) -> Option<SysResult<usize>> {
    if t.read_waits.load(Ordering::Relaxed) {
        return None;
    }
    let mut buf = IoBuf::user(t.mm(), addr, len).ok()?;
    let result = t.files().with(fd, |file| file.read_now(&mut buf, within_page(addr, len)))?;
    t.io.count_read(result.unwrap_or(0));
    Some(result.map_err(SysError::from))
}

pub fn write_now(t: &Thread, fd: i32, addr: u64, len: u64) -> Option<SysResult<usize>> {
    within_page(addr, len).then_some(())?;
    let result = t.files().with(fd, |file| file.write_now(&mut IoBuf::user(t.mm(), addr, len).ok()?))?;
    t.io.count_write(result.unwrap_or(0));
    Some(result.map_err(SysError::from))
}

pub async fn readv(t: &Thread, fd: i32, iov: u64, count: u64) -> SysResult<usize> {
    let file = t.files().get_io(fd)?;
    let mut buf = IoBuf::user_iovec(t.mm(), import_iovec(t.mm(), iov, count).await?);
    if buf.is_empty() && file.ops().is_none_or(|ops| ops.can_read()) {
        // Other than read(2), it does not ask the file then.
        return Ok(file.check_readable().map(|()| 0)?);
    }
    counted_read(t, file.read(t, &mut buf).await)
}

pub async fn writev(t: &Thread, fd: i32, iov: u64, count: u64) -> SysResult<usize> {
    let file = t.files().get_io(fd)?;
    let mut buf = IoBuf::user_iovec(t.mm(), import_iovec(t.mm(), iov, count).await?);
    counted_write(t, file.write(t, &mut buf).await)
}

fn offset(pos: i64) -> Result<u64> {
    u64::try_from(pos).map_err(|_| Errno::EINVAL)
}

pub async fn pread64(t: &Thread, fd: i32, addr: u64, len: u64, pos: i64) -> SysResult<usize> {
    let pos = offset(pos)?;
    let file = t.files().get_io(fd)?;
    let mut buf = IoBuf::user(t.mm(), addr, len)?;
    counted_read(t, file.read_at(t, &mut buf, pos).await)
}

pub fn pread64_now(t: &Thread, fd: i32, addr: u64, len: u64, pos: i64) -> Option<Result<usize>> {
    let mut buf = IoBuf::user(t.mm(), addr, len).ok()?;
    let n = t.files().with(fd, |file| file.read_at_now(&mut buf, offset(pos).ok()?))?;
    t.io.count_read(n);
    Some(Ok(n))
}

pub async fn pwrite64(t: &Thread, fd: i32, addr: u64, len: u64, pos: i64) -> SysResult<usize> {
    let pos = offset(pos)?;
    let file = t.files().get_io(fd)?;
    let mut buf = IoBuf::user(t.mm(), addr, len)?;
    counted_write(t, file.write_at(t, &mut buf, pos).await)
}

pub async fn preadv(t: &Thread, fd: i32, iov: u64, count: u64, pos: i64, _high: u64) -> SysResult<usize> {
    let pos = offset(pos)?;
    let file = t.files().get_io(fd)?;
    let mut buf = IoBuf::user_iovec(t.mm(), import_iovec(t.mm(), iov, count).await?);
    counted_read(t, file.read_at(t, &mut buf, pos).await)
}

pub async fn pwritev(t: &Thread, fd: i32, iov: u64, count: u64, pos: i64, _high: u64) -> SysResult<usize> {
    let pos = offset(pos)?;
    let file = t.files().get_io(fd)?;
    let mut buf = IoBuf::user_iovec(t.mm(), import_iovec(t.mm(), iov, count).await?);
    counted_write(t, file.write_at(t, &mut buf, pos).await)
}

/// RWF_* that are honoured; those for writing mean nothing when reading, and RWF_HIPRI is a hint.
const RWF_KNOWN: u32 = raw::RWF_HIPRI | raw::RWF_DSYNC | raw::RWF_SYNC | raw::RWF_APPEND;

pub async fn preadv2(t: &Thread, fd: i32, iov: u64, count: u64, pos: i64, _high: u64, flags: u32) -> SysResult<usize> {
    if flags & !RWF_KNOWN != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if pos == -1 { readv(t, fd, iov, count).await } else { preadv(t, fd, iov, count, pos, 0).await }
}

pub async fn pwritev2(t: &Thread, fd: i32, iov: u64, count: u64, pos: i64, _high: u64, flags: u32) -> SysResult<usize> {
    if flags & !RWF_KNOWN != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    let file = t.files().get_io(fd)?;
    let n = if flags & raw::RWF_APPEND != 0 && matches!(file.kind(), Kind::Regular(_)) {
        let keep_position = pos != -1;
        if keep_position {
            offset(pos)?;
        }
        let mut buf = IoBuf::user_iovec(t.mm(), import_iovec(t.mm(), iov, count).await?);
        counted_write(t, file.append(t, &mut buf, keep_position).await)?
    } else if pos == -1 {
        writev(t, fd, iov, count).await?
    } else {
        pwritev(t, fd, iov, count, pos, 0).await?
    };
    if flags & (raw::RWF_DSYNC | raw::RWF_SYNC) != 0 {
        file.sync(flags & raw::RWF_SYNC == 0).await?;
    }
    Ok(n)
}

pub async fn lseek(t: &Thread, fd: i32, offset: i64, whence: u32) -> SysResult<u64> {
    let file = t.files().get_io(fd)?;
    if whence > raw::SEEK_HOLE {
        return Err(Errno::EINVAL.into());
    }
    if file.ops().is_some_and(|ops| ops.ignores_seek()) {
        return Ok(0);
    }
    if !file.seekable() {
        return Err(Errno::ESPIPE.into());
    }
    let mut pos = file.pos().lock().await;
    if whence == raw::SEEK_END {
        file.refresh().await?;
    }
    *pos = match (file.kind(), whence) {
        (Kind::Regular(cache), raw::SEEK_DATA | raw::SEEK_HOLE) => {
            regular::seek_content(file.inode(), cache, offset, whence == raw::SEEK_HOLE).await?
        }
        _ => new_position(&file, *pos, offset, whence)?,
    };
    Ok(*pos)
}

pub fn lseek_now(t: &Thread, fd: i32, offset: i64, whence: u32) -> Option<SysResult<u64>> {
    t.files().with(fd, |file| {
        let slow =
            file.ops().is_some_and(|ops| ops.ignores_seek()) || matches!(whence, raw::SEEK_DATA | raw::SEEK_HOLE);
        let slow = slow || whence == raw::SEEK_END && file.path().dentry.is_shared();
        if !file.seekable() || slow {
            return None;
        }
        let mut pos = file.pos().try_lock()?;
        *pos = new_position(file, *pos, offset, whence).ok()?;
        Some(Ok(*pos))
    })
}

fn new_position(file: &OpenFile, now: u64, offset: i64, whence: u32) -> Result<u64> {
    let size = || match file.kind() {
        Kind::Ops(ops) => ops.size().ok_or(Errno::EINVAL),
        _ => file.inode().seek_end(),
    };
    let base = match whence {
        raw::SEEK_SET => 0,
        raw::SEEK_CUR => now,
        raw::SEEK_END => size()?,
        _ => return Err(Errno::EINVAL),
    };
    let new = (base as i64).checked_add(offset).ok_or(Errno::EINVAL)?;
    u64::try_from(new).map_err(|_| Errno::EINVAL)
}

pub async fn sendfile(t: &Thread, out_fd: i32, in_fd: i32, offset: UserPtr<i64>, count: u64) -> SysResult<usize> {
    let input = t.files().get_io(in_fd)?;
    let output = t.files().get_io(out_fd)?;
    let pos = match offset.non_null() {
        Some(pointer) => Some(u64::try_from(pointer.read(t.mm()).await?).map_err(|_| Errno::EINVAL)?),
        None => None,
    };
    let (n, end) = splice::sendfile(t, &output, &input, pos, count).await?;
    t.io.count_read(n);
    t.io.count_write(n);
    if let Some(pointer) = offset.non_null() {
        pointer.write(t.mm(), end as i64).await?;
    }
    Ok(n)
}

async fn read_offset(t: &Thread, offset: UserPtr<i64>) -> Result<Option<u64>> {
    match offset.non_null() {
        Some(pointer) => Ok(Some(u64::try_from(pointer.read(t.mm()).await?).map_err(|_| Errno::EINVAL)?)),
        None => Ok(None),
    }
}

/// An offset of copy_file_range: a negative one is a huge one, which overflows with the length.
async fn copy_offset(t: &Thread, offset: UserPtr<i64>, len: u64) -> Result<Option<u64>> {
    match offset.non_null() {
        Some(pointer) => match pointer.read(t.mm()).await? as u64 {
            pos if pos.checked_add(len).is_none() => Err(Errno::EOVERFLOW),
            pos if pos > i64::MAX as u64 => Err(Errno::EINVAL),
            pos => Ok(Some(pos)),
        },
        None => Ok(None),
    }
}

async fn write_offset(t: &Thread, offset: UserPtr<i64>, end: Option<u64>) -> Result<()> {
    match (offset.non_null(), end) {
        (Some(pointer), Some(end)) => pointer.write(t.mm(), end as i64).await,
        _ => Ok(()),
    }
}

const SPLICE_FLAGS: u32 = 1 | 2 | 4 | 8;

pub async fn splice(
    t: &Thread,
    in_fd: i32,
    in_offset: UserPtr<i64>,
    out_fd: i32,
    out_offset: UserPtr<i64>,
    len: u64,
    flags: u32,
) -> SysResult<usize> {
    if flags & !SPLICE_FLAGS != 0 {
        return Err(Errno::EINVAL.into());
    }
    if len == 0 {
        return Ok(0);
    }
    let input = t.files().get_io(in_fd)?;
    let output = t.files().get_io(out_fd)?;
    let mut ends = splice::Ends {
        input: &input,
        in_pos: read_offset(t, in_offset).await?,
        output: &output,
        out_pos: read_offset(t, out_offset).await?,
        nonblock: flags & 2 != 0,
    };
    let n = splice::splice(t, &mut ends, len).await?;
    let (in_pos, out_pos) = (ends.in_pos, ends.out_pos);
    write_offset(t, in_offset, in_pos).await?;
    write_offset(t, out_offset, out_pos).await?;
    Ok(n)
}

pub async fn tee(t: &Thread, in_fd: i32, out_fd: i32, len: u64, flags: u32) -> SysResult<usize> {
    if flags & !SPLICE_FLAGS != 0 {
        return Err(Errno::EINVAL.into());
    }
    if len == 0 {
        return Ok(0);
    }
    let input = t.files().get_io(in_fd)?;
    let output = t.files().get_io(out_fd)?;
    splice::tee(t, &input, &output, len, flags & 2 != 0).await
}

pub async fn vmsplice(t: &Thread, fd: i32, iov: u64, count: u64, flags: u32) -> SysResult<usize> {
    if flags & !SPLICE_FLAGS != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = t.files().get_io(fd)?;
    if fs::pipe::of_file(&file).is_none() {
        return Err(Errno::EBADF.into());
    }
    let mut buf = IoBuf::user_iovec(t.mm(), import_iovec(t.mm(), iov, count).await?);
    splice::vmsplice(t, &file, &mut buf, flags & 2 != 0).await
}

pub async fn copy_file_range(
    t: &Thread,
    in_fd: i32,
    in_offset: UserPtr<i64>,
    out_fd: i32,
    out_offset: UserPtr<i64>,
    len: u64,
    flags: u32,
) -> SysResult<usize> {
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    let input = t.files().get_io(in_fd)?;
    let output = t.files().get_io(out_fd)?;
    let mut ends = splice::Ends {
        input: &input,
        in_pos: copy_offset(t, in_offset, len).await?,
        output: &output,
        out_pos: copy_offset(t, out_offset, len).await?,
        nonblock: false,
    };
    let n = splice::copy_file_range(t, &mut ends, len).await?;
    let (in_pos, out_pos) = (ends.in_pos, ends.out_pos);
    write_offset(t, in_offset, in_pos).await?;
    write_offset(t, out_offset, out_pos).await?;
    Ok(n)
}

pub async fn readahead(t: &Thread, fd: i32, _offset: i64, _count: u64) -> Result<()> {
    let file = t.files().get_io(fd)?;
    file.check_readable()?;
    // A hint: reading ahead happens anyway.
    if matches!(file.kind(), Kind::Regular(_)) { Ok(()) } else { Err(Errno::EINVAL) }
}

pub fn fadvise64(t: &Thread, fd: i32, _offset: i64, len: i64, advice: i32) -> Result<()> {
    advise_file(&*t.files().get_io(fd)?, len, advice)
}

pub(crate) fn advise_file(file: &OpenFile, len: i64, advice: i32) -> Result<()> {
    if fs::pipe::of_file(file).is_some() {
        return Err(Errno::ESPIPE);
    }
    // POSIX_FADV_NORMAL … POSIX_FADV_NOREUSE: hints all.
    if len < 0 || !(0..=5).contains(&advice) { Err(Errno::EINVAL) } else { Ok(()) }
}

pub async fn fsync(t: &Thread, fd: i32) -> Result<()> {
    t.files().get_io(fd)?.sync(false).await
}

pub async fn fdatasync(t: &Thread, fd: i32) -> Result<()> {
    t.files().get_io(fd)?.sync(true).await
}

pub async fn sync_file_range(t: &Thread, fd: i32, offset: i64, len: i64, flags: u32) -> Result<()> {
    sync_range(&*t.files().get_io(fd)?, offset, len, flags).await
}

pub(crate) async fn sync_range(file: &OpenFile, offset: i64, len: i64, flags: u32) -> Result<()> {
    let start = u64::try_from(offset).map_err(|_| Errno::EINVAL)?;
    let len = u64::try_from(len).map_err(|_| Errno::EINVAL)?;
    if flags & !7 != 0 {
        return Err(Errno::EINVAL);
    }
    if start.checked_add(len).is_none_or(|end| end > i64::MAX as u64) {
        return Err(Errno::EINVAL);
    }
    let Kind::Regular(cache) = file.kind() else {
        let stored = matches!(file.inode().kind(), FileType::Directory | FileType::BlockDevice | FileType::Symlink);
        return if stored { Ok(()) } else { Err(Errno::ESPIPE) };
    };
    let end = if len == 0 { u64::MAX } else { start.saturating_add(len).div_ceil(mm::PAGE_SIZE as u64) };
    if flags == 0 { Ok(()) } else { cache.write_back(start / mm::PAGE_SIZE as u64..end).await }
}

pub async fn sync(_t: &Thread) -> Result<()> {
    // sync(2) never fails; what went wrong is told to fsync.
    let _ = mount::sync_all().await;
    Ok(())
}

pub async fn syncfs(t: &Thread, fd: i32) -> Result<()> {
    let file = t.files().get_io(fd)?;
    let fs = file.path().mount.fs();
    mm::page_cache::sync_device(fs.stored_on().encode()).await.and(fs.sync().await)
}

pub async fn truncate(t: &Thread, path: UserPtr<u8>, size: i64) -> Result<()> {
    let size = u64::try_from(size).map_err(|_| Errno::EINVAL)?;
    let path = super::fs_open::read_path(t, path).await?;
    fs::open::truncate(Ctx::of(t), &path, size).await
}

pub async fn ftruncate(t: &Thread, fd: i32, size: i64) -> Result<()> {
    let size = u64::try_from(size).map_err(|_| Errno::EINVAL)?;
    let file = t.files().get_io(fd)?;
    if !matches!(file.kind(), Kind::Regular(_)) || !file.writable() {
        return Err(Errno::EINVAL);
    }
    inode_flags::check_not_append_only(&**file.inode())?;
    regular::truncate(Some(t), file.path(), size).await
}

/// The combinations that fallocate(2) forbids, in Linux's order.
fn check_allocate_mode(mode: u32) -> Result<()> {
    const EXCLUSIVE: [u32; 2] = [raw::FALLOC_FL_COLLAPSE_RANGE, raw::FALLOC_FL_INSERT_RANGE];
    const PUNCH: u32 = raw::FALLOC_FL_PUNCH_HOLE;
    let zero_or_punch = PUNCH | raw::FALLOC_FL_ZERO_RANGE;
    if mode & !0x7f != 0
        || mode & zero_or_punch == zero_or_punch
        || mode & PUNCH != 0 && mode & raw::FALLOC_FL_KEEP_SIZE == 0
    {
        return Err(Errno::EOPNOTSUPP);
    }
    if EXCLUSIVE.iter().any(|flag| mode & flag != 0 && mode != *flag) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

pub async fn fallocate(t: &Thread, fd: i32, mode: u32, offset: i64, len: i64) -> Result<()> {
    allocate(t, &*t.files().get_io(fd)?, mode, offset, len).await
}

pub(crate) async fn allocate(t: &Thread, file: &OpenFile, mode: u32, offset: i64, len: i64) -> Result<()> {
    let (offset, len) = match (u64::try_from(offset), u64::try_from(len)) {
        (Ok(offset), Ok(len)) if len > 0 => (offset, len),
        _ => return Err(Errno::EINVAL),
    };
    check_allocate_mode(mode)?;
    file.check_writable()?;
    let flags = file.inode().obeyed_flags();
    let overwrites = mode & !raw::FALLOC_FL_KEEP_SIZE != 0;
    if flags.contains(InodeFlags::IMMUTABLE) || overwrites && flags.contains(InodeFlags::APPEND) {
        return Err(Errno::EPERM);
    }
    match file.kind() {
        Kind::Regular(_) => {
            regular::allocate(t, file.inode(), mode, offset, len).await?;
            hooks::used(file, raw::IN_MODIFY);
            Ok(())
        }
        Kind::Directory => Err(Errno::EISDIR),
        _ if fs::pipe::of_file(file).is_some() => Err(Errno::ESPIPE),
        _ => Err(Errno::ENODEV),
    }
}
