//! The door to the kernel: system calls as they are, without a library in between.

/// Makes a system call; answers what the kernel does, negated errno included.
///
/// # Safety
/// The call must do no harm to memory that Rust knows of.
#[cfg(target_arch = "aarch64")]
#[inline(always)]
pub unsafe fn raw(number: i64, arguments: [usize; 6]) -> isize {
    let result;
    // SAFETY: passed on to the caller.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") arguments[0] => result,
            in("x1") arguments[1],
            in("x2") arguments[2],
            in("x3") arguments[3],
            in("x4") arguments[4],
            in("x5") arguments[5],
            options(nostack),
        );
    }
    result
}

/// The same on the developer's machine, where these programs are checked but not run.
///
/// # Safety
/// The call must do no harm to memory that Rust knows of.
#[cfg(not(target_arch = "aarch64"))]
pub unsafe fn raw(number: i64, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: passed on to the caller.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    let errno = || std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
    if result < 0 { -(errno() as isize) } else { result as isize }
}
