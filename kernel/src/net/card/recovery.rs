//! Losses that the stack would sit out until its time-out, of a second and more.
//!
//! The stack sends one segment again when three acknowledgements have told of a gap. It does not when the next one leaves out another segment
//! of the same flight (NewReno, RFC 6582), nor when what is lost was the last of a flight, of which nothing tells (the tail loss probe of
//! RFC 8985, and time-outs from 200 ms). What makes it send again is three repeated acknowledgements: in these cases they come from here.

use core::time::Duration;

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, IpRepr, TcpControl, TcpPacket, TcpRepr,
    TcpSeqNumber,
};

use super::frame::Pair;
use super::{Buffer, ETHERNET_HEADER, Frame};
use crate::exec::Instant;

/// So many repeated acknowledgements tell of a gap.
const REPEATED: u32 = 3;
/// A silence of two round trips is a loss, but for what others do meanwhile; with one segment on its way its acknowledgement may
/// be delayed (RFC 8985, 7.2). The second time it is what Linux waits at least (TCP_RTO_MIN).
const SILENCE: Duration = Duration::from_millis(20);
const DELAYED: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(1);
const SEGMENT: usize = 1500;
/// More acknowledgements of single bytes are not told in a turn, of all connections: each costs the stack what a segment does, and
/// who has sent the one that they stand before has sent only that.
pub const MOST_SINGLE: usize = 512;
/// How often that is so before it is left to the stack.
const QUESTIONS: u32 = 2;

/// A segment that only acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    pub seq: TcpSeqNumber,
    pub ack: TcpSeqNumber,
    /// As it is written, not scaled.
    pub window: u16,
}

/// What a segment says that is of interest here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It begins a connection: by how many bits windows are shifted.
    Begins(u8),
    Acknowledges(Acknowledgement),
    Other,
}

#[derive(Default)]
pub struct Recovery {
    /// The last that came, unless something else has come since, and how often again.
    last: Option<Acknowledgement>,
    repeated: u32,
    /// Up to where everything has been sent.
    sent: Option<TcpSeqNumber>,
    /// Of what was sent before this, something is lost.
    until: Option<TcpSeqNumber>,
    /// Bytes that were on their way when the stack cut its window, for the first and for the last time since something is lost.
    cuts: Option<(usize, usize)>,
    /// The longest segment.
    longest: usize,
    /// Since when nothing happens that leads on, and how often something was sent again because of that.
    since: Option<Instant>,
    questions: u32,
    /// By how many bits the other machine's windows are shifted.
    scale: u8,
    /// How long an answer takes; the segment by which that is measured, and when it went.
    trip: Duration,
    measured: Option<(TcpSeqNumber, Instant)>,
}

impl Recovery {
    /// The other machine took so long to answer when the connection was made.
    pub fn set_trip(&mut self, trip: Duration) {
        self.trip = trip;
    }

    pub fn set_scale(&mut self, scale: u8) {
        self.scale = scale;
    }

    /// A whole segment fits. The stack does not look at that when it sends one again, and goes beyond the window; its next acknowledgements
    /// then seem to come from there, and a machine whose window is closed does not believe them.
    fn has_room(&self, last: &Acknowledgement) -> bool {
        usize::from(last.window) << self.scale >= SEGMENT
    }

    /// The stack must not count it as one that tells of a gap.
    pub fn is_to_be_hidden(&self, heard: &Acknowledgement) -> bool {
        heard.window > 0 && !self.has_room(heard) && self.is_repeated(heard)
    }

    /// It may tell of a gap.
    pub fn is_repeated(&self, heard: &Acknowledgement) -> bool {
        // Without anything on its way it is a question whether we are there, or have room again: the stack has to answer.
        self.sent.is_some_and(|sent| distance(heard.ack, sent) > 0) && self.last == Some(*heard)
    }

    /// A segment went out, which ends here.
    pub fn sent(&mut self, end: TcpSeqNumber, now: Instant) {
        if self.sent.is_none_or(|sent| distance(sent, end) > 0) {
            let len = self.sent.map_or(0, |sent| distance(sent, end));
            self.longest = self.longest.max(usize::try_from(len).unwrap_or(0).min(SEGMENT));
            self.sent = Some(end);
            self.since = Some(now);
            self.measured = self.measured.or(Some((end, now)));
        }
    }

    /// More is acknowledged. A longer trip counts at once, a shorter one slowly; what went twice does not (RFC 6298, 3).
    fn measure(&mut self, ack: TcpSeqNumber, now: Instant) {
        if let Some((_, sent)) = self.measured.take_if(|(end, _)| *end <= ack) {
            let trip = now.saturating_since(sent);
            self.trip = trip.max((self.trip * 7 + trip) / 8);
        }
        if self.until.is_some() {
            self.measured = None;
        }
    }

    /// A segment has come that says more than how far everything has arrived, or nothing that can be believed.
    pub fn heard_other(&mut self, now: Instant) {
        (self.last, self.until, self.cuts, self.repeated) = (None, None, None, 0);
        self.since = Some(now);
    }

    /// True: the first segment that is not acknowledged is lost, and the stack does not know.
    pub fn heard(&mut self, heard: Acknowledgement, now: Instant) -> bool {
        if self.sent.is_none_or(|sent| distance(heard.ack, sent) < 0) {
            return false;
        }
        let last = self.last.replace(heard);
        match last {
            Some(last) if distance(last.ack, heard.ack) < 0 => {
                // Late. What it says of the window is old, too.
                self.last = Some(last);
                false
            }
            Some(last) if heard == last => {
                self.repeated += 1;
                if self.repeated == REPEATED && self.until.is_none() {
                    (self.until, self.measured) = (self.sent, None);
                    self.note_cut();
                }
                false
            }
            Some(last) if heard.ack == last.ack => {
                self.repeated = 0;
                false
            }
            _ => {
                (self.repeated, self.questions, self.since) = (0, 0, Some(now));
                self.measure(heard.ack, now);
                self.until = self.until.filter(|until| heard.ack < *until);
                if self.until.is_none() {
                    self.cuts = None;
                }
                self.until.is_some()
            }
        }
    }

    /// When a silence is a loss.
    pub fn due(&self) -> Option<Instant> {
        let (last, sent) = (self.last?, self.sent?);
        let left = usize::try_from(distance(last.ack, sent)).ok().filter(|left| *left > 0)?;
        if !self.has_room(&last) || self.questions >= QUESTIONS {
            return None;
        }
        let delayed = self.questions > 0 || left <= SEGMENT;
        let least = if delayed { DELAYED } else { SILENCE };
        Some(self.since?.saturating_add((self.trip * 2).clamp(least, LONGEST)))
    }

    /// It is one now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    /// The silence begins anew: nothing can be sent.
    pub fn wait(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// The first segment that is not acknowledged is sent again, to see.
    pub fn ask(&mut self, now: Instant) {
        self.questions += 1;
        self.since = Some(now);
        (self.until, self.measured) = (self.sent, None);
        if self.cuts.is_none() {
            self.note_cut();
        }
    }

    /// The stack sends again, and cuts its window to half of what is on its way, each time that it is told of a loss.
    pub fn note_cut(&mut self) {
        let flight = self.last.zip(self.sent).map_or(0, |(last, sent)| distance(last.ack, sent).max(0) as usize);
        self.cuts = Some((self.cuts.map_or(flight, |(first, _)| first), flight));
    }

    /// What gives the stack back the window that it has cut more than once for the losses of one flight (RFC 6582, 3.2), before it
    /// hears this, which ends them: so many acknowledgements of a byte each. Each lets the window grow as one of a segment does
    /// (RFC 5681, 3.1), and the real one then acknowledges what they have left. There are no more than are `left`.
    pub fn amends(&self, heard: &Acknowledgement, left: &mut usize) -> impl Iterator<Item = Acknowledgement> + use<> {
        let told = self.last.zip(self.until).zip(self.cuts).filter(|((last, until), _)| {
            let ends = distance(*until, heard.ack) >= 0 && self.sent.is_some_and(|sent| distance(heard.ack, sent) >= 0);
            // Who does not know where we are is not believed, nor is what is made of what he says.
            ends && heard.seq == last.seq && self.has_room(last)
        });
        let end = heard.ack;
        let count = told.map_or(0, |((last, _), (first, cut))| {
            let room = usize::try_from(distance(last.ack, end)).unwrap_or(0).saturating_sub(1);
            singles(self.longest, cut / 2, first / 2).min(room).min(*left)
        });
        *left -= count;
        let last = told.map(|((last, _), _)| last);
        last.into_iter().flat_map(move |last| (1..=count).map(move |i| Acknowledgement { ack: last.ack + i, ..last }))
    }

    /// The last that came, unless something else has come since.
    pub fn last(&self) -> Option<Acknowledgement> {
        self.last
    }

    /// What tells the stack: another window, so that it counts anew, and the last acknowledgement once and three times again.
    pub fn frames(&self, pair: Pair, mac: [u8; 6]) -> impl Iterator<Item = Frame> + use<> {
        let told = self.last.filter(|last| self.has_room(last)).into_iter().flat_map(|last| {
            let other = Acknowledgement { window: last.window ^ 1, ..last };
            core::iter::once(other).chain(core::iter::repeat_n(last, 1 + REPEATED as usize))
        });
        told.filter_map(move |told| frame(told, pair, mac))
    }
}

/// After how many acknowledgements the window has grown from one size to another, in bytes: each adds the square of a segment divided
/// by the window, but the first, which ends the stack's recovery.
fn singles(segment: usize, from: usize, to: usize) -> usize {
    let (from, to) = (from.max(2 * segment), to.max(2 * segment));
    let growth = (to * to).saturating_sub(from * from);
    let count = growth.checked_div(2 * segment * segment).unwrap_or(0);
    if count == 0 { 0 } else { count + 1 }
}

/// How far `to` is behind `from`, bytes; negative if it is before it, or as far away as can be. Others choose these numbers, and the
/// difference of the stack's own type must not be negative.
pub fn distance(from: TcpSeqNumber, to: TcpSeqNumber) -> i32 {
    to.0.wrapping_sub(from.0)
}

pub fn frame(told: Acknowledgement, (local, remote): Pair, mac: [u8; 6]) -> Option<Frame> {
    let tcp = TcpRepr {
        src_port: remote.port,
        dst_port: local.port,
        control: TcpControl::None,
        seq_number: told.seq,
        ack_number: Some(told.ack),
        window_len: told.window,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let (from, to) = (remote.ip.into(), local.ip.into());
    let ip = IpRepr::new(from, to, IpProtocol::Tcp, tcp.buffer_len(), 64);
    let ethertype = match ip {
        IpRepr::Ipv4(_) => EthernetProtocol::Ipv4,
        IpRepr::Ipv6(_) => EthernetProtocol::Ipv6,
    };
    let header = EthernetRepr { src_addr: EthernetAddress(mac), dst_addr: EthernetAddress(mac), ethertype };
    let (mut buffer, checksums) = (Buffer::new(), ChecksumCapabilities::default());
    let len = ETHERNET_HEADER + ip.buffer_len();
    let room = buffer.room(len)?;
    header.emit(&mut EthernetFrame::new_unchecked(&mut *room));
    let packet = &mut room[ETHERNET_HEADER..];
    ip.emit(&mut *packet, &checksums);
    tcp.emit(&mut TcpPacket::new_unchecked(&mut packet[ip.header_len()..]), &from, &to, &checksums);
    Some(Frame::new(buffer, 0, len))
}
