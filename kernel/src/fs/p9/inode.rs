//! [`P9Inode`]: an object of the server's tree, what is known of it, and its open files.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;

use smallvec::SmallVec;

use super::P9Fs;
use super::client::{Client, Fid};
use super::wire::{Qid, Valid};
use crate::errno::{Errno, Result};
use crate::exec::{Instant, Mutex};
use crate::fs::InodeState;
use crate::fs::inode::{FileType, Metadata, SetAttr};
use crate::mm::{PageCache, PageIo};
use crate::sync::SpinLock;

/// What was asked for just now need not be asked for again: a walk asks for attributes, and stat(2) comes right after.
const FRESH: Duration = Duration::from_millis(1);

const O_RDONLY: u32 = 0;
const O_WRONLY: u32 = 1;
const O_RDWR: u32 = 2;

/// What all inodes of a mount share.
pub struct Session {
    pub client: Arc<Client>,
    table: SpinLock<BTreeMap<Key, Weak<P9Inode>>>,
    pub mounted: SpinLock<Weak<P9Fs>>,
    pub read_only: AtomicBool,
    /// The server has not refused so far to give files away.
    pub gives_away: AtomicBool,
    next_id: AtomicU64,
    /// Counts changes from here, so that an answer from before one of them is not believed.
    changes: AtomicU64,
}

/// Type and path of a qid: what tells files apart.
type Key = (u8, u64);

/// The name that leads to a directory.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    /// [`P9Inode::id`] of the directory that it is in.
    pub dir: u64,
    pub name: Vec<u8>,
}

/// A file that was opened at the server.
pub struct Open {
    pub fid: Arc<Fid>,
    /// How much may be read or written at once.
    pub unit: usize,
    readable: bool,
}

struct State {
    meta: Metadata,
    /// The attributes need not be asked for before.
    fresh_until: Option<Instant>,
    /// The number of the last change from here.
    changed: u64,
    reader: Option<Arc<Open>>,
    writer: Option<Arc<Open>>,
}

pub struct P9Inode {
    pub session: Arc<Session>,
    pub(super) me: Weak<P9Inode>,
    /// Never used twice, unlike the numbers of the server.
    pub id: u64,
    key: Key,
    pub kind: FileType,
    /// Where it was found last: names may change without our knowing.
    fid: SpinLock<Arc<Fid>>,
    /// Directories: the one name that leads here. A directory that is found under another is another inode, so that each has
    /// one parent, and walks upwards have an end.
    place: SpinLock<Option<Place>>,
    state: SpinLock<State>,
    opening: Mutex<()>,
    pub cache: Option<Arc<PageCache>>,
    pub vfs: InodeState,
}

impl Session {
    pub fn new(client: Arc<Client>) -> Arc<Session> {
        Arc::new(Session {
            client,
            table: SpinLock::new(BTreeMap::new()),
            mounted: SpinLock::new(Weak::new()),
            read_only: AtomicBool::new(false),
            gives_away: AtomicBool::new(true),
            next_id: AtomicU64::new(1),
            changes: AtomicU64::new(0),
        })
    }

    /// The inode behind a fid that was just walked to.
    pub async fn inode(self: &Arc<Self>, fid: Arc<Fid>, place: Option<Place>) -> Result<Arc<P9Inode>> {
        let asked = self.changes.load(Ordering::Relaxed);
        let (qid, meta) = fid.getattr().await?;
        let (inode, known) = self.find_or_make(qid, meta, &fid, place);
        if known {
            inode.learn(meta, asked).await;
        }
        Ok(inode)
    }

    /// And whether the inode was known.
    fn find_or_make(
        self: &Arc<Self>,
        qid: Qid,
        meta: Metadata,
        fid: &Arc<Fid>,
        place: Option<Place>,
    ) -> (Arc<P9Inode>, bool) {
        let key = (qid.kind, qid.path);
        let place = place.filter(|_| meta.kind == FileType::Directory);
        let mut table = self.table.lock();
        // Dropped after the table's lock: the last reference to an inode would want it.
        let known = table.get(&key).and_then(Weak::upgrade);
        if let Some(known) = known.as_ref().filter(|known| known.kind == meta.kind && *known.place.lock() == place) {
            let old = core::mem::replace(&mut *known.fid.lock(), fid.clone());
            drop(table);
            drop(old);
            return (known.clone(), true);
        }
        let inode = P9Inode::new(self, key, meta, fid.clone(), place);
        table.insert(key, Arc::downgrade(&inode));
        drop(table);
        (inode, false)
    }
}

impl P9Inode {
    fn new(session: &Arc<Session>, key: Key, meta: Metadata, fid: Arc<Fid>, place: Option<Place>) -> Arc<P9Inode> {
        Arc::new_cyclic(|me: &Weak<P9Inode>| P9Inode {
            session: session.clone(),
            me: me.clone(),
            id: session.next_id.fetch_add(1, Ordering::Relaxed),
            key,
            kind: meta.kind,
            fid: SpinLock::new(fid),
            place: SpinLock::new(place),
            state: SpinLock::new(State { meta, fresh_until: soon(), changed: 0, reader: None, writer: None }),
            opening: Mutex::new(()),
            cache: (meta.kind == FileType::Regular).then(|| PageCache::of_shared_file(me.clone() as Weak<dyn PageIo>)),
            vfs: InodeState::shared(),
        })
    }

    /// The fid by which it was found last.
    pub fn fid(&self) -> Arc<Fid> {
        self.fid.lock().clone()
    }

    /// The fids that may lead to it: the name may be gone while the file is open.
    fn fids(&self) -> SmallVec<[Arc<Fid>; 3]> {
        let mut fids = SmallVec::new();
        fids.push(self.fid());
        let state = self.state.lock();
        fids.extend([&state.writer, &state.reader].into_iter().flatten().map(|open| open.fid.clone()));
        fids
    }

    pub fn metadata(&self) -> Metadata {
        self.state.lock().meta
    }

    pub fn size(&self) -> u64 {
        self.state.lock().meta.size
    }

    /// Something is being changed from here: what was asked for before does not count any more.
    pub fn change<R>(&self, change: impl FnOnce(&mut Metadata) -> R) -> R {
        let mut state = self.state.lock();
        state.changed = self.session.changes.fetch_add(1, Ordering::Relaxed) + 1;
        state.fresh_until = None;
        change(&mut state.meta)
    }

    /// The attributes were asked for just now.
    pub fn is_fresh(&self) -> bool {
        self.state.lock().fresh_until.is_some_and(|until| Instant::now() < until)
    }

    /// Asks the server for attributes. What has lost its name on the server keeps what is known of it.
    pub async fn ask(&self) -> Result<()> {
        let asked = self.session.changes.load(Ordering::Relaxed);
        for fid in self.fids() {
            match fid.getattr().await {
                Ok((qid, meta)) if (qid.kind, qid.path) == self.key && meta.kind == self.kind => {
                    self.learn(meta, asked).await;
                    return Ok(());
                }
                Ok(_) | Err(Errno::ENOENT | Errno::ESTALE) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Takes attributes over that were asked for after change number `asked`; pages of a file that has changed are dropped.
    async fn learn(&self, meta: Metadata, asked: u64) {
        let differs = {
            let mut state = self.state.lock();
            if state.changed > asked {
                return;
            }
            let old = core::mem::replace(&mut state.meta, meta);
            state.fresh_until = soon();
            (old.size, old.mtime) != (meta.size, meta.mtime)
        };
        if differs {
            self.drop_pages(0..u64::MAX).await;
        }
    }

    /// tsetattr; size and the times of a truncation are the server's.
    pub async fn set_attr(&self, attr: SetAttr) -> Result<()> {
        let mut valid = Valid::empty();
        valid.set(Valid::MODE, attr.perm.is_some());
        valid.set(Valid::UID, attr.uid.is_some());
        valid.set(Valid::GID, attr.gid.is_some());
        valid.set(Valid::SIZE, attr.size.is_some());
        valid.set(Valid::ATIME | Valid::ATIME_SET, attr.atime.is_some());
        valid.set(Valid::MTIME, attr.mtime.is_some());
        valid.set(Valid::MTIME_SET, attr.mtime.is_some() && attr.size.is_none());
        valid.set(Valid::CTIME, attr.ctime.is_some());
        if valid.is_empty() {
            return Ok(());
        }
        if let Some(cache) = self.cache.as_ref().filter(|_| attr.size.is_some()) {
            // What comes to the server later would make the file as long as it was; what cannot be stored is told by fsync(2).
            let _ = cache.write_back(0..u64::MAX).await;
        }
        let mut result = Err(Errno::ENOENT);
        self.change(|_| ());
        for fid in self.fids() {
            result = fid.setattr(valid, &attr).await;
            if !matches!(result, Err(Errno::ENOENT | Errno::ESTALE)) {
                break;
            }
        }
        result?;
        self.change(|meta| {
            meta.perm = attr.perm.unwrap_or(meta.perm);
            meta.uid = attr.uid.unwrap_or(meta.uid);
            meta.gid = attr.gid.unwrap_or(meta.gid);
            meta.size = attr.size.unwrap_or(meta.size);
            meta.atime = attr.atime.unwrap_or(meta.atime);
            meta.mtime = attr.mtime.unwrap_or(meta.mtime);
        });
        if let (Some(size), Some(cache)) = (attr.size, &self.cache)
            && cache.page_count() > 0
        {
            cache.truncate(size).await;
        }
        Ok(())
    }

    /// A name of it was taken away: by unlink, or by a rename over it. Its number may be another file's soon.
    pub fn lost_name(&self) {
        let gone = self.change(|meta| {
            meta.nlink = if self.kind == FileType::Directory { 0 } else { meta.nlink.saturating_sub(1) };
            meta.nlink == 0
        });
        if gone {
            self.leave_table();
        }
    }

    /// It has got another name, and keeps it as its only one if it is a directory.
    pub fn moved_to(&self, dir: &P9Inode, name: &[u8]) {
        self.change(|_| ());
        if self.kind == FileType::Directory {
            *self.place.lock() = Some(Place { dir: dir.id, name: name.to_vec() });
        }
    }

    fn leave_table(&self) {
        let mut table = self.session.table.lock();
        if table.get(&self.key).is_some_and(|there| there.ptr_eq(&self.me)) {
            table.remove(&self.key);
        }
    }

    /// The file open for reading or for writing, if it is.
    fn open_for(&self, write: bool) -> Option<Arc<Open>> {
        let state = self.state.lock();
        let writer = state.writer.as_ref().filter(|writer| write || writer.readable);
        if write { writer.cloned() } else { state.reader.as_ref().or(writer).cloned() }
    }

    pub fn is_open_for(&self, write: bool) -> bool {
        self.open_for(write).is_some()
    }

    /// The open file, which is opened if it is not yet. It stays open until the last user of the inode is gone.
    pub async fn opened(&self, write: bool) -> Result<Arc<Open>> {
        if let Some(open) = self.open_for(write) {
            return Ok(open);
        }
        let _one = self.opening.lock().await;
        if let Some(open) = self.open_for(write) {
            return Ok(open);
        }
        let fid = self.fid().walk(None).await?;
        let (unit, readable) = if !write {
            (fid.lopen(O_RDONLY).await?, true)
        } else {
            match fid.lopen(O_RDWR).await {
                Ok(unit) => (unit, true),
                Err(Errno::EACCES | Errno::EPERM) => (fid.lopen(O_WRONLY).await?, false),
                Err(errno) => return Err(errno),
            }
        };
        Ok(self.keep_open(fid, unit, write, readable))
    }

    pub fn keep_open(&self, fid: Arc<Fid>, unit: u32, write: bool, readable: bool) -> Arc<Open> {
        let max = self.session.client.io_max();
        let unit = if unit == 0 { max } else { max.min(unit as usize) };
        let open = Arc::new(Open { fid, unit, readable });
        let mut state = self.state.lock();
        let slot = if write { &mut state.writer } else { &mut state.reader };
        let old = slot.replace(open.clone());
        drop(state);
        drop(old);
        open
    }

    /// Is this the qid of the same file?
    pub fn is(&self, qid: Qid) -> bool {
        (qid.kind, qid.path) == self.key
    }
}

impl Drop for P9Inode {
    fn drop(&mut self) {
        self.leave_table();
    }
}

fn soon() -> Option<Instant> {
    Instant::now().checked_add(FRESH)
}
