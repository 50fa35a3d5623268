//! The names in a directory of tmpfs.

use alloc::collections::{BTreeMap, btree_map};
use alloc::sync::{Arc, Weak};
use core::hash::{BuildHasher, Hasher};
use core::ptr;

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;

use super::TmpInode;
use crate::drivers::random;
use crate::fs::dentry::Name;
use crate::sync::Lazy;

/// Cookies 1 and 2 come after "." and "..".
pub const AFTER_DOTS: u64 = 2;
/// The lower bits of a place tell names of one hash apart; the upper ones are that, and a cookie must not be negative.
const NUMBER_BITS: u32 = if cfg!(test) { OFTEN } else { 23 };
/// Tests see names of one hash often.
const OFTEN: u32 = 52;
const FIRST: u64 = AFTER_DOTS + 1;
const LAST: u64 = (1 << NUMBER_BITS) - 1;

pub struct Entry {
    pub name: Name,
    pub inode: Arc<TmpInode>,
}

/// Its entries by the hash of their names, which is the order in which they are read, too: so an entry has one place as long
/// as it has its name, and that is its cookie.
pub struct Dir {
    entries: BTreeMap<u64, Entry>,
    hasher: SeedableRandomState,
    /// The places of those names that are not at the first one of their hash, however many these are.
    later: BTreeMap<Name, u64>,
    pub parent: Weak<TmpInode>,
}

/// Those of a directory that is gone.
pub type Entries = btree_map::IntoValues<u64, Entry>;

impl Default for Dir {
    fn default() -> Dir {
        // So that places tell nobody which names have the same hash.
        static SEEDS: Lazy<(u64, SharedSeed)> = Lazy::new(|| (random::u64(), SharedSeed::from_u64(random::u64())));
        let hasher = SeedableRandomState::with_seed(SEEDS.0, &SEEDS.1);
        Dir { entries: BTreeMap::new(), hasher, later: BTreeMap::new(), parent: Weak::new() }
    }
}

impl Dir {
    fn first_place(&self, name: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(name);
        hasher.finish() >> (NUMBER_BITS + 1) << NUMBER_BITS | FIRST
    }

    pub fn get(&self, name: &[u8]) -> Option<&Arc<TmpInode>> {
        match self.entries.get(&self.first_place(name)) {
            Some(entry) if entry.name[..] == *name => Some(&entry.inode),
            _ if self.later.is_empty() => None,
            _ => self.entries.get(self.later.get(name)?).map(|entry| &entry.inode),
        }
    }

    /// Gives it back if the name is not free.
    pub fn insert(&mut self, name: &[u8], inode: Arc<TmpInode>) -> Result<(), Arc<TmpInode>> {
        let first = self.first_place(name);
        if !self.later.is_empty() && self.later.contains_key(name) {
            return Err(inode);
        }
        match self.entries.entry(first) {
            btree_map::Entry::Vacant(place) => {
                place.insert(Entry { name: Name::from_slice(name), inode });
                return Ok(());
            }
            btree_map::Entry::Occupied(other) if other.get().name[..] == *name => return Err(inode),
            btree_map::Entry::Occupied(_) => {}
        }
        let last = self.entries.range(first..=first | LAST).next_back().map_or(first, |(place, _)| *place);
        if let Some(free) = (last + 1..).find(|place| !self.entries.contains_key(place)) {
            let name = Name::from_slice(name);
            self.later.insert(name.clone(), free);
            self.entries.insert(free, Entry { name, inode });
        }
        Ok(())
    }

    /// Gives a name that was taken away under the same lock to an inode.
    pub fn put_back(&mut self, name: &[u8], inode: Arc<TmpInode>) {
        debug_assert!(self.get(name).is_none());
        drop(self.insert(name, inode));
    }

    /// Takes the name away if it means this inode.
    pub fn remove(&mut self, name: &[u8], inode: &TmpInode) -> Option<Arc<TmpInode>> {
        let is_meant = |entry: &Entry| ptr::eq(&*entry.inode, inode);
        match self.entries.entry(self.first_place(name)) {
            btree_map::Entry::Occupied(entry) if entry.get().name[..] == *name => {
                is_meant(entry.get()).then(|| entry.remove().inode)
            }
            _ if self.later.is_empty() => None,
            _ => {
                let place = *self.later.get(name)?;
                self.entries.get(&place).filter(|entry| is_meant(entry))?;
                self.later.remove(name);
                self.entries.remove(&place).map(|entry| entry.inode)
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What comes after a cookie, with their cookies.
    pub fn after(&self, cookie: u64) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries.range(cookie.saturating_add(1)..).map(|(place, entry)| (*place, entry))
    }

    pub fn take_all(&mut self) -> Entries {
        self.later.clear();
        core::mem::take(&mut self.entries).into_values()
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;

    use super::*;
    use crate::fs::inode::NewAttr;
    use crate::fs::tmpfs::TmpFs;
    use crate::mm::test_util::init;

    fn name(n: u32) -> Vec<u8> {
        format!("file{n}").into_bytes()
    }

    /// With so many entries of one file, and another file.
    fn filled(count: u32) -> (Dir, [Arc<TmpInode>; 2]) {
        init();
        let fs = TmpFs::new("tmpfs", b"none", Default::default());
        let files = [(); 2].map(|()| fs.new_file(NewAttr { perm: 0, uid: 0, gid: 0 }).unwrap());
        let mut dir = Dir::default();
        (0..count).for_each(|n| assert!(dir.insert(&name(n), files[0].clone()).is_ok()));
        (dir, files)
    }

    #[test]
    fn names_of_one_hash_are_told_apart() {
        const COUNT: u32 = 2000;
        let (mut dir, [inode, other]) = filled(COUNT);
        let places = |dir: &Dir| dir.after(AFTER_DOTS).map(|(place, entry)| (entry.name.to_vec(), place)).collect();
        let before: BTreeSet<(Vec<u8>, u64)> = places(&dir);
        assert!(!dir.later.is_empty() && before.len() == COUNT as usize);
        for n in (0..COUNT).step_by(2) {
            assert!(dir.remove(&name(n), &other).is_none());
            assert!(dir.remove(&name(n), &inode).is_some() && dir.remove(&name(n), &inode).is_none());
        }
        // What is there is not there twice.
        assert!((1..COUNT).step_by(2).all(|n| dir.insert(&name(n), other.clone()).is_err()));
        // What stays keeps its place.
        assert!(places(&dir).is_subset(&before));
        for n in 0..COUNT {
            assert_eq!(dir.get(&name(n)).is_some(), n % 2 == 1, "{n}");
        }
        (0..COUNT).step_by(4).for_each(|n| assert!(dir.insert(&name(n), other.clone()).is_ok()));
        for n in 0..COUNT {
            let found = dir.get(&name(n)).map(|inode| Arc::ptr_eq(inode, &other));
            assert_eq!(found, [Some(true), Some(false), None, Some(false)][n as usize % 4], "{n}");
        }
    }

    #[test]
    fn every_entry_is_read_once_whatever_comes_and_goes() {
        let (mut dir, [inode, _]) = filled(1000);
        let (mut cookie, mut seen) = (AFTER_DOTS, BTreeSet::new());
        let next = |dir: &Dir, cookie| dir.after(cookie).next().map(|(place, entry)| (place, entry.name.to_vec()));
        let mut step = 0;
        while let Some((place, read)) = next(&dir, cookie) {
            assert!(place > cookie && place <= i64::MAX as u64);
            cookie = place;
            assert!(seen.insert(read));
            dir.remove(&name(500 + step % 500), &inode);
            assert!(dir.insert(&name(1000 + step), inode.clone()).is_ok());
            step += 1;
        }
        assert!((0..500).all(|n| seen.contains(&name(n))));
    }
}
