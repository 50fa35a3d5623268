//! Waiting for readiness: ppoll, pselect6, epoll, eventfd, timerfd, signalfd.

use libc::*;

use crate::file::{close, create, open, pipe, pipe_with, read, write};
use crate::memory;
use crate::process::{self, Gate};
use crate::sys::{KERNEL, NOWHERE, Ret, sys, zeroed};
use crate::{say, signal, tests};

tests! {
    kinds, masks, refused, timeouts, interrupted, signal_mask, wakes, select_sets, select_refused, select_waits,
    epoll_levels, epoll_edges, epoll_once, epoll_changes, epoll_refused, epoll_waits, epoll_nested, epoll_loops,
    epoll_exclusive, epoll_duplicates, epoll_order, eventfd_counts, eventfd_semaphore, eventfd_waits, timerfd_reads,
    timerfd_refused, signalfd_reads, signalfd_masks, unix_sockets,
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

fn set_of(fds: &[i32]) -> [u64; 16] {
    let mut set = [0u64; 16];
    for fd in fds {
        set[*fd as usize / 64] |= 1 << (*fd % 64);
    }
    set
}

fn select_sets() {
    let [reader, writer] = pipe();
    let [reader2, writer2] = pipe();
    write(writer, "x");
    let (mut read_set, mut write_set) = (set_of(&[reader, reader2]), set_of(&[writer, writer2]));
    let mut except = set_of(&[reader]);
    let ret = sys!(SYS_pselect6, 10, &mut read_set, &mut write_set, &mut except, &NOW, 0);
    say!("ready: {ret} read {:#x} write {:#x} except {:#x}", read_set[0], write_set[0], except[0]);
    let mut read_set = set_of(&[reader, reader2]);
    say!("only the low ones: {} {:#x}", sys!(SYS_pselect6, reader, &mut read_set, 0, 0, &NOW, 0), read_set[0]);
    close(writer2);
    let mut read_set = set_of(&[reader2]);
    say!("hung up: {} {:#x}", sys!(SYS_pselect6, 10, &mut read_set, 0, 0, &NOW, 0), read_set[0]);
    close(reader);
    let (mut write_set, mut except) = (set_of(&[writer]), set_of(&[writer]));
    say!(
        "nobody reads: {} {:#x} {:#x}",
        sys!(SYS_pselect6, 10, 0, &mut write_set, &mut except, &NOW, 0),
        write_set[0],
        { except[0] }
    );
    let file = create(c"f", "");
    let high = sys!(SYS_fcntl, file, F_DUPFD, 300).fd();
    let mut read_set = set_of(&[high]);
    say!("a high one: {} {}", sys!(SYS_pselect6, high + 1, &mut read_set, 0, 0, &NOW, 0), read_set == set_of(&[high]));
}

fn select_refused() {
    let mut set = set_of(&[60]);
    say!("closed: {}", sys!(SYS_pselect6, 61, &mut set, 0, 0, &NOW, 0));
    say!("negative count: {}", sys!(SYS_pselect6, -1, 0, 0, 0, &NOW, 0));
    say!("a huge count: {}", sys!(SYS_pselect6, 1 << 30, 0, 0, 0, &NOW, 0));
    say!("bad set: {}", sys!(SYS_pselect6, 10, NOWHERE, 0, 0, &NOW, 0));
    let bad = timespec { tv_sec: 0, tv_nsec: -1 };
    say!("bad time: {}", sys!(SYS_pselect6, 0, 0, 0, 0, &bad, 0));
    say!("bad pointer to the time: {}", sys!(SYS_pselect6, 0, 0, 0, 0, NOWHERE, 0));
    let none = 0u64;
    let pair = [std::ptr::from_ref(&none) as usize, 4];
    say!("size of the mask: {}", sys!(SYS_pselect6, 0, 0, 0, 0, &NOW, &pair));
    say!("bad pointer to the mask: {}", sys!(SYS_pselect6, 0, 0, 0, 0, &NOW, NOWHERE));
}

fn select_waits() {
    let [reader, writer] = pipe();
    let child = process::child(|| {
        let mut set = set_of(&[reader]);
        let ret = sys!(SYS_pselect6, reader + 1, &mut set, 0, 0, 0, 0);
        say!("woken: {ret} {}", set == set_of(&[reader]));
        0
    });
    process::until_asleep(child);
    write(writer, "x");
    process::wait(child);
    read(reader, 1);
    let mut time = timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    let mut set = set_of(&[reader]);
    say!("in vain: {} {:#x}", sys!(SYS_pselect6, reader + 1, &mut set, 0, 0, &mut time, 0), set[0]);
    say!("the time is used up: {} {}", time.tv_sec, time.tv_nsec);
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
const ONCE: u32 = EPOLLONESHOT as u32;
const EXCLUSIVE: u32 = EPOLLEXCLUSIVE as u32;

fn epoll_levels() {
    let ep = epoll();
    let [reader, writer] = pipe();
    say!("add: {} {}", control(ep, EPOLL_CTL_ADD, reader, IN), control(ep, EPOLL_CTL_ADD, writer, OUT));
    say!("at first: {}", found(ep));
    write(writer, "xy");
    say!("written: {}", found(ep));
    say!("again: {}", found(ep));
    read(reader, 1);
    say!("one read: {}", found(ep));
    read(reader, 1);
    say!("all read: {}", found(ep));
    close(writer);
    say!("writer closed: {}", found(ep));
    close(reader);
    say!("both closed: {}", found(ep));
}

fn epoll_edges() {
    let ep = epoll();
    let [reader, writer] = pipe();
    control(ep, EPOLL_CTL_ADD, reader, IN | EDGE);
    say!("empty: {}", found(ep));
    write(writer, "ab");
    say!("written: {}", found(ep));
    say!("again: {}", found(ep));
    read(reader, 1);
    say!("one read: {}", found(ep));
    write(writer, "c");
    say!("one more written: {}", found(ep));
    say!("again: {}", found(ep));
    say!("modified: {} {}", control(ep, EPOLL_CTL_MOD, reader, IN | EDGE), found(ep));
    control(ep, EPOLL_CTL_ADD, writer, OUT | EDGE);
    say!("a writer: {}", found(ep));
    read(reader, 10);
    say!("after a read of a pipe that was not full: {}", found(ep));
    close(writer);
    say!("closed: {}", found(ep));
    say!("again: {}", found(ep));
}

fn epoll_once() {
    let ep = epoll();
    let [reader, writer] = pipe();
    control(ep, EPOLL_CTL_ADD, reader, IN | ONCE);
    write(writer, "x");
    say!("once: {}", found(ep));
    say!("again: {}", found(ep));
    write(writer, "y");
    say!("more: {}", found(ep));
    say!("armed again: {} {}", control(ep, EPOLL_CTL_MOD, reader, IN | ONCE), found(ep));
    say!("add again: {}", control(ep, EPOLL_CTL_ADD, reader, IN));
    close(writer);
    say!("a hang-up does not count: {}", found(ep));
    say!("armed for nothing: {} {}", control(ep, EPOLL_CTL_MOD, reader, 0), found(ep));
}

fn epoll_changes() {
    let ep = epoll();
    let [reader, writer] = pipe();
    write(writer, "x");
    say!("modify what is not there: {}", control(ep, EPOLL_CTL_MOD, reader, IN));
    say!("delete what is not there: {}", control(ep, EPOLL_CTL_DEL, reader, IN));
    say!("add: {}", control(ep, EPOLL_CTL_ADD, reader, 0));
    say!("nothing wanted: {}", found(ep));
    say!("modify: {} {}", control(ep, EPOLL_CTL_MOD, reader, IN), found(ep));
    let event = epoll_event { events: IN, u64: 4711 };
    say!("other data: {} {}", sys!(SYS_epoll_ctl, ep, EPOLL_CTL_MOD, reader, &event), found(ep));
    say!("add again: {}", control(ep, EPOLL_CTL_ADD, reader, IN));
    say!("delete: {} {}", sys!(SYS_epoll_ctl, ep, EPOLL_CTL_DEL, reader, 0), found(ep));
    say!("delete again: {}", control(ep, EPOLL_CTL_DEL, reader, IN));
    control(ep, EPOLL_CTL_ADD, reader, IN);
    let twin = sys!(SYS_dup, reader).fd();
    close(reader);
    say!("closed, but a dup lives: {}", found(ep).split(' ').next().unwrap_or_default());
    say!("the number is free: {}", control(ep, EPOLL_CTL_DEL, reader, 0));
    close(twin);
    say!("the dup is closed: {}", found(ep));
}

fn epoll_refused() {
    let ep = epoll();
    let [reader, _] = pipe();
    let mut event: epoll_event = zeroed();
    say!("create: {} {}", sys!(SYS_epoll_create1, 1), sys!(SYS_epoll_create1, EPOLL_CLOEXEC).ok_or_error());
    say!("unknown operation: {}", control(ep, 9, reader, IN));
    say!("not an epoll: {}", control(reader, EPOLL_CTL_ADD, reader, IN));
    say!("closed epoll: {}", control(60, EPOLL_CTL_ADD, reader, IN));
    say!("closed descriptor: {}", control(ep, EPOLL_CTL_ADD, 60, IN));
    say!("itself: {}", control(ep, EPOLL_CTL_ADD, ep, IN));
    say!("a file: {}", control(ep, EPOLL_CTL_ADD, create(c"f", ""), IN));
    say!("a directory: {}", control(ep, EPOLL_CTL_ADD, open(c".", O_RDONLY).fd(), IN));
    say!("/dev/null: {}", control(ep, EPOLL_CTL_ADD, 0, IN));
    say!("an O_PATH: {}", control(ep, EPOLL_CTL_ADD, open(c"f", O_PATH).fd(), IN));
    say!("bad pointer: {}", sys!(SYS_epoll_ctl, ep, EPOLL_CTL_ADD, reader, NOWHERE));
    let wait = |fd: i32, count: i32, pointer: *mut c_void| sys!(SYS_epoll_pwait, fd, pointer, count, 0, 0, 8);
    say!("none asked: {}", wait(ep, 0, (&raw mut event).cast()));
    say!("negative: {}", wait(ep, -1, (&raw mut event).cast()));
    say!("a huge count: {}", wait(ep, i32::MAX, (&raw mut event).cast()));
    say!("wait on a pipe: {}", wait(reader, 1, (&raw mut event).cast()));
    say!("wait on a closed one: {}", wait(60, 1, (&raw mut event).cast()));
    say!("bad pointer, nothing ready: {}", wait(ep, 1, NOWHERE));
    say!("the kernel's: {}", wait(ep, 1, KERNEL));
    let [reader, writer] = pipe();
    control(ep, EPOLL_CTL_ADD, reader, IN);
    write(writer, "x");
    say!("bad pointer, something ready: {}", wait(ep, 1, NOWHERE));
    say!("it is not lost: {}", found(ep).split(' ').next().unwrap_or_default());
    let mask = 0u64;
    say!("size of the mask: {}", sys!(SYS_epoll_pwait, ep, &mut event, 1, 0, &mask, 4));
    let time = timespec { tv_sec: 0, tv_nsec: -1 };
    say!("epoll_pwait2: {}", sys!(SYS_epoll_pwait2, ep, &mut event, 1, &NOW, 0, 8));
    say!("bad time: {}", sys!(SYS_epoll_pwait2, ep, &mut event, 1, &time, 0, 8));
}

fn epoll_waits() {
    let ep = epoll();
    let [reader, writer] = pipe();
    control(ep, EPOLL_CTL_ADD, reader, IN);
    let child = process::child(|| {
        let mut event: epoll_event = zeroed();
        let ret = sys!(SYS_epoll_pwait, ep, &mut event, 1, -1, 0, 8);
        let events = event.events;
        say!("woken: {ret} {}", names(events));
        0
    });
    process::until_asleep(child);
    write(writer, "x");
    process::wait(child);
    let [late_reader, late_writer] = pipe();
    read(reader, 1);
    let child = process::child(|| {
        let mut event: epoll_event = zeroed();
        say!("woken by what was added: {}", sys!(SYS_epoll_pwait, ep, &mut event, 1, -1, 0, 8));
        0
    });
    process::until_asleep(child);
    write(late_writer, "x");
    control(ep, EPOLL_CTL_ADD, late_reader, IN);
    process::wait(child);
    read(late_reader, 1);
    let before = std::time::Instant::now();
    let mut event: epoll_event = zeroed();
    say!("20 ms: {}", sys!(SYS_epoll_pwait, ep, &mut event, 1, 20, 0, 8));
    say!("no earlier: {}", before.elapsed().as_millis() >= 20);
    let time = timespec { tv_sec: 0, tv_nsec: 5_000_000 };
    say!("epoll_pwait2, 5 ms: {}", sys!(SYS_epoll_pwait2, ep, &mut event, 1, &time, 0, 8));
}

fn epoll_nested() {
    let (outer, inner) = (epoll(), epoll());
    let [reader, writer] = pipe();
    say!("add: {}", control(inner, EPOLL_CTL_ADD, reader, IN));
    say!("an epoll into another: {}", control(outer, EPOLL_CTL_ADD, inner, IN));
    say!("nothing: {}", found(outer).split(' ').next().unwrap_or_default());
    say!("poll: {}", poll_for(inner, POLLIN));
    write(writer, "x");
    say!("written: {} {}", found(outer).contains("IN"), poll_for(inner, POLLIN));
    let mut entry = pollfd { fd: outer, events: POLLIN, revents: 0 };
    say!("poll of the outer: {}", sys!(SYS_ppoll, &mut entry, 1, &NOW, 0, 8));
    read(reader, 1);
    say!("read: {} {}", found(outer).split(' ').next().unwrap_or_default(), poll_for(inner, POLLIN));
    let child = process::child(|| {
        let mut event: epoll_event = zeroed();
        say!("woken through both: {}", sys!(SYS_epoll_pwait, outer, &mut event, 1, -1, 0, 8));
        0
    });
    process::until_asleep(child);
    write(writer, "y");
    process::wait(child);
    close(inner);
    say!("the inner is closed: {}", found(outer));
}

fn epoll_loops() {
    let (a, b, c) = (epoll(), epoll(), epoll());
    say!("a in b: {}", control(b, EPOLL_CTL_ADD, a, IN));
    say!("b in c: {}", control(c, EPOLL_CTL_ADD, b, IN));
    say!("c in a: {}", control(a, EPOLL_CTL_ADD, c, IN));
    say!("b in a: {}", control(a, EPOLL_CTL_ADD, b, IN));
    say!("a in c: {}", control(c, EPOLL_CTL_ADD, a, IN));
    let mut last = c;
    for depth in 3..9 {
        let next = epoll();
        let ret = control(next, EPOLL_CTL_ADD, last, IN);
        say!("chain of {depth}: {ret}");
        last = next;
    }
}

fn epoll_exclusive() {
    let ep = epoll();
    let [reader, writer] = pipe();
    say!("add: {}", control(ep, EPOLL_CTL_ADD, reader, IN | EXCLUSIVE));
    say!("modify: {}", control(ep, EPOLL_CTL_MOD, reader, IN));
    say!("delete: {}", control(ep, EPOLL_CTL_DEL, reader, 0));
    say!("modify to it: {} {}", control(ep, EPOLL_CTL_ADD, reader, IN), {
        control(ep, EPOLL_CTL_MOD, reader, IN | EXCLUSIVE)
    });
    say!("with ONESHOT: {}", control(ep, EPOLL_CTL_ADD, writer, OUT | EXCLUSIVE | ONCE));
    say!("with RDHUP: {}", control(ep, EPOLL_CTL_ADD, writer, OUT | EXCLUSIVE | EPOLLRDHUP as u32));
    say!("with PRI: {}", control(ep, EPOLL_CTL_ADD, writer, EPOLLPRI as u32 | EXCLUSIVE));
    say!("with ET: {}", control(ep, EPOLL_CTL_ADD, writer, OUT | EXCLUSIVE | EDGE));
    say!("of an epoll: {}", control(ep, EPOLL_CTL_ADD, epoll(), IN | EXCLUSIVE));
    write(writer, "x");
    say!("found: {}", found(ep));
}

fn epoll_duplicates() {
    let ep = epoll();
    let [reader, writer] = pipe();
    let twin = sys!(SYS_dup, reader).fd();
    say!(
        "one file by two numbers: {} {}",
        control(ep, EPOLL_CTL_ADD, reader, IN),
        control(ep, EPOLL_CTL_ADD, twin, IN)
    );
    write(writer, "x");
    say!("both: {}", found(ep));
    close(reader);
    say!("one closed: {}", found(ep));
    let [again, _] = pipe();
    say!("the number is taken again: {}", again == reader);
    say!("added: {}", control(ep, EPOLL_CTL_ADD, again, IN));
    say!("and found: {}", found(ep));
    let other = sys!(SYS_dup, ep).fd();
    say!("through a dup of the epoll: {}", found(other));
    process::in_child(|| {
        say!("in a child: {}", found(ep));
        0
    });
}

fn epoll_order() {
    let ep = epoll();
    let pipes: Vec<[i32; 2]> = (0..4).map(|_| pipe()).collect();
    for ends in &pipes {
        control(ep, EPOLL_CTL_ADD, ends[0], IN);
    }
    for index in [2, 0, 3, 1] {
        write(pipes[index][1], "x");
    }
    let one = || {
        let mut event: epoll_event = zeroed();
        sys!(SYS_epoll_pwait, ep, &mut event, 1, 0, 0, 8);
        let data = event.u64;
        pipes.iter().position(|ends| ends[0] as u64 == data).unwrap_or(9)
    };
    say!("one at a time, in the order they became ready: {} {} {} {}", one(), one(), one(), one());
    say!("and round again: {} {} {} {}", one(), one(), one(), one());
}

fn event_value(fd: i32) -> String {
    let mut value = 0u64;
    let ret = sys!(SYS_read, fd, &mut value, 8);
    if ret.ok() { format!("{ret} value {value}") } else { ret.to_string() }
}

fn event_add(fd: i32, value: u64) -> Ret {
    sys!(SYS_write, fd, &value, 8)
}

fn eventfd_counts() {
    let fd = sys!(SYS_eventfd2, 5, EFD_NONBLOCK).fd();
    say!("at first: {} {}", poll_for(fd, POLLIN | POLLOUT), event_value(fd));
    say!("empty: {} {}", poll_for(fd, POLLIN | POLLOUT), event_value(fd));
    say!("added: {} {} {}", event_add(fd, 3), event_add(fd, 4), event_value(fd));
    say!("zero: {} {}", event_add(fd, 0), event_value(fd));
    say!("the largest: {}", event_add(fd, u64::MAX - 1));
    say!("full: {} {}", event_add(fd, 1), poll_for(fd, POLLIN | POLLOUT));
    say!("zero when full: {}", event_add(fd, 0));
    say!("all ones: {}", event_add(fd, u64::MAX));
    say!("read: {}", event_value(fd));
    let mut long = [0u64; 2];
    event_add(fd, 9);
    say!("a longer read: {} {}", sys!(SYS_read, fd, &mut long, 16), long[0]);
    say!("a longer write: {} {}", sys!(SYS_write, fd, &[7u64, 8], 16), event_value(fd));
    say!("shorter ones: {} {}", sys!(SYS_read, fd, &mut long, 7), sys!(SYS_write, fd, &long, 7));
    say!("bad pointers: {} {}", sys!(SYS_write, fd, NOWHERE, 8), {
        event_add(fd, 2);
        sys!(SYS_read, fd, NOWHERE, 8)
    });
    say!("unknown flag: {}", sys!(SYS_eventfd2, 0, 4));
    say!("status: {:o}", sys!(SYS_fcntl, fd, F_GETFL, 0).0);
}

fn eventfd_semaphore() {
    let fd = sys!(SYS_eventfd2, 3, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC).fd();
    say!("one at a time: {} {} {} {}", event_value(fd), event_value(fd), event_value(fd), event_value(fd));
    event_add(fd, 2);
    say!("then: {} {} {}", event_value(fd), event_value(fd), event_value(fd));
    say!("close on exec: {}", sys!(SYS_fcntl, fd, F_GETFD, 0));
}

fn eventfd_waits() {
    let fd = sys!(SYS_eventfd2, 0, 0).fd();
    let child = process::child(|| {
        say!("read: {}", event_value(fd));
        0
    });
    process::until_asleep(child);
    event_add(fd, 11);
    process::wait(child);
    event_add(fd, u64::MAX - 1);
    let child = process::child(|| {
        let ret = event_add(fd, 5);
        say!("written: {ret}");
        0
    });
    process::until_asleep(child);
    let first = event_value(fd);
    process::wait(child);
    say!("read: {first}, then {}", event_value(fd));
}

fn timerfd_reads() {
    let fd = sys!(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_NONBLOCK).fd();
    let spec = |interval: i64, value: i64| [0i64, interval, 0, value];
    say!("not set: {} {}", event_value(fd), poll_for(fd, POLLIN));
    say!("once in 1 ns: {}", sys!(SYS_timerfd_settime, fd, 0, &spec(0, 1), 0));
    process::sleep_ms(5);
    say!("expired: {} {}", poll_for(fd, POLLIN | POLLOUT), event_value(fd));
    say!("and read: {} {}", poll_for(fd, POLLIN), event_value(fd));
    sys!(SYS_timerfd_settime, fd, 0, &spec(10_000_000, 10_000_000), 0);
    process::sleep_ms(35);
    let mut count = 0u64;
    sys!(SYS_read, fd, &mut count, 8);
    say!("expirations add up: {}", count >= 3);
    let mut old = [0i64; 4];
    say!("set to nothing: {}", sys!(SYS_timerfd_settime, fd, 0, &[0i64; 4], &mut old));
    say!("the old one: interval {}, value in between {}", old[1], old[3] > 0 && old[3] <= 10_000_000);
    let mut now = [9i64; 4];
    say!("get: {} {now:?}", sys!(SYS_timerfd_gettime, fd, &mut now));
    sys!(SYS_timerfd_settime, fd, 0, &[0i64, 0, 1000, 0], 0);
    sys!(SYS_timerfd_gettime, fd, &mut now);
    say!("long: {} {}", now[2] >= 990, now[0]);
    let mut time: timespec = zeroed();
    sys!(SYS_clock_gettime, CLOCK_MONOTONIC, &mut time);
    say!("a time that has been: {}", sys!(SYS_timerfd_settime, fd, TFD_TIMER_ABSTIME, &[0i64, 0, time.tv_sec, 0], 0));
    process::sleep_ms(2);
    say!("expired: {}", event_value(fd));
    say!(
        "set again loses expirations: {} {}",
        {
            sys!(SYS_timerfd_settime, fd, 0, &spec(0, 1), 0);
            process::sleep_ms(2);
            sys!(SYS_timerfd_settime, fd, 0, &[0i64, 0, 1000, 0], 0)
        },
        event_value(fd)
    );
}

fn timerfd_refused() {
    let fd = sys!(SYS_timerfd_create, CLOCK_MONOTONIC, 0).fd();
    say!(
        "clocks: {} {} {}",
        sys!(SYS_timerfd_create, CLOCK_REALTIME, 0).ok_or_error(),
        { sys!(SYS_timerfd_create, CLOCK_BOOTTIME, 0).ok_or_error() },
        sys!(SYS_timerfd_create, CLOCK_PROCESS_CPUTIME_ID, 0)
    );
    say!("unknown: {} {}", sys!(SYS_timerfd_create, 99, 0), sys!(SYS_timerfd_create, CLOCK_MONOTONIC_COARSE, 0));
    say!("unknown flag: {}", sys!(SYS_timerfd_create, CLOCK_MONOTONIC, 1));
    process::as_plain_user(|| say!("alarm by a user: {}", sys!(SYS_timerfd_create, CLOCK_REALTIME_ALARM, 0)));
    let set = |fd: i32, flags: i32, spec: [i64; 4]| sys!(SYS_timerfd_settime, fd, flags, &spec, 0);
    say!("a billion nanoseconds: {}", set(fd, 0, [0, 0, 0, 1_000_000_000]));
    say!("in the interval: {}", set(fd, 0, [0, -1, 1, 0]));
    say!("negative: {}", set(fd, 0, [0, 0, -1, 0]));
    say!("unknown flag: {}", set(fd, 8, [0, 0, 1, 0]));
    say!("CANCEL_ON_SET of a monotonic one: {}", set(fd, TFD_TIMER_CANCEL_ON_SET | TFD_TIMER_ABSTIME, [0, 0, 1000, 0]));
    say!("not a timerfd: {} {}", set(0, 0, [0; 4]), sys!(SYS_timerfd_gettime, 0, &mut [0i64; 4]));
    say!("closed: {}", set(60, 0, [0; 4]));
    say!("bad pointers: {} {}", sys!(SYS_timerfd_settime, fd, 0, NOWHERE, 0), sys!(SYS_timerfd_gettime, fd, NOWHERE));
    say!("bad old: {}", sys!(SYS_timerfd_settime, fd, 0, &[0i64; 4], NOWHERE));
    say!("no new: {}", sys!(SYS_timerfd_settime, fd, 0, 0, 0));
}

fn signal_record(fd: i32) -> String {
    let mut record = [0u8; 128];
    let ret = sys!(SYS_read, fd, &mut record, 128);
    if !ret.ok() {
        return ret.to_string();
    }
    let number = |at: usize| i32::from_le_bytes(record[at..at + 4].try_into().unwrap_or_default());
    let own = number(12) == sys!(SYS_getpid).0 as i32;
    format!("{ret} {} code {} from itself {own} value {}", signal::name(number(0)), number(8), number(44))
}

fn signalfd_reads() {
    signal::mask(SIG_BLOCK, signal::bit(SIGUSR1) | signal::bit(SIGUSR2) | signal::bit(40));
    let mask = signal::bit(SIGUSR1) | signal::bit(40);
    let fd = sys!(SYS_signalfd4, -1, &mask, 8, SFD_NONBLOCK).fd();
    say!("nothing: {} {}", signal_record(fd), poll_for(fd, POLLIN));
    process::kill(sys!(SYS_getpid).0 as i32, SIGUSR1);
    signal::kill_self(SIGUSR2);
    say!("ready: {}", poll_for(fd, POLLIN | POLLOUT));
    say!("read: {}", signal_record(fd));
    say!("the other is not for it: {} pending {}", signal_record(fd), signal::names(signal::pending()));
    let mut info: siginfo_t = zeroed();
    info.si_signo = 40;
    info.si_code = SI_QUEUE;
    let words = (&raw mut info).cast::<i32>();
    // SAFETY: the words of a siginfo_t of 128 bytes: pid and value of a queued signal.
    unsafe {
        words.add(4).write(sys!(SYS_getpid).0 as i32);
        words.add(6).write(77);
    }
    sys!(SYS_rt_sigqueueinfo, sys!(SYS_getpid).0, 40, &info);
    signal::kill_self(SIGUSR1);
    let mut two = [0u8; 300];
    let ret = sys!(SYS_read, fd, &mut two, 300);
    let signals = [two[0], two[128]].map(|number| signal::name(number.into()));
    say!("two at once: {ret} {signals:?}");
    say!("short: {}", read(fd, 127));
    signal::kill_self(SIGUSR1);
    say!("bad pointer: {}", sys!(SYS_read, fd, NOWHERE, 128));
    process::in_child(|| {
        say!("a child sees its own: {}", poll_for(fd, POLLIN));
        signal::kill_self(40);
        say!("then: {}", signal_record(fd).split(' ').take(4).collect::<Vec<_>>().join(" "));
        0
    });
}

fn signalfd_masks() {
    signal::mask(SIG_BLOCK, signal::bit(SIGUSR1) | signal::bit(SIGUSR2));
    let mask = signal::bit(SIGUSR1);
    let fd = sys!(SYS_signalfd4, -1, &mask, 8, SFD_NONBLOCK).fd();
    signal::kill_self(SIGUSR2);
    say!("not in the mask: {}", poll_for(fd, POLLIN));
    let mask = signal::bit(SIGUSR2) | signal::bit(SIGKILL) | signal::bit(SIGSTOP);
    say!("a new mask: {} {}", sys!(SYS_signalfd4, fd, &mask, 8, 0).0 == i64::from(fd), poll_for(fd, POLLIN));
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    say!("{}", info.lines().find(|line| line.starts_with("sigmask")).unwrap_or_default());
    say!("size: {}", sys!(SYS_signalfd4, -1, &mask, 4, 0));
    say!("unknown flag: {}", sys!(SYS_signalfd4, -1, &mask, 8, 1));
    say!("not a signalfd: {}", sys!(SYS_signalfd4, 0, &mask, 8, 0));
    say!("closed: {}", sys!(SYS_signalfd4, 60, &mask, 8, 0));
    say!("bad pointer: {}", sys!(SYS_signalfd4, -1, NOWHERE, 8, 0));
    let ep = epoll();
    control(ep, EPOLL_CTL_ADD, fd, IN);
    say!("epoll: {}", found(ep).split(' ').next().unwrap_or_default());
    say!("taken: {}", signal_record(fd).split(' ').next().unwrap_or_default());
    let (ready, go) = (Gate::new(), Gate::new());
    let blocking = sys!(SYS_signalfd4, -1, &mask, 8, 0).fd();
    let child = process::child(|| {
        ready.open();
        let record = signal_record(blocking);
        say!("waited for: {}", record.split(' ').take(2).collect::<Vec<_>>().join(" "));
        go.open();
        0
    });
    ready.pass();
    process::until_asleep(child);
    process::kill(child, SIGUSR2);
    go.pass();
    process::wait(child);
}

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
