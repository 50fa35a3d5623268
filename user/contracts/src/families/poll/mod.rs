//! Waiting for readiness: ppoll, pselect6, epoll, eventfd, timerfd, signalfd.

mod counters;
mod epoll;
mod select;

use libc::*;

use self::counters::{
    eventfd_counts, eventfd_semaphore, eventfd_waits, signalfd_masks, signalfd_reads, timerfd_reads, timerfd_refused,
};
use self::epoll::{
    epoll_changes, epoll_duplicates, epoll_edges, epoll_exclusive, epoll_levels, epoll_loops, epoll_many, epoll_nested,
    epoll_once, epoll_order, epoll_order_of_errors, epoll_refused, epoll_waits,
};
use self::select::{select_refused, select_sets, select_waits};
use crate::file::{close, create, open, pipe, pipe_with, read, write};
use crate::sys::{KERNEL, NOWHERE, Ret, sys, zeroed};
use crate::{memory, process, say, signal, tests};

tests! {
    kinds, masks, refused, timeouts, interrupted, signal_mask, wakes, select_sets, select_refused, select_waits,
    epoll_levels, epoll_edges, epoll_once, epoll_changes, epoll_refused, epoll_waits, epoll_nested, epoll_loops,
    epoll_exclusive, epoll_duplicates, epoll_many, epoll_order, epoll_order_of_errors, eventfd_counts, eventfd_semaphore, eventfd_waits, timerfd_reads,
    timerfd_refused, signalfd_reads, signalfd_masks, unix_sockets, changed_meanwhile,
}

const NOW: timespec = timespec { tv_sec: 0, tv_nsec: 0 };

fn poll_for(fd: i32, events: i16) -> String {
    let mut entry = pollfd { fd, events, revents: 0 };
    let ret = sys!(SYS_ppoll, &mut entry, 1, &NOW, 0, 8);
    format!("{ret} {}", names(entry.revents as u32))
}

fn names(events: u32) -> String {
    let known = [
        (EPOLLIN, "IN"),
        (EPOLLPRI, "PRI"),
        (EPOLLOUT, "OUT"),
        (EPOLLERR, "ERR"),
        (EPOLLHUP, "HUP"),
        (POLLNVAL.into(), "NVAL"),
        (EPOLLRDNORM, "RDNORM"),
        (EPOLLRDBAND, "RDBAND"),
        (EPOLLWRNORM, "WRNORM"),
        (EPOLLWRBAND, "WRBAND"),
        (EPOLLRDHUP, "RDHUP"),
    ];
    let found: Vec<&str> = known.iter().filter(|(bit, _)| events & *bit as u32 != 0).map(|(_, name)| *name).collect();
    format!("[{}]", found.join(" "))
}

const ALL: i16 = 0x7ff & !POLLNVAL & !POLLERR & !POLLHUP & !0x400;

fn kinds() {
    let [reader, writer] = pipe();
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, &mut pair);
    let mask = 0u64;
    for (what, fd) in [
        ("pipe's reader", reader),
        ("pipe's writer", writer),
        ("socket", pair[0]),
        ("file", create(c"f", "")),
        ("reader of a file", open(c"f", O_RDONLY).fd()),
        ("directory", open(c".", O_RDONLY).fd()),
        ("/dev/null", open(c"/dev/null", O_RDWR).fd()),
        ("/dev/zero", open(c"/dev/zero", O_RDONLY).fd()),
        ("/dev/full", open(c"/dev/full", O_RDWR).fd()),
        ("/proc/self/stat", open(c"/proc/self/stat", O_RDONLY).fd()),
        ("eventfd", sys!(SYS_eventfd2, 0, 0).fd()),
        ("timerfd", sys!(SYS_timerfd_create, CLOCK_MONOTONIC, 0).fd()),
        ("signalfd", sys!(SYS_signalfd4, -1, &mask, 8, 0).fd()),
        ("epoll", sys!(SYS_epoll_create1, 0).fd()),
        ("pidfd of a living one", sys!(SYS_pidfd_open, sys!(SYS_getpid).0, 0).fd()),
        ("ptmx", open(c"/dev/ptmx", O_RDWR | O_NOCTTY).fd()),
        ("memfd", sys!(SYS_memfd_create, c"m", 0).fd()),
        ("O_PATH", open(c"f", O_PATH).fd()),
        ("closed", 77),
        ("minus one", -1),
    ] {
        say!("{what}: {}", poll_for(fd, ALL));
    }
}

fn masks() {
    let [reader, writer] = pipe();
    write(writer, "x");
    for events in [0, POLLIN, POLLOUT, POLLRDNORM, POLLPRI, POLLIN | POLLOUT | POLLPRI, -1] {
        say!("asked {events:#x}: {}", poll_for(reader, events));
    }
    close(writer);
    say!("nothing asked, nobody writes: {}", poll_for(reader, 0));
    let mut many = [
        pollfd { fd: reader, events: POLLIN, revents: 77 },
        pollfd { fd: -1, events: POLLIN, revents: 77 },
        pollfd { fd: -5, events: POLLIN, revents: 77 },
        pollfd { fd: reader, events: POLLOUT, revents: 77 },
        pollfd { fd: 99, events: 0, revents: 77 },
    ];
    say!("five: {}", sys!(SYS_ppoll, &mut many, 5, &NOW, 0, 8));
    for entry in many {
        say!("{}: {}", entry.fd.min(9), names(entry.revents as u32));
    }
}

fn refused() {
    let mut entry = pollfd { fd: 0, events: POLLIN, revents: 0 };
    let bad = timespec { tv_sec: 0, tv_nsec: 1_000_000_000 };
    let negative = timespec { tv_sec: -1, tv_nsec: 0 };
    say!("nothing: {}", sys!(SYS_ppoll, 0, 0, &NOW, 0, 8));
    say!("bad pointer: {} {}", sys!(SYS_ppoll, NOWHERE, 1, &NOW, 0, 8), sys!(SYS_ppoll, KERNEL, 1, &NOW, 0, 8));
    say!("bad pointer to nothing: {}", sys!(SYS_ppoll, NOWHERE, 0, &NOW, 0, 8));
    say!(
        "bad times: {} {}",
        sys!(SYS_ppoll, &mut entry, 1, &bad, 0, 8),
        sys!(SYS_ppoll, &mut entry, 1, &negative, 0, 8)
    );
    say!("bad pointer to the time: {}", sys!(SYS_ppoll, &mut entry, 1, NOWHERE, 0, 8));
    let mask = 0u64;
    say!("size of the mask: {} {}", sys!(SYS_ppoll, &mut entry, 1, &NOW, &mask, 4), {
        sys!(SYS_ppoll, &mut entry, 1, &NOW, 0, 4)
    });
    say!("bad pointer to the mask: {}", sys!(SYS_ppoll, &mut entry, 1, &NOW, NOWHERE, 8));
    let limit = [10u64, 10];
    sys!(SYS_prlimit64, 0, RLIMIT_NOFILE, &limit, 0);
    let mut many = [pollfd { fd: -1, events: 0, revents: 0 }; 11];
    say!("at the limit of descriptors: {}", sys!(SYS_ppoll, &mut many, 10, &NOW, 0, 8));
    say!("beyond: {}", sys!(SYS_ppoll, &mut many, 11, &NOW, 0, 8));
}

fn timeouts() {
    let [reader, _writer] = pipe();
    let mut entry = pollfd { fd: reader, events: POLLIN, revents: 7 };
    let mut time = timespec { tv_sec: 0, tv_nsec: 20_000_000 };
    let before = std::time::Instant::now();
    say!("20 ms: {} revents {}", sys!(SYS_ppoll, &mut entry, 1, &mut time, 0, 8), entry.revents);
    say!("no earlier: {}", before.elapsed().as_millis() >= 20);
    say!("the time is used up: {} {}", time.tv_sec, time.tv_nsec);
    let mut time = timespec { tv_sec: 1000, tv_nsec: 0 };
    let mut ready = pollfd { fd: 0, events: POLLIN, revents: 0 };
    say!("ready at once: {}", sys!(SYS_ppoll, &mut ready, 1, &mut time, 0, 8));
    say!("time is left: {}", time.tv_sec >= 990);
    let before = std::time::Instant::now();
    let time = timespec { tv_sec: 0, tv_nsec: 15_000_000 };
    say!("only the time: {}", sys!(SYS_ppoll, 0, 0, &time, 0, 8));
    say!("no earlier: {}", before.elapsed().as_millis() >= 15);
}

fn interrupted() {
    let [reader, writer] = pipe();
    let wait_for_it = |what: &str, flags: i32, act: &dyn Fn() -> Ret| {
        let child = process::child(|| {
            signal::handle(SIGUSR1, signal::count, flags);
            let ret = act();
            say!("{what}: {ret}, caught {}", signal::caught());
            0
        });
        process::until_asleep(child);
        process::kill(child, SIGUSR1);
        process::wait(child);
    };
    wait_for_it("ppoll", 0, &|| {
        let mut entry = pollfd { fd: reader, events: POLLIN, revents: 0 };
        sys!(SYS_ppoll, &mut entry, 1, 0, 0, 8)
    });
    wait_for_it("ppoll, SA_RESTART", SA_RESTART, &|| {
        let mut entry = pollfd { fd: reader, events: POLLIN, revents: 0 };
        sys!(SYS_ppoll, &mut entry, 1, 0, 0, 8)
    });
    wait_for_it("pselect", SA_RESTART, &|| sys!(SYS_pselect6, 0, 0, 0, 0, 0, 0));
    wait_for_it("epoll_pwait", SA_RESTART, &|| {
        let epoll = sys!(SYS_epoll_create1, 0).fd();
        let mut event: epoll_event = zeroed();
        sys!(SYS_epoll_pwait, epoll, &mut event, 1, -1, 0, 8)
    });
    write(writer, "x");
    wait_for_it("time that is left", 0, &|| {
        let mut time = timespec { tv_sec: 100, tv_nsec: 0 };
        let ret = sys!(SYS_ppoll, 0, 0, &mut time, 0, 8);
        say!("is told: {}", time.tv_sec < 100 && time.tv_sec > 50);
        ret
    });
}

fn signal_mask() {
    signal::handle(SIGUSR1, signal::count, 0);
    signal::block(SIGUSR1);
    signal::kill_self(SIGUSR1);
    say!("blocked: {}", signal::caught());
    let [reader, writer] = pipe();
    let mut entry = pollfd { fd: reader, events: POLLIN, revents: 0 };
    let time = timespec { tv_sec: 10, tv_nsec: 0 };
    let none = 0u64;
    say!("let in by ppoll: {}, caught {}", sys!(SYS_ppoll, &mut entry, 1, &time, &none, 8), signal::caught());
    say!("the mask is back: {}", signal::names(signal::mask(SIG_BLOCK, 0)));
    signal::kill_self(SIGUSR1);
    write(writer, "x");
    say!("ready and pending: {}, caught {}", sys!(SYS_ppoll, &mut entry, 1, &time, &none, 8), signal::caught());
    say!("still pending: {}", signal::names(signal::pending()));
    let epoll = sys!(SYS_epoll_create1, 0).fd();
    let mut event: epoll_event = zeroed();
    say!("let in by epoll_pwait: {}, caught {}", sys!(SYS_epoll_pwait, epoll, &mut event, 1, 1000, &none, 8), {
        signal::caught()
    });
    signal::kill_self(SIGUSR1);
    let pair = [std::ptr::from_ref(&none) as usize, 8];
    say!("let in by pselect6: {}, caught {}", sys!(SYS_pselect6, 0, 0, 0, 0, &time, &pair), signal::caught());
    let all = u64::MAX;
    signal::unblock(SIGUSR1);
    let child = process::child(|| {
        let time = timespec { tv_sec: 0, tv_nsec: 300_000_000 };
        let ret = sys!(SYS_ppoll, 0, 0, &time, &all, 8);
        say!("kept out: {ret}, caught afterwards {}", signal::caught());
        0
    });
    process::until_asleep(child);
    process::kill(child, SIGUSR1);
    process::wait(child);
}

fn wakes() {
    let [reader, writer] = pipe();
    let [reader2, writer2] = pipe();
    let child = process::child(|| {
        let mut entries =
            [pollfd { fd: reader, events: POLLIN, revents: 0 }, pollfd { fd: reader2, events: POLLIN, revents: 0 }];
        let ret = sys!(SYS_ppoll, &mut entries, 2, 0, 0, 8);
        say!("woken: {ret} {} {}", names(entries[0].revents as u32), names(entries[1].revents as u32));
        0
    });
    process::until_asleep(child);
    write(writer2, "x");
    process::wait(child);
    let child = process::child(|| {
        close(writer);
        let mut entry = pollfd { fd: reader, events: 0, revents: 0 };
        let ret = sys!(SYS_ppoll, &mut entry, 1, 0, 0, 8);
        say!("hung up: {ret} {}", names(entry.revents as u32));
        0
    });
    process::until_asleep(child);
    close(writer);
    process::wait(child);
    let pid = process::child(|| {
        process::sleep_ms(30);
        3
    });
    let pidfd = sys!(SYS_pidfd_open, pid, 0).fd();
    let mut entry = pollfd { fd: pidfd, events: POLLIN, revents: 0 };
    say!("a process ends: {} {}", sys!(SYS_ppoll, &mut entry, 1, 0, 0, 8), names(entry.revents as u32));
    process::wait(pid);
    say!("and is waited for: {}", poll_for(pidfd, POLLIN));
}

fn epoll() -> i32 {
    sys!(SYS_epoll_create1, 0).fd()
}

fn control(epoll: i32, operation: i32, fd: i32, events: u32) -> Ret {
    let event = epoll_event { events, u64: fd as u64 };
    sys!(SYS_epoll_ctl, epoll, operation, fd, &event)
}

/// What is ready now: descriptors as they were registered, in ascending order.
fn found(epoll: i32) -> String {
    let mut events = [zeroed::<epoll_event>(); 8];
    let ret = sys!(SYS_epoll_pwait, epoll, &mut events, 8, 0, 0, 8);
    let mut list: Vec<(u64, u32)> =
        events[..ret.0.max(0) as usize].iter().map(|event| (event.u64, event.events)).collect();
    list.sort_unstable();
    let list: Vec<String> = list.into_iter().map(|(data, events)| format!("{data} {}", names(events))).collect();
    format!("{ret} {}", list.join(", "))
}

const IN: u32 = EPOLLIN as u32;

const OUT: u32 = EPOLLOUT as u32;

const EDGE: u32 = EPOLLET as u32;

fn unix_sockets() {
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, &mut pair);
    let events = ALL | 0x2000;
    say!("fresh: {}", poll_for(pair[0], events));
    write(pair[1], "x");
    say!("something to read: {}", poll_for(pair[0], events));
    sys!(SYS_shutdown, pair[1], SHUT_WR);
    say!("the other writes no more: {}", poll_for(pair[0], events));
    read(pair[0], 10);
    say!("at the end: {}", poll_for(pair[0], events));
    say!("the one that shut down: {}", poll_for(pair[1], events));
    sys!(SYS_shutdown, pair[0], SHUT_WR);
    say!("both shut down: {} {}", poll_for(pair[0], events), poll_for(pair[1], events));
    close(pair[1]);
    say!("the other is closed: {}", poll_for(pair[0], events));
    let listener = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
    say!("a new socket: {}", poll_for(listener, events));
    let [_, writer] = pipe_with(O_NONBLOCK);
    let ep = epoll();
    control(ep, EPOLL_CTL_ADD, writer, OUT | EDGE);
    say!("an edge at the start: {}", found(ep).split(' ').next().unwrap_or_default());
    let page = memory::pages(1);
    while sys!(SYS_write, writer, page, 4096).ok() {}
    say!("full: {}", found(ep).split(' ').next().unwrap_or_default());
}

/// Only `revents` is written: what another thread has done to the array while somebody waited stays.
fn changed_meanwhile() {
    let [reader, writer] = pipe();
    let entries = memory::shared_page().cast::<pollfd>();
    let set = |index: usize, entry: pollfd| unsafe { entries.add(index).write_volatile(entry) };
    let get = |index: usize| unsafe { entries.add(index).read_volatile() };
    for index in 0..3 {
        set(index, pollfd { fd: reader, events: if index == 1 { POLLPRI } else { POLLIN }, revents: 0 });
    }
    let child = process::child(|| {
        say!("{}", sys!(SYS_ppoll, entries, 3, 0, 0, 8));
        0
    });
    process::until_asleep(child);
    for index in 0..3 {
        set(index, pollfd { fd: -7, events: POLLOUT, revents: 77 });
    }
    write(writer, "x");
    process::wait(child);
    for index in 0..3 {
        let entry = get(index);
        say!("{} {} {:#x}", entry.fd, entry.events, entry.revents);
    }
}
