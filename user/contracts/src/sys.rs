//! The door to the kernel: system calls without a library in between, and names for what they return.
//!
//! A test may hand the kernel whatever it likes; what becomes of its memory is its own affair, it has a process for
//! itself. So [`raw`] is safe to call in the sense of the tests, not in that of the language: it is the one place where
//! they leave it.

use std::ffi::{CStr, c_void};
use std::fmt;

/// A system call by its number in `libc` (`SYS_read`) and up to six arguments: integers, pointers, references, slices
/// and strings.
macro_rules! sys {
    ($number:ident $(, $argument:expr)* $(,)?) => {
        $crate::sys::raw(libc::$number, &[$($crate::sys::Argument::register($argument)),*])
    };
}
pub(crate) use sys;

/// What a system call came to: a value, or a negated errno.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ret(pub i64);

impl Ret {
    pub fn ok(self) -> bool {
        self.0 >= 0
    }

    /// The errno, 0 if there is none.
    pub fn errno(self) -> i32 {
        if self.ok() { 0 } else { -self.0 as i32 }
    }

    /// A descriptor that the test cannot do without.
    #[track_caller]
    pub fn fd(self) -> i32 {
        self.need() as i32
    }

    /// A value that the test cannot do without: else it ends here and says so.
    #[track_caller]
    pub fn need(self) -> i64 {
        if !self.ok() {
            let place = std::panic::Location::caller();
            crate::say!("stopped at {}:{}: {self}", place.file(), place.line());
            crate::process::exit(98);
        }
        self.0
    }

    /// For values that differ from run to run: `ok`, or the error.
    pub fn ok_or_error(self) -> String {
        if self.ok() { "ok".into() } else { self.to_string() }
    }
}

/// A number, or the name of the error.
impl fmt::Display for Ret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ok() { self.0.fmt(f) } else { f.write_str(&errno_name(self.errno())) }
    }
}

/// What can be put into a register.
pub trait Argument {
    fn register(self) -> usize;
}

macro_rules! integers {
    ($($type:ty)*) => {
        $(impl Argument for $type {
            fn register(self) -> usize {
                self as usize
            }
        })*
    };
}

integers! { i16 u16 i32 u32 i64 u64 isize usize }

impl<T> Argument for *const T {
    fn register(self) -> usize {
        self as usize
    }
}

impl<T> Argument for *mut T {
    fn register(self) -> usize {
        self as usize
    }
}

impl<T> Argument for &T {
    fn register(self) -> usize {
        std::ptr::from_ref(self) as usize
    }
}

impl<T> Argument for &mut T {
    fn register(self) -> usize {
        std::ptr::from_mut(self) as usize
    }
}

impl<T> Argument for &[T] {
    fn register(self) -> usize {
        self.as_ptr() as usize
    }
}

impl<T> Argument for &mut [T] {
    fn register(self) -> usize {
        self.as_mut_ptr() as usize
    }
}

impl Argument for &CStr {
    fn register(self) -> usize {
        self.as_ptr() as usize
    }
}

impl Argument for &str {
    fn register(self) -> usize {
        self.as_ptr() as usize
    }
}

/// A system call with up to six arguments.
pub fn raw(number: i64, arguments: &[usize]) -> Ret {
    let all = std::array::from_fn(|index| arguments.get(index).copied().unwrap_or(0));
    // SAFETY: see the top: memory that the call changes is the test's.
    Ret(unsafe { pollux_door::raw(number, all) } as i64)
}

/// The start of a structure that the kernel fills, all zero.
pub fn zeroed<T: Copy>() -> T {
    // SAFETY: used for structures of integers and pointers only, of which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// An address that no process of 48-bit addresses can have.
pub const KERNEL: *mut c_void = 0xffff_0000_0000_1000_usize as *mut c_void;
/// An address that nothing is mapped at.
pub const NOWHERE: *mut c_void = 8 as *mut c_void;

macro_rules! errnos {
    ($($name:ident)*) => {
        /// The name of an errno.
        pub fn errno_name(errno: i32) -> String {
            match errno {
                $(libc::$name => stringify!($name).into(),)*
                other => format!("errno {other}"),
            }
        }
    };
}

errnos! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST EXDEV
    ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM ERANGE EDEADLK
    ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM ENODATA ETIME EOVERFLOW EBADFD EUSERS ENOTSOCK EDESTADDRREQ
    EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE
    EADDRNOTAVAIL ENETDOWN ENETUNREACH ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT
    ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EDQUOT ECANCELED EOWNERDEAD ENOTRECOVERABLE
}
