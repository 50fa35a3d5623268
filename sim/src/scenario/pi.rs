//! Locks that lend priority, and locks whose owners die.

use pollux_kernel::futex;
use pollux_kernel::process::table::find_task;

use super::Setup;
use super::futex::{count_signals, run_threads};
use crate::rng::Rng;
use crate::user::pi::{EDEADLK, ESRCH, OWNER_DIED, TID_MASK};
use crate::user::{Program, U, errno, program};

const NR_SETSCHEDULER: u64 = 119;
const EAGAIN: i64 = -11;
const ETIMEDOUT: i64 = -110;

/// Words of the shared page: locks, who is inside, counters. Those above belong to `run_threads`.
const LOCKS: u64 = 0;
const OWNERS: u64 = 512;
const ENTERED: u64 = 1024;
const LEFT_BEHIND: u64 = 1028;

fn lock_at(page: u64, index: u64) -> u64 {
    page + LOCKS + 64 * index
}

/// Gives the thread another priority, real-time or not.
async fn change_priority(u: U, tid: u64) {
    let priority = u.random(4) * 10;
    let param = u.place(&(priority as u32).to_le_bytes()).await;
    let policy = if priority == 0 { 0 } else { 1 + u.random(2) };
    let answer = u.call(NR_SETSCHEDULER, &[tid, policy, param]).await;
    assert!(answer == 0 || answer == ESRCH, "sched_setscheduler: {}", errno(answer));
}

/// Nothing is lent to a thread that holds nothing.
fn check_own_priority(u: U) {
    let task = find_task(u.tid()).expect("it runs");
    let (own, active) = (task.entity.policy(), task.entity.active_policy());
    assert!(own == active, "{} holds nothing and is scheduled by {active:?} instead of {own:?}", u.tid());
}

/// Takes the lock, or not; answers whether it has it.
async fn enter(u: U, page: u64, index: u64, limit: u64, shared: bool) -> bool {
    let (lock, me) = (lock_at(page, index), u.tid());
    let most = if u.random(2) == 0 { limit } else { 0 };
    let answer = match u.random(8) {
        0 => u.pi_try_lock(lock, shared).await,
        _ => u.pi_lock(lock, most, shared).await,
    };
    match answer {
        0 => {}
        // Its owner ended, nobody waiting: whoever comes clears up.
        ESRCH => {
            let seen = u.load(lock).await;
            let owner = seen & TID_MASK;
            if owner != 0 && find_task(owner).is_none() {
                u.compare_exchange(lock, seen, 0).await;
            }
            return false;
        }
        EAGAIN | EDEADLK => return false,
        ETIMEDOUT => {
            assert!(most != 0, "late without a limit");
            return false;
        }
        other => panic!("lock: {}", errno(other)),
    }
    let word = u.load(lock).await;
    assert!(word & TID_MASK == me, "{me} holds a lock whose word is {word:#x}");
    let before = u.swap(page + OWNERS + 4 * index, me).await;
    let left = word & OWNER_DIED != 0 || find_task(before).is_none();
    assert!(before == 0 || left, "{me} and {before} hold lock {index} at the same time");
    true
}

async fn leave(u: U, page: u64, index: u64, shared: bool) {
    let me = u.tid();
    let still = u.swap(page + OWNERS + 4 * index, 0).await;
    assert!(still == me, "{me} holds lock {index} and found {still}");
    u.pi_unlock(lock_at(page, index), shared).await;
}

struct Plan {
    locks: u64,
    rounds: u64,
    limit: u64,
    shared: bool,
    /// One in so many rounds ends the thread with locks held; 0: none.
    ends: u64,
    priorities: bool,
}

async fn worker(u: U, page: u64, plan: &Plan) -> i32 {
    for _ in 0..plan.rounds {
        if plan.priorities && u.random(4) == 0 {
            change_priority(u, 0).await;
        }
        let mut held = Vec::new();
        for _ in 0..=u.random(3) {
            let index = u.random(plan.locks);
            if !held.contains(&index) && enter(u, page, index, plan.limit, plan.shared).await {
                held.push(index);
            }
            if u.random(3) == 0 {
                u.pause(5_000).await;
            }
        }
        if plan.ends != 0 && u.random(plan.ends) == 0 {
            u.add(page + LEFT_BEHIND, held.len() as u32).await;
            return 0;
        }
        while !held.is_empty() {
            let index = held.swap_remove(u.random(held.len() as u64) as usize);
            leave(u, page, index, plan.shared).await;
            u.add(page + ENTERED, 1).await;
        }
        check_own_priority(u);
    }
    0
}

/// Several locks taken in any order by threads whose priorities change, who give up, are interrupted, or end as owners.
pub fn locks(setup: &mut Setup) -> Program {
    let workers = setup.rng.range(2, 7);
    let signals = *setup.rng.pick(&[0, 10, 60]);
    let restart = setup.rng.one_in(2);
    let plan: &'static Plan = Box::leak(Box::new(make_plan(&mut setup.rng)));
    program(move |u| async move {
        let page = u.map(4096, plan.shared).await;
        count_signals(u, page, restart).await;
        run_threads(u, page, workers, signals, move |_| program(move |u| async move { worker(u, page, plan).await }))
            .await;
        for index in 0..plan.locks {
            let word = u.load(lock_at(page, index)).await;
            // The name of one that has ended stays if nobody waited.
            assert!(word == 0 || plan.ends != 0, "lock {index} is {word:#x} at the end");
        }
        assert!(futex::pi::is_idle(), "locks or waiters are left in the kernel");
        0
    })
}

fn make_plan(rng: &mut Rng) -> Plan {
    Plan {
        locks: rng.range(1, 5),
        rounds: rng.range(3, 25),
        limit: *rng.pick(&[0, 500, 5_000, 30_000]),
        shared: rng.one_in(3),
        ends: *rng.pick(&[0, 0, 5, 20]),
        priorities: rng.one_in(2),
    }
}

/// A bounded buffer with condition variables whose waiters are moved to a lock that lends priority.
pub fn requeue(setup: &mut Setup) -> Program {
    const NOT_EMPTY: u64 = 192;
    const NOT_FULL: u64 = 256;
    const HEAD: u64 = 3072;
    const TAIL: u64 = 3076;
    const SUM: u64 = 3080;
    let (producers, consumers) = (setup.rng.range(1, 4), setup.rng.range(1, 4));
    let items = setup.rng.range(3, 12) * consumers;
    let slots = setup.rng.range(1, 4) as u32;
    let all = setup.rng.one_in(2);
    let limit = *setup.rng.pick(&[0, 1_000, 20_000]);
    let signals = *setup.rng.pick(&[0, 10, 60]);
    let (restart, priorities) = (setup.rng.one_in(2), setup.rng.one_in(2));
    // Head and tail count all that was put in and taken out.
    let step = move |u: U, page: u64, produces: bool, item: u32| async move {
        if priorities && u.random(4) == 0 {
            change_priority(u, 0).await;
        }
        let locked = u.pi_lock(page, 0, false).await;
        assert!(locked == 0, "lock: {}", errno(locked));
        let full = |held: u32| if produces { held == slots } else { held == 0 };
        while full(u.load(page + HEAD).await - u.load(page + TAIL).await) {
            let condvar = if produces { NOT_FULL } else { NOT_EMPTY };
            u.pi_condvar_wait(page + condvar, page, if u.random(2) == 0 { limit } else { 0 }).await;
        }
        let at = u.add(page + if produces { HEAD } else { TAIL }, 1).await % slots;
        let slot = page + HEAD + 64 + 4 * u64::from(at);
        if produces {
            u.store(slot, item).await;
        } else {
            let item = u.swap(slot, 0).await;
            assert!(item != 0, "an empty slot");
            u.add(page + SUM, item).await;
        }
        u.pi_condvar_wake(page + if produces { NOT_EMPTY } else { NOT_FULL }, page, all).await;
        u.pi_unlock(page, false).await;
        check_own_priority(u);
    };
    program(move |u| async move {
        let page = u.map(8192, false).await;
        count_signals(u, page, restart).await;
        run_threads(u, page, producers + consumers, signals, move |index| {
            program(move |u| async move {
                let produces = index < producers;
                for item in 0..items * if produces { consumers } else { producers } {
                    step(u, page, produces, (index * 1000 + item + 1) as u32).await;
                }
                0
            })
        })
        .await;
        let each = items * consumers;
        let expected: u64 = (0..producers).map(|index| index * 1000 * each + each * (each + 1) / 2).sum();
        assert_eq!(u64::from(u.load(page + SUM).await), expected, "sum of what was consumed");
        assert!(futex::pi::is_idle(), "locks or waiters are left in the kernel");
        0
    })
}

/// Processes that share locks are killed at any time; the locks go on.
pub fn robust(setup: &mut Setup) -> Program {
    const SIGKILL: u64 = 9;
    let workers = setup.rng.range(2, 5);
    let locks = setup.rng.range(1, 3);
    let rounds = setup.rng.range(5, 30);
    let kills = setup.rng.range(1, 12);
    let lends = setup.rng.below(3);
    // Of all locks, of none, or of every second one.
    let is_pi = move |index: u64| lends == 0 || lends == 2 && index.is_multiple_of(2);
    let body = move |page: u64| {
        program(move |u| async move {
            let head = u.map(4096, false).await;
            u.robust_list(head).await;
            for _ in 0..rounds {
                let index = u.random(locks);
                let (word, pi) = (lock_at(page, index), is_pi(index));
                let died = u.robust_lock(head, word, pi).await;
                let before = u.swap(page + OWNERS + 4 * index, u.tid()).await;
                assert!(before == 0 || died, "{} and {before} hold lock {index} at the same time", u.tid());
                u.pause(5_000).await;
                let still = u.swap(page + OWNERS + 4 * index, 0).await;
                assert!(still == u.tid(), "{} holds lock {index} and found {still}", u.tid());
                u.robust_unlock(head, word, pi).await;
            }
            0
        })
    };
    program(move |u| async move {
        let page = u.map(4096, true).await;
        let mut pids = Vec::new();
        for _ in 0..workers {
            pids.push(u.fork(body(page)).await);
        }
        for _ in 0..kills {
            u.pause(60_000).await;
            let slot = u.random(workers) as usize;
            u.call(129, &[pids[slot] as u64, SIGKILL]).await;
            reap(u, pids[slot]).await;
            pids[slot] = u.fork(body(page)).await;
        }
        for pid in pids {
            reap(u, pid).await;
        }
        for index in 0..locks {
            let word = u.load(lock_at(page, index)).await;
            assert!(word & TID_MASK == 0, "lock {index} is {word:#x} at the end");
        }
        assert!(futex::pi::is_idle(), "locks or waiters are left in the kernel");
        0
    })
}

/// Waits for the end of a child: its own, or by SIGKILL.
async fn reap(u: U, pid: i64) {
    let status = u.scratch(4);
    let waited = u.call(260, &[pid as u64, status, 0, 0]).await;
    let status = u.load(status).await;
    assert!(waited == pid && (status == 0 || status == 9), "wait4: {}, status {status:#x}", errno(waited));
}
