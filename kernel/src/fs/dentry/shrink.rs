//! The clock hand: what goes when the cache is full, or memory short.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::{BUCKETS, Bucket, CACHE, COUNT, Entry, HAND, LIMIT, Target};

#[inline]
pub(super) fn note_insert() {
    if COUNT.load(Ordering::Relaxed) > LIMIT {
        for _ in 0..4 {
            let at = HAND.fetch_add(1, Ordering::Relaxed);
            sweep(at % BUCKETS);
        }
    }
}

/// Takes out of one bucket what nobody holds and nobody used since the last visit.
fn sweep(index: usize) -> usize {
    let mut victims: SmallVec<[Entry; 8]> = SmallVec::new();
    let Some(bucket) = CACHE.get(index) else { return 0 };
    let mut entries = bucket.lock();
    let mut i = 0;
    while let Some(entry) = entries.get(i) {
        let unused = !entry.used.swap(false, Ordering::Relaxed);
        if unused && is_free(&entry.target) && victims.len() < 8 {
            victims.push(entries.swap_remove(i));
        } else {
            i += 1;
        }
    }
    if entries.is_empty() {
        *entries = Bucket::new();
    }
    drop(entries);
    COUNT.fetch_sub(victims.len(), Ordering::Relaxed);
    victims.len()
}

/// Under the bucket's lock nobody can get a new reference to a dentry that only the cache holds.
fn is_free(target: &Target) -> bool {
    match target {
        Target::Dentry(dentry) => Arc::strong_count(dentry) == 1,
        Target::Nothing(_) => true,
        Target::Shared(dentry) => dentry.strong_count() == 0,
    }
}

/// Gives back up to `want` entries (memory is short); answers how many it were.
pub fn shrink(want: usize) -> usize {
    let mut freed = 0;
    // Used entries have a second chance. A directory goes after the names in it, so by one level in each round.
    let mut rounds = 2;
    while rounds > 0 && freed < want {
        let before = freed;
        for _ in 0..BUCKETS {
            if freed >= want {
                break;
            }
            freed += sweep(HAND.fetch_add(1, Ordering::Relaxed) % BUCKETS);
        }
        if freed == before {
            rounds -= 1;
        }
    }
    freed
}
