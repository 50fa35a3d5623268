//! Files.

use std::ffi::CStr;

use libc::{AT_FDCWD, O_CREAT, O_RDWR, O_TRUNC};

use crate::sys::{Ret, sys, zeroed};

pub fn open(path: &CStr, flags: i32) -> Ret {
    sys!(SYS_openat, AT_FDCWD, path, flags, 0o644)
}

/// A new file with these contents, open at its start.
pub fn create(path: &CStr, contents: &str) -> i32 {
    let fd = open(path, O_CREAT | O_RDWR | O_TRUNC).fd();
    write(fd, contents);
    sys!(SYS_lseek, fd, 0, libc::SEEK_SET);
    fd
}

pub fn mkdir(path: &CStr) -> Ret {
    sys!(SYS_mkdirat, AT_FDCWD, path, 0o755)
}

pub fn rmdir(path: &CStr) -> Ret {
    sys!(SYS_unlinkat, AT_FDCWD, path, libc::AT_REMOVEDIR)
}

pub fn unlink(path: &CStr) -> Ret {
    sys!(SYS_unlinkat, AT_FDCWD, path, 0)
}

pub fn symlink(target: &CStr, path: &CStr) -> Ret {
    sys!(SYS_symlinkat, target, AT_FDCWD, path)
}

pub fn link(from: &CStr, to: &CStr) -> Ret {
    sys!(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0)
}

pub fn rename(from: &CStr, to: &CStr, flags: u32) -> Ret {
    sys!(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags)
}

/// A path that is put together.
pub fn path(text: impl Into<Vec<u8>>) -> std::ffi::CString {
    std::ffi::CString::new(text).unwrap_or_default()
}

pub fn close(fd: i32) -> Ret {
    sys!(SYS_close, fd)
}

pub fn write(fd: i32, text: &str) -> Ret {
    sys!(SYS_write, fd, text, text.len())
}

/// Reads so much at most, as text; or the error.
pub fn read(fd: i32, length: usize) -> String {
    let mut buffer = vec![0u8; length];
    let ret = sys!(SYS_read, fd, &mut buffer[..], length);
    shown(ret, &buffer)
}

pub fn read_at(fd: i32, length: usize, offset: i64) -> String {
    let mut buffer = vec![0u8; length];
    let ret = sys!(SYS_pread64, fd, &mut buffer[..], length, offset);
    shown(ret, &buffer)
}

pub fn shown(ret: Ret, buffer: &[u8]) -> String {
    if ret.ok() { format!("{:?}", String::from_utf8_lossy(&buffer[..ret.0 as usize])) } else { ret.to_string() }
}

/// The contents of a file, from a descriptor of its own.
pub fn contents(path: &CStr) -> String {
    let opened = open(path, libc::O_RDONLY);
    if !opened.ok() {
        return opened.to_string();
    }
    let text = read(opened.fd(), 1 << 16);
    close(opened.fd());
    text
}

pub fn stat(path: &CStr) -> Result<libc::stat, Ret> {
    stat_at(AT_FDCWD, path, libc::AT_SYMLINK_NOFOLLOW)
}

pub fn stat_at(directory: i32, path: &CStr, flags: i32) -> Result<libc::stat, Ret> {
    let mut stat: libc::stat = zeroed();
    match sys!(SYS_newfstatat, directory, path, &mut stat, flags) {
        ret if ret.ok() => Ok(stat),
        error => Err(error),
    }
}

pub fn fstat(fd: i32) -> Result<libc::stat, Ret> {
    stat_at(fd, c"", libc::AT_EMPTY_PATH)
}

/// Type and mode in octal, links, owner, group and size: what does not change from run to run.
pub fn described(stat: Result<libc::stat, Ret>) -> String {
    match stat {
        Ok(stat) => format!(
            "mode {:o}, {} links, owner {}:{}, {} bytes",
            stat.st_mode, stat.st_nlink, stat.st_uid, stat.st_gid, stat.st_size
        ),
        Err(error) => error.to_string(),
    }
}

pub fn pipe() -> [i32; 2] {
    pipe_with(0)
}

pub fn pipe_with(flags: i32) -> [i32; 2] {
    let mut ends = [0i32; 2];
    sys!(SYS_pipe2, &mut ends, flags).need();
    ends
}
