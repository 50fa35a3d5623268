//! The table of file descriptors (CLONE_FILES shares it).

use alloc::sync::Arc;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use smallvec::SmallVec;

use super::open_file::OpenFile;
use crate::errno::{Errno, Result};
use crate::exec::budget;
use crate::sync::{Lazy, SpinGuard, SpinLock};

/// fs.nr_open of Linux: no table grows beyond it, whatever RLIMIT_NOFILE says.
pub const NR_OPEN: usize = 1024 * 1024;

#[derive(Clone)]
struct Slot {
    file: Arc<OpenFile>,
    cloexec: bool,
}

#[derive(Default)]
struct Table {
    slots: Vec<Option<Slot>>,
    /// One bit per used slot, to find the lowest free descriptor.
    used: Vec<u64>,
}

impl Table {
    fn first_free(&self, from: usize) -> usize {
        let mut word_at = from / 64;
        let mut mask = !0u64 << (from % 64);
        while let Some(word) = self.used.get(word_at) {
            let free = !word & mask;
            if free != 0 {
                return word_at * 64 + free.trailing_zeros() as usize;
            }
            word_at += 1;
            mask = !0;
        }
        from.max(word_at * 64)
    }

    fn first_used(&self, from: usize) -> usize {
        let mut word_at = from / 64;
        let mut mask = !0u64 << (from % 64);
        while let Some(word) = self.used.get(word_at) {
            let used = word & mask;
            if used != 0 {
                return word_at * 64 + used.trailing_zeros() as usize;
            }
            word_at += 1;
            mask = !0;
        }
        from.max(word_at * 64)
    }

    /// Puts `slot` at `fd`, growing the table; answers what was there.
    fn put(&mut self, fd: usize, slot: Slot) -> Result<Option<Slot>> {
        if fd >= self.slots.len() {
            let len = (fd + 1).next_multiple_of(64);
            self.slots.try_reserve(len - self.slots.len()).map_err(|_| Errno::ENOMEM)?;
            self.slots.resize(len, None);
            self.used.resize(len / 64, 0);
        }
        let (Some(place), Some(word)) = (self.slots.get_mut(fd), self.used.get_mut(fd / 64)) else {
            return Err(Errno::EBADF);
        };
        *word |= 1 << (fd % 64);
        Ok(place.replace(slot))
    }

    fn take(&mut self, fd: usize) -> Option<Slot> {
        let slot = self.slots.get_mut(fd)?.take();
        if let Some(word) = self.used.get_mut(fd / 64) {
            *word &= !(1 << (fd % 64));
        }
        slot
    }
}

pub struct FdTable {
    table: SpinLock<Table>,
    /// The soft limit of RLIMIT_NOFILE.
    limit: AtomicU64,
    /// The table as the owner of POSIX record locks.
    id: usize,
}

fn new_id() -> usize {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

/// See [`FdTable::look`].
pub struct Look<'a>(SpinGuard<'a, Table>);

impl Look<'_> {
    #[inline]
    fn slot(&self, fd: i32) -> Option<&Arc<OpenFile>> {
        self.0.slots.get(fd as u32 as usize)?.as_ref().map(|slot| &slot.file)
    }

    #[inline]
    pub fn file(&self, fd: i32) -> Option<&OpenFile> {
        self.slot(fd).map(|file| &**file)
    }
}

impl Default for FdTable {
    fn default() -> Self {
        FdTable { table: SpinLock::default(), limit: AtomicU64::new(1024), id: new_id() }
    }
}

impl FdTable {
    pub fn new() -> Self {
        Self::default()
    }

    /// The process's RLIMIT_NOFILE is now this (soft limit).
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed).min(NR_OPEN as u64)
    }

    /// Identifies the table as the owner of POSIX record locks.
    pub fn lock_owner(&self) -> usize {
        self.id
    }

    /// The file behind a descriptor; EBADF if there is none.
    #[inline]
    pub fn get(&self, fd: i32) -> Result<Arc<OpenFile>> {
        let table = self.table.lock();
        match table.slots.get(fd as u32 as usize) {
            Some(Some(slot)) => Ok(slot.file.clone()),
            _ => Err(Errno::EBADF),
        }
    }

    /// The same, but not for O_PATH descriptors (EBADF): what read, write, ioctl… want.
    #[inline]
    pub fn get_io(&self, fd: i32) -> Result<Arc<OpenFile>> {
        let file = self.get(fd)?;
        if file.is_path() { Err(Errno::EBADF) } else { Ok(file) }
    }

    /// Two files at once, as [`FdTable::get_io`] answers them.
    #[inline]
    pub fn get_two(&self, first: i32, second: i32) -> Result<[Arc<OpenFile>; 2]> {
        let look = self.look();
        let get = |fd| look.slot(fd).filter(|file| !file.is_path()).cloned().ok_or(Errno::EBADF);
        Ok([get(first)?, get(second)?])
    }

    /// Asks the file behind a descriptor; None if there is none.
    #[inline]
    pub fn with<R>(&self, fd: i32, ask: impl FnOnce(&OpenFile) -> Option<R>) -> Option<R> {
        self.get(fd).ok().and_then(|file| ask(&file))
    }

    /// Keeps the table as it is, to look at several of its files. What is done meanwhile must not touch any table.
    #[inline]
    pub fn look(&self) -> Look<'_> {
        Look(self.table.lock())
    }

    /// Gives `file` the lowest free descriptor not below `min`; EMFILE if the limit forbids it.
    pub fn install_from(&self, min: i32, file: Arc<OpenFile>, cloexec: bool) -> Result<i32> {
        let mut table = self.table.lock();
        let fd = table.first_free(min as u32 as usize);
        if fd as u64 >= self.limit() {
            return Err(Errno::EMFILE);
        }
        table.put(fd, Slot { file, cloexec })?;
        Ok(fd as i32)
    }

    pub fn install(&self, file: Arc<OpenFile>, cloexec: bool) -> Result<i32> {
        self.install_from(0, file, cloexec)
    }

    /// Would `install` find a descriptor?
    pub fn has_room(&self) -> bool {
        (self.table.lock().first_free(0) as u64) < self.limit()
    }

    /// Makes `fd` mean `file` and closes what it meant before (dup2, dup3), which is the answer.
    pub fn replace(&self, fd: i32, file: Arc<OpenFile>, cloexec: bool) -> Result<Option<Arc<OpenFile>>> {
        let fd = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        if fd as u64 >= self.limit() {
            return Err(Errno::EBADF);
        }
        let old = self.table.lock().put(fd, Slot { file, cloexec })?;
        if let Some(old) = &old {
            old.file.closed_by(self.id);
        }
        Ok(old.map(|old| old.file))
    }

    /// Takes the descriptor out without closing the file.
    pub fn remove(&self, fd: i32) -> Result<Arc<OpenFile>> {
        let slot = self.table.lock().take(fd as u32 as usize);
        slot.map(|slot| slot.file).ok_or(Errno::EBADF)
    }

    /// close(2), unless it may have to wait for the file ([`OpenFile::let_go`]).
    pub fn close_now(&self, fd: i32) -> Option<Result<()>> {
        let mut table = self.table.lock();
        let waits = matches!(table.slots.get(fd as u32 as usize), Some(Some(slot)) if slot.file.lingers());
        let slot = if waits { return None } else { table.take(fd as u32 as usize) };
        drop(table);
        Some(slot.ok_or(Errno::EBADF).map(|slot| slot.file.closed_by(self.id)))
    }

    /// Closes a descriptor, and waits for nothing.
    pub fn close(&self, fd: i32) -> Result<()> {
        self.remove(fd)?.closed_by(self.id);
        Ok(())
    }

    pub fn cloexec(&self, fd: i32) -> Result<bool> {
        match self.table.lock().slots.get(fd as u32 as usize) {
            Some(Some(slot)) => Ok(slot.cloexec),
            _ => Err(Errno::EBADF),
        }
    }

    pub fn set_cloexec(&self, fd: i32, cloexec: bool) -> Result<()> {
        match self.table.lock().slots.get_mut(fd as u32 as usize) {
            Some(Some(slot)) => slot.cloexec = cloexec,
            _ => return Err(Errno::EBADF),
        }
        Ok(())
    }

    /// A copy for a child process (clone without CLONE_FILES).
    pub fn fork(&self) -> Result<Self> {
        let mut copy = Table::default();
        loop {
            let table = self.table.lock();
            let words = table.used.iter().rposition(|word| *word != 0).map_or(0, |i| i + 1);
            if copy.slots.capacity() >= words * 64 && copy.used.capacity() >= words {
                copy.slots.extend(table.slots.iter().take(words * 64).cloned());
                copy.used.extend_from_slice(&table.used[..words]);
                break;
            }
            // Programs with leave to do so make it long.
            drop(table);
            copy.slots.try_reserve_exact(words * 64).map_err(|_| Errno::ENOMEM)?;
            copy.used.try_reserve_exact(words).map_err(|_| Errno::ENOMEM)?;
        }
        Ok(FdTable {
            table: SpinLock::new(copy),
            limit: AtomicU64::new(self.limit.load(Ordering::Relaxed)),
            id: new_id(),
        })
    }

    /// Takes out the next few open descriptors in `*fd..=last` that `pick` wants, and moves `fd` behind them.
    fn take_some(&self, fd: &mut usize, last: u32, pick: impl Fn(bool) -> bool) -> SmallVec<[Arc<OpenFile>; 8]> {
        let mut batch = SmallVec::new();
        let mut table = self.table.lock();
        let end = (last as usize).saturating_add(1).min(table.slots.len());
        while batch.len() < 8 {
            *fd = table.first_used(*fd);
            if *fd >= end {
                break;
            }
            if matches!(table.slots.get(*fd), Some(Some(slot)) if pick(slot.cloexec)) {
                batch.extend(table.take(*fd).map(|slot| slot.file));
            }
            *fd += 1;
        }
        batch
    }

    fn close_all_of(&self, batch: SmallVec<[Arc<OpenFile>; 8]>) {
        for file in batch {
            file.closed_by(self.id);
        }
    }

    /// Closes the open descriptors in `first..=last` that `pick` wants.
    async fn close_where(&self, first: u32, last: u32, pick: impl Fn(bool) -> bool) {
        let mut fd = first as usize;
        loop {
            let batch = self.take_some(&mut fd, last, &pick);
            if batch.is_empty() {
                return;
            }
            self.close_all_of(batch);
            budget().await;
        }
    }

    /// close_range(2).
    pub async fn close_range(&self, first: u32, last: u32) {
        self.close_where(first, last, |_| true).await
    }

    /// A thread gives up its share in the table; who gives up the last one closes what is open.
    pub async fn leave(this: Arc<FdTable>) {
        if let Some(table) = Arc::into_inner(this) {
            table.close_range(0, u32::MAX).await;
        }
    }

    /// The table of a thread that has left its own.
    pub fn none() -> Arc<FdTable> {
        static NONE: Lazy<Arc<FdTable>> = Lazy::new(|| Arc::new(FdTable::new()));
        NONE.clone()
    }

    /// close_range(2) with CLOSE_RANGE_CLOEXEC.
    pub fn set_cloexec_range(&self, first: u32, last: u32) {
        let mut table = self.table.lock();
        let count = (last as usize).saturating_add(1).saturating_sub(first as usize);
        for slot in table.slots.iter_mut().skip(first as usize).take(count).flatten() {
            slot.cloexec = true;
        }
    }

    /// execve(2): closes what is marked close-on-exec.
    pub async fn close_on_exec(&self) {
        self.close_where(0, u32::MAX, |cloexec| cloexec).await;
    }

    /// The open descriptors from `first` on, ascending (for /proc/PID/fd). There may be very many: some are looked at at a time,
    /// so those that come and go meanwhile may be among them or not.
    pub fn open_fds(&self, first: usize) -> impl Iterator<Item = i32> {
        const TURN: usize = 64;
        let mut turn = ArrayVec::<i32, TURN>::new();
        let mut next = first;
        core::iter::from_fn(move || {
            while turn.is_empty() {
                let table = self.table.lock();
                let slots = table.slots.get(next..).filter(|slots| !slots.is_empty())?;
                let some = slots.iter().zip(next..).take(TURN).filter(|(slot, _)| slot.is_some());
                turn.extend(some.map(|(_, fd)| fd as i32));
                turn.reverse();
                next += TURN;
            }
            turn.pop()
        })
    }

    /// Descriptors that fit without growing (FDSize in /proc/PID/status).
    pub fn capacity(&self) -> usize {
        self.table.lock().slots.len().max(64)
    }
}

impl Drop for FdTable {
    /// Whatever [`FdTable::leave`] has not closed.
    fn drop(&mut self) {
        let mut fd = 0;
        loop {
            let batch = self.take_some(&mut fd, u32::MAX, |_| true);
            if batch.is_empty() {
                return;
            }
            self.close_all_of(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::anon;

    fn file() -> Arc<OpenFile> {
        anon::test_file()
    }

    #[test]
    fn lowest_free_descriptor_is_used() {
        let table = FdTable::new();
        for want in 0..130 {
            assert_eq!(table.install(file(), false), Ok(want));
        }
        table.remove(3).unwrap();
        table.remove(70).unwrap();
        assert_eq!(table.install_from(64, file(), false), Ok(70));
        assert_eq!(table.install(file(), false), Ok(3));
        assert_eq!(table.install(file(), false), Ok(130));
        assert_eq!(table.install_from(500, file(), false), Ok(500));
        assert_eq!(table.install_from(1024, file(), false), Err(Errno::EMFILE));
        assert_eq!(table.get(-1).err(), Some(Errno::EBADF));
    }

    #[test]
    fn exec_closes_marked_descriptors_only() {
        let table = Arc::new(FdTable::new());
        table.install(file(), false).unwrap();
        table.install(file(), true).unwrap();
        let copy = table.fork().unwrap();
        let marked = table.clone();
        crate::exec::test_util::block_on(async move { marked.close_on_exec().await });
        assert!(table.open_fds(0).eq([0]));
        assert!(copy.open_fds(0).eq([0, 1]));
        assert!(copy.open_fds(1).eq([1]));
    }
}
