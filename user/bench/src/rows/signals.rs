//! Signals: installing handlers, and the way to them and back.

use std::ffi::c_void;
use std::ptr;

use super::{Row, row};
use crate::measure::{Bench, Result};
use crate::peer::{Kind, Peer};
use crate::sys;

pub const ROWS: &[Row] = &[
    row("signal_install", signal_install),
    row("signal_self", signal_self),
    row("sigsegv_roundtrip", sigsegv),
    row("signal_pingpong_handlers", |bench| ping_pong(bench, suspend)),
    row("signal_pingpong_sigwait", |bench| ping_pong(bench, wait_for)),
];

extern "C" fn nothing(_signal: i32) {}

fn handle(signal: i32, handler: usize, flags: i32) -> Result {
    // SAFETY: all fields may be zero, and the handlers here do what handlers may do.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        libc::sigaction(signal, &action, ptr::null_mut())
    };
    sys::check("sigaction", result as isize).map(drop)
}

fn handle_nothing(signal: i32) -> Result {
    handle(signal, nothing as extern "C" fn(i32) as usize, 0)
}

/// As the kernel takes it: handler, flags, restorer, mask. No handler of this row ever runs.
fn signal_install(bench: &Bench) -> Result<f64> {
    let action = [nothing as extern "C" fn(i32) as usize, 0, 0, 0];
    let arguments = [libc::SIGUSR1 as usize, action.as_ptr() as usize, 0, 8];
    bench.per_operation(10_000, || sys::call("rt_sigaction", libc::SYS_rt_sigaction, arguments).map(drop))
}

fn signal_self(bench: &Bench) -> Result<f64> {
    handle_nothing(libc::SIGUSR1)?;
    let process = sys::call("getpid", libc::SYS_getpid, [])?;
    bench.per_operation(5_000, || sys::call("kill", libc::SYS_kill, [process, libc::SIGUSR1 as usize]).map(drop))
}

/// Goes on behind the instruction that has faulted.
#[cfg(target_arch = "aarch64")]
extern "C" fn skip(_signal: i32, _info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel hands a context to a handler with SA_SIGINFO.
    unsafe { (*context.cast::<libc::ucontext_t>()).uc_mcontext.pc += 4 };
}

#[cfg(target_arch = "aarch64")]
fn sigsegv(bench: &Bench) -> Result<f64> {
    handle(libc::SIGSEGV, skip as extern "C" fn(i32, *mut libc::siginfo_t, *mut c_void) as usize, libc::SA_SIGINFO)?;
    let page = sys::map(4096, libc::MAP_PRIVATE)?;
    sys::call("mprotect", libc::SYS_mprotect, [page as usize, 4096, libc::PROT_NONE as usize])?;
    bench.per_operation(5_000, || {
        // SAFETY: the handler skips the store.
        unsafe { std::arch::asm!("str wzr, [{}]", in(reg) page) };
        Ok(())
    })
}

#[cfg(not(target_arch = "aarch64"))]
fn sigsegv(_bench: &Bench) -> Result<f64> {
    let _: Option<*mut c_void> = None;
    crate::measure::Stop::failed("only on arm64")
}

/// The kernel's mask with one signal.
fn mask_of(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Lets a signal in that is blocked elsewhere, and runs its handler.
fn suspend() -> Result {
    let none = 0u64;
    let result = sys::raw(libc::SYS_rt_sigsuspend, [&raw const none as usize, 8]);
    sys::expect(result == -libc::EINTR as isize, "sigsuspend")
}

/// Takes a signal without a handler.
fn wait_for() -> Result {
    let mask = mask_of(libc::SIGUSR1);
    sys::call("rt_sigtimedwait", libc::SYS_rt_sigtimedwait, [&raw const mask as usize, 0, 0, 8]).map(drop)
}

/// Two processes that send each other SIGUSR1 and wait for it.
fn ping_pong(bench: &Bench, wait: fn() -> Result) -> Result<f64> {
    const COUNT: u64 = 2_000;
    handle_nothing(libc::SIGUSR1)?;
    let blocked = mask_of(libc::SIGUSR1);
    let arguments = [libc::SIG_BLOCK as usize, &raw const blocked as usize, 0, 8];
    sys::call("rt_sigprocmask", libc::SYS_rt_sigprocmask, arguments)?;
    let send = |process: usize| sys::call("kill", libc::SYS_kill, [process, libc::SIGUSR1 as usize]).map(drop);
    let here = sys::call("getpid", libc::SYS_getpid, [])?;
    let all = bench.all(COUNT);
    let peer = Peer::start(Kind::Process, move || {
        (0..all).try_for_each(|_| {
            wait()?;
            send(here)
        })
    })?;
    let Peer::Process(there) = peer else { return crate::measure::Stop::failed("no process") };
    let result = bench.per_exchange(COUNT, || {
        send(there as usize)?;
        wait()
    });
    peer.join()?;
    result
}
