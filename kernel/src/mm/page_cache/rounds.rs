//! Storing what is dirty of all files: in time, when much of memory is dirty, when memory is short, and for sync(2).
//!
//! A flusher is a kernel task that holds nothing, so it may wait for any device. Whoever lacks memory may hold locks that
//! such a device needs, or be the one that carries its requests out: it asks the flushers, and waits for batches to be
//! stored, a limited time ([`store_until`]). Only sync(2) and its like, which hold nothing either, go through the list
//! themselves.
//!
//! Files whose device is itself a file (loop devices) have a list and a flusher of their own: to store them, pages of other
//! files may have to be made and stored. The others' flusher never waits for that.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use super::super::stats;
use super::{PageCache, PageIo};
use crate::errno::Result;
use crate::exec::{self, Instant, Mutex, MutexGuard, Notify, WaitQueue};
use crate::sync::SpinLock;

/// How long data stays in memory only: dirty_expire_centisecs of Linux's admin-guide/sysctl/vm.rst.
const AGE: Duration = Duration::from_secs(30);
/// How long somebody who lacks memory waits for pages to be stored. A disk that takes longer is as good as none.
const PATIENCE: Duration = Duration::from_secs(5);

/// A file with dirty pages; held, with the inode, until the pages are stored.
#[derive(Clone)]
pub(super) struct DirtyFile {
    cache: Arc<PageCache>,
    _io: Arc<dyn PageIo>,
    device: u64,
    since: Instant,
}

/// Files that are to be stored.
#[derive(Clone, Copy)]
enum Which {
    All,
    /// Those that were listed by then.
    Until(Instant),
    /// Those of one device.
    Of(u64),
}

/// Files that one flusher stores.
pub(super) struct Files {
    /// The oldest first.
    list: SpinLock<VecDeque<DirtyFile>>,
    /// One round at a time: who begins the next finds nothing still being stored by the last.
    round: Mutex<()>,
    /// There is a file.
    listed: Notify,
    /// They are to be stored at once.
    wanted: Notify,
}

static ON_FILES: Files = Files::new();
static ON_DISKS: Files = Files::new();

/// Batches that were stored, by whom ever, and those who wait for the next.
static STORED: AtomicU64 = AtomicU64::new(0);
static WAITING: WaitQueue = WaitQueue::new();

/// The first page of a file became dirty.
pub(super) fn list(cache: &PageCache) {
    if let (Some(cache), Some(io)) = (cache.this.upgrade(), cache.io()) {
        let files = if io.is_backed_by_file() { &ON_FILES } else { &ON_DISKS };
        files.push(DirtyFile::new(cache, io));
    }
}

/// Starts the kernel tasks that write dirty pages back. To be called once, at boot.
pub fn start_flushers() {
    exec::spawn("flush-loops", ON_FILES.flush());
    exec::spawn("flush", ON_DISKS.flush());
}

/// Lets the flushers begin now.
pub(super) fn begin() {
    ON_FILES.want();
    ON_DISKS.want();
}

/// A batch was stored, and its pages may be taken.
pub(super) fn batch_stored() {
    STORED.fetch_add(1, Ordering::Release);
    WAITING.wake_all();
}

/// Has dirty pages stored until `is_enough` after a batch, but not for long; whatever the caller holds. Answers whether it
/// was enough.
pub(super) async fn store_until(mut is_enough: impl AsyncFnMut() -> bool) -> bool {
    let deadline = Some(Instant::now().saturating_add(PATIENCE));
    loop {
        let before = STORED.load(Ordering::Acquire);
        if is_enough().await {
            return true;
        }
        if stats::DIRTY.sum() + stats::WRITEBACK.sum() == 0 {
            return false;
        }
        begin();
        let stored = WAITING.wait_for(|| (STORED.load(Ordering::Acquire) != before).then_some(()));
        if exec::timeout(deadline, stored).await.is_err() {
            return false;
        }
    }
}

/// Writes all dirty pages of all files and waits for it. Not for those who hold what a device may need.
pub async fn sync_all() -> Result<()> {
    sync(Which::All).await
}

/// The same of the files of one device ([`PageIo::device`]).
pub async fn sync_device(device: u64) -> Result<()> {
    sync(Which::Of(device)).await
}

async fn sync(which: Which) -> Result<()> {
    // The first makes work for the second.
    let upper = ON_FILES.store(which).await;
    ON_DISKS.store(which).await.and(upper)
}

impl DirtyFile {
    pub(super) fn new(cache: Arc<PageCache>, io: Arc<dyn PageIo>) -> DirtyFile {
        DirtyFile { cache, device: io.device(), _io: io, since: Instant::now() }
    }

    fn is_one(&self, which: Which) -> bool {
        match which {
            Which::All => true,
            Which::Until(limit) => self.since <= limit,
            Which::Of(device) => self.device == device,
        }
    }
}

impl Files {
    pub(super) const fn new() -> Self {
        Files {
            list: SpinLock::new(VecDeque::new()),
            round: Mutex::new(()),
            listed: Notify::new(),
            wanted: Notify::new(),
        }
    }

    pub(super) fn push(&self, file: DirtyFile) {
        self.list.lock().push_back(file);
        self.listed.notify();
    }

    /// Has all of them stored now.
    pub(super) fn want(&self) {
        self.wanted.notify();
    }

    /// The next one from `at` on, which is then where to look for another: within a round nobody else takes any.
    fn pop(&'static self, which: Which, at: &mut usize) -> Option<Turn> {
        let mut list = self.list.lock();
        *at = match which {
            // They are in order.
            Which::Until(_) => list.front().filter(|file| file.is_one(which)).map(|_| 0),
            _ => list.range(*at..).position(|file| file.is_one(which)).map(|ahead| *at + ahead),
        }?;
        let file = list.remove(*at)?;
        file.cache.listed.store(false, Ordering::Release);
        Some(Turn { file, files: self })
    }

    async fn store(&'static self, which: Which) -> Result<()> {
        let _round: MutexGuard<'_, ()> = self.round.lock().await;
        let mut result = Ok(());
        // Those that come while this goes on are for the next round.
        let turns = self.list.lock().len();
        let mut at = 0;
        for _ in 0..turns {
            let Some(turn) = self.pop(which, &mut at) else { break };
            result = turn.file.cache.write_back(0..u64::MAX).await.and(result);
        }
        result
    }

    /// It sleeps without a timer while nothing is dirty.
    pub(super) async fn flush(&'static self) {
        loop {
            let Some(oldest) = self.list.lock().front().map(|file| file.since) else {
                self.listed.wait().await;
                continue;
            };
            let wanted = exec::timeout(Some(oldest.saturating_add(AGE)), self.wanted.wait()).await.is_ok();
            let which = if wanted { Which::All } else { Which::Until(oldest) };
            if let Err(errno) = self.store(which).await {
                log::error!("write-back failed: {errno:?}");
            }
        }
    }
}

/// A file that is being stored. It goes back to the list if something of it is left, also when the call that stores it is
/// given up.
struct Turn {
    file: DirtyFile,
    files: &'static Files,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.file.cache.dirty_count() > 0 && !self.file.cache.listed.swap(true, Ordering::AcqRel) {
            self.files.push(DirtyFile { since: Instant::now(), ..self.file.clone() });
        }
    }
}
