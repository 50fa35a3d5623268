//! The operations by their numbers (IORING_OP_*), and what is true of all entries of one.

use linux_raw_sys::io_uring::io_uring_op as raw;

use crate::errno::{Errno, Result};

macro_rules! operations {
    ($($name:ident = $number:ident: $($traits:ident)*;)*) => {
        /// What an entry asks for.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum Op {
            $($name = raw::$number as u8),*
        }

        impl Op {
            /// EINVAL for what Linux 6.1 does not know.
            pub fn from_raw(number: u8) -> Result<Op> {
                $(if number == Op::$name as u8 {
                    return Ok(Op::$name);
                })*
                Err(Errno::EINVAL)
            }

            /// As in IORING_OP_NAME.
            pub fn name(number: u8) -> &'static str {
                $(if number == Op::$name as u8 {
                    return stringify!($number).trim_start_matches("IORING_OP_");
                })*
                "an entry that has not begun"
            }

            const fn traits(self) -> Traits {
                match self {
                    $(Op::$name => Traits { $($traits: true,)* ..Traits::NONE }),*
                }
            }
        }
    };
}

#[derive(Clone, Copy)]
struct Traits {
    /// `fd` is a file.
    file: bool,
    /// IOSQE_BUFFER_SELECT may be set.
    buffers: bool,
    /// `ioprio` means something.
    priority: bool,
    /// Allowed with IORING_SETUP_IOPOLL.
    iopoll: bool,
    /// Not there.
    missing: bool,
}

impl Traits {
    const NONE: Traits = Traits { file: false, buffers: false, priority: false, iopoll: false, missing: false };
}

operations! {
    Nop = IORING_OP_NOP: iopoll;
    Readv = IORING_OP_READV: file buffers priority iopoll;
    Writev = IORING_OP_WRITEV: file priority iopoll;
    Fsync = IORING_OP_FSYNC: file;
    ReadFixed = IORING_OP_READ_FIXED: file priority iopoll;
    WriteFixed = IORING_OP_WRITE_FIXED: file priority iopoll;
    PollAdd = IORING_OP_POLL_ADD: file;
    PollRemove = IORING_OP_POLL_REMOVE:;
    SyncFileRange = IORING_OP_SYNC_FILE_RANGE: file;
    Sendmsg = IORING_OP_SENDMSG: file priority;
    Recvmsg = IORING_OP_RECVMSG: file buffers priority;
    Timeout = IORING_OP_TIMEOUT:;
    TimeoutRemove = IORING_OP_TIMEOUT_REMOVE:;
    Accept = IORING_OP_ACCEPT: file priority;
    AsyncCancel = IORING_OP_ASYNC_CANCEL:;
    LinkTimeout = IORING_OP_LINK_TIMEOUT:;
    Connect = IORING_OP_CONNECT: file;
    Fallocate = IORING_OP_FALLOCATE: file;
    Openat = IORING_OP_OPENAT:;
    Close = IORING_OP_CLOSE:;
    FilesUpdate = IORING_OP_FILES_UPDATE: iopoll;
    Statx = IORING_OP_STATX:;
    Read = IORING_OP_READ: file buffers priority iopoll;
    Write = IORING_OP_WRITE: file priority iopoll;
    Fadvise = IORING_OP_FADVISE: file;
    Madvise = IORING_OP_MADVISE:;
    Send = IORING_OP_SEND: file priority;
    Recv = IORING_OP_RECV: file buffers priority;
    Openat2 = IORING_OP_OPENAT2:;
    EpollCtl = IORING_OP_EPOLL_CTL:;
    Splice = IORING_OP_SPLICE: file;
    ProvideBuffers = IORING_OP_PROVIDE_BUFFERS: iopoll;
    RemoveBuffers = IORING_OP_REMOVE_BUFFERS: iopoll;
    Tee = IORING_OP_TEE: file;
    Shutdown = IORING_OP_SHUTDOWN: file;
    Renameat = IORING_OP_RENAMEAT:;
    Unlinkat = IORING_OP_UNLINKAT:;
    Mkdirat = IORING_OP_MKDIRAT:;
    Symlinkat = IORING_OP_SYMLINKAT:;
    Linkat = IORING_OP_LINKAT:;
    MsgRing = IORING_OP_MSG_RING: file iopoll;
    Fsetxattr = IORING_OP_FSETXATTR: file;
    Setxattr = IORING_OP_SETXATTR:;
    Fgetxattr = IORING_OP_FGETXATTR: file;
    Getxattr = IORING_OP_GETXATTR:;
    Socket = IORING_OP_SOCKET:;
    UringCmd = IORING_OP_URING_CMD: file iopoll missing;
    SendZc = IORING_OP_SEND_ZC: file priority missing;
    SendmsgZc = IORING_OP_SENDMSG_ZC: file priority missing;
}

impl Op {
    /// One more than the last number.
    pub const LAST: u8 = Op::SendmsgZc as u8 + 1;

    pub fn has_file(self) -> bool {
        self.traits().file
    }

    pub fn selects_buffers(self) -> bool {
        self.traits().buffers
    }

    pub fn uses_priority(self) -> bool {
        self.traits().priority
    }

    pub fn can_be_polled(self) -> bool {
        self.traits().iopoll
    }

    /// Does IORING_REGISTER_PROBE say that it is there?
    pub fn is_there(self) -> bool {
        !self.traits().missing
    }
}
