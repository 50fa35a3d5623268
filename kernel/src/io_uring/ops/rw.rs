//! READ, WRITE, and their kin.
//!
//! Files that poll(2) can wait for are tried without waiting, and waited for, whether O_NONBLOCK is set or not; what the
//! first attempt moves is the answer. (Linux does the same with sockets and with what has O_NONBLOCK; a blocking pipe
//! or terminal it leaves to a worker, which makes the blocking call. So do we, without the worker.)

use alloc::sync::Arc;
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use linux_raw_sys::general as raw;

use super::{Op, number, wait};
use crate::errno::{Errno, Result};
use crate::exec;
use crate::fs::inode_flags;
use crate::fs::open_file::{Kind, READ_EVENTS, WRITE_EVENTS};
use crate::fs::{Events, OpenFile};
use crate::io_uring::abi::{Flags, Outcome, Setup, Sqe};
use crate::io_uring::register::Buffer;
use crate::io_uring::request::Request;
use crate::io_uring::ring::Ring;
use crate::io_uring::submit::Entry;
use crate::mm::{IoBuf, IoVec, IoVecs, import_iovec, within_page};
use crate::net::socket::Outgoing;
use crate::net::{socket, transfer};
use crate::process::Thread;
use crate::syscalls::{SysError, SysResult};

/// A read or write that need not wait: of a plain file that is ready, or of cached pages.
pub fn at_once(ring: &Ring, t: &Thread, sqe: &Sqe, write: bool) -> Option<Outcome> {
    if sqe.op_flags != 0 || sqe.ioprio != 0 || sqe.has(Flags::BUFFER_SELECT) {
        return None;
    }
    let file = super::file_of(ring, t, sqe).ok()?;
    let len = u64::from(sqe.len);
    let mut buf = IoBuf::user(t.mm(), sqe.addr, len).ok()?;
    match file.kind() {
        Kind::Ops(_) if within_page(sqe.addr, len) && (!file.seekable() || sqe.off == u64::MAX) => {
            let moved = if write { file.write_now(&mut buf) } else { file.read_now(&mut buf, true) };
            moved.map(|moved| outcome(moved.map_or_else(|errno| -errno.get(), |n| n as i32), len))
        }
        // Dropped and made again as a request if it has to wait: it moves the same bytes to or from the same place. Not so
        // where a server may carry out what was dropped after what comes later.
        Kind::Regular(cache)
            if sqe.off <= i64::MAX as u64
                && !cache.is_of_shared_file()
                && !file.path().dentry.is_layered()
                && file.flags() & (raw::O_APPEND | raw::O_SYNC) == 0
                && !inode_flags::syncs(&file) =>
        {
            let answer = match write {
                true => poll_once(file.write_at(t, &mut buf, sqe.off))?,
                false => poll_once(file.read_at(t, &mut buf, sqe.off))?,
            };
            answer.ok().map(|n| outcome(n as i32, len))
        }
        _ => None,
    }
}

fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Fewer bytes than asked for break a chain.
fn outcome(res: i32, wanted: u64) -> Outcome {
    Outcome { res, flags: 0, failed: res < 0 || (res as u64) < wanted }
}

/// Where a file is to be read or written: at its own position for -1, and wherever a stream is.
fn position(file: &OpenFile, off: u64) -> Result<Option<u64>> {
    match off {
        u64::MAX => Ok(None),
        _ if !file.seekable() => Ok(None),
        off if off > i64::MAX as u64 => Err(Errno::EINVAL),
        off => Ok(Some(off)),
    }
}

/// RWF_* of Linux 6.1, and what of them can be had.
const RWF_KNOWN: u32 = raw::RWF_HIPRI | raw::RWF_DSYNC | raw::RWF_SYNC | raw::RWF_NOWAIT | raw::RWF_APPEND;

pub async fn transfer(request: &Arc<Request>, t: &Thread, entry: &Entry, op: Op, file: &Arc<OpenFile>) -> Outcome {
    let mut selected = None;
    let mut wanted = 0;
    let answer = attempt_all(request, t, entry, op, file, &mut selected, &mut wanted).await;
    let mut outcome = outcome(number(request, answer), wanted);
    if let Some(buffer) = selected {
        outcome.flags = request.ring.registered.buffer_used(buffer);
    }
    outcome
}

fn writes(sqe: &Sqe) -> bool {
    Op::from_raw(sqe.opcode).is_ok_and(|op| matches!(op, Op::Write | Op::Writev | Op::WriteFixed))
}

async fn attempt_all(
    request: &Arc<Request>,
    t: &Thread,
    entry: &Entry,
    op: Op,
    file: &Arc<OpenFile>,
    selected: &mut Option<Buffer>,
    wanted: &mut u64,
) -> SysResult<usize> {
    let (sqe, ring) = (&entry.sqe, &request.ring);
    let write = writes(sqe);
    if write {
        file.check_writable()?;
    } else {
        file.check_readable()?;
    }
    if sqe.op_flags & !RWF_KNOWN != 0 {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if ring.setup.contains(Setup::IOPOLL) {
        // No file can be polled for the end of a transfer.
        return Err(Errno::EOPNOTSUPP.into());
    }
    if sqe.op_flags & raw::RWF_HIPRI != 0 {
        return Err(Errno::EINVAL.into());
    }
    let pos = position(file, sqe.off)?;
    let events = if write { WRITE_EVENTS } else { READ_EVENTS };
    let mut patience = Patience::default();
    let imported: IoVecs;
    let vector: Option<&[IoVec]> = match (&entry.fetched.vector, op) {
        (Some(vector), _) => Some(vector),
        (None, Op::Readv | Op::Writev) => {
            imported = import_iovec(t.mm(), sqe.addr, sqe.len.into()).await?;
            Some(&imported)
        }
        _ => None,
    };
    loop {
        let mut buf = match vector {
            Some(vector) if !sqe.has(Flags::BUFFER_SELECT) => IoBuf::user_iovec(t.mm(), vector),
            None if matches!(op, Op::ReadFixed | Op::WriteFixed) => {
                ring.registered.check_fixed(sqe.buf_index, sqe.addr, sqe.len.into())?;
                IoBuf::user(t.mm(), sqe.addr, sqe.len.into())?
            }
            _ if sqe.has(Flags::BUFFER_SELECT) => {
                let limit = match vector {
                    Some(_) if sqe.len > 1 => return Err(Errno::EINVAL.into()),
                    Some(vector) => vector.first().map_or(0, |iov| iov.len),
                    None => sqe.len.into(),
                };
                let buffer = ring.registered.take_buffer(sqe.buf_index, limit)?;
                *selected = Some(buffer);
                IoBuf::user(t.mm(), buffer.addr, buffer.len.into())?
            }
            _ => IoBuf::user(t.mm(), sqe.addr, sqe.len.into())?,
        };
        *wanted = buf.remaining() as u64;
        match attempt(t, sqe, file, pos, &patience, &mut buf).await {
            Err(SysError::Errno(Errno::EAGAIN)) if sqe.op_flags & raw::RWF_NOWAIT == 0 => {
                if let Some(buffer) = selected.take() {
                    ring.registered.put_buffer_back(buffer);
                }
                if !patience.ready(request, file, events).await? {
                    return Err(Errno::EAGAIN.into());
                }
            }
            answer => return answer,
        }
    }
}

/// Attempts that do not wait, made whenever the file is ready. A file may be ready without end and still refuse: a datagram
/// socket can send, but the queue of who is to get the message is full. After a few of these the attempt has to wait by itself
/// (as on Linux, where a worker makes the blocking call).
#[derive(Default)]
pub struct Patience {
    in_vain: u32,
}

impl Patience {
    pub fn is_over(&self) -> bool {
        self.in_vain >= 8
    }

    /// Waits until a file has one of the events. False if it cannot be waited for, or need not be any more.
    pub async fn ready(&mut self, request: &Arc<Request>, file: &OpenFile, events: Events) -> SysResult<bool> {
        let Some(queue) = file.ops().and_then(|ops| ops.wait_queue()) else { return Ok(false) };
        if self.is_over() {
            return Ok(false);
        }
        let mut waited = false;
        let look = || {
            let ready = file.ready().intersects(events);
            waited |= !ready;
            ready.then_some(())
        };
        wait(request, queue.wait_for_mask(events.bits(), look)).await?;
        if !waited {
            self.in_vain += 1;
            exec::budget().await;
        }
        Ok(true)
    }
}

async fn attempt(
    t: &Thread,
    sqe: &Sqe,
    file: &Arc<OpenFile>,
    pos: Option<u64>,
    patience: &Patience,
    buf: &mut IoBuf<'_>,
) -> SysResult<usize> {
    let write = writes(sqe);
    if let Ok(socket) = socket::of_file(file) {
        let flags = if patience.is_over() { 0 } else { linux_raw_sys::net::MSG_DONTWAIT };
        return match write {
            true => transfer::send(t, file, socket, buf, &mut Outgoing::plain(), flags).await,
            false => transfer::receive(t, file, socket, buf, flags).await.map(|received| received.len),
        };
    }
    if sqe.op_flags & raw::RWF_NOWAIT != 0 {
        return match file.kind() {
            Kind::Regular(_) => {
                let flags = sqe.op_flags & !raw::RWF_NOWAIT;
                poll_once(move_bytes(t, file, pos, write, flags, buf)).unwrap_or(Err(Errno::EAGAIN.into()))
            }
            // Blocking files that cannot tell beforehand (pipes of Linux 6.1).
            Kind::Ops(ops) if ops.wait_queue().is_some() && !file.is_nonblock() && !file.is_plain() => {
                Err(Errno::EOPNOTSUPP.into())
            }
            _ => poll_once(move_bytes(t, file, pos, write, 0, buf)).unwrap_or(Err(Errno::EAGAIN.into())),
        };
    }
    move_bytes(t, file, pos, write, sqe.op_flags, buf).await
}

/// read(2), write(2), pread(2), pwrite(2), with RWF_* that have to do with writing.
async fn move_bytes(
    t: &Thread,
    file: &Arc<OpenFile>,
    pos: Option<u64>,
    write: bool,
    flags: u32,
    buf: &mut IoBuf<'_>,
) -> SysResult<usize> {
    let moved = match (write, pos) {
        (false, None) => file.read(t, buf).await?,
        (false, Some(pos)) => file.read_at(t, buf, pos).await?,
        (true, _) if flags & raw::RWF_APPEND != 0 && matches!(file.kind(), Kind::Regular(_)) => {
            file.append(t, buf, pos.is_some()).await?
        }
        (true, None) => file.write(t, buf).await?,
        (true, Some(pos)) => file.write_at(t, buf, pos).await?,
    };
    if write && flags & (raw::RWF_DSYNC | raw::RWF_SYNC) != 0 {
        file.sync(flags & raw::RWF_SYNC == 0).await?;
    }
    Ok(moved)
}
