//! Where the slashes of a path are, eight bytes at a time.

use crate::arch::le_u64;

const WORD: usize = 8;

/// The first one.
#[inline]
pub fn first(path: &[u8]) -> Option<usize> {
    let mut rest = path;
    while let Some((word, after)) = rest.split_first_chunk() {
        if let Some(at) = first_in(word) {
            return Some(path.len() - rest.len() + at);
        }
        rest = after;
    }
    match path.last_chunk() {
        // The bytes before the rest have none.
        Some(word) => first_in(word).map(|at| path.len() - WORD + at),
        None => path.iter().position(|byte| *byte == b'/'),
    }
}

/// The last one.
#[inline]
pub fn last(path: &[u8]) -> Option<usize> {
    let mut rest = path;
    while let Some((before, word)) = rest.split_last_chunk() {
        if let Some(at) = last_in(word) {
            return Some(before.len() + at);
        }
        rest = before;
    }
    match path.first_chunk() {
        // The bytes behind the rest have none.
        Some(word) => last_in(word),
        None => path.iter().rposition(|byte| *byte == b'/'),
    }
}

fn first_in(word: &[u8; WORD]) -> Option<usize> {
    let marks = marks(le_u64(word));
    (marks != 0).then(|| marks.trailing_zeros() as usize / WORD)
}

fn last_in(word: &[u8; WORD]) -> Option<usize> {
    let marks = marks(le_u64(word));
    (marks != 0).then(|| WORD - 1 - marks.leading_zeros() as usize / WORD)
}

/// The upper bit of each byte that is a slash.
fn marks(word: u64) -> u64 {
    const LOW: u64 = u64::from_ne_bytes([0x7f; WORD]);
    // Bytes that are now zero; no sum carries into the next byte.
    let word = word ^ u64::from_ne_bytes([b'/'; WORD]);
    !(((word & LOW) + LOW) | word | LOW)
}

#[cfg(test)]
mod tests {
    use super::{first, last};

    #[test]
    fn slashes_are_found_wherever_they_are() {
        // Neighbours of the slash, and bytes whose upper bit is set.
        for fill in [b'a', b'.', b'0', 0xaf, 0x80, 0xff, 0x01] {
            for len in 0..40 {
                let plain = alloc::vec![fill; len];
                assert_eq!((first(&plain), last(&plain)), (None, None), "{fill} {len}");
                for (from, to) in (0..len).flat_map(|from| (from..len).map(move |to| (from, to))) {
                    let mut path = plain.clone();
                    (path[from], path[to]) = (b'/', b'/');
                    assert_eq!((first(&path), last(&path)), (Some(from), Some(to)), "{fill} {len}");
                }
            }
        }
    }
}
