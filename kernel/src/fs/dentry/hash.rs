//! The hash of a name in a directory.

use super::Dentry;
use crate::arch::le_u64;

#[inline]
pub(super) fn hash(parent: *const Dentry, name: &[u8]) -> u32 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    // All bits of the product: the lower half of it knows nothing of the upper bits of the word.
    let mix = |h: u64, word: u64| {
        let product = u128::from(h ^ word) * u128::from(K);
        product as u64 ^ (product >> 64) as u64
    };
    let mut h = (parent as u64).wrapping_mul(K) ^ name.len() as u64;
    let mut rest = name;
    while let Some((word, after)) = rest.split_first_chunk().filter(|(_, after)| !after.is_empty()) {
        h = mix(h, le_u64(word));
        rest = after;
    }
    mix(h, tail(name)) as u32
}

/// The last bytes of a name, up to eight.
#[inline]
fn tail(name: &[u8]) -> u64 {
    if let Some(word) = name.last_chunk() {
        return le_u64(word);
    }
    if let (Some(first), Some(last)) = (name.first_chunk(), name.last_chunk()) {
        return u64::from(u32::from_le_bytes(*first)) << 32 | u64::from(u32::from_le_bytes(*last));
    }
    name.iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;

    use super::super::BUCKETS;
    use super::*;
    use crate::fs::inode::FileSystem;

    /// Names in a folder have much in common.
    #[test]
    fn names_are_spread_over_the_buckets() {
        let fs = crate::fs::tmpfs::TmpFs::new("tmpfs", b"none", Default::default());
        let root = Dentry::new_root(fs.root());
        for name in ["", "file", "bench.", "a-long-name.", "a-name-of-16-by", "IMG_20260101_0000"] {
            let mut counts = [0u32; BUCKETS];
            for n in 0..BUCKETS {
                counts[hash(Arc::as_ptr(&root), format!("{name}{n}").as_bytes()) as usize % BUCKETS] += 1;
            }
            // As many as would be by chance, about.
            let empty = counts.iter().filter(|count| **count == 0).count();
            assert!(counts.iter().all(|count| *count < 10) && empty < BUCKETS * 9 / 20, "{name}: {empty}");
        }
    }
}
