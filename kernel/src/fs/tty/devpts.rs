//! devpts: the directory of pseudo-terminals, pts(4). There is one, however often it is mounted.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use super::pty::{self, Pty};
use crate::errno::{Errno, Result};
use crate::fs::dentry::Dentry;
use crate::fs::file::FileOps;
use crate::fs::inode::{DeviceId, DirSink, FileSystem, FileType, Inode, Metadata, SetAttr, StatFs};
use crate::fs::op::Op;
use crate::fs::state::InodeState;
use crate::process::Thread;
use crate::sync::{Once, SpinLock};

/// DEVPTS_SUPER_MAGIC of linux/magic.h.
const MAGIC: u64 = 0x1cd1;
const DEVICE: DeviceId = DeviceId::new(0, 17);
/// Inode numbers: the root is 1, ptmx 2, a slave its number plus 3, as on Linux.
const PTMX_INO: u64 = 2;
const FIRST_SLAVE_INO: u64 = 3;

pub struct DevPts {
    source: SpinLock<Vec<u8>>,
    /// Mount options: gid= (-1: the opener's), mode=, ptmxmode=.
    gid: AtomicI64,
    mode: AtomicU32,
    ptmx_mode: AtomicU32,
}

static INSTANCE: Once<Arc<DevPts>> = Once::new();

fn instance() -> &'static Arc<DevPts> {
    INSTANCE.call_once(|| {
        Arc::new(DevPts {
            source: SpinLock::new(b"devpts".to_vec()),
            gid: AtomicI64::new(-1),
            mode: AtomicU32::new(0o600),
            ptmx_mode: AtomicU32::new(0),
        })
    })
}

/// devpts, to be mounted with these options (mount(8), "Mount options for devpts"); EINVAL for others.
pub fn filesystem(source: &[u8], options: &[u8]) -> Result<Arc<dyn FileSystem>> {
    let fs = instance();
    for option in options.split(|&byte| byte == b',').filter(|option| !option.is_empty()) {
        let text = core::str::from_utf8(option).map_err(|_| Errno::EINVAL)?;
        let octal = |value| u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o777).ok_or(Errno::EINVAL);
        match text.split_once('=') {
            Some(("gid", value)) => {
                let gid: u32 = value.parse().map_err(|_| Errno::EINVAL)?;
                fs.gid.store(i64::from(gid), Ordering::Relaxed);
            }
            Some(("mode", value)) => fs.mode.store(octal(value)?, Ordering::Relaxed),
            Some(("ptmxmode", value)) => fs.ptmx_mode.store(octal(value)?, Ordering::Relaxed),
            None if text == "newinstance" => {}
            _ => return Err(Errno::EINVAL),
        }
    }
    *fs.source.lock() = source.to_vec();
    Ok(fs.clone())
}

/// Owner group and mode that the mount options give a new slave.
pub fn defaults() -> (Option<u32>, u32) {
    let fs = instance();
    (u32::try_from(fs.gid.load(Ordering::Relaxed)).ok(), fs.mode.load(Ordering::Relaxed))
}

pub fn is_instance(fs: &Arc<dyn FileSystem>) -> bool {
    fs.type_name() == "devpts"
}

/// The node of a slave, below this root of a devpts.
pub fn slave(root: &Arc<Dentry>, pty: &Arc<Pty>) -> Arc<Dentry> {
    let name = format!("{}", pty.index);
    Dentry::new(Some(root.clone()), name.as_bytes(), PtsInode::create(Node::Slave(pty.clone())))
}

impl FileSystem for DevPts {
    fn type_name(&self) -> &'static str {
        "devpts"
    }

    fn source(&self) -> Vec<u8> {
        self.source.lock().clone()
    }

    fn root(&self) -> Arc<dyn Inode> {
        PtsInode::create(Node::Root)
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

    fn options(&self) -> Vec<u8> {
        let (gid, mode) = defaults();
        let gid = gid.map_or_else(Default::default, |gid| format!(",gid={gid}"));
        format!("{gid},mode={mode:03o},ptmxmode={:03o}", self.ptmx_mode.load(Ordering::Relaxed)).into_bytes()
    }
}

enum Node {
    Root,
    Ptmx,
    Slave(Arc<Pty>),
}

struct PtsInode {
    node: Node,
    state: InodeState,
}

impl PtsInode {
    fn create(node: Node) -> Arc<dyn Inode> {
        Arc::new(PtsInode { node, state: InodeState::default() })
    }

    fn find(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        if !matches!(self.node, Node::Root) {
            return Err(Errno::ENOTDIR);
        }
        if name == b"ptmx" {
            return Ok(PtsInode::create(Node::Ptmx));
        }
        let index: u32 = core::str::from_utf8(name).ok().and_then(|name| name.parse().ok()).ok_or(Errno::ENOENT)?;
        let pty = pty::find(index).filter(|_| format!("{index}").as_bytes() == name).ok_or(Errno::ENOENT)?;
        Ok(PtsInode::create(Node::Slave(pty)))
    }
}

impl Inode for PtsInode {
    fn metadata(&self) -> Metadata {
        let now = crate::fs::now();
        let mut meta = Metadata {
            ino: 1,
            kind: self.kind(),
            perm: 0o755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: DeviceId::default(),
            size: 0,
            block_size: 1024,
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: None,
        };
        match &self.node {
            Node::Root => meta.nlink = 2,
            Node::Ptmx => {
                meta.ino = PTMX_INO;
                meta.perm = instance().ptmx_mode.load(Ordering::Relaxed) as u16;
                meta.rdev = pty::PTMX;
            }
            Node::Slave(pty) => {
                meta.ino = FIRST_SLAVE_INO + u64::from(pty.index);
                meta.perm = pty.perm.load(Ordering::Relaxed) as u16;
                meta.uid = pty.uid.load(Ordering::Relaxed);
                meta.gid = pty.gid.load(Ordering::Relaxed);
                meta.rdev = pty.device();
            }
        }
        meta
    }

    fn fs(&self) -> Arc<dyn FileSystem> {
        instance().clone()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn state(&self) -> &InodeState {
        &self.state
    }

    fn kind(&self) -> FileType {
        if matches!(self.node, Node::Root) { FileType::Directory } else { FileType::CharDevice }
    }

    fn set_attr(&self, attr: SetAttr) -> Op<'_, Result<()>> {
        let Node::Slave(pty) = &self.node else { return Op::ready(Err(Errno::EPERM)) };
        if let Some(perm) = attr.perm {
            pty.perm.store(u32::from(perm & 0o777), Ordering::Relaxed);
        }
        if let Some(uid) = attr.uid {
            pty.uid.store(uid, Ordering::Relaxed);
        }
        if let Some(gid) = attr.gid {
            pty.gid.store(gid, Ordering::Relaxed);
        }
        Op::ready(Ok(()))
    }

    fn lookup<'a>(&'a self, name: &'a [u8]) -> Op<'a, Result<Arc<dyn Inode>>> {
        Op::ready(self.find(name))
    }

    fn read_dir<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Op<'a, Result<()>> {
        if !matches!(self.node, Node::Root) {
            return Op::ready(Err(Errno::ENOTDIR));
        }
        let fixed =
            [(1, FileType::Directory, &b"."[..]), (1, FileType::Directory, b".."), (2, FileType::CharDevice, b"ptmx")];
        for (at, (ino, kind, name)) in (0..).zip(fixed) {
            if at >= cookie && !sink.entry(ino, at + 1, kind, name) {
                return Op::ready(Ok(()));
            }
        }
        for pty in pty::all() {
            let at = FIRST_SLAVE_INO + u64::from(pty.index);
            if at >= cookie && !sink.entry(at, at + 1, FileType::CharDevice, format!("{}", pty.index).as_bytes()) {
                break;
            }
        }
        Op::ready(Ok(()))
    }

    fn open<'a>(&'a self, flags: u32, thread: &'a Thread) -> Op<'a, Result<Option<Arc<dyn FileOps>>>> {
        let id = match &self.node {
            Node::Root => return Op::ready(Ok(None)),
            Node::Ptmx => pty::PTMX,
            Node::Slave(pty) => pty.device(),
        };
        Op::ready(super::open(id, flags, thread).map(Some))
    }
}
