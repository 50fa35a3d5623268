//! inotify: which events come of making, removing and changing names.

use libc::*;

use super::inotify::{events, instance, watch};
use super::inotify_events::both;
use crate::file::{close, create, link, mkdir, open, path, rename, rmdir, symlink, unlink, write};
use crate::process;
use crate::sys::sys;
use crate::{say, tests};

tests! {
    making_names, linking, unlinking, unlinking_an_open_file, hard_links, removing_directories, directory_in_use,
    renaming, renaming_over, renaming_between, renaming_directories, exchanging, unlinked_files, nameless_files,
    own_directory,
}

fn making_names() {
    let (directory, _) = both();
    mkdir(c"d/directory");
    symlink(c"f", c"d/link");
    sys!(SYS_mknodat, AT_FDCWD, c"d/fifo", S_IFIFO | 0o600, 0);
    sys!(SYS_mknodat, AT_FDCWD, c"d/node", S_IFREG | 0o600, 0);
    say!("{}", events(directory));
    say!("there already: {} {}", mkdir(c"d/directory"), events(directory));
    let socket = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
    let mut address = *b"\x01\x00d/socket\0";
    address[..2].copy_from_slice(&(AF_UNIX as u16).to_ne_bytes());
    say!("a socket: {} {}", sys!(SYS_bind, socket, &address, 11), events(directory));
}

fn linking() {
    let (directory, file) = both();
    link(c"d/f", c"d/g");
    say!("linked: {} {}", events(directory), events(file));
    close(open(c"d/g", O_RDONLY).fd());
    say!("opened by the other name: {} {}", events(directory), events(file));
    mkdir(c"e");
    link(c"d/f", c"e/h");
    events(file);
    close(open(c"e/h", O_RDONLY).fd());
    say!("from elsewhere: {} {}", events(directory), events(file));
}

fn unlinking() {
    let (directory, file) = both();
    unlink(c"d/f");
    say!("{} {}", events(directory), events(file));
    say!("the watch is gone: {}", sys!(SYS_inotify_rm_watch, file, 1));
    let common = instance();
    close(create(c"d/f", ""));
    watch(common, c"d", IN_DELETE | IN_DELETE_SELF);
    watch(common, c"d/f", IN_DELETE | IN_DELETE_SELF);
    unlink(c"d/f");
    say!("in one queue: {}", events(common));
}

fn unlinking_an_open_file() {
    let (directory, file) = both();
    let fd = open(c"d/f", O_RDWR).fd();
    events(directory);
    events(file);
    unlink(c"d/f");
    say!("unlinked: {} {}", events(directory), events(file));
    write(fd, "x");
    say!("written: {} {}", events(directory), events(file));
    close(fd);
    say!("closed: {} {}", events(directory), events(file));
}

fn hard_links() {
    let (directory, file) = both();
    link(c"d/f", c"d/g");
    events(directory);
    events(file);
    unlink(c"d/f");
    say!("one of two: {} {}", events(directory), events(file));
    unlink(c"d/g");
    say!("the last: {} {}", events(directory), events(file));
}

fn removing_directories() {
    mkdir(c"d");
    mkdir(c"d/sub");
    let (outer, inner) = (instance(), instance());
    watch(outer, c"d", IN_ALL_EVENTS);
    watch(inner, c"d/sub", IN_ALL_EVENTS);
    rmdir(c"d/sub");
    say!("{} {}", events(outer), events(inner));
    close(create(c"d/f", ""));
    events(outer);
    say!("not empty: {} {}", rmdir(c"d"), events(outer));
}

fn directory_in_use() {
    mkdir(c"d");
    let fd = instance();
    watch(fd, c"d", IN_ALL_EVENTS);
    process::in_child(|| {
        sys!(SYS_chdir, c"d");
        rmdir(c"../d");
        say!("somebody is in it: {}", events(fd));
        0
    });
    for _ in 0..100 {
        let text = events(fd);
        if text != "EAGAIN" {
            say!("nobody any more: {text}");
            return;
        }
        process::sleep_ms(5);
    }
}

fn renaming() {
    let (directory, file) = both();
    rename(c"d/f", c"d/g", 0);
    say!("{} {}", events(directory), events(file));
    close(open(c"d/g", O_RDONLY).fd());
    say!("opened: {} {}", events(directory), events(file));
    say!("to itself: {} {}", rename(c"d/g", c"d/g", 0), events(directory));
    link(c"d/g", c"d/h");
    events(directory);
    events(file);
    say!("to another name of the same: {} {} {}", rename(c"d/g", c"d/h", 0), events(directory), events(file));
    rename(c"d/g", c"d/i", 0);
    rename(c"d/i", c"d/j", 0);
    say!("twice: {}", events(directory));
}

fn renaming_over() {
    let (directory, file) = both();
    close(create(c"d/g", ""));
    let other = instance();
    watch(other, c"d/g", IN_ALL_EVENTS);
    events(directory);
    rename(c"d/f", c"d/g", 0);
    say!("{} {} {}", events(directory), events(file), events(other));
    let fd = open(c"d/g", O_RDONLY).fd();
    close(create(c"d/k", ""));
    events(directory);
    events(file);
    rename(c"d/k", c"d/g", 0);
    say!("over an open file: {} {}", events(directory), events(file));
    close(fd);
    say!("closed: {}", events(file));
}

fn renaming_between() {
    let (directory, file) = both();
    mkdir(c"e");
    let other = instance();
    watch(other, c"e", IN_ALL_EVENTS);
    rename(c"d/f", c"e/g", 0);
    say!("{} {} {}", events(directory), events(file), events(other));
    close(open(c"e/g", O_RDONLY).fd());
    say!("opened: {} {} {}", events(directory), events(file), events(other));
    let common = instance();
    watch(common, c"d", IN_MOVE);
    watch(common, c"e", IN_MOVE);
    rename(c"e/g", c"d/f", 0);
    say!("in one queue: {}", events(common));
}

fn renaming_directories() {
    mkdir(c"d");
    mkdir(c"d/sub");
    mkdir(c"e");
    mkdir(c"e/over");
    let fds = [c"d", c"d/sub", c"e", c"e/over"].map(|name| {
        let fd = instance();
        watch(fd, name, IN_ALL_EVENTS);
        fd
    });
    let seen = || fds.map(events).join(" ");
    rename(c"d/sub", c"d/other", 0);
    say!("{}", seen());
    rename(c"d/other", c"e/over", 0);
    say!("over another: {}", seen());
}

fn exchanging() {
    let (directory, file) = both();
    mkdir(c"d/sub");
    events(directory);
    rename(c"d/f", c"d/sub", RENAME_EXCHANGE);
    say!("{} {}", events(directory), events(file));
    say!("refused: {} {}", rename(c"d/f", c"d/sub", RENAME_NOREPLACE), events(directory));
}

fn unlinked_files() {
    mkdir(c"d");
    let file = create(c"d/f", "");
    let (plain, without, own) = (instance(), instance(), instance());
    watch(plain, c"d", IN_ALL_EVENTS);
    watch(without, c"d", IN_ALL_EVENTS | IN_EXCL_UNLINK);
    watch(own, c"d/f", IN_ALL_EVENTS | IN_EXCL_UNLINK);
    write(file, "x");
    unlink(c"d/f");
    say!("unlinked: {} {} {}", events(plain), events(without), events(own));
    write(file, "x");
    sys!(SYS_fchmod, file, 0o600);
    close(file);
    say!("used: {} {} {}", events(plain), events(without), events(own));
}

fn nameless_files() {
    mkdir(c"d");
    let fd = instance();
    watch(fd, c"d", IN_CREATE | IN_DELETE | IN_MOVE);
    let file = open(c"d", O_TMPFILE | O_RDWR).fd();
    say!("made: {}", events(fd));
    let name = path(format!("/proc/self/fd/{file}"));
    say!(
        "named: {} {}",
        sys!(SYS_linkat, AT_FDCWD, name.as_c_str(), AT_FDCWD, c"d/name", AT_SYMLINK_FOLLOW),
        events(fd)
    );
}

fn own_directory() {
    mkdir(c"d");
    sys!(SYS_chdir, c"d").need();
    let fd = instance();
    watch(fd, c".", IN_ALL_EVENTS | IN_ONLYDIR);
    rename(c"../d", c"../e", 0);
    say!("renamed: {}", events(fd));
    close(create(c"f", ""));
    say!("created: {}", events(fd));
}
