//! System V semaphores: semget(2), semop(2), semctl(2).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::ipc::{self, IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, IpcPerm};
use crate::errno::{Errno, Result};
use crate::exec::Instant;
use crate::ipc::sem::{self, OpFlags, Ops, Query, SemOp};
use crate::mm::UserPtr;
use crate::process::Thread;
use crate::time::UserTimespec;

const GETPID: i32 = 11;
const GETVAL: i32 = 12;
const GETALL: i32 = 13;
const GETNCNT: i32 = 14;
const GETZCNT: i32 = 15;
const SETVAL: i32 = 16;
const SETALL: i32 = 17;
const SEM_STAT: i32 = 18;
const SEM_INFO: i32 = 19;
const SEM_STAT_ANY: i32 = 20;

/// `struct semid64_ds`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SemidDs {
    perm: IpcPerm,
    otime: i64,
    ctime: i64,
    count: u64,
    unused: [u64; 2],
}

/// `struct sembuf`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SemBuf {
    index: u16,
    delta: i16,
    flags: u16,
}

impl From<SemBuf> for SemOp {
    fn from(buf: SemBuf) -> Self {
        SemOp { index: buf.index, delta: buf.delta, flags: OpFlags::from_bits_retain(buf.flags) }
    }
}

pub fn semget(t: &Thread, key: i32, count: i32, flags: u32) -> Result<i32> {
    sem::get(t.creds(), key, count, flags)
}

/// Operations that need no waiting.
pub fn semop_now(t: &Thread, id: i32, ops: UserPtr<SemBuf>, count: u32) -> Option<Result<()>> {
    if count != 1 || id < 0 {
        return None;
    }
    let op = ops.try_read().ok()?;
    let mut all = Ops::new();
    all.push(op.into());
    sem::operate_now(t, id, &all)
}

pub async fn semop(t: &Thread, id: i32, ops: UserPtr<SemBuf>, count: u32) -> Result<()> {
    let ops = read_ops(t, ops, count).await?;
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    sem::operate(t, id, ops, None).await
}

pub async fn semtimedop(
    t: &Thread,
    id: i32,
    ops: UserPtr<SemBuf>,
    count: u32,
    limit: UserPtr<UserTimespec>,
) -> Result<()> {
    let limit = match limit.non_null() {
        Some(limit) => Some(limit.read(t.mm()).await?),
        None => None,
    };
    let ops = read_ops(t, ops, count).await?;
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    let limit = limit.map(UserTimespec::validate).transpose()?;
    let deadline = limit.map(|limit| Instant::now().saturating_add(limit.to_duration()));
    sem::operate(t, id, ops, deadline).await
}

async fn read_ops(t: &Thread, ops: UserPtr<SemBuf>, count: u32) -> Result<Ops> {
    let most = sem::max_ops();
    if count as usize > most {
        return Err(Errno::E2BIG);
    }
    if count == 0 {
        return Err(Errno::EINVAL);
    }
    if count == 1 {
        let mut all = Ops::new();
        all.push(ops.read(t.mm()).await?.into());
        return Ok(all);
    }
    let ops = ops.read_slice(t.mm(), count as usize, most).await?;
    let mut all = Ops::new();
    all.try_reserve(ops.len()).map_err(|_| Errno::ENOMEM)?;
    all.extend(ops.into_iter().map(SemOp::from));
    Ok(all)
}

pub async fn semctl(t: &Thread, id: i32, index: i32, command: i32, arg: u64) -> Result<u32> {
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    let (creds, pid) = (t.creds(), t.process().pid);
    match command {
        IPC_INFO | SEM_INFO => return report(t, command, UserPtr::new(arg)).await,
        IPC_STAT | SEM_STAT | SEM_STAT_ANY => {
            let reader = (command != SEM_STAT_ANY).then_some(&**creds);
            let status = sem::status(reader, id, command != IPC_STAT)?;
            let (perm, count) = (status.perm.into(), status.count as u64);
            let data = SemidDs { perm, otime: status.otime, ctime: status.ctime, count, unused: [0; 2] };
            UserPtr::new(arg).write(t.mm(), data).await?;
            return Ok(if command == IPC_STAT { 0 } else { status.perm.id as u32 });
        }
        IPC_SET => {
            let new: SemidDs = UserPtr::new(arg).read(t.mm()).await?;
            sem::set_owner(creds, id, &new.perm.change())?;
        }
        IPC_RMID => sem::remove(creds, id)?,
        GETALL => {
            let values = sem::values(creds, id)?;
            UserPtr::new(arg).write_slice(t.mm(), &values).await?;
        }
        SETALL => {
            let count = sem::count_to_set(creds, id)?;
            let values: alloc::vec::Vec<u16> = UserPtr::new(arg).read_slice(t.mm(), count, count).await?;
            sem::set_all(creds, id, &values, pid)?;
        }
        SETVAL => sem::set_value(creds, id, index, arg as i32, pid)?,
        GETVAL => return sem::query(creds, id, index, Query::Value),
        GETPID => return sem::query(creds, id, index, Query::Pid),
        GETNCNT => return sem::query(creds, id, index, Query::Higher),
        GETZCNT => return sem::query(creds, id, index, Query::Zero),
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// IPC_INFO and SEM_INFO: `struct seminfo`, ten integers.
async fn report(t: &Thread, command: i32, to: UserPtr<[i32; 10]>) -> Result<u32> {
    /// What Linux tells and nobody obeys.
    const SEMUSZ: i32 = 20;
    let info = sem::info();
    let [in_a_set, in_all, in_a_call, sets] =
        [info.in_a_set, info.in_all, info.in_a_call, info.sets].map(ipc::clamp_int);
    const DEFAULT_ALL: i32 = 32000 * 32000;
    let (used_sets, used) = match command {
        SEM_INFO => (ipc::clamp_int(info.used_sets), ipc::clamp_int(info.used)),
        _ => (SEMUSZ, sem::MAX_VALUE),
    };
    let words = [DEFAULT_ALL, sets, in_all, DEFAULT_ALL, in_a_set, in_a_call, 500, used_sets, sem::MAX_VALUE, used];
    to.write(t.mm(), words).await?;
    Ok(info.highest as u32)
}
