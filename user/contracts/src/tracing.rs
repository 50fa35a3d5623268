//! Threads that a test traces with ptrace(2).

use std::fmt;

use libc::{SIGSTOP, WNOHANG};

use crate::process::{self, Status, child};
use crate::say;
use crate::signal;
use crate::sys::{Ret, sys, zeroed};

pub const TRACEME: i32 = 0;
pub const PEEKDATA: i32 = 2;
pub const POKETEXT: i32 = 4;
pub const POKEDATA: i32 = 5;
pub const CONT: i32 = 7;
pub const KILL: i32 = 8;
pub const SINGLESTEP: i32 = 9;
pub const ATTACH: i32 = 16;
pub const DETACH: i32 = 17;
pub const SYSCALL: i32 = 24;
pub const SYSEMU: i32 = 31;
pub const SETOPTIONS: i32 = 0x4200;
pub const GETEVENTMSG: i32 = 0x4201;
pub const GETSIGINFO: i32 = 0x4202;
pub const SETSIGINFO: i32 = 0x4203;
pub const GETREGSET: i32 = 0x4204;
pub const SETREGSET: i32 = 0x4205;
pub const SEIZE: i32 = 0x4206;
pub const INTERRUPT: i32 = 0x4207;
pub const LISTEN: i32 = 0x4208;
pub const PEEKSIGINFO: i32 = 0x4209;
pub const GETSIGMASK: i32 = 0x420a;
pub const SETSIGMASK: i32 = 0x420b;
pub const GET_SYSCALL_INFO: i32 = 0x420e;

pub const SYSGOOD: usize = 1;
pub const TRACE_FORK: usize = 2;
pub const TRACE_VFORK: usize = 4;
pub const TRACE_CLONE: usize = 8;
pub const TRACE_EXEC: usize = 16;
pub const TRACE_VFORK_DONE: usize = 32;
pub const TRACE_EXIT: usize = 64;
pub const EXITKILL: usize = 1 << 20;

/// __WALL.
pub const WALL: i32 = 0x4000_0000;

pub const GENERAL: i32 = 1;
pub const FLOATING: i32 = 2;
pub const THREAD_POINTER: i32 = 0x401;
pub const CALL_NUMBER: i32 = 0x404;

/// ptrace(2): a request of those above, the thread, and two words.
macro_rules! ptrace {
    ($request:expr, $pid:expr, $addr:expr, $data:expr) => {
        $crate::sys::sys!(SYS_ptrace, $request, $pid, $addr, $data)
    };
}
pub(crate) use ptrace;

/// A child that is traced and runs `body` when its first stop is over.
pub fn tracee(body: impl FnOnce() -> i32) -> i32 {
    let pid = child(|| {
        ptrace!(TRACEME, 0, 0, 0).need();
        signal::kill_self(SIGSTOP);
        body()
    });
    let first = wait(pid);
    if first != Status::Stopped(SIGSTOP) {
        say!("not stopped at first: {first}");
    }
    pid
}

/// A child that does nothing but wait for signals.
pub fn idle() -> i32 {
    loop {
        sys!(SYS_nanosleep, &libc::timespec { tv_sec: 100, tv_nsec: 0 }, 0);
    }
}

/// Waits for any change of a tracee.
pub fn wait(pid: i32) -> Status {
    process::wait_for(pid, WALL)
}

/// A change that there is now.
pub fn news(pid: i32) -> String {
    let mut status = 0i32;
    match sys!(SYS_wait4, pid, &mut status, WNOHANG | WALL, 0) {
        Ret(0) => "nothing".into(),
        Ret(1..) => Status::from_wait(status).to_string(),
        error => error.to_string(),
    }
}

/// Resumes a tracee and says what comes next.
pub fn resume(request: i32, pid: i32, signal: i32) -> String {
    match ptrace!(request, pid, 0, signal) {
        Ret(0) => wait(pid).to_string(),
        error => error.to_string(),
    }
}

/// Ends a tracee, whatever it does, and waits for all of its threads.
pub fn end(pid: i32) {
    process::kill(pid, libc::SIGKILL);
    let mut status = 0i32;
    while let Ret(ended @ 1..) = sys!(SYS_wait4, -1, &mut status, WALL, 0) {
        if ended == i64::from(pid) && !matches!(Status::from_wait(status), Status::Stopped(_) | Status::Continued) {
            return;
        }
    }
}

/// PTRACE_GETSIGINFO in words.
pub fn info(pid: i32) -> String {
    let mut info: libc::siginfo_t = zeroed();
    let ret = ptrace!(GETSIGINFO, pid, 0, &mut info);
    if !ret.ok() {
        return ret.to_string();
    }
    // SAFETY: all kinds that tests meet have a process there, or zero.
    let from = match unsafe { info.si_pid() } {
        0 => "nobody",
        sender if sender == pid => "itself",
        sender if sender == process::pid() => "the tracer",
        _ => "another",
    };
    format!("{} code {:#x} from {from}", signal::name(info.si_signo), info.si_code)
}

pub fn message(pid: i32) -> u64 {
    let mut message = !0u64;
    ptrace!(GETEVENTMSG, pid, 0, &mut message).need();
    message
}

/// struct user_pt_regs.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Registers {
    pub x: [u64; 31],
    pub sp: u64,
    pub pc: u64,
    pub pstate: u64,
}

/// Transfers registers: what the call answers, and how long it says that they are.
pub fn set_of_registers<T>(request: i32, pid: i32, kind: i32, value: &mut T, length: usize) -> (Ret, usize) {
    let mut vector = libc::iovec { iov_base: std::ptr::from_mut(value).cast(), iov_len: length };
    let ret = ptrace!(request, pid, kind, &mut vector);
    (ret, vector.iov_len)
}

pub fn registers(pid: i32) -> Registers {
    let mut registers = Registers::default();
    set_of_registers(GETREGSET, pid, GENERAL, &mut registers, size_of::<Registers>()).0.need();
    registers
}

pub fn set_registers(pid: i32, mut registers: Registers) -> Ret {
    set_of_registers(SETREGSET, pid, GENERAL, &mut registers, size_of::<Registers>()).0
}

/// The number of the system call that a tracee is in.
pub fn call(pid: i32) -> i32 {
    let mut number = 0i32;
    set_of_registers(GETREGSET, pid, CALL_NUMBER, &mut number, 4).0.need();
    number
}

pub fn set_call(pid: i32, mut number: i32) -> Ret {
    set_of_registers(SETREGSET, pid, CALL_NUMBER, &mut number, 4).0
}

/// A line of /proc/PID/status, without its name.
pub fn status_line(pid: i32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    line.unwrap_or("-").into()
}

/// A word of the tracee's memory.
pub struct Peeked(pub Ret, pub u64);

impl fmt::Display for Peeked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.ok() { write!(f, "{:#x}", self.1) } else { self.0.fmt(f) }
    }
}

pub fn peek(pid: i32, at: usize) -> Peeked {
    let mut word = 0u64;
    let ret = ptrace!(PEEKDATA, pid, at, &mut word);
    Peeked(ret, word)
}
