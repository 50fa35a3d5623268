//! Calls that a signal interrupts: which answer EINTR, and which go on (signal(7), "Interruption of system calls").

use std::sync::atomic::Ordering::SeqCst;

use libc::*;

use crate::file::{self, create, pipe};
use crate::process::{self, child, kill, until_asleep, wait};
use crate::signal::{self, caught};
use crate::sys::{Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    read_of_a_pipe, write_to_a_pipe, partial_transfers, open_of_a_fifo, sockets, locks, polls, epoll, sleeps, rest_of_a_sleep,
    absolute_sleeps, suspended, children, eventfd_and_timerfd, handlers_that_do_nothing, stopped_calls, pidfd_and_signalfd,
}

/// Runs a call that waits in a child, disturbs it by a signal, and once it sleeps again lets it end.
fn disturbed(name: &str, call: impl Fn() -> Ret, release: impl Fn()) {
    for (kind, flags) in [("EINTR", 0), ("SA_RESTART", SA_RESTART)] {
        let pid = child(|| {
            signal::handle(SIGUSR1, signal::count, flags);
            let ret = call();
            say!("{name}, {kind}: {ret}, handled {}", caught());
            0
        });
        until_asleep(pid);
        kill(pid, SIGUSR1);
        // It has ended, or it has handled the signal and sleeps once more.
        process::sleep_ms(5);
        until_handled(pid);
        if process::state(pid) != 'Z' {
            release();
        }
        wait(pid);
    }
}

/// Waits until no signal is pending for a process and it sleeps, or has ended.
fn until_handled(pid: i32) {
    for _ in 0..2000 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let pending = status.lines().any(|line| {
            (line.starts_with("ShdPnd:") || line.starts_with("SigPnd:")) && !line.ends_with("0000000000000000")
        });
        if !pending && matches!(process::state(pid), 'S' | 'Z' | '-') {
            return;
        }
        process::sleep_ms(1);
    }
}

fn read_of_a_pipe() {
    let [reader, writer] = pipe();
    let mut buffer = [0u8; 16];
    let at = &raw mut buffer;
    disturbed(
        "read",
        || sys!(SYS_read, reader, at, 16),
        || {
            file::write(writer, "x");
        },
    );
    let vector = iovec { iov_base: at.cast(), iov_len: 16 };
    disturbed(
        "readv",
        || sys!(SYS_readv, reader, &vector, 1),
        || {
            file::write(writer, "x");
        },
    );
}

fn write_to_a_pipe() {
    let [reader, writer] = pipe();
    let full = vec![b'x'; 65536];
    sys!(SYS_write, writer, &full[..], full.len());
    let mut buffer = vec![0u8; 65536];
    let at = buffer.as_mut_ptr();
    disturbed(
        "write",
        || file::write(writer, "y"),
        || {
            sys!(SYS_read, reader, at, 4096);
        },
    );
}

fn partial_transfers() {
    let [_reader, writer] = pipe();
    let full = vec![b'x'; 100_000];
    for (kind, flags) in [("EINTR", 0), ("SA_RESTART", SA_RESTART)] {
        let pid = child(|| {
            signal::handle(SIGUSR1, signal::count, flags);
            let ret = sys!(SYS_write, writer, &full[..], full.len());
            say!("a write that has begun, {kind}: {ret}, handled {}", caught());
            0
        });
        until_asleep(pid);
        kill(pid, SIGUSR1);
        if flags != 0 {
            process::sleep_ms(5);
            until_handled(pid);
            kill(pid, SIGKILL);
        }
        say!("{}", wait(pid));
    }
}

fn open_of_a_fifo() {
    sys!(SYS_mknodat, AT_FDCWD, c"fifo", S_IFIFO | 0o644, 0);
    disturbed(
        "open",
        || Ret(file::open(c"fifo", O_RDONLY).0.min(0)),
        || {
            let fd = file::open(c"fifo", O_WRONLY | O_NONBLOCK);
            if fd.ok() {
                file::close(fd.fd());
            }
        },
    );
}

fn sockets() {
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, &mut pair).need();
    let mut buffer = [0u8; 16];
    let at = &raw mut buffer;
    disturbed(
        "recvfrom",
        || sys!(SYS_recvfrom, pair[0], at, 16, 0, 0, 0),
        || {
            file::write(pair[1], "x");
        },
    );
    let time = timeval { tv_sec: 10, tv_usec: 0 };
    sys!(SYS_setsockopt, pair[0], SOL_SOCKET, SO_RCVTIMEO, &time, size_of::<timeval>());
    disturbed(
        "recvfrom with a time limit",
        || sys!(SYS_recvfrom, pair[0], at, 16, 0, 0, 0),
        || {
            file::write(pair[1], "x");
        },
    );
    let listener = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
    let mut address: sockaddr_un = zeroed();
    address.sun_family = AF_UNIX as u16;
    for (place, byte) in address.sun_path.iter_mut().zip(b"socket") {
        *place = *byte as c_char;
    }
    sys!(SYS_bind, listener, &address, 9).need();
    sys!(SYS_listen, listener, 5).need();
    disturbed(
        "accept",
        || Ret(sys!(SYS_accept4, listener, 0, 0, 0).0.min(0)),
        || {
            let client = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
            sys!(SYS_connect, client, &address, 9);
        },
    );
}

fn locks() {
    let fd = create(c"f", "");
    let mut lock: flock = zeroed();
    lock.l_type = F_WRLCK as i16;
    sys!(SYS_fcntl, fd, F_SETLK, &lock).need();
    disturbed(
        "F_SETLKW",
        || sys!(SYS_fcntl, fd, F_SETLKW, &lock),
        || {
            let mut free: flock = zeroed();
            free.l_type = F_UNLCK as i16;
            sys!(SYS_fcntl, fd, F_SETLK, &free);
        },
    );
    sys!(SYS_flock, fd, LOCK_EX).need();
    disturbed(
        "flock",
        || {
            let other = file::open(c"f", O_RDONLY).fd();
            sys!(SYS_flock, other, LOCK_EX)
        },
        || {
            sys!(SYS_flock, fd, LOCK_UN);
        },
    );
}

fn polls() {
    let [reader, writer] = pipe();
    disturbed(
        "ppoll",
        || {
            let mut entry = pollfd { fd: reader, events: POLLIN, revents: 0 };
            sys!(SYS_ppoll, &mut entry, 1, 0, 0, 8)
        },
        || {
            file::write(writer, "");
        },
    );
    disturbed(
        "pselect",
        || {
            let mut set = [1u64 << reader, 0];
            sys!(SYS_pselect6, reader + 1, &mut set, 0, 0, 0, 0)
        },
        || {},
    );
    let time = timespec { tv_sec: 20, tv_nsec: 0 };
    disturbed("ppoll with a time", || sys!(SYS_ppoll, 0, 0, &time, 0, 8), || {});
}

fn epoll() {
    let [reader, _writer] = pipe();
    let poll = sys!(SYS_epoll_create1, 0).fd();
    let mut event = epoll_event { events: EPOLLIN as u32, u64: 0 };
    sys!(SYS_epoll_ctl, poll, EPOLL_CTL_ADD, reader, &mut event).need();
    disturbed(
        "epoll_pwait",
        || {
            let mut event = epoll_event { events: 0, u64: 0 };
            sys!(SYS_epoll_pwait, poll, &mut event, 1, -1, 0, 8)
        },
        || {},
    );
}

fn sleeps() {
    let time = timespec { tv_sec: 20, tv_nsec: 0 };
    disturbed("nanosleep", || sys!(SYS_nanosleep, &time, 0), || {});
    disturbed("clock_nanosleep", || sys!(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &time, 0), || {});
}

fn rest_of_a_sleep() {
    let parent = sys!(SYS_getpid).0 as i32;
    signal::handle(SIGUSR1, signal::count, SA_RESTART);
    let time = timespec { tv_sec: 100, tv_nsec: 0 };
    let helper = |then: i32| {
        child(move || {
            until_asleep(parent);
            kill(parent, then);
            0
        })
    };
    let pid = helper(SIGUSR1);
    let mut rest: timespec = zeroed();
    say!("nanosleep: {}", sys!(SYS_nanosleep, &time, &mut rest));
    say!("the rest: {}", rest.tv_sec > 80 && rest.tv_sec < 100);
    wait(pid);
    let pid = helper(SIGUSR1);
    say!("rest to nowhere: {}", sys!(SYS_nanosleep, &time, 8));
    wait(pid);
    let pid = helper(SIGUSR1);
    rest.tv_sec = 77;
    let (mut now, flag): (timespec, i32) = (zeroed(), TIMER_ABSTIME);
    sys!(SYS_clock_gettime, CLOCK_MONOTONIC, &mut now);
    now.tv_sec += 100;
    say!(
        "absolute: {}, the rest is left alone: {}",
        sys!(SYS_clock_nanosleep, CLOCK_MONOTONIC, flag, &now, &mut rest),
        rest.tv_sec
    );
    wait(pid);
}

fn absolute_sleeps() {
    let mut end: timespec = zeroed();
    sys!(SYS_clock_gettime, CLOCK_REALTIME, &mut end);
    end.tv_sec += 20;
    for clock in [CLOCK_REALTIME, CLOCK_MONOTONIC] {
        let call = || sys!(SYS_clock_nanosleep, clock, TIMER_ABSTIME, &end, 0);
        disturbed(if clock == CLOCK_REALTIME { "real time" } else { "monotonic" }, call, || {});
    }
}

fn suspended() {
    disturbed("sigsuspend", || sys!(SYS_rt_sigsuspend, &0u64, 8), || {});
    disturbed("ppoll of nothing", || sys!(SYS_ppoll, 0, 0, 0, 0, 8), || {});
    let time = timespec { tv_sec: 20, tv_nsec: 0 };
    disturbed("sigtimedwait", || sys!(SYS_rt_sigtimedwait, &signal::bit(SIGTERM), 0, &time, 8), || {});
}

fn children() {
    let words = crate::memory::shared_words();
    let make = || {
        let pid = child(|| {
            loop {
                process::sleep_ms(100_000);
            }
        });
        words[0].store(pid as u32, SeqCst);
    };
    let end = || {
        kill(words[0].load(SeqCst) as i32, SIGKILL);
    };
    let call = || {
        make();
        Ret(sys!(SYS_wait4, -1, 0, 0, 0).0.min(0))
    };
    disturbed("wait4", call, end);
    let call = || {
        make();
        sys!(SYS_waitid, P_ALL, 0, 0, WEXITED, 0)
    };
    disturbed("waitid", call, end);
}

fn eventfd_and_timerfd() {
    let event = sys!(SYS_eventfd2, 0, 0).fd();
    let mut value = 0u64;
    let at = &raw mut value;
    disturbed(
        "eventfd",
        || sys!(SYS_read, event, at, 8),
        || {
            sys!(SYS_write, event, &1u64, 8);
        },
    );
    let timer = sys!(SYS_timerfd_create, CLOCK_MONOTONIC, 0).fd();
    disturbed(
        "timerfd",
        || sys!(SYS_read, timer, at, 8),
        || {
            let mut setting: itimerspec = zeroed();
            setting.it_value.tv_nsec = 1;
            sys!(SYS_timerfd_settime, timer, 0, &setting, 0);
        },
    );
}

fn pidfd_and_signalfd() {
    let fd = sys!(SYS_signalfd4, -1, &signal::bit(SIGUSR2), 8, 0).fd();
    let mut entry = [0u8; 128];
    let at = &raw mut entry;
    disturbed(
        "signalfd",
        || {
            signal::block(SIGUSR2);
            sys!(SYS_read, fd, at, 128)
        },
        || {
            // To whoever still waits: the only child.
            for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
                let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
                let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
                let parent =
                    stat.rsplit(") ").next().and_then(|rest| rest.split_whitespace().nth(1)).map(str::to_string);
                if parent == Some(sys!(SYS_getpid).0.to_string()) {
                    kill(pid, SIGUSR2);
                }
            }
        },
    );
}

fn handlers_that_do_nothing() {
    let [reader, writer] = pipe();
    for signal in [SIGWINCH, SIGCHLD, SIGURG, SIGCONT] {
        let pid = child(|| {
            let text = file::read(reader, 16);
            say!("{}, by default: read {text}", signal::name(signal));
            0
        });
        until_asleep(pid);
        kill(pid, signal);
        process::sleep_ms(5);
        until_handled(pid);
        file::write(writer, "x");
        wait(pid);
    }
    let pid = child(|| {
        signal::ignore(SIGUSR1);
        say!("ignored: read {}", file::read(reader, 16));
        0
    });
    until_asleep(pid);
    kill(pid, SIGUSR1);
    file::write(writer, "y");
    wait(pid);
}

fn stopped_calls() {
    let [reader, writer] = pipe();
    let time = timespec { tv_sec: 20, tv_nsec: 0 };
    let run = |name: &str, call: &dyn Fn() -> Ret, ends: bool| {
        let pid = child(|| {
            say!("{name}: {}", call());
            0
        });
        until_asleep(pid);
        kill(pid, SIGSTOP);
        process::wait_for(pid, WUNTRACED);
        kill(pid, SIGCONT);
        if ends {
            process::wait_for(pid, WCONTINUED);
            until_handled(pid);
            file::write(writer, "x");
        }
        say!("{name}: {}", wait(pid));
    };
    let mut buffer = [0u8; 4];
    let at = &raw mut buffer;
    run("read", &|| sys!(SYS_read, reader, at, 1), true);
    run(
        "ppoll",
        &|| {
            let mut entry = pollfd { fd: reader, events: POLLIN, revents: 0 };
            let ret = sys!(SYS_ppoll, &mut entry, 1, &time, 0, 8);
            sys!(SYS_read, reader, at, 1);
            ret
        },
        true,
    );
    let short = timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    run("nanosleep", &|| sys!(SYS_nanosleep, &short, 0), false);
    let poll = sys!(SYS_epoll_create1, 0).fd();
    run(
        "epoll_wait",
        &|| {
            let mut event = epoll_event { events: 0, u64: 0 };
            sys!(SYS_epoll_pwait, poll, &mut event, 1, 50, 0, 8)
        },
        false,
    );
}
