//! Sequence numbers as other machines see them.
//!
//! The stack begins each connection with a random number. Who has missed the end of one, and then hears of the next between the same
//! ends, takes a SYN whose number is not above those of the old one for a late segment, and half of all numbers are not. So the numbers
//! of the wire begin with the time, and for each pair of ends somewhere else (RFC 9293, 3.4.1; RFC 6528), and differ from the stack's by
//! the same distance in all segments of a connection: those that leave are moved there, what arrives is moved back.
//!
//! A connection may send more than the clock moves meanwhile. How far it has come is remembered until the clock is there ([`Ends`]).

use alloc::collections::{BTreeMap, BTreeSet};

use smoltcp::wire::TcpSeqNumber;

use super::connections::{PairKey, key};
use super::frame::{self, Pair};
use super::recovery::{Acknowledgement, Said};
use crate::exec::Instant;
use crate::net::inet::keyed::{self, Purpose};

/// One more for each.
const TICK_NS: u64 = 4_000;
/// Most connections of which the end is remembered; beyond that the one goes to which the clock comes first.
const MOST: usize = 4096;
/// The numbers of a SYN and a FIN; and the next connection begins above what would have followed them.
const MORE: u64 = 3;

/// Where connections have ended to which the clock has not come: ticks since it was 0, of which numbers have the low 32 bits.
#[derive(Default)]
pub struct Ends {
    by_pair: BTreeMap<PairKey, u64>,
    /// When it comes there.
    reached: BTreeSet<(Instant, PairKey)>,
}

fn ticks(now: Instant) -> u64 {
    now.as_nanos() / TICK_NS
}

impl Ends {
    /// Of a connection that begins.
    pub fn numbers(&self, pair: Pair, now: Instant) -> Numbers {
        let begins = self.by_pair.get(&key(pair)).copied().unwrap_or(0).max(ticks(now));
        let first = (keyed::hash(Purpose::Sequence, pair.0, pair.1) as u32).wrapping_add(begins as u32);
        Numbers { begins, first, distance: None }
    }

    /// A connection has ended that had so many bytes to send.
    pub fn note(&mut self, pair: Pair, numbers: &Numbers, bytes: u64, now: Instant) {
        let end = numbers.begins.saturating_add(bytes).saturating_add(MORE);
        if numbers.distance.is_none() || end <= ticks(now) {
            return;
        }
        let (pair, at) = (key(pair), Instant::from_nanos(end.saturating_mul(TICK_NS)));
        if let Some(before) = self.by_pair.insert(pair, end) {
            self.reached.remove(&(Instant::from_nanos(before.saturating_mul(TICK_NS)), pair));
        }
        self.reached.insert((at, pair));
        if self.by_pair.len() > MOST {
            self.forget_first();
        }
    }

    /// Forgets those where the clock is.
    pub fn turn(&mut self, now: Instant) {
        while self.reached.first().is_some_and(|(at, _)| *at <= now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, pair)) = self.reached.pop_first() {
            self.by_pair.remove(&pair);
        }
    }
}

/// Of a connection.
#[derive(Clone, Copy)]
pub struct Numbers {
    /// Where the clock is when it begins, or beyond that.
    begins: u64,
    /// That of its SYN.
    first: u32,
    /// So far the wire's are above the stack's. None: its SYN has not gone.
    distance: Option<u32>,
}

impl Numbers {
    /// A frame that the stack sends, whose checksum is made after that.
    pub fn leave(&mut self, frame: &mut [u8]) {
        let Some(mut segment) = frame::segment_mut(frame) else { return };
        let number = segment.seq_number();
        if segment.syn() {
            self.distance.get_or_insert(self.first.wrapping_sub(number.0 as u32));
        }
        segment.set_seq_number(TcpSeqNumber(number.0.wrapping_add(self.distance() as i32)));
    }

    /// One that has come, and what it says: its checksum has been looked at before.
    pub fn arrive(&self, frame: &mut [u8], said: Said) -> Said {
        let back = |number: TcpSeqNumber| TcpSeqNumber(number.0.wrapping_sub(self.distance() as i32));
        if let Some(mut segment) = frame::segment_mut(frame)
            && segment.ack()
        {
            segment.set_ack_number(back(segment.ack_number()));
        }
        match said {
            Said::Acknowledges(told) => Said::Acknowledges(Acknowledgement { ack: back(told.ack), ..told }),
            other => other,
        }
    }

    /// Is it that of the SYN, which has gone?
    pub fn is_first(&self, number: u32) -> bool {
        self.distance.is_some() && self.first == number
    }

    fn distance(&self) -> u32 {
        self.distance.unwrap_or(0)
    }
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

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn above(distance: u32) -> Numbers {
        Numbers { begins: 0, first: 0, distance: Some(distance) }
    }

    /// Numbers with all bits, and those at which sums carry.
    fn some() -> impl Iterator<Item = u32> {
        let odd = (1..200).map(|i: u32| i.wrapping_mul(2_654_435_761));
        [0, 1, 0xffff, 0x1_0000, 0xffff_0000, 0x7fff_ffff, 0x8000_0000, u32::MAX].into_iter().chain(odd)
    }

    #[test]
    fn a_segment_is_moved_there_and_back() {
        for (number, distance) in some().flat_map(|number| some().map(move |distance| (number, distance))) {
            let numbers = above(distance);
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
        }
    }

    #[test]
    fn what_is_no_segment_stays_as_it_is() {
        let numbers = above(5);
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
        let first = |port, seconds: u64| Ends::default().numbers(pair(port), at(seconds)).first;
        assert_eq!(first(1, 2).wrapping_sub(first(1, 1)), 250_000);
        // Round and round.
        assert_eq!(first(1, 1_000_000).wrapping_sub(first(1, 999_999)), 250_000);
        assert_ne!(first(1, 1), first(2, 1));
    }

    /// Begins a connection at one time, which sends so much until another.
    fn connection(ends: &mut Ends, port: u16, (begun, ended): (u64, u64), bytes: u64) -> u32 {
        let numbers = Numbers { distance: Some(7), ..ends.numbers(pair(port), at(begun)) };
        ends.turn(at(ended));
        ends.note(pair(port), &numbers, bytes, at(ended));
        numbers.first
    }

    #[test]
    fn who_sends_more_than_the_clock_moves_is_followed_by_numbers_above_it() {
        // More than there are numbers, too.
        for bytes in [0, 249_000, 251_000, 10_000_000, 1 << 31, 1 << 32, 5 << 32] {
            let mut ends = Ends::default();
            let first = connection(&mut ends, 1, (10, 11), bytes);
            let next = ends.numbers(pair(1), at(11));
            let ahead = next.first.wrapping_sub(first.wrapping_add(bytes as u32).wrapping_add(2)) as i32;
            assert!((1..=250_000).contains(&ahead), "{bytes}: {ahead}");
            // Nobody else learns of it.
            assert_eq!(ends.numbers(pair(2), at(11)).first, Ends::default().numbers(pair(2), at(11)).first);
        }
    }

    #[test]
    fn what_one_has_sent_counts_for_all_that_follow_until_the_clock_is_there() {
        let mut ends = Ends::default();
        let first = connection(&mut ends, 1, (10, 10), 1_000_000);
        let second = connection(&mut ends, 1, (11, 11), 1_000_000);
        assert_eq!(second.wrapping_sub(first), 1_000_003);
        let third = ends.numbers(pair(1), at(12));
        assert_eq!(third.first.wrapping_sub(second), 1_000_003);
        // One of which nothing has gone takes nothing back.
        ends.note(pair(1), &third, 0, at(12));
        assert_eq!(ends.numbers(pair(1), at(12)).first, third.first);
        ends.turn(at(18));
        assert_eq!(ends.numbers(pair(1), at(18)).first, third.first);
        ends.turn(at(19));
        assert!(ends.by_pair.is_empty() && ends.reached.is_empty());
    }

    #[test]
    fn no_more_ends_are_remembered_than_there_is_room_for() {
        let mut ends = Ends::default();
        for port in 0..=MOST as u16 {
            connection(&mut ends, port, (10, 10), 10_000_000 + 10 * u64::from(port));
        }
        assert_eq!((ends.by_pair.len(), ends.reached.len()), (MOST, MOST));
        let is_kept = |port| ends.by_pair.contains_key(&key(pair(port)));
        assert!(!is_kept(0) && is_kept(1));
    }
}
