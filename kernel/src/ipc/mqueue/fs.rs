//! The file system of message queues: one directory, whose files are the queues.
//!
//! There is one instance, mounted or not. mq_open and mq_unlink go to its directory directly; that is also why names are
//! not cached.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::Ordering;

use linux_raw_sys::general as raw;

use super::{NEXT_INO, Queue, Size};
use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::fs::perm::{self, Want};
use crate::fs::{
    Attributes, Dentry, DeviceId, DirSink, Events, FileOps, FileSystem, FileType, Inode, InodeState, Metadata, Mount,
    NewAttr, NewNode, Op, OpenFile, Path, SetAttr, StatFs, TryError,
};
use crate::mm::IoBuf;
use crate::process::{self, Thread};
use crate::sync::{Lazy, SpinLock};
use crate::time::Timespec;

/// MQUEUE_MAGIC of linux/magic.h.
const MAGIC: u64 = 0x1980_0202;
const DEVICE: DeviceId = DeviceId::new(0, 9);
const NAME_MAX: usize = 255;
/// What stat shows as the size of a queue, and of a name.
const QUEUE_SIZE: u64 = 80;
const ENTRY_SIZE: u64 = 20;
/// Cookies 1 and 2 come after "." and "..".
const FIRST: u64 = 2;

pub struct MqueueFs {
    root: Arc<MqInode>,
    source: SpinLock<Vec<u8>>,
}

struct Home {
    fs: Arc<MqueueFs>,
    mount: Arc<Mount>,
}

static HOME: Lazy<Home> = Lazy::new(|| {
    let attr = NewAttr { perm: 0o1777, uid: 0, gid: 0 };
    let root = MqInode::new(1, attr, Content::Root(SpinLock::default()));
    let fs = Arc::new(MqueueFs { root: root.clone(), source: SpinLock::new(b"mqueue".to_vec()) });
    Home { mount: Mount::new_internal(fs.clone(), Dentry::new_root(root)), fs }
});

/// Makes the type known to mount(2).
pub fn init() {
    crate::fs::register_fs_type("mqueue", false, crate::fs::no_options, |request| {
        *HOME.fs.source.lock() = request.source.to_vec();
        Op::ready(Ok(HOME.fs.clone() as Arc<dyn FileSystem>))
    });
}

/// An open queue.
pub struct MqFile(pub Arc<Queue>);

/// The queue of a descriptor; EBADF if it is none.
pub fn queue_of(file: &OpenFile) -> Result<&Arc<Queue>> {
    file.ops_as::<MqFile>().map(|file| &file.0).ok_or(Errno::EBADF)
}

/// mq_open(2). `name` has no slash: the C library took it away.
pub async fn open(t: &Thread, name: &[u8], flags: u32, mode: u32, size: Option<Size>) -> Result<Arc<OpenFile>> {
    let dir = &HOME.fs.root;
    check_name(t, dir, name)?;
    let _guard = dir.state.lock.lock().await;
    let inode = match dir.child(name) {
        None if flags & raw::O_CREAT == 0 => return Err(Errno::ENOENT),
        None => {
            perm::check(t.creds(), &**dir, Want::WRITE | Want::EXEC)?;
            let perm = (mode & 0o7777 & !t.fs().umask()) as u16;
            let attr = NewAttr { perm, uid: t.creds().fsuid, gid: t.creds().fsgid };
            dir.make(name, attr, Queue::new(t.task(), size)?)?
        }
        Some(_) if flags & (raw::O_CREAT | raw::O_EXCL) == raw::O_CREAT | raw::O_EXCL => return Err(Errno::EEXIST),
        Some(inode) => {
            let want = match flags & raw::O_ACCMODE {
                raw::O_RDONLY => Want::READ,
                raw::O_WRONLY => Want::WRITE,
                raw::O_RDWR => Want::READ | Want::WRITE,
                _ => return Err(Errno::EINVAL),
            };
            perm::check(t.creds(), &*inode, want)?;
            inode
        }
    };
    let queue = inode.queue().ok_or(Errno::EACCES)?.clone();
    let label = [b"/", name].concat();
    let place = Path { mount: HOME.mount.clone(), dentry: Dentry::new(None, &label, inode) };
    let flags = flags & !(raw::O_CREAT | raw::O_EXCL | raw::O_NOCTTY | raw::O_TRUNC | raw::O_CLOEXEC);
    Ok(OpenFile::with_ops(place, Arc::new(MqFile(queue)), flags))
}

/// mq_unlink(2).
pub async fn unlink(t: &Thread, name: &[u8]) -> Result<()> {
    let dir = &HOME.fs.root;
    check_name(t, dir, name)?;
    let _guard = dir.state.lock.lock().await;
    let victim = dir.child(name).ok_or(Errno::ENOENT)?;
    perm::check(t.creds(), &**dir, Want::WRITE | Want::EXEC)?;
    perm::check_sticky(t.creds(), &**dir, &*victim)?;
    dir.remove(name);
    Ok(())
}

/// What Linux says to names that are none.
fn check_name(t: &Thread, dir: &Arc<MqInode>, name: &[u8]) -> Result<()> {
    if name.is_empty() {
        return Err(Errno::ENOENT);
    }
    if name == b"." || name == b".." || name.contains(&b'/') {
        return Err(Errno::EACCES);
    }
    perm::check(t.creds(), &**dir, Want::EXEC)?;
    if name.len() > NAME_MAX { Err(Errno::ENAMETOOLONG) } else { Ok(()) }
}

enum Content {
    Root(SpinLock<Dir>),
    Queue(Arc<Queue>),
}

#[derive(Default)]
struct Dir {
    /// By number, which is the cookie before which the entry stands.
    entries: BTreeMap<u64, (Vec<u8>, Arc<MqInode>)>,
    by_name: BTreeMap<Vec<u8>, u64>,
    last: u64,
}

struct Attr {
    common: Attributes,
    nlink: u32,
}

pub struct MqInode {
    ino: u64,
    attr: SpinLock<Attr>,
    content: Content,
    state: InodeState,
}

impl MqInode {
    fn new(ino: u64, attr: NewAttr, content: Content) -> Arc<MqInode> {
        let nlink = if matches!(content, Content::Root(_)) { 2 } else { 1 };
        let attr = Attr { common: Attributes::new(attr), nlink };
        Arc::new(MqInode { ino, attr: SpinLock::new(attr), content, state: InodeState::default() })
    }

    fn queue(&self) -> Option<&Arc<Queue>> {
        match &self.content {
            Content::Queue(queue) => Some(queue),
            Content::Root(_) => None,
        }
    }

    fn dir(&self) -> Result<&SpinLock<Dir>> {
        match &self.content {
            Content::Root(dir) => Ok(dir),
            Content::Queue(_) => Err(Errno::ENOTDIR),
        }
    }

    fn child(&self, name: &[u8]) -> Option<Arc<MqInode>> {
        let dir = self.dir().ok()?.lock();
        let number = dir.by_name.get(name)?;
        dir.entries.get(number).map(|(_, inode)| inode.clone())
    }

    fn make(&self, name: &[u8], attr: NewAttr, queue: Queue) -> Result<Arc<MqInode>> {
        let ino = NEXT_INO.fetch_add(1, Ordering::Relaxed);
        let inode = MqInode::new(ino, attr, Content::Queue(Arc::new(queue)));
        let mut dir = self.dir()?.lock();
        dir.last = dir.last.max(FIRST) + 1;
        let number = dir.last;
        dir.by_name.insert(name.into(), number);
        dir.entries.insert(number, (name.into(), inode.clone()));
        drop(dir);
        self.touch();
        Ok(inode)
    }

    fn remove(&self, name: &[u8]) {
        let Ok(dir) = self.dir() else { return };
        let mut dir = dir.lock();
        let removed = dir.by_name.remove(name).and_then(|number| dir.entries.remove(&number));
        drop(dir);
        self.touch();
        if let Some((_, inode)) = removed {
            let mut attr = inode.attr.lock();
            attr.nlink = 0;
            attr.common.ctime = crate::fs::now();
        }
    }

    /// The directory has changed.
    fn touch(&self) {
        let now = crate::fs::now();
        let attr = &mut self.attr.lock().common;
        (attr.atime, attr.mtime, attr.ctime) = (now, now, now);
    }
}

impl Inode for MqInode {
    fn metadata(&self) -> Metadata {
        let (kind, size, used) = match &self.content {
            Content::Root(dir) => {
                let entries = dir.lock().entries.len() as u64;
                (FileType::Directory, (2 + entries) * ENTRY_SIZE, Timespec::default())
            }
            Content::Queue(queue) => (FileType::Regular, QUEUE_SIZE, queue.used()),
        };
        let Attr { common: attr, nlink } = &*self.attr.lock();
        Metadata {
            ino: self.ino,
            kind,
            perm: attr.perm,
            nlink: *nlink,
            uid: attr.uid,
            gid: attr.gid,
            rdev: DeviceId::default(),
            size,
            block_size: 4096,
            blocks: 0,
            atime: attr.atime.max(used),
            mtime: attr.mtime.max(used),
            ctime: attr.ctime.max(used),
            btime: None,
        }
    }

    fn fs(&self) -> Arc<dyn FileSystem> {
        HOME.fs.clone()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn state(&self) -> &InodeState {
        &self.state
    }

    fn set_attr(&self, new: SetAttr) -> Op<'_, Result<()>> {
        self.attr.lock().common.set(&new);
        Op::ready(Ok(()))
    }

    fn lookup<'a>(&'a self, name: &'a [u8]) -> Op<'a, Result<Arc<dyn Inode>>> {
        let found = self.child(name).map(|inode| inode as Arc<dyn Inode>);
        Op::ready(self.dir().and_then(|_| found.ok_or(Errno::ENOENT)))
    }

    /// A file that is made is a queue of the default size.
    fn create<'a>(&'a self, name: &'a [u8], node: NewNode<'a>, attr: NewAttr) -> Op<'a, Result<Arc<dyn Inode>>> {
        if !matches!(node, NewNode::Regular) {
            return Op::ready(Err(Errno::EPERM));
        }
        let queue = process::with_current(|task| task.map_or(Err(Errno::EPERM), |task| Queue::new(task, None)));
        Op::ready(queue.and_then(|queue| Ok(self.make(name, attr, queue)? as Arc<dyn Inode>)))
    }

    fn unlink<'a>(&'a self, name: &'a [u8], _target: &'a Arc<dyn Inode>) -> Op<'a, Result<()>> {
        self.remove(name);
        Op::ready(Ok(()))
    }

    fn read_dir<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Op<'a, Result<()>> {
        Op::ready(self.list(cookie, sink))
    }

    fn open<'a>(&'a self, _flags: u32, _thread: &'a Thread) -> Op<'a, Result<Option<Arc<dyn FileOps>>>> {
        Op::ready(Ok(self.queue().map(|queue| Arc::new(MqFile(queue.clone())) as Arc<dyn FileOps>)))
    }
}

impl MqInode {
    fn list(&self, cookie: u64, sink: &mut dyn DirSink) -> Result<()> {
        let dir = self.dir()?.lock();
        for (at, name) in [(0, b".".as_slice()), (1, b"..")] {
            if cookie <= at && !sink.entry(self.ino, at + 1, FileType::Directory, name) {
                return Ok(());
            }
        }
        for (number, (name, inode)) in dir.entries.range(cookie.max(FIRST) + 1..) {
            if !sink.entry(inode.ino, *number, FileType::Regular, name) {
                break;
            }
        }
        Ok(())
    }
}

impl FileSystem for MqueueFs {
    fn type_name(&self) -> &'static str {
        "mqueue"
    }

    fn source(&self) -> Vec<u8> {
        self.source.lock().clone()
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn device(&self) -> DeviceId {
        DEVICE
    }

    fn statfs(&self) -> StatFs {
        StatFs { magic: MAGIC, block_size: 4096, name_max: NAME_MAX as u64, ..StatFs::default() }
    }

    fn volatile_names(&self) -> bool {
        true
    }
}

impl FileOps for MqFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn try_read(&self, _file: &OpenFile, buf: &mut IoBuf<'_>, pos: u64) -> Result<usize, TryError> {
        let text: String = self.0.text();
        let rest = usize::try_from(pos).ok().and_then(|pos| text.as_bytes().get(pos..)).unwrap_or(&[]);
        if rest.is_empty() || buf.is_empty() { Ok(0) } else { Ok(buf.copy_to(rest)?) }
    }

    fn ready(&self) -> Events {
        self.0.ready()
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.poll)
    }

    fn seekable(&self) -> bool {
        true
    }

    fn size(&self) -> Option<u64> {
        Some(QUEUE_SIZE)
    }

    fn flush(&self) {
        self.0.closed();
    }
}
