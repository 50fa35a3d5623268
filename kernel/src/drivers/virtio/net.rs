//! Virtio network card (virtio 1.1, section 5.1): one pair of queues, a buffer of its own for each descriptor.
//!
//! Buffers are the driver's while they are in a ring and the network task's meanwhile ([`Buffer`] goes back and forth), so
//! nothing is copied here. The device interrupts once when frames have come; the task then takes them until there are no more
//! and only then wants to be told again. It is never told of frames that have been sent unless it found no room.
//!
//! If the device makes checksums, or says that they are good, nobody else does; it may cut long segments of TCP, and hand over long
//! ones, in several buffers (`docs/decisions/058`). QEMU offers that with a tap device behind it, not with its user network.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroUsize;
use core::sync::atomic::{AtomicBool, Ordering};

use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, SomeTransport, Transport};
use zerocopy::IntoBytes;

use super::hal::KernelHal;
use super::net_header::{self, Header};
use crate::drivers::irq::{self, Interrupt};
use crate::exec::Notify;
use crate::net::card::{self, BUFFER, Buffer, Card, Frame, Offloads};
use crate::sync::SpinLock;

/// Descriptors of each queue, and the frames that may wait in it.
const QUEUE: usize = 128;
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
/// The longest frame that is cut, and buffers for frames if there are such.
const LONG: usize = 16 << 10;
const LONG_BUFFERS: usize = 64;
/// The longest that comes: the longest packet in a frame.
const LONGEST: usize = net_header::LONG + 14 + (64 << 10);

bitflags::bitflags! {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Features: u64 {
        const CSUM = 1 << 0;
        const GUEST_CSUM = 1 << 1;
        const MAC = 1 << 5;
        const GUEST_TSO4 = 1 << 7;
        const GUEST_TSO6 = 1 << 8;
        const HOST_TSO4 = 1 << 11;
        const MRG_RXBUF = 1 << 15;
        const STATUS = 1 << 16;
        const VERSION_1 = 1 << 32;
    }
}

/// Offsets in the device configuration space.
const MAC: usize = 0;
const STATUS: usize = 6;
/// VIRTIO_NET_S_LINK_UP.
const LINK_UP: u16 = 1;

type Queue = VirtQueue<KernelHal, QUEUE>;
type Slots = [Option<Buffer>; QUEUE];

struct Inner {
    transport: SomeTransport<'static>,
    receive: Queue,
    transmit: Queue,
    /// What is in the rings, by the head of its chain.
    received: Box<Slots>,
    sending: Box<Slots>,
    /// Buffers for frames to be sent.
    free: Vec<Buffer>,
    /// For a frame that comes in several buffers.
    long: Option<Buffer>,
    /// The device broke the protocol and was reset.
    broken: bool,
}

struct VirtioNet {
    inner: SpinLock<Inner>,
    mac: [u8; 6],
    header: usize,
    /// A frame may come in several buffers.
    merges: bool,
    offloads: Offloads,
    has_status: bool,
    link: AtomicBool,
    bell: Notify,
}

fn no_buffers() -> Box<Slots> {
    Box::new([const { None }; QUEUE])
}

/// Initialises the device and hands it to the network as the next `ethX`.
pub fn start(mut transport: SomeTransport<'static>, irq: Option<u32>) -> virtio_drivers::Result<()> {
    let Some(intid) = irq else {
        log::warn!("virtio network card: no interrupt");
        return Ok(());
    };
    let offered = Features::from_bits_truncate(transport.read_device_features());
    let features = transport.begin_init(wanted(offered));
    let mut receive = VirtQueue::new(&mut transport, RECEIVE, false, false)?;
    let mut transmit: Queue = VirtQueue::new(&mut transport, TRANSMIT, false, false)?;
    transmit.set_dev_notify(false);
    let mac = if features.contains(Features::MAC) {
        transport.read_consistent(|| transport.read_config_space::<[u8; 6]>(MAC))?
    } else {
        card::random_mac()
    };
    let has_status = features.contains(Features::STATUS);
    let link = !has_status || transport.read_config_space::<u16>(STATUS)? & LINK_UP != 0;
    let mut received = no_buffers();
    for _ in 0..QUEUE {
        add_receive(&mut receive, &mut received, Buffer::new());
    }
    transport.finish_init();
    transport.notify(RECEIVE);
    let cuts = features.contains(Features::HOST_TSO4).then(|| NonZeroUsize::new(LONG - net_header::LONG)).flatten();
    let (buffers, size) = if cuts.is_some() { (LONG_BUFFERS, LONG) } else { (QUEUE, BUFFER) };
    let free = (0..buffers).map(|_| Buffer::with_room(size)).collect();
    let merges = features.contains(Features::MRG_RXBUF);
    let device = Arc::new(VirtioNet {
        inner: SpinLock::new(Inner {
            transport,
            receive,
            transmit,
            received,
            sending: no_buffers(),
            free,
            long: merges.then(|| Buffer::with_room(LONGEST)),
            broken: false,
        }),
        mac,
        header: if merges || features.contains(Features::VERSION_1) { net_header::LONG } else { net_header::SHORT },
        merges,
        offloads: Offloads { sums: features.contains(Features::CSUM), cuts },
        has_status,
        link: AtomicBool::new(link),
        bell: Notify::new(),
    });
    irq::attach(intid, device.clone());
    card::register(device);
    Ok(())
}

/// Of what is offered. Long frames are taken in several buffers only.
fn wanted(offered: Features) -> Features {
    let mut wanted = offered;
    if !offered.contains(Features::GUEST_CSUM | Features::MRG_RXBUF) {
        wanted -= Features::GUEST_TSO4 | Features::GUEST_TSO6 | Features::MRG_RXBUF;
    }
    if !offered.contains(Features::CSUM) {
        wanted -= Features::HOST_TSO4;
    }
    wanted
}

/// Gives the device a buffer to receive into. False if the ring does not take it.
fn add_receive(queue: &mut Queue, slots: &mut Slots, mut buffer: Buffer) -> bool {
    // SAFETY: the buffer stays in its slot, where nobody touches it, until `pop_used` has answered its token.
    match unsafe { queue.add(&[], &mut [&mut buffer.bytes_mut()[..]]) } {
        Ok(token) => {
            slots[usize::from(token) % QUEUE] = Some(buffer);
            true
        }
        Err(_) => false,
    }
}

/// What is in the ring under this token, if there is such a thing: a device may say anything.
fn take_slot(slots: &mut Slots, token: u16) -> Option<Buffer> {
    slots.get_mut(usize::from(token))?.take()
}

impl Inner {
    /// After a reset the device touches no memory any more (2.1.2).
    fn give_up(&mut self, why: &str) {
        log::error!("virtio network card: the device {why}; it is not used any more");
        self.transport.set_status(DeviceStatus::empty());
        self.broken = true;
    }

    /// The next buffer that something has come into, and how much.
    fn take_used(&mut self) -> Option<(Buffer, usize)> {
        if self.broken {
            return None;
        }
        let token = self.receive.peek_used()?;
        let Some(mut buffer) = take_slot(&mut self.received, token) else {
            self.give_up("received into a buffer that it did not have");
            return None;
        };
        // SAFETY: the same buffer that was added with this token.
        match unsafe { self.receive.pop_used(token, &[], &mut [&mut buffer.bytes_mut()[..]]) } {
            Ok(len) => Some((buffer, (len as usize).min(BUFFER))),
            Err(_) => {
                self.give_up("changed what it had received");
                None
            }
        }
    }

    fn take_received(&mut self, header: usize, merges: bool) -> Option<Frame> {
        let (mut buffer, mut end) = self.take_used()?;
        let said = Header::read(buffer.bytes().get(..end.min(header)).unwrap_or_default());
        if merges && said.buffers() > 1 {
            (buffer, end) = self.merge(buffer, end, said.buffers())?;
        }
        buffer.sum = said.sum();
        Some(Frame::new(buffer, header, end.max(header)))
    }

    /// The frame that is in so many buffers: the first of them, and those behind it.
    fn merge(&mut self, first: Buffer, len: usize, buffers: usize) -> Option<(Buffer, usize)> {
        if buffers > QUEUE {
            self.give_up("received more parts of a frame than there are buffers");
            return None;
        }
        // It is away only if somebody has kept it.
        let mut long = self.long.take().unwrap_or_else(|| Buffer::with_room(LONGEST));
        let mut end = 0;
        let mut next = Some((first, len));
        for left in (0..buffers).rev() {
            let Some((piece, len)) = next.take() else {
                // They come all at once (5.1.6.4.1).
                self.give_up("received a part of a frame");
                break;
            };
            let bytes = piece.bytes().get(..len).unwrap_or_default();
            // More than a packet can be: what is cut off is missed there.
            let room = long.bytes_mut().get_mut(end..).unwrap_or_default();
            let taken = bytes.len().min(room.len());
            room[..taken].copy_from_slice(&bytes[..taken]);
            end += taken;
            add_receive(&mut self.receive, &mut self.received, piece);
            if left > 0 {
                next = self.take_used();
            }
        }
        if self.receive.should_notify() {
            self.transport.notify(RECEIVE);
        }
        (!self.broken).then_some((long, end))
    }

    /// Takes back what has been sent.
    fn reclaim(&mut self, header: usize) {
        while !self.broken
            && let Some(token) = self.transmit.peek_used()
        {
            let Some(buffer) = take_slot(&mut self.sending, token) else {
                return self.give_up("sent a frame that it did not have");
            };
            let bytes = buffer.sent_bytes(header);
            // SAFETY: the same bytes that were added with this token.
            if unsafe { self.transmit.pop_used(token, &[bytes], &mut []) }.is_err() {
                return self.give_up("changed what it had sent");
            }
            self.free.push(buffer);
        }
    }
}

impl Card for VirtioNet {
    fn mac(&self) -> [u8; 6] {
        self.mac
    }

    fn link(&self) -> bool {
        self.link.load(Ordering::Relaxed)
    }

    fn bell(&self) -> &Notify {
        &self.bell
    }

    fn receive(&self) -> Option<Frame> {
        self.inner.lock().take_received(self.header, self.merges)
    }

    fn recycle(&self, buffer: Buffer) {
        let mut inner = self.inner.lock();
        let Inner { transport, receive, received, broken, long, .. } = &mut *inner;
        if buffer.bytes().len() > BUFFER {
            return *long = Some(buffer);
        }
        if !*broken && add_receive(receive, received, buffer) && receive.should_notify() {
            transport.notify(RECEIVE);
        }
    }

    /// Frames that came since the last look were not told of.
    fn listen(&self) -> bool {
        let mut inner = self.inner.lock();
        inner.receive.set_dev_notify(true);
        // The device must see the flag before we look for what it has added meanwhile (2.6.7.2).
        core::sync::atomic::fence(Ordering::SeqCst);
        !inner.broken && inner.receive.can_pop()
    }

    fn take_buffer(&self) -> Option<Buffer> {
        let mut inner = self.inner.lock();
        if inner.free.is_empty() {
            inner.reclaim(self.header);
        }
        if inner.free.is_empty() {
            inner.transmit.set_dev_notify(true);
            core::sync::atomic::fence(Ordering::SeqCst);
            inner.reclaim(self.header);
        }
        let mut buffer = inner.free.pop()?;
        buffer.start = self.header;
        (buffer.sum, buffer.cut) = Default::default();
        Some(buffer)
    }

    fn return_buffer(&self, buffer: Buffer) {
        self.inner.lock().free.push(buffer);
    }

    fn transmit(&self, mut buffer: Buffer, len: usize) {
        buffer.len = len;
        let header = Header::of(&buffer);
        buffer.bytes_mut()[..self.header].copy_from_slice(&header.as_bytes()[..self.header]);
        let mut inner = self.inner.lock();
        let Inner { transport, transmit, sending, free, broken, .. } = &mut *inner;
        if *broken {
            return free.push(buffer);
        }
        // SAFETY: the buffer stays in its slot, where nobody touches it, until `reclaim` has popped it.
        match unsafe { transmit.add(&[buffer.sent_bytes(self.header)], &mut []) } {
            Ok(token) => {
                sending[usize::from(token) % QUEUE] = Some(buffer);
                if transmit.should_notify() {
                    transport.notify(TRANSMIT);
                }
            }
            // There are as many descriptors as buffers, so this does not happen.
            Err(_) => free.push(buffer),
        }
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }
}

impl Interrupt for VirtioNet {
    fn service(&self) {
        let mut inner = self.inner.lock();
        // Lines are shared: without a cause in the status it was another device.
        let cause = inner.transport.ack_interrupt();
        if cause.is_empty() {
            return;
        }
        inner.receive.set_dev_notify(false);
        inner.transmit.set_dev_notify(false);
        if self.has_status
            && let Ok(status) = inner.transport.read_config_space::<u16>(STATUS)
        {
            self.link.store(status & LINK_UP != 0, Ordering::Relaxed);
        }
        drop(inner);
        self.bell.notify();
    }
}
