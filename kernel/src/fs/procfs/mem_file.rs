//! /proc/PID/mem: the memory of a process as a file, whose positions are addresses.
//!
//! It is the memory that the process had when the file was opened. What the process itself cannot read or write is refused
//! here, too.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use super::memory::space_of;
use super::subject::Subject;
use crate::errno::{Errno, Result};
use crate::exec::budget;
use crate::fs::file::FileOps;
use crate::fs::op::Op;
use crate::fs::open_file::OpenFile;
use crate::mm::{AddressSpace, IoBuf, PAGE_SIZE};

pub struct MemFile {
    /// None for a zombie.
    space: Option<Arc<AddressSpace>>,
}

impl MemFile {
    pub fn open(subject: &Subject) -> Arc<MemFile> {
        Arc::new(MemFile { space: space_of(subject) })
    }

    /// The memory, unless nobody lives in it any more.
    fn space(&self) -> Option<&AddressSpace> {
        let mut any = false;
        self.space.as_ref()?.for_each_vma(|_| {
            any = true;
            false
        });
        self.space.as_deref().filter(|_| any)
    }

    async fn read_at(&self, buf: &mut IoBuf<'_>, pos: u64) -> Result<usize> {
        let Some(space) = self.space() else { return Ok(0) };
        let mut page = page()?;
        let mut total = 0;
        while !buf.is_empty() {
            let at = pos + total as u64;
            let want = piece(at, buf);
            let found = page.get_mut(..want).ok_or(Errno::EIO)?;
            // As far as it goes.
            let Ok(n) = space.read_remote(at, found).await else { break };
            match buf.copy_all_to(page.get(..n).unwrap_or(&[])).await {
                Ok(moved) => total += moved,
                Err(_) if total > 0 => break,
                Err(errno) => return Err(errno),
            }
            budget().await;
        }
        if total == 0 && !buf.is_empty() { Err(Errno::EIO) } else { Ok(total) }
    }

    async fn write_at(&self, buf: &mut IoBuf<'_>, pos: u64) -> Result<usize> {
        let Some(space) = self.space() else { return Ok(0) };
        let mut page = page()?;
        let mut total = 0;
        while !buf.is_empty() {
            let at = pos + total as u64;
            let want = piece(at, buf);
            let bytes = page.get_mut(..want).ok_or(Errno::EIO)?;
            let n = match buf.copy_from(bytes) {
                Ok(n) => n,
                Err(fault) => match buf.fault_in(&fault).await {
                    Ok(()) => continue,
                    Err(_) if total > 0 => return Ok(total),
                    Err(errno) => return Err(errno),
                },
            };
            match space.write_remote(at, page.get(..n).unwrap_or(&[])).await {
                Ok(written) => total += written,
                Err(_) if total > 0 => return Ok(total),
                Err(_) => return Err(Errno::EIO),
            }
            budget().await;
        }
        Ok(total)
    }
}

fn page() -> Result<Vec<u8>> {
    let mut page = Vec::new();
    page.try_reserve_exact(PAGE_SIZE).map_err(|_| Errno::ENOMEM)?;
    page.resize(PAGE_SIZE, 0);
    Ok(page)
}

/// Bytes from `at` to the end of the page, if as many are wanted.
fn piece(at: u64, buf: &IoBuf<'_>) -> usize {
    buf.remaining().min(PAGE_SIZE - at as usize % PAGE_SIZE)
}

impl FileOps for MemFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read<'a>(&'a self, _file: &'a OpenFile, buf: &'a mut IoBuf<'_>, pos: u64) -> Option<Op<'a, Result<usize>>> {
        Some(Op::boxed(self.read_at(buf, pos)))
    }

    fn write<'a>(&'a self, _file: &'a OpenFile, buf: &'a mut IoBuf<'_>, pos: u64) -> Option<Op<'a, Result<usize>>> {
        Some(Op::boxed(self.write_at(buf, pos)))
    }

    fn seekable(&self) -> bool {
        true
    }
}
