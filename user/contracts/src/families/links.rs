//! link(2), symlink(2), readlink(2), unlink(2).

use std::ffi::CStr;

use libc::*;

use crate::file::{
    close, contents, create, described, fstat, link, mkdir, open, path, pipe, read, rename, shown, stat, symlink,
    unlink,
};
use crate::process;
use crate::sys::{KERNEL, NOWHERE, Ret, sys};
use crate::{say, tests};

tests! {
    hard, hard_refused, hard_to_links, empty_path, other_file_systems, symbolic, symbolic_lengths, read_link,
    read_link_by_descriptor, unlinked_but_open, followed, times_of_links, not_permitted, counted_by_tmpfs,
}

fn linkat(from: &CStr, to: &CStr, flags: i32) -> Ret {
    sys!(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, flags)
}

fn read_link_of(name: &CStr) -> String {
    let mut buffer = [0u8; 256];
    shown(sys!(SYS_readlinkat, AT_FDCWD, name, &mut buffer, 256), &buffer)
}

fn inode(name: &CStr) -> u64 {
    stat(name).map_or(0, |stat| stat.st_ino)
}

fn hard() {
    let fd = create(c"a", "shared");
    say!("link: {}", link(c"a", c"b"));
    say!("one inode: {}", inode(c"a") == inode(c"b"));
    say!("links: {}", described(fstat(fd)));
    crate::file::write(fd, "SHA");
    say!("through the other: {}", contents(c"b"));
    say!("unlink: {}", unlink(c"a"));
    say!("links: {}", described(stat(c"b")));
    say!("again: {}", link(c"b", c"b"));
    sys!(SYS_fchmodat, AT_FDCWD, c"b", 0o600);
    link(c"b", c"c");
    say!("mode of the other: {}", described(stat(c"c")));
    say!("of a fifo: {} {}", sys!(SYS_mknodat, AT_FDCWD, c"p", S_IFIFO | 0o644, 0), link(c"p", c"q"));
    say!("it: {}", described(stat(c"q")));
    for index in 0..50 {
        link(c"b", &path(format!("many{index}")));
    }
    say!("many: {}", stat(c"b").map_or(0, |stat| stat.st_nlink));
}

/// A name is memory, too.
fn counted_by_tmpfs() {
    mkdir(c"m");
    // One is its root directory.
    sys!(SYS_mount, c"none", c"m", c"tmpfs", 0, c"nr_inodes=5").need();
    let free = || {
        // SAFETY: zeros are a statfs.
        let mut stat: statfs = unsafe { std::mem::zeroed() };
        sys!(SYS_statfs, c"m", &mut stat).need();
        stat.f_ffree
    };
    close(create(c"m/a", ""));
    say!("a file: {} left", free());
    say!("two names more: {} {}, {} left", link(c"m/a", c"m/b"), link(c"m/a", c"m/c"), free());
    say!("a taken one: {}, {} left", link(c"m/a", c"m/b"), free());
    say!("over a name: {}, {} left", rename(c"m/b", c"m/c", 0), free());
    say!("over another name of the file: {}", sys!(SYS_unlinkat, AT_FDCWD, c"m/b", 0));
    say!("{} left", free());
    close(create(c"m/d", ""));
    say!("another file: {} left", free());
    say!("over it: {}, {} left", rename(c"m/a", c"m/d", 0), free());
    say!("names: {} {} {}", link(c"m/d", c"m/e"), link(c"m/d", c"m/f"), free());
    say!("too many: {} {}", link(c"m/d", c"m/g"), mkdir(c"m/dir"));
    unlink(c"m/e");
    let fd = open(c"m", O_TMPFILE | O_RDWR).fd();
    say!("a nameless one: {} left", free());
    let first = sys!(SYS_linkat, fd, c"", AT_FDCWD, c"m/h", AT_EMPTY_PATH);
    say!("its first name: {first}, second: {}", link(c"m/h", c"m/i"));
    for name in [c"m/c", c"m/d", c"m/f", c"m/h"] {
        say!("unlink: {}, {} left", unlink(name), free());
    }
    close(fd);
    say!("{} left", free());
    say!("umount: {}", sys!(SYS_umount2, c"m", 0));
}

fn hard_refused() {
    close(create(c"f", ""));
    close(create(c"g", ""));
    mkdir(c"d");
    symlink(c"nothing", c"dangling");
    say!("a directory: {}", link(c"d", c"e"));
    say!("a directory over a file: {}", link(c"d", c"f"));
    say!(".: {}", link(c".", c"e"));
    say!("over a file: {}", link(c"f", c"g"));
    say!("over a directory: {}", link(c"f", c"d"));
    say!("over a dangling link: {}", link(c"f", c"dangling"));
    say!("missing: {}", link(c"missing", c"x"));
    say!("missing over a file: {}", link(c"missing", c"f"));
    say!("into a missing directory: {}", link(c"f", c"missing/x"));
    say!("into a file: {}", link(c"f", c"g/x"));
    say!("from under a file: {}", link(c"f/x", c"y"));
    say!("to a slash: {}", link(c"f", c"new/"));
    say!("from a slash: {}", link(c"f/", c"new"));
    say!("to .: {}", link(c"f", c"."));
    say!("to d/.: {}", link(c"f", c"d/."));
    say!("from nothing: {}", link(c"", c"x"));
    say!("to nothing: {}", link(c"f", c""));
    say!("too long: {}", link(c"f", &path("n".repeat(256))));
    say!("unknown flag: {}", linkat(c"f", c"x", 1));
    say!("AT_SYMLINK_NOFOLLOW: {}", linkat(c"f", c"x", AT_SYMLINK_NOFOLLOW));
    say!("bad addresses: {} {}", sys!(SYS_linkat, AT_FDCWD, NOWHERE, AT_FDCWD, c"x", 0), {
        sys!(SYS_linkat, AT_FDCWD, c"f", AT_FDCWD, KERNEL, 0)
    });
    say!("closed directories: {} {}", sys!(SYS_linkat, 60, c"f", AT_FDCWD, c"x", 0), {
        sys!(SYS_linkat, AT_FDCWD, c"f", 60, c"x", 0)
    });
    let fd = open(c"f", O_RDONLY).fd();
    say!("a file as directory: {}", sys!(SYS_linkat, AT_FDCWD, c"f", fd, c"x", 0));
    say!("links in the end: {}", stat(c"f").map_or(0, |stat| stat.st_nlink));
}

fn hard_to_links() {
    close(create(c"f", "target"));
    mkdir(c"d");
    symlink(c"f", c"l");
    symlink(c"d", c"dl");
    symlink(c"nothing", c"dangling");
    say!("the link itself: {}", link(c"l", c"m"));
    say!("it: {} {}", read_link_of(c"m"), described(stat(c"m")));
    say!("AT_SYMLINK_FOLLOW: {}", linkat(c"l", c"n", AT_SYMLINK_FOLLOW));
    say!("it: {}", described(stat(c"n")));
    say!("a dangling link itself: {}", link(c"dangling", c"o"));
    say!("AT_SYMLINK_FOLLOW: {}", linkat(c"dangling", c"p", AT_SYMLINK_FOLLOW));
    say!("link to a directory: {}", link(c"dl", c"q"));
    say!("AT_SYMLINK_FOLLOW: {}", linkat(c"dl", c"r", AT_SYMLINK_FOLLOW));
    say!("with a slash: {}", link(c"dl/", c"s"));
    say!("in the middle of the new name: {}", link(c"f", c"dl/new"));
    say!("there: {}", contents(c"d/new"));
}

fn empty_path() {
    let fd = create(c"f", "by descriptor");
    let to = |name: &CStr| sys!(SYS_linkat, fd, c"", AT_FDCWD, name, AT_EMPTY_PATH);
    say!("by descriptor: {}", to(c"a"));
    say!("it: {}", contents(c"a"));
    say!("without the flag: {}", sys!(SYS_linkat, fd, c"", AT_FDCWD, c"b", 0));
    let only_path = open(c"f", O_PATH).fd();
    say!("O_PATH: {}", sys!(SYS_linkat, only_path, c"", AT_FDCWD, c"c", AT_EMPTY_PATH));
    mkdir(c"d");
    let directory = open(c"d", O_PATH).fd();
    say!("a directory: {}", sys!(SYS_linkat, directory, c"", AT_FDCWD, c"e", AT_EMPTY_PATH));
    say!("of the current one: {}", sys!(SYS_linkat, AT_FDCWD, c"", AT_FDCWD, c"e", AT_EMPTY_PATH));
    let [reader, _] = pipe();
    say!("a pipe: {}", sys!(SYS_linkat, reader, c"", AT_FDCWD, c"p", AT_EMPTY_PATH));
    say!("closed: {}", sys!(SYS_linkat, 70, c"", AT_FDCWD, c"p", AT_EMPTY_PATH));
    let proc = path(format!("/proc/self/fd/{fd}"));
    say!("through /proc, not followed: {}", linkat(&proc, c"g", 0));
    say!("through /proc: {}", linkat(&proc, c"g", AT_SYMLINK_FOLLOW));
    for name in [c"f", c"a", c"c", c"g"] {
        unlink(name);
    }
    say!("links: {}", described(fstat(fd)));
    say!("nameless by descriptor: {}", to(c"z"));
    say!("nameless through /proc: {}", linkat(&proc, c"z", AT_SYMLINK_FOLLOW));
    process::as_plain_user(|| {
        let fd = create(c"own", "");
        say!("by a user: {}", sys!(SYS_linkat, fd, c"", AT_FDCWD, c"own2", AT_EMPTY_PATH));
        let proc = path(format!("/proc/self/fd/{fd}"));
        say!("through /proc: {}", linkat(&proc, c"own3", AT_SYMLINK_FOLLOW));
    });
}

fn other_file_systems() {
    close(create(c"f", "here"));
    say!("link to /tmp: {}", link(c"f", c"/tmp/contract.link"));
    say!("rename to /tmp: {}", rename(c"f", c"/tmp/contract.link", 0));
    close(create(c"/tmp/contract.there", ""));
    say!("over a file: {}", link(c"f", c"/tmp/contract.there"));
    say!("rename over a file: {}", rename(c"f", c"/tmp/contract.there", 0));
    say!("a missing one: {} {}", link(c"missing", c"/tmp/x"), rename(c"missing", c"/tmp/x", 0));
    say!("to a missing directory: {}", rename(c"f", c"/tmp/contract.missing/x", 0));
    mkdir(c"d");
    say!("a directory: {} {}", link(c"d", c"/tmp/contract.link"), rename(c"d", c"/tmp/contract.link", 0));
    symlink(c"/tmp/contract.there", c"l");
    say!("followed: {}", linkat(c"l", c"m", AT_SYMLINK_FOLLOW));
    say!("from /proc: {}", link(c"/proc/self/stat", c"x"));
    say!("within /proc: {}", link(c"/proc/self/stat", c"/proc/self/x"));
    say!("between two mounts of tmpfs: {}", link(c"/tmp/contract.there", c"/dev/shm/contract.there"));
    say!("in tmpfs: {}", link(c"/tmp/contract.there", c"/tmp/contract.second"));
    say!("it: {}", described(stat(c"/tmp/contract.second")));
    unlink(c"/tmp/contract.second");
    unlink(c"/tmp/contract.there");
}

fn symbolic() {
    say!("new: {}", symlink(c"target", c"l"));
    say!("it: {}", described(stat(c"l")));
    say!("again: {}", symlink(c"other", c"l"));
    say!("it is as it was: {}", read_link_of(c"l"));
    say!("empty target: {}", symlink(c"", c"m"));
    say!("empty name: {}", symlink(c"x", c""));
    say!("with a slash: {}", symlink(c"x", c"m/"));
    say!("over .: {}", symlink(c"x", c"."));
    say!("into a missing directory: {}", symlink(c"x", c"missing/m"));
    say!("into a link: {}", symlink(c"x", c"l/m"));
    say!("bad addresses: {} {}", sys!(SYS_symlinkat, NOWHERE, AT_FDCWD, c"x"), {
        sys!(SYS_symlinkat, c"x", AT_FDCWD, NOWHERE)
    });
    say!("closed directory: {}", sys!(SYS_symlinkat, c"x", 60, c"m"));
    mkdir(c"d");
    let fd = open(c"d", O_RDONLY).fd();
    say!("in a directory: {} {}", sys!(SYS_symlinkat, c"../f", fd, c"up"), read_link_of(c"d/up"));
    close(create(c"f", "found"));
    say!("followed from its directory: {}", contents(c"d/up"));
    sys!(SYS_umask, 0o777);
    symlink(c"x", c"masked");
    say!("the umask does not matter: {:o}", stat(c"masked").map_or(0, |stat| stat.st_mode));
    say!("chmod follows: {}", sys!(SYS_fchmodat, AT_FDCWD, c"masked", 0o600));
    say!("chown of itself: {}", sys!(SYS_fchownat, AT_FDCWD, c"masked", 7, 8, AT_SYMLINK_NOFOLLOW));
    say!("it: {}", described(stat(c"masked")));
}

fn symbolic_lengths() {
    for length in [1, 59, 60, 61, 1023, 4095] {
        let name = path(format!("l{length}"));
        let target = path("t".repeat(length));
        let mut buffer = [0u8; 5000];
        let made = symlink(&target, &name);
        let ret = sys!(SYS_readlinkat, AT_FDCWD, name.as_c_str(), &mut buffer, 5000);
        let same = ret.ok() && buffer[..ret.0 as usize] == *target.to_bytes();
        say!("target of {length}: {made}, read back {ret}, the same: {same}");
        let made = symlink(&target, &path(format!("/tmp/contract.l{length}")));
        let ret =
            sys!(SYS_readlinkat, AT_FDCWD, path(format!("/tmp/contract.l{length}")).as_c_str(), &mut buffer, 5000);
        say!("in tmpfs: {made}, {ret}");
        unlink(&path(format!("/tmp/contract.l{length}")));
        let stat = stat(&name);
        say!("size {}, blocks {}", stat.map_or(0, |stat| stat.st_size), stat.map_or(0, |stat| stat.st_blocks));
    }
    say!("target of 4096: {}", symlink(&path("t".repeat(4096)), c"x"));
    say!("in tmpfs: {}", symlink(&path("t".repeat(4096)), c"/tmp/contract.x"));
}

fn read_link() {
    symlink(c"target", c"l");
    close(create(c"f", ""));
    mkdir(c"d");
    symlink(c"d", c"dl");
    for size in [-1, 0, 1, 5, 6, 7] {
        let mut buffer = [b'#'; 8];
        let ret = sys!(SYS_readlinkat, AT_FDCWD, c"l", &mut buffer, size);
        say!("{size} bytes: {ret} {}", String::from_utf8_lossy(&buffer));
    }
    let call = |name: &CStr| read_link_of(name);
    say!("a file: {}", call(c"f"));
    say!("a directory: {}", call(c"d"));
    say!("missing: {}", call(c"missing"));
    say!("empty: {}", call(c""));
    say!("link with a slash: {}", call(c"dl/"));
    say!("dangling link with a slash: {}", call(c"l/"));
    say!("under a file: {}", call(c"f/x"));
    say!("bad buffer: {}", sys!(SYS_readlinkat, AT_FDCWD, c"l", NOWHERE, 10));
    say!("bad path: {}", sys!(SYS_readlinkat, AT_FDCWD, KERNEL, NOWHERE, 10));
    let mut buffer = [0u8; 8];
    say!("bad size before a bad path: {}", sys!(SYS_readlinkat, AT_FDCWD, NOWHERE, &mut buffer, 0));
    say!("closed directory: {}", sys!(SYS_readlinkat, 60, c"l", &mut buffer, 8));
}

fn read_link_by_descriptor() {
    symlink(c"target", c"l");
    let fd = open(c"l", O_PATH | O_NOFOLLOW).fd();
    let mut buffer = [0u8; 64];
    let ret = sys!(SYS_readlinkat, fd, c"", &mut buffer, 64);
    say!("of the link: {}", shown(ret, &buffer));
    say!("fstat: {}", described(fstat(fd)));
    say!("read: {}", read(fd, 1));
    let file = create(c"f", "");
    say!("of a file: {}", sys!(SYS_readlinkat, file, c"", &mut buffer, 64));
    let file = open(c"f", O_PATH).fd();
    say!("of a file's path: {}", sys!(SYS_readlinkat, file, c"", &mut buffer, 64));
    say!("of the current directory: {}", sys!(SYS_readlinkat, AT_FDCWD, c"", &mut buffer, 64));
    say!("of a closed one: {}", sys!(SYS_readlinkat, 60, c"", &mut buffer, 64));
    say!("through the link to it: {}", open(&path(format!("/proc/self/fd/{fd}")), O_RDONLY).ok_or_error());
    say!("chown by descriptor: {}", sys!(SYS_fchownat, fd, c"", 3, 4, AT_EMPTY_PATH));
    say!("then: {}", described(fstat(fd)));
    say!("a link of it: {}", sys!(SYS_linkat, fd, c"", AT_FDCWD, c"m", AT_EMPTY_PATH));
    say!("it: {}", read_link_of(c"m"));
    say!("unlinked: {}", unlink(c"l"));
    let ret = sys!(SYS_readlinkat, fd, c"", &mut buffer, 64);
    say!("still: {}", shown(ret, &buffer));
}

fn unlinked_but_open() {
    let fd = create(c"f", "stays");
    let other = open(c"f", O_RDONLY).fd();
    say!("unlink: {}", unlink(c"f"));
    say!("stat: {}", described(stat(c"f")));
    say!("fstat: {}", described(fstat(fd)));
    say!("read: {}", read(fd, 10));
    say!("write: {}", crate::file::write(fd, "!"));
    say!("the other descriptor: {}", read(other, 10));
    say!("truncate: {} {}", sys!(SYS_ftruncate, fd, 2), described(fstat(other)));
    say!("chmod: {}", sys!(SYS_fchmod, fd, 0o600));
    let name = path(format!("/proc/self/fd/{fd}"));
    say!("in /proc: {}", read_link_of(&name));
    say!("stat through /proc: {}", crate::file::stat_at(AT_FDCWD, &name, 0).is_ok());
    say!("open through /proc: {}", contents(&name));
    close(create(c"f", "new"));
    say!("a new file of that name: {}", contents(c"f"));
    say!("the old one: {}", crate::file::read_at(fd, 10, 0));
    let fd = open(c"f", O_RDONLY).fd();
    link(c"f", c"g");
    unlink(c"f");
    let shown = read_link_of(&path(format!("/proc/self/fd/{fd}")));
    say!("one of two names: {shown}");
}

fn followed() {
    mkdir(c"d");
    close(create(c"d/f", "inside"));
    symlink(c"d", c"dl");
    symlink(c"dl/f", c"fl");
    symlink(c"/var/contract/d/f", c"abs");
    symlink(c"d/", c"slash");
    symlink(c"..", c"d/up");
    say!("directory link: {}", contents(c"dl/f"));
    say!("links in links: {}", contents(c"fl"));
    say!("absolute: {}", contents(c"abs"));
    say!("target with a slash: {}", contents(c"slash/f"));
    say!("up and down: {}", contents(c"d/up/d/up/d/f"));
    say!("..of a link is the target's: {}", inode(c"dl/up/..") == inode(c".."));
    say!("a file link with a slash: {}", contents(c"fl/"));
    say!("lstat with a slash: {:o}", stat(c"dl/").map_or(0, |stat| stat.st_mode));
    say!("lstat without: {:o}", stat(c"dl").map_or(0, |stat| stat.st_mode));
    symlink(c"f", c"d/near");
    sys!(SYS_renameat2, AT_FDCWD, c"d/near", AT_FDCWD, c"near", 0);
    say!("relative to where the link is: {}", contents(c"near"));
}

fn times_of_links() {
    close(create(c"f", ""));
    mkdir(c"d");
    let times = |name: &CStr| {
        let stat = stat(name).unwrap_or_else(|_| crate::sys::zeroed());
        (stat.st_mtime, stat.st_mtime_nsec, stat.st_ctime, stat.st_ctime_nsec)
    };
    let show = |what: &str, name: &CStr, act: &dyn Fn() -> Ret| {
        process::sleep_ms(20);
        let before = times(name);
        let ret = act();
        let after = times(name);
        let modified = (before.0, before.1) != (after.0, after.1);
        say!("{what}: {ret}, modified {modified}, changed {}", (before.2, before.3) != (after.2, after.3));
    };
    show("link, the file", c"f", &|| link(c"f", c"d/a"));
    show("link, the directory", c"d", &|| link(c"f", c"d/b"));
    show("unlink, the file", c"f", &|| unlink(c"d/a"));
    show("unlink, the directory", c"d", &|| unlink(c"d/b"));
    show("rename, the file", c"f", &|| rename(c"f", c"f", 0));
    show("rename in the directory", c".", &|| rename(c"f", c"g", 0));
    show("symlink, the directory", c"d", &|| symlink(c"x", c"d/l"));
    show("mkdir", c"d", &|| mkdir(c"d/sub"));
    show("what fails", c"d", &|| mkdir(c"d/sub"));
    show("create", c"d", &|| Ret(i64::from(create(c"d/new", "x") > 0)));
    show("write to a file in it", c"d", &|| Ret(i64::from(create(c"d/new", "xyz") > 0)));
    show("chmod", c"g", &|| sys!(SYS_fchmodat, AT_FDCWD, c"g", 0o600));
    show("chown to the same", c"g", &|| sys!(SYS_fchownat, AT_FDCWD, c"g", -1, -1, 0));
    show("truncate to the same size", c"g", &|| sys!(SYS_truncate, c"g", 0));
}

fn not_permitted() {
    mkdir(c"d");
    close(create(c"d/f", ""));
    mkdir(c"closed");
    close(create(c"closed/f", ""));
    sys!(SYS_fchmodat, AT_FDCWD, c"closed", 0o700);
    process::as_plain_user(|| {
        close(create(c"own", ""));
        say!("link into another's directory: {}", link(c"own", c"d/own"));
        say!("over what is there: {}", link(c"own", c"d/f"));
        say!("symlink into another's directory: {}", symlink(c"x", c"d/x"));
        say!("over what is there: {}", symlink(c"x", c"d/f"));
        say!("unlink in another's directory: {}", unlink(c"d/f"));
        say!("unlink what is not there: {}", unlink(c"d/g"));
        say!("unlink in a closed directory: {}", unlink(c"closed/f"));
        say!("link from a closed directory: {}", link(c"closed/f", c"x"));
        say!("link within it: {}", link(c"own", c"closed/x"));
        say!("readlink in a closed directory: {}", read_link_of(c"closed/l"));
        say!("another's file in an open directory: {}", unlink(c"d/../own"));
    });
}
