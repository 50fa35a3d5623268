//! Virtio 9P transport (virtio 1.2, section 5.11 "9P Device"): carries messages between [`crate::fs::p9`] and a server on the host.
//!
//! A message and the room for its reply belong to a slot of the driver until the device has used them, whatever becomes
//! of the future that waits for the reply. One spinlock covers ring, slots and transport; exchanges are completed after
//! it is released.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use smallvec::SmallVec;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, SomeTransport, Transport};

use super::hal::KernelHal;
use crate::drivers::irq::{self, Interrupt};
use crate::errno::{Errno, Result};
use crate::fs::p9::channel::{self, Channel, Exchange};
use crate::sync::SpinLock;

/// Descriptors of the queue. A message takes two: what is sent, and the room for the reply.
const QUEUE: usize = 128;
/// The queue's index; there is one.
const REQUESTS: u16 = 0;

bitflags::bitflags! {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Features: u64 {
        const MOUNT_TAG = 1 << 0;
        const INDIRECT_DESC = 1 << 28;
        const VERSION_1 = 1 << 32;
    }
}

/// Offsets in the device configuration space: the tag's length, two bytes, and its bytes.
const TAG_LEN: usize = 0;
const TAG: usize = 2;

struct Slot {
    exchange: Option<Exchange>,
    /// The head of its descriptor chain.
    token: u16,
}

struct Inner {
    transport: SomeTransport<'static>,
    queue: VirtQueue<KernelHal, QUEUE>,
    slots: Box<[Slot]>,
    free: Vec<u8>,
    /// The slot of each descriptor chain in flight, by the chain's head.
    by_token: [u8; QUEUE],
    /// Exchanges that found no free slot.
    waiting: VecDeque<Exchange>,
    /// The device broke the protocol. It was reset, and everything fails.
    broken: bool,
}

struct Virtio9p {
    inner: SpinLock<Inner>,
}

type Done = SmallVec<[(Exchange, Result<usize>); 8]>;

/// Initialises the device and makes its channel known by the mount tag.
pub fn start(mut transport: SomeTransport<'static>, irq: Option<u32>) -> virtio_drivers::Result<()> {
    let Some(intid) = irq else {
        log::warn!("virtio 9p: no interrupt");
        return Ok(());
    };
    let features = transport.begin_init(Features::all());
    let indirect = features.contains(Features::INDIRECT_DESC);
    let queue = VirtQueue::new(&mut transport, REQUESTS, indirect, false)?;
    let tag = if features.contains(Features::MOUNT_TAG) { mount_tag(&transport)? } else { Vec::new() };
    transport.finish_init();
    let device = Arc::new(Virtio9p {
        inner: SpinLock::new(Inner {
            transport,
            queue,
            slots: (0..QUEUE).map(|_| Slot { exchange: None, token: 0 }).collect(),
            free: (0..QUEUE as u8).rev().collect(),
            by_token: [0; QUEUE],
            waiting: VecDeque::new(),
            broken: false,
        }),
    });
    log::info!("9p: virtio channel, tag \"{}\"", String::from_utf8_lossy(&tag));
    irq::attach(intid, device.clone());
    channel::register(tag, device);
    Ok(())
}

fn mount_tag(transport: &SomeTransport<'static>) -> virtio_drivers::Result<Vec<u8>> {
    let len: u16 = transport.read_config_space(TAG_LEN)?;
    (0..usize::from(len)).map(|index| transport.read_config_space(TAG + index)).collect()
}

impl Channel for Virtio9p {
    fn submit(&self, exchange: Exchange) {
        let mut done = Done::new();
        {
            let mut inner = self.inner.lock();
            inner.waiting.push_back(exchange);
            inner.start_waiting(&mut done);
        }
        complete(done);
    }
}

fn complete(done: Done) {
    for (exchange, result) in done {
        exchange.complete(result);
    }
}

enum Started {
    Yes,
    Full(Exchange),
    Refused(Exchange),
}

impl Inner {
    fn start_waiting(&mut self, done: &mut Done) {
        while let Some(exchange) = self.waiting.pop_front() {
            match self.start(exchange) {
                Started::Yes => {}
                Started::Full(exchange) => return self.waiting.push_front(exchange),
                Started::Refused(exchange) => done.push((exchange, Err(Errno::EIO))),
            }
        }
    }

    fn start(&mut self, exchange: Exchange) -> Started {
        if self.broken {
            return Started::Refused(exchange);
        }
        let Some(index) = self.free.pop() else { return Started::Full(exchange) };
        let Some(slot) = self.slots.get_mut(usize::from(index)) else { return Started::Refused(exchange) };
        let (input, output) = buffers(slot.exchange.insert(exchange));
        // SAFETY: request and reply stay in the slot until `finish` has popped the chain, and until then nobody reads or
        // writes them; moving the exchange does not move its buffers.
        match unsafe { self.queue.add(&[input], &mut [output]) } {
            Ok(token) => {
                self.by_token[usize::from(token) % QUEUE] = index;
                slot.token = token;
                if self.queue.should_notify() {
                    self.transport.notify(REQUESTS);
                }
                Started::Yes
            }
            Err(error) => {
                self.free.push(index);
                let Some(exchange) = slot.exchange.take() else { return Started::Yes };
                match error {
                    virtio_drivers::Error::QueueFull if self.free.len() < QUEUE => Started::Full(exchange),
                    _ => Started::Refused(exchange),
                }
            }
        }
    }

    /// Takes one chain that the device has used out of the ring.
    fn finish(&mut self) -> Option<(Exchange, Result<usize>)> {
        if self.broken {
            return self.abandon();
        }
        let token = self.queue.peek_used()?;
        let index = self.by_token[usize::from(token) % QUEUE];
        let slot = self.slots.get_mut(usize::from(index)).filter(|slot| slot.token == token);
        let Some(exchange) = slot.and_then(|slot| slot.exchange.as_mut()) else {
            return self.give_up("completed a message that was not sent");
        };
        let (input, output) = buffers(exchange);
        // SAFETY: the same buffers that were added with this token.
        let Ok(len) = (unsafe { self.queue.pop_used(token, &[input], &mut [output]) }) else {
            return self.give_up("changed what it had completed");
        };
        let exchange = self.slots.get_mut(usize::from(index))?.exchange.take()?;
        self.free.push(index);
        Some((exchange, Ok(len as usize)))
    }

    /// No more dealings with this device. After a reset it does not touch memory any more (virtio 1.1, 2.1.2), so what is in
    /// flight can be answered.
    fn give_up(&mut self, why: &str) -> Option<(Exchange, Result<usize>)> {
        log::error!("virtio 9p: the device {why}; everything fails from now on");
        self.transport.set_status(DeviceStatus::empty());
        self.broken = true;
        self.abandon()
    }

    fn abandon(&mut self) -> Option<(Exchange, Result<usize>)> {
        let exchange = self.slots.iter_mut().find_map(|slot| slot.exchange.take())?;
        Some((exchange, Err(Errno::EIO)))
    }
}

/// What the device reads and what it writes, for the queue, which only looks at addresses and lengths.
fn buffers<'a>(exchange: &mut Exchange) -> (&'a [u8], &'a mut [u8]) {
    let (request, reply) = (&exchange.request, &mut exchange.reply);
    // SAFETY: both belong to the exchange, which is in a slot as long as the slices are used, under the driver's lock.
    unsafe {
        (
            core::slice::from_raw_parts(request.as_ptr(), request.len()),
            core::slice::from_raw_parts_mut(reply.as_mut_ptr(), reply.len()),
        )
    }
}

impl Interrupt for Virtio9p {
    fn service(&self) {
        let mut done = Done::new();
        {
            let mut inner = self.inner.lock();
            // First quiet the device, then look at the ring: what it uses later raises the line again.
            inner.transport.ack_interrupt();
            while let Some(finished) = inner.finish() {
                done.push(finished);
            }
            inner.start_waiting(&mut done);
        }
        complete(done);
    }
}
