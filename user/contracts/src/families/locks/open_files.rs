//! Locks of open files (F_OFD_SETLK), leases, and owners.

use libc::*;

use super::{found, lock_of, open_file_set, set};
use crate::file::{close, create, open, pipe};
use crate::sys::{NOWHERE, sys};
use crate::{process, say};

const F_SETSIG: i32 = 10;

const F_GETSIG: i32 = 11;

const F_SETOWN_EX: i32 = 15;

const F_GETOWN_EX: i32 = 16;

pub(super) fn open_file_locks() {
    let fd = create(c"f", "");
    let other = open(c"f", O_RDWR).fd();
    let twin = sys!(SYS_dup, fd).fd();
    say!("lock: {}", open_file_set(fd, F_WRLCK, 0, 10));
    say!("again by the dup: {}", open_file_set(twin, F_WRLCK, 0, 10));
    say!("by another opening: {}", open_file_set(other, F_WRLCK, 5, 10));
    say!("what is in the way: {}", found(other, F_OFD_GETLK, F_RDLCK, 5, 10, 0));
    say!("as F_GETLK says: {}", found(fd, F_GETLK, F_RDLCK, 5, 10, 0));
    say!("to itself: {}", found(twin, F_OFD_GETLK, F_RDLCK, 5, 10, 0));
    say!("a process's lock conflicts: {}", set(fd, F_WRLCK, 0, 10));
    process::in_child(|| {
        say!("a child inherits: {}", open_file_set(fd, F_WRLCK, 0, 20));
        close(fd);
        close(twin);
        0
    });
    say!("a child's close does not matter: {}", open_file_set(other, F_RDLCK, 19, 1));
    close(open(c"f", O_RDONLY).fd());
    say!("nor another opening's: {}", open_file_set(other, F_RDLCK, 19, 1));
    close(fd);
    say!("one of two descriptors closed: {}", open_file_set(other, F_RDLCK, 19, 1));
    close(twin);
    say!("both closed: {}", open_file_set(other, F_RDLCK, 19, 1));
    let third = open(c"f", O_RDWR).fd();
    say!("readers share: {}", open_file_set(third, F_RDLCK, 0, 0));
    say!("but do not write: {}", open_file_set(third, F_WRLCK, 0, 0));
    let child = process::child(|| {
        let fd = open(c"f", O_RDWR).fd();
        say!("waited: {}", sys!(SYS_fcntl, fd, F_OFD_SETLKW, &lock_of(F_WRLCK, 0, 0)));
        0
    });
    process::until_asleep(child);
    open_file_set(other, F_UNLCK, 0, 0);
    open_file_set(third, F_UNLCK, 0, 0);
    say!("the child: {}", process::wait(child));
}

pub(super) fn open_file_refused() {
    let fd = create(c"f", "");
    let mut lock = lock_of(F_WRLCK, 0, 1);
    lock.l_pid = 1;
    say!(
        "l_pid must be 0: {} {} {}",
        sys!(SYS_fcntl, fd, F_OFD_SETLK, &lock),
        { sys!(SYS_fcntl, fd, F_OFD_SETLKW, &lock) },
        sys!(SYS_fcntl, fd, F_OFD_GETLK, &mut lock)
    );
    let reader = open(c"f", O_RDONLY).fd();
    say!("a reader: {} {}", open_file_set(reader, F_RDLCK, 0, 1), open_file_set(reader, F_WRLCK, 0, 1));
    say!("unknown type: {}", open_file_set(fd, 9, 0, 1));
    say!("bad pointer: {}", sys!(SYS_fcntl, fd, F_OFD_SETLK, NOWHERE));
    say!("closed: {}", open_file_set(60, F_RDLCK, 0, 1));
    say!("a pipe: {}", open_file_set(pipe()[1], F_WRLCK, 0, 1));
    say!("range: {}", open_file_set(fd, F_WRLCK, 5, -6));
}

pub(super) fn leases() {
    let fd = create(c"f", "");
    let lease = |fd: i32, kind: i32| sys!(SYS_fcntl, fd, F_SETLEASE, kind);
    let reader = open(c"f", O_RDONLY).fd();
    say!("none: {}", sys!(SYS_fcntl, reader, F_GETLEASE, 0));
    say!("to read, with a writer: {}", lease(reader, F_RDLCK));
    say!("to write, with others: {}", lease(fd, F_WRLCK));
    say!("to read, by a writer: {}", lease(fd, F_RDLCK));
    say!("unknown: {}", lease(reader, 9));
    say!("give up none: {}", lease(reader, F_UNLCK));
    say!("a pipe: {}", lease(pipe()[0], F_RDLCK));
    say!("a directory: {}", lease(open(c".", O_RDONLY).fd(), F_RDLCK));
    say!("closed: {}", lease(60, F_RDLCK));
    process::as_plain_user(|| {
        let other = open(c"f", O_RDONLY).fd();
        say!("another's: {}", lease(other, F_RDLCK));
    });
}

pub(super) fn signals_owner() {
    let fd = create(c"f", "");
    let [reader, _] = pipe();
    let own = sys!(SYS_getpid).0;
    say!("at first: {} {}", sys!(SYS_fcntl, reader, F_GETOWN, 0), sys!(SYS_fcntl, reader, F_GETSIG, 0));
    say!("set: {}", sys!(SYS_fcntl, reader, F_SETOWN, own));
    say!("it: {}", sys!(SYS_fcntl, reader, F_GETOWN, 0).0 == own);
    say!("a group: {} {}", sys!(SYS_fcntl, reader, F_SETOWN, -own), sys!(SYS_fcntl, reader, F_GETOWN, 0).0 == -own);
    say!("nobody: {} {}", sys!(SYS_fcntl, reader, F_SETOWN, 0), sys!(SYS_fcntl, reader, F_GETOWN, 0));
    say!("one who is not there: {}", sys!(SYS_fcntl, reader, F_SETOWN, 4_000_000));
    say!("the smallest number: {}", sys!(SYS_fcntl, reader, F_SETOWN, i32::MIN));
    say!("signal: {} {}", sys!(SYS_fcntl, reader, F_SETSIG, SIGUSR1), sys!(SYS_fcntl, reader, F_GETSIG, 0));
    say!("no such signal: {} {}", sys!(SYS_fcntl, reader, F_SETSIG, 65), sys!(SYS_fcntl, reader, F_SETSIG, -1));
    let owner = [0i32, own as i32];
    say!("F_SETOWN_EX: {}", sys!(SYS_fcntl, fd, F_SETOWN_EX, &owner));
    let mut owner = [9i32; 2];
    say!("F_GETOWN_EX: {} kind {}", sys!(SYS_fcntl, fd, F_GETOWN_EX, &mut owner), owner[0]);
    say!("unknown kind: {}", sys!(SYS_fcntl, fd, F_SETOWN_EX, &[7i32, 1]));
    say!("bad pointer: {}", sys!(SYS_fcntl, fd, F_SETOWN_EX, NOWHERE));
    say!("O_PATH: {}", sys!(SYS_fcntl, open(c"f", O_PATH).fd(), F_SETOWN, 0));
}
