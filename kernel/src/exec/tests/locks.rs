use super::Manual;
use crate::exec::test_util::run_until_idle;
use crate::exec::{Event, Mutex, Notify, RwLock, Semaphore, spawn, yield_now};
use core::task::Poll;
use std::sync::Arc;
use std::vec::Vec;

#[test]
fn a_mutex_is_handed_over_in_order() {
    let log = Arc::new(Mutex::new(Vec::new()));
    for me in 0..5 {
        let log = log.clone();
        spawn("writer", async move {
            for _ in 0..3 {
                let mut log = log.lock().await;
                yield_now().await;
                log.push(me);
            }
        });
    }
    run_until_idle();
    let log = log.try_lock().unwrap();
    assert_eq!(*log, [0, 1, 2, 3, 4].repeat(3));
}

#[test]
fn a_lock_granted_to_a_dropped_waiter_goes_to_the_next() {
    for polls in 0..3 {
        let mutex = Mutex::new(());
        let guard = mutex.try_lock().unwrap();
        let mut first = Manual::new(mutex.lock());
        let mut second = Manual::new(mutex.lock());
        (0..polls).for_each(|_| assert!(first.poll().is_pending()));
        assert!(second.poll().is_pending());
        drop(guard);
        drop(first);
        let Poll::Ready(guard) = second.poll() else { panic!("lost after {polls} polls") };
        drop(guard);
        assert!(mutex.try_lock().is_some());
    }
}

#[test]
fn nobody_overtakes_a_waiter() {
    let mutex = Mutex::new(());
    let guard = mutex.try_lock();
    let mut first = Manual::new(mutex.lock());
    assert!(first.poll().is_pending());
    drop(guard);
    assert!(mutex.try_lock().is_none());
    assert!(first.poll().is_ready());
}

#[test]
fn writers_wait_for_readers_and_readers_for_earlier_writers() {
    let lock = RwLock::new(1);
    let (one, two) = (lock.try_read().unwrap(), lock.try_read().unwrap());
    let mut writer = Manual::new(lock.write());
    assert!(writer.poll().is_pending());
    let mut readers: Vec<_> = (0..10).map(|_| Manual::new(lock.read())).collect();
    readers.iter_mut().for_each(|reader| assert!(reader.poll().is_pending()));
    drop((one, two));
    let Poll::Ready(mut guard) = writer.poll() else { panic!() };
    *guard = 2;
    readers.iter_mut().for_each(|reader| assert!(reader.poll().is_pending()));
    drop(guard);
    let guards: Vec<_> = readers.iter_mut().map(|reader| reader.poll()).collect();
    assert!(guards.iter().all(|guard| matches!(guard, Poll::Ready(guard) if **guard == 2)));
}

#[test]
fn a_large_claim_that_goes_away_lets_smaller_ones_through() {
    let semaphore = Semaphore::new(2);
    let mut large = Manual::new(semaphore.acquire(3));
    let mut small = Manual::new(semaphore.acquire(2));
    assert!(large.poll().is_pending() && small.poll().is_pending());
    drop(large);
    assert_eq!(small.wakes(), 1);
    assert!(small.poll().is_ready());
    assert_eq!(semaphore.available(), 0);
}

#[test]
fn events_and_tokens() {
    let (event, notify) = (Event::new(), Notify::new());
    let mut waiter = Manual::new(event.wait());
    assert!(waiter.poll().is_pending());
    event.set();
    assert!(waiter.poll().is_ready());
    notify.notify();
    notify.notify();
    assert!(Manual::new(notify.wait()).poll().is_ready());
    assert!(Manual::new(notify.wait()).poll().is_pending());
}
