//! Sequence numbers as other machines see them.
//!
//! The stack begins each connection with a random number. Who has missed the end of one, and then hears of the next between the same
//! ends, takes a SYN whose number is not above those of the old one for a late segment, and half of all numbers are not. So the numbers
//! of the wire begin with the time, and for each pair of ends somewhere else (RFC 9293, 3.4.1; RFC 6528), and differ from the stack's by
//! the same distance in all segments of a connection: those that leave are moved there, what arrives is moved back.

use smoltcp::wire::TcpSeqNumber;

use super::frame::{self, Pair};
use super::recovery::{Acknowledgement, Said};
use crate::exec::Instant;
use crate::net::inet::keyed::{self, Purpose};

/// One more for each.
const TICK_NS: u64 = 4_000;

/// Of a connection.
#[derive(Clone, Copy)]
pub enum Numbers {
    /// Its SYN will have this one.
    From(u32),
    /// It has gone: so far the wire's are above the stack's.
    Above(u32),
}

impl Numbers {
    pub fn new((local, remote): Pair, now: Instant) -> Self {
        let own = keyed::hash(Purpose::Sequence, local, remote) as u32;
        Numbers::From(own.wrapping_add((now.as_nanos() / TICK_NS) as u32))
    }

    /// A frame that the stack sends.
    pub fn leave(&mut self, frame: &mut [u8]) {
        let Some(mut segment) = frame::segment_mut(frame) else { return };
        let number = segment.seq_number();
        if let Numbers::From(first) = *self
            && segment.syn()
        {
            *self = Numbers::Above(first.wrapping_sub(number.0 as u32));
        }
        let moved = TcpSeqNumber(number.0.wrapping_add(self.distance() as i32));
        segment.set_seq_number(moved);
        segment.set_checksum(adjusted(segment.checksum(), number, moved));
    }

    /// One that has come, and what it says.
    pub fn arrive(&self, frame: &mut [u8], said: Said) -> Said {
        let back = |number: TcpSeqNumber| TcpSeqNumber(number.0.wrapping_sub(self.distance() as i32));
        if let Some(mut segment) = frame::segment_mut(frame)
            && segment.ack()
        {
            let number = segment.ack_number();
            segment.set_ack_number(back(number));
            segment.set_checksum(adjusted(segment.checksum(), number, back(number)));
        }
        match said {
            Said::Acknowledges(told) => Said::Acknowledges(Acknowledgement { ack: back(told.ack), ..told }),
            other => other,
        }
    }

    fn distance(&self) -> u32 {
        match self {
            Numbers::From(_) => 0,
            Numbers::Above(distance) => *distance,
        }
    }
}

/// A checksum for another number in place of one (RFC 1624, 3). A wrong one stays wrong.
fn adjusted(checksum: u16, old: TcpSeqNumber, new: TcpSeqNumber) -> u16 {
    let halves = |number: u32| (number >> 16) + (number & 0xffff);
    let sum = u32::from(!checksum) + halves(!(old.0 as u32)) + halves(new.0 as u32);
    let folded = (sum >> 16) + (sum & 0xffff);
    !((folded >> 16) + folded) as u16
}

#[cfg(test)]
mod tests {
    use core::net::{IpAddr, Ipv4Addr};

    use super::super::recovery;
    use super::*;
    use crate::net::inet::Endpoint;

    fn pair(port: u16) -> Pair {
        let end = |last, port| Endpoint { ip: IpAddr::V4(Ipv4Addr::new(10, 0, 2, last)), port };
        (end(15, port), end(2, 80))
    }

    /// Numbers with all bits, and those at which sums carry.
    fn some() -> impl Iterator<Item = u32> {
        let odd = (1..200).map(|i: u32| i.wrapping_mul(2_654_435_761));
        [0, 1, 0xffff, 0x1_0000, 0xffff_0000, 0x7fff_ffff, 0x8000_0000, u32::MAX].into_iter().chain(odd)
    }

    #[test]
    fn a_segment_that_is_moved_is_as_sound_as_before() {
        for (number, distance) in some().flat_map(|number| some().map(move |distance| (number, distance))) {
            let numbers = Numbers::Above(distance);
            let told = |seq: u32, ack: u32| Acknowledgement {
                seq: TcpSeqNumber(seq as i32),
                ack: TcpSeqNumber(ack as i32),
                window: 500,
            };
            let frame = |told| recovery::frame(told, pair(1), [2, 0, 0, 0, 0, 1]).unwrap();
            let mut frame = frame(told(number, number));
            let said = numbers.arrive(frame.bytes_mut(), Said::Acknowledges(told(number, number)));
            assert_eq!(said, Said::Acknowledges(told(number, number.wrapping_sub(distance))));
            numbers.clone().leave(frame.bytes_mut());
            let segment = frame::segment(frame.bytes()).unwrap();
            assert_eq!(segment.seq_number().0 as u32, number.wrapping_add(distance));
            assert_eq!(segment.ack_number().0 as u32, number.wrapping_sub(distance));
            let (from, to) = (pair(1).1.ip.into(), pair(1).0.ip.into());
            assert!(segment.verify_checksum(&from, &to));
            let wrong = segment.checksum() ^ 0x1234;
            frame::segment_mut(frame.bytes_mut()).unwrap().set_checksum(wrong);
            numbers.arrive(frame.bytes_mut(), Said::Other);
            assert!(!frame::segment(frame.bytes()).unwrap().verify_checksum(&from, &to));
        }
    }

    #[test]
    fn what_is_no_segment_stays_as_it_is() {
        let numbers = Numbers::Above(5);
        let told = Acknowledgement { seq: TcpSeqNumber(1), ack: TcpSeqNumber(2), window: 3 };
        let mut fragment = recovery::frame(told, pair(1), [0; 6]).unwrap().bytes().to_vec();
        // More fragments.
        fragment[20] |= 0x20;
        for mut bytes in [fragment, vec![], vec![0; 14], vec![0xff; 60]] {
            let before = bytes.clone();
            numbers.clone().leave(&mut bytes);
            numbers.arrive(&mut bytes, Said::Other);
            assert_eq!(bytes, before);
        }
    }

    #[test]
    fn each_pair_of_ends_begins_somewhere_else_and_goes_on_with_the_time() {
        let first = |port, seconds: u64| match Numbers::new(pair(port), Instant::from_nanos(seconds * 1_000_000_000)) {
            Numbers::From(first) => first,
            Numbers::Above(_) => panic!(),
        };
        assert_eq!(first(1, 2).wrapping_sub(first(1, 1)), 250_000);
        // Round and round.
        assert_eq!(first(1, 1_000_000).wrapping_sub(first(1, 999_999)), 250_000);
        assert_ne!(first(1, 1), first(2, 1));
    }
}
