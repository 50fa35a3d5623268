//! The ordered map of a space's mappings: sorted arrays of at most [`LEAF`] entries, in a sorted array.
//!
//! Most spaces have one such leaf, in which a search is a few comparisons. Bounds of an entry change in place as long as
//! the order stays, so that a mapping which is joined with its neighbour, or cut off it again, moves nothing.
//!
//! Neighbours that are alike are one entry, but for one pair or two at most: a mapping whose rights change is likely to get
//! its old rights back soon, and then to lose them again. So the last one stays as it is until anything else changes
//! ([`VmaMap::exact`], [`VmaMap::settle`]).

use alloc::vec::Vec;
use core::ops::Range;

use super::vma::{Vma, VmaFlags};

const LEAF: usize = 64;
/// With more entries than this all are joined at once: what is left for later never counts against the limit of them.
const FEW: usize = 1000;

#[derive(Clone)]
struct Entry {
    start: u64,
    vma: Vma,
}

/// The mappings of one address space, by start. They never overlap and are never empty.
#[derive(Default)]
pub struct VmaMap {
    /// No leaf is empty.
    leaves: Vec<Vec<Entry>>,
    len: usize,
    /// Sum of all lengths, bytes.
    total: u64,
    /// Where the entry starts that may be like its neighbours. 0: none.
    loose: u64,
}

/// Of an entry: which leaf, and where in it. The index may be one behind the end of the leaf.
#[derive(Clone, Copy)]
struct Position {
    leaf: usize,
    index: usize,
}

impl Position {
    fn back(self) -> Option<Position> {
        // Only the position before the very first entry has index 0: see `locate`.
        Some(Position { leaf: self.leaf, index: self.index.checked_sub(1)? })
    }
}

impl VmaMap {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// About how much memory the map itself takes.
    pub fn bytes(&self) -> usize {
        self.leaves.len() * LEAF * size_of::<Entry>()
    }

    /// Mapped bytes.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Behind the last entry that starts at or below `addr`.
    #[inline]
    fn locate(&self, addr: u64) -> Position {
        let leaf = self.leaves.partition_point(|leaf| leaf[0].start <= addr);
        match leaf.checked_sub(1) {
            None => Position { leaf: 0, index: 0 },
            Some(leaf) => Position { leaf, index: self.leaves[leaf].partition_point(|entry| entry.start <= addr) },
        }
    }

    #[inline]
    fn get(&self, at: Position) -> Option<&Entry> {
        self.leaves.get(at.leaf)?.get(at.index)
    }

    fn get_mut(&mut self, at: Position) -> Option<&mut Entry> {
        self.leaves.get_mut(at.leaf)?.get_mut(at.index)
    }

    /// The position itself, or the start of the next leaf if this is behind the end of its own.
    fn normal(&self, at: Position) -> Position {
        match self.leaves.get(at.leaf) {
            Some(leaf) if at.index >= leaf.len() => Position { leaf: at.leaf + 1, index: 0 },
            _ => at,
        }
    }

    fn insert_at(&mut self, mut at: Position, entry: Entry) {
        self.len += 1;
        let Some(leaf) = self.leaves.get_mut(at.leaf) else {
            self.leaves.push(vec![entry]);
            return;
        };
        if leaf.len() >= LEAF {
            let upper = leaf.split_off(LEAF / 2);
            self.leaves.insert(at.leaf + 1, upper);
            if at.index > LEAF / 2 {
                at = Position { leaf: at.leaf + 1, index: at.index - LEAF / 2 };
            }
        }
        self.leaves[at.leaf].insert(at.index, entry);
    }

    fn remove_at(&mut self, at: Position) -> Entry {
        self.len -= 1;
        let entry = self.leaves[at.leaf].remove(at.index);
        if self.leaves[at.leaf].is_empty() {
            self.leaves.remove(at.leaf);
        }
        entry
    }

    /// The position of the mapping that covers `addr` or of the first one after it.
    fn position_from(&self, addr: u64) -> Position {
        let behind = self.locate(addr);
        match behind.back() {
            Some(at) if self.get(at).is_some_and(|entry| addr < entry.vma.end) => at,
            _ => self.normal(behind),
        }
    }

    fn iter_from(&self, at: Position) -> impl Iterator<Item = (u64, &Vma)> {
        let (leaf, rest) = match self.leaves.get(at.leaf) {
            Some(leaf) => (&leaf[at.index.min(leaf.len())..], &self.leaves[at.leaf + 1..]),
            None => (&[] as &[Entry], &[] as &[Vec<Entry>]),
        };
        leaf.iter().chain(rest.iter().flatten()).map(|entry| (entry.start, &entry.vma))
    }

    /// The mapping that covers `addr`.
    #[inline]
    pub fn find(&self, addr: u64) -> Option<(u64, &Vma)> {
        self.before_position(self.locate(addr)).filter(|(_, vma)| addr < vma.end)
    }

    #[inline]
    fn before_position(&self, at: Position) -> Option<(u64, &Vma)> {
        self.get(at.back()?).map(|entry| (entry.start, &entry.vma))
    }

    /// The mapping that covers `addr` or the first one after it.
    pub fn find_from(&self, addr: u64) -> Option<(u64, &Vma)> {
        self.get(self.position_from(addr)).map(|entry| (entry.start, &entry.vma))
    }

    /// The last mapping that starts below `addr`.
    pub fn before(&self, addr: u64) -> Option<(u64, &Vma)> {
        self.before_position(self.locate(addr.checked_sub(1)?))
    }

    /// Mappings that touch `range`, in order.
    pub fn overlapping(&self, range: Range<u64>) -> impl Iterator<Item = (u64, &Vma)> {
        self.iter_from(self.position_from(range.start)).take_while(move |(start, _)| *start < range.end)
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, &Vma)> {
        self.iter_from(Position { leaf: 0, index: 0 })
    }

    /// Is every byte of `range` mapped?
    #[inline]
    pub fn covers(&self, range: Range<u64>) -> bool {
        let mut at = range.start;
        for (start, vma) in self.overlapping(range.clone()) {
            if start > at {
                return false;
            }
            at = vma.end;
        }
        at >= range.end
    }

    /// The mapping of exactly this range, whose rights may be changed. It is not joined with its neighbours before the next
    /// change of anything else.
    #[inline]
    pub fn exact(&mut self, range: &Range<u64>) -> Option<&mut Vma> {
        if self.loose != range.start {
            self.settle();
        }
        let at = self.locate(range.start).back()?;
        if self.len > FEW {
            return None;
        }
        let entry = self.leaves.get_mut(at.leaf)?.get_mut(at.index)?;
        if entry.start != range.start || entry.vma.end != range.end || entry.start == 0 {
            return None;
        }
        self.loose = range.start;
        Some(&mut entry.vma)
    }

    /// Joins what [`Self::exact`] has left: before anybody is told, or asks, where a mapping begins and ends.
    #[inline]
    pub fn settle(&mut self) {
        if self.loose != 0 {
            self.join_loose();
        }
    }

    #[inline(never)]
    fn join_loose(&mut self) {
        let start = core::mem::take(&mut self.loose);
        if let Some(at) = self.locate(start).back() {
            self.join_both(at);
        }
    }

    fn join_both(&mut self, at: Position) {
        self.join_next(at);
        if let Some(previous) = self.previous(at) {
            self.join_next(previous);
        }
    }

    /// Adds a mapping where there is none, joined with its neighbours if they are alike.
    pub fn insert(&mut self, start: u64, vma: Vma) {
        self.settle();
        debug_assert!(start < vma.end);
        self.total += vma.end - start;
        let behind = self.locate(start);
        if let Some(before) = behind.back()
            && let Some(entry) = self.get_mut(before)
            && entry.vma.end == start
            && entry.vma.merges_with(entry.start, &vma)
        {
            entry.vma.end = vma.end;
            self.join_next(before);
            return;
        }
        let after = self.normal(behind);
        if let Some(entry) = self.get_mut(after)
            && entry.start == vma.end
            && vma.merges_with(start, &entry.vma)
        {
            entry.start = start;
            entry.vma.backing = vma.backing;
            return;
        }
        self.insert_at(behind, Entry { start, vma });
    }

    /// Joins an entry with the next one if they are alike and adjacent.
    fn join_next(&mut self, at: Position) {
        let next = self.normal(Position { leaf: at.leaf, index: at.index + 1 });
        let (Some(entry), Some(other)) = (self.get(at), self.get(next)) else { return };
        if entry.vma.end == other.start && entry.vma.merges_with(entry.start, &other.vma) {
            let end = other.vma.end;
            self.remove_at(next);
            if let Some(entry) = self.get_mut(at) {
                entry.vma.end = end;
            }
        }
    }

    /// Takes everything in `range` out, splitting at its borders; calls `removed` with each piece.
    pub fn remove(&mut self, range: Range<u64>, mut removed: impl FnMut(u64, Vma)) {
        self.settle();
        loop {
            let at = self.position_from(range.start);
            let Some(entry) = self.leaves.get_mut(at.leaf).and_then(|leaf| leaf.get_mut(at.index)) else { return };
            let (start, end) = (entry.start, entry.vma.end);
            if start >= range.end {
                return;
            }
            let (from, to) = (start.max(range.start), end.min(range.end));
            self.total -= to - from;
            if from == start && to == end {
                let entry = self.remove_at(at);
                removed(start, entry.vma);
                continue;
            }
            removed(from, Vma { end: to, ..entry.vma.part(from - start) });
            if from == start {
                entry.start = to;
                entry.vma = entry.vma.part(to - start);
                return;
            }
            let tail = (to < end).then(|| Entry { start: to, vma: entry.vma.part(to - start) });
            entry.vma.end = from;
            if let Some(tail) = tail {
                self.insert_at(Position { leaf: at.leaf, index: at.index + 1 }, tail);
                return;
            }
        }
    }

    /// Moves the start of the mapping at `start` down to `new_start` (a stack that grows).
    pub fn grow_down(&mut self, start: u64, new_start: u64) {
        self.settle();
        if let Some(at) = self.locate(start).back()
            && let Some(entry) = self.get_mut(at)
        {
            entry.start = new_start;
            self.total += start - new_start;
        }
    }

    /// Changes the properties of what is mapped in `range`, splitting and joining as needed: rights or flags (with which the
    /// watcher goes). `change` is called with the start of each part; it stops the walk, with nothing done to that part, by answering false.
    pub fn update(&mut self, range: Range<u64>, mut change: impl FnMut(u64, &mut Vma) -> bool) {
        self.settle();
        let mut at = range.start;
        while at < range.end {
            let position = self.position_from(at);
            let Some(entry) = self.get_mut(position) else { return };
            let (start, end) = (entry.start, entry.vma.end);
            if start >= range.end {
                return;
            }
            let (from, to) = (start.max(range.start), end.min(range.end));
            let before = (entry.vma.prot, entry.vma.flags);
            if from == start && to == end {
                if !change(from, &mut entry.vma) {
                    return;
                }
                if before != (entry.vma.prot, entry.vma.flags) {
                    self.join_both(position);
                }
            } else {
                let mut changed = Vma { end: to, ..entry.vma.part(from - start) };
                if !change(from, &mut changed) {
                    return;
                }
                if before != (changed.prot, changed.flags) {
                    self.split_off(position, from, changed);
                }
            }
            at = to;
        }
    }

    /// Makes part of an entry, from `from` on, an entry of its own, or part of a neighbour that is alike.
    fn split_off(&mut self, at: Position, from: u64, changed: Vma) {
        let to = changed.end;
        let Some(entry) = self.leaves.get_mut(at.leaf).and_then(|leaf| leaf.get_mut(at.index)) else { return };
        let (start, end) = (entry.start, entry.vma.end);
        if from > start && to < end {
            // The middle is unlike both sides.
            let tail = Entry { start: to, vma: entry.vma.part(to - start) };
            entry.vma.end = from;
            self.insert_at(Position { leaf: at.leaf, index: at.index + 1 }, tail);
            // The leaf may have been split: the tail is found by its start.
            let tail = self.locate(to).back().unwrap_or(at);
            self.insert_at(tail, Entry { start: from, vma: changed });
            return;
        }
        if from == start {
            entry.vma = entry.vma.part(to - start);
            entry.start = to;
        } else {
            entry.vma.end = from;
        }
        self.total -= to - from;
        self.insert(from, changed);
    }

    fn previous(&self, at: Position) -> Option<Position> {
        match at.index.checked_sub(1) {
            Some(index) => Some(Position { leaf: at.leaf, index }),
            None => {
                let leaf = at.leaf.checked_sub(1)?;
                Some(Position { leaf, index: self.leaves.get(leaf)?.len().checked_sub(1)? })
            }
        }
    }
}

impl Clone for VmaMap {
    /// What fork copies: without MADV_DONTFORK; locks are not inherited (mlock(2)), nor who handles faults.
    fn clone(&self) -> Self {
        let special = VmaFlags::DONTFORK | VmaFlags::LOCK | VmaFlags::WATCHED;
        if !self.iter().any(|(_, vma)| vma.flags.intersects(special)) {
            return VmaMap { leaves: self.leaves.clone(), ..*self };
        }
        let mut copy = VmaMap::default();
        for (start, vma) in self.iter().filter(|(_, vma)| !vma.flags.contains(VmaFlags::DONTFORK)) {
            let flags = vma.flags - VmaFlags::LOCK - VmaFlags::WATCHED;
            copy.insert(start, Vma { flags, watcher: None, ..vma.clone() });
        }
        copy
    }
}
