//! Calls with every kind of descriptor, most of them wrong.

use libc::*;

use super::bad::Arg::{Fd, Int, Message, Text, Vector, Words};
use super::bad::{Kind, descriptors};
use crate::tests;

macro_rules! calls {
    ($($name:ident = $number:ident($($argument:expr),* $(,)?);)*) => {
        $(fn $name() {
            const ARGUMENTS: &[super::bad::Arg] = &[$($argument),*];
            descriptors(libc::$number, ARGUMENTS);
        })*
        tests! { $($name),* }
    };
}

/// Room for what a call returns.
const ROOM: super::bad::Arg = Words(&[]);
const ZERO: super::bad::Arg = Int(0);
const AT: super::bad::Arg = Fd(Kind::Directory);
/// `struct sockaddr_un` of "nobody".
const NOBODY: super::bad::Arg = Words(&[u64::from_le_bytes(*b"\x01\0nobody")]);
/// `struct itimerspec` of a second.
const SECOND: super::bad::Arg = Words(&[0, 0, 1, 0]);

calls! {
    read = SYS_read(Fd(Kind::Both), ROOM, Int(8));
    write = SYS_write(Fd(Kind::Both), ROOM, Int(8));
    read_nothing = SYS_read(Fd(Kind::Both), ROOM, ZERO);
    write_nothing = SYS_write(Fd(Kind::Both), ROOM, ZERO);
    readv = SYS_readv(Fd(Kind::Both), Vector, Int(1));
    writev = SYS_writev(Fd(Kind::Both), Vector, Int(1));
    readv_nothing = SYS_readv(Fd(Kind::Both), Vector, ZERO);
    pread = SYS_pread64(Fd(Kind::Both), ROOM, Int(8), ZERO);
    pwrite = SYS_pwrite64(Fd(Kind::Both), ROOM, Int(8), ZERO);
    pread_negative = SYS_pread64(Fd(Kind::Both), ROOM, Int(8), Int(-1));
    preadv = SYS_preadv(Fd(Kind::Both), Vector, Int(1), ZERO, ZERO);
    pwritev = SYS_pwritev(Fd(Kind::Both), Vector, Int(1), ZERO, ZERO);
    preadv2 = SYS_preadv2(Fd(Kind::Both), Vector, Int(1), Int(-1), ZERO, ZERO);
    pwritev2 = SYS_pwritev2(Fd(Kind::Both), Vector, Int(1), Int(-1), ZERO, ZERO);
    close = SYS_close(Fd(Kind::Both));
    dup = SYS_dup(Fd(Kind::Both));
    dup3 = SYS_dup3(Fd(Kind::Both), Fd(Kind::Both), ZERO);
    fcntl_getfl = SYS_fcntl(Fd(Kind::Both), Int(F_GETFL as i64), ZERO);
    fcntl_setfl = SYS_fcntl(Fd(Kind::Both), Int(F_SETFL as i64), Int(O_NONBLOCK as i64));
    fcntl_getlk = SYS_fcntl(Fd(Kind::Both), Int(F_GETLK as i64), ROOM);
    fcntl_setlk_write = SYS_fcntl(Fd(Kind::Both), Int(F_SETLK as i64), Words(&[1]));
    fcntl_getpipe_sz = SYS_fcntl(Fd(Kind::Both), Int(F_GETPIPE_SZ as i64), ZERO);
    fcntl_get_seals = SYS_fcntl(Fd(Kind::Both), Int(F_GET_SEALS as i64), ZERO);
    fcntl_getown = SYS_fcntl(Fd(Kind::Both), Int(F_GETOWN as i64), ZERO);
    fcntl_unknown = SYS_fcntl(Fd(Kind::Both), Int(12_345), ZERO);
    ioctl_tcgets = SYS_ioctl(Fd(Kind::Both), Int(TCGETS as i64), ROOM);
    ioctl_fionread = SYS_ioctl(Fd(Kind::Both), Int(FIONREAD as i64), ROOM);
    ioctl_fionbio = SYS_ioctl(Fd(Kind::Both), Int(FIONBIO as i64), ROOM);
    ioctl_fioclex = SYS_ioctl(Fd(Kind::Both), Int(FIOCLEX as i64), ZERO);
    ioctl_unknown = SYS_ioctl(Fd(Kind::Both), Int(0x1234_5678), ROOM);
    flock = SYS_flock(Fd(Kind::Both), Int(LOCK_EX as i64));
    flock_unknown = SYS_flock(Fd(Kind::Both), Int(77));
    fstat = SYS_fstat(Fd(Kind::Both), ROOM);
    fstatfs = SYS_fstatfs(Fd(Kind::Both), ROOM);
    ftruncate = SYS_ftruncate(Fd(Kind::Both), Int(3));
    ftruncate_negative = SYS_ftruncate(Fd(Kind::Both), Int(-3));
    fallocate = SYS_fallocate(Fd(Kind::Both), ZERO, ZERO, Int(10));
    lseek = SYS_lseek(Fd(Kind::Both), Int(1), Int(SEEK_SET as i64));
    lseek_unknown = SYS_lseek(Fd(Kind::Both), Int(1), Int(9));
    getdents64 = SYS_getdents64(Fd(Kind::Directory), ROOM, Int(1000));
    fsync = SYS_fsync(Fd(Kind::Both));
    fdatasync = SYS_fdatasync(Fd(Kind::Both));
    sync_file_range = SYS_sync_file_range(Fd(Kind::Both), ZERO, ZERO, ZERO);
    syncfs = SYS_syncfs(Fd(Kind::Both));
    readahead = SYS_readahead(Fd(Kind::Both), ZERO, Int(10));
    fadvise64 = SYS_fadvise64(Fd(Kind::Both), ZERO, ZERO, Int(POSIX_FADV_WILLNEED as i64));
    fchmod = SYS_fchmod(Fd(Kind::Both), Int(0o600));
    fchown = SYS_fchown(Fd(Kind::Both), ZERO, ZERO);
    fchdir = SYS_fchdir(Fd(Kind::Both));
    openat = SYS_openat(AT, Text(c"../file"), ZERO, ZERO);
    mkdirat = SYS_mkdirat(AT, Text(c"new"), Int(0o755));
    mknodat = SYS_mknodat(AT, Text(c"new"), Int(S_IFIFO as i64 | 0o644), ZERO);
    unlinkat = SYS_unlinkat(AT, Text(c"../file"), ZERO);
    symlinkat = SYS_symlinkat(Text(c"target"), AT, Text(c"new"));
    linkat = SYS_linkat(AT, Text(c"../file"), AT, Text(c"new"), ZERO);
    linkat_empty = SYS_linkat(AT, Text(c""), Int(AT_FDCWD as i64), Text(c"new"), Int(AT_EMPTY_PATH as i64));
    renameat2 = SYS_renameat2(AT, Text(c"../file"), AT, Text(c"new"), ZERO);
    readlinkat = SYS_readlinkat(AT, Text(c"../link"), ROOM, Int(100));
    readlinkat_empty = SYS_readlinkat(AT, Text(c""), ROOM, Int(100));
    newfstatat = SYS_newfstatat(AT, Text(c"../file"), ROOM, ZERO);
    newfstatat_empty = SYS_newfstatat(AT, Text(c""), ROOM, Int(AT_EMPTY_PATH as i64));
    statx = SYS_statx(AT, Text(c"../file"), ZERO, Int(0x7ff), ROOM);
    statx_empty = SYS_statx(AT, Text(c""), Int(AT_EMPTY_PATH as i64), Int(0x7ff), ROOM);
    faccessat = SYS_faccessat(AT, Text(c"../file"), ZERO);
    faccessat2_empty = SYS_faccessat2(AT, Text(c""), Int(R_OK as i64), Int(AT_EMPTY_PATH as i64));
    fchmodat = SYS_fchmodat(AT, Text(c"../file"), Int(0o600));
    fchownat = SYS_fchownat(AT, Text(c"../file"), ZERO, ZERO, ZERO);
    fchownat_empty = SYS_fchownat(AT, Text(c""), ZERO, ZERO, Int(AT_EMPTY_PATH as i64));
    utimensat = SYS_utimensat(AT, Text(c"../file"), ROOM, ZERO);
    utimensat_null_path = SYS_utimensat(AT, ZERO, ROOM, ZERO);
    sendfile = SYS_sendfile(Fd(Kind::Null), Fd(Kind::Both), ZERO, Int(8));
    splice = SYS_splice(Fd(Kind::PipeReader), ZERO, Fd(Kind::Null), ZERO, Int(4), ZERO);
    splice_into_pipe = SYS_splice(Fd(Kind::Both), ZERO, Fd(Kind::PipeWriter), ZERO, Int(4), ZERO);
    tee = SYS_tee(Fd(Kind::PipeReader), Fd(Kind::PipeWriter), Int(4), Int(SPLICE_F_NONBLOCK as i64));
    vmsplice = SYS_vmsplice(Fd(Kind::PipeWriter), Vector, Int(1), ZERO);
    copy_file_range = SYS_copy_file_range(Fd(Kind::ReadOnly), ZERO, Fd(Kind::WriteOnly), ZERO, Int(4), ZERO);
    epoll_ctl = SYS_epoll_ctl(Fd(Kind::Epoll), Int(EPOLL_CTL_ADD as i64), Fd(Kind::PipeReader), Words(&[1]));
    epoll_ctl_del = SYS_epoll_ctl(Fd(Kind::Epoll), Int(EPOLL_CTL_DEL as i64), Fd(Kind::PipeReader), ZERO);
    epoll_pwait = SYS_epoll_pwait(Fd(Kind::Epoll), ROOM, Int(1), ZERO, ZERO, ZERO);
    signalfd4 = SYS_signalfd4(Fd(Kind::Both), Words(&[2]), Int(8), ZERO);
    timerfd_settime = SYS_timerfd_settime(Fd(Kind::Timer), ZERO, SECOND, ZERO);
    timerfd_gettime = SYS_timerfd_gettime(Fd(Kind::Timer), ROOM);
    bind = SYS_bind(Fd(Kind::Socket), Words(&[u64::from_le_bytes(*b"\x01\0myself")]), Int(9));
    listen = SYS_listen(Fd(Kind::Socket), Int(1));
    accept4 = SYS_accept4(Fd(Kind::Socket), ZERO, ZERO, ZERO);
    connect = SYS_connect(Fd(Kind::Socket), NOBODY, Int(9));
    getsockname = SYS_getsockname(Fd(Kind::Socket), ROOM, Words(&[100]));
    getpeername = SYS_getpeername(Fd(Kind::Socket), ROOM, Words(&[100]));
    sendto = SYS_sendto(Fd(Kind::Socket), ROOM, Int(1), ZERO, ZERO, ZERO);
    recvfrom = SYS_recvfrom(Fd(Kind::Socket), ROOM, Int(1), ZERO, ZERO, ZERO);
    setsockopt = SYS_setsockopt(Fd(Kind::Socket), Int(SOL_SOCKET as i64), Int(SO_PASSCRED as i64), Words(&[1]), Int(4));
    getsockopt = SYS_getsockopt(Fd(Kind::Socket), Int(SOL_SOCKET as i64), Int(SO_TYPE as i64), ROOM, Words(&[4]));
    shutdown = SYS_shutdown(Fd(Kind::Socket), Int(SHUT_RD as i64));
    sendmsg = SYS_sendmsg(Fd(Kind::Socket), Message, ZERO);
    recvmsg = SYS_recvmsg(Fd(Kind::Socket), Message, ZERO);
    mmap_private = SYS_mmap(ZERO, Int(4096), Int(1), Int(MAP_PRIVATE as i64), Fd(Kind::Both), ZERO);
    mmap_shared_writable = SYS_mmap(ZERO, Int(4096), Int(3), Int(MAP_SHARED as i64), Fd(Kind::Both), ZERO);
    mmap_anonymous = SYS_mmap(ZERO, Int(4096), Int(1), Int((MAP_PRIVATE | MAP_ANONYMOUS) as i64), Fd(Kind::Both), ZERO);
    execveat = SYS_execveat(Fd(Kind::Both), Text(c""), ROOM, ROOM, Int(AT_EMPTY_PATH as i64));
    pidfd_send_signal = SYS_pidfd_send_signal(Fd(Kind::Process), ZERO, ZERO, ZERO);
    waitid_pidfd = SYS_waitid(Int(P_PIDFD as i64), Fd(Kind::Process), ROOM, Int((WEXITED | WNOHANG) as i64), ZERO);
    setns = SYS_setns(Fd(Kind::Process), ZERO);
}
