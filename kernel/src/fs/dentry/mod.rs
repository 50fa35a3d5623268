//! Directory entries: the tree of names that paths are walked on, and its cache.
//!
//! A [`Dentry`] ties a name in a parent directory to an inode and holds both. The cache is a hash table from
//! (parent, name) to a dentry or to the knowledge that there is none. It holds its dentries; when it is full, a clock
//! hand takes out entries that nobody else holds and nobody looked up since the last round.
//!
//! Changes of names in one directory happen under the directory's async mutex (`InodeState::lock`), so does the lookup
//! of a name the cache does not know. Hits take one bucket spinlock. No lock is taken while a bucket is locked, and
//! dentries are dropped outside of it.

mod forget;
mod hash;
mod shrink;

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use smallvec::SmallVec;

pub use self::forget::forget_fs;
use self::hash::hash;
use self::shrink::note_insert;
pub use self::shrink::shrink;
use super::inode::{FileType, Inode};
use super::inotify::hooks;
use crate::errno::{Errno, Result};
use crate::sync::SpinLock;

/// Longest name, bytes.
pub const NAME_MAX: usize = 255;

pub type Name = SmallVec<[u8; 24]>;

struct Place {
    parent: Option<Arc<Dentry>>,
    name: Name,
}

pub struct Dentry {
    inode: Arc<dyn Inode>,
    kind: FileType,
    /// Others change the file system, too: the cache does not answer for this name, it only finds who uses it.
    shared: bool,
    /// See [`Inode::is_layered`].
    layered: bool,
    place: SpinLock<Place>,
    /// The name was removed.
    dead: AtomicBool,
    /// Mounts whose mount point this is; or [`DOOMED`].
    mounts: AtomicU32,
}

/// In place of the number of mounts: there are none, and there can be none from now on.
const DOOMED: u32 = 1 << 31;

/// The name of a dentry is being taken away, so nothing can be mounted on it. If it stays after all, that is over.
pub(super) struct Doomed<'a>(&'a Dentry);

impl<'a> Doomed<'a> {
    /// EBUSY for a mount point.
    pub fn new(dentry: &'a Dentry) -> Result<Doomed<'a>> {
        let doomed = dentry.mounts.compare_exchange(0, DOOMED, Ordering::AcqRel, Ordering::Acquire);
        doomed.map(|_| Doomed(dentry)).map_err(|_| Errno::EBUSY)
    }
}

impl Drop for Doomed<'_> {
    fn drop(&mut self) {
        if !self.0.is_dead() {
            self.0.mounts.store(0, Ordering::Release);
        }
    }
}

impl Dentry {
    /// The root of a file system, or a nameless object.
    pub fn new_root(inode: Arc<dyn Inode>) -> Arc<Dentry> {
        Dentry::new(None, &[], inode)
    }

    /// A dentry that is in no cache. `name` is what /proc/PID/fd shows for nameless objects.
    pub fn new(parent: Option<Arc<Dentry>>, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
        let kind = inode.kind();
        Arc::new(Dentry {
            kind,
            shared: inode.state().is_shared(),
            layered: kind == FileType::Regular && inode.is_layered(),
            inode,
            place: SpinLock::new(Place { parent, name: Name::from_slice(name) }),
            dead: AtomicBool::new(false),
            mounts: AtomicU32::new(0),
        })
    }

    pub fn inode(&self) -> &Arc<dyn Inode> {
        &self.inode
    }

    pub fn kind(&self) -> FileType {
        self.kind
    }

    /// See [`Inode::is_layered`].
    pub fn is_layered(&self) -> bool {
        self.layered
    }

    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// What it stands for may be changed elsewhere, see [`Inode::refresh`].
    pub fn is_shared(&self) -> bool {
        self.shared
    }

    pub fn parent(&self) -> Option<Arc<Dentry>> {
        self.place.lock().parent.clone()
    }

    pub fn name(&self) -> Name {
        self.place.lock().name.clone()
    }

    /// Name and parent of one moment.
    pub fn parent_and_name(&self) -> (Option<Arc<Dentry>>, Name) {
        let place = self.place.lock();
        (place.parent.clone(), place.name.clone())
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    pub(super) fn set_dead(&self) {
        self.dead.store(true, Ordering::Release);
    }

    pub(super) fn is_mount_point(&self) -> bool {
        self.mounts.load(Ordering::Acquire) & !DOOMED != 0
    }

    /// ENOENT if its name is being taken away, or was.
    pub(super) fn add_mount(&self) -> Result<()> {
        let count = |mounts: u32| (mounts & DOOMED == 0).then_some(mounts + 1);
        let counted = self.mounts.fetch_update(Ordering::AcqRel, Ordering::Acquire, count);
        counted.map(drop).map_err(|_| Errno::ENOENT)
    }

    pub(super) fn remove_mount(&self) {
        self.mounts.fetch_sub(1, Ordering::AcqRel);
    }

    /// Is `self` `other`, or above it?
    pub fn is_ancestor_of(self: &Arc<Self>, other: &Arc<Dentry>) -> bool {
        let mut at = Some(other.clone());
        while let Some(dentry) = at {
            if Arc::ptr_eq(self, &dentry) {
                return true;
            }
            at = dentry.parent();
        }
        false
    }
}

impl Drop for Dentry {
    /// Lets go of the chain of parents one by one: a deep tree must not become a deep recursion.
    fn drop(&mut self) {
        if !hooks::quiet() {
            hooks::dentry_gone(self);
        }
        let mut next = self.place.get_mut().parent.take();
        while let Some(mut dentry) = next.and_then(Arc::into_inner) {
            next = dentry.place.get_mut().parent.take();
        }
    }
}

const BUCKETS: usize = 2048;
/// Entries above which the clock hand moves.
const LIMIT: usize = 16384;

enum Target {
    Dentry(Arc<Dentry>),
    /// Keeps the parent's address from being used again, not the parent.
    Nothing(#[allow(dead_code)] Weak<Dentry>),
    /// To be asked for anew ([`Dentry::is_shared`]); if it still leads to the same inode, this is its dentry.
    Shared(Weak<Dentry>),
}

impl Target {
    fn of(dentry: &Arc<Dentry>) -> Target {
        if dentry.shared { Target::Shared(Arc::downgrade(dentry)) } else { Target::Dentry(dentry.clone()) }
    }

    /// Leads to what is gone.
    fn is_over(&self) -> bool {
        matches!(self, Target::Nothing(dentry) | Target::Shared(dentry) if dentry.strong_count() == 0)
    }
}

struct Entry {
    hash: u32,
    parent: *const Dentry,
    name: Name,
    target: Target,
    used: AtomicBool,
}

// SAFETY: `parent` is compared, never dereferenced.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

/// Unlike an empty `Vec` it is all zeros, so that the table takes nothing of the image.
type Bucket = SmallVec<[Entry; 0]>;

static CACHE: [SpinLock<Bucket>; BUCKETS] = [const { SpinLock::new(Bucket::new_const()) }; BUCKETS];
/// Entries are counted before they are there.
static COUNT: AtomicUsize = AtomicUsize::new(0);
static HAND: AtomicUsize = AtomicUsize::new(0);

/// What the cache knows of a name.
pub enum Cached {
    Found(Arc<Dentry>),
    /// There is no such name.
    Nothing,
    Unknown,
}

fn bucket(hash: u32) -> &'static SpinLock<Bucket> {
    &CACHE[hash as usize % BUCKETS]
}

fn position(entries: &[Entry], hash: u32, parent: *const Dentry, name: &[u8]) -> Option<usize> {
    entries.iter().position(|e| e.hash == hash && core::ptr::eq(e.parent, parent) && e.name[..] == *name)
}

/// Looks a name up in the cache.
pub fn cached(parent: &Arc<Dentry>, name: &[u8]) -> Cached {
    let parent = Arc::as_ptr(parent);
    let hash = hash(parent, name);
    let entries = bucket(hash).lock();
    let Some(entry) = position(&entries, hash, parent, name).and_then(|i| entries.get(i)) else {
        return Cached::Unknown;
    };
    if !entry.used.load(Ordering::Relaxed) {
        entry.used.store(true, Ordering::Relaxed);
    }
    match &entry.target {
        Target::Dentry(dentry) => Cached::Found(dentry.clone()),
        Target::Nothing(_) => Cached::Nothing,
        Target::Shared(_) => Cached::Unknown,
    }
}

/// Puts a name into the cache. If another dentry for it is there already, that one is the answer.
pub fn insert(parent: &Arc<Dentry>, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
    let dentry = Dentry::new(Some(parent.clone()), name, inode);
    insert_dentry(Arc::as_ptr(parent), name, dentry)
}

fn insert_dentry(parent: *const Dentry, name: &[u8], dentry: Arc<Dentry>) -> Arc<Dentry> {
    let hash = hash(parent, name);
    let mut entries = bucket(hash).lock();
    let at = position(&entries, hash, parent, name);
    let target = Target::of(&dentry);
    if let Some(entry) = at.and_then(|i| entries.get_mut(i)) {
        let there = match &entry.target {
            Target::Dentry(there) => Some(there.clone()),
            Target::Shared(there) => there.upgrade(),
            Target::Nothing(_) => None,
        };
        let same = |there: &Arc<Dentry>| !there.shared || Arc::ptr_eq(&there.inode, &dentry.inode);
        if let Some(there) = there.as_ref().filter(|there| same(there)).cloned() {
            drop(entries);
            return there;
        }
        let old = core::mem::replace(&mut entry.target, target);
        drop(entries);
        drop((old, there));
        return dentry;
    }
    add(&mut entries, Entry { hash, parent, name: Name::from_slice(name), target, used: AtomicBool::new(true) });
    drop(entries);
    note_insert();
    dentry
}

/// Notes that there is no such name.
pub fn insert_nothing(parent: &Arc<Dentry>, name: &[u8]) {
    if parent.shared {
        return;
    }
    let (address, target) = (Arc::as_ptr(parent), Target::Nothing(Arc::downgrade(parent)));
    let hash = hash(address, name);
    let mut entries = bucket(hash).lock();
    if position(&entries, hash, address, name).is_some() {
        return;
    }
    let name = Name::from_slice(name);
    add(&mut entries, Entry { hash, parent: address, name, target, used: AtomicBool::new(false) });
    drop(entries);
    note_insert();
}

/// Adds an entry to its bucket, and throws out what in the bucket leads to what is gone.
fn add(entries: &mut Bucket, entry: Entry) {
    let before = entries.len();
    entries.retain(|e| !e.target.is_over());
    COUNT.fetch_add(1usize.wrapping_sub(before - entries.len()), Ordering::Relaxed);
    entries.push(entry);
}

fn take(parent: *const Dentry, name: &[u8]) -> Option<Entry> {
    let hash = hash(parent, name);
    let mut entries = bucket(hash).lock();
    let at = position(&entries, hash, parent, name)?;
    COUNT.fetch_sub(1, Ordering::Relaxed);
    Some(entries.swap_remove(at))
}

/// Forgets what is known of a name.
pub(super) fn forget(parent: &Arc<Dentry>, name: &[u8]) {
    drop(take(Arc::as_ptr(parent), name));
}

/// Forgets a name in a directory that was changed by other ways than by walks (devtmpfs). Looks at the whole cache.
pub(super) fn forget_in(dir: &Arc<dyn Inode>, name: &[u8]) {
    // As while devices are found at boot.
    if COUNT.load(Ordering::Relaxed) == 0 {
        return;
    }
    let is_in = |parent: Option<Arc<Dentry>>| parent.is_some_and(|parent| Arc::ptr_eq(&parent.inode, dir));
    for bucket in &CACHE {
        let mut victims: SmallVec<[Entry; 2]> = SmallVec::new();
        let mut entries = bucket.lock();
        let mut i = 0;
        while let Some(entry) = entries.get(i) {
            let found = entry.name[..] == *name
                && match &entry.target {
                    Target::Dentry(dentry) => is_in(dentry.parent()),
                    Target::Nothing(parent) => is_in(parent.upgrade()),
                    Target::Shared(_) => false,
                };
            if found {
                victims.push(entries.swap_remove(i));
            } else {
                i += 1;
            }
        }
        drop(entries);
        if victims.is_empty() {
            continue;
        }
        COUNT.fetch_sub(victims.len(), Ordering::Relaxed);
        for entry in victims {
            if let Target::Dentry(dentry) = &entry.target {
                dentry.dead.store(true, Ordering::Release);
            }
        }
    }
}

/// The name is gone: from now on `dentry` is dead, and the cache knows that the name leads nowhere.
pub fn removed(dentry: &Arc<Dentry>) {
    dentry.dead.store(true, Ordering::Release);
    let (Some(parent), name) = dentry.parent_and_name() else { return };
    left(&parent, &name);
}

/// What had this name has it no more.
fn left(parent: &Arc<Dentry>, name: &[u8]) {
    if parent.shared || parent.inode.fs().volatile_names() {
        drop(take(Arc::as_ptr(parent), name));
    } else {
        replace(Arc::as_ptr(parent), name, Target::Nothing(Arc::downgrade(parent)));
    }
}

/// Puts a name into the cache, whatever it led to before.
fn replace(parent: *const Dentry, name: &[u8], target: Target) {
    let hash = hash(parent, name);
    let mut entries = bucket(hash).lock();
    let at = position(&entries, hash, parent, name);
    if let Some(entry) = at.and_then(|i| entries.get_mut(i)) {
        let old = core::mem::replace(&mut entry.target, target);
        drop(entries);
        drop(old);
        return;
    }
    add(&mut entries, Entry { hash, parent, name: Name::from_slice(name), target, used: AtomicBool::new(true) });
    drop(entries);
    note_insert();
}

/// `dentry` now has another name, whatever that led to before. Whoever looks the names up meanwhile finds it at one at least.
/// `another`: something else has got its old name.
pub fn moved(dentry: &Arc<Dentry>, old: (&Arc<Dentry>, &[u8]), new: (&Arc<Dentry>, &[u8]), another: bool) {
    set_place(dentry, new.0, new.1);
    replace(Arc::as_ptr(new.0), new.1, Target::of(dentry));
    if another {
        forget(old.0, old.1);
    } else {
        left(old.0, old.1);
    }
}

/// Two names trade places (RENAME_EXCHANGE).
pub fn exchanged(a: &Arc<Dentry>, b: &Arc<Dentry>) {
    let ((Some(a_parent), a_name), (Some(b_parent), b_name)) = (a.parent_and_name(), b.parent_and_name()) else {
        return;
    };
    set_place(a, &b_parent, &b_name);
    set_place(b, &a_parent, &a_name);
    replace(Arc::as_ptr(&b_parent), &b_name, Target::of(a));
    replace(Arc::as_ptr(&a_parent), &a_name, Target::of(b));
}

fn set_place(dentry: &Dentry, parent: &Arc<Dentry>, name: &[u8]) {
    let new = Place { parent: Some(parent.clone()), name: Name::from_slice(name) };
    let old = core::mem::replace(&mut *dentry.place.lock(), new);
    drop(old);
}

/// Puts a dentry of a file system without name caching into the cache, so that walks find the mount on it.
pub(super) fn pin(dentry: &Arc<Dentry>) {
    let (Some(parent), name) = dentry.parent_and_name() else { return };
    insert_dentry(Arc::as_ptr(&parent), &name, dentry.clone());
}

/// Undoes `pin`.
pub(super) fn unpin(dentry: &Arc<Dentry>) {
    let (Some(parent), name) = dentry.parent_and_name() else { return };
    drop(take(Arc::as_ptr(&parent), &name));
}

/// The dentry of a name of `inode` below `top`, if the cache has one.
pub async fn known_name(inode: &Arc<dyn Inode>, top: &Arc<Dentry>) -> Option<Arc<Dentry>> {
    let leads_to = |entry: &&Entry| matches!(&entry.target, Target::Dentry(d) if Arc::ptr_eq(&d.inode, inode));
    let dentry_of =
        |entry: &Entry| if let Target::Dentry(dentry) = &entry.target { Some(dentry.clone()) } else { None };
    for bucket in &CACHE {
        let found: Vec<Arc<Dentry>> = bucket.lock().iter().filter(leads_to).filter_map(dentry_of).collect();
        if let Some(dentry) = found.into_iter().find(|dentry| top.is_ancestor_of(dentry)) {
            return Some(dentry);
        }
        crate::exec::budget().await;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::inode::FileSystem;

    #[test]
    fn absent_names_of_removed_directories_are_forgotten() {
        let fs = crate::fs::tmpfs::TmpFs::new("tmpfs", b"none", Default::default());
        let root = Dentry::new_root(fs.root());
        for _ in 0..20 * BUCKETS {
            let dir = Dentry::new(Some(root.clone()), b"dir", fs.root());
            insert_nothing(&dir, b"file");
        }
        let is_stale = |e: &&Entry| matches!(&e.target, Target::Nothing(parent) if parent.strong_count() == 0);
        let stale: usize = CACHE.iter().map(|bucket| bucket.lock().iter().filter(is_stale).count()).sum();
        assert!(stale <= 2 * BUCKETS, "{stale}");
    }
}
