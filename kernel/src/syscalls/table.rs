//! The one table of system calls: number, name, typed arguments, handler.
//! The dispatcher, the names in traces and `docs/syscalls.md` come from it.

use super::{FromReg, IntoSysResult, SysError, SysResult};
use crate::errno::Errno;
use crate::mm::UserPtr;
use crate::process::Thread;

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
    93 exit(code: i32) fn process::exit;
    94 exit_group(code: i32) fn process::exit_group;
    95 waitid(idtype: u32, id: u32, info: UserPtr<u8>, options: u32, rusage: UserPtr<u8>) async process::waitid;
    96 set_tid_address(addr: u64) fn process::set_tid_address;
    97 unshare(flags: u64) fn process::unshare;
    154 setpgid(pid: i32, pgid: i32) fn process::setpgid;
    155 getpgid(pid: i32) fn process::getpgid;
    156 getsid(pid: i32) fn process::getsid;
    157 setsid() fn process::setsid;
    172 getpid() fn process::getpid;
    173 getppid() fn process::getppid;
    178 gettid() fn process::gettid;
    220 clone(flags: u64, stack: u64, parent_tid: UserPtr<u32>, tls: u64, child_tid: UserPtr<u32>) async process::clone;
    221 execve(path: u64, argv: UserPtr<u64>, envp: UserPtr<u64>) asyncmut process::execve;
    260 wait4(pid: i32, status: UserPtr<u32>, options: u32, rusage: UserPtr<u8>) async process::wait4;
    268 setns(fd: i32, kind: u32) fn process::setns;
    281 execveat(dirfd: i32, path: u64, argv: UserPtr<u64>, envp: UserPtr<u64>, flags: u32) asyncmut process::execveat;
    434 pidfd_open(pid: i32, flags: u32) fn process::pidfd_open;
    435 clone3(args: UserPtr<u64>, size: usize) async process::clone3;
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
