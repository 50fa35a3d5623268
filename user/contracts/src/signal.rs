//! Signals as the kernel's own calls have them: sets of 64 bits, actions without a library's trampoline.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use crate::sys::{Ret, sys, zeroed};

/// `struct sigaction` of the kernel.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Action {
    pub handler: usize,
    pub flags: u64,
    pub restorer: usize,
    pub mask: u64,
}

pub type Handler = extern "C" fn(i32, *const libc::siginfo_t, *mut libc::c_void);

/// A set with this signal in it.
pub const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// What an action is set to and what it was.
pub fn action(signal: i32, new: Option<&Action>, old: Option<&mut Action>) -> Ret {
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    let old = old.map_or(std::ptr::null_mut(), std::ptr::from_mut);
    sys!(SYS_rt_sigaction, signal, new, old, 8)
}

pub fn handle(signal: i32, handler: Handler, flags: i32) -> Ret {
    let flags = u64::from(flags.cast_unsigned());
    let new = Action { handler: handler as usize, flags: flags | libc::SA_SIGINFO as u64, restorer: 0, mask: 0 };
    action(signal, Some(&new), None)
}

pub fn default(signal: i32) -> Ret {
    action(signal, Some(&Action { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: 0 }), None)
}

pub fn ignore(signal: i32) -> Ret {
    action(signal, Some(&Action { handler: libc::SIG_IGN, flags: 0, restorer: 0, mask: 0 }), None)
}

/// Changes the mask (SIG_BLOCK, SIG_UNBLOCK, SIG_SETMASK) and returns the old one.
pub fn mask(how: i32, set: u64) -> u64 {
    let mut old = 0u64;
    sys!(SYS_rt_sigprocmask, how, &set, &mut old, 8);
    old
}

pub fn block(signal: i32) -> u64 {
    mask(libc::SIG_BLOCK, bit(signal))
}

pub fn unblock(signal: i32) -> u64 {
    mask(libc::SIG_UNBLOCK, bit(signal))
}

pub fn pending() -> u64 {
    let mut set = 0u64;
    sys!(SYS_rt_sigpending, &mut set, 8);
    set
}

/// Takes a signal out of the queue, waiting for so many milliseconds at most.
pub fn take(set: u64, milliseconds: i64) -> (Ret, libc::siginfo_t) {
    let mut info: libc::siginfo_t = zeroed();
    let time = libc::timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 };
    (sys!(SYS_rt_sigtimedwait, &set, &mut info, &time, 8), info)
}

pub fn kill_self(signal: i32) -> Ret {
    sys!(SYS_tgkill, sys!(SYS_getpid).0, sys!(SYS_gettid).0, signal)
}

/// How often [`count`] ran, and what it saw last.
pub static CAUGHT: AtomicI32 = AtomicI32::new(0);
pub static LAST: AtomicI32 = AtomicI32::new(0);
pub static LAST_CODE: AtomicI32 = AtomicI32::new(0);
pub static LAST_ADDRESS: AtomicU64 = AtomicU64::new(0);

/// What a handler of arm64 gets as its third argument.
#[repr(C)]
pub struct Context {
    pub flags: u64,
    pub link: u64,
    pub stack: libc::stack_t,
    pub mask: u64,
    unused: [u64; 16],
    pub fault_address: u64,
    pub registers: [u64; 31],
    pub sp: u64,
    pub pc: u64,
    pub pstate: u64,
}

/// The context of a running handler.
pub fn context<'a>(at: *mut libc::c_void) -> &'a mut Context {
    // SAFETY: the kernel hands a live frame to a handler, and nobody else looks at it.
    unsafe { &mut *at.cast() }
}

/// A handler that counts.
pub extern "C" fn count(signal: i32, info: *const libc::siginfo_t, _: *mut libc::c_void) {
    CAUGHT.fetch_add(1, Ordering::SeqCst);
    LAST.store(signal, Ordering::SeqCst);
    // SAFETY: the kernel hands a live record to a handler with SA_SIGINFO, and only such handlers are installed.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as u64) };
    LAST_CODE.store(code, Ordering::SeqCst);
    LAST_ADDRESS.store(address, Ordering::SeqCst);
}

pub fn caught() -> i32 {
    CAUGHT.swap(0, Ordering::SeqCst)
}

macro_rules! names {
    ($($name:ident)*) => {
        /// The name of a signal.
        pub fn name(signal: i32) -> String {
            match signal {
                $(libc::$name => stringify!($name).into(),)*
                32..=64 => format!("SIGRT{signal}"),
                other => format!("signal {other}"),
            }
        }
    };
}

names! {
    SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE SIGALRM SIGTERM
    SIGSTKFLT SIGCHLD SIGCONT SIGSTOP SIGTSTP SIGTTIN SIGTTOU SIGURG SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIGWINCH SIGIO
    SIGPWR SIGSYS
}

/// The names of the signals in a set.
pub fn names(set: u64) -> String {
    let names: Vec<String> = (1..=64).filter(|signal| set & bit(*signal) != 0).map(name).collect();
    format!("{{{}}}", names.join(" "))
}
