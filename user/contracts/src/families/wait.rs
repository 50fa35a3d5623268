//! wait4(2) and waitid(2).

use libc::*;

use crate::memory::PAGE;
use crate::process::{self, Gate, Status, child, in_child, kill, sleeper, until_asleep, wait};
use crate::signal;
use crate::sys::{KERNEL, NOWHERE, Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    ends, options_of_wait4, options_of_waitid, which_children, no_children, no_hang, stopped_and_continued,
    stop_is_reported_once, waitid_information, pidfds, by_group, bad_pointers, interrupted, order_of_errors,
    stopped_then_killed,
}

pub(super) const WNOTHREAD: i32 = 0x2000_0000;

/// What waitid answers, and what it stores: `pid` is shown as whether it is the one expected.
pub(super) fn waitid(which: u32, id: i32, options: i32, expected: i32) -> String {
    let mut info: siginfo_t = zeroed();
    let ret = sys!(SYS_waitid, which, id, &mut info, options, 0);
    if !ret.ok() {
        return ret.to_string();
    }
    // SAFETY: the record is one of a child, or zero.
    let (pid, status, uid) = unsafe { (info.si_pid(), info.si_status(), info.si_uid()) };
    let whose = if pid == 0 {
        "nobody"
    } else if pid == expected {
        "the child"
    } else {
        "another"
    };
    format!("{ret}: signal {}, code {}, {whose}, status {status}, user {uid}", info.si_signo, info.si_code)
}

pub(super) fn wait4(pid: i32, options: i32) -> String {
    let mut status = 0i32;
    match sys!(SYS_wait4, pid, &mut status, options, 0) {
        Ret(0) => "nothing".into(),
        Ret(1..) => Status::from_wait(status).to_string(),
        error => error.to_string(),
    }
}

/// A child that has ended and has not been waited for.
pub(super) fn zombie(status: i32) -> i32 {
    let pid = child(|| status);
    let mut info: siginfo_t = zeroed();
    sys!(SYS_waitid, P_PID, pid, &mut info, WEXITED | WNOWAIT, 0);
    pid
}

fn end(pid: i32) {
    kill(pid, SIGKILL);
    wait(pid);
}

fn ends() {
    for value in [0, 1, 127, 255, 256, 511, -1] {
        say!("exit_group({value}): {}", wait(child(|| value)));
    }
    say!("exit({}): {}", 77, {
        wait(child(|| {
            sys!(SYS_exit, 77);
            0
        }))
    });
    for signal in [SIGKILL, SIGTERM, SIGHUP, SIGSEGV, SIGABRT, 34, 64] {
        let pid = child(|| {
            signal::default(signal);
            kill(sys!(SYS_getpid).0 as i32, signal);
            0
        });
        let mut status = 0i32;
        sys!(SYS_wait4, pid, &mut status, 0, 0);
        say!("{}: {status:#x}", signal::name(signal));
    }
}

fn options_of_wait4() {
    let pid = zombie(5);
    for (name, options) in [
        ("WEXITED", WEXITED),
        ("WNOWAIT", WNOWAIT),
        ("unknown 0x10", 0x10),
        ("unknown 0x100", 0x100),
        ("unknown 0x10000000", 0x1000_0000),
    ] {
        say!("{name}: {}", wait4(pid, options));
    }
    say!("everything it knows: {}", wait4(pid, WNOHANG | WUNTRACED | WCONTINUED | __WALL | WNOTHREAD));
    say!("i32::MIN: {}", wait4(i32::MIN, 0));
    say!("i32::MIN and a bad option: {}", wait4(i32::MIN, 0x100));
}

fn options_of_waitid() {
    let pid = zombie(5);
    say!("none: {}", waitid(P_PID, pid, 0, pid));
    say!("WNOHANG alone: {}", waitid(P_PID, pid, WNOHANG, pid));
    say!("WNOWAIT alone: {}", waitid(P_PID, pid, WNOWAIT, pid));
    say!("unknown: {}", waitid(P_PID, pid, WEXITED | 0x100, pid));
    say!("type 4: {}", waitid(4, pid, WEXITED, pid));
    say!("P_PID 0: {}", waitid(P_PID, 0, WEXITED, pid));
    say!("P_PID -1: {}", waitid(P_PID, -1, WEXITED, pid));
    say!("P_PGID -1: {}", waitid(P_PGID, -1, WEXITED, pid));
    say!("P_PIDFD -1: {}", waitid(P_PIDFD, -1, WEXITED, pid));
    say!("P_PIDFD closed: {}", waitid(P_PIDFD, 99, WEXITED, pid));
    say!("P_PIDFD of a pipe: {}", waitid(P_PIDFD, crate::file::pipe()[0], WEXITED, pid));
    say!("WSTOPPED of a zombie: {}", waitid(P_PID, pid, WSTOPPED | WNOHANG, pid));
    say!("P_ALL, whatever the id: {}", waitid(P_ALL, -7, WEXITED, pid));
    say!("again: {}", waitid(P_ALL, 0, WEXITED, pid));
}

fn which_children() {
    let (one, two) = (zombie(1), zombie(2));
    say!("the second first: {}", wait4(two, 0));
    say!("its own group: {}", wait4(0, 0));
    say!("none is left: {}", wait4(-1, 0));
    let _ = one;
    say!("init: {}", wait4(1, 0));
    say!("itself: {}", wait4(sys!(SYS_getpid).0 as i32, 0));
    say!("its parent: {}", wait4(sys!(SYS_getppid).0 as i32, 0));
    let leader = child(|| {
        sys!(SYS_setpgid, 0, 0);
        9
    });
    let mut info: siginfo_t = zeroed();
    sys!(SYS_waitid, P_PID, leader, &mut info, WEXITED | WNOWAIT, 0);
    say!("not of this group: {}", wait4(0, WNOHANG));
    say!("by its group: {}", wait4(-leader, 0));
}

fn no_children() {
    say!("any: {}", wait4(-1, 0));
    say!("any, WNOHANG: {}", wait4(-1, WNOHANG));
    say!("one: {}", wait4(4_000_000, 0));
    say!("a group: {}", wait4(-4_000_000, 0));
    say!("waitid: {}", waitid(P_ALL, 0, WEXITED, 0));
    say!("waitid WNOHANG: {}", waitid(P_ALL, 0, WEXITED | WNOHANG, 0));
    say!("waitid of a group: {}", waitid(P_PGID, 0, WEXITED, 0));
}

fn no_hang() {
    let pid = sleeper();
    let mut status = -1i32;
    say!("nothing yet: {}", sys!(SYS_wait4, pid, &mut status, WNOHANG, 0));
    say!("the status is left alone: {status}");
    let mut info: siginfo_t = zeroed();
    info.si_signo = 77;
    info.si_errno = 78;
    info.si_code = 79;
    say!("waitid: {}", sys!(SYS_waitid, P_PID, pid, &mut info, WEXITED | WNOHANG, 0));
    say!("its record: {} {} {}", info.si_signo, info.si_errno, info.si_code);
    end(pid);
    info.si_signo = 77;
    say!("gone: {}", sys!(SYS_waitid, P_PID, pid, &mut info, WEXITED | WNOHANG, 0));
    say!("its record: {}", info.si_signo);
}

fn stopped_and_continued() {
    let pid = sleeper();
    kill(pid, SIGSTOP);
    say!("WSTOPPED: {}", waitid(P_PID, pid, WSTOPPED, pid));
    say!("state: {}", process::state(pid));
    kill(pid, SIGCONT);
    say!("WCONTINUED: {}", waitid(P_PID, pid, WCONTINUED, pid));
    for signal in [SIGTSTP, SIGTTIN, SIGTTOU] {
        let gate = Gate::new();
        let stopper = child(|| {
            // In a group of its own with a parent in the session: not orphaned.
            sys!(SYS_setpgid, 0, 0);
            signal::kill_self(signal);
            gate.pass();
            0
        });
        say!("{}: {}", signal::name(signal), wait4(stopper, WUNTRACED));
        kill(stopper, SIGCONT);
        say!("then: {}", wait4(stopper, WCONTINUED));
        gate.open();
        say!("then: {}", wait4(stopper, 0));
    }
    kill(pid, SIGSTOP);
    say!("wait4: {}", wait4(pid, WUNTRACED));
    say!("not again: {}", wait4(pid, WUNTRACED | WNOHANG));
    kill(pid, SIGCONT);
    say!("wait4: {}", wait4(pid, WCONTINUED));
    say!("not again: {}", wait4(pid, WCONTINUED | WNOHANG));
    end(pid);
}

fn stop_is_reported_once() {
    let pid = sleeper();
    kill(pid, SIGSTOP);
    say!("WNOWAIT: {}", waitid(P_PID, pid, WSTOPPED | WNOWAIT, pid));
    say!("WNOWAIT: {}", waitid(P_PID, pid, WSTOPPED | WNOWAIT, pid));
    say!("not asked for: {}", waitid(P_PID, pid, WEXITED | WCONTINUED | WNOHANG, pid));
    say!("taken: {}", waitid(P_PID, pid, WSTOPPED, pid));
    say!("gone: {}", waitid(P_PID, pid, WSTOPPED | WNOHANG, pid));
    kill(pid, SIGSTOP);
    process::sleep_ms(5);
    say!("stopped twice: {}", waitid(P_PID, pid, WSTOPPED | WNOHANG, pid));
    kill(pid, SIGCONT);
    say!("WNOWAIT: {}", waitid(P_PID, pid, WCONTINUED | WNOWAIT, pid));
    say!("taken: {}", waitid(P_PID, pid, WCONTINUED, pid));
    say!("gone: {}", waitid(P_PID, pid, WCONTINUED | WNOHANG, pid));
    kill(pid, SIGCONT);
    say!("SIGCONT of one that runs: {}", waitid(P_PID, pid, WCONTINUED | WNOHANG, pid));
    end(pid);
}

fn waitid_information() {
    say!("exit: {}", {
        let pid = zombie(200);
        waitid(P_PID, pid, WEXITED, pid)
    });
    say!("a user's child: {}", {
        let pid = child(|| {
            process::become_user(1234);
            1
        });
        waitid(P_PID, pid, WEXITED, pid)
    });
    say!("killed: {}", {
        let pid = sleeper();
        kill(pid, SIGTERM);
        waitid(P_PID, pid, WEXITED, pid)
    });
    say!("with SIGSEGV: {}", {
        let pid = sleeper();
        kill(pid, SIGQUIT);
        waitid(P_PID, pid, WEXITED, pid)
    });
    let pid = zombie(0);
    let mut usage: rusage = zeroed();
    usage.ru_maxrss = -1;
    let mut info: siginfo_t = zeroed();
    say!("with rusage: {}", sys!(SYS_waitid, P_PID, pid, &mut info, WEXITED, &mut usage));
    say!("filled: {}", usage.ru_maxrss > 0);
}

fn pidfds() {
    let pid = child(|| 6);
    let fd = sys!(SYS_pidfd_open, pid, 0).fd();
    say!("P_PIDFD: {}", waitid(P_PIDFD, fd, WEXITED, pid));
    say!("again: {}", waitid(P_PIDFD, fd, WEXITED, pid));
    let pid = sleeper();
    let fd = sys!(SYS_pidfd_open, pid, O_NONBLOCK).fd();
    say!("PIDFD_NONBLOCK: {}", waitid(P_PIDFD, fd, WEXITED, pid));
    say!("with WNOHANG: {}", waitid(P_PIDFD, fd, WEXITED | WNOHANG, pid));
    kill(pid, SIGKILL);
    say!("by the process: {}", waitid(P_PID, pid, WEXITED, pid));
    say!("gone: {}", waitid(P_PIDFD, fd, WEXITED, pid));
    let own = sys!(SYS_pidfd_open, sys!(SYS_getpid).0, 0).fd();
    say!("of oneself: {}", waitid(P_PIDFD, own, WEXITED, 0));
}

fn by_group() {
    let leader = sleeper();
    sys!(SYS_setpgid, leader, 0);
    let member = child(|| 4);
    sys!(SYS_setpgid, member, leader);
    say!("of a group: {}", waitid(P_PGID, leader, WEXITED, member));
    say!("the rest: {}", waitid(P_PGID, leader, WEXITED | WNOHANG, 0));
    let here = zombie(8);
    say!("P_PGID 0 is its own: {}", waitid(P_PGID, 0, WEXITED, here));
    say!("nobody is left there: {}", waitid(P_PGID, 0, WEXITED, 0));
    say!("a group without children: {}", waitid(P_PGID, 1, WEXITED, 0));
    end(leader);
}

fn bad_pointers() {
    say!("status: {}", sys!(SYS_wait4, zombie(1), NOWHERE, 0, 0));
    say!("the child is gone all the same: {}", wait4(-1, WNOHANG));
    say!("the kernel's: {}", sys!(SYS_wait4, zombie(1), KERNEL, 0, 0));
    let pid = zombie(2);
    let mut status = 0i32;
    say!("usage: {}", sys!(SYS_wait4, pid, &mut status, 0, NOWHERE));
    say!("then: {}", wait4(-1, WNOHANG));
    let pid = zombie(3);
    say!("nothing to store to: {}", Ret(sys!(SYS_wait4, pid, 0, 0, 0).0 - i64::from(pid)));
    let pid = zombie(3);
    say!("waitid: {}", sys!(SYS_waitid, P_PID, pid, NOWHERE, WEXITED, 0));
    say!("then: {}", wait4(-1, WNOHANG));
    let pid = zombie(3);
    say!("waitid without a record: {}", sys!(SYS_waitid, P_PID, pid, 0, WEXITED, 0));
    let pid = zombie(3);
    let page = crate::memory::pages(1);
    sys!(SYS_mprotect, page, PAGE, PROT_READ);
    say!("read-only: {}", sys!(SYS_wait4, pid, page, 0, 0));
    let pid = sleeper();
    say!("none is needed: {}", sys!(SYS_wait4, pid, NOWHERE, WNOHANG, NOWHERE));
    say!("for waitid it is: {}", sys!(SYS_waitid, P_PID, pid, NOWHERE, WEXITED | WNOHANG, 0));
    end(pid);
}

fn interrupted() {
    let pid = sleeper();
    let parent = sys!(SYS_getpid).0 as i32;
    let alarm = |signal: i32| {
        child(move || {
            until_asleep(parent);
            kill(parent, signal);
            0
        })
    };
    signal::handle(SIGUSR1, signal::count, 0);
    let other = alarm(SIGUSR1);
    say!("without SA_RESTART: {}", wait4(pid, 0));
    say!("handlers: {}", signal::caught());
    wait(other);
    let other = alarm(SIGUSR1);
    say!("waitid: {}", waitid(P_PID, pid, WEXITED, pid));
    wait(other);
    signal::caught();
    signal::handle(SIGUSR1, signal::count, SA_RESTART);
    let other = child(|| {
        until_asleep(parent);
        kill(parent, SIGUSR1);
        // The wait has been restarted when the parent sleeps again.
        process::sleep_ms(20);
        until_asleep(parent);
        kill(pid, SIGKILL);
        0
    });
    say!("with SA_RESTART: {}", wait4(pid, 0));
    say!("handlers: {}", signal::caught());
    wait(other);
}

fn order_of_errors() {
    say!("no child and a bad option: {}", wait4(-1, 0x100));
    say!("no child and a bad pointer: {}", sys!(SYS_wait4, -1, NOWHERE, 0, NOWHERE));
    say!("no child and a bad type: {}", waitid(9, 0, WEXITED, 0));
    say!("bad type and no options: {}", waitid(9, 0, 0, 0));
    say!("no child and a bad record: {}", sys!(SYS_waitid, P_ALL, 0, NOWHERE, WEXITED, 0));
}

fn stopped_then_killed() {
    let pid = sleeper();
    kill(pid, SIGSTOP);
    say!("{}", wait4(pid, WUNTRACED));
    kill(pid, SIGTERM);
    process::sleep_ms(10);
    say!("SIGTERM waits: {}", wait4(pid, WNOHANG | WUNTRACED));
    kill(pid, SIGCONT);
    say!("until it goes on: {}", wait4(pid, 0));
    let pid = sleeper();
    kill(pid, SIGSTOP);
    wait4(pid, WUNTRACED);
    kill(pid, SIGKILL);
    say!("SIGKILL does not: {}", wait4(pid, 0));
    let status = in_child(|| {
        signal::handle(SIGCONT, signal::count, 0);
        let parent = sys!(SYS_getpid).0 as i32;
        let waker = child(|| {
            while process::state(parent) != 'T' {
                process::sleep_ms(2);
            }
            kill(parent, SIGCONT);
            0
        });
        signal::kill_self(SIGSTOP);
        say!("SIGCONT is handled when it goes on: {}", signal::caught());
        wait(waker);
        0
    });
    say!("{status}");
}
