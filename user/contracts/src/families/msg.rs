//! System V message queues: msgget(2), msgsnd(2), msgrcv(2), msgctl(2).

use libc::*;

use super::sysv::{CREATE, EXCLUSIVE, NOWAIT, PRIVATE, Perm, REMOVE, SET, STAT};
use crate::process::{self, child, sleep_ms, until_asleep, wait};
use crate::signal;
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, tests};

tests! {
get, get_refused, send_and_receive, empty_messages, types, except, lowest_first, sizes, cut, send_refused,
receive_refused, full, full_of_messages, room_for_a_sender, room_for_small_ones, hand_over, hand_over_by_type,
hand_over_too_long, copies, removed_while_waiting, interrupted, stopped_and_continued,     lost_on_a_fault, }

const NOERROR: i32 = 0o10000;
const EXCEPT: i32 = 0o20000;
const COPY: i32 = 0o40000;
pub(super) const KEY: i32 = 0x5e3a_0003;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Status {
    pub perm: Perm,
    pub stime: i64,
    pub rtime: i64,
    pub ctime: i64,
    pub bytes: u64,
    pub messages: u64,
    pub max_bytes: u64,
    pub sender: i32,
    pub receiver: i32,
    unused: [u64; 2],
}

#[repr(C)]
struct Message {
    kind: i64,
    data: [u8; 16384],
}

pub(super) fn msgget(key: i32, flags: i32) -> Ret {
    sys!(SYS_msgget, key, flags)
}

pub(super) fn new() -> i32 {
    msgget(PRIVATE, 0o600).need() as i32
}

pub(super) fn ctl(id: i32, command: i32, arg: usize) -> Ret {
    sys!(SYS_msgctl, id, command, arg)
}

pub(super) fn remove(id: i32) -> Ret {
    ctl(id, REMOVE, 0)
}

pub(super) fn send(id: i32, kind: i64, text: &str, flags: i32) -> Ret {
    send_bytes(id, kind, text.as_bytes(), flags)
}

fn send_bytes(id: i32, kind: i64, bytes: &[u8], flags: i32) -> Ret {
    let mut message = Message { kind, data: [0; 16384] };
    message.data[..bytes.len()].copy_from_slice(bytes);
    sys!(SYS_msgsnd, id, &message, bytes.len(), flags)
}

/// Type and text, or the error.
pub(super) fn receive(id: i32, size: usize, kind: i64, flags: i32) -> String {
    let mut message = Message { kind: -1, data: [0; 16384] };
    let ret = sys!(SYS_msgrcv, id, &mut message, size, kind, flags);
    if !ret.ok() {
        return ret.to_string();
    }
    let text = String::from_utf8_lossy(&message.data[..ret.0 as usize]).into_owned();
    format!("{} {:?}", message.kind, if text.len() > 20 { format!("{} bytes", text.len()) } else { text })
}

pub(super) fn next(id: i32) -> String {
    receive(id, 100, 0, NOWAIT)
}

pub(super) fn fill(id: i32, all: &[(i64, &str)]) {
    all.iter().for_each(|(kind, text)| _ = send(id, *kind, text, NOWAIT).need());
}

pub(super) fn status(id: i32) -> Status {
    let mut status: Status = zeroed();
    ctl(id, STAT, &raw mut status as usize).need();
    status
}

pub(super) fn filled(id: i32) -> String {
    let status = status(id);
    format!("{} messages, {} bytes", status.messages, status.bytes)
}

/// A child that sends or receives, shows what came of it, and is waited for with [`ends`].
pub(super) fn waiting(body: impl FnOnce() -> String) -> i32 {
    let pid = child(|| {
        say!("  in a child: {}", body());
        0
    });
    until_asleep(pid);
    pid
}

pub(super) fn ends(pid: i32) -> String {
    wait(pid).to_string()
}

fn get() {
    let first = msgget(KEY, CREATE | 0o640);
    say!("new: {}", first.ok_or_error());
    say!("again: {}", msgget(KEY, 0) == first);
    say!("create: {}", msgget(KEY, CREATE | 0o777) == first);
    say!("exclusive: {}", msgget(KEY, CREATE | EXCLUSIVE));
    let id = first.need() as i32;
    say!("remove: {}, again: {}", remove(id), remove(id));
    say!("by key: {}", msgget(KEY, 0));
}

fn get_refused() {
    say!("no key: {}", msgget(KEY, 0));
    for id in [-1, 0x7fff_ffff, 32767] {
        say!("{id}: {} {} {}", remove(id), send(id, 1, "x", NOWAIT), next(id));
    }
    say!("commands: {} {} {}", ctl(0, 10, 0), ctl(0, 14, 0), ctl(0, -1, 0));
}

fn send_and_receive() {
    let id = new();
    say!("send: {} {}", send(id, 5, "one", 0), send(id, 3, "two", 0));
    say!("{}", filled(id));
    say!("receive: {} {}", receive(id, 100, 0, 0), receive(id, 100, 0, 0));
    say!("no more: {}", next(id));
    say!("a large type: {} {}", send(id, i64::MAX, "x", 0), next(id));
    remove(id);
}

fn empty_messages() {
    let id = new();
    say!("{} {}, {}", send(id, 1, "", 0), send(id, 2, "", 0), filled(id));
    say!("{}, {}", receive(id, 0, 0, 0), next(id));
    remove(id);
}

fn types() {
    let id = new();
    fill(id, &[(1, "a"), (2, "b"), (1, "c"), (3, "d")]);
    say!("2: {}", receive(id, 100, 2, NOWAIT));
    say!("2: {}", receive(id, 100, 2, NOWAIT));
    say!("1: {}", receive(id, 100, 1, NOWAIT));
    say!("any: {} {} {}", next(id), next(id), next(id));
    remove(id);
}

fn except() {
    let id = new();
    fill(id, &[(1, "a"), (2, "b"), (1, "c"), (3, "d")]);
    say!("not 1: {}", receive(id, 100, 1, EXCEPT | NOWAIT));
    say!("not 2: {}", receive(id, 100, 2, EXCEPT | NOWAIT));
    say!("not 0: {}", receive(id, 100, 0, EXCEPT | NOWAIT));
    say!("not 3: {}", receive(id, 100, 3, EXCEPT | NOWAIT));
    say!("up to 3: {}", receive(id, 100, -3, EXCEPT | NOWAIT));
    remove(id);
}

fn lowest_first() {
    let id = new();
    fill(id, &[(4, "a"), (2, "b"), (6, "c"), (2, "d"), (1, "e"), (4, "f")]);
    say!("up to 4:");
    for _ in 0..6 {
        say!("  {}", receive(id, 100, -4, NOWAIT));
    }
    say!("all: {}", receive(id, 100, i64::MIN, NOWAIT));
    remove(id);
}

fn sizes() {
    let id = new();
    say!("8192: {}, {}", send_bytes(id, 1, &[b'x'; 8192], 0), receive(id, 8192, 0, NOWAIT));
    say!("8193: {}", send_bytes(id, 1, &[b'x'; 8193], 0));
    for size in [1, 4048, 4049, 8000] {
        send_bytes(id, 1, &vec![b'y'; size], 0);
        say!("{size}: {}", receive(id, 16384, 0, NOWAIT));
    }
    say!("more room than a message can have: {} {}", send(id, 1, "x", 0), receive(id, 1 << 40, 0, NOWAIT));
    remove(id);
}

fn cut() {
    let id = new();
    fill(id, &[(1, "abcdef"), (2, "x")]);
    say!("too long: {}", receive(id, 5, 0, NOWAIT));
    say!("it stays: {}", filled(id));
    say!("another type: {}", receive(id, 5, 2, NOWAIT));
    say!("cut: {}, {}", receive(id, 5, 0, NOWAIT | NOERROR), filled(id));
    fill(id, &[(1, "abcdef")]);
    say!("to nothing: {}, {}", receive(id, 0, 0, NOWAIT | NOERROR), filled(id));
    remove(id);
}

fn send_refused() {
    let id = new();
    say!("type 0: {}, -1: {}", send(id, 0, "x", 0), send(id, -1, "x", 0));
    say!("nowhere: {}", sys!(SYS_msgsnd, id, NOWHERE, 1, 0));
    say!("nowhere, too long: {}", sys!(SYS_msgsnd, id, NOWHERE, 10_000, 0));
    say!("no queue, type 0: {}", send(-1, 0, "x", 0));
    say!("size -1: {}", sys!(SYS_msgsnd, id, &[1i64, 0], -1, 0));
    let page = crate::memory::pages(2);
    sys!(SYS_munmap, page.wrapping_add(4096), 4096);
    let edge = page.wrapping_add(4096 - 16);
    crate::memory::poke(edge, 1);
    say!("8 bytes of 9: {}", sys!(SYS_msgsnd, id, edge, 9, 0));
    say!("8 bytes: {}", sys!(SYS_msgsnd, id, edge, 8, 0));
    say!("{}", filled(id));
    remove(id);
}

fn receive_refused() {
    let id = new();
    say!("size -1: {}", sys!(SYS_msgrcv, id, NOWHERE, -1, 0, NOWAIT));
    say!("nothing there, to nowhere: {}", sys!(SYS_msgrcv, id, NOWHERE, 1, 0, NOWAIT));
    say!("no queue: {}", sys!(SYS_msgrcv, -1, NOWHERE, 1, 0, 0));
    remove(id);
}

fn full() {
    let id = new();
    say!("two halves: {} {}", send_bytes(id, 1, &[0; 8192], NOWAIT), send_bytes(id, 1, &[0; 8192], NOWAIT));
    say!("one byte more: {}", send_bytes(id, 1, &[0; 1], NOWAIT));
    say!("no byte more: {}", send_bytes(id, 1, &[0; 0], NOWAIT));
    say!("{}", filled(id));
    remove(id);
}

fn full_of_messages() {
    let id = new();
    let mut new = status(id);
    new.max_bytes = 3;
    ctl(id, SET, &raw const new as usize).need();
    let sent: Vec<String> = (0..4).map(|_| send(id, 1, "", NOWAIT).to_string()).collect();
    say!("{sent:?}, {}", filled(id));
    remove(id);
}

fn room_for_a_sender() {
    let id = new();
    fill(id, &[(1, "first")]);
    send_bytes(id, 2, &[0; 8192], 0);
    send_bytes(id, 2, &[0; 8000], 0);
    let pid = waiting(|| send_bytes(id, 3, &[b'z'; 300], 0).to_string());
    say!("a little room: {}", receive(id, 100, 1, 0));
    sleep_ms(20);
    say!("it waits: {}", process::state(pid));
    let enough = receive(id, 8192, 2, 0);
    say!("{}", ends(pid));
    say!("enough: {enough}");
    say!("{}", receive(id, 8192, 3, NOWAIT));
    remove(id);
}

fn room_for_small_ones() {
    let id = new();
    send_bytes(id, 1, &[0; 8192], 0);
    send_bytes(id, 2, &[0; 8000], 0);
    let large = waiting(|| send_bytes(id, 3, &[b'z'; 300], 0).to_string());
    say!("a small one overtakes: {}", send(id, 4, "small", NOWAIT));
    let enough = receive(id, 8192, 1, 0);
    say!("{}", ends(large));
    say!("{enough}");
    remove(id);
}

fn hand_over() {
    let id = new();
    let pid = waiting(|| receive(id, 100, 0, 0));
    send(id, 7, "hello", 0);
    say!("{}, {}", ends(pid), filled(id));
    let now = status(id);
    say!("sender own: {}, receiver the child: {}", now.sender == process::pid(), now.receiver == pid);
    say!("times: {} {}", now.stime > 0, now.rtime > 0);
    remove(id);
}

fn hand_over_by_type() {
    let id = new();
    let five = waiting(|| receive(id, 100, 5, 0));
    send(id, 4, "four", 0);
    say!("not for it: {}", filled(id));
    let low = waiting(|| receive(id, 100, -3, 0));
    let other = waiting(|| receive(id, 100, 4, EXCEPT));
    send(id, 2, "two", 0);
    say!("{}", ends(low));
    send(id, 5, "five", 0);
    say!("{}", ends(five));
    send(id, 6, "six", 0);
    say!("{}", ends(other));
    say!("{}", next(id));
    remove(id);
}

fn hand_over_too_long() {
    let id = new();
    let short = child(|| i32::from(receive(id, 2, 0, 0) == "E2BIG"));
    until_asleep(short);
    let long = waiting(|| receive(id, 100, 0, 0));
    send(id, 1, "abc", 0);
    say!("{}", ends(long));
    say!("too long for the first: {}", ends(short));
    let cut = waiting(|| receive(id, 2, 0, NOERROR));
    send(id, 1, "abc", 0);
    say!("{}, {}", ends(cut), filled(id));
    remove(id);
}

fn copies() {
    let id = new();
    fill(id, &[(3, "a"), (2, "bcd"), (1, "e")]);
    let copy = |index: i64, size: usize, flags: i32| receive(id, size, index, COPY | flags);
    say!("{} {} {}", copy(0, 9, NOWAIT), copy(1, 9, NOWAIT), copy(2, 9, NOWAIT));
    say!("beyond: {}, -1: {}", copy(3, 9, NOWAIT), copy(-1, 9, NOWAIT));
    say!("too long: {}, cut: {}", copy(1, 2, NOWAIT), copy(1, 2, NOWAIT | NOERROR));
    say!("to wait: {}, except: {}", copy(0, 9, 0), copy(0, 9, NOWAIT | EXCEPT));
    say!("{}, receiver {}", filled(id), status(id).receiver);
    remove(id);
}

fn removed_while_waiting() {
    let id = new();
    send_bytes(id, 1, &[0; 8192], 0);
    send_bytes(id, 1, &[0; 8192], 0);
    let sender = waiting(|| send(id, 1, "x", 0).to_string());
    let receiver = waiting(|| receive(id, 9, 2, 0));
    remove(id);
    // One after the other, for the order of their lines.
    say!("{} {}", ends(sender) == "exited with 0", ends(receiver) == "exited with 0");
}

fn interrupted() {
    let id = new();
    send_bytes(id, 1, &[0; 8192], 0);
    send_bytes(id, 1, &[0; 8192], 0);
    for (name, flags) in [("no restart", 0), ("SA_RESTART", SA_RESTART)] {
        for sends in [true, false] {
            let pid = child(|| {
                signal::handle(SIGUSR1, signal::count, flags);
                let outcome = if sends { send(id, 1, "x", 0).to_string() } else { receive(id, 9, 2, 0) };
                say!("{name}, {}: {outcome}", if sends { "send" } else { "receive" });
                0
            });
            until_asleep(pid);
            process::kill(pid, SIGUSR1);
            wait(pid);
        }
    }
    say!("{}", filled(id));
    remove(id);
}

fn stopped_and_continued() {
    let id = new();
    let pid = child(|| {
        say!("  in a child: {}", receive(id, 9, 2, 0));
        0
    });
    until_asleep(pid);
    process::kill(pid, SIGSTOP);
    while process::state(pid) != 'T' {
        sleep_ms(1);
    }
    process::kill(pid, SIGCONT);
    until_asleep(pid);
    sleep_ms(10);
    send(id, 2, "x", 0);
    say!("{}", ends(pid));
    remove(id);
}

fn lost_on_a_fault() {
    let id = new();
    fill(id, &[(1, "abc")]);
    say!("{}, {}", sys!(SYS_msgrcv, id, NOWHERE, 9, 0, NOWAIT), filled(id));
    remove(id);
}
