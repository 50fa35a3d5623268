//! Mounting step by step: fsopen(2), fsconfig(2), fsmount(2), fspick(2), move_mount(2), open_tree(2), mount_setattr(2).

use std::ffi::CStr;

use libc::*;

use crate::file::{close, contents, create, mkdir, open, read, stat, write};
use crate::process;
use crate::sys::{NOWHERE, Ret, sys};
use crate::{say, tests};

tests! {
    tmpfs, phases, options, messages, fsopen_refused, fsconfig_refused, fsmount_refused, attributes, dropped, too_many,
    move_refused, move_again, clone_of_a_tree, clone_of_all, clone_refused, place_only, picked, pick_refused,
    not_permitted, no_device,
}

const EMPTY: i32 = 4;
const CREATE: i32 = 6;
const RECONFIGURE: i32 = 7;
const CLONE: i32 = 1;
const RECURSIVE: i32 = 0x8000;

fn fsopen(kind: &CStr) -> Ret {
    sys!(SYS_fsopen, kind, 0)
}

fn flag(fd: i32, key: &CStr) -> Ret {
    sys!(SYS_fsconfig, fd, 0, key, 0, 0)
}

fn string(fd: i32, key: &CStr, value: &CStr) -> Ret {
    sys!(SYS_fsconfig, fd, 1, key, value, 0)
}

fn command(fd: i32, command: i32) -> Ret {
    sys!(SYS_fsconfig, fd, command, 0, 0, 0)
}

fn fsmount(fd: i32, attributes: u32) -> Ret {
    sys!(SYS_fsmount, fd, 0, attributes)
}

/// Puts what a descriptor stands for somewhere.
pub(super) fn put(fd: i32, to: &CStr) -> Ret {
    sys!(SYS_move_mount, fd, c"", AT_FDCWD, to, EMPTY)
}

fn open_tree(path: &CStr, flags: i32) -> Ret {
    sys!(SYS_open_tree, AT_FDCWD, path, flags)
}

pub(super) fn umount(path: &CStr, flags: i32) -> Ret {
    sys!(SYS_umount2, path, flags)
}

pub(super) fn mount_tmpfs(at: &CStr) {
    sys!(SYS_mount, c"none", at, c"tmpfs", 0, 0).need();
}

/// A tmpfs without a place.
pub(super) fn new_tmpfs() -> i32 {
    let fd = fsopen(c"tmpfs").fd();
    command(fd, CREATE).need();
    let mount = fsmount(fd, 0).fd();
    close(fd);
    mount
}

/// The options of what is mounted there.
pub(super) fn shown(place: &str, count: usize) -> String {
    let all = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let end = format!(" /var/contract/{place} ");
    let lines: Vec<&str> = all.lines().filter(|line| line.contains(&end)).collect();
    match lines.last() {
        Some(line) => {
            let fields: Vec<&str> = line.split(' ').collect();
            let options = fields[3].split(',').filter(|option| !option.contains('=') && *option != "inode64");
            let options: Vec<&str> = options.take(count).collect();
            format!("{} {} {} ({} there)", fields[0], fields[2], options.join(","), lines.len())
        }
        None => "not mounted".into(),
    }
}

fn tmpfs() {
    mkdir(c"m");
    let fd = fsopen(c"tmpfs").fd();
    say!("source: {}", string(fd, c"source", c"here"));
    say!("size: {} mode: {}", string(fd, c"size", c"1m"), string(fd, c"mode", c"750"));
    say!("create: {}", command(fd, CREATE));
    let mount = fsmount(fd, 0).fd();
    close(fd);
    say!("not there yet: {}", shown("m", 2));
    say!("a place of its own: {}", sys!(SYS_openat, mount, c"f", O_CREAT | O_RDWR, 0o644).ok_or_error());
    say!("put: {}", put(mount, c"m"));
    say!("{} {:o}", shown("m", 2), stat(c"m").map_or(0, |stat| stat.st_mode));
    say!("what was made in it: {}", contents(c"m/f"));
    let big = open(c"m/big", O_CREAT | O_RDWR).fd();
    let all = vec![0u8; 1 << 20];
    say!("size: {} {}", sys!(SYS_write, big, &all[..], 1 << 20), write(big, "x"));
    close(big);
    say!("busy: {}", umount(c"m", 0));
    close(mount);
    sys!(SYS_umount2, c"m", MNT_DETACH);
}

fn phases() {
    let fd = fsopen(c"tmpfs").fd();
    say!("mounted too early: {}", fsmount(fd, 0));
    say!("reconfigured too early: {}", command(fd, RECONFIGURE));
    say!("created: {}", command(fd, CREATE));
    say!("again: {}", command(fd, CREATE));
    say!("an option now: {}", string(fd, c"size", c"1m"));
    say!("mounted: {}", fsmount(fd, 0).ok_or_error());
    say!("again: {}", fsmount(fd, 0));
    say!("an option now: {}", string(fd, c"size", c"2m"));
    say!("created: {}", command(fd, CREATE));
    say!("reconfigured: {}", command(fd, RECONFIGURE));
    say!("mounted: {}", fsmount(fd, 0));
    let fd = fsopen(c"tmpfs").fd();
    say!("a bad option: {}", string(fd, c"mode", c"xyz"));
    say!("created: {}", command(fd, CREATE));
}

fn options() {
    let try_one = |kind: &CStr, key: &CStr, value: Option<&CStr>| {
        let fd = fsopen(kind).fd();
        let set = match value {
            Some(value) => string(fd, key, value),
            None => flag(fd, key),
        };
        let created = command(fd, CREATE);
        close(fd);
        format!("{set} {created}")
    };
    for key in [c"ro", c"rw", c"sync", c"async", c"unknown", c"size", c"source", c"", c"noatime", c"nosuid"] {
        say!("tmpfs, {}: {}", key.to_string_lossy(), try_one(c"tmpfs", key, None));
    }
    for (key, value) in [
        (c"size", c"10k"),
        (c"size", c"x"),
        (c"mode", c"1777"),
        (c"mode", c"9"),
        (c"uid", c"5"),
        (c"uid", c"x"),
        (c"nr_inodes", c"10"),
        (c"source", c"text"),
        (c"unknown", c"x"),
        (c"ro", c"x"),
    ] {
        let name = format!("{}={}", key.to_string_lossy(), value.to_string_lossy());
        say!("tmpfs, {name}: {}", try_one(c"tmpfs", key, Some(value)));
    }
    for kind in [c"proc", c"sysfs"] {
        let name = kind.to_string_lossy();
        say!("{name}: {} {}", try_one(kind, c"unknown", None), try_one(kind, c"source", Some(c"x")));
    }
    let fd = fsopen(c"tmpfs").fd();
    say!("two sources: {} {}", string(fd, c"source", c"a"), string(fd, c"source", c"b"));
}

fn messages() {
    let fd = fsopen(c"tmpfs").fd();
    say!("none: {}", read(fd, 200));
    string(fd, c"unknown", c"x");
    say!("{}", read(fd, 200));
    say!("once only: {}", read(fd, 200));
    flag(fd, c"other");
    flag(fd, c"another");
    say!("small: {}", read(fd, 5));
    say!("{}", read(fd, 200));
    say!("{}", read(fd, 200));
    say!("{}", read(fd, 200));
    say!("write: {}", write(fd, "x"));
}

fn fsopen_refused() {
    say!("unknown type: {} {}", fsopen(c"nothing"), fsopen(c""));
    say!("flags: {}", sys!(SYS_fsopen, c"tmpfs", 2));
    say!("flags, unknown type: {}", sys!(SYS_fsopen, c"nothing", 2));
    say!("bad pointer: {}", sys!(SYS_fsopen, NOWHERE, 0));
    let fd = sys!(SYS_fsopen, c"tmpfs", 1).fd();
    say!("close-on-exec: {} {}", sys!(SYS_fcntl, fd, F_GETFD, 0), sys!(SYS_fcntl, fsopen(c"tmpfs").fd(), F_GETFD, 0));
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).map(|path| path.display().to_string());
    say!("link: {}", link.unwrap_or_default());
}

fn fsconfig_refused() {
    let fd = fsopen(c"tmpfs").fd();
    let call = |fd: i32, command: i32, key: bool, value: bool, aux: i32| {
        let key = if key { c"size".as_ptr() } else { std::ptr::null() };
        let value = if value { c"1m".as_ptr() } else { std::ptr::null() };
        sys!(SYS_fsconfig, fd, command, key, value, aux)
    };
    say!("flag: {} {} {}", call(fd, 0, false, false, 0), call(fd, 0, true, true, 0), call(fd, 0, true, false, 1));
    say!("string: {} {} {}", call(fd, 1, false, true, 0), call(fd, 1, true, false, 0), call(fd, 1, true, true, 1));
    say!("binary: {} {}", call(fd, 2, true, true, 0), call(fd, 2, true, true, 2 << 20));
    say!("path: {} {}", call(fd, 3, true, false, AT_FDCWD), call(fd, 3, true, true, -5));
    say!("descriptor: {} {}", call(fd, 5, true, true, 0), call(fd, 5, true, false, -1));
    say!("create: {} {} {}", call(fd, 6, true, false, 0), call(fd, 6, false, true, 0), call(fd, 6, false, false, 1));
    say!("reconfigure: {}", call(fd, 7, true, false, 0));
    say!("unknown: {} {}", call(fd, 8, false, false, 0), call(fd, 1000, false, false, 0));
    say!(
        "descriptors: {} {} {}",
        call(-1, 6, false, false, 0),
        call(60, 6, false, false, 0),
        call(0, 6, false, false, 0)
    );
    say!("bad key: {}", sys!(SYS_fsconfig, fd, 0, NOWHERE, 0, 0));
    say!("bad value: {}", sys!(SYS_fsconfig, fd, 1, c"size", NOWHERE, 0));
    let long = crate::file::path("k".repeat(256));
    say!("a long key: {} {}", flag(fd, &long), string(fd, c"size", &long));
}

fn fsmount_refused() {
    let created = || {
        let fd = fsopen(c"tmpfs").fd();
        command(fd, CREATE).need();
        fd
    };
    let fd = created();
    say!("flags: {}", sys!(SYS_fsmount, fd, 2, 0));
    for attributes in [0x30u32, 0x40, 0x100, 0x0010_0000, 0x8000_0000] {
        say!("{attributes:#x}: {}", fsmount(fd, attributes));
    }
    say!("descriptors: {} {} {}", fsmount(-1, 0), fsmount(60, 0), fsmount(0, 0));
    say!("still: {}", fsmount(fd, 0).ok_or_error());
    let mount = sys!(SYS_fsmount, created(), 1, 0).fd();
    say!("close-on-exec: {}", sys!(SYS_fcntl, mount, F_GETFD, 0));
    say!("a place only: {}", read(mount, 10));
    say!("flags of it: {:o}", sys!(SYS_fcntl, mount, F_GETFL, 0).0 & !i64::from(O_LARGEFILE));
}

fn attributes() {
    mkdir(c"m");
    for (name, attributes) in [
        ("none", 0u32),
        ("read-only", 1),
        ("nosuid", 2),
        ("nodev", 4),
        ("noexec", 8),
        ("noatime", 0x10),
        ("strictatime", 0x20),
        ("nodiratime", 0x80),
        ("nosymfollow", 0x0020_0000),
        ("all", 0x9f),
    ] {
        let fd = fsopen(c"tmpfs").fd();
        command(fd, CREATE);
        let mount = fsmount(fd, attributes).fd();
        put(mount, c"m");
        say!("{name}: {}", shown("m", 9));
        close(mount);
        close(fd);
        umount(c"m", 0);
    }
    let fd = fsopen(c"tmpfs").fd();
    say!("read-only as a whole: {} {}", flag(fd, c"ro"), command(fd, CREATE));
    let mount = fsmount(fd, 0).fd();
    put(mount, c"m");
    say!("{}", open(c"m/f", O_CREAT | O_RDWR));
}

fn dropped() {
    mkdir(c"m");
    let mount = new_tmpfs();
    let inside = sys!(SYS_openat, mount, c"f", O_CREAT | O_RDWR, 0o644).fd();
    write(inside, "content");
    close(mount);
    say!("a file lives on: {} {}", write(inside, " and more"), {
        let mut buffer = [0u8; 32];
        crate::file::shown(sys!(SYS_pread64, inside, &mut buffer[..], 32, 0), &buffer)
    });
    close(inside);
    // A second descriptor keeps it.
    let mount = new_tmpfs();
    let second = sys!(SYS_dup, mount).fd();
    close(mount);
    say!("put by the second: {}", put(second, c"m"));
    close(second);
    say!("stays: {}", shown("m", 1));
}

fn too_many() {
    let limit = c"/proc/sys/fs/mount-max";
    let before = std::fs::read_to_string("/proc/sys/fs/mount-max").unwrap_or_default();
    mkdir(c"m");
    mkdir(c"n");
    mount_tmpfs(c"n");
    let mount = new_tmpfs();
    let copy = open_tree(c"n", CLONE).fd();
    close(create(limit, "1"));
    say!("a new one: {}", put(mount, c"m"));
    say!("a copy: {}", put(copy, c"m"));
    say!("one that is there: {}", sys!(SYS_move_mount, AT_FDCWD, c"n", AT_FDCWD, c"m", 0));
    close(create(limit, &before));
    say!("again: {} {}", put(mount, c"n"), put(copy, c"n"));
}

fn move_refused() {
    mkdir(c"m");
    mkdir(c"d");
    close(create(c"f", ""));
    let mount = new_tmpfs();
    say!("flags: {}", sys!(SYS_move_mount, mount, c"", AT_FDCWD, c"m", 0x1000 | EMPTY));
    say!("an empty path: {}", sys!(SYS_move_mount, mount, c"", AT_FDCWD, c"m", 0));
    say!("on a file: {}", put(mount, c"f"));
    say!("on nothing: {} {}", put(mount, c"n"), put(mount, c""));
    sys!(SYS_mkdirat, mount, c"inside", 0o755);
    say!("part of it: {}", sys!(SYS_move_mount, mount, c"inside", AT_FDCWD, c"m", 0));
    say!("into itself: {}", sys!(SYS_move_mount, mount, c"", mount, c"inside", EMPTY));
    let other = new_tmpfs();
    say!("into one without a place: {}", sys!(SYS_move_mount, other, c"", mount, c"inside", EMPTY));
    say!("no mount: {}", sys!(SYS_move_mount, AT_FDCWD, c"d", AT_FDCWD, c"m", 0));
    say!("missing: {}", sys!(SYS_move_mount, AT_FDCWD, c"n", AT_FDCWD, c"m", 0));
    say!("the root: {}", sys!(SYS_move_mount, AT_FDCWD, c"/", AT_FDCWD, c"m", 0));
    say!("descriptors: {}", sys!(SYS_move_mount, 60, c"", AT_FDCWD, c"m", EMPTY));
    say!("bad pointers: {}", sys!(SYS_move_mount, AT_FDCWD, NOWHERE, AT_FDCWD, c"m", 0));
    say!("bad pointers: {}", sys!(SYS_move_mount, mount, c"", AT_FDCWD, NOWHERE, EMPTY));
    say!("put: {}", put(mount, c"m"));
    say!("a second time: {}", put(mount, c"m"));
    say!("{}", shown("m", 1));
}

fn move_again() {
    mkdir(c"a");
    mkdir(c"b");
    mount_tmpfs(c"a");
    mkdir(c"a/sub");
    mount_tmpfs(c"a/sub");
    close(create(c"a/sub/f", "inner"));
    say!("by path: {}", sys!(SYS_move_mount, AT_FDCWD, c"a", AT_FDCWD, c"b", 0));
    say!("{} {} {}", shown("a", 1), shown("b", 1), contents(c"b/sub/f"));
    let fd = open(c"b/sub", O_PATH | O_DIRECTORY).fd();
    say!("by descriptor: {}", put(fd, c"a"));
    say!("{} {}", shown("a", 1), shown("b/sub", 1));
    say!("below itself: {}", {
        mkdir(c"b/d");
        sys!(SYS_move_mount, AT_FDCWD, c"b", AT_FDCWD, c"b/d", 0)
    });
    close(fd);
    say!("unmounted: {} {}", umount(c"a", 0), umount(c"b", 0));
}

fn clone_of_a_tree() {
    mkdir(c"a");
    mkdir(c"b");
    mount_tmpfs(c"a");
    mkdir(c"a/sub");
    mount_tmpfs(c"a/sub");
    close(create(c"a/f", "outer"));
    close(create(c"a/sub/f", "inner"));
    let tree = open_tree(c"a", CLONE).fd();
    let inner = sys!(SYS_openat, tree, c"sub/f", O_RDONLY);
    say!("without what is mounted in it: {inner}");
    say!("put: {} {} {}", put(tree, c"b"), contents(c"b/f"), contents(c"b/sub/f"));
    close(create(c"b/g", "made here"));
    say!("the same files: {}", contents(c"a/g"));
    close(tree);
    umount(c"b", 0);
    let part = open_tree(c"a/sub/f", CLONE).fd();
    close(create(c"place", ""));
    say!("a file: {} {}", put(part, c"place"), contents(c"place"));
    close(part);
    umount(c"place", 0);
}

fn clone_of_all() {
    mkdir(c"a");
    mkdir(c"b");
    mount_tmpfs(c"a");
    mkdir(c"a/sub");
    mount_tmpfs(c"a/sub");
    close(create(c"a/sub/f", "inner"));
    let tree = open_tree(c"a", CLONE | RECURSIVE).fd();
    let inner = sys!(SYS_openat, tree, c"sub/f", O_RDONLY).fd();
    say!("with all: {}", read(inner, 10));
    close(inner);
    say!("put: {} {} {}", put(tree, c"b"), contents(c"b/sub/f"), shown("b/sub", 1));
    close(tree);
    say!("unmounted: {} {} {}", umount(c"b", 0), umount(c"b/sub", 0), umount(c"b", 0));
    let tree = open_tree(c"a", CLONE | RECURSIVE).fd();
    close(tree);
    say!("nothing keeps the first: {} {}", umount(c"a/sub", 0), umount(c"a", 0));
}

fn clone_refused() {
    say!("flags: {} {}", open_tree(c"/", 2), open_tree(c"/", RECURSIVE));
    say!("missing: {} {}", open_tree(c"n", CLONE), open_tree(c"", CLONE));
    say!("bad pointer: {}", sys!(SYS_open_tree, AT_FDCWD, NOWHERE, 0));
    let tree = open_tree(c"/tmp", CLONE).fd();
    say!("of a copy: {}", sys!(SYS_open_tree, tree, c"", CLONE | AT_EMPTY_PATH).ok_or_error());
    say!("close-on-exec: {}", sys!(SYS_fcntl, open_tree(c"/tmp", CLONE | O_CLOEXEC).fd(), F_GETFD, 0));
    let fd = open(c"/dev/null", O_RDONLY).fd();
    say!("a device: {}", sys!(SYS_open_tree, fd, c"", CLONE | AT_EMPTY_PATH).ok_or_error());
}

fn place_only() {
    mkdir(c"d");
    close(create(c"d/f", "content"));
    let fd = open_tree(c"d", 0).fd();
    say!("found through it: {}", sys!(SYS_openat, fd, c"f", O_RDONLY).ok_or_error());
    say!("read: {}", read(fd, 1));
    say!("no mount to move: {}", put(fd, c"/tmp"));
    say!("closed: {}", close(fd));
    say!("there: {}", contents(c"d/f"));
}

fn picked() {
    mkdir(c"m");
    mount_tmpfs(c"m");
    let fd = sys!(SYS_fspick, AT_FDCWD, c"m", 0).fd();
    say!("read-only: {} {}", flag(fd, c"ro"), command(fd, RECONFIGURE));
    say!("{}", open(c"m/f", O_CREAT | O_RDWR));
    say!("again: {} {}", flag(fd, c"rw"), command(fd, RECONFIGURE));
    let file = open(c"m/f", O_CREAT | O_RDWR).fd();
    say!("with a writer: {} {}", flag(fd, c"ro"), command(fd, RECONFIGURE));
    say!("after the failure: {} {}", flag(fd, c"rw"), command(fd, RECONFIGURE));
    let fd = sys!(SYS_fspick, AT_FDCWD, c"m", 0).fd();
    say!("size: {} {}", string(fd, c"size", c"16k"), command(fd, RECONFIGURE));
    let all = vec![0u8; 1 << 16];
    say!("room: {}", sys!(SYS_write, file, &all[..], 1 << 16));
    let fd = sys!(SYS_fspick, AT_FDCWD, c"m", 0).fd();
    say!("less than there is: {} {}", string(fd, c"size", c"4k"), command(fd, RECONFIGURE));
    let fd = sys!(SYS_fspick, AT_FDCWD, c"m", 0).fd();
    say!("create: {}, mount: {}", command(fd, CREATE), fsmount(fd, 0));
    say!("unknown: {} {}", flag(fd, c"unknown"), command(fd, RECONFIGURE));
}

fn pick_refused() {
    mkdir(c"d");
    say!("no mount: {}", sys!(SYS_fspick, AT_FDCWD, c"d", 0));
    say!("missing: {} {}", sys!(SYS_fspick, AT_FDCWD, c"n", 0), sys!(SYS_fspick, AT_FDCWD, c"", 0));
    say!("flags: {}", sys!(SYS_fspick, AT_FDCWD, c"/", 16));
    say!("bad pointer: {}", sys!(SYS_fspick, AT_FDCWD, NOWHERE, 0));
    let fd = open(c"/tmp", O_PATH).fd();
    say!("a descriptor: {} {}", sys!(SYS_fspick, fd, c"", 8).ok_or_error(), sys!(SYS_fspick, fd, c"", 0));
}

fn not_permitted() {
    mkdir(c"m");
    mount_tmpfs(c"m");
    let mount = new_tmpfs();
    let config = fsopen(c"tmpfs").fd();
    process::as_plain_user(|| {
        say!("fsopen: {} {}", fsopen(c"tmpfs"), sys!(SYS_fsopen, c"nothing", 77));
        say!("fsmount: {} {}", fsmount(60, 0), sys!(SYS_fsmount, 60, 77, 0));
        say!("fspick: {} {}", sys!(SYS_fspick, AT_FDCWD, c"m", 0), sys!(SYS_fspick, AT_FDCWD, c"n", 77));
        say!("move_mount: {} {}", put(mount, c"m"), sys!(SYS_move_mount, 60, c"n", 60, c"n", 0x1000));
        say!("open_tree: {} {}", open_tree(c"m", 0).ok_or_error(), open_tree(c"n", 0));
        say!("a copy: {} {} {}", open_tree(c"m", CLONE), open_tree(c"n", CLONE), open_tree(c"m", CLONE | 2));
        say!("fsconfig: {} {}", string(config, c"size", c"1m"), command(config, CREATE));
    });
}

fn no_device() {
    let create_with = |source: Option<&CStr>| {
        let fd = fsopen(c"ext2").fd();
        let set = source.map(|source| string(fd, c"source", source));
        format!("{} {}", set.map_or("-".into(), |set| set.to_string()), command(fd, CREATE))
    };
    say!("none: {}", create_with(None));
    say!("missing: {}", create_with(Some(c"/dev/nothing")));
    say!("no device: {}", create_with(Some(c"/dev/null")));
    say!("a directory: {}", create_with(Some(c"/tmp")));
}
