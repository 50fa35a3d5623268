//! ptrace(2): stops at system calls, and what a tracer makes of them.

use libc::*;

use crate::process::{self, kill};
use crate::signal;
use crate::sys::{Ret, errno_name, sys};
use crate::tracing::*;
use crate::tracing::{ptrace, wait};
use crate::{say, tests};

tests! {
    enter_and_leave, without_sysgood, direction, information, information_elsewhere, number_changed, skipped, call_minus_one, argument_changed,
    answer_changed, left_untraced, signal_at_a_call, interrupted_call, interrupted_goes_on, emulated, fork_between, exec_between, numbers_outside, exit_has_no_return, return_from_handler, answer_of_a_handler,
}

/// Resumes to the next stop at a system call, past signals, which are passed.
fn next(pid: i32) -> String {
    resume(SYSCALL, pid, 0)
}

/// To the entry of this call.
fn until_call(pid: i32, number: i64) {
    for _ in 0..200 {
        let stop = next(pid);
        if stop == "stopped by signal 133" && i64::from(call(pid)) == number && registers(pid).x[7] == 0 {
            return;
        }
        if !stop.starts_with("stopped") {
            say!("not found: {stop}");
            return;
        }
    }
}

fn good(body: impl FnOnce() -> i32) -> i32 {
    let pid = tracee(body);
    ptrace!(SETOPTIONS, pid, 0, SYSGOOD).need();
    pid
}

fn answer(pid: i32) -> String {
    Ret(registers(pid).x[0] as i64).to_string()
}

fn enter_and_leave() {
    let pid = good(|| i32::from(sys!(SYS_umask, 0o12) == Ret(0o22)));
    until_call(pid, SYS_umask);
    let entry = registers(pid);
    say!("{}: x0 {:#o}, x8 {}", info(pid), entry.x[0], entry.x[8]);
    say!("{}, {}", next(pid), info(pid));
    let exit = registers(pid);
    say!("x0 {:#o}, the same place: {}", exit.x[0], exit.pc == entry.pc);
    end(pid);
}

fn without_sysgood() {
    let pid = tracee(|| {
        sys!(SYS_umask, 0o12);
        0
    });
    // The return from tgkill, then the call.
    say!("{}, {}", next(pid), info(pid));
    end(pid);
}

fn direction() {
    let pid = good(|| {
        sys!(SYS_umask, 0o12);
        0
    });
    until_call(pid, SYS_umask);
    let mut entry = registers(pid);
    say!("x7 on the way in: {}", entry.x[7]);
    entry.x[7] = 77;
    set_registers(pid, entry).need();
    next(pid);
    say!("and out: {}", registers(pid).x[7]);
    end(pid);
}

/// PTRACE_GET_SYSCALL_INFO as words.
fn call_info(pid: i32, size: usize) -> (Ret, [u64; 12]) {
    let mut words = [0x5555_5555_5555_5555u64; 12];
    (ptrace!(GET_SYSCALL_INFO, pid, size, &mut words), words)
}

fn information() {
    let pid = good(|| {
        sys!(SYS_ppoll, 0, 0, 3, 0, 8, 6);
        0
    });
    until_call(pid, SYS_ppoll);
    let (ret, words) = call_info(pid, 96);
    let now = registers(pid);
    say!("{ret}: {:#x}, place {}, stack {}", words[0], words[1] == now.pc, words[2] == now.sp);
    say!("call {}, {:?}, beyond {:#x}", words[3], &words[4..10], words[10]);
    next(pid);
    let (ret, words) = call_info(pid, 96);
    say!(
        "{ret}: {:#x}, {}, error {}, beyond {:#x}",
        words[0],
        errno_name(-(words[3] as i64) as i32),
        words[4] & 0xff,
        words[5]
    );
    for size in [0, 4, 24, 30, 33] {
        let (ret, words) = call_info(pid, size);
        say!("{size}: {ret}, {:#x}", words[0]);
    }
    end(pid);
}

fn information_elsewhere() {
    let pid = good(|| 0);
    let (ret, words) = call_info(pid, 96);
    say!("{ret}: {:#x}, beyond {:#x}", words[0], words[3]);
    ptrace!(SETOPTIONS, pid, 0, 0).need();
    next(pid);
    let (ret, words) = call_info(pid, 96);
    say!("without SYSGOOD: {ret}: {:#x}", words[0]);
    end(pid);
}

fn number_changed() {
    let pid = good(|| i32::from(sys!(SYS_getppid).0 == i64::from(process::pid())));
    until_call(pid, SYS_getppid);
    say!("set: {}, {}", set_call(pid, SYS_getpid as i32), call(pid));
    next(pid);
    say!("answers its own id: {}, x8 {}", registers(pid).x[0] == pid as u64, registers(pid).x[8]);
    say!("{}", resume(CONT, pid, 0));
}

fn skipped() {
    let pid = good(|| -(sys!(SYS_umask, 0o77).0 as i32) & 0xff);
    until_call(pid, SYS_umask);
    set_call(pid, -1).need();
    let mut changed = registers(pid);
    changed.x[0] = -7i64 as u64;
    set_registers(pid, changed).need();
    say!("{}, {}", next(pid), registers(pid).x[0] as i64);
    say!("{}", resume(CONT, pid, 0));
    let pid = good(|| i32::from(sys!(SYS_umask, 0o77) == Ret(0o77)));
    until_call(pid, SYS_umask);
    set_call(pid, -1).need();
    next(pid);
    say!("else x0 stays: {:#o}", registers(pid).x[0]);
    say!("{}", resume(CONT, pid, 0));
}

fn call_minus_one() {
    let pid = good(|| {
        crate::sys::raw(-1, &[5]);
        0
    });
    until_call(pid, -1);
    say!("on the way in: {}", answer(pid));
    next(pid);
    say!("and out: {}", answer(pid));
    end(pid);
}

fn argument_changed() {
    let pid = good(|| {
        sys!(SYS_umask, 0o1);
        sys!(SYS_umask, 0).0 as i32
    });
    until_call(pid, SYS_umask);
    let mut changed = registers(pid);
    changed.x[0] = 0o44;
    set_registers(pid, changed).need();
    say!("{}", resume(CONT, pid, 0));
}

fn answer_changed() {
    let pid = good(|| sys!(SYS_umask, 0o1).0 as i32);
    until_call(pid, SYS_umask);
    next(pid);
    let mut changed = registers(pid);
    changed.x[0] = 99;
    set_registers(pid, changed).need();
    say!("{}", resume(CONT, pid, 0));
}

fn left_untraced() {
    let pid = good(|| {
        sys!(SYS_umask, 0o1);
        5
    });
    until_call(pid, SYS_umask);
    say!("resumed to go there is no stop on the way out: {}", resume(CONT, pid, 0));
}

fn signal_at_a_call() {
    let pid = good(|| {
        signal::handle(SIGUSR1, signal::count, 0);
        sys!(SYS_umask, 0o1);
        signal::caught() * 2 + i32::from(signal::LAST_CODE.load(std::sync::atomic::Ordering::SeqCst) == 0x80)
    });
    until_call(pid, SYS_umask);
    next(pid);
    say!("resumed with a signal: {}, {}", resume(CONT, pid, SIGUSR1), info(pid));
    say!("{}", resume(CONT, pid, SIGUSR1));
}

fn read_of_a_pipe() -> Ret {
    let mut ends = [0i32; 2];
    sys!(SYS_pipe2, &mut ends, 0).need();
    sys!(SYS_read, ends[0], &mut [0u8; 1], 1)
}

fn interrupted_call() {
    let pid = good(|| {
        signal::handle(SIGUSR1, signal::count, 0);
        i32::from(read_of_a_pipe().errno() == EINTR)
    });
    until_call(pid, SYS_read);
    ptrace!(SYSCALL, pid, 0, 0).need();
    process::until_asleep(pid);
    kill(pid, SIGUSR1);
    say!("{}, x0 {}", wait(pid), registers(pid).x[0] as i64);
    say!("{}, in call {}", next(pid), call(pid));
    say!("{}", resume(CONT, pid, SIGUSR1));
}

fn interrupted_goes_on() {
    let pid = good(|| sys!(SYS_nanosleep, &timespec { tv_sec: 0, tv_nsec: 60_000_000 }, 0).0 as i32);
    until_call(pid, SYS_nanosleep);
    ptrace!(SYSCALL, pid, 0, 0).need();
    process::until_asleep(pid);
    kill(pid, SIGUSR1);
    say!("{}, x0 {}", wait(pid), registers(pid).x[0] as i64);
    say!("{}", next(pid));
    say!("{}, goes on by {}", next(pid), call(pid));
    say!("{}, {}", next(pid), answer(pid));
    say!("{}", resume(CONT, pid, 0));
}

fn emulated() {
    let pid = good(|| sys!(SYS_umask, 0o11).0 as i32);
    until_call(pid, SYS_umask);
    // The way out of this one is not told; the next call is not made.
    say!("{}", resume(SYSEMU, pid, 0));
    say!("{}: x7 {}", call(pid) == SYS_exit_group as i32, registers(pid).x[7]);
    end(pid);
}

fn fork_between() {
    let pid = good(|| {
        let pid = process::child(|| 0);
        process::wait(pid);
        0
    });
    ptrace!(SETOPTIONS, pid, 0, SYSGOOD | TRACE_FORK).need();
    until_call(pid, SYS_clone);
    say!("{}", next(pid));
    let made = message(pid) as i32;
    say!("{}, the child's id: {}", next(pid), registers(pid).x[0] == made as u64);
    say!("the child {}", wait(made));
    say!("its way out is not told: {}", next(made) == "stopped by signal 133" && registers(made).x[7] == 0);
    end(made);
    end(pid);
}

fn exec_between() {
    let pid = good(|| {
        let argv = [c"true".as_ptr(), std::ptr::null()];
        sys!(SYS_execve, c"/bin/true", &argv, 0);
        9
    });
    ptrace!(SETOPTIONS, pid, 0, SYSGOOD | TRACE_EXEC).need();
    until_call(pid, SYS_execve);
    say!("{}", next(pid));
    say!("{}, {}", next(pid), answer(pid));
    say!("{}", resume(CONT, pid, 0));
}

fn numbers_outside() {
    let pid = good(|| 0);
    say!("in a stop for a signal: {}", call(pid));
    for length in [0usize, 2, 4, 64] {
        let mut number = [0i32; 16];
        let (ret, moved) = set_of_registers(GETREGSET, pid, CALL_NUMBER, &mut number, length);
        say!("{length}: {ret}, {moved}");
    }
    end(pid);
}

fn exit_has_no_return() {
    let pid = good(|| 6);
    until_call(pid, SYS_exit_group);
    say!("{}", next(pid));
}

fn return_from_handler() {
    let pid = good(|| {
        signal::handle(SIGUSR1, signal::count, 0);
        signal::kill_self(SIGUSR1);
        0
    });
    until_call(pid, SYS_tgkill);
    say!("{}, {}", next(pid), answer(pid));
    say!("{}", next(pid));
    let before = registers(pid);
    ptrace!(SYSCALL, pid, 0, SIGUSR1).need();
    say!("{}", wait(pid));
    say!("{}", call(pid) == SYS_rt_sigreturn as i32);
    say!("{}", next(pid));
    let after = registers(pid);
    say!("back: {}, x0 {}, x8 {}", after.pc == before.pc, after.x[0] == before.x[0], after.x[8] == before.x[8]);
    say!("{}", resume(CONT, pid, 0));
}

/// A handler that makes the call it interrupted answer what the kernel keeps for a restart.
extern "C" fn answer_restart(_: i32, _: *const siginfo_t, at: *mut c_void) {
    signal::context(at).registers[0] = -512i64 as u64;
}

fn answer_of_a_handler() {
    let calls = || {
        signal::handle(SIGUSR1, answer_restart, 0);
        say!("the program sees {}", signal::kill_self(SIGUSR1).0);
        0
    };
    let pid = good(calls);
    say!("{}, {}", resume(CONT, pid, 0), resume(CONT, pid, SIGUSR1));
    let pid = good(calls);
    say!("{}", resume(CONT, pid, 0));
    say!("{}, in rt_sigreturn: {}", resume(SYSCALL, pid, SIGUSR1), i64::from(call(pid)) == SYS_rt_sigreturn);
    say!("{}, in call {}, x0 {}", next(pid), call(pid), registers(pid).x[0] as i64);
    say!("{}", resume(CONT, pid, 0));
    // What the tracer puts there is the program's, too.
    let pid = good(|| {
        signal::handle(SIGUSR1, signal::count, 0);
        say!("the program sees {}", signal::kill_self(SIGUSR1).0);
        0
    });
    resume(CONT, pid, 0);
    resume(SYSCALL, pid, SIGUSR1);
    next(pid);
    let mut after = registers(pid);
    after.x[0] = -514i64 as u64;
    set_registers(pid, after).need();
    kill(pid, SIGUSR2);
    say!("{}", resume(CONT, pid, 0));
    say!("x0 {}", registers(pid).x[0] as i64);
    say!("{}", resume(CONT, pid, 0));
}
