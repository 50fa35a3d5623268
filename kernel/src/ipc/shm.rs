//! System V shared memory: shmget(2), shmat(2), shmdt(2), shmctl(2).
//!
//! A [`Segment`] is a memory object like that of a shared anonymous mapping, with an id. It is attached by being mapped: the
//! mappings of its pages are the attaches, over fork, exec and exit, so there is nothing else to count. A segment that is
//! to be destroyed (IPC_RMID) has no key any more and goes with its last mapping; until then its id is good.
//!
//! Lock order: address space → segment. A segment's lock is held for plain stores only.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::ids::{self, Change, EXEC, Object, Perm, READ, Registry, WRITE};
use crate::errno::{Errno, Result};
use crate::mm::{self, BoxFuture, MapFlags, MmapRequest, PAGE_SIZE, PageCache, PageSource, Prot};
use crate::process::{self, Caps, Credentials, Pid, Resource, Thread};
use crate::sync::SpinLock;

/// /proc/sys/kernel/shmmax, shmall (pages), shmmni, shm_rmid_forced.
pub static MAX_SIZE: AtomicU64 = AtomicU64::new(DEFAULT_MAX);
pub static MAX_PAGES: AtomicU64 = AtomicU64::new(DEFAULT_MAX);
pub static MAX_SEGMENTS: AtomicUsize = AtomicUsize::new(4096);
static REMOVE_FORCED: AtomicBool = AtomicBool::new(false);

/// ULONG_MAX - (1 << 24), as Linux has it.
const DEFAULT_MAX: u64 = u64::MAX - (1 << 24);

/// Bits of the mode in what IPC_STAT tells.
const DEST: u32 = 0o1000;
const LOCKED: u32 = 0o2000;

pub const SHM_HUGETLB: u32 = 0o4000;
const SHM_NORESERVE: u32 = 0o10000;

static REGISTRY: Registry<Segment> = Registry::new();
/// Pages of all segments, present or not.
static PAGES: AtomicU64 = AtomicU64::new(0);

/// Threads and the segments that they have made. Not all of these need be there any more.
static MADE: SpinLock<BTreeSet<(Pid, i32)>> = SpinLock::new(BTreeSet::new());

/// A shared memory segment.
pub struct Segment {
    cache: Arc<PageCache>,
    size: u64,
    /// For the name, which stays what it was.
    key: i32,
    state: SpinLock<State>,
}

struct State {
    perm: Perm,
    /// IPC_RMID came: it is destroyed when nobody has it mapped.
    doomed: bool,
    /// No id any more.
    gone: bool,
    /// shmat calls on their way.
    attaching: u32,
    atime: i64,
    dtime: i64,
    ctime: i64,
    /// Who made it, and who attached or detached it last.
    cpid: Pid,
    lpid: Pid,
    /// The thread that made it, while it lives.
    maker: Pid,
    /// SHM_LOCK, and on whose account.
    locked: Option<u32>,
}

impl Object for Segment {
    fn with_perm<R>(&self, f: impl FnOnce(&mut Perm) -> R) -> R {
        f(&mut self.state.lock().perm)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        PAGES.fetch_sub(pages(self.size), Ordering::Relaxed);
    }
}

fn pages(size: u64) -> u64 {
    size.div_ceil(PAGE_SIZE as u64)
}

/// shmget(2).
pub fn get(t: &Thread, key: i32, size: u64, flags: u32) -> Result<i32> {
    let fits = |segment: &Segment| if segment.size < size { Err(Errno::EINVAL) } else { Ok(()) };
    let limit = MAX_SEGMENTS.load(Ordering::Relaxed);
    let id = REGISTRY.get_or_make(key, flags, limit, t.creds(), fits, || Segment::new(t, key, size, flags))?;
    if REGISTRY.get(id).is_ok_and(|segment| segment.state.lock().maker == t.tid()) {
        MADE.lock().insert((t.tid(), id));
    }
    Ok(id)
}

impl Segment {
    fn new(t: &Thread, key: i32, size: u64, flags: u32) -> Result<Segment> {
        if size == 0 || size > MAX_SIZE.load(Ordering::Relaxed) {
            return Err(Errno::EINVAL);
        }
        let count = pages(size);
        let most = MAX_PAGES.load(Ordering::Relaxed);
        let fits = |used: u64| used.checked_add(count).filter(|sum| *sum <= most);
        if fits(PAGES.load(Ordering::Relaxed)).is_none() {
            return Err(Errno::ENOSPC);
        }
        if flags & SHM_HUGETLB != 0 {
            // No huge pages are reserved.
            return Err(if t.creds().capable(Caps::IPC_LOCK) { Errno::ENOMEM } else { Errno::EPERM });
        }
        if size > i64::MAX as u64 {
            return Err(Errno::EINVAL);
        }
        if flags & SHM_NORESERVE == 0 && count > mm::frames::total_frames() as u64 {
            return Err(Errno::ENOMEM);
        }
        PAGES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|_| Errno::ENOSPC)?;
        let state = State {
            perm: Perm::new(key, flags, t.creds()),
            doomed: false,
            gone: false,
            attaching: 0,
            atime: 0,
            dtime: 0,
            ctime: ids::now(),
            cpid: t.process().pid,
            lpid: 0,
            maker: t.tid(),
            locked: None,
        };
        Ok(Segment { cache: PageCache::memory(), size, key, state: SpinLock::new(state) })
    }

    /// Takes its id away if nobody can reach it by a mapping, and it is to go then.
    fn destroy_if_unused(&self) {
        let mut state = self.state.lock();
        let wanted = state.doomed || REMOVE_FORCED.load(Ordering::Relaxed);
        if state.gone || !wanted || state.attaching > 0 || self.cache.map_count() > 0 {
            return;
        }
        state.gone = true;
        let (id, maker) = (state.perm.id, state.maker);
        drop(state);
        MADE.lock().remove(&(maker, id));
        REGISTRY.remove(id);
    }
}

/// What one shmat maps. Each has its own, so that shmdt finds all of its parts, and no others.
struct Attached {
    segment: Arc<Segment>,
    writable: bool,
}

impl PageSource for Attached {
    fn cache(&self) -> &Arc<PageCache> {
        &self.segment.cache
    }

    fn file_size(&self) -> u64 {
        pages(self.segment.size) * PAGE_SIZE as u64
    }

    fn name(&self) -> String {
        format!("/SYSV{:08x} (deleted)", self.segment.key)
    }

    fn dev_ino(&self) -> (u64, u64) {
        (1, self.segment.state.lock().perm.id as u64)
    }

    fn writable(&self) -> bool {
        self.writable
    }

    fn punch(&self, pages: Range<u64>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.segment.cache.punch(pages).await;
            Ok(())
        })
    }

    fn attached_size(&self) -> Option<u64> {
        Some(self.file_size())
    }

    fn unmapped(&self) {
        let pid = process::with_current(|task| task.map(|task| task.process().pid));
        let mut state = self.segment.state.lock();
        state.dtime = ids::now();
        state.lpid = pid.unwrap_or(state.lpid);
    }

    fn last_unmapped(&self) {
        self.segment.destroy_if_unused();
    }
}

bitflags::bitflags! {
    /// The flags of shmat(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct AttachFlags: u32 {
        const RDONLY = 0o10000;
        const RND = 0o20000;
        const REMAP = 0o40000;
        const EXEC = 0o100000;
    }
}

/// shmat(2): answers where it is mapped.
pub async fn attach(t: &Thread, id: i32, addr: u64, flags: AttachFlags) -> Result<u64> {
    let addr = attach_address(addr, flags)?;
    let writable = !flags.contains(AttachFlags::RDONLY);
    let mut prot = Prot::READ;
    let mut wanted = READ;
    if writable {
        prot |= Prot::WRITE;
        wanted |= WRITE;
    }
    if flags.contains(AttachFlags::EXEC) {
        prot |= Prot::EXEC;
        wanted |= EXEC;
    }
    let segment = REGISTRY.get(id)?;
    {
        let mut state = segment.state.lock();
        state.perm.check(t.creds(), wanted)?;
        if state.gone {
            return Err(Errno::EIDRM);
        }
        state.attaching += 1;
    }
    let attaching = Attaching(&segment);
    let mut map = MapFlags::SHARED;
    if addr != 0 {
        let replaces = flags.contains(AttachFlags::REMAP);
        map |= if replaces { MapFlags::FIXED } else { MapFlags::FIXED_NOREPLACE };
    }
    map.set(MapFlags::LOW, t.creds().capable(Caps::SYS_RAWIO));
    let source = Arc::new(Attached { segment: segment.clone(), writable });
    let request = MmapRequest { addr, len: segment.size, prot, flags: map, source: Some(source), offset: 0 };
    let at = t.mm().mmap(request).await.map_err(|errno| if errno == Errno::EEXIST { Errno::EINVAL } else { errno })?;
    {
        let mut state = segment.state.lock();
        state.atime = ids::now();
        state.lpid = t.process().pid;
    }
    drop(attaching);
    Ok(at)
}

fn attach_address(addr: u64, flags: AttachFlags) -> Result<u64> {
    let replaces = flags.contains(AttachFlags::REMAP);
    let rounded = match addr % PAGE_SIZE as u64 {
        0 => addr,
        rest if flags.contains(AttachFlags::RND) => addr - rest,
        _ => return Err(Errno::EINVAL),
    };
    if rounded == 0 && replaces { Err(Errno::EINVAL) } else { Ok(rounded) }
}

/// A shmat that has found its segment, which stays until it has been mapped.
struct Attaching<'a>(&'a Segment);

impl Drop for Attaching<'_> {
    fn drop(&mut self) {
        self.0.state.lock().attaching -= 1;
        self.0.destroy_if_unused();
    }
}

/// shmdt(2).
pub async fn detach(t: &Thread, addr: u64) -> Result<()> {
    if !addr.is_multiple_of(PAGE_SIZE as u64) {
        return Err(Errno::EINVAL);
    }
    t.mm().detach(addr).await
}

/// IPC_STAT.
pub struct Status {
    /// With SHM_DEST and SHM_LOCKED in the mode.
    pub perm: Perm,
    pub size: u64,
    pub atime: i64,
    pub dtime: i64,
    pub ctime: i64,
    pub cpid: Pid,
    pub lpid: Pid,
    pub attaches: u64,
    /// Pages in memory.
    pub resident: u64,
}

impl Segment {
    fn status(&self) -> Option<Status> {
        let state = self.state.lock();
        let mut perm = state.perm;
        if state.doomed {
            perm.key = ids::IPC_PRIVATE;
            perm.mode |= DEST;
        }
        perm.mode |= if state.locked.is_some() { LOCKED } else { 0 };
        let status = Status {
            perm,
            size: self.size,
            atime: state.atime,
            dtime: state.dtime,
            ctime: state.ctime,
            cpid: state.cpid,
            lpid: state.lpid,
            attaches: self.cache.map_count() as u64,
            resident: self.cache.page_count() as u64,
        };
        (!state.gone).then_some(status)
    }
}

/// All segments.
pub fn all() -> Vec<Status> {
    REGISTRY.all().iter().filter_map(|segment| segment.status()).collect()
}

/// IPC_STAT by id, SHM_STAT and SHM_STAT_ANY by place in the table. `creds`: whose right to read counts.
pub fn status(creds: Option<&Credentials>, id: i32, by_place: bool) -> Result<Status> {
    let segment = if by_place { REGISTRY.at(id)? } else { REGISTRY.get(id)? };
    let status = segment.status().ok_or(Errno::EIDRM)?;
    if let Some(creds) = creds {
        status.perm.check(creds, READ)?;
    }
    Ok(status)
}

/// IPC_INFO and SHM_INFO.
pub struct Info {
    pub used: usize,
    pub pages: u64,
    pub resident: u64,
    pub highest: usize,
}

pub fn info() -> Info {
    let resident = REGISTRY.all().iter().map(|segment| segment.cache.page_count() as u64).sum();
    Info { used: REGISTRY.used(), pages: PAGES.load(Ordering::Relaxed), resident, highest: REGISTRY.highest() }
}

/// IPC_SET.
pub fn set_owner(creds: &Credentials, id: i32, change: &Change) -> Result<()> {
    let segment = REGISTRY.get(id)?;
    let mut state = segment.state.lock();
    state.perm.check_owner(creds)?;
    if state.gone {
        return Err(Errno::EIDRM);
    }
    state.perm.set(change)?;
    state.ctime = ids::now();
    Ok(())
}

/// IPC_RMID: it goes when nobody has it attached.
pub fn remove(creds: &Credentials, id: i32) -> Result<()> {
    let segment = REGISTRY.get(id)?;
    let mut state = segment.state.lock();
    state.perm.check_owner(creds)?;
    if state.gone {
        return Err(Errno::EIDRM);
    }
    state.doomed = true;
    drop(state);
    REGISTRY.hide(id);
    segment.destroy_if_unused();
    Ok(())
}

/// SHM_LOCK and SHM_UNLOCK. Nothing is ever swapped out: what is left is that it counts against RLIMIT_MEMLOCK.
pub fn set_locked(t: &Thread, id: i32, lock: bool) -> Result<()> {
    let (segment, creds) = (REGISTRY.get(id)?, t.creds());
    let limit = t.rlimit(Resource::Memlock).soft;
    let limitless = creds.capable(Caps::IPC_LOCK);
    let used: u64 = if lock && !limitless { locked_by(creds.uid) } else { 0 };
    let mut state = segment.state.lock();
    if state.gone {
        return Err(Errno::EIDRM);
    }
    if !limitless {
        if creds.euid != state.perm.uid && creds.euid != state.perm.cuid || lock && limit == 0 {
            return Err(Errno::EPERM);
        }
        if lock && state.locked.is_none() && used.saturating_add(segment.size) > limit {
            return Err(Errno::ENOMEM);
        }
    }
    match lock {
        true => _ = state.locked.get_or_insert(creds.uid),
        false => state.locked = None,
    }
    Ok(())
}

fn locked_by(uid: u32) -> u64 {
    let locked = |segment: &&Arc<Segment>| segment.state.lock().locked == Some(uid);
    REGISTRY.all().iter().filter(locked).map(|segment| segment.size).sum()
}

/// /proc/sys/kernel/shm_rmid_forced.
pub fn is_remove_forced() -> bool {
    REMOVE_FORCED.load(Ordering::Relaxed)
}

/// Switched on, segments go that nobody has attached and whose maker has ended; from then on each with its last detach,
/// and those that nobody has attached with their maker.
pub fn force_remove(on: bool) {
    REMOVE_FORCED.store(on, Ordering::Relaxed);
    if on {
        for segment in REGISTRY.all() {
            if segment.state.lock().maker == 0 {
                segment.destroy_if_unused();
            }
        }
    }
}

/// A thread has ended: what it made is an orphan.
pub fn thread_exits(tid: Pid) {
    if PAGES.load(Ordering::Relaxed) == 0 {
        return;
    }
    let made: Vec<_> = MADE.lock().range((tid, 0)..=(tid, i32::MAX)).copied().collect();
    for entry in made {
        MADE.lock().remove(&entry);
        let Ok(segment) = REGISTRY.get(entry.1) else { continue };
        let mut state = segment.state.lock();
        if state.maker == tid {
            state.maker = 0;
            drop(state);
            segment.destroy_if_unused();
        }
    }
}
