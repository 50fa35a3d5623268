//! The mounts, by the order in which they came and by their places.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;
use core::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::Mount;
use crate::exec;
use crate::fs::path::Path;
use crate::sync::RwSpinLock;

pub(super) static TABLE: RwSpinLock<Table> =
    RwSpinLock::new(Table { mounts: BTreeMap::new(), places: BTreeMap::new() });

/// The turn of what is not in the table, before all others.
pub(super) const NOWHERE: i64 = i64::MIN;

/// References to a mount that it has for being in the table and in a place.
pub(super) const REFERENCES: usize = 2;

/// Mounts that are looked at under one hold of the table.
pub(super) const BATCH: usize = 32;

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

    /// Enters a mount behind all others; one that was there changes its turn.
    pub fn enter_last(&mut self, mount: &Arc<Mount>) {
        self.leave(mount);
        self.enter_at(self.mounts.last_key_value().map_or(0, |(turn, _)| turn + 1), mount);
    }

    pub fn leave(&mut self, mount: &Mount) {
        self.mounts.remove(&mount.turn.swap(NOWHERE, Ordering::Relaxed));
    }

    /// Puts a mount into another place, or into none. Answers which one it had: it is in one of them at any time.
    pub fn settle(&mut self, mount: &Arc<Mount>, place: Option<Path>) -> Option<Path> {
        let new = place.as_ref().map(key_of);
        let old = core::mem::replace(&mut *mount.place.lock(), place);
        if let Some(old) = &old {
            self.places.remove(&key_of(old));
        }
        if let Some(new) = new {
            self.places.insert(new, mount.clone());
        }
        old
    }

    pub fn mounted_on(&self, place: &Path) -> Option<&Arc<Mount>> {
        self.places.get(&key_of(place))
    }

    pub fn is_bare(&self, mount: &Mount) -> bool {
        self.children(mount, None).next().is_none()
    }

    /// What is mounted in a mount, with the keys by which one can go on after a part of them.
    pub fn children(&self, mount: &Mount, after: Option<usize>) -> impl Iterator<Item = (usize, &Arc<Mount>)> {
        let first = after.map_or(Bound::Included((mount.id, 0)), |after| Bound::Excluded((mount.id, after)));
        let places = self.places.range((first, Bound::Included((mount.id, usize::MAX))));
        places.map(|((_, dentry), child)| (*dentry, child))
    }
}

/// What is mounted in a mount, the oldest first. For who holds [`super::CHANGES`].
async fn children(mount: &Mount) -> BTreeMap<i64, Arc<Mount>> {
    let mut found = BTreeMap::new();
    let mut last = None;
    loop {
        let batch: SmallVec<[(usize, Arc<Mount>); BATCH]> = {
            let table = TABLE.read();
            table.children(mount, last).take(BATCH).map(|(key, child)| (key, child.clone())).collect()
        };
        let Some((key, _)) = batch.last() else { return found };
        last = Some(*key);
        found.extend(batch.into_iter().map(|(_, child)| (turn_of(&child), child)));
        exec::budget().await;
    }
}

/// Mounts whose place is at or below `top` (not counting `top`'s own mount), each before what is mounted in it. For who
/// holds [`super::CHANGES`].
pub(super) async fn mounts_below(top: &Path) -> Vec<Arc<Mount>> {
    let mut left = Vec::new();
    for child in children(&top.mount).await.into_values().rev() {
        if child.place().is_some_and(|place| top.dentry.is_ancestor_of(&place.dentry)) {
            left.push(child);
        }
        exec::budget().await;
    }
    let mut found = Vec::new();
    while let Some(mount) = left.pop() {
        left.extend(children(&mount).await.into_values().rev());
        found.push(mount);
        exec::budget().await;
    }
    found
}
