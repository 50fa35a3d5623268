//! Descriptors of processes.

use std::ffi::CString;
use std::ptr::null_mut;

use libc::*;

use super::clone::Args;
use crate::file::{create, read, write};
use crate::process::{self, Gate, as_user, child, clone_here, tid, wait};
use crate::signal;
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    pidfd_of_clone, pidfd_errors, pidfd_polled, pidfd_send_signal_to_a_directory,
}

fn pidfd_of_clone() {
    let mut fd = -1i32;
    let args =
        Args { flags: CLONE_PIDFD as u64, exit_signal: SIGCHLD as u64, pidfd: &raw mut fd as u64, ..Args::default() };
    let gate = Gate::new();
    let ret = sys!(SYS_clone3, &args, 88);
    if ret.0 == 0 {
        gate.pass();
        process::exit(6);
    }
    // SAFETY: a live integer that the kernel has stored to.
    let fd = unsafe { (&raw const fd).read_volatile() };
    say!("the lowest free: {fd}");
    say!("close-on-exec: {}", sys!(SYS_fcntl, fd, F_GETFD, 0));
    say!("flags: {:o}", sys!(SYS_fcntl, fd, F_GETFL, 0).0);
    say!("signal 0: {}", sys!(SYS_pidfd_send_signal, fd, 0, 0, 0));
    gate.open();
    say!("{}", wait(ret.need() as i32));
    say!("after the wait: {}", sys!(SYS_pidfd_send_signal, fd, 0, 0, 0));
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).map(|path| path.display().to_string());
    say!("link: {}", link.unwrap_or_default());
    let mut word = -1i32;
    let ret = clone_here(CLONE_PIDFD | SIGCHLD, &mut word, null_mut());
    if ret.0 == 0 {
        process::exit(7);
    }
    // SAFETY: as above.
    say!("clone puts it where the parent's id would go: {}", unsafe { (&raw const word).read_volatile() });
    say!("{}", wait(ret.need() as i32));
}

fn pidfd_errors() {
    let own = sys!(SYS_getpid).0;
    say!("pidfd_open(0): {}", sys!(SYS_pidfd_open, 0, 0));
    say!("-1: {}", sys!(SYS_pidfd_open, -1, 0));
    say!("nobody: {}", sys!(SYS_pidfd_open, 4_000_000, 0));
    say!("bad flag: {}", sys!(SYS_pidfd_open, own, 1));
    let fd = sys!(SYS_pidfd_open, own, O_NONBLOCK).fd();
    say!("O_NONBLOCK: {:o}", sys!(SYS_fcntl, fd, F_GETFL, 0).0);
    say!("read: {}", read(fd, 1));
    say!("write: {}", write(fd, "x"));
    say!("lseek: {}", sys!(SYS_lseek, fd, 0, SEEK_SET));
    let send = |fd: i32, signal: i32, flags: u32| sys!(SYS_pidfd_send_signal, fd, signal, 0, flags);
    say!("bad signal: {} {}", send(fd, 65, 0), send(fd, -1, 0));
    say!("bad flag: {}", send(fd, 0, 8));
    say!("closed: {}", send(99, 0, 0));
    say!("no pidfd: {}", send(0, 0, 0));
    let mut info: siginfo_t = zeroed();
    info.si_signo = SIGUSR2;
    say!("another signal in the record: {}", sys!(SYS_pidfd_send_signal, fd, SIGUSR1, &info, 0));
    say!("bad record: {}", sys!(SYS_pidfd_send_signal, fd, SIGUSR1, NOWHERE, 0));
    info.si_signo = SIGUSR1;
    info.si_code = SI_USER;
    signal::block(SIGUSR1);
    say!("a forged SI_USER to oneself: {}", sys!(SYS_pidfd_send_signal, fd, SIGUSR1, &info, 0));
    let thread = std::thread::spawn(|| sys!(SYS_pidfd_open, tid(), 0));
    say!("of a thread that leads nothing: {}", thread.join().unwrap_or(Ret(0)));
    let init = sys!(SYS_pidfd_open, 1, 0).fd();
    as_user(1000, || {
        say!("another user's, by a user: {}", send(init, 0, 0));
        say!("open is allowed: {}", sys!(SYS_pidfd_open, 1, 0).ok_or_error());
        0
    });
    let other = create(c"f", "hello");
    say!("pidfd_getfd: {}", sys!(SYS_pidfd_getfd, fd, other, 0).ok_or_error());
    say!("closed there: {}", sys!(SYS_pidfd_getfd, fd, 99, 0));
    say!("bad flag: {}", sys!(SYS_pidfd_getfd, fd, other, 1));
    say!("no pidfd: {}", sys!(SYS_pidfd_getfd, other, other, 0));
    as_user(1000, || {
        say!("another user's: {}", sys!(SYS_pidfd_getfd, init, 0, 0));
        0
    });
}

fn pidfd_polled() {
    let gate = Gate::new();
    let pid = child(|| {
        gate.pass();
        0
    });
    let fd = sys!(SYS_pidfd_open, pid, 0).fd();
    let poll = |milliseconds: i64| {
        let mut entry = pollfd { fd, events: POLLIN | POLLOUT, revents: 0 };
        let time = timespec { tv_sec: 0, tv_nsec: milliseconds * 1_000_000 };
        let ret =
            sys!(SYS_ppoll, &mut entry, 1, if milliseconds < 0 { std::ptr::null() } else { &raw const time }, 0, 8);
        format!("{ret} {:#x}", entry.revents)
    };
    say!("it runs: {}", poll(0));
    gate.open();
    say!("it ends: {}", poll(-1));
    say!("{}", wait(pid));
    say!("it has been waited for: {}", poll(0));
}

fn pidfd_send_signal_to_a_directory() {
    let gate = Gate::new();
    let pid = child(|| {
        gate.pass();
        0
    });
    let open = |path: String, flags: i32| {
        let path = CString::new(path).unwrap_or_default();
        sys!(SYS_openat, AT_FDCWD, path.as_ptr(), flags, 0).fd()
    };
    let send = |fd: i32, signal: i32| sys!(SYS_pidfd_send_signal, fd, signal, 0, 0);
    let directory = open(format!("/proc/{pid}"), O_RDONLY | O_DIRECTORY);
    say!("/proc/PID: {}", send(directory, 0));
    say!("by its path only: {}", send(open(format!("/proc/{pid}"), O_PATH), 0));
    say!("a thread: {}", send(open(format!("/proc/{pid}/task/{pid}"), O_RDONLY), 0));
    say!("what is in it: {}", send(open(format!("/proc/{pid}/stat"), O_RDONLY), 0));
    say!("/proc: {}", send(open("/proc".into(), O_RDONLY), 0));
    say!("another directory: {}", send(open("/".into(), O_RDONLY), 0));
    say!("waitid: {}", sys!(SYS_waitid, P_PIDFD, directory, 0, WEXITED, 0));
    say!("pidfd_getfd: {}", sys!(SYS_pidfd_getfd, directory, 0, 0));
    say!("SIGTERM: {}", send(directory, SIGTERM));
    say!("{}", wait(pid));
    say!("after the wait: {}", send(directory, 0));
    gate.open();
}
