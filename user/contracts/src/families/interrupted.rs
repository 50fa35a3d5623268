//! What becomes of each call that waits when a signal comes: the table of docs/signals.md. A line has what it answers to
//! a handler, to one with SA_RESTART, and after a stop (without a handler).

use libc::*;

use crate::file::{create, open, pipe, pipe_with};
use crate::process::{self, child, kill, until_asleep};
use crate::sys::{Ret, errno_name, sys, zeroed};
use crate::terminal::waiting_pty;
use crate::{say, signal, tests};

tests! {
    pipes, fifos, other_files, terminals, receiving, sending, connecting, with_time_limits, record_locks, children, futexes,
    futexes_with_time_limits, polls, epolls, sleeps, signals, semaphores,
}

/// What comes of a call in a child that is disturbed while it waits.
fn outcome(call: &dyn Fn() -> Ret, disturb: &dyn Fn(i32), flags: Option<i32>) -> String {
    let pid = child(|| {
        if let Some(flags) = flags {
            signal::handle(SIGUSR1, signal::count, flags);
        }
        let ret = call();
        if ret.ok() { 200 } else { ret.errno() }
    });
    until_asleep(pid);
    disturb(pid);
    // It ends now, or goes on to wait.
    for _ in 0..15 {
        process::sleep_ms(2);
        match process::try_wait(pid) {
            None => {}
            Some(process::Status::Exited(200)) => return "ends well".into(),
            Some(process::Status::Exited(errno)) => return errno_name(errno),
            Some(other) => return other.to_string(),
        }
    }
    kill(pid, SIGKILL);
    process::wait(pid);
    "goes on".into()
}

fn row(name: &str, call: impl Fn() -> Ret) {
    let send = |pid: i32| {
        kill(pid, SIGUSR1);
    };
    let stop = |pid: i32| {
        kill(pid, SIGSTOP);
        process::wait_for(pid, WUNTRACED);
        kill(pid, SIGCONT);
    };
    let (plain, restart) = (outcome(&call, &send, Some(0)), outcome(&call, &send, Some(SA_RESTART)));
    say!("{name}: {plain} | {restart} | {}", outcome(&call, &stop, None));
}

fn full_pipe() -> [i32; 2] {
    let [reader, writer] = pipe_with(O_NONBLOCK);
    let page = [0u8; 4096];
    while sys!(SYS_write, writer, &page, 4096).ok() {}
    sys!(SYS_fcntl, writer, F_SETFL, 0);
    sys!(SYS_fcntl, reader, F_SETFL, 0);
    [reader, writer]
}

fn pipes() {
    let ([empty, _other], [_, full]) = (pipe(), full_pipe());
    let mut page = [0u8; 4096];
    let at = page.as_mut_ptr();
    let vector = [at as usize, 16];
    let [_reader, sink] = pipe();
    row("read", || sys!(SYS_read, empty, at, 16));
    row("readv", || sys!(SYS_readv, empty, &vector, 1));
    row("write", || sys!(SYS_write, full, at, 16));
    row("writev", || sys!(SYS_writev, full, &vector, 1));
    row("splice", || sys!(SYS_splice, empty, 0, sink, 0, 10, 0));
    row("tee", || sys!(SYS_tee, empty, sink, 10, 0));
    row("vmsplice", || sys!(SYS_vmsplice, full, &vector, 1, 0));
}

fn fifos() {
    sys!(SYS_mknodat, AT_FDCWD, c"fifo", S_IFIFO | 0o600, 0).need();
    row("open to read", || open(c"fifo", O_RDONLY));
    row("open to write", || open(c"fifo", O_WRONLY));
}

fn other_files() {
    let mut bytes = [0u8; 128];
    let at = bytes.as_mut_ptr();
    let event = sys!(SYS_eventfd2, 0, 0).fd();
    row("eventfd", || sys!(SYS_read, event, at, 8));
    sys!(SYS_write, event, &(u64::MAX - 1), 8).need();
    row("eventfd, write", || sys!(SYS_write, event, &1u64, 8));
    let timer = sys!(SYS_timerfd_create, CLOCK_MONOTONIC, 0).fd();
    row("timerfd", || sys!(SYS_read, timer, at, 8));
    let signals = sys!(SYS_signalfd4, -1, &signal::bit(SIGUSR2), 8, 0).fd();
    row("signalfd", || sys!(SYS_read, signals, at, 128));
    let notify = sys!(SYS_inotify_init1, 0).fd();
    row("inotify", || sys!(SYS_read, notify, at, 128));
}

fn terminals() {
    let (master, slave) = waiting_pty();
    let mut bytes = [0u8; 64];
    let at = bytes.as_mut_ptr();
    row("read", || sys!(SYS_read, slave, at, 64));
    row("read of the master", || sys!(SYS_read, master, at, 64));
    sys!(SYS_ioctl, slave, TCXONC, TCOOFF);
    row("write that is stopped", || sys!(SYS_write, slave, at, 64));
}

fn sockets(kind: i32) -> [i32; 2] {
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, kind, 0, &mut pair).need();
    pair
}

fn full_socket(kind: i32) -> [i32; 2] {
    let pair = sockets(kind | SOCK_NONBLOCK);
    let page = [0u8; 4096];
    while sys!(SYS_write, pair[0], &page, 4096).ok() {}
    sys!(SYS_fcntl, pair[0], F_SETFL, 0);
    pair
}

fn message(vector: &[usize; 2]) -> msghdr {
    let mut header: msghdr = zeroed();
    header.msg_iov = vector.as_ptr() as *mut iovec;
    header.msg_iovlen = 1;
    header
}

fn receiving() {
    let mut bytes = [0u8; 64];
    let at = bytes.as_mut_ptr();
    let vector = [at as usize, 64];
    for (name, kind) in [("stream", SOCK_STREAM), ("datagram", SOCK_DGRAM), ("packets", SOCK_SEQPACKET)] {
        let pair = sockets(kind);
        row(&format!("{name}, read"), || sys!(SYS_read, pair[0], at, 64));
        row(&format!("{name}, recvfrom"), || sys!(SYS_recvfrom, pair[0], at, 64, 0, 0, 0));
        row(&format!("{name}, recvmsg"), || sys!(SYS_recvmsg, pair[0], &mut message(&vector), 0));
        row(&format!("{name}, recvmmsg"), || {
            let mut header: mmsghdr = zeroed();
            header.msg_hdr = message(&vector);
            sys!(SYS_recvmmsg, pair[0], &mut header, 1, 0, 0)
        });
    }
}

fn sending() {
    let mut bytes = [0u8; 64];
    let at = bytes.as_mut_ptr();
    let vector = [at as usize, 64];
    for (name, kind) in [("stream", SOCK_STREAM), ("datagram", SOCK_DGRAM)] {
        let pair = full_socket(kind);
        row(&format!("{name}, write"), || sys!(SYS_write, pair[0], at, 64));
        row(&format!("{name}, sendto"), || sys!(SYS_sendto, pair[0], at, 64, 0, 0, 0));
        row(&format!("{name}, sendmsg"), || sys!(SYS_sendmsg, pair[0], &message(&vector), 0));
    }
}

/// A socket that listens, with room for so many connections, and its address.
fn listener(backlog: i32) -> (i32, sockaddr_un) {
    let server = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
    let mut address: sockaddr_un = zeroed();
    address.sun_family = AF_UNIX as u16;
    address.sun_path[0] = b's' as c_char;
    sys!(SYS_bind, server, &address, 4).need();
    sys!(SYS_listen, server, backlog).need();
    (server, address)
}

fn connecting() {
    let (server, address) = listener(0);
    row("accept", || sys!(SYS_accept, server, 0, 0));
    let client = || sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
    sys!(SYS_connect, client(), &address, 4).need();
    row("connect", || sys!(SYS_connect, client(), &address, 4));
}

fn with_time_limits() {
    let mut bytes = [0u8; 64];
    let at = bytes.as_mut_ptr();
    let time = timeval { tv_sec: 20, tv_usec: 0 };
    let limit = |fd: i32, option: i32| sys!(SYS_setsockopt, fd, SOL_SOCKET, option, &time, size_of::<timeval>()).need();
    let pair = sockets(SOCK_STREAM);
    limit(pair[0], SO_RCVTIMEO);
    row("recvfrom", || sys!(SYS_recvfrom, pair[0], at, 64, 0, 0, 0));
    row("read", || sys!(SYS_read, pair[0], at, 64));
    let pair = full_socket(SOCK_STREAM);
    limit(pair[0], SO_SNDTIMEO);
    row("sendto", || sys!(SYS_sendto, pair[0], at, 64, 0, 0, 0));
    let (server, address) = listener(0);
    limit(server, SO_RCVTIMEO);
    row("accept", || sys!(SYS_accept, server, 0, 0));
    let client = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
    sys!(SYS_connect, client, &address, 4).need();
    row("connect", || {
        let client = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
        limit(client, SO_SNDTIMEO);
        sys!(SYS_connect, client, &address, 4)
    });
}

fn record_locks() {
    let fd = create(c"f", "");
    let mut lock: flock = zeroed();
    lock.l_type = F_WRLCK as i16;
    sys!(SYS_fcntl, fd, F_SETLK, &lock).need();
    sys!(SYS_flock, fd, LOCK_EX).need();
    let other = || open(c"f", O_RDWR).fd();
    row("F_SETLKW", || sys!(SYS_fcntl, other(), F_SETLKW, &lock));
    row("F_OFD_SETLKW", || sys!(SYS_fcntl, other(), F_OFD_SETLKW, &lock));
    row("flock", || sys!(SYS_flock, other(), LOCK_EX));
}

fn children() {
    let with_child = |wait: &dyn Fn() -> Ret| {
        // SAFETY: the child uses nothing but system calls.
        let pid = unsafe { fork() };
        if pid == 0 {
            sys!(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL);
            loop {
                process::sleep_ms(10_000);
            }
        }
        wait()
    };
    row("wait4", || with_child(&|| sys!(SYS_wait4, -1, 0, 0, 0)));
    row("waitid", || with_child(&|| sys!(SYS_waitid, P_ALL, 0, 0, WEXITED, 0)));
}

static WORD: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

fn futex(operation: i32, time: *const timespec, mask: u32) -> Ret {
    sys!(SYS_futex, &WORD, operation | FUTEX_PRIVATE_FLAG, 0, time, 0, mask)
}

fn futexes() {
    row("FUTEX_WAIT", || futex(FUTEX_WAIT, std::ptr::null(), 0));
    row("FUTEX_WAIT_BITSET", || futex(FUTEX_WAIT_BITSET, std::ptr::null(), 1));
    let waiter = [0u64, std::ptr::from_ref(&WORD) as u64, 2 | 128];
    row("futex_waitv", || sys!(SYS_futex_waitv, &waiter, 1, 0, 0, 0));
}

fn futexes_with_time_limits() {
    let time = timespec { tv_sec: 20, tv_nsec: 0 };
    let mut end: timespec = zeroed();
    sys!(SYS_clock_gettime, CLOCK_MONOTONIC, &mut end);
    end.tv_sec += 20;
    row("FUTEX_WAIT", || futex(FUTEX_WAIT, &time, 0));
    row("FUTEX_WAIT_BITSET", || futex(FUTEX_WAIT_BITSET, &end, 1));
    let waiter = [0u64, std::ptr::from_ref(&WORD) as u64, 2 | 128];
    row("futex_waitv", || sys!(SYS_futex_waitv, &waiter, 1, 0, &end, CLOCK_MONOTONIC));
}

fn polls() {
    let [reader, _writer] = pipe();
    let time = timespec { tv_sec: 20, tv_nsec: 0 };
    for (name, limit) in [("without a limit", std::ptr::null()), ("with one", &raw const time)] {
        row(&format!("ppoll {name}"), || {
            let (mut entry, mut time) = (pollfd { fd: reader, events: POLLIN, revents: 0 }, time);
            let limit = if limit.is_null() { std::ptr::null_mut() } else { &raw mut time };
            sys!(SYS_ppoll, &mut entry, 1, limit, 0, 8)
        });
        row(&format!("pselect {name}"), || {
            let (mut set, mut time) = ([1u64 << reader; 16], time);
            let limit = if limit.is_null() { std::ptr::null_mut() } else { &raw mut time };
            sys!(SYS_pselect6, reader + 1, &mut set, 0, 0, limit, 0)
        });
    }
}

fn epolls() {
    let epoll = sys!(SYS_epoll_create1, 0).fd();
    let mut event: epoll_event = zeroed();
    let at = &raw mut event;
    let time = timespec { tv_sec: 20, tv_nsec: 0 };
    row("epoll_pwait", || sys!(SYS_epoll_pwait, epoll, at, 1, -1, 0, 8));
    row("epoll_pwait with a limit", || sys!(SYS_epoll_pwait, epoll, at, 1, 20_000, 0, 8));
    row("epoll_pwait2", || sys!(SYS_epoll_pwait2, epoll, at, 1, &time, 0, 8));
}

fn sleeps() {
    let time = timespec { tv_sec: 20, tv_nsec: 0 };
    let mut end: timespec = zeroed();
    sys!(SYS_clock_gettime, CLOCK_MONOTONIC, &mut end);
    end.tv_sec += 20;
    row("nanosleep", || sys!(SYS_nanosleep, &time, 0));
    row("clock_nanosleep", || sys!(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &time, 0));
    row("clock_nanosleep until", || sys!(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &end, 0));
}

fn signals() {
    let (set, time) = (signal::bit(SIGUSR2), timespec { tv_sec: 20, tv_nsec: 0 });
    row("sigsuspend", || sys!(SYS_rt_sigsuspend, &0u64, 8));
    row("sigtimedwait", || sys!(SYS_rt_sigtimedwait, &set, 0, &time, 8));
    row("sigwaitinfo", || sys!(SYS_rt_sigtimedwait, &set, 0, 0, 8));
}

fn semaphores() {
    let id = sys!(SYS_semget, IPC_PRIVATE, 1, 0o600).need();
    let take: [i16; 3] = [0, -1, 0];
    let time = timespec { tv_sec: 20, tv_nsec: 0 };
    row("semop", || sys!(SYS_semop, id, &take, 1));
    row("semtimedop", || sys!(SYS_semtimedop, id, &take, 1, &time));
    sys!(SYS_semctl, id, 0, IPC_RMID, 0);
}
