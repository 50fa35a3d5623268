//! What the directories of procfs tell of themselves.

use alloc::vec::Vec;

use super::fds;
use super::node::{FIRST_ENTRY, FIRST_PROCESS, Node, Static};
use super::process::{Entry, EntryKind};
use super::subject::Subject;
use crate::errno::{Errno, Result};
use crate::fs::inode::{DirSink, FileType};
use crate::process;

/// Offers entries in order of their cookies; false when the sink is full.
pub(super) struct Listing<'a> {
    pub from: u64,
    pub sink: &'a mut dyn DirSink,
}

impl Listing<'_> {
    pub fn offer(&mut self, cookie: u64, ino: u64, kind: FileType, name: &[u8]) -> bool {
        cookie < self.from || self.sink.entry(ino, cookie + 1, kind, name)
    }

    pub fn offer_node(&mut self, cookie: u64, node: &Node, name: &[u8]) -> bool {
        // Numbers are offered by the thousand: look at the cookie before the inode.
        cookie < self.from || self.sink.entry(node.ino(), cookie + 1, node.kind(), name)
    }
}

pub(super) fn list_static(entries: &'static [Static], out: &mut Listing<'_>) -> bool {
    entries
        .iter()
        .zip(FIRST_ENTRY..)
        .all(|(entry, cookie)| out.offer_node(cookie, &Node::Static(entry), entry.name.as_bytes()))
}

pub(super) fn list_processes(out: &mut Listing<'_>) {
    for process in process::processes() {
        let cookie = FIRST_PROCESS + u64::from(process.pid);
        let name = format!("{}", process.pid);
        if !out.offer_node(cookie, &Node::Subject(Subject { process, thread: None }), name.as_bytes()) {
            break;
        }
    }
}

pub(super) fn list_entry(subject: &Subject, entry: &'static Entry, out: &mut Listing<'_>) -> Result<()> {
    if matches!(entry.kind, EntryKind::Tasks) {
        return list_threads(subject, out);
    }
    // Who has ended has none.
    let Ok(table) = fds::table(subject) else { return Ok(()) };
    let first = usize::try_from(out.from.saturating_sub(FIRST_ENTRY)).unwrap_or(usize::MAX);
    for fd in table.open_fds(first) {
        let node = match entry.kind {
            EntryKind::Fds => Node::Fd(subject.clone(), fd),
            _ => Node::FdInfo(subject.clone(), fd),
        };
        if !out.offer_node(FIRST_ENTRY + fd as u64, &node, format!("{fd}").as_bytes()) {
            break;
        }
    }
    Ok(())
}

fn list_threads(subject: &Subject, out: &mut Listing<'_>) -> Result<()> {
    let mut tasks = Vec::new();
    for task in subject.process.tasks() {
        tasks.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        tasks.push(task);
    }
    tasks.sort_unstable_by_key(|task| task.tid());
    tasks.dedup_by_key(|task| task.tid());
    for task in tasks {
        let tid = task.tid();
        let node = Node::Subject(Subject { process: subject.process.clone(), thread: Some(task) });
        if !out.offer_node(FIRST_ENTRY + u64::from(tid), &node, format!("{tid}").as_bytes()) {
            break;
        }
    }
    Ok(())
}
