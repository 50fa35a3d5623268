//! Files: the VFS, and the file systems that live in memory.
//!
//! * [`inode`] and [`mod@file`]: the traits that file systems and drivers implement ([`Inode`], [`FileSystem`], [`FileOps`]);
//!   [`op`] is the answer of an operation that may have to wait.
//! * [`dentry`], [`mount`], [`path`], [`walk`]: names. A [`Path`] is a [`Dentry`] seen through a [`Mount`]; [`lookup`] goes from
//!   text to path, by way of the name cache.
//! * [`mod@open`], [`open_file`], [`regular`], [`writing`], [`splice`], [`fd_table`]: open files and their content;
//!   `file_source`: the same for mmap(2). [`configure`]: mounting step by step. [`change`], `names`, [`attr`], [`perm`]: changes of names and attributes, and who may make
//!   them; [`xattr`]: names of extended ones; [`capabilities`]: the one that gives programs rights. [`context`]: root, working directory and umask of a process.
//! * [`pipe`], [`eventfd`], [`timerfd`], [`memfd`], [`userfault`], [`epoll`], [`poll`], [`anon`]: files without names, and waiting for files.
//!   [`sigio`]: signals instead of waiting. [`inotify`]: being told what happens to files.
//! * [`tmpfs`], [`devfs`]: file systems in memory. [`procfs`], [`sysfs`]: the kernel as files. [`tty`]: terminals.
//!   [`block`]: disks, and [`disk_stats`]: what they do; `loops`: files as disks; [`ext2`]: the file system on them. [`p9`]: a folder of the host;
//!   `shared_file`: content that others change, too. [`overlay`]: directories on top of each other.
//!
//! Locks, outer first: `FileSystem::rename_lock` → `InodeState::lock` of directories, ancestors first → of files →
//! `OpenFile::pos` is outside of the file's lock. Below these async locks only spinlocks, each of which is a leaf unless its
//! module says otherwise.

pub mod anon;
pub mod attr;
pub mod block;
mod block_file;
pub mod capabilities;
pub mod change;
pub mod change_now;
pub mod configure;
pub mod context;
pub mod dentry;
pub mod devfs;
pub mod disk_stats;
pub mod epoll;
pub mod eventfd;
pub mod ext2;
pub mod fd_table;
pub mod file;
mod file_source;
pub mod handle;
pub mod inode;
pub mod inode_flags;
pub mod inotify;
pub mod locks;
mod loops;
pub mod memfd;
pub mod mount;
mod names;
pub mod op;
pub mod open;
pub mod open_file;
mod open_now;
pub mod overlay;
pub mod p9;
pub mod path;
pub mod perm;
pub mod pipe;
pub mod poll;
pub mod procfs;
pub mod regular;
mod shared_file;
pub mod sigio;
mod slashes;
pub mod splice;
pub mod state;
pub mod sysfs;
pub mod timerfd;
pub mod tmpfs;
pub mod tty;
pub mod userfault;
pub mod walk;
mod walk_now;
pub(crate) mod writing;
pub mod xattr;

#[cfg(test)]
mod tests;

use alloc::sync::Arc;
use alloc::vec::Vec;

pub use context::FsContext;
pub use dentry::Dentry;
pub use fd_table::FdTable;
pub use file::{Events, FileOps, TryError};
pub use inode::{
    Attributes, DeviceId, DirSink, FileSystem, FileType, Inode, Metadata, NewAttr, NewNode, RenameFlags, SetAttr,
    SizeAndTimes, StatFs,
};
pub use mount::{Mount, MountFlags, mount_root};
pub use op::Op;
pub use open::{How, open, open_exec};
pub use open_file::OpenFile;
pub use open_now::open_now;
pub use path::Path;
pub use state::{Hold, InodeState};
pub use walk::{AT_FDCWD, Ctx, Flags, lookup};
pub use walk_now::lookup_now;

use crate::errno::{Errno, Result};
use crate::process::Thread;
use crate::sync::RwSpinLock;
use crate::time::Timespec;

/// What mount(2) says about a new instance.
#[derive(Clone, Copy)]
pub struct MountRequest<'a> {
    /// The text of the source argument.
    pub source: &'a [u8],
    /// What the source names, if it names something: a block device.
    pub device: Option<DeviceId>,
    pub read_only: bool,
    /// The options string.
    pub data: &'a [u8],
    /// Who mounts it, where paths in the options are to be looked up.
    pub ctx: Ctx<'a>,
}

/// Makes an instance of a file system.
pub type MountFn = for<'a> fn(MountRequest<'a>) -> Op<'a, Result<Arc<dyn FileSystem>>>;

/// Says whether a new instance would take an option ("key" or "key=value").
pub type CheckFn = fn(&[u8]) -> Result<()>;

/// For file systems without options.
pub fn no_options(_option: &[u8]) -> Result<()> {
    Err(Errno::EINVAL)
}

#[derive(Clone, Copy)]
struct FsType {
    name: &'static str,
    /// Wants a block device as source: no "nodev" in /proc/filesystems.
    needs_device: bool,
    mount: MountFn,
    check: CheckFn,
}

static TYPES: RwSpinLock<Vec<FsType>> = RwSpinLock::new(Vec::new());

/// Makes a file-system type known to mount(2).
pub fn register_fs_type(name: &'static str, needs_device: bool, check: CheckFn, mount: MountFn) {
    TYPES.write().push(FsType { name, needs_device, mount, check });
}

fn find_type(name: &[u8]) -> Option<FsType> {
    TYPES.read().iter().find(|t| t.name.as_bytes() == name).copied()
}

/// Is this a type whose file systems are on block devices?
pub fn needs_device(name: &[u8]) -> bool {
    find_type(name).is_some_and(|fs_type| fs_type.needs_device)
}

/// A new instance of a registered type; ENODEV if there is none of this name. A source that is no block device is ENOTBLK.
pub async fn new_instance(name: &[u8], request: MountRequest<'_>) -> Result<Arc<dyn FileSystem>> {
    instance_of_type(find_type(name).ok_or(Errno::ENODEV)?, request).await
}

async fn instance_of_type(fs_type: FsType, request: MountRequest<'_>) -> Result<Arc<dyn FileSystem>> {
    if fs_type.needs_device && request.device.is_none() {
        return Err(Errno::ENOTBLK);
    }
    (fs_type.mount)(request).await
}

/// The text of /proc/filesystems.
pub fn proc_filesystems() -> Vec<u8> {
    let mut out = Vec::new();
    for fs_type in TYPES.read().iter() {
        out.extend_from_slice(if fs_type.needs_device { b"" } else { b"nodev" });
        out.push(b'\t');
        out.extend_from_slice(fs_type.name.as_bytes());
        out.push(b'\n');
    }
    out
}

/// Registers the file systems and devices of this module.
pub fn init() {
    register_fs_type("tmpfs", false, check_tmpfs, mount_tmpfs);
    register_fs_type("ramfs", false, check_tmpfs, mount_tmpfs);
    register_fs_type("devtmpfs", false, check_tmpfs, |_| Op::boxed(mount_devtmpfs()));
    devfs::init();
    loops::init();
    ext2::init();
    p9::init();
    overlay::init();
    procfs::init();
    sysfs::init();
    tty::init();
    crate::ipc::mqueue::init();
}

async fn mount_devtmpfs() -> Result<Arc<dyn FileSystem>> {
    let fs = devfs::instance();
    // The end of its last mount has left it read-only.
    fs.set_read_only(false).await?;
    Ok(fs)
}

fn check_tmpfs(option: &[u8]) -> Result<()> {
    tmpfs::parse_options(option).map(drop)
}

fn mount_tmpfs(request: MountRequest<'_>) -> Op<'_, Result<Arc<dyn FileSystem>>> {
    let mount = || {
        let options = tmpfs::parse_options(request.data)?;
        Ok(tmpfs::TmpFs::new("tmpfs", request.source, options) as Arc<dyn FileSystem>)
    };
    Op::ready(mount())
}

/// The time for a time stamp.
pub fn now() -> Timespec {
    crate::time::now_realtime()
}

/// Sends the calling thread a signal that a file operation causes (SIGPIPE, SIGXFSZ).
pub(crate) fn raise(t: &Thread, signal: u32) {
    // As if by kill(2) of itself, as Linux has it. A full signal queue is no reason to fail the call.
    let info = crate::signal::SigInfo::user(signal as u8, t.process().pid, t.creds().uid);
    let _ = crate::signal::send_to_task(t.task(), info);
}

/// pivot_root(2): every process at the old root goes to the new one.
pub(crate) fn move_roots(old: &Path, new: &Path) {
    for task in crate::process::tasks() {
        if let Some(fs) = task.handles().fs {
            fs.replace_root(old, new);
        }
    }
}
