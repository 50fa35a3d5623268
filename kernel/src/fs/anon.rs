//! Files without a place in the tree: pipes, sockets, and what Linux calls anonymous inodes.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering};

use super::dentry::Dentry;
use super::file::FileOps;
use super::inode::{Attributes, DeviceId, FileSystem, FileType, Inode, Metadata, NewAttr, SetAttr, StatFs};
use super::mount::Mount;
use super::op::Op;
use super::open_file::{Kind, OpenFile};
use super::path::Path;
use super::perm;
use super::pipe::Pipe;
use super::state::{Hold, InodeState};
use crate::errno::Result;
use crate::sync::{Lazy, SpinLock};

/// What /proc/PID/fd shows.
pub enum Label<'a> {
    /// "anon_inode:NAME"
    Inode(&'a str),
    /// "pipe:\[INO\]"
    Pipe(&'a Arc<Pipe>),
    /// "socket:\[INO\]"
    Socket,
}

struct AnonFs {
    name: &'static str,
    magic: u64,
    minor: u32,
}

struct AnonInode {
    fs: Arc<AnonFs>,
    ino: u64,
    kind: FileType,
    attr: SpinLock<Attributes>,
    /// What /proc/PID/fd/N of a pipe opens.
    pipe: Weak<Pipe>,
    state: InodeState,
}

struct Home {
    fs: Arc<AnonFs>,
    mount: Arc<Mount>,
}

fn home(name: &'static str, magic: u64, minor: u32) -> Home {
    let fs = Arc::new(AnonFs { name, magic, minor });
    let root = Dentry::new_root(new_inode(&fs, FileType::Directory, 0o555));
    Home { mount: Mount::new_internal(fs.clone(), root), fs }
}

// Magic numbers of linux/magic.h.
static INODES: Lazy<Home> = Lazy::new(|| home("anon_inodefs", 0x0904_1934, 13));
static PIPES: Lazy<Home> = Lazy::new(|| home("pipefs", 0x5049_5045, 12));
static SOCKETS: Lazy<Home> = Lazy::new(|| home("sockfs", 0x534f_434b, 8));
static NEXT_INO: AtomicU64 = AtomicU64::new(1024);

fn new_inode(fs: &Arc<AnonFs>, kind: FileType, perm: u16) -> Arc<dyn Inode> {
    new_inode_for(fs, kind, perm, Weak::new())
}

fn new_inode_for(fs: &Arc<AnonFs>, kind: FileType, perm: u16, pipe: Weak<Pipe>) -> Arc<dyn Inode> {
    // Pipes and sockets are their maker's; what Linux calls anonymous inodes is nobody's.
    let (uid, gid) = match kind {
        FileType::Fifo | FileType::Socket => perm::current_ids(),
        _ => (0, 0),
    };
    Arc::new(AnonInode {
        pipe,
        fs: fs.clone(),
        ino: NEXT_INO.fetch_add(1, Ordering::Relaxed),
        kind,
        attr: SpinLock::new(Attributes::new(NewAttr { perm, uid, gid })),
        state: InodeState::default(),
    })
}

/// A nameless inode's place.
pub fn place(label: Label<'_>) -> Path {
    let (home, kind, perm) = match label {
        Label::Inode(_) => (&*INODES, FileType::Regular, 0o600),
        Label::Pipe(_) => (&*PIPES, FileType::Fifo, 0o600),
        Label::Socket => (&*SOCKETS, FileType::Socket, 0o777),
    };
    let inode = match label {
        Label::Pipe(pipe) => new_inode_for(&home.fs, kind, perm, Arc::downgrade(pipe)),
        _ => new_inode(&home.fs, kind, perm),
    };
    let name: Vec<u8> = match label {
        Label::Inode(name) => [b"anon_inode:", name.as_bytes()].concat(),
        Label::Pipe(_) => format!("pipe:[{}]", inode.metadata().ino).into_bytes(),
        Label::Socket => format!("socket:[{}]", inode.metadata().ino).into_bytes(),
    };
    Path { mount: home.mount.clone(), dentry: Dentry::new(None, &name, inode) }
}

/// The pipe that an inode of a pipe stands for.
pub fn pipe_of(inode: &dyn Inode) -> Option<Arc<Pipe>> {
    inode.as_any().downcast_ref::<AnonInode>()?.pipe.upgrade()
}

pub fn file(label: Label<'_>, ops: Arc<dyn FileOps>, flags: u32) -> Arc<OpenFile> {
    OpenFile::new(place(label), Kind::Ops(ops), flags, Hold::None)
}

impl Inode for AnonInode {
    fn metadata(&self) -> Metadata {
        let attr = self.attr.lock();
        Metadata {
            ino: self.ino,
            kind: self.kind,
            perm: attr.perm,
            nlink: 1,
            uid: attr.uid,
            gid: attr.gid,
            rdev: DeviceId::default(),
            size: 0,
            block_size: 4096,
            blocks: 0,
            atime: attr.atime,
            mtime: attr.mtime,
            ctime: attr.ctime,
            btime: None,
        }
    }

    fn fs(&self) -> Arc<dyn FileSystem> {
        self.fs.clone()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn state(&self) -> &InodeState {
        &self.state
    }

    fn kind(&self) -> FileType {
        self.kind
    }

    fn set_attr(&self, new: SetAttr) -> Op<'_, Result<()>> {
        self.attr.lock().set(&new);
        Op::ready(Ok(()))
    }
}

impl FileSystem for AnonFs {
    fn type_name(&self) -> &'static str {
        self.name
    }

    fn source(&self) -> Vec<u8> {
        self.name.into()
    }

    fn root(&self) -> Arc<dyn Inode> {
        let home = match self.minor {
            12 => &*PIPES,
            8 => &*SOCKETS,
            _ => &*INODES,
        };
        home.mount.root().inode().clone()
    }

    fn device(&self) -> DeviceId {
        DeviceId::new(0, self.minor)
    }

    fn statfs(&self) -> StatFs {
        StatFs { magic: self.magic, block_size: 4096, name_max: 255, ..StatFs::default() }
    }
}

#[cfg(test)]
pub fn test_file() -> Arc<OpenFile> {
    struct Nothing;
    impl FileOps for Nothing {
        fn as_any(&self) -> &dyn Any {
            self
        }
    }
    OpenFile::new_anon("[test]", Arc::new(Nothing), 2)
}
