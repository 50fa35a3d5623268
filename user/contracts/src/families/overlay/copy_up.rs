//! overlayfs: how files get from a lower layer to the upper one.

use std::ffi::CStr;

use libc::*;

use super::{file, fill, mount, mount_at, places, shape, simple, simple_on_tmpfs, umount, xattr};
use crate::file::{
    close, contents, create, described, fstat, link, mkdir, open, read, read_at, rename, stat, symlink, unlink, write,
};
use crate::memory;
use crate::process;
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! {
    seen_through, write_copies, on_tmpfs, read_does_not_copy, modes_and_times, parents, by_chmod, by_chown, by_utimens, by_truncate,
    by_setxattr, by_link, symlinks_and_devices, xattrs_go_along, private_xattrs, same_number, two_file_systems,
    open_before, mapped_before, append_and_truncate, hard_links_below, holes, big_file, at_once, permissions, busy_program,
    unlinked_then_changed, locks_stay, access_times, sync_calls,
}

fn numbers(path: &CStr) -> (u64, u64) {
    stat(path).map_or((0, 0), |stat| (stat.st_dev, stat.st_ino))
}

fn seen_through() {
    simple();
    say!("file: {} {}", contents(c"m/f"), described(stat(c"m/f")));
    say!("in a directory: {} {}", contents(c"m/d/a"), contents(c"m/s"));
    say!("directory: {:?}", stat(c"m/d").map(|stat| stat.st_nlink).ok());
    say!("missing: {} {}", contents(c"m/x"), contents(c"m/d/x"));
    say!("upper: {}", shape("u"));
    say!("device of its own: {}", numbers(c"m").0 != numbers(c"l").0);
    say!("number of the lower file: {}", numbers(c"m/f").1 == numbers(c"l/f").1);
}

fn write_copies() {
    simple();
    let fd = open(c"m/f", O_RDWR).fd();
    say!("opened for writing: {}", shape("u"));
    write(fd, "UP");
    say!("through it: {} upper: {} lower: {}", contents(c"m/f"), contents(c"u/f"), contents(c"l/f"));
    close(fd);
    say!("work is empty: {}", shape("w"));
}

fn on_tmpfs() {
    simple_on_tmpfs();
    let fd = open(c"m/d/a", O_WRONLY).fd();
    write(fd, "IN");
    close(fd);
    say!("{} | {}", shape("m"), shape("u"));
    say!("unlink: {} {}", unlink(c"m/d/b"), shape("u"));
    say!("numbers stay: {}", numbers(c"m/d/a").1 == numbers(c"l/d/a").1);
    let fd = open(c"m/f", O_RDWR).fd();
    say!("fallocate: {} {:?}", sys!(SYS_fallocate, fd, 0, 0, 10000), fstat(fd).map(|stat| stat.st_size).ok());
}

fn read_does_not_copy() {
    simple();
    close(open(c"m/f", O_RDONLY).fd());
    say!("O_RDONLY: {:?}", shape("u"));
    close(open(c"m/f", O_RDONLY | O_APPEND).fd());
    say!("O_APPEND: {:?}", shape("u"));
    sys!(SYS_faccessat, AT_FDCWD, c"m/f", W_OK);
    say!("access: {:?}", shape("u"));
    say!("O_CREAT: {}", open(c"m/f", O_CREAT | O_RDONLY).ok_or_error());
    say!("it: {:?}", shape("u"));
    say!("O_EXCL: {} {:?}", open(c"m/f", O_CREAT | O_EXCL | O_RDWR), shape("u"));
    say!("O_RDONLY and O_TRUNC: {} {}", open(c"m/f", O_RDONLY | O_TRUNC).ok_or_error(), shape("u"));
}

fn modes_and_times() {
    places();
    file(c"l/f", "x");
    sys!(SYS_fchownat, AT_FDCWD, c"l/f", 7, 8, 0);
    sys!(SYS_fchmodat, AT_FDCWD, c"l/f", 0o4751);
    let times = [timespec { tv_sec: 1000, tv_nsec: 5 }, timespec { tv_sec: 2000, tv_nsec: 7 }];
    mkdir(c"l/d");
    file(c"l/d/x", "");
    sys!(SYS_fchmodat, AT_FDCWD, c"l/d", 0o2770);
    sys!(SYS_utimensat, AT_FDCWD, c"l/f", &times, 0);
    sys!(SYS_utimensat, AT_FDCWD, c"l/d", &times, 0);
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    let before = stat(c"u").map(|stat| (stat.st_mtime, stat.st_mtime_nsec)).ok();
    process::sleep_ms(20);
    close(open(c"m/f", O_WRONLY).fd());
    close(open(c"m/d/x", O_WRONLY).fd());
    let times = |stat: stat| (stat.st_atime, stat.st_mtime);
    say!("file: {} {:?}", described(stat(c"u/f")), stat(c"u/f").map(times).ok());
    say!("directory: {} {:?}", described(stat(c"u/d")).contains("42770"), stat(c"u/d").map(times).ok());
    say!("the parent's time: {}", before == stat(c"u").map(|stat| (stat.st_mtime, stat.st_mtime_nsec)).ok());
}

fn parents() {
    places();
    mkdir(c"l/a");
    mkdir(c"l/a/b");
    sys!(SYS_fchmodat, AT_FDCWD, c"l/a/b", 0o700);
    mkdir(c"l/a/b/c");
    file(c"l/a/b/c/f", "deep");
    file(c"l/a/other", "");
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    let fd = open(c"m/a/b/c/f", O_WRONLY).fd();
    close(fd);
    say!("{} | {:o}", shape("u"), stat(c"u/a/b").map_or(0, |stat| stat.st_mode));
    say!("a new one: {} {}", mkdir(c"m/a/b/n"), shape("u"));
}

fn by_chmod() {
    simple();
    say!("chmod: {} {}", sys!(SYS_fchmodat, AT_FDCWD, c"m/f", 0o600), shape("u"));
    say!("{:o} {:o}", stat(c"m/f").map_or(0, |s| s.st_mode), stat(c"l/f").map_or(0, |s| s.st_mode));
    say!("a directory: {} {}", sys!(SYS_fchmodat, AT_FDCWD, c"m/d", 0o711), shape("u"));
    let fd = open(c"m/d/a", O_RDONLY).fd();
    say!("fchmod: {} {:o}", sys!(SYS_fchmod, fd, 0o640), fstat(fd).map_or(0, |s| s.st_mode));
    say!("{}", shape("u"));
}

fn by_chown() {
    simple();
    say!("chown: {} {}", sys!(SYS_fchownat, AT_FDCWD, c"m/f", 3, 4, 0), described(stat(c"u/f")));
    say!("a link: {}", sys!(SYS_fchownat, AT_FDCWD, c"m/s", 5, 6, AT_SYMLINK_NOFOLLOW));
    say!("{} {}", shape("u"), described(stat(c"m/s")));
    say!("lower: {} {}", described(stat(c"l/f")), described(stat(c"l/s")));
}

fn by_utimens() {
    simple();
    let times = [timespec { tv_sec: 10, tv_nsec: 0 }, timespec { tv_sec: 20, tv_nsec: 0 }];
    say!("utimensat: {}", sys!(SYS_utimensat, AT_FDCWD, c"m/f", &times, 0));
    say!("{:?}", stat(c"m/f").map(|stat| (stat.st_atime, stat.st_mtime)).ok());
    say!("{}", shape("u"));
    let omit = [timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }; 2];
    say!("omitted: {} {}", sys!(SYS_utimensat, AT_FDCWD, c"m/d/a", &omit, 0), shape("u"));
}

fn by_truncate() {
    simple();
    say!("truncate: {} {}", sys!(SYS_truncate, c"m/f", 2), shape("u"));
    say!("longer: {} {}", sys!(SYS_truncate, c"m/d/a", 6), shape("u"));
    say!("lower: {}", shape("l"));
}

fn by_setxattr() {
    simple();
    say!("set: {} {}", sys!(SYS_setxattr, c"m/f", c"trusted.x", "1", 1, 0), shape("u"));
    say!("lower: {:?} upper: {:?}", xattr("l/f", c"trusted.x"), xattr("u/f", c"trusted.x"));
    say!("remove what is not there: {} {}", sys!(SYS_removexattr, c"m/d/a", c"trusted.x"), shape("u"));
    say!("remove: {} {:?}", sys!(SYS_removexattr, c"m/f", c"trusted.x"), xattr("m/f", c"trusted.x"));
}

fn by_link() {
    simple();
    say!("link: {} {}", link(c"m/f", c"m/g"), shape("u"));
    say!("{} {}", described(stat(c"m/f")), numbers(c"m/f") == numbers(c"m/g"));
    let fd = open(c"m/g", O_WRONLY | O_TRUNC).fd();
    write(fd, "both");
    close(fd);
    say!("{} {}", contents(c"m/f"), contents(c"m/g"));
    say!("one less: {} {} {}", unlink(c"m/f"), contents(c"m/g"), described(stat(c"m/g")));
    say!("{}", shape("u"));
}

fn symlinks_and_devices() {
    places();
    symlink(c"somewhere", c"l/s");
    sys!(SYS_mknodat, AT_FDCWD, c"l/p", S_IFIFO | 0o644, 0);
    sys!(SYS_mknodat, AT_FDCWD, c"l/c", S_IFCHR | 0o644, 0x103);
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    let fd = open(c"m/c", O_RDWR).fd();
    say!("a device is opened: {} {:?}", write(fd, "x"), shape("u"));
    close(fd);
    say!("links: {} {} {}", link(c"m/s", c"m/s2"), link(c"m/p", c"m/p2"), link(c"m/c", c"m/c2"));
    say!("{}", shape("u"));
    say!("a whiteout cannot be made: {}", sys!(SYS_mknodat, AT_FDCWD, c"m/w", S_IFCHR | 0o644, 0));
    say!("a block device 0/0 can: {}", sys!(SYS_mknodat, AT_FDCWD, c"m/b", S_IFBLK | 0o644, 0));
}

fn xattrs_go_along() {
    places();
    file(c"l/f", "x");
    mkdir(c"l/d");
    file(c"l/d/x", "");
    for (at, name) in [(c"l/f", c"user.a"), (c"l/f", c"trusted.b"), (c"l/d", c"user.c"), (c"l/d", c"trusted.d")] {
        sys!(SYS_setxattr, at, name, "value", 5, 0).need();
    }
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    close(open(c"m/f", O_WRONLY).fd());
    close(open(c"m/d/x", O_WRONLY).fd());
    for (at, name) in [("u/f", c"user.a"), ("u/f", c"trusted.b"), ("u/d", c"user.c"), ("u/d", c"trusted.d")] {
        say!("{at} {}: {}", name.to_string_lossy(), xattr(at, name).is_some_and(|value| value == b"value"));
    }
}

fn listed(at: &CStr) -> Vec<String> {
    let mut buffer = [0u8; 512];
    let ret = sys!(SYS_llistxattr, at, &mut buffer[..], 512);
    let text = String::from_utf8_lossy(&buffer[..ret.0.max(0) as usize]).into_owned();
    let mut names: Vec<String> = text.split_terminator('\0').map(String::from).collect();
    names.sort();
    names
}

fn private_xattrs() {
    simple();
    sys!(SYS_setxattr, c"m/f", c"trusted.x", "1", 1, 0).need();
    sys!(SYS_setxattr, c"m/d", c"trusted.y", "1", 1, 0).need();
    close(open(c"m/d/a", O_WRONLY).fd());
    say!("upper: {:?} {:?}", listed(c"u/f"), listed(c"u/d"));
    say!("seen: {:?} {:?}", listed(c"m/f"), listed(c"m/d"));
    let mut buffer = [0u8; 64];
    for name in [c"trusted.overlay.origin", c"trusted.overlay.opaque", c"trusted.overlay.anything"] {
        say!("get {}: {}", name.to_string_lossy(), sys!(SYS_getxattr, c"m/f", name, &mut buffer[..], 64));
        say!("set: {} remove: {}", sys!(SYS_setxattr, c"m/f", name, "y", 1, 0), {
            sys!(SYS_removexattr, c"m/f", name)
        });
    }
    say!("of another space: {}", sys!(SYS_setxattr, c"m/f", c"user.overlay.opaque", "y", 1, 0));
}

fn same_number() {
    simple();
    let before = (numbers(c"m/f"), numbers(c"m/d"), numbers(c"m/d/a"));
    close(open(c"m/f", O_WRONLY).fd());
    close(open(c"m/d/a", O_WRONLY).fd());
    say!("over copy-up: {}", before == (numbers(c"m/f"), numbers(c"m/d"), numbers(c"m/d/a")));
    rename(c"m/f", c"m/d/g", 0);
    say!("over rename: {}", before.0 == numbers(c"m/d/g"));
    umount(c"m").need();
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    say!("over umount: {}", before.0.1 == numbers(c"m/d/g").1 && before.2.1 == numbers(c"m/d/a").1);
    file(c"m/new", "");
    say!("of a new file that of the upper one: {}", numbers(c"m/new").1 == numbers(c"u/new").1);
    say!("all of one device: {}", numbers(c"m/new").0 == numbers(c"m/d").0);
}

fn two_file_systems() {
    mkdir(c"t");
    sys!(SYS_mount, c"none", c"t", c"tmpfs", 0, 0).need();
    for name in [c"l", c"m", c"t/u", c"t/w"] {
        mkdir(name);
    }
    fill();
    mount("lowerdir=l,upperdir=t/u,workdir=t/w").need();
    let before = (numbers(c"m/f"), numbers(c"m/d"));
    close(open(c"m/f", O_WRONLY).fd());
    sys!(SYS_fchmodat, AT_FDCWD, c"m/d", 0o700);
    file(c"m/new", "");
    say!("{} | {}", shape("m"), shape("t/u"));
    say!("file stays: {} directory stays: {}", before.0 == numbers(c"m/f"), before.1 == numbers(c"m/d"));
    say!("files of another device: {}", numbers(c"m/f").0 != numbers(c"m").0);
    say!("not the lower one's: {}", numbers(c"m/f").0 != numbers(c"l/f").0);
    say!("directories of the overlay's: {}", numbers(c"m/d").0 == numbers(c"m").0);
    say!("new files elsewhere: {}", numbers(c"m/new").0 != numbers(c"m/f").0 && numbers(c"m/new").0 != numbers(c"m").0);
    say!("rename between: {} {}", rename(c"m/new", c"m/f", 0), contents(c"m/f"));
}

fn open_before() {
    simple();
    let old = open(c"m/f", O_RDONLY).fd();
    say!("before: {}", read_at(old, 10, 0));
    let fd = open(c"m/f", O_WRONLY).fd();
    write(fd, "NEW and longer");
    say!("after: {}", read_at(old, 20, 0));
    say!("size: {:?}", fstat(old).map(|stat| stat.st_size).ok());
    say!("to the end: {} {}", sys!(SYS_lseek, old, 0, SEEK_END), sys!(SYS_lseek, old, 0, SEEK_SET));
    say!("read: {}", read(old, 3));
    say!("truncated: {} {}", sys!(SYS_ftruncate, fd, 1), read_at(old, 20, 0));
    close(fd);
    say!("unlinked: {} {}", unlink(c"m/f"), read_at(old, 20, 0));
}

fn mapped_before() {
    simple();
    let old = open(c"m/f", O_RDONLY).fd();
    let page = memory::map(4096, PROT_READ, MAP_SHARED, old, 0);
    let page = page.need() as *const u8;
    say!("before: {}", memory::peek(page) as char);
    let fd = open(c"m/f", O_RDWR).fd();
    write(fd, "NEW");
    say!("an old mapping keeps the lower file: {}", memory::peek(page) as char);
    let again = memory::map(4096, PROT_READ, MAP_SHARED, old, 0).need() as *const u8;
    say!("a new one of the old descriptor: {}", memory::peek(again) as char);
    let shared = memory::map(4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0).need() as *mut u8;
    memory::poke(shared, b'X');
    say!("written by a mapping: {} {}", contents(c"m/f"), contents(c"u/f"));
    close(fd);
}

fn append_and_truncate() {
    simple();
    let fd = open(c"m/f", O_WRONLY | O_APPEND).fd();
    say!("append: {} {}", write(fd, " and more"), contents(c"m/f"));
    close(fd);
    let fd = open(c"m/d/a", O_WRONLY | O_TRUNC).fd();
    say!("truncated: {} {}", contents(c"m/d/a"), shape("u"));
    close(fd);
    say!("lower: {} {}", contents(c"l/f"), contents(c"l/d/a"));
}

fn hard_links_below() {
    places();
    file(c"l/f", "two names");
    link(c"l/f", c"l/g");
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    say!("before: {} {}", described(stat(c"m/f")), numbers(c"m/f").1 == numbers(c"m/g").1);
    let fd = open(c"m/f", O_WRONLY).fd();
    write(fd, "ONE");
    close(fd);
    say!("copied apart: {} {}", contents(c"m/f"), contents(c"m/g"));
    say!("{} {}", described(stat(c"m/f")), described(stat(c"m/g")));
    say!("another number: {} {}", numbers(c"m/f") != numbers(c"m/g"), numbers(c"m/f").1 == numbers(c"u/f").1);
}

fn holes() {
    places();
    let fd = open(c"l/f", O_CREAT | O_RDWR).fd();
    sys!(SYS_pwrite64, fd, "end", 3, 4 << 20);
    close(fd);
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    let fd = open(c"m/f", O_RDWR).fd();
    say!("{} {}", described(stat(c"u/f")), read_at(fd, 3, 4 << 20));
    say!("holes stay: {}", stat(c"u/f").map_or(0, |stat| stat.st_blocks) < 100);
    close(fd);
}

fn big_file() {
    places();
    let data: Vec<u8> = (0..3_000_001u32).map(|index| (index % 251) as u8).collect();
    let _ = std::fs::write("l/f", &data);
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    let fd = open(c"m/f", O_WRONLY | O_APPEND).fd();
    write(fd, "x");
    close(fd);
    let copy = std::fs::read("u/f").unwrap_or_default();
    say!("{} bytes, the same: {}", copy.len(), copy.starts_with(&data));
}

fn at_once() {
    simple();
    let threads: Vec<_> = (0..4)
        .map(|index| {
            let body = move || {
                let fd = open(c"m/d/a", O_RDWR | O_APPEND).fd();
                let ret = write(fd, "x");
                (fd, ret, index)
            };
            std::thread::spawn(body)
        })
        .collect();
    let all: Vec<_> = threads.into_iter().filter_map(|thread| thread.join().ok()).collect();
    say!("written: {}", all.iter().all(|(_, ret, _)| *ret == Ret(1)));
    say!("in one file: {} {}", contents(c"m/d/a"), contents(c"u/d/a"));
    say!("work: {}", shape("w"));
}

fn permissions() {
    simple();
    sys!(SYS_fchmodat, AT_FDCWD, c"l/f", 0o600);
    process::as_plain_user(|| {
        say!("read: {} write: {}", open(c"m/d/a", O_RDONLY).ok_or_error(), open(c"m/d/a", O_WRONLY));
        say!("another's: {} chmod: {}", open(c"m/f", O_RDONLY), sys!(SYS_fchmodat, AT_FDCWD, c"m/d/a", 0o777));
        say!("make: {} unlink: {}", mkdir(c"m/x"), unlink(c"m/d/a"));
    });
    say!("nothing was copied: {:?}", shape("u"));
    sys!(SYS_fchmodat, AT_FDCWD, c"m", 0o777);
    process::as_plain_user(|| {
        file(c"m/mine", "1");
        say!("mine: {}", stat(c"m/mine").is_ok_and(|stat| stat.st_uid != 0));
        say!("of root: {}", unlink(c"m/f"));
    });
    say!("upper: {} {}", shape("u"), stat(c"u/mine").is_ok_and(|stat| stat.st_uid != 0));
    say!("the whiteout: {}", described(stat(c"u/f")));
}

fn busy_program() {
    places();
    let _ = std::fs::copy("/proc/self/exe", "l/p");
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    sys!(SYS_fchmodat, AT_FDCWD, c"m/p", 0o755);
    let fd = open(c"m/p", O_WRONLY).fd();
    let argv = [c"p".as_ptr(), c"--list".as_ptr(), c"no such test".as_ptr(), std::ptr::null()];
    say!("open for writing: {}", sys!(SYS_execve, c"m/p", &argv, 0));
    close(fd);
    say!(
        "runs: {}",
        process::in_child(|| {
            sys!(SYS_execve, c"m/p", &argv, 0);
            1
        })
    );
}

fn unlinked_then_changed() {
    simple();
    let fd = open(c"m/f", O_RDONLY).fd();
    unlink(c"m/f");
    say!("fchmod of what is gone: {}", sys!(SYS_fchmod, fd, 0o600));
    say!("the name: {}", stat(c"m/f").is_ok());
    say!("read: {}", read_at(fd, 10, 0));
}

fn locks_stay() {
    simple();
    let fd = open(c"m/f", O_RDONLY).fd();
    say!("lock: {}", sys!(SYS_flock, fd, LOCK_EX | LOCK_NB));
    let other = open(c"m/f", O_RDWR).fd();
    say!("another, after copy-up: {}", sys!(SYS_flock, other, LOCK_EX | LOCK_NB));
    say!("let go: {} {}", sys!(SYS_flock, fd, LOCK_UN), sys!(SYS_flock, other, LOCK_EX | LOCK_NB));
}

fn access_times() {
    simple();
    let times = [timespec { tv_sec: 1000, tv_nsec: 0 }, timespec { tv_sec: 2000, tv_nsec: 0 }];
    sys!(SYS_utimensat, AT_FDCWD, c"l/f", &times, 0);
    file(c"m/up", "x");
    sys!(SYS_utimensat, AT_FDCWD, c"m/up", &times, 0);
    contents(c"m/f");
    contents(c"m/up");
    say!("lower: {:?}", stat(c"l/f").map(|stat| stat.st_atime).ok());
    say!("upper changes: {}", stat(c"u/up").is_ok_and(|stat| stat.st_atime != 1000));
    say!("shown: {}", stat(c"m/up").is_ok_and(|stat| stat.st_atime != 1000));
}

fn sync_calls() {
    places();
    fill();
    mount_at(c"m", "lowerdir=l,upperdir=u,workdir=w", MS_NOATIME).need();
    let lower = open(c"m/f", O_RDONLY).fd();
    say!("fsync of a lower file: {} {}", sys!(SYS_fsync, lower), sys!(SYS_fdatasync, lower));
    let fd = open(c"m/f", O_RDWR).fd();
    say!("fsync: {} {}", write(fd, "x"), sys!(SYS_fsync, fd));
    let dir = open(c"m/d", O_RDONLY | O_DIRECTORY).fd();
    say!("of a directory: {}", sys!(SYS_fsync, dir));
    say!("syncfs: {}", sys!(SYS_syncfs, fd));
    let data = sys!(SYS_lseek, fd, 0, SEEK_DATA);
    say!("data: {data}");
    let to = create(c"m/copy", "");
    sys!(SYS_lseek, fd, 0, SEEK_SET);
    say!("copy_file_range: {} {}", sys!(SYS_copy_file_range, lower, 0, to, 0, 3, 0), contents(c"m/copy"));
}
