//! What the VFS keeps with every inode of every file system.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};

use super::inode::Inode;
use super::inode_flags::InodeFlags;
use super::inotify;
use super::locks::FileLocks;
use super::pipe::Pipe;
use crate::errno::{Errno, Result};
use crate::exec::Mutex;
use crate::mm::PageCache;
use crate::net::unix::UnixSocket;
use crate::sync::{Once, SpinLock};

/// Embedded in every inode.
#[derive(Default)]
pub struct InodeState {
    /// Directories: held over every change of names and over lookups that miss the name cache.
    /// Regular files: held over writes, truncation and size changes.
    ///
    /// Order: for two directories the ancestor first (`change::lock_pair`), a directory before a file in it.
    pub lock: Mutex<()>,
    /// Open descriptions that may write; negative: programs that run from this file. Never both (ETXTBSY).
    writers: AtomicI32,
    rare: Once<Box<Rare>>,
    /// F_SEAL_*, and [`SEALABLE`] for files that have seals at all.
    seals: AtomicU32,
    /// [`InodeFlags`] that the file system keeps for it.
    flags: AtomicU32,
    /// What those who watch this inode want to be told of ([`super::inotify`]).
    wanted: AtomicU32,
    /// Has never had a name, and may be given one (O_TMPFILE without O_EXCL).
    linkable: AtomicBool,
    /// Known to have no capabilities ([`super::capabilities`]).
    no_capabilities: AtomicBool,
    /// Others change it, too (see [`InodeState::shared`]).
    shared: bool,
}

/// The file can be sealed (memfd_create).
const SEALABLE: u32 = 1 << 31;

bitflags::bitflags! {
    /// File seals, fcntl(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Seals: u32 {
        const SEAL = 1;
        const SHRINK = 2;
        const GROW = 4;
        const WRITE = 8;
        const FUTURE_WRITE = 16;
        const EXEC = 32;
    }
}

/// What an open file description has taken of its inode's `writers`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    None,
    /// Opened for writing: no program may be started from the file.
    Writer,
    /// A program runs from it: nobody may open it for writing.
    Program,
    /// It is the root of a detached tree of mounts, which goes with the file (see [`super::mount`]).
    Tree,
}

/// What few inodes need.
#[derive(Default)]
struct Rare {
    locks: FileLocks,
    /// The pipe behind a FIFO while it is open.
    fifo: SpinLock<Weak<Pipe>>,
    /// What is bound to this socket's name.
    socket: SpinLock<Weak<UnixSocket>>,
    watches: SpinLock<inotify::List>,
}

impl InodeState {
    /// Of an inode that others than this kernel change: names of it are asked for anew, [`super::Inode::refresh`] before
    /// attributes count, and content does not stay in the page cache.
    pub fn shared() -> Self {
        InodeState { shared: true, ..InodeState::default() }
    }

    pub fn is_shared(&self) -> bool {
        self.shared
    }

    /// The file is known to have no capabilities. Never so of one that others change.
    pub fn has_no_capabilities(&self) -> bool {
        self.no_capabilities.load(Ordering::Acquire)
    }

    /// With `lock` held.
    pub fn set_no_capabilities(&self, known: bool) {
        self.no_capabilities.store(known && !self.shared, Ordering::Release);
    }

    #[inline]
    pub fn flags(&self) -> InodeFlags {
        InodeFlags::from_bits_truncate(self.flags.load(Ordering::Relaxed))
    }

    /// For the file system, which keeps them.
    pub fn set_flags(&self, flags: InodeFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }

    /// A file without a name may be given one.
    pub fn set_linkable(&self) {
        self.linkable.store(true, Ordering::Relaxed);
    }

    /// May this file, which has so many links, be given one more? Those whose last name is gone stay nameless: ENOENT.
    /// To be called with the links locked.
    pub fn check_link(&self, links: u32) -> Result<()> {
        if links > 0 || self.linkable.swap(false, Ordering::Relaxed) { Ok(()) } else { Err(Errno::ENOENT) }
    }

    /// Takes a hold; ETXTBSY if one of the other kind is in the way.
    pub fn take(&self, hold: Hold) -> Result<()> {
        let step = match hold {
            Hold::None | Hold::Tree => return Ok(()),
            Hold::Writer => |n: i32| if n < 0 { None } else { n.checked_add(1) },
            Hold::Program => |n: i32| if n > 0 { None } else { n.checked_sub(1) },
        };
        self.writers.fetch_update(Ordering::AcqRel, Ordering::Relaxed, step).map(drop).map_err(|_| Errno::ETXTBSY)
    }

    pub fn release(&self, hold: Hold) {
        let step = match hold {
            Hold::None | Hold::Tree => 0,
            Hold::Writer => -1,
            Hold::Program => 1,
        };
        self.writers.fetch_add(step, Ordering::Release);
    }

    /// Makes this a file with seals, of which `seals` are set.
    pub fn make_sealable(&self, seals: Seals) {
        self.seals.store(seals.bits() | SEALABLE, Ordering::Relaxed);
    }

    /// F_GET_SEALS; None for files without seals.
    pub fn seals(&self) -> Option<u32> {
        let seals = self.seals.load(Ordering::Relaxed);
        (seals & SEALABLE != 0).then_some(seals & !SEALABLE)
    }

    pub fn is_sealed(&self, seals: Seals) -> bool {
        self.seals.load(Ordering::Relaxed) & seals.bits() != 0
    }

    /// F_ADD_SEALS on a file with this content, which is locked: no write is under way.
    pub fn add_seals(&self, new: u32, cache: Option<&PageCache>) -> Result<()> {
        let new = Seals::from_bits(new).ok_or(Errno::EINVAL)?;
        let added = new - self.set_seals(new)?;
        // The seal first: a mapping that comes now sees it, one that came before is seen here.
        if added.contains(Seals::WRITE) && cache.is_some_and(PageCache::is_mapped_for_writing) {
            self.seals.fetch_and(!added.bits(), Ordering::SeqCst);
            return Err(Errno::EBUSY);
        }
        Ok(())
    }

    /// Answers what there was before.
    fn set_seals(&self, new: Seals) -> Result<Seals> {
        let add = |old: u32| (old & SEALABLE != 0 && old & Seals::SEAL.bits() == 0).then_some(old | new.bits());
        match self.seals.fetch_update(Ordering::SeqCst, Ordering::Relaxed, add) {
            Ok(old) => Ok(Seals::from_bits_truncate(old)),
            Err(old) if old & SEALABLE == 0 => Err(Errno::EINVAL),
            Err(_) => Err(Errno::EPERM),
        }
    }

    fn rare(&self) -> &Rare {
        self.rare.call_once(Box::default)
    }

    /// Who watches this inode.
    pub(super) fn watches(&self) -> &SpinLock<inotify::List> {
        &self.rare().watches
    }

    /// The same, if anybody ever has.
    pub(super) fn watches_if_any(&self) -> Option<&SpinLock<inotify::List>> {
        self.rare.get().map(|rare| &rare.watches)
    }

    pub(super) fn wanted(&self) -> u32 {
        self.wanted.load(Ordering::Relaxed)
    }

    /// With the watches locked.
    pub(super) fn set_wanted(&self, wanted: u32) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// The locks of flock(2) and fcntl(2); made when first needed.
    pub fn locks(&self) -> &FileLocks {
        &self.rare().locks
    }

    /// The same, if there may be any.
    pub fn locks_if_any(&self) -> Option<&FileLocks> {
        self.rare.get().map(|rare| &rare.locks)
    }

    /// The pipe behind this FIFO, made for its first opener.
    pub(super) fn fifo(&self) -> Arc<Pipe> {
        let mut slot = self.rare().fifo.lock();
        if let Some(pipe) = slot.upgrade() {
            return pipe;
        }
        let pipe = Pipe::new();
        *slot = Arc::downgrade(&pipe);
        pipe
    }
}

/// Holds an inode and its lock, for work that goes on although nobody waits for it any more.
pub struct Locked(Arc<dyn Inode>);

impl Locked {
    pub async fn new(inode: &Arc<dyn Inode>) -> Locked {
        inode.state().lock.lock().await.keep();
        Locked(inode.clone())
    }

    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.0
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.0.state().lock.unlock();
    }
}

impl InodeState {
    /// The Unix socket that is bound to this name.
    pub fn socket(&self) -> Option<Arc<UnixSocket>> {
        self.rare.get()?.socket.lock().upgrade()
    }

    pub fn set_socket(&self, socket: &Arc<UnixSocket>) {
        *self.rare().socket.lock() = Arc::downgrade(socket);
    }
}
