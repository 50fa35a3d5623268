//! What /proc tells about a space, special mappings, and futex keys.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;

use super::super::addr::PAGE;
use super::super::frames::Frame;
use super::huge;
use super::types::{FutexKey, Limits};
use super::vma::{Backing, Prot, Special, Vma, VmaFlags};
use super::{AddressSpace, Inner};
use crate::arch::UserFault;
use crate::errno::{Errno, Result};

/// One line of /proc/PID/maps.
pub struct VmaInfo {
    pub range: Range<u64>,
    pub prot: Prot,
    pub shared: bool,
    /// In the file, bytes.
    pub offset: u64,
    /// Encoded device number.
    pub dev: u64,
    pub ino: u64,
    /// Path, `[heap]`, `[stack]`, `[vdso]` …; empty for anonymous memory.
    pub name: String,
    pub flags: VmaFlags,
    /// There could be blocks of 2 MiB.
    pub may_be_huge: bool,
}

/// Sizes in pages, for /proc/PID/{stat,statm,status}.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpaceStats {
    pub total: u64,
    pub peak: u64,
    pub resident: u64,
    pub resident_peak: u64,
    pub resident_anon: u64,
    pub resident_file: u64,
    /// Private and writable, without the stack.
    pub data: u64,
    pub stack: u64,
    /// The program's own code.
    pub exe: u64,
    /// Other executable mappings of files.
    pub lib: u64,
    pub locked: u64,
    /// prctl(PR_SET_THP_DISABLE).
    pub no_blocks: bool,
    /// Page-table pages, and pages of the map of mappings.
    pub tables: u64,
    pub map_pages: u64,
}

impl AddressSpace {
    /// Maps kernel frames (vDSO, vvar) at or near `hint`; answers where.
    pub fn insert_special(&self, hint: u64, frames: Vec<Frame>, prot: Prot, name: &'static str) -> Result<u64> {
        let len = frames.len() as u64 * PAGE;
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let mut inner = self.inner.lock();
        let start = inner.place(hint, len, PAGE).ok_or(Errno::ENOMEM)?;
        let backing = Backing::Special(Arc::new(Special { name: name.into(), frames, keep: None }), 0);
        let vma = Vma::new(start + len, prot, VmaFlags::SPECIAL | VmaFlags::DONTDUMP, backing);
        inner.add(start, vma, &self.limits)?;
        Ok(start)
    }

    /// Is anything mapped?
    pub fn has_vmas(&self) -> bool {
        self.inner.lock().vmas.iter().next().is_some()
    }

    /// The mapping at `addr` or the first after it: for going through all of them without holding the lock.
    pub fn next_vma(&self, addr: u64) -> Option<VmaInfo> {
        let stack = self.meta().start_stack;
        let mut inner = self.inner.lock();
        inner.vmas.settle();
        inner.vmas.find_from(addr).map(|(start, vma)| inner.describe(start, vma, stack, &self.limits))
    }

    pub fn stats(&self) -> SpaceStats {
        let (exe, stack_at) = {
            let meta = self.meta();
            (meta.start_code..meta.end_code, meta.start_stack)
        };
        let mut inner = self.inner.lock();
        let resident = inner.note_resident();
        let mut stats = SpaceStats {
            total: inner.vmas.total() / PAGE,
            peak: inner.peak_total / PAGE,
            resident: resident.anon + resident.file,
            resident_peak: inner.peak_resident,
            resident_anon: resident.anon,
            resident_file: resident.file,
            locked: inner.locked / PAGE,
            no_blocks: self.limits.no_blocks.load(Ordering::Relaxed),
            tables: resident.live,
            map_pages: inner.vmas.bytes() as u64 / PAGE,
            ..SpaceStats::default()
        };
        for (start, vma) in inner.vmas.iter() {
            let pages = (vma.end - start) / PAGE;
            if vma.flags.contains(VmaFlags::GROWSDOWN) || (start..vma.end).contains(&stack_at) {
                stats.stack += pages;
            } else if vma.prot.contains(Prot::EXEC) && vma.source().is_some() {
                let own = start < exe.end && exe.start < vma.end;
                *(if own { &mut stats.exe } else { &mut stats.lib }) += pages;
            } else if vma.prot.contains(Prot::WRITE) && !vma.is_shared() {
                stats.data += pages;
            }
        }
        stats
    }

    /// Where the program's heap is: start and break.
    pub fn heap(&self) -> Range<u64> {
        let inner = self.inner.lock();
        inner.brk_start..inner.brk
    }

    /// The identity of the futex word at `addr`; `private` is FUTEX_PRIVATE_FLAG.
    pub fn futex_key(&self, addr: u64, private: bool) -> Result<FutexKey, UserFault> {
        if private {
            return Ok(FutexKey::Private { space: self.id, addr });
        }
        let inner = self.inner.lock();
        let (start, vma) = inner.vmas.find(addr).ok_or(UserFault::read(addr))?;
        Ok(match &vma.backing {
            Backing::Source(mapped, _) if vma.is_shared() && !vma.prot.is_empty() => {
                FutexKey::Shared { object: mapped.source().cache().id(), offset: vma.source_offset(start, addr) }
            }
            _ if vma.is_shared() => return Err(UserFault::read(addr)),
            // A page that never changes has nothing to wait for (futex(2) does not say so, Linux does).
            _ if !vma.prot.contains(Prot::WRITE) => return Err(UserFault::write(addr)),
            _ => FutexKey::Anonymous { space: self.id, addr },
        })
    }
}

impl Inner {
    fn describe(&self, start: u64, vma: &Vma, stack: u64, limits: &Limits) -> VmaInfo {
        let mut info = VmaInfo {
            range: start..vma.end,
            prot: vma.prot,
            shared: vma.is_shared(),
            offset: vma.source_offset(start, start),
            dev: 0,
            ino: 0,
            name: String::new(),
            flags: vma.flags,
            may_be_huge: huge::is_eligible(start..vma.end, vma, limits),
        };
        match &vma.backing {
            Backing::Source(mapped, _) => {
                (info.dev, info.ino) = mapped.source().dev_ino();
                info.name = mapped.source().name();
            }
            Backing::Special(special, _) => info.name = special.name.clone().into_owned(),
            Backing::Anonymous if start < self.brk && vma.end > self.brk_start => info.name = "[heap]".into(),
            Backing::Anonymous if (start..vma.end).contains(&stack) => info.name = "[stack]".into(),
            Backing::Anonymous => {}
        }
        info
    }
}
