//! The one table of system calls: number, name, typed arguments, handler.
//! The dispatcher, the names in traces and `docs/syscalls.md` come from it.

use alloc::boxed::Box;

use super::epoll::EpollEvent;
use super::fs_stat::{Stat, StatFs, Statx};
use super::futex::UserWaiter;
use super::mqueue::MqAttr;
use super::poll::PollFd;
use super::sem::SemBuf;
use super::socket::{MMsgHdr, MsgHdr};
use super::time::{Timex, Tms, UserSigEvent};
use super::{FromReg, IntoSysResult, SysError, SysResult};
use crate::errno::Errno;
use crate::exec::{Interrupted, interruptible};
use crate::io_uring::Params;
use crate::mm::UserPtr;
use crate::process::Thread;
use crate::process::run::Killable;
use crate::signal::{SigAction, UserStack, set_restart};
use crate::time::{UserItimerspec, UserItimerval, UserTimespec, UserTimeval};

/// A line of the table, for documentation and traces.
pub struct Entry {
    pub number: u32,
    pub name: &'static str,
    pub args: &'static [(&'static str, &'static str)],
}

macro_rules! syscalls {
    ($($number:literal $name:ident($($arg:ident: $ty:ty),* $(,)?)
        $kind:ident $($handler:ident)::+ $(, at once $($at_once:ident)::+)?;)*) => {
        /// Every implemented system call, by number.
        pub const TABLE: &[Entry] = &[$(Entry {
            number: $number,
            name: stringify!($name),
            args: &[$((stringify!($arg), stringify!($ty))),*],
        }),*];

        /// By number: the calls that answer at once, or often do, and the numbers that nobody has. `None`: see [`call`].
        static NOW: [Option<Now>; LIMIT] = {
            let mut table: [Option<Now>; LIMIT] = [Some(|t| unknown(t)); LIMIT];
            $(table[$number] = syscalls!(@now $kind ($($arg: $ty),*) $($handler)::+ $(, $($at_once)::+)?);)*
            table
        };

        /// The calls that may have to wait. Each thread is as large as the largest of them: those that are `boxed` do not
        /// count, and cost an allocation.
        async fn call(t: &mut Thread) -> SysResult {
            match t.regs.x[8] {
                $($number => syscalls!(@wait $kind t ($($arg: $ty),*) $($handler)::+),)*
                // In NOW.
                _ => Err(Errno::ENOSYS.into()),
            }
        }
    };
    (@now fn ($($arg:ident: $ty:ty),*) $($handler:ident)::+) => {
        Some(|t| {
            #[allow(clippy::let_unit_value, clippy::unused_unit)]
            let ($($arg,)*) = syscalls!(@decode t ($($arg: $ty),*));
            let result = IntoSysResult::into_sys(super::$($handler)::+(t $(, $arg)*));
            conclude(t, result);
            true
        })
    };
    (@now $kind:ident ($($arg:ident: $ty:ty),*) $($handler:ident)::+, $($at_once:ident)::+) => {
        Some(|t| {
            #[allow(clippy::let_unit_value, clippy::unused_unit)]
            let ($($arg,)*) = syscalls!(@decode t ($($arg: $ty),*));
            match super::$($at_once)::+(t $(, $arg)*) {
                Some(answer) => {
                    conclude(t, IntoSysResult::into_sys(answer));
                    true
                }
                None => false,
            }
        })
    };
    (@now $kind:ident ($($arg:ident: $ty:ty),*) $($handler:ident)::+) => { None };
    (@wait boxed $t:ident ($($arg:ident: $ty:ty),*) $($handler:ident)::+) => {{
        #[allow(clippy::let_unit_value, clippy::unused_unit)]
        let ($($arg,)*) = syscalls!(@decode $t ($($arg: $ty),*));
        IntoSysResult::into_sys(Box::pin(super::$($handler)::+($t $(, $arg)*)).await)
    }};
    (@wait killable $t:ident ($($arg:ident: $ty:ty),*) $($handler:ident)::+) => {{
        #[allow(clippy::let_unit_value, clippy::unused_unit)]
        let ($($arg,)*) = syscalls!(@decode $t ($($arg: $ty),*));
        let t: &Thread = $t;
        match interruptible(&Killable(t.task()), super::$($handler)::+(t $(, $arg)*)).await {
            Ok(answer) => IntoSysResult::into_sys(answer),
            // Nobody sees it.
            Err(Interrupted) => Err(Errno::EINTR.into()),
        }
    }};
    (@wait fn $t:ident ($($arg:ident: $ty:ty),*) $($handler:ident)::+) => { Err(Errno::ENOSYS.into()) };
    (@wait $kind:ident $t:ident ($($arg:ident: $ty:ty),*) $($handler:ident)::+) => {{
        #[allow(clippy::let_unit_value, clippy::unused_unit)]
        let ($($arg,)*) = syscalls!(@decode $t ($($arg: $ty),*));
        IntoSysResult::into_sys(super::$($handler)::+($t $(, $arg)*).await)
    }};
    (@decode $t:ident ($($arg:ident: $ty:ty),*)) => {{
        #[allow(unused_mut, unused_variables)]
        let mut regs = arguments($t).into_iter();
        ($(<$ty as FromReg>::from_reg(regs.next().unwrap_or(0)),)*)
    }};
}

syscalls! {
    5 setxattr(path: UserPtr<u8>, name: UserPtr<u8>, value: UserPtr<u8>, size: u64, flags: u32) async fs_xattr::setxattr;
    6 lsetxattr(path: UserPtr<u8>, name: UserPtr<u8>, value: UserPtr<u8>, size: u64, flags: u32) async fs_xattr::lsetxattr;
    7 fsetxattr(fd: i32, name: UserPtr<u8>, value: UserPtr<u8>, size: u64, flags: u32) async fs_xattr::fsetxattr;
    8 getxattr(path: UserPtr<u8>, name: UserPtr<u8>, value: UserPtr<u8>, size: u64) killable fs_xattr::getxattr;
    9 lgetxattr(path: UserPtr<u8>, name: UserPtr<u8>, value: UserPtr<u8>, size: u64) killable fs_xattr::lgetxattr;
    10 fgetxattr(fd: i32, name: UserPtr<u8>, value: UserPtr<u8>, size: u64) killable fs_xattr::fgetxattr;
    11 listxattr(path: UserPtr<u8>, list: UserPtr<u8>, size: u64) killable fs_xattr::listxattr;
    12 llistxattr(path: UserPtr<u8>, list: UserPtr<u8>, size: u64) killable fs_xattr::llistxattr;
    13 flistxattr(fd: i32, list: UserPtr<u8>, size: u64) killable fs_xattr::flistxattr;
    14 removexattr(path: UserPtr<u8>, name: UserPtr<u8>) async fs_xattr::removexattr;
    15 lremovexattr(path: UserPtr<u8>, name: UserPtr<u8>) async fs_xattr::lremovexattr;
    16 fremovexattr(fd: i32, name: UserPtr<u8>) async fs_xattr::fremovexattr;
    17 getcwd(buf: UserPtr<u8>, size: u64) async fs_stat::getcwd;
    19 eventfd2(initial: u32, flags: u32) fn pipe::eventfd2;
    20 epoll_create1(flags: u32) fn epoll::epoll_create1;
    21 epoll_ctl(epfd: i32, op: u32, fd: i32, event: UserPtr<EpollEvent>) async epoll::epoll_ctl, at once epoll::epoll_ctl_now;
    22 epoll_pwait(epfd: i32, events: UserPtr<EpollEvent>, max: i32, timeout: i32, mask: UserPtr<u64>, mask_size: u64) async epoll::epoll_pwait, at once epoll::epoll_pwait_now;
    23 dup(fd: i32) fn fs_open::dup;
    24 dup3(old: i32, new: i32, flags: u32) async fs_open::dup3;
    25 fcntl(fd: i32, cmd: u32, arg: u64) async fs_open::fcntl, at once fs_open::fcntl_now;
    26 inotify_init1(flags: u32) fn inotify::inotify_init1;
    27 inotify_add_watch(fd: i32, path: UserPtr<u8>, mask: u32) async inotify::inotify_add_watch;
    28 inotify_rm_watch(fd: i32, wd: i32) fn inotify::inotify_rm_watch;
    29 ioctl(fd: i32, cmd: u32, arg: u64) async fs_open::ioctl;
    30 ioprio_set(which: i32, who: i32, priority: i32) fn ioprio::ioprio_set;
    31 ioprio_get(which: i32, who: i32) fn ioprio::ioprio_get;
    32 flock(fd: i32, operation: u32) async fs_open::flock;
    33 mknodat(dirfd: i32, path: UserPtr<u8>, mode: u32, dev: u32) async fs_change::mknodat;
    34 mkdirat(dirfd: i32, path: UserPtr<u8>, mode: u32) async fs_change::mkdirat, at once fs_change::mkdirat_now;
    35 unlinkat(dirfd: i32, path: UserPtr<u8>, flags: u32) async fs_change::unlinkat, at once fs_change::unlinkat_now;
    36 symlinkat(target: UserPtr<u8>, dirfd: i32, path: UserPtr<u8>) async fs_change::symlinkat;
    37 linkat(old_fd: i32, old: UserPtr<u8>, new_fd: i32, new: UserPtr<u8>, flags: u32) async fs_change::linkat;
    38 renameat(old_fd: i32, old: UserPtr<u8>, new_fd: i32, new: UserPtr<u8>) async fs_change::renameat, at once fs_change::renameat_now;
    39 umount2(target: UserPtr<u8>, flags: u32) async fs_mount::umount2;
    40 mount(source: UserPtr<u8>, target: UserPtr<u8>, fs_type: UserPtr<u8>, flags: u64, data: UserPtr<u8>) async fs_mount::mount;
    41 pivot_root(new_root: UserPtr<u8>, put_old: UserPtr<u8>) async fs_mount::pivot_root;
    43 statfs(path: UserPtr<u8>, buf: UserPtr<StatFs>) killable fs_stat::statfs;
    44 fstatfs(fd: i32, buf: UserPtr<StatFs>) killable fs_stat::fstatfs;
    45 truncate(path: UserPtr<u8>, size: i64) async fs_rw::truncate;
    46 ftruncate(fd: i32, size: i64) async fs_rw::ftruncate;
    47 fallocate(fd: i32, mode: u32, offset: i64, len: i64) async fs_rw::fallocate;
    48 faccessat(dirfd: i32, path: UserPtr<u8>, mode: u32) killable fs_stat::faccessat, at once fs_stat::faccessat_now;
    49 chdir(path: UserPtr<u8>) killable fs_change::chdir;
    50 fchdir(fd: i32) fn fs_change::fchdir;
    51 chroot(path: UserPtr<u8>) killable fs_change::chroot;
    52 fchmod(fd: i32, mode: u32) async fs_change::fchmod;
    53 fchmodat(dirfd: i32, path: UserPtr<u8>, mode: u32) async fs_change::fchmodat;
    54 fchownat(dirfd: i32, path: UserPtr<u8>, uid: u32, gid: u32, flags: u32) async fs_change::fchownat;
    55 fchown(fd: i32, uid: u32, gid: u32) async fs_change::fchown;
    56 openat(dirfd: i32, path: UserPtr<u8>, flags: u32, mode: u32) async fs_open::openat, at once fs_open::openat_now;
    57 close(fd: i32) boxed fs_open::close, at once fs_open::close_now;
    58 vhangup() fn misc::vhangup;
    59 pipe2(fds: UserPtr<[i32; 2]>, flags: u32) async pipe::pipe2;
    61 getdents64(fd: i32, buf: UserPtr<u8>, size: u32) killable fs_stat::getdents64;
    62 lseek(fd: i32, offset: i64, whence: u32) killable fs_rw::lseek, at once fs_rw::lseek_now;
    63 read(fd: i32, buf: u64, len: u64) killable fs_rw::read, at once fs_rw::read_now;
    64 write(fd: i32, buf: u64, len: u64) async fs_rw::write, at once fs_rw::write_now;
    65 readv(fd: i32, iov: u64, count: u64) killable fs_rw::readv;
    66 writev(fd: i32, iov: u64, count: u64) async fs_rw::writev;
    67 pread64(fd: i32, buf: u64, len: u64, pos: i64) killable fs_rw::pread64, at once fs_rw::pread64_now;
    68 pwrite64(fd: i32, buf: u64, len: u64, pos: i64) async fs_rw::pwrite64;
    69 preadv(fd: i32, iov: u64, count: u64, pos: i64, pos_high: u64) killable fs_rw::preadv;
    70 pwritev(fd: i32, iov: u64, count: u64, pos: i64, pos_high: u64) async fs_rw::pwritev;
    71 sendfile(out_fd: i32, in_fd: i32, offset: UserPtr<i64>, count: u64) boxed fs_rw::sendfile;
    72 pselect6(count: i32, read: UserPtr<u64>, write: UserPtr<u64>, except: UserPtr<u64>, timeout: UserPtr<UserTimespec>, mask: UserPtr<[u64; 2]>) async poll::pselect6, at once poll::pselect6_now;
    73 ppoll(fds: UserPtr<PollFd>, count: u32, timeout: UserPtr<UserTimespec>, mask: UserPtr<u64>, mask_size: u64) async poll::ppoll, at once poll::ppoll_now;
    74 signalfd4(fd: i32, mask: UserPtr<u64>, size: usize, flags: u32) async signal::signalfd4;
    75 vmsplice(fd: i32, iov: u64, count: u64, flags: u32) async fs_rw::vmsplice;
    76 splice(in_fd: i32, in_offset: UserPtr<i64>, out_fd: i32, out_offset: UserPtr<i64>, len: u64, flags: u32) boxed fs_rw::splice;
    77 tee(in_fd: i32, out_fd: i32, len: u64, flags: u32) boxed fs_rw::tee;
    78 readlinkat(dirfd: i32, path: UserPtr<u8>, buf: UserPtr<u8>, size: i32) killable fs_stat::readlinkat, at once fs_stat::readlinkat_now;
    79 newfstatat(dirfd: i32, path: UserPtr<u8>, buf: UserPtr<Stat>, flags: u32) killable fs_stat::newfstatat, at once fs_stat::newfstatat_now;
    80 fstat(fd: i32, buf: UserPtr<Stat>) killable fs_stat::fstat, at once fs_stat::fstat_now;
    81 sync() async fs_rw::sync;
    82 fsync(fd: i32) async fs_rw::fsync;
    83 fdatasync(fd: i32) async fs_rw::fdatasync;
    84 sync_file_range(fd: i32, offset: i64, len: i64, flags: u32) async fs_rw::sync_file_range;
    85 timerfd_create(clock: i32, flags: u32) fn pipe::timerfd_create;
    86 timerfd_settime(fd: i32, flags: u32, new: UserPtr<UserItimerspec>, old: UserPtr<UserItimerspec>) async pipe::timerfd_settime;
    87 timerfd_gettime(fd: i32, value: UserPtr<UserItimerspec>) async pipe::timerfd_gettime;
    88 utimensat(dirfd: i32, path: UserPtr<u8>, times: UserPtr<[UserTimespec; 2]>, flags: u32) async fs_change::utimensat;
    90 capget(header: UserPtr<[u32; 2]>, data: UserPtr<u32>) async ids::capget;
    91 capset(header: UserPtr<[u32; 2]>, data: UserPtr<u32>) asyncmut ids::capset;
    92 personality(persona: u32) fn misc::personality;
    93 exit(code: i32) fn process::exit;
    94 exit_group(code: i32) fn process::exit_group;
    95 waitid(idtype: u32, id: u32, info: UserPtr<u8>, options: u32, rusage: UserPtr<u8>) async process::waitid;
    96 set_tid_address(addr: u64) fn process::set_tid_address;
    97 unshare(flags: u64) boxed process::unshare;
    98 futex(addr: u64, op: u32, value: u32, timeout: u64, addr2: u64, value3: u32) async futex::futex, at once futex::futex_now;
    99 set_robust_list(head: u64, size: usize) fn futex::set_robust_list;
    100 get_robust_list(tid: i32, head: UserPtr<u64>, size: UserPtr<u64>) async futex::get_robust_list;
    101 nanosleep(time: UserPtr<UserTimespec>, rest: UserPtr<UserTimespec>) async time::nanosleep;
    102 getitimer(which: i32, value: UserPtr<UserItimerval>) async time::getitimer;
    103 setitimer(which: i32, new: UserPtr<UserItimerval>, old: UserPtr<UserItimerval>) async time::setitimer;
    107 timer_create(clock: i32, event: UserPtr<UserSigEvent>, id: UserPtr<i32>) async time::timer_create;
    108 timer_gettime(id: i32, value: UserPtr<UserItimerspec>) async time::timer_gettime;
    109 timer_getoverrun(id: i32) fn time::timer_getoverrun;
    110 timer_settime(id: i32, flags: u32, new: UserPtr<UserItimerspec>, old: UserPtr<UserItimerspec>) async time::timer_settime;
    111 timer_delete(id: i32) fn time::timer_delete;
    112 clock_settime(clock: i32, time: UserPtr<UserTimespec>) async time::clock_settime;
    113 clock_gettime(clock: i32, time: UserPtr<UserTimespec>) async time::clock_gettime, at once time::clock_gettime_now;
    114 clock_getres(clock: i32, resolution: UserPtr<UserTimespec>) async time::clock_getres;
    115 clock_nanosleep(clock: i32, flags: u32, time: UserPtr<UserTimespec>, rest: UserPtr<UserTimespec>) async time::clock_nanosleep;
    116 syslog(action: i32, buf: UserPtr<u8>, len: i32) async misc::syslog;
    117 ptrace(request: u64, pid: i32, addr: u64, data: u64) boxed ptrace::ptrace;
    118 sched_setparam(pid: i32, param: UserPtr<i32>) async sched::sched_setparam;
    119 sched_setscheduler(pid: i32, policy: i32, param: UserPtr<i32>) async sched::sched_setscheduler;
    120 sched_getscheduler(pid: i32) fn sched::sched_getscheduler;
    121 sched_getparam(pid: i32, param: UserPtr<i32>) async sched::sched_getparam;
    122 sched_setaffinity(pid: i32, len: usize, mask: UserPtr<u8>) async sched::sched_setaffinity;
    123 sched_getaffinity(pid: i32, len: usize, mask: UserPtr<u8>) async sched::sched_getaffinity;
    124 sched_yield() fn sched::sched_yield;
    125 sched_get_priority_max(policy: i32) fn sched::sched_get_priority_max;
    126 sched_get_priority_min(policy: i32) fn sched::sched_get_priority_min;
    127 sched_rr_get_interval(pid: i32, interval: UserPtr<[u64; 2]>) async sched::sched_rr_get_interval;
    128 restart_syscall() async signal::restart_syscall;
    129 kill(pid: i32, signo: i32) fn signal::kill;
    130 tkill(tid: i32, signo: i32) fn signal::tkill;
    131 tgkill(tgid: i32, tid: i32, signo: i32) fn signal::tgkill;
    132 sigaltstack(new: UserPtr<UserStack>, old: UserPtr<UserStack>) async signal::sigaltstack;
    133 rt_sigsuspend(mask: UserPtr<u64>, size: usize) async signal::rt_sigsuspend;
    134 rt_sigaction(signo: i32, new: UserPtr<SigAction>, old: UserPtr<SigAction>, size: usize) async signal::rt_sigaction;
    135 rt_sigprocmask(how: i32, new: UserPtr<u64>, old: UserPtr<u64>, size: usize) async signal::rt_sigprocmask, at once signal::rt_sigprocmask_now;
    136 rt_sigpending(set: UserPtr<u64>, size: usize) async signal::rt_sigpending;
    137 rt_sigtimedwait(wanted: UserPtr<u64>, info: UserPtr<u8>, timeout: UserPtr<UserTimespec>, size: usize) async signal::rt_sigtimedwait;
    138 rt_sigqueueinfo(pid: i32, signo: i32, info: UserPtr<u8>) async signal::rt_sigqueueinfo;
    139 rt_sigreturn() asyncmut signal::rt_sigreturn, at once signal::rt_sigreturn_now;
    140 setpriority(which: i32, who: i32, nice: i32) fn sched::setpriority;
    141 getpriority(which: i32, who: i32) fn sched::getpriority;
    142 reboot(magic1: u32, magic2: u32, command: u32, arg: u64) async misc::reboot;
    143 setregid(rgid: u32, egid: u32) fn ids::setregid;
    144 setgid(gid: u32) fn ids::setgid;
    145 setreuid(ruid: u32, euid: u32) fn ids::setreuid;
    146 setuid(uid: u32) fn ids::setuid;
    147 setresuid(ruid: u32, euid: u32, suid: u32) fn ids::setresuid;
    148 getresuid(ruid: UserPtr<u32>, euid: UserPtr<u32>, suid: UserPtr<u32>) async ids::getresuid;
    149 setresgid(rgid: u32, egid: u32, sgid: u32) fn ids::setresgid;
    150 getresgid(rgid: UserPtr<u32>, egid: UserPtr<u32>, sgid: UserPtr<u32>) async ids::getresgid;
    151 setfsuid(uid: u32) fn ids::setfsuid;
    152 setfsgid(gid: u32) fn ids::setfsgid;
    153 times(buf: UserPtr<Tms>) async time::times;
    154 setpgid(pid: i32, pgid: i32) fn process::setpgid;
    155 getpgid(pid: i32) fn process::getpgid;
    156 getsid(pid: i32) fn process::getsid;
    157 setsid() fn process::setsid;
    158 getgroups(size: i32, list: UserPtr<u32>) async ids::getgroups;
    159 setgroups(size: i32, list: UserPtr<u32>) asyncmut ids::setgroups;
    160 uname(buf: UserPtr<u8>) async misc::uname;
    161 sethostname(name: UserPtr<u8>, len: i32) async misc::sethostname;
    162 setdomainname(name: UserPtr<u8>, len: i32) async misc::setdomainname;
    163 getrlimit(resource: u32, limit: UserPtr<[u64; 2]>) async misc::getrlimit;
    164 setrlimit(resource: u32, limit: UserPtr<[u64; 2]>) async misc::setrlimit;
    165 getrusage(who: i32, usage: UserPtr<[u64; 18]>) async misc::getrusage;
    166 umask(mask: u32) fn fs_change::umask;
    167 prctl(option: i32, arg2: u64, arg3: u64, arg4: u64, arg5: u64) asyncmut prctl::prctl;
    168 getcpu(cpu: UserPtr<u32>, node: UserPtr<u32>) async misc::getcpu;
    169 gettimeofday(time: UserPtr<UserTimeval>, zone: UserPtr<u64>) async time::gettimeofday;
    170 settimeofday(time: UserPtr<UserTimeval>, zone: UserPtr<u64>) async time::settimeofday;
    171 adjtimex(timex: UserPtr<Timex>) async time::adjtimex;
    172 getpid() fn process::getpid;
    173 getppid() fn process::getppid;
    174 getuid() fn ids::getuid;
    175 geteuid() fn ids::geteuid;
    176 getgid() fn ids::getgid;
    177 getegid() fn ids::getegid;
    178 gettid() fn process::gettid;
    179 sysinfo(info: UserPtr<u64>) async misc::sysinfo;
    180 mq_open(name: UserPtr<u8>, flags: u32, mode: u32, attr: UserPtr<MqAttr>) async mqueue::mq_open;
    181 mq_unlink(name: UserPtr<u8>) async mqueue::mq_unlink;
    182 mq_timedsend(fd: i32, from: UserPtr<u8>, len: u64, priority: u32, time: UserPtr<UserTimespec>) async mqueue::mq_timedsend, at once mqueue::mq_timedsend_now;
    183 mq_timedreceive(fd: i32, to: UserPtr<u8>, len: u64, priority: UserPtr<u32>, time: UserPtr<UserTimespec>) async mqueue::mq_timedreceive;
    184 mq_notify(fd: i32, event: UserPtr<UserSigEvent>) async mqueue::mq_notify;
    185 mq_getsetattr(fd: i32, new: UserPtr<MqAttr>, old: UserPtr<MqAttr>) async mqueue::mq_getsetattr;
    186 msgget(key: i32, flags: u32) fn msg::msgget;
    187 msgctl(id: i32, command: i32, arg: u64) async msg::msgctl;
    188 msgrcv(id: i32, to: UserPtr<i64>, size: u64, kind: i64, flags: u32) async msg::msgrcv;
    189 msgsnd(id: i32, from: UserPtr<i64>, size: u64, flags: u32) async msg::msgsnd, at once msg::msgsnd_now;
    190 semget(key: i32, count: i32, flags: u32) fn sem::semget;
    191 semctl(id: i32, index: i32, command: i32, arg: u64) async sem::semctl;
    192 semtimedop(id: i32, ops: UserPtr<SemBuf>, count: u32, limit: UserPtr<UserTimespec>) async sem::semtimedop;
    193 semop(id: i32, ops: UserPtr<SemBuf>, count: u32) async sem::semop, at once sem::semop_now;
    194 shmget(key: i32, size: u64, flags: u32) fn shm::shmget;
    195 shmctl(id: i32, command: i32, arg: u64) async shm::shmctl;
    196 shmat(id: i32, addr: u64, flags: u32) async shm::shmat;
    197 shmdt(addr: u64) async shm::shmdt;
    198 socket(family: u32, kind: u32, protocol: i32) fn socket::socket;
    199 socketpair(family: u32, kind: u32, protocol: i32, fds: UserPtr<[i32; 2]>) async socket::socketpair;
    200 bind(fd: i32, name: UserPtr<u8>, len: i32) async socket::bind;
    201 listen(fd: i32, backlog: u32) fn socket::listen;
    202 accept(fd: i32, name: UserPtr<u8>, len: UserPtr<i32>) async socket::accept;
    203 connect(fd: i32, name: UserPtr<u8>, len: i32) async socket::connect;
    204 getsockname(fd: i32, name: UserPtr<u8>, len: UserPtr<i32>) async socket::getsockname;
    205 getpeername(fd: i32, name: UserPtr<u8>, len: UserPtr<i32>) async socket::getpeername;
    206 sendto(fd: i32, buf: u64, len: u64, flags: u32, name: UserPtr<u8>, name_len: i32) async socket::sendto;
    207 recvfrom(fd: i32, buf: u64, len: u64, flags: u32, name: UserPtr<u8>, name_len: UserPtr<i32>) async socket::recvfrom;
    208 setsockopt(fd: i32, level: u32, option: u32, value: UserPtr<u8>, len: i32) async socket::setsockopt;
    209 getsockopt(fd: i32, level: u32, option: u32, value: UserPtr<u8>, len: UserPtr<i32>) async socket::getsockopt;
    210 shutdown(fd: i32, how: i32) fn socket::shutdown;
    211 sendmsg(fd: i32, message: UserPtr<MsgHdr>, flags: u32) async socket::sendmsg;
    212 recvmsg(fd: i32, message: UserPtr<MsgHdr>, flags: u32) async socket::recvmsg;
    213 readahead(fd: i32, offset: i64, count: u64) killable fs_rw::readahead;
    214 brk(addr: u64) async mm::brk, at once mm::brk_now;
    215 munmap(addr: u64, len: u64) async mm::munmap, at once mm::munmap_now;
    216 mremap(addr: u64, old_len: u64, new_len: u64, flags: u32, new_addr: u64) async mm::mremap;
    220 clone(flags: u64, stack: u64, parent_tid: UserPtr<u32>, tls: u64, child_tid: UserPtr<u32>) asyncmut process::clone;
    221 execve(path: u64, argv: UserPtr<u64>, envp: UserPtr<u64>) asyncmut process::execve;
    222 mmap(addr: u64, len: u64, prot: u32, flags: u32, fd: i32, offset: u64) boxed mm::mmap;
    223 fadvise64(fd: i32, offset: i64, len: i64, advice: i32) fn fs_rw::fadvise64;
    226 mprotect(addr: u64, len: u64, prot: u32) async mm::mprotect, at once mm::mprotect_now;
    227 msync(addr: u64, len: u64, flags: u32) async mm::msync;
    228 mlock(addr: u64, len: u64) boxed mm::mlock;
    229 munlock(addr: u64, len: u64) async mm::munlock;
    230 mlockall(flags: u32) boxed mm::mlockall;
    231 munlockall() fn mm::munlockall;
    232 mincore(addr: u64, len: u64, vec: UserPtr<u8>) async mm::mincore;
    233 madvise(addr: u64, len: u64, advice: u32) boxed mm::madvise;
    234 remap_file_pages(addr: u64, len: u64, prot: u64, page: u64, flags: u64) boxed mm::remap_file_pages;
    240 rt_tgsigqueueinfo(tgid: i32, tid: i32, signo: i32, info: UserPtr<u8>) async signal::rt_tgsigqueueinfo;
    242 accept4(fd: i32, name: UserPtr<u8>, len: UserPtr<i32>, flags: u32) async socket::accept4;
    243 recvmmsg(fd: i32, messages: UserPtr<MMsgHdr>, count: u32, flags: u32, timeout: UserPtr<UserTimespec>) boxed socket::recvmmsg;
    260 wait4(pid: i32, status: UserPtr<u32>, options: u32, rusage: UserPtr<u8>) async process::wait4;
    261 prlimit64(pid: i32, resource: u32, new: UserPtr<[u64; 2]>, old: UserPtr<[u64; 2]>) async misc::prlimit64;
    264 name_to_handle_at(dirfd: i32, path: UserPtr<u8>, handle: UserPtr<[u32; 2]>, mount_id: UserPtr<i32>, flags: u32) killable fs_handle::name_to_handle_at;
    265 open_by_handle_at(mount_fd: i32, handle: UserPtr<[u32; 2]>, flags: u32) boxed fs_handle::open_by_handle_at;
    266 clock_adjtime(clock: i32, timex: UserPtr<Timex>) async time::clock_adjtime;
    267 syncfs(fd: i32) async fs_rw::syncfs;
    268 setns(fd: i32, kind: u32) fn process::setns;
    269 sendmmsg(fd: i32, messages: UserPtr<MMsgHdr>, count: u32, flags: u32) async socket::sendmmsg;
    270 process_vm_readv(pid: i32, local: u64, local_count: u64, remote: u64, remote_count: u64, flags: u64) boxed mm_remote::process_vm_readv;
    271 process_vm_writev(pid: i32, local: u64, local_count: u64, remote: u64, remote_count: u64, flags: u64) boxed mm_remote::process_vm_writev;
    274 sched_setattr(pid: i32, attr: UserPtr<u32>, flags: u32) async sched::sched_setattr;
    275 sched_getattr(pid: i32, attr: UserPtr<u8>, size: u32, flags: u32) async sched::sched_getattr;
    276 renameat2(old_fd: i32, old: UserPtr<u8>, new_fd: i32, new: UserPtr<u8>, flags: u32) async fs_change::renameat2, at once fs_change::renameat2_now;
    278 getrandom(buf: u64, len: u64, flags: u32) async pipe::getrandom;
    279 memfd_create(name: UserPtr<u8>, flags: u32) async pipe::memfd_create;
    281 execveat(dirfd: i32, path: u64, argv: UserPtr<u64>, envp: UserPtr<u64>, flags: u32) asyncmut process::execveat;
    282 userfaultfd(flags: u32) fn pipe::userfaultfd;
    283 membarrier(command: i32, flags: u32, cpu: i32) async misc::membarrier;
    284 mlock2(addr: u64, len: u64, flags: u32) boxed mm::mlock2;
    285 copy_file_range(in_fd: i32, in_offset: UserPtr<i64>, out_fd: i32, out_offset: UserPtr<i64>, len: u64, flags: u32) boxed fs_rw::copy_file_range;
    286 preadv2(fd: i32, iov: u64, count: u64, pos: i64, pos_high: u64, flags: u32) killable fs_rw::preadv2;
    287 pwritev2(fd: i32, iov: u64, count: u64, pos: i64, pos_high: u64, flags: u32) boxed fs_rw::pwritev2;
    291 statx(dirfd: i32, path: UserPtr<u8>, flags: u32, mask: u32, buf: UserPtr<Statx>) killable fs_stat::statx, at once fs_stat::statx_now;
    293 rseq(area: u64, len: u32, flags: u32, signature: u32) fn misc::rseq;
    424 pidfd_send_signal(fd: i32, signo: i32, info: UserPtr<u8>, flags: u32) async signal::pidfd_send_signal;
    425 io_uring_setup(entries: u32, params: UserPtr<Params>) async io_uring::io_uring_setup;
    426 io_uring_enter(fd: u32, to_submit: u32, min_complete: u32, flags: u32, arg: u64, size: u64) async io_uring::io_uring_enter, at once io_uring::io_uring_enter_now;
    427 io_uring_register(fd: i32, opcode: u32, arg: u64, count: u32) async io_uring::io_uring_register;
    428 open_tree(dirfd: i32, path: UserPtr<u8>, flags: u32) boxed fs_mount_fd::open_tree;
    429 move_mount(from_fd: i32, from: UserPtr<u8>, to_fd: i32, to: UserPtr<u8>, flags: u32) boxed fs_mount_fd::move_mount;
    430 fsopen(name: UserPtr<u8>, flags: u32) boxed fs_mount_fd::fsopen;
    431 fsconfig(fd: i32, command: u32, key: UserPtr<u8>, value: UserPtr<u8>, aux: i32) boxed fs_mount_fd::fsconfig;
    432 fsmount(fd: i32, flags: u32, attributes: u32) boxed fs_mount_fd::fsmount;
    433 fspick(dirfd: i32, path: UserPtr<u8>, flags: u32) boxed fs_mount_fd::fspick;
    434 pidfd_open(pid: i32, flags: u32) fn process::pidfd_open;
    435 clone3(args: UserPtr<u64>, size: usize) boxed process::clone3;
    436 close_range(first: u32, last: u32, flags: u32) boxed fs_open::close_range;
    437 openat2(dirfd: i32, path: UserPtr<u8>, how: UserPtr<[u64; 3]>, size: u64) async fs_open::openat2;
    438 pidfd_getfd(pidfd: i32, fd: i32, flags: u32) fn process::pidfd_getfd;
    439 faccessat2(dirfd: i32, path: UserPtr<u8>, mode: u32, flags: u32) killable fs_stat::faccessat2;
    440 process_madvise(fd: i32, vectors: u64, count: u64, advice: u32, flags: u32) boxed mm_remote::process_madvise;
    441 epoll_pwait2(epfd: i32, events: UserPtr<EpollEvent>, max: i32, timeout: UserPtr<UserTimespec>, mask: UserPtr<u64>, mask_size: u64) async epoll::epoll_pwait2;
    442 mount_setattr(dirfd: i32, path: UserPtr<u8>, flags: u32, attr: UserPtr<u8>, size: u64) boxed fs_mount_fd::mount_setattr;
    448 process_mrelease(fd: i32, flags: u32) boxed mm_remote::process_mrelease;
    449 futex_waitv(waiters: UserPtr<UserWaiter>, count: u32, flags: u32, timeout: UserPtr<UserTimespec>, clock: i32) async futex::futex_waitv;
    452 fchmodat2(dirfd: i32, path: UserPtr<u8>, mode: u32, flags: u32) async fs_change::fchmodat2;
}

/// The name of a system call, or "?".
pub fn name(number: u64) -> &'static str {
    match TABLE.binary_search_by_key(&number, |entry| entry.number as u64) {
        Ok(index) => TABLE[index].name,
        Err(_) => "?",
    }
}

/// Above all numbers.
const LIMIT: usize = 512;

/// Takes its arguments from the thread's registers and leaves the answer in x0. False: nothing was done, [`dispatch`] it.
type Now = fn(&mut Thread) -> bool;

#[cold]
fn unknown(t: &mut Thread) -> bool {
    t.process().log_unknown_syscall(t.task(), t.regs.x[8]);
    t.regs.x[0] = Errno::ENOSYS.to_ret();
    true
}

#[inline]
fn arguments(t: &Thread) -> [u64; 6] {
    let x = &t.regs.x;
    [x[0], x[1], x[2], x[3], x[4], x[5]]
}

/// Runs the system call that the thread's registers ask for, if it answers at once. False: [`dispatch`] it.
///
/// A call by way of [`dispatch`] has a state in the thread's future, even if it does not come to waiting. What needs none
/// is a plain function here, and costs as much as one.
#[inline]
pub fn dispatch_now(t: &mut Thread) -> bool {
    t.orig_x0 = t.regs.x[0];
    match NOW.get(t.regs.x[8] as usize) {
        Some(Some(now)) => now(t),
        Some(None) => false,
        None => unknown(t),
    }
}

/// Runs a system call that may have to wait.
pub async fn dispatch(t: &mut Thread) {
    let result = call(t).await;
    conclude(t, result);
}

/// Leaves the answer in x0.
#[inline]
fn conclude(t: &mut Thread, result: SysResult) {
    match result {
        Ok(value) => t.regs.x[0] = value,
        Err(SysError::Errno(errno)) => t.regs.x[0] = errno.to_ret(),
        Err(SysError::Restart(kind)) => {
            set_restart(t, kind);
            t.regs.x[0] = Errno::EINTR.to_ret();
        }
    }
}
