//! io_uring_register(2): one operation of many.

use alloc::sync::Arc;
use core::sync::atomic::Ordering::Release;

use linux_raw_sys::io_uring::{self as raw, io_uring_register_op as op};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::provided::BufReg;
use super::restrict::{REGISTER_LAST, Restriction, Restrictions};
use super::{Registered, probe};
use crate::errno::{Errno, Result};
use crate::io_uring::abi::Setup;
use crate::io_uring::ops::{self, sync_cancel};
use crate::io_uring::ring::Ring;
use crate::io_uring::tasks;
use crate::mm::UserPtr;
use crate::process::Thread;
use crate::syscalls::SysResult;

/// `struct io_uring_files_update`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct FilesUpdate {
    offset: u32,
    resv: u32,
    fds: u64,
}

/// `struct io_uring_rsrc_register`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct RsrcRegister {
    count: u32,
    flags: u32,
    resv2: u64,
    data: u64,
    tags: u64,
}

/// `struct io_uring_rsrc_update2`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct RsrcUpdate {
    offset: u32,
    resv: u32,
    data: u64,
    tags: u64,
    count: u32,
    resv2: u32,
}

/// `struct io_uring_file_index_range`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct IndexRange {
    off: u32,
    len: u32,
    resv: u64,
}

/// EINVAL unless the operation has no argument.
fn bare(arg: u64, count: u32) -> Result<()> {
    if arg == 0 && count == 0 { Ok(()) } else { Err(Errno::EINVAL) }
}

fn single(arg: u64, count: u32) -> Result<()> {
    if arg != 0 && count == 1 { Ok(()) } else { Err(Errno::EINVAL) }
}

pub async fn register(ring: &Arc<Ring>, t: &Thread, opcode: u32, arg: u64, count: u32) -> SysResult<i32> {
    if !ring.may_submit(t.task()) {
        return Err(Errno::EEXIST.into());
    }
    let all = &ring.registered;
    if let Some(restrictions) = all.restrictions.get().filter(|_| !ring.is_disabled()) {
        restrictions.allow_register(opcode)?;
    }
    if opcode == op::IORING_REGISTER_SYNC_CANCEL as u32 {
        single(arg, count)?;
        let what = UserPtr::new(arg).read(t.mm()).await?;
        return sync_cancel(ring, t, what).await.map(|count| count as i32);
    }
    Ok(register_now(ring, all, t, opcode, arg, count).await?)
}

async fn register_now(
    ring: &Arc<Ring>,
    all: &Registered,
    t: &Thread,
    opcode: u32,
    arg: u64,
    count: u32,
) -> Result<i32> {
    let is = |known: op| opcode == known as u32;
    if is(op::IORING_REGISTER_BUFFERS) || is(op::IORING_REGISTER_FILES) {
        if arg == 0 {
            return Err(Errno::EFAULT);
        }
        return match is(op::IORING_REGISTER_FILES) {
            true => all.register_files(t, Some(UserPtr::new(arg)), count).await.map(|()| 0),
            false => all.register_buffers(t, Some(UserPtr::new(arg)), count).await.map(|()| 0),
        };
    }
    if is(op::IORING_UNREGISTER_BUFFERS) || is(op::IORING_UNREGISTER_FILES) {
        bare(arg, count)?;
        let files = is(op::IORING_UNREGISTER_FILES);
        return if files { all.unregister_files() } else { all.unregister_buffers() }.map(|()| 0);
    }
    if is(op::IORING_REGISTER_EVENTFD) || is(op::IORING_REGISTER_EVENTFD_ASYNC) {
        if count != 1 {
            return Err(Errno::EINVAL);
        }
        if all.eventfd.lock().is_some() {
            return Err(Errno::EBUSY);
        }
        let fd = UserPtr::<i32>::new(arg).read(t.mm()).await?;
        let later = is(op::IORING_REGISTER_EVENTFD_ASYNC);
        return all.set_eventfd(ring, t.files().get(fd)?, later).map(|()| 0);
    }
    if is(op::IORING_UNREGISTER_EVENTFD) {
        bare(arg, count)?;
        return all.take_eventfd().map(|()| 0);
    }
    if is(op::IORING_REGISTER_PROBE) {
        if arg == 0 || count > 256 {
            return Err(Errno::EINVAL);
        }
        return probe::probe(t, arg, count).await.map(|()| 0);
    }
    if is(op::IORING_REGISTER_PERSONALITY) {
        bare(arg, count)?;
        return all.add_personality(t.creds().clone()).map(i32::from);
    }
    if is(op::IORING_UNREGISTER_PERSONALITY) {
        bare(arg, 0)?;
        return all.remove_personality(count).map(|()| 0);
    }
    register_more(ring, all, t, opcode, arg, count).await
}

async fn register_more(
    ring: &Arc<Ring>,
    all: &Registered,
    t: &Thread,
    opcode: u32,
    arg: u64,
    count: u32,
) -> Result<i32> {
    let is = |known: op| opcode == known as u32;
    if is(op::IORING_REGISTER_ENABLE_RINGS) {
        bare(arg, count)?;
        if !ring.is_disabled() {
            return Err(Errno::EBADFD);
        }
        ring.adopt(t);
        ring.disabled.store(false, Release);
        return Ok(0);
    }
    if is(op::IORING_REGISTER_RESTRICTIONS) {
        return restrict(ring, all, t, arg, count).await;
    }
    if is(op::IORING_REGISTER_FILES_UPDATE) {
        if count == 0 {
            return Err(Errno::EINVAL);
        }
        let update = UserPtr::<FilesUpdate>::new(arg).read(t.mm()).await?;
        if update.resv != 0 {
            return Err(Errno::EINVAL);
        }
        return all.update_files(t, update.offset, UserPtr::new(update.fds), count).await;
    }
    if is(op::IORING_REGISTER_FILES_UPDATE2) {
        let update = UserPtr::<RsrcUpdate>::new(arg);
        let update = if count as usize == size_of::<RsrcUpdate>() {
            update.read(t.mm()).await?
        } else {
            return Err(Errno::EINVAL);
        };
        if update.count == 0 || update.resv != 0 || update.resv2 != 0 || update.tags != 0 {
            return Err(Errno::EINVAL);
        }
        return all.update_files(t, update.offset, UserPtr::new(update.data), update.count).await;
    }
    if is(op::IORING_REGISTER_FILES2) || is(op::IORING_REGISTER_BUFFERS2) {
        return register_resources(all, t, is(op::IORING_REGISTER_FILES2), arg, count).await;
    }
    if is(op::IORING_REGISTER_RING_FDS) || is(op::IORING_UNREGISTER_RING_FDS) {
        return match is(op::IORING_REGISTER_RING_FDS) {
            true => tasks::register_rings(t, UserPtr::new(arg), count).await,
            false => tasks::unregister_rings(t, UserPtr::new(arg), count).await,
        };
    }
    if is(op::IORING_REGISTER_PBUF_RING) || is(op::IORING_UNREGISTER_PBUF_RING) {
        single(arg, count)?;
        let reg = UserPtr::<BufReg>::new(arg).read(t.mm()).await?;
        return match is(op::IORING_REGISTER_PBUF_RING) {
            true => all.register_ring(t, reg).await.map(|()| 0),
            false => all.unregister_ring(reg).map(|()| 0),
        };
    }
    if is(op::IORING_REGISTER_FILE_ALLOC_RANGE) {
        bare(0, count)?;
        let range = UserPtr::<IndexRange>::new(arg).read(t.mm()).await?;
        if range.resv != 0 {
            return Err(Errno::EINVAL);
        }
        return all.set_file_range(range.off, range.len).map(|()| 0);
    }
    // There are no workers to be bound or counted, and buffers are not changed one by one.
    Err(Errno::EINVAL)
}

async fn restrict(ring: &Ring, all: &Registered, t: &Thread, arg: u64, count: u32) -> Result<i32> {
    /// As many as there are of each kind.
    const MOST: u32 = REGISTER_LAST + ops::Op::LAST as u32 + 2;
    if !ring.setup.contains(Setup::R_DISABLED) || !ring.is_disabled() {
        return Err(Errno::EBADFD);
    }
    if all.restrictions.get().is_some() {
        return Err(Errno::EBUSY);
    }
    if arg == 0 || count > MOST {
        return Err(Errno::EINVAL);
    }
    let list = UserPtr::<Restriction>::new(arg).read_slice(t.mm(), count as usize, MOST as usize).await?;
    let restrictions = Restrictions::from_list(&list)?;
    all.restrictions.call_once(|| restrictions);
    Ok(0)
}

/// IORING_REGISTER_FILES2 and IORING_REGISTER_BUFFERS2: without tags.
async fn register_resources(all: &Registered, t: &Thread, files: bool, arg: u64, size: u32) -> Result<i32> {
    if size as usize != size_of::<RsrcRegister>() {
        return Err(Errno::EINVAL);
    }
    let request = UserPtr::<RsrcRegister>::new(arg).read(t.mm()).await?;
    let sparse = request.flags & raw::IORING_RSRC_REGISTER_SPARSE != 0;
    let unknown = request.flags & !raw::IORING_RSRC_REGISTER_SPARSE != 0;
    if request.count == 0 || request.resv2 != 0 || unknown || sparse && request.data != 0 || request.tags != 0 {
        return Err(Errno::EINVAL);
    }
    let data = (!sparse).then_some(request.data);
    match files {
        true => all.register_files(t, data.map(UserPtr::new), request.count).await?,
        false => all.register_buffers(t, data.map(UserPtr::new), request.count).await?,
    }
    Ok(0)
}

/// Is this an operation that Linux 6.1 knows?
pub fn is_known(opcode: u32) -> bool {
    opcode < REGISTER_LAST
}
