//! Keys, ids and permissions of System V objects (sysvipc(7), ftok(3)).
//!
//! An id is a place in a table and a number that says how often the places were gone through, so that an id of an object
//! that is gone is not soon the id of another.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::memory;
use crate::errno::{Errno, Result};
use crate::process::{Caps, Credentials};
use crate::sync::RwSpinLock;

pub const IPC_PRIVATE: i32 = 0;
pub const IPC_CREAT: u32 = 0o1000;
pub const IPC_EXCL: u32 = 0o2000;
pub const IPC_NOWAIT: u32 = 0o4000;

pub const READ: u32 = 0o444;
pub const WRITE: u32 = 0o222;
pub const EXEC: u32 = 0o111;

/// Bits of an id that are the place; the others are the round.
const PLACE_BITS: u32 = 15;
/// Most objects of a kind (IPCMNI).
pub const MAX_OBJECTS: usize = 1 << PLACE_BITS;
const ROUNDS: u32 = 1 << (31 - PLACE_BITS);
/// Places are gone through in turn, at least so many.
const MIN_CYCLE: usize = 64;

/// `struct ipc_perm`.
#[derive(Clone, Copy, Debug)]
pub struct Perm {
    pub key: i32,
    pub id: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    /// Permission bits.
    pub mode: u32,
}

impl Perm {
    /// Of a new object; it has no id yet.
    pub fn new(key: i32, flags: u32, creds: &Credentials) -> Perm {
        let (uid, gid) = (creds.euid, creds.egid);
        Perm { key, id: -1, uid, gid, cuid: uid, cgid: gid, mode: flags & 0o777 }
    }

    /// EACCES unless all that `wanted` asks for is granted: bits of a mode, of which it does not matter for whom they are.
    pub fn check(&self, creds: &Credentials, wanted: u32) -> Result<()> {
        let wanted = (wanted >> 6 | wanted >> 3 | wanted) & 7;
        let granted = if creds.euid == self.cuid || creds.euid == self.uid {
            self.mode >> 6
        } else if creds.in_group(self.cgid) || creds.in_group(self.gid) {
            self.mode >> 3
        } else {
            self.mode
        };
        if wanted & !granted == 0 || creds.capable(Caps::IPC_OWNER) { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// EPERM unless it is the owner, or the one who made it, or may do everything.
    pub fn check_owner(&self, creds: &Credentials) -> Result<()> {
        let own = creds.euid == self.uid || creds.euid == self.cuid;
        if own || creds.capable(Caps::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// IPC_SET.
    pub fn set(&mut self, new: &Change) -> Result<()> {
        if new.uid == u32::MAX || new.gid == u32::MAX {
            return Err(Errno::EINVAL);
        }
        (self.uid, self.gid) = (new.uid, new.gid);
        self.mode = self.mode & !0o777 | new.mode & 0o777;
        Ok(())
    }
}

/// Seconds since the epoch, for the times of an object.
pub fn now() -> i64 {
    crate::time::now_realtime().sec
}

/// What IPC_SET can change of all objects.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

/// Something that has an id.
pub(super) trait Object {
    /// Calls `f` with its permissions, under its lock.
    fn with_perm<R>(&self, f: impl FnOnce(&mut Perm) -> R) -> R;
}

struct Slot<T> {
    key: i32,
    round: u32,
    object: Arc<T>,
}

struct Table<T> {
    slots: Vec<Option<Slot<T>>>,
    by_key: BTreeMap<i32, usize>,
    used: usize,
    round: u32,
    /// Behind the place that was given out last.
    next: usize,
}

/// All objects of a kind.
pub(super) struct Registry<T> {
    table: RwSpinLock<Table<T>>,
}

impl<T: Object> Registry<T> {
    pub const fn new() -> Self {
        let table = Table { slots: Vec::new(), by_key: BTreeMap::new(), used: 0, round: 0, next: 0 };
        Registry { table: RwSpinLock::new(table) }
    }

    /// The object of this key, if `fits` agrees to it, or a new one: semget(2) and its kin. At most `limit` of them: ENOSPC.
    pub fn get_or_make(
        &self,
        key: i32,
        flags: u32,
        limit: usize,
        creds: &Credentials,
        fits: impl Fn(&T) -> Result<()>,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<i32> {
        let existing = |object: &Arc<T>| {
            if flags & (IPC_CREAT | IPC_EXCL) == IPC_CREAT | IPC_EXCL {
                return Err(Errno::EEXIST);
            }
            fits(object)?;
            object.with_perm(|perm| perm.check(creds, flags).map(|()| perm.id))
        };
        if key != IPC_PRIVATE {
            let found = self.table.read().find_key(key).cloned();
            match found {
                Some(object) => return existing(&object),
                None if flags & IPC_CREAT == 0 => return Err(Errno::ENOENT),
                None => {}
            }
        }
        memory::check()?;
        let made = Arc::new(make()?);
        let mut table = self.table.write();
        // Somebody else may have made one meanwhile.
        if let Some(object) = table.find_key(key).cloned() {
            drop(table);
            return existing(&object);
        }
        table.insert(key, limit.min(MAX_OBJECTS), made)
    }

    /// EINVAL if there is none.
    #[inline]
    pub fn get(&self, id: i32) -> Result<Arc<T>> {
        let (place, round) = split(id)?;
        let table = self.table.read();
        match table.slots.get(place) {
            Some(Some(slot)) if slot.round == round => Ok(slot.object.clone()),
            _ => Err(Errno::EINVAL),
        }
    }

    /// What is at a place of the table: SEM_STAT and its kin.
    pub fn at(&self, place: i32) -> Result<Arc<T>> {
        let (place, _) = split(place)?;
        let table = self.table.read();
        let slot = table.slots.get(place).and_then(Option::as_ref);
        slot.map(|slot| slot.object.clone()).ok_or(Errno::EINVAL)
    }

    /// Takes an object out: nobody finds it any more.
    pub fn remove(&self, id: i32) {
        let Ok((place, round)) = split(id) else { return };
        let mut table = self.table.write();
        let here = |slot: &Option<Slot<T>>| slot.as_ref().is_some_and(|slot| slot.round == round);
        let Some(slot) = table.slots.get_mut(place).filter(|slot| here(slot)) else { return };
        let gone = slot.take();
        table.used -= 1;
        if let Some(slot) = &gone {
            table.forget_key(slot.key, place);
        }
        drop(table);
        drop(gone);
    }

    /// Lets an object be found by its id only.
    pub fn hide(&self, id: i32) {
        let Ok((place, _)) = split(id) else { return };
        let mut table = self.table.write();
        if let Some(Some(slot)) = table.slots.get_mut(place) {
            let key = core::mem::replace(&mut slot.key, IPC_PRIVATE);
            table.forget_key(key, place);
        }
    }

    /// How many there are.
    pub fn used(&self) -> usize {
        self.table.read().used
    }

    /// The highest place that is taken, 0 if none is.
    pub fn highest(&self) -> usize {
        self.table.read().slots.iter().rposition(Option::is_some).unwrap_or(0)
    }

    /// All of them, in the order of their places.
    pub fn all(&self) -> Vec<Arc<T>> {
        self.table.read().slots.iter().flatten().map(|slot| slot.object.clone()).collect()
    }
}

fn split(id: i32) -> Result<(usize, u32)> {
    let id = u32::try_from(id).map_err(|_| Errno::EINVAL)?;
    Ok((id as usize % MAX_OBJECTS, id >> PLACE_BITS))
}

impl<T: Object> Table<T> {
    fn find_key(&self, key: i32) -> Option<&Arc<T>> {
        let place = *self.by_key.get(&key)?;
        self.slots.get(place)?.as_ref().map(|slot| &slot.object)
    }

    fn forget_key(&mut self, key: i32, place: usize) {
        if self.by_key.get(&key) == Some(&place) {
            self.by_key.remove(&key);
        }
    }

    fn insert(&mut self, key: i32, limit: usize, object: Arc<T>) -> Result<i32> {
        if self.used >= limit {
            return Err(Errno::ENOSPC);
        }
        let place = self.free_place().ok_or(Errno::ENOSPC)?;
        if place >= self.slots.len() {
            self.slots.try_reserve(place + 1 - self.slots.len()).map_err(|_| Errno::ENOMEM)?;
            self.slots.resize_with(place + 1, || None);
        }
        if place < self.next {
            self.round = (self.round + 1) % ROUNDS;
        }
        self.next = place + 1;
        let id = (self.round << PLACE_BITS | place as u32) as i32;
        object.with_perm(|perm| perm.id = id);
        if let Some(slot) = self.slots.get_mut(place) {
            *slot = Some(Slot { key, round: self.round, object });
        }
        if key != IPC_PRIVATE {
            self.by_key.insert(key, place);
        }
        self.used += 1;
        Ok(id)
    }

    /// The first free place after the last one that was given out, or else from the start.
    fn free_place(&self) -> Option<usize> {
        let cycle = (self.used * 3 / 2).clamp(MIN_CYCLE, MAX_OBJECTS);
        let free = |place: &usize| self.slots.get(*place).is_none_or(Option::is_none);
        (self.next..cycle).find(free).or_else(|| (0..MAX_OBJECTS).find(free))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::SpinLock;

    struct Thing(SpinLock<Perm>);

    impl Object for Thing {
        fn with_perm<R>(&self, f: impl FnOnce(&mut Perm) -> R) -> R {
            f(&mut self.0.lock())
        }
    }

    fn get(registry: &Registry<Thing>, key: i32, flags: u32) -> Result<i32> {
        let creds = Credentials::root();
        let make = || Ok(Thing(SpinLock::new(Perm::new(key, flags, &creds))));
        registry.get_or_make(key, flags, 100, &creds, |_| Ok(()), make)
    }

    #[test]
    fn keys_lead_to_one_object() {
        let registry = Registry::new();
        assert_eq!(get(&registry, 7, 0), Err(Errno::ENOENT));
        let id = get(&registry, 7, IPC_CREAT | 0o600).unwrap();
        assert_eq!(get(&registry, 7, 0), Ok(id));
        assert_eq!(get(&registry, 7, IPC_CREAT | IPC_EXCL), Err(Errno::EEXIST));
        assert_ne!(get(&registry, IPC_PRIVATE, 0).unwrap(), id);
        registry.hide(id);
        assert_eq!(get(&registry, 7, 0), Err(Errno::ENOENT));
        assert!(registry.get(id).is_ok());
        registry.remove(id);
        assert!(registry.get(id).is_err());
        assert_eq!(registry.used(), 1);
    }

    #[test]
    fn ids_are_not_soon_used_again() {
        let registry = Registry::new();
        let mut seen = alloc::collections::BTreeSet::new();
        for _ in 0..1000 {
            let id = get(&registry, IPC_PRIVATE, 0o600).unwrap();
            assert!(id >= 0 && seen.insert(id), "{id} came twice");
            registry.remove(id);
        }
        assert!(registry.table.read().slots.len() <= MIN_CYCLE);
    }

    #[test]
    fn there_is_a_limit() {
        let registry = Registry::new();
        for _ in 0..100 {
            get(&registry, IPC_PRIVATE, 0).unwrap();
        }
        assert_eq!(get(&registry, IPC_PRIVATE, 0), Err(Errno::ENOSPC));
        assert_eq!(registry.highest(), 99);
    }

    #[test]
    fn permissions() {
        let root = Credentials::root();
        let mut perm = Perm::new(1, 0o640, &root);
        let caps = Caps::empty();
        let other =
            Credentials { euid: 5, fsgid: 9, cap_effective: caps, groups: Arc::new([20]), ..Credentials::root() };
        assert_eq!(perm.check(&other, READ), Err(Errno::EACCES));
        assert_eq!(perm.check(&root, READ | WRITE), Ok(()));
        perm.set(&Change { uid: 1, gid: 20, mode: 0o640 }).unwrap();
        assert_eq!(perm.check(&other, READ), Ok(()));
        assert_eq!(perm.check(&other, WRITE), Err(Errno::EACCES));
        assert_eq!(perm.check_owner(&other), Err(Errno::EPERM));
        perm.set(&Change { uid: 5, gid: 0, mode: 0o600 }).unwrap();
        assert_eq!(perm.check(&other, WRITE), Ok(()));
        assert_eq!(perm.set(&Change { uid: u32::MAX, gid: 0, mode: 0 }), Err(Errno::EINVAL));
    }
}
