//! Content of regular files: read, write, truncate through the page cache.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::ops::Range;

use linux_raw_sys::general as raw;

use super::attr::without_set_id;
use super::capabilities;
use super::inode::{Inode, Metadata, SetAttr, SizeAndTimes};
use super::inode_flags::{self, InodeFlags};
use super::inotify::hooks;
use super::mount::MountFlags;
use super::open_file::OpenFile;
use super::path::Path;
use super::shared_file;
use super::state::{Locked, Seals};
use crate::errno::{Errno, Result};
use crate::exec::{self, RunToEnd};
use crate::mm::{IoBuf, PAGE_SIZE, PageCache};
use crate::process::run::killable;
use crate::process::{Caps, Resource, Thread};
use crate::signal::fatal_pending;
use crate::time::Timespec;

/// Copies from `pos` on, up to the end of the file.
pub async fn read(file: &OpenFile, cache: &Arc<PageCache>, pos: u64, buf: &mut IoBuf<'_>) -> Result<usize> {
    check_place(file, pos, buf)?;
    let inode = file.inode();
    let cache = if file.path().dentry.is_layered() { inode.page_cache().unwrap_or(cache) } else { cache };
    if cache.is_of_shared_file() {
        return inode.read_through(pos, buf).await;
    }
    let seen = inode.size_and_times();
    if buf.is_empty() {
        return Ok(0);
    }
    let n = if pos < seen.size { cache.read(pos, seen.size, buf).await? } else { 0 };
    if file.flags() & raw::O_NOATIME == 0 {
        touch_atime(file.path(), &seen).await;
    }
    Ok(n)
}

/// More than this takes so long that others get their turn between.
const AT_ONCE: usize = 16 * PAGE_SIZE;

/// The same for little that is in the cache, if the access time stays as it is. None: nothing was done.
#[inline]
pub fn read_now(file: &OpenFile, cache: &PageCache, pos: u64, buf: &mut IoBuf<'_>) -> Option<usize> {
    let flags = file.flags();
    let special = flags & raw::O_DIRECT != 0 || file.path().dentry.is_layered() || cache.is_of_shared_file();
    if special || buf.remaining() > AT_ONCE || pos > i64::MAX as u64 - AT_ONCE as u64 {
        return None;
    }
    let seen = file.inode().size_and_times();
    if flags & raw::O_NOATIME == 0 && due_atime(file.path(), &seen).is_some() {
        return None;
    }
    if pos < seen.size { cache.read_now(pos, seen.size, buf) } else { Some(0) }
}

/// The last byte must have an offset, and O_DIRECT wants all aligned.
pub(super) fn check_place(file: &OpenFile, pos: u64, buf: &IoBuf<'_>) -> Result<()> {
    if pos.checked_add(buf.remaining() as u64).is_none_or(|end| end > i64::MAX as u64) {
        return Err(Errno::EINVAL);
    }
    if file.flags() & raw::O_DIRECT != 0
        && let Some(unit) = file.inode().direct_alignment()
        && (!pos.is_multiple_of(unit) || !buf.is_aligned(unit))
    {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// SEEK_DATA and SEEK_HOLE of lseek(2).
pub async fn seek_content(inode: &Arc<dyn Inode>, cache: &PageCache, offset: i64, hole: bool) -> Result<u64> {
    let size = inode.size();
    let cache = inode.page_cache().map_or(cache, |cache| &**cache);
    let start = u64::try_from(offset).ok().filter(|offset| *offset < size).ok_or(Errno::ENXIO)?;
    if !cache.is_memory() {
        // What is only in memory may have no place on the device yet.
        cache.write_back(0..u64::MAX).await?;
    }
    let mut at = start;
    while at < size {
        match inode.next_data(at).await? {
            None if hole => return Ok(at),
            None => return Err(Errno::ENXIO),
            Some(data) if hole && data.start > at => return Ok(at),
            Some(data) if !hole => return Ok(data.start.max(start)),
            Some(data) => at = data.end,
        }
        crate::exec::budget().await;
    }
    Ok(size)
}

/// A file has been mapped, which counts as an access.
pub async fn accessed(file: &OpenFile) {
    if file.flags() & raw::O_NOATIME == 0 {
        touch_atime(file.path(), &file.inode().size_and_times()).await;
    }
}

/// Updates the access time as the mount wants it (mount(2): MS_RELATIME is the default).
pub async fn touch_atime(path: &Path, seen: &SizeAndTimes) {
    if let Some(now) = due_atime(path, seen)
        && let Ok(_writing) = path.mount.writing().await
    {
        // A failure to note the time does not fail the read.
        let _ = path.inode().set_attr(SetAttr { atime: Some(now), ..SetAttr::default() }).await;
    }
}

/// The access time that a read gives a file; None: it stays as it is.
pub fn due_atime(path: &Path, seen: &SizeAndTimes) -> Option<Timespec> {
    let flags = path.mount.flags();
    if flags.intersects(MountFlags::NOATIME | MountFlags::RDONLY) {
        return None;
    }
    // Cheap first test: with an access time later than both others only a day's age matters.
    let now = super::now();
    let old = !flags.contains(MountFlags::STRICTATIME)
        && seen.atime > seen.mtime
        && seen.atime > seen.ctime
        && now.sec - seen.atime.sec < 24 * 60 * 60;
    let keeps = || path.inode().obeyed_flags().contains(InodeFlags::NOATIME);
    if old || same_tick(seen.atime, now) || keeps() { None } else { Some(now) }
}

fn same_tick(a: Timespec, b: Timespec) -> bool {
    a.sec == b.sec && a.nsec == b.nsec
}

/// Writes at `pos`, or at the end of the file for None (O_APPEND). Answers the count and the position after it.
pub async fn write(
    file: &OpenFile,
    t: &Thread,
    cache: &Arc<PageCache>,
    pos: Option<u64>,
    buf: &mut IoBuf<'_>,
) -> Result<(usize, u64)> {
    if cache.is_of_shared_file() {
        return Box::pin(shared_file::write(file, t, pos, buf)).await;
    }
    let inode = file.inode();
    let guard = inode.state().lock.lock().await;
    let flags = inode.obeyed_flags();
    if flags.contains(InodeFlags::IMMUTABLE) && !cache.is_memory() {
        return Err(Errno::EPERM);
    }
    let pos = pos.unwrap_or_else(|| inode.size());
    check_place(file, pos, buf)?;
    if buf.is_empty() {
        return Ok((0, pos));
    }
    let unsealed = unsealed_at(inode, pos, buf.remaining())?;
    let room = room_at(t, pos)?.min(unsealed);
    buf.limit(usize::try_from(room).unwrap_or(usize::MAX));
    capabilities::remove(inode).await?;
    let mut end = pos;
    let clears_set_id = !hooks::quiet() && clears_set_id(inode, t);
    let result = loop {
        let step = write_step(inode, cache, end, buf, t.creds().capable(Caps::FSETID)).await;
        match step {
            Ok(n) => end += n as u64,
            Err(errno) => break Err(errno),
        }
        // Who is killed waits for no more than this.
        if buf.is_empty() || matches!(step, Ok(0)) || fatal_pending(t.task()) {
            break Ok(());
        }
        crate::exec::budget().await;
    };
    drop(guard);
    let n = (end - pos) as usize;
    if n == 0 {
        result?;
    }
    if n > 0 && clears_set_id {
        hooks::changed(file.path(), raw::IN_ATTRIB);
    }
    let syncs = flags.contains(InodeFlags::SYNC);
    if (syncs || file.flags() & (raw::O_SYNC | raw::O_DSYNC) != 0) && n > 0 {
        cache.write_back(pos / 4096..(end - 1) / 4096 + 1).await?;
        inode.sync(!syncs && file.flags() & raw::O_SYNC != raw::O_SYNC).await?;
    }
    Ok((n, end))
}

/// How much of `len` bytes at `pos` seals let somebody write; EPERM for nothing. The file is locked.
fn unsealed_at(inode: &Arc<dyn Inode>, pos: u64, len: usize) -> Result<u64> {
    let seals = inode.state();
    if seals.is_sealed(Seals::WRITE | Seals::FUTURE_WRITE) {
        return Err(Errno::EPERM);
    }
    if !seals.is_sealed(Seals::GROW) {
        return Ok(u64::MAX);
    }
    // A piece that ends behind the end of the file is refused; pieces end with pages, as in Linux.
    let size = inode.size();
    let fits = pos.checked_add(len as u64).is_some_and(|end| end <= size);
    let last = if fits { size } else { size - size % crate::mm::PAGE_SIZE as u64 };
    last.checked_sub(pos).filter(|room| *room > 0).ok_or(Errno::EPERM)
}

/// Writes for the kernel itself, without limits but for seals. Answers how many bytes, at least one unless `buf` is empty.
pub async fn write_kernel(
    inode: &Arc<dyn Inode>,
    cache: &Arc<PageCache>,
    pos: u64,
    buf: &mut IoBuf<'_>,
) -> Result<usize> {
    let _guard = inode.state().lock.lock().await;
    inode_flags::check_content(&**inode)?;
    let unsealed = unsealed_at(inode, pos, buf.remaining())?;
    capabilities::remove(inode).await?;
    let cut = buf.limit(usize::try_from(unsealed).unwrap_or(usize::MAX));
    let result = write_step(inode, cache, pos, buf, true).await;
    buf.extend(cut);
    result
}

/// A change of its content by this thread clears set-id bits.
pub(super) fn clears_set_id(inode: &Arc<dyn Inode>, t: &Thread) -> bool {
    without_set_id(&inode.metadata()).is_some() && !t.creds().capable(Caps::FSETID)
}

/// Bytes that are written between two looks at the clock.
const STEP: usize = 1 << 20;

/// Writes one piece and makes it part of the file. The file is locked.
pub(super) async fn write_step(
    inode: &Arc<dyn Inode>,
    cache: &Arc<PageCache>,
    pos: u64,
    buf: &mut IoBuf<'_>,
    keep_set_id: bool,
) -> Result<usize> {
    let size = inode.size();
    let perm = if keep_set_id { None } else { without_set_id(&inode.metadata()) };
    let mut cut = buf.limit(STEP);
    let mut unfinished = Unfinished { inode, cache, bytes: pos..pos };
    let (n, wanted) = loop {
        let wanted = buf.remaining();
        match inode.prepare_write(pos, wanted as u64).await {
            Ok(()) => {
                unfinished.bytes.end = pos + wanted as u64;
                break (cache.write(pos, size, buf).await, wanted);
            }
            // What still fits is written: a short count, as on Linux.
            Err(Errno::ENOSPC) if buf.remaining() > 4096 => cut += buf.limit(buf.remaining() / 2),
            Err(errno) => break (Err(errno), 0),
        }
    };
    buf.extend(cut);
    if n.is_err() {
        unfinished.bytes = pos..pos;
    }
    let rest = pos + n.unwrap_or(0) as u64..pos + wanted as u64;
    if n.is_err() {
        inode.give_up_write(rest.clone());
    }
    let n = n?;
    let end = pos + n as u64;
    let now = super::now();
    let size = (end > size).then_some(end);
    inode.set_attr(SetAttr { size, perm, mtime: Some(now), ctime: Some(now), ..SetAttr::default() }).await?;
    if !rest.is_empty() {
        inode.give_up_write(rest);
    }
    unfinished.bytes = pos..pos;
    Ok(n)
}

/// A write that was prepared, until the file has what was written. Who gives it up before leaves nothing behind the end of the
/// file.
struct Unfinished<'a> {
    inode: &'a Arc<dyn Inode>,
    cache: &'a Arc<PageCache>,
    bytes: Range<u64>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let end = self.bytes.end;
        // Up to the end of the file, what has been copied stays.
        let behind = self.inode.size().max(self.bytes.start)..end;
        if self.bytes.is_empty() || behind.is_empty() {
            return;
        }
        self.inode.give_up_write(behind);
        exec::spawn("unwrite", cut_off(self.inode.clone(), self.cache.clone(), end));
    }
}

/// Drops what is in the cache behind the end of the file, up to `end`.
async fn cut_off(inode: Arc<dyn Inode>, cache: Arc<PageCache>, end: u64) {
    let _guard = inode.state().lock.lock().await;
    let size = inode.size();
    if size < end {
        cache.truncate(size).await;
        inode.give_up_write(size..end);
    }
}

/// How much may be written at `pos`: RLIMIT_FSIZE (SIGXFSZ and EFBIG beyond) and the largest offset.
pub(super) fn room_at(t: &Thread, pos: u64) -> Result<u64> {
    let limit = t.rlimit(Resource::Fsize).soft;
    if pos >= limit {
        super::raise(t, raw::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    match (i64::MAX as u64).checked_sub(pos) {
        None | Some(0) => Err(Errno::EFBIG),
        Some(room) => Ok(room.min(limit - pos)),
    }
}

/// Sets the size: ftruncate, truncate, O_TRUNC. Permissions were checked.
pub async fn truncate(t: Option<&Thread>, place: &Path, size: u64) -> Result<()> {
    let clears_set_id = !hooks::quiet() && t.is_some_and(|t| clears_set_id(place.inode(), t));
    set_size(t, place.inode(), size).await?;
    hooks::changed(place, raw::IN_MODIFY | if clears_set_id { raw::IN_ATTRIB } else { 0 });
    Ok(())
}

async fn set_size(t: Option<&Thread>, inode: &Arc<dyn Inode>, size: u64) -> Result<()> {
    let _guard = inode.state().lock.lock().await;
    inode_flags::check_content(&**inode)?;
    let meta = inode.metadata();
    let seal = if size < meta.size { Seals::SHRINK } else { Seals::GROW };
    if size != meta.size && inode.state().is_sealed(seal) {
        return Err(Errno::EPERM);
    }
    if let Some(t) = t
        && size > meta.size
        && size > t.rlimit(Resource::Fsize).soft
    {
        super::raise(t, raw::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    truncate_locked(inode, &meta, size, t.is_some_and(|t| t.creds().capable(Caps::FSETID))).await
}

async fn truncate_locked(inode: &Arc<dyn Inode>, meta: &Metadata, size: u64, keep_set_id: bool) -> Result<()> {
    capabilities::remove(inode).await?;
    let now = super::now();
    let perm = if keep_set_id { None } else { without_set_id(meta) };
    inode
        .set_attr(SetAttr { size: Some(size), perm, mtime: Some(now), ctime: Some(now), ..SetAttr::default() })
        .await?;
    if let Some(cache) = inode.page_cache().filter(|_| size < meta.size) {
        cache.truncate(size).await;
    }
    Ok(())
}

/// fallocate(2). Holes are punched by the file system; the cached pages of the range are stored and dropped first.
pub async fn allocate(t: &Thread, inode: &Arc<dyn Inode>, mode: u32, offset: u64, len: u64) -> Result<()> {
    let end = offset.checked_add(len).filter(|end| *end <= i64::MAX as u64).ok_or(Errno::EFBIG)?;
    let locked = Locked::new(inode).await;
    let punches = mode & raw::FALLOC_FL_PUNCH_HOLE != 0;
    if punches && inode.state().is_sealed(Seals::WRITE | Seals::FUTURE_WRITE) {
        return Err(Errno::EPERM);
    }
    let size = inode.size();
    // Whether the size is kept or not (tmpfs of Linux).
    if !punches && end > size {
        room_at(t, end - 1)?;
        if inode.state().is_sealed(Seals::GROW) {
            return Err(Errno::EPERM);
        }
    }
    drop_rights(inode, t.creds().capable(Caps::FSETID)).await?;
    if punches {
        return killable(t, punch_locked(locked, mode, offset, len)).await?;
    }
    killable(t, inode.allocate(mode, offset, len)).await?
}

/// A hole by way of a mapping (MADV_REMOVE).
pub async fn punch(inode: &Arc<dyn Inode>, offset: u64, len: u64) -> Result<()> {
    let locked = Locked::new(inode).await;
    inode_flags::check_bound(&**inode)?;
    if inode.state().is_sealed(Seals::WRITE | Seals::FUTURE_WRITE) {
        return Err(Errno::EPERM);
    }
    drop_rights(inode, false).await?;
    punch_locked(locked, raw::FALLOC_FL_PUNCH_HOLE | raw::FALLOC_FL_KEEP_SIZE, offset, len).await
}

/// Once begun a hole is made to its end, even if the caller is killed, and the file stays locked until then: it must not lose
/// what somebody writes later, nor change after it was sealed.
fn punch_locked(locked: Locked, mode: u32, offset: u64, len: u64) -> RunToEnd<Result<()>> {
    let punch = async move { locked.inode().allocate(mode, offset, len).await };
    exec::run_to_end(|future| exec::spawn("punch", future), punch)
}

/// Takes away what the file gives those who run it, because its content changes in another way than by a write; as in
/// Linux not from those of tmpfs. The file is locked.
async fn drop_rights(inode: &Arc<dyn Inode>, keep_set_id: bool) -> Result<()> {
    if inode.page_cache().is_some_and(|cache| cache.is_memory()) {
        return Ok(());
    }
    capabilities::remove(inode).await?;
    match without_set_id(&inode.metadata()).filter(|_| !keep_set_id) {
        Some(perm) => inode.set_attr(SetAttr { perm: Some(perm), ..SetAttr::default() }).await,
        None => Ok(()),
    }
}
