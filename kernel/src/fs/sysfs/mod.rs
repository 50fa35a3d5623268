//! sysfs, sysfs(5): the little of it that programs look for. CPUs (sched.h functions, nproc, lscpu), disks (lsblk, mdev), network interfaces,
//! and the empty directories on which other file systems are mounted.
//!
//! The tree is a [`Node`] per directory, file or link, made from what exists at the moment of the lookup.

mod net;
mod node;

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::fs::inode::{DeviceId, FileSystem, Inode, StatFs};
use crate::fs::op::Op;
use crate::sync::{Once, SpinLock};
use node::{Node, SysInode};

/// SYSFS_MAGIC of linux/magic.h.
const MAGIC: u64 = 0x6265_6572;
const DEVICE: DeviceId = DeviceId::new(0, 18);

/// There is one sysfs, however often it is mounted.
pub struct SysFs {
    source: SpinLock<Vec<u8>>,
}

static INSTANCE: Once<Arc<SysFs>> = Once::new();

fn instance() -> Arc<SysFs> {
    INSTANCE.call_once(|| Arc::new(SysFs { source: SpinLock::new(b"sysfs".to_vec()) })).clone()
}

/// sysfs, to be mounted. `source` is what the mount call names.
pub fn filesystem(source: &[u8]) -> Arc<dyn FileSystem> {
    let fs = instance();
    *fs.source.lock() = source.to_vec();
    fs
}

/// Makes the type known to mount(2).
pub fn init() {
    crate::fs::register_fs_type("sysfs", false, crate::fs::no_options, |request| {
        Op::ready(Ok(filesystem(request.source)))
    });
}

impl FileSystem for SysFs {
    fn type_name(&self) -> &'static str {
        "sysfs"
    }

    fn source(&self) -> Vec<u8> {
        self.source.lock().clone()
    }

    fn root(&self) -> Arc<dyn Inode> {
        SysInode::create(Node::Root)
    }

    fn device(&self) -> DeviceId {
        DEVICE
    }

    fn statfs(&self) -> StatFs {
        StatFs { magic: MAGIC, block_size: 4096, name_max: 255, ..StatFs::default() }
    }

    fn volatile_names(&self) -> bool {
        true
    }
}
