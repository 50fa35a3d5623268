//! System V message queues: msgget(2), msgsnd(2), msgrcv(2), msgctl(2).

use core::sync::atomic::Ordering;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::SysResult;
use super::ipc::{IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, IpcPerm, clamp_int};
use crate::errno::{Errno, Result};
use crate::ipc;
use crate::ipc::ids::IPC_NOWAIT;
use crate::ipc::msg::{self, Message, Received, Wanted};
use crate::mm::UserPtr;
use crate::process::Thread;

const MSG_STAT: i32 = 11;
const MSG_INFO: i32 = 12;
const MSG_STAT_ANY: i32 = 13;

const MSG_NOERROR: u32 = 0o10000;
const MSG_EXCEPT: u32 = 0o20000;
const MSG_COPY: u32 = 0o40000;

/// `struct msqid64_ds`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MsqidDs {
    perm: IpcPerm,
    stime: i64,
    rtime: i64,
    ctime: i64,
    bytes: u64,
    messages: u64,
    max_bytes: u64,
    sender: u32,
    receiver: u32,
    unused: [u64; 2],
}

impl From<&msg::Status> for MsqidDs {
    fn from(status: &msg::Status) -> Self {
        MsqidDs {
            perm: status.perm.into(),
            stime: status.stime,
            rtime: status.rtime,
            ctime: status.ctime,
            bytes: status.bytes as u64,
            messages: status.messages as u64,
            max_bytes: status.max_bytes as u64,
            sender: status.sender,
            receiver: status.receiver,
            unused: [0; 2],
        }
    }
}

pub fn msgget(t: &Thread, key: i32, flags: u32) -> Result<i32> {
    msg::get(t.creds(), key, flags)
}

/// A message of up to so many bytes that can be sent without waiting is sent at once.
const SMALL: u64 = 1024;

pub fn msgsnd_now(t: &Thread, id: i32, from: UserPtr<i64>, size: u64, _flags: u32) -> Option<Result<()>> {
    if size > SMALL || size > msg::MAX_SIZE.load(Ordering::Relaxed) as u64 || id < 0 {
        return None;
    }
    let kind = from.try_read().ok().filter(|kind| *kind > 0)?;
    let mut data = ipc::buffer(size as usize).ok()?;
    from.byte_add(8).cast::<u8>().try_read_bytes(&mut data).ok()?;
    msg::send_now(t, id, &mut Some(Message { kind, data })).transpose()
}

pub async fn msgsnd(t: &Thread, id: i32, from: UserPtr<i64>, size: u64, flags: u32) -> SysResult<()> {
    let kind = from.read(t.mm()).await?;
    if size > msg::MAX_SIZE.load(Ordering::Relaxed) as u64 || id < 0 || kind < 1 {
        return Err(Errno::EINVAL.into());
    }
    let mut data = ipc::buffer(size as usize)?;
    from.byte_add(8).cast::<u8>().read_bytes(t.mm(), &mut data).await?;
    msg::send(t, id, Message { kind, data }, flags & IPC_NOWAIT != 0).await
}

pub async fn msgrcv(t: &Thread, id: i32, to: UserPtr<i64>, size: u64, kind: i64, flags: u32) -> SysResult<usize> {
    if id < 0 || size > i64::MAX as u64 {
        return Err(Errno::EINVAL.into());
    }
    let now = flags & IPC_NOWAIT != 0;
    if flags & MSG_COPY != 0 && (flags & MSG_EXCEPT != 0 || !now) {
        return Err(Errno::EINVAL.into());
    }
    let wanted = match kind {
        index if flags & MSG_COPY != 0 => Wanted::Copy(index),
        0 => Wanted::Any,
        ..0 => Wanted::UpTo(kind.checked_neg().unwrap_or(i64::MAX)),
        _ if flags & MSG_EXCEPT != 0 => Wanted::NotEqual(kind),
        _ => Wanted::Equal(kind),
    };
    let size = size as usize;
    let message = msg::receive(t, id, Received { wanted, room: size, cut: flags & MSG_NOERROR != 0, now }).await?;
    to.write(t.mm(), message.kind).await?;
    let data = message.data.get(..size).unwrap_or(&message.data);
    to.byte_add(8).cast::<u8>().write_bytes(t.mm(), data).await?;
    Ok(data.len())
}

pub async fn msgctl(t: &Thread, id: i32, command: i32, arg: u64) -> Result<u32> {
    if id < 0 || command < 0 {
        return Err(Errno::EINVAL);
    }
    let creds = t.creds();
    match command {
        IPC_INFO | MSG_INFO => return report(t, command, UserPtr::new(arg)).await,
        IPC_STAT | MSG_STAT | MSG_STAT_ANY => {
            let reader = (command != MSG_STAT_ANY).then_some(&**creds);
            let status = msg::status(reader, id, command != IPC_STAT)?;
            UserPtr::new(arg).write(t.mm(), MsqidDs::from(&status)).await?;
            return Ok(if command == IPC_STAT { 0 } else { status.perm.id as u32 });
        }
        IPC_SET => {
            let new: MsqidDs = UserPtr::new(arg).read(t.mm()).await?;
            msg::set_owner(creds, id, &new.perm.change(), new.max_bytes)?;
        }
        IPC_RMID => msg::remove(creds, id)?,
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// IPC_INFO and MSG_INFO: `struct msginfo`, seven integers and a short one. Some of them Linux tells, and nobody obeys.
async fn report(t: &Thread, command: i32, to: UserPtr<[i32; 8]>) -> Result<u32> {
    const SEGMENT_SIZE: i32 = 16;
    const SEGMENTS: i32 = 0xffff;
    const DEFAULT_BYTES: i32 = 16384;
    const POOL_KIB: i32 = 32000 * DEFAULT_BYTES / 1024;
    let info = msg::info();
    let [max_size, max_bytes, queues] =
        [&msg::MAX_SIZE, &msg::MAX_BYTES, &msg::MAX_QUEUES].map(|limit| clamp_int(limit.load(Ordering::Relaxed)));
    let [pool, map, headers] = match command {
        MSG_INFO => [info.queues, info.messages, info.bytes].map(clamp_int),
        _ => [POOL_KIB, DEFAULT_BYTES, DEFAULT_BYTES],
    };
    to.write(t.mm(), [pool, map, max_size, max_bytes, queues, SEGMENT_SIZE, headers, SEGMENTS]).await?;
    Ok(info.highest as u32)
}
