//! Clocks, sleeping and timers.

use libc::*;

use crate::process::{self, Gate};
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, signal, tests};

tests! {
    clocks, clock_refused, cpu_clocks, clocks_of_others, setting, sleep, sleep_refused, sleep_interrupted,
    sleep_until, interval_timers, interval_of_cpu, timers, timer_kinds, timer_refused, timer_overruns, timers_and_fork,
    day, adjusting, alarm_limits,
}

fn time_of(clock: i32) -> Result<timespec, Ret> {
    let mut time: timespec = zeroed();
    match sys!(SYS_clock_gettime, clock, &mut time) {
        ret if ret.ok() => Ok(time),
        error => Err(error),
    }
}

fn nanoseconds(time: timespec) -> i64 {
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

fn now() -> i64 {
    time_of(CLOCK_MONOTONIC).map_or(0, nanoseconds)
}

const KNOWN: [(&str, i32); 8] = [
    ("REALTIME", CLOCK_REALTIME),
    ("MONOTONIC", CLOCK_MONOTONIC),
    ("PROCESS_CPUTIME_ID", CLOCK_PROCESS_CPUTIME_ID),
    ("THREAD_CPUTIME_ID", CLOCK_THREAD_CPUTIME_ID),
    ("MONOTONIC_RAW", CLOCK_MONOTONIC_RAW),
    ("BOOTTIME", CLOCK_BOOTTIME),
    ("TAI", CLOCK_TAI),
    ("REALTIME_ALARM", CLOCK_REALTIME_ALARM),
];

fn clocks() {
    for (name, clock) in KNOWN {
        let (Ok(first), Ok(second)) = (time_of(clock), time_of(clock)) else {
            say!("{name}: {}", time_of(clock).err().unwrap_or(Ret(0)));
            continue;
        };
        let fine = (0..1_000_000_000).contains(&second.tv_nsec);
        say!("{name}: forward {}, nanoseconds {fine}", nanoseconds(second) >= nanoseconds(first));
        let mut resolution: timespec = zeroed();
        let ret = sys!(SYS_clock_getres, clock, &mut resolution);
        say!("resolution: {ret} {} {}", resolution.tv_sec, resolution.tv_nsec);
    }
    let coarse = time_of(CLOCK_MONOTONIC_COARSE).map_or(0, nanoseconds);
    say!("the coarse one is not ahead: {}", coarse <= now());
    say!("nor far behind: {}", now() - time_of(CLOCK_MONOTONIC_COARSE).map_or(0, nanoseconds) < 1_000_000_000);
    let boot = time_of(CLOCK_BOOTTIME).map_or(0, nanoseconds);
    say!("the boot clock is about the monotonic one: {}", (boot - now()).abs() < 1_000_000_000);
    say!("getres without a place: {}", sys!(SYS_clock_getres, CLOCK_REALTIME, 0));
}

fn clock_refused() {
    let mut time: timespec = zeroed();
    for clock in [10, 12, 15, 16, 99, -1, i32::MAX, i32::MIN] {
        say!("{clock}: {} {}", sys!(SYS_clock_gettime, clock, &mut time), sys!(SYS_clock_getres, clock, &mut time));
    }
    say!("bad pointers: {} {}", sys!(SYS_clock_gettime, CLOCK_REALTIME, NOWHERE), {
        sys!(SYS_clock_getres, CLOCK_REALTIME, NOWHERE)
    });
    say!("bad pointer and clock: {}", sys!(SYS_clock_gettime, 99, NOWHERE));
}

fn spin(milliseconds: i64) {
    let start = time_of(CLOCK_THREAD_CPUTIME_ID).map_or(0, nanoseconds);
    while time_of(CLOCK_THREAD_CPUTIME_ID).map_or(i64::MAX, nanoseconds) - start < milliseconds * 1_000_000 {}
}

fn cpu_clocks() {
    let process = || time_of(CLOCK_PROCESS_CPUTIME_ID).map_or(0, nanoseconds);
    let thread = || time_of(CLOCK_THREAD_CPUTIME_ID).map_or(0, nanoseconds);
    let (before_process, before_thread) = (process(), thread());
    spin(20);
    say!("both have run: {} {}", process() - before_process >= 20_000_000, thread() - before_thread >= 20_000_000);
    let before = process();
    process::sleep_ms(50);
    say!("not while asleep: {}", process() - before < 40_000_000);
    let before = process();
    let helper = std::thread::spawn(|| spin(20));
    let _ = helper.join();
    say!("the process's has the other thread's: {}", process() - before >= 20_000_000);
    process::in_child(|| {
        say!("a child's starts anew: {}", process() < 20_000_000);
        0
    });
    let mut usage: rusage = zeroed();
    say!("getrusage: {}", sys!(SYS_getrusage, RUSAGE_SELF, &mut usage));
    let ran = usage.ru_utime.tv_sec * 1_000_000 + usage.ru_utime.tv_usec;
    let system = usage.ru_stime.tv_sec * 1_000_000 + usage.ru_stime.tv_usec;
    say!("it agrees: {}", ran + system >= 30_000);
    say!("its errors: {} {}", sys!(SYS_getrusage, 5, &mut usage), sys!(SYS_getrusage, RUSAGE_SELF, NOWHERE));
}

fn clocks_of_others() {
    // The clock of a process: the complement of its id, shifted, and 2 (CPUCLOCK_SCHED).
    let of_process = |pid: i32| (!pid << 3) | 2;
    let of_thread = |tid: i32| (!tid << 3) | 6;
    let own = sys!(SYS_getpid).0 as i32;
    say!("own: {} {}", time_of(of_process(own)).is_ok(), time_of(of_thread(own)).is_ok());
    say!("0 is oneself: {} {}", time_of(of_process(0)).is_ok(), time_of(of_thread(0)).is_ok());
    let gate = Gate::new();
    let child = process::child(|| {
        gate.pass();
        0
    });
    say!("a child's: {}", time_of(of_process(child)).is_ok());
    say!("a child's thread: {}", time_of(of_thread(child)).err().unwrap_or(Ret(0)));
    process::as_plain_user(|| say!("another user's: {}", time_of(of_process(own)).is_ok()));
    gate.open();
    process::wait(child);
    say!("one who is gone: {}", time_of(of_process(child)).err().unwrap_or(Ret(0)));
    say!("a thread that is none: {}", time_of(of_thread(4_000_000)).err().unwrap_or(Ret(0)));
    let mut time: timespec = zeroed();
    say!("resolution: {} {}", sys!(SYS_clock_getres, of_process(0), &mut time), time.tv_nsec);
    say!("other kinds: {} {}", time_of(of_process(0) - 1).is_ok(), time_of(of_process(0) - 2).is_ok());
}

fn setting() {
    let time = timespec { tv_sec: 1, tv_nsec: 0 };
    say!("monotonic: {}", sys!(SYS_clock_settime, CLOCK_MONOTONIC, &time));
    say!("cpu: {}", sys!(SYS_clock_settime, CLOCK_PROCESS_CPUTIME_ID, &time));
    say!("unknown: {}", sys!(SYS_clock_settime, 99, &time));
    let bad = timespec { tv_sec: 1, tv_nsec: -1 };
    say!("bad nanoseconds: {}", sys!(SYS_clock_settime, CLOCK_REALTIME, &bad));
    let bad = timespec { tv_sec: -1, tv_nsec: 0 };
    say!("before 1970: {}", sys!(SYS_clock_settime, CLOCK_REALTIME, &bad));
    say!("before the start: {}", sys!(SYS_clock_settime, CLOCK_REALTIME, &timespec { tv_sec: 0, tv_nsec: 0 }));
    say!("bad pointer: {}", sys!(SYS_clock_settime, CLOCK_REALTIME, NOWHERE));
    let bad = timeval { tv_sec: 1, tv_usec: 1_000_000 };
    say!("settimeofday: {} {}", sys!(SYS_settimeofday, &bad, 0), sys!(SYS_settimeofday, NOWHERE, 0));
    process::as_plain_user(|| {
        let time = timespec { tv_sec: 1_700_000_000, tv_nsec: 0 };
        say!("a user: {}", sys!(SYS_clock_settime, CLOCK_REALTIME, &time));
        say!("settimeofday: {}", sys!(SYS_settimeofday, &time, 0));
    });
}

fn sleep() {
    for (name, clock) in [("MONOTONIC", CLOCK_MONOTONIC), ("REALTIME", CLOCK_REALTIME), ("BOOTTIME", CLOCK_BOOTTIME)] {
        let before = now();
        let time = timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        let ret = sys!(SYS_clock_nanosleep, clock, 0, &time, 0);
        say!("{name}: {ret}, no earlier {}", now() - before >= 10_000_000);
    }
    let before = now();
    let time = timespec { tv_sec: 0, tv_nsec: 5_000_000 };
    let mut rest = timespec { tv_sec: 77, tv_nsec: 77 };
    say!("nanosleep: {}, no earlier {}", sys!(SYS_nanosleep, &time, &mut rest), now() - before >= 5_000_000);
    say!("the rest is left alone: {} {}", rest.tv_sec, rest.tv_nsec);
    say!("nothing: {}", sys!(SYS_nanosleep, &timespec { tv_sec: 0, tv_nsec: 0 }, 0));
    say!("on the process's own time: {}", {
        let helper = std::thread::spawn(|| spin(60));
        let time = timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        let ret = sys!(SYS_clock_nanosleep, CLOCK_PROCESS_CPUTIME_ID, 0, &time, 0);
        let _ = helper.join();
        ret
    });
}

fn sleep_refused() {
    let time = timespec { tv_sec: 0, tv_nsec: 1 };
    let sleep = |clock: i32, flags: i32, time: timespec| sys!(SYS_clock_nanosleep, clock, flags, &time, 0);
    say!("a billion: {}", sleep(CLOCK_MONOTONIC, 0, timespec { tv_sec: 0, tv_nsec: 1_000_000_000 }));
    say!("negative: {}", sleep(CLOCK_MONOTONIC, 0, timespec { tv_sec: -1, tv_nsec: 0 }));
    say!("negative nanoseconds: {}", sleep(CLOCK_MONOTONIC, 0, timespec { tv_sec: 0, tv_nsec: -1 }));
    say!("negative and absolute: {}", sleep(CLOCK_MONOTONIC, TIMER_ABSTIME, timespec { tv_sec: -1, tv_nsec: 0 }));
    say!("the thread's clock: {}", sleep(CLOCK_THREAD_CPUTIME_ID, 0, time));
    say!("raw: {}", sleep(CLOCK_MONOTONIC_RAW, 0, time));
    say!("coarse: {}", sleep(CLOCK_MONOTONIC_COARSE, 0, time));
    say!("tai: {}", sleep(CLOCK_TAI, 0, time));
    say!("unknown: {}", sleep(99, 0, time));
    say!("unknown flags: {}", sleep(CLOCK_MONOTONIC, 8, time));
    say!(
        "bad pointers: {} {}",
        sys!(SYS_nanosleep, NOWHERE, 0),
        sys!(SYS_clock_nanosleep, CLOCK_REALTIME, 0, NOWHERE, 0)
    );
    say!("unknown clock, bad pointer: {}", sys!(SYS_clock_nanosleep, 99, 0, NOWHERE, 0));
}

fn sleep_interrupted() {
    for flags in [0, SA_RESTART] {
        let child = process::child(|| {
            signal::handle(SIGUSR1, signal::count, flags);
            let time = timespec { tv_sec: 100, tv_nsec: 0 };
            let mut rest = timespec { tv_sec: -7, tv_nsec: -7 };
            let ret = sys!(SYS_nanosleep, &time, &mut rest);
            say!("caught: {ret}, the rest {}", rest.tv_sec >= 50 && rest.tv_sec < 100);
            0
        });
        process::until_asleep(child);
        process::kill(child, SIGUSR1);
        process::wait(child);
    }
    let child = process::child(|| {
        signal::handle(SIGUSR1, signal::count, 0);
        let mut until: timespec = zeroed();
        sys!(SYS_clock_gettime, CLOCK_MONOTONIC, &mut until);
        until.tv_sec += 100;
        let mut rest = timespec { tv_sec: -7, tv_nsec: -7 };
        let ret = sys!(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &until, &mut rest);
        say!("absolute: {ret}, the rest is left alone {}", rest.tv_sec);
        let time = timespec { tv_sec: 100, tv_nsec: 0 };
        say!("no place for the rest: {}", sys!(SYS_nanosleep, &time, 0));
        say!("a bad one: {}", sys!(SYS_nanosleep, &time, NOWHERE));
        0
    });
    for _ in 0..3 {
        process::until_asleep(child);
        process::sleep_ms(10);
        process::until_asleep(child);
        process::kill(child, SIGUSR1);
    }
    process::wait(child);
    let child = process::child(|| {
        let time = timespec { tv_sec: 0, tv_nsec: 200_000_000 };
        let before = now();
        let ret = sys!(SYS_nanosleep, &time, 0);
        say!("stopped and continued: {ret}, no earlier {}", now() - before >= 200_000_000);
        0
    });
    process::until_asleep(child);
    process::kill(child, SIGSTOP);
    process::wait_for(child, WUNTRACED);
    process::kill(child, SIGCONT);
    process::wait(child);
}

fn sleep_until() {
    for clock in [CLOCK_MONOTONIC, CLOCK_REALTIME] {
        let mut until = time_of(clock).unwrap_or_else(|_| zeroed());
        say!("a time that has been: {}", sys!(SYS_clock_nanosleep, clock, TIMER_ABSTIME, &until, 0));
        until.tv_nsec += 10_000_000;
        if until.tv_nsec >= 1_000_000_000 {
            until.tv_nsec -= 1_000_000_000;
            until.tv_sec += 1;
        }
        let ret = sys!(SYS_clock_nanosleep, clock, TIMER_ABSTIME, &until, 0);
        say!("a time to come: {ret}, reached {}", nanoseconds(time_of(clock).unwrap_or(until)) >= nanoseconds(until));
        say!("0: {}", sys!(SYS_clock_nanosleep, clock, TIMER_ABSTIME, &timespec { tv_sec: 0, tv_nsec: 0 }, 0));
    }
}

fn interval_timers() {
    signal::handle(SIGALRM, signal::count, 0);
    signal::block(SIGALRM);
    let set = |which: i32, spec: [i64; 4]| {
        let mut old = [9i64; 4];
        let ret = sys!(SYS_setitimer, which, &spec, &mut old);
        format!("{ret}, old interval {} {}", old[0], old[1])
    };
    let mut value = [9i64; 4];
    say!("not set: {} {value:?}", sys!(SYS_getitimer, ITIMER_REAL, &mut value));
    say!("{value:?}");
    say!("once: {}", set(ITIMER_REAL, [0, 0, 0, 1000]));
    say!("signal: {}", signal::name(signal::take(signal::bit(SIGALRM), 5000).0.0 as i32));
    say!("code: {}", {
        set(ITIMER_REAL, [0, 0, 0, 1000]);
        signal::take(signal::bit(SIGALRM), 5000).1.si_code
    });
    say!("again and again: {}", set(ITIMER_REAL, [0, 5000, 0, 5000]));
    for _ in 0..3 {
        signal::take(signal::bit(SIGALRM), 5000);
    }
    sys!(SYS_getitimer, ITIMER_REAL, &mut value);
    say!("interval {} {}, value within it {}", value[0], value[1], value[2] == 0 && value[3] <= 5000);
    say!("stopped: {}", set(ITIMER_REAL, [0; 4]));
    signal::take(signal::bit(SIGALRM), 0);
    say!("long: {}", set(ITIMER_REAL, [0, 0, 1000, 0]));
    sys!(SYS_getitimer, ITIMER_REAL, &mut value);
    say!("what is left: {}", value[2] >= 990 && value[2] <= 1000);
    process::in_child(|| {
        let mut value = [9i64; 4];
        sys!(SYS_getitimer, ITIMER_REAL, &mut value);
        say!("a child has none: {value:?}");
        0
    });
    say!("no new: {}", sys!(SYS_setitimer, ITIMER_REAL, 0, 0));
    sys!(SYS_getitimer, ITIMER_REAL, &mut value);
    say!("that stops it: {value:?}");
    say!("microseconds: {} {}", set(ITIMER_REAL, [0, 0, 0, 1_000_000]), set(ITIMER_REAL, [0, 0, -1, 0]));
    say!("in the interval: {}", set(ITIMER_REAL, [0, -1, 0, 0]));
    say!("unknown: {} {}", set(3, [0; 4]), sys!(SYS_getitimer, 3, &mut value));
    say!("bad pointers: {} {}", sys!(SYS_setitimer, 0, NOWHERE, 0), sys!(SYS_getitimer, 0, NOWHERE));
}

fn interval_of_cpu() {
    for (name, which, number) in [("ITIMER_VIRTUAL", ITIMER_VIRTUAL, SIGVTALRM), ("ITIMER_PROF", ITIMER_PROF, SIGPROF)]
    {
        signal::handle(number, signal::count, 0);
        sys!(SYS_setitimer, which, &[0i64, 0, 0, 20_000], 0);
        process::sleep_ms(60);
        say!("{name}, asleep: {}", signal::caught());
        let end = now() + 5_000_000_000;
        while signal::CAUGHT.load(std::sync::atomic::Ordering::SeqCst) == 0 && now() < end {
            std::hint::black_box((0..1000).sum::<i32>());
        }
        say!("running: {}", signal::caught());
    }
    let limit = [1u64, 2];
    process::in_child(|| {
        signal::handle(SIGXCPU, signal::count, 0);
        sys!(SYS_prlimit64, 0, RLIMIT_CPU, &limit, 0);
        while signal::CAUGHT.load(std::sync::atomic::Ordering::SeqCst) == 0 {
            std::hint::black_box((0..1000).sum::<i32>());
        }
        say!("the limit of CPU time: {}", signal::name(signal::LAST.load(std::sync::atomic::Ordering::SeqCst)));
        0
    });
}

/// `struct sigevent` of the kernel: value, signal, notification, thread.
fn event(value: u64, number: i32, notify: i32, thread: i32) -> [u64; 8] {
    let mut event = [0u64; 8];
    event[0] = value;
    event[1] = number as u64 & 0xffff_ffff | (notify as u64) << 32;
    event[2] = thread as u64;
    event
}

fn create_timer(clock: i32, event: &[u64; 8]) -> (Ret, i32) {
    let mut id = -1i32;
    let ret = sys!(SYS_timer_create, clock, event, &mut id);
    (ret, id)
}

fn timers() {
    signal::block(SIGUSR1);
    let (ret, id) = create_timer(CLOCK_MONOTONIC, &event(4711, SIGUSR1, SIGEV_SIGNAL, 0));
    say!("create: {ret}");
    let mut old = [9i64; 4];
    say!("not set: {} {old:?}", sys!(SYS_timer_gettime, id, &mut old));
    say!("{old:?}");
    say!("once: {}", sys!(SYS_timer_settime, id, 0, &[0i64, 0, 0, 1_000_000], &mut old));
    let (taken, info) = signal::take(signal::bit(SIGUSR1), 5000);
    let words = (&raw const info).cast::<i32>();
    // SAFETY: siginfo_t has 32 words: id, overrun and value of a timer's signal are among them.
    let (timer, overrun, value) = unsafe { (words.add(4).read(), words.add(5).read(), words.add(6).read()) };
    say!(
        "{} code {} timer {} overrun {overrun} value {value}",
        signal::name(taken.0 as i32),
        info.si_code,
        timer == id
    );
    say!("then: {} {old:?}", sys!(SYS_timer_gettime, id, &mut old));
    say!("long: {}", sys!(SYS_timer_settime, id, 0, &[5i64, 6, 1000, 0], 0));
    say!("set to nothing: {}", sys!(SYS_timer_settime, id, 0, &[0i64; 4], &mut old));
    say!("the old one: interval {} {}, value {}", old[0], old[1], old[2] >= 990 && old[2] <= 1000);
    let mut until = time_of(CLOCK_MONOTONIC).unwrap_or_else(|_| zeroed());
    until.tv_sec -= 1;
    say!("a time that has been: {}", sys!(SYS_timer_settime, id, TIMER_ABSTIME, &[0i64, 0, until.tv_sec.max(0), 1], 0));
    say!("at once: {}", signal::name(signal::take(signal::bit(SIGUSR1), 5000).0.0 as i32));
    say!("delete: {} {}", sys!(SYS_timer_delete, id), sys!(SYS_timer_delete, id));
    let mut id = -1i32;
    say!("no event: {}", sys!(SYS_timer_create, CLOCK_REALTIME, 0, &mut id));
    signal::block(SIGALRM);
    sys!(SYS_timer_settime, id, 0, &[0i64, 0, 0, 1_000_000], 0);
    let (taken, info) = signal::take(signal::bit(SIGALRM), 5000);
    let words = (&raw const info).cast::<i32>();
    // SAFETY: as above.
    let value = unsafe { words.add(6).read() };
    say!("is SIGALRM with the timer's id: {} {}", signal::name(taken.0 as i32), value == id);
}

fn timer_kinds() {
    let mut old = [0i64; 4];
    let (ret, id) = create_timer(CLOCK_MONOTONIC, &event(0, 0, SIGEV_NONE, 0));
    say!("SIGEV_NONE: {ret}");
    sys!(SYS_timer_settime, id, 0, &[0i64, 0, 0, 1_000_000], 0);
    process::sleep_ms(10);
    sys!(SYS_timer_gettime, id, &mut old);
    say!("over: {old:?}, pending {}", signal::names(signal::pending()));
    signal::block(SIGUSR2);
    let (ret, id) = create_timer(CLOCK_MONOTONIC, &event(0, SIGUSR2, SIGEV_THREAD_ID, sys!(SYS_gettid).0 as i32));
    say!("SIGEV_THREAD_ID: {ret}");
    sys!(SYS_timer_settime, id, 0, &[0i64, 0, 0, 1_000_000], 0);
    say!("signal: {}", signal::name(signal::take(signal::bit(SIGUSR2), 5000).0.0 as i32));
    say!("another's thread: {}", create_timer(CLOCK_MONOTONIC, &event(0, SIGUSR2, SIGEV_THREAD_ID, 1)).0);
    say!("no thread: {}", create_timer(CLOCK_MONOTONIC, &event(0, SIGUSR2, SIGEV_THREAD_ID, 0)).0);
    say!("SIGEV_THREAD: {}", create_timer(CLOCK_MONOTONIC, &event(0, SIGUSR2, SIGEV_THREAD, 0)).0);
    for (name, clock) in KNOWN {
        say!("{name}: {}", create_timer(clock, &event(0, 0, SIGEV_NONE, 0)).0);
    }
    let (ret, id) = create_timer(CLOCK_PROCESS_CPUTIME_ID, &event(0, SIGUSR2, SIGEV_SIGNAL, 0));
    say!("of CPU time: {ret} {}", sys!(SYS_timer_settime, id, 0, &[0i64, 0, 0, 10_000_000], 0));
    process::sleep_ms(30);
    say!("asleep: {}", signal::names(signal::pending()));
    spin(40);
    say!("running: {}", signal::name(signal::take(signal::bit(SIGUSR2), 5000).0.0 as i32));
}

fn timer_refused() {
    let mut spec = [0i64; 4];
    let (_, id) = create_timer(CLOCK_MONOTONIC, &event(0, 0, SIGEV_NONE, 0));
    say!("clock: {}", create_timer(99, &event(0, 0, SIGEV_NONE, 0)).0);
    say!("coarse: {}", create_timer(CLOCK_MONOTONIC_COARSE, &event(0, 0, SIGEV_NONE, 0)).0);
    say!("signal: {} {}", create_timer(0, &event(0, 65, SIGEV_SIGNAL, 0)).0, create_timer(0, &event(0, 0, 0, 0)).0);
    say!("kind: {}", create_timer(0, &event(0, SIGUSR1, 9, 0)).0);
    say!("bad pointers: {} {}", sys!(SYS_timer_create, 0, NOWHERE, &mut 0i32), sys!(SYS_timer_create, 0, 0, NOWHERE));
    let set = |id: i32, flags: i32, spec: [i64; 4]| sys!(SYS_timer_settime, id, flags, &spec, 0);
    say!("nanoseconds: {} {}", set(id, 0, [0, 0, 0, 1_000_000_000]), set(id, 0, [0, -1, 1, 0]));
    say!("negative: {}", set(id, 0, [0, 0, -1, 0]));
    say!("unknown flags: {}", set(id, 8, [0; 4]));
    say!(
        "no timer: {} {} {}",
        set(999, 0, [0; 4]),
        sys!(SYS_timer_gettime, 999, &mut spec),
        sys!(SYS_timer_getoverrun, 999)
    );
    say!("bad new: {} {}", sys!(SYS_timer_settime, id, 0, NOWHERE, 0), sys!(SYS_timer_settime, id, 0, 0, 0));
    say!("bad old: {}", sys!(SYS_timer_settime, id, 0, &spec, NOWHERE));
    say!("gettime: {}", sys!(SYS_timer_gettime, id, NOWHERE));
}

fn timer_overruns() {
    signal::block(SIGUSR1);
    let (_, id) = create_timer(CLOCK_MONOTONIC, &event(0, SIGUSR1, SIGEV_SIGNAL, 0));
    say!("before: {}", sys!(SYS_timer_getoverrun, id));
    sys!(SYS_timer_settime, id, 0, &[0i64, 1_000_000, 0, 1_000_000], 0);
    process::sleep_ms(30);
    let (taken, info) = signal::take(signal::bit(SIGUSR1), 5000);
    let words = (&raw const info).cast::<i32>();
    // SAFETY: as above.
    let told = unsafe { words.add(5).read() };
    let asked = sys!(SYS_timer_getoverrun, id).0;
    say!("{}: told {}, asked the same {}", signal::name(taken.0 as i32), told >= 20, asked >= i64::from(told));
    sys!(SYS_timer_settime, id, 0, &[0i64; 4], 0);
    signal::take(signal::bit(SIGUSR1), 0);
    say!("one signal at a time: {}", signal::names(signal::pending()));
    sys!(SYS_timer_settime, id, 0, &[0i64, 0, 0, 1_000_000], 0);
    signal::take(signal::bit(SIGUSR1), 5000);
    say!("once: {}", sys!(SYS_timer_getoverrun, id));
}

fn timers_and_fork() {
    let (_, id) = create_timer(CLOCK_MONOTONIC, &event(0, 0, SIGEV_NONE, 0));
    sys!(SYS_timer_settime, id, 0, &[0i64, 0, 1000, 0], 0);
    let mut spec = [0i64; 4];
    process::in_child(|| {
        say!("a child has none: {}", sys!(SYS_timer_gettime, id, &mut spec));
        let (_, own) = create_timer(CLOCK_MONOTONIC, &event(0, 0, SIGEV_NONE, 0));
        say!("its first: {}", sys!(SYS_timer_delete, own));
        0
    });
    say!("the parent's goes on: {}", sys!(SYS_timer_gettime, id, &mut spec));
    say!("value: {}", spec[2] > 900);
    let limit = [3u64, 3];
    sys!(SYS_prlimit64, 0, RLIMIT_SIGPENDING, &limit, 0);
    process::as_plain_user(|| {
        let mut made = Vec::new();
        for _ in 0..6 {
            made.push(create_timer(CLOCK_MONOTONIC, &event(0, SIGUSR1, SIGEV_SIGNAL, 0)).0.ok_or_error());
        }
        say!("the limit: {made:?}");
    });
}

fn day() {
    let mut time: timeval = zeroed();
    let mut zone = [9i32; 2];
    say!("gettimeofday: {} zone {zone:?}", sys!(SYS_gettimeofday, &mut time, &mut zone));
    say!("{zone:?}");
    let real = time_of(CLOCK_REALTIME).unwrap_or_else(|_| zeroed());
    say!("as the clock says: {}", (real.tv_sec - time.tv_sec).abs() <= 2);
    say!("microseconds: {}", (0..1_000_000).contains(&time.tv_usec));
    say!("nothing asked: {}", sys!(SYS_gettimeofday, 0, 0));
    say!("bad pointers: {} {}", sys!(SYS_gettimeofday, NOWHERE, 0), sys!(SYS_gettimeofday, 0, NOWHERE));
    let mut times: tms = zeroed();
    say!("times: {}", sys!(SYS_times, &mut times).ok());
    say!("bad pointer: {} without one: {}", sys!(SYS_times, NOWHERE), sys!(SYS_times, 0).ok());
    process::in_child(|| {
        spin(50);
        0
    });
    sys!(SYS_times, &mut times);
    say!("children's time: {}", times.tms_cutime + times.tms_cstime >= 4);
}

fn adjusting() {
    let mut state = [0u64; 26];
    let ret = sys!(SYS_adjtimex, &mut state);
    say!("look: {}", ret.ok());
    say!("clock_adjtime: {}", sys!(SYS_clock_adjtime, CLOCK_REALTIME, &mut state).ok());
    say!("another clock: {}", sys!(SYS_clock_adjtime, CLOCK_MONOTONIC, &mut state));
    say!("unknown clock: {}", sys!(SYS_clock_adjtime, 99, &mut state));
    say!("bad pointer: {}", sys!(SYS_adjtimex, NOWHERE));
    process::as_plain_user(|| {
        let mut state = [0u64; 26];
        say!("a user looks: {}", sys!(SYS_adjtimex, &mut state).ok());
        state[0] = 2;
        say!("and changes: {}", sys!(SYS_adjtimex, &mut state));
    });
}

fn alarm_limits() {
    signal::block(SIGALRM);
    sys!(SYS_setitimer, ITIMER_REAL, &[0i64, 0, 0, 1], 0);
    say!("a microsecond: {}", signal::name(signal::take(signal::bit(SIGALRM), 5000).0.0 as i32));
    say!("far away: {}", sys!(SYS_setitimer, ITIMER_REAL, &[0i64, 0, i64::MAX / 2, 0], 0));
    let mut value = [0i64; 4];
    sys!(SYS_getitimer, ITIMER_REAL, &mut value);
    say!("is far away: {}", value[2] > 1_000_000_000);
    let child = process::child(|| {
        signal::default(SIGALRM);
        signal::unblock(SIGALRM);
        sys!(SYS_setitimer, ITIMER_REAL, &[0i64, 0, 0, 1000], 0);
        loop {
            process::sleep_ms(1000);
        }
    });
    say!("by default: {}", process::wait(child));
}
