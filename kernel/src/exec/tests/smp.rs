//! Real threads as CPUs: nothing may be lost or done twice, whatever the interleaving.

use crate::exec::test_util::machine::{self, Clock};
use crate::exec::{
    Entity, Instant, Mutex, SchedParams, Semaphore, WaitQueue, sleep_until, spawn, spawn_entity, timeout, yield_now,
};
use core::future::{Future, poll_fn};
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::SeqCst;
use core::task::Poll;
use core::time::Duration;
use std::sync::Arc;

/// Miri, which looks for data races and tries weak memory orders, is some thousand times slower.
const SLOW: usize = if cfg!(miri) { 50 } else { 1 };
const LIMIT: u64 = 20_000_000_000;

/// Runs `tasks` futures on `cpus` CPUs until all have ended.
fn run_all<F: Future<Output = ()> + Send + 'static>(cpus: usize, tasks: usize, task: impl Fn(usize) -> F) {
    let left = Arc::new(AtomicUsize::new(tasks));
    let remaining = left.clone();
    machine::run(Clock::Real, cpus, LIMIT, || {
        for id in 0..tasks {
            let (future, left) = (task(id), remaining.clone());
            spawn("stress", async move {
                future.await;
                if left.fetch_sub(1, SeqCst) == 1 {
                    machine::stop_early();
                }
            });
        }
    });
    assert_eq!(left.load(SeqCst), 0, "tasks hang");
}

fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    *seed >> 33
}

#[test]
fn tokens_go_round_rings() {
    const RING: usize = 4;
    let queues: Arc<[_; 6]> = Arc::new(core::array::from_fn(|_| (WaitQueue::new(), AtomicUsize::new(0))));
    run_all(3, 6 * RING, |id| {
        let queues = queues.clone();
        async move {
            let (queue, turn) = &queues[id / RING];
            for round in 0..500 / SLOW {
                let mine = round * RING + id % RING;
                queue.wait_for(|| (turn.load(SeqCst) == mine).then_some(())).await;
                turn.fetch_add(1, SeqCst);
                queue.wake_all();
            }
        }
    });
}

#[test]
fn every_item_is_taken_once_although_waiters_give_up() {
    const ITEMS: usize = 3000 / SLOW;
    let queue = Arc::new((WaitQueue::new(), AtomicUsize::new(0), AtomicUsize::new(0)));
    run_all(4, 12, |id| {
        let shared = queue.clone();
        async move {
            let (queue, items, taken) = &*shared;
            let mut seed = id as u64;
            if id < 4 {
                for _ in 0..ITEMS {
                    items.fetch_add(1, SeqCst);
                    queue.wake_one();
                    if random(&mut seed).is_multiple_of(4) {
                        yield_now().await;
                    }
                }
                return;
            }
            while taken.load(SeqCst) < 4 * ITEMS {
                let take = || items.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).ok();
                let patience = Duration::from_micros(random(&mut seed) % 300);
                let deadline = Instant::now().saturating_add(patience);
                // One in four waits without limit: it depends on wakes being passed on.
                let deadline = if id % 4 == 0 { None } else { Some(deadline) };
                let done = || (taken.load(SeqCst) >= 4 * ITEMS).then_some(usize::MAX);
                match timeout(deadline, queue.wait_for_exclusive(|| take().or_else(done))).await {
                    Ok(usize::MAX) => break,
                    Ok(_) => {
                        if taken.fetch_add(1, SeqCst) + 1 == 4 * ITEMS {
                            queue.wake_all();
                        }
                    }
                    Err(_) => {}
                }
            }
        }
    });
    assert_eq!((queue.1.load(SeqCst), queue.2.load(SeqCst)), (0, 4 * ITEMS));
}

#[test]
fn a_mutex_excludes_and_survives_cancelled_waiters() {
    let mutex = Arc::new(Mutex::new((0u64, false)));
    run_all(4, 8, |id| {
        let mutex = mutex.clone();
        async move {
            let mut seed = id as u64 + 99;
            let mut done = 0;
            while done < 500 / SLOW {
                let deadline = Instant::now().saturating_add(Duration::from_micros(random(&mut seed) % 200));
                if let Ok(mut guard) = timeout(Some(deadline), mutex.lock()).await {
                    assert!(!guard.1);
                    guard.1 = true;
                    guard.0 += 1;
                    if random(&mut seed).is_multiple_of(3) {
                        yield_now().await;
                    }
                    guard.1 = false;
                    done += 1;
                }
            }
        }
    });
    assert_eq!(mutex.try_lock().unwrap().0, 8 * (500 / SLOW as u64));
}

#[test]
fn semaphores_keep_their_permits() {
    let semaphore = Arc::new(Semaphore::new(5));
    run_all(3, 9, |id| {
        let semaphore = semaphore.clone();
        async move {
            let mut seed = id as u64;
            for _ in 0..400 / SLOW {
                let permits = 1 + random(&mut seed) as usize % 5;
                let deadline = Instant::now().saturating_add(Duration::from_micros(random(&mut seed) % 100));
                if timeout(Some(deadline), semaphore.acquire(permits)).await.is_ok() {
                    yield_now().await;
                    semaphore.release(permits);
                }
            }
        }
    });
    assert_eq!(semaphore.available(), 5);
}

#[test]
fn tasks_come_and_go_and_sleep() {
    run_all(4, if cfg!(miri) { 6 } else { 40 }, |id| async move {
        let done = Arc::new((WaitQueue::new(), AtomicUsize::new(0)));
        for round in 0..20 {
            let child = done.clone();
            spawn_entity(Entity::new(SchedParams::default()), async move {
                sleep_until(Instant::now().saturating_add(Duration::from_micros(((id * 7 + round) % 50) as u64))).await;
                child.1.fetch_add(1, SeqCst);
                child.0.wake_all();
            });
            done.0.wait_for(|| (done.1.load(SeqCst) == round + 1).then_some(())).await;
        }
    });
}

#[test]
fn an_entity_wakes_its_task_from_anywhere() {
    const ROUNDS: usize = 1000 / SLOW;
    let entity = Entity::new(SchedParams::default());
    let flag = Arc::new(AtomicUsize::new(0));
    run_all(2, 1, |_| {
        let (flag, entity) = (flag.clone(), entity.clone());
        async move {
            let seen = flag.clone();
            spawn_entity(entity.clone(), async move {
                for round in 0..ROUNDS {
                    poll_fn(|_| if seen.load(SeqCst) > 2 * round { Poll::Ready(()) } else { Poll::Pending }).await;
                    seen.fetch_add(1, SeqCst);
                }
            });
            for round in 0..ROUNDS {
                while flag.load(SeqCst) != 2 * round {
                    yield_now().await;
                }
                flag.fetch_add(1, SeqCst);
                entity.wake();
            }
        }
    });
    assert!(flag.load(SeqCst) >= 2 * ROUNDS - 1);
}
