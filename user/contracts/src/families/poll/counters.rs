//! Descriptors to wait for: eventfd(2), timerfd_create(2), signalfd(2).

use libc::*;

use super::{IN, control, epoll, found, poll_for};
use crate::file::read;
use crate::process::{self, Gate};
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, signal};

fn event_value(fd: i32) -> String {
    let mut value = 0u64;
    let ret = sys!(SYS_read, fd, &mut value, 8);
    if ret.ok() { format!("{ret} value {value}") } else { ret.to_string() }
}

fn event_add(fd: i32, value: u64) -> Ret {
    sys!(SYS_write, fd, &value, 8)
}

pub(super) fn eventfd_counts() {
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

pub(super) fn eventfd_semaphore() {
    let fd = sys!(SYS_eventfd2, 3, EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC).fd();
    say!("one at a time: {} {} {} {}", event_value(fd), event_value(fd), event_value(fd), event_value(fd));
    event_add(fd, 2);
    say!("then: {} {} {}", event_value(fd), event_value(fd), event_value(fd));
    say!("close on exec: {}", sys!(SYS_fcntl, fd, F_GETFD, 0));
}

pub(super) fn eventfd_waits() {
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

pub(super) fn timerfd_reads() {
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

pub(super) fn timerfd_refused() {
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

pub(super) fn signalfd_reads() {
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

pub(super) fn signalfd_masks() {
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
