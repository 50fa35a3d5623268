//! Checksums of what leaves and of what comes (RFC 1071): the stack leaves those of TCP alone, so that a card can compute them, or
//! say that they are good.

use super::{ETHERNET_HEADER, Frame, frame};

/// Where TCP has its checksum.
const OF_TCP: usize = 16;

/// Where a checksum is that is still to be made: from `start` to the end of the frame all is summed, with what stands `offset` bytes
/// behind that, where the sum goes then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Partial {
    pub start: usize,
    pub offset: usize,
}

/// What is known of the checksum of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Sum {
    /// It is there.
    #[default]
    Whole,
    /// It is to be made by who has the frame next.
    Partial(Partial),
    /// Somebody has looked, and it is good.
    Good,
}

/// The sum of 16-bit words, folded.
fn sum(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<8>();
    let add = |sum: u64, word: u64| {
        let (sum, carry) = sum.overflowing_add(word);
        sum + u64::from(carry)
    };
    // Bytes in the order of little endian give the sum with its bytes swapped (RFC 1071, 2 (B)).
    let mut total = words.iter().fold(0, |total, word| add(total, crate::arch::le_u64(word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    total = add(total, u64::from_le_bytes(last));
    for shift in [32, 16, 16, 16] {
        total = (total >> shift) + (total & ((1 << shift) - 1));
    }
    (total as u16).swap_bytes()
}

/// Makes the checksum. None: there is no room for one.
pub fn complete(bytes: &mut [u8], Partial { start, offset }: Partial) -> Option<()> {
    let summed = bytes.get_mut(start..)?;
    let made = !sum(summed);
    // A sum of 0 would say that there is none (RFC 768); to TCP both are the same.
    let made = if made == 0 { 0xffff } else { made };
    summed.get_mut(offset..)?.first_chunk_mut::<2>()?.copy_from_slice(&made.to_be_bytes());
    Some(())
}

/// Prepares the checksum of the segment of TCP that is in this frame, if there is one: it has the sum of the pseudo-header then (RFC
/// 9293, 3.1).
pub fn prepare(bytes: &mut [u8]) -> Option<Partial> {
    let place = frame::place_of_segment(bytes)?;
    let version = bytes.get(ETHERNET_HEADER)? >> 4;
    let addresses = if version == 4 { 12..20 } else { 8..40 };
    let addresses = sum(bytes.get(ETHERNET_HEADER..)?.get(addresses)?);
    let total = u32::from(addresses) + 6 + place.len() as u32;
    let partial = Partial { start: place.start, offset: OF_TCP };
    let folded = ((total >> 16) + (total & 0xffff)) as u16;
    bytes.get_mut(place)?.get_mut(OF_TCP..)?.first_chunk_mut::<2>()?.copy_from_slice(&folded.to_be_bytes());
    Some(partial)
}

impl Frame {
    /// A frame has come. Makes its checksum if it has none and somebody may look at it: TCP does not, once it is known to be good.
    /// False: it is broken.
    pub fn settle(&mut self, looked_at: bool) -> bool {
        let Sum::Partial(partial) = self.0.sum else { return true };
        let bytes = self.bytes_mut();
        let has_room = partial.start.checked_add(partial.offset + 2).is_some_and(|end| end <= bytes.len());
        let is_tcp =
            || partial.offset == OF_TCP && frame::place_of_segment(bytes).is_some_and(|at| at.start == partial.start);
        let sound = has_room && (!looked_at && is_tcp() || complete(self.bytes_mut(), partial).is_some());
        self.0.sum = Sum::Good;
        sound
    }

    /// Has somebody else looked at its checksum, and found it good?
    pub fn is_good(&self) -> bool {
        self.0.sum == Sum::Good
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use smoltcp::wire::TcpSeqNumber;

    use super::super::recovery::{self, Acknowledgement};
    use super::super::{Buffer, frame::Pair};
    use super::*;
    use crate::net::inet::Endpoint;

    fn simple(bytes: &[u8]) -> u16 {
        let words = bytes.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
        let mut total = words.sum::<u32>();
        while total > 0xffff {
            total = (total >> 16) + (total & 0xffff);
        }
        total as u16
    }

    fn random(len: usize, seed: u32) -> Vec<u8> {
        let mut state = seed;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(next).collect()
    }

    #[test]
    fn words_are_summed_whatever_their_number() {
        for len in 0..200 {
            for bytes in [random(len, len as u32), vec![0xff; len], vec![0; len]] {
                assert_eq!(sum(&bytes), simple(&bytes), "{bytes:?}");
            }
        }
        let long = random(65_535, 7);
        assert_eq!(sum(&long), simple(&long));
    }

    fn pair(ip: [&str; 2]) -> Pair {
        let [local, remote] = ip.map(|ip| Endpoint { ip: ip.parse().unwrap(), port: 80 });
        (local, remote)
    }

    /// An acknowledgement, of both versions of IP.
    fn segments() -> impl Iterator<Item = (Pair, Frame)> {
        let told = Acknowledgement { seq: TcpSeqNumber(-1), ack: TcpSeqNumber(0x1234_5678), window: 65_535 };
        let pairs = [["10.0.2.15", "10.0.2.2"], ["fe80::15", "fe80::2"]];
        pairs.into_iter().map(move |ip| (pair(ip), recovery::frame(told, pair(ip), [2, 0, 0, 0, 0, 1]).unwrap()))
    }

    fn is_right((local, remote): Pair, frame: &Frame) -> bool {
        frame::segment(frame.bytes()).unwrap().verify_checksum(&remote.ip.into(), &local.ip.into())
    }

    #[test]
    fn what_is_prepared_can_be_completed_by_anybody() {
        for (pair, mut frame) in segments() {
            frame::segment_mut(frame.bytes_mut()).unwrap().set_checksum(0xabcd);
            let partial = prepare(frame.bytes_mut()).unwrap();
            assert!(!is_right(pair, &frame));
            complete(frame.bytes_mut(), partial).unwrap();
            assert!(is_right(pair, &frame));
        }
        assert_eq!(prepare(&mut [0; 60]), None);
        assert_eq!(prepare(&mut []), None);
    }

    #[test]
    fn a_sum_is_made_when_somebody_looks_at_it() {
        for looked_at in [false, true] {
            for (pair, mut frame) in segments() {
                assert!(frame.settle(looked_at) && !frame.is_good());
                frame.0.sum = Sum::Partial(prepare(frame.bytes_mut()).unwrap());
                assert!(frame.settle(looked_at) && frame.is_good());
                assert_eq!(is_right(pair, &frame), looked_at);
            }
        }
    }

    #[test]
    fn a_sum_outside_of_the_frame_breaks_it() {
        let places = [(0, 59), (59, 0), (60, 0), (61, 0), (usize::MAX, 1), (65_535, 65_535), (30, 29)];
        for (start, offset) in places {
            let mut frame = Frame::new(Buffer::new(), 0, 60);
            frame.0.sum = Sum::Partial(Partial { start, offset });
            assert!(!frame.settle(true), "{start} {offset}");
        }
        let mut frame = Frame::new(Buffer::new(), 0, 60);
        frame.bytes_mut().fill(1);
        frame.0.sum = Sum::Partial(Partial { start: 30, offset: 28 });
        assert!(frame.settle(false));
        assert_eq!(simple(&frame.bytes()[30..]), 0xffff - 0x0101);
    }
}
