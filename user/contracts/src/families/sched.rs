//! Scheduling: policies, priorities, affinity (sched(7)).

use libc::*;

use crate::process::{as_user, become_user, in_child, kill, sleeper, wait};
use crate::sys::{NOWHERE, Ret, sys};
use crate::{say, tests};

tests! {
    set_scheduler, set_scheduler_errors, as_a_user, parameters, priority_ranges, intervals, set_affinity,
    affinity_errors, nice_values, nice_of_others, nice_by_group_and_user, nice_of_a_mixed_group,
    attributes_get, attributes_set, attributes_refused, inherited, reset_on_fork, yields,
}

fn scheduler(pid: i32) -> Ret {
    sys!(SYS_sched_getscheduler, pid)
}

fn set(pid: i32, policy: i32, priority: i32) -> Ret {
    sys!(SYS_sched_setscheduler, pid, policy, &priority)
}

fn priority(pid: i32) -> String {
    let mut value = -1i32;
    let ret = sys!(SYS_sched_getparam, pid, &mut value);
    if ret.ok() { value.to_string() } else { ret.to_string() }
}

fn nice() -> i64 {
    20 - sys!(SYS_getpriority, PRIO_PROCESS, 0).0
}

fn set_scheduler() {
    in_child(|| {
        say!("at first: {} {}", scheduler(0), priority(0));
        for (policy, value) in
            [(SCHED_FIFO, 1), (SCHED_FIFO, 99), (SCHED_RR, 50), (SCHED_BATCH, 0), (SCHED_IDLE, 0), (SCHED_OTHER, 0)]
        {
            say!("{policy} {value}: {}, {} {}", set(0, policy, value), scheduler(0), priority(0));
        }
        0
    });
}

fn set_scheduler_errors() {
    in_child(|| {
        for (policy, value) in [
            (SCHED_FIFO, 0),
            (SCHED_FIFO, 100),
            (SCHED_FIFO, -1),
            (SCHED_RR, 0),
            (SCHED_OTHER, 1),
            (SCHED_BATCH, 1),
            (SCHED_IDLE, -1),
            (4, 0),
            (7, 0),
            (-1, 0),
            (99, 0),
        ] {
            say!("{policy} {value}: {}", set(0, policy, value));
        }
        say!("SCHED_DEADLINE: {}", set(0, 6, 0));
        say!("process -1: {}", set(-1, SCHED_OTHER, 0));
        say!("nobody: {}", set(4_000_000, SCHED_OTHER, 0));
        say!("no parameter: {}", sys!(SYS_sched_setscheduler, 0, SCHED_OTHER, 0));
        say!("parameter nowhere: {}", sys!(SYS_sched_setscheduler, 0, SCHED_OTHER, NOWHERE));
        say!("nobody and parameter nowhere: {}", sys!(SYS_sched_setscheduler, 4_000_000, SCHED_OTHER, NOWHERE));
        say!("get, -1: {}, nobody: {}", scheduler(-1), scheduler(4_000_000));
        0
    });
}

fn as_a_user() {
    as_user(1000, || {
        say!("SCHED_FIFO: {}", set(0, SCHED_FIFO, 1));
        say!("SCHED_RR: {}", set(0, SCHED_RR, 1));
        say!("SCHED_BATCH: {}", set(0, SCHED_BATCH, 0));
        say!("SCHED_IDLE: {}", set(0, SCHED_IDLE, 0));
        say!("back: {}", set(0, SCHED_OTHER, 0));
        say!("init's: {}", set(1, SCHED_OTHER, 0));
        say!("init's, to look at: {} {}", scheduler(1), priority(1));
        0
    });
    in_child(|| {
        set(0, SCHED_FIFO, 20);
        become_user(1000);
        say!("lower: {}", set(0, SCHED_FIFO, 10));
        say!("higher: {}", set(0, SCHED_FIFO, 11));
        say!("another policy, lower: {}", set(0, SCHED_RR, 5));
        say!("the same: {}", set(0, SCHED_RR, 5));
        say!("none: {}", set(0, SCHED_OTHER, 0));
        say!("again: {}", set(0, SCHED_RR, 1));
        0
    });
}

fn parameters() {
    in_child(|| {
        let set_parameter = |value: i32| sys!(SYS_sched_setparam, 0, &value);
        say!("0: {}, 1: {}", set_parameter(0), set_parameter(1));
        set(0, SCHED_FIFO, 10);
        say!("20: {}, {} {}", set_parameter(20), scheduler(0), priority(0));
        say!("0: {}, 100: {}", set_parameter(0), set_parameter(100));
        say!("no place: {}", sys!(SYS_sched_setparam, 0, 0));
        say!("nowhere: {}", sys!(SYS_sched_setparam, 0, NOWHERE));
        say!("nobody: {}", sys!(SYS_sched_setparam, 4_000_000, &1i32));
        say!("-1: {}", sys!(SYS_sched_setparam, -1, &1i32));
        let mut value = 0i32;
        say!("get, no place: {}", sys!(SYS_sched_getparam, 0, 0));
        say!("get to nowhere: {}", sys!(SYS_sched_getparam, 0, NOWHERE));
        say!("get, nobody: {}", sys!(SYS_sched_getparam, 4_000_000, &mut value));
        say!("get, -1: {}", sys!(SYS_sched_getparam, -1, &mut value));
        0
    });
}

fn priority_ranges() {
    for policy in -1..8 {
        let (low, high) = (sys!(SYS_sched_get_priority_min, policy), sys!(SYS_sched_get_priority_max, policy));
        say!("{policy}: {low} to {high}");
    }
    say!("with SCHED_RESET_ON_FORK: {}", sys!(SYS_sched_get_priority_max, SCHED_FIFO | 0x4000_0000));
}

fn intervals() {
    in_child(|| {
        let interval = || {
            let mut time = [9i64; 2];
            let ret = sys!(SYS_sched_rr_get_interval, 0, &mut time);
            (ret, time)
        };
        let (ret, time) = interval();
        say!("SCHED_OTHER: {ret}, some: {}", time[0] == 0 && time[1] > 0);
        set(0, SCHED_RR, 1);
        say!("SCHED_RR: {:?}", interval().1);
        set(0, SCHED_FIFO, 1);
        say!("SCHED_FIFO: {:?}", interval().1);
        let mut time = [0i64; 2];
        say!("-1: {}", sys!(SYS_sched_rr_get_interval, -1, &mut time));
        say!("nobody: {}", sys!(SYS_sched_rr_get_interval, 4_000_000, &mut time));
        say!("nowhere: {}", sys!(SYS_sched_rr_get_interval, 0, NOWHERE));
        0
    });
}

fn affinity(pid: i32) -> u64 {
    let mut mask = [0u64; 16];
    sys!(SYS_sched_getaffinity, pid, 128, &mut mask);
    mask[0]
}

fn set_affinity() {
    in_child(|| {
        let all = affinity(0);
        say!("the first: {}, {:#x}", sys!(SYS_sched_setaffinity, 0, 8, &1u64), affinity(0));
        let (mut cpu, mut node) = (9u32, 9u32);
        say!("it runs there: {} {cpu} {node}", sys!(SYS_getcpu, &mut cpu, &mut node, 0));
        say!("a child too: {}", in_child(|| i32::from(affinity(0) == 1)));
        say!("a thread too: {}", std::thread::spawn(|| affinity(0) == 1).join().unwrap_or(false));
        say!("more than there are: {}, {}", sys!(SYS_sched_setaffinity, 0, 8, &u64::MAX), affinity(0) == all);
        say!("none: {}", sys!(SYS_sched_setaffinity, 0, 8, &0u64));
        say!("only such as are not there: {}", sys!(SYS_sched_setaffinity, 0, 8, &(1u64 << 63)));
        say!("one byte: {}, {:#x}", sys!(SYS_sched_setaffinity, 0, 1, &1u64), affinity(0));
        say!("no byte: {}", sys!(SYS_sched_setaffinity, 0, 0, &1u64));
        0
    });
}

fn affinity_errors() {
    let mut mask = [0u64; 16];
    for size in [0, 1, 4, 7, 12] {
        say!("get, {size} bytes: {}", sys!(SYS_sched_getaffinity, 0, size, &mut mask));
    }
    say!("get, 128 bytes: {}", sys!(SYS_sched_getaffinity, 0, 128, &mut mask).0 > 0);
    say!("get, nobody: {}", sys!(SYS_sched_getaffinity, 4_000_000, 128, &mut mask));
    say!("get, -1: {}", sys!(SYS_sched_getaffinity, -1, 128, &mut mask));
    say!("get to nowhere: {}", sys!(SYS_sched_getaffinity, 0, 128, NOWHERE));
    say!("set, nobody: {}", sys!(SYS_sched_setaffinity, 4_000_000, 8, &1u64));
    say!("set, -1: {}", sys!(SYS_sched_setaffinity, -1, 8, &1u64));
    say!("set from nowhere: {}", sys!(SYS_sched_setaffinity, 0, 8, NOWHERE));
    say!("set, nobody, from nowhere: {}", sys!(SYS_sched_setaffinity, 4_000_000, 8, NOWHERE));
    as_user(1000, || {
        say!("init's, by a user: {}", sys!(SYS_sched_setaffinity, 1, 8, &1u64));
        say!("init's, to look at: {}", sys!(SYS_sched_getaffinity, 1, 128, &mut mask).0 > 0);
        0
    });
}

fn nice_values() {
    in_child(|| {
        for value in [5, 19, 20, 100, 0, -20, -21, i32::MIN, i32::MAX] {
            say!("{value}: {}, {}", sys!(SYS_setpriority, PRIO_PROCESS, 0, value), nice());
        }
        0
    });
    as_user(1000, || {
        say!("a user, 5: {}, {}", sys!(SYS_setpriority, PRIO_PROCESS, 0, 5), nice());
        say!("5 again: {}", sys!(SYS_setpriority, PRIO_PROCESS, 0, 5));
        say!("4: {}, {}", sys!(SYS_setpriority, PRIO_PROCESS, 0, 4), nice());
        say!("-1: {}", sys!(SYS_setpriority, PRIO_PROCESS, 0, -1));
        0
    });
    say!("which 3: {} {}", sys!(SYS_getpriority, 3, 0), sys!(SYS_setpriority, 3, 0, 0));
    say!("which -1: {} {}", sys!(SYS_getpriority, -1, 0), sys!(SYS_setpriority, -1, 0, 0));
    say!(
        "nobody: {} {}",
        sys!(SYS_getpriority, PRIO_PROCESS, 4_000_000),
        sys!(SYS_setpriority, PRIO_PROCESS, 4_000_000, 0)
    );
    say!("no group: {}", sys!(SYS_getpriority, PRIO_PGRP, 4_000_000));
    say!("no user: {}", sys!(SYS_getpriority, PRIO_USER, 4_000_000));
    say!("-1: {}", sys!(SYS_getpriority, PRIO_PROCESS, -1));
}

fn nice_of_others() {
    let pid = sleeper();
    say!("a child: {}, {}", sys!(SYS_setpriority, PRIO_PROCESS, pid, 7), sys!(SYS_getpriority, PRIO_PROCESS, pid));
    as_user(1000, || {
        say!("root's, by a user: {}", sys!(SYS_setpriority, PRIO_PROCESS, pid, 8));
        say!("to look at: {}", sys!(SYS_getpriority, PRIO_PROCESS, pid));
        say!("lower than it is: {}", sys!(SYS_setpriority, PRIO_PROCESS, pid, 1));
        0
    });
    in_child(|| {
        sys!(SYS_setresuid, 1000, 0, 1000);
        sys!(SYS_capset, &[0x2008_0522u32, 0], &[0u32; 6]);
        say!("effective root without capabilities, root's: {}", sys!(SYS_setpriority, PRIO_PROCESS, pid, 9));
        0
    });
    kill(pid, SIGKILL);
    wait(pid);
}

fn nice_by_group_and_user() {
    in_child(|| {
        sys!(SYS_setpgid, 0, 0);
        let (one, two) = (sleeper(), sleeper());
        say!("the group: {}", sys!(SYS_setpriority, PRIO_PGRP, 0, 6));
        sys!(SYS_setpriority, PRIO_PROCESS, two, 3);
        let of = |pid: i32| 20 - sys!(SYS_getpriority, PRIO_PROCESS, pid).0;
        say!("each: {} {} {}", of(0), of(one), of(two));
        say!("the best of the group: {}", sys!(SYS_getpriority, PRIO_PGRP, 0));
        0
    });
    in_child(|| {
        become_user(50_002);
        let one = sleeper();
        say!("the user: {}", sys!(SYS_setpriority, PRIO_USER, 0, 9));
        say!("each: {} {}", nice(), 20 - sys!(SYS_getpriority, PRIO_PROCESS, one).0);
        say!("by its id: {}", sys!(SYS_getpriority, PRIO_USER, 50_002));
        say!("root's: {}", sys!(SYS_setpriority, PRIO_USER, 0, 0));
        kill(one, SIGKILL);
        wait(one);
        0
    });
}

fn nice_of_a_mixed_group() {
    in_child(|| {
        sys!(SYS_setpgid, 0, 0);
        let of = |pid: i32| 20 - sys!(SYS_getpriority, PRIO_PROCESS, pid).0;
        let first = sleeper();
        as_user(1000, || {
            let own = sleeper();
            say!("root's in it, by a user: {}", sys!(SYS_setpriority, PRIO_PGRP, 0, 8));
            say!("each: {} {} {}", of(first), of(0), of(own));
            // Which of the two reasons it is told depends on who comes last.
            say!("lower than some are: {}", sys!(SYS_setpriority, PRIO_PGRP, 0, 2).ok());
            say!("each: {} {} {}", of(first), of(0), of(own));
            kill(own, SIGKILL);
            0
        });
        kill(first, SIGKILL);
        0
    });
}

/// `struct sched_attr` in 32-bit words: size, policy, flags (2), nice, priority, three times (2 each), clamps.
type Attributes = [u32; 14];

fn attributes(size: u32) -> String {
    let mut words: Attributes = [9; 14];
    let ret = sys!(SYS_sched_getattr, 0, &mut words, size, 0);
    if ret.ok() { format!("{:?} {:?}", &words[..6], &words[6..12]) } else { ret.to_string() }
}

fn attributes_get() {
    in_child(|| {
        say!("at first: {}", attributes(48));
        sys!(SYS_setpriority, PRIO_PROCESS, 0, 5);
        say!("nice 5: {}", attributes(48));
        set(0, SCHED_FIFO | 0x4000_0000, 7);
        say!("SCHED_FIFO with reset: {}", attributes(48));
        for size in [0, 47, 4097] {
            say!("{size} bytes: {}", attributes(size));
        }
        let mut words: Attributes = [0; 14];
        say!("flags: {}", sys!(SYS_sched_getattr, 0, &mut words, 48, 1));
        say!("nobody: {}", sys!(SYS_sched_getattr, 4_000_000, &mut words, 48, 0));
        say!("-1: {}", sys!(SYS_sched_getattr, -1, &mut words, 48, 0));
        say!("no place: {}", sys!(SYS_sched_getattr, 0, 0, 48, 0));
        say!("nowhere: {}", sys!(SYS_sched_getattr, 0, NOWHERE, 48, 0));
        0
    });
}

fn set_attributes(words: &Attributes) -> Ret {
    sys!(SYS_sched_setattr, 0, words, 0)
}

fn attributes_set() {
    let base: Attributes = [48, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let with = |policy: u32, nice: i32, priority: u32| {
        let mut words = base;
        (words[1], words[4], words[5]) = (policy, nice as u32, priority);
        words
    };
    in_child(|| {
        for (policy, value, priority) in
            [(0, 5, 0), (0, -3, 0), (0, 30, 0), (3, 2, 0), (1, 0, 5), (1, 9, 5), (2, 0, 99), (5, 0, 0), (0, 0, 0)]
        {
            let ret = set_attributes(&with(policy, value, priority));
            say!("{policy} {value} {priority}: {ret}, {} {}", scheduler(0), nice());
        }
        let mut keep = with(1, 0, 9);
        keep[2] = 8;
        say!("SCHED_FLAG_KEEP_POLICY: {}, {}", set_attributes(&keep), scheduler(0));
        let mut reset = with(1, 0, 9);
        reset[2] = 1;
        say!("SCHED_FLAG_RESET_ON_FORK: {}, {:#x}", set_attributes(&reset), scheduler(0).0);
        0
    });
}

fn attributes_refused() {
    let base: Attributes = [48, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let with = |index: usize, value: u32| {
        let mut words = base;
        words[index] = value;
        words
    };
    in_child(|| {
        say!("size 0: {}", set_attributes(&with(0, 0)));
        say!("size 47: {}", set_attributes(&with(0, 47)));
        let mut small = with(0, 47);
        set_attributes(&small);
        small[0] = 8;
        say!("size 8: {}, then it says {}", set_attributes(&small), small[0]);
        say!("size 5000: {}", set_attributes(&with(0, 5000)));
        say!("policy 4: {}", set_attributes(&with(1, 4)));
        say!("policy -1: {}", set_attributes(&with(1, u32::MAX)));
        say!("a priority: {}", set_attributes(&with(5, 1)));
        say!("unknown flags: {}", set_attributes(&with(2, 0x1000)));
        say!("flags: {}", sys!(SYS_sched_setattr, 0, &base, 1));
        say!("no place: {}", sys!(SYS_sched_setattr, 0, 0, 0));
        say!("nowhere: {}", sys!(SYS_sched_setattr, 0, NOWHERE, 0));
        say!("nobody: {}", sys!(SYS_sched_setattr, 4_000_000, &base, 0));
        say!("-1: {}", sys!(SYS_sched_setattr, -1, &base, 0));
        0
    });
    as_user(1000, || {
        say!(
            "a user, SCHED_FIFO: {}",
            set_attributes(&{
                let mut words = with(1, 1);
                words[5] = 1;
                words
            })
        );
        say!("nice -1: {}", set_attributes(&with(4, u32::MAX)));
        say!("nice 1: {}", set_attributes(&with(4, 1)));
        0
    });
}

fn inherited() {
    in_child(|| {
        set(0, SCHED_RR, 7);
        say!(
            "a child: {}",
            in_child(|| {
                say!("{} {}", scheduler(0), priority(0));
                0
            })
        );
        let thread = std::thread::spawn(|| say!("a thread: {} {}", scheduler(0), priority(0)));
        let _ = thread.join();
        set(0, SCHED_OTHER, 0);
        sys!(SYS_setpriority, PRIO_PROCESS, 0, 4);
        say!("nice: {}", in_child(|| nice() as i32));
        0
    });
}

fn reset_on_fork() {
    const RESET: i32 = 0x4000_0000;
    in_child(|| {
        say!("SCHED_FIFO: {}, {:#x}", set(0, SCHED_FIFO | RESET, 7), scheduler(0).0);
        in_child(|| {
            say!("a child: {:#x} {} nice {}", scheduler(0).0, priority(0), nice());
            0
        });
        say!("still: {:#x}", scheduler(0).0);
        set(0, SCHED_OTHER | RESET, 0);
        sys!(SYS_setpriority, PRIO_PROCESS, 0, -5);
        in_child(|| {
            say!("nice below zero: {:#x} {}", scheduler(0).0, nice());
            0
        });
        sys!(SYS_setpriority, PRIO_PROCESS, 0, 5);
        in_child(|| {
            say!("nice above zero: {}", nice());
            0
        });
        become_user(1000);
        say!("unset by a user: {}", set(0, SCHED_OTHER, 0));
        0
    });
}

fn yields() {
    say!("sched_yield: {}", sys!(SYS_sched_yield));
    in_child(|| {
        set(0, SCHED_FIFO, 1);
        say!("as SCHED_FIFO: {}", sys!(SYS_sched_yield));
        0
    });
}
