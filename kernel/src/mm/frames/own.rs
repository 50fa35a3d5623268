//! Pages for the kernel's own buffers.

use super::{Frame, alloc_frame, has_spare};
use crate::errno::{Errno, Result};
use crate::mm::PAGE_SIZE;

/// A frame of which there is only this handle: its content is borrowed by Rust's rules.
pub struct OwnPage(Frame);

impl OwnPage {
    /// A page for data of programs, with whatever was in it. ENOMEM when little is left, see [`has_spare`].
    pub fn new() -> Result<OwnPage> {
        #[cfg(test)]
        crate::mm::test_util::init();
        if has_spare() { alloc_frame().map(OwnPage) } else { Err(Errno::ENOMEM) }
    }

    #[inline]
    pub fn bytes(&self) -> &[u8; PAGE_SIZE] {
        self.0.bytes()
    }

    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8; PAGE_SIZE] {
        // SAFETY: the handle is the only one, as it is never cloned or given away, and it is borrowed exclusively.
        unsafe { self.0.bytes_mut() }
    }
}
