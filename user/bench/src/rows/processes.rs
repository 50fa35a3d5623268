//! The life of processes and threads.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use super::{Row, row};
use crate::measure::{Bench, Result};
use crate::sys;

pub const ROWS: &[Row] = &[
    row("pthread_create_join", pthread_create_join),
    row("fork_exit_wait", |bench| bench.per_operation(100, fork_exit_wait)),
    row("fork_exit_wait_64mib", fork_big),
    row("vfork_exit_wait", |bench| bench.per_operation(200, || vfork_and(None))),
    row("vfork_exec_static", |bench| vfork_exec(bench, STATIC)),
    row("vfork_exec_dynamic", |bench| vfork_exec(bench, DYNAMIC)),
    row("posix_spawn_static", posix_spawn),
    row("sh_c_exit", sh_c),
];

const STATIC: &CStr = c"/usr/bin/bench-noop";
const DYNAMIC: &CStr = c"/usr/bin/true";
const SHELL: &CStr = c"/bin/busybox";

fn pthread_create_join(bench: &Bench) -> Result<f64> {
    extern "C" fn nothing(_: *mut c_void) -> *mut c_void {
        ptr::null_mut()
    }
    bench.per_operation(500, || {
        // SAFETY: a thread that does nothing and is joined at once.
        unsafe {
            let mut thread = std::mem::zeroed();
            sys::check_code(
                "pthread_create",
                libc::pthread_create(&mut thread, ptr::null(), nothing, ptr::null_mut()),
            )?;
            sys::check_code("pthread_join", libc::pthread_join(thread, ptr::null_mut()))
        }
    })
}

fn fork_exit_wait() -> Result {
    match sys::fork()? {
        0 => sys::exit(0),
        child => sys::wait_well(child),
    }
}

/// The same with 64 MiB of memory in pages of the ordinary size, all written to.
fn fork_big(bench: &Bench) -> Result<f64> {
    const SIZE: usize = 64 << 20;
    let memory = sys::map(SIZE, libc::MAP_PRIVATE)?;
    for offset in (0..SIZE).step_by(4096) {
        // SAFETY: within the mapping.
        unsafe { memory.add(offset).write_volatile(1) };
    }
    bench.per_operation(10, fork_exit_wait)
}

/// A child that borrows this process's memory, and executes the program or just ends.
#[cfg(target_arch = "aarch64")]
fn vfork_and(program: Option<(&CStr, &[*const c_char])>) -> Result {
    let empty: [*const c_char; 1] = [ptr::null()];
    let (path, argv) = program.map_or((ptr::null(), empty.as_ptr()), |(path, argv)| (path.as_ptr(), argv.as_ptr()));
    let result: isize;
    // SAFETY: between the two returns of clone(2), on the same stack, the child touches nothing but
    // registers.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 3f",
            "cbz {path}, 2f",
            "mov x0, {path}",
            "mov x1, {argv}",
            "mov x2, {envp}",
            "mov x8, {execve}",
            "svc 0",
            "2: mov x8, {exit_group}",
            "svc 0",
            "3:",
            path = in(reg) path,
            argv = in(reg) argv,
            envp = in(reg) empty.as_ptr(),
            execve = const libc::SYS_execve,
            exit_group = const libc::SYS_exit_group,
            in("x8") libc::SYS_clone,
            inlateout("x0") (libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD) as isize => result,
            in("x1") 0,
            in("x2") 0,
            in("x3") 0,
            in("x4") 0,
        );
    }
    if result < 0 {
        return crate::measure::Stop::failed(format!("clone: {result}"));
    }
    sys::wait_well(result as i32)
}

#[cfg(not(target_arch = "aarch64"))]
fn vfork_and(_program: Option<(&CStr, &[*const c_char])>) -> Result {
    crate::measure::Stop::failed("only on arm64")
}

fn vfork_exec(bench: &Bench, path: &CStr) -> Result<f64> {
    let argv = [path.as_ptr(), ptr::null()];
    bench.per_operation(50, || vfork_and(Some((path, &argv))))
}

fn spawn(path: &CStr, argv: &[*const c_char]) -> Result {
    let empty = [ptr::null_mut::<c_char>()];
    let mut child = 0;
    // SAFETY: both lists end with a null pointer; the function does not write to the strings.
    let code = unsafe {
        libc::posix_spawn(&mut child, path.as_ptr(), ptr::null(), ptr::null(), argv.as_ptr().cast(), empty.as_ptr())
    };
    sys::check_code("posix_spawn", code)?;
    sys::wait_well(child)
}

fn posix_spawn(bench: &Bench) -> Result<f64> {
    let argv = [STATIC.as_ptr(), ptr::null()];
    bench.per_operation(50, || spawn(STATIC, &argv))
}

fn sh_c(bench: &Bench) -> Result<f64> {
    let argv = [c"sh".as_ptr(), c"-c".as_ptr(), c"exit 0".as_ptr(), ptr::null()];
    bench.per_operation(30, || spawn(SHELL, &argv))
}
