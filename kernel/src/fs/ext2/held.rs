//! What is free and must not be used again yet: on the disk something may still lead to it, until what has been changed so
//! far is written. What has been taken since the last write-back is not known there, and can be used again at once.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::bits::{are_set, clear_bits, set_bits};

/// Consecutive bits of a group's bitmap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    pub group: u32,
    pub first: u32,
    pub len: u32,
}

/// A bitmap for each group that has such bits.
pub type Bitmaps = BTreeMap<u32, Box<[u8]>>;

/// How many pieces are released without letting go of the lock in between.
const TURN: usize = 256;
/// Pieces, in vectors of up to [`TURN`].
pub type List = Vec<Vec<Piece>>;

/// `bytes`: of a bitmap.
fn set(bitmaps: &mut Bitmaps, piece: Piece, bytes: usize) {
    let bits = bitmaps.entry(piece.group).or_insert_with(|| vec![0; bytes].into_boxed_slice());
    set_bits(bits, piece.first..piece.first + piece.len);
}

#[derive(Default)]
pub struct Held {
    bits: Bitmaps,
    /// The same, since the last [`Held::begin`].
    list: List,
    /// What has been taken since the last write-back.
    new: Bitmaps,
    /// A write-back is going on.
    busy: bool,
}

impl Held {
    /// It has been taken.
    pub fn take(&mut self, piece: Piece, bytes: usize) {
        if !self.busy {
            set(&mut self.new, piece, bytes);
        }
    }

    /// What has been taken so far may be known to the disk.
    pub fn hold_new(&mut self) -> Bitmaps {
        core::mem::take(&mut self.new)
    }

    /// It is free. Answers whether it can be used at once.
    pub fn free(&mut self, piece: Piece, bytes: usize) -> bool {
        let range = piece.first..piece.first + piece.len;
        if !self.busy
            && let Some(new) = self.new.get_mut(&piece.group)
            && are_set(new, &range)
        {
            clear_bits(new, piece.first, piece.len);
            return true;
        }
        set(&mut self.bits, piece, bytes);
        match self.list.last_mut().and_then(|turn| turn.last_mut()) {
            Some(last) if last.group == piece.group && last.first + last.len == piece.first => last.len += piece.len,
            _ => match self.list.last_mut() {
                Some(turn) if turn.len() < TURN => turn.push(piece),
                _ => self.list.push(vec![piece]),
            },
        }
        false
    }

    /// A write-back begins: answers what can be used after it.
    pub fn begin(&mut self) -> List {
        self.busy = true;
        core::mem::take(&mut self.list)
    }

    /// The disk knows that these are free: a part of what `begin` answered.
    pub fn release(&mut self, turn: &[Piece]) {
        for piece in turn {
            if let Some(bits) = self.bits.get_mut(&piece.group) {
                clear_bits(bits, piece.first, piece.len);
            }
        }
    }

    /// The group may have none left.
    pub fn tidy(&mut self, group: u32) {
        if self.bits(group).iter().all(|byte| *byte == 0) {
            self.bits.remove(&group);
        }
    }

    /// The write-back has ended. `list`: what could not be released.
    pub fn end(&mut self, mut list: List) {
        self.busy = false;
        self.new.clear();
        list.append(&mut self.list);
        self.list = list;
    }

    /// Of the group; empty if there are none.
    pub fn bits(&self, group: u32) -> &[u8] {
        self.bits.get(&group).map_or(&[], |bits| bits)
    }

    pub fn is_empty(&self) -> bool {
        self.bits.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(first: u32, len: u32) -> Piece {
        Piece { group: 3, first, len }
    }

    fn end(held: &mut Held, written: List) {
        written.iter().for_each(|turn| held.release(turn));
        held.tidy(3);
        held.end(List::new());
    }

    #[test]
    fn what_is_held_is_released_in_turns() {
        let mut held = Held::default();
        assert!(!held.free(piece(6, 4), 16));
        let written = held.begin();
        assert!(!held.free(piece(20, 1), 16) && !held.free(piece(21, 1), 16));
        assert_eq!(held.bits(3)[..3], [0b1100_0000, 0b11, 0b11_0000]);
        end(&mut held, written);
        assert_eq!(held.bits(3)[..3], [0, 0, 0b11_0000]);
        let written = held.begin();
        assert_eq!(written, [[piece(20, 2)]]);
        held.end(written);
        let written = held.begin();
        end(&mut held, written);
        assert!(held.is_empty() && held.bits(3).is_empty());
    }

    #[test]
    fn many_pieces_are_released_in_turns() {
        let mut held = Held::default();
        (0..1000).for_each(|index| assert!(!held.free(piece(index * 2, 1), 256)));
        let written = held.begin();
        assert!(written.iter().all(|turn| turn.len() <= TURN && turn.capacity() <= 2 * TURN));
        assert_eq!(written.iter().flatten().count(), 1000);
        held.release(&written[0]);
        held.tidy(3);
        assert_eq!(held.bits(3).iter().map(|byte| byte.count_ones()).sum::<u32>() as usize, 1000 - TURN);
        end(&mut held, written);
        assert!(held.is_empty());
    }

    #[test]
    fn what_the_disk_never_knew_is_not_held() {
        let mut held = Held::default();
        held.take(piece(8, 2), 16);
        assert!(held.free(piece(8, 1), 16) && !held.free(piece(8, 1), 16) && !held.free(piece(9, 2), 16));
        held.take(piece(30, 1), 16);
        let written = held.begin();
        held.take(piece(31, 1), 16);
        assert!(!held.free(piece(30, 1), 16));
        end(&mut held, written);
        // Either may be on the disk by now.
        assert!(!held.free(piece(30, 1), 16) && !held.free(piece(31, 1), 16));
    }
}
