//! Memory: mmap(2) and its family.

use crate::errno::{Errno, Result};
use crate::fs::inode_flags::InodeFlags;
use crate::fs::regular;
use crate::mm::{MapFlags, MmapRequest, MremapRequest, PAGE_SIZE, Prot, UserPtr, page_up, untag};
use crate::process::run::killable;
use crate::process::{Caps, Resource, Thread};

const MAP_TYPE: u32 = 0x0f;
const MAP_SHARED: u32 = 0x01;
const MAP_PRIVATE: u32 = 0x02;
const MAP_SHARED_VALIDATE: u32 = 0x03;
const MAP_HUGETLB: u32 = 0x4_0000;
const MAP_HUGE_SHIFT: u32 = 26;
const MAP_SYNC: u32 = 0x8_0000;
const PROT_GROWSDOWN: u32 = 0x0100_0000;
const PROT_GROWSUP: u32 = 0x0200_0000;

pub async fn mmap(t: &Thread, addr: u64, len: u64, prot: u32, flags: u32, fd: i32, offset: u64) -> Result<u64> {
    if !offset.is_multiple_of(PAGE_SIZE as u64) {
        return Err(Errno::EINVAL);
    }
    let mut map = MapFlags::from_bits_truncate(flags & !MAP_TYPE);
    match flags & MAP_TYPE {
        MAP_PRIVATE => map |= MapFlags::PRIVATE,
        MAP_SHARED => map |= MapFlags::SHARED,
        // Files can be asked what they support, anonymous memory cannot.
        MAP_SHARED_VALIDATE if map.contains(MapFlags::ANONYMOUS) => return Err(Errno::EINVAL),
        MAP_SHARED_VALIDATE => {
            const DENYWRITE_EXECUTABLE: u32 = 0x800 | 0x1000;
            const HUGE_SIZES: u32 = 31 << 26;
            let known = MapFlags::all().bits() | MAP_TYPE | DENYWRITE_EXECUTABLE | HUGE_SIZES;
            if flags & !known != 0 || flags & MAP_SYNC != 0 {
                return Err(Errno::EOPNOTSUPP);
            }
            map |= MapFlags::SHARED;
        }
        _ => return Err(Errno::EINVAL),
    }
    if flags & MAP_HUGETLB != 0 {
        return Err(refuse_hugetlb(t, map.contains(MapFlags::ANONYMOUS), flags >> MAP_HUGE_SHIFT & 63, fd));
    }
    map.set(MapFlags::LOW, t.creds().capable(Caps::SYS_RAWIO));
    map.set(MapFlags::LOCK_ANY, limitless(t));
    if map.contains(MapFlags::LOCKED) {
        may_lock(t)?;
    }
    let prot = Prot::from_bits_truncate(prot);
    let mut mapped_file = None;
    let source = if map.contains(MapFlags::ANONYMOUS) {
        None
    } else {
        let file = t.files().get_io(fd)?;
        // Before the question whether the file can be mapped at all.
        if map.contains(MapFlags::SHARED) && prot.contains(Prot::WRITE) && !file.writable() || !file.readable() {
            return Err(Errno::EACCES);
        }
        let append_only = file.inode().obeyed_flags().contains(InodeFlags::APPEND);
        if map.contains(MapFlags::SHARED) && append_only && file.writable() {
            return Err(Errno::EACCES);
        }
        if let Some(pages) = file.ops().and_then(|ops| ops.shared_pages(&file, offset)) {
            let request = MmapRequest { addr, len, prot, flags: map, source: None, offset };
            return t.mm().mmap_special(request, pages?).await;
        }
        Some(mapped_file.insert(file).page_source()?)
    };
    let request = MmapRequest { addr, len, prot, flags: map, source, offset };
    let mapped = if map.intersects(MapFlags::POPULATE | MapFlags::LOCKED) {
        killable(t, t.mm().mmap(request)).await?
    } else {
        t.mm().mmap(request).await
    };
    if let (Ok(_), Some(file)) = (&mapped, &mapped_file) {
        regular::accessed(file).await;
    }
    mapped
}

/// No pages are reserved for hugetlbfs; before that is found out, files have to be its own, and sizes (a power of two; 0
/// is the default) those of this page-table format.
fn refuse_hugetlb(t: &Thread, anonymous: bool, size_log: u32, fd: i32) -> Errno {
    if !anonymous {
        return t.files().get_io(fd).err().unwrap_or(Errno::EINVAL);
    }
    match size_log {
        0 | 16 | 21 | 25 | 30 => Errno::ENOMEM,
        _ => Errno::EINVAL,
    }
}

pub fn munmap_now(t: &mut Thread, addr: u64, len: u64) -> Option<Result<()>> {
    t.mm().munmap_now(addr, len)
}

pub async fn munmap(t: &Thread, addr: u64, len: u64) -> Result<()> {
    t.mm().munmap(addr, len).await
}

pub fn mprotect_now(t: &mut Thread, addr: u64, len: u64, prot: u32) -> Option<Result<()>> {
    t.mm().mprotect_now(addr, len, Prot::from_bits(prot)?)
}

pub async fn mprotect(t: &Thread, addr: u64, len: u64, prot: u32) -> Result<()> {
    /// For atomics, which need nothing special.
    const PROT_SEM: u32 = 8;
    let grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP);
    let prot = Prot::from_bits(prot & !(grows | PROT_SEM)).ok_or(Errno::EINVAL)?;
    if grows & PROT_GROWSUP != 0 {
        return Err(Errno::EINVAL);
    }
    t.mm().mprotect(addr, len, prot, grows != 0).await
}

pub async fn mremap(t: &Thread, addr: u64, old_len: u64, new_len: u64, flags: u32, new_addr: u64) -> Result<u64> {
    t.mm().mremap(MremapRequest { addr, old_len, new_len, flags, new_addr }).await
}

/// Maps other pages of a file, or of shared memory, where some of it is mapped.
pub async fn remap_file_pages(t: &Thread, addr: u64, len: u64, prot: u64, page: u64, flags: u64) -> Result<()> {
    const MASK: u64 = !(PAGE_SIZE as u64 - 1);
    let (start, len) = (untag(addr) & MASK, len & MASK);
    let end = start.checked_add(len).filter(|&end| end > start).ok_or(Errno::EINVAL)?;
    if prot != 0 || page.checked_add(len / PAGE_SIZE as u64).is_none() {
        return Err(Errno::EINVAL);
    }
    let mut request = t.mm().remap_request(start..end)?;
    request.offset = page.checked_mul(PAGE_SIZE as u64).ok_or(Errno::EOVERFLOW)?;
    request.flags |= MapFlags::from_bits_truncate(flags as u32) & MapFlags::NONBLOCK;
    killable(t, t.mm().mmap(request)).await?.map(drop)
}

pub fn brk_now(t: &mut Thread, addr: u64) -> Option<Result<u64>> {
    t.mm().brk_now(addr).map(Ok)
}

pub async fn brk(t: &Thread, addr: u64) -> Result<u64> {
    Ok(t.mm().brk(addr).await)
}

pub async fn madvise(t: &Thread, addr: u64, len: u64, advice: u32) -> Result<()> {
    /// MADV_WILLNEED, MADV_REMOVE, MADV_COLD, MADV_PAGEOUT, MADV_POPULATE_READ and MADV_POPULATE_WRITE: what may take long.
    const LONG: [u32; 6] = [3, 9, 20, 21, 22, 23];
    if LONG.contains(&advice) {
        return killable(t, t.mm().madvise(addr, len, advice)).await?;
    }
    t.mm().madvise(addr, len, advice).await
}

pub async fn msync(t: &Thread, addr: u64, len: u64, flags: u32) -> Result<()> {
    t.mm().msync(addr, len, flags).await
}

pub async fn mincore(t: &Thread, addr: u64, len: u64, vec: UserPtr<u8>) -> Result<()> {
    /// Pages looked at in one step.
    const STEP: usize = 512;
    let addr = untag(addr);
    if !addr.is_multiple_of(PAGE_SIZE as u64) {
        return Err(Errno::EINVAL);
    }
    let pages = page_up(len).ok_or(Errno::ENOMEM)? / PAGE_SIZE as u64;
    if !crate::mm::access_ok(addr, pages * PAGE_SIZE as u64) {
        return Err(Errno::ENOMEM);
    }
    let mut resident = [0; STEP];
    let mut done = 0;
    while done < pages {
        let step = (pages - done).min(STEP as u64);
        let part = &mut resident[..step as usize];
        t.mm().residency(addr + done * PAGE_SIZE as u64, part)?;
        vec.byte_add(done).write_bytes(t.mm(), part).await?;
        done += step;
        crate::exec::budget().await;
    }
    Ok(())
}

/// mlock(2) needs a limit above 0 or CAP_IPC_LOCK.
fn may_lock(t: &Thread) -> Result<()> {
    if limitless(t) || t.rlimit(Resource::Memlock).soft > 0 { Ok(()) } else { Err(Errno::EPERM) }
}

fn limitless(t: &Thread) -> bool {
    t.creds().capable(Caps::IPC_LOCK)
}

pub async fn mlock(t: &Thread, addr: u64, len: u64) -> Result<()> {
    mlock2(t, addr, len, 0).await
}

pub async fn mlock2(t: &Thread, addr: u64, len: u64, flags: u32) -> Result<()> {
    const MLOCK_ONFAULT: u32 = 1;
    if flags & !MLOCK_ONFAULT != 0 {
        return Err(Errno::EINVAL);
    }
    may_lock(t)?;
    killable(t, t.mm().mlock(addr, len, flags & MLOCK_ONFAULT != 0, limitless(t))).await?
}

pub async fn munlock(t: &Thread, addr: u64, len: u64) -> Result<()> {
    t.mm().munlock(addr, len).await
}

pub async fn mlockall(t: &Thread, flags: u32) -> Result<()> {
    const CURRENT: u32 = 1;
    const FUTURE: u32 = 2;
    const ONFAULT: u32 = 4;
    if flags == 0 || flags & !(CURRENT | FUTURE | ONFAULT) != 0 || flags == ONFAULT {
        return Err(Errno::EINVAL);
    }
    may_lock(t)?;
    let [current, future, on_fault] = [CURRENT, FUTURE, ONFAULT].map(|flag| flags & flag != 0);
    killable(t, t.mm().mlockall(current, future, on_fault, limitless(t))).await?
}

pub fn munlockall(t: &mut Thread) -> Result<()> {
    t.mm().munlockall();
    Ok(())
}
