//! Calls that answer at once.

use super::{Row, row};
use crate::measure::{Bench, Result};
use crate::sys;

pub const ROWS: &[Row] = &[
    row("null_syscall", null_syscall),
    row("bad_syscall", bad_syscall),
    row("getuid", |bench| bench.per_operation(20_000, || sys::call("getuid", libc::SYS_getuid, []).map(drop))),
    row("sigprocmask", sigprocmask),
    row("lseek", lseek),
    row("fcntl_getfl", fcntl_getfl),
    row("dup_close", dup_close),
    row("read_dev_null", |bench| read_device(bench, c"/dev/null", 1)),
    row("write_dev_null", write_dev_null),
    row("read_dev_zero_4k", |bench| read_device(bench, c"/dev/zero", 4096)),
    row("getcwd", getcwd),
    row("uname", uname),
];

fn null_syscall(bench: &Bench) -> Result<f64> {
    bench.per_operation(20_000, || sys::call("getppid", libc::SYS_getppid, []).map(drop))
}

/// A number that no kernel has.
fn bad_syscall(bench: &Bench) -> Result<f64> {
    bench.per_operation(20_000, || {
        sys::expect(sys::raw(4000, []) == -libc::ENOSYS as isize, "call 4000 does not answer ENOSYS")
    })
}

fn sigprocmask(bench: &Bench) -> Result<f64> {
    let (mask, mut old) = (0u64, 0u64);
    let arguments = [libc::SIG_SETMASK as usize, &raw const mask as usize, &raw mut old as usize, 8];
    bench.per_operation(20_000, || sys::call("rt_sigprocmask", libc::SYS_rt_sigprocmask, arguments).map(drop))
}

fn lseek(bench: &Bench) -> Result<f64> {
    let file = sys::open(c"/tmp/bench.lseek", libc::O_CREAT | libc::O_RDWR)?;
    let result = bench.per_operation(20_000, || sys::call("lseek", libc::SYS_lseek, [file as usize, 100, 0]).map(drop));
    sys::unlink(c"/tmp/bench.lseek")?;
    result
}

fn fcntl_getfl(bench: &Bench) -> Result<f64> {
    let file = sys::open(c"/dev/null", libc::O_RDWR)? as usize;
    bench.per_operation(20_000, || sys::call("fcntl", libc::SYS_fcntl, [file, libc::F_GETFL as usize, 0]).map(drop))
}

fn dup_close(bench: &Bench) -> Result<f64> {
    let file = sys::open(c"/dev/null", libc::O_RDWR)? as usize;
    bench.per_operation(20_000, || {
        let copy = sys::call("dup", libc::SYS_dup, [file])?;
        sys::call("close", libc::SYS_close, [copy]).map(drop)
    })
}

fn read_device(bench: &Bench, path: &std::ffi::CStr, length: usize) -> Result<f64> {
    let file = sys::open(path, libc::O_RDONLY)?;
    let mut buffer = vec![0; length];
    bench.per_operation(10_000, || sys::read(file, &mut buffer).map(drop))
}

fn write_dev_null(bench: &Bench) -> Result<f64> {
    let file = sys::open(c"/dev/null", libc::O_WRONLY)?;
    bench.per_operation(20_000, || sys::write(file, b"x").map(drop))
}

fn getcwd(bench: &Bench) -> Result<f64> {
    let mut buffer = [0u8; 256];
    sys::call("chdir", libc::SYS_chdir, [c"/var/tmp".as_ptr() as usize])?;
    let arguments = [buffer.as_mut_ptr() as usize, buffer.len()];
    bench.per_operation(10_000, || sys::call("getcwd", libc::SYS_getcwd, arguments).map(drop))
}

fn uname(bench: &Bench) -> Result<f64> {
    let mut buffer = [0u8; 6 * 65];
    let arguments = [buffer.as_mut_ptr() as usize];
    bench.per_operation(10_000, || sys::call("uname", libc::SYS_uname, arguments).map(drop))
}
