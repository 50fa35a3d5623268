//! What a system call that is out of pages waits for.
//!
//! A call that may fail says ENOMEM. Others must go on as they do in Linux, where a single page is always found in the end:
//! access to user memory, and calls that only take memory away but need a table of their own for it (munmap(2)). They give
//! up cached pages first; then the layer above, which knows processes, ends one of them.

use super::page_cache::{self, BoxFuture};
use crate::sync::Once;

/// How often one call waits. Not without end: the process that is to go may be the one that waits here.
pub(super) const TRIES: usize = 100;

/// Makes room by what this layer knows nothing of; answers whether another try is worth it.
type Relief = fn() -> BoxFuture<'static, bool>;

static RELIEF: Once<Relief> = Once::new();

/// Says what to do when nothing cached is left to be given up. To be called once, at boot.
pub fn set_relief(relief: Relief) {
    RELIEF.call_once(|| relief);
}

/// Waits until there may be a page again; false if there is no hope, or no time for it because the caller is to end.
/// Callers hold no locks, and try at most [`TRIES`] times.
pub(super) async fn wait_for_page() -> bool {
    if page_cache::relieve().await {
        return true;
    }
    match RELIEF.get() {
        Some(relief) => relief().await,
        None => false,
    }
}
