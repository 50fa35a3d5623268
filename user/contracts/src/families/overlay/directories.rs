//! overlayfs: merged directories, and reading them.

use std::collections::BTreeSet;

use libc::*;

use super::{file, fill, mount, names, numbers_agree, places, shape, simple, simple_on_tmpfs, umount};
use crate::file::{close, contents, fstat, mkdir, open, path, rename, rmdir, stat, unlink};
use crate::sys::{sys, zeroed};
use crate::{say, tests};

tests! {
    merged, three_layers, whiteouts_are_hidden, dots, numbers, many, seek, changed_while_read, removed_while_read, rewound,
    remove_all, link_counts, file_system, nested_mount, current_directory, bind_of_a_part, stacked, deep, on_tmpfs, watched,
}

fn merged() {
    places();
    fill();
    mkdir(c"u/d");
    file(c"u/d/a", "upper");
    file(c"u/d/c", "upper");
    file(c"u/f", "upper");
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    say!("{}", shape("m"));
    say!("{}", names("m"));
}

fn three_layers() {
    places();
    for (at, name) in [("l", "one"), ("k", "two"), ("u", "three")] {
        mkdir(&path(format!("{at}/d")));
        file(&path(format!("{at}/d/{name}")), at);
        file(&path(format!("{at}/d/same")), at);
        file(&path(format!("{at}/{name}")), at);
    }
    mount("lowerdir=l:k,upperdir=u,workdir=w").need();
    say!("{}", shape("m"));
    umount(c"m").need();
    mount("lowerdir=k:l").need();
    say!("{}", shape("m"));
}

fn whiteouts_are_hidden() {
    simple();
    unlink(c"m/d/a");
    unlink(c"m/f");
    say!("{} {}", names("m"), names("m/d"));
    say!("upper: {} {}", names("u"), names("u/d"));
}

/// Reads all entries: name, number and position after it.
fn entries(fd: i32) -> Vec<(String, u64, i64)> {
    let mut all = Vec::new();
    let mut buffer = [0u8; 1024];
    loop {
        let n = sys!(SYS_getdents64, fd, &mut buffer[..], 1024).0;
        if n <= 0 {
            return all;
        }
        let mut at = 0;
        while at < n as usize {
            let word =
                |from: usize| u64::from_ne_bytes(buffer[at + from..at + from + 8].try_into().unwrap_or_default());
            let length = u16::from_ne_bytes([buffer[at + 16], buffer[at + 17]]) as usize;
            let name = buffer[at + 19..at + length].split(|byte| *byte == 0).next().unwrap_or_default();
            all.push((String::from_utf8_lossy(name).into_owned(), word(0), word(8) as i64));
            at += length;
        }
    }
}

fn directory(at: &str) -> i32 {
    open(&path(at), O_RDONLY | O_DIRECTORY).fd()
}

fn dots() {
    simple();
    let found = |at: &str| {
        let fd = directory(at);
        let all = entries(fd);
        close(fd);
        let number = |name: &str| all.iter().find(|entry| entry.0 == name).map(|entry| entry.1);
        (number("."), number(".."))
    };
    let ino = |at: &str| stat(&path(at)).map(|stat| stat.st_ino).ok();
    say!("lower: {} {}", found("m/d").0 == ino("m/d"), found("m/d").1 == ino("m"));
    file(c"m/d/n", "");
    say!("merged: {} {}", found("m/d").0 == ino("m/d"), found("m/d").1 == ino("m"));
    mkdir(c"m/n");
    say!("new: {} {}", found("m/n").0 == ino("m/n"), found("m/n").1 == ino("m"));
    rename(c"m/n", c"m/d/n2", 0);
    say!("moved: {} {}", found("m/d/n2").0 == ino("m/d/n2"), found("m/d/n2").1 == ino("m/d"));
}

fn numbers() {
    simple();
    say!("lower: {} {}", numbers_agree("m"), numbers_agree("m/d"));
    close(open(c"m/d/a", O_WRONLY).fd());
    file(c"m/d/n", "");
    file(c"m/n", "");
    say!("merged: {} {}", numbers_agree("m"), numbers_agree("m/d"));
    rename(c"m/f", c"m/d/f", 0);
    say!("moved: {} {}", numbers_agree("m"), numbers_agree("m/d"));
    umount(c"m").need();
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    say!("mounted again: {} {}", numbers_agree("m"), numbers_agree("m/d"));
}

fn many() {
    places();
    for index in 0..300 {
        file(&path(format!("l/lower{index}")), "");
        file(&path(format!("u/upper{index}")), "");
    }
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    for index in (0..300).step_by(3) {
        unlink(&path(format!("m/lower{index}")));
        close(open(&path(format!("m/lower{}", index + 1)), O_WRONLY).fd());
    }
    let fd = directory("m");
    let all: Vec<String> = entries(fd).into_iter().map(|entry| entry.0).collect();
    let once: BTreeSet<&String> = all.iter().collect();
    say!("{} entries, {} names", all.len(), once.len());
}

fn seek() {
    places();
    for index in 0..50 {
        file(&path(format!("l/lower{index}")), "");
        file(&path(format!("u/upper{index}")), "");
    }
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    let fd = directory("m");
    let all = entries(fd);
    let from = |at: usize| {
        sys!(SYS_lseek, fd, all[at].2, SEEK_SET);
        let rest: Vec<String> = entries(fd).into_iter().map(|entry| entry.0).collect();
        rest == all[at + 1..].iter().map(|entry| entry.0.clone()).collect::<Vec<_>>()
    };
    say!("from the middle: {} {} {}", from(10), from(70), from(all.len() - 1));
    unlink(&path(format!("m/{}", all[3].0)));
    say!("after a change before it: {}", from(30));
    sys!(SYS_lseek, fd, 0, SEEK_SET);
    say!("from the start: {}", entries(fd).len());
}

fn changed_while_read() {
    simple();
    let fd = directory("m");
    let mut buffer = [0u8; 64];
    say!("first: {}", sys!(SYS_getdents64, fd, &mut buffer[..], 64).ok());
    file(c"m/new", "");
    let rest: Vec<String> = entries(fd).into_iter().map(|entry| entry.0).collect();
    say!("nothing twice: {}", rest.iter().collect::<BTreeSet<_>>().len() == rest.len());
    let again = directory("m");
    say!("another reader: {}", entries(again).iter().any(|entry| entry.0 == "new"));
    sys!(SYS_lseek, fd, 0, SEEK_SET);
    say!("rewound: {}", entries(fd).iter().any(|entry| entry.0 == "new"));
}

fn removed_while_read() {
    places();
    for index in 0..200 {
        file(&path(format!("l/f{index}")), "");
    }
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    let fd = directory("m");
    let mut buffer = [0u8; 512];
    let mut removed = 0;
    loop {
        let n = sys!(SYS_getdents64, fd, &mut buffer[..], 512).0;
        if n <= 0 {
            break;
        }
        let mut at = 0;
        while at < n as usize {
            let length = u16::from_ne_bytes([buffer[at + 16], buffer[at + 17]]) as usize;
            let name = buffer[at + 19..at + length].split(|byte| *byte == 0).next().unwrap_or_default();
            if name.first() == Some(&b'f') {
                removed += i32::from(unlink(&path([b"m/".as_slice(), name].concat())).ok());
            }
            at += length;
        }
    }
    say!("{removed} removed, left: {:?}", names("m"));
}

fn rewound() {
    simple();
    let fd = directory("m/d");
    say!("{}", entries(fd).len());
    unlink(c"m/d/a");
    file(c"m/d/x", "");
    file(c"m/d/y", "");
    say!("at the end: {}", entries(fd).len());
    sys!(SYS_lseek, fd, 0, SEEK_SET);
    say!("again: {}", entries(fd).len());
}

fn remove_all() {
    places();
    for (dir, sub) in [(c"l/a", c"l/a/b"), (c"k/a", c"k/a/b")] {
        mkdir(dir);
        mkdir(sub);
    }
    file(c"l/a/b/one", "");
    file(c"k/a/b/two", "");
    file(c"k/a/three", "");
    mount("lowerdir=l:k,upperdir=u,workdir=w").need();
    file(c"m/a/b/four", "");
    say!("{}", shape("m"));
    say!("{:?}", std::fs::remove_dir_all("m/a").map_err(|error| error.raw_os_error()));
    say!("{:?} | {} | {:?}", shape("m"), shape("u"), shape("w"));
}

fn link_counts() {
    simple();
    let links = |at: &std::ffi::CStr| stat(at).map(|stat| stat.st_nlink).ok();
    say!("root: {:?} lower: {:?}", links(c"m"), links(c"m/d"));
    mkdir(c"m/d/x");
    say!("merged: {:?}", links(c"m/d"));
    mkdir(c"m/n");
    mkdir(c"m/n/o");
    say!("new: {:?} {:?}", links(c"m/n"), links(c"m/n/o"));
    rmdir(c"m/n/o");
    say!("one less: {:?}", links(c"m/n"));
}

fn file_system() {
    simple();
    let of = |at: &std::ffi::CStr| {
        let mut buf: statfs = zeroed();
        sys!(SYS_statfs, at, &mut buf);
        buf
    };
    let (whole, upper) = (of(c"m"), of(c"u"));
    say!("type: {:x} name: {}", whole.f_type, whole.f_namelen);
    say!("as the upper: {} {}", whole.f_blocks == upper.f_blocks, whole.f_bsize == upper.f_bsize);
    let all = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    say!("in /proc/filesystems: {:?}", all.lines().find(|line| line.ends_with("overlay")));
}

fn nested_mount() {
    simple();
    sys!(SYS_mount, c"none", c"m/d", c"tmpfs", 0, 0).need();
    file(c"m/d/x", "");
    say!("{} rmdir: {}", shape("m/d"), rmdir(c"m/d"));
    say!("umount of the outer: {}", umount(c"m"));
    say!("inner: {} {}", umount(c"m/d"), shape("m/d"));
    let fd = open(c"m/f", O_RDONLY).fd();
    say!("busy: {}", umount(c"m"));
    close(fd);
    say!("{} {:?}", umount(c"m"), shape("m"));
}

fn current_directory() {
    simple();
    say!("{}", sys!(SYS_chdir, c"m/d"));
    let mut buffer = [0u8; 64];
    let n = sys!(SYS_getcwd, &mut buffer[..], 64).0.max(1) as usize;
    say!("{} {}", String::from_utf8_lossy(&buffer[..n - 1]), contents(c"a"));
    file(c"new", "");
    say!("{} {}", names("."), names(".."));
}

fn bind_of_a_part() {
    simple();
    sys!(SYS_mount, c"m/d", c"k", c"", MS_BIND, 0).need();
    file(c"k/x", "through it");
    unlink(c"k/a");
    say!("{} | {}", shape("m"), shape("u"));
    say!("rename between: {}", rename(c"k/x", c"m/x", 0));
}

fn stacked() {
    simple();
    for name in [c"u2", c"w2", c"m2", c"m3"] {
        mkdir(name);
    }
    file(c"m/f", "first");
    say!("overlay of one: {}", super::mount_at(c"m2", "lowerdir=m,upperdir=u2,workdir=w2", 0));
    unlink(c"m2/d/a");
    file(c"m2/f", "second");
    say!("{} | {} | {}", shape("m2"), shape("m"), shape("u2"));
    say!("three deep: {}", super::mount_at(c"m3", "lowerdir=m2:k", 0));
    say!("as upper: {}", super::mount_at(c"m3", "lowerdir=k,upperdir=m/d,workdir=m/w", 0));
}

fn deep() {
    places();
    let mut at = String::from("l");
    for _ in 0..60 {
        at.push_str("/d");
        mkdir(&path(at.clone()));
    }
    file(&path(format!("{at}/f")), "deep");
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    let inside = format!("m{}", &at[1..]);
    close(open(&path(format!("{inside}/f")), O_WRONLY).fd());
    say!("{} {}", contents(&path(format!("u{}/f", &at[1..]))), unlink(&path(format!("{inside}/f"))));
    say!("{:?} {}", std::fs::remove_dir_all("m/d").map_err(|error| error.raw_os_error()), shape("u"));
}

fn on_tmpfs() {
    simple_on_tmpfs();
    close(open(c"m/d/a", O_WRONLY).fd());
    file(c"m/d/n", "");
    say!("{} {} {}", numbers_agree("m"), numbers_agree("m/d"), names("m/d"));
    let links = |at: &std::ffi::CStr| stat(at).map(|stat| stat.st_nlink).ok();
    say!("{:?} {:?}", links(c"m"), links(c"m/d"));
    let fd = directory("m/d");
    say!("{:?}", fstat(fd).map(|stat| stat.st_nlink).ok());
}

fn watched() {
    simple();
    let fd = sys!(SYS_inotify_init1, IN_NONBLOCK).fd();
    sys!(SYS_inotify_add_watch, fd, c"m/f", IN_ALL_EVENTS);
    let writer = open(c"m/f", O_WRONLY).fd();
    crate::file::write(writer, "x");
    close(writer);
    let mut buffer = [0u8; 512];
    let n = sys!(SYS_read, fd, &mut buffer[..], 512).0.max(0) as usize;
    let masks: Vec<u32> = buffer[..n]
        .chunks_exact(16)
        .map(|event| u32::from_ne_bytes([event[4], event[5], event[6], event[7]]))
        .collect();
    say!("a file that is copied: {masks:x?}");
}
