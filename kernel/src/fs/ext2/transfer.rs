//! Requests for blocks of a file's pages.

use alloc::vec::Vec;
use core::ops::Range;

use smallvec::SmallVec;

use super::groups::Run;
use super::node::Node;
use crate::errno::Result;
use crate::fs::block::{Memory, Pending};
use crate::mm::CachePage;

/// New blocks of the device for what is at `block` of the file.
#[derive(Clone, Copy)]
pub struct New {
    pub block: u64,
    pub run: Run,
}

impl New {
    /// Whether these follow it, in the file and on the device.
    pub fn goes_on_with(&self, block: u64, run: Run) -> bool {
        self.block + u64::from(self.run.len) == block && self.run.start + self.run.len == run.start
    }

    /// Those of it that are in `failed` runs, and those that are not (true).
    pub fn parts(self, failed: &[Run]) -> impl Iterator<Item = (New, bool)> {
        let arrived = |at: u32| !failed.iter().any(|run| (run.start..run.start + run.len).contains(&at));
        let mut done = 0;
        core::iter::from_fn(move || {
            let left = self.run.start + done..self.run.start + self.run.len;
            let first = arrived(left.clone().next()?);
            let len = if failed.is_empty() { left.len() } else { left.take_while(|at| arrived(*at) == first).count() };
            let run = Run { start: self.run.start + done, len: len as u32 };
            let part = New { block: self.block + u64::from(done), run };
            done += run.len;
            Some((part, first))
        })
    }
}

/// Collects blocks of pages into requests: neighbours on the device go into one.
pub struct Transfer<'a> {
    node: &'a Node,
    write: bool,
    first: u32,
    len: u32,
    memory: SmallVec<[Memory; 2]>,
    pending: Vec<(Pending, Run)>,
    /// Blocks of the file that were allocated and never written before.
    pub begun: Vec<Range<u64>>,
    pub new: Vec<New>,
}

impl<'a> Transfer<'a> {
    pub fn new(node: &'a Node, write: bool) -> Self {
        Transfer {
            node,
            write,
            first: 0,
            len: 0,
            memory: SmallVec::new(),
            pending: Vec::new(),
            begun: Vec::new(),
            new: Vec::new(),
        }
    }

    /// The page that holds the `index`th block of the range, and where in it.
    pub fn place<'p>(&self, pages: &'p [CachePage], index: u64) -> (&'p CachePage, usize) {
        let per_page = self.node.blocks_per_page();
        (&pages[(index / per_page) as usize], (index % per_page) as usize * self.node.volume.layout.block_size)
    }

    pub fn is_zero(&self, pages: &[CachePage], index: u64) -> bool {
        let (page, offset) = self.place(pages, index);
        page.frame().bytes()[offset..offset + self.node.volume.layout.block_size].iter().all(|&byte| byte == 0)
    }

    /// Adds the transfer of one block.
    pub fn block(&mut self, block: u32, pages: &[CachePage], index: u64) {
        let device = &self.node.volume.device;
        let (page, offset) = self.place(pages, index);
        let block_size = self.node.volume.layout.block_size as u32;
        if self.len != 0 && self.first + self.len != block {
            self.submit();
        }
        if self.len == 0 {
            self.first = block;
        }
        match self.memory.last_mut() {
            // The next block of the same page joins the segment.
            Some(Memory::Frame(frame, at, len))
                if offset != 0 && frame.phys() == page.frame().phys() && *at + *len == offset as u32 =>
            {
                *len += block_size;
            }
            _ => {
                if self.memory.len() == device.max_segments() {
                    self.submit();
                    self.first = block;
                }
                self.memory.push(Memory::Frame(page.frame().clone(), offset as u32, block_size));
            }
        }
        self.len += 1;
    }

    pub fn submit(&mut self) {
        if self.len == 0 {
            return;
        }
        let volume = &self.node.volume;
        let sector = u64::from(self.first) * volume.layout.sectors_per_block();
        let memory = core::mem::take(&mut self.memory);
        let pending = if self.write { volume.device.write(sector, memory) } else { volume.device.read(sector, memory) };
        self.pending.push((pending, Run { start: self.first, len: self.len }));
        self.len = 0;
    }

    /// Also answers which blocks of the device have failed.
    pub async fn wait(self) -> (Result<()>, SmallVec<[Run; 1]>) {
        let mut result = Ok(());
        let mut failed = SmallVec::new();
        for (pending, run) in self.pending {
            if let Err(errno) = pending.await {
                result = Err(errno);
                failed.push(run);
            }
        }
        (result, failed)
    }
}
