//! Linux error numbers (errno(3)) as a type.

use core::fmt;
use linux_raw_sys::errno as raw;

/// A Linux error number, always between 1 and 4095.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(u16);

/// What everything in the kernel answers that can fail.
pub type Result<T, E = Errno> = core::result::Result<T, E>;

macro_rules! errnos {
    ($($name:ident)*) => {
        impl Errno {
            $(pub const $name: Errno = Errno(raw::$name as u16);)*

            /// The symbolic name, as `strace` prints it.
            #[allow(unreachable_patterns)]
            pub const fn name(self) -> &'static str {
                match self { $(Errno::$name => stringify!($name),)* _ => "E?" }
            }
        }
    };
}

errnos! {
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK EBUSY EEXIST
    EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE EROFS EMLINK EPIPE EDOM
    ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM ENODATA ETIME EOVERFLOW EPROTO EBADMSG
    EILSEQ EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP
    EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ECONNABORTED ECONNRESET ENOBUFS EISCONN
    ENOTCONN ESHUTDOWN ETOOMANYREFS ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EDQUOT ECANCELED
    EUCLEAN EOWNERDEAD ENOTRECOVERABLE ELIBBAD ELIBACC EBADFD EBADR ENONET
}

impl Errno {
    pub const fn from_raw(number: i32) -> Option<Errno> {
        if number > 0 && number < 4096 { Some(Errno(number as u16)) } else { None }
    }

    /// The value that a system call leaves in x0: minus the error number.
    pub const fn to_ret(self) -> u64 {
        (-(self.0 as i64)) as u64
    }

    /// The inverse of [`Errno::to_ret`]; `None` if it is not an error.
    pub fn from_ret(ret: u64) -> Option<Errno> {
        let number = ret.wrapping_neg();
        (1..=4095).contains(&number).then_some(Errno(number as u16))
    }

    pub const fn get(self) -> i32 {
        self.0 as i32
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
