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
