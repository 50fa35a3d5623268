//! What the tests of System V IPC share.

use crate::process::as_plain_user;
use crate::say;
use crate::sys::Ret;

pub const PRIVATE: i32 = 0;
pub const CREATE: i32 = 0o1000;
pub const EXCLUSIVE: i32 = 0o2000;
pub const NOWAIT: i32 = 0o4000;
pub const REMOVE: i32 = 0;
pub const SET: i32 = 1;
pub const STAT: i32 = 2;
pub const INFO: i32 = 3;

/// `struct ipc64_perm`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Perm {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    pub mode: u32,
    pub seq: u16,
    pad: [u16; 3],
    unused: [u64; 2],
}

/// Asks for an object by its place in the table of all, which another user may do in one way only, and removes it.
pub fn stat_by_place(id: i32, ctl: fn(i32, i32, usize) -> Ret, [stat, stat_any]: [i32; 2]) {
    let place = id & 0x7fff;
    let mut found = [0u64; 32];
    let found = found.as_mut_ptr() as usize;
    say!("{}", ctl(place, stat, found).0 as i32 == id);
    as_plain_user(|| {
        say!("another user: {}", ctl(place, stat, found));
        say!("any: {}", ctl(place, stat_any, found).0 as i32 == id);
        say!("by id: {}", ctl(id, STAT, found));
    });
    ctl(id, REMOVE, 0);
    say!("none: {}", ctl(place, stat, found));
}

/// Shows the head of a file of /proc/sysvipc and the line of a key, without what differs from run to run.
pub fn lines_of(file: &str, key: i32) {
    let text = std::fs::read_to_string(format!("/proc/sysvipc/{file}")).unwrap_or_default();
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    say!("{head:?}");
    let names: Vec<&str> = head.split_whitespace().collect();
    for line in lines.filter(|line| line.split_whitespace().next() == Some(&key.to_string())) {
        // Ids and times are as wide as they are.
        say!("{} bytes", line.len());
        for (name, word) in names.iter().zip(line.split_whitespace()) {
            match *name {
                // The first object of a machine has 0.
                "shmid" | "semid" | "msqid" if word.parse::<i32>().is_ok() => say!("{name}: an id"),
                name if name.ends_with("time") => say!("{name}: {}", if word == "0" { "0" } else { "a time" }),
                name if name.ends_with("id") && name != "uid" && !name.ends_with("gid") && name != "cuid" => {
                    say!("{name}: {}", if word == "0" { "0" } else { "an id" });
                }
                name => say!("{name}: {word}"),
            }
        }
    }
}
