//! procfs, proc(5): the state of the system and of its processes as files.
//!
//! Names are volatile: every lookup makes a new inode from what exists now. A [`Node`] says what an inode stands for:
//! an entry of the static tree (`system`, `sys`), the directory of a process or thread, or an entry of that (`process`).
//!
//! A file's text is made when it is read at position 0 and kept for the reads that follow, so one reader sees one
//! moment (`text_file`); that about mappings is made as it is read (`maps_file`). `text` knows the formats and nothing of the kernel.

mod fds;
mod listing;
mod lock_stat;
mod maps_file;
mod mem_file;
mod memory;
mod net;
mod net_counts;
mod net_interfaces;
mod node;
mod page_map;
mod process;
mod status;
mod subject;
mod sys;
mod system;
mod sysvipc;
pub mod text;
mod text_file;
mod waits;

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::fs::inode::{DeviceId, FileSystem, Inode, StatFs};
use crate::fs::op::Op;
use crate::process::Process;
use crate::sync::{Once, SpinLock};
pub use text_file::{Source, TextFile};

use node::{Node, ProcInode};
use subject::Subject;

/// PROC_SUPER_MAGIC of linux/magic.h.
const MAGIC: u64 = 0x9fa0;
/// The device number that `stat` shows for files of /proc.
const DEVICE: DeviceId = DeviceId::new(0, 5);

/// There is one procfs, however often it is mounted.
pub struct ProcFs {
    source: SpinLock<Vec<u8>>,
}

static INSTANCE: Once<Arc<ProcFs>> = Once::new();

fn instance() -> Arc<ProcFs> {
    INSTANCE.call_once(|| Arc::new(ProcFs { source: SpinLock::new(b"proc".to_vec()) })).clone()
}

/// procfs, to be mounted. `source` is what the mount call names, usually "proc".
pub fn filesystem(source: &[u8]) -> Arc<dyn FileSystem> {
    let fs = instance();
    *fs.source.lock() = source.to_vec();
    fs
}

/// The process whose directory this is: /proc/PID.
pub fn process_of(inode: &dyn Inode) -> Option<Arc<Process>> {
    match inode.as_any().downcast_ref::<ProcInode>()?.node() {
        Node::Subject(Subject { process, thread: None }) => Some(process.clone()),
        _ => None,
    }
}

/// Makes the type known to mount(2).
pub fn init() {
    crate::fs::register_fs_type("proc", false, crate::fs::no_options, |request| {
        Op::ready(Ok(filesystem(request.source)))
    });
}

impl FileSystem for ProcFs {
    fn type_name(&self) -> &'static str {
        "proc"
    }

    fn source(&self) -> Vec<u8> {
        self.source.lock().clone()
    }

    fn root(&self) -> Arc<dyn Inode> {
        ProcInode::create(Node::Static(&system::ROOT))
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
