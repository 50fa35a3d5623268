//! /proc/PID/fd and fdinfo.

use alloc::sync::Arc;
use linux_raw_sys::general as raw;

use super::subject::Subject;
use super::text::{Text, put};
use crate::errno::{Errno, Result};
use crate::fs::{FdTable, OpenFile};

pub fn table(subject: &Subject) -> Result<Arc<FdTable>> {
    subject.handles()?.files.ok_or(Errno::ESRCH)
}

/// ENOENT unless `fd` is open.
pub fn check(subject: &Subject, fd: i32) -> Result<i32> {
    file(subject, fd).map(|_| fd)
}

pub fn file(subject: &Subject, fd: i32) -> Result<Arc<OpenFile>> {
    table(subject)?.get(fd).map_err(|_| Errno::ENOENT)
}

/// The mode of a link tells how the file is open.
pub fn link_perm(subject: &Subject, fd: i32) -> u16 {
    let Ok(file) = file(subject, fd) else { return 0 };
    let read = if file.readable() { 0o500 } else { 0 };
    let write = if file.writable() { 0o300 } else { 0 };
    read | write
}

/// proc_pid_fdinfo(5).
pub fn info(subject: &Subject, fd: i32, out: &mut Text) -> Result<()> {
    let file = file(subject, fd)?;
    let cloexec = table(subject)?.cloexec(fd).unwrap_or(false);
    let flags = file.flags() | if cloexec { raw::O_CLOEXEC } else { 0 };
    put!(out, "pos:\t{}\nflags:\t0{flags:o}\n", file.position());
    put!(out, "mnt_id:\t{}\nino:\t{}\n", file.path().mount.id(), file.inode().metadata().ino);
    if let Some(ops) = file.ops() {
        put!(out, "{}", ops.info());
    }
    Ok(())
}
