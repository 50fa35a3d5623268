//! Children, and how they end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread::JoinHandle;

use crate::signal;
use crate::sys::{Ret, sys};

/// Ends this process at once.
pub fn exit(status: i32) -> ! {
    sys!(SYS_exit_group, status);
    unreachable!("exit_group returned")
}

/// Runs `body` in a child, whose status it answers.
pub fn child(body: impl FnOnce() -> i32) -> i32 {
    // SAFETY: tests have one thread when they fork, or the child ends without using what other threads hold.
    match unsafe { libc::fork() } {
        0 => exit(body()),
        -1 => {
            crate::say!("no child: {}", std::io::Error::last_os_error());
            exit(97)
        }
        pid => pid,
    }
}

/// Runs `body` in a child and waits for its end.
pub fn in_child(body: impl FnOnce() -> i32) -> Status {
    wait(child(body))
}

/// Runs `body` in a child that has another user's ids and no capabilities, and waits for its end.
pub fn as_user(id: u32, body: impl FnOnce() -> i32) -> Status {
    in_child(|| {
        become_user(id);
        body()
    })
}

/// Runs `body` in a child that is user and group 1000.
pub fn as_plain_user(body: impl FnOnce()) {
    let status = as_user(1000, || {
        body();
        0
    });
    if status != Status::Exited(0) {
        crate::say!("the user's process {status}");
    }
}

/// Takes these ids for user and group; the way back is barred.
pub fn become_user(id: u32) {
    sys!(SYS_setgroups, 0, 0).need();
    sys!(SYS_setresgid, id, id, id).need();
    sys!(SYS_setresuid, id, id, id).need();
}

/// clone(2) without a stack for the child: it returns in both, like fork.
pub fn clone_here(flags: i32, parent_tid: *mut i32, child_tid: *mut i32) -> Ret {
    sys!(SYS_clone, flags, 0, parent_tid, 0, child_tid)
}

/// clone(2) with a stack: the new thread runs `body` and ends with what it returns, alone (exit, not exit_group). It has
/// the caller's thread-local storage, so it must not use a library that has any.
pub fn clone_on(
    flags: i32,
    stack: &mut [u8],
    tids: [*mut i32; 2],
    body: extern "C" fn(usize) -> i32,
    arg: usize,
) -> Ret {
    let top = (stack.as_mut_ptr() as usize + stack.len()) & !15;
    // SAFETY: the stack is the caller's, and outlives the thread as the caller says.
    Ret(unsafe { contract_clone(flags as usize, top, tids[0], 0, tids[1], body, arg) })
}

#[cfg(target_arch = "aarch64")]
unsafe extern "C" {
    fn contract_clone(
        flags: usize,
        stack: usize,
        parent_tid: *mut i32,
        tls: usize,
        child_tid: *mut i32,
        body: extern "C" fn(usize) -> i32,
        arg: usize,
    ) -> i64;
}

#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".globl contract_clone",
    "contract_clone:",
    "stp x5, x6, [x1, #-16]!",
    "mov x8, #220",
    "svc 0",
    "cbz x0, 1f",
    "ret",
    "1: mov x29, xzr",
    "ldp x1, x0, [sp], #16",
    "blr x1",
    "mov x8, #93",
    "svc 0",
);

#[cfg(not(target_arch = "aarch64"))]
unsafe fn contract_clone(
    _: usize,
    _: usize,
    _: *mut i32,
    _: usize,
    _: *mut i32,
    _: extern "C" fn(usize) -> i32,
    _: usize,
) -> i64 {
    -i64::from(libc::ENOSYS)
}

pub fn kill(pid: i32, signal: i32) -> Ret {
    sys!(SYS_kill, pid, signal)
}

/// How a child has changed, as waitpid(2) says.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Exited(i32),
    /// The signal, and whether there is a core dump.
    Killed(i32, bool),
    Stopped(i32),
    Continued,
    /// There is no such child.
    Lost,
}

impl Status {
    pub fn from_wait(status: i32) -> Status {
        if libc::WIFEXITED(status) {
            Status::Exited(libc::WEXITSTATUS(status))
        } else if libc::WIFSIGNALED(status) {
            Status::Killed(libc::WTERMSIG(status), libc::WCOREDUMP(status))
        } else if libc::WIFSTOPPED(status) {
            Status::Stopped(status >> 8)
        } else {
            Status::Continued
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Exited(code) => write!(f, "exited with {code}"),
            Status::Killed(signal, false) => write!(f, "killed by {}", signal::name(*signal)),
            Status::Killed(signal, true) => write!(f, "killed by {}, core dumped", signal::name(*signal)),
            Status::Stopped(signal) if signal >> 8 != 0 => {
                write!(f, "stopped by {}, event {}", signal::name(signal & 0xff), signal >> 8)
            }
            Status::Stopped(signal) => write!(f, "stopped by {}", signal::name(*signal)),
            Status::Continued => write!(f, "continued"),
            Status::Lost => write!(f, "lost"),
        }
    }
}

/// Waits for the end of a child.
pub fn wait(pid: i32) -> Status {
    wait_for(pid, 0)
}

/// Waits for a child, also for a stop (WUNTRACED) or that it goes on (WCONTINUED).
pub fn wait_for(pid: i32, options: i32) -> Status {
    let mut status = 0i32;
    loop {
        match sys!(SYS_wait4, pid, &mut status, options, 0) {
            Ret(1..) => return Status::from_wait(status),
            ret if ret.errno() == libc::EINTR => {}
            _ => return Status::Lost,
        }
    }
}

/// How a child has ended, if it has.
pub fn try_wait(pid: i32) -> Option<Status> {
    let mut status = 0i32;
    match sys!(SYS_wait4, pid, &mut status, libc::WNOHANG, 0) {
        Ret(0) => None,
        Ret(1..) => Some(Status::from_wait(status)),
        _ => Some(Status::Lost),
    }
}

pub fn sleep_ms(milliseconds: i64) {
    let mut time = libc::timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 };
    while sys!(SYS_nanosleep, &time, &mut time).errno() == libc::EINTR {}
}

/// The letter that /proc/PID/stat has for the state of a process; `-` if there is none.
pub fn state(pid: i32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('-')
}

/// Waits until a process sleeps in the kernel: then it has got to the call that it is to wait in.
pub fn until_asleep(pid: i32) {
    for _ in 0..2000 {
        if matches!(state(pid), 'S' | 'Z' | 'T' | '-') {
            return;
        }
        sleep_ms(2);
    }
}

/// Starts a thread and comes back when that sleeps in `body`, or has ended.
pub fn sleeping_thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> (i32, JoinHandle<T>) {
    let tid = Arc::new(AtomicI32::new(0));
    let told = tid.clone();
    let thread = std::thread::spawn(move || {
        told.store(sys!(SYS_gettid).0 as i32, Ordering::SeqCst);
        body()
    });
    while tid.load(Ordering::SeqCst) == 0 {
        sleep_ms(1);
    }
    let tid = tid.load(Ordering::SeqCst);
    until_asleep(tid);
    (tid, thread)
}

/// Two ends of a pipe, for children to tell that they have got somewhere.
#[derive(Clone, Copy)]
pub struct Gate([i32; 2]);

impl Gate {
    pub fn new() -> Gate {
        let mut ends = [0i32; 2];
        sys!(SYS_pipe2, &mut ends, 0).need();
        Gate(ends)
    }

    pub fn open(&self) {
        sys!(SYS_write, self.0[1], "x", 1).need();
    }

    /// Waits until it has been opened once more than passed.
    pub fn pass(&self) {
        let mut byte = [0u8; 1];
        while sys!(SYS_read, self.0[0], &mut byte, 1).errno() == libc::EINTR {}
    }
}

pub fn pid() -> i32 {
    sys!(SYS_getpid).0 as i32
}

/// A child that does nothing until it is killed.
pub fn sleeper() -> i32 {
    let pid = child(|| {
        loop {
            sleep_ms(100_000);
        }
    });
    until_asleep(pid);
    pid
}

pub fn tid() -> i32 {
    sys!(SYS_gettid).0 as i32
}

pub fn comm() -> String {
    let mut name = [0u8; 16];
    sys!(SYS_prctl, libc::PR_GET_NAME, &mut name, 0, 0, 0);
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(16);
    String::from_utf8_lossy(&name[..end]).into_owned()
}

pub fn prctl_of(option: i32, arguments: [usize; 4]) -> Ret {
    let [a, b, c, d] = arguments;
    sys!(SYS_prctl, option, a, b, c, d)
}
