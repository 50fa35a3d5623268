//! Virtio block device (virtio 1.1, section 5.2): up to [`QUEUE`] requests in flight, each with a list of segments.
//!
//! A submitted request, its header and its status byte live in a slot of the driver until the device has used them,
//! whatever becomes of the future that waits for it. One spinlock covers ring, slots and transport; requests are
//! completed after it is released.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use smallvec::SmallVec;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, SomeTransport, Transport};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::hal::KernelHal;
use crate::drivers::irq::{self, Interrupt};
use crate::errno::{Errno, Result};
use crate::fs::block::{self, BlockDevice, Disk, Request, Transfer};
use crate::fs::disk_stats::DiskStats;
use crate::fs::inode::DeviceId;
use crate::sync::SpinLock;

/// Descriptors of the request queue; with indirect descriptors also the number of requests in flight.
const QUEUE: usize = 128;
/// The request queue's index.
const REQUESTS: u16 = 0;
/// What Linux's virtblk gets as the first dynamic major number, and its minor numbers per disk.
const MAJOR: u32 = 254;
const MINORS_PER_DISK: u32 = 16;

bitflags::bitflags! {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Features: u64 {
        const SEG_MAX = 1 << 2;
        const RO = 1 << 5;
        const FLUSH = 1 << 9;
        const INDIRECT_DESC = 1 << 28;
        const VERSION_1 = 1 << 32;
    }
}

/// Offsets in the device configuration space.
const CAPACITY_LOW: usize = 0;
const CAPACITY_HIGH: usize = 4;
const SEG_MAX: usize = 12;

const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const STATUS_OK: u8 = 0;
const STATUS_UNSUPPORTED: u8 = 2;
/// Not a value that a device writes.
const STATUS_NONE: u8 = 0xff;

#[repr(C)]
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Default)]
struct Header {
    kind: u32,
    reserved: u32,
    sector: u64,
}

struct Slot {
    header: Header,
    status: u8,
    request: Option<Request>,
    /// The head of its descriptor chain.
    token: u16,
}

struct Inner {
    transport: SomeTransport<'static>,
    queue: VirtQueue<KernelHal, QUEUE>,
    /// Never grows: headers and status bytes are read and written by the device.
    slots: Box<[Slot]>,
    free: Vec<u8>,
    /// The slot of each descriptor chain in flight, by the chain's head.
    by_token: [u8; QUEUE],
    /// Requests that found no free slot.
    waiting: VecDeque<Request>,
    /// The device broke the protocol. It was reset, and everything fails.
    broken: bool,
}

struct VirtioBlk {
    inner: SpinLock<Inner>,
    sectors: u64,
    read_only: bool,
    flush: bool,
    max_segments: usize,
    stats: Arc<DiskStats>,
}

/// Initialises the device and registers it as the next `vdX`.
pub fn start(mut transport: SomeTransport<'static>, irq: Option<u32>) -> virtio_drivers::Result<()> {
    static COUNT: AtomicU32 = AtomicU32::new(0);

    let Some(intid) = irq else {
        log::warn!("virtio disk: no interrupt");
        return Ok(());
    };
    let features = transport.begin_init(Features::all());
    let indirect = features.contains(Features::INDIRECT_DESC);
    let queue = VirtQueue::new(&mut transport, REQUESTS, indirect, false)?;
    let sectors = transport.read_consistent(|| {
        let low: u32 = transport.read_config_space(CAPACITY_LOW)?;
        let high: u32 = transport.read_config_space(CAPACITY_HIGH)?;
        Ok(u64::from(low) | (u64::from(high) << 32))
    })?;
    let segments =
        if features.contains(Features::SEG_MAX) { transport.read_config_space::<u32>(SEG_MAX)? as usize } else { 1 };
    transport.finish_init();

    let slots =
        (0..QUEUE).map(|_| Slot { header: Header::default(), status: STATUS_NONE, request: None, token: 0 }).collect();
    let device = Arc::new(VirtioBlk {
        inner: SpinLock::new(Inner {
            transport,
            queue,
            slots,
            free: (0..QUEUE as u8).rev().collect(),
            by_token: [0; QUEUE],
            waiting: VecDeque::new(),
            broken: false,
        }),
        // A capacity in bytes must be a file size.
        sectors: sectors.min(i64::MAX as u64 >> 9),
        read_only: features.contains(Features::RO),
        flush: features.contains(Features::FLUSH),
        // Header and status take a descriptor each.
        max_segments: segments.clamp(1, QUEUE - 2),
        stats: Arc::default(),
    });
    let index = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = disk_name(index);
    log::info!(
        "{name}: virtio disk, {} MiB{}{}",
        sectors >> 11,
        if device.read_only { ", read-only" } else { "" },
        if device.flush { "" } else { ", no flush" }
    );
    irq::attach(intid, device.clone());
    block::register(Disk { name, id: DeviceId::new(MAJOR, index * MINORS_PER_DISK), device });
    Ok(())
}

/// vda … vdz, vdaa …
fn disk_name(index: u32) -> String {
    let mut letters = Vec::new();
    let mut rest = index;
    loop {
        letters.push(b'a' + (rest % 26) as u8);
        match (rest / 26).checked_sub(1) {
            Some(next) => rest = next,
            None => break,
        }
    }
    letters.reverse();
    format!("vd{}", String::from_utf8_lossy(&letters))
}

impl BlockDevice for VirtioBlk {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn max_segments(&self) -> usize {
        self.max_segments
    }

    fn stats(&self) -> Option<&Arc<DiskStats>> {
        Some(&self.stats)
    }

    fn submit(&self, request: Request) {
        if request.memory.len() > self.max_segments {
            return request.complete(Err(Errno::EINVAL));
        }
        if request.transfer == Transfer::Flush && !self.flush {
            // Without the feature the device writes through (5.2.6.2).
            return request.complete(Ok(()));
        }
        let refused = {
            let mut inner = self.inner.lock();
            if inner.waiting.is_empty() {
                match inner.start(request) {
                    Started::Yes => None,
                    Started::Full(request) => {
                        inner.waiting.push_back(request);
                        None
                    }
                    Started::Refused(request) => Some(request),
                }
            } else {
                inner.waiting.push_back(request);
                None
            }
        };
        if let Some(request) = refused {
            request.complete(Err(Errno::EIO));
        }
    }
}

enum Started {
    Yes,
    Full(Request),
    Refused(Request),
}

impl Inner {
    fn start(&mut self, request: Request) -> Started {
        if self.broken {
            return Started::Refused(request);
        }
        let Some(index) = self.free.pop() else { return Started::Full(request) };
        let slot = &mut self.slots[index as usize];
        let kind = match request.transfer {
            Transfer::Read => TYPE_IN,
            Transfer::Write => TYPE_OUT,
            Transfer::Flush => TYPE_FLUSH,
        };
        slot.header = Header { kind, reserved: 0, sector: request.sector };
        slot.status = STATUS_NONE;
        slot.request = Some(request);
        let (inputs, mut outputs) = slot.buffers();
        // SAFETY: header, status and the request's memory stay in the slot until `finish` has popped the chain, and
        // until then nobody reads or writes them: who submitted the request gets its memory back on completion.
        match unsafe { self.queue.add(&inputs, &mut outputs) } {
            Ok(token) => {
                self.by_token[token as usize % QUEUE] = index;
                self.slots[index as usize].token = token;
                if self.queue.should_notify() {
                    self.transport.notify(REQUESTS);
                }
                Started::Yes
            }
            Err(error) => {
                self.free.push(index);
                let Some(request) = self.slots[index as usize].request.take() else { return Started::Yes };
                match error {
                    virtio_drivers::Error::QueueFull if self.free.len() < QUEUE => Started::Full(request),
                    _ => Started::Refused(request),
                }
            }
        }
    }

    /// Takes one chain that the device has used out of the ring.
    fn finish(&mut self) -> Option<(Request, Result<()>)> {
        if self.broken {
            return self.abandon();
        }
        let token = self.queue.peek_used()?;
        let index = self.by_token[token as usize % QUEUE];
        let slot = &mut self.slots[index as usize];
        if slot.request.is_none() || slot.token != token {
            return self.give_up("completed a request that was not made");
        }
        let (inputs, mut outputs) = slot.buffers();
        // SAFETY: the same buffers that were added with this token; the lists outlive the call.
        let popped = unsafe {
            let inputs = core::slice::from_raw_parts(inputs.as_ptr(), inputs.len());
            let outputs = core::slice::from_raw_parts_mut(outputs.as_mut_ptr(), outputs.len());
            self.queue.pop_used(token, inputs, outputs)
        };
        if popped.is_err() {
            return self.give_up("changed what it had completed");
        }
        let slot = &mut self.slots[index as usize];
        let result = match slot.status {
            STATUS_OK => Ok(()),
            STATUS_UNSUPPORTED => Err(Errno::EOPNOTSUPP),
            _ => Err(Errno::EIO),
        };
        self.free.push(index);
        slot.request.take().map(|request| (request, result))
    }

    /// No more dealings with this device. After a reset it does not touch memory any more (virtio 1.1, 2.1.2), so what is in
    /// flight can be answered.
    fn give_up(&mut self, why: &str) -> Option<(Request, Result<()>)> {
        log::error!("virtio disk: the device {why}; all I/O fails from now on");
        self.transport.set_status(DeviceStatus::empty());
        self.broken = true;
        self.abandon()
    }

    fn abandon(&mut self) -> Option<(Request, Result<()>)> {
        let request = self.slots.iter_mut().find_map(|slot| slot.request.take())?;
        Some((request, Err(Errno::EIO)))
    }
}

type Inputs<'a> = SmallVec<[&'a [u8]; 16]>;
type Outputs<'a> = SmallVec<[&'a mut [u8]; 16]>;

impl Slot {
    /// The chain's buffers, those the device reads and those it writes, in ring order.
    fn buffers<'a>(&mut self) -> (Inputs<'a>, Outputs<'a>) {
        let mut inputs = Inputs::new();
        let mut outputs = Outputs::new();
        // SAFETY: the memory is in the slot or owned by its request, and the slices are only used to tell the queue
        // addresses and lengths, while the slot is borrowed from the locked driver.
        unsafe {
            inputs.push(core::slice::from_raw_parts((&raw const self.header).cast(), size_of::<Header>()));
            if let Some(request) = &self.request {
                for memory in request.memory.iter().filter(|memory| !memory.is_empty()) {
                    let (pointer, len) = (memory.as_ptr(), memory.len());
                    match request.transfer {
                        Transfer::Read => outputs.push(core::slice::from_raw_parts_mut(pointer, len)),
                        _ => inputs.push(core::slice::from_raw_parts(pointer, len)),
                    }
                }
            }
            outputs.push(core::slice::from_raw_parts_mut(&raw mut self.status, 1));
        }
        (inputs, outputs)
    }
}

impl Interrupt for VirtioBlk {
    fn service(&self) {
        let mut done: SmallVec<[(Request, Result<()>); 16]> = SmallVec::new();
        {
            let mut inner = self.inner.lock();
            // First quiet the device, then look at the ring: what it uses later raises the line again.
            inner.transport.ack_interrupt();
            while let Some(finished) = inner.finish() {
                done.push(finished);
            }
            while let Some(request) = inner.waiting.pop_front() {
                match inner.start(request) {
                    Started::Yes => {}
                    Started::Full(request) => {
                        inner.waiting.push_front(request);
                        break;
                    }
                    Started::Refused(request) => done.push((request, Err(Errno::EIO))),
                }
            }
        }
        for (request, result) in done {
            request.complete(result);
        }
    }
}
