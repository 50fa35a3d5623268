//! The head of a run queue: the few tasks that run next, sorted, with their keys beside them.
//!
//! Most queues are short, and most tasks that enter leave again soon. Moving a handful of words costs less than linking
//! a node into a tree and finding the first one again.

use core::ptr::NonNull;

use super::entity::Entity;

const MAX: usize = 6;

#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub key: u64,
    pub entity: NonNull<Entity>,
}

pub(super) struct Front {
    len: usize,
    entries: [Entry; MAX],
}

// SAFETY: entities are shared between CPUs; the pointers are used under the queue's lock, as long as the queue owns the
// entity's runnable.
unsafe impl Send for Front {}

impl Front {
    pub const fn new() -> Self {
        Front { len: 0, entries: [Entry { key: 0, entity: NonNull::dangling() }; MAX] }
    }

    #[inline]
    pub fn entries(&self) -> &[Entry] {
        self.entries.get(..self.len).unwrap_or(&[])
    }

    #[inline]
    pub fn is_full(&self) -> bool {
        self.len == MAX
    }

    /// Behind all that have the same key. Answers the one that found no room: the last.
    #[inline]
    pub fn insert(&mut self, new: Entry) -> Option<Entry> {
        let mut rest = None;
        if self.is_full() {
            rest = self.pop_last();
            if let Some(last) = rest
                && last.key <= new.key
            {
                self.len = MAX;
                return Some(new);
            }
        }
        let mut at = self.len.min(MAX - 1);
        while at > 0 && self.entries[at - 1].key > new.key {
            self.entries[at] = self.entries[at - 1];
            at -= 1;
        }
        self.entries[at] = new;
        self.len += 1;
        rest
    }

    #[inline]
    pub fn pop_first(&mut self) -> Option<Entry> {
        self.remove(0)
    }

    fn pop_last(&mut self) -> Option<Entry> {
        let last = *self.entries().last()?;
        self.len -= 1;
        Some(last)
    }

    #[inline]
    pub fn remove(&mut self, index: usize) -> Option<Entry> {
        let entry = *self.entries().get(index)?;
        self.len -= 1;
        // Not `copy_within`, which would be a call.
        for at in index..self.len.min(MAX - 1) {
            self.entries[at] = self.entries[at + 1];
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;
    use alloc::vec::Vec;

    use super::*;

    fn keys(front: &Front) -> Vec<u64> {
        front.entries().iter().map(|entry| entry.key).collect()
    }

    fn entry(key: u64) -> Entry {
        Entry { key, entity: NonNull::dangling() }
    }

    #[test]
    fn the_smallest_keys_stay_in_order() {
        let mut front = Front::new();
        for key in [50, 20, 40, 10, 30, 60] {
            assert!(front.insert(entry(key)).is_none());
        }
        assert_eq!(keys(&front), [10, 20, 30, 40, 50, 60]);
        // No room: the last one goes, which may be the new one.
        assert_eq!(front.insert(entry(70)).map(|rest| rest.key), Some(70));
        assert_eq!(front.insert(entry(60)).map(|rest| rest.key), Some(60));
        assert_eq!(front.insert(entry(5)).map(|rest| rest.key), Some(60));
        assert_eq!(keys(&front), [5, 10, 20, 30, 40, 50]);
        assert_eq!(front.remove(2).map(|entry| entry.key), Some(20));
        assert_eq!(front.pop_first().map(|entry| entry.key), Some(5));
        assert_eq!(keys(&front), [10, 30, 40, 50]);
        assert!(front.remove(4).is_none());
    }

    #[test]
    fn equal_keys_stay_in_the_order_they_came() {
        let mut tasks = [0u64; 3].map(|_| Box::new(0u64));
        let mut front = Front::new();
        let pointers = tasks.each_mut().map(|task| NonNull::from(&mut **task).cast::<Entity>());
        for entity in pointers {
            front.insert(Entry { key: 7, entity });
        }
        let found: Vec<_> = front.entries().iter().map(|entry| entry.entity).collect();
        assert_eq!(found, pointers);
    }
}
