//! The bytes of a pipe: a ring of pages that are allocated when first written to and freed when read out.

use alloc::vec::Vec;

use crate::arch::UserFault;
use crate::errno::{Errno, Result};
use crate::fs::file::TryError;
use crate::mm::{IoBuf, OwnPage, PAGE_SIZE};

pub struct Ring {
    pages: Vec<Option<OwnPage>>,
    /// Position of the next byte to read; below `capacity`.
    head: usize,
    len: usize,
}

/// A fault is in the way of a read that has moved `done` bytes.
#[cold]
fn stopped(buf: &mut IoBuf<'_>, done: usize, fault: UserFault) -> Result<usize, TryError> {
    if done == 0 {
        return Err(fault.into());
    }
    buf.cut_by(fault);
    Ok(done)
}

impl Ring {
    /// `capacity` is a multiple of the page size and not 0.
    pub fn new(capacity: usize) -> Self {
        let mut pages = Vec::new();
        pages.resize_with(capacity / PAGE_SIZE, || None);
        Ring { pages, head: 0, len: 0 }
    }

    pub fn capacity(&self) -> usize {
        self.pages.len() * PAGE_SIZE
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn room(&self) -> usize {
        self.capacity() - self.len
    }

    /// The page that holds ring position `at` and the offset in it.
    fn locate(&self, at: usize) -> (usize, usize) {
        let at = if at >= self.capacity() { at - self.capacity() } else { at };
        (at / PAGE_SIZE, at % PAGE_SIZE)
    }

    /// Copies out as much as both sides allow. What is wanted of a page is taken as a whole: if a fault is in the way it
    /// stays, as on Linux. The fault is the answer if nothing was moved.
    #[inline]
    pub fn read(&mut self, buf: &mut IoBuf<'_>) -> Result<usize, TryError> {
        match self.read_from_page(buf) {
            Some(n) => Ok(n),
            None => self.read_from_pages(buf),
        }
    }

    /// The most common read: everything is in one page, and no fault is in the way. None: nothing was done.
    #[inline]
    fn read_from_page(&mut self, buf: &mut IoBuf<'_>) -> Option<usize> {
        let offset = self.head % PAGE_SIZE;
        let page = self.pages.get(self.head / PAGE_SIZE)?.as_ref()?;
        let n = buf.copy_to_now(page.bytes().get(offset..offset + self.len)?)?;
        self.len -= n;
        // What is empty starts over in this page, which is in the cache.
        self.head = if self.len == 0 { self.head - offset } else { self.head + n };
        Some(n)
    }

    #[inline(never)]
    fn read_from_pages(&mut self, buf: &mut IoBuf<'_>) -> Result<usize, TryError> {
        let mut done = 0;
        while self.len > 0 && !buf.is_empty() {
            let (page, offset) = self.locate(self.head);
            let end = (offset + self.len).min(PAGE_SIZE);
            let Some(Some(bytes)) = self.pages.get(page) else { break };
            match buf.copy_to(bytes.bytes().get(offset..end).unwrap_or(&[])) {
                Ok(n) => {
                    if n < end - offset {
                        if let Some(fault) = buf.take_fault() {
                            buf.rewind(n);
                            return stopped(buf, done, fault);
                        }
                        self.consume(n);
                        return Ok(done + n);
                    }
                    done += n;
                    self.consume(n);
                }
                Err(fault) => return stopped(buf, done, fault),
            }
        }
        Ok(done)
    }

    /// Copies out `len` bytes at this distance from the head, or what the buffer has room for, and takes none. A fault leaves the buffer
    /// as it was.
    pub fn copy(&self, from: usize, buf: &mut IoBuf<'_>, len: usize) -> Result<usize, UserFault> {
        let want = len.min(self.len.saturating_sub(from)).min(buf.remaining());
        let mut done = 0;
        while done < want {
            let (page, offset) = self.locate(self.head + from + done);
            let end = (offset + want - done).min(PAGE_SIZE);
            let Some(Some(bytes)) = self.pages.get(page) else { break };
            let fault = match buf.copy_to(bytes.bytes().get(offset..end).unwrap_or(&[])) {
                Ok(n) => {
                    done += n;
                    buf.take_fault()
                }
                Err(fault) => Some(fault),
            };
            if let Some(fault) = fault {
                buf.rewind(done);
                return Err(fault);
            }
        }
        Ok(done)
    }

    /// Takes `n` bytes off the head and frees pages that are empty now; the last one is kept for the next write.
    #[inline]
    pub fn consume(&mut self, n: usize) {
        let mut n = n.min(self.len);
        while n > 0 {
            let (page, offset) = self.locate(self.head);
            let step = n.min(PAGE_SIZE - offset);
            n -= step;
            self.len -= step;
            self.head = if self.head + step >= self.capacity() { 0 } else { self.head + step };
            // In a nearly full ring the tail has wrapped into the start of the page that the head is leaving.
            if offset + step == PAGE_SIZE && self.len > 0 && self.len <= self.capacity() - PAGE_SIZE {
                self.free(page);
            }
        }
        if self.len == 0 {
            // Start over in the page at hand, which is in the cache.
            self.head = self.pages.iter().position(Option::is_some).unwrap_or(0) * PAGE_SIZE;
        }
    }

    #[inline(never)]
    fn free(&mut self, page: usize) {
        if let Some(slot) = self.pages.get_mut(page) {
            *slot = None;
        }
    }

    /// Copies in as much as both sides allow; if `atomic`, all of the buffer (there is room) or nothing.
    #[inline]
    pub fn write(&mut self, buf: &mut IoBuf<'_>, atomic: bool) -> Result<usize, TryError> {
        match self.write_to_page(buf) {
            Some(n) => Ok(n),
            None => self.write_to_pages(buf, atomic),
        }
    }

    /// The most common write: everything goes to a page that is there, and no fault is in the way. None: nothing was done.
    #[inline]
    fn write_to_page(&mut self, buf: &mut IoBuf<'_>) -> Option<usize> {
        let len = buf.remaining();
        if len > self.room() {
            return None;
        }
        let (page, offset) = self.locate(self.head + self.len);
        let page = self.pages.get_mut(page)?.as_mut()?;
        let n = buf.copy_from_now(page.bytes_mut().get_mut(offset..offset + len)?)?;
        self.len += n;
        Some(n)
    }

    #[inline(never)]
    fn write_to_pages(&mut self, buf: &mut IoBuf<'_>, atomic: bool) -> Result<usize, TryError> {
        let mut done = 0;
        let stop = loop {
            let room = self.room() - done;
            if room == 0 || buf.is_empty() {
                break None;
            }
            let (page, offset) = self.locate(self.head + self.len + done);
            let end = (offset + room).min(PAGE_SIZE);
            let Some(slot) = self.pages.get_mut(page) else { break None };
            let bytes = match slot {
                Some(bytes) => bytes,
                None => match OwnPage::new() {
                    Ok(bytes) => slot.insert(bytes),
                    Err(errno) => break Some(TryError::Failed(errno)),
                },
            };
            match buf.copy_from(bytes.bytes_mut().get_mut(offset..end).unwrap_or(&mut [])) {
                Ok(n) => done += n,
                Err(fault) => break Some(TryError::Fault(fault)),
            }
        };
        match stop {
            // Readers may come before the rest does. They find whole pages, as in Linux, which lets nobody in meanwhile.
            Some(TryError::Fault(_)) if !atomic && done >= PAGE_SIZE => {
                let whole = done - done % PAGE_SIZE;
                buf.rewind(done - whole);
                self.len += whole;
                Ok(whole)
            }
            Some(error @ TryError::Fault(_)) => {
                buf.rewind(done);
                Err(error)
            }
            Some(error) if atomic || done == 0 => {
                buf.rewind(done);
                Err(error)
            }
            _ => {
                self.len += done;
                Ok(done)
            }
        }
    }

    /// The byte at this distance from the head.
    pub fn byte(&self, distance: usize) -> Option<u8> {
        let (page, offset) = self.locate(self.head + distance);
        if distance < self.len { self.pages.get(page)?.as_ref()?.bytes().get(offset).copied() } else { None }
    }

    /// A copy of the first bytes.
    pub fn peek(&self, max: usize) -> Result<Vec<u8>> {
        let want = max.min(self.len);
        let mut out = Vec::new();
        out.try_reserve_exact(want).map_err(|_| Errno::ENOMEM)?;
        while out.len() < want {
            let (page, offset) = self.locate(self.head + out.len());
            let end = (offset + want - out.len()).min(PAGE_SIZE);
            let Some(Some(bytes)) = self.pages.get(page) else { break };
            out.extend_from_slice(bytes.bytes().get(offset..end).unwrap_or(&[]));
        }
        Ok(out)
    }

    /// The content must fit. Its pages move as they are; only where the last bytes share a page with the first ones, or come
    /// to, they are copied.
    pub fn set_capacity(&mut self, capacity: usize) -> Result<()> {
        let (old_count, count) = (self.pages.len(), capacity / PAGE_SIZE);
        let mut pages: Vec<Option<OwnPage>> = Vec::new();
        pages.try_reserve_exact(count + 1).map_err(|_| Errno::ENOMEM)?;
        let (first, offset) = self.locate(self.head);
        let end = offset + self.len;
        // In a row, the content takes up one page more than the ring has if the tail has wrapped into the head's page.
        let mut spare = if end > self.capacity() { Some(OwnPage::new()?) } else { None };
        let tail = if end.is_multiple_of(PAGE_SIZE) { PAGE_SIZE } else { end % PAGE_SIZE };
        for index in 0..end.div_ceil(PAGE_SIZE) {
            if index == old_count {
                copy_start(pages.first(), spare.as_mut(), tail);
                pages.push(spare.take());
            } else {
                pages.push(self.pages.get_mut((first + index) % old_count).and_then(Option::take));
            }
        }
        if pages.len() > count {
            let last = pages.pop();
            copy_start(last.as_ref(), pages.first_mut().and_then(Option::as_mut), tail);
        }
        pages.resize_with(count, || None);
        *self = Ring { pages, head: offset, len: self.len };
        Ok(())
    }
}

/// Copies the first `len` bytes of a page.
fn copy_start(from: Option<&Option<OwnPage>>, to: Option<&mut OwnPage>, len: usize) {
    if let (Some(Some(from)), Some(to)) = (from, to) {
        let bytes = to.bytes_mut().iter_mut().zip(from.bytes());
        bytes.take(len).for_each(|(to, from)| *to = *from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_keeps_the_tail_that_shares_the_heads_page() {
        let mut ring = Ring::new(4 * PAGE_SIZE);
        let bytes: Vec<u8> = (0..4 * PAGE_SIZE + 100).map(|i| (i % 251) as u8).collect();
        let mut out = vec![0; bytes.len()];
        assert_eq!(ring.write(&mut IoBuf::kernel(&bytes[..4 * PAGE_SIZE]), false), Ok(4 * PAGE_SIZE));
        assert_eq!(ring.read(&mut IoBuf::kernel_mut(&mut out[..100])), Ok(100));
        assert_eq!(ring.write(&mut IoBuf::kernel(&bytes[4 * PAGE_SIZE..]), false), Ok(100));
        assert_eq!(ring.read(&mut IoBuf::kernel_mut(&mut out[100..])), Ok(4 * PAGE_SIZE));
        assert!(out == bytes);
    }

    #[test]
    fn a_ring_that_changes_its_size_keeps_its_bytes() {
        let bytes: Vec<u8> = (0..6 * PAGE_SIZE).map(|i| (i % 251) as u8).collect();
        for (start, len) in [
            (0, 0),
            (0, PAGE_SIZE),
            (100, 4 * PAGE_SIZE),
            (4000, 4 * PAGE_SIZE),
            (5000, 2 * PAGE_SIZE),
            (1, 2 * PAGE_SIZE - 1),
        ] {
            for count in [2, 3, 4, 8].into_iter().filter(|count| len <= count * PAGE_SIZE) {
                let mut ring = Ring::new(4 * PAGE_SIZE);
                let mut out = vec![0; 6 * PAGE_SIZE];
                ring.write(&mut IoBuf::kernel(&bytes[..start]), false).unwrap();
                ring.write(&mut IoBuf::kernel(&bytes[start..(start + len).min(4 * PAGE_SIZE)]), false).unwrap();
                ring.read(&mut IoBuf::kernel_mut(&mut out[..start])).unwrap();
                ring.write(&mut IoBuf::kernel(&bytes[(start + len).min(4 * PAGE_SIZE)..start + len]), false).unwrap();
                ring.set_capacity(count * PAGE_SIZE).unwrap();
                assert_eq!((ring.len(), ring.capacity()), (len, count * PAGE_SIZE));
                let more = ring.room().min(6 * PAGE_SIZE - start - len);
                ring.write(&mut IoBuf::kernel(&bytes[start + len..start + len + more]), false).unwrap();
                assert_eq!(ring.read(&mut IoBuf::kernel_mut(&mut out[start..])), Ok(len + more));
                assert!(out[..start + len + more] == bytes[..start + len + more], "{start} {len} {count}");
            }
        }
    }
}
