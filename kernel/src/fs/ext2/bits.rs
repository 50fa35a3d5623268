//! Looking for free bits in bitmaps.

use core::ops::Range;

/// The lowest bit of each byte.
const LOW: u64 = 0x0101_0101_0101_0101;

/// A bitmap, and what is held back.
#[derive(Clone, Copy)]
pub struct Bits<'a> {
    pub used: &'a [u8],
    pub held: &'a [u8],
}

impl Bits<'_> {
    fn byte(&self, at: u32) -> u8 {
        let at = at as usize;
        self.used[at] | self.held.get(at).copied().unwrap_or(0)
    }

    fn is_clear(&self, bit: u32) -> bool {
        self.byte(bit / 8) & (1 << (bit % 8)) == 0
    }

    /// The first of these bytes that is like this. `may`: whether one of eight can be.
    fn find(&self, bytes: Range<u32>, may: impl Fn(u64) -> bool, is: impl Fn(u8) -> bool) -> Option<u32> {
        let range = bytes.start as usize..bytes.end as usize;
        let used = self.used.get(range.clone())?;
        // Mostly nothing is held.
        let held = self.held.get(range).unwrap_or(&[]);
        let (words, held_words) = (used.as_chunks().0, held.as_chunks().0);
        let word = words.iter().enumerate().position(|(at, word)| {
            let held = held_words.get(at).copied().unwrap_or_default();
            may(u64::from_le_bytes(*word) | u64::from_le_bytes(held))
        });
        let from = 8 * word.unwrap_or(words.len());
        let found = (from..used.len()).find(|&at| is(used[at] | held.get(at).copied().unwrap_or(0)));
        found.map(|at| bytes.start + at as u32)
    }

    pub fn next_clear(&self, from: u32, limit: u32) -> Option<u32> {
        let within = |bit: u32| (bit < limit).then_some(bit);
        within(from)?;
        let first = self.byte(from / 8) | ((1 << (from % 8)) - 1);
        if first != 0xff {
            return within(from / 8 * 8 + first.trailing_ones());
        }
        let byte = self.find(from / 8 + 1..limit.div_ceil(8), |word| word != u64::MAX, |byte| byte != 0xff)?;
        within(byte * 8 + self.byte(byte).trailing_ones())
    }

    /// `from` if it is clear; else the next eight clear bits that begin a byte (which keeps files that grow side by side apart);
    /// else, unless it has to be `unbroken` space, any clear bit. All below `limit`.
    fn start(&self, from: u32, limit: u32, unbroken: bool) -> Option<u32> {
        if from < limit && self.is_clear(from) {
            return Some(from);
        }
        let whole = |range: Range<u32>| self.find(range, has_zero, |byte| byte == 0);
        let middle = (from / 8 + 1).min(limit / 8);
        match whole(middle..limit / 8).or_else(|| whole(0..middle)) {
            Some(byte) => Some(byte * 8),
            None if unbroken => None,
            None => self.next_clear(from, limit).or_else(|| self.next_clear(0, limit)),
        }
    }
}

/// Sets a run of up to `want` bits that are clear in both, below `limit` and at [`Bits::start`], and answers it.
pub fn take(used: &mut [u8], held: &[u8], from: u32, limit: u32, want: u32, unbroken: bool) -> Option<(u32, u32)> {
    let start = Bits { used, held }.start(from, limit, unbroken)?;
    let mut len = 0;
    while len < want && start + len < limit && (Bits { used, held }).is_clear(start + len) {
        let bit = start + len;
        used[bit as usize / 8] |= 1 << (bit % 8);
        len += 1;
    }
    Some((start, len))
}

/// Whether one of the eight bytes is zero.
fn has_zero(word: u64) -> bool {
    word.wrapping_sub(LOW) & !word & (LOW << 7) != 0
}

pub fn set_bits(data: &mut [u8], bits: Range<u32>) {
    for bit in bits {
        if let Some(byte) = data.get_mut(bit as usize / 8) {
            *byte |= 1 << (bit % 8);
        }
    }
}

pub fn are_set(data: &[u8], bits: &Range<u32>) -> bool {
    bits.clone().all(|bit| data.get(bit as usize / 8).is_some_and(|byte| byte & 1 << (bit % 8) != 0))
}

/// Clears bits; answers how many were set.
pub fn clear_bits(data: &mut [u8], from: u32, len: u32) -> u32 {
    let mut cleared = 0;
    for bit in from..from + len {
        let mask = 1 << (bit % 8);
        if let Some(byte) = data.get_mut(bit as usize / 8) {
            cleared += u32::from(*byte & mask != 0);
            *byte &= !mask;
        }
    }
    cleared
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn take(data: &mut [u8], from: u32, limit: u32, want: u32, unbroken: bool) -> Option<(u32, u32)> {
        super::take(data, &[], from, limit, want, unbroken)
    }

    #[test]
    fn a_run_starts_at_the_goal_if_that_is_free() {
        let mut bits = [0u8; 8];
        assert_eq!(take(&mut bits, 5, 64, 3, true), Some((5, 3)));
        assert_eq!(bits[0], 0b1110_0000);
    }

    #[test]
    fn a_taken_goal_moves_to_a_free_byte() {
        let mut bits = [0x01, 0x01, 0x00, 0x00];
        assert_eq!(take(&mut bits, 0, 32, 32, true), Some((16, 16)));
        assert_eq!(take(&mut bits, 0, 32, 2, true), None);
        assert_eq!(take(&mut bits, 0, 32, 2, false), Some((1, 2)));
    }

    #[test]
    fn what_is_held_back_is_not_taken() {
        let mut bits = [0u8; 4];
        let held = [0xff, 0x01, 0, 0];
        assert_eq!(super::take(&mut bits, &held, 0, 32, 3, true), Some((16, 3)));
        assert_eq!(super::take(&mut bits, &held, 14, 16, 9, true), Some((14, 2)));
        assert_eq!(Bits { used: &bits, held: &held }.next_clear(0, 32), Some(9));
        assert_eq!(bits, [0, 0xc0, 7, 0]);
    }

    #[test]
    fn eight_bytes_at_a_time_find_what_one_at_a_time_finds() {
        let mut seed = 1u32;
        let mut random = |of: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % of
        };
        for _ in 0..2000 {
            let used: Vec<u8> = (0..33).map(|_| if random(4) == 0 { random(256) as u8 } else { 0xff }).collect();
            let held: Vec<u8> = (0..33).map(|_| if random(8) == 0 { random(256) as u8 } else { 0 }).collect();
            let (from, limit) = (random(264), random(265));
            let all: Vec<u8> = used.iter().zip(&held).map(|(used, held)| used | held).collect();
            let bits = Bits { used: &used, held: &held };
            let expected = (from..limit).find(|bit| all[*bit as usize / 8] & 1 << (bit % 8) == 0);
            assert_eq!(bits.next_clear(from, limit), expected);
            let zero = bits.find(0..33, |word| word.to_le_bytes().contains(&0), |byte| byte == 0);
            assert_eq!(bits.find(0..33, has_zero, |byte| byte == 0), zero);
            assert_eq!(zero, all.iter().position(|byte| *byte == 0).map(|at| at as u32));
        }
    }

    #[test]
    fn the_end_of_a_short_group_is_never_taken() {
        let mut bits = [0u8; 8];
        assert_eq!(take(&mut bits, 0, 10, 64, true), Some((0, 10)));
        assert_eq!(take(&mut bits, 0, 10, 1, false), None);
        assert_eq!(clear_bits(&mut bits, 0, 12), 10);
    }
}
