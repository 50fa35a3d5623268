//! What others do while one mounts: open files for writing, try to remove the mount point, read the list of mounts.

use std::ffi::CStr;
use std::sync::atomic::Ordering::SeqCst;

use libc::*;

use crate::file::{close, create, mkdir, open, path, rmdir, write};
use crate::memory::shared_words;
use crate::process::{self, sleep_ms};
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! { held, held_alone, in_vain, in_vain_on_disk, listed, many }

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: u64) -> Ret {
    sys!(SYS_mount, source, target, kind, flags, c"")
}

fn umount(target: &CStr, flags: i32) -> Ret {
    sys!(SYS_umount2, target, flags)
}

/// From the moment that it is read-only nobody has a file open for writing, through whichever mount.
fn held() {
    let writes = MS_REMOUNT;
    slip(c"b/file", writes | MS_RDONLY, writes);
}

/// The same for a mount alone.
fn held_alone() {
    let writes = MS_REMOUNT | MS_BIND;
    slip(c"m/file", writes | MS_RDONLY, writes);
}

/// Makes m read-only and writable again while another opens `file` for writing and closes it.
fn slip(file: &CStr, to_read_only: u64, to_writable: u64) {
    mkdir(c"m");
    mkdir(c"b");
    mount(c"none", c"m", c"tmpfs", 0).need();
    mount(c"m", c"b", c"", MS_BIND).need();
    close(create(c"m/file", "text"));
    let words = shared_words();
    let (opened, times) = (&words[0], &words[1]);
    let writer = process::child(|| {
        loop {
            let fd = open(file, O_WRONLY);
            if fd.ok() {
                opened.store(1, SeqCst);
                times.fetch_add(1, SeqCst);
                let until = std::time::Instant::now() + std::time::Duration::from_micros(500);
                while std::time::Instant::now() < until {
                    std::hint::spin_loop();
                }
                opened.store(0, SeqCst);
                close(fd.fd());
            }
        }
    });
    let (mut done, mut busy, mut wrong) = (0, 0, 0);
    while done < 100 {
        let said = mount(c"none", c"m", c"", to_read_only);
        if !said.ok() {
            busy += usize::from(said.errno() == EBUSY);
            continue;
        }
        done += 1;
        let before = times.load(SeqCst);
        std::thread::yield_now();
        // One that came before may not have said so yet.
        wrong += usize::from(opened.load(SeqCst) != 0 || times.load(SeqCst) > before + 1);
        mount(c"none", c"m", c"", to_writable).need();
        if done % 10 == 0 {
            let seen = times.load(SeqCst);
            while times.load(SeqCst) == seen {
                sleep_ms(1);
            }
        }
    }
    say!("busy at times: {}, writers that slipped in: {wrong}", busy > 0);
    process::kill(writer, SIGKILL);
    process::wait(writer);
    say!("unmount: {} {}", umount(c"b", 0), umount(c"m", 0));
}

/// A directory that somebody tries in vain to remove can be mounted on.
fn in_vain() {
    mkdir(c"m");
    mount(c"none", c"m", c"tmpfs", 0).need();
    mount_in_vain(c"m/d", c"m/d/e");
    say!("unmount: {}", umount(c"m", 0));
}

fn in_vain_on_disk() {
    mount_in_vain(c"/root/d", c"/root/d/e");
}

fn mount_in_vain(directory: &CStr, inside: &CStr) {
    mkdir(directory);
    mkdir(inside);
    let remover = process::child(|| {
        loop {
            rmdir(directory);
        }
    });
    let mut failed = 0;
    for _ in 0..300 {
        failed += usize::from(!mount(c"none", directory, c"tmpfs", 0).ok());
        umount(directory, 0);
    }
    say!("mounts that failed: {failed}");
    process::kill(remover, SIGKILL);
    process::wait(remover);
    say!("rmdir: {} {}", rmdir(inside), rmdir(directory));
}

/// The mounts that stay are listed once each, whatever is mounted and moved beside them.
fn listed() {
    const STAY: usize = 100;
    mkdir(c"m");
    mount(c"none", c"m", c"tmpfs", 0).need();
    let place = |i: usize| path(format!("m/stays{i}"));
    for name in [c"m/one", c"m/other"] {
        mkdir(name);
    }
    for i in 0..STAY {
        mkdir(&place(i));
        mount(c"m/one", &place(i), c"", MS_BIND).need();
    }
    let mounter = process::child(|| {
        loop {
            mount(c"none", c"m/one", c"tmpfs", 0);
            mount(c"m/one", c"m/other", c"", MS_MOVE);
            umount(c"m/other", 0);
            umount(c"m/one", 0);
        }
    });
    let mut wrong = 0;
    for _ in 0..50 {
        for list in ["/proc/self/mountinfo", "/proc/self/mounts"] {
            let text = std::fs::read_to_string(list).unwrap_or_default();
            let all: Vec<&str> =
                text.lines().filter_map(|line| line.split_once("/m/stays")).map(|(_, name)| name).collect();
            let numbers: std::collections::BTreeSet<&str> =
                all.iter().filter_map(|name| name.split(' ').next()).collect();
            wrong += usize::from(all.len() != STAY || numbers.len() != STAY);
        }
    }
    say!("lists that are wrong: {wrong}");
    process::kill(mounter, SIGKILL);
    process::wait(mounter);
    say!("unmount: {}", umount(c"m", MNT_DETACH));
}

/// A tree of many mounts, and of mounts in mounts, is copied and goes as a whole.
fn many() {
    const WIDE: usize = 300;
    const DEEP: usize = 100;
    let count = |name: &str| {
        let text = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        text.lines().filter(|line| line.contains(name)).count()
    };
    for name in [c"m", c"b"] {
        mkdir(name);
    }
    mount(c"none", c"m", c"tmpfs", 0).need();
    for i in 0..WIDE {
        let place = path(format!("m/{i}"));
        mkdir(&place);
        mount(c"none", &place, c"tmpfs", 0).need();
    }
    let mut deep = String::from("m/0");
    for _ in 0..DEEP {
        deep += "/d";
        let place = path(deep.as_str());
        mkdir(&place);
        mount(c"none", &place, c"tmpfs", 0).need();
    }
    close(create(&path(format!("{deep}/file")), ""));
    say!("bind: {}", mount(c"m", c"b", c"", MS_BIND | MS_REC));
    say!("{} and {}", count("/m"), count("/b"));
    let fd = open(&path(deep.replacen('m', "b", 1) + "/file"), O_RDWR).fd();
    say!("write: {}", write(fd, "text"));
    say!("busy: {}", umount(c"b", 0));
    say!("all at once: {} {}", umount(c"b", MNT_DETACH), umount(c"m", MNT_DETACH));
    say!("{} and {}", count("/m"), count("/b"));
    say!("write: {}", write(fd, "text"));
    close(fd);
}
