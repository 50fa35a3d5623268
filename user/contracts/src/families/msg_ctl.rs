//! msgctl(2), permissions and limits of System V message queues.

use super::msg::{KEY, ctl, ends, fill, filled, msgget, new, next, receive, remove, send, status, waiting};
use super::sysv::{self, CREATE, INFO, NOWAIT, PRIVATE, SET, STAT, lines_of};
use crate::process::{self, as_plain_user, child, in_child, until_asleep};
use crate::sys::NOWHERE;
use crate::{say, tests};

const MSG_STAT: i32 = 11;
const MSG_INFO: i32 = 12;
const MSG_STAT_ANY: i32 = 13;

tests! {
    stat, stat_by_place, info, set_bytes, set_bytes_wakes, permissions, change_while_waiting, proc_file, settings,
}

fn stat() {
    let id = msgget(KEY, CREATE | 0o1654).need() as i32;
    let now = status(id);
    let perm = now.perm;
    say!("key {:#x}, ids {} {} {} {}, mode {:o}", perm.key, perm.uid, perm.gid, perm.cuid, perm.cgid, perm.mode);
    say!("bytes {}, messages {}, at most {}", now.bytes, now.messages, now.max_bytes);
    say!("times {} {} {}, {} {}", now.stime, now.rtime, now.ctime > 1_000_000_000, now.sender, now.receiver);
    send(id, 1, "x", 0);
    let now = status(id);
    say!("sent: {} {}, {} {}", now.stime > 0, now.rtime, now.sender == process::pid(), now.receiver);
    next(id);
    let now = status(id);
    say!("received: {} {}", now.rtime > 0, now.receiver == process::pid());
    say!("to nowhere: {}", ctl(id, STAT, NOWHERE as usize));
    remove(id);
}

fn stat_by_place() {
    sysv::stat_by_place(new(), ctl, [MSG_STAT, MSG_STAT_ANY]);
}

fn info() {
    let id = new();
    fill(id, &[(1, "abc"), (1, "de")]);
    let mut words = [0i32; 8];
    say!("a place: {}", ctl(0, INFO, words.as_mut_ptr() as usize).ok());
    words[7] &= 0xffff;
    say!("{words:?}");
    say!("a place: {}", ctl(0, MSG_INFO, words.as_mut_ptr() as usize).ok());
    words[7] &= 0xffff;
    say!("{words:?}");
    remove(id);
}

fn set_bytes() {
    let id = new();
    let mut new = status(id);
    for bytes in [16384, 16385, 1 << 20, 0] {
        new.max_bytes = bytes;
        say!("{bytes}: {}, {}", ctl(id, SET, &raw const new as usize), status(id).max_bytes);
    }
    say!("none fits: {}", send(id, 1, "", NOWAIT));
    new.perm.uid = 1000;
    ctl(id, SET, &raw const new as usize).need();
    as_plain_user(|| {
        let mut new = status(id);
        for bytes in [16384, 16385, 100] {
            new.max_bytes = bytes;
            say!("as another user {bytes}: {}, {}", ctl(id, SET, &raw const new as usize), status(id).max_bytes);
        }
        new.perm.uid = u32::MAX;
        say!("-1: {}", ctl(id, SET, &raw const new as usize));
    });
    remove(id);
}

fn set_bytes_wakes() {
    let id = new();
    let mut new = status(id);
    new.max_bytes = 4;
    ctl(id, SET, &raw const new as usize).need();
    let pid = waiting(|| send(id, 1, "hello", 0).to_string());
    new.max_bytes = 5;
    ctl(id, SET, &raw const new as usize).need();
    say!("{}, {}", ends(pid), filled(id));
    remove(id);
}

fn permissions() {
    for mode in [0o600, 0o604, 0o602, 0o606] {
        let id = msgget(KEY, CREATE | mode).need() as i32;
        fill(id, &[(1, "x")]);
        as_plain_user(|| {
            say!("{mode:o}: receive {}, send {}", next(id), send(id, 1, "y", NOWAIT));
            let asked = [0o400, 0o200, 0o600].map(|flags| msgget(KEY, flags).ok_or_error());
            say!("  get {asked:?}, remove {}", remove(id));
        });
        remove(id);
    }
}

fn change_while_waiting() {
    let id = msgget(KEY, CREATE | 0o666).need() as i32;
    let mut new = status(id);
    let pid = child(|| {
        process::become_user(1000);
        say!("  in a child: {}", receive(id, 9, 2, 0));
        0
    });
    until_asleep(pid);
    new.perm.mode = 0o600;
    ctl(id, SET, &raw const new as usize).need();
    say!("{}", ends(pid));
    remove(id);
}

fn proc_file() {
    let id = msgget(KEY, CREATE | 0o640).need() as i32;
    fill(id, &[(1, "abc"), (2, "")]);
    lines_of("msg", KEY);
    remove(id);
}

fn settings() {
    let path = |name: &str| format!("/proc/sys/kernel/{name}");
    let read = |name: &str| std::fs::read_to_string(path(name)).unwrap_or_default();
    let write = |name: &str, text: &str| std::fs::write(path(name), text).map_err(|error| error.raw_os_error()).err();
    for name in ["msgmax", "msgmnb", "msgmni"] {
        say!("{name}: {:?}", read(name));
    }
    let id = new();
    say!("msgmax 5: {:?} {:?}", write("msgmax", "5\n"), read("msgmax"));
    say!("{} {}", send(id, 1, "abcde", 0), send(id, 1, "abcdef", 0));
    write("msgmax", "8192");
    say!("msgmnb 7: {:?}", write("msgmnb", "7"));
    let small = new();
    say!("{} {}", status(small).max_bytes, status(id).max_bytes);
    write("msgmnb", "16384");
    say!("msgmni 2: {:?}", write("msgmni", "2"));
    say!("a third: {}", msgget(PRIVATE, 0o600));
    for text in ["-1", "32769", "x"] {
        say!("msgmni {text}: {:?}", write("msgmni", text));
    }
    say!("msgmax -1: {:?}", write("msgmax", "-1"));
    write("msgmni", "32000");
    remove(id);
    remove(small);
    in_child(|| {
        process::become_user(1000);
        say!("another user: {:?}", write("msgmax", "1"));
        0
    });
}
