//! overlayfs: where copying meets limits, rights, and what is open.

use libc::*;

use super::{file, fill, mount, mount_at, names, places, shape, simple, umount, xattr};
use crate::file::{
    close, contents, create, described, fstat, link, mkdir, open, read_at, rename, rmdir, stat, unlink, write,
};
use crate::memory;
use crate::process;
use crate::sys::sys;
use crate::{say, tests};

tests! {
    no_space_for_a_copy, no_space_for_names, written_by_others, set_id_bits, unlinked_lower, watched_until_removed, watched_directory,
    moved_while_open, removed_current_directory, user_attributes, one_lower_of_two, through_read_only_bind, upper_from_before,
    exchange_with_whiteout_below, directory_replaced_by_file, create_below_removed, direct_changes_above, mapped_program,
    seek_of_holes, path_of_descriptors, sticky, many_names_moved, detached,
}

fn small_upper(size: &str) {
    places();
    let options = crate::file::path(format!("size={size}"));
    sys!(SYS_mount, c"none", c"k", c"tmpfs", 0, options.as_c_str()).need();
    mkdir(c"k/u");
    mkdir(c"k/w");
}

fn no_space_for_a_copy() {
    small_upper("256k");
    let _ = std::fs::write("l/big", vec![b'x'; 1 << 20]);
    file(c"l/small", "fits");
    mount("lowerdir=l,upperdir=k/u,workdir=k/w").need();
    say!("open: {}", open(c"m/big", O_WRONLY));
    say!(
        "chmod: {} truncate: {}",
        sys!(SYS_fchmodat, AT_FDCWD, c"m/big", 0o600),
        sys!(SYS_truncate, c"m/big", 700_000)
    );
    say!("upper: {:?} work: {:?}", shape("k/u"), shape("k/w"));
    say!("reading goes on: {:?}", stat(c"m/big").map(|stat| stat.st_size).ok());
    say!("another: {}", open(c"m/small", O_WRONLY).ok_or_error());
}

fn no_space_for_names() {
    places();
    sys!(SYS_mount, c"none", c"k", c"tmpfs", 0, c"nr_inodes=8").need();
    mkdir(c"k/u");
    mkdir(c"k/w");
    fill();
    mount("lowerdir=l,upperdir=k/u,workdir=k/w").need();
    let mut made = 0;
    while open(&crate::file::path(format!("m/n{made}")), O_CREAT | O_WRONLY).ok() {
        made += 1;
    }
    say!("room for some: {} {}", made > 0, open(c"m/more", O_CREAT | O_WRONLY));
    say!("copy: {} unlink: {}", open(c"m/f", O_WRONLY), unlink(c"m/f"));
    say!("it is there: {}", contents(c"m/f"));
    say!("work: {:?}", shape("k/w"));
}

fn written_by_others() {
    simple();
    sys!(SYS_fchmodat, AT_FDCWD, c"l/f", 0o666);
    sys!(SYS_fchmodat, AT_FDCWD, c"l/d", 0o777);
    process::as_plain_user(|| {
        let fd = open(c"m/f", O_WRONLY).fd();
        say!("write: {}", write(fd, "BY"));
        say!("chmod: {}", sys!(SYS_fchmod, fd, 0o600));
        let fd = open(c"m/d/new", O_CREAT | O_WRONLY).fd();
        say!("new: {} unlink: {}", write(fd, "x"), unlink(c"m/d/a"));
        say!("times: {}", sys!(SYS_utimensat, AT_FDCWD, c"m/f", 0, 0));
    });
    say!("owner stays: {}", described(stat(c"u/f")));
    say!("{}", shape("u"));
    say!("the directory's: {}", stat(c"u/d").is_ok_and(|stat| stat.st_uid == 0 && stat.st_mode & 0o777 == 0o777));
}

fn set_id_bits() {
    simple();
    sys!(SYS_fchmodat, AT_FDCWD, c"l/f", 0o6777);
    close(open(c"m/f", O_WRONLY).fd());
    say!("copied: {:o}", stat(c"u/f").map_or(0, |stat| stat.st_mode));
    process::as_plain_user(|| {
        let fd = open(c"m/f", O_WRONLY).fd();
        write(fd, "x");
    });
    say!("written: {:o}", stat(c"m/f").map_or(0, |stat| stat.st_mode));
    sys!(SYS_fchmodat, AT_FDCWD, c"l/d/a", 0o4755);
    say!("chown: {} {:o}", sys!(SYS_fchownat, AT_FDCWD, c"m/d/a", 5, 5, 0), stat(c"m/d/a").map_or(0, |s| s.st_mode));
}

fn unlinked_lower() {
    simple();
    let fd = open(c"m/f", O_RDONLY).fd();
    unlink(c"m/f");
    say!("{} {}", described(fstat(fd)), read_at(fd, 5, 0));
    let dir = open(c"m/d", O_RDONLY | O_DIRECTORY).fd();
    unlink(c"m/d/a");
    let inside = open(c"m/d/b", O_RDONLY).fd();
    unlink(c"m/d/b");
    rmdir(c"m/d");
    say!("in a removed directory: {}", read_at(inside, 5, 0));
    let mut buffer = [0u8; 256];
    say!("the directory: {}", sys!(SYS_getdents64, dir, &mut buffer[..], 256));
    say!("made again: {} {:?}", mkdir(c"m/d"), shape("m/d"));
}

fn events(fd: i32) -> String {
    let mut buffer = [0u8; 1024];
    let n = sys!(SYS_read, fd, &mut buffer[..], 1024).0.max(0) as usize;
    let mut masks = Vec::new();
    let mut at = 0;
    while at + 16 <= n {
        let word = |from: usize| u32::from_ne_bytes(buffer[at + from..at + from + 4].try_into().unwrap_or_default());
        masks.push(format!("{:x}", word(4)));
        at += 16 + word(12) as usize;
    }
    masks.join(" ")
}

fn watched_until_removed() {
    simple();
    let fd = sys!(SYS_inotify_init1, IN_NONBLOCK).fd();
    sys!(SYS_inotify_add_watch, fd, c"m/f", IN_ALL_EVENTS);
    sys!(SYS_fchmodat, AT_FDCWD, c"m/f", 0o600);
    unlink(c"m/f");
    say!("copied before: {}", events(fd));
    sys!(SYS_inotify_add_watch, fd, c"m/d/a", IN_ALL_EVENTS);
    unlink(c"m/d/a");
    say!("never copied: {}", events(fd));
}

fn watched_directory() {
    simple();
    let fd = sys!(SYS_inotify_init1, IN_NONBLOCK).fd();
    sys!(SYS_inotify_add_watch, fd, c"m/d", IN_CREATE | IN_DELETE | IN_MOVE | IN_MODIFY);
    file(c"m/d/n", "x");
    unlink(c"m/d/a");
    rename(c"m/d/b", c"m/d/c", 0);
    close(open(c"m/d/c", O_WRONLY | O_APPEND).fd());
    say!("{}", events(fd));
}

fn moved_while_open() {
    simple();
    let lower = open(c"m/f", O_RDONLY).fd();
    rename(c"m/f", c"m/d/g", 0);
    let writer = open(c"m/d/g", O_WRONLY).fd();
    write(writer, "moved");
    say!("{} {}", read_at(lower, 10, 0), sys!(SYS_fchmod, lower, 0o640));
    say!("{:o} {}", stat(c"m/d/g").map_or(0, |stat| stat.st_mode), shape("u"));
    mkdir(c"m/n");
    let dir = open(c"m/n", O_RDONLY | O_DIRECTORY).fd();
    rename(c"m/n", c"m/d/n", 0);
    say!("in a moved directory: {}", sys!(SYS_openat, dir, c"x", O_CREAT | O_WRONLY, 0o644).ok_or_error());
    say!("{}", shape("m"));
}

fn removed_current_directory() {
    simple();
    mkdir(c"m/n");
    sys!(SYS_chdir, c"m/n").need();
    say!("rmdir: {} create: {}", rmdir(c"../n"), open(c"x", O_CREAT | O_WRONLY));
    say!("up: {}", names(".."));
}

fn user_attributes() {
    places();
    fill();
    mount("lowerdir=l,upperdir=u,workdir=w,userxattr").need();
    unlink(c"m/d/a");
    unlink(c"m/d/b");
    rmdir(c"m/d");
    mkdir(c"m/d");
    say!("{:?} {:?}", xattr("u/d", c"user.overlay.opaque"), xattr("u/d", c"trusted.overlay.opaque"));
    say!("hidden: {:?}", xattr("m/d", c"user.overlay.opaque"));
    say!("the others are not: {}", sys!(SYS_setxattr, c"m/f", c"trusted.overlay.x", "1", 1, 0));
    say!("{}", shape("m"));
}

fn one_lower_of_two() {
    places();
    fill();
    for name in [c"u2", c"w2", c"m2"] {
        mkdir(name);
    }
    mount("lowerdir=l:k,upperdir=u,workdir=w").need();
    say!("{}", mount_at(c"m2", "lowerdir=l:k,upperdir=u2,workdir=w2", 0));
    file(c"m/f", "one");
    unlink(c"m2/f");
    say!("{} {} {}", contents(c"m/f"), contents(c"m2/f"), contents(c"l/f"));
    say!("link between: {} rename: {}", link(c"m/f", c"m2/x"), rename(c"m/f", c"m2/x", 0));
}

fn through_read_only_bind() {
    simple();
    sys!(SYS_mount, c"m", c"k", c"", MS_BIND, 0).need();
    sys!(SYS_mount, c"none", c"k", c"", MS_REMOUNT | MS_BIND | MS_RDONLY, 0).need();
    say!(
        "write: {} chmod: {} mkdir: {}",
        open(c"k/f", O_WRONLY),
        sys!(SYS_fchmodat, AT_FDCWD, c"k/f", 0),
        mkdir(c"k/x")
    );
    say!("nothing was copied: {:?}", shape("u"));
}

fn upper_from_before() {
    places();
    fill();
    mkdir(c"u/d");
    file(c"u/d/only", "upper");
    sys!(SYS_setxattr, c"u/d", c"trusted.overlay.opaque", "y", 1, 0).need();
    sys!(SYS_mknodat, AT_FDCWD, c"u/f", S_IFCHR, 0);
    sys!(SYS_mknodat, AT_FDCWD, c"u/nothing", S_IFCHR, 0);
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    say!("{}", shape("m"));
    say!("over a whiteout of nothing: {} {}", mkdir(c"m/nothing"), shape("u"));
    say!("rmdir: {} {}", rmdir(c"m/nothing"), shape("u"));
}

fn exchange_with_whiteout_below() {
    simple();
    unlink(c"m/f");
    file(c"m/f", "again");
    file(c"m/n", "new");
    say!("{} {} | {}", rename(c"m/f", c"m/n", 2), shape("m"), shape("u"));
    say!("unlink: {} {} {}", unlink(c"m/f"), unlink(c"m/n"), shape("u"));
}

fn directory_replaced_by_file() {
    simple();
    unlink(c"m/d/a");
    unlink(c"m/d/b");
    rmdir(c"m/d");
    say!("file: {} {}", open(c"m/d", O_CREAT | O_WRONLY).ok_or_error(), shape("u"));
    unlink(c"m/d");
    mkdir(c"m/d");
    say!("and back: {}", shape("m"));
    umount(c"m");
    mount("lowerdir=l,upperdir=u,workdir=w");
    say!("mounted again: {}", shape("m"));
}

fn create_below_removed() {
    simple();
    let fd = open(c"m/d", O_RDONLY | O_DIRECTORY).fd();
    unlink(c"m/d/a");
    unlink(c"m/d/b");
    rmdir(c"m/d");
    mkdir(c"m/d");
    say!("mkdirat: {}", sys!(SYS_mkdirat, fd, c"x", 0o755));
    say!("look-up: {}", sys!(SYS_openat, fd, c"a", O_RDONLY, 0));
    say!("fchmod: {}", sys!(SYS_fchmod, fd, 0o700));
    say!("{} {:o}", shape("u"), stat(c"m/d").map_or(0, |stat| stat.st_mode));
}

fn direct_changes_above() {
    simple();
    file(c"m/seen", "1");
    let fd = open(c"u/seen", O_WRONLY).fd();
    write(fd, "2");
    say!("content written above: {}", contents(c"m/seen"));
    say!("the other way: {}", {
        let fd = open(c"m/seen", O_WRONLY | O_APPEND).fd();
        write(fd, "3");
        contents(c"u/seen")
    });
    say!("a mode: {} {:o}", sys!(SYS_fchmodat, AT_FDCWD, c"u/seen", 0o640), stat(c"m/seen").map_or(0, |s| s.st_mode));
}

fn mapped_program() {
    places();
    file(c"l/data", "0123456789");
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    let fd = open(c"m/data", O_RDWR).fd();
    let private = memory::map(4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0).need() as *mut u8;
    memory::poke(private, b'p');
    let shared = memory::map(4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0).need() as *mut u8;
    memory::poke(shared.wrapping_add(1), b's');
    say!("{} {}", contents(c"m/data"), memory::peek(private) as char);
    say!("msync: {} {}", sys!(SYS_msync, shared, 4096, MS_SYNC), contents(c"u/data"));
    sys!(SYS_ftruncate, fd, 0);
    say!("behind the end: {}", memory::try_peek(shared));
}

fn seek_of_holes() {
    places();
    let fd = open(c"l/f", O_CREAT | O_RDWR).fd();
    sys!(SYS_pwrite64, fd, "data", 4, 1 << 20);
    close(fd);
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    let fd = open(c"m/f", O_RDONLY).fd();
    let seek = |whence| sys!(SYS_lseek, fd, 0, whence);
    say!("lower: {} {}", seek(SEEK_DATA), seek(SEEK_HOLE));
    sys!(SYS_truncate, c"m/f", 8 << 20);
    say!("copied: {} {} {}", seek(SEEK_DATA), seek(SEEK_HOLE), seek(SEEK_END));
}

fn path_of_descriptors() {
    simple();
    let path = |fd: i32| {
        std::fs::read_link(format!("/proc/self/fd/{fd}")).map(|path| path.display().to_string()).unwrap_or_default()
    };
    let fd = open(c"m/d/a", O_RDONLY).fd();
    say!("{}", path(fd));
    rename(c"m/d/a", c"m/x", 0);
    say!("{}", path(fd));
    unlink(c"m/x");
    say!("{}", path(fd));
    say!("through it: {}", contents(&crate::file::path(format!("/proc/self/fd/{fd}"))));
}

fn sticky() {
    simple();
    sys!(SYS_fchmodat, AT_FDCWD, c"m", 0o1777);
    process::as_plain_user(|| {
        say!("unlink: {} rename: {}", unlink(c"m/f"), rename(c"m/f", c"m/g", 0));
        close(create(c"m/mine", ""));
        say!("mine: {}", unlink(c"m/mine"));
    });
    say!("{}", shape("u"));
}

fn many_names_moved() {
    places();
    for index in 0..100 {
        file(&crate::file::path(format!("l/a{index}")), "");
    }
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    mkdir(c"m/to");
    for index in 0..100 {
        rename(&crate::file::path(format!("m/a{index}")), &crate::file::path(format!("m/to/b{}", 99 - index)), 0);
    }
    let count = |of: &str| std::fs::read_dir(of).map_or(0, |entries| entries.count());
    say!("{} {} {}", count("m"), count("m/to"), count("u"));
    say!("{:?} {}", std::fs::remove_dir_all("m/to").is_ok(), count("m"));
}

fn detached() {
    simple();
    let fd = open(c"m/f", O_RDWR).fd();
    let lower = open(c"m/d/a", O_RDONLY).fd();
    say!("MNT_DETACH: {}", sys!(SYS_umount2, c"m", MNT_DETACH));
    say!("write: {} read: {}", write(fd, "still"), read_at(lower, 9, 0));
    say!("fchmod of a lower file: {}", sys!(SYS_fchmod, lower, 0o600));
    say!("{} {:?}", shape("u"), shape("m"));
}
