//! Pages of files that are gone.

use core::sync::atomic::{AtomicUsize, Ordering};

use super::tree::Tree;
use crate::exec;

/// Pages that are freed by whoever lets go of a file last; more are left to a task.
const AT_ONCE: usize = 1024;

/// Tasks that have pages left to free.
static TASKS: AtomicUsize = AtomicUsize::new(0);

/// Will there be more memory in a moment?
pub fn is_freeing() -> bool {
    TASKS.load(Ordering::Acquire) > 0
}

pub(super) fn free(mut tree: Tree) {
    if tree.len() <= AT_ONCE {
        while tree.free_some() {}
        return;
    }
    TASKS.fetch_add(1, Ordering::AcqRel);
    exec::spawn("free-pages", async move {
        while tree.free_some() {
            exec::budget().await;
        }
        TASKS.fetch_sub(1, Ordering::AcqRel);
    });
}
