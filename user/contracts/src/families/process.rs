//! fork(2): what a child has of its parent; ids of processes and threads.

use libc::*;

use crate::file::{close, create, open, read};
use crate::memory::{pages, peek, poke, shared_page};
use crate::process::{self, Gate, as_user, child, comm, in_child, kill, prctl_of, tid, until_asleep, wait};
use crate::signal;
use crate::sys::{sys, zeroed};
use crate::{say, tests};

tests! {
    fork_memory, fork_descriptors, fork_signals, fork_attributes, fork_leaves_behind, unshare_rules, ids_of_processes, exit_of_a_thread_leader,
}

fn fork_memory() {
    let private = pages(1);
    let shared = shared_page();
    let file = create(c"f", "0123456789");
    sys!(SYS_ftruncate, file, 4096);
    let mapped = crate::memory::map(4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0).need() as *mut u8;
    let dropped = pages(1);
    let wiped = pages(1);
    sys!(SYS_madvise, dropped, 4096, MADV_DONTFORK);
    sys!(SYS_madvise, wiped, 4096, MADV_WIPEONFORK);
    for page in [private, shared, dropped, wiped] {
        poke(page, 1);
    }
    let status = in_child(|| {
        say!("private: {}, shared: {}, wiped: {}", peek(private), peek(shared), peek(wiped));
        say!("not for children: {}", crate::memory::try_peek(dropped));
        for page in [private, shared, mapped, wiped] {
            poke(page, 2);
        }
        0
    });
    say!("{status}");
    say!("private: {}, shared: {}, file: {}, wiped: {}", peek(private), peek(shared), peek(mapped), peek(wiped));
}

fn fork_descriptors() {
    let fd = create(c"f", "0123456789");
    sys!(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC);
    let mut lock: flock = zeroed();
    lock.l_type = F_WRLCK as i16;
    say!("lock: {}", sys!(SYS_fcntl, fd, F_SETLK, &lock));
    in_child(|| {
        say!("reads: {}", read(fd, 4));
        say!("close-on-exec: {}", sys!(SYS_fcntl, fd, F_GETFD, 0));
        let mut lock: flock = zeroed();
        lock.l_type = F_WRLCK as i16;
        say!("the lock is the parent's: {}", sys!(SYS_fcntl, fd, F_SETLK, &lock));
        sys!(SYS_fcntl, fd, F_GETLK, &mut lock);
        say!("held by it: {}", i64::from(lock.l_pid) == sys!(SYS_getppid).0);
        sys!(SYS_fcntl, fd, F_SETFL, O_APPEND);
        close(fd);
        close(0);
        0
    });
    say!("reads on: {}", read(fd, 4));
    say!("flags are shared: {:o}", sys!(SYS_fcntl, fd, F_GETFL, 0).0);
    say!("descriptors are not: {}", sys!(SYS_fcntl, 0, F_GETFD, 0));
    close(open(c"f", O_RDONLY).fd());
    in_child(|| {
        let mut lock: flock = zeroed();
        lock.l_type = F_WRLCK as i16;
        say!("any close drops the lock: {}", sys!(SYS_fcntl, fd, F_SETLK, &lock));
        0
    });
}

fn fork_signals() {
    signal::handle(SIGUSR1, signal::count, 0);
    signal::ignore(SIGUSR2);
    signal::block(SIGTERM);
    signal::kill_self(SIGTERM);
    let stack = stack_t { ss_sp: pages(4).cast(), ss_flags: 0, ss_size: 16384 };
    sys!(SYS_sigaltstack, &stack, 0);
    say!("pending: {}", signal::names(signal::pending()));
    in_child(|| {
        say!("pending: {}", signal::names(signal::pending()));
        say!("blocked: {}", signal::names(signal::mask(SIG_BLOCK, 0)));
        signal::kill_self(SIGUSR1);
        say!("handled: {}", signal::caught());
        signal::kill_self(SIGUSR2);
        let mut inherited: stack_t = zeroed();
        sys!(SYS_sigaltstack, 0, &mut inherited);
        say!("alternate stack: {} {}", inherited.ss_sp == stack.ss_sp, inherited.ss_flags);
        0
    });
    let thread = std::thread::spawn(move || {
        say!("blocked in a new thread: {}", signal::names(signal::mask(SIG_BLOCK, 0)));
        say!("pending, of the process or of the thread: {}", signal::names(signal::pending()));
    });
    let _ = thread.join();
}

fn fork_attributes() {
    sys!(SYS_umask, 0o27);
    sys!(SYS_mkdirat, AT_FDCWD, c"d", 0o755);
    sys!(SYS_chdir, c"d");
    sys!(SYS_setpriority, PRIO_PROCESS, 0, 7);
    prctl_of(PR_SET_NAME, [c"parent".as_ptr() as usize, 0, 0, 0]);
    prctl_of(PR_SET_NO_NEW_PRIVS, [1, 0, 0, 0]);
    prctl_of(PR_SET_TIMERSLACK, [12345, 0, 0, 0]);
    prctl_of(PR_SET_KEEPCAPS, [1, 0, 0, 0]);
    prctl_of(PR_SET_DUMPABLE, [0, 0, 0, 0]);
    let limit = rlimit { rlim_cur: 100, rlim_max: 200 };
    sys!(SYS_setrlimit, RLIMIT_NOFILE, &limit);
    sys!(SYS_personality, 0x0040000);
    in_child(|| {
        say!("umask: {:o}", sys!(SYS_umask, 0).0);
        let mut path = [0u8; 64];
        let length = sys!(SYS_getcwd, &mut path, 64).need() as usize;
        say!("directory: {}", String::from_utf8_lossy(&path[..length - 1]));
        say!("nice: {}", 20 - sys!(SYS_getpriority, PRIO_PROCESS, 0).0);
        say!("name: {}", comm());
        say!("no new privileges: {}", prctl_of(PR_GET_NO_NEW_PRIVS, [0; 4]));
        say!("timer slack: {}", prctl_of(PR_GET_TIMERSLACK, [0; 4]));
        say!("keep capabilities: {}", prctl_of(PR_GET_KEEPCAPS, [0; 4]));
        say!("dumpable: {}", prctl_of(PR_GET_DUMPABLE, [0; 4]));
        let mut limit: rlimit = zeroed();
        sys!(SYS_getrlimit, RLIMIT_NOFILE, &mut limit);
        say!("limit: {} {}", limit.rlim_cur, limit.rlim_max);
        say!("personality: {:#x}", sys!(SYS_personality, 0xffff_ffff_u32).0);
        0
    });
}

fn fork_leaves_behind() {
    let mut interval: itimerval = zeroed();
    interval.it_value.tv_sec = 1000;
    sys!(SYS_setitimer, ITIMER_REAL, &interval, 0);
    let mut timer = 0i32;
    let mut event: sigevent = zeroed();
    event.sigev_notify = SIGEV_NONE;
    say!("timer: {}", sys!(SYS_timer_create, CLOCK_MONOTONIC, &mut event, &mut timer));
    prctl_of(PR_SET_PDEATHSIG, [SIGTERM as usize, 0, 0, 0]);
    prctl_of(PR_SET_CHILD_SUBREAPER, [1, 0, 0, 0]);
    in_child(|| {
        let mut interval: itimerval = zeroed();
        sys!(SYS_getitimer, ITIMER_REAL, &mut interval);
        say!("interval timer: {}", interval.it_value.tv_sec);
        let mut setting: itimerspec = zeroed();
        say!("timer: {}", sys!(SYS_timer_gettime, timer, &mut setting));
        let mut number = 0i32;
        prctl_of(PR_GET_PDEATHSIG, [&raw mut number as usize, 0, 0, 0]);
        say!("signal at the parent's death: {number}");
        number = 5;
        prctl_of(PR_GET_CHILD_SUBREAPER, [&raw mut number as usize, 0, 0, 0]);
        say!("subreaper: {number}");
        let mut time: tms = zeroed();
        sys!(SYS_times, &mut time);
        say!("time of children: {} {}", time.tms_cutime, time.tms_cstime);
        0
    });
    let mut number = 0i32;
    prctl_of(PR_GET_CHILD_SUBREAPER, [&raw mut number as usize, 0, 0, 0]);
    say!("its own: {number}");
}

fn unshare_rules() {
    say!("nothing: {}", sys!(SYS_unshare, 0));
    say!("CLONE_FS: {}", sys!(SYS_unshare, CLONE_FS));
    say!("CLONE_FILES: {}", sys!(SYS_unshare, CLONE_FILES));
    say!("CLONE_SYSVSEM: {}", sys!(SYS_unshare, CLONE_SYSVSEM));
    say!("CLONE_THREAD, alone: {}", sys!(SYS_unshare, CLONE_THREAD));
    say!("CLONE_SIGHAND, alone: {}", sys!(SYS_unshare, CLONE_SIGHAND));
    say!("CLONE_VM, alone: {}", sys!(SYS_unshare, CLONE_VM));
    say!("CLONE_PARENT: {}", sys!(SYS_unshare, CLONE_PARENT));
    say!("CLONE_VFORK: {}", sys!(SYS_unshare, CLONE_VFORK));
    say!("a signal: {}", sys!(SYS_unshare, SIGCHLD));
    let thread = std::thread::spawn(|| {
        for (name, flag) in [("CLONE_THREAD", CLONE_THREAD), ("CLONE_SIGHAND", CLONE_SIGHAND), ("CLONE_VM", CLONE_VM)] {
            say!("{name} with threads: {}", sys!(SYS_unshare, flag));
        }
        say!("CLONE_FS with threads: {}", sys!(SYS_unshare, CLONE_FS));
        sys!(SYS_chdir, c"/");
    });
    let _ = thread.join();
    let mut path = [0u8; 64];
    let length = sys!(SYS_getcwd, &mut path, 64).need() as usize;
    say!("the directory of the others: {}", String::from_utf8_lossy(&path[..length - 1]));
    as_user(1000, || {
        say!("a mount namespace as a user: {}", sys!(SYS_unshare, CLONE_NEWNS));
        0
    });
}

fn ids_of_processes() {
    let own = sys!(SYS_getpid).0;
    say!("the first thread's id: {}", sys!(SYS_gettid).0 == own);
    in_child(|| {
        say!("a child's parent: {}", sys!(SYS_getppid).0 == own);
        say!("another id: {}", sys!(SYS_getpid).0 != own);
        let (a, b) = (child(|| 0), child(|| 0));
        say!("ids go up: {}", b > a);
        wait(a);
        wait(b);
        let c = child(|| 0);
        say!("and are not used again at once: {}", c > b);
        wait(c);
        0
    });
    let parent = sys!(SYS_getppid);
    let thread = std::thread::spawn(move || {
        say!("a thread's process: {}", sys!(SYS_getpid).0 == own);
        say!("a thread's id: {}", sys!(SYS_gettid).0 != own);
        say!("its parent is the process's: {}", sys!(SYS_getppid) == parent);
    });
    let _ = thread.join();
}

fn exit_of_a_thread_leader() {
    let pid = child(|| {
        let leader = tid();
        std::thread::spawn(move || {
            while process::state(leader) != 'Z' {
                process::sleep_ms(1);
            }
            say!("the leader is a zombie, the process lives: {}", kill(leader, 0));
            let parent = sys!(SYS_getppid).0 as i32;
            say!("getpid is still the leader's: {}", sys!(SYS_getpid).0 as i32 == leader);
            let _ = parent;
            process::exit(8);
        });
        sys!(SYS_exit, 3);
        0
    });
    say!("{}", wait(pid));
    let gate = Gate::new();
    let pid = child(|| {
        std::thread::spawn({
            let leader = tid();
            let gate = &raw const gate as usize;
            move || {
                // SAFETY: a copy of the gate in this process, which lives as long as its first stack.
                unsafe { &*(gate as *const Gate) }.pass();
                let _ = leader;
                // Only this thread ends: with it the process, with the leader's status.
                sys!(SYS_exit, 9);
            }
        });
        sys!(SYS_exit, 3);
        0
    });
    until_asleep(pid);
    let mut status = 0i32;
    while process::state(pid) != 'Z' {
        process::sleep_ms(1);
    }
    say!("a zombie leader with threads: {}", sys!(SYS_wait4, pid, &mut status, WNOHANG, 0));
    gate.open();
    say!("the last thread's exit: {}", wait(pid));
}
