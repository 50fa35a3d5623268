//! One inode of the overlay for each object of a layer.

use alloc::sync::{Arc, Weak};

use hashbrown::HashMap;

use super::inode::OverlayInode;
use crate::fs::inode::Inode;
use crate::sync::SpinLock;

/// By the address of an inode of a layer, which lives as long as its entry: the overlay's inode holds it.
#[derive(Default)]
pub struct Table(SpinLock<HashMap<usize, Weak<OverlayInode>>>);

fn key(inode: &Arc<dyn Inode>) -> usize {
    Arc::as_ptr(inode).cast::<()>().addr()
}

impl Table {
    pub fn get(&self, inode: &Arc<dyn Inode>) -> Option<Arc<OverlayInode>> {
        self.0.lock().get(&key(inode))?.upgrade()
    }

    /// Notes it under a key. If another is there already, that one is the answer.
    pub fn insert(&self, inode: &Arc<dyn Inode>, new: Arc<OverlayInode>) -> Arc<OverlayInode> {
        let mut table = self.0.lock();
        let there = table.get(&key(inode)).and_then(Weak::upgrade);
        if there.is_none() {
            table.insert(key(inode), Arc::downgrade(&new));
        }
        drop(table);
        there.unwrap_or(new)
    }

    /// Takes it out, under all its keys.
    pub fn forget(&self, inode: &OverlayInode) {
        let mut table = self.0.lock();
        for layer in inode.keys() {
            let is_it = |weak: &Weak<OverlayInode>| core::ptr::eq(weak.as_ptr(), inode);
            if table.get(&key(layer)).is_some_and(is_it) {
                table.remove(&key(layer));
            }
        }
    }
}
