//! Calls with bad addresses: in no mapping, in the kernel, in memory that must not be written, too near to an end.

use libc::*;

use super::bad::Arg::{Fd, Int, Message, Text, Vector, Words};
use super::bad::{Kind, pointers};
use crate::tests;

macro_rules! calls {
    ($($name:ident = $number:ident($($argument:expr),* $(,)?);)*) => {
        $(fn $name() {
            const ARGUMENTS: &[super::bad::Arg] = &[$($argument),*];
            pointers(libc::$number, ARGUMENTS);
        })*
        tests! { $($name),* }
    };
}

/// Room for what a call returns.
const ROOM: super::bad::Arg = Words(&[]);
const ZERO: super::bad::Arg = Int(0);
const AT: super::bad::Arg = Int(AT_FDCWD as i64);
const FILE: super::bad::Arg = Text(c"file");
/// Set, or value, of eight bytes.
const EIGHT: super::bad::Arg = Int(8);
/// `struct itimerspec` of 100 seconds; `struct itimerval` likewise.
const LONG: super::bad::Arg = Words(&[0, 0, 100, 0]);
/// `struct timespec` of a nanosecond.
const SHORT: super::bad::Arg = Words(&[0, 1]);

calls! {
    getcwd = SYS_getcwd(ROOM, Int(100));
    setxattr = SYS_setxattr(FILE, Text(c"user.x"), ROOM, EIGHT, ZERO);
    epoll_ctl = SYS_epoll_ctl(Fd(Kind::Epoll), Int(EPOLL_CTL_ADD as i64), Fd(Kind::PipeReader), Words(&[1]));
    epoll_pwait_empty = SYS_epoll_pwait(Fd(Kind::Epoll), ROOM, Int(1), ZERO, ROOM, EIGHT);
    fcntl_getlk = SYS_fcntl(Fd(Kind::Both), Int(F_GETLK as i64), ROOM);
    fcntl_setlk = SYS_fcntl(Fd(Kind::Both), Int(F_SETLK as i64), Words(&[1]));
    ioctl_fionread = SYS_ioctl(Fd(Kind::PipeReader), Int(FIONREAD as i64), ROOM);
    mknodat = SYS_mknodat(AT, Text(c"new"), Int(S_IFREG as i64 | 0o644), ZERO);
    mkdirat = SYS_mkdirat(AT, Text(c"new"), Int(0o755));
    unlinkat = SYS_unlinkat(AT, FILE, ZERO);
    symlinkat = SYS_symlinkat(Text(c"target"), AT, Text(c"new"));
    linkat = SYS_linkat(AT, FILE, AT, Text(c"new"), ZERO);
    renameat2 = SYS_renameat2(AT, FILE, AT, Text(c"new"), ZERO);
    umount2 = SYS_umount2(Text(c"directory"), ZERO);
    mount = SYS_mount(Text(c"none"), Text(c"directory"), Text(c"tmpfs"), ZERO, Text(c""));
    statfs = SYS_statfs(FILE, ROOM);
    fstatfs = SYS_fstatfs(Fd(Kind::Both), ROOM);
    truncate = SYS_truncate(FILE, Int(4));
    faccessat = SYS_faccessat(AT, FILE, ZERO);
    chdir = SYS_chdir(Text(c"directory"));
    chroot = SYS_chroot(Text(c"directory"));
    fchmodat = SYS_fchmodat(AT, FILE, Int(0o600));
    fchownat = SYS_fchownat(AT, FILE, ZERO, ZERO, ZERO);
    openat = SYS_openat(AT, FILE, ZERO, ZERO);
    openat2 = SYS_openat2(AT, FILE, Words(&[0, 0, 0]), Int(24));
    pipe2 = SYS_pipe2(ROOM, ZERO);
    getdents64 = SYS_getdents64(Fd(Kind::Directory), ROOM, Int(1000));
    read_file = SYS_read(Fd(Kind::Both), ROOM, EIGHT);
    read_pipe = SYS_read(Fd(Kind::PipeReader), ROOM, EIGHT);
    read_event = SYS_read(Fd(Kind::Event), ROOM, EIGHT);
    write_file = SYS_write(Fd(Kind::Both), ROOM, EIGHT);
    write_pipe = SYS_write(Fd(Kind::PipeWriter), ROOM, EIGHT);
    write_null = SYS_write(Fd(Kind::Null), ROOM, EIGHT);
    write_event = SYS_write(Fd(Kind::Event), Words(&[1]), EIGHT);
    readv = SYS_readv(Fd(Kind::Both), Vector, Int(1));
    writev = SYS_writev(Fd(Kind::Both), Vector, Int(1));
    pread = SYS_pread64(Fd(Kind::Both), ROOM, EIGHT, ZERO);
    pwrite = SYS_pwrite64(Fd(Kind::Both), ROOM, EIGHT, ZERO);
    preadv = SYS_preadv(Fd(Kind::Both), Vector, Int(1), ZERO, ZERO);
    pwritev = SYS_pwritev(Fd(Kind::Both), Vector, Int(1), ZERO, ZERO);
    sendfile = SYS_sendfile(Fd(Kind::Null), Fd(Kind::Both), Words(&[1]), EIGHT);
    splice = SYS_splice(Fd(Kind::Both), Words(&[1]), Fd(Kind::PipeWriter), ZERO, EIGHT, ZERO);
    vmsplice = SYS_vmsplice(Fd(Kind::PipeWriter), Vector, Int(1), ZERO);
    copy_file_range = SYS_copy_file_range(Fd(Kind::ReadOnly), Words(&[1]), Fd(Kind::WriteOnly), Words(&[9]), Int(4), ZERO);
    pselect6 = SYS_pselect6(Int(4), Words(&[1]), Words(&[1]), Words(&[1]), SHORT, ROOM);
    ppoll = SYS_ppoll(Words(&[0x1_0000_0000]), Int(1), SHORT, ROOM, EIGHT);
    signalfd4 = SYS_signalfd4(Int(-1), Words(&[2]), EIGHT, ZERO);
    readlinkat = SYS_readlinkat(AT, Text(c"link"), ROOM, Int(100));
    newfstatat = SYS_newfstatat(AT, FILE, ROOM, ZERO);
    fstat = SYS_fstat(Fd(Kind::Both), ROOM);
    statx = SYS_statx(AT, FILE, ZERO, Int(0x7ff), ROOM);
    timerfd_settime = SYS_timerfd_settime(Fd(Kind::Timer), ZERO, LONG, ROOM);
    timerfd_gettime = SYS_timerfd_gettime(Fd(Kind::Timer), ROOM);
    utimensat = SYS_utimensat(AT, FILE, Words(&[1, 1, 1, 1]), ZERO);
    capget = SYS_capget(Words(&[0x2008_0522]), ROOM);
    capset = SYS_capset(Words(&[0x2008_0522]), ROOM);
    waitid = SYS_waitid(Int(P_ALL as i64), ZERO, ROOM, Int((WEXITED | WNOHANG) as i64), ROOM);
    wait4 = SYS_wait4(Int(-1), ROOM, Int(WNOHANG as i64), ROOM);
    futex_wait = SYS_futex(Words(&[5]), Int(FUTEX_WAIT as i64), ZERO, SHORT, ZERO, ZERO);
    futex_wake = SYS_futex(Words(&[5]), Int(FUTEX_WAKE as i64), Int(1), ZERO, ZERO, ZERO);
    futex_wake_private = SYS_futex(Words(&[5]), Int((FUTEX_WAKE | FUTEX_PRIVATE_FLAG) as i64), Int(1));
    futex_requeue = SYS_futex(Words(&[5]), Int(FUTEX_CMP_REQUEUE as i64), Int(1), Int(1), Words(&[0]), Int(5));
    futex_wake_op = SYS_futex(Words(&[5]), Int(FUTEX_WAKE_OP as i64), Int(1), Int(1), Words(&[0]), ZERO);
    set_robust_list = SYS_set_robust_list(ROOM, Int(24));
    get_robust_list = SYS_get_robust_list(ZERO, ROOM, ROOM);
    nanosleep = SYS_nanosleep(SHORT, ROOM);
    clock_nanosleep = SYS_clock_nanosleep(Int(CLOCK_MONOTONIC as i64), ZERO, SHORT, ROOM);
    getitimer = SYS_getitimer(Int(ITIMER_VIRTUAL as i64), ROOM);
    setitimer = SYS_setitimer(Int(ITIMER_VIRTUAL as i64), LONG, ROOM);
    timer_create = SYS_timer_create(Int(CLOCK_MONOTONIC as i64), Words(&[0, 0x0000_0001_0000_000a]), ROOM);
    clock_settime = SYS_clock_settime(Int(CLOCK_MONOTONIC as i64), SHORT);
    clock_gettime = SYS_clock_gettime(Int(CLOCK_MONOTONIC as i64), ROOM);
    clock_getres = SYS_clock_getres(Int(CLOCK_MONOTONIC as i64), ROOM);
    sched_setparam = SYS_sched_setparam(ZERO, ROOM);
    sched_setscheduler = SYS_sched_setscheduler(ZERO, ZERO, ROOM);
    sched_getparam = SYS_sched_getparam(ZERO, ROOM);
    sched_setaffinity = SYS_sched_setaffinity(ZERO, EIGHT, Words(&[1]));
    sched_getaffinity = SYS_sched_getaffinity(ZERO, EIGHT, ROOM);
    sched_rr_get_interval = SYS_sched_rr_get_interval(ZERO, ROOM);
    sched_setattr = SYS_sched_setattr(ZERO, Words(&[48]), ZERO);
    sched_getattr = SYS_sched_getattr(ZERO, ROOM, Int(48), ZERO);
    sigaltstack = SYS_sigaltstack(Words(&[0, 2, 0]), ROOM);
    rt_sigsuspend = SYS_rt_sigsuspend(ROOM, EIGHT);
    rt_sigaction = SYS_rt_sigaction(Int(SIGUSR1 as i64), Words(&[0, 0, 0, 0]), ROOM, EIGHT);
    rt_sigprocmask = SYS_rt_sigprocmask(Int(SIG_BLOCK as i64), ROOM, ROOM, EIGHT);
    rt_sigpending = SYS_rt_sigpending(ROOM, EIGHT);
    rt_sigtimedwait = SYS_rt_sigtimedwait(Words(&[2]), ROOM, SHORT, EIGHT);
    rt_sigqueueinfo = SYS_rt_sigqueueinfo(Int(1 << 22), Int(SIGUSR1 as i64), ROOM);
    getresuid = SYS_getresuid(ROOM, ROOM, ROOM);
    getresgid = SYS_getresgid(ROOM, ROOM, ROOM);
    times = SYS_times(ROOM);
    getgroups = SYS_getgroups(Int(0x1_0000), ROOM);
    setgroups = SYS_setgroups(Int(2), ROOM);
    uname = SYS_uname(ROOM);
    sethostname = SYS_sethostname(Text(c"pollux"), Int(6));
    setdomainname = SYS_setdomainname(Text(c"(none)"), Int(6));
    getrlimit = SYS_getrlimit(Int(RLIMIT_NOFILE as i64), ROOM);
    setrlimit = SYS_setrlimit(Int(RLIMIT_CORE as i64), ROOM);
    prlimit64 = SYS_prlimit64(ZERO, Int(RLIMIT_CORE as i64), ROOM, ROOM);
    getrusage = SYS_getrusage(ZERO, ROOM);
    prctl_set_name = SYS_prctl(Int(PR_SET_NAME as i64), Text(c"name"));
    prctl_get_name = SYS_prctl(Int(PR_GET_NAME as i64), ROOM);
    prctl_get_pdeathsig = SYS_prctl(Int(PR_GET_PDEATHSIG as i64), ROOM);
    getcpu = SYS_getcpu(ROOM, ROOM, ZERO);
    gettimeofday = SYS_gettimeofday(ROOM, ROOM);
    adjtimex = SYS_adjtimex(ROOM);
    sysinfo = SYS_sysinfo(ROOM);
    socketpair = SYS_socketpair(Int(AF_UNIX as i64), Int(SOCK_STREAM as i64), ZERO, ROOM);
    bind = SYS_bind(Fd(Kind::Socket), Words(&[u64::from_le_bytes(*b"\x01\0myself")]), Int(9));
    connect = SYS_connect(Fd(Kind::Socket), Words(&[u64::from_le_bytes(*b"\x01\0nobody")]), Int(9));
    getsockname = SYS_getsockname(Fd(Kind::Socket), ROOM, Words(&[100]));
    sendto = SYS_sendto(Fd(Kind::Socket), ROOM, EIGHT, ZERO, ZERO, ZERO);
    recvfrom = SYS_recvfrom(Fd(Kind::Socket), ROOM, EIGHT, ZERO, ZERO, ZERO);
    setsockopt = SYS_setsockopt(Fd(Kind::Socket), Int(SOL_SOCKET as i64), Int(SO_PASSCRED as i64), Words(&[1]), Int(4));
    getsockopt = SYS_getsockopt(Fd(Kind::Socket), Int(SOL_SOCKET as i64), Int(SO_TYPE as i64), ROOM, Words(&[4]));
    sendmsg = SYS_sendmsg(Fd(Kind::Socket), Message, ZERO);
    recvmsg = SYS_recvmsg(Fd(Kind::Socket), Message, ZERO);
    munmap = SYS_munmap(ROOM, Int(4096));
    mprotect = SYS_mprotect(ROOM, Int(4096), Int(1));
    mremap = SYS_mremap(ROOM, Int(4096), Int(8192), Int(MREMAP_MAYMOVE as i64), ZERO);
    msync = SYS_msync(ROOM, Int(4096), Int(MS_ASYNC as i64));
    madvise = SYS_madvise(ROOM, Int(4096), Int(MADV_DONTNEED as i64));
    mlock = SYS_mlock(ROOM, Int(4096));
    munlock = SYS_munlock(ROOM, Int(4096));
    mincore = SYS_mincore(ROOM, Int(4096), ROOM);
    execve = SYS_execve(FILE, ROOM, ROOM);
    // With a flag that it refuses once it has read them: else there would be a child.
    clone3 = SYS_clone3(Words(&[0x0040_0000]), Int(64));
    getrandom = SYS_getrandom(ROOM, EIGHT, ZERO);
    memfd_create = SYS_memfd_create(Text(c"name"), ZERO);
    pidfd_send_signal = SYS_pidfd_send_signal(Fd(Kind::Process), Int(SIGCONT as i64), ROOM, ZERO);
    faccessat2 = SYS_faccessat2(AT, FILE, ZERO, ZERO);
    epoll_pwait2 = SYS_epoll_pwait2(Fd(Kind::Epoll), ROOM, Int(1), SHORT, ROOM, EIGHT);
    futex_waitv = SYS_futex_waitv(Words(&[5, 0, 2]), Int(1), ZERO, SHORT, Int(CLOCK_MONOTONIC as i64));
}
