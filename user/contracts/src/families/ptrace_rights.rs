//! ptrace(2) and programs that have more rights, and threads that have ended and are kept for their tracers.

use std::ptr::null_mut;

use libc::*;

use super::exec::{copy_of_self, ended, exec_with, run_as};
use crate::process::{self, Gate, as_user, child, clone_on};
use crate::sys::{Ret, sys};
use crate::tracing::*;
use crate::tracing::{ptrace, wait};
use crate::{say, tests};

tests! {
    trace_me_gives_nothing, trace_me_with_more, attach_waits_for_exec, attach_by_root_waits, attach_waits_for_one_of_two, exit_group_past_a_stop,
    exit_group_between_exits, dead_threads_count, dead_thread_signalled,
}

/// A copy of this program that makes its caller root.
fn root_program() {
    copy_of_self(c"root", (0, 0), 0o4755);
}

/// Root asks for nothing, but its child has chosen it: the child's rights count.
fn trace_me_gives_nothing() {
    root_program();
    let pid = child(|| {
        process::become_user(1000);
        ptrace!(TRACEME, 0, 0, 0).need();
        exec_with(c"./root", &[c"contracts", c"--as", c"ids"], &[]).errno()
    });
    say!("{}", wait(pid));
    say!("{}", resume(CONT, pid, 0));
}

fn trace_me_with_more() {
    root_program();
    say!("by root, of root:");
    run_as(c"./root", c"trace-me", &[]);
    say!("by root, of a user:");
    as_user(1000, || ended(run_as(c"./root", c"trace-me", &[])));
}

/// A user's process whose first thread is traced, and cannot end. Threads of it execute a program that makes it root, when
/// the gate opens. Answers the process and the threads that are left.
fn stuck_in_exec(threads: usize, go: &Gate) -> (i32, Vec<i32>) {
    root_program();
    let ready = Gate::new();
    let pid = child(|| {
        process::become_user(1000);
        // A change of ids has hidden it.
        sys!(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
        let mut ends = [0i32; 2];
        sys!(SYS_pipe2, &mut ends, 0).need();
        sys!(SYS_dup3, ends[0], 0, 0);
        for _ in 0..threads {
            let go = *go;
            process::sleeping_thread(move || {
                go.pass();
                exec_with(c"./root", &[c"contracts", c"--as", c"reader"], &[])
            });
        }
        ready.open();
        idle()
    });
    ready.pass();
    ptrace!(SEIZE, pid, 0, TRACE_EXIT).need();
    (0..threads).for_each(|_| go.open());
    say!("the first thread {}", wait(pid));
    let others = || {
        let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let tids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        tids.filter(|tid| *tid != pid).collect::<Vec<i32>>()
    };
    while others().len() > 1 {
        process::sleep_ms(1);
    }
    (pid, others())
}

/// Somebody attaches to a thread meanwhile.
fn attaches(pid: i32, tid: i32, by: u32) {
    let tracer = child(|| {
        if by != 0 {
            process::become_user(by);
        }
        let attached = ptrace!(SEIZE, tid, 0, 0);
        say!("seize: {attached}");
        if attached.ok() {
            say!("interrupt: {}, {}", ptrace!(INTERRUPT, pid, 0, 0), wait(pid));
        }
        0
    });
    process::until_asleep(tracer);
    say!("it waits: {}", process::state(tracer));
    ptrace!(CONT, pid, 0, 0).need();
    say!("the tracer {}", process::wait(tracer));
    process::kill(pid, SIGKILL);
    say!("{}", wait(pid));
}

fn attach_waits_for_exec() {
    let (pid, threads) = stuck_in_exec(1, &Gate::new());
    threads.iter().for_each(|tid| attaches(pid, *tid, 1000));
}

fn attach_by_root_waits() {
    let (pid, threads) = stuck_in_exec(1, &Gate::new());
    threads.iter().for_each(|tid| attaches(pid, *tid, 0));
}

/// Two threads execute the program, and one ends the other.
fn attach_waits_for_one_of_two() {
    for _ in 0..5 {
        let (pid, threads) = stuck_in_exec(2, &Gate::new());
        threads.iter().for_each(|tid| attaches(pid, *tid, 1000));
    }
}

/// A traced process with one more thread, which its first one has been told of. The thread does what `body` says.
fn with_thread(options: usize, go: &Gate, body: fn() -> i32) -> (i32, i32) {
    let thread_go = *go;
    let pid = tracee(move || {
        std::thread::spawn(body);
        thread_go.pass();
        process::exit(7)
    });
    ptrace!(SETOPTIONS, pid, 0, TRACE_CLONE | options).need();
    resume(CONT, pid, 0);
    let thread = message(pid) as i32;
    wait(thread);
    ptrace!(CONT, thread, 0, 0).need();
    ptrace!(CONT, pid, 0, 0).need();
    (pid, thread)
}

fn exit_group_past_a_stop() {
    let go = Gate::new();
    let (pid, thread) = with_thread(0, &go, idle);
    sys!(SYS_tgkill, pid, thread, SIGUSR1).need();
    say!("the thread {}", wait(thread));
    go.open();
    say!("then {}", wait(thread));
    say!("the process {}", wait(pid));
}

fn exit_group_between_exits() {
    let go = Gate::new();
    let (pid, thread) = with_thread(TRACE_EXIT, &go, idle);
    sys!(SYS_tgkill, pid, thread, SIGUSR1).need();
    say!("the thread {}", wait(thread));
    go.open();
    say!("who called it {}, with status {:#x}", wait(pid), message(pid));
    say!("the thread {}, with status {:#x}", wait(thread), message(thread));
    say!("the process ends after it: {}, {}", ptrace!(CONT, pid, 0, 0), news(pid));
    say!("{}", resume(CONT, thread, 0));
    say!("{}", wait(pid));
}

extern "C" fn end_at_once(_: usize) -> i32 {
    0
}

const THREAD: i32 = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;

/// A traced thread has ended, and nobody has waited for it: the process and the thread.
fn with_dead_thread(body: impl FnOnce() -> i32) -> (i32, i32) {
    let pid = tracee(|| {
        let mut stack = vec![0u8; 65536];
        clone_on(THREAD, &mut stack, [null_mut(); 2], end_at_once, 0).need();
        body()
    });
    ptrace!(SETOPTIONS, pid, 0, TRACE_CLONE).need();
    resume(CONT, pid, 0);
    (pid, end_of_made(pid))
}

/// The tracee has made a thread, which ends; nobody waits for it yet.
fn end_of_made(pid: i32) -> i32 {
    let thread = message(pid) as i32;
    wait(thread);
    ptrace!(CONT, thread, 0, 0).need();
    let mut info: siginfo_t = crate::sys::zeroed();
    sys!(SYS_waitid, P_PID, thread, &mut info, WEXITED | WNOWAIT | WALL, 0).need();
    thread
}

fn dead_threads_count() {
    let (ask, asked) = (Gate::new(), Gate::new());
    // As a user from the start: what counts is whose the threads were when they were made.
    let pid = tracee(|| {
        process::become_user(4321);
        let limit = rlimit { rlim_cur: 2, rlim_max: 2 };
        sys!(SYS_prlimit64, 0, RLIMIT_NPROC, &limit, 0).need();
        loop {
            ask.pass();
            let mut stack = vec![0u8; 65536];
            say!("another: {}", clone_on(THREAD, &mut stack, [null_mut(); 2], end_at_once, 0).ok_or_error());
            asked.open();
        }
    });
    ptrace!(SETOPTIONS, pid, 0, TRACE_CLONE).need();
    ask.open();
    resume(CONT, pid, 0);
    let thread = end_of_made(pid);
    ptrace!(CONT, pid, 0, 0).need();
    asked.pass();
    ask.open();
    asked.pass();
    say!("the thread {}", wait(thread));
    ask.open();
    say!("{}", wait(pid));
    end(pid);
}

fn dead_thread_signalled() {
    let (pid, thread) = with_dead_thread(idle);
    for signal in [0, SIGUSR1, 65] {
        say!("tgkill with {signal}: {}", sys!(SYS_tgkill, pid, thread, signal));
        say!("tkill: {}", sys!(SYS_tkill, thread, signal));
        say!("of another process: {}", sys!(SYS_tgkill, process::pid(), thread, signal));
    }
    say!("kill: {}", sys!(SYS_kill, thread, 0));
    say!("{}", wait(thread));
    say!("waited for: {}, {}", sys!(SYS_tgkill, pid, thread, 0) == Ret(i64::from(-ESRCH)), sys!(SYS_tkill, thread, 0));
    end(pid);
}
