//! One direction of a wire: what comes in at one end comes out at the other, perhaps later, twice or not at all.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::faults::{Direction, Rates};

pub type Frame = Vec<u8>;

/// How long a frame that is to come after later ones waits for these.
const PATIENCE: Duration = Duration::from_millis(20);
/// The header of Ethernet, and the types of IPv4 and IPv6 in it. A card would drop a frame of which its own checksum is
/// wrong, so only what only higher layers look after goes wrong.
const HEADER: usize = 14;
const IP_TYPES: [[u8; 2]; 2] = [[0x08, 0x00], [0x86, 0xdd]];

/// How many frames met which fate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    pub frames: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub reordered: u64,
    pub corrupted: u64,
}

struct Held {
    frame: Frame,
    /// When so many frames have gone in.
    after: u64,
    until: Instant,
}

pub struct Line {
    direction: Direction,
    seed: u64,
    pub counts: Counts,
    held: Vec<Held>,
    /// On its way, in order of arrival.
    way: VecDeque<(Instant, Frame)>,
}

impl Line {
    pub fn new(direction: Direction, seed: u64) -> Line {
        Line { direction, seed, counts: Counts::default(), held: Vec::new(), way: VecDeque::new() }
    }

    /// A frame goes in.
    pub fn put(&mut self, mut frame: Frame, rates: &Rates, now: Instant) {
        let fate = rates.fate(self.seed, self.direction, self.counts.frames);
        self.counts.frames += 1;
        if let Some(bit) = fate.corrupt
            && flip(&mut frame, bit)
        {
            self.counts.corrupted += 1;
        }
        if fate.lost {
            self.counts.lost += 1;
        } else if fate.behind > 0 {
            self.counts.reordered += 1;
            self.held.push(Held { frame, after: self.counts.frames + fate.behind, until: now + PATIENCE });
        } else {
            if fate.duplicated {
                self.counts.duplicated += 1;
                self.send(frame.clone(), rates, now);
            }
            self.send(frame, rates, now);
        }
        self.release(rates, now);
    }

    fn send(&mut self, frame: Frame, rates: &Rates, now: Instant) {
        // Not before what was sent when the delay was longer.
        let at = (now + rates.delay).max(self.way.back().map_or(now, |(at, _)| *at));
        self.way.push_back((at, frame));
    }

    /// Those that have waited long enough for later ones.
    fn release(&mut self, rates: &Rates, now: Instant) {
        let gone = self.counts.frames;
        while let Some(index) = self.held.iter().position(|held| held.after <= gone || held.until <= now) {
            let held = self.held.remove(index);
            self.send(held.frame, rates, now);
        }
    }

    /// The next frame that has arrived.
    pub fn take(&mut self, rates: &Rates, now: Instant) -> Option<Frame> {
        self.release(rates, now);
        self.way.pop_front_if(|(at, _)| *at <= now).map(|(_, frame)| frame)
    }

    /// When something is to be taken.
    pub fn due(&self) -> Option<Instant> {
        let held = self.held.iter().map(|held| held.until).min();
        let way = self.way.front().map(|(at, _)| *at);
        [held, way].into_iter().flatten().min()
    }

    /// So many frames are on their way.
    pub fn len(&self) -> usize {
        self.held.len() + self.way.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Changes a bit of an IP packet. False: it is none.
fn flip(frame: &mut Frame, bit: u64) -> bool {
    let is_ip = frame.get(12..HEADER).is_some_and(|kind| IP_TYPES.iter().any(|ip| kind == ip));
    if !is_ip || frame.len() == HEADER {
        return false;
    }
    let bit = (bit % (8 * (frame.len() - HEADER) as u64)) as usize;
    frame[HEADER + bit / 8] ^= 1 << (bit % 8);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(text: &str) -> Rates {
        text.parse::<super::super::Faults>().unwrap().rates
    }

    /// What comes out of it, in order, of frames that go in one after another.
    fn passed(rates: &Rates, count: u8) -> (Vec<u8>, Counts) {
        let (mut line, now, mut seen) = (Line::new(Direction::ToCard, 3), Instant::now(), Vec::new());
        for number in 0..count {
            line.put(vec![number], rates, now);
            seen.extend(std::iter::from_fn(|| line.take(rates, now)).map(|frame| frame[0]));
        }
        let end = now + PATIENCE;
        seen.extend(std::iter::from_fn(|| line.take(rates, end)).map(|frame| frame[0]));
        assert!(line.is_empty());
        (seen, line.counts)
    }

    #[test]
    fn a_good_wire_changes_nothing() {
        let (seen, counts) = passed(&Rates::default(), 100);
        assert_eq!(seen, Vec::from_iter(0..100));
        assert_eq!(counts, Counts { frames: 100, ..Counts::default() });
    }

    #[test]
    fn frames_get_lost_twice_and_out_of_order() {
        let (seen, counts) = passed(&rates("loss=20"), 200);
        assert_eq!(seen.len() as u64, 200 - counts.lost);
        assert!(counts.lost > 20 && seen.is_sorted());
        let (seen, counts) = passed(&rates("duplicate=20"), 200);
        assert_eq!(seen.len() as u64, 200 + counts.duplicated);
        assert!(counts.duplicated > 20 && seen.is_sorted());
        let (mut seen, counts) = passed(&rates("reorder=20"), 200);
        assert!(counts.reordered > 20 && !seen.is_sorted());
        seen.sort();
        assert_eq!(seen, Vec::from_iter(0..200));
    }

    #[test]
    fn only_packets_of_ip_are_corrupted() {
        let mut arp = vec![0; 60];
        arp[12..14].copy_from_slice(&[0x08, 0x06]);
        assert!(!flip(&mut arp.clone(), 7));
        let mut ip = arp;
        ip[13] = 0;
        let mut wrong = ip.clone();
        assert!(flip(&mut wrong, 8 * 46 + 3));
        ip[14] ^= 8;
        assert_eq!(wrong, ip);
    }

    #[test]
    fn a_delay_holds_for_each_and_keeps_the_order() {
        let (mut line, now, rates) = (Line::new(Direction::ToNetwork, 1), Instant::now(), rates("delay=50"));
        line.put(vec![1], &rates, now);
        let soon = now + Duration::from_millis(10);
        line.put(vec![2], &Rates::default(), soon);
        assert_eq!((line.take(&rates, soon), line.due()), (None, Some(now + rates.delay)));
        let end = now + rates.delay;
        assert_eq!((line.take(&rates, end), line.take(&rates, end)), (Some(vec![1]), Some(vec![2])));
    }
}
