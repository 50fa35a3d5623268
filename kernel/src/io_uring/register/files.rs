//! Registered files: a table whose indices entries use instead of descriptors.

use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::io_uring as raw;

use super::Registered;
use crate::errno::{Errno, Result};
use crate::exec;
use crate::fs::OpenFile;
use crate::io_uring::file::RingFile;
use crate::mm::UserPtr;
use crate::process::{Resource, Thread};

/// IORING_MAX_FIXED_FILES of Linux.
const MAX_FILES: u32 = 1 << 20;

pub struct Files {
    slots: Vec<Option<Arc<OpenFile>>>,
    /// Where free slots are looked for.
    range: core::ops::Range<usize>,
    hint: usize,
}

impl Files {
    /// Exchanges what is in a slot with `file`: what is there afterwards, also if it is refused, is to be dropped without the
    /// lock, as the last reference to a file closes it.
    fn exchange(&mut self, slot: usize, file: &mut Option<Arc<OpenFile>>) -> Result<()> {
        let place = self.slots.get_mut(slot).ok_or(Errno::EINVAL)?;
        // As Linux has it: behind what was taken last, or at what was given up.
        self.hint = if file.is_some() { slot + 1 } else { slot };
        core::mem::swap(place, file);
        Ok(())
    }

    fn first_free(&self) -> Result<usize> {
        let hint = self.hint.clamp(self.range.start, self.range.end);
        let free = |slot: &usize| matches!(self.slots.get(*slot), Some(None));
        (hint..self.range.end).find(free).or_else(|| (self.range.start..hint).find(free)).ok_or(Errno::ENFILE)
    }
}

/// A descriptor as something to register; -1 leaves the slot empty.
fn to_register(t: &Thread, fd: i32) -> Result<Option<Arc<OpenFile>>> {
    if fd == -1 {
        return Ok(None);
    }
    let file = t.files().get(fd)?;
    // Rings in rings would keep each other alive.
    if file.ops_as::<RingFile>().is_some() { Err(Errno::EBADF) } else { Ok(Some(file)) }
}

impl Registered {
    /// IORING_REGISTER_FILES; without `fds` all slots are empty.
    pub async fn register_files(&self, t: &Thread, fds: Option<UserPtr<i32>>, count: u32) -> Result<()> {
        if self.files.lock().is_some() {
            return Err(Errno::EBUSY);
        }
        if count == 0 {
            return Err(Errno::EINVAL);
        }
        if count > MAX_FILES || u64::from(count) > t.rlimit(Resource::Nofile).soft {
            return Err(Errno::EMFILE);
        }
        let mut slots = Vec::new();
        slots.try_reserve_exact(count as usize).map_err(|_| Errno::ENOMEM)?;
        match fds {
            None => slots.resize(count as usize, None),
            Some(fds) => {
                for fd in fds.read_slice(t.mm(), count as usize, MAX_FILES as usize).await? {
                    slots.push(to_register(t, fd)?);
                    if slots.len().is_multiple_of(64) {
                        exec::budget().await;
                    }
                }
            }
        }
        let mut files = self.files.lock();
        if files.is_some() {
            return Err(Errno::EBUSY);
        }
        *files = Some(Files { range: 0..slots.len(), slots, hint: 0 });
        Ok(())
    }

    pub fn unregister_files(&self) -> Result<()> {
        let old = self.files.lock().take();
        old.map(drop).ok_or(Errno::ENXIO)
    }

    /// The file at an index; EBADF if there is none.
    pub fn file(&self, index: u32) -> Result<Arc<OpenFile>> {
        let files = self.files.lock();
        files.as_ref().and_then(|files| files.slots.get(index as usize)?.clone()).ok_or(Errno::EBADF)
    }

    /// Changes slots from `first` on; answers how many.
    pub async fn update_files(&self, t: &Thread, first: u32, fds: UserPtr<i32>, count: u32) -> Result<i32> {
        let len = self.files.lock().as_ref().map(|files| files.slots.len()).ok_or(Errno::ENXIO)?;
        let end = first.checked_add(count).ok_or(Errno::EOVERFLOW)?;
        if end as usize > len {
            return Err(Errno::EINVAL);
        }
        let mut done = 0;
        for (index, at) in (first..end).enumerate() {
            let result = self.update_file(t, at as usize, fds.at(index)).await;
            exec::budget().await;
            match result {
                Ok(()) => done += 1,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    async fn update_file(&self, t: &Thread, slot: usize, fd: UserPtr<i32>) -> Result<()> {
        let fd = fd.read(t.mm()).await?;
        if fd == raw::IORING_REGISTER_FILES_SKIP {
            return Ok(());
        }
        self.exchange_file(slot, &mut to_register(t, fd)?)
    }

    fn exchange_file(&self, slot: usize, file: &mut Option<Arc<OpenFile>>) -> Result<()> {
        self.files.lock().as_mut().ok_or(Errno::ENXIO)?.exchange(slot, file)
    }

    /// Puts files where there is room, and writes the indices over the descriptors; answers how many.
    pub async fn allocate_files(&self, t: &Thread, fds: UserPtr<i32>, count: u32) -> Result<i32> {
        if self.files.lock().is_none() {
            return Err(Errno::ENXIO);
        }
        let mut done = 0;
        for index in 0..count as usize {
            let result = async {
                let at = fds.at(index);
                let file = t.files().get(at.read(t.mm()).await?)?;
                let slot = self.add_file(file)?;
                match at.write(t.mm(), slot).await {
                    Ok(()) => Ok(()),
                    Err(errno) => {
                        let _ = self.remove_file(slot as u32);
                        Err(errno)
                    }
                }
            };
            let result = result.await;
            exec::budget().await;
            match result {
                Ok(()) => done += 1,
                Err(_) if done > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    /// Puts a file where there is room; answers the index.
    pub fn add_file(&self, file: Arc<OpenFile>) -> Result<i32> {
        let mut files = self.files.lock();
        let files = files.as_mut().ok_or(Errno::ENFILE)?;
        if file.ops_as::<RingFile>().is_some() {
            return Err(Errno::EBADF);
        }
        let slot = files.first_free()?;
        files.exchange(slot, &mut Some(file))?;
        Ok(slot as i32)
    }

    /// Puts a file at an index, in the place of what was there.
    pub fn put_file(&self, slot: u32, file: Arc<OpenFile>) -> Result<()> {
        if file.ops_as::<RingFile>().is_some() {
            return Err(Errno::EBADF);
        }
        self.exchange_file(slot as usize, &mut Some(file))
    }

    /// Closes what is at an index.
    pub fn remove_file(&self, slot: u32) -> Result<()> {
        let mut file = None;
        self.exchange_file(slot as usize, &mut file)?;
        file.map(drop).ok_or(Errno::EBADF)
    }

    /// IORING_REGISTER_FILE_ALLOC_RANGE.
    pub fn set_file_range(&self, first: u32, len: u32) -> Result<()> {
        let end = first.checked_add(len).ok_or(Errno::EOVERFLOW)?;
        let mut files = self.files.lock();
        let files = files.as_mut().ok_or(Errno::EINVAL)?;
        if end as usize > files.slots.len() {
            return Err(Errno::EINVAL);
        }
        files.range = first as usize..end as usize;
        files.hint = first as usize;
        Ok(())
    }

    /// How many slots there are, for /proc; and of the first of them up to `most` files.
    pub fn first_files(&self, most: usize) -> (usize, Vec<Option<Arc<OpenFile>>>) {
        let files = self.files.lock();
        let slots = files.as_ref().map_or(&[][..], |files| &files.slots);
        (slots.len(), slots.iter().take(most).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use core::any::Any;
    use core::sync::atomic::AtomicU32;
    use core::sync::atomic::Ordering::SeqCst;

    use super::*;
    use crate::fs::file::FileOps;

    /// Looks at the table when it is closed.
    struct Watching {
        registered: Arc<Registered>,
        closed: Arc<AtomicU32>,
    }

    impl FileOps for Watching {
        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    impl Drop for Watching {
        fn drop(&mut self) {
            assert!(self.registered.files.try_lock().is_some(), "closed under the lock");
            self.closed.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn files_are_closed_without_the_lock() {
        let (registered, closed) = (Arc::new(Registered::default()), Arc::new(AtomicU32::new(0)));
        let file = || {
            let ops = Watching { registered: registered.clone(), closed: closed.clone() };
            OpenFile::new_anon("watching", Arc::new(ops), linux_raw_sys::general::O_RDWR)
        };
        assert_eq!(registered.put_file(0, file()).unwrap_err(), Errno::ENXIO);
        assert_eq!(registered.add_file(file()).unwrap_err(), Errno::ENFILE);
        assert_eq!(closed.load(SeqCst), 2, "there is no table");
        *registered.files.lock() = Some(Files { slots: alloc::vec![None; 2], range: 0..2, hint: 0 });
        assert_eq!(registered.put_file(1000, file()).unwrap_err(), Errno::EINVAL);
        assert_eq!(closed.load(SeqCst), 3, "beyond the table");
        registered.put_file(1, file()).unwrap();
        registered.put_file(1, file()).unwrap();
        assert_eq!(closed.load(SeqCst), 4, "in the place of another");
        registered.remove_file(1).unwrap();
        assert_eq!(registered.remove_file(1).unwrap_err(), Errno::EBADF);
        assert_eq!(closed.load(SeqCst), 5, "removed");
        assert_eq!((registered.add_file(file()).unwrap(), registered.add_file(file()).unwrap()), (1, 0));
        assert_eq!(registered.add_file(file()).unwrap_err(), Errno::ENFILE);
        assert_eq!(closed.load(SeqCst), 6, "full");
        registered.clear();
        assert_eq!(closed.load(SeqCst), 8);
    }
}
