//! SYNs from machines that are not there, which nobody acknowledges: a listener is left with half-open connections.

use super::faults::mixed;
use super::line::Frame;

/// 198.18.0.0/15 is for tests of this kind (RFC 2544), and nobody is there.
const NOBODY: [u8; 2] = [198, 18];
const HEADER: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const SYN: u8 = 2;
/// Of the SYN's one option, the maximum segment size.
const MSS: u16 = 1460;

/// So many, for this port of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flood {
    pub port: u16,
    pub count: u32,
}

/// Whom frames come from, which is learnt from them.
#[derive(Default)]
pub struct Peers {
    card: Option<([u8; 6], [u8; 4])>,
    network: Option<[u8; 6]>,
}

fn is_ipv4(frame: &[u8]) -> bool {
    frame.len() >= HEADER + 20 && frame[12..HEADER] == IPV4
}

fn array<const N: usize>(frame: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|index| frame[at + index])
}

impl Peers {
    /// False: it is for a machine that is not there.
    pub fn sent_by_card(&mut self, frame: &[u8]) -> bool {
        if !is_ipv4(frame) {
            return true;
        }
        let from = array(frame, HEADER + 12);
        if from != [0; 4] {
            self.card = Some((array(frame, 6), from));
        }
        array(frame, HEADER + 16) != NOBODY
    }

    pub fn sent_by_network(&mut self, frame: &[u8]) {
        if is_ipv4(frame) {
            self.network = Some(array(frame, 6));
        }
    }
}

impl Flood {
    /// None before both sides have said something.
    pub fn frames(self, peers: &Peers) -> Vec<Frame> {
        let (Some((card, to)), Some(network)) = (peers.card, peers.network) else { return Vec::new() };
        (0..self.count).map(|number| self.frame(number, (card, to), network)).collect()
    }

    fn frame(self, number: u32, (card, to): ([u8; 6], [u8; 4]), network: [u8; 6]) -> Frame {
        let random = mixed(u64::from(number)).to_be_bytes();
        let from = [NOBODY[0], NOBODY[1], (number >> 8) as u8, number as u8];
        let mut tcp = Vec::with_capacity(24);
        tcp.extend([random[0] | 0x80, random[1]]);
        tcp.extend(self.port.to_be_bytes());
        tcp.extend(&random[2..6]);
        // No acknowledgement; six words of header; the window; a checksum; nothing urgent.
        tcp.extend([0, 0, 0, 0, 6 << 4, SYN, 0xff, 0xff, 0, 0, 0, 0, 2, 4]);
        tcp.extend(MSS.to_be_bytes());
        let pseudo = [&from[..], &to, &[0, 6, 0, tcp.len() as u8]].concat();
        let checksum = checksum(&[&pseudo[..], &tcp].concat());
        tcp[16..18].copy_from_slice(&checksum);
        let mut ip = vec![0x45, 0, 0, 20 + tcp.len() as u8, random[6], random[7], 0x40, 0, 64, 6, 0, 0];
        ip.extend(from);
        ip.extend(to);
        let checksum = self::checksum(&ip);
        ip[10..12].copy_from_slice(&checksum);
        [&card[..], &network, &IPV4, &ip, &tcp].concat()
    }
}

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From 10.0.2.15 to 10.0.2.2, and back.
    fn frame(card: u8, from: [u8; 4], to: [u8; 4]) -> Frame {
        let mut frame = vec![0; 60];
        frame[6..12].fill(card);
        frame[12..14].copy_from_slice(&IPV4);
        frame[26..30].copy_from_slice(&from);
        frame[30..34].copy_from_slice(&to);
        frame
    }

    #[test]
    fn syns_come_from_nobody_with_the_right_checksums() {
        let (flood, mut peers) = (Flood { port: 80, count: 300 }, Peers::default());
        assert!(flood.frames(&peers).is_empty());
        assert!(peers.sent_by_card(&frame(1, [10, 0, 2, 15], [10, 0, 2, 2])));
        peers.sent_by_network(&frame(2, [10, 0, 2, 2], [10, 0, 2, 15]));
        let frames = flood.frames(&peers);
        assert_eq!(frames.len(), 300);
        let last = frames.last().unwrap();
        assert_eq!(
            (&last[..6], &last[6..12], &last[26..34]),
            (&[1; 6][..], &[2; 6][..], &[198, 18, 1, 43, 10, 0, 2, 15][..])
        );
        assert_eq!(checksum(&last[14..34]), [0, 0]);
        let pseudo = [&last[26..34], &[0, 6, 0, 24][..], &last[34..]].concat();
        assert_eq!((last.len(), checksum(&pseudo)), (58, [0, 0]));
        assert!(!peers.sent_by_card(&frame(1, [10, 0, 2, 15], [198, 18, 1, 43])));
    }
}
