//! Reads into memory whose second page is not there yet, or not at all: what comes in several pieces goes on behind the edge.
//! Where the page is missing for good only those are asked of which Linux loses nothing.

use libc::*;

use super::inotify::{instance, watch};
use crate::file::{close, create, mkdir, open, pipe_with, symlink, unlink, write};
use crate::memory::{self, PAGE};
use crate::sys::{Ret, sys};
use crate::{say, signal, terminal, tests};

tests! {
    inotify, signals, counters, random, zeros, proc_text, own_memory, directories, lines, raw_lines, packets, datagrams, streams, vectors,
}

/// Memory with `before` bytes in front of the edge between its first two pages.
fn edges(before: usize) -> [(&'static str, usize); 2] {
    let [all_new, second_new] = [0; 2].map(|_| memory::pages(16));
    memory::poke(second_new, 1);
    [("all new", all_new), ("second page new", second_new)].map(|(kind, start)| (kind, start as usize + PAGE - before))
}

/// The same without a second page.
fn end(before: usize) -> usize {
    let start = memory::pages(2) as usize + PAGE;
    sys!(SYS_munmap, start, PAGE).need();
    start - before
}

/// For each kind of memory: a read of `len` bytes of what `make` opens, and what a read after it gives.
fn at_edges(before: usize, len: usize, mut make: impl FnMut() -> i32) {
    for (kind, at) in edges(before) {
        twice(kind, make(), at, len);
    }
}

fn at_end(before: usize, len: usize, fd: i32) {
    twice("no second page", fd, end(before), len);
}

fn twice(kind: &str, fd: i32, at: usize, len: usize) {
    let mut rest = vec![1u8; 2 * len];
    sys!(SYS_fcntl, fd, F_SETFL, O_NONBLOCK);
    let first = sys!(SYS_read, fd, at, len);
    say!("{kind}: {first}, then {}", sys!(SYS_read, fd, &mut rest[..], rest.len()));
    close(fd);
}

fn inotify() {
    at_edges(32, 2000, || {
        let fd = instance();
        symlink(c"nowhere", c"l");
        watch(fd, c"l", IN_ALL_EVENTS | IN_DONT_FOLLOW);
        unlink(c"l");
        fd
    });
}

fn signals() {
    let all = [SIGUSR1, SIGUSR2, SIGHUP].map(|signal| {
        signal::block(signal);
        1u64 << (signal - 1)
    });
    at_edges(256, 1024, || {
        for signal in [SIGUSR1, SIGUSR2, SIGHUP] {
            signal::kill_self(signal);
        }
        sys!(SYS_signalfd4, -1, &all.iter().sum::<u64>(), 8, 0).fd()
    });
}

fn counters() {
    at_edges(4, 8, || sys!(SYS_eventfd2, 7, 0).fd());
    at_edges(4, 8, || {
        let fd = sys!(SYS_timerfd_create, CLOCK_MONOTONIC, 0).fd();
        let time = timespec { tv_sec: 0, tv_nsec: 1 };
        let none = timespec { tv_sec: 0, tv_nsec: 0 };
        sys!(SYS_timerfd_settime, fd, 0, &itimerspec { it_interval: none, it_value: time }, 0);
        let mut entry = pollfd { fd, events: POLLIN, revents: 0 };
        sys!(SYS_ppoll, &mut entry, 1, 0, 0, 8);
        fd
    });
}

fn random() {
    at_edges(256, 1000, || open(c"/dev/urandom", O_RDONLY).fd());
    at_edges(1000, 16 * PAGE - PAGE, || open(c"/dev/urandom", O_RDONLY).fd());
    for (kind, at) in edges(256) {
        say!("getrandom, {kind}: {}", sys!(SYS_getrandom, at, 1000, 0));
    }
    at_end(256, 1000, open(c"/dev/urandom", O_RDONLY).fd());
    say!("getrandom, no second page: {}", sys!(SYS_getrandom, end(256), 1000, 0));
}

fn zeros() {
    at_edges(PAGE, 4 * PAGE, || open(c"/dev/zero", O_RDONLY).fd());
    at_end(PAGE, 4 * PAGE, open(c"/dev/zero", O_RDONLY).fd());
    at_edges(100, 4 * PAGE, || open(c"/dev/zero", O_RDONLY).fd());
}

fn proc_text() {
    let mut rest = [0u8; PAGE];
    let len = sys!(SYS_read, open(c"/proc/filesystems", O_RDONLY).fd(), &mut rest[..], PAGE).need();
    for (kind, at) in edges(10) {
        let fd = open(c"/proc/filesystems", O_RDONLY).fd();
        let (first, then) = (sys!(SYS_read, fd, at, PAGE), sys!(SYS_read, fd, &mut rest[..], PAGE));
        say!("{kind}: whole {}, then {then}", first.0 == len && len > 10);
        close(fd);
    }
}

fn own_memory() {
    let from = memory::pages(4) as usize;
    for (kind, at) in edges(PAGE) {
        let fd = open(c"/proc/self/mem", O_RDONLY).fd();
        say!("{kind}: {}", sys!(SYS_pread64, fd, at, 3 * PAGE, from));
        close(fd);
    }
}

fn directories() {
    mkdir(c"d");
    for at in 0..40 {
        close(create(&crate::file::path(format!("d/{at:020}")), ""));
    }
    for before in [0, 96, 100] {
        for (kind, at) in edges(before) {
            let fd = open(c"d", O_RDONLY | O_DIRECTORY).fd();
            let first = sys!(SYS_getdents64, fd, at, 2 * PAGE);
            let mut rest = [0u8; 2 * PAGE];
            let then = sys!(SYS_getdents64, fd, &mut rest[..], rest.len());
            let shown = |ret: Ret| if ret.0 > 1000 { "all".into() } else { ret.to_string() };
            say!("{kind}: {}, then {}", shown(first), shown(then));
            close(fd);
        }
    }
}

fn typed(raw: bool) -> i32 {
    let (master, slave) = terminal::waiting_pty();
    if raw {
        terminal::raw(slave, 1, 0);
    }
    write(master, &format!("{}\nnext\n", "x".repeat(600)));
    let mut waiting = 0i32;
    while waiting < if raw { 606 } else { 601 } {
        sys!(SYS_ioctl, slave, FIONREAD, &mut waiting);
    }
    slave
}

fn lines() {
    at_edges(256, 2000, || typed(false));
    at_edges(100, 2000, || typed(false));
}

fn raw_lines() {
    at_edges(256, 2000, || typed(true));
    at_edges(100, 2000, || typed(true));
}

fn packets() {
    let filled = |flags: i32, parts: &[String]| {
        let [reader, writer] = pipe_with(flags);
        for part in parts {
            write(writer, part);
        }
        close(writer);
        reader
    };
    let small = ["abc".into(), "defghi".into()];
    at_edges(3, 100, || filled(O_DIRECT, &small));
    at_end(3, 100, filled(O_DIRECT, &small));
    let large = ["x".repeat(8000)];
    at_edges(3, 9000, || filled(0, &large));
    at_end(3, 9000, filled(0, &large));
}

fn pair(kind: i32) -> [i32; 2] {
    let mut fds = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, kind, 0, &mut fds[..]).need();
    fds
}

fn datagrams() {
    for kind in [SOCK_DGRAM, SOCK_SEQPACKET] {
        at_edges(3, 100, || {
            let [reader, writer] = pair(kind);
            write(writer, "abcdef");
            write(writer, "ghi");
            reader
        });
    }
}

fn streams() {
    at_edges(6, 100, || {
        let [reader, writer] = pair(SOCK_STREAM);
        write(writer, "abcdef");
        write(writer, "ghi");
        reader
    });
}

fn vectors() {
    let mut there = [0u8; 8];
    for (kind, at) in edges(6).into_iter().chain([("no second page", end(6))]) {
        let [reader, writer] = pipe_with(O_NONBLOCK);
        write(writer, "0123456789abcdefghijkl");
        let parts = [
            iovec { iov_base: there.as_mut_ptr().cast(), iov_len: there.len() },
            iovec { iov_base: at as *mut c_void, iov_len: 100 },
        ];
        let first = sys!(SYS_readv, reader, &parts[..], 2);
        say!("{kind}: {first}, then {}", crate::file::read(reader, 100));
    }
}
