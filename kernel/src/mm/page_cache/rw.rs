//! read(2) and write(2) of cached files: a copy per page under the tree's shared lock; only misses and faults wait.

use super::super::addr::{PAGE, PAGE_SIZE};
use super::super::frames::page::{PageFlags, frame_ptr};
use super::super::frames::{Frame, alloc_frame, alloc_zeroed, free_frames};
use super::super::iobuf::IoBuf;
use super::super::stats;
use super::{CachePage, PageCache, reclaim, rounds};
use crate::arch::UserFault;
use crate::errno::{Errno, Result};
use crate::exec;

/// Pages between two looks at how much is dirty.
const THROTTLE: u64 = 64;

impl PageCache {
    /// Copies file content at `pos` into `buf`, up to the file's `size`. Answers the count; 0 at the end.
    pub async fn read(&self, pos: u64, size: u64, buf: &mut IoBuf<'_>) -> Result<usize> {
        let end = size.min(pos.saturating_add(buf.remaining() as u64));
        let mut at = pos;
        let mut held = None;
        while at < end {
            let offset = (at % PAGE) as usize;
            let len = (PAGE_SIZE - offset).min((end - at) as usize);
            let failed = match self.copy_out(at / PAGE, offset, len, buf) {
                Some(Ok(copied)) => {
                    at += copied as u64;
                    if at < end {
                        exec::budget().await;
                    }
                    continue;
                }
                Some(Err(fault)) => buf.fault_in(&fault).await,
                None => {
                    let wanted = (end - at).div_ceil(PAGE) as usize;
                    // Held until the copy, so that it is not evicted before.
                    self.get_for(at / PAGE, size, wanted).await.map(|page| drop(held.replace(page)))
                }
            };
            match failed {
                Err(errno) if at == pos => return Err(errno),
                Err(_) => break,
                Ok(()) => {}
            }
        }
        Ok((at - pos) as usize)
    }

    /// The same if all of it is there, on both sides. None: nothing was done.
    #[inline]
    pub fn read_now(&self, pos: u64, size: u64, buf: &mut IoBuf<'_>) -> Option<usize> {
        let end = size.min(pos.saturating_add(buf.remaining() as u64));
        let mut at = pos;
        while at < end {
            let offset = (at % PAGE) as usize;
            let len = (PAGE_SIZE - offset).min((end - at) as usize);
            let tree = self.tree.read();
            let copied = tree.valid(at / PAGE).and_then(|pfn| {
                // SAFETY: as in `copy_out`.
                let source = unsafe { core::slice::from_raw_parts(frame_ptr(pfn).add(offset), len) };
                buf.copy_to_now(source)
            });
            drop(tree);
            if copied.is_none() {
                buf.rewind((at - pos) as usize);
                return None;
            }
            at += len as u64;
        }
        Some((at - pos) as usize)
    }

    #[inline]
    fn copy_out(&self, index: u64, offset: usize, len: usize, buf: &mut IoBuf<'_>) -> Option<Result<usize, UserFault>> {
        let tree = self.tree.read();
        let Some(pfn) = tree.valid(index) else {
            // What was never written takes no memory: nobody would give it back.
            return self.is_memory().then(|| buf.zero(len));
        };
        // SAFETY: the frame stays in the tree under the lock; offset + len is within it. Bytes that a mapping changes
        // meanwhile are read as they come.
        let source = unsafe { core::slice::from_raw_parts(frame_ptr(pfn).add(offset), len) };
        Some(buf.copy_to(source))
    }

    /// Copies `buf` into the file at `pos` and marks pages dirty. `size` is the size before. The caller updates the size
    /// from the answer, and has excluded other writers and truncation.
    pub async fn write(&self, pos: u64, size: u64, buf: &mut IoBuf<'_>) -> Result<usize> {
        let mut at = pos;
        let mut held = None;
        while !buf.is_empty() {
            let index = at / PAGE;
            let offset = (at % PAGE) as usize;
            let len = (PAGE_SIZE - offset).min(buf.remaining());
            let step = match self.copy_in(index, offset, len, buf) {
                Some(result) => result,
                None => {
                    let whole = len == PAGE_SIZE || index * PAGE >= size;
                    match self.write_new(index, offset, len, whole && !self.is_memory(), index * PAGE >= size, buf) {
                        Some(result) => result,
                        None => match self.get(index, size).await {
                            Ok(page) => {
                                held.replace(page);
                                continue;
                            }
                            Err(errno) if at == pos => return Err(errno),
                            Err(_) => break,
                        },
                    }
                }
            };
            match step {
                Ok(copied) => at += copied as u64,
                Err(fault) => match buf.fault_in(&fault).await {
                    Err(errno) if at == pos => return Err(errno),
                    Err(_) => break,
                    Ok(()) => continue,
                },
            }
            if !buf.is_empty() {
                exec::budget().await;
            }
            if index.is_multiple_of(THROTTLE) && !self.is_memory() {
                self.throttle().await;
            }
        }
        drop(held);
        Ok((at - pos) as usize)
    }

    /// Into a valid page.
    #[inline]
    fn copy_in(&self, index: u64, offset: usize, len: usize, buf: &mut IoBuf<'_>) -> Option<Result<usize, UserFault>> {
        let tree = self.tree.read();
        let pfn = tree.valid(index)?;
        // SAFETY: the frame stays in the tree under the lock; offset + len is within it.
        let result = unsafe { buf.copy_from_raw(frame_ptr(pfn).add(offset), len) };
        if result.is_ok() {
            // SAFETY: as in `lookup`.
            let frame = unsafe { Frame::share_raw(pfn) };
            changed(&frame);
            if !self.is_memory() {
                self.set_dirty(&tree, index, &frame);
            }
        }
        Some(result)
    }

    /// Into a page that need not be read, because all of it is overwritten or it lies beyond the end. None: it must.
    fn write_new(
        &self,
        index: u64,
        offset: usize,
        len: usize,
        allowed: bool,
        beyond: bool,
        buf: &mut IoBuf<'_>,
    ) -> Option<Result<usize, UserFault>> {
        if !allowed {
            return None;
        }
        let frame = if len == PAGE_SIZE { alloc_frame() } else { alloc_zeroed() }.ok()?;
        // SAFETY: the frame is ours; offset + len is within it.
        let copied = match unsafe { buf.copy_from_raw(frame.as_ptr().add(offset), len) } {
            Ok(copied) => copied,
            Err(fault) => return Some(Err(fault)),
        };
        if copied < len {
            if !beyond {
                buf.rewind(copied);
                return None;
            }
            if len == PAGE_SIZE {
                frame.zero(copied..PAGE_SIZE);
            }
        }
        frame.page().set(PageFlags::CACHE | PageFlags::UPTODATE | PageFlags::REFERENCED);
        let mut tree = self.tree.write();
        if tree.insert(index, frame.clone()).is_err() {
            buf.rewind(copied);
            return None;
        }
        self.counter().add(1);
        self.set_dirty(&tree, index, &frame);
        Some(Ok(copied))
    }

    /// Has pages stored when a tenth of the memory that files can have is dirty, and makes whoever dirties them wait for it
    /// from a fifth on (dirty_background_ratio and dirty_ratio of Linux's admin-guide/sysctl/vm.rst).
    pub(crate) async fn throttle(&self) {
        let dirty = stats::DIRTY.sum();
        let usable = free_frames() as u64 + stats::CACHED.sum();
        if dirty <= usable / 10 {
            return;
        }
        rounds::begin();
        if dirty > usable / 5 {
            // An error is not this writer's: fsync reports it. But pages for which there was no memory are still dirty.
            if self.write_back(0..u64::MAX).await == Err(Errno::ENOMEM) {
                reclaim::relieve().await;
            }
        }
    }
}

/// Instruction fetch may know the old content.
fn changed(frame: &Frame) {
    if frame.has(PageFlags::ICACHE_CLEAN) {
        frame.page().clear(PageFlags::ICACHE_CLEAN);
    }
}

impl CachePage {
    /// Changes bytes of the page; the caller marks it dirty.
    pub fn write_at(&self, offset: usize, bytes: &[u8]) {
        self.frame.copy_in(offset, bytes);
        changed(&self.frame);
    }
}
