//! Trees whose instance is gone.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Content;
use super::dir::{Dir, Entries};
use crate::exec;

/// Inodes that are let go of by whoever unmounts, each with a thousand pages perhaps; the others are left to a task.
const AT_ONCE: usize = 16;
/// Directories in one piece of memory.
const PIECE: usize = 256;

/// What is left of a tree that is let go of: it may be deeper than the stack, and than what memory has in one piece.
#[derive(Default)]
pub(super) struct Remains(Vec<Vec<Entries>>);

impl Remains {
    pub fn drop_all(mut self, top: &mut Dir) {
        self.push(top);
        for _ in 0..AT_ONCE {
            if !self.drop_one() {
                return;
            }
        }
        exec::spawn("free-tree", async move {
            while self.drop_one() {
                exec::budget().await;
            }
        });
    }

    fn push(&mut self, dir: &mut Dir) {
        if dir.is_empty() {
            return;
        }
        let entries = dir.take_all();
        match self.0.last_mut().filter(|piece| piece.len() < PIECE) {
            Some(piece) => piece.push(entries),
            None => self.0.push(alloc::vec![entries]),
        }
    }

    /// False if there is none.
    fn drop_one(&mut self) -> bool {
        loop {
            let Some(piece) = self.0.last_mut() else { return false };
            let Some(entries) = piece.last_mut() else {
                self.0.pop();
                continue;
            };
            let Some(entry) = entries.next() else {
                piece.pop();
                continue;
            };
            // Others may hold it: then it goes with its last holder.
            if let Some(mut inode) = Arc::into_inner(entry.inode)
                && let Content::Dir(dir) = &mut inode.content
            {
                self.push(dir.get_mut());
            }
            return true;
        }
    }
}
