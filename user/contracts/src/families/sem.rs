//! System V semaphores: semget(2), semop(2), semctl(2).

use std::ptr::null;

use libc::*;

use super::sysv::{CREATE, EXCLUSIVE, INFO, NOWAIT, PRIVATE, Perm, REMOVE, SET, STAT, lines_of};
use crate::process::{self, as_plain_user, child, in_child, sleep_ms, until_asleep, wait};
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    get, get_refused, limits_of_a_set, values, values_refused, stat, info, stat_by_place, permissions, change_owner,
    operations, operations_refused, all_or_nothing,     pids,     proc_file, settings,
}

const GETPID: i32 = 11;
const GETVAL: i32 = 12;
const GETALL: i32 = 13;
pub(super) const GETNCNT: i32 = 14;
pub(super) const GETZCNT: i32 = 15;
pub(super) const SETVAL: i32 = 16;
const SETALL: i32 = 17;
const SEM_STAT: i32 = 18;
const SEM_INFO: i32 = 19;
const SEM_STAT_ANY: i32 = 20;
pub(super) const UNDO: i16 = 0x1000;
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
pub(super) struct Op(pub u16, pub i16, pub i16);

pub(super) const NO_WAIT: i16 = NOWAIT as i16;

fn semget(key: i32, count: i32, flags: i32) -> Ret {
    sys!(SYS_semget, key, count, flags)
}

pub(super) fn new(count: i32) -> i32 {
    semget(PRIVATE, count, 0o600).need() as i32
}

pub(super) fn ctl(id: i32, index: i32, command: i32, arg: usize) -> Ret {
    sys!(SYS_semctl, id, index, command, arg)
}

pub(super) fn remove(id: i32) -> Ret {
    ctl(id, 0, REMOVE, 0)
}

pub(super) fn op(id: i32, ops: &[Op]) -> Ret {
    sys!(SYS_semop, id, ops, ops.len())
}

pub(super) fn timed(id: i32, ops: &[Op], milliseconds: i64) -> Ret {
    let time = timespec { tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000 };
    sys!(SYS_semtimedop, id, ops, ops.len(), &time)
}

pub(super) fn value(id: i32, index: i32) -> Ret {
    ctl(id, index, GETVAL, 0)
}

pub(super) fn all(id: i32, count: usize) -> String {
    let mut values = vec![0u16; count];
    let ret = ctl(id, 0, GETALL, values.as_mut_ptr() as usize);
    if ret.ok() { format!("{values:?}") } else { ret.to_string() }
}

pub(super) fn set_all(id: i32, values: &[u16]) -> Ret {
    ctl(id, 0, SETALL, values.as_ptr() as usize)
}

fn status(id: i32) -> Status {
    let mut status: Status = zeroed();
    ctl(id, 0, STAT, &raw mut status as usize).need();
    status
}

/// A child that does these operations and then exits with the error.
pub(super) fn waiter(id: i32, ops: &'static [Op]) -> i32 {
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
