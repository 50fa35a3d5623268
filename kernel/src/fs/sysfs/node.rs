//! What is in sysfs.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::hash::{Hash, Hasher};

use super::net;
use crate::arch;
use crate::errno::{Errno, Result};
use crate::fs::block::{self, Disk};
use crate::fs::file::FileOps;
use crate::fs::inode::{DeviceId, DirSink, FileSystem, FileType, Inode, Metadata, SetAttr};
use crate::fs::loops;
use crate::fs::op::Op;
use crate::fs::procfs::text::{Text, put, put_list};
use crate::fs::procfs::{Source, TextFile};
use crate::fs::state::InodeState;
use crate::mm::huge;
use crate::process::{Credentials, Thread};

pub type Name = Cow<'static, str>;

#[derive(Clone, Hash)]
pub enum Node {
    Root,
    /// A directory with nothing of ours in it.
    Empty,
    Devices,
    System,
    Cpus,
    Cpu(usize),
    /// /sys/block, /sys/class/block, /sys/dev/block: links to the disks, which are below /sys/devices: loop devices in
    /// virtual/block, the others in virtio.
    Class,
    Dev,
    Links(LinkStyle),
    Virtual,
    Disks(Bus),
    Disk(String),
    Queue(String),
    /// /sys/class/net, and where its links lead: below /sys/devices/virtual/net.
    NetLinks,
    Nets,
    Net(String),
    Loop(String),
    Kernel,
    Memory,
    /// transparent_hugepage.
    HugePages,
    Text(fn(&str, &mut Text), String),
    Setting(fn(&mut Text), fn(&[u8], &Credentials) -> Result<()>),
    Link(String),
}

/// How disks are named and where the directory is.
#[derive(Clone, Copy, Hash)]
pub enum LinkStyle {
    Block,
    ClassBlock,
    DevBlock,
}

#[derive(Clone, Copy, Hash, PartialEq, Eq)]
pub enum Bus {
    Virtual,
    Virtio,
}

impl Bus {
    fn of(disk: &Disk) -> Bus {
        if loops::is_loop(disk) { Bus::Virtual } else { Bus::Virtio }
    }

    fn path(self) -> &'static str {
        match self {
            Bus::Virtual => "virtual/block",
            Bus::Virtio => "virtio",
        }
    }
}

pub type Entries = Vec<(Name, Node)>;

fn named(name: &'static str, node: Node) -> (Name, Node) {
    (Name::Borrowed(name), node)
}

pub fn text(name: &'static str, disk: &str, text: fn(&str, &mut Text)) -> (Name, Node) {
    named(name, Node::Text(text, disk.into()))
}

fn setting(name: &'static str, show: fn(&mut Text), store: fn(&[u8], &Credentials) -> Result<()>) -> (Name, Node) {
    named(name, Node::Setting(show, store))
}

/// All values, the current one in brackets.
fn put_choice(out: &mut Text, choice: &huge::Choice) {
    for (index, name) in choice.names.iter().enumerate() {
        let space = if index == 0 { "" } else { " " };
        if index == choice.get() {
            put!(out, "{space}[{name}]");
        } else {
            put!(out, "{space}{name}");
        }
    }
    put!(out, "\n");
}

impl Node {
    fn kind(&self) -> FileType {
        match self {
            Node::Text(..) | Node::Setting(..) => FileType::Regular,
            Node::Link(_) => FileType::Symlink,
            _ => FileType::Directory,
        }
    }

    fn ino(&self) -> u64 {
        match self {
            Node::Root => 1,
            // Fixed keys: the same node has the same number each time.
            #[allow(deprecated)]
            node => {
                let mut hasher = core::hash::SipHasher::new();
                node.hash(&mut hasher);
                hasher.finish() >> 16 | 2
            }
        }
    }

    /// None if this is not a directory.
    fn entries(&self) -> Option<Entries> {
        Some(match self {
            Node::Root => vec![
                named("block", Node::Links(LinkStyle::Block)),
                named("bus", Node::Empty),
                named("class", Node::Class),
                named("dev", Node::Dev),
                named("devices", Node::Devices),
                named("firmware", Node::Empty),
                named("fs", Node::Empty),
                named("kernel", Node::Kernel),
                named("module", Node::Empty),
                named("power", Node::Empty),
            ],
            Node::Empty => Vec::new(),
            Node::Class => vec![named("block", Node::Links(LinkStyle::ClassBlock)), named("net", Node::NetLinks)],
            Node::NetLinks => net::links(),
            Node::Nets => net::interfaces(),
            Node::Net(name) => net::attributes(name),
            Node::Dev => vec![named("block", Node::Links(LinkStyle::DevBlock)), named("char", Node::Empty)],
            Node::Devices => vec![
                named("system", Node::System),
                named("virtio", Node::Disks(Bus::Virtio)),
                named("virtual", Node::Virtual),
            ],
            Node::Virtual => vec![named("block", Node::Disks(Bus::Virtual)), named("net", Node::Nets)],
            Node::System => vec![named("cpu", Node::Cpus)],
            Node::Cpus => cpus(),
            Node::Cpu(_) => vec![text("online", "", |_, out| put!(out, "1\n"))],
            Node::Disks(bus) => {
                let disks = block::disks().into_iter().filter(|disk| Bus::of(disk) == *bus);
                disks.map(|d| (Name::Owned(d.name.clone()), Node::Disk(d.name))).collect()
            }
            Node::Links(style) => block::disks().iter().map(|disk| link(disk, *style)).collect(),
            Node::Disk(name) => disk_entries(name),
            Node::Queue(name) => vec![
                text("hw_sector_size", name, put_block_size),
                text("logical_block_size", name, put_block_size),
                text("physical_block_size", name, put_block_size),
                text("rotational", name, |_, out| put!(out, "1\n")),
            ],
            Node::Loop(name) => loop_entries(name),
            Node::Kernel => vec![named("mm", Node::Memory)],
            Node::Memory => vec![named("transparent_hugepage", Node::HugePages)],
            Node::HugePages => vec![
                setting("defrag", |out| put_choice(out, &huge::DEFRAG), |bytes, _| huge::DEFRAG.set(bytes)),
                setting("enabled", |out| put_choice(out, &huge::ENABLED), |bytes, _| huge::ENABLED.set(bytes)),
                text("hpage_pmd_size", "", |_, out| put!(out, "{}\n", huge::SIZE)),
            ],
            Node::Text(..) | Node::Setting(..) | Node::Link(_) => return None,
        })
    }
}

fn cpus() -> Entries {
    fn put_cpus(_: &str, out: &mut Text) {
        put_list(out, u64::MAX >> (64 - arch::cpu_count().clamp(1, 64)));
        out.bytes(b"\n");
    }
    let mut entries: Entries =
        (0..arch::cpu_count()).map(|cpu| (Name::Owned(format!("cpu{cpu}")), Node::Cpu(cpu))).collect();
    entries.extend([
        text("kernel_max", "", |_, out| put!(out, "{}\n", arch::MAX_CPUS - 1)),
        text("offline", "", |_, out| put!(out, "\n")),
        text("online", "", put_cpus),
        text("possible", "", put_cpus),
        text("present", "", put_cpus),
    ]);
    entries
}

fn link(disk: &Disk, style: LinkStyle) -> (Name, Node) {
    let (up, name) = match style {
        LinkStyle::Block => ("../", disk.name.clone()),
        LinkStyle::ClassBlock => ("../../", disk.name.clone()),
        LinkStyle::DevBlock => ("../../", format!("{}:{}", disk.id.major, disk.id.minor)),
    };
    (Name::Owned(name), Node::Link(format!("{up}devices/{}/{}", Bus::of(disk).path(), disk.name)))
}

fn with(name: &str, show: impl FnOnce(&Disk)) {
    if let Some(disk) = block::find_by_name(name) {
        show(&disk);
    }
}

fn put_block_size(name: &str, out: &mut Text) {
    with(name, |disk| put!(out, "{}\n", disk.device.logical_block()));
}

fn loop_entries(name: &str) -> Entries {
    fn summary(name: &str, show: impl FnOnce(loops::Summary)) {
        with(name, |disk| {
            if let Some(summary) = loops::summary(disk) {
                show(summary);
            }
        });
    }
    vec![
        text("autoclear", name, |name, out| summary(name, |s| put!(out, "{}\n", u8::from(s.autoclear)))),
        text("backing_file", name, |name, out| {
            summary(name, |s| {
                out.bytes(&s.file);
                out.bytes(b"\n");
            })
        }),
        text("dio", name, |_, out| put!(out, "0\n")),
        text("offset", name, |name, out| summary(name, |s| put!(out, "{}\n", s.offset))),
        text("partscan", name, |_, out| put!(out, "0\n")),
        text("sizelimit", name, |name, out| summary(name, |s| put!(out, "{}\n", s.size_limit))),
    ]
}

fn disk_entries(name: &str) -> Entries {
    let mut entries = vec![
        text("dev", name, |name, out| with(name, |d| put!(out, "{}:{}\n", d.id.major, d.id.minor))),
        named("queue", Node::Queue(name.into())),
        text("range", name, |_, out| put!(out, "16\n")),
        text("removable", name, |_, out| put!(out, "0\n")),
        text("ro", name, |name, out| with(name, |d| put!(out, "{}\n", u8::from(d.device.read_only())))),
        text("size", name, |name, out| with(name, |d| put!(out, "{}\n", d.device.sectors()))),
        text("stat", name, |name, out| {
            with(name, |disk| disk.device.put_stats(out, true));
            out.bytes(b"\n");
        }),
        text("uevent", name, |name, out| {
            with(name, |d| {
                put!(out, "MAJOR={}\nMINOR={}\nDEVNAME={name}\nDEVTYPE=disk\n", d.id.major, d.id.minor);
            })
        }),
    ];
    if block::find_by_name(name).is_some_and(|disk| loops::summary(&disk).is_some()) {
        entries.push(named("loop", Node::Loop(name.into())));
    }
    entries
}

pub struct SysInode {
    node: Node,
    state: InodeState,
}

impl SysInode {
    pub fn create(node: Node) -> Arc<dyn Inode> {
        Arc::new(SysInode { node, state: InodeState::default() })
    }
}

impl Inode for SysInode {
    fn metadata(&self) -> Metadata {
        let kind = self.node.kind();
        let (perm, nlink, size) = match kind {
            FileType::Directory => {
                let entries = self.node.entries().unwrap_or_default();
                (0o755, 2 + entries.iter().filter(|(_, e)| e.kind() == FileType::Directory).count() as u32, 0)
            }
            FileType::Symlink => (0o777, 1, 0),
            // Linux gives every attribute the size of a page.
            _ if matches!(self.node, Node::Setting(..)) => (0o644, 1, 4096),
            _ => (0o444, 1, 4096),
        };
        let now = crate::fs::now();
        Metadata {
            ino: self.node.ino(),
            kind,
            perm,
            nlink,
            uid: 0,
            gid: 0,
            rdev: DeviceId::default(),
            size,
            block_size: 4096,
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
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

    fn set_attr(&self, attr: SetAttr) -> Op<'_, Result<()>> {
        let changes = attr.perm.is_some() || attr.uid.is_some() || attr.gid.is_some();
        Op::ready(if changes { Err(Errno::EPERM) } else { Ok(()) })
    }

    fn lookup<'a>(&'a self, name: &'a [u8]) -> Op<'a, Result<Arc<dyn Inode>>> {
        let find = || {
            let entries = self.node.entries().ok_or(Errno::ENOTDIR)?;
            let found = entries.into_iter().find(|(entry, _)| entry.as_bytes() == name);
            found.map(|(_, node)| SysInode::create(node)).ok_or(Errno::ENOENT)
        };
        Op::ready(find())
    }

    fn read_dir<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Op<'a, Result<()>> {
        let Some(entries) = self.node.entries() else { return Op::ready(Err(Errno::ENOTDIR)) };
        let dots = [(Name::Borrowed("."), self.node.clone()), (Name::Borrowed(".."), Node::Root)];
        for (at, (name, node)) in (0..).zip(dots.into_iter().chain(entries)) {
            if at >= cookie && !sink.entry(node.ino(), at + 1, node.kind(), name.as_bytes()) {
                break;
            }
        }
        Op::ready(Ok(()))
    }

    fn read_link(&self) -> Op<'_, Result<Vec<u8>>> {
        Op::ready(match &self.node {
            Node::Link(target) => Ok(target.clone().into_bytes()),
            _ => Err(Errno::EINVAL),
        })
    }

    fn open<'a>(&'a self, _flags: u32, thread: &'a Thread) -> Op<'a, Result<Option<Arc<dyn FileOps>>>> {
        let source = match &self.node {
            Node::Text(show, about) => Source::Attribute(*show, about.clone()),
            Node::Setting(show, store) => Source::Setting(*show, *store),
            _ => return Op::ready(Ok(None)),
        };
        Op::ready(Ok(Some(Arc::new(TextFile::new(source, thread.creds().clone())))))
    }
}
