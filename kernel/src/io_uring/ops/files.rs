//! What is done to files and names besides reading and writing, as the system calls do it.

use alloc::sync::Arc;

use linux_raw_sys::{general, io_uring as raw};

use super::check::raw_splice;
use super::net::place;
use super::{Op, misc, number};
use crate::errno::{Errno, Result};
use crate::fs::{OpenFile, splice};
use crate::io_uring::abi::{Outcome, Sqe};
use crate::io_uring::request::Request;
use crate::mm::UserPtr;
use crate::process::Thread;
use crate::syscalls::{self, SysResult};
use crate::syscalls::{fs_change, fs_open, fs_rw, fs_stat, fs_xattr};

pub async fn with_file(request: &Arc<Request>, t: &Thread, sqe: &Sqe, op: Op, file: &Arc<OpenFile>) -> Outcome {
    let (name, value) = (UserPtr::new(sqe.addr), UserPtr::new(sqe.off));
    let res = match op {
        Op::Fsync => number(request, file.sync(sqe.op_flags & raw::IORING_FSYNC_DATASYNC != 0).await),
        Op::SyncFileRange => {
            number(request, fs_rw::sync_range(file, sqe.off as i64, sqe.len.into(), sqe.op_flags).await)
        }
        Op::Fallocate => number(request, fs_rw::allocate(t, file, sqe.len, sqe.off as i64, sqe.addr as i64).await),
        Op::Fadvise => number(request, fs_rw::advise_file(file, sqe.len.into(), sqe.op_flags as i32)),
        Op::Fsetxattr => {
            let answer = fs_xattr::set(t, file.path(), name, value, sqe.len.into(), sqe.op_flags).await;
            number(request, answer)
        }
        Op::Fgetxattr => number(request, fs_xattr::get(t, file.path(), name, value, sqe.len.into()).await),
        Op::Splice | Op::Tee => {
            let res = number(request, splice(request, t, sqe, op, file).await);
            return Outcome { res, flags: 0, failed: res != sqe.len as i32 };
        }
        Op::MsgRing => number(request, misc::message(request, sqe, file)),
        // Commands and zero-copy sending: no file has them.
        _ => -Errno::EOPNOTSUPP.get(),
    };
    Outcome::of(res)
}

async fn splice(request: &Arc<Request>, t: &Thread, sqe: &Sqe, op: Op, output: &Arc<OpenFile>) -> SysResult<usize> {
    let input = match sqe.op_flags & raw_splice::FD_IN_FIXED != 0 {
        true => request.ring.registered.file(sqe.file_index)?,
        false => t.files().get_io(sqe.file_index as i32)?,
    };
    let nonblock = sqe.op_flags & general::SPLICE_F_NONBLOCK != 0;
    if sqe.len == 0 {
        return Ok(0);
    }
    if op == Op::Tee {
        return splice::tee(t, &input, output, sqe.len.into(), nonblock).await;
    }
    let position = |offset: u64| match offset {
        u64::MAX => Ok(None),
        offset if offset > i64::MAX as u64 => Err(Errno::EINVAL),
        offset => Ok(Some(offset)),
    };
    let (in_pos, out_pos) = (position(sqe.addr)?, position(sqe.off)?);
    let mut ends = splice::Ends { input: &input, in_pos, output, out_pos, nonblock };
    splice::splice(t, &mut ends, sqe.len.into()).await
}

pub async fn without_file(request: &Arc<Request>, t: &Thread, sqe: &Sqe, op: Op) -> Outcome {
    let (first, second) = (UserPtr::new(sqe.addr), UserPtr::new(sqe.off));
    let flags = sqe.op_flags;
    Outcome::of(match op {
        Op::Openat | Op::Openat2 => number(request, open(request, t, sqe, op).await),
        Op::Close => number(request, close(request, t, sqe)),
        Op::Statx => number(request, fs_stat::statx(t, sqe.fd, first, flags, sqe.len, second.cast()).await),
        Op::Madvise => number(request, syscalls::mm::madvise(t, sqe.addr, sqe.len.into(), flags).await),
        Op::Renameat => number(request, fs_change::renameat2(t, sqe.fd, first, sqe.len as i32, second, flags).await),
        Op::Unlinkat => number(request, fs_change::unlinkat(t, sqe.fd, first, flags).await),
        Op::Mkdirat => number(request, fs_change::mkdirat(t, sqe.fd, first, sqe.len).await),
        Op::Symlinkat => number(request, fs_change::symlinkat(t, first, sqe.fd, second).await),
        Op::Linkat => number(request, fs_change::linkat(t, sqe.fd, first, sqe.len as i32, second, flags).await),
        Op::EpollCtl => {
            number(request, syscalls::epoll::epoll_ctl(t, sqe.fd, sqe.len, sqe.off as i32, first.cast()).await)
        }
        Op::FilesUpdate => number(request, misc::update_files(request, t, sqe).await),
        Op::Socket => number(request, socket(request, t, sqe)),
        Op::Setxattr => {
            let (path, value) = (UserPtr::new(sqe.addr3), second);
            number(request, fs_xattr::setxattr(t, path, first, value, sqe.len.into(), flags).await)
        }
        Op::Getxattr => {
            number(request, fs_xattr::getxattr(t, UserPtr::new(sqe.addr3), first, second, sqe.len.into()).await)
        }
        _ => -Errno::EINVAL.get(),
    })
}

async fn open(request: &Arc<Request>, t: &Thread, sqe: &Sqe, op: Op) -> SysResult<i32> {
    let how = match op {
        Op::Openat => fs_open::how_of(sqe.op_flags, sqe.len),
        _ => fs_open::read_how(t, UserPtr::new(sqe.off), sqe.len.into()).await?,
    };
    if sqe.file_index == 0 {
        return fs_open::open_how(t, sqe.fd, UserPtr::new(sqe.addr), how).await;
    }
    if how.flags & general::O_CLOEXEC != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = fs_open::open_only(t, sqe.fd, UserPtr::new(sqe.addr), how).await?;
    Ok(place(request, t, sqe.file_index, file, false)?)
}

fn close(request: &Request, t: &Thread, sqe: &Sqe) -> Result<()> {
    if sqe.file_index != 0 {
        return request.ring.registered.remove_file(sqe.file_index - 1);
    }
    if super::misc::ring_of(&*t.files().get(sqe.fd)?).is_some() {
        return Err(Errno::EBADF);
    }
    t.files().close(sqe.fd)
}

fn socket(request: &Request, t: &Thread, sqe: &Sqe) -> Result<i32> {
    let (socket, flags) = syscalls::socket::make(t, sqe.fd as u32, sqe.off as u32, sqe.len as i32)?;
    let file = syscalls::socket::open_socket(socket, flags);
    place(request, t, sqe.file_index, file, flags & general::O_CLOEXEC != 0)
}
