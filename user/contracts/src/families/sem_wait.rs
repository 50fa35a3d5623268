//! Waiting for System V semaphores: who goes on when, and what else ends a wait (semop(2)).

use libc::*;

use super::sem::{
    GETNCNT, GETZCNT, NO_WAIT, Op, SETVAL, UNDO, all, ctl, new, op, remove, set_all, timed, value, waiter,
};
use crate::memory::shared_words;
use crate::process::{self, child, sleep_ms, until_asleep, wait};
use crate::signal;
use crate::sys::{sys, zeroed};
use crate::{say, tests};

tests! {
    nowait, wait_for_more, wait_for_zero, order, order_of_zero, counts, timeouts, removed_while_waiting, interrupted, interrupted_by_stop,
}

fn nowait() {
    let id = new(2);
    say!("take: {}", op(id, &[Op(0, -1, NO_WAIT)]));
    op(id, &[Op(0, 1, 0)]);
    say!("zero: {}", op(id, &[Op(0, 0, NO_WAIT)]));
    say!("the flag of the one that blocks counts: {}", timed(id, &[Op(0, -1, NO_WAIT), Op(1, -1, 0)], 20));
    say!("or: {}", timed(id, &[Op(0, -1, 0), Op(1, -1, NO_WAIT)], 20));
    remove(id);
}

fn wait_for_more() {
    let id = new(1);
    let pid = waiter(id, &[Op(0, -3, 0)]);
    op(id, &[Op(0, 2, 0)]);
    sleep_ms(10);
    say!("two: {}, {}", process::state(pid), value(id, 0));
    op(id, &[Op(0, 2, 0)]);
    say!("four: {}, {}", wait(pid), value(id, 0));
    let pid = waiter(id, &[Op(0, -3, 0)]);
    ctl(id, 0, SETVAL, 10);
    say!("set: {}, {}", wait(pid), value(id, 0));
    let pid = waiter(id, &[Op(0, -30, 0)]);
    set_all(id, &[30]);
    say!("all set: {}, {}", wait(pid), value(id, 0));
    remove(id);
}

fn wait_for_zero() {
    let id = new(2);
    set_all(id, &[2, 0]);
    let pids: Vec<i32> = (0..3).map(|_| waiter(id, &[Op(0, 0, 0)])).collect();
    let both = waiter(id, &[Op(0, 0, 0), Op(1, 1, 0)]);
    op(id, &[Op(0, -1, 0)]);
    sleep_ms(10);
    say!("one: {}", process::state(pids[0]));
    // They see the zero, although it lasts for no time at all.
    let taker = waiter(id, &[Op(0, -7, 0)]);
    op(id, &[Op(0, -1, 0)]);
    op(id, &[Op(0, 7, 0)]);
    pids.into_iter().for_each(|pid| say!("{}", wait(pid)));
    say!("{} {}, {}", wait(both), wait(taker), all(id, 2));
    remove(id);
}

fn order() {
    let id = new(2);
    let log = shared_words();
    let start = |number: u32, take: i16| {
        let pid = child(move || {
            op(id, &[Op(0, -take, 0)]);
            let place = log[0].fetch_add(1, std::sync::atomic::Ordering::SeqCst) as usize;
            log[1 + place].store(number, std::sync::atomic::Ordering::SeqCst);
            op(id, &[Op(1, 1, 0)]);
            0
        });
        until_asleep(pid);
        pid
    };
    let pids = [start(1, 2), start(2, 1), start(3, 1), start(4, 3)];
    // One at a time: the next is let go when the last has told.
    for _ in 0..7 {
        op(id, &[Op(0, 1, 0)]);
        sleep_ms(20);
    }
    pids.into_iter().for_each(|pid| say!("{}", wait(pid)));
    let order: Vec<u32> = log[1..5].iter().map(|word| word.load(std::sync::atomic::Ordering::SeqCst)).collect();
    say!("order: {order:?}, {}", all(id, 2));
    remove(id);
}

fn order_of_zero() {
    let id = new(2);
    set_all(id, &[1, 0]);
    let adder = waiter(id, &[Op(1, -1, 0), Op(0, 1, 0)]);
    let zero = waiter(id, &[Op(0, 0, 0)]);
    say!("both: {}", op(id, &[Op(0, -1, 0), Op(1, 1, 0)]));
    say!("{} {}, {}", wait(adder), wait(zero), all(id, 2));
    remove(id);
}

fn counts() {
    let id = new(3);
    let counts = || {
        let of = |index| format!("{}/{}", ctl(id, index, GETNCNT, 0), ctl(id, index, GETZCNT, 0));
        format!("{} {} {}", of(0), of(1), of(2))
    };
    set_all(id, &[0, 1, 0]);
    let pids = [
        waiter(id, &[Op(0, -1, 0)]),
        waiter(id, &[Op(0, -2, 0), Op(1, 0, 0)]),
        waiter(id, &[Op(0, 0, 0), Op(1, 0, 0)]),
    ];
    say!("{}", counts());
    op(id, &[Op(0, 2, 0)]);
    sleep_ms(10);
    say!("after two: {}", counts());
    op(id, &[Op(0, 1, 0)]);
    sleep_ms(10);
    say!("after one more: {}", counts());
    remove(id);
    let ends: Vec<String> = pids.into_iter().map(|pid| wait(pid).to_string()).collect();
    say!("{ends:?}");
}

fn timeouts() {
    let id = new(1);
    let clock = || {
        let mut now: timespec = zeroed();
        sys!(SYS_clock_gettime, CLOCK_MONOTONIC, &mut now);
        now.tv_sec * 1000 + now.tv_nsec / 1_000_000
    };
    let start = clock();
    say!("50 ms: {}, it waited: {}", timed(id, &[Op(0, -1, 0)], 50), clock() - start >= 50);
    say!("none: {}", timed(id, &[Op(0, -1, 0)], 0));
    say!("nobody waits: {}", ctl(id, 0, GETNCNT, 0));
    op(id, &[Op(0, 1, 0)]);
    say!("none, but it can be done: {}", timed(id, &[Op(0, -1, 0)], 0));
    let pid = child(|| timed(id, &[Op(0, -1, 0)], 10_000).errno());
    until_asleep(pid);
    op(id, &[Op(0, 1, 0)]);
    say!("in time: {}, {}", wait(pid), value(id, 0));
    remove(id);
}

fn removed_while_waiting() {
    let id = new(2);
    let pids = [waiter(id, &[Op(0, -1, 0)]), waiter(id, &[Op(1, -1, UNDO)])];
    set_all(id, &[0, 0]);
    remove(id);
    pids.into_iter().for_each(|pid| say!("EIDRM is {EIDRM}: {}", wait(pid)));
}

fn interrupted() {
    let id = new(1);
    for (name, flags) in [("no restart", 0), ("SA_RESTART", SA_RESTART)] {
        let pid = child(|| {
            signal::handle(SIGUSR1, signal::count, flags);
            let ret = op(id, &[Op(0, -1, 0)]);
            say!("{name}: {ret}, handled: {}", signal::caught());
            0
        });
        until_asleep(pid);
        process::kill(pid, SIGUSR1);
        wait(pid);
    }
    say!("nobody waits: {}, {}", ctl(id, 0, GETNCNT, 0), value(id, 0));
    remove(id);
}

fn interrupted_by_stop() {
    let id = new(1);
    let pid = child(|| timed(id, &[Op(0, -1, 0)], 5000).errno());
    until_asleep(pid);
    process::kill(pid, SIGSTOP);
    while process::state(pid) != 'T' {
        sleep_ms(1);
    }
    process::kill(pid, SIGCONT);
    say!("EINTR is {EINTR}: {}", wait(pid));
    remove(id);
}
