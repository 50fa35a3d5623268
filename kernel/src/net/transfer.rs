//! sendmsg and recvmsg: attempts that do not wait, made into calls that do.

use core::future::Future;

use linux_raw_sys::net as raw;

use super::inet::IPPROTO_TCP;
use super::socket::{Outgoing, Receive, Received, Socket, Type};
use crate::errno::{Errno, Result};
use crate::exec::{Instant, Interrupted, budget, interruptible, timeout, yield_now};
use crate::fs::open_file::{READ_EVENTS, WRITE_EVENTS, settled};
use crate::fs::writing::{Sigpipe, Writing};
use crate::fs::{OpenFile, TryError};
use crate::mm::IoBuf;
use crate::process::Thread;
use crate::syscalls::{SysError, SysResult};

/// Waits until an attempt settles; EAGAIN at the deadline. A call with a deadline is not restarted after a signal
/// (signal(7)).
async fn settle<T>(
    t: &Thread,
    deadline: Option<Instant>,
    wait: impl Future<Output = Result<T, TryError>>,
) -> SysResult<Result<T, TryError>> {
    match interruptible(t, timeout(deadline, wait)).await {
        Ok(Ok(attempt)) => Ok(attempt),
        Ok(Err(_)) => Ok(Err(TryError::WouldBlock)),
        Err(Interrupted) if deadline.is_some() => Err(Errno::EINTR.into()),
        Err(interrupted) => Err(interrupted.into()),
    }
}

/// What attempts have left is done.
async fn finish(socket: &dyn Socket) {
    while socket.go_on() {
        yield_now().await;
    }
}

/// sendmsg(2) with MSG_* `flags`; answers the number of bytes sent.
pub async fn send(
    t: &Thread,
    file: &OpenFile,
    socket: &dyn Socket,
    buf: &mut IoBuf<'_>,
    message: &mut Outgoing,
    flags: u32,
) -> SysResult<usize> {
    let nonblock = file.is_nonblock() || flags & raw::MSG_DONTWAIT != 0;
    let stream = socket.common().kind == Type::Stream;
    let deadline = socket.common().send_deadline();
    let sigpipe = if flags & raw::MSG_NOSIGNAL == 0 { socket.sigpipe() } else { Sigpipe::Never };
    let mut writing = Writing::new(stream, sigpipe);
    loop {
        let attempt = if nonblock {
            Ok(socket.try_send(buf, message))
        } else {
            let attempt = || settled(socket.try_send(buf, message));
            settle(t, deadline, socket.queue().wait_for_mask(WRITE_EVENTS.bits(), attempt)).await
        };
        if let Some(answer) = writing.after(t, buf, attempt).await {
            if matches!(answer, Err(SysError::Errno(Errno::EFAULT))) {
                socket.lose_unfinished();
            }
            finish(socket).await;
            return answer;
        }
    }
}

/// recvmsg(2) with MSG_* `flags`.
pub async fn receive(
    t: &Thread,
    file: &OpenFile,
    socket: &dyn Socket,
    buf: &mut IoBuf<'_>,
    flags: u32,
) -> SysResult<Received> {
    let nonblock = file.is_nonblock() || flags & raw::MSG_DONTWAIT != 0;
    let mut how = Receive {
        peek: flags & raw::MSG_PEEK != 0,
        nonblock,
        discard: flags & raw::MSG_TRUNC != 0,
        ..Receive::default()
    };
    let stream = socket.common().kind == Type::Stream;
    let deadline = socket.common().receive_deadline();
    let low = socket.common().receive_low.load(core::sync::atomic::Ordering::Relaxed) as usize;
    let target = if flags & raw::MSG_WAITALL != 0 { buf.remaining() } else { low.min(buf.remaining()) };
    how.least = if how.peek { target } else { 0 };
    let mut all: Option<Received> = None;
    finish(socket).await;
    loop {
        // What is left after that only a page fault kept from being read, or another reader has it now.
        let enough = all.as_ref().is_some_and(|sum| sum.len >= target);
        how.goes_on = all.is_some();
        let attempt = if nonblock || enough {
            socket.try_receive(buf, how)
        } else {
            let attempt = || settled(socket.try_receive(buf, how));
            match settle(t, deadline, socket.queue().wait_for_mask(READ_EVENTS.bits(), attempt)).await {
                // It has waited long enough for all that it wants to look at.
                Ok(Err(TryError::WouldBlock)) if how.least > 1 => {
                    socket.try_receive(buf, Receive { nonblock: true, ..how })
                }
                Ok(attempt) => attempt,
                Err(_)
                    if how.least > 1
                        && let Ok(received) = socket.try_receive(buf, Receive { nonblock: true, ..how }) =>
                {
                    Ok(received)
                }
                Err(error) => return all.ok_or(error),
            }
        };
        let error: SysError = match attempt {
            Ok(received) => {
                let end = received.len == 0 || received.barrier || !stream || how.peek;
                let sum = match all.take() {
                    None => received,
                    Some(before) => join(before, received),
                };
                if end || buf.is_empty() || sum.len >= target && buf.take_fault().is_none() {
                    return Ok(sum);
                }
                all = Some(sum);
                budget().await;
                continue;
            }
            Err(TryError::Fault(fault)) => match buf.fault_in(&fault).await {
                Ok(()) => {
                    budget().await;
                    continue;
                }
                Err(errno) => errno.into(),
            },
            Err(TryError::WouldBlock) => Errno::EAGAIN.into(),
            Err(TryError::Failed(errno)) => errno.into(),
        };
        return all.ok_or(error);
    }
}

/// The urgent byte. Once it is taken it is gone, whether there is a place for it or not, as on Linux.
pub async fn receive_urgent(socket: &dyn Socket, buf: &mut IoBuf<'_>, flags: u32) -> Result<Received> {
    let byte = [socket.take_urgent(flags & raw::MSG_PEEK != 0)?];
    let nowhere = buf.is_empty();
    if !nowhere {
        while let Err(fault) = buf.copy_to(&byte) {
            buf.fault_in(&fault).await?;
        }
    }
    // TCP does not count it if there is no place for it.
    let len = if nowhere && socket.common().protocol == IPPROTO_TCP { 0 } else { 1 };
    Ok(Received { len, full: 1, urgent: true, ..Received::default() })
}

/// The next error in the queue, for which nobody waits.
pub async fn receive_failure(socket: &dyn Socket, buf: &mut IoBuf<'_>) -> Result<Received> {
    loop {
        match socket.try_receive_failure(buf) {
            Ok(received) => return Ok(received),
            Err(TryError::Fault(fault)) => buf.fault_in(&fault).await?,
            Err(TryError::WouldBlock) => return Err(Errno::EAGAIN),
            Err(TryError::Failed(errno)) => return Err(errno),
        }
        budget().await;
    }
}

/// Two pieces of a stream as one.
fn join(before: Received, piece: Received) -> Received {
    let len = before.len + piece.len;
    Received {
        len,
        full: len,
        from: before.from.or(piece.from),
        rights: before.rights.or(piece.rights),
        creds: before.creds.or(piece.creds),
        barrier: piece.barrier,
        urgent: false,
        extras: before.extras,
        failure: false,
    }
}
