//! Access to memory of a space that need not be current: /proc/PID/mem, ptrace, process_vm_readv, a new program's stack.

use alloc::vec::Vec;

use super::super::addr::{PAGE, PAGE_SIZE, USER_END, page_down, untag};
use super::super::frames::Frame;
use super::super::iobuf::IoBuf;
use super::AddressSpace;
use super::fault::{is_sole_owner, may_force};
use super::userfault::Toucher;
use super::vma::{Backing, Vma, VmaFlags};
use crate::arch::pte::{Pte, PteFlags};
use crate::arch::{Access, paging};
use crate::errno::{Errno, Result};
use crate::exec;

/// What ended a copy between two memories before all was moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    /// A page of the other space.
    There,
    /// The memory of the caller.
    Here(Errno),
}

/// Is this the page of a private mapping, and of no other one?
fn is_own(found: Option<(u64, &Vma)>, pte: Pte) -> bool {
    found.is_some_and(|(_, vma)| may_force(vma, Access::Write)) && is_sole_owner(pte)
}

fn bounce_page() -> Result<Vec<u8>, Cut> {
    let mut page = Vec::new();
    page.try_reserve_exact(PAGE_SIZE).map_err(|_| Cut::Here(Errno::ENOMEM))?;
    page.resize(PAGE_SIZE, 0);
    Ok(page)
}

/// Bytes from `at` to the end of the page, if as many are wanted.
fn piece(at: u64, buf: &IoBuf<'_>) -> usize {
    buf.remaining().min(PAGE_SIZE - (at % PAGE) as usize)
}

impl Toucher {
    /// Programs tag their addresses; who looks on asks for the address itself, and nothing is at one with a tag.
    fn address(self, addr: u64) -> u64 {
        if self == Toucher::Onlooker { addr } else { untag(addr) }
    }
}

impl AddressSpace {
    /// Fills `buf` with what is at `addr`. Answers how much was moved, and what kept it from more.
    pub async fn copy_from_remote(&self, addr: u64, buf: &mut IoBuf<'_>, who: Toucher) -> (usize, Option<Cut>) {
        let mut total = 0;
        let result = async {
            let mut page = bounce_page()?;
            while !buf.is_empty() {
                let at = addr.wrapping_add(total as u64);
                let wanted = &mut page[..piece(at, buf)];
                let n = self.read_remote(at, wanted, who).await.map_err(|_| Cut::There)?;
                let moved = buf.copy_all_to(&wanted[..n]).await.map_err(Cut::Here)?;
                total += moved;
                if moved < n {
                    return Err(Cut::Here(Errno::EFAULT));
                }
                exec::budget().await;
            }
            Ok(())
        };
        let end = result.await.err();
        (total, end)
    }

    /// Writes what is in `buf` to `addr`, like `copy_from_remote`.
    pub async fn copy_to_remote(&self, addr: u64, buf: &mut IoBuf<'_>, who: Toucher) -> (usize, Option<Cut>) {
        let mut total = 0;
        let result = async {
            let mut page = bounce_page()?;
            while !buf.is_empty() {
                let at = addr.wrapping_add(total as u64);
                let bytes = &mut page[..piece(at, buf)];
                let n = match buf.copy_from(bytes) {
                    Ok(n) => n,
                    Err(fault) => {
                        buf.fault_in(&fault).await.map_err(Cut::Here)?;
                        continue;
                    }
                };
                total += self.write_remote(at, &bytes[..n], who).await.map_err(|_| Cut::There)?;
                exec::budget().await;
            }
            Ok(())
        };
        let end = result.await.err();
        (total, end)
    }

    /// Takes private memory without a file away from whoever still runs here, on his way to his end: he finds nothing
    /// mapped, not zeros.
    pub async fn release_private(&self) -> Result<()> {
        let mut next = 0;
        loop {
            let range = {
                let inner = self.inner.lock();
                let fixed = VmaFlags::LOCKED | VmaFlags::SPECIAL;
                let private = |vma: &Vma| matches!(vma.backing, Backing::Anonymous) && !vma.flags.intersects(fixed);
                let mut found = inner.vmas.overlapping(next..USER_END).filter(|(_, vma)| private(vma));
                found.next().map(|(start, vma)| start..vma.end)
            };
            let Some(range) = range else { return Ok(()) };
            next = range.end;
            self.munmap(range.start, range.end - range.start).await?;
            exec::budget().await;
        }
    }

    /// A word of a page that is in memory.
    pub fn peek(&self, addr: u64) -> Option<u32> {
        let mut word = [0; 4];
        let addr = untag(addr);
        if addr >= USER_END || !addr.is_multiple_of(4) {
            return None;
        }
        let mut copy = |frame: &Frame, _| frame.copy_out((addr % PAGE) as usize, &mut word);
        self.try_with_page(page_down(addr), Access::Read, Toucher::Call, &mut copy).then_some(u32::from_le_bytes(word))
    }

    /// Reads up to the first page that cannot be read; EFAULT if that is the first of all.
    pub async fn read_remote(&self, addr: u64, buf: &mut [u8], who: Toucher) -> Result<usize> {
        let addr = who.address(addr);
        let mut done = 0;
        while done < buf.len() {
            let at = addr.wrapping_add(done as u64);
            let offset = (at % PAGE) as usize;
            let len = (PAGE_SIZE - offset).min(buf.len() - done);
            let copy = |frame: &Frame, _| frame.copy_out(offset, &mut buf[done..done + len]);
            if self.with_page(at, Access::Read, who, copy).await.is_none() {
                break;
            }
            done += len;
            exec::budget().await;
        }
        if done == 0 && !buf.is_empty() { Err(Errno::EFAULT) } else { Ok(done) }
    }

    /// Writes up to the first page that cannot be written; EFAULT if that is the first of all.
    pub async fn write_remote(&self, addr: u64, buf: &[u8], who: Toucher) -> Result<usize> {
        let addr = who.address(addr);
        let mut done = 0;
        while done < buf.len() {
            let at = addr.wrapping_add(done as u64);
            let offset = (at % PAGE) as usize;
            let len = (PAGE_SIZE - offset).min(buf.len() - done);
            let copy = |frame: &Frame, executable: bool| {
                frame.copy_in(offset, &buf[done..done + len]);
                if executable {
                    paging::sync_icache(frame.as_ptr().wrapping_add(offset), len);
                }
            };
            if self.with_page(at, Access::Write, who, copy).await.is_none() {
                break;
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
            let offset = (at % PAGE) as usize;
            let part = (PAGE_SIZE - offset).min(len - done);
            let clear = |frame: &Frame, _| frame.zero(offset..offset + part);
            self.with_page(at, Access::Write, Toucher::Call, clear).await.ok_or(Errno::EFAULT)?;
            done += part;
            exec::budget().await;
        }
        Ok(())
    }

    /// Calls `access` with the frame behind a page that may be accessed so, and whether it is executable. Under the
    /// space's lock: what is written cannot miss a copy that fork makes of the page, nor its way to storage.
    async fn with_page(
        &self,
        addr: u64,
        how: Access,
        who: Toucher,
        mut access: impl FnMut(&Frame, bool),
    ) -> Option<()> {
        if addr >= USER_END {
            return None;
        }
        while !self.try_with_page(page_down(addr), how, who, &mut access) {
            self.resolve(addr, how, who).await.ok()?;
        }
        Some(())
    }

    /// False if the page is not there, or not for this.
    fn try_with_page(&self, page: u64, how: Access, who: Toucher, access: &mut impl FnMut(&Frame, bool)) -> bool {
        let force = who == Toucher::Onlooker;
        let inner = self.inner.lock();
        let Some(pte) = inner.tables.peek(page) else { return false };
        let flags = pte.flags();
        let closed = !flags.contains(PteFlags::USER) || how == Access::Write && flags.contains(PteFlags::READ_ONLY);
        // A private page that is nobody else's can be written behind its protection.
        let own = || inner.tables.peek_own(page).is_some_and(|pte| is_own(inner.vmas.find(page), pte));
        if closed && !(force && (how != Access::Write || own())) {
            return false;
        }
        // SAFETY: present pages are owned by their entry (or are the zero page, which is for ever), and the entry
        // cannot be emptied under the lock.
        let frame = unsafe { Frame::share_raw((pte.address() / PAGE) as u32) };
        access(&frame, !flags.contains(PteFlags::UXN));
        true
    }
}
