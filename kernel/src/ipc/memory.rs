//! What programs take of the kernel's heap by IPC: it outlives them, so nobody's end gives it back, and it must not go
//! beyond what can be spared.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::errno::{Errno, Result};
use crate::mm::frames;

/// About what is needed to keep a message, besides its data.
const OVERHEAD: usize = 64;
/// Bytes after which it is asked whether there is more. Must not be more often: the answer takes a lock of all CPUs.
const STEP: usize = 4096;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// ENOMEM if there may not be another object.
pub(super) fn check() -> Result<()> {
    if frames::has_spare() { Ok(()) } else { Err(Errno::ENOMEM) }
}

/// Room for the data of a message.
pub fn buffer(len: usize) -> Result<Vec<u8>> {
    let size = len.saturating_add(OVERHEAD);
    let before = TAKEN.fetch_add(size, Ordering::Relaxed);
    if before / STEP != before.wrapping_add(size) / STEP
        && let Err(errno) = check()
    {
        // The next one asks again.
        TAKEN.fetch_sub(size, Ordering::Relaxed);
        return Err(errno);
    }
    let mut data = Vec::new();
    data.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    data.resize(len, 0);
    Ok(data)
}
