//! rename(2) and renameat2(2).

use std::ffi::CStr;

use libc::*;

use crate::file::{
    close, contents, create, described, fstat, link, mkdir, open, path, read, rename, stat, symlink, unlink,
};
use crate::process;
use crate::sys::{NOWHERE, Ret, sys};
use crate::{say, tests};

tests! {
    files, directories, same_file, into_itself, no_replace, exchange, whiteout, whiteout_on_disk, flags, sticky, busy, while_open, symbolic,
    names, rights, in_tmpfs, parents,
}

fn inode(name: &CStr) -> u64 {
    stat(name).map_or(0, |stat| stat.st_ino)
}

fn is_there(name: &CStr) -> bool {
    stat(name).is_ok()
}

fn files() {
    close(create(c"a", "a"));
    close(create(c"b", "b"));
    say!("to a new name: {}", rename(c"a", c"c", 0));
    say!("old there: {}, new: {}", is_there(c"a"), contents(c"c"));
    let old = open(c"b", O_RDONLY).fd();
    say!("over a file: {}", rename(c"c", c"b", 0));
    say!("now: {}", contents(c"b"));
    say!("the one that was there: {}", read(old, 5));
    say!("its links: {}", described(fstat(old)));
    say!("missing: {}", rename(c"missing", c"x", 0));
    say!("missing over a file: {}", rename(c"missing", c"b", 0));
    say!("into a missing directory: {}", rename(c"b", c"missing/x", 0));
    say!("into a file: {}", rename(c"b", c"b/x", 0));
    mkdir(c"d");
    say!("over a directory: {}", rename(c"b", c"d", 0));
    say!("to a name with a slash: {}", rename(c"b", c"x/", 0));
    say!("from a name with a slash: {}", rename(c"b/", c"x", 0));
    say!("into a directory: {}", rename(c"b", c"d/b", 0));
    say!("a fifo over a file: {} {}", sys!(SYS_mknodat, AT_FDCWD, c"p", S_IFIFO | 0o600, 0), rename(c"p", c"d/b", 0));
    say!("it: {}", described(stat(c"d/b")));
}

fn directories() {
    for name in [c"a", c"b", c"full", c"full/sub"] {
        mkdir(name);
    }
    close(create(c"f", ""));
    close(create(c"a/inside", "inside"));
    say!("over an empty one: {}", rename(c"a", c"b", 0));
    say!("there: {}", contents(c"b/inside"));
    say!("over a full one: {}", rename(c"b", c"full", 0));
    say!("over a file: {}", rename(c"b", c"f", 0));
    say!("a file over it: {}", rename(c"f", c"b", 0));
    say!("a file over it, with a slash: {}", rename(c"f", c"b/", 0));
    say!("with slashes: {}", rename(c"b/", c"c/", 0));
    say!("there: {}", contents(c"c/inside"));
    say!("missing with a slash: {}", rename(c"missing/", c"x", 0));
    mkdir(c"empty");
    say!("a full one over an empty one elsewhere: {}", rename(c"c", c"full/sub", 0));
    say!("there: {}", contents(c"full/sub/inside"));
    say!("an empty one over a full one: {}", rename(c"empty", c"full/sub", 0));
    say!("links: {}", stat(c"full").map_or(0, |stat| stat.st_nlink));
}

fn same_file() {
    close(create(c"a", "a"));
    link(c"a", c"b");
    say!("to itself: {}", rename(c"a", c"a", 0));
    say!("to ./itself: {}", rename(c"a", c"./a", 0));
    say!("over another link of it: {}", rename(c"a", c"b", 0));
    say!("both are there: {} {}", is_there(c"a"), is_there(c"b"));
    say!("links: {}", stat(c"a").map_or(0, |stat| stat.st_nlink));
    say!("RENAME_NOREPLACE to itself: {}", rename(c"a", c"a", RENAME_NOREPLACE));
    say!("RENAME_EXCHANGE with itself: {}", rename(c"a", c"a", RENAME_EXCHANGE));
    mkdir(c"d");
    say!("a directory to itself: {}", rename(c"d", c"d", 0));
    say!("through its ..: {}", rename(c"d", c"d/../d", 0));
    symlink(c"a", c"l");
    say!("a link over its target: {}", rename(c"l", c"a", 0));
    say!("a is now: {:o}", stat(c"a").map_or(0, |stat| stat.st_mode));
}

fn into_itself() {
    for name in [c"d", c"d/e", c"d/e/f", c"other"] {
        mkdir(name);
    }
    close(create(c"file", ""));
    say!("into itself: {}", rename(c"d", c"d/x", 0));
    say!("deeper: {}", rename(c"d", c"d/e/f/x", 0));
    say!("over what is inside: {}", rename(c"d", c"d/e", 0));
    say!("over its parent: {}", rename(c"d/e", c"d", 0));
    say!("over its grandparent: {}", rename(c"d/e/f", c"d", 0));
    say!("a file over its directory: {}", rename(c"file", c"../contract", 0));
    close(create(c"d/g", ""));
    say!("a file over its parent: {}", rename(c"d/g", c"d", 0));
    say!("exchange with what is inside: {}", rename(c"d", c"d/e", RENAME_EXCHANGE));
    say!("exchange with its parent: {}", rename(c"d/e", c"d", RENAME_EXCHANGE));
    say!("into a missing one inside: {}", rename(c"d", c"d/missing/x", 0));
    say!("beside: {}", rename(c"d", c"other/d", 0));
    say!("back: {}", rename(c"other/d", c"d", 0));
}

fn no_replace() {
    close(create(c"a", "a"));
    close(create(c"b", "b"));
    mkdir(c"d");
    symlink(c"nothing", c"dangling");
    say!("over a file: {}", rename(c"a", c"b", RENAME_NOREPLACE));
    say!("over a directory: {}", rename(c"a", c"d", RENAME_NOREPLACE));
    say!("over a dangling link: {}", rename(c"a", c"dangling", RENAME_NOREPLACE));
    say!("missing over a file: {}", rename(c"missing", c"b", RENAME_NOREPLACE));
    say!("a directory over an empty one: {}", rename(c"d", c"d", RENAME_NOREPLACE));
    say!("over .: {}", rename(c"a", c".", RENAME_NOREPLACE));
    say!("over ..: {}", rename(c"a", c"..", RENAME_NOREPLACE));
    say!("to a new name: {}", rename(c"a", c"new", RENAME_NOREPLACE));
    say!("there: {} {}", contents(c"new"), contents(c"b"));
    say!("a directory to a new name: {}", rename(c"d", c"e", RENAME_NOREPLACE));
    say!("to a new name with a slash: {}", rename(c"new", c"x/", RENAME_NOREPLACE));
}

fn exchange() {
    close(create(c"a", "a"));
    close(create(c"b", "b"));
    mkdir(c"d");
    mkdir(c"e");
    close(create(c"e/inside", "inside"));
    symlink(c"a", c"l");
    say!("files: {}", rename(c"a", c"b", RENAME_EXCHANGE));
    say!("now: {} {}", contents(c"a"), contents(c"b"));
    say!("a file and a full directory: {}", rename(c"a", c"e", RENAME_EXCHANGE));
    say!("now: {} {}", contents(c"a/inside"), contents(c"e"));
    say!("with what is missing: {}", rename(c"b", c"missing", RENAME_EXCHANGE));
    say!("missing with what is there: {}", rename(c"missing", c"b", RENAME_EXCHANGE));
    say!("a file and a link: {}", rename(c"b", c"l", RENAME_EXCHANGE));
    say!("now: {:o} {:o}", stat(c"b").map_or(0, |stat| stat.st_mode), stat(c"l").map_or(0, |stat| stat.st_mode));
    mkdir(c"p");
    mkdir(c"q");
    mkdir(c"p/dir");
    close(create(c"q/file", ""));
    say!("across directories: {}", rename(c"p/dir", c"q/file", RENAME_EXCHANGE));
    let links = |name: &CStr| stat(name).map_or(0, |stat| stat.st_nlink);
    say!("links: {} {}", links(c"p"), links(c"q"));
    say!("..: {}", inode(c"q/file/..") == inode(c"q"));
    say!("slashes: {}", rename(c"p/dir/", c"q/file/", RENAME_EXCHANGE));
    mkdir(c"r");
    say!("two directories, with slashes: {}", rename(c"q/", c"r/", RENAME_EXCHANGE));
    say!("now: {}", is_there(c"r/file"));
}

fn whiteout_on_disk() {
    mkdir(c"p");
    mkdir(c"q");
    close(create(c"p/f", "moved"));
    close(create(c"p/g", "moved, too"));
    close(create(c"q/g", "replaced"));
    mkdir(c"p/d");
    close(create(c"p/d/inside", ""));
    say!("a file: {} {}", rename(c"p/f", c"q/f", RENAME_WHITEOUT), contents(c"q/f"));
    let left = stat(c"p/f");
    say!("what is left: {}, device {}", described(left), left.map_or(9, |stat| stat.st_rdev));
    say!("opened: {}", open(c"p/f", O_RDONLY));
    say!("over another: {} {}", rename(c"p/g", c"q/g", RENAME_WHITEOUT), contents(c"q/g"));
    say!("a directory: {} {}", rename(c"p/d", c"q/d", RENAME_WHITEOUT), is_there(c"q/d/inside"));
    let links = |path| stat(path).map_or(0, |stat| stat.st_nlink);
    say!("links of both: {} {}", links(c"p"), links(c"q"));
    say!("over a whiteout: {} {}", rename(c"q/f", c"p/f", 0), contents(c"p/f"));
    say!("unlinked: {} {}", unlink(c"p/g"), unlink(c"p/d"));
    sys!(SYS_fchmodat, AT_FDCWD, c"p", 0o777);
    sys!(SYS_fchmodat, AT_FDCWD, c".", 0o777);
    process::as_plain_user(|| {
        close(create(c"p/mine", ""));
        say!("as a user: {} {}", rename(c"p/mine", c"p/other", RENAME_WHITEOUT), described(stat(c"p/mine")));
    });
    say!("in the same directory: {} {}", rename(c"p/f", c"p/h", RENAME_WHITEOUT), contents(c"p/h"));
    say!("to itself: {}", rename(c"p/h", c"p/h", RENAME_WHITEOUT));
}

fn whiteout() {
    close(create(c"/tmp/contract.w", "w"));
    unlink(c"/tmp/contract.x");
    say!("in tmpfs: {}", rename(c"/tmp/contract.w", c"/tmp/contract.x", RENAME_WHITEOUT));
    let left = stat(c"/tmp/contract.w");
    say!("what is left: {}, device {}", described(left), left.map_or(9, |stat| stat.st_rdev));
    say!("moved: {}", contents(c"/tmp/contract.x"));
    say!("with RENAME_EXCHANGE: {}", {
        rename(c"/tmp/contract.w", c"/tmp/contract.x", RENAME_WHITEOUT | RENAME_EXCHANGE)
    });
    say!("with RENAME_NOREPLACE: {}", {
        rename(c"/tmp/contract.x", c"/tmp/contract.w", RENAME_WHITEOUT | RENAME_NOREPLACE)
    });
    say!("over a whiteout: {}", rename(c"/tmp/contract.x", c"/tmp/contract.w", 0));
    say!("there: {}", contents(c"/tmp/contract.w"));
    process::as_plain_user(|| {
        close(create(c"/tmp/contract.user", ""));
        let ret = rename(c"/tmp/contract.user", c"/tmp/contract.user2", RENAME_WHITEOUT);
        say!("as a user: {ret}");
        unlink(c"/tmp/contract.user");
        unlink(c"/tmp/contract.user2");
    });
    unlink(c"/tmp/contract.w");
    unlink(c"/tmp/contract.x");
}

fn flags() {
    close(create(c"a", ""));
    close(create(c"b", ""));
    say!("unknown: {}", rename(c"a", c"x", 8));
    say!("all: {}", rename(c"a", c"x", u32::MAX));
    say!("NOREPLACE and EXCHANGE: {}", rename(c"a", c"b", RENAME_NOREPLACE | RENAME_EXCHANGE));
    say!("bad flags before a bad path: {}", sys!(SYS_renameat2, AT_FDCWD, NOWHERE, AT_FDCWD, c"x", 8));
    say!("bad paths: {} {}", sys!(SYS_renameat2, AT_FDCWD, NOWHERE, AT_FDCWD, c"x", 0), {
        sys!(SYS_renameat2, AT_FDCWD, c"a", AT_FDCWD, NOWHERE, 0)
    });
    say!("closed directories: {} {}", sys!(SYS_renameat2, 60, c"a", AT_FDCWD, c"x", 0), {
        sys!(SYS_renameat2, AT_FDCWD, c"a", 60, c"x", 0)
    });
    let file = open(c"b", O_RDONLY).fd();
    say!("a file as directory: {}", sys!(SYS_renameat2, AT_FDCWD, c"a", file, c"x", 0));
    mkdir(c"d");
    let directory = open(c"d", O_PATH).fd();
    say!("into an O_PATH: {}", sys!(SYS_renameat2, AT_FDCWD, c"a", directory, c"x", 0));
    say!("out of it, by renameat: {}", sys!(SYS_renameat, directory, c"x", AT_FDCWD, c"y"));
    say!("there: {}", is_there(c"y"));
    say!("empty paths: {} {}", rename(c"", c"x", 0), rename(c"y", c"", 0));
}

fn sticky() {
    mkdir(c"s");
    sys!(SYS_fchmodat, AT_FDCWD, c"s", 0o1777);
    close(create(c"s/roots", "root's"));
    mkdir(c"s/dir");
    process::in_child(|| {
        process::become_user(2000);
        close(create(c"s/others", ""));
        0
    });
    process::as_plain_user(|| {
        close(create(c"s/own", ""));
        close(create(c"s/second", ""));
        say!("unlink root's: {}", unlink(c"s/roots"));
        say!("unlink another's: {}", unlink(c"s/others"));
        say!("rmdir of root's: {}", sys!(SYS_unlinkat, AT_FDCWD, c"s/dir", AT_REMOVEDIR));
        say!("rename root's: {}", rename(c"s/roots", c"s/x", 0));
        say!("rename over root's: {}", rename(c"s/own", c"s/roots", 0));
        say!("exchange with another's: {}", rename(c"s/own", c"s/others", RENAME_EXCHANGE));
        say!("rename own over own: {}", rename(c"s/own", c"s/second", 0));
        say!("out: {}", rename(c"s/second", c"mine", 0));
        say!("in: {}", rename(c"mine", c"s/mine", 0));
        say!("unlink own: {}", unlink(c"s/mine"));
        say!("unlink what is not there: {}", unlink(c"s/nothing"));
        mkdir(c"own-sticky");
        sys!(SYS_fchmodat, AT_FDCWD, c"own-sticky", 0o1777);
    });
    process::in_child(|| {
        process::become_user(2000);
        close(create(c"own-sticky/others", ""));
        0
    });
    process::as_plain_user(|| say!("another's in an own sticky directory: {}", unlink(c"own-sticky/others")));
}

fn busy() {
    mkdir(c"d");
    close(create(c"f", ""));
    say!(".: {}", rename(c".", c"x", 0));
    say!("..: {}", rename(c"..", c"x", 0));
    say!("d/.: {}", rename(c"d/.", c"x", 0));
    say!("/: {}", rename(c"/", c"x", 0));
    say!("to .: {}", rename(c"d", c".", 0));
    say!("to ..: {}", rename(c"d", c"..", 0));
    say!("to /: {}", rename(c"d", c"/", 0));
    say!("mount points: {}", rename(c"/proc", c"/proc2", 0));
    mkdir(c"/proc2");
    say!("over mount points: {}", rename(c"/proc2", c"/proc", 0));
    sys!(SYS_unlinkat, AT_FDCWD, c"/proc2", AT_REMOVEDIR);
    say!("the current directory: {}", rename(c"../contract", c"../contract2", 0));
    let mut buffer = [0u8; 64];
    let ret = sys!(SYS_getcwd, &mut buffer, 64);
    say!("it is then: {}", crate::file::shown(ret, &buffer));
    say!("back: {}", rename(c"../contract2", c"../contract", 0));
    say!("in /proc: {}", rename(c"/proc/self/stat", c"/proc/self/x", 0));
}

fn while_open() {
    let fd = create(c"a", "contents");
    mkdir(c"d");
    let directory = open(c"d", O_RDONLY).fd();
    rename(c"a", c"b", 0);
    rename(c"d", c"e", 0);
    say!("read on: {}", read(fd, 3));
    say!("link of it in /proc: {}", std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default().display());
    say!("create in the directory: {}", {
        sys!(SYS_openat, directory, c"new", O_CREAT | O_WRONLY, 0o644).ok_or_error()
    });
    say!("there: {}", is_there(c"e/new"));
    close(create(c"c", "over"));
    rename(c"c", c"b", 0);
    say!("replaced, read on: {}", read(fd, 10));
    say!("link of it in /proc: {}", std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default().display());
    let map = crate::memory::map(4096, PROT_READ, MAP_SHARED, fd, 0).need() as *const u8;
    say!("mapped: {}", crate::memory::peek(map));
}

fn symbolic() {
    close(create(c"f", "f"));
    mkdir(c"d");
    symlink(c"f", c"l");
    symlink(c"d", c"dl");
    symlink(c"nothing", c"dangling");
    say!("a link moves itself: {}", rename(c"l", c"m", 0));
    say!("it leads as before: {} {}", contents(c"m"), is_there(c"f"));
    close(create(c"g", "g"));
    say!("over a link: {}", rename(c"g", c"m", 0));
    say!("its target is as before: {} {}", contents(c"f"), contents(c"m"));
    say!("over a dangling link: {} {}", rename(c"m", c"dangling", 0), contents(c"dangling"));
    say!("into a directory by a link: {}", rename(c"f", c"dl/f", 0));
    say!("there: {}", contents(c"d/f"));
    mkdir(c"e");
    say!("a directory over a link to one: {}", rename(c"e", c"dl", 0));
    say!("a link to a directory over one: {}", rename(c"dl", c"e", 0));
    say!("a link with a slash: {}", rename(c"dl/", c"x", 0));
    say!("a directory to a dangling link with a slash: {}", {
        symlink(c"nothing2", c"dangling2");
        rename(c"e", c"dangling2/", 0)
    });
}

fn names() {
    close(create(c"a", ""));
    let long = path("n".repeat(255));
    say!("to 255: {}", rename(c"a", &long, 0));
    say!("back: {}", rename(&long, c"a", 0));
    say!("to 256: {}", rename(c"a", &path("n".repeat(256)), 0));
    say!("from 256: {}", rename(&path("n".repeat(256)), c"a", 0));
    say!("every byte but two: {}", {
        let bytes: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
        rename(c"a", &path(bytes[..127].to_vec()), 0);
        rename(&path(bytes[..127].to_vec()), &path(bytes[127..].to_vec()), 0)
    });
    close(create(c"b", ""));
    let mut failed = Ret(0);
    for index in 0..200 {
        let ret = rename(&path(format!("b{}", "x".repeat(index))), &path(format!("b{}", "x".repeat(index + 1))), 0);
        if !ret.ok() {
            failed = ret;
        }
    }
    say!("growing: {failed} {}", is_there(&path(format!("b{}", "x".repeat(200)))));
}

fn rights() {
    mkdir(c"roots");
    close(create(c"roots/f", ""));
    mkdir(c"others");
    sys!(SYS_fchmodat, AT_FDCWD, c"others", 0o777);
    mkdir(c"others/dir");
    close(create(c"others/f", "root's"));
    process::as_plain_user(|| {
        mkdir(c"own");
        mkdir(c"own/d");
        close(create(c"own/f", ""));
        say!("out of another's: {}", rename(c"roots/f", c"own/x", 0));
        say!("into another's: {}", rename(c"own/f", c"roots/x", 0));
        say!("missing in another's: {}", rename(c"roots/missing", c"own/x", 0));
        say!("another's file in an open directory: {}", rename(c"others/f", c"own/theirs", 0));
        say!("it: {}", described(stat(c"own/theirs")));
        say!("another's directory in the same parent: {}", rename(c"others/dir", c"others/dir2", 0));
        say!("to another parent: {}", rename(c"others/dir2", c"own/dir", 0));
        sys!(SYS_fchmodat, AT_FDCWD, c"own/d", 0o555);
        say!("own, not to be written, same parent: {}", rename(c"own/d", c"own/e", 0));
        say!("to another parent: {}", rename(c"own/e", c"others/e", 0));
        sys!(SYS_fchmodat, AT_FDCWD, c"own", 0o500);
        say!("in a directory not to be written: {}", rename(c"own/f", c"own/g", 0));
        say!("RENAME_NOREPLACE over what is there: {}", rename(c"own/f", c"own/e", RENAME_NOREPLACE));
    });
}

fn in_tmpfs() {
    mkdir(c"/tmp/contract.r");
    sys!(SYS_chdir, c"/tmp/contract.r");
    files();
    close(create(c"1", "1"));
    mkdir(c"2");
    mkdir(c"2/3");
    say!("exchange: {} {}", rename(c"1", c"2", RENAME_EXCHANGE), contents(c"2"));
    say!("links of the parent: {}", stat(c".").map_or(0, |stat| stat.st_nlink));
    say!("..: {}", inode(c"1/..") == inode(c"."));
    say!("into itself: {}", rename(c"1", c"1/3/x", 0));
    say!("over its parent: {}", rename(c"1/3", c"1", 0));
    say!("no replace: {}", rename(c"2", c"1", RENAME_NOREPLACE));
    say!("a directory out: {}", rename(c"1/3", c"3", 0));
    say!("links: {} {}", stat(c"1").map_or(0, |stat| stat.st_nlink), stat(c".").map_or(0, |stat| stat.st_nlink));
    sys!(SYS_chdir, c"/");
    say!("removed: {}", std::fs::remove_dir_all("/tmp/contract.r").is_ok());
}

fn parents() {
    for name in [c"p", c"q", c"p/d", c"q/full", c"q/full/x", c"q/empty"] {
        mkdir(name);
    }
    let links = |name: &CStr| stat(name).map_or(0, |stat| stat.st_nlink);
    say!("links: {} {}", links(c"p"), links(c"q"));
    say!("over an empty one: {}", rename(c"p/d", c"q/empty", 0));
    say!("links: {} {}", links(c"p"), links(c"q"));
    say!("back: {}", rename(c"q/empty", c"p/d", 0));
    say!("links: {} {}", links(c"p"), links(c"q"));
    say!("..: {}", inode(c"p/d/..") == inode(c"p"));
    say!("over a full one: {}", rename(c"p/d", c"q/full", 0));
    say!("over an empty one in the same parent: {}", {
        mkdir(c"p/e");
        rename(c"p/d", c"p/e", 0)
    });
    say!("links: {} {}", links(c"p"), links(c"q"));
    let old = open(c"p/e", O_RDONLY).fd();
    mkdir(c"p/new");
    rename(c"p/new", c"p/e", 0);
    say!("the replaced one: {}", described(fstat(old)).split(", ").nth(1).unwrap_or_default());
    say!("creating in it: {}", sys!(SYS_openat, old, c"f", O_CREAT | O_WRONLY, 0o644));
}
