//! How much memory is promised (proc_sys_vm(5), overcommit_memory): pages are had when they are first touched, and the OOM killer
//! takes them back. What is promised is not counted, so mode 2, which would refuse what is more than a limit, is not there.

use core::sync::atomic::{AtomicU8, Ordering};

use super::addr::PAGE;
use super::frames;
use crate::errno::{Errno, Result};

/// 0: what can never be had at once is refused; 1: nothing is.
static MODE: AtomicU8 = AtomicU8::new(0);

pub fn mode() -> u8 {
    MODE.load(Ordering::Relaxed)
}

pub fn set_mode(mode: i64) -> Result<()> {
    let mode = u8::try_from(mode).ok().filter(|mode| *mode <= 1).ok_or(Errno::EINVAL)?;
    MODE.store(mode, Ordering::Relaxed);
    Ok(())
}

/// May so many bytes more be promised to one mapping or object?
pub fn check(len: u64) -> Result<()> {
    if len / PAGE > frames::total_frames() as u64 && mode() == 0 { Err(Errno::ENOMEM) } else { Ok(()) }
}
