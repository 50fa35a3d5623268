use super::Manual;
use crate::exec::test_util::{advance, block_on, machine, run_until_idle};
use crate::exec::{Elapsed, Event, Instant, TimerHandle, sleep_until, spawn, timeout};
use core::sync::atomic::Ordering::SeqCst;
use core::task::Waker;
use core::time::Duration;
use std::sync::{Arc, Mutex};
use std::vec::Vec;

fn after(ms: u64) -> Instant {
    Instant::now().saturating_add(Duration::from_millis(ms))
}

#[test]
fn sleepers_wake_in_the_order_of_their_deadlines() {
    let log = Arc::new(Mutex::new(Vec::new()));
    for ms in [30, 10, 20, 10, 40, 0] {
        let (log, at) = (log.clone(), after(ms));
        spawn("sleeper", async move {
            sleep_until(at).await;
            assert!(Instant::now() >= at);
            log.lock().unwrap().push(ms);
        });
    }
    run_until_idle();
    assert_eq!(*log.lock().unwrap(), [0]);
    advance(Duration::from_millis(25));
    assert_eq!(*log.lock().unwrap(), [0, 10, 10, 20]);
    advance(Duration::from_millis(25));
    assert_eq!(*log.lock().unwrap(), [0, 10, 10, 20, 30, 40]);
}

#[test]
fn a_dropped_sleeper_leaves_no_timer() {
    for polls in 0..3 {
        let mut sleeper = Manual::new(sleep_until(after(10)));
        (0..polls).for_each(|_| assert!(sleeper.poll().is_pending()));
        drop(sleeper);
        advance(Duration::from_millis(20));
        assert_eq!(machine::next_timer(), None);
    }
}

#[test]
fn a_timeout_ends_the_wait_and_what_is_ready_wins() {
    let event = Arc::new(Event::new());
    let start = Instant::now();
    let waiter = event.clone();
    let result = block_on(async move { timeout(Some(after(5)), waiter.wait()).await });
    assert_eq!(result, Err(Elapsed));
    assert_eq!(Instant::now().saturating_since(start), Duration::from_millis(5));
    event.set();
    assert_eq!(block_on(async move { timeout(Some(Instant::BOOT), event.wait()).await }), Ok(()));
}

#[test]
fn sleeping_for_ever_arms_nothing() {
    let mut sleeper = Manual::new(sleep_until(Instant::NEVER));
    assert!(sleeper.poll().is_pending());
    assert_eq!(machine::next_timer(), None);
}

#[test]
fn a_timer_handle_calls_its_waker_once() {
    let count = Arc::new(super::Count::default());
    let mut timer = TimerHandle::new();
    timer.arm(after(10), Waker::from(count.clone()));
    timer.arm(after(20), Waker::from(count.clone()));
    advance(Duration::from_millis(15));
    assert_eq!(count.0.load(SeqCst), 0);
    advance(Duration::from_millis(15));
    assert_eq!(count.0.load(SeqCst), 1);
    timer.arm(after(10), Waker::from(count.clone()));
    timer.cancel();
    advance(Duration::from_millis(15));
    assert_eq!((count.0.load(SeqCst), Arc::strong_count(&count)), (1, 1));
}

#[test]
fn many_timers_fire_exactly_at_their_times() {
    let fired = Arc::new(Mutex::new(Vec::new()));
    let mut seed = 12345u64;
    for _ in 0..500 {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let (at, fired) = (after(seed >> 54), fired.clone());
        spawn("sleeper", async move {
            sleep_until(at).await;
            assert_eq!(Instant::now(), at);
            fired.lock().unwrap().push(at);
        });
    }
    advance(Duration::from_secs(2));
    let fired = fired.lock().unwrap();
    assert!(fired.len() == 500 && fired.is_sorted());
}
