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

use super::block_file::{DiskFile, Opened, Use};
use super::disk_stats::{Begun, DiskStats};
use super::inode::DeviceId;
use super::op::Op;
use super::open_file::OpenFile;
use super::procfs::text::Text;
use crate::errno::{Errno, Result};
use crate::mm::Frame;
use crate::process::Thread;
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
    /// Where it counts.
    counted: Option<(Arc<DiskStats>, Begun)>,
}

impl Request {
    pub fn new(transfer: Transfer, sector: u64, memory: SmallVec<[Memory; 2]>) -> (Request, Pending) {
        let completion = Arc::new(Completion::default());
        let pending = Pending(completion.clone());
        (Request { transfer, sector, memory, completion, counted: None }, pending)
    }

    pub fn len(&self) -> usize {
        self.memory.iter().map(Memory::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }

    /// Ends the request and wakes who waits for it; called once by the driver, at the latest in interrupt service.
    pub fn complete(self, result: Result<()>) {
        let Request { memory, completion, counted, .. } = self;
        if let Some((stats, begun)) = counted {
            stats.end(begun);
        }
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

    /// Requests are carried out by means of a file.
    fn is_backed_by_file(&self) -> bool {
        false
    }

    /// Bytes of the smallest piece that programs may want to transfer.
    fn logical_block(&self) -> u32 {
        SECTOR_SIZE as u32
    }

    /// Segments that one request may carry, at least 1.
    fn max_segments(&self) -> usize {
        64
    }

    /// What it has done, if that is counted.
    fn stats(&self) -> Option<&Arc<DiskStats>> {
        None
    }

    /// Takes the request and answers at once; the device completes it later, possibly before this returns, in any
    /// order relative to others. A flush covers the writes that were completed before it was submitted.
    fn submit(&self, request: Request);

    /// ioctl(2) beyond what all block devices know.
    fn ioctl<'a>(&'a self, _call: Call<'a>) -> Op<'a, Result<u64>> {
        Op::ready(Err(Errno::ENOTTY))
    }

    /// The file system that has it has ended, and only writes what is left to write.
    fn fs_ended(&self) {}

    /// Nobody has it open or mounted any more, and what was written to it has been submitted.
    fn last_closed(&self) {}
}

/// An ioctl(2) of an open disk.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    pub disk: &'a DiskFile,
    /// What the caller has opened it for.
    pub opened_for: Use,
    pub file: &'a OpenFile,
    pub thread: &'a Thread,
    pub cmd: u32,
    pub arg: u64,
}

impl dyn BlockDevice {
    /// The fields of /proc/diskstats, or of sysfs.
    pub fn put_stats(&self, out: &mut Text, wide: bool) {
        match self.stats() {
            Some(stats) => stats.put(out, wide),
            None => DiskStats::default().put(out, wide),
        }
    }

    fn start(&self, transfer: Transfer, sector: u64, memory: SmallVec<[Memory; 2]>) -> Pending {
        let (mut request, pending) = Request::new(transfer, sector, memory);
        let sectors = (request.len() / SECTOR_SIZE) as u64;
        let end = sector.checked_add(sectors);
        if !request.len().is_multiple_of(SECTOR_SIZE) || end.is_none_or(|end| end > self.sectors()) {
            request.complete(Err(Errno::EIO));
        } else if transfer != Transfer::Read && self.read_only() {
            request.complete(if transfer == Transfer::Flush { Ok(()) } else { Err(Errno::EROFS) });
        } else {
            let counted = |stats: &Arc<DiskStats>| (stats.clone(), stats.begin(transfer, request.len()));
            request.counted = self.stats().map(counted);
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

struct Entry {
    disk: Disk,
    file: Arc<DiskFile>,
}

static DISKS: RwSpinLock<Vec<Entry>> = RwSpinLock::new(Vec::new());

/// Adds a disk to the table and to /dev.
pub fn register(disk: Disk) {
    let file = DiskFile::new(&disk);
    DISKS.write().push(Entry { disk: disk.clone(), file: file.clone() });
    super::block_file::show(&disk, file);
}

/// Takes away a disk that nobody has open.
pub fn unregister(disk: &Disk) {
    super::devfs::unregister(&disk.name, disk.id, super::FileType::BlockDevice);
    let mut disks = DISKS.write();
    let gone = disks.iter().position(|entry| entry.disk.id == disk.id).map(|index| disks.remove(index));
    drop(disks);
    drop(gone);
}

pub fn disks() -> Vec<Disk> {
    DISKS.read().iter().map(|entry| entry.disk.clone()).collect()
}

/// Finds a disk by its name below /dev, as in `root=/dev/vda`.
pub fn find_by_name(name: &str) -> Option<Disk> {
    DISKS.read().iter().find(|entry| entry.disk.name == name).map(|entry| entry.disk.clone())
}

/// The file below /dev.
pub fn file(id: DeviceId) -> Option<Arc<DiskFile>> {
    DISKS.read().iter().find(|entry| entry.disk.id == id).map(|entry| entry.file.clone())
}

/// The disk for a file system that is about to be mounted. It counts as open as long as the answer lives, and nothing that
/// was written by way of /dev is only in memory. EBUSY if somebody has opened it with O_EXCL.
pub async fn claim(id: DeviceId) -> Result<Arc<dyn BlockDevice>> {
    let file = file(id).ok_or(Errno::ENXIO)?;
    let opened = file.open(Use::FileSystem).await?;
    opened.disk().settle().await?;
    Ok(Arc::new(Claim(opened)))
}

/// A disk that a file system has.
struct Claim(Opened);

impl Claim {
    fn device(&self) -> &Arc<dyn BlockDevice> {
        self.0.disk().device()
    }
}

impl BlockDevice for Claim {
    fn sectors(&self) -> u64 {
        self.device().sectors()
    }

    fn read_only(&self) -> bool {
        self.device().read_only()
    }

    fn is_backed_by_file(&self) -> bool {
        self.device().is_backed_by_file()
    }

    fn logical_block(&self) -> u32 {
        self.device().logical_block()
    }

    fn max_segments(&self) -> usize {
        self.device().max_segments()
    }

    fn stats(&self) -> Option<&Arc<DiskStats>> {
        self.device().stats()
    }

    fn submit(&self, request: Request) {
        self.device().submit(request);
    }

    fn fs_ended(&self) {
        self.0.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct OnFile;

    impl BlockDevice for OnFile {
        fn sectors(&self) -> u64 {
            8
        }

        fn is_backed_by_file(&self) -> bool {
            true
        }

        fn submit(&self, request: Request) {
            request.complete(Ok(()));
        }
    }

    /// Or those who write back disks would wait for themselves.
    #[test]
    fn a_file_system_s_disk_tells_that_it_is_on_a_file() {
        crate::mm::test_util::run(async {
            let disk = Disk { name: "test-on-file".into(), id: DeviceId::new(250, 77), device: Arc::new(OnFile) };
            register(disk.clone());
            assert!(claim(disk.id).await.unwrap().is_backed_by_file());
            unregister(&disk);
        });
    }
}
