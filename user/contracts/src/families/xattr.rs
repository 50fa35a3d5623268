//! Extended attributes: setxattr(2), getxattr(2), listxattr(2), removexattr(2), xattr(7).

use std::ffi::CStr;

use libc::*;

use crate::file::{close, create, link, mkdir, open, rename, shown, stat, symlink, unlink};
use crate::process;
use crate::sys::{NOWHERE, Ret, sys};
use crate::{say, tests};

tests! {
    set_and_get, flags, names, name_lengths, sizes, many, replaced, spaces, security_by_others, other_kinds, permissions, sticky, links,
    descriptors, times_and_blocks, tmpfs, read_only, elsewhere, order_of_checks, bad_pointers,
}

fn set(path: &CStr, name: &CStr, value: &str, flags: i32) -> Ret {
    sys!(SYS_setxattr, path, name, value, value.len(), flags)
}

fn get(path: &CStr, name: &CStr) -> String {
    let mut buffer = [0u8; 128];
    shown(sys!(SYS_getxattr, path, name, &mut buffer[..], 128), &buffer)
}

fn length(path: &CStr, name: &CStr) -> Ret {
    sys!(SYS_getxattr, path, name, 0, 0)
}

fn remove(path: &CStr, name: &CStr) -> Ret {
    sys!(SYS_removexattr, path, name)
}

fn names_of(ret: Ret, buffer: &[u8]) -> String {
    if !ret.ok() {
        return ret.to_string();
    }
    let all = String::from_utf8_lossy(&buffer[..ret.0 as usize]);
    let mut names: Vec<&str> = all.split_terminator('\0').collect();
    names.sort_unstable();
    format!("{names:?}")
}

fn list(path: &CStr) -> String {
    let mut buffer = [0u8; 4096];
    names_of(sys!(SYS_listxattr, path, &mut buffer[..], 4096), &buffer)
}

fn llist(path: &CStr) -> String {
    let mut buffer = [0u8; 4096];
    names_of(sys!(SYS_llistxattr, path, &mut buffer[..], 4096), &buffer)
}

fn tmpfs_at(path: &CStr) {
    mkdir(path);
    sys!(SYS_mount, c"none", path, c"tmpfs", 0, 0).need();
}

fn set_and_get() {
    close(create(c"f", "content"));
    say!("none: {} {} {}", list(c"f"), get(c"f", c"user.a"), remove(c"f", c"user.a"));
    say!("set: {} {}", set(c"f", c"user.a", "value", 0), get(c"f", c"user.a"));
    say!("empty: {} {}", set(c"f", c"user.empty", "", 0), get(c"f", c"user.empty"));
    say!("list: {}", list(c"f"));
    say!("lengths: {} {}", length(c"f", c"user.a"), sys!(SYS_listxattr, c"f", 0, 0));
    let mut small = [0u8; 4];
    say!("too small: {}", sys!(SYS_getxattr, c"f", c"user.a", &mut small[..], 4));
    say!("too small: {}", sys!(SYS_listxattr, c"f", &mut small[..], 4));
    say!("replaced: {} {}", set(c"f", c"user.a", "another value", 0), get(c"f", c"user.a"));
    say!("removed: {} {} {}", remove(c"f", c"user.a"), get(c"f", c"user.a"), list(c"f"));
    say!("the rest: {} {}", remove(c"f", c"user.empty"), list(c"f"));
    say!("missing: {} {} {}", set(c"n", c"user.a", "", 0), get(c"n", c"user.a"), list(c"n"));
}

fn flags() {
    close(create(c"f", ""));
    say!("replace nothing: {}", set(c"f", c"user.a", "1", XATTR_REPLACE));
    say!("create: {}", set(c"f", c"user.a", "1", XATTR_CREATE));
    say!("create again: {} {}", set(c"f", c"user.a", "2", XATTR_CREATE), get(c"f", c"user.a"));
    say!("replace: {} {}", set(c"f", c"user.a", "3", XATTR_REPLACE), get(c"f", c"user.a"));
    say!("both, there: {}", set(c"f", c"user.a", "4", XATTR_CREATE | XATTR_REPLACE));
    say!("both, not there: {}", set(c"f", c"user.b", "4", XATTR_CREATE | XATTR_REPLACE));
    say!("unknown: {} {}", set(c"f", c"user.a", "4", 4), set(c"f", c"user.a", "4", -1));
}

fn names() {
    close(create(c"f", ""));
    for name in [c"", c"user", c"user.", c"trusted.", c"security.", c"other.a", c"a", c".a", c"system.a", c"system."] {
        let text = name.to_string_lossy();
        say!("{text:?}: {} {} {}", set(c"f", name, "1", 0), get(c"f", name), remove(c"f", name));
    }
    for name in [c"user.a b", c"user.a.b", c"user.\xff\x01", c"user.user.a", c"USER.a"] {
        say!("{name:?}: {} {} {}", set(c"f", name, "1", 0), get(c"f", name), remove(c"f", name));
    }
}

fn name_lengths() {
    close(create(c"f", ""));
    for length in [254, 255, 256, 300, 5000] {
        let name = crate::file::path(format!("user.{}", "n".repeat(length - 5)));
        say!("{length}: {} {} {}", set(c"f", &name, "1", 0), get(c"f", &name), remove(c"f", &name));
    }
}

/// The largest value that goes.
fn largest(path: &CStr, name: &CStr) -> usize {
    let (mut fits, mut too_much) = (0usize, 70_000usize);
    while too_much - fits > 1 {
        let middle = fits.midpoint(too_much);
        if set(path, name, &"v".repeat(middle), 0).ok() { fits = middle } else { too_much = middle }
    }
    fits
}

fn sizes() {
    close(create(c"f", ""));
    for size in [1, 4, 60, 80, 92, 200, 900, 2000, 4000, 65536, 65537] {
        let value = "v".repeat(size);
        let answer = set(c"f", c"user.a", &value, 0);
        let mut buffer = vec![0u8; 65536];
        let read = sys!(SYS_getxattr, c"f", c"user.a", &mut buffer[..], 65536);
        let same = read.ok() && buffer[..read.0 as usize] == *value.as_bytes();
        say!("{size}: {answer}, read {read} {same}");
    }
    close(create(c"g", ""));
    say!("the largest: {}", largest(c"g", c"user.a"));
    say!("a second one: {}", largest(c"g", c"user.second"));
    say!("both: {} {}", length(c"g", c"user.a"), length(c"g", c"user.second"));
    mkdir(c"d");
    say!("of a directory: {}", largest(c"d", c"user.directory"));
}

fn many() {
    close(create(c"f", ""));
    let name = |index: usize| crate::file::path(format!("user.{}{index}", "n".repeat(index % 7)));
    let value = |index: usize| format!("{index}").repeat(index % 11);
    let mut count = 0;
    let end = loop {
        let answer = set(c"f", &name(count), &value(count), 0);
        if !answer.ok() || count == 1000 {
            break answer;
        }
        count += 1;
    };
    say!("{count}, then {end}");
    let wrong = (0..count).filter(|&index| get(c"f", &name(index)) != format!("{:?}", value(index))).count();
    say!("wrong: {wrong}");
    let gone = (0..count).step_by(3).filter(|&index| remove(c"f", &name(index)).ok()).count();
    let left = (0..count).filter(|&index| length(c"f", &name(index)).ok()).count();
    say!("removed {gone}, left {left}");
    let again =
        (0..count).step_by(3).filter(|&index| set(c"f", &name(index), &value(index), XATTR_CREATE).ok()).count();
    say!("made again {again}");
}

fn replaced() {
    close(create(c"f", ""));
    for size in [3, 300, 5, 900, 0, 90, 700] {
        let (a, b) = ("a".repeat(size), "b".repeat(900 - size));
        say!("{size}: {} {}", set(c"f", c"user.a", &a, 0), set(c"f", c"user.b", &b, 0));
        say!("lengths: {} {} {}", length(c"f", c"user.a"), length(c"f", c"user.b"), list(c"f"));
    }
    say!("removed: {} {} {}", remove(c"f", c"user.b"), remove(c"f", c"user.a"), list(c"f"));
}

fn spaces() {
    close(create(c"f", ""));
    for name in [c"user.a", c"trusted.a", c"security.a"] {
        say!("{}: {} {}", name.to_string_lossy(), set(c"f", name, "x", 0), get(c"f", name));
    }
    say!("all: {}", list(c"f"));
    sys!(SYS_fchmodat, AT_FDCWD, c"f", 0o666);
    process::as_plain_user(|| {
        say!("a user's list: {}", list(c"f"));
        say!("security.a: {}", get(c"f", c"security.a"));
        for name in [c"user.a", c"trusted.a", c"trusted.b"] {
            let text = name.to_string_lossy();
            say!("{text}: {} {} {}", get(c"f", name), set(c"f", name, "y", 0), remove(c"f", name));
        }
    });
    say!("left: {}", list(c"f"));
}

fn security_by_others() {
    close(create(c"f", ""));
    set(c"f", c"security.a", "x", 0);
    sys!(SYS_fchmodat, AT_FDCWD, c"f", 0o666);
    process::as_plain_user(|| {
        say!("{} {}", set(c"f", c"security.a", "y", 0), set(c"f", c"security.b", "y", 0));
        say!("{} {}", remove(c"f", c"security.a"), list(c"f"));
    });
}

fn other_kinds() {
    mkdir(c"d");
    symlink(c"d", c"l");
    symlink(c"nothing", c"broken");
    sys!(SYS_mknodat, AT_FDCWD, c"fifo", S_IFIFO | 0o644, 0);
    sys!(SYS_mknodat, AT_FDCWD, c"null", S_IFCHR | 0o666, 0x103);
    say!("directory: {} {}", set(c"d", c"user.a", "d", 0), get(c"d", c"user.a"));
    say!("through a link: {} {}", get(c"l", c"user.a"), list(c"l"));
    for name in [c"user.a", c"trusted.a", c"security.a"] {
        let lset = sys!(SYS_lsetxattr, c"l", name, "l", 1, 0);
        let mut value = [0u8; 8];
        let lget = sys!(SYS_lgetxattr, c"l", name, &mut value[..], 8);
        say!("link, {}: {lset} {lget} {}", name.to_string_lossy(), llist(c"l"));
        for path in [c"fifo", c"null"] {
            say!("{}: {} {} {}", path.to_string_lossy(), set(path, name, "x", 0), get(path, name), list(path));
        }
    }
    say!("removed: {} {}", sys!(SYS_lremovexattr, c"l", c"trusted.a"), llist(c"l"));
    say!("the link leads on: {}", stat(c"l").is_ok());
    say!("broken: {} {}", set(c"broken", c"trusted.a", "", 0), sys!(SYS_lsetxattr, c"broken", c"trusted.a", "", 0, 0));
}

fn permissions() {
    for (path, mode) in [(c"private", 0o600), (c"readable", 0o644), (c"writable", 0o666), (c"write-only", 0o622)] {
        close(create(path, ""));
        set(path, c"user.a", "x", 0);
        sys!(SYS_fchmodat, AT_FDCWD, path, mode);
    }
    process::as_plain_user(|| {
        for path in [c"private", c"readable", c"writable", c"write-only"] {
            let text = path.to_string_lossy();
            say!("{text}: {} {} {}", get(path, c"user.a"), set(path, c"user.b", "y", 0), list(path));
            say!(
                "remove: {}, other names: {} {}",
                remove(path, c"user.a"),
                get(path, c"x.y"),
                set(path, c"x.y", "", 0)
            );
        }
        close(create(c"own", ""));
        sys!(SYS_fchmodat, AT_FDCWD, c"own", 0o400);
        say!("one's own, read-only: {} {}", set(c"own", c"user.a", "x", 0), get(c"own", c"user.a"));
    });
}

fn sticky() {
    mkdir(c"d");
    sys!(SYS_fchmodat, AT_FDCWD, c"d", 0o1777);
    say!("the owner: {}", set(c"d", c"user.a", "x", 0));
    process::as_plain_user(|| {
        say!("others: {} {} {}", set(c"d", c"user.b", "x", 0), remove(c"d", c"user.a"), get(c"d", c"user.a"));
    });
}

fn links() {
    close(create(c"f", "content"));
    say!("set: {}", set(c"f", c"user.a", "x", 0));
    link(c"f", c"hard");
    say!("a second name: {}", get(c"hard", c"user.a"));
    rename(c"f", c"moved", 0);
    say!("moved: {}", get(c"moved", c"user.a"));
    unlink(c"hard");
    say!("one name less: {}", get(c"moved", c"user.a"));
    close(create(c"g", ""));
    set(c"g", c"user.b", "g", 0);
    rename(c"g", c"moved", 0);
    say!("replaced: {}", list(c"moved"));
    let fd = open(c"moved", O_RDONLY).fd();
    unlink(c"moved");
    let mut value = [0u8; 8];
    let read = sys!(SYS_fgetxattr, fd, c"user.b", &mut value[..], 8);
    say!("without a name: {} {}", sys!(SYS_fsetxattr, fd, c"user.c", "x", 1, 0), shown(read, &value));
    close(fd);
    close(create(c"moved", ""));
    say!("a new file: {}", list(c"moved"));
}

fn descriptors() {
    let fd = create(c"f", "");
    let mut buffer = [0u8; 64];
    say!("set: {}", sys!(SYS_fsetxattr, fd, c"user.a", "x", 1, 0));
    let read = sys!(SYS_fgetxattr, fd, c"user.a", &mut buffer[..], 64);
    say!("get: {}", shown(read, &buffer));
    let listed = sys!(SYS_flistxattr, fd, &mut buffer[..], 64);
    say!("list: {}", names_of(listed, &buffer));
    close(fd);
    let fd = open(c"f", O_RDONLY).fd();
    say!("read-only: {} {}", sys!(SYS_fsetxattr, fd, c"user.b", "x", 1, 0), sys!(SYS_fremovexattr, fd, c"user.a"));
    close(fd);
    let fd = open(c"f", O_PATH).fd();
    say!("O_PATH: {} {}", sys!(SYS_fsetxattr, fd, c"user.b", "x", 1, 0), sys!(SYS_fgetxattr, fd, c"user.b", 0, 0));
    say!("O_PATH: {} {}", sys!(SYS_flistxattr, fd, 0, 0), sys!(SYS_fremovexattr, fd, c"user.b"));
    close(fd);
    say!("closed: {} {}", sys!(SYS_fsetxattr, fd, c"user.b", "x", 1, 0), sys!(SYS_flistxattr, fd, 0, 0));
}

fn times_and_blocks() {
    close(create(c"f", "x"));
    sys!(SYS_sync);
    let ctime = || stat(c"f").map_or((0, 0), |stat| (stat.st_ctime, stat.st_ctime_nsec));
    let mtime = || stat(c"f").map_or((0, 0), |stat| (stat.st_mtime, stat.st_mtime_nsec));
    let blocks = || stat(c"f").map_or(0, |stat| stat.st_blocks);
    let (before, written, blocks_before) = (ctime(), mtime(), blocks());
    process::sleep_ms(20);
    set(c"f", c"user.a", "small", 0);
    say!("ctime moves: {}, mtime: {}, blocks: {}", ctime() != before, mtime() != written, blocks() - blocks_before);
    set(c"f", c"user.b", &"large".repeat(100), 0);
    let before = ctime();
    process::sleep_ms(20);
    get(c"f", c"user.b");
    list(c"f");
    say!("read: {}, blocks: {}", ctime() != before, blocks() > blocks_before);
    remove(c"f", c"user.b");
    say!("removed: {}, blocks: {}", ctime() != before, blocks() - blocks_before);
    let before = ctime();
    process::sleep_ms(20);
    say!("not there: {} {}", remove(c"f", c"user.b"), ctime() != before);
}

fn tmpfs() {
    tmpfs_at(c"m");
    close(create(c"m/f", ""));
    symlink(c"f", c"m/l");
    for name in [c"user.a", c"trusted.a", c"security.a", c"trusted.", c"security.", c"other.a", c"system.a"] {
        let text = name.to_string_lossy();
        say!("{text}: {} {} {}", set(c"m/f", name, "x", 0), get(c"m/f", name), length(c"m/f", name));
    }
    say!("list: {}", list(c"m/f"));
    say!("flags: {} {}", set(c"m/f", c"trusted.a", "y", XATTR_CREATE), set(c"m/f", c"trusted.b", "y", XATTR_REPLACE));
    say!("both: {} {}", set(c"m/f", c"trusted.a", "y", 3), set(c"m/f", c"trusted.b", "y", 3));
    say!("large: {} {}", set(c"m/f", c"trusted.b", &"v".repeat(60_000), 0), length(c"m/f", c"trusted.b"));
    say!("of a link: {} {}", sys!(SYS_lsetxattr, c"m/l", c"trusted.l", "x", 1, 0), llist(c"m/l"));
    say!("removed: {} {}", remove(c"m/f", c"trusted.a"), remove(c"m/f", c"trusted.a"));
    say!("removed: {} {} {}", remove(c"m/f", c"user.a"), remove(c"m/f", c"trusted.b"), list(c"m/f"));
}

fn read_only() {
    tmpfs_at(c"m");
    close(create(c"m/f", ""));
    set(c"m/f", c"trusted.a", "x", 0);
    sys!(SYS_mount, c"none", c"m", c"", MS_REMOUNT | MS_RDONLY, 0).need();
    say!("get: {} {}", get(c"m/f", c"trusted.a"), list(c"m/f"));
    say!("set: {} {}", set(c"m/f", c"trusted.a", "y", 0), set(c"m/f", c"user.a", "y", 0));
    say!("remove: {} {}", remove(c"m/f", c"trusted.a"), remove(c"m/f", c"trusted.none"));
    say!("before other errors: {} {}", set(c"m/f", c"", "y", 0), set(c"m/f", c"user.a", "y", 77));
}

fn elsewhere() {
    for path in [c"/proc/self/status", c"/proc"] {
        let text = path.to_string_lossy();
        say!("{text}: {} {} {}", set(path, c"user.a", "x", 0), get(path, c"user.a"), list(path));
    }
    let mut ends = [0i32; 2];
    sys!(SYS_pipe2, &mut ends, 0);
    let [reader, _] = ends;
    say!("a pipe: {}", sys!(SYS_fsetxattr, reader, c"user.a", "x", 1, 0));
    say!("{} {}", sys!(SYS_fgetxattr, reader, c"user.a", 0, 0), sys!(SYS_flistxattr, reader, 0, 0));
    say!("trusted: {}", sys!(SYS_fsetxattr, reader, c"trusted.a", "x", 1, 0));
}

fn order_of_checks() {
    close(create(c"f", ""));
    say!("no file, bad name: {}", set(c"n", c"", "", 0));
    say!("bad flags, bad name: {}", set(c"f", c"", "", 77));
    say!("bad name, large value: {}", sys!(SYS_setxattr, c"f", c"", NOWHERE, 70_000, 0));
    say!("large value, bad pointer: {}", sys!(SYS_setxattr, c"f", c"user.a", NOWHERE, 70_000, 0));
    say!("bad pointer, unknown name: {}", sys!(SYS_setxattr, c"f", c"x.y", NOWHERE, 5, 0));
    say!("no value at all: {} {}", sys!(SYS_setxattr, c"f", c"user.a", NOWHERE, 0, 0), get(c"f", c"user.a"));
    process::as_plain_user(|| {
        say!("not permitted, not supported: {}", set(c"f", c"x.y", "", 0));
        say!("not permitted, not there: {} {}", remove(c"f", c"user.none"), remove(c"f", c"trusted.none"));
        say!("not permitted, there: {}", set(c"f", c"user.a", "", XATTR_CREATE));
    });
}

fn bad_pointers() {
    close(create(c"f", ""));
    set(c"f", c"user.a", "x", 0);
    say!("path: {} {}", sys!(SYS_getxattr, NOWHERE, c"user.a", 0, 0), sys!(SYS_listxattr, NOWHERE, 0, 0));
    say!("name: {} {}", sys!(SYS_getxattr, c"f", NOWHERE, 0, 0), sys!(SYS_removexattr, c"f", NOWHERE));
    say!("buffer: {} {}", sys!(SYS_getxattr, c"f", c"user.a", NOWHERE, 8), sys!(SYS_listxattr, c"f", NOWHERE, 80));
    say!("too small, and bad: {}", sys!(SYS_listxattr, c"f", NOWHERE, 3));
}
