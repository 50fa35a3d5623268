//! An open file description: what file descriptors point to.
//!
//! Content of regular files goes through the page cache (`regular`), directories through `read_dir`, all else through
//! [`FileOps`]. The loops here turn the non-waiting attempts of `FileOps` into blocking calls.
//!
//! The position of seekable files is behind an async mutex, so that threads and processes that share it read and write
//! one after another (POSIX 2.9.7); streams have none and take no lock.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use linux_raw_sys::general as raw;

use super::epoll::Watch;
use super::file::{Events, FileOps, TryError};
use super::file_source::FileSource;
use super::inode::{FileType, Inode};
use super::inotify::hooks;
use super::locks::Owner;
use super::path::Path;
use super::sigio::Signals;
use super::state::Hold;
use super::writing::Writing;
use super::{anon, regular};
use crate::errno::{Errno, Result};
use crate::exec::{Mutex, WaitQueue, interruptible};
use crate::mm::{IoBuf, PageCache, PageSource};
use crate::net::socket::Outgoing;
use crate::net::transfer;
use crate::process::Thread;
use crate::sync::{Once, SpinLock};
use crate::syscalls::{SysError, SysResult};

/// What F_SETFL can change, besides O_ASYNC ([`super::sigio::switch`]).
pub const SETFL_MASK: u32 = raw::O_APPEND | raw::O_NONBLOCK | raw::O_DIRECT | raw::O_NOATIME;

/// Events that end a wait for reading.
pub const READ_EVENTS: Events = Events::IN
    .union(Events::RDNORM)
    .union(Events::RDBAND)
    .union(Events::PRI)
    .union(Events::HUP)
    .union(Events::RDHUP)
    .union(Events::ERR);
/// Events that end a wait for writing.
pub const WRITE_EVENTS: Events =
    Events::OUT.union(Events::WRNORM).union(Events::WRBAND).union(Events::HUP).union(Events::ERR);

pub enum Kind {
    Regular(Arc<PageCache>),
    Directory,
    Ops(Arc<dyn FileOps>),
    /// O_PATH: stands for the place only.
    Path,
}

/// See [`FileOps::is_plain`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plain {
    No,
    /// Nobody can watch it.
    Nameless,
    Named,
}

pub struct OpenFile {
    path: Path,
    kind: Kind,
    plain: Plain,
    flags: AtomicU32,
    pos: Mutex<u64>,
    /// What it holds of the inode, and gives back at the end.
    hold: Hold,
    /// O_ASYNC, F_SETOWN, F_SETSIG: made when first needed.
    signals: Once<Box<Signals>>,
    /// Epoll instances that watch this file.
    watches: SpinLock<Vec<Weak<Watch>>>,
}

impl OpenFile {
    /// Takes over `hold`, which the caller has taken.
    pub(super) fn new(path: Path, kind: Kind, flags: u32, hold: Hold) -> Arc<OpenFile> {
        let plain = match &kind {
            Kind::Ops(ops) if ops.is_plain() && path.mount.is_internal() => Plain::Nameless,
            Kind::Ops(ops) if ops.is_plain() => Plain::Named,
            _ => Plain::No,
        };
        if matches!(hold, Hold::Writer) {
            path.mount.count_writer(true);
        }
        Arc::new(OpenFile {
            path,
            kind,
            plain,
            flags: AtomicU32::new(flags),
            pos: Mutex::new(0),
            hold,
            signals: Once::new(),
            watches: SpinLock::new(Vec::new()),
        })
    }

    /// A file without a name in the tree: "anon_inode:" and `name`, which is usually in brackets. `flags` are O_*.
    pub fn new_anon(name: &str, ops: Arc<dyn FileOps>, flags: u32) -> Arc<OpenFile> {
        anon::file(anon::Label::Inode(name), ops, flags)
    }

    /// A socket: "socket:\[INO\]".
    pub fn new_socket(ops: Arc<dyn FileOps>, flags: u32) -> Arc<OpenFile> {
        anon::file(anon::Label::Socket, ops, flags)
    }

    /// A file that has a place and operations of its own.
    pub fn with_ops(path: Path, ops: Arc<dyn FileOps>, flags: u32) -> Arc<OpenFile> {
        OpenFile::new(path, Kind::Ops(ops), flags, Hold::None)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn inode(&self) -> &Arc<dyn Inode> {
        self.path.inode()
    }

    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The operations of a file that is neither regular nor a directory.
    pub fn ops(&self) -> Option<&Arc<dyn FileOps>> {
        match &self.kind {
            Kind::Ops(ops) => Some(ops),
            _ => None,
        }
    }

    /// The operations, if they are of type `T`.
    pub fn ops_as<T: FileOps>(&self) -> Option<&T> {
        self.ops().and_then(|ops| ops.as_any().downcast_ref())
    }

    pub fn is_path(&self) -> bool {
        matches!(self.kind, Kind::Path)
    }

    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Directory)
    }

    /// O_ACCMODE and status flags, as F_GETFL answers them.
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }

    pub fn set_status_flags(&self, flags: u32) {
        let keep = self.flags() & !SETFL_MASK;
        self.flags.store(keep | flags & SETFL_MASK, Ordering::Relaxed);
    }

    pub fn set_nonblock(&self, on: bool) {
        if on {
            self.flags.fetch_or(raw::O_NONBLOCK, Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!raw::O_NONBLOCK, Ordering::Relaxed);
        }
    }

    pub fn is_nonblock(&self) -> bool {
        self.flags() & raw::O_NONBLOCK != 0
    }

    pub fn readable(&self) -> bool {
        !self.is_path() && matches!(self.flags() & raw::O_ACCMODE, raw::O_RDONLY | raw::O_RDWR)
    }

    pub fn writable(&self) -> bool {
        !self.is_path() && matches!(self.flags() & raw::O_ACCMODE, raw::O_WRONLY | raw::O_RDWR)
    }

    /// EBADF unless the file may be read.
    pub fn check_readable(&self) -> Result<()> {
        if self.readable() { Ok(()) } else { Err(Errno::EBADF) }
    }

    pub fn check_writable(&self) -> Result<()> {
        if self.writable() { Ok(()) } else { Err(Errno::EBADF) }
    }

    /// Has a position.
    pub fn seekable(&self) -> bool {
        match &self.kind {
            Kind::Regular(_) | Kind::Directory => true,
            Kind::Ops(ops) => ops.seekable(),
            Kind::Path => false,
        }
    }

    /// The position, for as long as the guard is held.
    pub fn pos(&self) -> &Mutex<u64> {
        &self.pos
    }

    /// The position at a moment when nobody moves it; for /proc/PID/fdinfo.
    pub fn position(&self) -> u64 {
        self.pos.try_lock().map_or(0, |pos| *pos)
    }

    pub(super) fn set_async(&self, on: bool) {
        if on {
            self.flags.fetch_or(raw::FASYNC, Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!raw::FASYNC, Ordering::Relaxed);
        }
    }

    /// Signals about this file, and whom they are for.
    pub fn signals(&self) -> &Signals {
        self.signals.call_once(|| Box::new(Signals::new()))
    }

    /// The same, if anybody has asked for it.
    pub fn signals_if_any(&self) -> Option<&Signals> {
        self.signals.get().map(|signals| &**signals)
    }

    /// Identifies the description as the owner of locks.
    pub fn lock_owner(&self) -> Owner {
        Owner::File(core::ptr::from_ref(self).addr())
    }

    /// See [`FileOps::is_plain`].
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.plain != Plain::No
    }

    /// Reads and writes that need not wait can be made without a future, and nobody is to be told of them.
    #[inline]
    fn answers_at_once(&self, ops: &dyn FileOps) -> bool {
        match self.plain {
            Plain::Nameless => true,
            Plain::Named => hooks::quiet(),
            Plain::No => ops.answers_at_once(),
        }
    }

    /// So many bytes have been read.
    #[inline]
    fn accessed(&self, n: usize) {
        if n > 0 {
            hooks::used(self, raw::IN_ACCESS);
        }
    }

    #[inline]
    fn modified(&self, n: usize) {
        if n > 0 {
            hooks::used(self, raw::IN_MODIFY);
        }
    }

    /// A read that need not wait, into memory of one page. None: nothing was done.
    pub fn read_now(&self, buf: &mut IoBuf<'_>) -> Option<usize> {
        self.at_once(self.readable(), |ops, pos| ops.try_read(self, buf, pos).ok())
    }

    /// The same for a write.
    pub fn write_now(&self, buf: &mut IoBuf<'_>) -> Option<usize> {
        self.at_once(self.writable(), |ops, pos| ops.try_write(self, buf, pos).ok())
    }

    #[inline]
    fn at_once(&self, allowed: bool, attempt: impl FnOnce(&dyn FileOps, u64) -> Option<usize>) -> Option<usize> {
        let Kind::Ops(ops) = &self.kind else { return None };
        if !allowed || !self.answers_at_once(&**ops) {
            return None;
        }
        if !ops.seekable() {
            return attempt(&**ops, 0);
        }
        let mut pos = self.pos.try_lock()?;
        let n = attempt(&**ops, *pos)?;
        *pos += n as u64;
        Some(n)
    }

    /// What a blocking read of a plain stream waits for.
    pub fn blocking_stream(&self) -> Option<(&dyn FileOps, &WaitQueue)> {
        match &self.kind {
            Kind::Ops(ops) if self.readable() && !self.is_nonblock() && !ops.seekable() => {
                self.answers_at_once(&**ops).then_some((&**ops, ops.wait_queue()?))
            }
            _ => None,
        }
    }

    /// read(2), readv(2).
    pub async fn read(&self, t: &Thread, buf: &mut IoBuf<'_>) -> SysResult<usize> {
        self.check_readable()?;
        match &self.kind {
            Kind::Regular(cache) => {
                let mut pos = self.pos.lock().await;
                check_range(*pos, buf)?;
                let n = regular::read(self, cache, *pos, buf).await?;
                *pos += n as u64;
                self.accessed(n);
                Ok(n)
            }
            Kind::Ops(ops) if !ops.seekable() => self.read_ops(t, &**ops, buf, 0).await.inspect(|n| self.accessed(*n)),
            Kind::Ops(ops) => {
                let mut pos = self.pos.lock().await;
                let n = self.read_ops(t, &**ops, buf, *pos).await?;
                *pos += n as u64;
                self.accessed(n);
                Ok(n)
            }
            Kind::Directory => Err(Errno::EISDIR.into()),
            Kind::Path => Err(Errno::EBADF.into()),
        }
    }

    /// pread64(2), preadv(2): does not touch the position.
    pub async fn read_at(&self, t: &Thread, buf: &mut IoBuf<'_>, pos: u64) -> SysResult<usize> {
        if !self.seekable() {
            return Err(if self.is_path() { Errno::EBADF } else { Errno::ESPIPE }.into());
        }
        self.check_readable()?;
        check_range(pos, buf)?;
        let n = match &self.kind {
            Kind::Regular(cache) => regular::read(self, cache, pos, buf).await?,
            Kind::Ops(ops) => self.read_ops(t, &**ops, buf, pos).await?,
            _ => return Err(Errno::EISDIR.into()),
        };
        self.accessed(n);
        Ok(n)
    }

    /// write(2), writev(2).
    pub async fn write(&self, t: &Thread, buf: &mut IoBuf<'_>) -> SysResult<usize> {
        self.check_writable()?;
        match &self.kind {
            Kind::Regular(cache) => {
                let mut pos = self.pos.lock().await;
                check_range(*pos, buf)?;
                let append = self.flags() & raw::O_APPEND != 0;
                let (n, end) = regular::write(self, t, cache, (!append).then_some(*pos), buf).await?;
                *pos = end;
                self.modified(n);
                Ok(n)
            }
            Kind::Ops(ops) if !ops.seekable() => self.write_ops(t, &**ops, buf, 0).await.inspect(|n| self.modified(*n)),
            Kind::Ops(ops) => {
                let mut pos = self.pos.lock().await;
                let n = self.write_ops(t, &**ops, buf, *pos).await?;
                *pos += n as u64;
                self.modified(n);
                Ok(n)
            }
            _ => Err(Errno::EBADF.into()),
        }
    }

    /// pwritev2(2) with RWF_APPEND, to a regular file.
    pub async fn append(&self, t: &Thread, buf: &mut IoBuf<'_>, keep_position: bool) -> SysResult<usize> {
        self.check_writable()?;
        let Kind::Regular(cache) = &self.kind else { return Err(Errno::EINVAL.into()) };
        let mut pos = self.pos.lock().await;
        let (n, end) = regular::write(self, t, cache, None, buf).await?;
        if !keep_position {
            *pos = end;
        }
        self.modified(n);
        Ok(n)
    }

    /// pwrite64(2), pwritev(2). With O_APPEND Linux appends whatever the offset (pwrite(2), BUGS).
    pub async fn write_at(&self, t: &Thread, buf: &mut IoBuf<'_>, pos: u64) -> SysResult<usize> {
        if !self.seekable() {
            return Err(if self.is_path() { Errno::EBADF } else { Errno::ESPIPE }.into());
        }
        self.check_writable()?;
        check_range(pos, buf)?;
        let n = match &self.kind {
            Kind::Regular(cache) => {
                let append = self.flags() & raw::O_APPEND != 0;
                regular::write(self, t, cache, (!append).then_some(pos), buf).await?.0
            }
            Kind::Ops(ops) => self.write_ops(t, &**ops, buf, pos).await?,
            _ => return Err(Errno::EBADF.into()),
        };
        self.modified(n);
        Ok(n)
    }

    async fn read_ops(&self, t: &Thread, ops: &dyn FileOps, buf: &mut IoBuf<'_>, pos: u64) -> SysResult<usize> {
        interruptible(t, ops.admit(self, t, false)).await??;
        if ops.has_limits() && !buf.is_empty() {
            let socket = crate::net::socket::of_file(self)?;
            return Ok(Box::pin(transfer::receive(t, self, socket, buf, 0)).await?.len);
        }
        let wanted = buf.remaining();
        let read = match ops.read(self, buf, pos) {
            Some(op) => Some(interruptible(t, op).await),
            None => None,
        };
        match (read, wanted - buf.remaining()) {
            // What is in the buffer has been taken from the file and would be lost.
            (Some(Err(_)), done @ 1..) => return Ok(done),
            (Some(read), _) => return Ok(read??),
            (None, _) => {}
        }
        loop {
            let attempt = match ops.wait_queue() {
                Some(queue) if !self.is_nonblock() => {
                    let attempt = || settled(ops.try_read(self, buf, pos));
                    interruptible(t, queue.wait_for_mask(READ_EVENTS.bits(), attempt)).await?
                }
                _ => ops.try_read(self, buf, pos),
            };
            match attempt {
                Ok(n) => return Ok(n + self.read_on(ops, buf, pos + n as u64).await),
                Err(TryError::WouldBlock) => return Err(Errno::EAGAIN.into()),
                Err(TryError::Fault(fault)) => buf.fault_in(&fault).await?,
                Err(TryError::Failed(errno)) => return Err(errno.into()),
            }
        }
    }

    /// Goes on with a read that only a page fault cut short; what was read counts, whatever happens now.
    pub async fn read_on(&self, ops: &dyn FileOps, buf: &mut IoBuf<'_>, pos: u64) -> usize {
        let mut more = 0;
        while let Some(fault) = buf.take_fault() {
            if buf.fault_in(&fault).await.is_err() {
                break;
            }
            match ops.try_read(self, buf, pos + more as u64) {
                Ok(n) => more += n,
                Err(_) => break,
            }
        }
        more
    }

    /// Blocking writes go on until everything is written; what was written before an error counts.
    async fn write_ops(&self, t: &Thread, ops: &dyn FileOps, buf: &mut IoBuf<'_>, pos: u64) -> SysResult<usize> {
        interruptible(t, ops.admit(self, t, true)).await??;
        if ops.has_limits() {
            let socket = crate::net::socket::of_file(self)?;
            let mut message = Outgoing::plain();
            return Box::pin(transfer::send(t, self, socket, buf, &mut message, 0)).await;
        }
        if let Some(op) = ops.write(self, buf, pos) {
            return Ok(interruptible(t, op).await??);
        }
        let mut writing = Writing::new(true, ops.sigpipe());
        loop {
            let at = pos + writing.done() as u64;
            let attempt = match ops.wait_queue() {
                Some(queue) if !self.is_nonblock() => {
                    let attempt = || settled(ops.try_write(self, buf, at));
                    let wait = queue.wait_for_mask(WRITE_EVENTS.bits(), attempt);
                    interruptible(t, wait).await.map_err(SysError::from)
                }
                _ => Ok(ops.try_write(self, buf, at)),
            };
            if let Some(answer) = writing.after(t, buf, attempt).await {
                return answer;
            }
        }
    }

    /// What poll(2) sees now.
    pub fn ready(&self) -> Events {
        match &self.kind {
            Kind::Ops(ops) => ops.ready(),
            Kind::Regular(_) | Kind::Directory => Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM,
            Kind::Path => Events::NVAL,
        }
    }

    /// fsync(2), fdatasync(2).
    pub async fn sync(&self, data_only: bool) -> Result<()> {
        match &self.kind {
            Kind::Regular(cache) => {
                cache.write_back(0..u64::MAX).await?;
                self.inode().sync(data_only).await
            }
            Kind::Directory => self.inode().sync(data_only).await,
            Kind::Ops(ops) => ops.sync().await,
            Kind::Path => Err(Errno::EBADF),
        }
    }

    /// What mmap(2) maps; ENODEV if this cannot be mapped. Access rights are in the answer.
    pub fn page_source(self: &Arc<Self>) -> Result<Arc<dyn PageSource>> {
        match &self.kind {
            Kind::Regular(cache) => Ok(Arc::new(FileSource { file: self.clone(), cache: cache.clone() })),
            Kind::Ops(ops) => ops.page_source().ok_or(Errno::ENODEV),
            Kind::Directory => Err(Errno::ENODEV),
            Kind::Path => Err(Errno::EBADF),
        }
    }

    /// A descriptor of the table `owner` was closed.
    pub(super) fn closed_by(&self, owner: usize) {
        if let Kind::Ops(ops) = &self.kind {
            ops.flush();
        }
        if let Some(locks) = self.inode().state().locks_if_any().filter(|_| !self.is_path()) {
            locks.release(Owner::Process(owner));
        }
    }

    pub(super) fn add_watch(&self, watch: Weak<Watch>) {
        let mut watches = self.watches.lock();
        watches.retain(|watch| watch.strong_count() > 0);
        watches.push(watch);
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if !hooks::quiet() && !self.is_path() {
            hooks::used(self, if self.writable() { raw::IN_CLOSE_WRITE } else { raw::IN_CLOSE_NOWRITE });
        }
        if let Kind::Ops(ops) = &self.kind {
            if let Some(signals) = self.signals.get_mut() {
                signals.leave(ops.wait_queue());
            }
            ops.released();
        }
        for watch in core::mem::take(self.watches.get_mut()) {
            if let Some(watch) = watch.upgrade() {
                watch.file_closed(self);
            }
        }
        self.inode().state().release(self.hold);
        if matches!(self.hold, Hold::Writer) {
            self.path.mount.count_writer(false);
        }
        if let Some(locks) = self.inode().state().locks_if_any() {
            locks.release(self.lock_owner());
        }
    }
}

/// No transfer goes beyond the largest offset (rw_verify_area of Linux): EINVAL.
fn check_range(pos: u64, buf: &IoBuf<'_>) -> Result<()> {
    match pos.checked_add(buf.remaining() as u64) {
        Some(end) if end <= i64::MAX as u64 => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

/// What a wait is over with: anything but `WouldBlock`.
pub fn settled<T>(attempt: Result<T, TryError>) -> Option<Result<T, TryError>> {
    match attempt {
        Err(TryError::WouldBlock) => None,
        other => Some(other),
    }
}

/// The kind of file that `OpenFile` handles without `FileOps`.
pub(super) fn plain_kind(inode: &Arc<dyn Inode>) -> Option<Kind> {
    match inode.kind() {
        FileType::Directory => Some(Kind::Directory),
        FileType::Regular => inode.page_cache().map(|cache| Kind::Regular(cache.clone())),
        _ => None,
    }
}
