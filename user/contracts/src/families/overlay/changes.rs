//! overlayfs: what creating and removing leaves in the upper layer.

use libc::*;

use super::{file, fill, mount, mount_at, places, shape, simple, simple_on_tmpfs, umount, xattr};
use crate::file::{close, contents, described, fstat, link, mkdir, open, rmdir, stat, symlink, unlink, write};
use crate::sys::sys;
use crate::{say, tests};

tests! {
    create, unlink_makes_whiteouts, unlink_of_what_is_new, create_over_whiteout, mkdir_over_whiteout, others_over_whiteouts,
    rmdir_refused, rmdir_of_lower, rmdir_of_emptied, rmdir_of_whiteouts_only, recreate_in_opaque, link_over_whiteout,
    on_tmpfs, read_only, lower_whiteouts, lower_opaque, file_hides_directory, unnamed, open_in_removed, set_group_directory,
    long_names, immutable_lower, sockets, links_of_three,
}

fn create() {
    simple();
    file(c"m/new", "1");
    mkdir(c"m/dir");
    file(c"m/d/new", "2");
    symlink(c"x", c"m/d/link");
    sys!(SYS_mknodat, AT_FDCWD, c"m/fifo", S_IFIFO | 0o600, 0);
    say!("{}", shape("u"));
    say!("{}", shape("m"));
    say!("lower: {}", shape("l"));
    say!("there: {} {}", mkdir(c"m/d"), symlink(c"x", c"m/f"));
}

fn unlink_makes_whiteouts() {
    simple();
    say!("unlink: {} {} {}", unlink(c"m/f"), unlink(c"m/d/a"), unlink(c"m/s"));
    say!("seen: {}", shape("m"));
    say!("upper: {}", shape("u"));
    say!("whiteout: {}", stat(c"u/f").map_or(0, |stat| stat.st_mode & S_IFMT) == S_IFCHR);
    say!("again: {} {}", unlink(c"m/f"), contents(c"m/f"));
    say!("lower: {}", shape("l"));
    umount(c"m").need();
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    say!("mounted again: {}", shape("m"));
}

fn unlink_of_what_is_new() {
    simple();
    file(c"m/new", "");
    file(c"m/f", "copied");
    mkdir(c"m/e");
    say!("{}", shape("u"));
    say!("unlink: {} {} rmdir: {}", unlink(c"m/new"), unlink(c"m/f"), rmdir(c"m/e"));
    say!("{} | {}", shape("u"), shape("w"));
}

fn create_over_whiteout() {
    simple();
    unlink(c"m/f");
    file(c"m/f", "again");
    say!("{} {} | {}", contents(c"m/f"), shape("u"), shape("w"));
    say!("an own number: {}", stat(c"m/f").map(|s| s.st_ino).ok() == stat(c"u/f").map(|s| s.st_ino).ok());
    say!("unlink: {} {}", unlink(c"m/f"), shape("u"));
}

fn mkdir_over_whiteout() {
    simple();
    unlink(c"m/d/a");
    unlink(c"m/d/b");
    say!("rmdir: {} {}", rmdir(c"m/d"), shape("u"));
    say!("mkdir: {} {} | {}", mkdir(c"m/d"), shape("u"), shape("w"));
    say!("it is empty: {:?}", shape("m/d"));
    say!("links: {:?}", stat(c"m/d").map(|stat| stat.st_nlink).ok());
    unlink(c"m/f");
    say!("over a file: {} {}", mkdir(c"m/f"), shape("u"));
    say!("again: {} {}", rmdir(c"m/d"), shape("u"));
}

fn others_over_whiteouts() {
    simple();
    unlink(c"m/f");
    unlink(c"m/s");
    unlink(c"m/d/a");
    say!("symlink: {} {}", symlink(c"d", c"m/f"), shape("m/f"));
    say!("fifo: {}", sys!(SYS_mknodat, AT_FDCWD, c"m/s", S_IFIFO | 0o600, 0));
    say!("{} | {}", shape("u"), shape("w"));
    say!("mode: {:o}", stat(c"m/s").map_or(0, |stat| stat.st_mode));
}

fn rmdir_refused() {
    simple();
    say!("lower entries: {}", rmdir(c"m/d"));
    unlink(c"m/d/a");
    say!("one left: {} {}", rmdir(c"m/d"), shape("u"));
    mkdir(c"m/e");
    file(c"m/e/x", "");
    say!("new: {}", rmdir(c"m/e"));
    say!("a file: {} a directory by unlink: {}", rmdir(c"m/f"), unlink(c"m/d"));
    say!("the root: {}", rmdir(c"m"));
}

fn rmdir_of_lower() {
    places();
    mkdir(c"l/empty");
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    say!("{} {} {}", rmdir(c"m/empty"), shape("u"), stat(c"m/empty").is_ok());
}

fn rmdir_of_emptied() {
    simple();
    file(c"m/d/new", "");
    say!("{} {} {}", unlink(c"m/d/a"), unlink(c"m/d/b"), unlink(c"m/d/new"));
    say!("before: {}", shape("u"));
    say!("rmdir: {} {} | {}", rmdir(c"m/d"), shape("u"), shape("w"));
}

fn rmdir_of_whiteouts_only() {
    places();
    mkdir(c"k/d");
    file(c"k/d/x", "");
    mkdir(c"l/d");
    sys!(SYS_mknodat, AT_FDCWD, c"l/d/x", S_IFCHR, 0);
    mount("lowerdir=l:k,upperdir=u,workdir=w").need();
    say!("seen: {}", shape("m"));
    say!("rmdir: {} {}", rmdir(c"m/d"), shape("u"));
}

fn recreate_in_opaque() {
    simple();
    unlink(c"m/d/a");
    unlink(c"m/d/b");
    rmdir(c"m/d");
    mkdir(c"m/d");
    file(c"m/d/a", "new");
    say!("{}", shape("m"));
    say!("unlink leaves nothing: {} {}", unlink(c"m/d/a"), shape("u"));
    umount(c"m").need();
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    say!("mounted again: {}", shape("m"));
}

fn link_over_whiteout() {
    simple();
    unlink(c"m/f");
    say!("link: {} {}", link(c"m/d/a", c"m/f"), shape("u"));
    say!("{} {}", described(stat(c"m/f")), shape("w"));
    say!("there: {}", link(c"m/d/a", c"m/f"));
}

fn on_tmpfs() {
    simple_on_tmpfs();
    unlink(c"m/f");
    unlink(c"m/d/a");
    unlink(c"m/d/b");
    rmdir(c"m/d");
    mkdir(c"m/d");
    file(c"m/d/n", "n");
    file(c"m/f", "again");
    say!("{}", shape("u"));
    say!("{}", shape("m"));
    say!("{:?}", shape("w"));
}

fn read_only() {
    places();
    fill();
    file(c"k/g", "other");
    mount("lowerdir=l:k").need();
    say!("{}", shape("m"));
    say!("write: {} create: {}", open(c"m/f", O_WRONLY), open(c"m/new", O_CREAT | O_WRONLY));
    say!("mkdir: {} unlink: {} rmdir: {}", mkdir(c"m/x"), unlink(c"m/f"), rmdir(c"m/d"));
    say!("chmod: {} truncate: {}", sys!(SYS_fchmodat, AT_FDCWD, c"m/f", 0), sys!(SYS_truncate, c"m/f", 0));
    say!("link: {} symlink: {}", link(c"m/f", c"m/n"), symlink(c"f", c"m/n"));
    say!("xattr: {}", sys!(SYS_setxattr, c"m/f", c"user.x", "", 0, 0));
    say!("access: {}", sys!(SYS_faccessat, AT_FDCWD, c"m/f", W_OK));
    say!("remount: {}", mount_at(c"m", "", MS_REMOUNT));
    say!("number and device: {}", stat(c"m/f").map(|s| s.st_ino).ok() == stat(c"l/f").map(|s| s.st_ino).ok());
}

fn lower_whiteouts() {
    places();
    file(c"k/a", "bottom");
    file(c"k/b", "bottom");
    mkdir(c"k/d");
    file(c"k/d/x", "bottom");
    sys!(SYS_mknodat, AT_FDCWD, c"l/a", S_IFCHR, 0);
    file(c"l/b", "middle");
    mkdir(c"l/d");
    file(c"l/d/y", "middle");
    mount("lowerdir=l:k,upperdir=u,workdir=w").need();
    say!("{}", shape("m"));
    say!("unlink: {} {}", unlink(c"m/b"), shape("u"));
    file(c"m/a", "top");
    say!("{} {}", contents(c"m/a"), shape("u"));
    say!("unlink needs none: {} {}", unlink(c"m/a"), shape("u"));
}

fn lower_opaque() {
    places();
    mkdir(c"k/d");
    file(c"k/d/x", "bottom");
    mkdir(c"l/d");
    file(c"l/d/y", "middle");
    sys!(SYS_setxattr, c"l/d", c"trusted.overlay.opaque", "y", 1, 0).need();
    mount("lowerdir=l:k,upperdir=u,workdir=w").need();
    say!("{}", shape("m"));
    say!("seen: {:?}", xattr("m/d", c"trusted.overlay.opaque"));
    close(open(c"m/d/y", O_WRONLY).fd());
    say!("{} {}", shape("u"), shape("m"));
    umount(c"m").need();
    sys!(SYS_setxattr, c"l/d", c"trusted.overlay.opaque", "x", 1, 0).need();
    mount("lowerdir=l:k").need();
    say!("another value: {}", shape("m"));
}

fn file_hides_directory() {
    places();
    mkdir(c"k/n");
    file(c"k/n/x", "");
    file(c"l/n", "file");
    file(c"k/o", "file");
    mkdir(c"l/o");
    mount("lowerdir=l:k,upperdir=u,workdir=w").need();
    say!("{}", shape("m"));
    say!("rmdir: {} unlink: {} {}", rmdir(c"m/o"), unlink(c"m/n"), shape("u"));
}

fn unnamed() {
    simple();
    say!("O_TMPFILE: {}", open(c"m", O_TMPFILE | O_RDWR));
}

fn open_in_removed() {
    simple();
    let fd = open(c"m/d", O_RDONLY | O_DIRECTORY).fd();
    unlink(c"m/d/a");
    unlink(c"m/d/b");
    say!("rmdir: {}", rmdir(c"m/d"));
    say!("create in it: {}", sys!(SYS_openat, fd, c"x", O_CREAT | O_WRONLY, 0o644));
    say!("links: {:?}", fstat(fd).map(|stat| stat.st_nlink).ok());
    let file = open(c"m/f", O_RDWR).fd();
    say!("unlink: {} write: {}", unlink(c"m/f"), write(file, "still"));
    say!("links: {:?}", fstat(file).map(|stat| (stat.st_nlink, stat.st_size)).ok());
}

fn set_group_directory() {
    places();
    mkdir(c"l/d");
    sys!(SYS_fchownat, AT_FDCWD, c"l/d", 0, 77, 0);
    sys!(SYS_fchmodat, AT_FDCWD, c"l/d", 0o2775);
    file(c"l/d/f", "");
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    file(c"m/d/x", "");
    mkdir(c"m/d/y");
    unlink(c"m/d/f");
    mkdir(c"m/d/f");
    say!("{}", described(stat(c"u/d/x")));
    for name in [c"u/d", c"u/d/y", c"u/d/f"] {
        say!("{:?}", stat(name).map(|stat| (format!("{:o}", stat.st_mode), stat.st_gid)).ok());
    }
}

fn long_names() {
    simple();
    let name = crate::file::path(format!("m/{}", "n".repeat(255)));
    file(&name, "long");
    say!("{} {}", contents(&name), unlink(&name));
    let name = crate::file::path(format!("m/{}", "n".repeat(256)));
    say!("longer: {} {}", open(&name, O_CREAT | O_RDWR), stat(&name).err().map_or("".into(), |e| e.to_string()));
}

fn immutable_lower() {
    places();
    sys!(SYS_mount, c"none", c"k", c"tmpfs", 0, 0).need();
    mkdir(c"k/d");
    file(c"k/d/f", "x");
    sys!(SYS_mount, c"none", c"k", c"tmpfs", MS_REMOUNT | MS_RDONLY, 0).need();
    mount("lowerdir=k,upperdir=u,workdir=w").need();
    file(c"m/d/f", "written");
    say!("over a read-only file system: {} {}", contents(c"m/d/f"), shape("u"));
}

fn sockets() {
    simple();
    let listener = std::os::unix::net::UnixListener::bind("m/sock");
    say!("bound: {} {}", listener.is_ok(), shape("u"));
    say!("connected: {}", std::os::unix::net::UnixStream::connect("m/sock").is_ok());
    unlink(c"m/sock");
    say!("gone: {} {:?}", std::os::unix::net::UnixStream::connect("m/sock").is_ok(), shape("u"));
}

fn links_of_three() {
    simple();
    file(c"m/a", "one");
    link(c"m/a", c"m/b");
    link(c"m/a", c"m/d/c");
    say!("{} {}", described(stat(c"m/d/c")), unlink(c"m/a"));
    file(c"m/b", "two");
    say!("{} {} {}", contents(c"m/d/c"), unlink(c"m/b"), described(stat(c"m/d/c")));
    umount(c"m").need();
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    say!("{} {}", contents(c"m/d/c"), described(stat(c"m/d/c")));
}
