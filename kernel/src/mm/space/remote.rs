//! Access to memory of a space that need not be current: /proc/PID/mem, ptrace, process_vm_readv, a new program's stack.

use super::super::addr::{PAGE, PAGE_SIZE, USER_END, page_down};
use super::super::frames::Frame;
use super::AddressSpace;
use super::fault::untag;
use crate::arch::pte::PteFlags;
use crate::arch::{Access, paging};
use crate::errno::{Errno, Result};
use crate::exec;

impl AddressSpace {
    /// Reads up to the first page that cannot be read; EFAULT if that is the first of all.
    pub async fn read_remote(&self, addr: u64, buf: &mut [u8]) -> Result<usize> {
        let addr = untag(addr);
        let mut done = 0;
        while done < buf.len() {
            let at = addr.wrapping_add(done as u64);
            let Some((frame, _)) = self.page_for(at, Access::Read).await else { break };
            let offset = (at % PAGE) as usize;
            let len = (PAGE_SIZE - offset).min(buf.len() - done);
            frame.copy_out(offset, &mut buf[done..done + len]);
            done += len;
            exec::budget().await;
        }
        if done == 0 && !buf.is_empty() { Err(Errno::EFAULT) } else { Ok(done) }
    }

    /// Writes up to the first page that cannot be written; EFAULT if that is the first of all.
    pub async fn write_remote(&self, addr: u64, buf: &[u8]) -> Result<usize> {
        let addr = untag(addr);
        let mut done = 0;
        while done < buf.len() {
            let at = addr.wrapping_add(done as u64);
            let Some((frame, executable)) = self.page_for(at, Access::Write).await else { break };
            let offset = (at % PAGE) as usize;
            let len = (PAGE_SIZE - offset).min(buf.len() - done);
            frame.copy_in(offset, &buf[done..done + len]);
            if executable {
                paging::sync_icache(frame.as_ptr().wrapping_add(offset), len);
            }
            done += len;
            exec::budget().await;
        }
        if done == 0 && !buf.is_empty() { Err(Errno::EFAULT) } else { Ok(done) }
    }

    /// Fills with zeros, like `write_remote`.
    pub async fn zero_remote(&self, addr: u64, len: usize) -> Result<()> {
        let mut done = 0;
        while done < len {
            let at = addr.wrapping_add(done as u64);
            let (frame, _) = self.page_for(at, Access::Write).await.ok_or(Errno::EFAULT)?;
            let offset = (at % PAGE) as usize;
            let part = (PAGE_SIZE - offset).min(len - done);
            frame.zero(offset..offset + part);
            done += part;
            exec::budget().await;
        }
        Ok(())
    }

    /// The frame behind a page that may be accessed so, and whether it is executable. Held, so it stays even when it
    /// is unmapped meanwhile.
    async fn page_for(&self, addr: u64, access: Access) -> Option<(Frame, bool)> {
        if addr >= USER_END {
            return None;
        }
        let page = page_down(addr);
        loop {
            if let Some(found) = self.present_page(page, access) {
                return Some(found);
            }
            self.handle_fault(addr, access).await.ok()?;
        }
    }

    fn present_page(&self, page: u64, access: Access) -> Option<(Frame, bool)> {
        let inner = self.inner.lock();
        let pte = inner.tables.peek(page)?;
        let flags = pte.flags();
        if !flags.contains(PteFlags::USER) || access == Access::Write && flags.contains(PteFlags::READ_ONLY) {
            return None;
        }
        // SAFETY: present pages are owned by their entry (or are the zero page, which is for ever), and the entry
        // cannot be emptied under the lock.
        let frame = unsafe { Frame::share_raw((pte.address() / PAGE) as u32) };
        Some((frame, !flags.contains(PteFlags::UXN)))
    }
}
