//! open(2) and openat(2): flags, modes, and what they refuse.

use libc::*;

use crate::file::{self, close, contents, create, described, open, read, stat, write};
use crate::process;
use crate::sys::{KERNEL, NOWHERE, sys};
use crate::{say, tests};

tests! {
    create_and_exclusive, truncate, append, directories, symbolic_links, no_follow, trailing_slash, modes_and_umask,
    access_modes, path_only, lowest_descriptor, bad_paths, long_names, special_files, at_directories, temporary,
    close_on_exec, status_flags, not_permitted, openat2_flags,
}

fn create_and_exclusive() {
    say!("missing: {}", open(c"f", O_RDONLY));
    say!("O_CREAT: {}", open(c"f", O_CREAT | O_WRONLY).ok_or_error());
    say!("O_CREAT again: {}", open(c"f", O_CREAT | O_WRONLY).ok_or_error());
    say!("O_CREAT | O_EXCL: {}", open(c"f", O_CREAT | O_EXCL));
    say!("O_EXCL alone: {}", open(c"f", O_EXCL).ok_or_error());
    sys!(SYS_symlinkat, c"nothing", AT_FDCWD, c"dangling");
    say!("O_CREAT | O_EXCL on a dangling link: {}", open(c"dangling", O_CREAT | O_EXCL));
    say!("O_CREAT through a dangling link: {}", open(c"dangling", O_CREAT | O_WRONLY).ok_or_error());
    say!("its target: {}", described(stat(c"nothing")));
    say!("O_CREAT on a directory: {}", open(c".", O_CREAT));
    say!("O_CREAT under a file: {}", open(c"f/g", O_CREAT));
    say!("O_CREAT in a missing directory: {}", open(c"d/g", O_CREAT));
}

fn truncate() {
    close(create(c"f", "contents"));
    say!("O_RDONLY | O_TRUNC: {}", open(c"f", O_RDONLY | O_TRUNC).ok_or_error());
    say!("then: {}", contents(c"f"));
    close(create(c"g", "contents"));
    say!("O_WRONLY | O_TRUNC: {}", open(c"g", O_WRONLY | O_TRUNC).ok_or_error());
    say!("then: {}", contents(c"g"));
    say!("O_TRUNC of a directory: {}", open(c".", O_RDONLY | O_TRUNC));
    close(create(c"h", "contents"));
    say!("O_PATH | O_TRUNC: {}", open(c"h", O_PATH | O_TRUNC).ok_or_error());
    say!("then: {}", contents(c"h"));
}

fn append() {
    let fd = create(c"f", "begin");
    let other = open(c"f", O_RDWR | O_APPEND).fd();
    say!("offset at first: {}", sys!(SYS_lseek, other, 0, SEEK_CUR));
    say!("write: {}", write(other, "-end"));
    say!("offset: {}", sys!(SYS_lseek, other, 0, SEEK_CUR));
    sys!(SYS_lseek, other, 1, SEEK_SET);
    say!("write after a seek: {}", write(other, "!"));
    say!("pwrite appends too: {}", sys!(SYS_pwrite64, other, "?", 1, 0));
    say!("offset after pwrite: {}", sys!(SYS_lseek, other, 0, SEEK_CUR));
    say!("all: {}", read(fd, 100));
    say!("without O_APPEND: {}", sys!(SYS_fcntl, other, F_SETFL, 0));
    sys!(SYS_lseek, other, 0, SEEK_SET);
    write(other, "B");
    say!("now: {}", contents(c"f"));
}

fn directories() {
    sys!(SYS_mkdirat, AT_FDCWD, c"d", 0o755);
    close(create(c"f", ""));
    say!("to read: {}", open(c"d", O_RDONLY).ok_or_error());
    say!("to write: {}", open(c"d", O_WRONLY));
    say!("both: {}", open(c"d", O_RDWR));
    say!("O_DIRECTORY: {}", open(c"d", O_DIRECTORY).ok_or_error());
    say!("O_DIRECTORY of a file: {}", open(c"f", O_DIRECTORY));
    say!("O_DIRECTORY | O_CREAT, missing: {}", open(c"new", O_DIRECTORY | O_CREAT).ok_or_error());
    let fd = open(c"d", O_RDONLY).fd();
    say!("read: {}", read(fd, 10));
    say!("write: {}", write(fd, "x"));
    say!("pread: {}", file::read_at(fd, 10, 0));
    say!("ftruncate: {}", sys!(SYS_ftruncate, fd, 0));
    say!("mmap: {}", crate::memory::map(4096, PROT_READ, MAP_PRIVATE, fd, 0));
}

fn symbolic_links() {
    close(create(c"f", "through"));
    for (target, name) in [(c"f", c"a"), (c"a", c"b"), (c"self", c"self"), (c"two", c"one"), (c"one", c"two")] {
        sys!(SYS_symlinkat, target, AT_FDCWD, name);
    }
    say!("link to a link: {}", contents(c"b"));
    say!("itself: {}", open(c"self", O_RDONLY));
    say!("each other: {}", open(c"one", O_RDONLY));
    say!("O_CREAT through itself: {}", open(c"self", O_CREAT));
    say!("a link as directory: {}", open(c"b/x", O_RDONLY));
    for depth in [39, 40, 41] {
        for index in 0..depth {
            let name = std::ffi::CString::new(format!("l{depth}.{index}")).unwrap_or_default();
            let next = if index + 1 == depth { "f".into() } else { format!("l{depth}.{}", index + 1) };
            let next = std::ffi::CString::new(next).unwrap_or_default();
            sys!(SYS_symlinkat, next.as_c_str(), AT_FDCWD, name.as_c_str());
        }
        let first = std::ffi::CString::new(format!("l{depth}.0")).unwrap_or_default();
        say!("{depth} links in a row: {}", open(&first, O_RDONLY).ok_or_error());
    }
}

fn no_follow() {
    close(create(c"f", ""));
    sys!(SYS_mkdirat, AT_FDCWD, c"d", 0o755);
    close(create(c"d/g", ""));
    sys!(SYS_symlinkat, c"f", AT_FDCWD, c"l");
    sys!(SYS_symlinkat, c"d", AT_FDCWD, c"dl");
    say!("a file: {}", open(c"f", O_NOFOLLOW).ok_or_error());
    say!("a link: {}", open(c"l", O_NOFOLLOW));
    say!("a link in the middle: {}", open(c"dl/g", O_NOFOLLOW).ok_or_error());
    say!("O_DIRECTORY of a link: {}", open(c"dl", O_NOFOLLOW | O_DIRECTORY));
    say!("link and slash: {}", open(c"dl/", O_NOFOLLOW | O_DIRECTORY).ok_or_error());
    let link = open(c"l", O_NOFOLLOW | O_PATH).fd();
    say!("O_PATH of a link: mode {:o}", file::fstat(link).map_or(0, |stat| stat.st_mode));
    let mut target = [0u8; 8];
    say!("readlinkat of it: {} {:?}", sys!(SYS_readlinkat, link, c"", &mut target, 8), char::from(target[0]));
}

fn trailing_slash() {
    close(create(c"f", ""));
    sys!(SYS_mkdirat, AT_FDCWD, c"d", 0o755);
    say!("file/: {}", open(c"f/", O_RDONLY));
    say!("file/.: {}", open(c"f/.", O_RDONLY));
    say!("file/..: {}", open(c"f/..", O_RDONLY));
    say!("directory/: {}", open(c"d/", O_RDONLY).ok_or_error());
    say!("directory//./../d: {}", open(c"d//./../d", O_RDONLY).ok_or_error());
    say!("new/ with O_CREAT: {}", open(c"new/", O_CREAT | O_WRONLY));
    say!("missing/: {}", open(c"missing/", O_RDONLY));
    say!("mkdir new/: {}", sys!(SYS_mkdirat, AT_FDCWD, c"new/", 0o755));
    say!("unlink file/: {}", sys!(SYS_unlinkat, AT_FDCWD, c"f/", 0));
    say!("rmdir directory/: {}", sys!(SYS_unlinkat, AT_FDCWD, c"d/", AT_REMOVEDIR));
    say!("rename file/: {}", sys!(SYS_renameat2, AT_FDCWD, c"f/", AT_FDCWD, c"g", 0));
    say!("rename file to g/: {}", sys!(SYS_renameat2, AT_FDCWD, c"f", AT_FDCWD, c"g/", 0));
    say!("symlink to l/: {}", sys!(SYS_symlinkat, c"f", AT_FDCWD, c"l/"));
    say!("stat file/: {}", described(stat(c"f/")));
}

fn modes_and_umask() {
    for (umask, mode) in [(0o022, 0o666), (0o077, 0o777), (0, 0o7777), (0o777, 0o644)] {
        sys!(SYS_umask, umask);
        sys!(SYS_unlinkat, AT_FDCWD, c"f", 0);
        sys!(SYS_openat, AT_FDCWD, c"f", O_CREAT | O_WRONLY, mode);
        say!("umask {umask:o}, mode {mode:o}: {}", described(stat(c"f")));
    }
    say!("umask(0o1777) was {:o}", sys!(SYS_umask, 0o1777).0);
    say!("umask is {:o}", sys!(SYS_umask, 0o22).0);
    let fd = sys!(SYS_openat, AT_FDCWD, c"readonly", O_CREAT | O_RDWR, 0o400).fd();
    say!("mode 400 opened to write: {}", write(fd, "written"));
}

fn access_modes() {
    close(create(c"f", "contents"));
    let reader = open(c"f", O_RDONLY).fd();
    let writer = open(c"f", O_WRONLY).fd();
    say!("write to a reader: {}", write(reader, "x"));
    say!("read from a writer: {}", read(writer, 1));
    say!("ftruncate of a reader: {}", sys!(SYS_ftruncate, reader, 0));
    say!("write of nothing to a reader: {}", write(reader, ""));
    let neither = open(c"f", O_ACCMODE);
    say!("mode 3: {}", neither.ok_or_error());
    if neither.ok() {
        say!("read: {}", read(neither.fd(), 1));
        say!("write: {}", write(neither.fd(), "x"));
    }
    say!("map a writer to read: {}", crate::memory::map(4096, PROT_READ, MAP_SHARED, writer, 0));
    say!("map a reader to write, shared: {}", crate::memory::map(4096, PROT_WRITE, MAP_SHARED, reader, 0));
    say!("private: {}", crate::memory::map(4096, PROT_WRITE, MAP_PRIVATE, reader, 0).ok_or_error());
}

fn path_only() {
    close(create(c"f", "contents"));
    let fd = open(c"f", O_PATH).fd();
    say!("read: {}", read(fd, 1));
    say!("write: {}", write(fd, "x"));
    say!("lseek: {}", sys!(SYS_lseek, fd, 0, SEEK_SET));
    say!("ftruncate: {}", sys!(SYS_ftruncate, fd, 0));
    say!("fchmod: {}", sys!(SYS_fchmod, fd, 0o600));
    say!("fchown: {}", sys!(SYS_fchown, fd, 1, 1));
    say!("ioctl: {}", sys!(SYS_ioctl, fd, FIONREAD, 0));
    say!("fsync: {}", sys!(SYS_fsync, fd));
    say!("flock: {}", sys!(SYS_flock, fd, LOCK_EX));
    say!("fstat: {}", described(file::fstat(fd)));
    say!("mmap: {}", crate::memory::map(4096, PROT_READ, MAP_PRIVATE, fd, 0));
    say!("dup: {}", sys!(SYS_dup, fd).ok_or_error());
    say!("F_GETFL: {:o}", sys!(SYS_fcntl, fd, F_GETFL, 0).0);
    say!("F_SETFL: {}", sys!(SYS_fcntl, fd, F_SETFL, O_APPEND));
    say!("F_SETFD: {}", sys!(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC));
    let directory = open(c".", O_PATH | O_DIRECTORY).fd();
    say!("openat in it: {}", sys!(SYS_openat, directory, c"f", O_RDONLY, 0).ok_or_error());
    say!("fchdir to it: {}", sys!(SYS_fchdir, directory));
    let mut entries = [0u8; 512];
    say!("getdents: {}", sys!(SYS_getdents64, directory, &mut entries, 512));
    say!("through /proc/self/fd: {}", open(c"/proc/self/fd/3", O_RDONLY).ok_or_error());
}

fn lowest_descriptor() {
    say!("first: {}", open(c"/dev/null", O_RDONLY));
    say!("second: {}", open(c"/dev/null", O_RDONLY));
    close(3);
    say!("after close(3): {}", open(c"/dev/null", O_RDONLY));
    say!("dup: {}", sys!(SYS_dup, 3));
    say!("F_DUPFD 100: {}", sys!(SYS_fcntl, 3, F_DUPFD, 100));
    say!("again: {}", sys!(SYS_fcntl, 3, F_DUPFD, 100));
    say!("dup3 to 7: {}", sys!(SYS_dup3, 3, 7, 0));
    say!("next: {}", open(c"/dev/null", O_RDONLY));
    say!("next: {}", open(c"/dev/null", O_RDONLY));
    say!("next: {}", open(c"/dev/null", O_RDONLY));
    close(0);
    say!("after close(0): {}", open(c"/dev/null", O_RDONLY));
}

fn bad_paths() {
    say!("empty: {}", open(c"", O_RDONLY));
    say!("null: {}", sys!(SYS_openat, AT_FDCWD, 0, O_RDONLY, 0));
    say!("unmapped: {}", sys!(SYS_openat, AT_FDCWD, NOWHERE, O_RDONLY, 0));
    say!("the kernel's: {}", sys!(SYS_openat, AT_FDCWD, KERNEL, O_RDONLY, 0));
    say!("minus one: {}", sys!(SYS_openat, AT_FDCWD, -1, O_RDONLY, 0));
    let page = crate::memory::pages(2);
    sys!(SYS_munmap, page as usize + 4096, 4096);
    for at in 4092..4096 {
        crate::memory::poke(page.wrapping_add(at), b'x');
    }
    say!("no end before the mapping's: {}", sys!(SYS_openat, AT_FDCWD, page as usize + 4092, O_RDONLY, 0));
    crate::memory::poke(page.wrapping_add(4095), 0);
    say!("an end just there: {}", sys!(SYS_openat, AT_FDCWD, page as usize + 4092, O_RDONLY, 0));
}

fn long_names() {
    let name = |length: usize| std::ffi::CString::new("n".repeat(length)).unwrap_or_default();
    say!("255: {}", open(&name(255), O_CREAT).ok_or_error());
    say!("256: {}", open(&name(256), O_CREAT));
    say!("4095: {}", open(&name(4095), O_CREAT));
    say!("4096: {}", open(&name(4096), O_CREAT));
    let path = |length: usize| {
        let mut text = "./".repeat(length / 2);
        text.truncate(length - 1);
        std::ffi::CString::new(text + "/").unwrap_or_default()
    };
    say!("path of 4095: {}", open(&path(4095), O_RDONLY).ok_or_error());
    say!("path of 4096: {}", open(&path(4096), O_RDONLY));
}

fn special_files() {
    say!("mkfifo: {}", sys!(SYS_mknodat, AT_FDCWD, c"fifo", S_IFIFO | 0o644, 0));
    say!("fifo to write, O_NONBLOCK: {}", open(c"fifo", O_WRONLY | O_NONBLOCK));
    let reader = open(c"fifo", O_RDONLY | O_NONBLOCK).fd();
    say!("empty and nobody writes: {}", read(reader, 1));
    let writer = open(c"fifo", O_WRONLY | O_NONBLOCK).fd();
    say!("empty and somebody writes: {}", read(reader, 1));
    write(writer, "hello");
    say!("full: {}", read(reader, 10));
    say!("both ways: {}", open(c"fifo", O_RDWR).ok_or_error());
    say!("lseek: {}", sys!(SYS_lseek, reader, 0, SEEK_CUR));
    say!("a socket's inode: {}", sys!(SYS_mknodat, AT_FDCWD, c"sock", S_IFSOCK | 0o644, 0));
    say!("open: {}", open(c"sock", O_RDONLY));
    say!("a device that is not there: {}", sys!(SYS_mknodat, AT_FDCWD, c"chr", S_IFCHR | 0o644, 0xfff00));
    say!("open: {}", open(c"chr", O_RDONLY));
    say!("mknod of a directory: {}", sys!(SYS_mknodat, AT_FDCWD, c"dir", S_IFDIR | 0o755, 0));
    say!("mknod of nothing known: {}", sys!(SYS_mknodat, AT_FDCWD, c"what", 0o170000, 0));
    say!("mknod of a file: {}", sys!(SYS_mknodat, AT_FDCWD, c"file", 0o644, 0));
    say!("it: {}", described(stat(c"file")));
    say!("again: {}", sys!(SYS_mknodat, AT_FDCWD, c"file", 0o644, 0));
}

fn at_directories() {
    sys!(SYS_mkdirat, AT_FDCWD, c"d", 0o755);
    close(create(c"d/f", "here"));
    let directory = open(c"d", O_RDONLY).fd();
    let plain = create(c"plain", "");
    let at = |fd: i32, path: &std::ffi::CStr| sys!(SYS_openat, fd, path, O_RDONLY, 0);
    say!("relative: {}", read(at(directory, c"f").fd(), 9));
    say!("up: {}", at(directory, c"../plain").ok_or_error());
    say!("absolute with a bad directory: {}", at(-1, c"/dev/null").ok_or_error());
    say!("relative with a bad directory: {}", at(-1, c"f"));
    say!("closed: {}", at(77, c"f"));
    say!("a file as directory: {}", at(plain, c"f"));
    say!("empty with a bad directory: {}", at(-1, c""));
    sys!(SYS_renameat2, AT_FDCWD, c"d", AT_FDCWD, c"moved", 0);
    say!("after the directory has moved: {}", at(directory, c"f").ok_or_error());
    sys!(SYS_unlinkat, directory, c"f", 0);
    sys!(SYS_unlinkat, AT_FDCWD, c"moved", AT_REMOVEDIR);
    say!("after it has been removed: {}", at(directory, c"f"));
    say!("creating in it: {}", sys!(SYS_openat, directory, c"new", O_CREAT | O_WRONLY, 0o644));
    say!("its .: {}", at(directory, c".").ok_or_error());
    say!("mkdir in it: {}", sys!(SYS_mkdirat, directory, c"x", 0o755));
}

fn temporary() {
    let fd = sys!(SYS_openat, AT_FDCWD, c"/tmp", O_TMPFILE | O_RDWR, 0o600);
    say!("O_TMPFILE in tmpfs: {}", fd.ok_or_error());
    let fd = fd.fd();
    say!("it: {}", described(file::fstat(fd)));
    write(fd, "nameless");
    let path = std::ffi::CString::new(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    sys!(SYS_unlinkat, AT_FDCWD, c"/tmp/contract.named", 0);
    let named = sys!(SYS_linkat, AT_FDCWD, path.as_c_str(), AT_FDCWD, c"/tmp/contract.named", AT_SYMLINK_FOLLOW);
    say!("given a name: {named}");
    say!("there: {}", contents(c"/tmp/contract.named"));
    sys!(SYS_unlinkat, AT_FDCWD, c"/tmp/contract.named", 0);
    let only = sys!(SYS_openat, AT_FDCWD, c"/tmp", O_TMPFILE | O_RDWR | O_EXCL, 0o600).fd();
    let path = std::ffi::CString::new(format!("/proc/self/fd/{only}")).unwrap_or_default();
    let named = sys!(SYS_linkat, AT_FDCWD, path.as_c_str(), AT_FDCWD, c"/tmp/contract.named", AT_SYMLINK_FOLLOW);
    say!("with O_EXCL it gets none: {named}");
    say!("O_RDONLY: {}", sys!(SYS_openat, AT_FDCWD, c"/tmp", O_TMPFILE | O_RDONLY, 0o600));
    close(create(c"/tmp/contract.file", ""));
    say!("in a file: {}", sys!(SYS_openat, AT_FDCWD, c"/tmp/contract.file", O_TMPFILE | O_RDWR, 0o600));
    sys!(SYS_unlinkat, AT_FDCWD, c"/tmp/contract.file", 0);
}

fn close_on_exec() {
    let fd = open(c"/dev/null", O_CLOEXEC).fd();
    say!("O_CLOEXEC: {}", sys!(SYS_fcntl, fd, F_GETFD, 0));
    say!("its dup: {}", sys!(SYS_fcntl, sys!(SYS_dup, fd).fd(), F_GETFD, 0));
    say!("dup3 with it: {}", sys!(SYS_fcntl, sys!(SYS_dup3, fd, 20, O_CLOEXEC).fd(), F_GETFD, 0));
    say!("F_DUPFD_CLOEXEC: {}", sys!(SYS_fcntl, sys!(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 30).fd(), F_GETFD, 0));
    say!("F_SETFD 0xff: {}", sys!(SYS_fcntl, fd, F_SETFD, 0xfe));
    say!("then: {}", sys!(SYS_fcntl, fd, F_GETFD, 0));
    say!("dup3 to itself: {}", sys!(SYS_dup3, fd, fd, 0));
    say!("dup3 with other flags: {}", sys!(SYS_dup3, fd, 40, O_NONBLOCK));
    say!("dup3 from a closed one: {}", sys!(SYS_dup3, 99, 40, 0));
    say!("dup3 to a negative one: {}", sys!(SYS_dup3, fd, -1, 0));
    say!("dup3 beyond the limit: {}", sys!(SYS_dup3, fd, 1 << 30, 0));
    say!("F_DUPFD beyond the limit: {}", sys!(SYS_fcntl, fd, F_DUPFD, 1 << 30));
    say!("close_range: {}", sys!(SYS_close_range, 20, 30, 0));
    say!("20: {}", sys!(SYS_fcntl, 20, F_GETFD, 0));
    say!("close_range backwards: {}", sys!(SYS_close_range, 30, 20, 0));
    say!("close_range with other flags: {}", sys!(SYS_close_range, 20, 30, 1));
    say!("close_range CLOEXEC: {}", sys!(SYS_close_range, fd, fd, CLOSE_RANGE_CLOEXEC));
    say!("now: {}", sys!(SYS_fcntl, fd, F_GETFD, 0));
}

fn status_flags() {
    let flags = |fd: i32| format!("{:o}", sys!(SYS_fcntl, fd, F_GETFL, 0).0);
    close(create(c"f", ""));
    for (name, wanted) in [
        ("O_RDONLY", O_RDONLY),
        ("O_WRONLY | O_APPEND", O_WRONLY | O_APPEND),
        ("O_RDWR | O_NONBLOCK | O_CLOEXEC", O_RDWR | O_NONBLOCK | O_CLOEXEC),
        ("O_CREAT | O_TRUNC | O_NOCTTY", O_CREAT | O_TRUNC | O_NOCTTY),
        ("O_SYNC", O_SYNC),
        ("O_DSYNC", O_DSYNC),
        ("O_NOATIME", O_NOATIME),
    ] {
        say!("{name}: {}", flags(open(c"f", wanted).fd()));
    }
    say!("O_DIRECTORY: {}", flags(open(c".", O_DIRECTORY).fd()));
    let fd = open(c"f", O_RDWR).fd();
    let twin = sys!(SYS_dup, fd).fd();
    say!("F_SETFL of everything: {}", sys!(SYS_fcntl, fd, F_SETFL, O_APPEND | O_NONBLOCK | O_WRONLY | O_CREAT));
    say!("then: {}", flags(fd));
    say!("its dup: {}", flags(twin));
    say!("a pipe's ends: {} {}", flags(file::pipe()[0]), flags(file::pipe()[1]));
    say!("F_GETFL of a closed one: {}", sys!(SYS_fcntl, 99, F_GETFL, 0));
    say!("unknown fcntl: {}", sys!(SYS_fcntl, fd, 9999, 0));
}

fn not_permitted() {
    sys!(SYS_mkdirat, AT_FDCWD, c"locked", 0o700);
    close(create(c"locked/f", ""));
    close(create(c"secret", "x"));
    sys!(SYS_fchmodat, AT_FDCWD, c"secret", 0o600);
    close(create(c"writable", "x"));
    sys!(SYS_fchmodat, AT_FDCWD, c"writable", 0o222);
    close(create(c"group", "x"));
    sys!(SYS_fchmodat, AT_FDCWD, c"group", 0o604);
    sys!(SYS_fchownat, AT_FDCWD, c"group", 0, 1000, 0);
    process::in_child(|| {
        sys!(SYS_setgid, 1000);
        sys!(SYS_setuid, 1000);
        say!("under a locked directory: {}", open(c"locked/f", O_RDONLY));
        say!("missing under it: {}", open(c"locked/g", O_RDONLY));
        say!("creating under it: {}", open(c"locked/g", O_CREAT));
        say!("another's file: {}", open(c"secret", O_RDONLY));
        say!("only to be written: {} {}", open(c"writable", O_RDONLY), open(c"writable", O_WRONLY).ok_or_error());
        say!("O_TRUNC without the right: {}", open(c"secret", O_RDONLY | O_TRUNC));
        say!("the group's rights come before others': {}", open(c"group", O_RDONLY));
        say!("O_NOATIME of another's: {}", open(c"writable", O_WRONLY | O_NOATIME));
        say!("O_PATH of a secret: {}", open(c"secret", O_PATH).ok_or_error());
        let own = sys!(SYS_openat, AT_FDCWD, c"own", O_CREAT | O_RDWR, 0);
        say!("own file of mode 0: {}", own.ok_or_error());
        say!("again: {}", open(c"own", O_RDONLY));
        0
    });
}

fn openat2_flags() {
    let call = |path: &std::ffi::CStr, flags: i32, mode: u64, resolve: u64, size: usize| {
        let how = [flags as u64, mode, resolve, 0];
        sys!(SYS_openat2, AT_FDCWD, path, &how, size)
    };
    sys!(SYS_mkdirat, AT_FDCWD, c"d", 0o755);
    close(create(c"d/f", ""));
    sys!(SYS_symlinkat, c"f", AT_FDCWD, c"d/l");
    say!("plain: {}", call(c"d/f", O_RDONLY, 0, 0, 24).ok_or_error());
    say!("a mode without O_CREAT: {}", call(c"d/f", O_RDONLY, 0o644, 0, 24));
    say!("an unknown flag: {}", call(c"d/f", 1 << 30, 0, 0, 24));
    say!("a mode too big: {}", call(c"new", O_CREAT | O_WRONLY, 0o10644, 0, 24));
    say!("an unknown resolve flag: {}", call(c"d/f", O_RDONLY, 0, 1 << 20, 24));
    say!("too short: {}", call(c"d/f", O_RDONLY, 0, 0, 16));
    say!("longer, with zeros: {}", call(c"d/f", O_RDONLY, 0, 0, 32).ok_or_error());
    let how = [0u64, 0, 0, 1];
    say!("longer, with more: {}", sys!(SYS_openat2, AT_FDCWD, c"d/f", &how, 32));
    say!("no symbolic links: {} {}", call(c"d/f", 0, 0, 4, 24).ok_or_error(), call(c"d/l", 0, 0, 4, 24));
    say!("beneath: {} {}", call(c"d/f", 0, 0, 8, 24).ok_or_error(), call(c"../x", 0, 0, 8, 24));
    say!("beneath, absolute: {}", call(c"/dev/null", 0, 0, 8, 24));
    say!("in root: {}", call(c"/d/f", 0, 0, 16, 24).ok_or_error());
    say!("beneath and in root: {}", call(c"d/f", 0, 0, 24, 24));
    say!("not over mounts: {}", call(c"/proc/self", 0, 0, 1, 24));
}
