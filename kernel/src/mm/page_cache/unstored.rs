//! How many pages of a file storage does not have.

use core::sync::atomic::{AtomicU64, Ordering};

const DIRTY: u64 = 1;
const ON_THEIR_WAY: u64 = 1 << 32;

/// Dirty pages, and those on their way to storage, in one word: a page that goes from one to the other, or back, is seen in one of
/// them by whoever looks.
#[derive(Default)]
pub struct Unstored(AtomicU64);

impl Unstored {
    pub fn dirty(&self) -> usize {
        self.0.load(Ordering::Relaxed) as u32 as usize
    }

    pub fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }

    pub fn add_dirty(&self) {
        self.0.fetch_add(DIRTY, Ordering::Relaxed);
    }

    /// One is not to be stored any more.
    pub fn forget_dirty(&self) {
        self.0.fetch_sub(DIRTY, Ordering::Relaxed);
    }

    /// One leaves for storage.
    pub fn leave(&self, was_dirty: bool) {
        self.0.fetch_add(ON_THEIR_WAY - if was_dirty { DIRTY } else { 0 }, Ordering::Relaxed);
    }

    /// One is there; or it is dirty again, which was said before.
    pub fn arrived(&self) {
        self.0.fetch_sub(ON_THEIR_WAY, Ordering::Release);
    }
}
