//! /proc/PID/maps, smaps and smaps_rollup: the mappings of a space. There may be many, so their text is made piece by
//! piece as it is read, and each goes on behind the last mapping of the one before, whatever has changed meanwhile.
//!
//! How many map a page is known from its frame and from the tables on the way to it, see `mm::space::present`. Which pages
//! have been used is not, so there is no `Referenced`. There is no swap, and MADV_FREE leaves no page.

use alloc::sync::Arc;
use core::any::Any;

use super::memory;
use super::subject::Subject;
use super::text::{MapLine, Text, put, put_meminfo};
use crate::errno::{Errno, Result};
use crate::exec::{Mutex, budget};
use crate::fs::file::FileOps;
use crate::fs::inode::DeviceId;
use crate::fs::op::Op;
use crate::fs::open_file::OpenFile;
use crate::mm::space::VmaFlags;
use crate::mm::{AddressSpace, IoBuf, PAGE_SIZE, Prot, Usage, VmaInfo};

/// What is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Maps {
    /// A line for each mapping.
    Lines,
    /// Also what is in memory of it.
    Usage,
    /// What is in memory of all of them.
    Sum,
}

pub struct MapsFile {
    subject: Subject,
    /// What the process had when the file was opened.
    space: Option<Arc<AddressSpace>>,
    what: Maps,
    made: Mutex<Made>,
}

/// The piece of the text that was made last.
#[derive(Default)]
struct Made {
    text: Text,
    /// Where it is in the file, in bytes.
    start: u64,
    /// The address from which the next piece goes on.
    next: u64,
    /// There is no next one.
    ended: bool,
}

/// How long a piece is, at least, in bytes.
const PIECE: usize = 4096;

impl MapsFile {
    /// The space is that of now: whether it may be looked at is to be checked after this.
    pub fn open(subject: &Subject, what: Maps) -> Arc<Self> {
        let space = memory::space_of(subject);
        Arc::new(MapsFile { subject: subject.clone(), space, what, made: Mutex::default() })
    }

    async fn read_at(&self, buf: &mut IoBuf<'_>, pos: u64) -> Result<usize> {
        self.subject.check_exists()?;
        // A zombie has none.
        let Some(space) = &self.space else {
            return if self.what == Maps::Sum { Err(Errno::ESRCH) } else { Ok(0) };
        };
        let mut made = self.made.lock().await;
        if pos == 0 || pos < made.start {
            *made = Made::default();
        }
        let mut total = 0;
        while !buf.is_empty() {
            let at = pos.saturating_add(total as u64);
            let end = made.start + made.text.size() as u64;
            if at < end {
                let copied = copy(&made.text, (at - made.start) as usize, buf).await;
                match copied {
                    Ok(copied) => total += copied,
                    Err(_) if total > 0 => break,
                    Err(errno) => return Err(errno),
                }
            } else if made.ended {
                break;
            } else {
                // Whole, or not at all: the read may be given up at each wait.
                let next = self.piece_after(space, &made).await?;
                *made = next;
            }
        }
        Ok(total)
    }

    /// Makes the next piece.
    async fn piece_after(&self, space: &AddressSpace, last: &Made) -> Result<Made> {
        let start = last.start + last.text.size() as u64;
        let mut made = Made { start, next: last.next, ..Made::default() };
        if self.what == Maps::Sum {
            put_sum(space, &mut made.text).await;
            made.ended = true;
        }
        while !made.ended && made.text.size() < PIECE {
            let Some(vma) = space.next_vma(made.next) else {
                made.ended = true;
                break;
            };
            made.next = vma.range.end;
            put_map(&mut made.text, &vma);
            if self.what == Maps::Usage {
                let usage = usage(space, &vma).await;
                put_usage(&mut made.text, &vma, &usage);
            }
            budget().await;
        }
        made.text.check()?;
        Ok(made)
    }
}

impl FileOps for MapsFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read<'a>(&'a self, _file: &'a OpenFile, buf: &'a mut IoBuf<'_>, pos: u64) -> Option<Op<'a, Result<usize>>> {
        Some(Op::boxed(self.read_at(buf, pos)))
    }

    fn seekable(&self) -> bool {
        true
    }
}

async fn copy(text: &Text, from: usize, buf: &mut IoBuf<'_>) -> Result<usize> {
    let mut total = 0;
    for piece in text.pieces(from) {
        match buf.copy_all_to(piece).await {
            Ok(moved) => total += moved,
            Err(_) if total > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(total)
}

/// What is in memory of a mapping.
async fn usage(space: &AddressSpace, vma: &VmaInfo) -> Usage {
    let mut sum = Usage::default();
    let mut at = vma.range.start;
    while at < vma.range.end {
        let (part, end) = space.usage(at..vma.range.end);
        sum += part;
        at = end;
        budget().await;
    }
    sum
}

fn put_map(out: &mut Text, vma: &VmaInfo) {
    let device = DeviceId::decode(vma.dev);
    let line = MapLine {
        start: vma.range.start,
        end: vma.range.end,
        read: vma.prot.contains(Prot::READ),
        write: vma.prot.contains(Prot::WRITE),
        exec: vma.prot.contains(Prot::EXEC),
        shared: vma.shared,
        offset: vma.offset,
        device: (device.major, device.minor),
        ino: vma.ino,
        name: vma.name.as_bytes(),
    };
    line.put(out);
}

/// Sizes of a mapping, what of it is in memory, and the flags.
fn put_usage(out: &mut Text, vma: &VmaInfo, usage: &Usage) {
    put_meminfo(out, "Size", vma.range.end - vma.range.start);
    put_meminfo(out, "KernelPageSize", PAGE_SIZE as u64);
    put_meminfo(out, "MMUPageSize", PAGE_SIZE as u64);
    put_resident(out, usage, false);
    put!(out, "THPeligible:    {:>8}\n", u8::from(vma.may_be_huge));
    put!(out, "VmFlags:");
    for (flag, name) in [(Prot::READ, "rd"), (Prot::WRITE, "wr"), (Prot::EXEC, "ex")] {
        if vma.prot.contains(flag) {
            put!(out, " {name}");
        }
    }
    if vma.shared {
        put!(out, " sh");
    }
    for (flag, name) in [(VmaFlags::LOCKED, "lo"), (VmaFlags::HUGE, "hg"), (VmaFlags::NO_HUGE, "nh")] {
        if vma.flags.contains(flag) {
            put!(out, " {name}");
        }
    }
    put!(out, " \n");
}

/// `sum`: of all mappings.
fn put_resident(out: &mut Text, usage: &Usage, sum: bool) {
    put_meminfo(out, "Rss", usage.resident);
    put_meminfo(out, "Pss", usage.share());
    put_meminfo(out, "Pss_Dirty", usage.dirty_share.bytes());
    if sum {
        put_meminfo(out, "Pss_Anon", usage.anon_share.bytes());
        put_meminfo(out, "Pss_File", usage.file_share.bytes());
        put_meminfo(out, "Pss_Shmem", usage.memory_share.bytes());
    }
    for (label, bytes) in [
        ("Shared_Clean", usage.shared.clean),
        ("Shared_Dirty", usage.shared.dirty),
        ("Private_Clean", usage.private.clean),
        ("Private_Dirty", usage.private.dirty),
        ("Anonymous", usage.anon),
        ("LazyFree", 0),
        ("AnonHugePages", usage.huge),
        ("ShmemPmdMapped", 0),
        ("FilePmdMapped", 0),
        ("Shared_Hugetlb", 0),
        ("Private_Hugetlb", 0),
        ("Swap", 0),
        ("SwapPss", 0),
        ("Locked", usage.locked_share.bytes()),
    ] {
        put_meminfo(out, label, bytes);
    }
}

async fn put_sum(space: &AddressSpace, out: &mut Text) {
    let mut sum = Usage::default();
    let mut first = None;
    let mut next = 0;
    while let Some(vma) = space.next_vma(next) {
        next = vma.range.end;
        first = first.or(Some(vma.range.start));
        sum += usage(space, &vma).await;
    }
    if let Some(start) = first {
        let line = MapLine {
            start,
            end: next,
            read: false,
            write: false,
            exec: false,
            shared: false,
            offset: 0,
            device: (0, 0),
            ino: 0,
            name: b"[rollup]",
        };
        line.put(out);
        put_resident(out, &sum, true);
    }
}
