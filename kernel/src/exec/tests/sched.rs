//! Who gets how much of which CPU, in virtual time.

use crate::exec::test_util::machine::{self, Clock};
use crate::exec::test_util::{run_until_idle, set_cpus};
use crate::exec::{
    CpuMask, Entity, SchedParams, SchedPolicy, WaitQueue, need_resched, sleep_until, spawn_entity, yield_now,
};
use crate::exec::{Instant, cpu_stats};
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::SeqCst;
use core::time::Duration;
use std::sync::Arc;
use std::vec::Vec;

const MS: u64 = 1_000_000;

/// A user thread's loop around `work` ns of computing, or for ever.
async fn compute(entity: &Entity, mut work: u64) {
    while work > 0 && !machine::is_over() {
        let done = entity.in_user(|| machine::work(work));
        work = work.saturating_sub(done);
        if need_resched() {
            yield_now().await;
        }
    }
}

fn hog(params: SchedParams) -> Arc<Entity> {
    let entity = Entity::new(params);
    let me = entity.clone();
    spawn_entity(entity.clone(), async move { compute(&me, u64::MAX).await });
    entity
}

fn nice(nice: i8) -> SchedParams {
    SchedParams { nice, ..Default::default() }
}

fn policy(policy: SchedPolicy) -> SchedParams {
    SchedParams { policy, ..Default::default() }
}

fn shares(cpus: usize, ms: u64, params: &[SchedParams]) -> Vec<f64> {
    let mut entities = Vec::new();
    machine::run(Clock::Lockstep, cpus, ms * MS, || entities = params.iter().map(|params| hog(*params)).collect());
    entities.iter().map(|entity| entity.utime_ns() as f64 / (ms * MS) as f64).collect()
}

fn assert_close(got: f64, want: f64) {
    assert!((got - want).abs() < 0.03, "{got} instead of {want}");
}

#[test]
fn equal_tasks_get_equal_shares() {
    shares(1, 600, &[nice(0); 3]).into_iter().for_each(|share| assert_close(share, 1.0 / 3.0));
}

#[test]
fn shares_follow_nice_weights() {
    let shares = shares(1, 2000, &[nice(0), nice(5)]);
    assert_close(shares[0], 1024.0 / (1024.0 + 335.0));
    assert_close(shares[1], 335.0 / (1024.0 + 335.0));
}

#[test]
fn idle_class_gets_next_to_nothing_and_real_time_everything() {
    let with_idle = shares(1, 1000, &[nice(0), policy(SchedPolicy::Idle)]);
    assert!(with_idle[0] > 0.98, "{with_idle:?}");
    let with_fifo = std::thread::spawn(|| shares(1, 200, &[nice(-20), policy(SchedPolicy::Fifo(1))])).join().unwrap();
    assert!(with_fifo[1] > 0.98, "{with_fifo:?}");
}

#[test]
fn real_time_tasks_leave_a_part_to_others() {
    let shares = shares(1, 4000, &[nice(0), policy(SchedPolicy::Fifo(50)), policy(SchedPolicy::Rr(60))]);
    assert_close(shares[0], 0.05);
    assert_close(shares[2], 0.95);
}

#[test]
fn round_robin_tasks_of_one_priority_take_turns_and_fifo_ones_do_not() {
    shares(1, 1000, &[policy(SchedPolicy::Rr(5)); 2]).into_iter().for_each(|share| assert_close(share, 0.5));
    let fifo = std::thread::spawn(|| shares(1, 500, &[policy(SchedPolicy::Fifo(5)); 2])).join().unwrap();
    assert_close(fifo[0], 1.0);
}

#[test]
fn a_lent_priority_counts_until_it_is_taken_back() {
    let mut entities = Vec::new();
    machine::run(Clock::Lockstep, 1, 100 * MS, || {
        entities.extend([hog(nice(0)), hog(policy(SchedPolicy::Fifo(10)))]);
        let (low, running) = (entities[0].clone(), entities[1].clone());
        spawn_entity(Entity::new(policy(SchedPolicy::Fifo(99))), async move {
            sleep_until(Instant::now().saturating_add(Duration::from_millis(20))).await;
            low.lend(50);
            assert_eq!((low.policy(), low.active_policy()), (SchedPolicy::Other, SchedPolicy::Fifo(50)));
            sleep_until(Instant::now().saturating_add(Duration::from_millis(30))).await;
            low.lend(0);
            // Less than its own counts for nothing.
            running.lend(5);
            assert_eq!(running.active_policy(), SchedPolicy::Fifo(10));
        });
    });
    let ran = entities[0].utime_ns() / MS;
    assert!((28..=32).contains(&ran), "{ran} ms");
}

#[test]
fn as_many_loops_as_cpus_get_one_each() {
    shares(4, 100, &[nice(0); 4]).into_iter().for_each(|share| assert!(share > 0.95, "{share}"));
}

#[test]
fn five_loops_share_four_cpus() {
    let shares = shares(4, 2000, &[nice(0); 5]);
    assert!(shares.iter().all(|share| *share > 0.6), "{shares:?}");
    assert_close(shares.iter().sum::<f64>(), 4.0);
}

#[test]
fn affinity_is_obeyed_from_the_start_and_when_it_changes() {
    let pinned = SchedParams { affinity: CpuMask::of(2), ..Default::default() };
    let mut entities = Vec::new();
    machine::run(Clock::Lockstep, 4, 60 * MS, || {
        entities.extend([hog(pinned), hog(pinned), hog(nice(0))]);
        let moved = entities[1].clone();
        spawn_entity(Entity::new(nice(0)), async move {
            sleep_until(Instant::from_nanos(20 * MS)).await;
            assert_eq!(moved.last_cpu(), 2);
            moved.set_affinity(CpuMask::of(3));
            sleep_until(Instant::from_nanos(25 * MS)).await;
            assert_eq!(moved.last_cpu(), 3);
        });
    });
    assert_eq!(entities[0].last_cpu(), 2);
    assert!(entities[0].utime_ns() > 45 * MS && entities[1].utime_ns() > 40 * MS && entities[2].utime_ns() > 55 * MS);
}

/// Two tasks that hand a token to and fro, computing a little in between.
fn ping_pong(params: SchedParams, work: u64) -> [Arc<Entity>; 2] {
    let queue = Arc::new(WaitQueue::new());
    let turn = Arc::new(AtomicBool::new(false));
    [false, true].map(|me| {
        let entity = Entity::new(params);
        let (queue, turn, this) = (queue.clone(), turn.clone(), entity.clone());
        spawn_entity(entity.clone(), async move {
            while !machine::is_over() {
                queue.wait_for(|| (turn.load(SeqCst) == me || machine::is_over()).then_some(())).await;
                compute(&this, work).await;
                turn.store(!me, SeqCst);
                queue.wake_all();
            }
        });
        entity
    })
}

#[test]
fn a_ping_pong_pair_does_not_starve_others() {
    let mut entities = Vec::new();
    machine::run(Clock::Lockstep, 1, 500 * MS, || {
        entities.extend(ping_pong(nice(0), 10_000));
        entities.push(hog(nice(0)));
    });
    let shares: Vec<_> = entities.iter().map(|entity| entity.utime_ns() as f64 / (500 * MS) as f64).collect();
    // The pair never wants the CPU at the same time: together it is entitled to as much as the third.
    assert!(shares[2] > 0.30, "{shares:?}");
    assert!(shares[0] + shares[1] > 0.30, "{shares:?}");
}

#[test]
fn a_woken_sleeper_runs_soon() {
    let late = Arc::new(core::sync::atomic::AtomicU64::new(0));
    let worst = late.clone();
    machine::run(Clock::Lockstep, 1, 300 * MS, || {
        (0..4).for_each(|_| drop(hog(nice(0))));
        spawn_entity(Entity::new(nice(0)), async move {
            loop {
                let at = Instant::now().saturating_add(Duration::from_millis(10));
                sleep_until(at).await;
                worst.fetch_max(Instant::now().saturating_since(at).as_nanos() as u64, SeqCst);
            }
        });
    });
    assert!(late.load(SeqCst) < 2 * MS, "{} ns", late.load(SeqCst));
}

#[test]
fn a_task_with_live_fp_state_is_not_stolen() {
    let mut entities = Vec::new();
    machine::run(Clock::Lockstep, 2, 50 * MS, || {
        // Both start on CPU 0, and cannot leave it although CPU 1 idles.
        entities = (0..2)
            .map(|_| {
                let entity = Entity::new(SchedParams { affinity: CpuMask::of(0), ..Default::default() });
                let me = entity.clone();
                spawn_entity(entity.clone(), async move {
                    me.set_fp_live(0);
                    me.set_affinity(CpuMask::ALL);
                    compute(&me, u64::MAX).await;
                });
                entity
            })
            .collect();
    });
    assert!(entities.iter().all(|entity| entity.last_cpu() == 0));
    entities.iter().for_each(|entity| assert_close(entity.utime_ns() as f64 / (50 * MS) as f64, 0.5));
}

#[test]
fn a_consumer_of_a_busy_producer_moves_to_an_idle_cpu() {
    let mut consumer = None;
    machine::run(Clock::Lockstep, 2, 50 * MS, || {
        let queue = Arc::new(WaitQueue::new());
        let flag = Arc::new(AtomicBool::new(false));
        let entity = Entity::new(SchedParams { affinity: CpuMask::of(0), ..Default::default() });
        consumer = Some(entity.clone());
        let (theirs, ready, me) = (queue.clone(), flag.clone(), entity.clone());
        spawn_entity(entity, async move {
            me.set_affinity(CpuMask::ALL);
            theirs.wait_for(|| ready.load(SeqCst).then_some(())).await;
            compute(&me, u64::MAX).await;
        });
        let producer = Entity::new(SchedParams { affinity: CpuMask::of(0), ..Default::default() });
        let me = producer.clone();
        spawn_entity(producer, async move {
            compute(&me, 5 * MS).await;
            flag.store(true, SeqCst);
            queue.wake_all();
            compute(&me, u64::MAX).await;
        });
    });
    let consumer = consumer.unwrap();
    assert_eq!(consumer.last_cpu(), 1);
    assert!(consumer.utime_ns() > 44 * MS, "{}", consumer.utime_ns());
}

#[test]
fn times_are_accounted_and_a_lone_loop_takes_no_timer_interrupts() {
    let mut entity = None;
    machine::run(Clock::Lockstep, 2, 100 * MS, || entity = Some(hog(nice(0))));
    let entity = entity.unwrap();
    set_cpus(2);
    let stats = cpu_stats(entity.last_cpu());
    assert!(entity.utime_ns() > 99 * MS && entity.stime_ns() < MS);
    assert!(stats.user_ns > 99 * MS && stats.idle_ns < MS, "{stats:?}");
    assert!(stats.timer_irqs <= 1, "{stats:?}");
    let other = cpu_stats(1 - entity.last_cpu());
    assert!(other.idle_ns > 98 * MS && other.timer_irqs == 0, "{other:?}");
}

#[test]
fn a_task_that_waits_for_a_hand_over_and_becomes_a_real_time_task_runs_at_once() {
    let (queue, woken) = (Arc::new(WaitQueue::new()), Arc::new(AtomicBool::new(false)));
    let (told, wait, ran) = (Arc::new(AtomicBool::new(false)), queue.clone(), woken.clone());
    let sleeper = Entity::new(SchedParams::default());
    spawn_entity(sleeper.clone(), async move {
        wait.wait().await;
        ran.store(true, SeqCst);
    });
    let result = told.clone();
    spawn_entity(Entity::new(SchedParams::default()), async move {
        yield_now().await;
        queue.wake_all();
        assert!(!need_resched(), "it is to wait until this task does");
        sleeper.set_policy(SchedPolicy::Fifo(1));
        told.store(need_resched(), SeqCst);
        yield_now().await;
        assert!(woken.load(SeqCst));
    });
    run_until_idle();
    assert!(result.load(SeqCst));
}

#[test]
fn a_demoted_or_promoted_task_is_moved_in_the_queue() {
    let mut entities = Vec::new();
    machine::run(Clock::Lockstep, 1, 100 * MS, || {
        entities = (0..3).map(|_| hog(nice(0))).collect();
        let promoted = entities[2].clone();
        spawn_entity(Entity::new(policy(SchedPolicy::Fifo(90))), async move {
            sleep_until(Instant::from_nanos(10 * MS)).await;
            promoted.set_policy(SchedPolicy::Fifo(50));
        });
    });
    assert!(entities[2].utime_ns() > 90 * MS, "{}", entities[2].utime_ns());
}
