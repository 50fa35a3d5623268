//! /proc/PID/mem: the memory of a process as a file, whose positions are addresses.
//!
//! It is the memory that the process had when the file was opened. What the process itself cannot read or write is refused
//! here, too.

use alloc::sync::Arc;
use core::any::Any;

use super::memory::space_of;
use super::subject::Subject;
use crate::errno::{Errno, Result};
use crate::fs::file::FileOps;
use crate::fs::op::Op;
use crate::fs::open_file::OpenFile;
use crate::mm::{AddressSpace, Cut, IoBuf, Toucher};

pub struct MemFile {
    /// None for a zombie.
    space: Option<Arc<AddressSpace>>,
}

impl MemFile {
    pub fn open(subject: &Subject) -> Arc<MemFile> {
        Arc::new(MemFile { space: space_of(subject) })
    }

    async fn read_at(&self, buf: &mut IoBuf<'_>, pos: u64) -> Result<usize> {
        let Some(space) = inhabited(&self.space) else { return Ok(0) };
        answer(space.copy_from_remote(pos, buf, Toucher::Onlooker).await)
    }

    async fn write_at(&self, buf: &mut IoBuf<'_>, pos: u64) -> Result<usize> {
        let Some(space) = inhabited(&self.space) else { return Ok(0) };
        answer(space.copy_to_remote(pos, buf, Toucher::Onlooker).await)
    }
}

/// The memory, unless nobody lives in it any more.
pub fn inhabited(space: &Option<Arc<AddressSpace>>) -> Option<&AddressSpace> {
    space.as_deref().filter(|space| space.has_vmas())
}

/// As far as it went; an error if that is nowhere.
fn answer((moved, end): (usize, Option<Cut>)) -> Result<usize> {
    match end {
        Some(_) if moved > 0 => Ok(moved),
        Some(Cut::There) => Err(Errno::EIO),
        Some(Cut::Here(errno)) => Err(errno),
        None => Ok(moved),
    }
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
