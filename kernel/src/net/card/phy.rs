//! A card as smoltcp sees it. A frame is put here first, so that the engine can look at it.

use alloc::sync::Arc;
use core::net::Ipv4Addr;
use core::num::NonZeroU16;
use core::sync::atomic::Ordering;

use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, TcpSeqNumber,
};

use super::numbers::Numbers;
use super::past::LastWord;
use super::{Buffer, Cut, ETHERNET_HEADER, Frame, MTU, OutgoingFrame, Port, Sum, frame, sums};
use crate::exec;
use crate::net::link::{self, LinkSocket};

pub struct Phy {
    port: Arc<Port>,
    /// What is received next.
    pub pending: Option<Frame>,
    /// Something could not be sent for want of a buffer.
    pub starved: bool,
    /// For the next frame.
    reserved: Option<Buffer>,
    pub sent: Sent,
    /// Of the connection that sends.
    pub numbers: Option<Numbers>,
    /// What the stack is about to send has its checksum: it goes as it is.
    pub whole: bool,
}

/// The segment of TCP that was sent last.
#[derive(Default)]
pub struct Sent {
    pub end: Option<TcpSeqNumber>,
    /// What it acknowledges.
    pub ack: Option<TcpSeqNumber>,
    /// Its frame, which is kept if this is there, and it only acknowledges.
    pub frame: Option<LastWord>,
}

impl Sent {
    /// As the stack has made it.
    fn note_numbers(&mut self, frame: &[u8]) {
        let segment = frame::segment(frame);
        self.end = segment.as_ref().map(|segment| segment.seq_number() + segment.segment_len());
        self.ack = segment.filter(|segment| segment.ack()).map(|segment| segment.ack_number()).or(self.ack);
    }

    /// As it leaves.
    fn note_frame(&mut self, frame: &[u8]) {
        if let Some(kept) = &mut self.frame
            && frame::segment(frame).is_some_and(|segment| segment.segment_len() == 0)
        {
            kept.clear();
            // Too long: nothing is kept.
            _ = kept.try_extend_from_slice(frame);
        }
    }
}

pub struct Received<'a>(&'a Port, Frame);

pub struct Transmit<'a> {
    port: &'a Port,
    buffer: Option<Buffer>,
    now: Instant,
    sent: &'a mut Sent,
    numbers: &'a mut Option<Numbers>,
    /// Bytes of each of the segments that the card makes of it.
    cut: Option<NonZeroU16>,
    whole: bool,
}

impl Phy {
    pub fn new(port: Arc<Port>) -> Self {
        Phy { port, pending: None, starved: false, reserved: None, sent: Sent::default(), numbers: None, whole: false }
    }

    /// There is a buffer for a frame; without one the stack must not be asked for it: what it wants to send again at once it
    /// forgets if it cannot (Timer::FastRetransmit), and waits for ever.
    pub fn reserve(&mut self) -> bool {
        if self.reserved.is_none() {
            self.reserved = self.port.card().take_buffer();
            self.starved |= self.reserved.is_none();
        }
        self.reserved.is_some()
    }

    /// An ARP request (RFC 826) of our own.
    pub fn ask_for(&mut self, own: Ipv4Addr, ip: Ipv4Addr, now: Instant) {
        let mac = EthernetAddress(self.port.card().mac());
        let ask = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: mac,
            source_protocol_addr: own,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: ip,
        };
        let header =
            EthernetRepr { src_addr: mac, dst_addr: EthernetAddress::BROADCAST, ethertype: EthernetProtocol::Arp };
        if let Some(token) = self.transmit(now) {
            token.consume(ETHERNET_HEADER + ask.buffer_len(), |room| {
                header.emit(&mut EthernetFrame::new_unchecked(&mut *room));
                ask.emit(&mut ArpPacket::new_unchecked(&mut room[ETHERNET_HEADER..]));
            });
        }
    }
}

impl Phy {
    /// Sends what a program has written. False: there is no buffer.
    pub fn send(&mut self, frame: &OutgoingFrame) -> bool {
        let sent = self.put(&frame.data, Some(frame.sender.as_ptr()));
        self.starved |= !sent;
        sent
    }

    /// Sends a frame of the kernel's own. False: there is no buffer, and the card rings when there is one.
    pub fn send_own(&mut self, frame: &[u8]) -> bool {
        let sent = self.put(frame, None);
        self.starved |= !sent;
        sent
    }

    /// Sends what has been sent before. Without a buffer it is lost, as on the wire.
    pub fn repeat(&self, frame: &[u8]) {
        self.put(frame, None);
    }

    fn put(&self, data: &[u8], sender: Option<*const LinkSocket>) -> bool {
        let card = self.port.card();
        let Some(mut buffer) = card.take_buffer() else { return false };
        let Some(room) = buffer.room(data.len()) else {
            card.return_buffer(buffer);
            return true;
        };
        room.copy_from_slice(data);
        if link::is_watched() {
            link::leaves(&self.port, data, sender);
        }
        self.port.counters.note_sent(data.len());
        card.transmit(buffer, data.len());
        true
    }
}

impl Device for Phy {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Transmit<'a>;

    fn receive(&mut self, now: Instant) -> Option<(Received<'_>, Transmit<'_>)> {
        let frame = self.pending.take()?;
        // An answer for which there is no buffer is lost, as on the wire.
        let Phy { port, sent, numbers, whole, .. } = self;
        Some((Received(port, frame), Transmit { port, buffer: None, now, sent, numbers, cut: None, whole: *whole }))
    }

    fn transmit(&mut self, now: Instant) -> Option<Transmit<'_>> {
        self.reserve();
        let buffer = Some(self.reserved.take()?);
        let Phy { port, sent, numbers, whole, .. } = self;
        Some(Transmit { port, buffer, now, sent, numbers, cut: None, whole: *whole })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU + ETHERNET_HEADER;
        // Those are made when a segment has its number, and looked at when it is found out to whom it goes.
        capabilities.checksum.tcp = Checksum::None;
        // For IPv6 the stack knows no such thing.
        capabilities.segmentation.tcpv4 = self.port.card().offloads().cuts;
        capabilities
    }
}

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        let result = f(self.1.bytes());
        self.0.card().recycle(self.1.0);
        result
    }
}

impl Transmit<'_> {
    /// Makes the checksum of a segment, or leaves that to the card, with the pieces.
    fn finish(&self, frame: &mut [u8]) -> (Sum, Option<Cut>) {
        let prepared = if self.whole { None } else { sums::prepare(frame) };
        let Some(partial) = prepared else { return (Sum::Whole, None) };
        if let Some(size) = self.cut
            && let Some(segment) = frame::segment(frame)
        {
            let header = partial.start + usize::from(segment.header_len());
            return (Sum::Partial(partial), Some(Cut { header: header as u16, size: size.get() }));
        }
        // Others look at it, or it is kept.
        let wanted = link::is_watched() || self.sent.frame.is_some();
        if !wanted && self.port.card().offloads().sums {
            return (Sum::Partial(partial), None);
        }
        _ = sums::complete(frame, partial);
        (Sum::Whole, None)
    }
}

impl TxToken for Transmit<'_> {
    fn set_meta(&mut self, meta: PacketMeta) {
        self.cut = meta.segmentation_offload_size;
    }

    fn consume<R, F: FnOnce(&mut [u8]) -> R>(mut self, len: usize, f: F) -> R {
        let card = self.port.card();
        let buffer = self.buffer.take().or_else(|| card.take_buffer());
        if let Some(mut buffer) = buffer {
            if let Some(room) = buffer.room(len) {
                let result = f(room);
                self.sent.note_numbers(room);
                if let Some(numbers) = self.numbers {
                    numbers.leave(room);
                }
                let left = self.finish(room);
                self.sent.note_frame(room);
                if link::is_watched() {
                    link::leaves(self.port, room, None);
                }
                if let Some(ip) = frame::asks_for(room) {
                    let now = exec::Instant::from_nanos(self.now.total_micros().max(0) as u64 * 1000);
                    self.port.with_neighbours(|known| known.ask(ip, now));
                }
                self.port.counters.note_sent(len);
                (buffer.sum, buffer.cut) = left;
                card.transmit(buffer, len);
                return result;
            }
            card.return_buffer(buffer);
        }
        self.port.counters.sent_dropped.fetch_add(1, Ordering::Relaxed);
        let mut lost = alloc::vec![0; len];
        let result = f(&mut lost);
        // To the stack it has gone.
        self.sent.note_numbers(&lost);
        result
    }
}

impl Drop for Transmit<'_> {
    /// A token that was not used gives its buffer back.
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.port.card().return_buffer(buffer);
        }
    }
}
