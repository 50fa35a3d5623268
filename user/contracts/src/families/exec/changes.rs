//! What stays of a process, and what goes.

use std::ptr::null;

use libc::*;

use super::{SELF, c, copy_of_self, exec_as, exec_with, program, run_as, write_file};
use crate::file::{self, create, open};
use crate::memory::pages;
use crate::process::{self, child, in_child, wait};
use crate::sys::{sys, zeroed};
use crate::{say, signal};

pub(super) fn descriptors() {
    let fd = create(c"f", "0123456789");
    sys!(SYS_lseek, fd, 5, SEEK_SET);
    sys!(SYS_dup3, fd, 20, O_CLOEXEC);
    sys!(SYS_dup3, fd, 21, 0);
    sys!(SYS_dup3, fd, 40, O_CLOEXEC);
    sys!(SYS_dup3, fd, 41, 0);
    sys!(SYS_fcntl, 41, F_SETFD, FD_CLOEXEC);
    sys!(SYS_fcntl, 41, F_SETFD, 0);
    exec_as(SELF, c"descriptors", &[]);
}

pub(super) fn signals() {
    signal::handle(SIGUSR1, signal::count, SA_RESTART | SA_NODEFER);
    signal::ignore(SIGUSR2);
    signal::ignore(SIGCHLD);
    signal::handle(SIGTERM, signal::count, SA_NOCLDWAIT);
    signal::mask(SIG_BLOCK, signal::bit(SIGHUP) | signal::bit(SIGUSR1) | signal::bit(40));
    signal::kill_self(SIGHUP);
    signal::kill_self(40);
    process::kill(sys!(SYS_getpid).0 as i32, SIGUSR1);
    exec_as(SELF, c"signals", &[]);
}

pub(super) fn by_a_thread() {
    let pid = child(|| {
        std::thread::spawn(|| {
            signal::block(SIGUSR1);
            signal::block(SIGUSR2);
            signal::kill_self(SIGUSR1);
            process::kill(sys!(SYS_getpid).0 as i32, SIGUSR2);
            exec_as(SELF, c"threads", &[])
        });
        loop {
            signal::block(SIGUSR2);
            process::sleep_ms(100_000);
        }
    });
    say!("{}", wait(pid));
    let pid = child(|| {
        std::thread::spawn(|| {
            let leader = sys!(SYS_getpid).0 as i32;
            while process::state(leader) != 'Z' {
                process::sleep_ms(1);
            }
            // What /proc has of a leader that has ended is no program.
            exec_as(c"/usr/bin/contracts", c"threads", &[])
        });
        sys!(SYS_exit, 3);
        0
    });
    say!("after the leader: {}", wait(pid));
}

pub(super) fn of_threads() {
    let pid = child(|| {
        for _ in 0..3 {
            process::sleeping_thread(|| process::sleep_ms(100_000));
        }
        let pipe = file::pipe();
        process::sleeping_thread(move || file::read(pipe[0], 1));
        std::thread::spawn(|| {
            loop {
                std::hint::black_box(0);
            }
        });
        say!("a failed call leaves them: {}", exec_with(c"/nowhere", &[c"x"], &[]));
        say!("threads: {}", std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count));
        exec_as(SELF, c"threads", &[]).errno()
    });
    say!("{}", wait(pid));
}

pub(super) fn names() {
    copy_of_self(c"a-name-longer-than-fifteen", (0, 0), 0o755);
    sys!(SYS_symlinkat, c"a-name-longer-than-fifteen", AT_FDCWD, c"link");
    for path in [c"./a-name-longer-than-fifteen", c"./link", c"/var/contract/./link"] {
        run_as(path, c"names", &[c"more"]);
    }
    say!("removed while it runs:");
    in_child(|| {
        let fd = open(c"a-name-longer-than-fifteen", O_PATH).fd();
        sys!(SYS_unlinkat, AT_FDCWD, c"a-name-longer-than-fifteen", 0);
        let words = [c"contracts".as_ptr(), c"--as".as_ptr(), c"names".as_ptr(), null()];
        sys!(SYS_execveat, fd, c"", &words, 0, AT_EMPTY_PATH).errno()
    });
}

pub(super) fn attributes() {
    sys!(SYS_umask, 0o27);
    sys!(SYS_mkdirat, AT_FDCWD, c"d", 0o755);
    sys!(SYS_chdir, c"d");
    sys!(SYS_setpriority, PRIO_PROCESS, 0, 7);
    for (option, value) in [
        (PR_SET_NO_NEW_PRIVS, 1),
        (PR_SET_TIMERSLACK, 12345),
        (PR_SET_KEEPCAPS, 1),
        (PR_SET_DUMPABLE, 0),
        (PR_SET_PDEATHSIG, SIGUSR1 as usize),
        (PR_SET_CHILD_SUBREAPER, 1),
    ] {
        sys!(SYS_prctl, option, value, 0, 0, 0);
    }
    let limit = rlimit { rlim_cur: 100, rlim_max: 200 };
    sys!(SYS_setrlimit, RLIMIT_NOFILE, &limit);
    sys!(SYS_personality, 0x004_0000);
    let mut interval: itimerval = zeroed();
    interval.it_value.tv_sec = 1000;
    sys!(SYS_setitimer, ITIMER_REAL, &interval, 0);
    let mut event: sigevent = zeroed();
    event.sigev_notify = SIGEV_NONE;
    let mut timer = 0i32;
    sys!(SYS_timer_create, CLOCK_MONOTONIC, &mut event, &mut timer);
    sys!(SYS_sched_setaffinity, 0, 8, &1u64);
    sys!(SYS_sched_setscheduler, 0, SCHED_BATCH, &0i32);
    sys!(SYS_set_robust_list, pages(1), 24);
    exec_as(SELF, c"attributes", &[]);
}

pub(super) fn timers() {
    // An alarm goes on, and its signal comes to the new program, which has no handler any more.
    let status = in_child(|| {
        signal::handle(SIGALRM, signal::count, 0);
        let mut interval: itimerval = zeroed();
        interval.it_value.tv_usec = 50_000;
        sys!(SYS_setitimer, ITIMER_REAL, &interval, 0);
        exec_with(c"/bin/sleep", &[c"sleep", c"100"], &[]).errno()
    });
    say!("an alarm: {status}");
}

pub(super) fn memory_is_new() {
    let shared = crate::memory::shared_words();
    let status = in_child(|| {
        shared[0].store(1, std::sync::atomic::Ordering::SeqCst);
        let at = pages(1);
        let where_ = c(&format!("{:x}", at as usize));
        let _ = where_;
        exec_as(SELF, c"nothing", &[]).errno()
    });
    say!("{status}, shared memory stays with its others: {}", shared[0].load(std::sync::atomic::Ordering::SeqCst));
    let stack = stack_t { ss_sp: pages(4).cast(), ss_flags: 0, ss_size: 16384 };
    sys!(SYS_sigaltstack, &stack, 0);
    // add x1, sp, #-64; mov x0, #0; mov x8, #132; svc 0; ldr w0, [x1, #8]
    let code = [0xd101_03ff, 0x9100_03e1, 0xd280_0000, 0xd280_1088, 0xd400_0001, 0xb940_0be0, 0xd280_0ba8, 0xd400_0001];
    write_file(c"f", &program(&code), 0o755);
    say!("the alternate stack is gone: {}", in_child(|| exec_with(c"./f", &[c"f"], &[]).errno()));
}

pub(super) fn failed_call_changes_nothing() {
    signal::handle(SIGUSR1, signal::count, 0);
    let fd = sys!(SYS_fcntl, 1, F_DUPFD_CLOEXEC, 30).fd();
    sys!(SYS_prctl, PR_SET_NAME, c"before", 0, 0, 0);
    write_file(c"f", b"text", 0o755);
    for path in [c"/nowhere", c"./f", c"/dev/null", c"."] {
        say!("{path:?}: {}", exec_with(path, &[c"x"], &[]));
    }
    signal::kill_self(SIGUSR1);
    say!("handlers: {}", signal::caught());
    say!("descriptors: {}", sys!(SYS_fcntl, fd, F_GETFD, 0));
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
    say!("name: {}", comm.trim());
}
