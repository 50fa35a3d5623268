//! The one table of system calls: number, name, typed arguments, handler.
//! The dispatcher, the names in traces and `docs/syscalls.md` come from it.

use super::futex::UserWaiter;
use super::time::{Timex, Tms, UserSigEvent};
use super::{FromReg, IntoSysResult, SysError, SysResult};
use crate::errno::Errno;
use crate::mm::UserPtr;
use crate::process::Thread;
use crate::signal::{SigAction, UserStack};
use crate::time::{UserItimerspec, UserItimerval, UserTimespec, UserTimeval};

/// A line of the table, for documentation and traces.
pub struct Entry {
    pub number: u32,
    pub name: &'static str,
    pub args: &'static [(&'static str, &'static str)],
}

macro_rules! syscalls {
    ($($number:literal $name:ident($($arg:ident: $ty:ty),* $(,)?) $kind:ident $($handler:ident)::+;)*) => {
        /// Every implemented system call, by number.
        pub const TABLE: &[Entry] = &[$(Entry {
            number: $number,
            name: stringify!($name),
            args: &[$((stringify!($arg), stringify!($ty))),*],
        }),*];

        async fn call(t: &mut Thread, number: u64, args: [u64; 6]) -> SysResult {
            match number {
                $($number => {
                    #[allow(unused_mut, unused_variables)]
                    let mut regs = args.iter();
                    $(let $arg = <$ty as FromReg>::from_reg(*regs.next().unwrap_or(&0));)*
                    syscalls!(@call $kind t $($handler)::+ ($($arg),*))
                })*
                _ => unknown(t, number),
            }
        }
    };
    (@call fn $t:ident $($handler:ident)::+ ($($arg:ident),*)) => {
        IntoSysResult::into_sys(super::$($handler)::+($t $(, $arg)*))
    };
    (@call async $t:ident $($handler:ident)::+ ($($arg:ident),*)) => {
        IntoSysResult::into_sys(super::$($handler)::+($t $(, $arg)*).await)
    };
    (@call asyncmut $t:ident $($handler:ident)::+ ($($arg:ident),*)) => {
        IntoSysResult::into_sys(super::$($handler)::+($t $(, $arg)*).await)
    };
}

syscalls! {
    74 signalfd4(fd: i32, mask: UserPtr<u64>, size: usize, flags: u32) async signal::signalfd4;
    90 capget(header: UserPtr<[u32; 2]>, data: UserPtr<u32>) async ids::capget;
    91 capset(header: UserPtr<[u32; 2]>, data: UserPtr<u32>) asyncmut ids::capset;
    92 personality(persona: u32) fn misc::personality;
    93 exit(code: i32) fn process::exit;
    94 exit_group(code: i32) fn process::exit_group;
    95 waitid(idtype: u32, id: u32, info: UserPtr<u8>, options: u32, rusage: UserPtr<u8>) async process::waitid;
    96 set_tid_address(addr: u64) fn process::set_tid_address;
    97 unshare(flags: u64) fn process::unshare;
    98 futex(addr: u64, op: u32, value: u32, timeout: u64, addr2: u64, value3: u32) async futex::futex;
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
    113 clock_gettime(clock: i32, time: UserPtr<UserTimespec>) async time::clock_gettime;
    114 clock_getres(clock: i32, resolution: UserPtr<UserTimespec>) async time::clock_getres;
    115 clock_nanosleep(clock: i32, flags: u32, time: UserPtr<UserTimespec>, rest: UserPtr<UserTimespec>) async time::clock_nanosleep;
    116 syslog(action: i32, buf: UserPtr<u8>, len: i32) async misc::syslog;
    118 sched_setparam(pid: i32, param: UserPtr<i32>) async sched::sched_setparam;
    119 sched_setscheduler(pid: i32, policy: i32, param: UserPtr<i32>) async sched::sched_setscheduler;
    120 sched_getscheduler(pid: i32) fn sched::sched_getscheduler;
    121 sched_getparam(pid: i32, param: UserPtr<i32>) async sched::sched_getparam;
    122 sched_setaffinity(pid: i32, len: usize, mask: UserPtr<u8>) async sched::sched_setaffinity;
    123 sched_getaffinity(pid: i32, len: usize, mask: UserPtr<u8>) async sched::sched_getaffinity;
    124 sched_yield() async sched::sched_yield;
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
    135 rt_sigprocmask(how: i32, new: UserPtr<u64>, old: UserPtr<u64>, size: usize) async signal::rt_sigprocmask;
    136 rt_sigpending(set: UserPtr<u64>, size: usize) async signal::rt_sigpending;
    137 rt_sigtimedwait(wanted: UserPtr<u64>, info: UserPtr<u8>, timeout: UserPtr<UserTimespec>, size: usize) async signal::rt_sigtimedwait;
    138 rt_sigqueueinfo(pid: i32, signo: i32, info: UserPtr<u8>) async signal::rt_sigqueueinfo;
    139 rt_sigreturn() asyncmut signal::rt_sigreturn;
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
    214 brk(addr: u64) async mm::brk;
    215 munmap(addr: u64, len: u64) async mm::munmap;
    216 mremap(addr: u64, old_len: u64, new_len: u64, flags: u32, new_addr: u64) async mm::mremap;
    220 clone(flags: u64, stack: u64, parent_tid: UserPtr<u32>, tls: u64, child_tid: UserPtr<u32>) async process::clone;
    221 execve(path: u64, argv: UserPtr<u64>, envp: UserPtr<u64>) asyncmut process::execve;
    222 mmap(addr: u64, len: u64, prot: u32, flags: u32, fd: i32, offset: u64) async mm::mmap;
    226 mprotect(addr: u64, len: u64, prot: u32) async mm::mprotect;
    227 msync(addr: u64, len: u64, flags: u32) async mm::msync;
    228 mlock(addr: u64, len: u64) async mm::mlock;
    229 munlock(addr: u64, len: u64) async mm::munlock;
    230 mlockall(flags: u32) async mm::mlockall;
    231 munlockall() fn mm::munlockall;
    232 mincore(addr: u64, len: u64, vec: UserPtr<u8>) async mm::mincore;
    233 madvise(addr: u64, len: u64, advice: u32) async mm::madvise;
    240 rt_tgsigqueueinfo(tgid: i32, tid: i32, signo: i32, info: UserPtr<u8>) async signal::rt_tgsigqueueinfo;
    260 wait4(pid: i32, status: UserPtr<u32>, options: u32, rusage: UserPtr<u8>) async process::wait4;
    261 prlimit64(pid: i32, resource: u32, new: UserPtr<[u64; 2]>, old: UserPtr<[u64; 2]>) async misc::prlimit64;
    266 clock_adjtime(clock: i32, timex: UserPtr<Timex>) async time::clock_adjtime;
    268 setns(fd: i32, kind: u32) fn process::setns;
    274 sched_setattr(pid: i32, attr: UserPtr<u32>, flags: u32) async sched::sched_setattr;
    275 sched_getattr(pid: i32, attr: UserPtr<u8>, size: u32, flags: u32) async sched::sched_getattr;
    281 execveat(dirfd: i32, path: u64, argv: UserPtr<u64>, envp: UserPtr<u64>, flags: u32) asyncmut process::execveat;
    283 membarrier(command: i32, flags: u32, cpu: i32) async misc::membarrier;
    284 mlock2(addr: u64, len: u64, flags: u32) async mm::mlock2;
    424 pidfd_send_signal(fd: i32, signo: i32, info: UserPtr<u8>, flags: u32) async signal::pidfd_send_signal;
    434 pidfd_open(pid: i32, flags: u32) fn process::pidfd_open;
    435 clone3(args: UserPtr<u64>, size: usize) async process::clone3;
    449 futex_waitv(waiters: UserPtr<UserWaiter>, count: u32, flags: u32, timeout: UserPtr<UserTimespec>, clock: i32) async futex::futex_waitv;
}

/// The name of a system call, or "?".
pub fn name(number: u64) -> &'static str {
    match TABLE.binary_search_by_key(&number, |entry| entry.number as u64) {
        Ok(index) => TABLE[index].name,
        Err(_) => "?",
    }
}

#[cold]
fn unknown(t: &mut Thread, number: u64) -> SysResult {
    t.process().log_unknown_syscall(t.task(), number);
    Err(Errno::ENOSYS.into())
}

/// Runs the system call that the thread's registers ask for and leaves the answer in x0.
pub async fn dispatch(t: &mut Thread) {
    let number = t.regs.x[8];
    let args = [t.regs.x[0], t.regs.x[1], t.regs.x[2], t.regs.x[3], t.regs.x[4], t.regs.x[5]];
    t.orig_x0 = args[0];
    let result = call(t, number, args).await;
    match result {
        Ok(value) => t.regs.x[0] = value,
        Err(SysError::Errno(errno)) => t.regs.x[0] = errno.to_ret(),
        Err(SysError::Restart(kind)) => {
            t.restart = Some(kind);
            t.regs.x[0] = Errno::EINTR.to_ret();
        }
    }
}
