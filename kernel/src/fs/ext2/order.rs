//! In which order names and inodes get on the disk, so that whenever power goes e2fsck has nothing to ask. It mends names
//! that lead to no inode, inodes without links, and wrong counts by itself; but an inode that has links and no name is a
//! question. So, with a flush after each:
//!
//! 1. directories, with the names that have come and still those that have gone (`Buffer::modify_later`);
//! 2. inodes: new ones, which have names by now, and those that have lost their links;
//! 3. directories without the names that have gone.
//!
//! What is in a new directory is found if that directory is, so new inodes have levels, each written after the one above; and
//! a directory that goes is written after those that went out of it. What is in one sector with the one above it
//! needs no wait. A name that is made to lead elsewhere is one that has come and one that has gone: what it led to has a
//! name in lost+found from before step 1 till after step 2.
//!
//! Names are exact in what is copied for a write-back because those that go do so together with the link
//! ([`Order::removal`]).

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use smallvec::SmallVec;

use crate::exec::{self, RwLock};
use crate::sync::SpinLock;

/// How many inodes and names are looked at before others get the lock.
const TURN: usize = 256;
/// Levels, each of which takes a flush, at which those who make more have to wait for write-back.
const LEVELS: u32 = 64;
/// The same for inodes that want a name in lost+found.
const REPLACED: usize = 512;

/// An inode with links that the disk does not know so far.
struct Fresh {
    /// Those that came later have greater ones.
    number: u64,
    /// The directories that it has names in, and how many.
    names: SmallVec<[(u32, u32); 1]>,
    /// At most so many new directories are above it.
    depth: u32,
    /// A write-back that has begun makes it known.
    written: bool,
    /// It has no links after all, but had some when the write-back copied it.
    gone: bool,
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
    /// How many there have been.
    count: u64,
    /// A write-back copies.
    busy: bool,
    /// Directories that names went out of since the last write-back: the level of what they led to, plus one.
    left: BTreeMap<u32, u32>,
    going: BTreeMap<u32, Going>,
    /// Directories with blocks that the disk does not know to be theirs.
    grown: BTreeSet<u32>,
    /// Inodes whose names lead elsewhere now, and what their type is in an entry.
    replaced: BTreeMap<u32, u8>,
}

impl State {
    fn lose(&mut self, ino: u32) {
        match self.fresh.get_mut(&ino) {
            Some(fresh) if self.busy => fresh.gone = true,
            _ => drop(self.fresh.remove(&ino)),
        }
    }
}

#[derive(Default)]
pub struct Order {
    /// Held shared while a name goes until its inode has lost the link too, and exclusively while write-back copies. Whoever holds it
    /// allocates nothing and waits for no map: that may be waiting for a write-back.
    pub removal: RwLock<()>,
    state: SpinLock<State>,
    period: AtomicU32,
    /// A write-back would have much to do.
    pressing: AtomicBool,
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
    /// New inodes that the disk knows when the write-back has ended, and their levels.
    known: BTreeMap<u32, u32>,
    pub late: BTreeMap<u32, Late>,
    /// The last level.
    pub levels: u32,
    /// What lost+found has to have names for, and the type in an entry.
    pub replaced: BTreeMap<u32, u8>,
    /// Directories with blocks that the disk does not know to be theirs.
    pub grown: BTreeSet<u32>,
}

/// A new inode with a name.
type Named = BTreeMap<u32, SmallVec<[Parent; 1]>>;

struct Parent {
    dir: u32,
    fresh: bool,
    grown: bool,
}

impl Order {
    /// The inode is about to have a link, and has no name yet.
    pub fn begin(&self, ino: u32) {
        let mut state = self.state.lock();
        state.count += 1;
        let number = state.count;
        state.fresh.insert(ino, Fresh { number, names: SmallVec::new(), depth: 0, written: false, gone: false });
    }

    /// It is free.
    pub fn forget(&self, ino: u32) {
        self.state.lock().lose(ino);
    }

    /// It has no link any more.
    pub fn unlinked(&self, ino: u32) {
        let mut state = self.state.lock();
        if state.fresh.get(&ino).is_some_and(|fresh| !fresh.written) {
            state.lose(ino);
        }
    }

    /// It has a name in this directory.
    pub fn named(&self, ino: u32, dir: u32) {
        let mut state = self.state.lock();
        let above = state.fresh.get(&dir).map_or(0, |dir| dir.depth);
        if let Some(fresh) = state.fresh.get_mut(&ino) {
            fresh.depth = above + 1;
            if above > LEVELS {
                self.pressing.store(true, Ordering::Relaxed);
            }
            match fresh.names.iter_mut().find(|(at, _)| *at == dir) {
                Some((_, count)) => *count += 1,
                None => fresh.names.push((dir, 1)),
            }
        }
    }

    /// Whoever makes changes should let a write-back be done first.
    pub fn is_pressing(&self) -> bool {
        self.pressing.load(Ordering::Relaxed)
    }

    /// Whether it is, or may be, on the disk with its links.
    pub fn is_known(&self, ino: u32) -> bool {
        self.state.lock().fresh.get(&ino).is_none_or(|fresh| fresh.written)
    }

    /// It has lost a name in this directory. `together`: whether it loses its last link in the sector of the table in which the
    /// directory is. For whoever holds [`Order::removal`].
    pub fn unnamed(&self, ino: u32, dir: u32, together: impl FnOnce() -> bool) {
        if !self.lose_name(ino, dir) {
            return;
        }
        // Not under the lock.
        let together = together();
        let mut state = self.state.lock();
        let level = state.going.get(&ino).map_or(0, |going| going.level) + u32::from(!together);
        if level == 0 {
            return;
        }
        if level > LEVELS {
            self.pressing.store(true, Ordering::Relaxed);
        }
        let left = state.left.entry(dir).or_default();
        *left = (*left).max(level);
    }

    /// Answers whether the disk knows the inode.
    fn lose_name(&self, ino: u32, dir: u32) -> bool {
        let mut state = self.state.lock();
        let Some(fresh) = state.fresh.get_mut(&ino) else { return true };
        if let Some(at) = fresh.names.iter().position(|name| name.0 == dir) {
            fresh.names[at].1 -= 1;
            if fresh.names[at].1 == 0 {
                fresh.names.swap_remove(at);
            }
        }
        fresh.written
    }

    /// Whether names have gone out of the directory that the disk still has there.
    pub fn was_left(&self, dir: u32) -> bool {
        self.state.lock().left.contains_key(&dir)
    }

    /// A directory that [`Order::was_left`] goes, and is to lose its name after that; `raw` is what it was.
    pub fn go(&self, dir: u32, raw: Box<[u8]>) {
        let mut state = self.state.lock();
        if let Some(level) = state.left.remove(&dir) {
            state.going.insert(dir, Going { level, raw });
        }
    }

    /// It has not gone after all.
    pub fn stay(&self, dir: u32) {
        let mut state = self.state.lock();
        if let Some(going) = state.going.remove(&dir) {
            let left = state.left.entry(dir).or_default();
            *left = (*left).max(going.level);
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
            if state.replaced.len() >= REPLACED {
                self.pressing.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Changes when a write-back has copied everything, and is not 0.
    pub fn period(&self) -> u32 {
        self.period.load(Ordering::Relaxed) | 1
    }

    /// A write-back begins to copy: [`Order::removal`] is held. What is named by now is going to be written. `together`: whether
    /// two inodes are in one sector of the table.
    pub async fn begin_turns(&self, together: impl Fn(u32, u32) -> bool) -> Turns {
        self.pressing.store(false, Ordering::Relaxed);
        let (last, grown, going, replaced) = {
            let mut state = self.state.lock();
            state.busy = true;
            let left = core::mem::take(&mut state.left);
            let taken = (
                state.count,
                core::mem::take(&mut state.grown),
                core::mem::take(&mut state.going),
                core::mem::take(&mut state.replaced),
            );
            // Not under the lock.
            drop(state);
            drop(left);
            taken
        };
        let mut turns = Turns { replaced, ..Turns::default() };
        turns.known = levels(self.named_until(last, &grown).await, together).await;
        turns.grown = grown;
        for (&ino, &level) in turns.known.iter().filter(|(_, level)| **level > 0) {
            turns.levels = turns.levels.max(level);
            turns.late.insert(ino, Late { level: Some(level), raw: None });
        }
        let above = turns.levels;
        for (ino, going) in going {
            let level = above + going.level;
            turns.levels = turns.levels.max(level);
            turns.late.insert(ino, Late { level: Some(level), raw: Some(going.raw) });
        }
        turns
    }

    /// Everything has been copied: names that have gone are not kept for this write-back any more.
    pub fn end_period(&self) {
        self.period.fetch_add(2, Ordering::Relaxed);
    }

    /// The new inodes up to this number that have names, where their parents are such or known.
    async fn named_until(&self, last: u64, grown: &BTreeSet<u32>) -> Named {
        let mut named = Named::new();
        let mut from = 0;
        loop {
            {
                let mut state = self.state.lock();
                let mut names = 0;
                let few = |(_, fresh): &(&u32, &Fresh)| {
                    let begun = names < TURN;
                    names += 1 + fresh.names.len();
                    begun
                };
                let turn: Vec<u32> = state.fresh.range(from..).take_while(few).map(|(&ino, _)| ino).collect();
                let Some(&end) = turn.last() else { return named };
                from = end + 1;
                for ino in turn {
                    let Some(fresh) = state.fresh.get(&ino).filter(|fresh| fresh.number <= last && !fresh.gone) else {
                        continue;
                    };
                    let parents = fresh.names.iter().filter_map(|&(dir, _)| {
                        let parent = state.fresh.get(&dir);
                        let fresh = parent.is_some();
                        parent.is_none_or(|parent| parent.number <= last).then(|| {
                            // It may have grown a moment ago, and got the name then.
                            let grown = grown.contains(&dir) || state.grown.contains(&dir);
                            Parent { dir, fresh, grown }
                        })
                    });
                    let parents: SmallVec<[Parent; 1]> = parents.collect();
                    if !parents.is_empty() {
                        named.insert(ino, parents);
                        if let Some(fresh) = state.fresh.get_mut(&ino) {
                            fresh.written = true;
                        }
                    }
                }
            }
            exec::budget().await;
        }
    }

    /// The inode table has been copied: those that are new and not in `turns` are for another write-back.
    pub async fn end_turns(&self, turns: &mut Turns) {
        let mut from = 0;
        loop {
            {
                let mut state = self.state.lock();
                let turn: Vec<(u32, bool)> =
                    state.fresh.range(from..).take(TURN).map(|(&ino, fresh)| (ino, fresh.gone)).collect();
                let Some(&(end, _)) = turn.last() else {
                    state.busy = false;
                    return;
                };
                from = end + 1;
                for (ino, gone) in turn {
                    if gone {
                        state.fresh.remove(&ino);
                    }
                    if !turns.known.contains_key(&ino) {
                        turns.late.insert(ino, Late { level: None, raw: None });
                    }
                }
            }
            exec::budget().await;
        }
    }

    /// All of it is on the disk.
    pub async fn written(&self, turns: &Turns) {
        for (count, ino) in turns.known.keys().enumerate() {
            {
                let mut state = self.state.lock();
                if state.fresh.get(ino).is_some_and(|fresh| fresh.written) {
                    state.fresh.remove(ino);
                }
            }
            if count % TURN == 0 {
                exec::budget().await;
            }
        }
    }
}

/// Of the new inodes that have a way from the root by names. Any one of their names will do.
async fn levels(named: Named, together: impl Fn(u32, u32) -> bool) -> BTreeMap<u32, u32> {
    let mut levels = BTreeMap::new();
    let mut below: BTreeMap<u32, Vec<(u32, bool)>> = BTreeMap::new();
    let mut next = BTreeSet::new();
    for (&ino, parents) in &named {
        let known = parents.iter().filter(|parent| !parent.fresh).map(|parent| u32::from(parent.grown));
        if let Some(level) = known.min() {
            next.insert((level, ino));
        }
        for parent in parents.iter().filter(|parent| parent.fresh) {
            below.entry(parent.dir).or_default().push((ino, parent.grown));
        }
        exec::budget().await;
    }
    while let Some((level, ino)) = next.pop_first() {
        if levels.contains_key(&ino) {
            continue;
        }
        levels.insert(ino, level);
        for (child, grown) in below.remove(&ino).unwrap_or_default() {
            next.insert((level + u32::from(grown || !together(ino, child)), child));
        }
        exec::budget().await;
    }
    levels
}
