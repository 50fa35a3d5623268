//! Loop devices, loop(4): regular files as disks.
//!
//! * A [`Loop`] is /dev/loopN, a block device whose requests are carried out by tasks that read and write the file which it
//!   is [`bound`](backing::Backing) to. `control` is /dev/loop-control, `configure` the ioctls of a device, `record` their
//!   structures.
//! * The device of a file that was opened, and the file itself through the page cache of its file system: what is written
//!   to the one is seen in the other. A flush of the device is an fsync of the file.
//!
//! **Why it makes progress when memory is short.** To store a page of what is mounted on the device, a page of the file
//! may have to be made, and stored in turn. A request never waits for what may wait for it: it stores the file's own
//! pages, which needs only what lies below, takes clean pages, and has the flusher of files on disks work for it
//! ([`page_cache::rounds`](crate::mm::page_cache)). Files are opened before they are bound and cannot be bound to a device
//! that is on them, so there is an end below. And there is something to take: writers have to store what they wrote once a
//! fifth of memory is dirty, and programs' memory is made room in by those who want it, the last resort of whom is to
//! kill. Whoever holds the file's lock and lacks memory waits for a flusher a limited time.
//!
//! Locks: the table → a device's state; both are leaves to all else. `Loop::changing` (async) is held over every change of
//! what a device is bound to.

mod backing;
mod configure;
mod control;
mod record;

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use self::backing::Backing;
use super::block::{self, BlockDevice, Call, Disk, Request, SECTOR_SIZE, Transfer};
use super::disk_stats::DiskStats;
use super::inode::DeviceId;
use super::op::Op;
use crate::errno::{Errno, Result};
use crate::exec::{self, Mutex};
use crate::sync::SpinLock;

/// LOOP_MAJOR of linux/major.h.
const MAJOR: u32 = 7;
/// Devices that are there from the start, as on Debian (CONFIG_BLK_DEV_LOOP_MIN_COUNT).
const DEVICES: u32 = 8;
/// Minor numbers have 20 bits.
const LAST: u32 = (1 << 20) - 1;

bitflags::bitflags! {
    /// LO_FLAGS_* of linux/loop.h.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct LoopFlags: u32 {
        const READ_ONLY = 1;
        const AUTOCLEAR = 4;
        const PARTSCAN = 8;
        const DIRECT_IO = 16;
    }
}

/// What a device is bound to, and how.
#[derive(Clone)]
struct Binding {
    backing: Arc<Backing>,
    flags: LoopFlags,
    /// Bytes of the file that are left out at its start.
    offset: u64,
    /// Bytes of the file that count at most; 0: all.
    size_limit: u64,
    /// Bytes.
    block_size: u32,
    /// What GET_STATUS answers as the file's name: whatever SET_STATUS has said.
    name: [u8; record::NAME_SIZE],
    /// As of the last look at the size of the file.
    sectors: u64,
}

impl Binding {
    /// Sectors that the file has now for the device.
    fn measure(&self) -> u64 {
        let size = self.backing.size().saturating_sub(self.offset);
        let size = if self.size_limit > 0 { size.min(self.size_limit) } else { size };
        size / SECTOR_SIZE as u64
    }
}

struct Loop {
    number: u32,
    binding: SpinLock<Option<Binding>>,
    changing: Mutex<()>,
    /// LOOP_CTL_REMOVE has been here.
    removed: AtomicBool,
    stats: Arc<DiskStats>,
}

static LOOPS: SpinLock<BTreeMap<u32, Arc<Loop>>> = SpinLock::new(BTreeMap::new());

/// Makes the first devices.
pub fn init() {
    control::register();
    for number in 0..DEVICES {
        if let Err(errno) = add(Some(number)) {
            log::warn!("loop{number}: {errno:?}");
        }
    }
}

/// Makes a device, with the lowest free number if none is wished for.
fn add(number: Option<u32>) -> Result<Arc<Loop>> {
    let device = {
        let mut loops = LOOPS.lock();
        let number = match number {
            Some(number) if loops.contains_key(&number) => return Err(Errno::EEXIST),
            Some(number) if number > LAST => return Err(Errno::EINVAL),
            Some(number) => number,
            None => (0..=LAST).find(|number| !loops.contains_key(number)).ok_or(Errno::ENOSPC)?,
        };
        let device = Arc::new(Loop {
            number,
            binding: SpinLock::new(None),
            changing: Mutex::new(()),
            removed: AtomicBool::new(false),
            stats: Arc::default(),
        });
        loops.insert(number, device.clone());
        device
    };
    block::register(device.disk());
    Ok(device)
}

/// Removes a device that nobody has open.
async fn remove(number: u32) -> Result<()> {
    let device = LOOPS.lock().get(&number).cloned().ok_or(Errno::ENODEV)?;
    let _changing = device.changing.lock().await;
    let users = match block::file(device.id()) {
        Some(file) => file.users().await,
        None => return Err(Errno::ENODEV),
    };
    if users > 0 || device.is_bound() {
        return Err(Errno::EBUSY);
    }
    device.removed.store(true, Ordering::Relaxed);
    block::unregister(&device.disk());
    LOOPS.lock().remove(&number);
    Ok(())
}

/// The number of a device that is not bound; a new one if there is none.
async fn free() -> Result<u32> {
    let known: Vec<Arc<Loop>> = LOOPS.lock().values().cloned().collect();
    for device in known {
        if let Some(file) = block::file(device.id()) {
            // Who is just leaving may take the file along.
            file.users().await;
        }
        if !device.is_bound() {
            return Ok(device.number);
        }
    }
    add(None).map(|device| device.number)
}

/// What sysfs tells of a bound device.
pub struct Summary {
    pub file: Vec<u8>,
    pub offset: u64,
    pub size_limit: u64,
    pub autoclear: bool,
}

/// None for disks that are no loop devices, and for those that are not bound.
pub fn summary(disk: &Disk) -> Option<Summary> {
    let device = find(disk.id)?;
    let binding = device.binding.lock().clone()?;
    Some(Summary {
        file: binding.backing.path(),
        offset: binding.offset,
        size_limit: binding.size_limit,
        autoclear: binding.flags.contains(LoopFlags::AUTOCLEAR),
    })
}

pub fn is_loop(disk: &Disk) -> bool {
    disk.id.major == MAJOR
}

fn find(id: DeviceId) -> Option<Arc<Loop>> {
    LOOPS.lock().get(&id.minor).filter(|_| id.major == MAJOR).cloned()
}

impl Loop {
    fn id(&self) -> DeviceId {
        DeviceId::new(MAJOR, self.number)
    }

    fn disk(self: &Arc<Self>) -> Disk {
        Disk { name: format!("loop{}", self.number), id: self.id(), device: self.clone() }
    }

    fn is_bound(&self) -> bool {
        self.binding.lock().is_some()
    }

    fn with<R>(&self, look: impl FnOnce(&mut Binding) -> R) -> Result<R> {
        self.binding.lock().as_mut().map(look).ok_or(Errno::ENXIO)
    }

    /// Lets go of the file. Requests that are under way hold it themselves.
    fn unbind(&self) {
        let binding = self.binding.lock().take();
        drop(binding);
    }
}

impl BlockDevice for Loop {
    fn sectors(&self) -> u64 {
        self.binding.lock().as_ref().map_or(0, |binding| binding.sectors)
    }

    fn read_only(&self) -> bool {
        self.binding.lock().as_ref().is_some_and(|binding| binding.flags.contains(LoopFlags::READ_ONLY))
    }

    fn is_backed_by_file(&self) -> bool {
        true
    }

    fn stats(&self) -> Option<&Arc<DiskStats>> {
        Some(&self.stats)
    }

    fn logical_block(&self) -> u32 {
        self.binding.lock().as_ref().map_or(SECTOR_SIZE as u32, |binding| binding.block_size)
    }

    fn submit(&self, request: Request) {
        let Ok((backing, offset)) = self.with(|binding| (binding.backing.clone(), binding.offset)) else {
            let nothing_to_do = request.transfer == Transfer::Flush;
            return request.complete(if nothing_to_do { Ok(()) } else { Err(Errno::EIO) });
        };
        exec::spawn("loop", async move { backing.perform(request, offset).await });
    }

    fn ioctl<'a>(&'a self, call: Call<'a>) -> Op<'a, Result<u64>> {
        Op::boxed(configure::ioctl(self, call))
    }

    fn last_closed(&self) {
        let clears = self.with(|binding| binding.flags.contains(LoopFlags::AUTOCLEAR));
        if clears == Ok(true) {
            self.unbind();
        }
    }
}
