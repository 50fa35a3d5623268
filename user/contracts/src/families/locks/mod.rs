//! Locks: of processes, of open files, flock(2), and leases.

mod flocks;
mod open_files;

use libc::*;

use self::flocks::{flock_modes, flock_sharing, flock_waiting};
use self::open_files::{leases, open_file_locks, open_file_refused, signals_owner};
use crate::file::{close, create, mkdir, open, pipe, unlink};
use crate::process::{self, Gate};
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, signal, tests};

tests! {
    conflicts, ranges, split_and_merge, access, refused, release_on_close, children, waiting, deadlock, no_deadlock, interrupted,
    open_file_locks, open_file_refused, flock_modes, flock_sharing, flock_waiting, kinds_are_apart, exec_and_exit, leases,
    signals_owner,
}

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

/// Who has been let in does not wait any more, even if it has not run since.
fn no_deadlock() {
    let fd = create(c"f", "");
    set(fd, F_WRLCK, 0, 1);
    let ready = Gate::new();
    let child = process::child(|| {
        set(fd, F_WRLCK, 1, 1);
        ready.open();
        let got = set_wait(fd, F_WRLCK, 0, 1);
        set(fd, F_UNLCK, 1, 1);
        i32::from(!got.ok())
    });
    ready.pass();
    process::until_asleep(child);
    say!("let go: {}", set(fd, F_UNLCK, 0, 1));
    say!("the second: {}", set_wait(fd, F_WRLCK, 1, 1));
    say!("the child: {}", process::wait(child));
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

fn flock_of(fd: i32, operation: i32) -> Ret {
    sys!(SYS_flock, fd, operation)
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
