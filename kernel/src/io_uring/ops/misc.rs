//! Messages to rings, registered files and buffers.

use alloc::sync::Arc;

use linux_raw_sys::io_uring::io_uring_msg_ring_flags as kinds;

use super::check::ANY_SLOT;
use super::{Op, number};
use crate::errno::{Errno, Result};
use crate::fs::OpenFile;
use crate::io_uring::abi::{Outcome, Sqe};
use crate::io_uring::file::RingFile;
use crate::io_uring::register::Provided;
use crate::io_uring::request::Request;
use crate::io_uring::ring::Ring;
use crate::mm::UserPtr;
use crate::process::Thread;

/// The ring behind a file, if it is one.
pub fn ring_of(file: &OpenFile) -> Option<&Arc<Ring>> {
    file.ops_as::<RingFile>().map(|file| &file.ring)
}

/// MSG_RING: a completion, or a registered file, for another ring.
pub fn message(request: &Request, sqe: &Sqe, file: &OpenFile) -> Result<()> {
    let target = ring_of(file).ok_or(Errno::EBADFD)?;
    let skip = sqe.op_flags != 0;
    if target.is_disabled() {
        return Err(Errno::EBADFD);
    }
    match sqe.addr {
        kind if kind == kinds::IORING_MSG_DATA as u64 => {
            if sqe.addr3 != 0 || sqe.file_index != 0 || skip {
                return Err(Errno::EINVAL);
            }
            if target.complete_message(sqe.off, sqe.len as i32) { Ok(()) } else { Err(Errno::EOVERFLOW) }
        }
        kind if kind == kinds::IORING_MSG_SEND_FD as u64 => {
            if Arc::ptr_eq(target, &request.ring) {
                return Err(Errno::EINVAL);
            }
            let sent = request.ring.registered.file(u32::try_from(sqe.addr3).map_err(|_| Errno::EBADF)?)?;
            let slot = match sqe.file_index {
                0 => return Err(Errno::EINVAL),
                ANY_SLOT => target.registered.add_file(sent)?,
                slot => target.registered.put_file(slot - 1, sent).map(|()| 0)?,
            };
            if skip || target.complete_message(sqe.off, slot) { Ok(()) } else { Err(Errno::EOVERFLOW) }
        }
        _ => Err(Errno::EINVAL),
    }
}

/// FILES_UPDATE; answers how many were changed.
pub async fn update_files(request: &Request, t: &Thread, sqe: &Sqe) -> Result<i32> {
    let ring = &request.ring;
    if sqe.off == u64::from(u32::MAX) {
        return ring.registered.allocate_files(t, UserPtr::new(sqe.addr), sqe.len).await;
    }
    ring.registered.update_files(t, sqe.off as u32, UserPtr::new(sqe.addr), sqe.len).await
}

/// PROVIDE_BUFFERS and REMOVE_BUFFERS.
pub fn buffers(request: &Request, sqe: &Sqe, op: Op) -> Outcome {
    let count = sqe.fd as u32;
    let answer = if op == Op::ProvideBuffers {
        let first = Provided { addr: sqe.addr, len: sqe.len, id: sqe.off as u16 };
        request.ring.registered.provide_buffers(sqe.buf_index, first, count).map(|()| 0)
    } else {
        request.ring.registered.remove_buffers(sqe.buf_index, count)
    };
    Outcome::of(number(request, answer))
}
