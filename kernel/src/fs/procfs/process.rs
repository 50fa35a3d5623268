//! The entries of /proc/PID and /proc/PID/task/TID.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::maps_file::Maps;
use super::memory::Memory;
use super::net;
use super::node::Static;
use super::status;
use super::subject::Subject;
use super::text::{Text, put, put_limit, trim_nul};
use super::text_file::{DiscreetText, LongSubjectText, SubjectStore, SubjectText, parse};
use super::waits;
use crate::errno::{Errno, Result};
use crate::fs::mount;
use crate::fs::op::Op;
use crate::fs::path::Path;
use crate::process::limits::INFINITY;
use crate::process::ptrace::watch;
use crate::process::{self, Caps, Credentials, Resource};

pub struct Entry {
    pub name: &'static str,
    pub perm: u16,
    /// It is for those only who may look into the process: text when they read it, the others when they open it.
    pub private: bool,
    pub kind: EntryKind,
}

pub enum EntryKind {
    Text(SubjectText),
    Long(LongSubjectText),
    /// Text that says less to those who may not look into the process.
    Discreet(DiscreetText),
    Setting(SubjectText, SubjectStore),
    Memory(Memory),
    Maps(Maps),
    /// All of its memory.
    Space,
    /// Where that is.
    PageMap,
    /// A magic link.
    Link(fn(&Subject) -> Result<Path>),
    Fds,
    FdInfos,
    Tasks,
    /// The same for all processes.
    Static(&'static Static),
}

const fn text(name: &'static str, text: SubjectText) -> Entry {
    Entry { name, perm: 0o444, private: false, kind: EntryKind::Text(text) }
}

const fn long(name: &'static str, text: LongSubjectText) -> Entry {
    Entry { name, perm: 0o444, private: false, kind: EntryKind::Long(text) }
}

const fn private(name: &'static str, perm: u16, text: SubjectText) -> Entry {
    Entry { name, perm, private: true, kind: EntryKind::Text(text) }
}

const fn mappings(name: &'static str, what: Maps) -> Entry {
    Entry { name, perm: 0o444, private: true, kind: EntryKind::Maps(what) }
}

const fn link(name: &'static str, target: fn(&Subject) -> Result<Path>) -> Entry {
    Entry { name, perm: 0o777, private: true, kind: EntryKind::Link(target) }
}

const fn dir(name: &'static str, perm: u16, kind: EntryKind) -> Entry {
    Entry { name, perm, private: false, kind }
}

/// How many of [`ENTRIES`] a thread has, too.
pub const TASK_ENTRIES: usize = ENTRIES.len() - 1;

/// All of them; the last is for processes only.
pub static ENTRIES: &[Entry] = &[
    dir("fd", 0o500, EntryKind::Fds),
    dir("fdinfo", 0o555, EntryKind::FdInfos),
    Entry { name: "environ", perm: 0o400, private: true, kind: EntryKind::Memory(Memory::Environ) },
    Entry { name: "auxv", perm: 0o400, private: true, kind: EntryKind::Memory(Memory::Auxv) },
    text("status", status::status),
    private("personality", 0o400, personality),
    text("limits", limits),
    Entry { name: "comm", perm: 0o644, private: false, kind: EntryKind::Setting(comm, set_comm) },
    Entry { name: "cmdline", perm: 0o444, private: false, kind: EntryKind::Memory(Memory::Cmdline) },
    Entry { name: "stat", perm: 0o444, private: false, kind: EntryKind::Discreet(status::stat) },
    text("statm", status::statm),
    mappings("maps", Maps::Lines),
    Entry { name: "mem", perm: 0o600, private: true, kind: EntryKind::Space },
    link("cwd", cwd),
    link("root", root),
    link("exe", exe),
    long("mounts", mounts),
    long("mountinfo", mountinfo),
    mappings("smaps", Maps::Usage),
    mappings("smaps_rollup", Maps::Sum),
    Entry { name: "pagemap", perm: 0o400, private: true, kind: EntryKind::PageMap },
    Entry { name: "wchan", perm: 0o444, private: false, kind: EntryKind::Discreet(waits::wchan) },
    private("await", 0o400, waits::waits_for),
    private("stack", 0o400, waits::stack),
    private("syscall", 0o400, waits::syscall),
    text("oom_score", |_, out| {
        put!(out, "0\n");
        Ok(())
    }),
    Entry {
        name: "oom_score_adj",
        perm: 0o644,
        private: false,
        kind: EntryKind::Setting(oom_score_adj, set_oom_score_adj),
    },
    Entry { name: "io", perm: 0o400, private: false, kind: EntryKind::Text(io) },
    Entry { name: "trace", perm: 0o600, private: false, kind: EntryKind::Setting(traced, set_traced) },
    dir("net", 0o555, EntryKind::Static(&net::DIR)),
    dir("task", 0o555, EntryKind::Tasks),
];

fn personality(subject: &Subject, out: &mut Text) -> Result<()> {
    put!(out, "{:08x}\n", subject.task()?.personality.load(Ordering::Relaxed));
    Ok(())
}

fn limits(subject: &Subject, out: &mut Text) -> Result<()> {
    const NAMES: [(Resource, &str, &str); 16] = [
        (Resource::Cpu, "Max cpu time", "seconds"),
        (Resource::Fsize, "Max file size", "bytes"),
        (Resource::Data, "Max data size", "bytes"),
        (Resource::Stack, "Max stack size", "bytes"),
        (Resource::Core, "Max core file size", "bytes"),
        (Resource::Rss, "Max resident set", "bytes"),
        (Resource::Nproc, "Max processes", "processes"),
        (Resource::Nofile, "Max open files", "files"),
        (Resource::Memlock, "Max locked memory", "bytes"),
        (Resource::As, "Max address space", "bytes"),
        (Resource::Locks, "Max file locks", "locks"),
        (Resource::Sigpending, "Max pending signals", "signals"),
        (Resource::Msgqueue, "Max msgqueue size", "bytes"),
        (Resource::Nice, "Max nice priority", ""),
        (Resource::Rtprio, "Max realtime priority", ""),
        (Resource::Rttime, "Max realtime timeout", "us"),
    ];
    put!(out, "{:<25} {:<20} {:<20} {:<10}\n", "Limit", "Soft Limit", "Hard Limit", "Units");
    for (resource, name, unit) in NAMES {
        let limit = subject.process.limits.get(resource);
        let finite = |value: u64| (value != INFINITY).then_some(value);
        put_limit(out, name, finite(limit.soft), finite(limit.hard), unit);
    }
    Ok(())
}

fn comm(subject: &Subject, out: &mut Text) -> Result<()> {
    out.bytes(trim_nul(&subject.comm())).bytes(b"\n");
    Ok(())
}

fn set_comm(subject: &Subject, bytes: &[u8], _creds: &Credentials) -> Result<()> {
    let task = subject.task()?;
    // Only threads of the same process may.
    if !process::with_current(|writer| writer.is_some_and(|writer| Arc::ptr_eq(writer.process(), &subject.process))) {
        return Err(Errno::EINVAL);
    }
    task.set_comm(bytes.strip_suffix(b"\n").unwrap_or(bytes));
    Ok(())
}

/// Of the thread, or of all threads of the process.
fn io(subject: &Subject, out: &mut Text) -> Result<()> {
    subject.check_current()?;
    let usage = match &subject.thread {
        Some(task) => task.io_usage(),
        None => subject.process.io_usage(),
    };
    let [read, written, cancelled] = usage.storage;
    put!(out, "rchar: {}\nwchar: {}\n", usage.read, usage.written);
    put!(out, "syscr: {}\nsyscw: {}\n", usage.reads, usage.writes);
    put!(out, "read_bytes: {read}\nwrite_bytes: {written}\ncancelled_write_bytes: {cancelled}\n");
    Ok(())
}

fn traced(subject: &Subject, out: &mut Text) -> Result<()> {
    put!(out, "{}\n", subject.task()?.watch.load(Ordering::Relaxed) & watch::RECORDED);
    Ok(())
}

/// 1 or 0: whether the thread's system calls are recorded for /proc/pollux/trace.
fn set_traced(subject: &Subject, bytes: &[u8], creds: &Credentials) -> Result<()> {
    if !creds.capable(Caps::SYS_PTRACE) {
        return Err(Errno::EPERM);
    }
    let on = match parse(bytes)? {
        0 => false,
        1 => true,
        _ => return Err(Errno::EINVAL),
    };
    let bits = &subject.task()?.watch;
    if on {
        bits.fetch_or(watch::RECORDED, Ordering::Relaxed);
    } else {
        bits.fetch_and(!watch::RECORDED, Ordering::Relaxed);
    }
    Ok(())
}

fn oom_score_adj(subject: &Subject, out: &mut Text) -> Result<()> {
    put!(out, "{}\n", subject.process.oom_score_adj.load(Ordering::Relaxed));
    Ok(())
}

fn set_oom_score_adj(subject: &Subject, bytes: &[u8], creds: &Credentials) -> Result<()> {
    let value = parse(bytes)?;
    if !(-1000..=1000).contains(&value) {
        return Err(Errno::EINVAL);
    }
    let value = value as i32;
    let adj = &subject.process.oom_score_adj;
    if value < adj.load(Ordering::Relaxed) && !creds.capable(Caps::SYS_RESOURCE) {
        return Err(Errno::EACCES);
    }
    adj.store(value, Ordering::Relaxed);
    Ok(())
}

fn cwd(subject: &Subject) -> Result<Path> {
    subject.handles()?.fs.map(|fs| fs.cwd()).ok_or(Errno::ENOENT)
}

fn root(subject: &Subject) -> Result<Path> {
    subject.handles()?.fs.map(|fs| fs.root()).ok_or(Errno::ENOENT)
}

fn exe(subject: &Subject) -> Result<Path> {
    subject.check_exists()?;
    subject.process.exe.lock().clone().ok_or(Errno::ENOENT)
}

fn mounts<'a>(subject: &'a Subject, out: &'a mut Text) -> Op<'a, Result<()>> {
    Op::boxed(async move {
        let root = root(subject).map_err(|_| Errno::EINVAL)?;
        mount::proc_mounts(&root, out).await;
        Ok(())
    })
}

fn mountinfo<'a>(subject: &'a Subject, out: &'a mut Text) -> Op<'a, Result<()>> {
    Op::boxed(async move {
        let root = root(subject).map_err(|_| Errno::EINVAL)?;
        mount::proc_mountinfo(&root, out).await;
        Ok(())
    })
}
