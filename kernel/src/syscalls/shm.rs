//! System V shared memory: shmget(2), shmat(2), shmctl(2).

use core::sync::atomic::Ordering;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::ipc::{IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, IpcPerm};
use crate::errno::{Errno, Result};
use crate::ipc::shm::{self, AttachFlags};
use crate::mm::{UserPtr, untag};
use crate::process::Thread;

const SHM_LOCK: i32 = 11;
const SHM_UNLOCK: i32 = 12;
const SHM_STAT: i32 = 13;
const SHM_INFO: i32 = 14;
const SHM_STAT_ANY: i32 = 15;

/// `struct shmid64_ds`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ShmidDs {
    perm: IpcPerm,
    size: u64,
    atime: i64,
    dtime: i64,
    ctime: i64,
    cpid: u32,
    lpid: u32,
    attaches: u64,
    unused: [u64; 2],
}

impl From<&shm::Status> for ShmidDs {
    fn from(status: &shm::Status) -> Self {
        ShmidDs {
            perm: status.perm.into(),
            size: status.size,
            atime: status.atime,
            dtime: status.dtime,
            ctime: status.ctime,
            cpid: status.cpid,
            lpid: status.lpid,
            attaches: status.attaches,
            unused: [0; 2],
        }
    }
}

pub fn shmget(t: &Thread, key: i32, size: u64, flags: u32) -> Result<i32> {
    shm::get(t, key, size, flags)
}

pub async fn shmat(t: &Thread, id: i32, addr: u64, flags: u32) -> Result<u64> {
    shm::attach(t, id, untag(addr), AttachFlags::from_bits_truncate(flags)).await
}

pub async fn shmdt(t: &Thread, addr: u64) -> Result<()> {
    shm::detach(t, untag(addr)).await
}

pub async fn shmctl(t: &Thread, id: i32, command: i32, arg: u64) -> Result<u32> {
    if id < 0 || command < 0 {
        return Err(Errno::EINVAL);
    }
    let creds = t.creds();
    match command {
        IPC_INFO => return limits(t, UserPtr::new(arg)).await,
        SHM_INFO => return used(t, UserPtr::new(arg)).await,
        IPC_STAT | SHM_STAT | SHM_STAT_ANY => {
            let reader = (command != SHM_STAT_ANY).then_some(&**creds);
            let status = shm::status(reader, id, command != IPC_STAT)?;
            UserPtr::new(arg).write(t.mm(), ShmidDs::from(&status)).await?;
            return Ok(if command == IPC_STAT { 0 } else { status.perm.id as u32 });
        }
        IPC_SET => {
            let new: ShmidDs = UserPtr::new(arg).read(t.mm()).await?;
            shm::set_owner(creds, id, &new.perm.change())?;
        }
        IPC_RMID => shm::remove(creds, id)?,
        SHM_LOCK | SHM_UNLOCK => shm::set_locked(t, id, command == SHM_LOCK)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// `struct shminfo64`: the largest and the smallest segment, segments, segments of a process, pages.
async fn limits(t: &Thread, to: UserPtr<[u64; 9]>) -> Result<u32> {
    let segments = shm::MAX_SEGMENTS.load(Ordering::Relaxed) as u64;
    let (size, pages) = (shm::MAX_SIZE.load(Ordering::Relaxed), shm::MAX_PAGES.load(Ordering::Relaxed));
    to.write(t.mm(), [size, 1, segments, segments, pages, 0, 0, 0, 0]).await?;
    Ok(shm::info().highest as u32)
}

/// `struct shm_info`: segments, pages, pages in memory, and three about swapping.
async fn used(t: &Thread, to: UserPtr<[u64; 6]>) -> Result<u32> {
    let info = shm::info();
    to.write(t.mm(), [info.used as u64, info.pages, info.resident, 0, 0, 0]).await?;
    Ok(info.highest as u32)
}
