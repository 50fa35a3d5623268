//! Pages that the kernel and programs read and write at the same time: the rings of io_uring.
//!
//! Programs may change every byte at any time, so what is read is a copy, and nothing here depends on what it says. All
//! accesses are checked against the length; those outside read 0 and write nothing.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicU32, Ordering};

use super::addr::PAGE_SIZE;
use super::frames::{Frame, alloc_zeroed};
use super::space::Special;
use crate::errno::{Errno, Result};

/// A run of pages, contiguous in the eyes of those who map it.
pub struct SharedPages {
    frames: Vec<Frame>,
}

impl SharedPages {
    /// At least `len` bytes of zeros.
    pub fn new(len: usize) -> Result<Self> {
        let count = len.div_ceil(PAGE_SIZE);
        let mut frames = Vec::new();
        frames.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
        for _ in 0..count {
            frames.push(alloc_zeroed()?);
        }
        Ok(SharedPages { frames })
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.frames.len() * PAGE_SIZE
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The 32-bit word at `offset`, which is a multiple of 4.
    #[inline]
    fn word(&self, offset: usize) -> Option<&AtomicU32> {
        let frame = self.frames.get(offset / PAGE_SIZE)?;
        let within = offset % PAGE_SIZE / 4 * 4;
        // SAFETY: within the frame, which lives as long as `self`, and aligned. Others access it by atomics only: programs
        // are no Rust code, and `copy_in` and `copy_out` are as good as the devices that `Frame` speaks of.
        Some(unsafe { &*frame.as_ptr().add(within).cast::<AtomicU32>() })
    }

    #[inline]
    pub fn load(&self, offset: usize, order: Ordering) -> u32 {
        self.word(offset).map_or(0, |word| word.load(order))
    }

    #[inline]
    pub fn store(&self, offset: usize, value: u32, order: Ordering) {
        if let Some(word) = self.word(offset) {
            word.store(value, order);
        }
    }

    /// Sets and clears bits.
    pub fn change(&self, offset: usize, set: u32, clear: u32) {
        if let Some(word) = self.word(offset) {
            if set != 0 {
                word.fetch_or(set, Ordering::SeqCst);
            }
            if clear != 0 {
                word.fetch_and(!clear, Ordering::SeqCst);
            }
        }
    }

    pub fn add(&self, offset: usize, by: u32) {
        if let Some(word) = self.word(offset) {
            word.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Copies a record that does not cross a page.
    #[inline]
    pub fn copy_out(&self, offset: usize, record: &mut [u8]) {
        if let Some(frame) = self.frames.get(offset / PAGE_SIZE) {
            frame.copy_out(offset % PAGE_SIZE, record);
        }
    }

    /// The same the other way.
    #[inline]
    pub fn copy_in(&self, offset: usize, record: &[u8]) {
        if let Some(frame) = self.frames.get(offset / PAGE_SIZE) {
            frame.copy_in(offset % PAGE_SIZE, record);
        }
    }

    /// The pages as something to be mapped; the mapping holds `keep`. What it has beyond them is not there (SIGBUS).
    pub fn mapping(&self, name: String, keep: Arc<dyn Any + Send + Sync>) -> Arc<Special> {
        Arc::new(Special { name: name.into(), frames: self.frames.clone(), keep: Some(keep) })
    }
}
