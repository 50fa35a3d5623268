//! What entries do: each runs the same functions as the system call that it stands for.
//!
//! * [`op`]: the operations; [`mod@check`]: what can be said against an entry before it is begun.
//! * [`at_once`]: what can be answered without a request.
//! * [`run`]: the future of a request, which goes through its entries; [`rw`], [`net`], [`files`], [`poll`], [`timer`],
//!   [`cancel`], [`misc`]: what they do.

mod cancel;
mod check;
mod files;
mod misc;
mod net;
mod op;
mod poll;
mod rw;
mod timer;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::future::Future;
use core::pin::pin;
use core::sync::atomic::Ordering::Relaxed;

use linux_raw_sys::io_uring as raw;
use smallvec::SmallVec;

pub use cancel::sync_cancel;
pub use misc::ring_of;
pub use op::Op;
pub use timer::deadline_in;

use super::abi::{Flags, Outcome, Setup, Sqe};
use super::request::Request;
use super::ring::{Ring, Tell};
use super::submit::{Entry, Fetched};
use crate::errno::{Errno, Result};
use crate::exec;
use crate::fs::OpenFile;
use crate::mm::{UserPtr, frames, import_iovec};
use crate::process::Thread;
use crate::syscalls::{IntoSysResult, SysError, SysResult};

pub fn known(opcode: u8) -> Result<()> {
    Op::from_raw(opcode).map(|_| ())
}

pub fn selects_buffers(opcode: u8) -> bool {
    Op::from_raw(opcode).is_ok_and(Op::selects_buffers)
}

pub fn uses_priority(opcode: u8) -> bool {
    Op::from_raw(opcode).is_ok_and(Op::uses_priority)
}

pub fn can_be_polled(opcode: u8) -> bool {
    Op::from_raw(opcode).is_ok_and(Op::can_be_polled)
}

/// See [`mod@check`]. `before`: the operation that it is linked to.
pub fn check(ring: &Ring, t: &Thread, sqe: &Sqe, before: Option<u8>) -> Result<()> {
    let before = before.and_then(|opcode| Op::from_raw(opcode).ok());
    check::check(ring, t, sqe, Op::from_raw(sqe.opcode)?, before)
}

/// What in the program's memory is to be read before io_uring_enter(2) returns.
pub enum Pointee {
    Time(u64),
    Vector,
}

/// Does the entry point to a time, or, if it begins later, to a vector?
pub fn points_to(sqe: &Sqe, later: bool) -> Option<Pointee> {
    match Op::from_raw(sqe.opcode).ok()? {
        Op::Timeout | Op::LinkTimeout => Some(Pointee::Time(sqe.addr)),
        Op::TimeoutRemove if sqe.op_flags & raw::IORING_TIMEOUT_UPDATE_MASK != 0 => Some(Pointee::Time(sqe.off)),
        Op::Readv | Op::Writev if later => Some(Pointee::Vector),
        _ => None,
    }
}

/// Reads that. EAGAIN without memory: a chain can have many vectors, and none of them is begun before its last entry.
pub async fn fetch(t: &Thread, sqe: &Sqe, what: Pointee) -> Result<Fetched> {
    let mut fetched = Fetched::default();
    match what {
        Pointee::Time(addr) => fetched.time = Some(UserPtr::new(addr).read(t.mm()).await?),
        Pointee::Vector if !frames::has_spare() => return Err(Errno::EAGAIN),
        Pointee::Vector => fetched.vector = Some(Box::new(import_iovec(t.mm(), sqe.addr, sqe.len.into()).await?)),
    }
    Ok(fetched)
}

/// Answers an entry that need not wait, or does nothing.
pub fn at_once(ring: &Arc<Ring>, t: &Thread, sqe: &Sqe) -> Option<Outcome> {
    let op = Op::from_raw(sqe.opcode).ok()?;
    match op {
        Op::Nop => Some(Outcome::good(0)),
        _ if sqe.personality != 0 => None,
        Op::Read | Op::Write if !ring.setup.contains(Setup::IOPOLL) => rw::at_once(ring, t, sqe, op == Op::Write),
        _ => None,
    }
}

/// The file that an entry is about.
fn file_of(ring: &Ring, t: &Thread, sqe: &Sqe) -> Result<Arc<OpenFile>> {
    match sqe.has(Flags::FIXED_FILE) {
        true => ring.registered.file(sqe.fd as u32),
        false => t.files().get_io(sqe.fd),
    }
}

/// The number that a completion has for the answer of a call.
fn number(request: &Request, answer: impl IntoSysResult) -> i32 {
    let answer: SysResult = answer.into_sys();
    match answer {
        Ok(value) => value as i32,
        Err(SysError::Errno(Errno::EINTR) | SysError::Restart(_)) if request.is_cancelled() => -Errno::ECANCELED.get(),
        Err(SysError::Errno(errno)) => -errno.get(),
        Err(SysError::Restart(_)) => -Errno::EINTR.get(),
    }
}

/// The future of a request: its entries, one after another.
pub async fn run(request: Arc<Request>, mut t: Thread, entries: SmallVec<[Entry; 1]>) {
    let ring = request.ring.clone();
    let mut broken = false;
    let mut silent = false;
    let mut index = 0;
    while let Some(entry) = entries.get(index) {
        let sqe = &entry.sqe;
        index += 1;
        if broken {
            if !silent {
                ring.complete(sqe.user_data, Outcome::of(-Errno::ECANCELED.get()), Tell::Now);
            }
            continue;
        }
        if index > 1 {
            if !request.renew(sqe) {
                ring.complete(sqe.user_data, Outcome::of(-Errno::ECANCELED.get()), Tell::Now);
                continue;
            }
            if !Arc::ptr_eq(&entry.creds, t.creds()) {
                t = t.acting(entry.creds.clone(), request.clone());
            }
        }
        let limit = entries.get(index).filter(|next| next.sqe.opcode == Op::LinkTimeout as u8);
        let outcome = match limit {
            Some(limit) => {
                index += 1;
                Box::pin(run_limited(&request, &t, entry, limit)).await
            }
            None => {
                let outcome = run_one(&request, &t, entry).await;
                request.leave();
                // A poll may have another name by now.
                let user_data = request.user_data.load(Relaxed);
                finish(&ring, &Sqe { user_data, ..*sqe }, outcome);
                outcome
            }
        };
        broken = outcome.failed && !sqe.has(Flags::IO_HARDLINK);
        silent = outcome.failed && sqe.has(Flags::CQE_SKIP);
    }
}

fn finish(ring: &Ring, sqe: &Sqe, outcome: Outcome) {
    let silent = !outcome.failed && sqe.has(Flags::CQE_SKIP);
    if sqe.opcode == Op::Timeout as u8 {
        ring.complete_timeout(sqe.user_data, outcome, silent);
    } else if !silent {
        ring.complete(sqe.user_data, outcome, Tell::Now);
    }
}

/// An entry with a link timeout after it.
async fn run_limited(request: &Arc<Request>, t: &Thread, entry: &Entry, limit: &Entry) -> Outcome {
    let (sqe, fetched, limit) = (&entry.sqe, &limit.fetched, &limit.sqe);
    let deadline = match timer::deadline(fetched, limit.op_flags) {
        Ok(deadline) => deadline,
        Err(errno) => {
            request.leave();
            finish(&request.ring, sqe, Outcome::of(-Errno::ECANCELED.get()));
            finish(&request.ring, limit, Outcome::of(-errno.get()));
            return Outcome::of(-errno.get());
        }
    };
    // Nobody looks at it while there is no timer.
    request.link_user_data.store(limit.user_data, Relaxed);
    timer::set(&request.link_timer, Some(deadline));
    let (outcome, result) = {
        let mut entry = pin!(run_one(request, t, entry));
        let mut clock = pin!(timer::wait_until(request, &request.link_timer));
        let first = exec_select(entry.as_mut(), clock.as_mut()).await;
        match first {
            Some(outcome) => (outcome, -Errno::ECANCELED.get()),
            None => {
                request.end();
                let outcome = entry.await;
                let cancelled = outcome.res == -Errno::ECANCELED.get();
                (outcome, if cancelled { -Errno::ETIME.get() } else { -Errno::EALREADY.get() })
            }
        }
    };
    request.leave();
    timer::set(&request.link_timer, None);
    finish(&request.ring, sqe, outcome);
    finish(&request.ring, limit, Outcome::of(result));
    outcome
}

/// Awaits the first of two; None for the second.
async fn exec_select<T>(
    mut first: core::pin::Pin<&mut impl Future<Output = T>>,
    mut second: core::pin::Pin<&mut impl Future<Output = ()>>,
) -> Option<T> {
    core::future::poll_fn(|cx| {
        if let core::task::Poll::Ready(value) = first.as_mut().poll(cx) {
            return core::task::Poll::Ready(Some(value));
        }
        second.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// Does what an entry asks for.
async fn run_one(request: &Arc<Request>, t: &Thread, entry: &Entry) -> Outcome {
    let sqe = &entry.sqe;
    let Ok(op) = Op::from_raw(sqe.opcode) else { return Outcome::of(-Errno::EINVAL.get()) };
    let mut file = None;
    if op.has_file() {
        match file_of(&request.ring, t, sqe) {
            Ok(found) => file = Some(found),
            Err(errno) => return Outcome::of(-errno.get()),
        }
    }
    (*request.file.lock()).clone_from(&file);
    if request.is_cancelled() {
        return Outcome::of(-Errno::ECANCELED.get());
    }
    match file {
        Some(file) => with_file(request, t, entry, op, &file).await,
        None => without_file(request, t, entry, op).await,
    }
}

async fn with_file(request: &Arc<Request>, t: &Thread, entry: &Entry, op: Op, file: &Arc<OpenFile>) -> Outcome {
    let sqe = &entry.sqe;
    match op {
        Op::Read | Op::Readv | Op::ReadFixed | Op::Write | Op::Writev | Op::WriteFixed => {
            rw::transfer(request, t, entry, op, file).await
        }
        Op::PollAdd => poll::add(request, sqe, file).await,
        Op::Accept | Op::Connect | Op::Send | Op::Recv | Op::Sendmsg | Op::Recvmsg | Op::Shutdown => {
            Box::pin(net::execute(request, t, sqe, op, file)).await
        }
        _ => Box::pin(files::with_file(request, t, sqe, op, file)).await,
    }
}

async fn without_file(request: &Arc<Request>, t: &Thread, entry: &Entry, op: Op) -> Outcome {
    let (sqe, fetched) = (&entry.sqe, &entry.fetched);
    match op {
        Op::Nop => Outcome::good(0),
        Op::Timeout => timer::timeout(request, sqe, fetched).await,
        Op::TimeoutRemove => timer::remove(request, sqe, fetched),
        Op::PollRemove => Outcome::of(number(request, poll::remove(&request.ring, sqe))),
        Op::AsyncCancel => cancel::execute(request, t, sqe).await,
        // Linked to nothing that it could limit, as what it was linked to is over.
        Op::LinkTimeout => Outcome::of(-Errno::ECANCELED.get()),
        Op::ProvideBuffers | Op::RemoveBuffers => misc::buffers(request, sqe, op),
        _ => Box::pin(files::without_file(request, t, sqe, op)).await,
    }
}

/// For interruptible waits of a request that must not be one poll of a larger future.
async fn wait<T>(request: &Arc<Request>, future: impl Future<Output = T>) -> SysResult<T> {
    Ok(exec::interruptible(&**request, future).await?)
}
