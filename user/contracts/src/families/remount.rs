//! MS_REMOUNT of mount(2): what is changed, what stays, and what is refused.

use std::ffi::CStr;

use libc::*;

use crate::file::{close, create, mkdir, open, rename, rmdir, unlink};
use crate::process;
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! { half, busy, busy_with_removed, writers_elsewhere, writers_that_left, access_times, of_a_bind, limits, mountinfo_of_a_subtree, watched, removal }

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: u64, data: &CStr) -> Ret {
    sys!(SYS_mount, source, target, kind, flags, data)
}

fn umount(target: &CStr) -> Ret {
    sys!(SYS_umount2, target, 0)
}

/// A tmpfs on m.
fn begin(flags: u64) {
    mkdir(c"m");
    say!("mount: {}", mount(c"none", c"m", c"tmpfs", flags, c""));
}

/// The mount options that /proc/self/mountinfo tells of the last mount whose place ends so.
fn shown(place: &str) -> String {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let line = text.lines().rfind(|line| line.split(' ').nth(4).is_some_and(|at| at.ends_with(place)));
    line.map_or("nothing".into(), |line| line.split(' ').nth(5).unwrap_or_default().into())
}

fn writes() -> String {
    let fd = open(c"m/new", O_CREAT | O_WRONLY);
    let said = fd.ok_or_error();
    if fd.ok() {
        close(fd.fd());
    }
    said
}

/// What is refused changes nothing.
fn half() {
    begin(0);
    say!("with an unknown option: {}", mount(c"none", c"m", c"", MS_REMOUNT | MS_RDONLY, c"nonsense"));
    say!("{} {}", shown("/m"), writes());
    say!("read-only: {}", mount(c"none", c"m", c"", MS_REMOUNT | MS_RDONLY, c""));
    say!("{} {}", shown("/m"), writes());
    say!("writable with an unknown option: {}", mount(c"none", c"m", c"", MS_REMOUNT, c"nonsense"));
    say!("{} {}", shown("/m"), writes());
    say!("writable: {}", mount(c"none", c"m", c"", MS_REMOUNT, c""));
    say!("{} {}", shown("/m"), writes());
    say!("unmount: {}", umount(c"m"));
}

fn busy() {
    begin(0);
    let fd = create(c"m/file", "text");
    say!("read-only: {}", mount(c"none", c"m", c"", MS_REMOUNT | MS_RDONLY, c""));
    say!("with an unknown option: {}", mount(c"none", c"m", c"", MS_REMOUNT | MS_RDONLY, c"nonsense"));
    say!("too small a size: {}", mount(c"none", c"m", c"", MS_REMOUNT | MS_RDONLY, c"nr_inodes=1"));
    say!("the mount alone: {}", mount(c"none", c"m", c"", MS_REMOUNT | MS_BIND | MS_RDONLY, c""));
    say!("{} {}", shown("/m"), writes());
    close(fd);
    say!("the mount alone: {}", mount(c"none", c"m", c"", MS_REMOUNT | MS_BIND | MS_RDONLY, c""));
    say!("{} {}", shown("/m"), writes());
    say!("unmount: {}", umount(c"m"));
}

/// A file that has no name any more will have to be freed, whoever uses it for what.
fn busy_with_removed() {
    let to_read_only = || mount(c"none", c"m", c"", MS_REMOUNT | MS_RDONLY, c"");
    let writable_again = || mount(c"none", c"m", c"", MS_REMOUNT, c"");
    begin(0);
    close(create(c"m/file", "text"));
    sys!(SYS_linkat, AT_FDCWD, c"m/file", AT_FDCWD, c"m/other", 0);
    let fd = open(c"m/file", O_RDONLY).fd();
    say!("open for reading: {} {}", to_read_only(), writable_again());
    unlink(c"m/file");
    say!("with another name: {} {}", to_read_only(), writable_again());
    unlink(c"m/other");
    say!("without a name: {}", to_read_only());
    say!("the mount alone: {}", mount(c"none", c"m", c"", MS_REMOUNT | MS_BIND | MS_RDONLY, c""));
    say!("and back: {}", mount(c"none", c"m", c"", MS_REMOUNT | MS_BIND, c""));
    close(fd);
    say!("closed: {} {}", to_read_only(), writable_again());
    mkdir(c"m/d");
    let fd = open(c"m/d", O_RDONLY).fd();
    rmdir(c"m/d");
    say!("a directory: {}", to_read_only());
    close(fd);
    say!("closed: {} {}", to_read_only(), writable_again());
    let fd = open(c"m", O_TMPFILE | O_RDWR).fd();
    say!("never named: {}", to_read_only());
    sys!(SYS_linkat, fd, c"", AT_FDCWD, c"m/named", AT_EMPTY_PATH);
    close(fd);
    say!("named: {} {}", to_read_only(), writable_again());
    let fd = open(c"m/named", O_RDONLY).fd();
    close(create(c"m/new", ""));
    rename(c"m/new", c"m/named", 0);
    say!("replaced: {}", to_read_only());
    close(fd);
    say!("closed: {}", to_read_only());
    say!("unmount: {}", umount(c"m"));
}

/// A file that is open through another mount keeps the file system writable, but not this mount.
fn writers_elsewhere() {
    begin(0);
    mkdir(c"b");
    say!("bind: {}", mount(c"m", c"b", c"", MS_BIND, c""));
    let fd = create(c"b/file", "text");
    say!("read-only: {}", mount(c"none", c"m", c"", MS_REMOUNT | MS_RDONLY, c""));
    say!("{} {}", shown("/m"), writes());
    say!("the mount alone: {}", mount(c"none", c"m", c"", MS_REMOUNT | MS_BIND | MS_RDONLY, c""));
    say!("{} {}", shown("/m"), writes());
    close(fd);
    say!("unmount: {} {}", umount(c"b"), umount(c"m"));
}

/// So does one through a mount that is in no place any more.
fn writers_that_left() {
    begin(0);
    mkdir(c"b");
    say!("bind: {}", mount(c"m", c"b", c"", MS_BIND, c""));
    let fd = create(c"b/file", "text");
    say!("left: {}", sys!(SYS_umount2, c"b", MNT_DETACH));
    say!("read-only: {}", mount(c"none", c"m", c"", MS_REMOUNT | MS_RDONLY, c""));
    close(fd);
    say!("read-only: {}", mount(c"none", c"m", c"", MS_REMOUNT | MS_RDONLY, c""));
    say!("truncate: {}", sys!(SYS_truncate, c"m/file", 0));
    say!("without a name: {}", open(c"m", O_TMPFILE | O_RDWR));
    say!("unmount: {}", umount(c"m"));
}

/// Without a flag that says how, access times are kept as before.
fn access_times() {
    for before in [0, MS_NOATIME, MS_STRICTATIME, MS_NODIRATIME, MS_NOATIME | MS_NOSUID] {
        begin(before);
        say!("{}", shown("/m"));
        say!("remount: {} {}", mount(c"none", c"m", c"", MS_REMOUNT, c""), shown("/m"));
        say!("nodev: {} {}", mount(c"none", c"m", c"", MS_REMOUNT | MS_NODEV, c""), shown("/m"));
        say!("noatime: {} {}", mount(c"none", c"m", c"", MS_REMOUNT | MS_NOATIME, c""), shown("/m"));
        say!("relatime: {} {}", mount(c"none", c"m", c"", MS_REMOUNT | MS_RELATIME, c""), shown("/m"));
        say!("unmount: {}", umount(c"m"));
        rmdir(c"m");
    }
}

fn of_a_bind() {
    begin(0);
    mkdir(c"m/d");
    mkdir(c"b");
    say!("bind: {}", mount(c"m/d", c"b", c"", MS_BIND, c""));
    say!("remount: {}", mount(c"none", c"b", c"", MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOEXEC, c""));
    say!("{} {}", shown("/b"), shown("/m"));
    say!("not a mount: {}", mount(c"none", c"m/d", c"", MS_REMOUNT | MS_BIND, c""));
    say!("read-only as a whole: {}", mount(c"none", c"b", c"", MS_REMOUNT | MS_RDONLY, c""));
    say!("{} {} {}", shown("/b"), shown("/m"), writes());
    say!("unmount: {} {}", umount(c"b"), umount(c"m"));
}

fn limits() {
    begin(0);
    say!("a limit: {}", mount(c"none", c"m", c"", MS_REMOUNT, c"size=16k"));
    say!("none before: {}", mount(c"none", c"m", c"", MS_REMOUNT, c"nr_inodes=10"));
    say!("unmount: {}", umount(c"m"));
}

/// The root of a mount as seen in its file system, also when that has been removed.
fn mountinfo_of_a_subtree() {
    let root = || {
        let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let line = text.lines().rfind(|line| line.split(' ').nth(4).is_some_and(|at| at.ends_with("/b")));
        line.map_or("nothing".into(), |line| line.split(' ').nth(3).unwrap_or_default().to_string())
    };
    begin(0);
    mkdir(c"m/d");
    mkdir(c"m/d/e");
    mkdir(c"b");
    say!("bind: {} {}", mount(c"m/d/e", c"b", c"", MS_BIND, c""), root());
    say!("removed: {} {}", rmdir(c"m/d/e"), root());
    say!("unmount: {} {}", umount(c"b"), umount(c"m"));
}

/// Whoever reads the list of mounts does not keep them.
fn watched() {
    let reader = process::child(|| {
        loop {
            let _ = std::fs::read("/proc/self/mountinfo");
            let _ = std::fs::read("/proc/self/mounts");
        }
    });
    mkdir(c"m");
    let mut failed = 0;
    for _ in 0..300 {
        failed += usize::from(!mount(c"none", c"m", c"tmpfs", 0, c"").ok());
        failed += usize::from(!umount(c"m").ok());
    }
    say!("failed: {failed}");
    process::kill(reader, SIGKILL);
    process::wait(reader);
}

/// A directory is either removed or mounted on.
fn removal() {
    let remover = process::child(|| {
        loop {
            rmdir(c"m");
        }
    });
    let mut wrong = 0;
    for _ in 0..300 {
        mkdir(c"m");
        if mount(c"none", c"m", c"tmpfs", 0, c"").ok() {
            wrong += usize::from(!umount(c"m").ok());
        }
    }
    say!("mounts that were lost: {wrong}");
    process::kill(remover, SIGKILL);
    process::wait(remover);
}
