//! The door to the kernel.

use std::ffi::{CStr, c_char};
use std::ptr;

use crate::measure::{Result, Stop, now};

/// A raw system call with up to six arguments; answers what the kernel does, negated errno included.
#[inline(always)]
pub fn raw<const N: usize>(number: i64, arguments: [usize; N]) -> isize {
    // One by one: array::from_fn would be a loop in each operation that is measured.
    let argument = |index: usize| if index < N { arguments[index] } else { 0 };
    let all = [argument(0), argument(1), argument(2), argument(3), argument(4), argument(5)];
    // SAFETY: what the call does to memory, its callers answer for: they pass live buffers.
    unsafe { pollux_door::raw(number, all) }
}

/// A system call that must succeed.
#[inline(always)]
pub fn call<const N: usize>(what: &'static str, number: i64, arguments: [usize; N]) -> Result<usize> {
    let result = raw(number, arguments);
    if result >= 0 { Ok(result as usize) } else { refused(what, -result as i32) }
}

/// A function of the C library that must succeed: -1 is failure.
#[inline(always)]
pub fn check(what: &'static str, result: isize) -> Result<usize> {
    if result >= 0 { Ok(result as usize) } else { refused(what, errno()) }
}

/// A function of the threads library that must succeed: it returns the errno.
#[inline(always)]
pub fn check_code(what: &'static str, code: i32) -> Result {
    if code == 0 { Ok(()) } else { refused(what, code) }
}

#[cold]
fn refused<T>(what: &str, errno: i32) -> Result<T> {
    if [libc::ENOSYS, libc::EAFNOSUPPORT, libc::EPROTONOSUPPORT].contains(&errno) {
        return Err(Stop::Absent);
    }
    Stop::failed(format!("{what}: errno {errno}"))
}

/// Starts this program anew, with the same arguments, without a random address-space layout, as setarch(8) -R does: it
/// decides how many page tables a mapping spans, and what fork(2) costs with it. Where that can't be, all goes on as it is.
pub fn fix_layout(argv: *const *const c_char) {
    const ASK: libc::c_ulong = 0xffff_ffff;
    // SAFETY: no memory is touched but the strings that this program was given, by the program that follows.
    unsafe {
        let persona = libc::personality(ASK);
        if persona == -1 || persona & libc::ADDR_NO_RANDOMIZE != 0 {
            return;
        }
        libc::personality((persona | libc::ADDR_NO_RANDOMIZE) as libc::c_ulong);
        libc::execv(c"/proc/self/exe".as_ptr(), argv);
    }
}

pub fn errno() -> i32 {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Something unexpected that is not an errno.
pub fn expect(holds: bool, what: &str) -> Result {
    if holds { Ok(()) } else { Stop::failed(what) }
}

pub fn pipe() -> Result<(i32, i32)> {
    let mut ends = [0i32; 2];
    call("pipe2", libc::SYS_pipe2, [ends.as_mut_ptr() as usize, 0])?;
    Ok((ends[0], ends[1]))
}

pub fn close(fd: i32) {
    raw(libc::SYS_close, [fd as usize]);
}

#[inline(always)]
pub fn read(fd: i32, buffer: &mut [u8]) -> Result<usize> {
    call("read", libc::SYS_read, [fd as usize, buffer.as_mut_ptr() as usize, buffer.len()])
}

#[inline(always)]
pub fn write(fd: i32, buffer: &[u8]) -> Result<usize> {
    call("write", libc::SYS_write, [fd as usize, buffer.as_ptr() as usize, buffer.len()])
}

pub fn write_all(fd: i32, mut buffer: &[u8]) -> Result {
    while !buffer.is_empty() {
        let written = write(fd, buffer)?;
        buffer = &buffer[written..];
    }
    Ok(())
}

/// Reads until the buffer is full; an error if the end comes first.
pub fn read_exact(fd: i32, buffer: &mut [u8]) -> Result {
    let mut filled = 0;
    while filled < buffer.len() {
        let length = read(fd, &mut buffer[filled..])?;
        expect(length > 0, "the other side is gone")?;
        filled += length;
    }
    Ok(())
}

pub fn read_to_end(fd: i32) -> String {
    let mut text = Vec::new();
    let mut buffer = [0; 512];
    while let Ok(length @ 1..) = read(fd, &mut buffer) {
        text.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

pub fn open(path: &CStr, flags: i32) -> Result<i32> {
    let arguments = [libc::AT_FDCWD as usize, path.as_ptr() as usize, flags as usize, 0o644];
    Ok(call("openat", libc::SYS_openat, arguments)? as i32)
}

pub fn unlink(path: &CStr) -> Result {
    call("unlinkat", libc::SYS_unlinkat, [libc::AT_FDCWD as usize, path.as_ptr() as usize, 0]).map(drop)
}

/// Forks, without what the C library does around it. The child must end with [`exit`].
pub fn fork() -> Result<i32> {
    #[cfg(target_arch = "aarch64")]
    let result = raw(libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0, 0]);
    #[cfg(not(target_arch = "aarch64"))]
    // SAFETY: this program has one thread wherever it forks.
    let result = unsafe { libc::fork() } as isize;
    if result >= 0 { Ok(result as i32) } else { refused("clone", -result as i32) }
}

pub fn exit(status: i32) -> ! {
    loop {
        raw(libc::SYS_exit_group, [status as usize]);
    }
}

/// Waits for one child to end and returns its status.
pub fn wait(child: i32) -> Result<i32> {
    let mut status = 0i32;
    call("wait4", libc::SYS_wait4, [child as usize, &raw mut status as usize, 0, 0])?;
    Ok(status)
}

/// Waits for a child that must have ended well.
pub fn wait_well(child: i32) -> Result {
    let status = wait(child)?;
    expect(status == 0, "a child failed")
}

pub fn kill(process: i32) {
    raw(libc::SYS_kill, [process as usize, libc::SIGKILL as usize]);
}

pub fn lead_group() {
    raw(libc::SYS_setpgid, [0, 0]);
}

pub fn kill_group(leader: i32) {
    raw(libc::SYS_kill, [-(leader as isize) as usize, libc::SIGKILL as usize]);
}

/// Pins the calling thread to one CPU.
pub fn pin(cpu: usize) -> Result {
    let mask = 1u64 << cpu;
    call("sched_setaffinity", libc::SYS_sched_setaffinity, [0, 8, &raw const mask as usize]).map(drop)
}

/// How many CPUs this process may use.
pub fn cpus() -> usize {
    let mut mask = [0u64; 16];
    let length = raw(libc::SYS_sched_getaffinity, [0, size_of_val(&mask), mask.as_mut_ptr() as usize]);
    if length < 0 { 1 } else { mask.iter().map(|word| word.count_ones() as usize).sum() }
}

pub fn sleep_ms(milliseconds: i64) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: milliseconds * 1_000_000 };
    // SAFETY: a live structure and no place for the rest.
    unsafe { libc::nanosleep(&time, ptr::null_mut()) };
}

/// To the next whole second of CLOCK_MONOTONIC, but at least half a second away.
pub fn sleep_to_whole_second() {
    let second = (now() + 1_500_000_000) / 1_000_000_000;
    let time = libc::timespec { tv_sec: second as i64, tv_nsec: 0 };
    // SAFETY: a live structure and no place for the rest.
    unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &time, ptr::null_mut()) };
}

/// Whether there is something to read, or the end, within these milliseconds; -1: wait for it.
pub fn wait_readable(fd: i32, milliseconds: i32) -> bool {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one live entry.
    unsafe { libc::poll(&mut entry, 1, milliseconds) > 0 }
}

/// Fresh anonymous memory, in pages of the ordinary size.
pub fn map(length: usize, flags: i32) -> Result<*mut u8> {
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as usize;
    let flags = (libc::MAP_ANONYMOUS | flags) as usize;
    let address = call("mmap", libc::SYS_mmap, [0, length, protection, flags, usize::MAX, 0])?;
    // A kernel may not know huge pages.
    raw(libc::SYS_madvise, [address, length, libc::MADV_NOHUGEPAGE as usize]);
    Ok(address as *mut u8)
}

pub fn unmap(address: *mut u8, length: usize) -> Result {
    call("munmap", libc::SYS_munmap, [address as usize, length]).map(drop)
}

/// What reading the clock once costs.
pub fn clock_cost() -> u64 {
    const READINGS: u64 = 1000;
    let start = now();
    for _ in 0..READINGS {
        std::hint::black_box(now());
    }
    (now() - start) / READINGS
}
