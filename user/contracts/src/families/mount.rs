//! mount(2), umount(2), pivot_root(2).

use std::ffi::{CStr, CString};

use libc::*;

use crate::file::{close, contents, create, mkdir, open, rename, rmdir, stat, symlink, unlink, write};
use crate::process;
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    tmpfs, tmpfs_links, refused, not_permitted, busy, bind, read_only, options, stacked, pivot_refused, unmount_refused, no_flags,
    on_what_is_gone, on_what_was_removed, order_of_a_copy, devices_that_do_not_count,
    who_was_refused_writes_nothing, places_in_a_directory_of_memory,
}

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: u64, data: &CStr) -> Ret {
    sys!(SYS_mount, source, target, kind, flags, data)
}

fn umount(target: &CStr, flags: i32) -> Ret {
    sys!(SYS_umount2, target, flags)
}

/// Texts of symbolic links are memory, too.
fn tmpfs_links() {
    mkdir(c"m");
    say!("mount: {}", mount(c"none", c"m", c"tmpfs", 0, c"size=12k"));
    let used = || {
        let mut about: statfs = zeroed();
        sys!(SYS_statfs, c"m", &mut about).need();
        about.f_blocks - about.f_bfree
    };
    for length in [1, 126, 127, 128, 4095] {
        let text = CString::new(vec![b'x'; length]).unwrap_or_default();
        let name = CString::new(format!("m/{length}")).unwrap_or_default();
        let made = sys!(SYS_symlinkat, text.as_c_str(), AT_FDCWD, name.as_c_str());
        let mut about: stat = zeroed();
        sys!(SYS_newfstatat, AT_FDCWD, name.as_c_str(), &mut about, AT_SYMLINK_NOFOLLOW).need();
        say!("{length}: {made}, {} {} blocks, used {}", about.st_size, about.st_blocks, used());
    }
    let fd = open(c"m/file", O_CREAT | O_RDWR).fd();
    let text = CString::new([b'x'; 200]).unwrap_or_default();
    say!("write: {} {}", sys!(SYS_write, fd, &[0u8; 8192][..], 8192), used());
    say!("link: {} {}", sys!(SYS_symlinkat, text.as_c_str(), AT_FDCWD, c"m/more"), used());
    say!("unlink: {} {}", unlink(c"m/4095"), used());
    say!("link: {} {}", sys!(SYS_symlinkat, text.as_c_str(), AT_FDCWD, c"m/more"), used());
    close(fd);
    say!("unmount: {}", umount(c"m", 0));
}

fn tmpfs() {
    mkdir(c"m");
    close(create(c"m/below", "below"));
    say!("mount: {}", mount(c"none", c"m", c"tmpfs", 0, c"size=1m,mode=750"));
    say!("mode: {:o}", stat(c"m").map_or(0, |stat| stat.st_mode));
    say!("what was there is hidden: {}", contents(c"m/below"));
    close(create(c"m/f", "on top"));
    say!("another device: {}", stat(c"m").map(|stat| stat.st_dev) != stat(c".").map(|stat| stat.st_dev));
    say!("link out of it: {}", crate::file::link(c"m/f", c"f"));
    say!("rename out of it: {}", rename(c"m/f", c"f", 0));
    let fd = open(c"m/big", O_CREAT | O_RDWR).fd();
    let page = vec![0u8; 1 << 20];
    say!("size: {}", sys!(SYS_write, fd, &page[..], 1 << 20));
    say!("more: {}", write(fd, "x"));
    close(fd);
    say!("unmount: {}", umount(c"m", 0));
    say!("what was there: {}", contents(c"m/below"));
    say!("unmount again: {}", umount(c"m", 0));
    for data in [c"mode=abc", c"unknown=1", c"size=", c"nonsense"] {
        say!("{}: {}", data.to_string_lossy(), mount(c"none", c"m", c"tmpfs", 0, data));
    }
}

fn refused() {
    mkdir(c"m");
    close(create(c"f", ""));
    say!("missing: {}", mount(c"none", c"missing", c"tmpfs", 0, c""));
    say!("on a file: {}", mount(c"none", c"f", c"tmpfs", 0, c""));
    say!("unknown type: {}", mount(c"none", c"m", c"nothing", 0, c""));
    say!("no type: {}", sys!(SYS_mount, c"none", c"m", 0, 0, 0));
    say!(
        "bad pointers: {} {} {}",
        sys!(SYS_mount, NOWHERE, c"m", c"tmpfs", 0, 0),
        { sys!(SYS_mount, c"none", NOWHERE, c"tmpfs", 0, 0) },
        sys!(SYS_mount, c"none", c"m", NOWHERE, 0, 0)
    );
    say!("no device: {}", mount(c"/dev/nothing", c"m", c"ext2", 0, c""));
    say!("not a device: {}", mount(c"f", c"m", c"ext2", 0, c""));
    say!("a character device: {}", mount(c"/dev/null", c"m", c"ext2", 0, c""));
    say!("remount of what is no mount: {}", mount(c"none", c"m", c"tmpfs", MS_REMOUNT, c""));
    say!("bind of nothing: {}", mount(c"missing", c"m", c"", MS_BIND, c""));
    say!("move of what is no mount: {}", mount(c"m", c"m", c"", MS_MOVE, c""));
}

fn not_permitted() {
    mkdir(c"m");
    process::as_plain_user(|| {
        mkdir(c"own");
        say!("mount: {}", mount(c"none", c"own", c"tmpfs", 0, c""));
        say!("missing: {}", mount(c"none", c"missing", c"tmpfs", 0, c""));
        say!("bind: {}", mount(c"/tmp", c"own", c"", MS_BIND, c""));
        say!("unmount: {}", umount(c"/tmp", 0));
        say!("unmount of what is no mount: {}", umount(c"own", 0));
        say!("unmount of nothing: {}", umount(c"missing", 0));
        say!("pivot_root: {}", sys!(SYS_pivot_root, c"own", c"own"));
        say!("chroot: {}", sys!(SYS_chroot, c"own"));
    });
}

fn busy() {
    mkdir(c"m");
    mount(c"none", c"m", c"tmpfs", 0, c"");
    let fd = open(c"m/f", O_CREAT | O_RDWR).fd();
    say!("with an open file: {}", umount(c"m", 0));
    say!("MNT_EXPIRE: {}", umount(c"m", MNT_EXPIRE));
    say!("rmdir: {}", rmdir(c"m"));
    say!("rename: {}", rename(c"m", c"n", 0));
    close(fd);
    process::in_child(|| {
        sys!(SYS_chdir, c"m");
        say!("with a current directory: {}", umount(c"/var/contract/m", 0));
        0
    });
    mkdir(c"m/sub");
    mount(c"none", c"m/sub", c"tmpfs", 0, c"");
    say!("with a mount in it: {}", umount(c"m", 0));
    say!("the inner: {}", umount(c"m/sub", 0));
    let fd = open(c"m/f", O_RDWR).fd();
    say!("MNT_DETACH: {}", umount(c"m", MNT_DETACH));
    say!("gone: {}", stat(c"m/f").is_ok());
    say!("the file lives: {}", write(fd, "x"));
    say!("rmdir: {}", rmdir(c"m"));
}

fn bind() {
    mkdir(c"a");
    mkdir(c"b");
    close(create(c"a/f", "in a"));
    close(create(c"file", "a file"));
    close(create(c"place", ""));
    say!("bind: {} {}", mount(c"a", c"b", c"", MS_BIND, c""), contents(c"b/f"));
    close(create(c"b/g", "made in b"));
    say!("the other way: {}", contents(c"a/g"));
    say!("link between them: {}", crate::file::link(c"a/f", c"b/l"));
    say!("rename between them: {}", rename(c"a/f", c"b/r", 0));
    say!("a file: {} {}", mount(c"file", c"place", c"", MS_BIND, c""), contents(c"place"));
    say!("unlink of it: {}", unlink(c"place"));
    say!("unmount: {} {}", umount(c"place", 0), contents(c"place"));
    say!("a directory on a file: {}", mount(c"a", c"place", c"", MS_BIND, c""));
    say!("a file on a directory: {}", mount(c"file", c"b", c"", MS_BIND, c""));
    say!("unmount: {} {}", umount(c"b", 0), contents(c"b/f"));
}

fn read_only() {
    mkdir(c"m");
    mount(c"none", c"m", c"tmpfs", 0, c"");
    close(create(c"m/f", "x"));
    let fd = open(c"m/f", O_RDWR).fd();
    say!("with a writer: {}", mount(c"none", c"m", c"tmpfs", MS_REMOUNT | MS_RDONLY, c""));
    close(fd);
    say!("without: {}", mount(c"none", c"m", c"tmpfs", MS_REMOUNT | MS_RDONLY, c""));
    say!("read: {}", contents(c"m/f"));
    say!("write: {}", open(c"m/f", O_WRONLY));
    say!("create: {}", open(c"m/new", O_CREAT | O_WRONLY));
    say!("what is there: {}", open(c"m/f", O_CREAT | O_RDONLY).ok_or_error());
    say!("unlink: {} mkdir: {} rmdir: {}", unlink(c"m/f"), mkdir(c"m/d"), rmdir(c"m/d"));
    say!("chmod: {} chown: {}", sys!(SYS_fchmodat, AT_FDCWD, c"m/f", 0o600), {
        sys!(SYS_fchownat, AT_FDCWD, c"m/f", 1, 1, 0)
    });
    say!("utimensat: {}", sys!(SYS_utimensat, AT_FDCWD, c"m/f", 0, 0));
    say!("truncate: {} rename: {} symlink: {}", sys!(SYS_truncate, c"m/f", 0), rename(c"m/f", c"m/g", 0), {
        symlink(c"x", c"m/l")
    });
    say!("over what is there: {} {}", mkdir(c"m/f"), symlink(c"x", c"m/f"));
    say!("access: {} {}", sys!(SYS_faccessat, AT_FDCWD, c"m/f", W_OK), sys!(SYS_faccessat, AT_FDCWD, c"m/f", R_OK));
    say!("writable again: {}", mount(c"none", c"m", c"tmpfs", MS_REMOUNT, c""));
    say!("write: {}", open(c"m/f", O_WRONLY).ok_or_error());
}

fn options() {
    mkdir(c"m");
    mount(c"none", c"m", c"tmpfs", MS_NOEXEC | MS_NODEV | MS_NOSUID, c"");
    let fd = sys!(SYS_openat, AT_FDCWD, c"m/program", O_CREAT | O_WRONLY, 0o755).fd();
    write(fd, "#!/bin/sh\n");
    close(fd);
    let argv = [c"x".as_ptr(), std::ptr::null()];
    say!("noexec: {}", sys!(SYS_execve, c"m/program", &argv, 0));
    say!("access: {}", sys!(SYS_faccessat, AT_FDCWD, c"m/program", X_OK));
    sys!(SYS_mknodat, AT_FDCWD, c"m/null", S_IFCHR | 0o666, 0x103);
    say!("nodev: {}", open(c"m/null", O_RDWR));
    let fd = open(c"m/program", O_RDONLY).fd();
    say!("to execute in memory: {}", crate::memory::map(4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0));
    let all = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let found = all.lines().find(|line| line.contains("/var/contract/m ")).unwrap_or_default();
    say!("shown: {:?}", found.split(' ').nth(3).map(|options| options.split(',').take(5).collect::<Vec<_>>()));
    close(fd);
    say!("changed: {}", mount(c"none", c"m", c"tmpfs", MS_REMOUNT | MS_NOSUID, c""));
    say!("nodev no more: {}", open(c"m/null", O_RDWR).ok_or_error());
}

fn stacked() {
    mkdir(c"m");
    mount(c"one", c"m", c"tmpfs", 0, c"");
    close(create(c"m/first", ""));
    say!("again: {}", mount(c"two", c"m", c"tmpfs", 0, c""));
    say!("the first is hidden: {}", stat(c"m/first").is_ok());
    say!("in /proc/mounts: {}", {
        let all = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        all.lines().filter(|line| line.contains(" /var/contract/m ")).filter_map(|line| line.split(' ').next()).count()
    });
    say!("unmount: {} {}", umount(c"m", 0), stat(c"m/first").is_ok());
    say!("unmount: {} {}", umount(c"m", 0), umount(c"m", 0));
    mkdir(c"n");
    mount(c"moved", c"m", c"tmpfs", 0, c"");
    close(create(c"m/f", "moved"));
    say!("move: {}", mount(c"m", c"n", c"", MS_MOVE, c""));
    say!("there: {} {}", contents(c"n/f"), stat(c"m/f").is_ok());
    say!("into itself: {}", {
        mkdir(c"n/d");
        mount(c"n", c"n/d", c"", MS_MOVE, c"")
    });
    say!("the root: {}", mount(c"/", c"n", c"", MS_MOVE, c""));
}

fn pivot_refused() {
    mkdir(c"m");
    close(create(c"f", ""));
    say!("no mount: {}", sys!(SYS_pivot_root, c"m", c"m"));
    say!("missing: {} {}", sys!(SYS_pivot_root, c"missing", c"m"), sys!(SYS_pivot_root, c"m", c"missing"));
    say!("files: {} {}", sys!(SYS_pivot_root, c"f", c"m"), sys!(SYS_pivot_root, c"m", c"f"));
    say!("the root: {}", sys!(SYS_pivot_root, c"/", c"/"));
    mount(c"none", c"m", c"tmpfs", 0, c"");
    say!("not below it: {}", sys!(SYS_pivot_root, c"m", c"/tmp"));
    say!("in the mount of the root: {} {}", sys!(SYS_pivot_root, c"m", c"/root"), sys!(SYS_pivot_root, c"m", c"/"));
    mkdir(c"m/d");
    say!("not the root of a mount: {}", sys!(SYS_pivot_root, c"m/d", c"m/d"));
    process::in_child(|| {
        sys!(SYS_chdir, c"m/d");
        rmdir(c"/var/contract/m/d");
        say!("removed: {}", sys!(SYS_pivot_root, c"/var/contract/m", c"."));
        0
    });
    process::in_child(|| {
        sys!(SYS_fchdir, sys!(SYS_open_tree, AT_FDCWD, c"m", 1).fd());
        say!("in no place: {}", sys!(SYS_pivot_root, c".", c"."));
        0
    });
    say!("bad pointer: {}", sys!(SYS_pivot_root, NOWHERE, c"m"));
}

fn unmount_refused() {
    mkdir(c"m");
    close(create(c"f", ""));
    symlink(c"/tmp", c"l");
    say!("no mount: {}", umount(c"m", 0));
    say!("a file: {}", umount(c"f", 0));
    say!("missing: {}", umount(c"missing", 0));
    say!("empty: {}", umount(c"", 0));
    say!("bad pointer: {}", sys!(SYS_umount2, NOWHERE, 0));
    say!("unknown flag: {}", umount(c"/tmp", 0x100));
    say!("a link, not followed: {}", umount(c"l", UMOUNT_NOFOLLOW));
    say!("MNT_EXPIRE and MNT_FORCE: {}", umount(c"m", MNT_EXPIRE | MNT_FORCE));
    mount(c"none", c"m", c"tmpfs", 0, c"");
    mkdir(c"m/d");
    say!("within a mount: {}", umount(c"m/d", 0));
}

fn no_flags() {
    mkdir(c"m");
    say!("the old magic number: {}", mount(c"none", c"m", c"tmpfs", 0xc0ed_0000, c""));
    say!("atime options: {}", mount(c"none", c"m", c"tmpfs", MS_REMOUNT | MS_NOATIME, c""));
    close(create(c"m/f", "x"));
    let atime = || stat(c"m/f").map_or((0, 0), |stat| (stat.st_atime, stat.st_atime_nsec));
    let before = atime();
    process::sleep_ms(20);
    contents(c"m/f");
    say!("noatime: {}", atime() == before);
    mount(c"none", c"m", c"tmpfs", MS_REMOUNT | MS_STRICTATIME, c"");
    contents(c"m/f");
    say!("strictatime: {}", atime() != before);
    say!("shared: {}", mount(c"none", c"m", c"", MS_SHARED, c""));
    say!("private: {}", mount(c"none", c"m", c"", MS_PRIVATE, c""));
    say!("both: {}", mount(c"none", c"m", c"", MS_PRIVATE | MS_SHARED, c""));
}

/// A mount that was detached stays for those who are in it, and takes no others.
fn on_what_is_gone() {
    mkdir(c"m");
    mkdir(c"there");
    mount(c"none", c"m", c"tmpfs", 0, c"").need();
    mkdir(c"m/sub");
    process::in_child(|| {
        sys!(SYS_chdir, c"m");
        say!("MNT_DETACH: {}", umount(c"/var/contract/m", MNT_DETACH));
        say!("mount: {}", mount(c"none", c"sub", c"tmpfs", 0, c""));
        say!("bind: {}", mount(c"/var/contract/there", c"sub", c"", MS_BIND, c""));
        say!("bind from: {}", mount(c"sub", c"/var/contract/there", c"", MS_BIND, c""));
        say!("it is there: {}", stat(c"sub").is_ok());
        0
    });
}

fn on_what_was_removed() {
    mkdir(c"m");
    mkdir(c"n");
    mount(c"none", c"n", c"tmpfs", 0, c"").need();
    process::in_child(|| {
        sys!(SYS_chdir, c"m");
        rmdir(c"/var/contract/m");
        say!("mount: {}", mount(c"none", c".", c"tmpfs", 0, c""));
        say!("bind: {}", mount(c"/var/contract/n", c".", c"", MS_BIND, c""));
        say!("move: {}", mount(c"/var/contract/n", c".", c"", MS_MOVE, c""));
        0
    });
    say!("unmount: {}", umount(c"n", 0));
}

/// Whoever goes through the list from its end can unmount all of it.
fn order_of_a_copy() {
    mkdir(c"a");
    mkdir(c"d");
    for place in [c"a", c"a/b", c"a/b/c", c"a/x"] {
        mkdir(place);
        mount(c"none", place, c"tmpfs", 0, c"").need();
    }
    say!("bind: {}", mount(c"a", c"d", c"", MS_BIND | MS_REC, c""));
    let list = contents(c"/proc/self/mounts");
    let places = || list.split_whitespace().filter_map(|word| word.strip_prefix("/var/contract/"));
    say!("{:?}", places().collect::<Vec<_>>());
    for place in [c"d/x", c"d/b/c", c"d/b", c"d", c"a/x", c"a/b/c", c"a/b", c"a"] {
        umount(place, 0).need();
    }
}

/// A disk cannot be named by its node where nodes do not count.
fn devices_that_do_not_count() {
    mkdir(c"m");
    mkdir(c"on");
    mount(c"none", c"m", c"tmpfs", MS_NODEV, c"").ok();
    sys!(SYS_mknodat, AT_FDCWD, c"m/disk", S_IFBLK | 0o666, 0x3ff00);
    sys!(SYS_mknodat, AT_FDCWD, c"disk", S_IFBLK | 0o666, 0x3ff00);
    sys!(SYS_mknodat, AT_FDCWD, c"m/char", S_IFCHR | 0o666, 0x103);
    close(create(c"m/file", ""));
    for source in [c"m/disk", c"disk", c"m/char", c"m/file"] {
        say!("{}: {}", source.to_string_lossy(), mount(source, c"on", c"ext2", 0, c""));
    }
    say!("no disk is wanted: {}", mount(c"m/disk", c"on", c"tmpfs", 0, c""));
    umount(c"on", 0).ok();
    umount(c"m", 0).ok();
}

/// A file that is made and then cannot be opened has no writer.
fn who_was_refused_writes_nothing() {
    mkdir(c"m");
    mount(c"none", c"m", c"tmpfs", 0, c"");
    say!("made, not opened: {}", open(c"m/f", O_CREAT | O_WRONLY | O_DIRECT));
    say!("it is there: {}", stat(c"m/f").is_ok());
    say!("again: {}", open(c"m/f", O_CREAT | O_WRONLY | O_DIRECT));
    say!("made by nobody else: {}", open(c"m/f", O_CREAT | O_EXCL | O_WRONLY));
    say!("read-only: {}", mount(c"none", c"m", c"tmpfs", MS_REMOUNT | MS_RDONLY, c""));
    say!("unmount: {}", umount(c"m", 0));
}

fn places_in_a_directory_of_memory() {
    mkdir(c"m");
    mount(c"none", c"m", c"tmpfs", 0, c"");
    close(create(c"m/f", "x"));
    let dir = open(c"m", O_RDONLY).fd();
    say!("the end: {}", sys!(SYS_lseek, dir, 0, SEEK_END));
    say!("data: {} hole: {}", sys!(SYS_lseek, dir, 0, SEEK_DATA), sys!(SYS_lseek, dir, 0, SEEK_HOLE));
    say!("before the first: {}", sys!(SYS_lseek, dir, -1, SEEK_SET));
    say!("the first, and so far: {} {}", sys!(SYS_lseek, dir, 0, SEEK_SET), sys!(SYS_lseek, dir, 0, SEEK_CUR));
    close(dir);
    say!("unmount: {}", umount(c"m", 0));
}
