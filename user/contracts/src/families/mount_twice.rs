//! One device mounted in two places: both show one tree of names, and each has its own mounts in it.

use libc::*;

use super::loops::{NODE, SET_FD, device, end};
use super::mount_sync::image;
use crate::file::{close, contents, create, link, mkdir, open, path, rename, rmdir, stat, unlink, write};
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! { names, renames, directory_cycle, mounts_inside, same_place, read_only_view, one_after_the_other, fsmount }

const EXCHANGE: u32 = 2;

/// An ext2 at `a` and at `b`, with a loop device whose file is in memory.
struct Both(i32);

impl Both {
    fn mount() -> Both {
        for name in [c"tmp", c"a", c"b"] {
            mkdir(name);
        }
        sys!(SYS_mount, c"none", c"tmp", c"tmpfs", 0, 0).need();
        let backing = create(c"tmp/image", "");
        let image = image();
        sys!(SYS_write, backing, &image[..], image.len()).need();
        let loop_device = device(O_RDWR);
        sys!(SYS_ioctl, loop_device, SET_FD, backing).need();
        close(backing);
        say!("mount: {} {}", ext2(c"a"), ext2(c"b"));
        Both(loop_device)
    }

    fn end(self) {
        say!("unmount: {} {}", umount(c"a"), umount(c"b"));
        end(self.0);
        umount(c"tmp").need();
    }
}

fn ext2(at: &std::ffi::CStr) -> Ret {
    sys!(SYS_mount, NODE, at, c"ext2", 0, 0)
}

fn umount(at: &std::ffi::CStr) -> Ret {
    sys!(SYS_umount2, at, 0)
}

/// What opening it says.
fn opened(name: &std::ffi::CStr) -> Ret {
    let ret = open(name, O_RDONLY);
    if ret.ok() {
        close(ret.fd());
        return Ret(0);
    }
    ret
}

/// Each name is looked up through both before something happens to it.
fn names() {
    let both = Both::mount();
    say!("before: {} {}", opened(c"a/x"), opened(c"b/x"));
    let fd = create(c"b/x", "made");
    say!("made: {}", contents(c"a/x"));
    write(fd, "made anew");
    say!("written: {}", contents(c"a/x"));
    close(fd);
    say!("linked: {} {}", link(c"a/x", c"a/y"), contents(c"b/y"));
    say!("across: {}", link(c"a/x", c"b/z"));
    say!("unlinked: {} {} {}", unlink(c"b/x"), opened(c"a/x"), opened(c"a/y"));
    say!("unlinked: {} {}", unlink(c"a/y"), opened(c"b/y"));
    say!("a directory: {} {}", mkdir(c"a/d"), opened(c"b/d"));
    say!("in it: {} {}", mkdir(c"b/d/e"), opened(c"a/d/e"));
    say!("not empty: {}", rmdir(c"a/d"));
    say!("removed: {} {} {}", rmdir(c"a/d/e"), rmdir(c"b/d"), opened(c"a/d"));
    both.end();
}

fn renames() {
    let both = Both::mount();
    close(create(c"a/one", "1"));
    close(create(c"a/two", "2"));
    say!("before: {} {} {}", opened(c"b/one"), opened(c"b/two"), opened(c"b/three"));
    say!("rename: {}", rename(c"a/one", c"a/three", 0));
    say!("seen: {} {}", opened(c"b/one"), contents(c"b/three"));
    say!("across: {}", rename(c"a/three", c"b/one", 0));
    say!("exchange: {}", rename(c"b/two", c"b/three", EXCHANGE));
    say!("seen: {} {}", contents(c"a/two"), contents(c"a/three"));
    say!("replace: {}", rename(c"a/two", c"a/three", 0));
    say!("seen: {} {}", opened(c"b/two"), contents(c"b/three"));
    unlink(c"b/three");
    both.end();
}

/// Two renames, each of which is right by what was seen through its own mount before the other.
fn directory_cycle() {
    let both = Both::mount();
    mkdir(c"a/x");
    mkdir(c"a/y");
    let all = [c"a/x", c"a/y", c"b/x", c"b/y"].map(|name| opened(name).0);
    say!("before: {all:?}");
    let x = open(c"b/x", O_RDONLY).fd();
    say!("x into y: {}", rename(c"a/x", c"a/y/x", 0));
    say!("y into what was x: {}", sys!(SYS_renameat2, AT_FDCWD, c"b/y", x, c"y", 0));
    close(x);
    say!("y into x: {}", rename(c"b/y", c"b/x/y", 0));
    say!("y into y/x: {}", rename(c"b/y", c"b/y/x/y", 0));
    say!("y in place of y/x: {}", rename(c"b/y/x", c"b/y", 0));
    say!("up: {} {}", rename(c"b/y/x", c"b/x", 0), rename(c"a/y", c"a/x/y", 0));
    say!("seen: {} {} {}", opened(c"b/y"), opened(c"b/x/y"), opened(c"b/x"));
    say!("removed: {} {}", rmdir(c"b/x/y"), rmdir(c"a/x"));
    both.end();
}

fn mounts_inside() {
    let both = Both::mount();
    mkdir(c"a/x");
    mkdir(c"b/y");
    say!("mount: {}", sys!(SYS_mount, c"none", c"a/x", c"tmpfs", 0, 0));
    close(create(c"a/x/inside", ""));
    close(create(c"b/x/below", ""));
    say!("inside: {} {}", opened(c"a/x/inside"), opened(c"b/x/inside"));
    say!("below: {} {}", opened(c"a/x/below"), opened(c"b/x/below"));
    say!("up and down: {} {}", opened(c"a/x/../x/inside"), opened(c"b/x/../x/below"));
    say!("out: {} {}", opened(c"a/x/../../b/x/below"), opened(c"b/x/../../a/x/inside"));
    unlink(c"b/x/below");
    say!("rmdir: {} {}", rmdir(c"b/x"), rmdir(c"a/x"));
    say!("rename: {} {}", rename(c"b/x", c"b/z", 0), rename(c"a/x", c"a/z", 0));
    say!("busy: {} {}", umount(c"a"), umount(c"b"));
    say!("mounted anew: {} {}", ext2(c"b"), opened(c"b/y"));
    say!("on the other: {}", sys!(SYS_mount, c"none", c"b/x", c"tmpfs", 0, 0));
    say!("unmount: {} {}", umount(c"a/x"), umount(c"b/x"));
    say!("rmdir: {} {}", rmdir(c"b/x"), rmdir(c"a/y"));
    both.end();
}

fn same_place() {
    let both = Both::mount();
    say!("on itself: {} {}", ext2(c"a"), ext2(c"b"));
    mkdir(c"a/in");
    say!("in itself: {} {}", ext2(c"a/in"), opened(c"a/in/in"));
    say!("and there: {}", ext2(c"a/in"));
    say!("deeper: {} {}", ext2(c"a/in/in"), opened(c"a/in/in/in"));
    say!("not by the other: {} {}", opened(c"b/in"), opened(c"b/in/in"));
    say!("up: {} {}", opened(c"a/in/in/../../../b"), opened(c"a/in/in/in/../../../../b"));
    say!("bind on itself: {}", sys!(SYS_mount, c"b", c"b", c"", MS_BIND, 0));
    say!("a bind below: {}", sys!(SYS_mount, c"b/in", c"b", c"", MS_BIND, 0));
    say!("on that: {}", ext2(c"b"));
    say!("unmount: {} {} {} {}", umount(c"b"), umount(c"b"), umount(c"a/in/in"), umount(c"a/in"));
    say!("rmdir: {}", rmdir(c"b/in"));
    both.end();
}

/// Flags belong to one mount.
fn read_only_view() {
    let both = Both::mount();
    let flags = MS_REMOUNT | MS_BIND | MS_RDONLY;
    say!("remount: {}", sys!(SYS_mount, c"none", c"b", c"none", flags, 0));
    say!("mkdir: {} {}", mkdir(c"b/d"), mkdir(c"a/d"));
    say!("seen: {} {}", opened(c"b/d"), mkdir(c"b/d"));
    say!("rmdir: {} {} {}", rmdir(c"b/d"), rmdir(c"a/d"), opened(c"b/d"));
    say!("all of it, otherwise: {}", sys!(SYS_mount, NODE, c"tmp", c"ext2", MS_RDONLY, 0));
    both.end();
}

fn one_after_the_other() {
    let both = Both::mount();
    close(create(c"a/kept", "kept"));
    let fd = open(c"a/kept", O_RDONLY).fd();
    say!("busy: {} {}", umount(c"a"), umount(c"b"));
    say!("by the first: {}", contents(c"a/kept"));
    say!("again: {} {}", ext2(c"b"), contents(c"b/kept"));
    close(fd);
    say!("none: {} {}", umount(c"a"), umount(c"b"));
    say!("gone: {} {}", opened(c"a/kept"), opened(c"b/kept"));
    say!("anew: {} {}", ext2(c"b"), ext2(c"a"));
    say!("kept: {} {}", contents(c"a/kept"), contents(c"b/kept"));
    say!("unlink: {} {}", unlink(c"b/kept"), opened(c"a/kept"));
    // Somebody still has something open, and it is mounted again.
    close(create(c"a/held", ""));
    let fd = open(c"a/held", O_RDONLY).fd();
    say!("let go: {} {}", sys!(SYS_umount2, c"a", MNT_DETACH), umount(c"b"));
    say!("anew: {} {}", ext2(c"b"), ext2(c"a"));
    say!("unlink: {} {}", unlink(c"b/held"), opened(c"a/held"));
    let gone = crate::file::fstat(fd).map_or(9, |stat| stat.st_nlink);
    say!("links of what is open: {gone}");
    close(fd);
    both.end();
}

fn fsmount() {
    let both = Both::mount();
    mkdir(c"c");
    let fs = sys!(SYS_fsopen, c"ext2", 0).fd();
    // FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE
    say!("source: {}", sys!(SYS_fsconfig, fs, 1, c"source", NODE, 0));
    say!("create: {}", sys!(SYS_fsconfig, fs, 6, 0, 0, 0));
    let tree = sys!(SYS_fsmount, fs, 0, 0).fd();
    say!("before: {}", opened(c"a/x"));
    say!("seen in it: {}", sys!(SYS_mkdirat, tree, c"x", 0o755));
    say!("and there: {} {}", opened(c"a/x"), opened(c"b/x"));
    say!("move: {}", sys!(SYS_move_mount, tree, c"", AT_FDCWD, c"c", 4));
    say!("removed: {} {}", rmdir(c"a/x"), stat(&path("c/x")).err().unwrap_or(Ret(0)));
    close(tree);
    close(fs);
    say!("unmount: {}", umount(c"c"));
    both.end();
}
