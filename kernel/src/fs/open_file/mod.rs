//! An open file description: what file descriptors point to.
//!
//! Content of regular files goes through the page cache (`regular`), directories through `read_dir`, all else through
//! [`FileOps`]. `transfer` turns the non-waiting attempts of `FileOps` into blocking calls.
//!
//! The position of seekable files is behind an async mutex, so that threads and processes that share it read and write
//! one after another (POSIX 2.9.7); streams have none and take no lock.

mod transfer;

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use linux_raw_sys::general as raw;

use super::anon;
use super::epoll::{self, Epoll, Watch};
use super::file::{Events, FileOps, TryError};
use super::file_source::FileSource;
use super::inode::{FileType, Inode};
use super::inotify::hooks;
use super::locks::Owner;
use super::mount;
use super::path::Path;
use super::sigio::Signals;
use super::state::Hold;
use crate::errno::{Errno, Result};
use crate::exec::Mutex;
use crate::mm::page_cache::failure::Known;
use crate::mm::{PageCache, PageSource};
use crate::process::Thread;
use crate::sync::{Once, SpinLock};

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
    /// It has operations of its own and no position.
    stream: bool,
    flags: AtomicU32,
    pos: Mutex<u64>,
    /// What it holds of the inode, and gives back at the end.
    hold: Hold,
    /// O_ASYNC, F_SETOWN, F_SETSIG: made when first needed.
    signals: Once<Box<Signals>>,
    /// Epoll instances that watch this file.
    watches: SpinLock<Vec<Weak<Watch>>>,
    /// What fsync(2) has told of pages that could not be stored.
    failures: Known,
}

impl OpenFile {
    /// Takes over `hold`, which the caller has taken; with [`Hold::Writer`] its count in the mount, too.
    pub(super) fn new(path: Path, kind: Kind, flags: u32, hold: Hold) -> Arc<OpenFile> {
        let plain = match &kind {
            Kind::Ops(ops) if ops.is_plain() && path.mount.is_internal() => Plain::Nameless,
            Kind::Ops(ops) if ops.is_plain() => Plain::Named,
            _ => Plain::No,
        };
        let stream = matches!(&kind, Kind::Ops(ops) if !ops.seekable());
        Arc::new(OpenFile {
            path,
            kind,
            plain,
            stream,
            flags: AtomicU32::new(flags),
            pos: Mutex::new(0),
            hold,
            signals: Once::new(),
            watches: SpinLock::new(Vec::new()),
            failures: Known::now(),
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
            Kind::Ops(_) => !self.stream,
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
        self.signals.call_once(|| {
            let signals = Box::new(Signals::new());
            if let Kind::Ops(ops) = &self.kind {
                ops.owned(signals.shared_owner());
            }
            signals
        })
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

    /// What poll(2) sees now.
    pub fn ready(&self) -> Events {
        match &self.kind {
            Kind::Ops(ops) => ops.ready(),
            Kind::Regular(_) | Kind::Directory => Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM,
            Kind::Path => Events::NVAL,
        }
    }

    /// Brings its attributes up to date, where others change it, too.
    pub async fn refresh(&self) -> Result<()> {
        self.path.refresh().await
    }

    /// fsync(2), fdatasync(2).
    pub async fn sync(&self, data_only: bool) -> Result<()> {
        match &self.kind {
            Kind::Regular(cache) => {
                let cache = self.inode().page_cache().unwrap_or(cache);
                let written = match cache.write_back(0..u64::MAX).await {
                    Ok(()) => self.inode().sync(data_only).await,
                    failed => failed,
                };
                written.and(self.check_failure())
            }
            Kind::Directory => self.inode().sync(data_only).await,
            Kind::Ops(ops) => ops.sync().await,
            Kind::Path => Err(Errno::EBADF),
        }
    }

    /// EIO if pages of it could not be stored, and this description was not told.
    pub fn check_failure(&self) -> Result<()> {
        match self.inode().page_cache() {
            Some(cache) => self.failures.check(cache.failure()),
            None => Ok(()),
        }
    }

    /// What mmap(2) maps; ENODEV if this cannot be mapped. Access rights are in the answer.
    pub fn page_source(self: &Arc<Self>) -> Result<Arc<dyn PageSource>> {
        match &self.kind {
            Kind::Regular(cache) => Ok(FileSource::new(self, cache)),
            Kind::Ops(ops) => ops.page_source(self).ok_or(Errno::ENODEV),
            Kind::Directory => Err(Errno::ENODEV),
            Kind::Path => Err(Errno::EBADF),
        }
    }

    /// A descriptor of the table `owner` was closed.
    pub fn closed_by(&self, owner: usize) {
        if let Kind::Ops(ops) = &self.kind {
            ops.flush();
        }
        if let Some(locks) = self.inode().state().locks_if_any().filter(|_| !self.is_path()) {
            locks.release(Owner::Process(owner));
        }
    }

    pub fn lingers(&self) -> bool {
        matches!(&self.kind, Kind::Ops(ops) if ops.lingers())
    }

    /// A descriptor meant this file until now. If that was the last one, what the file has to wait for is waited for, as far as
    /// signals let it; not so at the end of a process, as on Linux.
    pub async fn let_go(self: Arc<Self>, t: &Thread) {
        let ops = match &self.kind {
            Kind::Ops(ops) if ops.lingers() => Some(ops.clone()),
            _ => None,
        };
        drop(self);
        if let Some(ops) = ops {
            ops.linger(t).await;
        }
    }

    pub(super) fn add_watch(&self, watch: &Arc<Watch>) -> Result<()> {
        epoll::remember(&mut self.watches.lock(), watch)
    }

    /// The epolls that watch it, each as often as it does.
    pub(super) fn watchers(&self) -> Result<Vec<Arc<Epoll>>> {
        epoll::epolls_of(&self.watches.lock())
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
        match self.hold {
            Hold::Writer => self.path.mount.stop_writing(),
            Hold::Tree => mount::dissolve(&self.path.mount),
            Hold::None | Hold::Program => {}
        }
        if let Some(locks) = self.inode().state().locks_if_any() {
            locks.release(self.lock_owner());
        }
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
#[inline]
pub(super) fn plain_kind(inode: &Arc<dyn Inode>) -> Option<Kind> {
    match inode.kind() {
        FileType::Directory => Some(Kind::Directory),
        FileType::Regular => inode.page_cache().map(|cache| Kind::Regular(cache.clone())),
        _ => None,
    }
}
