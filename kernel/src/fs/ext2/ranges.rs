//! A set of block numbers, kept as ranges: the blocks of a file that hold data only in memory so far.

use alloc::collections::BTreeMap;
use core::ops::Range;

#[derive(Default)]
pub struct Ranges {
    /// End by start.
    ranges: BTreeMap<u64, u64>,
    len: u64,
}

impl Ranges {
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut end) = (range.start, range.end);
        // Absorb what overlaps or touches.
        while let Some((&s, &e)) = self.ranges.range(..=end).next_back().filter(|&(_, &e)| e >= start) {
            self.ranges.remove(&s);
            self.len -= e - s;
            start = start.min(s);
            end = end.max(e);
        }
        self.ranges.insert(start, end);
        self.len += end - start;
    }

    /// Answers how many values were in the set.
    pub fn remove(&mut self, range: Range<u64>) -> u64 {
        let mut removed = 0;
        while let Some((&s, &e)) = self.ranges.range(..range.end).next_back().filter(|&(_, &e)| e > range.start) {
            self.ranges.remove(&s);
            if s < range.start {
                self.ranges.insert(s, range.start);
            }
            if e > range.end {
                self.ranges.insert(range.end, e);
            }
            removed += e.min(range.end) - s.max(range.start);
        }
        self.len -= removed;
        removed
    }

    /// How many of the values from `start` on, at most `max`, are all in the set (true) or all out of it (false).
    pub fn uniform(&self, start: u64, max: u64) -> (bool, u64) {
        if let Some((_, &end)) = self.ranges.range(..=start).next_back().filter(|&(_, &end)| start < end) {
            return (true, (end - start).min(max));
        }
        let next = self.ranges.range(start..).next().map_or(u64::MAX, |(&s, _)| s);
        (false, (next - start).min(max))
    }

    /// How many values from `start` on are in the set. Takes as long as there are ranges before that.
    pub fn count_from(&self, start: u64) -> u64 {
        self.len - self.ranges.range(..start).map(|(s, e)| start.min(*e) - s).sum::<u64>()
    }

    pub fn len(&self) -> u64 {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_join_and_split() {
        let mut ranges = Ranges::default();
        ranges.insert(10..20);
        ranges.insert(20..30);
        ranges.insert(5..8);
        assert_eq!(ranges.len(), 23);
        assert_eq!([0, 7, 9, 12, 30, 40].map(|start| ranges.count_from(start)), [23, 21, 20, 18, 0, 0]);
        assert_eq!(ranges.uniform(12, 100), (true, 18));
        assert_eq!(ranges.uniform(8, 100), (false, 2));
        assert_eq!(ranges.remove(7..15), 6);
        assert_eq!(ranges.len(), 17);
        ranges.insert(6..7);
        assert_eq!(ranges.len(), 17);
        let contains = |value| ranges.uniform(value, 1).0;
        assert!(contains(6) && !contains(7) && !contains(14) && contains(15));
        assert_eq!(ranges.remove(0..100), 17);
        assert_eq!(ranges.len(), 0);
    }
}
