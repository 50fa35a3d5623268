//! Connections in TIME-WAIT (RFC 9293, 3.3.2; tcp_timewait_sock of Linux): without buffers, only with what was said last, so that
//! another machine that has missed it and ends again hears it again.

use alloc::collections::{BTreeMap, VecDeque};

use arrayvec::ArrayVec;

use super::connections::PairKey;
use super::phy::Phy;
use crate::exec::Instant;
use crate::net::inet::ports::TIME_WAIT;

/// Most of them; beyond that the oldest is forgotten.
const MOST: usize = 4096;

/// A frame with an acknowledgement: headers with all that the stack puts into one.
pub type LastWord = ArrayVec<u8, 128>;

struct Past {
    last_word: LastWord,
    end: Instant,
}

#[derive(Default)]
pub struct Pasts {
    by_pair: BTreeMap<PairKey, Past>,
    /// When to look at which; those of which the other machine has ended again stay longer.
    ends: VecDeque<(Instant, PairKey)>,
}

impl Pasts {
    pub fn add(&mut self, pair: PairKey, last_word: LastWord, now: Instant) {
        let end = now.saturating_add(TIME_WAIT);
        if self.by_pair.insert(pair, Past { last_word, end }).is_none() {
            self.ends.push_back((end, pair));
        }
        if self.ends.len() > MOST {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, pair)) = self.ends.pop_front() {
            self.by_pair.remove(&pair);
        }
    }

    /// The next connection between these ends begins, or the other machine has reset this one.
    pub fn end(&mut self, pair: &PairKey) {
        if let Some(past) = self.by_pair.get_mut(pair) {
            past.end = Instant::BOOT;
            past.last_word.clear();
        }
    }

    /// A segment has come that resets nothing and begins nothing: is it for one of these? `says` more than an acknowledgement.
    pub fn hear(&mut self, pair: &PairKey, says: bool, phy: &mut Phy, now: Instant) -> bool {
        let Some(past) = self.by_pair.get_mut(pair).filter(|past| past.end > now) else { return false };
        if says {
            past.end = now.saturating_add(TIME_WAIT);
            // Without a buffer it is lost, as on the wire.
            phy.repeat(&past.last_word);
        }
        true
    }

    /// Forgets those whose time is over.
    pub fn turn(&mut self, now: Instant) {
        while let Some((at, pair)) = self.ends.front().copied()
            && at <= now
        {
            match self.by_pair.get(&pair).map(|past| past.end) {
                Some(end) if end > now => {
                    self.ends.pop_front();
                    self.ends.push_back((end, pair));
                }
                _ => self.forget_first(),
            }
        }
    }

    pub fn due(&self) -> Option<Instant> {
        self.ends.front().map(|(at, _)| *at)
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.by_pair.len()
    }
}
