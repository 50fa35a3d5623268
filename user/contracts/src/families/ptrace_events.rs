//! ptrace(2): what a tracer is told of fork, exec, threads and ends, and who is traced after them.

use std::ptr::null_mut;

use libc::*;

use crate::process::{self, Status, as_user, clone_here, clone_on, kill};
use crate::signal;
use crate::sys::{Ret, sys};
use crate::tracing::*;
use crate::tracing::{ptrace, wait};
use crate::{say, tests};

tests! {
    fork_untold, fork_told, fork_seized, vfork_told, clone_told, clone_traced, clone_untraced, exec_untold, exec_told, exec_seized, exec_failed,
    exec_by_thread, exec_of_set_id, exit_told, exit_told_when_killed, exit_by_signal, threads_end, leader_ends_first, thread_stops_alone, thread_killed_with_others, children_exitkill,
}

const FORKS: usize = TRACE_FORK | TRACE_VFORK | TRACE_CLONE;

/// Any change of a tracee that is not `not`: who, and what.
fn other(not: i32) -> (i32, Status) {
    for _ in 0..2000 {
        let mut status = 0i32;
        let ret = sys!(SYS_wait4, -1, &mut status, WALL | WNOHANG, 0);
        if ret.0 > 0 && ret.0 != i64::from(not) {
            return (ret.0 as i32, Status::from_wait(status));
        }
        process::sleep_ms(1);
    }
    (0, Status::Lost)
}

fn forks(flags: i32) -> i32 {
    tracee(move || {
        let pid = clone_here(flags, null_mut(), null_mut()).need() as i32;
        if pid == 0 {
            process::exit(0);
        }
        i32::from(process::wait_for(pid, WALL) == Status::Exited(0))
    })
}

fn exec_true() -> i32 {
    let argv = [c"true".as_ptr(), std::ptr::null()];
    sys!(SYS_execve, c"/bin/true", &argv, 0);
    9
}

fn fork_untold() {
    let pid = forks(SIGCHLD);
    ptrace!(SETOPTIONS, pid, 0, SYSGOOD | TRACE_VFORK | TRACE_CLONE).need();
    say!("{}", resume(CONT, pid, 0));
    say!("{}", resume(CONT, pid, SIGCHLD));
}

/// The stop of a maker, its child's first one, and the ends of both.
fn follow(pid: i32) {
    say!("{}, {}", resume(CONT, pid, 0), info(pid));
    let made = message(pid) as i32;
    let first = wait(made);
    say!(
        "the child {first}, {}, traced here: {}",
        info(made),
        status_line(made, "TracerPid") == process::pid().to_string()
    );
    say!("no message: {}", message(made));
    say!("on: {}", resume(CONT, made, 0));
    let mut next = resume(CONT, pid, 0);
    while next.starts_with("stopped") {
        say!("{next}, {}", info(pid));
        let signal = if next == "stopped by SIGCHLD" { SIGCHLD } else { 0 };
        next = resume(CONT, pid, signal);
    }
    say!("{next}");
}

fn fork_told() {
    let pid = forks(SIGCHLD);
    ptrace!(SETOPTIONS, pid, 0, FORKS).need();
    follow(pid);
}

fn fork_seized() {
    let gate = process::Gate::new();
    let pid = process::child(|| {
        gate.pass();
        let pid = process::child(|| 0);
        i32::from(process::wait(pid) == Status::Exited(0))
    });
    ptrace!(SEIZE, pid, 0, FORKS).need();
    gate.open();
    say!("{}, {}", wait(pid), info(pid));
    let made = message(pid) as i32;
    say!("the child {}, {}", wait(made), info(made));
    say!("on: {}", resume(CONT, made, 0));
    say!("{}", resume(CONT, pid, 0));
    say!("{}", resume(CONT, pid, 0));
}

fn vfork_told() {
    let pid = forks(CLONE_VFORK | SIGCHLD);
    ptrace!(SETOPTIONS, pid, 0, FORKS | TRACE_VFORK_DONE).need();
    follow(pid);
}

fn clone_told() {
    let pid = forks(0);
    ptrace!(SETOPTIONS, pid, 0, FORKS).need();
    follow(pid);
}

fn clone_traced() {
    let pid = forks(CLONE_PTRACE | SIGCHLD);
    ptrace!(CONT, pid, 0, 0).need();
    let (made, status) = other(pid);
    say!("without options: {status}, {}", info(made));
    say!("{}", resume(CONT, made, 0));
    say!("{}", wait(pid));
    say!("{}", resume(CONT, pid, 0));
}

fn clone_untraced() {
    let pid = forks(CLONE_UNTRACED | SIGCHLD);
    ptrace!(SETOPTIONS, pid, 0, FORKS).need();
    say!("{}", resume(CONT, pid, 0));
    say!("{}", resume(CONT, pid, 0));
}

fn exec_untold() {
    let pid = tracee(exec_true);
    say!("{}, {}", resume(CONT, pid, 0), info(pid));
    say!("{}", resume(CONT, pid, 0));
}

fn exec_told() {
    let pid = tracee(exec_true);
    ptrace!(SETOPTIONS, pid, 0, TRACE_EXEC).need();
    say!("{}, {}", resume(CONT, pid, 0), info(pid));
    let registers = registers(pid);
    say!("was itself: {}, x0 {}, in call {}", message(pid) == pid as u64, registers.x[0], call(pid));
    say!("{}", resume(CONT, pid, 0));
}

fn exec_seized() {
    let gate = process::Gate::new();
    let pid = process::child(|| {
        gate.pass();
        exec_true()
    });
    ptrace!(SEIZE, pid, 0, 0).need();
    gate.open();
    say!("no signal: {}", wait(pid));
}

fn exec_failed() {
    let pid = tracee(|| {
        sys!(SYS_execve, c"/bin/nothing", 0, 0);
        2
    });
    ptrace!(SETOPTIONS, pid, 0, TRACE_EXEC).need();
    say!("{}", resume(CONT, pid, 0));
}

fn exec_by_thread() {
    let pid = tracee(|| {
        std::thread::spawn(exec_true);
        idle()
    });
    ptrace!(SETOPTIONS, pid, 0, TRACE_EXEC | TRACE_CLONE).need();
    say!("{}", resume(CONT, pid, 0));
    let thread = message(pid) as i32;
    say!("{}", wait(thread));
    ptrace!(CONT, pid, 0, 0).need();
    ptrace!(CONT, thread, 0, 0).need();
    say!("{}, by the thread: {}", wait(pid), message(pid) == thread as u64);
    say!("the thread's id: {}, {}", ptrace!(CONT, thread, 0, 0), news(thread));
    say!("{}", resume(CONT, pid, 0));
}

fn exec_of_set_id() {
    let source = std::fs::read("/proc/self/exe").unwrap_or_default();
    if std::fs::write("program", source).is_err() {
        say!("no program");
    }
    sys!(SYS_fchmodat, AT_FDCWD, c"program", 0o4755).need();
    let run = || {
        let argv = [c"p".as_ptr(), c"--as".as_ptr(), c"ids".as_ptr(), std::ptr::null()];
        sys!(SYS_execve, c"program", &argv, 0);
        8
    };
    as_user(1000, || {
        say!("untraced:");
        say!("{}", process::in_child(run));
        say!("traced by the user:");
        let pid = tracee(run);
        ptrace!(SETOPTIONS, pid, 0, TRACE_EXEC).need();
        say!("{}", resume(CONT, pid, 0));
        say!("{}", resume(CONT, pid, 0));
        0
    });
    say!("traced by root:");
    let gate = process::Gate::new();
    let pid = process::child(|| {
        process::become_user(1000);
        gate.pass();
        run()
    });
    ptrace!(SEIZE, pid, 0, TRACE_EXEC).need();
    gate.open();
    say!("{}", wait(pid));
    say!("{}", resume(CONT, pid, 0));
}

fn exit_told() {
    let pid = tracee(|| 5);
    ptrace!(SETOPTIONS, pid, 0, TRACE_EXIT).need();
    say!("{}, {}", resume(CONT, pid, 0), info(pid));
    say!("with status {:#x}", message(pid));
    say!("its memory is there: {}", peek(pid, registers(pid).sp as usize & !7).0);
    say!("{}", resume(CONT, pid, 0));
}

fn exit_told_when_killed() {
    let pid = tracee(idle);
    ptrace!(SETOPTIONS, pid, 0, TRACE_EXIT).need();
    ptrace!(CONT, pid, 0, 0).need();
    kill(pid, SIGKILL);
    say!("{}, with status {:#x}", wait(pid), message(pid));
    say!("{}", resume(CONT, pid, 0));
}

fn exit_by_signal() {
    let pid = tracee(|| {
        signal::kill_self(SIGUSR1);
        0
    });
    ptrace!(SETOPTIONS, pid, 0, TRACE_EXIT).need();
    say!("{}", resume(CONT, pid, 0));
    say!("{}, with status {:#x}", resume(CONT, pid, SIGUSR1), message(pid));
    say!("{}", resume(CONT, pid, 0));
}

extern "C" fn end_with_three(_: usize) -> i32 {
    3
}

const THREAD: i32 = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;

fn threads_end() {
    let pid = tracee(|| {
        let mut stack = vec![0u8; 65536];
        let gone = clone_on(THREAD, &mut stack, [null_mut(); 2], end_with_three, 0);
        for _ in 0..2000 {
            if !sys!(SYS_tgkill, process::pid(), gone.0, 0).ok() {
                break;
            }
            process::sleep_ms(1);
        }
        0
    });
    ptrace!(SETOPTIONS, pid, 0, TRACE_CLONE).need();
    say!("{}", resume(CONT, pid, 0));
    let thread = message(pid) as i32;
    say!("the thread {}", wait(thread));
    say!("without __WALL: {}", process::wait_for(thread, WNOHANG) == Status::Lost);
    ptrace!(CONT, pid, 0, 0).need();
    say!("its end: {}", resume(CONT, thread, 0));
    say!("gone: {}, {}", news(thread), ptrace!(CONT, thread, 0, 0));
    say!("{}", wait(pid));
}

fn leader_ends_first() {
    let pid = tracee(|| {
        std::thread::spawn(|| {
            process::sleep_ms(30);
            process::exit(4);
        });
        sys!(SYS_exit, 1);
        0
    });
    ptrace!(SETOPTIONS, pid, 0, TRACE_CLONE).need();
    say!("{}", resume(CONT, pid, 0));
    let thread = message(pid) as i32;
    wait(thread);
    ptrace!(CONT, pid, 0, 0).need();
    process::sleep_ms(10);
    say!("not before the others: {}", news(pid));
    say!("the thread {}", resume(CONT, thread, 0));
    say!("the process {}", wait(pid));
}

fn thread_stops_alone() {
    let pid = tracee(|| {
        std::thread::spawn(idle);
        idle()
    });
    ptrace!(SETOPTIONS, pid, 0, TRACE_CLONE).need();
    resume(CONT, pid, 0);
    let thread = message(pid) as i32;
    wait(thread);
    ptrace!(CONT, pid, 0, 0).need();
    say!("one stops, the other runs: {}, {}", process::state(thread), news(pid));
    sys!(SYS_tgkill, pid, pid, SIGUSR1);
    say!("{}", wait(pid));
    ptrace!(CONT, pid, 0, 0).need();
    ptrace!(CONT, thread, 0, 0).need();
    kill(pid, SIGSTOP);
    let (first, status) = other(0);
    say!("{status}");
    say!("both: {}", resume(CONT, first, SIGSTOP));
    let second = if first == pid { thread } else { pid };
    say!("{}", wait(second));
    end(pid);
}

fn thread_killed_with_others() {
    let pid = tracee(|| {
        std::thread::spawn(idle);
        process::sleep_ms(20);
        process::exit(7)
    });
    ptrace!(SETOPTIONS, pid, 0, TRACE_CLONE).need();
    resume(CONT, pid, 0);
    let thread = message(pid) as i32;
    wait(thread);
    ptrace!(CONT, thread, 0, 0).need();
    ptrace!(CONT, pid, 0, 0).need();
    say!("the thread {}", wait(thread));
    say!("the process {}", wait(pid));
}

fn children_exitkill() {
    let gate = process::Gate::new();
    let (reader, writer) = {
        let mut ends = [0i32; 2];
        sys!(SYS_pipe2, &mut ends, 0).need();
        (ends[0], ends[1])
    };
    let pid = process::child(|| {
        sys!(SYS_close, reader);
        gate.pass();
        process::child(idle);
        idle()
    });
    sys!(SYS_close, writer);
    process::in_child(|| {
        ptrace!(SEIZE, pid, 0, EXITKILL | TRACE_FORK).need();
        gate.open();
        wait(pid);
        let made = message(pid) as i32;
        wait(made);
        ptrace!(CONT, made, 0, 0).need();
        ptrace!(CONT, pid, 0, 0).need();
        0
    });
    say!("{}", process::wait(pid));
    let mut byte = [0u8; 1];
    say!("its child too: {}", sys!(SYS_read, reader, &mut byte, 1) == Ret(0));
}
