//! What programs and the kernel share: structures and flags of io_uring_setup(2), io_uring_enter(2), io_uring_register(2).

use bitflags::bitflags;
use linux_raw_sys::io_uring as raw;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// IORING_MAX_ENTRIES and IORING_MAX_CQ_ENTRIES of Linux.
pub const MAX_ENTRIES: u32 = 32_768;
pub const MAX_CQ_ENTRIES: u32 = 2 * MAX_ENTRIES;

bitflags! {
    /// IORING_SETUP_*.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Setup: u32 {
        const IOPOLL = raw::IORING_SETUP_IOPOLL;
        const SQPOLL = raw::IORING_SETUP_SQPOLL;
        const SQ_AFF = raw::IORING_SETUP_SQ_AFF;
        const CQSIZE = raw::IORING_SETUP_CQSIZE;
        const CLAMP = raw::IORING_SETUP_CLAMP;
        const ATTACH_WQ = raw::IORING_SETUP_ATTACH_WQ;
        const R_DISABLED = raw::IORING_SETUP_R_DISABLED;
        const SUBMIT_ALL = raw::IORING_SETUP_SUBMIT_ALL;
        const COOP_TASKRUN = raw::IORING_SETUP_COOP_TASKRUN;
        const TASKRUN_FLAG = raw::IORING_SETUP_TASKRUN_FLAG;
        const SQE128 = raw::IORING_SETUP_SQE128;
        const CQE32 = raw::IORING_SETUP_CQE32;
        const SINGLE_ISSUER = raw::IORING_SETUP_SINGLE_ISSUER;
        const DEFER_TASKRUN = raw::IORING_SETUP_DEFER_TASKRUN;
    }
}

bitflags! {
    /// IORING_ENTER_*.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Enter: u32 {
        const GETEVENTS = raw::IORING_ENTER_GETEVENTS;
        const SQ_WAKEUP = raw::IORING_ENTER_SQ_WAKEUP;
        const SQ_WAIT = raw::IORING_ENTER_SQ_WAIT;
        const EXT_ARG = raw::IORING_ENTER_EXT_ARG;
        const REGISTERED_RING = raw::IORING_ENTER_REGISTERED_RING;
    }
}

bitflags! {
    /// IOSQE_*: flags of an entry.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Flags: u8 {
        const FIXED_FILE = 1;
        const IO_DRAIN = 2;
        const IO_LINK = 4;
        const IO_HARDLINK = 8;
        const ASYNC = 16;
        const BUFFER_SELECT = 32;
        const CQE_SKIP = 64;
    }
}

impl Flags {
    pub const LINKS: Flags = Flags::IO_LINK.union(Flags::IO_HARDLINK);
}

/// What is promised to programs. Resources have no tags, so IORING_FEAT_RSRC_TAGS is not among them.
pub const FEATURES: u32 = raw::IORING_FEAT_SINGLE_MMAP
    | raw::IORING_FEAT_NODROP
    | raw::IORING_FEAT_SUBMIT_STABLE
    | raw::IORING_FEAT_RW_CUR_POS
    | raw::IORING_FEAT_CUR_PERSONALITY
    | raw::IORING_FEAT_FAST_POLL
    | raw::IORING_FEAT_POLL_32BITS
    | raw::IORING_FEAT_EXT_ARG
    | raw::IORING_FEAT_NATIVE_WORKERS
    | raw::IORING_FEAT_CQE_SKIP
    | raw::IORING_FEAT_LINKED_FILE;

/// `struct io_sqring_offsets`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SqOffsets {
    pub head: u32,
    pub tail: u32,
    pub mask: u32,
    pub entries: u32,
    pub flags: u32,
    pub dropped: u32,
    pub array: u32,
    pub resv: [u32; 3],
}

/// `struct io_cqring_offsets`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CqOffsets {
    pub head: u32,
    pub tail: u32,
    pub mask: u32,
    pub entries: u32,
    pub overflow: u32,
    pub cqes: u32,
    pub flags: u32,
    pub resv: [u32; 3],
}

/// `struct io_uring_params`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Params {
    pub sq_entries: u32,
    pub cq_entries: u32,
    pub flags: u32,
    pub sq_thread_cpu: u32,
    pub sq_thread_idle: u32,
    pub features: u32,
    pub wq_fd: u32,
    pub resv: [u32; 3],
    pub sq_off: SqOffsets,
    pub cq_off: CqOffsets,
}

const _: () = assert!(size_of::<Params>() == 120);

/// `struct io_uring_sqe`. The names are those of the first member of each union.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Sqe {
    pub opcode: u8,
    pub flags: u8,
    pub ioprio: u16,
    pub fd: i32,
    pub off: u64,
    pub addr: u64,
    pub len: u32,
    /// rw_flags and its kin.
    pub op_flags: u32,
    pub user_data: u64,
    /// Or the buffer group.
    pub buf_index: u16,
    pub personality: u16,
    /// splice_fd_in, file_index; addr_len in its low half.
    pub file_index: u32,
    pub addr3: u64,
    pub pad: u64,
}

pub const SQE_SIZE: usize = size_of::<Sqe>();
const _: () = assert!(SQE_SIZE == 64);

impl Sqe {
    pub fn has(&self, flag: Flags) -> bool {
        self.flags & flag.bits() != 0
    }

    /// Is it not to be begun at once?
    pub fn waits_to_begin(&self) -> bool {
        self.flags & (Flags::ASYNC | Flags::IO_DRAIN).bits() != 0
    }

    /// Is another entry to be begun after this one?
    pub fn is_linked(&self) -> bool {
        self.has(Flags::LINKS)
    }
}

/// `struct io_uring_cqe`, without the part that IORING_SETUP_CQE32 adds, which is always 0.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Cqe {
    pub user_data: u64,
    pub res: i32,
    pub flags: u32,
}

pub const CQE_SIZE: usize = size_of::<Cqe>();
const _: () = assert!(CQE_SIZE == 16);

/// Offsets in the first page, as in Linux's `struct io_rings`: what has one writer has a cache line.
pub mod at {
    pub const SQ_HEAD: usize = 0;
    pub const SQ_TAIL: usize = 64;
    pub const CQ_HEAD: usize = 128;
    pub const CQ_TAIL: usize = 192;
    pub const SQ_MASK: usize = 256;
    pub const CQ_MASK: usize = 260;
    pub const SQ_ENTRIES: usize = 264;
    pub const CQ_ENTRIES: usize = 268;
    pub const SQ_DROPPED: usize = 272;
    pub const SQ_FLAGS: usize = 276;
    pub const CQ_FLAGS: usize = 280;
    pub const CQ_OVERFLOW: usize = 284;
    pub const CQES: usize = 320;
}

/// `struct io_uring_getevents_arg`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct GetEventsArg {
    pub sigmask: u64,
    pub sigmask_size: u32,
    pub pad: u32,
    pub ts: u64,
}

/// What an entry came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    pub res: i32,
    /// IORING_CQE_F_*.
    pub flags: u32,
    /// Entries linked to it are cancelled.
    pub failed: bool,
}

impl Outcome {
    /// Fails if it is negative.
    pub fn of(res: i32) -> Self {
        Outcome { res, flags: 0, failed: res < 0 }
    }

    /// A success whatever the number.
    pub fn good(res: i32) -> Self {
        Outcome { res, flags: 0, failed: false }
    }
}
