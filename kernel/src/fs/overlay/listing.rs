//! The entries of a directory that has several layers.
//!
//! A [`Merge`] makes one list of the layers' lists. A [`Listing`] numbers it: an entry keeps its number, which is the cookie of
//! `read_dir`, for as long as it is there, so reading goes on correctly whatever is added or removed meanwhile.
//!
//! Both are trees: a directory may have more entries than there is room for in one piece of memory.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::ops::Bound;

use crate::exec::budget;
use crate::fs::dentry::Name;
use crate::fs::inode::{DirSink, FileType};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub ino: u64,
    pub kind: FileType,
    pub name: Name,
}

/// What a layer says of a name.
#[derive(Clone, Debug)]
pub struct Found {
    pub entry: Entry,
    /// There is nothing of this name, here and below.
    pub whiteout: bool,
    /// The number is not what stat(2) shows.
    pub renumbered: bool,
}

struct Merged {
    found: Found,
    /// Directories of several layers are one.
    layers: usize,
    /// The lowest layer that has it.
    lowest: usize,
}

/// Takes the layers one by one, the topmost first.
#[derive(Default)]
pub struct Merge {
    names: BTreeMap<Name, Merged>,
    layers: usize,
}

/// What is seen of a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shown {
    pub ino: u64,
    pub kind: FileType,
    /// The number is to be asked for.
    pub ask: bool,
}

/// What is seen in a directory, of the lowest layers first: so what is made later comes later.
pub type Seen = BTreeMap<(Reverse<usize>, Name), Shown>;

impl Merge {
    /// The next layer begins.
    pub fn layer(&mut self) {
        self.layers += 1;
    }

    /// Entries of the layer.
    pub fn add(&mut self, entries: Vec<Found>) {
        for found in entries {
            match self.names.get_mut(&found.entry.name) {
                None => {
                    let merged = Merged { layers: 1, lowest: self.layers, found };
                    self.names.insert(merged.found.entry.name.clone(), merged);
                }
                Some(above) if !above.found.whiteout => {
                    let both = |kind| found.entry.kind == kind && above.found.entry.kind == kind;
                    above.layers += usize::from(both(FileType::Directory));
                    above.lowest = self.layers;
                }
                Some(_) => {}
            }
        }
    }

    pub async fn finish(self) -> Seen {
        let mut seen = Seen::new();
        for Merged { found, layers, lowest } in self.names.into_values() {
            if !found.whiteout {
                let Entry { ino, kind, name } = found.entry;
                seen.insert((Reverse(lowest), name), Shown { ino, kind, ask: found.renumbered || layers > 1 });
            }
            budget().await;
        }
        seen
    }
}

/// Cookies 1 and 2 come after "." and "..".
const FIRST: u64 = 2;

struct Numbered {
    entry: Entry,
    /// The update that has found it last.
    update: u64,
}

#[derive(Default)]
pub struct Listing {
    entries: BTreeMap<u64, Numbered>,
    numbers: BTreeMap<Name, u64>,
    last: u64,
    updates: u64,
    /// An update has come to its end.
    is_known: bool,
}

impl Listing {
    /// Nothing has been found yet.
    pub fn is_new(&self) -> bool {
        !self.is_known
    }

    /// Makes the listing what there is now. Between two entries it may end early; what has been found then has its number.
    pub async fn update(&mut self, now: Seen) {
        self.updates += 1;
        let update = self.updates;
        for ((_, name), Shown { ino, kind, .. }) in now {
            let number = self.number_of(&name);
            self.entries.insert(number, Numbered { entry: Entry { ino, kind, name }, update });
            budget().await;
        }
        let mut from = 0;
        while let Some((&number, found)) = self.entries.range(from..).next() {
            if found.update != update {
                self.numbers.remove(&found.entry.name);
                self.entries.remove(&number);
            }
            from = number + 1;
            budget().await;
        }
        self.is_known = true;
    }

    fn number_of(&mut self, name: &Name) -> u64 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        self.last = self.last.max(FIRST) + 1;
        self.numbers.insert(name.clone(), self.last);
        self.last
    }

    /// Offers entries from `cookie` on; the directory has the number `own`, its parent `parent`.
    pub fn read(&self, mut cookie: u64, own: u64, parent: u64, sink: &mut dyn DirSink) {
        if cookie == 0 {
            if !sink.entry(own, 1, FileType::Directory, b".") {
                return;
            }
            cookie = 1;
        }
        if cookie == 1 {
            if !sink.entry(parent, FIRST, FileType::Directory, b"..") {
                return;
            }
            cookie = FIRST;
        }
        for (number, Numbered { entry, .. }) in self.entries.range((Bound::Excluded(cookie), Bound::Unbounded)) {
            if !sink.entry(entry.ino, *number, entry.kind, &entry.name) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;

    use super::*;
    use crate::mm::test_util::run as block_on;

    fn found(name: &str, ino: u64, kind: FileType) -> Found {
        let entry = Entry { ino, kind, name: Name::from_slice(name.as_bytes()) };
        Found { entry, whiteout: false, renumbered: false }
    }

    fn file(name: &str, ino: u64) -> Found {
        found(name, ino, FileType::Regular)
    }

    fn whiteout(name: &str) -> Found {
        Found { whiteout: true, ..found(name, 0, FileType::CharDevice) }
    }

    fn merge(layers: Vec<Vec<Found>>) -> Vec<(String, u64, bool)> {
        let mut merge = Merge::default();
        for layer in layers {
            merge.layer();
            merge.add(layer);
        }
        let text = |name: &Name| String::from_utf8_lossy(name).into_owned();
        let seen = block_on(merge.finish());
        seen.iter().map(|((_, name), shown)| (text(name), shown.ino, shown.ask)).collect()
    }

    #[test]
    fn the_topmost_of_a_name_is_seen() {
        let seen = merge(vec![vec![file("b", 1), file("new", 2)], vec![file("a", 3), file("b", 4)]]);
        assert_eq!(seen, [("a".into(), 3, false), ("b".into(), 1, false), ("new".into(), 2, false)]);
    }

    #[test]
    fn whiteouts_hide_what_is_below_and_themselves() {
        let layers = vec![vec![whiteout("a")], vec![file("a", 1), whiteout("b")], vec![file("b", 2), file("c", 3)]];
        assert_eq!(merge(layers), [("c".into(), 3, false)]);
        // Above a whiteout there may be something again.
        assert_eq!(merge(vec![vec![file("a", 9)], vec![whiteout("a")], vec![file("a", 1)]]), [("a".into(), 9, false)]);
    }

    #[test]
    fn numbers_of_merged_directories_are_asked_for() {
        let dir = |ino| found("d", ino, FileType::Directory);
        assert_eq!(merge(vec![vec![dir(1)], vec![dir(2)]]), [("d".into(), 1, true)]);
        assert_eq!(merge(vec![vec![file("d", 1)], vec![dir(2)]]), [("d".into(), 1, false)]);
    }

    struct Names(Vec<(String, u64)>, usize);

    impl DirSink for Names {
        fn entry(&mut self, _ino: u64, next: u64, _kind: FileType, name: &[u8]) -> bool {
            let room = self.0.len() < self.1;
            if room {
                self.0.push((String::from_utf8_lossy(name).into_owned(), next));
            }
            room
        }
    }

    fn read(listing: &Listing, cookie: u64, room: usize) -> Vec<(String, u64)> {
        let mut names = Names(Vec::new(), room);
        listing.read(cookie, 1, 2, &mut names);
        names.0
    }

    fn names(listing: &Listing, cookie: u64) -> Vec<String> {
        read(listing, cookie, 100).into_iter().map(|(name, _)| name).collect()
    }

    async fn update(listing: &mut Listing, names: &[&str]) {
        let name = |name: &str| Name::from_slice(name.as_bytes());
        let shown = Shown { ino: 5, kind: FileType::Regular, ask: false };
        let places = (0..names.len()).rev().map(Reverse);
        let seen = places.zip(names).map(|(place, text)| ((place, name(text)), shown)).collect();
        listing.update(seen).await;
    }

    #[test]
    fn reading_goes_on_over_changes() {
        block_on(async {
            let mut listing = Listing::default();
            update(&mut listing, &["a", "b", "c", "d"]).await;
            let first = read(&listing, 0, 4);
            assert_eq!(first.iter().map(|(name, _)| &name[..]).collect::<Vec<_>>(), [".", "..", "a", "b"]);
            let cookie = first[3].1;
            assert_eq!(names(&listing, cookie), ["c", "d"]);
            update(&mut listing, &["new", "d", "b"]).await;
            assert_eq!(names(&listing, cookie), ["d", "new"]);
            assert_eq!(names(&listing, 0), [".", "..", "b", "d", "new"]);
            // A name that comes back is another entry.
            update(&mut listing, &["a", "b", "d", "new"]).await;
            assert_eq!(names(&listing, cookie), ["d", "new", "a"]);
        });
    }
}
