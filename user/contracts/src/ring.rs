//! A small library for io_uring: a ring, its entries, and its completions as text.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{MAP_SHARED, PROT_READ, PROT_WRITE};

use crate::memory;
use crate::sys::{Ret, errno_name, sys};

/// IORING_OP_*.
pub mod op {
    pub const NOP: u8 = 0;
    pub const READV: u8 = 1;
    pub const WRITEV: u8 = 2;
    pub const FSYNC: u8 = 3;
    pub const READ_FIXED: u8 = 4;
    pub const WRITE_FIXED: u8 = 5;
    pub const POLL_ADD: u8 = 6;
    pub const POLL_REMOVE: u8 = 7;
    pub const SYNC_FILE_RANGE: u8 = 8;
    pub const SENDMSG: u8 = 9;
    pub const RECVMSG: u8 = 10;
    pub const TIMEOUT: u8 = 11;
    pub const TIMEOUT_REMOVE: u8 = 12;
    pub const ACCEPT: u8 = 13;
    pub const ASYNC_CANCEL: u8 = 14;
    pub const LINK_TIMEOUT: u8 = 15;
    pub const CONNECT: u8 = 16;
    pub const FALLOCATE: u8 = 17;
    pub const OPENAT: u8 = 18;
    pub const CLOSE: u8 = 19;
    pub const FILES_UPDATE: u8 = 20;
    pub const STATX: u8 = 21;
    pub const READ: u8 = 22;
    pub const WRITE: u8 = 23;
    pub const FADVISE: u8 = 24;
    pub const MADVISE: u8 = 25;
    pub const SEND: u8 = 26;
    pub const RECV: u8 = 27;
    pub const OPENAT2: u8 = 28;
    pub const EPOLL_CTL: u8 = 29;
    pub const SPLICE: u8 = 30;
    pub const PROVIDE_BUFFERS: u8 = 31;
    pub const REMOVE_BUFFERS: u8 = 32;
    pub const TEE: u8 = 33;
    pub const SHUTDOWN: u8 = 34;
    pub const RENAMEAT: u8 = 35;
    pub const UNLINKAT: u8 = 36;
    pub const MKDIRAT: u8 = 37;
    pub const SYMLINKAT: u8 = 38;
    pub const LINKAT: u8 = 39;
    pub const MSG_RING: u8 = 40;
    pub const SOCKET: u8 = 45;
}

pub const FIXED_FILE: u8 = 1;
pub const IO_DRAIN: u8 = 2;
pub const IO_LINK: u8 = 4;
pub const IO_HARDLINK: u8 = 8;
pub const ASYNC: u8 = 16;
pub const BUFFER_SELECT: u8 = 32;
pub const CQE_SKIP: u8 = 64;

pub const GETEVENTS: u32 = 1;
pub const EXT_ARG: u32 = 8;
pub const REGISTERED_RING: u32 = 16;

pub const SETUP_CQSIZE: u32 = 8;
pub const SETUP_CLAMP: u32 = 16;
pub const SETUP_R_DISABLED: u32 = 64;
pub const SETUP_SUBMIT_ALL: u32 = 128;
pub const SETUP_COOP_TASKRUN: u32 = 256;
pub const SETUP_TASKRUN_FLAG: u32 = 512;
pub const SETUP_SQE128: u32 = 1024;
pub const SETUP_CQE32: u32 = 2048;
pub const SETUP_SINGLE_ISSUER: u32 = 4096;
pub const SETUP_DEFER_TASKRUN: u32 = 8192;

pub const SQ_CQ_OVERFLOW: u32 = 2;

/// `struct io_uring_params`: three groups of words.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Params {
    pub sq_entries: u32,
    pub cq_entries: u32,
    pub flags: u32,
    pub sq_thread_cpu: u32,
    pub sq_thread_idle: u32,
    pub features: u32,
    pub wq_fd: u32,
    pub resv: [u32; 3],
    /// head, tail, mask, entries, flags, dropped, array
    pub sq_off: [u32; 10],
    /// head, tail, mask, entries, overflow, cqes, flags
    pub cq_off: [u32; 10],
}

/// `struct io_uring_sqe`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Sqe {
    pub opcode: u8,
    pub flags: u8,
    pub ioprio: u16,
    pub fd: i32,
    pub off: u64,
    pub addr: u64,
    pub len: u32,
    pub op_flags: u32,
    pub user_data: u64,
    pub buf_index: u16,
    pub personality: u16,
    pub file_index: u32,
    pub addr3: u64,
    pub pad: u64,
}

/// An entry; the rest is set by `..entry(…)`.
pub fn entry(opcode: u8, user_data: u64) -> Sqe {
    Sqe { opcode, user_data, fd: -1, ..Sqe::default() }
}

impl Sqe {
    pub fn with(self, flags: u8) -> Sqe {
        Sqe { flags: self.flags | flags, ..self }
    }
}

/// Reading or writing at the file's own position.
pub const HERE: u64 = u64::MAX;

pub fn read_into(fd: i32, buffer: &mut [u8], user_data: u64) -> Sqe {
    let (addr, len) = (buffer.as_mut_ptr() as u64, buffer.len() as u32);
    Sqe { fd, addr, len, off: HERE, ..entry(op::READ, user_data) }
}

pub fn write_from(fd: i32, text: &str, user_data: u64) -> Sqe {
    Sqe { fd, addr: text.as_ptr() as u64, len: text.len() as u32, off: HERE, ..entry(op::WRITE, user_data) }
}

/// `struct __kernel_timespec` of so many milliseconds.
pub fn span(milliseconds: i64) -> [i64; 2] {
    [milliseconds / 1000, milliseconds % 1000 * 1_000_000]
}

pub fn timeout(time: &[i64; 2], count: u64, flags: u32, user_data: u64) -> Sqe {
    let (addr, op_flags) = (time.as_ptr() as u64, flags);
    Sqe { addr, len: 1, off: count, op_flags, ..entry(op::TIMEOUT, user_data) }
}

pub fn poll_add(fd: i32, events: i16, flags: u32, user_data: u64) -> Sqe {
    Sqe { fd, op_flags: events as u16 as u32, len: flags, ..entry(op::POLL_ADD, user_data) }
}

pub fn cancel(target: u64, flags: u32, user_data: u64) -> Sqe {
    Sqe { addr: target, op_flags: flags, ..entry(op::ASYNC_CANCEL, user_data) }
}

/// A completion: "user data: result flags".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cqe {
    pub user_data: u64,
    pub res: i32,
    pub flags: u32,
}

impl fmt::Display for Cqe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.user_data)?;
        if self.res < 0 {
            f.write_str(&errno_name(-self.res))?
        } else {
            self.res.fmt(f)?
        }
        if self.flags != 0 { write!(f, " {:#x}", self.flags) } else { Ok(()) }
    }
}

pub fn show(completions: &[Cqe]) -> String {
    let texts: Vec<String> = completions.iter().map(ToString::to_string).collect();
    format!("[{}]", texts.join(", "))
}

pub fn setup(entries: u32, params: &mut Params) -> Ret {
    sys!(SYS_io_uring_setup, entries, params)
}

pub struct Ring {
    pub fd: i32,
    pub params: Params,
    rings: *mut u8,
    sqes: *mut Sqe,
    sqe_words: usize,
    cqe_words: usize,
}

impl Ring {
    pub fn new(entries: u32, flags: u32) -> Ring {
        Ring::with(entries, Params { flags, ..Params::default() })
    }

    #[track_caller]
    pub fn with(entries: u32, mut params: Params) -> Ring {
        let fd = setup(entries, &mut params).fd();
        let cqe_words = if params.flags & SETUP_CQE32 != 0 { 2 } else { 1 };
        let sqe_words = if params.flags & SETUP_SQE128 != 0 { 2 } else { 1 };
        let size = params.sq_off[6] as usize + 4 * params.sq_entries as usize;
        let map = |size: usize, offset: i64| {
            memory::map(size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset).need() as *mut u8
        };
        let rings = map(size, 0);
        let sqes = map(64 * sqe_words * params.sq_entries as usize, 0x1000_0000).cast();
        Ring { fd, params, rings, sqes, sqe_words, cqe_words }
    }

    /// A word of the first page.
    pub fn word(&self, offset: u32) -> &AtomicU32 {
        // SAFETY: an offset that the kernel gave, within the mapping, which stays.
        unsafe { &*self.rings.add(offset as usize).cast() }
    }

    pub fn sq_flags(&self) -> u32 {
        self.word(self.params.sq_off[4]).load(Ordering::SeqCst)
    }

    /// Puts an entry into the ring, without telling the kernel.
    pub fn push(&self, sqe: Sqe) {
        let tail = self.word(self.params.sq_off[1]);
        let at = tail.load(Ordering::Relaxed);
        let slot = at & (self.params.sq_entries - 1);
        // SAFETY: within the mapping; the kernel reads it only when it is told.
        unsafe { self.sqes.add(slot as usize * self.sqe_words).write_volatile(sqe) };
        self.word(self.params.sq_off[6] + 4 * slot).store(slot, Ordering::Relaxed);
        tail.store(at.wrapping_add(1), Ordering::Release);
    }

    pub fn enter(&self, submit: u32, wait: u32, flags: u32) -> Ret {
        sys!(SYS_io_uring_enter, self.fd, submit, wait, flags, 0, 8)
    }

    /// Submits these, and waits for so many completions.
    pub fn submit(&self, entries: &[Sqe], wait: u32) -> Ret {
        entries.iter().for_each(|sqe| self.push(*sqe));
        self.enter(entries.len() as u32, wait, GETEVENTS)
    }

    /// Waits for so many.
    pub fn wait(&self, count: u32) -> Ret {
        self.enter(0, count, GETEVENTS)
    }

    /// Takes a completion.
    pub fn take(&self) -> Option<Cqe> {
        let (head, tail) = (self.word(self.params.cq_off[0]), self.word(self.params.cq_off[1]));
        let at = head.load(Ordering::Relaxed);
        if at == tail.load(Ordering::Acquire) {
            return None;
        }
        let slot = (at & (self.params.cq_entries - 1)) as usize * self.cqe_words;
        // SAFETY: within the mapping; the kernel has written it.
        let cqe =
            unsafe { self.rings.add(self.params.cq_off[5] as usize).cast::<[u64; 2]>().add(slot).read_volatile() };
        head.store(at.wrapping_add(1), Ordering::Release);
        Some(Cqe { user_data: cqe[0], res: cqe[1] as i32, flags: (cqe[1] >> 32) as u32 })
    }

    /// Takes all that are there.
    pub fn all(&self) -> Vec<Cqe> {
        std::iter::from_fn(|| self.take()).collect()
    }

    /// The same, as text.
    pub fn shown(&self) -> String {
        show(&self.all())
    }

    /// The same, and what the first of them has read into `buffer`.
    pub fn take_text(&self, buffer: &[u8]) -> String {
        let all = self.all();
        let len = all.first().map_or(0, |cqe| cqe.res.max(0) as usize);
        format!("{} {:?}", show(&all), String::from_utf8_lossy(&buffer[..len.min(buffer.len())]))
    }

    /// The same, by user data: for those that come in any order.
    pub fn sorted(&self) -> String {
        let mut all = self.all();
        all.sort();
        show(&all)
    }

    /// Submits, waits for as many completions, and shows them in order.
    pub fn run(&self, entries: &[Sqe]) -> String {
        self.expect(entries, entries.len() as u32)
    }

    /// The same with another number of completions.
    pub fn expect(&self, entries: &[Sqe], completions: u32) -> String {
        let ret = self.submit(entries, completions);
        let texts = self.shown();
        if ret.0 == entries.len() as i64 { texts } else { format!("{ret} {texts}") }
    }

    pub fn register(&self, opcode: u32, arg: usize, count: u32) -> Ret {
        sys!(SYS_io_uring_register, self.fd, opcode, arg, count)
    }
}
