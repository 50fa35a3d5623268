//! The mounts, by the order in which they came and by their places.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;
use core::sync::atomic::Ordering;

use super::Mount;
use crate::fs::path::Path;
use crate::sync::RwSpinLock;

pub(super) static TABLE: RwSpinLock<Table> =
    RwSpinLock::new(Table { mounts: BTreeMap::new(), places: BTreeMap::new() });

/// The turn of what is not in the table, before all others.
pub(super) const NOWHERE: i64 = i64::MIN;

/// References to a mount that it has for being in the table and in a place.
pub(super) const REFERENCES: usize = 2;

pub(super) struct Table {
    /// By turn, which a mount keeps as long as it is here, wherever it goes.
    mounts: BTreeMap<i64, Arc<Mount>>,
    /// By mount and dentry of the place.
    places: BTreeMap<(u64, usize), Arc<Mount>>,
}

fn key_of(place: &Path) -> (u64, usize) {
    (place.mount.id, Arc::as_ptr(&place.dentry).addr())
}

fn turn_of(mount: &Mount) -> i64 {
    mount.turn.load(Ordering::Relaxed)
}

impl Table {
    pub fn mounts(&self) -> impl Iterator<Item = &Arc<Mount>> {
        self.mounts.values()
    }

    pub fn len(&self) -> usize {
        self.mounts.len()
    }

    pub fn contains(&self, mount: &Mount) -> bool {
        turn_of(mount) != NOWHERE
    }

    /// Those whose turn comes after `turn`. Who goes on with the last turn that he has seen misses none, and meets none
    /// twice, whatever others change meanwhile.
    pub fn after(&self, turn: i64) -> impl Iterator<Item = (i64, &Arc<Mount>)> {
        self.mounts.range((Bound::Excluded(turn), Bound::Unbounded)).map(|(&turn, mount)| (turn, mount))
    }

    pub fn enter_first(&mut self, mount: &Arc<Mount>) {
        let turn = self.mounts.first_key_value().map_or(0, |(turn, _)| turn - 1);
        self.enter_at(turn, mount);
    }

    fn enter_at(&mut self, turn: i64, mount: &Arc<Mount>) {
        mount.turn.store(turn, Ordering::Relaxed);
        self.mounts.insert(turn, mount.clone());
    }

    fn enter_last(&mut self, mount: &Arc<Mount>) {
        self.enter_at(self.mounts.last_key_value().map_or(0, |(turn, _)| turn + 1), mount);
    }

    /// Puts a mount into its place, as the last in the table if it was not there.
    pub fn put(&mut self, mount: &Arc<Mount>, place: &Path) {
        if !self.contains(mount) {
            self.enter_last(mount);
            // A tree that was detached: what is in it comes after it in listings.
            for below in self.below(&Path { mount: mount.clone(), dentry: mount.root.clone() }) {
                self.leave(&below);
                self.enter_last(&below);
            }
        }
        self.places.insert(key_of(place), mount.clone());
    }

    /// Takes a mount out of its place; it stays in the table.
    pub fn take_from(&mut self, place: &Path) {
        self.places.remove(&key_of(place));
    }

    pub fn leave(&mut self, mount: &Mount) {
        self.mounts.remove(&mount.turn.swap(NOWHERE, Ordering::Relaxed));
    }

    pub fn mounted_on(&self, place: &Path) -> Option<&Arc<Mount>> {
        self.places.get(&key_of(place))
    }

    /// What is mounted in a mount, the oldest first.
    fn children(&self, mount: &Mount) -> Vec<Arc<Mount>> {
        let places = self.places.range((mount.id, 0)..=(mount.id, usize::MAX));
        let mut children: Vec<Arc<Mount>> = places.map(|(_, child)| child.clone()).collect();
        children.sort_unstable_by_key(|child| turn_of(child));
        children
    }

    /// Mounts whose place is at or below `top` (not counting `top`'s own mount), each before what is mounted in it.
    pub fn below(&self, top: &Path) -> Vec<Arc<Mount>> {
        let mut left = self.children(&top.mount);
        left.retain(|child| child.place.lock().as_ref().is_some_and(|place| top.dentry.is_ancestor_of(&place.dentry)));
        left.reverse();
        let mut found = Vec::new();
        while let Some(mount) = left.pop() {
            left.extend(self.children(&mount).into_iter().rev());
            found.push(mount);
        }
        found
    }
}
