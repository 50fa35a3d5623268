//! Which spinlocks somebody had to wait for, where, and how long: `/proc/lock_stat`.
//!
//! A lock's class is the type of what it guards. A table has a row for each place in the sources at which a lock was found
//! taken. Only who waits writes there.

use alloc::vec::Vec;
use core::panic::Location;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

use super::Once;
use crate::arch;

/// Where a lock is taken.
pub type Place = &'static Location<'static>;

/// The type of what a lock guards.
type Class = &'static str;

/// More than there are places with locks that are ever contended; what finds no row is counted all the same.
const ROWS: usize = 256;

static TABLE: Table = Table::new();

struct Table {
    rows: [Row; ROWS],
    homeless: AtomicU64,
}

struct Row {
    key: Once<(Place, Class)>,
    waits: AtomicU64,
    /// Ticks of the clock.
    total: AtomicU64,
    longest: AtomicU64,
}

impl Row {
    const fn new() -> Row {
        Row { key: Once::new(), waits: AtomicU64::new(0), total: AtomicU64::new(0), longest: AtomicU64::new(0) }
    }
}

/// A place at which locks of one class were found taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Contention {
    pub class: Class,
    pub place: Place,
    pub waits: u64,
    pub total_ns: u64,
    pub longest_ns: u64,
}

/// Takes a lock of a class, whenever it is free.
pub(super) fn counted(place: Place, class: Class, try_lock: &dyn Fn() -> bool, is_locked: &dyn Fn() -> bool) {
    let since = arch::ticks();
    loop {
        while is_locked() {
            arch::spin_hint();
        }
        if try_lock() {
            break;
        }
    }
    TABLE.note(place, class, arch::ticks().wrapping_sub(since));
}

/// What there was since boot or since [`reset`], ordered by class, and how many waits are not among it.
pub fn contentions() -> (Vec<Contention>, u64) {
    TABLE.contentions()
}

pub fn reset() {
    TABLE.reset();
}

impl Table {
    const fn new() -> Table {
        Table { rows: [const { Row::new() }; ROWS], homeless: AtomicU64::new(0) }
    }

    fn note(&self, place: Place, class: Class, ticks: u64) {
        let start = core::ptr::from_ref(place).addr() / size_of::<Location>();
        let row = (0..ROWS).find_map(|step| {
            let row = self.rows.get((start + step) % ROWS)?;
            let (owner, _) = row.key.call_once(|| (place, class));
            core::ptr::eq(*owner, place).then_some(row)
        });
        let Some(row) = row else {
            self.homeless.fetch_add(1, Relaxed);
            return;
        };
        row.waits.fetch_add(1, Relaxed);
        row.total.fetch_add(ticks, Relaxed);
        row.longest.fetch_max(ticks, Relaxed);
    }

    fn contentions(&self) -> (Vec<Contention>, u64) {
        let all = self.rows.iter().filter_map(|row| {
            let (place, class) = *row.key.get()?;
            let [total_ns, longest_ns] = [&row.total, &row.longest].map(|ticks| arch::ticks_to_ns(ticks.load(Relaxed)));
            Some(Contention { class, place, waits: row.waits.load(Relaxed), total_ns, longest_ns })
        });
        let mut all: Vec<_> = all.filter(|contention| contention.waits > 0).collect();
        all.sort_unstable_by_key(|contention| (contention.class, contention.place.file(), contention.place.line()));
        (all, self.homeless.load(Relaxed))
    }

    fn reset(&self) {
        self.homeless.store(0, Relaxed);
        for row in &self.rows {
            for counter in [&row.waits, &row.total, &row.longest] {
                counter.store(0, Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use core::any::type_name;

    use super::super::SpinLock;
    use super::*;

    #[test]
    fn places_are_told_apart_and_added_up() {
        let table = Table::new();
        let [one, other] = [Location::caller(), here()];
        for ticks in [5, 7, 6] {
            table.note(one, "u8", ticks);
        }
        table.note(other, "u16", 1);
        let (all, homeless) = table.contentions();
        let found: Vec<_> = all.iter().map(|c| (c.class, c.waits, c.total_ns, c.longest_ns)).collect();
        assert_eq!(found, [("u16", 1, 1, 1), ("u8", 3, 18, 7)]);
        assert_eq!(homeless, 0);
        table.reset();
        assert_eq!(table.contentions().0, []);
    }

    #[track_caller]
    fn here() -> Place {
        Location::caller()
    }

    #[test]
    fn a_full_table_says_so() {
        let table = Table::new();
        let places: Vec<Location<'static>> = (0..ROWS as u32 + 3).map(|_| *here()).collect();
        for place in std::boxed::Box::leak(places.into_boxed_slice()) {
            table.note(place, "u8", 1);
        }
        let (all, homeless) = table.contentions();
        assert_eq!((all.len(), homeless), (ROWS, 3));
    }

    /// Guards a type that no other test's lock does.
    struct Mine;

    #[test]
    fn who_finds_a_lock_taken_is_counted() {
        let lock = std::sync::Arc::new(SpinLock::new(Mine));
        let waits = || contentions().0.iter().filter(|c| c.class == type_name::<Mine>()).map(|c| c.waits).sum::<u64>();
        drop(lock.lock());
        assert_eq!(waits(), 0);
        let guard = lock.lock();
        let other = lock.clone();
        let (begin, begun) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            begin.send(()).unwrap();
            drop(other.lock());
        });
        begun.recv().unwrap();
        // It is about to take the lock: long enough for it to get there.
        std::thread::sleep(std::time::Duration::from_millis(200));
        drop(guard);
        thread.join().unwrap();
        assert_eq!(waits(), 1);
    }
}
