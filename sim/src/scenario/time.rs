//! Timers: nothing is early, nothing is forgotten, and what is counted adds up.

use super::Setup;
use crate::machine;
use crate::rng::Rng;
use crate::user::{Program, U, errno, program};

const NR_CLOCK_NANOSLEEP: u64 = 115;
const NR_READ: u64 = 63;
const NR_SETITIMER: u64 = 103;
const NR_TIMERFD_CREATE: u64 = 85;
const NR_TIMERFD_SETTIME: u64 = 86;
const NR_TIMER_CREATE: u64 = 107;
const NR_TIMER_GETOVERRUN: u64 = 109;
const NR_TIMER_SETTIME: u64 = 110;
const NR_TIMER_DELETE: u64 = 111;
const ABSTIME: u64 = 1;
const MONOTONIC: u64 = 1;
const EINTR: i64 = -4;
const SIGALRM: i32 = 14;
const SIGRTMIN: i32 = 34;
const SA_SIGINFO: u64 = 4;
/// Offset in siginfo.
const SI_OVERRUN: u64 = 20;

/// Page of words.
const TIDS: u64 = 0;
const ALARMS: u64 = 512;
const EXPIRED: u64 = 576;

async fn sleeper(u: U, mut rng: Rng, rounds: u64) {
    for _ in 0..rounds {
        let before = u.now();
        let length = rng.below(200_000);
        let absolute = rng.one_in(2);
        let time = if absolute { before + length } else { length };
        let words = u.place_words(&[time / 1_000_000_000, time % 1_000_000_000]).await;
        let slept = u.call(NR_CLOCK_NANOSLEEP, &[MONOTONIC, if absolute { ABSTIME } else { 0 }, words, 0]).await;
        assert!(slept == 0 || slept == EINTR, "clock_nanosleep: {}", errno(slept));
        assert!(slept == EINTR || u.now() >= before + length, "woken {} ns early", before + length - u.now());
    }
}

/// Reads a periodic timerfd: it has expired as often as periods have passed.
async fn ticker(u: U, mut rng: Rng, rounds: u64) {
    let fd = u.call(NR_TIMERFD_CREATE, &[MONOTONIC, 0]).await as u64;
    let period = rng.range(100, 3_000) * machine::tick();
    let start = u.now();
    let time = u.place_words(&[0, period, 0, period]).await;
    assert_eq!(u.call(NR_TIMERFD_SETTIME, &[fd, 0, time, 0]).await, 0);
    let armed = u.now();
    let buffer = u.scratch(8);
    let mut total = 0;
    for _ in 0..rounds {
        u.pause(100_000).await;
        let before = u.now();
        let n = u.call(NR_READ, &[fd, buffer, 8]).await;
        if n == EINTR {
            continue;
        }
        assert_eq!(n, 8);
        total += u.load64(buffer).await;
        let most = (u.now() - start) / period;
        let least = (before - armed) / period;
        assert!(total <= most && total >= least, "{total} expirations instead of {least} to {most}");
    }
    u.close(fd).await;
}

/// A POSIX timer whose signal counts; with the overruns that is every expiration.
async fn posix_timer(u: U, mut rng: Rng, page: u64, rounds: u64) {
    // Handlers must not take all of the time.
    let (period, id) = (rng.range(300, 3_000) * machine::tick(), u.scratch(4));
    // struct sigevent: value, signal, SIGEV_SIGNAL.
    let event = u.place_words(&[0, SIGRTMIN as u64, 0, 0, 0, 0, 0, 0]).await;
    assert_eq!(u.call(NR_TIMER_CREATE, &[MONOTONIC, event, id]).await, 0);
    let id = u64::from(u.load(id).await);
    assert_eq!(id, 0, "the first timer of the process");
    let start = u.now();
    let time = u.place_words(&[0, period, 0, period]).await;
    assert_eq!(u.call(NR_TIMER_SETTIME, &[id, 0, time, 0]).await, 0);
    for _ in 0..rounds {
        u.pause(100_000).await;
    }
    let least = u.load(page + EXPIRED).await;
    let most = (u.now() - start) / period;
    assert!(u64::from(least) <= most, "{least} expirations in the time of {most}");
    assert_eq!(u.call(NR_TIMER_DELETE, &[id]).await, 0);
}

pub fn timers(setup: &mut Setup) -> Program {
    let mut rng = setup.rng.split();
    let threads = rng.range(1, 5);
    let rounds = rng.range(1, 15);
    let alarms = rng.one_in(2);
    program(move |u| async move {
        let page = u.map(4096, false).await;
        u.handle(SIGALRM, 0, move |u, _| async move {
            u.add(page + ALARMS, 1).await;
        })
        .await;
        u.handle(SIGRTMIN, SA_SIGINFO, move |u, _| async move {
            let asked = u.call(NR_TIMER_GETOVERRUN, &[0]).await;
            assert!(asked >= 0 || asked == -22, "timer_getoverrun: {}", errno(asked));
            let overrun = u.load(u.siginfo() + SI_OVERRUN).await;
            u.add(page + EXPIRED, 1 + overrun).await;
        })
        .await;
        let start = u.now();
        // In microseconds.
        let alarm = if alarms { 1 + rng.range(300, 3_000) * machine::tick() / 1000 } else { 0 };
        if alarm > 0 {
            // struct itimerval: interval, value, in microseconds.
            let time = u.place_words(&[0, alarm, 0, alarm]).await;
            assert_eq!(u.call(NR_SETITIMER, &[0, time, 0]).await, 0);
        }
        for index in 0..threads {
            let (own, kind) = (rng.split(), if index == 0 { 2 } else { rng.below(2) });
            let body = program(move |u| async move {
                match kind {
                    0 => sleeper(u, own, rounds).await,
                    1 => ticker(u, own, rounds).await,
                    _ => posix_timer(u, own, page, rounds).await,
                }
                0
            });
            assert!(u.thread(page + TIDS + 4 * index, body).await > 0);
        }
        for index in 0..threads {
            u.join(page + TIDS + 4 * index).await;
        }
        let off = u.place_words(&[0, 0, 0, 0]).await;
        assert_eq!(u.call(NR_SETITIMER, &[0, off, 0]).await, 0);
        let alarms = u64::from(u.load(page + ALARMS).await);
        let most = (u.now() - start).checked_div(alarm * 1000).unwrap_or(0);
        assert!(alarms <= most, "{alarms} alarms in the time of {most}");
        0
    })
}
