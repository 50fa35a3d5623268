//! What is looked at before an entry is begun: members that must be 0, and flags that nobody knows.
//!
//! An entry that fails here ends the submission, unless IORING_SETUP_SUBMIT_ALL is set.

use linux_raw_sys::{general, io_uring as raw, net};

use super::Op;
use crate::errno::{Errno, Result};
use crate::io_uring::abi::{Flags, Sqe};
use crate::io_uring::ring::Ring;
use crate::mm::UserPtr;
use crate::process::Thread;
use crate::syscalls::ioprio;
use crate::time::UserTimespec;

/// IORING_FILE_INDEX_ALLOC: any free slot.
pub const ANY_SLOT: u32 = u32::MAX;

fn unless(bad: bool, errno: Errno) -> Result<()> {
    if bad { Err(errno) } else { Ok(()) }
}

/// EINVAL if any of these is not 0.
fn zero<const N: usize>(members: [u64; N]) -> Result<()> {
    unless(members.iter().any(|member| *member != 0), Errno::EINVAL)
}

/// `before` is the entry that this one is linked to.
pub fn check(ring: &Ring, t: &Thread, sqe: &Sqe, op: Op, before: Option<Op>) -> Result<()> {
    let Sqe { off, addr, len, op_flags, buf_index, file_index, .. } = *sqe;
    let [len, op_flags, buf, file] = [len.into(), op_flags.into(), buf_index.into(), file_index.into()];
    match op {
        Op::Fsync => {
            zero([addr, buf, file])?;
            unless(op_flags & !u64::from(raw::IORING_FSYNC_DATASYNC) != 0, Errno::EINVAL)
        }
        Op::ReadFixed | Op::WriteFixed => {
            ioprio::check(t, sqe.ioprio)?;
            unless(!ring.registered.has_buffer(buf_index), Errno::EFAULT)
        }
        Op::Read | Op::Write | Op::Readv | Op::Writev => ioprio::check(t, sqe.ioprio),
        Op::SyncFileRange => zero([addr, buf, file]),
        Op::Fallocate => zero([buf, op_flags, file]),
        Op::Fadvise => zero([buf, addr, file]),
        Op::Madvise => zero([buf, off, file]),
        Op::Statx => zero([buf, file]).and_then(|()| no_fixed(sqe)),
        Op::Openat | Op::Openat2 => check_open(sqe, op),
        Op::Close => {
            zero([off, addr, len, op_flags, buf])?;
            no_fixed(sqe)?;
            unless(file != 0 && sqe.fd != 0, Errno::EINVAL)
        }
        Op::EpollCtl => zero([buf, file]),
        Op::Splice | Op::Tee => {
            unless(op == Op::Tee && (addr != 0 || off != 0), Errno::EINVAL)?;
            unless(sqe.op_flags & !(raw_splice::FD_IN_FIXED | raw_splice::ALL) != 0, Errno::EINVAL)
        }
        Op::Shutdown => zero([off, addr, op_flags, buf, file]),
        Op::Renameat => zero([buf, file]).and_then(|()| no_fixed(sqe)),
        Op::Unlinkat => {
            zero([off, len, buf, file])?;
            no_fixed(sqe)?;
            unless(sqe.op_flags & !general::AT_REMOVEDIR != 0, Errno::EINVAL)
        }
        Op::Mkdirat => zero([off, op_flags, buf, file]).and_then(|()| no_fixed(sqe)),
        Op::Symlinkat => zero([len, op_flags, buf, file]).and_then(|()| no_fixed(sqe)),
        Op::Linkat => zero([buf, file]).and_then(|()| no_fixed(sqe)),
        Op::MsgRing => {
            zero([buf, sqe.personality.into()])?;
            unless(sqe.op_flags & !raw::IORING_MSG_RING_CQE_SKIP != 0, Errno::EINVAL)
        }
        Op::FilesUpdate => {
            unless(sqe.flags & (Flags::FIXED_FILE | Flags::BUFFER_SELECT).bits() != 0, Errno::EINVAL)?;
            zero([op_flags, file])?;
            unless(len == 0, Errno::EINVAL)
        }
        Op::ProvideBuffers | Op::RemoveBuffers => check_buffers(sqe, op),
        Op::PollAdd | Op::PollRemove => check_poll(sqe, op),
        Op::Timeout | Op::LinkTimeout | Op::TimeoutRemove => check_timer(sqe, op, before),
        Op::AsyncCancel => {
            zero([off, file])?;
            let known = raw::IORING_ASYNC_CANCEL_ALL
                | raw::IORING_ASYNC_CANCEL_FD
                | raw::IORING_ASYNC_CANCEL_ANY
                | raw::IORING_ASYNC_CANCEL_FD_FIXED;
            let both = raw::IORING_ASYNC_CANCEL_FD | raw::IORING_ASYNC_CANCEL_ANY;
            unless(sqe.op_flags & !known != 0 || sqe.op_flags & both == both, Errno::EINVAL)
        }
        Op::Accept | Op::Connect | Op::Socket | Op::Recv | Op::Recvmsg | Op::Send | Op::Sendmsg => check_net(sqe, op),
        Op::Setxattr | Op::Getxattr => {
            no_fixed(sqe)?;
            unless(op == Op::Getxattr && op_flags != 0, Errno::EINVAL)
        }
        Op::Fgetxattr => zero([op_flags]),
        _ => Ok(()),
    }
}

/// SPLICE_F_*.
pub mod raw_splice {
    pub const FD_IN_FIXED: u32 = 1 << 31;
    pub const ALL: u32 = 0xf;
}

/// `fd` is a directory, which cannot be a registered file.
fn no_fixed(sqe: &Sqe) -> Result<()> {
    unless(sqe.has(Flags::FIXED_FILE), Errno::EBADF)
}

fn check_open(sqe: &Sqe, op: Op) -> Result<()> {
    zero([sqe.buf_index.into()])?;
    no_fixed(sqe)?;
    if op == Op::Openat2 {
        return unless(sqe.len < 24, Errno::EINVAL);
    }
    unless(sqe.file_index != 0 && sqe.op_flags & general::O_CLOEXEC != 0, Errno::EINVAL)
}

fn check_buffers(sqe: &Sqe, op: Op) -> Result<()> {
    const MOST: i32 = u16::MAX as i32;
    if op == Op::RemoveBuffers {
        zero([sqe.op_flags.into(), sqe.addr, sqe.len.into(), sqe.off, sqe.file_index.into()])?;
        return unless(!(1..=MOST).contains(&sqe.fd), Errno::EINVAL);
    }
    zero([sqe.op_flags.into(), sqe.file_index.into()])?;
    unless(!(1..=MOST).contains(&sqe.fd), Errno::E2BIG)?;
    let size = u64::from(sqe.len) * sqe.fd as u64;
    unless(sqe.addr.checked_add(size).is_none(), Errno::EOVERFLOW)?;
    unless(!crate::mm::access_ok(sqe.addr, size), Errno::EFAULT)?;
    unless(sqe.off > u64::from(u16::MAX), Errno::E2BIG)?;
    unless(sqe.off + sqe.fd as u64 > u64::from(u16::MAX), Errno::EINVAL)
}

fn check_poll(sqe: &Sqe, op: Op) -> Result<()> {
    const MULTI: u32 = raw::IORING_POLL_ADD_MULTI;
    let flags = sqe.len;
    if op == Op::PollAdd {
        zero([sqe.buf_index.into(), sqe.off, sqe.addr])?;
        unless(flags & !(MULTI | raw::IORING_POLL_ADD_LEVEL) != 0, Errno::EINVAL)?;
        return unless(flags & MULTI != 0 && sqe.has(Flags::CQE_SKIP), Errno::EINVAL);
    }
    let (events, data) = (raw::IORING_POLL_UPDATE_EVENTS, raw::IORING_POLL_UPDATE_USER_DATA);
    zero([sqe.buf_index.into(), sqe.file_index.into()])?;
    unless(flags & !(events | data | MULTI) != 0 || flags == MULTI, Errno::EINVAL)?;
    unless(flags & data == 0 && sqe.off != 0, Errno::EINVAL)?;
    unless(flags & events == 0 && sqe.op_flags != 0, Errno::EINVAL)
}

/// The time of a timeout; None if its page is not there, which is not yet an error.
pub fn try_time(addr: u64) -> Result<Option<UserTimespec>> {
    match UserPtr::<UserTimespec>::new(addr).try_read() {
        Ok(time) if time.sec < 0 || time.nsec < 0 => Err(Errno::EINVAL),
        Ok(time) => Ok(Some(time)),
        Err(_) => Ok(None),
    }
}

fn check_timer(sqe: &Sqe, op: Op, before: Option<Op>) -> Result<()> {
    let flags = sqe.op_flags;
    let clocks = (flags & raw::IORING_TIMEOUT_CLOCK_MASK).count_ones();
    if op == Op::TimeoutRemove {
        unless(sqe.flags & (Flags::FIXED_FILE | Flags::BUFFER_SELECT).bits() != 0, Errno::EINVAL)?;
        zero([sqe.buf_index.into(), sqe.len.into(), sqe.file_index.into()])?;
        if flags & raw::IORING_TIMEOUT_UPDATE_MASK == 0 {
            return zero([flags.into()]);
        }
        unless(clocks > 1, Errno::EINVAL)?;
        let known = raw::IORING_TIMEOUT_UPDATE_MASK | raw::IORING_TIMEOUT_ABS;
        unless(flags & !known != 0, Errno::EINVAL)?;
        return try_time(sqe.off).map(|_| ());
    }
    zero([sqe.buf_index.into(), u64::from(sqe.len != 1), sqe.file_index.into()])?;
    unless(op == Op::LinkTimeout && sqe.off != 0, Errno::EINVAL)?;
    let known = raw::IORING_TIMEOUT_ABS | raw::IORING_TIMEOUT_CLOCK_MASK | raw::IORING_TIMEOUT_ETIME_SUCCESS;
    unless(flags & !known != 0 || clocks > 1, Errno::EINVAL)?;
    try_time(sqe.addr)?;
    unless(op == Op::LinkTimeout && matches!(before, None | Some(Op::LinkTimeout)), Errno::EINVAL)
}

fn check_net(sqe: &Sqe, op: Op) -> Result<()> {
    const POLL_FIRST: u32 = raw::IORING_RECVSEND_POLL_FIRST;
    const SOCK_FLAGS: u32 = general::O_CLOEXEC | general::O_NONBLOCK;
    const TYPE_MASK: u32 = 0xf;
    let Sqe { off, addr, len, op_flags, buf_index, file_index, .. } = *sqe;
    let priority = u32::from(sqe.ioprio);
    let cloexec_in_slot = |flags: u32| file_index != 0 && flags & general::O_CLOEXEC != 0;
    match op {
        Op::Accept => {
            zero([len.into(), buf_index.into()])?;
            unless(priority & !raw::IORING_ACCEPT_MULTISHOT != 0, Errno::EINVAL)?;
            let multishot = priority & raw::IORING_ACCEPT_MULTISHOT != 0;
            unless(multishot && file_index != 0 && file_index != ANY_SLOT, Errno::EINVAL)?;
            unless(cloexec_in_slot(op_flags) || op_flags & !SOCK_FLAGS != 0, Errno::EINVAL)
        }
        Op::Connect => zero([len.into(), buf_index.into(), op_flags.into(), file_index.into()]),
        Op::Socket => {
            zero([addr, op_flags.into(), buf_index.into()])?;
            let flags = off as u32 & !TYPE_MASK;
            unless(cloexec_in_slot(flags) || flags & !SOCK_FLAGS != 0, Errno::EINVAL)
        }
        Op::Send | Op::Sendmsg => {
            unless(op == Op::Sendmsg && (off != 0 || file_index != 0), Errno::EINVAL)?;
            unless(priority & !POLL_FIRST != 0, Errno::EINVAL)
        }
        _ => {
            zero([file_index.into(), off])?;
            unless(priority & !(POLL_FIRST | raw::IORING_RECV_MULTISHOT) != 0, Errno::EINVAL)?;
            if priority & raw::IORING_RECV_MULTISHOT == 0 {
                return Ok(());
            }
            unless(!sqe.has(Flags::BUFFER_SELECT) || op_flags & net::MSG_WAITALL != 0, Errno::EINVAL)?;
            unless(op == Op::Recv && len != 0, Errno::EINVAL)
        }
    }
}
