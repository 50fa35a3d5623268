//! Inode flags: FS_IOC_GETFLAGS and FS_IOC_SETFLAGS of ioctl_iflags(2), and what immutable and append-only files refuse.

use std::ffi::CStr;

use libc::*;

use crate::file::{close, contents, create, link, mkdir, open, rename, rmdir, stat, symlink, unlink, write};
use crate::memory;
use crate::process;
use crate::sys::{NOWHERE, Ret, sys};
use crate::{say, tests};

tests! {
    set_and_get, which, inherited, other_kinds, rights, order_of_checks, immutable_file, immutable_while_open, immutable_directory,
    append_only_file, append_only_directory, append_only_mapping, no_atime, synchronous, in_tmpfs, tmpfs_which, tmpfs_inherits, through_an_overlay, kept_by_an_overlay,
    read_only, in_statx,
}

const GET: u32 = 0x8008_6601;
const SET: u32 = 0x4008_6602;
const SYNC: u32 = 0x8;
const IMMUTABLE: u32 = 0x10;
const APPEND: u32 = 0x20;
const NODUMP: u32 = 0x40;
const NOATIME: u32 = 0x80;
const DIRSYNC: u32 = 0x1_0000;
/// How a directory is indexed, and a file mapped, is each file system's own affair.
const OWN_AFFAIR: u32 = 0x1000 | 0x8_0000;

fn on<T>(path: &CStr, act: impl FnOnce(i32) -> T) -> T {
    let fd = open(path, O_RDONLY | O_NONBLOCK).fd();
    let answer = act(fd);
    close(fd);
    answer
}

fn fd_get(fd: i32) -> String {
    let mut flags = 0xffff_ffffu32;
    let ret = sys!(SYS_ioctl, fd, GET, &mut flags);
    if ret.ok() { format!("{:#x}", flags & !OWN_AFFAIR) } else { ret.to_string() }
}

fn fd_set(fd: i32, flags: u32) -> Ret {
    let mut own = 0u32;
    sys!(SYS_ioctl, fd, GET, &mut own);
    let flags = flags | own & OWN_AFFAIR;
    sys!(SYS_ioctl, fd, SET, &flags)
}

fn get(path: &CStr) -> String {
    on(path, fd_get)
}

fn set(path: &CStr, flags: u32) -> Ret {
    on(path, |fd| fd_set(fd, flags))
}

fn opened(path: &CStr, flags: i32) -> String {
    let fd = open(path, flags);
    let said = fd.ok_or_error();
    if fd.ok() {
        close(fd.fd());
    }
    said
}

fn tmpfs_at(path: &CStr) {
    mkdir(path);
    sys!(SYS_mount, c"none", path, c"tmpfs", 0, 0).need();
}

fn truncate(path: &CStr, size: i64) -> Ret {
    sys!(SYS_truncate, path, size)
}

fn touch(path: &CStr) -> Ret {
    sys!(SYS_utimensat, AT_FDCWD, path, 0, 0)
}

fn set_times(path: &CStr) -> Ret {
    sys!(SYS_utimensat, AT_FDCWD, path, &[1i64, 2, 3, 4], 0)
}

fn chmod(path: &CStr) -> Ret {
    sys!(SYS_fchmodat, AT_FDCWD, path, 0o600)
}

fn chown(path: &CStr, uid: i32) -> Ret {
    sys!(SYS_fchownat, AT_FDCWD, path, uid, -1, 0)
}

fn set_and_get() {
    close(create(c"f", "text"));
    say!("at first: {}", get(c"f"));
    let before = stat(c"f").map(|stat| (stat.st_ctime, stat.st_ctime_nsec)).ok();
    process::sleep_ms(20);
    say!("set: {} {}", set(c"f", NODUMP | NOATIME), get(c"f"));
    let after = stat(c"f").map(|stat| (stat.st_ctime, stat.st_ctime_nsec)).ok();
    say!("ctime changed: {}", before != after);
    say!("others: {} {}", set(c"f", SYNC), get(c"f"));
    say!("none: {} {}", set(c"f", 0), get(c"f"));
    say!("a descriptor that may only write: {}", {
        let fd = open(c"f", O_WRONLY).fd();
        let said = format!("{} {}", fd_set(fd, NODUMP), fd_get(fd));
        close(fd);
        said
    });
    let path_only = open(c"f", O_PATH).fd();
    say!("O_PATH: {}", sys!(SYS_ioctl, path_only, GET, &mut 0u32));
    close(path_only);
}

/// Each bit alone, of a file and of a directory.
fn which() {
    close(create(c"f", ""));
    mkdir(c"d");
    for path in [c"f", c"d"] {
        for bit in (0..32).filter(|bit| ![4, 5, 12, 14, 19, 22, 25, 29, 30].contains(bit)) {
            let flag = 1u32 << bit;
            say!("{}: {flag:#x}: {} {}", path.to_string_lossy(), set(path, flag), get(path));
            set(path, 0);
        }
    }
}

fn inherited() {
    mkdir(c"d");
    let all = 0x1 | 0x2 | SYNC | NODUMP | NOATIME | DIRSYNC | 0x2_0000;
    say!("directory: {} {}", set(c"d", all), get(c"d"));
    close(create(c"d/f", ""));
    mkdir(c"d/d");
    say!("file: {}", get(c"d/f"));
    say!("directory: {}", get(c"d/d"));
    set(c"d", APPEND);
    close(create(c"d/g", ""));
    say!("not append-only: {}", get(c"d/g"));
    set(c"d", 0);
}

fn other_kinds() {
    sys!(SYS_mknodat, AT_FDCWD, c"fifo", S_IFIFO | 0o600, 0).need();
    sys!(SYS_mknodat, AT_FDCWD, c"null", S_IFCHR | 0o600, makedev(1, 3)).need();
    say!("fifo: {} {}", get(c"fifo"), set(c"fifo", NODUMP));
    say!("device: {} {}", get(c"null"), set(c"null", NODUMP));
    say!("in /proc: {} {}", get(c"/proc/self/status"), set(c"/proc/self/status", NODUMP));
    say!("directory in /proc: {} {}", get(c"/proc/self"), set(c"/proc/self", NODUMP));
    let pipe = crate::file::pipe();
    say!("pipe: {} {}", fd_get(pipe[0]), fd_set(pipe[0], NODUMP));
    let socket = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
    say!("socket: {} {}", fd_get(socket), fd_set(socket, NODUMP));
    let memfd = sys!(SYS_memfd_create, c"m", 0).fd();
    say!("memfd: {} {} {}", fd_get(memfd), fd_set(memfd, NODUMP), fd_get(memfd));
    symlink(c"target", c"link");
}

fn rights() {
    close(create(c"f", ""));
    sys!(SYS_fchmodat, AT_FDCWD, c"f", 0o666);
    process::as_plain_user(|| {
        say!("another's: {} {}", get(c"f"), set(c"f", NODUMP));
        close(create(c"own", ""));
        say!("one's own: {} {}", set(c"own", NODUMP), get(c"own"));
        say!("immutable: {} {}", set(c"own", IMMUTABLE), get(c"own"));
        say!("append-only: {} {}", set(c"own", APPEND | NODUMP), get(c"own"));
    });
    say!("by root: {}", set(c"own", IMMUTABLE));
    process::as_plain_user(|| {
        say!("kept: {} {}", set(c"own", IMMUTABLE | NODUMP), get(c"own"));
        say!("taken away: {} {}", set(c"own", 0), get(c"own"));
    });
    set(c"own", 0);
}

fn order_of_checks() {
    close(create(c"f", ""));
    on(c"f", |fd| {
        say!("nowhere: {} {}", sys!(SYS_ioctl, fd, GET, NOWHERE), sys!(SYS_ioctl, fd, SET, NOWHERE));
        say!("unknown: {}", sys!(SYS_ioctl, fd, SET, &0x8000_0000u32));
    });
    process::as_plain_user(|| {
        on(c"f", |fd| say!("another's, unknown: {}", sys!(SYS_ioctl, fd, SET, &0x8000_0000u32)));
        close(create(c"own", ""));
        on(c"own", |fd| say!("immutable and unknown: {}", sys!(SYS_ioctl, fd, SET, &(0x8000_0000u32 | IMMUTABLE))));
    });
    let pipe = crate::file::pipe();
    say!("a pipe, nowhere: {} {}", sys!(SYS_ioctl, pipe[0], GET, NOWHERE), sys!(SYS_ioctl, pipe[0], SET, NOWHERE));
}

/// What is asked of a file by its name.
fn try_all(path: &CStr) {
    say!("read: {}", contents(path));
    for (name, flags) in [
        ("write", O_WRONLY),
        ("read and write", O_RDWR),
        ("append", O_WRONLY | O_APPEND),
        ("O_TRUNC", O_RDONLY | O_TRUNC),
        ("O_TRUNC, append", O_WRONLY | O_APPEND | O_TRUNC),
        ("O_CREAT", O_WRONLY | O_CREAT),
        ("O_CREAT, append", O_WRONLY | O_CREAT | O_APPEND),
    ] {
        say!("{name}: {}", opened(path, flags));
    }
    say!("access: {} {}", sys!(SYS_faccessat, AT_FDCWD, path, W_OK), sys!(SYS_faccessat, AT_FDCWD, path, R_OK));
    say!("truncate: {} {}", truncate(path, 1), truncate(path, 100));
    say!("times: {} {}", touch(path), set_times(path));
    let omit = [0i64, UTIME_OMIT, 0, UTIME_NOW];
    say!("one time: {}", sys!(SYS_utimensat, AT_FDCWD, path, &omit, 0));
    say!("chmod: {}", chmod(path));
    say!("chown: {} {}", chown(path, 5), chown(path, -1));
    say!("setxattr: {}", sys!(SYS_setxattr, path, c"user.a", "x", 1, 0));
    say!("link: {}", link(path, c"other"));
    say!("rename: {}", rename(path, c"other", 0));
    close(create(c"victim", ""));
    say!("replaced: {}", rename(c"victim", path, 0));
    say!("exchanged: {}", rename(c"victim", path, 2));
    say!("unlink: {}", unlink(path));
}

fn immutable_file() {
    close(create(c"f", "text"));
    say!("set: {} {}", set(c"f", IMMUTABLE), get(c"f"));
    try_all(c"f");
    say!("cleared: {} {}", set(c"f", 0), unlink(c"f"));
}

fn append_only_file() {
    close(create(c"f", "text"));
    say!("set: {} {}", set(c"f", APPEND), get(c"f"));
    try_all(c"f");
    let fd = open(c"f", O_WRONLY | O_APPEND).fd();
    say!("write: {} {}", write(fd, " more"), contents(c"f"));
    say!("pwrite: {} {}", sys!(SYS_pwrite64, fd, "here", 4, 0), contents(c"f"));
    say!("ftruncate: {}", sys!(SYS_ftruncate, fd, 1));
    say!("without O_APPEND: {}", sys!(SYS_fcntl, fd, F_SETFL, 0));
    say!("with: {}", sys!(SYS_fcntl, fd, F_SETFL, O_APPEND | O_NONBLOCK));
    say!("fchmod: {}", sys!(SYS_fchmod, fd, 0o600));
    say!("punch: {}", sys!(SYS_fallocate, fd, 3, 0, 4096));
    close(fd);
    say!("cleared: {} {}", set(c"f", 0), unlink(c"f"));
}

/// Somebody has it open for writing when it becomes immutable.
fn immutable_while_open() {
    let page = memory::pages(1);
    let fd = create(c"f", "text");
    let mapped = memory::map(4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    // The page can be written to without a fault when the flag is set.
    memory::poke((mapped.0 as *mut u8).wrapping_add(1), b'E');
    say!("set: {}", fd_set(fd, IMMUTABLE));
    say!("write: {} {}", write(fd, "more"), sys!(SYS_pwrite64, fd, "more", 4, 0));
    say!("nothing: {}", sys!(SYS_write, fd, page, 0));
    say!("ftruncate: {} {}", sys!(SYS_ftruncate, fd, 1), sys!(SYS_ftruncate, fd, 100));
    say!("punch: {}", sys!(SYS_fallocate, fd, 3, 0, 4096));
    say!("fchmod: {}, fsetxattr: {}", sys!(SYS_fchmod, fd, 0o600), sys!(SYS_fsetxattr, fd, c"user.a", "x", 1, 0));
    let input = create(c"input", "input");
    say!("copied to: {}", sys!(SYS_copy_file_range, input, &0i64, fd, &0i64, 4, 0));
    close(input);
    let status = process::in_child(|| {
        memory::poke(mapped.0 as *mut u8, b'T');
        0
    });
    say!("mapped: {status}");
    say!("content: {}", contents(c"f"));
    fd_set(fd, 0);
    say!("again: {}", write(fd, "more"));
    close(fd);
}

fn immutable_directory() {
    mkdir(c"d");
    mkdir(c"d/sub");
    close(create(c"d/f", "text"));
    close(create(c"g", ""));
    say!("set: {}", set(c"d", IMMUTABLE));
    say!("create: {} {}", opened(c"d/new", O_CREAT | O_WRONLY), mkdir(c"d/new"));
    say!("there: {}", opened(c"d/f", O_CREAT | O_WRONLY));
    say!("unlink: {}, rmdir: {}", unlink(c"d/f"), rmdir(c"d/sub"));
    say!("link into: {}, rename into: {}", link(c"g", c"d/g"), rename(c"g", c"d/g", 0));
    say!("rename out: {}, within: {}", rename(c"d/f", c"f", 0), rename(c"d/f", c"d/h", 0));
    say!("itself: {} {}", rename(c"d", c"e", 0), rmdir(c"d"));
    say!("unnamed: {}", opened(c"d", O_TMPFILE | O_WRONLY));
    say!("its file can be written: {}", opened(c"d/f", O_WRONLY | O_TRUNC));
    say!("missing: {} {}", unlink(c"d/missing"), rename(c"d/missing", c"x", 0));
    say!("chmod: {}", chmod(c"d"));
    say!("cleared: {} {}", set(c"d", 0), unlink(c"d/f"));
}

fn append_only_directory() {
    mkdir(c"d");
    mkdir(c"d/sub");
    close(create(c"d/f", "text"));
    say!("set: {}", set(c"d", APPEND));
    say!("create: {} {}", opened(c"d/new", O_CREAT | O_WRONLY), mkdir(c"d/dir"));
    say!("unlink: {}, rmdir: {}", unlink(c"d/f"), rmdir(c"d/sub"));
    close(create(c"g", ""));
    say!("rename into: {}", rename(c"g", c"d/g", 0));
    say!("rename out: {}, within: {}", rename(c"d/f", c"f", 0), rename(c"d/f", c"d/h", 0));
    close(create(c"h", ""));
    say!("replace: {}", rename(c"h", c"d/g", 0));
    say!("itself: {} {} {}", rename(c"d", c"e", 0), chmod(c"d"), touch(c"d"));
    say!("cleared: {} {}", set(c"d", 0), unlink(c"d/f"));
}

fn append_only_mapping() {
    close(create(c"f", "text"));
    set(c"f", APPEND);
    let reads = open(c"f", O_RDONLY).fd();
    let appends = open(c"f", O_RDONLY | O_APPEND).fd();
    let both = open(c"f", O_RDWR | O_APPEND).fd();
    for (name, fd) in [("reading", reads), ("reading, O_APPEND", appends), ("both", both)] {
        let shared = memory::map(4096, PROT_READ, MAP_SHARED, fd, 0).ok_or_error();
        let private = memory::map(4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0).ok_or_error();
        say!("{name}: shared {shared}, private {private}");
    }
    set(c"f", 0);
    say!("cleared: {}", memory::map(4096, PROT_READ, MAP_SHARED, both, 0).ok_or_error());
}

fn no_atime() {
    close(create(c"f", "text"));
    set_times(c"f");
    set(c"f", NOATIME);
    contents(c"f");
    say!("kept: {}", stat(c"f").map_or(-1, |stat| stat.st_atime));
    set(c"f", 0);
    contents(c"f");
    say!("changed: {}", stat(c"f").is_ok_and(|stat| stat.st_atime != 1));
}

fn synchronous() {
    mkdir(c"d");
    say!("set: {}", set(c"d", SYNC | DIRSYNC));
    close(create(c"d/f", "text"));
    say!("file: {} {}", get(c"d/f"), contents(c"d/f"));
    say!("names: {} {} {}", link(c"d/f", c"d/g"), rename(c"d/g", c"d/h", 0), unlink(c"d/h"));
    say!("directories: {} {}", mkdir(c"d/sub"), rmdir(c"d/sub"));
    let fd = open(c"d/f", O_WRONLY | O_APPEND).fd();
    say!("write: {} {}", write(fd, " more"), contents(c"d/f"));
    close(fd);
    set(c"d", 0);
}

fn in_tmpfs() {
    tmpfs_at(c"t");
    sys!(SYS_chdir, c"t").need();
    immutable_file();
    append_only_file();
    immutable_while_open();
    immutable_directory();
    append_only_directory();
    sys!(SYS_chdir, c"..").need();
    sys!(SYS_umount2, c"t", MNT_DETACH).need();
}

fn tmpfs_which() {
    tmpfs_at(c"t");
    close(create(c"t/f", ""));
    mkdir(c"t/d");
    for path in [c"t/f", c"t/d"] {
        for bit in 0..32 {
            let flag = 1u32 << bit;
            let said = on(path, |fd| sys!(SYS_ioctl, fd, SET, &flag));
            say!("{}: {flag:#x}: {said} {}", path.to_string_lossy(), get(path));
            set(path, 0);
        }
    }
    sys!(SYS_umount2, c"t", MNT_DETACH).need();
}

fn tmpfs_inherits() {
    tmpfs_at(c"t");
    mkdir(c"t/d");
    say!("set: {}", set(c"t/d", NODUMP | NOATIME | APPEND));
    close(create(c"t/d/f", ""));
    mkdir(c"t/d/d");
    say!("file: {}, directory: {}", get(c"t/d/f"), get(c"t/d/d"));
    sys!(SYS_umount2, c"t", MNT_DETACH).need();
}

fn through_an_overlay() {
    tmpfs_at(c"t");
    for path in [c"t/lower", c"t/upper", c"t/work", c"t/m", c"t/lower/d", c"t/upper/u"] {
        mkdir(path);
    }
    for path in [c"t/lower/f", c"t/lower/a", c"t/lower/d/f", c"t/upper/g", c"t/upper/u/f"] {
        close(create(path, "text"));
    }
    for path in [c"t/lower/f", c"t/lower/d", c"t/upper/g", c"t/upper/u"] {
        say!("{}: {}", path.to_string_lossy(), set(path, IMMUTABLE));
    }
    set(c"t/lower/a", APPEND);
    let options = c"lowerdir=t/lower,upperdir=t/upper,workdir=t/work";
    say!("mount: {}", sys!(SYS_mount, c"none", c"t/m", c"overlay", 0, options));
    for path in [c"t/m/f", c"t/m/a", c"t/m/g", c"t/m/d/f", c"t/m/u/f"] {
        let name = path.to_string_lossy();
        say!("{name}: write {}, append {}", opened(path, O_WRONLY), opened(path, O_WRONLY | O_APPEND));
        say!("{name}: chmod {}, truncate {}, unlink {}", chmod(path), truncate(path, 1), unlink(path));
    }
    for path in [c"t/m/d/new", c"t/m/u/new", c"t/m/new"] {
        say!("{}: {}", path.to_string_lossy(), opened(path, O_CREAT | O_WRONLY));
    }
    sys!(SYS_umount2, c"t/m", MNT_DETACH).need();
    sys!(SYS_umount2, c"t", MNT_DETACH).need();
}

/// What was copied up stays append-only when nobody remembers what it was copied from.
fn kept_by_an_overlay() {
    tmpfs_at(c"t");
    for path in [c"t/lower", c"t/upper", c"t/work", c"t/m", c"t/lower/d"] {
        mkdir(path);
    }
    close(create(c"t/lower/a", "text"));
    close(create(c"t/lower/d/f", "text"));
    for path in [c"t/lower/a", c"t/lower/d"] {
        set(path, APPEND | NOATIME);
    }
    let options = c"lowerdir=t/lower,upperdir=t/upper,workdir=t/work";
    let mount = || sys!(SYS_mount, c"none", c"t/m", c"overlay", 0, options);
    say!("mount: {}", mount());
    let fd = open(c"t/m/a", O_WRONLY | O_APPEND).fd();
    say!("append: {}", write(fd, " more"));
    close(fd);
    say!("create: {}", opened(c"t/m/d/new", O_CREAT | O_WRONLY));
    for again in ["at once", "mounted anew"] {
        for path in [c"t/m/a", c"t/m/d/f", c"t/m/d/new"] {
            let name = path.to_string_lossy();
            say!("{again}, {name}: write {}, append {}", opened(path, O_WRONLY), opened(path, O_WRONLY | O_APPEND));
            say!("{again}, {name}: truncate {}, unlink {}", truncate(path, 2), unlink(path));
        }
        sys!(SYS_umount2, c"t/m", 0).need();
        if again == "at once" {
            say!("again: {}", mount());
        }
    }
    for path in [c"t/upper/a", c"t/upper/d"] {
        let mut value = [0u8; 8];
        let len = sys!(SYS_getxattr, path, c"trusted.overlay.protattr", &mut value, value.len());
        say!(
            "{}: {} {len} {:?}",
            path.to_string_lossy(),
            get(path),
            String::from_utf8_lossy(&value).trim_end_matches('\0')
        );
    }
    set(c"t/lower/d", 0);
    sys!(SYS_umount2, c"t", MNT_DETACH).need();
}

fn read_only() {
    tmpfs_at(c"t");
    close(create(c"t/f", ""));
    sys!(SYS_mount, c"none", c"t", c"", MS_REMOUNT | MS_RDONLY, 0).need();
    say!("set: {}, get: {}", set(c"t/f", NODUMP), get(c"t/f"));
    let fd = open(c"t/f", O_RDONLY).fd();
    say!("nowhere: {}", sys!(SYS_ioctl, fd, SET, NOWHERE));
    close(fd);
    sys!(SYS_umount2, c"t", MNT_DETACH).need();
}

fn in_statx() {
    tmpfs_at(c"t");
    for path in [c"f", c"t/f"] {
        close(create(path, ""));
        for flags in [0, IMMUTABLE, APPEND | NODUMP] {
            set(path, flags);
            // SAFETY: zeros are a valid value.
            let mut told: statx = unsafe { std::mem::zeroed() };
            sys!(SYS_statx, AT_FDCWD, path, 0, STATX_BASIC_STATS, &mut told).need();
            say!(
                "{}: {:#x} of {:#x}",
                path.to_string_lossy(),
                told.stx_attributes & 0x70,
                told.stx_attributes_mask & 0x70
            );
        }
        set(path, 0);
    }
    sys!(SYS_umount2, c"t", MNT_DETACH).need();
}
