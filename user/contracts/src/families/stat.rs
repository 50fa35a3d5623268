//! stat, statx, statfs.

use std::ffi::CStr;

use libc::*;

use crate::file::{close, create, described, fstat, link, mkdir, open, path, pipe, stat, stat_at, symlink, unlink};
use crate::process;
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    flags, refused, fields, blocks, statx_masks, statx_flags, statx_as_stat, nanoseconds, file_systems, other_files,
    devices, hidden,
}

fn flags() {
    let fd = create(c"f", "contents");
    mkdir(c"d");
    symlink(c"f", c"l");
    symlink(c"nothing", c"dangling");
    say!("followed: {}", described(stat_at(AT_FDCWD, c"l", 0)));
    say!("not followed: {}", described(stat_at(AT_FDCWD, c"l", AT_SYMLINK_NOFOLLOW)));
    say!("dangling: {}", described(stat_at(AT_FDCWD, c"dangling", 0)));
    say!("dangling, not followed: {}", described(stat_at(AT_FDCWD, c"dangling", AT_SYMLINK_NOFOLLOW)));
    say!("AT_EMPTY_PATH: {}", described(stat_at(fd, c"", AT_EMPTY_PATH)));
    say!("AT_EMPTY_PATH with a path: {}", described(stat_at(AT_FDCWD, c"f", AT_EMPTY_PATH)));
    let current = stat_at(AT_FDCWD, c"", AT_EMPTY_PATH).map_or(0, |stat| stat.st_ino);
    say!("AT_EMPTY_PATH of the current directory: {}", Ok(current) == stat(c".").map(|stat| stat.st_ino));
    say!("empty without it: {}", described(stat_at(fd, c"", 0)));
    say!("AT_NO_AUTOMOUNT: {}", described(stat_at(AT_FDCWD, c"f", AT_NO_AUTOMOUNT)));
    say!("unknown flag: {}", described(stat_at(AT_FDCWD, c"f", 1)));
    say!("AT_SYMLINK_FOLLOW: {}", described(stat_at(AT_FDCWD, c"f", AT_SYMLINK_FOLLOW)));
    say!("in a directory: {}", described(stat_at(open(c"d", O_PATH).fd(), c"../f", 0)));
    let mut buffer: libc::stat = zeroed();
    say!("fstat: {} {}", sys!(SYS_fstat, fd, &mut buffer), buffer.st_size);
    say!("fstat of an O_PATH: {}", sys!(SYS_fstat, open(c"f", O_PATH).fd(), &mut buffer));
}

fn refused() {
    close(create(c"f", ""));
    let mut buffer: libc::stat = zeroed();
    say!("missing: {}", described(stat(c"missing")));
    say!("under a file: {}", described(stat(c"f/x")));
    say!("file with a slash: {}", described(stat(c"f/")));
    say!("empty: {}", described(stat(c"")));
    say!("no path: {}", sys!(SYS_newfstatat, AT_FDCWD, NOWHERE, &mut buffer, 0));
    say!("no buffer: {}", sys!(SYS_newfstatat, AT_FDCWD, c"f", NOWHERE, 0));
    say!("no buffer for what is missing: {}", sys!(SYS_newfstatat, AT_FDCWD, c"missing", NOWHERE, 0));
    say!("closed: {} {}", sys!(SYS_fstat, 60, &mut buffer), sys!(SYS_newfstatat, 60, c"f", &mut buffer, 0));
    say!("closed and empty: {}", sys!(SYS_newfstatat, 60, c"", &mut buffer, AT_EMPTY_PATH));
    say!("closed, no buffer: {}", sys!(SYS_fstat, 60, NOWHERE));
    say!("too long: {}", described(stat(&path("n".repeat(256)))));
    say!("path too long: {}", described(stat(&path("n/".repeat(2100)))));
    let fd = open(c"f", O_RDONLY).fd();
    say!("a file as directory: {}", sys!(SYS_newfstatat, fd, c"x", &mut buffer, 0));
}

fn fields() {
    let show = |name: &CStr| match stat(name) {
        Ok(stat) => say!(
            "{}: mode {:o}, links {}, size {}, blocks {}, block size {}, device number {}",
            name.to_string_lossy(),
            stat.st_mode,
            stat.st_nlink,
            stat.st_size,
            stat.st_blocks,
            stat.st_blksize,
            stat.st_rdev
        ),
        Err(error) => say!("{}: {error}", name.to_string_lossy()),
    };
    close(create(c"empty", ""));
    close(create(c"one", "1"));
    close(create(c"page", &"p".repeat(4096)));
    close(create(c"more", &"p".repeat(4097)));
    mkdir(c"d");
    symlink(c"short", c"l");
    sys!(SYS_mknodat, AT_FDCWD, c"fifo", S_IFIFO | 0o644, 0);
    sys!(SYS_mknodat, AT_FDCWD, c"char", S_IFCHR | 0o600, (5 << 8) | 3);
    sys!(SYS_mknodat, AT_FDCWD, c"block", S_IFBLK | 0o600, (300 << 8) | (2 << 20) | 1);
    sys!(SYS_fsync, open(c"page", O_RDONLY).fd());
    sys!(SYS_fsync, open(c"one", O_RDONLY).fd());
    sys!(SYS_fsync, open(c"more", O_RDONLY).fd());
    for name in [c"empty", c"one", c"page", c"more", c"d", c"l", c"fifo", c"char", c"block"] {
        show(name);
    }
    close(create(c"/tmp/contract.stat", "1"));
    show(c"/tmp/contract.stat");
    unlink(c"/tmp/contract.stat");
    show(c"/dev/zero");
    let same = stat(c"empty").map(|stat| stat.st_dev) == stat(c".").map(|stat| stat.st_dev);
    say!("one device for a file and its directory: {same}");
    let other = stat(c"/tmp").map(|stat| stat.st_dev) != stat(c".").map(|stat| stat.st_dev);
    say!("another for /tmp: {other}");
}

fn blocks() {
    let show = |what: &str, fd: i32| {
        sys!(SYS_fsync, fd);
        say!("{what}: {} bytes, {} blocks", fstat(fd).map_or(0, |stat| stat.st_size), {
            fstat(fd).map_or(0, |stat| stat.st_blocks)
        });
    };
    for name in [c"f", c"/tmp/contract.blocks"] {
        let fd = create(name, "");
        sys!(SYS_ftruncate, fd, 1 << 20);
        show("grown", fd);
        sys!(SYS_pwrite64, fd, "x", 1, 0);
        show("first byte", fd);
        sys!(SYS_pwrite64, fd, "x", 1, 40000);
        show("one in the direct blocks", fd);
        sys!(SYS_ftruncate, fd, 4096);
        show("cut", fd);
        sys!(SYS_ftruncate, fd, 0);
        show("empty", fd);
        sys!(SYS_pwrite64, fd, "x".repeat(40).as_str(), 40, 4090);
        show("over a page's end", fd);
        close(fd);
        unlink(name);
    }
}

fn statx_of(fd: i32, name: &CStr, flags: i32, mask: u32) -> (Ret, libc::statx) {
    let mut buffer: libc::statx = zeroed();
    (sys!(SYS_statx, fd, name, flags, mask, &mut buffer), buffer)
}

fn statx_masks() {
    close(create(c"f", "contents"));
    for mask in [0, STATX_TYPE, STATX_SIZE, STATX_BASIC_STATS, STATX_ALL, 0x7fff_ffff & !STATX_MNT_ID & !0x2000] {
        let (ret, buffer) = statx_of(AT_FDCWD, c"f", 0, mask);
        say!("mask {mask:#x}: {ret}, basic ones {:#x}", buffer.stx_mask & STATX_BASIC_STATS);
        say!("mode {:o}, size {}, links {}", buffer.stx_mode, buffer.stx_size, buffer.stx_nlink);
    }
    say!("the reserved bit: {}", statx_of(AT_FDCWD, c"f", 0, 0x8000_0000).0);
    let (_, buffer) = statx_of(AT_FDCWD, c"f", 0, STATX_MNT_ID | STATX_BASIC_STATS);
    say!("mount: {}", buffer.stx_mask & STATX_MNT_ID != 0 && buffer.stx_mnt_id != 0);
    let (_, buffer) = statx_of(AT_FDCWD, c"/", 0, STATX_BASIC_STATS);
    say!("a mount's root: {:#x} of {:#x}", buffer.stx_attributes & 0x2000, buffer.stx_attributes_mask & 0x2000);
    let (_, buffer) = statx_of(AT_FDCWD, c"f", 0, STATX_BASIC_STATS);
    say!("not a mount's root: {:#x}", buffer.stx_attributes & 0x2000);
}

fn statx_flags() {
    let fd = create(c"f", "contents");
    symlink(c"f", c"l");
    let size = |fd: i32, name: &CStr, flags: i32| {
        let (ret, buffer) = statx_of(fd, name, flags, STATX_SIZE);
        format!("{ret}, {:o}, {}", buffer.stx_mode & 0o170000, buffer.stx_size)
    };
    say!("plain: {}", size(AT_FDCWD, c"l", 0));
    say!("AT_SYMLINK_NOFOLLOW: {}", size(AT_FDCWD, c"l", AT_SYMLINK_NOFOLLOW));
    say!("AT_EMPTY_PATH: {}", size(fd, c"", AT_EMPTY_PATH));
    say!("AT_STATX_DONT_SYNC: {}", size(AT_FDCWD, c"f", AT_STATX_DONT_SYNC));
    say!("AT_STATX_FORCE_SYNC: {}", size(AT_FDCWD, c"f", AT_STATX_FORCE_SYNC));
    say!("both: {}", statx_of(AT_FDCWD, c"f", AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC, STATX_SIZE).0);
    say!("AT_NO_AUTOMOUNT: {}", size(AT_FDCWD, c"f", AT_NO_AUTOMOUNT));
    say!("unknown: {}", statx_of(AT_FDCWD, c"f", 1, STATX_SIZE).0);
    say!("AT_SYMLINK_FOLLOW: {}", statx_of(AT_FDCWD, c"f", AT_SYMLINK_FOLLOW, STATX_SIZE).0);
    say!("missing: {}", statx_of(AT_FDCWD, c"missing", 0, STATX_SIZE).0);
    say!("empty: {}", statx_of(fd, c"", 0, STATX_SIZE).0);
    say!("closed: {}", statx_of(60, c"f", 0, STATX_SIZE).0);
    say!("no path: {}", sys!(SYS_statx, fd, 0, AT_EMPTY_PATH, STATX_SIZE, &mut zeroed::<libc::statx>()));
    say!("no buffer: {}", sys!(SYS_statx, AT_FDCWD, c"f", 0, STATX_SIZE, NOWHERE));
}

fn statx_as_stat() {
    close(create(c"f", "contents"));
    link(c"f", c"g");
    sys!(SYS_fchownat, AT_FDCWD, c"f", 5, 6, 0);
    sys!(SYS_fsync, open(c"f", O_RDONLY).fd());
    for name in [c"f", c".", c"/dev/null", c"/proc", c"/tmp"] {
        let (ret, new) = statx_of(AT_FDCWD, name, 0, STATX_BASIC_STATS);
        let Ok(old) = stat(name) else { continue };
        let device = |major: u32, minor: u32| libc::makedev(major, minor);
        let same = [
            u32::from(new.stx_mode) == old.st_mode,
            new.stx_nlink.to_string() == old.st_nlink.to_string(),
            (new.stx_uid, new.stx_gid) == (old.st_uid, old.st_gid),
            new.stx_size as i64 == old.st_size,
            new.stx_blocks as i64 == old.st_blocks,
            new.stx_blksize.to_string() == old.st_blksize.to_string(),
            new.stx_ino == old.st_ino,
            device(new.stx_dev_major, new.stx_dev_minor) == old.st_dev,
            device(new.stx_rdev_major, new.stx_rdev_minor) == old.st_rdev,
            new.stx_mtime.tv_sec == old.st_mtime && i64::from(new.stx_mtime.tv_nsec) == old.st_mtime_nsec,
        ];
        say!("{}: {ret} {same:?}", name.to_string_lossy());
    }
}

fn nanoseconds() {
    let fd = create(c"f", "");
    let set = |fd: i32, nanoseconds: [i64; 2]| {
        let times = nanoseconds.map(|tv_nsec| timespec { tv_sec: 1_000_000_000, tv_nsec });
        sys!(SYS_utimensat, fd, 0, &times, 0)
    };
    let show = |fd: i32| {
        fstat(fd).map_or_else(
            |error| error.to_string(),
            |stat| format!("{} {}, {} {}", stat.st_atime, stat.st_atime_nsec, stat.st_mtime, stat.st_mtime_nsec),
        )
    };
    for nanoseconds in [[0, 0], [1, 2], [999_999_999, 123_456_789]] {
        say!("here: {} {}", set(fd, nanoseconds), show(fd));
    }
    let fd = create(c"/tmp/contract.ns", "");
    for nanoseconds in [[0, 0], [1, 2], [999_999_999, 123_456_789]] {
        say!("tmpfs: {} {}", set(fd, nanoseconds), show(fd));
    }
    unlink(c"/tmp/contract.ns");
    let fd = create(c"far", "");
    for second in [i64::from(i32::MAX), i64::from(i32::MAX) + 1, i64::from(i32::MIN), 1 << 34, i64::MAX, i64::MIN] {
        let times = [timespec { tv_sec: second, tv_nsec: 0 }; 2];
        say!("second {second}: {} {}", sys!(SYS_utimensat, fd, 0, &times, 0), show(fd));
    }
    let (_, buffer) = statx_of(AT_FDCWD, c"f", 0, STATX_ALL);
    say!("the change time moves by itself: {}", buffer.stx_ctime.tv_sec != 1_000_000_000);
}

fn file_systems() {
    let show = |name: &CStr| {
        let mut buffer: libc::statfs = zeroed();
        let ret = sys!(SYS_statfs, name, &mut buffer);
        say!(
            "{}: {ret}, type {:#x}, block size {} {}, longest name {}",
            name.to_string_lossy(),
            buffer.f_type,
            buffer.f_bsize,
            buffer.f_frsize,
            buffer.f_namelen
        );
        say!("sums: {} {}", buffer.f_blocks >= buffer.f_bfree, buffer.f_bfree >= buffer.f_bavail);
    };
    show(c".");
    show(c"/tmp");
    show(c"/proc");
    show(c"/sys");
    show(c"/dev");
    show(c"/dev/pts");
    let mut buffer: libc::statfs = zeroed();
    say!("missing: {}", sys!(SYS_statfs, c"missing", &mut buffer));
    say!("empty: {}", sys!(SYS_statfs, c"", &mut buffer));
    say!("no buffer: {}", sys!(SYS_statfs, c".", NOWHERE));
    say!("closed: {}", sys!(SYS_fstatfs, 60, &mut buffer));
    let fd = open(c"/tmp", O_RDONLY).fd();
    say!("fstatfs: {} {:#x}", sys!(SYS_fstatfs, fd, &mut buffer), buffer.f_type);
    let fd = open(c"/tmp", O_PATH).fd();
    say!("fstatfs of an O_PATH: {} {:#x}", sys!(SYS_fstatfs, fd, &mut buffer), buffer.f_type);
    let [reader, _] = pipe();
    say!("a pipe: {} {:#x}, longest name {}", sys!(SYS_fstatfs, reader, &mut buffer), buffer.f_type, buffer.f_namelen);
    let memory = sys!(SYS_memfd_create, c"m", 0).fd();
    say!("a memfd: {} {:#x}", sys!(SYS_fstatfs, memory, &mut buffer), buffer.f_type);
}

fn other_files() {
    let show = |what: &str, fd: i32| match fstat(fd) {
        Ok(stat) => say!(
            "{what}: mode {:o}, links {}, owner {}:{}, size {}, blocks {}, block size {}",
            stat.st_mode,
            stat.st_nlink,
            stat.st_uid,
            stat.st_gid,
            stat.st_size,
            stat.st_blocks,
            stat.st_blksize
        ),
        Err(error) => say!("{what}: {error}"),
    };
    let [reader, writer] = pipe();
    show("pipe", reader);
    crate::file::write(writer, "12345");
    show("with something in it", reader);
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, &mut pair);
    show("socket", pair[0]);
    show("eventfd", sys!(SYS_eventfd2, 0, 0).fd());
    show("epoll", sys!(SYS_epoll_create1, 0).fd());
    show("timerfd", sys!(SYS_timerfd_create, CLOCK_MONOTONIC, 0).fd());
    let mask = 0u64;
    show("signalfd", sys!(SYS_signalfd4, -1, &mask, 8, 0).fd());
    let memory = sys!(SYS_memfd_create, c"m", 0).fd();
    show("memfd", memory);
    sys!(SYS_ftruncate, memory, 10000);
    show("grown", memory);
    show("pidfd", sys!(SYS_pidfd_open, sys!(SYS_getpid).0, 0).fd());
    process::as_plain_user(|| {
        let [reader, _] = pipe();
        show("a user's pipe", reader);
        show("a user's memfd", sys!(SYS_memfd_create, c"m", 0).fd());
        let mut pair = [0i32; 2];
        sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, &mut pair);
        show("a user's socket", pair[0]);
        show("a user's eventfd", sys!(SYS_eventfd2, 0, 0).fd());
    });
}

fn devices() {
    for name in [c"/dev/zero", c"/dev/full", c"/dev/random", c"/dev/urandom", c"/dev/tty", c"/dev/ptmx"] {
        match stat_at(AT_FDCWD, name, 0) {
            Ok(stat) => say!(
                "{}: mode {:o}, device {}:{}",
                name.to_string_lossy(),
                stat.st_mode,
                libc::major(stat.st_rdev),
                libc::minor(stat.st_rdev)
            ),
            Err(error) => say!("{}: {error}", name.to_string_lossy()),
        }
    }
    for (device, name) in [(0x103, c"null"), (0x105, c"zero"), (0x107, c"full")] {
        sys!(SYS_mknodat, AT_FDCWD, name, S_IFCHR | 0o666, device);
        let fd = open(name, O_RDWR).fd();
        say!("{}: write {}, read {}", name.to_string_lossy(), crate::file::write(fd, "x"), crate::file::read(fd, 2));
        say!("device of the file: {}", fstat(fd).map_or(0, |stat| stat.st_rdev));
        let same = fstat(fd).map(|stat| stat.st_dev) == stat(c".").map(|stat| stat.st_dev);
        say!("on the root file system: {same}");
    }
    process::as_plain_user(|| {
        say!("mknod by a user: {}", sys!(SYS_mknodat, AT_FDCWD, c"x", S_IFCHR | 0o666, 0x103));
        say!("of a fifo: {}", sys!(SYS_mknodat, AT_FDCWD, c"p", S_IFIFO | 0o666, 0));
        say!("of a socket: {}", sys!(SYS_mknodat, AT_FDCWD, c"s", S_IFSOCK | 0o666, 0));
        say!("of a file: {}", sys!(SYS_mknodat, AT_FDCWD, c"f", S_IFREG | 0o666, 0));
        say!("0/0: {}", sys!(SYS_mknodat, AT_FDCWD, c"w", S_IFCHR, 0));
    });
}

fn hidden() {
    mkdir(c"closed");
    close(create(c"closed/f", "x"));
    sys!(SYS_fchmodat, AT_FDCWD, c"closed", 0o700);
    close(create(c"secret", "x"));
    sys!(SYS_fchmodat, AT_FDCWD, c"secret", 0);
    let fd = open(c"closed", O_PATH).fd();
    process::as_plain_user(|| {
        say!("stat needs no right to the file: {}", described(stat(c"secret")));
        say!("but to the directory: {}", described(stat(c"closed/f")));
        say!("also of what is not there: {}", described(stat(c"closed/g")));
        say!("also with a descriptor: {}", described(stat_at(fd, c"f", 0)));
        say!("the directory itself: {}", described(stat_at(fd, c"", AT_EMPTY_PATH)));
        say!("its .: {}", described(stat_at(fd, c".", 0)));
        say!("statx: {}", statx_of(AT_FDCWD, c"closed/f", 0, STATX_SIZE).0);
        let mut buffer: libc::statfs = zeroed();
        say!("statfs: {} {}", sys!(SYS_statfs, c"closed/f", &mut buffer), sys!(SYS_statfs, c"secret", &mut buffer));
    });
}
