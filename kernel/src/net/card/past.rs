//! Connections in TIME-WAIT (RFC 9293, 3.10.7.4; tcp_timewait_state_process of Linux): without buffers, only with what was said
//! last, so that another machine that has missed it and ends again hears it again.

use alloc::collections::{BTreeMap, BTreeSet};
use core::time::Duration;

use arrayvec::ArrayVec;
use smoltcp::wire::TcpSeqNumber;

use super::connections::{PairKey, key};
use super::frame::{self, Pair};
use super::phy::Phy;
use super::recovery::distance;
use crate::exec::Instant;
use crate::net::inet::ports::TIME_WAIT;

/// Most of them; beyond that the oldest is forgotten.
const MOST: usize = 4096;
/// Between two answers to segments without data (tcp_invalid_ratelimit of Linux).
const PAUSE: Duration = Duration::from_millis(500);

/// A frame with an acknowledgement: headers with all that the stack puts into one.
pub type LastWord = ArrayVec<u8, 128>;

struct Past {
    last_word: LastWord,
    /// What it acknowledges.
    next: TcpSeqNumber,
    repeated: Option<Instant>,
    end: Instant,
}

#[derive(Default)]
pub struct Pasts {
    by_pair: BTreeMap<PairKey, Past>,
    ends: BTreeSet<(Instant, PairKey)>,
}

impl Pasts {
    pub fn add(&mut self, pair: Pair, last_word: LastWord, now: Instant) {
        let Some(next) = frame::segment(&last_word).map(|segment| segment.ack_number()) else { return };
        let (pair, end) = (key(pair), now.saturating_add(TIME_WAIT));
        self.end(pair);
        if self.by_pair.len() >= MOST
            && let Some((_, oldest)) = self.ends.first().copied()
        {
            self.end(oldest);
        }
        self.by_pair.insert(pair, Past { last_word, next, repeated: None, end });
        self.ends.insert((end, pair));
    }

    /// The next connection between these ends begins, or it is over.
    pub fn end(&mut self, pair: PairKey) {
        if let Some(past) = self.by_pair.remove(&pair) {
            self.ends.remove(&(past.end, pair));
        }
    }

    /// A segment has come for no other connection: is it for one of these? Not if it may begin the next one.
    pub fn hear(&mut self, pair: Pair, frame: &[u8], phy: &Phy, now: Instant) -> bool {
        let Some(past) = self.by_pair.get_mut(&key(pair)) else { return false };
        let Some(segment) = frame::segment(frame) else { return true };
        if !segment.verify_checksum(&pair.1.ip.into(), &pair.0.ip.into()) {
            return true;
        }
        let ahead = distance(past.next, segment.seq_number());
        if segment.rst() {
            // Only one that its sender would send now (RFC 1337).
            if ahead == 0 {
                self.end(key(pair));
            }
            return true;
        }
        if segment.syn() && !segment.ack() && ahead > 0 {
            return false;
        }
        if ahead == 0 && segment.segment_len() == 0 {
            return true;
        }
        let limited = segment.payload().is_empty() && past.repeated.is_some_and(|at| now.saturating_since(at) < PAUSE);
        if !limited {
            past.repeated = Some(now);
            // Where it comes from now.
            if let (Some(to), Some(from)) = (past.last_word.get_mut(..6), frame.get(6..12)) {
                to.copy_from_slice(from);
            }
            phy.repeat(&past.last_word);
        }
        if segment.ack() {
            self.ends.remove(&(past.end, key(pair)));
            past.end = now.saturating_add(TIME_WAIT);
            self.ends.insert((past.end, key(pair)));
        }
        true
    }

    /// Forgets those whose time is over.
    pub fn turn(&mut self, now: Instant) {
        while let Some((at, pair)) = self.ends.first().copied()
            && at <= now
        {
            self.end(pair);
        }
    }

    pub fn due(&self) -> Option<Instant> {
        self.ends.first().map(|(at, _)| *at)
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.by_pair.len()
    }
}
