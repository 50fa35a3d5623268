//! Signal-driven I/O: O_ASYNC of pipes, owners, and what their signals say. Sockets and terminals are in `sigio_files`.

use libc::*;

use crate::file::{close, create, mkdir, open, pipe, read, write};
use crate::process;
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, signal, tests};

tests! {
    pipe_reader, pipe_writer, both_ways, without_information, ends_without_a_handler, set_signal, own_codes, queue_is_full, owners,
    owners_by_kind, owner_is_gone, uids, to_a_thread, to_a_group, permission, of_a_user, duplicates, switched_off,
    files_without_news, opened_with_it,
}

pub const TOLD: i32 = 40;
pub const F_SETSIG: i32 = 10;
const F_GETSIG: i32 = 11;
const F_SETOWN_EX: i32 = 15;
pub const F_GETOWN_EX: i32 = 16;
const F_GETOWNER_UIDS: i32 = 17;
const BY_THREAD: i32 = 0;
const BY_PROCESS: i32 = 1;
const BY_GROUP: i32 = 2;

pub fn fcntl(fd: i32, command: i32, value: i32) -> Ret {
    sys!(SYS_fcntl, fd, command, value)
}

pub fn switch(fd: i32, on: bool) -> Ret {
    let flags = fcntl(fd, F_GETFL, 0).0 as i32;
    fcntl(fd, F_SETFL, if on { flags | O_ASYNC } else { flags & !O_ASYNC })
}

/// Signals about a file go to this process, which has them blocked, with `TOLD` for a number.
pub fn listen(fd: i32) {
    signal::block(TOLD);
    signal::block(SIGIO);
    fcntl(fd, F_SETSIG, TOLD);
    fcntl(fd, F_SETOWN, process::pid());
    switch(fd, true).need();
}

/// Takes the signals that are pending, waiting a moment for the first of them.
pub fn told() -> String {
    told_within(20)
}

fn told_within(mut patience: i64) -> String {
    let mut all = Vec::new();
    let set = signal::bit(TOLD) | signal::bit(SIGIO) | signal::bit(SIGCHLD) | signal::bit(SIGUSR1);
    loop {
        let (ret, info) = signal::take(set, patience);
        if !ret.ok() {
            break;
        }
        patience = 20;
        all.push(described(&info));
    }
    format!("[{}]", all.join(", "))
}

fn described(info: &siginfo_t) -> String {
    let name = signal::name(info.si_signo);
    if info.si_code == SI_KERNEL {
        return format!("{name} from the kernel");
    }
    // SAFETY: a `siginfo_t` is 128 bytes, in which si_band is at 16 and si_fd at 24.
    let (band, fd) = unsafe {
        let start = std::ptr::from_ref(info).cast::<u8>();
        (start.add(16).cast::<i64>().read(), start.add(24).cast::<i32>().read())
    };
    format!("{name} code {} band {band:#x} fd {fd}", info.si_code)
}

fn pipe_reader() {
    let [reader, writer] = pipe();
    listen(reader);
    say!("flags: {:o} {:o}", fcntl(reader, F_GETFL, 0).0, fcntl(writer, F_GETFL, 0).0);
    say!("nothing yet: {}", told());
    write(writer, "one");
    say!("a write: {}", told());
    write(writer, "two");
    write(writer, "three");
    say!("two writes: {}", told());
    say!("a read: {} {}", read(reader, 100), told());
    say!("a write of nothing: {} {}", write(writer, ""), told());
    close(writer);
    say!("the writer left: {}", told());
}

fn pipe_writer() {
    let [reader, writer] = pipe();
    listen(writer);
    write(writer, "some bytes");
    say!("its own write: {}", told());
    say!("a read: {} {}", read(reader, 4), told());
    say!("another: {} {}", read(reader, 100), told());
    close(reader);
    say!("the reader left: {}", told());
}

fn both_ways() {
    sys!(SYS_mknodat, AT_FDCWD, c"fifo", S_IFIFO | 0o600, 0).need();
    let fd = open(c"fifo", O_RDWR).fd();
    listen(fd);
    write(fd, "through");
    say!("a write: {}", told());
    read(fd, 100);
    say!("a read: {}", told());
    let other = open(c"fifo", O_WRONLY).fd();
    say!("another opens it: {}", told());
    write(other, "x");
    say!("and writes: {}", told());
    close(other);
    say!("and leaves: {}", told());
}

fn without_information() {
    let [reader, writer] = pipe();
    signal::block(SIGIO);
    fcntl(reader, F_SETOWN, process::pid());
    switch(reader, true);
    write(writer, "x");
    write(writer, "y");
    say!("two writes, no F_SETSIG: {}", told());
    fcntl(reader, F_SETSIG, SIGIO);
    write(writer, "z");
    say!("F_SETSIG with SIGIO: {}", told());
    fcntl(reader, F_SETSIG, SIGUSR1);
    signal::block(SIGUSR1);
    write(writer, "1");
    write(writer, "2");
    say!("with SIGUSR1: {}", told());
    fcntl(reader, F_SETOWN, 0);
    write(writer, "3");
    say!("no owner: {}", told());
}

fn ends_without_a_handler() {
    let status = process::in_child(|| {
        let [reader, writer] = pipe();
        fcntl(reader, F_SETOWN, process::pid());
        switch(reader, true);
        write(writer, "x");
        0
    });
    say!("SIGIO by default: {status}");
    let [reader, writer] = pipe();
    signal::handle(SIGIO, signal::count, 0);
    fcntl(reader, F_SETOWN, process::pid());
    switch(reader, true);
    write(writer, "x");
    say!("caught: {} {}", signal::caught(), signal::LAST_CODE.load(std::sync::atomic::Ordering::SeqCst));
    let child = process::child(|| {
        process::sleep_ms(20);
        write(writer, "y");
        0
    });
    read(reader, 10);
    say!("a read that waits: {} {}", read(reader, 10), signal::caught());
    process::wait(child);
}

fn set_signal() {
    let [reader, _writer] = pipe();
    say!("at first: {}", fcntl(reader, F_GETSIG, 0));
    for number in [1, 29, 64, 65, -1, 0, SIGKILL] {
        say!("{number}: {} {}", fcntl(reader, F_SETSIG, number), fcntl(reader, F_GETSIG, 0));
    }
    say!("of a regular file: {} {}", fcntl(create(c"f", ""), F_SETSIG, 30), fcntl(0, F_GETSIG, 0));
    say!("O_PATH: {}", fcntl(open(c"f", O_PATH).fd(), F_SETSIG, 30));
}

fn own_codes() {
    let [reader, writer] = pipe();
    listen(reader);
    signal::block(SIGCHLD);
    fcntl(reader, F_SETSIG, SIGCHLD);
    write(writer, "x");
    say!("a signal whose codes mean other things: {}", told());
}

fn queue_is_full() {
    let [reader, writer] = pipe();
    listen(reader);
    let limit = [2u64, 2];
    sys!(SYS_prlimit64, 0, RLIMIT_SIGPENDING, &limit, 0);
    for _ in 0..4 {
        write(writer, "x");
    }
    say!("room for two: {}", told());
    write(writer, "x");
    say!("then: {}", told());
}

fn owners() {
    let [reader, _writer] = pipe();
    say!("at first: {}", fcntl(reader, F_GETOWN, 0));
    let own = process::pid();
    let shown = || match fcntl(reader, F_GETOWN, 0).0 as i32 {
        value if value == own => "this process".to_string(),
        value if value == -own => "this group".to_string(),
        value => Ret(i64::from(value)).to_string(),
    };
    say!("this process: {} {}", fcntl(reader, F_SETOWN, own), shown());
    sys!(SYS_setpgid, 0, 0);
    // Small negative numbers look like errors to those who ask this way.
    say!("this group: {}", fcntl(reader, F_SETOWN, -own));
    let mut owner = [-1i32; 2];
    say!("as a structure: {} {} {}", sys!(SYS_fcntl, reader, F_GETOWN_EX, &mut owner), owner[0], owner[1] == own);
    say!("nobody: {} {}", fcntl(reader, F_SETOWN, 0), shown());
    say!("one that is not there: {}", fcntl(reader, F_SETOWN, 4_000_000));
    say!("a group that is not there: {}", fcntl(reader, F_SETOWN, -4_000_000));
    say!("INT_MIN: {}", fcntl(reader, F_SETOWN, i32::MIN));
    let child = process::sleeper();
    say!("a process that leads no group, as a group: {}", fcntl(reader, F_SETOWN, -child));
    process::kill(child, SIGKILL);
    process::wait(child);
    say!("of a regular file: {} {}", fcntl(create(c"f", ""), F_SETOWN, own), fcntl(0, F_GETOWN, 0));
    say!("O_PATH: {}", fcntl(open(c"f", O_PATH).fd(), F_SETOWN, own));
    close(reader);
    say!("closed: {}", fcntl(reader, F_SETOWN, own));
}

fn owners_by_kind() {
    let [reader, _writer] = pipe();
    let get = || {
        let mut owner = [-1i32; 2];
        let ret = sys!(SYS_fcntl, reader, F_GETOWN_EX, &mut owner);
        format!("{ret} kind {} own {}", owner[0], owner[1] == process::pid())
    };
    let set = |kind: i32, id: i32| sys!(SYS_fcntl, reader, F_SETOWN_EX, &[kind, id]);
    say!("at first: {}", get());
    for kind in [BY_THREAD, BY_PROCESS, BY_GROUP] {
        say!("{kind}: {} {}", set(kind, process::pid()), get());
        say!("not there: {} {}", set(kind, 4_000_000), get());
        say!("negative: {} nobody: {} {}", set(kind, -5), set(kind, 0), get());
    }
    say!("kind 3: {} kind -1: {}", set(3, 1), set(-1, 1));
    say!("bad pointers: {} {}", sys!(SYS_fcntl, reader, F_SETOWN_EX, NOWHERE), {
        sys!(SYS_fcntl, reader, F_GETOWN_EX, NOWHERE)
    });
    let (tid, thread) = process::sleeping_thread(|| process::sleep_ms(50));
    say!("a thread as a process: {} {}", fcntl(reader, F_SETOWN, tid), fcntl(reader, F_GETOWN, 0));
    say!("as a thread: {} {}", set(BY_THREAD, tid), fcntl(reader, F_GETOWN, 0).0 == i64::from(tid));
    let _ = thread.join();
    say!("when it has ended: {}", fcntl(reader, F_GETOWN, 0));
}

fn owner_is_gone() {
    let [reader, writer] = pipe();
    let child = process::sleeper();
    listen(reader);
    fcntl(reader, F_SETOWN, child);
    process::kill(child, SIGKILL);
    say!("it ended: {}", process::wait(child));
    say!("owner: {}", fcntl(reader, F_GETOWN, 0));
    say!("a write: {} {}", write(writer, "x"), told());
}

fn uids() {
    let [reader, _writer] = pipe();
    let get = || {
        let mut ids = [7u32; 2];
        format!("{} {ids:?}", sys!(SYS_fcntl, reader, F_GETOWNER_UIDS, &mut ids)) + &format!(" {ids:?}")
    };
    say!("at first: {}", get());
    process::in_child(|| {
        sys!(SYS_setresuid, 1000, 1001, 1002).need();
        fcntl(reader, F_SETOWN, process::pid());
        0
    });
    say!("as who set it: {}", get());
    fcntl(reader, F_SETOWN, 0);
    say!("nobody: {}", get());
    say!("bad pointer: {}", sys!(SYS_fcntl, reader, F_GETOWNER_UIDS, NOWHERE));
}

fn to_a_thread() {
    let [reader, writer] = pipe();
    listen(reader);
    let (tid, thread) = process::sleeping_thread(|| {
        process::sleep_ms(300);
        told()
    });
    say!("of a thread: {}", sys!(SYS_fcntl, reader, F_SETOWN_EX, &[BY_THREAD, tid]));
    write(writer, "x");
    say!("pending here: {}", signal::names(signal::pending()));
    say!("there: {}", thread.join().unwrap_or_default());
    sys!(SYS_fcntl, reader, F_SETOWN_EX, &[BY_PROCESS, process::pid()]);
    write(writer, "x");
    say!("of the process: {}", signal::names(signal::pending()));
}

fn to_a_group() {
    let [reader, writer] = pipe();
    let ready = process::Gate::new();
    sys!(SYS_setpgid, 0, 0);
    listen(reader);
    let children = [(); 2].map(|()| {
        process::child(|| {
            ready.open();
            say!("a member: {}", told_within(5000));
            0
        })
    });
    ready.pass();
    ready.pass();
    fcntl(reader, F_SETOWN, -process::pid());
    write(writer, "x");
    for child in children {
        process::wait(child);
    }
    say!("the leader: {}", told());
}

fn permission() {
    let [reader, writer] = pipe();
    listen(reader);
    let root = process::pid();
    process::as_plain_user(|| {
        say!("a user names root's process: {}", fcntl(reader, F_SETOWN, root));
        write(writer, "x");
    });
    say!("which hears nothing: {}", told());
    process::in_child(|| {
        sys!(SYS_setresuid, 1000, 0, 0).need();
        fcntl(reader, F_SETOWN, root);
        0
    });
    write(writer, "x");
    say!("an effective root may: {}", told());
    process::in_child(|| {
        sys!(SYS_setresuid, 0, 1000, 0).need();
        fcntl(reader, F_SETOWN, root);
        0
    });
    process::as_plain_user(|| {
        write(writer, "x");
    });
    say!("a real root, whoever writes: {}", told());
}

fn of_a_user() {
    let [reader, writer] = pipe();
    listen(reader);
    let (ready, go) = (process::Gate::new(), process::Gate::new());
    let user = process::child(|| {
        process::become_user(1000);
        fcntl(reader, F_SETOWN, process::pid());
        ready.open();
        go.pass();
        say!("a user, named by itself: {}", told());
        ready.open();
        go.pass();
        say!("named by root: {}", told());
        0
    });
    ready.pass();
    write(writer, "x");
    go.open();
    ready.pass();
    fcntl(reader, F_SETOWN, user);
    write(writer, "x");
    go.open();
    process::wait(user);
    let other = process::child(|| {
        process::become_user(1001);
        ready.open();
        go.pass();
        say!("another user's process: {}", told());
        0
    });
    ready.pass();
    process::as_plain_user(|| {
        fcntl(reader, F_SETOWN, other);
    });
    write(writer, "x");
    go.open();
    process::wait(other);
}

fn duplicates() {
    let [reader, writer] = pipe();
    let copy = sys!(SYS_dup, reader).fd();
    listen(copy);
    say!("the flag is common: {:o}", fcntl(reader, F_GETFL, 0).0);
    write(writer, "x");
    say!("named by the descriptor that was switched: {}", told());
    switch(reader, true);
    write(writer, "x");
    say!("switched on again by the other: {}", told());
    close(copy);
    write(writer, "x");
    say!("that one is closed: {}", told());
    process::in_child(|| {
        write(writer, "from a child");
        say!("the child: {}", told());
        0
    });
    say!("the parent: {}", told());
    let child = process::child(|| {
        process::sleep_ms(30);
        0
    });
    close(reader);
    write(writer, "x");
    say!("a child has it open still: {}", told());
    process::wait(child);
    signal::ignore(SIGPIPE);
    say!("nobody has: {} {}", write(writer, "x"), told());
}

fn switched_off() {
    let [reader, writer] = pipe();
    listen(reader);
    say!("off: {}", switch(reader, false));
    write(writer, "x");
    say!("a write: {}", told());
    let (mut on, mut off) = (1i32, 0i32);
    say!("on by FIOASYNC: {} {:o}", sys!(SYS_ioctl, reader, FIOASYNC, &mut on), fcntl(reader, F_GETFL, 0).0);
    write(writer, "x");
    say!("a write: {}", told());
    say!("off: {} {:o}", sys!(SYS_ioctl, reader, FIOASYNC, &mut off), fcntl(reader, F_GETFL, 0).0);
    write(writer, "x");
    say!("a write: {}", told());
    say!("bad pointer: {}", sys!(SYS_ioctl, reader, FIOASYNC, NOWHERE));
}

fn files_without_news() {
    mkdir(c"d");
    let mut event: epoll_event = zeroed();
    let epoll = sys!(SYS_epoll_create1, 0).fd();
    sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, pipe()[0], &mut event);
    let files = [
        ("a regular file", create(c"f", "")),
        ("a directory", open(c"d", O_RDONLY).fd()),
        ("an eventfd", sys!(SYS_eventfd2, 0, 0).fd()),
        ("a timerfd", sys!(SYS_timerfd_create, CLOCK_MONOTONIC, 0).fd()),
        ("an epoll", epoll),
        ("a signalfd", sys!(SYS_signalfd4, -1, &1u64, 8, 0).fd()),
        ("/dev/null", open(c"/dev/null", O_RDWR).fd()),
    ];
    let (mut on, mut off) = (1i32, 0i32);
    for (name, fd) in files {
        let before = fcntl(fd, F_GETFL, 0).0;
        say!("{name}: off {} on {}", sys!(SYS_ioctl, fd, FIOASYNC, &mut off), sys!(SYS_ioctl, fd, FIOASYNC, &mut on));
        say!("by F_SETFL: {} {}", switch(fd, true), fcntl(fd, F_GETFL, 0).0 == before);
    }
}

fn opened_with_it() {
    sys!(SYS_mknodat, AT_FDCWD, c"fifo", S_IFIFO | 0o600, 0).need();
    let fd = open(c"fifo", O_RDWR | O_ASYNC).fd();
    say!("flags: {:o}", fcntl(fd, F_GETFL, 0).0 & i64::from(O_ASYNC));
    listen(fd);
    write(fd, "x");
    say!("open cannot switch it on: {}", told());
    switch(fd, false);
    switch(fd, true);
    write(fd, "x");
    say!("off and on: {}", told());
}
