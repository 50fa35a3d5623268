//! Block devices: requests, their completion, and the table of registered disks.
//!
//! A [`Request`] owns the memory it moves (frames by their reference counts, or a heap buffer) until the driver has
//! completed it, so a future that waits for one may be dropped at any time: the transfer goes on into memory that
//! still belongs to the request. Drivers complete requests in any order, usually from interrupt service.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use smallvec::SmallVec;

use super::inode::DeviceId;
use crate::errno::{Errno, Result};
use crate::mm::Frame;
use crate::sync::{RwSpinLock, SpinLock};

/// Bytes per sector, the unit of addresses and sizes of block devices whatever their physical sector is.
pub const SECTOR_SIZE: usize = 512;

/// Physically contiguous kernel memory that a request reads from or writes to.
pub enum Memory {
    /// Part of a page frame: offset and length in bytes.
    Frame(Frame, u32, u32),
    Bytes(Box<[u8]>),
}

impl Memory {
    pub fn len(&self) -> usize {
        match self {
            Memory::Frame(_, _, len) => *len as usize,
            Memory::Bytes(bytes) => bytes.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the memory is in the kernel's address space. It stays there as long as the request lives.
    pub fn as_ptr(&self) -> *mut u8 {
        match self {
            Memory::Frame(frame, offset, _) => frame.as_ptr().wrapping_add(*offset as usize),
            Memory::Bytes(bytes) => bytes.as_ptr() as *mut u8,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transfer {
    Read,
    Write,
    /// Makes completed writes durable; carries no memory.
    Flush,
}

/// One transfer between consecutive sectors and a list of memory segments.
pub struct Request {
    pub transfer: Transfer,
    pub sector: u64,
    pub memory: SmallVec<[Memory; 2]>,
    completion: Arc<Completion>,
}

impl Request {
    pub fn new(transfer: Transfer, sector: u64, memory: SmallVec<[Memory; 2]>) -> (Request, Pending) {
        let completion = Arc::new(Completion::default());
        let pending = Pending(completion.clone());
        (Request { transfer, sector, memory, completion }, pending)
    }

    pub fn len(&self) -> usize {
        self.memory.iter().map(Memory::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }

    /// Ends the request and wakes who waits for it; called once by the driver, at the latest in interrupt service.
    pub fn complete(self, result: Result<()>) {
        let Request { memory, completion, .. } = self;
        let wakers = {
            let mut state = completion.0.lock();
            state.result = Some(result);
            state.memory = memory;
            core::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[derive(Default)]
struct CompletionState {
    result: Option<Result<()>>,
    memory: SmallVec<[Memory; 2]>,
    wakers: SmallVec<[Waker; 1]>,
}

#[derive(Default)]
struct Completion(SpinLock<CompletionState>);

/// Waits for a request; clones wait for the same one. Not polling it, or dropping it, does not stop the transfer.
#[derive(Clone)]
pub struct Pending(Arc<Completion>);

impl Pending {
    /// The memory of a completed request. The first caller gets it.
    pub fn take_memory(&self) -> SmallVec<[Memory; 2]> {
        core::mem::take(&mut self.0.0.lock().memory)
    }

    /// The first segment of a completed request, if it is a heap buffer.
    pub fn take_bytes(&self) -> Option<Box<[u8]>> {
        match self.take_memory().into_iter().next() {
            Some(Memory::Bytes(bytes)) => Some(bytes),
            _ => None,
        }
    }
}

impl Future for Pending {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let mut state = self.0.0.lock();
        if let Some(result) = state.result {
            return Poll::Ready(result);
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.wakers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// A disk.
pub trait BlockDevice: Send + Sync {
    /// Size in sectors of [`SECTOR_SIZE`] bytes.
    fn sectors(&self) -> u64;

    fn read_only(&self) -> bool {
        false
    }

    /// Segments that one request may carry, at least 1.
    fn max_segments(&self) -> usize {
        64
    }

    /// Takes the request and answers at once; the device completes it later, possibly before this returns, in any
    /// order relative to others. A flush covers the writes that were completed before it was submitted.
    fn submit(&self, request: Request);
}

impl dyn BlockDevice {
    fn start(&self, transfer: Transfer, sector: u64, memory: SmallVec<[Memory; 2]>) -> Pending {
        let (request, pending) = Request::new(transfer, sector, memory);
        let sectors = (request.len() / SECTOR_SIZE) as u64;
        let end = sector.checked_add(sectors);
        if !request.len().is_multiple_of(SECTOR_SIZE) || end.is_none_or(|end| end > self.sectors()) {
            request.complete(Err(Errno::EIO));
        } else if transfer != Transfer::Read && self.read_only() {
            request.complete(if transfer == Transfer::Flush { Ok(()) } else { Err(Errno::EROFS) });
        } else {
            self.submit(request);
        }
        pending
    }

    /// Starts to fill `memory` (whole sectors in total) from `sector` on.
    pub fn read(&self, sector: u64, memory: SmallVec<[Memory; 2]>) -> Pending {
        self.start(Transfer::Read, sector, memory)
    }

    pub fn write(&self, sector: u64, memory: SmallVec<[Memory; 2]>) -> Pending {
        self.start(Transfer::Write, sector, memory)
    }

    /// Starts to make every write that has been completed so far durable.
    pub fn flush(&self) -> Pending {
        self.start(Transfer::Flush, 0, SmallVec::new())
    }

    /// Reads `len` bytes, whole sectors, into a new buffer.
    pub async fn read_bytes(&self, sector: u64, len: usize) -> Result<Box<[u8]>> {
        let mut memory = SmallVec::new();
        memory.push(Memory::Bytes(vec![0; len].into_boxed_slice()));
        let pending = self.read(sector, memory);
        pending.clone().await?;
        pending.take_bytes().ok_or(Errno::EIO)
    }
}

/// A disk as the rest of the kernel finds it.
#[derive(Clone)]
pub struct Disk {
    /// The name below /dev.
    pub name: String,
    pub id: DeviceId,
    pub device: Arc<dyn BlockDevice>,
}

static DISKS: RwSpinLock<Vec<Disk>> = RwSpinLock::new(Vec::new());

/// Adds a disk to the table and to /dev.
pub fn register(disk: Disk) {
    super::block_file::show(&disk);
    DISKS.write().push(disk);
}

pub fn disks() -> Vec<Disk> {
    DISKS.read().clone()
}

pub fn find(id: DeviceId) -> Option<Disk> {
    DISKS.read().iter().find(|disk| disk.id == id).cloned()
}

/// Finds a disk by its name below /dev, as in `root=/dev/vda`.
pub fn find_by_name(name: &str) -> Option<Disk> {
    DISKS.read().iter().find(|disk| disk.name == name).cloned()
}
