//! overlayfs: several directories seen as one, the topmost of which takes the changes.
//!
//! ```text
//!   VFS ── Inode ──▶ inode (OverlayInode) ──▶ change ──▶ work ──┐
//!                       │        │               │               ├──▶ names, dentries and inodes of the layers
//!                       │        └─▶ lookup      └──▶ copy_up ───┘
//!                       └─▶ listing
//! ```
//!
//! * [`OverlayFs`] is the instance: its layers, and the table of its inodes. `options` reads what mount(2) says,
//!   `mounting` makes an instance of it.
//! * An [`inode::OverlayInode`] stands for a name in some layers: for one object, or for a directory of each layer that has
//!   one of that name. It is the same before and after it is copied up; `lookup` finds it, `table` keeps one for each object.
//! * What is about to be changed is copied into the upper layer (`copy_up`), its parents before it. `change` makes and
//!   takes away names there. Both put things together in the work directory (`work`) and move them to their place in one
//!   step.
//! * What is taken away though a lower layer has it leaves a whiteout, a character device 0/0, in the upper layer. A directory
//!   that is made where a whiteout was is opaque (`attributes`): it hides those of lower layers.
//! * `listing` merges what the layers have in a directory.
//!
//! Layers are reached by their dentries, as if by system calls of the mounter, who has been asked for that: what is in the
//! upper layer is seen there at once. Changes of layers by others while they are mounted are not noticed, but do no harm.
//!
//! Every change runs to its end once it has begun, even if the task that asked for it is killed.
//!
//! Locks, in order: [`OverlayFs::moving`] → `OverlayInode::lock` of directories, ancestors first → of what is in them → those
//! of the layers' file systems, as the VFS takes them. The VFS's own locks of the overlay's inodes are outside of all.

mod attributes;
mod change;
mod copy_up;
mod inode;
mod listing;
mod lookup;
mod mounting;
mod ops;
mod options;
mod rename;
mod table;
#[cfg(test)]
mod tests;
mod work;

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::future::Future;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use self::inode::OverlayInode;
use self::options::Options;
use self::table::Table;
use self::work::Work;
use super::dentry::Dentry;
use super::inode::{DeviceId, FileSystem, Inode, StatFs};
use super::mount::Instance;
use super::op::Op;
use crate::errno::{Errno, Result};
use crate::exec::{self, Mutex};
use crate::process::Credentials;
use crate::sync::Once;

pub const NAME: &str = "overlay";

/// OVERLAYFS_SUPER_MAGIC of linux/magic.h.
const MAGIC: u64 = 0x794c_7630;

/// One of the directories.
pub struct Layer {
    /// Keeps the file system, whether it stays mounted elsewhere or not.
    instance: Arc<Instance>,
    root: Arc<Dentry>,
    /// Whose numbers its inodes have: an index of `OverlayFs::devices`.
    group: usize,
}

/// What changes go to.
struct Upper {
    layer: Layer,
    work: Work,
}

/// An instance.
pub struct OverlayFs {
    source: Vec<u8>,
    options: Options,
    device: DeviceId,
    /// What shows as the device of files, for each file system that layers are on; the first is the upper layer's.
    devices: Vec<DeviceId>,
    upper: Option<Upper>,
    /// The topmost first.
    lower: Vec<Layer>,
    /// All layers are on one file system, whose inode numbers are the overlay's.
    one_file_system: bool,
    /// How many overlays are on top of each other.
    depth: usize,
    mounter: Credentials,
    root: Once<Arc<OverlayInode>>,
    table: Table,
    next_ino: AtomicU64,
    read_only: AtomicBool,
    /// The VFS's.
    rename_lock: Mutex<()>,
    /// Held over changes of two directories.
    moving: Mutex<()>,
    this: Weak<OverlayFs>,
}

/// Makes the type known to mount(2). Options are looked at when all are there, as on Linux.
pub fn init() {
    super::register_fs_type(NAME, false, |_| Ok(()), |request| Op::boxed(mounting::mount(request)));
}

impl OverlayFs {
    /// The upper layer, to be changed: EROFS if there is none.
    fn writable(&self) -> Result<&Upper> {
        let upper = self.upper.as_ref().ok_or(Errno::EROFS)?;
        if self.read_only() { Err(Errno::EROFS) } else { Ok(upper) }
    }

    /// All layers, the upper one first.
    fn layers(&self) -> impl Iterator<Item = &Layer> {
        self.upper.iter().map(|upper| &upper.layer).chain(&self.lower)
    }
}

/// Runs a change to its end, whoever waits for it.
fn to_the_end<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> exec::RunToEnd<T> {
    exec::run_to_end(|future| exec::spawn("overlay", future), future)
}

impl FileSystem for OverlayFs {
    fn type_name(&self) -> &'static str {
        NAME
    }

    fn below(&self) -> Option<Arc<Instance>> {
        self.upper.as_ref().map(|upper| upper.layer.instance.clone())
    }

    fn source(&self) -> Vec<u8> {
        self.source.clone()
    }

    fn root(&self) -> Arc<dyn Inode> {
        // Set before anybody has the instance.
        self.root.wait().clone()
    }

    fn device(&self) -> DeviceId {
        self.device
    }

    /// That of the upper layer, or of the topmost.
    fn statfs(&self) -> StatFs {
        let topmost = self.layers().next().map(|layer| layer.instance.fs().statfs()).unwrap_or_default();
        StatFs { magic: MAGIC, ..topmost }
    }

    fn read_only(&self) -> bool {
        let upper = self.upper.as_ref();
        self.read_only.load(Ordering::Relaxed) || upper.is_none_or(|upper| upper.layer.instance.fs().read_only())
    }

    fn rename_lock(&self) -> &Mutex<()> {
        &self.rename_lock
    }

    fn stored_on(&self) -> DeviceId {
        self.upper.as_ref().map_or(self.device(), |upper| upper.layer.instance.fs().stored_on())
    }

    fn sync(&self) -> Op<'_, Result<()>> {
        match &self.upper {
            Some(upper) => upper.layer.instance.fs().sync(),
            None => Op::ready(Ok(())),
        }
    }

    fn set_read_only(&self, read_only: bool) -> Op<'_, Result<()>> {
        if !read_only && self.upper.is_none() {
            return Op::ready(Err(Errno::EROFS));
        }
        self.read_only.store(read_only, Ordering::Relaxed);
        if read_only { self.sync() } else { Op::ready(Ok(())) }
    }

    fn options(&self) -> Vec<u8> {
        self.options.show()
    }
}
