//! A card that makes checksums, cuts long segments, and hands over long ones: what virtio asks of a device (virtio 1.1, 5.1.6), done
//! with frames as the wire has them.

use alloc::collections::VecDeque;

use smoltcp::wire::{Ipv4Packet, TcpPacket};

use super::super::{Buffer, Cut, Frame, Offloads, Sum, frame, sums};
use super::*;

/// The longest frame that it cuts.
const LONG: usize = 8000;

pub const ALL: Offloads = Offloads { sums: true, cuts: core::num::NonZeroUsize::new(LONG) };

/// The frames that leave when this one is sent.
pub fn leave(mut bytes: Vec<u8>, sum: Sum, cut: Option<Cut>) -> Vec<Vec<u8>> {
    let Some(Cut { header, size }) = cut else {
        if let Sum::Partial(partial) = sum {
            sums::complete(&mut bytes, partial).unwrap();
        }
        return vec![bytes];
    };
    assert!(matches!(sum, Sum::Partial(_)), "a segment is cut with its checksum left");
    let (header, body) = bytes.split_at(header.into());
    assert!(body.len() > size.into() && bytes.len() <= LONG);
    let last = body.len().div_ceil(size.into()) - 1;
    let piece = |(index, data): (usize, &[u8])| {
        let mut piece = [header, data].concat();
        let mut ip = Ipv4Packet::new_unchecked(&mut piece[14..]);
        ip.set_total_len((header.len() - 14 + data.len()) as u16);
        ip.fill_checksum();
        let mut segment = frame::segment_mut(&mut piece).unwrap();
        let number = segment.seq_number();
        segment.set_seq_number(number + index * usize::from(size));
        if index < last {
            segment.set_fin(false);
            segment.set_psh(false);
        }
        let partial = sums::prepare(&mut piece).unwrap();
        sums::complete(&mut piece, partial).unwrap();
        piece
    };
    body.chunks(size.into()).enumerate().map(piece).collect()
}

/// One segment out of two, if the second goes on where the first ends.
fn join(first: &[u8], second: &[u8]) -> Option<Vec<u8>> {
    let (one, other) = (frame::segment(first)?, frame::segment(second)?);
    let plain = |segment: &TcpPacket<&[u8]>| segment.ack() && !(segment.syn() || segment.fin() || segment.rst());
    let goes_on = one.seq_number() + one.payload().len() == other.seq_number()
        && one.ack_number() == other.ack_number()
        && first[26..38] == second[26..38]
        && !one.payload().is_empty();
    if !(plain(&one) && plain(&other) && goes_on) || first.len() > 20_000 {
        return None;
    }
    let mut joined = first[..14 + 20 + usize::from(one.header_len())].to_vec();
    joined.extend([one.payload(), other.payload()].concat());
    let mut ip = Ipv4Packet::new_unchecked(&mut joined[14..]);
    ip.set_total_len(20 + u16::from(one.header_len()) + (one.payload().len() + other.payload().len()) as u16);
    ip.fill_checksum();
    Some(joined)
}

/// The next frame that comes: as long as can be, with a checksum that is still to be made, if it was good.
pub fn come(arrived: &mut VecDeque<Vec<u8>>) -> Option<Frame> {
    let mut bytes = arrived.pop_front()?;
    let mut sum = Sum::Whole;
    if let frame::Kind::Tcp { .. } = frame::classify(&bytes, false) {
        while let Some(joined) = arrived.front().and_then(|next| join(&bytes, next)) {
            bytes = joined;
            arrived.pop_front();
        }
        sum = Sum::Partial(sums::prepare(&mut bytes)?);
    }
    let mut buffer = Buffer::with_room(bytes.len());
    buffer.bytes_mut().copy_from_slice(&bytes);
    buffer.sum = sum;
    Some(Frame::new(buffer, 0, bytes.len()))
}

#[test]
fn a_card_that_cuts_and_joins_segments_changes_nothing_of_what_they_carry() {
    for seed in 0..6 {
        let faults = if seed == 0 { Faults::default() } else { FAULTS };
        let mut net = Net::with_offloads(seed, faults, ALL);
        let there = net.add_tcp();
        net.tcp(there).listen(80).unwrap();
        let socket = TcpSocket::new(AF_INET);
        socket.begin_as(0, net.own, net.at(80)).unwrap();
        net.until("it is connected", |_| !socket.is_connecting());
        exchange(&mut net, &*socket, there, &pattern(200_000));
        socket.released();
        net.until("nothing is left of it", |net| net.engine.connections().is_idle());
        let (cut, long) = net.offloaded();
        assert!(seed != 0 || cut > 10 && long > 10, "{cut} were cut, {long} came joined");
    }
}

#[test]
fn a_broken_segment_is_not_heard() {
    let mut net = Net::new(7, Faults::default());
    let (socket, there) = lasting::connect(&mut net);
    net.tcp(there).send_slice(b"hello").unwrap();
    net.step_there();
    net.change_arrived(|frame| *frame.last_mut().unwrap() ^= 1);
    net.step();
    assert_eq!(receive(&*socket), Ok(None));
    // It comes again.
    net.until("it is there", |_| !(ready(&*socket) & Events::IN).is_empty());
    assert_eq!(receive(&*socket), Ok(Some(b"hello".to_vec())));
}

#[test]
fn a_segment_that_a_program_has_written_keeps_its_checksum() {
    for offloads in [Offloads::default(), ALL] {
        let mut net = Net::with_offloads(8, Faults::default(), offloads);
        let socket = IpSocket::new(AF_INET, Kind::Raw, 6);
        let mut segment = [0; 20];
        segment[..4].copy_from_slice(&[0, 1, 0, 2]);
        (segment[12], segment[13]) = (0x50, 2);
        segment[16..18].copy_from_slice(&[0x12, 0x34]);
        let there = Endpoint { port: 0, ..net.at(0) };
        net.kept = Some(Vec::new());
        let mut message = Outgoing { target: Target::Inet(there), ..Outgoing::plain() };
        assert!(matches!(socket.try_send(&mut IoBuf::kernel(&segment), &mut message), Ok(20)));
        net.until("it has gone", |_| socket.on_its_way() == 0);
        net.pass(Duration::from_millis(10));
        let kept = net.kept.take().unwrap();
        assert!(kept.iter().any(|frame| frame.get(34..) == Some(&segment)), "{kept:?}");
    }
}
