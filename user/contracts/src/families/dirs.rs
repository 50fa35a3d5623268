//! Directories: making, listing, leaving and losing them.

use std::ffi::CStr;

use libc::*;

use crate::file::{close, create, described, fstat, link, mkdir, open, path, rename, rmdir, stat, symlink, unlink};
use crate::process;
use crate::sys::{KERNEL, NOWHERE, Ret, sys};
use crate::{say, tests};

tests! {
    make, make_modes, remove, entries, short_buffers, seek, entries_while_they_go, removed_but_open, change, current,
    root, long_paths, in_other_file_systems, not_permitted, unlinkat_flags, dots,
}

/// An entry of a directory.
struct Entry {
    next: i64,
    inode: u64,
    kind: u8,
    name: String,
}

/// What one call returns, and the entries in it.
fn list(fd: i32, size: usize) -> (Ret, Vec<Entry>) {
    let mut buffer = vec![0u8; size];
    let ret = sys!(SYS_getdents64, fd, &mut buffer[..], size);
    let mut entries = Vec::new();
    let mut at = 0;
    while at < ret.0.max(0) as usize {
        let number = |from: usize| u64::from_le_bytes(buffer[from..from + 8].try_into().unwrap_or_default());
        let length = usize::from(u16::from_le_bytes([buffer[at + 16], buffer[at + 17]]));
        let name = CStr::from_bytes_until_nul(&buffer[at + 19..at + length]).unwrap_or_default();
        let name = name.to_string_lossy().into_owned();
        entries.push(Entry { inode: number(at), next: number(at + 8) as i64, kind: buffer[at + 18], name });
        if length == 0 {
            say!("an entry of no length");
            break;
        }
        at += length;
    }
    (ret, entries)
}

/// All names that are left, sorted, and the last return value.
fn names(fd: i32, size: usize) -> String {
    let mut names = Vec::new();
    loop {
        let (ret, entries) = list(fd, size);
        names.extend(entries.into_iter().map(|entry| entry.name));
        if ret.0 <= 0 {
            names.sort();
            return format!("{} {ret}", names.join(" "));
        }
    }
}

fn rewind(fd: i32) -> Ret {
    sys!(SYS_lseek, fd, 0, SEEK_SET)
}

fn make() {
    say!("new: {}", mkdir(c"d"));
    say!("again: {}", mkdir(c"d"));
    close(create(c"f", ""));
    say!("over a file: {}", mkdir(c"f"));
    say!("over a file, with a slash: {}", mkdir(c"f/"));
    symlink(c"nothing", c"dangling");
    say!("over a dangling link: {}", mkdir(c"dangling"));
    say!("over a dangling link, with a slash: {}", mkdir(c"dangling/"));
    say!("under a missing one: {}", mkdir(c"missing/d"));
    say!("under a file: {}", mkdir(c"f/d"));
    say!("with slashes: {}", mkdir(c"slashes///"));
    say!("of .: {}", mkdir(c"."));
    say!("of ..: {}", mkdir(c".."));
    say!("of /: {}", mkdir(c"/"));
    say!("of d/.: {}", mkdir(c"d/."));
    say!("of new/.: {}", mkdir(c"new/."));
    say!("empty: {}", mkdir(c""));
    say!("no path: {}", sys!(SYS_mkdirat, AT_FDCWD, NOWHERE, 0o755));
    say!("name of 255: {}", mkdir(&path("n".repeat(255))));
    say!("name of 256: {}", mkdir(&path("n".repeat(256))));
    say!("in a closed directory: {}", sys!(SYS_mkdirat, 50, c"x", 0o755));
    let file = open(c"f", O_RDONLY).fd();
    say!("in a file: {}", sys!(SYS_mkdirat, file, c"x", 0o755));
    say!("absolute in a closed one: {}", sys!(SYS_mkdirat, 50, c"/var/contract/abs", 0o755));
    say!("links: {}", described(stat(c".")).split(", ").nth(1).unwrap_or_default());
}

fn make_modes() {
    for (umask, mode) in [(0o22, 0o777), (0, 0o7777), (0o777, 0o777), (0, 0), (0o27, 0o1755)] {
        sys!(SYS_umask, umask);
        say!("mode {mode:o}, umask {umask:o}: {}", sys!(SYS_mkdirat, AT_FDCWD, c"d", mode));
        say!("it: {:o}", stat(c"d").map_or(0, |stat| stat.st_mode));
        rmdir(c"d");
    }
    sys!(SYS_umask, 0o22);
    mkdir(c"setgid");
    sys!(SYS_fchownat, AT_FDCWD, c"setgid", 0, 77, 0);
    sys!(SYS_fchmodat, AT_FDCWD, c"setgid", 0o2777);
    mkdir(c"setgid/d");
    close(create(c"setgid/f", ""));
    symlink(c"f", c"setgid/l");
    say!("directory in a setgid directory: {}", described(stat(c"setgid/d")).split(", ").nth(2).unwrap_or_default());
    say!("its mode: {:o}", stat(c"setgid/d").map_or(0, |stat| stat.st_mode));
    say!("file: {}", described(stat(c"setgid/f")));
    say!("link: {}", described(stat(c"setgid/l")));
    process::as_plain_user(|| {
        say!("another's: {}", mkdir(c"setgid/user"));
        say!("its mode: {:o}", stat(c"setgid/user").map_or(0, |stat| stat.st_mode));
        let fd = sys!(SYS_openat, AT_FDCWD, c"setgid/g", O_CREAT | O_WRONLY, 0o6777);
        say!("setgid file of one who is not in the group: {}", fd.ok_or_error());
        say!("its mode: {:o}", stat(c"setgid/g").map_or(0, |stat| stat.st_mode));
    });
}

fn remove() {
    mkdir(c"d");
    mkdir(c"d/e");
    close(create(c"f", ""));
    symlink(c"d/e", c"l");
    say!("not empty: {}", rmdir(c"d"));
    say!("missing: {}", rmdir(c"missing"));
    say!("a file: {}", rmdir(c"f"));
    say!("under a file: {}", rmdir(c"f/d"));
    say!("a link: {}", rmdir(c"l"));
    say!("a link with a slash: {}", rmdir(c"l/"));
    say!(".: {}", rmdir(c"."));
    say!("d/.: {}", rmdir(c"d/."));
    say!("d/e/.: {}", rmdir(c"d/e/."));
    say!("..: {}", rmdir(c".."));
    say!("d/..: {}", rmdir(c"d/.."));
    say!("/: {}", rmdir(c"/"));
    say!("a mount: {}", rmdir(c"/proc"));
    say!("empty path: {}", rmdir(c""));
    say!("with a slash: {}", rmdir(c"d/e/"));
    say!("links of its parent: {}", stat(c"d").map_or(0, |stat| stat.st_nlink));
    say!("then the parent: {}", rmdir(c"d"));
    say!("again: {}", rmdir(c"d"));
}

fn entries() {
    mkdir(c"d");
    mkdir(c"d/dir");
    close(create(c"d/file", ""));
    symlink(c"file", c"d/link");
    sys!(SYS_mknodat, AT_FDCWD, c"d/fifo", S_IFIFO | 0o644, 0);
    sys!(SYS_mknodat, AT_FDCWD, c"d/socket", S_IFSOCK | 0o644, 0);
    sys!(SYS_mknodat, AT_FDCWD, c"d/null", S_IFCHR | 0o644, 0x103);
    sys!(SYS_mknodat, AT_FDCWD, c"d/block", S_IFBLK | 0o644, 0x100);
    link(c"d/file", c"d/twin");
    let fd = open(c"d", O_RDONLY).fd();
    let (ret, mut entries) = list(fd, 4096);
    say!("one call has all: {}", ret.ok() && entries.len() == 10);
    say!("the next: {}", list(fd, 4096).0);
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    for entry in &entries {
        let name = path(format!("d/{}", entry.name));
        let same = stat(&name).is_ok_and(|stat| stat.st_ino == entry.inode);
        say!("{} type {}, inode as stat says: {same}", entry.name, entry.kind);
    }
    say!("one inode for both names: {}", {
        let inode = |name: &str| entries.iter().find(|entry| entry.name == name).map_or(0, |entry| entry.inode);
        inode("file") == inode("twin")
    });
}

fn short_buffers() {
    mkdir(c"d");
    for name in ["a", "bb", "a-longer-name-than-the-others"] {
        close(create(&path(format!("d/{name}")), ""));
    }
    let fd = open(c"d", O_RDONLY).fd();
    for size in [0, 1, 8, 19, 23] {
        say!("buffer of {size}: {}", list(fd, size).0);
    }
    let (ret, entries) = list(fd, 24);
    say!("buffer of 24: {ret}, {} entries", entries.len());
    rewind(fd);
    say!("48 at a time: {}", names(fd, 48));
    rewind(fd);
    say!("56 at a time: {}", names(fd, 56));
    say!("at the end, a buffer of nothing: {}", list(fd, 0).0);
    rewind(fd);
    say!("bad address: {}", sys!(SYS_getdents64, fd, NOWHERE, 4096));
    say!("the kernel's address: {}", sys!(SYS_getdents64, fd, KERNEL, 4096));
    say!("after that nothing is lost: {}", names(fd, 4096));
    let mut buffer = [0u8; 64];
    say!("a file: {}", sys!(SYS_getdents64, open(c"d/a", O_RDONLY).fd(), &mut buffer, 64));
    say!("a closed descriptor: {}", sys!(SYS_getdents64, 77, &mut buffer, 64));
    say!("a pipe: {}", sys!(SYS_getdents64, crate::file::pipe()[0], &mut buffer, 64));
    say!("/dev/null: {}", sys!(SYS_getdents64, 0, &mut buffer, 64));
}

fn seek() {
    mkdir(c"d");
    for index in 0..5 {
        close(create(&path(format!("d/file{index}")), ""));
    }
    let fd = open(c"d", O_RDONLY).fd();
    say!("at first: {}", sys!(SYS_lseek, fd, 0, SEEK_CUR));
    let (_, entries) = list(fd, 4096);
    for (index, entry) in entries.iter().enumerate() {
        let ret = sys!(SYS_lseek, fd, entry.next, SEEK_SET);
        let rest: Vec<String> = list(fd, 4096).1.into_iter().map(|entry| entry.name).collect();
        let right = entries[index + 1..].iter().map(|entry| &entry.name).eq(rest.iter());
        say!("after entry {index}: {}, the rest follows: {right}", ret.ok_or_error());
    }
    rewind(fd);
    let (_, two) = list(fd, 64);
    let offset = sys!(SYS_lseek, fd, 0, SEEK_CUR);
    say!("the offset is that of the last entry: {}", two.last().is_some_and(|entry| entry.next == offset.0));
    let twin = sys!(SYS_dup, fd).fd();
    say!("a dup goes on there: {}", two.len() + list(twin, 4096).1.len());
    say!("below zero: {}", sys!(SYS_lseek, fd, -1, SEEK_SET));
    say!("unknown whence: {}", sys!(SYS_lseek, fd, 0, 9));
    say!("SEEK_SET 0: {}", rewind(fd));
    say!("all: {}", names(fd, 4096));
}

fn entries_while_they_go() {
    mkdir(c"d");
    let name = |index: usize| path(format!("d/some-name-that-is-quite-long-{index:04}"));
    for index in 0..300 {
        close(create(&name(index), ""));
    }
    let fd = open(c"d", O_RDONLY).fd();
    let mut seen = Vec::new();
    loop {
        let (ret, entries) = list(fd, 512);
        if ret.0 <= 0 {
            say!("last call: {ret}");
            break;
        }
        for entry in entries {
            if entry.name.starts_with("some") {
                sys!(SYS_unlinkat, fd, path(entry.name.clone()).as_c_str(), 0);
            }
            seen.push(entry.name);
        }
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    say!("seen {count}, different {}", seen.len());
    rewind(fd);
    say!("left: {}", names(fd, 512));
    say!("rmdir: {}", rmdir(c"d"));
}

fn removed_but_open() {
    mkdir(c"d");
    let fd = open(c"d", O_RDONLY).fd();
    say!("chdir: {}", sys!(SYS_fchdir, fd));
    say!("rmdir: {}", rmdir(c"../d"));
    say!("getdents: {}", list(fd, 512).0);
    say!("fstat: {}", described(fstat(fd)).split(", ").nth(1).unwrap_or_default());
    let mut buffer = [0u8; 256];
    say!("getcwd: {}", sys!(SYS_getcwd, &mut buffer, 256));
    say!("open .: {}", open(c".", O_RDONLY).ok_or_error());
    say!("stat ..: {}", stat(c"..").is_ok());
    say!("open ../: {}", open(c"../", O_RDONLY).ok_or_error());
    say!("create: {}", open(c"f", O_CREAT | O_WRONLY));
    say!("mkdir: {}", mkdir(c"x"));
    say!("symlink: {}", symlink(c"x", c"y"));
    say!("mknod: {}", sys!(SYS_mknodat, AT_FDCWD, c"fifo", S_IFIFO | 0o644, 0));
    close(create(c"../file", ""));
    say!("link into it: {}", link(c"../file", c"x"));
    say!("rename into it: {}", rename(c"../file", c"x", 0));
    say!("chmod .: {}", sys!(SYS_fchmodat, AT_FDCWD, c".", 0o700));
    say!("rmdir .: {}", rmdir(c"."));
    say!("chdir .: {}", sys!(SYS_chdir, c"."));
    say!("fchdir: {}", sys!(SYS_fchdir, fd));
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    say!("its name in /proc: {}", link.display());
    let link = std::fs::read_link("/proc/self/cwd").unwrap_or_default();
    say!("/proc/self/cwd: {}", link.display());
    say!("a new one of that name: {}", mkdir(c"/var/contract/d"));
    say!("is not this: {}", sys!(SYS_getcwd, &mut buffer, 256));
    say!("chdir ..: {}", sys!(SYS_chdir, c".."));
    say!("getcwd: {}", sys!(SYS_getcwd, &mut buffer, 256));
}

fn change() {
    mkdir(c"d");
    close(create(c"f", ""));
    symlink(c"d", c"l");
    symlink(c"self", c"self");
    let mut buffer = [0u8; 256];
    say!("missing: {}", sys!(SYS_chdir, c"missing"));
    say!("a file: {}", sys!(SYS_chdir, c"f"));
    say!("empty: {}", sys!(SYS_chdir, c""));
    say!("loop: {}", sys!(SYS_chdir, c"self"));
    say!("no path: {}", sys!(SYS_chdir, NOWHERE));
    say!("too long: {}", sys!(SYS_chdir, path("x".repeat(300)).as_c_str()));
    let [reader, _] = crate::file::pipe();
    say!("fchdir to a pipe: {}", sys!(SYS_fchdir, reader));
    say!("fchdir to a file: {}", sys!(SYS_fchdir, open(c"f", O_RDONLY).fd()));
    say!("fchdir to nothing: {}", sys!(SYS_fchdir, 88));
    say!("fchdir to AT_FDCWD: {}", sys!(SYS_fchdir, AT_FDCWD));
    say!("fchdir to O_PATH: {}", sys!(SYS_fchdir, open(c"d", O_PATH).fd()));
    say!("there: {}", sys!(SYS_getcwd, &mut buffer, 256));
    sys!(SYS_chdir, c"..");
    say!("through a link: {}", sys!(SYS_chdir, c"l"));
    let length = sys!(SYS_getcwd, &mut buffer, 256);
    say!("is the directory: {}", crate::file::shown(length, &buffer));
    process::in_child(|| sys!(SYS_chdir, c"/").errno());
    say!("a child's chdir is its own: {}", sys!(SYS_getcwd, &mut buffer, 256) == length);
    say!("beyond the root: {}", sys!(SYS_chdir, c"/../../.."));
    say!("is the root: {}", crate::file::shown(sys!(SYS_getcwd, &mut buffer, 256), &buffer));
}

fn current() {
    mkdir(c"name");
    sys!(SYS_chdir, c"name");
    let mut buffer = [b'#'; 64];
    let length = "/var/contract/name".len();
    for size in [0, 1, 2, length, length + 1, 64] {
        buffer.fill(b'#');
        let ret = sys!(SYS_getcwd, &mut buffer, size);
        say!("{size} bytes: {ret}, first {:?}", char::from(buffer[0]));
    }
    say!("after the end: {:?} {:?}", buffer[length], char::from(buffer[length + 1]));
    say!("no buffer: {}", sys!(SYS_getcwd, 0, 64));
    say!("no buffer, no size: {}", sys!(SYS_getcwd, 0, 0));
    say!("bad buffer: {}", sys!(SYS_getcwd, KERNEL, 64));
    say!("a huge size: {}", sys!(SYS_getcwd, &mut buffer, 1usize << 40));
    say!("renamed: {}", rename(c"../name", c"../n", 0));
    let ret = sys!(SYS_getcwd, &mut buffer, 64);
    say!("then: {}", crate::file::shown(ret, &buffer));
    sys!(SYS_chdir, c"/");
    let ret = sys!(SYS_getcwd, &mut buffer, 64);
    say!("root: {}", crate::file::shown(ret, &buffer));
    sys!(SYS_chdir, c"/dev/shm");
    let ret = sys!(SYS_getcwd, &mut buffer, 64);
    say!("in a mount: {}", crate::file::shown(ret, &buffer));
}

fn root() {
    mkdir(c"jail");
    mkdir(c"jail/in");
    mkdir(c"out");
    close(create(c"jail/f", "in the jail"));
    close(create(c"f", ""));
    symlink(c"/f", c"jail/l");
    say!("missing: {}", sys!(SYS_chroot, c"missing"));
    say!("a file: {}", sys!(SYS_chroot, c"f"));
    say!("no path: {}", sys!(SYS_chroot, NOWHERE));
    process::as_plain_user(|| say!("as a user: {}", sys!(SYS_chroot, c"jail")));
    process::in_child(|| {
        let mut buffer = [0u8; 64];
        say!("chroot: {}", sys!(SYS_chroot, c"jail"));
        say!("an absolute path: {}", crate::file::contents(c"/f"));
        say!("an absolute link: {}", crate::file::contents(c"/l"));
        say!("from outside: {}", stat(c"out").is_ok());
        let ret = sys!(SYS_getcwd, &mut buffer, 64);
        say!("getcwd from outside: {}", crate::file::shown(ret, &buffer));
        say!("chdir /: {}", sys!(SYS_chdir, c"/"));
        let ret = sys!(SYS_getcwd, &mut buffer, 64);
        say!("getcwd: {}", crate::file::shown(ret, &buffer));
        say!("..: {}", stat(c"../out").is_ok());
        say!("below: {}", sys!(SYS_chdir, c"in"));
        let ret = sys!(SYS_getcwd, &mut buffer, 64);
        say!("getcwd: {}", crate::file::shown(ret, &buffer));
        say!("far up: {}", crate::file::contents(c"../../../f"));
        0
    });
    say!("the parent's root stays: {}", stat(c"/var/contract/jail").is_ok());
}

fn long_paths() {
    let name = path("d".repeat(250));
    let mut depth = 0;
    let mut buffer = vec![0u8; 8192];
    let mut last = Ret(0);
    while depth < 20 {
        if !mkdir(&name).ok() || !sys!(SYS_chdir, name.as_c_str()).ok() {
            break;
        }
        depth += 1;
        let ret = sys!(SYS_getcwd, &mut buffer[..], 8192);
        if ret.errno() != last.errno() {
            say!("getcwd at depth {depth}: {ret}, before {last}");
        }
        last = ret;
    }
    say!("depth: {depth}");
    say!("create there: {}", open(c"f", O_CREAT | O_WRONLY).ok_or_error());
    let link = [0u8; 8192];
    let ret = sys!(SYS_readlinkat, AT_FDCWD, c"/proc/self/cwd", &link, 8192);
    say!("readlink of /proc/self/cwd: {ret}");
    unlink(c"f");
    let gone = (0..depth).filter(|_| sys!(SYS_chdir, c"..").ok() && rmdir(&name).ok()).count();
    say!("removed: {gone}");
}

fn in_other_file_systems() {
    let fd = {
        say!("tmpfs: {}", mkdir(c"/tmp/contract.dirs"));
        open(c"/tmp/contract.dirs", O_RDONLY).fd()
    };
    for index in 0..40 {
        let name = path(format!("a-file-of-tmpfs-{index:02}"));
        close(sys!(SYS_openat, fd, name.as_c_str(), O_CREAT | O_WRONLY, 0o644).fd());
    }
    say!("all: {}", names(fd, 100).len());
    say!("links: {}", fstat(fd).map_or(0, |stat| stat.st_nlink));
    mkdir(c"/tmp/contract.dirs/sub");
    say!("links with a subdirectory: {}", fstat(fd).map_or(0, |stat| stat.st_nlink));
    say!("not empty: {}", rmdir(c"/tmp/contract.dirs"));
    rewind(fd);
    let mut seen = Vec::new();
    loop {
        let (ret, entries) = list(fd, 256);
        if ret.0 <= 0 {
            say!("last call: {ret}");
            break;
        }
        for entry in entries {
            let flags = if entry.kind == DT_DIR { AT_REMOVEDIR } else { 0 };
            sys!(SYS_unlinkat, fd, path(entry.name.clone()).as_c_str(), flags);
            seen.push(entry.name);
        }
    }
    seen.sort();
    seen.dedup();
    say!("seen while they were removed: {}", seen.len());
    say!("rmdir: {}", rmdir(c"/tmp/contract.dirs"));
    say!("getdents then: {}", list(fd, 256).0);
    say!("mkdir in /proc: {}", mkdir(c"/proc/x"));
    say!("in /proc/self: {}", mkdir(c"/proc/self/x"));
    say!("over one of /proc: {}", mkdir(c"/proc/self"));
    say!("rmdir of /proc/self/fd: {}", rmdir(c"/proc/self/fd"));
    say!("unlink of /proc/self/stat: {}", unlink(c"/proc/self/stat"));
    say!("create in /proc: {}", open(c"/proc/x", O_CREAT | O_WRONLY));
    say!("create in /proc/self: {}", open(c"/proc/self/x", O_CREAT | O_WRONLY));
    say!("symlink in /proc: {}", symlink(c"x", c"/proc/x"));
}

fn not_permitted() {
    mkdir(c"closed");
    mkdir(c"closed/d");
    close(create(c"closed/f", ""));
    sys!(SYS_fchmodat, AT_FDCWD, c"closed", 0o700);
    mkdir(c"listed");
    mkdir(c"listed/d");
    sys!(SYS_fchmodat, AT_FDCWD, c"listed", 0o744);
    mkdir(c"passed");
    mkdir(c"passed/d");
    sys!(SYS_fchmodat, AT_FDCWD, c"passed", 0o711);
    let fd = open(c"closed", O_RDONLY).fd();
    process::as_plain_user(|| {
        say!("mkdir: {}", mkdir(c"closed/x"));
        say!("mkdir of what is there: {}", mkdir(c"closed/d"));
        say!("mkdir in one to look at: {}", mkdir(c"listed/x"));
        say!("mkdir in one to pass: {}", mkdir(c"passed/x"));
        say!("mkdir of what is there: {}", mkdir(c"passed/d"));
        say!("rmdir: {}", rmdir(c"passed/d"));
        say!("rmdir of what is not: {}", rmdir(c"passed/x"));
        say!("chdir to one to look at: {}", sys!(SYS_chdir, c"listed"));
        say!("fchdir: {}", sys!(SYS_fchdir, fd));
        say!("list an open one: {}", names(fd, 512));
        say!("list: {}", open(c"closed", O_RDONLY));
        let listed = open(c"listed", O_RDONLY).fd();
        say!("list one to look at: {}", names(listed, 512));
        say!("stat in it: {}", described(stat(c"listed/d")));
        say!("list one to pass: {}", open(c"passed", O_RDONLY));
        say!("stat in it: {}", stat(c"passed/d").is_ok());
        say!("chdir to it: {}", sys!(SYS_chdir, c"passed"));
        let mut buffer = [0u8; 64];
        say!("getcwd: {}", sys!(SYS_getcwd, &mut buffer, 64));
    });
}

fn unlinkat_flags() {
    mkdir(c"d");
    close(create(c"f", ""));
    symlink(c"d", c"l");
    say!("a directory as a file: {}", unlink(c"d"));
    say!("with a slash: {}", unlink(c"d/"));
    say!("a file with a slash: {}", unlink(c"f/"));
    say!("a link with a slash: {}", unlink(c"l/"));
    say!("missing with a slash: {}", unlink(c"m/"));
    say!(".: {}", unlink(c"."));
    say!("..: {}", unlink(c".."));
    say!("/: {}", unlink(c"/"));
    say!("unknown flag: {}", sys!(SYS_unlinkat, AT_FDCWD, c"f", 1));
    say!("AT_SYMLINK_NOFOLLOW: {}", sys!(SYS_unlinkat, AT_FDCWD, c"f", AT_SYMLINK_NOFOLLOW));
    say!("AT_EMPTY_PATH: {}", sys!(SYS_unlinkat, AT_FDCWD, c"f", AT_EMPTY_PATH));
    say!("closed directory: {}", sys!(SYS_unlinkat, 70, c"f", 0));
    say!("no path: {}", sys!(SYS_unlinkat, AT_FDCWD, NOWHERE, 0));
    say!("a link: {}", unlink(c"l"));
    say!("what it led to: {}", stat(c"d").is_ok());
    say!("a file: {}", unlink(c"f"));
    say!("again: {}", unlink(c"f"));
}

fn dots() {
    mkdir(c"a");
    mkdir(c"a/b");
    mkdir(c"other");
    let inode = |name: &CStr| stat(name).map_or(0, |stat| stat.st_ino);
    say!(". is itself: {}", inode(c"a/b/.") == inode(c"a/b"));
    say!(".. is the parent: {}", inode(c"a/b/..") == inode(c"a"));
    say!("moved: {}", rename(c"a/b", c"other/b", 0));
    say!(".. is the new parent: {}", inode(c"other/b/..") == inode(c"other"));
    let fd = open(c"other/b", O_RDONLY).fd();
    let (_, entries) = list(fd, 512);
    let listed = |name: &str| entries.iter().find(|entry| entry.name == name).map_or(0, |entry| entry.inode);
    say!("as the list says: {}", listed("..") == inode(c"other") && listed(".") == inode(c"other/b"));
    let links = |name: &CStr| stat(name).map_or(0, |stat| stat.st_nlink);
    say!("links: {} {} {}", links(c"a"), links(c"other"), links(c"other/b"));
    close(create(c"f", ""));
    say!("a file's .: {}", described(stat(c"f/.")));
    say!("a file's ..: {}", described(stat(c"f/..")));
    say!("many slashes: {}", inode(c".//a///./../a") == inode(c"a"));
    say!("missing/..: {}", described(stat(c"missing/..")));
    say!("the root's ..: {}", inode(c"/..") == inode(c"/"));
    let proc_up = inode(c"/proc/..");
    say!("a mount's ..: {}", proc_up == inode(c"/"));
}
