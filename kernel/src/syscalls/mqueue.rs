//! POSIX message queues: mq_open(2) and its kin.

use alloc::sync::Arc;

use linux_raw_sys::general as raw;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::SysResult;
use super::fs_open::read_path;
use super::time::UserSigEvent;
use crate::errno::{Errno, Result};
use crate::fs::OpenFile;
use crate::ipc;
use crate::ipc::mqueue::{self, How, Size};
use crate::mm::UserPtr;
use crate::net::socket;
use crate::process::Thread;
use crate::signal;
use crate::time::{ClockId, Deadline, UserTimespec};

/// `struct mq_attr`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MqAttr {
    flags: u64,
    messages: i64,
    bytes: i64,
    current: i64,
    reserved: [u64; 4],
}

pub async fn mq_open(t: &Thread, name: UserPtr<u8>, flags: u32, mode: u32, attr: UserPtr<MqAttr>) -> Result<i32> {
    let size = match attr.non_null() {
        // What is negative is more than anybody may have.
        Some(attr) => attr
            .read(t.mm())
            .await
            .map(|attr| Size { messages: attr.messages as u64, bytes: attr.bytes as u64 })
            .map(Some)?,
        None => None,
    };
    let name = read_path(t, name).await?;
    if !t.files().has_room() {
        return Err(Errno::EMFILE);
    }
    let file = mqueue::open(t, &name, flags, mode, size).await?;
    t.files().install(file, true)
}

pub async fn mq_unlink(t: &Thread, name: UserPtr<u8>) -> Result<()> {
    mqueue::unlink(t, &read_path(t, name).await?).await
}

async fn read_deadline(t: &Thread, time: UserPtr<UserTimespec>) -> Result<Option<Deadline>> {
    match time.non_null() {
        Some(time) => {
            let at = time.read(t.mm()).await?.validate()?.to_nanos();
            Ok(Some(Deadline { clock: ClockId::Realtime, at }))
        }
        None => Ok(None),
    }
}

/// A queue that is open for writing, for a message of `len` bytes.
fn for_sending(t: &Thread, fd: i32, len: u64) -> Result<Arc<OpenFile>> {
    let file = t.files().get_io(fd)?;
    let queue = mqueue::queue_of(&file)?;
    file.check_writable()?;
    if len > queue.size.bytes { Err(Errno::EMSGSIZE) } else { Ok(file) }
}

/// A short message for which there is room is sent at once.
pub fn mq_timedsend_now(
    t: &Thread,
    fd: i32,
    from: UserPtr<u8>,
    len: u64,
    priority: u32,
    time: UserPtr<UserTimespec>,
) -> Option<Result<()>> {
    const SHORT: u64 = 1024;
    if len > SHORT || priority >= mqueue::PRIORITIES || !time.is_null() {
        return None;
    }
    let file = for_sending(t, fd, len).ok()?;
    let mut data = ipc::buffer(len as usize).ok()?;
    from.try_read_bytes(&mut data).ok()?;
    mqueue::send_now(t, mqueue::queue_of(&file).ok()?, priority, data).then_some(Ok(()))
}

pub async fn mq_timedsend(
    t: &Thread,
    fd: i32,
    from: UserPtr<u8>,
    len: u64,
    priority: u32,
    time: UserPtr<UserTimespec>,
) -> SysResult<()> {
    let deadline = read_deadline(t, time).await?;
    if priority >= mqueue::PRIORITIES {
        return Err(Errno::EINVAL.into());
    }
    let file = for_sending(t, fd, len)?;
    let mut data = ipc::buffer(len as usize)?;
    from.read_bytes(t.mm(), &mut data).await?;
    mqueue::send(t, mqueue::queue_of(&file)?, priority, data, file.is_nonblock(), deadline).await
}

pub async fn mq_timedreceive(
    t: &Thread,
    fd: i32,
    to: UserPtr<u8>,
    len: u64,
    priority: UserPtr<u32>,
    time: UserPtr<UserTimespec>,
) -> SysResult<usize> {
    let deadline = read_deadline(t, time).await?;
    let file = t.files().get_io(fd)?;
    let queue = mqueue::queue_of(&file)?;
    file.check_readable()?;
    if len < queue.size.bytes {
        return Err(Errno::EMSGSIZE.into());
    }
    let (found, data) = mqueue::receive(t, queue, file.is_nonblock(), deadline).await?;
    if let Some(priority) = priority.non_null() {
        priority.write(t.mm(), found).await?;
    }
    to.write_bytes(t.mm(), &data).await?;
    Ok(data.len())
}

pub async fn mq_getsetattr(t: &Thread, fd: i32, new: UserPtr<MqAttr>, old: UserPtr<MqAttr>) -> Result<()> {
    let flags = match new.non_null() {
        Some(new) => Some(new.read(t.mm()).await?.flags),
        None => None,
    };
    const NONBLOCK: u64 = raw::O_NONBLOCK as u64;
    if flags.is_some_and(|flags| flags & !NONBLOCK != 0) {
        return Err(Errno::EINVAL);
    }
    let file = t.files().get_io(fd)?;
    let queue = mqueue::queue_of(&file)?;
    let before = MqAttr {
        flags: if file.is_nonblock() { NONBLOCK } else { 0 },
        messages: queue.size.messages as i64,
        bytes: queue.size.bytes as i64,
        current: queue.count() as i64,
        reserved: [0; 4],
    };
    if let Some(flags) = flags {
        file.set_nonblock(flags != 0);
    }
    match old.non_null() {
        Some(old) => old.write(t.mm(), before).await,
        None => Ok(()),
    }
}

pub async fn mq_notify(t: &Thread, fd: i32, event: UserPtr<UserSigEvent>) -> Result<()> {
    let how = match event.non_null() {
        Some(event) => Some(how(t, event.read(t.mm()).await?).await?),
        None => None,
    };
    let file = t.files().get_io(fd)?;
    mqueue::notify(t, mqueue::queue_of(&file)?, how)
}

async fn how(t: &Thread, event: UserSigEvent) -> Result<How> {
    const SIGEV_SIGNAL: i32 = 0;
    const SIGEV_NONE: i32 = 1;
    const SIGEV_THREAD: i32 = 2;
    match event.notify() {
        SIGEV_NONE => Ok(How::Not),
        // Signal 0 is accepted, and never sent.
        SIGEV_SIGNAL => match event.signo() {
            signo if signo == 0 || signal::is_valid(signo) => {
                Ok(How::Signal { signo: signo as u8, value: event.value() })
            }
            _ => Err(Errno::EINVAL),
        },
        SIGEV_THREAD => {
            // The C library waits for a cookie on a netlink socket. Such sockets are not there, so it is another's, or none.
            let mut cookie = [0; 32];
            UserPtr::<u8>::new(event.value()).read_bytes(t.mm(), &mut cookie).await?;
            let file = t.files().get(event.signo())?;
            socket::of_file(&file)?;
            Err(Errno::EINVAL)
        }
        _ => Err(Errno::EINVAL),
    }
}
