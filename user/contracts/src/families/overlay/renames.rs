//! overlayfs: rename(2).

use libc::*;

use super::{file, fill, mount, places, shape, simple, simple_on_tmpfs, umount, xattr};
use crate::file::{contents, mkdir, rename, rmdir, stat, unlink};
use crate::sys::sys;
use crate::{say, tests};

const NOREPLACE: u32 = 1;
const EXCHANGE: u32 = 2;
const WHITEOUT: u32 = 4;

tests! {
    lower_file, new_file, over_others, over_whiteout, directories_refused, new_directory, directory_over_whiteout,
    directory_over_empty, no_replace, exchange, exchange_of_directories, whiteout_refused, back_again, symlinks, on_tmpfs,
    same_file, after_a_mount,
}

fn lower_file() {
    simple();
    say!("{} {} | {}", rename(c"m/f", c"m/g", 0), shape("m"), shape("u"));
    say!("into a directory: {} {} | {}", rename(c"m/g", c"m/d/g", 0), shape("m"), shape("u"));
    say!("out of it: {} {} | {}", rename(c"m/d/a", c"m/a", 0), shape("m"), shape("u"));
    say!("work: {:?}", shape("w"));
}

fn new_file() {
    simple();
    file(c"m/n", "new");
    say!("{} {}", rename(c"m/n", c"m/o", 0), shape("u"));
    say!("{} {}", rename(c"m/o", c"m/d/o", 0), shape("u"));
}

fn over_others() {
    simple();
    file(c"m/n", "new");
    say!("new over lower: {} {} | {}", rename(c"m/n", c"m/f", 0), shape("m"), shape("u"));
    say!("lower over new: {} {} | {}", rename(c"m/d/a", c"m/f", 0), shape("m"), shape("u"));
    say!("lower over lower: {} {} | {}", rename(c"m/s", c"m/d/b", 0), shape("m"), shape("u"));
    say!("over a directory: {} {}", rename(c"m/f", c"m/d", 0), rename(c"m/d", c"m/f", 0));
}

fn over_whiteout() {
    simple();
    unlink(c"m/f");
    say!("lower: {} {} | {}", rename(c"m/d/a", c"m/f", 0), shape("m"), shape("u"));
    unlink(c"m/d/b");
    file(c"m/n", "new");
    say!("new: {} {} | {}", rename(c"m/n", c"m/d/b", 0), shape("m"), shape("u"));
}

fn directories_refused() {
    simple();
    say!("lower: {}", rename(c"m/d", c"m/e", 0));
    file(c"m/d/n", "");
    say!("merged: {}", rename(c"m/d", c"m/e", 0));
    mkdir(c"m/n");
    say!("into itself: {} {}", rename(c"m/n", c"m/n/x", 0), rename(c"m/d", c"m/d/x", 0));
    say!("over what is not empty: {}", rename(c"m/n", c"m/d", 0));
    say!("exchange: {}", rename(c"m/n", c"m/d", EXCHANGE));
    say!("{}", shape("m"));
}

fn new_directory() {
    simple();
    mkdir(c"m/n");
    file(c"m/n/x", "x");
    say!("{} {} | {}", rename(c"m/n", c"m/o", 0), shape("m"), shape("u"));
    say!("into a merged one: {} {} | {}", rename(c"m/o", c"m/d/o", 0), shape("m"), shape("u"));
    say!("numbers agree: {}", super::numbers_agree("m/d"));
    umount(c"m").need();
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    say!("{}", shape("m"));
}

fn directory_over_whiteout() {
    simple();
    unlink(c"m/f");
    mkdir(c"m/n");
    file(c"m/n/x", "x");
    say!("{} {} | {} | {}", rename(c"m/n", c"m/f", 0), shape("m"), shape("u"), shape("w"));
    unlink(c"m/d/a");
    unlink(c"m/d/b");
    rmdir(c"m/d");
    say!("{} {} | {}", rename(c"m/f", c"m/d", 0), shape("m"), shape("u"));
}

fn directory_over_empty() {
    simple();
    mkdir(c"m/n");
    file(c"m/n/x", "x");
    unlink(c"m/d/a");
    unlink(c"m/d/b");
    say!("over a merged one: {} {} | {} | {}", rename(c"m/n", c"m/d", 0), shape("m"), shape("u"), shape("w"));
    mkdir(c"m/e");
    say!("over a new one: {} {} | {}", rename(c"m/d", c"m/e", 0), shape("m"), shape("u"));
}

fn no_replace() {
    simple();
    say!("there: {} {}", rename(c"m/f", c"m/s", NOREPLACE), rename(c"m/f", c"m/f", NOREPLACE));
    unlink(c"m/s");
    say!("not any more: {} {} | {}", rename(c"m/f", c"m/s", NOREPLACE), shape("m"), shape("u"));
    say!("free: {} {}", rename(c"m/s", c"m/new", NOREPLACE), shape("u"));
}

fn exchange() {
    simple();
    say!("lower: {} {} | {}", rename(c"m/f", c"m/d/a", EXCHANGE), shape("m"), shape("u"));
    file(c"m/n", "new");
    say!("new: {} {} | {}", rename(c"m/n", c"m/s", EXCHANGE), shape("m"), shape("u"));
    say!("missing: {}", rename(c"m/n", c"m/x", EXCHANGE));
    say!("contents: {} {}", contents(c"m/s"), contents(c"m/d/a"));
}

fn exchange_of_directories() {
    simple();
    mkdir(c"m/n");
    file(c"m/n/x", "x");
    mkdir(c"m/d/o");
    file(c"m/d/o/y", "y");
    say!("new: {} {} | {}", rename(c"m/n", c"m/d/o", EXCHANGE), shape("m"), shape("u"));
    say!("with a file: {} {} | {}", rename(c"m/n", c"m/f", EXCHANGE), shape("m"), shape("u"));
}

fn whiteout_refused() {
    simple();
    file(c"m/n", "");
    say!("RENAME_WHITEOUT: {} {}", rename(c"m/f", c"m/x", WHITEOUT), rename(c"m/n", c"m/x", WHITEOUT));
    say!("unknown: {}", rename(c"m/f", c"m/x", 8));
    say!("{}", shape("m"));
}

fn back_again() {
    simple();
    rename(c"m/f", c"m/g", 0);
    say!("{} {} | {}", rename(c"m/g", c"m/f", 0), shape("m"), shape("u"));
    say!("number: {}", stat(c"m/f").map(|s| s.st_ino).ok() == stat(c"l/f").map(|s| s.st_ino).ok());
    say!("unlink: {} {}", unlink(c"m/f"), shape("u"));
}

fn symlinks() {
    simple();
    say!("{} {} | {}", rename(c"m/s", c"m/t", 0), shape("m"), shape("u"));
    say!("followed: {}", contents(c"m/t"));
}

fn on_tmpfs() {
    simple_on_tmpfs();
    say!("{} {}", rename(c"m/f", c"m/d/f", 0), rename(c"m/d/a", c"m/d/b", 0));
    say!("{} {}", rename(c"m/d", c"m/e", 0), rename(c"m/d/b", c"m/s", EXCHANGE));
    say!("{} | {}", shape("m"), shape("u"));
    say!("{:?}", shape("w"));
}

fn same_file() {
    simple();
    say!("itself: {} {:?}", rename(c"m/f", c"m/f", 0), shape("u"));
    crate::file::link(c"m/f", c"m/g");
    say!("another name: {} {}", rename(c"m/f", c"m/g", 0), shape("u"));
}

fn after_a_mount() {
    places();
    fill();
    mkdir(c"u/d");
    sys!(SYS_setxattr, c"u/d", c"trusted.overlay.redirect", "/x", 2, 0).need();
    file(c"u/x", "");
    mkdir(c"l/x");
    file(c"l/x/y", "");
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    say!("upper hides: {} {}", stat(c"m/x").map_or(0, |stat| stat.st_mode & S_IFMT) == S_IFREG, contents(c"m/x/y"));
    say!("seen: {:?}", xattr("m", c"trusted.overlay.redirect"));
    sys!(SYS_setxattr, c"u/x", c"trusted.overlay.metacopy", "", 0, 0).need();
}
