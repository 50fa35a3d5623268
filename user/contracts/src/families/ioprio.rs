//! Priorities of input and output: ioprio_set(2), ioprio_get(2).

use libc::*;

use crate::process::{as_user, in_child, kill, sleeper, wait};
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! {
    at_first, classes, refused, refused_to_users, others, by_group_and_user, inherited, shared_on_demand,
}

const PROCESS: i32 = 1;
const GROUP: i32 = 2;
const USER: i32 = 3;

const fn priority(class: i32, level: i32) -> i32 {
    class << 13 | level
}

fn set(which: i32, who: i32, value: i32) -> Ret {
    sys!(SYS_ioprio_set, which, who, value)
}

fn get(which: i32, who: i32) -> Ret {
    sys!(SYS_ioprio_get, which, who)
}

fn at_first() {
    say!("{}", get(PROCESS, 0));
    say!("by its number: {}", get(PROCESS, unsafe { getpid() }));
}

fn classes() {
    in_child(|| {
        for (class, level) in [(1, 0), (1, 7), (2, 0), (2, 4), (2, 7), (3, 0), (3, 7), (3, 100), (0, 0)] {
            say!("{class} {level}: {}, {}", set(PROCESS, 0, priority(class, level)), get(PROCESS, 0));
        }
        0
    });
}

fn refused() {
    in_child(|| {
        for (class, level) in [(0, 1), (0, 7), (1, 8), (2, 8), (2, 0x1fff), (4, 0), (7, 0)] {
            say!("{class} {level}: {}", set(PROCESS, 0, priority(class, level)));
        }
        say!("more bits: {}, {}", set(PROCESS, 0, 1 << 16 | priority(2, 3)), get(PROCESS, 0));
        for which in [0, 4, -1] {
            say!("{which}: {} {}", set(which, 0, priority(2, 1)), get(which, 0));
        }
        say!("nobody: {} {}", set(PROCESS, 4_000_000, priority(2, 1)), get(PROCESS, 4_000_000));
        say!("no group: {} {}", set(GROUP, 4_000_000, priority(2, 1)), get(GROUP, 4_000_000));
        say!("no user: {} {}", set(USER, 4_000_000, priority(2, 1)), get(USER, 4_000_000));
        say!("nobody, no class: {}", set(PROCESS, 4_000_000, priority(5, 1)));
        0
    });
}

fn refused_to_users() {
    as_user(1000, || {
        for class in [1, 2, 3] {
            say!("{class}: {}, {}", set(PROCESS, 0, priority(class, 1)), get(PROCESS, 0));
        }
        say!("no level: {}", set(PROCESS, 0, priority(1, 9)));
        0
    });
}

fn others() {
    let pid = sleeper();
    say!("a child: {}, {}", set(PROCESS, pid, priority(2, 2)), get(PROCESS, pid));
    as_user(1000, || {
        say!("root's, by a user: {}", set(PROCESS, pid, priority(2, 3)));
        say!("to look at: {}", get(PROCESS, pid));
        0
    });
    kill(pid, SIGKILL);
    wait(pid);
}

fn by_group_and_user() {
    in_child(|| {
        sys!(SYS_setpgid, 0, 0);
        let (one, two) = (sleeper(), sleeper());
        set(PROCESS, one, priority(2, 6));
        say!("the best of the group: {}", get(GROUP, 0));
        say!("all of it: {}", set(GROUP, 0, priority(2, 5)));
        say!("{} {} {}", get(PROCESS, 0), get(PROCESS, one), get(PROCESS, two));
        set(PROCESS, two, priority(1, 3));
        say!("the best: {}", get(GROUP, 0));
        kill(one, SIGKILL);
        kill(two, SIGKILL);
        wait(one);
        wait(two);
        0
    });
    as_user(4321, || {
        say!("a user: {}, {}", set(USER, 0, priority(2, 7)), get(USER, 4321));
        0
    });
}

fn inherited() {
    in_child(|| {
        set(PROCESS, 0, priority(2, 1));
        in_child(|| {
            say!("a child: {}", get(PROCESS, 0));
            set(PROCESS, 0, priority(2, 6));
            0
        });
        say!("its own: {}", get(PROCESS, 0));
        let thread = std::thread::spawn(|| {
            let before = get(PROCESS, 0);
            set(PROCESS, 0, priority(3, 0));
            (before, get(PROCESS, 0))
        });
        let (before, after) = thread.join().unwrap_or((Ret(-1), Ret(-1)));
        say!("a thread: {before}, {after}; its own: {}", get(PROCESS, 0));
        0
    });
}

fn shared_on_demand() {
    const CLONE_IO: i64 = 0x8000_0000;
    in_child(|| {
        set(PROCESS, 0, priority(2, 1));
        let pid = sys!(SYS_clone, CLONE_IO | i64::from(SIGCHLD), 0, 0, 0, 0).0 as i32;
        if pid == 0 {
            set(PROCESS, 0, priority(2, 6));
            unsafe { _exit(0) };
        }
        wait(pid);
        say!("after a child with CLONE_IO: {}", get(PROCESS, 0));
        0
    });
}
