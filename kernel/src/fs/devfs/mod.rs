//! Devices by number, and the devtmpfs in which they have names.
//!
//! Drivers call [`register`] (a name below /dev and what opens it). A node made with mknod(2) on any file system finds its
//! driver by number through [`device`].

mod mem;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::dentry;
use super::file::FileOps;
use super::inode::{DeviceId, FileSystem, FileType, Inode, NewAttr, NewNode};
use super::op::Op;
use super::tmpfs::{Options, TmpFs, TmpInode};
use crate::errno::{Errno, Result};
use crate::process::Thread;
use crate::sync::{Lazy, RwSpinLock};

/// Opens a device: gets open(2)'s flags and who opens it. Awaited interruptibly.
pub type Factory = Box<dyn for<'a> Fn(u32, &'a Thread) -> Op<'a, Result<Arc<dyn FileOps>>> + Send + Sync>;

/// A registered device.
pub struct Device {
    id: DeviceId,
    kind: FileType,
    factory: Factory,
}

impl Device {
    pub fn open<'a>(&'a self, flags: u32, thread: &'a Thread) -> Op<'a, Result<Arc<dyn FileOps>>> {
        (self.factory)(flags, thread)
    }
}

static DEVICES: RwSpinLock<Vec<Arc<Device>>> = RwSpinLock::new(Vec::new());

static DEVTMPFS: Lazy<Arc<TmpFs>> = Lazy::new(|| {
    let root = NewAttr { perm: 0o755, uid: 0, gid: 0 };
    TmpFs::new("devtmpfs", b"devtmpfs", Options { root, ..Options::default() })
});

/// The one devtmpfs.
pub fn instance() -> Arc<dyn FileSystem> {
    DEVTMPFS.clone()
}

/// A device that is opened by cloning the same operations.
pub fn shared(ops: Arc<dyn FileOps>) -> Factory {
    Box::new(move |_, _| Op::ready(Ok(ops.clone())))
}

/// Makes a device known under its number and as /dev/`name` (which may contain a directory). `kind` is CharDevice or
/// BlockDevice.
pub fn register(name: &str, id: DeviceId, kind: FileType, perm: u16, factory: Factory) {
    DEVICES.write().push(Arc::new(Device { id, kind, factory }));
    let node = if kind == FileType::BlockDevice { NewNode::BlockDevice(id) } else { NewNode::CharDevice(id) };
    if let Err(errno) = add_node(name, node, NewAttr { perm, uid: 0, gid: 0 }) {
        log::warn!("/dev/{name}: {errno:?}");
    }
}

/// Takes the device and its name away.
pub fn unregister(name: &str, id: DeviceId, kind: FileType) {
    DEVICES.write().retain(|device| device.id != id || device.kind != kind);
    if let Ok((dir, name)) = directory_of(name) {
        let _ = dir.remove_child(name.as_bytes());
        forget(dir, name);
    }
}

/// The driver of a device number.
pub fn device(kind: FileType, id: DeviceId) -> Option<Arc<Device>> {
    DEVICES.read().iter().find(|device| device.id == id && device.kind == kind).cloned()
}

/// Puts a node into devtmpfs, with the directories that lead to it.
pub fn add_node(name: &str, node: NewNode<'_>, attr: NewAttr) -> Result<()> {
    let (dir, name) = directory_of(name)?;
    dir.make_child(name.as_bytes(), node, attr)?;
    forget(dir, name);
    Ok(())
}

/// Nobody has walked there, so walks do not know that the name has come or gone.
fn forget(dir: Arc<TmpInode>, name: &str) {
    let dir: Arc<dyn Inode> = dir;
    dentry::forget_in(&dir, name.as_bytes());
}

fn directory_of(name: &str) -> Result<(Arc<TmpInode>, &str)> {
    let mut dir = DEVTMPFS.root_inode().ok_or(Errno::ENOENT)?.clone();
    let mut rest = name;
    while let Some((first, after)) = rest.split_once('/') {
        dir = match dir.child(first.as_bytes()) {
            Ok(child) => child,
            Err(_) => {
                let attr = NewAttr { perm: 0o755, uid: 0, gid: 0 };
                let made = dir.make_child(first.as_bytes(), NewNode::Directory, attr);
                // Somebody else may have made it meanwhile.
                made.or_else(|_| dir.child(first.as_bytes()))?
            }
        };
        rest = after;
    }
    Ok((dir, rest))
}

/// Registers the devices without hardware and the usual links.
pub fn init() {
    mem::register_all();
    let attr = NewAttr { perm: 0o777, uid: 0, gid: 0 };
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        if let Err(errno) = add_node(name, NewNode::Symlink(target.as_bytes()), attr) {
            log::warn!("/dev/{name}: {errno:?}");
        }
    }
    for (name, perm) in [("shm", 0o1777), ("pts", 0o755)] {
        if let Err(errno) = add_node(name, NewNode::Directory, NewAttr { perm, uid: 0, gid: 0 }) {
            log::warn!("/dev/{name}: {errno:?}");
        }
    }
}
