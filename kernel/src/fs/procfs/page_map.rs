//! /proc/PID/pagemap: a word for each page of a process, Linux's Documentation/admin-guide/mm/pagemap.rst.
//!
//! There is no swap, and as in Linux on arm64 nobody keeps count of pages that were written (soft-dirty).

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use zerocopy::IntoBytes;

use super::mem_file::inhabited;
use super::memory::space_of;
use super::subject::Subject;
use crate::errno::{Errno, Result};
use crate::exec;
use crate::fs::file::FileOps;
use crate::fs::op::Op;
use crate::fs::open_file::OpenFile;
use crate::mm::{AddressSpace, IoBuf, MappedPage, PAGE_SIZE, USER_END, untag};
use crate::process::{Caps, Thread};

const WORD: u64 = size_of::<u64>() as u64;
/// Pages that are looked at in one go.
const STEP: u64 = 512;

const FRAME: u64 = (1 << 55) - 1;
const EXCLUSIVE: u64 = 1 << 56;
const FILE: u64 = 1 << 61;
const PRESENT: u64 = 1 << 63;

pub struct PageMap {
    /// None for a zombie.
    space: Option<Arc<AddressSpace>>,
    /// Whoever opened it may know which frames pages are in (CAP_SYS_ADMIN).
    frames: bool,
}

impl PageMap {
    pub fn open(subject: &Subject, thread: &Thread) -> Arc<PageMap> {
        Arc::new(PageMap { space: space_of(subject), frames: thread.creds().capable(Caps::SYS_ADMIN) })
    }

    fn word(&self, page: MappedPage) -> u64 {
        let mut word = PRESENT;
        if self.frames {
            word |= page.frame & FRAME;
        }
        if page.file {
            word |= FILE;
        }
        if page.exclusive {
            word |= EXCLUSIVE;
        }
        word
    }

    async fn read_at(&self, buf: &mut IoBuf<'_>, pos: u64) -> Result<usize> {
        let Some(space) = inhabited(&self.space) else { return Ok(0) };
        if !pos.is_multiple_of(WORD) || !(buf.remaining() as u64).is_multiple_of(WORD) {
            return Err(Errno::EINVAL);
        }
        const PAGES: u64 = USER_END / PAGE_SIZE as u64;
        let mut words = Vec::new();
        words.try_reserve_exact(STEP as usize).map_err(|_| Errno::ENOMEM)?;
        // Tags are for nothing here, too.
        let first = (pos / WORD).checked_mul(PAGE_SIZE as u64).map_or(USER_END, untag);
        let mut page = first / PAGE_SIZE as u64;
        let mut moved = 0;
        while !buf.is_empty() && page < PAGES {
            let count = STEP.min(buf.remaining() as u64 / WORD).min(PAGES - page);
            words.clear();
            words.resize(count as usize, 0);
            let start = page * PAGE_SIZE as u64;
            space.each_page(start..start + count * PAGE_SIZE as u64, |at, found| {
                if let Some(word) = words.get_mut(((at - start) / PAGE_SIZE as u64) as usize) {
                    *word = self.word(found);
                }
            });
            let bytes = words.as_bytes();
            let done = buf.copy_all_to(bytes).await?;
            moved += done;
            if done < bytes.len() {
                return Err(Errno::EFAULT);
            }
            page += count;
            exec::budget().await;
        }
        Ok(moved)
    }
}

impl FileOps for PageMap {
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
