//! A list that grows without large pieces of memory: what must not fail must not want many pages in a row.

use alloc::vec::Vec;

/// Bytes of a piece.
const PIECE: usize = 4096;

/// Items in the order in which they were added.
pub struct Chunks<T> {
    /// All are full but the last one.
    pieces: Vec<Vec<T>>,
}

impl<T> Chunks<T> {
    /// Items of a piece.
    const ITEMS: usize = if PIECE / size_of::<T>() == 0 { 1 } else { PIECE / size_of::<T>() };

    pub const fn new() -> Self {
        Chunks { pieces: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.pieces.last().map_or(0, |last| (self.pieces.len() - 1) * Self::ITEMS + last.len())
    }

    pub fn push(&mut self, item: T) {
        match self.pieces.last_mut() {
            Some(last) if last.len() < Self::ITEMS => last.push(item),
            _ => {
                let mut piece = Vec::with_capacity(Self::ITEMS);
                piece.push(item);
                self.pieces.push(piece);
            }
        }
    }

    pub fn get(&self, index: usize) -> Option<&T> {
        self.pieces.get(index / Self::ITEMS)?.get(index % Self::ITEMS)
    }

    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.pieces.get_mut(index / Self::ITEMS)?.get_mut(index % Self::ITEMS)
    }
}

impl<T> IntoIterator for Chunks<T> {
    type Item = T;
    type IntoIter = core::iter::Flatten<alloc::vec::IntoIter<Vec<T>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.pieces.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_where_they_were_put() {
        let mut chunks = Chunks::new();
        assert_eq!((chunks.len(), chunks.get(0)), (0, None));
        for item in 0..2000u64 {
            chunks.push(item);
            assert_eq!(chunks.len() as u64, item + 1);
        }
        assert!(chunks.pieces.iter().all(|piece| piece.capacity() * size_of::<u64>() <= PIECE));
        *chunks.get_mut(1024).unwrap() = 7;
        assert_eq!([1023, 1024, 1999].map(|at| chunks.get(at).copied()), [Some(1023), Some(7), Some(1999)]);
        assert_eq!(chunks.get(2000), None);
        assert_eq!(chunks.into_iter().sum::<u64>(), 1999 * 1000 - 1024 + 7);
    }

    #[test]
    fn what_is_larger_than_a_piece_has_one_of_its_own() {
        let mut chunks = Chunks::new();
        (0..3u8).for_each(|byte| chunks.push([byte; 5000]));
        assert_eq!((chunks.len(), chunks.get(2)), (3, Some(&[2; 5000])));
    }
}
