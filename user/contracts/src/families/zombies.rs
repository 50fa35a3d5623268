//! Children that have ended: whether they become zombies, who can wait for them, and what they leave.

use libc::*;

use super::wait::{WNOTHREAD, wait4, waitid, zombie};
use crate::process::{self, Gate, Status, child, clone_here, in_child, kill};
use crate::signal;
use crate::sys::{NOWHERE, sys, zeroed};
use crate::{say, tests};

tests! {
    no_wait, ignored_children, no_zombies_by_flag, ignored_too_late, clone_children, threads_children, grandchildren,
    rusage_of_children, adopted_zombies,
}

fn no_wait() {
    let pid = child(|| 3);
    for _ in 0..3 {
        say!("WNOWAIT: {}", waitid(P_PID, pid, WEXITED | WNOWAIT, pid));
    }
    say!("a zombie: {}", process::state(pid));
    say!("signal: {}", kill(pid, 0));
    say!("at last: {}", waitid(P_PID, pid, WEXITED, pid));
    say!("no more: {}", waitid(P_PID, pid, WEXITED, pid));
    say!("signal: {}", kill(pid, 0));
}

fn ignored_children() {
    signal::ignore(SIGCHLD);
    let gate = Gate::new();
    let pid = child(|| {
        gate.pass();
        3
    });
    say!("it runs: {}", wait4(pid, WNOHANG));
    gate.open();
    say!("wait until its end: {}", wait4(pid, 0));
    let (one, two) = (child(|| 1), child(|| 2));
    let _ = (one, two);
    say!("any: {}", wait4(-1, 0));
    say!("waitid: {}", waitid(P_ALL, 0, WEXITED, 0));
    signal::default(SIGCHLD);
    let pid = child(|| 4);
    say!("the default does not mean so: {}", wait4(pid, 0));
}

fn no_zombies_by_flag() {
    signal::handle(SIGCHLD, signal::count, SA_NOCLDWAIT);
    say!("SA_NOCLDWAIT: {}", {
        let pid = child(|| 3);
        loop {
            match wait4(pid, 0) {
                text if text == "EINTR" => {}
                text => break text,
            }
        }
    });
    say!("the signal comes: {}", signal::caught());
    signal::handle(SIGCHLD, signal::count, 0);
    let gate = Gate::new();
    let pid = child(|| {
        gate.pass();
        3
    });
    signal::block(SIGCHLD);
    gate.open();
    say!("without: {}", wait4(pid, 0));
    say!("pending: {}", signal::names(signal::pending()));
}

fn ignored_too_late() {
    let pid = zombie(3);
    signal::ignore(SIGCHLD);
    say!("a zombie stays one: {}", process::state(pid));
    say!("it can be waited for: {}", wait4(pid, 0));
}

fn clone_children() {
    let gate = Gate::new();
    let start = |signal: i32| {
        let pid = clone_here(signal, std::ptr::null_mut(), std::ptr::null_mut()).need() as i32;
        if pid == 0 {
            gate.pass();
            process::exit(5);
        }
        pid
    };
    let pid = start(SIGUSR1);
    signal::ignore(SIGUSR1);
    say!("plain wait: {}", wait4(pid, 0));
    say!("WNOHANG: {}", wait4(-1, WNOHANG));
    say!("__WCLONE: {}", wait4(pid, __WCLONE | WNOHANG));
    say!("__WALL: {}", wait4(pid, __WALL | WNOHANG));
    gate.open();
    say!("__WCLONE: {}", wait4(pid, __WCLONE));
    let pid = start(0);
    gate.open();
    say!("no signal, waitid: {}", waitid(P_PID, pid, WEXITED, pid));
    say!("__WALL: {}", waitid(P_PID, pid, WEXITED | __WALL, pid));
    let pid = start(SIGCHLD);
    gate.open();
    say!("SIGCHLD with __WCLONE: {}", wait4(pid, __WCLONE));
    say!("__WALL | __WCLONE: {}", wait4(pid, __WALL | __WCLONE));
}

fn threads_children() {
    // A child belongs to the thread that made it, unless nobody asks.
    let (sender, receiver) = std::sync::mpsc::channel();
    let gate = std::sync::Arc::new(Gate::new());
    let passed = gate.clone();
    let thread = std::thread::spawn(move || {
        let pid = child(|| 7);
        let _ = sender.send(pid);
        passed.pass();
        say!("its own: {}", wait4(pid, WNOTHREAD));
        let pid = child(|| 8);
        let _ = sender.send(pid);
    });
    let pid = receiver.recv().unwrap_or(0);
    say!("another thread's child with __WNOTHREAD: {}", wait4(pid, WNOTHREAD | WNOHANG));
    say!("can be seen without: {}", waitid(P_PID, pid, WEXITED | WNOWAIT, pid));
    gate.open();
    let _ = thread.join();
    let pid = receiver.recv().unwrap_or(0);
    say!("of a thread that has ended: {}", wait4(pid, 0));
}

fn grandchildren() {
    let gate = Gate::new();
    let told = Gate::new();
    let pid = child(|| {
        let grandchild = child(|| {
            gate.pass();
            0
        });
        let _ = grandchild;
        told.open();
        0
    });
    told.pass();
    say!("the child: {}", wait4(pid, 0));
    say!("its child is not this one's: {}", wait4(-1, WNOHANG));
    gate.open();
}

fn rusage_of_children() {
    let own = |who: i32| {
        let mut usage: rusage = zeroed();
        let ret = sys!(SYS_getrusage, who, &mut usage);
        (ret, usage)
    };
    let busy = |usage: &rusage| {
        (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1_000_000 + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec)
    };
    say!("children at first: {}", busy(&own(RUSAGE_CHILDREN).1));
    let pid = child(|| {
        let mut now: timespec = zeroed();
        loop {
            sys!(SYS_clock_gettime, CLOCK_PROCESS_CPUTIME_ID, &mut now);
            if now.tv_nsec > 60_000_000 || now.tv_sec > 0 {
                return 0;
            }
        }
    });
    let mut info: siginfo_t = zeroed();
    sys!(SYS_waitid, P_PID, pid, &mut info, WEXITED | WNOWAIT, 0);
    say!("of a zombie they are not yet: {}", busy(&own(RUSAGE_CHILDREN).1));
    let mut usage: rusage = zeroed();
    let mut status = 0i32;
    sys!(SYS_wait4, pid, &mut status, 0, &mut usage);
    say!("wait4 tells: {}", busy(&usage) >= 40_000);
    say!("now: {}", busy(&own(RUSAGE_CHILDREN).1) >= 40_000);
    say!("RUSAGE_THREAD: {}", own(RUSAGE_THREAD).0);
    say!("who 2: {}, who -2: {}", own(2).0, own(-2).0);
    say!("bad pointer: {}", sys!(SYS_getrusage, RUSAGE_SELF, NOWHERE));
    signal::ignore(SIGCHLD);
    let before = busy(&own(RUSAGE_CHILDREN).1);
    let pid = child(|| (0..10_000_000u64).fold(0, |sum, value| sum ^ std::hint::black_box(value)) as i32 & 1);
    wait4(pid, 0);
    say!("of those that are not waited for they are never: {}", busy(&own(RUSAGE_CHILDREN).1) == before);
}

/// Zombies come to another parent by the hundred: who finds one has its signal.
fn adopted_zombies() {
    const COUNT: usize = 100;
    let status = in_child(|| {
        sys!(SYS_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0).need();
        signal::block(SIGCHLD);
        let parent = child(|| {
            let pids: Vec<i32> = (0..COUNT).map(|_| child(|| 3)).collect();
            let mut info: siginfo_t = zeroed();
            for pid in pids {
                sys!(SYS_waitid, P_PID, pid, &mut info, WEXITED | WNOWAIT, 0);
            }
            5
        });
        let (mut adopted, mut told, mut first) = (0, 0, 0);
        for _ in 0..=COUNT {
            let mut status = 0i32;
            let pid = sys!(SYS_wait4, -1, &mut status, 0, 0).0 as i32;
            told += i32::from(signal::pending() & signal::bit(SIGCHLD) != 0);
            if pid == parent {
                first = status;
            } else {
                adopted += i32::from(status == 3 << 8);
            }
        }
        say!("their parent: {}", Status::from_wait(first));
        say!("adopted: {adopted}, with a signal pending: {told}");
        say!("then: {}", sys!(SYS_wait4, -1, 0, 0, 0));
        0
    });
    say!("{status}");
}
