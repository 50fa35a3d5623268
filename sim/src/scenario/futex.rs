//! Programs that synchronize through futexes.

use super::{Setup, disturb};
use crate::rng::Rng;
use crate::user::sync::Style;
use crate::user::{Program, U, program};

const SIGUSR1: i32 = 10;
const SA_RESTART: u64 = 0x1000_0000;

/// Words of the shared page.
const MUTEX: u64 = 0;
const OWNER: u64 = 64;
const COUNT: u64 = 128;
const NOT_EMPTY: u64 = 192;
const NOT_FULL: u64 = 256;
const HANDLED: u64 = 320;
const BARRIER: u64 = 384;
const GIVEN_UP: u64 = 448;
const PHASES: u64 = 1024;
const TIDS: u64 = 2048;
const SLOTS: u64 = 3072;

pub(super) fn style(rng: &mut Rng, shared: bool) -> Style {
    let shared = shared || rng.one_in(3);
    Style { shared, timeout: *rng.pick(&[0, 0, 1_000, 20_000]) }
}

/// A handler that counts, restarting calls or not.
pub(super) async fn count_signals(u: U, page: u64, restart: bool) {
    let flags = if restart { SA_RESTART } else { 0 };
    let answer = u
        .handle(SIGUSR1, flags, move |u, _| async move {
            u.add(page + HANDLED, 1).await;
        })
        .await;
    assert_eq!(answer, 0);
}

/// Starts `count` threads, disturbs them, and waits for their end.
pub(super) async fn run_threads(u: U, page: u64, count: u64, signals: u64, body: impl Fn(u64) -> Program) {
    let mut tids = Vec::new();
    for index in 0..count {
        let tid = u.thread(page + TIDS + 4 * index, body(index)).await;
        assert!(tid > 0, "clone: {tid}");
        tids.push(tid);
    }
    let pid = u.getpid().await;
    disturb(u, pid, tids, SIGUSR1 as u64, signals).await;
    for index in 0..count {
        u.join(page + TIDS + 4 * index).await;
    }
}

/// Answers whether it took place: a wait with a limit may give up.
async fn critical_section(u: U, page: u64, limit: u64, style: Style) -> bool {
    if limit == 0 {
        u.mutex_lock(page + MUTEX, style).await;
    } else if !u.mutex_timed_lock(page + MUTEX, limit, style).await {
        return false;
    }
    let me = u.tid();
    let before = u.swap(page + OWNER, me).await;
    assert!(before == 0, "{me} and {before} hold the mutex at the same time");
    let count = u.load(page + COUNT).await;
    if u.random(2) == 0 {
        u.pause(5_000).await;
    }
    u.store(page + COUNT, count + 1).await;
    let still = u.swap(page + OWNER, 0).await;
    assert!(still == me, "{me} holds the mutex and found {still}");
    u.mutex_unlock(page + MUTEX, style).await;
    true
}

pub fn mutex(setup: &mut Setup) -> Program {
    let processes = setup.rng.one_in(3);
    let style = style(&mut setup.rng, processes);
    let workers = setup.rng.range(2, 6);
    let rounds = setup.rng.range(3, 25);
    let signals = *setup.rng.pick(&[0, 10, 60]);
    let restart = setup.rng.one_in(2);
    // Of some workers each second wait gives up.
    let limit = *setup.rng.pick(&[0, 500, 5_000, 30_000]);
    let body = move |page: u64, index: u64| {
        program(move |u| async move {
            for _ in 0..rounds {
                let limit = if index % 2 == 1 && u.random(2) == 0 { limit } else { 0 };
                if !critical_section(u, page, limit, style).await {
                    u.add(page + GIVEN_UP, 1).await;
                }
            }
            0
        })
    };
    program(move |u| async move {
        let page = u.map(4096, true).await;
        count_signals(u, page, restart).await;
        if processes {
            let mut pids = Vec::new();
            for index in 0..workers {
                pids.push(u.fork(body(page, index)).await);
            }
            for _ in 0..signals {
                u.pause(30_000).await;
                let pid = pids[u.random(workers) as usize];
                u.call(129, &[pid as u64, SIGUSR1 as u64]).await;
            }
            for pid in pids {
                let status = u.scratch(4);
                let waited = u.call(260, &[pid as u64, status, 0, 0]).await;
                assert_eq!((waited, u.load(status).await), (pid, 0));
            }
        } else {
            run_threads(u, page, workers, signals, move |index| body(page, index)).await;
        }
        let count = u.load(page + COUNT).await + u.load(page + GIVEN_UP).await;
        assert_eq!(u64::from(count), workers * rounds, "critical sections");
        assert_eq!(u.load(page + MUTEX).await, 0);
        0
    })
}

/// One item after another through a ring of slots.
pub fn condvar(setup: &mut Setup) -> Program {
    let style = style(&mut setup.rng, false);
    let (producers, consumers) = (setup.rng.range(1, 4), setup.rng.range(1, 4));
    let items = setup.rng.range(3, 15) * consumers;
    let slots = setup.rng.range(1, 4) as u32;
    let broadcast = setup.rng.one_in(2);
    let signals = *setup.rng.pick(&[0, 10, 60]);
    let restart = setup.rng.one_in(2);
    let wake = move |u: U, condvar: u64, page: u64| async move {
        if broadcast {
            u.condvar_broadcast(condvar, page + MUTEX, style).await;
        } else {
            u.condvar_signal(condvar, style).await;
        }
    };
    // The ring: head and tail count all that was put in and taken out.
    let (head, tail, sum) = (SLOTS, SLOTS + 4, SLOTS + 8);
    let produce = move |page: u64, index: u64| {
        program(move |u| async move {
            for item in 0..items * consumers {
                u.mutex_lock(page + MUTEX, style).await;
                while u.load(page + head).await - u.load(page + tail).await == slots {
                    u.condvar_wait(page + NOT_FULL, page + MUTEX, style).await;
                }
                let at = u.add(page + head, 1).await % slots;
                u.store(page + SLOTS + 64 + 4 * u64::from(at), (index * 1000 + item + 1) as u32).await;
                wake(u, page + NOT_EMPTY, page).await;
                u.mutex_unlock(page + MUTEX, style).await;
            }
            0
        })
    };
    let consume = move |page: u64| {
        program(move |u| async move {
            for _ in 0..items * producers {
                u.mutex_lock(page + MUTEX, style).await;
                while u.load(page + head).await == u.load(page + tail).await {
                    u.condvar_wait(page + NOT_EMPTY, page + MUTEX, style).await;
                }
                let at = u.add(page + tail, 1).await % slots;
                let item = u.swap(page + SLOTS + 64 + 4 * u64::from(at), 0).await;
                assert!(item != 0, "an empty slot");
                u.add(page + sum, item).await;
                wake(u, page + NOT_FULL, page).await;
                u.mutex_unlock(page + MUTEX, style).await;
            }
            0
        })
    };
    program(move |u| async move {
        let page = u.map(8192, false).await;
        count_signals(u, page, restart).await;
        run_threads(u, page, producers + consumers, signals, move |index| {
            if index < producers { produce(page, index) } else { consume(page) }
        })
        .await;
        let each = items * consumers;
        let expected: u64 = (0..producers).map(|index| index * 1000 * each + each * (each + 1) / 2).sum();
        assert_eq!(u64::from(u.load(page + sum).await), expected, "sum of what was consumed");
        0
    })
}

pub fn barrier(setup: &mut Setup) -> Program {
    let style = style(&mut setup.rng, false);
    let threads = setup.rng.range(2, 6);
    let rounds = setup.rng.range(2, 15) as u32;
    let signals = *setup.rng.pick(&[0, 10, 60]);
    let restart = setup.rng.one_in(2);
    program(move |u| async move {
        let page = u.map(4096, false).await;
        count_signals(u, page, restart).await;
        run_threads(u, page, threads, signals, move |index| {
            program(move |u| async move {
                for round in 0..rounds {
                    u.store(page + PHASES + 4 * index, round + 1).await;
                    u.barrier(page + BARRIER, threads as u32, style).await;
                    for other in 0..threads {
                        let phase = u.load(page + PHASES + 4 * other).await;
                        let fits = phase == round + 1 || phase == round + 2;
                        assert!(fits, "thread {other} is in phase {phase} after barrier {round}");
                    }
                    u.barrier(page + BARRIER, threads as u32, style).await;
                }
                0
            })
        })
        .await;
        0
    })
}

/// Every wake that FUTEX_WAKE counts is reported by one waiter, also if its time is up or a signal comes in that moment.
pub fn count(setup: &mut Setup) -> Program {
    let style = Style { shared: setup.rng.one_in(2), timeout: 0 };
    let waiters = setup.rng.range(1, 6);
    let rounds = setup.rng.range(3, 25);
    let most = *setup.rng.pick(&[100, 2_000, 20_000]);
    let signals = *setup.rng.pick(&[0, 10, 60]);
    let (woken, ended) = (COUNT, COUNT + 4);
    let restart = setup.rng.one_in(2);
    program(move |u| async move {
        let page = u.map(4096, false).await;
        count_signals(u, page, restart).await;
        let mut tids = Vec::new();
        for index in 0..waiters {
            let body = program(move |u| async move {
                let style = Style { timeout: most, ..style };
                for _ in 0..rounds {
                    if u.futex_wait(page + MUTEX, 0, style).await == 0 {
                        u.add(page + woken, 1).await;
                    }
                }
                u.add(page + ended, 1).await;
                0
            });
            tids.push(u.thread(page + TIDS + 4 * index, body).await);
        }
        let waker = program(move |u| async move {
            let mut sent = 0;
            while u64::from(u.load(page + ended).await) < waiters {
                sent += u.futex_wake(page + MUTEX, 1 + u.random(2), style).await;
                u.pause(2_000).await;
            }
            assert_eq!(sent, i64::from(u.load(page + woken).await), "wakes sent, and wakes seen");
            0
        });
        let last = page + TIDS + 4 * waiters;
        assert!(u.thread(last, waker).await > 0);
        let pid = u.getpid().await;
        disturb(u, pid, tids, SIGUSR1 as u64, signals).await;
        u.join(last).await;
        0
    })
}
