//! What becomes of the signals of POSIX timers while they are blocked (timer_create(2), "NOTES").

use libc::*;

use crate::process::sleep_ms;
use crate::sys::sys;
use crate::{say, signal, tests};

tests! { share_a_number, set_while_pending, deleted_while_pending }

/// A timer that sends `signo` to the process.
fn timer(signo: i32) -> (bool, i32) {
    let mut id = -1;
    let event = [0u64, signo as u64 | (SIGEV_SIGNAL as u64) << 32, 0, 0, 0, 0, 0, 0];
    (sys!(SYS_timer_create, CLOCK_MONOTONIC, &event, &mut id).ok(), id)
}

/// Seconds and nanoseconds: interval, first expiry.
fn set(id: i32, spec: [i64; 4]) {
    sys!(SYS_timer_settime, id, 0, &spec, 0);
}

/// The codes of all pending signals of this number, in order.
fn codes(signo: i32) -> Vec<i32> {
    let next = || {
        let (taken, info) = signal::take(signal::bit(signo), 0);
        taken.ok().then_some(info.si_code)
    };
    std::iter::from_fn(next).collect()
}

/// Each timer goes on when its own signal is taken, so its signal must not be lost to others of the same number.
fn share_a_number() {
    signal::block(SIGUSR1);
    signal::kill_self(SIGUSR1);
    let ids = [timer(SIGUSR1).1, timer(SIGUSR1).1];
    for id in ids {
        set(id, [0, 10_000_000, 0, 10_000_000]);
    }
    for _ in 0..3 {
        sleep_ms(40);
        say!("{:?}", codes(SIGUSR1).len());
    }
    signal::block(SIGALRM);
    let (_, id) = timer(SIGALRM);
    set(id, [0, 0, 0, 1]);
    sleep_ms(5);
    sys!(SYS_setitimer, ITIMER_REAL, &[0i64, 10_000, 0, 10_000], 0);
    for _ in 0..3 {
        sleep_ms(40);
        say!("SIGALRM: {:?}", codes(SIGALRM).len());
    }
}

fn set_while_pending() {
    let signo = 40;
    signal::block(signo);
    let (_, id) = timer(signo);
    for _ in 0..20 {
        set(id, [0, 0, 0, 1]);
        sleep_ms(2);
    }
    say!("set twenty times: {:?}", codes(signo));
    set(id, [0, 0, 0, 1]);
    sleep_ms(5);
    say!("once more: {:?}", codes(signo));
}

fn deleted_while_pending() {
    const LIMIT: u64 = 200;
    let signo = 40;
    signal::block(signo);
    sys!(SYS_prlimit64, 0, RLIMIT_SIGPENDING, &[LIMIT, LIMIT], 0);
    let mut made = 0;
    while made <= LIMIT {
        let (created, id) = timer(signo);
        if !created {
            break;
        }
        made += 1;
        set(id, [0, 0, 0, 1]);
        sleep_ms(1);
        sys!(SYS_timer_delete, id);
    }
    say!("some: {}, refused in the end: {}", made > 20, made <= LIMIT);
    let codes = codes(signo);
    say!("all pending: {}", codes.len() as u64 == made && codes.iter().all(|code| *code == SI_TIMER));
    say!("room again: {}", timer(signo).0);
}
