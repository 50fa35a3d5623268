//! ACCEPT, CONNECT, SEND, RECV and their kin: attempts that do not wait, and waits until the socket is ready.

use alloc::sync::Arc;

use linux_raw_sys::{general, io_uring as raw, net};

use super::check::ANY_SLOT;
use super::rw::Patience;
use super::{Op, number};
use crate::errno::{Errno, Result};
use crate::exec;
use crate::fs::open_file::{READ_EVENTS, WRITE_EVENTS};
use crate::fs::{Events, OpenFile, TryError};
use crate::io_uring::abi::{Flags, Outcome, Sqe};
use crate::io_uring::register::Buffer;
use crate::io_uring::request::Request;
use crate::mm::{IoBuf, UserPtr, import_iovec};
use crate::net::{address, socket::of_file};
use crate::process::Thread;
use crate::syscalls::{SysError, SysResult, socket};

pub async fn execute(request: &Arc<Request>, t: &Thread, sqe: &Sqe, op: Op, file: &Arc<OpenFile>) -> Outcome {
    match op {
        Op::Accept => accept(request, t, sqe, file).await,
        Op::Recv | Op::Recvmsg => receive(request, t, sqe, op, file).await,
        Op::Send | Op::Sendmsg => {
            let mut wanted = 0;
            let answer = send(request, t, sqe, op, file, &mut wanted).await;
            let res = number(request, answer);
            let all = sqe.op_flags & net::MSG_WAITALL != 0;
            Outcome { res, flags: 0, failed: res < 0 || all && (res as u64) < wanted }
        }
        Op::Connect => {
            let answer = socket::connect_file(t, file, UserPtr::new(sqe.addr), sqe.off as i32, false).await;
            Outcome::of(number(request, answer))
        }
        _ => Outcome::of(number(request, socket::shut(file, sqe.len as i32))),
    }
}

/// Tries again whenever the socket is ready, until it does not say EAGAIN, or is not to wait.
struct Retry<'a> {
    request: &'a Arc<Request>,
    file: &'a OpenFile,
    events: Events,
    waits: bool,
    patience: Patience,
}

impl<'a> Retry<'a> {
    fn new(request: &'a Arc<Request>, file: &'a OpenFile, events: Events, sqe: &Sqe) -> Self {
        let waits = sqe.op_flags & net::MSG_DONTWAIT == 0 || sqe.opcode == Op::Accept as u8;
        Retry { request, file, events, waits, patience: Patience::default() }
    }

    /// What the next attempt has beside the flags of the entry.
    fn flags(&self) -> u32 {
        if self.patience.is_over() { 0 } else { net::MSG_DONTWAIT }
    }

    /// An attempt has failed. Ok: make another one.
    async fn after(&mut self, error: SysError) -> SysResult<()> {
        match error {
            SysError::Errno(Errno::EAGAIN)
                if self.waits && self.patience.ready(self.request, self.file, self.events).await? =>
            {
                Ok(())
            }
            error => Err(error),
        }
    }
}

async fn send(
    request: &Arc<Request>,
    t: &Thread,
    sqe: &Sqe,
    op: Op,
    file: &Arc<OpenFile>,
    wanted: &mut u64,
) -> SysResult<usize> {
    of_file(file)?;
    let flags = sqe.op_flags | net::MSG_NOSIGNAL;
    let mut retry = Retry::new(request, file, WRITE_EVENTS, sqe);
    if op == Op::Sendmsg {
        let header = UserPtr::new(sqe.addr).read(t.mm()).await?;
        loop {
            match socket::send_header(t, file, &header, flags | retry.flags()).await {
                Ok(n) => return Ok(n),
                Err(error) => retry.after(error).await?,
            }
        }
    }
    *wanted = sqe.len.into();
    let name = (UserPtr::new(sqe.off), i32::from(sqe.file_index as u16));
    let mut buf = IoBuf::user(t.mm(), sqe.addr, sqe.len.into())?;
    let mut done = 0;
    loop {
        match socket::send_to(t, file, &mut buf, flags | retry.flags(), name).await {
            Ok(n) => done += n,
            Err(error) => match retry.after(error).await {
                Ok(()) => continue,
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            },
        }
        if sqe.op_flags & net::MSG_WAITALL == 0 || buf.is_empty() {
            return Ok(done);
        }
    }
}

async fn receive(request: &Arc<Request>, t: &Thread, sqe: &Sqe, op: Op, file: &Arc<OpenFile>) -> Outcome {
    let ring = &request.ring;
    let multishot = u32::from(sqe.ioprio) & raw::IORING_RECV_MULTISHOT != 0;
    if multishot && op == Op::Recvmsg {
        // With a header of its own in the buffer; not there.
        return Outcome::of(-Errno::EINVAL.get());
    }
    loop {
        let mut selected = None;
        let mut wanted = 0;
        let answer = receive_once(request, t, sqe, op, file, &mut selected, &mut wanted).await;
        let res = number(request, answer);
        let flags = selected.map_or(0, |buffer| ring.registered.buffer_used(buffer));
        if multishot
            && res > 0
            && ring.complete_part(request.user_data.load(core::sync::atomic::Ordering::Relaxed), res, flags)
        {
            // Another CPU may go on sending for as long as it likes.
            exec::budget().await;
            continue;
        }
        let all = sqe.op_flags & net::MSG_WAITALL != 0;
        return Outcome { res, flags, failed: res < 0 || all && (res as u64) < wanted };
    }
}

async fn receive_once(
    request: &Arc<Request>,
    t: &Thread,
    sqe: &Sqe,
    op: Op,
    file: &Arc<OpenFile>,
    selected: &mut Option<Buffer>,
    wanted: &mut u64,
) -> SysResult<usize> {
    let ring = &request.ring;
    let socket = of_file(file)?;
    let mut retry = Retry::new(request, file, READ_EVENTS, sqe);
    let mut done = 0;
    loop {
        let flags = sqe.op_flags | retry.flags();
        if sqe.has(Flags::BUFFER_SELECT) {
            let limit = if op == Op::Recv { sqe.len.into() } else { message_room(t, sqe).await? };
            *selected = Some(ring.registered.take_buffer(sqe.buf_index, limit)?);
        }
        let attempt = match (op, selected.as_ref()) {
            (Op::Recvmsg, None) => socket::receive_header(t, file, UserPtr::new(sqe.addr), flags).await,
            (_, buffer) => {
                let (addr, len) = buffer.map_or((sqe.addr, sqe.len), |buffer| (buffer.addr, buffer.len));
                let (addr, len) = (addr + done as u64, u64::from(len) - done as u64);
                *wanted = done as u64 + len;
                let mut buf = IoBuf::user(t.mm(), addr, len)?;
                let received = socket::receive(t, file, &mut buf, flags).await;
                received.map(|received| socket::length(socket, &received, flags))
            }
        };
        match attempt {
            Ok(n) => {
                done += n;
                // A stream goes on until all is there, or nothing more comes.
                let more = sqe.op_flags & net::MSG_WAITALL != 0 && op == Op::Recv && n > 0 && (done as u64) < *wanted;
                if !more || sqe.has(Flags::BUFFER_SELECT) {
                    return Ok(done);
                }
            }
            Err(error) => {
                if let Some(buffer) = selected.take() {
                    if error == SysError::Errno(Errno::EAGAIN) {
                        ring.registered.put_buffer_back(buffer);
                    } else {
                        *selected = Some(buffer);
                    }
                }
                match retry.after(error).await {
                    Ok(()) => {}
                    Err(_) if done > 0 => return Ok(done),
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

/// How much a RECVMSG that selects its buffer wants of it.
async fn message_room(t: &Thread, sqe: &Sqe) -> Result<u64> {
    let [iov, count]: [u64; 2] = UserPtr::new(sqe.addr.wrapping_add(16)).read(t.mm()).await?;
    match count {
        0 => Ok(0),
        1 => Ok(import_iovec(t.mm(), iov, 1).await?.first().map_or(0, |segment| segment.len)),
        _ => Err(Errno::EINVAL),
    }
}

async fn accept(request: &Arc<Request>, t: &Thread, sqe: &Sqe, file: &Arc<OpenFile>) -> Outcome {
    let multishot = u32::from(sqe.ioprio) & raw::IORING_ACCEPT_MULTISHOT != 0;
    loop {
        let res = number(request, accept_once(request, t, sqe, file).await);
        let user_data = request.user_data.load(core::sync::atomic::Ordering::Relaxed);
        if !multishot || res < 0 || !request.ring.complete_part(user_data, res, 0) {
            return Outcome::of(res);
        }
        exec::budget().await;
    }
}

async fn accept_once(request: &Arc<Request>, t: &Thread, sqe: &Sqe, file: &Arc<OpenFile>) -> SysResult<i32> {
    let socket = of_file(file)?;
    // Before a connection is taken, which would be lost.
    if sqe.file_index == 0 && !t.files().has_room() {
        return Err(Errno::EMFILE.into());
    }
    let mut retry = Retry::new(request, file, READ_EVENTS, sqe);
    let (connection, peer) = loop {
        match socket.try_accept() {
            Ok(accepted) => break accepted,
            Err(TryError::Failed(errno)) => return Err(errno.into()),
            Err(_) => retry.after(Errno::EAGAIN.into()).await?,
        }
    };
    if sqe.addr != 0 {
        address::export(t, &peer, UserPtr::new(sqe.addr), UserPtr::new(sqe.off)).await?;
    }
    let new = socket::open_socket(connection, sqe.op_flags);
    Ok(place(request, t, sqe.file_index, new, sqe.op_flags & general::O_CLOEXEC != 0)?)
}

/// Gives a new file a descriptor, or the place among the registered ones that the entry says.
pub fn place(request: &Request, t: &Thread, slot: u32, file: Arc<OpenFile>, cloexec: bool) -> Result<i32> {
    match slot {
        0 => t.files().install(file, cloexec),
        ANY_SLOT => request.ring.registered.add_file(file),
        slot => request.ring.registered.put_file(slot - 1, file).map(|()| 0),
    }
}
