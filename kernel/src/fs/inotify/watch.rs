//! Watches, and where an inode has its own.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use linux_raw_sys::general as raw;

use super::{ALL_EVENTS, Inotify};
use crate::fs::inode::Inode;
use crate::sync::SpinLock;

/// Watches that there are.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Does anybody watch anything?
#[inline]
pub fn any() -> bool {
    COUNT.load(Ordering::Relaxed) != 0
}

/// An inode that an instance watches.
pub struct Watch {
    wd: i32,
    instance: Weak<Inotify>,
    inode: Arc<dyn Inode>,
    /// Events, and IN_EXCL_UNLINK and IN_ONESHOT.
    mask: AtomicU32,
}

impl Watch {
    pub fn new(wd: i32, instance: Weak<Inotify>, inode: Arc<dyn Inode>, mask: u32) -> Arc<Watch> {
        Arc::new(Watch { wd, instance, inode, mask: AtomicU32::new(mask) })
    }

    pub fn wd(&self) -> i32 {
        self.wd
    }

    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.inode
    }

    pub fn mask(&self) -> u32 {
        self.mask.load(Ordering::Relaxed)
    }

    pub fn instance(&self) -> Option<Arc<Inotify>> {
        self.instance.upgrade()
    }

    /// Wants this from now on; with `add` besides what it wanted.
    pub fn change(&self, mask: u32, add: bool) {
        let old = if add { self.mask() } else { 0 };
        self.mask.store(old | mask, Ordering::Relaxed);
        Watches::of(&self.inode).with(|list| list.sum());
    }

    pub fn attach(self: &Arc<Self>) {
        Watches::of(&self.inode).with(|list| {
            list.watches.push(self.clone());
            list.sum();
        });
        COUNT.fetch_add(1, Ordering::Relaxed);
    }

    pub fn detach(self: &Arc<Self>) {
        let there = Watches::of(&self.inode).with(|list| {
            let at = list.watches.iter().position(|other| Arc::ptr_eq(other, self))?;
            let there = list.watches.swap_remove(at);
            list.sum();
            Some(there)
        });
        if there.is_some() {
            COUNT.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[derive(Default)]
pub struct List {
    watches: Vec<Arc<Watch>>,
    /// All that they want.
    wanted: u32,
}

impl List {
    fn sum(&mut self) {
        self.wanted = self.watches.iter().fold(0, |sum, watch| sum | watch.mask());
    }
}

/// The watches of files in file systems that make their inodes anew for each lookup (procfs): by the address of the file system
/// and the number of the inode.
static ELSEWHERE: SpinLock<BTreeMap<(usize, u64), List>> = SpinLock::new(BTreeMap::new());

/// Watches in there. Changed under its lock.
static ELSEWHERE_COUNT: AtomicUsize = AtomicUsize::new(0);

/// The watches of an inode.
pub enum Watches<'a> {
    Own(&'a Arc<dyn Inode>),
    Elsewhere((usize, u64)),
}

impl Watches<'_> {
    pub fn of(inode: &Arc<dyn Inode>) -> Watches<'_> {
        let fs = inode.fs();
        if fs.volatile_names() {
            Watches::Elsewhere((Arc::as_ptr(&fs).addr(), inode.metadata().ino))
        } else {
            Watches::Own(inode)
        }
    }

    fn with<R>(&self, f: impl FnOnce(&mut List) -> R) -> R {
        match self {
            Watches::Own(inode) => {
                let mut list = inode.state().watches().lock();
                let result = f(&mut list);
                inode.state().set_wanted(list.wanted);
                result
            }
            Watches::Elsewhere(key) => {
                let mut all = ELSEWHERE.lock();
                let list = all.entry(*key).or_default();
                let before = list.watches.len();
                let result = f(list);
                let after = list.watches.len();
                let count = ELSEWHERE_COUNT.load(Ordering::Relaxed);
                ELSEWHERE_COUNT.store(count + after - before, Ordering::Relaxed);
                if after == 0 {
                    all.remove(key);
                }
                result
            }
        }
    }

    /// May any watch of this inode want one of these events?
    pub fn may_want(inode: &Arc<dyn Inode>, events: u32) -> bool {
        inode.state().wanted() & events != 0 || ELSEWHERE_COUNT.load(Ordering::Relaxed) != 0
    }

    pub fn all(&self) -> Vec<Arc<Watch>> {
        match self {
            Watches::Own(inode) => {
                inode.state().watches_if_any().map_or_else(Vec::new, |list| list.lock().watches.clone())
            }
            Watches::Elsewhere(key) => ELSEWHERE.lock().get(key).map_or_else(Vec::new, |list| list.watches.clone()),
        }
    }

    /// The watch of this instance.
    pub fn find(&self, instance: &Weak<Inotify>) -> Option<Arc<Watch>> {
        self.with(|list| list.watches.iter().find(|watch| watch.instance.ptr_eq(instance)).cloned())
    }
}

impl Watch {
    /// Does it want one of these events? `unlinked`: about a file that has no name any more.
    pub fn wants(&self, events: u32, unlinked: bool) -> bool {
        let mask = self.mask();
        mask & events & ALL_EVENTS != 0 && !(unlinked && mask & raw::IN_EXCL_UNLINK != 0)
    }
}
