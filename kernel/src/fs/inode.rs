//! What a file system provides: inodes and a super block. No path, no open file, no user memory here.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::ops::Range;

use super::file::FileOps;
use super::handle::Handle;
use super::inode_flags::InodeFlags;
use super::mount::Instance;
use super::op::Op;
use super::path::Path;
use super::state::InodeState;
use crate::errno::{Errno, Result};
use crate::exec::Mutex;
use crate::mm::{IoBuf, PageCache};
use crate::process::Thread;
use crate::time::Timespec;

/// The type part of a mode, S_IFMT in inode(7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileType {
    Regular,
    Directory,
    Symlink,
    CharDevice,
    BlockDevice,
    Fifo,
    Socket,
}

impl FileType {
    pub const fn mode_bits(self) -> u32 {
        match self {
            FileType::Fifo => 0o010000,
            FileType::CharDevice => 0o020000,
            FileType::Directory => 0o040000,
            FileType::BlockDevice => 0o060000,
            FileType::Regular => 0o100000,
            FileType::Symlink => 0o120000,
            FileType::Socket => 0o140000,
        }
    }

    pub const fn from_mode(mode: u32) -> Option<FileType> {
        Some(match mode & 0o170000 {
            0o010000 => FileType::Fifo,
            0o020000 => FileType::CharDevice,
            0o040000 => FileType::Directory,
            0o060000 => FileType::BlockDevice,
            0o100000 => FileType::Regular,
            0o120000 => FileType::Symlink,
            0o140000 => FileType::Socket,
            _ => return None,
        })
    }

    /// `d_type` of getdents64(2): DT_*.
    pub const fn dirent_type(self) -> u8 {
        (self.mode_bits() >> 12) as u8
    }
}

/// A device number as `stat` shows it, in Linux's kernel-internal split (major, minor).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct DeviceId {
    pub major: u32,
    pub minor: u32,
}

impl DeviceId {
    pub const fn new(major: u32, minor: u32) -> Self {
        DeviceId { major, minor }
    }

    /// The 64-bit encoding of makedev(3) in `struct stat`.
    pub const fn encode(self) -> u64 {
        let (major, minor) = (self.major as u64, self.minor as u64);
        (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12) | ((major & !0xfff) << 32)
    }

    pub const fn decode(dev: u64) -> Self {
        DeviceId {
            major: (((dev >> 8) & 0xfff) | ((dev >> 32) & !0xfff)) as u32,
            minor: ((dev & 0xff) | ((dev >> 12) & !0xff)) as u32,
        }
    }
}

/// Everything `stat` can ask, always in memory.
#[derive(Clone, Copy, Debug)]
pub struct Metadata {
    pub ino: u64,
    pub kind: FileType,
    /// Permission bits with set-id and sticky: the low 12 bits of the mode.
    pub perm: u16,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: DeviceId,
    /// Bytes.
    pub size: u64,
    /// Preferred I/O size, bytes.
    pub block_size: u32,
    /// Allocated space in units of 512 bytes.
    pub blocks: u64,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    pub btime: Option<Timespec>,
}

/// What a read of a file's content looks at.
#[derive(Clone, Copy)]
pub struct SizeAndTimes {
    pub size: u64,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
}

impl From<&Metadata> for SizeAndTimes {
    fn from(meta: &Metadata) -> Self {
        SizeAndTimes { size: meta.size, atime: meta.atime, mtime: meta.mtime, ctime: meta.ctime }
    }
}

impl Metadata {
    pub const fn mode(&self) -> u32 {
        self.kind.mode_bits() | self.perm as u32
    }
}

/// A change of attributes; `None` leaves one as it is. The caller has checked permissions and sets `ctime`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    pub perm: Option<u16>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<Timespec>,
    pub mtime: Option<Timespec>,
    pub ctime: Option<Timespec>,
}

/// What file systems in memory keep of any inode.
#[derive(Clone, Copy, Debug)]
pub struct Attributes {
    pub perm: u16,
    pub uid: u32,
    pub gid: u32,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
}

impl Attributes {
    /// Of an inode that is made now.
    pub fn new(NewAttr { perm, uid, gid }: NewAttr) -> Self {
        let now = super::now();
        Attributes { perm, uid, gid, atime: now, mtime: now, ctime: now }
    }

    pub fn set(&mut self, new: &SetAttr) {
        self.perm = new.perm.unwrap_or(self.perm);
        self.uid = new.uid.unwrap_or(self.uid);
        self.gid = new.gid.unwrap_or(self.gid);
        self.atime = new.atime.unwrap_or(self.atime);
        self.mtime = new.mtime.unwrap_or(self.mtime);
        self.ctime = new.ctime.unwrap_or(self.ctime);
    }
}

/// What `create` makes.
#[derive(Clone, Copy, Debug)]
pub enum NewNode<'a> {
    Regular,
    Directory,
    Symlink(&'a [u8]),
    CharDevice(DeviceId),
    BlockDevice(DeviceId),
    Fifo,
    Socket,
}

/// Permissions (umask applied) and owner of a new node.
#[derive(Clone, Copy, Debug)]
pub struct NewAttr {
    pub perm: u16,
    pub uid: u32,
    pub gid: u32,
}

/// Receives directory entries; answers false when it has no room, and the entry will be offered again.
/// `next` is the cookie (d_off) from which reading goes on after this entry.
pub trait DirSink: Send {
    fn entry(&mut self, ino: u64, next: u64, kind: FileType, name: &[u8]) -> bool;
}

bitflags::bitflags! {
    /// renameat2(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct RenameFlags: u32 {
        const NOREPLACE = 1;
        const EXCHANGE = 2;
        const WHITEOUT = 4;
    }
}

/// An object of a file system. Held by dentries and open files; the last drop after the last unlink frees its storage.
///
/// Directory operations of one directory are serialised by the VFS (an async mutex per directory inode is held over
/// `create`, `link`, `unlink`, `rename`; not over `lookup` and `read_dir`).
pub trait Inode: Send + Sync + Any {
    fn metadata(&self) -> Metadata;
    fn fs(&self) -> Arc<dyn FileSystem>;
    fn as_any(&self) -> &dyn Any;
    /// `st_dev` of stat(2).
    fn device(&self) -> DeviceId {
        self.fs().device()
    }
    /// What the VFS keeps per inode; every inode embeds one (`InodeState::default()`).
    fn state(&self) -> &InodeState;

    fn kind(&self) -> FileType {
        self.metadata().kind
    }

    /// Bytes: `metadata().size`, where that can be had for less.
    fn size(&self) -> u64 {
        self.metadata().size
    }

    /// What SEEK_END of lseek(2) counts from. EINVAL: a directory in which only its entries have places.
    fn seek_end(&self) -> Result<u64> {
        Ok(self.size())
    }

    /// A part of `metadata()`, where that can be had for less.
    fn size_and_times(&self) -> SizeAndTimes {
        (&self.metadata()).into()
    }

    /// Its last name is gone.
    fn is_unlinked(&self) -> bool {
        self.metadata().nlink == 0
    }

    /// A name for it that outlives those in directories. None: the file system has none.
    fn handle(&self) -> Option<Handle> {
        None
    }

    /// The directory above this one, for file systems with handles.
    fn parent(&self) -> Op<'_, Result<Arc<dyn Inode>>> {
        Op::ready(Err(Errno::ESTALE))
    }

    /// Brings `metadata` up to date, where others change it, too.
    fn refresh(&self) -> Op<'_, Result<()>> {
        Op::ready(Ok(()))
    }

    /// A smaller `size` frees what lies behind it; the VFS then drops the cached pages. A larger one leaves a hole: it
    /// is also how the VFS announces that a write went beyond the end.
    fn set_attr(&self, _attr: SetAttr) -> Op<'_, Result<()>> {
        Op::ready(Err(Errno::EPERM))
    }

    /// Those flags that the kernel obeys.
    fn obeyed_flags(&self) -> InodeFlags {
        self.state().flags()
    }

    /// FS_*_FL of ioctl_iflags(2); None: the file system has none for such a file.
    fn flags(&self) -> Option<u32> {
        None
    }

    /// Sets them; EOPNOTSUPP for those that such a file can't have. The inode is locked, and permissions were checked.
    fn set_flags(&self, _flags: u32) -> Op<'_, Result<()>> {
        Op::ready(Err(Errno::ENOTTY))
    }

    /// FS_IOC_GETVERSION; None: the file system has none for such a file.
    fn generation(&self) -> Option<u32> {
        None
    }

    /// May `thread` read and search this directory whatever its mode says?
    fn grants(&self, _thread: &Thread) -> bool {
        false
    }

    // Directories. Names are single components: no '/', not empty, not "." or "..", at most 255 bytes.
    fn lookup<'a>(&'a self, _name: &'a [u8]) -> Op<'a, Result<Arc<dyn Inode>>> {
        Op::ready(Err(Errno::ENOTDIR))
    }
    /// The default: nothing can be made here, for which Linux has two errors.
    fn create<'a>(&'a self, _name: &'a [u8], node: NewNode<'a>, _attr: NewAttr) -> Op<'a, Result<Arc<dyn Inode>>> {
        Op::ready(Err(if matches!(node, NewNode::Regular) { Errno::EACCES } else { Errno::EPERM }))
    }
    /// A nameless regular file (O_TMPFILE).
    fn create_unnamed(&self, _attr: NewAttr) -> Op<'_, Result<Arc<dyn Inode>>> {
        Op::ready(Err(Errno::EOPNOTSUPP))
    }
    fn link<'a>(&'a self, _name: &'a [u8], _target: &'a Arc<dyn Inode>) -> Op<'a, Result<()>> {
        Op::ready(Err(Errno::EPERM))
    }
    /// Removes a name; `target` is what it names. Directories must be empty (ENOTEMPTY).
    fn unlink<'a>(&'a self, _name: &'a [u8], _target: &'a Arc<dyn Inode>) -> Op<'a, Result<()>> {
        Op::ready(Err(Errno::EPERM))
    }
    /// Atomically moves `old_name` to `new_name` in `new_dir` (same file system), replacing `replaced` if given.
    /// The VFS has checked types, loops and permissions.
    fn rename<'a>(
        &'a self,
        _old_name: &'a [u8],
        _moved: &'a Arc<dyn Inode>,
        _new_dir: &'a Arc<dyn Inode>,
        _new_name: &'a [u8],
        _replaced: Option<&'a Arc<dyn Inode>>,
        _flags: RenameFlags,
    ) -> Op<'a, Result<()>> {
        Op::ready(Err(Errno::EPERM))
    }
    /// Offers entries from `cookie` on (0 = start), "." and ".." included, until the sink is full or the end is reached.
    fn read_dir<'a>(&'a self, _cookie: u64, _sink: &'a mut dyn DirSink) -> Op<'a, Result<()>> {
        Op::ready(Err(Errno::ENOTDIR))
    }

    // Symbolic links.
    fn read_link(&self) -> Op<'_, Result<Vec<u8>>> {
        Op::ready(Err(Errno::EINVAL))
    }
    /// The text of a link that depends on who asks (/proc/self, /proc/PID/fd/N). Asked before `read_link`, by readlink(2)
    /// and by the walk (after `magic_link`).
    fn read_link_for(&self, _thread: &Thread) -> Option<Result<Vec<u8>>> {
        None
    }
    /// Where a magic link (/proc/PID/fd/N, exe, cwd, root) leads, without going through its text.
    fn magic_link(&self, _thread: &Thread) -> Option<Result<Path>> {
        None
    }

    // Content.
    /// Regular files that live in the page cache. The VFS then does read, write, mmap and truncate of cached pages.
    fn page_cache(&self) -> Option<&Arc<PageCache>> {
        None
    }
    /// It may get another page cache while files are open.
    fn is_layered(&self) -> bool {
        false
    }
    /// A write to the page cache is about to happen: makes sure that there is room for it (ENOSPC, EDQUOT).
    fn prepare_write(&self, _offset: u64, _len: u64) -> Op<'_, Result<()>> {
        Op::ready(Ok(()))
    }
    /// Of what was prepared last, these bytes are not written after all.
    fn give_up_write(&self, _bytes: Range<u64>) {}
    /// Reads content where it is stored, for files whose cached pages only mappings see ([`PageCache::of_shared_file`]).
    fn read_through<'a>(&'a self, _pos: u64, _buf: &'a mut IoBuf<'_>) -> Op<'a, Result<usize>> {
        Op::ready(Err(Errno::EINVAL))
    }
    /// The same for writing. The file is locked.
    fn write_through<'a>(&'a self, _pos: u64, _buf: &'a mut IoBuf<'_>) -> Op<'a, Result<usize>> {
        Op::ready(Err(Errno::EINVAL))
    }
    /// Operations for an open file that is not a plain page-cache file or directory (devices, FIFOs, /proc files).
    /// `flags` are open(2)'s. Devices and FIFOs without operations of their own are found by the VFS.
    fn open<'a>(&'a self, _flags: u32, _thread: &'a Thread) -> Op<'a, Result<Option<Arc<dyn FileOps>>>> {
        Op::ready(Ok(None))
    }
    /// fsync / fdatasync: everything of this inode is on stable storage when it answers.
    fn sync(&self, _data_only: bool) -> Op<'_, Result<()>> {
        Op::ready(Ok(()))
    }
    /// The first stretch of data that ends behind `offset`, which lies before the end of the file; None: only holes follow.
    /// What was written is stored.
    fn next_data(&self, _offset: u64) -> Op<'_, Result<Option<Range<u64>>>> {
        Op::ready(Ok(Some(0..self.size())))
    }
    /// O_DIRECT is possible: what positions, lengths and addresses must be multiples of.
    fn direct_alignment(&self) -> Option<u64> {
        None
    }
    /// fallocate(2) with its mode bits.
    fn allocate(&self, _mode: u32, _offset: u64, _len: u64) -> Op<'_, Result<()>> {
        Op::ready(Err(Errno::EOPNOTSUPP))
    }

    // Extended attributes (xattr(7)).
    fn get_xattr<'a>(&'a self, _name: &'a [u8]) -> Op<'a, Result<Vec<u8>>> {
        Op::ready(Err(Errno::EOPNOTSUPP))
    }
    fn set_xattr<'a>(&'a self, _name: &'a [u8], _value: &'a [u8], _flags: u32) -> Op<'a, Result<()>> {
        Op::ready(Err(Errno::EOPNOTSUPP))
    }
    fn list_xattr(&self) -> Op<'_, Result<Vec<u8>>> {
        Op::ready(Err(Errno::EOPNOTSUPP))
    }
    fn remove_xattr<'a>(&'a self, _name: &'a [u8]) -> Op<'a, Result<()>> {
        Op::ready(Err(Errno::EOPNOTSUPP))
    }
}

/// statfs(2).
#[derive(Clone, Copy, Debug, Default)]
pub struct StatFs {
    /// f_type: the file system's magic number (linux/magic.h).
    pub magic: u64,
    /// Bytes per block; the counts below are in blocks.
    pub block_size: u64,
    pub blocks: u64,
    pub free: u64,
    pub available: u64,
    pub files: u64,
    pub files_free: u64,
    pub name_max: u64,
    pub fsid: [u32; 2],
}

/// A mounted file system instance.
pub trait FileSystem: Send + Sync + Any {
    /// The name in /proc/filesystems and /proc/mounts: "ext2", "tmpfs", "proc"…
    fn type_name(&self) -> &'static str;
    /// Where it is mounted from, for /proc/mounts: "/dev/vda", "proc", "tmpfs"…
    fn source(&self) -> Vec<u8>;
    fn root(&self) -> Arc<dyn Inode>;
    fn device(&self) -> DeviceId;
    /// The device on which the content of its files is.
    fn stored_on(&self) -> DeviceId {
        self.device()
    }
    fn statfs(&self) -> StatFs;
    /// Brings `statfs` up to date, where others change it, too.
    fn refresh(&self) -> Op<'_, Result<()>> {
        Op::ready(Ok(()))
    }
    fn read_only(&self) -> bool {
        false
    }
    /// What changes of this file system are made in: who writes to this one writes to that one, too.
    fn below(&self) -> Option<Arc<Instance>> {
        None
    }
    /// What a handle stands for; any error if it is not there (any more).
    fn inode_of<'a>(&'a self, _handle: &'a Handle) -> Op<'a, Result<Arc<dyn Inode>>> {
        Op::ready(Err(Errno::ESTALE))
    }
    /// Names are changed without waiting, as a rule: operations of [`Inode`] that do that answer [`Op::ready`]. Not so those
    /// of directories whose changes have to be stored ([`super::inode_flags::sync_names`]).
    fn changes_at_once(&self) -> bool {
        false
    }
    /// So are directories made.
    fn makes_directories_at_once(&self) -> bool {
        self.changes_at_once()
    }
    /// Names appear and vanish by themselves (procfs): lookups are not cached.
    fn volatile_names(&self) -> bool {
        false
    }
    /// Held over renames between two directories: the tree keeps its shape while their order is found out. File systems
    /// in which nothing can be renamed share one.
    fn rename_lock(&self) -> &Mutex<()> {
        static UNUSED: Mutex<()> = Mutex::new(());
        &UNUSED
    }
    /// Writes everything dirty and flushes the device (sync(2), umount, remount read-only).
    fn sync(&self) -> Op<'_, Result<()>> {
        Op::ready(Ok(()))
    }
    /// Changes between read-only and writable (a remount). Read-only means: everything is written, the device flushed and
    /// the file system marked clean; the last unmount and power-off end with it, too.
    fn set_read_only(&self, read_only: bool) -> Op<'_, Result<()>> {
        if read_only { self.sync() } else { Op::ready(Ok(())) }
    }
    /// Does anybody use a file whose last name is gone? It will have to be freed.
    fn has_removed(&self) -> Op<'_, bool> {
        Op::ready(false)
    }
    /// SYNC and DIRSYNC: how the whole file system was mounted.
    fn syncs(&self) -> InodeFlags {
        InodeFlags::empty()
    }

    /// Other options of a mounted file system (a remount).
    fn reconfigure(&self, _options: &[u8]) -> Result<()> {
        Ok(())
    }
    /// Extra mount options for /proc/mounts, starting with a comma, or empty.
    fn options(&self) -> Vec<u8> {
        Vec::new()
    }
}
