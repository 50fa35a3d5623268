//! Types of mounts and their groups, mount_namespaces(7), as far as one can see them in mountinfo.

use std::ffi::CStr;

use libc::*;

use super::mount_fds::mount_tmpfs;
use crate::file::{close, mkdir};
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! { types, peers, slaves, masters_that_go, inside, recursively, unbindable, moves, pivot, copies, attributes }

/// AT_RECURSIVE.
const RECURSIVE: i32 = 0x8000;

/// The optional fields of what is mounted on a place, for all that is there.
fn fields(place: &str) -> String {
    let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let place = format!("/var/contract/{place}");
    let of_place = all.lines().filter(|line| line.split(' ').nth(4) == Some(&place));
    let shown = of_place.map(|line| {
        let fields: Vec<&str> = line.split(' ').skip(6).take_while(|field| *field != "-").collect();
        if fields.is_empty() { "private".to_owned() } else { fields.join(" ") }
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn set(place: &CStr, kind: u64) -> Ret {
    sys!(SYS_mount, c"none", place, c"", kind, 0)
}

fn bind(from: &CStr, to: &CStr, flags: u64) -> Ret {
    mkdir(to);
    sys!(SYS_mount, from, to, c"", MS_BIND | flags, 0)
}

fn umount(place: &CStr) {
    sys!(SYS_umount2, place, 0);
}

fn tmpfs(place: &CStr) {
    mkdir(place);
    mount_tmpfs(place);
}

fn types() {
    tmpfs(c"m");
    say!("new: {}", fields("m"));
    let kinds = [
        MS_SHARED,
        MS_SHARED,
        MS_PRIVATE,
        MS_UNBINDABLE,
        MS_SLAVE,
        MS_SHARED,
        MS_SLAVE,
        MS_SHARED,
        MS_UNBINDABLE,
        MS_SHARED,
    ];
    for kind in kinds {
        say!("{kind:#x}: {} {}", set(c"m", kind), fields("m"));
    }
    for kind in [
        MS_SHARED | MS_SLAVE,
        MS_SHARED | MS_PRIVATE,
        MS_SHARED | MS_NOSUID,
        MS_SLAVE | MS_REC | MS_SILENT,
        MS_SILENT | MS_SHARED,
    ] {
        say!("{kind:#x}: {} {}", set(c"m", kind), fields("m"));
    }
    mkdir(c"m/d");
    say!("no mount: {}", set(c"m/d", MS_SHARED));
    say!("missing: {}", set(c"n", MS_SHARED));
    umount(c"m");
}

fn peers() {
    tmpfs(c"m");
    tmpfs(c"other");
    say!("shared: {} {}", set(c"m", MS_SHARED), set(c"other", MS_SHARED));
    say!("{}; {}", fields("m"), fields("other"));
    say!("bind: {} {}", bind(c"m", c"n", 0), fields("n"));
    umount(c"m");
    say!("one is left: {} {}", fields("n"), fields("other"));
    umount(c"n");
    tmpfs(c"m");
    say!("its number is free: {} {}", set(c"m", MS_SHARED), fields("m"));
    umount(c"m");
    umount(c"other");
}

fn slaves() {
    tmpfs(c"m");
    set(c"m", MS_SHARED);
    bind(c"m", c"n", 0);
    say!("slave: {} {}; {}", set(c"n", MS_SLAVE), fields("m"), fields("n"));
    bind(c"n", c"copy", 0);
    say!("a copy of the slave: {}", fields("copy"));
    say!("a shared slave: {} {}", set(c"n", MS_SHARED), fields("n"));
    bind(c"n", c"peer", 0);
    say!("its peer: {}", fields("peer"));
    say!("a slave of the slave: {} {}", set(c"peer", MS_SLAVE), fields("peer"));
    say!("again: {} {}", set(c"peer", MS_SLAVE), fields("peer"));
    say!("private: {} {}", set(c"peer", MS_PRIVATE), fields("peer"));
    say!("alone: {} {}", set(c"n", MS_SLAVE), fields("n"));
    for place in [c"peer", c"copy", c"n", c"m"] {
        umount(place);
    }
}

fn masters_that_go() {
    tmpfs(c"m");
    set(c"m", MS_SHARED);
    bind(c"m", c"second", 0);
    bind(c"m", c"slave", 0);
    set(c"slave", MS_SLAVE);
    set(c"slave", MS_SHARED);
    bind(c"slave", c"last", 0);
    set(c"last", MS_SLAVE);
    let all = || ["m", "second", "slave", "last"].map(fields).join("; ");
    say!("{}", all());
    umount(c"m");
    say!("one of two: {}", all());
    umount(c"slave");
    say!("in the middle: {}", all());
    tmpfs(c"new");
    say!("new: {} {}", set(c"new", MS_SHARED), fields("new"));
    umount(c"second");
    say!("the first: {}", all());
    for place in [c"last", c"new"] {
        umount(place);
    }
}

fn inside() {
    tmpfs(c"m");
    set(c"m", MS_SHARED);
    tmpfs(c"m/a");
    tmpfs(c"m/a/b");
    say!("mounted in it: {}; {}", fields("m/a"), fields("m/a/b"));
    tmpfs(c"tree");
    tmpfs(c"tree/a");
    say!("outside: {}; {}", fields("tree"), fields("tree/a"));
    mkdir(c"m/t");
    say!("bind: {}", bind(c"tree", c"m/t", MS_REC));
    say!("in it: {}; {}", fields("m/t"), fields("m/t/a"));
    say!("of what: {}; {}", fields("tree"), fields("tree/a"));
    for place in [c"m/t/a", c"m/t", c"tree/a", c"tree", c"m/a/b", c"m/a", c"m"] {
        umount(place);
    }
}

fn recursively() {
    tmpfs(c"m");
    tmpfs(c"m/a");
    tmpfs(c"m/a/b");
    let all = || ["m", "m/a", "m/a/b"].map(fields).join("; ");
    for kind in [MS_SHARED, MS_PRIVATE | MS_REC, MS_SHARED | MS_REC, MS_SLAVE, MS_UNBINDABLE | MS_REC] {
        say!("{kind:#x}: {} {}", set(c"m", kind), all());
    }
    for place in [c"m/a/b", c"m/a", c"m"] {
        umount(place);
    }
}

fn unbindable() {
    tmpfs(c"m");
    tmpfs(c"m/a");
    tmpfs(c"m/a/b");
    tmpfs(c"m/c");
    say!("{} {}", set(c"m/a", MS_UNBINDABLE), fields("m/a"));
    say!("bind: {}", bind(c"m/a", c"n", 0));
    say!("what is in it: {} {}", bind(c"m/a/b", c"n", 0), fields("n"));
    umount(c"n");
    say!("around it: {} {}", bind(c"m", c"n", MS_REC), ["n", "n/a", "n/a/b", "n/c"].map(fields).join("; "));
    say!("open_tree: {}", sys!(SYS_open_tree, AT_FDCWD, c"m/a", 1));
    tmpfs(c"shared");
    set(c"shared", MS_SHARED);
    mkdir(c"shared/d");
    say!("move into shared: {}", sys!(SYS_mount, c"m", c"shared/d", c"", MS_MOVE, 0));
    say!("move elsewhere: {} {}", sys!(SYS_mount, c"m/a", c"m/c", c"", MS_MOVE, 0), fields("m/c"));
    for place in [c"m/c/b", c"m/c", c"m/c", c"m", c"n/c", c"n", c"shared"] {
        umount(place);
    }
}

fn moves() {
    tmpfs(c"m");
    tmpfs(c"m/a");
    tmpfs(c"n");
    set(c"m", MS_SHARED);
    mkdir(c"n/a");
    mkdir(c"m/b");
    say!("out of shared: {}", sys!(SYS_mount, c"m/a", c"n/a", c"", MS_MOVE, 0));
    say!("within it: {}", sys!(SYS_mount, c"m/a", c"m/b", c"", MS_MOVE, 0));
    tmpfs(c"n/a");
    say!("into it: {} {}", sys!(SYS_mount, c"n/a", c"m/b", c"", MS_MOVE, 0), fields("m/b"));
    say!("itself: {} {}", sys!(SYS_mount, c"m", c"n/a", c"", MS_MOVE, 0), fields("n/a"));
    say!("what is in it: {}", fields("n/a/b"));
    for place in [c"n/a/b", c"n/a/a", c"n/a", c"n"] {
        umount(place);
    }
}

fn pivot() {
    tmpfs(c"m");
    tmpfs(c"m/new");
    mkdir(c"m/new/old");
    say!("shared new: {}", set(c"m/new", MS_SHARED));
    say!("pivot: {}", sys!(SYS_pivot_root, c"m/new", c"m/new/old"));
    say!("shared parent: {} {}", set(c"m/new", MS_PRIVATE), set(c"m", MS_SHARED));
    say!("pivot: {}", sys!(SYS_pivot_root, c"m/new", c"m/new/old"));
    umount(c"m/new");
    umount(c"m");
}

fn copies() {
    tmpfs(c"m");
    set(c"m", MS_SHARED);
    let tree = sys!(SYS_open_tree, AT_FDCWD, c"m", 1).fd();
    mkdir(c"n");
    say!("a copy: {}", sys!(SYS_move_mount, tree, c"", AT_FDCWD, c"n", 4));
    say!("{}; {}", fields("m"), fields("n"));
    close(tree);
    umount(c"n");
    let tree = sys!(SYS_open_tree, AT_FDCWD, c"m", 1).fd();
    umount(c"m");
    tmpfs(c"m");
    say!("while one has no place: {} {}", set(c"m", MS_SHARED), fields("m"));
    close(tree);
    tmpfs(c"n");
    say!("and when it is gone: {} {}", set(c"n", MS_SHARED), fields("n"));
    umount(c"n");
    umount(c"m");
}

/// mount_setattr(2).
fn attributes() {
    tmpfs(c"m");
    tmpfs(c"m/a");
    let change = |flags: i32, kind: u64| {
        let attr = [0, 0, kind, 0u64];
        sys!(SYS_mount_setattr, AT_FDCWD, c"m", flags, &attr, 32)
    };
    for (flags, kind) in [
        (0, MS_SHARED),
        (RECURSIVE, MS_SLAVE),
        (RECURSIVE, MS_SHARED),
        (0, MS_UNBINDABLE),
        (0, MS_PRIVATE | MS_SLAVE),
        (0, MS_REC),
        (RECURSIVE, MS_PRIVATE),
    ] {
        say!("{flags:#x} {kind:#x}: {} {}; {}", change(flags, kind), fields("m"), fields("m/a"));
    }
    umount(c"m/a");
    umount(c"m");
}
