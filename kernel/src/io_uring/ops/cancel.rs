//! ASYNC_CANCEL, and IORING_REGISTER_SYNC_CANCEL.

use alloc::sync::Arc;
use core::sync::atomic::Ordering::Acquire;
use core::time::Duration;

use linux_raw_sys::io_uring as raw;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::number;
use crate::errno::{Errno, Result};
use crate::exec::{self, Instant, interruptible, timeout};
use crate::fs::OpenFile;
use crate::io_uring::abi::{Flags, Outcome, Sqe};
use crate::io_uring::request::Request;
use crate::io_uring::ring::Ring;
use crate::process::Thread;
use crate::syscalls::SysResult;
use crate::time::UserTimespec;

/// Which requests are meant.
struct Which {
    flags: u32,
    user_data: u64,
    file: Option<Arc<OpenFile>>,
}

impl Which {
    fn find(ring: &Ring, t: &Thread, flags: u32, user_data: u64, fd: i32, fixed: bool) -> Result<Which> {
        let file = match (flags & raw::IORING_ASYNC_CANCEL_FD != 0, fixed) {
            (false, _) => None,
            (true, true) => Some(ring.registered.file(fd as u32)?),
            (true, false) => Some(t.files().get(fd)?),
        };
        Ok(Which { flags, user_data, file })
    }

    fn means(&self, request: &Request) -> bool {
        if self.flags & raw::IORING_ASYNC_CANCEL_ANY != 0 {
            return true;
        }
        match &self.file {
            Some(file) => request.file.lock().as_ref().is_some_and(|other| Arc::ptr_eq(other, file)),
            None => request.user_data.load(Acquire) == self.user_data,
        }
    }

    fn means_all(&self) -> bool {
        self.flags & (raw::IORING_ASYNC_CANCEL_ALL | raw::IORING_ASYNC_CANCEL_ANY) != 0
    }

    /// Cancels all that are meant; answers how many.
    async fn cancel_all(&self, ring: &Ring, but: Option<&Request>) -> u32 {
        let meant = |request: &Request| but.is_none_or(|but| !core::ptr::eq(but, request)) && self.means(request);
        let (mut count, mut at) = (0, 0);
        while ring.cancel_from(&mut at, meant).is_some() {
            (count, at) = (count + 1, at + 1);
            exec::budget().await;
        }
        count
    }
}

pub async fn execute(request: &Arc<Request>, t: &Thread, sqe: &Sqe) -> Outcome {
    let fixed = sqe.has(Flags::FIXED_FILE) || sqe.op_flags & raw::IORING_ASYNC_CANCEL_FD_FIXED != 0;
    let answer = match Which::find(&request.ring, t, sqe.op_flags, sqe.addr, sqe.fd, fixed) {
        Ok(which) if which.means_all() => Ok(which.cancel_all(&request.ring, Some(request)).await),
        Ok(which) => {
            let meant = |other: &Request| !core::ptr::eq(&**request, other) && which.means(other);
            request.ring.cancel_one(meant).map(|()| 0)
        }
        Err(errno) => Err(errno),
    };
    Outcome::of(number(request, answer))
}

/// `struct io_uring_sync_cancel_reg`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SyncCancel {
    addr: u64,
    fd: i32,
    flags: u32,
    timeout: UserTimespec,
    opcode: u8,
    pad: [u8; 7],
    pad2: [u64; 3],
}

/// Cancels, and waits until what was cancelled is gone.
/// Answers how many if all are meant.
pub async fn sync_cancel(ring: &Arc<Ring>, t: &Thread, arg: SyncCancel) -> SysResult<u32> {
    let known = raw::IORING_ASYNC_CANCEL_ALL
        | raw::IORING_ASYNC_CANCEL_FD
        | raw::IORING_ASYNC_CANCEL_ANY
        | raw::IORING_ASYNC_CANCEL_FD_FIXED;
    if arg.flags & !known != 0 || arg.pad2 != [0; 3] || arg.pad != [0; 7] || arg.opcode != 0 {
        return Err(Errno::EINVAL.into());
    }
    let fixed = arg.flags & raw::IORING_ASYNC_CANCEL_FD_FIXED != 0;
    let which = Which::find(ring, t, arg.flags, arg.addr, arg.fd, fixed)?;
    if which.means_all() {
        return Ok(which.cancel_all(ring, None).await);
    }
    let cancelled = ring.cancel_from(&mut 0, |request| which.means(request)).ok_or(Errno::ENOENT)?;
    if cancelled.looks {
        return Ok(0);
    }
    let deadline = match (arg.timeout.sec, arg.timeout.nsec) {
        (-1, -1) => None,
        (sec, nsec) => {
            let length =
                Duration::from_secs(sec.max(0) as u64).saturating_add(Duration::from_nanos(nsec.max(0) as u64));
            Some(Instant::now().saturating_add(length))
        }
    };
    let gone = || cancelled.is_over().then_some(());
    match interruptible(t, timeout(deadline, ring.requests.gone().wait_for(gone))).await {
        Ok(Ok(())) => Ok(0),
        Ok(Err(_)) => Err(Errno::ETIME.into()),
        Err(_) => Err(Errno::EINTR.into()),
    }
}
