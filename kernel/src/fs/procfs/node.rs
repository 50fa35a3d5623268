//! The inodes of procfs and their directories.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use super::listing::{Listing, list_entry, list_processes, list_static};
use super::maps_file::MapsFile;
use super::mem_file::MemFile;
use super::memory;
use super::page_map::PageMap;
use super::process::{ENTRIES, Entry, EntryKind, TASK_ENTRIES};
use super::subject::Subject;
use super::text::Text;
use super::text_file::{LongText, Source, TextFile};
use super::{fds, system};
use crate::errno::{Errno, Result};
use crate::fs::file::FileOps;
use crate::fs::inode::{
    DeviceId, DirSink, FileSystem, FileType, Inode, Metadata, NewAttr, NewNode, RenameFlags, SetAttr,
};
use crate::fs::op::Op;
use crate::fs::path::{PATH_MAX, Path};
use crate::fs::state::InodeState;
use crate::process::{self, Credentials, Pid, Thread};
use crate::sync::Lazy;
use crate::time::Timespec;

/// An entry of the static part of the tree.
pub struct Static {
    pub name: &'static str,
    pub perm: u16,
    pub kind: StaticKind,
}

pub enum StaticKind {
    Dir(&'static [Static]),
    /// The root: also has the processes.
    Root(&'static [Static]),
    Text(fn(&mut Text)),
    /// One that takes a while: users decide how much is to be looked at.
    Long(LongText),
    /// A sysctl: shown, and set by a write.
    Setting(fn(&mut Text), fn(&[u8], &Credentials) -> Result<()>),
    Link(&'static str),
    /// self and thread-self.
    SelfLink,
    ThreadSelfLink,
}

impl Static {
    pub const fn dir(name: &'static str, entries: &'static [Static]) -> Static {
        Static { name, perm: 0o555, kind: StaticKind::Dir(entries) }
    }

    pub const fn text(name: &'static str, text: fn(&mut Text)) -> Static {
        Static { name, perm: 0o444, kind: StaticKind::Text(text) }
    }

    pub const fn long(name: &'static str, text: LongText) -> Static {
        Static { name, perm: 0o444, kind: StaticKind::Long(text) }
    }

    pub const fn link(name: &'static str, target: &'static str) -> Static {
        Static { name, perm: 0o777, kind: StaticKind::Link(target) }
    }
}

/// What an inode stands for.
#[derive(Clone)]
pub enum Node {
    Static(&'static Static),
    /// /proc/PID, /proc/PID/task/TID.
    Subject(Subject),
    /// What is in it.
    Entry(Subject, &'static Entry),
    /// /proc/PID/fd/N, /proc/PID/fdinfo/N.
    Fd(Subject, i32),
    FdInfo(Subject, i32),
}

pub struct ProcInode {
    node: Node,
    born: Timespec,
    state: InodeState,
}

/// Cookies of read_dir: "." is 0, ".." is 1, entries of tables follow. Processes come behind all of /proc's own entries.
pub(super) const FIRST_ENTRY: u64 = 2;
pub(super) const FIRST_PROCESS: u64 = 256;

impl ProcInode {
    pub fn node(&self) -> &Node {
        &self.node
    }
}

impl Node {
    fn of(subject: &Subject, entry: &'static Entry) -> Node {
        match entry.kind {
            EntryKind::Static(entry) => Node::Static(entry),
            _ => Node::Entry(subject.clone(), entry),
        }
    }

    pub fn kind(&self) -> FileType {
        match self {
            Node::Static(entry) => match entry.kind {
                StaticKind::Dir(_) | StaticKind::Root(_) => FileType::Directory,
                StaticKind::Text(_) | StaticKind::Long(_) | StaticKind::Setting(..) => FileType::Regular,
                StaticKind::Link(_) | StaticKind::SelfLink | StaticKind::ThreadSelfLink => FileType::Symlink,
            },
            Node::Subject(_) => FileType::Directory,
            Node::Entry(_, entry) => match entry.kind {
                EntryKind::Fds | EntryKind::FdInfos | EntryKind::Tasks | EntryKind::Static(_) => FileType::Directory,
                EntryKind::Link(_) => FileType::Symlink,
                EntryKind::Text(_)
                | EntryKind::Long(_)
                | EntryKind::Maps(_)
                | EntryKind::Discreet(_)
                | EntryKind::Memory(_)
                | EntryKind::Space
                | EntryKind::PageMap
                | EntryKind::Setting(..) => FileType::Regular,
            },
            Node::Fd(..) => FileType::Symlink,
            Node::FdInfo(..) => FileType::Regular,
        }
    }

    /// A number that is the same each time, and different for what exists at the same time: ids and descriptors are
    /// below 2^22, tables shorter than 64.
    pub fn ino(&self) -> u64 {
        let base = |subject: &Subject| {
            let thread = u64::from(subject.thread.is_some());
            (u64::from(subject.id()) << 26 | thread << 25) + (1 << 33)
        };
        match self {
            Node::Static(entry) if matches!(entry.kind, StaticKind::Root(_)) => 1,
            // Linux numbers its static entries from 0xf0000000 on.
            Node::Static(entry) => 0xf000_0000 | (core::ptr::from_ref(*entry).addr() as u64 >> 3 & 0x0fff_ffff),
            Node::Subject(subject) => base(subject),
            Node::Entry(subject, entry) => {
                base(subject) + 1 + ENTRIES.iter().position(|e| e.name == entry.name).unwrap_or(0) as u64
            }
            Node::Fd(subject, fd) => base(subject) + 64 + *fd as u64,
            Node::FdInfo(subject, fd) => base(subject) + (1 << 24) + *fd as u64,
        }
    }

    fn perm(&self) -> u16 {
        match self {
            Node::Static(entry) => entry.perm,
            Node::Subject(_) => 0o555,
            Node::Entry(_, entry) => entry.perm,
            Node::Fd(subject, fd) => fds::link_perm(subject, *fd),
            Node::FdInfo(..) => 0o444,
        }
    }

    fn nlink(&self) -> u32 {
        let subdirs = match self {
            Node::Static(Static { kind: StaticKind::Root(entries), .. }) => {
                subdirs_of(entries) + process::process_count()
            }
            Node::Static(Static { kind: StaticKind::Dir(entries), .. }) => subdirs_of(entries),
            Node::Subject(subject) => {
                let entries = entries_of(subject).iter();
                entries.filter(|entry| Node::of(subject, entry).kind() == FileType::Directory).count()
            }
            Node::Entry(subject, Entry { kind: EntryKind::Tasks, .. }) => subject.process.thread_count(),
            Node::Entry(_, Entry { kind: EntryKind::Fds | EntryKind::FdInfos, .. }) => 0,
            _ => return 1,
        };
        2 + subdirs as u32
    }

    fn owner(&self) -> (u32, u32) {
        match self {
            Node::Static(_) => (0, 0),
            Node::Subject(subject) => subject.owner(true),
            Node::Entry(subject, entry) => subject.owner(entry.perm == 0o555),
            Node::Fd(subject, _) | Node::FdInfo(subject, _) => subject.owner(false),
        }
    }

    fn child(&self, name: &[u8]) -> Result<Node> {
        match self {
            Node::Static(Static { kind: StaticKind::Dir(entries), .. }) => find_static(entries, name),
            Node::Static(Static { kind: StaticKind::Root(entries), .. }) => {
                if let Some(pid) = parse_number(name) {
                    return Subject::find(pid).map(Node::Subject).ok_or(Errno::ENOENT);
                }
                find_static(entries, name)
            }
            Node::Subject(subject) => {
                subject.check_exists()?;
                let entry = entries_of(subject).iter().find(|entry| entry.name.as_bytes() == name);
                entry.map(|entry| Node::of(subject, entry)).ok_or(Errno::ENOENT)
            }
            Node::Entry(subject, entry) => {
                let number = parse_number(name).ok_or(Errno::ENOENT)?;
                match entry.kind {
                    EntryKind::Tasks => {
                        let task = subject.process.tasks().find(|task| task.tid() == number);
                        let task = task.ok_or(Errno::ENOENT)?;
                        Ok(Node::Subject(Subject { process: subject.process.clone(), thread: Some(task) }))
                    }
                    EntryKind::Fds => fds::check(subject, number as i32).map(|fd| Node::Fd(subject.clone(), fd)),
                    EntryKind::FdInfos => {
                        fds::check(subject, number as i32).map(|fd| Node::FdInfo(subject.clone(), fd))
                    }
                    _ => Err(Errno::ENOTDIR),
                }
            }
            _ => Err(Errno::ENOTDIR),
        }
    }

    fn list(&self, out: &mut Listing<'_>) -> Result<()> {
        if !out.offer_node(0, self, b".") || !out.offer(1, self.parent_ino(), FileType::Directory, b"..") {
            return Ok(());
        }
        match self {
            Node::Static(Static { kind: StaticKind::Dir(entries), .. }) => {
                list_static(entries, out);
            }
            Node::Static(Static { kind: StaticKind::Root(entries), .. }) => {
                if list_static(entries, out) {
                    list_processes(out);
                }
            }
            Node::Subject(subject) => {
                subject.check_exists().map_err(|_| Errno::ENOENT)?;
                for (entry, cookie) in entries_of(subject).iter().zip(FIRST_ENTRY..) {
                    if !out.offer_node(cookie, &Node::of(subject, entry), entry.name.as_bytes()) {
                        break;
                    }
                }
            }
            Node::Entry(subject, entry) => list_entry(subject, entry, out)?,
            _ => return Err(Errno::ENOTDIR),
        }
        Ok(())
    }

    fn parent_ino(&self) -> u64 {
        match self {
            Node::Entry(subject, _) => Node::Subject(subject.clone()).ino(),
            // Deeper static directories do not know their parent: the walk does, and nothing else asks.
            _ => 1,
        }
    }
}

/// The text of a link, if it is no longer than a path may be.
fn short(text: Vec<u8>) -> Result<Vec<u8>> {
    if text.len() < PATH_MAX { Ok(text) } else { Err(Errno::ENAMETOOLONG) }
}

fn subdirs_of(entries: &[Static]) -> usize {
    entries.iter().filter(|entry| matches!(entry.kind, StaticKind::Dir(_))).count()
}

fn entries_of(subject: &Subject) -> &'static [Entry] {
    if subject.thread.is_some() { &ENTRIES[..TASK_ENTRIES] } else { ENTRIES }
}

fn find_static(entries: &'static [Static], name: &[u8]) -> Result<Node> {
    entries.iter().find(|entry| entry.name.as_bytes() == name).map(Node::Static).ok_or(Errno::ENOENT)
}

/// A decimal number without leading zeros.
fn parse_number(name: &[u8]) -> Option<Pid> {
    let canonical = name == b"0" || name.first() != Some(&b'0');
    let digits = canonical && name.iter().all(u8::is_ascii_digit);
    core::str::from_utf8(name).ok().filter(|_| digits)?.parse().ok().filter(|&n: &Pid| n < 1 << 22)
}

impl ProcInode {
    pub fn create(node: Node) -> Arc<dyn Inode> {
        static BORN: Lazy<Timespec> = Lazy::new(crate::fs::now);
        let born = match &node {
            Node::Static(_) => *BORN,
            _ => crate::fs::now(),
        };
        Arc::new(ProcInode { node, born, state: InodeState::default() })
    }

    /// The place that a link leads to, and may `thread` follow it.
    fn target(&self, thread: &Thread) -> Option<Result<Path>> {
        match &self.node {
            Node::Entry(subject, Entry { kind: EntryKind::Link(target), .. }) => {
                Some(subject.check_access(thread).and_then(|()| target(subject)))
            }
            Node::Fd(subject, fd) => Some(
                subject.check_access(thread).and_then(|()| fds::file(subject, *fd)).map(|file| file.path().clone()),
            ),
            _ => None,
        }
    }
}

impl Inode for ProcInode {
    fn metadata(&self) -> Metadata {
        let (uid, gid) = self.node.owner();
        Metadata {
            ino: self.node.ino(),
            kind: self.node.kind(),
            perm: self.node.perm(),
            nlink: self.node.nlink(),
            uid,
            gid,
            rdev: DeviceId::default(),
            size: if matches!(self.node, Node::Fd(..)) { 64 } else { 0 },
            block_size: 1024,
            blocks: 0,
            atime: self.born,
            mtime: self.born,
            ctime: self.born,
            btime: None,
        }
    }

    fn fs(&self) -> Arc<dyn FileSystem> {
        super::instance()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn state(&self) -> &InodeState {
        &self.state
    }

    fn kind(&self) -> FileType {
        self.node.kind()
    }

    /// Modes are what they are; owners and times cannot be kept. Truncation, by `>` in a shell, changes nothing.
    fn set_attr(&self, attr: SetAttr) -> Op<'_, Result<()>> {
        let chmod = attr.perm.is_some() && attr.uid.is_none() && attr.gid.is_none();
        Op::ready(if chmod { Err(Errno::EPERM) } else { Ok(()) })
    }

    /// A process looks into its own descriptors even when they belong to root, because it is not dumpable.
    fn grants(&self, thread: &Thread) -> bool {
        match &self.node {
            Node::Entry(subject, Entry { kind: EntryKind::Fds | EntryKind::FdInfos, .. }) => {
                Arc::ptr_eq(&subject.process, thread.process())
            }
            _ => false,
        }
    }

    fn lookup<'a>(&'a self, name: &'a [u8]) -> Op<'a, Result<Arc<dyn Inode>>> {
        Op::ready(self.node.child(name).map(ProcInode::create))
    }

    /// What lookup does not find cannot be made either: Linux gives its ENOENT.
    fn create<'a>(&'a self, _name: &'a [u8], _node: NewNode<'a>, _attr: NewAttr) -> Op<'a, Result<Arc<dyn Inode>>> {
        Op::ready(Err(Errno::ENOENT))
    }

    fn link<'a>(&'a self, _name: &'a [u8], _target: &'a Arc<dyn Inode>) -> Op<'a, Result<()>> {
        Op::ready(Err(Errno::ENOENT))
    }

    fn rename<'a>(
        &'a self,
        _old_name: &'a [u8],
        _moved: &'a Arc<dyn Inode>,
        _new_dir: &'a Arc<dyn Inode>,
        _new_name: &'a [u8],
        replaced: Option<&'a Arc<dyn Inode>>,
        _flags: RenameFlags,
    ) -> Op<'a, Result<()>> {
        Op::ready(Err(if replaced.is_some() { Errno::EPERM } else { Errno::ENOENT }))
    }

    fn read_dir<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Op<'a, Result<()>> {
        Op::ready(self.node.list(&mut Listing { from: cookie, sink }))
    }

    fn read_link(&self) -> Op<'_, Result<Vec<u8>>> {
        Op::ready(match &self.node {
            Node::Static(Static { kind: StaticKind::Link(target), .. }) => Ok(target.as_bytes().to_vec()),
            // The others need to know who asks.
            _ if self.node.kind() == FileType::Symlink => Err(Errno::EACCES),
            _ => Err(Errno::EINVAL),
        })
    }

    fn read_link_for(&self, thread: &Thread) -> Option<Result<Vec<u8>>> {
        let (pid, tid) = (thread.process().pid, thread.tid());
        match &self.node {
            Node::Static(Static { kind: StaticKind::SelfLink, .. }) => Some(Ok(format!("{pid}").into_bytes())),
            Node::Static(Static { kind: StaticKind::ThreadSelfLink, .. }) => {
                Some(Ok(format!("{pid}/task/{tid}").into_bytes()))
            }
            _ => Some(self.target(thread)?.and_then(|path| short(path.display(Some(&thread.fs().root()))))),
        }
    }

    fn magic_link(&self, thread: &Thread) -> Option<Result<Path>> {
        self.target(thread)
    }

    fn open<'a>(&'a self, _flags: u32, thread: &'a Thread) -> Op<'a, Result<Option<Arc<dyn FileOps>>>> {
        if let Node::Entry(subject, Entry { kind: EntryKind::Space, .. }) = &self.node {
            // The memory first: a program that comes later is not what the check was for.
            let file = MemFile::open(subject);
            return Op::ready(subject.check_access(thread).map(|()| Some(file as Arc<dyn FileOps>)));
        }
        if let Node::Entry(subject, Entry { kind: EntryKind::PageMap, .. }) = &self.node {
            let file = PageMap::open(subject, thread);
            return Op::ready(subject.check_access(thread).map(|()| Some(file as Arc<dyn FileOps>)));
        }
        if let Node::Entry(subject, Entry { kind: EntryKind::Maps(what), .. }) = &self.node {
            let file = MapsFile::open(subject, *what);
            return Op::ready(subject.check_access(thread).map(|()| Some(file as Arc<dyn FileOps>)));
        }
        Op::ready(self.open_text(thread).map(|file| file.map(|file| Arc::new(file) as Arc<dyn FileOps>)))
    }
}

impl ProcInode {
    fn open_text(&self, thread: &Thread) -> Result<Option<TextFile>> {
        let source = match &self.node {
            Node::Static(entry) => match entry.kind {
                StaticKind::Text(text) => Source::System(text),
                StaticKind::Long(text) => Source::Long(text),
                StaticKind::Setting(text, store) => Source::Setting(text, store),
                _ => return Ok(None),
            },
            Node::Entry(subject, entry) => match entry.kind {
                EntryKind::Text(text) if entry.private => Source::Private(subject.clone(), text),
                EntryKind::Text(text) => Source::Subject(subject.clone(), text),
                EntryKind::Long(text) => Source::LongSubject(subject.clone(), text),
                EntryKind::Discreet(text) => {
                    Source::Discreet(subject.clone(), text, subject.check_access(thread).is_ok())
                }
                EntryKind::Memory(what) => {
                    let space = memory::space_of(subject);
                    if entry.private {
                        subject.check_access(thread)?;
                    }
                    Source::Memory(subject.clone(), space, what)
                }
                EntryKind::Setting(text, store) => Source::SubjectSetting(subject.clone(), text, store),
                _ => return Ok(None),
            },
            Node::FdInfo(subject, fd) => {
                subject.check_access(thread)?;
                Source::FdInfo(subject.clone(), *fd)
            }
            _ => return Ok(None),
        };
        Ok(Some(TextFile::new(source, thread.creds().clone())))
    }
}

/// Keeps the table of the root short enough for the cookies.
const _: () = assert!(match &system::ROOT.kind {
    StaticKind::Root(entries) => entries.len() < (FIRST_PROCESS - FIRST_ENTRY) as usize,
    _ => false,
});
