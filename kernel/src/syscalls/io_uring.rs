//! io_uring_setup(2), io_uring_enter(2), io_uring_register(2).

use alloc::boxed::Box;

use super::SysResult;
use crate::errno::Result;
use crate::io_uring::{self, Params};
use crate::mm::UserPtr;
use crate::process::Thread;

pub async fn io_uring_setup(t: &Thread, entries: u32, params: UserPtr<Params>) -> Result<i32> {
    let mut given = params.read(t.mm()).await?;
    let fd = io_uring::setup(t, entries, &mut given)?;
    if let Err(errno) = params.write(t.mm(), given).await {
        t.files().close(fd)?;
        return Err(errno);
    }
    Ok(fd)
}

pub async fn io_uring_enter(
    t: &Thread,
    fd: u32,
    to_submit: u32,
    min_complete: u32,
    flags: u32,
    arg: u64,
    size: u64,
) -> SysResult<u32> {
    io_uring::enter(t, fd, to_submit, min_complete, flags, arg, size).await
}

pub fn io_uring_enter_now(
    t: &Thread,
    fd: u32,
    to_submit: u32,
    min_complete: u32,
    flags: u32,
    _arg: u64,
    _size: u64,
) -> Option<SysResult<u32>> {
    io_uring::enter_now(t, fd, to_submit, min_complete, flags)
}

pub async fn io_uring_register(t: &Thread, fd: i32, opcode: u32, arg: u64, count: u32) -> SysResult<i32> {
    Box::pin(io_uring::register(t, fd, opcode, arg, count)).await
}
