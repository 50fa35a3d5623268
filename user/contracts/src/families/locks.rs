//! Locks: of processes, of open files, flock(2), and leases.

use libc::*;

use crate::file::{close, create, mkdir, open, pipe, unlink};
use crate::process::{self, Gate};
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, signal, tests};

tests! {
    conflicts, ranges, split_and_merge, access, refused, release_on_close, children, waiting, deadlock, interrupted,
    open_file_locks, open_file_refused, flock_modes, flock_sharing, flock_waiting, kinds_are_apart, exec_and_exit, leases,
    signals_owner,
}

const F_SETSIG: i32 = 10;
const F_GETSIG: i32 = 11;
const F_SETOWN_EX: i32 = 15;
const F_GETOWN_EX: i32 = 16;

fn lock_of(kind: i32, start: i64, length: i64) -> flock {
    let mut lock: flock = zeroed();
    lock.l_type = kind as i16;
    lock.l_whence = SEEK_SET as i16;
    lock.l_start = start;
    lock.l_len = length;
    lock
}

fn set(fd: i32, kind: i32, start: i64, length: i64) -> Ret {
    sys!(SYS_fcntl, fd, F_SETLK, &lock_of(kind, start, length))
}

fn set_wait(fd: i32, kind: i32, start: i64, length: i64) -> Ret {
    sys!(SYS_fcntl, fd, F_SETLKW, &lock_of(kind, start, length))
}

fn open_file_set(fd: i32, kind: i32, start: i64, length: i64) -> Ret {
    sys!(SYS_fcntl, fd, F_OFD_SETLK, &lock_of(kind, start, length))
}

/// What F_GETLK finds in the way of a lock. `known` is the process that is expected to have it.
fn found(fd: i32, command: i32, kind: i32, start: i64, length: i64, known: i32) -> String {
    let mut lock = lock_of(kind, start, length);
    let ret = sys!(SYS_fcntl, fd, command, &mut lock);
    if !ret.ok() {
        return ret.to_string();
    }
    let kind = match i32::from(lock.l_type) {
        F_RDLCK => "read",
        F_WRLCK => "write",
        _ => return "nothing".into(),
    };
    let owner = match lock.l_pid {
        pid if pid == known => "expected",
        -1 => "open file",
        _ => "another",
    };
    format!("{kind} lock from {} of length {}, whence {}, {owner}", lock.l_start, lock.l_len, lock.l_whence)
}

/// Asks from a child, to which the locks of this process are another's.
fn ask(what: &str, fd: i32, kind: i32, start: i64, length: i64) {
    let parent = sys!(SYS_getpid).0 as i32;
    process::in_child(|| {
        say!("{what}: {}", found(fd, F_GETLK, kind, start, length, parent));
        0
    });
}

fn conflicts() {
    let fd = create(c"f", "");
    say!("read lock: {}", set(fd, F_RDLCK, 10, 10));
    say!("write lock: {}", set(fd, F_WRLCK, 30, 10));
    say!("own locks are not in the way: {}", found(fd, F_GETLK, F_WRLCK, 0, 0, 0));
    ask("write against all", fd, F_WRLCK, 0, 0);
    ask("read against the read lock", fd, F_RDLCK, 10, 10);
    ask("write against the read lock", fd, F_WRLCK, 19, 1);
    ask("just before", fd, F_WRLCK, 0, 10);
    ask("between", fd, F_WRLCK, 20, 10);
    ask("read against the write lock", fd, F_RDLCK, 35, 100);
    process::in_child(|| {
        say!("a child: read {} write {}", set(fd, F_RDLCK, 15, 1), set(fd, F_WRLCK, 15, 1));
        say!("the write lock: read {} write {}", set(fd, F_RDLCK, 35, 1), set(fd, F_WRLCK, 35, 1));
        say!("the rest: {}", set(fd, F_WRLCK, 40, 0));
        0
    });
    say!("upgrade: {}", set(fd, F_WRLCK, 10, 10));
    ask("then", fd, F_RDLCK, 0, 20);
    say!("downgrade: {}", set(fd, F_RDLCK, 10, 30));
    ask("then", fd, F_WRLCK, 0, 0);
    say!("unlock all: {}", set(fd, F_UNLCK, 0, 0));
    ask("then", fd, F_WRLCK, 0, 0);
    say!("unlock again: {}", set(fd, F_UNLCK, 5, 5));
}

fn ranges() {
    let fd = create(c"f", "0123456789");
    sys!(SYS_lseek, fd, 4, SEEK_SET);
    let with = |whence: i32, start: i64, length: i64| {
        let mut lock = lock_of(F_WRLCK, start, length);
        lock.l_whence = whence as i16;
        let ret = sys!(SYS_fcntl, fd, F_SETLK, &lock);
        ask(&format!("whence {whence}, start {start}, length {length}: {ret}"), fd, F_WRLCK, 0, 0);
        set(fd, F_UNLCK, 0, 0);
    };
    with(SEEK_CUR, 1, 2);
    with(SEEK_CUR, -4, 2);
    with(SEEK_END, 0, 5);
    with(SEEK_END, -3, 2);
    with(SEEK_SET, 100, 0);
    with(SEEK_SET, 100, -10);
    with(SEEK_SET, 5, -5);
    with(SEEK_SET, 5, -6);
    with(SEEK_CUR, -5, 2);
    with(SEEK_END, -11, 1);
    with(SEEK_SET, i64::MAX, 1);
    with(SEEK_SET, i64::MAX, 2);
    with(SEEK_SET, 1, i64::MAX);
    with(SEEK_SET, 0, i64::MAX);
    with(3, 0, 1);
}

fn split_and_merge() {
    let fd = create(c"f", "");
    let show = |what: &str| {
        let parent = sys!(SYS_getpid).0 as i32;
        process::in_child(|| {
            let mut at = 0;
            let mut text = Vec::new();
            loop {
                let mut lock = lock_of(F_WRLCK, at, 0);
                sys!(SYS_fcntl, fd, F_GETLK, &mut lock);
                if i32::from(lock.l_type) == F_UNLCK || lock.l_pid != parent || text.len() > 9 {
                    break;
                }
                let kind = if i32::from(lock.l_type) == F_RDLCK { "r" } else { "w" };
                text.push(format!("{kind}{}+{}", lock.l_start, lock.l_len));
                if lock.l_len == 0 {
                    break;
                }
                at = lock.l_start + lock.l_len;
            }
            say!("{what}: {}", text.join(" "));
            0
        });
    };
    set(fd, F_WRLCK, 0, 100);
    show("one");
    set(fd, F_UNLCK, 40, 20);
    show("a hole");
    set(fd, F_RDLCK, 10, 10);
    show("another kind inside");
    set(fd, F_WRLCK, 10, 10);
    show("back");
    set(fd, F_WRLCK, 40, 20);
    show("filled");
    set(fd, F_WRLCK, 100, 50);
    show("adjacent");
    set(fd, F_RDLCK, 90, 20);
    show("across");
    set(fd, F_WRLCK, 0, 0);
    show("all");
    set(fd, F_UNLCK, 50, 0);
    show("the end unlocked");
    set(fd, F_UNLCK, 0, 1);
    show("the start unlocked");
    set(fd, F_RDLCK, 1, 49);
    show("all to read");
}

fn access() {
    close(create(c"f", ""));
    let reader = open(c"f", O_RDONLY).fd();
    let writer = open(c"f", O_WRONLY).fd();
    say!("a reader: read {} write {}", set(reader, F_RDLCK, 0, 1), set(reader, F_WRLCK, 0, 1));
    say!("a writer: read {} write {}", set(writer, F_RDLCK, 0, 1), set(writer, F_WRLCK, 0, 1));
    say!("F_GETLK on a reader: {}", found(reader, F_GETLK, F_WRLCK, 0, 0, 0));
    say!("unlock by a reader: {}", set(reader, F_UNLCK, 0, 0));
    mkdir(c"d");
    let directory = open(c"d", O_RDONLY).fd();
    say!("a directory: {} {}", set(directory, F_RDLCK, 0, 1), set(directory, F_WRLCK, 0, 1));
    say!("a pipe: {}", set(pipe()[0], F_RDLCK, 0, 1));
    say!("/dev/null: {}", set(0, F_RDLCK, 0, 1));
    say!("O_PATH: {}", set(open(c"f", O_PATH).fd(), F_RDLCK, 0, 1));
    say!("closed: {}", set(60, F_RDLCK, 0, 1));
    say!("a memfd: {}", set(sys!(SYS_memfd_create, c"m", 0).fd(), F_WRLCK, 0, 1));
}

fn refused() {
    let fd = create(c"f", "");
    say!("unknown type: {} {}", set(fd, 7, 0, 1), set(fd, -1, 0, 1));
    say!("F_GETLK of F_UNLCK: {}", found(fd, F_GETLK, F_UNLCK, 0, 1, 0));
    say!("F_GETLK of an unknown type: {}", found(fd, F_GETLK, 7, 0, 1, 0));
    say!("bad pointers: {} {}", sys!(SYS_fcntl, fd, F_SETLK, NOWHERE), sys!(SYS_fcntl, fd, F_GETLK, NOWHERE));
    say!("bad pointer, closed: {}", sys!(SYS_fcntl, 60, F_SETLK, NOWHERE));
    say!("negative start: {}", set(fd, F_WRLCK, -1, 1));
    say!("F_GETLK, negative start: {}", found(fd, F_GETLK, F_WRLCK, -1, 1, 0));
    let mut lock = lock_of(F_WRLCK, 0, 1);
    lock.l_pid = 77;
    say!("l_pid does not matter: {}", sys!(SYS_fcntl, fd, F_SETLK, &lock));
    sys!(SYS_fcntl, fd, F_GETLK, &mut lock);
    say!("F_GETLK leaves the rest alone: type {}, pid {}, length {}", lock.l_type, lock.l_pid, lock.l_len);
}

fn release_on_close() {
    let fd = create(c"f", "");
    let other = open(c"f", O_RDWR).fd();
    let twin = sys!(SYS_dup, fd).fd();
    set(fd, F_WRLCK, 0, 10);
    ask("locked", fd, F_WRLCK, 0, 0);
    close(other);
    ask("another opening is closed", fd, F_WRLCK, 0, 0);
    set(fd, F_WRLCK, 0, 10);
    close(twin);
    ask("a dup is closed", fd, F_WRLCK, 0, 0);
    set(fd, F_WRLCK, 0, 10);
    unlink(c"f");
    ask("unlinked", fd, F_WRLCK, 0, 0);
    close(create(c"f", ""));
    let new = open(c"f", O_RDWR).fd();
    ask("a new file of that name", new, F_WRLCK, 0, 0);
    close(new);
    ask("closing the new one", fd, F_WRLCK, 0, 0);
    let only_path = open(c"/proc/self/fd/3", O_PATH);
    close(only_path.0 as i32);
    ask("closing an O_PATH of it", fd, F_WRLCK, 0, 0);
}

fn children() {
    let fd = create(c"f", "");
    set(fd, F_WRLCK, 0, 10);
    process::in_child(|| {
        say!("a child does not inherit: {}", set(fd, F_WRLCK, 0, 10));
        say!("but may lock elsewhere: {}", set(fd, F_WRLCK, 50, 10));
        close(fd);
        0
    });
    ask("a child's close does not matter", fd, F_WRLCK, 0, 0);
    say!("a child's locks end with it: {}", found(fd, F_GETLK, F_WRLCK, 50, 0, 0));
    let (ready, go) = (Gate::new(), Gate::new());
    let child = process::child(|| {
        set(fd, F_WRLCK, 50, 10);
        ready.open();
        go.pass();
        0
    });
    ready.pass();
    say!("a living child's: {}", found(fd, F_GETLK, F_RDLCK, 40, 100, child));
    say!("set: {}", set(fd, F_RDLCK, 40, 100));
    say!("what was locked before stays: {}", set(fd, F_WRLCK, 0, 10));
    go.open();
    process::wait(child);
    say!("after its end: {}", set(fd, F_RDLCK, 40, 100));
}

fn waiting() {
    let fd = create(c"f", "");
    set(fd, F_WRLCK, 0, 10);
    let order = Gate::new();
    let child = process::child(|| {
        let ret = set_wait(fd, F_WRLCK, 5, 10);
        say!("the child has it: {ret}");
        order.open();
        0
    });
    process::until_asleep(child);
    say!("unlock what does not matter: {}", set(fd, F_UNLCK, 0, 5));
    process::until_asleep(child);
    say!("still waiting: {}", process::try_wait(child).is_none());
    let unlocked = set(fd, F_UNLCK, 5, 5);
    order.pass();
    process::wait(child);
    say!("unlock the rest: {unlocked}");
    say!("at its end: {}", set(fd, F_WRLCK, 0, 0));
    let child = process::child(|| {
        say!("a reader waits: {}", set_wait(fd, F_RDLCK, 0, 1));
        0
    });
    process::until_asleep(child);
    let changed = set(fd, F_RDLCK, 0, 0);
    let ended = process::wait(child);
    say!("downgrade: {changed}, the child: {ended}");
    let child = process::child(|| {
        say!("a waiter gets it by a close: {}", set_wait(fd, F_WRLCK, 0, 1));
        0
    });
    process::until_asleep(child);
    close(open(c"f", O_RDONLY).fd());
    say!("the child: {}", process::wait(child));
}

fn deadlock() {
    let fd = create(c"f", "");
    set(fd, F_WRLCK, 0, 1);
    let ready = Gate::new();
    let child = process::child(|| {
        set(fd, F_WRLCK, 1, 1);
        ready.open();
        say!("the child gets the first: {}", set_wait(fd, F_WRLCK, 0, 1));
        0
    });
    ready.pass();
    process::until_asleep(child);
    say!("the second: {}", set_wait(fd, F_WRLCK, 1, 1));
    say!("not waiting: {}", set(fd, F_WRLCK, 1, 1));
    set(fd, F_UNLCK, 0, 0);
    say!("the child: {}", process::wait(child));
    // Three in a ring.
    set(fd, F_WRLCK, 0, 1);
    let ready = Gate::new();
    let first = process::child(|| {
        set(fd, F_WRLCK, 1, 1);
        ready.open();
        i32::from(!set_wait(fd, F_WRLCK, 0, 1).ok())
    });
    ready.pass();
    process::until_asleep(first);
    let second = process::child(|| {
        set(fd, F_WRLCK, 2, 1);
        ready.open();
        i32::from(!set_wait(fd, F_WRLCK, 1, 1).ok())
    });
    ready.pass();
    process::until_asleep(second);
    say!("the third closes the ring: {}", set_wait(fd, F_WRLCK, 2, 1));
    set(fd, F_UNLCK, 0, 0);
    say!("the others: {}, {}", process::wait(first), process::wait(second));
}

fn interrupted() {
    let fd = create(c"f", "");
    set(fd, F_WRLCK, 0, 1);
    for (what, flags) in [("EINTR", 0), ("SA_RESTART", SA_RESTART)] {
        let child = process::child(|| {
            signal::handle(SIGUSR1, signal::count, flags);
            let ret = set_wait(fd, F_WRLCK, 0, 1);
            say!("{what}: {ret}, caught {}", signal::caught());
            0
        });
        process::until_asleep(child);
        process::kill(child, SIGUSR1);
        if flags != 0 {
            process::until_asleep(child);
            set(fd, F_UNLCK, 0, 1);
        }
        say!("the child: {}", process::wait(child));
    }
    let child = process::child(|| {
        sys!(SYS_flock, open(c"f", O_RDWR).fd(), LOCK_EX);
        sys!(SYS_ppoll, 0, 0, 0, 0, 8);
        0
    });
    process::until_asleep(child);
    let child2 = process::child(|| {
        signal::handle(SIGUSR1, signal::count, 0);
        say!("flock: {}, caught {}", sys!(SYS_flock, open(c"f", O_RDWR).fd(), LOCK_EX), signal::caught());
        0
    });
    process::until_asleep(child2);
    process::kill(child2, SIGUSR1);
    process::wait(child2);
    process::kill(child, SIGKILL);
    say!("killed: {}", process::wait(child));
    say!("its lock is gone: {}", sys!(SYS_flock, fd, LOCK_EX | LOCK_NB));
}

fn open_file_locks() {
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

fn open_file_refused() {
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

fn flock_of(fd: i32, operation: i32) -> Ret {
    sys!(SYS_flock, fd, operation)
}

fn flock_modes() {
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

fn flock_sharing() {
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

fn flock_waiting() {
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

fn kinds_are_apart() {
    let fd = create(c"f", "");
    let other = open(c"f", O_RDWR).fd();
    say!("flock: {}", flock_of(fd, LOCK_EX));
    process::in_child(|| {
        say!("a process's lock: {}", set(other, F_WRLCK, 0, 0));
        say!("an open file's: {}", open_file_set(other, F_WRLCK, 0, 0));
        0
    });
    say!("of an open file: {}", open_file_set(other, F_WRLCK, 0, 0));
    process::in_child(|| {
        say!("a process's lock against it: {}", set(fd, F_RDLCK, 0, 1));
        0
    });
    open_file_set(other, F_UNLCK, 0, 0);
    say!("of a process: {}", set(fd, F_WRLCK, 0, 0));
    say!("an open file's against it: {}", open_file_set(other, F_RDLCK, 0, 1));
    say!("and flock: {}", flock_of(other, LOCK_SH | LOCK_NB));
    say!("writing goes on: {}", crate::file::write(other, "x"));
}

fn exec_and_exit() {
    let fd = create(c"f", "");
    let (ready, go) = (Gate::new(), Gate::new());
    let child = process::child(|| {
        set(fd, F_WRLCK, 0, 10);
        let argv = [c"sleep".as_ptr(), c"100".as_ptr(), std::ptr::null()];
        let envp = [std::ptr::null::<u8>()];
        ready.open();
        sys!(SYS_execve, c"/bin/sleep", &argv, &envp);
        1
    });
    ready.pass();
    process::until_asleep(child);
    while !std::fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|name| name.trim() == "sleep") {
        process::sleep_ms(2);
    }
    say!("kept over execve: {}", found(fd, F_GETLK, F_WRLCK, 0, 0, child));
    process::kill(child, SIGKILL);
    say!("the child: {}", process::wait(child));
    say!("gone with it: {}", found(fd, F_GETLK, F_WRLCK, 0, 0, child));
    let child = process::child(|| {
        set(fd, F_WRLCK, 0, 10);
        ready.open();
        go.pass();
        0
    });
    ready.pass();
    let waiter = process::child(|| {
        say!("waited for the end: {}", set_wait(fd, F_WRLCK, 0, 10));
        0
    });
    process::until_asleep(waiter);
    go.open();
    say!("the children: {}, {}", process::wait(child), process::wait(waiter));
}

fn leases() {
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

fn signals_owner() {
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
