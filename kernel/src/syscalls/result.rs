//! What a system call answers.

use crate::errno::Errno;
use crate::exec::Interrupted;
use crate::signal::Restart;

pub type SysResult<T = u64> = Result<T, SysError>;

/// An error number for the program, or the wish to be restarted after a signal, which never reaches the program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SysError {
    Errno(Errno),
    Restart(Restart),
}

impl From<Errno> for SysError {
    fn from(errno: Errno) -> Self {
        SysError::Errno(errno)
    }
}

impl From<Restart> for SysError {
    fn from(restart: Restart) -> Self {
        SysError::Restart(restart)
    }
}

/// The usual case: ERESTARTSYS.
impl From<Interrupted> for SysError {
    fn from(_: Interrupted) -> Self {
        SysError::Restart(Restart::Sys)
    }
}

/// What handlers may answer: any of `u64`, `usize`, `u32`, `i32`, `()` in a `Result` with `Errno` or `SysError`.
pub trait IntoSysResult {
    fn into_sys(self) -> SysResult;
}

/// A value that fits x0.
pub trait RetValue {
    fn into_ret(self) -> u64;
}

macro_rules! ret_values {
    ($($t:ty => |$v:ident| $e:expr;)*) => {
        $(impl RetValue for $t {
            #[inline]
            fn into_ret(self) -> u64 { let $v = self; $e }
        })*
    };
}

ret_values! {
    u64 => |v| v;
    usize => |v| v as u64;
    u32 => |v| v as u64;
    i32 => |v| v as i64 as u64;
    i64 => |v| v as u64;
    () => |v| { let () = v; 0 };
}

impl<T: RetValue, E: Into<SysError>> IntoSysResult for Result<T, E> {
    #[inline]
    fn into_sys(self) -> SysResult {
        self.map(RetValue::into_ret).map_err(Into::into)
    }
}
