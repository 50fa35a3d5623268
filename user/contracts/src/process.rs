//! Children, and how they end.

use std::fmt;

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

/// Two ends of a pipe, for children to tell that they have got somewhere.
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
