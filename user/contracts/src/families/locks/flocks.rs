//! flock(2).

use libc::*;

use super::flock_of;
use crate::file::{close, create, open, pipe};
use crate::sys::sys;
use crate::{process, say};

pub(super) fn flock_modes() {
    let fd = create(c"f", "");
    let other = open(c"f", O_RDONLY).fd();
    say!("shared: {}", flock_of(fd, LOCK_SH));
    say!("shared by another: {}", flock_of(other, LOCK_SH | LOCK_NB));
    say!("exclusive by another: {}", flock_of(other, LOCK_EX | LOCK_NB));
    say!("has the other lost its shared one: {}", flock_of(fd, LOCK_EX | LOCK_NB));
    say!("unlock: {}", flock_of(other, LOCK_UN));
    say!("upgrade: {}", flock_of(fd, LOCK_EX | LOCK_NB));
    say!("shared against it: {}", flock_of(other, LOCK_SH | LOCK_NB));
    say!("downgrade: {}", flock_of(fd, LOCK_SH));
    say!("shared: {}", flock_of(other, LOCK_SH | LOCK_NB));
    say!("nothing: {}", flock_of(fd, 0));
    say!("only LOCK_NB: {}", flock_of(fd, LOCK_NB));
    say!("both: {}", flock_of(fd, LOCK_SH | LOCK_EX));
    say!("unknown: {}", flock_of(fd, 64));
    say!("closed: {}", flock_of(60, LOCK_SH));
    say!("unknown, closed: {}", flock_of(60, 64));
    say!("O_PATH: {}", flock_of(open(c"f", O_PATH).fd(), LOCK_SH));
    say!("a directory: {}", flock_of(open(c".", O_RDONLY).fd(), LOCK_EX));
    say!("a pipe: {}", flock_of(pipe()[0], LOCK_EX));
    say!("/dev/null: {}", flock_of(0, LOCK_SH));
    say!("a writer, shared: {}", flock_of(open(c"f", O_WRONLY).fd(), LOCK_SH | LOCK_NB));
    say!("unlock what is not locked: {}", flock_of(open(c"f", O_WRONLY).fd(), LOCK_UN));
}

pub(super) fn flock_sharing() {
    let fd = create(c"f", "");
    let twin = sys!(SYS_dup, fd).fd();
    let other = open(c"f", O_RDWR).fd();
    say!("lock: {}", flock_of(fd, LOCK_EX));
    say!("its dup has it: {}", flock_of(twin, LOCK_EX | LOCK_NB));
    say!("another opening does not: {}", flock_of(other, LOCK_EX | LOCK_NB));
    process::in_child(|| {
        say!("a child has it: {}", flock_of(fd, LOCK_EX | LOCK_NB));
        close(fd);
        close(twin);
        0
    });
    say!("after its end: {}", flock_of(other, LOCK_EX | LOCK_NB));
    close(fd);
    say!("one of two closed: {}", flock_of(other, LOCK_EX | LOCK_NB));
    say!("unlocked by the dup: {}", flock_of(twin, LOCK_UN));
    say!("then: {}", flock_of(other, LOCK_EX | LOCK_NB));
    process::in_child(|| {
        say!("unlocked by a child: {}", flock_of(other, LOCK_UN));
        0
    });
    say!("then: {}", flock_of(twin, LOCK_EX | LOCK_NB));
    close(twin);
    say!("closed: {}", flock_of(other, LOCK_EX | LOCK_NB));
}

pub(super) fn flock_waiting() {
    let fd = create(c"f", "");
    flock_of(fd, LOCK_EX);
    let child = process::child(|| {
        let own = open(c"f", O_RDONLY).fd();
        say!("the child has it: {}", flock_of(own, LOCK_EX));
        0
    });
    process::until_asleep(child);
    let unlocked = flock_of(fd, LOCK_UN);
    let ended = process::wait(child);
    say!("unlock: {unlocked}, the child: {ended}");
    flock_of(fd, LOCK_EX);
    let child = process::child(|| {
        let own = open(c"f", O_RDONLY).fd();
        let ret = flock_of(own, LOCK_SH);
        say!("shared after a downgrade: {ret}");
        0
    });
    process::until_asleep(child);
    flock_of(fd, LOCK_SH);
    say!("the child: {}", process::wait(child));
    flock_of(fd, LOCK_EX);
    let child = process::child(|| {
        let own = open(c"f", O_RDONLY).fd();
        close(fd);
        say!("after the close: {}", flock_of(own, LOCK_EX));
        0
    });
    process::until_asleep(child);
    close(fd);
    say!("the child: {}", process::wait(child));
}
