//! In which order names and inodes get on the disk, so that whenever power goes e2fsck has nothing to ask. It mends names
//! that lead to no inode, inodes without links, and wrong counts by itself; but an inode that has links and no name is a
//! question. So, with a flush after each:
//!
//! 1. directories, with the names that have come and still those that have gone (`Buffer::modify_later`);
//! 2. inodes: new ones, which have names by now, and those that have lost their links;
//! 3. directories without the names that have gone.
//!
//! What is in a new directory is found if that directory is, so new inodes have levels, each written after the one above; and
//! a directory that goes is written after those that went out of it. What is in one block with the one above it
//! needs no wait. A name that is made to lead elsewhere is one that has come and one that has gone: what it led to has a
//! name in lost+found from before step 1 till after step 2.
//!
//! Names are exact in what is copied for a write-back because those that go do so together with the link
//! ([`Order::removal`]).

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};

use smallvec::SmallVec;

use crate::exec::RwLock;
use crate::sync::SpinLock;

/// An inode with links that the disk does not know so far.
#[derive(Default)]
struct Fresh {
    /// The directories that it has names in.
    names: SmallVec<[u32; 1]>,
    /// A write-back that has begun makes it known.
    written: bool,
}

/// A directory that goes after others.
struct Going {
    level: u32,
    /// What it was.
    raw: Box<[u8]>,
}

#[derive(Default)]
struct State {
    fresh: BTreeMap<u32, Fresh>,
    /// Directories that names went out of since the last write-back: the level of what they led to, plus one.
    left: BTreeMap<u32, u32>,
    going: BTreeMap<u32, Going>,
    /// Directories with blocks that the disk does not know to be theirs.
    grown: BTreeSet<u32>,
    /// Inodes whose names lead elsewhere now, and what their type is in an entry.
    replaced: BTreeMap<u32, u8>,
}

#[derive(Default)]
pub struct Order {
    /// Held shared while a name goes until its inode has lost the link too, and exclusively while write-back copies. Whoever holds it
    /// allocates nothing and waits for no map: that may be waiting for a write-back.
    pub removal: RwLock<()>,
    state: SpinLock<State>,
    period: AtomicU32,
}

/// An inode that is not written as it is at first.
pub struct Late {
    /// The level at which it is. None: not in this write-back.
    pub level: Option<u32>,
    /// What its place in the table is before; None: zeros.
    pub raw: Option<Box<[u8]>>,
}

/// What a write-back has to keep in order.
#[derive(Default)]
pub struct Turns {
    pub late: BTreeMap<u32, Late>,
    /// The last level.
    pub levels: u32,
    /// New inodes that the disk knows when the write-back has ended.
    known: Vec<u32>,
    /// What lost+found has to have names for, and the type in an entry.
    pub replaced: Vec<(u32, u8)>,
}

impl Order {
    /// The inode is about to have a link, and has no name yet.
    pub fn begin(&self, ino: u32) {
        self.state.lock().fresh.insert(ino, Fresh::default());
    }

    /// It is free.
    pub fn forget(&self, ino: u32) {
        self.state.lock().fresh.remove(&ino);
    }

    /// It has no link any more.
    pub fn unlinked(&self, ino: u32) {
        let mut state = self.state.lock();
        if state.fresh.get(&ino).is_some_and(|fresh| !fresh.written) {
            state.fresh.remove(&ino);
        }
    }

    /// It has a name in this directory.
    pub fn named(&self, ino: u32, dir: u32) {
        if let Some(fresh) = self.state.lock().fresh.get_mut(&ino) {
            fresh.names.push(dir);
        }
    }

    /// Whether it is, or may be, on the disk with its links.
    pub fn is_known(&self, ino: u32) -> bool {
        self.state.lock().fresh.get(&ino).is_none_or(|fresh| fresh.written)
    }

    /// It has lost a name in this directory.
    pub fn unnamed(&self, ino: u32, dir: u32) {
        let mut state = self.state.lock();
        let state = &mut *state;
        if let Some(fresh) = state.fresh.get_mut(&ino) {
            if let Some(at) = fresh.names.iter().position(|name| *name == dir) {
                fresh.names.swap_remove(at);
            }
            if !fresh.written {
                return;
            }
        }
        let level = state.going.get(&ino).map_or(0, |going| going.level);
        let left = state.left.entry(dir).or_default();
        *left = (*left).max(level + 1);
    }

    /// Whether names have gone out of the directory that the disk still has there.
    pub fn was_left(&self, dir: u32) -> bool {
        self.state.lock().left.contains_key(&dir)
    }

    /// A directory that [`Order::was_left`] goes; `raw` is what it was.
    pub fn go(&self, dir: u32, raw: Box<[u8]>) {
        let mut state = self.state.lock();
        if let Some(level) = state.left.remove(&dir) {
            state.going.insert(dir, Going { level, raw });
        }
    }

    /// The directory has one more block, and says so.
    pub fn grown(&self, dir: u32) {
        self.state.lock().grown.insert(dir);
    }

    /// A name leads elsewhere. `kind`: in its entry.
    pub fn replaced(&self, ino: u32, kind: u8) {
        let mut state = self.state.lock();
        if state.fresh.get(&ino).is_none_or(|fresh| fresh.written) {
            state.replaced.insert(ino, kind);
        }
    }

    /// Changes with each write-back, and is not 0.
    pub fn period(&self) -> u32 {
        self.period.load(Ordering::Relaxed) | 1
    }

    /// A write-back copies: [`Order::removal`] is held. `together`: whether two inodes are in one block of the table.
    pub fn turns(&self, together: impl Fn(u32, u32) -> bool) -> Turns {
        self.period.fetch_add(2, Ordering::Relaxed);
        let mut state = self.state.lock();
        let state = &mut *state;
        state.left.clear();
        let replaced = core::mem::take(&mut state.replaced).into_iter().collect();
        let mut turns = Turns { replaced, ..Turns::default() };
        let levels = levels(&state.fresh, &core::mem::take(&mut state.grown), together);
        for (&ino, fresh) in &mut state.fresh {
            match levels.get(&ino) {
                Some(&level) => {
                    fresh.written = true;
                    turns.known.push(ino);
                    turns.levels = turns.levels.max(level);
                    if level > 0 {
                        turns.late.insert(ino, Late { level: Some(level), raw: None });
                    }
                }
                None => drop(turns.late.insert(ino, Late { level: None, raw: None })),
            }
        }
        let above = turns.levels;
        for (ino, going) in core::mem::take(&mut state.going) {
            turns.levels = turns.levels.max(above + going.level);
            let level = Some(above + going.level);
            turns.late.insert(ino, Late { level, raw: Some(going.raw) });
        }
        turns
    }

    /// All of it is on the disk.
    pub fn written(&self, turns: &Turns) {
        let mut state = self.state.lock();
        for ino in &turns.known {
            if state.fresh.get(ino).is_some_and(|fresh| fresh.written) {
                state.fresh.remove(ino);
            }
        }
    }
}

/// Of the new inodes that have a way from the root by names. Any one of their names will do.
fn levels(
    fresh: &BTreeMap<u32, Fresh>,
    grown: &BTreeSet<u32>,
    together: impl Fn(u32, u32) -> bool,
) -> BTreeMap<u32, u32> {
    let mut levels = BTreeMap::new();
    let mut below: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let mut next = VecDeque::new();
    for (&ino, what) in fresh {
        let known = what.names.iter().filter(|dir| !fresh.contains_key(dir));
        if let Some(level) = known.map(|dir| u32::from(grown.contains(dir))).min() {
            levels.insert(ino, level);
            if level == 0 { next.push_front(ino) } else { next.push_back(ino) }
        } else {
            what.names.iter().for_each(|&dir| below.entry(dir).or_default().push(ino));
        }
    }
    while let Some(dir) = next.pop_front() {
        let level = levels.get(&dir).copied().unwrap_or(0);
        for ino in below.remove(&dir).unwrap_or_default() {
            levels.entry(ino).or_insert_with(|| {
                next.push_back(ino);
                level + u32::from(!together(dir, ino))
            });
        }
    }
    levels
}
