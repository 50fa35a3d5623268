//! Registered buffers. They are ranges of the program's memory, looked up like any other when they are used: Linux pins their
//! pages instead, which shows only when the memory is unmapped, or forked and written to, meanwhile.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Registered;
use crate::arch::UserFault;
use crate::errno::{Errno, Result};
use crate::mm::{IoVec, PAGE_SIZE, UserPtr, access_ok};
use crate::process::{Caps, Resource, Thread};
use crate::signal::fatal_pending;

/// A range of the program's memory.
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    pub addr: u64,
    pub len: u64,
}

/// IORING_MAX_REG_BUFFERS of Linux.
const MAX_BUFFERS: u32 = 1 << 14;
/// The largest one.
const MAX_LEN: u64 = 1 << 30;

fn check(iov: &IoVec) -> Result<Fixed> {
    match iov {
        IoVec { base: 0, len: 0 } => Ok(Fixed { addr: 0, len: 0 }),
        IoVec { base: 0, .. } | IoVec { len: 0, .. } => Err(Errno::EFAULT),
        iov if iov.len > MAX_LEN => Err(Errno::EFAULT),
        iov if iov.base.checked_add(iov.len).is_none() => Err(Errno::EOVERFLOW),
        iov if !access_ok(iov.base, iov.len) => Err(Errno::EFAULT),
        iov => Ok(Fixed { addr: iov.base, len: iov.len }),
    }
}

/// Makes all pages present and writable, as pinning does.
async fn touch(t: &Thread, buffer: Fixed) -> Result<()> {
    let mut addr = buffer.addr;
    let end = buffer.addr + buffer.len;
    while addr < end {
        if fatal_pending(t.task()) {
            return Err(Errno::EINTR);
        }
        let byte = UserPtr::<u8>::new(addr);
        // Writing what was read there would race with the program.
        if byte.try_read().is_err() {
            byte.read(t.mm()).await?;
        }
        t.mm().fault_in(UserFault::write(addr)).await?;
        addr = (addr / PAGE_SIZE as u64 + 1) * PAGE_SIZE as u64;
        crate::exec::budget().await;
    }
    Ok(())
}

impl Registered {
    /// IORING_REGISTER_BUFFERS; without `iovs` all are empty.
    pub async fn register_buffers(&self, t: &Thread, iovs: Option<UserPtr<IoVec>>, count: u32) -> Result<()> {
        if self.buffers.lock().is_some() {
            return Err(Errno::EBUSY);
        }
        if count == 0 || count > MAX_BUFFERS {
            return Err(Errno::EINVAL);
        }
        let mut buffers = Vec::new();
        buffers.try_reserve_exact(count as usize).map_err(|_| Errno::ENOMEM)?;
        match iovs {
            None => buffers.resize(count as usize, Fixed { addr: 0, len: 0 }),
            Some(iovs) => {
                let mut pages = 0;
                for iov in iovs.read_slice(t.mm(), count as usize, MAX_BUFFERS as usize).await? {
                    let buffer = check(&iov)?;
                    pages += buffer.len.div_ceil(PAGE_SIZE as u64);
                    let limit = t.rlimit(Resource::Memlock).soft;
                    if pages > limit / PAGE_SIZE as u64 && !t.creds().capable(Caps::IPC_LOCK) {
                        return Err(Errno::ENOMEM);
                    }
                    touch(t, buffer).await?;
                    buffers.push(buffer);
                }
            }
        }
        let mut registered = self.buffers.lock();
        if registered.is_some() {
            return Err(Errno::EBUSY);
        }
        *registered = Some(Arc::from(buffers));
        Ok(())
    }

    pub fn unregister_buffers(&self) -> Result<()> {
        let old = self.buffers.lock().take();
        old.map(drop).ok_or(Errno::ENXIO)
    }

    pub fn has_buffer(&self, index: u16) -> bool {
        self.buffers.lock().as_ref().is_some_and(|buffers| usize::from(index) < buffers.len())
    }

    /// EFAULT if the range is not within the buffer.
    pub fn check_fixed(&self, index: u16, addr: u64, len: u64) -> Result<()> {
        let buffers = self.buffers.lock();
        let buffer = buffers.as_ref().and_then(|buffers| buffers.get(usize::from(index))).ok_or(Errno::EFAULT)?;
        let end = addr.checked_add(len).ok_or(Errno::EFAULT)?;
        let within = addr >= buffer.addr && end <= buffer.addr + buffer.len;
        if within { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// For /proc.
    pub fn all_buffers(&self) -> Arc<[Fixed]> {
        self.buffers.lock().clone().unwrap_or_else(|| Arc::from([]))
    }
}
