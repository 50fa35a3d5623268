//! System V semaphores: semget(2), semop(2), semctl(2).

use std::ptr::null;

use libc::*;

use super::sysv::{CREATE, EXCLUSIVE, INFO, NOWAIT, PRIVATE, Perm, REMOVE, SET, STAT, lines_of};
use crate::memory::shared_words;
use crate::process::{self, Gate, as_plain_user, child, in_child, sleep_ms, tid, until_asleep, wait};
use crate::signal;
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    get, get_refused, limits_of_a_set, values, values_refused, stat, info, stat_by_place, permissions, change_owner,
    operations, operations_refused, all_or_nothing, nowait, wait_for_more, wait_for_zero, order, order_of_zero, counts,
    pids, timeouts, removed_while_waiting, interrupted, interrupted_by_stop, undo, undo_clamped, undo_of_threads,
    undo_after_exec, undo_given_up, undo_forgotten, undo_range, proc_file, settings,
}

const GETPID: i32 = 11;
const GETVAL: i32 = 12;
const GETALL: i32 = 13;
const GETNCNT: i32 = 14;
const GETZCNT: i32 = 15;
const SETVAL: i32 = 16;
const SETALL: i32 = 17;
const SEM_STAT: i32 = 18;
const SEM_INFO: i32 = 19;
const SEM_STAT_ANY: i32 = 20;
const UNDO: i16 = 0x1000;
const KEY: i32 = 0x5e3a_0001;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Status {
    perm: Perm,
    otime: i64,
    ctime: i64,
    count: u64,
    unused: [u64; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Op(u16, i16, i16);

const NO_WAIT: i16 = NOWAIT as i16;

fn semget(key: i32, count: i32, flags: i32) -> Ret {
    sys!(SYS_semget, key, count, flags)
}

fn new(count: i32) -> i32 {
    semget(PRIVATE, count, 0o600).need() as i32
}

fn ctl(id: i32, index: i32, command: i32, arg: usize) -> Ret {
    sys!(SYS_semctl, id, index, command, arg)
}

fn remove(id: i32) -> Ret {
    ctl(id, 0, REMOVE, 0)
}

fn op(id: i32, ops: &[Op]) -> Ret {
    sys!(SYS_semop, id, ops, ops.len())
}

fn timed(id: i32, ops: &[Op], milliseconds: i64) -> Ret {
    let time = timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 };
    sys!(SYS_semtimedop, id, ops, ops.len(), &time)
}

fn value(id: i32, index: i32) -> Ret {
    ctl(id, index, GETVAL, 0)
}

fn all(id: i32, count: usize) -> String {
    let mut values = vec![0u16; count];
    let ret = ctl(id, 0, GETALL, values.as_mut_ptr() as usize);
    if ret.ok() { format!("{values:?}") } else { ret.to_string() }
}

fn set_all(id: i32, values: &[u16]) -> Ret {
    ctl(id, 0, SETALL, values.as_ptr() as usize)
}

fn status(id: i32) -> Status {
    let mut status: Status = zeroed();
    ctl(id, 0, STAT, &raw mut status as usize).need();
    status
}

/// A child that does these operations and then exits with the error.
fn waiter(id: i32, ops: &'static [Op]) -> i32 {
    let pid = child(move || op(id, ops).errno());
    until_asleep(pid);
    pid
}

fn get() {
    let first = semget(KEY, 3, CREATE | 0o640);
    say!("new: {}", first.ok_or_error());
    say!("again: {}", semget(KEY, 3, 0) == first);
    say!("with fewer: {}", semget(KEY, 1, 0) == first);
    say!("with none: {}", semget(KEY, 0, CREATE | 0o777) == first);
    say!("with more: {}", semget(KEY, 4, 0));
    say!("exclusive: {}", semget(KEY, 3, CREATE | EXCLUSIVE));
    say!("exclusive without create: {}", semget(KEY, 3, EXCLUSIVE) == first);
    let private = [new(1), new(1)];
    say!("private: {}", private[0] != private[1]);
    private.into_iter().for_each(|id| _ = remove(id));
    let id = first.need() as i32;
    say!("values: {}", all(id, 3));
    say!("remove: {}", remove(id));
    say!("again: {}", remove(id));
    say!("by key: {}", semget(KEY, 3, 0));
    say!("the next id is another: {}", semget(KEY, 1, CREATE).need() as i32 != id);
    remove(semget(KEY, 1, 0).need() as i32);
}

fn get_refused() {
    say!("no key: {}", semget(KEY, 1, 0));
    say!("no semaphores: {}", semget(KEY, 0, CREATE));
    say!("none private: {}", semget(PRIVATE, 0, 0o600));
    say!("-1: {}", semget(PRIVATE, -1, 0o600));
    say!("32001: {}", semget(PRIVATE, 32001, 0o600));
    for id in [-1, 0x7fff_ffff, 32767] {
        say!("{id}: {} {} {}", remove(id), value(id, 0), op(id, &[Op(0, 1, 0)]));
    }
}

fn limits_of_a_set() {
    let id = semget(PRIVATE, 32000, 0o600).need() as i32;
    say!("the last: {}", op(id, &[Op(31999, 5, 0)]));
    say!("its value: {}", value(id, 31999));
    say!("one more: {}", value(id, 32000));
    say!("{}", remove(id));
}

fn values() {
    let id = new(4);
    say!("set all: {}", set_all(id, &[1, 2, 32767, 0]));
    say!("{}", all(id, 4));
    say!("set one: {}", ctl(id, 1, SETVAL, 9));
    say!("{} {}", value(id, 1), all(id, 4));
    say!("upper half of the argument: {}", ctl(id, 0, SETVAL, 7 | 5 << 32));
    say!("{}", value(id, 0));
    remove(id);
}

fn values_refused() {
    let id = new(2);
    say!("-1: {}", ctl(id, 0, SETVAL, -1isize as usize));
    say!("32768: {}", ctl(id, 0, SETVAL, 32768));
    say!("no such semaphore: {} {}", ctl(id, 2, SETVAL, 1), ctl(id, -1, SETVAL, 1));
    say!("no such semaphore, no such value: {}", ctl(id, 2, SETVAL, 40000));
    say!("get: {} {}", value(id, 2), value(id, -1));
    say!("all, one too large: {}", set_all(id, &[1, 32768]));
    say!("{}", all(id, 2));
    say!("from nowhere: {}", ctl(id, 0, SETALL, NOWHERE as usize));
    say!("to nowhere: {}", ctl(id, 0, GETALL, NOWHERE as usize));
    say!("index of all: {}", ctl(id, 99, GETALL, NOWHERE as usize));
    say!("commands: {} {} {}", ctl(id, 0, 10, 0), ctl(id, 0, 21, 0), ctl(id, 0, -1, 0));
    say!("IPC_64: {}", ctl(id, 0, STAT | 0x100, 0));
    remove(id);
}

fn stat() {
    let id = semget(KEY, 5, CREATE | 0o1654).need() as i32;
    let before = status(id);
    let perm = before.perm;
    say!("key {:#x}, ids {} {} {} {}", perm.key, perm.uid, perm.gid, perm.cuid, perm.cgid);
    say!("mode {:o}, sequence of the id: {}", perm.mode, perm.seq == (id >> 15) as u16);
    say!("semaphores: {}, never used: {}, changed: {}", before.count, before.otime == 0, before.ctime > 1_000_000_000);
    op(id, &[Op(0, 1, 0)]);
    let after = status(id);
    say!("used: {}", after.otime >= before.ctime);
    say!("to nowhere: {}", ctl(id, 0, STAT, NOWHERE as usize));
    remove(id);
}

fn info() {
    let id = new(7);
    let mut words = [0i32; 10];
    let highest = ctl(0, 0, INFO, words.as_mut_ptr() as usize);
    say!("{words:?}, a place: {}", highest.ok());
    let used = ctl(0, 0, SEM_INFO, words.as_mut_ptr() as usize);
    say!("{words:?}, the same: {}", used == highest);
    say!("of any id: {}", ctl(12345, 0, INFO, words.as_mut_ptr() as usize) == highest);
    say!("-1: {}", ctl(-1, 0, INFO, words.as_mut_ptr() as usize));
    say!("to nowhere: {}", ctl(0, 0, INFO, NOWHERE as usize));
    remove(id);
}

fn stat_by_place() {
    let id = new(3);
    let place = id & 0x7fff;
    let mut found: Status = zeroed();
    say!("the id: {}", ctl(place, 0, SEM_STAT, &raw mut found as usize).0 as i32 == id);
    say!("semaphores: {}", found.count);
    say!("any: {}", ctl(place, 0, SEM_STAT_ANY, &raw mut found as usize).0 as i32 == id);
    ctl(id, 0, SET, &raw const found as usize);
    as_plain_user(|| {
        let mut found: Status = zeroed();
        say!("another user: {}", ctl(place, 0, SEM_STAT, &raw mut found as usize));
        say!("any: {}", ctl(place, 0, SEM_STAT_ANY, &raw mut found as usize).0 as i32 == id);
    });
    remove(id);
    say!("none: {}", ctl(place, 0, SEM_STAT, &raw mut found as usize));
}

fn permissions() {
    for mode in [0o600, 0o604, 0o602, 0o606, 0o060] {
        let id = semget(KEY, 1, CREATE | mode).need() as i32;
        as_plain_user(|| {
            say!("{mode:o}: read {}, set {}", value(id, 0), ctl(id, 0, SETVAL, 1));
            say!("  wait for 0 {}, change {}", op(id, &[Op(0, 0, NO_WAIT)]), op(id, &[Op(0, 1, 0)]));
            let asked = [0o400, 0o200, 0o600, 0o004].map(|flags| semget(KEY, 1, flags).ok_or_error());
            say!("  get {asked:?}, remove {}", remove(id));
        });
        remove(id);
    }
}

fn change_owner() {
    let id = semget(KEY, 1, CREATE | 0o600).need() as i32;
    let mut new = status(id);
    new.perm.uid = 1000;
    new.perm.mode = 0o7777_0640;
    new.perm.key = 5;
    say!("set: {}", ctl(id, 0, SET, &raw const new as usize));
    let after = status(id).perm;
    say!("key {:#x}, uid {}, cuid {}, mode {:o}", after.key, after.uid, after.cuid, after.mode);
    as_plain_user(|| {
        say!("the owner: {}", op(id, &[Op(0, 1, 0)]));
        let mut mine = status(id);
        mine.perm.mode = 0o400;
        say!("sets: {}", ctl(id, 0, SET, &raw const mine as usize));
        say!("may not change it now: {}", op(id, &[Op(0, 1, 0)]));
        mine.perm.uid = u32::MAX;
        say!("-1: {}", ctl(id, 0, SET, &raw const mine as usize));
        mine.perm.uid = 3;
        say!("gives it away: {}", ctl(id, 0, SET, &raw const mine as usize));
        say!("wants it back: {}", ctl(id, 0, SET, &raw const mine as usize));
        say!("removes it: {}", remove(id));
    });
    say!("from nowhere: {}", ctl(id, 0, SET, NOWHERE as usize));
    say!("from nowhere, of no set: {}", ctl(id + 1, 0, SET, NOWHERE as usize));
    remove(id);
}

fn operations() {
    let id = new(2);
    say!("add: {} {}", op(id, &[Op(0, 3, 0)]), all(id, 2));
    say!("take: {} {}", op(id, &[Op(0, -2, 0)]), all(id, 2));
    say!("several: {} {}", op(id, &[Op(0, -1, 0), Op(1, 4, 0), Op(0, 0, 0)]), all(id, 2));
    say!("one after another: {} {}", op(id, &[Op(0, 5, 0), Op(0, -4, 0), Op(1, -4, 0), Op(1, 0, 0)]), all(id, 2));
    say!("unknown flags: {} {}", op(id, &[Op(0, 1, 0x20)]), all(id, 2));
    remove(id);
}

fn operations_refused() {
    let id = new(2);
    say!("none: {}", op(id, &[]));
    say!("500: {}", op(id, &[Op(0, 1, 0); 500]));
    say!("501: {}", op(id, &[Op(0, 1, 0); 501]));
    say!("501 of nowhere: {}", sys!(SYS_semop, id, NOWHERE, 501));
    say!("no such semaphore: {}", op(id, &[Op(1, 1, 0), Op(2, 1, 0)]));
    say!("nowhere: {}", sys!(SYS_semop, id, NOWHERE, 1));
    say!("nowhere, no set: {}", sys!(SYS_semop, -1, NOWHERE, 1));
    say!("time from nowhere: {}", sys!(SYS_semtimedop, id, &[Op(0, 1, 0)], 1, NOWHERE));
    let bad = timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
    say!("bad time: {}", sys!(SYS_semtimedop, id, &[Op(0, 1, 0)], 1, &bad));
    say!("bad time, no such semaphore: {}", sys!(SYS_semtimedop, id, &[Op(9, 1, 0)], 1, &bad));
    say!("no time: {}", sys!(SYS_semtimedop, id, &[Op(0, 1, 0)], 1, null::<timespec>()));
    set_all(id, &[32767, 32760]);
    say!("too large: {} {}", op(id, &[Op(1, 7, 0), Op(0, 1, 0)]), all(id, 2));
    say!("much too large: {} {}", op(id, &[Op(1, 32767, 0)]), all(id, 2));
    remove(id);
}

fn all_or_nothing() {
    let id = new(3);
    set_all(id, &[1, 0, 5]);
    say!("{} {}", op(id, &[Op(0, -1, 0), Op(2, -5, 0), Op(1, -1, NO_WAIT)]), all(id, 3));
    let pid = waiter(id, &[Op(0, -1, 0), Op(1, -1, 0), Op(2, 1, 0)]);
    say!("while one waits: {}", all(id, 3));
    say!("the first is taken: {}", op(id, &[Op(0, -1, 0)]));
    say!("the second comes: {}", op(id, &[Op(1, 1, 0)]));
    sleep_ms(20);
    say!("it still waits: {}, {}", process::state(pid), all(id, 3));
    say!("the first comes back: {}", op(id, &[Op(0, 1, 0)]));
    say!("{}, {}", wait(pid), all(id, 3));
    remove(id);
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

fn pids() {
    let id = new(3);
    let own = process::pid() as i64;
    let of = |index| match ctl(id, index, GETPID, 0).0 {
        0 => "nobody",
        pid if pid == own => "own",
        _ => "another",
    };
    let shown = || format!("{} {} {}", of(0), of(1), of(2));
    say!("{}", shown());
    op(id, &[Op(0, 1, 0), Op(1, 0, 0)]);
    say!("operation: {}", shown());
    in_child(|| {
        ctl(id, 2, SETVAL, 1);
        0
    });
    say!("set by a child: {}", shown());
    let pid = waiter(id, &[Op(1, -1, 0)]);
    op(id, &[Op(1, 1, 0)]);
    wait(pid);
    say!("a waiter's operation: {}", shown());
    set_all(id, &[0, 0, 0]);
    say!("all: {}", shown());
    remove(id);
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

fn undo() {
    let id = new(2);
    set_all(id, &[5, 0]);
    in_child(|| {
        op(id, &[Op(0, -2, UNDO), Op(1, 3, UNDO)]);
        op(id, &[Op(0, -1, 0), Op(1, -1, UNDO)]);
        say!("in between: {}", all(id, 2));
        0
    });
    say!("after its end: {}", all(id, 2));
    let gate = Gate::new();
    let holder = child(|| {
        op(id, &[Op(0, -4, UNDO)]);
        gate.pass();
        0
    });
    until_asleep(holder);
    let pid = waiter(id, &[Op(0, -3, 0)]);
    say!("held: {}, {}", all(id, 2), process::state(pid));
    gate.open();
    say!("{} {}, {}", wait(holder), wait(pid), all(id, 2));
    let killed = child(|| {
        op(id, &[Op(0, 7, UNDO)]);
        process::sleep_ms(100_000);
        0
    });
    until_asleep(killed);
    say!("before the kill: {}", all(id, 2));
    process::kill(killed, SIGKILL);
    say!("{}, {}", wait(killed), all(id, 2));
    in_child(|| {
        op(id, &[Op(0, 1, UNDO)]);
        in_child(|| 0);
        say!("a child's end undoes nothing of its parent's: {}", all(id, 2));
        0
    });
    say!("{}", all(id, 2));
    remove(id);
}

fn undo_clamped() {
    let id = new(2);
    in_child(|| {
        op(id, &[Op(0, 5, UNDO)]);
        op(id, &[Op(0, -3, 0)]);
        op(id, &[Op(1, 10, 0)]);
        op(id, &[Op(1, -10, UNDO)]);
        op(id, &[Op(1, 32760, 0)]);
        0
    });
    say!("{}", all(id, 2));
    remove(id);
}

fn undo_of_threads() {
    let id = new(1);
    let gate = Gate::new();
    let pid = child(|| {
        std::thread::spawn(move || op(id, &[Op(0, 4, UNDO)])).join().ok();
        say!("after the thread's end: {}", value(id, 0));
        gate.pass();
        0
    });
    until_asleep(pid);
    gate.open();
    say!("{}, {}", wait(pid), value(id, 0));
    // Without CLONE_SYSVSEM, even if all else is shared.
    let mut stack = vec![0u8; 64 << 10];
    extern "C" fn add(id: usize) -> i32 {
        op(id as i32, &[Op(0, 4, UNDO)]);
        0
    }
    for (name, flags) in [("alone", 0), ("together", CLONE_SYSVSEM)] {
        let mut word = [tid(); 1];
        let tids = [std::ptr::null_mut(), word.as_mut_ptr()];
        let flags = flags | CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_CHILD_CLEARTID;
        process::clone_on(flags, &mut stack, tids, add, id as usize).need();
        // SAFETY: the kernel clears the word.
        while unsafe { word.as_ptr().read_volatile() } != 0 {
            sleep_ms(1);
        }
        sleep_ms(20);
        say!("{name}: {}", value(id, 0));
    }
    remove(id);
}

fn undo_after_exec() {
    let id = new(1);
    let pid = child(|| {
        op(id, &[Op(0, 4, UNDO)]);
        let path = c"/proc/self/exe";
        let guise = c"--as";
        let words = [path.as_ptr(), guise.as_ptr(), c"nothing".as_ptr(), null()];
        sys!(SYS_execve, path, &words, &[0usize; 1]);
        9
    });
    say!("{}, {}", wait(pid), value(id, 0));
    remove(id);
}

fn undo_given_up() {
    let id = new(1);
    in_child(|| {
        op(id, &[Op(0, 4, UNDO)]);
        say!("unshare: {}, {}", sys!(SYS_unshare, CLONE_SYSVSEM), value(id, 0));
        op(id, &[Op(0, 2, UNDO)]);
        say!("after it: {}", value(id, 0));
        0
    });
    say!("{}", value(id, 0));
    remove(id);
}

fn undo_forgotten() {
    let id = new(2);
    in_child(|| {
        op(id, &[Op(0, 4, UNDO), Op(1, 4, UNDO)]);
        ctl(id, 0, SETVAL, 7);
        0
    });
    say!("SETVAL: {}", all(id, 2));
    in_child(|| {
        op(id, &[Op(0, 4, UNDO), Op(1, 4, UNDO)]);
        set_all(id, &[8, 9]);
        0
    });
    say!("SETALL: {}", all(id, 2));
    in_child(|| {
        op(id, &[Op(0, 4, UNDO)]);
        remove(id);
        0
    });
    say!("removed: {}", value(id, 0));
}

fn undo_range() {
    let id = new(1);
    in_child(|| {
        say!("up: {}", op(id, &[Op(0, 32767, UNDO)]));
        say!("down without: {}", op(id, &[Op(0, -32767, 0)]));
        say!("one more: {}", op(id, &[Op(0, 1, UNDO)]));
        say!("two more: {} {}", op(id, &[Op(0, 1, UNDO)]), value(id, 0));
        0
    });
    say!("{}", value(id, 0));
    remove(id);
}

fn proc_file() {
    let id = semget(KEY, 5, CREATE | 0o1654).need() as i32;
    lines_of("sem", KEY);
    remove(id);
}

fn settings() {
    let path = "/proc/sys/kernel/sem";
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    let write = |text: &str| std::fs::write(path, text).map_err(|error| error.raw_os_error()).err();
    say!("{:?}", read());
    say!("in a set 2: {:?}", write("2\n"));
    say!("{:?}, 3: {}", read(), semget(PRIVATE, 3, 0o600));
    say!("in all 4, in a call 1, sets 2: {:?}", write("10 4 1 2"));
    let ids = [semget(PRIVATE, 2, 0o600), semget(PRIVATE, 3, 0o600), semget(PRIVATE, 1, 0o600)];
    say!("{} {} {}", ids[0].ok_or_error(), ids[1].ok_or_error(), ids[2].ok_or_error());
    say!("a third: {}", semget(PRIVATE, 1, 0o600));
    say!("two operations: {}", op(ids[0].0 as i32, &[Op(0, 1, 0), Op(1, 1, 0)]));
    for text in ["x", "1 2 3 32769", "1 2 3 4 5"] {
        say!("{text}: {:?} {:?}", write(text), read());
    }
    write("32000 1024000000 500 32000");
    say!("{:?}", read());
    ids.into_iter().filter(|id| id.ok()).for_each(|id| _ = remove(id.0 as i32));
    as_plain_user(|| say!("another user: {:?}", write("1")));
}
